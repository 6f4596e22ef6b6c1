//! Numbers for people.
//!
//! In: counts, bytes, totals. Out: short text. Exact where exactness is the point: totals of integers show every digit.

use crate::sink::exact::Total;

/// `1234567` as `1,234,567`.
pub fn count(number: i128) -> String {
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
    let mut value = number as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    match value {
        _ if unit == "B" => format!("{number} B"),
        value if value < 10.0 => format!("{value:.2} {unit}"),
        value if value < 100.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}

/// A total: integers with every digit, doubles with three decimals.
pub fn total(total: Total) -> String {
    let doubles = total.doubles.value();
    if doubles == 0.0 {
        return count(total.ints);
    }
    let whole = count(doubles.trunc() as i128 + total.ints);
    let thousandths = (doubles.fract().abs() * 1000.0) as u32;
    format!("{whole}.{thousandths:03}")
}

/// How much less `out` is than `before`: `-87 %`.
pub fn change(before: u64, out: u64) -> String {
    if before == 0 {
        return String::new();
    }
    format!("{:+.0} %", (out as f64 / before as f64 - 1.0) * 100.0)
}
