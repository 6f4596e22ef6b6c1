//! What time does to the log: the silent are forgotten, and metrics that need no fold any more are released.
//!
//! Each worker says once a generation which series it saw in the last ones, and once a second how many streams it sees of metrics that are
//! contained. One worker leads (in Envoy whoever folds shard 0): once all have spoken it begins the log anew without what nobody saw for a
//! period, and releases a metric whose need has been below the plan's part of its share, a dwell after its last change at the earliest.
//! Should a worker hang, nothing is forgotten until it speaks again; should the leader, until there is another.

use super::decide::tenant_room;
use super::entry::{Entry, Place};
use super::state::{ByHalf, GONE, Metric, Standing, State, seconds, whole_seconds};
use super::{Registry, What, low8, rests, tops};
use crate::measure::GENERATIONS;
use crate::route::Compiled;
use crate::shared::{If, Shared};
use crate::sketch::Distinct;
use crate::units::UnixNanos;
use phoenix_plan::{Budgets, TenantShare, order};
use std::rc::Rc;

/// How often need is said, and looked at.
const EVERY_NS: u64 = 1_000_000_000;

/// A worker that has not spoken for so many generations is gone.
const SILENT_GENERATIONS: u64 = 2;

/// Where a worker is in it.
#[derive(Default)]
pub struct Upkeep {
    /// The last generation of which this worker has said what it saw.
    said: Option<(u64, Place)>,
    /// The last generation that began with a look at the whole log.
    led: u64,
    looked_at: UnixNanos,
    /// Turns of the log for which decisions of others were noted.
    noted: u64,
    /// By worker: the last generation that it spoke of, and since which the leader waits.
    silent: ByHalf<(u64, u64)>,
    /// Metrics whose need was said.
    needed: ByHalf<()>,
}

/// What a worker saw: a bit for each number of the log.
struct Seen {
    bits: Vec<u8>,
    /// Numbers from here on came after it was written.
    until: u32,
}

impl Seen {
    fn write(state: &State, place: Place, generation: u64) -> Vec<u8> {
        let mut out = place.to_vec();
        out.extend_from_slice(&generation.to_le_bytes());
        out.extend_from_slice(&state.numbered.to_le_bytes());
        let bytes = usize::try_from(state.numbered.div_ceil(8)).unwrap_or(0);
        let mut bits = vec![0_u8; bytes];
        for known in state.series.values() {
            let age = low8(generation).wrapping_sub(known.seen);
            if usize::from(age) <= GENERATIONS
                && let Some(byte) = bits.get_mut(known.number as usize / 8)
            {
                *byte |= 1 << (known.number % 8);
            }
        }
        out.extend_from_slice(&bits);
        out
    }

    /// Of which generation it is.
    fn generation(bytes: &[u8]) -> Option<u64> {
        bytes.get(16..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// None: it is of another log, or of another generation.
    fn read(bytes: &[u8], place: Place, generation: u64) -> Option<Seen> {
        let is_it = Place::read(bytes)? == place && Seen::generation(bytes)? == generation;
        let (until, bits) = bytes.get(24..)?.split_first_chunk::<4>()?;
        is_it.then(|| Seen { bits: bits.to_vec(), until: u32::from_le_bytes(*until) })
    }

    fn merge(&mut self, other: &Seen) {
        self.until = self.until.min(other.until);
        if self.bits.len() < other.bits.len() {
            self.bits.resize(other.bits.len(), 0);
        }
        self.bits.iter_mut().zip(&other.bits).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// What came after one of them was written is alive.
    fn has(&self, number: u32) -> bool {
        number >= self.until
            || self.bits.get(number as usize / 8).is_none_or(|byte| byte >> (number % 8) & 1 == 1)
    }
}

/// What a worker says about a metric that is contained.
struct Need {
    share: u32,
    tenant_share: u32,
    /// Series that the process can have of it.
    room: u32,
    active: Distinct,
}

impl Need {
    fn write(&self, generation: u64) -> Vec<u8> {
        let mut out = generation.to_le_bytes().to_vec();
        out.extend_from_slice(&self.share.to_le_bytes());
        out.extend_from_slice(&self.tenant_share.to_le_bytes());
        out.extend_from_slice(&self.room.to_le_bytes());
        self.active.encode(&mut out);
        out
    }

    fn read(bytes: &[u8], generation: u64) -> Option<Need> {
        let (theirs, rest) = bytes.split_first_chunk::<8>()?;
        let (share, rest) = rest.split_first_chunk::<4>()?;
        let (tenant_share, rest) = rest.split_first_chunk::<4>()?;
        let (room, rest) = rest.split_first_chunk::<4>()?;
        // Of the generation before: that worker has had no tick since this one began.
        let is_new = u64::from_le_bytes(*theirs).saturating_add(1) >= generation;
        let (share, tenant_share) = (u32::from_le_bytes(*share), u32::from_le_bytes(*tenant_share));
        let room = u32::from_le_bytes(*room);
        let active = is_new.then(|| Distinct::decode(rest).ok()).flatten()?;
        Some(Need { share, tenant_share, room, active })
    }
}

impl Registry {
    /// The clock went on. `leads`: this worker looks after the log, for `workers` of them, numbered from 1.
    pub fn tick(&mut self, plan: &Rc<Compiled>, leads: bool, workers: u64, now: UnixNanos) {
        self.begin(plan, now);
        let budgets = plan.plan.budgets.as_ref();
        if budgets.is_none() && !plan.ranks() {
            return;
        }
        let shared = self.shared.clone();
        self.log.sync(&*shared, low8(self.generation));
        if let Some(budgets) = budgets {
            self.note_turns(budgets, now);
        }
        self.say_seen(&*shared);
        if plan.ranks() {
            self.say_weights(&*shared);
        }
        let due = now.0.abs_diff(self.upkeep.looked_at.0) >= EVERY_NS;
        if due {
            self.upkeep.looked_at = now;
            if let Some(budgets) = budgets {
                self.say_need(budgets, &*shared);
            }
        }
        if leads {
            self.forget(plan, &*shared, workers, now);
            if let Some(budgets) = budgets.filter(|_| due) {
                self.release(budgets, &*shared, workers, now);
            }
            if plan.ranks() {
                self.rerank(plan, &*shared, workers, now);
            }
        }
    }

    /// Others decide as well: what this worker knows by name is remembered for its reports.
    fn note_turns(&mut self, budgets: &Budgets, now: UnixNanos) {
        let turns = self.log.state.turns;
        if core::mem::replace(&mut self.upkeep.noted, turns) == turns {
            return;
        }
        let mut news = Vec::new();
        for (id, it) in &self.log.state.metrics {
            let Some(measured) = self.measure.metric(*id) else { continue };
            let last = self.decisions(*id).last().map(|d| (d.what, d.labels.len()));
            let what = match (it.levels.len(), it.released_s) {
                (0, _) => continue,
                (_, Some(_)) => What::Released,
                (1, None) => What::Contained,
                (_, None) => What::Widened,
            };
            if last != Some((what, it.levels.len())) {
                let tenant = self.measure.tenant(measured.tenant).map(|tenant| &tenant.name);
                let tenant: &[u8] = tenant.map_or(b"", |name| name);
                let (share, _) = Registry::share(budgets, tenant, &measured.name);
                let effective = it.released_at().unwrap_or(now);
                news.push((*id, what, seconds(it.changed_s).min(now), effective, share));
            }
        }
        for (id, what, at, effective, share) in news {
            self.remember(id, what, at, effective, share);
        }
    }

    /// Say once a generation which series came in the last ones.
    fn say_seen(&mut self, shared: &dyn Shared) {
        let now = (self.generation, self.log.place());
        if self.upkeep.said == Some(now) {
            return;
        }
        let value = Seen::write(&self.log.state, now.1, self.generation);
        if shared.set(&self.seen_key(self.worker), &value, If::Always) {
            self.upkeep.said = Some(now);
        }
    }

    fn seen_key(&self, worker: u64) -> String {
        format!("{}seen/{worker}", self.log.prefix())
    }

    /// Has a worker been silent for generations?
    pub(super) fn is_gone(&mut self, worker: u64, said: Option<u64>) -> bool {
        let since = said.unwrap_or(0);
        let (known, missed) = self.upkeep.silent.entry(worker).or_insert((since, self.generation));
        if *known != since {
            (*known, *missed) = (since, self.generation);
        }
        self.generation.wrapping_sub(*missed) >= SILENT_GENERATIONS
    }

    fn need_key(&self, metric: u64, worker: u64) -> String {
        format!("{}need/{metric:x}/{worker}", self.log.prefix())
    }

    /// Say how many streams there are of what is contained, or comes back.
    fn say_need(&mut self, budgets: &Budgets, shared: &dyn Shared) {
        // What is over leaves no more than its key.
        let is_over = |id: &u64| !self.log.state.metrics.get(id).is_some_and(Metric::is_folding);
        let over: Vec<u64> = self.upkeep.needed.keys().filter(|id| is_over(id)).copied().collect();
        for id in over {
            self.upkeep.needed.remove(&id);
            shared.set(&self.need_key(id, self.worker), &[], If::Always);
        }
        for (id, it) in self.log.state.metrics.iter().filter(|(_, it)| it.is_folding()) {
            let Some(measured) = self.measure.metric(*id) else { continue };
            let tenant = self.measure.tenant(it.tenant).map(|tenant| &tenant.name);
            let tenant: &[u8] = tenant.map_or(b"", |name| name);
            let (share, tenant_share) = Registry::share(budgets, tenant, &measured.name);
            // What the process has for it, whatever its shares.
            let of_process = TenantShare { active_series: u32::MAX, ..tenant_share.clone() };
            let room = tenant_room(&self.log.state, &self.capacity, it.tenant, &of_process, 0);
            let room = it.series().saturating_add(room);
            let tenant_share = tenant_share.active_series;
            let need = Need { share, tenant_share, room, active: measured.active.union() };
            shared.set(&self.need_key(*id, self.worker), &need.write(self.generation), If::Always);
            self.upkeep.needed.insert(*id, ());
        }
    }

    /// Begin the log anew without what nobody has seen for a period, once all workers have said what they saw.
    fn forget(&mut self, plan: &Compiled, shared: &dyn Shared, workers: u64, now: UnixNanos) {
        if self.upkeep.led == self.generation {
            return;
        }
        let place = self.log.place();
        let mut seen = Seen { bits: Vec::new(), until: u32::MAX };
        for worker in 1..=workers {
            let value = shared.get(&self.seen_key(worker)).map(|(bytes, _)| bytes).unwrap_or_default();
            match Seen::read(&value, place, self.generation) {
                Some(theirs) => seen.merge(&theirs),
                // Numbers are never given twice: the worker behind this one is gone, and its successor speaks for itself.
                None if self.is_gone(worker, Seen::generation(&value)) => {}
                None => return,
            }
        }
        let expiry_ns = plan.plan.stream_expiry.as_nanos();
        let period_ns = plan.plan.watched_over().map_or(0, |period| period.as_nanos());
        // Under a clock that was set back a stream may have been seen at what is now the future.
        let forgot_s = whole_seconds(now.minus(period_ns).max(self.set_back_from));
        let generation = low8(self.generation);
        let is_over = |it: &Metric| it.released_at().is_some_and(|at| now > at.plus(expiry_ns));
        let is_settled = |at_s: u32| now > seconds(at_s).plus(tops::hold_ns(plan));
        let dead = |state: &State, known: &super::Known| match known.standing {
            // Whoever has left is forgotten when nothing of it can span the switch any more, seen or not.
            Standing::Leaves(at_s) => is_settled(at_s),
            Standing::Comes(at_s) if !is_settled(at_s) && is_ranked(state, known.metric) => false,
            _ => !seen.has(known.number),
        };
        let state = &self.log.state;
        let nothing = state.series.values().all(|known| !dead(state, known))
            && !self.log.state.metrics.values().any(is_over);
        if nothing {
            self.upkeep.led = self.generation;
            return;
        }
        let done = self.log.compact(shared, self.worker, generation, |state| {
            let how = Kept { is_over: &is_over, is_settled: &is_settled, forgot_s, now };
            kept(state, &|known| dead(state, known), &how)
        });
        if done {
            self.upkeep.led = self.generation;
        }
    }

    /// What all workers say about a metric: its streams, the smallest shares. None: nobody says anything.
    fn need(&self, metric: u64, shared: &dyn Shared, workers: u64) -> Option<Need> {
        let said = (1..=workers).filter_map(|worker| {
            let (bytes, _) = shared.get(&self.need_key(metric, worker))?;
            Need::read(&bytes, self.generation)
        });
        said.reduce(|mut all, need| {
            all.active.merge(&need.active);
            all.share = all.share.min(need.share);
            all.tenant_share = all.tenant_share.min(need.tenant_share);
            all.room = all.room.min(need.room);
            all
        })
    }

    /// Release what needs no fold any more.
    fn release(&mut self, budgets: &Budgets, shared: &dyn Shared, workers: u64, now: UnixNanos) {
        let percent = f64::from(budgets.restore_below_percent) / 100.0;
        let contained: Vec<u64> =
            self.log.state.metrics.iter().filter(|(_, it)| it.is_contained()).map(|(id, _)| *id).collect();
        // What was released and has not come back yet has its room already: of its tenant, and of the process.
        let (mut given_back, mut all_back) = (ByHalf::<f64>::default(), 0.0);
        let comes = |it: &&Metric| it.is_folding() && !it.is_contained();
        for (metric, it) in self.log.state.metrics.iter().filter(|(_, it)| comes(it)) {
            let need = self.need(*metric, shared, workers).map_or(0.0, |need| need.active.estimate());
            let more = (need - f64::from(it.admitted)).max(0.0);
            *given_back.entry(it.tenant).or_insert(0.0) += more;
            all_back += more;
        }
        for metric in contained {
            let Some(it) = self.log.state.metrics.get(&metric) else { continue };
            // A clock that was set back must not make a dwell without end.
            let (changed, dwell_ns) = (seconds(it.changed_s), budgets.dwell.as_nanos());
            if now < changed.plus(dwell_ns) && changed <= now.plus(dwell_ns) {
                continue;
            }
            let (said, series) = (self.need(metric, shared, workers), it.series());
            // What nobody has measured needs nothing only when nothing of it is left.
            if said.is_none() && series > 0 {
                continue;
            }
            let none =
                || Need { share: u32::MAX, tenant_share: u32::MAX, room: u32::MAX, active: Distinct::new() };
            let Need { share, tenant_share, room, active } = said.unwrap_or_else(none);
            let (need, folded) = (active.estimate(), f64::from(it.folded));
            let of_tenant = self.log.state.tenants.get(&it.tenant).map_or(0, |tenant| tenant.series);
            let others = f64::from(of_tenant.saturating_sub(series));
            let back = given_back.entry(it.tenant).or_insert(0.0);
            // Folded series go a generation after their streams; and what one metric gets back the next one cannot have.
            let has_room =
                |need: f64, of: u32| need <= percent * f64::from(of) && need + folded <= f64::from(of);
            let fits = has_room(need, share)
                && need <= f64::from(share.saturating_sub(rests::kept(it.unmade, share)))
                && others + *back + need <= percent * f64::from(tenant_share)
                && has_room(all_back + need, room);
            if !fits {
                continue;
            }
            *back += need;
            all_back += need;
            let at = now.plus(budgets.switch_lead.as_nanos());
            let (at_s, said_s) = (whole_seconds(at), whole_seconds(now));
            let done = self.log.append(shared, low8(self.generation), |state| {
                let still = state.metrics.get(&metric).is_some_and(Metric::is_contained);
                if still { vec![Entry::Release { metric, at_s, said_s }] } else { Vec::new() }
            });
            if done {
                self.remember(metric, What::Released, now, seconds(at_s), share);
            }
        }
    }
}

fn is_ranked(state: &State, metric: u64) -> bool {
    state.metrics.get(&metric).is_some_and(Metric::is_ranked)
}

/// What time has done.
struct Kept<'a> {
    /// A metric is raw again for good.
    is_over: &'a dyn Fn(&Metric) -> bool,
    /// Nothing of a stream that switched then can span that any more.
    is_settled: &'a dyn Fn(u32) -> bool,
    /// Raw streams that were silent since before then are dead.
    forgot_s: u32,
    now: UnixNanos,
}

/// What a log that begins anew says: everything but the dead, in the order of the old one.
fn kept(state: &State, dead: &dyn Fn(&super::Known) -> bool, how: &Kept<'_>) -> Vec<Entry> {
    let Kept { is_over, is_settled, forgot_s, now } = *how;
    let mut metrics: Vec<(&u64, &Metric)> = state.metrics.iter().collect();
    order::sort_by(&mut metrics, |(a, _), (b, _)| a.cmp(b));
    // In the order of their numbers, each of which one series has.
    let mut alive = vec![None; usize::try_from(state.numbered).unwrap_or(0)];
    // Metrics with the time before which streams of theirs were raw that are known no more.
    let (mut lost, mut living) = (ByHalf::<u32>::default(), ByHalf::<()>::default());
    for (series, known) in &state.series {
        if !dead(known) {
            living.insert(known.metric, ());
            if let Some(place) = alive.get_mut(known.number as usize) {
                *place = Some((*series, known));
            }
            continue;
        }
        let at_s = match known.standing {
            Standing::Folded(_) => continue,
            Standing::Leaves(at_s) => at_s,
            Standing::Raw | Standing::Comes(_) => forgot_s,
        };
        let known = lost.entry(known.metric).or_default();
        *known = at_s.max(*known);
    }
    let mut gone_s = state.gone_s;
    let mut out = Vec::with_capacity(state.series.len().saturating_add(metrics.len()));
    for (id, it) in metrics {
        let is_empty = !it.has_levels() && !living.contains_key(id);
        let lost_s = lost.get(id).copied().unwrap_or_default().max(it.forgot_s);
        if is_empty {
            gone_s = gone_s.max(lost_s);
            continue;
        }
        out.push(Entry::Metric { metric: *id, tenant: it.tenant });
        if lost_s > 0 {
            out.push(Entry::Forgot { metric: *id, at_s: lost_s });
        }
        if is_over(it) {
            continue;
        }
        for (level, label) in (1_u8..).zip(&it.levels) {
            out.push(Entry::Contain { metric: *id, label: *label, level, at_s: it.changed_s });
        }
        if let Some(at_s) = it.released_s {
            out.push(Entry::Release { metric: *id, at_s, said_s: it.changed_s });
        }
    }
    // Nothing of a stream that came back folded can span its switch any more.
    let has_come = |metric: u64, at_s: u32| match state.metrics.get(&metric) {
        Some(it) if it.is_ranked() => is_settled(at_s),
        it => seconds(at_s) < now && it.is_none_or(is_over),
    };
    for (series, known) in alive.into_iter().flatten() {
        let (metric, rest) = (known.metric, known.rest);
        out.push(match known.standing {
            Standing::Raw => Entry::Admit { series, metric, rest },
            Standing::Folded(level) => Entry::Folded { series, metric, level, rest },
            Standing::Comes(at_s) if !has_come(metric, at_s) => Entry::Promote { series, metric, at_s, rest },
            Standing::Comes(_) | Standing::Leaves(_) => Entry::Admit { series, metric, rest },
        });
        if let Standing::Leaves(at_s) = known.standing {
            out.push(Entry::Demote { series, metric, at_s });
        }
    }
    if gone_s > 0 {
        // Behind the metrics that are there: it speaks of those that will come.
        out.push(Entry::Forgot { metric: GONE, at_s: gone_s });
    }
    out
}
