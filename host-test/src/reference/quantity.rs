//! What a point counts: a number, or how many observations fell into which bucket.
//!
//! In: decoded points. Out: [`Quantity`]s, their differences and shares, and [`Amount`]s, their sums. A histogram is nothing but a counter for each bucket and one for the sum of the observations: what holds for
//! one counter holds for each. Exponential ones meet at the smaller scale and the wider zero. What it leaves out: histograms that do not say their sum, the least and the greatest.

use crate::sink::exact::Total;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use std::collections::BTreeMap;

/// A folded exponential histogram has at most so many buckets on each side of zero (docs/fold.md).
const BUCKETS_MAX: i64 = 320;

/// What a point counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantity {
    /// A number.
    Number(Value),
    /// Observations.
    Measured(Measured),
}

/// Observations by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Of exponential buckets.
    pub scale: Option<i32>,
    /// The width of their zero.
    pub threshold: f64,
    /// Buckets without observations are left out.
    pub counts: BTreeMap<Bucket, i128>,
    /// Of what was observed.
    pub sum: f64,
}

/// A bucket: of an explicit histogram `Above` and its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// Below zero.
    Below(i64),
    /// Zero.
    Zero,
    /// Above zero.
    Above(i64),
}

impl Measured {
    /// The observations.
    pub fn count(&self) -> i128 {
        self.counts.values().sum()
    }

    /// Brings both to the smaller scale and the wider zero.
    fn meet(&mut self, other: &mut Measured) {
        let (Some(a), Some(b)) = (self.scale, other.scale) else { return };
        self.coarsen(a.min(b));
        other.coarsen(a.min(b));
        self.widen(other.threshold);
        other.widen(self.threshold);
        self.widen(other.threshold);
    }

    fn moved(&mut self, to: impl Fn(Bucket) -> Bucket) {
        for (bucket, count) in std::mem::take(&mut self.counts) {
            *self.counts.entry(to(bucket)).or_default() += count;
        }
        self.counts.retain(|_, count| *count != 0);
    }

    /// A bucket of a scale is half of one of the next smaller scale.
    fn coarsen(&mut self, scale: i32) {
        let Some(own) = self.scale else { return };
        let halvings = (own - scale).clamp(0, 63);
        self.scale = Some(own.min(scale));
        self.moved(|bucket| match bucket {
            Bucket::Below(index) => Bucket::Below(index >> halvings),
            Bucket::Zero => Bucket::Zero,
            Bucket::Above(index) => Bucket::Above(index >> halvings),
        });
    }

    /// A bucket that begins within the width of zero counts as zero.
    fn widen(&mut self, threshold: f64) {
        let Some(scale) = self.scale.filter(|_| threshold > self.threshold) else { return };
        let begins = |index: i64| (index as f64 * f64::from(-scale).exp2()).exp2();
        // Where the width ends within a bucket that holds something, it grows to the bucket's end.
        let ends = self.counts.keys().filter_map(|bucket| match bucket {
            Bucket::Below(index) | Bucket::Above(index) if begins(*index) < threshold => {
                Some(begins(index + 1))
            }
            _ => None,
        });
        self.threshold = ends.fold(threshold, f64::max);
        self.moved(|bucket| match bucket {
            Bucket::Below(index) | Bucket::Above(index) if begins(index) < threshold => Bucket::Zero,
            other => other,
        });
    }

    /// Goes down a scale until no side has too many buckets.
    fn bound(&mut self) {
        let span = |indexes: Vec<i64>| {
            let ends = indexes.iter().min().zip(indexes.iter().max());
            ends.map_or(0, |(first, last)| last - first + 1)
        };
        while let Some(scale) = self.scale {
            let of = |pick: fn(&Bucket) -> Option<i64>| span(self.counts.keys().filter_map(pick).collect());
            let below = of(|bucket| if let Bucket::Below(index) = bucket { Some(*index) } else { None });
            let above = of(|bucket| if let Bucket::Above(index) = bucket { Some(*index) } else { None });
            if below.max(above) <= BUCKETS_MAX {
                return;
            }
            self.coarsen(scale - 1);
        }
    }

    fn add(&mut self, mut other: Measured, sign: i128) {
        self.meet(&mut other);
        for (bucket, count) in other.counts {
            *self.counts.entry(bucket).or_default() += sign * count;
        }
        self.counts.retain(|_, count| *count != 0);
        self.sum += other.sum * sign as f64;
    }
}

/// Whether a counter fell: of a histogram any bucket, looked at in the smaller scale.
pub fn is_less(quantity: &Quantity, last: &Quantity) -> bool {
    match (quantity, last) {
        (Quantity::Number(Value::AsInt(a)), Quantity::Number(Value::AsInt(b))) => a < b,
        (Quantity::Number(a), Quantity::Number(b)) => as_double(*a) < as_double(*b),
        (quantity, last) => match difference(quantity, last) {
            Quantity::Measured(grown) => grown.counts.values().any(|count| *count < 0),
            Quantity::Number(_) => false,
        },
    }
}

/// What a counter added.
pub fn difference(quantity: &Quantity, last: &Quantity) -> Quantity {
    match (quantity, last) {
        (Quantity::Number(Value::AsInt(a)), Quantity::Number(Value::AsInt(b))) => {
            Quantity::Number(Value::AsInt(a.wrapping_sub(*b)))
        }
        (Quantity::Number(a), Quantity::Number(b)) => {
            Quantity::Number(Value::AsDouble(as_double(*a) - as_double(*b)))
        }
        (Quantity::Measured(a), Quantity::Measured(b)) => {
            let mut grown = a.clone();
            grown.add(b.clone(), -1);
            Quantity::Measured(grown)
        }
        (other, _) => other.clone(),
    }
}

/// How much of a quantity has come by a time within its span: whole numbers are rounded down.
pub fn share(quantity: &Quantity, from_ns: u64, to_ns: u64, by_ns: u64) -> Quantity {
    let (passed_ns, span_ns) = (by_ns - from_ns, to_ns - from_ns);
    let whole = |n: i128| n * i128::from(passed_ns) / i128::from(span_ns);
    let part = |x: f64| x * (passed_ns as f64 / span_ns as f64);
    match quantity {
        Quantity::Number(Value::AsInt(n)) => {
            Quantity::Number(Value::AsInt(i64::try_from(whole((*n).into())).unwrap_or(*n)))
        }
        Quantity::Number(Value::AsDouble(x)) => Quantity::Number(Value::AsDouble(part(*x))),
        Quantity::Measured(original) => {
            let mut measured = original.clone();
            measured.counts.values_mut().for_each(|count| *count = whole(*count));
            measured.counts.retain(|_, count| *count != 0);
            // The sum follows the count, so that each part keeps the mean.
            let count = original.count();
            measured.sum =
                if count == 0 { 0.0 } else { original.sum * (measured.count() as f64 / count as f64) };
            Quantity::Measured(measured)
        }
    }
}

/// A number as a double.
pub fn as_double(value: Value) -> f64 {
    match value {
        Value::AsInt(n) => n as f64,
        Value::AsDouble(x) => x,
    }
}

/// A sum of quantities; of histograms the total is that of their observations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Amount {
    /// Integers and doubles; number and sum of observations.
    pub total: Total,
    /// Their buckets.
    pub measured: Option<Measured>,
}

impl Amount {
    /// Adds a quantity.
    pub fn add(&mut self, quantity: &Quantity) {
        match quantity {
            Quantity::Number(Value::AsInt(n)) => self.total.add_int((*n).into()),
            Quantity::Number(Value::AsDouble(x)) => self.total.add_double(*x),
            Quantity::Measured(measured) => {
                self.total.add_int(measured.count());
                self.total.add_double(measured.sum);
                self.merge(measured);
            }
        }
    }

    /// Adds another sum.
    pub fn join(&mut self, other: &Amount) {
        self.total.add(other.total);
        if let Some(measured) = &other.measured {
            self.merge(measured);
        }
    }

    fn merge(&mut self, measured: &Measured) {
        match &mut self.measured {
            None => self.measured = Some(measured.clone()),
            Some(own) => own.add(measured.clone(), 1),
        }
        self.measured.iter_mut().for_each(Measured::bound);
    }

    /// Whether nothing was added but nothings.
    pub fn is_nothing(&self) -> bool {
        self.total == Total::default()
    }
}
