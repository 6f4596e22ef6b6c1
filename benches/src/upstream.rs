//! A backend that throws bodies away.
//!
//! In: HTTP/1.1 requests. Out: 200, and how many bytes came. Refuses nothing.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpListener;

/// A server that throws bodies away and says 200. It lives as long as the runtime that it was started in.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Upstream {
    /// Starts it on a free port of the loopback.
    ///
    /// # Errors
    /// No port is to be had.
    pub async fn start() -> anyhow::Result<Upstream> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let seen = bytes.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = seen.clone();
                let answer = service_fn(move |request| discard(request, seen.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(Upstream { address, bytes })
    }

    /// Bytes of bodies so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

async fn discard(
    request: Request<Incoming>,
    seen: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, http::Error> {
    let mut body = request.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            seen.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }
    Response::builder().header("content-type", "application/x-protobuf").body(Full::default())
}
