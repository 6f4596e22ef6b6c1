//! Who may use a route, as a layer over it.
//!
//! In: a request with its [`Peer`], and the right that its route asks for. Out: the same with a [`Pass`] for the handler, or a refusal, as JSON or as a gRPC status; whoever is
//! told of refusals is told. No handler looks at credentials, so that none can forget to: a route is added with its right, or not at all.
//!
//! Over plain text a question must name a loopback host: a page that a browser shows under another name has no business here. Embedders are no browsers.

use crate::grants::Grants;
use crate::listen::{Admitted, Peer};
use crate::role::{Caller, Credentials, Denied, Right};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use serde_json::json;
use std::sync::Arc;

/// Told of everybody who is not let in: who, what was asked, why not.
pub type Told = Arc<dyn Fn(&str, &str, &Denied) + Send + Sync>;

/// Lets in who may.
#[derive(Clone)]
pub struct Guard {
    grants: Arc<Grants>,
    told: Told,
}

/// Somebody who was let in; in the extensions of each request.
#[derive(Clone)]
pub struct Pass {
    /// Who.
    pub caller: Caller,
    credentials: Credentials,
    right: Right,
    grants: Arc<Grants>,
}

impl Pass {
    /// May it still speak for this node? What stands for long asks again.
    ///
    /// # Errors
    /// Why not any more.
    pub fn still(&self, node: &str) -> Result<(), Denied> {
        self.grants.current().allow(&self.credentials, self.right)?.speaks_for(node)
    }
}

impl Guard {
    /// By these grants.
    pub fn new(grants: Arc<Grants>, told: Told) -> Guard {
        Guard { grants, told }
    }

    /// A route that asks for a right; none: anybody may.
    pub fn over<S>(&self, route: MethodRouter<S>, right: Option<Right>) -> MethodRouter<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        match right {
            None => route,
            Some(right) => route.route_layer(from_fn_with_state((self.clone(), right), check)),
        }
    }

    /// All routes of a router.
    pub fn over_all(&self, router: axum::Router, right: Right) -> axum::Router {
        router.route_layer(from_fn_with_state((self.clone(), right), check))
    }

    fn admit(&self, request: &Request, right: Right) -> Result<Pass, Denied> {
        let peer = request.extensions().get::<Peer>();
        let peer = peer.ok_or_else(|| Denied::Forbidden("nobody knows where this came from".to_owned()))?;
        // Embedders ask by whatever name their clusters give this host. No page can send what they send, but any can ask for a plan.
        let is_page = request.method() == Method::GET || right != Right::Embed;
        if peer.is_plain && is_page && !is_loopback(request.headers()) {
            let why = "host: another than loopback; allowed: localhost, 127.0.0.1 or [::1], and no origin but these";
            return Err(Denied::Forbidden(why.to_owned()));
        }
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let credentials = peer.credentials(authorization);
        let caller = self.grants.current().allow(&credentials, right)?;
        Ok(Pass { caller, credentials, right, grants: self.grants.clone() })
    }
}

async fn check(State((guard, right)): State<(Guard, Right)>, mut request: Request, next: Next) -> Response {
    match guard.admit(&request, right) {
        Ok(pass) => {
            if let Some(admitted) = request.extensions().get::<Admitted>() {
                admitted.note();
            }
            request.extensions_mut().insert(pass);
            next.run(request).await
        }
        Err(denied) => {
            let who = request.extensions().get::<Peer>().map(|peer| peer.address.ip().to_string());
            let what = format!("{} {}", request.method(), request.uri().path());
            (guard.told)(&who.unwrap_or_default(), &what, &denied);
            let is_grpc = request
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
            if is_grpc { denied.status().into_http() } else { denied.answer() }
        }
    }
}

impl Denied {
    /// In words.
    pub fn why(&self) -> &str {
        match self {
            Denied::Unknown(why) | Denied::Forbidden(why) => why,
        }
    }

    /// As gRPC says it.
    pub fn status(&self) -> tonic::Status {
        match self {
            Denied::Unknown(why) => tonic::Status::unauthenticated(why.clone()),
            Denied::Forbidden(why) => tonic::Status::permission_denied(why.clone()),
        }
    }

    /// As HTTP says it.
    pub fn answer(&self) -> Response {
        let status = match self {
            Denied::Unknown(_) => StatusCode::UNAUTHORIZED,
            Denied::Forbidden(_) => StatusCode::FORBIDDEN,
        };
        let mut answer = (status, Json(json!({"error": self.why()}))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
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
