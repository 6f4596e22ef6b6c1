//! The same numbers for machines.
//!
//! In: the outcome of a run. Out: `summary.json`. Totals are strings: a JSON number loses integers above 2⁵³.

use super::Options;
use super::explosion::text;
use super::judge::{Row, Verdict};
use super::stage::Outcome;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::fs;

/// Writes the summary to the path of the options.
///
/// # Errors
/// The file cannot be written.
pub fn write(options: &Options, outcome: &Outcome) -> anyhow::Result<()> {
    if let Some(folder) = options.json.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(&document(options, outcome))?;
    fs::write(&options.json, text + "\n").with_context(|| format!("write {}", options.json.display()))
}

/// The document.
pub fn document(options: &Options, outcome: &Outcome) -> Value {
    let Verdict { rows, .. } = &outcome.verdict;
    let exports = outcome.truth.exports;
    json!({
        "holds": outcome.verdict.holds(),
        "failures": outcome.verdict.all_failures(),
        "seconds": options.seconds,
        "workers": options.workers,
        "seed": options.seed,
        "pods": outcome.progress.born,
        "restarts": outcome.progress.restarts,
        "exports": {
            "acknowledged": exports.acknowledged,
            "retries": exports.retries,
            "unanswered": exports.unanswered,
            "dropped": exports.dropped,
            "connections": exports.connections,
        },
        "bodies": {
            "in": outcome.truth.books.bodies,
            "out": outcome.books.bodies,
            "bytes_in": outcome.truth.books.body_bytes,
            "bytes_out": outcome.books.body_bytes,
        },
        "envoy": {
            "cpu_ms": outcome.usage.cpu.as_millis() as u64,
            "resident_bytes": outcome.usage.resident_bytes,
            "stats": outcome.stats,
        },
        // `null`: there was no Prometheus 3 to ask.
        "answers": outcome.answers.as_ref().map(|answers| &answers.report),
        "decisions": outcome.verdict.story.as_ref().map(super::decisions::text::document),
        // `null`: the run was too short for the leak, or it was not wanted.
        "explosion": outcome.verdict.explosion.as_ref().map(text::document),
        "metrics": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn row(row: &Row) -> Value {
    let [total_in, total_out] = row.totals.texts();
    json!({
        "metric": row.metric,
        "pipeline": row.pipeline,
        "streams_in": row.streams_in,
        "series_out": row.series_out,
        "series_expected": row.series_expected,
        "points_in": row.points.0,
        "points_out": row.points.1,
        "bytes_in": row.bytes.0,
        "bytes_out": row.bytes.1,
        "total_in": total_in,
        "total_out": total_out,
        "failures": row.failures,
    })
}
