//! The port of `phoenix top`.
//!
//! Enters: `POST /v1/reports`, one report. Leaves: 202, or why not: 400 what is no report, 404 and 405 for anything else, and what [`report_body`] refuses.

use super::Shared;
use crate::report_body;
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// Where reports go.
pub const PATH: &str = "/v1/reports";
/// How long to wait after the system refused a connection (no file descriptors, say).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Listens, and serves in the background as long as the runtime lives. Leaves the address with its port.
pub async fn start(listen: SocketAddr, heard: Shared) -> Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("--listen {listen}"))?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let heard = heard.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, heard.clone()));
                // An error here is a connection that its peer broke.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(address)
}

async fn answer(request: Request<Incoming>, heard: Shared) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() != PATH {
        return Ok(said(StatusCode::NOT_FOUND, &format!("reports go to {PATH}")));
    }
    if head.method != Method::POST {
        return Ok(said(StatusCode::METHOD_NOT_ALLOWED, &format!("{}; allowed: POST", head.method)));
    }
    let taken = match report_body::read(&head.headers, body).await {
        // Sketches are read, which takes time: not on a thread that others wait for.
        Ok(body) => tokio::task::spawn_blocking(move || {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard
                .take(&body, crate::report::now_unix_nano(), Instant::now())
                .map_err(|refusal| (StatusCode::BAD_REQUEST, refusal.to_string()))
        })
        .await
        .unwrap_or_else(|_| Err((StatusCode::INTERNAL_SERVER_ERROR, "not taken".to_owned()))),
        Err((status, why)) => {
            heard.lock().unwrap_or_else(PoisonError::into_inner).refuse(why.clone());
            Err((status, why))
        }
    };
    Ok(match taken {
        Ok(()) => said(StatusCode::ACCEPTED, ""),
        Err((status, why)) => said(status, &why),
    })
}

fn said(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let text = if why.is_empty() { String::new() } else { format!("{why}\n") };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    response
}
