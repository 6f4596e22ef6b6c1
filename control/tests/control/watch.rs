//! Logs as JSON, and traces of the loop in a sink that decodes what really came.

use super::host::{Control, PATIENCE, now_ns, stage, streams, text};
use crate::tools::report;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Spans by trace.
type Traces = BTreeMap<Vec<u8>, Vec<Span>>;
/// Attributes by key.
type Attributes = Vec<(String, Option<Any>)>;

/// An OTLP endpoint that keeps what it is sent.
struct Sink {
    url: String,
    all: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Sink {
    fn start() -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let all = Arc::<Mutex<Vec<_>>>::default();
        let kept = all.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, kept) = (BufReader::new(stream.unwrap()), kept.clone());
                std::thread::spawn(move || {
                    while let Some(body) = request(&mut stream) {
                        kept.lock().unwrap().push(ExportTraceServiceRequest::decode(&body[..]).unwrap());
                        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        stream.get_mut().write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
        Sink { url, all }
    }

    /// Spans by trace, and the resource's attributes.
    fn traces(&self) -> (Traces, Attributes) {
        let (mut traces, mut resource) = (Traces::new(), Attributes::new());
        for of in self.all.lock().unwrap().iter().flat_map(|it| &it.resource_spans) {
            resource = of
                .resource
                .iter()
                .flat_map(|it| &it.attributes)
                .map(|it| (it.key.clone(), it.value.clone().and_then(|it| it.value)))
                .collect();
            for span in of.scope_spans.iter().flat_map(|it| &it.spans) {
                traces.entry(span.trace_id.clone()).or_default().push(span.clone());
            }
        }
        (traces, resource)
    }
}

/// The body of one request in protobuf to `/v1/traces`.
fn request(stream: &mut impl std::io::BufRead) -> Option<Vec<u8>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.trim().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    Some(body)
}

fn number(span: &Span, key: &str) -> f64 {
    let value = span.attributes.iter().find(|it| it.key == key).and_then(|it| it.value.clone()?.value);
    match value {
        Some(Any::IntValue(value)) => value as f64,
        Some(Any::DoubleValue(value)) => value,
        other => panic!("{key} of {}: {other:?}", span.name),
    }
}

#[test]
fn a_turn_is_a_trace_with_a_span_for_each_stage() {
    let sink = Sink::start();
    let (folder, policy) = stage("auto");
    let control = Control::start(folder.path(), &["--otlp-traces", &sink.url]);
    let body = report("gateway-a@1", 0, 1, now_ns(), &policy, &streams()).encode_to_vec();
    assert_eq!(control.report(&body).0, 202);
    let begin = Instant::now();
    let whole = |spans: &[Span]| spans.len() == 5;
    let (traces, resource) = loop {
        let (traces, resource) = sink.traces();
        let decided = |spans: &Vec<Span>| {
            whole(spans) && spans.iter().any(|it| it.name == "decide" && number(it, "decisions") > 0.0)
        };
        if traces.values().filter(|it| whole(it)).count() >= 3 && traces.values().any(decided) {
            break (traces, resource);
        }
        assert!(begin.elapsed() < PATIENCE, "{traces:#?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let name = resource.iter().find(|(key, _)| key == "service.name").and_then(|(_, it)| it.clone());
    assert_eq!(name, Some(Any::StringValue("phoenix-control".to_owned())));
    let mut saw = 0.0_f64;
    for spans in traces.values().filter(|it| whole(it)) {
        let of = |name: &str| {
            let mut found = spans.iter().filter(|it| it.name == name);
            let span = found.next().unwrap_or_else(|| panic!("{name}: {spans:#?}"));
            assert!(found.next().is_none(), "{name} twice in one trace: {spans:#?}");
            span
        };
        let turn = of("turn");
        assert_eq!(turn.parent_span_id, [0; 0], "one root");
        assert!(number(turn, "number") >= 1.0);
        let mut at_ns = turn.start_time_unix_nano;
        for name in ["collect", "estimate", "decide", "publish"] {
            let span = of(name);
            assert_eq!(span.parent_span_id, turn.span_id);
            assert!(at_ns <= span.start_time_unix_nano, "{name} in its order");
            at_ns = span.end_time_unix_nano;
        }
        assert!(at_ns <= turn.end_time_unix_nano);
        assert!(number(of("collect"), "report_bytes") >= 0.0);
        assert!(number(of("publish"), "nodes") >= 1.0);
        assert!(number(of("decide"), "plan_version") >= 1.0);
        saw = saw.max(number(of("estimate"), "active_series"));
        let text = format!("{spans:?}");
        assert!(!text.contains("requests") && !text.contains("gateway"), "no names that were sent: {text}");
    }
    assert!((900.0..1_100.0).contains(&saw), "what was reported: {saw}");
}

#[test]
fn traces_stay_on_this_machine() {
    for url in ["http://192.0.2.1:4318", "https://localhost:4318", "ftp://localhost", "localhost:4318"] {
        let (folder, _) = stage("observe");
        let said = Command::new(env!("CARGO_BIN_EXE_phoenix"))
            .args(["control", "--otlp-traces", url, "--policy"])
            .arg(folder.path().join("policy.yaml"))
            .arg("--state")
            .arg(folder.path().join("state.redb"))
            .output()
            .unwrap();
        assert!(!said.status.success(), "{url}");
        assert!(
            text(&said).contains("otlp-traces: ") && text(&said).contains("allowed: "),
            "{}",
            text(&said)
        );
    }
}

#[test]
fn logs_are_json_where_that_is_asked_for() {
    let (folder, policy) = stage("auto");
    let mut child = Command::new(env!("CARGO_BIN_EXE_phoenix"))
        .args(["control", "--listen", "127.0.0.1:0", "--log-format", "json", "--policy"])
        .arg(folder.path().join("policy.yaml"))
        .arg("--state")
        .arg(folder.path().join("state.redb"))
        .stdout(Stdio::piped())
        .stderr(Stdio::from(fs::File::create(folder.path().join("log")).unwrap()))
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("phoenix control: ").unwrap().to_owned();
    let control = Control::of(child, url);
    let good = report("gateway-a@1", 0, 1, now_ns(), &policy, &streams()).encode_to_vec();
    assert_eq!(control.report(&good).0, 202);
    // Whoever is refused chooses a part of the line, and no line of its own.
    let strange = "GET /api/v1/plan/diff?node=%0A%7B%22level%22%3A%22ERROR%22%7D".split_once(' ').unwrap();
    assert_eq!(control.call(strange.0, strange.1, &[("host", "evil.example")], b"").0, 403);
    let begin = Instant::now();
    let lines = loop {
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines: Vec<Value> = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        if ["decided", "denied", "started"].iter().all(|it| lines.iter().any(|line| line["action"] == *it)) {
            break lines;
        }
        assert!(begin.elapsed() < PATIENCE, "{log}");
        std::thread::sleep(Duration::from_millis(50));
    };
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
    let of = |action: &str| lines.iter().find(|line| line["action"] == action).unwrap();
    assert_eq!((&of("denied")["level"], &of("decided")["level"]), (&"WARN".into(), &"INFO".into()));
    assert_eq!(of("denied")["subject"], "GET /api/v1/plan/diff");
    assert_eq!(of("started")["actor"], "control");
}
