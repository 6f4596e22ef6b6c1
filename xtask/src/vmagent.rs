//! The vmagent that `bench rival` measures beside the module.
//!
//! In: `PHOENIX_VMAGENT`, the cache, else Go. Out: the path of a program that runs. Why not `PATH`: the figures name a version, and any other would be
//! another rival. Why built from source: Go's own proxy is the one registry that has it for a user without root or containers, and its `go.mod` has no
//! replace lines, so that `go install` takes it. Refuses: a `PHOENIX_VMAGENT` that does not run.

use crate::place::{BUILD_LIMIT, Place, ask, on_path};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that the figures in the documents were made with.
const VERSION: &str = "1.148.8";
/// The program as a Go package.
const PACKAGE: &str = "github.com/VictoriaMetrics/VictoriaMetrics/app/vmagent";
/// Where it keeps the version that it answers with.
const VERSION_VARIABLE: &str = "github.com/VictoriaMetrics/VictoriaMetrics/lib/buildinfo.Version";

/// Finds vmagent, building it into the cache if there is none.
pub fn find(place: &Place) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("PHOENIX_VMAGENT").filter(|value| !value.is_empty()) {
        let named = std::path::absolute(named)?;
        check(&named).context("PHOENIX_VMAGENT does not do")?;
        return Ok(named);
    }
    let built = cached(place);
    if check(&built).is_err() {
        build(place, &built).with_context(|| {
            format!(
                "no vmagent: not in PHOENIX_VMAGENT or the cache, and {VERSION} cannot be built; \
                 by hand: install vmagent {VERSION} and name it in PHOENIX_VMAGENT"
            )
        })?;
        check(&built)?;
    }
    Ok(built)
}

/// What a program may be given without a build: the one that is named, unchecked, since whoever cannot use it should say so; else the cached one. Named
/// with nothing, there is none.
pub fn at_hand(place: &Place) -> Option<PathBuf> {
    match std::env::var_os("PHOENIX_VMAGENT") {
        Some(named) => (!named.is_empty()).then(|| named.into()),
        None => Some(cached(place)).filter(|program| check(program).is_ok()),
    }
}

/// Whether [`find`] has anything to try.
pub fn can_be_had(place: &Place) -> bool {
    at_hand(place).is_some() || on_path("go").is_some()
}

fn cached(place: &Place) -> PathBuf {
    place.cache.join(format!("vmagent-{VERSION}/vmagent"))
}

fn check(program: &Path) -> Result<()> {
    // A file that is not there is no question.
    ensure!(program.is_file(), "there is no {}", program.display());
    ask(Command::new(program).arg("--version")).map(drop)
}

/// Installs into a folder of its own and renames: a program that is there is whole.
fn build(place: &Place, program: &Path) -> Result<()> {
    let go = on_path("go").context("there is no go on PATH to build it with")?;
    let dir = program.parent().context("a program has a folder")?;
    std::fs::create_dir_all(dir)?;
    let new = dir.join(format!("new-{}", std::process::id()));
    let built = place.timed(&format!("building vmagent {VERSION} with Go"), || {
        let mut command = Command::new(&go);
        // Outside of any module: the package's own `go.mod` and `go.sum` say what is downloaded. With cgo where there is a C compiler, as its makers build
        // it for this processor: their compression is then the C library, which is faster.
        command.current_dir(dir).env("GOBIN", &new).env("GOFLAGS", "").args(["install", "-trimpath"]);
        command.arg(format!("-ldflags=-s -w -X {VERSION_VARIABLE}=vmagent-v{VERSION}"));
        place.run(command.arg(format!("{PACKAGE}@v{VERSION}")), BUILD_LIMIT)?;
        Ok(std::fs::rename(new.join("vmagent"), program)?)
    });
    // Empty after a rename; the rest of a build that failed.
    let _ = std::fs::remove_dir_all(&new);
    built
}
