//! Units: what can be folded at all, a metric of a tenant each.
//!
//! Enters: estimates, needs, policy, what was decided before. Leaves: for each metric its labels with what their loss would cost, what would remain without
//! some of them, what is usual, and what stands in the way of a change. One rule folds a metric whatever its types, so all types of a name are one unit.

use super::scope::Scopes;
use super::state::{Baseline, Folded, Previous};
use crate::estimate::{Estimates, MetricEstimate};
use crate::needs::{LabelKey, Needs, Use};
use crate::policy::Policy;
use phoenix_plan::{BudgetFold, Labels, Placement, bounds};
use std::collections::BTreeMap;

/// Resource attributes that make up `job`: the module never folds them by a budget, and neither does a decision.
const JOB: [&str; 2] = ["service.name", "service.namespace"];
/// Values of labels that stay vary by this factor, and by so many, without being more.
const GROWN: f64 = 1.1;
const GROWN_BY: f64 = 3.0;

/// Metrics of all tenants.
pub struct Units<'e> {
    /// By tenant and name.
    pub all: Vec<Unit<'e>>,
    /// Every embedder that has a plan is heard, or was but is silent now.
    pub is_known: bool,
    /// All are heard, and there are some.
    pub is_whole: bool,
    /// How long a stream that has moved is seen in two places, milliseconds.
    pub period_ms: u64,
}

/// A metric of a tenant.
pub struct Unit<'e> {
    /// Its tenant.
    pub tenant: &'e str,
    /// Its name.
    pub name: &'e str,
    /// Of each type.
    pub of: Vec<&'e MetricEstimate>,
    /// Distinct active streams.
    pub active: f64,
    /// New in the current generation, at most.
    pub growth: f64,
    /// What is usual.
    pub baseline: f64,
    /// And what each label would leave of that.
    baseline_without: BTreeMap<LabelKey, f64>,
    /// Labels, and what is known about folding them.
    pub labels: BTreeMap<LabelKey, Label>,
    /// Labels that should fold: so far in this decision.
    pub wanted: Folded,
    /// And as it was before it.
    pub wanted_before: Folded,
    /// What its labels leave, where some of them go just now. A label is measured over less than a period: for a while the streams that it made are counted and it
    /// is not, and would be taken for series that the fold leaves.
    left_before: Option<f64>,
    /// A declared fold decides about it: series that it leaves.
    pub declared: Option<f64>,
    /// Why its treatment cannot change.
    pub locked: Option<String>,
    /// Embedders see the same streams of it, and it adds up.
    pub overlaps: bool,
    /// Since when they have without a pause; 0: they do not.
    pub overlapping_since_ns: u64,
    takes: Takes,
}

/// A label of a unit.
#[derive(Clone, Debug)]
pub struct Label {
    /// What queries need of it.
    pub needed: Use,
    /// Why it may not fold; empty: it may.
    pub why_not: String,
    /// Distinct values.
    pub values: f64,
    /// Series that all embedders would write without it.
    pub written: f64,
}

/// Types for which a function is declared.
#[derive(Clone, Copy)]
struct Takes {
    gauge: bool,
    up_down: bool,
    summary: bool,
}

impl Takes {
    fn of(fold: &BudgetFold) -> Takes {
        Takes {
            gauge: fold.gauge.is_some(),
            up_down: fold.up_down_counter.is_some(),
            summary: fold.summary.is_some(),
        }
    }

    fn kind(self, kind: &str) -> bool {
        match kind {
            "counter" | "delta counter" | "histogram" | "delta histogram" | "exponential histogram" => true,
            "gauge" => self.gauge,
            "up-down counter" => self.up_down,
            "summary" => self.summary,
            _ => false,
        }
    }
}

impl<'e> Units<'e> {
    /// All of them.
    pub fn new(estimates: &'e Estimates, needs: &Needs, policy: &Policy, previous: &Previous) -> Units<'e> {
        let takes = Takes::of(&policy.fold);
        let mut all = Vec::new();
        let hold = previous.holding(estimates.at_ns);
        for (tenant, it) in &estimates.tenants {
            for of in it.metrics.chunk_by(|a, b| a.name == b.name) {
                let Some(first) = of.first() else { continue };
                let mut unit = Unit::new(tenant, &first.name, of.iter().collect(), takes);
                let treatment = previous.treatment(tenant, &first.name);
                let is_declared = policy.declared(tenant, &first.name).is_some();
                let held = hold.filter(|_| !is_declared).and_then(|it| it.labels_of(tenant, &first.name));
                unit.wanted = match (held, treatment) {
                    (Some(labels), _) => labels.clone(),
                    (None, Some(it)) => it.wanted.clone(),
                    (None, None) => Folded::new(),
                };
                unit.wanted_before = unit.wanted.clone();
                if unit.overlaps {
                    let since_ns = treatment.map_or(0, |it| it.overlap_ns);
                    unit.overlapping_since_ns = if since_ns == 0 { estimates.at_ns } else { since_ns };
                }
                unit.look_at_labels(needs, policy);
                let known = previous.baselines.get(tenant).and_then(|it| it.get(&first.name));
                let is_early =
                    previous.at_ns.saturating_sub(previous.began_ns) / 1_000_000 < estimates.period_ms;
                match known {
                    Some(known) => {
                        unit.baseline = known.active;
                        unit.baseline_without = known.without.iter().cloned().collect();
                    }
                    None if is_early => {
                        unit.baseline = unit.active;
                        unit.baseline_without =
                            unit.labels.iter().map(|(key, label)| (key.clone(), label.written)).collect();
                    }
                    // A metric that is new is not usual.
                    None => {}
                }
                unit.left_before = treatment
                    .filter(|it| it.wanted == unit.wanted && unit.is_fading() && !unit.has_grown(it))
                    .map(|it| it.left);
                unit.declared =
                    policy.declared(tenant, &first.name).map(|(_, fold)| unit.left_by(&fold.labels));
                unit.locked = match (held, hold) {
                    (Some(_), Some(hold)) => Some(hold.words()),
                    _ => unit.why_locked(policy, treatment, estimates.at_ns),
                };
                all.push(unit);
            }
        }
        let is_known = previous.missing(estimates, policy).next().is_none();
        let all_speak = estimates.embedders.iter().all(|it| !it.is_silent);
        let is_whole = is_known && all_speak && !estimates.embedders.is_empty();
        Units { all, is_known, is_whole, period_ms: estimates.period_ms }
    }

    /// A metric of a tenant.
    pub fn find(&self, tenant: &str, name: &str) -> Option<&Unit<'e>> {
        let at = self.all.binary_search_by(|it| (it.tenant, it.name).cmp(&(tenant, name))).ok()?;
        self.all.get(at)
    }

    /// What is usual follows what is, but for what is folded, contained or over a budget: there it stands still.
    pub fn follow(
        &self,
        next: &mut Previous,
        scopes: &Scopes,
        policy: &Policy,
        estimates: &Estimates,
        now_ns: u64,
    ) {
        let over_ms = policy.change.baseline_over.0.max(1) as f64;
        let part = (now_ns.saturating_sub(next.at_ns) as f64 / 1e6 / over_ms).clamp(0.0, 1.0);
        let is_early = now_ns.saturating_sub(next.began_ns) / 1_000_000 < estimates.period_ms;
        // What is not heard at all is no less usual for it.
        let mut baselines: BTreeMap<String, BTreeMap<String, Baseline>> =
            if self.is_whole { BTreeMap::new() } else { next.baselines.clone() };
        for (index, unit) in self.all.iter().enumerate() {
            let of_tenant = baselines.entry(unit.tenant.to_owned()).or_default();
            let is_contained = unit.of.iter().flat_map(|it| &it.parts).any(|part| part.folded > 0);
            let is_frozen =
                !self.is_known || !unit.wanted.is_empty() || is_contained || scopes.was_exceeded(index);
            let follow = |from: f64, to: f64| {
                super::record::kept(match (is_frozen, is_early) {
                    (true, _) => from,
                    (false, true) => to,
                    (false, false) => from + (to - from) * part,
                })
            };
            let before = |key: &LabelKey| unit.baseline_without.get(key).copied();
            let without = if is_frozen {
                unit.baseline_without
                    .iter()
                    .map(|(key, without)| (key.clone(), super::record::kept(*without)))
                    .collect()
            } else {
                // A label that is new leaves all that was usual.
                let of = |(key, label): (&LabelKey, &Label)| {
                    (key.clone(), follow(before(key).unwrap_or(unit.baseline), label.written))
                };
                unit.labels.iter().map(of).collect()
            };
            of_tenant.insert(
                unit.name.to_owned(),
                Baseline { active: follow(unit.baseline, unit.active), without },
            );
        }
        next.baselines = baselines;
    }
}

impl<'e> Unit<'e> {
    fn new(tenant: &'e str, name: &'e str, of: Vec<&'e MetricEstimate>, takes: Takes) -> Unit<'e> {
        Unit {
            tenant,
            name,
            active: of.iter().map(|it| it.active.value).sum(),
            growth: of.iter().map(|it| it.growth).sum(),
            overlaps: of.iter().any(|it| takes.kind(&it.kind) && it.is_cumulative() && it.overlap.is_shown()),
            of,
            overlapping_since_ns: 0,
            baseline: 0.0,
            baseline_without: BTreeMap::new(),
            labels: BTreeMap::new(),
            wanted: Folded::new(),
            wanted_before: Folded::new(),
            left_before: None,
            declared: None,
            locked: None,
            takes,
        }
    }

    fn look_at_labels(&mut self, needs: &Needs, policy: &Policy) {
        let asked = needs.of_metric(&policy.plan, self.name);
        for it in self.of.iter().flat_map(|it| &it.labels) {
            let key = it.label();
            let label = self.labels.entry(key.clone()).or_insert_with(|| {
                let needed = asked.of(&key);
                let why_not = why_not(&key, self.name, &needed, policy);
                Label { needed, why_not, values: 0.0, written: 0.0 }
            });
            label.values += it.values.value;
            label.written += it.written;
        }
    }

    /// Does some embedder no longer have a label that folds?
    fn is_fading(&self) -> bool {
        self.wanted.iter().any(|key| {
            self.of.iter().any(|it| {
                let label =
                    it.labels.iter().find(|label| label.key == key.key && label.resource == key.resource);
                label.map_or(0, |label| label.listed_by) < it.listing
            })
        })
    }

    /// Has it been seen in several embedders for a period? Then folding it inflates.
    pub fn inflates(&self, period_ms: u64, now_ns: u64) -> bool {
        let since_ns = self.overlapping_since_ns;
        since_ns > 0 && now_ns.saturating_sub(since_ns) / 1_000_000 >= period_ms
    }

    /// Is what its wanted labels leave known from this time's numbers?
    pub fn is_measured_anew(&self) -> bool {
        self.left_before.is_none() || self.wanted != self.wanted_before
    }

    /// Values of the labels that stay.
    pub fn staying(&self) -> f64 {
        let stays = self.labels.iter().filter(|(key, _)| !self.wanted.contains(key));
        stays.map(|(_, label)| label.values).sum()
    }

    /// Are there more values of the labels that stay than when it was last known what the fold leaves? Then it leaves more.
    fn has_grown(&self, it: &super::state::Treatment) -> bool {
        self.staying() > it.staying * GROWN + GROWN_BY
    }

    /// Why the treatment of the metric cannot change now.
    fn why_locked(
        &self,
        policy: &Policy,
        treatment: Option<&super::state::Treatment>,
        now_ns: u64,
    ) -> Option<String> {
        if self.declared.is_some() {
            return Some("a declared fold decides about it".to_owned());
        }
        if !(1..=bounds::KEY_BYTES).contains(&self.name.len()) || self.name.chars().any(char::is_control) {
            return Some("no rule of a plan can name it".to_owned());
        }
        if self.tenant.len() > bounds::NAME_BYTES || self.tenant.chars().any(char::is_control) {
            return Some("no rule of a plan can name its tenant".to_owned());
        }
        if !self.of.iter().any(|it| self.takes.kind(&it.kind)) {
            let kind = self.of.first().map_or("", |it| it.kind.as_str());
            return Some(format!("no function is declared for its type, {kind}"));
        }
        let treatment = treatment?;
        let changed_ns = treatment.wanted_ns.max(treatment.changed_ns);
        let until_ns = changed_ns.saturating_add(policy.change.dwell.as_nanos());
        (changed_ns > 0 && now_ns < until_ns).then(|| {
            format!(
                "it changed {} ago, and stays for {}",
                super::words::span(now_ns - changed_ns),
                policy.change.dwell
            )
        })
    }

    /// Series that all embedders would write, were these labels folded; without any, distinct active streams.
    pub fn remaining(&self, folded: &Folded) -> f64 {
        if let Some(left) = self.declared {
            return left;
        }
        if folded.is_empty() {
            return self.active;
        }
        if let Some(left) = self.left_before.filter(|_| *folded == self.wanted_before) {
            return left.min(self.active);
        }
        let of = |it: &&MetricEstimate| {
            if self.takes.kind(&it.kind) { it.remaining(folded) } else { it.active.value }
        };
        self.of.iter().map(of).sum()
    }

    /// Series that go out now, where these labels fold by a rule: without any, what embedders contain by themselves counts.
    pub fn out_now(&self, folded: &Folded) -> f64 {
        if self.declared.is_some() || !folded.is_empty() {
            return self.remaining(folded);
        }
        let parts = self.of.iter().flat_map(|it| &it.parts);
        let out = parts.map(|part| if part.folded > 0 { part.used as f64 } else { part.active }).sum::<f64>();
        out.min(self.active)
    }

    /// Series that a declared fold leaves.
    fn left_by(&self, labels: &Labels) -> f64 {
        let goes = |key: &&LabelKey| {
            if key.resource {
                !labels.keeps_resource(key.key.as_bytes())
            } else {
                !labels.keeps_attribute(key.key.as_bytes())
            }
        };
        let folded: Folded = self.labels.keys().filter(goes).cloned().collect();
        let of = |it: &&MetricEstimate| {
            if self.takes.kind(&it.kind) { it.remaining(&folded) } else { it.active.value }
        };
        self.of.iter().map(of).sum()
    }

    /// Weights of the queries that lose their answer when these labels fold.
    pub fn use_of(&self, folded: &Folded) -> u64 {
        folded.iter().filter_map(|key| self.labels.get(key)).map(|label| label.needed.weight).sum()
    }

    /// Usual series that are lost when these labels fold, and so many series become so many: at least what falls below the usual number, and what each label
    /// would have taken of it. A label that is new, the guilty one of an explosion, takes nothing that was usual.
    pub fn lost(&self, labels: &Folded, before: f64, after: f64) -> f64 {
        let of = |key: &LabelKey| {
            self.baseline_without.get(key).map_or(0.0, |left| (self.baseline - left).max(0.0))
        };
        let each: f64 = labels.iter().map(of).sum();
        each.min(self.baseline).max(before.min(self.baseline) - after).max(0.0)
    }

    /// Why nothing more of it folds.
    pub fn why_stuck(&self) -> String {
        if let Some(why) = &self.locked {
            return why.clone();
        }
        if self.overlaps && self.wanted.is_empty() {
            return "several embedders see the same streams, and a sum over them would count those twice"
                .to_owned();
        }
        let kept: Vec<String> = self
            .labels
            .iter()
            .filter(|(_, label)| !label.why_not.is_empty())
            .map(|(key, label)| format!("{}: {}", key.key, label.why_not))
            .collect();
        match kept.as_slice() {
            [] => "no label of it would save anything".to_owned(),
            some => format!("no other label would save anything ({})", some.join("; ")),
        }
    }

    /// Labels that may fold and do not.
    pub fn foldable(&self) -> impl Iterator<Item = (&LabelKey, &Label)> {
        self.labels.iter().filter(|(key, label)| label.why_not.is_empty() && !self.wanted.contains(key))
    }
}

/// Why a label may not fold; empty: it may.
pub(super) fn why_not(label: &LabelKey, metric: &str, needed: &Use, policy: &Policy) -> String {
    let key = label.key.as_str();
    let plain = (1..=bounds::KEY_BYTES).contains(&key.len())
        && !key.contains(',')
        && !key.chars().any(char::is_control);
    if !plain {
        return "no rule of a plan can name it".to_owned();
    }
    if policy.protects(metric, key) {
        return "it is protected".to_owned();
    }
    if needed.is_preserved {
        return format!("{} needs it, which is preserved", needed.named.first().map_or("", String::as_str));
    }
    if label.resource && JOB.contains(&key) {
        return "it names the job".to_owned();
    }
    if label.resource && policy.plan.placement == Placement::Sidecar {
        return "a sidecar's writer is as fine as its pod".to_owned();
    }
    if label.resource && policy.plan.tenant.resource_attribute.as_deref() == Some(key) {
        return "it names the tenant".to_owned();
    }
    String::new()
}
