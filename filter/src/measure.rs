//! What makes the series of a tenant many: distinct streams of tenants and metrics, and of each label its values and what would be left
//! without it.
//!
//! Over a sliding period, in generations of a third: what came in the current one or the two before is active. A stream is looked at once in
//! a generation, however often it comes ([`Seen`]; what the log of admissions knows has that beside it). Growth is
//! `estimate(union) − estimate(previous)`, never a difference of estimates of different streams (DESIGN §4).
//!
//! Memory: a metric takes what its streams take up to 3.5 KiB, a label up to 5.5 KiB, within the plan's bound; beyond that new metrics and
//! labels are counted ([`Measure::unmeasured`]) and their tenant's estimate still holds. Error: [`Distinct`]'s, 2.3 %.

mod seen;

pub use seen::Seen;

use crate::admission::{ByHalf, Hint, Hints};
use crate::hash::Identity;
use crate::sketch::{Distinct, Heavy};
use crate::wire::Span;
use hashbrown::hash_map::Entry;

/// Generations of a period.
pub const GENERATIONS: usize = 3;
/// Labels of a metric that are measured; SDKs allow 128, and what has so many is not bounded by its 33rd.
const LABELS_MAX: usize = 32;
const _: () = assert!(LABELS_MAX <= u64::BITS as usize && RECENT.is_power_of_two());
/// Values of a label that are known to have come, by their last bits.
const RECENT: usize = 32;
/// Example values of a label.
const EXAMPLES: usize = 8;
/// Labels with fewer values need no examples.
const EXAMPLES_FROM: f64 = 16.0;
/// Bytes of the longest key that is measured: no plan can name a longer one.
const KEY_BYTES_MAX: usize = phoenix_plan::bounds::KEY_BYTES;
/// Parts of the bound that the streams of a generation take at most.
const SEEN_PART: usize = 8;
/// Bytes of a metric beside its sketches, about.
const METRIC_BYTES: usize = 400;

/// A label of a stream, by halves of identities: what a sketch takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Of its key, and of whether it is one of the resource.
    pub id: u64,
    /// Of key and value.
    pub pair: u64,
    /// The text of its value in the batch; nothing where it is none.
    pub value: Span,
}

/// A metric, as a stream's first point of a generation describes it.
#[derive(Clone, Copy)]
pub struct Described<'a> {
    /// Half of its identity.
    pub id: u64,
    /// Its tenant: half of the identity, and the name.
    pub tenant: (u64, &'a [u8]),
    /// Its name.
    pub name: &'a [u8],
    /// Its type, in a word.
    pub kind: &'static str,
}

/// Distinct things by generation.
pub struct Generations<const N: usize> {
    /// The current one first.
    by_age: [Distinct; N],
}

impl<const N: usize> Default for Generations<N> {
    fn default() -> Generations<N> {
        Generations { by_age: core::array::from_fn(|_| Distinct::new()) }
    }
}

impl<const N: usize> Generations<N> {
    /// Says whether the current sketch is another now.
    #[inline(always)]
    fn insert(&mut self, hash: u64) -> bool {
        self.by_age.first_mut().is_some_and(|current| current.insert(hash))
    }

    fn turn(&mut self) {
        self.by_age.rotate_right(1);
        if let Some(current) = self.by_age.first_mut() {
            current.clear();
        }
    }

    /// All of the period.
    pub fn union(&self) -> Distinct {
        Self::merged(&self.by_age)
    }

    /// All but the current generation.
    fn previous(&self) -> Distinct {
        Self::merged(self.by_age.get(1..).unwrap_or_default())
    }

    fn merged(some: &[Distinct]) -> Distinct {
        let mut all = Distinct::new();
        some.iter().filter(|it| !it.is_empty()).for_each(|it| all.merge(it));
        all
    }

    /// The newest of them alone.
    fn last<const M: usize>(&self) -> Generations<M> {
        let mut some = Generations::default();
        for (to, from) in some.by_age.iter_mut().zip(&self.by_age) {
            to.clone_from(from);
        }
        some
    }

    /// What the current generation added.
    pub fn growth(&self) -> f64 {
        (self.union().estimate() - self.previous().estimate()).max(0.0)
    }

    fn is_empty(&self) -> bool {
        self.by_age.iter().all(Distinct::is_empty)
    }

    fn heap_bytes(&self) -> usize {
        self.by_age.iter().fold(0, |sum, it| sum.saturating_add(it.heap_bytes()))
    }
}

/// A label of a metric.
pub struct MeasuredLabel {
    /// Half of the identity of its key.
    pub id: u64,
    /// Its key.
    pub key: Box<[u8]>,
    /// It is one of the resource.
    pub is_resource: bool,
    /// Its values.
    pub values: Generations<2>,
    /// The metric's series without it, those that never had it included.
    pub without: Generations<2>,
    /// Values with the most streams, once there are many.
    pub heavy: Option<Box<Heavy>>,
    /// Values that are in the current generation's sketch; zero for none.
    recent: [u64; RECENT],
}

/// A metric of a tenant.
pub struct MeasuredMetric {
    /// Its tenant.
    pub tenant: u64,
    /// Its name.
    pub name: Box<[u8]>,
    /// Its type.
    pub kind: &'static str,
    /// Its streams.
    pub active: Generations<GENERATIONS>,
    /// Its labels.
    pub labels: Vec<MeasuredLabel>,
    /// Points since the process began.
    pub points: u64,
    /// Bytes that it was last found to take, and streams that came since the process began.
    bytes: usize,
    adds: u32,
}

/// A tenant.
pub struct MeasuredTenant {
    /// Its name.
    pub name: Box<[u8]>,
    /// Its streams.
    pub active: Generations<GENERATIONS>,
}

/// Everything that one worker measures.
#[derive(Default)]
pub struct Measure {
    generation: u64,
    metrics: ByHalf<MeasuredMetric>,
    tenants: ByHalf<MeasuredTenant>,
    seen: Seen,
    bytes_max: usize,
    bytes: usize,
    /// Streams of metrics or with labels for which there was no room.
    pub unmeasured: u64,
}

impl Measure {
    /// Bound the memory, in bytes.
    pub fn set_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.seen.set_max(bytes_max / SEEN_PART);
    }

    /// The next generation begins, by any other number.
    pub fn turn(&mut self, generation: u64) {
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        self.seen.clear();
        self.tenants.values_mut().for_each(|it| it.active.turn());
        for metric in self.metrics.values_mut() {
            metric.active.turn();
            for label in &mut metric.labels {
                label.recent = Default::default();
                label.values.turn();
                label.without.turn();
            }
            metric.labels.retain(|label| !label.values.is_empty());
            metric.bytes = bytes_of(metric);
        }
        self.metrics.retain(|_, it| !it.active.is_empty());
        self.tenants.retain(|_, it| !it.active.is_empty());
        let metrics = self.metrics.values().map(|it| it.bytes).fold(0, usize::saturating_add);
        self.bytes = self.tenants.values().map(tenant_bytes).fold(metrics, usize::saturating_add);
    }

    /// Does this stream come for the first time in this generation? For streams of which nobody else knows.
    #[inline]
    pub fn is_new(&mut self, stream: u64) -> bool {
        self.seen.is_new(stream)
    }

    /// Did this stream come in this generation already?
    #[inline]
    pub fn is_known(&self, stream: u64) -> bool {
        self.seen.has(stream)
    }

    /// A stream's first point of the generation: its labels are to follow, and [`Adding::done`]. Nothing where there is no room for its metric
    /// or for labels.
    pub fn begin(&mut self, metric: &Described<'_>, stream: Identity) -> Option<Adding<'_>> {
        let room = self.bytes < self.bytes_max.saturating_sub(self.seen.heap_bytes());
        let hash = stream.low();
        let (tenant, tenant_name) = metric.tenant;
        let of_tenant = match self.tenants.entry(tenant) {
            Entry::Occupied(it) => Some(it.into_mut()),
            Entry::Vacant(place) if room => {
                self.bytes = self.bytes.saturating_add(METRIC_BYTES);
                let new = MeasuredTenant { name: tenant_name.into(), active: Generations::default() };
                Some(place.insert(new))
            }
            Entry::Vacant(_) => None,
        };
        if let Some(it) = of_tenant {
            let before = it.active.heap_bytes();
            if it.active.insert(hash) {
                self.bytes = self.bytes.saturating_add(it.active.heap_bytes()).saturating_sub(before);
            }
        }
        let it = match self.metrics.entry(metric.id) {
            Entry::Occupied(it) => it.into_mut(),
            Entry::Vacant(place) if room => place.insert(MeasuredMetric {
                bytes: 0,
                adds: 0,
                tenant,
                name: metric.name.into(),
                kind: metric.kind,
                active: Generations::default(),
                labels: Vec::new(),
                points: 0,
            }),
            Entry::Vacant(_) => {
                self.unmeasured = self.unmeasured.saturating_add(1);
                return None;
            }
        };
        if !room {
            it.active.insert(hash);
            // Its own number still holds; what its labels would take is not there.
            self.unmeasured = self.unmeasured.saturating_add(1);
            return None;
        }
        Some(Adding {
            it,
            bytes: &mut self.bytes,
            unmeasured: &mut self.unmeasured,
            stream: hash,
            next: 0,
            has: 0,
            strange: 0,
        })
    }

    /// Points of a metric.
    pub fn count(&mut self, metric: u64, points: u64) {
        if let Some(it) = self.metrics.get_mut(&metric) {
            it.points = it.points.saturating_add(points);
        }
    }

    /// A metric.
    pub fn metric(&self, metric: u64) -> Option<&MeasuredMetric> {
        self.metrics.get(&metric)
    }

    /// A tenant.
    pub fn tenant(&self, tenant: u64) -> Option<&MeasuredTenant> {
        self.tenants.get(&tenant)
    }

    /// All metrics, by half of their identity.
    pub fn metrics(&self) -> impl Iterator<Item = (u64, &MeasuredMetric)> {
        self.metrics.iter().map(|(id, it)| (*id, it))
    }

    /// All tenants.
    pub fn tenants(&self) -> impl Iterator<Item = (u64, &MeasuredTenant)> {
        self.tenants.iter().map(|(id, it)| (*id, it))
    }

    /// Bytes that it takes, about.
    pub fn heap_bytes(&self) -> usize {
        let tenants = self.tenants.values().map(tenant_bytes);
        self.metrics.values().map(bytes_of).chain(tenants).fold(self.seen.heap_bytes(), usize::saturating_add)
    }
}

/// A stream whose labels are being counted.
pub struct Adding<'m> {
    it: &'m mut MeasuredMetric,
    bytes: &'m mut usize,
    unmeasured: &'m mut u64,
    /// Half of its identity.
    stream: u64,
    /// Where the next label is likely to be: streams of a metric bring theirs in one order.
    next: usize,
    /// Which of the known labels it has.
    has: u64,
    /// How many it has that were not known.
    strange: usize,
}

impl Adding<'_> {
    /// One of its labels. Whether it is one of the resource, its key, and the batch with its value are for where somebody is to read them.
    #[inline(always)]
    pub fn label<'b>(&mut self, label: Label, buf: &'b [u8], is_resource: bool, key: impl Fn() -> &'b [u8]) {
        let mut at = self.next;
        if self.it.labels.get(at).is_none_or(|known| known.id != label.id) {
            let Some(other) = self.find(label.id, is_resource, &key) else { return };
            at = other;
        }
        self.next = at.wrapping_add(1);
        self.has |= 1_u64.wrapping_shl(at as u32);
        if let Some(known) = self.it.labels.get_mut(at) {
            known.add(self.stream, label, buf);
        }
    }

    /// Where a label is that is not the likely one: from now on, if it was not there.
    #[cold]
    #[inline(never)]
    fn find<'b>(&mut self, id: u64, is_resource: bool, key: &dyn Fn() -> &'b [u8]) -> Option<usize> {
        let labels = &mut self.it.labels;
        let known = labels.iter().position(|known| known.id == id);
        if known.is_some() {
            return known;
        }
        // To ask for a key costs a walk to it: of a stream with very many, no more are asked for than could be kept.
        self.strange = self.strange.saturating_add(1);
        let may_ask = labels.len() < LABELS_MAX && self.strange <= LABELS_MAX;
        let Some(key) = may_ask.then(key).filter(|key| key.len() <= KEY_BYTES_MAX) else {
            *self.unmeasured = self.unmeasured.saturating_add(1);
            return None;
        };
        labels.push(MeasuredLabel {
            id,
            key: key.into(),
            is_resource,
            values: Generations::default(),
            // Streams that came before had no such label: all of them remain without it.
            without: self.it.active.last(),
            heavy: None,
            recent: Default::default(),
        });
        labels.len().checked_sub(1)
    }

    /// All labels were there.
    pub fn done(self) {
        let (hash, it) = (self.stream, self.it);
        // Most streams have all of them.
        if self.has.count_ones() as usize != it.labels.len() {
            for (at, other) in it.labels.iter_mut().enumerate() {
                if self.has.wrapping_shr(at as u32) & 1 == 0 {
                    other.without.insert(hash);
                }
            }
        }
        it.active.insert(hash);
        it.adds = it.adds.wrapping_add(1);
        // Few streams at first, so that many metrics with few are counted; a sketch that is dense does not grow.
        if it.adds <= 4 || it.adds & 31 == 0 {
            let now = bytes_of(it);
            *self.bytes = self.bytes.saturating_add(now).saturating_sub(it.bytes);
            it.bytes = now;
        }
    }
}

impl MeasuredLabel {
    #[inline(always)]
    fn add(&mut self, stream: u64, label: Label, buf: &[u8]) {
        let value = label.pair;
        // Most labels have few values; one that is in the sketch changes nothing there.
        if self.recent.get(value as usize % RECENT).is_some_and(|recent| *recent != value) {
            self.value(value);
        }
        // Half of the identity of what is left: a half of a sum is the sum of its halves.
        self.without.insert(stream.wrapping_sub(value));
        if let Some(heavy) = &mut self.heavy {
            heavy.add(value, 1, || label.value.bytes(buf));
        }
    }

    /// A value that did not come lately.
    #[inline(never)]
    fn value(&mut self, value: u64) {
        if let Some(recent) = self.recent.get_mut(value as usize % RECENT) {
            *recent = value;
        }
        let is_new = self.values.insert(value);
        if is_new && self.heavy.is_none() && self.values.union().estimate() >= EXAMPLES_FROM {
            self.heavy = Some(Box::new(Heavy::new(EXAMPLES)));
        }
    }
}

fn tenant_bytes(it: &MeasuredTenant) -> usize {
    METRIC_BYTES.saturating_add(it.active.heap_bytes())
}

fn bytes_of(it: &MeasuredMetric) -> usize {
    let label = |label: &MeasuredLabel| {
        let heavy = label.heavy.as_ref().map_or(0, |it| it.heap_bytes().saturating_add(size_of::<Heavy>()));
        size_of::<MeasuredLabel>()
            .saturating_add(label.key.len())
            .saturating_add(label.values.heap_bytes())
            .saturating_add(label.without.heap_bytes())
            .saturating_add(heavy)
    };
    let labels = it.labels.iter().map(label).fold(0, usize::saturating_add);
    METRIC_BYTES.saturating_add(labels).saturating_add(it.active.heap_bytes())
}

impl Hints for Measure {
    fn without(&self, metric: u64, label: u64, new: &[u64]) -> Option<Hint> {
        let label = self.metrics.get(&metric)?.labels.iter().find(|it| it.id == label)?;
        let mut all = label.without.union();
        let before = all.estimate();
        new.iter().for_each(|hash| {
            all.insert(*hash);
        });
        let all = all.estimate();
        Some(Hint { new: (all - before).max(0.0), growth: label.without.growth(), all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn keys_are_asked_for_as_often_as_labels_can_be_kept() {
        let mut measure = Measure::default();
        measure.set_max(1 << 20);
        let metric = Described { id: 1, tenant: (2, b"t"), name: b"m", kind: "counter" };
        let asked = Cell::new(0);
        for (stream, key_bytes) in [(1, 1), (2, 1), (3, KEY_BYTES_MAX + 1)] {
            let mut adding = measure.begin(&metric, Identity(stream)).unwrap();
            let key = vec![b'k'; key_bytes];
            for id in 0..4_096 {
                let label = Label { id: id ^ (stream as u64) << 32, pair: id, value: Span::EMPTY };
                let key = || {
                    asked.set(asked.get() + 1);
                    &key[..]
                };
                adding.label(label, b"", false, key);
            }
            adding.done();
        }
        assert!(asked.get() <= 3 * LABELS_MAX, "{} times", asked.get());
        assert_eq!(measure.metric(1).unwrap().labels.len(), LABELS_MAX);
    }
}
