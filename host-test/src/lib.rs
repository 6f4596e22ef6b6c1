//! Hosts to test the module in.

/// A deterministic proxy-wasm host with Envoy's semantics.
pub mod proxy_host;
