//! All new streams of a batch, gathered when the first of them turns up, so that they are decided about together.
//!
//! In: the batch from its beginning, and what the log knows. Out: a decision in the log for each stream that budgets decide about. Metrics
//! whose points a rule may fold are left out, as are the types for which no fold is declared. Cost: a walk over the batch, for batches with new
//! streams only; memory by the labels of new streams, [`LABELS_GATHERED_MAX`] at a time: what is beyond is gathered when it turns up.

use super::guard::{Guard, LABELS_MAX, PASS, ResourceLabels, Ruled, new_label};
use super::{FlowError, ResourceScope, Walk, intake};
use crate::admission::{ByHalf, Census, Group, Name, NewLabel, Newcomer, Registry, whole_seconds};
use crate::decode::{
    Data, DistributionPoint, Metric, NumberPoint, Request, ResourceMetrics, Scope, ScopeMetrics, UsualPoint,
};
use crate::hash::Identity;
use crate::identify;
use crate::kind::Intake;
use crate::measure::{Described, Label};
use crate::record::Temporality;
use crate::units::UnixNanos;
use crate::wire::{Span, WireError};
use core::ops::Range;
use std::rc::Rc;

/// Labels of new streams that are gathered at a time: 48 MiB.
const LABELS_GATHERED_MAX: usize = 1 << 20;
/// Room for labels that is kept from batch to batch: 1.5 MiB.
const LABELS_KEPT: usize = 1 << 14;
/// Keys among which one is searched.
const KEYS_SEARCHED: usize = 64;
/// Walks over one batch at most: what is left then is left undecided.
const WALKS_MAX: u32 = 16;

/// How far the batch at hand has been decided about.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    walks: u32,
    is_complete: bool,
}

/// Keys of attributes that new streams have: what is the same for each of their labels, found once.
#[derive(Default)]
struct Keys {
    known: Vec<NewLabel>,
}

impl Keys {
    /// Where the label of this id is, which is likely to be at `likely`.
    fn find(&mut self, id: u64, likely: usize, new: impl FnOnce() -> NewLabel) -> usize {
        let is = |known: &NewLabel| known.id == id;
        if self.known.get(likely).is_some_and(is) {
            return likely;
        }
        // With very many keys a search would cost more than to find one anew.
        let search = self.known.get(..KEYS_SEARCHED).unwrap_or(&self.known);
        search.iter().position(is).unwrap_or_else(|| {
            self.known.push(new());
            self.known.len().saturating_sub(1)
        })
    }

    fn label(&self, at: usize) -> Option<NewLabel> {
        self.known.get(at).copied()
    }
}

/// Where in the batch a label is: is it one of the resource; its key; its value.
pub type Place = (bool, Span, Span);

/// A new stream, to be measured once it was decided about.
struct Fresh<'a> {
    tenant: &'a [u8],
    group: usize,
    id: Identity,
    /// Its labels in the census, and where in the batch those are.
    labels: Range<usize>,
    name: Span,
    kind: &'static str,
}

/// A metric of the batch of which no rule speaks and whose points are numbers: where it begins, which it is, how many points it has.
#[derive(Clone, Copy)]
pub struct Whole {
    start: usize,
    metric: u64,
    points: u32,
}

/// What is gathered.
#[derive(Default)]
struct Gathered<'a> {
    keys: Keys,
    fresh: Vec<Fresh<'a>>,
    /// Of each label of the census.
    spans: Vec<Place>,
    /// Metrics with a point that has to be looked at in its turn.
    odd: ByHalf<()>,
    /// In the order of the batch.
    wholes: Vec<Whole>,
    census: Census,
    names: ByHalf<Name>,
    seen: ByHalf<()>,
    is_full: bool,
}

impl Gathered<'_> {
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
    span: Span,
    kind: (Intake, Temporality),
    /// Identity of its series but for their point attributes.
    base: Identity,
    /// The group of points that no rule speaks of, where a budget decides about them.
    budget: Option<usize>,
    /// No rule speaks of any.
    is_free: bool,
}

impl<'a> Walk<'a> {
    /// A point under a rule: new streams count where the rule keeps the heaviest.
    fn gather_ranked(
        &mut self,
        index: usize,
        point: &NumberPoint,
        count: Option<u64>,
        of: &Of<'_>,
        out: &mut Gathered<'a>,
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
        let latest = self.s.dictionary.latest;
        let mut gathered = Gathered::default();
        (gathered.census.labels, gathered.spans) = core::mem::take(&mut self.s.gathered);
        let points = self.points_at_hand;
        let done = self.gather(&mut gathered);
        self.points_at_hand = points;
        (self.s.candidates, self.s.fits) = (candidates, fits);
        (self.tenant, self.tenant_id, self.sender_id) = (tenant, tenant_id, sender_id);
        self.s.dictionary.latest = latest;
        done?;
        self.progress.is_complete = !gathered.is_full;
        if gathered.census.groups.is_empty() {
            return Ok(());
        }
        let now = self.s.now;
        if let Some(registry) = &mut self.s.registry {
            registry.decide(&gathered.census, now, |label| gathered.names.get(&label).cloned());
            if self.progress.is_complete {
                settle(&gathered, self.buf, registry, &mut self.settled);
                gathered.wholes.retain(|it| self.settled.contains_key(&it.metric));
                self.wholes = core::mem::take(&mut gathered.wholes).into_iter().peekable();
            }
        }
        let (mut labels, mut spans) = (gathered.census.labels, gathered.spans);
        if labels.capacity() <= LABELS_KEPT {
            labels.clear();
            spans.clear();
            self.s.gathered = (labels, spans);
        }
        Ok(())
    }

    /// A metric that begins at `start` passes as a whole, as the census has found: then that many points are counted, and nothing else is to be done.
    pub fn passes_whole(&mut self, start: usize) -> bool {
        while self.wholes.next_if(|it| it.start < start).is_some() {}
        let Some(it) = self.wholes.next_if(|it| it.start == start) else { return false };
        let points = u64::from(it.points);
        self.tally.points = self.tally.points.saturating_add(points);
        self.tally.passed = self.tally.passed.saturating_add(points);
        if let Some(registry) = &mut self.s.registry {
            registry.measure.count(it.metric, points);
        }
        true
    }

    fn gather(&mut self, out: &mut Gathered<'a>) -> Result<(), FlowError> {
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
        out: &mut Gathered<'a>,
    ) -> Result<(), FlowError> {
        let (start_of, metric) = (span.start, Metric::read(self.buf, span)?);
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
        self.points_at_hand = run.count;
        let facts = intake.facts(temporality);
        let id = identify::metric(&self.plan.hasher, self.buf, metric.name, metric.unit, &facts);
        let base = self.tenant_id.plus(scope).plus(id);
        let name = metric.name.bytes(self.buf);
        let guard = if has_budget {
            self.guard(name, base, (intake, temporality), Ruled::No, labels.clone())
        } else {
            None
        };
        let mut guard = guard.filter(|guard| guard.is_enforced);
        if guard.is_none() && !has_ranking {
            return Ok(());
        }
        let of = Of {
            name,
            span: metric.name,
            kind: (intake, temporality),
            base: base.plus(labels.id),
            budget: guard.as_ref().map(|guard| self.group(guard, out)),
            is_free,
        };
        let is_usual = is_free && intake.is_number();
        if let Some(guard) = guard.as_ref().filter(|_| is_usual) {
            out.wholes.push(Whole { start: start_of, metric: guard.metric, points: run.count });
        }
        let mut points = run.fields(self.buf);
        while points.advance()? {
            let (_, span) = points.place();
            if out.is_full {
                break;
            }
            if is_usual && guard.as_mut().is_some_and(|guard| self.knows_again(span, guard)) {
                continue;
            }
            self.gather_point(span, &of, &labels, out)?;
        }
        if let Some(guard) = &mut guard {
            self.leave_order(guard);
        }
        Ok(())
    }

    /// A number of a stream that is raw and was measured, by the guess: the short way.
    #[inline(always)]
    fn knows_again(&mut self, span: Span, guard: &mut Guard) -> bool {
        if UsualPoint::read(self.buf, span, self.s.dictionary.guess()).is_none() {
            return false;
        }
        let (Some(known), Some(registry)) = (self.s.dictionary.expected(PASS), &mut self.s.registry) else {
            return false;
        };
        // One that this generation did not see yet has to be measured, one that folds to be folded.
        let is_raw = guard.is_raw(guard.base.plus(known.all), registry);
        if is_raw {
            self.s.dictionary.pass_over();
        }
        is_raw
    }

    fn group(&self, guard: &Guard, out: &mut Gathered<'a>) -> usize {
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
        out: &mut Gathered<'a>,
    ) -> Result<(), FlowError> {
        let (point, count) = common(self.buf, span, of.kind.0)?;
        let (attributes, time) = (point.attributes, UnixNanos(point.time_ns));
        if attributes.count > LABELS_MAX || point.is_stale() || time > self.ahead_after {
            if let Some(group) = of.budget.and_then(|at| out.census.groups.get(at)) {
                out.odd.insert(group.metric, ());
            }
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
        let Some(group_at) = of.budget else { return Ok(()) };
        let base = of.base;
        let (buf, h) = (self.buf, &self.plan.hasher);
        let known = self.s.dictionary.known_under(buf, h, PASS, |_| true, &attributes)?;
        let id = base.plus(known.all);
        let Some(registry) = &self.s.registry else { return Ok(()) };
        let Some(group) = out.census.groups.get_mut(group_at) else { return Ok(()) };
        if registry.state().series.contains_key(&id.low()) {
            if !registry.is_raw_again(id.low()) {
                out.odd.insert(group.metric, ());
            }
            return Ok(());
        }
        if out.seen.insert(id.low(), ()).is_some() {
            return Ok(());
        }
        let released = registry.state().metrics.get(&group.metric).and_then(|it| it.released_at());
        let comes_s = released.filter(|at| time >= *at).map(whole_seconds);
        let labels = &mut out.census.labels;
        let start = labels.len();
        for it in &resource.all {
            keep_name(buf, &it.label, it.key, true, &mut out.names);
            labels.push(it.label);
            out.spans.push((true, it.key, it.value));
        }
        let mut next = 0;
        for part in self.s.dictionary.labels(buf, h, &attributes)? {
            let at = out.keys.find(part.label, next, || {
                let label = new_label(self.plan, part.key.bytes(buf), false, part.id);
                keep_name(buf, &label, part.key, false, &mut out.names);
                label
            });
            next = at.saturating_add(1);
            if let Some(label) = out.keys.label(at) {
                labels.push(NewLabel { pair: part.id, ..label });
                out.spans.push((false, part.key, part.value));
            }
        }
        let labels = start..labels.len();
        group.streams.push(Newcomer { id, labels: labels.clone(), weight: 0.0, comes_s });
        out.is_full = labels.end >= LABELS_GATHERED_MAX;
        out.fresh.push(Fresh {
            tenant: self.tenant,
            group: group_at,
            id,
            labels,
            name: of.span,
            kind: of.kind.0.word(of.kind.1),
        });
        Ok(())
    }
}

/// Metrics of which every point of the batch passes, since a budget has room for all of their streams: the walk need not look at them again, so
/// what is new is measured here. What a decision goes by was measured before.
fn settle(out: &Gathered<'_>, buf: &[u8], registry: &mut Registry, settled: &mut ByHalf<()>) {
    for group in out.census.groups.iter().filter(|it| it.ranked.is_none()) {
        let all_raw = group.streams.iter().all(|it| registry.is_raw(it.id.low()));
        let state = registry.state().metrics.get(&group.metric);
        let is_free = state.is_none_or(|it| !it.has_levels() && it.released_at().is_none());
        if all_raw && is_free && !out.odd.contains_key(&group.metric) {
            settled.insert(group.metric, ());
        }
    }
    for fresh in &out.fresh {
        let Some(group) = out.census.groups.get(fresh.group) else { continue };
        if !settled.contains_key(&group.metric) || !registry.look(fresh.id.low()).is_some_and(|it| it.1) {
            continue;
        }
        let described = Described {
            id: group.metric,
            tenant: (group.tenant, fresh.tenant),
            name: fresh.name.bytes(buf),
            kind: fresh.kind,
        };
        let Some(mut adding) = registry.measure.begin(&described, fresh.id) else { continue };
        let labels = out.census.labels.get(fresh.labels.clone()).unwrap_or_default();
        let spans = out.spans.get(fresh.labels.clone()).unwrap_or_default();
        for (label, (is_resource, key, value)) in labels.iter().zip(spans) {
            let label = Label { id: label.id, pair: label.pair.low(), value: *value };
            adding.label(label, buf, *is_resource, || key.bytes(buf));
        }
        adding.done();
    }
}

fn keep_name(buf: &[u8], label: &NewLabel, key: Span, is_resource: bool, names: &mut ByHalf<Name>) {
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
