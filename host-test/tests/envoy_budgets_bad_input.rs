//! Bad input under budgets on a real Envoy: values of a megabyte, points with ten thousand attributes, keys twice, bytes that are no text, times days away, tenants by the
//! thousand, more streams than any table holds. Whatever comes, Envoy lives, a counter says what it was, and who did nothing wrong is untouched.
//!
//! The innocent tenant speaks before and after each of them, through the same workers: ten streams, and ten more that begin in the end, each point of which must arrive as it was
//! sent; none may fold, none may come twice. What is not proven here: that the clock of the machine jumps (`host-test/tests/budgets_workers.rs` has that, under the test host).

mod common;

use bytes::Bytes;
use common::call::{Call, Wire};
use common::otlp::{SECOND_NS, delta, gauge, request};
use common::plan::{TENANT, document};
use common::stage::{RESIDENT_BYTES_MAX, Setup, Stage};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use phoenix_host_test::shop::otlp::{CUMULATIVE, metric, number, sum, text};
use phoenix_host_test::shop::run::unix_ns;
use phoenix_host_test::sink::series::Series;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Streams of the innocent tenant, all of its share and all reserved.
const INNOCENT_STREAMS: usize = 20;
const INNOCENT: &str = "innocent";
/// Series of the process: some of the tests bring more.
const SERIES_MAX: usize = 2_000;
const TENANTS_MAX: usize = 50;
const DAY_NS: u64 = 86_400 * SECOND_NS;

fn plugin() -> Value {
    let mut document = document();
    let plan = &mut document["plan"];
    plan["limits"] = json!({
        "active_series_max": SERIES_MAX, "tenants_max": TENANTS_MAX, "measure_bytes_max": 1 << 20,
        "streams_max": 2_000, "delta_streams_max": 2_000, "series_max": 200
    });
    plan["measure"] = json!({"period": "10m"});
    plan["budgets"] = json!({
        "tenants": [
            {"tenant": INNOCENT, "active_series": INNOCENT_STREAMS, "reserved": INNOCENT_STREAMS},
            {"active_series": 1_500}
        ],
        "metrics": [{"metric": {"prefix": "small_"}, "active_series": 10}],
        "dwell": "1s",
        "switch_lead": "2s",
        "fold": {"window": "1s", "offset": "0s", "delay": "1s"}
    });
    document
}

/// The innocent tenant.
struct Innocent {
    start_ns: u64,
    total: i64,
    /// So many of its streams have begun: half at first, the others when the hostile have done their worst.
    streams: usize,
    /// Times of its exports, the totals, and how many streams said them.
    sent: BTreeMap<u64, (i64, usize)>,
}

impl Innocent {
    async fn begin(stage: &Stage) -> Innocent {
        let mut innocent = Innocent {
            start_ns: unix_ns() - SECOND_NS,
            total: 0,
            streams: INNOCENT_STREAMS / 2,
            sent: BTreeMap::new(),
        };
        innocent.speak(stage).await;
        innocent
    }

    async fn speak(&mut self, stage: &Stage) {
        let time_ns = unix_ns();
        self.total += 1;
        let points = (0..self.streams).map(|n| {
            let labels = vec![text("user", &format!("u{n}"))];
            number(labels, self.start_ns, time_ns, Number::AsInt(self.total))
        });
        let metric = metric("innocent", "1", sum(points.collect(), CUMULATIVE, true));
        let call = Call::http(Wire::Http1, request("innocent", vec![metric])).with(TENANT, INNOCENT);
        let reply = stage.call(call).await;
        assert_eq!(reply.as_ref().map(|it| it.status), Some(200), "{reply:?}\n{}", stage.log());
        self.sent.insert(time_ns, (self.total, self.streams));
    }

    /// All of it arrived as it was sent, once.
    fn is_untouched(&self, stage: &Stage) {
        let books = stage.sink.books();
        let book = &books.metrics[&(INNOCENT.to_owned(), "innocent".to_owned())];
        assert_eq!((book.folded.points, book.raw.series.len()), (0, INNOCENT_STREAMS));
        for series in book.raw.series.values() {
            let got: Vec<(u64, _)> = series.samples.iter().map(|it| (it.time_ns, it.value)).collect();
            let wanted: Vec<(u64, _)> = self
                .sent
                .iter()
                .filter(|(_, (_, streams))| number_of(series) < *streams)
                .map(|(time_ns, (total, _))| (*time_ns, phoenix_host_test::sink::series::Value::Int(*total)))
                .collect();
            assert_eq!(got, wanted, "{:?}", series.point);
        }
    }
}

/// A request of a hostile tenant. Whatever the backend says of it: the worker must answer.
async fn hostile(stage: &Stage, tenant: &str, body: Bytes) {
    let call = Call::http(Wire::Http1, body).with(TENANT, tenant);
    let reply = stage.call(call).await;
    let status = reply.as_ref().map(|it| it.status);
    assert!(status.is_some_and(|status| status < 500), "{tenant}: {reply:?}\n{}", stage.log());
}

async fn moved(stage: &Stage, names: &[&str], before: &BTreeMap<String, i64>) {
    for name in names {
        let was = before.get(*name).copied().unwrap_or(0);
        stage.counter_reaches(name, was + 1).await;
    }
}

fn delta_with(name: &str, labels: Vec<KeyValue>) -> Metric {
    delta(name, labels, 1)
}

/// The number of an innocent stream.
fn number_of(series: &Series) -> usize {
    series.point["user"].trim_matches('"').trim_start_matches('u').parse().expect("a number")
}

/// The end: books that balance, no VM that crashed, bounded memory, an innocent who noticed nothing.
async fn end(mut stage: Stage, mut innocent: Innocent) -> BTreeMap<String, i64> {
    innocent.streams = INNOCENT_STREAMS;
    innocent.speak(&stage).await;
    stage.nothing_on_its_way().await;
    innocent.is_untouched(&stage);
    stage.balance().await;
    stage.alive().await;
    let resident_bytes = stage.envoy.usage().expect("usage").resident_bytes;
    assert!(resident_bytes < RESIDENT_BYTES_MAX, "{} MiB resident", resident_bytes >> 20);
    let counters = stage.counters().await;
    assert_eq!(counters["bugs"], 0, "{counters:?}");
    counters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_labels_are_counted_and_hurt_nobody() {
    let stage = Stage::start(Setup::workers(plugin(), 2)).await;
    stage.warm_up().await;
    let mut innocent = Innocent::begin(&stage).await;
    let start = stage.counters().await;

    // A value of a megabyte in each of thirty streams, and in the label that stays of three hundred that fold on another.
    for n in 0..30 {
        let labels = vec![text("user", &format!("{n}{}", "x".repeat(1 << 20)))];
        hostile(&stage, "mob", request("mob", vec![delta_with("small_values", labels)])).await;
    }
    innocent.speak(&stage).await;
    moved(&stage, &["contained"], &start).await;
    let long = "y".repeat(1 << 20);
    let points =
        (0..20).map(|n| delta_with("small_kept", vec![text("kept", &long), text("user", &format!("u{n}"))]));
    hostile(&stage, "mob", request("mob", points.collect())).await;
    innocent.speak(&stage).await;
    moved(&stage, &["unwritable"], &start).await;

    // Ten thousand attributes: more than budgets look at. And four thousand, which they do.
    for (count, streams) in [(10_000, 3), (4_000, 12)] {
        for n in 0..streams {
            let labels = (0..count).map(|key| text(&format!("k{key}"), &format!("{n}"))).collect();
            hostile(&stage, "mob", request("mob", vec![delta_with("small_many", labels)])).await;
        }
        innocent.speak(&stage).await;
    }
    moved(&stage, &["undecided"], &start).await;

    // Keys that come twice, with one value and with two; keys without a name.
    for n in 0..30 {
        let value = format!("v{n}");
        let labels =
            vec![text("user", &value), text("user", &value), text("user", "other"), text("", &value)];
        hostile(&stage, "mob", request("mob", vec![delta_with("small_twice", labels)])).await;
    }
    innocent.speak(&stage).await;

    // Bytes that are no text, in a whole message and in the text of labels alone.
    for n in 0..30 {
        let labels = vec![text("user", &format!("\u{1}{n}")), text("k\u{1}", "v")];
        let body = request("mob", vec![delta_with("small_bytes", labels), delta_with("small_\u{1}", vec![])]);
        let broken: Vec<u8> = body.iter().map(|byte| if *byte == 1 { 0xff } else { *byte }).collect();
        hostile(&stage, "mob", Bytes::from(broken)).await;
        let of_text = body_with(&body, b"\x01", b"\xff");
        hostile(&stage, "mob", of_text).await;
    }
    innocent.speak(&stage).await;
    moved(&stage, &["errors_decode"], &start).await;

    // Types for which nothing is declared.
    hostile(
        &stage,
        "mob",
        request("mob", (0..30).map(|n| gauge(&format!("small_gauge{}", n % 2), n)).collect()),
    )
    .await;
    innocent.speak(&stage).await;
    moved(&stage, &["undeclared"], &start).await;
    let counters = end(stage, innocent).await;
    assert!(counters["admitted_series"] <= SERIES_MAX as i64, "{counters:?}");
}

/// The text of labels alone, changed: lengths stay as they are.
fn body_with(body: &Bytes, from: &[u8; 1], to: &[u8; 1]) -> Bytes {
    let mut out = body.to_vec();
    // A string of two or three bytes begins with this one only where it is a label's value or a key's end: lengths and tags before it tell.
    for at in 2..out.len() {
        let is_value = out[at] == from[0] && out[at - 2] == 0x0a && (2..4).contains(&out[at - 1]);
        let is_key = out[at] == from[0] && out[at - 1] == b'k' && out[at - 3] == 0x0a;
        if is_value || is_key {
            out[at] = to[0];
        }
    }
    Bytes::from(out)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_days_away_are_counted_and_move_no_clock() {
    let stage = Stage::start(Setup::workers(plugin(), 2)).await;
    stage.warm_up().await;
    let mut innocent = Innocent::begin(&stage).await;
    let start = stage.counters().await;
    let now_ns = unix_ns();
    let at = |time_ns: u64, n: usize, name: &str| {
        let labels = vec![text("user", &format!("u{n}"))];
        let point = number(labels, time_ns - SECOND_NS, time_ns, Number::AsInt(1));
        metric(name, "1", sum(vec![point], CUMULATIVE, true))
    };
    let times = [now_ns + 3 * DAY_NS, now_ns - 3 * DAY_NS, 2 * SECOND_NS, u64::MAX, now_ns + 400 * DAY_NS];
    for round in 0..3 {
        for (which, time_ns) in times.into_iter().enumerate() {
            // Many new streams, the same again and again, in a metric that overflows and in one that does not.
            let points = (0..40).map(|n| at(time_ns - round, n + 40 * which, "small_times"));
            let more = (0..5).map(|n| at(time_ns - round, n, "times"));
            hostile(&stage, "mob", request("mob", points.chain(more).collect())).await;
            innocent.speak(&stage).await;
        }
    }
    moved(&stage, &["contained"], &start).await;
    // Three of the times lie ahead, three rounds of forty streams each.
    let ahead = start.get("ahead").copied().unwrap_or(0);
    stage.counter_reaches("ahead", ahead + 3 * 3 * 40).await;
    // What is of now is decided about as ever.
    stage.nothing_on_its_way().await;
    let before = stage.counter("contained").await;
    hostile(
        &stage,
        "mob",
        request("mob", (0..40).map(|n| at(unix_ns(), 1_000 + n, "small_times")).collect()),
    )
    .await;
    assert_eq!(stage.counter_reaches("contained", before + 40).await, before + 40);
    innocent.speak(&stage).await;
    end(stage, innocent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_by_the_thousand_and_full_tables_leave_the_innocent_alone() {
    let stage = Stage::start(Setup::workers(plugin(), 2)).await;
    stage.warm_up().await;
    let mut innocent = Innocent::begin(&stage).await;
    let start = stage.counters().await;
    // Three thousand tenants, each with a few series: those beyond the plan's number share one budget.
    for n in 0..3_000_usize {
        let points = (0..3).map(|user| delta_with("tenants", vec![text("user", &format!("{n}.{user}"))]));
        hostile(&stage, &format!("tenant-{n}"), request("mob", points.collect())).await;
        if n % 500 == 0 {
            innocent.speak(&stage).await;
        }
    }
    moved(&stage, &["contained"], &start).await;
    let counters = stage.counters().await;
    let series = counters["admitted_series"] + counters["budget_series"];
    assert!(series <= SERIES_MAX as i64, "{counters:?}");
    // More metrics and labels than there is memory to measure, more streams and series than the fold holds.
    for round in 0..20 {
        let metrics = (0..200).map(|n| {
            let name = format!("many_{}", round * 200 + n);
            delta_with(&name, (0..8).map(|key| text(&format!("k{key}"), &format!("{n}"))).collect())
        });
        hostile(&stage, "mob", request("mob", metrics.collect())).await;
        let users = (0..400).map(|n| {
            let labels = vec![text("user", &format!("{round}.{n}")), text("route", &format!("{}", n % 300))];
            delta_with("small_streams", labels)
        });
        hostile(&stage, "mob", request("mob", users.collect())).await;
        innocent.speak(&stage).await;
    }
    moved(&stage, &["unmeasured", "contained"], &start).await;
    let counters = end(stage, innocent).await;
    // A metric's total has to be somewhere: each that is contained has one folded series at least. And a reserved part is given in any case.
    let series = counters["admitted_series"] + counters["budget_series"] - counters["contained_metrics"];
    assert!(series <= (SERIES_MAX + INNOCENT_STREAMS) as i64, "{counters:?}");
}
