//! The heaviest streams stay raw, end to end, in one process with several workers: the right ones, with exact totals across every change.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
    number_data_point::Value as V,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_filter::admission::Standing;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

const S: u64 = 1_000_000_000;
/// When the process begins: with a generation, which are of 30 s.
const T0: u64 = 9_990;
const STEP: u64 = 10;
const WORKERS: u64 = 4;

fn plan(topk: &str) -> String {
    format!(
        r#"{{"schema":1,"version":1,"hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "writer":"w","first_sample_margin":"0s","stream_expiry":"60s","measure":{{"period":"90s"}},
        "budgets":{{"dwell":"10s","switch_lead":"20s","fold":{{"window":"10s","offset":"0s","delay":"10s"}}}},
        "rules":[{{"name":"top","metric":{{"glob":"*"}},"pipeline":"experimental_topk","topk":{topk},
          "fold":{{"labels":{{"drop":{{"attributes":["user"]}}}},"window":"10s","offset":"0s","delay":"10s","gauge":"sum"}}}}]}}"#
    )
}

fn kv(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..Default::default()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Cumulative,
    Delta,
    Gauge,
}

/// A process, and what a backend makes of what its upstream saw.
struct Process {
    engine: Local,
    kind: Type,
    /// What each stream has counted; for a gauge its value.
    counted: BTreeMap<u64, i64>,
    /// Raw series that have not ended, with their last value.
    raw: BTreeMap<u64, i64>,
    /// Streams of which a point was folded.
    folded_once: BTreeSet<u64>,
    increments: i64,
    folded: BTreeMap<String, i64>,
    /// The newest folded value.
    newest: (u64, i64),
    markers: usize,
    now: u64,
}

impl Process {
    fn new(topk: &str, kind: Type) -> Process {
        let plan = plan(topk);
        let engine = Local::with_workers(plan.as_bytes(), "w", WORKERS as usize, UnixNanos(T0 * S)).unwrap();
        Process {
            engine,
            kind,
            counted: BTreeMap::new(),
            raw: BTreeMap::new(),
            folded_once: BTreeSet::new(),
            increments: 0,
            folded: BTreeMap::new(),
            newest: (0, 0),
            markers: 0,
            now: T0,
        }
    }

    /// An export interval: each stream with its rate, over all workers, none of which always sees the same streams.
    fn step(&mut self, rates: impl Iterator<Item = (u64, i64)>) {
        self.now += STEP;
        let mut batches: Vec<Vec<NumberDataPoint>> = vec![Vec::new(); WORKERS as usize];
        for (user, rate) in rates {
            let counted = self.counted.entry(user).or_default();
            let value = match self.kind {
                Type::Cumulative => *counted + rate,
                Type::Delta | Type::Gauge => rate,
            };
            *counted = if self.kind == Type::Gauge { rate } else { *counted + rate };
            let start = match self.kind {
                Type::Cumulative => T0 + 1,
                Type::Delta => self.now - STEP,
                Type::Gauge => 0,
            };
            batches[((user + self.now / STEP) % WORKERS) as usize].push(NumberDataPoint {
                attributes: vec![kv("user", &user.to_string())],
                start_time_unix_nano: start * S,
                time_unix_nano: self.now * S,
                value: Some(V::AsInt(value)),
                ..Default::default()
            });
        }
        for (worker, data_points) in batches.into_iter().enumerate() {
            let sent: BTreeSet<u64> = data_points.iter().map(user).collect();
            let data = match self.kind {
                Type::Gauge => Data::Gauge(Gauge { data_points }),
                _ => Data::Sum(Sum {
                    data_points,
                    aggregation_temporality: if self.kind == Type::Delta { 1 } else { 2 },
                    is_monotonic: true,
                }),
            };
            let metric = Metric { name: "requests".into(), data: Some(data), ..Default::default() };
            let resource = Resource { attributes: vec![kv("service.name", "shop")], ..Default::default() };
            let body = Request {
                resource_metrics: vec![ResourceMetrics {
                    resource: Some(resource),
                    scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }],
                    ..Default::default()
                }],
            }
            .encode_to_vec();
            let now_ns = UnixNanos(self.now * S);
            let batch = Batch { body: &body, tenant: b"t", sender: b"", arrived: now_ns };
            let done = self.engine.process_on(worker, Framing::Plain, &batch).unwrap();
            self.engine.settle(done.token, Settled::Accepted, now_ns);
            let passed = self.take(&done.body.unwrap_or(body));
            self.folded_once.extend(sent.difference(&passed));
        }
        for second in 0..STEP {
            self.tick(self.now + second);
        }
    }

    fn tick(&mut self, now: u64) {
        let now_ns = UnixNanos(now * S);
        self.engine.tick(now_ns);
        while let Some((shard, emission)) = self.engine.next_emission(now_ns) {
            let (sequence, body) = (emission.sequence, emission.body.to_vec());
            self.take(&body);
            self.engine.answer(shard, sequence, Answer::Accepted, now_ns);
        }
    }

    /// What a backend makes of it; which streams have a raw value.
    fn take(&mut self, body: &[u8]) -> BTreeSet<u64> {
        let mut passed = BTreeSet::new();
        for rm in Request::decode(body).unwrap().resource_metrics {
            for m in rm.scope_metrics.into_iter().flat_map(|s| s.metrics) {
                let points = match m.data.unwrap() {
                    Data::Sum(it) => it.data_points,
                    Data::Gauge(it) => it.data_points,
                    other => panic!("{other:?}"),
                };
                for p in points {
                    let value = match p.value {
                        Some(V::AsInt(v)) => Some(v),
                        None => None,
                        other => panic!("{other:?}"),
                    };
                    if p.attributes.iter().any(|kv| kv.key == "phoenix_folded") {
                        let Some(value) = value else { continue };
                        self.newest = self.newest.max((p.time_unix_nano / S, value));
                        let start = p.start_time_unix_nano;
                        *self.folded.entry(start.to_string()).or_default() = value;
                        continue;
                    }
                    let user = user(&p);
                    let Some(value) = value else {
                        assert!(self.raw.remove(&user).is_some(), "a marker of a series that is there");
                        self.markers += 1;
                        continue;
                    };
                    passed.insert(user);
                    let last = self.raw.insert(user, value);
                    self.increments += match (self.kind, last) {
                        (Type::Gauge, _) => 0,
                        (Type::Delta, _) => value,
                        (_, Some(last)) => value - last,
                        // Raw from its birth on, or what it counted before is folded.
                        (_, None) if self.folded_once.contains(&user) => 0,
                        (_, None) => value,
                    };
                }
            }
        }
        passed
    }

    /// Whose series are raw, or about to be.
    fn standings(&mut self) -> BTreeMap<u64, Standing> {
        let series = &self.engine.registry(0).unwrap().state().series;
        series.iter().map(|(id, known)| (*id, known.standing)).collect()
    }

    /// All windows close; every increment has arrived once.
    fn check_total(&mut self) {
        for now in self.now + STEP..self.now + 60 {
            self.tick(now);
        }
        let folded: i64 = self.folded.values().sum();
        assert_eq!(
            self.increments + folded,
            self.counted.values().sum::<i64>(),
            "no increment twice, none lost"
        );
    }
}

fn user(p: &NumberDataPoint) -> u64 {
    let Some(Value::StringValue(v)) = &p.attributes[0].value.as_ref().unwrap().value else { panic!() };
    v.parse().unwrap()
}

/// Increments of an interval: the n-th of the ranks has an n-th of the first.
fn zipf(rank: u64) -> i64 {
    6_000 / (rank as i64 + 1)
}

fn users(list: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    list.into_iter().collect()
}

fn raw(p: &Process) -> BTreeSet<u64> {
    p.raw.keys().copied().collect()
}

#[test]
fn the_heaviest_of_the_first_batch_stay() {
    let mut p = Process::new(r#"{"k":5}"#, Type::Cumulative);
    // The first worker's batch has every fourth user.
    p.step((0..200).map(|n| (n, zipf(199 - n))));
    assert_eq!(p.raw.len(), 5);
    let worker_0 = (0..200).rev().filter(|n| (n + p.now / STEP).is_multiple_of(WORKERS));
    assert_eq!(raw(&p), users(worker_0.take(5)));
    p.check_total();
}

#[test]
fn the_true_top_k_becomes_raw_and_totals_stay_exact() {
    let mut p = Process::new(r#"{"k":10}"#, Type::Cumulative);
    // Light streams come first and take all places.
    p.step((100..110).map(|n| (n, zipf(n))));
    assert_eq!(raw(&p), users(100..110));
    for _ in 0..20 {
        p.step((0..200).map(|n| (n, zipf(n))));
    }
    assert_eq!(raw(&p), users(0..10), "the ten heaviest of all workers");
    assert_eq!(p.markers, 10, "each raw series that ended has its marker");
    // Ranks turn round: what was last is first.
    for _ in 0..30 {
        p.step((0..200).map(|n| (n, zipf(199 - n))));
    }
    assert_eq!(raw(&p), users(190..200));
    assert_eq!(p.markers, 20);
    // And back: streams that were raw, and folded, are raw again.
    for _ in 0..40 {
        p.step((0..200).map(|n| (n, zipf(n))));
    }
    assert_eq!(raw(&p), users(0..10));
    p.check_total();
    assert_eq!(p.engine.tally().undecided, 0);
}

#[test]
fn streams_that_come_and_go_are_counted_once() {
    let mut p = Process::new(r#"{"k":10}"#, Type::Cumulative);
    for step in 0..60_u64 {
        // Every stream pauses now and then for longer than a period, raw ones as well.
        let speaks = |n: &u64| !(step / 10 + n).is_multiple_of(4);
        p.step((0..100).filter(speaks).map(|n| (n, zipf((n * 7 + step / 20 * 31) % 100))));
    }
    for now in p.now + STEP..p.now + 60 {
        p.tick(now);
    }
    let arrived = p.increments + p.folded.values().sum::<i64>();
    let sent = p.counted.values().sum::<i64>();
    assert!(arrived <= sent, "nothing twice: {arrived} of {sent}");
    assert!(arrived > sent / 2, "{arrived} of {sent}: what is lost is of streams that were forgotten");
}

#[test]
fn who_is_silent_until_it_folds_is_not_counted_from_zero() {
    let mut p = Process::new(r#"{"k":1}"#, Type::Cumulative);
    p.step([(0, 1_000)].into_iter());
    while !p.standings().values().any(|it| matches!(it, Standing::Leaves(_))) {
        assert!(p.now < T0 + 600, "never demoted");
        p.step([(0, 1_000), (1, 9_000)].into_iter());
    }
    // Its owner has never heard of it.
    for _ in 0..4 {
        p.step([(1, 9_000)].into_iter());
    }
    for _ in 0..10 {
        p.step([(0, 1_000), (1, 9_000)].into_iter());
    }
    for now in p.now + STEP..p.now + 60 {
        p.tick(now);
    }
    let arrived = p.increments + p.folded.values().sum::<i64>();
    assert_eq!(p.counted.values().sum::<i64>() - arrived, 1_000, "lost: what it counted in silence");
}

#[test]
fn k_follows_the_coverage() {
    let mut p = Process::new(r#"{"k":5,"coverage_percent":80,"k_max":100}"#, Type::Cumulative);
    let total: i64 = (0..200).map(zipf).sum();
    let (mut sum, mut least) = (0, 0);
    while sum * 100 < total * 80 {
        sum += zipf(least);
        least += 1;
    }
    let mut sizes = Vec::new();
    for _ in 0..50 {
        p.step((0..200).map(|n| (n, zipf(n))));
        if sizes.last() != Some(&p.raw.len()) {
            sizes.push(p.raw.len());
        }
    }
    assert_eq!(raw(&p), users(0..least));
    assert_eq!(&sizes[..4], [5, 10, 20, 40], "by a factor of two at most");
    // Few hold nearly all.
    for _ in 0..60 {
        p.step((0..200).map(|n| (n, if n < 8 { 10_000 } else { 1 })));
    }
    assert_eq!(p.raw.len(), 7, "80 % of 80,192");
    assert!(raw(&p).is_subset(&users(0..8)));
    p.check_total();
}

#[test]
fn ranks_that_jitter_change_nothing() {
    let mut p = Process::new(r#"{"k":20}"#, Type::Cumulative);
    let mut seed = 1_u64;
    let mut jitter = |value: i64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value * (90 + (seed >> 33) as i64 % 21) / 100
    };
    for _ in 0..30 {
        p.step((0..200).map(|n| (n, jitter(zipf(n)))));
    }
    let before: BTreeSet<u64> = p.standings().into_keys().collect();
    assert_eq!(before.len(), 20);
    for _ in 0..60 {
        p.step((0..200).map(|n| (n, jitter(zipf(n)))));
        let now: BTreeSet<u64> = p.standings().into_keys().collect();
        assert_eq!(now, before, "nobody comes or goes");
    }
    // Who stays instead of a heavier one is lighter by less than half.
    let lightest = *raw(&p).last().unwrap();
    let heaviest_folded = (0..200).find(|n| !p.raw.contains_key(n)).unwrap();
    let (folds, stays) = (zipf(heaviest_folded) * 90, zipf(lightest) * 110);
    assert!(folds * 2 <= stays * 3, "{heaviest_folded} folds, {lightest} is raw");
    p.check_total();
}

#[test]
fn deltas_are_ranked_by_their_sum() {
    let mut p = Process::new(r#"{"k":10}"#, Type::Delta);
    p.step((100..110).map(|n| (n, zipf(n))));
    let mut sent: i64 = (100..110).map(zipf).sum();
    let mut folded = 0;
    for _ in 0..20 {
        p.step((0..200).map(|n| (n, zipf(n))));
        sent += (0..200).map(zipf).sum::<i64>();
        // Each start has a point of its own.
        folded = p.folded.values().sum::<i64>();
    }
    assert!(folded > 0);
    for now in p.now + STEP..p.now + 60 {
        p.tick(now);
    }
    assert_eq!(p.increments + p.folded.values().sum::<i64>(), sent);
    let last = p.engine.registry(0).unwrap().state().metrics.values().next().unwrap().admitted;
    assert_eq!(last, 10);
}

#[test]
fn gauges_are_ranked_by_value() {
    let mut p = Process::new(r#"{"k":10}"#, Type::Gauge);
    p.step((100..110).map(|n| (n, zipf(n))));
    for _ in 0..20 {
        p.step((0..200).map(|n| (n, zipf(n))));
    }
    assert_eq!(raw(&p), users(0..10));
    for now in p.now + STEP..p.now + 25 {
        p.tick(now);
    }
    let tail: i64 = (10..200).map(zipf).sum();
    assert_eq!(p.newest.1, tail, "what is folded is what is not raw");
}

#[test]
fn an_undeclared_gauge_passes() {
    let plan = plan(r#"{"k":2}"#).replace(r#","gauge":"sum""#, "");
    let mut p = Process::new(r#"{"k":2}"#, Type::Gauge);
    p.engine = Local::with_workers(plan.as_bytes(), "w", WORKERS as usize, UnixNanos(T0 * S)).unwrap();
    p.step((0..20).map(|n| (n, 1)));
    assert_eq!((p.raw.len(), p.engine.tally().unfoldable), (20, 20));
}

#[test]
fn what_was_folded_before_the_rule_comes_by_promotion() {
    let mut p = Process::new(r#"{"k":3}"#, Type::Cumulative);
    let top = plan(r#"{"k":3}"#);
    let fold = top.replace("experimental_topk", "optimized").replace(r#""topk":{"k":3},"#, "");
    p.engine = Local::with_workers(fold.as_bytes(), "w", WORKERS as usize, UnixNanos(T0 * S)).unwrap();
    for _ in 0..3 {
        p.step((0..50).map(|n| (n, zipf(n))));
    }
    p.engine.configure(top.as_bytes(), UnixNanos(p.now * S + S * 9)).unwrap();
    p.step((0..50).map(|n| (n, zipf(n))));
    assert!(p.raw.is_empty(), "nobody is raw without a switch");
    for _ in 0..20 {
        p.step((0..50).map(|n| (n, zipf(n))));
    }
    assert_eq!(raw(&p), users(0..3));
    p.check_total();
}
