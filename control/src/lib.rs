//! The control host and the command line `phoenix`.
//!
//! The slow loop, in the order of its data flow ([docs/control.md](../../docs/control.md)): reports come in (`collect`), become numbers of the fleet
//! (`estimate`), and with what queries need (`needs`) and what people want (`policy`) a plan for each embedder (`decide`). These stages are pure: no
//! clock, no I/O; whoever serves them brings both. `simulate` runs all of them with the real engine in virtual time.
//! Everything else are commands that stand alone.
#![deny(clippy::print_stdout, reason = "say! ends quietly where nobody reads any more")]

// First, for its macros.
#[macro_use]
mod say;

/// Reports in: one in force a worker, bounded, refused with a reason.
pub mod collect;
/// Numbers, needs and policy to plans, and why.
pub mod decide;
/// Reports to numbers of the fleet: series, churn, overlap, cost.
pub mod estimate;
/// What declared queries need of which label.
pub mod needs;
/// What people want: YAML to a checked policy.
pub mod policy;
/// The whole loop in virtual time.
pub mod simulate;

mod ask;
mod capture;
mod command_line;
mod control;
mod explain;
mod folder;
mod generate;
mod notes;
mod otlp;
mod plan_commands;
mod policy_commands;
mod replay;
mod report;
mod report_body;
mod show;
mod top;
mod verify;

pub use command_line::run;
