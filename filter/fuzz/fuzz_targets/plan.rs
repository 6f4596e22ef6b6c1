//! Fuzz target: the plan's reader. The body is `filter/fuzz/src/plan.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phoenix_fuzz::plan::run(data));
