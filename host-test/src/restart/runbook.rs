//! The runbook of a graceful stop, as it stands in `docs/operations.md`.
//!
//! In: the addresses of an Envoy and how long its windows take to close. Out: the shell script of the document with those in place of its defaults. Why from
//! the document: what an operator types is what is tested. Refuses when the document does not hold the defaults, so that the two cannot drift apart.

use crate::envoy::config::shipped;
use anyhow::{Context as _, ensure};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const DOCUMENT: &str = "docs/operations.md";
/// The heading above the script.
const HEADING: &str = "## Rolling an Envoy without losing an increment";
/// The lines that name the defaults.
const ADMIN: &str = "admin=127.0.0.1:9901";
const LISTENER: &str = "listener=127.0.0.1:4318";
const CLOSES: &str = "closes_s=77";

/// The script for one Envoy.
///
/// # Errors
/// The document is not there, or does not hold the script as expected.
pub fn script(admin: SocketAddr, listener: SocketAddr, closes: Duration) -> anyhow::Result<String> {
    let document = shipped(DOCUMENT)?;
    let (_, section) = document.split_once(HEADING).with_context(|| format!("{DOCUMENT}: no {HEADING:?}"))?;
    let (_, block) = section.split_once("```sh\n").with_context(|| format!("{DOCUMENT}: no script"))?;
    let (block, _) = block.split_once("```").with_context(|| format!("{DOCUMENT}: the script has no end"))?;
    let mut script = block.to_owned();
    for (default, value) in [
        (ADMIN, format!("admin={admin}")),
        (LISTENER, format!("listener={listener}")),
        (CLOSES, format!("closes_s={}", closes.as_secs_f64())),
    ] {
        ensure!(script.contains(default), "{DOCUMENT}: the script does not hold {default:?}");
        script = script.replace(default, &value);
    }
    Ok(script)
}

/// Runs it to its end.
///
/// # Errors
/// A command of it fails, or it takes longer than `patience`.
pub async fn run(script: &str, patience: Duration) -> anyhow::Result<()> {
    let shell = Command::new("sh")
        .args(["-euc", script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(patience, shell).await.context("the runbook takes too long")??;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the runbook: {} {errors}", output.status);
    Ok(())
}
