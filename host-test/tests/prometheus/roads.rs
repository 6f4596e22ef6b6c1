//! Three roads for the same traffic.
//!
//! In: the traffic. Out: three Prometheuses that hold it raw, folded by Envoy, and folded by the reference (once as it should be, once at arrival),
//! with Envoy's counters at the end. Refuses: a request that anybody on the way refuses.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Method;
use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::envoy::{Envoy, EnvoyOptions, config};
use phoenix_host_test::prometheus::http1::send;
use phoenix_host_test::prometheus::traffic::{AGENT, Export, POD, SECOND_NS};
use phoenix_host_test::prometheus::{OTLP_PATH, Options, Prometheus};
use phoenix_host_test::reference::{Reference, ReferenceBooks, ReferencePlan, ReferenceRule};
use prost::Message;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The writer of Envoy, and of the reference.
pub const WRITER: &str = "gateway-0";
/// The writer of the fold at arrival.
pub const AT_ARRIVAL: &str = "at-arrival";
/// The mark of what is folded here: `drop`, sorted by bytes.
pub const MARK: &str = "k8s.pod.name,service.instance.id,user_agent";
/// The plan's defaults.
const WINDOW_S: u64 = 15;
const DELAY_S: u64 = 60;
/// What the dropped labels are, by level.
const DROPPED_RESOURCE: [&str; 2] = [POD, "service.instance.id"];
/// Rest after the exports of one instant of the traffic: records reach the owner well within the delay, and windows close one by one.
const PACE: Duration = Duration::from_millis(4);
/// Longest wait until everything folded is out.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of it.
pub struct Roads {
    /// What a backend holds without Phoenix.
    pub raw: Prometheus,
    /// What it holds behind Envoy with Phoenix.
    pub folded: Prometheus,
    /// What it should hold.
    pub reference: Prometheus,
    /// The books of the reference.
    pub books: ReferenceBooks,
    /// Envoy's counters.
    pub counters: BTreeMap<String, i64>,
}

/// The plan of Envoy.
fn plugin() -> serde_json::Value {
    json!({
        "plan": {
            "schema": 1,
            "version": 1,
            "hash_key": "6b0f6c2ad1934be0a5f3c7719e24d85812b7e06fca43918d5d7e2f60b94c1a83",
            "writer": WRITER,
            "clock": "event",
            "promoted_resource_attributes": [POD],
            "first_sample_margin": "1s",
            "rules": [{
                "name": "folded",
                "metric": { "prefix": "fold_" },
                "pipeline": "optimized",
                "fold": {
                    "labels": { "drop": { "resource": DROPPED_RESOURCE, "attributes": [AGENT] } },
                    "window": format!("{WINDOW_S}s"),
                    "delay": format!("{DELAY_S}s")
                }
            }]
        },
        "envoy": {
            "emit": { "cluster": "phoenix_emit", "protocol": "http", "path": OTLP_PATH, "timeout": "10s" },
            "paths": [OTLP_PATH],
            "tick": "50ms"
        }
    })
}

/// The same for the reference.
fn reference(writer: &str, is_at_arrival: bool) -> Reference {
    Reference::new(ReferencePlan {
        rules: vec![ReferenceRule {
            metric_prefix: "fold_".to_owned(),
            drop_resource: DROPPED_RESOURCE.map(str::to_owned).to_vec(),
            drop_attributes: vec![AGENT.to_owned()],
            window_ns: WINDOW_S * SECOND_NS,
            delay_ns: DELAY_S * SECOND_NS,
            is_cumulative_out: false,
            is_at_arrival,
        }],
        promoted: vec![POD.to_owned()],
        mark_label: "phoenix_folded".to_owned(),
        writer_label: "phoenix_writer".to_owned(),
        writer: writer.to_owned(),
        first_sample_margin_ns: SECOND_NS,
    })
}

fn options(binary: &Path) -> Options {
    Options {
        binary: binary.to_path_buf(),
        out_of_order_window: Duration::from_secs(30 * 60),
        promote_resource_attributes: vec![POD.to_owned()],
        has_remote_write: false,
        features: vec![],
    }
}

fn module() -> PathBuf {
    let folder = std::env::var_os("PHOENIX_WASM_DIR")
        .map_or_else(|| config::project().join("target/phoenix"), PathBuf::from);
    folder.join("phoenix_envoy.wasm")
}

/// Sends the exports down every road.
pub async fn travel(binary: &Path, exports: &[Export]) -> anyhow::Result<Roads> {
    let raw = Prometheus::start(options(binary)).await.context("raw")?;
    let folded = Prometheus::start(options(binary)).await.context("folded")?;
    let judge = Prometheus::start(options(binary)).await.context("reference")?;
    let envoy = Envoy::start(EnvoyOptions {
        binary: find_binary()?,
        module: module(),
        plugin_config: plugin().to_string(),
        upstream: folded.address(),
        workers: 2,
        folder: None,
        drain_seconds: 1,
    })
    .await?;
    let mut references = [reference(WRITER, false), reference(AT_ARRIVAL, true)];
    for export in exports {
        let body: Bytes = export.request.encode_to_vec().into();
        raw.write(body.clone()).await.context("raw")?;
        through(&envoy, body).await?;
        for reference in &mut references {
            let rest = reference.fold(&export.request, export.time_ns);
            let out = reference.close(export.time_ns);
            for request in [rest, out].iter().filter(|request| !request.resource_metrics.is_empty()) {
                judge.write(request.encode_to_vec().into()).await.context("reference")?;
            }
        }
        sleep(PACE).await;
    }
    let counters = settled(&envoy, references[0].books()).await?;
    let books = references[0].books().clone();
    Ok(Roads { raw, folded, reference: judge, books, counters })
}

async fn through(envoy: &Envoy, body: Bytes) -> anyhow::Result<()> {
    let (status, answer) =
        send(envoy.address(), Method::POST, OTLP_PATH, Some("application/x-protobuf"), body).await?;
    ensure!(status == 200, "Envoy: {status} {}\n{}", String::from_utf8_lossy(&answer), envoy.log());
    Ok(())
}

/// Waits until every point was folded and every emission answered.
async fn settled(envoy: &Envoy, books: &ReferenceBooks) -> anyhow::Result<BTreeMap<String, i64>> {
    let begin = Instant::now();
    let mut calm = 0;
    loop {
        let stats = envoy.stats("wasmcustom").await?;
        let name = |name: String| name.trim_start_matches("wasmcustom.phoenix_").to_owned();
        let counters: BTreeMap<String, i64> =
            stats.into_iter().map(|(full, value)| (name(full), value)).collect();
        let of = |name: &str| counters.get(name).copied().unwrap_or(0);
        let settled = of("folded") + of("baselines") + of("out_of_order");
        let expected = books.folded + books.baselines + books.out_of_order;
        // Twice calm: a tick closes windows after the last record was folded.
        calm = if settled == expected as i64 && of("backlog_bytes") == 0 { calm + 1 } else { 0 };
        if calm >= 4 {
            return Ok(counters);
        }
        ensure!(begin.elapsed() < PATIENCE, "not settled: {counters:?} against {books:?}\n{}", envoy.log());
        sleep(Duration::from_millis(200)).await;
    }
}
