//! One port: HTTP/1.1, HTTP/2 and gRPC, in plain text on loopback or over TLS.
//!
//! In: an address and a router. Out: the address with its port; whoever connects is served until the runtime ends. Each request carries its [`Peer`]. Refuses plain text on
//! any address but loopback, a connection beyond as many as may stand, and says so to whoever speaks plain text to a port with TLS. A handshake that takes longer than ten seconds, or fails, is counted and ends.

use crate::role::Credentials;
use crate::tls::{Tls, names};
use anyhow::{Context as _, Result, ensure};
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

/// How long a handshake, and the head of a request, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait after the system refused a connection (no file descriptors, say).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// Between two pings over HTTP/2: an embedder that is gone is noticed.
const PING: Duration = Duration::from_secs(30);

/// Who is at the other end; in the extensions of each request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Names in its certificate.
    pub names: Arc<[String]>,
    /// No TLS.
    pub is_plain: bool,
}

impl Peer {
    /// What it shows, with the bearer token of a request.
    pub fn credentials(&self, authorization: Option<&str>) -> Credentials {
        let token = authorization.and_then(|it| it.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        Credentials {
            certificate: self.names.to_vec(),
            token: token.map(|(_, token)| token.trim().to_owned()),
            is_plain: self.is_plain,
        }
    }
}

/// What a port has counted.
#[derive(Debug, Default)]
pub struct Counted {
    /// Connections taken.
    pub connections: AtomicU64,
    /// Connections that were let go because there were as many as may be.
    pub refused: AtomicU64,
    /// Connections that stand.
    pub standing: AtomicU64,
    /// Handshakes that failed: no certificate that is good, no TLS at all.
    pub handshakes_failed: AtomicU64,
}

/// A port.
pub struct Port {
    /// Its address; a port of 0 is the system's to choose.
    pub address: SocketAddr,
    /// TLS; none: plain text, on loopback only.
    pub tls: Option<Arc<Tls>>,
    /// Connections that may stand at one time.
    pub connections_max: usize,
}

/// Listens, and serves in the background.
///
/// # Errors
/// The address is not free, or is not loopback where there is no TLS.
pub async fn serve(port: &Port, router: Router, counted: Arc<Counted>) -> Result<SocketAddr> {
    let asked = port.address;
    ensure!(
        port.tls.is_some() || asked.ip().is_loopback(),
        "listen: {asked} without tls; allowed: a loopback address, or tls.certificate and tls.key"
    );
    let listener = TcpListener::bind(asked).await.with_context(|| format!("listen: {asked}"))?;
    let address = listener.local_addr()?;
    let tls = port.tls.clone();
    let room = Arc::new(Semaphore::new(port.connections_max));
    tokio::spawn(async move {
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            counted.connections.fetch_add(1, Ordering::Relaxed);
            // Who comes when there is no room hears so at once, by the end of the connection.
            let Ok(permit) = room.clone().try_acquire_owned() else {
                counted.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            counted.standing.fetch_add(1, Ordering::Relaxed);
            let (router, tls, counted) = (router.clone(), tls.clone(), counted.clone());
            tokio::spawn(async move {
                if connection(stream, peer, tls, router).await.is_none() {
                    counted.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                }
                counted.standing.fetch_sub(1, Ordering::Relaxed);
                drop(permit);
            });
        }
    });
    Ok(address)
}

/// None: there was no handshake.
async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    router: Router,
) -> Option<()> {
    // Plans are small and waited for.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        let peer = Peer { address, names: Arc::default(), is_plain: true };
        requests(TokioIo::new(stream), peer, router).await;
        return Some(());
    };
    let acceptor = TlsAcceptor::from(tls.current());
    let handshake = async {
        let mut first = [0];
        if stream.peek(&mut first).await.ok()? == 1 && first[0].is_ascii_alphabetic() {
            tell_plain(stream).await;
            return None;
        }
        acceptor.accept(stream).await.ok()
    };
    let stream = tokio::time::timeout(PATIENCE, handshake).await.ok()??;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = Peer { address, names: shown.map(names).unwrap_or_default().into(), is_plain: false };
    requests(TokioIo::new(stream), peer, router).await;
    Some(())
}

/// Says that this port speaks TLS to whoever begins with a letter, as every HTTP method does and no TLS record.
async fn tell_plain(mut stream: TcpStream) {
    const WHY: &str = "plain text; allowed: TLS: ask https://\n";
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{WHY}", WHY.len());
    // What is not read before the end would make the system break the connection, and the answer be lost.
    let mut heard = [0; 4_096];
    let _ = stream.read(&mut heard).await;
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Of a connection: was a request let in for which a right is needed?
#[derive(Clone, Debug, Default)]
pub struct Admitted(Arc<AtomicBool>);

impl Admitted {
    /// From now on, yes.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

async fn requests<S>(stream: TokioIo<S>, peer: Peer, router: Router)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let admitted = Admitted::default();
    let asked = admitted.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(asked.clone());
        let mut router = router.clone();
        async move { router.call(request).await }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PATIENCE);
    let connection = server.serve_connection(stream, service);
    tokio::pin!(connection);
    // Which version of HTTP it is waits for bytes without a limit of its own. An error here is a connection that its peer broke.
    let is_over = tokio::time::timeout(PATIENCE, connection.as_mut()).await.is_ok();
    // Only whoever may ask something keeps a connection: nobody else can use them up.
    if !is_over && admitted.is_so() {
        let _ = connection.await;
    }
}
