//! Numbers and labels in words.

use super::state::Folded;
use std::fmt::Write;

/// A number of series: `24,310`.
pub fn count(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Labels: `user.id`, `user.id and k8s.pod.name`, `a, b and c`.
pub fn labels(folded: &Folded) -> String {
    let names: Vec<&str> = folded.iter().map(|label| label.key.as_str()).collect();
    match names.as_slice() {
        [] => "no label".to_owned(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `is`, or `are` of several.
pub fn verb(folded: &Folded) -> &'static str {
    if folded.len() > 1 { "are" } else { "is" }
}

/// A span of time: `12 min`.
pub fn span(ns: u64) -> String {
    match ns / 1_000_000_000 {
        s if s < 120 => format!("{s} s"),
        s if s < 7_200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3_600),
    }
}

/// A metric, and whose it is where tenants have names.
pub fn metric(tenant: &str, metric: &str) -> String {
    if tenant.is_empty() { metric.to_owned() } else { format!("{metric} of {tenant}") }
}

/// Places of queries, and how many more there are.
pub fn queries(named: &[String], all: u64) -> String {
    let mut text = named.join("; ");
    let more = all.saturating_sub(named.len() as u64);
    if more > 0 {
        let _ = write!(text, "; {more} more");
    }
    text
}
