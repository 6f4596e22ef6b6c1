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

mod measuring;

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

/// Series that protected labels make have to be somewhere: room is kept for them before raw streams have taken it all.
#[test]
fn a_slow_drip_of_many_teams_ends_at_the_share() {
    for (teams, tenants_share) in [(3, false), (6, false), (11, false), (6, true)] {
        let share = r#"{"tenants":[{"active_series":SHARE}],METRIC"protected_labels":["team"],"dwell":"30s","switch_lead":"20s",
            "fold":{"window":"10s","offset":"0s","delay":"10s"}}"#;
        let of_metric = r#""metrics":[{"metric":{"glob":"*"},"active_series":100}],"#;
        let share = match tenants_share {
            true => share.replace("SHARE", "100").replace("METRIC", ""),
            false => share.replace("SHARE", "500").replace("METRIC", of_metric),
        };
        let mut p = Process::new(&plan(&share), 2);
        let point = |n: u64, now: u64| -> Point {
            let labels = [
                ("team", n % teams),
                ("user_id", n),
                ("shelf", n / 3),
                ("path", n / 2 % 50),
                ("peer", n / 5),
            ];
            (labels.iter().map(|(k, v)| (*k, v.to_string())).collect(), T0 + 11, now, 1)
        };
        p.tick(T0 + 10);
        for n in 0..400 {
            let now = T0 + 20 + n / 20;
            // Two metrics of one tenant, a stream at a time.
            let metric = if tenants_share && n % 3 == 0 { "replies" } else { "requests" };
            p.send(n as usize % 2, "t", now, &counter(metric, "a", &[point(n, now)]));
            p.tick(now);
        }
        for now in T0 + 40..T0 + 90 {
            p.tick(now);
        }
        let folded = p.folded_series().len();
        let series = p.raw.len() + folded;
        assert!(series <= 101, "{teams} teams: {} raw, {folded} folded", p.raw.len());
        assert!(p.raw.len() >= 85, "{teams} teams: {} raw, {folded} folded", p.raw.len());
        assert_eq!(p.total(), 400, "{teams} teams");
    }
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
    // Known by now, they go the short way, and are counted all the same.
    let again = p.engine.process_on(0, Framing::Plain, &batch).unwrap();
    assert_eq!((again.tally.passed, again.tally.undeclared), (500, 500));
    let registry = p.engine.registry(0).unwrap();
    let (_, metric) = registry.measure.metrics().next().unwrap();
    assert!((480.0..520.0).contains(&metric.active.union().estimate()));
    assert_eq!(metric.points, 1_000);
}

#[test]
fn a_metric_that_was_forgotten_whole_is_no_newborn() {
    let mut p = Process::new(&plan(SMALL), 1);
    p.tick(T0);
    let all = |time, value| (0..100).map(|n| leak(n, T0 + 5, time, value)).collect::<Vec<Point>>();
    assert_eq!(p.send(0, "t", T0 + 10, &counter("requests", "a", &all(T0 + 10, 7))), 100);
    for now in T0 + 11..T0 + 150 {
        p.tick(now);
    }
    assert!(p.engine.registry(0).unwrap().state().metrics.is_empty(), "nobody spoke for a period");
    // They come back with fifty strangers, of their age: nothing shows who counted already.
    let mut back = all(T0 + 150, 9);
    back.extend((100..150).map(|n| leak(n, T0 + 5, T0 + 150, 9)));
    assert_eq!(p.send(0, "t", T0 + 150, &counter("requests", "a", &back)), 0);
    let later: Vec<Point> = (0..150).map(|n| leak(n, T0 + 5, T0 + 160, 10)).collect();
    p.send(0, "t", T0 + 160, &counter("requests", "a", &later));
    for now in T0 + 160..T0 + 220 {
        p.tick(now);
    }
    assert_eq!(p.folded.values().sum::<i64>(), 150, "baselines, and one each");
}

#[test]
fn who_comes_back_under_a_rule_that_takes_over_is_no_newborn() {
    let mut p = Process::new(&plan(SMALL), 1);
    p.tick(T0);
    let old = |time, value| (0..100).map(|n| leak(n, T0 + 5, time, value)).collect::<Vec<Point>>();
    assert_eq!(p.send(0, "t", T0 + 10, &counter("requests", "a", &old(T0 + 10, 500))), 100);
    for now in T0 + 11..T0 + 200 {
        p.tick(now);
    }
    assert!(p.engine.registry(0).unwrap().state().metrics.is_empty(), "they are forgotten");
    // An explosion, contained; a rule that takes it over later; and who was raw before comes back until then.
    let new = |time, value| (1_000..1_300).map(|n| leak(n, T0 + 199, time, value)).collect::<Vec<Point>>();
    assert_eq!(p.send(0, "t", T0 + 200, &counter("requests", "a", &new(T0 + 200, 1))), 0);
    p.tick(T0 + 201);
    p.engine.configure(with_rule(2, Some(T0 + 262)).as_bytes(), UnixNanos((T0 + 205) * S)).unwrap();
    for (now, value) in [(T0 + 210, 510), (T0 + 220, 511)] {
        let mut points = old(now, value);
        points.extend(new(now, value - 508));
        assert_eq!(p.send(0, "t", now, &counter("requests", "a", &points)), 0);
        p.tick(now);
    }
    for now in T0 + 221..T0 + 330 {
        p.tick(now);
    }
    // The new ones with all that they counted, the old ones with what came after their first point.
    assert_eq!(p.folded.values().sum::<i64>(), 300 * 3 + 100);
}

#[test]
fn what_is_raw_again_is_not_forgotten_with_the_dead() {
    // Whenever the log begins anew, some of them have just spoken and some will not for a while.
    for phase in 0..5 {
        stays_raw(phase);
    }
}

fn stays_raw(phase: u64) {
    let mut p = Process::new(&plan(SMALL), 2);
    p.tick(T0);
    let mut raw_since = 0;
    for step in 1..=60_u64 {
        let now = T0 + 10 * step;
        let points: Vec<Point> = (0..40).map(|n| base(n, now, step as i64)).collect();
        p.send(0, "t", now, &counter("requests", "a", &points));
        // Somebody dies in every generation.
        p.send(0, "other", now, &counter("mayflies", "a", &[leak(1_000 + step, now, now, 1)]));
        if step == 5 {
            let leaked: Vec<Point> = (0..500).map(|n| leak(n, T0 + 45, now, 1)).collect();
            p.send(1, "t", now, &counter("requests", "a", &leaked));
        }
        if step > 5 && (raw_since == 0 || step % 5 == phase) {
            let staying: Vec<Point> = (0..10).map(|n| leak(n, T0 + 45, now, step as i64)).collect();
            if p.send(1, "t", now, &counter("requests", "a", &staying)) == 10 && raw_since == 0 {
                raw_since = step;
            }
        }
        (0..10).for_each(|at| p.tick(now + at));
        if raw_since > 0 {
            let metrics = &p.engine.registry(0).unwrap().state().metrics;
            let it = metrics.values().max_by_key(|it| it.admitted).unwrap();
            assert_eq!(
                it.admitted, 50,
                "raw since {raw_since}, at {step}: they speak every 50 s of a period of 90"
            );
        }
    }
    assert!((10..40).contains(&raw_since), "{raw_since}");
}

/// Raw again, then back after a silence into a metric that is contained once more: the owner still knows how far the stream had folded.
#[test]
fn what_a_stream_counted_while_it_was_raw_does_not_fold_when_it_returns() {
    // The fold remembers streams for longer than the log does.
    let plan = plan(SMALL).replace("\"stream_expiry\":\"60s\"", "\"stream_expiry\":\"600s\"");
    let mut p = Process::new(&plan, 1);
    p.tick(T0);
    let all = |time, value, n| (0..n).map(|n| leak(n, T0 + 5, time, value)).collect::<Vec<Point>>();
    p.send(0, "t", T0 + 10, &counter("requests", "a", &all(T0 + 10, 7, 150)));
    let mut now = T0 + 10;
    let released = loop {
        now += 1;
        p.tick(now);
        if now.is_multiple_of(10) {
            assert_eq!(p.send(0, "t", now, &counter("requests", "a", &all(now, 7, 1))), 0);
        }
        let it = p.engine.registry(0).unwrap().state().metrics.values().next().cloned();
        if let Some(at) = it.and_then(|it| it.released_s) {
            break u64::from(at);
        }
        assert!(now < T0 + 300);
    };
    // One stream crosses; then it is raw, and as many as before contain the metric again; then all are silent, from the end of a generation on.
    let crosses = released + (50 - released % 30) % 30;
    (now..crosses).for_each(|now| p.tick(now));
    assert_eq!(p.send(0, "t", crosses, &counter("requests", "a", &all(crosses, 8, 1))), 1);
    let strangers: Vec<Point> = (500..650).map(|n| leak(n, crosses, crosses + 1, 1)).collect();
    assert_eq!(p.send(0, "t", crosses + 1, &counter("requests", "a", &strangers)), 0);
    assert_eq!(p.send(0, "t", crosses + 8, &counter("requests", "a", &all(crosses + 8, 1_000, 1))), 1);
    (crosses + 8..crosses + 111).for_each(|now| p.tick(now));
    let now = crosses + 111;
    let mut back = all(now, 1_001, 1);
    back.extend((700..850).map(|n| leak(n, now - 1, now, 0)));
    assert_eq!(p.send(0, "t", now, &counter("requests", "a", &back)), 0);
    p.send(0, "t", now + 10, &counter("requests", "a", &all(now + 10, 1_002, 1)));
    (now + 10..now + 60).for_each(|now| p.tick(now));
    assert_eq!(p.folded.values().sum::<i64>(), 150 * 7 + 1 + 150 + 1, "992 of it are in its raw series");
}

#[test]
fn what_passed_without_budgets_does_not_fold_when_they_are_back() {
    // For longer than a window and its delay, and for less.
    [21, 3].into_iter().for_each(back_after);
}

fn back_after(off: u64) {
    let with = plan(SMALL);
    let without = with[..with.find(",\"measure\"").unwrap()].to_owned() + "}";
    let mut p = Process::new(&with, 2);
    p.tick(T0);
    let all = |time, value| (0..150).map(|n| leak(n, T0 + 5, time, value)).collect::<Vec<Point>>();
    p.send(0, "t", T0 + 10, &counter("requests", "a", &all(T0 + 10, 6)));
    (T0 + 10..T0 + 39).for_each(|now| p.tick(now));
    assert_eq!(p.send(0, "t", T0 + 39, &counter("requests", "a", &all(T0 + 39, 7))), 0);
    p.engine
        .configure(without.replace("\"version\":1", "\"version\":2").as_bytes(), UnixNanos((T0 + 40) * S))
        .unwrap();
    assert_eq!(p.send(0, "t", T0 + 40, &counter("requests", "a", &all(T0 + 40, 8))), 150);
    let back = T0 + 40 + off;
    (T0 + 40..back).for_each(|now| p.tick(now));
    assert_eq!(p.send(0, "t", back - 1, &counter("requests", "a", &all(back - 1, 1_000))), 150);
    p.engine
        .configure(with.replace("\"version\":1", "\"version\":3").as_bytes(), UnixNanos(back * S))
        .unwrap();
    assert_eq!(p.send(0, "t", back + 1, &counter("requests", "a", &all(back + 1, 1_001))), 0);
    // Who is born now is counted from the beginning.
    let mut more = all(back + 11, 1_002);
    more.extend((200..230).map(|n| leak(n, back + 10, back + 11, 5)));
    assert_eq!(p.send(1, "t", back + 11, &counter("requests", "a", &more)), 0);
    (back + 11..back + 60).for_each(|now| p.tick(now));
    assert_eq!(
        p.folded.values().sum::<i64>(),
        150 * 7 + 150 + 30 * 5,
        "off for {off} s: what passed is in raw series"
    );
}

/// The plan with a rule that folds the user's id away from `at` on, seconds.
fn with_rule(version: u32, at: Option<u64>) -> String {
    let from = |at: u64| {
        let (h, m, s) = (at / 3_600, at / 60 % 60, at % 60);
        format!(
            r#","switch":{{"at":"1970-01-01T{h:02}:{m:02}:{s:02}Z","from":{{"pipeline":"full_fidelity"}}}}"#
        )
    };
    let switch = at.map_or(String::new(), from);
    let rule = format!(
        r#"{{"name":"users","tenant":"t","metric":{{"exact":"requests"}},"pipeline":"optimized","fold":{{"labels":{{"drop":{{"attributes":["user_id"]}}}},
        "window":"10s","offset":"0s","delay":"10s"}}{switch}}}"#
    );
    let plan = plan(SMALL).replace("\"version\":1", &format!("\"version\":{version}"));
    plan.replacen("\"budgets\"", &format!("\"rules\":[{rule}],\"budgets\""), 1)
}

#[test]
fn what_a_budget_folds_is_never_raw_before_a_switch_of_a_rule() {
    let mut p = Process::new(&plan(SMALL), 2);
    let mut sent = 0;
    for step in 1..=40_u64 {
        let now = T0 + 10 * step;
        if step == 15 {
            p.engine.configure(with_rule(2, Some(T0 + 182)).as_bytes(), UnixNanos((now - 5) * S)).unwrap();
        }
        let points: Vec<Point> = (0..40).map(|n| base(n, now, 3 * step as i64)).collect();
        sent = 40 * 3 * step as i64;
        let passed = p.send(step as usize % 2, "t", now, &counter("requests", "a", &points));
        // One more than the base passes as its stale marker.
        assert_eq!(
            passed,
            if step <= 19 { 40 } else { 0 },
            "step {step}: raw up to the switch, and then its end"
        );
        if step >= 10 {
            // After the push new ones still come: some were born before it, and were not heard of.
            let users = if step < 16 { 500 } else { 600 };
            let start = |n| match n {
                0..500 => T0 + 95,
                500..550 => T0 + 142,
                _ => T0 + 155,
            };
            let leaked: Vec<Point> = (0..users)
                .map(|n| leak(n, start(n), now, step as i64 - if n < 500 { 9 } else { 15 }))
                .collect();
            sent += leaked.iter().map(|point| point.3).sum::<i64>();
            let passed = p.send((step + 1) as usize % 2, "t", now, &counter("requests", "a", &leaked));
            assert_eq!(passed, 0, "step {step}: the leak is raw");
        }
        for at in 0..10 {
            p.tick(now + at);
        }
    }
    for now in T0 + 410..T0 + 500 {
        p.tick(now);
    }
    assert_eq!(p.raw.len(), 40);
    assert_eq!(p.total(), sent, "every increment once");
}

#[test]
fn series_that_never_had_a_label_remain_without_it() {
    let wide = plan(&SMALL.replace("100", "10000"));
    let mut p = Process::new(&wide, 1);
    let now = T0 + 10;
    // Forty without a user, in ten methods; then two hundred users with a method that nobody has.
    let points: Vec<Point> = (0..40).map(|n| base(n, now, 1)).collect();
    p.send(0, "t", now, &counter("requests", "a", &points));
    let points: Vec<Point> = (0..200).map(|n| leak(n, T0 + 1, now, 1)).collect();
    p.send(0, "t", now, &counter("requests", "a", &points));
    let without = |p: &mut Process, key: &[u8]| {
        let registry = p.engine.registry(0).unwrap();
        let (_, metric) = registry.measure.metrics().next().unwrap();
        let label = metric.labels.iter().find(|label| *label.key == *key).unwrap();
        label.without.union().estimate()
    };
    assert_eq!(without(&mut p, b"user_id"), 44.0, "forty, and four routes without a method");
    // The other way round, and one more that comes late.
    let points: Vec<Point> = (40..80).map(|n| base(n, now, 1)).collect();
    p.send(0, "t", now, &counter("requests", "a", &points));
    assert_eq!(without(&mut p, b"user_id"), 84.0);
    let methods = without(&mut p, b"method");
    assert!((190.0..220.0).contains(&methods), "two hundred users, and four routes: {methods}");
}

/// Releases of any metric that were said in a run: times of the switch.
fn releases(p: &mut Process, seen: &mut BTreeSet<(u64, u32)>) {
    let metrics = &p.engine.registry(0).unwrap().state().metrics;
    seen.extend(metrics.iter().filter_map(|(id, it)| it.released_s.map(|at| (*id, at))));
}

/// A share that the process has no room for is no reason to release: what comes back raw would be contained again, once a dwell.
#[test]
fn what_the_process_cannot_hold_stays_contained() {
    let plan = plan(SMALL).replace("\"measure\"", "\"limits\":{\"active_series_max\":10},\"measure\"");
    let mut p = Process::new(&plan, 2);
    p.tick(T0);
    let mut seen = BTreeSet::new();
    for now in T0 + 1..T0 + 400 {
        if now.is_multiple_of(10) {
            let all: Vec<Point> = (0..14).map(|n| leak(n, T0 + 5, now, 7)).collect();
            p.send(now as usize / 10 % 2, "t", now, &counter("requests", "a", &all));
        }
        p.tick(now);
        releases(&mut p, &mut seen);
    }
    assert!(seen.is_empty(), "{seen:?}");
    assert_eq!(
        p.engine.registry(0).unwrap().state().metrics.values().filter(|it| it.is_contained()).count(),
        1
    );
}

/// Two metrics of a tenant, each of which fits its share alone: one comes back, and its room is its own before it is there.
#[test]
fn what_is_released_has_its_room_before_it_comes() {
    let mut p = Process::new(&plan(&SMALL.replace("100", "20")), 2);
    p.tick(T0);
    let mut seen = BTreeSet::new();
    for now in T0 + 1..T0 + 900 {
        if now.is_multiple_of(10) {
            let count = if now < T0 + 30 { 40 } else { 10 };
            for metric in ["requests", "errors"] {
                let all: Vec<Point> = (0..count).map(|n| leak(n, T0 + 5, now, 7)).collect();
                p.send(now as usize / 10 % 2, "t", now, &counter(metric, "a", &all));
            }
        }
        p.tick(now);
        releases(&mut p, &mut seen);
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}
