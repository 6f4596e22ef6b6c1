//! What becomes of a point: it passes, or it leaves the batch as a record; around a switch perhaps both.
//!
//! In: the span of a point, and the metric that the walk is in. Out: a [`Fate`], which the walk turns into an edit, and records in the
//! messages of the shards. Refuses by passing, with a count of why: what no fold can take, what cannot be written, what is far ahead.

use super::guard::Ruled;
use super::kept::{Found, Kept};
use super::{FlowError, Left, MetricScope, Walk, satisfies};
use crate::amount::Number;
use crate::decode::{self, DistributionPoint, NumberPoint};
use crate::hash::Identity;
use crate::kind::Intake;
use crate::limits::DOUBLE_MAX;
use crate::record::{Record, Temporality};
use crate::route::{self, Course, Switched};
use crate::stream::Observation;
use crate::switch::{Side, Turn};
use crate::units::UnixNanos;
use crate::wire::{Span, encode_varint};
use phoenix_plan::LabelMatch;

/// By which fold a point becomes a record.
#[derive(Clone, Copy)]
pub struct Fold<'a> {
    pub fold: &'a route::Fold,
    /// Its series' part in a switch.
    turn: Option<Turn>,
    /// The point passes all the same.
    pub carried: bool,
    /// The series on the other side of the switch has another owner.
    apart: bool,
}

impl<'a> Fold<'a> {
    /// Every point, from the beginning.
    fn plain(fold: &'a route::Fold) -> Fold<'a> {
        Fold { fold, turn: None, carried: false, apart: false }
    }
}

/// A point, read: what all kinds share, and the rest of a distribution.
pub struct Seen {
    pub point: NumberPoint,
    pub distribution: Option<DistributionPoint>,
}

/// The folds on both sides of a switch, where they take points of the kind at hand; else those pass.
pub type Sides<'a> = (Option<&'a route::Fold>, Option<&'a route::Fold>);

/// The course of a point of the kind at hand.
#[derive(Clone, Copy)]
enum Way<'a> {
    Fold(&'a route::Fold),
    Switch(&'a Switched, Sides<'a>),
}

/// What becomes of a point.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is.
    Passes,
    /// It leaves the batch, and its record folds.
    Cut,
    /// It folds, and its place takes the stale marker of its raw series.
    Ends,
    /// It leaves the batch: a marker of a stream that folds.
    Dropped,
}

impl Walk<'_> {
    /// Turn a point into the stale marker of its series: the same stream and time, no value, and the flag that says so. A distribution
    /// keeps its buckets: a backend with a series a bucket ends each of them by its bound.
    pub fn end(&mut self, span: Span, intake: Intake) -> Result<Left, FlowError> {
        let point = self.read(span, intake)?.point;
        let (flags, len) = encode_varint(u64::from(point.flags | NumberPoint::NO_RECORDED_VALUE));
        // Field 8, a varint.
        let mut marker = vec![0x40];
        marker.extend_from_slice(flags.get(..len).unwrap_or_default());
        let (mut value, flags) = (point.value_at, point.flags_at);
        if !intake.is_number() {
            if !flags.is_empty() {
                self.s.edits.replace(flags, &marker);
                return Ok(Left::Something);
            }
            value = Span { start: span.end, end: span.end };
            if intake == Intake::Histogram || intake == Intake::Exponential {
                // Field 10, a varint.
                if let Some(tag) = marker.first_mut() {
                    *tag = 0x50;
                }
            }
        }
        if !flags.is_empty() && flags.start < value.start {
            self.s.edits.remove(flags);
        }
        self.s.edits.replace(value, &marker);
        if !flags.is_empty() && flags.start > value.start {
            self.s.edits.remove(flags);
        }
        Ok(Left::Something)
    }

    /// Read a point of any kind.
    #[inline]
    fn read(&self, span: Span, intake: Intake) -> Result<Seen, FlowError> {
        let it = match intake {
            Intake::Sum | Intake::UpDown | Intake::Gauge => {
                return Ok(Seen { point: NumberPoint::read(self.buf, span)?, distribution: None });
            }
            Intake::Histogram => DistributionPoint::histogram(self.buf, span)?,
            Intake::Exponential => DistributionPoint::exponential(self.buf, span)?,
            Intake::Summary => DistributionPoint::summary(self.buf, span)?,
        };
        Ok(Seen { point: it.common, distribution: Some(it) })
    }

    /// Read a point of any kind. Whether the attributes of a number are those that were expected is left in the dictionary.
    fn read_guessing(&mut self, span: Span, intake: Intake) -> Result<Seen, FlowError> {
        if !intake.is_number() {
            return self.read(span, intake);
        }
        let point = NumberPoint::read_guessing(self.buf, span, self.s.dictionary.guess())?;
        if point.is_guessed {
            self.s.dictionary.guessed(point.attributes.span);
        }
        Ok(Seen { point, distribution: None })
    }

    /// One point: passes, or becomes a record and leaves the batch; around a switch perhaps both.
    pub fn point(&mut self, span: Span, within: &MetricScope<'_>) -> Result<Fate, FlowError> {
        let seen = self.read_guessing(span, within.intake)?;
        let point = &seen.point;
        let (buf, rendered) = (self.buf, &mut self.s.rendered);
        let has = |label: &LabelMatch| satisfies(buf, &point.attributes, label, rendered);
        let Some(index) = self.s.candidates.rule(self.plan, has)? else {
            return self.unruled(&seen, within, Ruled::No);
        };
        let plan = self.plan;
        let takes = |fold: &&route::Fold| fold.kind(within.intake, within.temporality).is_some();
        let course = match plan.course(index) {
            Course::Pass => return self.unruled(&seen, within, Ruled::Passes),
            Course::Fold(fold) => Some(fold).filter(takes).map(Way::Fold),
            Course::TopK(it) if takes(&&it.fold) => {
                return self.measured(&seen, within, |walk| walk.ranked(&seen, within, (index, it)));
            }
            Course::TopK(_) => None,
            Course::Switch(it) => {
                let sides = (it.before.as_ref().filter(takes), it.after.as_ref().filter(takes));
                (sides.0.is_some() || sides.1.is_some()).then_some(Way::Switch(it, sides))
            }
        };
        let Some(way) = course else {
            self.tally.unfoldable = self.tally.unfoldable.saturating_add(1);
            return self.unruled(&seen, within, Ruled::Passes);
        };
        self.measured(&seen, within, |walk| {
            if let Way::Switch(switch, (None, Some(to))) = way
                && UnixNanos(seen.point.time_ns) < switch.at
                && let Some(metric) = walk.contained(&seen)?
            {
                // A budget folds it already: it has no raw series that could go on until the switch.
                let since = switch.at_once;
                let fold = walk.s.registry.as_mut().map(|it| it.takes_over(plan, metric, to, since));
                return walk.by(&seen, within, Way::Fold(fold.as_deref().unwrap_or(to)));
            }
            walk.by(&seen, within, way)
        })
    }

    /// A point of which the way is known.
    fn by(&mut self, seen: &Seen, within: &MetricScope<'_>, way: Way<'_>) -> Result<Fate, FlowError> {
        let point = &seen.point;
        match way {
            way if self.affine_from.is_given() && within.temporality == Temporality::Cumulative => {
                self.checked(seen, within, way)
            }
            Way::Fold(fold) if point.is_stale() => self.ended(seen, within, fold, None),
            Way::Fold(fold) => {
                let Some(observation) = self.fit(seen, within) else { return Ok(Fate::Passes) };
                Ok(self
                    .record(point, within, &Fold::plain(fold), observation)?
                    .map_or(Fate::Passes, |_| Fate::Cut))
            }
            Way::Switch(switch, sides) => self.switched(seen, within, switch, sides),
        }
    }

    /// A point that folds from the beginning.
    pub fn folds(
        &mut self,
        seen: &Seen,
        within: &MetricScope<'_>,
        fold: &route::Fold,
    ) -> Result<Fate, FlowError> {
        self.by(seen, within, Way::Fold(fold))
    }

    /// A point of a stream that is raw before `at` and folds from then on.
    pub fn leaves(
        &mut self,
        seen: &Seen,
        within: &MetricScope<'_>,
        fold: &route::Fold,
        at: UnixNanos,
    ) -> Result<Fate, FlowError> {
        let is_after = UnixNanos(seen.point.time_ns) >= at;
        if seen.point.is_stale() {
            let turn = Turn { at, side: Side::OpensAfterRaw };
            return if is_after { self.ended(seen, within, fold, Some(turn)) } else { Ok(Fate::Passes) };
        }
        let Some(observation) = self.fit(seen, within) else { return Ok(Fate::Passes) };
        if is_after {
            self.after_raw(&seen.point, within, fold, at, observation)
        } else {
            self.before_fold(&seen.point, within, fold, at, observation)
        }
    }

    /// Which bounds has it? The answer is left in the scratch. False when they cannot be read or are no bounds.
    fn bounds(&mut self, seen: &Seen) -> bool {
        match &seen.distribution {
            Some(it) => self.s.atom.read_bounds(self.buf, &self.plan.hasher, it),
            None => true,
        }
    }

    /// The distribution as an atom, left in the scratch. False when it does not add up.
    fn atom(&mut self, it: &DistributionPoint, within: &MetricScope<'_>) -> bool {
        let atom = &mut self.s.atom;
        atom.read_bounds(self.buf, &self.plan.hasher, it) && atom.write(self.buf, it, within.temporality)
    }

    /// A point of a cumulative sum under a plan that asks for affinity to be shown. Until it is, the point passes, and the owner
    /// learns where to count from; from then on it is as after a switch from raw.
    #[inline(never)]
    fn checked(&mut self, seen: &Seen, within: &MetricScope<'_>, way: Way<'_>) -> Result<Fate, FlowError> {
        let (at, point) = (self.affine_from, &seen.point);
        let is_affine = UnixNanos(point.time_ns) >= at;
        match way {
            Way::Switch(switch, sides) if is_affine => self.switched(seen, within, switch, sides),
            Way::Fold(fold) if point.is_stale() && is_affine => {
                self.ended(seen, within, fold, Some(Turn { at, side: Side::OpensAfterRaw }))
            }
            _ if point.is_stale() => Ok(Fate::Passes),
            Way::Fold(to) => {
                let Some(observation) = self.fit(seen, within) else { return Ok(Fate::Passes) };
                if is_affine {
                    return self.after_raw(point, within, to, at, observation);
                }
                self.tally.unaffine = self.tally.unaffine.saturating_add(1);
                self.before_fold(point, within, to, at, observation)
            }
            Way::Switch(_, (before, after)) => {
                let Some(observation) = self.fit(seen, within) else { return Ok(Fate::Passes) };
                self.tally.unaffine = self.tally.unaffine.saturating_add(1);
                match after.or(before) {
                    Some(to) => self.before_fold(point, within, to, at, observation),
                    None => Ok(Fate::Passes),
                }
            }
        }
    }

    /// The point passes, and the owner learns where to count from.
    #[inline(never)]
    fn before_fold(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        to: &route::Fold,
        at: UnixNanos,
        observation: Observation,
    ) -> Result<Fate, FlowError> {
        let turn = Some(Turn { at, side: Side::OpensAfterRaw });
        self.watch(point, within, &Fold { fold: to, turn, carried: true, apart: false }, observation)
    }

    /// The point folds; where its raw series is still there, that ends with it.
    #[inline(never)]
    fn after_raw(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        to: &route::Fold,
        at: UnixNanos,
        observation: Observation,
    ) -> Result<Fate, FlowError> {
        let turn = Some(Turn { at, side: Side::OpensAfterRaw });
        let by = Fold { fold: to, turn, carried: false, apart: false };
        let Some(stream) = self.record(point, within, &by, observation)? else {
            return Ok(Fate::Passes);
        };
        let ends = self.s.raw.contains(stream) && !point.repeats;
        Ok(if ends { Fate::Ends } else { Fate::Cut })
    }

    /// A point of a rule that switches.
    #[inline(never)]
    pub fn switched(
        &mut self,
        seen: &Seen,
        within: &MetricScope<'_>,
        switch: &Switched,
        sides: Sides<'_>,
    ) -> Result<Fate, FlowError> {
        let point = &seen.point;
        let is_after = UnixNanos(point.time_ns) >= switch.at;
        let for_raw = if switch.alone { Side::LeavesForRaw } else { Side::ClosesForRaw };
        if point.is_stale() {
            let (fold, side) = match (is_after, sides.0, sides.1) {
                (false, Some(from), None) => (from, for_raw),
                (false, Some(from), Some(_)) => (from, Side::ClosesForFold),
                (true, None, Some(to)) => (to, Side::OpensAfterRaw),
                (true, Some(_), Some(to)) => (to, Side::OpensAfterFold),
                _ => return Ok(Fate::Passes),
            };
            return self.ended(seen, within, fold, Some(Turn { at: switch.at, side }));
        }
        let Some(observation) = self.fit(seen, within) else { return Ok(Fate::Passes) };
        let by = |fold, side| Fold {
            fold,
            turn: Some(Turn { at: switch.at, side }),
            carried: false,
            apart: false,
        };
        match sides {
            (None, Some(to)) if !is_after => self.before_fold(point, within, to, switch.at, observation),
            (None, Some(to)) => self.after_raw(point, within, to, switch.at, observation),
            (Some(from), None) if is_after => {
                // A delta that passes carries all of itself; and once everybody has crossed or is forgotten, nothing is left to learn.
                if within.temporality == Temporality::Delta || observation.time > switch.settled_at {
                    return Ok(Fate::Passes);
                }
                self.watch(point, within, &by(from, for_raw), observation)
            }
            (Some(from), None) => {
                let by = by(from, for_raw);
                Ok(self.record(point, within, &by, observation)?.map_or(Fate::Passes, |_| Fate::Cut))
            }
            (Some(from), Some(to)) => self.refolded(point, within, (from, to), switch, observation),
            (None, None) => Ok(Fate::Passes),
        }
    }

    /// A point that folds into one series before the switch and into another one after. When those have different owners, both
    /// must know of it: the one to learn where to count from, the other to take what came to be before the switch.
    #[inline(never)]
    fn refolded(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        (from, to): (&route::Fold, &route::Fold),
        switch: &Switched,
        observation: Observation,
    ) -> Result<Fate, FlowError> {
        let is_after = observation.time >= switch.at;
        let by = |fold, side| Fold {
            fold,
            turn: Some(Turn { at: switch.at, side }),
            carried: false,
            apart: false,
        };
        let mut apart = false;
        if self.s.writers.len() > 1 {
            let old = self.place(point, within, &by(from, Side::ClosesForFold))?.place;
            let new = self.place(point, within, &by(to, Side::OpensAfterFold))?.place;
            apart = old.map(|p| p.shard) != new.map(|p| p.shard);
        }
        let old = Fold { apart, ..by(from, Side::ClosesForFold) };
        let new = Fold { apart, ..by(to, Side::OpensAfterFold) };
        let (first, second) = if is_after { (new, old) } else { (old, Fold { carried: true, ..new }) };
        if self.record(point, within, &first, observation)?.is_none() {
            return Ok(Fate::Passes);
        }
        if apart && observation.time <= switch.settled_at {
            self.write(point, within, &second, observation)?;
        }
        Ok(Fate::Cut)
    }

    /// The point passes, and its record goes along.
    #[inline(never)]
    fn watch(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        by: &Fold<'_>,
        observation: Observation,
    ) -> Result<Fate, FlowError> {
        if self.write(point, within, by, observation)?.is_some() {
            self.tally.watched = self.tally.watched.saturating_add(1);
        }
        Ok(Fate::Passes)
    }

    /// A stale marker of a stream that folds: it leaves the batch, and the owner learns that the stream has ended. Where the raw
    /// series is still there, it is that series' own marker and passes.
    #[inline(never)]
    fn ended(
        &mut self,
        seen: &Seen,
        within: &MetricScope<'_>,
        fold: &route::Fold,
        turn: Option<Turn>,
    ) -> Result<Fate, FlowError> {
        let point = &seen.point;
        if UnixNanos(point.time_ns) > self.ahead_after {
            self.tally.ahead = self.tally.ahead.saturating_add(1);
            return Ok(Fate::Passes);
        }
        if !self.bounds(seen) {
            self.tally.unfit = self.tally.unfit.saturating_add(1);
            return Ok(Fate::Passes);
        }
        let by = Fold { fold, turn, carried: false, apart: false };
        let observation = Observation {
            start: UnixNanos(point.start_ns),
            time: UnixNanos(point.time_ns),
            value: Number::Int(0),
        };
        let found = self.place(point, within, &by)?;
        let stream = within.stream.plus(found.attributes_id).plus(self.s.atom.bounds_id());
        if let Some(place) = found.place
            && within.temporality == Temporality::Cumulative
            && let Some(writer) = self.s.writers.get_mut(place.shard)
        {
            let (series, temporality) = (place.index, within.temporality);
            writer.record(&Record {
                stream,
                series,
                temporality,
                carried: false,
                ended: true,
                apart: false,
                atom: false,
                observation,
            });
        }
        if turn.is_some_and(|t| t.side == Side::OpensAfterRaw) && self.s.raw.contains(stream) {
            return Ok(Fate::Passes);
        }
        self.tally.no_value = self.tally.no_value.saturating_add(1);
        Ok(Fate::Dropped)
    }

    /// The record of a point that leaves the batch: counted. The stream that it is of, or `None` when its series cannot be written.
    fn record(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        by: &Fold<'_>,
        observation: Observation,
    ) -> Result<Option<Identity>, FlowError> {
        let stream = self.write(point, within, by, observation)?;
        let counter = match stream {
            Some(_) => &mut self.tally.recorded,
            None => &mut self.tally.unwritable,
        };
        *counter = counter.saturating_add(1);
        Ok(stream)
    }

    fn write(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        by: &Fold<'_>,
        observation: Observation,
    ) -> Result<Option<Identity>, FlowError> {
        let found = self.place(point, within, by)?;
        let Some(place) = found.place else { return Ok(None) };
        if point.exemplars.count > 0 && !by.carried {
            self.exemplars(point, within, by, place)?;
        }
        let Some(writer) = self.s.writers.get_mut(place.shard) else { return Ok(None) };
        if writer.bytes() > self.record_bytes_max {
            return Err(FlowError::TooManyRecords);
        }
        let stream = within.stream.plus(found.attributes_id).plus(self.s.atom.bounds_id());
        let mut observation = observation;
        let atom = !within.intake.is_number();
        if atom {
            observation.value = writer.atom(self.s.atom.bytes());
        }
        writer.record(&Record {
            stream,
            series: place.index,
            temporality: within.temporality,
            carried: by.carried,
            ended: false,
            apart: by.apart,
            atom,
            observation,
        });
        Ok(Some(stream))
    }

    /// The series of a point under a fold.
    fn place(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        by: &Fold<'_>,
    ) -> Result<Found, FlowError> {
        let Some(kind) = by.fold.kind(within.intake, within.temporality) else {
            return Ok(Found { attributes_id: Identity::ZERO, place: None });
        };
        let kept = Kept {
            plan: self.plan,
            fold: by.fold,
            turn: by.turn,
            resource: within.resource,
            resource_schema: within.resource_schema,
            scope: within.scope,
            scope_schema: within.scope_schema,
            scope_id: within.scope_id,
            metric: within.metric,
            kind,
            output: by.fold.output(kind, within.temporality),
            bounds: self.s.atom.bounds(),
            tenant: self.tenant,
            tenant_id: self.tenant_id,
        };
        Ok(self.s.dictionary.place(self.buf, &kept, &point.attributes, &mut self.s.writers)?)
    }

    /// The point as something that can be folded, or `None` and a count of why not.
    fn fit(&mut self, seen: &Seen, within: &MetricScope<'_>) -> Option<Observation> {
        let point = &seen.point;
        if UnixNanos(point.time_ns) > self.ahead_after {
            self.tally.ahead = self.tally.ahead.saturating_add(1);
            return None;
        }
        let value = match (point.value, &seen.distribution) {
            (Some(value), _) => Some(value),
            (None, Some(it)) => self.atom(it, within).then_some(decode::Number::Int(0)),
            (None, None) => None,
        };
        let fit = value.and_then(|v| observation(within.intake, (point.start_ns, point.time_ns), v));
        self.tally.unfit = self.tally.unfit.saturating_add(u64::from(fit.is_none()));
        fit
    }
}

/// What can be folded: a finite value, in a monotonic sum none that is negative, with a time and no start behind it.
#[inline(always)]
pub fn observation(
    intake: Intake,
    (start_ns, time_ns): (u64, u64),
    value: decode::Number,
) -> Option<Observation> {
    let least = if intake == Intake::Sum { 0.0 } else { -DOUBLE_MAX };
    let value = match value {
        decode::Number::Int(v) if v >= 0 || intake != Intake::Sum => Number::Int(v),
        decode::Number::Double(v) if (least..DOUBLE_MAX).contains(&v) => Number::Double(v),
        _ => return None,
    };
    // A gauge needs no start, and what it says there means nothing.
    let start = if intake == Intake::Gauge { UnixNanos(0) } else { UnixNanos(start_ns) };
    let time = UnixNanos(time_ns);
    (time.is_given() && start <= time).then_some(Observation { start, time, value })
}
