//! Parts of budgets for each embedder, together never more than the budget.
//!
//! Enters: units, estimates, what embedders were given before. Leaves: shares of each tenant by embedder, and of metrics with a budget. What decided folds leave is
//! taken from a tenant's budget first: no share bounds those series. The rest is dealt out by the need that each embedder measured ([`fair`](super::fair)).
//!
//! Plans take time. A share that was lowered counts in full until the embedder says that it is under the new plan, and even then what it has admitted
//! counts until it goes silent; so shares rise only by what has really become free. Shares that differ by little from what they should be stay: a plan that changes
//! each interval is a push each interval.

use super::fair::fair;
use super::scope::is_enforced;
use super::state::Previous;
use super::unit::Units;
use crate::estimate::Estimates;
use crate::policy::Policy;
use phoenix_plan::Priority;
use std::collections::BTreeMap;

/// Part of a budget that is kept for embedders that join, and how many may join in an interval: until they have reported nobody knows their need.
const JOINING_PART: f64 = 0.1;
const JOINING: u64 = 2;
/// Shares stay while they are off by no more than this part, and this many series.
const STAYS_PART: f64 = 0.1;
const STAYS_SERIES: f64 = 2.0;
/// Shares of single metrics in a plan; half of what it may have.
const METRICS_MAX: usize = phoenix_plan::bounds::SHARES / 2;
/// Shares of tenants in a plan, one less than it may have: the last is that of all others.
const TENANTS_MAX: usize = phoenix_plan::bounds::SHARES - 1;

/// Shares of all embedders.
#[derive(Debug, Default)]
pub struct Shares {
    /// Tenants that have shares.
    pub tenants: Vec<String>,
    /// Of single metrics: tenant, metric, and each embedder's share by its place in the estimates.
    pub metrics: Vec<(String, String, Vec<u64>)>,
}

/// Deals budgets out; what each embedder gets is in [`Previous::given`].
pub fn shares(next: &mut Previous, units: &Units<'_>, estimates: &Estimates, policy: &Policy) -> Shares {
    confirm(next, estimates);
    let names: Vec<&str> = estimates.embedders.iter().map(|it| it.name.as_str()).collect();
    let missing: Vec<String> = next.missing(estimates, policy).map(|(name, _)| name.clone()).collect();
    next.given.retain(|name, _| names.contains(&name.as_str()) || missing.contains(name));
    let approved = next.approved.clone();
    let budgets = budgets(units, policy);
    let mut shares = Shares::default();
    let mut newcomer = BTreeMap::new();
    for (tenant, budget) in &budgets {
        if shares.tenants.len() >= TENANTS_MAX || tenant.len() > phoenix_plan::bounds::NAME_BYTES {
            continue;
        }
        if tenant.chars().any(char::is_control) || !is_enforced(policy, |id| approved.contains(id), tenant) {
            next.given.values_mut().for_each(|it| {
                it.shares.remove(tenant);
            });
            continue;
        }
        // Whoever is not heard has what it was given.
        let away = missing.iter().filter_map(|name| next.given.get(name)?.in_force.get(tenant)).sum::<u64>();
        let Needs { room, mut needs, used, folded } =
            needs(next, units, estimates, tenant, budget.saturating_sub(away));
        // Each of those who join gets one at least, so that much is kept.
        let kept = ((room as f64 * JOINING_PART).floor() as u64).max(JOINING).min(room);
        newcomer.insert(tenant.clone(), (kept / JOINING).max(1));
        make_room_to_restore(&mut needs, &folded, aim(policy), room.saturating_sub(kept));
        let desired = fair(room.saturating_sub(kept), &needs);
        deal(next, &names, tenant, (&desired, &used), room.saturating_sub(kept));
        shares.tenants.push(tenant.clone());
    }
    next.newcomer.shares = newcomer;
    for given in next.given.values_mut() {
        given.in_force.retain(|tenant, _| given.shares.contains_key(tenant));
        for (tenant, share) in &given.shares {
            let in_force = given.in_force.entry(tenant.clone()).or_default();
            *in_force = (*in_force).max(*share);
        }
    }
    shares.metrics = of_metrics(next, units, estimates, policy, &shares.tenants);
    shares
}

/// Embedders say under which plan they are: what it gives is what they have. Who is new has what those who join are given.
fn confirm(next: &mut Previous, estimates: &Estimates) {
    for it in &estimates.embedders {
        let newcomer = &next.newcomer;
        let given = next
            .given
            .entry(it.name.clone())
            .or_insert_with(|| super::state::Given { in_force: newcomer.shares.clone(), ..newcomer.clone() });
        given.seen_ns = it.newest_ns;
        if given.version > 0 && it.plan_version >= given.version {
            given.in_force = given.shares.clone();
        }
    }
}

struct Needs {
    /// Series for all embedders.
    room: u64,
    /// Streams of each embedder that no rule folds.
    needs: Vec<f64>,
    /// Series that each has in use.
    used: Vec<u64>,
    /// Of these, those that budgets fold.
    folded: Vec<u64>,
}

fn needs(next: &Previous, units: &Units<'_>, estimates: &Estimates, tenant: &str, budget: u64) -> Needs {
    let mut needs = vec![0.0; estimates.embedders.len()];
    let mut left = 0.0;
    for unit in units.all.iter().filter(|unit| unit.tenant == tenant) {
        let treatment = next.treatment(unit.tenant, unit.name);
        let in_force = treatment.map(|it| &it.in_force).filter(|folded| !folded.is_empty());
        match (in_force, unit.declared) {
            (Some(folded), _) => left += unit.remaining(folded),
            (None, Some(by_declared)) => left += by_declared,
            (None, None) => {
                for part in unit.of.iter().flat_map(|it| &it.parts) {
                    if let Some(need) = needs.get_mut(part.embedder as usize) {
                        *need += part.active;
                    }
                }
            }
        }
    }
    let (mut used, mut folded) = (vec![0; estimates.embedders.len()], vec![0; estimates.embedders.len()]);
    for part in estimates.tenants.get(tenant).map_or(&[][..], |it| it.parts.as_slice()) {
        if let (Some(used), Some(folded)) =
            (used.get_mut(part.embedder as usize), folded.get_mut(part.embedder as usize))
        {
            (*used, *folded) = (part.used, part.folded);
        }
    }
    let room = (budget as f64 - left.min(budget as f64)).floor() as u64;
    Needs { room, needs, used, folded }
}

/// The part of its share below which an embedder restores, as its plan says.
fn aim(policy: &Policy) -> f64 {
    f64::from(policy.change.aim_percent) / 100.0
}

/// An embedder that contained something restores it once all of its streams, and the folded series until they go, take no more than a part of its share (`aim`): it needs
/// that much more. Those that need least come first, as long as the room for all does not end.
fn make_room_to_restore(needs: &mut [f64], folded: &[u64], aim: f64, room: u64) {
    let mut more: Vec<(usize, f64)> = needs
        .iter()
        .zip(folded)
        .enumerate()
        .filter(|(_, (_, folded))| **folded > 0)
        .map(|(at, (need, folded))| (at, (need + *folded as f64) / aim + 1.0 - need))
        .collect();
    more.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    // Everybody has one series at least.
    let mut left = room as f64 - needs.iter().map(|need| need.max(1.0)).sum::<f64>();
    for (at, more) in more {
        left -= more;
        if left < 0.0 {
            return;
        }
        needs[at] += more;
    }
}

/// Gives each embedder its share of one tenant.
fn deal(next: &mut Previous, names: &[&str], tenant: &str, (desired, used): (&[u64], &[u64]), room: u64) {
    let of = |name: &str| next.given.get(name);
    let had: Vec<Option<u64>> = names.iter().map(|name| of(name)?.shares.get(tenant).copied()).collect();
    let in_force: Vec<u64> = names
        .iter()
        .map(|name| of(name).and_then(|it| it.in_force.get(tenant)).copied().unwrap_or(0))
        .collect();
    let near = |had: u64, desired: u64| {
        (had as f64 - desired as f64).abs() <= STAYS_SERIES.max(STAYS_PART * had as f64)
    };
    // Who is near what it should have keeps what it has, as long as all of them together keep within the room: one that needs more moves nobody else.
    let kept: Vec<u64> = had
        .iter()
        .zip(desired)
        .map(|(had, desired)| had.filter(|had| near(*had, *desired)).unwrap_or(*desired))
        .collect();
    let all_stay = had.iter().zip(&kept).all(|(had, kept)| *had == Some(*kept));
    let sum: u64 = kept.iter().sum();
    let dealt: Vec<u64> = match sum <= room {
        true if all_stay => kept,
        true => rise_by_what_is_free(&in_force, &kept, used, room),
        false => rise_by_what_is_free(&in_force, desired, used, room),
    };
    for (name, share) in names.iter().zip(dealt) {
        if let Some(given) = next.given.get_mut(*name) {
            given.shares.insert(tenant.to_owned(), share);
        }
    }
}

/// Lower shares at once, raise others by what is left of the room.
fn rise_by_what_is_free(in_force: &[u64], desired: &[u64], used: &[u64], room: u64) -> Vec<u64> {
    let holds = |n: usize| in_force[n].max(used[n].min(in_force[n].max(desired[n])));
    let all = 0..desired.len();
    let committed: u64 =
        all.clone().map(|n| if desired[n] > in_force[n] { in_force[n] } else { holds(n) }).sum();
    let asked: u64 = all.clone().map(|n| desired[n].saturating_sub(in_force[n])).sum();
    let free = room.saturating_sub(committed);
    all.map(|n| {
        let more = desired[n].saturating_sub(in_force[n]);
        if more == 0 {
            return desired[n].max(1);
        }
        let part = u128::from(more) * u128::from(free.min(asked)) / u128::from(asked.max(1));
        (in_force[n] + u64::try_from(part).unwrap_or(0)).max(1)
    })
    .collect()
}

/// Budgets of all tenants that are known or named. Where all of them together have one, those of high priority get what they need first.
fn budgets(units: &Units<'_>, policy: &Policy) -> BTreeMap<String, u64> {
    let mut needs: BTreeMap<&str, f64> = BTreeMap::new();
    for unit in &units.all {
        *needs.entry(unit.tenant).or_default() += unit.remaining(&unit.wanted);
    }
    for name in policy.tenants.iter().filter_map(|it| it.name.as_deref()) {
        needs.entry(name).or_default();
    }
    let own = |tenant: &str| policy.tenant(tenant).map(|it| it.active_series);
    let Some(all) = policy.active_series else {
        return needs.keys().filter_map(|name| Some(((*name).to_owned(), own(name)?))).collect();
    };
    let mut left = all;
    let mut out: BTreeMap<String, u64> = BTreeMap::new();
    let class = |name: &str| policy.tenant(name).map_or(Priority::Normal, |it| it.priority);
    for priority in [Priority::High, Priority::Normal, Priority::Low] {
        let of: Vec<(&str, f64)> = needs
            .iter()
            .filter(|(name, _)| class(name) == priority)
            .map(|(name, need)| (*name, need.min(own(name).unwrap_or(all) as f64)))
            .collect();
        let wanted = of.iter().map(|(_, need)| need.ceil() as u64 + 1).sum::<u64>().min(left);
        for ((name, _), got) in
            of.iter().zip(fair(wanted, &of.iter().map(|(_, need)| *need).collect::<Vec<_>>()))
        {
            out.insert((*name).to_owned(), got.min(own(name).unwrap_or(all)));
        }
        left = all.saturating_sub(out.values().sum());
    }
    // What nobody needs now goes to those who may have more, alike.
    let mut open: Vec<&str> = out
        .iter()
        .filter(|(name, got)| own(name).unwrap_or(all) > **got)
        .map(|(name, _)| name.as_str())
        .collect();
    open.sort_by_key(|name| (own(name).unwrap_or(all) - out[*name], *name));
    let mut raised = Vec::new();
    for (index, name) in open.iter().enumerate() {
        let part = left / (open.len() - index) as u64;
        let more = part.min(own(name).unwrap_or(all) - out[*name]);
        left -= more;
        raised.push(((*name).to_owned(), more));
    }
    for (name, more) in raised {
        *out.entry(name).or_default() += more;
    }
    out
}

/// Shares of metrics that have a budget of their own and that no rule folds, the heaviest first.
fn of_metrics(
    next: &Previous,
    units: &Units<'_>,
    estimates: &Estimates,
    policy: &Policy,
    tenants: &[String],
) -> Vec<(String, String, Vec<u64>)> {
    let mut with: Vec<(&super::unit::Unit<'_>, u64)> = units
        .all
        .iter()
        .filter(|unit| tenants.iter().any(|tenant| tenant == unit.tenant))
        .filter(|unit| (1..=phoenix_plan::bounds::KEY_BYTES).contains(&unit.name.len()))
        .filter(|unit| !unit.name.chars().any(char::is_control))
        .filter(|unit| next.treatment(unit.tenant, unit.name).is_none_or(|it| it.in_force.is_empty()))
        .filter_map(|unit| Some((unit, policy.metric(unit.tenant, unit.name)?.1.active_series)))
        .collect();
    with.sort_by(|a, b| {
        b.0.active.total_cmp(&a.0.active).then((a.0.tenant, a.0.name).cmp(&(b.0.tenant, b.0.name)))
    });
    with.truncate(METRICS_MAX);
    let of = |(unit, budget): (&super::unit::Unit<'_>, u64)| {
        let (mut needs, mut folded) =
            (vec![0.0; estimates.embedders.len()], vec![0; estimates.embedders.len()]);
        for part in unit.of.iter().flat_map(|it| &it.parts) {
            let at = part.embedder as usize;
            if let (Some(need), Some(folded)) = (needs.get_mut(at), folded.get_mut(at)) {
                *need += part.active;
                *folded += part.folded;
            }
        }
        make_room_to_restore(&mut needs, &folded, aim(policy), budget);
        (unit.tenant.to_owned(), unit.name.to_owned(), fair(budget, &needs))
    };
    with.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::make_room_to_restore;

    #[test]
    fn who_folds_gets_the_room_to_stop() {
        let with = |folded: [u64; 3], room: u64| {
            let mut needs = [90.0, 45.0, 60.0];
            make_room_to_restore(&mut needs, &folded, 0.9, room);
            needs
        };
        assert_eq!(with([0, 0, 0], 1_000), [90.0, 45.0, 60.0]);
        // With 18 folded ones beside it 90 streams are nine tenths of 120.
        assert_eq!(with([18, 0, 0], 1_000), [121.0, 45.0, 60.0]);
        assert_eq!(with([18, 0, 0], 195 + 31), [121.0, 45.0, 60.0]);
        assert_eq!(with([18, 0, 0], 195 + 30), [90.0, 45.0, 60.0], "not in part");
        assert_eq!(with([18, 9, 0], 195 + 31), [90.0, 61.0, 60.0], "who needs least comes first");
        assert_eq!(with([18, 9, 3], 1_000), [121.0, 61.0, 71.0]);
        assert_eq!(with([18, 9, 3], 0), [90.0, 45.0, 60.0]);
    }
}
