//! Counters whose truth is a formula, in event time of the past.
//!
//! In: when it begins. Out: exports in order of time, and for every metric and route how much there was between any two times. Why the past: forty minutes
//! of traffic are sent in seconds. Deterministic: no random number, the same bytes for the same beginning.

use super::clock::{ACTIVE_NS, INTERVAL_NS};
use super::instrument::{self, Instrument};
use super::life::{Counter, End, Life, lives};
use super::measured::{self, At};
use crate::shop::otlp::{CUMULATIVE, metric, number, sum, text};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// The attribute of a pod's resource that tells it from others.
pub const POD: &str = "k8s.pod.name";
/// The attribute of a point that is dropped.
pub const AGENT: &str = "user_agent";
/// `FLAG_NO_RECORDED_VALUE` of OTLP: a stale marker.
const NO_RECORDED_VALUE: u32 = 1;

/// A request at its time.
#[derive(Clone, Debug)]
pub struct Export {
    /// Timestamp of its points.
    pub time_ns: u64,
    /// The request.
    pub request: ExportMetricsServiceRequest,
}

/// The traffic.
#[derive(Clone, Debug)]
pub struct Traffic {
    begin_ns: u64,
    lives: Vec<Life>,
}

impl Traffic {
    /// Traffic that begins so. Queries align with it when it is a multiple of the interval.
    pub fn new(begin_ns: u64) -> Self {
        Self { begin_ns, lives: lives(begin_ns) }
    }

    /// When it begins.
    pub fn begin_ns(&self) -> u64 {
        self.begin_ns
    }

    /// When counting ends.
    pub fn active_until_ns(&self) -> u64 {
        self.begin_ns + ACTIVE_NS
    }

    /// Every export in order of time.
    pub fn exports(&self) -> Vec<Export> {
        let mut exports = Vec::new();
        for life in &self.lives {
            let times = self.times(life);
            for time_ns in &times {
                exports.push(Export { time_ns: *time_ns, request: self.request(life, *time_ns, false) });
            }
            if let (End::Stale, Some(last_ns)) = (life.end, times.last()) {
                let time_ns = last_ns + INTERVAL_NS;
                exports.push(Export { time_ns, request: self.request(life, time_ns, true) });
            }
        }
        exports.sort_by_key(|export| export.time_ns);
        exports
    }

    /// What there is to count, as a backend can: per life its last exported value, less what the stream came with. A stream comes with nothing if it is
    /// born in the scene, unless its first point is raw (`is_raw`, by time): a raw series does not say what it began with.
    pub fn total(&self, instrument: &Instrument, route: &str, is_raw: impl Fn(u64) -> bool) -> f64 {
        let mut total = 0.0;
        let mut known = Vec::new();
        for life in &self.lives {
            let times = self.times(life);
            let (Some(first), Some(last)) = (times.first(), times.last()) else { continue };
            let is_known = known.contains(&&life.pod);
            known.push(&life.pod);
            for counter in counters(life, instrument, route) {
                let comes_with = !is_known && (life.born_ns < self.begin_ns || is_raw(*first));
                let before = if comes_with { self.value(life, counter, *first) } else { 0.0 };
                total += self.value(life, counter, *last) - before;
            }
        }
        total
    }

    /// What happened between two times, exported or not, as a real number.
    pub fn truth(&self, instrument: &Instrument, route: &str, from_ns: u64, to_ns: u64) -> f64 {
        let mut total = 0.0;
        for life in &self.lives {
            let (from_ns, to_ns) = (from_ns.max(life.born_ns), to_ns.min(life.until_ns));
            if from_ns >= to_ns {
                continue;
            }
            for counter in counters(life, instrument, route) {
                total += self.counted(life, counter, to_ns) - self.counted(life, counter, from_ns);
            }
        }
        total
    }

    fn times(&self, life: &Life) -> Vec<u64> {
        let grid = (0..).map(|k| self.begin_ns + life.offset_ns + k * INTERVAL_NS);
        let mut times: Vec<u64> =
            grid.skip_while(|t| *t <= life.born_ns).take_while(|t| *t < life.until_ns).collect();
        if life.end != End::Crash {
            times.push(life.until_ns);
        }
        times
    }

    /// What a counter has counted in this life since it was born, or since the traffic began.
    fn counted(&self, life: &Life, counter: &Counter, time_ns: u64) -> f64 {
        let since_begin = |ns: u64| ns.clamp(self.begin_ns, self.active_until_ns()) - self.begin_ns;
        let at = |ns| counter.rate * counter.instrument.shape.integral(since_begin(ns));
        at(time_ns) - at(life.born_ns)
    }

    fn value(&self, life: &Life, counter: &Counter, time_ns: u64) -> f64 {
        let value = counter.initial + self.counted(life, counter, time_ns);
        if counter.instrument.is_int { value.floor() } else { value }
    }

    fn point(&self, life: &Life, counter: &Counter, time_ns: u64) -> NumberDataPoint {
        let value = self.value(life, counter, time_ns);
        let value =
            if counter.instrument.is_int { Value::AsInt(value as i64) } else { Value::AsDouble(value) };
        let labels = vec![text("route", counter.route), text(AGENT, counter.agent)];
        number(labels, life.says_born_ns, time_ns, value)
    }

    /// Histograms and a gauge beside the counters of orders: where pods are born, die, crash and end.
    fn measured(&self, life: &Life, time_ns: u64, is_stale: bool) -> Vec<Metric> {
        let of = life.counters.iter().filter(|counter| counter.instrument == measured::LATENCY.of);
        let labels: Vec<_> = of
            .clone()
            .map(|counter| vec![text("route", counter.route), text(AGENT, counter.agent)])
            .collect();
        let points: Vec<At<'_>> = of
            .enumerate()
            .map(|(index, counter)| At {
                number: index + life.pod.len() + life.pod.bytes().last().map_or(0, usize::from),
                counted: self.value(life, counter, time_ns),
                start_ns: life.says_born_ns,
                time_ns,
                labels: &labels[index],
                is_stale,
            })
            .collect();
        if points.is_empty() { Vec::new() } else { measured::metrics(&points) }
    }

    fn request(&self, life: &Life, time_ns: u64, is_stale: bool) -> ExportMetricsServiceRequest {
        let mut metrics: Vec<Metric> = Vec::new();
        for instrument in instrument::all() {
            let of = life.counters.iter().filter(|counter| counter.instrument == instrument);
            let mut points: Vec<_> = of.map(|counter| self.point(life, counter, time_ns)).collect();
            for point in points.iter_mut().filter(|_| is_stale) {
                (point.flags, point.value) = (NO_RECORDED_VALUE, None);
            }
            if !points.is_empty() {
                metrics.push(metric(instrument.name, instrument.unit, sum(points, CUMULATIVE, true)));
            }
        }
        metrics.extend(self.measured(life, time_ns, is_stale));
        let resource = Resource {
            attributes: vec![
                text("service.name", "shop"),
                text("service.instance.id", &format!("{}-id", life.pod)),
                text(POD, &life.pod),
            ],
            ..Resource::default()
        };
        let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
        let resource_metrics =
            vec![ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }];
        ExportMetricsServiceRequest { resource_metrics }
    }
}

fn counters<'a>(
    life: &'a Life,
    instrument: &'a Instrument,
    route: &'a str,
) -> impl Iterator<Item = &'a Counter> {
    life.counters.iter().filter(move |counter| counter.instrument == instrument && counter.route == route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fidelity::clock::{KEEP_NS, MINUTE_NS, OFF_NS, ON_NS};
    use crate::fidelity::instrument::{ORDERS, SWITCHED};
    use crate::fidelity::life::{EDGE, ROUTES};
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use std::collections::BTreeMap;

    const BEGIN_NS: u64 = 1_000_000 * MINUTE_NS;

    /// Start, time, value; none: a stale marker.
    type Sent = (u64, u64, Option<i64>);
    /// By pod and labels, in order of arrival.
    type Streams = BTreeMap<(String, String), Vec<Sent>>;

    fn streams(name: &str) -> Streams {
        let mut streams = Streams::new();
        for export in Traffic::new(BEGIN_NS).exports() {
            let resource_metrics = &export.request.resource_metrics[0];
            let pod = format!("{:?}", resource_metrics.resource.as_ref().unwrap().attributes);
            for metric in
                resource_metrics.scope_metrics[0].metrics.iter().filter(|metric| metric.name == name)
            {
                let Some(Data::Sum(sum)) = &metric.data else { panic!("a sum") };
                for point in &sum.data_points {
                    let value = match point.value {
                        Some(Value::AsInt(value)) => Some(value),
                        None if point.flags == NO_RECORDED_VALUE => None,
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(point.time_unix_nano, export.time_ns);
                    let labels = format!("{:?}", point.attributes);
                    let of = streams.entry((pod.clone(), labels)).or_default();
                    of.push((point.start_time_unix_nano, point.time_unix_nano, value));
                }
            }
        }
        streams
    }

    /// What a counter adds from point to point, the first and all after a fall from zero.
    fn grown(points: &[Sent], counts_first: bool) -> i64 {
        let values: Vec<i64> = points.iter().filter_map(|(_, _, value)| *value).collect();
        let grown = values.windows(2).map(|pair| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] });
        grown.sum::<i64>() + if counts_first { values[0] } else { 0 }
    }

    #[test]
    fn totals_are_what_the_exports_add_up_to() {
        let traffic = Traffic::new(BEGIN_NS);
        for metric in SWITCHED.into_iter().chain([&ORDERS]) {
            for (is_raw, name) in [(false, "folded"), (true, "raw")] {
                let of = |(_, points): (_, &Vec<_>)| {
                    let (start_ns, _, _) = points[0];
                    grown(points, start_ns >= BEGIN_NS && !is_raw)
                };
                let exported: i64 = streams(metric.name).iter().map(of).sum();
                let routes = ROUTES.into_iter().chain([EDGE]);
                let total: f64 = routes.map(|route| traffic.total(metric, route, |_| is_raw)).sum();
                assert_eq!(exported as f64, total, "{} {name}", metric.name);
            }
        }
    }

    #[test]
    fn the_edge_of_a_switch_has_every_kind_of_stream() {
        for (metric, at_ns) in SWITCHED.into_iter().zip([ON_NS, KEEP_NS, OFF_NS]) {
            let at_ns = BEGIN_NS + at_ns;
            let all = streams(metric.name);
            let edge: Vec<_> =
                all.iter().filter(|((_, labels), _)| labels.contains(EDGE)).map(|(_, of)| of).collect();
            let count = |is: &dyn Fn(&[Sent]) -> bool| edge.iter().filter(|of| is(of)).count();
            assert_eq!(count(&|of| of.iter().any(|point| point.1 == at_ns)), 1, "a point at the switch");
            assert_eq!(count(&|of| of.iter().all(|point| point.1 < at_ns)), 1, "gone before");
            assert_eq!(count(&|of| of.iter().all(|point| point.1 >= at_ns)), 2, "first seen after");
            let falls = |of: &[Sent], says_so: bool| {
                of.windows(2).any(|pair| pair[1].2 < pair[0].2 && (pair[1].0 > pair[0].0) == says_so)
            };
            assert_eq!((count(&|of| falls(of, true)), count(&|of| falls(of, false))), (2, 1), "resets");
        }
        let orders = streams(ORDERS.name);
        assert!(orders.values().any(|of| of.last().is_some_and(|point| point.2.is_none())), "a stale marker");
    }
}
