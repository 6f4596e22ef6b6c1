//! What a restart of Envoy costs, measured (the contract is in `docs/operations.md`, "What is lost when").
//!
//! In: [`Programs`]: Envoy, the module, and a Prometheus where there is one. Out: a [`Report`] per scene: figures, each with its bound and whether it holds;
//! and for a person a table of what was lost. Real processes on the wall clock: a gateway with two workers is killed or drained in the middle of traffic
//! whose truth is known, and comes back on its ports, or another one takes its clients. What it does not prove: more than one kill, other releases of Envoy,
//! windows of minutes (they are a second here, so that a run takes seconds).

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

use crate::figure::{Figure, Unit};
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

/// What a scene found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its name for programs, the beginning of the keys of its figures.
    pub key: &'static str,
    /// Its name for people.
    pub scene: &'static str,
    /// The figures.
    pub figures: Vec<Figure>,
    /// Per metric and route, for a person.
    pub table: Vec<String>,
    /// What explains a figure that does not hold.
    pub notes: Vec<String>,
}

impl Report {
    /// Of a scene, and nothing found yet.
    pub fn new(key: &'static str, scene: &'static str) -> Report {
        Report { key, scene, ..Report::default() }
    }

    /// A figure with a bound.
    pub fn at_most(&mut self, key: &str, what: impl fmt::Display, unit: Unit, value: f64, bound: f64) {
        let figure = self.named(key, what, unit, value).at_most(bound);
        self.figures.push(figure);
    }

    /// A figure without one.
    pub fn shown(&mut self, key: &str, what: impl fmt::Display, unit: Unit, value: f64) {
        let figure = self.named(key, what, unit, value);
        self.figures.push(figure);
    }

    /// A figure with a bound where it may be judged, else without.
    pub fn at_most_if(
        &mut self,
        is_judged: bool,
        key: &str,
        what: impl fmt::Display,
        unit: Unit,
        value: f64,
        bound: f64,
    ) {
        match is_judged {
            true => self.at_most(key, what, unit, value, bound),
            false => self.shown(key, what, unit, value),
        }
    }

    /// A number of things that must not be, each in words.
    pub fn none_of(&mut self, key: &str, what: impl fmt::Display, things: Vec<String>) {
        self.at_most(key, what, Unit::Count, things.len() as f64, 0.0);
        self.notes.extend(things);
    }

    fn named(&self, key: &str, what: impl fmt::Display, unit: Unit, value: f64) -> Figure {
        Figure::new(format!("{}.{key}", self.key), format!("{}: {what}", self.scene), unit, value)
    }

    /// The figure of a key, as the scene named it.
    pub fn figure(&self, key: &str) -> Option<&Figure> {
        self.figures
            .iter()
            .find(|f| f.key.strip_prefix(self.key).and_then(|k| k.strip_prefix('.')) == Some(key))
    }

    /// Those beyond their bounds.
    pub fn broken(&self) -> Vec<&Figure> {
        self.figures.iter().filter(|figure| figure.is_broken()).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.table {
            writeln!(out, "{line}")?;
        }
        for figure in &self.figures {
            let Figure { what, value, unit, bound, .. } = figure;
            let bound = bound.map_or_else(|| "-".to_owned(), |bound| format!("{:.6}", unit.scaled(bound)));
            let word = if figure.is_broken() { "  BROKEN" } else { "" };
            writeln!(out, "{what:<84} {:>14.6} {:<8} {bound:>14}{word}", unit.scaled(*value), unit.name())?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "  {note}"))
    }
}

/// What [`measure`] found.
#[derive(Clone, Debug)]
pub struct Restarts {
    /// Killed in the middle of traffic and back at once, under a new writer's name and under the same.
    pub killed: [Report; 2],
    /// Drained by the runbook, and the clients end.
    pub ended: Report,
    /// Drained by the runbook, and the clients move to another gateway.
    pub moved: Report,
}

impl Restarts {
    /// Every scene.
    pub fn all(&self) -> impl Iterator<Item = &Report> {
        self.killed.iter().chain([&self.ended, &self.moved])
    }
}

/// Every scene but the push, one after the other: a minute and a quarter on two idle cores.
///
/// # Errors
/// A program does not start, or something that must come does not. A figure beyond its bound is no error but a figure that does not hold.
pub async fn measure(programs: &Programs) -> anyhow::Result<Restarts> {
    Ok(Restarts {
        killed: [kill(programs, None).await?, kill(programs, Some("gateway-0")).await?],
        ended: drain(programs, Clients::End).await?,
        moved: drain(programs, Clients::Move).await?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Report, Unit};

    #[test]
    fn a_report_judges_what_is_bounded() {
        let mut report = Report::new("kill", "killed");
        report.at_most("lost", "lost", Unit::Count, 3.0, 4.0);
        report.shown("took", "took", Unit::Seconds, 1e9);
        report.at_most_if(false, "shown", "shown", Unit::Count, 2.0, 1.0);
        assert!(report.broken().is_empty());
        report.none_of("flaws", "flaws", vec!["one".to_owned()]);
        report.at_most_if(true, "number", "no number", Unit::Count, f64::NAN, 1.0);
        let broken: Vec<_> = report.broken().iter().map(|figure| figure.key.as_str()).collect();
        assert_eq!(broken, ["kill.flaws", "kill.number"]);
        assert_eq!(report.figure("lost").map(|figure| figure.what.as_str()), Some("killed: lost"));
        assert_eq!(report.notes, ["one"]);
        assert!(report.figure("ost").is_none());
    }
}
