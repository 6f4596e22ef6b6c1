//! When to ask, and how far two answers are apart.
//!
//! In: a Prometheus and an expression. Out: series with a finite value at every step, or an error that says what is missing: no figure is made of nothing.

use super::clock::INTERVAL_NS;
use crate::prometheus::answer::Labels;
use crate::prometheus::{Prometheus, Series};
use anyhow::{Context as _, ensure};

/// Distance of steps: as often as is exported.
const STEP_MS: i64 = (INTERVAL_NS / 1_000_000) as i64;
/// On the grid (multiples of the step since the epoch), where dashboards ask.
pub const GRID_MS: i64 = 0;
/// Beside it, where rules and people ask.
pub const BESIDE_MS: [i64; 5] = [2_500, 5_000, 7_500, 10_000, 12_500];
/// All of them.
pub const PHASES_MS: [i64; 6] = [GRID_MS, 2_500, 5_000, 7_500, 10_000, 12_500];

/// Equidistant times, both ends included.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    from_ms: i64,
    until_ms: i64,
}

/// An answer with a finite value for every series at every step.
#[derive(Debug)]
pub struct Answer {
    /// Series by their labels, with a value a step.
    pub series: Vec<(Labels, Vec<f64>)>,
}

impl Steps {
    /// From one time to another, in Unix nanoseconds; the first on the grid is the first.
    pub fn between(from_ns: u64, until_ns: u64) -> Steps {
        let (first, last) = (from_ns.div_ceil(INTERVAL_NS), until_ns / INTERVAL_NS);
        let ms = |steps: u64| steps as i64 * STEP_MS;
        Steps { from_ms: ms(first), until_ms: ms(last) }
    }

    /// The same steps, all of them later by so much, or earlier.
    #[must_use]
    pub fn moved(self, by_ms: i64) -> Steps {
        Steps { from_ms: self.from_ms + by_ms, until_ms: self.until_ms + by_ms }
    }

    /// Each, in Unix milliseconds.
    pub fn each(self) -> impl Iterator<Item = i64> {
        (self.from_ms..=self.until_ms).step_by(STEP_MS as usize)
    }

    /// How many.
    pub fn count(self) -> usize {
        self.each().count()
    }

    /// Whatever Prometheus says.
    pub async fn look(self, prometheus: &Prometheus, expr: &str) -> anyhow::Result<Vec<Series>> {
        prometheus.query_range(expr, self.from_ms, self.until_ms, STEP_MS).await
    }

    /// `expected` series, each with a finite value above zero at every step.
    pub async fn ask(self, prometheus: &Prometheus, expr: &str, expected: usize) -> anyhow::Result<Answer> {
        let found = self.look(prometheus, expr).await?;
        let labels: Vec<_> = found.iter().map(|series| &series.labels).collect();
        ensure!(found.len() == expected, "{expr}: {} series and not {expected}: {labels:?}", found.len());
        let mut series = Vec::with_capacity(found.len());
        for one in &found {
            let mut values = Vec::new();
            for time_ms in self.each() {
                let value = one.at(time_ms).with_context(|| format!("{expr}: no value at {time_ms}"))?;
                ensure!(value.is_finite() && value > 0.0, "{expr}: {value} at {time_ms}");
                values.push(value);
            }
            series.push((one.labels.clone(), values));
        }
        Ok(Answer { series })
    }
}

impl Answer {
    /// The largest relative difference to another one step by step; both must have the same series.
    pub fn worst(&self, other: &Answer) -> anyhow::Result<f64> {
        let labels = |answer: &Answer| answer.series.iter().map(|(of, _)| of.clone()).collect::<Vec<_>>();
        ensure!(labels(self) == labels(other), "{:?} against {:?}", labels(self), labels(other));
        let mut worst = 0.0_f64;
        for ((_, ours), (_, theirs)) in self.series.iter().zip(&other.series) {
            ensure!(
                ours.len() == theirs.len() && !ours.is_empty(),
                "steps: {} and {}",
                ours.len(),
                theirs.len()
            );
            let apart = ours.iter().zip(theirs).map(|(a, b)| relative(*a, *b));
            worst = apart.fold(worst, f64::max);
        }
        Ok(worst)
    }

    /// The values of a route.
    pub fn route(&self, route: &str) -> anyhow::Result<&[f64]> {
        let is_of = |(labels, _): &&(Labels, Vec<f64>)| labels.get("route").is_some_and(|of| of == route);
        Ok(&self.series.iter().find(is_of).with_context(|| format!("no route {route}"))?.1)
    }
}

/// How far two values are apart, by the larger one.
pub fn relative(a: f64, b: f64) -> f64 {
    if a == b { 0.0 } else { (a - b).abs() / a.abs().max(b.abs()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(routes: &[(&str, &[f64])]) -> Answer {
        let labels = |route: &str| [("route".to_owned(), route.to_owned())].into();
        Answer { series: routes.iter().map(|(route, values)| (labels(route), values.to_vec())).collect() }
    }

    #[test]
    fn steps_lie_on_the_grid() {
        let second = |seconds: u64| seconds * 1_000_000_000;
        let steps = Steps::between(second(31), second(75));
        assert_eq!(steps.each().collect::<Vec<_>>(), [45_000, 60_000, 75_000]);
        assert_eq!(steps.moved(2_500).each().next(), Some(47_500));
    }

    #[test]
    fn answers_are_as_far_apart_as_their_worst_step() {
        let one = answer(&[("/a", &[1.0, 2.0]), ("/b", &[4.0, 4.0])]);
        assert_eq!(one.worst(&answer(&[("/a", &[1.0, 2.0]), ("/b", &[4.0, 4.0])])).unwrap(), 0.0);
        assert_eq!(one.worst(&answer(&[("/a", &[1.0, 2.0]), ("/b", &[4.0, 3.0])])).unwrap(), 0.25);
        for other in [
            answer(&[("/a", &[1.0, 2.0])]),
            answer(&[("/a", &[1.0, 2.0]), ("/c", &[4.0, 4.0])]),
            answer(&[("/a", &[1.0, 2.0]), ("/b", &[4.0])]),
            answer(&[("/a", &[]), ("/b", &[])]),
        ] {
            assert!(one.worst(&other).is_err(), "{other:?}");
        }
        assert_eq!(one.route("/b").unwrap(), [4.0, 4.0]);
        assert!(one.route("/c").is_err());
    }
}
