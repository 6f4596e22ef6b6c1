//! Emissions on a real Envoy: immutable until a definite answer, whatever the upstream, the cluster or a push does to the calls.
//!
//! In: faults for exactly the requests that carry `x-phoenix-emission`. Asked: the same bytes come again, a definite refusal gives the increments back, and in
//! the end every total is there once. What is not proven here: emissions whose acceptance got lost on the way back (a delta sink would count them
//! twice, and must know repeated points; see the last test for cumulative series).

mod common;

use bytes::Bytes;
use common::call::{Call, Wire};
use common::otlp::{self, FOLDED, FOLDED_CUMULATIVE, cumulative, request};
use common::plan::{TENANT, document};
use common::stage::{Setup, Stage};
use http::request::Parts;
use phoenix_host_test::shop::run::unix_ns;
use phoenix_host_test::sink::{Fault, Sink};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

fn is_emission(head: &Parts) -> bool {
    head.headers.contains_key("x-phoenix-emission")
}

/// Attempts by emission; each of them had the same bytes.
fn attempts(stage: &Stage) -> BTreeMap<String, Vec<Option<Fault>>> {
    let mut bodies: BTreeMap<String, Bytes> = BTreeMap::new();
    let mut out: BTreeMap<String, Vec<Option<Fault>>> = BTreeMap::new();
    for r in stage.emissions() {
        let name = String::from_utf8_lossy(r.headers["x-phoenix-emission"].as_bytes()).into_owned();
        let first = bodies.entry(name.clone()).or_insert_with(|| r.body.clone());
        assert!(*first == r.body, "emission {name} came again with other bytes");
        out.entry(name).or_default().push(r.fault);
    }
    out
}

/// The emission that met these faults in a row and then an acceptance.
fn met(stage: &Stage, faults: &[Fault]) -> bool {
    let wanted: Vec<Option<Fault>> = faults.iter().copied().map(Some).chain([None]).collect();
    attempts(stage).values().any(|met| *met == wanted)
}

/// A cumulative stream that was born while the module watched.
struct Counter {
    pod: String,
    start_ns: u64,
    value: i64,
}

impl Counter {
    async fn born(stage: &mut Stage) -> Counter {
        stage.good().await;
        // Longer than the plan's margin for the first sample.
        sleep(Duration::from_millis(300)).await;
        Counter { pod: format!("counter-{}", otlp::unique()), start_ns: unix_ns(), value: 0 }
    }

    async fn add(&mut self, stage: &Stage, by: i64) {
        self.value += by;
        let now_ns = unix_ns().max(self.start_ns + 1);
        let metric = cumulative(FOLDED_CUMULATIVE, vec![], self.start_ns, now_ns, self.value);
        let reply = stage.call(Call::http(Wire::Http1, request(&self.pod, vec![metric]))).await;
        assert_eq!(reply.as_ref().map(|r| r.status), Some(200), "{reply:?}\n{}", stage.log());
    }
}

/// Waits until `done`, far longer than it can take.
async fn until(what: &str, stage: &Stage, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(40), "{what}\n{:?}\n{}", attempts(stage), stage.log());
        sleep(Duration::from_millis(50)).await;
    }
}

fn over_grpc() -> Value {
    let mut document = document();
    document["envoy"]["emit"]["cluster"] = json!("phoenix_emit_grpc");
    document["envoy"]["emit"]["protocol"] = json!("grpc");
    document
}

/// The faults, one row after the other; each row meets one emission, then it is taken.
async fn faults_then_taken(mut document: Value, rows: &[&[Fault]], refusal: Fault) {
    document["envoy"]["emit"]["timeout"] = json!("2s");
    let mut stage = Stage::start(Setup::one_worker(document)).await;
    let mut counter = Counter::born(&mut stage).await;
    for faults in rows {
        for fault in *faults {
            stage.sink.fail_next_where(1, *fault, is_emission);
        }
        stage.good().await;
        counter.add(&stage, 3).await;
        until(&format!("{faults:?} and then taken"), &stage, || met(&stage, faults)).await;
    }
    let retries = stage.counter("emission_retries").await;
    assert!(retries >= rows.iter().map(|r| r.len() as i64).sum(), "{retries} retries");
    assert_eq!(stage.counter("emissions_refused").await, 0);

    // Refused for good: these bytes never come again, what was in them does.
    stage.sink.fail_next_where(1, refusal, is_emission);
    stage.good().await;
    counter.add(&stage, 4).await;
    stage.counter_reaches("emissions_refused", 1).await;
    stage.good().await;
    counter.add(&stage, 5).await;
    stage.total_becomes(FOLDED_CUMULATIVE, i128::from(counter.value)).await;
    let refused = attempts(&stage).values().filter(|met| met.contains(&Some(refusal))).count();
    assert_eq!(refused, 1, "refused bytes came again: {:?}", attempts(&stage));
    assert!(attempts(&stage).values().all(|met| !met.contains(&Some(refusal)) || met.len() == 1));
    stage.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_the_same_bytes_come_until_a_definite_answer() {
    let rows: [&[Fault]; 4] =
        [&[Fault::Status(503), Fault::Status(503)], &[Fault::Hang], &[Fault::Close], &[Fault::Status(429)]];
    faults_then_taken(document(), &rows, Fault::Status(400)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_grpc_the_same_bytes_come_until_a_definite_answer() {
    let rows: [&[Fault]; 3] =
        [&[Fault::GrpcStatus(14), Fault::GrpcTrailers(14)], &[Fault::Hang], &[Fault::Close]];
    faults_then_taken(over_grpc(), &rows, Fault::GrpcStatus(3)).await;
}

/// Clusters that cannot take a call, in every way that Envoy knows: the module does not trap, keeps the emission, and sends it once it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_that_cannot_take_a_call() {
    let closed = Sink::start(Default::default()).await.expect("sink");
    let port = closed.address().port();
    drop(closed);
    let endpoint = |port: u16| {
        format!(
            "[{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}]"
        )
    };
    let cluster = |name: &str, endpoints: &str, more: &str| {
        format!(
            "  - name: {name}\n    connect_timeout: 1s\n    type: STATIC\n{more}    load_assignment: {{ cluster_name: {name}, endpoints: {endpoints} }}\n"
        )
    };
    let mut setup = Setup::one_worker(document());
    setup.clusters = [
        cluster("nobody", "[]", ""),
        cluster("refusing", &endpoint(port), ""),
        cluster("broken", &endpoint(port), "    circuit_breakers: { thresholds: [{ max_requests: 0, max_pending_requests: 0, max_connections: 0 }] }\n"),
        cluster(
            "unhealthy",
            &endpoint(port),
            "    common_lb_config: { healthy_panic_threshold: { value: 0 } }\n    health_checks: [{ timeout: 0.2s, interval: 0.2s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {} }]\n",
        ),
    ]
    .concat();
    let mut stage = Stage::start(setup).await;
    stage.good().await;
    let mut version = 1;
    for name in ["unknown", "nobody", "refusing", "broken", "unhealthy"] {
        for target in [name, "phoenix_emit"] {
            version += 1;
            let mut document = document();
            document["plan"]["version"] = json!(version);
            document["envoy"]["emit"]["cluster"] = json!(target);
            stage.push(&document).await;
            if target == name {
                let before = stage.counter("emission_retries").await;
                stage.good().await;
                stage.good().await;
                stage.counter_reaches("emission_retries", before + 2).await;
                stage.good().await;
            }
        }
        let expected = stage.expected;
        until(&format!("everything after {name}"), &stage, || stage.total(FOLDED) == expected).await;
    }
    attempts(&stage);
    stage.settle().await;
}

/// A push replaces the root context whose call hangs. It stays until the time-out has answered the call; then the new one sends the same bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_during_a_hanging_call_sends_the_same_bytes_again() {
    let mut with = document();
    with["envoy"]["emit"]["timeout"] = json!("2s");
    let mut stage = Stage::start(Setup::one_worker(with.clone())).await;
    let mut counter = Counter::born(&mut stage).await;
    for version in 2..5 {
        stage.sink.fail_next_where(1, Fault::Hang, is_emission);
        stage.good().await;
        counter.add(&stage, 7).await;
        until("the hanging call", &stage, || {
            attempts(&stage).values().filter(|met| met.contains(&Some(Fault::Hang))).count() == version - 1
        })
        .await;
        with["plan"]["version"] = json!(version);
        stage.push(&with).await;
        let expected = stage.expected;
        until("the same bytes again", &stage, || stage.total(FOLDED) == expected).await;
    }
    let hung = attempts(&stage).into_values().filter(|met| *met == [Some(Fault::Hang), None]).count();
    assert_eq!(hung, 3, "{:?}", attempts(&stage));
    stage.total_becomes(FOLDED_CUMULATIVE, i128::from(counter.value)).await;
    stage.settle().await;
}

/// A push while an accepted emission's answer is on its way: it must not come twice, since a delta series would count it twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_while_the_answer_is_on_its_way_repeats_nothing() {
    let mut with = document();
    let mut stage = Stage::start(Setup::one_worker(with.clone())).await;
    stage.good().await;
    stage.sink.answer_after(Duration::from_millis(700));
    for version in 2..6 {
        let before = stage.emissions().len();
        stage.good().await;
        until("an emission that is booked and not yet answered", &stage, || stage.emissions().len() > before)
            .await;
        with["plan"]["version"] = json!(version);
        stage.push(&with).await;
    }
    let stage = stage.settle().await;
    assert!(attempts(&stage).values().all(|met| met.len() == 1), "{:?}", attempts(&stage));
}

/// Static headers and the tenant's header arrive; one tenant's trouble is not another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_stay_apart() {
    for document in [document(), over_grpc()] {
        let mut document = document;
        document["envoy"]["emit"]["headers"] =
            json!({ "authorization": "Bearer of-the-gateway", "x-static": "a b" });
        document["envoy"]["emit"]["authority"] = json!("backend.example");
        let mut stage = Stage::start(Setup::workers(document, 2)).await;
        let of = |head: &Parts, tenant: &str| head.headers.get(TENANT).is_some_and(|v| v == tenant);
        stage.sink.fail_next_where(u64::MAX, Fault::Status(503), move |h| is_emission(h) && of(h, "unlucky"));
        let mut expected: BTreeMap<&str, i128> = BTreeMap::new();
        for tenant in ["lucky", "unlucky", "", "lucky", "unlucky", "mü"] {
            let value = otlp::unique() as i64;
            let mut call = Call::http(Wire::Http1, otlp::good(value));
            if !tenant.is_empty() {
                call = call.with(TENANT, tenant);
            }
            let reply = stage.call(call).await;
            assert_eq!(reply.as_ref().map(|r| r.status), Some(200), "{tenant}: {reply:?}");
            *expected.entry(tenant).or_default() += i128::from(value);
            stage.expected += i128::from(value);
        }
        let total = |stage: &Stage, tenant: &str| {
            let books = stage.sink.books();
            let of_tenant = books.metrics.get(&(tenant.to_owned(), FOLDED.to_owned()));
            of_tenant.map_or(0, |book| book.total(books.config.run_start_ns).ints)
        };
        until("the lucky tenant", &stage, || total(&stage, "lucky") == expected["lucky"]).await;
        assert_eq!(total(&stage, "unlucky"), 0);
        stage.sink.heal();
        let stage = stage.settle().await;
        for (tenant, expected) in &expected {
            assert_eq!(total(&stage, tenant), *expected, "{tenant}");
        }
        let mut tenants = BTreeSet::new();
        for r in stage.emissions() {
            assert_eq!(r.headers["authorization"], "Bearer of-the-gateway");
            assert_eq!(r.headers["x-static"], "a b");
            tenants.insert(r.headers.get(TENANT).map(|v| v.as_bytes().to_vec()));
        }
        // The default tenant has no name, so its emissions carry no header.
        let named = ["lucky", "mü", "unlucky"].map(|t| Some(t.as_bytes().to_vec()));
        assert_eq!(tenants.into_iter().collect::<Vec<_>>(), [&[None][..], &named].concat());
    }
}

/// An acceptance that is lost on its way back: the same bytes come again, and cumulative series do not mind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acceptance_repeats_the_very_points() {
    let mut document = document();
    document["plan"]["rules"][0]["fold"]["output_temporality"] = json!("cumulative");
    document["envoy"]["emit"]["timeout"] = json!("2s");
    let mut stage = Stage::start(Setup::one_worker(document)).await;
    for fault in [Fault::BookAndClose, Fault::BookAndHang] {
        stage.sink.fail_next_where(1, fault, is_emission);
        stage.good().await;
        until(&format!("{fault:?} and then taken"), &stage, || met(&stage, &[fault])).await;
    }
    stage.total_becomes(FOLDED, stage.expected).await;
    // A backend sees points that it has, and none that it has not.
    let books = stage.sink.books();
    for finding in books.findings() {
        let book = books.metric(&finding.metric).expect("a metric with a finding");
        let samples = &book.folded.series[&finding.series].samples;
        assert!(samples.iter().filter(|s| **s == finding.sample).count() > 1, "{finding}");
    }
    stage.balance().await;
    stage.alive().await;
}

/// A tenant whose name is not UTF-8 cannot be named in an emission: its points pass as they came, and end up with nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_cannot_be_named_passes() {
    let mut stage = Stage::start(Setup::one_worker(document())).await;
    stage.good().await;
    let before = stage.counter("other_requests").await;
    let body = otlp::folded_only(1_000_000);
    let head = format!(
        "POST /v1/metrics HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\nconnection: close\r\n{TENANT}: ",
        body.len()
    );
    let request = [head.as_bytes(), b"caf\xe9\r\n\r\n", &body].concat();
    let mut stream = TcpStream::connect(stage.envoy.address()).await.expect("connect");
    stream.write_all(&request).await.expect("write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    stage.good().await;
    stage.counter_reaches("other_requests", before + 1).await;
    // The sink books it under the name that it cannot read either; what counts is that it came raw and with its header.
    let passed: Vec<_> = stage.sink.requests();
    let passed = passed.iter().find(|r| r.headers.get(TENANT).is_some_and(|v| v.as_bytes() == b"caf\xe9"));
    assert!(passed.is_some_and(|r| r.messages == [body.clone()]), "{passed:?}");
    stage.expected += 1_000_000;
    stage.settle().await;
}

/// Folded series are stamped with who wrote them: the node's id and when the process began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writer_is_the_node() {
    let mut stage = Stage::start(Setup::one_worker(document())).await;
    stage.good().await;
    let stage = stage.settle().await;
    let books = stage.sink.books();
    for series in books.metric(FOLDED).expect("folded").folded.series.values() {
        let writer = &series.point["phoenix_writer"];
        assert!(writer.trim_start_matches('"').starts_with("phoenix-gateway@"), "{writer}");
    }
}
