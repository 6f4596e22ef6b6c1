//! The port of a capture: connections, and when to stop.
//!
//! Enters: the address, the store. Leaves: the store with what was recorded, and why it ended. Connections that are open at the end get a moment to
//! hear the answers of what is already on the disk.

use super::arguments::Arguments;
use super::forward::Backend;
use super::request::{Shared, handle};
use super::store::{Ended, Store};
use crate::show;
use anyhow::{Context, Result};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// How long connections may take to end.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long to wait after the system refused a connection (no file descriptors, say).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// Over HTTP/2 a whole body fits into a stream's window, as in the shipped gateway.
const WINDOW_BYTES: u32 = crate::otlp::frame::BODY_BYTES_MAX as u32;

/// Serves until something ends it.
pub async fn run(arguments: &Arguments, store: Store) -> Result<(Arc<Shared>, Ended)> {
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("--listen {}", arguments.listen))?;
    greet(arguments, listener.local_addr()?);
    let shared = Arc::new(Shared {
        store: Mutex::new(store),
        ended: Notify::new(),
        backend: arguments.forward.clone().map(Backend::new),
    });
    let graceful = GracefulShutdown::new();
    let ended = {
        let mut interrupted = std::pin::pin!(signal());
        let mut over = std::pin::pin!(over(arguments.length()));
        loop {
            tokio::select! {
                biased;
                () = &mut interrupted => break Ended::Interrupt,
                () = shared.ended.notified() => break Ended::Requests,
                () = &mut over => break Ended::Seconds,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => serve(stream, &shared, &graceful),
                    Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
                },
            }
        }
    };
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(FAREWELL) => {}
    }
    let ended = shared.store().ended().unwrap_or(ended);
    Ok((shared, ended))
}

fn serve(stream: TcpStream, shared: &Arc<Shared>, graceful: &GracefulShutdown) {
    let _ = stream.set_nodelay(true);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http2().initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let shared = shared.clone();
    let service = service_fn(move |request| handle(request, shared.clone()));
    let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // An error here is a connection that its peer broke.
        let _ = connection.await;
    });
}

fn greet(arguments: &Arguments, address: SocketAddr) {
    say!(
        "listening on {address} (OTLP over HTTP and gRPC), recording to {}, at most {}",
        arguments.out.display(),
        show::bytes(arguments.bytes_max),
    );
    match &arguments.forward {
        Some(url) => say!("sending on to {url}"),
        None => say!("every good request is answered with success and goes nowhere else"),
    }
}

async fn over(length: Option<Duration>) {
    match length {
        Some(length) => tokio::time::sleep(length).await,
        None => std::future::pending().await,
    }
}

/// Ctrl-C, or the signal of a supervisor.
pub async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => if interrupted.is_err() { std::future::pending::<()>().await },
        _ = terminate.recv() => {}
    }
}
