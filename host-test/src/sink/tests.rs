//! The sink's own arithmetic, on samples written by hand.

use super::distribution::{Buckets, Distribution, Exponential, Observations};
use super::exact::{DoubleSum, Total};
use super::frame::{FrameError, grpc_frame, grpc_messages, gunzip, gzip};
use super::identity::Labels;
use super::series::{Anomaly, Kind, Sample, Series, Value};
use super::wire::{WireError, fields};
use super::{Books, BooksConfig};
use bytes::Bytes;

/// The run begins at 100; samples are (start, time, value).
fn check(kind: Kind, samples: &[(u64, u64, i64)], total: i128, anomalies: &[Anomaly]) {
    let samples = samples.iter().map(|&(start_ns, time_ns, value)| Sample {
        start_ns,
        time_ns,
        value: Value::Int(value),
    });
    let (resource, point, samples) = (Labels::new(), Labels::new(), samples.collect());
    let series = Series { kind, resource, point, samples, distributions: Vec::new() };
    let reading = series.read(100);
    let found: Vec<Anomaly> = reading.anomalies.iter().map(|(anomaly, _)| *anomaly).collect();
    assert_eq!((reading.total.ints, found.as_slice()), (total, anomalies), "{series:?}");
}

#[test]
fn cumulative_increases() {
    use Anomaly::{Fell, Negative, OutOfOrder, Repeated, StartWentBack};
    let check = |samples: &[(u64, u64, i64)], total, anomalies: &[Anomaly]| {
        check(Kind::Cumulative, samples, total, anomalies);
    };
    check(&[(100, 110, 5), (100, 120, 9)], 9, &[]);
    check(&[(99, 110, 5), (99, 120, 9)], 4, &[]);
    check(&[(0, 110, 5)], 0, &[]);
    check(&[(100, 110, 5), (111, 120, 3)], 8, &[]);
    check(&[(100, 110, 5), (111, 120, 7)], 12, &[]);
    check(&[(100, 110, 5), (100, 110, 5)], 5, &[Repeated]);
    check(&[(100, 110, 5), (100, 110, 6)], 5, &[OutOfOrder]);
    check(&[(100, 120, 5), (100, 110, 6), (100, 130, 7)], 7, &[OutOfOrder]);
    check(&[(100, 110, 5), (100, 120, 3)], 8, &[Fell]);
    check(&[(105, 110, 5), (101, 120, 6)], 6, &[StartWentBack]);
    check(&[(100, 110, -5)], -5, &[Negative]);
    check(&[(100, 110, i64::MAX), (111, 120, i64::MAX)], 2 * i128::from(i64::MAX), &[]);
}

#[test]
fn delta_sums() {
    let check = |samples: &[(u64, u64, i64)], total, anomalies: &[Anomaly]| {
        check(Kind::Delta, samples, total, anomalies);
    };
    check(&[(1, 2, 5), (2, 3, -1)], 4, &[]);
    check(&[(2, 3, 5), (1, 2, 4)], 9, &[]);
    check(&[(1, 2, 5), (1, 2, 5)], 10, &[Anomaly::DuplicateInterval]);
    check(&[(1, 2, 5), (1, 3, 5)], 10, &[]);
}

#[test]
fn gauges_keep_order() {
    check(
        Kind::Gauge,
        &[(0, 2, 5), (0, 3, 1), (0, 3, 2), (0, 3, 2)],
        0,
        &[Anomaly::OutOfOrder, Anomaly::Repeated],
    );
}

#[test]
fn double_sums_do_not_round() {
    let mut sum = DoubleSum::default();
    sum.add(1e16);
    for _ in 0..1000 {
        sum.add(1.0);
    }
    sum.add(-1e16);
    assert_eq!(sum.value(), 1000.0);
    let total = |value: f64| {
        let mut total = Total::default();
        total.add_double(value);
        total
    };
    assert!(total(1.0).agrees(total(1.0 + 1e-13)) && !total(1.0).agrees(total(1.0 + 1e-11)));
    let mut other = total(1.0);
    other.add_int(1);
    assert!(!other.agrees(total(1.0)));
}

#[test]
fn frames_round_trip_and_refuse() {
    for is_compressed in [false, true] {
        let body = [grpc_frame(b"one", is_compressed), grpc_frame(b"", is_compressed)].concat();
        assert_eq!(grpc_messages(&body.clone().into()).unwrap(), vec![Bytes::from("one"), Bytes::new()]);
        assert!(grpc_messages(&Bytes::copy_from_slice(&body[..body.len() - 1])).is_err());
    }
    assert_eq!(grpc_messages(&Bytes::from_static(&[2, 0, 0, 0, 0])), Err(FrameError::Flag(0)));
    assert_eq!(gunzip(&gzip(b"text")).unwrap(), "text");
    assert_eq!(gunzip(b"text"), Err(FrameError::Gzip));
}

#[test]
fn fields_refuse_what_is_malformed() {
    assert_eq!(fields(&[0x0a, 1, 7, 0x10, 3]).unwrap().len(), 2);
    for (bytes, at) in
        [(&[0x0a, 2, 7][..], 0), (&[0x10, 3, 0x0b], 2), (&[0x02, 0], 0), (&[0x10], 0), (&[0xff; 11], 0)]
    {
        assert_eq!(fields(bytes).unwrap_err(), WireError(at), "{bytes:?}");
    }
    let mut books = Books::new(BooksConfig::default());
    assert!(books.add("", &[0x0a, 2, 7]).is_err());
    assert_eq!((books.bodies, books.metrics.len()), (0, 0));
}

/// Histograms under the bounds 1 and 2; samples are (start, time, counts).
fn histogram(kind: Kind, samples: &[(u64, u64, [u64; 3])]) -> Series {
    let of = |&(start_ns, time_ns, _): &(u64, u64, [u64; 3])| Sample {
        start_ns,
        time_ns,
        value: Value::Distribution,
    };
    let distribution = |(_, _, counts): &(u64, u64, [u64; 3])| Distribution {
        count: counts.iter().sum(),
        sum: Some(counts.iter().sum::<u64>() as f64 / 2.0),
        buckets: Buckets::Explicit(vec![1.0, 2.0], counts.to_vec()),
        ..Distribution::default()
    };
    let distributions = samples.iter().map(distribution).collect();
    let samples = samples.iter().map(of).collect();
    Series { kind, resource: Labels::new(), point: Labels::new(), samples, distributions }
}

#[test]
fn histograms_count_by_bucket() {
    use Anomaly::{DoesNotAddUp, DuplicateInterval, Fell, OutOfOrder};
    type Counts = [u64; 3];
    let check = |kind, samples: &[(u64, u64, Counts)], counts: Counts, anomalies: &[Anomaly]| {
        let reading = histogram(kind, samples).read(100);
        let found: Vec<Anomaly> = reading.anomalies.iter().map(|(anomaly, _)| *anomaly).collect();
        let buckets = reading.observations.explicit.values().next().cloned().unwrap_or(vec![0; 3]);
        assert_eq!((buckets, found.as_slice()), (counts.map(i128::from).to_vec(), anomalies), "{samples:?}");
        let count: u64 = counts.iter().sum();
        assert_eq!(reading.observations.total(), {
            let mut total = Total::default();
            total.add_int(count.into());
            total.add_double(count as f64 / 2.0);
            total
        });
    };
    let cumulative = Kind::Histogram;
    check(cumulative, &[(100, 110, [1, 2, 0]), (100, 120, [2, 2, 4])], [2, 2, 4], &[]);
    check(cumulative, &[(99, 110, [1, 2, 0]), (99, 120, [2, 2, 4])], [1, 0, 4], &[]);
    check(cumulative, &[(100, 110, [1, 2, 0]), (111, 120, [1, 0, 0])], [2, 2, 0], &[]);
    check(cumulative, &[(100, 110, [1, 2, 0]), (100, 120, [5, 1, 0])], [6, 3, 0], &[Fell]);
    check(cumulative, &[(100, 120, [1, 2, 0]), (100, 110, [5, 5, 5])], [1, 2, 0], &[OutOfOrder]);
    check(Kind::HistogramDelta, &[(1, 2, [1, 0, 0]), (1, 2, [1, 0, 0])], [2, 0, 0], &[DuplicateInterval]);
    let mut wrong = histogram(cumulative, &[(100, 110, [1, 2, 0])]);
    wrong.distributions[0].count = 4;
    assert_eq!(wrong.read(100).anomalies, [(DoesNotAddUp, 0)]);
}

#[test]
fn exponential_histograms_meet_at_the_smaller_scale_and_the_wider_zero() {
    let of = |scale, threshold, zero, positive: &[(i64, i128)]| Exponential {
        scale,
        threshold,
        zero,
        positive: positive.iter().copied().collect(),
        ..Exponential::default()
    };
    // Scale 1: bucket 0 is up to 2^0.5, 1 up to 2, 2 up to 2^1.5; -1 begins at 2^-0.5.
    let mut sum = of(1, 0.0, 0, &[(-1, 4), (0, 1), (1, 2), (2, 3)]);
    sum.add(&of(0, 0.0, 1, &[(0, 5), (1, 6)]), 1);
    assert_eq!(sum, of(0, 0.0, 1, &[(-1, 4), (0, 8), (1, 9)]));
    // Within 0.75 lies a part of (0.5, 1]; within 1 lies nothing of (1, 2].
    let mut wide = sum.clone();
    wide.widen(0.75);
    assert_eq!(wide, of(0, 0.75, 5, &[(0, 8), (1, 9)]));
    wide.widen(1.0);
    assert_eq!(wide, of(0, 1.0, 5, &[(0, 8), (1, 9)]));
    sum.add(&of(0, 0.0, 1, &[(0, 8), (1, 9), (-1, 4)]), -1);
    assert_eq!((sum.count(), sum.positive.len()), (0, 0));

    let point = |buckets: Exponential| Distribution {
        count: u64::try_from(buckets.count()).unwrap(),
        buckets: Buckets::Exponential(buckets),
        ..Distribution::default()
    };
    let before = point(of(2, 0.0, 0, &[(4, 2), (5, 4)]));
    assert!(!point(of(1, 0.0, 0, &[(2, 6)])).falls_from(&before));
    assert!(point(of(1, 0.0, 0, &[(2, 5), (3, 9)])).falls_from(&before));
    let [mut one, mut other] = [Observations::default(), Observations::default()];
    one.add(&before, 1);
    other.add(&point(of(1, 0.0, 0, &[(2, 6)])), 1);
    assert_eq!(one.difference(&other, 0.0), None);
    other.add(&point(of(1, 0.0, 0, &[(2, 1)])), 1);
    assert!(one.difference(&other, 0.0).is_some());
}
