//! The judge of the scene must be able to say no. A plain fold of what was sent stands in for the module.

use super::super::Options;
use super::super::policy;
use super::script::{is_restoration_due, leak, seconds_min};
use super::text::{document, render};
use super::watch::{Look, Watch};
use super::{Explosion, Ruled, judge};
use crate::shop::leak::pod::LoginPod;
use crate::shop::leak::{LeakConfig, LeakTruth, METRIC, PODS, USER_ID};
use crate::shop::otlp::{CUMULATIVE, number, sum, text};
use crate::sink::{Books, BooksConfig, MARK};
use clap::Parser as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, Sum};
use phoenix_plan::Plan;
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;

const SECOND_NS: u64 = 1_000_000_000;
/// When the run begins.
const T0_NS: u64 = 1_000 * SECOND_NS;
/// From then on the staff is raw again.
const SWITCH_NS: u64 = T0_NS + 30 * SECOND_NS;

fn plan() -> Plan {
    policy::declared().unwrap()
}

fn config() -> LeakConfig {
    let seconds = Duration::from_secs;
    LeakConfig {
        seed: 1,
        length: seconds(40),
        from: seconds(5),
        until: seconds(9),
        users: 1_000,
        interval: seconds(1),
        requests_per_connection: 0,
        tenant: "shop".to_owned(),
    }
}

/// What becomes of a point.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Raw,
    Folds,
    /// It arrives nowhere.
    Lost,
    /// It arrives raw, and the fold counts it as well.
    Both,
}

/// A point as the stand-in for the module sees it.
struct Seen<'a> {
    user: Option<&'a str>,
    time_ns: u64,
    pod: u32,
}

/// What a right module does.
fn right(seen: &Seen<'_>) -> Fate {
    match seen.user {
        None => Fate::Raw,
        Some(user) if user.starts_with("staff-") && seen.time_ns >= SWITCH_NS => Fate::Raw,
        Some(_) => Fate::Folds,
    }
}

fn is_staff(seen: &Seen<'_>) -> bool {
    seen.user.is_some_and(|user| user.starts_with("staff-"))
}

/// The fold of one pod.
#[derive(Default)]
struct Folded {
    /// By labels, as text: the labels and what was counted.
    series: BTreeMap<String, (Vec<KeyValue>, i64)>,
    /// What each stream with the label stood at, and whether it is raw.
    last: BTreeMap<String, (i64, bool)>,
}

/// Plays the scene in virtual time against a stand-in that treats points so, and marks folded series with `mark`.
fn play(fate: impl Fn(&Seen<'_>) -> Fate, mark: &str) -> (LeakTruth, Books) {
    let config = config();
    let mut truth = LeakTruth::new(BooksConfig::default());
    let mut books = Books::new(BooksConfig::default());
    let mut pods: Vec<(LoginPod, Folded)> =
        (0..PODS).map(|number| (LoginPod::new(1, number, T0_NS), Folded::default())).collect();
    for second in 1..=config.length.as_secs() {
        for (pod, (process, folded)) in (0..PODS).zip(&mut pods) {
            let at = Duration::from_secs(second) + Duration::from_millis(100 * u64::from(pod));
            let export = process.export(T0_NS + at.as_nanos() as u64, config.leaked(at));
            truth.acknowledge("shop", pod, &export, export.time_ns);
            let request = Request::decode(export.body.clone()).unwrap();
            for body in treated(request, folded, mark, |user, time_ns| fate(&Seen { user, time_ns, pod })) {
                books.add("shop", &body).unwrap();
            }
        }
    }
    (truth, books)
}

/// What goes out for a request: what stays of it, and the fold so far.
fn treated(
    mut request: Request,
    folded: &mut Folded,
    mark: &str,
    fate: impl Fn(Option<&str>, u64) -> Fate,
) -> [Vec<u8>; 2] {
    let data = &mut request.resource_metrics[0].scope_metrics[0].metrics[0].data;
    let Some(Data::Sum(Sum { data_points, .. })) = data.take() else { panic!() };
    let (mut raw, mut time_ns) = (Vec::new(), 0);
    for point in data_points {
        time_ns = point.time_unix_nano;
        let fate = fate(user(&point), time_ns);
        count(&point, fate, folded, mark);
        if matches!(fate, Fate::Raw | Fate::Both) {
            raw.push(point);
        }
    }
    let mut request_of = |points| {
        request.resource_metrics[0].scope_metrics[0].metrics[0].data = Some(sum(points, CUMULATIVE, true));
        request.encode_to_vec()
    };
    let passed = request_of(raw);
    let point =
        |(labels, value): &(Vec<KeyValue>, i64)| number(labels.clone(), T0_NS, time_ns, Value::AsInt(*value));
    [passed, request_of(folded.series.values().map(point).collect())]
}

/// Adds what is new in a point to the fold; at the first raw point of a stream that folded, for the last time.
fn count(point: &NumberDataPoint, fate: Fate, folded: &mut Folded, mark: &str) {
    let Some(Value::AsInt(value)) = point.value else { panic!() };
    let stream = format!("{:?}", point.attributes);
    let before = folded.last.insert(stream, (value, fate == Fate::Raw));
    let is_counted = match fate {
        Fate::Folds | Fate::Both => true,
        Fate::Raw => before.is_some_and(|(_, was_raw)| !was_raw),
        Fate::Lost => false,
    };
    if is_counted {
        let mut labels = point.attributes.clone();
        labels.retain(|label| label.key != USER_ID);
        labels.extend([text(MARK, mark), text("phoenix_writer", "test")]);
        let series = folded.series.entry(format!("{labels:?}")).or_insert((labels, 0));
        series.1 += value - before.map_or(0, |(before, _)| before);
    }
}

fn user(point: &NumberDataPoint) -> Option<&str> {
    let label = point.attributes.iter().find(|label| label.key == USER_ID)?;
    match label.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(user) => Some(user),
        _ => None,
    }
}

/// What Envoy's stats say of a metric that is contained between two times.
fn watched(contained: std::ops::Range<u64>) -> Watch {
    let mut watch = Watch::default();
    for second in 0..45 {
        let contained_metrics = i64::from(contained.contains(&second));
        let at_ns = T0_NS + second * SECOND_NS;
        watch.add(Look { at_ns, contained_metrics, admitted_series: 60, ..Look::default() });
    }
    watch
}

fn judged(fate: impl Fn(&Seen<'_>) -> Fate) -> Explosion {
    let (truth, books) = play(fate, USER_ID);
    judge(&truth, &books, &plan(), &watched(6..26), Ruled::default())
}

fn check(it: &Explosion, part: &str) {
    assert!(it.failures.iter().any(|text| text.contains(part)), "{part}: {:?}", it.failures);
    assert!(render(it).contains("FAILED"));
    assert_eq!(document(it)["failures"].as_array().unwrap().len(), it.failures.len());
}

#[test]
fn a_right_module_holds() {
    let it = judged(right);
    assert_eq!(it.failures, Vec::<String>::new());
    assert_eq!((it.innocents, it.staff, it.guilty), (60, 40, 1_040));
    assert_eq!((it.raw_exports, it.contained_after), (0, Some(Duration::ZERO)));
    assert_eq!((it.leaked_raw, it.beyond_share, it.restored), (0, 0, 40));
    assert_eq!(it.series, 60 + 60 + 40);
    assert_eq!(it.restored_after, Some(Duration::from_millis(20_600)), "{:?}", it.restored_after);
    let (counted, raw, folded) = it.totals;
    assert!(counted == raw + folded && raw > 0 && folded > 0, "{:?}", it.totals);
    assert!(render(&it).contains("40 of 40 streams raw again"), "{}", render(&it));
}

#[test]
fn a_reaction_of_some_exports_holds_and_is_told() {
    let first = |seen: &Seen<'_>| seen.time_ns < T0_NS + 5_150_000_000 && seen.pod < 2;
    let it = judged(|seen| match right(seen) {
        Fate::Folds if first(seen) && seen.user.is_some_and(|user| !user.starts_with("staff-")) => Fate::Raw,
        fate => fate,
    });
    // Within the share that is no failure: there was room.
    assert_eq!(it.failures, Vec::<String>::new());
    assert_eq!((it.leaked_raw, it.beyond_share), (5, 0));
    assert_eq!(it.contained_after, Some(Duration::from_millis(100)));
    assert_eq!(it.raw_exports, 1);
}

#[test]
fn staff_that_came_while_there_was_room_was_never_folded() {
    let it = judged(|seen| if seen.pod == 3 && is_staff(seen) { Fate::Raw } else { right(seen) });
    assert_eq!(it.failures, Vec::<String>::new());
    assert_eq!((it.kept_raw, it.restored), (8, 32));
    assert!(render(&it).contains("32 of 32 streams raw again"), "{}", render(&it));
    // A part of them in some exports is neither.
    let it = judged(|seen| match seen.user {
        Some("staff-30") => Fate::Raw,
        _ => right(seen),
    });
    check(&it, "byte for byte");
}

#[test]
fn one_guilty_series_after_containment_fails() {
    let (truth, _) = play(right, USER_ID);
    let at = truth.leaked[12].time_ns;
    let mut seen_one = std::cell::Cell::new(None::<String>);
    let it = judged(|seen| match (seen.user, seen_one.take()) {
        (Some(user), None) if seen.time_ns == at && !user.starts_with("staff-") => {
            seen_one.set(Some(user.to_owned()));
            Fate::Raw
        }
        (_, one) => {
            seen_one.set(one);
            right(seen)
        }
    });
    assert!(seen_one.get_mut().is_some());
    check(&it, "1 guilty streams raw after containment");
    assert_eq!(it.leaked_raw, 1);
}

#[test]
fn a_leak_that_is_not_contained_fails() {
    let it = judged(|_| Fate::Raw);
    check(&it, "never contained");
    check(&it, "series at the sink, the share is 200");
    assert_eq!((it.kept_raw, it.restored), (40, 0));
    assert!(it.beyond_share > 500, "{}", it.beyond_share);
}

#[test]
fn a_lost_increment_fails() {
    let it = judged(|seen| match (seen.user, right(seen)) {
        (Some(_), Fate::Folds) if seen.time_ns == T0_NS + 7 * SECOND_NS => Fate::Lost,
        (_, fate) => fate,
    });
    check(&it, "off by -");
    check(&it, "groups do not add up");
    let it = judged(|seen| {
        let is_last = seen.user.is_none() && seen.time_ns == T0_NS + 40 * SECOND_NS;
        if is_last { Fate::Lost } else { right(seen) }
    });
    check(&it, "off by -");
    check(&it, "innocent streams touched");
}

#[test]
fn what_counts_twice_across_the_switch_fails() {
    let it = judged(|seen| match right(seen) {
        Fate::Raw if seen.user.is_some() => Fate::Both,
        fate => fate,
    });
    check(&it, "groups do not add up");
    assert!(it.totals.0 < it.totals.1 + it.totals.2, "{:?}", it.totals);
}

#[test]
fn a_metric_that_is_never_restored_fails() {
    let it = judged(|seen| if seen.user.is_some() { Fate::Folds } else { Fate::Raw });
    check(&it, "40 of 40 streams not restored");
    assert_eq!(it.restored_after, None);
}

#[test]
fn a_stream_that_comes_back_alone_fails() {
    let early = SWITCH_NS - 3 * SECOND_NS;
    let it = judged(|seen| match seen.user {
        Some("staff-9") if seen.time_ns >= early => Fate::Raw,
        _ => right(seen),
    });
    check(&it, "not one switch");
}

#[test]
fn an_innocent_that_folds_fails() {
    let (pod, from) = (2, T0_NS + 6 * SECOND_NS);
    let it = judged(|seen| match right(seen) {
        Fate::Raw if seen.pod == pod && seen.user.is_none() && seen.time_ns >= from => Fate::Folds,
        fate => fate,
    });
    check(&it, "12 innocent streams touched");
}

#[test]
fn raw_points_of_other_bytes_fail() {
    let (truth, mut books) = play(right, USER_ID);
    let key = ("shop".to_owned(), METRIC.to_owned());
    books.metrics.get_mut(&key).unwrap().raw.print.sum ^= 1;
    check(&judge(&truth, &books, &plan(), &watched(6..26), Ruled::default()), "byte for byte");
}

#[test]
fn a_fold_on_another_label_fails() {
    let (truth, books) = play(right, "route");
    check(
        &judge(&truth, &books, &plan(), &watched(6..26), Ruled::default()),
        "folded series that are not the metric without",
    );
}

#[test]
fn stats_that_say_otherwise_fail() {
    let (truth, books) = play(right, USER_ID);
    check(
        &judge(&truth, &books, &plan(), &watched(0..0), Ruled::default()),
        "never showed a contained metric",
    );
    check(
        &judge(&truth, &books, &plan(), &watched(6..45), Ruled::default()),
        "a contained metric at the end",
    );
}

#[test]
fn an_export_without_an_answer_and_a_leak_without_streams_fail() {
    let (mut truth, books) = play(right, USER_ID);
    truth.exports.dropped = 1;
    check(&judge(&truth, &books, &plan(), &watched(6..26), Ruled::default()), "1 exports given up");
    truth.leaked.clear();
    check(&judge(&truth, &books, &plan(), &watched(6..26), Ruled::default()), "nothing leaked");
}

fn run_of(seconds: u64, leak: u64) -> Options {
    Options { seconds, leak, ..Options::parse_from(["phoenix-demo"]) }
}

#[test]
fn when_the_label_leaks() {
    assert!(leak(&run_of(seconds_min() - 1, 200_000), "shop").is_none());
    assert!(leak(&run_of(60, 0), "shop").is_none());
    for (seconds, from, until, users, is_due) in [
        (90, 33, 45, 120_000, true),
        (60, 23, 27, 40_000, true),
        (45, 18, 22, 40_000, false),
        (seconds_min(), 11, 15, 40_000, false),
    ] {
        let it = leak(&run_of(seconds, 120_000), "shop").unwrap();
        let second = Duration::from_secs;
        let due = |released, decided| is_restoration_due(&it, released, decided, second(20));
        assert_eq!(due(it.from, it.from + second(2)), is_due, "{seconds} s");
        assert!(!due(it.from + second(20), it.from + second(22)), "{seconds} s, late");
        assert!(!due(it.from, it.from + second(30)), "{seconds} s, decided late");
        let (is_from, is_until) = (it.from.as_secs(), it.until.as_secs());
        assert_eq!((is_from, is_until, it.users), (from, until, users), "{seconds} s");
        assert_eq!(it.leaked(Duration::ZERO), None);
        assert_eq!(it.leaked(it.until), Some(users / u64::from(PODS)));
    }
}

#[test]
fn stats_are_found_by_their_names() {
    let stats = BTreeMap::from([
        ("wasmcustom.phoenix_contained".to_owned(), 7),
        ("wasmcustom.phoenix_contained_metrics".to_owned(), 1),
        ("wasmcustom.phoenix_admitted_series".to_owned(), 60),
    ]);
    let look = Look::of(&stats, 5);
    assert_eq!((look.at_ns, look.contained, look.contained_metrics, look.admitted_series), (5, 7, 1, 60));
}

/// From when until when the rule holds in a run that is decided about.
const FROM_NS: u64 = T0_NS + 12 * SECOND_NS;

fn ruled() -> Ruled {
    Ruled { begin_ns: T0_NS, from_ns: Some(FROM_NS), until_ns: Some(SWITCH_NS), is_short: false, gateways: 1 }
}

/// What a right module does where the control host says so.
fn right_by_rule(seen: &Seen<'_>) -> Fate {
    match right(seen) {
        Fate::Raw if (FROM_NS..SWITCH_NS).contains(&seen.time_ns) => Fate::Folds,
        fate => fate,
    }
}

fn judged_by_rule(ruled: Ruled, fate: impl Fn(&Seen<'_>) -> Fate) -> Explosion {
    let (truth, books) = play(fate, USER_ID);
    judge(&truth, &books, &plan(), &watched(6..13), ruled)
}

#[test]
fn a_right_rule_holds() {
    let it = judged_by_rule(ruled(), right_by_rule);
    assert_eq!(it.failures, Vec::<String>::new());
    assert_eq!((it.restored, it.writers.len(), it.series), (40, 1, 160));
    let (counted, raw, folded) = it.totals;
    assert!(counted == raw + folded && raw > 0 && folded > 0, "{:?}", it.totals);
    assert!(render(&it).contains("from 12.0 s to 30.0 s, in 1 gateways"), "{}", render(&it));
}

#[test]
fn a_rule_that_holds_at_another_time_fails() {
    let early = Ruled { from_ns: Some(FROM_NS - 2 * SECOND_NS), ..ruled() };
    check(&judged_by_rule(early, right_by_rule), "innocent streams touched");
    let late = Ruled { until_ns: Some(SWITCH_NS + 2 * SECOND_NS), ..ruled() };
    check(&judged_by_rule(late, right_by_rule), "the control host says");
    let never = Ruled { until_ns: None, ..ruled() };
    check(&judged_by_rule(never, right_by_rule), "the control host says");
    check(&judged_by_rule(ruled(), right), "60 innocent streams touched");
    check(&judged_by_rule(ruled(), right), "byte for byte");
}

#[test]
fn a_rule_that_one_gateway_does_not_have_fails() {
    let two = Ruled { gateways: 2, ..ruled() };
    check(&judged_by_rule(two, right_by_rule), "in 1 gateways, not in 2");
}

#[test]
fn what_a_rule_folds_is_not_counted_raw_as_well() {
    // Across the way back the first raw point stands at the whole total; what of it folded must be in the fold.
    let it = judged_by_rule(ruled(), |seen| match right_by_rule(seen) {
        Fate::Folds if seen.user.is_none() && seen.time_ns >= SWITCH_NS - SECOND_NS => Fate::Lost,
        fate => fate,
    });
    check(&it, "groups do not add up");
}

#[test]
fn a_run_that_is_short_need_not_restore() {
    let short = Ruled { until_ns: None, is_short: true, ..ruled() };
    let it = judged_by_rule(short, |seen| match seen.user {
        None if seen.time_ns < FROM_NS => Fate::Raw,
        _ => Fate::Folds,
    });
    assert_eq!(it.failures, Vec::<String>::new());
    assert!(render(&it).contains("too short"), "{}", render(&it));
}
