//! What increase samples say, read as their backends read them.
//!
//! In: OTLP requests as they reached a sink, or series of remote write. Out: by metric, what its series increased by over the run: a number, of a histogram
//! also its sum and each bucket. The rules are those of Prometheus' `increase` without its extrapolation: last less first, every fall is a restart from
//! zero, what is not newer than the last sample is thrown away. A first sample counts from zero only where its start time lies within the run, which
//! remote write 1 has no place for. VictoriaMetrics guesses there; [`Zero::Assumed`] is that guess at its most generous. Refuses what does not decode.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, NumberDataPoint, number_data_point};
use phoenix_host_test::sink::identity::{canonical, labels};
use prost::Message as _;
use std::collections::BTreeMap;

/// `FLAG_NO_RECORDED_VALUE` of OTLP: the point says that there is no value.
const NO_RECORDED_VALUE: u32 = 1;
/// `AGGREGATION_TEMPORALITY_DELTA`.
const DELTA: i32 = 1;

/// A sample of one number or, of a histogram, several: count, sum, and how many were not above each bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Start time, where it is known.
    pub start_ns: Option<u64>,
    /// Time.
    pub time_ns: u64,
    /// The numbers.
    pub values: Vec<f64>,
}

/// What the first sample of a series counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// From zero if its start time is this one or later, else it is where counting begins.
    Since(u64),
    /// Always from zero.
    Assumed,
}

/// All samples of a sink, by metric and series, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    series: BTreeMap<(String, String), Series>,
}

#[derive(Clone, Debug, Default)]
struct Series {
    is_delta: bool,
    samples: Vec<Sample>,
}

impl Samples {
    /// Those of OTLP requests.
    ///
    /// # Errors
    /// Not OTLP.
    pub fn of_otlp<'a>(messages: impl IntoIterator<Item = &'a Bytes>) -> anyhow::Result<Samples> {
        let mut samples = Samples::default();
        for message in messages {
            for resource in ExportMetricsServiceRequest::decode(message.clone())?.resource_metrics {
                let whose = resource.resource.map(|r| canonical(&labels(&r.attributes))).unwrap_or_default();
                for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                    samples.take(&whose, &metric.name, metric.data);
                }
            }
        }
        Ok(samples)
    }

    fn take(&mut self, whose: &str, metric: &str, data: Option<Data>) {
        let mut add = |attributes: &[KeyValue], is_delta: bool, sample: Option<Sample>| {
            let name = format!("{whose}{}", canonical(&labels(attributes)));
            self.add(metric, &name, is_delta, sample);
        };
        match data {
            Some(Data::Sum(sum)) => {
                let is_delta = sum.aggregation_temporality == DELTA;
                sum.data_points.iter().for_each(|p| add(&p.attributes, is_delta, of_number(p)));
            }
            Some(Data::Histogram(histogram)) => {
                let is_delta = histogram.aggregation_temporality == DELTA;
                histogram.data_points.iter().for_each(|p| add(&p.attributes, is_delta, of_histogram(p)));
            }
            // No case sends anything else.
            _ => {}
        }
    }

    /// Adds a sample to a series; a stale marker is none.
    pub fn add(&mut self, metric: &str, name: &str, is_delta: bool, sample: Option<Sample>) {
        let series = self.series.entry((metric.to_owned(), name.to_owned())).or_default();
        series.is_delta = is_delta;
        series.samples.extend(sample);
    }

    /// What a metric increased by.
    pub fn increase(&self, metric: &str, zero: Zero) -> Vec<f64> {
        let mut sum = Vec::new();
        for (_, series) in self.series.iter().filter(|((name, _), _)| name == metric) {
            let one = if series.is_delta { total(&series.samples) } else { increase(&series.samples, zero) };
            add_to(&mut sum, &one);
        }
        sum
    }

    /// The newest time that a metric has.
    pub fn newest_ns(&self, metric: &str) -> u64 {
        let series = self.series.iter().filter(|((name, _), _)| name == metric);
        series.flat_map(|(_, series)| &series.samples).map(|sample| sample.time_ns).max().unwrap_or(0)
    }
}

fn of_number(point: &NumberDataPoint) -> Option<Sample> {
    let value = match point.value? {
        number_data_point::Value::AsInt(value) => value as f64,
        number_data_point::Value::AsDouble(value) => value,
    };
    let is_value = point.flags & NO_RECORDED_VALUE == 0;
    let start_ns = Some(point.start_time_unix_nano).filter(|start| *start > 0);
    is_value.then(|| Sample { start_ns, time_ns: point.time_unix_nano, values: vec![value] })
}

fn of_histogram(point: &HistogramDataPoint) -> Option<Sample> {
    let mut values = vec![point.count as f64, point.sum.unwrap_or(f64::NAN)];
    values.extend(point.bucket_counts.iter().scan(0, |below, count| {
        *below += count;
        Some(*below as f64)
    }));
    let is_value = point.flags & NO_RECORDED_VALUE == 0;
    let start_ns = Some(point.start_time_unix_nano).filter(|start| *start > 0);
    is_value.then_some(Sample { start_ns, time_ns: point.time_unix_nano, values })
}

/// Of a cumulative series.
pub fn increase(samples: &[Sample], zero: Zero) -> Vec<f64> {
    let mut sum = Vec::new();
    let mut last: Option<&Sample> = None;
    for sample in samples {
        let begins = match last {
            None => match zero {
                Zero::Assumed => true,
                Zero::Since(run_ns) => sample.start_ns.is_some_and(|start_ns| start_ns >= run_ns),
            },
            Some(last) if sample.time_ns <= last.time_ns => continue,
            Some(last) => {
                sample.start_ns > last.start_ns
                    || sample.values.iter().zip(&last.values).any(|(now, before)| now < before)
            }
        };
        let before = last.filter(|_| !begins).or((!begins).then_some(sample));
        let part = |(at, now): (usize, &f64)| now - before.and_then(|b| b.values.get(at)).unwrap_or(&0.0);
        add_to(&mut sum, &sample.values.iter().enumerate().map(part).collect::<Vec<_>>());
        last = Some(sample);
    }
    sum
}

/// Of a delta series: a backend adds what it gets.
fn total(samples: &[Sample]) -> Vec<f64> {
    let mut sum = Vec::new();
    samples.iter().for_each(|sample| add_to(&mut sum, &sample.values));
    sum
}

fn add_to(sum: &mut Vec<f64>, part: &[f64]) {
    sum.resize(sum.len().max(part.len()), 0.0);
    sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(zero: Zero, samples: &[(u64, u64, f64)], expect: f64) {
        let sample = |&(start_ns, time_ns, value): &(u64, u64, f64)| Sample {
            start_ns: Some(start_ns).filter(|start| *start > 0),
            time_ns,
            values: vec![value],
        };
        let samples: Vec<Sample> = samples.iter().map(sample).collect();
        assert_eq!(increase(&samples, zero), [expect], "{zero:?} {samples:?}");
    }

    #[test]
    fn increases_are_those_of_prometheus() {
        let since = Zero::Since(5);
        check(since, &[(1, 10, 7.0), (1, 20, 9.0)], 2.0);
        check(since, &[(5, 10, 7.0), (5, 20, 9.0)], 9.0);
        check(since, &[(0, 10, 7.0), (0, 20, 9.0)], 2.0);
        check(Zero::Assumed, &[(0, 10, 7.0), (0, 20, 9.0)], 9.0);
        check(since, &[(1, 10, 7.0), (1, 20, 3.0), (1, 30, 4.0)], 4.0);
        check(since, &[(1, 10, 7.0), (15, 20, 9.0)], 9.0);
        check(since, &[(1, 20, 7.0), (1, 10, 5.0), (1, 20, 7.0), (1, 30, 8.0)], 1.0);
    }

    #[test]
    fn buckets_count_up_to_their_bound() {
        let point = HistogramDataPoint {
            count: 6,
            sum: Some(10.0),
            bucket_counts: vec![1, 2, 3],
            time_unix_nano: 1,
            ..HistogramDataPoint::default()
        };
        assert_eq!(of_histogram(&point).map(|s| s.values), Some(vec![6.0, 10.0, 1.0, 3.0, 6.0]));
        assert_eq!(of_histogram(&HistogramDataPoint { flags: NO_RECORDED_VALUE, ..point }), None);
    }
}
