//! Reports of one process, and of all.
//!
//! Enters: processes by name, each with the reports of its workers. Leaves: [`Estimates`]. Workers of a process become one process first: its estimates are
//! what overlap, shares and written series are made of; then the process joins the fleet.
//!
//! A label that a part does not list: if it lists others its streams have no such label, and all remain without it; if it lists none, for want of room, its
//! streams bound both numbers from above.

use super::distinct::{Sum, variance};
use super::{
    Contained, Embedder, Estimates, LabelEstimate, MetricEstimate, Offending, Overlap, Part, TenantEstimate,
};
use crate::needs::LabelKey;
use crate::policy::Policy;
use phoenix_report::Report;
use phoenix_report::merge::offenders;
use phoenix_report::wire::{Example, Label, Metric, Tenant};
use std::collections::BTreeMap;

/// Values of a label that are named.
const OFFENDERS_MAX: usize = 3;
/// Examples of a label that are kept until the end, of all embedders: those of a few are enough to name the worst.
const EXAMPLES_MAX: usize = 64;
/// Decisions of embedders that are kept of a metric.
const CONTAINED_MAX: usize = 8;
/// Generations of a period.
const GENERATIONS: f64 = 3.0;

/// All processes so far.
pub struct Fleet {
    now_ns: u64,
    silent_after_ns: u64,
    period_ms: u64,
    embedders: Vec<Embedder>,
    tenants: BTreeMap<String, TenantSum>,
    truncated: u64,
}

#[derive(Default)]
struct TenantSum {
    active: Sum,
    growth: f64,
    parts: Vec<Part>,
    metrics: BTreeMap<(String, String), MetricSum>,
}

/// A metric of the fleet, or of one process.
#[derive(Default)]
struct MetricSum {
    active: Sum,
    growth: f64,
    points: u64,
    labels: BTreeMap<LabelKey, LabelSum>,
    /// Of those parts that listed no label.
    unlisted: f64,
    listing: u32,
    parts: Vec<Part>,
    contained: Vec<Contained>,
    /// Of embedders that are not silent: what they see each, its variance, and what they see together.
    each: f64,
    variance: f64,
    together: Sum,
    is_estimated: bool,
}

#[derive(Clone, Default)]
struct LabelSum {
    values: Sum,
    without: Sum,
    listed_by: u32,
    /// Some worker lists other labels and not this one.
    is_partial: bool,
    values_most: f64,
    values_sum: f64,
    written: f64,
    is_protected: bool,
    examples: Vec<(Vec<Example>, f64)>,
}

impl Fleet {
    /// None yet.
    pub fn new(now_ns: u64, silent_after_ns: u64) -> Fleet {
        Fleet {
            now_ns,
            silent_after_ns,
            period_ms: 0,
            embedders: Vec::new(),
            tenants: BTreeMap::new(),
            truncated: 0,
        }
    }

    /// A process. They come in the order of their names.
    pub fn add(&mut self, name: &str, reports: &[Report]) {
        let newest_ns = reports.iter().map(|it| it.time_unix_nano).max().unwrap_or(0);
        let is_silent = self.now_ns.saturating_sub(newest_ns) > self.silent_after_ns;
        let index = u32::try_from(self.embedders.len()).unwrap_or(u32::MAX);
        self.embedders.push(Embedder {
            name: name.to_owned(),
            workers: reports.len() as u64,
            plan_version: reports.iter().map(|it| it.plan_version).min().unwrap_or(0),
            newest_ns,
            start_ns: reports.iter().map(|it| it.start_time_unix_nano).min().unwrap_or(0),
            is_silent,
        });
        self.period_ms = reports.iter().map(|it| it.period_ms).fold(self.period_ms, u64::max);
        self.truncated = self.truncated.max(reports.iter().map(|it| it.truncated_metrics).max().unwrap_or(0));

        let mut tenants: BTreeMap<&str, Vec<&Tenant>> = BTreeMap::new();
        for tenant in reports.iter().flat_map(|report| &report.tenants) {
            tenants.entry(&tenant.name).or_default().push(tenant);
        }
        for (name, workers) in tenants {
            let of_fleet = self.tenants.entry(name.to_owned()).or_default();
            let mut active = Sum::default();
            workers.iter().for_each(|it| active.add(&it.active, it.active_estimate));
            let most = |of: fn(&Tenant) -> u64| workers.iter().map(|it| of(it)).max().unwrap_or(0);
            of_fleet.active.merge(&active);
            of_fleet.growth += workers.iter().map(|it| it.growth).sum::<f64>();
            let folded = most(|it| it.folded_series);
            of_fleet.parts.push(Part {
                embedder: index,
                active: active.number().value,
                used: most(|it| it.admitted).saturating_add(folded),
                folded,
                share: most(|it| it.share),
            });
            let mut metrics: BTreeMap<(&str, &str), Vec<&Metric>> = BTreeMap::new();
            for metric in workers.iter().flat_map(|it| &it.metrics) {
                metrics.entry((&metric.name, &metric.r#type)).or_default().push(metric);
            }
            for ((name, kind), workers) in metrics {
                let key = (name.to_owned(), kind.to_owned());
                let of_fleet = of_fleet.metrics.entry(key).or_default();
                let of_process = MetricSum::of_process(&workers, of_fleet.labels.keys(), index);
                of_fleet.join(of_process, is_silent);
            }
        }
    }

    /// All of it in numbers.
    pub fn estimates(self, policy: &Policy) -> Estimates {
        let mut notes = Vec::new();
        let silent: Vec<&str> =
            self.embedders.iter().filter(|it| it.is_silent).map(|it| it.name.as_str()).collect();
        if !silent.is_empty() {
            notes.push(format!("silent, and counted with what they said last: {}", silent.join(", ")));
        }
        if self.truncated > 0 {
            notes.push(format!("{} metrics had no room in a report and are not counted", self.truncated));
        }
        let generation_ms = self.period_ms as f64 / GENERATIONS;
        let elapsed_ms = if generation_ms > 0.0 { (self.now_ns as f64 / 1e6) % generation_ms } else { 0.0 };
        // What the first moments of a generation bring says nothing of an hour.
        let elapsed_h = elapsed_ms.max(generation_ms / GENERATIONS).max(1.0) / 3_600_000.0;
        let metric = |((name, kind), it): ((String, String), MetricSum)| {
            let active = it.active.number();
            let growth = it.growth.min(active.value);
            MetricEstimate {
                name,
                kind,
                active,
                growth,
                churn_per_hour: growth / elapsed_h,
                points: it.points,
                overlap: it.overlap(),
                cost: policy.prices.of(active.value),
                listing: it.listing,
                labels: it.labels.into_iter().map(|(key, label)| label.estimate(key)).collect(),
                parts: it.parts,
                contained: it.contained,
            }
        };
        let tenant = |(name, it): (String, TenantSum)| {
            let metrics = it.metrics.into_iter().map(metric).collect();
            let active = it.active.number();
            let growth = it.growth.min(active.value);
            (name, TenantEstimate { active, growth, parts: it.parts, metrics })
        };
        Estimates {
            at_ns: self.now_ns,
            period_ms: self.period_ms,
            embedders: self.embedders,
            tenants: self.tenants.into_iter().map(tenant).collect(),
            truncated_metrics: self.truncated,
            notes,
        }
    }
}

impl MetricSum {
    /// Workers of one process. `known` are labels that other processes have.
    fn of_process<'k>(
        workers: &[&Metric],
        known: impl Iterator<Item = &'k LabelKey>,
        index: u32,
    ) -> MetricSum {
        let mut it = MetricSum::default();
        let mut keys: BTreeMap<LabelKey, LabelSum> =
            known.map(|key| (key.clone(), LabelSum::default())).collect();
        for label in workers.iter().flat_map(|it| &it.labels) {
            keys.entry(key_of(label)).or_default();
        }
        for worker in workers {
            it.active.add(&worker.active, worker.active_estimate);
            it.growth += worker.growth;
            it.points = it.points.saturating_add(worker.points);
            let by_key: BTreeMap<LabelKey, &Label> =
                worker.labels.iter().map(|label| (key_of(label), label)).collect();
            it.listing = it.listing.max(u32::from(!by_key.is_empty()));
            if by_key.is_empty() {
                it.unlisted += worker.active_estimate;
            }
            for (key, sum) in &mut keys {
                match by_key.get(key) {
                    Some(label) => {
                        sum.listed_by = 1;
                        sum.add(label);
                    }
                    None => {
                        sum.without.add(&worker.active, worker.active_estimate);
                        if by_key.is_empty() {
                            sum.values.add_number(worker.active_estimate);
                        } else {
                            sum.is_partial = true;
                        }
                    }
                }
            }
            it.contained.extend(worker.decisions.iter().map(|decision| Contained {
                time_ns: decision.time_unix_nano,
                embedder: index,
                what: decision.what.clone(),
                labels: decision.labels.clone(),
            }));
        }
        let active = it.active.number().value;
        for sum in keys.values_mut() {
            if sum.is_partial {
                sum.listed_by = 0;
            }
            // Fewer series than streams, whatever two sketches say.
            sum.written = sum.without.number().value.min(active);
            let values = sum.values.number().value.min(active);
            (sum.values_most, sum.values_sum) = (values, values);
        }
        it.labels = keys;
        let most = |of: fn(&Metric) -> u64| workers.iter().map(|it| of(it)).max().unwrap_or(0);
        let folded = most(|it| it.folded_series);
        let used = most(|it| it.admitted).saturating_add(folded);
        it.parts.push(Part { embedder: index, active, used, folded, share: most(|it| it.share) });
        it
    }

    /// A process joins the fleet.
    fn join(&mut self, process: MetricSum, is_silent: bool) {
        let part = process.parts.first().copied().unwrap_or_default();
        for (key, label) in &process.labels {
            let sum = self.labels.entry(key.clone()).or_insert_with(|| LabelSum {
                // Nobody before had this label.
                values: {
                    let mut values = Sum::default();
                    values.add_number(self.unlisted);
                    values
                },
                without: self.active.clone(),
                written: self.parts.iter().map(|part| part.active).sum(),
                ..LabelSum::default()
            });
            sum.values.merge(&label.values);
            sum.without.merge(&label.without);
            sum.listed_by += label.listed_by;
            sum.written += label.written;
            sum.values_sum += label.values_sum;
            sum.values_most = sum.values_most.max(label.values_most);
            sum.is_protected |= label.is_protected;
            sum.examples
                .extend(label.examples.iter().take(EXAMPLES_MAX.saturating_sub(sum.examples.len())).cloned());
        }
        self.unlisted += process.unlisted;
        self.listing += process.listing;
        self.active.merge(&process.active);
        self.growth += process.growth;
        self.points = self.points.saturating_add(process.points);
        self.parts.push(part);
        self.contained.extend(process.contained);
        self.contained.sort_by(|a, b| b.cmp(a));
        self.contained.dedup();
        self.contained.truncate(CONTAINED_MAX);
        if !is_silent {
            self.is_estimated |= process.active.merged().is_none();
            self.each += part.active;
            self.variance += variance(part.active);
            self.together.merge(&process.active);
        }
    }

    /// What embedders see each, less what they see together.
    fn overlap(&self) -> Overlap {
        match self.together.merged() {
            Some(together) if !self.is_estimated => Overlap {
                streams: (self.each - together).max(0.0),
                error: (self.variance + variance(together)).sqrt(),
            },
            // Numbers without sketches say nothing about what is in both.
            _ => Overlap::default(),
        }
    }
}

impl LabelSum {
    fn add(&mut self, label: &Label) {
        self.values.add(&label.values, label.values_estimate);
        self.without.add(&label.without, label.without_estimate);
        self.is_protected |= label.is_protected;
        if !label.examples.is_empty() {
            self.examples.push((label.examples.clone(), label.values_estimate));
        }
    }

    fn estimate(self, key: LabelKey) -> LabelEstimate {
        let worst = offenders(self.examples.iter().map(|(examples, values)| (examples.as_slice(), *values)));
        LabelEstimate {
            key: key.key,
            resource: key.resource,
            values: self.values.number(),
            without: self.without.number(),
            listed_by: self.listed_by,
            values_most: self.values_most,
            values_sum: self.values_sum,
            written: self.written,
            is_protected: self.is_protected,
            offenders: worst.into_iter().take(OFFENDERS_MAX).map(Offending::from).collect(),
        }
    }
}

fn key_of(label: &Label) -> LabelKey {
    LabelKey { key: label.key.clone(), resource: label.resource }
}
