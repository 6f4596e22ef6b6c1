//! The report for the terminal: what is not good in full, a line for each of the others, a count of each verdict, one line of result.

use super::{Report, Row, labels, percent, significant, time};
use crate::verify::compare::Comparison;
use crate::verify::verdict::Verdict;
use comfy_table::{ContentArrangement, Table, TableStyle, presets};

/// Up to this many queries those that are good or without data are listed too: a screen.
const LISTED_MAX: usize = 30;
/// Width where there is no terminal: a log, a mail, a ticket.
const WIDTH: u16 = 140;
/// Longest query text in the table.
const QUERY_CHARS_MAX: usize = 120;

/// The whole text.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let from = time(report.span.start_ms, "%F %T");
    let to = time(report.span.end_ms, "%T UTC");
    let tolerance = percent(report.tolerance);
    let [full, folded] = &report.urls;
    text.push_str(&format!("full {full}, folded {folded}, {from} to {to}, tolerance {tolerance}\n"));
    for why in &report.down {
        text.push_str(&format!("down: {why}\n"));
    }
    for complaint in &report.complaints {
        let place =
            if complaint.place.is_empty() { String::new() } else { format!(" › {}", complaint.place) };
        text.push_str(&format!("cannot be read: {}{place}: {}\n", complaint.file, complaint.text));
    }
    let mut rows: Vec<&Row> = report.rows.iter().collect();
    rows.sort_by_key(|row| row.outcome.verdict);
    let is_calm = |row: &&Row| row.outcome.verdict.is_good() || row.outcome.verdict == Verdict::NoData;
    let (calm, changed): (Vec<&Row>, Vec<&Row>) = rows.into_iter().partition(is_calm);
    if report.down.is_empty() {
        if !changed.is_empty() {
            text.push_str(&format!("{}\n", in_full(&changed)));
        }
        if !calm.is_empty() && report.rows.len() <= LISTED_MAX {
            text.push_str(&format!("{}\n", in_short(&calm)));
        }
    }
    text.push_str(&format!("{}\n", counts(report)));
    if report.foreign > 0 {
        text.push_str(&format!("{} targets of other data sources left alone\n", report.foreign));
    }
    for line in report.affinity.lines() {
        text.push_str(&format!("{line}\n"));
    }
    let verdict = if report.passes() { "passed" } else { "failed" };
    text.push_str(&format!(
        "{}: {verdict}, the threshold is {}\n",
        report.headline(),
        percent(report.fail_below)
    ));
    text
}

/// A table for the terminal's width.
fn table(style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic);
    if !table.is_tty() {
        table.set_width(WIDTH);
    }
    table
}

/// A line a query: where it stands and how near the answers are.
fn in_short(rows: &[&Row]) -> Table {
    let mut table = table(presets::NOTHING);
    table.set_header(["answer", "query", "worst error", "mean"]);
    for row in rows {
        let comparison = row.outcome.comparison.as_ref();
        let worst = comparison.and_then(|comparison| comparison.worst.as_ref());
        let mut query = format!("{} › {}", file_name(&row.query.file), row.query.place);
        for reason in &row.outcome.reasons {
            query.push_str(&format!("\n{reason}"));
        }
        table.add_row([
            row.outcome.verdict.words().to_owned(),
            query,
            worst.map(|worst| percent(worst.error)).unwrap_or_default(),
            comparison.and_then(Comparison::mean_error).map(percent).unwrap_or_default(),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Everything about a query.
fn in_full(rows: &[&Row]) -> Table {
    let mut table = table(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["answer", "query", "worst error", "why"]);
    for row in rows {
        let query = shortened(&row.query.text);
        table.add_row([
            row.outcome.verdict.words().to_owned(),
            format!("{} › {}\n{query}", file_name(&row.query.file), row.query.place),
            worst(row),
            row.outcome.reasons.join("\n"),
        ]);
    }
    table
}

/// `1.2 %` and where.
fn worst(row: &Row) -> String {
    let Some(worst) = row.outcome.comparison.as_ref().and_then(|comparison| comparison.worst.as_ref()) else {
        return String::new();
    };
    if worst.error == 0.0 {
        return "0 %".to_owned();
    }
    let values = format!("{} → {}", significant(worst.full, 4), significant(worst.folded, 4));
    let mut text = format!("{}\n{values}\n{}", percent(worst.error), time(worst.time_ms, "%T"));
    if !worst.labels.is_empty() {
        text.push_str(&format!("\n{}", labels(&worst.labels)));
    }
    text
}

fn counts(report: &Report) -> String {
    let counted =
        Verdict::ALL.iter().rev().map(|&verdict| (report.count(verdict), verdict)).filter(|(n, _)| *n > 0);
    counted.map(|(n, verdict)| format!("{n} {}", verdict.words())).collect::<Vec<_>>().join(", ")
}

/// The file without its folders.
fn file_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(QUERY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
