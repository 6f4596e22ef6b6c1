//! Numbers and progress for people.
//!
//! Enters: counts, bytes, totals, where a command is. Leaves: short text; integers keep every digit. Progress goes to standard error and only where that is a
//! terminal, so that what is printed can be piped and compared.

use crate::otlp::census::Total;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// The bar is drawn this often at most: more is not seen and costs.
const DRAWS_PER_SECOND: u8 = 5;
/// A line across a table.
const RULE: LineStyle = LineStyle::none().fill('─').junction('─');

/// `1234567` as `1,234,567`.
pub fn count(number: impl Into<i128>) -> String {
    let number = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0 { format!("-{out}") } else { out }
}

/// Bytes in decimal units, three digits.
pub fn bytes(number: u64) -> String {
    let (mut value, mut unit) = (number as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    match value {
        _ if unit == "B" => format!("{number} B"),
        value if value < 10.0 => format!("{value:.2} {unit}"),
        value if value < 100.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}

/// A total: integers with every digit, doubles with three decimals.
pub fn total(total: &Total) -> String {
    if !total.is_double() {
        return count(total.ints);
    }
    double(total.value())
}

/// A double with three decimals and its thousands apart.
pub fn double(value: f64) -> String {
    let thousandths = (value.abs() * 1000.0).round() as u128;
    let sign = if value < 0.0 && thousandths > 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", count((thousandths / 1000) as i128), thousandths % 1000)
}

/// How much less `after` is than `before`: `-87 %`.
pub fn change(before: u64, after: u64) -> String {
    if before == 0 {
        return String::new();
    }
    let percent = (after as f64 / before as f64 - 1.0) * 100.0;
    // What is left of a ten-thousandth is not nothing.
    if percent < -99.0 && after > 0 { format!("{percent:+.2} %") } else { format!("{percent:+.0} %") }
}

/// A number and its noun.
pub fn counted(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(number))
}

/// Text that others chose, fit for a terminal: control characters and those that turn the direction of writing show as `\u{fffd}`.
pub fn clean(text: &str) -> String {
    let is_bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_bad(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A table with a rule above, below its header and at its end; all columns but those in `left` are right-aligned. Lines end with their last letter.
pub fn table(header: &[&str], left: &[usize], rows: Vec<Vec<String>>, totals: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING.top_border(RULE).header_separator(RULE).bottom_border(RULE));
    // Rows stay rows: numbers are never broken.
    table.set_content_arrangement(ContentArrangement::Disabled);
    let cell = |index: usize, text: String| {
        let side = if left.contains(&index) { CellAlignment::Left } else { CellAlignment::Right };
        Cell::new(text).set_alignment(side)
    };
    let bold = |row: Vec<String>| -> Vec<Cell> {
        row.into_iter()
            .enumerate()
            .map(|(index, text)| cell(index, text).add_attribute(Attribute::Bold))
            .collect()
    };
    table.set_header(bold(header.iter().map(|text| (*text).to_owned()).collect()));
    for row in rows {
        table.add_row(row.into_iter().enumerate().map(|(index, text)| cell(index, text)));
    }
    totals.into_iter().for_each(|row| {
        table.add_row(bold(row));
    });
    for column in table.column_iter_mut() {
        column.set_padding((1, 0));
    }
    let lines: Vec<String> = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    lines.concat()
}

/// A bar over `length` steps of `unit`; hidden where standard error is no terminal.
pub fn bar(length: u64, unit: &str) -> ProgressBar {
    let bar =
        ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
    let template = format!("  {{bar:24.cyan/dim}} {{pos}}/{{len}} {unit}, {{eta}} left  {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar
}

/// `15s`, `1h`: a whole number and a unit, as plans write durations.
pub fn duration(text: &str) -> Result<Duration, String> {
    phoenix_plan::DurationMs::from_text(text)
        .map(|duration| Duration::from_millis(duration.as_millis()))
        .ok_or_else(|| "expected a whole number and one of ms, s, m, h, such as 15s".to_owned())
}

/// `512KiB`, `64MiB`, `2GiB`, or plain bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" | "B" => Some(1u64),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = scale.and_then(|scale| number.parse::<u64>().ok()?.checked_mul(scale));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected a number of bytes such as 65536, 512KiB, 64MiB or 2GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(-1_000), "-1,000");
        assert_eq!(double(-0.0004), "0.000");
        assert_eq!(double(-1234.5678), "-1,234.568");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(49_600_000), "49.6 MB");
        assert_eq!(change(200, 20), "-90 %");
        assert_eq!(change(50_000, 20), "-99.96 %");
        assert_eq!(counted(1, "request"), "1 request");
    }

    #[test]
    fn text_of_others_cannot_steer_a_terminal() {
        assert_eq!(clean("/cart?id=ä 1"), "/cart?id=ä 1");
        assert_eq!(clean("a\u{1b}[2Jb\n\u{9b}c\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d");
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1", Some(1)),
            ("2KiB", Some(2048)),
            ("1GiB", Some(1 << 30)),
            ("0", None),
            ("MiB", None),
            ("1.5MiB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
    }
}
