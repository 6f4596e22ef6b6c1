//! A scenario: which processes there are, which metrics they export, and how labels behave.
//!
//! Enters: YAML, a preset or a file. Leaves: a checked [`Scenario`]. `docs/generate.md` explains each field. Refused, with file, field, value and
//! what is allowed: unknown fields, values out of range, metrics of services that do not exist, two ways to say how often.

use anyhow::{Context, Result, anyhow, bail};
use phoenix_plan::DurationMs;
use serde::de::{self, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::path::Path;

/// More streams than this are not held by one generator: about 100 bytes each.
pub const STREAMS: RangeInclusive<u64> = 1..=5_000_000;
/// Export intervals: the shortest keeps timers honest, the longest is an hour.
pub const INTERVAL_MS: RangeInclusive<u64> = 10..=3_600_000;
/// Processes of one service.
pub const PODS: RangeInclusive<u32> = 1..=100_000;
/// Points in a request: receivers refuse messages over 4 MiB, which 10,000 points of usual size come near to.
pub const POINTS_PER_REQUEST: RangeInclusive<u32> = 1..=10_000;
/// Values of one label.
pub const VALUES: RangeInclusive<u32> = 1..=1_000_000;
/// Zipf's exponent: 0 is uniform, beyond 5 the first value has all.
pub const ZIPF: RangeInclusive<f64> = 0.0..=5.0;
/// Shares of streams a minute, for churn and resets: 60 is all of them every second.
pub const PER_MINUTE: RangeInclusive<f64> = 0.0..=60.0;
/// New values a second of a runaway label.
pub const RUNAWAY_PER_SECOND: RangeInclusive<f64> = 0.001..=100_000.0;
/// Events a second of one stream, or where a gauge hovers: bytes of memory are gauges.
pub const RATE: RangeInclusive<f64> = 0.0..=1e12;
/// Scales of exponential histograms: below −4 the buckets in use would reach beyond what a double holds.
pub const SCALE: RangeInclusive<i32> = -4..=20;
/// Points or requests a second.
pub const PER_SECOND: RangeInclusive<f64> = 0.001..=10_000_000.0;

/// Everything that a run is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Seed of everything random.
    pub seed: u64,
    /// Streams at the beginning, over all pods and metrics.
    pub streams: u64,
    /// Export interval of each pod. Or one of the next two, from which it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<DurationMs>,
    /// Points a second at the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points_per_second: Option<f64>,
    /// Requests a second at the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<f64>,
    /// Points in a request at most; a pod with more sends several.
    pub points_per_request: u32,
    /// Share of the streams that restart each minute: a new start time, the value from zero.
    pub resets: f64,
    /// Traffic that goes up and down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diurnal: Option<Diurnal>,
    /// Who exports.
    pub services: Vec<Service>,
    /// What is exported.
    pub metrics: Vec<Metric>,
}

/// Traffic that goes up and down as a sine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diurnal {
    /// From one peak to the next.
    pub period: DurationMs,
    /// The trough as a share of the peak.
    #[serde(default)]
    pub low: f64,
}

/// A service and its processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// `service.name`.
    pub name: String,
    /// Processes.
    #[serde(default = "one")]
    pub pods: u32,
    /// More resource attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// All pods are replaced by new ones this often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_wave: Option<DurationMs>,
}

/// A metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its unit.
    #[serde(default)]
    pub unit: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whether points carry totals or what was added.
    #[serde(default)]
    pub temporality: Temporality,
    /// Integers or doubles: of sums, up-down counters and gauges.
    #[serde(default)]
    pub number: Number,
    /// Its part of the streams, against that of the others.
    #[serde(default = "one_share")]
    pub share: f64,
    /// Events a second of an average stream: what a sum grows by, what a histogram observes.
    #[serde(default = "one_share")]
    pub rate: f64,
    /// The services that export it; none named: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Its labels; without any a pod has one stream of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// Bounds of an explicit histogram.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<f64>,
    /// Scale of an exponential histogram.
    #[serde(default = "default_scale", skip_serializing_if = "is_default_scale")]
    pub scale: i32,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A counter.
    Sum,
    /// A sum that also falls.
    UpDownCounter,
    /// A value of now.
    Gauge,
    /// Explicit bounds.
    Histogram,
    /// Exponential buckets.
    ExponentialHistogram,
    /// Count, sum and quantiles.
    Summary,
}

/// What points carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Temporality {
    /// Totals since a start.
    #[default]
    Cumulative,
    /// What was added since the last point.
    Delta,
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Number {
    /// `as_int`.
    #[default]
    Int,
    /// `as_double`, in hundredths, which have no exact binary form.
    Double,
}

/// A label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Its key.
    pub name: String,
    /// Its values, or how many.
    pub values: Values,
    /// Zipf's exponent: value number n gets n⁻ᶻ of the traffic; 0 is uniform.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub zipf: f64,
    /// Share of the streams whose value is replaced by a new one each minute.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub churn: f64,
    /// Values that do not stop coming.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runaway: Option<Runaway>,
}

/// Values that do not stop coming: each is a new stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runaway {
    /// When it begins.
    pub after: DurationMs,
    /// New values a second.
    pub per_second: f64,
    /// Values at most, so that a mistake does not eat the memory.
    #[serde(default = "default_runaway_max")]
    pub max: u64,
}

/// The values of a label.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Values {
    /// So many, named after the label.
    Count(u32),
    /// These.
    List(Vec<String>),
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            seed: 1,
            streams: 100,
            interval: None,
            points_per_second: None,
            requests_per_second: None,
            points_per_request: 1_000,
            resets: 0.0,
            diurnal: None,
            services: Vec::new(),
            metrics: Vec::new(),
        }
    }
}

fn one() -> u32 {
    1
}

fn one_share() -> f64 {
    1.0
}

fn default_scale() -> i32 {
    3
}

fn is_default_scale(scale: &i32) -> bool {
    *scale == default_scale()
}

fn default_runaway_max() -> u64 {
    100_000
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Values, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Values;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("how many values, such as 20, or a list of them, such as [GET, POST]")
            }
            fn visit_u64<E: de::Error>(self, count: u64) -> std::result::Result<Values, E> {
                // One too large for 32 bits is as much too large as the largest that fits.
                Ok(Values::Count(u32::try_from(count).unwrap_or(u32::MAX)))
            }
            fn visit_i64<E: de::Error>(self, count: i64) -> std::result::Result<Values, E> {
                u64::try_from(count)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(count), &self))
                    .and_then(|n| self.visit_u64(n))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Values, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element::<String>()? {
                    list.push(value);
                }
                Ok(Values::List(list))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Values {
    /// How many.
    pub fn len(&self) -> u32 {
        match self {
            Values::Count(count) => *count,
            Values::List(list) => u32::try_from(list.len()).unwrap_or(u32::MAX),
        }
    }
}

/// Reads a scenario; `name` is the file's, for errors.
pub fn read(text: &str, name: &str) -> Result<Scenario> {
    serde_saphyr::from_str(text).map_err(|error| anyhow!("{name}: {}", first_line(&error.to_string())))
}

/// Reads a file.
pub fn read_file(path: &Path) -> Result<Scenario> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
    read(&text, &name)
}

/// What is wrong and where, without the picture of the place.
fn first_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().trim().to_owned()
}

/// A value that is not allowed.
fn refused(field: impl Display, value: impl Display, allowed: impl Display) -> anyhow::Error {
    anyhow!("{field}: value {value} is not allowed; allowed: {allowed}")
}

fn within<N: PartialOrd + Display>(field: impl Display, value: N, range: &RangeInclusive<N>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(refused(field, value, format!("{} to {}", range.start(), range.end())))
}

impl Scenario {
    /// Whether a run can be made of it.
    pub fn check(&self) -> Result<()> {
        within("streams", self.streams, &STREAMS)?;
        within("points_per_request", self.points_per_request, &POINTS_PER_REQUEST)?;
        within("resets", self.resets, &PER_MINUTE)?;
        if let Some(interval) = self.interval {
            span("interval", interval, &INTERVAL_MS)?;
        }
        for (field, value) in
            [("points_per_second", self.points_per_second), ("requests_per_second", self.requests_per_second)]
        {
            value.map_or(Ok(()), |value| within(field, value, &PER_SECOND))?;
        }
        let ways = [
            self.interval.map(|_| "interval"),
            self.points_per_second.map(|_| "points_per_second"),
            self.requests_per_second.map(|_| "requests_per_second"),
        ];
        let ways: Vec<&str> = ways.into_iter().flatten().collect();
        if ways.len() > 1 {
            bail!("{}: each says how often a pod exports; allowed: one of them", ways.join(", "));
        }
        if let Some(diurnal) = &self.diurnal {
            span("diurnal.period", diurnal.period, &(1_000..=604_800_000))?;
            within("diurnal.low", diurnal.low, &(0.0..=1.0))?;
        }
        self.check_services()?;
        self.check_metrics()
    }

    fn check_services(&self) -> Result<()> {
        if self.services.is_empty() {
            return Err(refused("services", "[]", "at least one"));
        }
        let mut names = BTreeSet::new();
        for (index, service) in self.services.iter().enumerate() {
            let field = |name: &str| format!("services[{index}].{name}");
            if service.name.is_empty() || !names.insert(&service.name) {
                return Err(refused(field("name"), format!("{:?}", service.name), "a name of its own"));
            }
            within(field("pods"), service.pods, &PODS)?;
            if let Some(wave) = service.deploy_wave {
                span(&field("deploy_wave"), wave, &(1_000..=604_800_000))?;
            }
        }
        Ok(())
    }

    fn check_metrics(&self) -> Result<()> {
        if self.metrics.is_empty() {
            return Err(refused("metrics", "[]", "at least one"));
        }
        let known: BTreeSet<&String> = self.services.iter().map(|service| &service.name).collect();
        let mut names = BTreeSet::new();
        for (index, metric) in self.metrics.iter().enumerate() {
            let place = format!("metrics[{index}]");
            let field = |name: &str| format!("{place}.{name}");
            if metric.name.is_empty() || !names.insert(&metric.name) {
                return Err(refused(field("name"), format!("{:?}", metric.name), "a name of its own"));
            }
            if let Some(unknown) = metric.services.iter().find(|name| !known.contains(name)) {
                let known: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
                return Err(refused(field("services"), format!("{unknown:?}"), known.join(", ")));
            }
            metric.check(&field)?;
            metric.check_labels(&place)?;
        }
        Ok(())
    }
}

impl Metric {
    fn check(&self, field: &impl Fn(&str) -> String) -> Result<()> {
        within(field("share"), self.share, &(0.000_001..=1_000_000.0))?;
        within(field("rate"), self.rate, &RATE)?;
        within(field("scale"), self.scale, &SCALE)?;
        let is_delta = self.temporality == Temporality::Delta;
        if is_delta && matches!(self.kind, Kind::Gauge | Kind::Summary) {
            return Err(refused(field("temporality"), "delta", "cumulative: the type has no temporality"));
        }
        let finite = self.bounds.iter().all(|bound| bound.is_finite());
        if !finite || !self.bounds.windows(2).all(|pair| pair[0] < pair[1]) || self.bounds.len() > 512 {
            let shown = format!("{:?}", self.bounds);
            return Err(refused(
                field("bounds"),
                shown,
                "up to 512 finite numbers, each above the one before",
            ));
        }
        if !self.bounds.is_empty() && self.kind != Kind::Histogram {
            return Err(refused(field("bounds"), format!("{:?}", self.bounds), "none, but for a histogram"));
        }
        Ok(())
    }

    fn check_labels(&self, place: &str) -> Result<()> {
        let mut names = BTreeSet::new();
        for (index, label) in self.labels.iter().enumerate() {
            let field = |name: &str| format!("{place}.labels[{index}].{name}");
            if label.name.is_empty() || !names.insert(&label.name) {
                return Err(refused(field("name"), format!("{:?}", label.name), "a name of its own"));
            }
            within(field("values"), label.values.len(), &VALUES)?;
            if let Values::List(list) = &label.values {
                let distinct: BTreeSet<&String> = list.iter().collect();
                if distinct.len() != list.len() {
                    return Err(refused(field("values"), "a list", "each value once"));
                }
            }
            within(field("zipf"), label.zipf, &ZIPF)?;
            within(field("churn"), label.churn, &PER_MINUTE)?;
            if let Some(runaway) = &label.runaway {
                within(field("runaway.per_second"), runaway.per_second, &RUNAWAY_PER_SECOND)?;
                within(field("runaway.max"), runaway.max, &STREAMS)?;
            }
        }
        for (what, count) in [
            ("churn", self.labels.iter().filter(|label| label.churn > 0.0).count()),
            ("runaway", self.labels.iter().filter(|label| label.runaway.is_some()).count()),
        ] {
            if count > 1 {
                bail!("{place}.labels: {count} labels with {what}; allowed: one of a metric");
            }
        }
        Ok(())
    }
}

fn span(field: &str, value: DurationMs, range: &RangeInclusive<u64>) -> Result<()> {
    let allowed = format!("{} to {}", DurationMs(*range.start()), DurationMs(*range.end()));
    if range.contains(&value.0) { Ok(()) } else { Err(refused(field, value, allowed)) }
}
