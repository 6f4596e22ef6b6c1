//! `cargo xtask bench control`: the control host at its size.
//!
//! In: how many embedders, how many seeds. Out: memory, CPU time and bytes of a fleet's reports and plans; what a running control host spends; how long it takes from
//! a decision to enforcement on a real Envoy; how many runs of the simulation hold. In the order of the output:

/// Collect, estimate and decide in this process, on one core.
pub mod fleet;
/// Reports as a large fleet sends them.
pub mod reports;
/// The running control host: memory, turns, and a real Envoy.
pub mod served;
/// Seeds and scenarios of the simulation.
pub mod simulation;
