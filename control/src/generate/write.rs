//! A run into a folder, for `phoenix replay`.
//!
//! Enters: a schedule. Leaves: `NNNN.otlp` and `NNNN.time`, the time being when the request is due. Nothing waits: an hour is written as fast as it is made.

use super::schedule::Schedule;
use super::truth::Truth;
use crate::otlp::frame::gzip;
use crate::{folder, show};
use anyhow::Result;
use std::path::Path;

/// Writes every request of a run.
pub fn run(schedule: Schedule, folder: &Path, compress: bool) -> Result<Truth> {
    let mut truth = Truth::new(schedule.scenario());
    let start_ns = schedule.start_ns;
    let bar = show::bar(schedule.length_ns / 1_000_000_000, "s of the run");
    for (number, made) in (1u64..).zip(schedule) {
        let packed = compress.then(|| gzip(&made.body));
        let body = packed.as_deref().unwrap_or(&made.body);
        folder::write_request(folder, number, body, start_ns + made.at_ns)?;
        truth.made(&made, body.len() as u64);
        bar.set_position(made.at_ns / 1_000_000_000);
    }
    bar.finish_and_clear();
    Ok(truth)
}
