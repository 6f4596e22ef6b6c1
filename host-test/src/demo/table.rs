//! The table.
//!
//! In: a verdict. Out: one line per metric, a line for all, and the failures spelt out beneath. Numbers are right-aligned, so that in and out can
//! be compared by eye.

use super::judge::{Row, Totals, Verdict};
use super::numbers::{bytes, change, count, total};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};
use comfy_table::{LineStyle, presets};
use std::collections::BTreeMap;

/// The header; numbers come in pairs of in and out.
const HEADER: [&str; 11] = [
    "metric",
    "pipeline",
    "streams",
    "series",
    "points in",
    "out",
    "bytes in",
    "out",
    "total in",
    "total out",
    "verdict",
];
/// The columns that a narrow terminal goes without; `summary.json` has them.
const BYTES: [usize; 2] = [6, 7];

/// The table of a verdict, for the width of the terminal if there is one; colours where the terminal has them.
pub fn render(verdict: &Verdict) -> String {
    let table = build(verdict, &[]);
    let is_too_wide =
        table.width().is_some_and(|width| table.lines().any(|line| line_width(&line) > width.into()));
    if is_too_wide { build(verdict, &BYTES).to_string() } else { table.to_string() }
}

fn build(verdict: &Verdict, hidden: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING.top_border(RULE).header_separator(RULE).bottom_border(RULE));
    // Rows stay rows: numbers are never broken.
    table.set_content_arrangement(ContentArrangement::Disabled);
    let header = HEADER.iter().enumerate();
    let header = header.map(|(i, text)| aligned(i, Cell::new(text).add_attribute(Attribute::Bold))).collect();
    let rows = verdict.rows.iter().map(cells).chain(sums(&verdict.rows));
    let shown = |row: Vec<Cell>| -> Vec<Cell> {
        row.into_iter()
            .enumerate()
            .filter(|(index, _)| !hidden.contains(index))
            .map(|(_, cell)| cell)
            .collect()
    };
    table.set_header(shown(header));
    for row in rows {
        table.add_row(shown(row));
    }
    for column in table.column_iter_mut() {
        column.set_padding((1, 0));
    }
    table
}

/// Columns that a line takes; colours take none.
fn line_width(line: &str) -> usize {
    let mut is_colour = false;
    let shown = line.chars().filter(|&c| {
        let counts = !is_colour && c != '\u{1b}';
        is_colour = c == '\u{1b}' || (is_colour && c != 'm');
        counts
    });
    shown.count()
}

/// A line across the table.
const RULE: LineStyle = LineStyle::none().fill('─').junction('─');

fn cells(row: &Row) -> Vec<Cell> {
    let [total_in, total_out] = match row.totals {
        Totals::None => ["-".to_owned(), "-".to_owned()],
        Totals::Sums(before, out) => [total(before), total(out)],
        Totals::Observations(before, out) => [before, out].map(|of| format!("{} obs.", count(of.ints))),
        Totals::Values(all, equal) => [all, equal].map(|of| format!("{} values", count(i128::from(of)))),
    };
    let is_folded = row.pipeline == "optimized";
    let verdict = match row.totals {
        _ if !row.failures.is_empty() => Cell::new("FAILED").fg(Color::Red).add_attribute(Attribute::Bold),
        Totals::Values(..) if is_folded => Cell::new("same values").fg(Color::Green),
        Totals::Sums(..) | Totals::Observations(..) if is_folded => Cell::new("conserved").fg(Color::Green),
        _ => Cell::new("untouched").fg(Color::Green),
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
