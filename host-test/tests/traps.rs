//! Trap rows that need more than a sequence of steps: interleavings, requests in flight, calls that vanish, identities made up by an enemy.
//!
//! The other rows are golden cases (`tests/golden.rs`); rows 26, 27 and 34 also stand in `tests/envoy_load.rs` and `tests/envoy_emissions.rs` on real Envoy. Each test says what would
//! happen if the trap were fallen into. Seeds are printed on failure and replay. What is not proven here: races of real threads, which only Envoy has.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use phoenix_host_test::cases::language::Batch as Request;
use phoenix_host_test::cases::points::{Kind, Point, encode, read, render};
use phoenix_host_test::cases::{Case, module};
use phoenix_host_test::proxy_host::{
    CallState, Cluster, Delivery, Failure, Message, Module, Options, Outcome, Process, Push, VmId,
};
use prost::Message as _;
use rand::seq::IndexedMutRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const TICK: Duration = Duration::from_millis(50);

/// Sums named `requests*` lose `pod` and `user`.
fn plan(changes: Json) -> Json {
    let mut plan = json!({
        "schema": 1, "version": 1, "writer": "w", "first_sample_margin": "0s",
        "hash_key": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "rules": [{
            "name": "r", "metric": {"prefix": "requests"}, "pipeline": "optimized",
            "fold": {"labels": {"drop": {"resource": ["pod"], "attributes": ["user"]}}, "window": "10s", "offset": "0s", "delay": "10s"}
        }]
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        plan[key] = value.clone();
    }
    plan
}

fn config(plan: &Json) -> Vec<u8> {
    Case::plugin_config(&plan.to_string()).expect("a configuration").into_bytes()
}

fn process(plan: &Json, options: &Options) -> Process {
    let mut process = Process::start(&Module::built().expect("cargo xtask build"), options, &config(plan))
        .expect("a process");
    process.set_cluster("phoenix_emit", Cluster::Scripted);
    process
}

fn request(lines: &[String]) -> Message {
    let points: Vec<Point> = lines.iter().map(|line| read(line).expect("a point")).collect();
    module::request(&Request { message: encode(&points), ..Request::default() })
}

fn ok() -> Message {
    Message::response(200, "")
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / SECOND, ns % SECOND)
}

/// Integer points of emissions: (labels, time) to value. A point that comes twice with another value is a failure.
#[derive(Default)]
struct Books(BTreeMap<(String, u64), i64>);

impl Books {
    fn add(&mut self, body: &[u8]) {
        let request = ExportMetricsServiceRequest::decode(body).expect("an emission is OTLP");
        for resource in &request.resource_metrics {
            for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                let Some(Data::Sum(sum)) = &metric.data else { panic!("a folded metric is a sum") };
                for point in &sum.data_points {
                    let Some(Number::AsInt(value)) = point.value else { panic!("integers stay integers") };
                    let labels = format!("{} {:?} {:?}", metric.name, resource.resource, point.attributes);
                    let before = self.0.insert((labels, point.time_unix_nano), value);
                    assert!(before.is_none(), "one point per series and window: {metric:?}");
                }
            }
        }
    }

    /// The sum over the series of the last value: cumulative totals.
    fn total(&self) -> i64 {
        let last: BTreeMap<&str, i64> =
            self.0.iter().map(|((labels, _), value)| (labels.as_str(), *value)).collect();
        last.values().sum()
    }

    fn series(&self) -> usize {
        self.0.keys().map(|(labels, _)| labels.as_str()).collect::<BTreeSet<_>>().len()
    }
}

/// Lets windows close and every emission be answered.
fn drain(process: &mut Process, books: &mut Books, span: Duration) {
    let until = process.now_nanos() + u64::try_from(span.as_nanos()).expect("a short span");
    while process.now_nanos() < until {
        process.deliver_all().expect("queues");
        process.advance(Duration::from_secs(1)).expect("ticks");
        while let Some((id, call)) = process.pending_calls().into_iter().next() {
            process.end_call(id, Outcome::Response(ok())).expect("an answer");
            books.add(&call.body);
        }
    }
}

/// Trap 8. Fallen into, a series would have a point per batch instead of per window, and other values for every way to cut the same points into batches.
#[test]
fn trap_08_any_batching_gives_the_same_emissions() {
    for seed in 0..40 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // Every 5 s each stream may export, and never leaves out two in a row: a longer silence than the delay would make increments
        // late or not by when exactly a batch comes, which is no fault.
        let mut lines: Vec<String> = Vec::new();
        let mut totals = BTreeMap::new();
        let mut silent = BTreeSet::new();
        let mut truth = 0;
        let streams: Vec<(u32, &str)> = (0..6).flat_map(|pod| [(pod, "/a"), (pod, "/b")]).collect();
        let line = |pod: u32, route: &str, time: u64, total: i64| {
            format!("requests{{pod={pod}; route={route}}} cumulative 50..{time} {total}")
        };
        let first: Vec<String> = streams.iter().map(|(pod, route)| line(*pod, route, 110, 0)).collect();
        for time in (115..=200).step_by(5) {
            for (pod, route) in &streams {
                if silent.remove(&(*pod, *route)) || random.random_bool(0.7) {
                    let growth = random.random_range(0..100);
                    let total = totals.entry((*pod, *route)).or_insert(0);
                    *total += growth;
                    truth += growth;
                    lines.push(line(*pod, route, time, *total));
                } else {
                    silent.insert((*pod, *route));
                }
            }
        }
        let last = vec![line(99, "/a", 300, 0)];
        let mut all = Vec::new();
        for size in [1, 2, 7, 40, lines.len()] {
            let mut batches = vec![first.clone()];
            batches.extend(lines.chunks(size).map(<[String]>::to_vec));
            batches.push(last.clone());
            let books = run_local(&plan(json!({"clock": "event"})), &batches);
            assert_eq!(books.total(), truth, "seed {seed}, batches of {size}");
            all.push(books.0);
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: batching shows in the output");
    }
}

/// The engine under a plan, fed batches that the upstream accepts.
fn run_local(plan: &Json, batches: &[Vec<String>]) -> Books {
    let mut local = Local::new(plan.to_string().as_bytes(), "", UnixNanos(0)).expect("a plan");
    let mut books = Books::default();
    for lines in batches {
        let points: Vec<Point> = lines.iter().map(|line| read(line).expect("a point")).collect();
        fold(&mut local, &encode(&points));
        local.tick(UnixNanos(0));
        while let Some((shard, emission)) = local.next_emission(UnixNanos(0)) {
            books.add(&emission.body);
            let sequence = emission.sequence;
            local.answer(shard, sequence, Answer::Accepted, UnixNanos(0));
        }
    }
    books
}

fn fold(local: &mut Local, body: &[u8]) {
    let batch = Batch { body, tenant: b"", sender: b"", arrived: UnixNanos(0) };
    let done = local.process(Framing::Plain, &batch).expect("OTLP");
    local.settle(done.token, Settled::Accepted, UnixNanos(0));
}

fn string(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

/// Two values of 64 bytes that collide in XXH64 for half of all seeds: a top bit flipped in the first stripe, compensated in the second
/// (`filter/tests/hash_adversarial.rs` derives it and shows that it works there).
fn xxh64_pair() -> [Value; 2] {
    let (p1, p2) = (0x9E37_79B1_85EB_CA87_u64, 0xC2B2_AE3D_27D4_EB4F_u64);
    let inverse = (0..6).fold(p2, |x, _| x.wrapping_mul(2_u64.wrapping_sub(p2.wrapping_mul(x))));
    let one = [b'a'; 64];
    let mut two = one;
    two[7] ^= 0x80;
    let word = u64::from_le_bytes(two[32..40].try_into().expect("eight bytes"));
    let back = (1_u64 << 30).wrapping_mul(p1).wrapping_mul(inverse);
    two[32..40].copy_from_slice(&word.wrapping_sub(back).to_le_bytes());
    [one, two].map(|bytes| Value::BytesValue(bytes.to_vec()))
}

/// Dropped labels that an enemy would choose, each list another stream: equal when joined without lengths, when types are rendered, when pairs are XORed or
/// summed before a non-linear step, or under XXH64.
fn hostile_labels() -> Vec<Vec<(String, Value)>> {
    let pairs =
        |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), string(v))).collect::<Vec<_>>();
    let mut all = vec![
        pairs(&[]),
        pairs(&[("user", "ab")]),
        pairs(&[("usera", "b")]),
        pairs(&[("user", "a"), ("pod", "b")]),
        pairs(&[("user", "b"), ("pod", "a")]),
        pairs(&[("user", "a"), ("pod", "a")]),
        pairs(&[("user", "b"), ("pod", "b")]),
        pairs(&[("user", "a\0pod\0b")]),
        pairs(&[("user", "a,pod=b")]),
        pairs(&[("user", "")]),
        pairs(&[("pod", "")]),
        pairs(&[("user", "pod"), ("pod", "user")]),
        pairs(&[("user", "user"), ("pod", "pod")]),
    ];
    let of_user = |value: Value| vec![("user".to_owned(), value)];
    let array = |values: &[Value]| {
        let values = values.iter().map(|value| AnyValue { value: Some(value.clone()) }).collect();
        Value::ArrayValue(ArrayValue { values })
    };
    all.extend(
        [
            string("1"),
            Value::IntValue(1),
            Value::DoubleValue(1.0),
            Value::BoolValue(true),
            string("true"),
            Value::BytesValue(b"1".to_vec()),
            array(&[string("1")]),
            array(&[string("1"), string("")]),
            array(&[string("1"), string("2")]),
            array(&[string("2"), string("1")]),
            array(&[array(&[string("1")]), string("2")]),
            array(&[array(&[string("1"), string("2")])]),
            string("[\"1\"]"),
            string("[\"1\",\"2\"]"),
        ]
        .map(of_user),
    );
    all.extend(xxh64_pair().map(of_user));
    all
}

/// One point for each list of labels.
fn hostile_batch(time: u64, value: impl Fn(usize) -> i64) -> Vec<u8> {
    let lists = hostile_labels();
    let points: Vec<Point> = lists
        .iter()
        .enumerate()
        .map(|(index, labels)| {
            let line = format!("requests{{;}} cumulative 50..{time} {}", value(index));
            let mut point = read(&line).expect("a point");
            for (key, value) in labels {
                let value = Some(AnyValue { value: Some(value.clone()) });
                point.sample.attributes().push(KeyValue { key: key.clone(), value, ..KeyValue::default() });
            }
            assert_eq!(point.kind, Kind::CUMULATIVE);
            point
        })
        .collect();
    encode(&points)
}

fn drop_both_attributes(changes: Json) -> Json {
    let mut plan = plan(changes);
    plan["rules"][0]["fold"]["labels"] = json!({"drop": {"attributes": ["user", "pod"]}});
    plan
}

/// Traps 24 and 36. Fallen into, two of the streams would share a state: the second is out of order (equal times), and its growth is missing in the total.
#[test]
fn trap_24_trap_36_no_two_hostile_streams_share_a_state_under_any_key() {
    let count = hostile_labels().len();
    let truth: i64 = (0..count).map(|index| 1_i64 << index).sum();
    let mut random = ChaCha8Rng::seed_from_u64(36);
    for round in 0..64 {
        let key: String = (0..32).map(|_| format!("{:02x}", random.random::<u8>())).collect();
        let plan = drop_both_attributes(json!({"clock": "event", "hash_key": key}));
        let mut local = Local::new(plan.to_string().as_bytes(), "", UnixNanos(0)).expect("a plan");
        fold(&mut local, &hostile_batch(110, |_| 0));
        fold(&mut local, &hostile_batch(120, |index| 1 << index));
        let page = local.page();
        assert_eq!((page.baselines, page.folded), (count as u64, count as u64), "key {round}: {key}");
        assert_eq!(page.increments_in.int(), i128::from(truth), "key {round}: {key}");
    }
}

/// The same through the built module: the identities of wasm32 and of the host must be equally good.
#[test]
fn trap_24_trap_36_no_two_hostile_streams_share_a_state_in_the_module() {
    let count = hostile_labels().len() as u64;
    let plan = drop_both_attributes(json!({"clock": "event"}));
    let mut process = process(&plan, &Options { workers: 1, ..Options::default() });
    for body in [hostile_batch(110, |_| 0), hostile_batch(120, |index| 1 << index)] {
        let batch = Request { message: body, ..Request::default() };
        let stream = process.send(0, module::request(&batch), 4_096).expect("a request");
        process.respond(stream, ok()).expect("an answer");
    }
    process.advance(TICK * 2).expect("ticks");
    assert_eq!((process.gauge("phoenix_streams"), process.counter("phoenix_folded")), (count, count));
}

/// A pod that exports totals, and what it has counted.
struct Pod {
    name: String,
    start_ns: u64,
    total: i64,
    sent: i64,
}

/// Trap 26. Fallen into, each worker would fold the part of a stream that it happened to see: totals inflate with the workers, one series gets several points a
/// window, and a record that the queue delivers late is read as a reset. Here: clients change workers between requests, queue callbacks come in any order and late, pushes move the
/// queues, upstreams refuse, clients leave; in the end every total is exact, once.
#[test]
fn trap_26_records_go_to_one_owner_whatever_the_interleaving() {
    for workers in [2, 4] {
        for seed in 0..12 {
            let what = format!("{workers} workers, seed {seed}");
            let options =
                Options { workers, delivery: Delivery::Manual, order_seed: Some(seed), ..Options::default() };
            one_owner(&options, seed, &what);
        }
    }
}

fn one_owner(options: &Options, seed: u64, what: &str) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut process = process(&plan(json!({"shards": 1 + seed % 3})), options);
    let mut books = Books::default();
    // Watching begins with the first request; every pod is born after it.
    let warm = process.send(0, request(&["other{;} gauge -..1 1".to_owned()]), 999).expect("a request");
    process.respond(warm, ok()).expect("an answer");
    process.advance(Duration::from_secs(1)).expect("ticks");
    let mut pods: Vec<Pod> = Vec::new();
    let mut deltas = 0;
    for round in 0..160_u64 {
        if pods.len() < 8 {
            let start_ns = process.now_nanos();
            pods.push(Pod { name: format!("p{}", pods.len()), start_ns, total: 0, sent: 0 });
        }
        process.advance(Duration::from_millis(random.random_range(100..900))).expect("ticks");
        let now_ns = process.now_nanos();
        let pod = pods.choose_mut(&mut random).expect("a pod");
        pod.total += random.random_range(0..50);
        let delta = random.random_range(0..50);
        let (start, now) = (seconds(pod.start_ns), seconds(now_ns));
        let lines = [
            format!("requests{{pod={}; route=/a}} cumulative {start}..{now} {}", pod.name, pod.total),
            format!("requests.delta{{pod={};}} delta {}..{now} {delta}", pod.name, seconds(now_ns - 1)),
        ];
        let worker = random.random_range(0..options.workers);
        let stream = process.send(worker, request(&lines), 64).expect("a request");
        match random.random_range(0..10) {
            0 => process.disconnect(stream).expect("a client that leaves"),
            1 => process.fail_upstream(stream, Failure::Reset).expect("a broken upstream"),
            2 => process.respond(stream, Message::response(503, "")).expect("a refusal"),
            _ => {
                process.respond(stream, ok()).expect("an answer");
                pod.sent = pod.sent.max(pod.total);
                deltas += delta;
            }
        }
        process.forget(stream);
        let ready = process.ready().len();
        if ready > 0 && random.random_bool(0.5) {
            process.deliver(random.random_range(0..ready)).expect("a queue callback");
        }
        if round % 40 == 20 {
            let plan = plan(json!({"shards": 1 + seed % 3, "version": round + 2}));
            assert_eq!(process.push(&config(&plan)).expect("a push"), Push::Accepted, "{what}");
        }
    }
    drain(&mut process, &mut books, Duration::from_secs(40));
    let cumulative: i64 = pods.iter().map(|pod| pod.sent).sum();
    let delta: i64 =
        books.0.iter().filter(|((labels, _), _)| labels.starts_with("requests.delta")).map(|(_, v)| v).sum();
    books.0.retain(|(labels, _), _| !labels.starts_with("requests.delta"));
    assert_eq!((books.total(), delta), (cumulative, deltas), "{what}");
    assert_eq!(books.series(), 1, "{what}: one writer, one series");
    for name in ["bugs", "resets", "refused", "carried", "rebaselines"] {
        assert_eq!(process.counter(&format!("phoenix_{name}")), 0, "{what}: {name}");
    }
    assert!(process.counter("phoenix_folded") > 50, "{what}");
}

/// Trap 28. Fallen into, a request would be scanned under one plan and settled under another: cut out and never folded, or folded and passed. Three moments of a
/// push: between two pieces of a body, before the answer, and with a new hash key before the answer.
#[test]
fn trap_28_a_request_finishes_under_the_plan_it_started_with() {
    let folding = plan(json!({"clock": "event"}));
    let passing = plan(json!({"clock": "event", "rules": [], "version": 2}));
    let mut process = process(&folding, &Options { workers: 1, ..Options::default() });
    let point = |time: u64, total: i64| format!("requests{{pod=a;}} cumulative 50..{time} {total}");

    // Started while folding, pushed between the pieces: it folds.
    let message = request(&[point(110, 5)]);
    let (first, second) = message.body.split_at(20);
    let stream = process.request(0, message.headers.clone(), false).expect("a request");
    process.request_body(stream, first, false).expect("a piece");
    assert_eq!(process.push(&config(&passing)).expect("a push"), Push::Accepted);
    process.request_body(stream, second, true).expect("a piece");
    assert_eq!(
        process.forwarded(stream).expect("forwarded").body,
        b"",
        "cut out under the plan it started with"
    );
    process.respond(stream, ok()).expect("an answer");

    // Started while passing, pushed between the pieces: it passes.
    let message = request(&[point(115, 7)]);
    let (first, second) = message.body.split_at(20);
    let stream = process.request(0, message.headers.clone(), false).expect("a request");
    process.request_body(stream, first, false).expect("a piece");
    let again = plan(json!({"clock": "event", "version": 3}));
    assert_eq!(process.push(&config(&again)).expect("a push"), Push::Accepted);
    process.request_body(stream, second, true).expect("a piece");
    assert_eq!(process.forwarded(stream).expect("forwarded").body, message.body, "it passes as it came");
    process.respond(stream, ok()).expect("an answer");
    process.advance(TICK * 3).expect("ticks");
    assert_eq!((process.counter("phoenix_baselines"), process.counter("phoenix_passed")), (1, 1));

    // Cut out, pushed before the answer: it folds when the answer comes.
    let stream = process.send(0, request(&[point(120, 9)]), 999).expect("a request");
    assert_eq!(process.push(&config(&passing)).expect("a push"), Push::Accepted);
    process.respond(stream, ok()).expect("an answer");
    process.advance(TICK * 3).expect("ticks");
    assert_eq!(process.counter("phoenix_folded"), 1, "its increment is not lost");

    // Cut out, a new key pushed before the answer: no stream of the old key exists any more. The ledger says so.
    assert_eq!(process.push(&config(&again)).expect("a push"), Push::Accepted);
    let stream = process.send(0, request(&[point(130, 11)]), 999).expect("a request");
    let key = "ff".repeat(32);
    let rekeyed = plan(json!({"clock": "event", "version": 4, "hash_key": key}));
    assert_eq!(process.push(&config(&rekeyed)).expect("a push"), Push::Accepted);
    process.respond(stream, ok()).expect("an answer");
    process.advance(TICK * 3).expect("ticks");
    assert_eq!((process.counter("phoenix_folded"), process.counter("phoenix_refused")), (1, 1));
    assert_eq!(process.counter("phoenix_bugs"), 0);
}

/// Trap 28 on the engine itself: what was scanned under the old plan settles after the new one came.
#[test]
fn trap_28_records_settle_after_a_push() {
    let folding = plan(json!({"clock": "event"})).to_string();
    let mut local = Local::new(folding.as_bytes(), "", UnixNanos(0)).expect("a plan");
    let point = |line: &str| encode(&[read(line).expect("a point")]);
    fold(&mut local, &point("requests{pod=a;} cumulative 50..110 5"));
    let body = point("requests{pod=a;} cumulative 50..120 9");
    let batch = Batch { body: &body, tenant: b"", sender: b"", arrived: UnixNanos(0) };
    let done = local.process(Framing::Plain, &batch).expect("OTLP");
    let passing = plan(json!({"clock": "event", "rules": [], "version": 2})).to_string();
    local.configure(passing.as_bytes(), UnixNanos(0)).expect("a plan");
    local.settle(done.token, Settled::Accepted, UnixNanos(0));
    assert_eq!(local.page().increments_in.int(), 4);
}

/// Trap 34. Fallen into, an emission whose call a push cancelled would wait for ever (its increments lost), would be sent a second time although the first was accepted, or be built anew
/// with other content (counted twice). The replaced root context stays until its call is answered, and no longer.
#[test]
fn trap_34_a_push_that_would_cancel_a_call_loses_and_repeats_nothing() {
    for is_answered in [true, false] {
        let mut process =
            process(&plan(json!({"clock": "event"})), &Options { workers: 1, ..Options::default() });
        for (time, total) in [(110, 5), (120, 9), (130, 12)] {
            let line = format!("requests{{pod=a;}} cumulative 50..{time} {total}");
            let stream = process.send(0, request(&[line]), 999).expect("a request");
            process.respond(stream, ok()).expect("an answer");
        }
        process.advance(TICK * 2).expect("ticks");
        let [(id, sent)] = &process.pending_calls()[..] else { panic!("one emission is in flight") };
        let (id, sent) = (*id, sent.clone());
        assert_eq!(render(&sent.body).len(), 2, "{:?}", render(&sent.body));
        let pushed = config(&plan(json!({"clock": "event", "version": 2})));
        assert_eq!(process.push(&pushed).expect("a push"), Push::Accepted);
        process.advance(Duration::from_secs(2)).expect("ticks");
        assert_eq!(process.calls().len(), 1, "nothing is sent while an answer may come");
        assert_eq!(process.calls()[0].state, CallState::Pending, "nor is the call given up");
        if is_answered {
            process.end_call(id, Outcome::Response(ok())).expect("an answer");
        } else {
            // The call's own timeout of 5 s passes: nobody knows, so the same bytes go out again.
            process.advance(Duration::from_secs(5)).expect("ticks");
            let [(id, again)] = &process.pending_calls()[..] else { panic!("it is sent again, once") };
            assert_eq!(again.body, sent.body, "the same bytes");
            assert_eq!(again.headers.get("x-phoenix-emission"), sent.headers.get("x-phoenix-emission"));
            assert_ne!(again.root, sent.root, "from the new root context");
            process.end_call(*id, Outcome::Response(ok())).expect("an answer");
        }
        process.advance(Duration::from_secs(20)).expect("ticks");
        assert_eq!(
            process.calls().len(),
            if is_answered { 1 } else { 2 },
            "once answered it never comes again"
        );
        assert_eq!(process.counter("phoenix_emissions"), 1);
        assert_eq!(process.gauge("phoenix_backlog_bytes"), 0);
        assert_eq!(process.roots(VmId::Worker(0)).len(), 1, "the replaced root context is gone");
    }
}

/// Trap 34 with a push at every tick, each while the call of the one before waits: no total is off, and no point comes twice.
#[test]
fn trap_34_pushes_faster_than_answers_lose_no_total() {
    let mut process =
        process(&plan(json!({"clock": "event"})), &Options { workers: 2, ..Options::default() });
    let mut books = Books::default();
    let mut version = 1;
    for (index, time) in (110..=300).step_by(10).enumerate() {
        let line = format!("requests{{pod=a;}} cumulative 50..{time} {}", index * 3);
        let stream = process.send(index % 2, request(&[line]), 999).expect("a request");
        process.respond(stream, ok()).expect("an answer");
        process.advance(TICK).expect("ticks");
        version += 1;
        process.push(&config(&plan(json!({"clock": "event", "version": version})))).expect("a push");
    }
    let line = "requests{pod=b;} cumulative 50..400 0".to_owned();
    let stream = process.send(0, request(&[line]), 999).expect("a request");
    process.respond(stream, ok()).expect("an answer");
    drain(&mut process, &mut books, Duration::from_secs(60));
    assert_eq!((books.total(), books.series()), (19 * 3, 1));
    assert_eq!(process.counter("phoenix_bugs"), 0);
}
