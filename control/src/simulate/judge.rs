//! The judge: are the properties of the loop kept?
//!
//! Enters: what went out in each interval, read from bytes, and what was decided. Leaves: [`Verdict`]. It shares no number with those it judges: series are counted from
//! what embedders wrote, changes from the plans that were sent.
//!
//! * **Budget**: distinct series that were written in an interval are no more than the budget, and one a share, which a total may need (`docs/budgets.md`). From a change of a rule
//!   until its switch is over raw and folded series stand side by side: then a quarter more.
//! * **No flap**: between two changes of a metric's rule lies a dwell.
//! * **Convergence**: a step is answered within three intervals in which the control host is there and hears, and by one change of the metric.
//! * **Restoration**: at the end nothing folds, and every series is raw.
//! * **Steady**: where nothing happens nothing is decided.

use super::embedder::Written;
use super::scenario::{BEGINS_S, ENDS_S, Scenario};
use crate::decide::Decided;
use phoenix_plan::{Labels, Pipeline};
use std::collections::{BTreeMap, HashSet};

/// Intervals in which a step must be answered.
const CONVERGES_WITHIN: u64 = 3;
/// A metric's dwell, in seconds: that of the run's policy.
const DWELL_S: u64 = 240;
/// From a change to the end of its switch: lead and expiry of the run's policy, and what a window and its delay take.
const TURNS_S: u64 = 60 + 120 + 75;
/// Intervals before anything is judged: streams are born, embedders get their first shares.
const SETTLES_S: u64 = 120;

/// One interval.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Interval {
    /// Its end, in seconds of the run.
    pub at_s: u64,
    /// Distinct active streams, as estimated.
    pub need: f64,
    /// Raw series that were written.
    pub raw: u64,
    /// Folded ones.
    pub folded: u64,
    /// Embedders that are there.
    pub embedders: usize,
    /// Metrics that a rule folds, or will.
    pub rules: usize,
    /// Is the control host there?
    pub has_control: bool,
}

/// Is all well?
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Verdict {
    /// What is not, in words. Empty: all is well.
    pub failures: Vec<String>,
    /// The most series in an interval, as a part of the budget.
    pub peak: f64,
    /// Intervals from the step to the decision; none: no decision was due.
    pub converged_after: Option<u64>,
    /// Changes of rules.
    pub changes: usize,
}

/// Counts and judges.
pub struct Judge {
    scenario: Scenario,
    budget: u64,
    interval_s: u64,
    /// Each interval so far.
    pub intervals: Vec<Interval>,
    rules: BTreeMap<String, Option<Labels>>,
    changes: BTreeMap<String, Vec<u64>>,
    failures: Vec<String>,
}

impl Judge {
    /// Before the first interval.
    pub fn new(scenario: Scenario, budget: u64, interval_s: u64) -> Judge {
        Judge {
            scenario,
            budget,
            interval_s,
            intervals: Vec::new(),
            rules: BTreeMap::new(),
            changes: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// An interval is over.
    pub fn interval(&mut self, at_s: u64, written: &[Written], embedders: usize, decided: Option<&Decided>) {
        let union = |of: fn(&Written) -> &HashSet<u64>| {
            let mut all: HashSet<u64> = HashSet::new();
            written.iter().for_each(|it| all.extend(of(it)));
            all.len() as u64
        };
        let (raw, folded) = (union(|it| &it.raw), union(|it| &it.folded));
        let has_control = self.scenario.has_control(at_s);
        let rules =
            decided.and_then(|it| it.plans.values().next()).map_or(&[][..], |plan| plan.rules.as_slice());
        let now: BTreeMap<String, Option<Labels>> = rules
            .iter()
            .map(|rule| (rule.name.clone(), rule.fold.as_ref().map(|fold| fold.labels.clone())))
            .collect();
        for name in now.keys().chain(self.rules.keys()).cloned().collect::<std::collections::BTreeSet<_>>() {
            let before = self.rules.get(&name).cloned().flatten();
            if before != now.get(&name).cloned().flatten() {
                self.changes.entry(name).or_default().push(at_s);
            }
        }
        self.rules = now;
        let is_turning = self.changes.values().flatten().any(|changed_s| at_s - changed_s <= TURNS_S);
        let room = if is_turning { self.budget * 5 / 4 } else { self.budget + embedders as u64 };
        if at_s >= SETTLES_S && raw + folded > room {
            self.failures.push(format!(
                "{raw} raw and {folded} folded series at {at_s} s are over the budget of {}",
                self.budget
            ));
        }
        self.intervals.push(Interval {
            at_s,
            need: decided.map_or(0.0, |it| it.saving.series_in),
            raw,
            folded,
            embedders,
            rules: rules.iter().filter(|rule| rule.pipeline == Pipeline::Optimized).count(),
            has_control,
        });
    }

    /// All of it.
    pub fn verdict(&self) -> Verdict {
        let mut failures = self.failures.clone();
        for (name, changes) in &self.changes {
            for pair in changes.windows(2).filter(|pair| pair[1] - pair[0] < DWELL_S) {
                failures.push(format!("{name} changed at {} s and at {} s", pair[0], pair[1]));
            }
        }
        let all: Vec<u64> = self.changes.values().flatten().copied().collect();
        let converged_after = if self.scenario.explodes() { self.convergence(&mut failures) } else { None };
        if self.scenario == Scenario::Steady && !all.is_empty() {
            failures.push(format!("nothing happened, and rules changed at {all:?} s"));
        }
        if let Some(last) = self.intervals.last() {
            if last.rules > 0 || !self.rules.values().all(Option::is_none) {
                failures.push(format!("{} metrics still fold at the end", last.rules));
            }
            if last.folded > 0 {
                failures.push(format!("{} folded series are still written at the end", last.folded));
            }
        }
        let judged = self.intervals.iter().filter(|it| it.at_s >= SETTLES_S);
        let peak = judged.map(|it| (it.raw + it.folded) as f64 / self.budget as f64).fold(0.0, f64::max);
        Verdict { failures, peak, converged_after, changes: all.len() }
    }

    /// From the step to the decision, in intervals in which the control host was there.
    fn convergence(&self, failures: &mut Vec<String>) -> Option<u64> {
        let during: Vec<(&String, u64)> = self
            .changes
            .iter()
            .flat_map(|(name, all)| all.iter().map(move |at_s| (name, *at_s)))
            .filter(|(_, at_s)| (BEGINS_S..ENDS_S).contains(at_s))
            .collect();
        let Some(first_s) = during.iter().map(|(_, at_s)| *at_s).min() else {
            failures.push("the explosion was never decided on".to_owned());
            return None;
        };
        let took = (first_s - BEGINS_S).div_ceil(self.interval_s);
        // Reports that are lost or late make what is known older by as much.
        let patience = if self.scenario == Scenario::LostReports { 2 } else { 0 };
        if took > CONVERGES_WITHIN + patience {
            failures.push(format!("the explosion was decided on after {took} intervals"));
        }
        for (name, _) in &during {
            let changes = during.iter().filter(|(other, _)| other == name).count();
            if changes > 1 {
                failures.push(format!("{name} changed {changes} times during one explosion"));
            }
        }
        Some(took)
    }
}
