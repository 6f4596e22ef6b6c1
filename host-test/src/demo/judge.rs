//! Truth against books: one row per metric.
//!
//! In: what the shop knows it was acknowledged, what the sink received, the plan, the gateways. Out: a [`Verdict`]: rows with the failures of each metric, and what
//! is wrong beside any metric. What is asked: the total out is the total in, over all gateways; a folded metric has exactly the series that the plan
//! predicts for the pods of each gateway, by set and not only by number; a passing one has exactly the points that were sent, byte for byte; no anomaly. Of histograms and summaries the total
//! is number, sum and every bucket of the observations; of gauges every folded value is computed from the raw ones ([`values`]).
//! Limit: rules are looked up by metric name alone, so plans with matchers on labels are not judged here.

/// Gauges and up-down counters.
pub mod values;

use super::decisions::Story;
use super::explosion::Explosion;
use crate::shop::catalogue::METRICS;
use crate::shop::pod::POD_LABEL;
use crate::shop::{Truth, leak};
use crate::sink::books::{Books, Finding, MetricBook, Side};
use crate::sink::exact::{DOUBLE_TOLERANCE, Total};
use crate::sink::identity::{Labels, canonical};
use crate::sink::series::{Kind, Series};
use phoenix_plan::{DurationMs, Fold, Pipeline, Plan};
use std::collections::BTreeSet;
use values::{Declared, Function};

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
    /// What is conserved.
    pub totals: Totals,
    /// What is wrong; empty is good.
    pub failures: Vec<String>,
}

/// What of a metric must be the same on both sides.
#[derive(Clone, Copy, Debug)]
pub enum Totals {
    /// Nothing but the points themselves.
    None,
    /// Sums, in and out.
    Sums(Total, Total),
    /// Observations and their sum, in and out.
    Observations(Total, Total),
    /// Folded values, and how many of them are what the raw ones make.
    Values(u64, u64),
}

impl Totals {
    /// In and out as text, for programs.
    pub fn texts(&self) -> [Option<String>; 2] {
        match self {
            Totals::None => [None, None],
            Totals::Sums(before, after) | Totals::Observations(before, after) => {
                [Some(before.to_string()), Some(after.to_string())]
            }
            Totals::Values(all, equal) => [Some(all.to_string()), Some(equal.to_string())],
        }
    }
}

/// The judgement of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// One row per metric, in the order of the shop.
    pub rows: Vec<Row>,
    /// The scene in which a label leaks, where it was played.
    pub explosion: Option<Explosion>,
    /// What the control host decided, where there was one.
    pub story: Option<Story>,
    /// What is wrong beside any metric of the shop.
    pub failures: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.all_failures().is_empty()
    }

    /// Everything that is wrong, with the metric's name.
    pub fn all_failures(&self) -> Vec<String> {
        let of_rows = self
            .rows
            .iter()
            .flat_map(|row| row.failures.iter().map(|text| format!("{}: {text}", row.metric)));
        let of_scene = self.explosion.iter().flat_map(|it| &it.failures);
        let of_scene = of_scene.map(|text| format!("{}: {text}", leak::METRIC));
        let of_story = self.story.iter().flat_map(|it| &it.failures);
        let of_story = of_story.map(|text| format!("decisions: {text}"));
        of_rows.chain(of_scene).chain(of_story).chain(self.failures.iter().cloned()).collect()
    }
}

/// Judges a run.
pub fn judge(truth: &Truth, books: &Books, plan: &Plan, nodes: &[&str]) -> Verdict {
    let homes = Homes { truth, plan, nodes };
    let findings = books.findings();
    let mut verdict = Verdict::default();
    for spec in METRICS {
        verdict.rows.push(judge_metric(spec.name, books, homes, &findings));
    }
    let beside = [WARM_UP_METRIC, leak::METRIC];
    let known = |name: &str| beside.contains(&name) || METRICS.iter().any(|spec| spec.name == name);
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

/// Whose series is it? Each gateway folds the streams of its own pods, and its folded series bear its name.
#[derive(Clone, Copy)]
struct Homes<'a> {
    truth: &'a Truth,
    plan: &'a Plan,
    /// `node.id` of each gateway; none: there is one, and it has no name.
    nodes: &'a [&'a str],
}

impl Homes<'_> {
    /// The gateway of a stream that was sent.
    fn of_sent(&self, resource: &Labels) -> &str {
        let home = resource.get(POD_LABEL).and_then(|pod| self.truth.homes.get(pod));
        home.and_then(|home| self.nodes.get(*home)).copied().unwrap_or_default()
    }

    /// The gateway that wrote a folded series: a writer is a node, `@`, and when its process began.
    fn of_folded<'l>(&self, point: &'l Labels) -> &'l str {
        let writer = point.get(&self.plan.writer_label).map_or("", String::as_str).trim_matches('"');
        if self.nodes.is_empty() { "" } else { writer.split('@').next().unwrap_or_default() }
    }
}

fn judge_metric(name: &str, books: &Books, homes: Homes<'_>, findings: &[Finding]) -> Row {
    let Homes { truth, plan, .. } = homes;
    let empty = MetricBook::default();
    let sent = truth.books.metric(name).unwrap_or(&empty);
    let received = books.metric(name).unwrap_or(&empty);
    let rule = plan.rule_for(b"", name.as_bytes(), |_| None, |_| None).map(|(_, rule)| rule);
    let fold = rule.filter(|rule| rule.pipeline == Pipeline::Optimized).and_then(|rule| rule.fold.as_ref());
    let fold = fold.filter(|fold| sent.kinds.iter().all(|kind| is_folded(*kind, fold)));
    let mut failures = Vec::new();
    let expected = expected_series(&sent.raw, fold, homes);
    match fold {
        Some(_) => failures.extend(fold_failures(received, &expected, homes)),
        None => failures.extend(pass_failures(sent, received)),
    }
    let totals = totals(name, received, fold, homes, &mut failures);
    if let Some(fold) = fold {
        failures.extend(exemplar_failures(&sent.raw, &received.folded, fold, plan));
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
        series_out: stored(&received.raw, plan).len() + written(&received.folded, homes).len(),
        series_expected: expected.len(),
        points: (sent.points(), received.points()),
        bytes: (sent.bytes, received.bytes),
        totals,
        failures,
    }
}

/// Whether a fold takes points of a kind: sums that only grow and histograms as they are, the rest where it declares what becomes of them.
fn is_folded(kind: Kind, fold: &Fold) -> bool {
    match kind {
        Kind::Summary => fold.summary.is_some(),
        Kind::Gauge => fold.gauge.is_some(),
        Kind::UpDown => fold.up_down_counter.is_some(),
        _ => true,
    }
}

/// What a fold declares about last values; none: they pass. `avg` is not judged: it writes metrics of other names.
fn declared(kind: Kind, fold: &Fold, plan: &Plan) -> Option<Declared> {
    let word = if kind == Kind::Gauge { fold.gauge } else { fold.up_down_counter };
    let function = match word? {
        phoenix_plan::Function::Sum => Function::Sum,
        phoenix_plan::Function::Min => Function::Min,
        phoenix_plan::Function::Max => Function::Max,
        phoenix_plan::Function::Last => Function::Last,
        phoenix_plan::Function::Count => Function::Count,
        phoenix_plan::Function::Avg => return None,
    };
    let ns = |duration: DurationMs| duration.0 * 1_000_000;
    Some(Declared {
        function,
        window_ns: ns(fold.window),
        offset_ns: ns(fold.offset()),
        expiry_ns: ns(fold.value_expiry(plan.stream_expiry)),
    })
}

/// What is conserved of a metric, and what is wrong with it.
fn totals(
    name: &str,
    received: &MetricBook,
    fold: Option<&Fold>,
    homes: Homes<'_>,
    failures: &mut Vec<String>,
) -> Totals {
    let Homes { truth, plan, .. } = homes;
    let run_start_ns = truth.books.config.run_start_ns;
    let Some((sent, drawn)) = truth.books.metric(name).zip(truth.total(name)) else { return Totals::None };
    let all = |is: fn(Kind) -> bool| sent.kinds.iter().all(|kind| is(*kind));
    if all(Kind::has_total) {
        let total_out = received.total(run_start_ns);
        failures.extend(total_failure(drawn, total_out));
        return Totals::Sums(drawn, total_out);
    }
    if all(Kind::has_observations) {
        let (before, after) = (sent.observations(run_start_ns), received.observations(run_start_ns));
        failures.extend(total_failure(drawn, after.total()));
        failures.extend(before.difference(&after, DOUBLE_TOLERANCE));
        return Totals::Observations(drawn, after.total());
    }
    let kind = sent.kinds.first().copied().unwrap_or(Kind::Unknown);
    let Some((fold, declared)) = fold.and_then(|fold| Some((fold, declared(kind, fold, plan)?))) else {
        return Totals::None;
    };
    let series_of = |resource: &Labels, point: &Labels| {
        let key = projected(resource, point, |key, is_resource| expects(Some(fold), plan, key, is_resource));
        format!("{} {key}", homes.of_sent(resource))
    };
    let stored = |resource: &Labels, point: &Labels| {
        let key = projected(resource, point, |key, is_resource| stores(plan, key, is_resource));
        format!("{} {key}", homes.of_folded(point))
    };
    let compared = values::compare((&sent.raw, &received.folded), declared, series_of, stored);
    let wrong = compared.failures.len();
    failures.extend(compared.failures.into_iter().take(FINDINGS_SHOWN));
    if wrong > FINDINGS_SHOWN {
        failures.push(format!("{} more values", wrong - FINDINGS_SHOWN));
    }
    if compared.values == 0 {
        failures.push("no folded value".to_owned());
    }
    Totals::Values(compared.values, compared.equal)
}

/// Exemplars that arrived were sent, and say what their point no longer says.
fn exemplar_failures(sent: &Side, received: &Side, fold: &Fold, plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    for (key, found) in &received.exemplars {
        let Some(was) = sent.exemplars.get(key) else {
            out.push(format!("an exemplar that nobody sent: {key:?}"));
            continue;
        };
        let dropped = |labels: &Labels, is_resource: bool| -> Labels {
            let mut labels = labels.clone();
            labels.retain(|key, _| {
                expects(None, plan, key, is_resource) && !expects(Some(fold), plan, key, is_resource)
            });
            labels
        };
        let mut wanted = was.filtered.clone();
        wanted.extend(dropped(&was.resource, true));
        wanted.extend(dropped(&was.point, false));
        if found.filtered != wanted {
            out.push(format!("exemplar {key:?} says {:?}, not {wanted:?}", found.filtered));
        }
    }
    out.truncate(FINDINGS_SHOWN);
    if received.exemplars.is_empty() && !sent.exemplars.is_empty() {
        out.push(format!("no exemplar arrived of {}", sent.exemplars.len()));
    }
    out
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

fn fold_failures(received: &MetricBook, expected: &BTreeSet<String>, homes: Homes<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if received.raw.points > 0 {
        let (points, series) = (received.raw.points, received.raw.series.len());
        out.push(format!("not folded: {points} points of {series} streams passed raw"));
    }
    let found = written(&received.folded, homes);
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

/// What the plan makes of the streams that were sent: folded series by gateway.
fn expected_series(sent: &Side, fold: Option<&Fold>, homes: Homes<'_>) -> BTreeSet<String> {
    let keeps = |key: &str, is_resource| expects(fold, homes.plan, key, is_resource);
    if fold.is_none() {
        return project(sent, keeps);
    }
    let of = |series: &Series| {
        let key = projected(&series.resource, &series.point, keeps);
        format!("{} {key}", homes.of_sent(&series.resource))
    };
    sent.series.values().map(of).collect()
}

/// What the backend stores of folded series, by gateway.
fn written(side: &Side, homes: Homes<'_>) -> BTreeSet<String> {
    let of = |series: &Series| {
        let keeps = |key: &str, is_resource| stores(homes.plan, key, is_resource);
        let key = projected(&series.resource, &series.point, keeps);
        format!("{} {key}", homes.of_folded(&series.point))
    };
    side.series.values().map(of).collect()
}

/// Whether a fold leaves a label that the backend stores.
fn expects(fold: Option<&Fold>, plan: &Plan, key: &str, is_resource: bool) -> bool {
    let keeps = fold.is_none_or(|fold| {
        if is_resource {
            fold.labels.keeps_resource(key.as_bytes())
        } else {
            fold.labels.keeps_attribute(key.as_bytes())
        }
    });
    keeps && (!is_resource || plan.promotes_resource(key.as_bytes()))
}

/// What the backend stores: promoted resource attributes and point attributes, without the marks of the fold.
fn stored(side: &Side, plan: &Plan) -> BTreeSet<String> {
    project(side, |key, is_resource| stores(plan, key, is_resource))
}

fn stores(plan: &Plan, key: &str, is_resource: bool) -> bool {
    if is_resource {
        plan.promotes_resource(key.as_bytes())
    } else {
        key != plan.mark_label && key != plan.writer_label
    }
}

fn project(side: &Side, keeps: impl Fn(&str, bool) -> bool) -> BTreeSet<String> {
    side.series.values().map(|series| projected(&series.resource, &series.point, &keeps)).collect()
}

fn projected(resource: &Labels, point: &Labels, keeps: impl Fn(&str, bool) -> bool) -> String {
    let filtered = |labels: &Labels, is_resource| -> Labels {
        let mut labels = labels.clone();
        labels.retain(|key, _| keeps(key, is_resource));
        labels
    };
    format!("{}{}", canonical(&filtered(resource, true)), canonical(&filtered(point, false)))
}
