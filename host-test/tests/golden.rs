//! Every folder of `cases/` on every embedder: `<case>::native`, `<case>::module`, `<case>::component`, `<case>::envoy`.
//!
//! The native engine is compared with `expected.txt`; the module under the test host, the component in wasmtime and real Envoy with the native engine, byte for byte. `cargo test trap_05` runs one
//! case; `UPDATE_EXPECT=1` rewrites expected files. Without an Envoy (`$PHOENIX_ENVOY` or `PATH`) the last fails and says how to get one.

use libtest_mimic::{Arguments, Failed, Trial};
use phoenix_host_test::cases::{Case, Outcome, all, check, component, envoy, module, native};

fn main() {
    let arguments = Arguments::from_args();
    let names: Vec<String> = match all() {
        Ok(cases) => cases.into_iter().map(|case| case.name).collect(),
        Err(error) => panic!("{error:#}"),
    };
    let mut trials = Vec::new();
    for name in names {
        let trial = |kind: &str, run: fn(&Case) -> anyhow::Result<()>| {
            let case = name.clone();
            Trial::test(format!("{name}::{kind}"), move || {
                Case::named(&case)
                    .and_then(|case| run(&case))
                    .map_err(|error| Failed::from(format!("{error:#}")))
            })
        };
        trials.push(trial("native", on_native));
        trials.push(trial("module", on_module));
        trials.push(trial("component", on_component));
        trials.push(trial("envoy", on_envoy));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn on_native(case: &Case) -> anyhow::Result<()> {
    check(case, &native::run(case)?)
}

fn on_module(case: &Case) -> anyhow::Result<()> {
    same(&native::run(case)?, &module::run(case)?)
}

fn on_component(case: &Case) -> anyhow::Result<()> {
    same(&component::told(native::run(case)?), &component::run(case)?)
}

fn on_envoy(case: &Case) -> anyhow::Result<()> {
    let expected = native::run(case)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    same(&expected, &runtime.block_on(envoy::run(case, &expected))?)
}

fn same(expected: &Outcome, got: &Outcome) -> anyhow::Result<()> {
    match expected.difference(got) {
        None => Ok(()),
        Some(text) => anyhow::bail!("{text}"),
    }
}
