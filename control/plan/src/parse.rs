//! Bytes to a plan: well-formed JSON, the right shape, then [`Plan::validate`].
//!
//! Enters: the bytes of one JSON document. Leaves: a plan, or the refusal with its place. Shape errors come from serde, whose texts
//! are taken apart here so that every refusal has the same four parts; the document is read a second time only then, to show the
//! value at fault and the name of its rule.

use crate::error::{quote, shorten};
use crate::shape::Object;
use crate::{Plan, PlanError, bounds};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;
use serde_path_to_error::Segment;

impl Plan {
    /// Reads and checks a plan.
    ///
    /// # Errors
    /// The first thing found wrong: syntax with line and column, then shape, then ranges and combinations.
    pub fn parse(json: &[u8]) -> Result<Plan, PlanError> {
        let plan: Plan = read(json)?;
        plan.validate()?;
        Ok(plan)
    }
}

/// Reads any document by the shape of `T`, with the refusals of a plan. For what wraps a plan: a shell's own configuration beside
/// `"plan": {…}`, say. Nothing is validated beyond the shape: call [`Plan::validate`] on the plan inside.
///
/// # Errors
/// Syntax with line and column, or the first field of the wrong shape.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, PlanError> {
    if json.len() > bounds::PLAN_BYTES {
        let size = format!("of {} bytes", json.len());
        return Err(PlanError::of("", size, format!("a document of at most {} bytes", bounds::PLAN_BYTES)));
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let Object(document) =
        serde_path_to_error::deserialize(&mut reader).map_err(|error| refusal(json, &error))?;
    reader.end().map_err(|error| syntax(&error, "nothing after the document"))?;
    Ok(document)
}

/// A document that is not JSON.
fn syntax(error: &serde_json::Error, allowed: &str) -> PlanError {
    PlanError { at: place(error), ..PlanError::of("", "", allowed) }
}

/// Line and column of an error; they fit, since `bounds::PLAN_BYTES` do.
fn place(error: &serde_json::Error) -> Option<(u32, u32)> {
    Some((u32::try_from(error.line()).ok()?, u32::try_from(error.column()).ok()?))
}

/// What serde found wrong, in our words.
fn refusal(json: &[u8], error: &serde_path_to_error::Error<serde_json::Error>) -> PlanError {
    let inner = error.inner();
    let full = inner.to_string();
    let suffix = format!(" at line {} column {}", inner.line(), inner.column());
    let text = full.strip_suffix(&suffix).unwrap_or(&full);
    if inner.classify() != Category::Data {
        return syntax(inner, &format!("well-formed JSON ({text})"));
    }

    let mut path: Vec<Segment> = error.path().iter().cloned().collect();
    let (allowed, missing) = explain(text, &mut path);
    let document: Value = serde_json::from_slice(json).unwrap_or(Value::Null);
    let (rule, relative) = blamed(&document, &path);
    let field = path_text(relative);
    let allowed = match bounds::range_text(field.strip_prefix("plan.").unwrap_or(&field)) {
        Some(range) if !missing && !allowed.contains(&range) => format!("{allowed}, {range}"),
        _ => allowed,
    };
    let value = match found(&document, &path) {
        Some(value) if !missing => shown(value, field.ends_with("hash_key"), rule.is_some()),
        _ => String::new(),
    };
    PlanError { rule, field, value, allowed, at: place(inner) }
}

/// A value as an error may show it. Outside rules a list or an object that stands in the wrong place may hold the hash key.
fn shown(value: &Value, is_secret: bool, in_rule: bool) -> String {
    match value {
        Value::String(key) if is_secret => format!("(hidden, {} bytes)", key.len()),
        _ if is_secret => "(hidden)".to_owned(),
        Value::Array(_) if !in_rule => "(a list)".to_owned(),
        Value::Object(_) if !in_rule => "(an object)".to_owned(),
        Value::String(text) => quote(text),
        other => shorten(&other.to_string()),
    }
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
        ("a value (the field is required)".to_owned(), true)
    } else if text.starts_with("duplicate field") {
        at_name(path);
        ("the field once, not twice".to_owned(), true)
    } else if text.starts_with("unknown field") {
        at_name(path);
        (format!("no such field; known here: {}", listed(&expected.unwrap_or_default())), true)
    } else if text.starts_with("unknown variant") {
        (listed(&expected.unwrap_or_default()), false)
    } else {
        // Everything else that serde says itself is `invalid type: …, expected …`; other texts are our own.
        (
            expected
                .filter(|_| text.starts_with("invalid "))
                .map_or_else(|| text.to_owned(), |kind| in_json(&kind)),
            false,
        )
    }
}

/// Serde's list of names without its introduction.
fn listed(expected: &str) -> String {
    expected.strip_prefix("one of ").unwrap_or(expected).replace(" or ", ", ")
}

/// Serde's name of a type, in the words of JSON.
fn in_json(kind: &str) -> String {
    match kind {
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "u32" | "u64" => "a whole number".to_owned(),
        other => other.to_owned(),
    }
}

/// The rule on the path (of a plan, or of a document that wraps one) with its name, and the path within it.
fn blamed<'p>(document: &Value, path: &'p [Segment]) -> (Option<(usize, String)>, &'p [Segment]) {
    let is = |segment: &Segment, name: &str| matches!(segment, Segment::Map { key } if key == name);
    let (plan, inside) = match path {
        [first, inside @ ..] if is(first, "plan") => (document.get("plan"), inside),
        _ => (Some(document), path),
    };
    match inside {
        [first, Segment::Seq { index }, relative @ ..] if is(first, "rules") => {
            let rule = plan.and_then(|plan| plan.get("rules")).and_then(|rules| rules.get(*index));
            let name = rule.and_then(|rule| rule.get("name")).and_then(Value::as_str).unwrap_or_default();
            (Some((*index, name.to_owned())), relative)
        }
        _ => (None, path),
    }
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
                text.push_str(&if plain && !key.is_empty() { shorten(key) } else { quote(key) });
            }
            _ => {}
        }
    }
    text
}
