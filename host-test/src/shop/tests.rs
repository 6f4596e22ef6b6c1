//! The generator against the sink, without and with a network between them, and without Envoy.

use super::catalogue::{METRICS, PROMOTED};
use super::client::{Client, Protocol};
use super::pod::Pod;
use super::schedule::schedule;
use super::{Shop, ShopConfig, Truth};
use crate::sink::{Books, BooksConfig, Fault, Sink};
use std::time::Duration;

const SECOND_NS: u64 = 1_000_000_000;

pub(crate) fn small() -> ShopConfig {
    ShopConfig { replicas: 1, length: Duration::from_secs(20), ..ShopConfig::default() }
}

/// Runs the shop in virtual time; `deliver` says how often each acknowledged body reaches the sink.
pub(crate) fn virtual_run(config: &ShopConfig, deliver: impl Fn(usize) -> usize) -> (Truth, Books) {
    let mut truth = Truth::new(BooksConfig::default());
    let mut books = Books::new(BooksConfig::default());
    let mut bodies = 0;
    for life in schedule(config) {
        let at = |when: Duration| 1_000 * SECOND_NS + when.as_nanos() as u64;
        let mut pod = Pod::new(config.seed, &life, at(life.from));
        let mut restarts = life.restarts.iter().copied().peekable();
        let mut now = life.from + life.offset;
        while now < life.until {
            if let Some(when) = restarts.next_if(|when| *when <= now) {
                pod.restart(at(when));
                continue;
            }
            let export = pod.export(at(now));
            truth.acknowledge("shop", &export);
            pod.acknowledged();
            for _ in 0..deliver(bodies) {
                books.add("shop", &export.body).unwrap();
            }
            bodies += 1;
            now += config.interval;
        }
    }
    assert!(bodies > 10);
    (truth, books)
}

fn differing(truth: &Truth, books: &Books) -> Vec<&'static str> {
    let mut out = Vec::new();
    for spec in METRICS {
        let book = books.metric(spec.name).unwrap();
        let is_counted = book.kinds.iter().all(|kind| kind.has_total() || kind.has_observations());
        if is_counted && !truth.total(spec.name).unwrap().agrees(book.counted(0)) {
            out.push(spec.name);
        }
    }
    out
}

#[test]
fn totals_drawn_are_totals_read() {
    for seed in 0..8 {
        let (truth, books) = virtual_run(&ShopConfig { seed, ..small() }, |_| 1);
        assert_eq!(differing(&truth, &books), Vec::<&str>::new(), "seed {seed}");
        assert!(books.findings().is_empty(), "seed {seed}: {:?}", books.findings().first());
        for spec in METRICS {
            let (sent, received) = (truth.books.metric(spec.name).unwrap(), books.metric(spec.name).unwrap());
            assert_eq!(sent.raw.print, received.raw.print);
            assert!(received.folded.points == 0 && received.raw.points > 0, "{}", spec.name);
        }
        assert!(truth.total("http_requests").unwrap().ints > 1000);
    }
}

#[test]
fn restarts_and_deploys_happen() {
    let lives = schedule(&ShopConfig::default());
    assert!(lives.iter().filter(|life| life.is_new_version).count() >= 10);
    assert!(lives.iter().map(|life| life.restarts.len()).sum::<usize>() >= 5);
    assert_eq!(lives, schedule(&ShopConfig::default()), "a function of the seed");
    assert_ne!(lives, schedule(&ShopConfig { seed: 2, ..ShopConfig::default() }));
}

#[test]
fn a_repeated_body_is_found() {
    let (truth, books) = virtual_run(&small(), |body| if body == 5 { 2 } else { 1 });
    assert!(!books.findings().is_empty());
    assert_ne!(
        truth.books.metric("process_memory").unwrap().raw.print,
        books.metric("process_memory").unwrap().raw.print
    );
}

#[test]
fn the_last_body_lost_is_found() {
    let (_, whole) = virtual_run(&small(), |_| 1);
    let last = whole.bodies as usize - 1;
    let (truth, books) = virtual_run(&small(), |body| usize::from(body != last));
    let differing = differing(&truth, &books);
    assert!(
        differing.contains(&"http_requests") && differing.contains(&"process_cpu_seconds"),
        "{differing:?}"
    );
}

#[test]
fn stored_series_shrink_as_labels_drop() {
    let (truth, _) = virtual_run(&small(), |_| 1);
    let promoted = PROMOTED.map(str::to_owned).to_vec();
    let book = truth.books.metric("http_requests").unwrap();
    let dropped = ["k8s.pod.name", "service.instance.id", "user_agent"].map(str::to_owned);
    let (all, kept) = (book.raw.stored(&promoted, &[]).len(), book.raw.stored(&promoted, &dropped).len());
    assert!(kept > 0 && kept * 4 < all, "{all} → {kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_protocol_reaches_the_sink() {
    let sink = Sink::start(BooksConfig::default()).await.unwrap();
    let config = ShopConfig {
        replicas: 2,
        length: Duration::from_millis(1500),
        interval: Duration::from_millis(200),
        replace_every: Duration::from_millis(300),
        restart_every: Duration::from_millis(400),
        requests_per_connection: 3,
        ..ShopConfig::default()
    };
    let (truth, progress) = Shop::open(&config, sink.address(), BooksConfig::default()).close().await;
    let books = sink.books();
    assert_eq!(differing(&truth, &books), Vec::<&str>::new());
    assert!(books.findings().is_empty(), "{}", books.findings()[0]);
    assert_eq!(books.bodies, truth.exports.acknowledged);
    assert_eq!((truth.exports.dropped, truth.exports.unanswered, sink.counts().malformed), (0, 0, 0));
    assert!(truth.exports.connections > 32 && progress.restarts > 0, "{:?} {progress:?}", truth.exports);
    assert_eq!(books.metrics.keys().next().unwrap().0, "shop");
}

#[tokio::test]
async fn a_client_retries_what_the_specification_says() {
    let (_, life) = (0, schedule(&small()).remove(0));
    let body = Pod::new(1, &life, SECOND_NS).export(3 * SECOND_NS).body;
    let cases = [
        (Protocol::Http1, Fault::Status(503), true),
        (Protocol::Http1Gzip, Fault::Status(429), true),
        (Protocol::Http2, Fault::Status(400), false),
        (Protocol::Grpc, Fault::GrpcStatus(14), true),
        (Protocol::GrpcGzip, Fault::GrpcTrailers(14), true),
        (Protocol::Grpc, Fault::GrpcStatus(3), false),
        (Protocol::Http1, Fault::Close, true),
        (Protocol::Grpc, Fault::Close, true),
    ];
    for (protocol, fault, retries) in cases {
        let sink = Sink::start(BooksConfig::default()).await.unwrap();
        sink.fail_next(1, fault);
        let mut client = Client::new(sink.address(), protocol, "", 0);
        let outcome = client.export(&body).await;
        assert_eq!(outcome.is_acknowledged, retries, "{protocol:?} {fault:?}");
        assert_eq!(sink.books().bodies, u64::from(retries), "{protocol:?} {fault:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_makes_a_duplicate() {
    let sink = Sink::start(BooksConfig::default()).await.unwrap();
    sink.fail_next(1, Fault::BookAndClose);
    let life = schedule(&small()).remove(1);
    let body = Pod::new(1, &life, SECOND_NS).export(3 * SECOND_NS).body;
    let outcome = Client::new(sink.address(), Protocol::Http1, "t", 0).export(&body).await;
    assert!(outcome.is_acknowledged && outcome.unanswered == 1);
    assert_eq!(sink.books().bodies, 2);
    assert!(!sink.books().findings().is_empty());
}

#[tokio::test]
async fn partial_success_is_read() {
    let sink = Sink::start(BooksConfig::default()).await.unwrap();
    let life = schedule(&small()).remove(0);
    let body = Pod::new(1, &life, SECOND_NS).export(3 * SECOND_NS).body;
    for protocol in Protocol::ALL {
        sink.fail_next(1, Fault::Partial(7));
        let outcome = Client::new(sink.address(), protocol, "t", 0).export(&body).await;
        assert_eq!((outcome.is_acknowledged, outcome.rejected_points), (true, 7), "{protocol:?}");
    }
}
