//! Backup, health, metrics, and what may be asked at all.

use super::super::metrics;
use super::{Answer, App, failed};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use phoenix_serve::guard::Pass;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

pub async fn document(State(it): App) -> Json<Value> {
    Json(it.document.get().cloned().unwrap_or_default())
}

pub async fn backup(State(it): App, Extension(pass): Extension<Pass>) -> Answer<Response> {
    let shared = it.clone();
    let copied = tokio::task::spawn_blocking(move || shared.core().backup()).await;
    let bytes = copied.map_err(failed)?.map_err(failed)?;
    it.note(&pass.caller.name, "backup", "state", &format!("{} bytes", bytes.len()));
    Ok(([("content-type", "application/octet-stream")], bytes).into_response())
}

pub async fn exposition(State(it): App) -> Response {
    ([("content-type", "text/plain; version=0.0.4")], metrics::text(&it)).into_response()
}

pub async fn alive() -> &'static str {
    "ok\n"
}

/// Does it do its work?
#[derive(Serialize, JsonSchema)]
pub struct Ready {
    /// Yes.
    ready: bool,
    /// What a person should know all the same: files that are refused, what came before them is in force.
    notes: Vec<String>,
}

pub async fn ready(State(it): App) -> Response {
    let (why, notes) = {
        let core = it.core();
        let why = match (&core.turn_trouble, core.turns) {
            (_, 0) => Some("turn: none yet; allowed: one that was carried out".to_owned()),
            (Some(why), _) => {
                Some(format!("turn: the newest failed: {why}; allowed: one that was carried out"))
            }
            (None, _) => None,
        };
        (why, core.policy_trouble.is_some())
    };
    // Anybody may ask: what is wrong in a file, and what stands there, is for those who may see the status.
    let files = [
        ("policy", notes),
        ("access", it.grants.trouble().is_some()),
        ("tls", it.tls.as_ref().and_then(|tls| tls.trouble()).is_some()),
    ];
    let notes = files.into_iter().filter(|(_, is_so)| *is_so);
    let notes = notes
        .map(|(what, _)| format!("{what}: what the files say now is not taken; GET /api/v1/status says why"));
    match why {
        None => Json(Ready { ready: true, notes: notes.collect() }).into_response(),
        Some(why) => super::Refused(StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}
