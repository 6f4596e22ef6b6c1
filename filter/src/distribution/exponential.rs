//! Exponential buckets: bucket `i` of scale `s` holds what lies in `(2^(i·2⁻ˢ), 2^((i+1)·2⁻ˢ)]`, and its mirror image what is negative.
//! [OTLP data model](https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram).
//!
//! Two of them are brought to the smaller scale (two buckets become one, exactly) and to the greater zero threshold: buckets that
//! reach below it join the zero bucket, and where one of them reaches above it too, the threshold becomes its upper end, so that the
//! zero bucket never claims what it does not hold. At most [`EXPONENTIAL_BUCKETS_MAX`] buckets a side; beyond it the scale goes down.
//!
//! Logarithms come from `libm`, which gives equal bits on wasm32 and x86-64; the processor's own do not.

use crate::limits::{EXPONENTIAL_BUCKETS_MAX, SCALES};

/// Counts of consecutive buckets. Neither the first nor the last is zero; none at all has offset 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Index of the first.
    pub offset: i32,
    /// How many observations in each.
    pub counts: Vec<u64>,
}

/// Scale, zero bucket and both sides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exponential {
    /// `s` above.
    pub scale: i32,
    /// Absolute values up to this count as zero.
    pub threshold: f64,
    /// How many.
    pub zero: u64,
    /// Observations above the threshold.
    pub positive: Buckets,
    /// Absolute values of those below its negative.
    pub negative: Buckets,
}

/// Could a double lie in every one of these buckets? `len` counts from `offset`.
pub fn fits(scale: i32, offset: i32, len: usize) -> bool {
    // Doubles reach from 2^-1074 to 2^1024.
    let bound = |exponent: i64| {
        let shift = scale.unsigned_abs().min(40);
        if scale >= 0 { exponent.wrapping_shl(shift) } else { exponent.wrapping_shr(shift) }
    };
    let first = i64::from(offset);
    let end = first.saturating_add(i64::try_from(len).unwrap_or(i64::MAX));
    len == 0 || (first >= bound(-1_075).saturating_sub(1) && end <= bound(1_024).saturating_add(1))
}

impl Buckets {
    /// Without zeros at the ends.
    pub fn new(offset: i32, mut counts: Vec<u64>) -> Buckets {
        while counts.last() == Some(&0) {
            counts.pop();
        }
        let zeros = counts.iter().take_while(|n| **n == 0).count();
        if counts.is_empty() {
            return Buckets::default();
        }
        counts.drain(..zeros);
        Buckets { offset: offset.saturating_add(i32::try_from(zeros).unwrap_or(i32::MAX)), counts }
    }

    /// Index past the last one.
    fn end(&self) -> i32 {
        self.offset.saturating_add(i32::try_from(self.counts.len()).unwrap_or(i32::MAX))
    }

    fn sum(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// 2^`by` buckets become one.
    fn downscale(&mut self, by: u32) {
        if by == 0 || self.counts.is_empty() {
            return;
        }
        let first = self.offset.wrapping_shr(by.min(31));
        let last = self.end().saturating_sub(1).wrapping_shr(by.min(31));
        let len = usize::try_from(last.saturating_sub(first)).unwrap_or(0).saturating_add(1);
        let mut counts = vec![0u64; len];
        for (n, index) in self.counts.iter().zip(self.offset..) {
            let at = usize::try_from(index.wrapping_shr(by.min(31)).saturating_sub(first)).unwrap_or(0);
            if let Some(slot) = counts.get_mut(at) {
                *slot = slot.saturating_add(*n);
            }
        }
        *self = Buckets { offset: first, counts };
    }

    /// Take out what lies in buckets below index `end`. Says how many, and whether the last one below was among them.
    fn swallow(&mut self, end: i64) -> (u64, bool) {
        let gone = end.saturating_sub(i64::from(self.offset));
        let len = i64::try_from(self.counts.len()).unwrap_or(i64::MAX);
        let gone = usize::try_from(gone.clamp(0, len)).unwrap_or(0);
        if gone == 0 {
            return (0, false);
        }
        let reaches = i64::from(self.offset).saturating_add(gone as i64) == end
            && self.counts.get(gone.saturating_sub(1)).is_some_and(|n| *n > 0);
        let sum = self.counts.iter().take(gone).fold(0u64, |sum, n| sum.saturating_add(*n));
        let rest = self.counts.split_off(gone);
        *self = Buckets::new(self.offset.saturating_add(i32::try_from(gone).unwrap_or(i32::MAX)), rest);
        (sum, reaches)
    }

    /// Buckets from the first of both to the last of both.
    fn union_len(&self, other: &Buckets) -> usize {
        let (first, end) = match (self.counts.is_empty(), other.counts.is_empty()) {
            (true, true) => return 0,
            (false, true) => (self.offset, self.end()),
            (true, false) => (other.offset, other.end()),
            (false, false) => (self.offset.min(other.offset), self.end().max(other.end())),
        };
        usize::try_from(i64::from(end).saturating_sub(i64::from(first))).unwrap_or(usize::MAX)
    }

    /// Add buckets of the same scale, close by.
    fn add(&mut self, other: &Buckets) {
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            *self = other.clone();
            return;
        }
        let (first, len) = (self.offset.min(other.offset), self.union_len(other));
        if first < self.offset || len > self.counts.len() {
            let before = usize::try_from(self.offset.saturating_sub(first)).unwrap_or(0);
            let mut counts = Vec::with_capacity(len);
            counts.resize(before, 0);
            counts.extend_from_slice(&self.counts);
            counts.resize(len, 0);
            *self = Buckets { offset: first, counts };
        }
        let from = usize::try_from(other.offset.saturating_sub(first)).unwrap_or(0);
        for (a, b) in self.counts.iter_mut().skip(from).zip(&other.counts) {
            *a = a.saturating_add(*b);
        }
    }

    /// Take buckets away; `None` when one would fall below zero.
    fn minus(&self, other: &Buckets) -> Option<Buckets> {
        let mut counts = self.counts.clone();
        for (n, index) in other.counts.iter().zip(other.offset..) {
            if *n == 0 {
                continue;
            }
            let at = usize::try_from(index.checked_sub(self.offset)?).ok()?;
            let slot = counts.get_mut(at)?;
            *slot = slot.checked_sub(*n)?;
        }
        Some(Buckets::new(self.offset, counts))
    }
}

impl Exponential {
    /// Nothing, at the finest scale there is: whatever comes first brings its own.
    pub fn none() -> Exponential {
        Exponential { scale: *SCALES.end(), ..Exponential::default() }
    }

    /// The same layout, all counts zero.
    pub fn emptied(&self) -> Exponential {
        let none = |b: &Buckets| Buckets { offset: b.offset, counts: vec![0; b.counts.len()] };
        Exponential {
            scale: self.scale,
            threshold: self.threshold,
            zero: 0,
            positive: none(&self.positive),
            negative: none(&self.negative),
        }
    }

    /// All observations.
    pub fn count(&self) -> u64 {
        self.zero.saturating_add(self.positive.sum()).saturating_add(self.negative.sum())
    }

    /// Words on the heap.
    pub fn heap_words(&self) -> usize {
        let sides = self.positive.counts.capacity().saturating_add(self.negative.counts.capacity());
        sides.saturating_add(size_of::<Exponential>() / 8)
    }

    /// Every counter.
    pub fn counters_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        let sides = self.positive.counts.iter_mut().chain(&mut self.negative.counts);
        core::iter::once(&mut self.zero).chain(sides)
    }

    /// Add another one.
    pub fn merge(&mut self, other: &Exponential) {
        let mut theirs = other.clone();
        self.meet(&mut theirs);
        self.zero = self.zero.saturating_add(theirs.zero);
        self.positive.add(&theirs.positive);
        self.negative.add(&theirs.negative);
        self.trim();
    }

    /// What came since `old`, at the smaller of both scales; `None` when a bucket fell.
    pub fn since(&self, old: &Exponential) -> Option<Exponential> {
        let (mut new, mut old) = (self.clone(), old.clone());
        new.meet(&mut old);
        Some(Exponential {
            zero: new.zero.checked_sub(old.zero)?,
            positive: new.positive.minus(&old.positive)?,
            negative: new.negative.minus(&old.negative)?,
            ..new
        })
    }

    fn trim(&mut self) {
        for side in [&mut self.positive, &mut self.negative] {
            *side = Buckets::new(side.offset, core::mem::take(&mut side.counts));
        }
    }

    /// Bring both to one scale and one zero threshold, with room for the buckets of both.
    fn meet(&mut self, other: &mut Exponential) {
        self.trim();
        other.trim();
        loop {
            let scale = self.scale.min(other.scale);
            self.downscale(scale);
            other.downscale(scale);
            let threshold = if other.threshold > self.threshold { other.threshold } else { self.threshold };
            self.widen(threshold);
            other.widen(threshold);
            if self.threshold != other.threshold {
                continue;
            }
            let widest =
                self.positive.union_len(&other.positive).max(self.negative.union_len(&other.negative));
            if widest <= EXPONENTIAL_BUCKETS_MAX {
                return;
            }
            self.downscale(scale.saturating_sub(1));
        }
    }

    fn downscale(&mut self, to: i32) {
        let Ok(by) = u32::try_from(self.scale.saturating_sub(to)) else { return };
        self.positive.downscale(by);
        self.negative.downscale(by);
        self.scale = to.min(self.scale);
    }

    /// The zero bucket reaches up to `threshold` at least.
    fn widen(&mut self, threshold: f64) {
        if threshold <= self.threshold && (self.threshold == 0.0 || self.is_clear()) {
            return;
        }
        self.threshold = if threshold > self.threshold { threshold } else { self.threshold };
        let end = first_clear(self.threshold, self.scale);
        let (a, reaches_a) = self.positive.swallow(end);
        let (b, reaches_b) = self.negative.swallow(end);
        self.zero = self.zero.saturating_add(a).saturating_add(b);
        if reaches_a || reaches_b {
            // The last bucket of a coarse scale ends where doubles do.
            let upper = libm::exp2(end as f64 / power_of_two(self.scale)).min(f64::MAX);
            self.threshold = if upper > self.threshold { upper } else { self.threshold };
        }
    }

    /// No bucket begins below the zero threshold.
    fn is_clear(&self) -> bool {
        let end = first_clear(self.threshold, self.scale);
        let above = |side: &Buckets| side.counts.is_empty() || i64::from(side.offset) >= end;
        above(&self.positive) && above(&self.negative)
    }
}

/// Index of the first bucket that does not begin below `threshold`: the least i with i ≥ log₂(threshold) · 2^scale. Within the error of
/// the logarithm a threshold is the end of a bucket: it became that above, and must not swallow one more each time it is looked at.
fn first_clear(threshold: f64, scale: i32) -> i64 {
    let place = libm::log2(threshold) * power_of_two(scale);
    let nearest = libm::round(place);
    let is_end = (place - nearest).abs() <= 1e-12 * (1.0 + place.abs());
    // Saturates, and a log₂(0) is below every bucket.
    (if is_end { nearest } else { libm::ceil(place) }) as i64
}

/// 2^`exponent`, exactly, for exponents of scales.
fn power_of_two(exponent: i32) -> f64 {
    let biased = u64::try_from(exponent.saturating_add(1_023).clamp(1, 2_046)).unwrap_or(1_023);
    f64::from_bits(biased.wrapping_shl(52))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buckets(offset: i32, counts: &[u64]) -> Buckets {
        Buckets::new(offset, counts.to_vec())
    }

    fn exponential(scale: i32, positive: Buckets) -> Exponential {
        Exponential { scale, positive, ..Exponential::default() }
    }

    #[test]
    fn two_buckets_become_one() {
        // Indices -3..=2 at one scale less: -2, -1, -1, 0, 0, 1.
        let mut b = buckets(-3, &[1, 2, 3, 4, 5, 6]);
        b.downscale(1);
        assert_eq!(b, Buckets { offset: -2, counts: vec![1, 5, 9, 6] });
        b.downscale(5);
        assert_eq!(b, Buckets { offset: -1, counts: vec![6, 15] });
    }

    #[test]
    fn the_smaller_scale_wins() {
        let mut a = exponential(1, buckets(0, &[1, 1, 1, 1]));
        a.merge(&exponential(0, buckets(1, &[10])));
        assert_eq!((a.scale, a.positive), (0, buckets(0, &[2, 12])));
    }

    #[test]
    fn a_wider_zero_takes_what_it_covers() {
        // Scale 0: buckets (1, 2], (2, 4], (4, 8].
        let mut a = exponential(0, buckets(0, &[1, 2, 4]));
        a.merge(&Exponential { threshold: 2.0, zero: 10, ..Exponential::default() });
        assert_eq!((a.zero, a.threshold, &a.positive), (11, 2.0, &buckets(1, &[2, 4])));
        // One that is covered in part goes too, and the threshold becomes its upper end.
        a.merge(&Exponential { threshold: 3.0, ..Exponential::default() });
        assert_eq!((a.zero, a.threshold, &a.positive), (13, 4.0, &buckets(2, &[4])));
        assert_eq!(a.count(), 17);
    }

    #[test]
    fn what_came_since() {
        let old = exponential(3, buckets(0, &[1, 1, 1, 1]));
        let new = exponential(2, buckets(0, &[3, 2, 5]));
        let since = new.since(&old).unwrap();
        assert_eq!((since.scale, since.positive), (2, buckets(0, &[1, 0, 5])));
        assert_eq!(exponential(2, buckets(0, &[1, 9])).since(&old), None, "a bucket fell");
        // A stream never gains resolution without a restart; if it says so, the coarser one compares.
        assert_eq!(old.since(&exponential(2, buckets(0, &[2]))).unwrap().positive, buckets(1, &[2]));
    }

    #[test]
    fn far_apart_buckets_cost_resolution_not_memory() {
        let mut a = exponential(20, buckets(-1_000_000_000, &[1]));
        a.merge(&exponential(20, buckets(1_000_000_000, &[1])));
        assert!(a.positive.counts.len() <= EXPONENTIAL_BUCKETS_MAX);
        assert_eq!(a.count(), 2);
    }

    #[test]
    fn indices_of_doubles() {
        assert!(fits(0, -1_075, 1) && fits(0, 1_023, 1) && fits(20, 1_000_000_000, 1) && fits(-10, -2, 3));
        assert!(!fits(0, -1_080, 1) && !fits(0, 1_026, 1) && !fits(-10, 4, 1) && !fits(3, i32::MAX, 2));
        assert!(fits(3, i32::MAX, 0));
    }

    fn any_exponential() -> impl Strategy<Value = Exponential> {
        let side =
            || (-40i32..40, prop::collection::vec(0u64..20, 0..30)).prop_map(|(o, c)| Buckets::new(o, c));
        (-3i32..6, prop_oneof![Just(0.0), 0.0f64..4.0], 0u64..9, side(), side()).prop_map(
            |(scale, threshold, zero, positive, negative)| Exponential {
                scale,
                threshold,
                zero,
                positive,
                negative,
            },
        )
    }

    proptest! {
        /// No observation is lost or made; the order of two does not matter.
        #[test]
        fn merging_conserves(a in any_exponential(), b in any_exponential()) {
            let (mut ab, mut ba) = (a.clone(), b.clone());
            ab.merge(&b);
            ba.merge(&a);
            prop_assert_eq!(ab.count(), a.count() + b.count());
            prop_assert_eq!(&ab, &ba);
            let since = ab.since(&a).expect("what was added is the difference");
            prop_assert_eq!(since.count(), b.count());
        }

        /// Every quantile boundary moves by at most the width of a bucket of the coarser scale: the count below any bucket end of the
        /// result is the count below it in both inputs.
        #[test]
        fn merging_keeps_what_lies_below_each_bound(a in any_exponential(), b in any_exponential()) {
            let mut all = a.clone();
            all.merge(&b);
            let below = |e: &Exponential, index: i32, scale: i32| -> u64 {
                let by = u32::try_from(e.scale - scale).unwrap();
                e.positive.counts.iter().zip(e.positive.offset..).filter(|(_, i)| (i >> by) < index).map(|(n, _)| n).sum::<u64>()
            };
            let zeros = all.positive.offset;
            let (lost_a, lost_b) = (below(&a, zeros, all.scale), below(&b, zeros, all.scale));
            for (k, _) in all.positive.counts.iter().enumerate() {
                let index = zeros + k as i32 + 1;
                let there = below(&a, index, all.scale) + below(&b, index, all.scale) - lost_a - lost_b;
                prop_assert_eq!(below(&all, index, all.scale), there);
            }
        }
    }
}
