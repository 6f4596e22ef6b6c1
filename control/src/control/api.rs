//! What may be asked, and by whom.
//!
//! | | role | |
//! |---|---|---|
//! | `POST /v1/reports` | embedder | a report, protobuf, gzip, zstd or neither |
//! | `GET /api/v1/status` | viewer | the loop, its embedders, what they have taken and refused |
//! | `GET /api/v1/decisions?limit=N` | viewer | decisions, newest first |
//! | `POST /api/v1/decisions/{id}/approve` | approver | one that waits is carried out |
//! | `GET /api/v1/estimates` | viewer | the fleet in numbers |
//! | `GET /api/v1/metrics/{name}` | viewer | one metric: estimates, treatment, decisions |
//! | `GET /api/v1/plan?node=ID` | admin | the plan of a node, with its key |
//! | `GET /api/v1/backup` | admin | the state, as of one moment |
//! | `GET /metrics` | viewer | for Prometheus |
//! | `GET /healthz`, `/readyz` | anybody | the process runs; it has decided |
//!
//! Errors are JSON, `{"error": …}`, and name field, value and allowed range. Who may not, and what the collector refuses, is in the audit log.
//! Over plain text a question must name a loopback host: a page that a browser shows under another name has no business here.

use super::core::node_of;
use super::{Shared, metrics, now_ns};
use crate::otlp::PROTOBUF;
use crate::otlp::frame::gunzip_within;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use phoenix_report::read::BYTES_MAX;
use phoenix_serve::listen::Peer;
use phoenix_serve::role::{Caller, Denied, Right};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long the body of a report may take.
const BODY_TIME: Duration = Duration::from_secs(30);

type App = State<Arc<Shared>>;
type Answer = Result<Response, Refused>;

/// An answer that is none.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, axum::Json(json!({"error": self.1}))).into_response()
    }
}

fn bad(why: impl Into<String>) -> Refused {
    Refused(StatusCode::BAD_REQUEST, why.into())
}

/// All routes.
pub fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/reports", post(report))
        .route("/api/v1/status", get(status))
        .route("/api/v1/decisions", get(decisions))
        .route("/api/v1/decisions/{id}/approve", post(approve))
        .route("/api/v1/estimates", get(estimates))
        .route("/api/v1/metrics/{name}", get(metric))
        .route("/api/v1/plan", get(plan))
        .route("/api/v1/backup", get(backup))
        .route("/metrics", get(exposition))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(shared)
}

impl Shared {
    /// Lets somebody in, or says why not.
    fn allow(&self, peer: &Peer, headers: &HeaderMap, right: Right, what: &str) -> Result<Caller, Refused> {
        if peer.is_plain && right != Right::Embed && !is_loopback(headers) {
            let why = "host: another than loopback; allowed: localhost, 127.0.0.1 or [::1], and no origin but these";
            self.refuse(&peer.address.ip().to_string(), "denied", what, why);
            return Err(Refused(StatusCode::FORBIDDEN, why.to_owned()));
        }
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
        self.access.allow(&peer.credentials(authorization), right).map_err(|denied| {
            let (status, why) = match denied {
                Denied::Unknown(why) => (StatusCode::UNAUTHORIZED, why),
                Denied::Forbidden(why) => (StatusCode::FORBIDDEN, why),
            };
            self.refuse(&peer.address.ip().to_string(), "denied", what, &why);
            Refused(status, why)
        })
    }
}

/// Do the names under which this was asked for mean this machine?
fn is_loopback(headers: &HeaderMap) -> bool {
    let names = ["host", "origin"].into_iter().filter_map(|name| headers.get(name));
    names.map(|value| value.to_str().unwrap_or("")).all(|value| {
        let host = value.strip_prefix("http://").unwrap_or(value);
        let host = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
            .map_or(host, |it| it.0);
        matches!(host, "localhost" | "127.0.0.1" | "[::1]")
    })
}

async fn report(State(it): App, Extension(peer): Extension<Peer>, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let headers = head.headers;
    // Nobody who may not send has anything of it read.
    let caller = it.allow(&peer, &headers, Right::Embed, "report")?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let of_type = header("content-type").split(';').next().unwrap_or("").trim().to_owned();
    if of_type != PROTOBUF && of_type != "application/protobuf" {
        let why = format!("content-type: {of_type:?}; allowed: {PROTOBUF}");
        return Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let too_large = || {
        let why = format!("report: more than {BYTES_MAX} bytes; allowed: up to {BYTES_MAX}");
        Refused(StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    let encoding = header("content-encoding").to_owned();
    let body = match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => return Err(Refused(StatusCode::REQUEST_TIMEOUT, "report: no body in time".to_owned())),
    };
    let taken = tokio::task::spawn_blocking(move || {
        let body: Bytes = match encoding.as_str() {
            "" | "identity" => body,
            "gzip" => match gunzip_within(&body, BYTES_MAX) {
                Ok(Some(inflated)) => inflated.into(),
                Ok(None) => return Err(too_large()),
                Err(why) => return Err(bad(format!("report: {why}"))),
            },
            "zstd" => {
                let mut inflated = Vec::new();
                let reader = zstd::stream::read::Decoder::new(&body[..])
                    .map_err(|why| bad(format!("report: {why}")))?;
                let mut reader = std::io::Read::take(reader, BYTES_MAX as u64 + 1);
                std::io::Read::read_to_end(&mut reader, &mut inflated)
                    .map_err(|why| bad(format!("report: {why}")))?;
                if inflated.len() > BYTES_MAX {
                    return Err(too_large());
                }
                inflated.into()
            }
            other => {
                let why = format!("content-encoding: {other:?}; allowed: gzip, zstd, identity");
                return Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
            }
        };
        if !caller.nodes.is_empty() {
            // Of what cannot be read the collector says why.
            let of = phoenix_report::read(&body, now_ns()).map(|report| report.process).unwrap_or_default();
            if !of.is_empty() && !caller.is_node(node_of(&of)) {
                let why = format!("process: {of:?} is not of {:?}", caller.name);
                it.refuse(&caller.name, "denied", "report", &why);
                return Err(Refused(StatusCode::FORBIDDEN, why));
            }
        }
        let refused = match it.core().take(&body, now_ns()) {
            Ok(_) => return Ok(StatusCode::ACCEPTED),
            Err(refused) => refused,
        };
        // What a network does by itself, twice and too late, is no news.
        if refused.reason.is_usual() {
            return Ok(StatusCode::ACCEPTED);
        }
        it.refuse(&caller.name, "refused", "report", &refused.to_string());
        Err(bad(refused.to_string()))
    });
    let taken =
        taken.await.map_err(|_| Refused(StatusCode::INTERNAL_SERVER_ERROR, "not taken".to_owned()))?;
    Ok(taken?.into_response())
}

async fn status(State(it): App, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Answer {
    it.allow(&peer, &headers, Right::Read, "status")?;
    let answers = it.answers.all(now_ns());
    let audit = it.audit.lock().map(|audit| audit.head().clone()).unwrap_or_default();
    let core = it.core();
    let tenants: Value = core
        .estimates
        .tenants
        .iter()
        .map(|(name, tenant)| {
            let budget = core.policy.tenant(name).map(|it| it.active_series);
            (name.clone(), json!({"active": tenant.active, "budget": budget, "growth": tenant.growth}))
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let waiting = core.decided.as_ref().map(|it| {
        let all = it.next.said.iter();
        all.filter(|(_, said)| **said == crate::decide::Outcome::WaitsForApproval)
            .map(|(id, _)| id.clone())
            .collect::<Vec<_>>()
    });
    let nodes: Vec<Value> = answers
        .into_iter()
        .map(|(node, said)| json!({"id": node.id, "cluster": node.cluster, "tenant": node.tenant, "said": said}))
        .collect();
    let body = json!({
        "mode": core.mode(),
        "at_unix_nano": core.estimates.at_ns.to_string(),
        "turns": core.turns,
        "turns_failed": core.turns_failed,
        "policy_trouble": core.policy_trouble,
        "query_complaints": core.needs.complaints,
        "plan_version": core.decided.as_ref().map(|it| it.next.version),
        "saving": core.decided.as_ref().map(|it| &it.saving),
        "embedders": core.estimates.embedders,
        "notes": core.estimates.notes,
        "tenants": tenants,
        "waiting": waiting,
        "nodes": nodes,
        "audit": {"lines": audit.lines, "hash": audit.hash},
    });
    Ok(axum::Json(body).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    limit: Option<usize>,
}

/// Decisions of one answer.
const DECISIONS_MAX: usize = 1_000;

async fn decisions(
    State(it): App,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Query(asked): Query<Limit>,
) -> Answer {
    it.allow(&peer, &headers, Right::Read, "decisions")?;
    let limit = asked.limit.unwrap_or(100);
    if !(1..=DECISIONS_MAX).contains(&limit) {
        return Err(bad(format!("limit: {limit}; allowed: 1 to {DECISIONS_MAX}")));
    }
    let all = it.core().decisions(limit).map_err(failed)?;
    let all: Vec<Value> =
        all.into_iter().map(|(number, it)| json!({"number": number, "decision": it})).collect();
    Ok(axum::Json(all).into_response())
}

fn failed(error: anyhow::Error) -> Refused {
    Refused(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

async fn approve(
    State(it): App,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    let caller = it.allow(&peer, &headers, Right::Approve, &format!("approve {id}"))?;
    if !it.core().approve(&id).map_err(failed)? {
        let why = format!(
            "decision: {id:?} does not wait for approval; allowed: one of `waiting` in /api/v1/status"
        );
        it.refuse(&caller.name, "refused", &format!("approve {id}"), &why);
        return Err(Refused(StatusCode::NOT_FOUND, why));
    }
    it.note(&caller.name, "approved", &id, "");
    it.wake.notify_one();
    Ok((StatusCode::ACCEPTED, axum::Json(json!({"approved": id}))).into_response())
}

async fn estimates(State(it): App, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Answer {
    it.allow(&peer, &headers, Right::Read, "estimates")?;
    let body = serde_json::to_vec(&it.core().estimates).map_err(|error| failed(error.into()))?;
    Ok(([("content-type", "application/json")], body).into_response())
}

async fn metric(
    State(it): App,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Answer {
    it.allow(&peer, &headers, Right::Read, &format!("metric {name}"))?;
    let core = it.core();
    let tenants: Vec<Value> = core
        .estimates
        .tenants
        .iter()
        .filter_map(|(tenant, of)| {
            let metrics: Vec<_> = of.metrics.iter().filter(|it| it.name == name).collect();
            let treatment = core.decided.as_ref().and_then(|it| it.next.treatment(tenant, &name));
            (!metrics.is_empty() || treatment.is_some())
                .then(|| json!({"tenant": tenant, "types": metrics, "treatment": treatment}))
        })
        .collect();
    if tenants.is_empty() {
        let why = format!("metric: {name:?} is in no report; allowed: a metric that an embedder has sent");
        return Err(Refused(StatusCode::NOT_FOUND, why));
    }
    let all = core.decisions(DECISIONS_MAX).map_err(failed)?;
    let all: Vec<_> = all.into_iter().filter(|(_, it)| it.metric == name).map(|(_, it)| it).collect();
    Ok(axum::Json(json!({"metric": name, "tenants": tenants, "decisions": all})).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    #[serde(default)]
    node: String,
}

async fn plan(
    State(it): App,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Query(asked): Query<Whose>,
) -> Answer {
    it.allow(&peer, &headers, Right::Administer, &format!("plan {}", asked.node))?;
    match it.core().plan_of(&asked.node) {
        Some(plan) => Ok(axum::Json(plan).into_response()),
        None => Err(Refused(StatusCode::NOT_FOUND, "node: nothing is published yet".to_owned())),
    }
}

async fn backup(State(it): App, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Answer {
    let caller = it.allow(&peer, &headers, Right::Administer, "backup")?;
    let shared = it.clone();
    let copied = tokio::task::spawn_blocking(move || shared.core().backup()).await;
    let bytes = copied.map_err(|error| failed(error.into()))?.map_err(failed)?;
    it.note(&caller.name, "backup", "state", &format!("{} bytes", bytes.len()));
    Ok(([("content-type", "application/octet-stream")], bytes).into_response())
}

async fn exposition(State(it): App, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Answer {
    it.allow(&peer, &headers, Right::Read, "metrics")?;
    Ok(([("content-type", "text/plain; version=0.0.4")], metrics::text(&it)).into_response())
}

async fn ready(State(it): App) -> Response {
    let core = it.core();
    match core.turns > core.turns_failed {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no decision yet\n").into_response(),
    }
}
