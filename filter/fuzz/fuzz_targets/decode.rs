//! Fuzz target: views over arbitrary bytes, with prost as the oracle. The body is `filter/fuzz/src/decode.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phoenix_fuzz::decode::run(data));
