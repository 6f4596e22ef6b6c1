//! The fold of sums, written down a second time as plainly as it can be said.
//!
//! In: decoded OTLP requests in order of arrival, the time of arrival, a [`ReferencePlan`]. Out: what passes, and requests with the folded series.
//! Why: an engine that scans bytes, shares tables and hands records between workers is only believed beside something that does none of that.
//! So there are `BTreeMap`s, full identities in place of hashes, `i128` for integers and double-double for doubles, and nothing from `filter/`.
//! The rules are those of `docs/fold.md`; the code was written from them and not from the engine. What it leaves out: bounds, expiry of silent streams, acknowledgement, tenants, shards, switches; who compares must not use them.
//! Refuses nothing: data other than sums, and sums that are not monotonic, pass.

use crate::sink::exact::Total;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::collections::{BTreeMap, VecDeque};

/// Resource attributes that Prometheus turns into `job` and `instance` of every series.
const ALWAYS_STORED: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];
/// Intervals that a delta stream remembers.
const INTERVALS_KEPT: usize = 8;
/// `FLAG_NO_RECORDED_VALUE` of OTLP: the point says that there is no value.
const NO_RECORDED_VALUE: u32 = 1;

/// What is folded, and how.
#[derive(Clone, Debug, Default)]
pub struct ReferencePlan {
    /// The first that matches decides.
    pub rules: Vec<ReferenceRule>,
    /// Resource attributes that the backend stores on every series.
    pub promoted: Vec<String>,
    /// Key of the mark.
    pub mark_label: String,
    /// Key of the writer's label.
    pub writer_label: String,
    /// The writer.
    pub writer: String,
    /// A stream counts from zero only if it is younger than our tracking by more than this.
    pub first_sample_margin_ns: u64,
}

/// One fold.
#[derive(Clone, Debug, Default)]
pub struct ReferenceRule {
    /// Metrics whose names begin so.
    pub metric_prefix: String,
    /// Resource attributes to drop.
    pub drop_resource: Vec<String>,
    /// Point attributes to drop.
    pub drop_attributes: Vec<String>,
    /// Width of a window.
    pub window_ns: u64,
    /// How long after its end a window stays open.
    pub delay_ns: u64,
    /// Delta comes out as cumulative.
    pub is_cumulative_out: bool,
    /// The whole increment goes to the window of its arrival, as others do: the baseline to measure against.
    pub is_at_arrival: bool,
}

/// The books of the reference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReferenceBooks {
    /// Points that left as increments.
    pub folded: u64,
    /// First points of streams older than our tracking.
    pub baselines: u64,
    /// Points of cumulative streams that are not newer than the last.
    pub out_of_order: u64,
    /// Delta points that repeat an interval.
    pub duplicates: u64,
    /// Delta points that overlap an interval without repeating it.
    pub overlaps: u64,
    /// Increments of which a part came after its window had closed.
    pub late: u64,
    /// What was folded.
    pub folded_total: Total,
    /// What was emitted.
    pub emitted_total: Total,
}

/// The reference fold.
#[derive(Debug)]
pub struct Reference {
    plan: ReferencePlan,
    began_ns: Option<u64>,
    streams: BTreeMap<StreamKey, Stream>,
    series: BTreeMap<SeriesKey, Series>,
    books: ReferenceBooks,
}

/// Sorted attributes; values as their bytes, since `AnyValue` has no order.
type Labels = Vec<(String, Vec<u8>)>;

/// What makes a stream: resource, scope, metric, attributes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StreamKey {
    resource: Labels,
    scope: Vec<u8>,
    metric: String,
    unit: String,
    temporality: i32,
    attributes: Labels,
}

/// What makes a series: what the backend would store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SeriesKey {
    rule: usize,
    resource: Labels,
    metric: String,
    unit: String,
    temporality: i32,
    attributes: Labels,
}

#[derive(Debug, Default)]
struct Stream {
    last: Option<(u64, u64, Value)>,
    intervals: VecDeque<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Series {
    description: String,
    /// Start of the first window, or of our tracking: the series' own start time.
    start_ns: Option<u64>,
    is_double: bool,
    total: Total,
    open: BTreeMap<u64, Total>,
    /// Every window that ends here or before has closed.
    closed_until_ns: u64,
}

/// What is new in a point: an amount, and the time in which it came to be.
struct Increment {
    from_ns: u64,
    to_ns: u64,
    value: Value,
}

impl Reference {
    /// A fold that has seen nothing.
    pub fn new(plan: ReferencePlan) -> Self {
        let books = ReferenceBooks::default();
        Self { plan, began_ns: None, streams: BTreeMap::new(), series: BTreeMap::new(), books }
    }

    /// Takes a request and returns what passes. Windows that have closed by `now_ns` are closed first: see [`Reference::close`].
    pub fn fold(
        &mut self,
        request: &ExportMetricsServiceRequest,
        now_ns: u64,
    ) -> ExportMetricsServiceRequest {
        self.began_ns.get_or_insert(now_ns);
        let mut rest = request.clone();
        for resource_metrics in &mut rest.resource_metrics {
            let resource = resource_metrics.resource.clone().unwrap_or_default();
            for scope_metrics in &mut resource_metrics.scope_metrics {
                let scope = scope_metrics.scope.clone().unwrap_or_default().encode_to_vec();
                for metric in &mut scope_metrics.metrics {
                    self.fold_metric(&resource, &scope, metric, now_ns);
                }
                scope_metrics.metrics.retain(|metric| !is_empty(metric));
            }
            resource_metrics.scope_metrics.retain(|scope| !scope.metrics.is_empty());
        }
        rest.resource_metrics.retain(|resource| !resource.scope_metrics.is_empty());
        rest
    }

    fn fold_metric(&mut self, resource: &Resource, scope: &[u8], metric: &mut Metric, now_ns: u64) {
        let (name, unit, description) =
            (metric.name.clone(), metric.unit.clone(), metric.description.clone());
        let Some(rule) = self.plan.rules.iter().position(|rule| name.starts_with(&rule.metric_prefix)) else {
            return;
        };
        let Some(Data::Sum(sum)) = &mut metric.data else { return };
        if !sum.is_monotonic {
            return;
        }
        let temporality = sum.aggregation_temporality;
        let (folded, passing) = sum
            .data_points
            .drain(..)
            .partition(|point| point.flags & NO_RECORDED_VALUE == 0 && point.value.is_some());
        sum.data_points = passing;
        let folded: Vec<NumberDataPoint> = folded;
        for point in folded {
            let stream = StreamKey {
                resource: labels(&resource.attributes),
                scope: scope.to_vec(),
                metric: name.clone(),
                unit: unit.clone(),
                temporality,
                attributes: labels(&point.attributes),
            };
            let series = self.series_key(rule, &stream);
            if let Some(increment) = self.increment(stream, &point, now_ns) {
                self.add(series, &description, &increment, now_ns);
            }
        }
    }

    fn series_key(&self, rule: usize, stream: &StreamKey) -> SeriesKey {
        let plan = &self.plan;
        let ReferenceRule { drop_resource, drop_attributes, is_cumulative_out, .. } = &plan.rules[rule];
        let is_stored = |key: &String| plan.promoted.contains(key) || ALWAYS_STORED.contains(&key.as_str());
        let mut resource = stream.resource.clone();
        resource.retain(|(key, _)| is_stored(key) && !drop_resource.contains(key));
        let mut attributes = stream.attributes.clone();
        attributes.retain(|(key, _)| {
            !drop_attributes.contains(key) && *key != plan.mark_label && *key != plan.writer_label
        });
        let mut mark: Vec<&str> = drop_resource.iter().chain(drop_attributes).map(String::as_str).collect();
        mark.sort_unstable();
        mark.dedup();
        for (key, value) in [(&plan.mark_label, mark.join(",")), (&plan.writer_label, plan.writer.clone())] {
            let value = AnyValue { value: Some(any_value::Value::StringValue(value)) };
            attributes.push((key.clone(), value.encode_to_vec()));
        }
        attributes.sort();
        let temporality =
            if *is_cumulative_out { AggregationTemporality::Cumulative.into() } else { stream.temporality };
        let (metric, unit) = (stream.metric.clone(), stream.unit.clone());
        SeriesKey { rule, resource, metric, unit, temporality, attributes }
    }

    /// What is new in a point of this stream; nothing when it is a baseline, out of order or known already.
    fn increment(&mut self, key: StreamKey, point: &NumberDataPoint, now_ns: u64) -> Option<Increment> {
        let is_delta = key.temporality == i32::from(AggregationTemporality::Delta);
        let (start_ns, to_ns, value) = (point.start_time_unix_nano, point.time_unix_nano, point.value?);
        let stream = self.streams.entry(key).or_default();
        if is_delta {
            let from_ns = if start_ns == 0 { to_ns } else { start_ns.min(to_ns) };
            if stream.intervals.contains(&(from_ns, to_ns)) {
                self.books.duplicates += 1;
                return None;
            }
            if stream.intervals.iter().any(|(from, to)| from_ns < *to && *from < to_ns) {
                self.books.overlaps += 1;
                return None;
            }
            if stream.intervals.len() == INTERVALS_KEPT {
                stream.intervals.pop_front();
            }
            stream.intervals.push_back((from_ns, to_ns));
            return Some(Increment { from_ns, to_ns, value });
        }
        let Some((last_start_ns, last_ns, last)) = stream.last else {
            stream.last = Some((start_ns, to_ns, value));
            let watched_ns = i128::from(now_ns) - i128::from(self.began_ns.unwrap_or(now_ns));
            let age_ns = i128::from(to_ns) - i128::from(start_ns);
            let is_born_here = start_ns != 0
                && age_ns >= 0
                && age_ns < watched_ns - i128::from(self.plan.first_sample_margin_ns);
            if is_born_here {
                return Some(Increment { from_ns: start_ns, to_ns, value });
            }
            self.books.baselines += 1;
            return None;
        };
        // A start before the known one is an older incarnation that speaks up.
        if to_ns <= last_ns || (start_ns != 0 && start_ns < last_start_ns) {
            self.books.out_of_order += 1;
            return None;
        }
        stream.last = Some((start_ns, to_ns, value));
        let advanced = last_start_ns != 0 && start_ns > last_start_ns;
        if advanced || is_less(value, last) {
            // The counter began again, at its new start if it says so; never before the last point.
            return Some(Increment { from_ns: start_ns.clamp(last_ns, to_ns), to_ns, value });
        }
        Some(Increment { from_ns: last_ns, to_ns, value: difference(value, last) })
    }

    fn add(&mut self, key: SeriesKey, description: &str, increment: &Increment, now_ns: u64) {
        let rule = &self.plan.rules[key.rule];
        let (window_ns, delay_ns) = (rule.window_ns, rule.delay_ns);
        let series = self.series.entry(key).or_default();
        series.description = description.to_owned();
        series.is_double |= matches!(increment.value, Value::AsDouble(_));
        // A window is open until its end plus the delay.
        let closed_until_ns = floor(now_ns.saturating_sub(delay_ns), window_ns).max(series.closed_until_ns);
        let from_ns = if rule.is_at_arrival { increment.to_ns } else { increment.from_ns };
        let mut is_late = false;
        for (window, part) in split(increment.value, from_ns, increment.to_ns, window_ns) {
            is_late |= window < closed_until_ns;
            add(series.open.entry(window.max(closed_until_ns)).or_default(), part);
        }
        self.books.folded += 1;
        self.books.late += u64::from(is_late);
        add(&mut self.books.folded_total, increment.value);
    }

    /// Closes every window whose end plus delay has come; one request, points in order of time. `u64::MAX` closes all.
    pub fn close(&mut self, now_ns: u64) -> ExportMetricsServiceRequest {
        let mut request = ExportMetricsServiceRequest::default();
        let began_ns = self.began_ns.unwrap_or_default();
        for (key, series) in &mut self.series {
            let rule = &self.plan.rules[key.rule];
            let is_cumulative = key.temporality == i32::from(AggregationTemporality::Cumulative);
            let closed_until_ns = floor(now_ns.saturating_sub(rule.delay_ns), rule.window_ns);
            let mut points = Vec::new();
            while let Some(entry) = series.open.first_entry() {
                let start_ns = *entry.key();
                if start_ns >= closed_until_ns {
                    break;
                }
                let amount = entry.remove();
                let end_ns = start_ns + rule.window_ns;
                self.books.emitted_total.add(amount);
                if !is_cumulative {
                    points.push(point(key, start_ns, end_ns, amount, series.is_double));
                    continue;
                }
                let opens = series.start_ns.is_none();
                // Before we began to watch, another process may have written.
                let series_start_ns = *series.start_ns.get_or_insert(start_ns.max(began_ns));
                if opens {
                    let zero = Total::default();
                    points.push(point(key, series_start_ns, series_start_ns, zero, series.is_double));
                }
                series.total.add(amount);
                points.push(point(key, series_start_ns, end_ns, series.total, series.is_double));
            }
            series.closed_until_ns = series.closed_until_ns.max(closed_until_ns);
            if !points.is_empty() {
                request.resource_metrics.push(message(key, &series.description, points));
            }
        }
        request
    }

    /// The books.
    pub fn books(&self) -> &ReferenceBooks {
        &self.books
    }

    /// Folded series so far.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }
}

/// Splits an amount over the windows between two times, in proportion to time. Up to each window's end the running share has come; integers round it
/// down (`docs/decisions/0007-splitting-integers.md`), and what is left goes to the last window. What is counted at the very end of a window belongs to it.
pub fn split(value: Value, from_ns: u64, to_ns: u64, window_ns: u64) -> Vec<(u64, Value)> {
    let last = floor(to_ns.saturating_sub(1), window_ns);
    let (mut parts, mut before) = (Vec::new(), difference(value, value));
    let mut window = floor(from_ns, window_ns);
    while window < last {
        let (passed_ns, span_ns) = (window + window_ns - from_ns, to_ns - from_ns);
        let share = match value {
            Value::AsInt(n) => {
                let share = i128::from(n) * i128::from(passed_ns) / i128::from(span_ns);
                Value::AsInt(i64::try_from(share).unwrap_or(n))
            }
            Value::AsDouble(x) => Value::AsDouble(x * (passed_ns as f64 / span_ns as f64)),
        };
        parts.push((window, difference(share, before)));
        before = share;
        window += window_ns;
    }
    parts.push((last, difference(value, before)));
    parts
}

fn floor(time_ns: u64, window_ns: u64) -> u64 {
    time_ns - time_ns % window_ns
}

fn labels(attributes: &[KeyValue]) -> Labels {
    let pair =
        |kv: &KeyValue| (kv.key.clone(), kv.value.as_ref().map(Message::encode_to_vec).unwrap_or_default());
    let mut labels: Labels = attributes.iter().map(pair).collect();
    labels.sort();
    labels
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    let pair = |(key, bytes): &(String, Vec<u8>)| KeyValue {
        key: key.clone(),
        value: AnyValue::decode(bytes.as_slice()).ok(),
        ..KeyValue::default()
    };
    labels.iter().map(pair).collect()
}

fn is_empty(metric: &Metric) -> bool {
    matches!(&metric.data, Some(Data::Sum(sum)) if sum.data_points.is_empty())
}

fn as_double(value: Value) -> f64 {
    match value {
        Value::AsInt(n) => n as f64,
        Value::AsDouble(x) => x,
    }
}

fn is_less(value: Value, last: Value) -> bool {
    match (value, last) {
        (Value::AsInt(a), Value::AsInt(b)) => a < b,
        (a, b) => as_double(a) < as_double(b),
    }
}

fn difference(value: Value, last: Value) -> Value {
    match (value, last) {
        (Value::AsInt(a), Value::AsInt(b)) => Value::AsInt(a.wrapping_sub(b)),
        (a, b) => Value::AsDouble(as_double(a) - as_double(b)),
    }
}

fn add(total: &mut Total, value: Value) {
    match value {
        Value::AsInt(n) => total.add_int(n.into()),
        Value::AsDouble(x) => total.add_double(x),
    }
}

fn point(key: &SeriesKey, start_ns: u64, time_ns: u64, total: Total, is_double: bool) -> NumberDataPoint {
    let value = match i64::try_from(total.ints) {
        Ok(n) if !is_double => Value::AsInt(n),
        _ => Value::AsDouble(total.approximate()),
    };
    NumberDataPoint {
        attributes: attributes(&key.attributes),
        start_time_unix_nano: start_ns,
        time_unix_nano: time_ns,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn message(key: &SeriesKey, description: &str, data_points: Vec<NumberDataPoint>) -> ResourceMetrics {
    let sum = Sum { data_points, aggregation_temporality: key.temporality, is_monotonic: true };
    let metric = Metric {
        name: key.metric.clone(),
        unit: key.unit.clone(),
        description: description.to_owned(),
        data: Some(Data::Sum(sum)),
        ..Metric::default()
    };
    ResourceMetrics {
        resource: Some(Resource { attributes: attributes(&key.resource), ..Resource::default() }),
        scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }],
        ..ResourceMetrics::default()
    }
}

#[cfg(test)]
mod tests;
