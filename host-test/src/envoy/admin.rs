//! The admin port: readiness, stats, drain.
//!
//! In: a path. Out: the text of the answer. HTTP/1.1 on a fresh connection each time: the admin port is asked rarely.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer of the admin port; its thread also reads configurations, so it may be busy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the admin port; returns the body of a 200.
///
/// # Errors
/// No answer, or another status.
pub async fn ask(admin: SocketAddr, method: Method, path: &str) -> anyhow::Result<String> {
    timeout(ANSWER_TIMEOUT, async {
        let stream = TcpStream::connect(admin).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", admin.to_string())
            .header("connection", "close")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        ensure!(status.is_success(), "admin {path}: {status} {text}");
        Ok(text)
    })
    .await
    .with_context(|| format!("admin {path}: no answer"))?
}

/// Counters and gauges whose names match the regular expression.
///
/// # Errors
/// No answer, or not JSON.
pub async fn stats(admin: SocketAddr, filter: &str) -> anyhow::Result<BTreeMap<String, i64>> {
    let text = ask(admin, Method::GET, &format!("/stats?format=json&filter={filter}")).await?;
    let document: Value = serde_json::from_str(&text).context("admin /stats")?;
    let stats = document["stats"].as_array().cloned().unwrap_or_default();
    let entry = |stat: &Value| Some((stat["name"].as_str()?.to_owned(), stat["value"].as_i64()?));
    Ok(stats.iter().filter_map(entry).collect())
}
