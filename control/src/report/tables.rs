//! A fleet as text.
//!
//! Enters: a view and which metrics of it. Leaves: tables of tenants, metrics, labels, offenders and decisions, and a line on what stands behind them. One metric is
//! shown with all it has; of many, what helps most. `≤` marks a sum of parts that could not be merged.

use super::choice::{Choice, Row};
use crate::show::{clean, count, counted, table};
use phoenix_report::merge::Estimate;
use phoenix_report::view::{Budget, LabelView, View};

/// Labels of a metric among others.
const LABELS: usize = 3;
/// Example values of a label among others.
const OFFENDERS: usize = 3;
/// A value in a table is cut here: a line stays a line.
const VALUE_CHARS: usize = 60;

/// All tables.
pub fn render(view: &View, choice: &Choice) -> String {
    let rows = choice.rows(view);
    let mut text = status(view);
    text += &tenants(view, choice);
    text += &format!("\nMetrics\n{}", metrics(&rows));
    let (shown, all) = (rows.len(), choice.all(view).len());
    if shown < all {
        text += &format!(
            "{} of {} shown: --limit, --metric, --tenant\n",
            count(shown as i128),
            counted(all as u64, "metric")
        );
    }
    text += &findings(&rows);
    text += &decisions(&rows);
    for note in &view.notes {
        text += &format!("Note: {note}.\n");
    }
    if view.truncated_metrics > 0 {
        let left_out = counted(view.truncated_metrics, "metric");
        text += &format!("Note: at least {left_out} did not fit into the reports.\n");
    }
    text
}

/// Labels and offenders of these metrics.
pub fn findings(rows: &[Row<'_>]) -> String {
    labels(rows) + &offenders(rows)
}

/// Who reports, and how much there is.
pub fn status(view: &View) -> String {
    let workers = view.processes.iter().map(|process| process.workers).sum();
    format!(
        "{}, {}, {}, {} active series, plan {}, newest report {}\n",
        processes(view.processes.len() as u64),
        counted(workers, "worker"),
        counted(view.tenants.len() as u64, "tenant"),
        all_active(view),
        versions(view),
        time(view.newest_unix_nano),
    )
}

/// `1 process`, `2 processes`.
pub fn processes(number: u64) -> String {
    if number == 1 { "1 process".to_owned() } else { format!("{} processes", count(number)) }
}

/// The active series of all tenants.
pub fn all_active(view: &View) -> String {
    let sum = view.tenants.iter().fold(Estimate::default(), |sum, tenant| Estimate {
        value: sum.value + tenant.active.value,
        at_least: sum.at_least + tenant.active.at_least,
        is_upper_bound: sum.is_upper_bound || tenant.active.is_upper_bound,
    });
    estimate(&sum)
}

/// The versions of the plan that are in force, oldest first.
pub fn versions(view: &View) -> String {
    let mut versions: Vec<u64> = view.processes.iter().map(|process| process.plan_version).collect();
    versions.sort_unstable();
    versions.dedup();
    match versions.as_slice() {
        [] => "-".to_owned(),
        [one] => one.to_string(),
        [first, .., last] => format!("{first} to {last}"),
    }
}

/// A time in UTC, to the second.
pub fn time(unix_nano: u64) -> String {
    let nanos = i64::try_from(unix_nano).unwrap_or(i64::MAX);
    chrono::DateTime::from_timestamp_nanos(nanos).format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A number of distinct things; `≤` where it is an upper bound.
pub fn estimate(estimate: &Estimate) -> String {
    let mark = if estimate.is_upper_bound { "≤ " } else { "" };
    format!("{mark}{}", number(estimate.value))
}

/// A share, or a dash without a budget.
pub fn share(budget: &Budget) -> String {
    if budget.share == 0 { "-".to_owned() } else { count(budget.share) }
}

/// A whole number of a double.
pub fn number(value: f64) -> String {
    count(value.round() as i128)
}

/// Text of others, one line of it.
pub fn short(text: &str) -> String {
    let text = clean(text);
    match text.char_indices().nth(VALUE_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The tenant's name, or what stands for none.
pub fn tenant_name(name: &str) -> String {
    if name.is_empty() { "(none)".to_owned() } else { short(name) }
}

fn tenants(view: &View, choice: &Choice) -> String {
    let header = ["tenant", "active", "growth", "share", "reserved", "used", "admitted", "folded", "metrics"];
    let rows = choice.tenants(view).into_iter().take(choice.limit).map(|tenant| {
        vec![
            tenant_name(&tenant.name),
            estimate(&tenant.active),
            number(tenant.growth),
            share(&tenant.budget),
            count(tenant.budget.reserved),
            used(&tenant.budget),
            count(tenant.budget.admitted),
            count(tenant.budget.folded_series),
            count(tenant.metrics.len() as i128),
        ]
    });
    titled("Tenants", &header, &[0], rows.collect())
}

/// How much of the share is taken.
pub fn used(budget: &Budget) -> String {
    if budget.share == 0 {
        return "-".to_owned();
    }
    format!("{:.0} %", budget.used() as f64 / budget.share as f64 * 100.0)
}

/// A line a metric.
pub fn metrics(rows: &[Row<'_>]) -> String {
    let header =
        ["metric", "tenant", "type", "active", "growth", "share", "used", "admitted", "folded", "points"];
    let lines = rows.iter().map(|Row { tenant, metric }| {
        vec![
            short(&metric.name),
            tenant_name(&tenant.name),
            short(&metric.r#type),
            estimate(&metric.active),
            number(metric.growth),
            share(&metric.budget),
            used(&metric.budget),
            count(metric.budget.admitted),
            count(metric.budget.folded_series),
            count(metric.points),
        ]
    });
    table(&header, &[0, 1, 2], lines.collect(), Vec::new())
}

fn labels(rows: &[Row<'_>]) -> String {
    let header = ["metric", "label", "of", "values", "without it", "change", ""];
    let most = if rows.len() == 1 { usize::MAX } else { LABELS };
    let lines: Vec<Vec<String>> = rows
        .iter()
        .flat_map(|row| row.metric.labels.iter().take(most).map(move |label| (row, label)))
        .map(|(row, label)| {
            vec![
                short(&row.metric.name),
                short(&label.key),
                of(label).to_owned(),
                estimate(&label.values),
                estimate(&label.without),
                change(row.metric.active.value, label.without.value),
                if label.is_protected { "protected".to_owned() } else { String::new() },
            ]
        })
        .collect();
    titled("Labels: distinct values, and series that would remain without", &header, &[0, 1, 2, 6], lines)
}

/// How many series fewer; estimates differ by chance, so never more.
fn change(before: f64, after: f64) -> String {
    if before <= 0.0 {
        return String::new();
    }
    format!("-{:.0} %", ((1.0 - after / before) * 100.0).max(0.0))
}

fn of(label: &LabelView) -> &'static str {
    if label.resource { "resource" } else { "point" }
}

fn offenders(rows: &[Row<'_>]) -> String {
    let header = ["metric", "label", "value", "at least", "at most"];
    let (labels, values) = if rows.len() == 1 { (usize::MAX, usize::MAX) } else { (1, OFFENDERS) };
    let mut lines = Vec::new();
    for row in rows {
        let with =
            row.metric.labels.iter().filter(|label| !label.is_protected && !label.offenders.is_empty());
        for label in with.take(labels) {
            for offender in label.offenders.iter().take(values) {
                lines.push(vec![
                    short(&row.metric.name),
                    short(&label.key),
                    short(&offender.value),
                    number(offender.at_least),
                    number(offender.at_most),
                ]);
            }
        }
    }
    titled("Offenders: values that brought streams", &header, &[0, 1, 2], lines)
}

fn decisions(rows: &[Row<'_>]) -> String {
    let header = ["metric", "time", "process", "what", "labels", "why"];
    let mut all: Vec<_> =
        rows.iter().flat_map(|row| row.metric.decisions.iter().map(move |one| (row, one))).collect();
    all.sort_by_key(|(_, one)| std::cmp::Reverse(one.time_unix_nano));
    let most = if rows.len() == 1 { usize::MAX } else { rows.len() };
    let lines = all.into_iter().take(most).map(|(row, decision)| {
        vec![
            short(&row.metric.name),
            time(decision.time_unix_nano),
            short(&decision.process),
            short(&decision.what),
            short(&decision.labels.join(", ")),
            // A sentence is not cut.
            clean(&decision.reason),
        ]
    });
    titled("Decisions", &header, &[0, 1, 2, 3, 4, 5], lines.collect())
}

/// A table under its title; nothing if it has no lines.
fn titled(title: &str, header: &[&str], left: &[usize], lines: Vec<Vec<String>>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("\n{title}\n{}", table(header, left, lines, Vec::new()))
}
