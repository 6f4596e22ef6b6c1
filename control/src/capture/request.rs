//! One request: what it holds, and its answer.
//!
//! Enters: head and body as they came. Leaves: the message recorded, and an answer in the sender's own protocol. A message that is no OTLP is recorded all the same, since
//! somebody may want to know what it was; where no backend decides, it is answered with 400.

use super::forward::Backend;
use super::store::Store;
use crate::otlp::frame::{BODY_BYTES_MAX, grpc_frame, grpc_message, gunzip};
use crate::otlp::{GRPC_PATH, HTTP_PATH, PROTOBUF};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// gRPC: the argument is not what the method takes.
const INVALID_ARGUMENT: u16 = 3;
/// gRPC: too large.
const RESOURCE_EXHAUSTED: u16 = 8;
/// gRPC: no such method.
const UNIMPLEMENTED: u16 = 12;
/// gRPC: not now.
const UNAVAILABLE: u16 = 14;

/// What all requests share.
pub struct Shared {
    /// The folder.
    pub store: Mutex<Store>,
    /// Told when the store has ended the capture.
    pub ended: Notify,
    /// The backend behind, if there is one.
    pub backend: Option<Backend>,
}

impl Shared {
    /// The store; a writer that panicked left whole files behind.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, reason: &'static str) {
        *self.store().counts.refused.entry(reason).or_default() += 1;
    }
}

/// What a request is, when it is not recorded.
struct Refusal {
    reason: &'static str,
    status: StatusCode,
    grpc: u16,
}

impl Refusal {
    const fn new(reason: &'static str, status: StatusCode, grpc: u16) -> Refusal {
        Refusal { reason, status, grpc }
    }
}

const NO_METRICS: Refusal = Refusal::new("no OTLP metrics", StatusCode::NOT_FOUND, UNIMPLEMENTED);
const NO_PROTOBUF: Refusal =
    Refusal::new("OTLP in JSON", StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_ARGUMENT);
const NO_ENCODING: Refusal =
    Refusal::new("an encoding other than gzip", StatusCode::UNSUPPORTED_MEDIA_TYPE, UNIMPLEMENTED);
const NO_BODY: Refusal =
    Refusal::new("a body that cannot be unpacked", StatusCode::BAD_REQUEST, INVALID_ARGUMENT);
const TOO_LARGE: Refusal =
    Refusal::new("a body over 64 MiB", StatusCode::PAYLOAD_TOO_LARGE, RESOURCE_EXHAUSTED);
const AT_THE_END: Refusal =
    Refusal::new("it came when the capture ended", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE);

/// Records a request and answers it.
pub async fn handle(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let is_grpc = text(&head.headers, "content-type").starts_with("application/grpc");
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        shared.refused(TOO_LARGE.reason);
        return Ok(refusal(&TOO_LARGE, is_grpc));
    };
    let body = body.to_bytes();
    let outcome = record(&head, &body, &shared).await;
    if let Err(refused) = &outcome {
        shared.refused(refused.reason);
    }
    Ok(match (&shared.backend, outcome) {
        // A capture that is over does not send on either: nobody should take it for a proxy.
        (Some(backend), outcome) if !matches!(&outcome, Err(r) if r.reason == AT_THE_END.reason) => {
            match backend.send(&head, body, is_grpc).await {
                Ok(answer) => answer.relayed(),
                Err(why) => no_backend(&why, is_grpc),
            }
        }
        (_, Err(refused)) => refusal(&refused, is_grpc),
        (_, Ok(false)) => refusal(&NO_BODY, is_grpc),
        (_, Ok(true)) => success(is_grpc),
    })
}

/// Writes the message of a request; says whether it is OTLP.
async fn record(head: &Parts, body: &Bytes, shared: &Arc<Shared>) -> Result<bool, Refusal> {
    let (message, kind) = unpacked(head, body)?;
    let shared = shared.clone();
    let written = tokio::task::spawn_blocking(move || {
        let is_otlp = ExportMetricsServiceRequest::decode(message.as_slice()).is_ok();
        let mut store = shared.store();
        let recorded = store.record(&message);
        if recorded.is_some() {
            let counts = &mut store.counts;
            counts.grpc += u64::from(kind.is_grpc);
            counts.http += u64::from(!kind.is_grpc);
            counts.gzip += u64::from(kind.is_gzip);
            counts.unreadable += u64::from(!is_otlp);
        }
        if store.ended().is_some() {
            shared.ended.notify_one();
        }
        recorded.map(|()| is_otlp)
    });
    written.await.ok().flatten().ok_or(AT_THE_END)
}

struct Kind {
    is_grpc: bool,
    is_gzip: bool,
}

/// The message in a request, inflated and without frames.
fn unpacked(head: &Parts, body: &Bytes) -> Result<(Vec<u8>, Kind), Refusal> {
    match (&head.method, head.uri.path()) {
        (&Method::POST, GRPC_PATH) => {
            let is_gzip = body.first() == Some(&1);
            if is_gzip && text(&head.headers, "grpc-encoding") != "gzip" {
                return Err(NO_ENCODING);
            }
            let message = grpc_message(body).map_err(|_| NO_BODY)?;
            Ok((message, Kind { is_grpc: true, is_gzip }))
        }
        (&Method::POST, HTTP_PATH) => {
            if !text(&head.headers, "content-type").starts_with(PROTOBUF) {
                return Err(NO_PROTOBUF);
            }
            match text(&head.headers, "content-encoding") {
                "" | "identity" => Ok((body.to_vec(), Kind { is_grpc: false, is_gzip: false })),
                "gzip" => {
                    let message = gunzip(body).map_err(|_| NO_BODY)?;
                    Ok((message, Kind { is_grpc: false, is_gzip: true }))
                }
                _ => Err(NO_ENCODING),
            }
        }
        _ => Err(NO_METRICS),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// An empty `ExportMetricsServiceResponse`.
fn success(is_grpc: bool) -> Response<Body> {
    if !is_grpc {
        let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
        response.headers_mut().insert("content-type", HeaderValue::from_static(PROTOBUF));
        return response;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    let body = Full::new(grpc_frame(b"", false)).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn refusal(refused: &Refusal, is_grpc: bool) -> Response<Body> {
    if is_grpc { trailers_only(refused.grpc, refused.reason) } else { plain(refused.status, refused.reason) }
}

fn no_backend(why: &str, is_grpc: bool) -> Response<Body> {
    let why = format!("phoenix capture: no answer from --forward: {why}");
    if is_grpc { trailers_only(UNAVAILABLE, &why) } else { plain(StatusCode::BAD_GATEWAY, &why) }
}

fn plain(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{why}\n"))).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    response
}

fn trailers_only(status: u16, why: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", status.into());
    if let Ok(why) = HeaderValue::from_str(why) {
        headers.insert("grpc-message", why);
    }
    response
}
