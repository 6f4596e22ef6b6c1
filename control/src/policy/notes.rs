//! What of a policy has no effect, and why: a line each.
//!
//! Enters: a policy, and what is known of the fleet if anything is. Leaves: lines, in the order of the document. A note is no refusal: a policy may be
//! written for metrics that are not there yet.

use super::check::may_meet;
use super::{Mode, Policy};
use phoenix_plan::{Labels, MetricMatch, Placement, Priority};
use std::collections::BTreeSet;

/// What is known of the fleet.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Tenants and their metrics.
    pub metrics: BTreeSet<(String, String)>,
    /// Labels of points and resources.
    pub labels: BTreeSet<String>,
}

/// Labels that no budget folds, whatever a policy says (`docs/budgets.md`).
const ALWAYS_PROTECTED: [&str; 2] = ["service.name", "service.namespace"];

/// Every note.
pub fn notes(policy: &Policy, known: Option<&Known>) -> Vec<String> {
    let mut notes = Vec::new();
    of_modes(policy, &mut notes);
    of_tenants(policy, known, &mut notes);
    of_metrics(policy, known, &mut notes);
    of_protection(policy, known, &mut notes);
    of_folds(policy, known, &mut notes);
    of_prices(policy, &mut notes);
    notes
}

fn of_modes(policy: &Policy, notes: &mut Vec<String>) {
    let has_aims = policy.active_series.is_some() || !policy.tenants.is_empty() || !policy.metrics.is_empty();
    if !has_aims && policy.mode != Mode::Observe {
        let mode = if policy.mode == Mode::Auto { "auto" } else { "recommend" };
        notes.push(format!("mode {mode} decides nothing: there is no budget to keep"));
    }
    if policy.mode == Mode::Observe && !policy.folds.is_empty() {
        notes.push("folds: not in force in mode observe, which only measures".to_owned());
    }
    if !has_aims && !policy.queries.is_empty() {
        notes.push("queries: nothing asks what they need, for there is no budget to keep".to_owned());
    }
}

fn of_tenants(policy: &Policy, known: Option<&Known>, notes: &mut Vec<String>) {
    let bounded: u64 = policy.tenants.iter().fold(0, |sum, it| sum.saturating_add(it.active_series));
    let all_named = policy.tenants.iter().all(|it| it.name.is_some());
    if let Some(all) = policy.active_series
        && all_named
        && !policy.tenants.is_empty()
        && bounded <= all
    {
        notes.push(format!(
            "active_series: {all} is never reached by the named tenants, whose budgets are {bounded} together; only others can"
        ));
    }
    for (index, it) in policy.tenants.iter().enumerate() {
        let at = format!("tenants[{index}]");
        if it.mode == Some(policy.mode) {
            notes.push(format!("{at}.mode: is that of the whole policy anyway"));
        }
        if it.priority != Priority::Normal && policy.tenants.len() == 1 {
            notes.push(format!("{at}.priority: there is no other tenant to come before or after"));
        }
        let seen = |known: &Known, name: &str| known.metrics.iter().any(|(tenant, _)| tenant == name);
        if let (Some(known), Some(name)) = (known, &it.name)
            && !seen(known, name)
        {
            notes.push(format!("{at}.name: no embedder reports a tenant {name:?}"));
        }
        for (n, team) in it.teams.iter().enumerate() {
            let at = format!("{at}.teams[{n}]");
            if team.active_series == it.active_series {
                notes.push(format!("{at}.active_series: is all that the tenant has, which bounds it anyway"));
            }
            for (m, metric) in team.metrics.iter().enumerate() {
                let mut earlier = it.teams.iter().take(n).flat_map(|team| &team.metrics);
                if earlier.any(|other| hides(other, metric)) {
                    notes.push(format!("{at}.metrics[{m}]: an earlier team has all of these metrics"));
                } else {
                    unmatched(&format!("{at}.metrics[{m}]"), it.name.as_deref(), metric, known, notes);
                }
            }
        }
    }
}

fn of_metrics(policy: &Policy, known: Option<&Known>, notes: &mut Vec<String>) {
    for (index, it) in policy.metrics.iter().enumerate() {
        let at = format!("metrics[{index}]");
        let covers = |tenant: &Option<String>| tenant.is_none() || *tenant == it.tenant;
        let earlier = policy.metrics.iter().take(index);
        if let Some(n) =
            earlier.clone().position(|other| covers(&other.tenant) && hides(&other.metric, &it.metric))
        {
            notes.push(format!("{at}: metrics[{n}] comes first and matches all of it"));
            continue;
        }
        unmatched(&format!("{at}.metric"), it.tenant.as_deref(), &it.metric, known, notes);
    }
}

fn of_protection(policy: &Policy, known: Option<&Known>, notes: &mut Vec<String>) {
    for (index, it) in policy.protect.iter().enumerate() {
        if let Some(metric) = &it.metric {
            unmatched(&format!("protect[{index}].metric"), None, metric, known, notes);
        }
        for (n, label) in it.labels.iter().enumerate() {
            let at = format!("protect[{index}].labels[{n}]");
            let earlier = policy
                .protect
                .iter()
                .take(index)
                .filter(|other| other.metric.is_none() || other.metric == it.metric);
            if ALWAYS_PROTECTED.contains(&label.as_str()) {
                notes.push(format!("{at}: {label} is never folded anyway"));
            } else if earlier.flat_map(|other| &other.labels).any(|one| one == label) {
                notes.push(format!("{at}: {label} is protected by an earlier entry"));
            } else if known.is_some_and(|known| !known.labels.is_empty() && !known.labels.contains(label)) {
                notes.push(format!("{at}: no embedder reports a label {label:?}"));
            }
        }
    }
}

fn of_folds(policy: &Policy, known: Option<&Known>, notes: &mut Vec<String>) {
    for (index, it) in policy.folds.iter().enumerate() {
        let at = format!("folds[{index}]");
        let hidden = policy.folds.iter().take(index).position(|other| {
            (other.tenant.is_none() || other.tenant == it.tenant)
                && other.resource.iter().all(|one| it.resource.contains(one))
                && other.attributes.iter().all(|one| it.attributes.contains(one))
                && hides(&other.metric, &it.metric)
        });
        if let Some(n) = hidden {
            notes.push(format!("{at}: folds[{n}] comes first and matches all of it"));
            continue;
        }
        unmatched(&format!("{at}.metric"), it.tenant.as_deref(), &it.metric, known, notes);
        let Labels::Drop { resource, .. } = &it.labels else { continue };
        let plan = policy.plan.plan(1);
        for key in resource.iter().filter(|key| !plan.promotes_resource(key.as_bytes())) {
            notes.push(format!(
                "{at}.labels.drop.resource: the backend stores no {key}, so folding it saves nothing"
            ));
        }
        if policy.plan.placement == Placement::Sidecar && !resource.is_empty() {
            notes.push(format!("{at}.labels.drop.resource: a sidecar's writer is as fine as its pod"));
        }
    }
}

fn of_prices(policy: &Policy, notes: &mut Vec<String>) {
    let [_, _, per_gb] = policy.prices.all();
    if policy.prices.all().iter().all(|price| *price == 0.0) {
        notes.push("prices: none is given, so savings are told in series, samples and bytes only".to_owned());
    }
    if per_gb > 0.0 && policy.prices.bytes_per_sample == 0.0 {
        notes.push("prices.per_gb: samples of 0 bytes cost nothing".to_owned());
    }
}

/// Notes a matcher that nothing meets.
fn unmatched(
    field: &str,
    tenant: Option<&str>,
    metric: &MetricMatch,
    known: Option<&Known>,
    notes: &mut Vec<String>,
) {
    let Some(known) = known else { return };
    let mut of_tenant = known.metrics.iter().filter(|(name, _)| tenant.is_none_or(|tenant| tenant == name));
    if !of_tenant.any(|(_, name)| metric.matches(name.as_bytes())) {
        let (operation, text) = metric.parts();
        notes.push(format!("{field}: {operation} {text:?} matches none of the metrics that are reported"));
    }
}

/// Does the first surely match all that the second matches?
fn hides(first: &MetricMatch, second: &MetricMatch) -> bool {
    match (first, second) {
        (first, second) if first == second => true,
        (first, MetricMatch::Exact(_)) => may_meet(first, second),
        (MetricMatch::Prefix(short), MetricMatch::Prefix(long)) => long.starts_with(short.as_str()),
        (MetricMatch::Glob(pattern), _) => pattern.bytes().all(|byte| byte == b'*'),
        _ => false,
    }
}
