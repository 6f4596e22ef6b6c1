//! The demo: a web shop, a real Envoy with the module, an exact sink, and a verdict.
//!
//! In: [`Options`]. Out: a table, `summary.json` and an exit status that is 0 only if every total is conserved and the folded metrics
//! shrank as the plan says, and the leak of a label was contained and forgotten. The order: sink, Envoy, warm-up, traffic with the leak in it, the time a
//! window needs to close, verdict.

/// A label leaks into a counter, and budgets contain it.
pub mod explosion;
/// Truth against books: one row per metric.
pub mod judge;
/// Numbers for people.
pub mod numbers;
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

/// Sends the traffic of a synthetic web shop through a real Envoy with the module into an exact sink, and judges every total.
#[derive(Clone, Debug, Parser)]
#[command(name = "phoenix-demo", version)]
pub struct Options {
    /// How long traffic flows, seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub seconds: u64,
    /// Worker threads of Envoy.
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
    /// New streams when `user_id` leaks into a counter; 0: it does not. A run without time to restore raw series has no leak either.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub leak: u64,
    /// Where the module posts its reports: `phoenix top` listens there, if anybody does.
    #[arg(long, default_value = "127.0.0.1:4320")]
    pub reports: SocketAddr,
    /// Where the numbers go.
    #[arg(long, default_value = "target/phoenix/demo/summary.json")]
    pub json: PathBuf,
    /// The module.
    #[arg(long, default_value = "target/phoenix/phoenix_envoy.wasm")]
    pub module: PathBuf,
    /// The command line `phoenix`, for the proof and to watch with; left out: the one beside this program.
    #[arg(long, default_value_os_t = beside("phoenix"))]
    pub phoenix: PathBuf,
}

/// A program in the folder of this one.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}

#[cfg(test)]
mod tests;
