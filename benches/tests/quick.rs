//! The benches run and write what they promise. No time is asserted: on a shared machine that would prove nothing.
//!
//! Needs the modules, and Envoy (`$PHOENIX_WASM_DIR`, `$PHOENIX_ENVOY`), as `cargo xtask test` gives them.

use phoenix_benches::figures::Figures;
use phoenix_benches::{engine, envoy};
use serde_json::Value;

/// Writes, reads again: as many entries as figures, each with its five fields.
fn check(figures: &Figures, name: &str, expected: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = figures.write(folder.path(), name).expect("written");
    let text = std::fs::read_to_string(path).expect("read again");
    let list: Vec<Value> = serde_json::from_str(&text).expect("a list");
    assert_eq!(list.len(), figures.iter().count());
    for entry in &list {
        let fields: Vec<&str> = entry.as_object().expect("objects").keys().map(String::as_str).collect();
        assert_eq!(fields.len(), 5, "{entry}");
        assert!(["figure", "value", "unit", "target", "holds"].iter().all(|f| fields.contains(f)), "{entry}");
        assert!(entry["value"].is_number(), "{entry}");
        assert_eq!(entry["target"].is_null(), entry["holds"].is_null(), "{entry}");
    }
    for figure in expected {
        let value = figures.value(figure).unwrap_or_else(|| panic!("no {figure} in {text}"));
        assert!(value > 0.0, "{figure} is {value}");
    }
}

#[test]
fn engine_bench_runs() {
    let outcome = engine::run(&engine::Options::quick()).expect("it runs");
    let expected = [
        "repeating.native.pass",
        "shuffled.wasmtime.fold70",
        "shuffled.wasmtime_by_native.identify",
        "repeating.prost_by_wasmtime.fold100",
        "memory.wasmtime.stream",
        "memory.churn.points",
        "start.wasmtime",
        "size.phoenix_envoy.wasm",
    ];
    check(&outcome.figures, "engine", &expected);
}

#[test]
fn envoy_bench_runs() {
    let outcome = envoy::run(&envoy::Options::quick()).expect("it runs");
    check(&outcome.figures, "envoy", &["alone.cpu", "pass.by_alone", "fold70.by_alone", "fold70.resident"]);
}
