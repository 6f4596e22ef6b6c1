//! `phoenix top` without a terminal: what is posted is shown, what is refused is answered with its reason.

mod tools;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzEncoder;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use phoenix_report::Report;
use prost::Message;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};
use tools::{bad, command, reports};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

/// A `phoenix top` that runs, its standard output no terminal.
struct Top {
    child: Child,
    address: String,
    output: BufReader<ChildStdout>,
}

impl Top {
    fn start(arguments: &[&str]) -> Top {
        let mut child = command()
            .args(["top", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        let address = first.strip_prefix("listening on ").unwrap().split(' ').next().unwrap().to_owned();
        assert!(first.contains("(POST /v1/reports)"), "{first}");
        Top { child, address, output }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> (u16, String) {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://{}{path}", self.address).parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, headers: &[(&'static str, &str)], body: Vec<u8>) -> (u16, String) {
        self.send(Method::POST, "/v1/reports", headers, body).await
    }

    /// Lines up to the first that contains this.
    fn up_to(&mut self, part: &str) -> String {
        let mut text = String::new();
        loop {
            let before = text.len();
            assert!(self.output.read_line(&mut text).unwrap() > 0, "{part:?} is not in\n{text}");
            if text[before..].contains(part) {
                return text;
            }
        }
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    GzEncoder::new(body, Compression::fast()).read_to_end(&mut packed).unwrap();
    packed
}

#[tokio::test]
async fn reports_of_three_workers_are_shown_as_one_fleet_and_go_when_they_fall_silent() {
    let mut top = Top::start(&["--interval", "1s"]);
    for (at, report) in reports::all().iter().enumerate() {
        let body = report.encode_to_vec();
        let answer = match at {
            0 => top.post(&[PROTOBUF, ("content-encoding", "gzip")], gzip(&body)).await,
            1 => {
                let packed = zstd::encode_all(&body[..], 1).unwrap();
                top.post(&[PROTOBUF, ("content-encoding", "zstd")], packed).await
            }
            _ => top.post(&[PROTOBUF], body).await,
        };
        assert_eq!(answer, (202, String::new()));
    }
    let text = top.up_to("2 processes, 3 workers, 2 tenants, ");
    assert!(text.contains("active series, plan 7, newest report "), "{text}");
    let text = top.up_to("db.queries");
    let requests = text.lines().find(|line| line.contains("http.server.requests")).unwrap();
    let cells: Vec<&str> = requests.split_whitespace().collect();
    assert_eq!(cells[1..5], ["team-a", "sum", "120", "50"], "{text}");
    // Nobody reports any more.
    top.up_to("2 processes (2 stale)");
    top.up_to("stale: gateway-a@1, gateway-b@1");
    top.up_to("0 processes, 0 workers");
}

#[tokio::test]
async fn once_prints_one_table_and_ends_well() {
    let mut top = Top::start(&["--once", "--interval", "2s", "--metric", "http.*", "--sort", "name"]);
    assert_eq!(top.post(&[PROTOBUF], reports::all()[0].encode_to_vec()).await.0, 202);
    let mut text = String::new();
    top.output.read_to_string(&mut text).unwrap();
    assert!(top.child.wait().unwrap().success());
    assert!(text.starts_with("1 process, 1 worker, 2 tenants"), "{text}");
    let metrics: Vec<&str> =
        text.lines().map(str::trim_start).filter(|line| line.contains("team-")).collect();
    assert!(metrics[0].starts_with("http.server.duration") && metrics.len() == 2, "{text}");
}

#[tokio::test]
async fn what_is_refused_is_answered_with_its_reason() {
    let mut top = Top::start(&["--interval", "1s"]);
    let good = reports::all()[0].encode_to_vec();
    let large = vec![0; (4 << 20) + 1];
    let newer = Report { schema: 2, ..reports::all()[0].clone() }.encode_to_vec();
    let ahead = Report { time_unix_nano: u64::MAX, ..reports::all()[0].clone() }.encode_to_vec();
    let packed = ("content-encoding", "gzip");
    let zstd = ("content-encoding", "zstd");
    for (headers, body, status, why) in [
        (&[PROTOBUF][..], newer, 400, "schema: 2; allowed: 1\n"),
        (&[PROTOBUF], ahead, 400, "time_unix_nano: 18446744073709551615"),
        (
            &[PROTOBUF],
            b"\xff".to_vec(),
            400,
            "report: Truncated at byte 0; allowed: phoenix.report.v1.Report",
        ),
        (&[PROTOBUF], Vec::new(), 400, "schema: 0; allowed: 1"),
        (&[PROTOBUF], large.clone(), 413, "report: more than 4194304 bytes"),
        (&[PROTOBUF, packed], gzip(&large), 413, "report: more than 4194304 bytes"),
        (&[PROTOBUF, packed], good.clone(), 400, "gzip that cannot be inflated"),
        (&[PROTOBUF, zstd], zstd::encode_all(&large[..], 1).unwrap(), 413, "report: more than 4194304 bytes"),
        (&[PROTOBUF, zstd], good.clone(), 400, "report: "),
        (
            &[PROTOBUF, ("content-encoding", "br")],
            good.clone(),
            415,
            "content-encoding: \"br\"; allowed: gzip, zstd, identity",
        ),
        (
            &[("content-type", "text/plain")],
            good.clone(),
            415,
            "content-type: \"text/plain\"; allowed: application/x-protobuf",
        ),
    ] {
        let answer = top.post(headers, body).await;
        assert!(answer.0 == status && answer.1.contains(why), "{why:?}: {answer:?}");
    }
    let answer = top.send(Method::POST, "/v1/metrics", &[PROTOBUF], good.clone()).await;
    assert!(answer.0 == 404 && answer.1.contains("/v1/reports"), "{answer:?}");
    let answer = top.send(Method::GET, "/v1/reports", &[], Vec::new()).await;
    assert!(answer.0 == 405 && answer.1.contains("allowed: POST"), "{answer:?}");
    let text = top.up_to("11 refused, the last one: ");
    assert!(text.contains("no report yet"), "{text}");
}

#[test]
fn other_addresses_and_other_intervals_are_refused() {
    let error = bad(&["top", "--listen", "0.0.0.0:4320"]);
    assert!(
        error.contains("0.0.0.0 can be reached from other machines") && error.contains("127.0.0.0/8"),
        "{error}"
    );
    assert!(bad(&["top", "--interval", "10ms"]).contains("allowed: 1s to 1h"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(bad(&["top", "--listen", &address, "--once"]).contains(&format!("--listen {address}")));
}
