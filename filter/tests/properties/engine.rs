//! The engine under test: points in, folded series out.

use crate::oracle::{Kind, Point, SeriesKey};
use crate::scripts::{BEGAN, S};
use crate::wire::{Order, name};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value as V};
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use prost::Message;
use std::collections::BTreeMap;

pub const WINDOW: u64 = 10 * S;

/// Every metric with a name of two letters folds its pod away.
pub fn plan(delay: &str, output: &str) -> String {
    format!(
        r#"{{"schema":1,"version":1,"writer":"w","first_sample_margin":"0s","stream_expiry":"86400s",
         "hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
         "rules":[{{"name":"f","metric":{{"glob":"??"}},"pipeline":"optimized","fold":{{"labels":{{"drop":{{"resource":["pod"]}}}},
           "window":"10s","offset":"0s","delay":"{delay}","output_temporality":"{output}"}}}}]}}"#
    )
}

/// Longer than any script: no window closes before the end of one.
pub const LONG: &str = "3600s";

pub fn start(plan: &str) -> Local {
    Local::new(plan.as_bytes(), "x", UnixNanos(BEGAN)).unwrap()
}

/// One request with these points, and its settling.
pub fn send(engine: &mut Local, order: &mut Order, points: &[Point], arrived: u64, how: Settled) {
    let body = order.request(points);
    let batch = Batch { body: &body, tenant: b"t", sender: b"", arrived: UnixNanos(arrived) };
    let done = engine.process(Framing::Plain, &batch).unwrap();
    assert_eq!(done.tally.recorded, points.len() as u64);
    engine.settle(done.token, how, UnixNanos(arrived));
}

/// Points of a folded series: start, time, value (doubles as they are, integers too: those of the tests are below 2^53).
pub type Out = BTreeMap<SeriesKey, Vec<(u64, u64, f64)>>;

/// Take what may be sent, and answer it by `answer`.
pub fn take(engine: &mut Local, now: u64, out: &mut Out, mut answer: impl FnMut() -> Answer) {
    let now = UnixNanos(now);
    let mut flights = Vec::new();
    while let Some((shard, e)) = engine.next_emission(now) {
        flights.push((shard, e.sequence, e.body.to_vec()));
    }
    for (shard, sequence, body) in flights {
        let answer = answer();
        engine.answer(shard, sequence, answer, now);
        if answer == Answer::Accepted {
            read(&body, out);
        }
    }
}

/// Close everything and take it.
pub fn drain(engine: &mut Local, out: &mut Out) {
    let mut now = BEGAN + 100_000 * S;
    for _ in 0..1_000_000 {
        engine.tick(UnixNanos(now));
        take(engine, now, out, || Answer::Accepted);
        if engine.owners().iter().all(|o| o.is_drained()) {
            return;
        }
        now += 60 * S;
    }
    panic!("the engine does not drain");
}

fn read(body: &[u8], out: &mut Out) {
    for rm in ExportMetricsServiceRequest::decode(body).unwrap().resource_metrics {
        for metric in rm.scope_metrics.iter().flat_map(|s| &s.metrics) {
            let Some(Data::Sum(sum)) = &metric.data else { panic!("only sums") };
            let kinds = [Kind::Cumulative, Kind::Delta];
            let all = kinds.into_iter().flat_map(|k| [(k, false), (k, true)]);
            let (kind, double) = all.into_iter().find(|(k, d)| name(*k, *d) == metric.name).unwrap();
            for p in &sum.data_points {
                let route = p.attributes.iter().find(|a| a.key == "route").unwrap();
                let Some(Value::StringValue(route)) = &route.value.as_ref().unwrap().value else { panic!() };
                let value = match p.value {
                    Some(V::AsInt(v)) => v as f64,
                    Some(V::AsDouble(v)) => v,
                    None => panic!("no value"),
                };
                let key = (kind, double, route.trim_start_matches("/r").parse().unwrap());
                out.entry(key).or_default().push((p.start_time_unix_nano, p.time_unix_nano, value));
            }
        }
    }
}

/// Increment of each window by its start. Checks on the way: times rise, cumulative totals never fall, a series opens with zero.
pub fn windows(points: &[(u64, u64, f64)], cumulative: bool) -> BTreeMap<u64, f64> {
    let mut windows = BTreeMap::new();
    let mut before: Option<(u64, u64, f64)> = None;
    for &(start, time, value) in points {
        if !cumulative {
            assert_eq!(time - start, WINDOW, "a delta point says its window");
            assert!(windows.insert(start, value).is_none(), "one emission per series per window: {points:?}");
            continue;
        }
        match before {
            None => assert_eq!((time, value), (start, 0.0), "a series opens with a zero point"),
            Some((s, t, v)) => {
                assert_eq!(s, start, "one start");
                assert!(time > t, "time rises: {t} {time}");
                assert!(value >= v, "a total never falls: {v} {value}");
                windows.insert(time - WINDOW, value - v);
            }
        }
        before = Some((start, time, value));
    }
    windows
}
