//! `phoenix report`: reports of embedders as tables.
//!
//! Enters: files with a report each, of any workers and processes, in any order, more than one of a worker too. Leaves: the fleet they make, as tables or JSON.
//! A file that is refused is named with its reason, and the exit status is 1; the others are shown all the same.

// What a person asks for.
mod arguments;
// Which metrics, in which order.
pub mod choice;
// A fleet as text.
pub mod tables;

pub use arguments::Arguments;

use crate::otlp::frame;
use anyhow::{Context, Result, anyhow, bail};
use phoenix_report::Fleet;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs the command. Exit status 0: every file was taken.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut fleet = Fleet::default();
    let mut refused = 0;
    for file in &arguments.files {
        if let Err(error) = take(&mut fleet, file) {
            eprintln!("{}: {error:#}", file.display());
            refused += 1;
        }
    }
    if fleet.is_empty() {
        bail!("no report");
    }
    let view = fleet.view();
    let choice = arguments.choice();
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&choice.of(&view))?);
    } else {
        say_on!("{}", tables::render(&view, &choice));
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Now, as reports write it.
pub fn now_unix_nano() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn take(fleet: &mut Fleet, file: &Path) -> Result<()> {
    let bytes = bytes(file)?;
    let report = phoenix_report::read(&bytes, now_unix_nano())?;
    fleet.add(report)?;
    Ok(())
}

/// A file's bytes, inflated; no more of them than show that there are too many.
fn bytes(file: &Path) -> Result<Vec<u8>> {
    let bytes_max = phoenix_report::read::BYTES_MAX;
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(file).context("cannot be opened")?),
    };
    source.take(bytes_max as u64 + 1).read_to_end(&mut bytes).context("cannot be read")?;
    if !frame::is_gzip(&bytes) {
        return Ok(bytes);
    }
    let inflated = frame::gunzip_within(&bytes, bytes_max).map_err(|error| anyhow!(error))?;
    inflated
        .ok_or_else(|| anyhow!("report: inflates to more than {bytes_max} bytes; allowed: up to {bytes_max}"))
}
