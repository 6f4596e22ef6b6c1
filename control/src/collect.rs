//! Reports in: of every worker of every process the one in force.
//!
//! Enters: the bytes of one report, and now. Leaves: [`Taken`], or a [`Refusal`] with its [`Reason`], the field, its value and what is allowed; a refused
//! report changes nothing. What is held is a function of the *set* of reports that came, never of their order, as long as they fit.
//!
//! Of a worker's reports the one with the later start is in force, then the one with the higher sequence; the others are refused as replayed or reordered, so
//! that taking is idempotent and whoever serves it can say why. Silence is measured by the times that reports bear, not by their arrival: two control
//! hosts that hear the same decide the same.
//!
//! Memory: reports are held compressed and read one process at a time when somebody asks ([`Collector::processes`]): read, the reports of a thousand
//! gateways would take several times their bytes. Sketches hardly get smaller, numbers and names do: about half is left (`cargo xtask bench control`). Merging the
//! reports of a process would save more and cannot be undone when one worker sends its next. Bounded by the policy's `reports.bytes_max`, which counts what is held, by
//! [`WORKERS_MAX`], by [`PROCESSES_OF_NODE_MAX`], and, since they are read together, by [`PROCESS_BYTES_MAX`] for a process. When there is no room the silent are forgotten early, then new workers are
//! refused.

use crate::policy::Policy;
use phoenix_filter::route::Compiled;
use phoenix_report::Report;
use phoenix_report::fleet::WORKERS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Memory of a held report beside its bytes.
const HELD_BYTES: u64 = 256;
/// A report counts for at least this part of its own bytes however well it is compressed, since reading it takes what it was.
const COUNTS_AT_LEAST: u64 = 4;
/// Bytes of the reports of one process, as they came: 256 workers of the module's largest.
pub const PROCESS_BYTES_MAX: u64 = 64 << 20;
/// Processes of one node. It begins anew when it is deployed or crashes: whoever waits longer from crash to crash, as Kubernetes does, has fewer before the first is forgotten.
/// Which are held never depends on what the others say of themselves: nobody can take the place of a process that is heard.
pub const PROCESSES_OF_NODE_MAX: usize = 16;
/// Smaller reports are held as they came: ten thousand of them take little, and a compressor costs more to begin than they take to read.
const PACKED_FROM: usize = 16 << 10;
/// The fastest level of zstd: the next takes half as long again and saves a percent.
const LEVEL: i32 = 1;

/// What became of a report that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Taken {
    /// The first of its worker.
    First,
    /// In force, in the place of an older one.
    Newer,
}

/// Why a report is not taken, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// More bytes or parts than a report may have.
    TooLarge,
    /// Another version of the format.
    Version,
    /// Made after now.
    Future,
    /// Not what the format says, or out of its ranges.
    Malformed,
    /// Made under another hash key: its sketches say nothing beside ours.
    Key,
    /// So old that its embedder would be forgotten.
    Late,
    /// This very report is in force.
    Replayed,
    /// A newer one of this worker is in force.
    Reordered,
    /// Another report with the same number is in force: two workers use one name.
    Conflict,
    /// One of a process that began later is in force under this name.
    Superseded,
    /// There is no room.
    Full,
}

impl Reason {
    /// Is it what a network does, and nobody's fault?
    pub fn is_usual(self) -> bool {
        matches!(self, Reason::Late | Reason::Replayed | Reason::Reordered)
    }

    /// The word, as JSON and metrics have it.
    pub fn word(self) -> &'static str {
        match self {
            Reason::TooLarge => "too_large",
            Reason::Version => "version",
            Reason::Future => "future",
            Reason::Malformed => "malformed",
            Reason::Key => "key",
            Reason::Late => "late",
            Reason::Replayed => "replayed",
            Reason::Reordered => "reordered",
            Reason::Conflict => "conflict",
            Reason::Superseded => "superseded",
            Reason::Full => "full",
        }
    }
}

/// Why a report is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In a word.
    pub reason: Reason,
    /// Which field; `report` is the whole.
    pub field: String,
    /// What stood there.
    pub value: String,
    /// What may stand there.
    pub allowed: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { reason, field, value, allowed } = self;
        write!(f, "report refused ({}): field {field}: {value}; allowed: {allowed}", reason.word())
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    fn new(reason: Reason, field: &str, value: impl fmt::Display, allowed: impl Into<String>) -> Refusal {
        Refusal { reason, field: field.to_owned(), value: value.to_string(), allowed: allowed.into() }
    }
}

/// What the policy says about reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Fingerprint of the hash key of all plans.
    pub key: u64,
    /// Bytes that are held.
    pub bytes_max: u64,
    /// An embedder that is silent for so long is forgotten, in nanoseconds.
    pub forget_after_ns: u64,
}

impl Settings {
    /// As a policy has them.
    pub fn of(policy: &Policy) -> Settings {
        Settings {
            key: Compiled::new(policy.plan.plan(1)).key,
            bytes_max: policy.reports.bytes_max,
            forget_after_ns: policy.reports.forget_after.as_nanos(),
        }
    }
}

/// The report of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    start_ns: u64,
    sequence: u64,
    time_ns: u64,
    packed: Packed,
}

/// Shared bytes as any bytes.
mod shared {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use std::sync::Arc;

    pub fn serialize<S: Serializer>(bytes: &Arc<[u8]>, to: S) -> Result<S::Ok, S::Error> {
        (**bytes).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[u8]>, D::Error> {
        Vec::<u8>::deserialize(from).map(Into::into)
    }
}

/// A report's bytes as they are held: a function of the bytes, and equal only where they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Packed {
    /// Of the report.
    len: usize,
    /// zstd; of a small report, and where that is no shorter, the report itself.
    /// Shared with whoever reads all of them while others come.
    #[serde(with = "shared")]
    bytes: Arc<[u8]>,
}

impl Packed {
    fn new(bytes: &[u8]) -> Packed {
        let packed = if bytes.len() < PACKED_FROM { None } else { zstd::bulk::compress(bytes, LEVEL).ok() };
        let shorter = packed.filter(|packed| packed.len() < bytes.len());
        // No more room than they take: the compressor asks for the worst.
        let packed = shorter.map_or_else(|| bytes.into(), Into::into);
        Packed { len: bytes.len(), bytes: packed }
    }

    /// The report. None: never, since it was read before it was packed.
    fn report(&self) -> Option<Report> {
        if self.bytes.len() == self.len {
            return prost::Message::decode(&*self.bytes).ok();
        }
        let bytes = zstd::bulk::decompress(&self.bytes, self.len).ok()?;
        prost::Message::decode(bytes.as_slice()).ok()
    }

    fn held_bytes(&self) -> u64 {
        (self.bytes.len() as u64).max(self.len as u64 / COUNTS_AT_LEAST) + HELD_BYTES
    }
}

/// A report that was read, and is packed: what costs time, and needs nobody who waits.
pub struct Incoming {
    report: Report,
    packed: Packed,
}

impl Incoming {
    /// Reads a report.
    ///
    /// # Errors
    /// A [`Refusal`], of what does not depend on the reports before it.
    pub fn read(bytes: &[u8], now_ns: u64) -> Result<Incoming, Refusal> {
        let report = phoenix_report::read(bytes, now_ns).map_err(|error| worded(error, bytes.len()))?;
        Ok(Incoming { report, packed: Packed::new(bytes) })
    }

    /// Whose it is.
    pub fn process(&self) -> &str {
        &self.report.process
    }
}

/// The reports in force. A copy costs little, and shares their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collector {
    settings: Settings,
    processes: BTreeMap<String, BTreeMap<u64, Held>>,
    bytes: u64,
    workers: usize,
}

impl Collector {
    /// None yet.
    pub fn new(settings: Settings) -> Collector {
        Collector { settings, processes: BTreeMap::new(), bytes: 0, workers: 0 }
    }

    /// Another policy. Under another key all that is held is forgotten.
    pub fn configure(&mut self, settings: Settings) {
        if settings.key != self.settings.key {
            *self = Collector::new(settings);
        } else {
            self.settings = settings;
        }
    }

    /// Takes a report. `now_ns` is the clock of whoever serves this.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing has changed.
    pub fn take(&mut self, bytes: &[u8], now_ns: u64) -> Result<Taken, Refusal> {
        self.put(Incoming::read(bytes, now_ns)?, now_ns)
    }

    /// The same of one that was read.
    ///
    /// # Errors
    /// As [`Collector::take`].
    pub fn put(&mut self, Incoming { report, packed }: Incoming, now_ns: u64) -> Result<Taken, Refusal> {
        if report.key != self.settings.key {
            let allowed = format!("{:016x}, the fingerprint of the policy's key", self.settings.key);
            return Err(Refusal::new(Reason::Key, "key", format!("{:016x}", report.key), allowed));
        }
        let age_ns = now_ns.saturating_sub(report.time_unix_nano);
        if age_ns > self.settings.forget_after_ns {
            let allowed = format!("up to {} s old", self.settings.forget_after_ns / 1_000_000_000);
            let value = format!("{} s old", age_ns / 1_000_000_000);
            return Err(Refusal::new(Reason::Late, "time_unix_nano", value, allowed));
        }
        let before = self.processes.get(&report.process).and_then(|workers| workers.get(&report.worker));
        if let Some(held) = before {
            compare(held, &report, &packed)?;
        }
        let (taken, freed) = match before {
            Some(held) => (Taken::Newer, held.packed.held_bytes()),
            None => (Taken::First, 0),
        };
        let others = self.processes.get(&report.process).into_iter().flatten();
        let others = others.filter(|(worker, _)| **worker != report.worker);
        let of_process = others.map(|(_, held)| held.packed.len as u64).sum::<u64>() + packed.len as u64;
        if of_process > PROCESS_BYTES_MAX {
            let value = format!("{of_process} bytes of {} with its other workers", report.process);
            let allowed = format!("{PROCESS_BYTES_MAX} bytes of a process");
            return Err(Refusal::new(Reason::Full, "report", value, allowed));
        }
        let of_node = self.others_of_node(&report.process, now_ns);
        if of_node >= PROCESSES_OF_NODE_MAX {
            let value = format!("{:?} beside {of_node} others", report.process);
            let allowed = format!("{PROCESSES_OF_NODE_MAX} processes of a node");
            return Err(Refusal::new(Reason::Full, "process", value, allowed));
        }
        self.make_room(taken, packed.held_bytes().saturating_sub(freed), now_ns)?;
        let held = Held {
            start_ns: report.start_time_unix_nano,
            sequence: report.sequence,
            time_ns: report.time_unix_nano,
            packed,
        };
        self.bytes += held.packed.held_bytes();
        match self.processes.entry(report.process).or_default().insert(report.worker, held) {
            Some(old) => self.bytes -= old.packed.held_bytes(),
            None => self.workers += 1,
        }
        Ok(taken)
    }

    /// How many other processes of its node are held and not forgotten.
    fn others_of_node(&self, process: &str, now_ns: u64) -> usize {
        let node = node_of(process);
        let likely = self.processes.range(node.to_owned()..).take_while(|(name, _)| name.starts_with(node));
        let others = likely.filter(|(name, _)| node_of(name) == node && name.as_str() != process);
        others.filter(|(_, workers)| !self.is_forgotten(workers, now_ns)).count()
    }

    /// Is there room for so many bytes more? The silent are forgotten for it.
    fn make_room(&mut self, taken: Taken, bytes: u64, now_ns: u64) -> Result<(), Refusal> {
        let fits = |this: &Collector| {
            let workers = this.workers + usize::from(taken == Taken::First);
            (workers <= WORKERS_MAX && this.bytes + bytes <= this.settings.bytes_max, workers)
        };
        if fits(self).0 {
            return Ok(());
        }
        let silent: u64 = self.processes.values().filter(|it| self.is_forgotten(it, now_ns)).map(size).sum();
        if silent == 0 {
            let Settings { bytes_max, .. } = self.settings;
            let (value, allowed) = match fits(self).1 {
                workers if workers > WORKERS_MAX => {
                    (format!("of worker {workers}"), format!("{WORKERS_MAX} workers"))
                }
                _ => (
                    format!("{bytes} bytes beside {}", self.bytes),
                    format!("reports.bytes_max, {bytes_max} bytes of all"),
                ),
            };
            return Err(Refusal::new(Reason::Full, "report", value, allowed));
        }
        self.forget(now_ns);
        self.make_room(taken, bytes, now_ns)
    }

    /// Forgets embedders that have been silent for too long; their names. Nobody has to call it: they count no more anyway.
    pub fn forget(&mut self, now_ns: u64) -> Vec<String> {
        let silent = |it: &BTreeMap<u64, Held>| self.is_forgotten(it, now_ns);
        let gone: Vec<String> =
            self.processes.iter().filter(|(_, it)| silent(it)).map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.processes.remove(name);
        }
        self.count();
        gone
    }

    fn is_forgotten(&self, workers: &BTreeMap<u64, Held>, now_ns: u64) -> bool {
        now_ns.saturating_sub(newest(workers)) > self.settings.forget_after_ns
    }

    fn count(&mut self) {
        self.workers = self.processes.values().map(BTreeMap::len).sum();
        self.bytes = self.processes.values().map(size).sum();
    }

    /// Bytes that are held, about.
    pub fn held_bytes(&self) -> u64 {
        self.bytes
    }

    /// Processes that are held.
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Every process that is not forgotten, by name, with the reports of its workers in their order: read when it is its turn, and then let go.
    pub fn processes(&self, now_ns: u64) -> impl Iterator<Item = (&str, Vec<Report>)> {
        self.processes.iter().filter(move |(_, workers)| !self.is_forgotten(workers, now_ns)).map(
            |(name, workers)| {
                (name.as_str(), workers.values().filter_map(|held| held.packed.report()).collect())
            },
        )
    }
}

/// The node of a process: its name without the time at which it began.
pub fn node_of(process: &str) -> &str {
    process.rsplit_once('@').map_or(process, |(node, _)| node)
}

/// When a process said something last.
fn newest(workers: &BTreeMap<u64, Held>) -> u64 {
    workers.values().map(|held| held.time_ns).max().unwrap_or(0)
}

fn size(workers: &BTreeMap<u64, Held>) -> u64 {
    workers.values().map(|held| held.packed.held_bytes()).sum()
}

/// Is a report to be in force in the place of another of its worker?
fn compare(held: &Held, report: &Report, packed: &Packed) -> Result<(), Refusal> {
    let in_force = format!("more than {}, which is in force", held.sequence);
    if report.start_time_unix_nano < held.start_ns {
        let allowed = format!("{} or later: a process under this name began then", held.start_ns);
        return Err(Refusal::new(
            Reason::Superseded,
            "start_time_unix_nano",
            report.start_time_unix_nano,
            allowed,
        ));
    }
    if report.start_time_unix_nano > held.start_ns || report.sequence > held.sequence {
        return Ok(());
    }
    if report.sequence < held.sequence {
        return Err(Refusal::new(Reason::Reordered, "sequence", report.sequence, in_force));
    }
    if *packed == held.packed {
        return Err(Refusal::new(Reason::Replayed, "sequence", report.sequence, in_force));
    }
    // Two that say they are the same and are not: whatever is chosen, it must not depend on which came first.
    if (report.time_unix_nano, packed) > (held.time_ns, &held.packed) {
        return Ok(());
    }
    Err(Refusal::new(Reason::Conflict, "sequence", report.sequence, in_force))
}

/// The refusal of the reader, with its reason.
fn worded(error: phoenix_report::Refusal, len: usize) -> Refusal {
    let phoenix_report::Refusal { field, value, allowed } = error;
    let reason = match field.as_str() {
        "schema" => Reason::Version,
        "time_unix_nano" => Reason::Future,
        "report" if len > phoenix_report::read::BYTES_MAX || value.ends_with(" parts") => Reason::TooLarge,
        _ => Reason::Malformed,
    };
    Refusal { reason, field, value, allowed }
}
