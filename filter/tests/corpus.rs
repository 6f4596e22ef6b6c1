//! The kept corpus of the fuzz targets, replayed by the stable compiler: every file through the body of its target.
//!
//! In: `filter/fuzz/corpus/<target>/`. A file that breaks a target once is kept there, so this is where a mended defect stays
//! mended. Not proven here: anything the fuzzer has not found yet; `cargo xtask fuzz` looks further.

#[allow(dead_code, missing_docs, reason = "the fuzz crate's library, included as it stands")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

/// Kept files are small: a corpus is read on every test run.
const CORPUS_BYTES_MAX: usize = 1 << 20;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("no corpus in {}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "an empty corpus shows nothing");
    let mut all_bytes = 0;
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        all_bytes += bytes.len();
        let shown = file.display().to_string();
        if let Err(panic) = std::panic::catch_unwind(|| run(&bytes)) {
            eprintln!("corpus file: {shown}");
            std::panic::resume_unwind(panic);
        }
    }
    assert!(all_bytes < CORPUS_BYTES_MAX, "{target}: {all_bytes} bytes kept");
}

#[test]
fn corpus_of_body() {
    replay("body", targets::body::run);
}

#[test]
fn corpus_of_decode() {
    replay("decode", targets::decode::run);
}

#[test]
fn corpus_of_flow() {
    replay("flow", targets::flow::run);
}

#[test]
fn corpus_of_plan() {
    replay("plan", targets::plan::run);
}

#[test]
fn corpus_of_record() {
    replay("record", targets::record::run);
}
