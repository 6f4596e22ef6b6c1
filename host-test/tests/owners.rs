//! Owners that die, queues without credit, raw points that cannot be remembered: what workers of one process owe each other. The built
//! module under the test host; real Envoy has no way to make a worker hang on demand.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use phoenix_host_test::cases::language::Batch as Request;
use phoenix_host_test::cases::points::{encode, read};
use phoenix_host_test::cases::{Case, module};
use phoenix_host_test::proxy_host::{
    Cluster, Delivery, Message, Module, Options, Outcome, Process, StreamId, VmId,
};
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// Two workers, of which the first owns the only shard; queues move only when the test says so.
fn process(limits: &str) -> Process {
    let plan = format!(
        r#"{{"schema":1,"version":1,"writer":"w","first_sample_margin":"0s","limits":{{{limits}}},
        "hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "rules":[{{"name":"r","metric":{{"exact":"requests"}},"pipeline":"optimized",
        "fold":{{"labels":{{"drop":{{"attributes":["user"]}}}},"window":"10s","offset":"0s","delay":"10s"}}}}]}}"#
    );
    let config = Case::plugin_config(&plan).expect("a configuration").into_bytes();
    let options = Options { workers: 2, delivery: Delivery::Manual, ..Options::default() };
    let built = Module::built().expect("cargo xtask build");
    let mut process = Process::start(&built, &options, &config).expect("a process");
    process.set_cluster("phoenix_emit", Cluster::Scripted);
    for worker in [0, 1] {
        let warm = send(&mut process, worker, "other{;} gauge -..1 1");
        process.respond(warm, Message::response(200, "")).expect("an answer");
    }
    process.advance(Duration::from_secs(2)).expect("ticks");
    process
}

fn send(process: &mut Process, worker: usize, line: &str) -> StreamId {
    let points = [read(line).expect("a point")];
    let request = module::request(&Request { message: encode(&points), ..Request::default() });
    process.send(worker, request, 999).expect("a request")
}

/// A total of the one stream that these tests have, through a worker, accepted. Says whether the point was cut out.
fn total(process: &mut Process, worker: usize, born_ns: u64, value: i64) -> bool {
    let time = |ns: u64| format!("{}.{:09}", ns / SECOND, ns % SECOND);
    let now_ns = process.now_nanos();
    let line =
        format!("requests{{; route=/, user=u}} cumulative {}..{} {value}", time(born_ns), time(now_ns));
    let stream = send(process, worker, &line);
    let cut = process.forwarded(stream).expect("it is forwarded").body.is_empty();
    process.respond(stream, Message::response(200, "")).expect("an answer");
    process.forget(stream);
    cut
}

/// One second in which only these workers live.
fn second(process: &mut Process, workers: &[usize]) {
    let now_ns = process.now_nanos() + SECOND;
    process.step_clock(now_ns);
    for worker in workers {
        for root in process.roots(VmId::Worker(*worker)) {
            process.tick(VmId::Worker(*worker), root).expect("a tick");
        }
    }
}

/// A tenth of a second in which nobody ticks: the owner hangs, but is not gone.
fn moment(process: &mut Process) {
    let now_ns = process.now_nanos() + SECOND / 10;
    process.step_clock(now_ns);
}

/// Seconds with answers to every emission; the last value of each series that came, by its labels.
fn drain(process: &mut Process, workers: &[usize], seconds: usize, last: &mut BTreeMap<String, i64>) {
    for _ in 0..seconds {
        second(process, workers);
        for (id, call) in process.pending_calls() {
            let request = ExportMetricsServiceRequest::decode(&call.body[..]).expect("OTLP");
            for scope in request.resource_metrics.iter().flat_map(|r| &r.scope_metrics) {
                let Some(Data::Sum(sum)) = &scope.metrics[0].data else { panic!("a sum") };
                for point in &sum.data_points {
                    let Some(Number::AsInt(value)) = point.value else { panic!("an integer") };
                    last.insert(format!("{:?}", point.attributes), value);
                }
            }
            process.end_call(id, Outcome::Response(Message::response(200, ""))).expect("an answer");
        }
    }
}

fn counter(process: &Process, name: &str) -> u64 {
    process.counter(&format!("phoenix_{name}"))
}

/// Were the dead owner not replaced, everything would wait in its queue for ever; were its queue not drained, what waits there would be lost.
#[test]
fn an_owner_that_dies_is_replaced_and_its_queue_is_folded() {
    let mut process = process("");
    let born_ns = process.now_nanos();
    second(&mut process, &[0, 1]);
    let mut value = 0;
    for _ in 0..25 {
        second(&mut process, &[1]);
        value += 10;
        assert!(total(&mut process, 1, born_ns, value));
    }
    let mut last = BTreeMap::new();
    drain(&mut process, &[1], 60, &mut last);
    // The successor has not seen the stream's birth: its first record is the baseline, whatever the queue held is counted.
    assert_eq!(last.values().copied().collect::<Vec<_>>(), [value - 10]);
    assert_eq!((counter(&process, "baselines"), counter(&process, "folded")), (1, 24));
    for name in ["bugs", "refused", "carried", "rebaselines"] {
        assert_eq!(counter(&process, name), 0, "{name}");
    }
}

/// A clock that leaps must not look like a dead owner.
#[test]
fn a_leap_of_the_clock_deposes_nobody() {
    let mut process = process("");
    let born_ns = process.now_nanos();
    second(&mut process, &[0, 1]);
    let leap_ns = process.now_nanos() + 3_600 * SECOND;
    process.step_clock(leap_ns);
    for round in 1..=5 {
        second(&mut process, &[1, 0]);
        assert!(total(&mut process, 1, born_ns, round * 10));
    }
    drain(&mut process, &[0, 1], 30, &mut BTreeMap::new());
    assert_eq!((counter(&process, "folded"), counter(&process, "baselines")), (5, 0), "one owner saw it all");
}

/// Without credit points go out raw. Were their records dropped or folded, the next increment would be counted twice or not at all.
#[test]
fn without_credit_points_pass_raw_and_are_counted_once() {
    let mut process = process(r#""queue_bytes_max":4096"#);
    let born_ns = process.now_nanos();
    second(&mut process, &[0, 1]);
    let (mut folded, mut before, mut raw) = (0, 0, 0);
    let mut step = |process: &mut Process, value: i64| {
        moment(process);
        if total(process, 1, born_ns, value) {
            folded += value - before;
        } else {
            raw += 1;
        }
        before = value;
    };
    // The owner does not consume: credit runs out.
    for round in 1..=24 {
        step(&mut process, round * 7);
    }
    for _ in 0..3 {
        second(&mut process, &[0, 1]);
    }
    for round in 25..=28 {
        step(&mut process, round * 7);
        second(&mut process, &[0, 1]);
    }
    let mut last = BTreeMap::new();
    drain(&mut process, &[0, 1], 60, &mut last);
    assert!(raw > 3, "credit ran out: {raw}");
    assert_eq!(last.values().copied().collect::<Vec<_>>(), [folded]);
    assert_eq!((counter(&process, "carried"), counter(&process, "rebaselines")), (raw, 0));
}

/// More raw points than can be remembered: every stream begins anew, once. Were the order to stick, nothing would fold again.
#[test]
fn what_cannot_be_remembered_makes_streams_strangers_once() {
    let mut process = process(r#""queue_bytes_max":1024"#);
    let born_ns = process.now_nanos();
    second(&mut process, &[0, 1]);
    let (mut cut, mut value) = (0, 0);
    for _ in 0..40 {
        moment(&mut process);
        value += 7;
        cut += i64::from(total(&mut process, 1, born_ns, value));
    }
    for _ in 0..3 {
        second(&mut process, &[0, 1]);
    }
    for _ in 0..4 {
        second(&mut process, &[0, 1]);
        value += 7;
        assert!(total(&mut process, 1, born_ns, value), "there is credit again");
    }
    let mut last = BTreeMap::new();
    drain(&mut process, &[0, 1], 60, &mut last);
    assert_eq!(counter(&process, "rebaselines"), 1);
    // What was cut before and the last four. The raw points between are in no sum: the last of them, remembered again behind the order,
    // is where the four count from.
    let sum: i64 = last.values().sum();
    assert!(cut > 2, "some went out with credit: {cut}");
    assert_eq!(sum, (cut + 4) * 7, "nothing that was cut out is lost, nothing raw is counted");
}

/// The same on a worker that took the shard over from another: its order must not stick to a route that it no longer needs.
#[test]
fn an_order_to_begin_anew_does_not_stick_to_an_owner() {
    let mut process = process(r#""pending_bytes_max":1024"#);
    let born_ns = process.now_nanos();
    second(&mut process, &[0, 1]);
    total(&mut process, 1, born_ns, 1);
    for _ in 0..13 {
        second(&mut process, &[1]);
    }
    // Worker 1 owns the shard now. Requests that wait fill its memory until one goes out raw and is forgotten.
    let mut waiting = Vec::new();
    for value in 2..12 {
        second(&mut process, &[1]);
        let now_ns = process.now_nanos();
        let line = format!(
            "requests{{; route=/, user=u}} cumulative {}.{:09}..{}.{:09} {value}",
            born_ns / SECOND,
            born_ns % SECOND,
            now_ns / SECOND,
            now_ns % SECOND
        );
        waiting.push(send(&mut process, 1, &line));
    }
    for stream in waiting {
        process.respond(stream, Message::response(200, "")).expect("an answer");
    }
    second(&mut process, &[1]);
    assert_eq!(counter(&process, "rebaselines"), 1);
    let before = counter(&process, "folded");
    for value in 20..25 {
        second(&mut process, &[1]);
        assert!(total(&mut process, 1, born_ns, value));
    }
    second(&mut process, &[1]);
    assert_eq!(counter(&process, "folded") - before, 4, "one baseline, then it folds again");
    assert_eq!(counter(&process, "rebaselines"), 1);
}
