//! Labels and canonical identities.
//!
//! In: OTLP attributes. Out: a sorted map of label to text, and one canonical string for an identity. Why strings: they are
//! exact, they sort, and a failing test can print them. Values carry their type (`1` the integer is not `"1"` the string).

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Label name to canonical value.
pub type Labels = BTreeMap<String, String>;

/// Attributes as labels. A repeated key keeps its first value and is visible as `key#2`, so that nothing is hidden.
pub fn labels(attributes: &[KeyValue]) -> Labels {
    let mut out = Labels::new();
    for attribute in attributes {
        let value = attribute.value.as_ref().map_or_else(|| "∅".to_owned(), value_text);
        let mut key = attribute.key.clone();
        let mut copy = 1;
        while out.contains_key(&key) {
            copy += 1;
            key = format!("{}#{copy}", attribute.key);
        }
        out.insert(key, value);
    }
    out
}

/// One attribute value as text that names its type by its form.
pub fn value_text(value: &AnyValue) -> String {
    match &value.value {
        None => "∅".to_owned(),
        Some(Value::StringValue(text)) => format!("{text:?}"),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => format!("{number:?}f"),
        Some(Value::BytesValue(bytes)) => format!("bytes{bytes:?}"),
        Some(Value::ArrayValue(array)) => {
            format!("[{}]", array.values.iter().map(value_text).collect::<Vec<_>>().join(","))
        }
        Some(Value::KvlistValue(list)) => canonical(&labels(&list.values)),
        Some(other) => format!("{other:?}"),
    }
}

/// `{a="x",b=1}`: sorted, quoted, unambiguous.
pub fn canonical(labels: &Labels) -> String {
    let mut out = String::from("{");
    for (key, value) in labels {
        if out.len() > 1 {
            out.push(',');
        }
        let _ = write!(out, "{key:?}={value}");
    }
    out.push('}');
    out
}

/// The identity that a backend stores: the promoted resource attributes, then the point attributes, without `dropped`.
pub fn stored(resource: &Labels, point: &Labels, promoted: &[String], dropped: &[String]) -> String {
    let keep = |key: &String| !dropped.contains(key);
    let resource = resource
        .iter()
        .filter(|(key, _)| promoted.contains(key) && keep(key))
        .map(|(k, v)| (k.clone(), v.clone()));
    let point = point.iter().filter(|(key, _)| keep(key)).map(|(k, v)| (k.clone(), v.clone()));
    format!("{}{}", canonical(&resource.collect()), canonical(&point.collect()))
}
