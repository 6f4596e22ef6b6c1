//! Reports in, beside the loop: a turn may take a while, and reports do not wait for it.
//!
//! Enters: reports. Leaves: what became of each, and a copy of all that are in force for the turn that reads them; the copy shares their bytes, so that for the time of a turn
//! up to twice `reports.bytes_max` may be held.

use crate::collect::{Collector, Refusal, Settings, Taken};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The collector, with what it counted.
pub struct Intake {
    inner: Mutex<Inner>,
}

struct Inner {
    collector: Collector,
    /// Reports by what became of them.
    outcomes: BTreeMap<&'static str, u64>,
}

impl Intake {
    /// Nothing yet.
    pub fn new(settings: Settings) -> Intake {
        let inner = Inner { collector: Collector::new(settings), outcomes: BTreeMap::new() };
        Intake { inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A report.
    pub fn take(&self, bytes: &[u8], now_ns: u64) -> Result<Taken, Refusal> {
        let mut inner = self.inner();
        let taken = inner.collector.take(bytes, now_ns);
        let word = match &taken {
            Ok(_) => "taken",
            Err(refusal) => refusal.reason.word(),
        };
        *inner.outcomes.entry(word).or_default() += 1;
        taken
    }

    /// Another policy.
    pub fn configure(&self, settings: Settings) {
        self.inner().collector.configure(settings);
    }

    /// Forgets those that have been silent for too long: their names, and all reports that are in force.
    pub fn newest(&self, now_ns: u64) -> (Vec<String>, Collector) {
        let mut inner = self.inner();
        (inner.collector.forget(now_ns), inner.collector.clone())
    }

    /// Processes, and bytes of their reports.
    pub fn held(&self) -> (usize, u64) {
        let inner = self.inner();
        (inner.collector.len(), inner.collector.held_bytes())
    }

    /// Reports by what became of them.
    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        self.inner().outcomes.clone()
    }
}
