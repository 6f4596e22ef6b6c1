//! The instruments of one process and the points they export.
//!
//! In: draws of the process's generator and the span since the last export. Out: OTLP metrics, and the increments behind them as
//! [`Increment`]s, so that the truth is what was drawn and not what was read back. A cumulative stream appears with its first
//! increment and is exported ever after, as SDKs do; it starts at the export before, as the specification advises ("Start timestamps" of the metrics
//! SDK). A delta stream is exported only where it moved.

use super::catalogue::{
    CATEGORIES, CURRENCIES, METRICS, MetricSpec, PAYMENTS, STATUSES, Service, Shape, USER_AGENTS,
};
use super::measured::{Explicit, Exponential, Head, Summed};
use super::otlp::{CUMULATIVE, DELTA, array, int, list, metric, number, sum, text};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogram, Gauge, Histogram, Metric, Summary};
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
    /// One observation of a histogram or a summary.
    Observed(f64),
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
    memory: Streams<i64>,
    durations: Streams<Explicit>,
    rpcs: Streams<Exponential>,
    pauses: Streams<Summed>,
}

/// Bounds of `http_request_duration`, seconds (OpenTelemetry's advice for HTTP).
const DURATION_BOUNDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Bounds of `db_query_duration`, seconds: finer below, as databases are.
const QUERY_BOUNDS: [f64; 7] = [0.0005, 0.001, 0.0025, 0.005, 0.025, 0.1, 1.0];

/// Where requests in flight of a route settle, and bytes of memory.
const ACTIVE: i64 = 30;
const MEMORY: i64 = 300 << 20;

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
        let metrics = METRICS
            .iter()
            .enumerate()
            .filter_map(|(index, spec)| self.export(index, spec, service, span, rng, book))
            .collect();
        self.durations.values_mut().for_each(|stream| stream.value.forget_exemplar());
        self.pauses.values_mut().for_each(|stream| stream.value.forget_recent());
        metrics
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
            let (seconds, trace_id) = (duration(rng, 0.002, 3.0), rng.random());
            let durations = counter(&mut self.durations, (route, 0, 0), span);
            durations.observe_traced(seconds, &DURATION_BOUNDS, trace_id, USER_AGENTS[agent]);
            book(8, Increment::Observed(seconds));
        }
        self.draw_calls(service, requests, span, rng, book);
        for state in 0..2 {
            let seconds = seconds * rng.random_range(0.01..0.7);
            *counter(&mut self.cpu, (state, 0, 0), span) += seconds;
            book(2, Increment::Double(seconds));
        }
        let events = rng.random_range(0..3);
        *counter(&mut self.audit, (0, 0, 0), span) += events;
        book(5, Increment::Int(i128::from(events)));
        // A process begins idle and small, and what it stands at changes slowly: a gauge that jumps shows nothing but when it was read.
        for route in 0..service.routes.len() {
            let active = counter(&mut self.active, (route, 0, 0), span);
            *active = (*active + (ACTIVE - *active) / 8 + rng.random_range(-1..=1)).max(0);
        }
        for state in 0..2 {
            let bytes = counter(&mut self.memory, (state, 0, 0), span);
            *bytes = (*bytes + (MEMORY - *bytes) / 8 + rng.random_range(-1 << 20..1 << 20)).max(1 << 20);
        }
    }

    /// Calls to other services, and the pauses of runtimes that collect garbage.
    fn draw_calls(
        &mut self,
        service: &Service,
        requests: u64,
        span: Span,
        rng: &mut ChaCha8Rng,
        book: &mut impl FnMut(usize, Increment),
    ) {
        if service.language == "java" {
            for _ in 0..requests * 2 {
                // Some answers come from a cache: no time at all.
                let seconds = if rng.random_bool(0.02) { 0.0 } else { duration(rng, 0.001, 0.5) };
                counter(&mut self.rpcs, (0, 0, 0), span).observe(seconds);
                book(10, Increment::Observed(seconds));
            }
        }
        if matches!(service.language, "java" | "dotnet" | "go") {
            let pauses = span.now_ns.saturating_sub(span.last_ns) as f64 / 1e9 * rng.random_range(1.0..4.0);
            for _ in 0..pauses as u64 {
                let seconds = duration(rng, 0.0001, 0.2);
                counter(&mut self.pauses, (0, 0, 0), span).observe(seconds);
                book(11, Increment::Observed(seconds));
            }
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
            "process_memory" => self.memory(span),
            "http_request_duration" => {
                let point = |(key, stream): (&Key, &Counter<Explicit>)| {
                    stream.value.point(head(route_labels(service, key), stream, span), &DURATION_BOUNDS)
                };
                let data_points = self.durations.iter().map(point).collect();
                Data::Histogram(Histogram { data_points, aggregation_temporality: CUMULATIVE })
            }
            "db_query_duration" if service.name != "ads" => query_duration(index, span, rng, book),
            "rpc_latency" => {
                let labels = || vec![text("rpc.system", "grpc")];
                let points =
                    self.rpcs.values().map(|stream| stream.value.point(head(labels(), stream, span)));
                let data_points = points.collect();
                Data::ExponentialHistogram(ExponentialHistogram {
                    data_points,
                    aggregation_temporality: CUMULATIVE,
                })
            }
            "gc_pause" => {
                let labels = || vec![text("gc", "young")];
                let points =
                    self.pauses.values().map(|stream| stream.value.point(head(labels(), stream, span)));
                Data::Summary(Summary { data_points: points.collect() })
            }
            _ => return None,
        };
        // SDKs export no metric without points, and Prometheus answers 500 to one.
        has_points(&data).then(|| metric(spec.name, spec.unit, data))
    }

    /// One state counts in integers, the other in doubles; both have attributes that are no text.
    fn memory(&self, span: Span) -> Data {
        let point = |(key, stream): (&Key, &Counter<i64>)| {
            let nested = list("allocator", vec![text("name", "default"), int("arenas", 4)]);
            let (state, value, attribute) = if key.0 == 0 {
                ("resident", Value::AsInt(stream.value), nested)
            } else {
                ("mapped", Value::AsDouble(stream.value as f64 * 0.1), array("pools", &["heap", "stack"]))
            };
            number(vec![text("state", state), attribute], 0, span.now_ns, value)
        };
        Data::Gauge(Gauge { data_points: self.memory.iter().map(point).collect() })
    }
}

fn head<T>(attributes: Vec<KeyValue>, stream: &Counter<T>, span: Span) -> Head {
    (attributes, stream.start_ns, span.now_ns)
}

/// Seconds between `least` and `most`, each octave as likely as another, the lower ones a little more.
fn duration(rng: &mut ChaCha8Rng, least: f64, most: f64) -> f64 {
    let draw: f64 = rng.random_range(0.0..1.0);
    least * (most / least).powf(draw.powf(1.5))
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

fn query_duration(
    index: usize,
    span: Span,
    rng: &mut ChaCha8Rng,
    book: &mut impl FnMut(usize, Increment),
) -> Data {
    let mut queries = Explicit::default();
    for _ in 0..rng.random_range(1..200) {
        let seconds = duration(rng, 0.0002, 2.0);
        queries.observe(seconds, &QUERY_BOUNDS);
        book(index, Increment::Observed(seconds));
    }
    let labels = vec![text("db.system.name", "postgresql")];
    let data_points = vec![queries.point((labels, span.last_ns, span.now_ns), &QUERY_BOUNDS)];
    Data::Histogram(Histogram { data_points, aggregation_temporality: DELTA })
}

/// An index below `count`; the higher `power`, the more often a low one.
fn skewed(rng: &mut ChaCha8Rng, count: usize, power: f64) -> usize {
    let draw: f64 = rng.random_range(0.0..1.0);
    ((draw.powf(power) * count as f64) as usize).min(count - 1)
}
