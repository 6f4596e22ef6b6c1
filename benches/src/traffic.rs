//! The traffic: streams that come again, and new ones.
//!
//! In: a number of streams, an order, a seed. Out: OTLP bodies of about 1 MB, each with [`POINTS`] points of cumulative monotonic sums with 7
//! attributes, about 236 bytes a point with everything around it. A pass takes every stream once: in the same order each
//! time, or in another one. A tenth of the points of every pass but the first belong to streams that were never seen, if the order is not
//! [`Order::Steady`].
//!
//! ```text
//! stream   = (resource, metric, user)         11 resources × 10 metrics × users
//! body     = all resources × all metrics × 40 users
//! a fold of `user.id` and the pod leaves      4 services × 10 metrics × 16 combinations of the other labels
//! ```
//!
//! Seven of the ten metrics begin with `shop.folded.`, so a rule for that prefix takes 70 % of the points. Half of the metrics
//! hold integers, half doubles. Written by hand, since a million points a second through message objects would be the bench.

use bytes::Bytes;
use phoenix_filter::units::UnixNanos;
use phoenix_filter::wire::put_varint;
use phoenix_host_test::shop::run::unix_ns;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Pods whose points meet in one body, as behind a collector.
const RESOURCES: usize = 11;
/// Metrics of each.
const METRICS: usize = 10;
/// Metrics whose name begins with [`FOLDED`].
const METRICS_FOLDED: usize = 7;
/// Points of each metric of each resource in a body.
const RUN: usize = 40;
/// Points in a body.
pub const POINTS: usize = RESOURCES * METRICS * RUN;
/// Prefix of the metrics that are folded; of [`PREFIX`] are all.
pub const FOLDED: &str = "shop.folded.";
/// Prefix of all metrics.
pub const PREFIX: &str = "shop.";
/// Points of known streams, in percent.
const KNOWN_PERCENT: u32 = 90;
/// Between two passes: an export interval.
pub const INTERVAL_NS: u64 = 15_000_000_000;
/// The same as a plan says it.
pub const WINDOW: &str = "15s";
/// When all streams but the new ones began.
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;
/// The users of new streams are above this one, those of the first pass far below.
const FRESH: u64 = 1 << 40;
/// Fixed key, so that runs compare.
const HASH_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// In which order streams come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The same in each pass, and no stream is new after the first.
    Steady,
    /// The same in each pass.
    Repeating,
    /// Another one in each pass.
    Shuffled,
}

impl Order {
    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Order::Steady => "steady",
            Order::Repeating => "repeating",
            Order::Shuffled => "shuffled",
        }
    }
}

/// Makes bodies.
pub struct Traffic {
    order: Order,
    users: Vec<u64>,
    /// Index of the next user in the pass.
    next: usize,
    passes: u64,
    fresh: u64,
    known_percent: u32,
    random: ChaCha8Rng,
}

impl Traffic {
    /// About `streams` streams: a whole number of bodies, at least one.
    pub fn new(streams: usize, order: Order, seed: u64) -> Traffic {
        let bodies = ((streams + POINTS / 2) / POINTS).max(1);
        let users: Vec<u64> = (0..(bodies * RUN) as u64).collect();
        let random = ChaCha8Rng::seed_from_u64(seed);
        let known_percent = if order == Order::Steady { 100 } else { KNOWN_PERCENT };
        Traffic { order, fresh: FRESH, known_percent, users, next: 0, passes: 0, random }
    }

    /// The same, but that no stream ever comes again: each pass is of new ones.
    pub fn churning(streams: usize) -> Traffic {
        Traffic { known_percent: 0, ..Traffic::new(streams, Order::Repeating, 1) }
    }

    /// Streams of the first pass.
    pub fn streams(&self) -> usize {
        self.users.len() * RESOURCES * METRICS
    }

    /// Bodies of a pass.
    pub fn bodies(&self) -> usize {
        self.users.len() / RUN
    }

    /// Streams that were new after the first pass so far.
    pub fn fresh(&self) -> usize {
        usize::try_from(self.fresh - FRESH).unwrap_or(usize::MAX)
    }

    /// The time of the current pass when an interval passes with each.
    pub fn now(&self) -> UnixNanos {
        UnixNanos(EPOCH_NS + (240 + self.passes) * INTERVAL_NS)
    }

    /// The next bodies, their points at the time of the wall clock.
    pub fn bodies_now(&mut self, count: usize) -> Vec<Bytes> {
        let body = |_| {
            let mut body = Vec::new();
            self.body(UnixNanos(unix_ns()), &mut body);
            body.into()
        };
        (0..count).map(body).collect()
    }

    /// Appends the next body of the current pass to `out`, its points at `now`; goes on to the next pass after the last.
    pub fn body(&mut self, now: UnixNanos, out: &mut Vec<u8>) {
        for resource in 0..RESOURCES {
            nested(out, 1, |out| {
                nested(out, 1, |out| resource_attributes(resource, out));
                nested(out, 2, |out| {
                    nested(out, 1, |out| string(out, 1, "shop"));
                    for metric in 0..METRICS {
                        nested(out, 2, |out| self.metric(resource, metric, now, out));
                    }
                });
            });
        }
        self.next += RUN;
        if self.next >= self.users.len() {
            self.next = 0;
            self.passes += 1;
            if self.order == Order::Shuffled {
                self.users.shuffle(&mut self.random);
            }
        }
    }

    fn metric(&mut self, resource: usize, metric: usize, now: UnixNanos, out: &mut Vec<u8>) {
        let prefix = if metric < METRICS_FOLDED { FOLDED } else { "shop.kept." };
        string(out, 1, &format!("{prefix}requests_{metric}"));
        string(out, 3, "{request}");
        nested(out, 7, |out| {
            // Each metric of each resource walks the users from elsewhere, so that a shuffled pass is shuffled for each.
            let offset = (resource * METRICS + metric) * RUN;
            for run in 0..RUN {
                let at = (self.next + run + offset) % self.users.len();
                let known = self.passes == 0 || self.random.random_range(0..100) < self.known_percent;
                let user = self.users.get(at).copied().unwrap_or_default();
                if known {
                    point(user, EPOCH_NS, metric % 2 == 1, now, out);
                } else {
                    self.fresh += 1;
                    // Other labels as those of the user who stayed away, so that the number of series does not depend on the churn.
                    let user = (self.fresh << 4) | (user & 15);
                    point(user, now.0 - INTERVAL_NS / 2, metric % 2 == 1, now, out);
                }
            }
            out.extend([0x10, 2, 0x18, 1]); // cumulative, monotonic
        });
    }
}

fn resource_attributes(resource: usize, out: &mut Vec<u8>) {
    let service = ["cart", "checkout", "catalogue", "payments"][resource % 4];
    attribute(out, 1, "service.name", service);
    attribute(out, 1, "service.namespace", "shop");
    attribute(out, 1, "deployment.environment.name", "production");
    attribute(out, 1, "k8s.pod.name", &format!("{service}-7c9d6b5f48-{resource:05}"));
    attribute(out, 1, "service.instance.id", &format!("6f1c1d5e-8a34-4a57-9d0b-{resource:012x}"));
}

/// One `NumberDataPoint`: seven attributes, sixteen combinations of the first six.
fn point(user: u64, start_ns: u64, double: bool, now: UnixNanos, out: &mut Vec<u8>) {
    let pick = |from: &[&'static str; 4], shift: u32| from[(user >> shift & 3) as usize];
    nested(out, 1, |out| {
        fixed(out, 0x11, start_ns);
        fixed(out, 0x19, now.0);
        let total = now.0.saturating_sub(start_ns) / 100_000_000 + (user & 15);
        if double {
            fixed(out, 0x21, (total as f64 * 0.25).to_bits())
        } else {
            fixed(out, 0x31, total)
        }
        attribute(out, 7, "http.request.method", pick(&["GET", "POST", "PUT", "GET"], 0));
        attribute(out, 7, "http.route", pick(&["/", "/cart/{item}", "/checkout", "/product/{id}"], 2));
        attribute(out, 7, "http.response.status_code", pick(&["200", "204", "404", "503"], 0));
        attribute(out, 7, "cloud.region", pick(&["eu-west-1", "us-east-2", "ap-east-1", "eu-north-1"], 2));
        attribute(out, 7, "url.scheme", "https");
        attribute(out, 7, "browser.name", pick(&["firefox", "chrome", "safari", "other"], 0));
        attribute(out, 7, "user.id", &format!("{user:018x}"));
    });
}

fn attribute(out: &mut Vec<u8>, field: u8, key: &str, value: &str) {
    nested(out, field, |out| {
        string(out, 1, key);
        nested(out, 2, |out| string(out, 1, value));
    });
}

fn fixed(out: &mut Vec<u8>, tag: u8, value: u64) {
    out.push(tag);
    out.extend(value.to_le_bytes());
}

fn string(out: &mut Vec<u8>, field: u8, text: &str) {
    out.push(field << 3 | 2);
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A length-delimited field: room for a length of one byte, which nearly all have; longer ones move what was written.
fn nested(out: &mut Vec<u8>, field: u8, inside: impl FnOnce(&mut Vec<u8>)) {
    out.push(field << 3 | 2);
    let at = out.len();
    out.push(0);
    inside(out);
    let length = out.len() - at - 1;
    match u8::try_from(length) {
        Ok(short @ ..=0x7f) => out[at] = short,
        _ => {
            let mut long = Vec::new();
            put_varint(&mut long, length as u64);
            out.splice(at..=at, long);
        }
    }
}

/// What a plan does with the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Every point passes.
    Pass,
    /// Seven tenths of the points fold.
    Fold70,
    /// Every point folds.
    FoldAll,
    /// Every point passes and is measured, in a generation that lasts.
    Measure,
    /// The same with a generation that is over before a stream comes again: each point is its stream's first.
    MeasureFirst,
    /// Every point passes, measured, and admitted by a budget that holds.
    Budget,
}

/// The plan for a treatment. `window` is also the delay: [`WINDOW`] where the clock is
/// ours. Tables have room for every stream of the longest run.
pub fn plan(treatment: Treatment, window: &str) -> serde_json::Value {
    let prefix = match treatment {
        Treatment::Pass | Treatment::Measure | Treatment::MeasureFirst | Treatment::Budget => None,
        Treatment::Fold70 => Some(FOLDED),
        Treatment::FoldAll => Some(PREFIX),
    };
    let fold = prefix.map(|prefix| {
        let drop = serde_json::json!({"resource": ["k8s.pod.name", "service.instance.id"], "attributes": ["user.id"]});
        serde_json::json!({
            "name": "requests by user and pod", "metric": {"prefix": prefix}, "pipeline": "optimized",
            "fold": {"labels": {"drop": drop}, "window": window, "delay": window}
        })
    });
    let rest = serde_json::json!({"name": "rest", "metric": {"glob": "*"}, "pipeline": "full_fidelity"});
    let mut plan = serde_json::json!({
        "schema": 1, "version": 1, "hash_key": HASH_KEY, "writer": "bench", "first_sample_margin": "0s",
        "limits": {"streams_max": 4_000_000},
        "rules": fold.into_iter().chain([rest]).collect::<Vec<_>>()
    });
    match treatment {
        Treatment::Pass | Treatment::Fold70 | Treatment::FoldAll => {}
        Treatment::Measure => plan["measure"] = serde_json::json!({"period": "24h"}),
        Treatment::MeasureFirst => plan["measure"] = serde_json::json!({"period": "15s"}),
        Treatment::Budget => {
            plan["measure"] = serde_json::json!({"period": "24h"});
            plan["limits"]["active_series_max"] = serde_json::json!(4_000_000);
            plan["budgets"] =
                serde_json::json!({"tenants": [{"active_series": 3_000_000, "priority": "high"}]});
            plan["rules"] = serde_json::json!([]);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use prost::Message as _;
    use std::collections::BTreeSet;

    /// Resource, metric and user of each point of a pass.
    fn pass(traffic: &mut Traffic) -> Vec<(String, String, String)> {
        let mut streams = Vec::new();
        for _ in 0..traffic.bodies() {
            let mut body = Vec::new();
            traffic.body(traffic.now(), &mut body);
            let request = ExportMetricsServiceRequest::decode(&body[..]).expect("OTLP");
            assert_eq!(request.encode_to_vec(), body, "written as prost writes it");
            for r in request.resource_metrics {
                let resource = format!("{:?}", r.resource);
                for m in r.scope_metrics.into_iter().flat_map(|s| s.metrics) {
                    let Some(Data::Sum(sum)) = m.data else { panic!("sums alone") };
                    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
                    for p in sum.data_points {
                        assert_eq!(p.attributes.len(), 7);
                        streams.push((resource.clone(), m.name.clone(), format!("{:?}", p.attributes)));
                    }
                }
            }
        }
        streams
    }

    #[test]
    fn bodies_are_as_described() {
        let mut traffic = Traffic::new(4 * POINTS, Order::Shuffled, 1);
        let mut body = Vec::new();
        traffic.body(traffic.now(), &mut body);
        let bytes_a_point = body.len() as f64 / POINTS as f64;
        assert!((232.0..240.0).contains(&bytes_a_point), "{bytes_a_point} bytes a point");
        assert!((1_000_000..1_100_000).contains(&body.len()), "{} bytes a body", body.len());
        assert_eq!((traffic.streams(), traffic.bodies()), (4 * POINTS, 4));
    }

    #[test]
    fn a_pass_takes_each_stream_once_and_a_tenth_is_new() {
        for order in [Order::Repeating, Order::Shuffled] {
            let mut traffic = Traffic::new(3 * POINTS, order, 7);
            let (first, second) = (pass(&mut traffic), pass(&mut traffic));
            let known: BTreeSet<_> = first.iter().collect();
            assert_eq!(known.len(), traffic.streams(), "{order:?}");
            let again = second.iter().filter(|s| known.contains(s)).count();
            assert_eq!(second.iter().collect::<BTreeSet<_>>().len(), traffic.streams());
            assert!(
                (0.88..0.92).contains(&(again as f64 / second.len() as f64)),
                "{again} of {}",
                second.len()
            );
            let in_place = first.iter().zip(&second).filter(|(a, b)| a == b).count();
            assert_eq!(in_place > POINTS, order == Order::Repeating, "{order:?}: {in_place}");
        }
    }

    #[test]
    fn plans_are_valid() {
        for treatment in [Treatment::Pass, Treatment::Fold70, Treatment::FoldAll] {
            phoenix_plan::Plan::parse(plan(treatment, WINDOW).to_string().as_bytes()).expect("valid");
        }
    }
}
