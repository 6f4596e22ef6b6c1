//! Histograms, exponential histograms and summaries: how often, how much in sum, and in which bucket.
//!
//! In: decoded points. Out: [`Distribution`]s as they were sent, and [`Observations`], their exact sums and differences. Exponential ones meet at the smaller scale
//! and the wider zero (OTLP data model, "Exponential Histogram: Merging"): bucket i of a scale is bucket ⌊i/2⌋ of the next smaller one, and what lies in the zero's
//! width counts as zero. Explicit ones meet only under the same bounds. Numbers are `i128`, sums double-double: nothing overflows or rounds here.

use super::exact::{DoubleSum, Total};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets as Side;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, SummaryDataPoint,
};
use std::collections::BTreeMap;

/// One point, as it was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Observations.
    pub count: u64,
    /// Their sum, where it is given.
    pub sum: Option<f64>,
    /// Where they fell.
    pub buckets: Buckets,
    /// Quantiles, of a summary.
    pub quantiles: usize,
    /// Whether the smallest or the largest observation is given.
    pub has_extremes: bool,
}

/// Where observations fell.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Buckets {
    /// Nobody says.
    #[default]
    None,
    /// Under these bounds.
    Explicit(Vec<f64>, Vec<u64>),
    /// In exponential buckets.
    Exponential(Exponential),
}

/// Exponential buckets; also sums and differences of such.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exponential {
    /// Buckets between two powers of two: 2 to the power of this.
    pub scale: i32,
    /// The width of zero.
    pub threshold: f64,
    /// Observations in it.
    pub zero: i128,
    /// By index, above zero; empty ones are left out.
    pub positive: BTreeMap<i64, i128>,
    /// By index, below zero.
    pub negative: BTreeMap<i64, i128>,
}

impl From<&HistogramDataPoint> for Distribution {
    fn from(point: &HistogramDataPoint) -> Self {
        let buckets = match (point.explicit_bounds.as_slice(), point.bucket_counts.as_slice()) {
            ([], []) => Buckets::None,
            (bounds, counts) => Buckets::Explicit(bounds.to_vec(), counts.to_vec()),
        };
        let has_extremes = point.min.is_some() || point.max.is_some();
        Self { count: point.count, sum: point.sum, buckets, has_extremes, quantiles: 0 }
    }
}

impl From<&ExponentialHistogramDataPoint> for Distribution {
    fn from(point: &ExponentialHistogramDataPoint) -> Self {
        let side = |side: &Option<Side>| -> BTreeMap<i64, i128> {
            let Some(side) = side else { return BTreeMap::new() };
            let counts = (i64::from(side.offset)..).zip(side.bucket_counts.iter().map(|n| i128::from(*n)));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        let buckets = Buckets::Exponential(Exponential {
            scale: point.scale,
            threshold: point.zero_threshold,
            zero: point.zero_count.into(),
            positive: side(&point.positive),
            negative: side(&point.negative),
        });
        let has_extremes = point.min.is_some() || point.max.is_some();
        Self { count: point.count, sum: point.sum, buckets, has_extremes, quantiles: 0 }
    }
}

impl From<&SummaryDataPoint> for Distribution {
    fn from(point: &SummaryDataPoint) -> Self {
        let quantiles = point.quantile_values.len();
        Self { count: point.count, sum: Some(point.sum), quantiles, ..Self::default() }
    }
}

impl Distribution {
    /// Whether its observations are those of its buckets, and its lists fit.
    pub fn adds_up(&self) -> bool {
        let count = i128::from(self.count);
        match &self.buckets {
            Buckets::None => true,
            Buckets::Explicit(bounds, counts) => {
                counts.len() == bounds.len() + 1
                    && bounds.is_sorted_by(|a, b| a < b)
                    && counts.iter().map(|n| i128::from(*n)).sum::<i128>() == count
            }
            Buckets::Exponential(buckets) => buckets.count() == count,
        }
    }

    /// Whether this one, later and of the same stream, counts less anywhere.
    pub fn falls_from(&self, previous: &Distribution) -> bool {
        let fewer = match (&previous.buckets, &self.buckets) {
            (Buckets::Explicit(_, before), Buckets::Explicit(_, now)) => {
                before.iter().zip(now).any(|(before, now)| now < before)
            }
            (Buckets::Exponential(before), Buckets::Exponential(now)) => {
                let mut grown = now.clone();
                grown.add(before, -1);
                let sides = grown.positive.values().chain(grown.negative.values());
                grown.zero < 0 || sides.into_iter().any(|count| *count < 0)
            }
            _ => false,
        };
        self.count < previous.count || fewer
    }

    /// Its scale, if it is exponential.
    pub fn scale(&self) -> Option<i32> {
        if let Buckets::Exponential(buckets) = &self.buckets { Some(buckets.scale) } else { None }
    }
}

impl Exponential {
    /// All observations.
    pub fn count(&self) -> i128 {
        self.zero + self.positive.values().sum::<i128>() + self.negative.values().sum::<i128>()
    }

    /// Adds another, `sign` times. What has no observations yet takes scale and zero of the other.
    pub fn add(&mut self, other: &Exponential, sign: i128) {
        if other == &Exponential::default() {
            return;
        }
        let mut other = other.clone();
        if self == &Exponential::default() {
            self.scale = other.scale;
        }
        let scale = self.scale.min(other.scale);
        let threshold = self.threshold.max(other.threshold);
        for one in [&mut *self, &mut other] {
            one.coarsen(scale);
            one.widen(threshold);
        }
        self.zero += sign * other.zero;
        for (into, from) in [(&mut self.positive, other.positive), (&mut self.negative, other.negative)] {
            for (index, count) in from {
                *into.entry(index).or_default() += sign * count;
            }
            into.retain(|_, count| *count != 0);
        }
    }

    /// Brings it to a scale that is not greater.
    pub fn coarsen(&mut self, scale: i32) {
        let halvings = u32::try_from(self.scale - scale).unwrap_or(0).min(63);
        for side in [&mut self.positive, &mut self.negative] {
            let mut merged = BTreeMap::new();
            for (index, count) in std::mem::take(side) {
                *merged.entry(index >> halvings).or_default() += count;
            }
            *side = merged;
        }
        self.scale = self.scale.min(scale);
    }

    /// Widens its zero: a bucket that begins below the width counts as zero.
    pub fn widen(&mut self, threshold: f64) {
        if threshold <= self.threshold {
            return;
        }
        let width = f64::from(-self.scale).exp2();
        for side in [&mut self.positive, &mut self.negative] {
            let kept = side.split_off(&(((threshold.log2() / width).ceil()) as i64));
            self.zero += std::mem::replace(side, kept).values().sum::<i128>();
        }
        self.threshold = threshold;
    }
}

/// Sums and differences of distributions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    /// How many.
    pub count: i128,
    /// Their sum.
    pub sum: DoubleSum,
    /// Some did not say their sum.
    pub lacks_sum: bool,
    /// By bounds (as text), of each bucket.
    pub explicit: BTreeMap<String, Vec<i128>>,
    /// In exponential buckets.
    pub exponential: Exponential,
}

impl Observations {
    /// Adds a point, `sign` times.
    pub fn add(&mut self, point: &Distribution, sign: i128) {
        self.count += sign * i128::from(point.count);
        self.lacks_sum |= point.sum.is_none();
        self.sum.add(point.sum.unwrap_or_default() * sign as f64);
        match &point.buckets {
            Buckets::None => {}
            Buckets::Explicit(bounds, counts) => {
                let into = self.explicit.entry(format!("{bounds:?}")).or_default();
                into.resize(into.len().max(counts.len()), 0);
                for (into, count) in into.iter_mut().zip(counts) {
                    *into += sign * i128::from(*count);
                }
            }
            Buckets::Exponential(buckets) => self.exponential.add(buckets, sign),
        }
    }

    /// Number and sum as a total.
    pub fn total(&self) -> Total {
        Total { ints: self.count, doubles: self.sum }
    }

    /// Adds others.
    pub fn join(&mut self, other: &Observations) {
        self.count += other.count;
        self.lacks_sum |= other.lacks_sum;
        self.sum.join(other.sum);
        for (bounds, counts) in &other.explicit {
            let into = self.explicit.entry(bounds.clone()).or_default();
            into.resize(into.len().max(counts.len()), 0);
            into.iter_mut().zip(counts).for_each(|(into, count)| *into += count);
        }
        self.exponential.add(&other.exponential, 1);
    }

    /// What of the other these are not, in words; nothing where all agrees: observations and buckets exactly, sums to the tolerance of doubles.
    pub fn difference(&self, other: &Observations, tolerance: f64) -> Option<String> {
        if self.count != other.count {
            return Some(format!("{} observations in, {} out", self.count, other.count));
        }
        let (before, after) = (self.sum.value(), other.sum.value());
        if self.lacks_sum != other.lacks_sum {
            return Some("the sum is known on one side only".to_owned());
        }
        if (before - after).abs() > tolerance * before.abs().max(after.abs()) {
            return Some(format!("sum {before} in, {after} out"));
        }
        if self.explicit != other.explicit {
            return Some(format!("buckets {:?} in, {:?} out", self.explicit, other.explicit));
        }
        let [mut before, mut after] = [self.exponential.clone(), other.exponential.clone()];
        let (scale, threshold) = (before.scale.min(after.scale), before.threshold.max(after.threshold));
        for one in [&mut before, &mut after] {
            one.coarsen(scale);
            one.widen(threshold);
        }
        (before != after).then(|| format!("exponential buckets {before:?} in, {after:?} out"))
    }
}
