//! Points as text, and text as points.
//!
//! ```text
//! requests{pod=a, zone=b; route=/cart, code=#200} cumulative 100..110 5
//! latency[s]{pod=a;} histogram 100..110 count=7 sum=3.5 le=[0.1:2, 1:4, +Inf:1] ! 0.7@109.5 trace=0af7 {user=x}
//! rpc{pod=a;} exponential 100..110 count=4 sum=3 scale=3 zero=1 threshold=0.001 positive=-2:[1, 2]
//! pause{pod=a;} summary 100..110 count=2 sum=5 quantiles=[0.5:1, 0.9:4]
//! ```
//!
//! Metric, unit where there is one, resource attributes before the semicolon, point attributes after it, kind, start and time in seconds, then the fields of its
//! kind (`points/fields.rs`), then exemplars, each behind a `!` (`points/exemplars.rs`). Kinds: `cumulative` and `delta` (monotonic sums), `updown` (a sum that may fall) and
//! `updown-delta`, `gauge`, `histogram` (cumulative, explicit bounds), `exponential`, both also with `-delta`, `summary`; `-unspecified` is a temporality that OTLP does not allow.
//! A start of `-` is not given. `5` is an integer, `5.0` a double, `stale` the flag of the marker that says that there is no value. Attribute
//! values are strings; `#5` is an integer, `#1.5` a double, `#true` a bool; quotes allow commas, with JSON's escapes.
//! Lines of one resource, and of one metric in it, that follow each other share a message. The same text comes out for decoded messages, so expected and input read alike.
//! `prost` encodes and decodes: nothing here is shared with the engine.

/// Exemplars behind a point.
mod exemplars;
/// What a point of each kind says behind its times.
mod fields;
/// Types and temporalities.
mod kind;

pub use kind::Kind;

use anyhow::{Context as _, bail, ensure};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::fmt::Write as _;

const NANOS: u64 = 1_000_000_000;
/// Characters that mean something outside quotes.
const SPECIAL: &str = ",;\"{}!";

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Metric name.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// Resource attributes.
    pub resource: Vec<KeyValue>,
    /// Type and temporality.
    pub kind: Kind,
    /// The point itself.
    pub sample: Sample,
}

/// A point of one of OTLP's four shapes.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Of a sum or a gauge.
    Number(NumberDataPoint),
    /// Of a histogram with explicit bounds.
    Histogram(HistogramDataPoint),
    /// Of an exponential histogram.
    Exponential(ExponentialHistogramDataPoint),
    /// Of a summary.
    Summary(SummaryDataPoint),
}

/// Attributes, start and time: what points of every shape have.
type Head<'a> = (&'a mut Vec<KeyValue>, &'a mut u64, &'a mut u64);

impl Sample {
    fn head(&mut self) -> Head<'_> {
        match self {
            Self::Number(p) => (&mut p.attributes, &mut p.start_time_unix_nano, &mut p.time_unix_nano),
            Self::Histogram(p) => (&mut p.attributes, &mut p.start_time_unix_nano, &mut p.time_unix_nano),
            Self::Exponential(p) => (&mut p.attributes, &mut p.start_time_unix_nano, &mut p.time_unix_nano),
            Self::Summary(p) => (&mut p.attributes, &mut p.start_time_unix_nano, &mut p.time_unix_nano),
        }
    }

    /// The point's attributes.
    pub fn attributes(&mut self) -> &mut Vec<KeyValue> {
        self.head().0
    }
}

/// Reads a line.
///
/// # Errors
/// It is not such a line.
pub fn read(line: &str) -> anyhow::Result<Point> {
    let (name, rest) = line.split_once('{').context("metric{resource; attributes} kind start..time value")?;
    let (metric, unit) = match name.split_once('[') {
        Some((metric, unit)) => (metric, unit.strip_suffix(']').context("metric[unit]")?),
        None => (name, ""),
    };
    let labels = cut(rest, '}').next().unwrap_or_default();
    let rest = rest.get(labels.len() + 1..).context("no closing brace")?;
    let (resource, attributes) = cut(labels, ';')
        .next()
        .map_or(("", ""), |first| (first, labels.get(first.len() + 1..).unwrap_or_default()));
    let mut parts = cut(rest, '!');
    let words = words(parts.next().unwrap_or_default());
    let [kind, times, fields @ ..] = words.as_slice() else { bail!("kind start..time value") };
    let kind = Kind::named(kind).with_context(|| format!("unknown kind {kind}"))?;
    let (start, time) = times.split_once("..").context("start..time")?;
    let mut sample = fields::read(kind, fields)?;
    for part in parts {
        exemplars::push(&mut sample, exemplars::read(part.trim()).with_context(|| part.to_owned())?)?;
    }
    let (of_point, start_ns, time_ns) = sample.head();
    *of_point = read_attributes(attributes)?;
    *start_ns = if start == "-" { 0 } else { read_time(start)? };
    *time_ns = read_time(time)?;
    let resource = read_attributes(resource)?;
    Ok(Point { metric: metric.to_owned(), unit: unit.to_owned(), resource, kind, sample })
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
    whole.checked_mul(NANOS).and_then(|ns| ns.checked_add(part)).with_context(|| format!("too late: {text}"))
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

/// The words between spaces outside brackets.
fn words(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let parts = text.split(move |c: char| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        c.is_whitespace() && depth <= 0
    });
    parts.filter(|word| !word.is_empty()).collect()
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
        let is_same = |a: &Point, b: &Point| (&a.metric, &a.unit, a.kind) == (&b.metric, &b.unit, b.kind);
        let metrics = points.chunk_by(is_same).map(metric).collect();
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
    let Some(first) = points.first() else { return Metric::default() };
    let data = first.kind.data(points.iter().map(|point| &point.sample));
    Metric { name: first.metric.clone(), unit: first.unit.clone(), data: Some(data), ..Metric::default() }
}

/// The points of a message, a line each.
pub fn render(message: &[u8]) -> Vec<String> {
    let Ok(request) = Request::decode(message) else {
        return vec![format!("{} bytes that are not OTLP", message.len())];
    };
    let mut lines = Vec::new();
    for of_resource in request.resource_metrics {
        let resource = of_resource.resource.unwrap_or_default().attributes;
        for metric in of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
            let found = metric.data.map(samples).unwrap_or_default();
            if found.is_empty() {
                lines.push(format!("{} without points", metric.name));
            }
            for (kind, sample) in found {
                let (metric, unit) = (metric.name.clone(), metric.unit.clone());
                lines.push(line(Point { metric, unit, resource: resource.clone(), kind, sample }));
            }
        }
    }
    lines
}

fn samples(data: Data) -> Vec<(Kind, Sample)> {
    let kind = Kind::of(&data);
    let samples: Vec<Sample> = match data {
        Data::Gauge(data) => data.data_points.into_iter().map(Sample::Number).collect(),
        Data::Sum(data) => data.data_points.into_iter().map(Sample::Number).collect(),
        Data::Histogram(data) => data.data_points.into_iter().map(Sample::Histogram).collect(),
        Data::ExponentialHistogram(data) => data.data_points.into_iter().map(Sample::Exponential).collect(),
        Data::Summary(data) => data.data_points.into_iter().map(Sample::Summary).collect(),
    };
    samples.into_iter().map(|sample| (kind, sample)).collect()
}

fn line(mut point: Point) -> String {
    let exemplars = exemplars::text(&point.sample);
    let fields = fields::text(&point.sample);
    let resource = attributes(&point.resource);
    let (of_point, start_ns, time_ns) = point.sample.head();
    let start = if *start_ns == 0 { "-".to_owned() } else { time(*start_ns) };
    let labels = format!("{resource}; {}", attributes(of_point));
    let unit = if point.unit.is_empty() { String::new() } else { format!("[{}]", point.unit) };
    let (metric, kind, time) = (&point.metric, point.kind.name(), time(*time_ns));
    format!("{metric}{unit}{{{}}} {kind} {start}..{time} {fields}{exemplars}", labels.trim_end())
}

fn attributes(list: &[KeyValue]) -> String {
    list.iter().map(attribute).collect::<Vec<_>>().join(", ")
}

fn attribute(pair: &KeyValue) -> String {
    let value = match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) if needs_quotes(text) => {
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

fn needs_quotes(text: &str) -> bool {
    let is_special = |c: char| SPECIAL.contains(c) || c.is_control();
    text.contains(is_special) || text.starts_with('#') || text.trim() != text
}

fn time(ns: u64) -> String {
    let mut out = (ns / NANOS).to_string();
    if !ns.is_multiple_of(NANOS) {
        let _ = write!(out, ".{}", format!("{:09}", ns % NANOS).trim_end_matches('0'));
    }
    out
}

#[cfg(test)]
mod tests;
