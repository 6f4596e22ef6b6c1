//! Reports in, beside the loop: a turn may take a while, and reports do not wait for it.
//!
//! Enters: reports. Leaves: what became of each, and a copy of all that are in force for the turn that reads them; the copy shares their bytes, so that for the time of a turn
//! up to twice `reports.bytes_max` may be held.

use crate::collect::{Collector, Incoming, Refusal, Settings, Taken};
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

    /// A report, as it was read, or why it could not be.
    pub fn put(&self, read: Result<Incoming, Refusal>, now_ns: u64) -> Result<Taken, Refusal> {
        let mut inner = self.inner();
        let taken = read.and_then(|report| inner.collector.put(report, now_ns));
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

#[cfg(test)]
mod tests {
    use super::*;
    use phoenix_report::wire::Report;
    use prost::Message as _;

    const NOW_NS: u64 = 1_767_225_600_000_000_000;

    fn report(sequence: u64) -> Vec<u8> {
        let report = Report {
            schema: 1,
            process: "gateway-a@1".to_owned(),
            sequence,
            time_unix_nano: NOW_NS,
            start_time_unix_nano: NOW_NS,
            key: 7,
            period_ms: 600_000,
            ..Report::default()
        };
        report.encode_to_vec()
    }

    fn take(intake: &Intake, bytes: &[u8]) -> Result<Taken, Refusal> {
        intake.put(Incoming::read(bytes, NOW_NS), NOW_NS)
    }

    #[test]
    fn what_a_turn_reads_stays_while_others_come() {
        let intake = Intake::new(Settings { key: 7, bytes_max: 1 << 20, forget_after_ns: 1_000_000_000 });
        assert_eq!(take(&intake, &report(1)), Ok(Taken::First));
        let (forgotten, copy) = intake.newest(NOW_NS);
        assert!(forgotten.is_empty());
        // The copy is held, as by a turn, and the next report is taken.
        assert_eq!(take(&intake, &report(2)), Ok(Taken::Newer));
        assert!(take(&intake, &report(1)).is_err());
        let of = |collector: &Collector| -> Vec<u64> {
            collector.processes(NOW_NS).flat_map(|(_, all)| all).map(|it| it.sequence).collect()
        };
        assert_eq!(of(&copy), [1]);
        assert_eq!(of(&intake.newest(NOW_NS).1), [2]);
        assert_eq!(intake.outcomes(), [("reordered", 1), ("taken", 2)].into());
        assert_eq!(
            intake.newest(NOW_NS + 2_000_000_000).0,
            ["gateway-a@1"],
            "it has been silent for too long"
        );
        assert_eq!(intake.held().0, 0);
    }
}
