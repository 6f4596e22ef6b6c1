//! What stands between a point that no rule folds and the upstream: it is measured, and its metric may be beyond a budget.
//!
//! In: a point of a metric that passes. Out: its [`Fate`]. What is known to be raw passes by one look into a table; what is known to fold
//! becomes a record under the fold of its level; what is new makes a [`census`](super::census) of the batch. Points under a rule with
//! `full_fidelity` are measured and never folded; so are points of types for which no fold is declared, counted outside the budget.

use super::kept::key_at;
use super::points::{Fate, Seen};
use super::{FlowError, MetricScope, ResourceScope, Walk};
use crate::admission::{self, Level, Metric, NewLabel, Order, Registry, Standing, folded};
use crate::decode::{Run, UsualPoint};
use crate::hash::{Domain, Hasher, Identity};
use crate::identify;
use crate::kind::Intake;
use crate::measure::{Described, Label};
use crate::record::Temporality;
use crate::route::Course;
use crate::units::UnixNanos;
use crate::wire::{Span, WireError};
use phoenix_plan::TenantShare;
use std::rc::Rc;

/// Under this number the attributes of passing points are remembered; folds count from 1.
pub const PASS: usize = 0;
/// Attributes of a point that a budget looks at; a point with more is one that it cannot decide about.
pub const LABELS_MAX: u32 = 4_096;

/// Points of a metric from which on it pays to have their order at hand: that is a look-up as well.
const ORDER_FROM: u32 = 4;

/// A promoted attribute of the resource.
#[derive(Clone)]
pub struct ResourceLabel {
    pub label: NewLabel,
    pub key: Span,
    pub value: Span,
}

/// The promoted attributes of a resource, and the sum of their identities.
#[derive(Clone, Default)]
pub struct ResourceLabels {
    pub all: Vec<ResourceLabel>,
    pub id: Identity,
}

/// A level of a contained metric, and what its series share.
struct GuardLevel {
    level: Rc<Level>,
    base: Identity,
}

/// What is known about the metric at hand.
pub struct Guard {
    /// A budget decides about its streams.
    pub is_enforced: bool,
    /// Metric and tenant, by halves of their identities.
    pub metric: u64,
    pub tenant: u64,
    /// One of the metrics that are too many to be told apart.
    pub is_other: bool,
    /// Identity of its series but for their point attributes.
    pub base: Identity,
    pub share: u32,
    pub tenant_share: TenantShare,
    resource: Rc<ResourceLabels>,
    /// Its streams in their order, while they are walked; nothing where a batch has few of them ([`ORDER_FROM`]).
    order: Option<Order>,
    wants_order: bool,
    /// All of its points in the batch pass, as a census has found, and nothing is left to measure of them.
    pub is_settled: bool,
    /// Points that it stood before.
    points: u64,
    /// Budgets would decide, were a fold declared for the type.
    is_undeclared: bool,
    /// State of the log that the levels are of.
    turns: Option<u64>,
    levels: Vec<GuardLevel>,
    released: Option<UnixNanos>,
}

/// Does a rule speak of these points?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ruled {
    /// None does: budgets decide.
    No,
    /// One that lets them pass.
    Passes,
}

impl Ruled {
    /// Where the guard of such points is kept.
    pub fn slot(self) -> usize {
        usize::from(self == Ruled::Passes)
    }
}

impl Guard {
    /// Under what its streams are kept in their order.
    fn order_key(&self) -> u64 {
        // A stream is raw by a budget, or only measured: two answers.
        self.base.low() ^ u64::from(self.is_enforced)
    }

    /// Is this the stream that is expected in its order?
    #[inline(always)]
    fn goes_on(&mut self, stream: Identity, registry: &mut Registry) -> bool {
        if self.wants_order {
            self.wants_order = false;
            self.order = Some(registry.again.take(self.order_key()));
        }
        self.order.as_mut().is_some_and(|order| order.goes_on(stream.low(), registry.stamp()))
    }

    /// Does a stream pass that is known? Then, whether it comes for the first time in this generation.
    #[inline(always)]
    pub fn passes(&mut self, stream: Identity, registry: &mut Registry) -> Option<bool> {
        if self.goes_on(stream, registry) {
            return Some(false);
        }
        let (key, stamp) = (stream.low(), registry.stamp());
        let is_first = if self.is_enforced { registry.look_raw(key)? } else { registry.measure.is_new(key) };
        if let Some(order) = &mut self.order {
            order.learn(key, stamp);
        }
        Some(is_first)
    }

    /// Does a stream come that is raw, and was measured in this generation?
    #[inline(always)]
    pub fn is_raw(&mut self, stream: Identity, registry: &mut Registry) -> bool {
        if self.goes_on(stream, registry) {
            return true;
        }
        let (key, stamp) = (stream.low(), registry.stamp());
        let is_raw = registry.is_raw_again(key);
        if let Some(order) = self.order.as_mut().filter(|_| is_raw) {
            order.learn(key, stamp);
        }
        is_raw
    }

    /// Does a stream with these attributes come that was measured in this generation?
    #[inline(always)]
    pub fn is_measured(&mut self, attributes: Identity, registry: &mut Registry) -> bool {
        let stream = self.base.plus(attributes);
        if self.goes_on(stream, registry) {
            return true;
        }
        let (key, stamp) = (stream.low(), registry.stamp());
        let is_known = registry.measure.is_known(key);
        if let Some(order) = self.order.as_mut().filter(|_| is_known) {
            order.learn(key, stamp);
        }
        is_known
    }

    /// A point was met.
    #[inline]
    pub fn meet(&mut self) {
        self.points = self.points.saturating_add(1);
    }
}

impl Walk<'_> {
    /// Is anything measured?
    pub fn is_guarding(&self) -> bool {
        self.s.registry.is_some() && self.plan.plan.measured_over().is_some()
    }

    /// The promoted attributes of the resource, read once.
    #[inline(never)]
    pub fn resource_labels(&mut self, resource: &mut ResourceScope) -> Result<Rc<ResourceLabels>, WireError> {
        if let Some(known) = &resource.labels {
            return Ok(known.clone());
        }
        let (h, plan) = (&self.plan.hasher, &self.plan);
        let mut out = ResourceLabels::default();
        let mut it = resource.attributes.attributes(self.buf);
        while let Some(kv) = it.next()? {
            let key = kv.key.bytes(self.buf);
            if !plan.plan.promotes_resource(key) {
                continue;
            }
            let pair = identify::attribute(h, Domain::Resource, self.buf, &kv)?;
            out.id = out.id.plus(pair);
            let label = new_label(plan, key, true, pair);
            out.all.push(ResourceLabel { label, key: kv.key, value: kv.value.text() });
        }
        let out = Rc::new(out);
        resource.labels = Some(out.clone());
        Ok(out)
    }

    /// What is known about a metric whose points pass.
    #[inline(never)]
    pub fn guard(
        &mut self,
        name: &[u8],
        base: Identity,
        (intake, temporality): (Intake, Temporality),
        ruled: Ruled,
        resource: Rc<ResourceLabels>,
    ) -> Option<Guard> {
        let plan = self.plan;
        let registry = self.s.registry.as_ref()?;
        let h = &plan.hasher;
        let tenant = registry.tenant(plan, self.tenant_id.low());
        let metric = h.pair(Domain::Metric, &tenant.to_le_bytes(), name).low();
        let (metric, is_other) = registry.metric(plan, tenant, metric);
        let adds_up = temporality == Temporality::Cumulative && intake != Intake::Gauge;
        let is_affine = !adds_up || self.affine_from.0 != u64::MAX;
        let takes = plan.budget_takes(intake, temporality);
        let budgets = plan.plan.budgets.as_ref().filter(|_| ruled == Ruled::No && is_affine);
        let (share, tenant_share) = match budgets {
            Some(budgets) => Registry::share(budgets, self.tenant, name),
            None => (u32::MAX, phoenix_plan::NO_SHARE),
        };
        Some(Guard {
            is_enforced: budgets.is_some() && takes,
            is_undeclared: budgets.is_some() && !takes,
            is_settled: false,
            points: 0,
            metric,
            tenant,
            is_other,
            base: base.plus(resource.id),
            share,
            tenant_share,
            resource,
            turns: None,
            levels: Vec::new(),
            released: None,
            order: None,
            wants_order: self.points_at_hand >= ORDER_FROM,
        })
    }

    /// The order of its streams goes back to where it is kept.
    pub fn leave_order(&mut self, guard: &mut Guard) {
        if let (Some(registry), Some(order)) = (&mut self.s.registry, guard.order.take()) {
            registry.again.put(guard.order_key(), order);
            guard.wants_order = true;
        }
    }

    /// Bring the levels up to date with the log.
    #[inline(never)]
    fn renew(&mut self, guard: &mut Guard) {
        let (Some(registry), Some(budgets)) = (&mut self.s.registry, &self.plan.plan.budgets) else { return };
        let turns = registry.state().turns;
        if guard.turns == Some(turns) {
            return;
        }
        guard.turns = Some(turns);
        guard.released = registry.state().metrics.get(&guard.metric).and_then(Metric::released_at);
        // What went out raw until affinity was shown is in raw samples.
        let least = if self.affine_from.0 == u64::MAX { UnixNanos(0) } else { self.affine_from };
        let levels = registry.levels(self.plan, budgets, guard.metric, least);
        let (buf, resource, base) = (self.buf, guard.resource.clone(), guard.base);
        let of = |level: Rc<Level>| {
            let drops = |it: &&ResourceLabel| !level.fold.labels.keeps_resource(it.key.bytes(buf));
            let base = resource.all.iter().filter(drops).fold(base, |id, it| id.minus(it.label.pair));
            GuardLevel { base, level: level.clone() }
        };
        guard.levels = levels.into_iter().map(of).collect();
    }

    /// A number of which everything is known already: the short way, which decides nothing on its own. False: nothing has happened.
    #[inline(always)]
    pub fn passes_again(&mut self, span: Span, within: &MetricScope<'_>, slot: usize) -> bool {
        let Some(Some(guard)) = self.guards.get_mut(slot) else { return false };
        let guess = self.s.dictionary.guess();
        let Some(point) = UsualPoint::read(self.buf, span, guess) else { return false };
        let attributes = Run { number: 7, count: guess.count, span: point.attributes };
        let Some(known) = self.s.dictionary.expected(PASS) else { return false };
        let Some(registry) = &mut self.s.registry else { return false };
        let stream = guard.base.plus(known.all);
        let Some(is_first) = guard.passes(stream, registry) else { return false };
        guard.meet();
        if is_first {
            self.s.dictionary.pass_over_at(attributes.span);
            self.measure_known(slot, within, stream, &attributes);
        } else {
            self.s.dictionary.pass_over();
        }
        true
    }

    /// The first point in this generation of a stream whose attributes were read before.
    #[inline(never)]
    fn measure_known(&mut self, slot: usize, within: &MetricScope<'_>, stream: Identity, attributes: &Run) {
        let Some(guard) = self.guards.get_mut(slot).and_then(Option::take) else { return };
        // Bytes that were walked before have no errors.
        let _ = self.measure(&guard, within, stream, attributes);
        if let Some(slot) = self.guards.get_mut(slot) {
            *slot = Some(guard);
        }
    }

    /// A point that no rule folds.
    pub fn unruled(
        &mut self,
        seen: &Seen,
        within: &MetricScope<'_>,
        ruled: Ruled,
    ) -> Result<Fate, FlowError> {
        let Some(resource) = within.labels.as_ref().filter(|_| self.is_guarding()) else {
            return Ok(Fate::Passes);
        };
        let slot = ruled.slot();
        let guard = self.guards.get_mut(slot).and_then(Option::take).or_else(|| {
            let name = within.metric.name.bytes(self.buf);
            self.guard(name, within.out, (within.intake, within.temporality), ruled, resource.clone())
        });
        let Some(mut guard) = guard else { return Ok(Fate::Passes) };
        guard.meet();
        let fate = self.guarded(seen, within, &mut guard);
        if let Some(slot) = self.guards.get_mut(slot) {
            *slot = Some(guard);
        }
        fate
    }

    #[inline(never)]
    fn guarded(
        &mut self,
        seen: &Seen,
        within: &MetricScope<'_>,
        guard: &mut Guard,
    ) -> Result<Fate, FlowError> {
        let (buf, h) = (self.buf, &self.plan.hasher);
        let attributes = seen.point.attributes;
        let known = self.s.dictionary.known_under(buf, h, PASS, |_| true, &attributes)?;
        let stream = guard.base.plus(known.all);
        let Some(registry) = &mut self.s.registry else { return Ok(Fate::Passes) };
        if !guard.is_enforced {
            if registry.measure.is_new(stream.low()) {
                self.measure(guard, within, stream, &attributes)?;
            }
            return Ok(Fate::Passes);
        }
        for _ in 0..2 {
            self.renew(guard);
            let Some(registry) = &mut self.s.registry else { return Ok(Fate::Passes) };
            if let Some((standing, is_first)) = registry.look(stream.low()) {
                if is_first {
                    self.measure(guard, within, stream, &attributes)?;
                }
                return self.stands(seen, within, guard, standing);
            }
            let before_release = guard.released.is_none_or(|at| UnixNanos(seen.point.time_ns) < at);
            if before_release && let Some(level) = self.level_of(guard, &attributes)? {
                self.measure_if_new(guard, within, stream, &attributes)?;
                return self.beyond(seen, within, &level, None);
            }
            if seen.point.is_stale() {
                // The end of a series that nobody has: where others fold, it would be one more.
                let folds = !guard.levels.is_empty() && before_release;
                self.tally.no_value = self.tally.no_value.saturating_add(u64::from(folds));
                return Ok(if folds { Fate::Dropped } else { Fate::Passes });
            }
            if UnixNanos(seen.point.time_ns) > self.ahead_after {
                self.tally.ahead = self.tally.ahead.saturating_add(1);
                return Ok(Fate::Passes);
            }
            if attributes.count > LABELS_MAX || !self.may_decide() {
                break;
            }
            self.leave_order(guard);
            self.census()?;
            guard.is_settled = self.settled.contains_key(&guard.metric);
            guard.turns = None;
        }
        self.tally.undecided = self.tally.undecided.saturating_add(1);
        self.measure_if_new(guard, within, stream, &attributes)?;
        match guard.levels.last().map(|it| it.level.clone()) {
            Some(level) => self.beyond(seen, within, &level, None),
            None => Ok(Fate::Passes),
        }
    }

    /// The level under which a stream folds already.
    fn level_of(&mut self, guard: &Guard, attributes: &Run) -> Result<Option<Rc<Level>>, FlowError> {
        let (buf, h) = (self.buf, &self.plan.hasher);
        for it in &guard.levels {
            let fold = &it.level.fold;
            let keeps = |key: &[u8]| fold.labels.keeps_attribute(key);
            let kept = self.s.dictionary.known_under(buf, h, fold.number, keeps, attributes)?.kept;
            let series = folded(it.base.plus(kept), &it.level.labels);
            let standing = self.s.registry.as_mut().and_then(|registry| registry.look(series));
            if matches!(standing, Some((Standing::Folded(_), _))) {
                return Ok(Some(it.level.clone()));
            }
        }
        Ok(None)
    }

    /// A stream that is known by itself.
    fn stands(
        &mut self,
        seen: &Seen,
        within: &MetricScope<'_>,
        guard: &Guard,
        standing: Standing,
    ) -> Result<Fate, FlowError> {
        let Standing::Comes(at_s) = standing else { return Ok(Fate::Passes) };
        let at = admission::seconds(at_s);
        if guard.released != Some(at) {
            return Ok(Fate::Passes);
        }
        match self.level_of(guard, &seen.point.attributes)? {
            Some(level) => self.beyond(seen, within, &level, Some(at)),
            None => Ok(Fate::Passes),
        }
    }

    /// A point of a stream that is beyond a budget: it folds; around a release as a rule's switch says.
    #[inline(never)]
    fn beyond(
        &mut self,
        seen: &Seen,
        within: &MetricScope<'_>,
        level: &Level,
        comes: Option<UnixNanos>,
    ) -> Result<Fate, FlowError> {
        let recorded = self.tally.recorded;
        let fate = match &level.switch {
            Some(switch) => self.switched(seen, within, switch, (switch.before.as_ref(), None))?,
            None if comes.is_some() => Fate::Passes,
            None => self.folds(seen, within, &level.fold)?,
        };
        let more = self.tally.recorded.saturating_sub(recorded);
        self.tally.contained = self.tally.contained.saturating_add(more);
        Ok(fate)
    }

    fn measure_if_new(
        &mut self,
        guard: &Guard,
        within: &MetricScope<'_>,
        stream: Identity,
        attributes: &Run,
    ) -> Result<(), FlowError> {
        let is_new = self.s.registry.as_mut().is_some_and(|it| it.measure.is_new(stream.low()));
        if is_new { self.measure(guard, within, stream, attributes) } else { Ok(()) }
    }

    /// The first point of a stream in this generation.
    #[inline(never)]
    fn measure(
        &mut self,
        guard: &Guard,
        within: &MetricScope<'_>,
        stream: Identity,
        attributes: &Run,
    ) -> Result<(), FlowError> {
        let (buf, h) = (self.buf, &self.plan.hasher);
        let described = Described {
            id: guard.metric,
            tenant: (guard.tenant, self.tenant),
            name: within.metric.name.bytes(buf),
            kind: within.intake.word(within.temporality),
        };
        let (registry, dictionary) = (self.s.registry.as_mut(), &mut self.s.dictionary);
        let Some(mut adding) = registry.and_then(|it| it.measure.begin(&described, stream)) else {
            return Ok(());
        };
        let room = (LABELS_MAX as usize).saturating_sub(guard.resource.all.len());
        for it in guard.resource.all.iter().take(LABELS_MAX as usize) {
            let label = Label { id: it.label.id, pair: it.label.pair.low(), value: it.value };
            adding.label(label, buf, true, || it.key.bytes(buf));
        }
        for (at, label) in dictionary.measured(buf, h, attributes)?.iter().take(room).enumerate() {
            adding.label(*label, buf, false, || key_at(buf, attributes, at));
        }
        adding.done();
        Ok(())
    }

    /// A point that folds the short way was met.
    #[inline]
    pub fn meet_ruled(&mut self) {
        if let Some(Some(guard)) = self.guards.get_mut(Ruled::Passes.slot()) {
            guard.meet();
        }
    }

    /// There is a guard for the points of the metric at hand that a rule speaks of, where anything is measured.
    fn meet_guard(&mut self, within: &MetricScope<'_>) {
        let slot = Ruled::Passes.slot();
        let Some(resource) = within.labels.as_ref().filter(|_| self.is_guarding()) else { return };
        if self.guards.get(slot).is_some_and(Option::is_some) {
            return;
        }
        let name = within.metric.name.bytes(self.buf);
        let kind = (within.intake, within.temporality);
        let guard = self.guard(name, within.out, kind, Ruled::Passes, resource.clone());
        if let Some(place) = self.guards.get_mut(slot) {
            *place = guard;
        }
    }

    /// So many points pass, and a guard has met them.
    pub fn pass_all(&mut self, points: u64) {
        self.tally.passed = self.tally.passed.saturating_add(points);
        if let Some(Some(guard)) = self.guards.get_mut(Ruled::No.slot()) {
            guard.points = guard.points.saturating_add(points);
        }
    }

    /// What a rule folds is measured: else nobody could tell whether the fold is still needed. `treat` finds the fate of the point, and on the way
    /// the identity of its attributes; where it needs none, the point is none of a stream that would be measured.
    pub fn measured(
        &mut self,
        seen: &Seen,
        within: &MetricScope<'_>,
        treat: impl FnOnce(&mut Self) -> Result<Fate, FlowError>,
    ) -> Result<Fate, FlowError> {
        if !self.is_guarding() {
            return treat(self);
        }
        self.meet_guard(within);
        self.meet_ruled();
        self.s.dictionary.latest = None;
        let fate = treat(self)?;
        let slot = Ruled::Passes.slot();
        if let Some(all) = self.s.dictionary.latest
            && let Some(guard) = self.guards.get_mut(slot).and_then(Option::take)
        {
            self.measure_if_new(&guard, within, guard.base.plus(all), &seen.point.attributes)?;
            if let Some(slot) = self.guards.get_mut(slot) {
                *slot = Some(guard);
            }
        }
        Ok(fate)
    }

    /// Does a budget fold this stream, or would it, were there no rule? Only of metrics that are contained: of others all is raw. Then, the metric.
    #[inline(never)]
    pub fn contained(&mut self, seen: &Seen) -> Result<Option<u64>, FlowError> {
        let guard = self.guards.get(Ruled::Passes.slot()).and_then(Option::as_ref);
        let Some((base, metric)) = guard.map(|guard| (guard.base, guard.metric)) else { return Ok(None) };
        let Some(registry) = &mut self.s.registry else { return Ok(None) };
        let has_levels = registry.state().metrics.get(&metric).is_some_and(Metric::has_levels);
        if self.plan.plan.budgets.is_none() || !has_levels || seen.point.is_stale() {
            return Ok(None);
        }
        let attributes = seen.point.attributes;
        let known =
            self.s.dictionary.known_under(self.buf, &self.plan.hasher, PASS, |_| true, &attributes)?;
        let Some(registry) = &mut self.s.registry else { return Ok(None) };
        Ok(registry.look(base.plus(known.all).low()).is_none().then_some(metric))
    }

    /// The walk leaves the metric: what its guards have counted.
    pub fn leave_metric(&mut self) {
        for slot in 0..self.guards.len() {
            let Some(mut guard) = self.guards.get_mut(slot).and_then(Option::take) else { continue };
            self.leave_order(&mut guard);
            if guard.is_undeclared {
                self.tally.undeclared = self.tally.undeclared.saturating_add(guard.points);
            }
            if let Some(registry) = &mut self.s.registry {
                registry.measure.count(guard.metric, guard.points);
            }
        }
    }

    /// The one way of every point of the metric at hand, where that is to pass.
    pub fn ruled(&self) -> Option<Ruled> {
        if self.s.candidates.is_none() {
            return Some(Ruled::No);
        }
        let only = self.s.candidates.only()?;
        matches!(self.plan.course(only), Course::Pass).then_some(Ruled::Passes)
    }
}

/// Half of the identity of a label's key.
pub fn label_id(h: &Hasher, key: &[u8], is_resource: bool) -> u64 {
    h.pair(Domain::Label, key, &[u8::from(is_resource)]).low() | 1
}

/// A label as a census knows it.
pub fn new_label(plan: &crate::route::Compiled, key: &[u8], is_resource: bool, pair: Identity) -> NewLabel {
    let (foldable, protected) = match &plan.plan.budgets {
        Some(budgets) => (
            admission::is_foldable(plan, budgets, key, is_resource),
            admission::is_protected(plan, budgets, key, is_resource),
        ),
        None => (false, true),
    };
    let id = label_id(&plan.hasher, key, is_resource);
    NewLabel { id, pair, is_foldable: foldable, is_protected: protected }
}
