//! What becomes of a point: it passes, or it leaves the batch as a record; around a switch perhaps both.
//!
//! In: the span of a point, and the metric that the walk is in. Out: a [`Fate`], which the walk turns into an edit, and records in the
//! messages of the shards. Refuses by passing, with a count of why: what no fold can take, what cannot be written, what is far ahead.

use super::kept::{Found, Kept};
use super::{FlowError, Left, MetricScope, Walk, satisfies};
use crate::amount::Number;
use crate::decode::{self, NumberPoint, Run};
use crate::hash::Identity;
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
struct Fold<'a> {
    fold: &'a route::Fold,
    /// Its series' part in a switch.
    turn: Option<Turn>,
    /// The point passes all the same.
    carried: bool,
    /// The series on the other side of the switch has another owner.
    apart: bool,
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
    /// Turn a point into the stale marker of its series: the same stream and time, no value, and the flag that says so.
    pub fn end(&mut self, span: Span) -> Result<Left, FlowError> {
        let point = NumberPoint::read(self.buf, span)?;
        let (flags, len) = encode_varint(u64::from(point.flags | NumberPoint::NO_RECORDED_VALUE));
        // Field 8, a varint.
        let mut marker = vec![0x40];
        marker.extend_from_slice(flags.get(..len).unwrap_or_default());
        let (value, flags) = (point.value_at, point.flags_at);
        if !flags.is_empty() && flags.start < value.start {
            self.s.edits.remove(flags);
        }
        self.s.edits.replace(value, &marker);
        if !flags.is_empty() && flags.start > value.start {
            self.s.edits.remove(flags);
        }
        Ok(Left::Something)
    }

    /// One point: passes, or becomes a record and leaves the batch; around a switch perhaps both.
    pub fn point(&mut self, span: Span, within: &MetricScope<'_>) -> Result<Fate, FlowError> {
        let point = NumberPoint::read_guessing(self.buf, span, self.s.dictionary.guess())?;
        if point.is_guessed {
            self.s.dictionary.guessed(point.attributes.span);
        }
        let (buf, rendered) = (self.buf, &mut self.s.rendered);
        let has = |label: &LabelMatch| satisfies(buf, &point.attributes, label, rendered);
        let Some(index) = self.s.candidates.rule(self.plan, has)? else { return Ok(Fate::Passes) };
        let plan = self.plan;
        match plan.course(index) {
            Course::Pass => Ok(Fate::Passes),
            course if self.affine_from.is_given() && within.temporality == Temporality::Cumulative => {
                self.checked(&point, within, course)
            }
            Course::Fold(fold) if point.is_stale() => self.ended(&point, within, fold, None),
            Course::Fold(fold) => {
                let Some(observation) = self.fit(&point) else { return Ok(Fate::Passes) };
                let by = Fold { fold, turn: None, carried: false, apart: false };
                Ok(self
                    .record(&point.attributes, within, &by, observation)?
                    .map_or(Fate::Passes, |_| Fate::Cut))
            }
            Course::Switch(switch) => self.switched(&point, within, switch),
        }
    }

    /// A point of a cumulative sum under a plan that asks for affinity to be shown. Until it is, the point passes, and the owner
    /// learns where to count from; from then on it is as after a switch from raw.
    fn checked(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        course: &Course,
    ) -> Result<Fate, FlowError> {
        let at = self.affine_from;
        let is_affine = UnixNanos(point.time_ns) >= at;
        match course {
            Course::Switch(switch) if is_affine => self.switched(point, within, switch),
            Course::Fold(fold) if point.is_stale() && is_affine => {
                self.ended(point, within, fold, Some(Turn { at, side: Side::OpensAfterRaw }))
            }
            _ if point.is_stale() => Ok(Fate::Passes),
            Course::Fold(to) => {
                let Some(observation) = self.fit(point) else { return Ok(Fate::Passes) };
                if is_affine {
                    return self.after_raw(point, within, to, at, observation);
                }
                self.tally.unaffine = self.tally.unaffine.saturating_add(1);
                self.before_fold(point, within, to, at, observation)
            }
            Course::Switch(switch) => {
                let Some(observation) = self.fit(point) else { return Ok(Fate::Passes) };
                self.tally.unaffine = self.tally.unaffine.saturating_add(1);
                match switch.after.as_ref().or(switch.before.as_ref()) {
                    Some(to) => self.before_fold(point, within, to, at, observation),
                    None => Ok(Fate::Passes),
                }
            }
            Course::Pass => Ok(Fate::Passes),
        }
    }

    /// The point passes, and the owner learns where to count from.
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
        let Some(stream) = self.record(&point.attributes, within, &by, observation)? else {
            return Ok(Fate::Passes);
        };
        let ends = self.s.raw.contains(stream) && !point.repeats;
        Ok(if ends { Fate::Ends } else { Fate::Cut })
    }

    /// A point of a rule that switches.
    fn switched(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        switch: &Switched,
    ) -> Result<Fate, FlowError> {
        let is_after = UnixNanos(point.time_ns) >= switch.at;
        if point.is_stale() {
            let (fold, side) = match (is_after, &switch.before, &switch.after) {
                (false, Some(from), None) => (from, Side::ClosesForRaw),
                (false, Some(from), Some(_)) => (from, Side::ClosesForFold),
                (true, None, Some(to)) => (to, Side::OpensAfterRaw),
                (true, Some(_), Some(to)) => (to, Side::OpensAfterFold),
                _ => return Ok(Fate::Passes),
            };
            return self.ended(point, within, fold, Some(Turn { at: switch.at, side }));
        }
        let Some(observation) = self.fit(point) else { return Ok(Fate::Passes) };
        let by = |fold, side| Fold {
            fold,
            turn: Some(Turn { at: switch.at, side }),
            carried: false,
            apart: false,
        };
        match (&switch.before, &switch.after) {
            (None, Some(to)) if !is_after => self.before_fold(point, within, to, switch.at, observation),
            (None, Some(to)) => self.after_raw(point, within, to, switch.at, observation),
            (Some(from), None) if is_after => {
                // A delta that passes carries all of itself; and once everybody has crossed or is forgotten, nothing is left to learn.
                if within.temporality == Temporality::Delta || observation.time > switch.settled_at {
                    return Ok(Fate::Passes);
                }
                self.watch(point, within, &by(from, Side::ClosesForRaw), observation)
            }
            (Some(from), None) => {
                let by = by(from, Side::ClosesForRaw);
                Ok(self
                    .record(&point.attributes, within, &by, observation)?
                    .map_or(Fate::Passes, |_| Fate::Cut))
            }
            (Some(from), Some(to)) => self.refolded(point, within, (from, to), switch, observation),
            (None, None) => Ok(Fate::Passes),
        }
    }

    /// A point that folds into one series before the switch and into another one after. When those have different owners, both
    /// must know of it: the one to learn where to count from, the other to take what came to be before the switch.
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
            let old = self.place(&point.attributes, within, &by(from, Side::ClosesForFold))?.place;
            let new = self.place(&point.attributes, within, &by(to, Side::OpensAfterFold))?.place;
            apart = old.map(|p| p.shard) != new.map(|p| p.shard);
        }
        let old = Fold { apart, ..by(from, Side::ClosesForFold) };
        let new = Fold { apart, ..by(to, Side::OpensAfterFold) };
        let (first, second) = if is_after { (new, old) } else { (old, Fold { carried: true, ..new }) };
        if self.record(&point.attributes, within, &first, observation)?.is_none() {
            return Ok(Fate::Passes);
        }
        if apart && observation.time <= switch.settled_at {
            self.write(&point.attributes, within, &second, observation)?;
        }
        Ok(Fate::Cut)
    }

    /// The point passes, and its record goes along.
    fn watch(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        by: &Fold<'_>,
        observation: Observation,
    ) -> Result<Fate, FlowError> {
        if self.write(&point.attributes, within, by, observation)?.is_some() {
            self.tally.watched = self.tally.watched.saturating_add(1);
        }
        Ok(Fate::Passes)
    }

    /// A stale marker of a stream that folds: it leaves the batch, and the owner learns that the stream has ended. Where the raw
    /// series is still there, it is that series' own marker and passes.
    fn ended(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        fold: &route::Fold,
        turn: Option<Turn>,
    ) -> Result<Fate, FlowError> {
        if UnixNanos(point.time_ns) > self.ahead_after {
            self.tally.ahead = self.tally.ahead.saturating_add(1);
            return Ok(Fate::Passes);
        }
        let by = Fold { fold, turn, carried: false, apart: false };
        let observation = Observation {
            start: UnixNanos(point.start_ns),
            time: UnixNanos(point.time_ns),
            value: Number::Int(0),
        };
        let found = self.place(&point.attributes, within, &by)?;
        let stream = within.stream.plus(found.attributes_id);
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
        attributes: &Run,
        within: &MetricScope<'_>,
        by: &Fold<'_>,
        observation: Observation,
    ) -> Result<Option<Identity>, FlowError> {
        let stream = self.write(attributes, within, by, observation)?;
        let counter = match stream {
            Some(_) => &mut self.tally.recorded,
            None => &mut self.tally.unwritable,
        };
        *counter = counter.saturating_add(1);
        Ok(stream)
    }

    fn write(
        &mut self,
        attributes: &Run,
        within: &MetricScope<'_>,
        by: &Fold<'_>,
        observation: Observation,
    ) -> Result<Option<Identity>, FlowError> {
        let found = self.place(attributes, within, by)?;
        let Some(place) = found.place else { return Ok(None) };
        let Some(writer) = self.s.writers.get_mut(place.shard) else { return Ok(None) };
        if writer.bytes() > self.record_bytes_max {
            return Err(FlowError::TooManyRecords);
        }
        let stream = within.stream.plus(found.attributes_id);
        writer.record(&Record {
            stream,
            series: place.index,
            temporality: within.temporality,
            carried: by.carried,
            ended: false,
            apart: by.apart,
            observation,
        });
        Ok(Some(stream))
    }

    /// The series of a point under a fold.
    fn place(
        &mut self,
        attributes: &Run,
        within: &MetricScope<'_>,
        by: &Fold<'_>,
    ) -> Result<Found, FlowError> {
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
            output: by.fold.output(within.temporality),
            tenant: self.batch.tenant,
            tenant_id: self.tenant_id,
        };
        Ok(self.s.dictionary.place(self.buf, &kept, attributes, &mut self.s.writers)?)
    }

    /// The point as something that can be folded, or `None` and a count of why not.
    fn fit(&mut self, point: &NumberPoint) -> Option<Observation> {
        if UnixNanos(point.time_ns) > self.ahead_after {
            self.tally.ahead = self.tally.ahead.saturating_add(1);
            return None;
        }
        let fit = point.value.and_then(|value| observation(point.start_ns, point.time_ns, value));
        self.tally.unfit = self.tally.unfit.saturating_add(u64::from(fit.is_none()));
        fit
    }
}

/// What can be folded: a finite value that is not negative, with a time and no start behind it.
#[inline(always)]
pub fn observation(start_ns: u64, time_ns: u64, value: decode::Number) -> Option<Observation> {
    let (start, time) = (UnixNanos(start_ns), UnixNanos(time_ns));
    let value = match value {
        decode::Number::Int(v) if v >= 0 => Number::Int(v),
        decode::Number::Double(v) if (0.0..DOUBLE_MAX).contains(&v) => Number::Double(v),
        _ => return None,
    };
    (time.is_given() && start <= time).then_some(Observation { start, time, value })
}
