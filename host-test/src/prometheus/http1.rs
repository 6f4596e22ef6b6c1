//! One request over HTTP/1.1, on a connection of its own.
//!
//! In: address, method, path, headers, body. Out: status and body. A fresh connection each time, so that Envoy spreads requests over its workers and
//! nothing is sent twice behind our back.

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer: a query over thousands of points takes milliseconds, a busy machine seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends one request; any status is an answer.
///
/// # Errors
/// No connection, or no answer in time.
pub async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    content_type: Option<&str>,
    body: Bytes,
) -> anyhow::Result<(u16, Bytes)> {
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", address.to_string())
            .header("connection", "close");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let response = sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status().as_u16();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    timeout(ANSWER_TIMEOUT, exchange).await.with_context(|| format!("{address}: no answer"))?
}

/// A query string: every byte but letters, digits and `-_.~` as `%XX` (RFC 3986, 2.3).
pub fn query_string(pairs: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
    pairs.join("&")
}
