//! What is written reads back, for lines by hand and for points at random.

use super::{Kind, Point, Request, Sample, encode, read, render};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as ExemplarValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, SummaryDataPoint,
};
use proptest::prelude::*;
use prost::Message as _;

#[test]
fn what_is_read_comes_out_again() {
    for line in [
        "requests{pod=a; route=/cart, code=#200} cumulative 100..110 5",
        "requests{pod=a;} delta -..110.5 2.5",
        "cpu{; x=\"a,b;\\\"\", y=#1.5, z=#true} gauge -..1 stale",
        "open{a=b; c=d} updown 1..2.000000001 -3",
        "open{;} updown-delta 1..2 -3.0",
        "heap[By]{pod=a; path=\"/cart/{user}!\", hash=\"#1\", pad=\" x\"} gauge -..2 none",
        "latency[s]{pod=a;} histogram 50..110 count=7 sum=3.5 min=0.1 max=2 le=[0.1:2, 1:4, +Inf:1]",
        "latency{;} histogram-delta 50..110 count=7",
        "latency{;} histogram 50..110 count=7 le=[+Inf:7]",
        "latency{;} histogram 50..110 stale count=0 sum=0 le=[0.1:0, +Inf:0]",
        "latency{;} histogram-unspecified 50..110 count=9 bounds=[1, 0.1, NaN, inf] counts=[2, 4]",
        "latency{;} histogram 50..110 count=1 sum=NaN bounds=[1]",
        "rpc{pod=a;} exponential 1..2 count=4 sum=3 scale=-3 zero=1 threshold=0.001 positive=-2:[1, 2] negative=7:[]",
        "rpc{;} exponential-delta 1..2 stale count=0 scale=20",
        "pause{;} summary 1..2 count=2 sum=5 quantiles=[0.5:1, 0.9:NaN]",
        "pause{;} summary 1..2 count=0 sum=0",
        "hits{;} cumulative 1..2 7 ! 0.7@1.5 trace=0af7651916cd43dd span=b7ad {user=\"x!\", n=#1} ! 3@2 ! none@0",
        "latency{;} histogram 1..2 count=1 le=[+Inf:1] ! 9.0@2 {pod=a}",
    ] {
        let point = read(line).unwrap_or_else(|error| panic!("{line}: {error:#}"));
        assert_eq!(render(&encode(&[point])), [line]);
    }
}

#[test]
fn long_lists_are_written_short() {
    let point = read("latency{;} histogram 1..2 count=8 bounds=[1..3] counts=[3*2, 1]").unwrap();
    assert_eq!(render(&encode(&[point])), ["latency{;} histogram 1..2 count=8 le=[1:2, 2:2, 3:2, +Inf:1]"]);
    let point = read("rpc{;} exponential 1..2 count=6 scale=0 positive=0:[2*3]").unwrap();
    assert_eq!(render(&encode(&[point])), ["rpc{;} exponential 1..2 count=6 scale=0 positive=0:[3, 3]"]);
}

#[test]
fn what_is_no_point_is_refused() {
    for (line, part) in [
        ("m{;} histogram 1..2 sum=3", "count="),
        ("m{;} histogram 1..2 count=3 scale=1", "has no"),
        ("m{;} histogram 1..2 count=3 le=[1:3]", "+Inf"),
        ("m{;} exponential 1..2 count=3", "scale="),
        ("m{;} summary 1..2 count=3", "sum="),
        ("m{;} summary 1..2 count=3 sum=1 ! 1@1", "no exemplars"),
        ("m{;} cumulative 1..2", "a value"),
        ("m{;} cumulative 1..2 5 6", "a value"),
        ("m{;} rate 1..2 5", "unknown kind"),
        ("m{;} gauge -..2 5 ! 1", "value@time"),
        ("m{; gauge -..2 5", "no closing brace"),
        ("m[By{;} gauge -..2 5", "metric[unit]"),
        ("m{;} gauge -..99999999999999999999 5", "seconds"),
        ("m{;} gauge -..99999999999 5", "too late"),
        ("m{;} histogram 1..2 count=3 counts=[100001*1]", "more than"),
    ] {
        let error = format!("{:#}", read(line).expect_err(line));
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn neighbours_share_messages() {
    let lines = ["m{p=a; x=1} delta 0..1 1", "m{p=a; x=2} delta 0..1 1", "m{p=b; x=1} delta 0..1 1"];
    let points: Vec<_> = lines.iter().map(|line| read(line).unwrap()).collect();
    let message = Request::decode(&*encode(&points)).unwrap();
    assert_eq!(message.resource_metrics.len(), 2);
    assert_eq!(message.resource_metrics[0].scope_metrics[0].metrics.len(), 1);
    assert_eq!(render(&encode(&points)).len(), 3);
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[ -~é\n]{0,6}".prop_map(Value::StringValue),
        any::<i64>().prop_map(Value::IntValue),
        double().prop_map(Value::DoubleValue),
        any::<bool>().prop_map(Value::BoolValue),
    ]
}

fn labels() -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = ("[a-z.]{1,4}", value()).prop_map(|(key, value)| KeyValue {
        key,
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    });
    prop::collection::vec(pair, 0..3)
}

/// Any double but the many NaNs that text does not tell apart.
fn double() -> impl Strategy<Value = f64> {
    any::<f64>().prop_map(|value| if value.is_nan() { f64::NAN } else { value })
}

fn doubles() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(double(), 0..4)
}

fn counts() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(any::<u64>(), 0..5)
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![any::<i64>().prop_map(Number::AsInt), double().prop_map(Number::AsDouble)]
}

fn exemplars() -> impl Strategy<Value = Vec<Exemplar>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..3);
    let one = (prop::option::of(number()), any::<u64>(), bytes(), bytes(), labels());
    let one = one.prop_map(|(value, time_unix_nano, trace_id, span_id, filtered_attributes)| Exemplar {
        value: value.map(|value| match value {
            Number::AsInt(int) => ExemplarValue::AsInt(int),
            Number::AsDouble(double) => ExemplarValue::AsDouble(double),
        }),
        time_unix_nano,
        trace_id,
        span_id,
        filtered_attributes,
    });
    prop::collection::vec(one, 0..3)
}

fn side() -> impl Strategy<Value = Option<Buckets>> {
    let some = (any::<i32>(), counts());
    prop::option::of(some.prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts }))
}

/// All that a point of any shape can say; a kind takes what it knows.
#[derive(Clone, Debug)]
struct Parts {
    value: Option<Number>,
    count: u64,
    sums: [Option<f64>; 3],
    lists: (Vec<f64>, Vec<u64>),
    scale: i32,
    zero: (u64, f64),
    sides: [Option<Buckets>; 2],
    exemplars: Vec<Exemplar>,
    is_stale: bool,
}

fn parts() -> impl Strategy<Value = Parts> {
    let sums = [prop::option::of(double()), prop::option::of(double()), prop::option::of(double())];
    let first = (prop::option::of(number()), any::<u64>(), sums, (doubles(), counts()));
    let rest = (any::<i32>(), (any::<u64>(), double()), [side(), side()], exemplars(), any::<bool>());
    (first, rest).prop_map(|((value, count, sums, lists), (scale, zero, sides, exemplars, is_stale))| Parts {
        value,
        count,
        sums,
        lists,
        scale,
        zero,
        sides,
        exemplars,
        is_stale,
    })
}

fn sample(kind: Kind, parts: Parts) -> Sample {
    let Parts { value, count, sums: [sum, min, max], lists, scale, zero, sides, exemplars, is_stale } = parts;
    let flags = u32::from(is_stale);
    let (explicit_bounds, bucket_counts) = lists;
    match kind {
        Kind::Sum(..) | Kind::Gauge => {
            Sample::Number(NumberDataPoint { value, exemplars, flags, ..NumberDataPoint::default() })
        }
        Kind::Histogram(_) => Sample::Histogram(HistogramDataPoint {
            count,
            sum,
            min,
            max,
            bucket_counts,
            explicit_bounds,
            exemplars,
            flags,
            ..HistogramDataPoint::default()
        }),
        Kind::Exponential(_) => {
            let [positive, negative] = sides;
            Sample::Exponential(ExponentialHistogramDataPoint {
                count,
                sum,
                min,
                max,
                scale,
                zero_count: zero.0,
                zero_threshold: zero.1,
                positive,
                negative,
                exemplars,
                flags,
                ..ExponentialHistogramDataPoint::default()
            })
        }
        Kind::Summary => {
            let values = explicit_bounds.into_iter().zip([0.5, f64::NAN, -1.0, 1e300]);
            let quantile_values =
                values.map(|(quantile, value)| ValueAtQuantile { quantile, value }).collect();
            let sum = sum.unwrap_or_default();
            Sample::Summary(SummaryDataPoint {
                count,
                sum,
                quantile_values,
                flags,
                ..SummaryDataPoint::default()
            })
        }
    }
}

fn point() -> impl Strategy<Value = Point> {
    let kinds = Kind::ALL.map(|(kind, _)| kind).to_vec();
    let head = ("[a-z]{1,5}", "[A-Za-z/]{0,3}", labels(), labels());
    (head, prop::sample::select(kinds), any::<[u64; 2]>(), parts()).prop_map(
        |((metric, unit, resource, attributes), kind, [start, time], parts)| {
            let mut sample = sample(kind, parts);
            let (of_point, start_ns, time_ns) = sample.head();
            (*of_point, *start_ns, *time_ns) = (attributes, start, time);
            Point { metric, unit, resource, kind, sample }
        },
    )
}

proptest! {
    #[test]
    fn any_point_is_its_text(points in prop::collection::vec(point(), 1..4)) {
        let message = encode(&points);
        let text = render(&message);
        prop_assert_eq!(text.len(), points.len());
        let mut again = Vec::new();
        for line in &text {
            again.push(read(line).map_err(|error| TestCaseError::fail(format!("{line}: {error:#}")))?);
        }
        prop_assert_eq!(&render(&encode(&again)), &text);
        prop_assert_eq!(encode(&again), message);
    }
}
