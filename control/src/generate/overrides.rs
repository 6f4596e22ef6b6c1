//! Flags over a scenario.
//!
//! Enters: the arguments. Leaves: the scenario that they mean, checked. What a flag says replaces what the scenario says, for all of it that the flag speaks of. Errors name the
//! file, or the flags where only they can be at fault.

use super::arguments::Arguments;
use super::scenario::{
    Diurnal, Kind, Label, Metric, Number, Runaway, Scenario, Service, Temporality, Values,
};
use super::scenario::{read, read_file};
use anyhow::{Context, Result, bail};

/// The trough of `--diurnal`.
const DIURNAL_LOW: f64 = 0.2;
/// Values of a runaway at most when a flag asked for it.
const RUNAWAY_MAX: u64 = 100_000;
/// Values of the labels of `--mix`; their product, 1,920, is the streams of a metric and pod at most.
const MIX_LABELS: [(&str, u32); 3] = [("http.request.method", 4), ("http.route", 24), ("client.address", 20)];
/// Events a second of a stream of `--mix`.
const MIX_RATE: f64 = 4.0;

/// The scenario of a run.
pub fn scenario(arguments: &Arguments) -> Result<Scenario> {
    let (mut scenario, name) = match (&arguments.scenario, arguments.preset.unwrap_or_default()) {
        (Some(file), _) => (read_file(file)?, file.display().to_string()),
        (None, preset) => (read(preset.text(), preset.name())?, preset.name().to_owned()),
    };
    scenario.check().context(name)?;
    let before = scenario.clone();
    apply(arguments, &mut scenario)?;
    if scenario != before {
        scenario.check().context("with the flags that were given")?;
    }
    Ok(scenario)
}

fn apply(arguments: &Arguments, scenario: &mut Scenario) -> Result<()> {
    let set = |of: &mut u64, by: Option<u64>| *of = by.unwrap_or(*of);
    set(&mut scenario.seed, arguments.seed);
    set(&mut scenario.streams, arguments.streams);
    if let Some(points) = arguments.points_per_request {
        scenario.points_per_request = points;
    }
    if let Some(resets) = arguments.resets {
        scenario.resets = resets;
    }
    let how_often = (arguments.interval, arguments.points_per_second, arguments.requests_per_second);
    if how_often != (None, None, None) {
        (scenario.interval, scenario.points_per_second, scenario.requests_per_second) = how_often;
    }
    if let Some(period) = arguments.diurnal {
        scenario.diurnal = Some(Diurnal { period, low: DIURNAL_LOW });
    }
    if let Some(pods) = arguments.pods {
        deal_pods(&mut scenario.services, pods)?;
    }
    for service in &mut scenario.services {
        service.deploy_wave = arguments.deploy_wave.or(service.deploy_wave);
    }
    if let Some(mix) = &arguments.mix {
        scenario.metrics = metrics(mix)?;
    }
    labels(arguments, &mut scenario.metrics)
}

fn labels(arguments: &Arguments, metrics: &mut [Metric]) -> Result<()> {
    for metric in metrics.iter_mut() {
        if let Some(zipf) = arguments.zipf {
            metric.labels.iter_mut().for_each(|label| label.zipf = zipf);
        }
        if let Some(churn) = arguments.churn {
            metric.labels.iter_mut().for_each(|label| label.churn = 0.0);
            metric.labels.last_mut().into_iter().for_each(|label| label.churn = churn);
        }
    }
    let Some(per_second) = arguments.runaway else { return Ok(()) };
    let Some(metric) = metrics.first_mut() else { return Ok(()) };
    let Some(label) = metric.labels.last_mut() else {
        bail!("--runaway: metric {:?} has no label to run away", metric.name);
    };
    label.runaway = Some(Runaway { after: arguments.runaway_after, per_second, max: RUNAWAY_MAX });
    Ok(())
}

/// So many pods over services, in proportion to what they have, at least one each.
fn deal_pods(services: &mut [Service], pods: u32) -> Result<()> {
    let least = u32::try_from(services.len()).unwrap_or(u32::MAX);
    if pods < least {
        bail!(
            "--pods: value {pods} is not allowed; allowed: at least {least}, the number of services in the scenario"
        );
    }
    let mut before: u64 = services.iter().map(|service| u64::from(service.pods)).sum();
    let mut left = u64::from(pods);
    let mut behind = u64::from(least);
    for service in services {
        behind -= 1;
        let own = u64::from(service.pods);
        // Of what is left, its part of those that are left; one stays for each that comes after.
        let given = (left * own / before).clamp(1, left - behind);
        service.pods = u32::try_from(given).unwrap_or(u32::MAX);
        (left, before) = (left - given, before - own);
        if behind == 0 {
            service.pods += u32::try_from(left).unwrap_or(0);
        }
    }
    Ok(())
}

const WORDS: [(&str, Kind, Temporality, Number); 12] = {
    use Kind::{ExponentialHistogram, Gauge, Histogram, Sum, Summary, UpDownCounter};
    use Number::{Double, Int};
    use Temporality::{Cumulative, Delta};
    [
        ("sum", Sum, Cumulative, Int),
        ("sum_double", Sum, Cumulative, Double),
        ("delta_sum", Sum, Delta, Int),
        ("delta_sum_double", Sum, Delta, Double),
        ("up_down_counter", UpDownCounter, Cumulative, Int),
        ("gauge", Gauge, Cumulative, Int),
        ("gauge_double", Gauge, Cumulative, Double),
        ("histogram", Histogram, Cumulative, Int),
        ("delta_histogram", Histogram, Delta, Int),
        ("exponential_histogram", ExponentialHistogram, Cumulative, Int),
        ("delta_exponential_histogram", ExponentialHistogram, Delta, Int),
        ("summary", Summary, Cumulative, Int),
    ]
};

/// The metrics of `--mix`, one a type.
fn metrics(mix: &str) -> Result<Vec<Metric>> {
    let mut metrics: Vec<Metric> = Vec::new();
    for part in mix.split(',').map(str::trim) {
        let (word, weight) = part.split_once('=').unwrap_or((part, "1"));
        let share: Option<f64> = weight.parse().ok().filter(|share| (0.0..=1_000_000.0).contains(share));
        let Some(share) = share else {
            bail!("--mix: weight {weight:?} of {word} is not allowed; allowed: 0 to 1000000");
        };
        let Some((_, kind, temporality, number)) = WORDS.iter().find(|known| known.0 == word) else {
            let known: Vec<&str> = WORDS.iter().map(|known| known.0).collect();
            bail!("--mix: type {word:?} is not allowed; allowed: {}", known.join(", "));
        };
        let name = format!("load.{word}");
        if metrics.iter().any(|metric| metric.name == name) {
            bail!("--mix: type {word} twice; allowed: once");
        }
        if share == 0.0 {
            continue;
        }
        metrics.push(Metric {
            name,
            unit: "1".to_owned(),
            kind: *kind,
            temporality: *temporality,
            number: *number,
            share,
            rate: MIX_RATE,
            services: Vec::new(),
            labels: MIX_LABELS.iter().map(mix_label).collect(),
            bounds: Vec::new(),
            scale: 3,
        });
    }
    Ok(metrics)
}

fn mix_label((name, count): &(&str, u32)) -> Label {
    Label { name: (*name).to_owned(), values: Values::Count(*count), zipf: 1.0, churn: 0.0, runaway: None }
}
