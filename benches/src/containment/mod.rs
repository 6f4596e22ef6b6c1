//! `bench containment`: does a budget hold while labels explode, and what does it cost those who did nothing?
//!
//! In: scenarios, each a function of kind, seed, share and size ([`scenario`]). Each goes through a [`process::Process`] and past the [`judge`], which reads what
//! went in and what came out by `prost` and shares no code with the engine. Out: a row for each scenario and process, and figures with their targets.
//! Beside the engine stand exact models of what others ship ([`baseline`]), so that a reader sees who loses totals. Refuses nothing by itself.

/// Points of OTLP as exact quantities under canonical keys: for judge and baselines.
pub mod otlp;

/// Label values that an enemy would choose.
pub mod hostile;
/// The streams of a scenario: who lives when, and what each counts.
pub mod population;
/// What is sent: kinds, sizes, epochs, batches.
pub mod scenario;

/// What is judged, and the process that does nothing.
pub mod process;

/// What others ship, modelled exactly.
pub mod baseline;

/// What came in against what came out.
pub mod judge;
/// What the judge found, and what it may be.
pub mod verdict;

/// The plan of a scenario.
pub mod plan;

/// The engine in this process.
#[cfg(feature = "timing")]
pub mod native;
/// The built module under the test host.
#[cfg(feature = "timing")]
pub mod wasmtime;

/// One scenario through one process; many of them on all cores.
pub mod run;
/// Rows and figures.
#[cfg(feature = "timing")]
pub mod table;
