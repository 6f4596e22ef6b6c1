//! Any estimates and any policy: plans are valid, budgets are kept, nothing flaps, nothing protected folds, and equal inputs give equal bytes.

use phoenix_control::decide::{Decided, Outcome, Previous, decide};
use phoenix_control::estimate::{
    Embedder, Estimates, LabelEstimate, MetricEstimate, Number, Overlap, Part, TenantEstimate,
};
use phoenix_control::needs::{Declared, Needs};
use phoenix_control::policy::{Mode, Policy};
use phoenix_plan::{Labels, Plan};
use proptest::prelude::*;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

use super::super::tools::{KEY, S, T0};

const TENANTS: [&str; 4] = ["shop", "", "bad\u{7}name", "team-b"];
const METRICS: [&str; 6] = ["requests", "errors", "http.duration", "heap", "bad\nname", ""];
const KINDS: [&str; 5] = ["counter", "gauge", "histogram", "delta counter", "summary"];
const LABELS: [&str; 9] =
    ["user", "pod", "route", "service.name", "with,comma", "phoenix_writer", "", "k\u{1}", "zone"];
const DWELL_NS: u64 = 360 * S;

fn policy(rng: &mut ChaCha8Rng) -> Policy {
    let mut text = format!(
        "schema: 1\nmode: {}\nplan:\n  hash_key: {KEY}\n  stream_expiry: 4m\n  placement: {}\n",
        ["observe", "recommend", "auto", "auto", "auto"].choose(rng).unwrap(),
        ["gateway", "gateway", "sidecar"].choose(rng).unwrap(),
    );
    text.push_str(&format!(
        "change: {{ dwell: 6m, switch_lead: 2m, per_hour_max: {} }}\n",
        rng.random_range(1..50)
    ));
    if rng.random_bool(0.3) {
        text.push_str(&format!("active_series: {}\n", rng.random_range(1..50_000)));
    }
    text.push_str("tenants:\n");
    for name in ["shop", "team-b", "''", "nobody"] {
        if rng.random_bool(0.7) {
            let budget = rng.random_range(2..30_000);
            let priority = ["low", "normal", "high"].choose(rng).unwrap();
            let mode = ["", ", mode: auto", ", mode: observe"].choose(rng).unwrap();
            text.push_str(&format!(
                "  - {{ name: {name}, active_series: {budget}, priority: {priority}{mode} }}\n"
            ));
        }
    }
    text.push_str(&format!("  - {{ active_series: {} }}\n", rng.random_range(1..1_000)));
    if rng.random_bool(0.5) {
        text.push_str(&format!(
            "metrics: [{{ metric: {{ exact: requests }}, active_series: {} }}]\n",
            rng.random_range(1..1_000)
        ));
    }
    if rng.random_bool(0.5) {
        text.push_str("protect: [{ labels: [zone] }, { metric: { prefix: http }, labels: [route, user] }]\n");
    }
    if rng.random_bool(0.3) {
        text.push_str(
            "folds: [{ name: errors, metric: { exact: errors }, labels: { drop: { attributes: [pod] } } }]\n",
        );
    }
    if rng.random_bool(0.5) {
        text.push_str("fold: { gauge: sum }\n");
    }
    Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// How large each metric is, from time to time another size.
struct World {
    embedders: usize,
    sizes: BTreeMap<(usize, usize, usize), f64>,
}

impl World {
    fn new(rng: &mut ChaCha8Rng) -> World {
        let mut sizes = BTreeMap::new();
        for tenant in 0..TENANTS.len() {
            for metric in 0..METRICS.len() {
                if rng.random_bool(0.6) {
                    sizes.insert(
                        (tenant, metric, rng.random_range(0..KINDS.len())),
                        rng.random_range(1.0..9_000.0),
                    );
                }
            }
        }
        World { embedders: rng.random_range(1..6), sizes }
    }

    fn live(&mut self, rng: &mut ChaCha8Rng) {
        for size in self.sizes.values_mut() {
            if rng.random_bool(0.1) {
                *size = rng.random_range(1.0..9_000.0);
            }
        }
        if rng.random_bool(0.1) {
            self.embedders = rng.random_range(1..6);
        }
    }

    /// Labels are a function of the metric, so that a fold helps as much the next time.
    fn estimates(&self, versions: &BTreeMap<String, u64>, now_ns: u64, rng: &mut ChaCha8Rng) -> Estimates {
        let number = |value: f64| Number { value, at_least: value, is_upper_bound: false };
        let names: Vec<String> = (0..self.embedders).map(|n| format!("e{n}")).collect();
        let embedders = names.iter().map(|name| Embedder {
            name: name.clone(),
            workers: 1,
            plan_version: versions.get(name).copied().unwrap_or(0),
            newest_ns: now_ns,
            start_ns: T0,
            is_silent: false,
        });
        let mut tenants: BTreeMap<String, TenantEstimate> = BTreeMap::new();
        for ((tenant, metric, kind), size) in &self.sizes {
            let mut of = ChaCha8Rng::seed_from_u64((tenant * 100 + metric * 10 + kind) as u64);
            let labels =
                LABELS.iter().enumerate().filter(|_| of.random_bool(0.6)).map(|(n, key)| LabelEstimate {
                    key: (*key).to_owned(),
                    resource: n % 3 == 0,
                    values: number((size / (n + 1) as f64).max(1.0)),
                    values_most: (size / (n + 1) as f64).max(1.0),
                    values_sum: (size / (n + 1) as f64).max(1.0) * self.embedders as f64,
                    without: number((size / (2.0 + n as f64)).max(1.0)),
                    written: (size / (1.0 + n as f64)).max(1.0),
                    ..LabelEstimate::default()
                });
            let parts = |of: f64| {
                (0..self.embedders)
                    .map(|n| Part {
                        embedder: n as u32,
                        active: of / self.embedders as f64,
                        used: (of / self.embedders as f64) as u64 / 2,
                        folded: (n % 2) as u64,
                        share: 0,
                    })
                    .collect()
            };
            let estimate = MetricEstimate {
                name: METRICS[*metric].to_owned(),
                kind: KINDS[*kind].to_owned(),
                active: number(*size),
                overlap: Overlap { streams: if rng.random_bool(0.1) { 5.0 } else { 0.0 }, error: 1.0 },
                labels: {
                    let mut labels: Vec<LabelEstimate> = labels.collect();
                    labels.sort_by(|a, b| (&a.key, a.resource).cmp(&(&b.key, b.resource)));
                    labels
                },
                parts: parts(*size),
                ..MetricEstimate::default()
            };
            let it = tenants.entry(TENANTS[*tenant].to_owned()).or_default();
            it.metrics.push(estimate);
            it.active.value += size;
            it.parts = parts(it.active.value);
        }
        for it in tenants.values_mut() {
            it.metrics.sort_by(|a, b| (&a.name, &a.kind).cmp(&(&b.name, &b.kind)));
        }
        Estimates {
            at_ns: now_ns,
            period_ms: 600_000,
            embedders: embedders.collect(),
            tenants,
            ..Estimates::default()
        }
    }
}

/// Every plan is one that the module takes; nothing protected is folded; shares are no more than the budget.
fn check(decided: &Decided, policy: &Policy, embedders: usize) -> Result<(), TestCaseError> {
    for plan in decided.plans.values().chain([&decided.newcomer]) {
        let json = serde_json::to_vec(plan).unwrap();
        let read = Plan::parse(&json);
        prop_assert!(read.is_ok(), "{:?}\n{}", read, String::from_utf8_lossy(&json));
        for rule in
            plan.rules.iter().filter(|rule| rule.name != "errors" && !rule.name.starts_with("errors (until"))
        {
            for fold in rule.folds() {
                let Labels::Drop { resource, attributes } = &fold.labels else { panic!("{rule:?}") };
                let (_, metric) = rule.metric.parts();
                for label in resource.iter().chain(attributes) {
                    prop_assert!(!policy.protects(metric, label), "{} of {}", label, metric);
                    prop_assert!(label != "service.name" || attributes.contains(label));
                }
            }
        }
    }
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    let newcomers = [&decided.newcomer, &decided.newcomer];
    for plan in decided.plans.values().chain(newcomers) {
        for share in plan.budgets.iter().flat_map(|it| &it.tenants) {
            if let Some(tenant) = share.tenant.as_ref().filter(|_| share.active_series < 4_000_000) {
                *sums.entry(tenant.clone()).or_default() += u64::from(share.active_series);
            }
        }
    }
    let mut all = 0;
    for (tenant, sum) in &sums {
        let budget = policy.tenant(tenant).map_or(policy.active_series.unwrap_or(0), |it| it.active_series);
        let least = embedders as u64 + 2;
        prop_assert!(*sum <= budget.max(least), "{:?}: {} of {}", tenant, sum, budget);
        all += sum.saturating_sub(least);
    }
    if let Some(budget) = policy.active_series {
        prop_assert!(all <= budget, "{} of all tenants", all);
    }
    if policy.tenants.iter().all(|it| it.mode.is_none()) && policy.mode == Mode::Observe {
        prop_assert!(decided.plans.values().all(|plan| plan.rules.is_empty() && plan.budgets.is_none()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn plans_are_valid_budgets_kept_and_nothing_flaps(seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (policy, mut world) = (policy(&mut rng), World::new(&mut rng));
        let queries = ["sum by (route) (rate(requests_total[5m]))", "rate(http_duration_count[5m])", "sum by (pod) (heap)"];
        let needs = Needs::new(queries.iter().filter(|_| rng.random_bool(0.5)).map(|text| Declared {
            place: (*text).to_owned(),
            text: (*text).to_owned(),
            weight: 3,
            preserve: text.contains("heap"),
        }));
        let mut previous: Option<Previous> = None;
        let mut versions = BTreeMap::new();
        let mut changed: BTreeMap<(String, String), u64> = BTreeMap::new();
        for step in 0..25_u64 {
            let now_ns = T0 + step * 60 * S;
            let estimates = world.estimates(&versions, now_ns, &mut rng);
            let decided = decide(&estimates, &needs, &policy, previous.as_ref(), now_ns);
            let again = decide(&estimates, &needs, &policy, previous.as_ref(), now_ns);
            prop_assert_eq!(serde_json::to_vec(&decided.next).unwrap(), serde_json::to_vec(&again.next).unwrap());
            prop_assert!(decided == again);
            check(&decided, &policy, estimates.embedders.len())?;
            for it in &decided.next.treatments {
                let before = previous.as_ref().and_then(|it2| it2.treatment(&it.tenant, &it.metric));
                if before.is_some_and(|before| before.in_force != it.in_force) || (before.is_none() && !it.in_force.is_empty()) {
                    let last = changed.insert((it.tenant.clone(), it.metric.clone()), now_ns);
                    prop_assert!(last.is_none_or(|last| now_ns - last >= DWELL_NS), "{} flaps at step {}", it.metric, step);
                }
            }
            // What is stored is read again as it was.
            let stored = serde_json::to_vec(&decided.next).unwrap();
            let mut next: Previous = serde_json::from_slice(&stored).unwrap();
            prop_assert!(next == decided.next);
            for decision in &decided.decisions {
                prop_assert!(decision.sentence.ends_with('.') && !decision.sentence.contains("NaN"), "{}", decision.sentence);
                if decision.outcome == Outcome::WaitsForApproval && rng.random_bool(0.3) {
                    prop_assert!(next.approve(&decision.id));
                }
            }
            // Some embedders are slow to take their plans.
            for (name, plan) in &decided.plans {
                if rng.random_bool(0.7) {
                    versions.insert(name.clone(), plan.version);
                }
            }
            previous = Some(next);
            world.live(&mut rng);
        }
    }
}
