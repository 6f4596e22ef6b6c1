//! What Envoy's stats said while the scene went on.
//!
//! In: the module's counters, looked at a few times a second. Out: when they first showed that a metric is contained, whether they still do, and the peaks.
//! The module reports on its ticks, so that what is seen here is late by up to a tick and the time between two looks.

use std::collections::BTreeMap;

/// The stats that are looked at, as Envoy filters them.
pub const STATS: &str = "phoenix_contained|phoenix_admitted_series|phoenix_budget_series";

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// When, Unix nanoseconds.
    pub at_ns: u64,
    /// Points of contained metrics that were recorded.
    pub contained: i64,
    /// Metrics that are contained.
    pub contained_metrics: i64,
    /// Raw streams that budgets have admitted.
    pub admitted_series: i64,
    /// Folded series that they have made.
    pub budget_series: i64,
}

/// All of them, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    looks: Vec<Look>,
}

impl Look {
    /// Of what Envoy says.
    pub fn of(stats: &BTreeMap<String, i64>, at_ns: u64) -> Self {
        let value = |name: &str| {
            let ends = |(key, _): &(&String, &i64)| key.rsplit('.').next() == Some(name);
            stats.iter().find(ends).map_or(0, |(_, value)| *value)
        };
        Self {
            at_ns,
            contained: value("phoenix_contained"),
            contained_metrics: value("phoenix_contained_metrics"),
            admitted_series: value("phoenix_admitted_series"),
            budget_series: value("phoenix_budget_series"),
        }
    }
}

impl Watch {
    /// Notes a look.
    pub fn add(&mut self, look: Look) {
        self.looks.push(look);
    }

    /// The last one.
    pub fn last(&self) -> Look {
        self.looks.last().copied().unwrap_or_default()
    }

    /// Points that were contained.
    pub fn contained(&self) -> i64 {
        self.last().contained
    }

    /// Most raw streams at once.
    pub fn admitted_most(&self) -> i64 {
        self.looks.iter().map(|look| look.admitted_series).max().unwrap_or(0)
    }

    /// The first look at or after a time that showed a contained metric.
    pub fn contained_from(&self, from_ns: u64) -> Option<u64> {
        let mut after = self.looks.iter().filter(|look| look.at_ns >= from_ns);
        after.find(|look| look.contained_metrics > 0).map(|look| look.at_ns)
    }

    /// Whether the last look still showed one.
    pub fn is_contained_at_the_end(&self) -> bool {
        self.last().contained_metrics > 0
    }
}
