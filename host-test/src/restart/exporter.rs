//! One exporter that says exactly what became of an attempt.
//!
//! In: where to, and a body. Out: an [`Answer`]: accepted, and by which gateway; refused; not sent at all; or sent and never answered. Why another one than
//! the shop's: the books of a restart need to know which process took a point, and only the answer says so (a clock on this side cannot: an answer may wait
//! to be read while the process that gave it is killed). HTTP/1.1, a few requests on a connection, so that Envoy spreads them over its workers.

use super::GATEWAY_HEADER;
use crate::sink::HTTP_PATH;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an attempt waits: half of an SDK's default, still far longer than an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests on a connection; then another one, which may meet another worker.
const REQUESTS_PER_CONNECTION: u32 = 3;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200, and the number of the gateway that said so.
    Accepted(usize),
    /// Another status.
    Refused(u16),
    /// Nobody there, or the connection had gone: nothing was sent.
    NotSent,
    /// Sent, and no answer came: nobody knows.
    Unanswered,
}

/// An exporter with a list of addresses to go to; it stays with one while that answers.
pub struct Exporter {
    addresses: Vec<SocketAddr>,
    at: usize,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
    requests_on_connection: u32,
}

impl Exporter {
    /// An exporter that will connect at its first export, to the first address.
    pub fn new(addresses: Vec<SocketAddr>) -> Exporter {
        Exporter { addresses, at: 0, sender: None, requests_on_connection: 0 }
    }

    /// One attempt. After anything but an acceptance the next one goes to the next address, on a new connection.
    pub async fn attempt(&mut self, body: &Bytes) -> Answer {
        let address = self.addresses[self.at % self.addresses.len()];
        let answer = match timeout(PATIENCE, self.connect(address)).await {
            Ok(true) => timeout(PATIENCE, self.send(address, body)).await.unwrap_or(Answer::Unanswered),
            _ => Answer::NotSent,
        };
        if !matches!(answer, Answer::Accepted(_)) {
            self.sender = None;
            self.at += 1;
        }
        answer
    }

    /// Makes sure of a connection that lives.
    async fn connect(&mut self, address: SocketAddr) -> bool {
        if self.requests_on_connection >= REQUESTS_PER_CONNECTION {
            self.sender = None;
        }
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_ok()
        {
            return true;
        }
        self.requests_on_connection = 0;
        let Ok(stream) = TcpStream::connect(address).await else { return false };
        let _ = stream.set_nodelay(true);
        let Ok((sender, connection)) = http1::handshake(TokioIo::new(stream)).await else { return false };
        tokio::spawn(connection);
        self.sender = Some(sender);
        true
    }

    async fn send(&mut self, address: SocketAddr, body: &Bytes) -> Answer {
        let request = Request::post(HTTP_PATH)
            .header("host", address.to_string())
            .header("content-type", "application/x-protobuf")
            .body(Full::new(body.clone()));
        let (Some(sender), Ok(request)) = (&mut self.sender, request) else { return Answer::NotSent };
        self.requests_on_connection += 1;
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            // hyper gives a request back that it could not begin to write.
            Err(error) if error.is_canceled() => return Answer::NotSent,
            Err(_) => return Answer::Unanswered,
        };
        let status = response.status().as_u16();
        let gateway = response.headers().get(GATEWAY_HEADER).and_then(|v| v.to_str().ok()?.parse().ok());
        let closes = response.headers().get("connection").is_some_and(|v| v == "close");
        if response.into_body().collect().await.is_err() {
            return Answer::Unanswered;
        }
        if closes {
            // A draining gateway says so: the next request needs another connection, and may meet another gateway there.
            self.sender = None;
        }
        match (status, gateway) {
            (200, Some(gateway)) => Answer::Accepted(gateway),
            _ => Answer::Refused(status),
        }
    }
}
