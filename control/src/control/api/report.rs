//! Reports in.

use super::{Answer, App, Refused, bad, failed};
use crate::collect::Incoming;
use crate::collect::node_of;
use crate::control::now_ns;
use crate::report_body;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use phoenix_serve::guard::Pass;

/// A report; nobody who may not send has anything of it read.
pub async fn report(
    State(it): App,
    Extension(pass): Extension<Pass>,
    request: Request,
) -> Answer<StatusCode> {
    let caller = pass.caller;
    let (head, body) = request.into_parts();
    let body = match report_body::read(&head.headers, body).await {
        Ok(body) => body,
        Err((status, why)) => {
            it.refuse(&caller.name, "refused", "report", &why);
            return Err(Refused(status, why));
        }
    };
    let taken = tokio::task::spawn_blocking(move || {
        let now_ns = now_ns();
        let read = Incoming::read(&body, now_ns);
        if let Ok(report) = &read
            && let Err(denied) = caller.speaks_for(node_of(report.process()))
        {
            it.refuse(&caller.name, "denied", "report", denied.why());
            return Err(Refused(StatusCode::FORBIDDEN, denied.why().to_owned()));
        }
        let refused = match it.intake.put(read, now_ns) {
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
    taken.await.map_err(failed)?
}
