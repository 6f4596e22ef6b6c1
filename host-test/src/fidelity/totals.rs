//! (e) No increment is lost and none is counted twice.
//!
//! In: every sample that a Prometheus holds. Out: per metric what they add up to, less what the generator counted. A folded series adds its last value, since
//! it began with zero; a raw one adds its increases, a fall being a counter that began again. So a switched metric adds both, and each increment must be on
//! exactly one side.

use super::Scene;
use super::clock::{OFF_NS, ON_NS, TAIL_NS};
use super::instrument::{
    CPU, Instrument, LOGINS, NARROW_CPU, NARROW_REQUESTS, ORDERS, PASSING, REQUESTS, SWITCH_KEEP, SWITCH_OFF,
    SWITCH_ON, SWITCHED,
};
use super::life::{EDGE, ROUTES};
use super::steps::relative;
use super::table::Table;
use crate::figure::{Figure, Unit};
use crate::prometheus::{Prometheus, Series};
use anyhow::{Context as _, ensure};
use std::collections::BTreeMap;

/// Doubles: the bound of conservation.
const DOUBLE_TOTAL: f64 = 1e-12;

pub async fn figures(scene: &Scene, table: &mut Table) -> anyhow::Result<()> {
    table.title("(e) totals by route: increments lost or counted twice");
    let rows: [(&str, &str, &[&Instrument]); 5] = [
        ("folded", "folded integers", &[&LOGINS, &REQUESTS, &ORDERS, &NARROW_REQUESTS]),
        ("on", "raw → folded, both together", &[&SWITCH_ON]),
        ("keep", "folded → folded, both together", &[&SWITCH_KEEP]),
        ("off", "folded → raw, both together", &[&SWITCH_OFF]),
        ("doubles", "folded doubles", &[&CPU, &NARROW_CPU]),
    ];
    for (key, what, metrics) in rows {
        let of = async |prometheus: &Prometheus| -> anyhow::Result<f64> {
            let mut apart = 0.0;
            for metric in metrics {
                apart += difference(scene, metric, prometheus).await?;
            }
            Ok(apart)
        };
        let (value, at_arrival) = (of(&scene.roads.folded).await?, of(&scene.roads.arrival).await?);
        let (unit, bound) =
            if metrics[0].is_int { (Unit::Count, 0.0) } else { (Unit::Relative, DOUBLE_TOTAL) };
        let figure = Figure::new(format!("e.{key}"), what, unit, value);
        table.add(figure.at_most(bound).beside(at_arrival));
    }
    let apart = passing(scene).await?;
    let what = "passing: samples that are not those of raw";
    table.add(Figure::new("e.passing", what, Unit::Count, apart as f64).at_most(0.0));
    let late = scene.roads.counters.get("late").copied().context("the counter of late increments")?;
    let what = format!("too late for their window, of {} increments", scene.roads.books.folded);
    table.add(Figure::new("e.late", what, Unit::Count, late as f64).at_most(0.0));
    Ok(())
}

/// Whether a point of this time passes: of switched metrics only.
fn is_raw(scene: &Scene, metric: &Instrument, time_ns: u64) -> bool {
    let since_ns = time_ns - scene.traffic.begin_ns();
    match metric.name {
        name if name == SWITCH_ON.name => since_ns < ON_NS,
        name if name == SWITCH_OFF.name => since_ns >= OFF_NS,
        _ => false,
    }
}

/// Sum over all routes of how far the total is from the truth: in increments for integers, relative for doubles.
async fn difference(scene: &Scene, metric: &Instrument, prometheus: &Prometheus) -> anyhow::Result<f64> {
    let until_ms = ((scene.traffic.active_until_ns() + TAIL_NS) / 1_000_000) as i64;
    let found = prometheus.query(&format!("{}[2h]", metric.stored), until_ms).await?;
    let mut totals: BTreeMap<&str, f64> = BTreeMap::new();
    for series in &found {
        let route = series.labels.get("route").context("a route")?;
        *totals.entry(route).or_default() += total(series)?;
    }
    let has_edge = metric == &ORDERS || SWITCHED.contains(&metric);
    let mut apart = 0.0;
    for route in ROUTES.into_iter().chain(has_edge.then_some(EDGE)) {
        let total = *totals.get(route).with_context(|| format!("{}: nothing of {route}", metric.stored))?;
        let truth = scene.traffic.total(metric, route, |time_ns| is_raw(scene, metric, time_ns));
        ensure!(truth > 0.0, "{} {route}: the generator counted nothing", metric.name);
        apart += if metric.is_int { (total - truth).abs() } else { relative(total, truth) };
    }
    Ok(apart)
}

fn total(series: &Series) -> anyhow::Result<f64> {
    let (first, last) =
        (series.points.first().context("a sample")?, series.points.last().context("a sample")?);
    if !series.labels.contains_key("phoenix_folded") {
        let grown = |pair: &[(i64, f64)]| {
            let (before, after) = (pair[0].1, pair[1].1);
            if after < before { after } else { after - before }
        };
        return Ok(series.points.windows(2).map(grown).sum());
    }
    ensure!(first.1 == 0.0, "{:?} begins with {}", series.labels, first.1);
    let falls = series.points.windows(2).any(|pair| pair[1].1 < pair[0].1);
    ensure!(!falls, "{:?} falls", series.labels);
    Ok(last.1)
}

/// Samples of what passes that are not those of raw, on either side.
async fn passing(scene: &Scene) -> anyhow::Result<usize> {
    let until_ms = ((scene.traffic.active_until_ns() + TAIL_NS) / 1_000_000) as i64;
    let expr = format!("{}[2h]", PASSING.stored);
    let (ours, raw) =
        (scene.roads.folded.query(&expr, until_ms).await?, scene.roads.raw.query(&expr, until_ms).await?);
    ensure!(!raw.is_empty() && raw.iter().all(|series| series.labels.contains_key("k8s_pod_name")));
    let samples = |series: &[Series]| -> Vec<(String, i64, u64)> {
        let of = |one: &Series| {
            let labels = format!("{:?}", one.labels);
            one.points
                .iter()
                .map(move |(time, value)| (labels.clone(), *time, value.to_bits()))
                .collect::<Vec<_>>()
        };
        series.iter().flat_map(of).collect()
    };
    let (ours, raw): (std::collections::BTreeSet<_>, std::collections::BTreeSet<_>) =
        (samples(&ours).into_iter().collect(), samples(&raw).into_iter().collect());
    Ok(ours.symmetric_difference(&raw).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(folded: bool, values: &[f64]) -> Series {
        let labels = folded.then(|| ("phoenix_folded".to_owned(), "pod".to_owned())).into_iter().collect();
        Series { labels, points: values.iter().enumerate().map(|(at, value)| (at as i64, *value)).collect() }
    }

    #[test]
    fn series_add_what_they_grew() {
        assert_eq!(total(&series(false, &[5.0, 8.0, 8.0, 2.0, 3.0])).unwrap(), 6.0);
        assert_eq!(total(&series(false, &[5.0])).unwrap(), 0.0);
        assert_eq!(total(&series(true, &[0.0, 3.0, 7.0])).unwrap(), 7.0);
        assert!(total(&series(true, &[1.0, 3.0])).is_err(), "no zero");
        assert!(total(&series(true, &[0.0, 3.0, 2.0])).is_err(), "it falls");
        assert!(total(&series(true, &[])).is_err());
    }
}
