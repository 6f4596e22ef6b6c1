//! The refusal of a plan: which rule, which field, which value, and what would have been allowed.
//!
//! Enters: the parts, from parsing or validation. Leaves: one line of text. Values are shortened, and the hash key is never shown.

use std::fmt;

/// Longest piece of a value that an error repeats, in bytes: enough to find it, short enough for a log line.
const VALUE_SHOWN_BYTES: usize = 80;

/// Why a plan was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The rule at fault: its index in `rules` (from 0; the text counts from 1) and its whole name, empty where it has none.
    pub rule: Option<(usize, String)>,
    /// Path of the field, relative to the rule where there is one: `fold.window`, `limits.series_max`. Empty: the whole document.
    pub field: String,
    /// The value as JSON, shortened.
    pub value: String,
    /// What is allowed instead, as text.
    pub allowed: String,
    /// Line and column (both from 1) where reading stopped; none when the document was well formed and only a value is refused.
    pub at: Option<(u32, u32)>,
}

impl PlanError {
    /// A refusal outside any rule. `value` is JSON already, and short.
    pub(crate) fn of(
        field: impl Into<String>,
        value: impl Into<String>,
        allowed: impl Into<String>,
    ) -> PlanError {
        PlanError { rule: None, field: field.into(), value: value.into(), allowed: allowed.into(), at: None }
    }

    /// The same refusal, blamed on a rule.
    pub(crate) fn in_rule(mut self, index: usize, name: &str) -> PlanError {
        self.rule = Some((index, name.to_owned()));
        self
    }

    /// The same refusal, with `prefix.` before its field.
    pub(crate) fn under(mut self, prefix: &str) -> PlanError {
        self.field = match self.field.as_str() {
            "" => prefix.to_owned(),
            rest if rest.starts_with('[') => format!("{prefix}{rest}"),
            rest => format!("{prefix}.{rest}"),
        };
        self
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plan refused: ")?;
        if let Some((line, column)) = self.at {
            write!(f, "line {line} column {column}: ")?;
        }
        if let Some((index, name)) = &self.rule {
            write!(f, "rule {}", index.saturating_add(1))?;
            if !name.is_empty() {
                write!(f, " {}", quote(name))?;
            }
            f.write_str(": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "field {}: ", self.field)?;
        }
        if !self.value.is_empty() {
            write!(f, "value {} is not allowed; ", self.value)?;
        }
        write!(f, "allowed: {}", self.allowed)
    }
}

impl std::error::Error for PlanError {}

/// `text` as a JSON string, shortened, so that quotes and control characters in it stay visible and harmless.
pub(crate) fn quote(text: &str) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    match cut(text) {
        None => quoted(text),
        Some(start) => format!("{}… ({} bytes)", quoted(start), text.len()),
    }
}

/// `text`, shortened.
pub(crate) fn shorten(text: &str) -> String {
    match cut(text) {
        None => text.to_owned(),
        Some(start) => format!("{start}… ({} bytes)", text.len()),
    }
}

/// The part of a long text that is shown, up to a character's boundary; none when all of it may be.
fn cut(text: &str) -> Option<&str> {
    if text.len() <= VALUE_SHOWN_BYTES {
        return None;
    }
    (0..=VALUE_SHOWN_BYTES).rev().find_map(|end| text.get(..end))
}
