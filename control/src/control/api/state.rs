//! What is: the loop, decisions, the fleet, budgets.

use super::{Answer, App, Asked, Named, Refused, bad, failed};
use crate::control::now_ns;
use crate::decide::{Decision, Hold, Line, Saving, Treatment};
use crate::estimate::{Embedder, Estimates, MetricEstimate, Number};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use phoenix_serve::publish::answers::Said;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The loop.
#[derive(Serialize, JsonSchema)]
pub struct Status {
    /// observe, recommend or auto.
    mode: &'static str,
    /// When these numbers were made.
    at_unix_nano: String,
    /// When the decision was made that they led to: then it was kept, and sent. 0: none yet.
    decided_at_unix_nano: String,
    turns: u64,
    turns_failed: u64,
    /// Why the newest turn failed.
    turn_trouble: Option<String>,
    /// Why the policy in the file is not in force.
    policy_trouble: Option<String>,
    /// Why the file of who may do what is not in force.
    access_trouble: Option<String>,
    /// Queries that could not be read.
    query_complaints: Vec<String>,
    /// Version of the newest plan.
    plan_version: Option<u64>,
    saving: Option<Saving>,
    /// A rollback that stands.
    hold: Option<Hold>,
    embedders: Vec<Embedder>,
    /// What a person should know about the numbers.
    notes: Vec<String>,
    tenants: BTreeMap<String, TenantNow>,
    /// Ids of decisions that wait for approval.
    waiting: Vec<String>,
    nodes: Vec<NodeNow>,
    audit: AuditHead,
}

/// A tenant.
#[derive(Serialize, JsonSchema)]
struct TenantNow {
    active: Number,
    budget: Option<u64>,
    growth: f64,
}

/// An embedder, and what it said of plans.
#[derive(Serialize, JsonSchema)]
struct NodeNow {
    id: String,
    cluster: String,
    tenant: String,
    said: Said,
}

/// Where the audit log ends.
#[derive(Serialize, JsonSchema)]
struct AuditHead {
    lines: u64,
    hash: String,
}

pub async fn status(State(it): App) -> Answer<Json<Status>> {
    let answers = it.answers.all(now_ns());
    let audit = it.audit.lock().map(|audit| audit.head().clone()).unwrap_or_default();
    let access_trouble = it.grants.trouble();
    let core = it.core();
    let tenants = core.estimates.tenants.iter().map(|(name, tenant)| {
        let budget = core.policy.tenant(name).map(|it| it.active_series);
        (name.clone(), TenantNow { active: tenant.active, budget, growth: tenant.growth })
    });
    let nodes = answers.into_iter().map(|(node, said)| NodeNow {
        id: node.id,
        cluster: node.cluster,
        tenant: node.tenant,
        said,
    });
    Ok(Json(Status {
        mode: core.mode(),
        at_unix_nano: core.estimates.at_ns.to_string(),
        decided_at_unix_nano: core.decided_at_ns.to_string(),
        turns: core.turns,
        turns_failed: core.turns_failed,
        turn_trouble: core.turn_trouble.clone(),
        policy_trouble: core.policy_trouble.clone(),
        access_trouble,
        query_complaints: core.needs.complaints.clone(),
        plan_version: core.decided.as_ref().map(|it| it.next.version),
        saving: core.decided.as_ref().map(|it| it.saving),
        hold: core.hold(now_ns()),
        embedders: core.estimates.embedders.clone(),
        notes: core.estimates.notes.clone(),
        tenants: tenants.collect(),
        waiting: core.waiting(),
        nodes: nodes.collect(),
        audit: AuditHead { lines: audit.lines, hash: audit.hash },
    }))
}

/// How many.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// So many decisions: 1 to 1000; 100 when left out.
    limit: Option<usize>,
}

/// Decisions of one answer.
const DECISIONS_MAX: usize = 1_000;

/// A decision in its order.
#[derive(Serialize, JsonSchema)]
pub struct Numbered {
    number: u64,
    decision: Decision,
}

pub async fn decisions(State(it): App, Asked(asked): Asked<Limit>) -> Answer<Json<Vec<Numbered>>> {
    let limit = asked.limit.unwrap_or(100);
    if !(1..=DECISIONS_MAX).contains(&limit) {
        return Err(bad(format!("limit: {limit}; allowed: 1 to {DECISIONS_MAX}")));
    }
    let all = it.core().decisions(limit).map_err(failed)?;
    Ok(Json(all.into_iter().map(|(number, decision)| Numbered { number, decision }).collect()))
}

pub async fn estimates(State(it): App) -> Answer<Response> {
    let body = serde_json::to_vec::<Estimates>(&it.core().estimates).map_err(failed)?;
    Ok(([("content-type", "application/json")], body).into_response())
}

/// A metric.
#[derive(Serialize, JsonSchema)]
pub struct Metric {
    metric: String,
    tenants: Vec<OfTenant>,
    /// Newest first.
    decisions: Vec<Decision>,
}

/// A metric of a tenant.
#[derive(Serialize, JsonSchema)]
struct OfTenant {
    tenant: String,
    types: Vec<MetricEstimate>,
    treatment: Option<Treatment>,
}

pub async fn metric(State(it): App, Named(name): Named) -> Answer<Json<Metric>> {
    let core = it.core();
    let of = |(tenant, of): (&String, &crate::estimate::TenantEstimate)| {
        let types: Vec<_> = of.metrics.iter().filter(|it| it.name == name).cloned().collect();
        let treatment = core.decided.as_ref().and_then(|it| it.next.treatment(tenant, &name)).cloned();
        let is_known = !types.is_empty() || treatment.is_some();
        is_known.then(|| OfTenant { tenant: tenant.clone(), types, treatment })
    };
    let tenants: Vec<OfTenant> = core.estimates.tenants.iter().filter_map(of).collect();
    if tenants.is_empty() {
        let why = format!("metric: {name:?} is in no report; allowed: a metric that an embedder has sent");
        return Err(Refused(StatusCode::NOT_FOUND, why));
    }
    let all = core.decisions(DECISIONS_MAX).map_err(failed)?;
    let decisions = all.into_iter().filter(|(_, it)| it.metric == name).map(|(_, it)| it).collect();
    Ok(Json(Metric { metric: name, tenants, decisions }))
}

/// Whose budgets.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    /// A tenant; all when left out.
    tenant: Option<String>,
}

/// Budgets as an account.
#[derive(Serialize, JsonSchema)]
pub struct Budget {
    /// What money is counted in.
    currency: String,
    /// Series of all tenants together, if the policy bounds them.
    budget: Option<u64>,
    /// A tenant's line before those of its metrics.
    lines: Vec<Line>,
}

pub async fn budget(State(it): App, Asked(asked): Asked<Whose>) -> Answer<Json<Budget>> {
    let core = it.core();
    let all = core.decided.as_ref().map_or(&[][..], |it| &it.budgets);
    let is_asked = |line: &&Line| asked.tenant.as_ref().is_none_or(|tenant| line.tenant == *tenant);
    let lines: Vec<Line> = all.iter().filter(is_asked).cloned().collect();
    if let Some(tenant) = asked.tenant.filter(|_| lines.is_empty()) {
        let why = format!("tenant: {tenant:?} is in no report; allowed: a tenant of /api/v1/status");
        return Err(Refused(StatusCode::NOT_FOUND, why));
    }
    let currency = core.policy.prices.currency.clone();
    Ok(Json(Budget { currency, budget: core.policy.active_series, lines }))
}
