//! Questions to the control host, over mutual TLS.
//!
//! In: an address, the certificates of a run, a path. Out: the JSON of a 200. A connection each time: it is asked a few times a second.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Longest wait for an answer: a turn of the loop may stand before it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A name in the control host's certificate.
const HOST: &str = "localhost";

/// Somebody with a certificate.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    connector: TlsConnector,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Client({})", self.address)
    }
}

impl Client {
    /// The bearer of `NAME.pem` in a folder that has `ca.pem` as well.
    ///
    /// # Errors
    /// A file is not there, or is none.
    pub fn new(address: SocketAddr, certificates: &Path, name: &str) -> anyhow::Result<Self> {
        let read = |file: String| {
            let path = certificates.join(file);
            let all: Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(&path).with_context(|| path.display().to_string())?.collect();
            all.with_context(|| path.display().to_string())
        };
        let mut roots = RootCertStore::empty();
        for authority in read("ca.pem".to_owned())? {
            roots.add(authority)?;
        }
        let key = PrivateKeyDer::from_pem_file(certificates.join(format!("{name}.key")))
            .with_context(|| format!("{name}.key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(read(format!("{name}.pem"))?, key)?;
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// The answer to a GET, as JSON.
    ///
    /// # Errors
    /// No answer, another status than 200, or no JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let body = self.body(path).await?;
        serde_json::from_slice(&body).with_context(|| format!("the control host, {path}"))
    }

    /// The answer to a GET.
    ///
    /// # Errors
    /// No answer, or another status than 200.
    pub async fn body(&self, path: &str) -> anyhow::Result<Bytes> {
        let exchange = async {
            let stream = TcpStream::connect(self.address).await?;
            let stream = self.connector.connect(ServerName::try_from(HOST)?, stream).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let request = Request::builder()
                .method(Method::GET)
                .uri(path)
                .header("host", HOST)
                .header("connection", "close")
                .body(Empty::<Bytes>::new())?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
            anyhow::Ok(body)
        };
        let answered = timeout(ANSWER_TIMEOUT, exchange).await.context("no answer");
        answered.and_then(|answer| answer).with_context(|| format!("the control host, {path}"))
    }
}
