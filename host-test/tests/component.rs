//! `phoenix.component.wasm` in wasmtime, through the contract of `wit/phoenix.wit`: a plan, a batch, an answer, an emission, the
//! books. And the same bytes as from the native engine, since there is one engine.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_filter::body::Framing as NativeFraming;
use phoenix_filter::emit::Answer as NativeAnswer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled as NativeSettled};
use phoenix_filter::units::UnixNanos;
use phoenix_host_test::cases::component::contract::exports::phoenix::filter::engine::{
    Answer, Framing, Settled,
};
use phoenix_host_test::cases::component::instance;
use prost::Message;

const S: u64 = 1_000_000_000;

const PLAN: &str = r#"{"schema":1,"version":7,"writer":"w","first_sample_margin":"0s",
 "hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
 "rules":[{"name":"r","metric":{"exact":"requests"},"pipeline":"optimized",
   "fold":{"labels":{"drop":{"attributes":["user"]}},"window":"10s","offset":"0s","delay":"10s"}}]}"#;

fn kv(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..Default::default() }
}

fn batch(time: u64, values: &[(&str, i64)]) -> Vec<u8> {
    let points = values.iter().map(|(user, value)| NumberDataPoint {
        attributes: vec![kv("route", "/cart"), kv("user", user)],
        start_time_unix_nano: 150 * S,
        time_unix_nano: time * S,
        value: Some(Number::AsInt(*value)),
        ..Default::default()
    });
    let sum = Sum { data_points: points.collect(), aggregation_temporality: 2, is_monotonic: true };
    let folded = Metric { name: "requests".into(), data: Some(Data::Sum(sum.clone())), ..Default::default() };
    let passing = Metric { name: "other".into(), data: Some(Data::Sum(sum)), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![folded, passing], ..Default::default() };
    let resource = Resource { attributes: vec![kv("service.name", "shop")], ..Default::default() };
    let rm = ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope], ..Default::default() };
    Request { resource_metrics: vec![rm] }.encode_to_vec()
}

#[test]
fn round_trip_equals_the_native_engine() {
    let (mut store, phoenix) = instance().expect("a component that imports nothing");
    let wit = phoenix.phoenix_filter_engine();

    let before = wit.call_process(&mut store, Framing::Plain, b"", b"", b"", S).unwrap();
    assert!(before.unwrap_err().contains("configure"), "a call before the first plan is refused, not a trap");
    let refused = wit.call_configure(&mut store, b"{\"schema\":2}", "x", 100 * S).unwrap();
    assert!(refused.unwrap_err().contains("refused"));
    assert_eq!(wit.call_configure(&mut store, PLAN.as_bytes(), "x", 100 * S).unwrap(), Ok(7));
    let mut native = Local::new(PLAN.as_bytes(), "x", UnixNanos(100 * S)).unwrap();

    let rounds =
        [(160, vec![("ann", 5), ("bob", 2)]), (170, vec![("ann", 9), ("bob", 2)]), (180, vec![("eve", 1)])];
    for (time, values) in rounds {
        let (body, now) = (batch(time, &values), time * S);
        let done = wit.call_process(&mut store, Framing::Plain, b"t", b"", &body, now).unwrap().unwrap();
        let whole = Batch { body: &body, tenant: b"t", sender: b"", arrived: UnixNanos(now) };
        let same = native.process(NativeFraming::Plain, &whole).unwrap();
        assert_eq!(done.body, same.body, "the forwarded bytes");
        let forwarded = Request::decode(&done.body.unwrap()[..]).unwrap();
        let left = &forwarded.resource_metrics[0].scope_metrics[0].metrics;
        assert_eq!((left.len(), left[0].name.as_str()), (1, "other"));
        wit.call_settle(&mut store, done.token, Settled::Accepted, now).unwrap();
        native.settle(same.token, NativeSettled::Accepted, UnixNanos(now));
    }

    let late = 400 * S;
    wit.call_tick(&mut store, late).unwrap();
    native.tick(UnixNanos(late));
    let mut emissions = 0;
    while let Some(e) = wit.call_next_emission(&mut store, late).unwrap() {
        let (shard, same) = native.next_emission(UnixNanos(late)).expect("as many as natively");
        assert_eq!((&e.body[..], e.sequence, &e.tenant[..]), (&same.body[..], same.sequence, &b"t"[..]));
        let sequence = same.sequence;
        native.answer(shard, sequence, NativeAnswer::Accepted, UnixNanos(late));
        wit.call_answer_emission(&mut store, e.shard, e.sequence, Answer::Accepted, late).unwrap();
        emissions += 1;
    }
    assert!(emissions > 0 && native.next_emission(UnixNanos(late)).is_none());

    let ledger = wit.call_ledger(&mut store).unwrap();
    assert_eq!(ledger.len(), 1);
    let page = &ledger[0];
    assert_eq!((&page.metric[..], page.folded, page.baselines), (&b"requests"[..], 5, 0));
    assert_eq!((page.increments_in.int, page.increments_out.int), (12, 12), "9 of ann, 2 of bob, 1 of eve");
}
