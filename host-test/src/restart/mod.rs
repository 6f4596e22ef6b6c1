//! What a restart of Envoy costs, measured (the contract is in `docs/operations.md`, "What is lost when").
//!
//! In: [`Programs`]: Envoy, the module, and a Prometheus where there is one. Out: [`Row`]s, one per figure, with its target and whether it holds; and for a
//! person a table of what was lost. Real processes on the wall clock: a gateway with two workers is killed or drained in the middle of traffic whose truth is
//! known, and comes back on its ports, or another one takes its clients. What it does not prove: more than one kill, other releases of Envoy, windows of
//! minutes (they are a second here, so that a run takes seconds).

/// What was counted, what arrived, and what may be missing.
pub mod account;
/// Prometheus' view of a restart.
pub mod answers;
/// One exporter that says what became of an attempt.
pub mod exporter;
/// The runbook of a graceful stop.
pub mod runbook;
/// The scenes: kill, drain, push.
pub mod scenes;
/// A gateway, its successor and the sink, with what is asked of them.
pub mod stage;
/// Counters whose truth is known.
pub mod traffic;

pub use scenes::{Clients, drain, kill, push};

use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// The header by which an answer says which gateway gave it; the scenes add it to the shipped configuration.
pub const GATEWAY_HEADER: &str = "x-gateway";

/// What to run.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Envoy; see [`crate::envoy::process::find_binary`].
    pub envoy: PathBuf,
    /// The module.
    pub module: PathBuf,
    /// Prometheus 3; without it nothing is asked of one. See [`crate::prometheus::process::find_binary`].
    pub prometheus: Option<PathBuf>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was measured, in words.
    pub figure: String,
    /// How much.
    pub value: f64,
    /// In what: `increments`, `s`, `series`, `1` for a ratio.
    pub unit: &'static str,
    /// At most this; `None`: shown and not judged.
    pub target: Option<f64>,
    /// Whether the value is at most the target.
    pub holds: bool,
}

/// What a scene found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The figures.
    pub rows: Vec<Row>,
    /// Per metric and route, for a person.
    pub table: Vec<String>,
    /// What explains a figure that does not hold.
    pub notes: Vec<String>,
    /// Which rows say most, by place.
    headlines: Vec<usize>,
}

impl Report {
    /// A figure with a bound. A value that is no number holds no bound.
    pub fn at_most(&mut self, figure: impl Into<String>, value: f64, unit: &'static str, target: f64) {
        let holds = value <= target;
        self.rows.push(Row { figure: figure.into(), value, unit, target: Some(target), holds });
    }

    /// A figure without one.
    pub fn shown(&mut self, figure: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row { figure: figure.into(), value, unit, target: None, holds: true });
    }

    /// A number of things that must not be, each in words.
    pub fn none_of(&mut self, figure: impl Into<String>, things: Vec<String>) {
        self.at_most(figure, things.len() as f64, "1", 0.0);
        self.notes.extend(things);
    }

    /// The last row is one of those that say most.
    pub fn headline(&mut self) {
        self.headlines.push(self.rows.len().saturating_sub(1));
    }

    /// The rows that say most, and one for all others: how many of them do not hold.
    pub fn summary(&self, scene: &str) -> Vec<Row> {
        let mut rows: Vec<Row> = self.headlines.iter().filter_map(|at| self.rows.get(*at).cloned()).collect();
        let broken = self.rows.iter().filter(|row| !row.holds).count();
        rows.push(Row {
            figure: format!("{scene}: checks that do not hold, of {}", self.rows.len()),
            value: broken as f64,
            unit: "1",
            target: Some(0.0),
            holds: broken == 0,
        });
        rows
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.table {
            writeln!(out, "{line}")?;
        }
        for Row { figure, value, unit, target, holds } in &self.rows {
            let target = target.map_or_else(|| "-".to_owned(), |target| format!("{target:.6}"));
            let word = if *holds { "" } else { "  BROKEN" };
            writeln!(out, "{figure:<84} {value:>14.6} {unit:<10} {target:>14}{word}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "  {note}"))
    }
}

/// Every scene, one after the other: killed and back under a new writer's name; killed and back under the same; drained while the clients move to another
/// gateway; drained while they end. A minute and a quarter on two idle cores. The rows are in this order and each names its scene: what was lost and what
/// might have been, what Prometheus says more than there was, and how many of all the checks of the scene do not hold.
///
/// # Errors
/// A program does not start, or something that must come does not. A figure beyond its target is no error but a row that does not hold.
pub async fn measure(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let mut rows = kill(programs, None).await?.summary("kill -9, new writer");
    rows.extend(kill(programs, Some("gateway-0")).await?.summary("kill -9, same writer"));
    rows.extend(drain(programs, Clients::Move).await?.summary("drained, clients move"));
    rows.extend(drain(programs, Clients::End).await?.summary("drained, clients end"));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn a_broken_check_is_in_the_summary() {
        let mut report = Report::default();
        report.at_most("lost", 3.0, "increments", 4.0);
        report.headline();
        report.none_of("flaws", vec!["one".to_owned()]);
        report.at_most("no number", f64::NAN, "1", 1.0);
        let rows = report.summary("scene");
        assert_eq!(rows.len(), 2);
        assert!(rows[0].holds && rows[0].figure == "lost");
        assert!(!rows[1].holds && rows[1].value == 2.0, "{rows:?}");
    }
}
