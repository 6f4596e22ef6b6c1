//! The whole way, with a real Envoy: load, a mirror, a capture, a replay; and every increment of the load is in the replay's books.
//!
//! In: `envoy/mirror.yaml` as it is shipped, with other ports; `phoenix generate`, `capture` and `replay` as a user runs them. Out: the backend has what was sent, and so has
//! the capture; and a capture that is gone, or hangs, is not felt by senders.

mod tools;

use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::envoy::{Envoy, EnvoyOptions, config};
use phoenix_host_test::sink::{BooksConfig, Fault, Sink};
use serde_json::Value as Json;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;
use tools::{Folder, PLAN, command, files, good, json, text};

/// How long something that must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The port after a marker in a configuration.
fn port_after(yaml: &str, marker: &str) -> u16 {
    let rest = yaml.split_once(marker).expect(marker).1.split_once("port_value: ").expect("a port").1;
    rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).expect("a number")
}

/// An Envoy with the mirror, before `live`, copying to `capture`.
async fn mirror(live: SocketAddr, capture: SocketAddr) -> Envoy {
    let module = config::project().join("envoy/mirror.yaml");
    let options = EnvoyOptions {
        binary: find_binary().expect("these tests need a real Envoy"),
        // The mirror has no module; the helper wants a file that exists.
        module,
        plugin_config: "{}".to_owned(),
        upstream: live,
        workers: 2,
        folder: None,
        drain_seconds: 1,
    };
    let edit = |gateway: String| {
        let mut text = config::shipped("envoy/mirror.yaml").expect("shipped");
        for (default, value) in [
            ("port_value: 9903 ", port_after(&gateway, "admin:")),
            ("port_value: 6318 ", port_after(&gateway, "listeners:")),
            ("port_value: 4318 ", live.port()),
            ("port_value: 7318 ", capture.port()),
        ] {
            assert!(text.contains(default), "envoy/mirror.yaml does not hold {default:?}");
            text = text.replace(default, &format!("port_value: {value} "));
        }
        text
    };
    Envoy::start_edited(options, edit).await.expect("Envoy")
}

/// A capture that runs; ended with the test.
struct Capture(Child, SocketAddr);

impl Capture {
    fn start(out: &str) -> Capture {
        let mut child = command()
            .args(["capture", "--listen", "127.0.0.1:0", "--out", out])
            .stdout(Stdio::piped())
            .spawn()
            .expect("capture");
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut first).expect("a line");
        let address = first.split(' ').nth(2).and_then(|address| address.parse().ok()).expect("an address");
        Capture(child, address)
    }

    fn interrupt(mut self) {
        let pid = self.0.id().to_string();
        let sent = std::process::Command::new("sh").args(["-c", "kill -INT \"$1\"", "sh", &pid]).status();
        assert!(sent.expect("sh").success());
        assert!(self.0.wait().expect("capture").success());
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn generate(arguments: Vec<String>) -> (bool, String) {
    let run = tokio::task::spawn_blocking(move || command().arg("generate").args(arguments).output());
    let output = run.await.expect("a task").expect("generate");
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

fn arguments(endpoint: SocketAddr, report: &str, more: &[&str]) -> Vec<String> {
    let endpoint = format!("http://{endpoint}");
    let own = ["--endpoint", &endpoint, "--json", report, "--duration", "3s", "--interval", "1s"];
    own.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
}

/// Waits until the capture has so many bodies: copies come a moment after their requests.
async fn bodies(out: &str, count: usize) {
    let begin = tokio::time::Instant::now();
    let there = || files(out).keys().filter(|name| name.ends_with(".otlp") && !name.starts_with('.')).count();
    while there() < count {
        assert!(begin.elapsed() < PATIENCE, "{} of {count} were captured", there());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_through_a_mirror_is_captured_and_replays_with_every_increment() {
    let folder = Folder::new();
    let plan = folder.file("plan.json", PLAN);
    for (name, protocol) in
        [("http", &["--protocol", "http", "--gzip"][..]), ("grpc", &["--protocol", "grpc"])]
    {
        let (out, report, replayed) =
            (folder.at(name), folder.at("report.json"), folder.at(&format!("{name}-out")));
        let sink = Sink::start(BooksConfig::default()).await.expect("sink");
        let capture = Capture::start(&out);
        let envoy = mirror(sink.address(), capture.1).await;
        let more = [protocol, &["--preset", "complex", "--streams", "400"]].concat();
        let (is_good, shown) = generate(arguments(envoy.address(), &report, &more)).await;
        assert!(is_good, "{name}: {shown}");
        let report = json(&report);
        let requests = report["requests"].as_u64().expect("requests");
        assert_eq!(sink.counts().booked, requests, "{name}: the backend has what was sent");
        bodies(&out, requests as usize).await;
        capture.interrupt();
        good(&["replay", "--plan", &plan, "--in", &out, "--out", &replayed, "--began-before", "1m"]);
        let ledger = json(&format!("{replayed}/ledger.json"));
        assert_eq!((&ledger["conserved"], &ledger["errors"]), (&true.into(), &Json::Array(Vec::new())));
        assert_eq!(ledger["requests"]["read"], requests);
        let mut compared = 0;
        for made in report["metrics"].as_array().expect("metrics") {
            let find = |line: &&Json| line["metric"] == made["metric"];
            let folded =
                ledger["metrics"].as_array().expect("metrics").iter().find(find).expect("in the replay");
            assert_eq!(made["points"], folded["points_in"], "{name}: {}", made["metric"]);
            if matches!(made["type"].as_str(), Some("sum" | "delta sum")) {
                assert_eq!(made["increments"]["int"], folded["written"]["int"], "{name}: {}", made["metric"]);
                compared += 1;
            }
        }
        assert_eq!(compared, 3, "counters of the preset");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_that_is_gone_or_hangs_is_not_felt() {
    let folder = Folder::new();
    let report = folder.at("report.json");
    let sink = Sink::start(BooksConfig::default()).await.expect("sink");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    // In the place of the capture: one that takes every request and never answers.
    let hanging = Sink::start(BooksConfig::default()).await.expect("sink");
    hanging.fail_next(1_000_000, Fault::Hang);
    for (what, capture) in [("gone", gone), ("hangs", hanging.address())] {
        let envoy = mirror(sink.address(), capture).await;
        let before = sink.counts().booked;
        // More requests than the mirror may have on their way.
        let more = ["--pods", "100", "--requests-per-second", "100", "--protocol", "http"];
        let own = arguments(envoy.address(), &report, &[]);
        let own: Vec<String> =
            own.into_iter().filter(|argument| argument != "--interval" && argument != "1s").collect();
        let all = own.into_iter().chain(more.map(str::to_owned)).collect();
        let (is_good, shown) = generate(all).await;
        assert!(is_good, "{what}: {shown}");
        let report = json(&report);
        assert_eq!(report["answers"]["accepted"], 300, "{what}");
        assert_eq!(sink.counts().booked - before, 300, "{what}");
        let stats = envoy.stats("cluster.capture.upstream_rq_pending_overflow").await.expect("stats");
        let dropped: i64 = stats.values().sum();
        println!("{what}: {dropped} copies dropped");
        if capture == hanging.address() {
            assert!(dropped > 0, "the circuit breaker says what a capture that hangs may hold: {stats:?}");
        }
    }
    let copies = hanging.counts().requests;
    assert!((1..300).contains(&copies), "the control: copies were made, and not all of them: {copies}");
}
