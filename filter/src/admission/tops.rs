//! The heaviest streams of a metric, as all workers of a process agree on them.
//!
//! Each worker says once a generation what its streams weighed in the last one. Whoever leads waits for all, asks [`rank`](super::rank) who is
//! to be raw, and appends that to the log: a stream that is promoted folds until a time ahead and is raw from then on, one that is demoted the other
//! way round. What has changed stays for as long as anything of it may still span the switch, and for the dwell of budgets. Should a worker hang,
//! nothing changes until it speaks again.

use super::entry::Entry;
use super::rank::{Candidate, Changes, rank};
use super::state::{ByHalf, Standing, seconds, whole_seconds};
use super::weights::{Merged, Said};
use super::{Registry, low8, rests};
use crate::measure::GENERATIONS;
use crate::route::{self, Compiled, Switched, TopK};
use crate::shared::{If, Shared};
use crate::units::{Since, UnixNanos};
use phoenix_plan::Budgets;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Folds that are kept; with more, all are made anew.
const FOLDS_MAX: usize = 4_096;
/// Numbers of these folds begin here: those of budgets count from 2^16 on.
const NUMBERS_FROM: usize = 1 << 24;

/// For which streams a fold is: of which rule, since when they are recorded, when they switch, and whether they come from it. Two that switch at
/// one time in opposite directions have a fold each, since whatever is remembered under its number is of one side.
type Key = (usize, UnixNanos, UnixNanos, bool);

/// What a worker remembers of rankings.
#[derive(Default)]
pub struct Tops {
    made: BTreeMap<Key, Rc<Switched>>,
    numbers: usize,
    /// The last generation of which weights were said; and decided about.
    said: u64,
    led: u64,
}

impl Tops {
    /// Another plan: folds are made anew, under numbers that nothing was remembered under.
    pub fn clear(&mut self) {
        self.made.clear();
    }
}

/// How long a stream that has switched stays as it is.
pub fn hold_ns(plan: &Compiled) -> u64 {
    let dwell = plan.plan.budgets.as_ref().map_or(Budgets::default().dwell, |budgets| budgets.dwell);
    plan.plan.stream_expiry.as_nanos().max(dwell.as_nanos())
}

impl Registry {
    /// The fold of a stream of the tail, and around a switch of its own; none: that of the rule will do.
    pub fn tail(
        &mut self,
        plan: &Compiled,
        (index, rule): (usize, &TopK),
        metric: u64,
        standing: Option<Standing>,
    ) -> Option<Rc<Switched>> {
        let forgot_s = self.log.state.metrics.get(&metric).map_or(0, |it| it.forgot_s);
        let since = rule.fold.since.at.max(seconds(forgot_s));
        let (at, since) = match standing {
            Some(Standing::Comes(at_s)) => (seconds(at_s), since),
            // Whoever leaves was raw: unless it is known, it is counted from its next point on.
            Some(Standing::Leaves(at_s)) => (seconds(at_s), since.max(seconds(at_s))),
            Some(_) => return None,
            None if since == rule.fold.since.at => return None,
            None => (UnixNanos(0), since),
        };
        let key = (index, since, at, matches!(standing, Some(Standing::Comes(_))));
        if let Some(known) = self.tops.made.get(&key) {
            return Some(known.clone());
        }
        let declared = plan.plan.rules.get(index).and_then(|rule| rule.fold.as_ref())?;
        self.tops.numbers = self.tops.numbers.saturating_add(1);
        let number = NUMBERS_FROM.saturating_add(self.tops.numbers);
        let mut fold = route::fold(&plan.hasher, &plan.plan, declared, number);
        fold.begin(since);
        let settled_at = at.plus(plan.plan.stream_expiry.as_nanos());
        let made = Rc::new(Switched {
            at,
            settled_at,
            before: Some(fold),
            after: None,
            at_once: Since::default(),
            alone: true,
        });
        if self.tops.made.len() >= FOLDS_MAX {
            self.tops.made.clear();
        }
        self.tops.made.insert(key, made.clone());
        Some(made)
    }

    fn weights_key(&self, metric: u64, worker: u64) -> String {
        format!("{}rank/{metric:x}/{worker}", self.log.prefix())
    }

    fn weighed_key(&self, worker: u64) -> String {
        format!("{}ranked/{worker}", self.log.prefix())
    }

    /// Say once a generation what streams weighed in the last one.
    pub(super) fn say_weights(&mut self, shared: &dyn Shared) {
        let generation = self.generation;
        if self.tops.said == generation {
            return;
        }
        for (metric, said) in self.weights.said() {
            shared.set(&self.weights_key(metric, self.worker), &said.write(generation), If::Always);
        }
        if shared.set(&self.weighed_key(self.worker), &generation.to_le_bytes(), If::Always) {
            self.tops.said = generation;
        }
    }

    /// Decide who is raw, once all workers have said what they saw.
    pub(super) fn rerank(&mut self, plan: &Compiled, shared: &dyn Shared, workers: u64, now: UnixNanos) {
        let generation = self.generation;
        if self.tops.led == generation {
            return;
        }
        for worker in 1..=workers {
            let value = shared.get(&self.weighed_key(worker));
            let said =
                value.and_then(|(bytes, _)| bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)));
            if said != Some(generation) && !self.is_gone(worker, said) {
                return;
            }
        }
        let changes = self.changes(plan, shared, workers, now);
        let lead = plan.plan.budgets.as_ref().map_or(Budgets::default().switch_lead, |it| it.switch_lead);
        let at_s = whole_seconds(now.plus(lead.as_nanos()));
        let done = changes.is_empty()
            || self.log.append(shared, low8(generation), |state| {
                let mut out = Vec::new();
                for (metric, Changes { promote, demote, .. }) in &changes {
                    let metric = *metric;
                    let is_raw = |series: &&u64| {
                        let standing = state.series.get(*series).map(|known| known.standing);
                        matches!(standing, Some(Standing::Raw | Standing::Comes(_)))
                    };
                    let is_new = |series: &&u64| !state.series.contains_key(*series);
                    let down = demote.iter().filter(is_raw);
                    out.extend(down.map(|series| Entry::Demote { series: *series, metric, at_s }));
                    let up = promote.iter().filter(is_new);
                    out.extend(up.map(|series| Entry::Promote {
                        series: *series,
                        metric,
                        at_s,
                        rest: rests::NONE,
                    }));
                }
                out
            });
        if done {
            self.tops.led = generation;
        }
    }

    /// What a ranking of each metric changes.
    fn changes(
        &self,
        plan: &Compiled,
        shared: &dyn Shared,
        workers: u64,
        now: UnixNanos,
    ) -> Vec<(u64, Changes)> {
        let state = &self.log.state;
        let period_ns = plan.plan.watched_over().map_or(0, |period| period.as_nanos());
        let third_ns = period_ns.checked_div(GENERATIONS as u64).unwrap_or(0);
        // Of whom was met since, the weight is of a part of the last generation only.
        let whole_since = UnixNanos(self.generation.saturating_sub(1).saturating_mul(third_ns));
        let ranked =
            state.metrics.iter().filter(|(_, it)| it.is_ranked() && seconds(it.changed_s) < whole_since);
        let mut raw: ByHalf<Vec<u64>> = ranked.map(|(metric, _)| (*metric, Vec::new())).collect();
        for (series, known) in &state.series {
            if let Some(all) = raw.get_mut(&known.metric)
                && matches!(known.standing, Standing::Raw | Standing::Comes(_))
            {
                all.push(*series);
            }
        }
        let mut out = Vec::new();
        for (metric, raw) in raw {
            let said = (1..=workers).filter_map(|worker| {
                let (bytes, _) = shared.get(&self.weights_key(metric, worker))?;
                Said::read(&bytes, self.generation)
            });
            let Some(mut merged) = Merged::of(said) else { continue };
            for series in raw {
                merged.weights.entry(series).or_default();
            }
            let mut candidates: Vec<Candidate> = Vec::with_capacity(merged.weights.len());
            for (series, weight) in &merged.weights {
                let (is_raw, may_move) = match state.series.get(series).map(|known| known.standing) {
                    None => (false, true),
                    Some(Standing::Comes(at_s)) => (true, now > seconds(at_s).plus(hold_ns(plan))),
                    Some(Standing::Leaves(_)) => (false, false),
                    Some(_) => (true, true),
                };
                candidates.push(Candidate { series: *series, weight: *weight, is_raw, may_move });
            }
            let changes = rank(&merged.how, &mut candidates, merged.total);
            if !changes.promote.is_empty() || !changes.demote.is_empty() {
                out.push((metric, changes));
            }
        }
        out
    }
}
