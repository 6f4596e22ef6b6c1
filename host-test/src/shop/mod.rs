//! The synthetic web shop: OTLP traffic whose truth is known exactly.
//!
//! In: a [`ShopConfig`] (seed, size, cadence) and an address. Out: a few thousand streams of every OTLP kind from pods that come,
//! go and restart, over every OTLP transport, and the [`Truth`] of what was *acknowledged*. Why generated: a recorded load has no truth; here
//! each increment is known when it is drawn. The content is a function of the seed; only the clock decides what falls into which export.

/// What the shop consists of: services, routes, metrics.
pub mod catalogue;
/// One OTLP exporter: transports, retries, reconnects.
pub mod client;
/// The instruments of a process and the OTLP points they export.
pub mod instruments;
/// A service whose counter gets a label too many.
pub mod leak;
/// Histograms and summaries of a process.
pub mod measured;
/// OTLP messages from plain values.
pub mod otlp;
/// One process: identity, instruments, unacknowledged increments.
pub mod pod;
/// Runs the pods against an address in real time.
pub mod run;
/// When pods live: rolling deploys and restarts.
pub mod schedule;
/// What was acknowledged, exactly.
pub mod truth;

pub use client::Protocol;
pub use run::{Progress, Shop};
pub use truth::Truth;

use std::time::Duration;

/// The shop's size and cadence.
#[derive(Clone, Debug)]
pub struct ShopConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// Pods of each of the eight services.
    pub replicas: u32,
    /// How long traffic flows.
    pub length: Duration,
    /// Export interval of each pod; pods are spread over it.
    pub interval: Duration,
    /// A pod is replaced by a new one this often (a rolling deploy); zero is never.
    pub replace_every: Duration,
    /// A process restarts in its pod this often; zero is never.
    pub restart_every: Duration,
    /// Requests on a connection before it is closed; zero is no limit.
    pub requests_per_connection: u32,
    /// Every so many attempts the exporter hangs up a few milliseconds after it began, and then sends the same again; zero is never.
    pub hang_up_every: u64,
    /// Transports, dealt out in turn.
    pub protocols: Vec<Protocol>,
    /// The tenant's header value; empty sends none.
    pub tenant: String,
}

impl Default for ShopConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            replicas: 5,
            length: Duration::from_secs(60),
            interval: Duration::from_secs(5),
            replace_every: Duration::from_secs(4),
            restart_every: Duration::from_secs(7),
            requests_per_connection: 0,
            hang_up_every: 0,
            protocols: Protocol::ALL.to_vec(),
            tenant: "shop".to_owned(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
