//! Who folds a shard: one worker of the process, claimed through shared data (compare-and-swap).
//!
//! The first worker that serves a request claims; the main thread's VMs never do, since they never serve one. The owner writes
//! a heartbeat; a worker that finds it old takes the shard over in a new epoch. All reads and writes happen on a worker's first
//! request and on ticks, never per request: shared data is one mutex for the whole process.

use crate::host;
use crate::names;
use phoenix_filter::shared::If;

/// How often the owner writes a heartbeat, and the others look at it.
pub const HEARTBEAT_EVERY_NS: u64 = 1_000_000_000;
/// An owner whose heartbeat was the same at so many looks in a row is gone: ten seconds, in which a worker that is merely busy
/// with a 64 MiB body is back long before. Looks are counted, not compared with the clock: a clock that is set forward must not
/// look like a dead owner.
pub const LOOKS_WITHOUT_HEARTBEAT: u32 = 10;

/// An entry of shared data: who owns a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Counts owners of the shard from 1.
    pub epoch: u64,
    /// Number of the owning worker.
    pub worker: u64,
    /// When it last said that it lives, by the embedder's clock.
    pub heartbeat_ns: u64,
}

impl Claim {
    fn to_bytes(self) -> [u8; 24] {
        let mut out = [0; 24];
        for (chunk, value) in out.chunks_exact_mut(8).zip([self.epoch, self.worker, self.heartbeat_ns]) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Claim> {
        let mut words = bytes.chunks_exact(8).map(word);
        Some(Claim { epoch: words.next()?, worker: words.next()?, heartbeat_ns: words.next()? })
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

/// What a look at a shard's claim found.
pub enum Look {
    /// This worker owns it now, and did not before.
    Won(Claim),
    /// Somebody owns it (perhaps this worker).
    Owned(Claim),
    /// Nobody owns it that this worker knows of: two wrote at once, or it was not to be claimed. Look again.
    Contended,
}

/// Remembers how long a heartbeat has been the same.
#[derive(Default)]
pub struct Watchman {
    last: Option<Claim>,
    looks: u32,
}

impl Watchman {
    /// Is the owner behind this claim gone?
    fn gone(&mut self, claim: Claim) -> bool {
        if self.last == Some(claim) {
            self.looks = self.looks.saturating_add(1);
        } else {
            (self.last, self.looks) = (Some(claim), 0);
        }
        self.looks >= LOOKS_WITHOUT_HEARTBEAT
    }
}

/// Read the claim of a shard; claim it when it is free or its owner is gone.
/// `may_claim` false: only look.
pub fn look(shard: usize, worker: u64, watchman: &mut Watchman, may_claim: bool, now_ns: u64) -> Look {
    let key = names::owner(shard);
    let (epoch, condition) = match host::shared(&key) {
        None => (1, If::Absent),
        Some((bytes, cas)) => match Claim::from_bytes(&bytes) {
            Some(claim) if !watchman.gone(claim) => return Look::Owned(claim),
            Some(claim) => (claim.epoch.saturating_add(1), If::Unchanged(cas)),
            None => (1, If::Unchanged(cas)),
        },
    };
    if !may_claim {
        return Look::Contended;
    }
    let claim = Claim { epoch, worker, heartbeat_ns: now_ns };
    if host::set_shared(&key, &claim.to_bytes(), condition) { Look::Won(claim) } else { Look::Contended }
}

/// Write a heartbeat. False when somebody else owns the shard by now.
pub fn heartbeat(shard: usize, mine: &Claim, now_ns: u64) -> bool {
    let key = names::owner(shard);
    let Some((bytes, cas)) = host::shared(&key) else { return false };
    match Claim::from_bytes(&bytes) {
        Some(claim) if (claim.epoch, claim.worker) == (mine.epoch, mine.worker) => {
            let claim = Claim { heartbeat_ns: now_ns, ..claim };
            host::set_shared(&key, &claim.to_bytes(), If::Unchanged(cas))
        }
        _ => false,
    }
}

/// A number for this worker that no other has.
pub fn number_worker() -> Option<u64> {
    let key = names::workers();
    // A compare-and-swap fails only because another worker got through; there are at most a few dozen.
    for _ in 0..256 {
        let Some((bytes, cas)) = host::shared(&key) else {
            host::set_shared(&key, &0u64.to_le_bytes(), If::Absent);
            continue;
        };
        let number = word(&bytes).saturating_add(1);
        if host::set_shared(&key, &number.to_le_bytes(), If::Unchanged(cas)) {
            return Some(number);
        }
    }
    None
}

/// Numbers given so far.
pub fn workers() -> u64 {
    host::shared(&names::workers()).map_or(0, |(bytes, _)| word(&bytes))
}

/// What the first worker of the process to serve a request wrote down.
#[derive(Clone, Copy)]
pub struct Process {
    /// When.
    pub began_ns: u64,
    /// Number of shards.
    pub shards: u32,
}

/// The process's entry, if anybody has served a request. Reading has no effect, so a canary may ask.
pub fn process() -> Option<Process> {
    let (bytes, _) = host::shared(&names::process())?;
    let (began, shards) = bytes.split_first_chunk::<8>()?;
    let shards = shards.first_chunk::<4>()?;
    Some(Process { began_ns: u64::from_le_bytes(*began), shards: u32::from_le_bytes(*shards) })
}

/// Make the process's entry if it is not there, and return it.
pub fn begin_process(began_ns: u64, shards: u32) -> Process {
    let mut value = Vec::from(began_ns.to_le_bytes());
    value.extend_from_slice(&shards.to_le_bytes());
    host::set_shared(&names::process(), &value, If::Absent);
    process().unwrap_or(Process { began_ns, shards })
}

/// Tell the workers how many bytes of each have been consumed: pairs of worker and bytes.
/// And whether the owner's table of streams is full.
pub fn publish_credit(shard: usize, epoch: u64, full: bool, consumed: impl Iterator<Item = (u64, u64)>) {
    let mut value = Vec::from(epoch.to_le_bytes());
    value.extend_from_slice(&u64::from(full).to_le_bytes());
    for (worker, bytes) in consumed {
        value.extend_from_slice(&worker.to_le_bytes());
        value.extend_from_slice(&bytes.to_le_bytes());
    }
    host::set_shared(&names::credit(shard), &value, If::Always);
}

/// What an owner says to a worker.
#[derive(Clone, Copy, Default)]
pub struct Credit {
    /// Bytes of the worker's messages that it has consumed in this epoch.
    pub consumed: u64,
    /// Its table of streams is full.
    pub full: bool,
}

/// What the owner of a shard said last to this worker.
pub fn credit(shard: usize, epoch: u64, worker: u64) -> Credit {
    let Some((bytes, _)) = host::shared(&names::credit(shard)) else { return Credit::default() };
    let Some((head, pairs)) = bytes.split_at_checked(16) else { return Credit::default() };
    if word(head) != epoch {
        return Credit::default();
    }
    let full = head.get(8..).map_or(0, word) != 0;
    let mut pairs = pairs.chunks_exact(16).map(|p| (word(p), p.get(8..).map_or(0, word)));
    Credit { consumed: pairs.find(|(w, _)| *w == worker).map_or(0, |(_, bytes)| bytes), full }
}
