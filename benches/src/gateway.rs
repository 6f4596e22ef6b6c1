//! A real Envoy as a bench needs it: the shipped configuration without what would cost more than all the rest.
//!
//! In: the plugin's configuration, the backend, the number of workers, what stays of the filters. Out: a running Envoy, and in the end whether its
//! module has seen what was sent. Refuses a shipped file that does not hold the parts that are cut out, and counters that disagree with what was sent.

use crate::traffic::{Treatment, plan};
use crate::wasm::folder;
use anyhow::ensure;
use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::envoy::{Envoy, EnvoyOptions, config};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The path of OTLP metrics.
pub const PATH: &str = "/v1/metrics";
/// Longest wait for the module's last numbers: many ticks.
const NUMBERS_TIMEOUT: Duration = Duration::from_secs(10);
/// The comments that begin the parts of `envoy/gateway.yaml`, in order.
const PARTS: [&str; 4] = [
    "          # 1. The module reads plain protobuf.",
    "          # 2. Phoenix,",
    "          # 3. What is left goes out compressed.",
    "          - name: envoy.filters.http.router",
];
/// The line of the listener before which [`BALANCE`] stands.
const CHAINS: &str = "    filter_chains:\n";
/// Each worker gets as many connections as the next one. A kernel spreads them by hash: a few may all reach one worker, hundreds do not.
const BALANCE: &str = "    connection_balance_config: { exact_balance: {} }\n";

/// What an Envoy of a bench is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// The module.
    pub has_module: bool,
    /// The compressor behind it.
    pub compresses: bool,
    /// Connections are spread evenly.
    pub balances: bool,
    /// Worker threads.
    pub workers: u32,
}

/// The plugin's configuration with one of the traffic's plans.
///
/// # Errors
/// The shipped one is not to be read.
pub fn plugin(treatment: Treatment, window: &str) -> anyhow::Result<Value> {
    let mut plugin_config = config::shop_plugin_config()?;
    plugin_config["plan"] = plan(treatment, window);
    Ok(plugin_config)
}

/// Starts an Envoy in front of `upstream`.
///
/// # Errors
/// No Envoy, no module, or a configuration that is not as expected.
pub async fn start(shape: Shape, plugin_config: &Value, upstream: SocketAddr) -> anyhow::Result<Envoy> {
    check_parts()?;
    let options = EnvoyOptions {
        binary: find_binary()?,
        module: folder().join("phoenix_envoy.wasm"),
        plugin_config: serde_json::to_string_pretty(plugin_config)?,
        upstream,
        workers: shape.workers,
        folder: None,
        drain_seconds: 1,
    };
    Envoy::start_edited(options, |yaml| edited(&yaml, shape)).await
}

/// Has the module seen every point, and folded what the plan says? Its numbers reach Envoy at its next tick.
///
/// # Errors
/// It has not.
pub async fn check(envoy: &Envoy, treatment: Treatment, points: u64) -> anyhow::Result<()> {
    let points = i64::try_from(points)?;
    let recorded = match treatment {
        Treatment::Pass | Treatment::Measure | Treatment::MeasureFirst | Treatment::Budget => 0,
        Treatment::Fold70 => points / 10 * 7,
        Treatment::FoldAll => points,
    };
    let begin = Instant::now();
    loop {
        let stats = envoy.stats("wasmcustom").await?;
        let sum = |end: &str| -> i64 {
            stats.iter().filter(|(name, _)| name.ends_with(end)).map(|(_, value)| value).sum()
        };
        // The last points of a pass and the first of the next may overtake each other on their connections.
        let folded = ["phoenix_folded", "phoenix_baselines", "phoenix_out_of_order"].map(sum).iter().sum();
        let seen = (sum("phoenix_points"), sum("phoenix_recorded"), folded);
        if seen == (points, recorded, recorded) {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < NUMBERS_TIMEOUT,
            "{treatment:?}: of {points} points {recorded} should be recorded and folded: {stats:?}",
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// The shipped configuration holds what [`edited`] cuts out and where it puts something in.
fn check_parts() -> anyhow::Result<()> {
    let shipped = config::shipped("envoy/gateway.yaml")?;
    let at: Vec<Option<usize>> = PARTS.iter().map(|part| shipped.find(part)).collect();
    ensure!(
        at.iter().all(Option::is_some) && at.is_sorted(),
        "envoy/gateway.yaml does not hold its parts in order: {PARTS:?}"
    );
    ensure!(shipped.matches(CHAINS).count() == 1, "envoy/gateway.yaml does not hold {CHAINS:?} once");
    Ok(())
}

/// The configuration without the filters that a shape does not have.
pub fn edited(yaml: &str, shape: Shape) -> String {
    let [decompressor, module, compressor, router] = PARTS.map(|part| yaml.find(part).unwrap_or(yaml.len()));
    let part = |from: usize, to: usize| yaml.get(from..to).unwrap_or_default();
    let mut text = part(0, decompressor).to_owned();
    if shape.has_module {
        text.push_str(part(module, compressor));
    }
    if shape.compresses {
        text.push_str(part(compressor, router));
    }
    text.push_str(part(router, yaml.len()));
    if shape.balances { text.replace(CHAINS, &format!("{BALANCE}{CHAINS}")) } else { text }
}
