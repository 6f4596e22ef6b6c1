//! Reports to whoever collects them: each worker its own, on ticks, with nothing of it in the way of a request.
//!
//! One report is on its way at a time. What is not answered is not repeated: the next one says it again, since reports hold states and sums
//! since the process began, never differences.

use crate::config::ReportTo;
use crate::host;
use crate::stats::{Stats, bump};
use phoenix_filter::admission::Registry;
use phoenix_filter::affinity::Sample;
use phoenix_filter::report::account::{Context, report};
use phoenix_filter::route::Compiled;
use phoenix_filter::units::UnixNanos;
use proxy_wasm::hostcalls::dispatch_http_call;
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long after its time-out a call is given up, should Envoy never answer it.
const GRACE_NS: u64 = 10_000_000_000;

struct Flight {
    token: u32,
    root: u32,
    deadline_ns: u64,
}

/// Who reports.
pub struct Who<'a> {
    /// The process.
    pub process: &'a str,
    /// The worker.
    pub worker: u64,
    /// When the process began to count.
    pub began_ns: u64,
}

/// Reports of this worker.
#[derive(Default)]
pub struct Reports {
    flight: Option<Flight>,
    due_ns: u64,
    sequence: u64,
}

impl Reports {
    /// Is it time, and has the last one been answered? A clock that was set back must not stop it.
    pub fn is_due(&mut self, settings: &ReportTo, now_ns: u64) -> bool {
        if self.flight.as_ref().is_some_and(|flight| now_ns < flight.deadline_ns) {
            return false;
        }
        let interval_ns = settings.interval.as_nanos();
        if now_ns < self.due_ns && self.due_ns.saturating_sub(now_ns) <= interval_ns {
            return false;
        }
        self.due_ns = now_ns.saturating_add(interval_ns);
        true
    }

    /// Report. `sample`: streams of the shards that this worker folds.
    pub fn send(
        &mut self,
        settings: &ReportTo,
        who: &Who<'_>,
        (registry, plan, sample): (&Registry, &Compiled, &Sample),
        root: u32,
        stats: &mut Stats,
        now_ns: u64,
    ) {
        self.sequence = self.sequence.saturating_add(1);
        let counts = stats.counts();
        let body = report(
            registry,
            plan,
            &Context {
                process: who.process,
                worker: who.worker,
                sequence: self.sequence,
                time: UnixNanos(now_ns),
                start_time: UnixNanos(who.began_ns),
                counts: &counts,
                overlap_sample: sample.ids(),
            },
        );
        let authority = settings.authority.as_deref().unwrap_or(&settings.cluster);
        let mut headers = vec![
            (":method", "POST"),
            (":path", settings.path.as_str()),
            (":authority", authority),
            ("content-type", "application/x-protobuf"),
        ];
        headers.extend(settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        match dispatch_http_call(&settings.cluster, headers, Some(&body), vec![], TIMEOUT) {
            Ok(token) => {
                self.flight = Some(Flight { token, root, deadline_ns: now_ns.saturating_add(GRACE_NS) });
            }
            Err(_) => bump(&mut stats.report_failures),
        }
    }

    /// Is this the answer to our call?
    pub fn answered(&mut self, token: u32, num_headers: usize, stats: &mut Stats) -> bool {
        if self.flight.as_ref().is_none_or(|flight| flight.token != token) {
            return false;
        }
        self.flight = None;
        let status =
            if num_headers > 0 { host::header(host::Map::CallResponseHeaders, ":status") } else { None };
        let taken = status.is_some_and(|status| status.first() == Some(&b'2'));
        bump(if taken { &mut stats.reports } else { &mut stats.report_failures });
        true
    }

    /// Does a root context wait for an answer?
    pub fn waits(&self, root: u32) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.root == root)
    }

    /// The calls of a root context are gone.
    pub fn cancel(&mut self, root: u32) {
        if self.waits(root) {
            self.flight = None;
        }
    }
}
