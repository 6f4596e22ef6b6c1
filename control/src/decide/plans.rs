//! Rules and shares as plans.
//!
//! Enters: treatments, declared folds, shares. Leaves: a plan for each embedder and one for those who join. Rules are the same in all of them; shares differ. A
//! plan gets a new version only where it says something new, so that an embedder whose share stays is not pushed to.
//!
//! Rules in their order: what was decided about single metrics, then what people declared; where both speak, the decision is on its way out and goes first until
//! its switch is over.

use super::scope::is_enforced;
use super::shares::Shares;
use super::state::{DeclaredState, Folded, Given, Previous, Treatment};
use super::unit::Units;
use crate::estimate::Estimates;
use crate::policy::{Mode, Policy};
use phoenix_plan::{
    Budgets, Labels, MetricMatch, MetricShare, Pipeline, Placement, Plan, Priority, Rule, Switch,
    TenantShare, bounds,
};
use siphasher::sip::SipHasher13;
use std::collections::BTreeMap;
use std::hash::Hasher;

/// The most that a share can be.
const SHARE_MAX: u64 = *bounds::ACTIVE_SERIES.end() as u64;
/// Bytes of a metric's name in the name of its rule.
const NAME_BYTES: usize = 100;

/// All plans.
pub fn plans(
    next: &mut Previous,
    units: &Units<'_>,
    shares: &Shares,
    estimates: &Estimates,
    policy: &Policy,
) -> (BTreeMap<String, Plan>, Plan) {
    let version = next.version.saturating_add(1);
    let rules = rules(next, policy);
    let protected = protected(units, policy);
    let base = Plan { rules, ..policy.plan.plan(1) };
    let mut plans = BTreeMap::new();
    let mut is_new = false;
    let sums = sums(next, shares);
    for (index, embedder) in estimates.embedders.iter().enumerate() {
        let metrics = shares.metrics.iter().filter_map(|(tenant, metric, of)| {
            Some(MetricShare {
                tenant: Some(tenant.clone()),
                metric: MetricMatch::Exact(metric.clone()),
                active_series: share(*of.get(index)?),
            })
        });
        let budgets = |given: &Given| {
            budgets(policy, next, given, &sums, shares, metrics.clone().collect(), &protected, estimates)
        };
        let Some(budgets) = next.given.get(&embedder.name).map(budgets) else { continue };
        let plan = Plan { budgets, ..base.clone() };
        if let Some(given) = next.given.get_mut(&embedder.name) {
            let (plan, new) = versioned(plan, given, version);
            is_new |= new;
            plans.insert(embedder.name.clone(), plan);
        }
    }
    let newcomer = next.newcomer.clone();
    let budgets = budgets(policy, next, &newcomer, &sums, shares, Vec::new(), &protected, estimates);
    let (newcomer, new) = versioned(Plan { budgets, ..base }, &mut next.newcomer, version);
    if is_new || new {
        next.version = version;
    }
    (plans, newcomer)
}

/// The plan under its version: a new one if it says something new.
fn versioned(mut plan: Plan, given: &mut Given, version: u64) -> (Plan, bool) {
    plan.version = 1;
    let mut hasher = SipHasher13::new();
    hasher.write(&serde_json::to_vec(&plan).unwrap_or_default());
    let digest = hasher.finish();
    let is_new = given.version == 0 || given.digest != digest;
    if is_new {
        (given.version, given.digest) = (version, digest);
    }
    plan.version = given.version;
    (plan, is_new)
}

fn rules(next: &Previous, policy: &Policy) -> Vec<Rule> {
    let decided = next.treatments.iter().filter_map(|it| of_treatment(it, policy));
    // No more than a plan can have: `standing` lets in neither a decision nor a declared fold beyond.
    decided.chain(next.declared.iter().filter_map(|it| of_declared(it, policy))).collect()
}

fn of_treatment(it: &Treatment, policy: &Policy) -> Option<Rule> {
    let now = drop_labels(&it.in_force, policy);
    let before = drop_labels(&it.before, policy);
    let rule = Rule {
        name: name(it),
        tenant: Some(it.tenant.clone()),
        metric: MetricMatch::Exact(it.metric.clone()),
        resource: Vec::new(),
        attributes: Vec::new(),
        pipeline: Pipeline::FullFidelity,
        fold: None,
        topk: None,
        switch: None,
    };
    with_sides(rule, now, before, it.switch_at, policy)
}

fn of_declared(it: &DeclaredState, policy: &Policy) -> Option<Rule> {
    let is_leaving = !it.is_on;
    let rule = Rule {
        // One of the same name may have come in its place.
        name: if is_leaving {
            format!("{} (until {})", it.fold.name, it.switch_at)
        } else {
            it.fold.name.clone()
        },
        tenant: it.fold.tenant.clone(),
        metric: it.fold.metric.clone(),
        resource: it.fold.resource.clone(),
        attributes: it.fold.attributes.clone(),
        pipeline: Pipeline::FullFidelity,
        fold: None,
        topk: None,
        switch: None,
    };
    with_sides(rule, it.labels(), it.before.clone(), it.switch_at, policy)
}

/// A rule that folds these labels, and those before its switch. None: it does nothing.
fn with_sides(
    rule: Rule,
    now: Option<Labels>,
    before: Option<Labels>,
    at: phoenix_plan::InstantMs,
    policy: &Policy,
) -> Option<Rule> {
    let same = match (&now, &before) {
        (None, None) => return None,
        (Some(now), Some(before)) => now.keeps_the_same_as(before),
        _ => false,
    };
    let side = |labels: &Option<Labels>| match labels {
        Some(labels) => (Pipeline::Optimized, Some(policy.fold.with(labels.clone()))),
        None => (Pipeline::FullFidelity, None),
    };
    let (pipeline, fold) = side(&now);
    let from = side(&before);
    let from = phoenix_plan::Treatment { pipeline: from.0, fold: from.1 };
    Some(Rule { pipeline, fold, switch: (!same).then_some(Switch { at, from }), ..rule })
}

/// Labels as a plan drops them; none: there are none.
fn drop_labels(folded: &Folded, policy: &Policy) -> Option<Labels> {
    let (resource, attributes): (Vec<_>, Vec<_>) = folded.iter().partition(|label| label.resource);
    let keys =
        |labels: Vec<&crate::needs::LabelKey>| labels.into_iter().map(|label| label.key.clone()).collect();
    // A policy may have come to say sidecar since.
    let resource: Vec<String> =
        if policy.plan.placement == Placement::Sidecar { Vec::new() } else { keys(resource) };
    let attributes: Vec<String> = keys(attributes);
    (!resource.is_empty() || !attributes.is_empty()).then_some(Labels::Drop { resource, attributes })
}

/// The name of a rule: the metric's, and a digest, since names are cut and tenants share metrics.
fn name(it: &Treatment) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(it.tenant.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(it.metric.as_bytes());
    let end =
        (0..=NAME_BYTES.min(it.metric.len())).rev().find(|end| it.metric.is_char_boundary(*end)).unwrap_or(0);
    format!("{} #{:016x}", &it.metric[..end], hasher.finish())
}

/// Σ shares by tenant: what a reserved part is divided by.
fn sums(next: &Previous, shares: &Shares) -> BTreeMap<String, u64> {
    let sum = |tenant: &String| next.given.values().filter_map(|it| it.shares.get(tenant)).sum::<u64>();
    shares.tenants.iter().map(|tenant| (tenant.clone(), sum(tenant))).collect()
}

fn share(number: u64) -> u32 {
    u32::try_from(number.clamp(1, SHARE_MAX)).unwrap_or(u32::MAX)
}

/// Budgets of one plan; none where nothing is enforced.
#[allow(clippy::too_many_arguments, reason = "one place puts the parts of a plan together")]
fn budgets(
    policy: &Policy,
    next: &Previous,
    given: &Given,
    sums: &BTreeMap<String, u64>,
    shares: &Shares,
    mut metrics: Vec<MetricShare>,
    protected: &[String],
    estimates: &Estimates,
) -> Option<Budgets> {
    let others = policy.tenants.iter().find(|it| it.name.is_none());
    let others = others.filter(|it| it.mode.unwrap_or(policy.mode) == Mode::Auto);
    // Before anybody has reported nobody knows who needs what, and how many there will be.
    if estimates.embedders.is_empty() || (shares.tenants.is_empty() && others.is_none()) {
        return None;
    }
    let parts = estimates.embedders.len() as u64 + 2;
    let mut tenants: Vec<TenantShare> = Vec::new();
    for tenant in &shares.tenants {
        let Some(it) = policy.tenant(tenant) else { continue };
        let own = share(given.shares.get(tenant).copied().unwrap_or(1));
        let sum = sums.get(tenant).copied().unwrap_or(0).max(u64::from(own));
        // A part of what is reserved, as the share is one of the budget.
        let reserved =
            if it.name.is_some() { it.reserved.saturating_mul(u64::from(own)) / sum.max(1) } else { 0 };
        let reserved = u32::try_from(reserved).unwrap_or(u32::MAX).min(own);
        tenants.push(TenantShare {
            tenant: Some(tenant.clone()),
            active_series: own,
            reserved,
            priority: it.priority,
        });
    }
    if let Some(it) = others {
        // Tenants that are watched only would have the share of the others.
        let approved = |id: &str| next.approved.contains(id);
        let watched = policy.tenants.iter().filter_map(|it| it.name.as_ref());
        for name in watched
            .filter(|name| !is_enforced(policy, approved, name))
            .take(bounds::SHARES - 1 - tenants.len())
        {
            let (active_series, reserved) = (share(SHARE_MAX), 0);
            tenants.push(TenantShare {
                tenant: Some(name.clone()),
                active_series,
                reserved,
                priority: Priority::Normal,
            });
        }
        let active_series = share(it.active_series / parts);
        tenants.push(TenantShare { tenant: None, active_series, reserved: 0, priority: it.priority });
    }
    for it in &policy.metrics {
        let enforced = |name: &String| shares.tenants.contains(name);
        if it.tenant.as_ref().is_none_or(enforced) {
            let active_series = share(it.active_series / parts);
            metrics.push(MetricShare { tenant: it.tenant.clone(), metric: it.metric.clone(), active_series });
        }
    }
    Some(Budgets {
        tenants,
        metrics,
        protected_labels: protected.to_vec(),
        dwell: policy.change.dwell,
        // An embedder's share is hardly more than it needs: below the threshold of the fleet nothing would ever come back in it.
        restore_below_percent: policy.change.aim_percent,
        switch_lead: policy.change.switch_lead,
        fold: policy.fold.clone(),
    })
}

/// Labels that budgets in the embedders do not fold: those that are protected on every metric, then those that queries need, by their weight.
fn protected(units: &Units<'_>, policy: &Policy) -> Vec<String> {
    let mut all = policy.protected_everywhere();
    let mut needed: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, label) in units.all.iter().flat_map(|unit| &unit.labels) {
        if label.needed.weight > 0 {
            let weight = needed.entry(&key.key).or_default();
            *weight = (*weight).max(label.needed.weight);
        }
    }
    let base = policy.plan.plan(1);
    let stored = |key: &str| -> String {
        key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
    };
    let ours = [stored(&base.mark_label), stored(&base.writer_label)];
    let fits = |key: &str| {
        (1..=bounds::KEY_BYTES).contains(&key.len())
            && !key.contains(',')
            && !key.chars().any(char::is_control)
            && !ours.contains(&stored(key))
    };
    let mut needed: Vec<(&str, u64)> = needed.into_iter().filter(|(key, _)| fits(key)).collect();
    needed.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    for (key, _) in needed {
        if all.len() < bounds::LABELS && !all.iter().any(|known| known == key) {
            all.push(key.to_owned());
        }
    }
    all
}
