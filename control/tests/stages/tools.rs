//! Fleets whose truth is known: streams as labels in plain text, and the reports that embedders would make of them.

use phoenix_control::collect::{Collector, Settings};
use phoenix_control::policy::Policy;
use phoenix_filter::sketch::Distinct;
use phoenix_report::wire::{Label, Metric, Report, Tenant};
use prost::Message;
use siphasher::sip::SipHasher13;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;

pub const S: u64 = 1_000_000_000;
/// 2026-01-01T00:00:00Z.
pub const T0: u64 = 1_767_225_600 * S;

pub const KEY: &str = "8f2c1e5d90ab374466e1f0827bb3c95a17d4e86f2390bc51ae7d60f4895b12cd";

/// A policy with what these tests do not talk about.
pub fn policy(text: &str) -> Policy {
    let measure = "  measure: { period: 10m }\n  stream_expiry: 4m\n";
    let all = format!(
        "schema: 1\nplan:\n  hash_key: {KEY}\n{measure}change: {{ dwell: 6m, switch_lead: 2m }}\n{text}"
    );
    Policy::parse(&all).unwrap_or_else(|error| panic!("{error}\n{all}"))
}

/// A stream: its labels.
pub type Stream = BTreeMap<String, String>;

/// Streams by tenant, then by metric and type.
pub type Streams = BTreeMap<String, BTreeMap<(String, String), Vec<Stream>>>;

/// A stream of point attributes.
pub fn stream(labels: &[(&str, String)]) -> Stream {
    labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn hash(parts: &[&str]) -> u64 {
    let mut hasher = SipHasher13::new();
    for part in parts {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

fn text(stream: &Stream, but: Option<&str>) -> String {
    let pairs = stream.iter().filter(|(key, _)| but != Some(key));
    pairs.map(|(key, value)| format!("{key}={value};")).collect()
}

fn sketch(hashes: impl Iterator<Item = u64>) -> (Vec<u8>, f64) {
    let (mut sketch, mut bytes) = (Distinct::new(), Vec::new());
    hashes.for_each(|hash| {
        sketch.insert(hash);
    });
    sketch.encode(&mut bytes);
    let estimate = sketch.estimate();
    (bytes, estimate)
}

fn label(metric: &str, key: &str, streams: &[Stream]) -> Label {
    let values = streams.iter().filter_map(|it| Some(hash(&[key, it.get(key)?])));
    let (values, values_estimate) = sketch(values);
    let (without, without_estimate) = sketch(streams.iter().map(|it| hash(&[metric, &text(it, Some(key))])));
    Label { key: key.to_owned(), values, values_estimate, without, without_estimate, ..Label::default() }
}

/// The report of one worker that saw these streams.
pub fn report(
    process: &str,
    worker: u64,
    sequence: u64,
    time_ns: u64,
    policy: &Policy,
    streams: &Streams,
) -> Report {
    let tenants = streams.iter().map(|(tenant, metrics)| {
        let of = metrics.iter().map(|((name, kind), streams)| {
            let keys: BTreeSet<&String> = streams.iter().flat_map(|it| it.keys()).collect();
            let (active, active_estimate) = sketch(streams.iter().map(|it| hash(&[name, &text(it, None)])));
            Metric {
                name: name.clone(),
                r#type: kind.clone(),
                active,
                active_estimate,
                labels: keys.into_iter().map(|key| label(name, key, streams)).collect(),
                points: streams.len() as u64,
                ..Metric::default()
            }
        });
        let all = metrics
            .iter()
            .flat_map(|((name, _), streams)| streams.iter().map(move |it| hash(&[name, &text(it, None)])));
        let (active, active_estimate) = sketch(all);
        Tenant { name: tenant.clone(), metrics: of.collect(), active, active_estimate, ..Tenant::default() }
    });
    Report {
        schema: 1,
        process: process.to_owned(),
        worker,
        sequence,
        time_unix_nano: time_ns,
        start_time_unix_nano: T0 - 7_200 * S,
        plan_version: 1,
        key: Settings::of(policy).key,
        period_ms: 600_000,
        generation: time_ns / S / 200,
        tenants: tenants.collect(),
        ..Report::default()
    }
}

/// A collector that has taken these.
pub fn collected<'r>(
    policy: &Policy,
    reports: impl IntoIterator<Item = &'r Report>,
    now_ns: u64,
) -> Collector {
    let mut collector = Collector::new(Settings::of(policy));
    for report in reports {
        let _ = collector.take(&report.encode_to_vec(), now_ns);
    }
    collector
}
