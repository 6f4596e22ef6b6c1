//! What the tests on a real Envoy share: a stage with sink and Envoy, requests made by hand, and the books that must balance.
//!
//! In: a plugin configuration and what to change in the shipped `gateway.yaml`. Out: a [`Stage`] that knows what was acknowledged and can say whether
//! every total is there. Nothing here waits for a fixed time where it can wait for a fact; a busy machine is slow, not wrong.
//! Fails with one line where there is no Envoy or no module: these tests never pass by not running.
#![allow(dead_code, reason = "each test binary uses a part of it")]

/// Requests made by hand: pieces, framing, trailers, hanging up.
pub mod call;
/// Counters of many streams over many connections.
pub mod crowd;
/// OTLP bodies with a known total.
pub mod otlp;
/// Plugin configurations with short windows.
pub mod plan;
/// Sink and Envoy on a stage.
pub mod stage;
