//! The sink's own arithmetic, on samples written by hand.

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
    let series = Series { kind, resource: Labels::new(), point: Labels::new(), samples: samples.collect() };
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
