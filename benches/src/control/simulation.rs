//! The whole loop in virtual time, many times: how many runs hold every property.
//!
//! In: seeds, scenarios, embedders. Out: runs that hold, of each scenario, with the highest peak and the slowest convergence; the first failures in words. The judge is that of
//! `phoenix simulate`; nothing is judged here. As many runs at once as there are processors, since none knows of another; CPU time is that of each run's own thread. A run that cannot be judged ends
//! the bench.

use crate::figures::{Figures, Target, number, row, table};
use crate::measure::{median, timed};
use anyhow::{Context as _, anyhow};
use comfy_table::Table;
use phoenix_control::simulate::{Options, Run, Scenario, run as simulate};
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Failures that are kept in words.
const FAILURES_SHOWN: usize = 40;

/// Of so few runs each is told; of more, each hundredth.
const FEW: usize = 20;
const EACH: usize = 100;

/// What was found.
pub struct Outcome {
    /// A row for each scenario.
    pub table: Table,
    /// Runs that do not hold, and why.
    pub failures: Vec<String>,
}

/// Runs each scenario with each seed. `progress` hears a word now and then.
///
/// # Errors
/// A run that could not be judged.
pub fn run(
    name: &str,
    scenarios: &[Scenario],
    seeds: Range<u64>,
    embedders: usize,
    figures: &mut Figures,
    progress: impl Fn(&str) + Sync,
) -> anyhow::Result<Outcome> {
    let mut out = table(&[
        "scenario",
        "runs",
        "hold",
        "peak, % of the budget",
        "decided in, intervals",
        "turn, ms",
        "CPU, s a run",
    ]);
    let (mut failures, mut runs, mut holding) = (Vec::new(), 0_u64, 0_u64);
    let runs_of_all = all_of(scenarios, seeds, embedders, &progress)?;
    for scenario in scenarios {
        let all: Vec<&(Run, f64)> = runs_of_all.iter().filter(|(it, _)| it.scenario == *scenario).collect();
        for (it, _) in &all {
            let of =
                |failure| format!("{} seed {}, {embedders} embedders: {failure}", scenario.name(), it.seed);
            failures.extend(it.verdict.failures.iter().map(of));
        }
        let hold = all.iter().filter(|(it, _)| it.verdict.failures.is_empty()).count() as u64;
        (runs, holding) = (runs + all.len() as u64, holding + hold);
        let most = |of: fn(&Run) -> f64| all.iter().map(|(it, _)| of(it)).fold(0.0, f64::max);
        let (peak, took) = (
            most(|it| it.verdict.peak),
            most(|it| it.verdict.converged_after.map_or(0.0, |intervals| intervals as f64)),
        );
        let turn_ms = most(|it| it.slowest_decision_ns as f64 / 1e6);
        let cpu_s = median(all.iter().map(|(_, ns)| ns / 1e9));
        let name = |what: &str| format!("{name}.{}.{what}", scenario.name());
        figures.bound(name("hold"), hold as f64, "runs", Target::AtLeast(all.len() as f64));
        figures.add(name("peak"), 100.0 * peak, "%");
        figures.add(name("turn.max"), turn_ms, "ms");
        figures.add(name("cpu"), cpu_s, "s/run");
        let numbers = [
            all.len().to_string(),
            hold.to_string(),
            number(100.0 * peak),
            number(took),
            number(turn_ms),
            number(cpu_s),
        ];
        out.add_row(row(scenario.name(), &numbers));
    }
    figures.bound(format!("{name}.hold"), holding as f64, "runs", Target::AtLeast(runs as f64));
    figures.add(format!("{name}.runs"), runs as f64, "runs");
    failures.truncate(FAILURES_SHOWN);
    Ok(Outcome { table: out, failures })
}

/// Each scenario with each seed, with its CPU time in nanoseconds; in the order of seeds.
fn all_of(
    scenarios: &[Scenario],
    seeds: Range<u64>,
    embedders: usize,
    progress: &(impl Fn(&str) + Sync),
) -> anyhow::Result<Vec<(Run, f64)>> {
    let jobs: Vec<(Scenario, u64)> =
        scenarios.iter().flat_map(|scenario| seeds.clone().map(move |seed| (*scenario, seed))).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let one = || -> anyhow::Result<Vec<(Run, f64)>> {
        let mut all = Vec::new();
        while let Some((scenario, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let options = Options { scenario: *scenario, seed: *seed, embedders };
            let (it, ns) = timed(|| simulate(options));
            let it = it.with_context(|| format!("{} with seed {seed}", scenario.name()))?;
            // A bench that is ended in the middle has said what it found.
            for failure in &it.verdict.failures {
                progress(&format!("{} seed {seed}, {embedders} embedders: {failure}", scenario.name()));
            }
            // Rows of intervals are not asked for here, and a thousand runs have many.
            all.push((Run { intervals: Vec::new(), decisions: Vec::new(), ..it }, ns));
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if jobs.len() <= FEW || done.is_multiple_of(EACH) {
                progress(&format!("{done} of {} runs, {embedders} embedders", jobs.len()));
            }
        }
        Ok(all)
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let mut all = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(one)).collect();
        let joined =
            threads.into_iter().map(|it| it.join().unwrap_or_else(|_| Err(anyhow!("a run panicked"))));
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?
    .concat();
    all.sort_by_key(|(it, _)| it.seed);
    Ok(all)
}
