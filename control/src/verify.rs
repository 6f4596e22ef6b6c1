//! `phoenix verify`: does a dashboard read the same on folded data?
//!
//! Enters: two Prometheus, one with the full data and one with the folded, and files with queries. Leaves: per query a verdict with
//! its reason, as a table, JSON and a page; and an exit status by threshold. Both sides are asked over HTTP only, so that the judge
//! shares no code with the engine. Refused: nothing as a whole — a query that cannot be read or run is one line, and the rest runs.

// What a person asks for.
mod arguments;
// Files to queries: rules, dashboards, lists; variables and recorded metrics expanded.
pub(crate) mod queries;
// OTLP names as Prometheus writes them.
pub(crate) mod names;
// Which queries can be answered from folded data, by the plan.
pub(crate) mod needs;
// One side: a Prometheus over HTTP.
mod prometheus;
// Every query on both sides, a bounded number at a time.
mod run;
// Two answers, series by series.
mod compare;
// Whether streams reach one embedder process only.
mod embedders;
// The words for what came out.
mod verdict;
// Table, JSON, page.
mod report;

pub use arguments::Arguments;

use anyhow::{Context, Result, bail};
use phoenix_plan::Plan;
use prometheus::Side;
use std::process::ExitCode;

/// Runs the command. Exit status 0: the share of good answers reaches the threshold, and embedders share no stream; 1: not; an error, for the caller to
/// report with 2: nothing could be compared.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let plan = arguments.plan.as_deref().map(crate::plan_commands::load).transpose()?;
    let span = arguments.span(plan.as_ref())?;
    let mut full = Side::new("full", &arguments.full, arguments)?;
    let mut folded = Side::new("folded", &arguments.folded, arguments)?;
    full.greet();
    folded.greet();

    let mut files = queries::read_files(&arguments.queries);
    queries::expand(&mut files, arguments, &span, &full, &folded);
    if files.queries.is_empty() && files.complaints.is_empty() {
        bail!("no query in {} file(s)", arguments.queries.len());
    }
    let outcomes = run::all(&files.queries, plan.as_ref(), &full, &folded, &span, arguments);
    let affinity = embedders::ask(&arguments.embedders, arguments.timeout);
    let report = report::Report {
        affinity,
        ..report::Report::new(arguments, plan.as_ref(), &span, files, outcomes, &full, &folded)
    };

    say_on!("{}", report::table::render(&report));
    if let Some(file) = &arguments.json {
        std::fs::write(file, report::json::render(&report)?).with_context(|| file.display().to_string())?;
    }
    if let Some(file) = &arguments.html {
        std::fs::write(file, report::html::render(&report)).with_context(|| file.display().to_string())?;
    }
    if let Some(side) = [&full, &folded].into_iter().find(|side| side.is_down()) {
        bail!("nothing could be compared: {}", side.why_down());
    }
    Ok(if report.passes() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The labels that stand on folded series only: the mark and the writer, as Prometheus names them.
fn own_labels(plan: Option<&Plan>) -> [String; 2] {
    match plan {
        Some(plan) => [names::label(&plan.mark_label), names::label(&plan.writer_label)],
        None => ["phoenix_folded".to_owned(), "phoenix_writer".to_owned()],
    }
}
