//! The sink's server.
//!
//! In: connections on a loopback port chosen by the OS; HTTP/1.1 and HTTP/2 with prior knowledge are told apart by the
//! preface. Out: answers, and everything in the [`Books`]. One mutex guards the state: a body is decoded and booked under it,
//! so that books and kept requests have one order. Refuses malformed bodies with 400 or gRPC INVALID_ARGUMENT.

use super::books::{Books, BooksConfig};
use super::fault::{Fault, FaultPlan};
use super::frame::{grpc_frame, grpc_messages, gunzip};
use super::{GRPC_PATH, HTTP_PATH, TENANT_HEADER};
use anyhow::Context as _;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use prost::Message;
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{JoinHandle, JoinSet};

/// A running sink. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// HTTP version.
    pub version: Version,
    /// Headers.
    pub headers: HeaderMap,
    /// The body as it came over the wire.
    pub body: Bytes,
    /// Trailers of the request.
    pub trailers: Option<HeaderMap>,
    /// The OTLP messages in it, inflated; empty where the path is not OTLP or the body is malformed.
    pub messages: Vec<Bytes>,
    /// The fault it met.
    pub fault: Option<Fault>,
    /// Whether it was booked.
    pub is_booked: bool,
    /// When its last byte was here.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct State {
    books: Books,
    faults: FaultPlan,
    keeps_requests: bool,
    delay: Duration,
    copies: Option<UnboundedSender<Bytes>>,
    requests: Vec<Received>,
    counts: Counts,
}

/// Requests by fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All requests whose body arrived whole.
    pub requests: u64,
    /// Booked.
    pub booked: u64,
    /// Malformed.
    pub malformed: u64,
    /// Not OTLP metrics in protobuf (other paths, JSON): answered 200, not booked.
    pub other: u64,
    /// Met a fault.
    pub faults: u64,
    /// Broken off by the sender.
    pub broken: u64,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The service's error: makes hyper break the connection or reset the stream, which is the point of it.
#[derive(Debug)]
struct Broken;
impl std::fmt::Display for Broken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("connection broken on purpose")
    }
}
impl std::error::Error for Broken {}

impl Sink {
    /// Starts a sink on a free loopback port.
    ///
    /// # Errors
    /// No port is to be had.
    pub async fn start(config: BooksConfig) -> anyhow::Result<Self> {
        Self::start_at(config, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts a sink at `address`, for a backend that comes back on its port.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn start_at(config: BooksConfig, address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("sink: bind {address}"))?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { books: Books::new(config), ..State::default() }));
        let task = tokio::spawn(accept(listener, state.clone()));
        Ok(Self { address, state, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A copy of the books.
    pub fn books(&self) -> Books {
        self.lock().books.clone()
    }

    /// Points booked so far, without copying the books.
    pub fn points(&self) -> u64 {
        self.lock().books.points()
    }

    /// Requests by fate.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// From now on keeps every request for [`Sink::requests`].
    pub fn keep_requests(&self) {
        self.lock().keeps_requests = true;
    }

    /// From now on answers this long after a request was booked.
    pub fn answer_after(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// From now on copies every message to `copies` as it is booked, in the order of the books; uncompressed, without frames. `None` ends it.
    pub fn copy_to(&self, copies: Option<UnboundedSender<Bytes>>) {
        self.lock().copies = copies;
    }

    /// The requests kept so far, in order of arrival.
    pub fn requests(&self) -> Vec<Received> {
        self.lock().requests.clone()
    }

    /// The next `count` requests meet `fault`.
    pub fn fail_next(&self, count: u64, fault: Fault) {
        self.fail_next_where(count, fault, |_| true);
    }

    /// The next `count` requests that `matches` accepts meet `fault`.
    pub fn fail_next_where(
        &self,
        count: u64,
        fault: Fault,
        matches: impl Fn(&Parts) -> bool + Send + 'static,
    ) {
        self.lock().faults.push(count, fault, matches);
    }

    /// Ends all faults that were not yet served; returns how many there were.
    pub fn heal(&self) -> u64 {
        let mut state = self.lock();
        let pending = state.faults.pending();
        state.faults.clear();
        pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    // Owned by this task: aborting it closes every connection.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let state = state.clone();
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http2().adaptive_window(true);
            let service = service_fn(move |request| handle(request, state.clone()));
            // An error here is a connection that its peer, or a fault, broke.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn handle(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let collected = body.collect().await;
    let (fault, decision, delay) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(collected) = collected else {
            state.counts.broken += 1;
            return Err(Broken);
        };
        let trailers = collected.trailers().cloned();
        let (fault, decision) = state.receive(&head, collected.to_bytes(), trailers);
        (fault, decision, state.delay)
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let is_grpc = head.uri.path() == GRPC_PATH;
    match fault {
        Some(Fault::Hang | Fault::BookAndHang) => pending().await,
        Some(Fault::Close | Fault::BookAndClose) => Err(Broken),
        Some(Fault::Status(status)) => Ok(plain(StatusCode::from_u16(status).unwrap_or_default())),
        Some(Fault::GrpcStatus(status)) => Ok(trailers_only(status)),
        Some(Fault::GrpcTrailers(status)) => Ok(grpc(status, &[])),
        Some(Fault::Partial(rejected)) => Ok(success(is_grpc, rejected)),
        None => Ok(match decision {
            Decision::Booked => success(is_grpc, 0),
            Decision::Other => plain(StatusCode::OK),
            Decision::Malformed if is_grpc => trailers_only(GRPC_INVALID_ARGUMENT),
            Decision::Malformed => plain(StatusCode::BAD_REQUEST),
        }),
    }
}

/// gRPC's INVALID_ARGUMENT.
const GRPC_INVALID_ARGUMENT: u16 = 3;

#[derive(Clone, Copy, PartialEq)]
enum Decision {
    Booked,
    Malformed,
    Other,
}

impl State {
    fn receive(
        &mut self,
        head: &Parts,
        body: Bytes,
        trailers: Option<HeaderMap>,
    ) -> (Option<Fault>, Decision) {
        let fault = self.faults.take(head);
        self.counts.requests += 1;
        self.counts.faults += u64::from(fault.is_some());
        let messages = messages(head, &body);
        let may_book = fault.is_none_or(Fault::books);
        let decision = match &messages {
            None => Decision::Other,
            Some(Err(())) => Decision::Malformed,
            Some(Ok(messages)) if may_book => self.book(head, messages),
            Some(Ok(_)) => Decision::Booked,
        };
        let is_booked = may_book && decision == Decision::Booked;
        match decision {
            Decision::Booked => self.counts.booked += u64::from(is_booked),
            Decision::Malformed => self.counts.malformed += 1,
            Decision::Other => self.counts.other += 1,
        }
        if let (true, Some(copies), Some(Ok(messages))) = (is_booked, &self.copies, &messages) {
            // A listener that is gone is no concern of the sender's.
            messages.iter().for_each(|message| drop(copies.send(message.clone())));
        }
        if self.keeps_requests {
            self.requests.push(Received {
                method: head.method.clone(),
                path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
                version: head.version,
                headers: head.headers.clone(),
                body,
                trailers,
                messages: messages.and_then(Result::ok).unwrap_or_default(),
                fault,
                is_booked,
                at: Instant::now(),
            });
        }
        (fault, decision)
    }

    fn book(&mut self, head: &Parts, messages: &[Bytes]) -> Decision {
        let tenant = header(&head.headers, TENANT_HEADER);
        // All or nothing: books of their own show whether every message of the body can be booked.
        let is_readable = |message: &Bytes| Books::default().add(tenant, message).is_ok();
        if messages.len() > 1 && !messages.iter().all(is_readable) {
            return Decision::Malformed;
        }
        for message in messages {
            if self.books.add(tenant, message).is_err() {
                return Decision::Malformed;
            }
        }
        Decision::Booked
    }
}

/// The OTLP messages of a request; `None` where it is not OTLP metrics in protobuf.
fn messages(head: &Parts, body: &Bytes) -> Option<Result<Vec<Bytes>, ()>> {
    match head.uri.path() {
        GRPC_PATH => Some(grpc_messages(body).map_err(drop)),
        HTTP_PATH if header(&head.headers, "content-type").starts_with("application/x-protobuf") => {
            Some(match header(&head.headers, "content-encoding") {
                "gzip" => gunzip(body).map(|body| vec![body]).map_err(drop),
                "" | "identity" => Ok(vec![body.clone()]),
                _ => Err(()),
            })
        }
        _ => None,
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok()).unwrap_or("")
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn success(is_grpc: bool, rejected: i64) -> Response<Body> {
    let partial_success = (rejected != 0).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: rejected,
        error_message: "rejected".to_owned(),
    });
    let message = ExportMetricsServiceResponse { partial_success }.encode_to_vec();
    if is_grpc {
        return grpc(0, &message);
    }
    let mut response = Response::new(Full::new(Bytes::from(message)).boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/x-protobuf"));
    response
}

fn grpc(status: u16, message: &[u8]) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.into());
    let body = Full::new(grpc_frame(message, false)).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn trailers_only(status: u16) -> Response<Body> {
    let mut response = plain(StatusCode::OK);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response.headers_mut().insert("grpc-status", status.into());
    response
}
