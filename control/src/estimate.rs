//! Reports to numbers of the fleet.
//!
//! Enters: the [`Collector`], the policy, and now. Leaves: [`Estimates`]: for every tenant, metric and label how many series there are, how many would
//! remain, how fast that changes, whether embedders see the same streams, and what it costs. Pure: the same reports give the same bytes in whatever order they came.
//!
//! Distinct streams of the fleet are estimates of *merged* sketches, never sums of estimates; a part that came without its sketch is added and makes the
//! number an upper bound, which says so. Two numbers stand beside each other for a label: `without`, the distinct series that would remain in the fleet, and
//! `written`, those that would be stored: every embedder writes folded series of its own, so that a label that leaves 100 series leaves up to 100 in *each*. What a
//! fold saves goes by the second.
//!
//! Processes are read one after the other, so memory is that of one process' reports and of one sketch set for the fleet.

// Distinct streams of several parts.
mod distinct;
// What would remain without some labels.
mod remaining;
// Reports of one process, and of all.
mod gather;

pub use distinct::Number;

use crate::collect::Collector;
use crate::needs::LabelKey;
use crate::policy::{Policy, Priced};
use phoenix_report::merge::Offender;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The fleet in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Estimates {
    /// Now, in Unix nanoseconds.
    pub at_ns: u64,
    /// The sliding period over which a stream counts as active, the longest that was reported, in milliseconds.
    pub period_ms: u64,
    /// Embedders that are not forgotten, by name. Parts of metrics and tenants name them by their place here.
    pub embedders: Vec<Embedder>,
    /// Tenants by name.
    pub tenants: BTreeMap<String, TenantEstimate>,
    /// Metrics that some embedder had no room to tell of.
    pub truncated_metrics: u64,
    /// What a person should know about these numbers.
    pub notes: Vec<String>,
}

/// An embedder process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Embedder {
    /// Node and process start.
    pub name: String,
    /// Workers that reported.
    pub workers: u64,
    /// The oldest plan that one of its workers is under.
    pub plan_version: u64,
    /// When it said something last.
    pub newest_ns: u64,
    /// When it began.
    pub start_ns: u64,
    /// It has said nothing for `reports.silent_after`.
    pub is_silent: bool,
}

/// A tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TenantEstimate {
    /// Distinct active streams.
    pub active: Number,
    /// Streams that are new in the current generation, at most.
    pub growth: f64,
    /// Of each embedder.
    pub parts: Vec<Part>,
    /// By name and type.
    pub metrics: Vec<MetricEstimate>,
}

/// What one embedder has of a tenant or a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Part {
    /// Its place in [`Estimates::embedders`].
    pub embedder: u32,
    /// Distinct active streams that it saw: its need.
    pub active: f64,
    /// Series that budgets admit and make in it.
    pub used: u64,
    /// Of these, folded ones.
    pub folded: u64,
    /// Its share by the plan that it is under; 0: none.
    pub share: u64,
}

/// A metric of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MetricEstimate {
    /// Its name.
    pub name: String,
    /// Its type in a word, as reports have it.
    pub kind: String,
    /// Distinct active streams, those that fold included.
    pub active: Number,
    /// Streams that are new in the current generation, at most.
    pub growth: f64,
    /// New streams an hour, at most.
    pub churn_per_hour: f64,
    /// Points in the period.
    pub points: u64,
    /// Streams that several embedders see.
    pub overlap: Overlap,
    /// What its streams would cost a month, were all of them stored.
    pub cost: Priced,
    /// Embedders that list labels of it at all.
    pub listing: u32,
    /// By key.
    pub labels: Vec<LabelEstimate>,
    /// Of each embedder.
    pub parts: Vec<Part>,
    /// What embedders did by themselves, newest first.
    pub contained: Vec<Contained>,
}

/// Streams that several embedders see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Overlap {
    /// Σ estimates of embedders − estimate of all of them.
    pub streams: f64,
    /// Its standard error; 0 where the numbers are exact.
    pub error: f64,
}

impl Overlap {
    /// More than chance: above three standard errors, and a stream at least.
    pub fn is_shown(&self) -> bool {
        self.streams >= 0.5 && self.streams > 3.0 * self.error
    }
}

/// A label of a metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LabelEstimate {
    /// Its key.
    pub key: String,
    /// A resource attribute; else an attribute of points.
    pub resource: bool,
    /// Distinct values.
    pub values: Number,
    /// Distinct series that would remain without it.
    pub without: Number,
    /// Embedders all of whose workers list it, as far as they list labels at all.
    pub listed_by: u32,
    /// The most distinct values in one embedder, and the sum over all of them.
    pub values_most: f64,
    /// See `values_most`.
    pub values_sum: f64,
    /// Series that would be written without it, by all embedders together.
    pub written: f64,
    /// Never folded by a budget, an embedder says.
    pub is_protected: bool,
    /// Values that brought most streams.
    pub offenders: Vec<Offending>,
}

impl LabelEstimate {
    /// Which label it is.
    pub fn label(&self) -> LabelKey {
        LabelKey { key: self.key.clone(), resource: self.resource }
    }
}

/// A value that brought streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Offending {
    /// The value.
    pub value: String,
    /// At least so many streams.
    pub at_least: f64,
    /// At most so many.
    pub at_most: f64,
}

impl From<Offender> for Offending {
    fn from(it: Offender) -> Offending {
        Offending { value: it.value, at_least: it.at_least, at_most: it.at_most }
    }
}

/// What an embedder did about a metric by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Contained {
    /// When.
    pub time_ns: u64,
    /// Who, by the place in [`Estimates::embedders`].
    pub embedder: u32,
    /// contained, widened, released or restored.
    pub what: String,
    /// Labels that fold.
    pub labels: Vec<String>,
}

/// The fleet in numbers. `now_ns` is the clock of whoever asks.
pub fn estimate(collector: &Collector, policy: &Policy, now_ns: u64) -> Estimates {
    let mut fleet = gather::Fleet::new(now_ns, policy.reports.silent_after.as_nanos());
    for (process, reports) in collector.processes(now_ns) {
        fleet.add(process, &reports);
    }
    fleet.estimates(policy)
}

impl Estimates {
    /// A metric of a tenant, of whatever types.
    pub fn metrics<'e>(&'e self, tenant: &str, name: &str) -> impl Iterator<Item = &'e MetricEstimate> {
        let all = self.tenants.get(tenant).map_or(&[][..], |it| it.metrics.as_slice());
        let from = all.partition_point(|it| it.name.as_str() < name);
        let len = all[from..].iter().take_while(|it| it.name == name).count();
        all[from..from + len].iter()
    }
}
