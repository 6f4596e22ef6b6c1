//! Policies that are taken and refused, what has no effect, and that the schema and the example are in step.

use super::tools::{KEY, policy};
use phoenix_control::policy::{Known, Mode, Policy, notes};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn refusal(text: &str) -> String {
    let all = format!("schema: 1\nplan:\n  hash_key: {KEY}\n{text}");
    match Policy::parse(&all) {
        Ok(_) => panic!("taken: {text}"),
        Err(error) => error.to_string().replace("policy refused: ", ""),
    }
}

#[test]
fn the_least_policy_observes() {
    let policy = Policy::parse(&format!("schema: 1\nplan: {{ hash_key: {KEY} }}\n")).unwrap();
    assert_eq!(policy.mode, Mode::Observe);
    assert_eq!(policy.change.dwell.to_string(), "15m");
    let json = serde_json::to_string(&policy).unwrap();
    assert_eq!(Policy::parse(&json).unwrap(), policy, "what is written is read again");
}

#[test]
fn a_refusal_names_field_value_and_range() {
    for (text, expected) in [
        ("mod: auto\n", "field mod: allowed: no such field; known here: schema, mode"),
        (
            "mode: automatic\n",
            "field mode: value \"automatic\" is not allowed; allowed: observe, recommend, auto",
        ),
        ("interval: 100ms\n", "field interval: value 100ms is not allowed; allowed: 1s to 1h"),
        ("interval: soon\n", "field interval: value \"soon\" is not allowed; allowed: a duration"),
        (
            "tenants: [{ name: a, active_series: 0 }]\n",
            "field tenants[0].active_series: value 0 is not allowed; allowed: 1 to 4000000000",
        ),
        (
            "tenants: [{ name: a, active_series: 10, reserved: 11 }]\n",
            "field tenants[0].reserved: value 11 is not allowed; allowed: 0 to active_series, 10",
        ),
        (
            "tenants: [{ name: a, active_series: 9 }, { name: a, active_series: 8 }]\n",
            "field tenants[1].name: value \"a\" is not allowed; allowed: each tenant once",
        ),
        (
            "tenants:\n  - name: a\n    active_series: 100\n    teams:\n      - { name: cart, metrics: [{ prefix: x. }], active_series: 60 }\n      - { name: pay, metrics: [{ prefix: y. }], active_series: 41 }\n",
            "field tenants[0].teams[1].active_series: value 41 is not allowed; allowed: parts of at most the tenant's 100 together",
        ),
        (
            "tenants: [{ name: a, active_series: 10 }]\nmetrics: [{ tenant: a, metric: { exact: m }, active_series: 11 }]\n",
            "field metrics[0].active_series: value 11 is not allowed; allowed: at most the budget of its tenant, 10",
        ),
        (
            "active_series: 5\ntenants: [{ name: a, active_series: 10, reserved: 6 }]\n",
            "field tenants[0].reserved: value 6 is not allowed; allowed: parts of at most active_series, 5, together",
        ),
        (
            "change: { dwell: 11m }\n",
            "field change.dwell: value 11m is not allowed; allowed: at least 12m, change.switch_lead + plan.stream_expiry",
        ),
        (
            "change: { aim_percent: 70, restore_below_percent: 70 }\n",
            "field change.restore_below_percent: value 70 is not allowed; allowed: less than change.aim_percent, 70",
        ),
        (
            "reports: { silent_after: 10s }\n",
            "field reports.silent_after: value 10s is not allowed; allowed: 30s to 24h",
        ),
        ("fold: { window: 0s }\n", "field fold.window: value \"0s\" is not allowed; allowed: 1s to 1h"),
        ("fold: { delay: 20m }\n", "field plan.stream_expiry: value \"10m\" is not allowed; allowed: 2430s"),
        (
            "folds: [{ name: f, metric: { exact: m }, labels: { drop: {} } }]\n",
            "field folds[0].labels.drop: allowed: at least one label",
        ),
        (
            "folds: [{ name: f, metric: { exact: m }, labels: { drop: { attributes: [a, a] } } }]\n",
            "field folds[0].labels.drop.attributes[1]: value \"a\" is not allowed; allowed: each label once",
        ),
        (
            "protect: [{ metric: { prefix: http. }, labels: [route] }]\nfolds: [{ name: f, metric: { exact: http.requests }, labels: { drop: { attributes: [route] } } }]\n",
            "field folds[0].labels.drop: value \"route\" is not allowed; allowed: labels that protect[0] does not name",
        ),
        (
            "protect: [{ labels: [phoenix_writer] }]\n",
            "field protect: value \"phoenix_writer\" is not allowed; allowed: a label other than writer_label",
        ),
        (
            "queries: [{ files: [] }]\n",
            "field queries[0].files: value [] is not allowed; allowed: at least one file",
        ),
        ("prices: { per_gb: -1 }\n", "field prices.per_gb: value -1 is not allowed; allowed: 0 to 1000000"),
        ("tenants: {\n", "allowed: well-formed YAML"),
    ] {
        let found = refusal(text);
        assert!(found.starts_with(expected), "{text}\n  {found}\n  {expected}");
    }
    let key = Policy::parse("schema: 1\nplan: { hash_key: 0123 }\n").unwrap_err().to_string();
    assert!(!key.contains("0123") && key.contains("plan.hash_key"), "{key}");
}

#[test]
fn what_has_no_effect_is_said_with_the_reason() {
    let it = policy(
        "mode: auto
tenants:
  - { name: shop, active_series: 1000, priority: high, mode: auto }
metrics:
  - { metric: { prefix: http. }, active_series: 50 }
  - { metric: { exact: http.requests }, active_series: 20 }
  - { metric: { glob: 'nothing.*' }, active_series: 20 }
protect:
  - { labels: [service.name, route] }
  - { metric: { exact: http.requests }, labels: [route] }
folds:
  - { name: all, metric: { glob: '*' }, labels: { drop: { attributes: [pod] } } }
  - { name: some, metric: { prefix: http. }, labels: { drop: { attributes: [ip] } } }
",
    );
    let known = Known {
        metrics: [("shop".to_owned(), "http.requests".to_owned())].into(),
        labels: ["route".to_owned(), "pod".to_owned()].into(),
    };
    let found = notes(&it, Some(&known));
    assert_eq!(
        found,
        [
            "tenants[0].mode: is that of the whole policy anyway",
            "tenants[0].priority: there is no other tenant to come before or after",
            "metrics[1]: metrics[0] comes first and matches all of it",
            "metrics[2].metric: glob \"nothing.*\" matches none of the metrics that are reported",
            "protect[0].labels[0]: service.name is never folded anyway",
            "protect[1].labels[0]: route is protected by an earlier entry",
            "folds[1]: folds[0] comes first and matches all of it",
            "prices: none is given, so savings are told in series, samples and bytes only",
        ]
    );
}

fn phoenix(arguments: &[&str]) -> (bool, String, String) {
    let out =
        Command::new(env!("CARGO_BIN_EXE_phoenix")).current_dir(root()).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.success(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn the_schema_in_the_documents_is_that_of_the_command() {
    let (ok, printed, _) = phoenix(&["policy", "schema"]);
    let committed = std::fs::read_to_string(root().join("docs/policy.schema.json")).unwrap_or_default();
    assert!(
        ok && printed == committed,
        "docs/policy.schema.json is old: cargo run -p phoenix-control -- policy schema > docs/policy.schema.json"
    );
}

#[test]
fn the_example_is_good_and_every_line_of_it_has_an_effect() {
    let (ok, printed, errors) = phoenix(&["policy", "check", "deploy/policy.yaml"]);
    assert!(ok, "{errors}");
    assert!(printed.starts_with("deploy/policy.yaml: good: mode observe"), "{printed}");
    assert!(!printed.contains("note:"), "{printed}");
}

#[test]
fn a_bad_policy_fails_the_command() {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), format!("schema: 1\nplan: {{ hash_key: {KEY} }}\ninterval: 0s\n")).unwrap();
    let (ok, _, errors) = phoenix(&["policy", "check", file.path().to_str().unwrap()]);
    assert!(!ok && errors.contains("field interval: value 0s is not allowed; allowed: 1s to 1h"), "{errors}");
}
