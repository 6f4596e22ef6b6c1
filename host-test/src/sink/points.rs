//! Decoded points as samples: what the books keep of each.
//!
//! In: the data of one metric. Out: its kind, and of every point labels, times, value or distribution, exemplars. Refuses nothing: what has no value is a sample without one.

use super::books::ExemplarKey;
use super::distribution::Distribution;
use super::identity::{Labels, labels};
use super::series::{Kind, Sample, Value};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, NumberDataPoint, number_data_point};

/// One point.
pub struct Point {
    /// Its attributes.
    pub labels: Labels,
    /// Its times and its number.
    pub sample: Sample,
    /// What a histogram or a summary says; none of a number.
    pub distribution: Option<Distribution>,
    /// Its exemplars with their filtered attributes.
    pub exemplars: Vec<(ExemplarKey, Labels)>,
}

/// `AGGREGATION_TEMPORALITY_DELTA` and `_CUMULATIVE`.
const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;
/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`.
const NO_RECORDED_VALUE: u32 = 1;

/// The points of a metric's data, in order.
pub fn read_points(data: Option<&Data>) -> (Kind, Vec<Point>) {
    match data {
        None => (Kind::Unknown, Vec::new()),
        Some(Data::Gauge(gauge)) => (Kind::Gauge, gauge.data_points.iter().map(number).collect()),
        Some(Data::Sum(sum)) => {
            let kind = match (sum.aggregation_temporality, sum.is_monotonic) {
                (DELTA, _) => Kind::Delta,
                (CUMULATIVE, true) => Kind::Cumulative,
                (CUMULATIVE, false) => Kind::UpDown,
                _ => Kind::Unknown,
            };
            (kind, sum.data_points.iter().map(number).collect())
        }
        Some(Data::Histogram(data)) => {
            let kind = match data.aggregation_temporality {
                DELTA => Kind::HistogramDelta,
                CUMULATIVE => Kind::Histogram,
                _ => Kind::Unknown,
            };
            let point = |p: &opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint| {
                let times = (p.start_time_unix_nano, p.time_unix_nano, p.flags);
                distributed(&p.attributes, times, p.into(), &p.exemplars)
            };
            (kind, data.data_points.iter().map(point).collect())
        }
        Some(Data::ExponentialHistogram(data)) => {
            let kind = match data.aggregation_temporality {
                DELTA => Kind::ExponentialHistogramDelta,
                CUMULATIVE => Kind::ExponentialHistogram,
                _ => Kind::Unknown,
            };
            let point = |p: &opentelemetry_proto::tonic::metrics::v1::ExponentialHistogramDataPoint| {
                let times = (p.start_time_unix_nano, p.time_unix_nano, p.flags);
                distributed(&p.attributes, times, p.into(), &p.exemplars)
            };
            (kind, data.data_points.iter().map(point).collect())
        }
        Some(Data::Summary(data)) => {
            let point = |p: &opentelemetry_proto::tonic::metrics::v1::SummaryDataPoint| {
                let times = (p.start_time_unix_nano, p.time_unix_nano, p.flags);
                distributed(&p.attributes, times, p.into(), &[])
            };
            (Kind::Summary, data.data_points.iter().map(point).collect())
        }
    }
}

fn distributed(
    attributes: &[KeyValue],
    (start_ns, time_ns, flags): (u64, u64, u32),
    distribution: Distribution,
    list: &[Exemplar],
) -> Point {
    let value = if flags & NO_RECORDED_VALUE == 0 { Value::Distribution } else { Value::None };
    Point {
        labels: labels(attributes),
        sample: Sample { start_ns, time_ns, value },
        distribution: Some(distribution),
        exemplars: exemplars(list),
    }
}

fn number(point: &NumberDataPoint) -> Point {
    let value = match point.value {
        _ if point.flags & NO_RECORDED_VALUE != 0 => Value::None,
        Some(number_data_point::Value::AsInt(number)) => Value::Int(number),
        Some(number_data_point::Value::AsDouble(number)) => Value::Double(number),
        None => Value::None,
    };
    Point {
        labels: labels(&point.attributes),
        sample: Sample { start_ns: point.start_time_unix_nano, time_ns: point.time_unix_nano, value },
        distribution: None,
        exemplars: exemplars(&point.exemplars),
    }
}

fn exemplars(list: &[Exemplar]) -> Vec<(ExemplarKey, Labels)> {
    let one = |exemplar: &Exemplar| {
        let Exemplar { time_unix_nano, value, trace_id, span_id, filtered_attributes } = exemplar;
        let key = (*time_unix_nano, format!("{value:?}"), trace_id.clone(), span_id.clone());
        (key, labels(filtered_attributes))
    };
    list.iter().map(one).collect()
}
