//! What was decided before, as a store keeps it.

use super::hold::Hold;
use super::record::{Decision, Inputs, Outcome};
use crate::estimate::Estimates;
use crate::needs::LabelKey;
use crate::policy::{DeclaredFold, Policy};
use phoenix_plan::{InstantMs, Labels};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Labels that fold.
pub type Folded = BTreeSet<LabelKey>;

/// Everything that a decision remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Previous {
    /// When the first decision was made.
    pub began_ns: u64,
    /// When the last one was.
    pub at_ns: u64,
    /// Version of the newest plan.
    pub version: u64,
    /// Metrics whose treatment is, was or would be changed, by tenant and name.
    pub treatments: Vec<Treatment>,
    /// Declared folds that are or were in force, in the order of the rules.
    pub declared: Vec<DeclaredState>,
    /// What is usual, by tenant and metric.
    pub baselines: BTreeMap<String, BTreeMap<String, Baseline>>,
    /// When pipelines changed, in the last hour.
    pub changes_ns: Vec<u64>,
    /// What embedders were given, by name.
    pub given: BTreeMap<String, Given>,
    /// What those who join are given.
    pub newcomer: Given,
    /// Ids of decisions that somebody has approved of.
    pub approved: BTreeSet<String>,
    /// What was said about a decision last, by its id.
    pub said: BTreeMap<String, Outcome>,
    /// A rollback that stands.
    #[serde(default)]
    pub hold: Option<Hold>,
}

/// What is usual for a metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Distinct active streams.
    pub active: f64,
    /// Series that its embedders would write without each label.
    pub without: Vec<(LabelKey, f64)>,
}

/// The treatment of a metric of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Treatment {
    /// The tenant.
    pub tenant: String,
    /// The metric.
    pub metric: String,
    /// Labels that should fold.
    pub wanted: Folded,
    /// Since when.
    pub wanted_ns: u64,
    /// Labels that fold from `switch_at` on.
    pub in_force: Folded,
    /// Labels that folded before. The same as `in_force`: the switch is over.
    pub before: Folded,
    /// When the change is, in event time.
    pub switch_at: InstantMs,
    /// When it was said; 0: never.
    pub changed_ns: u64,
    /// Since when embedders see the same streams of it without a pause; 0: they do not.
    pub overlap_ns: u64,
    /// Series that it leaves, as was known when all of its labels were there last, and values of the labels that stayed then.
    pub left: f64,
    /// See `left`.
    pub staying: f64,
    /// What was known when it was decided what is wanted.
    pub inputs: Inputs,
    /// Another reason than a budget.
    pub because: Option<String>,
}

/// A declared fold as plans have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeclaredState {
    /// As it was declared.
    pub fold: DeclaredFold,
    /// It folds; else it did, up to the switch.
    pub is_on: bool,
    /// What folded before; none: nothing did. As the fold: the switch is over.
    pub before: Option<Labels>,
    /// When the change is, in event time.
    pub switch_at: InstantMs,
}

/// What an embedder was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// Version of its plan.
    pub version: u64,
    /// Digest of it, but for the version.
    pub digest: u64,
    /// Shares by tenant.
    pub shares: BTreeMap<String, u64>,
    /// The largest share by tenant of all plans that may be in force in it.
    pub in_force: BTreeMap<String, u64>,
    /// When it said something last.
    pub seen_ns: u64,
}

impl Previous {
    /// Before the first decision.
    pub fn new(now_ns: u64) -> Previous {
        Previous {
            began_ns: now_ns,
            at_ns: now_ns,
            version: 0,
            treatments: Vec::new(),
            declared: Vec::new(),
            baselines: BTreeMap::new(),
            changes_ns: Vec::new(),
            given: BTreeMap::new(),
            newcomer: Given::default(),
            approved: BTreeSet::new(),
            said: BTreeMap::new(),
            hold: None,
        }
    }

    /// Embedders that have plans and no report here, and may well be alive: those that a control host does not hear after it has begun anew.
    pub(super) fn missing<'p>(
        &'p self,
        estimates: &'p Estimates,
        policy: &Policy,
    ) -> impl Iterator<Item = (&'p String, &'p Given)> {
        let forget_after_ns = policy.reports.forget_after.as_nanos();
        self.given.iter().filter(move |(name, given)| {
            let is_there =
                estimates.embedders.binary_search_by(|it| it.name.as_str().cmp(name.as_str())).is_ok();
            !is_there && estimates.at_ns.saturating_sub(given.seen_ns) <= forget_after_ns
        })
    }

    /// Somebody approves of a decision, by its id; it is carried out the next time. False: no such decision waits.
    pub fn approve(&mut self, id: &str) -> bool {
        let waits = self.said.get(id).is_some_and(|outcome| *outcome == Outcome::WaitsForApproval);
        if waits {
            self.approved.insert(id.to_owned());
        }
        waits
    }

    /// The treatment of a metric.
    pub fn treatment(&self, tenant: &str, metric: &str) -> Option<&Treatment> {
        let at = self.place(tenant, metric).ok()?;
        self.treatments.get(at)
    }

    /// The same, made if there is none.
    pub(super) fn treatment_mut(&mut self, tenant: &str, metric: &str) -> &mut Treatment {
        let at = match self.place(tenant, metric) {
            Ok(at) => at,
            Err(at) => {
                self.treatments.insert(at, Treatment::new(tenant, metric));
                at
            }
        };
        &mut self.treatments[at]
    }

    fn place(&self, tenant: &str, metric: &str) -> Result<usize, usize> {
        self.treatments.binary_search_by(|it| (it.tenant.as_str(), it.metric.as_str()).cmp(&(tenant, metric)))
    }

    /// Leaves only what has not been said yet.
    pub(super) fn say(&mut self, decisions: &mut Vec<Decision>) {
        let now: BTreeMap<String, Outcome> =
            decisions.iter().map(|it| (it.id.clone(), it.outcome.clone())).collect();
        decisions.retain(|it| self.said.get(&it.id).is_none_or(|said| !said.is_like(&it.outcome)));
        self.approved.retain(|id| now.contains_key(id));
        self.said = now;
    }
}

impl Treatment {
    fn new(tenant: &str, metric: &str) -> Treatment {
        Treatment {
            tenant: tenant.to_owned(),
            metric: metric.to_owned(),
            wanted: Folded::new(),
            wanted_ns: 0,
            in_force: Folded::new(),
            before: Folded::new(),
            switch_at: InstantMs(0),
            changed_ns: 0,
            overlap_ns: 0,
            left: 0.0,
            staying: 0.0,
            inputs: Inputs::default(),
            because: None,
        }
    }

    /// Is a switch in its rule that is not over?
    pub fn is_turning(&self) -> bool {
        self.in_force != self.before
    }

    /// Does it say anything still?
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.in_force.is_empty() && !self.is_turning()
    }
}
