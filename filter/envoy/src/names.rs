//! Names in shared data and of shared queues, all in one place.
//!
//! Shared data outlives a VM: a new module under the same `vm_id` finds what the old one wrote. So every name carries the schema of
//! what is shared and the build of the module; two builds never read each other.

use phoenix_filter::record::VERSION;

/// Build of this module: package version and a hash of the sources, from `build.rs`.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("PHOENIX_SOURCES"));

fn name(what: &str) -> String {
    format!("phoenix/{VERSION}/{BUILD}/{what}")
}

/// Who owns a shard: see [`crate::ownership::Claim`].
pub fn owner(shard: usize) -> String {
    name(&format!("owner/{shard}"))
}

/// How much of each worker's messages the owner of a shard has consumed.
pub fn credit(shard: usize) -> String {
    name(&format!("credit/{shard}"))
}

/// The queue of a shard in one epoch of its ownership.
pub fn queue(shard: usize, epoch: u64) -> String {
    name(&format!("queue/{shard}/{epoch}"))
}

/// A sample of the streams of a shard.
pub fn sample(shard: usize) -> String {
    name(&format!("sample/{shard}"))
}

/// What this process says about its streams.
pub fn report() -> String {
    name("report")
}

/// Since when cumulative sums may fold.
pub fn affinity() -> String {
    name("affinity")
}

/// Numbers given to workers so far.
pub fn workers() -> String {
    name("workers")
}

/// When this process began to fold, and with how many shards.
pub fn process() -> String {
    name("process")
}

/// What budgets share: the engine's own name for it.
pub fn budgets(key: &str) -> String {
    name(&format!("budgets/{key}"))
}
