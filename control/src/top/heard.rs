//! Who was heard of, and when.
//!
//! Enters: bodies of reports with the moment they came. Leaves: a [`Snapshot`] for the screen. A worker that was silent for [`STALE_AFTER`] intervals is stale and still
//! counted, since what it last said is the best that is known; after [`FORGOTTEN_AFTER`] it is forgotten. Silence is measured by our own clock.

use crate::report::tables;
use crate::show::{clean, count, counted};
use phoenix_report::view::View;
use phoenix_report::{Added, Fleet, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Intervals of silence: two reports may be lost or late.
const STALE_AFTER: u32 = 3;
/// As long as a process needs to start again, ten times over a usual interval of ten seconds.
const FORGOTTEN_AFTER: u32 = 10;

/// Everything that came.
pub struct Heard {
    interval: Duration,
    fleet: Fleet,
    last: BTreeMap<(String, u64), Instant>,
    refused: u64,
    last_refusal: Option<String>,
    /// The snapshot, until something changes.
    drawn: Option<Arc<Snapshot>>,
}

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The fleet.
    pub view: View,
    /// Silent processes.
    pub stale: BTreeSet<String>,
    /// Reports that were refused.
    pub refused: u64,
    /// Why the last one was.
    pub last_refusal: Option<String>,
}

impl Heard {
    /// Nobody yet.
    pub fn new(interval: Duration) -> Heard {
        Heard {
            interval,
            fleet: Fleet::default(),
            last: BTreeMap::new(),
            refused: 0,
            last_refusal: None,
            drawn: None,
        }
    }

    /// Takes a report.
    ///
    /// # Errors
    /// Why not; it is counted.
    pub fn take(&mut self, body: &[u8], now_unix_nano: u64, at: Instant) -> Result<(), Refusal> {
        let outcome = phoenix_report::read(body, now_unix_nano).and_then(|report| {
            let worker = (report.process.clone(), report.worker);
            Ok((worker, self.fleet.add(report)?))
        });
        match outcome {
            // Whoever repeats itself says nothing new.
            Ok((_, Added::Older)) => Ok(()),
            Ok((worker, _)) => {
                self.last.insert(worker, at);
                self.drawn = None;
                Ok(())
            }
            Err(refusal) => {
                self.refuse(refusal.to_string());
                Err(refusal)
            }
        }
    }

    /// Counts a report that was no report.
    pub fn refuse(&mut self, why: String) {
        self.refused += 1;
        self.last_refusal = Some(why);
        self.drawn = None;
    }

    /// What is known at this moment.
    pub fn snapshot(&mut self, at: Instant) -> Arc<Snapshot> {
        let forgotten = self.interval * FORGOTTEN_AFTER;
        let before = self.last.len();
        self.last.retain(|_, last| at.saturating_duration_since(*last) <= forgotten);
        if self.last.len() < before {
            let last = &self.last;
            self.fleet.retain(|process, worker| last.contains_key(&(process.to_owned(), worker)));
            self.drawn = None;
        }
        let stale = self.stale(at);
        match &self.drawn {
            Some(drawn) if drawn.stale == stale => drawn.clone(),
            _ => {
                let last_refusal = self.last_refusal.clone();
                let snapshot = Arc::new(Snapshot {
                    view: self.fleet.view(),
                    stale,
                    refused: self.refused,
                    last_refusal,
                });
                self.drawn = Some(snapshot.clone());
                snapshot
            }
        }
    }

    /// Processes all of whose workers are silent.
    fn stale(&self, at: Instant) -> BTreeSet<String> {
        let silent = |last: &Instant| at.saturating_duration_since(*last) > self.interval * STALE_AFTER;
        let mut processes: BTreeMap<&str, bool> = BTreeMap::new();
        for ((process, _), last) in &self.last {
            *processes.entry(process).or_insert(true) &= silent(last);
        }
        processes.into_iter().filter(|(_, stale)| *stale).map(|(process, _)| process.to_owned()).collect()
    }
}

impl Snapshot {
    /// Who reports and how much there is, in a line.
    pub fn header(&self, now_unix_nano: u64) -> String {
        let view = &self.view;
        let stale = match self.stale.len() {
            0 => String::new(),
            number => format!(" ({number} stale)"),
        };
        let workers = view.processes.iter().map(|process| process.workers).sum();
        let age = match view.newest_unix_nano {
            0 => "no report yet".to_owned(),
            newest => format!("newest report {} s ago", now_unix_nano.saturating_sub(newest) / 1_000_000_000),
        };
        format!(
            "{}{stale}, {}, {}, {} active series, plan {}, {age}",
            tables::processes(view.processes.len() as u64),
            counted(workers, "worker"),
            counted(view.tenants.len() as u64, "tenant"),
            tables::all_active(view),
            tables::versions(view),
        )
    }

    /// What is wrong, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.stale.is_empty() {
            let names: Vec<String> = self.stale.iter().map(|name| tables::short(name)).collect();
            lines.push(format!("stale: {}", names.join(", ")));
        }
        if let Some(why) = &self.last_refusal {
            lines.push(format!("{} refused, the last one: {}", count(self.refused), clean(why)));
        }
        if self.view.truncated_metrics > 0 {
            let left_out = counted(self.view.truncated_metrics, "metric");
            lines.push(format!("at least {left_out} did not fit into the reports"));
        }
        lines.extend(self.view.notes.iter().cloned());
        lines
    }
}
