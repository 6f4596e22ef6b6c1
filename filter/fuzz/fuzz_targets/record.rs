//! Fuzz target: messages of records, into an owner. The body is `filter/fuzz/src/record.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phoenix_fuzz::record::run(data));
