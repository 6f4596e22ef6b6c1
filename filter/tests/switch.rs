//! The switch against a plain sum: random streams, a random time, every direction, one owner and three.
//!
//! In: streams of totals. Out: what the folded series end with, and what passed. Expected: computed here from the streams alone, without a
//! line of the engine: which increments a difference of raw samples carries, and which the fold must. Every increment once.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value as V,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use phoenix_plan::InstantMs;
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;

const S: u64 = 1_000_000_000;
/// When the engine begins to watch.
const BEGAN_S: u64 = 100;
/// `no_recorded_value`.
const STALE: u32 = 1;

/// One stream: who, since when, and its totals in order of time.
#[derive(Clone, Debug)]
struct Stream {
    pod: usize,
    user: usize,
    start_s: u64,
    points: Vec<(u64, i64)>,
}

impl Stream {
    /// What its first point adds where nothing was before it.
    fn first(&self) -> i64 {
        if self.start_s > BEGAN_S { self.points[0].1 } else { 0 }
    }

    /// Index of the first point at or after the switch.
    fn crossing(&self, at_s: u64) -> usize {
        self.points.partition_point(|(t, _)| *t < at_s)
    }

    fn last_s(&self) -> u64 {
        self.points[self.points.len() - 1].0
    }

    fn last(&self) -> i64 {
        self.points[self.points.len() - 1].1
    }
}

fn stream() -> impl Strategy<Value = Stream> {
    let step = (1u64..40, 0i64..1_000);
    (0usize..4, 0usize..3, prop_oneof![Just(50u64), 150u64..350], prop::collection::vec(step, 1..20))
        .prop_map(|(pod, user, start_s, steps)| {
            let (mut time_s, mut total) = (start_s.max(150), 0);
            let next = |(after_s, more)| {
                time_s += after_s;
                total += more;
                (time_s, total)
            };
            Stream { pod, user, start_s, points: steps.into_iter().map(next).collect() }
        })
}

/// Streams, one of each kind.
fn streams() -> impl Strategy<Value = Vec<Stream>> {
    prop::collection::vec(stream(), 1..8).prop_map(|streams| {
        let by_name: BTreeMap<_, _> = streams.into_iter().map(|s| ((s.pod, s.user), s)).collect();
        by_name.into_values().collect()
    })
}

const PASS: &str = r#""pipeline":"full_fidelity""#;

fn fold(drop: &str) -> String {
    format!(
        r#""pipeline":"optimized","fold":{{"labels":{{"drop":{{{drop}}}}},"window":"10s","delay":"60s"}}"#
    )
}

fn plan(to: &str, from: &str, at_s: u64, shards: u32) -> String {
    let at = InstantMs(at_s * 1_000);
    format!(
        r#"{{"schema":1,"version":1,"shards":{shards},"writer":"w","first_sample_margin":"0s","stream_expiry":"10m",
        "hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "rules":[{{"name":"r","metric":{{"exact":"requests"}},{to},"switch":{{"at":"{at}","from":{{{from}}}}}}}]}}"#
    )
}

fn text(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn body(stream: &Stream, time_s: u64, total: i64) -> Vec<u8> {
    let point = NumberDataPoint {
        attributes: vec![text("user", stream.user.to_string())],
        start_time_unix_nano: stream.start_s * S,
        time_unix_nano: time_s * S,
        value: Some(V::AsInt(total)),
        ..Default::default()
    };
    let sum = Sum { data_points: vec![point], aggregation_temporality: 2, is_monotonic: true };
    let metric = Metric { name: "requests".into(), data: Some(Data::Sum(sum)), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let resource = Resource { attributes: vec![text("pod", stream.pod.to_string())], ..Default::default() };
    let rm = ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope], ..Default::default() };
    Request { resource_metrics: vec![rm] }.encode_to_vec()
}

fn points(body: &[u8]) -> Vec<NumberDataPoint> {
    let request = Request::decode(body).expect("OTLP");
    let scopes = request.resource_metrics.into_iter().flat_map(|rm| rm.scope_metrics);
    let data = scopes.flat_map(|s| s.metrics).filter_map(|m| m.data);
    data.flat_map(|data| match data {
        Data::Sum(sum) => sum.data_points,
        _ => panic!("only sums went in"),
    })
    .collect()
}

/// What a run ends with.
#[derive(Debug, Default, PartialEq)]
struct Ends {
    /// Of each folded series by mark and user: its total at the end, when it opened, whether a stale marker ended it.
    series: BTreeMap<(String, String), (i64, u64, bool)>,
    /// What went on of each request in order: nothing, or the point.
    passed: Vec<Option<NumberDataPoint>>,
}

fn attribute(point: &NumberDataPoint, key: &str) -> String {
    let found = point.attributes.iter().find(|kv| kv.key == key).and_then(|kv| kv.value.clone());
    match found.and_then(|v| v.value) {
        Some(Value::StringValue(text)) => text,
        _ => String::new(),
    }
}

fn run(streams: &[Stream], plan: &str) -> Ends {
    run_pushing(streams, plan, None)
}

/// The same with another plan from a time on.
fn run_pushing(streams: &[Stream], plan: &str, push: Option<(u64, &str)>) -> Ends {
    let mut push = push;
    let mut engine = Local::new(plan.as_bytes(), "w", UnixNanos(BEGAN_S * S)).expect("a plan");
    let mut ends = Ends::default();
    let mut all: Vec<(u64, usize, i64)> = Vec::new();
    for (n, stream) in streams.iter().enumerate() {
        all.extend(stream.points.iter().map(|(time_s, total)| (*time_s, n, *total)));
    }
    all.sort_unstable();
    for (time_s, n, total) in all {
        if let Some((_, plan)) = push.take_if(|(at_s, _)| *at_s <= time_s) {
            engine.configure(plan.as_bytes(), UnixNanos(time_s * S)).expect("a plan");
        }
        let body = body(&streams[n], time_s, total);
        let now = UnixNanos((time_s + 1) * S);
        let batch = Batch { body: &body, tenant: b"", sender: b"", arrived: now };
        let done = engine.process(Framing::Plain, &batch).expect("OTLP");
        ends.passed.push(points(done.body.as_deref().unwrap_or(&body)).pop());
        engine.settle(done.token, Settled::Accepted, now);
        engine.tick(now);
        take(&mut engine, &mut ends, now);
    }
    for minutes in 1..60 {
        let now = UnixNanos((1_000 + minutes * 60) * S);
        engine.tick(now);
        take(&mut engine, &mut ends, now);
    }
    assert!(engine.owners().iter().all(|o| o.is_drained()), "everything is out");
    ends
}

fn take(engine: &mut Local, ends: &mut Ends, now: UnixNanos) {
    while let Some((shard, emission)) = engine.next_emission(now) {
        let (sequence, body) = (emission.sequence, emission.body.to_vec());
        for point in points(&body) {
            let key = (attribute(&point, "phoenix_folded"), attribute(&point, "user"));
            let series = ends.series.entry(key).or_insert((0, point.time_unix_nano, false));
            match point.value {
                Some(V::AsInt(total)) => {
                    assert!(total >= series.0, "a total fell: {} after {}", total, series.0);
                    assert!(!series.2, "a value after the end");
                    series.0 = total;
                }
                _ => {
                    assert_eq!(point.flags, STALE);
                    series.2 = true;
                }
            }
        }
        engine.answer(shard, sequence, Answer::Accepted, now);
    }
}

/// The requests of a run in the order in which they were sent.
fn sent(streams: &[Stream]) -> Vec<(u64, usize, i64)> {
    let of = |(n, s): (usize, &Stream)| s.points.iter().map(|(t, v)| (*t, n, *v)).collect::<Vec<_>>();
    let mut all: Vec<_> = streams.iter().enumerate().flat_map(of).collect();
    all.sort_unstable();
    all
}

fn folded(ends: &Ends) -> i64 {
    ends.series.values().map(|(total, ..)| total).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn raw_to_folded(streams in streams(), at_s in 160u64..700) {
        let drop = fold(r#""resource":["pod"]"#);
        let ends = run(&streams, &plan(&drop, PASS, at_s, 1));
        let expected: i64 = streams.iter().map(|s| match s.crossing(at_s) {
            n if n == s.points.len() => 0,
            0 => s.last() - s.points[0].1 + s.first(),
            n => s.last() - s.points[n - 1].1,
        }).sum();
        prop_assert_eq!(folded(&ends), expected);
        // What came to be between a stream's last raw point and the switch stands where it came to be: at most a step and a window before.
        prop_assert!(ends.series.values().all(|(_, opened, _)| *opened >= (at_s - 50) * S));
        let mut was_raw = vec![false; streams.len()];
        for ((time_s, n, total), passed) in sent(&streams).into_iter().zip(&ends.passed) {
            match passed {
                Some(p) if time_s < at_s => {
                    prop_assert_eq!((p.flags, p.value), (0, Some(V::AsInt(total))));
                    was_raw[n] = true;
                }
                Some(p) => {
                    prop_assert_eq!((p.flags, p.value, p.time_unix_nano), (STALE, None, time_s * S));
                    prop_assert!(std::mem::take(&mut was_raw[n]), "a marker for a series that is not there");
                }
                None => prop_assert!(time_s >= at_s && !was_raw[n], "a raw series goes on without its end"),
            }
        }
    }

    #[test]
    fn folded_to_raw(streams in streams(), at_s in 160u64..700) {
        let drop = fold(r#""resource":["pod"]"#);
        let ends = run(&streams, &plan(PASS, &drop, at_s, 1));
        let expected: i64 = streams.iter().map(|s| match s.crossing(at_s) {
            0 => 0,
            n => s.points[n.min(s.points.len() - 1)].1 - s.points[0].1 + s.first(),
        }).sum();
        prop_assert_eq!(folded(&ends), expected);
        for ((time_s, _, total), passed) in sent(&streams).into_iter().zip(&ends.passed) {
            let value = passed.as_ref().map(|p| p.value);
            prop_assert_eq!(value, (time_s >= at_s).then_some(Some(V::AsInt(total))));
        }
    }

    /// A switch that is called off before its time: as if it had never been planned.
    #[test]
    fn called_off(streams in streams(), at_s in 400u64..700) {
        let (old, new) = (fold(r#""resource":["pod"]"#), fold(r#""resource":["pod"],"attributes":["user"]"#));
        let plain = plan(&old, PASS, 150, 1).replace(&format!(r#","switch":{{"at":"{}","from":{{{PASS}}}}}"#, InstantMs(150_000)), "");
        let expected = run(&streams, &plain);
        for to in [PASS, &new] {
            let ends = run_pushing(&streams, &plan(to, &old, at_s, 1), Some((300, &plain)));
            let pushed = streams.iter().any(|s| s.points.iter().any(|(t, _)| *t >= 300));
            let after = streams.iter().all(|s| s.last_s() < at_s);
            if pushed || after {
                prop_assert_eq!(folded(&ends), folded(&expected));
            }
            if pushed {
                // A series whose streams were silent since the push does not know that it goes on.
                let spoke = |user: &String| streams.iter().any(|s| s.user.to_string() == *user && s.last_s() >= 300);
                let stale = ends.series.iter().any(|((_, user), (.., stale))| *stale && spoke(user));
                prop_assert!(!stale, "a marker on a series that goes on");
            }
        }
    }

    #[test]
    fn folded_to_folded(streams in streams(), at_s in 160u64..700) {
        let (users, none) = (fold(r#""resource":["pod"]"#), fold(r#""resource":["pod"],"attributes":["user"]"#));
        let one = run(&streams, &plan(&none, &users, at_s, 1));
        let (mut old, mut new) = (BTreeMap::<String, i64>::new(), 0);
        for s in &streams {
            let from_zero = std::iter::once((s.start_s, 0)).filter(|_| s.start_s > BEGAN_S);
            let all: Vec<_> = from_zero.chain(s.points.iter().copied()).collect();
            // With one owner, who has never folded a stream, nobody else takes what it counted before the switch.
            let unknown = s.crossing(at_s) == 0;
            for pair in all.windows(2) {
                let ((t0, v0), (t1, v1)) = (pair[0], pair[1]);
                let span = (t1 - t0) as i128;
                let before_s = (at_s.min(t1).saturating_sub(t0)) as i128;
                let part = if unknown { 0 } else { (i128::from(v1 - v0) * before_s / span) as i64 };
                *old.entry(s.user.to_string()).or_default() += part;
                new += v1 - v0 - part;
            }
        }
        let total = |mark: &str, user: &str| one.series.get(&(mark.to_owned(), user.to_owned())).map_or(0, |s| s.0);
        prop_assert_eq!(total("pod,user", ""), new);
        for (user, total_old) in old {
            prop_assert_eq!(total("pod", &user), total_old, "user {}", user);
        }
        prop_assert!(one.passed.iter().all(Option::is_none));
        // With other owners for the new series than for the old ones nothing is lost and nothing counted twice.
        let three = run(&streams, &plan(&none, &users, at_s, 3));
        prop_assert_eq!(folded(&three), folded(&one));
    }
}
