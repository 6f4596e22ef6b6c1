//! Budgets as an account: what comes in, what goes out, what that saves, and how much room is left.
//!
//! Enters: units, shares, what is in force. Leaves: a [`Line`] for each tenant and each of its metrics, those with a budget or a fold first, then the heaviest. Series in are
//! distinct in the whole fleet; series out are those that all embedders together write, so that a metric seen in two places can have more out than in.

use super::record::{kept, kept_price};
use super::shares::Shares;
use super::state::{Folded, Previous};
use super::unit::{Unit, Units};
use crate::estimate::Estimates;
use crate::policy::{Policy, Priced};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Metrics of a tenant that have a line: a screen has fewer, and an answer has an end.
const METRICS_MAX: usize = 500;

/// One tenant or metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The tenant.
    pub tenant: String,
    /// The metric; none: all of the tenant.
    pub metric: Option<String>,
    /// Series that it may have; none: no budget of its own.
    pub budget: Option<u64>,
    /// Distinct active streams in.
    pub series_in: f64,
    /// Series out, of all embedders together, at most.
    pub series_out: f64,
    /// Budget less series out; below zero: so many too many.
    pub headroom: Option<f64>,
    /// What the difference of in and out is worth a month.
    pub saved: Priced,
    /// Shares of the budget that embedders have, by their names. Where it is observed only, nobody has any.
    pub shares: BTreeMap<String, u64>,
    /// Metrics of the tenant that have no line.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub metrics_left_out: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// All lines, a tenant's before those of its metrics.
pub fn lines(
    next: &Previous,
    units: &Units<'_>,
    shares: &Shares,
    estimates: &Estimates,
    policy: &Policy,
) -> Vec<Line> {
    let mut all = Vec::new();
    for (tenant, it) in &estimates.tenants {
        let members: Vec<&Unit<'_>> = units.all.iter().filter(|unit| unit.tenant == tenant).collect();
        let mut metrics: Vec<Line> =
            members.iter().map(|unit| of_metric(unit, next, shares, estimates, policy)).collect();
        let known: f64 = metrics.iter().map(|it| it.series_in).sum();
        let out: f64 = metrics.iter().map(|it| it.series_out).sum();
        let rest = if estimates.truncated_metrics > 0 { (it.active.value - known).max(0.0) } else { 0.0 };
        let is_told = |line: &Line| line.budget.is_some() || line.series_in != line.series_out;
        metrics.sort_by(|a, b| {
            (is_told(b).cmp(&is_told(a)))
                .then(b.series_in.total_cmp(&a.series_in))
                .then_with(|| a.metric.cmp(&b.metric))
        });
        let left_out = metrics.len().saturating_sub(METRICS_MAX) as u64;
        metrics.truncate(METRICS_MAX);
        let budget = policy.tenant(tenant).map(|it| it.active_series);
        let of =
            next.given.iter().filter_map(|(name, given)| Some((name.clone(), *given.shares.get(tenant)?)));
        let (shares, metric) = (of.collect(), None);
        let whole = line(tenant, metric, budget, (known + rest, out + rest), shares, policy);
        all.push(Line { metrics_left_out: left_out, ..whole });
        all.extend(metrics);
    }
    all
}

fn of_metric(
    unit: &Unit<'_>,
    next: &Previous,
    shares: &Shares,
    estimates: &Estimates,
    policy: &Policy,
) -> Line {
    let nothing = Folded::new();
    let in_force = next.treatment(unit.tenant, unit.name).map_or(&nothing, |it| &it.in_force);
    let budget = policy.metric(unit.tenant, unit.name).map(|(_, it)| it.active_series);
    let own = shares.metrics.iter().find(|(tenant, name, _)| tenant == unit.tenant && name == unit.name);
    let of = own.into_iter().flat_map(|(_, _, of)| estimates.embedders.iter().zip(of));
    let of = of.map(|(embedder, share)| (embedder.name.clone(), *share)).collect();
    let series = (unit.active, unit.out_now(in_force));
    line(unit.tenant, Some(unit.name.to_owned()), budget, series, of, policy)
}

fn line(
    tenant: &str,
    metric: Option<String>,
    budget: Option<u64>,
    (series_in, series_out): (f64, f64),
    shares: BTreeMap<String, u64>,
    policy: &Policy,
) -> Line {
    Line {
        tenant: tenant.to_owned(),
        metric,
        budget,
        series_in: kept(series_in),
        series_out: kept(series_out),
        headroom: budget.map(|budget| kept(budget as f64 - series_out)),
        saved: kept_price(policy.prices.of(series_in - series_out)),
        shares,
        metrics_left_out: 0,
    }
}
