//! What is in OTLP messages: points, streams and bytes of each metric, and for sums how much they add up to.
//!
//! Enters: decoded messages, in the order in which they went. Leaves: a line per metric. A stream is counted once, by a 128-bit hash of its resource, scope,
//! metric and attributes whatever their order: of a million streams two fall together with a probability of 10⁻²⁷. The bytes of a metric are those of its `Metric`
//! messages, without the resource and scope around them. Totals are read as a backend reads them: deltas are added; of a cumulative series the last
//! value under each start time counts.

use super::{DELTA, NO_RECORDED_VALUE};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use prost::Message;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hasher;

/// A sum of integers and doubles: the first exactly, the second compensated.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Total {
    /// The integers.
    pub ints: i128,
    sum: f64,
    compensation: f64,
    is_double: bool,
}

impl Total {
    /// Adds an integer.
    pub fn add_int(&mut self, value: i128) {
        self.ints += value;
    }

    /// Adds a double (Neumaier's summation).
    pub fn add_double(&mut self, value: f64) {
        self.is_double = true;
        let next = self.sum + value;
        self.compensation +=
            if self.sum.abs() >= value.abs() { (self.sum - next) + value } else { (value - next) + self.sum };
        self.sum = next;
    }

    /// Adds another total.
    pub fn add(&mut self, other: &Total) {
        self.ints += other.ints;
        if other.is_double {
            self.add_double(other.sum);
            self.add_double(other.compensation);
        }
    }

    /// The doubles.
    pub fn doubles(&self) -> f64 {
        self.sum + self.compensation
    }

    /// Both as a double.
    pub fn value(&self) -> f64 {
        self.doubles() + self.ints as f64
    }

    /// Has any double been added?
    pub fn is_double(&self) -> bool {
        self.is_double
    }
}

/// What one metric was.
#[derive(Debug, Default)]
pub struct Counts {
    /// Its type, as it came first.
    pub kind: &'static str,
    /// Points.
    pub points: u64,
    /// Bytes of its `Metric` messages.
    pub bytes: u64,
    streams: HashSet<u128>,
    /// Sums: what the deltas add up to …
    deltas: Total,
    /// … and the newest value of each cumulative stream under each start time.
    newest: HashMap<(u128, u64), (u64, Value)>,
}

impl Counts {
    /// Distinct streams.
    pub fn streams(&self) -> u64 {
        self.streams.len() as u64
    }

    /// What its sums add up to.
    pub fn total(&self) -> Total {
        let mut total = self.deltas;
        // In the order of the keys: the sum of doubles must not depend on the order of a hash table.
        let newest: BTreeMap<_, _> = self.newest.iter().collect();
        newest.values().for_each(|(_, value)| add(&mut total, value));
        total
    }
}

fn add(total: &mut Total, value: &Value) {
    match value {
        Value::AsInt(value) => total.add_int(i128::from(*value)),
        Value::AsDouble(value) => total.add_double(*value),
    }
}

/// The lines of all metrics.
#[derive(Debug, Default)]
pub struct Census {
    /// By name.
    pub metrics: BTreeMap<String, Counts>,
    keeps_totals: bool,
}

/// The newest timestamp in a message; none without points.
pub fn newest_ns(request: &ExportMetricsServiceRequest) -> Option<u64> {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let metrics = scopes.flat_map(|scope| &scope.metrics);
    metrics.flat_map(|metric| points(metric).into_iter().map(|point| point.time_ns)).max()
}

impl Census {
    /// Counts that also keep what the sums add up to: a value for each series.
    pub fn with_totals() -> Census {
        Census { keeps_totals: true, ..Census::default() }
    }

    /// Counts one message.
    pub fn add(&mut self, request: &ExportMetricsServiceRequest) {
        for resource in &request.resource_metrics {
            let labels = resource.resource.as_ref().map_or(0, |resource| set(&resource.attributes));
            for scope in &resource.scope_metrics {
                let scoped = scope.scope.as_ref().map_or(0, |scope| {
                    let mut hasher = hasher(b"scope");
                    text(&mut hasher, &scope.name);
                    text(&mut hasher, &scope.version);
                    hasher.write_u128(set(&scope.attributes));
                    hasher.finish128().as_u128()
                });
                scope.metrics.iter().for_each(|metric| self.add_metric(metric, labels, scoped));
            }
        }
    }

    fn add_metric(&mut self, metric: &Metric, resource: u128, scope: u128) {
        if !self.metrics.contains_key(&metric.name) {
            self.metrics
                .insert(metric.name.clone(), Counts { kind: super::kind(metric), ..Counts::default() });
        }
        let Some(counts) = self.metrics.get_mut(&metric.name) else { return };
        counts.bytes += metric.encoded_len() as u64;
        let mut head = hasher(b"stream");
        text(&mut head, super::kind(metric));
        text(&mut head, &metric.unit);
        head.write_u128(resource);
        head.write_u128(scope);
        let is_delta = matches!(&metric.data, Some(Data::Sum(sum)) if sum.aggregation_temporality == DELTA);
        for point in points(metric) {
            let mut stream = head;
            stream.write_u128(set(point.attributes));
            let id = stream.finish128().as_u128();
            counts.points += 1;
            counts.streams.insert(id);
            let Some(value) = point.sum.filter(|_| self.keeps_totals) else { continue };
            if is_delta {
                add(&mut counts.deltas, &value);
            } else {
                let newest = counts.newest.entry((id, point.start_ns)).or_insert((0, value));
                if point.time_ns >= newest.0 {
                    *newest = (point.time_ns, value);
                }
            }
        }
    }
}

/// A point of any type.
struct Point<'a> {
    attributes: &'a [KeyValue],
    start_ns: u64,
    time_ns: u64,
    /// Of sums: the value, where there is one.
    sum: Option<Value>,
}

fn points(metric: &Metric) -> Vec<Point<'_>> {
    macro_rules! all {
        ($points:expr, $sum:expr) => {
            $points
                .iter()
                .map(|point| Point {
                    attributes: &point.attributes,
                    start_ns: point.start_time_unix_nano,
                    time_ns: point.time_unix_nano,
                    sum: $sum(point),
                })
                .collect()
        };
    }
    match &metric.data {
        Some(Data::Sum(data)) => {
            all!(data.data_points, |point: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
                point.value.filter(|_| point.flags & NO_RECORDED_VALUE == 0)
            })
        }
        Some(Data::Gauge(data)) => all!(data.data_points, |_| None),
        Some(Data::Histogram(data)) => all!(data.data_points, |_| None),
        Some(Data::ExponentialHistogram(data)) => all!(data.data_points, |_| None),
        Some(Data::Summary(data)) => all!(data.data_points, |_| None),
        None => Vec::new(),
    }
}

fn hasher(domain: &[u8]) -> SipHasher13 {
    let mut hasher = SipHasher13::new();
    hasher.write(domain);
    hasher
}

fn text(hasher: &mut SipHasher13, text: &str) {
    hasher.write_usize(text.len());
    hasher.write(text.as_bytes());
}

/// A hash of attributes that does not depend on their order.
fn set(attributes: &[KeyValue]) -> u128 {
    attributes.iter().fold(0, |sum: u128, attribute| {
        let mut hasher = hasher(b"attribute");
        hasher.write(&attribute.encode_to_vec());
        sum.wrapping_add(hasher.finish128().as_u128())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
    use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum};

    fn label(key: &str, value: &str) -> KeyValue {
        let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
        KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
    }

    fn point(labels: &[(&str, &str)], start_ns: u64, time_ns: u64, value: Value) -> NumberDataPoint {
        NumberDataPoint {
            attributes: labels.iter().map(|(key, value)| label(key, value)).collect(),
            start_time_unix_nano: start_ns,
            time_unix_nano: time_ns,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    fn request(temporality: i32, data_points: Vec<NumberDataPoint>) -> ExportMetricsServiceRequest {
        let sum = Sum { data_points, aggregation_temporality: temporality, is_monotonic: true };
        let metric = Metric { name: "m".to_owned(), data: Some(Data::Sum(sum)), ..Metric::default() };
        let scope = ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() };
        let resource = ResourceMetrics { scope_metrics: vec![scope], ..ResourceMetrics::default() };
        ExportMetricsServiceRequest { resource_metrics: vec![resource] }
    }

    #[test]
    fn a_stream_is_its_labels_in_any_order() {
        let mut census = Census::with_totals();
        let int = Value::AsInt;
        census.add(&request(2, vec![point(&[("a", "1"), ("b", "2")], 1, 10, int(5))]));
        census.add(&request(2, vec![point(&[("b", "2"), ("a", "1")], 1, 20, int(7))]));
        census.add(&request(2, vec![point(&[("a", "2"), ("b", "1")], 1, 20, int(100))]));
        // A restart: another start time. What came before stays counted.
        census.add(&request(2, vec![point(&[("a", "1"), ("b", "2")], 25, 30, int(3))]));
        let counts = &census.metrics["m"];
        assert_eq!((counts.points, counts.streams(), counts.total().ints), (4, 2, 7 + 100 + 3));
        assert_eq!(newest_ns(&request(2, vec![point(&[], 1, 10, int(5))])), Some(10));
    }

    #[test]
    fn deltas_add_up() {
        let mut census = Census::with_totals();
        census.add(&request(1, vec![point(&[], 1, 2, Value::AsDouble(0.1))]));
        census.add(&request(
            1,
            vec![point(&[], 2, 3, Value::AsDouble(0.2)), point(&[], 3, 4, Value::AsInt(4))],
        ));
        let total = census.metrics["m"].total();
        assert_eq!((total.ints, total.is_double()), (4, true));
        assert!((total.value() - 4.3).abs() < 1e-12);
    }
}
