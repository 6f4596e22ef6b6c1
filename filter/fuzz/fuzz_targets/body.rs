//! Fuzz target: a request's body: framing, gzip, scan, edits. The body is `filter/fuzz/src/body.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phoenix_fuzz::body::run(data));
