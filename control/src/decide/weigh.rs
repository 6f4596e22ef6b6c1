//! What a rollback would come to, against budgets.
//!
//! Enters: what a rollback changes, and the estimates of the turn. Leaves: the first budget that it would exceed, in words. Streams whose label comes back are bounded by no
//! budget until `stream_expiry` after the switch (a rule with a switch goes before budgets), so this is asked before, and only who says `force` is not.
//!
//! Counted is what would go out: of what is rolled back by the labels that it gets, of all else by those in force, since a hold lets nothing else fold. A budget that
//! is exceeded already, and by no more than before, stands in nobody's way.

use super::hold::RolledBack;
use super::scope::Scopes;
use super::state::{Folded, Previous};
use super::unit::Units;
use super::words;
use crate::estimate::Estimates;
use crate::needs::Needs;
use crate::policy::Policy;

/// Why a rollback needs force; none: all that comes back fits. `previous`: before the rollback.
pub fn over_budget(
    previous: &Previous,
    rolled: &[RolledBack],
    estimates: &Estimates,
    needs: &Needs,
    policy: &Policy,
) -> Option<String> {
    let back: Vec<&RolledBack> = rolled.iter().filter(|it| !it.from.is_subset(&it.to)).collect();
    let first = back.first()?;
    let unbounded = format!(
        "and no budget bounds them until {} after the switch, plan.stream_expiry; allowed: true",
        policy.plan.stream_expiry()
    );
    let mut units = Units::new(estimates, needs, policy, previous);
    if !units.is_known || estimates.embedders.is_empty() {
        let metric = words::metric(&first.tenant, &first.metric);
        return Some(format!(
            "force: false; how many series come back in {metric} is not known before every embedder that has a plan is heard, {unbounded}"
        ));
    }
    let scopes = Scopes::new(&units, estimates, policy);
    for unit in &mut units.all {
        let treatment = previous.treatment(unit.tenant, unit.name);
        unit.wanted = treatment.map_or_else(Folded::new, |it| it.in_force.clone());
    }
    let before: Vec<f64> = scopes.all.iter().map(|scope| scope.counted(&units)).collect();
    for unit in &mut units.all {
        if let Some(it) =
            rolled.iter().find(|it| (it.tenant.as_str(), it.metric.as_str()) == (unit.tenant, unit.name))
        {
            unit.wanted = it.to.clone();
        }
    }
    scopes.all.iter().zip(before).find_map(|(scope, before)| {
        let after = scope.counted(&units);
        (after > scope.budget && after > before).then(|| {
            format!(
                "force: false; {} series would count towards {}, which is {}, {unbounded}",
                words::count(after),
                scope.words,
                words::count(scope.budget),
            )
        })
    })
}
