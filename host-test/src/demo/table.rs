//! The table.
//!
//! In: a verdict. Out: one line per metric, a line for all, and the failures spelt out beneath. Numbers are right-aligned, so that in and out can
//! be compared by eye.

use super::judge::{Row, Verdict};
use super::numbers::{bytes, change, count, total};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};
use comfy_table::{LineStyle, presets};
use std::collections::BTreeMap;

/// The header; every second pair is in and out.
const HEADER: [&str; 11] = [
    "metric",
    "pipeline",
    "streams in",
    "series out",
    "points in",
    "out",
    "bytes in",
    "out",
    "total in",
    "total out",
    "verdict",
];

/// The table of a verdict; colours where the terminal has them.
pub fn render(verdict: &Verdict) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING.top_border(RULE).header_separator(RULE).bottom_border(RULE));
    // Rows stay rows: a narrow terminal scrolls or wraps, the numbers stay whole.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(
        HEADER.iter().enumerate().map(|(i, text)| aligned(i, Cell::new(text).add_attribute(Attribute::Bold))),
    );
    for row in &verdict.rows {
        table.add_row(cells(row));
    }
    for row in sums(&verdict.rows) {
        table.add_row(row);
    }
    table.to_string()
}

/// A line across the table.
const RULE: LineStyle = LineStyle::none().fill('─').junction('─');

fn cells(row: &Row) -> Vec<Cell> {
    let (total_in, total_out) =
        row.totals.map_or(("-".to_owned(), "-".to_owned()), |(before, out)| (total(before), total(out)));
    let verdict = match (row.failures.is_empty(), row.totals.is_some(), row.pipeline) {
        (false, ..) => Cell::new("FAILED").fg(Color::Red).add_attribute(Attribute::Bold),
        (true, true, "optimized") => Cell::new("conserved").fg(Color::Green),
        (true, ..) => Cell::new("untouched").fg(Color::Green),
    };
    let texts = [
        row.metric.clone(),
        row.pipeline.to_owned(),
        count(row.streams_in as i128),
        count(row.series_out as i128),
        count(i128::from(row.points.0)),
        count(i128::from(row.points.1)),
        bytes(row.bytes.0),
        bytes(row.bytes.1),
        total_in,
        total_out,
    ];
    let texts = texts.into_iter().map(Cell::new).chain([verdict]);
    texts.enumerate().map(|(index, cell)| aligned(index, cell)).collect()
}

/// All metrics, and how much less went out than came in.
fn sums(rows: &[Row]) -> [Vec<Cell>; 2] {
    let add = |value: fn(&Row) -> u64| rows.iter().map(value).sum::<u64>();
    let pairs = [
        (add(|row| row.streams_in as u64), add(|row| row.series_out as u64)),
        (add(|row| row.points.0), add(|row| row.points.1)),
        (add(|row| row.bytes.0), add(|row| row.bytes.1)),
    ];
    let shown = |pair: usize, value: u64| if pair == 2 { bytes(value) } else { count(i128::from(value)) };
    let mut all = vec!["all".to_owned(), String::new()];
    let mut changes = vec![String::new(); 2];
    for (pair, (before, out)) in pairs.into_iter().enumerate() {
        all.extend([shown(pair, before), shown(pair, out)]);
        changes.extend([String::new(), change(before, out)]);
    }
    [all, changes].map(|texts| {
        let cells = texts.into_iter().enumerate();
        cells.map(|(index, text)| aligned(index, Cell::new(text).add_attribute(Attribute::Bold))).collect()
    })
}

fn aligned(index: usize, cell: Cell) -> Cell {
    let is_text = index < 2 || index + 1 == HEADER.len();
    cell.set_alignment(if is_text { CellAlignment::Left } else { CellAlignment::Right })
}

/// Envoy's stats of the module, several to a line.
pub fn render_stats(stats: &BTreeMap<String, i64>) -> String {
    let entries: Vec<String> =
        stats.iter().map(|(name, value)| format!("{name} {}", count(i128::from(*value)))).collect();
    let width = entries.iter().map(String::len).max().unwrap_or(0) + 3;
    let per_line = (140 / width.max(1)).max(1);
    let lines = entries.chunks(per_line).map(|chunk| {
        let padded: Vec<String> = chunk.iter().map(|entry| format!("{entry:<width$}")).collect();
        format!("  {}", padded.concat().trim_end())
    });
    lines.collect::<Vec<_>>().join("\n")
}
