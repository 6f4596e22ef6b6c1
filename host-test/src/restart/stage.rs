//! A gateway, its successor and the sink, with what is asked of them.
//!
//! In: programs, the plan's writer. Out: a [`Stage`] with traffic on it, facts to wait for, and in the end the books. Nothing here waits for a fixed time where
//! it can wait for a fact; a busy machine is slow, not wrong.

use super::account::{self, Life, Line, Upto};
use super::traffic::{CPU, Kind, PASSING, POD, REQUESTS, ROUTES, SECOND_NS, Stream, Traffic};
use super::{GATEWAY_HEADER, Programs, Report};
use crate::envoy::{Envoy, EnvoyOptions};
use crate::figure::Unit;
use crate::shop::run::unix_ns;
use crate::sink::{Books, BooksConfig, Sink};
use anyhow::ensure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Windows and delay of the plan: the shortest window, and a delay of four export intervals, so that hardly anything is late on a busy machine.
pub const WINDOW: Duration = Duration::from_secs(1);
/// See [`WINDOW`].
pub const DELAY: Duration = Duration::from_secs(2);
/// Longer than the runbook waits on top of window and delay: who skips the wait for the clients to go loses what they still send.
const DRAIN_SECONDS: u32 = 3;
/// A tick of the module closes windows; an emission is there soon after.
const TICKS: Duration = Duration::from_millis(700);
/// Longer than the plan's margin for the first sample (100 ms): a stream that starts so long after a gateway's first answer was born under its eyes.
pub const BIRTH: Duration = Duration::from_millis(400);
/// How long something that must come may take: far longer than it ever does.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look.
const LOOK: Duration = Duration::from_millis(50);
/// Pods that start long before the run.
pub const OLD_PODS: usize = 6;
/// What is folded.
pub const FOLDED: [Kind; 2] = [REQUESTS, CPU];

/// Sink, gateways, traffic.
pub struct Stage {
    /// The judge.
    pub sink: Sink,
    /// The gateways, by number; after a kill the same Envoy has the next number.
    pub envoys: Vec<Envoy>,
    /// The clients.
    pub traffic: Traffic,
    /// By gateway: a stream that starts then or later is counted from zero.
    pub watch_ns: Vec<u64>,
}

/// The plugin configuration; `writer` is the plan's.
pub fn plugin(writer: Option<&str>) -> Value {
    let mut document = json!({
        "plan": {
            "schema": 1,
            "version": 1,
            "hash_key": "6b0f6c2ad1934be0a5f3c7719e24d85812b7e06fca43918d5d7e2f60b94c1a83",
            "promoted_resource_attributes": [POD],
            "first_sample_margin": "100ms",
            "rules": [{
                "name": "folded",
                "metric": { "prefix": "fold_" },
                "pipeline": "optimized",
                "fold": {
                    "labels": { "drop": { "resource": [POD], "attributes": ["user_agent"] } },
                    "window": format!("{}s", WINDOW.as_secs()),
                    "delay": format!("{}s", DELAY.as_secs())
                }
            }]
        },
        "envoy": {
            "emit": { "cluster": "phoenix_emit", "protocol": "http", "timeout": "20s" },
            "tick": "100ms"
        }
    });
    if let Some(writer) = writer {
        document["plan"]["writer"] = json!(writer);
    }
    document
}

/// The shipped configuration, whose answers say the gateway's number.
pub fn numbered(gateway: usize) -> impl Fn(String) -> String {
    const DOMAINS: &str = "domains: [\"*\"]\n";
    move |yaml| {
        assert!(yaml.contains(DOMAINS), "envoy/gateway.yaml does not hold {DOMAINS:?}");
        let header = format!("{{ key: {GATEWAY_HEADER}, value: \"{gateway}\" }}");
        yaml.replace(
            DOMAINS,
            &format!("{DOMAINS}              response_headers_to_add: [{{ header: {header} }}]\n"),
        )
    }
}

impl Stage {
    /// So many gateways with two workers each and the sink behind them; old pods begin to export to the first.
    ///
    /// # Errors
    /// A program does not start.
    pub async fn open(programs: &Programs, writer: Option<&str>, gateways: usize) -> anyhow::Result<Stage> {
        let books =
            BooksConfig { run_start_ns: unix_ns(), promoted: vec![POD.to_owned()], ..Default::default() };
        let sink = Sink::start(books).await?;
        sink.keep_requests();
        let mut envoys = Vec::new();
        for gateway in 0..gateways {
            let options = EnvoyOptions {
                binary: programs.envoy.clone(),
                module: programs.module.clone(),
                plugin_config: plugin(writer).to_string(),
                upstream: sink.address(),
                workers: 2,
                folder: None,
                drain_seconds: DRAIN_SECONDS,
            };
            envoys.push(Envoy::start_edited(options, numbered(gateway)).await?);
        }
        let addresses = envoys.iter().map(Envoy::address).collect();
        let traffic = Traffic::open(addresses, OLD_PODS);
        let mut stage = Stage { sink, envoys, traffic, watch_ns: Vec::new() };
        stage.all_served_by(0).await?;
        Ok(stage)
    }

    /// Waits until a gateway has taken an export of every pod; from then on it sees births.
    ///
    /// # Errors
    /// It does not happen.
    pub async fn all_served_by(&mut self, gateway: usize) -> anyhow::Result<()> {
        let what = format!("every pod at gateway {gateway}");
        self.until(&what, |s| (0..s.traffic.pods()).all(|pod| s.traffic.taken(pod, gateway) > 0)).await?;
        sleep(BIRTH).await;
        self.watch_ns.push(unix_ns());
        Ok(())
    }

    /// Waits for a fact.
    ///
    /// # Errors
    /// It does not come.
    pub async fn until(&self, what: &str, mut done: impl FnMut(&Stage) -> bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !done(self) {
            ensure!(begin.elapsed() < PATIENCE, "{what}: {:?}\n{}", self.traffic.fates(), self.log());
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// The end of the last window that is at the sink for every folded series of the newest writer's life.
    pub fn emitted_to_ns(&self) -> u64 {
        let books = self.sink.books();
        let newest = |kind| {
            let lives = account::lives(&books, kind);
            let newest = |route| lives.get(route)?.last().map(|life: &Life| life.last_ns);
            ROUTES.map(|route| newest(route).unwrap_or(0)).into_iter().min().unwrap_or(0)
        };
        FOLDED.map(newest).into_iter().min().unwrap_or(0)
    }

    /// The module's counters, by name without prefix.
    ///
    /// # Errors
    /// The admin port does not answer.
    pub async fn counters(&self, envoy: usize) -> anyhow::Result<BTreeMap<String, i64>> {
        let stats = self.envoys[envoy].stats("wasmcustom").await?;
        let name = |name: String| name.trim_start_matches("wasmcustom.phoenix_").to_owned();
        Ok(stats.into_iter().map(|(n, value)| (name(n), value)).collect())
    }

    /// How many points of its own came late, so far.
    ///
    /// # Errors
    /// The admin port does not answer.
    pub async fn late(&self, envoy: usize) -> anyhow::Result<i64> {
        Ok(self.counters(envoy).await?.get("late").copied().unwrap_or(0))
    }

    /// Traffic ends; waits until every window has closed and every emission was answered.
    ///
    /// # Errors
    /// It does not happen.
    pub async fn settle(&mut self, envoy: usize) -> anyhow::Result<()> {
        self.traffic.stop().await;
        let begin = Instant::now();
        // A part that came late stands in a window that is open now: it closes after a window and the delay at most.
        sleep(WINDOW + DELAY + TICKS).await;
        let mut calm = 0;
        while calm < 3 {
            let backlog = self.counters(envoy).await?.get("backlog_bytes").copied().unwrap_or(0);
            calm = if backlog == 0 { calm + 1 } else { 0 };
            ensure!(begin.elapsed() < PATIENCE, "emissions that nobody answers:\n{}", self.log());
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// The books, per folded metric and route, and the lives of each.
    ///
    /// # Errors
    /// A series has more or fewer lives than there were gateways.
    pub fn account(&self, streams: &[Stream], upto: Upto) -> anyhow::Result<Vec<(Line, Vec<Life>)>> {
        let books = self.sink.books();
        let mut lines = Vec::new();
        for kind in FOLDED {
            let mut lives = account::lives(&books, kind);
            for route in ROUTES {
                let lives = lives.remove(route).unwrap_or_default();
                ensure!(
                    lives.len() == self.watch_ns.len(),
                    "{} {route}: written in {} lives by {} gateways: {lives:#?}",
                    kind.name,
                    lives.len(),
                    self.watch_ns.len()
                );
                lines.push((account::line(streams, kind, route, &self.watch_ns, &lives, upto), lives));
            }
        }
        Ok(lines)
    }

    /// What every scene asks: series that are well formed, passing points untouched, nothing folded that arrives raw.
    pub fn judge_the_rest(&self, streams: &[Stream], report: &mut Report) {
        let books = self.sink.books();
        let raw: u64 =
            FOLDED.iter().filter_map(|kind| books.metric(kind.name)).map(|book| book.raw.points).sum();
        report.at_most("raw", "points of folded metrics that arrived raw", Unit::Count, raw as f64, 0.0);
        report.none_of("anomalies", "anomalies of folded series at the sink", anomalies(&books));
        let (missing, surplus) = account::passing(streams, &books, PASSING);
        let what = "passing points that did not arrive";
        report.at_most("passing.missing", what, Unit::Count, missing as f64, 0.0);
        // What was sent and never answered may have arrived, and comes again.
        let of_one = streams.iter().filter(|s| s.kind == PASSING && s.pod == "old-0").count();
        let unanswered = self.traffic.fates().unanswered as usize * of_one;
        let what = "passing points that came twice or from nowhere";
        report.at_most("passing.surplus", what, Unit::Count, surplus as f64, unanswered as f64);
    }

    /// The end of every Envoy's log.
    pub fn log(&self) -> String {
        let tail = |envoy: &Envoy| {
            let log = envoy.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(12)..].join("\n")
        };
        self.envoys.iter().map(tail).collect::<Vec<_>>().join("\n--\n")
    }
}

fn anomalies(books: &Books) -> Vec<String> {
    let findings = books.findings();
    let folded = findings.iter().filter(|f| FOLDED.iter().any(|kind| kind.name == f.metric));
    folded.map(ToString::to_string).collect()
}

/// Seconds, for a figure.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND_NS as f64
}
