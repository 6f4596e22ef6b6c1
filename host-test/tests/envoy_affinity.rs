//! Trap 29: one cumulative stream balanced per request over two processes. Two real gateways behind a real balancer, cumulative counters of a fleet.
//!
//! In: totals of pods, sent over and over through the balancer of `envoy/ring-hash.yaml`, once as it is shipped (by a header of the sender) and once
//! with round robin in its place. Out: what the backend holds, against the truth. Under `affinity: checked` the gateways find out by asking each
//! other: with affinity they fold and every total is exact; without it they refuse, and nothing is inflated. The control: under `assumed` the same
//! traffic does inflate, so that the refusal is worth something.

mod common;

use common::call::{Call, Wire};
use common::otlp::{FOLDED_CUMULATIVE, SECOND_NS, cumulative, request};
use common::plan::document;
use common::stage::module;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::envoy::{Envoy, EnvoyOptions, config};
use phoenix_host_test::shop::run::unix_ns;
use phoenix_host_test::sink::{BooksConfig, Sink};
use prost::Message;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// An odd number: round robin over two then sends each pod's requests to both by turns.
const PODS: usize = 31;
/// What a pod counts from one request to the next.
const STEP: i64 = 10;
/// How long something that must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two rounds of all pods; well below the recent time that gateways compare, a window and a delay.
const ROUND: Duration = Duration::from_millis(300);

/// Two gateways, a balancer before them, a backend behind.
struct Fleet {
    sink: Sink,
    gateways: [Envoy; 2],
    balancer: Envoy,
    began_ns: u64,
    rounds: i64,
}

fn port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// The port after a marker in a configuration.
fn port_after(yaml: &str, marker: &str) -> u16 {
    let rest = yaml.split_once(marker).expect(marker).1;
    let digits = rest.split_once("port_value: ").expect("a port").1;
    digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|d| d.parse().ok()).expect("a number")
}

fn plugin(affinity: &str, peers: bool) -> Json {
    let mut document = document();
    document["plan"]["affinity"] = json!(affinity);
    if peers {
        document["envoy"]["peers"] = json!({ "cluster": "phoenix_peers", "interval": "1s" });
    }
    document
}

fn options(plugin: &Json, upstream: SocketAddr) -> EnvoyOptions {
    EnvoyOptions {
        binary: find_binary().expect("these tests need a real Envoy"),
        module: module(),
        plugin_config: plugin.to_string(),
        upstream,
        workers: 2,
        folder: None,
        drain_seconds: 1,
    }
}

impl Fleet {
    async fn start(affinity: &str, by_turns: bool) -> Fleet {
        let began_ns = unix_ns();
        let sink = Sink::start(BooksConfig { run_start_ns: began_ns, ..BooksConfig::default() })
            .await
            .expect("sink");
        sink.keep_requests();
        let plugin = plugin(affinity, true);
        let ports = [port(), port()];
        let endpoints: String = ports
            .iter()
            .map(|p| format!("        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {p} }} }} }}\n"))
            .collect();
        let peers = format!(
            "  - name: phoenix_peers\n    connect_timeout: 2s\n    type: STRICT_DNS\n    load_assignment:\n      cluster_name: phoenix_peers\n      endpoints:\n      - lb_endpoints:\n{endpoints}"
        );
        let gateway = |own: u16| {
            let peers = &peers;
            move |yaml: String| {
                let listener = port_after(&yaml, "listeners:");
                let yaml =
                    yaml.replacen(&format!("port_value: {listener} "), &format!("port_value: {own} "), 1);
                format!("{}\n{peers}", yaml.trim_end())
            }
        };
        let upstream = sink.address();
        let gateways = [
            Envoy::start_edited(options(&plugin, upstream), gateway(ports[0])).await.expect("gateway"),
            Envoy::start_edited(options(&plugin, upstream), gateway(ports[1])).await.expect("gateway"),
        ];
        let balancer = Envoy::start_edited(options(&plugin, upstream), |yaml| {
            let mut text = config::shipped("envoy/ring-hash.yaml").expect("shipped");
            for (default, value) in [
                ("port_value: 9902 ", port_after(&yaml, "admin:")),
                ("port_value: 5318 ", port_after(&yaml, "listeners:")),
                ("port_value: 4318 ", ports[0]),
                ("port_value: 4328 ", ports[1]),
            ] {
                assert!(text.contains(default), "{default}");
                text = text.replace(default, &format!("port_value: {value} "));
            }
            if by_turns {
                let ring = "lb_policy: RING_HASH";
                assert!(text.contains(ring));
                let lines = text.lines().filter(|line| !line.trim_start().starts_with("ring_hash_lb_config"));
                text = lines.collect::<Vec<_>>().join("\n").replace(ring, "lb_policy: ROUND_ROBIN");
            }
            text
        })
        .await
        .expect("balancer");
        Fleet { sink, gateways, balancer, began_ns, rounds: 0 }
    }

    /// Every pod sends its total once.
    async fn round(&mut self) {
        self.rounds += 1;
        for pod in 0..PODS {
            let name = format!("pod-{pod}");
            let start_ns = self.began_ns - 100 * SECOND_NS;
            let body = request(
                &name,
                vec![cumulative(FOLDED_CUMULATIVE, vec![], start_ns, unix_ns(), STEP * self.rounds)],
            );
            let call = Call::http(Wire::Http1, body).with("x-phoenix-affinity", &name);
            let reply = call.send(self.balancer.address()).await;
            assert_eq!(reply.as_ref().map(|r| r.status), Some(200), "{reply:?}\n{}", self.gateways[0].log());
        }
        sleep(ROUND).await;
    }

    /// A counter of both gateways.
    async fn counters(&self, name: &str) -> [i64; 2] {
        let mut out = [0; 2];
        for (gateway, value) in self.gateways.iter().zip(&mut out) {
            let stats = gateway.stats("wasmcustom").await.expect("stats");
            *value = stats.get(&format!("wasmcustom.phoenix_{name}")).copied().unwrap_or(0);
        }
        out
    }

    /// Rounds until a fact about both gateways holds.
    async fn rounds_until(&mut self, what: &str, name: &str, holds: impl Fn(i64) -> bool) {
        let begin = Instant::now();
        loop {
            self.round().await;
            let found = self.counters(name).await;
            if found.iter().all(|value| holds(*value)) {
                return;
            }
            let logs = self.gateways.iter().map(Envoy::log).collect::<String>();
            assert!(begin.elapsed() < PATIENCE, "{what}: {name} is {found:?}\n{logs}");
        }
    }

    /// What the backend holds: of raw series the last total, of folded ones the last total, in sum; and stale markers of raw ones.
    fn held(&self) -> (BTreeMap<String, i64>, i64, BTreeMap<String, usize>) {
        let (mut raw, mut folded, mut markers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for message in self.sink.requests().iter().flat_map(|r| &r.messages) {
            let request = ExportMetricsServiceRequest::decode(message.clone()).expect("OTLP");
            for rm in &request.resource_metrics {
                let attributes = rm.resource.as_ref().map(|r| r.attributes.as_slice()).unwrap_or_default();
                let pod = attributes.iter().find(|kv| kv.key == "k8s.pod.name");
                for data in rm.scope_metrics.iter().flat_map(|s| &s.metrics).filter_map(|m| m.data.as_ref()) {
                    let Data::Sum(sum) = data else { continue };
                    for point in &sum.data_points {
                        let writer = point.attributes.iter().find(|kv| kv.key == "phoenix_writer");
                        let Some(Value::AsInt(total)) = point.value else {
                            *markers.entry(pod.map(text).unwrap_or_default()).or_default() += 1;
                            continue;
                        };
                        match (writer, pod) {
                            (Some(writer), _) => folded.insert(text(writer), total),
                            (None, Some(pod)) => raw.insert(text(pod), total),
                            (None, None) => panic!("a raw point without a pod"),
                        };
                    }
                }
            }
        }
        (raw, folded.values().sum(), markers)
    }

    fn truth(&self) -> i64 {
        self.rounds * STEP * PODS as i64
    }
}

fn text(kv: &KeyValue) -> String {
    match kv.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

/// Until the last windows are out: a window and a delay of a second each, and some ticks.
async fn closed() {
    sleep(Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_29_without_affinity_it_refuses_and_never_inflates() {
    let mut fleet = Fleet::start("checked", true).await;
    fleet.rounds_until("two gateways see the same streams", "affinity", |v| v == 2).await;
    for _ in 0..10 {
        fleet.round().await;
    }
    let shared = fleet.counters("overlap_streams").await;
    closed().await;
    let (raw, folded, markers) = fleet.held();
    assert_eq!((folded, markers.len()), (0, 0), "nothing folds, and no raw series ends");
    assert_eq!(raw.values().sum::<i64>(), fleet.truth(), "every stream is as it was");
    assert!(shared.iter().all(|n| *n >= PODS as i64 / 2), "the overlap is there to see: {shared:?}");
    assert!(fleet.counters("unaffine").await.iter().all(|n| *n > 0), "and what it kept from folding");
    assert_eq!(fleet.counters("folded").await, [0, 0]);
    assert!(fleet.gateways[0].log().contains("stream affinity refuted"), "the log says why");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_29_with_affinity_it_folds_and_every_total_is_exact() {
    let mut fleet = Fleet::start("checked", false).await;
    fleet.rounds_until("no stream reaches both", "affinity", |v| v == 1).await;
    fleet.rounds_until("so cumulative sums fold", "folded", |v| v > 30).await;
    closed().await;
    let (raw, folded, markers) = fleet.held();
    assert_eq!(raw.len(), PODS, "every stream was raw before");
    // One from each worker that had seen the stream raw: requests of a pod come over any connection of the balancer.
    assert_eq!(markers.len(), PODS, "and ended with a marker");
    assert!(markers.values().all(|n| *n <= 2), "{markers:?}");
    assert!(folded > 0);
    assert_eq!(
        raw.values().sum::<i64>() + folded,
        fleet.truth(),
        "raw until the switch, folded from there: every increment once"
    );
    assert_eq!(fleet.counters("overlap_streams").await, [0, 0]);
}

/// The control of the first test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assumed_where_it_is_not_inflates() {
    let mut fleet = Fleet::start("assumed", true).await;
    for _ in 0..20 {
        fleet.round().await;
    }
    closed().await;
    let (_, folded, _) = fleet.held();
    // The first totals of each pod are baselines, on either gateway.
    let most = fleet.truth() - STEP * PODS as i64;
    println!("folded {folded} of {most}: {:.2} times", folded as f64 / most as f64);
    assert!(folded as f64 > 1.5 * most as f64, "{folded} of {most}");
    // It is at least there to see.
    assert_eq!(fleet.counters("affinity").await, [2, 2]);
}
