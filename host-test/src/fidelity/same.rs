//! (a) What Envoy wrote is what the reference wrote.
//!
//! In: both Prometheuses. Out: every sample of every series, which of them are there at each instant (a stale marker shows as absence), and the answers of
//! the two functions that dashboards ask. Passing series of switched metrics are compared like folded ones.

use super::clock::{MINUTE_NS, TAIL_NS};
use super::instrument::{FOLDED, Instrument, SWITCHED};
use super::life::ROUTES;
use super::steps::{PHASES_MS, Steps, relative};
use super::table::Table;
use super::{RANGE, Scene};
use crate::figure::{Figure, Unit};
use crate::prometheus::Series;
use anyhow::ensure;

/// Equal but for the rounding of the query engine.
pub const EQUAL: f64 = 1e-9;
/// How long a series without a stale marker is still there: Prometheus' look-back.
const LOOK_BACK_NS: u64 = 5 * MINUTE_NS;
/// Longest text about one series that is not the same.
const SAMPLES_SHOWN: usize = 4;

/// How far two sets of series are apart.
#[derive(Default)]
pub struct Apart {
    /// Series of the reference.
    pub series: usize,
    /// Its samples.
    pub samples: usize,
    /// Samples that only one side has, or series.
    pub unpaired: usize,
    /// The largest relative difference of two values.
    pub worst: f64,
    /// The first series that differs, in words.
    pub example: Option<String>,
}

pub async fn figures(scene: &Scene, table: &mut Table) -> anyhow::Result<()> {
    table.title("(a) the same as the reference fold in the same Prometheus");
    for (key, name, metrics) in
        [("folded", "folded", FOLDED.as_slice()), ("switched", "switched", SWITCHED.as_slice())]
    {
        let (mut samples, mut shown) = (Apart::default(), Apart::default());
        for metric in metrics {
            samples.join(every_sample(scene, metric).await?);
            shown.join(every_instant(scene, metric).await?);
        }
        let what = format!("{name}: values of {} samples in {} series", samples.samples, samples.series);
        table.add(Figure::new(format!("a.{key}.value"), what, Unit::Relative, samples.worst).at_most(EQUAL));
        let what = format!("{name}: samples that one side does not have");
        let unpaired = Figure::new(format!("a.{key}.time"), what, Unit::Count, samples.unpaired as f64);
        table.add(unpaired.at_most(0.0));
        let what = format!("{name}: of {} instant answers, those of one side only", shown.samples);
        let unpaired = Figure::new(format!("a.{key}.stale"), what, Unit::Count, shown.unpaired as f64);
        table.add(unpaired.at_most(0.0));
        for example in samples.example.into_iter().chain(shown.example) {
            table.note(example);
        }
        queries(scene, key, name, metrics, table).await?;
    }
    Ok(())
}

/// Range vectors hold every sample but stale markers.
async fn every_sample(scene: &Scene, metric: &Instrument) -> anyhow::Result<Apart> {
    let until_ms = ((scene.traffic.active_until_ns() + TAIL_NS) / 1_000_000) as i64;
    let expr = format!("{}[2h]", metric.stored);
    let ours = scene.roads.folded.query(&expr, until_ms).await?;
    let theirs = scene.roads.reference.query(&expr, until_ms).await?;
    ensure!(!theirs.is_empty(), "{expr}: nothing");
    Ok(apart(&ours, &theirs))
}

/// Instant vectors at every step from the beginning until nothing is there any more.
async fn every_instant(scene: &Scene, metric: &Instrument) -> anyhow::Result<Apart> {
    let begin_ns = scene.traffic.begin_ns();
    let steps = Steps::between(begin_ns, scene.traffic.active_until_ns() + TAIL_NS + LOOK_BACK_NS);
    let ours = steps.look(&scene.roads.folded, metric.stored).await?;
    let theirs = steps.look(&scene.roads.reference, metric.stored).await?;
    ensure!(!theirs.is_empty(), "{}: nothing", metric.stored);
    Ok(apart(&ours, &theirs))
}

async fn queries(
    scene: &Scene,
    key: &str,
    name: &str,
    metrics: &[&Instrument],
    table: &mut Table,
) -> anyhow::Result<()> {
    for function in ["rate", "increase"] {
        let (mut worst, mut at_arrival, mut answers) = (0.0_f64, 0.0_f64, 0);
        for metric in metrics {
            // The routes of the edge come and go.
            let routes = ROUTES.join("|");
            let expr =
                format!("sum by (route) ({function}({}{{route=~\"{routes}\"}}[{RANGE}]))", metric.stored);
            for phase_ms in PHASES_MS {
                let steps = scene.steps.moved(phase_ms);
                let ours = steps.ask(&scene.roads.folded, &expr, ROUTES.len()).await?;
                let theirs = steps.ask(&scene.roads.reference, &expr, ROUTES.len()).await?;
                let others = steps.ask(&scene.roads.arrival, &expr, ROUTES.len()).await?;
                worst = worst.max(ours.worst(&theirs)?);
                at_arrival = at_arrival.max(others.worst(&theirs)?);
                answers += ROUTES.len() * steps.count();
            }
        }
        let what = format!("{name}: values of {answers} answers of {function}[{RANGE}] by route");
        let figure = Figure::new(format!("a.{key}.{function}"), what, Unit::Relative, worst);
        table.add(figure.at_most(EQUAL).beside(at_arrival));
    }
    Ok(())
}

/// How far two lists of series are apart.
pub fn apart(ours: &[Series], theirs: &[Series]) -> Apart {
    let mut apart = Apart { series: theirs.len(), ..Apart::default() };
    for their in theirs {
        apart.samples += their.points.len();
        let our = ours.iter().find(|our| our.labels == their.labels);
        let none = Series { labels: their.labels.clone(), points: Vec::new() };
        apart.compare(our.unwrap_or(&none), their);
    }
    for our in ours.iter().filter(|our| theirs.iter().all(|their| their.labels != our.labels)) {
        apart.compare(our, &Series { labels: our.labels.clone(), points: Vec::new() });
    }
    apart
}

impl Apart {
    fn compare(&mut self, ours: &Series, theirs: &Series) {
        let one_side = |a: &Series, b: &Series| a.points.iter().filter(|(t, _)| b.at(*t).is_none()).count();
        let unpaired = one_side(ours, theirs) + one_side(theirs, ours);
        self.unpaired += unpaired;
        let mut worst = 0.0_f64;
        for (time, value) in &ours.points {
            worst = theirs.at(*time).map_or(worst, |other| worst.max(relative(*value, other)));
        }
        self.worst = self.worst.max(worst);
        if (unpaired > 0 || worst > EQUAL) && self.example.is_none() {
            let differ = |(a, b): &(&(i64, f64), &(i64, f64))| a.0 != b.0 || relative(a.1, b.1) > EQUAL;
            let same = ours.points.iter().zip(&theirs.points).take_while(|pair| !differ(pair)).count();
            let shown = |series: &Series| -> Vec<(i64, f64)> {
                series.points.iter().skip(same).take(SAMPLES_SHOWN).copied().collect()
            };
            let labels: Vec<_> = ours.labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
            self.example = Some(format!(
                "{}: {} samples and {}; the first {same} agree, then (Unix milliseconds, value)\n  Phoenix   {:?}\n  reference {:?}",
                labels.join(" "),
                ours.points.len(),
                theirs.points.len(),
                shown(ours),
                shown(theirs)
            ));
        }
    }

    /// Adds another metric's.
    pub fn join(&mut self, other: Apart) {
        self.series += other.series;
        self.samples += other.samples;
        self.unpaired += other.unpaired;
        self.worst = self.worst.max(other.worst);
        self.example = self.example.take().or(other.example);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(route: &str, points: &[(i64, f64)]) -> Series {
        Series { labels: [("route".to_owned(), route.to_owned())].into(), points: points.to_vec() }
    }

    #[test]
    fn every_difference_is_seen() {
        let reference = [series("a", &[(1, 1.0), (2, 2.0)])];
        let cases: [(&[Series], usize, f64); 5] = [
            (&[series("a", &[(1, 1.0), (2, 2.0)])], 0, 0.0),
            (&[series("a", &[(1, 1.0), (2, 4.0)])], 0, 0.5),
            (&[series("a", &[(1, 1.0), (3, 2.0)])], 2, 0.0),
            (&[], 2, 0.0),
            (&[series("a", &[(1, 1.0), (2, 2.0)]), series("b", &[(1, 1.0)])], 1, 0.0),
        ];
        for (ours, unpaired, worst) in cases {
            let apart = apart(ours, &reference);
            assert_eq!((apart.unpaired, apart.worst), (unpaired, worst), "{ours:?}");
            assert_eq!(apart.example.is_some(), unpaired > 0 || worst > 0.0);
        }
    }
}
