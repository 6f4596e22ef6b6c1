//! Scopes: budgets, and what is counted in each.
//!
//! Enters: units, estimates and the policy. Leaves: for each budget of a metric, a team, a tenant and of all tenants which units it bounds. The narrow ones come
//! first: what they fold counts in the wide ones as well.

use super::unit::Units;
use crate::estimate::Estimates;
use crate::policy::{Mode, Policy};
use phoenix_plan::Priority;
use std::collections::BTreeMap;

/// All budgets, the narrow ones first.
pub struct Scopes {
    /// Each.
    pub all: Vec<Scope>,
    /// Places of the budgets of each unit, narrow ones first.
    of_unit: Vec<Vec<usize>>,
}

/// One budget.
pub struct Scope {
    /// Whose, in words: `the budget of team checkout in shop`.
    pub words: String,
    /// Series.
    pub budget: f64,
    /// Units that it bounds, by their place, in classes: those of the first class lose labels first.
    pub classes: Vec<Vec<usize>>,
    /// Streams beside those of the units: metrics that had no room in a report.
    pub rest: f64,
    /// It was exceeded before anything was decided.
    pub was_exceeded: bool,
}

impl Scope {
    /// Its units.
    pub fn units(&self) -> impl Iterator<Item = usize> + '_ {
        self.classes.iter().flatten().copied()
    }

    /// Series that count towards it, by what is wanted now.
    pub fn counted(&self, units: &Units<'_>) -> f64 {
        self.rest
            + self.units().map(|index| units.all[index].remaining(&units.all[index].wanted)).sum::<f64>()
    }
}

impl Scopes {
    /// All budgets of a policy.
    pub fn new(units: &Units<'_>, estimates: &Estimates, policy: &Policy) -> Scopes {
        let mut all = Vec::new();
        let mut of_team: BTreeMap<(&str, usize), Vec<usize>> = BTreeMap::new();
        let mut of_tenant: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, unit) in units.all.iter().enumerate() {
            if let Some((_, it)) = policy.metric(unit.tenant, unit.name) {
                all.push(Scope {
                    words: format!("the budget of {}", super::words::metric(unit.tenant, unit.name)),
                    budget: it.active_series as f64,
                    classes: vec![vec![index]],
                    rest: 0.0,
                    was_exceeded: false,
                });
            }
            if let Some((team, _)) = policy.team(unit.tenant, unit.name) {
                of_team.entry((unit.tenant, team)).or_default().push(index);
            }
            of_tenant.entry(unit.tenant).or_default().push(index);
        }
        for ((tenant, team), members) in of_team {
            let Some(team) = policy.tenant(tenant).and_then(|it| it.teams.get(team)) else { continue };
            all.push(Scope {
                words: format!("the part of team {} in {}", team.name, named(tenant)),
                budget: team.active_series as f64,
                classes: vec![members],
                rest: 0.0,
                was_exceeded: false,
            });
        }
        let rest_of = |tenant: &str, members: &[usize]| {
            let known: f64 = members.iter().map(|index| units.all[*index].active).sum();
            let whole = estimates.tenants.get(tenant).map_or(0.0, |it| it.active.value);
            // Where every metric was told, a difference is only that of two estimates.
            if estimates.truncated_metrics > 0 { (whole - known).max(0.0) } else { 0.0 }
        };
        for (tenant, members) in &of_tenant {
            let Some(it) = policy.tenant(tenant) else { continue };
            all.push(Scope {
                words: format!("the budget of {}", named(tenant)),
                budget: it.active_series as f64,
                classes: vec![members.clone()],
                rest: rest_of(tenant, members),
                was_exceeded: false,
            });
        }
        if let Some(budget) = policy.active_series {
            let mut classes: BTreeMap<Priority, Vec<usize>> = BTreeMap::new();
            for (tenant, members) in &of_tenant {
                let priority = policy.tenant(tenant).map_or(Priority::Normal, |it| it.priority);
                classes.entry(priority).or_default().extend(members);
            }
            all.push(Scope {
                words: "the budget of all tenants".to_owned(),
                budget: budget as f64,
                classes: classes.into_values().collect(),
                rest: of_tenant.iter().map(|(tenant, members)| rest_of(tenant, members)).sum(),
                was_exceeded: false,
            });
        }
        let mut of_unit = vec![Vec::new(); units.all.len()];
        for (place, scope) in all.iter_mut().enumerate() {
            scope.was_exceeded = scope.counted(units) > scope.budget;
            scope.units().for_each(|index| of_unit[index].push(place));
        }
        Scopes { all, of_unit }
    }

    /// Was a budget of this unit exceeded before anything was decided?
    pub fn was_exceeded(&self, unit: usize) -> bool {
        self.of(unit).any(|scope| scope.was_exceeded)
    }

    /// The budgets of a unit.
    pub fn of(&self, unit: usize) -> impl Iterator<Item = &Scope> {
        self.places(unit).iter().filter_map(|place| self.all.get(*place))
    }

    /// Where they stand.
    pub fn places(&self, unit: usize) -> &[usize] {
        self.of_unit.get(unit).map_or(&[], Vec::as_slice)
    }
}

/// A tenant in words.
pub fn named(tenant: &str) -> &str {
    if tenant.is_empty() { "the tenant without a name" } else { tenant }
}

/// Are shares of a tenant's budget given to embedders?
pub fn is_enforced(policy: &Policy, approved: impl Fn(&str) -> bool, tenant: &str) -> bool {
    match policy.mode_of(tenant) {
        Mode::Observe => false,
        Mode::Recommend => approved(&format!("budget:{tenant}")),
        Mode::Auto => true,
    }
}
