//! The questions, and what the answers must be.
//!
//! In: the Prometheus to run. Out: a table of figures, and an error that names every one beyond its bound. Bounds: against the reference 1e-9, which is
//! the rounding of the queries; against raw 0.5 % where nothing is born and nothing dies, asked in the middle of windows only (see [`against_raw`]); elsewhere no worse than raw against the truth
//! by 0.5 % on average; totals of integers exactly.

use super::roads::{AT_ARRIVAL, MARK, Roads, WRITER, travel};
use anyhow::{Context as _, bail, ensure};
use phoenix_host_test::prometheus::traffic::{
    CPU, INTERVAL_NS, MINUTE_NS, ORDERS, PASSING, REQUESTS, ROUTES, TAIL_NS, Traffic,
};
use phoenix_host_test::prometheus::{Prometheus, Series};
use phoenix_host_test::shop::run::unix_ns;
use std::path::PathBuf;

/// Equal but for the rounding of the query engine.
const EQUAL: f64 = 1e-9;
/// How far a folded rate may be from the raw one.
const CLOSE: f64 = 0.005;
/// Doubles: the bound of conservation.
const DOUBLE_TOTAL: f64 = 1e-12;
/// The range of the queries.
const RANGE_NS: u64 = 5 * MINUTE_NS;
/// From when on a range holds no first sample: the range, an interval, a window.
const WARM_NS: u64 = RANGE_NS + 2 * INTERVAL_NS;
/// How long after the end of a window is asked: dashboards ask at 0, rules at any time.
const PHASES_MS: [i64; 6] = [0, 2_500, 5_000, 7_500, 10_000, 12_500];
/// How long ago the traffic begins: all of it must be in the past.
const AGO_NS: u64 = 60 * MINUTE_NS;

/// The metrics as Prometheus names them.
const STEADY: [(&str, &str); 2] = [(REQUESTS, "fold_requests_total"), (CPU, "fold_cpu_seconds_total")];
const DEPLOYED: (&str, &str) = (ORDERS, "fold_orders_total");

/// One line of the table.
struct Figure {
    what: String,
    value: f64,
    /// None: shown, not judged.
    bound: Option<f64>,
    at_arrival: Option<f64>,
}

/// The figures, as they come.
#[derive(Default)]
struct Table(Vec<Figure>);

impl Table {
    fn add(&mut self, what: impl Into<String>, value: f64, bound: f64) {
        self.0.push(Figure { what: what.into(), value, bound: Some(bound), at_arrival: None });
    }

    fn beside(&mut self, what: impl Into<String>, value: f64, bound: Option<f64>, at_arrival: f64) {
        self.0.push(Figure { what: what.into(), value, bound, at_arrival: Some(at_arrival) });
    }

    fn print_and_judge(&self) -> anyhow::Result<()> {
        println!("{:<72} {:>9} {:>9} {:>10}", "figure", "value", "bound", "at arrival");
        let mut broken = Vec::new();
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2e}"));
        for Figure { what, value, bound, at_arrival } in &self.0 {
            // NaN holds no bound.
            let holds = bound.is_none_or(|bound| *value <= bound);
            let word = if holds { "" } else { "  BROKEN" };
            println!("{what:<72} {value:>9.2e} {:>9} {:>10}{word}", number(*bound), number(*at_arrival));
            if !holds {
                broken.push(format!("{what}: {value:e} is beyond {:e}", bound.unwrap_or_default()));
            }
        }
        ensure!(broken.is_empty(), "{}", broken.join("\n"));
        Ok(())
    }
}

/// When to ask.
struct Steps {
    begin_ns: u64,
    from_ms: i64,
    until_ms: i64,
}

const STEP_MS: i64 = (INTERVAL_NS / 1_000_000) as i64;

impl Steps {
    async fn ask(&self, prometheus: &Prometheus, expr: &str) -> anyhow::Result<Vec<Series>> {
        prometheus.query_range(expr, self.from_ms, self.until_ms, STEP_MS).await
    }

    /// The same steps, all of them later by so much, or earlier.
    fn moved(&self, by_ms: i64) -> Steps {
        Steps { begin_ns: self.begin_ns, from_ms: self.from_ms + by_ms, until_ms: self.until_ms + by_ms }
    }

    fn all(&self) -> impl Iterator<Item = i64> + use<> {
        (self.from_ms..=self.until_ms).step_by(STEP_MS as usize)
    }
}

/// The proof.
pub async fn prove(binary: PathBuf) -> anyhow::Result<()> {
    // Windows and steps align with full minutes.
    let begin_ns = (unix_ns() - AGO_NS) / MINUTE_NS * MINUTE_NS;
    let traffic = Traffic::new(begin_ns);
    let roads = travel(&binary, &traffic.exports()).await?;
    let ms = |ns: u64| (ns / 1_000_000) as i64;
    let steps = Steps {
        begin_ns,
        from_ms: ms(begin_ns + WARM_NS),
        until_ms: ms(traffic.active_until_ns() - INTERVAL_NS),
    };
    let mut table = Table::default();
    same_samples(&roads, &steps).await?;
    identity(&roads, &steps, &mut table).await?;
    rates(&roads, &steps, &mut table).await?;
    against_raw(&roads, &steps, &mut table).await?;
    truth(&roads, &traffic, &steps, &mut table).await?;
    totals(&roads, &traffic, &mut table).await?;
    passing(&roads, &steps, &mut table).await?;
    let late = roads.counters.get("late").copied().unwrap_or(-1);
    table.add("late points", late as f64, 0.0);
    println!("{} points folded, {} baselines", roads.books.folded, roads.books.baselines);
    table.print_and_judge()
}

/// Sample by sample: what Envoy wrote is what the reference wrote.
async fn same_samples(roads: &Roads, steps: &Steps) -> anyhow::Result<()> {
    for (_, name) in STEADY.into_iter().chain([DEPLOYED]) {
        let expr = format!("{name}{{phoenix_writer=\"{WRITER}\"}}[2h]");
        let until_ms = steps.until_ms + (TAIL_NS / 1_000_000) as i64;
        let (ours, theirs) =
            (roads.folded.query(&expr, until_ms).await?, roads.reference.query(&expr, until_ms).await?);
        ensure!(!ours.is_empty(), "{name}: nothing was folded");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            ensure!(ours.labels == theirs.labels, "{:?} against {:?}", ours.labels, theirs.labels);
            let apart = ours
                .points
                .iter()
                .zip(&theirs.points)
                .find(|((t1, v1), (t2, v2))| t1 != t2 || relative(*v1, *v2) > EQUAL);
            if apart.is_some() || ours.points.len() != theirs.points.len() {
                let begin_ms = (steps.begin_ns / 1_000_000) as i64;
                bail!(
                    "{:?}: {apart:?} (folded, reference; begin {begin_ms})\nfolded    {} points {:?} … {:?}\nreference {} points {:?} … {:?}",
                    ours.labels,
                    ours.points.len(),
                    &ours.points[..4.min(ours.points.len())],
                    ours.points.last(),
                    theirs.points.len(),
                    &theirs.points[..4.min(theirs.points.len())],
                    theirs.points.last(),
                );
            }
        }
        ensure!(ours.len() == theirs.len(), "{name}: {} series against {}", ours.len(), theirs.len());
    }
    Ok(())
}

/// Folded series carry mark and writer and no dropped label; what passes carries neither.
async fn identity(roads: &Roads, steps: &Steps, table: &mut Table) -> anyhow::Result<()> {
    let series = |prometheus, matcher| async move {
        Prometheus::series(prometheus, matcher, steps.from_ms, steps.until_ms).await
    };
    let folded = series(&roads.folded, "{__name__=~\"fold_.+\"}").await?;
    for labels in &folded {
        let of = |name: &str| labels.get(name).map(String::as_str);
        ensure!(of("phoenix_folded") == Some(MARK) && of("phoenix_writer") == Some(WRITER), "{labels:?}");
        ensure!(of("job") == Some("shop") && of("route").is_some(), "{labels:?}");
        for dropped in ["k8s_pod_name", "instance", "user_agent"] {
            ensure!(of(dropped).is_none(), "{dropped} was dropped: {labels:?}");
        }
    }
    let raw = series(&roads.raw, "{__name__=~\"fold_.+\"}").await?;
    table.add("series, folded to raw", folded.len() as f64 / raw.len() as f64, 0.3);
    Ok(())
}

/// Against the reference at every instant.
async fn rates(roads: &Roads, steps: &Steps, table: &mut Table) -> anyhow::Result<()> {
    for (_, name) in STEADY.into_iter().chain([DEPLOYED]) {
        for function in ["rate", "increase"] {
            let expr = |selector: &str| format!("sum by (route)({function}({name}{selector}[5m]))");
            let mut apart = 0.0_f64;
            for phase_ms in PHASES_MS {
                let steps = steps.moved(phase_ms);
                let ours = steps.ask(&roads.folded, &expr("")).await?;
                let theirs = steps.ask(&roads.reference, &expr(&by(WRITER))).await?;
                apart = apart.max(worst((&ours, &steps), (&theirs, &steps))?);
            }
            table.add(format!("{function}({name}[5m]) to reference, worst"), apart, EQUAL);
        }
    }
    Ok(())
}

/// Against raw where nothing is born and nothing dies.
///
/// A folded series has one sample a window, at its end; the samples of many streams are spread over the interval, so that the newest of each is half an
/// interval old on average. Both answers mean the same instant only in the middle of a window: there the difference is judged. Elsewhere it is shown,
/// and is what half a window of change makes: worst at the end of a window, where dashboards ask.
async fn against_raw(roads: &Roads, steps: &Steps, table: &mut Table) -> anyhow::Result<()> {
    for (_, name) in STEADY {
        let expr = |selector: &str| format!("sum by (route)(rate({name}{selector}[5m]))");
        for phase_ms in PHASES_MS {
            let steps = steps.moved(phase_ms);
            let ours = steps.ask(&roads.folded, &expr("")).await?;
            let raw = steps.ask(&roads.raw, &expr("")).await?;
            let arrival = steps.ask(&roads.reference, &expr(&by(AT_ARRIVAL))).await?;
            let seconds = phase_ms as f64 / 1e3;
            let what = format!("rate({name}[5m]) to raw, worst, {seconds} s after a window");
            let bound = (phase_ms == STEP_MS / 2).then_some(CLOSE);
            let baseline = worst((&arrival, &steps), (&raw, &steps))?;
            table.beside(what, worst((&ours, &steps), (&raw, &steps))?, bound, baseline);
        }
    }
    Ok(())
}

/// Against the generator: on average over all phases no worse than raw.
async fn truth(roads: &Roads, traffic: &Traffic, steps: &Steps, table: &mut Table) -> anyhow::Result<()> {
    for (metric, name) in STEADY.into_iter().chain([DEPLOYED]) {
        let expr = |selector: &str| format!("sum by (route)(increase({name}{selector}[5m]))");
        let (mut ours, mut raw, mut arrival) = (0.0, 0.0, 0.0);
        for phase_ms in PHASES_MS {
            let steps = steps.moved(phase_ms);
            let error = |series: Vec<Series>| mean_error(&series, traffic, metric, &steps);
            let share = 1.0 / PHASES_MS.len() as f64;
            ours += share * error(steps.ask(&roads.folded, &expr("")).await?)?;
            raw += share * error(steps.ask(&roads.raw, &expr("")).await?)?;
            arrival += share * error(steps.ask(&roads.reference, &expr(&by(AT_ARRIVAL))).await?)?;
        }
        let what = format!("increase({name}[5m]) to truth, mean; raw {raw:.2e}");
        table.beside(what, ours, Some(raw + CLOSE), arrival);
    }
    Ok(())
}

fn by(writer: &str) -> String {
    format!("{{phoenix_writer=\"{writer}\"}}")
}

/// Totals, to the last increment.
async fn totals(roads: &Roads, traffic: &Traffic, table: &mut Table) -> anyhow::Result<()> {
    let end_ms = ((traffic.active_until_ns() + TAIL_NS) / 1_000_000) as i64;
    for (metric, name) in STEADY.into_iter().chain([DEPLOYED]) {
        let expr = format!("sum by (route)(last_over_time({name}[1h]))");
        let found = roads.folded.query(&expr, end_ms).await?;
        let bound = if metric == CPU { DOUBLE_TOTAL } else { 0.0 };
        for route in ROUTES {
            let of = found.iter().find(|series| series.labels["route"] == route).context("a route")?;
            let value = of.points.first().context("a total")?.1;
            table.add(
                format!("total of {name}, {route}"),
                relative(value, traffic.total(metric, route)),
                bound,
            );
        }
    }
    Ok(())
}

/// What no rule names is the same to the last bit, and carries nothing of ours.
async fn passing(roads: &Roads, steps: &Steps, table: &mut Table) -> anyhow::Result<()> {
    let name = format!("{PASSING}_total");
    let (ours, raw) = (steps.ask(&roads.folded, &name).await?, steps.ask(&roads.raw, &name).await?);
    ensure!(!raw.is_empty() && raw.iter().all(|series| series.labels.contains_key("k8s_pod_name")));
    table.add(format!("{name}, every pod, against raw"), worst((&ours, steps), (&raw, steps))?, 0.0);
    Ok(())
}

fn relative(a: f64, b: f64) -> f64 {
    if a == b { 0.0 } else { (a - b).abs() / a.abs().max(b.abs()) }
}

/// The largest relative difference step by step; both have the same series and a value at every step.
fn worst(ours: (&[Series], &Steps), theirs: (&[Series], &Steps)) -> anyhow::Result<f64> {
    ensure!(!ours.0.is_empty(), "no series");
    let labels = |series: &[Series]| series.iter().map(|s| s.labels.clone()).collect::<Vec<_>>();
    ensure!(labels(ours.0) == labels(theirs.0), "{:?} against {:?}", labels(ours.0), labels(theirs.0));
    let mut worst = 0.0_f64;
    for (one, other) in ours.0.iter().zip(theirs.0) {
        for (time_ms, other_ms) in ours.1.all().zip(theirs.1.all()) {
            let (Some(a), Some(b)) = (one.at(time_ms), other.at(other_ms)) else {
                bail!("{:?}: no value at {time_ms} or {other_ms}", one.labels);
            };
            ensure!(a.is_finite() && b.is_finite(), "{:?}: {a} and {b} at {time_ms}", one.labels);
            worst = worst.max(relative(a, b));
        }
    }
    Ok(worst)
}

fn mean_error(series: &[Series], traffic: &Traffic, metric: &str, steps: &Steps) -> anyhow::Result<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for route in ROUTES {
        let of = series.iter().find(|series| series.labels["route"] == route).context("a route")?;
        for time_ms in steps.all() {
            let value = of.at(time_ms).with_context(|| format!("no value at {time_ms}"))?;
            let to_ns = time_ms as u64 * 1_000_000;
            let truth = traffic.truth(metric, route, to_ns - RANGE_NS, to_ns);
            sum += (value - truth).abs() / truth;
            count += 1.0;
        }
    }
    Ok(sum / count)
}
