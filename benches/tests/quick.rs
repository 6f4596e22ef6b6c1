//! The benches run and write what they promise. No time is asserted: on a shared machine that would prove nothing.
//!
//! Needs the modules, and Envoy (`$PHOENIX_WASM_DIR`, `$PHOENIX_ENVOY`), as `cargo xtask test` gives them; the rival also vmagent (`$PHOENIX_VMAGENT`),
//! without which it is listed as ignored.

use libtest_mimic::{Arguments, Trial};
use phoenix_benches::figures::Figures;
use phoenix_benches::{engine, envoy, rival, sketch};
use serde_json::Value;

fn main() {
    let arguments = Arguments::from_args();
    let has_rival = match rival::find_binary() {
        Ok(there) => there.is_some(),
        Err(error) => panic!("{error:#}"),
    };
    if !has_rival && !arguments.list {
        println!("the bench against vmagent is skipped: {}", rival::NO_VMAGENT);
    }
    let trial = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let trials = vec![
        trial("engine_bench_runs", engine_bench_runs),
        trial("envoy_bench_runs", envoy_bench_runs),
        trial("sketch_bench_runs", sketch_bench_runs),
        trial("control_bench_runs", control_bench_runs),
        trial("rival_bench_runs", rival_bench_runs).with_ignored_flag(!has_rival),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

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

fn envoy_bench_runs() {
    let outcome = envoy::run(&envoy::Options::quick()).expect("it runs");
    let expected = [
        "alone.cpu",
        "pass.by_alone",
        "fold70.by_alone",
        "fold70.resident",
        "workers.fold70.two_by_one.wall",
        "workers.fold70.two_by_one.cpu",
        "workers.alone.1.wall",
    ];
    check(&outcome.figures, "envoy", &expected);
    assert!(outcome.figures.value("memory.envoy.stream").is_some());
}

/// Errors do not depend on time: with few seeds they are near what they are with many.
/// But for the part that needs `phoenix` beside it.
#[cfg(feature = "control")]
fn control_bench_runs() {
    use phoenix_benches::control::{fleet, simulation};
    use phoenix_control::simulate::Scenario;
    let mut figures = Figures::default();
    for workers in [1, 2] {
        let outcome = fleet::run(6, 40, workers, &mut figures).expect("it runs");
        assert_eq!(outcome.refusals, Vec::<String>::new());
    }
    let told = std::sync::Mutex::new(Vec::new());
    let progress = |what: &str| told.lock().expect("not poisoned").push(what.to_owned());
    let outcome =
        simulation::run("seeds", &[Scenario::Explosion, Scenario::Steady], 1..2, 2, &mut figures, progress);
    assert_eq!(outcome.expect("it runs").failures, Vec::<String>::new());
    assert_eq!(told.into_inner().expect("not poisoned").len(), 2, "a run each");
    let expected = [
        "fleet.workers1.collect",
        "fleet.workers2.interval",
        "fleet.workers1.memory",
        "fleet.workers1.report.median",
        "fleet.workers1.plan.max",
        "fleet.workers1.ecds.median",
        "seeds.hold",
        "seeds.explosion.cpu",
    ];
    check(&figures, "control", &expected);
    assert_eq!(figures.value("fleet.workers2.refused"), Some(0.0));
    assert!(figures.value("fleet.workers1.plan.max") < figures.value("fleet.workers1.ecds.max"));
}

#[cfg(not(feature = "control"))]
fn control_bench_runs() {}

fn sketch_bench_runs() {
    let outcome = sketch::run(&sketch::Options::quick());
    check(
        &outcome.figures,
        "sketch",
        &["error.10000.rse", "error.128.rse", "insert.dense", "estimate.dense"],
    );
    for (figure, most) in [("error.100.rse", 0.0), ("error.127.bias", 0.0), ("error.10000.rse", 4.0)] {
        let value = outcome.figures.value(figure).expect(figure);
        assert!(value <= most, "{figure} is {value}");
    }
}

/// Its cases are about totals and not about time: those of steady streams are right on both sides or the bench is wrong. As Prometheus reads it, vmagent's
/// first flush depends on the moment, so that reading is not asserted.
fn rival_bench_runs() {
    let outcome = rival::run(&rival::Options::quick()).expect("it runs");
    let expected = [
        "speed.fold100.phoenix_by_vmagent",
        "speed.fold70.vmagent.cpu",
        "memory.shared.phoenix.after",
        "memory.churn.vmagent.after",
        "cases.steady.phoenix.right",
        "cases.reset.phoenix.right",
        "cases.joins.phoenix.right",
        "cases.delta.vmagent.total.right",
    ];
    check(&outcome.figures, "rival", &expected);
    assert!(outcome.figures.value("memory.churn.phoenix_by_vmagent").is_some());
    for output in ["total", "total_prometheus"] {
        let says = outcome.figures.value(&format!("cases.steady.vmagent.{output}.from_zero"));
        assert_eq!(says, outcome.figures.value("cases.steady.truth"), "{output}");
    }
}
