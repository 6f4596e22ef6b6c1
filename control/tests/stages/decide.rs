//! What is decided: by hand, and for anything.

use super::tools::{S, Stream, Streams, T0, collected, policy, report, stream};
use phoenix_control::decide::{Action, Decided, Outcome, Previous, decide};
use phoenix_control::estimate::{Estimates, estimate};
use phoenix_control::needs::{Declared, LabelKey, Needs};
use phoenix_control::policy::Policy;
use phoenix_plan::{Labels, Pipeline, Plan};
use std::collections::BTreeMap;

mod anything;
mod hold;
mod oracle;

fn key(name: &str) -> LabelKey {
    LabelKey { key: name.to_owned(), resource: false }
}

fn needs(queries: &[(&str, u32, bool)]) -> Needs {
    Needs::new(queries.iter().enumerate().map(|(n, (text, weight, preserve))| Declared {
        place: format!("query {n}"),
        text: (*text).to_owned(),
        weight: *weight,
        preserve: *preserve,
    }))
}

/// Routes and users; of each user a pod.
fn requests(users: u64) -> Vec<Stream> {
    (0..users)
        .map(|n| {
            stream(&[
                ("route", format!("r{}", n % 10)),
                ("user", format!("u{n}")),
                ("pod", format!("p{}", n % 5)),
            ])
        })
        .collect()
}

fn steady(many: u64) -> Vec<Stream> {
    (0..many)
        .map(|n| stream(&[("queue", format!("q{}", n % 50)), ("shard", format!("s{}", n / 50))]))
        .collect()
}

/// One embedder that sees this.
fn seen(metrics: &[(&str, Vec<Stream>)], policy: &Policy, now_ns: u64) -> Estimates {
    let of =
        metrics.iter().map(|(name, streams)| (((*name).to_owned(), "counter".to_owned()), streams.clone()));
    let streams = Streams::from([("shop".to_owned(), of.collect::<BTreeMap<_, _>>())]);
    let all = [report("a", 0, now_ns / S, now_ns, policy, &streams)];
    estimate(&collected(policy, &all, now_ns), policy, now_ns)
}

/// The loop, an interval of a minute at a time.
struct Loop {
    policy: Policy,
    needs: Needs,
    now_ns: u64,
    previous: Option<Previous>,
}

impl Loop {
    fn new(policy: Policy, needs: Needs) -> Loop {
        Loop { policy, needs, now_ns: T0, previous: None }
    }

    fn step(&mut self, metrics: &[(&str, Vec<Stream>)]) -> Decided {
        self.now_ns += 60 * S;
        let estimates = seen(metrics, &self.policy, self.now_ns);
        let decided = decide(&estimates, &self.needs, &self.policy, self.previous.as_ref(), self.now_ns);
        self.previous = Some(decided.next.clone());
        for plan in decided.plans.values().chain([&decided.newcomer]) {
            Plan::parse(&serde_json::to_vec(plan).unwrap()).unwrap();
        }
        decided
    }
}

fn of(decided: &Decided) -> Vec<(&str, Action, Vec<&str>, &Outcome)> {
    let about = |it: &&phoenix_control::decide::Decision| it.action != Action::Enforce;
    let row = |it| {
        let it: &phoenix_control::decide::Decision = it;
        (
            it.metric.as_str(),
            it.action,
            it.labels.iter().map(|label| label.key.as_str()).collect(),
            &it.outcome,
        )
    };
    decided.decisions.iter().filter(about).map(row).collect()
}

const AUTO: &str = "mode: auto\ntenants: [{ name: shop, active_series: 2000 }]\n";

#[test]
fn what_nobody_needs_goes_and_who_exploded_before_who_was_always_large() {
    let mut it = Loop::new(policy(AUTO), needs(&[("sum by (route) (rate(requests_total[5m]))", 1, false)]));
    for _ in 0..12 {
        let decided = it.step(&[("requests", requests(50)), ("jobs", steady(1_500))]);
        assert_eq!(of(&decided), [], "all fits");
    }
    let decided = it.step(&[("requests", requests(5_000)), ("jobs", steady(1_500))]);
    let version = decided.next.version;
    assert_eq!(of(&decided), [("requests", Action::Fold, vec!["user"], &Outcome::InForce { version })]);
    let decision = decided.decisions.iter().find(|it| it.action == Action::Fold).unwrap();
    assert_eq!(decision.inputs.baseline, 50.0, "{decision:#?}");
    assert_eq!(decision.inputs.use_weight, 0);
    let start = decision.sentence.split(':').next().unwrap();
    assert!(
        start.ends_with("series count towards the budget of shop, which is 2,000"),
        "{}",
        decision.sentence
    );
    assert!(
        decision.sentence.contains("user is folded away in requests of shop; no declared query needs it."),
        "{}",
        decision.sentence
    );

    let plan = &decided.plans["a"];
    let rule = &plan.rules[0];
    assert_eq!((rule.tenant.as_deref(), rule.pipeline), (Some("shop"), Pipeline::Optimized));
    assert_eq!(
        rule.fold.as_ref().unwrap().labels,
        Labels::Drop { resource: vec![], attributes: vec!["user".to_owned()] }
    );
    let switch = rule.switch.as_ref().unwrap();
    assert_eq!(switch.from.pipeline, Pipeline::FullFidelity);
    assert_eq!(switch.at.0, it.now_ns / 1_000_000 + 120_000);
    let share = plan.budgets.as_ref().unwrap().tenants[0].active_series;
    assert!(share <= 2_000 - 50, "what the fold leaves is no share: {share}");
    // The same again: nothing is decided, and no plan is new.
    let again = it.step(&[("requests", requests(5_000)), ("jobs", steady(1_500))]);
    assert_eq!(of(&again), []);
    assert_eq!(again.plans["a"].rules, plan.rules);
}

#[test]
fn what_queries_need_goes_last_and_what_is_preserved_never() {
    let queries = needs(&[
        ("sum by (user) (rate(requests_total[5m]))", 5, false),
        ("sum by (queue, shard) (rate(jobs_total[5m]))", 1, true),
    ]);
    let mut it = Loop::new(policy("mode: auto\ntenants: [{ name: shop, active_series: 1000 }]\n"), queries);
    let decided = it.step(&[("requests", requests(5_000)), ("jobs", steady(600))]);
    let decision = decided.decisions.iter().find(|it| it.action == Action::Fold).unwrap();
    // Pod and route save nothing while the user stays: they come back, the user goes.
    assert_eq!((decision.metric.as_str(), decision.labels.as_slice()), ("requests", &[key("user")][..]));
    assert_eq!(
        (decision.inputs.use_weight, decision.inputs.queries.as_slice()),
        (5, &["query 0".to_owned()][..])
    );
    assert!(
        decision.sentence.contains("queries of weight 5 lose their answer (query 0)"),
        "{}",
        decision.sentence
    );
    assert!(decided.next.treatment("shop", "jobs").is_none());

    let mut it = Loop::new(
        policy("mode: auto\ntenants: [{ name: shop, active_series: 1000 }]\nprotect: [{ labels: [user] }]\n"),
        needs(&[("sum by (queue, shard) (rate(jobs_total[5m]))", 1, true)]),
    );
    let decided = it.step(&[("requests", requests(5_000)), ("jobs", steady(600))]);
    let stuck = decided.decisions.iter().find(|it| it.action == Action::Exceeded).unwrap();
    assert!(
        stuck.sentence.contains("requests: no other label would save anything (user: it is protected)"),
        "{}",
        stuck.sentence
    );
    assert!(
        stuck.sentence.contains("jobs: no other label would save anything (queue: query 0 needs it"),
        "{}",
        stuck.sentence
    );
    assert!(decided.plans["a"].rules.is_empty());
    assert!(decided.plans["a"].budgets.as_ref().unwrap().protected_labels.contains(&"user".to_owned()));
}

#[test]
fn a_label_comes_back_when_there_is_room_and_not_before_the_dwell() {
    let mut it = Loop::new(policy(AUTO), Needs::default());
    it.step(&[("requests", requests(50))]);
    let folded = it.step(&[("requests", requests(5_000))]);
    let changed_ns = it.now_ns;
    assert_eq!(of(&folded).len(), 1);
    let mut back_ns = 0;
    for _ in 0..20 {
        let decided = it.step(&[("requests", requests(50))]);
        if let Some((metric, action, labels, outcome)) = of(&decided).first() {
            assert_eq!((*metric, *action, labels.len()), ("requests", Action::Restore, 0));
            assert!(matches!(outcome, Outcome::InForce { .. }), "{outcome:?}");
            let rule = &decided.plans["a"].rules[0];
            assert_eq!(rule.pipeline, Pipeline::FullFidelity);
            assert!(rule.switch.as_ref().unwrap().from.fold.is_some());
            back_ns = it.now_ns;
            break;
        }
    }
    assert_eq!((back_ns - changed_ns) / S, 360, "at the end of the dwell");
    // Two minutes to the switch, four until every stream is forgotten: then the rule is gone.
    for minute in 1..=6 {
        let decided = it.step(&[("requests", requests(50))]);
        assert_eq!(decided.plans["a"].rules.len(), usize::from(minute < 6), "{minute}");
    }
}

#[test]
fn between_folding_and_restoring_nothing_changes() {
    // 2,000 is the budget; 1,900 with the label would be less, and more than three quarters.
    let mut it = Loop::new(policy(AUTO), Needs::default());
    it.step(&[("requests", requests(5_000))]);
    for _ in 0..30 {
        let decided = it.step(&[("requests", requests(1_900))]);
        assert_eq!(of(&decided), []);
    }
}

#[test]
fn observe_says_and_recommend_waits() {
    let observe = "mode: observe\ntenants: [{ name: shop, active_series: 2000 }]\n";
    let mut it = Loop::new(policy(observe), Needs::default());
    let decided = it.step(&[("requests", requests(5_000))]);
    assert_eq!(of(&decided), [("requests", Action::Fold, vec!["user"], &Outcome::WouldBeDone)]);
    let plan = &decided.plans["a"];
    assert!(plan.rules.is_empty() && plan.budgets.is_none() && plan.measure.is_some());
    assert!(decided.saving.wanted.series > 4_000.0 && decided.saving.in_force.series == 0.0);
    assert_eq!(of(&it.step(&[("requests", requests(5_000))])), [], "said once");

    let mut it = Loop::new(policy(&observe.replace("observe", "recommend")), Needs::default());
    let decided = it.step(&[("requests", requests(5_000))]);
    assert_eq!(of(&decided), [("requests", Action::Fold, vec!["user"], &Outcome::WaitsForApproval)]);
    let id = decided.decisions.iter().find(|it| it.action == Action::Fold).unwrap().id.clone();
    assert_eq!(id, "shop/requests=user");
    assert!(it.step(&[("requests", requests(5_000))]).plans["a"].rules.is_empty());
    assert!(!it.previous.as_mut().unwrap().approve("shop/requests=pod"), "nobody asked for that");
    assert!(it.previous.as_mut().unwrap().approve(&id));
    assert!(it.previous.as_mut().unwrap().approve("budget:shop"));
    let decided = it.step(&[("requests", requests(5_000))]);
    assert_eq!(of(&decided).len(), 1);
    assert_eq!(decided.plans["a"].rules.len(), 1);
    assert!(decided.plans["a"].budgets.is_some());
    // And that stays so without being asked again.
    let decided = it.step(&[("requests", requests(5_000))]);
    assert!(decided.plans["a"].rules.len() == 1 && decided.plans["a"].budgets.is_some());
}

#[test]
fn so_many_changes_an_hour_and_the_rest_waits() {
    let text = format!("{AUTO}change: {{ dwell: 6m, switch_lead: 2m, per_hour_max: 2 }}\n");
    let policy = Policy::parse(&format!(
        "schema: 1\nplan:\n  hash_key: {}\n  stream_expiry: 4m\n{text}",
        super::tools::KEY
    ))
    .unwrap();
    let mut it = Loop::new(policy, Needs::default());
    let names = ["m0", "m1", "m2", "m3"];
    let metrics: Vec<(&str, Vec<Stream>)> = names.iter().map(|name| (*name, requests(3_000))).collect();
    let mut in_force = Vec::new();
    for _ in 0..62 {
        let decided = it.step(&metrics);
        in_force.push(decided.next.treatments.iter().filter(|it| !it.in_force.is_empty()).count());
    }
    assert_eq!((in_force[0], in_force[58], in_force[61]), (2, 2, 4), "{in_force:?}");
}

#[test]
fn streams_in_two_embedders_are_not_folded_and_the_reason_is_said() {
    let policy = policy(AUTO);
    let streams = Streams::from([(
        "shop".to_owned(),
        [(("requests".to_owned(), "counter".to_owned()), requests(5_000))].into(),
    )]);
    let both = [report("a", 0, 1, T0, &policy, &streams), report("b", 0, 1, T0, &policy, &streams)];
    let estimates = estimate(&collected(&policy, &both, T0), &policy, T0);
    let decided = decide(&estimates, &Needs::default(), &policy, None, T0);
    assert!(decided.plans["a"].rules.is_empty());
    let stuck = decided.decisions.iter().find(|it| it.action == Action::Exceeded).unwrap();
    assert!(
        stuck.sentence.contains("requests: several embedders see the same streams"),
        "{}",
        stuck.sentence
    );
    // Deltas add up wherever they are.
    let delta = Streams::from([(
        "shop".to_owned(),
        [(("requests".to_owned(), "delta counter".to_owned()), requests(5_000))].into(),
    )]);
    let both = [report("a", 0, 1, T0, &policy, &delta), report("b", 0, 1, T0, &policy, &delta)];
    let estimates = estimate(&collected(&policy, &both, T0), &policy, T0);
    assert_eq!(decide(&estimates, &Needs::default(), &policy, None, T0).plans["a"].rules.len(), 1);
}

#[test]
fn declared_folds_come_and_go_by_a_switch() {
    let fold =
        "folds: [{ name: pods, metric: { exact: requests }, labels: { drop: { attributes: [pod] } } }]\n";
    let mut it = Loop::new(policy(&format!("{AUTO}{fold}")), Needs::default());
    let rule = it.step(&[("requests", requests(50))]).plans["a"].rules[0].clone();
    assert_eq!(
        (rule.name.as_str(), rule.switch.as_ref().unwrap().from.pipeline),
        ("pods", Pipeline::FullFidelity)
    );
    for _ in 0..6 {
        it.step(&[("requests", requests(50))]);
    }
    assert!(
        it.step(&[("requests", requests(50))]).plans["a"].rules[0].switch.is_none(),
        "every stream has crossed"
    );
    it.policy = policy(&format!("{AUTO}{}", fold.replace("[pod]", "[pod, user]")));
    let rule = it.step(&[("requests", requests(50))]).plans["a"].rules[0].clone();
    assert_eq!(rule.switch.unwrap().from.fold.unwrap().labels.mark(), "pod");
    it.policy = policy(AUTO);
    for minute in 0..20 {
        let rules = it.step(&[("requests", requests(50))]).plans["a"].rules.clone();
        match rules.as_slice() {
            [rule] if rule.pipeline == Pipeline::FullFidelity => {
                assert_eq!(
                    rule.switch.as_ref().unwrap().from.fold.as_ref().unwrap().labels.mark(),
                    "pod,user"
                );
            }
            [rule] => assert!(minute < 6 && rule.switch.is_some(), "{minute}"),
            _ => assert!(rules.is_empty() && minute >= 11, "{minute}"),
        }
    }
    assert!(it.previous.unwrap().declared.is_empty());
}
