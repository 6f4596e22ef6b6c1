//! Hosts to test the module in.

/// A deterministic proxy-wasm host with Envoy's semantics.
pub mod proxy_host;

/// An exact, counting OTLP sink: the judge of every end-to-end test.
pub mod sink;
/// The synthetic web shop: OTLP traffic whose truth is known exactly.
pub mod shop;
/// A real Envoy with the shipped configuration.
pub mod envoy;
/// The demo: shop, Envoy, sink, verdict.
pub mod demo;
/// The fold of sums in plain code: the oracle of queries.
pub mod reference;
/// Golden cases: one folder each, run on every embedder.
pub mod cases;
