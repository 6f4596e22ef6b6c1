//! Rollbacks, and declared folds that a plan has no room for.

use super::*;
use phoenix_control::decide::{Change, Decision, Past, Refusal, Rollback, RolledBack, over_budget};

/// The loop with all that it decided, newest first, as a store has it.
struct Story {
    it: Loop,
    decisions: Vec<Decision>,
}

impl Story {
    fn step(&mut self, metrics: &[(&str, Vec<Stream>)]) -> Decided {
        let decided = self.it.step(metrics);
        for decision in &decided.decisions {
            self.decisions.insert(0, decision.clone());
        }
        decided
    }

    fn roll_back(&mut self, to: Option<u64>, minutes: u64) -> Result<usize, Refusal> {
        let wish = Rollback { by: "on call", to, now_ns: self.it.now_ns, for_ns: minutes * 60 * S };
        let previous = self.it.previous.as_mut().unwrap();
        let before = previous.clone();
        let mut past = Past::new(to);
        for decision in &self.decisions {
            let json = serde_json::to_vec(decision).unwrap();
            if !past.take(serde_json::from_slice::<Change>(&json).unwrap()) {
                break;
            }
        }
        let rolled = previous.roll_back(&past, &wish, &self.it.policy).map(|it| it.len());
        assert!(rolled.is_ok() || *previous == before, "a refusal changes nothing");
        rolled
    }
}

fn story() -> Story {
    Story { it: Loop::new(policy(AUTO), Needs::default()), decisions: Vec::new() }
}

fn exploded() -> [(&'static str, Vec<Stream>); 2] {
    [("requests", requests(5_000)), ("jobs", steady(1_500))]
}

fn folds(decided: &Decided) -> Vec<&str> {
    let rules = decided.plans["a"].rules.iter().filter(|it| it.pipeline == Pipeline::Optimized);
    rules.map(|it| it.name.split(' ').next().unwrap()).collect()
}

#[test]
fn while_a_rollback_is_held_nothing_moves_by_itself() {
    let mut it = story();
    for _ in 0..12 {
        it.step(&[("requests", requests(50)), ("jobs", steady(1_500))]);
    }
    assert_eq!(it.roll_back(None, 30), Err(Refusal::Nothing("no fold was ever decided".to_owned())));
    for _ in 0..8 {
        assert_eq!(folds(&it.step(&exploded())), ["requests"]);
    }
    assert_eq!(it.roll_back(None, 30), Ok(1));
    let back = it.step(&exploded());
    assert_eq!(folds(&back), [""; 0], "at once, whatever dwell and budget say");
    assert!(back.plans["a"].rules[0].switch.as_ref().unwrap().from.fold.is_some(), "by a switch");
    let sentence = &back.decisions.iter().find(|it| it.action == Action::Restore).unwrap().sentence;
    assert!(
        sentence
            .starts_with("user comes back in requests of shop: on call has rolled the plan back to version "),
        "{sentence}"
    );
    // The budget is exceeded three times over: what would be done about it waits.
    let of_waiting = |it: &&Decision| it.outcome == Outcome::WaitsForApproval;
    let mut waits: Vec<Decision> = back.decisions.iter().filter(of_waiting).cloned().collect();
    for _ in 1..29 {
        let decided = it.step(&exploded());
        assert_eq!(folds(&decided), [""; 0]);
        waits.extend(decided.decisions.iter().filter(of_waiting).cloned());
        let stuck = decided.decisions.iter().find(|it| it.action == Action::Exceeded);
        assert!(stuck.is_none_or(|it| it.sentence.contains("requests: on call has rolled the plan back")));
    }
    assert!(waits.iter().any(|it| it.metric == "jobs"), "{waits:#?}");
    assert!(waits.iter().all(|it| it.metric != "requests"), "{waits:#?}");
    let decided = it.step(&exploded());
    assert!(folds(&decided).contains(&"requests"), "the hold is over: {:?}", of(&decided));
    assert_eq!(decided.next.hold, None);
}

#[test]
fn what_waits_while_a_rollback_is_held_may_be_approved() {
    let mut it = story();
    for _ in 0..8 {
        it.step(&exploded());
    }
    it.roll_back(None, 60).unwrap();
    let waits = it.step(&exploded());
    let jobs = waits.decisions.iter().find(|it| it.metric == "jobs").unwrap();
    assert_eq!(jobs.outcome, Outcome::WaitsForApproval);
    assert!(it.it.previous.as_mut().unwrap().approve(&jobs.id));
    assert_eq!(folds(&it.step(&exploded())), ["jobs"]);
}

#[test]
fn a_switch_that_is_under_way_is_waited_for() {
    let mut it = story();
    it.step(&exploded());
    it.roll_back(None, 60).unwrap();
    let mut way = Vec::new();
    for _ in 0..8 {
        let decided = it.step(&exploded());
        way.push(folds(&decided).contains(&"requests"));
        let held = decided.decisions.iter().find(|it| matches!(it.outcome, Outcome::Held { .. }));
        let about = held.filter(|it| it.metric == "requests");
        assert!(about.is_none_or(|it| it.sentence.contains("the switch at ")), "{about:#?}");
    }
    // Two minutes ahead, and four until every stream has crossed.
    assert_eq!(way, [true, true, true, true, true, false, false, false]);
}

#[test]
fn a_version_further_back_takes_everything_since_and_what_came_back_folds_again() {
    let mut it = story();
    let quiet = [("requests", requests(50)), ("jobs", steady(100))];
    it.step(&quiet);
    let first = it.step(&exploded()).next.version;
    for _ in 0..20 {
        it.step(&exploded());
    }
    let mut restored = 0;
    for _ in 0..20 {
        let decided = it.step(&quiet);
        if decided.decisions.iter().any(|it| it.action == Action::Restore) {
            restored = decided.next.version;
        }
    }
    assert!(restored > first);
    assert_eq!(folds(&it.step(&quiet)), [""; 0]);
    assert_eq!(it.roll_back(Some(restored - 1), 60), Ok(1));
    assert_eq!(folds(&it.step(&quiet)), ["requests"], "as it was at that version");
    for _ in 0..8 {
        it.step(&quiet);
    }
    assert!(matches!(it.roll_back(None, 60), Err(Refusal::Nothing(why)) if why.contains("further back")));
    assert_eq!(it.roll_back(Some(first - 1), 60), Ok(1));
    assert_eq!(folds(&it.step(&quiet)), [""; 0]);
    let newest = it.it.previous.as_ref().unwrap().version;
    for to in [first - 1, first, newest - 1] {
        let why = it.roll_back(Some(to), 60);
        let wanted = format!("to: {to}; allowed: 0 to {}, a version further back: ", first - 2);
        assert!(matches!(&why, Err(Refusal::Range(it)) if it.starts_with(&wanted)), "{why:?}");
    }
    for to in [newest, u64::MAX] {
        let why =
            format!("to: {to}; allowed: 0 to {}, a version before the newest, which is {newest}", newest - 1);
        assert_eq!(it.roll_back(Some(to), 60), Err(Refusal::Range(why)));
    }
    for minutes in [0, 31 * 24 * 60] {
        assert!(
            matches!(it.roll_back(Some(0), minutes), Err(Refusal::Range(why)) if why.contains("hold_seconds: "))
        );
    }
}

#[test]
fn a_declared_fold_that_no_plan_has_room_for_waits_and_is_said() {
    let folds = "mode: auto\nfolds: [{ name: by pod, metric: { exact: requests }, labels: { drop: { attributes: [pod] } } }]\n";
    let mut it = Loop::new(policy(folds), Needs::default());
    it.step(&[("requests", requests(50))]);
    // A policy was edited so often within the time of a switch that a plan is full of folds on their way out.
    let mut previous = serde_json::to_value(it.previous.as_ref().unwrap()).unwrap();
    let mut leaving = previous["declared"][0].clone();
    leaving["before"] = leaving["fold"]["labels"].clone();
    leaving["is_on"] = false.into();
    let all = (0..1_000).map(|n| {
        let mut one = leaving.clone();
        one["fold"]["name"] = format!("old {n}").into();
        one
    });
    previous["declared"] = all.collect();
    it.previous = Some(serde_json::from_value(previous).unwrap());
    let decided = it.step(&[("requests", requests(50))]);
    assert_eq!(decided.plans["a"].rules.len(), 1_000, "and every plan is one that the module takes");
    let said = decided.decisions.iter().find(|it| it.id == "declared:by pod").unwrap();
    assert!(
        matches!(&said.outcome, Outcome::Held { why } if why.contains("a plan has 1000 rules")),
        "{said:#?}"
    );
    for _ in 0..8 {
        it.step(&[("requests", requests(50))]);
    }
    let decided = it.step(&[("requests", requests(50))]);
    let names: Vec<&str> = decided.plans["a"].rules.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["by pod"], "there is room again");
}

#[test]
fn what_comes_back_is_weighed_against_every_budget() {
    let mut it = story();
    for _ in 0..8 {
        it.step(&exploded());
    }
    let previous = it.it.previous.clone().unwrap();
    let user: std::collections::BTreeSet<LabelKey> = [key("user")].into();
    let back = RolledBack {
        tenant: "shop".to_owned(),
        metric: "requests".to_owned(),
        from: user.clone(),
        to: Default::default(),
        waits: None,
    };
    let weigh = |metrics: &[(&str, Vec<Stream>)], rolled: &RolledBack| {
        let estimates = seen(metrics, &it.it.policy, it.it.now_ns);
        over_budget(&previous, std::slice::from_ref(rolled), &estimates, &it.it.needs, &it.it.policy)
    };
    let why = weigh(&exploded(), &back).unwrap();
    assert!(why.starts_with("force: false; "), "{why}");
    assert!(
        why.contains("series would count towards the budget of shop, which is 2,000, and no budget bounds them until 4m after the switch"),
        "{why}"
    );
    assert_eq!(weigh(&[("requests", requests(50)), ("jobs", steady(1_500))], &back), None, "it fits");
    let again = RolledBack { from: Default::default(), to: user, ..back.clone() };
    assert_eq!(weigh(&exploded(), &again), None, "a fold adds nothing");
    // Nobody is heard: nobody knows.
    let nobody = Estimates { at_ns: it.it.now_ns, ..Estimates::default() };
    let why = over_budget(&previous, &[back], &nobody, &it.it.needs, &it.it.policy).unwrap();
    assert!(why.contains("is not known before every embedder"), "{why}");
}

#[test]
fn a_second_rollback_does_not_bring_back_what_the_first_took() {
    let mut it = story();
    let jobs = |many| [("requests", requests(5_000)), ("jobs", steady(many))];
    it.step(&[("requests", requests(50)), ("jobs", steady(100))]);
    for _ in 0..8 {
        it.step(&jobs(100));
    }
    assert_eq!(it.roll_back(None, 30), Ok(1));
    // Fewer, so that the loop does not fold it again by itself.
    for _ in 0..40 {
        assert_eq!(folds(&it.step(&[("requests", requests(50)), ("jobs", steady(100))])), [""; 0]);
    }
    assert_eq!(it.it.previous.as_ref().unwrap().hold, None);
    assert!(it.decisions.iter().any(|it| it.by_rollback.is_some()));
    let again = it.roll_back(None, 30);
    assert!(
        matches!(&again, Err(Refusal::Nothing(why)) if why.contains("is taken back already")),
        "{again:?}"
    );
    // A version, said by somebody, is what they want.
    let before = it.decisions.iter().find(|it| it.by_rollback.is_some()).unwrap().outcome.clone();
    let Outcome::InForce { version } = before else { panic!("{before:?}") };
    assert_eq!(it.roll_back(Some(version - 1), 30), Ok(1));
}

#[test]
fn a_hold_does_not_fold_what_is_protected_now() {
    let mut it = story();
    let quiet = [("requests", requests(50)), ("jobs", steady(100))];
    it.step(&quiet);
    for _ in 0..20 {
        it.step(&exploded());
    }
    for _ in 0..20 {
        it.step(&quiet);
    }
    let restored = it.decisions.iter().find(|it| it.action == Action::Restore).unwrap().outcome.clone();
    let Outcome::InForce { version } = restored else { panic!("{restored:?}") };
    it.roll_back(Some(version - 1), 60).unwrap();
    it.it.policy = policy(&format!("{AUTO}protect: [{{ labels: [user] }}]\n"));
    let decided = it.step(&quiet);
    assert_eq!(folds(&decided), [""; 0]);
    let said = decided.decisions.iter().find(|it| it.id == "held:shop/requests").unwrap();
    assert!(
        said.sentence.contains("is not held any more") && said.sentence.contains("user: it is protected"),
        "{said:#?}"
    );
    assert!(decided.next.hold.unwrap().metrics.is_empty());
    assert_eq!(of(&it.step(&quiet)), [], "said once");
}

/// Two embedders that see the same streams.
fn twice(it: &mut Loop, many: u64) -> Decided {
    it.now_ns += 60 * S;
    let of = [(("requests".to_owned(), "counter".to_owned()), requests(many))].into();
    let streams = Streams::from([("shop".to_owned(), of)]);
    let one = |name| report(name, 0, it.now_ns / S, it.now_ns, &it.policy, &streams);
    let estimates = estimate(&collected(&it.policy, &[one("a"), one("b")], it.now_ns), &it.policy, it.now_ns);
    let decided = decide(&estimates, &it.needs, &it.policy, it.previous.as_ref(), it.now_ns);
    it.previous = Some(decided.next.clone());
    decided
}

#[test]
fn a_hold_never_lets_a_fold_inflate() {
    let quiet = [("requests", requests(50))];
    let mut it = story();
    it.step(&quiet);
    for _ in 0..20 {
        it.step(&[("requests", requests(5_000))]);
    }
    // What somebody else rolls back leaves this fold in force; then two see its streams.
    let hold = phoenix_control::decide::Hold {
        by: "on call".to_owned(),
        to: 1,
        at_ns: it.it.now_ns,
        until_ns: it.it.now_ns + 3_600 * S,
        metrics: vec![phoenix_control::decide::HeldMetric {
            tenant: "shop".to_owned(),
            metric: "requests".to_owned(),
            labels: [key("user")].into(),
        }],
    };
    let start = it.it.previous.clone().unwrap();
    it.it.previous.as_mut().unwrap().hold = Some(hold.clone());
    let back = (0..20).find(|_| folds(&twice(&mut it.it, 500)).is_empty());
    assert_eq!(back, Some(10), "after a period, and by itself");
    assert!(it.it.previous.as_ref().unwrap().hold.is_some(), "the hold of all else stands");

    // One that would fold anew is not.
    let mut it = Loop { previous: Some(start), ..it.it };
    let treatment = &mut it.previous.as_mut().unwrap().treatments[0];
    (treatment.wanted, treatment.in_force, treatment.before) = Default::default();
    it.previous.as_mut().unwrap().hold = Some(phoenix_control::decide::Hold { until_ns: u64::MAX, ..hold });
    let decided = twice(&mut it, 500);
    assert_eq!(folds(&decided), [""; 0]);
    assert!(
        decided.decisions.iter().any(|it| it.sentence.contains("count those twice")),
        "{:#?}",
        decided.decisions
    );
    for _ in 0..15 {
        assert_eq!(folds(&twice(&mut it, 500)), [""; 0]);
    }
}

#[test]
fn what_the_mode_observe_turns_off_is_in_history() {
    let mut it = story();
    it.step(&[("requests", requests(50))]);
    for _ in 0..20 {
        it.step(&[("requests", requests(5_000))]);
    }
    it.it.policy = policy(&AUTO.replace("auto", "observe"));
    let decided = it.step(&[("requests", requests(5_000))]);
    let version = decided.next.version;
    assert_eq!(of(&decided), [("requests", Action::Restore, vec![], &Outcome::InForce { version })]);
    let sentence = &decided.decisions.iter().find(|it| it.action == Action::Restore).unwrap().sentence;
    assert!(sentence.starts_with("user comes back in requests of shop: the mode is observe"), "{sentence}");
    let decided = it.step(&[("requests", requests(5_000))]);
    assert_eq!(of(&decided), [("requests", Action::Fold, vec!["user"], &Outcome::WouldBeDone)]);
}
