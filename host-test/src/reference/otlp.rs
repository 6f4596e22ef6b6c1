//! Points of OTLP as quantities, and quantities as points.
//!
//! In: data points of every kind that folds; what series emit. Out: what a fold asks of a point, and metrics. Refuses nothing.

use super::quantity::{Amount, Bucket, Measured, Quantity};
use super::{Fate, NO_RECORDED_VALUE};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    NumberDataPoint, Sum,
};
use std::collections::BTreeMap;

/// What a fold asks of a point.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its attributes.
    pub attributes: Vec<KeyValue>,
    /// Start time, Unix nanoseconds.
    pub start_ns: u64,
    /// Time, Unix nanoseconds.
    pub time_ns: u64,
    /// What it counts; none is a stale marker.
    pub quantity: Option<Quantity>,
    /// Of a histogram.
    pub bounds: Vec<f64>,
}

/// What a metric is to a fold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Counts up.
    Sum,
    /// Explicit, with these bounds as bits.
    Histogram(Vec<u64>),
    /// Exponential.
    Exponential,
    /// Last values.
    Gauge,
}

/// A data point of any kind.
trait Point {
    fn said(&self) -> Said;
    /// Makes it the stale marker of its series.
    fn end(&mut self);
}

impl Point for NumberDataPoint {
    fn said(&self) -> Said {
        let value = self.value.filter(|_| self.flags & NO_RECORDED_VALUE == 0);
        Said {
            attributes: self.attributes.clone(),
            start_ns: self.start_time_unix_nano,
            time_ns: self.time_unix_nano,
            quantity: value.map(Quantity::Number),
            bounds: Vec::new(),
        }
    }

    fn end(&mut self) {
        (self.flags, self.value) = (self.flags | NO_RECORDED_VALUE, None);
    }
}

impl Point for HistogramDataPoint {
    fn said(&self) -> Said {
        let counts = (0..).zip(&self.bucket_counts).filter(|(_, count)| **count > 0);
        let counts = counts.map(|(index, count)| (Bucket::Above(index), i128::from(*count))).collect();
        let measured = Measured { counts, sum: self.sum.unwrap_or_default(), ..Measured::default() };
        let has_value = self.flags & NO_RECORDED_VALUE == 0;
        Said {
            attributes: self.attributes.clone(),
            start_ns: self.start_time_unix_nano,
            time_ns: self.time_unix_nano,
            quantity: has_value.then_some(Quantity::Measured(measured)),
            bounds: self.explicit_bounds.clone(),
        }
    }

    fn end(&mut self) {
        self.flags |= NO_RECORDED_VALUE;
        (self.count, self.sum) = (0, None);
        self.bucket_counts.fill(0);
    }
}

impl Point for ExponentialHistogramDataPoint {
    fn said(&self) -> Said {
        let mut counts = BTreeMap::new();
        let mut side = |side: &Option<Buckets>, bucket: fn(i64) -> Bucket| {
            let Some(side) = side else { return };
            for (index, count) in (i64::from(side.offset)..).zip(&side.bucket_counts) {
                counts.insert(bucket(index), i128::from(*count));
            }
        };
        side(&self.positive, Bucket::Above);
        side(&self.negative, Bucket::Below);
        counts.insert(Bucket::Zero, self.zero_count.into());
        counts.retain(|_, count| *count > 0);
        let sum = self.sum.unwrap_or_default();
        let measured = Measured { scale: Some(self.scale), threshold: self.zero_threshold, counts, sum };
        let has_value = self.flags & NO_RECORDED_VALUE == 0;
        Said {
            attributes: self.attributes.clone(),
            start_ns: self.start_time_unix_nano,
            time_ns: self.time_unix_nano,
            quantity: has_value.then_some(Quantity::Measured(measured)),
            bounds: Vec::new(),
        }
    }

    fn end(&mut self) {
        self.flags |= NO_RECORDED_VALUE;
        (self.count, self.zero_count, self.sum) = (0, 0, None);
        (self.positive, self.negative) = (None, None);
    }
}

/// Asks what becomes of each point of a metric, and does it. Kinds that do not fold are not asked about. The temporality of last values is none.
pub fn for_each(data: &mut Data, mut fate: impl FnMut(Kind, i32, Said) -> Fate) {
    fn all<P: Point>(points: &mut Vec<P>, mut fate: impl FnMut(Said) -> Fate) {
        points.retain_mut(|point| match fate(point.said()) {
            Fate::Passes => true,
            Fate::Leaves => false,
            Fate::Ends => {
                point.end();
                true
            }
        });
    }
    match data {
        Data::Sum(sum) if sum.is_monotonic => {
            let temporality = sum.aggregation_temporality;
            all(&mut sum.data_points, |said| fate(Kind::Sum, temporality, said));
        }
        Data::Gauge(gauge) => all(&mut gauge.data_points, |said| fate(Kind::Gauge, 0, said)),
        Data::Histogram(histogram) => {
            let temporality = histogram.aggregation_temporality;
            all(&mut histogram.data_points, |said| {
                let bounds = said.bounds.iter().map(|bound| bound.to_bits()).collect();
                fate(Kind::Histogram(bounds), temporality, said)
            });
        }
        Data::ExponentialHistogram(histogram) => {
            let temporality = histogram.aggregation_temporality;
            all(&mut histogram.data_points, |said| fate(Kind::Exponential, temporality, said));
        }
        _ => {}
    }
}

/// Whether a metric has no points left.
pub fn is_empty(data: &Data) -> bool {
    match data {
        Data::Sum(sum) => sum.data_points.is_empty(),
        Data::Gauge(gauge) => gauge.data_points.is_empty(),
        Data::Histogram(histogram) => histogram.data_points.is_empty(),
        Data::ExponentialHistogram(histogram) => histogram.data_points.is_empty(),
        Data::Summary(summary) => summary.data_points.is_empty(),
    }
}

/// A point that a series emits; without an amount it is a stale marker.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// Start time, Unix nanoseconds.
    pub start_ns: u64,
    /// Time, Unix nanoseconds.
    pub time_ns: u64,
    /// What is said.
    pub amount: Option<Amount>,
    /// Doubles were among the numbers.
    pub is_double: bool,
}

/// The data of one series.
pub fn data(kind: &Kind, temporality: i32, attributes: &[KeyValue], points: &[Emitted]) -> Data {
    let of = |point: &Emitted| (point.amount.clone().unwrap_or_default(), u32::from(point.amount.is_none()));
    let number = |point: &Emitted| {
        let (amount, flags) = of(point);
        let value = match i64::try_from(amount.total.ints) {
            Ok(n) if !point.is_double => Value::AsInt(n),
            _ => Value::AsDouble(amount.total.approximate()),
        };
        NumberDataPoint {
            attributes: attributes.to_vec(),
            start_time_unix_nano: point.start_ns,
            time_unix_nano: point.time_ns,
            value: Some(value).filter(|_| flags == 0),
            flags,
            ..NumberDataPoint::default()
        }
    };
    let numbers = || points.iter().map(number).collect();
    match kind {
        Kind::Sum => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Histogram(bounds) => {
            let point = |point: &Emitted| {
                let (amount, flags) = of(point);
                let counts = amount.measured.unwrap_or_default().counts;
                let count = |index| counts.get(&Bucket::Above(index)).copied().unwrap_or_default();
                HistogramDataPoint {
                    attributes: attributes.to_vec(),
                    start_time_unix_nano: point.start_ns,
                    time_unix_nano: point.time_ns,
                    count: whole(counts.values().sum()),
                    sum: Some(amount.total.doubles.value()).filter(|_| flags == 0),
                    bucket_counts: (0..=bounds.len() as i64).map(|index| whole(count(index))).collect(),
                    explicit_bounds: bounds.iter().map(|bits| f64::from_bits(*bits)).collect(),
                    flags,
                    ..HistogramDataPoint::default()
                }
            };
            Data::Histogram(Histogram {
                data_points: points.iter().map(point).collect(),
                aggregation_temporality: temporality,
            })
        }
        Kind::Exponential => {
            let point = |point: &Emitted| {
                let (amount, flags) = of(point);
                let Measured { scale, threshold, counts, .. } = amount.measured.unwrap_or_default();
                ExponentialHistogramDataPoint {
                    attributes: attributes.to_vec(),
                    start_time_unix_nano: point.start_ns,
                    time_unix_nano: point.time_ns,
                    count: whole(counts.values().sum()),
                    sum: Some(amount.total.doubles.value()).filter(|_| flags == 0),
                    scale: scale.unwrap_or_default(),
                    zero_count: whole(counts.get(&Bucket::Zero).copied().unwrap_or_default()),
                    zero_threshold: threshold,
                    positive: side(&counts, |bucket| {
                        if let Bucket::Above(index) = bucket { Some(index) } else { None }
                    }),
                    negative: side(&counts, |bucket| {
                        if let Bucket::Below(index) = bucket { Some(index) } else { None }
                    }),
                    flags,
                    ..ExponentialHistogramDataPoint::default()
                }
            };
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: points.iter().map(point).collect(),
                aggregation_temporality: temporality,
            })
        }
    }
}

fn side(counts: &BTreeMap<Bucket, i128>, pick: fn(Bucket) -> Option<i64>) -> Option<Buckets> {
    let of: BTreeMap<i64, i128> =
        counts.iter().filter_map(|(bucket, count)| Some((pick(*bucket)?, *count))).collect();
    let (first, last) = (*of.first_key_value()?.0, *of.last_key_value()?.0);
    let bucket_counts =
        (first..=last).map(|index| whole(of.get(&index).copied().unwrap_or_default())).collect();
    Some(Buckets { offset: i32::try_from(first).ok()?, bucket_counts })
}

fn whole(count: i128) -> u64 {
    u64::try_from(count).unwrap_or_default()
}
