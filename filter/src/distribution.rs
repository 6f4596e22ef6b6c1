//! Distributions: what one point of a histogram or summary says, and sums of it (DESIGN §3.2).
//!
//! One atom: count, sum and all buckets are read, compared, split and written together, so that no reader ever sees half of a point
//! (trap 9). Counters are integers and exact; the sum is compensated. Whoever adds two makes sure that their bounds are the same:
//! bounds are part of a stream's identity and are not looked at here. Exponential buckets find a common scale by themselves.
//!
//! Cost: linear in the buckets. Counts saturate at `u64::MAX`; points above [`crate::limits::COUNT_MAX`] are refused before.

mod codec;
mod exponential;

pub use codec::{AtomError, put_header};
pub use exponential::{Buckets, Exponential, fits};

use crate::amount::{Amount, Number};
use crate::limits::DOUBLE_TOTAL_MAX;
use crate::window::Running;

/// Count, sum and buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Observations: the sum of the buckets, where there are buckets.
    pub count: u64,
    /// Sum of the observations …
    pub sum: Amount,
    /// … which a part of them came without.
    pub sumless: bool,
    /// Least and greatest observation, where every part of it says so.
    pub extremes: Option<(f64, f64)>,
    /// Its buckets.
    pub shape: Shape,
}

/// The buckets of a distribution.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// None: a summary, or a histogram that has only count and sum.
    Bare,
    /// One more than there are bounds.
    Explicit(Vec<u64>),
    /// Of exponentially growing width.
    Exponential(Box<Exponential>),
}

impl Distribution {
    /// Nothing observed, in the same shape.
    pub fn none_like(other: &Distribution) -> Distribution {
        let shape = match &other.shape {
            Shape::Bare => Shape::Bare,
            Shape::Explicit(counts) => Shape::Explicit(vec![0; counts.len()]),
            Shape::Exponential(e) => Shape::Exponential(Box::new(e.emptied())),
        };
        Distribution { count: 0, sum: Amount::default(), sumless: false, extremes: None, shape }
    }

    /// Add another one.
    pub fn merge(&mut self, other: &Distribution) {
        if other.count > 0 {
            self.extremes = match (self.count, self.extremes, other.extremes) {
                (0, _, theirs) => theirs,
                (_, Some((a, b)), Some((c, d))) => {
                    Some((if c < a { c } else { a }, if d > b { d } else { b }))
                }
                _ => None,
            };
        }
        self.sumless |= other.sumless && other.count > 0;
        self.sum.merge(&other.sum);
        self.count = self.count.saturating_add(other.count);
        match (&mut self.shape, &other.shape) {
            (Shape::Explicit(ours), Shape::Explicit(theirs)) => {
                for (a, b) in ours.iter_mut().zip(theirs) {
                    *a = a.saturating_add(*b);
                }
            }
            (Shape::Exponential(ours), Shape::Exponential(theirs)) => ours.merge(theirs),
            _ => {}
        }
    }

    /// What came to a cumulative stream since it said `old`; `None` when a counter fell, which is a reset. A sum that fell is none:
    /// observations may be negative.
    pub fn since(&self, old: &Distribution) -> Option<Distribution> {
        let count = self.count.checked_sub(old.count)?;
        let shape = match (&self.shape, &old.shape) {
            (Shape::Explicit(new), Shape::Explicit(old)) if new.len() == old.len() => {
                let counts = new.iter().zip(old).map(|(a, b)| a.checked_sub(*b));
                Shape::Explicit(counts.collect::<Option<_>>()?)
            }
            (Shape::Exponential(new), Shape::Exponential(old)) => {
                Shape::Exponential(Box::new(new.since(old)?))
            }
            (Shape::Bare, Shape::Bare) => Shape::Bare,
            _ => return None,
        };
        let mut sum = Amount::default();
        let grown = self.sum.to_f64() - old.sum.to_f64();
        if grown != 0.0 {
            sum.add(Number::Double(grown));
        }
        Some(Distribution { count, sum, sumless: self.sumless || old.sumless, extremes: None, shape })
    }

    /// Nothing in it?
    pub fn is_zero(&self) -> bool {
        self.count == 0 && self.sum.is_zero()
    }

    /// For the books: observations as an integer, their sum as a double.
    pub fn books(&self) -> Amount {
        let mut amount = self.sum;
        amount.add_count(self.count);
        amount
    }

    /// Beyond what the wire and a double carry exactly: a total must begin anew.
    pub fn has_outgrown(&self) -> bool {
        self.count > i64::MAX as u64 || self.sum.to_f64().abs() >= DOUBLE_TOTAL_MAX
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let buckets = match &self.shape {
            Shape::Bare => 0,
            Shape::Explicit(counts) => counts.capacity(),
            Shape::Exponential(e) => e.heap_words(),
        };
        buckets.saturating_mul(8).saturating_add(size_of::<Distribution>())
    }

    /// Every counter that is split on its own.
    fn counters_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        let (bare, explicit, exponential) = match &mut self.shape {
            Shape::Bare => (Some(&mut self.count), None, None),
            Shape::Explicit(counts) => (None, Some(counts.iter_mut()), None),
            Shape::Exponential(e) => (None, None, Some(e.counters_mut())),
        };
        bare.into_iter().chain(explicit.into_iter().flatten()).chain(exponential.into_iter().flatten())
    }

    fn recount(&mut self) {
        let sum = |counts: &[u64]| counts.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        match &self.shape {
            Shape::Bare => {}
            Shape::Explicit(counts) => self.count = sum(counts),
            Shape::Exponential(e) => self.count = e.count(),
        }
    }
}

/// An increment given out in parts: each counter's running share is rounded down, as [`crate::window`] does it for integers, so that
/// every counter of every prefix falls short by less than one. The sum follows the count, so that each part keeps the mean.
pub struct Share<'a> {
    whole: &'a Distribution,
    span_ns: u64,
    given: Distribution,
}

impl<'a> Share<'a> {
    /// Nothing of `whole` has been given out.
    pub fn new(whole: &'a Distribution, span_ns: u64) -> Share<'a> {
        Share { whole, span_ns: span_ns.max(1), given: Distribution::none_like(whole) }
    }
}

impl Running for Share<'_> {
    type Part = Distribution;

    fn up_to(&mut self, elapsed_ns: u64) -> Distribution {
        let elapsed_ns = u128::from(elapsed_ns.min(self.span_ns));
        let mut part = self.whole.clone();
        for (n, given) in part.counters_mut().zip(self.given.counters_mut()) {
            let product = u128::from(*n).saturating_mul(elapsed_ns);
            let so_far = product.checked_div(u128::from(self.span_ns)).unwrap_or(0);
            let so_far = u64::try_from(so_far).unwrap_or(u64::MAX);
            *n = so_far.saturating_sub(*given);
            *given = so_far;
        }
        part.recount();
        self.given.recount();
        let mut sum = Amount::default();
        if part.count > 0 {
            let whole = self.whole.sum.to_f64();
            let so_far = whole * (self.given.count as f64 / self.whole.count as f64);
            let share = so_far - self.given.sum.to_f64();
            sum.add(Number::Double(share));
            self.given.sum.add(Number::Double(share));
        }
        part.sum = sum;
        part
    }

    fn rest(&mut self) -> Distribution {
        let mut part = self.whole.clone();
        for (n, given) in part.counters_mut().zip(self.given.counters_mut()) {
            *n = n.saturating_sub(*given);
        }
        part.recount();
        part.sum.take(&self.given.sum);
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::UnixNanos;
    use crate::window::Windows;
    use proptest::prelude::*;

    fn explicit(counts: &[u64], sum: f64) -> Distribution {
        let mut amount = Amount::default();
        amount.add(Number::Double(sum));
        Distribution {
            count: counts.iter().sum(),
            sum: amount,
            sumless: false,
            extremes: None,
            shape: Shape::Explicit(counts.to_vec()),
        }
    }

    #[test]
    fn what_came_since() {
        let (old, new) = (explicit(&[1, 2, 3], 10.0), explicit(&[1, 4, 3], 9.0));
        let since = new.since(&old).unwrap();
        assert_eq!(
            (since.count, since.sum.to_f64(), &since.shape),
            (2, -1.0, &Shape::Explicit(vec![0, 2, 0]))
        );
        assert_eq!(old.since(&new), None, "a bucket fell");
        assert_eq!(explicit(&[3, 1, 3], 0.0).since(&old), None, "one fell although the count grew");
        assert_eq!(explicit(&[1, 2], 0.0).since(&old), None, "other bounds");
    }

    #[test]
    fn extremes_are_known_only_if_every_part_knows_them() {
        let with = |n: u64, extremes| Distribution { extremes, ..explicit(&[n, 0], 0.0) };
        let mut all = Distribution::none_like(&with(0, None));
        all.merge(&with(1, Some((1.0, 5.0))));
        all.merge(&with(0, None));
        assert_eq!(all.extremes, Some((1.0, 5.0)), "nothing was observed in that one");
        all.merge(&with(1, Some((0.5, 2.0))));
        assert_eq!(all.extremes, Some((0.5, 5.0)));
        all.merge(&with(1, None));
        assert_eq!(all.extremes, None);
    }

    proptest! {
        /// Parts of a split add up in every counter, their counts are the sums of their buckets, and no part is negative.
        #[test]
        fn a_split_conserves(counts in prop::collection::vec(0u64..1_000, 1..8), sum in -1e6f64..1e6, from in 0u64..1_000, len in 0u64..500, width in 1u64..60) {
            const S: u64 = 1_000_000_000;
            let whole = explicit(&counts, sum);
            let w = Windows { width_ns: width * S, offset_ns: 0, delay_ns: 0 };
            let mut all = Distribution::none_like(&whole);
            w.split(Share::new(&whole, len * S), UnixNanos(from * S), UnixNanos((from + len) * S), UnixNanos(0), |p| {
                let Shape::Explicit(counts) = &p.amount.shape else { panic!() };
                assert_eq!(p.amount.count, counts.iter().sum::<u64>());
                all.merge(&p.amount);
            });
            prop_assert_eq!(all.count, whole.count);
            prop_assert_eq!(&all.shape, &whole.shape);
            prop_assert!((all.sum.to_f64() - sum).abs() <= sum.abs() * 1e-12);
        }
    }
}
