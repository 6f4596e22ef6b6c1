//! Hosts to test the module in.

/// A deterministic proxy-wasm host with Envoy's semantics.
#[cfg(feature = "embedders")]
pub mod proxy_host;

/// Golden cases: one folder each, run on every embedder.
#[cfg(feature = "embedders")]
pub mod cases;
/// The demo: shop, Envoy, sink, verdict.
pub mod demo;
/// A real Envoy with the shipped configuration.
pub mod envoy;
/// Are the folded answers the true answers?
pub mod fidelity;
/// What was found, and how much it may be: a line of every proof.
pub mod figure;
/// A real Prometheus under a proof.
pub mod prometheus;
/// The fold of sums in plain code: the oracle of queries.
pub mod reference;
/// What a restart of Envoy costs, measured.
pub mod restart;
/// The synthetic web shop: OTLP traffic whose truth is known exactly.
pub mod shop;
/// An exact, counting OTLP sink: the judge of every end-to-end test.
pub mod sink;
