//! The document: types, defaults, and the few questions that everybody asks of a policy.

use super::Prices;
use phoenix_plan::{
    Affinity, BudgetFold, DurationMs, HashKey, LabelMatch, Labels, Limits, Measure, MetricMatch, Placement,
    Plan, Priority, Rule,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What people want.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Version of this document's form.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// Who has the last word.
    #[serde(default)]
    pub mode: Mode,
    /// Time between two decisions, and between two reports of an embedder.
    #[serde(default = "default_interval")]
    pub interval: DurationMs,
    /// What every plan has in common, in the words of a plan.
    pub plan: Base,
    /// How labels are folded away, in the words of a plan: by budgets in the embedders, and by decisions.
    #[serde(default)]
    pub fold: BudgetFold,
    /// Series of all tenants together. Left out: no bound beside those of tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_000_000_000_u64))]
    pub active_series: Option<u64>,
    /// Budgets of tenants. One without a name is that of each tenant that is not named.
    #[serde(default)]
    #[schemars(length(max = 500))]
    pub tenants: Vec<Tenant>,
    /// Budgets of metrics; the first that matches decides.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub metrics: Vec<MetricBudget>,
    /// Labels that nobody folds.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub protect: Vec<Protect>,
    /// Folds that people have decided on; the first that matches a metric decides about it.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub folds: Vec<DeclaredFold>,
    /// Queries whose answers matter.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub queries: Vec<Queries>,
    /// How fast things change.
    #[serde(default)]
    pub change: Change,
    /// When an embedder counts as silent, and how much of reports is held.
    #[serde(default)]
    pub reports: Reports,
    /// What is saved, in money.
    #[serde(default)]
    pub prices: Prices,
}

/// Who has the last word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Measure, and say what would be done.
    #[default]
    Observe,
    /// Decide, and wait for approval.
    Recommend,
    /// Decide and do.
    Auto,
}

/// What every plan has in common. Fields as in `docs/plan.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Secret key of the stream identity.
    pub hash_key: HashKey,
    /// Where the embedders stand.
    #[serde(default)]
    pub placement: Placement,
    /// Point attribute on folded series that names what was folded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark_label: Option<String>,
    /// Point attribute on folded series that names the writer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_label: Option<String>,
    /// Resource attributes that the backend stores on every series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_resource_attributes: Option<Vec<String>>,
    /// How the tenant of a request is found.
    #[serde(default)]
    pub tenant: phoenix_plan::Tenant,
    /// Request header that names the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_header: Option<String>,
    /// How it is known that all points of a stream reach one embedder process.
    #[serde(default)]
    pub affinity: Affinity,
    /// Parts of the series space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// How much younger than an embedder a stream must be to count from zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_sample_margin: Option<DurationMs>,
    /// Silence after which a stream is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_expiry: Option<DurationMs>,
    /// Bounds of an embedder's memory.
    #[serde(default)]
    pub limits: Limits,
    /// How cardinality is measured.
    #[serde(default)]
    pub measure: Measure,
}

/// A tenant and its budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name. Left out: each tenant that no other entry names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub name: Option<String>,
    /// Series that it may have, of all embedders together.
    #[schemars(range(min = 1, max = 4_000_000_000_u64))]
    pub active_series: u64,
    /// Of these, those that are kept for it in the embedders whatever other tenants do.
    #[serde(default)]
    pub reserved: u64,
    /// Whose labels stay longest when all tenants together are beyond `active_series`.
    #[serde(default)]
    pub priority: Priority,
    /// Who has the last word about this tenant. Left out: as for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Parts of the budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub teams: Vec<Team>,
}

/// A team's part of its tenant's budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// Its name, for decisions.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Its metrics: those that one of these matches.
    #[schemars(length(min = 1, max = 100))]
    pub metrics: Vec<MetricMatch>,
    /// Series of all of them together.
    #[schemars(range(min = 1, max = 4_000_000_000_u64))]
    pub active_series: u64,
}

/// A budget of each metric that matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricBudget {
    /// Of which tenant. Left out: of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub tenant: Option<String>,
    /// Which metrics.
    pub metric: MetricMatch,
    /// Series of each of them, of all embedders together.
    #[schemars(range(min = 1, max = 4_000_000_000_u64))]
    pub active_series: u64,
}

/// Labels that nobody folds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    /// Of which metrics. Left out: of all, and then budgets in the embedders do not fold them either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricMatch>,
    /// Keys of labels, of points and resources.
    #[schemars(length(min = 1, max = 128), inner(length(min = 1, max = 256)))]
    pub labels: Vec<String>,
}

/// A fold that people have decided on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclaredFold {
    /// Its name, unique.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Whose metrics. Left out: those of every tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub tenant: Option<String>,
    /// Which metrics.
    pub metric: MetricMatch,
    /// Which resources: all of these must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource: Vec<LabelMatch>,
    /// Which points: all of these must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<LabelMatch>,
    /// Which labels stay.
    pub labels: Labels,
}

/// Files with queries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Queries {
    /// Prometheus rule files, Grafana dashboards, lists with a query a line.
    #[schemars(length(min = 1, max = 1_000))]
    pub files: Vec<String>,
    /// What one query counts. An alert that wakes people counts more than a panel.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 1_000))]
    pub weight: u32,
    /// Never fold a label that one of these queries needs.
    #[serde(default)]
    pub preserve: bool,
}

/// How fast things change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// A metric changes its pipeline at most once in this time. At least `switch_lead` + `plan.stream_expiry`: one switch at a time.
    pub dwell: DurationMs,
    /// How far ahead a change is said: at least two export intervals, and the time that a plan takes to reach every embedder.
    pub switch_lead: DurationMs,
    /// Changes of pipelines in an hour, of all metrics.
    #[schemars(range(min = 1, max = 1_000))]
    pub per_hour_max: u32,
    /// A decision brings what is beyond a budget below this part of it, so that the next one is not due at once.
    #[schemars(range(min = 10, max = 100))]
    pub aim_percent: u32,
    /// A label comes back when the series with it are below this part of every budget.
    #[schemars(range(min = 10, max = 99))]
    pub restore_below_percent: u32,
    /// How slowly the usual number of series follows the measured one.
    pub baseline_over: DurationMs,
}

/// When an embedder counts as silent, and how much of reports is held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reports {
    /// Without a report for so long an embedder is silent: it keeps its share, and is no witness of overlap.
    pub silent_after: DurationMs,
    /// For so long it is forgotten, and others get its share.
    pub forget_after: DurationMs,
    /// Bytes of reports that are held.
    #[schemars(range(min = 1_048_576, max = 17_179_869_184_u64))]
    pub bytes_max: u64,
}

impl Policy {
    /// The mode of a tenant.
    pub fn mode_of(&self, tenant: &str) -> Mode {
        self.tenant(tenant).and_then(|it| it.mode).unwrap_or(self.mode)
    }

    /// The entry of a tenant: its own, or that of all that are not named.
    pub fn tenant(&self, tenant: &str) -> Option<&Tenant> {
        let named = self.tenants.iter().find(|it| it.name.as_deref() == Some(tenant));
        named.or_else(|| self.tenants.iter().find(|it| it.name.is_none()))
    }

    /// The budget of a metric; its place in `metrics`.
    pub fn metric(&self, tenant: &str, metric: &str) -> Option<(usize, &MetricBudget)> {
        self.metrics.iter().enumerate().find(|(_, it)| {
            it.tenant.as_ref().is_none_or(|name| name == tenant) && it.metric.matches(metric.as_bytes())
        })
    }

    /// The team of a metric; its place in the tenant's `teams`.
    pub fn team<'p>(&'p self, tenant: &str, metric: &str) -> Option<(usize, &'p Team)> {
        let teams = &self.tenant(tenant)?.teams;
        teams.iter().enumerate().find(|(_, team)| team.metrics.iter().any(|it| it.matches(metric.as_bytes())))
    }

    /// The declared fold that decides about a metric; its place in `folds`.
    pub fn declared(&self, tenant: &str, metric: &str) -> Option<(usize, &DeclaredFold)> {
        self.folds.iter().enumerate().find(|(_, it)| {
            it.tenant.as_ref().is_none_or(|name| name == tenant) && it.metric.matches(metric.as_bytes())
        })
    }

    /// May nobody fold this label of this metric?
    pub fn protects(&self, metric: &str, label: &str) -> bool {
        self.protect.iter().any(|it| {
            it.metric.as_ref().is_none_or(|name| name.matches(metric.as_bytes()))
                && it.labels.iter().any(|one| one == label)
        })
    }

    /// Labels that are protected on every metric, each once, in the order of the document.
    pub fn protected_everywhere(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for label in self.protect.iter().filter(|it| it.metric.is_none()).flat_map(|it| &it.labels) {
            if !all.contains(label) {
                all.push(label.clone());
            }
        }
        all
    }
}

impl Base {
    /// A plan that measures and does nothing else.
    pub fn plan(&self, version: u64) -> Plan {
        Plan {
            schema: phoenix_plan::bounds::SCHEMA,
            version,
            hash_key: self.hash_key.clone(),
            writer: None,
            clock: phoenix_plan::Clock::Wall,
            placement: self.placement,
            mark_label: self.mark_label.clone().unwrap_or_else(|| "phoenix_folded".to_owned()),
            writer_label: self.writer_label.clone().unwrap_or_else(|| "phoenix_writer".to_owned()),
            promoted_resource_attributes: self.promoted_resource_attributes.clone(),
            tenant: self.tenant.clone(),
            sender_header: self.sender_header.clone(),
            affinity: self.affinity,
            shards: self.shards.unwrap_or(1),
            first_sample_margin: self.first_sample_margin.unwrap_or(DurationMs::from_secs(2)),
            stream_expiry: self.stream_expiry(),
            limits: self.limits.clone(),
            measure: Some(self.measure.clone()),
            budgets: None,
            rules: Vec::<Rule>::new(),
        }
    }

    /// Silence after which a stream is forgotten.
    pub fn stream_expiry(&self) -> DurationMs {
        self.stream_expiry.unwrap_or(DurationMs::from_secs(600))
    }
}

impl Default for Change {
    /// A switch needs two export intervals of a minute; with ten minutes of expiry the dwell is twelve at least, and a quarter of an hour is said. Ten
    /// changes an hour are as many as somebody can read.
    fn default() -> Change {
        Change {
            dwell: DurationMs::from_secs(900),
            switch_lead: DurationMs::from_secs(120),
            per_hour_max: 10,
            aim_percent: 90,
            restore_below_percent: 75,
            baseline_over: DurationMs::from_secs(6 * 3_600),
        }
    }
}

impl Default for Reports {
    /// Three intervals, and twenty; the largest reports of a thousand embedders, three workers each, as they are held.
    fn default() -> Reports {
        Reports {
            silent_after: DurationMs::from_secs(90),
            forget_after: DurationMs::from_secs(600),
            bytes_max: 320 << 20,
        }
    }
}

/// Half a minute: the embedders' own default between two reports.
fn default_interval() -> DurationMs {
    DurationMs::from_secs(30)
}

fn default_weight() -> u32 {
    1
}
