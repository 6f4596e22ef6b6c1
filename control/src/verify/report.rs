//! What the run found, in three forms.
//!
//! Enters: queries and their outcomes. Leaves: a [`Report`], which table, JSON and page only write down: every number is decided here once.

// Lines of a chart as SVG.
mod chart;
// One self-contained page.
pub mod html;
// For machines.
pub mod json;
// For the terminal.
pub mod table;

use super::arguments::{Arguments, Span};
use super::embedders::Affinity;
use super::prometheus::Side;
use super::queries::{Complaint, Loaded, Query};
use super::verdict::{Outcome, Verdict};
use phoenix_plan::Plan;
use std::path::PathBuf;

/// One query with its outcome.
pub struct Row {
    /// The query.
    pub query: Query,
    /// What came out.
    pub outcome: Outcome,
}

/// Everything that is written down.
pub struct Report {
    /// A row per query, in the order of the files.
    pub rows: Vec<Row>,
    /// Files or parts of files that could not be read; each counts as a query that cannot be read.
    pub complaints: Vec<Complaint>,
    /// Targets of other data sources.
    pub foreign: usize,
    /// URLs of the full and the folded side.
    pub urls: [String; 2],
    /// Sides that did not answer at all, in words.
    pub down: Vec<String>,
    /// The steps.
    pub span: Span,
    /// Largest relative error that counts as the same.
    pub tolerance: f64,
    /// Share of points that may exceed it.
    pub outliers: f64,
    /// The threshold.
    pub fail_below: f64,
    /// Whether queries without data count.
    pub require_data: bool,
    /// File and version of the plan.
    pub plan: Option<(PathBuf, u64)>,
    /// What embedders say about their streams.
    pub affinity: Affinity,
}

impl Report {
    /// Gathers what the writers need.
    pub fn new(
        arguments: &Arguments,
        plan: Option<&Plan>,
        span: &Span,
        loaded: Loaded,
        outcomes: Vec<Outcome>,
        full: &Side,
        folded: &Side,
    ) -> Report {
        let rows = loaded.queries.into_iter().zip(outcomes).map(|(query, outcome)| Row { query, outcome });
        let down = [full, folded].into_iter().filter(|side| side.is_down()).map(Side::why_down);
        Report {
            rows: rows.collect(),
            complaints: loaded.complaints,
            foreign: loaded.foreign,
            urls: [full.url.clone(), folded.url.clone()],
            down: down.collect(),
            span: span.clone(),
            tolerance: arguments.tolerance,
            outliers: arguments.outliers,
            fail_below: arguments.fail_below,
            require_data: arguments.require_data,
            affinity: Affinity::default(),
            plan: arguments.plan.clone().zip(plan.map(|plan| plan.version)),
        }
    }

    /// How many queries have a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let complaints = if verdict == Verdict::CannotBeRead { self.complaints.len() } else { 0 };
        self.rows.iter().filter(|row| row.outcome.verdict == verdict).count() + complaints
    }

    /// Good answers and the queries they are counted among.
    pub fn score(&self) -> (usize, usize) {
        let good = self.rows.iter().filter(|row| row.outcome.verdict.is_good()).count();
        let without_data = if self.require_data { 0 } else { self.count(Verdict::NoData) };
        (good, self.rows.len() + self.complaints.len() - without_data)
    }

    /// Share of good answers; none if nothing counts.
    pub fn share(&self) -> Option<f64> {
        let (good, all) = self.score();
        (all > 0).then(|| good as f64 / all as f64)
    }

    /// Whether the threshold is reached, and no stream reaches several embedders. Nothing to count is no success.
    pub fn passes(&self) -> bool {
        self.affinity.holds() && self.share().is_some_and(|share| share >= self.fail_below)
    }

    /// One line: `12 of 14 queries give the same answer (85.7 %), 3 without data`.
    pub fn headline(&self) -> String {
        let (good, all) = self.score();
        let share = self.share().map_or_else(|| "nothing to count".to_owned(), percent);
        let without = match self.count(Verdict::NoData) {
            0 => String::new(),
            n => format!("; {n} without data on both sides"),
        };
        format!("{good} of {all} queries give the same answer ({share}){without}")
    }
}

/// A share as percent, with as many digits as it needs: `0.5 %`, `100 %`. Never rounded up to all.
pub fn percent(share: f64) -> String {
    if !share.is_finite() {
        return "∞".to_owned();
    }
    let percent = share * 100.0;
    let text = match percent.abs() {
        0.0 => "0".to_owned(),
        small if small < 1e-6 => format!("{percent:.0e}"),
        small if small < 0.1 => significant(percent, 2),
        small if small < 100.0 => {
            // 2.2 % is 2.1999999999999997 in binary.
            let floor = (percent * 100.0 + 1e-9).floor() / 100.0;
            significant(floor, 4)
        }
        _ => format!("{percent:.0}"),
    };
    format!("{text} %")
}

/// A number with so many significant digits, without zeros at the end.
pub fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-6..15).contains(&magnitude) {
        return format!("{value:.*e}", (digits - 1).max(0) as usize);
    }
    let decimals = (digits - 1 - magnitude).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A step as a person reads it, in UTC.
pub fn time(ms: i64, form: &str) -> String {
    chrono::DateTime::from_timestamp_millis(ms)
        .map_or_else(|| ms.to_string(), |time| time.format(form).to_string())
}

/// Labels as PromQL writes them.
pub fn labels(labels: &super::prometheus::Labels) -> String {
    let pairs = labels.iter().map(|(name, value)| format!("{name}={}", super::prometheus::quoted(value)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents() {
        for (share, text) in [
            (1.0, "100 %"),
            (0.99999, "99.99 %"),
            (0.857_142, "85.71 %"),
            (0.005, "0.5 %"),
            (0.0, "0 %"),
            (0.000_012_3, "0.0012 %"),
            (1e-12, "1e-10 %"),
            (12.0, "1200 %"),
            (f64::INFINITY, "∞"),
        ] {
            assert_eq!(percent(share), text);
        }
    }

    #[test]
    fn digits() {
        for (value, text) in [
            (1234.56, "1235"),
            (0.001_234_56, "0.001235"),
            (1.5, "1.5"),
            (-2.0, "-2"),
            (1e20, "1.000e20"),
            (1.0, "1"),
        ] {
            assert_eq!(significant(value, 4), text);
        }
    }
}
