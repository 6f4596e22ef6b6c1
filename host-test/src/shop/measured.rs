//! What a process measures: observations in explicit buckets, in exponential ones, in a summary.
//!
//! In: observed values. Out: OTLP points. The exponential one does as SDKs do: it begins fine and halves its resolution whenever its buckets would be too many
//! ("Base2 Exponential Bucket Histogram Aggregation"), so that pods of one series speak in different scales. An exemplar is the greatest observation since the last export.

use super::otlp::text;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, SummaryDataPoint, exemplar,
};
use std::collections::BTreeMap;

/// Attributes, start and time of a point.
pub type Head = (Vec<KeyValue>, u64, u64);

/// Observations under bounds.
#[derive(Clone, Debug, Default)]
pub struct Explicit {
    counts: Vec<u64>,
    sum: f64,
    greatest: Option<Greatest>,
}

/// The greatest observation since the last export, and who saw it.
#[derive(Clone, Debug)]
struct Greatest {
    value: f64,
    trace_id: [u8; 16],
    agent: &'static str,
}

impl Explicit {
    /// Observes a value, which falls into the first bucket whose bound is not less.
    pub fn observe(&mut self, value: f64, bounds: &[f64]) {
        self.counts.resize(bounds.len() + 1, 0);
        self.counts[bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// The same, in a trace; `agent` is what a view has filtered out.
    pub fn observe_traced(&mut self, value: f64, bounds: &[f64], trace_id: [u8; 16], agent: &'static str) {
        self.observe(value, bounds);
        if self.greatest.as_ref().is_none_or(|greatest| greatest.value < value) {
            self.greatest = Some(Greatest { value, trace_id, agent });
        }
    }

    /// The point.
    pub fn point(&self, (attributes, start_ns, time_ns): Head, bounds: &[f64]) -> HistogramDataPoint {
        let exemplar = |greatest: &Greatest| Exemplar {
            filtered_attributes: vec![text("user_agent", greatest.agent)],
            time_unix_nano: time_ns,
            span_id: greatest.trace_id[..8].to_vec(),
            trace_id: greatest.trace_id.to_vec(),
            value: Some(exemplar::Value::AsDouble(greatest.value)),
        };
        HistogramDataPoint {
            attributes,
            start_time_unix_nano: start_ns,
            time_unix_nano: time_ns,
            count: self.counts.iter().sum(),
            sum: Some(self.sum),
            bucket_counts: self.counts.clone(),
            explicit_bounds: bounds.to_vec(),
            exemplars: self.greatest.iter().map(exemplar).collect(),
            ..HistogramDataPoint::default()
        }
    }

    /// The export is done: the next one has an exemplar of its own.
    pub fn forget_exemplar(&mut self) {
        self.greatest = None;
    }
}

/// Where an exponential histogram begins: the finest that Prometheus stores.
const FIRST_SCALE: i32 = 8;
/// Buckets that it keeps; SDKs keep 160. Half of that and the shop's latencies, which span nine octaves, end at 8 buckets an octave.
const BUCKETS_MAX: i32 = 80;

/// Observations in exponential buckets.
#[derive(Clone, Debug)]
pub struct Exponential {
    scale: i32,
    counts: BTreeMap<i32, u64>,
    zero: u64,
    sum: f64,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { scale: FIRST_SCALE, counts: BTreeMap::new(), zero: 0, sum: 0.0 }
    }
}

impl Exponential {
    /// Observes a value that is not negative.
    pub fn observe(&mut self, value: f64) {
        self.sum += value;
        if value == 0.0 {
            self.zero += 1;
            return;
        }
        // Bucket i holds what is greater than 2^(i / 2^scale), up to the next.
        let index = (value.log2() * f64::from(self.scale).exp2()).ceil() as i32 - 1;
        *self.counts.entry(index).or_default() += 1;
        while self.span() > BUCKETS_MAX {
            self.scale -= 1;
            for (index, count) in std::mem::take(&mut self.counts) {
                *self.counts.entry(index >> 1).or_default() += count;
            }
        }
    }

    fn span(&self) -> i32 {
        let ends = self.counts.first_key_value().zip(self.counts.last_key_value());
        ends.map_or(0, |((first, _), (last, _))| last - first + 1)
    }

    /// The point.
    pub fn point(&self, (attributes, start_ns, time_ns): Head) -> ExponentialHistogramDataPoint {
        let positive = self.counts.first_key_value().map(|(&offset, _)| Buckets {
            offset,
            bucket_counts: (offset..offset + self.span())
                .map(|index| self.counts.get(&index).copied().unwrap_or_default())
                .collect(),
        });
        ExponentialHistogramDataPoint {
            attributes,
            start_time_unix_nano: start_ns,
            time_unix_nano: time_ns,
            count: self.counts.values().sum::<u64>() + self.zero,
            sum: Some(self.sum),
            scale: self.scale,
            zero_count: self.zero,
            positive,
            ..ExponentialHistogramDataPoint::default()
        }
    }
}

/// Observations in a summary.
#[derive(Clone, Debug, Default)]
pub struct Summed {
    count: u64,
    sum: f64,
    /// Since the last export.
    recent: Vec<f64>,
}

impl Summed {
    /// Observes a value.
    pub fn observe(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.recent.push(value);
    }

    /// The point; its quantiles are those since the last export.
    pub fn point(&self, (attributes, start_ns, time_ns): Head) -> SummaryDataPoint {
        let mut recent = self.recent.clone();
        recent.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            let rank = ((recent.len() as f64 * quantile) as usize).min(recent.len().saturating_sub(1));
            let value = recent.get(rank).copied().unwrap_or(f64::NAN);
            ValueAtQuantile { quantile, value }
        };
        SummaryDataPoint {
            attributes,
            start_time_unix_nano: start_ns,
            time_unix_nano: time_ns,
            count: self.count,
            sum: self.sum,
            quantile_values: [0.5, 0.9, 0.99].map(at).to_vec(),
            ..SummaryDataPoint::default()
        }
    }

    /// The export is done: the next one has quantiles of its own.
    pub fn forget_recent(&mut self) {
        self.recent.clear();
    }
}
