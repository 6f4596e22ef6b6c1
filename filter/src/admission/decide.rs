//! Who is admitted, and what folds instead: a function of the log, the shares, and the new streams of one batch.
//!
//! All new streams of a batch are looked at together, so that a metric which overflows is contained in the batch in which it does, before that
//! batch has used up what room there is. Metrics with few new streams come first: the one that brings many is the one that overflows.
//!
//! A metric beyond its share is contained by *levels*. The first folds the guilty label: of all that are not protected the one without which
//! the new streams add the fewest series to those that were there. Where the folded series do not fit either, the next level drops the next such label as well,
//! and the last all that are not protected. Streams without any of these labels are innocent and stay raw while there is room.
//!
//! Never more than the share is admitted raw; folded series may go beyond by one percent ([`slack`]), one at least. Room is kept for the series of
//! the last level ([`rests`](super::rests)). Beyond that only the last level goes: with more of them than a tenth of the share, or with
//! some of which nobody could know.

use super::entry::Entry;
use super::rests;
use super::state::{ALL_LABELS, Metric, RANKED, State, Tenant};
use super::state::{ByHalf, Plain};
use crate::hash::Identity;
use core::ops::Range;
use phoenix_plan::order;
use phoenix_plan::{Priority, TenantShare};

/// A set of halves of identities.
type Halves = hashbrown::HashSet<u64, core::hash::BuildHasherDefault<Plain>>;

/// Levels of single labels; then all that are not protected go at once.
pub const LEVELS_MAX: usize = 4;
/// Labels that are looked at for a guilty one: those that most of the new streams have.
const CANDIDATES_MAX: usize = 32;
/// From so many new streams on they show by themselves which label is guilty; fewer are looked at together with the generation's growth.
const TELLING: usize = 8;

/// A label of a new stream.
#[derive(Clone, Copy, Debug)]
pub struct NewLabel {
    /// Half of the identity of its key.
    pub id: u64,
    /// Identity of key and value, as the stream's identity holds it.
    pub pair: Identity,
    /// A budget may fold it alone …
    pub is_foldable: bool,
    /// … or with all that are not protected.
    pub is_protected: bool,
}

/// A stream that nobody has decided about.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// Its identity on the way out.
    pub id: Identity,
    /// Its labels in [`Census::labels`].
    pub labels: Range<usize>,
    /// Its value, where that decides who is raw.
    pub weight: f64,
    /// Its metric was released, and this point is behind the switch: it folded before then.
    pub comes_s: Option<u32>,
}

/// The new streams of a metric.
#[derive(Clone, Debug)]
pub struct Group {
    /// Metric, by half of its identity.
    pub metric: u64,
    /// Its tenant, likewise.
    pub tenant: u64,
    /// Share of the metric.
    pub share: u32,
    /// Share of its tenant.
    pub tenant_share: TenantShare,
    /// One of the metrics that are too many to be told apart: only all labels at once fold.
    pub is_other: bool,
    /// Its heaviest streams are raw: so many of the first ones.
    pub ranked: Option<u32>,
    /// The streams, each once.
    pub streams: Vec<Newcomer>,
}

/// The new streams of a batch.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// By metric.
    pub groups: Vec<Group>,
    /// Labels of all streams.
    pub labels: Vec<NewLabel>,
}

/// What the process can hold.
#[derive(Clone, Debug, Default)]
pub struct Capacity {
    /// Series of all tenants.
    pub series_max: u32,
    /// Tenants with a reserved part, and how much.
    pub reserved: Vec<(u64, u32)>,
}

/// What measuring knows about a metric without one of its labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hint {
    /// Series that the new streams add, without the label.
    pub new: f64,
    /// Series that the generation added before them.
    pub growth: f64,
    /// All series, without the label.
    pub all: f64,
}

/// Whoever measures.
pub trait Hints {
    /// `new`: what is left of the new streams without the label. None: nothing is known about it.
    fn without(&self, metric: u64, label: u64, new: &[u64]) -> Option<Hint>;
}

/// Identity of a folded series: what is left of a stream, and a salt of the level so that it is no stream's own.
pub fn folded(left: Identity, levels: &[u64]) -> u64 {
    let salt = levels.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |salt, label| {
        (salt ^ label).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29)
    });
    left.low() ^ salt
}

/// What is left of a stream without the labels of these levels.
fn without(it: &Newcomer, labels: &[NewLabel], levels: &[u64]) -> Identity {
    let mine = labels.get(it.labels.clone()).unwrap_or_default();
    mine.iter().filter(|label| drops(levels, label)).fold(it.id, |id, label| id.minus(label.pair))
}

fn drops(levels: &[u64], label: &NewLabel) -> bool {
    levels.iter().any(|level| *level == label.id || (*level == ALL_LABELS && !label.is_protected))
}

/// Series for which a tenant has room: its reserved part in any case, of the rest what its priority lets it have. `given` is what all tenants
/// together got since the state was read.
pub fn tenant_room(state: &State, capacity: &Capacity, tenant: u64, share: &TenantShare, given: u32) -> u32 {
    let count = |tenant: u64| state.tenants.get(&tenant).map_or(0, |tenant| tenant.series);
    let mine = count(tenant);
    let own = share.active_series.saturating_sub(mine);
    let guaranteed = share.reserved.saturating_sub(mine);
    let others = capacity.reserved.iter().filter(|(other, _)| *other != tenant);
    let kept =
        others.fold(0_u32, |sum, (other, part)| sum.saturating_add(part.saturating_sub(count(*other))));
    let taken = state.total().saturating_add(given).saturating_add(kept);
    let free = capacity.series_max.saturating_sub(taken);
    let floor = match share.priority {
        Priority::Low => capacity.series_max / 2,
        Priority::Normal => capacity.series_max / 10,
        Priority::High => 0,
    };
    own.min(guaranteed.max(free.saturating_sub(floor)))
}

/// What the tenant of a metric has left, and the process.
struct Room {
    /// Raw streams of the tenant.
    raw: u32,
    /// Series of its share …
    share: u32,
    /// … that are there …
    series: u32,
    /// … and that last levels would make.
    unmade: u32,
    /// Series of all.
    process: u32,
}

/// What is still to be appended, for all new streams to be decided about. Asked again after a part of it was appended, it says the rest.
pub fn decide(
    state: &State,
    census: &Census,
    capacity: &Capacity,
    hints: &dyn Hints,
    now_s: u32,
) -> Vec<Entry> {
    let mut out = Vec::new();
    let mut order: Vec<&Group> = census.groups.iter().collect();
    order::sort_by(&mut order, |a, b| (a.streams.len(), a.metric).cmp(&(b.streams.len(), b.metric)));
    // What this call gives to a tenant is not in the state yet.
    let (mut given, mut all) = (ByHalf::<Tenant>::default(), 0_u32);
    for group in order {
        if let Some(first) = group.ranked {
            ranked(state, group, first, now_s, &mut out);
            continue;
        }
        let already = given.entry(group.tenant).or_default();
        let share = &group.tenant_share;
        let mine = state.tenants.get(&group.tenant).copied().unwrap_or_default();
        let room = Room {
            raw: tenant_room(state, capacity, group.tenant, share, all).saturating_sub(already.series),
            share: share.active_series,
            series: mine.series.saturating_add(already.series),
            unmade: mine.unmade.saturating_add(already.unmade),
            process: capacity.series_max.saturating_sub(state.total()).saturating_sub(all),
        };
        let before = out.len();
        let new = one(state, group, &census.labels, &room, hints, now_s, &mut out);
        let takes = |entry: &&Entry| {
            matches!(entry, Entry::Admit { .. } | Entry::Folded { .. } | Entry::Promote { .. })
        };
        let taken = out.get(before..).unwrap_or_default().iter().filter(takes).count();
        let taken = u32::try_from(taken).unwrap_or(u32::MAX);
        all = all.saturating_add(taken);
        already.series = already.series.saturating_add(taken);
        already.unmade = already.unmade.saturating_add(new);
    }
    out
}

/// The same for a metric whose heaviest streams are raw: of the first ones it takes the heaviest; once there is no place left, only a ranking
/// changes who is raw.
fn ranked(state: &State, group: &Group, first: u32, now_s: u32, out: &mut Vec<Entry>) {
    let (metric, unknown) = (group.metric, Metric::default());
    let it = state.metrics.get(&metric).unwrap_or_else(|| {
        out.push(Entry::Metric { metric, tenant: group.tenant });
        &unknown
    });
    if it.is_ranked() {
        return;
    }
    let is_new = |s: &&Newcomer| !state.series.contains_key(&s.id.low());
    let mut pending: Vec<&Newcomer> = group.streams.iter().filter(is_new).collect();
    order::sort_by(&mut pending, |a, b| b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id)));
    let room = usize::try_from(first.saturating_sub(it.admitted)).unwrap_or(usize::MAX);
    let admit = |s: &&Newcomer| Entry::Admit { series: s.id.low(), metric, rest: rests::NONE };
    out.extend(pending.iter().take(room).map(admit));
    if pending.len() > room {
        out.push(Entry::Contain { metric, label: RANKED, level: 1, at_s: now_s });
    }
}

/// The same for one metric. Returns how many series its last level would make of the new streams, beside those of which one knew.
fn one(
    state: &State,
    group: &Group,
    labels: &[NewLabel],
    left: &Room,
    hints: &dyn Hints,
    now_s: u32,
    out: &mut Vec<Entry>,
) -> u32 {
    let (metric, unknown) = (group.metric, Metric::default());
    let it = state.metrics.get(&metric).unwrap_or_else(|| {
        out.push(Entry::Metric { metric, tenant: group.tenant });
        &unknown
    });
    let contained = it.is_contained();
    let has_folded = |streams: &Newcomer, levels: &[u64]| {
        (1..=levels.len()).any(|n| {
            let levels = levels.get(..n).unwrap_or_default();
            state.series.contains_key(&folded(without(streams, labels, levels), levels))
        })
    };
    // Until a release takes effect what folds goes on; a point behind it comes with its time.
    let folds = |s: &Newcomer| s.comes_s.is_none() && has_folded(s, &it.levels);
    let is_new = |s: &&Newcomer| !state.series.contains_key(&s.id.low()) && !folds(s);
    let pending: Vec<&Newcomer> = group.streams.iter().filter(is_new).collect();
    let rest = |s: &Newcomer| rests::rest(s.id, without(s, labels, &[ALL_LABELS]));
    let unknown = pending.iter().map(|s| rest(s)).filter(|rest| !state.rests.has(metric, *rest));
    let new: Halves = unknown.map(u64::from).collect();
    let new = u32::try_from(new.len()).unwrap_or(u32::MAX);
    let series = it.series();
    // Within the share and its slack, beside what the last level may need: of the metric, of its tenant.
    let fits = rests::room(group.share, series, it.unmade.saturating_add(new)).min(rests::room(
        left.share,
        left.series,
        left.unmade.saturating_add(new),
    ));
    let room = group.share.saturating_sub(series).min(left.raw).min(fits);
    let admit = |s: &Newcomer| match s.comes_s {
        Some(at_s) => Entry::Promote { series: s.id.low(), metric, at_s, rest: rest(s) },
        None => Entry::Admit { series: s.id.low(), metric, rest: rest(s) },
    };
    if !contained && pending.len() <= usize::try_from(room).unwrap_or(usize::MAX) {
        out.extend(pending.into_iter().map(admit));
        return new;
    }
    // A metric that was released is contained as it was before: what folds still goes on.
    let mut levels = it.levels.clone();
    if !contained && let Some(label) = levels.last() {
        let level = u8::try_from(levels.len()).unwrap_or(u8::MAX);
        out.push(Entry::Contain { metric, label: *label, level, at_s: now_s });
    }
    let add_level = |levels: &mut Vec<u64>, label: u64, out: &mut Vec<Entry>| {
        levels.push(label);
        let level = u8::try_from(levels.len()).unwrap_or(u8::MAX);
        out.push(Entry::Contain { metric, label, level, at_s: now_s });
    };
    if levels.is_empty() {
        let next = if group.is_other { None } else { guilty(metric, &pending, labels, &levels, hints) };
        add_level(&mut levels, next.unwrap_or(ALL_LABELS), out);
    }
    // Innocent streams first, while there is room for them and one folded series.
    let mut used = 0_u32;
    let mut guilty_ones = Vec::new();
    for s in pending {
        let mine = labels.get(s.labels.clone()).unwrap_or_default();
        let innocent = !mine.iter().any(|label| drops(&levels, label));
        if innocent && used.saturating_add(1) < room {
            used = used.saturating_add(1);
            out.push(admit(s));
        } else {
            guilty_ones.push(s);
        }
    }
    let folded_room =
        usize::try_from(fits.min(left.process.max(1)).saturating_sub(used)).unwrap_or(usize::MAX);
    loop {
        let added = keys(&guilty_ones, labels, &levels, |key| state.series.contains_key(&key));
        let is_last = levels.last() == Some(&ALL_LABELS);
        if is_last || added.len() <= folded_room {
            let level = u8::try_from(levels.len()).unwrap_or(u8::MAX);
            // What protected labels make goes beyond the share, and not beyond the process: the rest folds without being remembered.
            let least = u32::from(it.folded == 0);
            let most = left.process.saturating_sub(used).max(least);
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let folded =
                |(series, s): (u64, &Newcomer)| Entry::Folded { series, metric, level, rest: rest(s) };
            out.extend(added.into_iter().take(most).map(folded));
            return new;
        }
        let next = if levels.len() < LEVELS_MAX {
            guilty(metric, &guilty_ones, labels, &levels, hints)
        } else {
            None
        };
        add_level(&mut levels, next.unwrap_or(ALL_LABELS), out);
    }
}

/// The folded series of these streams on this level that are not there yet, each once with its first stream, in the order of the streams.
fn keys<'a>(
    streams: &[&'a Newcomer],
    labels: &[NewLabel],
    levels: &[u64],
    is_there: impl Fn(u64) -> bool,
) -> Vec<(u64, &'a Newcomer)> {
    let mut seen = Halves::default();
    let all = streams.iter().map(|s| (folded(without(s, labels, levels), levels), *s));
    all.filter(|(key, _)| !is_there(*key) && seen.insert(*key)).collect()
}

/// The label that makes these streams many, beside those that fold already. None: none may fold.
fn guilty(
    metric: u64,
    streams: &[&Newcomer],
    labels: &[NewLabel],
    levels: &[u64],
    hints: &dyn Hints,
) -> Option<u64> {
    let mine = |s: &Newcomer| labels.get(s.labels.clone()).unwrap_or_default();
    let mut streams_of = ByHalf::<u32>::default();
    for label in streams.iter().flat_map(|s| mine(s)) {
        if label.is_foldable && !drops(levels, label) {
            let count = streams_of.entry(label.id).or_default();
            *count = count.saturating_add(1);
        }
    }
    // A label that few of them have makes few of them.
    let mut candidates: Vec<(u32, u64)> =
        streams_of.into_iter().map(|(label, count)| (count, label)).collect();
    order::sort_by(&mut candidates, |a, b| b.cmp(a));
    candidates.truncate(CANDIDATES_MAX);
    let kept: Vec<Identity> = streams.iter().map(|s| without(s, labels, levels)).collect();
    let mut best: Option<([f64; 2], u64)> = None;
    for (_, label) in candidates {
        let left: Vec<u64> = streams
            .iter()
            .zip(&kept)
            .map(|(s, kept)| {
                let pairs = mine(s).iter().filter(|it| it.id == label);
                pairs.fold(*kept, |id, it| id.minus(it.pair)).low()
            })
            .collect();
        let hint = hints.without(metric, label, &left).unwrap_or_else(|| {
            let distinct: Halves = left.iter().copied().collect();
            let new = u32::try_from(distinct.len()).map_or(f64::MAX, f64::from);
            Hint { new, growth: 0.0, all: new }
        });
        // Few streams say little: what the generation brought before them counts as well.
        let growth = if streams.len() < TELLING { hint.new + hint.growth } else { hint.new };
        let score = [growth, hint.all];
        if best.is_none_or(|(s, l)| (score, label) < (s, l)) {
            best = Some((score, label));
        }
    }
    best.map(|(_, label)| label)
}
