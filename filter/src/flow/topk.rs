//! A point under a rule that keeps the heaviest streams: it passes, or it folds, by where its stream stands.
//!
//! In: a point of a metric whose fold is declared for its type. Out: its [`Fate`]. Raw or folded, it is weighed. A stream that the log does not know
//! is new as long as there are places left, which the [`census`](super::census) of the batch gives to the heaviest; from then on it folds, and only
//! a ranking changes that, by a switch of the stream's own. Cost: a look into the log's table and one into that of weights.

use super::guard::{LABELS_MAX, PASS};
use super::points::{Fate, Seen};
use super::{FlowError, MetricScope, Walk};
use crate::admission::{Standing, Weighed, Weighs};
use crate::decode::{self, NumberPoint};
use crate::hash::{Domain, Identity};
use crate::kind::Intake;
use crate::limits::METRICS_MAX;
use crate::record::Temporality;
use crate::route::TopK;
use crate::units::UnixNanos;

/// The ranking that the streams of a metric are in.
#[derive(Clone, Copy)]
pub struct Top {
    /// Index of the rule.
    index: usize,
    /// Metric and tenant, by halves of their identities. The ranking has a metric of its own in the log: not that of a budget.
    pub metric: u64,
    pub tenant: u64,
}

impl Top {
    /// A stream as the log knows it, never under the name that a budget has for it.
    pub fn series(&self, id: Identity) -> Identity {
        id.plus(Identity(u128::from(self.metric)))
    }
}

/// How a point weighs. None: it has no value.
pub fn weighed(
    point: &NumberPoint,
    count: Option<u64>,
    (intake, temporality): (Intake, Temporality),
) -> Option<Weighed> {
    #[allow(clippy::cast_precision_loss)] // A weight, not an amount.
    let value = match (count, point.value) {
        (Some(count), _) => count as f64,
        (None, Some(decode::Number::Int(value))) => value as f64,
        (None, Some(decode::Number::Double(value))) => value,
        (None, None) => return None,
    };
    let how = match (intake, temporality) {
        (Intake::Gauge, _) | (Intake::UpDown, Temporality::Cumulative) => Weighs::Value,
        (_, Temporality::Delta) => Weighs::Sum,
        (_, Temporality::Cumulative) => Weighs::Growth,
    };
    value.is_finite().then_some(Weighed { start_ns: point.start_ns, time_ns: point.time_ns, value, how })
}

impl Walk<'_> {
    /// The ranking of a metric under a rule. Sums are not ranked with gauges, nor cumulative ones with deltas.
    pub fn top(
        &self,
        index: usize,
        rule: &TopK,
        name: &[u8],
        (intake, temporality): (Intake, Temporality),
    ) -> Option<Top> {
        let (registry, h) = (self.s.registry.as_ref()?, &self.plan.hasher);
        let tenant = registry.tenant(self.plan, self.tenant_id.low());
        let kind = intake.word(temporality);
        let mut salt = rule.salt.to_le_bytes().to_vec();
        salt.extend_from_slice(&tenant.to_le_bytes());
        salt.extend_from_slice(kind.as_bytes());
        salt.push(u8::from(temporality == Temporality::Delta));
        let metrics = &registry.state().metrics;
        let mut metric = h.pair(Domain::Metric, &salt, name).low();
        if metrics.len() >= METRICS_MAX && !metrics.contains_key(&metric) {
            metric = h.pair(Domain::Metric, &salt, b"other metrics").low();
        }
        Some(Top { index, metric, tenant })
    }

    /// Would a cumulative point be folded, where the plan asks for affinity to be shown?
    pub fn is_affine(&self, temporality: Temporality, time: UnixNanos) -> bool {
        temporality == Temporality::Delta || time >= self.affine_from
    }

    /// A point under a rule that keeps the heaviest streams.
    #[inline(never)]
    pub fn ranked(
        &mut self,
        seen: &Seen,
        within: &MetricScope<'_>,
        (index, rule): (usize, &TopK),
    ) -> Result<Fate, FlowError> {
        let kind = (within.intake, within.temporality);
        let Some(resource) = &within.labels else { return self.folds(seen, within, &rule.fold) };
        let known = self.top.filter(|top| top.index == index);
        let Some(top) = known.or_else(|| self.top(index, rule, within.metric.name.bytes(self.buf), kind))
        else {
            return self.folds(seen, within, &rule.fold);
        };
        self.top = Some(top);
        let (buf, h) = (self.buf, &self.plan.hasher);
        let (point, time) = (&seen.point, UnixNanos(seen.point.time_ns));
        let known = self.s.dictionary.known_under(buf, h, PASS, |_| true, &point.attributes)?;
        let series = top.series(within.out.plus(resource.id).plus(known.all)).low();
        let is_fit = !point.is_stale() && time <= self.ahead_after;
        let weighed = weighed(point, seen.distribution.as_ref().map(|it| it.count), kind).filter(|_| is_fit);
        let plan = self.plan;
        for _ in 0..2 {
            let Some(registry) = &mut self.s.registry else { break };
            let standing = registry.look(series).map(|(standing, _)| standing);
            let is_ranked = || registry.state().metrics.get(&top.metric).is_some_and(|it| it.is_ranked());
            if standing.is_some() || is_ranked() {
                if let Some(weighed) = &weighed {
                    registry.weights.weigh(top.metric, &rule.how, series, weighed);
                }
                let fold = registry.tail(plan, (index, rule), top.metric, standing);
                return match (standing, fold) {
                    (Some(Standing::Comes(_)), Some(it)) => {
                        self.switched(seen, within, &it, (it.before.as_ref(), None))
                    }
                    (Some(Standing::Leaves(_)), Some(it)) => match &it.before {
                        Some(fold) => self.leaves(seen, within, fold, it.at),
                        None => Ok(Fate::Passes),
                    },
                    (Some(_), _) => Ok(Fate::Passes),
                    (None, Some(it)) => self.folds(seen, within, it.before.as_ref().unwrap_or(&rule.fold)),
                    (None, None) => self.folds(seen, within, &rule.fold),
                };
            }
            if !self.is_affine(within.temporality, time) {
                return self.folds(seen, within, &rule.fold);
            }
            if !is_fit {
                self.tally.ahead = self.tally.ahead.saturating_add(u64::from(time > self.ahead_after));
                return Ok(Fate::Passes);
            }
            if point.attributes.count > LABELS_MAX || !self.may_decide() {
                break;
            }
            self.census()?;
        }
        // What folds now can be made raw without loss; the other way round it would be counted twice.
        self.tally.undecided = self.tally.undecided.saturating_add(1);
        self.folds(seen, within, &rule.fold)
    }
}
