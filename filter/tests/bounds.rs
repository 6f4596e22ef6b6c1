//! Tables that are full, tenants that are stuck, heads that are huge: bounded memory, and every total where it belongs.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{
    Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
    number_data_point::Value as V,
};
use phoenix_filter::body::{BodyError, Framing};
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Processed, Settled};
use phoenix_filter::units::UnixNanos;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

const S: u64 = 1_000_000_000;

fn engine(limits: &str) -> Local {
    engine_of(limits, 1)
}

fn engine_of(limits: &str, shards: u32) -> Local {
    let plan = format!(
        r#"{{"schema":1,"version":1,"shards":{shards},"writer":"w","first_sample_margin":"0s","limits":{{{limits}}},
        "hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "rules":[{{"name":"r","metric":{{"prefix":"requests"}},"pipeline":"optimized",
        "fold":{{"labels":{{"drop":{{"attributes":["user"]}}}},"window":"10s","offset":"0s","delay":"10s"}}}}]}}"#
    );
    Local::new(plan.as_bytes(), "x", UnixNanos(100 * S)).unwrap()
}

fn kv(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..Default::default() }
}

/// Points of `requests`: (route, user, value); born at 150.
fn batch(description: &str, temporality: i32, time: u64, points: &[(String, String, i64)]) -> Vec<u8> {
    let start = if temporality == 1 { time - 1 } else { 150 };
    let point = |(route, user, value): &(String, String, i64)| NumberDataPoint {
        attributes: vec![kv("route", route), kv("user", user)],
        start_time_unix_nano: start * S,
        time_unix_nano: time * S,
        value: Some(V::AsInt(*value)),
        ..Default::default()
    };
    let data_points = points.iter().map(point).collect();
    let sum = Sum { data_points, aggregation_temporality: temporality, is_monotonic: true };
    let metric = Metric {
        name: "requests".into(),
        description: description.into(),
        data: Some(Data::Sum(sum)),
        ..Default::default()
    };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    Request { resource_metrics: vec![ResourceMetrics { scope_metrics: vec![scope], ..Default::default() }] }
        .encode_to_vec()
}

fn process(engine: &mut Local, tenant: &str, body: &[u8], time: u64) -> Result<Processed, BodyError> {
    let whole = Batch { body, tenant: tenant.as_bytes(), sender: b"", arrived: UnixNanos(time * S) };
    engine.process(Framing::Plain, &whole)
}

fn send(engine: &mut Local, tenant: &str, body: &[u8], time: u64) {
    let done = process(engine, tenant, body, time).unwrap();
    engine.settle(done.token, Settled::Accepted, UnixNanos(time * S));
}

/// Answers everything of the tenants that are not stuck; points as (mark, value of the newest point of each series).
fn drain(engine: &mut Local, time: u64, stuck: &str) -> Vec<(String, Vec<String>, i64)> {
    let now = UnixNanos(time * S);
    engine.tick(now);
    let mut got = Vec::new();
    while let Some((shard, e)) = engine.next_emission(now) {
        let (sequence, body, tenant) =
            (e.sequence, e.body.to_vec(), String::from_utf8(e.tenant.to_vec()).unwrap());
        if tenant == stuck {
            engine.answer(shard, sequence, Answer::Unknown, now);
            continue;
        }
        for metric in
            Request::decode(&body[..]).unwrap().resource_metrics.into_iter().flat_map(|r| r.scope_metrics)
        {
            for m in metric.metrics {
                let Some(Data::Sum(sum)) = m.data else { panic!() };
                for p in sum.data_points {
                    let Some(V::AsInt(v)) = p.value else { panic!() };
                    got.push((tenant.clone(), p.attributes.iter().map(|a| a.key.clone()).collect(), v));
                }
            }
        }
        engine.answer(shard, sequence, Answer::Accepted, now);
    }
    got
}

fn routes(n: usize, value: i64) -> Vec<(String, String, i64)> {
    (0..n).map(|i| (format!("/{i}"), "u".into(), value)).collect()
}

#[test]
fn series_beyond_the_table_fold_into_one_per_metric() {
    let mut engine = engine(r#""series_max":3"#);
    send(&mut engine, "t", &batch("", 2, 160, &routes(10, 7)), 160);
    let page = engine.page();
    assert_eq!((page.folded, page.overflowed, page.refused), (10, 7, 0));
    assert_eq!(engine.owners()[0].series(), 4, "three and the one that takes the rest");
    let points = drain(&mut engine, 400, "-");
    let bare = |keys: &Vec<String>| keys == &["phoenix_folded", "phoenix_writer"];
    let overflow: Vec<i64> = points.iter().filter(|(_, keys, _)| bare(keys)).map(|p| p.2).collect();
    assert_eq!(overflow, [0, 49], "a zero point, then all seven");
    assert_eq!(engine.page().increments_out.int(), 70);
}

/// Marks of the series that go out, each with how many series have it.
fn marks(engine: &mut Local, time: u64) -> BTreeMap<String, usize> {
    let now = UnixNanos(time * S);
    engine.tick(now);
    let mut series = BTreeSet::new();
    while let Some((shard, e)) = engine.next_emission(now) {
        let (sequence, body) = (e.sequence, e.body.to_vec());
        let scopes =
            Request::decode(&body[..]).unwrap().resource_metrics.into_iter().flat_map(|r| r.scope_metrics);
        for metric in scopes.flat_map(|scope| scope.metrics) {
            let points: Vec<Vec<KeyValue>> = match metric.data.unwrap() {
                Data::Sum(sum) => sum.data_points.into_iter().map(|p| p.attributes).collect(),
                Data::Histogram(it) => it.data_points.into_iter().map(|p| p.attributes).collect(),
                _ => panic!(),
            };
            for attributes in points {
                let text =
                    |kv: &KeyValue| format!("{:?}", kv.value.as_ref().unwrap().value.as_ref().unwrap());
                let mark = attributes.iter().find(|kv| kv.key == "phoenix_folded").map(text).unwrap();
                // Whoever owns it: a backend knows a series by these alone.
                series.insert((mark, attributes.iter().map(text).collect::<Vec<_>>(), shard));
            }
        }
        engine.answer(shard, sequence, Answer::Accepted, now);
    }
    let mut count = BTreeMap::new();
    let all: BTreeSet<&Vec<String>> = series.iter().map(|(_, labels, _)| labels).collect();
    assert_eq!(all.len(), series.len(), "two owners write one series: {series:?}");
    series.iter().for_each(|(mark, ..)| *count.entry(mark.clone()).or_default() += 1);
    count
}

#[test]
fn the_rest_of_each_shard_is_a_series_of_its_own() {
    let mut engine = engine_of(r#""series_max":1"#, 3);
    send(&mut engine, "t", &batch("", 2, 160, &routes(40, 7)), 160);
    let page = engine.page();
    assert_eq!((page.folded, page.overflowed, page.refused), (40, 37, 0));
    let found = marks(&mut engine, 400);
    let expected = ["(overflow);shard=0", "(overflow);shard=1", "(overflow);shard=2"];
    for (mark, expected) in found.keys().zip(expected) {
        assert!(mark.contains(expected), "{mark}");
    }
    assert_eq!(found.values().copied().collect::<Vec<_>>(), [1, 1, 1, 3], "{found:?}");
    assert_eq!(engine.page().increments_out.int(), 280);
}

#[test]
fn the_rest_of_histograms_is_kept_apart_by_bounds() {
    let mut engine = engine(r#""series_max":1"#);
    let bounds = [vec![1.0, 2.0], vec![1.0, 3.0], vec![1.0, 4.0]];
    let point = |n: usize| HistogramDataPoint {
        attributes: vec![kv("route", &format!("/{n}"))],
        start_time_unix_nano: 150 * S,
        time_unix_nano: 160 * S,
        count: 6,
        sum: Some(9.0),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: bounds[n % 3].clone(),
        ..Default::default()
    };
    let it = Histogram { data_points: (0..9).map(point).collect(), aggregation_temporality: 2 };
    let metric = Metric { name: "requests".into(), data: Some(Data::Histogram(it)), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let rm = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
    send(&mut engine, "t", &Request { resource_metrics: vec![rm] }.encode_to_vec(), 160);
    assert_eq!((engine.page().folded, engine.page().overflowed), (9, 8));
    let found = marks(&mut engine, 400);
    let rest = found.keys().filter(|mark| mark.contains("(overflow);bounds=")).count();
    assert_eq!((rest, found.len()), (3, 4), "{found:?}");
}

#[test]
fn a_full_table_of_streams_says_so_and_counts_nothing_twice() {
    let mut engine = engine(r#""streams_max":4"#);
    send(&mut engine, "t", &batch("", 2, 160, &routes(6, 7)), 160);
    assert!(engine.owners()[0].is_full(), "workers are told to let points pass raw");
    let page = engine.page();
    assert_eq!((page.folded, page.refused), (4, 2));
    // The streams without a place keep coming: they are never counted from zero again and again.
    send(&mut engine, "t", &batch("", 2, 170, &routes(6, 9)), 170);
    assert_eq!(engine.page().increments_in.int(), 4 * 9);
}

#[test]
fn deltas_fold_without_a_memory_of_them() {
    let mut engine = engine(r#""delta_streams_max":4"#);
    send(&mut engine, "t", &batch("", 1, 160, &routes(6, 7)), 160);
    let page = engine.page();
    assert_eq!((page.folded, page.unremembered, page.increments_in.int()), (6, 2, 42));
}

#[test]
fn a_stuck_tenant_holds_up_nobody_and_loses_nothing() {
    let mut engine = engine(r#""backlog_bytes_max":131072,"emission_bytes_max":65536"#);
    let many = routes(200, 0);
    let mut value = 0;
    for time in (160..2_000).step_by(10) {
        value += 1;
        let points: Vec<_> = many.iter().map(|(r, u, _)| (r.clone(), u.clone(), value)).collect();
        send(&mut engine, "stuck", &batch("", 2, time, &points), time);
        send(&mut engine, "fine", &batch("", 2, time, &points[..1]), time);
        drain(&mut engine, time + 5, "stuck");
    }
    let owner = &engine.owners()[0];
    assert!(owner.outbox().bytes() < 131_072, "half of the backlog and the one that crossed it");
    let fine = drain(&mut engine, 2_100, "stuck");
    assert_eq!(fine.iter().map(|p| p.2).max(), Some(value), "the other tenant is up to date");
    // The upstream is back: everything of the stuck one comes, in fewer points.
    for later in 0..20 {
        drain(&mut engine, 2_200 + later * 20, "-");
    }
    let (came, out, waiting, open) = engine.owners()[0].balance();
    assert_eq!((came.int(), waiting.int(), open.int()), (out.int(), 0, 0));
    assert_eq!(came.int(), i128::from(value) * 201);
}

#[test]
fn a_huge_head_passes() {
    let mut engine = engine("");
    let body = batch(&"d".repeat(100_000), 2, 160, &routes(4_000, 7));
    let done = process(&mut engine, "t", &body, 160).unwrap();
    assert!(done.body.is_none(), "it passes as it came");
    assert_eq!((done.tally.unwritable, done.tally.recorded), (4_000, 0));
}

#[test]
fn records_of_one_batch_are_bounded() {
    let mut engine = engine(r#""pending_bytes_max":65536"#);
    let users: Vec<_> = (0..4_000).map(|i| ("/".to_owned(), format!("{i}"), 1)).collect();
    let done = process(&mut engine, "t", &batch("", 2, 160, &users), 160);
    assert_eq!(done.err(), Some(BodyError::TooLarge));
    send(&mut engine, "t", &batch("", 2, 170, &users[..10]), 170);
    assert_eq!(engine.page().folded, 10, "the next one folds");
}

#[test]
fn what_waits_for_answers_is_bounded() {
    let mut engine = engine(r#""pending_bytes_max":1024"#);
    let first = process(&mut engine, "t", &batch("", 2, 160, &routes(3, 5)), 160).unwrap();
    let second = process(&mut engine, "t", &batch("", 2, 165, &routes(3, 6)), 165).unwrap();
    assert!(first.body.is_some() && second.body.is_none(), "the second goes out raw");
    engine.settle(first.token, Settled::Accepted, UnixNanos(166 * S));
    engine.settle(second.token, Settled::Accepted, UnixNanos(166 * S));
    // What went out raw is not folded as well: the next points only set where to count from.
    send(&mut engine, "t", &batch("", 2, 170, &routes(3, 9)), 170);
    send(&mut engine, "t", &batch("", 2, 180, &routes(3, 10)), 180);
    assert_eq!((engine.page().increments_in.int(), engine.page().baselines), (3 * 5 + 3, 3));
}

/// A window that cannot go out waits in the next one; at the end of time there is no next one, and waiting must still end.
#[test]
fn the_end_of_time_is_reached_once() {
    let mut engine = engine(r#""backlog_bytes_max":65536,"emission_bytes_max":65536"#);
    for time in (160..400).step_by(10) {
        let points: Vec<_> = routes(400, time as i64);
        send(&mut engine, "stuck", &batch("", 2, time, &points), time);
        drain(&mut engine, time + 5, "stuck");
    }
    engine.tick(UnixNanos(u64::MAX));
    let (came, out, waiting, open) = engine.owners()[0].balance();
    assert_eq!(came.int(), out.int() + waiting.int() + open.int());
}
