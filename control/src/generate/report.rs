//! The books of a run for people and programs.
//!
//! Enters: the books. Leaves: a line a metric, the sums by type, and what became of it all; and the same as JSON. Integers keep every digit in both: in JSON they are
//! text, since a JSON number may lose the last ones.

use super::arguments::Arguments;
use super::scenario::{Kind, Metric};
use super::schedule::Schedule;
use super::truth::{Book, Truth, kind};
use crate::show::{bytes, count, counted, double, table, total};
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// What the run was.
pub struct Run {
    metrics: Vec<Metric>,
    seed: u64,
    start_ns: u64,
    length_ns: u64,
    interval_ns: u64,
    /// The folder that was written to.
    to: Option<PathBuf>,
    endpoint: String,
}

impl Run {
    /// Before it begins.
    pub fn of(arguments: &Arguments, schedule: &Schedule) -> Run {
        Run {
            metrics: schedule.scenario().metrics.clone(),
            seed: schedule.scenario().seed,
            start_ns: schedule.start_ns,
            length_ns: schedule.length_ns,
            interval_ns: schedule.interval_ns,
            to: arguments.to.clone(),
            endpoint: arguments.endpoint.clone(),
        }
    }

    fn books<'a>(&'a self, truth: &'a Truth) -> impl Iterator<Item = (&'a Metric, &'a Book)> {
        self.metrics.iter().zip(&truth.metrics)
    }
}

const HEADER: [&str; 8] =
    ["metric", "type", "streams", "points", "bytes", "increments", "observations", "their sum"];
const LEFT: [usize; 2] = [0, 1];

/// The table and what stands beneath it.
pub fn text(run: &Run, truth: &Truth) -> String {
    let rows = run.books(truth).map(|(metric, book)| row(metric, book)).collect();
    let mut text = table(&HEADER, &LEFT, rows, vec![sums(truth)]);
    let types = by_type(run, truth);
    if types.len() > 1 {
        let rows = types.into_iter().map(|(kind, (points, size))| vec![kind, count(points), bytes(size)]);
        text += &table(&["type", "points", "bytes"], &[0], rows.collect(), Vec::new());
    }
    let mut say = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    let points: u64 = truth.metrics.iter().map(|book| book.points).sum();
    let what = format!(
        "{} with {} and {}",
        counted(truth.requests, "request"),
        counted(points, "point"),
        counted(truth.bytes, "byte")
    );
    let interval = run.interval_ns as f64 / 1e9;
    let pace = format!("every {interval} s a pod, seed {}", run.seed);
    match &run.to {
        Some(folder) => say(format!("Written to {}: {what}; {pace}.", folder.display())),
        None => {
            say(format!(
                "Sent to {}: {what} ({} on the wire); {pace}.",
                run.endpoint,
                bytes(truth.wire_bytes)
            ));
            answers(truth, &mut say);
        }
    }
    if truth.is_interrupted {
        say(format!(
            "Ended by a signal after {} of {} s.",
            truth.done_ns / 1_000_000_000,
            run.length_ns / 1_000_000_000
        ));
    }
    text
}

fn answers(truth: &Truth, say: &mut impl FnMut(String)) {
    let by = &truth.requests_by;
    say(format!(
        "Answers: {} accepted, {} refused, {} without one{}.",
        count(by.accepted),
        count(by.refused),
        count(by.unanswered),
        match slowness_ms(truth) {
            Some([half, most, all]) =>
                format!("; half within {half:.1} ms, 99 % within {most:.1} ms, the slowest {all:.1} ms"),
            None => String::new(),
        }
    ));
    if truth.partial > 0 {
        say(format!(
            "Partial success: {} with {} rejected.",
            counted(truth.partial, "answer"),
            counted(truth.rejected.max(0).cast_unsigned(), "point")
        ));
    }
    for (reason, number) in &truth.reasons {
        say(format!("  {} × {reason}", count(*number)));
    }
    if truth.late > 0 {
        let most_ms = truth.late_max_ns / 1_000_000;
        say(format!(
            "Late: {} sent after they were due, by up to {most_ms} ms.",
            counted(truth.late, "request")
        ));
    }
    if truth.unsent > 0 {
        say(format!(
            "Not sent: {} with {}: as many as --in-flight-max allows were without an answer. They are not in the table; what \
             cumulative streams grew by in them came with their next points.",
            counted(truth.unsent, "request"),
            counted(truth.unsent_points, "point")
        ));
    }
}

fn row(metric: &Metric, book: &Book) -> Vec<String> {
    let none = || "-".to_owned();
    let (grown, observed, sum) = match metric.kind {
        Kind::Sum | Kind::UpDownCounter => (total(&book.total), none(), none()),
        Kind::Gauge => (none(), none(), none()),
        _ => (none(), count(book.observations), double(book.observed.value())),
    };
    vec![
        metric.name.clone(),
        kind(metric),
        count(book.streams),
        count(book.points),
        bytes(book.bytes),
        grown,
        observed,
        sum,
    ]
}

fn sums(truth: &Truth) -> Vec<String> {
    let add = |value: fn(&Book) -> u64| truth.metrics.iter().map(value).sum::<u64>();
    vec![
        "all".to_owned(),
        String::new(),
        count(add(|book| book.streams)),
        count(add(|book| book.points)),
        bytes(add(|book| book.bytes)),
    ]
}

fn by_type(run: &Run, truth: &Truth) -> BTreeMap<String, (u64, u64)> {
    let mut types: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (metric, book) in run.books(truth) {
        let entry = types.entry(kind(metric)).or_default();
        *entry = (entry.0 + book.points, entry.1 + book.bytes);
    }
    types
}

/// How long answers took: half of them, 99 of a hundred, all.
fn slowness_ms(truth: &Truth) -> Option<[f64; 3]> {
    let mut sorted = truth.answers_us.clone();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    Some([0.5, 0.99, 1.0].map(|share| f64::from(sorted[(last as f64 * share) as usize]) / 1000.0))
}

/// Everything as JSON.
pub fn json(run: &Run, truth: &Truth) -> Result<String> {
    let metrics: Vec<Value> = run.books(truth).map(|(metric, book)| book_json(metric, book)).collect();
    let types: BTreeMap<String, Value> = by_type(run, truth)
        .into_iter()
        .map(|(kind, (points, bytes))| (kind, json!({ "points": points, "bytes": bytes })))
        .collect();
    let by = &truth.requests_by;
    let document = json!({
        "seed": run.seed,
        "start_ns": run.start_ns.to_string(),
        "length_ns": run.length_ns.to_string(),
        "interval_ns": run.interval_ns.to_string(),
        "interrupted": truth.is_interrupted,
        "requests": truth.requests,
        "points": truth.metrics.iter().map(|book| book.points).sum::<u64>(),
        "bytes": truth.bytes,
        "wire_bytes": truth.wire_bytes,
        "answers": run.to.is_none().then(|| json!({
            "accepted": by.accepted,
            "refused": by.refused,
            "unanswered": by.unanswered,
            "partial_success": truth.partial,
            "rejected_points": truth.rejected,
            "reasons": truth.reasons,
            "ms": slowness_ms(truth).map(|[half, most, all]| json!({ "p50": half, "p99": most, "max": all })),
            "late": truth.late,
            "late_max_ms": truth.late_max_ns as f64 / 1e6,
            "unsent_requests": truth.unsent,
            "unsent_points": truth.unsent_points,
        })),
        "types": types,
        "metrics": metrics,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn book_json(metric: &Metric, book: &Book) -> Value {
    let has_sum = matches!(metric.kind, Kind::Sum | Kind::UpDownCounter);
    let observes = !has_sum && metric.kind != Kind::Gauge;
    let by = &book.points_by;
    json!({
        "metric": metric.name,
        "type": kind(metric),
        "streams": book.streams,
        "points": book.points,
        "bytes": book.bytes,
        "increments": has_sum
            .then(|| json!({ "int": book.total.ints.to_string(), "value": book.total.value() })),
        "observations": observes.then_some(book.observations),
        "observed_sum": observes.then(|| book.observed.value()),
        "accepted_points": by.accepted,
        "refused_points": by.refused,
        "unanswered_points": by.unanswered,
    })
}
