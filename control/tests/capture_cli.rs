//! `phoenix capture`: what is answered well is on the disk, once; bounds hold; a backend behind it is heard.

mod tools;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use phoenix_host_test::sink::{BooksConfig, Fault, Sink};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use tools::{Folder, S, T0, bad, command, counter, files, names, text};

const HTTP: &str = "/v1/metrics";
const GRPC: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// A capture that runs.
struct Capture {
    child: Child,
    address: String,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Capture {
    fn start(arguments: &[&str]) -> Capture {
        let mut child = command()
            .args(["capture", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.strip_prefix("listening on ").unwrap().split(' ').next().unwrap().to_owned();
        Capture { child, address, lines }
    }

    /// The end of it; what it said, and whether it ended well.
    fn end(mut self) -> (bool, String) {
        let said: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        (self.child.wait().unwrap().success(), said.join("\n"))
    }

    /// Ctrl-C.
    fn interrupt(self) -> (bool, String) {
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("sh").args(["-c", "kill -INT \"$1\"", "sh", &pid]).status();
        assert!(sent.unwrap().success());
        self.end()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Reply {
    status: u16,
    grpc: Option<String>,
    body: Bytes,
}

#[derive(Clone)]
struct Exporter {
    one: Client<HttpConnector, Full<Bytes>>,
    two: Client<HttpConnector, Full<Bytes>>,
    address: String,
}

impl Exporter {
    fn new(address: &str) -> Exporter {
        Exporter {
            one: Client::builder(TokioExecutor::new()).build_http(),
            two: Client::builder(TokioExecutor::new()).http2_only(true).build_http(),
            address: address.to_owned(),
        }
    }

    async fn post(&self, path: &str, headers: &[(&'static str, &str)], body: Vec<u8>) -> Reply {
        let is_grpc = headers.iter().any(|(_, value)| value.starts_with("application/grpc"));
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("http://{}{path}", self.address).parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        if is_grpc {
            *request.version_mut() = Version::HTTP_2;
        }
        let client = if is_grpc { &self.two } else { &self.one };
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        let code = |map: &HeaderMap| map.get("grpc-status").map(|v| v.to_str().unwrap().to_owned());
        let grpc = body.trailers().and_then(code).or_else(|| code(&head.headers));
        Reply { status: head.status.as_u16(), grpc, body: body.to_bytes() }
    }

    /// One message in one of the four ways.
    async fn export(&self, way: usize, message: &[u8]) -> Reply {
        let protobuf = ("content-type", "application/x-protobuf");
        let grpc = ("content-type", "application/grpc");
        match way % 4 {
            0 => self.post(HTTP, &[protobuf], message.to_vec()).await,
            1 => self.post(HTTP, &[protobuf, ("content-encoding", "gzip")], gzip(message)).await,
            2 => self.post(GRPC, &[grpc, ("te", "trailers")], frame(message, 0)).await,
            _ => {
                let headers = [grpc, ("te", "trailers"), ("grpc-encoding", "gzip")];
                self.post(GRPC, &headers, frame(&gzip(message), 1)).await
            }
        }
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn frame(message: &[u8], flag: u8) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn is_good(reply: &Reply) -> bool {
    reply.status == 200 && reply.grpc.as_deref().is_none_or(|code| code == "0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_are_each_recorded_once_before_they_are_answered() {
    let folder = Folder::new();
    let out = folder.at("out");
    let capture = Capture::start(&["--out", &out]);
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..16u64 {
        let (exporter, out) = (Exporter::new(&capture.address), out.clone());
        senders.spawn(async move {
            for round in 0..25u64 {
                let message =
                    counter(&format!("pod-{sender}"), T0, T0 + round * S, (sender * 100 + round) as i64);
                let reply = exporter.export((sender + round) as usize, &message).await;
                assert!(is_good(&reply), "{sender} {round}: {}", reply.status);
                if round == 24 {
                    let is_there = files(&out).values().any(|body| *body == message);
                    assert!(is_there, "answered before it was on the disk");
                }
            }
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
    let (ended_well, said) = capture.interrupt();
    assert!(ended_well, "{said}");
    assert!(said.contains("recorded 400 requests"), "{said}");
    assert!(said.contains("0001 to 0400: ended by a signal\nHTTP 200, gRPC 200, gzip 200"), "{said}");
    let written = files(&out);
    assert_eq!(names(&out).len(), 800, "a body and a time each, and nothing half: {:?}", names(&out));
    let bodies: BTreeSet<&Vec<u8>> =
        written.iter().filter(|(name, _)| name.ends_with(".otlp")).map(|(_, body)| body).collect();
    assert_eq!(bodies.len(), 400);
    for sender in 0..16u64 {
        for round in 0..25u64 {
            let message =
                counter(&format!("pod-{sender}"), T0, T0 + round * S, (sender * 100 + round) as i64);
            assert!(bodies.contains(&message), "{sender} {round}");
        }
    }
    let times: Vec<u64> = written
        .iter()
        .filter(|(name, _)| name.ends_with(".time"))
        .map(|(_, time)| text(time).trim().parse().unwrap())
        .collect();
    assert!(times.is_sorted(), "arrivals go with numbers");
}

#[tokio::test]
async fn bounds_end_it_and_append_goes_on_behind() {
    let folder = Folder::new();
    let out = folder.at("out");
    let message = counter("a", T0, T0 + S, 1);
    let capture = Capture::start(&["--out", &out, "--requests", "2"]);
    let exporter = Exporter::new(&capture.address);
    for _ in 0..2 {
        assert!(is_good(&exporter.export(0, &message).await));
    }
    let (ended_well, said) = capture.end();
    assert!(ended_well && said.contains("recorded 2 requests") && said.contains("by --requests"), "{said}");

    let error = bad(&["capture", "--listen", "127.0.0.1:0", "--out", &out]);
    assert!(error.contains("--out") && error.contains("--append"), "{error}");
    let error = bad(&["capture", "--listen", "127.0.0.1:0", "--out", &out, "--append", "--bytes-max", "10"]);
    assert!(error.contains("--bytes-max 10: the folder already holds"), "{error}");

    // Room for one more, not for two.
    let room = (message.len() * 3 + 1).to_string();
    let capture = Capture::start(&["--out", &out, "--append", "--bytes-max", &room]);
    let exporter = Exporter::new(&capture.address);
    assert!(is_good(&exporter.export(0, &message).await));
    let reply = exporter.export(0, &message).await;
    assert_eq!(reply.status, 503, "what is not recorded is not answered well");
    let (ended_well, said) = capture.end();
    assert!(ended_well && said.contains("0003 to 0003: ended by --bytes-max"), "{said}");
    assert!(said.contains("not recorded: 1 request: it came when the capture ended"), "{said}");
    let names: Vec<String> = files(&out).into_keys().collect();
    assert_eq!(names, ["0001.otlp", "0001.time", "0002.otlp", "0002.time", "0003.otlp", "0003.time"]);

    let capture = Capture::start(&["--out", &folder.at("timed"), "--seconds", "1"]);
    let (ended_well, said) = capture.end();
    assert!(ended_well && said.contains("recorded 0 requests") && said.contains("by --seconds"), "{said}");
}

#[tokio::test]
async fn what_is_not_recorded_is_answered_with_a_reason() {
    let folder = Folder::new();
    let out = folder.at("out");
    let capture = Capture::start(&["--out", &out]);
    let exporter = Exporter::new(&capture.address);
    let message = counter("a", T0, T0 + S, 1);
    let protobuf = ("content-type", "application/x-protobuf");
    let grpc = ("content-type", "application/grpc");
    for (path, headers, body, status) in [
        ("/v1/traces", &[protobuf][..], message.clone(), 404),
        (HTTP, &[("content-type", "application/json")], b"{}".to_vec(), 415),
        (HTTP, &[protobuf, ("content-encoding", "zstd")], message.clone(), 415),
        (HTTP, &[protobuf, ("content-encoding", "gzip")], message.clone(), 400),
        // Recorded, and no OTLP: somebody may want to know what it was.
        (HTTP, &[protobuf], b"no protobuf".to_vec(), 400),
    ] {
        let reply = exporter.post(path, headers, body).await;
        assert_eq!(reply.status, status, "{path} {headers:?}");
    }
    for (path, body, code) in [
        ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", frame(&message, 0), "12"),
        (GRPC, frame(&message, 0)[..20].to_vec(), "3"),
        (GRPC, [frame(&message, 0), frame(&message, 0)].concat(), "3"),
        (GRPC, frame(&message, 1), "12"),
    ] {
        let reply = exporter.post(path, &[grpc], body).await;
        assert_eq!((reply.status, reply.grpc.as_deref()), (200, Some(code)), "{path}");
    }
    let (ended_well, said) = capture.interrupt();
    assert!(ended_well, "{said}");
    for line in [
        "recorded 1 request of 11 B",
        "1 body no OTLP: recorded as they came, and answered 400",
        "not recorded: 2 requests: no OTLP metrics",
        "not recorded: 1 request: OTLP in JSON",
        "not recorded: 2 requests: an encoding other than gzip",
        "not recorded: 3 requests: a body that cannot be unpacked",
    ] {
        assert!(said.contains(line), "{line:?}\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_behind_is_heard_word_for_word() {
    let folder = Folder::new();
    let out = folder.at("out");
    let sink = Sink::start(BooksConfig::default()).await.unwrap();
    sink.keep_requests();
    let capture = Capture::start(&["--out", &out, "--forward", &format!("http://{}", sink.address())]);
    let exporter = Exporter::new(&capture.address);
    let message = |n: u64| counter("a", T0, T0 + n * S, n as i64);
    for way in 0..4 {
        assert!(is_good(&exporter.export(way, &message(way as u64 + 1)).await), "{way}");
    }
    sink.fail_next(1, Fault::Status(429));
    assert_eq!(exporter.export(0, &message(5)).await.status, 429);
    sink.fail_next(1, Fault::GrpcTrailers(8));
    assert_eq!(exporter.export(2, &message(6)).await.grpc.as_deref(), Some("8"), "trailers come through");
    sink.fail_next(1, Fault::Partial(1));
    let reply = exporter.export(0, &message(7)).await;
    assert!(is_good(&reply) && !reply.body.is_empty(), "partial_success comes through");
    // What the capture itself would not record is for the backend to judge.
    let json = exporter.post(
        HTTP,
        &[("content-type", "application/json"), ("x-scope-orgid", "shop")],
        b"{}".to_vec(),
    );
    assert_eq!(json.await.status, 200);

    let received = sink.requests();
    assert_eq!(received.len(), 8);
    assert_eq!(received[1].body, gzip(&message(2)), "as it came, compressed");
    assert_eq!(received[7].headers["x-scope-orgid"], "shop");
    let (ended_well, said) = capture.interrupt();
    assert!(ended_well && said.contains("recorded 7 requests"), "{said}");

    // The port of a sink that has gone may be another test's by now: nobody listens on the first one.
    let out = folder.at("alone");
    let capture = Capture::start(&["--out", &out, "--forward", "http://127.0.0.1:1"]);
    let exporter = Exporter::new(&capture.address);
    assert_eq!(exporter.export(0, &message(8)).await.status, 502, "no backend");
    assert_eq!(exporter.export(2, &message(9)).await.grpc.as_deref(), Some("14"), "no backend");
    let (ended_well, said) = capture.interrupt();
    assert!(ended_well && said.contains("recorded 2 requests"), "{said}");
}

#[test]
fn what_is_refused_says_so() {
    let folder = Folder::new();
    let out = folder.at("out");
    for (arguments, part) in [
        (&["--listen", "nowhere"][..], "--listen"),
        (&["--forward", "https://127.0.0.1:4318"], "without TLS"),
        (&["--requests", "0"], "--requests"),
        (&["--bytes-max", "much"], "64MiB"),
    ] {
        let error = bad(&[&["capture", "--out", &out], arguments].concat());
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = bad(&["capture", "--out", &out, "--listen", &address]);
    assert!(error.contains(&format!("--listen {address}")), "{error}");
}
