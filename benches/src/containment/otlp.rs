//! Points of OTLP as exact quantities under canonical keys.
//!
//! In: a decoded request. Out: each point with its metric, its kind, its key and what it says. The key holds resource, scope and attributes, each list sorted and
//! length-prefixed, so that two points have one key exactly if a backend that stores all labels has one series. Quantities are integers: judging totals
//! "to the unit" wants no rounding, and the scenarios count in units. Refuses nothing; a number that is no integer is [`Quantity::Inexact`].

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, HistogramDataPoint, NumberDataPoint};
use prost::Message as _;

/// `DataPointFlags.NO_RECORDED_VALUE_MASK`.
pub const NO_RECORDED_VALUE: u32 = 1;
/// Above it doubles skip integers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// How points of a metric add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each point has the total since its start.
    Cumulative,
    /// Each point is an increment.
    Delta,
    /// Points do not add up over time.
    Gauge,
}

/// What a point says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Nothing: its series ends.
    Ended,
    /// Numbers that add up each by itself: a value; or count, sum and buckets of a histogram.
    Units(Vec<i128>),
    /// Something that is no whole number, or a kind of point that no scenario has.
    Inexact,
}

/// One point.
pub struct Said<'a> {
    /// Name of its metric.
    pub metric: &'a str,
    /// How it adds up.
    pub kind: Kind,
    /// Resource, scope, attributes.
    pub key: &'a [u8],
    /// Start time, Unix nanoseconds.
    pub start_ns: u64,
    /// Time, Unix nanoseconds.
    pub time_ns: u64,
    /// What it says.
    pub quantity: Quantity,
}

/// Room for keys, reused from point to point.
#[derive(Default)]
pub struct Keys {
    parts: Vec<Vec<u8>>,
    resource: Vec<u8>,
    key: Vec<u8>,
}

impl Keys {
    /// Visits every point of a request, in order.
    pub fn each(&mut self, request: &ExportMetricsServiceRequest, mut visit: impl FnMut(Said<'_>)) {
        for of_resource in &request.resource_metrics {
            let attributes = of_resource.resource.as_ref().map_or(&[][..], |r| &r.attributes);
            self.resource.clear();
            append(attributes, &mut self.parts, &mut self.resource);
            for of_scope in &of_resource.scope_metrics {
                let scope = of_scope.scope.as_ref().map_or("", |s| s.name.as_str());
                for metric in &of_scope.metrics {
                    let mut point = |attributes: &[KeyValue], kind, start_ns, time_ns, quantity| {
                        self.key.clear();
                        self.key.extend_from_slice(&self.resource);
                        part(scope.as_bytes(), &mut self.key);
                        append(attributes, &mut self.parts, &mut self.key);
                        let metric = metric.name.as_str();
                        visit(Said { metric, kind, key: &self.key, start_ns, time_ns, quantity });
                    };
                    match &metric.data {
                        Some(Data::Sum(sum)) => {
                            let kind = adds(sum.aggregation_temporality);
                            for p in &sum.data_points {
                                point(
                                    &p.attributes,
                                    kind,
                                    p.start_time_unix_nano,
                                    p.time_unix_nano,
                                    number(p),
                                );
                            }
                        }
                        Some(Data::Gauge(gauge)) => {
                            for p in &gauge.data_points {
                                let times = (p.start_time_unix_nano, p.time_unix_nano);
                                point(&p.attributes, Kind::Gauge, times.0, times.1, number(p));
                            }
                        }
                        Some(Data::Histogram(histogram)) => {
                            let kind = adds(histogram.aggregation_temporality);
                            for p in &histogram.data_points {
                                let times = (p.start_time_unix_nano, p.time_unix_nano);
                                point(&p.attributes, kind, times.0, times.1, buckets(p));
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Takes out the points that `keep` does not want, and nothing else: what limiters do. `keep` is asked in the order of [`Keys::each`].
pub fn retain(request: &mut ExportMetricsServiceRequest, mut keep: impl FnMut() -> bool) {
    for of_resource in &mut request.resource_metrics {
        for of_scope in &mut of_resource.scope_metrics {
            for metric in &mut of_scope.metrics {
                match &mut metric.data {
                    Some(Data::Sum(sum)) => sum.data_points.retain(|_| keep()),
                    Some(Data::Gauge(gauge)) => gauge.data_points.retain(|_| keep()),
                    Some(Data::Histogram(histogram)) => histogram.data_points.retain(|_| keep()),
                    _ => {}
                }
            }
        }
    }
}

fn adds(temporality: i32) -> Kind {
    match temporality == AggregationTemporality::Delta as i32 {
        true => Kind::Delta,
        false => Kind::Cumulative,
    }
}

fn number(point: &NumberDataPoint) -> Quantity {
    match point.value {
        _ if point.flags & NO_RECORDED_VALUE != 0 => Quantity::Ended,
        Some(Value::AsInt(value)) => Quantity::Units(vec![value.into()]),
        Some(Value::AsDouble(value)) => whole(value).map_or(Quantity::Inexact, |v| Quantity::Units(vec![v])),
        None => Quantity::Inexact,
    }
}

/// Count, sum, buckets.
fn buckets(point: &HistogramDataPoint) -> Quantity {
    if point.flags & NO_RECORDED_VALUE != 0 {
        return Quantity::Ended;
    }
    // A fold may divide a sum between windows, where it is a double. What a series has counted in the end is whole again, but for the last bits.
    let Some(sum) = whole(point.sum.unwrap_or_default().round()) else { return Quantity::Inexact };
    let buckets = point.bucket_counts.iter().map(|count| i128::from(*count));
    Quantity::Units([point.count.into(), sum].into_iter().chain(buckets).collect())
}

#[allow(clippy::cast_possible_truncation)] // It has no fraction and is small.
fn whole(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() <= EXACT_MAX).then_some(value as i128)
}

/// Appends a list of attributes in an order that is theirs alone.
fn append(attributes: &[KeyValue], parts: &mut Vec<Vec<u8>>, out: &mut Vec<u8>) {
    if parts.len() < attributes.len() {
        parts.resize_with(attributes.len(), Vec::new);
    }
    let parts = &mut parts[..attributes.len()];
    for (bytes, attribute) in parts.iter_mut().zip(attributes) {
        bytes.clear();
        // A vector takes everything.
        let _ = attribute.encode(bytes);
    }
    parts.sort_unstable();
    out.extend_from_slice(&(attributes.len() as u32).to_le_bytes());
    parts.iter().for_each(|bytes| part(bytes, out));
}

fn part(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics, Sum};
    use opentelemetry_proto::tonic::resource::v1::Resource;

    fn label(key: &str, value: &str) -> KeyValue {
        crate::containment::population::text(key, value)
    }

    fn keys(resource: &[KeyValue], points: &[&[KeyValue]]) -> Vec<Vec<u8>> {
        let data_points = points
            .iter()
            .map(|attributes| NumberDataPoint {
                attributes: attributes.to_vec(),
                value: Some(Value::AsInt(1)),
                ..Default::default()
            })
            .collect();
        let data = Some(Data::Sum(Sum { data_points, ..Default::default() }));
        let metrics = vec![Metric { name: "m".into(), data, ..Default::default() }];
        let resource = Some(Resource { attributes: resource.to_vec(), ..Default::default() });
        let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }];
        let mut found = Vec::new();
        let request = ExportMetricsServiceRequest { resource_metrics };
        Keys::default().each(&request, |said| found.push(said.key.to_vec()));
        found
    }

    #[test]
    fn order_is_no_identity_and_borders_are() {
        let (a, b) = (label("a", "x"), label("b", "y"));
        let same = keys(&[], &[&[a.clone(), b.clone()], &[b.clone(), a.clone()]]);
        assert_eq!(same[0], same[1]);
        let apart = keys(&[], &[&[label("a", "y"), label("b", "x")], std::slice::from_ref(&a), &[]]);
        assert!(apart.iter().all(|key| *key != same[0]));
        assert_ne!(keys(std::slice::from_ref(&a), &[&[]]), keys(&[], &[&[a]]), "resource or point");
    }

    #[test]
    fn what_has_a_fraction_is_not_judged_as_whole() {
        assert_eq!((whole(3.0), whole(-2.0), whole(0.5), whole(f64::NAN)), (Some(3), Some(-2), None, None));
        assert_eq!(whole(1e17), None);
    }
}
