//! The port of `phoenix top`.
//!
//! Enters: `POST /v1/reports`, one report in protobuf, gzip or not. Leaves: 202, or why not: 400 what is no report, 404 and 405 for anything else, 413 more than
//! 4 MiB, 415 another type or encoding. The type is asked for so that no web page that a browser shows can post here: for it a browser
//! asks leave first, and does not get it.

use super::Shared;
use crate::otlp::PROTOBUF;
use crate::otlp::frame::gunzip_within;
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use phoenix_report::read::BYTES_MAX;
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
    let taken = match body_of(&head.headers, body).await {
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

/// The report in a request, inflated.
async fn body_of(headers: &HeaderMap, body: Incoming) -> Result<Bytes, (StatusCode, String)> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let of_type = header("content-type").split(';').next().unwrap_or("").trim();
    if of_type != PROTOBUF && of_type != "application/protobuf" {
        let why = format!("content-type: {of_type:?}; allowed: {PROTOBUF}");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let is_gzip = match header("content-encoding") {
        "" | "identity" => false,
        "gzip" => true,
        other => {
            let why = format!("content-encoding: {other:?}; allowed: gzip, identity");
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
    };
    let too_large = || {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("report: more than {BYTES_MAX} bytes; allowed: up to {BYTES_MAX}"),
        )
    };
    let body = match Limited::new(body, BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => return Err(too_large()),
        Err(error) => return Err((StatusCode::BAD_REQUEST, format!("report: {error}"))),
    };
    if !is_gzip {
        return Ok(body);
    }
    match gunzip_within(&body, BYTES_MAX) {
        Ok(Some(inflated)) => Ok(inflated.into()),
        Ok(None) => Err(too_large()),
        Err(why) => Err((StatusCode::BAD_REQUEST, format!("report: {why}"))),
    }
}

fn said(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let text = if why.is_empty() { String::new() } else { format!("{why}\n") };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    response
}
