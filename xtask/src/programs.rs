//! The project's own programs: `phoenix-demo` and the benches.
//!
//! In: a place and the arguments to pass on. Out: the program's exit status. Both get the modules and Envoy through the
//! environment (`PHOENIX_WASM_DIR`, `PHOENIX_ENVOY`), as the integration tests do, so that no program looks for them itself.
//! Refuses: nothing of its own; the programs know their arguments.

use crate::place::{BUILD_LIMIT, Place};
use crate::{envoy, modules};
use anyhow::Result;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Limit of one run: the demo is meant to take a minute; the rest is room for all benches together.
const RUN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Gives a command the modules and Envoy.
pub fn equip<'a>(place: &Place, envoy: &Path, command: &'a mut Command) -> &'a mut Command {
    command.env("PHOENIX_ENVOY", envoy).env("PHOENIX_WASM_DIR", &place.out)
}

/// Builds what the demo needs and runs it.
pub fn demo(place: &Place, arguments: &[String]) -> Result<ExitCode> {
    program(place, "phoenix-host-test", "phoenix-demo", arguments)
}

/// Builds what the benches need and runs them.
pub fn bench(place: &Place, arguments: &[String]) -> Result<ExitCode> {
    program(place, "phoenix-benches", "bench", arguments)
}

fn program(place: &Place, package: &str, name: &str, arguments: &[String]) -> Result<ExitCode> {
    modules::build(place)?;
    let envoy = envoy::find(place)?;
    place.timed(&format!("building {name}"), || {
        let mut cargo = place.cargo();
        place.run(cargo.args(["build", "--release", "-p", package, "--bin", name]), BUILD_LIMIT)
    })?;
    let mut command = Command::new(place.cargo_target().join("release").join(name));
    command.args(arguments).current_dir(&place.root);
    let status = place.status(equip(place, &envoy, &mut command), RUN_LIMIT)?;
    // A program ended by a signal has no code: that is a failure too.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
