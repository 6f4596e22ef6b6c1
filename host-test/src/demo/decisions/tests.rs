//! The judge of decisions must be able to say no.

use super::super::gateways::{NODES, Pushes};
use super::text::{document, render};
use super::{Decision, End, Story, Taken};
use crate::shop::leak::METRIC;
use serde_json::{Value, json};

const S: u64 = 1_000_000_000;
/// When the run begins, and when the mode changes.
const T0: u64 = 1_000 * S;
const AUTO: u64 = T0 + 20 * S;

fn decision(second: u64, metric: &str, action: &str, outcome: Value) -> Decision {
    let labels = if action == "fold" { json!([{ "key": "user_id", "resource": false }]) } else { json!([]) };
    let effective = (!metric.is_empty()).then_some("1970-01-01T00:17:20Z");
    serde_json::from_value(json!({
        "id": "x", "at_ns": T0 + second * S, "tenant": "shop", "metric": metric, "action": action, "labels": labels,
        "outcome": outcome, "effective": effective, "sentence": format!("{action} {metric}."),
    }))
    .unwrap()
}

fn in_force(version: u64) -> Value {
    json!({ "outcome": "in_force", "version": version })
}

/// A run as it should be.
fn right() -> Story {
    let took = |version: u64, at_ns| {
        NODES.map(|node| Taken { node: node.to_owned(), version: format!("v{version}"), at_ns })
    };
    Story {
        begin_ns: T0,
        auto_ns: AUTO,
        end_ns: 0,
        decisions: vec![
            decision(1, "", "enforce", json!({ "outcome": "would_be_done" })),
            decision(21, "", "enforce", in_force(4)),
            decision(25, METRIC, "fold", in_force(5)),
            decision(50, METRIC, "restore", in_force(7)),
        ],
        taken: [
            took(2, T0),
            took(4, T0 + 21 * S + 5),
            took(5, T0 + 25 * S + 40_000_000),
            took(8, T0 + 51 * S),
        ]
        .concat(),
        numbers: [2, 4, 5, 8].map(|number| (format!("v{number}"), number)).into(),
        ends: NODES
            .map(|node| End {
                node: node.to_owned(),
                published: (8, "v8".to_owned()),
                taken: "v8".to_owned(),
                reported: 8,
                refused: None,
                pushes: Pushes { taken: 4, refused: 0 },
            })
            .to_vec(),
        audit: "12 lines, whole".to_owned(),
        failures: vec![],
    }
}

fn judged(change: impl FnOnce(&mut Story)) -> Story {
    let mut story = right();
    change(&mut story);
    story.judge(true, true);
    story
}

fn check(story: &Story, part: &str) {
    assert!(story.failures.iter().any(|text| text.contains(part)), "{part}: {:?}", story.failures);
    assert!(render(story).contains("FAILED"));
    assert_eq!(document(story)["failures"].as_array().unwrap().len(), story.failures.len());
}

#[test]
fn a_right_story_holds_and_is_told() {
    let story = judged(|_| {});
    assert_eq!(story.failures, Vec::<String>::new());
    assert!(story.is_acting());
    let fold = story.fold().unwrap();
    assert_eq!(fold.effective_ns(), Some(1_040 * S));
    assert_eq!(story.took(fold, NODES[1]).unwrap().as_millis(), 40);
    let text = render(&story);
    let at = "    25.0 s  auto      fold login_attempts.";
    assert!(text.contains(at), "{text}");
    assert!(text.contains("after 40 ms; it holds from 40.0 s on"), "{text}");
    assert_eq!(document(&story)["decisions"][2]["taken_after_ms"][NODES[0]], 40.0);
}

#[test]
fn what_is_enforced_while_it_observes_fails() {
    check(&judged(|it| it.auto_ns = T0 + 26 * S), "in force while the shop was observed");
    check(&judged(|it| it.auto_ns = 0), "never said auto");
    check(&judged(|it| drop(it.decisions.remove(0))), "nothing was said while");
}

#[test]
fn a_decision_that_is_missing_or_another_fails() {
    check(&judged(|it| it.decisions.truncate(2)), "nothing was decided about login_attempts");
    check(&judged(|it| it.decisions[2].labels[0].key = "route".to_owned()), "not user_id alone");
    check(&judged(|it| it.decisions.truncate(3)), "was not restored");
    check(&judged(|it| it.decisions.push(it.decisions[2].clone())), "to and fro");
    let mut short = right();
    short.decisions.truncate(3);
    short.judge(true, false);
    assert_eq!(short.failures, Vec::<String>::new());
}

#[test]
fn a_gateway_that_does_not_follow_fails() {
    let deaf = judged(|it| it.taken.retain(|taken| taken.node == NODES[0] || taken.version.as_str() < "v5"));
    check(&deaf, "phoenix-gateway-b never took: fold");
    assert!(!judged(|it| it.taken.truncate(2)).is_acting());
    let old = judged(|it| it.ends[1].taken = "v7".to_owned());
    check(&old, "phoenix-gateway-b has \"v7\", the newest for it is plan 8, \"v8\"");
    let behind = judged(|it| it.ends[1].reported = 6);
    check(
        &behind,
        "the module of phoenix-gateway-b reports that it is under plan 6, the last decision is in plan 7",
    );
    check(&judged(|it| it.ends[0].refused = Some("why".to_owned())), "refused a plan: why");
    check(&judged(|it| it.ends[0].pushes.refused = 1), "1 refused");
    check(&judged(|it| it.ends.truncate(1)), "1 of 2 gateways");
}
