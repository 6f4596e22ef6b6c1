//! The Prometheus 3 that queries are proven against.
//!
//! In: `PHOENIX_PROMETHEUS`, `PATH`, the cache, else Go and the small module in `xtask/prometheus/`. Out: the path of a program that calls itself
//! version 3. Why built from source: distributions ship version 2, which has no OTLP receiver to compare with, and Go's own proxy is the one registry
//! that has Prometheus for a user without root or containers. Why a module of ours around it: Prometheus' own `go.mod` replaces modules, so
//! `go install` refuses it.
//! Refuses: a `PHOENIX_PROMETHEUS` that does not run or is not version 3; on `PATH` such a program is passed over.

use crate::place::{BUILD_LIMIT, Place, ask, on_path};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The least major version: 3 has the OTLP receiver without a feature flag, and promotes resource attributes.
const MAJOR_MIN: u32 = 3;
/// The program as a Go package.
const PACKAGE: &str = "github.com/prometheus/prometheus/cmd/prometheus";
/// The Go module, as `go.mod` requires it.
const MODULE: &str = "github.com/prometheus/prometheus";
/// Where Prometheus keeps the version that it answers with.
const VERSION_VARIABLE: &str = "github.com/prometheus/common/version.Version";

/// Finds Prometheus 3, building it into the cache if there is none.
pub fn find(place: &Place) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("PHOENIX_PROMETHEUS").filter(|value| !value.is_empty()) {
        let named = std::path::absolute(named)?;
        check(&named).context("PHOENIX_PROMETHEUS does not do")?;
        return Ok(named);
    }
    if let Some(there) = ready(place) {
        return Ok(there);
    }
    let wanted = wanted(place)?;
    build(place, &wanted).with_context(|| {
        format!(
            "no Prometheus {MAJOR_MIN}: not in PHOENIX_PROMETHEUS, PATH or the cache, and {wanted} cannot be built; \
             by hand: install Prometheus {wanted} and name it in PHOENIX_PROMETHEUS"
        )
    })?;
    let built = cached(place, &wanted);
    check(&built)?;
    Ok(built)
}

/// What a program may be given without a build: the one that is named, unchecked, since whoever cannot use it should say so; else [`ready`]. Named
/// with nothing, there is none.
pub fn at_hand(place: &Place) -> Option<PathBuf> {
    match std::env::var_os("PHOENIX_PROMETHEUS") {
        Some(named) => (!named.is_empty()).then(|| named.into()),
        None => ready(place),
    }
}

/// Whether [`find`] has anything to try.
pub fn can_be_had(place: &Place) -> bool {
    at_hand(place).is_some() || on_path("go").is_some()
}

/// Prometheus 3 if it is on `PATH` or in the cache already: what runs without it must not wait minutes for a build.
fn ready(place: &Place) -> Option<PathBuf> {
    let built = wanted(place).ok().map(|wanted| cached(place, &wanted));
    on_path("prometheus").into_iter().chain(built).find(|program| check(program).is_ok())
}

fn cached(place: &Place, wanted: &str) -> PathBuf {
    place.cache.join(format!("prometheus-{wanted}/prometheus"))
}

fn check(program: &Path) -> Result<()> {
    // A file that is not there is no question.
    ensure!(program.is_file(), "there is no {}", program.display());
    let answer = ask(Command::new(program).arg("--version"))?;
    let major = major(&answer)
        .with_context(|| format!("{} does not say its version: {}", program.display(), answer.trim()))?;
    let what = answer.lines().next().unwrap_or_default();
    ensure!(major >= MAJOR_MIN, "{} is too old: {what}; needed: {MAJOR_MIN} or newer", program.display());
    Ok(())
}

/// The major version in `prometheus, version 3.13.5 (branch: …)`.
fn major(answer: &str) -> Option<u32> {
    let (major, _) = answer.strip_prefix("prometheus, version ")?.split_once('.')?;
    major.parse().ok()
}

/// The version of Prometheus that `go.mod` requires.
fn wanted(place: &Place) -> Result<String> {
    let file = place.root.join("xtask/prometheus/go.mod");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    required(&text).with_context(|| format!("{} requires no {MODULE} v0.MNN.P", file.display()))
}

/// `v0.313.5` in `go.mod` is Prometheus 3.13.5: Go modules of version 2 and up would need another path.
fn required(go_mod: &str) -> Option<String> {
    let tag = go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next()? == MODULE).then(|| words.next()).flatten()
    })?;
    let mut numbers = tag.strip_prefix("v0.")?.split('.').map(str::parse::<u32>);
    let (minor, patch) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(format!("{}.{}.{patch}", minor / 100, minor % 100))
}

/// Builds into a name of its own and renames: a program that is there is whole.
fn build(place: &Place, wanted: &str) -> Result<()> {
    let go = on_path("go").context("there is no go on PATH to build it with")?;
    let program = cached(place, wanted);
    let dir = program.parent().context("a program has a folder")?;
    std::fs::create_dir_all(dir)?;
    let new = dir.join(format!("prometheus.new-{}", std::process::id()));
    let built = place.timed(&format!("building Prometheus {wanted} with Go, some minutes"), || {
        // A long build on a machine in use: let others go first, where `nice` is to be had.
        let mut command = match on_path("nice") {
            Some(nice) => {
                let mut command = Command::new(nice);
                command.arg(&go);
                command
            }
            None => Command::new(&go),
        };
        // Pure Go, nothing taken from the user's flags: `go.sum` says what is downloaded, and that alone.
        command.current_dir(place.root.join("xtask/prometheus")).env("CGO_ENABLED", "0").env("GOFLAGS", "");
        command.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"]);
        command.arg(format!("-ldflags=-s -w -X {VERSION_VARIABLE}={wanted}"));
        place.run(command.arg("-o").arg(&new).arg(PACKAGE), BUILD_LIMIT)?;
        Ok(std::fs::rename(&new, &program)?)
    });
    if built.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    built
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read() {
        assert_eq!(major("prometheus, version 3.13.5 (branch: , revision: unknown)\n  build user:"), Some(3));
        assert_eq!(major("prometheus, version 2.42.0+ds (branch: debian/sid)"), Some(2));
        assert_eq!(major("prometheus, version  (branch: , revision: unknown)"), None);
        assert_eq!(major("something else"), None);
    }

    #[test]
    fn the_module_s_version_is_the_program_s() {
        assert_eq!(
            required("module x\n\nrequire github.com/prometheus/prometheus v0.313.5\n").as_deref(),
            Some("3.13.5")
        );
        assert_eq!(
            required("require (\n\tgithub.com/prometheus/prometheus v0.300.12 // x\n)").as_deref(),
            Some("3.0.12")
        );
        assert_eq!(required("require github.com/prometheus/prom2json v1.5.0"), None);
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/prometheus/go.mod");
        assert!(required(&std::fs::read_to_string(manifest).expect("go.mod")).is_some());
    }
}
