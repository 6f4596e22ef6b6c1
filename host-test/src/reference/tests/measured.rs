//! Histograms and gauges in the reference, against numbers worked out by hand.

use super::super::plan::Function;
use super::*;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
};

fn one(pod: &str, data: Data) -> ExportMetricsServiceRequest {
    let metrics = vec![metric("requests", "1", data)];
    let resource = Resource { attributes: vec![text("pod", pod)], ..Resource::default() };
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics =
        vec![ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

/// Under the bounds 1 and 2; the sum is half the count.
fn explicit(start: u64, time: u64, counts: [u64; 3]) -> Data {
    let count = counts.iter().sum::<u64>();
    let point = HistogramDataPoint {
        start_time_unix_nano: start * SECOND_NS,
        time_unix_nano: time * SECOND_NS,
        count,
        sum: Some(count as f64 / 2.0),
        bucket_counts: counts.to_vec(),
        explicit_bounds: vec![1.0, 2.0],
        ..HistogramDataPoint::default()
    };
    Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE })
}

fn exponential(time: u64, scale: i32, offset: i32, counts: &[u64]) -> Data {
    let count = counts.iter().sum::<u64>();
    let point = ExponentialHistogramDataPoint {
        start_time_unix_nano: 50 * SECOND_NS,
        time_unix_nano: time * SECOND_NS,
        count,
        sum: Some(count as f64 / 2.0),
        scale,
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        ..ExponentialHistogramDataPoint::default()
    };
    Data::ExponentialHistogram(ExponentialHistogram {
        data_points: vec![point],
        aggregation_temporality: CUMULATIVE,
    })
}

fn gauge(time: u64, value: Option<i64>) -> Data {
    let point = NumberDataPoint {
        time_unix_nano: time * SECOND_NS,
        value: value.map(Value::AsInt),
        flags: u32::from(value.is_none()),
        ..NumberDataPoint::default()
    };
    Data::Gauge(Gauge { data_points: vec![point] })
}

/// Windows that wait for a minute.
fn patient() -> ReferencePlan {
    let mut plan = plan();
    plan.rules[0].fold.as_mut().unwrap().delay_ns = 60 * SECOND_NS;
    plan
}

/// What is written for points of pods that arrive at their times, after a first request at 100.
fn written(plan: ReferencePlan, given: Vec<(&str, u64, Data)>) -> Vec<Data> {
    let mut reference = Reference::new(plan);
    reference.fold(&ExportMetricsServiceRequest::default(), 100 * SECOND_NS);
    let mut all = Vec::new();
    for (pod, time, data) in given {
        assert!(reference.fold(&one(pod, data), time * SECOND_NS).resource_metrics.is_empty());
        all.push(reference.close(time * SECOND_NS));
    }
    all.push(reference.close(200 * SECOND_NS));
    let metrics = all.into_iter().flat_map(|request| request.resource_metrics);
    let metrics = metrics.flat_map(|of| of.scope_metrics).flat_map(|of| of.metrics);
    metrics.filter_map(|metric| metric.data).collect()
}

#[test]
fn a_histogram_is_split_by_bucket() {
    let given = vec![
        ("a", 110, explicit(50, 110, [4, 4, 2])),
        ("a", 130, explicit(50, 130, [9, 5, 3])),
        ("b", 131, explicit(121, 131, [1, 0, 0])),
        ("a", 140, explicit(50, 140, [2, 9, 9])),
    ];
    let mut found = Vec::new();
    for data in written(patient(), given) {
        let Data::Histogram(histogram) = data else { panic!("a histogram") };
        for point in histogram.data_points {
            assert_eq!(point.explicit_bounds, [1.0, 2.0]);
            assert_eq!(point.count, point.bucket_counts.iter().sum::<u64>());
            found.push((point.time_unix_nano / SECOND_NS, point.bucket_counts, point.sum.unwrap()));
        }
    }
    // 5, 1, 1 over 110..130: 2, 0, 0 and the rest, the sum in proportion. b is born: 1 over 121..131, all of it in the last window. A bucket of a fell: all counts from zero.
    let expected = [
        (110, vec![0, 0, 0], 0.0),
        (120, vec![2, 0, 0], 1.0),
        (130, vec![5, 1, 1], 3.5),
        (140, vec![8, 10, 10], 14.0),
    ];
    assert_eq!(found, expected);
}

#[test]
fn exponential_histograms_meet() {
    let given = vec![
        ("a", 110, exponential(110, 2, 4, &[2, 4])),
        ("b", 110, exponential(110, 0, 0, &[])),
        ("a", 120, exponential(120, 1, 2, &[8, 1])),
        ("b", 130, exponential(130, 0, -1, &[3])),
    ];
    let mut found = Vec::new();
    for data in written(patient(), given) {
        let Data::ExponentialHistogram(histogram) = data else { panic!("an exponential histogram") };
        for point in histogram.data_points {
            let buckets = point.positive.unwrap_or_default();
            found.push((
                point.time_unix_nano / SECOND_NS,
                point.scale,
                buckets.offset,
                buckets.bucket_counts,
            ));
        }
    }
    // a adds 2 and 1 in buckets 2 and 3 of scale 1; b's 3 over 110..130 are 1 and 2 in bucket -1 of scale 0, where a's are in bucket 1.
    assert_eq!(found, [(110, 0, 0, vec![]), (120, 0, -1, vec![1, 0, 3]), (130, 0, -1, vec![3, 0, 3])]);
}

#[test]
fn a_gauge_has_a_point_a_window_as_long_as_it_has_a_member() {
    let mut plan = plan();
    let fold = plan.rules[0].fold.as_mut().unwrap();
    (fold.gauge, fold.value_expiry_ns) = (Some(Function::Sum), 20 * SECOND_NS);
    let given = vec![
        ("a", 110, gauge(110, Some(5))),
        ("b", 110, gauge(108, Some(1))),
        ("b", 121, gauge(119, Some(2))),
        ("b", 126, gauge(125, None)),
        // Its window has closed.
        ("c", 131, gauge(120, Some(100))),
        ("b", 165, gauge(165, Some(7))),
    ];
    let mut found = Vec::new();
    for data in written(plan, given) {
        let Data::Gauge(gauge) = data else { panic!("a gauge") };
        for point in gauge.data_points {
            let value = point.value.map(as_value);
            found.push((point.time_unix_nano / SECOND_NS, value));
        }
    }
    // a stands until 130, b until 125; nobody at 140; b again from 165 to 185.
    let expected = [
        (110, Some(6)),
        (120, Some(7)),
        (130, Some(5)),
        (130, None),
        (170, Some(7)),
        (180, Some(7)),
        (180, None),
    ];
    assert_eq!(found, expected);
}

fn as_value(value: Value) -> i64 {
    match value {
        Value::AsInt(value) => value,
        Value::AsDouble(_) => panic!("integers stay integers"),
    }
}
