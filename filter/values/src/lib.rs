//! Do the values that guest and native share come out on wasm32 as they do natively?
//!
//! In: a call. Out: 1 where they do. `host-test/tests/values.rs` calls it. Why a module of its own: a test of the engine does not
//! build for wasm32, and nothing of it should be in the modules that are shipped. Imports nothing.

/// Whether this build makes the golden identities.
#[unsafe(no_mangle)]
pub extern "C" fn identities() -> u32 {
    u32::from(phoenix_filter::hash::self_check())
}

/// Whether this build makes the golden sketches.
#[unsafe(no_mangle)]
pub extern "C" fn sketches() -> u32 {
    u32::from(phoenix_filter::sketch::self_check())
}
