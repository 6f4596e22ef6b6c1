//! Points as OTLP.
//!
//! Enters: the points of one request, of one process. Leaves: an `ExportMetricsServiceRequest` in protobuf, and what is in it for the books. Points of a metric lie together; the
//! order is that of the scenario.

use super::point::{Grown, State, bounds, lowest};
use super::process::{Point, World};
use super::scenario::{Kind, Metric, Temporality};
use crate::otlp::census::Total;
use crate::otlp::{CUMULATIVE, DELTA};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// The name of the one scope.
const SCOPE: &str = "phoenix.generate";
/// Quantiles of summaries, with the share of the greatest value that each has.
const QUANTILES: [(f64, f64); 3] = [(0.5, 0.3), (0.9, 0.7), (0.99, 0.95)];

/// What one request holds of one metric.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Index of the metric.
    pub metric: usize,
    /// Points.
    pub points: u64,
    /// Streams that nobody saw before.
    pub streams: u64,
    /// Bytes of the `Metric` message.
    pub bytes: u64,
    /// What its points add: of sums.
    pub total: Total,
    /// Observations that its points add: of histograms and summaries …
    pub observations: u64,
    /// … and their sum.
    pub observed: Total,
}

/// Encodes the points of one request. Times count from `start_ns`, Unix nanoseconds.
pub fn request(
    world: &World,
    resource: &[KeyValue],
    points: &[Point],
    start_ns: u64,
    at_ns: u64,
) -> (Vec<u8>, Vec<Part>) {
    let mut parts = Vec::new();
    let mut metrics = Vec::new();
    for of_metric in points.chunk_by(|a, b| a.metric == b.metric) {
        let Some(first) = of_metric.first() else { continue };
        let spec = &world.scenario.metrics[first.metric];
        let encoded = metric(spec, of_metric, start_ns, start_ns + at_ns);
        parts.push(part(of_metric, first.metric, encoded.encoded_len() as u64));
        metrics.push(encoded);
    }
    let scope = otlp::ScopeMetrics {
        scope: Some(InstrumentationScope { name: SCOPE.to_owned(), ..InstrumentationScope::default() }),
        metrics,
        ..otlp::ScopeMetrics::default()
    };
    let resource = otlp::ResourceMetrics {
        resource: Some(Resource { attributes: resource.to_vec(), ..Resource::default() }),
        scope_metrics: vec![scope],
        ..otlp::ResourceMetrics::default()
    };
    let request = ExportMetricsServiceRequest { resource_metrics: vec![resource] };
    (request.encode_to_vec(), parts)
}

fn part(points: &[Point], metric: usize, bytes: u64) -> Part {
    let mut part = Part { metric, bytes, points: points.len() as u64, ..Part::default() };
    for point in points {
        part.streams += u64::from(point.is_new);
        match point.grown {
            Grown::Nothing => {}
            Grown::Int(added) => part.total.add_int(i128::from(added)),
            Grown::Double(added) => part.total.add_double(added),
            Grown::Observed(count, sum) => {
                part.observations += count;
                part.observed.add_double(sum);
            }
        }
    }
    part
}

fn metric(spec: &Metric, points: &[Point], start_ns: u64, time_ns: u64) -> otlp::Metric {
    let temporality = if spec.temporality == Temporality::Delta { DELTA } else { CUMULATIVE };
    let numbers = || points.iter().map(|point| number(point, spec, start_ns, time_ns)).collect();
    let data = match spec.kind {
        Kind::Sum | Kind::UpDownCounter => Data::Sum(otlp::Sum {
            data_points: numbers(),
            aggregation_temporality: temporality,
            is_monotonic: spec.kind == Kind::Sum,
        }),
        Kind::Gauge => Data::Gauge(otlp::Gauge { data_points: numbers() }),
        Kind::Histogram => Data::Histogram(otlp::Histogram {
            data_points: points.iter().map(|point| histogram(point, spec, start_ns, time_ns)).collect(),
            aggregation_temporality: temporality,
        }),
        Kind::ExponentialHistogram => Data::ExponentialHistogram(otlp::ExponentialHistogram {
            data_points: points.iter().map(|point| exponential(point, spec, start_ns, time_ns)).collect(),
            aggregation_temporality: temporality,
        }),
        Kind::Summary => Data::Summary(otlp::Summary {
            data_points: points.iter().map(|point| summary(point, start_ns, time_ns)).collect(),
        }),
    };
    otlp::Metric {
        name: spec.name.clone(),
        unit: spec.unit.clone(),
        data: Some(data),
        ..otlp::Metric::default()
    }
}

fn number(point: &Point, spec: &Metric, start_ns: u64, time_ns: u64) -> otlp::NumberDataPoint {
    let value = match &point.state {
        State::Int(value) => Some(Value::AsInt(*value)),
        State::Double(value) => Some(Value::AsDouble(*value)),
        State::Observed(_) => None,
    };
    otlp::NumberDataPoint {
        attributes: point.labels.clone(),
        start_time_unix_nano: if spec.kind == Kind::Gauge { 0 } else { start_ns + point.start_ns },
        time_unix_nano: time_ns,
        value,
        ..otlp::NumberDataPoint::default()
    }
}

fn histogram(point: &Point, spec: &Metric, start_ns: u64, time_ns: u64) -> otlp::HistogramDataPoint {
    let State::Observed(observed) = &point.state else { return otlp::HistogramDataPoint::default() };
    let some = |value: f64| (observed.count > 0).then_some(value);
    otlp::HistogramDataPoint {
        attributes: point.labels.clone(),
        start_time_unix_nano: start_ns + point.start_ns,
        time_unix_nano: time_ns,
        count: observed.count,
        sum: Some(observed.sum),
        bucket_counts: observed.buckets.clone(),
        explicit_bounds: bounds(spec).to_vec(),
        min: some(observed.min),
        max: some(observed.max),
        ..otlp::HistogramDataPoint::default()
    }
}

fn exponential(
    point: &Point,
    spec: &Metric,
    start_ns: u64,
    time_ns: u64,
) -> otlp::ExponentialHistogramDataPoint {
    let State::Observed(observed) = &point.state else {
        return otlp::ExponentialHistogramDataPoint::default();
    };
    let some = |value: f64| (observed.count > 0).then_some(value);
    // Only from the first bucket with something in it to the last, as SDKs do.
    let used = |count: &&u64| **count > 0;
    let first = observed.buckets.iter().position(|count| *count > 0).unwrap_or(0);
    let unused = observed.buckets.iter().rev().take_while(|count| !used(count)).count();
    let last = observed.buckets.len() - unused;
    let positive = (last > first).then(|| Buckets {
        offset: lowest() + first as i32,
        bucket_counts: observed.buckets[first..last].to_vec(),
    });
    otlp::ExponentialHistogramDataPoint {
        attributes: point.labels.clone(),
        start_time_unix_nano: start_ns + point.start_ns,
        time_unix_nano: time_ns,
        count: observed.count,
        sum: Some(observed.sum),
        scale: spec.scale,
        zero_count: observed.zeros,
        positive,
        min: some(observed.min),
        max: some(observed.max),
        ..otlp::ExponentialHistogramDataPoint::default()
    }
}

fn summary(point: &Point, start_ns: u64, time_ns: u64) -> otlp::SummaryDataPoint {
    let State::Observed(observed) = &point.state else { return otlp::SummaryDataPoint::default() };
    let quantile = |(quantile, share): (f64, f64)| ValueAtQuantile { quantile, value: observed.max * share };
    otlp::SummaryDataPoint {
        attributes: point.labels.clone(),
        start_time_unix_nano: start_ns + point.start_ns,
        time_unix_nano: time_ns,
        count: observed.count,
        sum: observed.sum,
        quantile_values: QUANTILES.map(quantile).to_vec(),
        ..otlp::SummaryDataPoint::default()
    }
}
