//! An OTLP client for load: many requests on their way at once, none sent twice.
//!
//! Enters: a body. Leaves: what became of it. HTTP is HTTP/1.1 with as many connections as there are requests on their way; gRPC is HTTP/2 over a few connections.
//! No retries: what was sent is exactly what was made. `partial_success` is read. Refused: endpoints with TLS, and those beyond loopback unless that was asked for.

use super::truth::Answer;
use crate::otlp::frame::{grpc_frame, grpc_message, gzip};
use crate::otlp::{GRPC_PATH, HTTP_PATH, PROTOBUF};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use std::net::ToSocketAddrs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Longest text of a refusal that is shown.
const REASON_MAX: usize = 160;

/// How to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// OTLP over HTTP/1.1.
    Http,
    /// OTLP over gRPC.
    Grpc,
}

/// Where to send, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The whole URL.
    pub url: Uri,
    /// The protocol.
    pub protocol: Protocol,
    /// Compress.
    pub gzip: bool,
    /// More headers.
    pub headers: Vec<(String, String)>,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Connections of gRPC.
    pub connections: u16,
}

/// The URL of an endpoint such as `http://127.0.0.1:4318`; a path is kept, none becomes OTLP's own.
pub fn url(endpoint: &str, protocol: Protocol) -> Result<Uri> {
    let refused = || {
        anyhow::anyhow!(
            "--endpoint: value {endpoint:?} is not allowed; allowed: a URL such as http://127.0.0.1:4318, without TLS"
        )
    };
    let uri: Uri = endpoint.parse().map_err(|_| refused())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(refused)?;
    let path = match (protocol, uri.path()) {
        (Protocol::Http, "" | "/") => HTTP_PATH,
        (Protocol::Http, path) => path,
        (Protocol::Grpc, "" | "/") => GRPC_PATH,
        (Protocol::Grpc, _) => return Err(refused()),
    };
    Uri::builder()
        .scheme("http")
        .authority(authority.clone())
        .path_and_query(path)
        .build()
        .map_err(|_| refused())
}

/// Load goes to this machine unless it was said that it may leave it.
pub fn check_loopback(url: &Uri, allow_remote: bool) -> Result<()> {
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<_> =
        (bare, port).to_socket_addrs().with_context(|| format!("--endpoint {host}"))?.collect();
    if addresses.iter().all(|address| address.ip().is_loopback()) {
        return Ok(());
    }
    if !allow_remote {
        bail!(
            "--endpoint: value {host:?} is not allowed; allowed: a loopback address, or --allow-remote (load on somebody else's machine is for them to want)"
        );
    }
    eprintln!("warning: {host} is not this machine: the load goes there");
    Ok(())
}

/// A client.
pub struct Client {
    target: Target,
    pools: Vec<Pool<HttpConnector, Full<Bytes>>>,
    next: AtomicUsize,
    headers: HeaderMap,
}

impl Client {
    /// A client that connects when it is first needed.
    pub fn new(target: Target) -> Result<Client> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let is_grpc = target.protocol == Protocol::Grpc;
        let pool = || Pool::builder(TokioExecutor::new()).http2_only(is_grpc).build(connector.clone());
        let pools = (0..if is_grpc { target.connections } else { 1 }).map(|_| pool()).collect();
        let headers = headers(&target)?;
        Ok(Client { target, pools, next: AtomicUsize::new(0), headers })
    }

    /// The body as it goes over the wire.
    pub fn packed(&self, body: &[u8]) -> Bytes {
        match (self.target.protocol, self.target.gzip) {
            (Protocol::Http, false) => Bytes::copy_from_slice(body),
            (Protocol::Http, true) => gzip(body).into(),
            (Protocol::Grpc, false) => grpc_frame(body, false),
            (Protocol::Grpc, true) => grpc_frame(&gzip(body), true),
        }
    }

    /// Sends once.
    pub async fn send(&self, packed: Bytes) -> Answer {
        let exchange = tokio::time::timeout(self.target.timeout, self.exchange(packed));
        match exchange.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => Answer::Unanswered(why),
            Err(_) => Answer::Unanswered(format!("no answer within {:?}", self.target.timeout)),
        }
    }

    async fn exchange(&self, packed: Bytes) -> Result<Answer, String> {
        let mut request = Request::new(Full::new(packed));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.url.clone();
        *request.headers_mut() = self.headers.clone();
        let is_grpc = self.target.protocol == Protocol::Grpc;
        if is_grpc {
            *request.version_mut() = Version::HTTP_2;
        }
        let pool = self.next.fetch_add(1, Ordering::Relaxed) % self.pools.len();
        let response = self.pools[pool].request(request).await.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| chain(&error))?;
        let trailers = body.trailers().cloned();
        let body = body.to_bytes();
        Ok(if is_grpc {
            grpc_answer(head.status, &head.headers, trailers.as_ref(), &body)
        } else {
            http_answer(head.status, &body)
        })
    }
}

fn headers(target: &Target) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    match target.protocol {
        Protocol::Http => set("content-type", PROTOBUF),
        Protocol::Grpc => {
            set("content-type", "application/grpc");
            set("te", "trailers");
        }
    }
    match (target.protocol, target.gzip) {
        (Protocol::Http, true) => set("content-encoding", "gzip"),
        (Protocol::Grpc, true) => set("grpc-encoding", "gzip"),
        _ => {}
    }
    for (name, value) in &target.headers {
        let parsed = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()));
        let (Ok(key), Ok(text)) = parsed else { bail!("--header {name}={value}: not a header") };
        headers.insert(key, text);
    }
    Ok(headers)
}

/// An error with what caused it, since the first line of a client's error says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn http_answer(status: StatusCode, body: &[u8]) -> Answer {
    if status.is_success() { accepted(body) } else { Answer::Refused(reason(status.as_str(), body)) }
}

fn grpc_answer(status: StatusCode, head: &HeaderMap, trailers: Option<&HeaderMap>, body: &[u8]) -> Answer {
    let find = |name: &str| trailers.and_then(|map| map.get(name)).or_else(|| head.get(name));
    let code = find("grpc-status").and_then(|value| value.to_str().ok());
    match code {
        Some("0") if status.is_success() => match grpc_message(body) {
            Ok(message) => accepted(&message),
            Err(_) => accepted(b""),
        },
        Some(code) => {
            let message = find("grpc-message").map(|value| value.as_bytes().to_vec()).unwrap_or_default();
            Answer::Refused(reason(&format!("grpc-status {code}"), &message))
        }
        None => Answer::Refused(reason(&format!("{} without a grpc-status", status.as_str()), body)),
    }
}

fn accepted(message: &[u8]) -> Answer {
    let response = ExportMetricsServiceResponse::decode(message).unwrap_or_default();
    let partial = response.partial_success.unwrap_or_default();
    Answer::Accepted(partial.rejected_data_points, partial.error_message)
}

/// A status with the first line of what was said, where that is text.
fn reason(status: &str, body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or("").lines().next().unwrap_or("").trim();
    let shown: String = text.chars().filter(|mark| !mark.is_control()).take(REASON_MAX).collect();
    if shown.is_empty() { status.to_owned() } else { format!("{status}: {shown}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let of = |text: &str, protocol| url(text, protocol).map(|uri| uri.to_string()).ok();
        assert_eq!(of("http://[::1]:4318", Protocol::Http).unwrap(), "http://[::1]:4318/v1/metrics");
        assert_eq!(of("http://h:1/otlp/v1/metrics", Protocol::Http).unwrap(), "http://h:1/otlp/v1/metrics");
        assert_eq!(of("http://h:1", Protocol::Grpc).unwrap(), format!("http://h:1{GRPC_PATH}"));
        for bad in ["https://h:1", "h:1", "http://", ""] {
            assert_eq!(of(bad, Protocol::Http), None, "{bad}");
        }
        assert!(check_loopback(&url("http://[::1]:4318", Protocol::Http).unwrap(), false).is_ok());
        assert!(check_loopback(&url("http://127.0.0.1:1", Protocol::Http).unwrap(), false).is_ok());
        // An address for documentation: nothing is sent to it.
        let far = url("http://192.0.2.1:4318", Protocol::Http).unwrap();
        assert!(check_loopback(&far, false).unwrap_err().to_string().contains("--allow-remote"));
        assert!(check_loopback(&far, true).is_ok());
    }
}
