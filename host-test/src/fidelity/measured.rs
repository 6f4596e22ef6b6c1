//! Histograms and gauges of the scene, made of the same formulas as its counters.
//!
//! In: a pod, a counter's combination of labels and what it has counted. Out: points. Of n observations each bucket has its share, rounded down: so every bucket only grows while the counter does, and begins again with it.
//! Shares differ by pod and label, so that quantiles depend on who is there. Exponential scales differ by pod, so that they must meet. No random number.

use super::clock::MINUTE_NS;
use super::instrument::Instrument;
use crate::shop::otlp::{CUMULATIVE, metric};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint,
};
use std::f64::consts::TAU;

/// A metric that is derived from a counter.
#[derive(Debug, PartialEq, Eq)]
pub struct Measure {
    /// In OTLP.
    pub name: &'static str,
    /// In Prometheus, without suffixes of its series.
    pub stored: &'static str,
    /// In OTLP.
    pub unit: &'static str,
    /// The counter: how many were observed.
    pub of: &'static Instrument,
}

/// Explicit histogram.
pub static LATENCY: Measure = Measure {
    name: "fold_latency",
    stored: "fold_latency_seconds",
    unit: "s",
    of: &super::instrument::ORDERS,
};
/// Exponential histogram.
pub static RPC: Measure =
    Measure { name: "fold_rpc", stored: "fold_rpc_seconds", unit: "s", of: &super::instrument::ORDERS };
/// Gauge, declared as a sum.
pub static HEAP: Measure =
    Measure { name: "fold_heap", stored: "fold_heap_bytes", unit: "By", of: &super::instrument::ORDERS };

/// Bounds of the explicit histogram, seconds.
const BOUNDS: [f64; 8] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
/// Buckets of the exponential one at scale 3: three octaves.
const EXPONENTIAL_BUCKETS: usize = 24;
/// Period of the gauge.
const PERIOD_NS: u64 = 7 * MINUTE_NS;

/// Whose point, and when.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// A number that differs by pod and label.
    pub number: usize,
    /// What the counter has counted.
    pub counted: f64,
    /// Since when.
    pub start_ns: u64,
    /// Now.
    pub time_ns: u64,
    /// Attributes of the point.
    pub labels: &'a [KeyValue],
    /// It says that it has ended.
    pub is_stale: bool,
}

impl At<'_> {
    fn flags(self) -> u32 {
        u32::from(self.is_stale)
    }

    /// Observations in each of some buckets: more in the middle, and where that is depends on who.
    fn counts(self, buckets: usize) -> Vec<u64> {
        let middle = (self.number * 7 % buckets) as f64;
        let weight = |bucket: usize| 1.0 / (1.0 + (bucket as f64 - middle).abs());
        let all: f64 = (0..buckets).map(weight).sum();
        let counted = if self.is_stale { 0.0 } else { self.counted };
        (0..buckets).map(|bucket| (counted * weight(bucket) / all).floor() as u64).collect()
    }

    /// Of the explicit histogram.
    pub fn explicit(self) -> HistogramDataPoint {
        let bucket_counts = self.counts(BOUNDS.len() + 1);
        let count = bucket_counts.iter().sum();
        HistogramDataPoint {
            attributes: self.labels.to_vec(),
            start_time_unix_nano: self.start_ns,
            time_unix_nano: self.time_ns,
            count,
            sum: (!self.is_stale).then_some(count as f64 * 0.0625),
            bucket_counts,
            explicit_bounds: BOUNDS.to_vec(),
            flags: self.flags(),
            ..HistogramDataPoint::default()
        }
    }

    /// Of the exponential one: the same three octaves below a second in 8, 4 or 2 buckets each.
    pub fn exponential(self) -> ExponentialHistogramDataPoint {
        let halvings = self.number % 3;
        let fine = self.counts(EXPONENTIAL_BUCKETS);
        let bucket_counts: Vec<u64> = fine.chunks(1 << halvings).map(|chunk| chunk.iter().sum()).collect();
        let zero_count = if self.is_stale { 0 } else { (self.counted / 50.0).floor() as u64 };
        let count = bucket_counts.iter().sum::<u64>() + zero_count;
        ExponentialHistogramDataPoint {
            attributes: self.labels.to_vec(),
            start_time_unix_nano: self.start_ns,
            time_unix_nano: self.time_ns,
            count,
            sum: (!self.is_stale).then_some(count as f64 * 0.25),
            scale: 3 - halvings as i32,
            zero_count,
            positive: Some(Buckets { offset: -((EXPONENTIAL_BUCKETS >> halvings) as i32), bucket_counts }),
            flags: self.flags(),
            ..ExponentialHistogramDataPoint::default()
        }
    }

    /// Of the gauge.
    pub fn gauge(self) -> NumberDataPoint {
        let turn = TAU * (self.time_ns % PERIOD_NS) as f64 / PERIOD_NS as f64;
        let bytes = 1_000_000.0 * (self.number + 2) as f64 + 500_000.0 * turn.sin();
        NumberDataPoint {
            attributes: self.labels.to_vec(),
            time_unix_nano: self.time_ns,
            value: (!self.is_stale).then_some(Value::AsInt(bytes as i64)),
            flags: self.flags(),
            ..NumberDataPoint::default()
        }
    }
}

/// The three metrics of a pod.
pub fn metrics(points: &[At<'_>]) -> Vec<Metric> {
    let explicit = Histogram {
        data_points: points.iter().map(|at| at.explicit()).collect(),
        aggregation_temporality: CUMULATIVE,
    };
    let exponential = ExponentialHistogram {
        data_points: points.iter().map(|at| at.exponential()).collect(),
        aggregation_temporality: CUMULATIVE,
    };
    let gauge = Gauge { data_points: points.iter().map(|at| at.gauge()).collect() };
    vec![
        metric(LATENCY.name, LATENCY.unit, Data::Histogram(explicit)),
        metric(RPC.name, RPC.unit, Data::ExponentialHistogram(exponential)),
        metric(HEAP.name, HEAP.unit, Data::Gauge(gauge)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fidelity::clock::SECOND_NS;

    #[test]
    fn buckets_only_grow_and_add_up() {
        for number in 0..12 {
            let at = |counted: f64| At {
                number,
                counted,
                start_ns: SECOND_NS,
                time_ns: 2 * SECOND_NS,
                labels: &[],
                is_stale: false,
            };
            let mut before = (at(0.0).explicit(), at(0.0).exponential());
            for counted in 1..200 {
                let now = (at(f64::from(counted)).explicit(), at(f64::from(counted)).exponential());
                assert!(now.0.bucket_counts.iter().zip(&before.0.bucket_counts).all(|(a, b)| a >= b));
                assert_eq!(now.0.count, now.0.bucket_counts.iter().sum::<u64>());
                let side = |point: &ExponentialHistogramDataPoint| point.positive.clone().unwrap_or_default();
                let (grown, known) = (side(&now.1).bucket_counts, side(&before.1).bucket_counts);
                assert!(grown.iter().zip(&known).all(|(a, b)| a >= b));
                assert_eq!(now.1.count, grown.iter().sum::<u64>() + now.1.zero_count);
                before = now;
            }
            let stale = At { is_stale: true, ..at(9.0) };
            assert_eq!(
                (stale.explicit().count, stale.exponential().count, stale.gauge().value),
                (0, 0, None)
            );
        }
    }
}
