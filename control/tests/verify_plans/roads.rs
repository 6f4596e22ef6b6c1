//! The shop's traffic, back-dated, on several roads at once.
//!
//! In: plans. Out: a Prometheus that holds everything, and for each plan one that holds what came out of an Envoy with it. Every export goes down all
//! roads before the next one does. Refuses: a request that anybody on the way refuses.

use bytes::Bytes;
use http::Method;
use libtest_mimic::Failed;
use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::envoy::{Envoy, EnvoyOptions, config};
use phoenix_host_test::prometheus::http1::send;
use phoenix_host_test::prometheus::{OTLP_PATH, Options, Prometheus};
use phoenix_host_test::shop::ShopConfig;
use phoenix_host_test::shop::pod::Pod;
use phoenix_host_test::shop::run::unix_ns;
use phoenix_host_test::shop::schedule::schedule;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND_NS: u64 = 1_000_000_000;
const MINUTE_NS: u64 = 60 * SECOND_NS;
/// Export interval, and the plans' window: the usual one.
const INTERVAL: Duration = Duration::from_secs(15);
/// How long the shop is open.
const LENGTH: Duration = Duration::from_secs(20 * 60);
/// What is asked ends so long before: the last windows close by points that come after them.
const TAIL_S: u64 = 120;
/// How long ago the shop opened: all of it must be in the past.
const AGO_NS: u64 = 30 * MINUTE_NS;
/// The same as in the demo, for the same reasons (docs/demo.md).
const FEATURES: [&str; 2] = ["otlp-deltatocumulative", "created-timestamp-zero-ingestion"];
/// Longest wait until everything folded is out.
const PATIENCE: Duration = Duration::from_secs(30);

/// An Envoy with a plan, and what came out of it.
pub struct Road {
    /// The plan, as `--plan` takes it.
    pub plan: PathBuf,
    /// What came out.
    pub prometheus: Prometheus,
    envoy: Envoy,
    _folder: tempfile::TempDir,
}

/// All of it.
pub struct Roads {
    /// What a backend holds without Phoenix.
    pub full: Prometheus,
    /// One for each plan.
    pub roads: [Road; 2],
    /// The last instant to ask for, Unix seconds.
    pub end_s: u64,
}

/// The shop's plan in the usual windows; `dropped` are attributes that its rules for `http_requests` drop as well.
pub fn plugin(dropped: &[&str]) -> Result<Value, Failed> {
    let mut document = config::shop_plugin_config()?;
    document["plan"]["clock"] = json!("event");
    document["envoy"]["emit"]["path"] = json!(OTLP_PATH);
    document["envoy"]["paths"] = json!([OTLP_PATH]);
    document["envoy"]["tick"] = json!("50ms");
    for rule in document["plan"]["rules"].as_array_mut().ok_or("no rules")? {
        let is_meant = rule["metric"]["exact"] == "http_requests";
        let Some(fold) = rule.get_mut("fold") else { continue };
        fold["window"] = json!(format!("{}s", INTERVAL.as_secs()));
        fold["delay"] = json!("60s");
        let attributes = fold["labels"]["drop"]["attributes"].as_array_mut().ok_or("no attributes")?;
        attributes.extend(dropped.iter().filter(|_| is_meant).map(|&label| json!(label)));
    }
    Ok(document)
}

impl Road {
    async fn open(binary: &Path, plugin: Value) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let plan = folder.path().join("plan.json");
        std::fs::write(&plan, plugin.to_string())?;
        let prometheus = Prometheus::start(options(binary)?).await?;
        let modules = std::env::var_os("PHOENIX_WASM_DIR")
            .map_or_else(|| config::project().join("target/phoenix"), PathBuf::from);
        let envoy = Envoy::start(EnvoyOptions {
            binary: find_binary()?,
            module: modules.join("phoenix_envoy.wasm"),
            plugin_config: plugin.to_string(),
            upstream: prometheus.address(),
            workers: 2,
            folder: None,
            drain_seconds: 1,
        })
        .await?;
        Ok(Self { plan, prometheus, envoy, _folder: folder })
    }

    async fn send(&self, body: Bytes) -> Result<(), Failed> {
        let (status, answer) =
            send(self.envoy.address(), Method::POST, OTLP_PATH, Some("application/x-protobuf"), body).await?;
        let text = || format!("Envoy: {status} {}\n{}", String::from_utf8_lossy(&answer), self.envoy.log());
        if status == 200 { Ok(()) } else { Err(text().into()) }
    }

    /// Waits until every record is folded and every emission answered.
    async fn settled(&self) -> Result<(), Failed> {
        let begin = Instant::now();
        let mut calm = 0;
        loop {
            let stats = self.envoy.stats("wasmcustom").await?;
            let name = |name: String| name.trim_start_matches("wasmcustom.phoenix_").to_owned();
            let counters: BTreeMap<String, i64> =
                stats.into_iter().map(|(full, value)| (name(full), value)).collect();
            let of = |name: &str| counters.get(name).copied().unwrap_or(0);
            let is_folded = of("recorded") == of("folded") + of("baselines") && of("folded") > 0;
            // Several times calm: a tick closes windows after the last record was folded.
            calm = if is_folded && of("backlog_bytes") == 0 { calm + 1 } else { 0 };
            if calm >= 4 {
                // Nothing was out of place: a late increment stands in another window, a refused emission in a later one.
                let is_clean = of("late") == 0 && of("emissions_refused") == 0;
                return if is_clean { Ok(()) } else { Err(format!("{counters:?}").into()) };
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("not settled: {counters:?}\n{}", self.envoy.log()).into());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

fn options(binary: &Path) -> Result<Options, Failed> {
    let promoted = &config::shop_plugin_config()?["plan"]["promoted_resource_attributes"];
    let promoted = promoted.as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(Options {
        binary: binary.to_path_buf(),
        lookback: None,
        out_of_order_window: Duration::from_secs(30 * 60),
        promote_resource_attributes: promoted.map(str::to_owned).collect(),
        has_remote_write: false,
        features: FEATURES.map(str::to_owned).to_vec(),
    })
}

/// What the shop's pods send, in the order in which they send it: (Unix nanoseconds, body).
fn exports(begin_ns: u64) -> Vec<(u64, Bytes)> {
    let calm = Duration::ZERO;
    let shop = ShopConfig {
        replicas: 4,
        length: LENGTH,
        interval: INTERVAL,
        replace_every: calm,
        restart_every: calm,
        ..ShopConfig::default()
    };
    let mut all = Vec::new();
    for life in schedule(&shop) {
        let mut pod = Pod::new(shop.seed, &life, begin_ns);
        let mut now = life.offset;
        while now < LENGTH {
            let now_ns = begin_ns + now.as_nanos() as u64;
            all.push((now_ns, pod.export(now_ns).body));
            now += INTERVAL;
        }
    }
    all.sort_by_key(|(now_ns, _)| *now_ns);
    all
}

/// Sends everything down every road.
pub async fn travel(binary: &Path, plugins: [Value; 2]) -> Result<Roads, Failed> {
    let begin_ns = (unix_ns() - AGO_NS) / MINUTE_NS * MINUTE_NS;
    let full = Prometheus::start(options(binary)?).await?;
    let [right, wrong] = plugins;
    let roads = [Road::open(binary, right).await?, Road::open(binary, wrong).await?];
    // The event clock starts with a counter that was there before: its first point is a baseline and adds nothing.
    let first = Pod::new(0, &schedule(&ShopConfig::default())[0], begin_ns - 2 * MINUTE_NS)
        .export(begin_ns - MINUTE_NS);
    for body in [first.body].into_iter().chain(exports(begin_ns).into_iter().map(|(_, body)| body)) {
        full.write(body.clone()).await?;
        for road in &roads {
            road.send(body.clone()).await?;
        }
    }
    for road in &roads {
        road.settled().await?;
    }
    Ok(Roads { full, roads, end_s: begin_ns / SECOND_NS + LENGTH.as_secs() - TAIL_S })
}
