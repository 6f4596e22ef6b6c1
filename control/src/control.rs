//! `phoenix control`: the slow loop as a process.
//!
//! ```text
//! reports ── api ── collect ── estimate ── decide ── state (on disk, then nobody can take it back) ── audit ── publish
//!                                ▲ needs, policy: files, read again when they change
//! ```
//!
//! Enters: a policy, a state file, an address. Leaves: plans in embedders. The stages are pure and stand beside this; here are the clock, the files and the ports. A restart
//! goes on where the last decision ended: what was published is published again before the port opens, so that no embedder is given anything else
//! because the control host was away.

// What may be asked, and by whom.
mod api;
// The command line.
mod arguments;
// The loop.
mod core;
// For Prometheus.
mod metrics;
// What survives.
mod state;

pub use arguments::Arguments;

use self::core::Core;
use anyhow::{Context, Result};
use phoenix_serve::audit::{Audit, Entry};
use phoenix_serve::listen::{Counted, Port, serve};
use phoenix_serve::publish::answers::Answers;
use phoenix_serve::publish::board::Board;
use phoenix_serve::publish::poll::Poll;
use phoenix_serve::publish::xds::{Event, Noted, Xds};
use phoenix_serve::role::Access;
use phoenix_serve::tls::Tls;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// What everybody in this process shares.
pub(crate) struct Shared {
    core: Mutex<Core>,
    audit: Mutex<Audit>,
    answers: Arc<Answers>,
    counted: Arc<Counted>,
    tls: Option<Arc<Tls>>,
    access: Arc<Access>,
    /// Somebody has approved: decide now.
    wake: Notify,
}

impl Shared {
    fn core(&self) -> std::sync::MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line in the audit log. One that cannot be written is said on standard error: the loop goes on, and `/metrics` counts it.
    fn note(&self, actor: &str, action: &str, subject: &str, detail: &str) {
        let entry = Entry {
            at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            detail: detail.to_owned(),
        };
        let written = self.audit.lock().unwrap_or_else(PoisonError::into_inner).append(&entry);
        if let Err(error) = written {
            self.core().audit_failed += 1;
            eprintln!("{error:#}");
        }
    }
}

/// Runs until it is told to stop.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve_until_stopped(arguments))
}

async fn serve_until_stopped(arguments: &Arguments) -> Result<ExitCode> {
    let access = Arc::new(arguments.access()?);
    let tls = arguments.tls().map(Tls::load).transpose()?.map(Arc::new);
    let audit = Audit::open(&arguments.audit_path())?;
    let module = Arc::new(arguments.module());
    let board = Board::default();
    let core = Core::open(arguments, board.clone(), now_ns())?;
    let shared = Arc::new(Shared {
        core: Mutex::new(core),
        audit: Mutex::new(audit),
        answers: Arc::default(),
        counted: Arc::default(),
        tls: tls.clone(),
        access: access.clone(),
        wake: Notify::new(),
    });
    let heard = shared.clone();
    let noted: Noted = Arc::new(move |node, event| {
        let (action, detail) = match event {
            // Sent and taken are for every embedder and every version: the API has them.
            Event::Sent(_) | Event::Taken(_) => return,
            Event::Refused(version, why) => ("refused", format!("plan {version}: {why}")),
            Event::Denied(why) => ("denied", why.to_owned()),
        };
        heard.note(&node.id, action, "plan", &detail);
    });
    let answers = shared.answers.clone();
    let poll =
        Poll { board: board.clone(), answers: answers.clone(), access: access.clone(), noted: noted.clone() };
    let xds = Xds { board, answers, access, module, noted };
    let router = api::routes(shared.clone()).merge(poll.routes()).merge(xds.routes());
    let port = Port { address: arguments.listen, tls };
    let address = serve(&port, router, shared.counted.clone()).await?;
    let scheme = if port.tls.is_some() { "https" } else { "http" };
    println!("phoenix control: {scheme}://{address}");
    shared.note(
        "control",
        "started",
        &address.to_string(),
        &format!("policy {}", arguments.policy.display()),
    );

    let mut stop = stopped()?;
    loop {
        let looping = shared.clone();
        let next = tokio::task::spawn_blocking(move || step(&looping)).await.context("the loop")?;
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = shared.wake.notified() => {}
            _ = stop.recv() => break,
        }
    }
    shared.note("control", "stopped", "", "");
    Ok(ExitCode::SUCCESS)
}

/// One turn of the loop; how long until the next.
fn step(shared: &Shared) -> std::time::Duration {
    let (said, next) = {
        let mut core = shared.core();
        let said = core.turn(now_ns());
        (said, core.interval())
    };
    match said {
        Ok(entries) => {
            for (action, subject, detail) in entries {
                shared.note("control", action, &subject, &detail);
            }
        }
        Err(error) => {
            eprintln!("{error:#}");
            shared.note("control", "failed", "turn", &format!("{error:#}"));
        }
    }
    next
}

#[cfg(unix)]
fn stopped() -> Result<tokio::sync::mpsc::Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (tell, told) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
        let _ = tell.send(()).await;
    });
    Ok(told)
}

#[cfg(not(unix))]
fn stopped() -> Result<tokio::sync::mpsc::Receiver<()>> {
    let (tell, told) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        let _ = tell.send(()).await;
    });
    Ok(told)
}

pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
