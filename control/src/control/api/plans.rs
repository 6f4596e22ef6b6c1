//! Plans: what they say and change, letting a decision through, taking folds back.

use super::super::diff::{Diff, Of};
use super::{Answer, App, Asked, Named, Refused, Sent, bad, failed};
use crate::control::now_ns;
use crate::decide::{self, Hold};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use phoenix_plan::Plan;
use phoenix_serve::guard::Pass;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::atomic::Ordering;

/// How long a rollback holds when nothing is said, seconds: from the night into the morning.
pub const HOLD_SECONDS: u64 = 12 * 3_600;

/// A decision that somebody has approved of.
#[derive(Serialize, JsonSchema)]
pub struct Approved {
    approved: String,
}

pub async fn approve(
    State(it): App,
    Extension(pass): Extension<Pass>,
    Named(id): Named,
) -> Answer<(StatusCode, Json<Approved>)> {
    let by = &pass.caller.name;
    if !it.core().approve(&id).map_err(failed)? {
        let why = format!(
            "decision: {id:?} does not wait for approval; allowed: one of `waiting` in /api/v1/status"
        );
        it.refuse(by, "refused", &format!("approve {id}"), &why);
        return Err(Refused(StatusCode::NOT_FOUND, why));
    }
    it.note(by, "approved", &id, "");
    it.wake.notify_one();
    Ok((StatusCode::ACCEPTED, Json(Approved { approved: id })))
}

/// Which node.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    /// Id of a node; left out, the plan of those who are not known.
    #[serde(default)]
    node: String,
}

/// The module's configuration, as embedders are given it.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// The plan.
    plan: Plan,
    /// What only Envoy needs (docs/envoy.md).
    envoy: Value,
}

pub async fn plan(State(it): App, Asked(asked): Asked<Whose>) -> Answer<Json<Value>> {
    match it.core().plan_of(&asked.node) {
        Some(plan) => Ok(Json(plan)),
        None => Err(Refused(StatusCode::NOT_FOUND, "node: nothing is published yet".to_owned())),
    }
}

/// Which difference.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Id of a node; all of them when left out.
    node: Option<String>,
    /// What is compared to the plan before: the plan that is in force, or the one that comes when all that waits is approved. Left out: what waits, if something does.
    of: Option<Of>,
}

pub async fn diff(State(it): App, Asked(asked): Asked<Difference>) -> Answer<Json<Diff>> {
    let diff = it.core().diff(asked.of, asked.node.as_deref(), now_ns()).map_err(failed)?;
    if let Some(node) = asked.node.filter(|_| diff.nodes == 0) {
        let why = format!(
            "node: {node:?} has no plan of its own; allowed: a node of /api/v1/status, or \"\" for those who are not known"
        );
        return Err(Refused(StatusCode::NOT_FOUND, why));
    }
    Ok(Json(diff))
}

/// A rollback, as it is asked for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Folds as they were in the plans of this version. Left out: before the newest change.
    to: Option<u64>,
    /// How long nothing is decided by itself: 60 to 2,592,000; 43,200 when left out.
    hold_seconds: Option<u64>,
    /// Also where more comes back than the budgets have: no budget bounds it until `plan.stream_expiry` after the switch.
    #[serde(default)]
    force: bool,
}

/// What a rollback does.
#[derive(Serialize, JsonSchema)]
pub struct RolledBack {
    /// What is held, and until when.
    hold: Hold,
    /// Metrics whose labels change.
    metrics: Vec<decide::RolledBack>,
}

pub async fn roll_back(
    State(it): App,
    Extension(pass): Extension<Pass>,
    Sent(asked): Sent<Rollback>,
) -> Answer<(StatusCode, Json<RolledBack>)> {
    let by = &pass.caller.name;
    let for_ns = asked.hold_seconds.unwrap_or(HOLD_SECONDS).saturating_mul(1_000_000_000);
    let wish = decide::Rollback { by, to: asked.to, now_ns: now_ns(), for_ns };
    let done = it.core().roll_back(&wish, asked.force);
    let (hold, metrics) = match done.map_err(failed)? {
        Ok(done) => done,
        Err(refused) => {
            let refused = match refused {
                decide::Refusal::Range(why) => bad(why),
                decide::Refusal::Nothing(why) | decide::Refusal::Budget(why) => {
                    Refused(StatusCode::CONFLICT, why)
                }
            };
            it.refuse(by, "refused", "rollback", &refused.1);
            return Err(refused);
        }
    };
    let names: Vec<String> = metrics.iter().map(|it| format!("{}/{}", it.tenant, it.metric)).collect();
    let until = phoenix_plan::InstantMs(hold.until_ns / 1_000_000);
    let failed_before = it.audit_failed.load(Ordering::Relaxed);
    let forced = if asked.force { ", forced" } else { "" };
    let detail = format!("held until {until}{forced}: {}", names.join(", "));
    it.note(by, "rolled back", &format!("to version {}", hold.to), &detail);
    // A line that could not be written is written when the control host begins again.
    if it.audit_failed.load(Ordering::Relaxed) == failed_before {
        it.core().audit_hold().map_err(failed)?;
    }
    it.wake.notify_one();
    Ok((StatusCode::ACCEPTED, Json(RolledBack { hold, metrics })))
}

/// A hold that was ended.
#[derive(Serialize, JsonSchema)]
pub struct Released {
    released: Hold,
}

pub async fn release(
    State(it): App,
    Extension(pass): Extension<Pass>,
) -> Answer<(StatusCode, Json<Released>)> {
    let by = &pass.caller.name;
    let Some(released) = it.core().release(now_ns()).map_err(failed)? else {
        let why = "hold: nothing is held; allowed: after a rollback, until its time is over".to_owned();
        it.refuse(by, "refused", "release", &why);
        return Err(Refused(StatusCode::CONFLICT, why));
    };
    it.note(by, "released", &format!("to version {}", released.to), "");
    it.wake.notify_one();
    Ok((StatusCode::ACCEPTED, Json(Released { released })))
}
