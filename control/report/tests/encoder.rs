//! What the module writes, `prost` reads: every field where there is room, the rule of what is left out where there is none.

use phoenix_filter::limits::REPORT_BYTES_MAX;
use phoenix_filter::report::room::{DETAILED_METRICS, EXAMPLES_MAX, LABELS_WITH_EXAMPLES, encode_within};
use phoenix_filter::report::{self, encode};
use phoenix_filter::sketch::{Distinct, golden_hash};
use phoenix_filter::units::UnixNanos;
use phoenix_report::wire;
use proptest::prelude::*;
use prost::Message;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn decoded(bytes: &[u8]) -> wire::Report {
    wire::Report::decode(bytes).expect("prost reads it")
}

/// A report as the module has it, of one as prost has it.
fn borrowed(report: &wire::Report) -> (Vec<(&str, f64)>, Vec<report::Tenant<'_>>) {
    let counts = report.ledger.iter().flat_map(|ledger| &ledger.counts);
    let counts = counts.map(|count| (count.name.as_str(), count.value)).collect();
    (counts, report.tenants.iter().map(tenant).collect())
}

fn encoded(report: &wire::Report, bytes_max: usize) -> Vec<u8> {
    let (counts, tenants) = borrowed(report);
    encode_within(&head(report, &counts, tenants), bytes_max)
}

fn head<'a>(
    report: &'a wire::Report,
    counts: &'a [(&'a str, f64)],
    tenants: Vec<report::Tenant<'a>>,
) -> report::Report<'a> {
    report::Report {
        process: report.process.as_bytes(),
        worker: report.worker,
        sequence: report.sequence,
        time: UnixNanos(report.time_unix_nano),
        start_time: UnixNanos(report.start_time_unix_nano),
        plan_version: report.plan_version,
        key: report.key,
        period_ms: report.period_ms,
        generation: report.generation,
        counts,
        tenants,
        overlap_sample: &report.overlap_sample,
        truncated_metrics: report.truncated_metrics,
    }
}

fn tenant(tenant: &wire::Tenant) -> report::Tenant<'_> {
    report::Tenant {
        name: tenant.name.as_bytes(),
        share: tenant.share,
        reserved: tenant.reserved,
        admitted: tenant.admitted,
        folded_series: tenant.folded_series,
        active: sketch(&tenant.active),
        active_estimate: tenant.active_estimate,
        growth: tenant.growth,
        metrics: tenant.metrics.iter().map(metric).collect(),
    }
}

fn metric(metric: &wire::Metric) -> report::Metric<'_> {
    report::Metric {
        name: metric.name.as_bytes(),
        kind: &metric.r#type,
        share: metric.share,
        admitted: metric.admitted,
        folded_series: metric.folded_series,
        active: sketch(&metric.active),
        active_estimate: metric.active_estimate,
        growth: metric.growth,
        labels: metric.labels.iter().map(label).collect(),
        decisions: metric.decisions.iter().map(decision).collect(),
        points: metric.points,
    }
}

fn label(label: &wire::Label) -> report::Label<'_> {
    report::Label {
        key: label.key.as_bytes(),
        is_resource: label.resource,
        values: sketch(&label.values),
        without: sketch(&label.without),
        values_estimate: label.values_estimate,
        without_estimate: label.without_estimate,
        examples: label
            .examples
            .iter()
            .map(|one| report::Example { value: one.value.as_bytes(), weight: one.weight, error: one.error })
            .collect(),
        is_protected: label.is_protected,
    }
}

fn decision(decision: &wire::Decision) -> report::Decision<'_> {
    report::Decision {
        time: UnixNanos(decision.time_unix_nano),
        what: &decision.what,
        labels: decision.labels.iter().map(String::as_bytes).collect(),
        reason: &decision.reason,
        effective: UnixNanos(decision.effective_unix_nano),
        admitted: decision.admitted,
        share: decision.share,
    }
}

/// Bytes of a sketch as one; a `Vec` is only borrowed as long as the report is.
struct Bytes<'a>(&'a [u8]);

impl report::Sketch for Bytes<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

fn sketch(bytes: &[u8]) -> report::Sketched<'_> {
    // A test may leak what the module's tables would hold.
    (!bytes.is_empty()).then(|| &*Box::leak(Box::new(Bytes(bytes))) as &dyn report::Sketch)
}

/// A report of random shape, in the order that the format asks for: heaviest first, labels that help most first.
fn random(rng: &mut ChaCha8Rng) -> wire::Report {
    let text = |rng: &mut ChaCha8Rng, kind: &str| format!("{kind}-{:x}", rng.random::<u32>());
    let sketch = |rng: &mut ChaCha8Rng| {
        let mut bytes = Vec::new();
        if rng.random() {
            let mut sketch = Distinct::new();
            for _ in 0..rng.random_range(0..200) {
                sketch.insert(rng.random());
            }
            sketch.encode(&mut bytes);
        }
        bytes
    };
    let label = |rng: &mut ChaCha8Rng| wire::Label {
        key: text(rng, "label"),
        resource: rng.random(),
        values: sketch(rng),
        without: sketch(rng),
        values_estimate: rng.random_range(0.0..1e6),
        without_estimate: rng.random_range(0.0..1e6),
        examples: (0..rng.random_range(0..=EXAMPLES_MAX))
            .map(|_| {
                let weight = rng.random_range(0.0..1e6);
                wire::Example { value: text(rng, "ä value"), weight, error: rng.random_range(0.0..=weight) }
            })
            .collect(),
        is_protected: rng.random(),
    };
    let decision = |rng: &mut ChaCha8Rng| wire::Decision {
        time_unix_nano: rng.random(),
        what: "contained".to_owned(),
        labels: (0..rng.random_range(0..3)).map(|_| text(rng, "label")).collect(),
        reason: text(rng, "because"),
        effective_unix_nano: rng.random(),
        admitted: rng.random(),
        share: rng.random(),
    };
    let metric = |rng: &mut ChaCha8Rng| {
        let mut labels: Vec<wire::Label> = (0..rng.random_range(0..5)).map(|_| label(rng)).collect();
        labels.sort_by(|a, b| a.without_estimate.total_cmp(&b.without_estimate));
        labels.iter_mut().skip(LABELS_WITH_EXAMPLES).for_each(|label| label.examples.clear());
        wire::Metric {
            name: text(rng, "metric"),
            r#type: "sum".to_owned(),
            share: rng.random(),
            admitted: rng.random(),
            folded_series: rng.random(),
            active: sketch(rng),
            active_estimate: rng.random_range(0.0..1e6),
            growth: rng.random_range(0.0..1e3),
            labels,
            decisions: (0..rng.random_range(0..3)).map(|_| decision(rng)).collect(),
            points: rng.random(),
        }
    };
    let tenant = |rng: &mut ChaCha8Rng| {
        let mut metrics: Vec<wire::Metric> = (0..rng.random_range(0..6)).map(|_| metric(rng)).collect();
        metrics.sort_by(|a, b| b.active_estimate.total_cmp(&a.active_estimate));
        wire::Tenant {
            name: if rng.random_bool(0.2) { String::new() } else { text(rng, "tenant") },
            share: rng.random(),
            reserved: rng.random_range(0..2),
            admitted: rng.random(),
            folded_series: rng.random(),
            active: sketch(rng),
            growth: rng.random_range(0.0..1e3),
            metrics,
            active_estimate: rng.random_range(0.0..1e6),
        }
    };
    let mut tenants: Vec<wire::Tenant> = (0..rng.random_range(0..4)).map(|_| tenant(rng)).collect();
    tenants.sort_by(|a, b| b.active_estimate.total_cmp(&a.active_estimate));
    let counts: Vec<wire::Count> = (0..rng.random_range(0..9))
        .map(|_| wire::Count { name: text(rng, "count"), value: rng.random_range(0.0..1e9) })
        .collect();
    wire::Report {
        schema: 1,
        process: text(rng, "process"),
        worker: rng.random_range(0..3),
        sequence: rng.random(),
        time_unix_nano: rng.random(),
        start_time_unix_nano: rng.random(),
        plan_version: rng.random(),
        key: rng.random(),
        period_ms: rng.random(),
        generation: rng.random(),
        ledger: (!counts.is_empty()).then_some(wire::Ledger { counts }),
        tenants,
        overlap_sample: (0..rng.random_range(0..20)).map(|_| rng.random()).collect(),
        truncated_metrics: rng.random_range(0..2),
    }
}

/// A thousand metrics with ten labels each, all of which have dense sketches and examples; the lightest first.
fn large(metrics: usize, tenants: usize) -> wire::Report {
    let dense = |seed: u64| {
        let (mut sketch, mut bytes) = (Distinct::new(), Vec::new());
        for at in 0..1_000 {
            sketch.insert(golden_hash(seed * 1_000 + at));
        }
        sketch.encode(&mut bytes);
        bytes
    };
    let (active, values, without) = (dense(1), dense(2), dense(3));
    assert!(active.len() > 800, "dense: {}", active.len());
    let label = |at: usize| wire::Label {
        key: format!("http.request.label_{at}"),
        resource: at.is_multiple_of(3),
        values: values.clone(),
        without: without.clone(),
        values_estimate: 100.5 + at as f64,
        without_estimate: 10.5 + at as f64,
        examples: (0..8)
            .map(|n| wire::Example {
                value: format!("/a/rather/long/value/of/a/label/{n}"),
                weight: 100.5 - n as f64,
                error: 1.5,
            })
            .collect(),
        is_protected: at == 4,
    };
    let metric = |at: usize| wire::Metric {
        name: format!("http.server.some.name.of.a.metric.{at}"),
        r#type: "histogram".to_owned(),
        share: 10_000,
        admitted: 9_000,
        folded_series: 90,
        active: active.clone(),
        active_estimate: 1_000.5 + at as f64,
        growth: 10.5,
        labels: (0..10).map(label).collect(),
        decisions: Vec::new(),
        points: 1_000_000,
    };
    let tenant = |at: usize| wire::Tenant {
        name: format!("tenant-{at}"),
        active: active.clone(),
        active_estimate: 1e5,
        metrics: (0..metrics / tenants).map(|n| metric(at * (metrics / tenants) + n)).collect(),
        ..wire::Tenant::default()
    };
    wire::Report {
        schema: 1,
        process: "gateway-7@1767225600".to_owned(),
        sequence: 1,
        tenants: (0..tenants).map(tenant).collect(),
        ..wire::Report::default()
    }
}

/// The metrics of all tenants, heaviest first.
fn flat(report: &wire::Report) -> Vec<&wire::Metric> {
    let mut metrics: Vec<&wire::Metric> = report.tenants.iter().flat_map(|tenant| &tenant.metrics).collect();
    metrics.sort_by(|a, b| b.active_estimate.total_cmp(&a.active_estimate));
    metrics
}

proptest! {
    #[test]
    fn what_fits_arrives_whole(seed in any::<u64>()) {
        let report = random(&mut ChaCha8Rng::seed_from_u64(seed));
        // Sixteen times the room: no ceiling is met.
        let bytes = encoded(&report, 16 * REPORT_BYTES_MAX);
        prop_assert_eq!(decoded(&bytes), report);
    }

    #[test]
    fn the_order_of_parts_does_not_matter(seed in any::<u64>(), bytes_max in 1_000usize..60_000) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut report = random(&mut rng);
        let bytes = encoded(&report, bytes_max);
        for tenant in &mut report.tenants {
            for metric in &mut tenant.metrics {
                metric.labels.shuffle(&mut rng);
            }
            tenant.metrics.shuffle(&mut rng);
        }
        report.tenants.shuffle(&mut rng);
        prop_assert_eq!(encoded(&report, bytes_max), bytes);
    }

    #[test]
    fn the_bound_holds_and_what_is_left_out_is_counted(seed in any::<u64>(), bytes_max in 600usize..60_000) {
        // In less than a long name takes a lighter metric may be all that fits.
        let is_roomy = bytes_max >= 4_000;
        let report = random(&mut ChaCha8Rng::seed_from_u64(seed));
        let bytes = encoded(&report, bytes_max);
        prop_assert!(bytes.len() <= bytes_max, "{} of {}", bytes.len(), bytes_max);
        let written = decoded(&bytes);
        let (all, there) = (flat(&report), flat(&written));
        prop_assert_eq!(written.truncated_metrics, report.truncated_metrics + (all.len() - there.len()) as u64);
        // Those of written tenants that are there are the heaviest.
        let names: Vec<&String> = written.tenants.iter().map(|tenant| &tenant.name).collect();
        let of_them = report.tenants.iter().filter(|tenant| names.contains(&&tenant.name));
        let mut of_them: Vec<&wire::Metric> = of_them.flat_map(|tenant| &tenant.metrics).collect();
        of_them.sort_by(|a, b| b.active_estimate.total_cmp(&a.active_estimate));
        // Of two that are as heavy either may be.
        for (there, all) in there.iter().zip(of_them).filter(|_| is_roomy) {
            prop_assert_eq!(there.active_estimate, all.active_estimate);
        }
    }
}

#[test]
fn a_thousand_metrics_with_ten_labels_stay_within_the_bound() {
    for tenants in [1, 10, 1_000] {
        let report = large(1_000, tenants);
        let (counts, borrowed) = borrowed(&report);
        let bytes = encode(&head(&report, &counts, borrowed));
        assert!(bytes.len() <= REPORT_BYTES_MAX, "{} bytes", bytes.len());
        // A part is counted with the longest prefix it could have.
        assert!(bytes.len() > REPORT_BYTES_MAX / 16 * 15, "{} bytes: room is left", bytes.len());
        let written = decoded(&bytes);
        let metrics = flat(&written);
        assert_eq!((metrics.len(), written.truncated_metrics), (1_000, 0), "{tenants} tenants");
        for (rank, metric) in metrics.iter().enumerate() {
            assert_eq!(metric.active_estimate, 1_999.5 - rank as f64, "numbers of all");
        }
        let count = |has: fn(&wire::Metric) -> bool| metrics.iter().take_while(|metric| has(metric)).count();
        let labels = count(|metric| metric.labels.len() == 10);
        let sketches = count(|metric| !metric.active.is_empty());
        let examples = count(|metric| metric.labels.iter().any(|label| !label.examples.is_empty()));
        println!(
            "{tenants} tenants: {labels} with labels, {sketches} with a sketch, {examples} with examples"
        );
        if tenants < 1_000 {
            assert!(labels >= DETAILED_METRICS && sketches >= 85 && examples >= 20);
        }
        assert_eq!(
            metrics.iter().filter(|metric| !metric.active.is_empty()).count(),
            sketches,
            "heaviest first"
        );
    }
}

#[test]
fn of_ten_thousand_metrics_the_heaviest_are_there_with_their_details() {
    let report = large(10_000, 1);
    let written = decoded(&encoded(&report, REPORT_BYTES_MAX));
    let metrics = flat(&written);
    assert!(metrics.len() > 1_000, "{}", metrics.len());
    assert_eq!(written.truncated_metrics, 10_000 - metrics.len() as u64);
    assert_eq!(metrics[0].name, "http.server.some.name.of.a.metric.9999");
    assert_eq!(metrics[0].labels.len(), 10);
    assert_eq!(metrics[0].labels[0].examples.len(), EXAMPLES_MAX);
    assert!(!metrics[0].active.is_empty());
}

#[test]
fn what_no_reader_takes_does_not_leave() {
    let metric = report::Metric {
        name: b"caf\xe9",
        active_estimate: f64::NAN,
        growth: -1.0,
        labels: vec![report::Label {
            key: b"k",
            values_estimate: f64::INFINITY,
            examples: vec![report::Example { value: &[b'x'; 1_000], weight: 1.0, error: 2.0 }],
            ..report::Label::default()
        }],
        ..report::Metric::default()
    };
    let tenants = vec![report::Tenant { metrics: vec![metric], ..report::Tenant::default() }];
    let now = 1_767_225_600_000_000_000;
    let report = report::Report {
        process: b"gateway",
        sequence: 1,
        time: UnixNanos(now),
        period_ms: 1_800_000,
        tenants,
        ..report::Report::default()
    };
    let read = phoenix_report::read(&encode(&report), now).expect("taken");
    let metric = &read.tenants[0].metrics[0];
    assert_eq!(metric.name, "caf\u{fffd}");
    let example = &metric.labels[0].examples[0];
    assert_eq!((example.value.len(), example.weight, example.error), (128, 1.0, 1.0));
}
