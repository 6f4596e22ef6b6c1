//! (h) Histograms and gauges: what Envoy wrote is what the reference wrote, and quantiles are the same.
//!
//! In: both Prometheuses. Out: every sample of the classic histogram's series and of the gauge, the number of observations of the native one at every step, and quantiles of both.
//! The marks are compared up to the hash of the bounds, which the reference does not know.

use super::clock::TAIL_NS;
use super::life::ROUTES;
use super::measured::{HEAP, LATENCY, RPC};
use super::same::{Apart, EQUAL, apart};
use super::steps::PHASES_MS;
use super::table::Table;
use super::{RANGE, Scene};
use crate::figure::{Figure, Unit};
use crate::prometheus::Series;
use anyhow::ensure;

/// What is asked about a distribution.
const QUANTILES: [&str; 3] = ["0.5", "0.95", "0.99"];

pub async fn figures(scene: &Scene, table: &mut Table) -> anyhow::Result<()> {
    table.title("(h) histograms and gauges to the reference fold");
    let classic = ["_bucket", "_count", "_sum"].map(|suffix| format!("{}{suffix}", LATENCY.stored));
    samples(scene, "classic", "classic histogram", &classic, table).await?;
    samples(scene, "gauge", "gauge", &[HEAP.stored.to_owned()], table).await?;
    let routes = ROUTES.join("|");
    let count = format!("sum by (route) (histogram_count({}{{route=~\"{routes}\"}}))", RPC.stored);
    answers(scene, "native.count", "native histogram: observations", &[count], table).await?;
    let heap = format!("sum by (route) ({}{{route=~\"{routes}\"}})", HEAP.stored);
    answers(scene, "gauge.sum", "gauge: sum by route", &[heap], table).await?;
    let of = |inner: &str| QUANTILES.map(|q| format!("histogram_quantile({q}, {inner})"));
    let classic =
        format!("sum by (route, le) (rate({}_bucket{{route=~\"{routes}\"}}[{RANGE}]))", LATENCY.stored);
    answers(scene, "classic.quantile", "classic histogram: quantiles", &of(&classic), table).await?;
    to_raw(scene, "classic.raw", "classic histogram: quantiles", &of(&classic), table).await?;
    let native = format!("sum by (route) (rate({}{{route=~\"{routes}\"}}[{RANGE}]))", RPC.stored);
    answers(scene, "native.quantile", "native histogram: quantiles", &of(&native), table).await?;
    to_raw(scene, "native.raw", "native histogram: quantiles", &of(&native), table).await
}

/// Every sample of some series.
async fn samples(
    scene: &Scene,
    key: &str,
    name: &str,
    metrics: &[String],
    table: &mut Table,
) -> anyhow::Result<()> {
    let until_ms = ((scene.traffic.active_until_ns() + TAIL_NS) / 1_000_000) as i64;
    let mut all = Apart::default();
    for metric in metrics {
        let expr = format!("{metric}[2h]");
        let ours = unhashed(scene.roads.folded.query(&expr, until_ms).await?);
        let theirs = unhashed(scene.roads.reference.query(&expr, until_ms).await?);
        ensure!(!theirs.is_empty(), "{expr}: nothing");
        all.join(apart(&ours, &theirs));
    }
    let what = format!("{name}: values of {} samples in {} series", all.samples, all.series);
    table.add(Figure::new(format!("h.{key}.value"), what, Unit::Relative, all.worst).at_most(EQUAL));
    let what = format!("{name}: samples that one side does not have");
    table.add(Figure::new(format!("h.{key}.time"), what, Unit::Count, all.unpaired as f64).at_most(0.0));
    all.example.into_iter().for_each(|example| table.note(example));
    Ok(())
}

/// The mark without the hash of the bounds.
fn unhashed(mut list: Vec<Series>) -> Vec<Series> {
    for mark in list.iter_mut().filter_map(|series| series.labels.get_mut("phoenix_folded")) {
        mark.truncate(mark.find(";bounds=").unwrap_or(mark.len()));
    }
    list.sort_by(|a, b| a.labels.cmp(&b.labels));
    list
}

/// Answers by route, at every step and six phases of the grid.
async fn answers(
    scene: &Scene,
    key: &str,
    name: &str,
    queries: &[String],
    table: &mut Table,
) -> anyhow::Result<()> {
    let (mut worst, mut at_arrival, mut count) = (0.0_f64, 0.0_f64, 0);
    for expr in queries {
        for phase_ms in PHASES_MS {
            let steps = scene.steps.moved(phase_ms);
            let ours = steps.ask(&scene.roads.folded, expr, ROUTES.len()).await?;
            let theirs = steps.ask(&scene.roads.reference, expr, ROUTES.len()).await?;
            worst = worst.max(ours.worst(&theirs)?);
            let others = steps.ask(&scene.roads.arrival, expr, ROUTES.len()).await?;
            at_arrival = at_arrival.max(others.worst(&theirs)?);
            count += ROUTES.len() * steps.count();
        }
    }
    let figure = Figure::new(format!("h.{key}"), format!("{name}, {count} answers"), Unit::Relative, worst);
    table.add(figure.at_most(EQUAL).beside(at_arrival));
    Ok(())
}

/// How far quantiles of a fold are from raw ones, on the grid. Shown: both cut a range at other samples, and each may be the nearer one.
async fn to_raw(
    scene: &Scene,
    key: &str,
    name: &str,
    queries: &[String],
    table: &mut Table,
) -> anyhow::Result<()> {
    let (mut worst, mut at_arrival) = (0.0_f64, 0.0_f64);
    for expr in queries {
        let raw = scene.steps.ask(&scene.roads.raw, expr, ROUTES.len()).await?;
        worst = worst.max(scene.steps.ask(&scene.roads.folded, expr, ROUTES.len()).await?.worst(&raw)?);
        let others = scene.steps.ask(&scene.roads.arrival, expr, ROUTES.len()).await?;
        at_arrival = at_arrival.max(others.worst(&raw)?);
    }
    let figure =
        Figure::new(format!("h.{key}"), format!("{name} to raw, on the grid, worst"), Unit::Percent, worst);
    table.add(figure.beside(at_arrival));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_lose_their_hash_and_nothing_else() {
        let of = |mark: &str| Series {
            labels: [("phoenix_folded".to_owned(), mark.to_owned())].into(),
            points: Vec::new(),
        };
        let list = unhashed(vec![of("pod,user;bounds=0011aabb"), of("pod")]);
        assert_eq!(list, [of("pod"), of("pod,user")]);
    }
}
