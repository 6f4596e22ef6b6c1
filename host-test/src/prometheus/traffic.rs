//! Counters whose truth is a formula, in event time of the past.
//!
//! In: when it begins. Out: exports in order of time, and for every metric and route how much there was between any two times. Why formulas: a rate
//! that is known at every instant judges both the raw and the folded answer, where comparing the two would only say that they differ. Why the past:
//! forty minutes of traffic are sent in seconds. Deterministic: no random number, the same bytes for the same beginning.

use crate::shop::otlp::{CUMULATIVE, metric, number, sum, text};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use std::f64::consts::TAU;

/// A second.
pub const SECOND_NS: u64 = 1_000_000_000;
/// A minute.
pub const MINUTE_NS: u64 = 60 * SECOND_NS;
/// Export interval, as Prometheus scrapes and SDKs are often set.
pub const INTERVAL_NS: u64 = 15 * SECOND_NS;
/// How long counters count: six times the range of `rate[5m]`, and four periods of the sinusoid.
pub const ACTIVE_NS: u64 = 40 * MINUTE_NS;
/// How long everything stands still afterwards, so that the last windows close: more than a delay of a minute.
pub const TAIL_NS: u64 = 3 * MINUTE_NS;
/// When the step comes.
const STEP_AT_NS: u64 = 20 * MINUTE_NS;
/// Period of the sinusoid.
const PERIOD_NS: u64 = 10 * MINUTE_NS;
/// Pods that live from long before to the end.
const STEADY_PODS: u64 = 8;
/// Pods of each generation of the deploy.
const DEPLOYED_PODS: u64 = 4;
/// Routes, kept.
pub const ROUTES: [&str; 2] = ["/cart", "/pay"];
/// Browsers, dropped.
const AGENTS: [&str; 3] = ["firefox", "chrome", "curl"];

/// Integers with a step in the rate, from steady pods.
pub const REQUESTS: &str = "fold_requests";
/// Doubles whose rate is a sinusoid, from steady pods.
pub const CPU: &str = "fold_cpu";
/// Integers at a steady rate from pods that are born, die, crash and come back.
pub const ORDERS: &str = "fold_orders";
/// Integers at a steady rate that no rule names.
pub const PASSING: &str = "pass_requests";
/// The attribute of a pod's resource that tells it from others.
pub const POD: &str = "k8s.pod.name";
/// The attribute of a point that is dropped.
pub const AGENT: &str = "user_agent";

/// How fast a counter counts.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Steady,
    Step,
    Sinusoid,
}

impl Shape {
    /// What a rate of one a second has added up to after so long.
    fn integral(self, since_begin_ns: u64) -> f64 {
        let seconds = |ns: u64| ns as f64 / SECOND_NS as f64;
        let t = seconds(since_begin_ns);
        match self {
            Shape::Steady => t,
            // From then on half as fast again.
            Shape::Step => t + seconds(since_begin_ns.saturating_sub(STEP_AT_NS)) / 2.0,
            // Between 0.4 and 1.6 a second.
            Shape::Sinusoid => {
                let omega = TAU / seconds(PERIOD_NS);
                t + 0.6 * (1.0 - (omega * t).cos()) / omega
            }
        }
    }
}

/// One counter in one life of a pod.
#[derive(Clone, Debug)]
struct Counter {
    metric: &'static str,
    is_int: bool,
    route: &'static str,
    agent: &'static str,
    shape: Shape,
    rate: f64,
    /// Value at the beginning of the traffic, of those that live before it.
    initial: f64,
}

/// One life of a pod.
#[derive(Clone, Debug)]
struct Life {
    pod: String,
    born_ns: u64,
    /// Of exports within the interval.
    offset_ns: u64,
    /// The last export, or the crash.
    until_ns: u64,
    /// Whether it exports once more when it ends.
    is_graceful: bool,
    counters: Vec<Counter>,
}

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
    /// Traffic that begins so. Windows align with it when it is a multiple of their width.
    pub fn new(begin_ns: u64) -> Self {
        let mut lives = Vec::new();
        let end_ns = begin_ns + ACTIVE_NS + TAIL_NS;
        for pod in 0..STEADY_PODS {
            let mut counters = Vec::new();
            for (number, (route, agent)) in combinations().enumerate() {
                let rate = 3.0 + 0.7 * pod as f64 + 0.31 * number as f64;
                let of = |metric, is_int, shape, rate: f64, initial| Counter {
                    metric,
                    is_int,
                    route,
                    agent,
                    shape,
                    rate,
                    initial,
                };
                // Months old: read as increments these would be spikes.
                let initial = (4_000_000 + 1000 * pod) as f64;
                counters.push(of(REQUESTS, true, Shape::Step, rate, initial));
                counters.push(of(CPU, false, Shape::Sinusoid, rate / 7.0, initial / 3.0));
                counters.push(of(PASSING, true, Shape::Steady, rate, initial));
            }
            // Spread evenly, as many pods are: their mean age at any instant is half an interval.
            let offset_ns = (2 * pod + 1) * INTERVAL_NS / (2 * STEADY_PODS);
            let pod = format!("web-{pod}");
            let born_ns = begin_ns - 60 * MINUTE_NS;
            lives.push(Life { pod, born_ns, offset_ns, until_ns: end_ns, is_graceful: true, counters });
        }
        lives.extend(deploy(begin_ns, end_ns));
        Self { begin_ns, lives }
    }

    /// When counting ends.
    pub fn active_until_ns(&self) -> u64 {
        self.begin_ns + ACTIVE_NS
    }

    /// Every export in order of time.
    pub fn exports(&self) -> Vec<Export> {
        let of = |life: &Life| -> Vec<Export> {
            let export = |time_ns| Export { time_ns, request: self.request(life, time_ns) };
            self.times(life).into_iter().map(export).collect()
        };
        let mut exports: Vec<Export> = self.lives.iter().flat_map(of).collect();
        exports.sort_by_key(|export| export.time_ns);
        exports
    }

    /// What a folded metric must add up to: per life, its last exported value less what it came with.
    pub fn total(&self, metric: &str, route: &str) -> f64 {
        let mut total = 0.0;
        for life in &self.lives {
            let times = self.times(life);
            let (Some(first), Some(last)) = (times.first(), times.last()) else { continue };
            for counter in life.counters.iter().filter(|c| c.metric == metric && c.route == route) {
                let before =
                    if life.born_ns < self.begin_ns { self.value(life, counter, *first) } else { 0.0 };
                total += self.value(life, counter, *last) - before;
            }
        }
        total
    }

    /// What happened between two times, exported or not, as a real number.
    pub fn truth(&self, metric: &str, route: &str, from_ns: u64, to_ns: u64) -> f64 {
        let mut total = 0.0;
        for life in &self.lives {
            let (from_ns, to_ns) = (from_ns.max(life.born_ns), to_ns.min(life.until_ns));
            if from_ns >= to_ns {
                continue;
            }
            for counter in life.counters.iter().filter(|c| c.metric == metric && c.route == route) {
                total += self.counted(life, counter, to_ns) - self.counted(life, counter, from_ns);
            }
        }
        total
    }

    fn times(&self, life: &Life) -> Vec<u64> {
        let grid = (0..).map(|k| self.begin_ns + life.offset_ns + k * INTERVAL_NS);
        let mut times: Vec<u64> =
            grid.skip_while(|t| *t <= life.born_ns).take_while(|t| *t < life.until_ns).collect();
        if life.is_graceful {
            times.push(life.until_ns);
        }
        times
    }

    /// What a counter has counted in this life since it was born, or since the traffic began.
    fn counted(&self, life: &Life, counter: &Counter, time_ns: u64) -> f64 {
        let since_begin = |ns: u64| ns.clamp(self.begin_ns, self.active_until_ns()) - self.begin_ns;
        let at = |ns| counter.rate * counter.shape.integral(since_begin(ns));
        at(time_ns) - at(life.born_ns)
    }

    fn value(&self, life: &Life, counter: &Counter, time_ns: u64) -> f64 {
        let value = counter.initial + self.counted(life, counter, time_ns);
        if counter.is_int { value.floor() } else { value }
    }

    fn request(&self, life: &Life, time_ns: u64) -> ExportMetricsServiceRequest {
        let mut metrics: Vec<Metric> = Vec::new();
        for name in [REQUESTS, CPU, ORDERS, PASSING] {
            let points: Vec<_> = life
                .counters
                .iter()
                .filter(|counter| counter.metric == name)
                .map(|counter| {
                    let value = self.value(life, counter, time_ns);
                    let value =
                        if counter.is_int { Value::AsInt(value as i64) } else { Value::AsDouble(value) };
                    let labels = vec![text("route", counter.route), text(AGENT, counter.agent)];
                    number(labels, life.born_ns, time_ns, value)
                })
                .collect();
            if !points.is_empty() {
                let unit = if name == CPU { "s" } else { "" };
                metrics.push(metric(name, unit, sum(points, CUMULATIVE, true)));
            }
        }
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

fn combinations() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.into_iter().flat_map(|route| AGENTS.into_iter().map(move |agent| (route, agent)))
}

/// A rolling deploy in the middle, a pod that crashes and comes back under its name, and one that lives for 40 seconds.
fn deploy(begin_ns: u64, end_ns: u64) -> Vec<Life> {
    let old_ns = begin_ns - 60 * MINUTE_NS;
    let at = |seconds: u64| begin_ns + seconds * SECOND_NS;
    let mut lives = Vec::new();
    for pod in 0..DEPLOYED_PODS {
        let change_ns = at(15 * 60 + 47 * pod + 3);
        lives.push((format!("orders-old-{pod}"), old_ns, change_ns, true));
        lives.push((format!("orders-new-{pod}"), change_ns, end_ns, true));
    }
    lives.push(("orders-crash".to_owned(), old_ns, at(25 * 60 + 11), false));
    lives.push(("orders-crash".to_owned(), at(25 * 60 + 31), end_ns, true));
    lives.push(("orders-short".to_owned(), at(30 * 60 + 2), at(30 * 60 + 42), true));
    let life = |(number, (pod, born_ns, until_ns, is_graceful)): (usize, (String, u64, u64, bool))| {
        let initial = if born_ns < begin_ns { 1000.0 } else { 0.0 };
        let counter = |(route, agent)| {
            let rate = 2.0 + 0.3 * number as f64;
            Counter { metric: ORDERS, is_int: true, route, agent, shape: Shape::Steady, rate, initial }
        };
        let counters = combinations().map(counter).collect();
        let offset_ns = 700_000_000 + (number as u64 * 1_300_000_000) % INTERVAL_NS;
        Life { pod, born_ns, offset_ns, until_ns, is_graceful, counters }
    };
    lives.into_iter().enumerate().map(life).collect()
}
