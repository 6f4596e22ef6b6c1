//! (c) The folded answer is as true as the raw one, on average over steps and phases, where pods come and go too.

use super::instrument::{CPU, Instrument, LOGINS, NARROW_CPU, ORDERS, REQUESTS};
use super::life::ROUTES;
use super::steps::{Answer, PHASES_MS, Steps};
use super::table::Table;
use super::{RANGE, RANGE_NS, Scene};
use crate::figure::{Figure, Unit};
use crate::prometheus::Prometheus;

/// How much worse than raw the folded answer may be.
const CLOSE: f64 = 0.005;

pub async fn figures(scene: &Scene, table: &mut Table) -> anyhow::Result<()> {
    table.title(format!("(c) increase[{RANGE}] by route to the truth, mean of all steps and phases"));
    let cases = [
        (&ORDERS, "pods come, go and crash"),
        (&LOGINS, "steady"),
        (&REQUESTS, "step"),
        (&CPU, "sinusoid"),
        (&NARROW_CPU, "sinusoid, windows of 5 s"),
    ];
    for (metric, name) in cases {
        let raw = mean_error(scene, metric, &scene.roads.raw).await?;
        let value = mean_error(scene, metric, &scene.roads.folded).await?;
        let at_arrival = mean_error(scene, metric, &scene.roads.arrival).await?;
        let what = format!("{name}; raw itself {:.2} %", raw * 100.0);
        let figure = Figure::new(format!("c.{}", metric.name), what, Unit::Percent, value);
        table.add(figure.at_most(raw + CLOSE).beside(at_arrival));
    }
    Ok(())
}

async fn mean_error(scene: &Scene, metric: &Instrument, prometheus: &Prometheus) -> anyhow::Result<f64> {
    let routes = ROUTES.join("|");
    let expr = format!("sum by (route) (increase({}{{route=~\"{routes}\"}}[{RANGE}]))", metric.stored);
    let (mut sum, mut count) = (0.0, 0.0);
    for phase_ms in PHASES_MS {
        let steps = scene.steps.moved(phase_ms);
        let answer = steps.ask(prometheus, &expr, ROUTES.len()).await?;
        for error in errors(scene, metric, steps, &answer)? {
            sum += error.abs();
            count += 1.0;
        }
    }
    Ok(sum / count)
}

/// Relative, of each route at each step: answers of `increase`.
pub fn errors(scene: &Scene, metric: &Instrument, steps: Steps, answer: &Answer) -> anyhow::Result<Vec<f64>> {
    let mut errors = Vec::new();
    for route in ROUTES {
        for (time_ms, value) in steps.each().zip(answer.route(route)?) {
            let to_ns = time_ms as u64 * 1_000_000;
            let truth = scene.traffic.truth(metric, route, to_ns - RANGE_NS, to_ns);
            errors.push(value / truth - 1.0);
        }
    }
    Ok(errors)
}
