//! What a restart of a real Envoy costs, held to the contract: killed, drained, pushed to, ended with requests in flight.
//!
//! In: traffic whose truth is known, through Envoy with two workers and the module on the wall clock. Asked: every figure of `host-test/src/restart/` holds,
//! and four situations by hand, to the last increment. With `PHOENIX_PROMETHEUS` (`cargo xtask prometheus` prints it) a real Prometheus judges the kills too.

mod common;

use common::call::{Call, Reply, Wire};
use common::otlp::{self, FOLDED, FOLDED_CUMULATIVE, PASSING, SECOND_NS, cumulative, gauge, request};
use common::plan::document;
use common::stage::{Setup, Stage};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::prometheus;
use phoenix_host_test::restart::{self, Clients, Programs, Report};
use phoenix_host_test::shop::client::{Client, Protocol};
use phoenix_host_test::shop::run::unix_ns;
use phoenix_host_test::sink::series::Value;
use phoenix_host_test::sink::{Fault, HTTP_PATH};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

/// Scenes at a time: each has an Envoy with two workers, or two of them.
static SCENES: Semaphore = Semaphore::const_new(2);

fn programs() -> Programs {
    let prometheus = prometheus::process::find_binary().expect("PHOENIX_PROMETHEUS");
    if prometheus.is_none() {
        println!("PHOENIX_PROMETHEUS is not set: the exact sink alone judges");
    }
    let envoy = find_binary().expect("these tests need a real Envoy");
    Programs { envoy, module: common::stage::module(), prometheus }
}

async fn holds(scene: impl Future<Output = anyhow::Result<Report>>) {
    let _permit = SCENES.acquire().await.expect("a semaphore that nobody closes");
    let report = match scene.await {
        Ok(report) => report,
        Err(error) => panic!("{error:#}"),
    };
    println!("{report}");
    let broken = report.broken();
    assert!(broken.is_empty(), "{broken:#?}\n{:#?}", report.notes);
}

/// A killed Envoy loses what no accepted emission carries and the gap, and nothing else; its successor has a name of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_07_killed_and_back_under_a_new_name() {
    holds(restart::kill(&programs(), None)).await;
}

/// The same where the plan names the writer: one series, with a new start time and a reset, and no double count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_07_killed_and_back_under_the_same_name() {
    holds(restart::kill(&programs(), Some("gateway-0"))).await;
}

/// Pushes in the middle of traffic rebuild nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_07_a_push_in_traffic_rebuilds_nothing() {
    holds(restart::push(&programs())).await;
}

/// Drained by the runbook, and the clients end: nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_envoy_loses_nothing() {
    holds(restart::drain(&programs(), Clients::End)).await;
}

/// Drained by the runbook, and the clients move: nothing is lost at either gateway, and of each stream what lies between its points there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_move_lose_what_lies_between_the_gateways() {
    holds(restart::drain(&programs(), Clients::Move)).await;
}

/// Longer than the plan's margin for the first sample, 100 ms.
const BIRTH: Duration = Duration::from_millis(300);
/// How long something that must come may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// A cumulative stream of a pod of its own.
struct Counter {
    pod: String,
    start_ns: u64,
    value: i64,
}

impl Counter {
    fn new(start_ns: u64, value: i64) -> Counter {
        Counter { pod: format!("counter-{}", otlp::unique()), start_ns, value }
    }

    fn call(&mut self, by: i64, more: Vec<Metric>) -> Call {
        self.value += by;
        let mut metrics = vec![cumulative(
            FOLDED_CUMULATIVE,
            vec![],
            self.start_ns,
            unix_ns().max(self.start_ns + 1),
            self.value,
        )];
        metrics.extend(more);
        Call::http(Wire::Http1, request(&self.pod, metrics))
    }

    async fn add(&mut self, stage: &Stage, by: i64) {
        let reply = stage.call(self.call(by, vec![])).await;
        assert_eq!(status(&reply), Some(200), "{reply:?}\n{}", stage.log());
    }
}

fn status(reply: &Option<Reply>) -> Option<u16> {
    reply.as_ref().map(|reply| reply.status)
}

async fn until(what: &str, stage: &Stage, mut done: impl FnMut(&Stage) -> bool) {
    let begin = Instant::now();
    while !done(stage) {
        assert!(begin.elapsed() < PATIENCE, "{what}\n{}", stage.log());
        sleep(Duration::from_millis(50)).await;
    }
}

/// After everything has come: what was sent beside the counters is there too, nothing looks wrong to a backend, no VM has crashed.
async fn whole(mut stage: Stage) {
    assert_eq!(stage.total(FOLDED), stage.expected);
    let findings = stage.sink.books().findings();
    assert!(findings.is_empty(), "{}", findings[0]);
    stage.balance().await;
    stage.alive().await;
}

/// After a restart a stream that is older is a baseline, whatever its value; one that is born later counts from zero. To the last increment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_02_baselines_after_a_restart_and_births_after_it() {
    let mut stage = Stage::start(Setup::workers(document(), 2)).await;
    stage.good().await;
    sleep(BIRTH).await;
    let mut old = Counter::new(unix_ns() - 3_600 * SECOND_NS, 4_000_000);
    let mut young = Counter::new(unix_ns(), 0);
    old.add(&stage, 0).await;
    old.add(&stage, 10).await;
    young.add(&stage, 5).await;
    until("fifteen increments", &stage, |s| s.total(FOLDED_CUMULATIVE) == 15).await;

    stage.envoy.kill().await.expect("Envoy was killed");
    // While nobody watches: 40 and 4 increments, and a stream is born.
    let mut away = Counter::new(unix_ns(), 0);
    stage.envoy.start_again(|yaml| yaml).await.expect("Envoy is back");
    stage.good().await;
    old.add(&stage, 40).await;
    young.add(&stage, 4).await;
    away.add(&stage, 100).await;
    sleep(BIRTH).await;
    let mut newborn = Counter::new(unix_ns(), 0);
    newborn.add(&stage, 7).await;
    for (counter, by) in [(&mut old, 3), (&mut young, 1), (&mut away, 2)] {
        counter.add(&stage, by).await;
    }
    stage.total_becomes(FOLDED_CUMULATIVE, 15 + 7 + 3 + 1 + 2).await;
    let counters = stage.counters().await;
    assert_eq!((counters["baselines"], counters["resets"], counters["refused"]), (3, 0, 0), "{counters:?}");
    whole(stage).await;
}

/// SIGTERM ends Envoy at once. The request in flight gets no answer though its passing points have arrived; what waited for its answer, and the emission
/// without one, are gone with the process, and nothing of it is counted twice afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_at_once_and_takes_with_it_what_is_in_flight() {
    let mut stage = Stage::start(Setup::one_worker(document())).await;
    let mut expected = 0;
    for fault in [Fault::Hang, Fault::BookAndHang] {
        stage.good().await;
        sleep(BIRTH).await;
        let mut counter = Counter::new(unix_ns(), 0);
        counter.add(&stage, 5).await;
        expected += 5;
        until("five increments", &stage, |s| s.total(FOLDED_CUMULATIVE) == expected).await;

        stage.sink.fail_next_where(1, fault, |head| head.headers.contains_key("x-phoenix-emission"));
        counter.add(&stage, 7).await;
        until("an emission in flight", &stage, |s| s.emissions().iter().any(|r| r.fault == Some(fault)))
            .await;
        // The seven may span two windows: what is not in the emission in flight is still open.
        let carried = stage.total(FOLDED_CUMULATIVE) - expected;
        assert!((0..=7).contains(&carried) && (carried > 0) == fault.books(), "{fault:?}: {carried}");
        expected += carried;
        // Longer than anything here takes: what ends, ends without an answer.
        stage.sink.answer_after(PATIENCE);
        // A value that no other gauge has here, since that is a number which counts up.
        let of_flight = 1_000_000 + otlp::unique() as i64;
        let call = counter.call(11, vec![gauge(PASSING, of_flight)]);
        let address = stage.envoy.address();
        let in_flight = tokio::spawn(call.clone().send(address));
        until("a request in flight", &stage, |s| passing_samples(s, of_flight) == 1).await;
        let took = stage.envoy.terminate().await.expect("Envoy ends");
        println!("{fault:?}: ended {took:?} after SIGTERM");
        assert!(took < PATIENCE / 4, "it waited for answers: {took:?}");
        assert_eq!(in_flight.await.expect("no panic").map(|reply| reply.status), None, "an answer");
        assert_eq!(stage.total(FOLDED_CUMULATIVE), expected);

        stage.sink.answer_after(Duration::ZERO);
        stage.envoy.start_again(|yaml| yaml).await.expect("Envoy is back");
        // The client sends the same again: its passing point comes twice, its folded one is a baseline.
        assert_eq!(status(&stage.call(call).await), Some(200));
        assert_eq!(passing_samples(&stage, of_flight), 2);
        counter.add(&stage, 3).await;
        expected += 3;
        stage.total_becomes(FOLDED_CUMULATIVE, expected).await;
    }
}

/// How often the sample of the passing gauge with this value has arrived.
fn passing_samples(stage: &Stage, value: i64) -> usize {
    let books = stage.sink.books();
    let series = books.metric(PASSING).into_iter().flat_map(|book| book.raw.series.values());
    series.flat_map(|series| &series.samples).filter(|sample| sample.value == Value::Int(value)).count()
}

/// A drain waits for what is in flight, and a connection that stays open is served until its client has heard of it: all of it is folded, and goes out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_serves_what_is_in_flight_and_who_stays() {
    let mut stage = Stage::start(Setup::one_worker(document())).await;
    stage.good().await;
    sleep(BIRTH).await;
    let mut counters = [0; 3].map(|_| Counter::new(unix_ns(), 0));
    let address = stage.envoy.address();
    let mut staying = TcpStream::connect(address).await.expect("a connection");
    assert!(!exchange(&mut staying, &counters[1].call(5, vec![])).await.contains("connection: close"));
    let mut over_grpc = Client::new(address, Protocol::Grpc, "", 0);
    assert!(over_grpc.export(&counters[2].call(6, vec![]).body).await.is_acknowledged);

    // The drain time is a second: the answer comes when nobody can connect any more.
    stage.sink.answer_after(Duration::from_secs(3));
    let in_flight = tokio::spawn(counters[0].call(11, vec![gauge(PASSING, 1_000_000)]).send(address));
    until("a request in flight", &stage, |s| passing_samples(s, 1_000_000) == 1).await;
    stage.envoy.drain().await.expect("a drain");
    let begin = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(begin.elapsed() < PATIENCE, "it still listens");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(!in_flight.is_finished(), "not much of a test: it was answered before the drain was over");
    assert_eq!(status(&in_flight.await.expect("no panic")), Some(200));
    stage.sink.answer_after(Duration::ZERO);
    let answer = exchange(&mut staying, &counters[1].call(2, vec![])).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    // As it was told.
    drop(staying);
    let outcome = over_grpc.export(&counters[2].call(1, vec![]).body).await;
    assert!(outcome.is_acknowledged && outcome.retries == 0 && over_grpc.connections == 1, "{outcome:?}");
    // Nobody is left, since a gRPC client hears of it too (GOAWAY).
    let begin = Instant::now();
    while stage.envoy.stats("http.otlp.downstream_cx_active").await.expect("stats").values().any(|n| *n > 0) {
        assert!(begin.elapsed() < PATIENCE, "a client that does not go");
        sleep(Duration::from_millis(50)).await;
    }
    stage.total_becomes(FOLDED_CUMULATIVE, 11 + 5 + 2 + 6 + 1).await;
    whole(stage).await;
}

/// One request on a connection that stays; the head of its answer.
async fn exchange(connection: &mut TcpStream, call: &Call) -> String {
    let head = format!(
        "POST {HTTP_PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        call.body.len()
    );
    connection.write_all(&[head.as_bytes(), &call.body].concat()).await.expect("write");
    let mut answer = Vec::new();
    // The sink's answer has no body.
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let read = connection.read(&mut piece).await.expect("read");
        assert!(read > 0, "hung up: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
