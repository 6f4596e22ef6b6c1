//! All new streams of a batch, gathered when the first of them turns up, so that they are decided about together.
//!
//! In: the batch from its beginning, and what the log knows. Out: a decision in the log for each stream that budgets decide about. Metrics
//! whose points a rule may fold are left out, as are the types for which no fold is declared. Cost: a walk over the batch, for batches with new
//! streams only; memory by the labels of new streams, [`LABELS_GATHERED_MAX`] at a time: what is beyond is gathered when it turns up.

use super::guard::{LABELS_MAX, PASS, ResourceLabels, Ruled, new_label};
use super::{FlowError, ResourceScope, Walk, intake};
use crate::admission::{Census, Group, Name, NewLabel, Newcomer, whole_seconds};
use crate::decode::{
    Data, DistributionPoint, Metric, NumberPoint, Request, ResourceMetrics, Scope, ScopeMetrics,
};
use crate::hash::{Domain, Identity};
use crate::identify;
use crate::kind::Intake;
use crate::record::Temporality;
use crate::units::UnixNanos;
use crate::wire::{Span, WireError};
use std::rc::Rc;

/// Labels of new streams that are gathered at a time: 48 MiB.
const LABELS_GATHERED_MAX: usize = 1 << 20;
/// Walks over one batch at most: what is left then is left undecided.
const WALKS_MAX: u32 = 16;

/// How far the batch at hand has been decided about.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    walks: u32,
    is_complete: bool,
}

/// What is gathered.
#[derive(Default)]
struct Gathered {
    census: Census,
    names: crate::admission::ByHalf<Name>,
    seen: crate::admission::ByHalf<()>,
    is_full: bool,
}

impl Gathered {
    /// Where the group of a metric is.
    fn group(&mut self, metric: u64, new: impl FnOnce() -> Group) -> usize {
        let groups = &mut self.census.groups;
        groups.iter().position(|group| group.metric == metric).unwrap_or_else(|| {
            groups.push(new());
            groups.len().saturating_sub(1)
        })
    }
}

/// The metric that is gathered.
struct Of<'m> {
    name: &'m [u8],
    kind: (Intake, Temporality),
    /// Identity of its series but for their point attributes.
    base: Identity,
    /// The group of points that no rule speaks of, where a budget decides about them.
    budget: Option<usize>,
    /// No rule speaks of any.
    is_free: bool,
}

impl Walk<'_> {
    /// A point under a rule: new streams count where the rule keeps the heaviest.
    fn gather_ranked(
        &mut self,
        index: usize,
        point: &NumberPoint,
        count: Option<u64>,
        of: &Of<'_>,
        out: &mut Gathered,
    ) -> Result<(), FlowError> {
        let Some(rule) = self.plan.topk(index).filter(|it| it.fold.kind(of.kind.0, of.kind.1).is_some())
        else {
            return Ok(());
        };
        let Some(top) = self.top(index, rule, of.name, of.kind) else { return Ok(()) };
        if !self.is_affine(of.kind.1, UnixNanos(point.time_ns)) {
            return Ok(());
        }
        let (buf, h) = (self.buf, &self.plan.hasher);
        let known = self.s.dictionary.known_under(buf, h, PASS, |_| true, &point.attributes)?;
        let id = top.series(of.base.plus(known.all));
        let Some(registry) = &self.s.registry else { return Ok(()) };
        if registry.state().series.contains_key(&id.low()) || out.seen.insert(id.low(), ()).is_some() {
            return Ok(());
        }
        let weight = super::topk::weighed(point, count, of.kind).map_or(0.0, |it| it.value);
        let ranked = Some(if rule.all_folded { 0 } else { rule.how.k });
        let at = out.group(top.metric, || Group {
            metric: top.metric,
            tenant: top.tenant,
            share: u32::MAX,
            tenant_share: phoenix_plan::NO_SHARE,
            is_other: false,
            ranked,
            streams: Vec::new(),
        });
        if let Some(group) = out.census.groups.get_mut(at) {
            group.streams.push(Newcomer { id, labels: 0..0, weight, comes_s: None });
        }
        Ok(())
    }

    /// Would another census find something that the ones before did not?
    pub fn may_decide(&self) -> bool {
        !self.progress.is_complete && self.progress.walks < WALKS_MAX
    }

    /// Gather all new streams of the batch, and have them decided about.
    pub fn census(&mut self) -> Result<(), FlowError> {
        self.progress.walks = self.progress.walks.saturating_add(1);
        // The walk is in the middle of something: what it knows about that is put aside.
        let (candidates, fits) = (core::mem::take(&mut self.s.candidates), core::mem::take(&mut self.s.fits));
        let (tenant, tenant_id, sender_id) = (self.tenant, self.tenant_id, self.sender_id);
        let mut gathered = Gathered::default();
        let done = self.gather(&mut gathered);
        (self.s.candidates, self.s.fits) = (candidates, fits);
        (self.tenant, self.tenant_id, self.sender_id) = (tenant, tenant_id, sender_id);
        done?;
        self.progress.is_complete = !gathered.is_full;
        if gathered.census.groups.is_empty() {
            return Ok(());
        }
        let now = self.s.now;
        if let Some(registry) = &mut self.s.registry {
            registry.decide(&gathered.census, now, |label| gathered.names.get(&label).cloned());
        }
        Ok(())
    }

    fn gather(&mut self, out: &mut Gathered) -> Result<(), FlowError> {
        let request = Request::read(self.buf, Span::all(self.buf))?;
        let mut resources = request.resource_metrics.fields(self.buf);
        while let Some((_, span)) = resources.next()? {
            let it = ResourceMetrics::read(self.buf, span)?;
            let mut resource = self.enter(&it)?;
            let mut scopes = it.scope_metrics.fields(self.buf);
            while let Some((_, span)) = scopes.next()? {
                let it = ScopeMetrics::read(self.buf, span)?;
                let scope = Scope::read(self.buf, it.scope.unwrap_or(Span::EMPTY))?;
                let scope = identify::scope(&self.plan.hasher, self.buf, &scope)?;
                let mut metrics = it.metrics.fields(self.buf);
                while let Some((_, span)) = metrics.next()? {
                    if out.is_full {
                        return Ok(());
                    }
                    self.gather_metric(span, scope, &mut resource, out)?;
                }
            }
        }
        Ok(())
    }

    fn gather_metric(
        &mut self,
        span: Span,
        scope: Identity,
        resource: &mut ResourceScope,
        out: &mut Gathered,
    ) -> Result<(), FlowError> {
        let metric = Metric::read(self.buf, span)?;
        let Some(field) = metric.data.field().copied() else { return Ok(()) };
        if matches!(metric.data, Data::None) {
            return Ok(());
        }
        self.route(metric.name.bytes(self.buf), resource)?;
        let is_free = self.s.candidates.is_none();
        let (intake, temporality, run) = intake(self.buf, &metric, field.bytes()?)?;
        let Some(temporality) = temporality else { return Ok(()) };
        let has_ranking = self.s.candidates.topk(self.plan).is_some();
        let has_budget = is_free || self.s.candidates.only().is_none();
        if !has_ranking && (!has_budget || self.plan.plan.budgets.is_none()) {
            return Ok(());
        }
        let labels = self.resource_labels(resource)?;
        let facts = intake.facts(temporality);
        let id = identify::metric(&self.plan.hasher, self.buf, metric.name, metric.unit, &facts);
        let base = self.tenant_id.plus(scope).plus(id);
        let name = metric.name.bytes(self.buf);
        let guard = if has_budget {
            self.guard(name, base, (intake, temporality), Ruled::No, labels.clone())
        } else {
            None
        };
        let guard = guard.filter(|guard| guard.is_enforced);
        if guard.is_none() && !has_ranking {
            return Ok(());
        }
        let of = Of {
            name,
            kind: (intake, temporality),
            base: base.plus(labels.id),
            budget: guard.map(|guard| self.group(&guard, out)),
            is_free,
        };
        let mut points = run.fields(self.buf);
        while let Some((_, span)) = points.next()? {
            if out.is_full {
                return Ok(());
            }
            self.gather_point(span, &of, &labels, out)?;
        }
        Ok(())
    }

    fn group(&self, guard: &super::guard::Guard, out: &mut Gathered) -> usize {
        out.group(guard.metric, || Group {
            metric: guard.metric,
            tenant: guard.tenant,
            share: guard.share,
            tenant_share: guard.tenant_share.clone(),
            is_other: guard.is_other,
            ranked: None,
            streams: Vec::new(),
        })
    }

    fn gather_point(
        &mut self,
        span: Span,
        of: &Of<'_>,
        resource: &Rc<ResourceLabels>,
        out: &mut Gathered,
    ) -> Result<(), FlowError> {
        let (point, count) = common(self.buf, span, of.kind.0)?;
        let (attributes, time) = (point.attributes, UnixNanos(point.time_ns));
        if attributes.count > LABELS_MAX || point.is_stale() || time > self.ahead_after {
            return Ok(());
        }
        if !of.is_free {
            // Some points of this metric have a rule: this one?
            let (buf, rendered) = (self.buf, &mut self.s.rendered);
            let has = |label: &phoenix_plan::LabelMatch| super::satisfies(buf, &attributes, label, rendered);
            if let Some(index) = self.s.candidates.rule(self.plan, has)? {
                return self.gather_ranked(index, &point, count, of, out);
            }
        }
        let Some(group) = of.budget else { return Ok(()) };
        let base = of.base;
        let (buf, h) = (self.buf, &self.plan.hasher);
        let known = self.s.dictionary.known_under(buf, h, PASS, |_| true, &attributes)?;
        let id = base.plus(known.all);
        let Some(registry) = &self.s.registry else { return Ok(()) };
        if registry.state().series.contains_key(&id.low()) || out.seen.insert(id.low(), ()).is_some() {
            return Ok(());
        }
        let Some(group) = out.census.groups.get_mut(group) else { return Ok(()) };
        let released = registry.state().metrics.get(&group.metric).and_then(|it| it.released_at());
        let comes_s = released.filter(|at| time >= *at).map(whole_seconds);
        let labels = &mut out.census.labels;
        let start = labels.len();
        for it in &resource.all {
            keep_name(buf, &it.label, it.key, true, &mut out.names);
            labels.push(it.label);
        }
        let mut it = attributes.attributes(buf);
        while let Some(kv) = it.next()? {
            let pair = identify::attribute(h, Domain::Attribute, buf, &kv)?;
            let label = new_label(self.plan, kv.key.bytes(buf), false, pair);
            keep_name(buf, &label, kv.key, false, &mut out.names);
            labels.push(label);
        }
        group.streams.push(Newcomer { id, labels: start..labels.len(), weight: 0.0, comes_s });
        out.is_full = labels.len() >= LABELS_GATHERED_MAX;
        Ok(())
    }
}

fn keep_name(
    buf: &[u8],
    label: &NewLabel,
    key: Span,
    is_resource: bool,
    names: &mut crate::admission::ByHalf<Name>,
) {
    if label.is_foldable && !names.contains_key(&label.id) {
        let key = String::from_utf8_lossy(key.bytes(buf)).into_owned();
        names.insert(label.id, Name { is_resource, key });
    }
}

/// What points of all kinds share, and how many observations a distribution has.
fn common(buf: &[u8], span: Span, intake: Intake) -> Result<(NumberPoint, Option<u64>), WireError> {
    let it = match intake {
        Intake::Sum | Intake::UpDown | Intake::Gauge => return Ok((NumberPoint::read(buf, span)?, None)),
        Intake::Histogram => DistributionPoint::histogram(buf, span)?,
        Intake::Exponential => DistributionPoint::exponential(buf, span)?,
        Intake::Summary => DistributionPoint::summary(buf, span)?,
    };
    Ok((it.common, Some(it.count)))
}
