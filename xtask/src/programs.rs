//! The project's own programs: `phoenix-demo` and the benches.
//!
//! In: a place and the arguments to pass on. Out: the program's exit status. Both get the modules and Envoy through the
//! environment (`PHOENIX_WASM_DIR`, `PHOENIX_ENVOY`), as the integration tests do, so that no program looks for them itself.
//! Refuses: nothing of its own; the programs know their arguments.

use crate::place::{BUILD_LIMIT, Place};
use crate::{envoy, modules, prometheus, vmagent};
use anyhow::Result;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

/// Limit of one run: the demo is meant to take a minute; the rest is room for all benches together.
const RUN_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Limit of a bench over a thousand seeds.
const SEEDS_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Gives a command the modules and Envoy, and Prometheus and vmagent where they are at hand: nothing waits for their build.
pub fn equip<'a>(place: &Place, envoy: &Path, command: &'a mut Command) -> &'a mut Command {
    command.envs(prometheus::at_hand(place).map(|program| ("PHOENIX_PROMETHEUS", program)));
    command.envs(vmagent::at_hand(place).map(|program| ("PHOENIX_VMAGENT", program)));
    command.env("PHOENIX_ENVOY", envoy).env("PHOENIX_WASM_DIR", &place.out)
}

/// Builds what the demo needs and runs it.
pub fn demo(place: &Place, arguments: &[String]) -> Result<ExitCode> {
    // The profile of the tests, so that one machine builds the dependencies once; without the engine and wasmtime, which the demo
    // must not and need not have.
    // `phoenix` shows the module's reports and asks the dashboard's questions; the demo looks for it beside itself.
    let build =
        ["-p", "phoenix-host-test", "--no-default-features", "-p", "phoenix-control", "--bin", "phoenix"];
    program(place, "phoenix-demo", "debug", &build, arguments)
}

/// Builds what the benches need and runs them.
pub fn bench(place: &Place, arguments: &[String]) -> Result<ExitCode> {
    if arguments.first().is_some_and(|name| name == "fidelity") {
        // It cannot do without, and measures no time, so that it is built as the demo is.
        prometheus::find(place)?;
        return program(
            place,
            "bench",
            "debug",
            &["-p", "phoenix-benches", "--no-default-features"],
            arguments,
        );
    }
    if arguments.first().is_some_and(|name| name == "rival") {
        // The bench says that it is skipped where there is none and no Go to build it with; a build that fails is a failure.
        if vmagent::can_be_had(place) {
            vmagent::find(place)?;
        }
    }
    if arguments.first().is_some_and(|name| name == "containment") {
        // It needs the modules and no Envoy.
        modules::build(place)?;
        let mut command =
            built(place, "bench", "release", &["-p", "phoenix-benches", "--release"], arguments)?;
        return Ok(code(place.status(command.env("PHOENIX_WASM_DIR", &place.out), SEEDS_LIMIT)?));
    }
    if arguments.first().is_some_and(|name| name == "sketch") {
        // It needs neither modules nor Envoy nor wasmtime.
        let build = ["-p", "phoenix-benches", "--release", "--no-default-features", "--features", "sketch"];
        let mut command = built(place, "bench", "release", &build, arguments)?;
        return Ok(code(place.status(&mut command, RUN_LIMIT)?));
    }
    // `bench control` runs the real `phoenix control`, which it looks for beside itself.
    let build = ["-p", "phoenix-benches", "-p", "phoenix-control", "--bin", "phoenix", "--release"];
    program(place, "bench", "release", &build, arguments)
}

fn program(
    place: &Place,
    name: &str,
    folder: &str,
    build: &[&str],
    arguments: &[String],
) -> Result<ExitCode> {
    modules::build(place)?;
    let envoy = envoy::find(place)?;
    let mut command = built(place, name, folder, build, arguments)?;
    Ok(code(place.status(equip(place, &envoy, &mut command), RUN_LIMIT)?))
}

/// Builds a program; the command that runs it.
fn built(place: &Place, name: &str, folder: &str, build: &[&str], arguments: &[String]) -> Result<Command> {
    place.timed(&format!("building {name}"), || {
        let mut cargo = place.cargo();
        place.run(cargo.args(["build", "--bin", name]).args(build), BUILD_LIMIT)
    })?;
    let mut command = Command::new(place.cargo_target().join(folder).join(name));
    command.args(arguments).current_dir(&place.root);
    Ok(command)
}

/// A program ended by a signal has no code: that is a failure too.
fn code(status: ExitStatus) -> ExitCode {
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
