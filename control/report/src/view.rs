//! The fleet as one.
//!
//! Enters: the reports in force. Leaves: a [`View`], which tables, the terminal and JSON only write down. Which numbers add up how:
//!
//! * share, reserved, admitted, folded series are a process': all its workers replay one log, so the largest of its workers' numbers is the newest, and
//!   processes add up;
//! * ledger counts, points and growth add up over workers; growth is therefore an upper bound;
//! * distinct streams and values are merged as [`merge`] says.
//!
//! Cost: every sketch of every report is read once.

use crate::fleet::Fleet;
use crate::merge::{Estimate, Offender, Part, estimate, offenders};
use crate::wire::{Decision, Label, Metric, Report, Tenant};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Offenders of a label: more than any table shows.
const OFFENDERS_MAX: usize = 20;
/// Decisions about a metric, of all processes.
const DECISIONS_MAX: usize = 50;

/// The fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct View {
    /// When the newest report was made.
    pub newest_unix_nano: u64,
    /// By name.
    pub processes: Vec<Process>,
    /// Heaviest first.
    pub tenants: Vec<TenantView>,
    /// Counters of all workers since their processes' start.
    pub counts: BTreeMap<String, f64>,
    /// At least so many metrics are left out of reports.
    pub truncated_metrics: u64,
    /// What a reader must know to believe the numbers.
    pub notes: Vec<String>,
}

/// An embedder process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Process {
    /// Node id and process start.
    pub name: String,
    /// Workers that report.
    pub workers: u64,
    /// The newest version of a plan that a worker has.
    pub plan_version: u64,
    /// When its newest report was made.
    pub newest_unix_nano: u64,
    /// Since when its ledger counts.
    pub start_unix_nano: u64,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TenantView {
    /// Its name.
    pub name: String,
    /// Its numbers against its budget.
    #[serde(flatten)]
    pub budget: Budget,
    /// Distinct active streams.
    pub active: Estimate,
    /// Streams new in the current generation, at most.
    pub growth: f64,
    /// Heaviest first.
    pub metrics: Vec<MetricView>,
}

/// A metric of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricView {
    /// Its name.
    pub name: String,
    /// Its type.
    pub r#type: String,
    /// Its numbers against its budget.
    #[serde(flatten)]
    pub budget: Budget,
    /// Distinct active streams.
    pub active: Estimate,
    /// Streams new in the current generation, at most.
    pub growth: f64,
    /// Points in the period.
    pub points: u64,
    /// The one that helps most first.
    pub labels: Vec<LabelView>,
    /// Newest first.
    pub decisions: Vec<DecisionView>,
}

/// Series on the way out, of all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// As many there may be; 0: no budget.
    pub share: u64,
    /// Of them: for this tenant alone.
    pub reserved: u64,
    /// Streams that go out raw.
    pub admitted: u64,
    /// Series that budgets fold into.
    pub folded_series: u64,
}

/// A label of a metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelView {
    /// Its key.
    pub key: String,
    /// A resource attribute; else an attribute of points.
    pub resource: bool,
    /// Never folded by a budget.
    pub is_protected: bool,
    /// Distinct values.
    pub values: Estimate,
    /// Series that would remain without it.
    pub without: Estimate,
    /// The values that brought most streams first.
    pub offenders: Vec<Offender>,
}

/// What a process did about a metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DecisionView {
    /// When.
    pub time_unix_nano: u64,
    /// Which process.
    pub process: String,
    /// contained, widened, released or restored.
    pub what: String,
    /// The labels that are folded away.
    pub labels: Vec<String>,
    /// A sentence.
    pub reason: String,
    /// From which event time on.
    pub effective_unix_nano: u64,
    /// Streams admitted raw, then.
    pub admitted: u64,
    /// The share, then.
    pub share: u64,
}

/// One metric as one report says it.
type OfMetric<'r> = (&'r Report, &'r Metric);
/// One tenant as one report says it.
type OfTenant<'r> = (&'r Report, &'r Tenant);

impl Fleet {
    /// The fleet as one.
    pub fn view(&self) -> View {
        let mut tenants: BTreeMap<&str, Vec<OfTenant<'_>>> = BTreeMap::new();
        let mut counts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut processes: BTreeMap<&str, Process> = BTreeMap::new();
        for report in self.reports() {
            for tenant in &report.tenants {
                tenants.entry(&tenant.name).or_default().push((report, tenant));
            }
            for count in report.ledger.iter().flat_map(|ledger| &ledger.counts) {
                counts.entry(&count.name).or_default().push(count.value);
            }
            let process = processes.entry(&report.process).or_insert_with(|| Process {
                name: report.process.clone(),
                workers: 0,
                plan_version: 0,
                newest_unix_nano: 0,
                start_unix_nano: report.start_time_unix_nano,
            });
            process.workers += 1;
            process.plan_version = process.plan_version.max(report.plan_version);
            process.newest_unix_nano = process.newest_unix_nano.max(report.time_unix_nano);
            process.start_unix_nano = process.start_unix_nano.min(report.start_time_unix_nano);
        }
        let mut tenants: Vec<TenantView> = tenants.into_iter().map(|(name, of)| tenant(name, &of)).collect();
        tenants.sort_by(|a, b| b.active.value.total_cmp(&a.active.value));
        View {
            newest_unix_nano: self.reports().map(|report| report.time_unix_nano).max().unwrap_or(0),
            processes: processes.into_values().collect(),
            tenants,
            counts: counts.into_iter().map(|(name, values)| (name.to_owned(), sum(values))).collect(),
            truncated_metrics: self.reports().map(|report| report.truncated_metrics).max().unwrap_or(0),
            notes: self.notes(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let distinct = |of: fn(&Report) -> u64| self.reports().map(of).collect::<BTreeSet<u64>>();
        let mut notes = Vec::new();
        let keys = distinct(|report| report.key).len();
        if keys > 1 {
            notes.push(format!("{keys} hash keys: estimates of different keys are added, not merged"));
        }
        let list = |numbers: BTreeSet<u64>, unit: &str| {
            numbers.iter().map(|n| format!("{n}{unit}")).collect::<Vec<_>>().join(", ")
        };
        let periods = distinct(|report| report.period_ms);
        if periods.len() > 1 {
            notes.push(format!("estimates over several periods: {}", list(periods, " ms")));
        }
        let versions = distinct(|report| report.plan_version);
        if versions.len() > 1 {
            notes.push(format!("several versions of the plan are in force: {}", list(versions, "")));
        }
        notes
    }
}

fn tenant(name: &str, parts: &[OfTenant<'_>]) -> TenantView {
    let mut metrics: BTreeMap<(&str, &str), Vec<OfMetric<'_>>> = BTreeMap::new();
    for (report, tenant) in parts {
        for metric in &tenant.metrics {
            metrics.entry((&metric.name, &metric.r#type)).or_default().push((report, metric));
        }
    }
    let mut metrics: Vec<MetricView> =
        metrics.into_iter().map(|((name, kind), of)| metric(name, kind, &of)).collect();
    metrics.sort_by(|a, b| b.active.value.total_cmp(&a.active.value));
    TenantView {
        name: name.to_owned(),
        budget: budget(parts.iter().map(|(report, tenant)| {
            let Tenant { share, reserved, admitted, folded_series, .. } = **tenant;
            (report.process.as_str(), Budget { share, reserved, admitted, folded_series })
        })),
        active: estimate(
            parts.iter().map(|(report, one)| Part::new(report.key, &one.active, one.active_estimate)),
        ),
        growth: sum(parts.iter().map(|(_, tenant)| tenant.growth).collect()),
        metrics,
    }
}

fn metric(name: &str, kind: &str, parts: &[OfMetric<'_>]) -> MetricView {
    let keys: BTreeSet<(&str, bool)> = parts
        .iter()
        .flat_map(|(_, metric)| metric.labels.iter().map(|label| (label.key.as_str(), label.resource)))
        .collect();
    let mut labels: Vec<LabelView> =
        keys.into_iter().map(|(key, resource)| label(key, resource, parts)).collect();
    labels.sort_by(|a, b| a.without.value.total_cmp(&b.without.value));
    MetricView {
        name: name.to_owned(),
        r#type: kind.to_owned(),
        budget: budget(parts.iter().map(|(report, metric)| {
            let Metric { share, admitted, folded_series, .. } = **metric;
            (report.process.as_str(), Budget { share, reserved: 0, admitted, folded_series })
        })),
        active: estimate(
            parts.iter().map(|(report, one)| Part::new(report.key, &one.active, one.active_estimate)),
        ),
        growth: sum(parts.iter().map(|(_, metric)| metric.growth).collect()),
        points: parts.iter().fold(0, |sum: u64, (_, metric)| sum.saturating_add(metric.points)),
        labels,
        decisions: decisions(parts),
    }
}

/// A label over all parts of its metric. A part that lists labels and not this one has no such label: its streams remain without it. One that lists none, for want of
/// room, bounds both numbers by its streams.
fn label(key: &str, resource: bool, parts: &[OfMetric<'_>]) -> LabelView {
    let (mut values, mut without) = (Vec::new(), Vec::new());
    let mut listed: Vec<&Label> = Vec::new();
    for (report, metric) in parts {
        match metric.labels.iter().find(|label| label.key == key && label.resource == resource) {
            Some(label) => {
                values.push(Part::new(report.key, &label.values, label.values_estimate));
                without.push(Part::new(report.key, &label.without, label.without_estimate));
                listed.push(label);
            }
            None if metric.labels.is_empty() => {
                values.push(Part::AtMost(metric.active_estimate));
                without.push(Part::AtMost(metric.active_estimate));
            }
            None => without.push(Part::new(report.key, &metric.active, metric.active_estimate)),
        }
    }
    let mut offenders =
        offenders(listed.iter().map(|label| (label.examples.as_slice(), label.values_estimate)));
    offenders.truncate(OFFENDERS_MAX);
    LabelView {
        key: key.to_owned(),
        resource,
        is_protected: listed.iter().any(|label| label.is_protected),
        values: estimate(values),
        without: estimate(without),
        offenders,
    }
}

/// The largest of each process' workers, and the sum of the processes.
fn budget<'r>(parts: impl Iterator<Item = (&'r str, Budget)>) -> Budget {
    let mut processes: BTreeMap<&str, Budget> = BTreeMap::new();
    for (process, part) in parts {
        let largest = processes.entry(process).or_default();
        *largest = largest.with(part, u64::max);
    }
    processes.into_values().fold(Budget::default(), |sum, part| sum.with(part, u64::saturating_add))
}

impl Budget {
    fn with(self, other: Budget, combine: fn(u64, u64) -> u64) -> Budget {
        Budget {
            share: combine(self.share, other.share),
            reserved: combine(self.reserved, other.reserved),
            admitted: combine(self.admitted, other.admitted),
            folded_series: combine(self.folded_series, other.folded_series),
        }
    }

    /// Series on the way out.
    pub fn used(&self) -> u64 {
        self.admitted.saturating_add(self.folded_series)
    }
}

/// Every decision once, though each worker of a process reports it.
fn decisions(parts: &[OfMetric<'_>]) -> Vec<DecisionView> {
    let all = parts.iter().flat_map(|(report, metric)| metric.decisions.iter().map(move |one| (report, one)));
    let once: BTreeSet<DecisionView> = all
        .map(|(report, decision)| {
            let Decision { time_unix_nano, what, labels, reason, .. } = decision.clone();
            DecisionView {
                time_unix_nano,
                process: report.process.clone(),
                what,
                labels,
                reason,
                effective_unix_nano: decision.effective_unix_nano,
                admitted: decision.admitted,
                share: decision.share,
            }
        })
        .collect();
    once.into_iter().rev().take(DECISIONS_MAX).collect()
}

/// A sum that does not depend on the order of its parts.
fn sum(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.iter().sum()
}
