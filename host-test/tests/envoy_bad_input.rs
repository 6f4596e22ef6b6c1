//! Bad input on a real Envoy: whatever comes, the request passes untouched or gets Envoy's own answer, a counter says which, the worker lives, and no
//! total is off.
//!
//! Each case is a line: what is sent, what the client gets, which counter moves, what the sink must have seen. After each case a good request goes
//! through the same worker. What is not proven here: that a client's connection survives its own garbage (each case has one of its own).

mod common;

use bytes::Bytes;
use common::call::{Call, Wire};
use common::otlp::{self, FOLDED, SECOND_NS, delta, folded_only, good, request};
use common::plan::document;
use common::stage::{RESIDENT_BYTES_MAX, Setup, Stage};
use phoenix_host_test::shop::otlp::text;
use phoenix_host_test::shop::run::unix_ns;
use phoenix_host_test::sink::frame::{grpc_frame, gunzip, gzip};
use phoenix_host_test::sink::{Fault, Received};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::time::Duration;

/// What the sink must have seen of a case.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    /// The very bytes.
    Same,
    /// Fewer of them: points were folded.
    Folded,
    /// Nothing: Envoy answered by itself.
    Nothing,
}

/// One case.
struct Case {
    name: &'static str,
    call: Call,
    /// What the client gets: an HTTP status, or a gRPC status.
    answer: u16,
    /// The counter that moves by one; empty: none of the counters of trouble moves.
    counter: &'static str,
    seen: Seen,
    /// What the case adds to the folded counter.
    adds: i64,
}

fn case(name: &'static str, call: Call, answer: u16, counter: &'static str) -> Case {
    Case { name, call, answer, counter, seen: Seen::Same, adds: 0 }
}

fn folds(name: &'static str, call: Call, answer: u16, adds: i64) -> Case {
    Case { name, call, answer, counter: "", seen: Seen::Folded, adds }
}

/// The counters that say what was wrong.
const TROUBLE: [&str; 11] = [
    "other_requests",
    "json_requests",
    "encoded_requests",
    "errors_decode",
    "errors_frame",
    "errors_gzip",
    "errors_too_large",
    "bugs",
    "unanswered",
    "upstream_refused",
    "rebaselines",
];

/// The largest body that the plan of these tests lets the module read.
const BODY_BYTES_MAX: usize = 8 << 20;

fn plugin() -> serde_json::Value {
    let mut document = document();
    document["plan"]["limits"] = json!({ "body_bytes_max": BODY_BYTES_MAX });
    document
}

/// Runs cases one after the other, a good request after each.
async fn run(stage: &mut Stage, cases: Vec<Case>) {
    for case in cases {
        let before = stage.counters().await;
        let id = otlp::unique().to_string();
        let sent = case.call.clone().with("x-case", &id);
        let reply = stage.call(sent).await;
        let answer = reply.as_ref().map(|r| match r.grpc_status() {
            Some(status) => status.parse().unwrap_or(999),
            None => r.status,
        });
        assert_eq!(answer, Some(case.answer), "{}: {reply:?}\n{}", case.name, stage.log());
        let seen: Vec<Received> = of_case(stage, &id);
        check_seen(&case, &seen);
        stage.expected += i128::from(case.adds);
        stage.good().await;
        if !case.counter.is_empty() {
            let least = before.get(case.counter).copied().unwrap_or(0) + 1;
            stage.counter_reaches(case.counter, least).await;
        }
        let after = stage.counters().await;
        for name in TROUBLE {
            let of = |c: &std::collections::BTreeMap<String, i64>| c.get(name).copied().unwrap_or(0);
            let moved = of(&after) - of(&before);
            assert_eq!(moved, i64::from(name == case.counter), "{}: {name} moved by {moved}", case.name);
        }
    }
}

fn of_case(stage: &Stage, id: &str) -> Vec<Received> {
    let mut requests = stage.sink.requests();
    requests.retain(|r| r.headers.get("x-case").is_some_and(|v| v == id));
    requests
}

fn check_seen(case: &Case, seen: &[Received]) {
    let name = case.name;
    if case.seen == Seen::Nothing {
        assert!(seen.is_empty(), "{name}: the sink saw it");
        return;
    }
    assert_eq!(seen.len(), 1, "{name}: the sink saw it {} times", seen.len());
    let body = plain(&seen[0], case.call.headers.iter().any(|(n, _)| n == "content-encoding"));
    match case.seen {
        Seen::Same => assert!(
            body == case.call.body,
            "{name}: other bytes: {} instead of {}",
            body.len(),
            case.call.body.len()
        ),
        _ => assert!(body.len() < case.call.body.len(), "{name}: nothing was folded"),
    }
}

/// The body before Envoy's compressor, which stands after the module.
fn plain(received: &Received, came_encoded: bool) -> Bytes {
    let is_gzip = received.headers.get("content-encoding").is_some_and(|v| v == "gzip");
    if is_gzip && !came_encoded {
        return gunzip(&received.body).expect("gzip of Envoy's compressor");
    }
    received.body.clone()
}

/// An attribute nested `depth` times, in a folded metric.
fn depth_bomb(depth: usize) -> Bytes {
    let field = |number: u8, payload: &[u8]| {
        let mut out = vec![number << 3 | 2];
        prost::encoding::encode_varint(payload.len() as u64, &mut out);
        out.extend_from_slice(payload);
        out
    };
    let mut value = field(1, b"deep");
    for _ in 0..depth {
        value = field(5, &field(1, &value));
    }
    let attribute = [field(1, b"deep"), field(2, &value)].concat();
    let now_ns = unix_ns();
    let mut point = vec![2 << 3 | 1];
    point.extend_from_slice(&(now_ns - SECOND_NS).to_le_bytes());
    point.push(3 << 3 | 1);
    point.extend_from_slice(&now_ns.to_le_bytes());
    point.push(6 << 3 | 1);
    point.extend_from_slice(&1i64.to_le_bytes());
    point.extend_from_slice(&field(7, &attribute));
    let sum = [field(1, &point), vec![2 << 3, 1, 3 << 3, 1]].concat();
    let metric = [field(1, b"fold_deep"), field(7, &sum)].concat();
    field(1, &field(2, &field(2, &metric))).into()
}

fn cut(body: &Bytes, missing: usize) -> Bytes {
    body.slice(..body.len() - missing)
}

fn http_cases() -> Vec<Case> {
    let http = |body: &[u8]| Call::http(Wire::Http1, Bytes::copy_from_slice(body));
    let json = http(br#"{"resourceMetrics":[]}"#).with("content-type", "application/json");
    let mut cases = vec![
        // First of all, before the worker has seen any metrics: these must be counted too.
        case("OTLP in JSON", json, 200, "json_requests"),
        case("another path", Call::http(Wire::Http1, good(1)).to("/v1/traces"), 200, "other_requests"),
        case(
            "another type",
            Call::http(Wire::Http1, good(1)).with("content-type", "text/plain"),
            200,
            "other_requests",
        ),
        case(
            "gRPC's type on the path of HTTP",
            Call::http(Wire::Http2, good(1)).with("content-type", "application/grpc"),
            200,
            "other_requests",
        ),
        case("a type that nobody knows", http(b"x").with("content-type", "\u{fc}"), 200, "other_requests"),
        case("text", http(b"these are no metrics at all"), 400, "errors_decode"),
        case("zeros", http(&[0; 1_000]), 400, "errors_decode"),
        case("a group", http(&[0x0b, 0x0c]), 400, "errors_decode"),
        case("a varint of eleven bytes", http(&[0xff; 11]), 400, "errors_decode"),
        case(
            "a length beyond 2^32",
            http(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]),
            400,
            "errors_decode",
        ),
        case("a depth bomb", http(&depth_bomb(5_000)), 400, "errors_decode"),
        case(
            "an encoding that nobody undoes",
            Call::http(Wire::Http1, good(1)).with("content-encoding", "br"),
            400,
            "encoded_requests",
        ),
        folds(
            "a type with a parameter",
            http(&good(3)).with("content-type", "Application/X-Protobuf; v=1"),
            200,
            3,
        ),
        folds("gzip", Call::http(Wire::Http1, gzip(&padded(5))).with("content-encoding", "gzip"), 200, 5),
    ];
    // The sink knows only the type in small letters: the one with a parameter is "other" there, and its answer 200.
    for wire in Wire::ALL {
        cases.push(case("truncated", Call::http(wire, cut(&good(1), 3)), 400, "errors_decode"));
        cases.push(case("truncated to a byte", Call::http(wire, good(1).slice(..1)), 400, "errors_decode"));
        cases.push(case("empty", Call::http(wire, Bytes::new()), 200, ""));
        cases.push(folds("whole", Call::http(wire, good(7)), 200, 7));
        cases.push(folds("in pieces of 7 bytes", Call::http(wire, good(11)).in_pieces(7), 200, 11));
        cases.push(folds("of which nothing is left", Call::http(wire, folded_only(13)), 200, 13));
    }
    cases
}

/// A good request that does not deflate below what is left of it after the fold.
fn padded(value: i64) -> Bytes {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let noise: String = (0..2_000).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
    let pod = format!("pod-{}", otlp::unique());
    request(&pod, vec![delta(FOLDED, vec![text("user", &noise)], value)])
}

fn grpc_cases() -> Vec<Case> {
    let grpc = |parts: &[&[u8]]| Call::grpc_raw(parts.concat().into());
    let frame = |value| grpc_frame(&good(value), false);
    let packed = |value| grpc_frame(&good(value), true);
    let broken_gzip = {
        let mut body = packed(1).to_vec();
        let middle = body.len() / 2;
        body[middle] ^= 0x55;
        body[5 + 3] ^= 0xff;
        Bytes::from(body)
    };
    let bomb = {
        let zeros = gzip(&vec![0; BODY_BYTES_MAX + 1]);
        [&[1][..], &(zeros.len() as u32).to_be_bytes(), &zeros].concat()
    };
    vec![
        case("a frame's head cut", grpc(&[&frame(1)[..3]]), 3, "errors_frame"),
        case("a frame beyond the end", grpc(&[&frame(1)[..20]]), 3, "errors_frame"),
        case("a flag of 2", grpc(&[&[2], &frame(1)[1..]]), 3, "errors_frame"),
        case("a good frame and a broken one", grpc(&[&frame(1), &frame(1)[..4]]), 3, "errors_frame"),
        case(
            "a good frame and garbage",
            grpc(&[&frame(1), &grpc_frame(b"\x0a\x05no", false)]),
            3,
            "errors_decode",
        ),
        case("a length of 4 GiB", grpc(&[&[0, 0xff, 0xff, 0xff, 0xff], b"x"]), 3, "errors_frame"),
        // The sink inflates gzip without asking for the header.
        Case { adds: 2, ..case("compressed without saying how", grpc(&[&packed(2)]), 0, "encoded_requests") },
        Case {
            adds: 2,
            ..case(
                "compressed in an unknown way",
                grpc(&[&packed(2)]).with("grpc-encoding", "zstd"),
                0,
                "encoded_requests",
            )
        },
        case("broken gzip", Call::grpc_raw(broken_gzip).with("grpc-encoding", "gzip"), 3, "errors_gzip"),
        case("a gzip bomb", grpc(&[&bomb]).with("grpc-encoding", "gzip"), 3, "errors_too_large"),
        // The sink does not ask for the type either.
        Case {
            adds: 1,
            ..case(
                "gRPC's path with another type",
                grpc(&[&frame(1)]).with("content-type", "text/plain"),
                0,
                "other_requests",
            )
        },
        case("no frame", Call::grpc_raw(Bytes::new()), 0, ""),
        folds("several frames", grpc(&[&frame(3), &frame(4), &frame(5)]), 0, 12),
        folds(
            "plain and compressed frames",
            grpc(&[&frame(3), &grpc_frame(&padded(4), true), &frame(5)]).with("grpc-encoding", "gzip"),
            0,
            12,
        ),
        folds(
            "gRPC with trailers of the client",
            Call { wire: Wire::Http2Trailers, ..grpc(&[&frame(6)]) },
            0,
            6,
        ),
        folds("gRPC in pieces of a byte", grpc(&[&frame(8)]).in_pieces(1), 0, 8),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_passes_and_is_counted() {
    let mut stage = Stage::start(Setup::one_worker(plugin())).await;
    // Of a worker that has never seen metrics, too.
    let call = Call::http(Wire::Http1, Bytes::from_static(b"{}")).with("content-type", "application/json");
    assert_eq!(stage.call(call).await.map(|r| r.status), Some(200));
    stage.counter_reaches("json_requests", 1).await;
    run(&mut stage, http_cases()).await;
    run(&mut stage, grpc_cases()).await;
    stage.settle().await;
}

/// Flipped bits may leave something that can be read; then it is folded or passes, and the sink is the judge. In no case may anybody else suffer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_hurt_nobody() {
    let mut stage = Stage::start(Setup::one_worker(plugin())).await;
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for round in 0..300 {
        let metrics = vec![
            delta("fold_flipped", vec![text("user", "u"), text("kept", "k")], 1),
            otlp::cumulative("fold_flipped_too", vec![], unix_ns() - SECOND_NS, unix_ns(), 5),
            otlp::gauge("flipped", 1),
        ];
        let good = request("flipped", metrics);
        let is_grpc = round % 3 == 0;
        let mut body = if is_grpc { grpc_frame(&good, round % 2 == 0).to_vec() } else { good.to_vec() };
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..body.len());
            body[at] ^= 1 << rng.random_range(0..8);
        }
        let body = Bytes::from(body);
        let id = otlp::unique().to_string();
        let call = if is_grpc {
            Call::grpc_raw(body.clone()).with("grpc-encoding", "gzip")
        } else {
            Call::http(Wire::ALL[round % 4], body.clone())
        };
        let reply = stage.call(call.with("x-case", &id)).await.expect("an answer");
        assert!(reply.status < 500, "round {round}: {reply:?}\n{}", stage.log());
        let seen = of_case(&stage, &id);
        assert_eq!(seen.len(), 1, "round {round}");
        assert!(plain(&seen[0], false).len() <= body.len(), "round {round}: it grew");
        if round % 20 == 0 {
            stage.good().await;
        }
    }
    // What became of the flipped bytes is between their sender and the backend; only the good ones are asked about.
    stage.total_becomes(FOLDED, stage.expected).await;
    stage.balance().await;
    stage.alive().await;
}

/// Bodies at and beyond every limit. Envoy refuses what exceeds its buffer; the module does not read what exceeds the plan's limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_and_bombs_stay_within_memory() {
    let mut stage = Stage::start(Setup::workers(plugin(), 2)).await;
    stage.good().await;
    let large = |bytes: usize, value: i64| {
        let noise = "x".repeat(bytes);
        request(
            &format!("pod-{}", otlp::unique()),
            vec![delta(FOLDED, vec![text("user", &noise)], value), otlp::gauge("large", value)],
        )
    };
    for wire in [Wire::Http1, Wire::Chunked, Wire::Http2] {
        let reply = stage.call(Call::http(wire, large(64 << 20, 1))).await;
        assert_eq!(reply.map(|r| r.status), Some(413), "{wire:?}: beyond Envoy's buffer");
        let reply = stage.call(Call::http(wire, large(60 << 20, 1))).await;
        assert_eq!(reply.map(|r| r.status), Some(200), "{wire:?}: beyond the plan's limit\n{}", stage.log());
        // It passed raw: the sink has its one folded point as it came.
        stage.expected += 1;
        stage.good().await;
    }
    stage.counter_reaches("errors_too_large", 3).await;
    for _ in 0..3 {
        let reply = stage.call(Call::http(Wire::Http1, large(BODY_BYTES_MAX - 1_000, 2))).await;
        assert_eq!(reply.map(|r| r.status), Some(200), "just within the plan's limit\n{}", stage.log());
        stage.expected += 2;
        stage.good().await;
    }
    let zeros = gzip(&vec![0; 256 << 20]);
    for wire in [Wire::Http1, Wire::Http2] {
        let call = Call::http(wire, zeros.clone()).with("content-encoding", "gzip").with("x-case", "bomb");
        let reply = stage.call(call).await;
        let status = reply.map(|r| r.status);
        assert!(status.is_none_or(|s| s >= 400), "a bomb of 256 MiB: {status:?}");
        stage.good().await;
    }
    let biggest = of_case(&stage, "bomb").iter().map(|r| plain(r, false).len()).max().unwrap_or(0);
    assert!(biggest <= 64 << 20, "a bomb went off behind the module: {biggest} bytes");
    let resident_bytes = stage.envoy.usage().expect("usage").resident_bytes;
    assert!(resident_bytes < RESIDENT_BYTES_MAX, "{} MiB resident", resident_bytes >> 20);
    stage.settle().await;
}

/// Clients that leave in the middle of the body: nothing is folded, nothing reaches the upstream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_half_way_leave_nothing() {
    let mut stage = Stage::start(Setup::one_worker(plugin())).await;
    stage.good().await;
    let before = stage.counter("unanswered").await;
    let body = padded(1_000_000);
    for at in [0, 1, 10, body.len() / 2, body.len() - 1] {
        Call::http(Wire::Http1, body.clone())
            .with("x-case", "left")
            .hang_up_after(stage.envoy.address(), at)
            .await;
        stage.good().await;
    }
    let after = stage.counter("unanswered").await;
    assert_eq!(before, after, "nothing was read, so nothing can be unanswered");
    assert!(of_case(&stage, "left").is_empty(), "half a body went on");
    stage.settle().await;
}

/// What a bad upstream answers: the client is told, nothing is folded that was not accepted, and a retry folds once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_upstreams_are_relayed_and_fold_nothing() {
    let mut setup = Setup::one_worker(plugin());
    setup.edits = vec![
        ("timeout: 15s".to_owned(), "timeout: 2s".to_owned()),
        ("per_try_timeout: 10s".to_owned(), "per_try_timeout: 1s".to_owned()),
    ];
    let mut stage = Stage::start(setup).await;
    stage.good().await;
    // The fault, what the client gets over HTTP and over gRPC, the counter, whether the point counts.
    let faults = [
        (Fault::Status(503), 503, 503, "upstream_refused", false),
        (Fault::Status(400), 400, 400, "upstream_refused", false),
        (Fault::Hang, 504, 14, "upstream_refused", false),
        (Fault::Close, 503, 14, "upstream_refused", false),
        (Fault::BookAndClose, 503, 14, "upstream_refused", false),
        (Fault::Partial(3), 200, 0, "folded", true),
    ];
    for (fault, http, grpc, counter, counts) in faults {
        for is_grpc in [false, true] {
            let value = otlp::unique() as i64;
            let body = folded_only(value);
            let make = || if is_grpc { Call::grpc(&body) } else { Call::http(Wire::Http1, body.clone()) };
            let before = stage.counter(counter).await;
            stage.sink.fail_next_where(1, fault, |head| !head.headers.contains_key("x-phoenix-emission"));
            let reply = stage.call(make()).await.expect("an answer");
            let answer = reply.grpc_status().map_or(reply.status, |s| s.parse().unwrap_or(999));
            assert_eq!(answer, if is_grpc { grpc } else { http }, "{fault:?}, gRPC {is_grpc}: {reply:?}");
            stage.counter_reaches(counter, before + 1).await;
            if let Fault::Partial(rejected) = fault {
                // Field 1 of the answer, field 1 of that: a varint.
                let wanted = [0x08, rejected as u8];
                assert!(
                    reply.body.windows(2).any(|w| w == wanted),
                    "partial_success was not relayed: {reply:?}"
                );
            }
            if !counts {
                let again = stage.call(make()).await.expect("an answer");
                let answer = again.grpc_status().map_or(again.status, |s| s.parse().unwrap_or(999));
                assert_eq!(answer, if is_grpc { 0 } else { 200 }, "again after {fault:?}: {again:?}");
            }
            stage.expected += i128::from(value);
        }
    }
    grpc_only_faults(&mut stage).await;
    // An impatient client, an upstream that hangs: nobody will ever know.
    let before = stage.counter("unanswered").await;
    stage.sink.fail_next_where(1, Fault::Hang, |head| !head.headers.contains_key("x-phoenix-emission"));
    let impatient = Call::http(Wire::Http1, folded_only(5)).patient_for(Duration::from_millis(300));
    assert!(stage.call(impatient).await.is_none());
    stage.counter_reaches("unanswered", before + 1).await;
    stage.good().await;
    stage.settle().await;
}

async fn grpc_only_faults(stage: &mut Stage) {
    for (fault, grpc, counter) in [
        (Fault::GrpcStatus(14), 14, "upstream_refused"),
        (Fault::GrpcTrailers(14), 14, "upstream_refused"),
        (Fault::GrpcStatus(3), 3, "upstream_refused"),
    ] {
        let value = otlp::unique() as i64;
        let body = good(value);
        let before = stage.counter(counter).await;
        stage.sink.fail_next_where(1, fault, |head| !head.headers.contains_key("x-phoenix-emission"));
        let reply = stage.call(Call::grpc(&body)).await.expect("an answer");
        assert_eq!(reply.status, 200, "{fault:?}: {reply:?}");
        assert_eq!(reply.grpc_status(), Some(grpc.to_string().as_str()), "{fault:?}: {reply:?}");
        stage.counter_reaches(counter, before + 1).await;
        let again = stage.call(Call::grpc(&body)).await.expect("an answer");
        assert_eq!(again.grpc_status(), Some("0"), "{again:?}");
        stage.expected += i128::from(value);
    }
}
