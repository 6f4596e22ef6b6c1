//! What may be asked, and by whom: the table.
//!
//! A route is a line here: its path, the right that it asks for, what it takes and answers. The same table is the server's router and its OpenAPI document
//! ([`route`](super::route)). Errors are JSON, `{"error": …}`, and name field, value and allowed range. Who may not, and what is refused, is in the audit log.

// Plans: what they change, taking back, letting through.
mod plans;
// Reports in.
mod report;
// What is: the loop, decisions, the fleet, budgets.
mod state;
// Backup, health, metrics.
mod upkeep;

use super::Shared;
use super::route::{Refusal, Route};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use phoenix_serve::publish::poll::{Asked as Polled, Poll};
use phoenix_serve::role::Right;
use serde::de::DeserializeOwned;
use std::sync::Arc;

type App = State<Arc<Shared>>;
type Answer<T> = Result<T, Refused>;

/// All routes.
pub fn table(poll: Poll) -> Vec<Route> {
    use Right::{Administer, Approve, Embed, Read};
    let read = |path, summary, handler| Route::new(Method::GET, path, Some(Read), summary, handler);
    let approve = |path, summary, handler| Route::new(Method::POST, path, Some(Approve), summary, handler);
    vec![
        Route::new(
            Method::POST,
            "/v1/reports",
            Some(Embed),
            "A report: protobuf, gzip, zstd or neither.",
            post(report::report),
        )
        .takes_other(crate::otlp::PROTOBUF)
        .other(202, "")
        .refuses(&[400, 408, 413, 415]),
        Route::new(
            Method::GET,
            "/v1/plan",
            Some(Embed),
            "The plan of a node, as soon as there is another: a long poll with If-None-Match.",
            poll.method(),
        )
        .query::<Polled>()
        .other(200, "application/json")
        .refuses(&[304, 400, 404]),
        read("/api/v1/openapi.json", "This document.", get(upkeep::document)).other(200, "application/json"),
        read(
            "/api/v1/status",
            "The loop, its embedders, what they have taken and refused, what waits.",
            get(state::status),
        )
        .json::<state::Status>(200),
        read("/api/v1/decisions", "Decisions, newest first.", get(state::decisions))
            .query::<state::Limit>()
            .json::<Vec<state::Numbered>>(200)
            .refuses(&[400]),
        approve(
            "/api/v1/decisions/{id}/approve",
            "Lets a decision that waits be carried out.",
            post(plans::approve),
        )
        .json::<plans::Approved>(202)
        .refuses(&[404]),
        read("/api/v1/estimates", "The fleet in numbers.", get(state::estimates))
            .json::<crate::estimate::Estimates>(200),
        read("/api/v1/metrics/{name}", "One metric: estimates, treatment, decisions.", get(state::metric))
            .json::<state::Metric>(200)
            .refuses(&[404]),
        read("/api/v1/budget", "Budgets as an account, by tenant and metric.", get(state::budget))
            .query::<state::Whose>()
            .json::<state::Budget>(200)
            .refuses(&[400, 404]),
        Route::new(
            Method::GET,
            "/api/v1/plan",
            Some(Administer),
            "The plan of a node, with its key.",
            get(plans::plan),
        )
        .query::<plans::Whose>()
        .json::<plans::Configuration>(200)
        .refuses(&[400, 404]),
        read(
            "/api/v1/plan/diff",
            "What the plan that waits, or that is in force, changes to the one before.",
            get(plans::diff),
        )
        .query::<plans::Difference>()
        .json::<super::diff::Diff>(200)
        .refuses(&[400, 404]),
        approve("/api/v1/plan/rollback", "Takes folds back, and holds what is.", post(plans::roll_back))
            .takes::<plans::Rollback>()
            .json::<plans::RolledBack>(202)
            .refuses(&[400, 409]),
        approve("/api/v1/plan/release", "Ends what a rollback holds.", post(plans::release))
            .json::<plans::Released>(202)
            .refuses(&[409]),
        Route::new(
            Method::GET,
            "/api/v1/backup",
            Some(Administer),
            "The state, as of one moment.",
            get(upkeep::backup),
        )
        .other(200, "application/octet-stream"),
        read("/metrics", "For Prometheus.", get(upkeep::exposition)),
        Route::new(Method::GET, "/healthz", None, "The process runs.", get(upkeep::alive)),
        Route::new(
            Method::GET,
            "/readyz",
            None,
            "It decides, and embedders are given plans; or why not.",
            get(upkeep::ready),
        )
        .json::<upkeep::Ready>(200)
        .refuses(&[503]),
    ]
}

/// An answer that is none.
pub struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, axum::Json(Refusal { error: self.1 })).into_response()
    }
}

fn bad(why: impl Into<String>) -> Refused {
    Refused(StatusCode::BAD_REQUEST, why.into())
}

fn failed(error: impl Into<anyhow::Error>) -> Refused {
    Refused(StatusCode::INTERNAL_SERVER_ERROR, format!("{:#}", error.into()))
}

/// Nothing is served there.
pub async fn nowhere(request: Request) -> Refused {
    let path = request.uri().path();
    Refused(StatusCode::NOT_FOUND, format!("path: {path:?}; allowed: those of /api/v1/openapi.json"))
}

/// Something else is served there.
pub async fn otherwise(request: Request) -> Refused {
    let (method, path) = (request.method(), request.uri().path());
    let why = format!("method: {method} of {path:?}; allowed: those of /api/v1/openapi.json");
    Refused(StatusCode::METHOD_NOT_ALLOWED, why)
}

/// The query of a request.
struct Asked<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Query(it) = Query::from_request_parts(parts, state).await.map_err(|why| {
            bad(format!(
                "query: {}; allowed: the parameters of this route in /api/v1/openapi.json",
                why.body_text()
            ))
        })?;
        Ok(Asked(it))
    }
}

/// The JSON in a request.
struct Sent<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let axum::Json(it) = axum::Json::from_request(request, state).await.map_err(|why| {
            bad(format!(
                "body: {}; allowed: the schema of this route in /api/v1/openapi.json",
                why.body_text()
            ))
        })?;
        Ok(Sent(it))
    }
}

/// A part of a request's path.
struct Named(String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Path(it) = Path::from_request_parts(parts, state).await.map_err(
            |why: axum::extract::rejection::PathRejection| {
                bad(format!("path: {}; allowed: UTF-8", why.body_text()))
            },
        )?;
        Ok(Named(it))
    }
}
