//! Do other processes see the streams of this one? Asked of whichever peer the balancer of a cluster picks, from ticks of the worker
//! that folds shard 0.
//!
//! Every owner leaves a sample of its streams in shared data; the owner of shard 0 makes a report of them all, which any worker
//! serves (`GET` of the configured path), and compares it with a peer's. What comes out is one word for all workers, in shared data
//! too: from when on cumulative sums may fold. Nothing here stands in the way of a request.

use crate::config::Peers as Settings;
use crate::host;
use crate::names;
use crate::stats::{Stats, bump};
use phoenix_filter::affinity::{Check, Report, Sample, Verdict};
use phoenix_filter::shared::If;
use phoenix_filter::units::UnixNanos;
use proxy_wasm::hostcalls::dispatch_http_call;
use std::time::Duration;

/// From the word that affinity is shown until cumulative sums fold: workers look once a second, and all must know before.
const LEAD_NS: u64 = 5_000_000_000;
/// How long a peer may take; it answers from memory.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long after its time-out a call is given up, should Envoy never answer it.
const GRACE_NS: u64 = 4_000_000_000;
/// A report is about 8 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

struct Flight {
    token: u32,
    root: u32,
    deadline_ns: u64,
}

/// What this worker knows of peers. Only the owner of shard 0 asks.
#[derive(Default)]
pub struct Peers {
    /// Of the worker that asks; it begins with what all workers know.
    check: Option<Check>,
    own: Option<Report>,
    /// How far back samples look.
    recent_ns: u64,
    flight: Option<Flight>,
    due_ns: u64,
}

/// Since when cumulative sums may fold in this process, where a plan asks for affinity to be shown.
pub fn affine_from() -> Option<u64> {
    let (bytes, _) = host::shared(&names::affinity())?;
    bytes.first_chunk().map(|b| u64::from_le_bytes(*b)).filter(|at| *at < u64::MAX)
}

/// The report of this process, for whoever asks.
pub fn report() -> Option<Vec<u8>> {
    host::shared(&names::report()).map(|(bytes, _)| bytes)
}

impl Peers {
    /// Is it time for the next round? A clock that was set back must not stop it.
    pub fn is_due(&mut self, settings: &Settings, now_ns: u64) -> bool {
        let interval_ns = settings.interval.as_nanos();
        let due = now_ns >= self.due_ns || self.due_ns.saturating_sub(now_ns) > interval_ns;
        if due {
            self.due_ns = now_ns.saturating_add(interval_ns);
        }
        due
    }

    /// Leave the sample of a shard where the owner of shard 0 finds it.
    pub fn publish(shard: usize, key: u64, process: &str, sample: Sample) {
        let report = Report { key, process: process.to_owned(), sample };
        host::set_shared(&names::sample(shard), &report.encode(), If::Always);
    }

    /// Make the report of all shards and ask a peer for its own.
    pub fn ask(
        &mut self,
        settings: &Settings,
        (key, process, shards, recent_ns): (u64, &str, usize, u64),
        root: u32,
        stats: &mut Stats,
        now_ns: u64,
    ) {
        let mut own = Report { key, process: process.to_owned(), sample: Sample::default() };
        for shard in 0..shards {
            let found = host::shared(&names::sample(shard)).and_then(|(bytes, _)| Report::decode(&bytes));
            if let Some(part) = found.filter(|part| part.key == key) {
                own.sample = own.sample.union(&part.sample);
            }
        }
        host::set_shared(&names::report(), &own.encode(), If::Always);
        self.own = Some(own);
        self.recent_ns = recent_ns;
        if let Some(flight) = &self.flight {
            if now_ns < flight.deadline_ns {
                return;
            }
            self.hear(None, stats, now_ns);
        }
        let authority = settings.authority.as_deref().unwrap_or(&settings.cluster);
        let headers = vec![(":method", "GET"), (":path", settings.path.as_str()), (":authority", authority)];
        match dispatch_http_call(&settings.cluster, headers, None, vec![], TIMEOUT) {
            Ok(token) => {
                self.flight = Some(Flight { token, root, deadline_ns: now_ns.saturating_add(GRACE_NS) });
            }
            Err(_) => self.hear(None, stats, now_ns),
        }
    }

    /// Is this the answer to our call? Then it is read.
    pub fn answered(
        &mut self,
        token: u32,
        num_headers: usize,
        body_len: usize,
        stats: &mut Stats,
        now_ns: u64,
    ) -> bool {
        if self.flight.as_ref().is_none_or(|f| f.token != token) {
            return false;
        }
        // Without headers they cannot even be asked for.
        let ok = num_headers > 0
            && host::header(host::Map::CallResponseHeaders, ":status").is_some_and(|s| s == b"200");
        let body = ok.then(|| host::call_response_body(body_len.min(ANSWER_BYTES_MAX))).flatten();
        let peer = body.and_then(|body| Report::decode(&body));
        self.hear(peer.as_ref(), stats, now_ns);
        true
    }

    fn hear(&mut self, peer: Option<&Report>, stats: &mut Stats, now_ns: u64) {
        self.flight = None;
        let Some(own) = &self.own else { return };
        bump(if peer.is_some() { &mut stats.peer_reports } else { &mut stats.peer_failures });
        let check = self.check.get_or_insert_with(|| Check::resume(affine_from().is_some()));
        let before = check.verdict();
        let verdict = check.hear(own, peer, self.recent_ns, UnixNanos(now_ns));
        let whole = |x: f64| x.round().clamp(0.0, 1e15) as u64;
        stats.overlap_streams = whole(check.last().shared);
        stats.union_streams = whole(check.last().union);
        stats.own_streams = whole(own.sample.estimate());
        stats.affinity = match verdict {
            Verdict::Unknown => 0,
            Verdict::Shown => 1,
            Verdict::Refuted => 2,
        };
        if verdict == before {
            return;
        }
        let at = match verdict {
            Verdict::Shown => now_ns.saturating_add(LEAD_NS),
            _ => u64::MAX,
        };
        host::set_shared(&names::affinity(), &at.to_le_bytes(), If::Always);
        match verdict {
            // Whole numbers: the formatting of doubles alone is 20 kB of module.
            Verdict::Refuted => host::warn(&format!(
                "phoenix: stream affinity refuted: about {} of {} streams reach another process too; cumulative sums are not \
                 folded where the plan asks for affinity to be checked",
                stats.overlap_streams, stats.union_streams
            )),
            _ => host::info("phoenix: stream affinity shown: no stream of this process reaches another"),
        }
    }

    /// This worker does not ask, or not any more.
    pub fn retire(&mut self, stats: &mut Stats) {
        self.check = None;
        (stats.affinity, stats.overlap_streams, stats.union_streams, stats.own_streams) = (0, 0, 0, 0);
    }

    /// Does a root context wait for an answer?
    pub fn waits(&self, root: u32) -> bool {
        self.flight.as_ref().is_some_and(|f| f.root == root)
    }

    /// The calls of a root context are gone.
    pub fn cancel(&mut self, root: u32) {
        if self.waits(root) {
            self.flight = None;
        }
    }
}
