//! `phoenix generate`: the same seed makes the same bytes, the books are exactly what was written, the load waits for nobody, and bad scenarios are named.

mod tools;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use phoenix_host_test::sink::{BooksConfig, Fault, Sink};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Barrier};
use tools::{Folder, PLAN, T0, bad, command, files, good, json, messages, phoenix, text};

/// Everything that can happen to a label or a stream, in three minutes.
const EVENTFUL: &str = "
seed: 42
streams: 900
interval: 7s
points_per_request: 120
resets: 0.3
diurnal: { period: 2m, low: 0.1 }
services:
- { name: web, pods: 3, deploy_wave: 65s }
- { name: db, pods: 2, attributes: { k8s.namespace.name: back } }
metrics:
- { name: ints, type: sum, share: 4, rate: 900, labels: [{ name: route, values: 30, zipf: 1.3 }, { name: user, values: 9, churn: 0.7 }] }
- { name: doubles, type: sum, number: double, rate: 3, labels: [{ name: route, values: 40 }] }
- { name: deltas, type: sum, temporality: delta, rate: 0.05, labels: [{ name: route, values: 40, runaway: { after: 20s, per_second: 3, max: 300 } }] }
- { name: delta.doubles, type: sum, temporality: delta, number: double, rate: 2, labels: [{ name: route, values: 40 }] }
- { name: up.down, type: up_down_counter, rate: 9, labels: [{ name: route, values: 40, churn: 0.2 }] }
- { name: delta.up.down, type: up_down_counter, temporality: delta, rate: 9, labels: [{ name: route, values: 40 }] }
- { name: level, type: gauge, number: double, services: [db], labels: [{ name: queue, values: [a, b, c] }] }
- { name: buckets, type: histogram, rate: 200, labels: [{ name: route, values: 20 }], bounds: [0.1, 1, 10] }
- { name: delta.buckets, type: histogram, temporality: delta, rate: 0.1, labels: [{ name: route, values: 20 }] }
- { name: exponential, type: exponential_histogram, rate: 5, labels: [{ name: route, values: 20 }], scale: 4 }
- { name: delta.exponential, type: exponential_histogram, temporality: delta, rate: 5, labels: [{ name: route, values: 20 }] }
- { name: quantiles, type: summary, rate: 5, labels: [{ name: route, values: 20 }] }
";

/// What a metric was, summed up again from the bytes, in plain code that shares nothing with the generator.
#[derive(Debug, Default, PartialEq)]
struct Again {
    points: u64,
    streams: BTreeSet<String>,
    /// Integers; observations of histograms and summaries.
    ints: i128,
    doubles: f64,
    /// Of cumulative streams: the value under each start.
    last: BTreeMap<(String, u64), (i128, f64)>,
}

impl Again {
    /// `alone`: the point stands alone (delta); else it replaces the one before it under the same start.
    fn add(&mut self, who: String, start: u64, ints: i128, doubles: f64, alone: bool) {
        self.points += 1;
        self.streams.insert(who.clone());
        if alone {
            self.ints += ints;
            self.doubles += doubles;
        } else {
            self.last.insert((who, start), (ints, doubles));
        }
    }

    fn totals(&self) -> (i128, f64) {
        let ints = self.last.values().map(|(ints, _)| ints).sum::<i128>();
        (self.ints + ints, self.doubles + self.last.values().map(|(_, doubles)| doubles).sum::<f64>())
    }
}

fn who(resource: &[KeyValue], attributes: &[KeyValue]) -> String {
    let mut labels: Vec<String> =
        resource.iter().chain(attributes).map(|label| format!("{label:?}")).collect();
    labels.sort();
    labels.concat()
}

/// Points whose streams are counted with a delta temporality stand alone.
const DELTA: i32 = 1;

fn again(requests: &[ExportMetricsServiceRequest]) -> BTreeMap<String, Again> {
    let mut all: BTreeMap<String, Again> = BTreeMap::new();
    for resource in requests.iter().flat_map(|request| &request.resource_metrics) {
        let of = &resource.resource.as_ref().unwrap().attributes;
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let book = all.entry(metric.name.clone()).or_default();
            let number = |value: &Option<Value>| match value.as_ref().unwrap() {
                Value::AsInt(value) => (i128::from(*value), 0.0),
                Value::AsDouble(value) => (0, *value),
            };
            match metric.data.as_ref().unwrap() {
                Data::Sum(sum) => sum.data_points.iter().for_each(|p| {
                    let (ints, doubles) = number(&p.value);
                    let alone = sum.aggregation_temporality == DELTA;
                    book.add(who(of, &p.attributes), p.start_time_unix_nano, ints, doubles, alone);
                }),
                Data::Gauge(gauge) => {
                    gauge.data_points.iter().for_each(|p| book.add(who(of, &p.attributes), 0, 0, 0.0, true));
                }
                Data::Histogram(h) => h.data_points.iter().for_each(|p| {
                    assert_eq!(p.count, p.bucket_counts.iter().sum::<u64>());
                    assert_eq!(p.bucket_counts.len(), p.explicit_bounds.len() + 1);
                    let alone = h.aggregation_temporality == DELTA;
                    let (count, sum) = (i128::from(p.count), p.sum.unwrap());
                    book.add(who(of, &p.attributes), p.start_time_unix_nano, count, sum, alone);
                }),
                Data::ExponentialHistogram(h) => h.data_points.iter().for_each(|p| {
                    let buckets = p.positive.iter().flat_map(|b| &b.bucket_counts).sum::<u64>();
                    assert_eq!(p.count, p.zero_count + buckets);
                    let alone = h.aggregation_temporality == DELTA;
                    let (count, sum) = (i128::from(p.count), p.sum.unwrap());
                    book.add(who(of, &p.attributes), p.start_time_unix_nano, count, sum, alone);
                }),
                Data::Summary(s) => s.data_points.iter().for_each(|p| {
                    let count = i128::from(p.count);
                    book.add(who(of, &p.attributes), p.start_time_unix_nano, count, p.sum, false);
                }),
            }
        }
    }
    all
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(other.abs()).max(1e-9)
}

/// The report says exactly what the bytes say.
fn assert_exact(report: &Json, requests: &[ExportMetricsServiceRequest]) {
    let again = again(requests);
    let metrics = report["metrics"].as_array().unwrap();
    assert_eq!(report["requests"], requests.len());
    for said in metrics {
        let name = said["metric"].as_str().unwrap();
        let Some(book) = again.get(name) else {
            assert_eq!(said["points"], 0, "{name}");
            continue;
        };
        assert_eq!(said["points"], book.points, "{name}: points");
        assert_eq!(said["streams"], book.streams.len(), "{name}: distinct streams");
        let (ints, doubles) = book.totals();
        if let Some(increments) = said["increments"].as_object() {
            assert_eq!(increments["int"], ints.to_string(), "{name}: integers, exactly");
            let value = increments["value"].as_f64().unwrap();
            assert!(near(value, ints as f64 + doubles), "{name}: {value} {ints} {doubles}");
        }
        if let Some(observations) = said["observations"].as_u64() {
            assert_eq!(i128::from(observations), ints, "{name}: observations, exactly");
            let sum = said["observed_sum"].as_f64().unwrap();
            assert!(near(sum, doubles), "{name}: sum {sum} {doubles}");
        }
    }
    assert_eq!(again.len(), metrics.iter().filter(|said| said["points"] != 0).count());
}

#[test]
fn the_books_are_exactly_what_was_written() {
    let folder = Folder::new();
    let scenario = folder.file("eventful.yaml", EVENTFUL);
    let (to, report) = (folder.at("to"), folder.at("report.json"));
    good(&["generate", "--scenario", &scenario, "--to", &to, "--duration", "3m", "--json", &report]);
    let report = json(&report);
    let requests = messages(&to);
    assert_exact(&report, &requests);
    let bodies = files(&to);
    let bytes: usize =
        bodies.iter().filter(|(name, _)| name.ends_with(".otlp")).map(|(_, body)| body.len()).sum();
    assert_eq!(report["bytes"], bytes);
    // The scenario's events did happen, else little was shown.
    let streams = |name: &str| {
        let metrics = report["metrics"].as_array().unwrap();
        metrics.iter().find(|said| said["metric"] == name).unwrap()["streams"].as_u64().unwrap()
    };
    assert!(streams("ints") > 3 * 300, "churn and deploys: {}", streams("ints"));
    assert!(streams("deltas") > 100 + 200, "a runaway: {}", streams("deltas"));
    let starts: BTreeSet<u64> = again(&requests)["buckets"].last.keys().map(|(_, start)| *start).collect();
    assert!(starts.len() > 5, "resets: {starts:?}");
    assert!(requests.iter().all(|request| {
        let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
        let points = scopes.flat_map(|scope| &scope.metrics).map(|metric| match &metric.data {
            Some(Data::Sum(sum)) => sum.data_points.len(),
            _ => 0,
        });
        points.sum::<usize>() <= 120
    }));
}

#[test]
fn the_same_seed_makes_the_same_bytes_and_another_seed_others() {
    let folder = Folder::new();
    let scenario = folder.file("eventful.yaml", EVENTFUL);
    let run = |name: &str, seed: &str| {
        let to = folder.at(name);
        good(&["generate", "--scenario", &scenario, "--to", &to, "--duration", "40s", "--seed", seed]);
        files(&to)
    };
    let (one, same, other) = (run("one", "7"), run("same", "7"), run("other", "8"));
    assert!(one == same, "the same seed");
    assert_eq!(one.len(), other.len(), "a seed changes what is in requests, not when they go");
    let differing =
        one.iter().filter(|(name, body)| name.ends_with(".otlp") && other[*name] != **body).count();
    assert_eq!(differing, one.len() / 2, "every body differs under another seed");
    assert_eq!(text(&one["0001.time"]).trim().parse::<u64>().unwrap(), T0 + 7_000_000_000 / 5);
}

#[test]
fn what_was_written_replays_with_every_increment() {
    let folder = Folder::new();
    let scenario = folder.file("eventful.yaml", EVENTFUL);
    let (to, report, out) = (folder.at("to"), folder.at("report.json"), folder.at("out"));
    let plan = folder.file("plan.json", PLAN);
    good(&["generate", "--scenario", &scenario, "--to", &to, "--duration", "3m", "--json", &report]);
    good(&["replay", "--plan", &plan, "--in", &to, "--out", &out, "--began-before", "1m"]);
    let (report, ledger) = (json(&report), json(&format!("{out}/ledger.json")));
    let of = |document: &Json, name: &str| -> Json {
        let metrics = document["metrics"].as_array().unwrap();
        metrics.iter().find(|metric| metric["metric"] == name).unwrap().clone()
    };
    for name in ["ints", "deltas"] {
        let (made, folded) = (of(&report, name), of(&ledger, name));
        assert_eq!(made["increments"]["int"], folded["page"]["increments_in"]["int"], "{name}");
        assert_eq!(made["increments"]["int"], folded["written"]["int"], "{name}: as it lies on the disk");
        assert_eq!(folded["verdict"], "conserved");
        assert_eq!(made["streams"], folded["streams"], "{name}");
    }
    for name in ["doubles", "delta.doubles"] {
        let (made, folded) = (of(&report, name), of(&ledger, name));
        let value = |of: &Json| of["value"].as_f64().unwrap();
        assert!(near(value(&made["increments"]), value(&folded["written"])), "{name}");
    }
}

/// A server that answers nobody until it has `all` requests: a load that waited for answers would never get there.
fn withholding(all: usize) -> (std::thread::JoinHandle<Vec<usize>>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let barrier = Arc::new(Barrier::new(all));
    let server = std::thread::spawn(move || {
        let one = |barrier: Arc<Barrier>| {
            let (mut stream, _) = listener.accept().unwrap();
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut buffer = [0; 4096];
                let length = loop {
                    let read = stream.read(&mut buffer).unwrap();
                    assert!(read > 0, "the connection ended before its request");
                    seen.extend_from_slice(&buffer[..read]);
                    let whole = String::from_utf8_lossy(&seen);
                    let Some((head, _)) = whole.split_once("\r\n\r\n") else { continue };
                    let head = head.to_lowercase();
                    let length = head.split_once("content-length: ").unwrap().1;
                    let length: usize = length.lines().next().unwrap().parse().unwrap();
                    if seen.len() >= head.len() + 4 + length {
                        break length;
                    }
                };
                barrier.wait();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .unwrap();
                length
            })
        };
        let connections: Vec<_> = (0..all).map(|_| one(barrier.clone())).collect();
        connections.into_iter().map(|connection| connection.join().unwrap()).collect()
    });
    (server, endpoint)
}

#[test]
fn the_load_waits_for_no_answer() {
    let folder = Folder::new();
    let (server, endpoint) = withholding(30);
    let report = folder.at("report.json");
    // Ten pods, each three times: thirty requests, of which none is answered before the last has come.
    good(&[
        "generate",
        "--pods",
        "10",
        "--interval",
        "500ms",
        "--duration",
        "1500ms",
        "--endpoint",
        &endpoint,
        "--timeout",
        "5m",
        "--json",
        &report,
    ]);
    let lengths = server.join().unwrap();
    let report = json(&report);
    assert_eq!(lengths.iter().sum::<usize>(), report["bytes"], "what the server got");
    assert_eq!(report["answers"]["accepted"], 30);
}

#[test]
fn more_than_may_be_on_their_way_are_not_sent_and_counted() {
    let folder = Folder::new();
    // Two of ten requests may be out, and they are answered once both have come: whatever else happens, sent and unsent are ten.
    let (server, endpoint) = withholding(2);
    let report = folder.at("report.json");
    let output = phoenix(&[
        "generate",
        "--pods",
        "10",
        "--interval",
        "10ms",
        "--duration",
        "10ms",
        "--endpoint",
        &endpoint,
        "--in-flight-max",
        "1",
        "--timeout",
        "1s",
        "--json",
        &report,
    ]);
    assert!(!output.status.success(), "not everything was sent");
    let report = json(&report);
    let (sent, unsent) =
        (report["requests"].as_u64().unwrap(), report["answers"]["unsent_requests"].as_u64().unwrap());
    assert_eq!(sent + unsent, 10);
    assert!(unsent > 0 && text(&output.stdout).contains("Not sent: "), "{}", text(&output.stdout));
    // Let the server go, if it still waits for its second request.
    let address = endpoint.trim_start_matches("http://").to_owned();
    let request = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
    while !server.is_finished() {
        let Ok(mut stream) = std::net::TcpStream::connect(&address) else { break };
        let _ = stream.write_all(request);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Runs `phoenix` beside a sink that runs in this process.
fn beside(runtime: &tokio::runtime::Runtime, arguments: &[&str]) -> (bool, String) {
    let _guard = runtime.enter();
    let output = command().args(arguments).output().unwrap();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn a_sink_that_counts_exactly_agrees_over_every_protocol() {
    let folder = Folder::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scenario = folder.file("eventful.yaml", EVENTFUL.replace("interval: 7s", "interval: 500ms"));
    for protocol in [&["--protocol", "http"][..], &["--protocol", "grpc"]] {
        for gzip in [&[][..], &["--gzip"]] {
            let sink = runtime
                .block_on(Sink::start(BooksConfig { run_start_ns: T0, ..BooksConfig::default() }))
                .unwrap();
            sink.keep_requests();
            let (endpoint, report) = (format!("http://{}", sink.address()), folder.at("report.json"));
            let arguments = [
                &[
                    "generate",
                    "--scenario",
                    &scenario,
                    "--duration",
                    "2s",
                    "--endpoint",
                    &endpoint,
                    "--json",
                    &report,
                ][..],
                &["--start", "2026-01-01T00:00:00Z", "--header", "x-scope-orgid=shop"],
                protocol,
                gzip,
            ];
            let (is_good, shown) = beside(&runtime, &arguments.concat());
            assert!(is_good, "{protocol:?} {gzip:?}\n{shown}");
            let received = sink.requests();
            assert!(received.iter().all(|request| request.headers["x-scope-orgid"] == "shop"));
            let messages: Vec<_> = received
                .iter()
                .flat_map(|request| &request.messages)
                .map(|message| prost::Message::decode(message.clone()).unwrap())
                .collect::<Vec<ExportMetricsServiceRequest>>();
            // Answers may overtake each other on their way in; what was sent may not depend on that.
            let mut in_order = messages;
            in_order.sort_by_key(newest);
            assert_exact(&json(&report), &in_order);
            assert_eq!(json(&report)["answers"]["accepted"], received.len());
        }
    }
}

fn newest(request: &ExportMetricsServiceRequest) -> u64 {
    let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
    let sums = scopes.flat_map(|scope| &scope.metrics).map(|metric| match metric.data.as_ref().unwrap() {
        Data::Sum(data) => data.data_points[0].time_unix_nano,
        Data::Gauge(data) => data.data_points[0].time_unix_nano,
        Data::Histogram(data) => data.data_points[0].time_unix_nano,
        Data::ExponentialHistogram(data) => data.data_points[0].time_unix_nano,
        Data::Summary(data) => data.data_points[0].time_unix_nano,
    });
    sums.max().unwrap()
}

#[test]
fn bad_answers_are_counted_by_kind_and_nothing_is_sent_twice() {
    let folder = Folder::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (protocol, faults) in [
        ("http", [Fault::Status(503), Fault::Partial(3), Fault::Close, Fault::Hang]),
        ("grpc", [Fault::GrpcStatus(14), Fault::Partial(3), Fault::Close, Fault::Hang]),
    ] {
        let sink = runtime.block_on(Sink::start(BooksConfig::default())).unwrap();
        for fault in faults {
            sink.fail_next(1, fault);
        }
        let (endpoint, report) = (format!("http://{}", sink.address()), folder.at("report.json"));
        let (is_good, shown) = beside(
            &runtime,
            &[
                "generate",
                "--pods",
                "10",
                "--interval",
                "1s",
                "--duration",
                "1s",
                "--endpoint",
                &endpoint,
                "--protocol",
                protocol,
                "--timeout",
                "2s",
                "--connections",
                "1",
                "--json",
                &report,
            ],
        );
        assert!(!is_good, "{shown}");
        let answers = &json(&report)["answers"];
        let count = |field: &str| answers[field].as_u64().unwrap();
        assert_eq!(sink.counts().requests, 10, "{protocol}: no retries\n{shown}");
        assert_eq!(
            (count("accepted"), count("refused"), count("unanswered")),
            (7, 1, 2),
            "{protocol}\n{shown}"
        );
        assert_eq!((count("partial_success"), count("rejected_points")), (1, 3), "{protocol}\n{shown}");
        for said in ["partial_success: rejected", "no answer within 2s"] {
            assert!(shown.contains(said), "{said}\n{shown}");
        }
        let metric = &json(&report)["metrics"][0];
        let by = |fate: &str| metric[fate].as_u64().unwrap();
        assert_eq!(
            by("accepted_points") + by("refused_points") + by("unanswered_points"),
            metric["points"].as_u64().unwrap()
        );
    }
}

#[test]
fn what_is_refused_says_field_value_and_what_is_allowed() {
    let folder = Folder::new();
    let to = folder.at("to");
    let scenario = |replace: &str, by: &str| {
        assert!(EVENTFUL.contains(replace), "{replace}");
        let file = folder.file("bad.yaml", EVENTFUL.replacen(replace, by, 1));
        bad(&["generate", "--scenario", &file, "--to", &to])
    };
    for (replace, by, parts) in [
        ("streams: 900", "stream: 900", &["bad.yaml", "unknown field `stream`", "points_per_request"][..]),
        ("pods: 3", "pod: 3", &["bad.yaml", "unknown field `pod`", "deploy_wave"]),
        ("zipf: 1.3", "zipf: 9", &["bad.yaml", "metrics[0].labels[0].zipf: value 9", "0 to 5"]),
        ("churn: 0.7", "churn: -1", &["metrics[0].labels[1].churn: value -1", "0 to 60"]),
        ("resets: 0.3", "resets: 61", &["resets: value 61", "0 to 60"]),
        ("interval: 7s", "interval: 7d", &["bad.yaml", "a duration", "15s"]),
        ("interval: 7s", "interval: 2h", &["interval: value 2h", "10ms to 1h"]),
        (
            "interval: 7s",
            "interval: 7s\npoints_per_second: 5",
            &["interval, points_per_second", "one of them"],
        ),
        ("services: [db]", "services: [dbs]", &["metrics[6].services: value \"dbs\"", "db, web"]),
        ("type: gauge", "type: gage", &["bad.yaml", "unknown variant `gage`", "exponential_histogram"]),
        ("bounds: [0.1, 1, 10]", "bounds: [1, 0.1]", &["metrics[7].bounds", "above the one before"]),
        ("name: doubles", "name: ints", &["metrics[1].name: value \"ints\"", "a name of its own"]),
        ("streams: 900", "streams: 999999", &["streams: value 999999", "allowed: 1 to "]),
        ("values: [a, b, c]", "values: {a: 1}", &["bad.yaml", "a list of them, such as [GET, POST]"]),
        ("values: [a, b, c]", "values: 0", &["metrics[6].labels[0].values: value 0", "1 to 1000000"]),
        ("values: [a, b, c]", "values: [a, b, a]", &["metrics[6].labels[0].values", "each value once"]),
        ("scale: 4", "scale: -5", &["metrics[9].scale: value -5", "-4 to 20"]),
    ] {
        let error = scenario(replace, by);
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        assert!(!std::path::Path::new(&to).exists(), "refused before anything was written");
    }
    let flags = |arguments: &[&str], part: &str| {
        let error = bad(&[&["generate"], arguments].concat());
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    };
    flags(&["--to", &to, "--mix", "sum=1,sums=2"], "type \"sums\" is not allowed; allowed: sum, sum_double");
    flags(&["--to", &to, "--mix", "sum=x"], "weight \"x\" of sum is not allowed");
    flags(
        &["--to", &to, "--pods", "3", "--preset", "complex"],
        "--pods: value 3 is not allowed; allowed: at least 7",
    );
    flags(&["--to", &to, "--interval", "1s", "--points-per-second", "4"], "cannot be used with");
    flags(&["--to", &to, "--points-per-second", "0.01"], "points_per_second: value 0.01 is not allowed");
    flags(&["--to", &to, "--endpoint", "http://127.0.0.1:1"], "cannot be used with");
    flags(&["--scenario", &folder.at("none.yaml")], "none.yaml: No such file");
    flags(&["--endpoint", "https://127.0.0.1:1"], "without TLS");
    // Of the addresses for documentation: refused before anything is sent.
    flags(&["--endpoint", "http://192.0.2.1:4318"], "--allow-remote");
    folder.file("full/notes.txt", "mine");
    flags(&["--to", &folder.at("full")], "--force");
}

#[test]
fn presets_can_be_printed_and_read_back() {
    let folder = Folder::new();
    for preset in ["simple", "complex"] {
        let printed = good(&["generate", "--preset", preset, "--print"]);
        let file = folder.file("mine.yaml", &printed);
        let (one, two) = (folder.at(&format!("{preset}-1")), folder.at(&format!("{preset}-2")));
        good(&["generate", "--preset", preset, "--to", &one, "--duration", "30s"]);
        good(&["generate", "--scenario", &file, "--to", &two, "--duration", "30s"]);
        assert!(files(&one) == files(&two), "{preset}");
    }
}

#[test]
fn flags_are_laid_over_the_scenario() {
    let folder = Folder::new();
    let run = |name: &str, flags: &[&str]| {
        let (to, report) = (folder.at(name), folder.at("report.json"));
        good(&[&["generate", "--to", &to, "--duration", "1m", "--json", &report], flags].concat());
        json(&report)
    };
    let report = run("1", &["--streams", "60", "--points-per-second", "12"]);
    assert_eq!(report["interval_ns"], "5000000000", "60 streams, 12 points a second");
    assert_eq!(report["points"], 60 * 12);
    let report = run("2", &["--pods", "4", "--requests-per-second", "2"]);
    assert_eq!((&report["interval_ns"], &report["requests"]), (&"2000000000".into(), &120.into()));
    let report = run("3", &["--mix", "sum=3,gauge=1", "--streams", "400"]);
    let streams: Vec<&Json> = report["metrics"].as_array().unwrap().iter().map(|m| &m["streams"]).collect();
    assert_eq!(streams, [300, 100]);
    let report = run("4", &["--deploy-wave", "30s"]);
    assert_eq!(
        report["metrics"][0]["streams"], 220,
        "waves at 0 and 30 s, and at 60 s the pod that exports then"
    );
    let report = run("5", &["--runaway", "2", "--runaway-after", "10s"]);
    let streams = report["metrics"][0]["streams"].as_u64().unwrap();
    // Those of the last interval, ten, are partly still to be exported.
    assert!((190..=200).contains(&streams), "two a second for fifty seconds: {streams}");
    let report = run("6", &["--churn", "0.5"]);
    let streams = report["metrics"][0]["streams"].as_u64().unwrap();
    assert!((140..=150).contains(&streams), "half of the streams in a minute: {streams}");
}
