//! What a worker's [`Registry`] has measured and decided, as a report.
//!
//! In: the registry, and what only the embedder knows: who we are, the counters, a sample of streams. Out: the bytes. Sketches are merged over
//! the generations of the period here, once a report, never on the way of a point.

use super::room::DETAILED_METRICS;
use super::{Decision, Example, Label, Metric, Report, Tenant, encode};
use crate::admission::{ByHalf, Registry, What, is_protected};
use crate::route::Compiled;
use crate::sketch::Distinct;
use crate::units::UnixNanos;
use phoenix_plan::order;

/// Decisions of a metric that a report repeats: the last ones.
const DECISIONS_SHOWN: usize = 4;

/// Metrics that a report looks at, the heaviest: more than fit into one.
const METRICS_SHOWN: usize = 2_000;

/// What only the embedder knows.
pub struct Context<'a> {
    /// Name of the process, unique among all embedders.
    pub process: &'a str,
    /// Number of the worker.
    pub worker: u64,
    /// Number of the report.
    pub sequence: u64,
    /// Now.
    pub time: UnixNanos,
    /// When the process began to count.
    pub start_time: UnixNanos,
    /// The books.
    pub counts: &'a [(&'a str, f64)],
    /// Blinded identities of some streams, for affinity.
    pub overlap_sample: &'a [u64],
}

/// Sketches of a metric, merged over the period.
struct Merged {
    metric: u64,
    active: Distinct,
    estimate: f64,
    /// Values, and series without the label; none where others are heavier.
    labels: Vec<(Distinct, Distinct)>,
    sentences: Vec<String>,
}

/// What all metrics have, and what the heaviest have besides: a label costs two estimates of some microseconds each, and this runs on a
/// thread that has requests to serve.
fn merge(registry: &Registry) -> Vec<Merged> {
    let merged = registry.measure.metrics().map(|(metric, it)| {
        let active = it.active.union();
        let sentences = registry.decisions(metric).map(|decision| decision.sentence()).collect();
        Merged { metric, estimate: active.estimate(), active, labels: Vec::new(), sentences }
    });
    let mut merged: Vec<Merged> = merged.collect();
    order::sort_by(&mut merged, |a, b| b.estimate.total_cmp(&a.estimate).then(a.metric.cmp(&b.metric)));
    merged.truncate(METRICS_SHOWN);
    for it in merged.iter_mut().take(DETAILED_METRICS) {
        let labels = registry.measure.metric(it.metric).map_or(&[][..], |measured| &measured.labels);
        it.labels = labels.iter().map(|label| (label.values.union(), label.without.union())).collect();
    }
    merged
}

/// The report of a worker.
pub fn report(registry: &Registry, plan: &Compiled, context: &Context<'_>) -> Vec<u8> {
    let merged = merge(registry);
    let of_tenants: Vec<(u64, Distinct)> =
        registry.measure.tenants().map(|(id, it)| (id, it.active.union())).collect();
    let mut of_tenant = ByHalf::<Vec<&Merged>>::default();
    for it in &merged {
        if let Some(measured) = registry.measure.metric(it.metric) {
            of_tenant.entry(measured.tenant).or_default().push(it);
        }
    }
    let mut counts = ByHalf::<(u64, u64)>::default();
    for it in registry.state().metrics.values() {
        let (admitted, folded) = counts.entry(it.tenant).or_default();
        *admitted = admitted.saturating_add(u64::from(it.admitted));
        *folded = folded.saturating_add(u64::from(it.folded));
    }
    let truncated = registry.measure.metrics().count().saturating_sub(merged.len());
    let budgets = plan.plan.budgets.as_ref();
    let protects = |key: &[u8], is_resource| budgets.is_some_and(|b| is_protected(plan, b, key, is_resource));
    let mut tenants = Vec::new();
    for ((id, it), (_, active)) in registry.measure.tenants().zip(&of_tenants) {
        let share = budgets.map(|b| b.tenant(&it.name));
        let share_of = |n: u32| if n == u32::MAX { 0 } else { u64::from(n) };
        let mine = of_tenant.get(&id).map_or(&[][..], |list| list.as_slice());
        let metrics = mine.iter().filter_map(|sketches| {
            let measured = registry.measure.metric(sketches.metric)?;
            let state = registry.state().metrics.get(&sketches.metric);
            let labels = measured.labels.iter().zip(&sketches.labels).map(|(label, (values, without))| {
                let heavy = label.heavy.iter().flat_map(|heavy| heavy.iter());
                let examples = heavy.map(|(_, weight, error, value)| Example {
                    value,
                    weight: weight as f64,
                    error: error as f64,
                });
                Label {
                    key: &label.key,
                    is_resource: label.is_resource,
                    values_estimate: values.estimate(),
                    without_estimate: without.estimate(),
                    values: Some(values),
                    without: Some(without),
                    examples: examples.collect(),
                    is_protected: protects(&label.key, label.is_resource),
                }
            });
            let all = registry.decisions(sketches.metric).zip(&sketches.sentences);
            let skipped = sketches.sentences.len().saturating_sub(DECISIONS_SHOWN);
            let decisions = all.skip(skipped).map(|(decision, sentence)| Decision {
                time: decision.at,
                what: match decision.what {
                    What::Contained => "contained",
                    What::Widened => "widened",
                    What::Released => "released",
                },
                labels: decision.labels.iter().map(String::as_bytes).collect(),
                reason: sentence,
                effective: decision.effective,
                admitted: u64::from(decision.series),
                share: share_of(decision.share),
            });
            let metric_share = budgets.map_or(u32::MAX, |_| {
                let own = budgets.and_then(|b| b.metric(&it.name, &measured.name)).unwrap_or(u32::MAX);
                own.min(share.map_or(u32::MAX, |s| s.active_series))
            });
            Some(Metric {
                name: &measured.name,
                kind: measured.kind,
                share: share_of(metric_share),
                admitted: state.map_or(0, |m| u64::from(m.admitted)),
                folded_series: state.map_or(0, |m| u64::from(m.folded)),
                active: Some(&sketches.active),
                active_estimate: sketches.estimate,
                growth: measured.active.growth(),
                labels: labels.collect(),
                decisions: decisions.collect(),
                points: measured.points,
            })
        });
        let (admitted, folded) = counts.get(&id).copied().unwrap_or_default();
        tenants.push(Tenant {
            name: &it.name,
            share: share.map_or(0, |s| share_of(s.active_series)),
            reserved: share.map_or(0, |s| u64::from(s.reserved)),
            admitted,
            folded_series: folded,
            active: Some(active),
            active_estimate: active.estimate(),
            growth: it.active.growth(),
            metrics: metrics.collect(),
        });
    }
    encode(&Report {
        process: context.process.as_bytes(),
        worker: context.worker,
        sequence: context.sequence,
        time: context.time,
        start_time: context.start_time,
        plan_version: plan.plan.version,
        key: plan.key,
        period_ms: plan.plan.measured_over().map_or(0, |period| period.0),
        generation: registry.generation(),
        counts: context.counts,
        tenants,
        overlap_sample: context.overlap_sample,
        truncated_metrics: u64::try_from(truncated).unwrap_or(u64::MAX),
    })
}
