//! The fold, written down a second time as plainly as it can be said.
//!
//! In: decoded OTLP requests in order of arrival, the time of arrival, a [`ReferencePlan`]. Out: what passes, and requests with the folded series.
//! Why: an engine that scans bytes, shares tables and hands records between workers is only believed beside something that does none of that.
//! So there are `BTreeMap`s, full identities in place of hashes, `i128` for integers and double-double for doubles, and nothing from `filter/`.
//! The rules are those of `docs/fold.md`; the code was written from them and not from the engine. What it leaves out: bounds, expiry of silent streams,
//! acknowledgement, tenants, shards, exemplars, switches of gauges; who compares must not use them.
//! Refuses nothing: summaries, sums that are not monotonic, and gauges without a function pass.

/// A folded gauge.
mod gauges;
/// Points as quantities and back.
mod otlp;
/// What is folded, and how.
pub mod plan;
/// What a point counts.
mod quantity;
/// Windows of one series.
mod series;

use crate::sink::exact::Total;
use gauges::GaugeSeries;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, ResourceMetrics, ScopeMetrics,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp::{Emitted, Kind, Said, for_each, is_empty};
use plan::{ReferenceFold, ReferencePlan, Side};
use prost::Message;
use quantity::{Amount, Quantity, difference, is_less, share};
use series::Series;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

/// Resource attributes that Prometheus turns into `job` and `instance` of every series.
const ALWAYS_STORED: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];
/// Intervals that a delta stream remembers.
const INTERVALS_KEPT: usize = 8;
/// `FLAG_NO_RECORDED_VALUE` of OTLP: the point says that there is no value.
const NO_RECORDED_VALUE: u32 = 1;

/// The books of the reference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReferenceBooks {
    /// Points that left as increments.
    pub folded: u64,
    /// First points of streams older than our tracking.
    pub baselines: u64,
    /// Points that passed and moved where a stream counts from.
    pub carried: u64,
    /// Points of cumulative streams that are not newer than the last.
    pub out_of_order: u64,
    /// Delta points that repeat an interval.
    pub duplicates: u64,
    /// Delta points that overlap an interval without repeating it.
    pub overlaps: u64,
    /// Increments of which a part came after its window had closed.
    pub late: u64,
    /// Gauge values that came after theirs had.
    pub late_values: u64,
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
    gauges: BTreeMap<SeriesKey, GaugeSeries>,
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
    kind: Kind,
    temporality: i32,
    attributes: Labels,
    /// Of the switch, where it hands nothing over: then a stream is another one on its other side.
    side: Side,
}

/// What makes a series: what the backend would store, and which fold of which rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SeriesKey {
    rule: usize,
    side: Side,
    resource: Labels,
    metric: String,
    unit: String,
    kind: Kind,
    temporality: i32,
    attributes: Labels,
}

#[derive(Debug, Default)]
struct Stream {
    last: Option<(u64, u64, Quantity)>,
    intervals: VecDeque<(u64, u64)>,
    /// The one that its points join.
    series: Option<SeriesKey>,
    /// It passed, and nothing of it was folded since.
    is_raw: bool,
    /// Its first point on the other side of a switch has come.
    has_switched: bool,
}

/// What is new in a point: an amount, and the time in which it came to be.
#[derive(Clone, Debug)]
struct Increment {
    from_ns: u64,
    to_ns: u64,
    value: Quantity,
}

/// What becomes of a point in its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    Leaves,
    /// It stays as the stale marker of its raw series.
    Ends,
}

/// A point and all that says whose it is.
struct Found<'a> {
    rule: usize,
    stream: StreamKey,
    description: &'a str,
    said: Said,
    now_ns: u64,
}

impl Reference {
    /// A fold that has seen nothing.
    pub fn new(plan: ReferencePlan) -> Self {
        let books = ReferenceBooks::default();
        let (streams, series, gauges) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { plan, began_ns: None, streams, series, gauges, books }
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
                scope_metrics.metrics.retain(|metric| !metric.data.as_ref().is_some_and(is_empty));
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
        let Some(data) = &mut metric.data else { return };
        for_each(data, |kind, temporality, said| {
            let stream = StreamKey {
                resource: labels(&resource.attributes),
                scope: scope.to_vec(),
                metric: name.clone(),
                unit: unit.clone(),
                kind,
                temporality,
                attributes: labels(&said.attributes),
                side: Side::After,
            };
            let found = Found { rule, stream, description: &description, said, now_ns };
            if found.stream.kind == Kind::Gauge { self.fold_value(&found) } else { self.fold_point(found) }
        });
    }

    /// Takes a value of a gauge whose rule declares a function.
    fn fold_value(&mut self, found: &Found<'_>) -> Fate {
        let fold = self.plan.rules[found.rule].fold.clone().filter(|fold| fold.gauge.is_some());
        let Some(fold) = fold else { return Fate::Passes };
        let key = self.series_key(found.rule, Side::After, &found.stream, &fold);
        let series = self.gauges.entry(key).or_insert_with(|| GaugeSeries::new(fold));
        series.description = found.description.to_owned();
        let quantity = found.said.quantity.as_ref();
        let is_in_time = series.take(&found.stream, found.said.time_ns, quantity, found.now_ns);
        match (quantity, is_in_time) {
            (Some(_), true) => self.books.folded += 1,
            (Some(_), false) => self.books.late_values += 1,
            (None, _) => {}
        }
        Fate::Leaves
    }

    /// Folds what is new in a point, if its rule says so, and says what becomes of it.
    fn fold_point(&mut self, mut found: Found<'_>) -> Fate {
        let rule = &self.plan.rules[found.rule];
        let side = rule.side(found.said.time_ns);
        let (is_folded, is_switched) = (rule.on(side).is_some(), rule.switch.is_some());
        let was_folded = is_switched && side == Side::After && rule.on(Side::Before).is_some();
        if found.said.quantity.is_none() {
            self.end(&found);
            return if is_folded { Fate::Leaves } else { Fate::Passes };
        }
        if self.plan.is_at_arrival {
            found.stream.side = side;
            if is_folded {
                let increment = self.increment(&found);
                self.add(&found, side, increment);
            }
            return if is_folded { Fate::Leaves } else { Fate::Passes };
        }
        if !is_folded && !is_switched {
            return Fate::Passes;
        }
        let is_known = self.streams.contains_key(&found.stream);
        if is_folded || side == Side::Before {
            self.join(&found, if is_folded { side } else { Side::After });
        }
        match (side, is_folded) {
            // Until the switch the fold only learns where to count from.
            (Side::Before, false) => {
                let books = self.books.clone();
                self.observe(&found);
                self.books = ReferenceBooks { carried: books.carried + 1, ..books };
                self.stream(&found).is_raw = true;
                Fate::Passes
            }
            (_, true) => {
                let increment = self.increment(&found);
                if was_folded && is_known {
                    self.add_split(&found, increment);
                } else {
                    self.add(&found, side, increment);
                }
                if std::mem::take(&mut self.stream(&found).is_raw) { Fate::Ends } else { Fate::Leaves }
            }
            // The last increment that nobody else counts: the raw series begins with this point.
            (Side::After, false) => {
                if is_known && !std::mem::replace(&mut self.stream(&found).has_switched, true) {
                    let increment = self.increment(&found);
                    self.add(&found, Side::Before, increment);
                }
                Fate::Passes
            }
        }
    }

    fn stream(&mut self, found: &Found<'_>) -> &mut Stream {
        self.streams.entry(found.stream.clone()).or_default()
    }

    /// From one fold to another: what a known stream added before the switch joins the series that it ends, what came after it the one that it begins.
    fn add_split(&mut self, found: &Found<'_>, increment: Option<Increment>) {
        let at_ns = self.plan.rules[found.rule].switch.as_ref().map_or(0, |switch| switch.at_ns);
        let Some(whole) = increment.clone().filter(|increment| increment.from_ns < at_ns) else {
            return self.add(found, Side::After, increment);
        };
        let before = share(&whole.value, whole.from_ns, whole.to_ns, at_ns);
        let rest = difference(&whole.value, &before);
        let old = Increment { to_ns: at_ns, value: before, ..whole };
        let new = Increment { from_ns: at_ns, value: rest, ..whole };
        self.add(found, Side::Before, Some(old));
        if at_ns < whole.to_ns {
            self.add(found, Side::After, Some(new));
        }
    }

    fn series_key(&self, rule: usize, side: Side, stream: &StreamKey, fold: &ReferenceFold) -> SeriesKey {
        let plan = &self.plan;
        let ReferenceFold { drop_resource, drop_attributes, is_cumulative_out, .. } = fold;
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
        let mut mark = mark.join(",");
        if let Kind::Histogram(bounds) = &stream.kind {
            // Phoenix writes a keyed hash; all that matters is that other bounds are another mark.
            let _ = write!(mark, ";bounds={bounds:x?}");
        }
        for (key, value) in [(&plan.mark_label, mark), (&plan.writer_label, plan.writer.clone())] {
            let value = AnyValue { value: Some(any_value::Value::StringValue(value)) };
            attributes.push((key.clone(), value.encode_to_vec()));
        }
        attributes.sort();
        let temporality =
            if *is_cumulative_out { AggregationTemporality::Cumulative.into() } else { stream.temporality };
        let (metric, unit) = (stream.metric.clone(), stream.unit.clone());
        let kind = stream.kind.clone();
        SeriesKey { rule, side, resource, metric, unit, kind, temporality, attributes }
    }

    /// What is new in a point, and counted as folded.
    fn increment(&mut self, found: &Found<'_>) -> Option<Increment> {
        let increment = self.observe(found);
        self.books.folded += u64::from(increment.is_some());
        increment
    }

    /// What is new in a point of this stream; nothing when it is a baseline, out of order or known already.
    fn observe(&mut self, found: &Found<'_>) -> Option<Increment> {
        let Found { stream: key, said, now_ns, .. } = found;
        let is_delta = key.temporality == i32::from(AggregationTemporality::Delta);
        let (start_ns, to_ns, value) = (said.start_ns, said.time_ns, said.quantity.clone()?);
        let stream = self.streams.entry(key.clone()).or_default();
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
        let Some((last_start_ns, last_ns, last)) = stream.last.clone() else {
            stream.last = Some((start_ns, to_ns, value.clone()));
            let watched_ns = i128::from(*now_ns) - i128::from(self.began_ns.unwrap_or(*now_ns));
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
        stream.last = Some((start_ns, to_ns, value.clone()));
        let advanced = last_start_ns != 0 && start_ns > last_start_ns;
        if advanced || is_less(&value, &last) {
            // The counter began again, at its new start if it says so; never before the last point.
            return Some(Increment { from_ns: start_ns.clamp(last_ns, to_ns), to_ns, value });
        }
        Some(Increment { from_ns: last_ns, to_ns, value: difference(&value, &last) })
    }

    /// Makes the series that a point has on one side of its rule's switch the one that its stream belongs to.
    fn join(&mut self, found: &Found<'_>, side: Side) {
        let Some(key) = self.series_of(found, side) else { return };
        let of = &mut self.stream(found).series;
        if of.as_ref() == Some(&key) {
            if let Some(series) = self.series.get_mut(&key) {
                series.ended.remove(&found.stream);
            }
            return;
        }
        if let Some(old) = of.replace(key.clone()).and_then(|old| self.series.get_mut(&old)) {
            old.streams.remove(&found.stream);
            old.ended.remove(&found.stream);
        }
        if let Some(series) = self.series.get_mut(&key) {
            series.streams.insert(found.stream.clone());
        }
    }

    /// The series that a point has on one side of its rule's switch, made if there was none.
    fn series_of(&mut self, found: &Found<'_>, side: Side) -> Option<SeriesKey> {
        let rule = &self.plan.rules[found.rule];
        let fold = rule.on(side)?;
        let key = self.series_key(found.rule, side, &found.stream, fold);
        let switch = rule.switch.as_ref().filter(|_| !self.plan.is_at_arrival);
        let new = || {
            let at_ns = |wanted| switch.filter(|_| side == wanted).map(|switch| switch.at_ns);
            let is_cumulative = key.temporality == i32::from(AggregationTemporality::Cumulative);
            let ends_ns = at_ns(Side::Before).map(|at_ns| (at_ns, at_ns + self.plan.stream_expiry_ns));
            let opens_ns = at_ns(Side::After).filter(|_| rule.on(Side::Before).is_some());
            Series::new(fold.clone(), is_cumulative, opens_ns, ends_ns)
        };
        self.series.entry(key.clone()).or_insert_with(new);
        Some(key)
    }

    /// A stream says that it has ended. The last of a series ends the series with the window of that time.
    fn end(&mut self, found: &Found<'_>) {
        let Some(stream) = self.streams.get(&found.stream) else { return };
        let Some((_, last_ns, _)) = stream.last else { return };
        let time_ns = found.said.time_ns;
        let Some(series) = stream.series.as_ref().and_then(|key| self.series.get_mut(key)) else { return };
        if time_ns >= last_ns && series.ended.insert(found.stream.clone()) && series.has_ended() {
            series.touch(time_ns, found.now_ns);
        }
    }

    /// Adds an increment to the series that a point has on one side of its rule's switch.
    fn add(&mut self, found: &Found<'_>, side: Side, increment: Option<Increment>) {
        let Some(increment) = increment else { return };
        let Some(series) = self.series_of(found, side).and_then(|key| self.series.get_mut(&key)) else {
            return;
        };
        series.description = found.description.to_owned();
        let is_late = series.add(&increment, self.plan.is_at_arrival, found.now_ns);
        self.books.late += u64::from(is_late);
        let mut amount = Amount::default();
        amount.add(&increment.value);
        self.books.folded_total.add(amount.total);
    }

    /// Closes every window whose end plus delay has come; one request, points in order of time. `u64::MAX` closes all.
    pub fn close(&mut self, now_ns: u64) -> ExportMetricsServiceRequest {
        let mut request = ExportMetricsServiceRequest::default();
        let began_ns = self.began_ns.unwrap_or_default();
        for (key, series) in &mut self.series {
            let (points, added) = series.close(now_ns, began_ns);
            self.books.emitted_total.add(added.total);
            if !points.is_empty() {
                request.resource_metrics.push(message(key, &series.description, &points));
            }
        }
        for (key, series) in &mut self.gauges {
            let points = series.close(now_ns);
            if !points.is_empty() {
                request.resource_metrics.push(message(key, &series.description, &points));
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
        self.series.len() + self.gauges.len()
    }
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

fn message(key: &SeriesKey, description: &str, points: &[Emitted]) -> ResourceMetrics {
    let data = otlp::data(&key.kind, key.temporality, &attributes(&key.attributes), points);
    let metric = Metric {
        name: key.metric.clone(),
        unit: key.unit.clone(),
        description: description.to_owned(),
        data: Some(data),
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
