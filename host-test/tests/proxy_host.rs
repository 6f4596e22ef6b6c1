//! The test host itself, driven with a small module in WAT: what the module sees and says in each situation.
//!
//! Enters: `proxy_host/probe.wat`. Leaves: the log of its callbacks, compared as text. The expected texts of the
//! situations marked "as Envoy" were taken from a run of the same module in Envoy 1.40.

use std::sync::OnceLock;
use std::time::Duration;

use phoenix_host_test::proxy_host::{
    CallState, Cluster, Delivery, End, Failure, Headers, HostError, Message, Module, Options, Outcome,
    Process, Push, StreamId, VmId,
};

/// Where the texts of the probe lie: above its tables, below its heap.
const TEXTS_AT: usize = 57_344;

/// Expands `<text>` in WAT into pointer and length.
fn expand(source: &str) -> String {
    let (mut out, mut texts) = (String::new(), String::new());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once('<') {
        let (text, after) = after.split_once('>').expect("a text ends");
        let at = TEXTS_AT + texts.len();
        out += &format!("{before}(i32.const {at}) (i32.const {})", text.len());
        texts += text;
        rest = after;
    }
    out += rest;
    out.replace("TEXTS", &format!("(data (i32.const {TEXTS_AT}) \"{texts}\")"))
}

/// The probe, compiled once.
fn probe() -> Module {
    static PROBE: OnceLock<Module> = OnceLock::new();
    let source = include_str!("proxy_host/probe.wat").lines();
    let code: String = source.map(|line| line.split(";;").next().unwrap_or("").to_owned() + "\n").collect();
    let make = || Module::from_bytes(&wat::parse_str(expand(&code)).expect("WAT")).expect("a module");
    PROBE.get_or_init(make).clone()
}

fn start_with(options: &Options, config: &str) -> Process {
    let mut process = Process::start(&probe(), options, config.as_bytes()).expect("a process");
    process.set_cluster("sink", Cluster::Scripted);
    process.set_cluster("empty", Cluster::FailsInline);
    process
}

/// One worker, as in the run of Envoy that the expected texts come from.
fn start(config: &str) -> Process {
    start_with(&Options { workers: 1, body_bytes_max: 64, ..Options::default() }, config)
}

fn message(what: &str, body: &str) -> Message {
    let mut headers = Headers::from([(":method", "POST"), (":path", "/a"), (":authority", "sink")]);
    if !what.is_empty() {
        headers.add("x-do", what);
    }
    Message::new(headers, body)
}

/// What a VM has logged since `from`, one line joined by commas.
fn said(process: &Process, vm: VmId, from: usize) -> String {
    let log = process.log();
    let lines = log[from..].iter().filter(|line| line.vm == vm).map(|line| line.text.as_str());
    lines.collect::<Vec<_>>().join(", ")
}

/// Runs a step and gives what the first worker logged in it.
fn during(process: &mut Process, step: impl FnOnce(&mut Process)) -> String {
    let from = process.log().len();
    step(process);
    said(process, VmId::Worker(0), from)
}

fn send(process: &mut Process, what: &str, body: &str) -> StreamId {
    process.send(0, message(what, body), 3).expect("a request")
}

#[test]
fn a_start_runs_canary_main_and_workers() {
    let process = start("0first");
    for vm in [VmId::Canary, VmId::Main, VmId::Worker(0)] {
        assert_eq!(said(&process, vm, 0), "create 01, vm_start, configure 01", "{vm}");
    }
    assert!(process.memory_bytes(VmId::Main) == 2 * 65_536 && process.fuel_used(VmId::Main) > 0);
}

#[test]
fn a_plain_request_passes_as_envoy() {
    let mut process = start("0");
    let log = during(&mut process, |process| {
        let stream = process.send(0, message("", "hello"), 100).unwrap();
        assert_eq!(process.forwarded(stream).unwrap(), &message("", "hello"));
        assert_eq!(process.client(stream), None);
        process.respond(stream, Message::response(200, "up:hello")).unwrap();
        let client = process.client(stream).unwrap();
        assert_eq!((client.status(), client.headers.get("x-seen")), (Some(200), Some("yes")));
        assert_eq!((client.body.as_slice(), process.end(stream)), (&b"up:hello"[..], Some(End::Complete)));
    });
    assert_eq!(
        log,
        "create 02, request_headers 00, request_body 05, request_map 02, request_body 00, request_map 02, \
         response_headers 00, response_body 08, response_body 00, log 00, done, delete"
    );
}

#[test]
fn a_buffered_body_is_seen_whole_and_replaced_as_envoy() {
    let mut process = start("0");
    let log = during(&mut process, |process| {
        let stream = send(process, "b", "abcdef");
        assert_eq!(process.forwarded(stream).unwrap().body, b"replaced");
    });
    assert_eq!(
        log,
        "create 02, request_headers 00, request_body 03, request_map 02, request_body 06, request_map 02, \
         request_body 06, request_map 02, inside 02, part 00, xf, whole 00"
    );
}

#[test]
fn a_buffered_body_can_end_with_trailers() {
    let mut process = start("0");
    let request = message("b", "abcdef").with_trailers([("t", "1")]);
    let log = during(&mut process, |process| {
        let stream = process.send(0, request, 3).unwrap();
        let forwarded = process.forwarded(stream).unwrap();
        assert_eq!(
            (forwarded.body.as_slice(), forwarded.trailers.as_ref().unwrap().len()),
            (&b"replaced"[..], 1)
        );
    });
    assert!(log.ends_with("request_trailers 01, inside 02, part 00, xf, whole 00"), "{log}");
}

#[test]
fn headers_change_and_maps_of_other_callbacks_are_absent_as_envoy() {
    let mut process = start("0");
    let mut request = message("h", "");
    request.headers.add("content-length", "0");
    let log = during(&mut process, |process| {
        let stream = process.send(0, request, 1).unwrap();
        let headers = &process.forwarded(stream).unwrap().headers;
        let expected =
            [(":method", "POST"), (":path", "/a"), (":authority", "sink"), ("x-do", "h"), ("x-a", "one")];
        let expected = expected.into_iter().chain([("x-b", "two"), ("x-b", "three")]).collect::<Headers>();
        assert_eq!(headers, &expected);
    });
    assert_eq!(log, "create 02, request_headers 01, absent 01, response_map 02");
}

#[test]
fn a_local_reply_passes_the_response_callbacks_as_envoy() {
    let mut process = start("0");
    let log = during(&mut process, |process| {
        let stream = send(process, "l", "");
        let client = process.client(stream).unwrap();
        assert_eq!((client.status(), client.headers.get("content-type")), (Some(429), Some("text/plain")));
        assert_eq!((client.body.as_slice(), process.local_reply(stream)), (&b"no"[..], Some("too_many")));
        assert_eq!((client.headers.get("x-seen"), process.forwarded_part(stream)), (Some("yes"), None));
    });
    assert_eq!(
        log,
        "create 02, request_headers 01, response_headers 00, response_body 02, log 00, done, delete"
    );
}

#[test]
fn a_buffer_over_the_limit_is_413_as_envoy() {
    let mut process = start("0");
    let two = "request_body 40, request_map 02, request_body 80";
    for (bytes, chunk, before) in [(80, 40, two), (90, 90, "request_body 90")] {
        let body = "a".repeat(bytes);
        let log = during(&mut process, |process| {
            let stream = process.send(0, message("b", &body), chunk).unwrap();
            assert_eq!(process.client(stream).unwrap().status(), Some(413));
            assert_eq!(process.forwarded(stream), None);
        });
        let after = "request_map 02, response_headers 00, response_body 17, log 00, done, delete";
        assert!(log.ends_with(&format!("request_headers 00, {before}, {after}")), "{log}");
    }
}

#[test]
fn upstream_failures_are_envoys_own_answers() {
    let mut process = start("0");
    for (failure, status) in [(Failure::Unreachable, 503), (Failure::Reset, 503), (Failure::Timeout, 504)] {
        let stream = send(&mut process, "", "x");
        process.fail_upstream(stream, failure).unwrap();
        assert_eq!(process.client(stream).unwrap().status(), Some(status));
        let begun = send(&mut process, "", "x");
        process.response(begun, Headers::from([(":status", "200")]), false).unwrap();
        process.fail_upstream(begun, failure).unwrap();
        assert_eq!((process.end(begun), process.client(begun)), (Some(End::Reset), None));
    }
    let mut grpc = message("", "x");
    grpc.headers.add("content-type", "application/grpc");
    let stream = process.send(0, grpc, 9).unwrap();
    process.fail_upstream(stream, Failure::Unreachable).unwrap();
    let client = process.client(stream).unwrap();
    assert_eq!((client.status(), client.headers.get("grpc-status")), (Some(200), Some("14")));
}

#[test]
fn a_client_that_goes_away_ends_the_stream_as_envoy() {
    let mut process = start("0");
    let stream = process.request(0, message("", "").headers, false).unwrap();
    process.request_body(stream, b"x", false).unwrap();
    let log = during(&mut process, |process| process.disconnect(stream).unwrap());
    assert_eq!((log.as_str(), process.end(stream)), ("log 00, done, delete", Some(End::Disconnected)));
    process.request_body(stream, b"late", true).unwrap();
    assert_eq!(process.forwarded(stream), None);
}

#[test]
fn a_pause_in_headers_waits_for_a_call_as_envoy() {
    let mut process = start("0");
    let stream = send(&mut process, "p", "zz");
    assert_eq!(process.forwarded_part(stream), None);
    let (id, call) = process.pending_calls().pop().unwrap();
    assert_eq!((call.cluster.as_str(), call.token, call.root, call.timeout_ms), ("sink", 4, 1, 5000));
    assert_eq!((call.headers.get("content-length"), call.body.as_slice()), (Some("4"), &b"body"[..]));
    let log = during(&mut process, |process| {
        process.end_call(id, Outcome::Response(Message::response(200, "up:body"))).unwrap();
    });
    assert_eq!(
        log,
        "call_response 01, call_token 04, call_status 00, up:body, request_body 02, request_map 02"
    );
    assert_eq!(process.forwarded(stream).unwrap().body, b"zz");
}

#[test]
fn metrics_properties_and_shared_data_answer_as_envoy() {
    let mut process = start("0");
    let log = during(&mut process, |process| _ = send(process, "m", ""));
    assert!(log.ends_with("add_2 00, add_0 02, property 00, no_property 01"), "{log}");
    assert_eq!(process.counter("hits"), 2);
    let log = during(&mut process, |process| _ = send(process, "s", ""));
    assert!(log.ends_with("get 01, set_any 00, get 00, set_cas 00, set_old 08"), "{log}");
    assert_eq!(process.shared_data(b"key").unwrap().0, b"two");
    assert!(process.unimplemented_calls().is_empty());
}

#[test]
fn a_push_changes_root_contexts_and_keeps_the_vm_as_envoy() {
    let mut process = start("0");
    send(&mut process, "", "");
    let log = during(&mut process, |process| assert_eq!(process.push(b"x").unwrap(), Push::Accepted));
    // The stream of the old root context still lives.
    assert_eq!(
        (log.as_str(), process.roots(VmId::Worker(0))),
        ("create 03, vm_start, configure 03", vec![1, 3])
    );
    assert_eq!(process.roots(VmId::Main), [2]);
    let log = during(&mut process, |process| {
        process.disconnect(StreamId { worker: 0, context: 2 }).unwrap();
    });
    assert_eq!(log, "log 00, done, delete, done, delete");
    assert_eq!(process.roots(VmId::Worker(0)), [3]);
    let log = during(&mut process, |process| assert_eq!(process.push(b"x").unwrap(), Push::Accepted));
    assert_eq!(log, "", "an equal configuration changes nothing");
}

#[test]
fn a_refused_push_changes_nothing_as_envoy() {
    let mut process = start("0");
    let from = process.log().len();
    assert_eq!(process.push(b"r").unwrap(), Push::Refused);
    assert_eq!(said(&process, VmId::Canary, from), "create 01, vm_start, configure 01");
    assert_eq!(said(&process, VmId::Main, from) + &said(&process, VmId::Worker(0), from), "");
    assert_eq!((process.roots(VmId::Main), process.roots(VmId::Worker(0))), (vec![1], vec![1]));
    let stream = send(&mut process, "", "x");
    assert!(process.forwarded(stream).is_some());
    let refused = Process::start(&probe(), &Options::default(), b"r").err();
    assert!(matches!(refused, Some(HostError::Refused { vm: VmId::Canary, .. })), "{refused:?}");
}

#[test]
fn old_and_new_root_contexts_tick_during_a_push() {
    let mut process = start("t");
    process.advance(Duration::from_millis(1_500)).unwrap();
    assert!(process.push_begin(b"t2").unwrap() && process.push_apply(VmId::Worker(0)).unwrap());
    let log = during(&mut process, |process| process.advance(Duration::from_millis(1_000)).unwrap());
    assert_eq!(log, "tick 01, tick 02");
    process.push_finish().unwrap();
    let log = during(&mut process, |process| process.advance(Duration::from_secs(1)).unwrap());
    assert_eq!(log, "tick 02");
}

#[test]
fn a_root_context_may_ask_for_time_before_it_is_deleted() {
    let mut process = start("t");
    let stream = send(&mut process, "d", "");
    process.disconnect(stream).unwrap();
    let log = during(&mut process, |process| _ = process.push(b"0").unwrap());
    assert_eq!(
        (log.as_str(), process.roots(VmId::Worker(0))),
        ("create 03, vm_start, configure 03, done", vec![1, 3])
    );
    let log = during(&mut process, |process| process.advance(Duration::from_secs(1)).unwrap());
    assert_eq!((log.as_str(), process.roots(VmId::Worker(0))), ("tick 01, done 00, delete", vec![3]));
}

#[test]
fn a_queue_reaches_the_root_context_that_registered_last() {
    let options = Options { delivery: Delivery::Manual, ..Options::default() };
    let mut process = start_with(&options, "q");
    send(&mut process, "e", "");
    let ready = process.ready();
    assert_eq!((ready.len(), ready[0].vm, ready[0].root), (1, VmId::Worker(1), 1));
    assert_eq!(process.queue_len("q"), Some(1));
    let from = process.log().len();
    assert!(process.deliver(0).unwrap());
    assert_eq!(said(&process, VmId::Worker(1), from), "queue_ready 01, dequeue 00, message");
    // A callback for a root context that is gone is dropped; the message stays.
    send(&mut process, "e", "");
    process.push(b"0").unwrap();
    assert!(!process.deliver(0).unwrap());
    assert_eq!((process.queue_len("q"), process.dropped_callbacks()), (Some(1), 1));
    // The next owner finds it.
    process.push(b"q").unwrap();
    send(&mut process, "e", "");
    process.deliver_all().unwrap();
    assert_eq!(process.queue_len("q"), Some(1));
}

#[test]
fn calls_end_in_every_way() {
    let mut process = start("c");
    process.advance(Duration::from_secs(1)).unwrap();
    let calls = process.pending_calls();
    assert_eq!(calls.iter().map(|(_, call)| call.vm).collect::<Vec<_>>(), [VmId::Main, VmId::Worker(0)]);
    let log = during(&mut process, |process| process.end_call(calls[1].0, Outcome::Reset).unwrap());
    assert_eq!(log, "call_response 00, call_token 04, call_status 02");
    let log = during(&mut process, |process| process.advance(Duration::from_secs(1)).unwrap());
    assert_eq!(log, "tick 01, call 00");
    let unreachable = process.pending_calls()[1].0;
    process.end_call(process.pending_calls()[2].0, Outcome::Unreachable).unwrap();
    assert_eq!(process.call(unreachable).unwrap().state, CallState::Pending);
    // A push cancels what is outstanding, without a callback.
    let log = during(&mut process, |process| _ = process.push(b"0").unwrap());
    assert_eq!(log, "create 02, vm_start, configure 02, done, delete");
    assert!(process.pending_calls().is_empty());
    assert_eq!(process.call(unreachable).unwrap().state, CallState::Cancelled);
    assert!(process.end_call(unreachable, Outcome::Reset).is_err());
}

#[test]
fn a_call_times_out_with_504_and_can_fail_inline_as_envoy() {
    let mut process = start("c");
    process.advance(Duration::from_secs(1)).unwrap();
    let log = during(&mut process, |process| process.advance(Duration::from_secs(5)).unwrap());
    assert!(
        log.contains("call_response 03, call_token 04, call_status 00, upstream request timeout"),
        "{log}"
    );
    process.push(b"n").unwrap();
    let log = during(&mut process, |process| process.advance(Duration::from_secs(1)).unwrap());
    assert_eq!(log, "tick 02, call 10");
    assert!(process.pending_calls().is_empty());
}

#[test]
fn a_trap_is_an_error_and_fails_the_vm_closed_as_envoy() {
    let mut process = start("0");
    let other = send(&mut process, "", "x");
    let error = process.send(0, message("t", ""), 1).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("proxy_on_request_headers trapped in worker 0") && text.contains("unreachable"),
        "{text}"
    );
    assert!(text.contains("request_headers 01"), "the log is quoted: {text}");
    assert!(process.failed(VmId::Worker(0)) && !process.failed(VmId::Main));
    process.respond(other, Message::response(200, "x")).unwrap();
    assert_eq!(process.client(other).unwrap().status(), Some(503));
    let next = send(&mut process, "", "x");
    assert_eq!(process.client(next).unwrap().status(), Some(503));
}

#[test]
fn an_endless_loop_ends_as_a_trap() {
    let mut process = start_with(&Options { fuel_per_callback: 1_000_000, ..Options::default() }, "0");
    let error = process.send(0, message("w", ""), 1).unwrap_err().to_string();
    assert!(error.contains("fuel"), "{error}");
}

#[test]
fn missing_imports_and_foreign_modules_are_named() {
    let load = |wat: &str| {
        let module = Module::from_bytes(&wat::parse_str(wat).unwrap()).unwrap();
        Process::start(&module, &Options::default(), b"")
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let text = load(
        r#"(module (import "env" "proxy_new" (func)) (import "wasi_snapshot_preview1" "fd_write" (func)))"#,
    );
    assert!(text.contains("env.proxy_new, wasi_snapshot_preview1.fd_write"), "{text}");
    assert!(load("(module)").contains("proxy_abi_version"));
    let missing = Module::at(std::path::Path::new("no/such.wasm")).err().unwrap().to_string();
    assert!(missing.contains("cargo xtask build"), "{missing}");
}

#[test]
fn the_same_seed_gives_the_same_run_and_seeds_differ() {
    let run = |seed| {
        let options = Options { workers: 6, order_seed: Some(seed), ..Options::default() };
        let mut process = start_with(&options, "t");
        process.advance(Duration::from_secs(3)).unwrap();
        let order: Vec<_> = process.log().iter().skip(3 * 8).map(|line| line.vm).collect();
        order
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
