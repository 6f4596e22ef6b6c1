//! Conservation of every type over a thousand seeds each: what the streams counted is what the folded series say.
//!
//! In: streams drawn from a seed, with restarts, points out of order and repeated, batches that the upstream refuses, emissions that it
//! refuses for good. Out: folded series, decoded by `prost`. Expected: computed from the streams alone, in plain code. A failure names
//! its seed; `PHOENIX_SEED=n` runs that one.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, metric::Data,
    number_data_point::Value as V,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

const S: u64 = 1_000_000_000;
const SEEDS: u64 = 1_000;
const BEGAN_S: u64 = 100;
const BOUNDS: [f64; 3] = [0.5, 1.0, 4.0];

const PLAN: &str = r#"{"schema":1,"version":1,"hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
 "writer":"w","first_sample_margin":"0s",
 "rules":[{"name":"r","metric":{"prefix":"m"},"pipeline":"optimized",
   "fold":{"labels":{"drop":{"attributes":["user"]}},"window":"10s","offset":"0s","delay":"30s",
     "gauge":"sum","up_down_counter":"sum","summary":"sum_and_count","value_expiry":"40s"}}]}"#;

/// What a stream says at one time. Sums are quarters, so that doubles add up exactly.
#[derive(Clone, Debug)]
struct Said {
    start_s: u64,
    time_s: u64,
    counts: [u64; 4],
    quarters: i64,
}

/// A stream: user of a route.
#[derive(Clone, Debug)]
struct Stream {
    route: usize,
    user: usize,
    said: Vec<Said>,
}

/// Streams that are all born while we watch, and now and then restart.
fn streams(rng: &mut ChaCha8Rng) -> Vec<Stream> {
    let mut all = Vec::new();
    for (route, user) in (0..2).flat_map(|r| (0..3).map(move |u| (r, u))) {
        let mut start_s = rng.random_range(110..140);
        let (mut time_s, mut counts, mut quarters, mut said) = (start_s, [0; 4], 0, Vec::new());
        for _ in 0..rng.random_range(1..12) {
            time_s += rng.random_range(1..25);
            if rng.random_ratio(1, 8) {
                (start_s, counts, quarters) = (time_s - 1, [0; 4], 0);
            }
            for n in &mut counts {
                *n += rng.random_range(0..9);
            }
            quarters += rng.random_range(0..40);
            said.push(Said { start_s, time_s, counts, quarters });
        }
        all.push(Stream { route, user, said });
    }
    all
}

/// The increments of a stream: what came since its last point, or all of it after a restart.
fn increments(stream: &Stream) -> impl Iterator<Item = Said> + '_ {
    let mut last: Option<&Said> = None;
    stream.said.iter().map(move |now| {
        let before = last.replace(now).filter(|l| l.start_s == now.start_s);
        let mut it = now.clone();
        if let Some(before) = before {
            (0..4).for_each(|k| it.counts[k] -= before.counts[k]);
            it.quarters -= before.quarters;
            it.start_s = before.time_s;
        }
        it
    })
}

fn kv(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..Default::default()
    }
}

fn body(data: Data) -> Vec<u8> {
    let metric = Metric { name: "m".into(), data: Some(data), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let resource = Some(Resource { attributes: vec![kv("service.name", "s".into())], ..Default::default() });
    let rm = ResourceMetrics { resource, scope_metrics: vec![scope], ..Default::default() };
    Request { resource_metrics: vec![rm] }.encode_to_vec()
}

/// Send everything in order of arrival, with repetitions, reordering and refusals; every point that came out, in order.
fn run(
    rng: &mut ChaCha8Rng,
    streams: &[Stream],
    delta: bool,
    data: impl Fn(&Stream, &Said) -> Data,
) -> Vec<Data> {
    let mut engine = Local::new(PLAN.as_bytes(), "x", UnixNanos(BEGAN_S * S)).unwrap();
    let mut sends: Vec<(u64, Vec<u8>)> = Vec::new();
    for stream in streams {
        let list: Vec<Said> = if delta { increments(stream).collect() } else { stream.said.clone() };
        for said in &list {
            let body = body(data(stream, said));
            // A late copy says nothing new, whatever came in between.
            if rng.random_ratio(1, 5) {
                sends.push((said.time_s + rng.random_range(1..9), body.clone()));
            }
            sends.push((said.time_s, body));
        }
    }
    sends.sort_by_key(|(at_s, _)| *at_s);
    let mut out = Vec::new();
    let end_s = sends.last().map_or(0, |(at_s, _)| *at_s) + 200;
    let mut sends = sends.into_iter().peekable();
    for now_s in 110..end_s {
        let now = UnixNanos(now_s * S);
        while let Some((_, body)) = sends.next_if(|(at_s, _)| *at_s <= now_s) {
            // What the upstream refuses is sent again.
            for how in
                [Settled::Refused, Settled::Accepted].into_iter().skip(usize::from(rng.random_ratio(4, 5)))
            {
                let batch = Batch { body: &body, tenant: b"t", sender: b"", arrived: now };
                let done = engine.process(Framing::Plain, &batch).unwrap();
                assert_eq!(done.body.as_deref(), Some(&[][..]), "every point folds");
                engine.settle(done.token, how, now);
            }
        }
        engine.tick(now);
        while let Some((shard, emission)) = engine.next_emission(now) {
            let (sequence, bytes) = (emission.sequence, emission.body.to_vec());
            let refuses = rng.random_ratio(1, 10) && now_s + 150 < end_s;
            engine.answer(shard, sequence, if refuses { Answer::Refused } else { Answer::Accepted }, now);
            if !refuses {
                let request = Request::decode(&bytes[..]).unwrap();
                let metrics = request
                    .resource_metrics
                    .into_iter()
                    .flat_map(|r| r.scope_metrics)
                    .flat_map(|s| s.metrics);
                out.extend(metrics.filter_map(|m| m.data));
            }
        }
    }
    for owner in engine.owners() {
        let (came, gone, waiting, open) = owner.balance();
        assert_eq!((came.int(), came.to_f64()), (gone.int(), gone.to_f64()), "the books balance");
        assert!(waiting.is_zero() && open.is_zero());
    }
    out
}

fn route(attributes: &[KeyValue]) -> String {
    assert!(attributes.iter().all(|kv| kv.key != "user"), "folded away");
    assert!(attributes.iter().any(|kv| kv.key == "phoenix_folded"));
    let it = attributes.iter().find(|kv| kv.key == "route").expect("kept");
    let Some(Value::StringValue(s)) = it.value.as_ref().and_then(|v| v.value.clone()) else { panic!() };
    s
}

fn attributes(stream: &Stream) -> Vec<KeyValue> {
    vec![kv("route", format!("/{}", stream.route)), kv("user", format!("{}", stream.user))]
}

/// Counts and quarters that each route counted.
fn truth(streams: &[Stream]) -> BTreeMap<String, ([u64; 4], i64)> {
    let mut all = BTreeMap::new();
    for stream in streams {
        let sum: &mut ([u64; 4], i64) = all.entry(format!("/{}", stream.route)).or_default();
        for it in increments(stream) {
            (0..4).for_each(|k| sum.0[k] += it.counts[k]);
            sum.1 += it.quarters;
        }
    }
    all
}

fn each_seed(check: impl Fn(&mut ChaCha8Rng)) {
    let one = std::env::var("PHOENIX_SEED").ok().map(|n| n.parse().expect("PHOENIX_SEED is a number"));
    for seed in one.map_or(0..SEEDS, |n| n..n + 1) {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(&mut ChaCha8Rng::seed_from_u64(seed));
        }));
        assert!(caught.is_ok(), "seed {seed}: see above; PHOENIX_SEED={seed} runs it alone");
    }
}

/// The last word of each cumulative series, or the sum of all words of a delta one.
fn total<P: Clone>(points: Vec<(String, P)>, delta: bool, add: impl Fn(&P, &P) -> P) -> BTreeMap<String, P> {
    let mut all: BTreeMap<String, P> = BTreeMap::new();
    for (route, p) in points {
        let next = match all.get(&route) {
            Some(before) if delta => add(before, &p),
            _ => p,
        };
        all.insert(route, next);
    }
    all
}

fn histograms(delta: bool) {
    each_seed(|rng| {
        let streams = streams(rng);
        let temporality = if delta { 1 } else { 2 };
        let out = run(rng, &streams, delta, |stream, said| {
            let point = HistogramDataPoint {
                attributes: attributes(stream),
                start_time_unix_nano: said.start_s * S,
                time_unix_nano: said.time_s * S,
                count: said.counts.iter().sum(),
                sum: Some(said.quarters as f64 / 4.0),
                bucket_counts: said.counts.to_vec(),
                explicit_bounds: BOUNDS.to_vec(),
                ..Default::default()
            };
            Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: temporality })
        });
        let mut last: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut points = Vec::new();
        for data in out {
            let Data::Histogram(h) = data else { panic!("a histogram stays one") };
            assert_eq!(h.aggregation_temporality, temporality);
            for p in h.data_points {
                let route = route(&p.attributes);
                assert_eq!((p.count, p.explicit_bounds), (p.bucket_counts.iter().sum(), BOUNDS.to_vec()));
                let before = last.insert(route.clone(), p.bucket_counts.clone());
                let falls = before.is_some_and(|b| b.iter().zip(&p.bucket_counts).any(|(b, now)| now < b));
                assert!(delta || !falls, "a bucket fell");
                points.push((route, (p.bucket_counts, p.sum.expect("a sum"))));
            }
        }
        let add = |a: &(Vec<u64>, f64), b: &(Vec<u64>, f64)| {
            (a.0.iter().zip(&b.0).map(|(x, y)| x + y).collect(), a.1 + b.1)
        };
        let got = total(points, delta, add);
        for (route, (counts, quarters)) in truth(&streams) {
            let (buckets, sum) = &got[&route];
            assert_eq!(buckets[..], counts, "{route}");
            assert!((sum - quarters as f64 / 4.0).abs() <= 1e-9, "{route}: {sum} of {quarters} quarters");
        }
    });
}

#[test]
fn cumulative_histograms() {
    histograms(false);
}

#[test]
fn delta_histograms() {
    histograms(true);
}

#[test]
fn exponential_histograms() {
    each_seed(|rng| {
        let streams = streams(rng);
        // Each stream has its own scale; the folded one is the coarsest of its route. Index 12 of scale s + 2 is 3 of scale s.
        let scale = |stream: &Stream| (stream.user % 3) as i32;
        let out = run(rng, &streams, false, |stream, said| {
            let [zero, negative, a, b] = said.counts;
            let point = ExponentialHistogramDataPoint {
                attributes: attributes(stream),
                start_time_unix_nano: said.start_s * S,
                time_unix_nano: said.time_s * S,
                count: said.counts.iter().sum(),
                sum: Some(said.quarters as f64 / 4.0),
                scale: scale(stream),
                zero_count: zero,
                negative: Some(Buckets { offset: 5 << scale(stream), bucket_counts: vec![negative] }),
                positive: Some(Buckets { offset: 3 << scale(stream), bucket_counts: vec![a, 0, b] }),
                ..Default::default()
            };
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![point],
                aggregation_temporality: 2,
            })
        });
        let mut points = Vec::new();
        for data in out {
            let Data::ExponentialHistogram(h) = data else { panic!("an exponential histogram stays one") };
            for p in h.data_points {
                let (pos, neg) = (p.positive.unwrap_or_default(), p.negative.unwrap_or_default());
                let all = p.zero_count
                    + pos.bucket_counts.iter().sum::<u64>()
                    + neg.bucket_counts.iter().sum::<u64>();
                assert_eq!(p.count, all);
                points.push((route(&p.attributes), (p.scale, p.zero_count, pos, neg)));
            }
        }
        let got = total(points, false, |_, b| b.clone());
        let mut expected: BTreeMap<String, (u64, u64, BTreeMap<i32, u64>)> = BTreeMap::new();
        for stream in &streams {
            let route = format!("/{}", stream.route);
            let e = expected.entry(route.clone()).or_default();
            for it in increments(stream) {
                let [zero, negative, a, b] = it.counts;
                (e.0, e.1) = (e.0 + zero, e.1 + negative);
                let by = scale(stream) - got[&route].0;
                assert!(by >= 0, "a scale that no stream has");
                *e.2.entry((3 << scale(stream)) >> by).or_default() += a;
                *e.2.entry(((3 << scale(stream)) + 2) >> by).or_default() += b;
            }
        }
        for (route, (zero, negative, mut positive)) in expected {
            let (_, got_zero, pos, neg) = &got[&route];
            assert_eq!((*got_zero, neg.bucket_counts.iter().sum::<u64>()), (zero, negative), "{route}");
            positive.retain(|_, n| *n > 0);
            let there = pos.bucket_counts.iter().zip(pos.offset..).filter(|(n, _)| **n > 0);
            assert_eq!(there.map(|(n, i)| (i, *n)).collect::<BTreeMap<_, _>>(), positive, "{route}");
        }
    });
}

#[test]
fn summaries() {
    each_seed(|rng| {
        let streams = streams(rng);
        let out = run(rng, &streams, false, |stream, said| {
            let point = SummaryDataPoint {
                attributes: attributes(stream),
                start_time_unix_nano: said.start_s * S,
                time_unix_nano: said.time_s * S,
                count: said.counts.iter().sum(),
                sum: said.quarters as f64 / 4.0,
                ..Default::default()
            };
            Data::Summary(Summary { data_points: vec![point] })
        });
        let mut points = Vec::new();
        for data in out {
            let Data::Summary(s) = data else { panic!("a summary stays one") };
            for p in s.data_points {
                assert!(p.quantile_values.is_empty());
                points.push((route(&p.attributes), (p.count, p.sum)));
            }
        }
        let got = total(points, false, |_, b| *b);
        for (route, (counts, quarters)) in truth(&streams) {
            let (count, sum) = got[&route];
            assert_eq!(count, counts.iter().sum::<u64>(), "{route}");
            assert!((sum - quarters as f64 / 4.0).abs() <= 1e-9, "{route}");
        }
    });
}

fn number(stream: &Stream, said: &Said, value: i64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(stream),
        start_time_unix_nano: said.start_s * S,
        time_unix_nano: said.time_s * S,
        value: Some(V::AsInt(value)),
        ..Default::default()
    }
}

fn int(p: &NumberDataPoint) -> Option<i64> {
    match p.value {
        Some(V::AsInt(v)) => Some(v),
        None => {
            assert_eq!(p.flags, 1, "no value: a stale marker");
            None
        }
        Some(V::AsDouble(_)) => panic!("integers stay integers"),
    }
}

#[test]
fn delta_up_down_counters() {
    each_seed(|rng| {
        let streams = streams(rng);
        let value = |said: &Said| said.quarters - 20;
        let out = run(rng, &streams, true, |stream, said| {
            let data_points = vec![number(stream, said, value(said))];
            Data::Sum(Sum { data_points, aggregation_temporality: 1, is_monotonic: false })
        });
        let mut points = Vec::new();
        for data in out {
            let Data::Sum(s) = data else { panic!("a sum stays one") };
            assert!(!s.is_monotonic);
            points.extend(s.data_points.iter().map(|p| (route(&p.attributes), int(p).expect("a value"))));
        }
        let got = total(points, true, |a, b| a + b);
        for stream_route in ["/0", "/1"] {
            let ours = streams.iter().filter(|s| format!("/{}", s.route) == stream_route);
            assert_eq!(got[stream_route], ours.flat_map(increments).map(|it| value(&it)).sum::<i64>());
        }
    });
}

/// Gauges and cumulative up-down counters: each point is the sum of the last values at its time, whatever was sent twice, late or refused.
fn levels(up_down: bool) {
    each_seed(|rng| {
        let streams = streams(rng);
        let out = run(rng, &streams, false, |stream, said| {
            let data_points = vec![number(stream, said, said.quarters - 100)];
            if up_down {
                Data::Sum(Sum { data_points, aggregation_temporality: 2, is_monotonic: false })
            } else {
                Data::Gauge(Gauge { data_points })
            }
        });
        let mut ends = 0;
        for data in out {
            let points = match data {
                Data::Gauge(g) if !up_down => g.data_points,
                Data::Sum(s) if up_down && !s.is_monotonic => s.data_points,
                other => panic!("another type: {other:?}"),
            };
            for p in points {
                let Some(value) = int(&p) else {
                    ends += 1;
                    continue;
                };
                let route = route(&p.attributes);
                let at = p.time_unix_nano;
                let ours = streams.iter().filter(|s| format!("/{}", s.route) == route);
                let last = ours.filter_map(|s| s.said.iter().rev().find(|said| said.time_s * S <= at));
                let alive = last.filter(|said| at - said.time_s * S <= 40 * S);
                assert_eq!(
                    value,
                    alive.map(|said| said.quarters - 100).sum::<i64>(),
                    "{route} at {}",
                    at / S
                );
            }
        }
        assert!((1..=4).contains(&ends), "series end when nobody speaks any more: {ends}");
    });
}

#[test]
fn gauges() {
    levels(false);
}

#[test]
fn cumulative_up_down_counters() {
    levels(true);
}
