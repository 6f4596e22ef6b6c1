//! Prometheus' view of a restart.
//!
//! In: every request that the gateways sent to the backend, in order of arrival, and the truth. Out: figures: what `increase` says at any instant is never above
//! the truth; it is the truth where nothing restarts; and a process that begins anew is read as a reset where it has the same name, and as another series
//! where it has not. The requests are the ones that the sink booked, byte for byte, so that the exact books and Prometheus judge the same run.

use super::Report;
use super::account::truth_between;
use super::stage::FOLDED;
use super::traffic::{Kind, POD, ROUTES, SECOND_NS, Stream};
use crate::figure::Unit;
use crate::prometheus::{Options, Prometheus, Series};
use crate::sink::Received;
use anyhow::{Context as _, ensure};
use std::path::Path;
use std::time::Duration;

/// Rounding to integers and the slope inside a window, in which a stream is born: together below a per cent of a sum over two windows.
const CLOSE: f64 = 0.01;
/// A range over the whole run, by far.
const ALL: &str = "10m";
/// A range of two windows: the shortest that holds two samples wherever it is asked.
const SHORT: &str = "2s";
const SHORT_NS: u64 = 2 * SECOND_NS;
/// How often is asked: several times a window, since dashboards ask at any time.
const STEP_MS: i64 = 250;
const MS: u64 = 1_000_000;

/// Of the figure: how much more than the truth any answer about the whole run says.
pub fn above_key(kind: Kind) -> String {
    format!("{}.increase.all.above", kind.name)
}

/// Of the figure: series too many or too few.
pub fn series_key(kind: Kind) -> String {
    format!("{}.series", kind.name)
}

/// Of the figure: series that begin anew too often or too seldom.
pub fn resets_key(kind: Kind) -> String {
    format!("{}.resets", kind.name)
}

/// When what happened.
pub struct Seam {
    /// From when on births are counted.
    pub watch_ns: u64,
    /// The first folded series opened.
    pub begin_ns: u64,
    /// The gateway was killed.
    pub killed_ns: u64,
    /// Every stream has had its baseline at the next gateway.
    pub calm_ns: u64,
    /// Every pod was heard of until then: beyond it nobody knows the truth.
    pub heard_until_ns: u64,
    /// The last window of the killed one.
    pub emitted_ns: u64,
    /// Nothing came late before the kill, until every stream had its baseline, and after that: then every increment stands in its own window.
    pub is_even_before: bool,
    /// See `is_even_before`.
    pub is_even_in_between: bool,
    /// See `is_even_before`.
    pub is_even_after: bool,
    /// Both processes wrote under one name.
    pub has_same_writer: bool,
}

/// Gives Prometheus what the backend got, and asks.
///
/// # Errors
/// Prometheus does not start, refuses a request that the sink took, or does not answer.
pub async fn judge(
    binary: &Path,
    requests: &[Received],
    streams: &[Stream],
    seam: &Seam,
    report: &mut Report,
) -> anyhow::Result<()> {
    let prometheus = Prometheus::start(Options {
        binary: binary.to_path_buf(),
        lookback: None,
        out_of_order_window: Duration::from_secs(600),
        promote_resource_attributes: vec![POD.to_owned()],
        has_remote_write: false,
        features: vec![],
    })
    .await?;
    for request in requests.iter().filter(|request| request.is_booked) {
        for message in &request.messages {
            prometheus.write(message.clone()).await?;
        }
    }
    for kind in FOLDED {
        increases(&prometheus, kind, streams, seam, report).await?;
        lives(&prometheus, kind, seam, report).await?;
    }
    Ok(())
}

/// `sum by (route)(increase(…))` against the truth, at every step of the run.
async fn increases(
    prometheus: &Prometheus,
    kind: Kind,
    streams: &[Stream],
    seam: &Seam,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = kind.stored;
    let expr = |range: &str| format!("sum by (route)(increase({name}[{range}]))");
    // In the first second one pod after the other is seen first: no slope there means anything.
    let (from_ns, until_ns) = (seam.begin_ns + SECOND_NS + SHORT_NS, seam.heard_until_ns);
    let ask = async |range: &str| {
        prometheus.query_range(&expr(range), (from_ns / MS) as i64, (until_ns / MS) as i64, STEP_MS).await
    };
    let (all, short) = (ask(ALL).await?, ask(SHORT).await?);
    let truth =
        |route: &str, from_ns, to_ns| truth_between(streams, kind, route, seam.watch_ns, from_ns, to_ns);

    let above = worst(&all, |_| true, |route, at_ns| truth(route, 0, at_ns), |ratio| ratio - 1.0)?;
    let what = format!("increase({name}[{ALL}]) above the truth, worst step");
    report.at_most(&above_key(kind), what, Unit::Percent, above, CLOSE);
    let last = worst(
        &all,
        |at_ns| at_ns + STEP_MS as u64 * MS > until_ns,
        |route, at_ns| truth(route, 0, at_ns),
        |ratio| 1.0 - ratio,
    )?;
    let what = format!("increase({name}[{ALL}]) below the truth, in the end");
    report.shown(&format!("{}.increase.all.below", kind.name), what, Unit::Percent, last);

    let short_truth = |route: &str, at_ns: u64| truth(route, at_ns - SHORT_NS, at_ns);
    // What clients counted while nobody watched, and sent again, stands where the next process began: a range that begins in between may hold it.
    let held_truth = |route: &str, at_ns: u64| {
        let from_ns = at_ns - SHORT_NS;
        let is_between = (seam.killed_ns..seam.calm_ns).contains(&from_ns);
        truth(route, if is_between { seam.killed_ns - SECOND_NS } else { from_ns }, at_ns)
    };
    let above = worst(&short, |_| true, held_truth, |ratio| ratio - 1.0)?;
    let what = format!("increase({name}[{SHORT}]) above the truth, worst step");
    let is_even = seam.is_even_before && seam.is_even_in_between && seam.is_even_after;
    let key = format!("{}.increase.short.above", kind.name);
    report.at_most_if(is_even, &key, what, Unit::Percent, above, CLOSE);
    // Whole ranges in which nobody restarts: the truth, up and down.
    let before = |at_ns: u64| at_ns <= seam.emitted_ns;
    let after = |at_ns: u64| at_ns >= seam.calm_ns + SHORT_NS;
    for (key, when, is_calm, is_even) in [
        ("before", "before the kill", &before as &dyn Fn(u64) -> bool, seam.is_even_before),
        ("after", "after it", &after, seam.is_even_after),
    ] {
        let apart = worst(&short, is_calm, short_truth, |ratio| (ratio - 1.0).abs()).context(when)?;
        let what = format!("increase({name}[{SHORT}]) {when}, difference to the truth");
        let key = format!("{}.increase.short.{key}", kind.name);
        report.at_most_if(is_even, &key, what, Unit::Percent, apart, CLOSE);
    }
    Ok(())
}

/// The largest of `figure(value / truth)` over all routes and the steps that are chosen.
fn worst(
    found: &[Series],
    chosen: impl Fn(u64) -> bool,
    truth: impl Fn(&str, u64) -> f64,
    figure: impl Fn(f64) -> f64,
) -> anyhow::Result<f64> {
    ensure!(found.len() == ROUTES.len(), "{} series instead of one a route", found.len());
    let (mut worst, mut steps) = (f64::NEG_INFINITY, 0);
    for series in found {
        let route = series.labels.get("route").context("a series without its route")?;
        for (time_ms, value) in &series.points {
            let at_ns = *time_ms as u64 * MS;
            if chosen(at_ns) {
                worst = worst.max(figure(value / truth(route, at_ns)));
                steps += 1;
            }
        }
    }
    ensure!(steps > 0, "no step to ask at");
    Ok(worst)
}

/// Series and resets as Prometheus counts them.
async fn lives(prometheus: &Prometheus, kind: Kind, seam: &Seam, report: &mut Report) -> anyhow::Result<()> {
    let name = kind.stored;
    // Windows that close after the last point are in it too.
    let at_ms = ((seam.heard_until_ns + 10 * SECOND_NS) / MS) as i64;
    let found = prometheus.query(&format!("resets({name}[{ALL}])"), at_ms).await?;
    let writers = if seam.has_same_writer { 1 } else { 2 };
    let apart = found.len().abs_diff(ROUTES.len() * writers);
    let what = format!("series of {name}, difference to {writers} a route");
    report.at_most(&series_key(kind), what, Unit::Count, apart as f64, 0.0);
    let expected = if seam.has_same_writer { 1.0 } else { 0.0 };
    let wrong = found.iter().filter(|series| series.points.iter().any(|(_, resets)| *resets != expected));
    let what = format!("series of {name} with another number of resets than {expected}");
    let wrong = wrong.map(|series| format!("{:?}: {:?}", series.labels, series.points));
    report.none_of(&resets_key(kind), what, wrong.collect());
    Ok(())
}
