//! The reference against numbers worked out by hand.

/// Histograms and gauges.
mod measured;

use super::plan::{ReferenceFold, ReferenceRule, ReferenceSwitch};
use super::quantity::as_double;
use super::series::split;
use super::*;
use crate::shop::otlp::{CUMULATIVE, DELTA, metric, number, sum, text};
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;

const SECOND_NS: u64 = 1_000_000_000;
/// How a stale marker is written here.
const STALE: i64 = -1;

fn fold() -> ReferenceFold {
    ReferenceFold {
        drop_resource: vec!["pod".to_owned()],
        window_ns: 10 * SECOND_NS,
        delay_ns: 10 * SECOND_NS,
        ..ReferenceFold::default()
    }
}

fn plan() -> ReferencePlan {
    ReferencePlan {
        rules: vec![ReferenceRule {
            metric_prefix: "requests".to_owned(),
            fold: Some(fold()),
            ..ReferenceRule::default()
        }],
        promoted: vec!["pod".to_owned()],
        mark_label: "mark".to_owned(),
        writer_label: "writer".to_owned(),
        writer: "me".to_owned(),
        ..ReferencePlan::default()
    }
}

fn request(
    name: &str,
    pod: &str,
    start: u64,
    time: u64,
    value: i64,
    temporality: i32,
) -> ExportMetricsServiceRequest {
    let point = number(vec![text("route", "/")], start * SECOND_NS, time * SECOND_NS, Value::AsInt(value));
    let metrics = vec![metric(name, "1", sum(vec![point], temporality, true))];
    let resource = Resource { attributes: vec![text("pod", pod)], ..Resource::default() };
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics =
        vec![ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

/// (start, time, value) of every point, in seconds.
fn points(request: &ExportMetricsServiceRequest) -> Vec<(u64, u64, i64)> {
    let metrics = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
    let of = |metric: &Metric| match &metric.data {
        Some(Data::Sum(sum)) => sum.data_points.clone(),
        _ => vec![],
    };
    let int = |point: &NumberDataPoint| match point.value {
        Some(Value::AsInt(n)) => n,
        None if point.flags == NO_RECORDED_VALUE => STALE,
        other => panic!("{other:?}"),
    };
    let seconds = |point: NumberDataPoint| {
        // A stale marker stands a millisecond after the last sample.
        (point.start_time_unix_nano / SECOND_NS, point.time_unix_nano / SECOND_NS, int(&point))
    };
    metrics.flat_map(of).map(seconds).collect()
}

/// The points (pod, start, time, value), each arriving at its time, after a first request at 100.
fn folded(given: &[(&str, u64, u64, i64)], temporality: i32) -> (Vec<(u64, u64, i64)>, ReferenceBooks) {
    let mut reference = Reference::new(plan());
    reference.fold(&ExportMetricsServiceRequest::default(), 100 * SECOND_NS);
    for (pod, start, time, value) in given {
        let rest =
            reference.fold(&request("requests", pod, *start, *time, *value, temporality), time * SECOND_NS);
        assert!(rest.resource_metrics.is_empty());
    }
    (points(&reference.close(u64::MAX)), reference.books().clone())
}

#[test]
fn two_pods_become_one_series() {
    let given = [("a", 150, 160, 5), ("b", 150, 161, 7), ("a", 150, 170, 11), ("b", 150, 171, 8)];
    let (points, books) = folded(&given, CUMULATIVE);
    assert_eq!(points, [(150, 150, 0), (150, 160, 11), (150, 170, 18), (150, 180, 19)]);
    assert_eq!((books.folded, books.folded_total, books.late), (4, books.emitted_total, 0));
}

#[test]
fn a_cumulative_point_adds_what_is_new() {
    // State 5 at 110 with start 50 (a baseline); then a point; then all that was emitted but the zero.
    type Case = (u64, u64, i64, &'static [(u64, i64)]);
    let cases: [Case; 6] = [
        (50, 120, 8, &[(120, 3)]),
        (50, 120, 5, &[(120, 0)]),
        (50, 120, 2, &[(120, 2)]),
        (115, 120, 9, &[(120, 9)]),
        (50, 109, 900, &[]),
        (40, 120, 900, &[]),
    ];
    for (start, time, value, expected) in cases {
        let (points, _) = folded(&[("a", 50, 110, 5), ("a", start, time, value)], CUMULATIVE);
        let got: Vec<(u64, i64)> = points.iter().skip(1).map(|(_, time, value)| (*time, *value)).collect();
        assert_eq!(got, expected, "{start} {time} {value}");
    }
}

#[test]
fn delta_intervals_count_once() {
    let given =
        [("a", 110, 120, 4), ("a", 130, 140, 5), ("a", 120, 130, 6), ("a", 120, 130, 6), ("a", 115, 135, 9)];
    let (points, books) = folded(&given, DELTA);
    assert_eq!(points, [(110, 120, 4), (120, 130, 6), (130, 140, 5)]);
    assert_eq!((books.folded, books.duplicates, books.overlaps), (3, 1, 1));
}

#[test]
fn late_joins_the_oldest_open_window() {
    let mut reference = Reference::new(plan());
    reference.fold(&ExportMetricsServiceRequest::default(), SECOND_NS);
    reference.fold(&request("requests", "a", 0, 100, 1, CUMULATIVE), 100 * SECOND_NS);
    // All before 130 has closed when the point arrives at 140.
    reference.fold(&request("requests", "a", 0, 150, 51, CUMULATIVE), 140 * SECOND_NS);
    let points = points(&reference.close(u64::MAX));
    assert_eq!(points.iter().map(|p| (p.1, p.2)).collect::<Vec<_>>(), [(130, 0), (140, 40), (150, 50)]);
    assert_eq!(reference.books().late, 1);
}

#[test]
fn an_open_window_waits() {
    let mut reference = Reference::new(plan());
    reference.fold(&request("requests", "a", 0, 110, 1, CUMULATIVE), 110 * SECOND_NS);
    reference.fold(&request("requests", "a", 0, 120, 4, CUMULATIVE), 120 * SECOND_NS);
    assert_eq!(points(&reference.close(129 * SECOND_NS)), []);
    assert_eq!(points(&reference.close(130 * SECOND_NS)), [(110, 110, 0), (110, 120, 3)]);
}

#[test]
fn what_no_rule_names_passes_as_it_came() {
    let mut reference = Reference::new(plan());
    let other = request("other", "a", 0, 110, 1, CUMULATIVE);
    assert_eq!(reference.fold(&other, 110 * SECOND_NS), other);
    assert_eq!(reference.series_count(), 0);
}

#[test]
fn amounts_are_split_by_time() {
    let ints = |value, from: u64, to: u64| {
        let value = Quantity::Number(Value::AsInt(value));
        let number =
            |part| if let Quantity::Number(value) = part { as_double(value) as i64 } else { panic!() };
        let parts = split(&value, from * SECOND_NS, to * SECOND_NS, 10 * SECOND_NS, 0);
        parts.into_iter().map(|(window, part)| (window / SECOND_NS, number(part))).collect::<Vec<_>>()
    };
    assert_eq!(ints(10, 5, 15), [(0, 5), (10, 5)]);
    assert_eq!(ints(3, 0, 40), [(0, 0), (10, 1), (20, 1), (30, 1)]);
    assert_eq!(ints(7, 3, 9), [(0, 7)]);
    assert_eq!(ints(5, 20, 20), [(10, 5)]);
}

/// Windows that begin at 5, 15, 25 … and stay open for long.
fn off_the_grid() -> ReferenceFold {
    ReferenceFold { offset_ns: 5 * SECOND_NS, delay_ns: 60 * SECOND_NS, ..fold() }
}

#[test]
fn windows_may_begin_off_the_grid() {
    let mut plan = plan();
    plan.rules[0].fold = Some(off_the_grid());
    let mut reference = Reference::new(plan);
    reference.fold(&ExportMetricsServiceRequest::default(), 100 * SECOND_NS);
    reference.fold(&request("requests", "a", 150, 170, 20, CUMULATIVE), 170 * SECOND_NS);
    let points = points(&reference.close(u64::MAX));
    // The window that holds 150 begins at 145.
    assert_eq!(points, [(145, 145, 0), (145, 155, 5), (145, 165, 15), (145, 175, 20)]);
}

/// A rule that switches at 120: the points (start, time, value) of one pod, each arriving at its time, after a first request at 50. What passes, and what
/// is written when everything has closed, by the label that the old fold drops and the new one keeps.
type Switched = (Vec<(u64, u64, i64)>, Vec<(u64, u64, i64)>);

fn switched(from: bool, to: bool, given: &[(u64, u64, i64)]) -> Switched {
    let mut plan = plan();
    let of = |drop_attributes: &[&str]| ReferenceFold {
        drop_attributes: drop_attributes.iter().map(|label| (*label).to_owned()).collect(),
        ..off_the_grid()
    };
    plan.rules[0].fold = to.then(|| of(&[]));
    plan.rules[0].switch =
        Some(ReferenceSwitch { at_ns: 120 * SECOND_NS, from: from.then(|| of(&["route"])) });
    plan.stream_expiry_ns = 25 * SECOND_NS;
    let mut reference = Reference::new(plan);
    reference.fold(&ExportMetricsServiceRequest::default(), 50 * SECOND_NS);
    let mut passed = Vec::new();
    for (start, time, value) in given {
        let request = request("requests", "a", *start, *time, *value, CUMULATIVE);
        passed.extend(points(&reference.fold(&request, time * SECOND_NS)));
    }
    assert_eq!(reference.books().late, 0);
    (passed, points(&reference.close(u64::MAX)))
}

#[test]
fn from_raw_to_folded() {
    // 20 over 110..130, 10 of it before the switch: each window has its own.
    let (passed, written) = switched(false, true, &[(40, 110, 100), (40, 130, 120), (40, 140, 130)]);
    assert_eq!(passed, [(40, 110, 100), (40, 130, STALE)]);
    assert_eq!(written, [(105, 105, 0), (105, 115, 5), (105, 125, 15), (105, 135, 25), (105, 145, 30)]);
    // Not seen before the switch: no marker. Born at 118, and counted from zero.
    let (passed, written) = switched(false, true, &[(118, 128, 10)]);
    assert_eq!(passed, []);
    assert_eq!(written, [(115, 115, 0), (115, 125, 7), (115, 135, 10)]);
    // Older than we: a baseline, and it says nothing.
    assert_eq!(switched(false, true, &[(40, 128, 10)]), (vec![], vec![]));
    // Born after the first window: the series opens with its own.
    let (_, written) = switched(false, true, &[(126, 130, 4)]);
    assert_eq!(written, [(125, 125, 0), (125, 135, 4)]);
}

#[test]
fn from_folded_to_raw() {
    // 20 over 110..130 join the series that ends, those after the switch too. What comes later is the raw series' own. Flat until 145, twice a window, then stale.
    let (passed, written) = switched(true, false, &[(40, 110, 100), (40, 130, 120), (40, 140, 130)]);
    assert_eq!(passed, [(40, 130, 120), (40, 140, 130)]);
    let flat = [
        (105, 105, 0),
        (105, 115, 5),
        (105, 125, 15),
        (105, 135, 20),
        (105, 140, 20),
        (105, 145, 20),
        (105, 145, STALE),
    ];
    assert_eq!(written, flat);
    // First seen after the switch: all of it is in the raw series.
    assert_eq!(switched(true, false, &[(118, 128, 10)]), (vec![(118, 128, 10)], vec![]));
}

#[test]
fn from_fold_to_fold() {
    // 21 over 110..130: 10 before the switch, 11 after it.
    let (passed, written) = switched(true, true, &[(40, 110, 100), (40, 130, 121)]);
    assert_eq!(passed, []);
    let old = [
        (105, 105, 0),
        (105, 115, 5),
        (105, 125, 10),
        (105, 130, 10),
        (105, 135, 10),
        (105, 140, 10),
        (105, 145, 10),
        (105, 145, STALE),
    ];
    let new = [(120, 120, 0), (120, 125, 5), (120, 135, 11)];
    assert_eq!(written, [old.as_slice(), new.as_slice()].concat());
    // Not seen before the switch: the old series does not know it, and the new one has all of it.
    let (_, written) = switched(true, true, &[(118, 128, 10)]);
    assert_eq!(written, [(120, 120, 0), (120, 125, 7), (120, 135, 10)]);
}

#[test]
fn a_series_ends_when_all_its_streams_say_so() {
    let mut reference = Reference::new(plan());
    reference.fold(&ExportMetricsServiceRequest::default(), 100 * SECOND_NS);
    let ends = |pod: &str, time: u64, reference: &mut Reference| {
        let mut request = request("requests", pod, 110, time, 0, CUMULATIVE);
        let metric = &mut request.resource_metrics[0].scope_metrics[0].metrics[0];
        let Some(Data::Sum(sum)) = &mut metric.data else { panic!("a sum") };
        (sum.data_points[0].flags, sum.data_points[0].value) = (NO_RECORDED_VALUE, None);
        assert!(reference.fold(&request, time * SECOND_NS).resource_metrics.is_empty());
    };
    for (pod, value) in [("a", 5), ("b", 7)] {
        reference.fold(&request("requests", pod, 110, 120, value, CUMULATIVE), 120 * SECOND_NS);
    }
    ends("a", 125, &mut reference);
    assert_eq!(points(&reference.close(150 * SECOND_NS)), [(110, 110, 0), (110, 120, 12)]);
    // Nothing was due: the end of one of two adds no point.
    ends("b", 151, &mut reference);
    assert_eq!(points(&reference.close(u64::MAX)), [(110, 160, 12), (110, 160, STALE)]);
}
