//! Collect, estimate and decide for a whole fleet, on one core.
//!
//! In: the fleet's size, rounds. Out: CPU time of a round of reports and of a turn, bytes of reports and plans, reports that were refused, and the peak of this process'
//! resident memory. Only what the stages do is timed: reports are made one at a time, and thrown away when they are taken. The first turn decides on everything;
//! those that follow are the usual case. The peak of memory is that of the whole process so far, so this part runs first.

use super::reports::{EPOCH_NS, Fleet, TENANTS};
use crate::figures::{Figures, Target, number, row, table};
use crate::measure::{median, timed};
use anyhow::Context as _;
use comfy_table::Table;
use phoenix_control::collect::{Collector, Settings};
use phoenix_control::decide::{Decided, Previous, decide};
use phoenix_control::estimate::estimate;
use phoenix_control::needs::{Declared, Needs};
use phoenix_control::policy::Policy;
use phoenix_serve::publish::extension::Module;
use prost::Message as _;
use serde_json::json;
use std::collections::BTreeMap;

/// Resident memory of a control host for a thousand embedders.
pub const MEMORY_MAX: f64 = (512_u64 << 20) as f64;
/// CPU time of one core between two decisions: what comes in and what is decided must fit.
const INTERVAL_S: f64 = 30.0;
/// Rounds of reports, a turn after each. The first begins with nothing, so the median of the others is given.
const ROUNDS: u64 = 4;

/// The hash key of all plans.
const HASH_KEY: &str = "8f2c1e5d90ab374466e1f0827bb3c95a17d4e86f2390bc51ae7d60f4895b12cd";

/// What was found.
pub struct Outcome {
    /// The parts of each round.
    pub table: Table,
    /// The first reasons of refused reports.
    pub refusals: Vec<String>,
}

/// The policy of the fleet: budgets a tenth below what is there, so that something has to fold.
///
/// # Errors
/// The policy is refused.
pub fn policy(embedders: usize, metrics: usize, interval: &str) -> anyhow::Result<Policy> {
    Ok(Policy::parse(&policy_text(embedders, metrics, interval))?)
}

/// The same as text.
pub fn policy_text(embedders: usize, metrics: usize, interval: &str) -> String {
    let fleet = Fleet { embedders, workers: 1, metrics, key: 0, began_ns: EPOCH_NS };
    let tenants = (0..TENANTS).map(|at| {
        let budget = (fleet.streams_of(at) * 0.9).round().max(1.0);
        format!("- {{ name: team-{at}, active_series: {budget} }}\n")
    });
    let tenants: String = tenants.collect();
    format!(
        "schema: 1\nmode: auto\ninterval: {interval}\nplan:\n  hash_key: {HASH_KEY}\n  measure: {{ period: 30m }}\n  \
         stream_expiry: 5m\nchange: {{ per_hour_max: 100 }}\ntenants:\n{tenants}"
    )
}

/// What dashboards ask: nobody for users or pods.
fn needs() -> Needs {
    let query = |name: &str| Declared {
        place: name.to_owned(),
        text: format!("sum by (http_route, http_request_method) (rate({name}[5m]))"),
        weight: 1,
        preserve: false,
    };
    Needs::new((0..20).map(|rank| query(&format!("http_service_operation_{:04}", rank * 4))))
}

/// Times of one round, in nanoseconds of CPU.
struct Round {
    collect: f64,
    estimate: f64,
    decide: f64,
    decisions: usize,
    plans: usize,
}

/// Runs it.
///
/// # Errors
/// The policy is refused, or there is no `/proc`.
pub fn run(embedders: usize, metrics: usize, workers: u64, figures: &mut Figures) -> anyhow::Result<Outcome> {
    let policy = policy(embedders, metrics, "30s")?;
    let settings = Settings::of(&policy);
    let fleet = Fleet { embedders, workers, metrics, key: settings.key, began_ns: EPOCH_NS };
    let needs = needs();
    let mut collector = Collector::new(settings);
    let mut previous: Option<Previous> = None;
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    let (mut rounds, mut reports, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    let (mut refused, mut plans, mut pushes) = (0_usize, Vec::new(), Vec::new());
    let module = Module {
        name: "phoenix".to_owned(),
        vm_id: "phoenix".to_owned(),
        filename: "target/phoenix/phoenix_envoy.wasm".to_owned(),
    };
    for round in 0..ROUNDS {
        let now_ns = fleet.now_ns(round);
        let mut collect = 0.0;
        for embedder in 0..embedders {
            let version = versions.get(&fleet.name(embedder)).copied().unwrap_or(0);
            for worker in 0..workers {
                let bytes = fleet.report(embedder, worker, round, now_ns, version);
                reports.push(bytes.len() as f64);
                let (taken, ns) = timed(|| collector.take(&bytes, now_ns));
                collect += ns;
                if let Err(refusal) = taken {
                    refused += 1;
                    if refusals.len() < 3 {
                        refusals.push(refusal.to_string());
                    }
                }
            }
        }
        let (estimates, estimate_ns) = timed(|| estimate(&collector, &policy, now_ns));
        let (decided, decide_ns) = timed(|| decide(&estimates, &needs, &policy, previous.as_ref(), now_ns));
        let Decided { plans: all, decisions, next, .. } = decided;
        let mut sent = 0;
        for (name, plan) in &all {
            let known = versions.entry(name.clone()).or_default();
            if *known != plan.version {
                *known = plan.version;
                sent += 1;
                let text = json!({"plan": plan, "envoy": {"emit": {"cluster": "phoenix_emit"}}}).to_string();
                plans.push(serde_json::to_vec(plan)?.len() as f64);
                pushes.push(module.resource(&text).encoded_len() as f64);
            }
        }
        rounds.push(Round {
            collect,
            estimate: estimate_ns,
            decide: decide_ns,
            decisions: decisions.len(),
            plans: sent,
        });
        previous = Some(next);
    }
    let peak = peak_bytes(std::process::id())? as f64;

    let mut out =
        table(&["round", "collect, s", "estimate, s", "decide, s", "decisions", "plans that are new"]);
    let s = |ns: f64| number(ns / 1e9);
    for (at, it) in rounds.iter().enumerate() {
        let cells =
            [s(it.collect), s(it.estimate), s(it.decide), it.decisions.to_string(), it.plans.to_string()];
        out.add_row(row(&at.to_string(), &cells));
    }
    let name = |what: &str| format!("fleet.workers{workers}.{what}");
    let usual = |of: fn(&Round) -> f64| median(rounds.iter().skip(1).map(of)) / 1e9;
    figures.add(name("collect"), usual(|it| it.collect), "s/round");
    figures.add(name("estimate"), usual(|it| it.estimate), "s/turn");
    figures.add(name("decide"), usual(|it| it.decide), "s/turn");
    figures.add(name("turn.first"), (rounds[0].estimate + rounds[0].decide) / 1e9, "s");
    let all = usual(|it| it.collect + it.estimate + it.decide);
    figures.bound(name("interval"), all, "s/interval", Target::AtMost(INTERVAL_S));
    figures.bound(name("refused"), refused as f64, "reports", Target::AtMost(0.0));
    figures.bound(name("memory"), peak, "bytes", Target::AtMost(MEMORY_MAX));
    figures.add(name("held"), collector.held_bytes() as f64, "bytes");
    spread(figures, &name("report"), reports, Some(phoenix_filter::limits::REPORT_BYTES_MAX as f64));
    spread(figures, &name("plan"), plans, None);
    spread(figures, &name("ecds"), pushes, None);
    Ok(Outcome { table: out, refusals })
}

/// Median and maximum, in bytes.
fn spread(figures: &mut Figures, name: &str, mut values: Vec<f64>, most: Option<f64>) {
    values.sort_by(f64::total_cmp);
    let max = values.last().copied().unwrap_or(f64::NAN);
    figures.add(format!("{name}.median"), median(values), "bytes");
    match most {
        Some(most) => figures.bound(format!("{name}.max"), max, "bytes", Target::AtMost(most)),
        None => figures.add(format!("{name}.max"), max, "bytes"),
    }
}

/// The most memory that a process has had resident, in bytes: `VmHWM`.
///
/// # Errors
/// There is no such process.
pub fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}
