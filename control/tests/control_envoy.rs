//! The whole loop on real Envoys: an explosion is contained locally at once, then decided on for the fleet; the control host is killed in between, and an Envoy.
//!
//! In: `phoenix control` on `envoy/controlled.yaml` twice, cumulative counters whose truth is known, a label that explodes through one of the two. Out: the module folds before anybody
//! has decided; the decision reaches both, by a switch; every increment arrives, and none twice but those of streams that were carried raw; SIGKILL of the control host changes no plan; an
//! Envoy that was killed comes back under the newest plan, and nothing is inflated. Plain text on loopback: TLS is in `phoenix-serve`.

#[path = "stages/tools.rs"]
#[allow(dead_code, reason = "one key of many tools")]
mod tools;

use bytes::Bytes;
use http::Method;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::envoy::{Envoy, EnvoyOptions, config};
use phoenix_host_test::prometheus::http1::send;
use phoenix_host_test::shop::run::unix_ns;
use phoenix_host_test::sink::books::MetricBook;
use phoenix_host_test::sink::{BooksConfig, Sink};
use prost::Message as _;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest wait for something that must come on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Series that all tenants together may have.
const BUDGET: usize = 400;
/// Users that leak in an export, and in all.
const LEAK: u64 = 400;
const USERS: u64 = 3_000;

fn module() -> PathBuf {
    let folder = std::env::var_os("PHOENIX_WASM_DIR")
        .map_or_else(|| config::project().join("target/phoenix"), PathBuf::from);
    folder.join("phoenix_envoy.wasm").canonicalize().expect("the module: run `cargo xtask build`")
}

fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

struct Control {
    child: Child,
    address: SocketAddr,
}

impl Control {
    fn start(folder: &Path, address: SocketAddr) -> Control {
        let mut child = Command::new(env!("CARGO_BIN_EXE_phoenix"))
            .args(["control", "--listen", &address.to_string(), "--policy"])
            .arg(folder.join("policy.yaml"))
            .arg("--state")
            .arg(folder.join("state.redb"))
            .arg("--module")
            .arg(module())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("phoenix control: http://"), "{line:?}");
        Control { child, address }
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) =
            send(self.address, Method::GET, path, None, Bytes::new()).await.expect("the control host");
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// The version that each node has taken, and when; none has refused one.
    async fn taken(&self, envoys: &[Envoy]) -> Vec<(String, String, u64)> {
        let status = self.get("/api/v1/status").await;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        nodes
            .iter()
            .inspect(|it| {
                let logs: Vec<String> = envoys.iter().map(Envoy::log).collect();
                let said = logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains("refused"));
                let said: Vec<&str> = said.collect();
                assert!(
                    it["said"]["refused"].is_null(),
                    "{}: {}\n{said:#?}",
                    it["id"],
                    it["said"]["refused"]
                );
            })
            .map(|it| {
                let at_ns = it["said"]["taken"][1].as_u64().unwrap_or(0);
                (text(&it["id"]), text(&it["said"]["taken"][0]), at_ns)
            })
            .collect()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `envoy/controlled.yaml` on these ports, in plain text.
fn controlled(gateway: &str, node: &str, control: SocketAddr, sink: SocketAddr) -> String {
    let port = |after: &str| {
        let rest = gateway.split_once(after).expect(after).1.split_once("port_value: ").expect("a port").1;
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().to_owned()
    };
    let mut yaml = config::shipped("envoy/controlled.yaml").unwrap();
    for (default, value) in [
        ("9901", port("admin:")),
        ("4318", port("listeners:")),
        ("18443", control.port().to_string()),
        ("14318", sink.port().to_string()),
        ("14317", sink.port().to_string()),
    ] {
        let default = format!("port_value: {default} ");
        assert!(yaml.contains(&default), "{default}");
        yaml = yaml.replace(&default, &format!("port_value: {value} "));
    }
    let (head, rest) = yaml.split_once("    transport_socket: &control_tls").expect("TLS");
    let (_, rest) = rest.split_once("    load_assignment: &control_address").expect("TLS");
    yaml = format!("{head}    load_assignment: &control_address{rest}")
        .replace("    transport_socket: *control_tls\n", "");
    yaml.replace("id: phoenix-gateway,", &format!("id: {node},"))
        .replace("filename: target/phoenix/phoenix_envoy.wasm", &format!("filename: {}", module().display()))
}

fn kv(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Counters of one gateway's pods: a start and a total each.
#[derive(Default)]
struct Pods {
    streams: Vec<(Vec<KeyValue>, u64, i64)>,
    users: u64,
}

impl Pods {
    fn steady(pod: &str) -> Pods {
        let routes = (0..60).map(|n| {
            vec![kv("pod", pod.to_owned()), kv("route", format!("r{}", n % 6)), kv("shard", format!("{n}"))]
        });
        Pods { streams: routes.map(|labels| (labels, unix_ns(), 0)).collect(), users: 0 }
    }

    fn leak(&mut self) {
        for _ in 0..LEAK.min(USERS - self.users) {
            self.users += 1;
            let user = kv("user_id", format!("u{}", self.users));
            self.streams.push((vec![kv("route", format!("r{}", self.users % 6)), user], unix_ns(), 0));
        }
    }

    /// Everybody counts on, and says so.
    fn export(&mut self) -> Vec<u8> {
        let now_ns = unix_ns();
        let data_points = self
            .streams
            .iter_mut()
            .enumerate()
            .map(|(n, (attributes, start_ns, total))| {
                *total += 1 + n as i64 % 7;
                NumberDataPoint {
                    attributes: attributes.clone(),
                    start_time_unix_nano: *start_ns,
                    time_unix_nano: now_ns,
                    value: Some(Number::AsInt(*total)),
                    ..NumberDataPoint::default()
                }
            })
            .collect();
        let data = Data::Sum(Sum { data_points, aggregation_temporality: 2, is_monotonic: true });
        let metrics = vec![Metric { name: "logins".to_owned(), data: Some(data), ..Metric::default() }];
        let resource =
            Resource { attributes: vec![kv("service.name", "shop".to_owned())], ..Resource::default() };
        let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
        let resource_metrics =
            vec![ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }];
        ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
    }

    fn truth(&self) -> i128 {
        self.streams.iter().map(|(_, _, total)| i128::from(*total)).sum()
    }
}

/// Two gateways, their pods, a backend.
struct Fleet {
    sink: Sink,
    envoys: [Envoy; 2],
    pods: [Pods; 2],
    began_ns: u64,
}

impl Fleet {
    async fn export(&mut self) {
        for (envoy, pods) in self.envoys.iter().zip(&mut self.pods) {
            let sent = send(
                envoy.address(),
                Method::POST,
                "/v1/metrics",
                Some("application/x-protobuf"),
                pods.export().into(),
            );
            let (status, _) = sent.await.expect("the gateway");
            assert_eq!(status, 200, "{}", envoy.log());
        }
        sleep(Duration::from_millis(500)).await;
    }

    async fn stat(&self, gateway: usize, name: &str) -> i64 {
        let name = format!("wasmcustom.phoenix_{name}");
        self.envoys[gateway].stats("wasmcustom").await.expect("stats").get(&name).copied().unwrap_or(0)
    }

    /// Raw and folded increments at the backend; folded ones come in the tenant's name.
    fn totals(&self) -> (i128, i128) {
        let books = self.sink.books();
        let all = books.metrics.values();
        let of = |(raw, folded): (i128, i128), book: &MetricBook| {
            (raw + book.raw.total(self.began_ns).ints, folded + book.folded.total(self.began_ns).ints)
        };
        all.fold((0, 0), of)
    }

    fn total(&self) -> i128 {
        let (raw, folded) = self.totals();
        raw + folded
    }

    /// Increments in raw series of users.
    fn raw_of_users(&self) -> i128 {
        let books = self.sink.books();
        let series = books.metrics.values().flat_map(|book| &book.raw.series);
        let users = series.filter(|(name, _)| name.contains("user_id"));
        users.map(|(_, series)| series.read(self.began_ns).total.ints).sum()
    }

    fn truth(&self) -> i128 {
        self.pods.iter().map(Pods::truth).sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explosion_is_contained_at_once_and_then_decided_on() {
    let folder = tempfile::tempdir().unwrap();
    let policy = format!(
        "schema: 1\nmode: auto\ninterval: 1s\nplan:\n  hash_key: {}\n  measure: {{ period: 90s }}\n  stream_expiry: 20s\n  first_sample_margin: 0s\n  \
         tenant: {{ default: shop }}\nfold: {{ window: 2s, delay: 3s }}\nchange: {{ dwell: 30s, switch_lead: 6s }}\n\
         tenants: [{{ name: shop, active_series: {BUDGET} }}]\nprotect: [{{ labels: [pod, route, shard] }}]\nreports: {{ silent_after: 20s, forget_after: 2m }}\n",
        tools::KEY
    );
    fs::write(folder.path().join("policy.yaml"), policy).unwrap();
    let address = free_port();
    let mut control = Control::start(folder.path(), address);
    let began_ns = unix_ns();
    let sink = Sink::start(BooksConfig { run_start_ns: began_ns, ..BooksConfig::default() }).await.unwrap();
    let start = |node: &'static str, sink: SocketAddr| {
        let options = EnvoyOptions {
            binary: find_binary().expect("these tests need a real Envoy"),
            module: module(),
            plugin_config: "{}".to_owned(),
            upstream: sink,
            workers: 2,
            folder: None,
            drain_seconds: 1,
        };
        Envoy::start_edited(options, move |yaml| controlled(&yaml, node, address, sink))
    };
    let envoys = [
        start("gateway-a", sink.address()).await.unwrap(),
        start("gateway-b", sink.address()).await.unwrap(),
    ];
    let begin = Instant::now();
    while control.taken(&envoys).await.iter().filter(|(_, version, _)| !version.is_empty()).count() < 2 {
        assert!(begin.elapsed() < PATIENCE, "not both");
        sleep(Duration::from_millis(50)).await;
    }
    let mut fleet = Fleet { sink, envoys, pods: [Pods::steady("a"), Pods::steady("b")], began_ns };

    // Both are heard and given their shares.
    let begin = Instant::now();
    loop {
        fleet.export().await;
        let plan = control.get("/api/v1/plan?node=gateway-a").await;
        let embedders = control.get("/api/v1/status").await["embedders"].as_array().map_or(0, Vec::len);
        if embedders == 2 && !plan["plan"]["budgets"].is_null() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{plan:#}");
    }

    // The leak: contained by the module itself, before there is any rule.
    let begin = Instant::now();
    while fleet.stat(0, "contained").await == 0 {
        fleet.pods[0].leak();
        fleet.export().await;
        assert!(begin.elapsed() < PATIENCE, "not contained");
    }
    let plan = control.get("/api/v1/plan?node=gateway-a").await;
    println!("contained after {:?}; rules then: {}", begin.elapsed(), plan["plan"]["rules"]);

    // The control host decides for both, and is killed as soon as it has.
    let begin = Instant::now();
    let rules = loop {
        fleet.pods[0].leak();
        fleet.export().await;
        let plan = control.get("/api/v1/plan?node=gateway-b").await;
        if plan["plan"]["rules"].as_array().is_some_and(|rules| !rules.is_empty()) {
            break plan["plan"]["rules"].clone();
        }
        assert!(begin.elapsed() < PATIENCE, "{:#}", control.get("/api/v1/decisions").await);
    };
    let why = control.get("/api/v1/metrics/logins").await;
    let folded = &rules[0]["fold"]["labels"]["drop"]["attributes"];
    assert_eq!(*folded, serde_json::json!(["user_id"]), "{:#}\n{}", why["decisions"], why["tenants"]);
    println!(
        "decided after {:?}: {}",
        begin.elapsed(),
        control.get("/api/v1/decisions").await[0]["decision"]["sentence"]
    );
    control.child.kill().unwrap();
    control.child.wait().unwrap();
    for _ in 0..6 {
        fleet.pods[0].leak();
        fleet.export().await;
    }
    let control = Control::start(folder.path(), address);
    assert_eq!(
        control.get("/api/v1/plan?node=gateway-b").await["plan"]["rules"],
        rules,
        "nothing is forgotten"
    );

    // Behind the switch both fold by the rule, and take what is newest.
    let begin = Instant::now();
    loop {
        fleet.pods[0].leak();
        fleet.export().await;
        let taken = control.taken(&fleet.envoys).await;
        let folds = fleet.stat(0, "recorded").await > 0
            && taken.iter().filter(|(_, version, _)| !version.is_empty()).count() == 2;
        if folds && begin.elapsed() > Duration::from_secs(12) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{taken:?}");
    }
    assert!(fleet.pods[0].users > BUDGET as u64, "it was an explosion");

    // Nothing more comes, windows close, and every increment is there once.
    let truth = fleet.truth();
    let begin = Instant::now();
    while fleet.total() < truth {
        assert!(begin.elapsed() < PATIENCE, "{:?} of {truth} arrived", fleet.totals());
        sleep(Duration::from_millis(200)).await;
    }
    sleep(Duration::from_secs(6)).await;
    // A stream that folds already and passes raw once, because its owner had no room for a record (`phoenix_carried`), shows its whole total as a raw
    // series: docs/budgets.md, "What to know before". Nothing else may be there twice.
    let (total, users) = (fleet.total(), fleet.raw_of_users());
    assert!((truth..=truth + users).contains(&total), "{total} of {truth}, {users} in raw series of users");
    let (raw, folded) = fleet.totals();
    let carried = fleet.stat(0, "carried").await + fleet.stat(1, "carried").await;
    println!("{truth} in, {raw} raw + {folded} folded; {users} raw of users, {carried} points carried");
    assert!(folded > 0);
    assert!(fleet.sink.books().findings().is_empty(), "{:?}", fleet.sink.books().findings().first());

    // An Envoy is killed, and comes back under the plan of the others.
    fleet.envoys[1].kill().await.unwrap();
    let killed_ns = unix_ns();
    let sink_address = fleet.sink.address();
    fleet.envoys[1].start_again(|yaml| controlled(&yaml, "gateway-b", address, sink_address)).await.unwrap();
    let begin = Instant::now();
    let mut rounds = 0;
    let is_back = |taken: Vec<(String, String, u64)>| {
        taken
            .iter()
            .any(|(id, version, at_ns)| id == "gateway-b" && !version.is_empty() && *at_ns > killed_ns)
    };
    while rounds < 16 || !is_back(control.taken(&fleet.envoys).await) {
        fleet.export().await;
        rounds += 1;
        assert!(begin.elapsed() < PATIENCE);
    }
    sleep(Duration::from_secs(8)).await;
    let (total, truth, users) = (fleet.total(), fleet.truth(), fleet.raw_of_users());
    assert!(total <= truth + users, "never inflated: {total} of {truth}, {users} in raw series of users");
    assert!(total > truth * 9 / 10, "what a crash loses is an interval: {total} of {truth}");
}
