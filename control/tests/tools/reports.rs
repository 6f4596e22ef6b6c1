//! Reports of three workers of two gateways, with numbers that can be counted by hand.
//!
//! Team a sends `http.server.requests`, with a user's id that explodes, and `http.server.duration`; team b sends `db.queries`. Worker 0 and 1 of gateway a see
//! streams 0 to 59 and 40 to 99, gateway b sees streams 90 to 119 of the first metric. All are below 128, where a sketch is exact.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use phoenix_filter::sketch::{Distinct, golden_hash};
use phoenix_report::wire::{Count, Decision, Example, Label, Ledger, Metric, Report, Tenant};
use std::ops::Range;

/// A second.
const S: u64 = 1_000_000_000;
/// When they were made: 2026-01-01T00:00:00Z.
pub const T0: u64 = 1_767_225_600 * S;
/// What gateway a decided.
pub const SENTENCE: &str = "100 streams are over the share of 80: user.id is folded away, 3 series remain";

fn sketch(hashes: Range<u64>) -> (Vec<u8>, f64) {
    let (mut sketch, mut bytes) = (Distinct::new(), Vec::new());
    for hash in hashes {
        sketch.insert(golden_hash(hash));
    }
    sketch.encode(&mut bytes);
    (bytes, sketch.estimate())
}

fn label(key: &str, values: Range<u64>, without: Range<u64>, examples: &[(&str, f64)]) -> Label {
    let ((values, values_estimate), (without, without_estimate)) = (sketch(values), sketch(without));
    let examples = examples.iter().map(|(value, weight)| Example {
        value: (*value).to_owned(),
        weight: *weight,
        error: 1.0,
    });
    Label {
        key: key.to_owned(),
        values,
        without,
        values_estimate,
        without_estimate,
        examples: examples.collect(),
        ..Label::default()
    }
}

fn metric(name: &str, kind: &str, streams: Range<u64>) -> Metric {
    let (active, active_estimate) = sketch(streams);
    Metric {
        name: name.to_owned(),
        r#type: kind.to_owned(),
        active,
        active_estimate,
        points: 600,
        ..Metric::default()
    }
}

fn tenant(name: &str, metrics: Vec<Metric>) -> Tenant {
    let active_estimate = metrics.iter().map(|metric| metric.active_estimate).sum();
    Tenant { name: name.to_owned(), active_estimate, metrics, ..Tenant::default() }
}

fn report(process: &str, worker: u64, tenants: Vec<Tenant>) -> Report {
    Report {
        schema: 1,
        process: process.to_owned(),
        worker,
        sequence: 1,
        time_unix_nano: T0 + worker * S,
        start_time_unix_nano: T0 - 3_600 * S,
        plan_version: 7,
        key: 1,
        period_ms: 1_800_000,
        ledger: Some(Ledger { counts: vec![Count { name: "points".to_owned(), value: 600.0 }] }),
        tenants,
        ..Report::default()
    }
}

/// A worker of gateway a.
fn of_a(worker: u64, streams: Range<u64>) -> Report {
    let mut requests = metric("http.server.requests", "sum", streams);
    (requests.share, requests.admitted, requests.folded_series, requests.growth) = (80, 77, 3, 25.0);
    requests.labels = vec![
        label("user.id", 0..50, 200..203, &[("4711", 9.0), ("4712", 5.0)]),
        Label { is_protected: true, ..label("http.route", 300..310, 400..440, &[("/cart", 30.0)]) },
        Label { resource: true, ..label("k8s.pod.name", 500..502, 600..655, &[]) },
    ];
    requests.decisions = vec![Decision {
        time_unix_nano: T0 - 60 * S,
        what: "contained".to_owned(),
        labels: vec!["user.id".to_owned()],
        reason: SENTENCE.to_owned(),
        effective_unix_nano: T0 - 60 * S,
        admitted: 77,
        share: 80,
    }];
    let duration = metric("http.server.duration", "histogram", 1_000..1_010);
    let mut of_team = tenant("team-a", vec![requests, duration]);
    (of_team.share, of_team.reserved, of_team.admitted, of_team.folded_series) = (100, 10, 87, 3);
    report("gateway-a@1", worker, vec![of_team, tenant("team-b", vec![metric("db.queries", "gauge", 0..7)])])
}

/// All three.
pub fn all() -> Vec<Report> {
    let of_b = tenant("team-a", vec![metric("http.server.requests", "sum", 90..120)]);
    vec![of_a(0, 0..60), of_a(1, 40..100), report("gateway-b@1", 0, vec![of_b])]
}
