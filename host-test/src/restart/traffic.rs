//! Counters whose truth is known: pods that export cumulative sums, and a journal of every point that a gateway took.
//!
//! In: where to send, and what shall happen (births, counter resets, an end). Out: [`Stream`]s with the points that were accepted, by whom and when. Values are
//! formulas of time, so that a counter grows in proportion to time whatever the machine does, and how much it grew in any span can be said. Pods export
//! one after the other as SDKs do; half of them send a failed export again until it is taken, the other half drop it and go on with the next.

use super::exporter::{Answer, Exporter};
use crate::shop::otlp::{CUMULATIVE, metric, number, sum, text};
use crate::shop::run::unix_ns;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep};

/// A second.
pub const SECOND_NS: u64 = 1_000_000_000;
/// How often a pod exports.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// How long before the run old pods have started: their values are months of counting in a rate's terms, and a spike if they were counted from zero.
const OLD_NS: u64 = 3_600 * SECOND_NS;
/// Pause before a failed export is sent again: SDKs wait longer, a test has less time.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The resource attribute that is dropped.
pub const POD: &str = "k8s.pod.name";
/// The point attribute that is dropped.
pub const AGENT: &str = "user_agent";
/// The routes, kept.
pub const ROUTES: [&str; 2] = ["/cart", "/pay"];
const AGENTS: [&str; 2] = ["curl", "firefox"];

/// A metric of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// As Prometheus names it.
    pub stored: &'static str,
    unit: &'static str,
    /// Doubles, or integers.
    pub is_double: bool,
}

/// Integers that are folded.
pub const REQUESTS: Kind =
    Kind { name: "fold_requests", stored: "fold_requests_total", unit: "1", is_double: false };
/// Doubles that are folded.
pub const CPU: Kind = Kind { name: "fold_cpu", stored: "fold_cpu_seconds_total", unit: "s", is_double: true };
/// Integers that pass.
pub const PASSING: Kind =
    Kind { name: "pass_requests", stored: "pass_requests_total", unit: "1", is_double: false };
/// All of them.
pub const KINDS: [Kind; 3] = [REQUESTS, CPU, PASSING];

/// One counter of one pod: what it says at any time.
#[derive(Clone, Debug)]
struct Counter {
    kind: Kind,
    route: &'static str,
    agent: &'static str,
    /// Increments in a second.
    rate: f64,
}

impl Counter {
    /// The value `age_ns` after the counter's start.
    fn value(&self, age_ns: u64) -> f64 {
        let value = self.rate * (age_ns as f64 / SECOND_NS as f64);
        if self.kind.is_double { value } else { value.floor() }
    }
}

/// A point that a gateway took.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Start of the counter.
    pub start_ns: u64,
    /// Timestamp.
    pub time_ns: u64,
    /// The counter's value; integers below 2⁵³ are exact.
    pub value: f64,
    /// Which gateway took it.
    pub gateway: usize,
    /// When its answer was here.
    pub acknowledged_ns: u64,
}

/// One stream and the points of it that were taken, in order.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its metric.
    pub kind: Kind,
    /// Its pod.
    pub pod: String,
    /// Its route.
    pub route: &'static str,
    /// Its browser.
    pub agent: &'static str,
    /// The points.
    pub points: Vec<Point>,
}

/// An export that was taken: a point of each counter of its pod.
#[derive(Clone, Copy, Debug)]
struct Taken {
    start_ns: u64,
    time_ns: u64,
    gateway: usize,
    acknowledged_ns: u64,
}

/// Attempts by fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Taken.
    pub accepted: u64,
    /// Answered with another status than 200.
    pub refused: u64,
    /// Nobody there.
    pub not_sent: u64,
    /// Sent, no answer.
    pub unanswered: u64,
}

#[derive(Debug)]
struct Pod {
    name: String,
    counters: Vec<Counter>,
    /// Start of its counters; moves with a reset.
    start_ns: AtomicU64,
    /// A failed export is sent again; else it is dropped.
    retries: bool,
    taken: Mutex<Vec<Taken>>,
}

/// Pods at work.
pub struct Traffic {
    addresses: Vec<SocketAddr>,
    pods: Vec<Arc<Pod>>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    fates: Arc<Mutex<Fates>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traffic {
    /// So many pods that started long ago begin to export.
    pub fn open(addresses: Vec<SocketAddr>, old_pods: usize) -> Traffic {
        let mut traffic = Traffic {
            addresses,
            pods: Vec::new(),
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
            fates: Arc::default(),
        };
        for number in 0..old_pods {
            // Their exports are spread over the interval, as pods' are.
            let offset = INTERVAL * number as u32 / old_pods as u32;
            traffic.add(format!("old-{number}"), unix_ns() - OLD_NS, 1.0, offset);
        }
        traffic
    }

    /// A pod starts now; returns its number. It counts a tenth as fast as an old one, so that a rate hardly moves.
    pub fn birth(&mut self, name: &str) -> usize {
        self.add(name.to_owned(), unix_ns(), 0.1, INTERVAL / 2)
    }

    /// The counters of a pod begin again at zero, now. What it counted since its last export is lost with it, as in a crash.
    pub fn reset(&self, pod: usize) {
        self.pods[pod].start_ns.store(unix_ns(), Ordering::SeqCst);
    }

    fn add(&mut self, name: String, start_ns: u64, pace: f64, offset: Duration) -> usize {
        let number = self.pods.len();
        let mut counters = Vec::new();
        for (place, (route, agent)) in
            ROUTES.iter().flat_map(|route| AGENTS.map(|agent| (*route, agent))).enumerate()
        {
            // No two alike, so that none can stand for another; hundreds a second, so that rounding to integers is small.
            let rate = pace * (400.0 + 37.0 * number as f64 + 11.0 * place as f64);
            for kind in KINDS {
                let rate = if kind.is_double { rate / 700.0 } else { rate };
                counters.push(Counter { kind, route, agent, rate });
            }
        }
        let pod = Arc::new(Pod {
            name,
            counters,
            start_ns: AtomicU64::new(start_ns),
            retries: number.is_multiple_of(2),
            taken: Mutex::default(),
        });
        self.pods.push(pod.clone());
        let exporter = Exporter::new(self.addresses.clone());
        self.tasks.spawn(pod.run(exporter, offset, self.stop.subscribe(), self.fates.clone()));
        number
    }

    /// No pod begins another attempt, and all have ended. What was sent had its answer.
    pub async fn stop(&mut self) {
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Attempts so far.
    pub fn fates(&self) -> Fates {
        *lock(&self.fates)
    }

    /// How many exports of a pod a gateway has taken.
    pub fn taken(&self, pod: usize, gateway: usize) -> usize {
        lock(&self.pods[pod].taken).iter().filter(|t| t.gateway == gateway).count()
    }

    /// How many exports of a pod's present counters, those since the last reset, a gateway has taken.
    pub fn taken_since_reset(&self, pod: usize, gateway: usize) -> usize {
        let start_ns = self.pods[pod].start_ns.load(Ordering::SeqCst);
        lock(&self.pods[pod].taken).iter().filter(|t| t.gateway == gateway && t.start_ns == start_ns).count()
    }

    /// Number of pods.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Until when every pod was heard of.
    pub fn heard_until_ns(&self) -> u64 {
        let last = |pod: &Arc<Pod>| lock(&pod.taken).last().map(|t| t.time_ns);
        self.pods.iter().filter_map(last).min().unwrap_or(0)
    }

    /// When a gateway's first answer was here.
    pub fn first_answer_ns(&self, gateway: usize) -> Option<u64> {
        let first = |pod: &Arc<Pod>| {
            lock(&pod.taken).iter().filter(|t| t.gateway == gateway).map(|t| t.acknowledged_ns).min()
        };
        self.pods.iter().filter_map(first).min()
    }

    /// Every stream with what was taken of it so far.
    pub fn streams(&self) -> Vec<Stream> {
        let mut streams = Vec::new();
        for pod in &self.pods {
            let taken = lock(&pod.taken).clone();
            for counter in &pod.counters {
                let point = |t: &Taken| Point {
                    start_ns: t.start_ns,
                    time_ns: t.time_ns,
                    value: counter.value(t.time_ns - t.start_ns),
                    gateway: t.gateway,
                    acknowledged_ns: t.acknowledged_ns,
                };
                streams.push(Stream {
                    kind: counter.kind,
                    pod: pod.name.clone(),
                    route: counter.route,
                    agent: counter.agent,
                    points: taken.iter().map(point).collect(),
                });
            }
        }
        streams
    }
}

impl Pod {
    async fn run(
        self: Arc<Self>,
        mut exporter: Exporter,
        offset: Duration,
        mut stop: watch::Receiver<bool>,
        fates: Arc<Mutex<Fates>>,
    ) {
        let mut ticks = interval_at(tokio::time::Instant::now() + offset, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.changed() => return,
            }
            let (start_ns, time_ns) = (self.start_ns.load(Ordering::SeqCst), unix_ns());
            let body = self.request(start_ns, time_ns);
            while !*stop.borrow() {
                let answer = exporter.attempt(&body).await;
                count(&mut lock(&fates), answer);
                if let Answer::Accepted(gateway) = answer {
                    let acknowledged_ns = unix_ns();
                    lock(&self.taken).push(Taken { start_ns, time_ns, gateway, acknowledged_ns });
                    break;
                }
                if !self.retries {
                    break;
                }
                sleep(RETRY_AFTER).await;
            }
        }
    }

    fn request(&self, start_ns: u64, time_ns: u64) -> Bytes {
        let metrics: Vec<Metric> = KINDS
            .iter()
            .map(|kind| {
                let of_kind = self.counters.iter().filter(|counter| counter.kind == *kind);
                let points = of_kind.map(|counter| {
                    let value = counter.value(time_ns - start_ns);
                    let value =
                        if kind.is_double { Value::AsDouble(value) } else { Value::AsInt(value as i64) };
                    let labels = vec![text("route", counter.route), text(AGENT, counter.agent)];
                    number(labels, start_ns, time_ns, value)
                });
                metric(kind.name, kind.unit, sum(points.collect(), CUMULATIVE, true))
            })
            .collect();
        let attributes = vec![text("service.name", "shop"), text(POD, &self.name)];
        let resource = Some(Resource { attributes, ..Resource::default() });
        let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
        let resource_metrics =
            vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
        ExportMetricsServiceRequest { resource_metrics }.encode_to_vec().into()
    }
}

fn count(fates: &mut Fates, answer: Answer) {
    *match answer {
        Answer::Accepted(_) => &mut fates.accepted,
        Answer::Refused(_) => &mut fates.refused,
        Answer::NotSent => &mut fates.not_sent,
        Answer::Unanswered => &mut fates.unanswered,
    } += 1;
}
