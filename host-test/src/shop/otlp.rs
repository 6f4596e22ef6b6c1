//! OTLP messages from plain values.
//!
//! In: names, labels, values. Out: `opentelemetry-proto` messages. No decisions.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, Sum, number_data_point};

/// `AGGREGATION_TEMPORALITY_DELTA`.
pub const DELTA: i32 = 1;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
pub const CUMULATIVE: i32 = 2;

/// An attribute.
pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A string attribute.
pub fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// An integer attribute.
pub fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

/// An array of strings.
pub fn array(key: &str, values: &[&str]) -> KeyValue {
    let values = values
        .iter()
        .map(|value| AnyValue { value: Some(Value::StringValue((*value).to_owned())) })
        .collect();
    attribute(key, Value::ArrayValue(ArrayValue { values }))
}

/// A nested key-value list.
pub fn list(key: &str, values: Vec<KeyValue>) -> KeyValue {
    attribute(key, Value::KvlistValue(KeyValueList { values }))
}

/// A number point.
pub fn number(
    attributes: Vec<KeyValue>,
    start_ns: u64,
    time_ns: u64,
    value: number_data_point::Value,
) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: start_ns,
        time_unix_nano: time_ns,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

/// A metric.
pub fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        description: format!("{name} of the web shop"),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

/// A sum.
pub fn sum(data_points: Vec<NumberDataPoint>, aggregation_temporality: i32, is_monotonic: bool) -> Data {
    Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
}
