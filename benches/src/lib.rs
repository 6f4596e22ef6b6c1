//! Benches that print ratios measured in one run.
//!
//! In: synthetic OTLP traffic. Out: a table for people and `target/phoenix/bench/NAME.json` for programs. On a shared machine a
//! bare number says little, so everything that is compared runs interleaved in one process on the same bytes, in CPU time,
//! and ratios are formed round by round. `docs/benchmarks.md` says how each number is made. Modules in the order of use:

/// What a bench found: figures, their targets, the table and the file.
pub mod figures;
/// CPU time, and medians of it.
#[cfg(feature = "sketch")]
pub mod measure;
/// The traffic: streams that come again, and new ones.
#[cfg(feature = "timing")]
pub mod traffic;

/// The engine as it runs in this process, and `prost` beside it.
#[cfg(feature = "timing")]
pub mod native;
/// The engine as a component in wasmtime.
#[cfg(feature = "timing")]
pub mod wasm;

/// A real Envoy as a bench needs it.
#[cfg(feature = "timing")]
pub mod gateway;
/// What a stream costs in resident memory.
#[cfg(feature = "timing")]
pub mod growth;
/// A client as cheap as one can be.
#[cfg(feature = "timing")]
pub mod sender;
/// A backend that throws bodies away.
#[cfg(feature = "timing")]
pub mod upstream;

/// Memory under churn, a part of `bench engine`.
#[cfg(feature = "timing")]
pub mod churn;
/// `bench containment`.
pub mod containment;
/// `bench control`.
#[cfg(feature = "control")]
pub mod control;
/// `bench engine`.
#[cfg(feature = "timing")]
pub mod engine;
/// `bench envoy`.
#[cfg(feature = "timing")]
pub mod envoy;
/// `bench fidelity`.
pub mod fidelity;
/// `bench rival`.
#[cfg(feature = "timing")]
pub mod rival;
/// `bench sketch`.
#[cfg(feature = "sketch")]
pub mod sketch;
/// `bench envoy`: what a second worker brings.
#[cfg(feature = "timing")]
pub mod workers;
