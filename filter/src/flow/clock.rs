//! By which clock a batch is looked at, where streams are admitted, forgotten and weighed by time.
//!
//! In: when the batch came, and the times of its points. Out: now. That is the embedder's clock; under `clock: event`, which is for tests, it is
//! that of the points, as owners have it: the newest time that a worker of the process has seen in any point, so that every embedder comes to the same
//! decisions at the same points. Cost: under the embedder's clock none, under that of the points a walk over the batch and a read of shared data. A batch that
//! cannot be read moves no clock.

use super::{Batch, Scratch, intake};
use crate::decode::{Data, DistributionPoint, Metric, NumberPoint, Request, ResourceMetrics, ScopeMetrics};
use crate::kind::Intake;
use crate::route::Compiled;
use crate::units::UnixNanos;
use crate::wire::{Span, WireError};
use phoenix_plan::Clock;
use std::rc::Rc;

impl Scratch {
    /// What time it is under a plan. `wall`: by the embedder's clock.
    pub fn now(&self, plan: &Compiled, wall: UnixNanos) -> UnixNanos {
        match (plan.plan.clock, &self.registry) {
            (Clock::Wall, _) => wall,
            (Clock::Event, Some(registry)) => registry.newest_point(self.now),
            (Clock::Event, None) => self.now,
        }
    }

    /// The clock went on: what time does to budgets and rankings. `leads`: this worker looks after what all share, for `workers` of them.
    pub fn tick(&mut self, plan: &Rc<Compiled>, leads: bool, workers: u64, wall: UnixNanos) {
        let now = self.now(plan, wall);
        let has_begun = plan.plan.clock == Clock::Wall || now.is_given();
        if let Some(registry) = self.registry.as_mut().filter(|_| has_begun) {
            registry.tick(plan, leads, workers, now);
        }
    }

    /// A batch has come: what time is it?
    pub(super) fn meet(&mut self, plan: &Compiled, batch: &Batch<'_>) {
        self.now = match plan.plan.clock {
            Clock::Wall => batch.arrived,
            Clock::Event => self.now.max(newest(batch.body).unwrap_or_default()),
        };
        self.now = self.now(plan, self.now);
    }
}

/// The newest time of a point.
fn newest(buf: &[u8]) -> Result<UnixNanos, WireError> {
    let mut newest_ns = 0;
    let mut resources = Request::read(buf, Span::all(buf))?.resource_metrics.fields(buf);
    while let Some((_, span)) = resources.next()? {
        let mut scopes = ResourceMetrics::read(buf, span)?.scope_metrics.fields(buf);
        while let Some((_, span)) = scopes.next()? {
            let mut metrics = ScopeMetrics::read(buf, span)?.metrics.fields(buf);
            while let Some((_, span)) = metrics.next()? {
                let metric = Metric::read(buf, span)?;
                let Some(field) = metric.data.field().copied() else { continue };
                if matches!(metric.data, Data::None) {
                    continue;
                }
                let (intake, _, run) = intake(buf, &metric, field.bytes()?)?;
                let mut points = run.fields(buf);
                while let Some((_, span)) = points.next()? {
                    newest_ns = newest_ns.max(time_ns(buf, span, intake)?);
                }
            }
        }
    }
    Ok(UnixNanos(newest_ns))
}

fn time_ns(buf: &[u8], span: Span, intake: Intake) -> Result<u64, WireError> {
    Ok(match intake {
        Intake::Sum | Intake::UpDown | Intake::Gauge => NumberPoint::read(buf, span)?.time_ns,
        Intake::Histogram => DistributionPoint::histogram(buf, span)?.common.time_ns,
        Intake::Exponential => DistributionPoint::exponential(buf, span)?.common.time_ns,
        Intake::Summary => DistributionPoint::summary(buf, span)?.common.time_ns,
    })
}
