//! Reports as a large fleet sends them, without the fleet.
//!
//! In: how many metrics, an embedder, a worker, a round. Out: the bytes that the module would write for it: `phoenix_filter::report::encode`, which decides what of a
//! thousand metrics with ten labels fits 256 KiB. Sketches hold hashes that follow from what a stream is, so that embedders agree where their streams do: a series
//! that is left without its pod is the same everywhere, one without its route is not, and routes have the same values everywhere. The same arguments are the same bytes.

use phoenix_filter::report::{self, Metric, Sketch, Tenant, encode};
use phoenix_filter::sketch::{DENSE_FROM, Distinct, STANDARD_ERROR, golden_hash};
use phoenix_filter::units::UnixNanos;

/// When a first round may be, where no clock runs: 2026-01-01T00:00:00Z.
pub const EPOCH_NS: u64 = 1_767_225_600 * S;
const S: u64 = 1_000_000_000;
/// How long all processes have been running by then.
const AGE_NS: u64 = 86_400 * S;
/// Between two rounds, and two decisions: the policy's default.
pub const INTERVAL_NS: u64 = 30 * S;
/// Streams that an embedder has of its heaviest metric.
const HEAVIEST: f64 = 2_000.0;
/// How fast metrics get lighter with their rank: the last of a thousand has sixteen streams, and all together have some fifty thousand.
const FALLS: f64 = 0.7;
/// Sliding period of the estimates, in milliseconds.
const PERIOD_MS: u64 = 1_800_000;
/// Ids of an overlap sample, as many as the module takes.
const SAMPLE: u64 = 512;

/// A label of every metric.
struct Kind {
    key: &'static str,
    is_resource: bool,
    /// Distinct values in an embedder: at most, and as a part of the streams.
    values: (f64, f64),
    /// Part of the streams that is left without it.
    left: f64,
    /// Values, and what is left without it, are the same in all embedders.
    is_shared: (bool, bool),
}

const fn kind(key: &'static str, values: (f64, f64), left: f64, is_shared: (bool, bool)) -> Kind {
    Kind { key, is_resource: false, values, left, is_shared }
}

const fn resource(key: &'static str, values: (f64, f64), left: f64, is_shared: (bool, bool)) -> Kind {
    Kind { is_resource: true, ..kind(key, values, left, is_shared) }
}

/// Ten labels: of the resource four, of the points six. The last makes every tenth metric large.
const LABELS: [Kind; 10] = [
    resource("service.name", (3.0, 1.0), 1.0, (true, false)),
    resource("k8s.pod.name", (8.0, 1.0), 0.125, (false, true)),
    resource("cloud.availability_zone", (3.0, 1.0), 1.0, (true, false)),
    resource("service.version", (2.0, 1.0), 1.0, (true, false)),
    kind("http.route", (40.0, 0.5), 0.2, (true, false)),
    kind("http.request.method", (4.0, 0.5), 0.6, (true, false)),
    kind("http.response.status_code", (7.0, 0.5), 0.5, (true, false)),
    kind("client.class", (12.0, 0.5), 0.4, (true, false)),
    kind("peer.service", (9.0, 0.5), 0.7, (true, false)),
    kind("user.id", (1e9, 0.5), 0.1, (false, false)),
];
/// In the place of the last in metrics without users.
const SHARD: Kind = kind("queue.shard", (16.0, 0.5), 0.3, (true, false));

/// The fleet's size.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Embedder processes.
    pub embedders: usize,
    /// Workers of each; their streams differ.
    pub workers: u64,
    /// Metrics, dealt out to ten tenants.
    pub metrics: usize,
    /// Fingerprint of the hash key of all plans.
    pub key: u64,
    /// When the first round is, in Unix nanoseconds.
    pub began_ns: u64,
}

/// Tenants.
pub const TENANTS: usize = 10;

/// Distinct things: so many hashes from a seed on. Written only where there is room, as in the module.
struct Hashes {
    seed: u64,
    many: u64,
}

impl Hashes {
    fn sketch(&self) -> Distinct {
        let mut sketch = Distinct::new();
        (0..self.many).for_each(|at| _ = sketch.insert(golden_hash(self.seed.wrapping_add(at))));
        sketch
    }

    /// As a sketch would estimate it, about: it is not made for a number.
    fn estimate(&self) -> f64 {
        if self.many < DENSE_FROM as u64 {
            return self.many as f64;
        }
        let chance = (golden_hash(self.seed ^ 0x55) >> 11) as f64 / (1_u64 << 53) as f64;
        self.many as f64 * (1.0 + STANDARD_ERROR * (2.0 * chance - 1.0))
    }
}

impl Sketch for Hashes {
    fn encode(&self, out: &mut Vec<u8>) {
        self.sketch().encode(out);
    }
}

/// A metric before it is borrowed.
struct Made {
    name: String,
    streams: Hashes,
    /// For each label: its values, and what is left without it.
    labels: Vec<(&'static Kind, Hashes, Hashes)>,
}

/// Mixes numbers into a place far from all others.
fn seed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |seed, part| golden_hash(seed ^ golden_hash(*part)))
}

impl Fleet {
    /// The name of a process.
    pub fn name(&self, embedder: usize) -> String {
        format!("gateway-{embedder:04}@{}", (self.began_ns - AGE_NS) / S)
    }

    /// Streams that all embedders together have of a tenant, about.
    pub fn streams_of(&self, tenant: usize) -> f64 {
        let of = (0..self.metrics).filter(|rank| rank % TENANTS == tenant);
        of.map(streams).sum::<f64>() * self.embedders as f64
    }

    /// Now, in a round.
    pub fn now_ns(&self, round: u64) -> u64 {
        self.began_ns + round * INTERVAL_NS
    }

    /// The report of a worker, made at a time. In each round some streams are new.
    pub fn report(
        &self,
        embedder: usize,
        worker: u64,
        round: u64,
        time_ns: u64,
        plan_version: u64,
    ) -> Vec<u8> {
        let name = self.name(embedder);
        let made: Vec<Made> =
            (0..self.metrics).map(|rank| self.metric(rank, embedder as u64, worker, round)).collect();
        let tenants = (0..TENANTS.min(self.metrics)).map(|tenant| {
            let of = || made.iter().skip(tenant).step_by(TENANTS);
            let all = Hashes {
                seed: seed(&[1, tenant as u64, embedder as u64, worker]),
                many: of().map(|it| it.streams.many).sum(),
            };
            (format!("team-{tenant}"), all, of().collect::<Vec<&Made>>())
        });
        let tenants: Vec<(String, Hashes, Vec<&Made>)> = tenants.collect();
        let borrowed = tenants.iter().map(|(name, all, metrics)| Tenant {
            name: name.as_bytes(),
            active: Some(all),
            active_estimate: all.estimate(),
            growth: all.many as f64 * 0.02,
            admitted: all.many,
            metrics: metrics.iter().map(|it| of_metric(it)).collect(),
            ..Tenant::default()
        });
        let mut sample: Vec<u64> =
            (0..SAMPLE).map(|at| golden_hash(seed(&[2, embedder as u64, worker]) + at) >> 8).collect();
        sample.sort_unstable();
        let sum = |name: &'static str, per: f64| (name, per * made.len() as f64 * (round + 1) as f64);
        let counts =
            [sum("points", 6_000.0), sum("recorded", 0.0), sum("batches", 3.0), sum("identified", 6_000.0)];
        encode(&report::Report {
            process: name.as_bytes(),
            worker,
            sequence: round + 1,
            time: UnixNanos(time_ns),
            start_time: UnixNanos(self.began_ns - AGE_NS),
            plan_version,
            key: self.key,
            period_ms: PERIOD_MS,
            generation: time_ns / 1_000_000 / (PERIOD_MS / 3),
            counts: &counts,
            tenants: borrowed.collect(),
            overlap_sample: &sample,
            truncated_metrics: 0,
        })
    }

    fn metric(&self, rank: usize, embedder: u64, worker: u64, round: u64) -> Made {
        let metric = rank as u64;
        let many = (streams(rank) / self.workers as f64).round().max(1.0);
        let (whose, fleet) = (seed(&[metric, embedder, worker]), seed(&[metric]));
        let last = if rank.is_multiple_of(10) { &LABELS[9] } else { &SHARD };
        let labels = LABELS[..9].iter().chain([last]).enumerate().map(|(at, kind)| {
            let of = |is_shared: bool, what: u64, many: f64| Hashes {
                seed: seed(&[if is_shared { fleet } else { whose }, at as u64, what]),
                many: many.round().max(1.0) as u64,
            };
            let values = of(kind.is_shared.0, 3, (many * kind.values.1).min(kind.values.0));
            (kind, values, of(kind.is_shared.1, 4, many * kind.left))
        });
        // One stream in fifty is another in each round: the window of hashes moves on.
        let moved = round * (many as u64 / 50);
        Made {
            name: format!("{}.service.operation.{rank:04}", ["http", "rpc", "db", "queue"][rank % 4]),
            streams: Hashes { seed: whose.wrapping_add(moved), many: many as u64 },
            labels: labels.collect(),
        }
    }
}

/// Streams that an embedder has of the metric of this rank.
fn streams(rank: usize) -> f64 {
    HEAVIEST / (rank as f64 + 1.0).powf(FALLS)
}

fn of_metric(it: &Made) -> Metric<'_> {
    let labels = it.labels.iter().map(|(kind, values, without)| report::Label {
        key: kind.key.as_bytes(),
        is_resource: kind.is_resource,
        values: Some(values),
        without: Some(without),
        values_estimate: values.estimate(),
        without_estimate: without.estimate(),
        examples: EXAMPLES[..(values.many as usize).min(EXAMPLES.len())]
            .iter()
            .enumerate()
            .map(|(at, value)| report::Example {
                value: value.as_bytes(),
                weight: (it.streams.many / (at as u64 + 2)) as f64,
                error: 1.0,
            })
            .collect(),
        is_protected: false,
    });
    Metric {
        name: it.name.as_bytes(),
        kind: "counter",
        admitted: it.streams.many,
        active: Some(&it.streams),
        active_estimate: it.streams.estimate(),
        growth: it.streams.many as f64 * 0.02,
        labels: labels.collect(),
        points: it.streams.many * 120,
        ..Metric::default()
    }
}

/// Values that brought streams.
const EXAMPLES: [&str; 4] = [
    "/api/v2/customers/{customer}/orders",
    "checkout-7d9c5b7f4-x2x9k",
    "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "POST /internal/reconcile",
];
