//! The whole loop in virtual time, many times: how many runs hold every property.
//!
//! In: seeds, scenarios, embedders. Out: runs that hold, of each scenario, with the highest peak and the slowest convergence; the first failures in words. The judge is that of
//! `phoenix simulate`; nothing is judged here. Runs that were under way when an error came are lost with it: a run that cannot be judged ends the bench.

use crate::figures::{Figures, Target, number, row, table};
use crate::measure::{median, timed};
use anyhow::Context as _;
use comfy_table::Table;
use phoenix_control::simulate::{Options, Run, Scenario, run as simulate};
use std::ops::Range;

/// Failures that are kept in words.
const FAILURES_SHOWN: usize = 40;

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
    mut progress: impl FnMut(&str),
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
    for scenario in scenarios {
        let mut all: Vec<(Run, f64)> = Vec::new();
        for seed in seeds.clone() {
            let (it, ns) = timed(|| simulate(Options { scenario: *scenario, seed, embedders }));
            let it = it.with_context(|| format!("{} with seed {seed}", scenario.name()))?;
            for failure in &it.verdict.failures {
                failures.push(format!("{} seed {seed}, {embedders} embedders: {failure}", scenario.name()));
            }
            // Rows of intervals are not asked for here, and a thousand runs have many.
            all.push((Run { intervals: Vec::new(), decisions: Vec::new(), ..it }, ns));
            if all.len() % 100 == 0 {
                progress(&format!("{}: {} of {} seeds", scenario.name(), all.len(), seeds.end - seeds.start));
            }
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
        progress(&format!("{}: {hold} of {} hold, {} s a run", scenario.name(), all.len(), number(cpu_s)));
    }
    figures.bound(format!("{name}.hold"), holding as f64, "runs", Target::AtLeast(runs as f64));
    figures.add(format!("{name}.runs"), runs as f64, "runs");
    failures.truncate(FAILURES_SHOWN);
    Ok(Outcome { table: out, failures })
}
