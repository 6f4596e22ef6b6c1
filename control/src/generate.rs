//! `phoenix generate`: load whose truth is known.
//!
//! Enters: a scenario (a preset or a file, with flags laid over it) and an endpoint or a folder. Leaves: OTLP requests on a schedule, or the same requests as files for `phoenix
//! replay`; and the books: what was sent, exactly, and what became of it. An open loop: the schedule decides when a request goes, answers decide
//! nothing. The content is a function of scenario and seed; only the time at which a run begins differs. Refused: scenarios out of range, endpoints
//! beyond this machine unless that was asked for. There are no retries, so that what was sent is what was made.

// What a person asks for.
mod arguments;
// What a run is made of.
mod scenario;
// Flags over a scenario.
mod overrides;
// How labels behave.
mod shapes;
// How many streams each pod has of each metric.
mod deal;
// One point: what it says, and what it adds.
mod point;
// One emulated process.
mod process;
// Points as OTLP.
mod encode;
// When which process exports.
mod schedule;
// What was made, and what became of it.
mod truth;
// Into a folder.
mod write;
// Over the wire, once.
mod client;
// An open loop.
mod send;
// The books for people and programs.
mod report;

pub use arguments::Arguments;

use anyhow::{Context, Result};
use client::{Client, Target};
use schedule::Schedule;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// The beginning of a run into a folder, when none is named: always the same, so that the bytes are. 2026-01-01T00:00:00Z.
const START_NS: u64 = 1_767_225_600_000_000_000;

/// Runs the command. Exit status 0: everything was sent and accepted whole, or written; 1: not.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.print {
        say_on!("{}", arguments.preset.unwrap_or_default().text());
        return Ok(ExitCode::SUCCESS);
    }
    let scenario = overrides::scenario(arguments)?;
    let length_ns = u64::try_from(arguments.duration.as_nanos()).context("--duration")?;
    let start_ns = start_ns(arguments, length_ns)?;
    let schedule = Schedule::new(scenario, start_ns, length_ns)?;
    let run = report::Run::of(arguments, &schedule);
    let truth = match &arguments.to {
        Some(folder) => {
            crate::folder::prepare(folder, arguments.force, crate::folder::is_ours)?;
            write::run(schedule, folder, arguments.gzip)?
        }
        None => {
            let url = client::url(&arguments.endpoint, arguments.protocol)?;
            client::check_loopback(&url, arguments.allow_remote)?;
            let client = Client::new(Target {
                url,
                protocol: arguments.protocol,
                gzip: arguments.gzip,
                headers: arguments.headers.clone(),
                timeout: arguments.timeout,
                connections: arguments.connections,
            })?;
            send::run(schedule, client, arguments.pace())?
        }
    };
    say_on!("{}", report::text(&run, &truth));
    if let Some(file) = &arguments.json {
        std::fs::write(file, report::json(&run, &truth)?).with_context(|| file.display().to_string())?;
    }
    Ok(if truth.is_good(arguments.to.is_none()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Unix nanoseconds at which the run begins. A run that is faster than the clock began as long ago as makes it end now.
fn start_ns(arguments: &Arguments, length_ns: u64) -> Result<u64> {
    if let Some(start) = &arguments.start {
        return Ok(*start);
    }
    if arguments.to.is_some() {
        return Ok(START_NS);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let now_ns = u64::try_from(now.as_nanos()).context("the clock")?;
    let lasts_ns = (length_ns as f64 / arguments.speed) as u64;
    Ok((now_ns + lasts_ns).saturating_sub(length_ns))
}
