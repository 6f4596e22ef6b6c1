//! Fuzz target: the whole engine under a script of batches, answers, plans and time. The body is `filter/fuzz/src/flow.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phoenix_fuzz::flow::run(data));
