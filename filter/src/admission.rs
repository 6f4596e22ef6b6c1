//! Budgets, enforced: which streams go out raw, which fold, and when raw ones come back.
//!
//! In: streams that a worker sees, the plan's shares, shared data. Out: for each stream its standing, the same on every worker of the process
//! (DESIGN §5). What is known costs a look into a table; what is new costs a read of the log's tail, and all that is new in a batch is decided
//! about together ([`decide`]). Nothing here ever discards a point: what may not be raw folds.
//!
//! ```text
//! points ── known? ──┬── raw ──▶ passes
//!                    ├── folded ──▶ record, under the fold of its level
//!                    └── new ──▶ census of the batch ──▶ decide ──▶ log (shared data) ──▶ state of every worker
//! tick ── seen, need ──▶ shared data ──▶ whoever leads: forgets the silent, releases what needs no fold any more
//! ```

mod again;
mod decide;
mod decision;
mod entry;
mod folds;
mod log;
mod rank;
mod rests;
mod state;
mod tops;
mod upkeep;
mod weights;

pub use again::{Again, Order};
pub use decide::{Capacity, Census, Group, Hint, Hints, NewLabel, Newcomer, folded};
pub use decision::{Decision, What};
pub use entry::{Entry, Place};
pub use folds::{Level, Name, is_foldable, is_protected};
pub use rests::slack;
pub use state::{ALL_LABELS, ByHalf, Known, Metric, RANKED, Standing, State, Tenant, seconds, whole_seconds};
pub use weights::{Weighed, Weighs, Weights};

use crate::hash::Domain;
use crate::limits::METRICS_MAX;
use crate::measure::{GENERATIONS, Measure};
use crate::route::{Compiled, Fold};
use crate::shared::{If, Shared};
use crate::units::{Since, UnixNanos};
use folds::Folds;
use log::Log;
use phoenix_plan::{Budgets, TenantShare};
use std::collections::VecDeque;
use std::rc::Rc;

/// Where the newest time of a point is, under `clock: event`.
const NEWEST: &str = "newest";
/// Conflicts in a row before a worker goes on by its own points: each is another worker's success.
const NEWEST_TRIES_MAX: usize = 64;
/// Parts of the bound of measuring that the order of streams takes at most: half a million streams by default.
const ORDER_PART: usize = 16;
/// Decisions that are remembered for reports.
const DECISIONS_MAX: usize = 256;

/// One worker's view of what is admitted.
pub struct Registry {
    shared: Rc<dyn Shared>,
    log: Log,
    /// What this worker measures.
    pub measure: Measure,
    /// Streams that pass, in their order.
    pub again: Again,
    folds: Folds,
    names: ByHalf<Name>,
    plan: Option<Rc<Compiled>>,
    capacity: Capacity,
    /// Tenants that the plan names: they are always told apart.
    named: ByHalf<()>,
    /// Number of this worker.
    worker: u64,
    /// When the log of this process began.
    began: UnixNanos,
    generation: u64,
    /// The latest time that the clock has shown, and the latest from which it was set back.
    newest: UnixNanos,
    set_back_from: UnixNanos,
    upkeep: upkeep::Upkeep,
    /// What streams weigh, where a rule keeps the heaviest.
    pub weights: Weights,
    tops: tops::Tops,
    decisions: VecDeque<Decision>,
}

impl Registry {
    /// A worker's view of what is in `shared`.
    pub fn new(shared: Rc<dyn Shared>, worker: u64) -> Registry {
        Registry {
            shared,
            log: Log::default(),
            measure: Measure::default(),
            again: Again::default(),
            folds: Folds::default(),
            names: ByHalf::default(),
            plan: None,
            capacity: Capacity::default(),
            named: ByHalf::default(),
            worker,
            began: UnixNanos(0),
            generation: 0,
            newest: UnixNanos(0),
            set_back_from: UnixNanos(0),
            upkeep: upkeep::Upkeep::default(),
            weights: Weights::default(),
            tops: tops::Tops::default(),
            decisions: VecDeque::new(),
        }
    }

    /// The newest time of a point that any worker of the process has seen; this one has seen `mine`. Under `clock: event` that is now.
    pub fn newest_point(&self, mine: UnixNanos) -> UnixNanos {
        for _ in 0..NEWEST_TRIES_MAX {
            let (known, condition) = match self.shared.get(NEWEST) {
                None => (0, If::Absent),
                Some((bytes, number)) => {
                    (bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)), If::Unchanged(number))
                }
            };
            if mine.0 <= known {
                return UnixNanos(known);
            }
            if self.shared.set(NEWEST, &mine.0.to_le_bytes(), condition) {
                break;
            }
        }
        mine
    }

    /// A batch comes in, or a tick: under which plan, and in which generation? `now` is by the plan's clock.
    pub fn begin(&mut self, plan: &Rc<Compiled>, now: UnixNanos) {
        let period_ns = plan.plan.watched_over().map_or(u64::MAX, |period| period.as_nanos());
        let third_ns = period_ns.checked_div(GENERATIONS as u64).unwrap_or(0);
        let generation = now.0.checked_div(third_ns).unwrap_or(0);
        if !self.plan.as_ref().is_some_and(|known| Rc::ptr_eq(known, plan)) {
            self.adopt(plan, now);
        }
        if now < self.newest {
            self.set_back_from = self.newest;
        }
        self.newest = now.max(self.newest);
        self.turn(generation);
    }

    /// The generation that the clock shows. One further is the next one. More than that, or back, is a clock that was set, or a period that a
    /// plan changed: then the generation that is ends, and what was seen is as old as it was.
    fn turn(&mut self, generation: u64) {
        let ahead = generation.wrapping_sub(self.generation);
        // A worker that ticks a little later than the one before it is no clock that was set back.
        if ahead == 0 || ahead == u64::MAX {
            return;
        }
        let is_first = self.generation == 0;
        let leap = if is_first { 0 } else { low8(ahead.wrapping_sub(1)) };
        let now8 = low8(generation);
        for known in self.log.state.series.values_mut() {
            known.seen = known.seen.wrapping_add(leap);
            // By eight bits of age nothing may look young again.
            if now8.wrapping_sub(known.seen) > state::UNSEEN {
                known.seen = now8.wrapping_sub(state::UNSEEN);
            }
        }
        self.generation = generation;
        self.log.state.changed();
        self.again.clear();
        self.measure.turn(generation);
        self.weights.turn();
    }

    fn adopt(&mut self, plan: &Rc<Compiled>, now: UnixNanos) {
        let key = plan.key;
        if self.plan.as_ref().is_none_or(|known| known.key != key) {
            // Under another key every stream is a stranger, and the log is another one.
            let stamp = self.stamp();
            self.log = Log::new(key);
            self.log.state.changes = stamp;
            self.log.state.changed();
            self.again.clear();
            self.names.clear();
            self.measure = Measure::default();
            self.weights.clear();
            self.generation = 0;
        }
        let began = format!("log/{key:x}/began");
        self.shared.set(&began, &now.0.to_le_bytes(), If::Absent);
        let known = self.shared.get(&began).and_then(|(bytes, _)| bytes.first_chunk().copied());
        self.began = known.map_or(now, |bytes| UnixNanos(u64::from_le_bytes(bytes)));
        let tenants = plan.plan.budgets.iter().flat_map(|budgets| &budgets.tenants);
        let half = |name: &str| plan.hasher.pair(Domain::Tenant, name.as_bytes(), b"").low();
        let named: Vec<(u64, u32)> =
            tenants.filter_map(|share| Some((half(share.tenant.as_deref()?), share.reserved))).collect();
        let limits = &plan.plan.limits;
        let bytes = usize::try_from(limits.measure_bytes_max).unwrap_or(usize::MAX);
        let of_order = bytes / ORDER_PART;
        self.again.set_max(of_order);
        self.measure.set_max(bytes.saturating_sub(of_order));
        let reserved = named.iter().filter(|(_, reserved)| *reserved > 0).copied().collect();
        self.capacity = Capacity { series_max: limits.active_series_max, reserved };
        self.named = named.into_iter().map(|(tenant, _)| (tenant, ())).collect();
        self.folds.clear();
        self.tops.clear();
        self.plan = Some(plan.clone());
    }

    /// Number of the current generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Another one, as soon as what is known of a stream that is raw may not hold any more.
    #[inline]
    pub fn stamp(&self) -> u64 {
        self.log.state.changes
    }

    /// What the log has come to, as far as it was read.
    pub fn state(&self) -> &State {
        &self.log.state
    }

    /// The standing of a series, if it is known. The flag says that this worker sees it for the first time in this generation.
    #[inline]
    pub fn look(&mut self, series: u64) -> Option<(Standing, bool)> {
        let now = low8(self.generation);
        let known = self.log.state.series.get_mut(&series)?;
        let is_first = known.seen != now;
        known.seen = now;
        Some((known.standing, is_first))
    }

    /// Does this worker see a raw stream for the first time in this generation? Nothing, and nothing has happened, where it is not raw.
    #[inline]
    pub fn look_raw(&mut self, series: u64) -> Option<bool> {
        let now = low8(self.generation);
        let known = self.log.state.series.get_mut(&series).filter(|it| it.standing == Standing::Raw)?;
        Some(core::mem::replace(&mut known.seen, now) != now)
    }

    /// Is this stream raw, and known to be so in this generation?
    #[inline]
    pub fn is_raw_again(&self, series: u64) -> bool {
        let now = low8(self.generation);
        let known = self.log.state.series.get(&series);
        known.is_some_and(|known| known.seen == now && known.standing == Standing::Raw)
    }

    /// Is this stream raw?
    pub fn is_raw(&self, series: u64) -> bool {
        self.log.state.series.get(&series).is_some_and(|known| known.standing == Standing::Raw)
    }

    /// Is a tenant told apart from others? With too many of them it is not.
    pub fn tenant(&self, plan: &Compiled, tenant: u64) -> u64 {
        let tenants = &self.log.state.tenants;
        let max = usize::try_from(plan.plan.limits.tenants_max).unwrap_or(usize::MAX);
        if tenants.len() < max || tenants.contains_key(&tenant) || self.named.contains_key(&tenant) {
            return tenant;
        }
        plan.hasher.pair(Domain::Tenant, b"", b"other tenants").low()
    }

    /// Is a metric told apart from others of its tenant? With too many of them it is not; the flag says so.
    pub fn metric(&self, plan: &Compiled, tenant: u64, metric: u64) -> (u64, bool) {
        let metrics = &self.log.state.metrics;
        if metrics.len() < METRICS_MAX || metrics.contains_key(&metric) {
            return (metric, false);
        }
        (plan.hasher.pair(Domain::Metric, &tenant.to_le_bytes(), b"other metrics").low(), true)
    }

    /// Decide about the new streams of a batch. `name` finds the name of a label by its half.
    pub fn decide(&mut self, census: &Census, now: UnixNanos, name: impl Fn(u64) -> Option<Name>) {
        let now_s = whole_seconds(now);
        let (shared, measure, capacity) = (self.shared.clone(), &self.measure, &self.capacity);
        let (names, prefix) = (&mut self.names, self.log.prefix());
        let mut decided = Vec::new();
        // What could not be appended is left undecided, which the walk counts.
        let done = self.log.append(&*shared, low8(self.generation), |state| {
            let mut entries = decide::decide(state, census, capacity, measure, now_s);
            // A name is there before anybody can need it.
            for entry in &entries {
                if let Entry::Contain { label, .. } = entry
                    && *label != ALL_LABELS
                    && !names.contains_key(label)
                    && let Some(name) = name(*label)
                {
                    let mut value = vec![u8::from(name.is_resource)];
                    value.extend_from_slice(name.key.as_bytes());
                    shared.set(&label_key(&prefix, *label), &value, If::Absent);
                    names.insert(*label, name);
                }
            }
            let contains = entries
                .iter()
                .filter(|entry| matches!(entry, Entry::Contain { label, .. } if *label != RANKED));
            decided = contains.copied().collect();
            if entries.iter().all(|entry| matches!(entry, Entry::Metric { .. })) {
                // Nothing but a name for a metric that needs none yet.
                entries.clear();
            }
            entries
        });
        for entry in decided.into_iter().filter(|_| done) {
            let Entry::Contain { metric, level, .. } = entry else { continue };
            let share = census.groups.iter().find(|g| g.metric == metric).map_or(0, |g| g.share);
            let what = if level == 1 { What::Contained } else { What::Widened };
            self.remember(metric, what, now, now, share);
        }
    }

    fn remember(&mut self, metric: u64, what: What, at: UnixNanos, effective: UnixNanos, share: u32) {
        let Some(it) = self.log.state.metrics.get(&metric) else { return };
        let series = it.series();
        let label = |label: &u64| match self.names.get(label) {
            Some(name) => name.key.clone(),
            None => "(all that are not protected)".to_owned(),
        };
        let labels = it.levels.iter().map(label).collect();
        if self.decisions.len() >= DECISIONS_MAX {
            self.decisions.pop_front();
        }
        self.decisions.push_back(Decision { metric, at, what, labels, series, share, effective });
    }

    /// The last decisions of this worker about a metric, oldest first.
    pub fn decisions(&self, metric: u64) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(move |decision| decision.metric == metric)
    }

    /// The folds of a contained metric, level by level.
    ///
    /// `least`: since when at least its streams are recorded.
    pub fn levels(
        &mut self,
        plan: &Compiled,
        budgets: &Budgets,
        metric: u64,
        least: UnixNanos,
    ) -> Vec<Rc<Level>> {
        let Some(it) = self.log.state.metrics.get(&metric) else { return Vec::new() };
        if !it.has_levels() {
            return Vec::new();
        }
        let prefix = self.log.prefix();
        for label in it.levels.iter().filter(|label| **label != ALL_LABELS) {
            if self.names.contains_key(label) {
                continue;
            }
            let value = self.shared.get(&label_key(&prefix, *label));
            if let Some((is_resource, key)) = value.as_ref().and_then(|(bytes, _)| bytes.split_first())
                && let Ok(key) = core::str::from_utf8(key)
            {
                self.names.insert(*label, Name { is_resource: *is_resource != 0, key: key.to_owned() });
            }
        }
        let since = self.since(plan, it.forgot_s, least).max(plan.budgets_since);
        let (levels, released) = (it.levels.clone(), it.released_at());
        let (folds, names) = (&mut self.folds, &self.names);
        let level = |n| folds.level(plan, budgets, names, levels.get(..n)?, since, released);
        (1..=levels.len()).filter_map(level).collect()
    }

    /// Since when streams of a metric are recorded that was forgotten then, and `least`.
    fn since(&self, plan: &Compiled, forgot_s: u32, least: UnixNanos) -> Since {
        // An owner lets a stream count on that folded up to a window and its delay before `since`. What was forgotten was raw until then, and
        // must not: so here that time is added.
        let patience_ns = plan.budget_patience_ns();
        let forgot = if forgot_s == 0 { self.began } else { seconds(forgot_s).plus(patience_ns) };
        Since::after(self.began.max(forgot).max(least), patience_ns)
    }

    /// The fold of a rule that takes over at once what a budget folds of a metric: no stream counts from zero that would not have done so there.
    pub fn takes_over(&mut self, plan: &Compiled, metric: u64, fold: &Fold, at_once: Since) -> Rc<Fold> {
        let forgot_s = self.log.state.metrics.get(&metric).map_or(0, |it| it.forgot_s);
        let since = self.since(plan, forgot_s, UnixNanos(0)).max(at_once);
        self.folds.since(fold, since)
    }

    /// Shares of a metric.
    pub fn share(budgets: &Budgets, tenant: &[u8], metric: &[u8]) -> (u32, TenantShare) {
        let tenant_share = budgets.tenant(tenant).clone();
        let share = budgets.metric(tenant, metric).unwrap_or(u32::MAX).min(tenant_share.active_series);
        (share, tenant_share)
    }

    /// Bytes that it takes, about.
    pub fn heap_bytes(&self) -> usize {
        self.log
            .state
            .heap_bytes()
            .saturating_add(self.measure.heap_bytes())
            .saturating_add(self.again.heap_bytes())
            .saturating_add(self.weights.heap_bytes())
    }
}

/// Where the name of a label is.
fn label_key(prefix: &str, label: u64) -> String {
    format!("{prefix}label/{label:x}")
}

/// A generation by its last eight bits.
#[allow(clippy::cast_possible_truncation)] // The last bits are meant.
fn low8(generation: u64) -> u8 {
    generation as u8
}
