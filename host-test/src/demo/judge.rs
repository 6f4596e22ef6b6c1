//! Truth against books: one row per metric.
//!
//! In: what the shop knows it was acknowledged, what the sink received, the plan. Out: a [`Verdict`]: rows with the failures of each metric, and what
//! is wrong beside any metric. What is asked: the total out is the total in; a folded metric has exactly the series that the plan
//! predicts, by set and not only by number; a passing one has exactly the points that were sent, byte for byte; no anomaly.
//! Limit: rules are looked up by metric name alone, so plans with matchers on labels are not judged here.

use crate::shop::Truth;
use crate::shop::catalogue::METRICS;
use crate::sink::books::{Books, Finding, MetricBook, Side};
use crate::sink::exact::Total;
use crate::sink::identity::{Labels, canonical};
use phoenix_plan::{Fold, Pipeline, Plan};
use std::collections::BTreeSet;

/// The metric of the warm-up; it is in no truth.
pub const WARM_UP_METRIC: &str = "phoenix_demo_warm_up";
/// So many findings of a metric are spelt out; the rest is counted.
const FINDINGS_SHOWN: usize = 3;

/// One metric.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name.
    pub metric: String,
    /// `optimized` or `full_fidelity`.
    pub pipeline: &'static str,
    /// Distinct streams in.
    pub streams_in: usize,
    /// Distinct series out, as the backend stores them.
    pub series_out: usize,
    /// What the plan predicts.
    pub series_expected: usize,
    /// Points in and out.
    pub points: (u64, u64),
    /// Bytes of the metric's encoded messages in and out.
    pub bytes: (u64, u64),
    /// Totals in and out; `None` where the kind has none.
    pub totals: Option<(Total, Total)>,
    /// What is wrong; empty is good.
    pub failures: Vec<String>,
}

/// The judgement of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// One row per metric, in the order of the shop.
    pub rows: Vec<Row>,
    /// What is wrong beside any metric of the shop.
    pub failures: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.failures.is_empty() && self.rows.iter().all(|row| row.failures.is_empty())
    }

    /// Everything that is wrong, with the metric's name.
    pub fn all_failures(&self) -> Vec<String> {
        let of_rows = self
            .rows
            .iter()
            .flat_map(|row| row.failures.iter().map(|text| format!("{}: {text}", row.metric)));
        of_rows.chain(self.failures.iter().cloned()).collect()
    }
}

/// Judges a run.
pub fn judge(truth: &Truth, books: &Books, plan: &Plan) -> Verdict {
    let findings = books.findings();
    let mut verdict = Verdict::default();
    for spec in METRICS {
        verdict.rows.push(judge_metric(spec.name, truth, books, plan, &findings));
    }
    let known = |name: &str| name == WARM_UP_METRIC || METRICS.iter().any(|spec| spec.name == name);
    let tenants: BTreeSet<&String> = truth.books.metrics.keys().map(|(tenant, _)| tenant).collect();
    for (tenant, metric) in books.metrics.keys() {
        if !known(metric) {
            verdict.failures.push(format!("a metric that nobody sent arrived: {metric}"));
        } else if metric != WARM_UP_METRIC && !tenants.contains(tenant) {
            verdict.failures.push(format!("{metric} arrived for the tenant {tenant:?} that sent nothing"));
        }
    }
    let exports = truth.exports;
    if exports.dropped > 0 || exports.unanswered > 0 {
        verdict.failures.push(format!(
            "{} exports given up, {} attempts unanswered",
            exports.dropped, exports.unanswered
        ));
    }
    verdict
}

fn judge_metric(name: &str, truth: &Truth, books: &Books, plan: &Plan, findings: &[Finding]) -> Row {
    let empty = MetricBook::default();
    let sent = truth.books.metric(name).unwrap_or(&empty);
    let received = books.metric(name).unwrap_or(&empty);
    let rule = plan.rule_for(name.as_bytes(), |_| None, |_| None).map(|(_, rule)| rule);
    let fold = rule.filter(|rule| rule.pipeline == Pipeline::Optimized).and_then(|rule| rule.fold.as_ref());
    let mut failures = Vec::new();
    let has_total = !sent.kinds.is_empty() && sent.kinds.iter().all(|kind| kind.has_total());
    let total_in = truth.total(name).filter(|_| has_total);
    let totals = total_in.map(|total_in| (total_in, received.total(books.config.run_start_ns)));
    if let Some((total_in, total_out)) = totals {
        failures.extend(total_failure(total_in, total_out));
    }
    let expected = expected_series(&sent.raw, fold, plan);
    match fold {
        Some(_) => failures.extend(fold_failures(received, &expected, plan)),
        None => failures.extend(pass_failures(sent, received)),
    }
    let of_metric: Vec<&Finding> = findings.iter().filter(|finding| finding.metric == name).collect();
    failures.extend(of_metric.iter().take(FINDINGS_SHOWN).map(ToString::to_string));
    if of_metric.len() > FINDINGS_SHOWN {
        failures.push(format!("{} more anomalies", of_metric.len() - FINDINGS_SHOWN));
    }
    Row {
        metric: name.to_owned(),
        pipeline: if fold.is_some() { "optimized" } else { "full_fidelity" },
        streams_in: sent.raw.series.len(),
        series_out: stored(&received.raw, plan).len() + stored(&received.folded, plan).len(),
        series_expected: expected.len(),
        points: (sent.points(), received.points()),
        bytes: (sent.bytes, received.bytes),
        totals,
        failures,
    }
}

fn total_failure(total_in: Total, total_out: Total) -> Option<String> {
    if total_in.agrees(total_out) {
        return None;
    }
    let ints = total_out.ints - total_in.ints;
    let doubles = total_out.doubles.value() - total_in.doubles.value();
    let relative = total_in.relative_difference(total_out);
    Some(match (ints, relative) {
        (0, _) => format!(
            "total out {total_out} is not total in {total_in}: off by {doubles:e}, {relative:e} relative"
        ),
        _ => format!("total out {total_out} is not total in {total_in}: off by {ints}"),
    })
}

fn fold_failures(received: &MetricBook, expected: &BTreeSet<String>, plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    if received.raw.points > 0 {
        let (points, series) = (received.raw.points, received.raw.series.len());
        out.push(format!("not folded: {points} points of {series} streams passed raw"));
    }
    let found = stored(&received.folded, plan);
    let missing: Vec<&String> = expected.difference(&found).collect();
    let surplus: Vec<&String> = found.difference(expected).collect();
    for (what, series) in [("missing", missing), ("not in the plan", surplus)] {
        if let Some(example) = series.first() {
            out.push(format!("{} folded series {what}, such as {example}", series.len()));
        }
    }
    // As a backend sees them: two resources that differ in what it does not store would write one series.
    if found.len() != received.folded.series.len() {
        out.push(format!("{} identities write {} stored series", received.folded.series.len(), found.len()));
    }
    out
}

fn pass_failures(sent: &MetricBook, received: &MetricBook) -> Vec<String> {
    let mut out = Vec::new();
    if received.folded.points > 0 {
        out.push(format!("{} points folded that should pass", received.folded.points));
    }
    if sent.points() != received.points() {
        out.push(format!("{} points sent, {} received", sent.points(), received.points()));
    } else if sent.raw.print != received.raw.print {
        out.push("points changed on the way: same number, other bytes".to_owned());
    }
    out
}

/// What the plan makes of the streams that were sent.
fn expected_series(sent: &Side, fold: Option<&Fold>, plan: &Plan) -> BTreeSet<String> {
    let keeps = |key: &str, is_resource: bool| {
        fold.is_none_or(|fold| {
            if is_resource {
                fold.labels.keeps_resource(key.as_bytes())
            } else {
                fold.labels.keeps_attribute(key.as_bytes())
            }
        })
    };
    project(sent, |key, is_resource| {
        (!is_resource || plan.promotes_resource(key.as_bytes())) && keeps(key, is_resource)
    })
}

/// What the backend stores: promoted resource attributes and point attributes, without the marks of the fold.
fn stored(side: &Side, plan: &Plan) -> BTreeSet<String> {
    project(side, |key, is_resource| {
        if is_resource {
            plan.promotes_resource(key.as_bytes())
        } else {
            key != plan.mark_label && key != plan.writer_label
        }
    })
}

fn project(side: &Side, keeps: impl Fn(&str, bool) -> bool) -> BTreeSet<String> {
    let filtered = |labels: &Labels, is_resource| -> Labels {
        labels
            .iter()
            .filter(|(key, _)| keeps(key, is_resource))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let text = |series: &crate::sink::series::Series| {
        format!(
            "{}{}",
            canonical(&filtered(&series.resource, true)),
            canonical(&filtered(&series.point, false))
        )
    };
    side.series.values().map(text).collect()
}
