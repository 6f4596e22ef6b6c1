//! The report for machines. Times are milliseconds since 1970; an error that is infinite is `null` with `"infinite": true`.

use super::Report;
use crate::verify::compare::Comparison;
use crate::verify::verdict::Verdict;
use serde_json::{Value, json};

/// Version of this form: counts up when a field changes its meaning or goes.
const FORM: u32 = 1;

/// The whole document.
pub fn render(report: &Report) -> serde_json::Result<String> {
    let (good, counted) = report.score();
    let verdicts: serde_json::Map<String, Value> = Verdict::ALL
        .iter()
        .map(|verdict| {
            Ok((
                serde_json::to_value(verdict)?.as_str().unwrap_or_default().to_owned(),
                json!(report.count(*verdict)),
            ))
        })
        .collect::<serde_json::Result<_>>()?;
    let queries: Vec<Value> = report
        .rows
        .iter()
        .map(|row| {
            json!({
                "file": row.query.file,
                "place": row.query.place,
                "kind": row.query.kind,
                "source": row.query.source,
                "query": row.query.text,
                "verdict": row.outcome.verdict,
                "reasons": row.outcome.reasons,
                "notes": row.query.notes,
                "comparison": row.outcome.comparison.as_ref().map(comparison),
            })
        })
        .collect();
    let document = json!({
        "form": FORM,
        "full": report.urls[0],
        "folded": report.urls[1],
        "down": report.down,
        "start_ms": report.span.start_ms,
        "end_ms": report.span.end_ms,
        "step_ms": report.span.step_ms,
        "edge_ms": report.span.edge_ms,
        "tolerance": report.tolerance,
        "outliers": report.outliers,
        "fail_below": report.fail_below,
        "plan": report.plan.as_ref().map(|(file, version)| json!({ "file": file.display().to_string(), "version": version })),
        "good": good,
        "counted": counted,
        "share": report.share(),
        "passed": report.passes(),
        "verdicts": verdicts,
        "affinity": report.affinity.to_json(),
        "foreign_targets": report.foreign,
        "complaints": report.complaints,
        "queries": queries,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn comparison(comparison: &Comparison) -> Value {
    let worst = comparison.worst.as_ref().map(|worst| {
        json!({
            "error": number(worst.error),
            "infinite": worst.error.is_infinite(),
            "labels": worst.labels,
            "time_ms": worst.time_ms,
            "full": worst.full.to_string(),
            "folded": worst.folded.to_string(),
        })
    });
    json!({
        "series": comparison.series,
        "unmatched_series": comparison.unmatched,
        "points": comparison.points,
        "equal_points": comparison.equal,
        "points_outside_tolerance": comparison.outside,
        "missing_points": comparison.missing,
        "edge_points": comparison.edge,
        "mean_error": comparison.mean_error(),
        "worst": worst,
        "remarks": comparison.remarks,
    })
}

fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}
