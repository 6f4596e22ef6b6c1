//! Sink and Envoy on a stage, and the books between them.
//!
//! In: a [`Setup`]. Out: a [`Stage`]: it sends good requests and remembers their total, asks for counters, pushes plans, and at the end
//! [`Stage::settle`]s: every acknowledged increment is at the sink once, the module's own books balance, no VM has crashed, nothing is on its way.

use super::call::{Call, Reply, Wire};
use super::otlp::{self, FOLDED};
use phoenix_host_test::demo::judge::WARM_UP_METRIC;
use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::envoy::{Envoy, EnvoyOptions, config};
use phoenix_host_test::shop::run::unix_ns;
use phoenix_host_test::sink::{BooksConfig, Received, Sink};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

/// Envoys at a time in one test binary.
static ENVOYS: Semaphore = Semaphore::const_new(2);
/// How long something that must come may take: far longer than it ever does.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often to look.
const LOOK: Duration = Duration::from_millis(50);
/// No test needs more than this: two workers with a few copies of a 64 MiB body each, and Envoy itself.
pub const RESIDENT_BYTES_MAX: u64 = 1 << 30;

/// The module as `cargo xtask build` leaves it.
pub fn module() -> PathBuf {
    let folder = std::env::var_os("PHOENIX_WASM_DIR")
        .map_or_else(|| config::project().join("target/phoenix"), PathBuf::from);
    let module = folder.join("phoenix_envoy.wasm");
    assert!(module.is_file(), "no module at {}: run `cargo xtask build`", module.display());
    module
}

/// What to put on the stage.
pub struct Setup {
    /// Plugin configuration.
    pub plugin: Value,
    /// Workers.
    pub workers: u32,
    /// Text in `gateway.yaml`, and what to put in its place.
    pub edits: Vec<(String, String)>,
    /// Clusters more, as YAML at the indent of the list.
    pub clusters: String,
}

impl Setup {
    /// One worker: whatever kills it is seen by the next request.
    pub fn one_worker(plugin: Value) -> Setup {
        Setup { plugin, workers: 1, edits: Vec::new(), clusters: String::new() }
    }

    /// So many workers.
    pub fn workers(plugin: Value, workers: u32) -> Setup {
        Setup { workers, ..Setup::one_worker(plugin) }
    }
}

/// Sink and Envoy.
pub struct Stage {
    /// The judge.
    pub sink: Sink,
    /// The gateway.
    pub envoy: Envoy,
    /// What the folded counter must add up to.
    pub expected: i128,
    _permit: SemaphorePermit<'static>,
}

impl Stage {
    /// Starts both.
    pub async fn start(setup: Setup) -> Stage {
        let binary = find_binary().expect("these tests need a real Envoy");
        let permit = ENVOYS.acquire().await.expect("a semaphore that nobody closes");
        let books = BooksConfig { run_start_ns: unix_ns(), ..BooksConfig::default() };
        let sink = Sink::start(books).await.expect("sink");
        sink.keep_requests();
        let options = EnvoyOptions {
            binary,
            module: module(),
            plugin_config: setup.plugin.to_string(),
            upstream: sink.address(),
            workers: setup.workers,
            folder: None,
            drain_seconds: 1,
        };
        let (edits, clusters) = (setup.edits, setup.clusters);
        let edit = |mut yaml: String| {
            for (from, to) in &edits {
                assert!(yaml.contains(from), "envoy/gateway.yaml does not hold {from:?}");
                yaml = yaml.replace(from, to);
            }
            format!("{}\n{clusters}", yaml.trim_end())
        };
        let envoy = Envoy::start_edited(options, edit).await.expect("Envoy");
        Stage { sink, envoy, expected: 0, _permit: permit }
    }

    /// Makes a call.
    pub async fn call(&self, call: Call) -> Option<Reply> {
        call.send(self.envoy.address()).await
    }

    /// Every worker has served a request, and the margin for the first sample is over.
    pub async fn warm_up(&self) {
        let body = otlp::request("warm-up", vec![otlp::gauge(WARM_UP_METRIC, 1)]);
        for _ in 0..32 {
            let reply = self.call(Call::http(Wire::Http1, body.clone())).await;
            assert_eq!(reply.as_ref().map(|r| r.status), Some(200), "{reply:?}\n{}", self.log());
        }
        // Twice the heartbeat of owners: every worker knows them all. And more than the plan's margin.
        sleep(Duration::from_secs(2)).await;
    }

    /// A good request, which must be answered well and counts.
    pub async fn good(&mut self) {
        let value = otlp::unique() as i64;
        let reply = self.call(Call::http(Wire::Http1, otlp::good(value))).await;
        assert_eq!(reply.as_ref().map(|r| r.status), Some(200), "a good request: {reply:?}\n{}", self.log());
        self.expected += i128::from(value);
    }

    /// The module's counters, by name without prefix.
    pub async fn counters(&self) -> BTreeMap<String, i64> {
        let stats = self.envoy.stats("wasmcustom").await.expect("stats");
        let name = |name: String| name.trim_start_matches("wasmcustom.phoenix_").to_owned();
        stats.into_iter().map(|(n, value)| (name(n), value)).collect()
    }

    /// One counter; 0 when it was never shown.
    pub async fn counter(&self, name: &str) -> i64 {
        self.counters().await.get(name).copied().unwrap_or(0)
    }

    /// Waits until a counter is at least so high, and returns it.
    pub async fn counter_reaches(&self, name: &str, least: i64) -> i64 {
        let begin = Instant::now();
        loop {
            let counters = self.counters().await;
            let value = counters.get(name).copied().unwrap_or(0);
            if value >= least {
                return value;
            }
            assert!(begin.elapsed() < PATIENCE, "{name} is not {least}: {counters:?}\n{}", self.log());
            sleep(LOOK).await;
        }
    }

    /// Pushes a plugin configuration and waits until Envoy has taken it.
    pub async fn push(&mut self, plugin: &Value) {
        self.push_and_wait(plugin, |before, now| now.0 > before.0).await;
    }

    /// Pushes a plugin configuration and waits until Envoy has refused it.
    pub async fn push_refused(&mut self, plugin: &Value) {
        self.push_and_wait(plugin, |before, now| now.1 > before.1).await;
    }

    async fn push_and_wait(&mut self, plugin: &Value, verdict: impl Fn((i64, i64), (i64, i64)) -> bool) {
        let before = self.envoy.pushes().await.expect("stats");
        self.envoy.push(&plugin.to_string()).expect("push");
        let begin = Instant::now();
        loop {
            let now = self.envoy.pushes().await.expect("stats");
            if verdict(before, now) {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "not the verdict on a push: {before:?} {now:?} {:?}\n{}",
                self.envoy.stats("extension_config_discovery").await,
                self.log()
            );
            sleep(LOOK).await;
        }
    }

    /// The requests that carried emissions, in order of arrival.
    pub fn emissions(&self) -> Vec<Received> {
        let mut requests = self.sink.requests();
        requests.retain(|r| r.headers.contains_key("x-phoenix-emission"));
        requests
    }

    /// What the folded counter adds up to at the sink, folded and raw.
    pub fn total(&self, metric: &str) -> i128 {
        let books = self.sink.books();
        let of_metric = books.metrics.iter().filter(|((_, name), _)| name == metric);
        of_metric.map(|(_, book)| book.total(books.config.run_start_ns).ints).sum()
    }

    /// Waits until the sink has so much of a metric, and makes sure that it does not get more.
    pub async fn total_becomes(&self, metric: &str, expected: i128) {
        let begin = Instant::now();
        while self.total(metric) != expected {
            assert!(
                begin.elapsed() < PATIENCE,
                "{metric}: {} instead of {expected}\n{:?}\n{}",
                self.total(metric),
                self.counters_now().await,
                self.log()
            );
            sleep(LOOK).await;
        }
        self.nothing_on_its_way().await;
        assert_eq!(self.total(metric), expected, "{metric} got more");
    }

    async fn counters_now(&self) -> BTreeMap<String, i64> {
        self.counters().await.into_iter().filter(|(_, value)| *value != 0).collect()
    }

    /// Waits until every window has closed and every emission was answered.
    pub async fn nothing_on_its_way(&self) {
        // A window and a delay, both a second, and a few ticks: what is open now has closed after that.
        sleep(Duration::from_millis(2_300)).await;
        let begin = Instant::now();
        while self.counter("backlog_bytes").await != 0 {
            assert!(begin.elapsed() < PATIENCE, "emissions that nobody answers:\n{}", self.log());
            sleep(LOOK).await;
        }
    }

    /// The end of a test: all that was acknowledged is there, the books balance, no VM has crashed.
    pub async fn settle(mut self) -> Stage {
        self.total_becomes(FOLDED, self.expected).await;
        let findings = self.sink.books().findings();
        assert!(findings.is_empty(), "{}", findings[0]);
        self.balance().await;
        self.alive().await;
        self
    }

    /// The module's own books.
    pub async fn balance(&self) {
        let begin = Instant::now();
        loop {
            let c = self.counters().await;
            let of = |name: &str| c.get(name).copied().unwrap_or(0);
            let points = of("passed") + of("recorded") + of("no_value");
            let settled = [
                "folded",
                "baselines",
                "out_of_order",
                "duplicates",
                "overlaps",
                "refused",
                "unanswered",
                "upstream_refused",
            ];
            let records: i64 = settled.iter().map(|name| of(name)).sum();
            // Points that pass with a record around a switch: it only moves a baseline, or brings what came to be before.
            let watched = of("watched");
            let carried = if watched > 0 { of("carried") } else { 0 };
            if points == of("points") && records + carried == of("recorded") + watched && of("bugs") == 0 {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(5), "the books do not balance: {c:?}");
            sleep(LOOK).await;
        }
    }

    /// Envoy runs, and none of its VMs has crashed.
    pub async fn alive(&mut self) {
        assert!(self.envoy.is_running(), "Envoy has ended:\n{}", self.log());
        let log = self.log();
        for word in ["crash", "panicked", "RuntimeError", "Uncaught"] {
            assert!(!log.contains(word), "{word:?} in the log:\n{log}");
        }
        let stats = self.envoy.stats("wasm").await.expect("stats");
        let bad = |name: &str| {
            ["crash", "fail", "reload", "error"].iter().any(|w| name.contains(w)) && name.starts_with("wasm.")
        };
        let bad: Vec<_> = stats.iter().filter(|(name, value)| bad(name) && **value != 0).collect();
        assert!(bad.is_empty(), "{bad:?}\n{log}");
    }

    /// The end of Envoy's log.
    pub fn log(&self) -> String {
        let log = self.envoy.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}
