//! `phoenix simulate`: the whole loop in virtual time.
//!
//! Enters: a scenario, a seed, a number of embedders. Leaves: a [`Run`]: what went out, what was decided and why, and what the judge says of it. Traffic goes through
//! the real engine, with the reports and the plans that it really makes and takes; reports go through [`collect`](crate::collect), [`estimate`](crate::estimate()) and
//! [`decide`](crate::decide()); only the network and the clock are made up. No closed loop is switched to `auto` before its seeds pass.
//!
//! At every decision a second collector, fed with the same reports in another order and some of them twice, must come to the same bytes.

// The fleet's story.
mod scenario;
// Pods that export.
mod traffic;
// The engine, and what it writes.
mod embedder;
// Messages under way.
mod network;
// Budgets, flapping, convergence, restoration.
mod judge;
// All of it.
mod run;
// A picture of it.
mod chart;

pub use chart::svg;
pub use judge::{Interval, Verdict};
pub use run::{Options, Run, run};
pub use scenario::{ALL, Scenario};

use crate::decide::Action;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the loop in virtual time: traffic, embedders on the real engine, control host.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// What happens; without one, everything, one after the other.
    #[arg(value_enum)]
    pub scenario: Option<Scenario>,
    /// Seed of everything that is random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// So many seeds, from --seed on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seeds: u64,
    /// Embedders in the beginning, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub embedders: usize,
    /// A chart of the last run, as SVG.
    #[arg(long, value_name = "FILE")]
    pub chart: Option<PathBuf>,
    /// The runs as JSON, a line each.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command. Exit status 0: every property held.
///
/// # Errors
/// A run that could not be judged, or a chart that could not be written.
pub fn command(arguments: &Arguments) -> Result<ExitCode> {
    let scenarios = arguments.scenario.map_or_else(|| ALL.to_vec(), |one| vec![one]);
    let mut is_good = true;
    let mut last = None;
    for scenario in scenarios {
        for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
            let options = Options { scenario, seed, embedders: arguments.embedders };
            let it = run(options).with_context(|| format!("{} with seed {seed}", scenario.name()))?;
            is_good &= it.verdict.failures.is_empty();
            if arguments.json {
                say!("{}", serde_json::to_string(&it)?);
            } else {
                print(&it, arguments.seeds == 1);
            }
            last = Some(it);
        }
    }
    if let (Some(file), Some(run)) = (&arguments.chart, &last) {
        std::fs::write(file, svg(run)).with_context(|| file.display().to_string())?;
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(run: &Run, with_decisions: bool) {
    let verdict = &run.verdict;
    let good = if verdict.failures.is_empty() { "good" } else { "BAD" };
    let converged = verdict.converged_after.map_or(String::new(), |n| format!(", decided in {n} intervals"));
    say!(
        "{:<15} seed {:<5} {good:<5} peak {:.0} % of the budget of {}, {} changes{converged}",
        run.scenario.name(),
        run.seed,
        verdict.peak * 100.0,
        run.budget,
        verdict.changes
    );
    for failure in &verdict.failures {
        say!("  {failure}");
    }
    let told =
        run.decisions.iter().filter(|(_, decision)| with_decisions && decision.action != Action::Enforce);
    for (at_s, decision) in told {
        say!("  {:>3} min {:02} s  {}", at_s / 60, at_s % 60, decision.sentence);
    }
}
