//! The books of the sink: bodies in; metrics, series, totals and anomalies out.
//!
//! In: decoded `ExportMetricsServiceRequest` bytes with their tenant. Out: per tenant and metric the points, bytes, series,
//! samples and fingerprints, raw and folded apart (only folded points carry the mark). A body is booked whole or not at all.
//! Refuses what is not protobuf, or not OTLP.

use super::distribution::Observations;
use super::exact::Total;
use super::identity::{Labels, canonical, labels, stored};
use super::points::{Point, read_points};
use super::print::{Multiset, hash, hash_without, points_of_metric};
use super::series::{Anomaly, Kind, Sample, Series, Value};
use super::wire::{WireError, fields};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What the books need to know about the run.
#[derive(Clone, Debug)]
pub struct BooksConfig {
    /// When the run began, Unix nanoseconds: streams born later count from zero.
    pub run_start_ns: u64,
    /// Resource attributes that the backend stores with each series.
    pub promoted: Vec<String>,
    /// The point attribute that only folded series carry.
    pub mark: String,
}

impl Default for BooksConfig {
    fn default() -> Self {
        Self { run_start_ns: 0, promoted: Vec::new(), mark: super::MARK.to_owned() }
    }
}

/// Everything received, exactly.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// How to count.
    pub config: BooksConfig,
    /// By (tenant, metric name).
    pub metrics: BTreeMap<(String, String), MetricBook>,
    /// Bodies booked.
    pub bodies: u64,
    /// Their bytes, uncompressed.
    pub body_bytes: u64,
}

/// What one metric of one tenant received.
#[derive(Clone, Debug, Default)]
pub struct MetricBook {
    /// Its kinds; more than one is suspicious but legal.
    pub kinds: BTreeSet<Kind>,
    /// Length of its encoded `Metric` messages.
    pub bytes: u64,
    /// Points without the mark.
    pub raw: Side,
    /// Points with the mark.
    pub folded: Side,
}

/// Raw or folded points of a metric.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Number of points.
    pub points: u64,
    /// By canonical identity: resource, scope, kind, point attributes.
    pub series: BTreeMap<String, Series>,
    /// Fingerprint of all points.
    pub print: Multiset,
    /// Fingerprint of those among them that say that a series ends.
    pub ends: Multiset,
    /// By what tells an exemplar from others.
    pub exemplars: BTreeMap<ExemplarKey, ExemplarLabels>,
}

/// What tells an exemplar from others: time, value as text, trace and span.
pub type ExemplarKey = (u64, String, Vec<u8>, Vec<u8>);

/// Where an exemplar stood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExemplarLabels {
    /// Its own, filtered ones.
    pub filtered: Labels,
    /// Attributes of the resource.
    pub resource: Labels,
    /// Attributes of the point.
    pub point: Labels,
}

/// An anomaly with its place.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Tenant.
    pub tenant: String,
    /// Metric name.
    pub metric: String,
    /// Canonical identity of the series.
    pub series: String,
    /// What is wrong.
    pub anomaly: Anomaly,
    /// The sample.
    pub sample: Sample,
    /// The sample before it.
    pub previous: Option<Sample>,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} in {} {}: {:?}", self.anomaly, self.metric, self.series, self.sample)?;
        self.previous.map_or(Ok(()), |previous| write!(out, " after {previous:?}"))
    }
}

/// Why a body was refused.
#[derive(Clone, Debug, PartialEq)]
pub enum BooksError {
    /// Not protobuf.
    Wire(WireError),
    /// Not OTLP.
    Decode(prost::DecodeError),
    /// The two readers disagree on the number of points: the body is ambiguous.
    Ambiguous,
}

impl From<WireError> for BooksError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<prost::DecodeError> for BooksError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl Books {
    /// Empty books.
    pub fn new(config: BooksConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Books one body and returns its number of points.
    ///
    /// # Errors
    /// The body is malformed; nothing of it was booked.
    pub fn add(&mut self, tenant: &str, body: &[u8]) -> Result<u64, BooksError> {
        let entries = read(body)?;
        let mut points = 0;
        for entry in entries {
            points += entry.points.len() as u64;
            self.add_metric(tenant, entry);
        }
        self.bodies += 1;
        self.body_bytes += body.len() as u64;
        Ok(points)
    }

    fn add_metric(&mut self, tenant: &str, entry: Entry) {
        let book = self.metrics.entry((tenant.to_owned(), entry.name)).or_default();
        book.kinds.insert(entry.kind);
        book.bytes += entry.bytes;
        for (point, print) in entry.points {
            let is_folded = point.labels.contains_key(&self.config.mark);
            let side = if is_folded { &mut book.folded } else { &mut book.raw };
            let identity = format!(
                "{}{}{:?}{}",
                entry.resource_text,
                entry.scope_text,
                entry.kind,
                canonical(&point.labels)
            );
            side.points += 1;
            side.print.add(print);
            if point.sample.value == Value::None {
                side.ends.add(print);
            }
            for (key, filtered) in point.exemplars {
                let (resource, point) = (entry.resource.clone(), point.labels.clone());
                side.exemplars.insert(key, ExemplarLabels { filtered, resource, point });
            }
            let series = side.series.entry(identity).or_insert_with(|| Series {
                kind: entry.kind,
                resource: entry.resource.clone(),
                point: point.labels,
                samples: Vec::new(),
                distributions: Vec::new(),
            });
            series.samples.push(point.sample);
            series.distributions.extend(point.distribution);
        }
    }

    /// The book of one metric over all tenants, if it received anything.
    pub fn metric(&self, name: &str) -> Option<&MetricBook> {
        self.metrics.iter().find(|((_, metric), _)| metric == name).map(|(_, book)| book)
    }

    /// Every anomaly, in order of tenant, metric and series.
    pub fn findings(&self) -> Vec<Finding> {
        let mut out = Vec::new();
        for ((tenant, metric), book) in &self.metrics {
            for (identity, series) in book.raw.series.iter().chain(&book.folded.series) {
                for (anomaly, index) in series.read(self.config.run_start_ns).anomalies {
                    out.push(Finding {
                        tenant: tenant.clone(),
                        metric: metric.clone(),
                        series: identity.clone(),
                        anomaly,
                        sample: series.samples[index],
                        previous: index.checked_sub(1).map(|i| series.samples[i]),
                    });
                }
            }
        }
        out
    }

    /// Points of all metrics.
    pub fn points(&self) -> u64 {
        self.metrics.values().map(|book| book.raw.points + book.folded.points).sum()
    }
}

impl MetricBook {
    /// The total over raw and folded series.
    pub fn total(&self, run_start_ns: u64) -> Total {
        let mut out = self.raw.total(run_start_ns);
        out.add(self.folded.total(run_start_ns));
        out
    }

    /// The observations of raw and folded series.
    pub fn observations(&self, run_start_ns: u64) -> Observations {
        let mut out = self.raw.observations(run_start_ns);
        out.join(&self.folded.observations(run_start_ns));
        out
    }

    /// All that is counted, raw and folded: sums, and number and sum of observations.
    pub fn counted(&self, run_start_ns: u64) -> Total {
        let mut out = self.total(run_start_ns);
        out.add(self.observations(run_start_ns).total());
        out
    }

    /// Points, raw and folded.
    pub fn points(&self) -> u64 {
        self.raw.points + self.folded.points
    }

    /// Distinct series as a backend stores them, raw and folded.
    pub fn stored_series(&self, promoted: &[String]) -> usize {
        self.raw.stored(promoted, &[]).len() + self.folded.stored(promoted, &[]).len()
    }
}

impl Side {
    /// The total of all series.
    pub fn total(&self, run_start_ns: u64) -> Total {
        let mut out = Total::default();
        for series in self.series.values() {
            out.add(series.read(run_start_ns).total);
        }
        out
    }

    /// The observations of all series.
    pub fn observations(&self, run_start_ns: u64) -> Observations {
        let mut out = Observations::default();
        for series in self.series.values() {
            out.join(&series.read(run_start_ns).observations);
        }
        out
    }

    /// Distinct identities as a backend stores them, without the labels in `dropped`.
    pub fn stored(&self, promoted: &[String], dropped: &[String]) -> BTreeSet<String> {
        self.series
            .values()
            .map(|series| stored(&series.resource, &series.point, promoted, dropped))
            .collect()
    }
}

/// One `Metric` message, read.
struct Entry {
    resource: Labels,
    resource_text: String,
    scope_text: String,
    name: String,
    kind: Kind,
    bytes: u64,
    points: Vec<(Point, u128)>,
}

/// `resource_metrics`, `scope_metrics` and `metrics` have these field numbers in their parents.
const RESOURCE_METRICS: u64 = 1;
const SCOPE_METRICS: u64 = 2;
const METRICS: u64 = 2;
/// `Resource` and `InstrumentationScope` are field 1 of their parents.
const HEAD: u64 = 1;

fn read(body: &[u8]) -> Result<Vec<Entry>, BooksError> {
    let mut out = Vec::new();
    for resource_metrics in fields(body)?.iter().filter(|f| f.number == RESOURCE_METRICS) {
        let resource = labels(&Resource::decode(&*joined(resource_metrics.payload)?)?.attributes);
        let resource_text = canonical(&resource);
        let resource_hash = hash_without(resource_metrics.payload, &[SCOPE_METRICS])?;
        for scope_metrics in fields(resource_metrics.payload)?.iter().filter(|f| f.number == SCOPE_METRICS) {
            let scope = InstrumentationScope::decode(&*joined(scope_metrics.payload)?)?;
            let scope_text =
                format!("{:?}{:?}{}", scope.name, scope.version, canonical(&labels(&scope.attributes)));
            let scope_hash = hash_without(scope_metrics.payload, &[METRICS])?;
            let context = hash(&[&resource_hash.to_le_bytes(), &scope_hash.to_le_bytes()]);
            for metric in fields(scope_metrics.payload)?.iter().filter(|f| f.number == METRICS) {
                let prints = points_of_metric(context, metric.payload)?;
                let decoded = Metric::decode(metric.payload)?;
                let (kind, points) = read_points(decoded.data.as_ref());
                if points.len() != prints.len() {
                    return Err(BooksError::Ambiguous);
                }
                out.push(Entry {
                    resource: resource.clone(),
                    resource_text: resource_text.clone(),
                    scope_text: scope_text.clone(),
                    name: decoded.name,
                    kind,
                    bytes: metric.payload.len() as u64,
                    points: points.into_iter().zip(prints).collect(),
                });
            }
        }
    }
    Ok(out)
}

/// The head message of a parent; protobuf merges repeated occurrences by concatenation.
fn joined(parent: &[u8]) -> Result<Vec<u8>, WireError> {
    Ok(fields(parent)?.iter().filter(|f| f.number == HEAD).flat_map(|f| f.payload.iter().copied()).collect())
}
