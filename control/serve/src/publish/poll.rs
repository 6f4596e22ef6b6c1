//! Long polls: how Collectors are given plans.
//!
//! In: `GET /v1/plan?node=ID[&cluster=NAME][&tenant=NAME][&wait=SECONDS]`, with the ETag of what is in force in `If-None-Match`. Out: 200 with the module's configuration and its ETag as soon as
//! there is another; 304 when there was none for `wait` seconds; 404 where nothing is published for the node yet, likewise after the wait. An `If-None-Match` says that this
//! version was taken; `X-Phoenix-Refused: VERSION` with a reason in `X-Phoenix-Reason` says that it was not.
//!
//! Refuses a node that is not its caller's, and a `wait` beyond a minute.

use super::answers::Answers;
use super::board::{Board, Node};
use super::xds::{Event, Noted, now_ns};
use crate::guard::Pass;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest wait, seconds.
pub const WAIT_MAX: u64 = 60;

/// The service.
#[derive(Clone)]
pub struct Poll {
    /// What is to be in force.
    pub board: Board,
    /// What became of it.
    pub answers: Arc<Answers>,
    /// Who is told.
    pub noted: Noted,
}

/// What a poll says.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Id of the node.
    node: String,
    /// Its cluster.
    #[serde(default)]
    cluster: String,
    /// Its tenant.
    #[serde(default)]
    tenant: String,
    /// Seconds to wait for something new, 60 at most.
    #[serde(default)]
    wait: u64,
}

impl Poll {
    /// What answers `GET`, for a route that asks for the right of embedders.
    pub fn method<S>(self) -> MethodRouter<S> {
        get(plan).with_state(self)
    }
}

fn said(status: StatusCode, why: impl Into<String>) -> Response {
    (status, Json(json!({"error": why.into()}))).into_response()
}

async fn plan(
    State(poll): State<Poll>,
    Extension(pass): Extension<Pass>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(why) => {
            return said(
                StatusCode::BAD_REQUEST,
                format!("query: {why}; allowed: node, cluster, tenant, wait"),
            );
        }
    };
    let caller = &pass.caller;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let node = Node { id: asked.node, cluster: asked.cluster, tenant: asked.tenant };
    if node.id.is_empty() {
        return said(StatusCode::BAD_REQUEST, "node: empty; allowed: an id");
    }
    if let Err(denied) = caller.speaks_for(&node.id) {
        (poll.noted)(&node, Event::Denied(denied.why()));
        return denied.answer();
    }
    if asked.wait > WAIT_MAX {
        return said(StatusCode::BAD_REQUEST, format!("wait: {}; allowed: 0 to {WAIT_MAX} s", asked.wait));
    }
    poll.answers.polled(&node, now_ns());
    let has = text("if-none-match").map(|tag| tag.trim().trim_matches('"').to_owned());
    if let Some(refused) = text("x-phoenix-refused") {
        let why = text("x-phoenix-reason").unwrap_or("no reason given");
        poll.answers.refused(&node, refused, why, now_ns());
        (poll.noted)(&node, Event::Refused(refused, why));
    } else if let Some(version) = &has
        && poll.answers.version_of(&node).as_ref() != Some(version)
    {
        poll.answers.taken(&node, version, now_ns());
        (poll.noted)(&node, Event::Taken(version));
    }
    let refused = text("x-phoenix-refused");
    let mut watch = poll.board.watch();
    let until = Instant::now() + Duration::from_secs(asked.wait);
    loop {
        let newest = watch.borrow_and_update().of(&node).cloned();
        if let Some(it) = &newest
            && has.as_deref() != Some(&*it.version)
            && refused != Some(&*it.version)
        {
            // It may have waited for a minute.
            if let Err(denied) = pass.still(&node.id) {
                (poll.noted)(&node, Event::Denied(denied.why()));
                return denied.answer();
            }
            poll.answers.sent(&node, &it.version, now_ns());
            (poll.noted)(&node, Event::Sent(&it.version));
            let tag = format!("\"{}\"", it.version);
            let head = [(header::ETAG, tag.as_str()), (header::CONTENT_TYPE, "application/json")];
            return (head, it.config.to_string()).into_response();
        }
        if !matches!(timeout_at(until, watch.changed()).await, Ok(Ok(()))) {
            return match newest {
                Some(_) => StatusCode::NOT_MODIFIED.into_response(),
                None => said(StatusCode::NOT_FOUND, format!("no plan for node {:?} yet", node.id)),
            };
        }
    }
}
