//! The document: what a plan says, field by field.
//!
//! Types only, with the defaults and the few questions that everybody asks of a plan. `docs/plan.md` explains each field with an
//! example; [`crate::bounds`] holds the ranges; [`Plan::validate`] holds the rules that join fields.

use crate::{
    Budgets, DurationMs, HashKey, InstantMs, LabelMatch, Labels, Measure, MetricMatch, bounds, shape,
};
use serde::{Deserialize, Deserializer, Serialize};

/// Resource attributes that an OTLP backend always stores on a series, as `job` and `instance`.
const ALWAYS_PROMOTED: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];

/// A plan: versioned, small, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of this document's form.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1)))]
    pub schema: u32,
    /// Version of the plan: whoever publishes plans counts up.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub version: u64,
    /// Secret key of the stream identity. A new key is a restart of every stream.
    pub hash_key: HashKey,
    /// Identity stamped on folded series. Left out: the embedder's node id and the epoch at which its process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 128)))]
    pub writer: Option<String>,
    /// Which clock closes windows.
    #[serde(default, deserialize_with = "shape::word")]
    pub clock: Clock,
    /// Where the embedder stands.
    #[serde(default, deserialize_with = "shape::word")]
    pub placement: Placement,
    /// Point attribute on folded series that names what was folded.
    #[serde(default = "default_mark_label")]
    #[cfg_attr(
        feature = "schema",
        schemars(length(max = 128), regex(pattern = "^[A-Za-z_][A-Za-z0-9_.]*$"))
    )]
    pub mark_label: String,
    /// Point attribute on folded series that names the writer.
    #[serde(default = "default_writer_label")]
    #[cfg_attr(
        feature = "schema",
        schemars(length(max = 128), regex(pattern = "^[A-Za-z_][A-Za-z0-9_.]*$"))
    )]
    pub writer_label: String,
    /// Resource attributes that the backend stores as labels, besides service.name, service.namespace and
    /// service.instance.id. Left out: all resource attributes are identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(inner(length(min = 1, max = 256)), length(max = 128)))]
    pub promoted_resource_attributes: Option<Vec<String>>,
    /// How the tenant of a request is found.
    #[serde(default, deserialize_with = "shape::object")]
    pub tenant: Tenant,
    /// Request header that names the sender, mixed into the identity of streams so that two senders of one stream stay apart.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lower_cased")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 128)))]
    pub sender_header: Option<String>,
    /// How it is known that all points of a stream reach one embedder process, without which cumulative sums would inflate.
    #[serde(default, deserialize_with = "shape::word")]
    pub affinity: Affinity,
    /// Parts of the series space, each folded by one owner.
    #[serde(default = "default_shards")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 16)))]
    pub shards: u32,
    /// How much later than our own start a stream must have started to be counted from zero.
    #[serde(default = "default_first_sample_margin")]
    pub first_sample_margin: DurationMs,
    /// Silence after which a stream is forgotten.
    #[serde(default = "default_stream_expiry")]
    pub stream_expiry: DurationMs,
    /// Bounds of memory.
    #[serde(default, deserialize_with = "shape::object")]
    pub limits: Limits,
    /// How cardinality is measured. Left out, without budgets: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_object")]
    pub measure: Option<Measure>,
    /// How many series there may be, and what is done beyond that. Left out: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_object")]
    pub budgets: Option<Budgets>,
    /// Tried in order; the first that matches a point decides. No match: the point passes untouched.
    #[serde(default, deserialize_with = "shape::objects")]
    #[cfg_attr(feature = "schema", schemars(length(max = 1000)))]
    pub rules: Vec<Rule>,
}

/// Which clock closes windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The embedder's clock.
    #[default]
    Wall,
    /// For tests: `now` follows the newest point.
    Event,
}

/// Where the embedder stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// Between many senders and the backend.
    #[default]
    Gateway,
    /// Beside one sender: folding resource attributes is refused there.
    Sidecar,
}

/// How it is known that all points of a stream reach one embedder process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// Whoever runs the embedders vouches for it.
    #[default]
    Assumed,
    /// The embedders compare what they see: cumulative sums pass until that has shown no stream in two of them.
    Checked,
}

/// How the tenant of a request is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Tenant {
    /// Request header that names the tenant; null: every request belongs to the default tenant.
    #[serde(deserialize_with = "lower_cased")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 128)))]
    pub header: Option<String>,
    /// Resource attribute that names the tenant, before the header; null: none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 256)))]
    pub resource_attribute: Option<String>,
    /// The tenant of requests without that header.
    #[cfg_attr(feature = "schema", schemars(length(max = 128)))]
    pub default: String,
}

/// Bounds of memory, per embedder process unless a field says otherwise. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Cumulative streams that are remembered.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4_000_000)))]
    pub streams_max: u32,
    /// Delta streams that are remembered, each with its last intervals.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1_000_000)))]
    pub delta_streams_max: u32,
    /// Gauge streams that are remembered, each with its last value.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1_000_000)))]
    pub gauge_streams_max: u32,
    /// Folded series.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1_000_000)))]
    pub series_max: u32,
    /// Histograms: the last point of each stream, open windows, totals.
    #[cfg_attr(feature = "schema", schemars(range(min = 65_536, max = 536_870_912)))]
    pub histogram_bytes_max: u32,
    /// Records that wait for the upstream's answer, per worker.
    #[cfg_attr(feature = "schema", schemars(range(min = 1_024, max = 268_435_456)))]
    pub pending_bytes_max: u32,
    /// Records on their way to an owner, per worker.
    #[cfg_attr(feature = "schema", schemars(range(min = 1_024, max = 268_435_456)))]
    pub queue_bytes_max: u32,
    /// One emission.
    #[cfg_attr(feature = "schema", schemars(range(min = 65_536, max = 4_194_304)))]
    pub emission_bytes_max: u32,
    /// Emissions without a definite answer; at least emission_bytes_max.
    #[cfg_attr(feature = "schema", schemars(range(min = 65_536, max = 268_435_456)))]
    pub backlog_bytes_max: u32,
    /// Request bodies, after inflating; larger ones pass untouched.
    #[cfg_attr(feature = "schema", schemars(range(min = 1_024, max = 67_108_864)))]
    pub body_bytes_max: u32,
    /// Series of all tenants that budgets admit or make. Per process; every worker remembers them.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4_000_000)))]
    pub active_series_max: u32,
    /// Tenants that are told apart; those beyond share one budget.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100_000)))]
    pub tenants_max: u32,
    /// What measuring takes, per worker: estimates of metrics and labels, and the streams of the current generation.
    #[cfg_attr(feature = "schema", schemars(range(min = 1_048_576, max = 536_870_912)))]
    pub measure_bytes_max: u32,
}

/// One rule: which points, and what happens to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name of the rule, unique in the plan.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 128)))]
    pub name: String,
    /// Whose metrics. Left out: those of every tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = 128)))]
    pub tenant: Option<String>,
    /// Which metrics.
    #[serde(deserialize_with = "shape::object")]
    pub metric: MetricMatch,
    /// Which resources: all of these must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "shape::objects")]
    #[cfg_attr(feature = "schema", schemars(length(max = 32)))]
    pub resource: Vec<LabelMatch>,
    /// Which points: all of these must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "shape::objects")]
    #[cfg_attr(feature = "schema", schemars(length(max = 32)))]
    pub attributes: Vec<LabelMatch>,
    /// The treatment.
    #[serde(deserialize_with = "shape::word")]
    pub pipeline: Pipeline,
    /// What `optimized` does, and `experimental_topk` to the tail; required there, refused elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_object")]
    pub fold: Option<Fold>,
    /// How many streams `experimental_topk` keeps; required there, refused elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_object")]
    pub topk: Option<TopK>,
    /// The treatment up to a point in event time, when it is not the one above from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_object")]
    pub switch: Option<Switch>,
}

/// A change of treatment without a seam: points before `at` get the treatment `from`, the others that of the rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// When, in event time: at least two export intervals after the plan is pushed.
    pub at: InstantMs,
    /// The treatment of points before that.
    #[serde(deserialize_with = "shape::object")]
    pub from: Treatment,
}

/// What happens to points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Treatment {
    /// The pipeline.
    #[serde(deserialize_with = "shape::word")]
    pub pipeline: Pipeline,
    /// What `optimized` does; required there, refused elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_object")]
    pub fold: Option<Fold>,
}

/// The treatment that one metric gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Pipeline {
    /// Every point passes untouched.
    FullFidelity,
    /// Streams are folded.
    Optimized,
    /// Heavy streams stay, the tail is folded.
    ExperimentalTopk,
}

/// How many streams of a metric stay, where the tail is folded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TopK {
    /// Streams that stay, of each metric of a tenant; with a target, to begin with.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 10_000)))]
    pub k: u32,
    /// Part of the metric's total that the streams which stay are to hold: k follows it. Left out: k stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100)))]
    pub coverage_percent: Option<u32>,
    /// The most that k may become; at least k. Left out: ten times k, within the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 10_000)))]
    pub k_max: Option<u32>,
}

impl TopK {
    /// The most that k may become.
    pub fn k_max(&self) -> u32 {
        self.k_max.unwrap_or(self.k.saturating_mul(10).min(*bounds::TOP_K.end()))
    }
}

/// How streams are folded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Fold {
    /// Which labels stay.
    #[serde(deserialize_with = "shape::object")]
    pub labels: Labels,
    /// Span of event time for which a folded series gets one point.
    #[serde(default = "default_window")]
    pub window: DurationMs,
    /// How far windows begin off the multiples of their width, less than a window. Left out: half a window, so that a folded sample
    /// asked for on the grid, as dashboards ask, is as old as raw samples are on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<DurationMs>,
    /// How long after its end a window waits for points; at least one export interval of the senders.
    #[serde(default = "default_delay")]
    pub delay: DurationMs,
    /// Temporality of the folded series.
    #[serde(default, deserialize_with = "shape::word")]
    pub output_temporality: OutputTemporality,
    /// How gauges are put together. Left out: they pass, since nobody has said what their values together mean.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_word")]
    pub gauge: Option<Function>,
    /// How sums that may fall are put together. Left out: they pass. Those of delta temporality take `sum` only.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_word")]
    pub up_down_counter: Option<Function>,
    /// What is left of summaries. Left out: they pass, since quantiles cannot be put together.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shape::optional_word")]
    pub summary: Option<SummaryFunction>,
    /// How long the last value of a silent gauge stands: from a window to stream_expiry. Left out: five minutes, within those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_expiry: Option<DurationMs>,
    /// Exemplars that a series keeps of each window.
    #[serde(default = "default_exemplars")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 16)))]
    pub exemplars: u32,
}

/// What is made of the last values of many streams at the end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// Their sum.
    Sum,
    /// Two series, `NAME.sum` and `NAME.count`: an average of averages would be wrong.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The newest.
    Last,
    /// How many streams there are.
    Count,
}

/// What is made of summaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SummaryFunction {
    /// Count and sum add up; quantiles go.
    SumAndCount,
}

/// Temporality of a folded series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OutputTemporality {
    /// As it came in.
    #[default]
    Unchanged,
    /// Running totals since the series' own start.
    Cumulative,
    /// One increment a window.
    Delta,
}

impl Plan {
    /// Index and rule that decide about a point, or none: then it passes untouched. `resource` and `attributes` find the string
    /// rendering of a value by its key. The plain definition; the engine may cache its answers, never differ from them.
    pub fn rule_for<'v>(
        &self,
        tenant: &[u8],
        metric: &[u8],
        resource: impl Fn(&str) -> Option<&'v [u8]>,
        attributes: impl Fn(&str) -> Option<&'v [u8]>,
    ) -> Option<(usize, &Rule)> {
        let speaks = |rule: &Rule| rule.is_of(tenant) && rule.matches(metric, &resource, &attributes);
        self.rules.iter().enumerate().find(|(_, rule)| speaks(rule))
    }

    /// Whether the backend stores the resource attribute `key` on every series.
    pub fn promotes_resource(&self, key: &[u8]) -> bool {
        let Some(list) = &self.promoted_resource_attributes else { return true };
        ALWAYS_PROMOTED.iter().any(|name| name.as_bytes() == key)
            || list.iter().any(|name| name.as_bytes() == key)
    }

    /// The longest time from the beginning of a window to its closing.
    pub fn longest_fold(&self) -> DurationMs {
        let folds =
            self.rules.iter().flat_map(Rule::folds).map(|fold| fold.delay.0.saturating_add(fold.window.0));
        let budget = self.budgets.iter().map(|b| b.fold.delay.0.saturating_add(b.fold.window.0));
        DurationMs(folds.chain(budget).max().unwrap_or(0))
    }

    /// The period over which cardinality is measured, where it is.
    pub fn measured_over(&self) -> Option<DurationMs> {
        match (&self.measure, &self.budgets) {
            (Some(measure), _) => Some(measure.period),
            (None, Some(_)) => Some(Measure::default().period),
            (None, None) => None,
        }
    }

    /// The period over which something is remembered of every stream, to measure it, to keep a budget or to rank it; none: nothing is.
    pub fn watched_over(&self) -> Option<DurationMs> {
        let ranks = self.rules.iter().any(|rule| rule.pipeline == Pipeline::ExperimentalTopk);
        self.measured_over().or_else(|| ranks.then_some(Measure::default().period))
    }

    /// The shortest stream expiry that the rules allow: twice the longest delay + window, so that no stream is forgotten while
    /// one of its increments may still wait for its window.
    pub fn stream_expiry_min(&self) -> DurationMs {
        DurationMs(self.longest_fold().0.saturating_mul(2))
    }
}

impl Fold {
    /// How long the last value of a silent gauge stands under a plan's `stream_expiry`. Five minutes are Prometheus' look-back: `sum`
    /// over raw and over folded series then counts a silent stream equally long.
    pub fn value_expiry(&self, stream_expiry: DurationMs) -> DurationMs {
        self.value_expiry.unwrap_or(DurationMs::from_secs(300).max(self.window).min(stream_expiry))
    }

    /// How far windows begin off the multiples of their width.
    pub fn offset(&self) -> DurationMs {
        self.offset.unwrap_or(DurationMs(self.window.0 / 2))
    }
}

impl Rule {
    /// Its fold, and the one that it switches from.
    pub fn folds(&self) -> impl Iterator<Item = &Fold> {
        self.fold.iter().chain(self.switch.iter().filter_map(|switch| switch.from.fold.as_ref()))
    }

    /// Whether the rule speaks of a tenant.
    pub fn is_of(&self, tenant: &[u8]) -> bool {
        self.tenant.as_ref().is_none_or(|name| name.as_bytes() == tenant)
    }

    /// Whether the rule speaks of a point, whosever it is; see [`Plan::rule_for`].
    pub fn matches<'v>(
        &self,
        metric: &[u8],
        resource: impl Fn(&str) -> Option<&'v [u8]>,
        attributes: impl Fn(&str) -> Option<&'v [u8]>,
    ) -> bool {
        self.metric.matches(metric)
            && self.resource.iter().all(|label| label.op.matches(resource(&label.key)))
            && self.attributes.iter().all(|label| label.op.matches(attributes(&label.key)))
    }
}

impl Default for Tenant {
    fn default() -> Tenant {
        Tenant { header: Some("x-scope-orgid".to_owned()), resource_attribute: None, default: String::new() }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            streams_max: 1_000_000,
            delta_streams_max: 200_000,
            gauge_streams_max: 200_000,
            series_max: 100_000,
            histogram_bytes_max: 64 << 20,
            pending_bytes_max: 64 << 20,
            queue_bytes_max: 16 << 20,
            emission_bytes_max: 1 << 20,
            backlog_bytes_max: 32 << 20,
            body_bytes_max: 64 << 20,
            active_series_max: 1_000_000,
            tenants_max: 1_000,
            measure_bytes_max: 64 << 20,
        }
    }
}

fn default_mark_label() -> String {
    "phoenix_folded".to_owned()
}

fn default_writer_label() -> String {
    "phoenix_writer".to_owned()
}

fn default_shards() -> u32 {
    1
}

/// Two seconds: twice the usual resolution of a process's start time.
fn default_first_sample_margin() -> DurationMs {
    DurationMs::from_secs(2)
}

/// Ten minutes: twice Prometheus' look-back.
fn default_stream_expiry() -> DurationMs {
    DurationMs::from_secs(600)
}

/// Fifteen seconds: the usual scrape interval, which dashboards' ranges assume.
fn default_window() -> DurationMs {
    DurationMs::from_secs(15)
}

/// A minute: the default export interval of OpenTelemetry SDKs.
fn default_delay() -> DurationMs {
    DurationMs::from_secs(60)
}

/// Four: what a panel shows of one point, and no more than a few hundred bytes a window.
fn default_exemplars() -> u32 {
    4
}

/// A header's name in lower case, as HTTP/2 and the embedders have it.
fn lower_cased<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    Ok(name.map(|name| name.to_ascii_lowercase()))
}
