//! Points as text, and text as points.
//!
//! ```text
//! requests{pod=a, zone=b; route=/cart, code=#200} cumulative 100..110 5
//! ```
//!
//! Metric, resource attributes before the semicolon, point attributes after it, kind, start and time in seconds, value. Kinds: `cumulative` and `delta` (monotonic sums),
//! `updown` (a cumulative sum that may fall), `gauge`. A start of `-` is not given. `5` is an integer, `5.0` a double, `stale` the marker
//! without a value. Attribute values are strings; `#5` is an integer, `#1.5` a double, `#true` a bool; quotes allow commas, with JSON's escapes.
//! Lines of one resource, and of one metric in it, that follow each other share a message. The same text comes out for decoded messages, so expected and input read alike.
//! `prost` encodes and decodes: nothing here is shared with the engine.

use anyhow::{Context as _, bail, ensure};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::fmt::Write as _;

/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK` of OTLP.
const NO_RECORDED_VALUE: u32 = 1;
const NANOS: u64 = 1_000_000_000;

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Metric name.
    pub metric: String,
    /// Resource attributes.
    pub resource: Vec<KeyValue>,
    /// Type and temporality.
    pub kind: Kind,
    /// The point itself.
    pub point: NumberDataPoint,
}

/// Type and temporality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Cumulative monotonic sum.
    Cumulative,
    /// Delta monotonic sum.
    Delta,
    /// Cumulative sum that may fall.
    UpDown,
    /// Gauge.
    Gauge,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Cumulative, "cumulative"),
    (Kind::Delta, "delta"),
    (Kind::UpDown, "updown"),
    (Kind::Gauge, "gauge"),
];

/// Reads a line.
///
/// # Errors
/// It is not such a line.
pub fn read(line: &str) -> anyhow::Result<Point> {
    let (metric, rest) =
        line.split_once('{').context("metric{resource; attributes} kind start..time value")?;
    let (labels, rest) = rest.rsplit_once('}').context("no closing brace")?;
    let (resource, attributes) = cut(labels, ';')
        .next()
        .map_or(("", ""), |first| (first, labels.get(first.len() + 1..).unwrap_or_default()));
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [kind, times, value] = words.as_slice() else { bail!("kind start..time value") };
    let kind = KINDS.iter().find(|(_, name)| name == kind).with_context(|| format!("unknown kind {kind}"))?.0;
    let (start, time) = times.split_once("..").context("start..time")?;
    let (value, flags) = match *value {
        "stale" => (None, NO_RECORDED_VALUE),
        "none" => (None, 0),
        text => match text.parse() {
            Ok(int) => (Some(Number::AsInt(int)), 0),
            Err(_) => (Some(Number::AsDouble(text.parse().context("a number")?)), 0),
        },
    };
    let point = NumberDataPoint {
        attributes: read_attributes(attributes)?,
        start_time_unix_nano: if start == "-" { 0 } else { read_time(start)? },
        time_unix_nano: read_time(time)?,
        value,
        flags,
        ..NumberDataPoint::default()
    };
    Ok(Point { metric: metric.to_owned(), resource: read_attributes(resource)?, kind, point })
}

/// Seconds with at most nine digits behind the point, as nanoseconds.
///
/// # Errors
/// Not such a number.
pub fn read_time(text: &str) -> anyhow::Result<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    ensure!(part.len() <= 9, "more than nine digits behind the point: {text}");
    let whole: u64 = whole.parse().with_context(|| format!("seconds, not {text:?}"))?;
    let part: u64 = format!("{part:0<9}").parse().with_context(|| format!("seconds, not {text:?}"))?;
    Ok(whole * NANOS + part)
}

/// The parts between separators outside quotes.
fn cut(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        c == separator && !quoted
    })
}

fn read_attributes(text: &str) -> anyhow::Result<Vec<KeyValue>> {
    cut(text, ',').map(str::trim).filter(|part| !part.is_empty()).map(read_attribute).collect()
}

fn read_attribute(text: &str) -> anyhow::Result<KeyValue> {
    let (key, value) = text.split_once('=').with_context(|| format!("key=value, not {text:?}"))?;
    let value = match value.strip_prefix('#') {
        Some(text) => match (text.parse(), text.parse()) {
            (Ok(int), _) => Value::IntValue(int),
            (_, Ok(double)) => Value::DoubleValue(double),
            _ => Value::BoolValue(text.parse().with_context(|| format!("a typed value, not {text:?}"))?),
        },
        None if value.starts_with('"') => Value::StringValue(
            serde_json::from_str(value).with_context(|| format!("a JSON string: {value}"))?,
        ),
        None => Value::StringValue(value.to_owned()),
    };
    Ok(KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() })
}

/// The message that holds these points.
pub fn encode(points: &[Point]) -> Vec<u8> {
    let of_resource = points.chunk_by(|a, b| a.resource == b.resource).map(|points| {
        let metrics =
            points.chunk_by(|a, b| (&a.metric, a.kind) == (&b.metric, b.kind)).map(metric).collect();
        let resource = points.first().map(|point| point.resource.clone()).unwrap_or_default();
        ResourceMetrics {
            resource: Some(Resource { attributes: resource, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }
    });
    Request { resource_metrics: of_resource.collect() }.encode_to_vec()
}

fn metric(points: &[Point]) -> Metric {
    let data_points = points.iter().map(|point| point.point.clone()).collect();
    let sum = |temporality, is_monotonic, data_points| {
        Data::Sum(Sum { data_points, aggregation_temporality: temporality, is_monotonic })
    };
    let Some(first) = points.first() else { return Metric::default() };
    let data = match first.kind {
        Kind::Delta => sum(1, true, data_points),
        Kind::Cumulative => sum(2, true, data_points),
        Kind::UpDown => sum(2, false, data_points),
        Kind::Gauge => Data::Gauge(Gauge { data_points }),
    };
    Metric { name: first.metric.clone(), data: Some(data), ..Metric::default() }
}

/// The points of a message, a line each.
pub fn render(message: &[u8]) -> Vec<String> {
    let Ok(request) = Request::decode(message) else {
        return vec![format!("{} bytes that are not OTLP", message.len())];
    };
    let mut lines = Vec::new();
    for resource in &request.resource_metrics {
        let labels = resource.resource.as_ref().map(|resource| resource.attributes.as_slice());
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let (kind, points) = match &metric.data {
                Some(Data::Sum(sum)) => (sum_kind(sum), sum.data_points.as_slice()),
                Some(Data::Gauge(gauge)) => ("gauge", gauge.data_points.as_slice()),
                _ => ("other", &[][..]),
            };
            if points.is_empty() {
                lines.push(format!("{} without points", metric.name));
            }
            lines.extend(points.iter().map(|p| line(&metric.name, labels.unwrap_or_default(), kind, p)));
        }
    }
    lines
}

fn sum_kind(sum: &Sum) -> &'static str {
    match (sum.aggregation_temporality, sum.is_monotonic) {
        (1, true) => "delta",
        (2, true) => "cumulative",
        (2, false) => "updown",
        _ => "sum",
    }
}

fn line(metric: &str, resource: &[KeyValue], kind: &str, point: &NumberDataPoint) -> String {
    let resource: Vec<String> = resource.iter().map(attribute).collect();
    let attributes: Vec<String> = point.attributes.iter().map(attribute).collect();
    let start =
        if point.start_time_unix_nano == 0 { "-".to_owned() } else { time(point.start_time_unix_nano) };
    let value = match point.value {
        _ if point.flags & NO_RECORDED_VALUE != 0 => "stale".to_owned(),
        Some(Number::AsInt(int)) => int.to_string(),
        Some(Number::AsDouble(double)) => format!("{double:?}"),
        None => "none".to_owned(),
    };
    let labels = format!("{}; {}", resource.join(", "), attributes.join(", "));
    format!("{metric}{{{}}} {kind} {start}..{} {value}", labels.trim_end(), time(point.time_unix_nano))
}

fn attribute(pair: &KeyValue) -> String {
    let value = match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) if text.contains(|c: char| ",;\"".contains(c) || c.is_control()) => {
            serde_json::Value::from(text.as_str()).to_string()
        }
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(int)) => format!("#{int}"),
        Some(Value::DoubleValue(double)) => format!("#{double:?}"),
        Some(Value::BoolValue(is)) => format!("#{is}"),
        other => format!("{other:?}"),
    };
    format!("{}={value}", pair.key)
}

fn time(ns: u64) -> String {
    let mut out = (ns / NANOS).to_string();
    if !ns.is_multiple_of(NANOS) {
        let _ = write!(out, ".{}", format!("{:09}", ns % NANOS).trim_end_matches('0'));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{encode, read, render};

    #[test]
    fn what_is_read_comes_out_again() {
        for line in [
            "requests{pod=a; route=/cart, code=#200} cumulative 100..110 5",
            "requests{pod=a;} delta -..110.5 2.5",
            "cpu{; x=\"a,b;\\\"\", y=#1.5, z=#true} gauge -..1 stale",
            "open{a=b; c=d} updown 1..2.000000001 -3",
        ] {
            assert_eq!(render(&encode(&[read(line).unwrap()])), [line]);
        }
    }

    #[test]
    fn neighbours_share_messages() {
        let lines = ["m{p=a; x=1} delta 0..1 1", "m{p=a; x=2} delta 0..1 1", "m{p=b; x=1} delta 0..1 1"];
        let points: Vec<_> = lines.iter().map(|line| read(line).unwrap()).collect();
        let message = super::Request::decode(&*encode(&points)).unwrap();
        assert_eq!(message.resource_metrics.len(), 2);
        assert_eq!(message.resource_metrics[0].scope_metrics[0].metrics.len(), 1);
        assert_eq!(render(&encode(&points)).len(), 3);
    }

    use prost::Message as _;
}
