//! The record of a decision: what, why, from which numbers, and what became of it.

use super::state::Previous;
use super::unit::Units;
use crate::needs::LabelKey;
use crate::policy::{Policy, Priced};
use phoenix_plan::InstantMs;
use serde::{Deserialize, Serialize};

/// One decision about one metric, or about the budgets of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Decision {
    /// What it is about, and what it would make of it: to approve by. The same decision has the same id.
    pub id: String,
    /// When.
    pub at_ns: u64,
    /// Whose metric.
    pub tenant: String,
    /// The metric; empty: the tenant's budgets.
    pub metric: String,
    /// What is done.
    pub action: Action,
    /// Labels that fold afterwards.
    pub labels: Vec<LabelKey>,
    /// Labels that folded before.
    pub labels_before: Vec<LabelKey>,
    /// What became of it.
    pub outcome: Outcome,
    /// From which event time on it holds, where it is in force.
    pub effective: Option<InstantMs>,
    /// What it was decided by.
    pub inputs: Inputs,
    /// What it saves a month; below zero: what it costs.
    pub saving: Priced,
    /// A rollback made it: the version that it went back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_rollback: Option<u64>,
    /// For a person.
    pub sentence: String,
}

/// What is done.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Labels fold.
    Fold,
    /// Labels come back.
    Restore,
    /// Embedders get shares of a tenant's budget.
    Enforce,
    /// A budget is exceeded, and nothing can be done about it.
    Exceeded,
}

/// What became of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// It is in the plans of this version.
    InForce {
        /// The version.
        version: u64,
    },
    /// Mode `observe`: it would be done.
    WouldBeDone,
    /// Mode `recommend`: somebody has to say yes.
    WaitsForApproval,
    /// It waits, or cannot be done.
    Held {
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// Is there nothing new in the other?
    pub(super) fn is_like(&self, other: &Outcome) -> bool {
        match (self, other) {
            (Outcome::InForce { .. }, Outcome::InForce { .. }) => true,
            (one, other) => one == other,
        }
    }
}

/// What a decision was made by. Numbers of series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Inputs {
    /// Whose budget it is about, in words.
    pub scope: String,
    /// The budget.
    pub budget: f64,
    /// What counts towards it before.
    pub counted: f64,
    /// And after all decisions of this time.
    pub counted_after: f64,
    /// Distinct active streams of the metric.
    pub need: f64,
    /// What is usual for it.
    pub baseline: f64,
    /// Streams new in the current generation, at most.
    pub growth: f64,
    /// Series of it before the decision, by all embedders together.
    pub series_before: f64,
    /// And after it, at most.
    pub series_after: f64,
    /// Weights of the declared queries that lose their answer by it.
    pub use_weight: u64,
    /// The first of them.
    pub queries: Vec<String>,
    /// Labels that could have folded, and what that would leave.
    pub candidates: Vec<Candidate>,
}

/// A label that could have folded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Candidate {
    /// The label.
    pub label: LabelKey,
    /// Distinct values.
    pub values: f64,
    /// Series that all embedders would write without it.
    pub without: f64,
    /// Weights of the queries that need it.
    pub use_weight: u64,
    /// Why it may not fold; empty: it may.
    pub why_not: String,
}

/// What folds save a month: distinct series in, less those that go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Saving {
    /// Distinct active streams in.
    pub series_in: f64,
    /// Series out by what is in force, at most.
    pub series_out: f64,
    /// What that saves.
    pub in_force: Priced,
    /// What all that is wanted would save.
    pub wanted: Priced,
}

/// A number as it is kept: thousandths, or whole where it is large. Such numbers are read from JSON exactly as they were written, so that a decision after a
/// restart is the one that would have been made without.
pub fn kept(number: f64) -> f64 {
    if number.abs() < 1e9 { (number * 1e3).round() / 1e3 } else { number.round() }
}

/// The same of a price.
pub fn kept_price(it: Priced) -> Priced {
    Priced {
        series: kept(it.series),
        samples: kept(it.samples),
        bytes: kept(it.bytes),
        money: kept(it.money),
    }
}

/// What is saved.
pub fn saving(units: &Units<'_>, next: &Previous, policy: &Policy) -> Saving {
    let (mut series_in, mut out, mut would) = (0.0, 0.0, 0.0);
    for unit in &units.all {
        let treatment = next.treatment(unit.tenant, unit.name);
        let nothing = super::state::Folded::new();
        let in_force = treatment.map_or(&nothing, |it| &it.in_force);
        let wanted = treatment.map_or(&nothing, |it| &it.wanted);
        series_in += unit.active;
        out += unit.out_now(in_force);
        would += unit.out_now(wanted);
    }
    Saving {
        series_in,
        series_out: out,
        in_force: kept_price(policy.prices.of(series_in - out)),
        wanted: kept_price(policy.prices.of(series_in - would)),
    }
}
