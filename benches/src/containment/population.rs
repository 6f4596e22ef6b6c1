//! The streams of a scenario: what they are called, who lives when, and what each counts.
//!
//! In: labels, births, and one export after another. Out: data points. Every number is whole, every stream starts within the run, and counts from zero; so the true total of
//! a metric is known to the unit. Refuses nothing.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use rand::Rng;
use std::collections::BTreeMap;

/// Bounds of every histogram.
const BOUNDS: [f64; 3] = [10.0, 100.0, 1_000.0];
/// What falls into its buckets, one value each.
const OBSERVED: [u64; 4] = [5, 50, 500, 5_000];

/// A label whose value is text.
pub fn text(key: &str, value: &str) -> KeyValue {
    any(key, Value::StringValue(value.to_owned()))
}

/// A label.
pub fn any(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// What kind of points a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Cumulative monotonic sums.
    Sum,
    /// Delta monotonic sums.
    DeltaSum,
    /// Cumulative histograms.
    Histogram,
    /// Gauges.
    Gauge,
}

/// A metric.
#[derive(Clone, Debug)]
pub struct Instrument {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub form: Form,
}

/// Somebody who exports: a resource.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its resource attributes.
    pub labels: Vec<KeyValue>,
}

/// One stream.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Index of its tenant.
    pub tenant: usize,
    /// Index of its metric.
    pub metric: usize,
    /// Index of its pod.
    pub pod: usize,
    /// Labels of its points.
    pub labels: Vec<KeyValue>,
    /// First epoch in which it is silent for ever.
    pub dies: u64,
    /// Through whom it comes.
    pub worker: usize,
    /// Its labels come in another order each time.
    pub shuffles: bool,
    /// When it began; zero: it has not.
    start_ns: u64,
    /// Its last export.
    last_ns: u64,
    /// How often each of [`OBSERVED`] was seen: since the start, or since the last export.
    counts: [u64; 4],
}

impl Stream {
    /// A stream that will begin with its first export.
    pub fn new(tenant: usize, metric: usize, pod: usize, labels: Vec<KeyValue>) -> Stream {
        Stream {
            tenant,
            metric,
            pod,
            labels,
            dies: u64::MAX,
            worker: 0,
            shuffles: false,
            start_ns: 0,
            last_ns: 0,
            counts: [0; 4],
        }
    }

    /// Counts something and says so.
    fn export(&mut self, form: Form, time_ns: u64, random: &mut impl Rng) -> Point {
        if self.start_ns == 0 {
            // Some seconds ago, but within the run.
            self.start_ns = time_ns - random.random_range(1..8_000) * 1_000_000;
            self.last_ns = self.start_ns;
        }
        if form == Form::DeltaSum {
            self.counts = [0; 4];
        }
        for _ in 0..random.random_range(1..4) {
            self.counts[random.random_range(0..4)] += random.random_range(1..20);
        }
        if self.shuffles {
            let turn = random.random_range(0..self.labels.len().max(1));
            self.labels.rotate_left(turn);
        }
        let start_ns = match form {
            Form::Sum | Form::Histogram => self.start_ns,
            Form::DeltaSum => self.last_ns,
            Form::Gauge => 0,
        };
        self.last_ns = time_ns;
        let attributes = self.labels.clone();
        let count: u64 = self.counts.iter().sum();
        if form == Form::Histogram {
            let sum: u64 = self.counts.iter().zip(OBSERVED).map(|(count, value)| count * value).sum();
            return Point::Histogram(HistogramDataPoint {
                attributes,
                start_time_unix_nano: start_ns,
                time_unix_nano: time_ns,
                count,
                sum: Some(sum as f64),
                bucket_counts: self.counts.to_vec(),
                explicit_bounds: BOUNDS.to_vec(),
                ..Default::default()
            });
        }
        Point::Number(NumberDataPoint {
            attributes,
            start_time_unix_nano: start_ns,
            time_unix_nano: time_ns,
            value: Some(Number::AsInt(count.cast_signed())),
            ..Default::default()
        })
    }
}

enum Point {
    Number(NumberDataPoint),
    Histogram(HistogramDataPoint),
}

/// Exports of these streams at one time, grouped as senders group them: resource, metric, points.
pub fn export<'a>(
    streams: impl Iterator<Item = &'a mut Stream>,
    pods: &[Pod],
    metrics: &[Instrument],
    time_ns: u64,
    random: &mut impl Rng,
) -> Vec<ResourceMetrics> {
    let mut grouped: BTreeMap<usize, BTreeMap<usize, Vec<Point>>> = BTreeMap::new();
    for stream in streams {
        let point = stream.export(metrics[stream.metric].form, time_ns, random);
        grouped.entry(stream.pod).or_default().entry(stream.metric).or_default().push(point);
    }
    let of_pod = |(pod, of_metric): (usize, BTreeMap<usize, Vec<Point>>)| {
        let metrics = of_metric.into_iter().map(|(metric, points)| instrument(&metrics[metric], points));
        let scope = Some(InstrumentationScope { name: "shop".to_owned(), ..Default::default() });
        let scope_metrics = vec![ScopeMetrics { scope, metrics: metrics.collect(), ..Default::default() }];
        let resource = Some(Resource { attributes: pods[pod].labels.clone(), ..Default::default() });
        ResourceMetrics { resource, scope_metrics, ..Default::default() }
    };
    grouped.into_iter().map(of_pod).collect()
}

fn instrument(instrument: &Instrument, points: Vec<Point>) -> Metric {
    let (mut numbers, mut histograms) = (Vec::new(), Vec::new());
    for point in points {
        match point {
            Point::Number(point) => numbers.push(point),
            Point::Histogram(point) => histograms.push(point),
        }
    }
    let sum = |data_points, temporality: AggregationTemporality| {
        let aggregation_temporality = temporality.into();
        Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
    };
    let data = match instrument.form {
        Form::Sum => sum(numbers, AggregationTemporality::Cumulative),
        Form::DeltaSum => sum(numbers, AggregationTemporality::Delta),
        Form::Gauge => Data::Gauge(Gauge { data_points: numbers }),
        Form::Histogram => Data::Histogram(Histogram {
            data_points: histograms,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
    };
    Metric { name: instrument.name.to_owned(), unit: "1".to_owned(), data: Some(data), ..Default::default() }
}
