//! The engine behind the judge of `bench containment`, with a fold that was declared: the judge's totals and the engine's are made by different code, and must be equal.
//!
//! The module under the test host needs `$PHOENIX_WASM_DIR`, as `cargo xtask test` gives it.

use phoenix_benches::containment::native::Native;
use phoenix_benches::containment::plan::{bare, fold, plan};
use phoenix_benches::containment::process::{PassThrough, Process};
use phoenix_benches::containment::run::run;
use phoenix_benches::containment::scenario::{Kind, Scenario, Size};
use phoenix_benches::containment::verdict::Verdict;
use phoenix_benches::containment::wasmtime::Wasmtime;
use serde_json::{Value, json};

/// Sums, deltas, histograms, gauges.
const SEEDS: [u64; 4] = [1, 5, 6, 7];

fn scenario(kind: Kind, seed: u64) -> Scenario {
    Scenario { kind, seed, share: 100, size: Size::Reduced }
}

/// A plan that folds the guilty label from the beginning.
fn folding() -> Value {
    let mut plan = bare();
    let labels = json!({"drop": {"attributes": ["user.id", "session.id"], "resource": ["k8s.pod.name"]}});
    plan["rules"] = json!([{
        "name": "all",
        "metric": {"glob": "http.*"},
        "pipeline": "optimized",
        "fold": fold(labels)
    }]);
    plan
}

/// Everything is folded, nothing is lost, and nobody's labels are in the way.
fn check(process: impl Fn(&Value) -> Box<dyn Process>, seeds: &[u64]) {
    for kind in Kind::ALL {
        for seed in seeds {
            let scenario = scenario(kind, *seed);
            let verdict: Verdict = run(&scenario, process(&folding()).as_mut()).expect("it runs");
            let name = format!("{} {:?}: {:?}", kind.name(), scenario.form(), verdict.errors);
            assert_eq!((verdict.total_error, verdict.other_error, verdict.foreign), (0, 0, 0), "{name}");
            assert_eq!((verdict.over, verdict.splits, verdict.flaps), (0.0, 0, 0), "{name}");
            assert!(verdict.cut > 500 && verdict.out_most < 100, "{name}");

            let same = run(&scenario, process(&bare()).as_mut()).expect("it runs");
            let plain = run(&scenario, &mut PassThrough).expect("it runs");
            assert_eq!(format!("{same:?}"), format!("{plain:?}"), "{name}: without rules nothing happens");
        }
    }
}

#[test]
fn what_the_engine_folds_is_what_the_judge_counts() {
    check(|plan| Box::new(Native::start(plan).expect("a plan")), &SEEDS);
}

#[test]
fn what_the_module_folds_is_what_the_judge_counts() {
    check(|plan| Box::new(Wasmtime::start(plan).expect("cargo xtask build")), &SEEDS[..2]);
}

/// With budgets, whoever was there keeps every point, totals are true, and all workers decide alike; how many series there are beyond the share is for the bench to say.
#[test]
fn budgets_cost_the_innocent_nothing() {
    for kind in Kind::ALL {
        for seed in 0..8 {
            let scenario = scenario(kind, seed);
            let mut native = Native::start(&plan(&scenario)).expect("a plan");
            let verdict = run(&scenario, &mut native).expect("it runs");
            let mut missed = verdict.missed();
            missed.retain(|line| !line.starts_with("over:"));
            assert!(missed.is_empty(), "{} {seed}: {missed:?}", kind.name());
            assert!(verdict.cut > 0 && verdict.over < 0.1, "{} {seed}: {verdict:?}", kind.name());
            let restores = if kind == Kind::Diurnal { 2.. } else { 1.. };
            assert!(restores.contains(&verdict.changes), "{} {seed}: {verdict:?}", kind.name());
        }
    }
}
