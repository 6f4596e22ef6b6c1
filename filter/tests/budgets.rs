//! Budgets end to end, in one process with several workers: contained in the batch that overflows, totals kept, raw again afterwards.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
    number_data_point::Value as V,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

const S: u64 = 1_000_000_000;
/// When the process begins.
const T0: u64 = 10_000;

fn plan(budgets: &str) -> String {
    format!(
        r#"{{"schema":1,"version":1,"hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "writer":"w","first_sample_margin":"0s","stream_expiry":"60s","measure":{{"period":"90s"}},"budgets":{budgets}}}"#
    )
}

const SMALL: &str = r#"{"tenants":[{"active_series":100}],"dwell":"30s","switch_lead":"20s",
    "fold":{"window":"10s","offset":"0s","delay":"10s","gauge":"sum"}}"#;

fn kv(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..Default::default()
    }
}

/// Attributes, start, time, value.
type Point = (Vec<(&'static str, String)>, u64, u64, i64);

fn point((attributes, start, time, value): &Point) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes.iter().map(|(k, v)| kv(k, v)).collect(),
        start_time_unix_nano: start * S,
        time_unix_nano: time * S,
        value: Some(V::AsInt(*value)),
        ..Default::default()
    }
}

fn request(metric: &str, pod: &str, data: Data) -> Vec<u8> {
    let metric = Metric { name: metric.into(), data: Some(data), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let resource =
        Resource { attributes: vec![kv("pod", pod), kv("service.name", "shop")], ..Default::default() };
    let rm = ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope], ..Default::default() };
    Request { resource_metrics: vec![rm] }.encode_to_vec()
}

fn counter(metric: &str, pod: &str, points: &[Point]) -> Vec<u8> {
    let data_points = points.iter().map(point).collect();
    request(metric, pod, Data::Sum(Sum { data_points, aggregation_temporality: 2, is_monotonic: true }))
}

/// A process, and what its upstream has seen.
struct Process {
    engine: Local,
    /// Raw series: labels → increments; and the last value.
    raw: BTreeMap<String, (i64, i64)>,
    folded: BTreeMap<String, i64>,
    /// Raw series in the order they were last seen, by time.
    seen: BTreeMap<String, u64>,
}

impl Process {
    fn new(plan: &str, workers: usize) -> Process {
        let engine = Local::with_workers(plan.as_bytes(), "w", workers, UnixNanos(T0 * S)).unwrap();
        Process { engine, raw: BTreeMap::new(), folded: BTreeMap::new(), seen: BTreeMap::new() }
    }

    /// Send a batch; how many points of it passed.
    fn send(&mut self, worker: usize, tenant: &str, now: u64, body: &[u8]) -> usize {
        let now_ns = UnixNanos(now * S);
        let batch = Batch { body, tenant: tenant.as_bytes(), sender: b"", arrived: now_ns };
        let done = self.engine.process_on(worker, Framing::Plain, &batch).unwrap();
        let out = done.body.unwrap_or(body.to_vec());
        self.engine.settle(done.token, Settled::Accepted, now_ns);
        self.take(tenant, &out)
    }

    fn take(&mut self, tenant: &str, body: &[u8]) -> usize {
        let mut count = 0;
        for rm in Request::decode(body).unwrap().resource_metrics {
            let resource = rm.resource.unwrap().attributes;
            for m in rm.scope_metrics.into_iter().flat_map(|s| s.metrics) {
                let Some(Data::Sum(sum)) = m.data else { continue };
                for p in sum.data_points {
                    count += 1;
                    let mut labels: Vec<String> = resource.iter().chain(&p.attributes).map(text).collect();
                    labels.sort();
                    let key = format!("{tenant}/{}{{{}}}", m.name, labels.join(","));
                    let Some(V::AsInt(v)) = p.value else { continue };
                    if key.contains("phoenix_folded") {
                        self.folded.insert(format!("{key}@{}", p.start_time_unix_nano), v);
                    } else {
                        let (sum, last) = self.raw.entry(key.clone()).or_default();
                        *sum += if v >= *last { v - *last } else { v };
                        *last = v;
                        self.seen.insert(key, p.time_unix_nano / S);
                    }
                }
            }
        }
        count
    }

    fn tick(&mut self, now: u64) {
        let now_ns = UnixNanos(now * S);
        self.engine.tick(now_ns);
        while let Some((shard, emission)) = self.engine.next_emission(now_ns) {
            let (sequence, body, tenant) = (
                emission.sequence,
                emission.body.to_vec(),
                String::from_utf8(emission.tenant.to_vec()).unwrap(),
            );
            self.take(&tenant, &body);
            self.engine.answer(shard, sequence, Answer::Accepted, now_ns);
        }
    }

    /// Increments that arrived, raw and folded.
    fn total(&self) -> i64 {
        self.raw.values().map(|(sum, _)| sum).sum::<i64>() + self.folded.values().sum::<i64>()
    }

    /// Series without their starts.
    fn folded_series(&self) -> BTreeSet<&str> {
        self.folded.keys().map(|key| key.split('@').next().unwrap()).collect()
    }
}

fn text(kv: &KeyValue) -> String {
    let Some(Value::StringValue(v)) = &kv.value.as_ref().unwrap().value else { panic!() };
    format!("{}={v}", kv.key)
}

fn leak(n: u64, start: u64, time: u64, value: i64) -> Point {
    let route = ["/cart", "/pay", "/home", "/item"][n as usize % 4];
    (vec![("route", route.to_owned()), ("user_id", format!("u{n}"))], start, time, value)
}

fn base(n: u64, time: u64, value: i64) -> Point {
    let route = ["/cart", "/pay", "/home", "/item"][n as usize % 4];
    (vec![("route", route.to_owned()), ("method", format!("m{}", n / 4))], T0 + 1, time, value)
}

#[test]
fn a_share_that_holds_changes_nothing() {
    let mut p = Process::new(&plan(SMALL), 1);
    for step in 1..20 {
        let now = T0 + 10 * step;
        let points: Vec<Point> = (0..100).map(|n| leak(n, T0 + 1, now, step as i64)).collect();
        let body = counter("requests", "a", &points);
        assert_eq!(p.send(0, "t", now, &body), 100, "exactly the share is raw");
        p.tick(now + 1);
    }
    assert!(p.folded.is_empty());
    assert_eq!(p.engine.tally().contained, 0);
}

#[test]
fn an_explosion_is_contained_in_its_batch_on_the_guilty_label() {
    let mut p = Process::new(&plan(SMALL), 4);
    let mut sent = 0;
    for step in 1..=10_u64 {
        let now = T0 + 10 * step;
        let points: Vec<Point> = (0..40).map(|n| base(n, now, 3 * step as i64)).collect();
        sent = 40 * 3 * step as i64;
        p.send(step as usize % 4, "t", now, &counter("requests", "a", &points));
        p.tick(now);
    }
    // 5,000 users at once, over four workers.
    for step in 11..=30_u64 {
        let now = T0 + 10 * step;
        let points: Vec<Point> = (0..40).map(|n| base(n, now, 3 * step as i64)).collect();
        p.send(step as usize % 4, "t", now, &counter("requests", "a", &points));
        for worker in 0..4_u64 {
            let worker_now = now + worker;
            let leaked: Vec<Point> = (0..1_250)
                .map(|n| leak(4 * n + (worker + step) % 4, T0 + 105, worker_now, 2 * (step as i64 - 10)))
                .collect();
            let passed = p.send(worker as usize, "t", worker_now, &counter("requests", "a", &leaked));
            assert_eq!(passed, 0, "step {step}: none of the leak is raw, on no worker");
        }
        sent = 40 * 3 * step as i64 + 5_000 * 2 * (step as i64 - 10);
        p.tick(now + 5);
    }
    for now in T0 + 310..T0 + 420 {
        p.tick(now);
    }
    assert_eq!(p.total(), sent, "every increment is there");
    let folded = p.folded_series();
    assert_eq!(folded.len(), 4, "other labels are kept: {folded:?}");
    assert!(
        folded.iter().all(|s| s.contains("phoenix_folded=user_id") && s.contains("route=")),
        "{folded:?}"
    );
    assert_eq!(p.raw.len(), 40, "what was there stays raw");
    let registry = p.engine.registry(0).unwrap();
    assert!(registry.state().metrics.values().any(|m| m.levels.len() == 1));
}

#[test]
fn a_slow_drip_ends_at_the_share() {
    let mut p = Process::new(&plan(SMALL), 2);
    let mut sent = 0;
    for step in 1..=150_u64 {
        let now = T0 + 10 * step;
        let points: Vec<Point> =
            (0..2 * step).map(|n| leak(n, T0 + 10 * (n / 2) + 1, now, 1 + (step - n / 2) as i64)).collect();
        sent = points.iter().map(|p| p.3).sum();
        p.send(step as usize % 2, "t", now, &counter("requests", "a", &points));
        p.tick(now);
        let series = p.raw.len() + p.folded_series().len();
        assert!(series <= 101, "{series} series at step {step}");
    }
    for now in T0 + 1_500..T0 + 1_600 {
        p.tick(now);
    }
    assert_eq!(p.raw.len(), 100);
    assert_eq!(p.total(), sent);
}

#[test]
fn raw_series_come_back_when_the_leak_has_stopped() {
    let mut p = Process::new(&plan(SMALL), 2);
    let (mut sent_base, mut sent_leak) = (0, 0);
    let mut folded_until = 0;
    for step in 1..=80_u64 {
        let now = T0 + 10 * step;
        let points: Vec<Point> = (0..40).map(|n| base(n, now, 3 * step as i64)).collect();
        sent_base = 40 * 3 * step as i64;
        p.send(step as usize % 2, "t", now, &counter("requests", "a", &points));
        // Ten more come with the explosion and stay.
        if (10..=20).contains(&step) {
            let leaked: Vec<Point> = (0..500).map(|n| leak(n, T0 + 95, now, step as i64)).collect();
            sent_leak = 500 * step as i64;
            p.send(step as usize % 2, "t", now, &counter("requests", "a", &leaked));
        } else if step > 20 {
            let leaked: Vec<Point> = (0..10).map(|n| leak(n, T0 + 95, now, step as i64)).collect();
            sent_leak = 490 * 20 + 10 * step as i64;
            if p.send((step + 1) as usize % 2, "t", now, &counter("requests", "a", &leaked)) == 0 {
                folded_until = step;
            }
        }
        for at in 0..10 {
            p.tick(now + at);
        }
    }
    for now in T0 + 810..T0 + 900 {
        p.tick(now);
    }
    assert!((30..60).contains(&folded_until), "raw again after a period: folded until step {folded_until}");
    assert_eq!(p.raw.len(), 50);
    // Increments of a raw series count from its first sample, as a backend's `increase` does; what came to be before is folded.
    let first_raw: i64 = 10 * (folded_until as i64 + 1);
    assert_eq!(p.total() - first_raw, sent_base + sent_leak, "no increment twice, none lost");
}

#[test]
fn a_tenant_cannot_take_what_another_has() {
    let budgets = r#"{"tenants":[{"tenant":"a","active_series":100,"reserved":50},{"active_series":1000}],
        "fold":{"window":"10s","offset":"0s","delay":"10s"}}"#;
    let plan = plan(budgets).replace("\"measure\"", "\"limits\":{\"active_series_max\":300},\"measure\"");
    let mut p = Process::new(&plan, 1);
    let now = T0 + 10;
    for tenant in 0..20_u64 {
        let points: Vec<Point> = (0..40).map(|n| leak(n, T0 + 1, now, 1)).collect();
        p.send(0, &format!("other-{tenant}"), now, &counter("requests", "a", &points));
    }
    let others = p.raw.len();
    assert!(others <= 250, "{others}");
    let points: Vec<Point> = (0..50).map(|n| leak(n, T0 + 1, now, 1)).collect();
    assert_eq!(p.send(0, "a", now, &counter("requests", "a", &points)), 50, "the reserved part is there");
}

#[test]
fn undeclared_gauges_pass_and_are_counted() {
    let budgets = SMALL.replace(",\"gauge\":\"sum\"", "");
    let mut p = Process::new(&plan(&budgets), 1);
    let now = T0 + 10;
    let points: Vec<Point> = (0..500).map(|n| leak(n, T0 + 1, now, 1)).collect();
    let data_points = points.iter().map(point).collect();
    let body = request("heap", "a", Data::Gauge(Gauge { data_points }));
    let batch = Batch { body: &body, tenant: b"t", sender: b"", arrived: UnixNanos(now * S) };
    let done = p.engine.process_on(0, Framing::Plain, &batch).unwrap();
    assert!(done.body.is_none());
    assert_eq!((done.tally.passed, done.tally.undeclared), (500, 500));
    let registry = p.engine.registry(0).unwrap();
    let (_, metric) = registry.measure.metrics().next().unwrap();
    assert!((480.0..520.0).contains(&metric.active.union().estimate()));
}
