//! The demo: a web shop, two real Envoys with the module, a control host, an exact sink, and a verdict.
//!
//! In: [`Options`]. Out: a table, `summary.json` and an exit status that is 0 only if every total is conserved and the folded metrics
//! shrank as the policy says, the leak of a label was contained, decided on and forgotten, and nothing was enforced before the policy said so. The order: sink, control host, Envoys,
//! warm-up, traffic that is observed for a third and has the leak in it, the time a window needs to close, verdict.

/// The control host itself, as a process.
pub mod control;
/// What it decided, and who did it.
pub mod decisions;
/// A label leaks into a counter, budgets contain it, and a rule folds it.
pub mod explosion;
/// Two Envoys.
pub mod gateways;
/// Truth against books: one row per metric.
pub mod judge;
/// Numbers for people.
pub mod numbers;
/// What people want.
pub mod policy;
/// The live line.
pub mod progress;
/// The same dashboard on full and on folded data.
pub mod proof;
/// Where the module's reports go.
pub mod reports;
/// From the first port to the verdict.
pub mod stage;
/// The same numbers for machines.
pub mod summary;
/// The table.
pub mod table;

use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Sends the traffic of a synthetic web shop through two real Envoys, driven by a control host, into an exact sink, and judges every total and decision.
#[derive(Clone, Debug, Parser)]
#[command(name = "phoenix-demo", version)]
pub struct Options {
    /// How long traffic flows, seconds.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub seconds: u64,
    /// Worker threads of each Envoy.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// Seed of the traffic.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Pods of each of the eight services.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub replicas: u32,
    /// Requests on a connection before the client closes it; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    pub requests_per_connection: u32,
    /// New streams when `user_id` leaks into a counter; 0: it does not. A run without time to decide about it has no leak either.
    #[arg(long, default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub leak: u64,
    /// Where a copy of the module's reports goes: `phoenix top` listens there, if anybody does.
    #[arg(long, default_value = "127.0.0.1:4320")]
    pub reports: SocketAddr,
    /// Where the numbers go.
    #[arg(long, default_value = "target/phoenix/demo/summary.json")]
    pub json: PathBuf,
    /// The module.
    #[arg(long, default_value = "target/phoenix/phoenix_envoy.wasm")]
    pub module: PathBuf,
    /// The command line `phoenix`, for the control host, the proof and to watch with; left out: the one beside this program.
    #[arg(long, default_value_os_t = beside("phoenix"))]
    pub phoenix: PathBuf,
}

/// A program in the folder of this one.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}

#[cfg(test)]
mod tests;
