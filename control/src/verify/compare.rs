//! Two answers to one query, series by series.
//!
//! Enters: the series of both sides and what differs by design. Leaves: counts of points by how they compare, the worst point and where it
//! is, and what a chart needs. The rule, in order:
//!
//! 1. The mark and the writer are taken off the series of both sides. What then has the same labels is one series; two that become the
//!    same on one side are a difference, because a person would see two lines.
//! 2. Both sides answer at the same steps. A step with a value on both sides is compared: NaN equals NaN, infinities equal their like. The
//!    error is |full − folded| / max(|full|, |folded|), and nothing where the two are closer than rounding ([`ROUNDING`]).
//! 3. A step with a value on one side only is *missing*; within the edge of where a series begins or ends it is an *edge point*: counted
//!    and shown, not held against the answer. A gap on both sides (a stale series) is the same answer.
//! 4. Equal: no point missing, no edge point, no error over 1e-9. Within tolerance: no point missing, and at most the allowed share of points over the tolerance.
//!
//! Cost: sorts and one merge; the wrong choice for answers that are not on a common grid of steps.

use super::arguments::Span;
use super::prometheus::{Labels, Series};
use super::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};

/// Errors up to this count as equal: sums of doubles in another order differ by less.
pub const EQUAL: f64 = 1e-9;
/// Differences below this share of the largest value of the answer are rounding, also next to a zero.
const ROUNDING: f64 = 1e-9;
/// Differences below this are rounding whatever the scale: a ratio of nearly equal rates leaves 1e-16 where its like leaves 0.
const ROUNDING_ABSOLUTE: f64 = 1e-12;
/// Reasons about labels name at most this many.
const LABELS_NAMED_MAX: usize = 5;

/// Series of a side that a picture of what cannot be compared shows: more lines than a person tells apart.
const ALONE_MAX: usize = 24;

/// What counts as the same answer.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Largest relative error of a point.
    pub tolerance: f64,
    /// Share of points that may exceed it.
    pub outliers: f64,
    /// Labels that only folded series have.
    pub own_labels: [String; 2],
}

/// How two answers compare.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Series of each side.
    pub series: Sides,
    /// Series that only one side has.
    pub unmatched: Sides,
    /// Steps with a value on both sides.
    pub points: u64,
    /// Of those, within 1e-9.
    pub equal: u64,
    /// Of those, over the tolerance.
    pub outside: u64,
    /// Steps with a value on one side only, away from the edges, by the side that lacks it.
    pub missing: Sides,
    /// The same within the edges.
    pub edge: Sides,
    /// Sum of the relative errors of points with a finite one.
    pub error_sum: f64,
    /// The worst point.
    pub worst: Option<Worst>,
    /// The series with the worst point, or the first that one side lacks, as both sides have it.
    pub chart: Option<Chart>,
    /// Where no series is on both sides: the series, each on its own, at most [`ALONE_MAX`] of a side.
    pub alone: Vec<Chart>,
    /// What is odd about the labels, in words.
    pub remarks: Vec<String>,
}

/// One number for each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sides {
    /// The full side.
    pub full: u64,
    /// The folded side.
    pub folded: u64,
}

impl Sides {
    /// Both together.
    pub fn sum(self) -> u64 {
        self.full + self.folded
    }
}

impl Comparison {
    /// The mean relative error of the points compared, if any were.
    pub fn mean_error(&self) -> Option<f64> {
        (self.points > 0).then(|| self.error_sum / self.points as f64)
    }
}

/// The worst point.
#[derive(Clone, Debug, PartialEq)]
pub struct Worst {
    /// Relative error; infinite where one side is not a number.
    pub error: f64,
    /// Its series.
    pub labels: Labels,
    /// Its step, in milliseconds since 1970.
    pub time_ms: i64,
    /// What the full side says.
    pub full: f64,
    /// What the folded side says.
    pub folded: f64,
}

/// One series over the steps, as both sides have it; none where a side has no point.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Its labels.
    pub labels: Labels,
    /// Values of the full side, one a step.
    pub full: Vec<Option<f64>>,
    /// Values of the folded side, one a step.
    pub folded: Vec<Option<f64>>,
}

/// The relative error of two values; `floor` is the difference that rounding explains.
pub fn relative_error(full: f64, folded: f64, floor: f64) -> f64 {
    if full == folded || (full.is_nan() && folded.is_nan()) {
        return 0.0;
    }
    let difference = (full - folded).abs();
    if !difference.is_finite() {
        return f64::INFINITY;
    }
    if difference <= floor { 0.0 } else { difference / full.abs().max(folded.abs()) }
}

/// Compares two answers.
pub fn compare(full: &[Series], folded: &[Series], span: &Span, rule: &Rule) -> (Verdict, Comparison) {
    let mut comparison = Comparison::default();
    let full = by_labels(full, "full", rule, &mut comparison.remarks);
    let folded = by_labels(folded, "folded", rule, &mut comparison.remarks);
    comparison.series = Sides { full: full.len() as u64, folded: folded.len() as u64 };
    if full.is_empty() && folded.is_empty() {
        return (Verdict::NoData, comparison);
    }
    let doubled = !comparison.remarks.is_empty();
    let largest = full.values().flat_map(|points| points.values()).copied().filter(|value| value.is_finite());
    let floor = (largest.map(f64::abs).fold(0.0, f64::max) * ROUNDING).max(ROUNDING_ABSOLUTE);

    let nothing = BTreeMap::new();
    let all: BTreeSet<&Labels> = full.keys().chain(folded.keys()).collect();
    let pair = |labels| Pair {
        labels,
        full: full.get(labels).unwrap_or(&nothing),
        folded: folded.get(labels).unwrap_or(&nothing),
    };
    for &labels in &all {
        pair(labels).add_to(&mut comparison, span, rule, floor);
    }
    if comparison.unmatched == comparison.series {
        let shown = full.keys().take(ALONE_MAX).chain(folded.keys().take(ALONE_MAX));
        comparison.alone = shown.map(|labels| pair(labels).chart(span)).collect();
    }
    label_remarks(&full, &folded, &mut comparison.remarks);

    let allowed = (comparison.points as f64 * rule.outliers).floor() as u64;
    let verdict = if doubled
        || comparison.missing.sum() > 0
        || comparison.outside > allowed
        || comparison.points == 0
    {
        Verdict::Differs
    } else if comparison.equal == comparison.points && comparison.edge.sum() == 0 {
        Verdict::Equal
    } else {
        Verdict::WithinTolerance
    };
    (verdict, comparison)
}

/// Points by step.
type Points = BTreeMap<i64, f64>;

/// One series on both sides.
struct Pair<'a> {
    labels: &'a Labels,
    full: &'a Points,
    folded: &'a Points,
}

impl Pair<'_> {
    /// Counts this series into the comparison.
    fn add_to(&self, comparison: &mut Comparison, span: &Span, rule: &Rule, floor: f64) {
        let lacks = |points: &Points| u64::from(points.is_empty());
        comparison.unmatched.full += lacks(self.folded);
        comparison.unmatched.folded += lacks(self.full);
        let mut is_worst = comparison.chart.is_none();
        for (&time_ms, &full) in self.full {
            let Some(&folded) = self.folded.get(&time_ms) else {
                count_missing(
                    self.folded,
                    time_ms,
                    span,
                    &mut comparison.edge.folded,
                    &mut comparison.missing.folded,
                );
                continue;
            };
            let error = relative_error(full, folded, floor);
            comparison.points += 1;
            comparison.equal += u64::from(error <= EQUAL);
            comparison.outside += u64::from(error > rule.tolerance);
            if error.is_finite() {
                comparison.error_sum += error;
            }
            if comparison.worst.as_ref().is_none_or(|worst| error > worst.error) {
                comparison.worst = Some(Worst { error, labels: self.labels.clone(), time_ms, full, folded });
                is_worst = true;
            }
        }
        for &time_ms in self.folded.keys().filter(|time_ms| !self.full.contains_key(time_ms)) {
            count_missing(self.full, time_ms, span, &mut comparison.edge.full, &mut comparison.missing.full);
        }
        if is_worst {
            comparison.chart = Some(self.chart(span));
        }
    }

    /// Both lines on the common steps.
    fn chart(&self, span: &Span) -> Chart {
        let steps = || (span.start_ms..=span.end_ms).step_by(span.step_ms.unsigned_abs() as usize);
        Chart {
            labels: self.labels.clone(),
            full: steps().map(|step| self.full.get(&step).copied()).collect(),
            folded: steps().map(|step| self.folded.get(&step).copied()).collect(),
        }
    }
}

/// Counts a step that `other` lacks: at an edge if `other` begins or ends within the edge of it.
fn count_missing(other: &Points, time_ms: i64, span: &Span, edge: &mut u64, missing: &mut u64) {
    let begins_soon =
        other.keys().next().is_some_and(|&first| time_ms < first && first - time_ms <= span.edge_ms);
    let ended_just =
        other.keys().next_back().is_some_and(|&last| time_ms > last && time_ms - last <= span.edge_ms);
    *(if begins_soon || ended_just { edge } else { missing }) += 1;
}

/// The series of a side under their labels, without those that differ by design.
fn by_labels(
    series: &[Series],
    side: &str,
    rule: &Rule,
    remarks: &mut Vec<String>,
) -> BTreeMap<Labels, Points> {
    let mut all: BTreeMap<Labels, Points> = BTreeMap::new();
    let mut doubled = 0usize;
    for one in series {
        let mut labels = one.labels.clone();
        labels.retain(|name, _| !rule.own_labels.contains(name));
        doubled += usize::from(all.contains_key(&labels));
        let points = all.entry(labels).or_default();
        for &(time_ms, value) in &one.points {
            points.entry(time_ms).or_insert(value);
        }
    }
    if doubled > 0 {
        let [mark, writer] = &rule.own_labels;
        remarks.push(format!(
            "{doubled} series of the {side} side differ from another only by {mark} or {writer}"
        ));
    }
    all
}

/// Says which labels stand on one side only.
fn label_remarks(
    full: &BTreeMap<Labels, Points>,
    folded: &BTreeMap<Labels, Points>,
    remarks: &mut Vec<String>,
) {
    if full.is_empty() || folded.is_empty() {
        let (there, gone) = if full.is_empty() { ("folded", "full") } else { ("full", "folded") };
        remarks.push(format!("only the {there} side has data, the {gone} side has none"));
        return;
    }
    let names = |side: &BTreeMap<Labels, Points>| -> BTreeSet<String> {
        side.keys().flat_map(|labels| labels.keys().cloned()).collect()
    };
    let (full, folded) = (names(full), names(folded));
    for (there, gone, side) in [(&full, &folded, "full"), (&folded, &full, "folded")] {
        let only: Vec<&str> = there.difference(gone).map(String::as_str).take(LABELS_NAMED_MAX).collect();
        if !only.is_empty() {
            remarks.push(format!("only series of the {side} side carry {}", only.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests;
