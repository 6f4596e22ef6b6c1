//! Four roads for the same traffic.
//!
//! In: the traffic. Out: four Prometheuses that hold it raw, folded by Envoy, folded by the reference as it should be, and folded by it at arrival; with
//! Envoy's counters at the end. Why four and no labels that tell them apart: each is asked the very same queries. Refuses: a request that anybody on the
//! way refuses.

use super::plan;
use super::traffic::{Export, POD, Traffic};
use crate::envoy::process::find_binary;
use crate::envoy::{Envoy, EnvoyOptions, config};
use crate::prometheus::http1::send;
use crate::prometheus::{OTLP_PATH, Options, Prometheus};
use crate::reference::{Reference, ReferenceBooks};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Method;
use prost::Message;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Workers of Envoy.
pub const WORKERS: u32 = 2;
/// Rest after the exports of one instant of the traffic: records reach the owner well within the delay, and windows close one by one.
const PACE: Duration = Duration::from_millis(4);
/// Longest wait until everything folded is out.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing must change until everything is out: several ticks, since one closes windows after the last record was folded.
const CALM: u32 = 4;

/// What came of it.
pub struct Roads {
    /// What a backend holds without Phoenix.
    pub raw: Prometheus,
    /// What it holds behind Envoy with Phoenix.
    pub folded: Prometheus,
    /// What it should hold.
    pub reference: Prometheus,
    /// What it holds behind a fold at arrival.
    pub arrival: Prometheus,
    /// The books of the reference.
    pub books: ReferenceBooks,
    /// Envoy's counters.
    pub counters: BTreeMap<String, i64>,
}

impl Roads {
    /// Sends the traffic down every road.
    ///
    /// # Errors
    /// A process that does not start, or a request that is refused.
    pub async fn travel(binary: &Path, traffic: &Traffic) -> anyhow::Result<Roads> {
        let start = async |name: &'static str| Prometheus::start(options(binary)).await.context(name);
        let (raw, folded) = (start("raw").await?, start("folded").await?);
        let (reference, arrival) = (start("reference").await?, start("at arrival").await?);
        let envoy = Envoy::start(EnvoyOptions {
            binary: find_binary()?,
            module: module(),
            plugin_config: plan::plugin(traffic.begin_ns()).to_string(),
            upstream: folded.address(),
            workers: WORKERS,
            folder: None,
            drain_seconds: 1,
        })
        .await?;
        let mut should = Reference::new(plan::reference(traffic.begin_ns(), false));
        let mut others = Reference::new(plan::reference(traffic.begin_ns(), true));
        for export in traffic.exports() {
            let body: Bytes = export.request.encode_to_vec().into();
            raw.write(body.clone()).await.context("raw")?;
            through(&envoy, body).await?;
            plainly(&mut should, &reference, &export).await.context("reference")?;
            plainly(&mut others, &arrival, &export).await.context("at arrival")?;
            sleep(PACE).await;
        }
        let counters = settled(&envoy, should.books()).await?;
        let books = should.books().clone();
        Ok(Roads { raw, folded, reference, arrival, books, counters })
    }
}

fn options(binary: &Path) -> Options {
    Options {
        binary: binary.to_path_buf(),
        lookback: None,
        out_of_order_window: Duration::from_secs(30 * 60),
        promote_resource_attributes: vec![POD.to_owned()],
        has_remote_write: false,
        features: vec![],
    }
}

/// The built module.
pub fn module() -> PathBuf {
    let folder = std::env::var_os("PHOENIX_WASM_DIR")
        .map_or_else(|| config::project().join("target/phoenix"), PathBuf::from);
    folder.join("phoenix_envoy.wasm")
}

async fn through(envoy: &Envoy, body: Bytes) -> anyhow::Result<()> {
    let (status, answer) =
        send(envoy.address(), Method::POST, OTLP_PATH, Some("application/x-protobuf"), body).await?;
    ensure!(status == 200, "Envoy: {status} {}\n{}", String::from_utf8_lossy(&answer), envoy.log());
    Ok(())
}

/// Folds an export in this process and writes what is left of it and what has closed.
async fn plainly(fold: &mut Reference, prometheus: &Prometheus, export: &Export) -> anyhow::Result<()> {
    let rest = fold.fold(&export.request, export.time_ns);
    let closed = fold.close(export.time_ns);
    for request in [rest, closed].iter().filter(|request| !request.resource_metrics.is_empty()) {
        prometheus.write(request.encode_to_vec().into()).await?;
    }
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
        calm = if settled == expected as i64 && of("backlog_bytes") == 0 { calm + 1 } else { 0 };
        if calm >= CALM {
            return Ok(counters);
        }
        ensure!(begin.elapsed() < PATIENCE, "not settled: {counters:?} against {books:?}\n{}", envoy.log());
        sleep(Duration::from_millis(200)).await;
    }
}
