//! Many reports as one: in any order, any number of times, with the truth beside it in plain sets.

use phoenix_filter::sketch::{Distinct, golden_hash};
use phoenix_report::merge::{Estimate, Part, estimate, offenders};
use phoenix_report::wire::{Count, Decision, Example, Label, Ledger, Metric, Report, Tenant};
use phoenix_report::{Added, Fleet, read};
use proptest::prelude::*;
use prost::Message;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

const NOW: u64 = 1_767_225_600_000_000_000;

fn sketch(hashes: impl IntoIterator<Item = u64>) -> (Vec<u8>, f64) {
    let (mut sketch, mut bytes) = (Distinct::new(), Vec::new());
    for hash in hashes {
        sketch.insert(golden_hash(hash));
    }
    sketch.encode(&mut bytes);
    (bytes, sketch.estimate())
}

fn report(process: &str, worker: u64, sequence: u64) -> Report {
    Report {
        schema: 1,
        process: process.to_owned(),
        worker,
        sequence,
        time_unix_nano: NOW + sequence,
        start_time_unix_nano: NOW - 1,
        plan_version: 7,
        key: 1,
        period_ms: 1_800_000,
        ..Report::default()
    }
}

/// With one metric of one tenant that saw these streams.
fn seeing(process: &str, worker: u64, streams: impl IntoIterator<Item = u64>) -> Report {
    let (active, active_estimate) = sketch(streams);
    let metric = Metric { name: "requests".to_owned(), active, active_estimate, ..Metric::default() };
    let tenant = Tenant {
        name: "shop".to_owned(),
        active: metric.active.clone(),
        active_estimate,
        metrics: vec![metric],
        ..Tenant::default()
    };
    Report { tenants: vec![tenant], ..report(process, worker, 1) }
}

fn fleet(reports: impl IntoIterator<Item = Report>) -> Fleet {
    let mut fleet = Fleet::default();
    for report in reports {
        fleet.add(report).expect("taken");
    }
    fleet
}

/// Reports of few workers, with clashing sequences and starts.
fn some(rng: &mut ChaCha8Rng) -> Vec<Report> {
    (0..rng.random_range(1..12))
        .map(|_| {
            let process = format!("gateway-{}", rng.random_range(0..2));
            let streams: Vec<u64> = (0..rng.random_range(0..30)).map(|_| rng.random_range(0..60)).collect();
            let mut one = seeing(&process, rng.random_range(0..2), streams);
            one.sequence = rng.random_range(1..4);
            one.start_time_unix_nano = NOW - rng.random_range(1..3);
            one.key = rng.random_range(1..3);
            let tenant = &mut one.tenants[0];
            (tenant.share, tenant.growth) = (rng.random_range(0..100), rng.random_range(0.0..1.0));
            if rng.random() {
                tenant.metrics[0].active.clear();
            }
            let counts = vec![Count { name: "points".to_owned(), value: rng.random_range(0.0..1.0) }];
            one.ledger = Some(Ledger { counts });
            one
        })
        .collect()
}

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let reports = some(&mut rng);
        let once = fleet(reports.clone());
        let mut again = [reports.clone(), reports.clone()].concat();
        again.shuffle(&mut rng);
        prop_assert_eq!(&fleet(again), &once);
        // Parts apart, and then together, either way round.
        let (some, others) = reports.split_at(rng.random_range(0..=reports.len()));
        let (some, others) = (fleet(some.to_vec()), fleet(others.to_vec()));
        let (mut there, mut back) = (some.clone(), others.clone());
        there.merge(others).expect("taken");
        back.merge(some).expect("taken");
        prop_assert_eq!(&there, &once);
        prop_assert_eq!(&back, &once);
        prop_assert_eq!(there.view(), once.view());
    }

    /// Below 128 a sketch is exact: the view of one key is the union.
    #[test]
    fn merged_streams_are_the_union(seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut all, mut reports) = (BTreeSet::new(), Vec::new());
        for worker in 0..3 {
            let streams: Vec<u64> = (0..rng.random_range(0..40)).map(|_| rng.random_range(0..80)).collect();
            all.extend(streams.iter().copied());
            reports.push(seeing("gateway", worker, streams));
        }
        let view = fleet(reports).view();
        let active = view.tenants[0].metrics[0].active;
        prop_assert_eq!((active.value, active.is_upper_bound), (all.len() as f64, false));
    }

    /// Space-Saving of several parts against exact counts: both bounds hold for every value that is shown.
    #[test]
    fn bounds_of_offenders_hold(seed in any::<u64>(), listed in 1usize..6) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut truth = [0.0; 8];
        let mut parts: Vec<(Vec<Example>, f64)> = Vec::new();
        for _ in 0..rng.random_range(1..4) {
            let mut counts: Vec<(usize, f64)> =
                (0..8).map(|value| (value, f64::from(rng.random_range(0..50u32)))).filter(|(_, n)| *n > 0.0).collect();
            counts.iter().for_each(|(value, count)| truth[*value] += count);
            let values = counts.len() as f64;
            // As Space-Saving reports them: overestimates by a known error at most, those not listed no heavier than the last.
            let mut examples: Vec<Example> = counts
                .drain(..)
                .map(|(value, count)| {
                    let over = f64::from(rng.random_range(0..5u32));
                    let slack = f64::from(rng.random_range(0..5u32));
                    Example { value: value.to_string(), weight: count + over, error: (over + slack).min(count + over) }
                })
                .collect();
            examples.sort_by(|a, b| b.weight.total_cmp(&a.weight));
            examples.truncate(listed);
            parts.push((examples, values));
        }
        for offender in offenders(parts.iter().map(|(examples, values)| (examples.as_slice(), *values))) {
            let count = truth[offender.value.parse::<usize>().expect("a number")];
            prop_assert!(offender.at_least <= count && count <= offender.at_most, "{} {:?}", count, offender);
        }
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300), seed in any::<u64>()) {
        let _ = read(&bytes, NOW);
        // And a report with a few bytes changed: what is taken can be shown.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut whole = seeing("gateway", 1, 0..5).encode_to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..whole.len());
            whole[at] = rng.random();
        }
        if let Ok(report) = read(&whole, NOW) {
            let _ = fleet([report]).view();
        }
    }
}

#[test]
fn the_newest_report_of_a_worker_is_in_force() {
    let mut fleet = Fleet::default();
    let step = |fleet: &mut Fleet, one: Report| fleet.add(one).expect("taken");
    assert_eq!(step(&mut fleet, report("a", 0, 2)), Added::First);
    assert_eq!(step(&mut fleet, report("a", 0, 1)), Added::Older);
    assert_eq!(step(&mut fleet, report("a", 0, 2)), Added::Older, "the same again");
    assert_eq!(step(&mut fleet, report("a", 0, 3)), Added::Newer);
    assert_eq!(step(&mut fleet, report("a", 1, 1)), Added::First);
    // A worker whose memory was built anew counts from 1 again, since a later start.
    let anew = Report { start_time_unix_nano: NOW, ..report("a", 0, 1) };
    assert_eq!(step(&mut fleet, anew), Added::Newer);
    assert_eq!(step(&mut fleet, report("a", 0, 9)), Added::Older);
    let sequences: Vec<u64> = fleet.reports().map(|report| report.sequence).collect();
    assert_eq!(sequences, [1, 1]);
}

#[test]
fn numbers_of_a_process_count_once_and_those_of_workers_add_up() {
    let with = |process: &str, worker: u64, budget: [u64; 4], count: f64| {
        let mut one = seeing(process, worker, [worker]);
        let [share, reserved, admitted, folded_series] = budget;
        let tenant = &mut one.tenants[0];
        (tenant.share, tenant.reserved, tenant.admitted, tenant.folded_series) =
            (share, reserved, admitted, folded_series);
        let metric = &mut tenant.metrics[0];
        (metric.share, metric.admitted, metric.folded_series) = (share / 2, admitted, folded_series);
        (metric.points, metric.growth) = (10, 1.5);
        one.ledger = Some(Ledger { counts: vec![Count { name: "points".to_owned(), value: count }] });
        one
    };
    let view = fleet([
        with("a", 0, [100, 10, 50, 3], 1.0),
        // This worker has not read the log to its end yet.
        with("a", 1, [100, 10, 48, 2], 2.0),
        with("b", 0, [200, 20, 7, 0], 4.0),
    ])
    .view();
    let tenant = &view.tenants[0];
    let budget = tenant.budget;
    assert_eq!([budget.share, budget.reserved, budget.admitted, budget.folded_series], [300, 30, 57, 3]);
    let metric = &tenant.metrics[0];
    assert_eq!((metric.budget.share, metric.budget.used()), (150, 60));
    assert_eq!((metric.points, metric.growth), (30, 4.5));
    assert_eq!(view.counts["points"], 7.0);
    assert_eq!(view.processes.iter().map(|process| process.workers).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(metric.active.value, 2.0, "worker 0 of both saw the same stream");
}

#[test]
fn what_cannot_be_merged_is_added_and_says_so() {
    let (a, number) = sketch(0..10);
    let (b, _) = sketch(5..20);
    let bound = |value, at_least| Estimate { value, at_least, is_upper_bound: true };
    let merged = estimate([Part::new(1, &a, 0.0), Part::new(1, &b, 0.0)]);
    assert_eq!(merged, Estimate { value: 20.0, at_least: 20.0, is_upper_bound: false });
    assert_eq!(estimate([Part::new(1, &a, 0.0), Part::new(2, &b, 0.0)]), bound(25.0, 15.0), "two keys");
    assert_eq!(
        estimate([Part::new(1, &a, 0.0), Part::new(1, &[], 7.0)]),
        bound(17.0, 10.0),
        "a number alone"
    );
    assert_eq!(estimate([Part::new(1, &a, 0.0), Part::AtMost(7.0)]), bound(17.0, 10.0));
    assert!(!estimate([Part::Number(number), Part::Number(0.0)]).is_upper_bound, "one part");
    assert_eq!(estimate([]), Estimate::default());
}

#[test]
fn a_label_over_parts_that_do_not_all_have_it() {
    let (streams, _) = sketch(0..10);
    let (without, _) = sketch(100..103);
    let label = |key: &str, examples: &[(&str, f64)]| Label {
        key: key.to_owned(),
        without: without.clone(),
        values_estimate: 5.0,
        examples: examples
            .iter()
            .map(|(value, weight)| Example { value: (*value).to_owned(), weight: *weight, error: 1.0 })
            .collect(),
        ..Label::default()
    };
    let part = |process: &str, labels: Vec<Label>| {
        let mut one = seeing(process, 0, 0..10);
        one.tenants[0].metrics[0].labels = labels;
        one
    };
    let metric = |parts: Vec<Report>| fleet(parts).view().tenants[0].metrics[0].clone();

    // The other process has other labels: its ten streams remain.
    let both = metric(vec![part("a", vec![label("user", &[])]), part("b", vec![label("pod", &[])])]);
    let user = both.labels.iter().find(|label| label.key == "user").expect("there");
    assert_eq!((user.without.value, user.without.is_upper_bound), (13.0, false));
    assert_eq!(user.values.value, 5.0);
    // The other process had no room for labels: it is bounded by its streams.
    let bounded = metric(vec![part("a", vec![label("user", &[])]), part("b", Vec::new())]);
    assert_eq!((bounded.labels[0].without.value, bounded.labels[0].without.is_upper_bound), (13.0, true));
    assert_eq!(bounded.labels[0].without.at_least, 3.0);

    let shown = metric(vec![
        part("a", vec![label("user", &[("u1", 9.0), ("u2", 4.0)])]),
        part("b", vec![label("user", &[("u2", 8.0), ("u3", 6.0)])]),
    ]);
    let offenders: Vec<(&str, f64, f64)> = shown.labels[0]
        .offenders
        .iter()
        .map(|offender| (offender.value.as_str(), offender.at_least, offender.at_most))
        .collect();
    // u1 may weigh up to 6 in b, u3 up to 4 in a.
    assert_eq!(offenders, [("u2", 10.0, 12.0), ("u1", 8.0, 15.0), ("u3", 5.0, 10.0)]);
    assert!(!streams.is_empty());
}

#[test]
fn a_decision_of_a_process_is_shown_once() {
    let decided = |process: &str, worker: u64, times: &[u64]| {
        let mut one = seeing(process, worker, 0..1);
        let decision = |time: &u64| Decision {
            time_unix_nano: *time,
            what: "contained".to_owned(),
            labels: vec!["user".to_owned()],
            ..Decision::default()
        };
        one.tenants[0].metrics[0].decisions = times.iter().map(decision).collect();
        one
    };
    let view = fleet([decided("a", 0, &[5, 3]), decided("a", 1, &[5, 3]), decided("b", 0, &[4])]).view();
    let decisions: Vec<(u64, &str)> = view.tenants[0].metrics[0]
        .decisions
        .iter()
        .map(|decision| (decision.time_unix_nano, decision.process.as_str()))
        .collect();
    assert_eq!(decisions, [(5, "a"), (4, "b"), (3, "a")]);
}

#[test]
fn a_refusal_names_field_value_and_what_is_allowed() {
    let with = |change: fn(&mut Report)| {
        let mut one = seeing("gateway", 0, 0..3);
        one.tenants[0].metrics[0].labels =
            vec![Label { examples: vec![Example::default()], ..Label::default() }];
        one.ledger = Some(Ledger { counts: vec![Count::default()] });
        change(&mut one);
        read(&one.encode_to_vec(), NOW).map_err(|refusal| refusal.to_string())
    };
    assert!(with(|_| {}).is_ok());
    for (change, want) in [
        ((|r| r.schema = 2) as fn(&mut Report), "schema: 2; allowed: 1"),
        (|r| r.process.clear(), "process: 0 bytes; allowed: 1 to 1024"),
        (|r| r.sequence = 0, "sequence: 0; allowed: 1 to 9007199254740992"),
        (|r| r.time_unix_nano = 0, "time_unix_nano: 0 (-1767225600 s from now); allowed: a time up to 300 s"),
        (
            |r| r.time_unix_nano = NOW + 301_000_000_000,
            "(+301 s from now); allowed: a time up to 300 s from now",
        ),
        (|r| r.start_time_unix_nano = NOW + 2, "start_time_unix_nano: 1767225600000000002; allowed: up to"),
        (|r| r.period_ms = 14_999, "period_ms: 14999; allowed: 15000 to 86400000"),
        (|r| r.tenants[0].share = 1 << 60, "tenants[0].share: 1152921504606846976; allowed: 0 to"),
        (|r| r.tenants[0].growth = f64::NAN, "tenants[0].growth: NaN; allowed: a finite number, 0 or more"),
        (
            |r| r.tenants[0].metrics[0].active_estimate = -1.0,
            "tenants[0].metrics[0].active_estimate: -1; allowed",
        ),
        (
            |r| r.tenants[0].metrics[0].active = vec![9; 3],
            "tenants[0].metrics[0].active: 3 bytes, Version at byte 0; allowed: a sketch of version 1",
        ),
        (
            |r| r.tenants[0].metrics[0].labels[0].without = vec![1, 200, 0],
            "tenants[0].metrics[0].labels[0].without: 3 bytes, ",
        ),
        (
            |r| r.tenants[0].metrics[0].labels[0].examples[0].error = 1.0,
            "tenants[0].metrics[0].labels[0].examples[0].error: 1; allowed: 0 to the weight, 0",
        ),
        (
            |r| r.ledger.as_mut().expect("there").counts[0].value = f64::INFINITY,
            "ledger.counts[0].value: inf; allowed",
        ),
    ] {
        let why = with(change).expect_err(want);
        assert!(why.contains(want), "{want:?} is not in {why:?}");
    }
    let large = vec![0; (4 << 20) + 1];
    let why = read(&large, NOW).expect_err("too large").to_string();
    assert_eq!(why, "report: 4194305 bytes; allowed: up to 4194304");
    let why = read(b"\x0a", NOW).expect_err("cut").to_string();
    assert_eq!(why, "report: Truncated at byte 1; allowed: phoenix.report.v1.Report in protobuf");
    // A quarter of a million tenants of no bytes: refused before anything is made of them.
    let many = [0x62, 0].repeat(250_000);
    let why = read(&many, NOW).expect_err("too many").to_string();
    assert!(why.starts_with("report: 200001 parts; allowed: up to 200000"), "{why}");
}

#[test]
fn notes_say_what_does_not_go_together() {
    let other = Report { key: 2, period_ms: 60_000, plan_version: 8, ..seeing("b", 0, 0..1) };
    let notes = fleet([seeing("a", 0, 0..1), other]).view().notes.join("; ");
    for part in ["2 hash keys", "60000 ms, 1800000 ms", "versions of the plan are in force: 7, 8"] {
        assert!(notes.contains(part), "{part:?} is not in {notes:?}");
    }
    assert!(fleet([seeing("a", 0, 0..1)]).view().notes.is_empty());
}
