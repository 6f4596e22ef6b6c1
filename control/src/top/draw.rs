//! The screen, drawn.
//!
//! Enters: what is known and what is to be shown. Leaves: one frame: a header, what is wrong, the table or one metric's details, the keys. A terminal that is too
//! small shows less.

use super::heard::Snapshot;
use super::screen::Screen;
use crate::report::choice::{Row, Sort};
use crate::report::tables::{self, estimate, number, share, short, tenant_name};
use crate::show::{clean, count};
use phoenix_report::view::Budget;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as Cells, Table, TableState, Wrap};
use std::net::SocketAddr;

/// Lines on what is wrong: the rest of the screen is for metrics.
const REMARKS_MAX: usize = 3;
/// From here on a share is nearly used up.
const NEARLY: f64 = 0.8;
const KEYS: &str = "q quit  s sort  r reverse  / filter  t tenant  ↑↓ choose  ⏎ details  p pause";
const KEYS_OF_DETAIL: &str = "q quit  ↑↓ scroll  ⏎ back  p pause";

/// Draws a frame.
pub fn draw(
    frame: &mut Frame<'_>,
    screen: &Screen,
    known: &Snapshot,
    address: SocketAddr,
    now_unix_nano: u64,
) {
    let remarks = known.remarks();
    let remarks = &remarks[..remarks.len().min(REMARKS_MAX)];
    let first = header(known, address, now_unix_nano);
    let [head, wrong, body, foot] = Layout::vertical([
        Constraint::Length(2 + u16::from(first.width() > usize::from(frame.area().width))),
        Constraint::Length(remarks.len() as u16),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    // On a narrow terminal the first line becomes two.
    let lines = vec![first, chosen_how(screen)];
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), head);
    let lines: Vec<Line<'_>> = remarks.iter().map(|line| Line::styled(line.as_str(), warning())).collect();
    frame.render_widget(Paragraph::new(lines), wrong);
    let (rows, chosen) = screen.rows(known);
    match (screen.detail, rows.get(chosen)) {
        (Some(from), Some(row)) => detail(frame, body, row, from),
        _ if rows.is_empty() => {
            let text = if known.view.tenants.is_empty() { "no report yet" } else { "no such metric" };
            frame.render_widget(Paragraph::new(text).alignment(Alignment::Center), body);
        }
        _ => table(frame, body, screen, &rows, chosen),
    }
    let keys = if screen.detail.is_some() { KEYS_OF_DETAIL } else { KEYS };
    frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)), foot);
}

fn header<'a>(known: &Snapshot, address: SocketAddr, now_unix_nano: u64) -> Line<'a> {
    Line::from(vec![
        Span::styled(format!("phoenix top {address}: "), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(known.header(now_unix_nano)),
    ])
}

/// Which metrics, in which order.
fn chosen_how<'a>(screen: &Screen) -> Line<'a> {
    let choice = &screen.choice;
    let mut second = format!("by {}", choice.sort.title());
    if choice.is_reversed {
        second += ", reversed";
    }
    if let Some(tenant) = &choice.tenant {
        second += &format!(", tenant {}", tenant_name(tenant));
    }
    if let Some(metric) = &choice.metric {
        second += &format!(", metric {}", clean(metric));
    }
    if screen.is_typing || !choice.contains.is_empty() {
        second += &format!(", with /{}{}", clean(&choice.contains), if screen.is_typing { "▏" } else { "" });
    }
    let mut second = vec![Span::raw(second)];
    if screen.paused.is_some() {
        second.push(Span::styled("  PAUSED", warning().add_modifier(Modifier::BOLD)));
    }
    Line::from(second)
}

/// The columns; the sorted one is marked.
const COLUMNS: [(&str, Option<Sort>, u16); 9] = [
    ("tenant", None, 16),
    ("type", None, 12),
    ("active", Some(Sort::Active), 12),
    ("growth", Some(Sort::Growth), 10),
    ("share", Some(Sort::Share), 10),
    ("used", None, 6),
    ("admitted", Some(Sort::Admitted), 10),
    ("folded", Some(Sort::Folded), 10),
    ("points", Some(Sort::Points), 12),
];
/// Text stands on the left.
const TEXTS: usize = 2;
/// The name has at least this, whatever else does not fit.
const NAME_WIDTH_MIN: u16 = 24;

fn table(frame: &mut Frame<'_>, area: Rect, screen: &Screen, rows: &[Row<'_>], chosen: usize) {
    let shown = fitting(area.width);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let title = |text: &str, sort: Option<Sort>| match sort {
        Some(sort) if sort == screen.choice.sort => {
            format!("{text}{}", if screen.choice.is_reversed { "↑" } else { "↓" })
        }
        _ => text.to_owned(),
    };
    let mut head = vec![Cell::new(title("metric", Some(Sort::Name)))];
    let mut widths = vec![Constraint::Min(NAME_WIDTH_MIN)];
    for index in shown.iter().copied() {
        let (text, sort, width) = COLUMNS[index];
        head.push(cell(index, title(text, sort)));
        widths.push(Constraint::Length(width));
    }
    let lines = rows.iter().map(|row| {
        let values = values(row);
        let mut cells = vec![Cell::new(short(&row.metric.name))];
        cells.extend(shown.iter().map(|index| cell(*index, values[*index].clone())));
        Cells::new(cells).style(style(&row.metric.budget))
    });
    let widget = Table::new(lines, widths)
        .header(Cells::new(head).style(bold.add_modifier(Modifier::UNDERLINED)))
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    // From the first line on, unless the chosen one is below the screen: then it is the last.
    let visible = usize::from(area.height.saturating_sub(1)).max(1);
    let offset = (chosen + 1).saturating_sub(visible);
    let mut state = TableState::default().with_selected(Some(chosen)).with_offset(offset);
    frame.render_stateful_widget(widget, area, &mut state);
}

/// The columns there is room for; those that say least go first.
fn fitting(width: u16) -> Vec<usize> {
    const LEAST_FIRST: [usize; COLUMNS.len()] = [1, 8, 7, 5, 6, 3, 0, 4, 2];
    let mut shown: Vec<usize> = (0..COLUMNS.len()).collect();
    for least in LEAST_FIRST {
        let taken: u16 = shown.iter().map(|index| COLUMNS[*index].2 + 1).sum();
        if taken + NAME_WIDTH_MIN <= width {
            break;
        }
        shown.retain(|index| *index != least);
    }
    shown
}

fn cell<'a>(index: usize, text: String) -> Cell<'a> {
    let side = if index < TEXTS { Alignment::Left } else { Alignment::Right };
    Cell::new(Line::from(text).alignment(side))
}

fn values(row: &Row<'_>) -> [String; COLUMNS.len()] {
    let metric = row.metric;
    [
        tenant_name(&row.tenant.name),
        short(&metric.r#type),
        estimate(&metric.active),
        number(metric.growth),
        share(&metric.budget),
        tables::used(&metric.budget),
        count(metric.budget.admitted),
        count(metric.budget.folded_series),
        count(metric.points),
    ]
}

/// Yellow: nearly at its share. Red: something of it is folded because of it.
fn style(budget: &Budget) -> Style {
    let used = budget.used() as f64 / budget.share.max(1) as f64;
    match () {
        () if budget.folded_series > 0 => Style::new().fg(Color::Red),
        () if budget.share > 0 && used >= NEARLY => warning(),
        () => Style::new(),
    }
}

fn warning() -> Style {
    Style::new().fg(Color::Yellow)
}

/// One metric with all it has, from a line on.
fn detail(frame: &mut Frame<'_>, area: Rect, row: &Row<'_>, from: usize) {
    let text = tables::metrics(&[*row]) + &tables::findings(&[*row]);
    let mut lines: Vec<String> = text.lines().map(plain).collect();
    for decision in &row.metric.decisions {
        let (what, labels) = (short(&decision.what), short(&decision.labels.join(", ")));
        lines.push(String::new());
        lines.push(format!(
            "{} {what} {labels} in {}",
            tables::time(decision.time_unix_nano),
            short(&decision.process)
        ));
        lines.extend(wrapped(&clean(&decision.reason), usize::from(area.width).saturating_sub(2)));
    }
    let last = lines.len().saturating_sub(usize::from(area.height));
    let from = from.min(last).min(usize::from(u16::MAX)) as u16;
    let lines: Vec<Line<'_>> = lines.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(lines).scroll((from, 0)), area);
}

/// A sentence in lines of so many characters, indented, broken between words where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut room = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        match lines.last_mut() {
            Some(line) if length < room => {
                *line += &format!(" {word}");
                room -= length + 1;
            }
            _ => {
                lines.push(format!("  {word}"));
                room = width.saturating_sub(length);
            }
        }
    }
    lines
}

/// A line of a table without the marks for bold, which a terminal of our own does not take.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('\u{1b}') {
        out += &rest[..at];
        rest = rest[at..].split_once('m').map_or("", |(_, rest)| rest);
    }
    out + rest
}
