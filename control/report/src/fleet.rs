//! The newest report of every worker.
//!
//! Enters: reports, in any order and any number of times. Leaves: for each worker of each process the one in force. Of two reports of a worker the one with the
//! later start counts, then the one with the higher sequence: a worker whose memory was built anew counts from 1 again. So adding is idempotent
//! and its order does not matter. Bounded by [`WORKERS_MAX`] and [`HELD_BYTES_MAX`].

use crate::read::Refusal;
use crate::wire::Report;
use prost::Message;
use std::collections::BTreeMap;

/// Workers that are held: a thousand gateways of sixty-four threads.
pub const WORKERS_MAX: usize = 65_536;
/// Encoded bytes of all reports that are held: four thousand of the module's largest. In memory they take a few times that.
pub const HELD_BYTES_MAX: usize = 1 << 30;

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
    /// Of all of them, encoded.
    bytes: usize,
}

impl Fleet {
    /// Takes a report that [`crate::read`] has read.
    ///
    /// # Errors
    /// A [`Refusal`] if there are [`WORKERS_MAX`] other workers, or if all reports would be more than [`HELD_BYTES_MAX`].
    pub fn add(&mut self, report: Report) -> Result<Added, Refusal> {
        let worker = (report.process.clone(), report.worker);
        let held = self.reports.get(&worker);
        if held.is_some_and(|held| !is_newer(&report, held)) {
            return Ok(Added::Older);
        }
        let (added, before) = match held {
            Some(held) => (Added::Newer, held.encoded_len()),
            None => (Added::First, 0),
        };
        let refusal =
            |value: String, allowed: String| Err(Refusal { field: "report".to_owned(), value, allowed });
        if added == Added::First && self.reports.len() >= WORKERS_MAX {
            return refusal(
                "of one worker more than are held".to_owned(),
                format!("{WORKERS_MAX} workers of all processes"),
            );
        }
        let bytes = self.bytes - before + report.encoded_len();
        if bytes > HELD_BYTES_MAX {
            return refusal(
                format!("{} bytes more than are held", report.encoded_len()),
                format!("{HELD_BYTES_MAX} bytes of all workers"),
            );
        }
        self.bytes = bytes;
        self.reports.insert(worker, report);
        Ok(added)
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
        self.bytes = self.reports().map(Message::encoded_len).sum();
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
