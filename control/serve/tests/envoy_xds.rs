//! Plans to real Envoys over xDS with mutual TLS, and what they say of them.
//!
//! In: `envoy/controlled.yaml` with other ports and paths, a set of certificates, the port. Out: the first plan and the next are in force (counters of the module), one that the module
//! refuses is a NACK with its reason and leaves the one before in force, a node that is not its certificate's is not let in, an Envoy with a
//! certificate of another authority neither. Needs a real Envoy and the module, as the tests of `host-test` do. What it does not prove: time; `cargo xtask bench control` measures it.

use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::envoy::{Envoy, EnvoyOptions, config};
use phoenix_serve::certs::{self, Wish};
use phoenix_serve::grants::Grants;
use phoenix_serve::guard::Guard;
use phoenix_serve::listen::{Counted, Port, serve};
use phoenix_serve::publish::answers::{Answers, Said};
use phoenix_serve::publish::board::{Board, Node, Published, Snapshot, Whose};
use phoenix_serve::publish::extension::Module;
use phoenix_serve::publish::xds::{Event, Xds};
use phoenix_serve::role::{Access, Denied, Grant, Role};
use phoenix_serve::tls::{Files, Tls};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest wait for something that must come on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn module() -> PathBuf {
    let folder = std::env::var_os("PHOENIX_WASM_DIR")
        .map_or_else(|| config::project().join("target/phoenix"), PathBuf::from);
    folder.join("phoenix_envoy.wasm").canonicalize().expect("the module: run `cargo xtask build`")
}

/// The port, and what it has said and heard.
struct Control {
    board: Board,
    answers: Arc<Answers>,
    counted: Arc<Counted>,
    events: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
    /// The file of who may speak for which nodes: those, with commas.
    granted: PathBuf,
}

impl Control {
    async fn start(certificates: &Path, nodes: &[&str]) -> Control {
        let granted = certificates.join("granted");
        std::fs::write(&granted, nodes.join(",")).unwrap();
        let file = granted.clone();
        let read = move || {
            let nodes = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            Access::new(vec![Grant {
                name: "gateways".to_owned(),
                role: Role::Embedder,
                certificate: Some("phoenix-gateway".to_owned()),
                token_sha256: None,
                nodes: nodes.split(',').filter(|node| !node.is_empty()).map(str::to_owned).collect(),
            }])
        };
        let tls = Tls::load(Files {
            certificate: certificates.join("control.pem"),
            key: certificates.join("control.key"),
            client_ca: Some(certificates.join("ca.pem")),
        });
        let (board, answers, counted) =
            (Board::default(), Arc::<Answers>::default(), Arc::<Counted>::default());
        let events = Arc::<Mutex<Vec<String>>>::default();
        let heard = events.clone();
        let told = events.clone();
        let grants = Arc::new(Grants::watched(granted.clone(), read).unwrap());
        let guard = Guard::new(
            grants,
            Arc::new(move |who: &str, what: &str, denied: &Denied| {
                told.lock().unwrap().push(format!("{who}: {what}: Denied: {}", denied.why()));
            }),
        );
        let xds = Xds {
            board: board.clone(),
            answers: answers.clone(),
            module: Arc::new(Module {
                name: "phoenix".to_owned(),
                vm_id: "phoenix".to_owned(),
                filename: module().display().to_string(),
            }),
            noted: Arc::new(move |node: &Node, event: Event<'_>| {
                heard.lock().unwrap().push(format!("{}: {event:?}", node.id));
            }),
        };
        let port = Port {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            tls: Some(Arc::new(tls.unwrap())),
            connections_max: 64,
        };
        let address = serve(&port, xds.routes(&guard), counted.clone()).await.unwrap();
        Control { board, answers, counted, events, address, granted }
    }

    fn publish(&self, config: &str) -> String {
        let published = Published::new(config);
        let version = published.version.to_string();
        self.board.publish(Snapshot { of: [(Whose::Others, published)].into() });
        version
    }

    fn said(&self) -> Said {
        self.answers.all(u64::MAX).first().map(|(_, said)| said.clone()).unwrap_or_default()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Said) -> bool) -> Said {
        let begin = Instant::now();
        while !is_so(&self.said()) {
            assert!(
                begin.elapsed() < PATIENCE,
                "{what}: {:?}\n{:#?}",
                self.said(),
                self.events.lock().unwrap()
            );
            sleep(Duration::from_millis(20)).await;
        }
        self.said()
    }
}

/// A gateway as it is shipped, with the ports and paths of this test.
async fn gateway(control: SocketAddr, certificates: &Path) -> Envoy {
    let shipped = config::shipped("envoy/controlled.yaml").unwrap();
    let edit = |gateway: String| {
        let port_of = |text: &str, after: &str| {
            let rest = text.split_once(after).expect(after).1;
            let rest = rest.split_once("port_value: ").expect("a port").1;
            rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().to_owned()
        };
        let mut yaml = shipped.clone();
        for (marker, default) in [("admin:", "9901"), ("listeners:", "4318")] {
            let port = port_of(&gateway, marker);
            yaml = yaml.replace(&format!("port_value: {default} "), &format!("port_value: {port} "));
        }
        yaml = yaml.replace("port_value: 18443 ", &format!("port_value: {} ", control.port()));
        yaml = yaml.replace(
            "filename: target/phoenix/phoenix_envoy.wasm",
            &format!("filename: {}", module().display()),
        );
        yaml.replace("filename: certs/", &format!("filename: {}/", certificates.display()))
            .replace("path: certs ", &format!("path: {} ", certificates.display()))
    };
    let options = EnvoyOptions {
        binary: find_binary().expect("these tests need a real Envoy"),
        module: module(),
        plugin_config: "{}".to_owned(),
        upstream: (Ipv4Addr::LOCALHOST, 9).into(),
        workers: 2,
        folder: None,
        drain_seconds: 1,
    };
    Envoy::start_edited(options, edit).await.expect("Envoy")
}

fn plan(version: u64) -> String {
    json!({"plan": {
        "schema": 1,
        "version": version,
        "hash_key": "6b0f6c2ad1934be0a5f3c7719e24d85812b7e06fca43918d5d7e2f60b94c1a83",
        "rules": [{
            "name": "requests",
            "metric": {"exact": "requests"},
            "pipeline": "optimized",
            "fold": {"labels": {"drop": {"resource": [], "attributes": ["user_id"]}}, "window": "5s", "delay": "6s"}
        }]
    }, "envoy": {"emit": {"cluster": "phoenix_emit", "authority": "otlp", "path": "/v1/metrics"}}})
    .to_string()
}

async fn stat(envoy: &Envoy, name: &str) -> i64 {
    let stats = envoy.stats(name).await.unwrap();
    stats.values().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_are_pushed_taken_and_refused() {
    let certificates = tempfile::tempdir().unwrap();
    let wish = Wish { embedders: vec!["phoenix-gateway".to_owned()], ..Wish::default() };
    certs::make(certificates.path(), &wish).unwrap();
    let control = Control::start(certificates.path(), &["phoenix-*"]).await;
    let envoy = gateway(control.address, certificates.path()).await;
    // Nothing is published yet: the default lets everything pass, and the gateway is ready.
    control.until("a node", |said| said.is_connected).await;
    let reloads = stat(&envoy, "extension_config_discovery.*config_reload$").await;
    let failures = stat(&envoy, "extension_config_discovery.*config_fail$").await;
    let first = control.publish(&plan(1));
    let said =
        control.until("the first plan", |said| said.taken.as_ref().is_some_and(|it| it.0 == first)).await;
    assert!(said.took_ns.is_some() && said.refused.is_none(), "{said:?}");
    assert_eq!(stat(&envoy, "extension_config_discovery.*config_reload$").await, reloads + 1);

    // A plan that the module refuses: the reason comes back, and the one before is in force.
    let bad = control.publish(&plan(2).replace("5s", "5 parsecs"));
    let said = control.until("a refusal", |said| said.refused.is_some()).await;
    let (version, _, reason) = said.refused.unwrap();
    assert_eq!(version, bad);
    assert!(!reason.is_empty(), "a reason");
    assert_eq!(said.taken.unwrap().0, first);
    assert_eq!(stat(&envoy, "extension_config_discovery.*config_fail$").await, failures + 1);

    // The next one is taken again.
    let third = control.publish(&plan(3));
    control.until("the third plan", |said| said.taken.as_ref().is_some_and(|it| it.0 == third)).await;
    assert_eq!(control.said().refused, None);
    let events = control.events.lock().unwrap().join("\n");
    for wanted in [
        format!("Sent({first:?})"),
        format!("Taken({first:?})"),
        format!("Refused({bad:?}, "),
        format!("Taken({third:?})"),
    ] {
        assert!(events.contains(&format!("phoenix-gateway: {wanted}")), "{wanted}\n{events}");
    }
    drop(envoy);
    control.until("its end", |said| !said.is_connected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stands_feels_a_narrowed_grant() {
    let certificates = tempfile::tempdir().unwrap();
    let wish = Wish { embedders: vec!["phoenix-gateway".to_owned()], ..Wish::default() };
    certs::make(certificates.path(), &wish).unwrap();
    let control = Control::start(certificates.path(), &["phoenix-*"]).await;
    let first = control.publish(&plan(1));
    let envoy = gateway(control.address, certificates.path()).await;
    control.until("the first plan", |said| said.taken.as_ref().is_some_and(|it| it.0 == first)).await;

    std::fs::write(&control.granted, "edge-*").unwrap();
    // The file is looked at once a second.
    sleep(Duration::from_millis(1_100)).await;
    let second = control.publish(&plan(2));
    let begin = Instant::now();
    while !control.events.lock().unwrap().iter().any(|it| it.contains("is not of")) {
        assert!(begin.elapsed() < PATIENCE, "{:?}", control.events.lock().unwrap());
        sleep(Duration::from_millis(20)).await;
    }
    let events = control.events.lock().unwrap().join("\n");
    assert!(!events.contains(&second), "{events}");
    assert_eq!(control.said().taken.unwrap().0, first);
    drop(envoy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_given_nothing() {
    let certificates = tempfile::tempdir().unwrap();
    let wish = Wish { embedders: vec!["phoenix-gateway".to_owned()], ..Wish::default() };
    certs::make(certificates.path(), &wish).unwrap();

    // The certificate is good, and of other nodes.
    let control = Control::start(certificates.path(), &["edge-*"]).await;
    control.publish(&plan(1));
    let envoy = gateway(control.address, certificates.path()).await;
    let begin = Instant::now();
    let denied = || control.events.lock().unwrap().iter().any(|it| it.contains("is not of"));
    while !denied() {
        assert!(begin.elapsed() < PATIENCE, "{:?}", control.events.lock().unwrap());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(control.answers.all(0).is_empty());
    drop(envoy);

    // A certificate of another authority.
    let others = tempfile::tempdir().unwrap();
    certs::make(others.path(), &wish).unwrap();
    std::fs::copy(certificates.path().join("ca.pem"), others.path().join("ca.pem")).unwrap();
    let control = Control::start(certificates.path(), &[]).await;
    control.publish(&plan(1));
    let envoy = gateway(control.address, others.path()).await;
    let begin = Instant::now();
    while control.counted.handshakes_failed.load(Ordering::Relaxed) == 0 {
        assert!(begin.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20)).await;
    }
    assert!(control.answers.all(0).is_empty());
    assert!(control.events.lock().unwrap().is_empty());
    drop(envoy);

    // A certificate that is over, of an authority that is let in.
    let over = tempfile::tempdir().unwrap();
    certs::make(over.path(), &Wish { days: 0, ..wish }).unwrap();
    let trusting = tempfile::tempdir().unwrap();
    for name in ["control.pem", "control.key"] {
        std::fs::copy(certificates.path().join(name), trusting.path().join(name)).unwrap();
    }
    std::fs::copy(over.path().join("ca.pem"), trusting.path().join("ca.pem")).unwrap();
    std::fs::copy(certificates.path().join("ca.pem"), over.path().join("ca.pem")).unwrap();
    let control = Control::start(trusting.path(), &[]).await;
    control.publish(&plan(1));
    let _envoy = gateway(control.address, over.path()).await;
    let begin = Instant::now();
    while control.counted.handshakes_failed.load(Ordering::Relaxed) == 0 {
        assert!(begin.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20)).await;
    }
    assert!(control.answers.all(0).is_empty());
}
