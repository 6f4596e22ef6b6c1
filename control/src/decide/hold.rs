//! A rollback: folds as they were at a version, and nothing new by itself for a while.
//!
//! Enters: the changes that came into force after a version, newest first ([`Past`]), who takes them back, and until when. Leaves: a [`Hold`] in what is remembered; the next
//! decision carries it out by switches, as any other. A pure function, like the decision.
//!
//! Who rolls back at night wants two things: that the change which hurts goes, and that nothing else moves until somebody has looked. So while a hold stands, the metrics
//! that were rolled back keep the labels of that version, whatever budgets say, and for all others `auto` is `recommend`: what would be done is said and waits for approval.
//! Neither the dwell nor the changes of an hour hold a rollback up. A switch that is under way does: until every stream has crossed it, turning back would lose or double
//! what is between. Declared folds stay: they are the policy's.
//!
//! A rule with a switch exempts its streams from the budgets of embedders: until `stream_expiry` after the switch what comes back goes out raw, however much it is. So a
//! rollback whose need is more than a budget is refused, unless it is forced ([`super::weigh`]). After the switch shares hold again, and what is beyond them folds in the embedders.

use super::record::{Decision, Outcome};
use super::state::{Folded, Previous};
use crate::needs::LabelKey;
use crate::policy::Policy;
use phoenix_plan::InstantMs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Shortest and longest hold, nanoseconds: a turn has to see it, and what stands for longer is a policy.
pub const HOLD_NS: std::ops::RangeInclusive<u64> = 60_000_000_000..=30 * 86_400_000_000_000;

/// What was rolled back, and for how long nothing is decided by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// Who did it.
    pub by: String,
    /// Folds are as they were in the plans of this version.
    pub to: u64,
    /// When it began, Unix nanoseconds.
    pub at_ns: u64,
    /// When it ends.
    pub until_ns: u64,
    /// Metrics whose labels it sets, by tenant and name.
    pub metrics: Vec<HeldMetric>,
}

/// A metric that was rolled back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeldMetric {
    /// The tenant.
    pub tenant: String,
    /// The metric.
    pub metric: String,
    /// Labels that fold while the hold stands.
    pub labels: Folded,
}

/// A metric that a rollback changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolledBack {
    /// The tenant.
    pub tenant: String,
    /// The metric.
    pub metric: String,
    /// Labels that fold now.
    pub from: Folded,
    /// Labels that will.
    pub to: Folded,
    /// Why that is not at once; none: by the next plan.
    pub waits: Option<String>,
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// Who.
    pub by: &'a str,
    /// The version; none: the one before the newest change that no rollback made.
    pub to: Option<u64>,
    /// Now.
    pub now_ns: u64,
    /// For how long.
    pub for_ns: u64,
}

/// A change as a rollback needs it: of a [`Decision`], whose JSON it is read from, the rest is left out.
#[derive(Clone, Debug, Deserialize)]
pub struct Change {
    tenant: String,
    metric: String,
    labels_before: Vec<LabelKey>,
    outcome: Outcome,
    #[serde(default)]
    by_rollback: Option<u64>,
}

impl From<&Decision> for Change {
    fn from(it: &Decision) -> Change {
        Change {
            tenant: it.tenant.clone(),
            metric: it.metric.clone(),
            labels_before: it.labels_before.clone(),
            outcome: it.outcome.clone(),
            by_rollback: it.by_rollback,
        }
    }
}

/// Labels as they were at a version, of metrics that have changed since. It holds one entry a metric, however long the history is.
#[derive(Clone, Debug, Default)]
pub struct Past {
    to: Option<u64>,
    labels: BTreeMap<(String, String), Folded>,
    /// Metrics that a rollback has changed, and the version that it went back to: what came between is undone.
    undone: BTreeMap<(String, String), u64>,
    has_changes: bool,
}

impl Past {
    /// Before any change is read. `to` none: the version before the newest change that no rollback made or undid.
    pub fn new(to: Option<u64>) -> Past {
        Past { to, ..Past::default() }
    }

    /// Takes the next change, newest first. False: it and all before it are not needed.
    pub fn take(&mut self, change: Change) -> bool {
        let Outcome::InForce { version } = change.outcome else { return true };
        if change.metric.is_empty() {
            return true;
        }
        self.has_changes = true;
        let of = (change.tenant, change.metric);
        if self.to.is_none() {
            let undone_to = self.undone.get(&of).copied();
            match change.by_rollback {
                Some(to) => drop(self.undone.insert(of.clone(), undone_to.map_or(to, |it| it.min(to)))),
                None if undone_to.is_some_and(|to| version > to) => {}
                // All of one version belong together.
                None => self.to = Some(version.saturating_sub(1)),
            }
        }
        if self.to.is_some_and(|to| version <= to) {
            return false;
        }
        // The oldest change after the version says what was before it.
        self.labels.insert(of, change.labels_before.into_iter().collect());
        true
    }
}

/// Why there is no rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A field has a value that it cannot have: in words, with what is allowed.
    Range(String),
    /// There is nothing to do.
    Nothing(String),
    /// More would come back than budgets have, and it is not forced.
    Budget(String),
}

impl Hold {
    /// Does it stand?
    pub fn stands(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns
    }

    /// The labels that it sets for a metric.
    pub fn labels_of(&self, tenant: &str, metric: &str) -> Option<&Folded> {
        self.metrics.iter().find(|it| it.tenant == tenant && it.metric == metric).map(|it| &it.labels)
    }

    /// In a sentence about a metric.
    pub fn words(&self) -> String {
        let until = InstantMs(self.until_ns / 1_000_000);
        format!("{} has rolled the plan back to version {}, and holds it until {until}", self.by, self.to)
    }
}

impl Previous {
    /// The hold that stands.
    pub fn holding(&self, now_ns: u64) -> Option<&Hold> {
        self.hold.as_ref().filter(|it| it.stands(now_ns))
    }

    /// Can there be such a rollback, whatever was decided?
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn may_roll_back(&self, wish: &Wish<'_>) -> Result<(), Refusal> {
        if !HOLD_NS.contains(&wish.for_ns) {
            let (from, to) = (HOLD_NS.start() / 1_000_000_000, HOLD_NS.end() / 1_000_000_000);
            let value = wish.for_ns / 1_000_000_000;
            return Err(Refusal::Range(format!("hold_seconds: {value}; allowed: {from} to {to}")));
        }
        match (wish.to, self.holding(wish.now_ns)) {
            (Some(to), _) if to >= self.version => {
                let newest = self.version.saturating_sub(1);
                Err(Refusal::Range(format!(
                    "to: {to}; allowed: 0 to {newest}, a version before the newest, which is {}",
                    self.version
                )))
            }
            (Some(to), Some(hold)) if to >= hold.to => {
                let words = hold.words();
                Err(Refusal::Range(match hold.to.checked_sub(1) {
                    Some(newest) => {
                        format!("to: {to}; allowed: 0 to {newest}, a version further back: {words}")
                    }
                    None => format!("to: {to}; allowed: none, no version is further back: {words}"),
                }))
            }
            (None, Some(hold)) => {
                Err(Refusal::Nothing(format!("{}; allowed: to, a version further back", hold.words())))
            }
            _ => Ok(()),
        }
    }

    /// Takes back what came into force after a version. `past`: has taken all of those changes.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing has changed.
    pub fn roll_back(
        &mut self,
        past: &Past,
        wish: &Wish<'_>,
        policy: &Policy,
    ) -> Result<Vec<RolledBack>, Refusal> {
        self.may_roll_back(wish)?;
        let standing = self.holding(wish.now_ns).cloned();
        let to = match past.to {
            Some(to) => to,
            None if past.has_changes => {
                let why = "every fold that was decided is taken back already; allowed: to, a version";
                return Err(Refusal::Nothing(why.to_owned()));
            }
            None => return Err(Refusal::Nothing("no fold was ever decided".to_owned())),
        };
        let mut rolled = Vec::new();
        for ((tenant, metric), labels) in &past.labels {
            let treatment = self.treatment(tenant, metric);
            let now = treatment.map(|it| it.in_force.clone()).unwrap_or_default();
            if now == *labels {
                continue;
            }
            let waits = treatment.filter(|it| it.is_turning());
            let waits = waits.map(|it| super::standing::why_turning(it, policy));
            rolled.push(RolledBack {
                tenant: tenant.clone(),
                metric: metric.clone(),
                from: now,
                to: labels.clone(),
                waits,
            });
        }
        if rolled.is_empty() {
            return Err(Refusal::Nothing(format!("to: {to}; no fold has changed since that version")));
        }
        // What an earlier rollback set stands, where this one says nothing else.
        let mut metrics = standing.map(|it| it.metrics).unwrap_or_default();
        metrics.retain(|it| !rolled.iter().any(|new| (&new.tenant, &new.metric) == (&it.tenant, &it.metric)));
        metrics.extend(rolled.iter().map(|it| HeldMetric {
            tenant: it.tenant.clone(),
            metric: it.metric.clone(),
            labels: it.to.clone(),
        }));
        metrics.sort_by(|a, b| (&a.tenant, &a.metric).cmp(&(&b.tenant, &b.metric)));
        let until_ns = wish.now_ns.saturating_add(wish.for_ns);
        self.hold = Some(Hold { by: wish.by.to_owned(), to, at_ns: wish.now_ns, until_ns, metrics });
        // Somebody has approved of what is taken back: not any more.
        self.approved.retain(|id| id.starts_with("budget:"));
        Ok(rolled)
    }

    /// Ends the hold; what it was. What it has rolled back stays until something else is decided.
    pub fn release(&mut self, now_ns: u64) -> Option<Hold> {
        self.hold.take().filter(|it| it.stands(now_ns))
    }
}
