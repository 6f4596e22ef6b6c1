//! Are the folded answers the true answers?
//!
//! In: a Prometheus to run. Out: the table of figures. Forty minutes of traffic, back-dated, go raw to one Prometheus, through a real Envoy with the module
//! to a second, and through the reference to a third and, folded at arrival as others do, to a fourth. Then all are asked the same queries. Why one library
//! for test and bench: the test says whether every figure holds, the bench prints them. `docs/prometheus.md` says what they mean. Windows follow the points
//! here (`clock: event`), so that forty minutes pass in seconds. Refuses to make a figure of a missing answer.
//!
//! In the order of use:

/// The times of the scene.
pub mod clock;
/// What is counted, and how fast.
pub mod instrument;
/// Who counts, and when.
pub mod life;
/// Histograms and gauges.
pub mod measured;
/// What is folded, for Envoy and for the reference.
pub mod plan;
/// Four roads for the same traffic.
pub mod roads;
/// When to ask, and how far two answers are apart.
pub mod steps;
/// The table of figures.
pub mod table;
/// Counters whose truth is a formula.
pub mod traffic;

/// (b) The same as raw where nothing begins or ends.
mod against_raw;
/// (f) Series.
mod cost;
/// (h) Histograms and gauges.
mod histograms;
/// (g) A restart.
mod restarts;
/// (a) The same as the reference.
mod same;
/// (d) Across a switch.
mod switches;
/// (e) Totals.
mod totals;
/// (c) As true as raw.
mod truth;

use crate::restart::Programs;
use crate::shop::run::unix_ns;
use crate::{envoy, restart};
use anyhow::Context as _;
use clock::{INTERVAL_NS, MINUTE_NS};
use roads::Roads;
use std::path::Path;
use steps::Steps;
use table::Table;
use traffic::Traffic;

/// The range of the queries, as they write it.
const RANGE: &str = "5m";
/// The range of the queries.
const RANGE_NS: u64 = 5 * MINUTE_NS;
/// From when on a range holds no first sample: the range, an interval, a window.
const WARM_NS: u64 = RANGE_NS + 2 * INTERVAL_NS;
/// How long ago the traffic begins: all of it, and the look-back after it, must be in the past.
const AGO_NS: u64 = 60 * MINUTE_NS;

/// Everything that a figure is made of.
struct Scene {
    traffic: Traffic,
    roads: Roads,
    /// From the first whole range to the last export of everybody.
    steps: Steps,
}

/// Sends the traffic and asks.
///
/// # Errors
/// Something does not start, refuses, or has no answer where there must be one.
pub async fn measure(prometheus: &Path) -> anyhow::Result<Table> {
    // Steps and switches align with full minutes.
    let traffic = Traffic::new((unix_ns() - AGO_NS) / MINUTE_NS * MINUTE_NS);
    let roads = Roads::travel(prometheus, &traffic).await?;
    let steps = Steps::between(traffic.begin_ns() + WARM_NS, traffic.active_until_ns() - INTERVAL_NS);
    let scene = Scene { traffic, roads, steps };
    let mut table = Table::default();
    same::figures(&scene, &mut table).await.context("(a) same as the reference")?;
    against_raw::figures(&scene, &mut table).await.context("(b) against raw")?;
    truth::figures(&scene, &mut table).await.context("(c) against the truth")?;
    switches::figures(&scene, &mut table).await.context("(d) across a switch")?;
    totals::figures(&scene, &mut table).await.context("(e) totals")?;
    cost::figures(&scene, &mut table).await.context("(f) series")?;
    histograms::figures(&scene, &mut table).await.context("(h) histograms and gauges")?;
    Ok(table)
}

/// Adds what a restart costs, on the wall clock: a minute and a quarter. Apart from [`measure`], since the test of these scenes is `host-test/tests/envoy_restart.rs`.
///
/// # Errors
/// Something does not start, or what must come does not.
pub async fn restart(prometheus: &Path, table: &mut Table) -> anyhow::Result<()> {
    let programs = Programs {
        envoy: envoy::process::find_binary()?,
        module: roads::module(),
        prometheus: Some(prometheus.to_path_buf()),
    };
    let found = restart::measure(&programs).await.context("(g) a restart")?;
    restarts::figures(&found, table).context("(g) a restart")
}
