//! One OTLP exporter: a connection of its own, retries as the SDKs do them.
//!
//! In: encoded requests. Out: an [`Outcome`]. Retryable answers are answered by the same bytes again: HTTP 429, 502, 503, 504 (OTLP
//! specification, "Retryable Response Codes"); gRPC CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS (RESOURCE_EXHAUSTED
//! only with RetryInfo, which is not parsed here); no answer at all. Everything else is definite.

use crate::sink::frame::{grpc_frame, grpc_messages, gzip};
use crate::sink::{GRPC_PATH, HTTP_PATH, TENANT_HEADER};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How an exporter speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over HTTP/1.1.
    Http1,
    /// OTLP over HTTP/1.1, gzip.
    Http1Gzip,
    /// OTLP over HTTP/2 (prior knowledge).
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC with compressed messages.
    GrpcGzip,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Http1, Self::Http1Gzip, Self::Http2, Self::Grpc, Self::GrpcGzip];

    fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcGzip)
    }
}

/// How long an SDK waits for an answer (the specification's default).
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts before an export is given up, the first included.
pub const ATTEMPTS_MAX: u32 = 6;
/// The pause before the first retry; it doubles each time. SDKs begin at 1 to 5 s; a test has less time.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// The end of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it was acknowledged.
    pub is_acknowledged: bool,
    /// Points that `partial_success` rejected.
    pub rejected_points: i64,
    /// Attempts after the first.
    pub retries: u64,
    /// Attempts without an answer.
    pub unanswered: u64,
}

/// One attempt's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accepted { rejected_points: i64 },
    Retryable,
    Refused,
    None,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// An exporter.
pub struct Client {
    address: SocketAddr,
    protocol: Protocol,
    tenant: String,
    requests_per_connection: u32,
    sender: Option<Sender>,
    requests_on_connection: u32,
    /// Connections opened so far.
    pub connections: u64,
    /// How long an attempt waits for its answer.
    pub answer_timeout: Duration,
    /// Every so many attempts are hung up on after a few milliseconds; zero is never.
    pub hang_up_every: u64,
    attempts: u64,
}

impl Client {
    /// An exporter that will connect at its first export; `requests_per_connection` 0 is no limit.
    pub fn new(address: SocketAddr, protocol: Protocol, tenant: &str, requests_per_connection: u32) -> Self {
        Self {
            address,
            protocol,
            tenant: tenant.to_owned(),
            requests_per_connection,
            sender: None,
            requests_on_connection: 0,
            connections: 0,
            answer_timeout: ANSWER_TIMEOUT,
            hang_up_every: 0,
            attempts: 0,
        }
    }

    /// How long this attempt waits: usually for long, now and then hardly at all.
    fn patience(&mut self) -> Duration {
        self.attempts += 1;
        if self.hang_up_every > 0 && self.attempts.is_multiple_of(self.hang_up_every) {
            // At once, and after one or two milliseconds: before, while and after the request goes through.
            return Duration::from_millis(self.attempts / self.hang_up_every % 3);
        }
        self.answer_timeout
    }

    /// Exports one request with retries.
    pub async fn export(&mut self, body: &Bytes) -> Outcome {
        let packed = match self.protocol {
            Protocol::Http1 | Protocol::Http2 => body.clone(),
            Protocol::Http1Gzip => gzip(body),
            Protocol::Grpc => grpc_frame(body, false),
            Protocol::GrpcGzip => grpc_frame(body, true),
        };
        let mut outcome = Outcome::default();
        let mut backoff = BACKOFF_FIRST;
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                outcome.retries += 1;
                sleep(backoff).await;
                backoff *= 2;
            }
            let patience = self.patience();
            let answer = timeout(patience, self.attempt(packed.clone())).await.unwrap_or(Answer::None);
            match answer {
                Answer::Accepted { rejected_points } => {
                    return Outcome { is_acknowledged: true, rejected_points, ..outcome };
                }
                Answer::Refused => return outcome,
                Answer::Retryable => {}
                Answer::None => {
                    outcome.unanswered += 1;
                    self.sender = None;
                }
            }
        }
        outcome
    }

    async fn attempt(&mut self, body: Bytes) -> Answer {
        let Some(response) = self.send(body).await else { return Answer::None };
        let (head, body) = response.into_parts();
        let Ok(collected) = body.collect().await else { return Answer::None };
        self.requests_on_connection += 1;
        let is_worn_out =
            self.requests_per_connection > 0 && self.requests_on_connection >= self.requests_per_connection;
        if is_worn_out {
            self.sender = None;
        }
        let trailers = collected.trailers().cloned();
        let body = collected.to_bytes();
        if self.protocol.is_grpc() {
            grpc_answer(head.status, &head.headers, trailers.as_ref(), &body)
        } else {
            http_answer(head.status, &body)
        }
    }

    async fn send(&mut self, body: Bytes) -> Option<hyper::Response<hyper::body::Incoming>> {
        if self.sender.as_ref().is_none_or(Sender::is_closed) {
            self.sender = Some(self.connect().await?);
        }
        let request = self.request(body)?;
        match self.sender.as_mut()? {
            Sender::One(sender) => {
                sender.ready().await.ok()?;
                sender.send_request(request).await.ok()
            }
            Sender::Two(sender) => {
                sender.ready().await.ok()?;
                sender.send_request(request).await.ok()
            }
        }
    }

    async fn connect(&mut self) -> Option<Sender> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        let _ = stream.set_nodelay(true);
        self.connections += 1;
        self.requests_on_connection = 0;
        let io = TokioIo::new(stream);
        match self.protocol {
            Protocol::Http1 | Protocol::Http1Gzip => {
                let (sender, connection) = http1::handshake(io).await.ok()?;
                tokio::spawn(connection);
                Some(Sender::One(sender))
            }
            Protocol::Http2 | Protocol::Grpc | Protocol::GrpcGzip => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
                tokio::spawn(connection);
                Some(Sender::Two(sender))
            }
        }
    }

    fn request(&self, body: Bytes) -> Option<Request<Full<Bytes>>> {
        let path = if self.protocol.is_grpc() { GRPC_PATH } else { HTTP_PATH };
        let mut request = Request::post(format!("http://{}{path}", self.address));
        request = match self.protocol {
            Protocol::Http1 => request.header("content-type", "application/x-protobuf"),
            Protocol::Http1Gzip => {
                request.header("content-type", "application/x-protobuf").header("content-encoding", "gzip")
            }
            Protocol::Http2 => {
                request.header("content-type", "application/x-protobuf").version(Version::HTTP_2)
            }
            Protocol::Grpc => grpc_headers(request),
            Protocol::GrpcGzip => grpc_headers(request).header("grpc-encoding", "gzip"),
        };
        if matches!(self.protocol, Protocol::Http1 | Protocol::Http1Gzip) {
            request = request.header("host", self.address.to_string());
        }
        if !self.tenant.is_empty() {
            request = request.header(TENANT_HEADER, &self.tenant);
        }
        request.body(Full::new(body)).ok()
    }
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_closed(),
            Self::Two(sender) => sender.is_closed(),
        }
    }
}

fn grpc_headers(request: http::request::Builder) -> http::request::Builder {
    request.version(Version::HTTP_2).header("content-type", "application/grpc").header("te", "trailers")
}

fn http_answer(status: StatusCode, body: &[u8]) -> Answer {
    match status.as_u16() {
        200..=299 => Answer::Accepted { rejected_points: rejected(body) },
        429 | 502 | 503 | 504 => Answer::Retryable,
        _ => Answer::Refused,
    }
}

fn grpc_answer(
    status: StatusCode,
    headers: &HeaderMap,
    trailers: Option<&HeaderMap>,
    body: &Bytes,
) -> Answer {
    let code = |map: &HeaderMap| map.get("grpc-status").and_then(|v| v.to_str().ok()?.parse::<u32>().ok());
    match trailers.and_then(code).or_else(|| code(headers)) {
        Some(0) if status == StatusCode::OK => {
            let message = grpc_messages(body).ok().and_then(|messages| messages.first().cloned());
            Answer::Accepted { rejected_points: message.map_or(0, |message| rejected(&message)) }
        }
        Some(1 | 4 | 10 | 11 | 14 | 15) => Answer::Retryable,
        // Without a gRPC status the HTTP status stands for one: these map to UNAVAILABLE.
        None if matches!(status.as_u16(), 429 | 502 | 503 | 504) => Answer::Retryable,
        _ => Answer::Refused,
    }
}

fn rejected(message: &[u8]) -> i64 {
    let response = ExportMetricsServiceResponse::decode(message).unwrap_or_default();
    response.partial_success.map_or(0, |partial| partial.rejected_data_points)
}
