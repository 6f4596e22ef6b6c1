//! A real Envoy, as a test or the demo needs it.
//!
//! In: the shipped configuration, the module, a plugin configuration, the backend's address. Out: a running process with its stats, its
//! CPU time and ways to push, drain, stop and kill it. Why the shipped files: what users run is what is tested; only the
//! ports and paths that they document are replaced. Refuses to start without a binary, and shows Envoy's own log when it fails.

/// The admin port: readiness, stats, drain.
pub mod admin;
/// The shipped configurations with other ports and paths.
pub mod config;
/// The process: start, stop, kill, CPU time, memory.
pub mod process;

pub use process::{Envoy, EnvoyOptions, Usage};

#[cfg(test)]
mod tests;
