//! Measuring and budgets: how cardinality is counted, how many series a tenant and a metric may have, and how the rest is folded.
//!
//! Types only, with the questions that everybody asks of them; `docs/plan.md` explains each field, `docs/budgets.md` the rule that
//! enforces them. A share is a part of a budget: what this one embedder process may send.

use crate::{DurationMs, Fold, Function, Labels, MetricMatch, OutputTemporality, SummaryFunction, shape};
use serde::{Deserialize, Serialize};

/// How cardinality is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Measure {
    /// Sliding span over which a stream counts as active: three generations of a third each.
    pub period: DurationMs,
}

/// Shares of budgets, and what happens beyond them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// Shares of tenants. One without a name is that of every tenant that is not named.
    #[serde(deserialize_with = "shape::objects")]
    #[cfg_attr(feature = "schema", schemars(length(max = 1000)))]
    pub tenants: Vec<TenantShare>,
    /// Shares of metrics within a tenant; the first that matches decides.
    #[serde(deserialize_with = "shape::objects")]
    #[cfg_attr(feature = "schema", schemars(length(max = 1000)))]
    pub metrics: Vec<MetricShare>,
    /// Labels of points and resources that no budget ever folds.
    #[cfg_attr(feature = "schema", schemars(inner(length(min = 1, max = 256)), length(max = 128)))]
    pub protected_labels: Vec<String>,
    /// A metric changes its treatment by a budget at most once in this time, other than by folding more.
    pub dwell: DurationMs,
    /// Raw series are restored when the need is below this part of the share.
    #[cfg_attr(feature = "schema", schemars(range(min = 10, max = 100)))]
    pub restore_below_percent: u32,
    /// How far ahead in event time it is said when raw series are restored; at least two export intervals.
    pub switch_lead: DurationMs,
    /// How streams beyond a share are folded.
    #[serde(deserialize_with = "shape::object")]
    pub fold: BudgetFold,
}

/// The share of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TenantShare {
    /// Whose share. Left out: that of each tenant that no other entry names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = 128)))]
    pub tenant: Option<String>,
    /// Series that this process may send for the tenant.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4_000_000)))]
    pub active_series: u32,
    /// Of these, those for which room is kept whatever other tenants do.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 4_000_000)))]
    pub reserved: u32,
    /// Who gets what is not reserved, when the process has little left.
    #[serde(default, deserialize_with = "shape::word")]
    pub priority: Priority,
}

/// Who gets what is not reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Up to half of it is in use.
    Low,
    /// Up to nine tenths.
    #[default]
    Normal,
    /// All of it.
    High,
}

/// The share of a metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MetricShare {
    /// Of which tenant. Left out: of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = 128)))]
    pub tenant: Option<String>,
    /// Which metrics: each of them has this share.
    #[serde(deserialize_with = "shape::object")]
    pub metric: MetricMatch,
    /// Series that this process may send for the metric.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4_000_000)))]
    pub active_series: u32,
}

/// How streams beyond a share are folded: a fold whose labels are found when it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BudgetFold {
    /// Span of event time for which a folded series gets one point.
    pub window: DurationMs,
    /// How far windows begin off the multiples of their width. Left out: half a window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<DurationMs>,
    /// How long after its end a window waits for points.
    pub delay: DurationMs,
    /// Temporality of the folded series.
    #[serde(deserialize_with = "shape::word")]
    pub output_temporality: OutputTemporality,
    /// How gauges are put together. Left out: they pass, and are counted.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_word")]
    pub gauge: Option<Function>,
    /// How sums that may fall are put together. Left out: they pass, and are counted.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_word")]
    pub up_down_counter: Option<Function>,
    /// What is left of summaries. Left out: they pass, and are counted.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_word")]
    pub summary: Option<SummaryFunction>,
    /// How long the last value of a silent gauge stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_expiry: Option<DurationMs>,
    /// Exemplars that a series keeps of each window.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 16)))]
    pub exemplars: u32,
}

impl BudgetFold {
    /// The fold over these labels.
    pub fn with(&self, labels: Labels) -> Fold {
        Fold {
            labels,
            window: self.window,
            offset: self.offset,
            delay: self.delay,
            output_temporality: self.output_temporality,
            gauge: self.gauge,
            up_down_counter: self.up_down_counter,
            summary: self.summary,
            value_expiry: self.value_expiry,
            exemplars: self.exemplars,
        }
    }
}

/// The share of a tenant that has none in the plan.
pub const NO_SHARE: TenantShare =
    TenantShare { tenant: None, active_series: u32::MAX, reserved: 0, priority: Priority::Normal };

impl Budgets {
    /// The share of a tenant; [`NO_SHARE`] where the plan gives none.
    pub fn tenant(&self, tenant: &[u8]) -> &TenantShare {
        let named =
            |share: &&TenantShare| share.tenant.as_ref().is_some_and(|name| name.as_bytes() == tenant);
        let all = |share: &&TenantShare| share.tenant.is_none();
        let mut shares = self.tenants.iter();
        shares.find(named).or_else(|| self.tenants.iter().find(all)).unwrap_or(&NO_SHARE)
    }

    /// The share of a metric of a tenant; none where the plan gives none.
    pub fn metric(&self, tenant: &[u8], metric: &[u8]) -> Option<u32> {
        let fits = |share: &&MetricShare| {
            share.tenant.as_ref().is_none_or(|name| name.as_bytes() == tenant) && share.metric.matches(metric)
        };
        self.metrics.iter().find(fits).map(|share| share.active_series)
    }

    /// May a budget fold this label?
    pub fn protects(&self, key: &[u8]) -> bool {
        self.protected_labels.iter().any(|label| label.as_bytes() == key)
    }
}

impl Default for Measure {
    /// Half an hour: an active series of most price lists.
    fn default() -> Measure {
        Measure { period: DurationMs::from_secs(1_800) }
    }
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets {
            tenants: Vec::new(),
            metrics: Vec::new(),
            protected_labels: Vec::new(),
            dwell: DurationMs::from_secs(300),
            restore_below_percent: 80,
            switch_lead: DurationMs::from_secs(120),
            fold: BudgetFold::default(),
        }
    }
}

impl Default for BudgetFold {
    fn default() -> BudgetFold {
        BudgetFold {
            window: DurationMs::from_secs(15),
            offset: None,
            delay: DurationMs::from_secs(60),
            output_temporality: OutputTemporality::Unchanged,
            gauge: None,
            up_down_counter: None,
            summary: None,
            value_expiry: None,
            exemplars: 4,
        }
    }
}
