//! Budgets and several workers, on the built module under the test host: interleavings that a real Envoy does not repeat, and a clock that jumps.
//!
//! In: seeds. Each sends some streams through workers in any order, queue callbacks come late, pushes come in between, the upstream refuses, clients leave. Asked: each stream is raw through all workers or
//! folded through all; never more raw streams than the share; the fold has what was acknowledged and did not pass, once. What is not proven here: races of real threads
//! (`host-test/tests/envoy_budgets.rs`).

use phoenix_host_test::cases::language::Batch as Request;
use phoenix_host_test::cases::points::{Point, encode, read, render};
use phoenix_host_test::cases::{Case, module};
use phoenix_host_test::proxy_host::{
    Cluster, Delivery, Failure, Message, Module, Options, Outcome, Process, Push,
};
use phoenix_host_test::sink::{Books, BooksConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SHARE: usize = 20;
const DAY: Duration = Duration::from_secs(86_400);

fn plan(version: u64) -> Value {
    json!({
        "schema": 1, "version": version, "writer": "w", "first_sample_margin": "0s", "rules": [],
        "hash_key": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "measure": {"period": "10m"},
        "budgets": {
            "tenants": [{"active_series": 1_000}],
            "metrics": [{"metric": {"prefix": "hits"}, "active_series": SHARE}],
            "dwell": "10s", "switch_lead": "10s", "fold": {"window": "10s", "offset": "0s", "delay": "10s"}
        }
    })
}

fn config(version: u64) -> Vec<u8> {
    Case::plugin_config(&plan(version).to_string()).expect("a configuration").into_bytes()
}

fn request(lines: &[String]) -> Message {
    let points: Vec<Point> = lines.iter().map(|line| read(line).expect("a point")).collect();
    module::request(&Request { message: encode(&points), ..Request::default() })
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// A stream of deltas.
#[derive(Default)]
struct Stream {
    labels: String,
    last_ns: u64,
    /// Raw, folded.
    fates: BTreeSet<bool>,
}

/// What a run does beside sending.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    /// Refusals, clients that leave, late queues, pushes.
    Usual,
    /// The same, and a clock that is set by days, both ways; senders' clocks with it.
    Clock,
}

/// What is known of a run.
struct Run {
    process: Process,
    workers: usize,
    random: ChaCha8Rng,
    streams: Vec<Stream>,
    what: String,
    /// Acknowledged and not forwarded.
    folded: i128,
    books: Books,
}

impl Run {
    fn new(workers: usize, seed: u64, trouble: Trouble) -> Run {
        let options =
            Options { workers, delivery: Delivery::Manual, order_seed: Some(seed), ..Options::default() };
        let module = Module::built().expect("cargo xtask build");
        let mut process = Process::start(&module, &options, &config(1)).expect("a process");
        process.set_cluster("phoenix_emit", Cluster::Scripted);
        let books = Books::new(BooksConfig { run_start_ns: 1, ..BooksConfig::default() });
        let what = format!(
            "{workers} workers, seed {seed}, {}",
            if trouble == Trouble::Clock { "clock" } else { "usual" }
        );
        let random = ChaCha8Rng::seed_from_u64(seed);
        let mut run = Run { process, workers, random, streams: Vec::new(), what, folded: 0, books };
        for worker in 0..workers {
            run.send(worker, &["other{;} gauge -..1 1".to_owned()], 9);
        }
        run.process.advance(Duration::from_secs(3)).expect("ticks");
        run
    }

    /// Sends lines through a worker; what was forwarded, and whether it was acknowledged. `luck`: up to 2 something goes wrong.
    fn send(&mut self, worker: usize, lines: &[String], luck: u32) -> (Vec<String>, bool) {
        let stream = self.process.send(worker, request(lines), 700).expect("a request");
        let forwarded = render(&self.process.forwarded(stream).expect("forwarded").body);
        let is_good = luck > 2;
        match luck {
            0 => self.process.disconnect(stream).expect("a client that leaves"),
            1 => self.process.fail_upstream(stream, Failure::Reset).expect("a broken upstream"),
            2 => self.process.respond(stream, Message::response(503, "")).expect("a refusal"),
            _ => self.process.respond(stream, Message::response(200, "")).expect("an answer"),
        }
        self.process.forget(stream);
        (forwarded, is_good)
    }

    /// Some streams, through one worker.
    fn export(&mut self, worker: usize) {
        let now_ns = self.process.now_nanos();
        let (mut lines, mut sent) = (Vec::new(), Vec::new());
        for at in 0..self.streams.len() {
            if self.random.random_bool(0.4) {
                let amount = self.random.random_range(1..100_i64);
                let stream = &mut self.streams[at];
                // A clock that was set back makes no interval that begins after its end.
                let start_ns = stream.last_ns.min(now_ns - 1).max(now_ns.saturating_sub(1_000_000_000));
                stream.last_ns = now_ns;
                let line = format!(
                    "hits{{; {}}} delta {}..{} {amount}",
                    stream.labels,
                    seconds(start_ns),
                    seconds(now_ns)
                );
                lines.push(line);
                sent.push((at, amount));
            }
        }
        if lines.is_empty() {
            return;
        }
        let luck = self.random.random_range(0..12);
        let (forwarded, is_good) = self.send(worker, &lines, luck);
        let forwarded: BTreeSet<String> = forwarded.iter().map(|line| name_of(line)).collect();
        for (line, (at, amount)) in lines.iter().zip(sent) {
            let is_raw = forwarded.contains(&name_of(line));
            self.streams[at].fates.insert(is_raw);
            if is_good && !is_raw {
                self.folded += i128::from(amount);
            }
        }
    }

    fn step(&mut self, trouble: Trouble) {
        if self.streams.len() < 80 {
            // One at a time and many at once, with the label that leaks and without it.
            for _ in 0..[1, 1, 2, 15][self.random.random_range(0..4)] {
                let (n, route) = (self.streams.len(), self.random.random_range(0..3));
                let labels = if n % 9 == 0 {
                    format!("route=/r{route}, kind=k{n}")
                } else {
                    format!("route=/r{route}, user=u{n}")
                };
                self.streams.push(Stream { labels, ..Stream::default() });
            }
        }
        let step = Duration::from_millis(self.random.random_range(100..900));
        self.process.advance(step).expect("ticks");
        if trouble == Trouble::Clock && self.random.random_bool(0.1) {
            let now_ns = self.process.now_nanos();
            let jump = u64::try_from(DAY.as_nanos()).expect("a day") * self.random.random_range(1..4);
            self.process.step_clock(if self.random.random_bool(0.5) { now_ns + jump } else { now_ns - jump });
        }
        let worker = self.random.random_range(0..self.workers);
        self.export(worker);
        let ready = self.process.ready().len();
        if ready > 0 && self.random.random_bool(0.5) {
            self.process.deliver(self.random.random_range(0..ready)).expect("a queue callback");
        }
        self.answer();
    }

    fn answer(&mut self) {
        while let Some((id, call)) = self.process.pending_calls().into_iter().next() {
            self.process.end_call(id, Outcome::Response(Message::response(200, ""))).expect("an answer");
            self.books.add("", &call.body).expect("OTLP");
        }
    }

    fn drain(&mut self) {
        for _ in 0..60 {
            self.process.deliver_all().expect("queues");
            self.process.advance(Duration::from_secs(1)).expect("ticks");
            self.answer();
        }
    }

    fn counter(&self, name: &str) -> u64 {
        self.process.counter(&format!("phoenix_{name}"))
    }
}

/// A line without its times and its value.
fn name_of(line: &str) -> String {
    line.split("} delta").next().unwrap_or_default().to_owned().replace(' ', "")
}

fn run(workers: usize, seed: u64, trouble: Trouble) -> Run {
    let mut run = Run::new(workers, seed, trouble);
    for round in 0..120 {
        run.step(trouble);
        if round % 30 == 20 {
            assert_eq!(run.process.push(&config(round + 2)).expect("a push"), Push::Accepted, "{}", run.what);
        }
    }
    run.drain();
    let what = &run.what;
    for name in ["bugs", "undecided", "refused", "carried", "rebaselines"] {
        assert_eq!(run.counter(name), 0, "{what}: {name}");
    }
    assert_eq!(run.counter("points"), run.counter("passed") + run.counter("recorded"), "{what}");
    run
}

/// Trap 30. Fallen into, a worker that does not know what another one decided would decide by itself: twice the share is raw, and streams have gaps.
#[test]
fn trap_30_one_decision_a_process_whatever_the_interleaving() {
    for workers in [2, 4] {
        for seed in 0..10 {
            let run = run(workers, seed, Trouble::Usual);
            let what = &run.what;
            let mixed: Vec<&str> =
                run.streams.iter().filter(|it| it.fates.len() > 1).map(|it| it.labels.as_str()).collect();
            assert!(mixed.is_empty(), "{what}: raw and folded: {mixed:?}");
            let raw = run.streams.iter().filter(|it| it.fates.contains(&true)).count();
            assert!((1..=SHARE).contains(&raw) && run.streams.len() >= 80, "{what}: {raw} raw streams");
            let folded = run.books.metric("hits").expect("a fold").folded.total(1).ints;
            assert_eq!(folded, run.folded, "{what}: what is in the fold");
            let (admitted, series) =
                (run.process.gauge("phoenix_admitted_series"), run.process.gauge("phoenix_budget_series"));
            assert!(
                admitted as usize >= raw && admitted + series <= SHARE as u64 + 1,
                "{what}: {admitted} and {series}"
            );
            assert_eq!(run.process.gauge("phoenix_contained_metrics"), 1, "{what}");
            // Every worker took part.
            assert!(run.counter("contained") > 100, "{what}");
        }
    }
}

/// A clock that is set by days, to and fro, senders' clocks with it: what was decided stands, no share grows, every point is somewhere.
#[test]
fn a_clock_that_jumps_by_days_changes_no_decision() {
    for workers in [1, 3] {
        for seed in 0..8 {
            let run = run(workers, seed, Trouble::Clock);
            let what = &run.what;
            let raw: BTreeMap<&str, usize> = run
                .streams
                .iter()
                .filter(|it| it.fates.contains(&true))
                .map(|it| (it.labels.as_str(), it.fates.len()))
                .collect();
            assert!((1..=SHARE).contains(&raw.len()), "{what}: {} raw streams", raw.len());
            assert!(raw.values().all(|fates| *fates == 1), "{what}: raw and folded: {raw:?}");
            let (admitted, series) =
                (run.process.gauge("phoenix_admitted_series"), run.process.gauge("phoenix_budget_series"));
            assert!(admitted + series <= SHARE as u64 + 1, "{what}: {admitted} and {series}");
        }
    }
}
