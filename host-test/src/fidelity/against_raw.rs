//! (b) The folded rate is the raw rate, where no stream is born or dies in the range.
//!
//! A folded sample stands at its window's end; the samples of many raw streams are spread over the interval, so that the newest of each is half an interval
//! old on average. Windows that begin half a width off the grid make a folded sample as old as that where dashboards ask, and there the difference is
//! judged. At other instants the two answers mean instants up to half a window apart; that is shown. So are narrow windows, which make it less.

use super::instrument::{CPU, Instrument, LOGINS, NARROW_CPU, NARROW_REQUESTS, REQUESTS};
use super::life::ROUTES;
use super::steps::{BESIDE_MS, GRID_MS};
use super::table::Table;
use super::{RANGE, Scene};
use crate::figure::{Figure, Unit};

/// How far a folded rate may be from the raw one.
const CLOSE: f64 = 0.005;

pub async fn figures(scene: &Scene, table: &mut Table) -> anyhow::Result<()> {
    table.title(format!(
        "(b) rate[{RANGE}] by route to raw, no pod born or gone, worst of {} steps",
        scene.steps.count()
    ));
    let usual = [&LOGINS, &REQUESTS, &CPU];
    for metric in usual {
        let [value, at_arrival] = worst(scene, metric, &[GRID_MS]).await?;
        let what = format!("{}, windows of 15 s, on the grid", metric.shape.name());
        let figure =
            Figure::new(format!("b.window15.grid.{}", metric.shape.name()), what, Unit::Percent, value);
        table.add(figure.at_most(CLOSE).beside(at_arrival));
    }
    for metric in usual {
        let [value, at_arrival] = worst(scene, metric, &BESIDE_MS).await?;
        let what = format!("{}, windows of 15 s, beside the grid", metric.shape.name());
        let key = format!("b.window15.beside.{}", metric.shape.name());
        table.add(Figure::new(key, what, Unit::Percent, value).beside(at_arrival));
    }
    for (place, phases) in [("on the grid", [GRID_MS].as_slice()), ("beside the grid", &BESIDE_MS)] {
        for metric in [&NARROW_REQUESTS, &NARROW_CPU] {
            let [value, at_arrival] = worst(scene, metric, phases).await?;
            let what = format!("{}, windows of 5 s, {place}", metric.shape.name());
            let key = if phases == [GRID_MS] { "grid" } else { "beside" };
            let key = format!("b.window5.{key}.{}", metric.shape.name());
            table.add(Figure::new(key, what, Unit::Percent, value).beside(at_arrival));
        }
    }
    Ok(())
}

/// Phoenix' largest difference to raw, and that of the fold at arrival.
async fn worst(scene: &Scene, metric: &Instrument, phases_ms: &[i64]) -> anyhow::Result<[f64; 2]> {
    let expr = format!("sum by (route) (rate({}[{RANGE}]))", metric.stored);
    let mut worst = [0.0_f64; 2];
    for phase_ms in phases_ms {
        let steps = scene.steps.moved(*phase_ms);
        let raw = steps.ask(&scene.roads.raw, &expr, ROUTES.len()).await?;
        for (worst, prometheus) in worst.iter_mut().zip([&scene.roads.folded, &scene.roads.arrival]) {
            *worst = worst.max(steps.ask(prometheus, &expr, ROUTES.len()).await?.worst(&raw)?);
        }
    }
    Ok(worst)
}
