//! Reports of embedders: many of them as one view of a fleet.
//!
//! Enters: bytes of `wit/report.proto`, one message a worker and interval, in any order and any number of times. Leaves: a [`view::View`] of tenants, metrics,
//! labels and decisions, in which every number says whether it is an estimate or an upper bound. Nothing here reads a clock or the network: `phoenix report` and
//! `phoenix top` bring both. In the order of the flow:

/// The types of the format.
pub mod wire;

/// Bytes to a report that keeps to its bounds, or a refusal in words.
pub mod read;

/// The newest report of every worker.
pub mod fleet;

/// Numbers, sketches and examples of several parts as one.
pub mod merge;

/// The fleet as one: what tables and JSON are made of.
pub mod view;

pub use fleet::{Added, Fleet};
pub use read::{Refusal, read};
pub use wire::Report;
