//! The engine end to end, in one instance: OTLP in, OTLP out, totals exact.

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
use prost::Message;

const S: u64 = 1_000_000_000;

const PLAN: &str = r#"{"schema":1,"version":1,"hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
 "writer":"w","first_sample_margin":"0s",
 "rules":[{"name":"r","metric":{"exact":"requests"},"pipeline":"optimized",
   "fold":{"labels":{"drop":{"resource":["pod"]}},"window":"10s","offset":"0s","delay":"10s"}}]}"#;

fn kv(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..Default::default()
    }
}

fn batch(pod: &str, metric: &str, start: u64, time: u64, value: i64) -> Vec<u8> {
    let point = NumberDataPoint {
        attributes: vec![kv("route", "/cart")],
        start_time_unix_nano: start * S,
        time_unix_nano: time * S,
        value: Some(V::AsInt(value)),
        ..Default::default()
    };
    let sum = Sum { data_points: vec![point], aggregation_temporality: 2, is_monotonic: true };
    let metric = Metric { name: metric.into(), data: Some(Data::Sum(sum)), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let resource =
        Resource { attributes: vec![kv("pod", pod), kv("service.name", "shop")], ..Default::default() };
    let rm = ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope], ..Default::default() };
    Request { resource_metrics: vec![rm] }.encode_to_vec()
}

#[test]
fn two_pods_become_one_series() {
    let mut engine = Local::new(PLAN.as_bytes(), "x", UnixNanos(100 * S)).unwrap();
    for (pod, start, time, value) in
        [("a", 150, 160, 5), ("b", 150, 161, 7), ("a", 150, 170, 11), ("b", 150, 171, 8)]
    {
        let now = UnixNanos(time * S);
        let body = batch(pod, "requests", start, time, value);
        let whole = Batch { body: &body, tenant: b"t", sender: b"", arrived: now };
        let done = engine.process(Framing::Plain, &whole).unwrap();
        assert_eq!(done.body.as_deref(), Some(&[][..]), "nothing is left of it");
        engine.settle(done.token, Settled::Accepted, now);
    }
    engine.tick(UnixNanos(300 * S));
    let mut out = Vec::new();
    while let Some((shard, emission)) = engine.next_emission(UnixNanos(300 * S)) {
        let (sequence, body) = (emission.sequence, emission.body.to_vec());
        out.push(Request::decode(&body[..]).unwrap());
        engine.answer(shard, sequence, Answer::Accepted, UnixNanos(300 * S));
    }
    let mut got = Vec::new();
    for rm in out.iter().flat_map(|r| &r.resource_metrics) {
        assert_eq!(rm.resource.as_ref().unwrap().attributes, [kv("service.name", "shop")]);
        for m in rm.scope_metrics.iter().flat_map(|s| &s.metrics) {
            let Some(Data::Sum(sum)) = &m.data else { panic!() };
            for p in &sum.data_points {
                assert_eq!(
                    p.attributes,
                    [kv("route", "/cart"), kv("phoenix_folded", "pod"), kv("phoenix_writer", "w")]
                );
                let Some(V::AsInt(v)) = p.value else { panic!() };
                got.push((p.start_time_unix_nano / S, p.time_unix_nano / S, v));
            }
        }
    }
    assert_eq!(got, [(150, 150, 0), (150, 160, 11), (150, 170, 18), (150, 180, 19)]);
    let page = engine.page();
    assert_eq!((page.folded, page.increments_in.int(), page.increments_out.int()), (4, 19, 19));
}

#[test]
fn other_metrics_pass_untouched() {
    let mut engine = Local::new(PLAN.as_bytes(), "x", UnixNanos(100 * S)).unwrap();
    let body = batch("a", "other", 150, 160, 5);
    let whole = Batch { body: &body, tenant: b"t", sender: b"", arrived: UnixNanos(160 * S) };
    let done = engine.process(Framing::Plain, &whole).unwrap();
    assert!(done.body.is_none());
    assert_eq!(done.tally.passed, 1);
}

/// The embedder's clock jumps three days ahead and back: totals wait for no one.
#[test]
fn a_clock_that_jumps_days_ahead_and_back_delays_no_total() {
    let mut engine = Local::new(PLAN.as_bytes(), "x", UnixNanos(100 * S)).unwrap();
    let send = |engine: &mut Local, now: u64, time: u64, value: i64| {
        let body = batch("a", "requests", 150, time, value);
        let whole = Batch { body: &body, tenant: b"t", sender: b"", arrived: UnixNanos(now * S) };
        let done = engine.process(Framing::Plain, &whole).unwrap();
        engine.settle(done.token, Settled::Accepted, UnixNanos(now * S));
    };
    send(&mut engine, 160, 160, 5);
    let ahead = 160 + 3 * 86_400;
    engine.tick(UnixNanos(ahead * S));
    send(&mut engine, ahead, 170, 9);
    engine.tick(UnixNanos(175 * S));
    send(&mut engine, 180, 180, 10);
    engine.tick(UnixNanos(300 * S));
    while let Some((shard, e)) = engine.next_emission(UnixNanos(300 * S)) {
        let sequence = e.sequence;
        engine.answer(shard, sequence, Answer::Accepted, UnixNanos(300 * S));
    }
    let page = engine.page();
    assert_eq!(
        (page.increments_in.int(), page.increments_out.int()),
        (10, 10),
        "all of it is out by the true clock"
    );
}

/// A new hash key is a restart: what was open goes out before it, nothing is lost, no point shares its time with another.
#[test]
fn a_new_key_ends_every_series_before_it() {
    let mut engine = Local::new(PLAN.as_bytes(), "x", UnixNanos(100 * S)).unwrap();
    let send = |engine: &mut Local, time: u64, value: i64| {
        let body = batch("a", "requests", 150, time, value);
        let whole = Batch { body: &body, tenant: b"t", sender: b"", arrived: UnixNanos(time * S) };
        let done = engine.process(Framing::Plain, &whole).unwrap();
        engine.settle(done.token, Settled::Accepted, UnixNanos(time * S));
    };
    send(&mut engine, 160, 5);
    send(&mut engine, 170, 9);
    let other = PLAN.replace("0001020304", "ff01020304").replace("\"version\":1", "\"version\":2");
    assert_eq!(engine.configure(other.as_bytes(), UnixNanos(172 * S)), Ok(2));
    send(&mut engine, 180, 10);
    send(&mut engine, 190, 14);
    let now = UnixNanos(400 * S);
    engine.tick(now);
    let mut points = Vec::new();
    while let Some((shard, e)) = engine.next_emission(now) {
        let (sequence, body) = (e.sequence, e.body.to_vec());
        for rm in Request::decode(&body[..]).unwrap().resource_metrics {
            let Some(Data::Sum(sum)) = &rm.scope_metrics[0].metrics[0].data else { panic!() };
            for p in &sum.data_points {
                let Some(V::AsInt(v)) = p.value else { panic!() };
                points.push((p.time_unix_nano, v));
            }
        }
        engine.answer(shard, sequence, Answer::Accepted, now);
    }
    let times: Vec<u64> = points.iter().map(|p| p.0).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "one point at each time: {points:?}");
    let page = engine.page();
    assert_eq!((page.increments_in.int(), page.increments_out.int(), page.abandoned), (13, 13, 0));
    assert_eq!(page.baselines, 1, "the first point under the new key");
}

/// Under `clock: event` a first message of deltas goes where it came to be, not to the beginning of time.
#[test]
fn the_first_message_may_hold_deltas() {
    let plan = PLAN.replace(r#""writer":"w""#, r#""writer":"w","clock":"event""#);
    let mut engine = Local::new(plan.as_bytes(), "x", UnixNanos(0)).unwrap();
    for (time, value) in [(1_700_000_000, 5), (1_700_000_100, 7)] {
        let mut request = Request::decode(&batch("a", "requests", time - 5, time, value)[..]).unwrap();
        let metric = &mut request.resource_metrics[0].scope_metrics[0].metrics[0];
        let Some(Data::Sum(sum)) = &mut metric.data else { panic!() };
        sum.aggregation_temporality = 1;
        let body = request.encode_to_vec();
        let whole = Batch { body: &body, tenant: b"t", sender: b"", arrived: UnixNanos(0) };
        let done = engine.process(Framing::Plain, &whole).unwrap();
        engine.settle(done.token, Settled::Accepted, UnixNanos(0));
    }
    let (_, emission) = engine.next_emission(UnixNanos(0)).expect("the first window has closed");
    let request = Request::decode(&emission.body[..]).unwrap();
    let Some(Data::Sum(sum)) = &request.resource_metrics[0].scope_metrics[0].metrics[0].data else {
        panic!()
    };
    assert_eq!(sum.data_points[0].time_unix_nano, 1_700_000_000 * S);
}

#[test]
fn a_busy_owner_forgets_the_silent_too() {
    let plan = PLAN.replace("\"first_sample_margin\"", "\"stream_expiry\":\"60s\",\"first_sample_margin\"");
    let mut engine = Local::new(plan.as_bytes(), "x", UnixNanos(100 * S)).unwrap();
    for time in 110..1_000 {
        let now = UnixNanos(time * S);
        // One goes after its first point; another is never silent, and speaks before each tick.
        for pod in if time == 110 { ["gone", "busy"].iter() } else { ["busy"].iter() } {
            let body = batch(pod, "requests", 105, time, 5);
            let whole = Batch { body: &body, tenant: b"t", sender: b"", arrived: now };
            let done = engine.process(Framing::Plain, &whole).unwrap();
            engine.settle(done.token, Settled::Accepted, now);
        }
        engine.tick(now);
    }
    assert_eq!(engine.owners()[0].streams(), 1);
}
