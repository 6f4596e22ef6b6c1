//! Laws of the fold, held against an exact oracle through the public API.
//!
//! In: random scripts of senders, shrunk by proptest to the least that fails; a failure prints its script, which is all that is
//! needed to see it again. The oracle (`oracle/`) shares no code with the engine. Not proven here: limits of tables (`table_model`),
//! decoding (`decode_oracle`), real embedders (`host-test`).

#[path = "properties/batches.rs"]
mod batches;
#[path = "properties/engine.rs"]
mod engine;
mod oracle;
#[path = "properties/passing.rs"]
mod passing;
#[path = "properties/plans.rs"]
mod plans;
#[path = "properties/scripts.rs"]
mod scripts;
#[path = "properties/totals.rs"]
mod totals;
#[path = "properties/wire.rs"]
mod wire;
