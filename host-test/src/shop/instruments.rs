//! The instruments of one process and the points they export.
//!
//! In: draws of the process's generator and the span since the last export. Out: OTLP metrics, and the increments behind them as
//! [`Increment`]s, so that the truth is what was drawn and not what was read back. A cumulative stream appears with its first
//! increment and is exported ever after, as SDKs do; it starts at the export before, as the specification advises ("Start timestamps" of the metrics
//! SDK). A delta stream is exported only where it moved.

use super::catalogue::{
    CATEGORIES, CURRENCIES, METRICS, MetricSpec, PAYMENTS, STATUSES, Service, Shape, USER_AGENTS,
};
use super::otlp::{CUMULATIVE, DELTA, array, int, list, metric, number, sum, text};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    Summary, SummaryDataPoint,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// What was added to one metric since the last export.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Increment {
    /// Integers.
    Int(i128),
    /// One double.
    Double(f64),
}

/// The span of one export, Unix nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// When the process began.
    pub born_ns: u64,
    /// The export before.
    pub last_ns: u64,
    /// Now.
    pub now_ns: u64,
}

/// Label indices of a stream: their meaning is the metric's own.
type Key = (usize, usize, usize);

/// What a stream stands at, and since when it counts.
#[derive(Clone, Debug)]
struct Counter<T> {
    start_ns: u64,
    value: T,
}

/// The streams of one instrument.
type Streams<T> = BTreeMap<Key, Counter<T>>;

/// The state of a process: what its counters stand at.
#[derive(Clone, Debug, Default)]
pub struct Instruments {
    requests: Streams<i64>,
    bytes: Streams<i64>,
    cpu: Streams<f64>,
    audit: Streams<i64>,
    active: Streams<i64>,
    durations: Streams<Vec<u64>>,
}

/// Bounds of `http_request_duration`, seconds (OpenTelemetry's advice for HTTP).
const DURATION_BOUNDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// How often a delta stream moved since the last export. Seldom enough that gaps happen all the time; often enough that a rate over them means
/// something: what a stream did in a gap at the end of a range, nobody can know.
const MOVES: f64 = 0.9;

impl Instruments {
    /// Draws the traffic of `span` and exports it; increments go to `book` under the metric's index in [`METRICS`].
    pub fn collect(
        &mut self,
        service: &Service,
        span: Span,
        rng: &mut ChaCha8Rng,
        book: &mut impl FnMut(usize, Increment),
    ) -> Vec<Metric> {
        self.draw(service, span, rng, book);
        METRICS
            .iter()
            .enumerate()
            .filter_map(|(index, spec)| self.export(index, spec, service, span, rng, book))
            .collect()
    }

    fn draw(
        &mut self,
        service: &Service,
        span: Span,
        rng: &mut ChaCha8Rng,
        book: &mut impl FnMut(usize, Increment),
    ) {
        let seconds = span.now_ns.saturating_sub(span.last_ns) as f64 / 1e9;
        let requests = (service.requests_per_second * seconds * rng.random_range(0.6..1.4)) as u64;
        for _ in 0..requests {
            let route = skewed(rng, service.routes.len(), 1.3);
            let status = skewed(rng, STATUSES.len(), 4.0);
            let agent = skewed(rng, USER_AGENTS.len(), 2.0);
            *counter(&mut self.requests, (route, status, agent), span) += 1;
            book(0, Increment::Int(1));
            let bytes = rng.random_range(200..90_000);
            *counter(&mut self.bytes, (route, 0, 0), span) += bytes;
            book(1, Increment::Int(i128::from(bytes)));
            let buckets = counter(&mut self.durations, (route, 0, 0), span);
            buckets.resize(DURATION_BOUNDS.len() + 1, 0);
            buckets[skewed(rng, DURATION_BOUNDS.len() + 1, 1.5)] += 1;
        }
        for state in 0..2 {
            let seconds = seconds * rng.random_range(0.01..0.7);
            *counter(&mut self.cpu, (state, 0, 0), span) += seconds;
            book(2, Increment::Double(seconds));
        }
        let events = rng.random_range(0..3);
        *counter(&mut self.audit, (0, 0, 0), span) += events;
        book(5, Increment::Int(i128::from(events)));
        for route in 0..service.routes.len() {
            *counter(&mut self.active, (route, 0, 0), span) = rng.random_range(0..40);
        }
    }

    fn export(
        &self,
        index: usize,
        spec: &MetricSpec,
        service: &Service,
        span: Span,
        rng: &mut ChaCha8Rng,
        book: &mut impl FnMut(usize, Increment),
    ) -> Option<Metric> {
        let data = match spec.name {
            "http_requests" => cumulative(&self.requests, span, |key| request_labels(service, key)),
            "http_response_bytes" => cumulative(&self.bytes, span, |key| route_labels(service, key)),
            "audit_events" => cumulative(&self.audit, span, |_| vec![text("actor", "admin")]),
            "process_cpu_seconds" => {
                let point = |(key, stream): (&Key, &Counter<f64>)| {
                    let labels = vec![text("state", ["user", "system"][key.0])];
                    number(labels, stream.start_ns, span.now_ns, Value::AsDouble(stream.value))
                };
                sum(self.cpu.iter().map(point).collect(), CUMULATIVE, true)
            }
            "cart_items" if service.name == "cart" => cart_items(index, span, rng, book),
            "order_revenue" if matches!(service.name, "checkout" | "payment") => {
                order_revenue(index, span, rng, book)
            }
            "http_active_requests" => {
                let Data::Sum(mut data) = cumulative(&self.active, span, |key| route_labels(service, key))
                else {
                    return None;
                };
                data.is_monotonic = false;
                Data::Sum(data)
            }
            "process_memory" => memory(span, rng),
            "http_request_duration" => self.request_duration(service, span),
            "db_query_duration" if service.name != "ads" => query_duration(span, rng),
            "rpc_latency" if service.language == "java" => latency(span, rng),
            _ => return None,
        };
        // SDKs export no metric without points, and Prometheus answers 500 to one.
        has_points(&data).then(|| metric(spec.name, spec.unit, data))
    }

    fn request_duration(&self, service: &Service, span: Span) -> Data {
        let point = |(key, stream): (&Key, &Counter<Vec<u64>>)| {
            let count: u64 = stream.value.iter().sum();
            HistogramDataPoint {
                attributes: route_labels(service, key),
                start_time_unix_nano: stream.start_ns,
                time_unix_nano: span.now_ns,
                count,
                sum: Some(count as f64 * 0.07),
                bucket_counts: stream.value.clone(),
                explicit_bounds: DURATION_BOUNDS.to_vec(),
                ..HistogramDataPoint::default()
            }
        };
        let data_points = self.durations.iter().map(point).collect();
        Data::Histogram(Histogram { data_points, aggregation_temporality: CUMULATIVE })
    }
}

/// The shape of a metric by its index.
pub fn shape(index: usize) -> Shape {
    METRICS[index].shape
}

fn has_points(data: &Data) -> bool {
    match data {
        Data::Sum(sum) => !sum.data_points.is_empty(),
        Data::Gauge(gauge) => !gauge.data_points.is_empty(),
        Data::Histogram(histogram) => !histogram.data_points.is_empty(),
        Data::ExponentialHistogram(histogram) => !histogram.data_points.is_empty(),
        Data::Summary(summary) => !summary.data_points.is_empty(),
    }
}

/// The value of a stream; one that is new has counted since the export before.
fn counter<T: Default>(streams: &mut Streams<T>, key: Key, span: Span) -> &mut T {
    let new = || Counter { start_ns: span.last_ns, value: T::default() };
    &mut streams.entry(key).or_insert_with(new).value
}

fn cumulative(streams: &Streams<i64>, span: Span, labels: impl Fn(&Key) -> Vec<KeyValue>) -> Data {
    let point = |(key, stream): (&Key, &Counter<i64>)| {
        number(labels(key), stream.start_ns, span.now_ns, Value::AsInt(stream.value))
    };
    sum(streams.iter().map(point).collect(), CUMULATIVE, true)
}

fn request_labels(service: &Service, key: &Key) -> Vec<KeyValue> {
    let (method, route) = service.routes[key.0];
    vec![
        text("method", method),
        text("route", route),
        int("status", STATUSES[key.1]),
        text("user_agent", USER_AGENTS[key.2]),
    ]
}

fn route_labels(service: &Service, key: &Key) -> Vec<KeyValue> {
    let (method, route) = service.routes[key.0];
    vec![text("method", method), text("route", route)]
}

fn cart_items(
    index: usize,
    span: Span,
    rng: &mut ChaCha8Rng,
    book: &mut impl FnMut(usize, Increment),
) -> Data {
    let mut points = Vec::new();
    for category in CATEGORIES {
        if rng.random_bool(MOVES) {
            let items = rng.random_range(1..400);
            book(index, Increment::Int(i128::from(items)));
            points.push(number(
                vec![text("category", category)],
                span.last_ns,
                span.now_ns,
                Value::AsInt(items),
            ));
        }
    }
    sum(points, DELTA, true)
}

fn order_revenue(
    index: usize,
    span: Span,
    rng: &mut ChaCha8Rng,
    book: &mut impl FnMut(usize, Increment),
) -> Data {
    let mut points = Vec::new();
    for currency in CURRENCIES {
        for payment in PAYMENTS {
            if rng.random_bool(MOVES) {
                // Cents as doubles: 0.01 has no exact binary form, so that rounding is really tested.
                let revenue = f64::from(rng.random_range(100..5_000_000)) * 0.01;
                book(index, Increment::Double(revenue));
                let labels = vec![text("currency", currency), text("payment", payment)];
                points.push(number(labels, span.last_ns, span.now_ns, Value::AsDouble(revenue)));
            }
        }
    }
    sum(points, DELTA, true)
}

fn memory(span: Span, rng: &mut ChaCha8Rng) -> Data {
    let nested = list("allocator", vec![text("name", "default"), int("arenas", 4)]);
    let resident = Value::AsInt(rng.random_range(50 << 20..900 << 20));
    let share = Value::AsDouble(rng.random_range(0.0..1.0));
    let data_points = vec![
        number(vec![text("state", "resident"), nested], 0, span.now_ns, resident),
        number(vec![text("state", "share"), array("pools", &["heap", "stack"])], 0, span.now_ns, share),
    ];
    Data::Gauge(Gauge { data_points })
}

fn query_duration(span: Span, rng: &mut ChaCha8Rng) -> Data {
    let bucket_counts: Vec<u64> = (0..12).map(|_| rng.random_range(0..50)).collect();
    let count = bucket_counts.iter().sum();
    let point = ExponentialHistogramDataPoint {
        attributes: vec![text("db.system.name", "postgresql")],
        start_time_unix_nano: span.last_ns,
        time_unix_nano: span.now_ns,
        count,
        sum: Some(count as f64 * 0.002),
        scale: 3,
        positive: Some(Buckets { offset: -60, bucket_counts }),
        ..ExponentialHistogramDataPoint::default()
    };
    Data::ExponentialHistogram(ExponentialHistogram {
        data_points: vec![point],
        aggregation_temporality: DELTA,
    })
}

fn latency(span: Span, rng: &mut ChaCha8Rng) -> Data {
    let quantiles = [0.5, 0.9, 0.99];
    let quantile_values =
        quantiles.map(|quantile| ValueAtQuantile { quantile, value: quantile * rng.random_range(1.0..90.0) });
    let point = SummaryDataPoint {
        attributes: vec![text("rpc.system", "grpc")],
        start_time_unix_nano: span.born_ns,
        time_unix_nano: span.now_ns,
        count: rng.random_range(1..1000),
        sum: rng.random_range(1.0..9000.0),
        quantile_values: quantile_values.to_vec(),
        ..SummaryDataPoint::default()
    };
    Data::Summary(Summary { data_points: vec![point] })
}

/// An index below `count`; the higher `power`, the more often a low one.
fn skewed(rng: &mut ChaCha8Rng, count: usize, power: f64) -> usize {
    let draw: f64 = rng.random_range(0.0..1.0);
    ((draw.powf(power) * count as f64) as usize).min(count - 1)
}
