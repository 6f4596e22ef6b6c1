//! Numbers of the fleet against the sets they are estimates of.

use super::tools::{S, Stream, Streams, T0, collected, policy, report, stream};
use phoenix_control::estimate::{Estimates, MetricEstimate, estimate};
use phoenix_control::needs::LabelKey;
use phoenix_report::Report;
use proptest::prelude::*;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

const NOW: u64 = T0 + 30 * S;

fn of_requests(streams: Vec<Stream>) -> Streams {
    Streams::from([("shop".to_owned(), [(("requests".to_owned(), "counter".to_owned()), streams)].into())])
}

fn requests(estimates: &Estimates) -> &MetricEstimate {
    estimates.metrics("shop", "requests").next().unwrap()
}

fn folded(keys: &[&str]) -> BTreeSet<LabelKey> {
    keys.iter().map(|key| LabelKey { key: (*key).to_owned(), resource: false }).collect()
}

fn users(range: std::ops::Range<u64>) -> Vec<Stream> {
    range.map(|n| stream(&[("user", format!("u{n}")), ("route", format!("r{}", n % 4))])).collect()
}

#[test]
fn the_fleet_is_a_union_and_never_a_sum() {
    let policy = policy("prices: { model: active_series }\n");
    // Two workers of a see 60 streams, 20 of them both; b sees 40 others.
    let all = [
        report("a", 0, 1, T0, &policy, &of_requests(users(0..40))),
        report("a", 1, 1, T0, &policy, &of_requests(users(20..60))),
        report("b", 0, 1, T0, &policy, &of_requests(users(60..100))),
    ];
    let estimates = estimate(&collected(&policy, &all, NOW), &policy, NOW);
    let it = requests(&estimates);
    assert_eq!((it.active.value, it.active.is_upper_bound), (100.0, false));
    assert_eq!(it.parts.iter().map(|part| part.active).collect::<Vec<_>>(), [60.0, 40.0]);
    assert!(!it.overlap.is_shown(), "{:?}", it.overlap);
    let user = it.labels.iter().find(|label| label.key == "user").unwrap();
    assert_eq!((user.values.value, user.without.value), (100.0, 4.0));
    assert_eq!(user.written, 8.0, "each embedder writes four of its own");
    assert_eq!(it.remaining(&folded(&["user"])), 8.0);
    assert!((it.cost.money - 0.8).abs() < 1e-9, "{:?}", it.cost);
    assert_eq!(estimates.tenants["shop"].active.value, 100.0);
}

#[test]
fn streams_in_two_embedders_are_an_overlap() {
    let policy = policy("reports: { silent_after: 90s }\n");
    let at = |name: &str, range, time| report(name, 0, 1, time, &policy, &of_requests(users(range)));
    let overlap = |reports: &[Report], now| {
        let estimates = estimate(&collected(&policy, reports, now), &policy, now);
        requests(&estimates).overlap
    };
    let both = [at("a", 0..60, T0), at("b", 59..100, T0)];
    let it = overlap(&both, NOW);
    assert_eq!((it.streams, it.error, it.is_shown()), (1.0, 0.0, true));
    // A few among thousands are chance.
    let large = [at("a", 0..5_000, T0), at("b", 5_000..9_990, T0)];
    assert!(!overlap(&large, NOW).is_shown());
    let large = [at("a", 0..5_000, T0), at("b", 0..5_000, T0)];
    assert!(overlap(&large, NOW).is_shown());
    // Who fell silent had streams that others have now: no witness.
    let moved = [at("a", 0..60, T0), at("b", 0..100, T0 + 100 * S)];
    assert!(!overlap(&moved, T0 + 100 * S).is_shown());
}

#[test]
fn labels_that_go_together_are_bounded_by_those_that_stay() {
    let policy = policy("");
    // A pod has one instance: without either everything remains, without both one series a route.
    let streams = (0..120)
        .map(|n| {
            stream(&[
                ("pod", format!("p{}", n / 4)),
                ("instance", format!("i{}", n / 4)),
                ("route", format!("r{}", n % 4)),
            ])
        })
        .collect();
    let all = [report("a", 0, 1, T0, &policy, &of_requests(streams))];
    let estimates = estimate(&collected(&policy, &all, NOW), &policy, NOW);
    let it = requests(&estimates);
    assert_eq!(it.remaining(&folded(&["pod"])), 120.0);
    assert_eq!(it.remaining(&folded(&["instance"])), 120.0);
    assert_eq!(it.remaining(&folded(&["pod", "instance"])), 5.0, "four routes, and none");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Small enough to be exact: every number is that of the sets, bounds hold, and arrival does not matter.
    #[test]
    fn numbers_are_those_of_the_sets(seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let policy = policy("");
        let mut seen: BTreeMap<(usize, u64), Vec<Stream>> = BTreeMap::new();
        let many = rng.random_range(1..100);
        for _ in 0..many {
            let mut labels = vec![("a", rng.random_range(0..3).to_string()), ("b", rng.random_range(0..40).to_string())];
            if rng.random_bool(0.5) {
                labels.push(("c", rng.random_range(0..2).to_string()));
            }
            let who = (rng.random_range(0..3), rng.random_range(0..2));
            seen.entry(who).or_default().push(stream(&labels));
        }
        let mut reports: Vec<Report> = seen
            .iter()
            .map(|((process, worker), streams)| report(&format!("p{process}"), *worker, 1, T0, &policy, &of_requests(streams.clone())))
            .collect();
        let estimates = estimate(&collected(&policy, &reports, NOW), &policy, NOW);
        reports.shuffle(&mut rng);
        let again = estimate(&collected(&policy, &reports, NOW), &policy, NOW);
        prop_assert_eq!(serde_json::to_vec(&estimates).unwrap(), serde_json::to_vec(&again).unwrap());

        let it = requests(&estimates);
        let distinct: BTreeSet<&Stream> = seen.values().flatten().collect();
        prop_assert_eq!(it.active.value, distinct.len() as f64);
        let of_process = |n: usize| -> BTreeSet<&Stream> {
            seen.iter().filter(|((process, _), _)| *process == n).flat_map(|(_, streams)| streams).collect()
        };
        let each: usize = (0..3).map(|n| of_process(n).len()).sum();
        prop_assert_eq!(it.overlap.streams, (each - distinct.len()) as f64);
        let without = |keys: &[&str], streams: &BTreeSet<&Stream>| -> usize {
            let cut = |it: &&Stream| -> Stream { (*it).clone().into_iter().filter(|(key, _)| !keys.contains(&key.as_str())).collect() };
            streams.iter().map(cut).collect::<BTreeSet<Stream>>().len()
        };
        for keys in [&["a"][..], &["b"], &["c"], &["a", "b"], &["b", "c"], &["a", "b", "c"]] {
            let written: usize = (0..3).map(|n| without(keys, &of_process(n))).sum();
            // A label with one value is taken to be on every stream.
            let stays_alone = |key: &&str| {
                let label = it.labels.iter().find(|label| label.key == **key);
                !keys.contains(key) && label.is_some_and(|label| label.values.value <= 1.0)
            };
            let known = keys.iter().any(|key| it.labels.iter().any(|label| label.key == *key));
            let bound = it.remaining(&folded(keys));
            let known = known && !stays_alone(&"c");
            prop_assert!(!known || bound + 1e-9 >= written as f64, "{:?}: {} written, bound {}", keys, written, bound);
            if let [key] = keys {
                for label in it.labels.iter().filter(|label| label.key == *key) {
                    prop_assert_eq!(label.without.value, without(keys, &distinct) as f64);
                    prop_assert_eq!(label.written, written as f64);
                }
            }
        }
    }
}
