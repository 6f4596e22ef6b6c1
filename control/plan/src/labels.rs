//! The labels of a fold: which stay, and what the mark on the folded series says.
//!
//! Enters: `{"drop": {"resource": [], "attributes": []}}` or `{"keep": {"resource": [], "attributes": []}}`. Leaves: yes or no per key,
//! and the mark. Lists are short (`bounds::LABELS`), so a walk beats a table; the engine asks once per new stream, not per point.
//! Refused while reading: both forms at once, or neither. What lists may hold is checked by [`crate::Plan::validate`].

use crate::shape;
use serde::{Deserialize, Serialize};

/// Which labels a fold keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LabelsText", into = "LabelsText")]
pub enum Labels {
    /// All but these.
    Drop {
        /// Resource attributes to drop.
        resource: Vec<String>,
        /// Point attributes to drop.
        attributes: Vec<String>,
    },
    /// Only these.
    Keep {
        /// Resource attributes to keep; none keeps all of them.
        resource: Option<Vec<String>>,
        /// Point attributes to keep.
        attributes: Vec<String>,
    },
}

impl Labels {
    /// Whether the resource attribute `key` stays. Whether the backend stores it at all is another question:
    /// [`crate::Plan::promotes_resource`].
    pub fn keeps_resource(&self, key: &[u8]) -> bool {
        match self {
            Labels::Drop { resource, .. } => !has(resource, key),
            Labels::Keep { resource, .. } => resource.as_ref().is_none_or(|list| has(list, key)),
        }
    }

    /// Whether the point attribute `key` stays.
    pub fn keeps_attribute(&self, key: &[u8]) -> bool {
        match self {
            Labels::Drop { attributes, .. } => !has(attributes, key),
            Labels::Keep { attributes, .. } => has(attributes, key),
        }
    }

    /// Whether both keep the same of every point: the order of a list does not matter.
    pub fn keeps_the_same_as(&self, other: &Labels) -> bool {
        let same = |a: &[String], b: &[String]| a.len() == b.len() && a.iter().all(|name| b.contains(name));
        match (self, other) {
            (Labels::Drop { resource: r, attributes: a }, Labels::Drop { resource: s, attributes: b }) => {
                same(r, s) && same(a, b)
            }
            (Labels::Keep { resource: r, attributes: a }, Labels::Keep { resource: s, attributes: b }) => {
                let resources = match (r, s) {
                    (Some(r), Some(s)) => same(r, s),
                    (r, s) => r.is_none() && s.is_none(),
                };
                resources && same(a, b)
            }
            _ => false,
        }
    }

    /// Whether the fold drops any resource attribute.
    pub fn drops_resource(&self) -> bool {
        match self {
            Labels::Drop { resource, .. } => !resource.is_empty(),
            Labels::Keep { resource, .. } => resource.is_some(),
        }
    }

    /// The value of the mark on every series of this fold.
    ///
    /// For `drop` the dropped labels: `instance,pod`. For `keep` the kept ones after `keep:`, since what was dropped is then
    /// known only stream by stream: `keep:method,status`. Resource and point attributes together, sorted by bytes, each name once.
    /// A name cannot hold a comma, so a mark has one reading.
    pub fn mark(&self) -> String {
        self.mark_with(&[])
    }

    /// The same, where folding drops more than the labels that are named: `quantile` of a summary. A `keep` says it by not naming it.
    pub fn mark_with(&self, dropped: &[&str]) -> String {
        let (prefix, resource, attributes) = match self {
            Labels::Drop { resource, attributes } => ("", resource.as_slice(), attributes),
            Labels::Keep { resource, attributes } => {
                ("keep:", resource.as_deref().unwrap_or_default(), attributes)
            }
        };
        let mut names: Vec<&str> = resource.iter().chain(attributes).map(String::as_str).collect();
        if matches!(self, Labels::Drop { .. }) {
            names.extend(dropped);
        }
        crate::order::sort(&mut names);
        names.dedup();
        let mut mark = prefix.to_owned();
        mark.push_str(&names.join(","));
        mark
    }
}

/// Whether `list` holds `key`.
fn has(list: &[String], key: &[u8]) -> bool {
    list.iter().any(|name| name.as_bytes() == key)
}

/// What [`Labels`] looks like; the text of its refusal.
const EXPECTED: &str = "an object with exactly one of drop, keep";

/// [`Labels`] as it stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelsText {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_object")]
    drop: Option<DropText>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_object")]
    keep: Option<KeepText>,
}

/// All labels but these. At least one must be named.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Drop"))]
#[serde(deny_unknown_fields)]
struct DropText {
    /// Resource attributes to drop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(inner(length(min = 1, max = 256)), length(max = 128)))]
    resource: Vec<String>,
    /// Point attributes to drop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(inner(length(min = 1, max = 256)), length(max = 128)))]
    attributes: Vec<String>,
}

/// Only these labels.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Keep"))]
#[serde(deny_unknown_fields)]
struct KeepText {
    /// Resource attributes to keep; left out: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(inner(length(min = 1, max = 256)), length(max = 128)))]
    resource: Option<Vec<String>>,
    /// Point attributes to keep.
    #[cfg_attr(feature = "schema", schemars(inner(length(min = 1, max = 256)), length(max = 128)))]
    attributes: Vec<String>,
}

impl TryFrom<LabelsText> for Labels {
    type Error = &'static str;
    fn try_from(text: LabelsText) -> Result<Labels, &'static str> {
        match text {
            LabelsText { drop: Some(drop), keep: None } => {
                Ok(Labels::Drop { resource: drop.resource, attributes: drop.attributes })
            }
            LabelsText { drop: None, keep: Some(keep) } => {
                Ok(Labels::Keep { resource: keep.resource, attributes: keep.attributes })
            }
            _ => Err(EXPECTED),
        }
    }
}

impl From<Labels> for LabelsText {
    fn from(value: Labels) -> LabelsText {
        match value {
            Labels::Drop { resource, attributes } => {
                LabelsText { drop: Some(DropText { resource, attributes }), keep: None }
            }
            Labels::Keep { resource, attributes } => {
                LabelsText { drop: None, keep: Some(KeepText { resource, attributes }) }
            }
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Labels {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Labels".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "description": "The labels that a fold drops, or those that it keeps. Exactly one of the two.",
            "properties": {
                "drop": generator.subschema_for::<DropText>(),
                "keep": generator.subschema_for::<KeepText>(),
            },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        })
    }
}
