//! What is taken, what is refused and why, and that order does not matter.

use super::tools::{S, Streams, T0, collected, policy, report, stream};
use phoenix_control::collect::{Collector, PROCESSES_OF_NODE_MAX, Reason, Settings, Taken};
use phoenix_report::Report;
use phoenix_report::wire::Example;
use proptest::prelude::*;
use prost::Message;

fn streams(many: u64) -> Streams {
    let of = (0..many).map(|n| stream(&[("user", format!("u{n}"))])).collect();
    Streams::from([("shop".to_owned(), [(("requests".to_owned(), "counter".to_owned()), of)].into())])
}

fn held(collector: &Collector) -> Vec<u8> {
    serde_json::to_vec(collector).unwrap()
}

#[test]
fn what_is_refused_names_field_value_and_range_and_changes_nothing() {
    let policy = policy("");
    let mut collector = Collector::new(Settings::of(&policy));
    let good = report("a", 0, 5, T0, &policy, &streams(3));
    assert_eq!(collector.take(&good.encode_to_vec(), T0), Ok(Taken::First));
    let before = held(&collector);
    let cases: Vec<(Reason, &str, Report)> = vec![
        (Reason::Version, "schema", Report { schema: 2, ..good.clone() }),
        (Reason::Key, "key", Report { key: 7, ..good.clone() }),
        (Reason::Future, "time_unix_nano", Report { time_unix_nano: T0 + 3_600 * S, ..good.clone() }),
        (
            Reason::Late,
            "time_unix_nano",
            Report { time_unix_nano: T0 - 3_600 * S, sequence: 6, ..good.clone() },
        ),
        (Reason::Replayed, "sequence", good.clone()),
        (Reason::Reordered, "sequence", Report { sequence: 4, ..good.clone() }),
        (Reason::Conflict, "sequence", Report { time_unix_nano: T0 - 1, ..good.clone() }),
        (
            Reason::Superseded,
            "start_time_unix_nano",
            Report { start_time_unix_nano: T0 - 7_201 * S, sequence: 9, ..good.clone() },
        ),
        (Reason::Malformed, "process", Report { process: String::new(), ..good.clone() }),
        (Reason::Malformed, "period_ms", Report { period_ms: 1, ..good.clone() }),
    ];
    for (reason, field, report) in cases {
        let refusal = collector.take(&report.encode_to_vec(), T0).unwrap_err();
        assert_eq!((refusal.reason, refusal.field.as_str()), (reason, field), "{refusal}");
        assert!(!refusal.value.is_empty() && !refusal.allowed.is_empty(), "{refusal}");
        assert_eq!(held(&collector), before, "{refusal}");
    }
    let large = vec![0; 5 << 20];
    assert_eq!(collector.take(&large, T0).unwrap_err().reason, Reason::TooLarge);
    assert_eq!(collector.take(b"\xff", T0).unwrap_err().reason, Reason::Malformed);
    assert_eq!(held(&collector), before);
}

#[test]
fn memory_is_bounded_and_the_silent_make_room() {
    let policy = policy("reports: { bytes_max: 1048576, forget_after: 10m }\n");
    let mut collector = Collector::new(Settings::of(&policy));
    let mut taken = 0;
    let refusal = loop {
        let one = report(&format!("p{taken:04}"), 0, 1, T0, &policy, &streams(2_000));
        match collector.take(&one.encode_to_vec(), T0) {
            Ok(_) => taken += 1,
            Err(refusal) => break refusal,
        }
        assert!(taken < 2_000);
    };
    assert_eq!(refusal.reason, Reason::Full);
    assert!(collector.held_bytes() <= 1 << 20 && taken > 100, "{taken}");
    // Whoever is known still gets in, and eleven minutes later the others are forgotten for one who is new.
    let again = report("p0000", 0, 2, T0, &policy, &streams(2_000));
    assert_eq!(collector.take(&again.encode_to_vec(), T0), Ok(Taken::Newer));
    let now = T0 + 660 * S;
    let new = report("new", 0, 1, now, &policy, &streams(2_000));
    assert_eq!(collector.take(&new.encode_to_vec(), now), Ok(Taken::First));
    assert_eq!(collector.len(), 1);
}

/// A node that begins anew over and over, or a credential that makes up processes, takes no more room than a few of them do, and nobody's place.
#[test]
fn a_node_has_so_many_processes() {
    let policy = policy("reports: { forget_after: 10m }\n");
    let mut collector = Collector::new(Settings::of(&policy));
    let of = |name: &str, sequence: u64, now: u64| {
        report(name, 0, sequence, now, &policy, &streams(3)).encode_to_vec()
    };
    for name in ["gw", "gw-1@5", "gx@5"] {
        collector.take(&of(name, 1, T0), T0).unwrap();
    }
    for n in 1..PROCESSES_OF_NODE_MAX {
        collector.take(&of(&format!("gw@{n}"), 1, T0), T0).unwrap();
    }
    let before = held(&collector);
    let refusal = collector.take(&of("gw@made-up", 1, T0), T0).unwrap_err();
    assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::Full, "process"));
    let words = "\"gw@made-up\" beside 16 others; allowed: 16 processes of a node";
    assert!(refusal.to_string().contains(words), "{refusal}");
    assert_eq!(held(&collector), before);
    // Those that are known go on, and ten minutes after its last word one makes room.
    let now = T0 + 300 * S;
    for n in 2..PROCESSES_OF_NODE_MAX {
        collector.take(&of(&format!("gw@{n}"), 2, now), now).unwrap();
    }
    collector.take(&of("gw@made-up", 1, now), now).unwrap_err();
    let now = T0 + 601 * S;
    collector.take(&of("gw@new", 1, now), now).unwrap();
}

/// What is held is compressed, and comes back as it came; a count that is kept on the way is that of all that is held.
#[test]
fn reports_are_held_in_less_than_they_came_in_and_come_back_whole() {
    let policy = policy("");
    let mut collector = Collector::new(Settings::of(&policy));
    let mut came = 0;
    for (name, worker, sequence) in [("a", 0, 1), ("a", 1, 1), ("b", 0, 1), ("a", 0, 2), ("a", 1, 2)] {
        let one = report(name, worker, sequence, T0 + sequence * S, &policy, &streams(sequence * 200));
        came += one.encoded_len() as u64;
        collector.take(&one.encode_to_vec(), T0 + 9 * S).unwrap();
        let held = collector.processes(T0 + 9 * S).find(|(process, _)| *process == name).unwrap().1;
        assert!(held.contains(&one), "{name} {worker}");
    }
    assert!(collector.held_bytes() < came, "{} of {came}", collector.held_bytes());
    let mut fresh = Collector::new(Settings::of(&policy));
    for one in collector.processes(T0 + 9 * S).flat_map(|(_, reports)| reports) {
        fresh.take(&one.encode_to_vec(), T0 + 9 * S).unwrap();
    }
    assert_eq!(held(&fresh), held(&collector), "counts included");
}

/// A report that compresses to nothing is no way to more memory than `reports.bytes_max` says.
#[test]
fn what_compresses_well_is_bounded_by_what_it_was() {
    let policy = policy("reports: { bytes_max: 1048576 }\n");
    let padded = |process: &str, worker: u64, bytes: usize| {
        let mut one = report(process, worker, 1, T0, &policy, &streams(1));
        one.tenants[0].metrics[0].labels[0].examples = (0..bytes / 1_000)
            .map(|_| Example { value: "x".repeat(1_000), weight: 1.0, error: 0.0 })
            .collect();
        one.encode_to_vec()
    };
    let mut collector = Collector::new(Settings::of(&policy));
    let taken = (0..100).take_while(|n| collector.take(&padded(&format!("p{n}"), 0, 1 << 20), T0).is_ok());
    assert!((2..=4).contains(&taken.count()), "{} held", collector.held_bytes());

    let policy = super::tools::policy("reports: { bytes_max: 1073741824 }\n");
    let mut collector = Collector::new(Settings::of(&policy));
    let refusal = (0..100).find_map(|n| collector.take(&padded("one", n, 3 << 20), T0).err()).unwrap();
    assert_eq!((refusal.reason, collector.len()), (Reason::Full, 1));
    assert!(refusal.allowed.contains("67108864 bytes of a process"), "{refusal}");
    collector.take(&padded("another", 0, 3 << 20), T0).unwrap();
}

#[test]
fn who_is_silent_for_too_long_counts_no_more() {
    let policy = policy("reports: { silent_after: 90s, forget_after: 10m }\n");
    let all =
        [report("a", 0, 1, T0, &policy, &streams(3)), report("b", 0, 1, T0 + 300 * S, &policy, &streams(3))];
    let mut collector = collected(&policy, &all, T0 + 300 * S);
    let names = |now| collector.processes(now).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(T0 + 600 * S), ["a", "b"]);
    assert_eq!(names(T0 + 601 * S), ["b"]);
    assert_eq!(collector.forget(T0 + 901 * S), ["a", "b"]);
    assert!(collector.is_empty() && collector.held_bytes() == 0);
}

proptest! {
    /// The set of reports decides, never their order or how often each came.
    #[test]
    fn order_and_repetition_do_not_matter(
        sent in prop::collection::vec((0..3_usize, 0..2_u64, 1..6_u64, 0..2_u64, 1..4_u64), 1..30),
        order in any::<u64>(),
    ) {
        let policy = policy("");
        let reports: Vec<Report> = sent
            .iter()
            .map(|(process, worker, sequence, start, many)| Report {
                start_time_unix_nano: T0 - start * S,
                ..report(["a", "b", "c"][*process], *worker, *sequence, T0 + sequence * S, &policy, &streams(*many))
            })
            .collect();
        let now = T0 + 60 * S;
        let straight = collected(&policy, &reports, now);
        let mut shuffled: Vec<&Report> = reports.iter().chain(&reports).collect();
        let mut state = order | 1;
        for n in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(n, (state >> 33) as usize % (n + 1));
        }
        prop_assert_eq!(held(&straight), held(&collected(&policy, shuffled, now)));
    }
}
