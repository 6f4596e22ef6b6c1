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
// Reports in, beside the loop.
mod intake;
// What a plan changes to the one before.
mod diff;
// For Prometheus.
mod metrics;
// Routes, each with its right and its schemas.
mod route;
// What survives.
mod state;
// Logs, and traces of the loop.
mod watch;

pub use arguments::Arguments;

use self::core::Core;
use self::intake::Intake;
use anyhow::{Context, Result};
use phoenix_serve::audit::{Audit, Entry};
use phoenix_serve::grants::Grants;
use phoenix_serve::guard::Guard;
use phoenix_serve::listen::{Counted, Port, serve};
use phoenix_serve::publish::answers::Answers;
use phoenix_serve::publish::board::Board;
use phoenix_serve::publish::poll::Poll;
use phoenix_serve::publish::xds::{Event, Noted, Xds};
use phoenix_serve::role::Denied;
use phoenix_serve::tls::Tls;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// What everybody in this process shares.
pub(crate) struct Shared {
    core: Mutex<Core>,
    intake: Arc<Intake>,
    audit: Mutex<Audit>,
    answers: Arc<Answers>,
    counted: Arc<Counted>,
    tls: Option<Arc<Tls>>,
    grants: Arc<Grants>,
    /// What may be asked, as OpenAPI.
    document: OnceLock<serde_json::Value>,
    /// Somebody has approved: decide now.
    wake: Notify,
    /// Refusals that are written down, by minute.
    refusals: Mutex<Refusals>,
    /// Those of callers whom nobody knows.
    strangers: Mutex<Refusals>,
    /// Lines that could not be written.
    audit_failed: AtomicU64,
    /// Refusals that were not written, one by one.
    unwritten: AtomicU64,
}

impl Shared {
    /// The loop, between two turns. A turn may take a while: whoever serves others meanwhile is let go.
    fn core(&self) -> std::sync::MutexGuard<'_, Core> {
        tokio::task::block_in_place(|| self.core.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A line about somebody who is known and was refused, of which they can make as many as they like: so many a minute are written, the rest is counted.
    fn refuse(&self, actor: &str, action: &str, subject: &str, detail: &str) {
        self.refuse_within((&self.refusals, REFUSALS_MAX), actor, action, subject, detail);
    }

    /// The same about somebody whom nobody knows: they hide nobody else's, and make no more of the log than a person reads.
    fn refuse_stranger(&self, actor: &str, subject: &str, detail: &str) {
        let subject: String = subject.chars().take(STRANGERS_WORDS).collect();
        self.refuse_within((&self.strangers, STRANGERS_MAX), actor, "denied", &subject, detail);
    }

    fn refuse_within(
        &self,
        (refusals, max): (&Mutex<Refusals>, u32),
        actor: &str,
        action: &str,
        subject: &str,
        detail: &str,
    ) {
        let missed = {
            let mut it = refusals.lock().unwrap_or_else(PoisonError::into_inner);
            match it.admit(now_ns() / 60_000_000_000, max) {
                Some(missed) => missed,
                None => {
                    self.unwritten.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        };
        if missed > 0 {
            let detail = format!("{missed} more were refused in an earlier minute");
            self.note("control", "refused", "many", &detail);
        }
        self.note(actor, action, subject, detail);
    }

    /// A line in the audit log. One that cannot be written is said on standard error: the loop goes on, and `/metrics` counts it.
    fn note(&self, actor: &str, action: &str, subject: &str, detail: &str) {
        match action {
            "failed" => tracing::error!(actor, action, subject, detail),
            "refused" | "denied" => tracing::warn!(actor, action, subject, detail),
            _ => tracing::info!(actor, action, subject, detail),
        }
        let entry = Entry {
            at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            detail: detail.to_owned(),
        };
        let written = tokio::task::block_in_place(|| {
            self.audit.lock().unwrap_or_else(PoisonError::into_inner).append(&entry)
        });
        if let Err(error) = written {
            self.audit_failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(error = format!("{error:#}"), "a line of the audit log could not be written");
        }
    }
}

/// Refusals that are written in a minute.
const REFUSALS_MAX: u32 = 300;
/// The same of strangers, and characters of what they asked.
const STRANGERS_MAX: u32 = 10;
const STRANGERS_WORDS: usize = 200;

/// How many refusals were written in the minute that is.
#[derive(Default)]
struct Refusals {
    minute: u64,
    written: u32,
    missed: u64,
}

impl Refusals {
    /// May another be written? Then, how many were missed before it.
    fn admit(&mut self, minute: u64, max: u32) -> Option<u64> {
        if self.minute != minute {
            (self.minute, self.written) = (minute, 0);
        }
        if self.written >= max {
            self.missed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.missed))
    }
}

/// Runs until it is told to stop.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let watch = watch::Watch::begin(&arguments.watch)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let ended = runtime.block_on(serve_until_stopped(arguments));
    watch.end();
    ended
}

async fn serve_until_stopped(arguments: &Arguments) -> Result<ExitCode> {
    let grants = Arc::new(arguments.grants()?);
    let tls = arguments.tls().map(Tls::load).transpose()?.map(Arc::new);
    let audit = Audit::open(&arguments.audit_path())?;
    let module = Arc::new(arguments.module());
    let board = Board::default();
    let core = Core::open(arguments, board.clone(), now_ns())?;
    let shared = Arc::new(Shared {
        intake: core.intake(),
        core: Mutex::new(core),
        audit: Mutex::new(audit),
        answers: Arc::default(),
        counted: Arc::default(),
        tls: tls.clone(),
        grants: grants.clone(),
        document: OnceLock::new(),
        wake: Notify::new(),
        refusals: Mutex::default(),
        strangers: Mutex::default(),
        audit_failed: AtomicU64::new(0),
        unwritten: AtomicU64::new(0),
    });
    let heard = shared.clone();
    let noted: Noted = Arc::new(move |node, event| {
        let (action, detail) = match event {
            // Sent and taken are for every embedder and every version: the API has them.
            Event::Sent(_) | Event::Taken(_) => return,
            Event::Refused(version, why) => ("refused", format!("plan {version}: {why}")),
            Event::Denied(why) => ("denied", why.to_owned()),
        };
        heard.refuse(&node.id, action, "plan", &detail);
    });
    let answers = shared.answers.clone();
    let poll = Poll { board: board.clone(), answers: answers.clone(), noted: noted.clone() };
    let xds = Xds { board, answers, module, noted };
    let told = shared.clone();
    let guard = Guard::new(
        grants,
        Arc::new(move |who, what, denied| match denied {
            Denied::Unknown(why) => told.refuse_stranger(who, what, why),
            Denied::Forbidden(why) => told.refuse(who, "denied", what, why),
        }),
    );
    let table = api::table(poll);
    let _ = shared.document.set(route::document(&table));
    let router = route::router(table, &guard)
        .with_state(shared.clone())
        .merge(xds.routes(&guard))
        .fallback(api::nowhere)
        .method_not_allowed_fallback(api::otherwise);
    let port = Port { address: arguments.listen, tls, connections_max: arguments.connections_max };
    let address = serve(&port, router, shared.counted.clone()).await?;
    let scheme = if port.tls.is_some() { "https" } else { "http" };
    say!("phoenix control: {scheme}://{address}");
    let unaudited = shared.core().unaudited()?;
    for (action, subject, detail) in unaudited {
        shared.note("control", action, &subject, &format!("{detail} (written late)"));
    }
    shared.core().audited()?;
    shared.core().audit_hold()?;
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
    for news in shared.grants.news() {
        match news {
            Ok(()) => shared.note("control", "read", "access", "the file is in force"),
            Err(why) => shared.note("control", "refused", "access", &why),
        }
    }
    let (said, failed, next) = {
        let mut core = shared.core();
        let (said, failed) = core.turn(now_ns());
        (said, failed, core.interval())
    };
    let failed_before = shared.audit_failed.load(Ordering::Relaxed);
    for (action, subject, detail) in said {
        shared.note("control", action, &subject, &detail);
    }
    if let Some(error) = failed {
        shared.note("control", "failed", "turn", &format!("{error:#}"));
    }
    // What a crash keeps out of the log is written when this begins again.
    if shared.audit_failed.load(Ordering::Relaxed) == failed_before
        && let Err(error) = shared.core().audited()
    {
        tracing::error!(error = format!("{error:#}"), "what is in the audit log is not known");
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
