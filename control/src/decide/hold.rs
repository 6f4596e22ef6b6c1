//! A rollback: folds as they were at a version, and nothing new by itself for a while.
//!
//! Enters: the decisions that came into force after a version, newest first, who takes them back, and until when. Leaves: a [`Hold`] in what is remembered; the next decision
//! carries it out by switches, as any other. A pure function, like the decision.
//!
//! Who rolls back at night wants two things: that the change which hurts goes, and that nothing else moves until somebody has looked. So while a hold stands, the metrics
//! that were rolled back keep the labels of that version, whatever budgets say, and for all others `auto` is `recommend`: what would be done is said and waits for approval.
//! Neither the dwell nor the changes of an hour hold a rollback up. A switch that is under way does: until every stream has crossed it, turning back would lose or double
//! what is between. Shares stay: what is beyond them folds in the embedders, as it did at that version. Declared folds stay as well: they are the policy's.

use super::record::{Decision, Outcome};
use super::state::{Folded, Previous};
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

/// Why there is no rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A field has a value that it cannot have: in words, with what is allowed.
    Range(String),
    /// There is nothing to do.
    Nothing(String),
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

    /// Takes back what came into force after a version. `decisions`: newest first, at least all of those.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing has changed.
    pub fn roll_back(&mut self, decisions: &[Decision], wish: &Wish<'_>) -> Result<Vec<RolledBack>, Refusal> {
        if !HOLD_NS.contains(&wish.for_ns) {
            let (from, to) = (HOLD_NS.start() / 1_000_000_000, HOLD_NS.end() / 1_000_000_000);
            let value = wish.for_ns / 1_000_000_000;
            return Err(Refusal::Range(format!("hold_seconds: {value}; allowed: {from} to {to}")));
        }
        let standing = self.holding(wish.now_ns).cloned();
        let to = match (wish.to, &standing) {
            (Some(to), _) if to < self.version => to,
            (Some(to), _) => {
                let newest = self.version.saturating_sub(1);
                return Err(Refusal::Range(format!(
                    "to: {to}; allowed: 0 to {newest}, a version before the newest, which is {}",
                    self.version
                )));
            }
            (None, Some(hold)) => {
                return Err(Refusal::Nothing(format!(
                    "{}; allowed: to, a version further back",
                    hold.words()
                )));
            }
            (None, None) => match changes(decisions).next() {
                Some((version, _)) => version.saturating_sub(1),
                None => return Err(Refusal::Nothing("no fold was ever decided".to_owned())),
            },
        };
        // The oldest change after the version says what was before it.
        let mut at_version: BTreeMap<(&str, &str), Folded> = BTreeMap::new();
        for (version, it) in changes(decisions) {
            if version > to {
                at_version.insert((&it.tenant, &it.metric), it.labels_before.iter().cloned().collect());
            }
        }
        let mut rolled = Vec::new();
        for ((tenant, metric), labels) in at_version {
            let treatment = self.treatment(tenant, metric);
            let now = treatment.map(|it| it.in_force.clone()).unwrap_or_default();
            if now == labels {
                continue;
            }
            let waits = treatment.filter(|it| it.is_turning()).map(super::standing::why_turning);
            rolled.push(RolledBack {
                tenant: tenant.to_owned(),
                metric: metric.to_owned(),
                from: now,
                to: labels,
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

/// Changes of metrics that came into force, with their versions, newest first.
fn changes(decisions: &[Decision]) -> impl Iterator<Item = (u64, &Decision)> {
    decisions.iter().filter(|it| !it.metric.is_empty()).filter_map(|it| match it.outcome {
        Outcome::InForce { version } => Some((version, it)),
        _ => None,
    })
}
