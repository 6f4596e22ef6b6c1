//! Every refusal, a line a case: what is changed in a good plan, and the exact text that comes of it.
//!
//! A case names the place in the good plan by a JSON pointer and the value put there (`~` removes it), so each differs from a good
//! plan in one thing. Cases that cannot be made so (syntax, fields given twice) stand in a table of whole documents.

use phoenix_plan::Plan;
use serde_json::{Value, json};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A plan with something in every field.
fn good() -> Value {
    json!({
        "schema": 1, "version": 7, "hash_key": KEY, "writer": "gw-0", "clock": "wall", "placement": "gateway",
        "mark_label": "phoenix_folded", "writer_label": "phoenix_writer", "promoted_resource_attributes": ["k8s.pod.name"],
        "tenant": {"header": "x-scope-orgid", "default": ""}, "sender_header": "x-sender", "shards": 2,
        "first_sample_margin": "2s", "stream_expiry": "10m",
        "limits": {"streams_max": 1000},
        "rules": [
            {"name": "keep", "metric": {"prefix": "slo."}, "pipeline": "full_fidelity"},
            {"name": "web", "metric": {"glob": "http.*"}, "resource": [{"key": "env", "equals": "prod"}],
             "attributes": [{"key": "pod", "exists": true}], "pipeline": "optimized",
             "fold": {"labels": {"drop": {"resource": ["k8s.pod.name"], "attributes": ["pod", "ip"]}},
                      "window": "15s", "offset": "500ms", "delay": "60s", "output_temporality": "cumulative"}},
            {"name": "rest", "metric": {"exact": "jobs"}, "pipeline": "optimized",
             "fold": {"labels": {"keep": {"resource": ["service.name"], "attributes": ["queue"]}}}},
        ],
    })
}

/// The good plan with `value` at `pointer`; `~` removes what is there.
fn with(pointer: &str, value: &str) -> String {
    let mut plan = good();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = plan.pointer_mut(parent).unwrap_or_else(|| panic!("no {pointer}"));
    match (parent, value) {
        (Value::Object(fields), "~") => drop(fields.remove(name)),
        (Value::Object(fields), _) => {
            drop(fields.insert(name.to_owned(), serde_json::from_str(value).unwrap()))
        }
        (Value::Array(items), _) => {
            items[name.parse::<usize>().unwrap()] = serde_json::from_str(value).unwrap()
        }
        _ => panic!("no parent of {pointer}"),
    }
    plan.to_string()
}

/// The refusal's text without its first words and without line and column, which the cases would repeat.
fn refusal(plan: &str) -> String {
    let error = match Plan::parse(plan.as_bytes()) {
        Ok(_) => return "accepted".to_owned(),
        Err(error) => error,
    };
    let text = phoenix_plan::PlanError { at: None, ..error }.to_string();
    text.strip_prefix("plan refused: ").unwrap().to_owned()
}

#[test]
fn the_good_plan_is_good() {
    assert_eq!(refusal(&good().to_string()), "accepted");
}

#[test]
#[rustfmt::skip]
fn one_thing_wrong() {
    let cases = include_str!("refusals.txt").lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut wrong = Vec::new();
    let mut count = 0;
    for (index, line) in cases {
        let parts: Vec<&str> = line.splitn(3, " | ").map(str::trim).collect();
        let [pointer, value, expected] = parts[..] else { panic!("line {}: three parts", index + 1) };
        let value = repeated(value);
        let got = refusal(&with(pointer, &value));
        count += 1;
        if got != expected {
            wrong.push(format!("line {}: {pointer} | {value:.60}\n  expected: {expected}\n  got:      {got}", index + 1));
        }
    }
    assert!(count >= 100, "only {count} cases were read");
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// Writes out `{{text*n}}`, so that a case with a long value stays a line.
fn repeated(value: &str) -> String {
    let Some((before, rest)) = value.split_once("{{") else { return value.to_owned() };
    let (inside, after) = rest.split_once("}}").unwrap();
    let (text, n) = inside.rsplit_once('*').unwrap();
    format!("{before}{}{after}", text.repeat(n.parse().unwrap()))
}

#[test]
fn not_even_a_document() {
    let whole = [
        ("", "plan refused: line 1 column 0: allowed: well-formed JSON (EOF while parsing a value)"),
        ("nonsense", "plan refused: line 1 column 2: allowed: well-formed JSON (expected ident)"),
        (
            "{\"schema\": 1,\n \"version\" 2}",
            "plan refused: line 2 column 12: allowed: well-formed JSON (expected `:`)",
        ),
        (
            "{\"schema\": 1",
            "plan refused: line 1 column 12: allowed: well-formed JSON (EOF while parsing an object)",
        ),
        ("[]", "plan refused: line 1 column 0: value (a list) is not allowed; allowed: an object"),
        ("3", "plan refused: line 1 column 1: value 3 is not allowed; allowed: an object"),
        (
            "{\"schema\":1,\"schema\":1}",
            "plan refused: line 1 column 20: field schema: allowed: the field once, not twice",
        ),
        (
            "{\"a b\":1}",
            "plan refused: line 1 column 6: field \"a b\": allowed: no such field; known here: schema, version, hash_key, writer, clock, placement, mark_label, writer_label, promoted_resource_attributes, tenant, sender_header, affinity, shards, first_sample_margin, stream_expiry, limits, measure, budgets, rules",
        ),
    ];
    for (document, expected) in whole {
        assert_eq!(Plan::parse(document.as_bytes()).unwrap_err().to_string(), expected, "{document}");
    }
    let trailing = format!("{} x", good());
    assert!(
        Plan::parse(trailing.as_bytes())
            .unwrap_err()
            .to_string()
            .ends_with("allowed: nothing after the document")
    );
    let large = vec![b' '; phoenix_plan::bounds::PLAN_BYTES + 1];
    assert_eq!(
        Plan::parse(&large).unwrap_err().to_string(),
        "plan refused: value of 4194305 bytes is not allowed; allowed: a document of at most 4194304 bytes"
    );
    let deep = "[".repeat(100_000);
    assert!(Plan::parse(deep.as_bytes()).is_err());
    let deep = format!("{{\"rules\":{}", "[".repeat(100_000));
    assert!(Plan::parse(deep.as_bytes()).is_err());
    assert!(Plan::parse(b"{\"writer\":\"\xff\"}").is_err());
}

#[test]
fn the_example_of_the_documentation() {
    let error = Plan::parse(with("/rules/1/fold/window", "\"0s\"").as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plan refused: rule 2 \"web\": field fold.window: value \"0s\" is not allowed; allowed: 1s to 1h"
    );
    assert_eq!(error.rule, Some((1, "web".to_owned())));
    assert_eq!(error.at, None);
}

#[test]
fn the_key_is_never_shown() {
    for (pointer, key) in
        [("/hash_key", format!("\"{}\"", "7".repeat(63))), ("/hash_key", format!("\"{}\"", "0".repeat(64)))]
    {
        let text = Plan::parse(with(pointer, &key).as_bytes()).unwrap_err().to_string();
        assert!(!text.contains("777") && !text.contains("000"), "{text}");
    }
    let misplaced = format!("[1, 1, \"{}\"]", "7".repeat(64));
    for document in [
        misplaced.clone(),
        format!("{{\"tenant\": {misplaced}}}"),
        format!("{{\"version\": {{\"k\": {misplaced}}}}}"),
    ] {
        let text = Plan::parse(document.as_bytes()).unwrap_err().to_string();
        assert!(!text.contains("777"), "{text}");
    }
    let numeric = Plan::parse(with("/hash_key", "777777777777").as_bytes()).unwrap_err().to_string();
    assert!(!numeric.contains("777"), "{numeric}");
}

#[test]
fn a_rule_is_named_inside_a_wrapper_too() {
    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only its reading is looked at")]
    struct Wrapper {
        plan: Plan,
    }
    let wrapped = format!("{{\"plan\": {}}}", with("/rules/1/pipeline", "\"fast\""));
    let error = phoenix_plan::read::<Wrapper>(wrapped.as_bytes()).unwrap_err();
    assert_eq!(error.rule, Some((1, "web".to_owned())));
    assert_eq!(error.field, "pipeline");
    assert_eq!(error.value, "\"fast\"");
    let wrapped = format!("{{\"plan\": {}}}", with("/hash_key", "\"secret\""));
    let error = phoenix_plan::read::<Wrapper>(wrapped.as_bytes()).unwrap_err();
    assert_eq!(error.field, "plan.hash_key");
    assert_eq!(error.value, "(hidden, 6 bytes)");
}

#[test]
fn a_list_of_rules_that_is_too_long() {
    let rule =
        |n: usize| json!({"name": format!("r{n}"), "metric": {"exact": "x"}, "pipeline": "full_fidelity"});
    let mut plan = good();
    plan["rules"] = (0..1_001).map(rule).collect();
    assert_eq!(
        refusal(&plan.to_string()),
        "field rules: value of 1001 rules is not allowed; allowed: at most 1000 rules"
    );
    plan["rules"] = (0..1_000).map(rule).collect();
    assert_eq!(refusal(&plan.to_string()), "accepted");
}
