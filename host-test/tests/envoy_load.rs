//! Load on a real Envoy: many workers, short connections, a push every second, clients that hang up. Every total is exact in the end.
//!
//! In: the web shop, over every transport. Asked: the demo's verdict, the module's own books, and no answer but good ones where nothing was broken on
//! purpose. What is not proven here: speed; and what a restart of Envoy costs.

mod common;

use common::call::{Call, Wire};
use common::otlp::{self, SECOND_NS, delta, request};
use common::plan::{document, shop_document};
use common::stage::{Setup, Stage};
use phoenix_host_test::demo::judge::judge;
use phoenix_host_test::shop::otlp::text;
use phoenix_host_test::shop::run::Progress;
use phoenix_host_test::shop::{Shop, ShopConfig, Truth};
use phoenix_host_test::sink::BooksConfig;
use phoenix_plan::Plan;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Longer than the last window and its delay, by far: a busy machine is slow, not wrong.
const PATIENCE: Duration = Duration::from_secs(40);

/// A shop that is hard on connections and processes.
fn shop(seconds: u64) -> ShopConfig {
    ShopConfig {
        seed: seconds,
        replicas: 2,
        length: Duration::from_secs(seconds),
        interval: Duration::from_millis(60),
        replace_every: Duration::from_millis(700),
        restart_every: Duration::from_millis(900),
        requests_per_connection: 20,
        ..ShopConfig::default()
    }
}

fn books(stage: &Stage) -> BooksConfig {
    stage.sink.books().config
}

fn plan(document: &Value) -> Plan {
    Plan::parse(document["plan"].to_string().as_bytes()).expect("a valid plan")
}

/// Waits for the demo's verdict to hold, then makes sure that it goes on to hold.
async fn verdict_holds(stage: &Stage, truth: &Truth, document: &Value) {
    let plan = plan(document);
    let begin = Instant::now();
    loop {
        let verdict = judge(truth, &stage.sink.books(), &plan, &[]);
        if verdict.holds() {
            break;
        }
        let failures = || verdict.all_failures().join("\n");
        assert!(begin.elapsed() < PATIENCE, "{}\n{:?}\n{}", failures(), truth.exports, stage.log());
        sleep(Duration::from_millis(250)).await;
    }
    // A window and its delay are two seconds each.
    sleep(Duration::from_secs(2)).await;
    stage.nothing_on_its_way().await;
    let verdict = judge(truth, &stage.sink.books(), &plan, &[]);
    assert!(verdict.holds(), "no longer: {}", verdict.all_failures().join("\n"));
}

fn is_undisturbed(truth: &Truth, progress: &Progress) {
    let e = truth.exports;
    assert_eq!((e.retries, e.dropped, e.unanswered, e.partial), (0, 0, 0, 0), "{e:?}");
    assert!(e.acknowledged > 200 && progress.restarts > 2, "hardly any load: {e:?} {progress:?}");
}

/// Four workers, connections that close after every twenty requests, all transports, pods that come, go and restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_workers_and_connections_of_twenty_requests() {
    for shards in [1, 3] {
        let mut document = shop_document();
        document["plan"]["shards"] = json!(shards);
        let mut stage = Stage::start(Setup::workers(document.clone(), 4)).await;
        stage.warm_up().await;
        let shop = Shop::open(&shop(8), stage.envoy.address(), books(&stage));
        let (truth, progress) = shop.close().await;
        is_undisturbed(&truth, &progress);
        assert!(truth.exports.connections > 2 * progress.born, "connections lived on: {:?}", truth.exports);
        verdict_holds(&stage, &truth, &document).await;
        stage.balance().await;
        stage.alive().await;
        let counters = stage.counters().await;
        assert_eq!(counters["rebaselines"] + counters["refused"], 0, "{counters:?}");
    }
}

/// One push every second for thirty seconds under load, refused ones among them: no answer but good ones, every total exact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_every_second_for_thirty_seconds() {
    let mut document = shop_document();
    let mut stage = Stage::start(Setup::workers(document.clone(), 4)).await;
    stage.warm_up().await;
    let shop = Shop::open(&shop(33), stage.envoy.address(), books(&stage));
    let mut refused = 0;
    let begin = Instant::now();
    for second in 1..=30u32 {
        tokio::time::sleep_until(begin + Duration::from_secs(1) * second).await;
        let mut pushed = document.clone();
        pushed["plan"]["version"] = json!(u64::from(second) + 1);
        let wrong = match second % 10 {
            3 => {
                pushed["plan"]["rules"][0]["fold"]["window"] = json!("5ms");
                Some("field fold.window: value \"5ms\" is not allowed; allowed: 1s to 1h")
            }
            6 => {
                pushed["plan"]["shards"] = json!(2);
                Some("field shards: value 2 is not allowed; allowed: 1")
            }
            9 => {
                pushed["envoy"]["emit"]["timeout"] = json!("1ms");
                Some("field envoy.emit.timeout: value 1 ms is not allowed; allowed: 100ms to 60s")
            }
            _ => None,
        };
        if let Some(why) = wrong {
            stage.push_refused(&pushed).await;
            refused += 1;
            let log = stage.envoy.log();
            let lines: Vec<&str> = log.lines().filter(|l| l.contains("refused: ")).collect();
            assert!(lines.last().is_some_and(|l| l.contains(why)), "push {second}: {lines:#?}");
            assert_eq!(lines.len(), refused, "one line for each refusal: {lines:#?}");
        } else {
            stage.push(&pushed).await;
            document = pushed;
        }
    }
    let (truth, progress) = shop.close().await;
    is_undisturbed(&truth, &progress);
    verdict_holds(&stage, &truth, &document).await;
    stage.balance().await;
    assert!(stage.envoy.is_running());
    let counters = stage.counters().await;
    assert_eq!(counters["rebaselines"] + counters["refused"], 0, "{counters:?}");
    let pushes = stage.envoy.pushes().await.expect("stats");
    assert!(pushes.0 >= 21 && pushes.1 >= 9, "{pushes:?}");
}

/// Exporters that hang up now and then and send the same again: what is folded counts once, whether the first attempt was answered or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exporters_that_hang_up_and_come_again() {
    let document = shop_document();
    let mut stage = Stage::start(Setup::workers(document.clone(), 4)).await;
    stage.warm_up().await;
    // Longer than the exporters' patience when they have little, so that what a busy or idle machine does decides nothing.
    stage.sink.answer_after(Duration::from_millis(3));
    let config = ShopConfig { hang_up_every: 3, ..shop(8) };
    let (truth, _) = Shop::open(&config, stage.envoy.address(), books(&stage)).close().await;
    assert!(truth.exports.unanswered > 20 && truth.exports.dropped == 0, "{:?}", truth.exports);
    let plan = plan(&document);
    let folded = |name: &str| {
        let rule = plan.rule_for(b"", name.as_bytes(), |_| None, |_| None);
        rule.is_some_and(|(_, rule)| rule.fold.is_some())
    };
    let wrong = |stage: &Stage| -> Vec<String> {
        let books = stage.sink.books();
        let names = truth.books.metrics.keys().map(|(_, name)| name).filter(|name| folded(name));
        let total = |name: &str| books.metric(name).map(|m| m.counted(books.config.run_start_ns));
        names
            .filter(|name| !truth.total(name).zip(total(name)).is_some_and(|(a, b)| a.agrees(b)))
            .map(|name| format!("{name}: in {:?} out {:?}", truth.total(name), total(name)))
            .collect()
    };
    let begin = Instant::now();
    while !wrong(&stage).is_empty() {
        assert!(begin.elapsed() < PATIENCE, "{:#?}\n{:?}", wrong(&stage), stage.counters().await);
        sleep(Duration::from_millis(250)).await;
    }
    sleep(Duration::from_secs(2)).await;
    stage.nothing_on_its_way().await;
    assert!(wrong(&stage).is_empty(), "no longer: {:#?}", wrong(&stage));
    let findings = stage.sink.books().findings();
    let of_folded = findings.iter().find(|f| folded(&f.metric));
    assert!(of_folded.is_none(), "{}", of_folded.map(ToString::to_string).unwrap_or_default());
    stage.balance().await;
    stage.alive().await;
    let counters = stage.counters().await;
    assert!(counters["unanswered"] > 0, "nobody hung up in time: {counters:?}");
}

/// Clients that hang up at any moment and do not come again. Each request is a series of its own in the fold, so each one's fate is seen:
/// acknowledged is there once; the rest is there once or counted as unanswered, and the counters say how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_and_the_rest_is_counted() {
    let mut document = document();
    document["plan"]["rules"][0]["fold"]["labels"]["drop"]["attributes"] = json!(["user"]);
    let mut stage = Stage::start(Setup::workers(document, 4)).await;
    stage.good().await;
    stage.sink.answer_after(Duration::from_millis(2));
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut clients = JoinSet::new();
    let mut fates: BTreeMap<String, (i64, bool)> = BTreeMap::new();
    for round in 0..600i64 {
        let name = format!("request-{round}");
        let metric = delta("fold_each", vec![text("request", &name), text("user", "u")], round + 1);
        let body = request(&name, vec![metric]);
        let address = stage.envoy.address();
        let hang_up = rng.random_bool(0.5).then(|| Duration::from_micros(rng.random_range(0..6_000)));
        let half = rng.random_bool(0.1).then(|| rng.random_range(0..body.len()));
        let wire = Wire::ALL[rng.random_range(0..4)];
        let is_grpc = rng.random_bool(0.3);
        clients.spawn(async move {
            if let Some(half) = half {
                Call::http(Wire::Http1, body).hang_up_after(address, half).await;
                return (name, round + 1, false);
            }
            let call = if is_grpc { Call::grpc(&body) } else { Call::http(wire, body) };
            let call = match hang_up {
                Some(after) => call.patient_for(after),
                None => call,
            };
            let reply = call.send(address).await;
            let good =
                reply.as_ref().is_some_and(|r| r.status == 200 && (!is_grpc || r.grpc_status() == Some("0")));
            assert!(good || hang_up.is_some(), "{name}: {reply:?}");
            (name, round + 1, good)
        });
        if clients.len() >= 16 {
            let (name, value, good) = clients.join_next().await.expect("a client").expect("no panic");
            fates.insert(name, (value, good));
        }
    }
    while let Some(client) = clients.join_next().await {
        let (name, value, good) = client.expect("no panic");
        fates.insert(name, (value, good));
    }
    let acknowledged: i128 = fates.values().filter(|f| f.1).map(|f| i128::from(f.0)).sum();
    let begin = Instant::now();
    let mut stage = loop {
        let arrived = stage.total("fold_each");
        let folded = stage.counter("folded").await;
        let series = arrived_series(&stage);
        // One folded point beside these is the good request.
        if arrived >= acknowledged && series.len() as i64 == folded - 1 {
            break stage;
        }
        assert!(begin.elapsed() < PATIENCE, "{arrived} < {acknowledged}, {} of {folded}", series.len());
        sleep(Duration::from_millis(100)).await;
    };
    stage.nothing_on_its_way().await;
    let series = arrived_series(&stage);
    for (name, (value, good)) in &fates {
        match series.get(name) {
            Some(arrived) => assert_eq!(arrived, value, "{name}"),
            None => assert!(!good, "{name} was acknowledged and is not there"),
        }
    }
    stage.balance().await;
    let c = stage.counters().await;
    assert_eq!(c["folded"] - 1, series.len() as i64, "{c:?}");
    assert_eq!(c["recorded"], c["folded"] + c["unanswered"] + c["upstream_refused"], "{c:?}");
    assert!(c["unanswered"] > 0 && series.len() > 100, "not much of a test: {c:?}");
    stage.alive().await;
}

/// What arrived of `fold_each`, by request.
fn arrived_series(stage: &Stage) -> BTreeMap<String, i64> {
    let books = stage.sink.books();
    let mut out = BTreeMap::new();
    let Some(book) = books.metric("fold_each") else { return out };
    assert_eq!(book.raw.points, 0, "points passed raw");
    for series in book.folded.series.values() {
        let name = series.point["request"].trim_start_matches('"').trim_end_matches('"').to_owned();
        let total = i64::try_from(series.read(books.config.run_start_ns).total.ints).expect("small");
        *out.entry(name).or_insert(0) += total;
    }
    out
}

/// Cumulative streams of clients that hang up and never repeat: the next point carries what was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_cumulative_point_carries_what_nobody_answered() {
    let mut stage = Stage::start(Setup::workers(document(), 2)).await;
    stage.warm_up().await;
    stage.sink.answer_after(Duration::from_millis(2));
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut expected = 0i128;
    for pod in 0..12 {
        let start_ns = phoenix_host_test::shop::run::unix_ns();
        let mut value = 0;
        for point in 0..20 {
            value += rng.random_range(0..1_000);
            let now_ns = phoenix_host_test::shop::run::unix_ns().max(start_ns + SECOND_NS / 1_000);
            let metric = otlp::cumulative(otlp::FOLDED_CUMULATIVE, vec![], start_ns, now_ns, value);
            let call = Call::http(Wire::ALL[point % 4], request(&format!("pod-{pod}"), vec![metric]));
            let is_last = point == 19;
            let patience = if is_last { PATIENCE } else { Duration::from_micros(rng.random_range(0..4_000)) };
            let reply = stage.call(call.patient_for(patience)).await;
            assert!(!is_last || reply.is_some_and(|r| r.status == 200));
        }
        expected += i128::from(value);
    }
    stage.total_becomes(otlp::FOLDED_CUMULATIVE, expected).await;
    stage.balance().await;
    stage.alive().await;
    let c = stage.counters().await;
    assert!(c["unanswered"] > 0, "not much of a test: {c:?}");
}
