//! Points like those that came in their place last time: nearly all of them.
//!
//! In: the span of a point of a metric whose points all meet one fold. Out: its record, if the point has the attributes that are expected and
//! nothing that is out of the ordinary; else nothing has happened, and [`Walk::point`] does all. What is done here is done there as
//! well: this is the short way, and it decides nothing on its own.

use super::guard::Ruled;
use super::points::observation;
use super::{MetricScope, Walk};
use crate::decode::UsualPoint;
use crate::hash::Identity;
use crate::kind::Intake;
use crate::record::{Record, Temporality};
use crate::route::{Compiled, Course, Fold};
use crate::units::UnixNanos;
use crate::wire::Span;

impl<'a> Walk<'a> {
    /// The fold of every point of the metric at hand, where that depends neither on the attributes nor on the time of a point.
    pub fn steady(&self, intake: Intake, temporality: Temporality) -> Option<&'a Fold> {
        let asks_for_time = self.affine_from.is_given() && temporality == Temporality::Cumulative;
        let plan: &'a Compiled = self.plan;
        match plan.course(self.s.candidates.only().filter(|_| !asks_for_time)?) {
            Course::Fold(fold) => Some(fold)
                .filter(|_| intake.is_number())
                .filter(|fold| fold.kind(intake, temporality).is_some()),
            Course::Pass | Course::Switch(_) | Course::TopK(_) => None,
        }
    }

    /// Record a point of which everything is known already. False: it is not, or the point is none that folds.
    #[inline(always)]
    pub fn recorded_again(&mut self, span: Span, within: &MetricScope<'_>, fold: &Fold) -> bool {
        let Some(point) = UsualPoint::read(self.buf, span, self.s.dictionary.guess()) else { return false };
        let Some(observation) = observation(within.intake, (point.start_ns, point.time_ns), point.value)
        else {
            return false;
        };
        if UnixNanos(point.time_ns) > self.ahead_after {
            return false;
        }
        // The first point of a generation goes the long way, where it is measured.
        let guard = self.guards.get_mut(Ruled::Passes.slot()).and_then(Option::as_mut);
        let mut measured = guard.zip(self.s.registry.as_mut());
        let is_unseen = |all: Identity| {
            measured.as_mut().is_some_and(|(guard, registry)| !guard.is_measured(all, registry))
        };
        let Some((attributes_id, place)) = self.s.dictionary.recall(fold.number, is_unseen) else {
            return false;
        };
        let Some(writer) = self.s.writers.get_mut(place.shard) else { return false };
        if writer.bytes() > self.record_bytes_max {
            return false;
        }
        writer.record(&Record {
            stream: within.stream.plus(attributes_id),
            series: place.index,
            temporality: within.temporality,
            carried: false,
            ended: false,
            apart: false,
            atom: false,
            observation,
        });
        self.tally.recorded = self.tally.recorded.saturating_add(1);
        self.meet_ruled();
        true
    }
}
