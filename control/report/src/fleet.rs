//! The newest report of every worker.
//!
//! Enters: reports, in any order and any number of times. Leaves: for each worker of each process the one in force. Of two reports of a worker the one with the
//! later start counts, then the one with the higher sequence: a worker whose memory was built anew counts from 1 again. So adding is idempotent
//! and its order does not matter. Bounded by [`WORKERS_MAX`].

use crate::read::Refusal;
use crate::wire::Report;
use prost::Message;
use std::collections::BTreeMap;

/// Workers that are held: a thousand gateways of sixty-four threads. Each may hold a report of some megabytes, but those of the module are 256 KiB at most.
pub const WORKERS_MAX: usize = 65_536;

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The first of its worker.
    First,
    /// In force, in the place of an older one.
    Newer,
    /// Not in force: another one is newer, or it is the same.
    Older,
}

/// The reports in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    reports: BTreeMap<(String, u64), Report>,
}

impl Fleet {
    /// Takes a report that [`crate::read`] has read.
    ///
    /// # Errors
    /// A [`Refusal`] if there are [`WORKERS_MAX`] other workers.
    pub fn add(&mut self, report: Report) -> Result<Added, Refusal> {
        let worker = (report.process.clone(), report.worker);
        match self.reports.get_mut(&worker) {
            Some(held) if is_newer(&report, held) => *held = report,
            Some(_) => return Ok(Added::Older),
            None if self.reports.len() >= WORKERS_MAX => {
                return Err(Refusal {
                    field: "worker".to_owned(),
                    value: format!("{} of {}: one more than {WORKERS_MAX}", report.worker, report.process),
                    allowed: format!("{WORKERS_MAX} workers of all processes"),
                });
            }
            None => {
                self.reports.insert(worker, report);
                return Ok(Added::First);
            }
        }
        Ok(Added::Newer)
    }

    /// Everything that another fleet holds.
    ///
    /// # Errors
    /// As [`Fleet::add`]; what came before the refusal is taken.
    pub fn merge(&mut self, other: Fleet) -> Result<(), Refusal> {
        other.reports.into_values().try_for_each(|report| self.add(report).map(|_| ()))
    }

    /// Forgets the workers of which `keep` says false.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, u64) -> bool) {
        self.reports.retain(|(process, worker), _| keep(process, *worker));
    }

    /// The reports in force, by process and worker.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.reports.values()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }
}

/// Is `a` to be in force in the place of `b`?
fn is_newer(a: &Report, b: &Report) -> bool {
    let age = |report: &Report| (report.start_time_unix_nano, report.sequence, report.time_unix_nano);
    match age(a).cmp(&age(b)) {
        // Two that say they are the same and are not: whatever is chosen, it must not depend on which came first.
        std::cmp::Ordering::Equal => a.encode_to_vec() > b.encode_to_vec(),
        order => order.is_gt(),
    }
}
