//! Numbers, needs and policy to plans, and why.
//!
//! Enters: [`Estimates`] of the fleet, what declared queries [`Needs`], the [`Policy`], what was decided before, and now. Leaves: a plan for each embedder
//! and one for those who join, the [`Decision`]s with their inputs and a sentence each, and the [`Previous`] of the next time, which a store keeps. A pure function: equal
//! inputs give equal bytes.
//!
//! In this order, a file each:
//!
//! 1. [`unit`]: what can be folded at all, what queries need of it, what is usual.
//! 2. [`scope`]: budgets of metrics, teams, tenants and of all, and what is counted in each.
//! 3. [`choose`]: where a budget is exceeded, the labels whose loss costs least ([decision 20](../../../docs/decisions/0020-what-decide-minimises.md)).
//! 4. [`restore`]: where there is room again, the labels that come back.
//! 5. [`standing`]: what is wanted becomes what is in force: by mode and approval, at most once a dwell, so many an hour, by a switch.
//! 6. [`shares`]: parts of budgets for each embedder, together never more than the budget.
//! 7. [`lines`]: the account of all budgets.
//! 8. [`plans`]: rules and shares as plans, with a new version only where something changed.
//!
//! What somebody took back, and holds ([`hold`]), stands in what is remembered; what it would come to says [`weigh`] before.
//!
//! What is wanted is remembered also where it is not in force (`observe`, `recommend`), so that a proposal is as steady as a decision.

mod choose;
mod fair;
mod hold;
mod lines;
mod plans;
mod record;
mod restore;
mod scope;
mod shares;
mod standing;
mod state;
mod unit;
mod weigh;
mod words;

pub use hold::{Change, HOLD_NS, HeldMetric, Hold, Past, Refusal, RolledBack, Wish as Rollback};
pub use lines::Line;
pub use record::{Action, Decision, Inputs, Outcome, Saving};
pub use state::{Folded, Given, Previous, Treatment};
pub use weigh::over_budget;

use crate::estimate::Estimates;
use crate::needs::Needs;
use crate::policy::Policy;
use phoenix_plan::Plan;
use scope::Scopes;
use std::collections::BTreeMap;
use unit::Units;

/// What was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// A plan for each embedder that is not forgotten.
    pub plans: BTreeMap<String, Plan>,
    /// The plan of an embedder of which nothing is known yet.
    pub newcomer: Plan,
    /// What changed, and what is held back, with the reasons. A proposal that stands is told once.
    pub decisions: Vec<Decision>,
    /// To be given back the next time.
    pub next: Previous,
    /// What is saved by what is in force, and what would be by all that is wanted.
    pub saving: Saving,
    /// Budgets as an account, by tenant and metric.
    pub budgets: Vec<Line>,
}

/// Decides. `now_ns` is the clock of whoever asks, the same that made the estimates.
pub fn decide(
    estimates: &Estimates,
    needs: &Needs,
    policy: &Policy,
    previous: Option<&Previous>,
    now_ns: u64,
) -> Decided {
    let mut next = previous.cloned().unwrap_or_else(|| Previous::new(now_ns));
    let mut units = Units::new(estimates, needs, policy, &next);
    let mut decisions = standing::let_go(&mut next, &units, needs, policy, now_ns);
    if !decisions.is_empty() {
        // What is no longer held is decided as ever.
        units = Units::new(estimates, needs, policy, &next);
    }
    let scopes = Scopes::new(&units, estimates, policy);

    let mut wishes = choose::choose(&mut units, &scopes, policy);
    wishes.extend(restore::restore(&mut units, &scopes, policy, now_ns, estimates.period_ms));
    decisions.extend(standing::settle(&mut next, &units, &wishes, policy, now_ns));
    decisions.extend(standing::declare(&mut next, policy, now_ns));

    units.follow(&mut next, &scopes, policy, estimates, now_ns);
    let shares = shares::shares(&mut next, &units, estimates, policy);
    let (plans, newcomer) = plans::plans(&mut next, &units, &shares, estimates, policy);
    let saving = record::saving(&units, &next, policy);
    let budgets = lines::lines(&next, &units, &shares, estimates, policy);
    next.at_ns = now_ns;
    for decision in &mut decisions {
        if let Outcome::InForce { version } = &mut decision.outcome {
            *version = next.version;
        }
    }
    next.say(&mut decisions);
    Decided { plans, newcomer, decisions, next, saving, budgets }
}
