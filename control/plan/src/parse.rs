//! Bytes to a plan: well-formed JSON, the right shape, then [`Plan::validate`].
//!
//! Enters: the bytes of one JSON document. Leaves: a plan, or the refusal with its place. Shape errors come from serde, whose texts
//! are taken apart here so that every refusal has the same four parts; the document is read a second time only then, to show the
//! value at fault and the name of its rule.

use crate::error::{quote, shorten};
use crate::{Plan, PlanError, bounds};
use serde_json::Value;
use serde_json::error::Category;
use serde_path_to_error::Segment;

impl Plan {
    /// Reads and checks a plan.
    ///
    /// # Errors
    /// The first thing found wrong: syntax with line and column, then shape, then ranges and combinations.
    pub fn parse(json: &[u8]) -> Result<Plan, PlanError> {
        if json.len() > bounds::PLAN_BYTES {
            let size = format!("of {} bytes", json.len());
            return Err(PlanError::of("", size, format!("a document of at most {} bytes", bounds::PLAN_BYTES)));
        }
        let mut reader = serde_json::Deserializer::from_slice(json);
        let plan: Plan = serde_path_to_error::deserialize(&mut reader).map_err(|error| refusal(json, error))?;
        reader.end().map_err(|error| syntax(&error, "nothing after the plan"))?;
        plan.validate()?;
        Ok(plan)
    }
}

/// A document that is not JSON.
fn syntax(error: &serde_json::Error, allowed: &str) -> PlanError {
    PlanError { at: Some((error.line(), error.column())), ..PlanError::of("", "", allowed) }
}

/// What serde found wrong, in our words.
fn refusal(json: &[u8], error: serde_path_to_error::Error<serde_json::Error>) -> PlanError {
    let inner = error.inner();
    let full = inner.to_string();
    let place = format!(" at line {} column {}", inner.line(), inner.column());
    let text = full.strip_suffix(&place).unwrap_or(&full);
    if inner.classify() != Category::Data {
        return syntax(inner, &format!("well-formed JSON ({text})"));
    }

    let mut path: Vec<Segment> = error.path().iter().cloned().collect();
    let (allowed, missing) = explain(text, &mut path);
    let document: Value = serde_json::from_slice(json).unwrap_or(Value::Null);
    let rule = blamed(&document, &path);
    let relative = path.get(if rule.is_some() { 2 } else { 0 }..).unwrap_or_default();
    let field = path_text(relative);
    let value = match found(&document, &path) {
        _ if missing => String::new(),
        Some(Value::String(secret)) if field == "hash_key" => format!("(hidden, {} characters)", secret.chars().count()),
        Some(value) => shorten(&value.to_string()),
        None => String::new(),
    };
    PlanError { rule, field, value, allowed, at: Some((inner.line(), inner.column())) }
}

/// What is allowed, from serde's text; the path is completed with the field that the text names. The flag says that the fault is
/// an absence or a repetition, which no value shows.
fn explain(text: &str, path: &mut Vec<Segment>) -> (String, bool) {
    let named = text.split('`').nth(1).unwrap_or_default();
    let at_name = |path: &mut Vec<Segment>| {
        if !matches!(path.last(), Some(Segment::Map { key }) if key == named) {
            path.push(Segment::Map { key: named.to_owned() });
        }
    };
    let expected = text.split_once("expected ").map(|(_, rest)| rest.replace('`', ""));
    if text.starts_with("missing field") {
        at_name(path);
        ("a value: the field is required".to_owned(), true)
    } else if text.starts_with("duplicate field") {
        at_name(path);
        ("the field once, not twice".to_owned(), true)
    } else if text.starts_with("unknown field") {
        at_name(path);
        (format!("no such field; known here: {}", listed(&expected.unwrap_or_default())), true)
    } else if text.starts_with("unknown variant") {
        (listed(&expected.unwrap_or_default()), false)
    } else {
        (expected.filter(|_| text.starts_with("invalid ")).unwrap_or_else(|| text.to_owned()), false)
    }
}

/// Serde's list of names without its introduction.
fn listed(expected: &str) -> String {
    expected.strip_prefix("one of ").unwrap_or(expected).to_owned()
}

/// The rule on the path, with its name in the document.
fn blamed(document: &Value, path: &[Segment]) -> Option<(usize, String)> {
    let [Segment::Map { key }, Segment::Seq { index }, ..] = path else { return None };
    if key != "rules" {
        return None;
    }
    let name = document.get("rules").and_then(|rules| rules.get(*index)).and_then(|rule| rule.get("name"));
    Some((*index, shorten(name.and_then(Value::as_str).unwrap_or_default())))
}

/// The value at the path.
fn found<'d>(document: &'d Value, path: &[Segment]) -> Option<&'d Value> {
    path.iter().try_fold(document, |value, segment| match segment {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(index),
        _ => None,
    })
}

/// The path as text: `fold.labels.drop.attributes[1]`. Keys of a stranger are quoted.
fn path_text(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                text.push_str(&shorten(&if plain && !key.is_empty() { key.clone() } else { quote(key) }));
            }
            _ => {}
        }
    }
    text
}
