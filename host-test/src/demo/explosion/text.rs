//! The scene in words: for people, and for programs.
//!
//! In: an [`Explosion`]. Out: one line for each thing that was asked, or a JSON object.

use super::super::numbers::count;
use super::Explosion;
use crate::shop::leak::{METRIC, USER_ID};
use serde_json::{Value, json};
use std::time::Duration;

/// The scene, a line each.
pub fn render(it: &Explosion) -> String {
    let number = |number: usize| count(number as i128);
    let seconds = |duration: Duration| format!("{:.1} s", duration.as_secs_f64());
    let reacted = match it.contained_after {
        Some(after) => format!(
            "in leaked export {} of {}, {} ms after the first; Envoy's stats showed it after {}",
            it.raw_exports + 1,
            it.leaked_exports,
            count(after.as_millis() as i128),
            it.shown_after.map_or_else(|| "no time at all: never".to_owned(), seconds)
        ),
        None => "never".to_owned(),
    };
    let marks: Vec<String> = it.marks.iter().map(|mark| format!("phoenix_folded=\"{mark}\"")).collect();
    let (counted, raw, folded) = it.totals;
    let restored = match it.restored_after {
        Some(after) => format!(
            "{} of {} streams raw again, {} after the last new one; none counted twice",
            it.restored,
            it.staff - it.kept_raw,
            seconds(after)
        ),
        None if it.ruled.is_short => "nothing: the run was too short for it".to_owned(),
        None => "nothing".to_owned(),
    };
    let at = |at_ns: u64| format!("{:.1} s", (at_ns as f64 - it.ruled.begin_ns as f64) / 1e9);
    let rule = match (it.ruled.from_ns, it.ruled.until_ns) {
        (None, _) => "none: budgets alone".to_owned(),
        (Some(from_ns), until_ns) => format!(
            "all of the metric folds without {USER_ID} from {} to {}, in {} gateways",
            at(from_ns),
            until_ns.map_or_else(|| "the end".to_owned(), at),
            it.writers.len()
        ),
    };
    let untouched = if it.ruled.from_ns.is_some() { ", but for that time" } else { "" };
    let lines = [
        ("contained", reacted),
        (
            "leaked raw",
            format!("{} series; beyond the budget: {}", number(it.leaked_raw), number(it.beyond_share)),
        ),
        (
            "folded",
            format!(
                "{} streams into {} series, {}",
                count(i128::from(it.guilty)),
                number(it.folded_series),
                marks.join(" and ")
            ),
        ),
        ("rule", rule),
        (
            "untouched",
            format!("{} streams without {USER_ID}, byte for byte{untouched}", number(it.innocents)),
        ),
        (
            "series",
            format!("{} in the whole run, the budget is {}", number(it.series), count(i128::from(it.share))),
        ),
        (
            "total",
            format!(
                "{} in = {} raw + {} folded out, in each of {} groups",
                count(counted),
                count(raw),
                count(folded),
                number(it.groups)
            ),
        ),
        ("restored", restored),
        (
            "module",
            format!(
                "{} points contained, at most {} raw streams admitted of all metrics",
                count(i128::from(it.contained_points)),
                count(i128::from(it.admitted_most))
            ),
        ),
    ];
    let mut out = format!(
        "  {USER_ID} leaked into {METRIC}: {} new streams{}\n\n",
        count(i128::from(it.guilty)),
        if it.failures.is_empty() { ", contained" } else { ": FAILED" }
    );
    out.extend(lines.map(|(what, text)| format!("  {what:<10}  {text}\n")));
    out
}

/// The scene for programs. Totals are strings: a JSON number loses integers above 2⁵³.
pub fn document(it: &Explosion) -> Value {
    let ms = |duration: Option<Duration>| duration.map(|duration| duration.as_millis() as u64);
    let (counted, raw, folded) = it.totals;
    json!({
        "metric": METRIC,
        "label": USER_ID,
        "share": it.share,
        "rule_from_ns": it.ruled.from_ns.map(|at| at.to_string()),
        "rule_until_ns": it.ruled.until_ns.map(|at| at.to_string()),
        "rule_writers": it.writers,
        "streams": { "with_label": it.guilty, "kept": it.staff, "without_label": it.innocents },
        "leaked_exports": it.leaked_exports,
        "raw_exports_before_containment": it.raw_exports,
        "contained_after_ms": ms(it.contained_after),
        "shown_after_ms": ms(it.shown_after),
        "leaked_raw_series": it.leaked_raw,
        "series_beyond_share": it.beyond_share,
        "series_out": it.series,
        "folded_series": it.folded_series,
        "marks": it.marks,
        "points_in": it.points.0,
        "points_out": it.points.1,
        "groups": it.groups,
        "total_in": counted.to_string(),
        "total_raw": raw.to_string(),
        "total_folded": folded.to_string(),
        "restored": it.restored,
        "kept_raw": it.kept_raw,
        "restored_after_ms": ms(it.restored_after),
        "points_contained": it.contained_points,
        "admitted_most": it.admitted_most,
        "failures": it.failures,
    })
}
