//! A real Prometheus, as a proof needs it.
//!
//! In: [`Options`]. Out: a running process with its own empty storage that takes OTLP and answers queries. Why no scraping: what it holds is only what
//! it was sent, so that two of them can be compared. Refuses to start without a binary, and shows Prometheus' own log when it fails.

/// Answers of the query API as plain values.
pub mod answer;
/// One request over HTTP/1.1.
pub mod http1;
/// The process: start, ask, kill.
pub mod process;

pub use answer::Series;
pub use process::{Options, Prometheus};

/// The path of OTLP metrics.
pub const OTLP_PATH: &str = "/api/v1/otlp/v1/metrics";

#[cfg(test)]
mod tests;
