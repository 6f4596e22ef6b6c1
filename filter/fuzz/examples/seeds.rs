//! Writes a first corpus: `cargo run --manifest-path filter/fuzz/Cargo.toml --example seeds`. In: nothing. Out: files named
//! `seed-*` in `filter/fuzz/corpus/<target>/`, the same bytes each time.
//!
//! Small batches of every data kind in the orders in which SDKs and the Collector write them, bodies of each framing, scripts,
//! plans, a message of records. What the fuzzer finds beyond that is kept beside them, minimised.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::metrics::v1 as pm;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value as V};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_filter::flow::{Batch, Scratch, flow};
use phoenix_filter::units::UnixNanos;
use phoenix_fuzz::shared;
use prost::Message;
use std::path::Path;

const S: u64 = 1_000_000_000;

fn main() -> std::io::Result<()> {
    for (name, request) in requests() {
        let bytes = request.encode_to_vec();
        keep("decode", name, &bytes)?;
        // Raw; framed by the target; framed and packed.
        for (mode, way) in [(0, "plain"), (1 | 1 << 2, "grpc"), (2 | 2 << 2, "gzip")] {
            keep("body", &format!("{name}-{way}"), &[&[mode][..], &bytes].concat())?;
        }
        let (plan, mut scratch) = (shared::compiled(shared::WALL), Scratch::default());
        let batch = Batch { body: &bytes, tenant: b"t", sender: b"s", arrived: UnixNanos(1_000 * S) };
        flow(&plan, &batch, &mut scratch).expect("prost writes OTLP");
        for (shard, message) in scratch.messages(plan.key, batch.arrived) {
            keep("record", &format!("{name}-{shard}"), &message)?;
        }
    }
    // In pdata's order: value, time, start, attributes; the value of an attribute before its key.
    keep("decode", "pdata", PDATA)?;
    keep("body", "pdata", &[&[0][..], PDATA].concat())?;
    for n in 0..8u64 {
        keep("flow", &format!("script-{n}"), &script(n))?;
    }
    keep("plan", "several", shared::WALL.as_bytes())?;
    let key = r#""hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f""#;
    keep("plan", "least", format!(r#"{{"schema":1,"version":1,{key}}}"#).as_bytes())?;
    keep("plan", "refused", format!(r#"{{"schema":1,"version":1,{key},"shards":17}}"#).as_bytes())
}

fn keep(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(format!("seed-{name}")), bytes)
}

/// A request of one sum `m` with one point, as pdata 0.161 orders it.
#[rustfmt::skip]
const PDATA: &[u8] = &[
    0x0a, 51,
      0x0a, 10, 0x0a, 8, 0x12, 3, 0x0a, 1, b'x', 0x0a, 1, b'p',
      0x12, 37, 0x12, 35, 0x0a, 1, b'm', 0x3a, 30,
        0x0a, 24, 0x31, 7, 0, 0, 0, 0, 0, 0, 0, 0x19, 0, 0, 0, 0, 1, 0, 0, 0, 0x3a, 4, 0x0a, 0, 0x12, 0,
        0x10, 2, 0x18, 1,
];

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.into()))
}

fn point(method: &str, time: u64, value: V) -> pm::NumberDataPoint {
    pm::NumberDataPoint {
        attributes: vec![text("a", method), text("b", "1")],
        start_time_unix_nano: 900 * S,
        time_unix_nano: time * S,
        value: Some(value),
        ..Default::default()
    }
}

fn of(name: &str, resource: Vec<KeyValue>, data: Data) -> Request {
    let metric = pm::Metric { name: name.into(), unit: "1".into(), data: Some(data), ..Default::default() };
    let scope = InstrumentationScope { name: "lib".into(), version: "2".into(), ..Default::default() };
    let scope = pm::ScopeMetrics { scope: Some(scope), metrics: vec![metric], ..Default::default() };
    let resource = Some(Resource { attributes: resource, ..Default::default() });
    let rm = pm::ResourceMetrics { resource, scope_metrics: vec![scope], schema_url: "u".into() };
    Request { resource_metrics: vec![rm] }
}

fn sum(temporality: i32, data_points: Vec<pm::NumberDataPoint>) -> Data {
    Data::Sum(pm::Sum { data_points, aggregation_temporality: temporality, is_monotonic: true })
}

fn requests() -> Vec<(&'static str, Request)> {
    let pod = |pod| vec![text("pod", pod), text("service.name", "shop")];
    let two = vec![point("GET", 960, V::AsInt(5)), point("POST", 961, V::AsInt(6))];
    let stale = pm::NumberDataPoint { flags: 1, value: None, ..point("PUT", 962, V::AsInt(0)) };
    let ahead = point("GET", 90_000, V::AsInt(1));
    let nested = Value::KvlistValue(KeyValueList {
        values: vec![pair("k", Value::ArrayValue(ArrayValue { values: vec![AnyValue::default()] }))],
    });
    let odd = vec![
        pair("i", Value::IntValue(-1)),
        pair("d", Value::DoubleValue(f64::NAN)),
        pair("t", Value::BoolValue(true)),
        pair("y", Value::BytesValue(vec![255])),
        pair("n", nested),
        KeyValue::default(),
    ];
    let histogram = pm::HistogramDataPoint { count: 3, bucket_counts: vec![1, 2], ..Default::default() };
    let exponential = pm::ExponentialHistogramDataPoint { count: 3, ..Default::default() };
    let summary = pm::SummaryDataPoint { count: 3, sum: 1.5, ..Default::default() };
    let mut mixed = of("m.a", pod("a"), sum(2, two.clone()));
    mixed.resource_metrics.extend(of("other", pod("b"), sum(1, two.clone())).resource_metrics);
    mixed.resource_metrics.extend(of("m.b", odd.clone(), sum(1, two.clone())).resource_metrics);
    let data_points = vec![point("GET", 960, V::AsDouble(0.5))];
    vec![
        ("empty", Request::default()),
        ("cumulative", of("m.a", pod("a"), sum(2, two.clone()))),
        ("delta", of("m.a", pod("a"), sum(1, vec![point("x", 960, V::AsDouble(0.25))]))),
        ("raw", of("m", pod("raw"), sum(2, two.clone()))),
        ("odd", of("m.a", odd, sum(2, two))),
        ("stale", of("m.a", pod("a"), sum(2, vec![stale, ahead]))),
        ("mixed", mixed),
        ("gauge", of("m.g", pod("a"), Data::Gauge(pm::Gauge { data_points }))),
        (
            "histogram",
            of(
                "m.h",
                pod("a"),
                Data::Histogram(pm::Histogram { data_points: vec![histogram], aggregation_temporality: 1 }),
            ),
        ),
        (
            "exponential",
            of(
                "m.e",
                pod("a"),
                Data::ExponentialHistogram(pm::ExponentialHistogram {
                    data_points: vec![exponential],
                    aggregation_temporality: 2,
                }),
            ),
        ),
        ("summary", of("m.s", pod("a"), Data::Summary(pm::Summary { data_points: vec![summary] }))),
    ]
}

/// A script of a few hundred decisions from a fixed sequence (Knuth's linear congruence).
fn script(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(600).collect()
}
