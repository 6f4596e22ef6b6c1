//! (d) A dashboard does not see a switch.
//!
//! In: metrics at a steady rate that turn from raw to folded, from one fold to another and from folded to raw. Out: how far `rate` is from the known rate at
//! every step whose range holds the switch. The bound is the issue's: half an interval of the range, since Prometheus extrapolates a series that ends (or
//! begins) by half an interval while its successor counts the same time, and half a per cent. Others switch by a push of another configuration: what was
//! learned is forgotten, no series is opened, led on or ended; that stands beside.

use super::clock::{INTERVAL_NS, KEEP_NS, OFF_NS, ON_NS};
use super::instrument::{Instrument, SWITCH_KEEP, SWITCH_OFF, SWITCH_ON};
use super::life::ROUTES;
use super::steps::{BESIDE_MS, GRID_MS, Steps};
use super::table::Table;
use super::truth::errors;
use super::{RANGE, RANGE_NS, Scene};
use crate::figure::{Figure, Unit};
use crate::prometheus::Prometheus;

/// See above.
const BOUND: f64 = INTERVAL_NS as f64 / (2 * RANGE_NS) as f64 + 0.005;
/// How long before a switch a window may begin that takes increments over it, and how long after it one may end: samples there still speak of it.
const AROUND_NS: u64 = 2 * INTERVAL_NS;

pub async fn figures(scene: &Scene, table: &mut Table) -> anyhow::Result<()> {
    let cases = [
        ("on", "raw → folded", &SWITCH_ON, ON_NS),
        ("keep", "folded → folded", &SWITCH_KEEP, KEEP_NS),
        ("off", "folded → raw", &SWITCH_OFF, OFF_NS),
    ];
    let count = steps(scene, ON_NS).count();
    table.title(format!("(d) rate[{RANGE}] by route across a switch to the known rate, {count} steps"));
    for (key, name, metric, at_ns) in cases {
        let ours = across(scene, metric, at_ns, &[GRID_MS], &scene.roads.folded).await?;
        let others = across(scene, metric, at_ns, &[GRID_MS], &scene.roads.arrival).await?;
        let figure = |part: &str, what: &str, value, at_arrival| {
            let what = format!("{name}, {what}");
            Figure::new(format!("d.{key}.{part}"), what, Unit::Percent, value).beside(at_arrival)
        };
        table.add(figure("grid.worst", "on the grid, worst", ours.worst, others.worst).at_most(BOUND));
        table.add(figure("grid.mean", "on the grid, mean", ours.mean, others.mean));
        let ours = across(scene, metric, at_ns, &BESIDE_MS, &scene.roads.folded).await?;
        let others = across(scene, metric, at_ns, &BESIDE_MS, &scene.roads.arrival).await?;
        table.add(figure("beside.worst", "beside the grid, worst", ours.worst, others.worst));
    }
    Ok(())
}

/// Every step whose range holds the switch, or samples that speak of it.
fn steps(scene: &Scene, at_ns: u64) -> Steps {
    let at_ns = scene.traffic.begin_ns() + at_ns;
    Steps::between(at_ns - AROUND_NS, at_ns + RANGE_NS + AROUND_NS)
}

struct Errors {
    worst: f64,
    mean: f64,
}

async fn across(
    scene: &Scene,
    metric: &Instrument,
    at_ns: u64,
    phases_ms: &[i64],
    prometheus: &Prometheus,
) -> anyhow::Result<Errors> {
    let routes = ROUTES.join("|");
    // As a rate; as an increase the truth of each range is exact.
    let expr = format!(
        "{} * sum by (route) (rate({}{{route=~\"{routes}\"}}[{RANGE}]))",
        RANGE_NS / 1_000_000_000,
        metric.stored
    );
    let (mut worst, mut sum, mut count) = (0.0_f64, 0.0, 0.0);
    for phase_ms in phases_ms {
        let steps = steps(scene, at_ns).moved(*phase_ms);
        let answer = steps.ask(prometheus, &expr, ROUTES.len()).await?;
        for error in errors(scene, metric, steps, &answer)? {
            worst = worst.max(error.abs());
            sum += error.abs();
            count += 1.0;
        }
    }
    Ok(Errors { worst, mean: sum / count })
}
