//! Matchers: which metrics and which labels a rule speaks of.
//!
//! Enters: names and values as bytes (a hostile sender may send any). Leaves: yes or no. In JSON a matcher is an object with
//! exactly one operation, `{"prefix": "http."}` or `{"key": "pod", "glob": "web-*"}`; two operations or none are refused.

use crate::glob;
use serde::{Deserialize, Serialize};

/// Matches the name of a metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "MetricMatchText", into = "MetricMatchText")]
pub enum MetricMatch {
    /// The whole name.
    Exact(String),
    /// The beginning of the name.
    Prefix(String),
    /// The whole name by a pattern of [`glob`].
    Glob(String),
}

impl MetricMatch {
    /// Whether the metric called `name` is meant.
    pub fn matches(&self, name: &[u8]) -> bool {
        match self {
            MetricMatch::Exact(want) => want.as_bytes() == name,
            MetricMatch::Prefix(want) => name.starts_with(want.as_bytes()),
            MetricMatch::Glob(pattern) => glob::matches(pattern.as_bytes(), name),
        }
    }

    /// Whether some name may be meant by both; no only where that is certain.
    pub fn may_meet(&self, other: &MetricMatch) -> bool {
        match (self, other) {
            (MetricMatch::Exact(name), any) | (any, MetricMatch::Exact(name)) => any.matches(name.as_bytes()),
            (MetricMatch::Prefix(a), MetricMatch::Prefix(b)) => a.starts_with(b) || b.starts_with(a),
            _ => true,
        }
    }

    /// The operation's name in JSON and its text.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            MetricMatch::Exact(text) => ("exact", text),
            MetricMatch::Prefix(text) => ("prefix", text),
            MetricMatch::Glob(text) => ("glob", text),
        }
    }
}

/// Matches one label of a point or a resource, by the string rendering of its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LabelMatchText", into = "LabelMatchText")]
pub struct LabelMatch {
    /// The attribute's key.
    pub key: String,
    /// What is asked of its value.
    pub op: LabelOp,
}

/// What a [`LabelMatch`] asks. A label that is absent satisfies `Exists(false)` and nothing else, not even the empty prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelOp {
    /// The whole value.
    Equals(String),
    /// The beginning of the value.
    Prefix(String),
    /// The whole value by a pattern of [`glob`].
    Glob(String),
    /// That the label is there, whatever its value, or that it is not.
    Exists(bool),
}

impl LabelOp {
    /// Whether the label with this value satisfies the operation; none is a label that is absent.
    pub fn matches(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (LabelOp::Exists(wanted), _) => *wanted == value.is_some(),
            (_, None) => false,
            (LabelOp::Equals(want), Some(value)) => want.as_bytes() == value,
            (LabelOp::Prefix(want), Some(value)) => value.starts_with(want.as_bytes()),
            (LabelOp::Glob(pattern), Some(value)) => glob::matches(pattern.as_bytes(), value),
        }
    }

    /// The operation's name in JSON, and its text unless it is `exists`.
    pub fn parts(&self) -> (&'static str, Option<&str>) {
        match self {
            LabelOp::Equals(text) => ("equals", Some(text)),
            LabelOp::Prefix(text) => ("prefix", Some(text)),
            LabelOp::Glob(text) => ("glob", Some(text)),
            LabelOp::Exists(_) => ("exists", None),
        }
    }
}

/// [`MetricMatch`] as it stands in JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricMatchText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    glob: Option<String>,
}

impl TryFrom<MetricMatchText> for MetricMatch {
    type Error = &'static str;
    fn try_from(text: MetricMatchText) -> Result<MetricMatch, &'static str> {
        match text {
            MetricMatchText { exact: Some(name), prefix: None, glob: None } => Ok(MetricMatch::Exact(name)),
            MetricMatchText { exact: None, prefix: Some(name), glob: None } => Ok(MetricMatch::Prefix(name)),
            MetricMatchText { exact: None, prefix: None, glob: Some(name) } => Ok(MetricMatch::Glob(name)),
            _ => Err("an object with exactly one of exact, prefix, glob"),
        }
    }
}

impl From<MetricMatch> for MetricMatchText {
    fn from(value: MetricMatch) -> MetricMatchText {
        let none = MetricMatchText::default();
        match value {
            MetricMatch::Exact(name) => MetricMatchText { exact: Some(name), ..none },
            MetricMatch::Prefix(name) => MetricMatchText { prefix: Some(name), ..none },
            MetricMatch::Glob(name) => MetricMatchText { glob: Some(name), ..none },
        }
    }
}

/// [`LabelMatch`] as it stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with key and exactly one of equals, prefix, glob, exists"
)]
struct LabelMatchText {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    equals: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    glob: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exists: Option<bool>,
}

impl TryFrom<LabelMatchText> for LabelMatch {
    type Error = &'static str;
    fn try_from(text: LabelMatchText) -> Result<LabelMatch, &'static str> {
        let LabelMatchText { key, equals, prefix, glob, exists } = text;
        let op = match (equals, prefix, glob, exists) {
            (Some(value), None, None, None) => LabelOp::Equals(value),
            (None, Some(value), None, None) => LabelOp::Prefix(value),
            (None, None, Some(value), None) => LabelOp::Glob(value),
            (None, None, None, Some(there)) => LabelOp::Exists(there),
            _ => return Err("an object with key and exactly one of equals, prefix, glob, exists"),
        };
        Ok(LabelMatch { key, op })
    }
}

impl From<LabelMatch> for LabelMatchText {
    fn from(value: LabelMatch) -> LabelMatchText {
        let none = LabelMatchText { key: value.key, equals: None, prefix: None, glob: None, exists: None };
        match value.op {
            LabelOp::Equals(text) => LabelMatchText { equals: Some(text), ..none },
            LabelOp::Prefix(text) => LabelMatchText { prefix: Some(text), ..none },
            LabelOp::Glob(text) => LabelMatchText { glob: Some(text), ..none },
            LabelOp::Exists(there) => LabelMatchText { exists: Some(there), ..none },
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for MetricMatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MetricMatch".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let text = schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": crate::bounds::KEY_BYTES });
        schemars::json_schema!({
            "type": "object",
            "description": "Matches the name of a metric. Exactly one operation; a glob knows * and ? only.",
            "properties": { "exact": text, "prefix": text, "glob": text },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for LabelMatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LabelMatch".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let value = schemars::json_schema!({ "type": "string", "maxLength": crate::bounds::VALUE_BYTES });
        schemars::json_schema!({
            "type": "object",
            "description": "Matches one label by the string rendering of its value. A key and exactly one operation; an absent label satisfies only exists: false.",
            "properties": {
                "key": { "type": "string", "minLength": 1, "maxLength": crate::bounds::KEY_BYTES },
                "equals": value,
                "prefix": value,
                "glob": { "type": "string", "maxLength": crate::bounds::PATTERN_BYTES },
                "exists": { "type": "boolean" },
            },
            "required": ["key"],
            "additionalProperties": false,
            "minProperties": 2,
            "maxProperties": 2,
        })
    }
}
