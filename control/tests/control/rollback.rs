//! Folds taken back by hand: what changes, how long it holds, and that neither a kill nor a wrong word loses it. And the account of budgets.

use super::host::{Control, PATIENCE, audit, now_ns, streams, text};
use crate::tools::{KEY, report};
use phoenix_control::policy::Policy;
use prost::Message as _;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// A policy under which a switch is over after seconds.
fn quick(mode: &str) -> String {
    format!(
        "schema: 1\nmode: {mode}\ninterval: 1s\nplan:\n  hash_key: {KEY}\n  measure: {{ period: 15s }}\n  stream_expiry: 4s\n\
         fold: {{ window: 1s, delay: 1s }}\nchange: {{ dwell: 6s, switch_lead: 2s, per_hour_max: 1000 }}\n\
         prices: {{ model: active_series, currency: EUR }}\n\
         tenants: [{{ name: shop, active_series: 500 }}]\n"
    )
}

/// A fleet of one embedder, that reports while somebody waits.
struct Fleet {
    folder: tempfile::TempDir,
    policy: Policy,
    sequence: u64,
}

impl Fleet {
    fn new(mode: &str) -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        let text = quick(mode);
        fs::write(folder.path().join("policy.yaml"), &text).unwrap();
        Fleet { folder, policy: Policy::parse(&text).unwrap(), sequence: 0 }
    }

    fn until<T>(&mut self, control: &Control, what: &str, is_so: impl Fn(&Control) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            self.sequence += 1;
            let all = streams();
            let body = report("gateway-a@1", 0, self.sequence, now_ns(), &self.policy, &all).encode_to_vec();
            assert_eq!(control.report(&body).0, 202);
            if let Some(found) = is_so(control) {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "{what}: {:#}", control.get("/api/v1/status"));
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// What the plan of the gateway does to the metric.
fn rule(control: &Control) -> Option<Value> {
    control.get("/api/v1/plan?node=gateway-a")["plan"]["rules"].get(0).cloned()
}

fn folds(control: &Control) -> bool {
    rule(control).is_some_and(|it| it["pipeline"] == "optimized")
}

#[test]
fn a_rollback_is_seamless_holds_and_survives_a_kill() {
    let mut fleet = Fleet::new("auto");
    let path = fleet.folder.path().to_owned();
    let mut control = Control::start(&path, &[]);
    let said = control.phoenix(&["plan", "rollback"]);
    assert!(!said.status.success() && text(&said).contains("no fold was ever decided"), "{}", text(&said));
    fleet.until(&control, "a fold", |it| folds(it).then_some(()));

    let said = text(&control.phoenix(&["plan", "diff"]));
    assert!(said.contains("drops user from ") && said.contains("until then raw"), "{said}");
    let budget: Value =
        serde_json::from_slice(&control.phoenix(&["budget", "--tenant", "shop", "--json"]).stdout).unwrap();
    assert_eq!(budget["currency"], "EUR");
    let [of_shop, of_requests] = &budget["lines"].as_array().unwrap()[..] else { panic!("{budget:#}") };
    assert_eq!((&of_shop["metric"], &of_shop["budget"]), (&Value::Null, &json!(500)));
    assert_eq!(of_requests["metric"], "requests");
    let number = |it: &Value, field: &str| it[field].as_f64().unwrap();
    for line in [of_shop, of_requests] {
        let (came, went) = (number(line, "series_in"), number(line, "series_out"));
        assert!((900.0..1_100.0).contains(&came) && went < 20.0, "{line:#}");
        let saved = &line["saved"];
        assert!((number(saved, "series") - (came - went)).abs() < 0.01, "{line:#}");
        assert!((number(saved, "money") - (came - went) * 0.008).abs() < 0.01, "8 for a thousand: {line:#}");
        assert!(number(saved, "samples") > 0.0 && number(saved, "bytes") > 0.0, "{line:#}");
    }
    assert!((number(of_shop, "headroom") - (500.0 - number(of_shop, "series_out"))).abs() < 0.01);
    assert!(of_shop["shares"]["gateway-a@1"].as_u64().is_some_and(|it| it <= 500), "{of_shop:#}");
    let said = text(&control.phoenix(&["budget"]));
    for wanted in ["EUR saved", "requests", "headroom", "gateway-a@1: "] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }

    // The switch of the fold is under way: the way back waits for its end, and says so.
    let said = control.phoenix(&["plan", "rollback", "--for", "1h"]);
    for wanted in
        ["409 Conflict: force: false; ", "count towards the budget of shop, which is 500", "allowed: true"]
    {
        assert!(!said.status.success() && text(&said).contains(wanted), "{wanted}: {}", text(&said));
    }
    assert_eq!(control.get("/api/v1/status")["hold"], Value::Null);
    let said = control.phoenix(&["plan", "rollback", "--for", "1h", "--force"]);
    assert!(said.status.success(), "{}", text(&said));
    for wanted in ["drops user", "raw", "the switch at ", "phoenix plan release"] {
        assert!(text(&said).contains(wanted), "{wanted}: {}", text(&said));
    }
    control.kill();
    let control = Control::start(&path, &[]);
    let hold = control.until("the hold", |it| it["hold"].is_object())["hold"].clone();
    assert_eq!((&hold["by"], &hold["metrics"][0]["labels"]), (&json!("loopback"), &json!([])));

    let metrics = control.call("GET", "/metrics", &[], b"").1;
    assert!(metrics.contains("\nphoenix_control_held 1\n"), "{metrics}");
    let back =
        fleet.until(&control, "the way back", |it| rule(it).filter(|it| it["pipeline"] == "full_fidelity"));
    assert!(back["switch"]["from"]["fold"].is_object(), "by a switch: {back:#}");
    fleet.until(&control, "the end of the switch", |it| rule(it).is_none().then_some(()));
    // Longer than the dwell and several turns: nothing is folded by itself.
    let begin = Instant::now();
    fleet.until(&control, "quiet", |it| {
        assert!(rule(it).is_none(), "it is held: {:#}", rule(it).unwrap());
        (begin.elapsed() > Duration::from_secs(8)).then_some(())
    });
    let decisions = text(&control.phoenix(&["decisions"]));
    assert!(
        decisions.contains("user comes back in requests of shop: loopback has rolled the plan back"),
        "{decisions}"
    );

    // What is refused changes nothing.
    for (arguments, wanted) in [
        (&["plan", "rollback"][..], "409 Conflict: loopback has rolled the plan back to version"),
        (&["plan", "rollback", "--to", "4000000000"], "400 Bad Request: to: 4000000000; allowed: 0 to "),
        (&["plan", "rollback", "--to", "0", "--for", "1s"], "hold_seconds: 1; allowed: 60 to 2592000"),
        (
            &["plan", "rollback", "--to", "0", "--for", "745h"],
            "hold_seconds: 2682000; allowed: 60 to 2592000",
        ),
        (&["plan", "diff", "nobody"], "404 Not Found: node: \"nobody\" has no plan of its own"),
        (&["budget", "--tenant", "nobody"], "404 Not Found: tenant: \"nobody\" is in no report"),
    ] {
        let said = control.phoenix(arguments);
        assert!(!said.status.success() && text(&said).contains(wanted), "{wanted}: {}", text(&said));
    }
    for body in ["{\"to\": -1}", "{\"too\": 1}", "to"] {
        let (status, said) = control.call(
            "POST",
            "/api/v1/plan/rollback",
            &[("content-type", "application/json")],
            body.as_bytes(),
        );
        assert!(status == 400 && said.contains("allowed: the schema of this route"), "{status} {said}");
    }
    assert_eq!(control.get("/api/v1/status")["hold"], hold);

    let said = control.phoenix(&["plan", "release"]);
    assert!(said.status.success(), "{}", text(&said));
    fleet.until(&control, "a fold again", |it| folds(it).then_some(()));
    let said = control.phoenix(&["plan", "release"]);
    assert!(!said.status.success() && text(&said).contains("nothing is held"), "{}", text(&said));
    let (path, log) = audit(&path);
    for wanted in ["\"action\":\"rolled back\"", "\"action\":\"released\"", "hold_seconds: 1; allowed"] {
        assert!(log.contains(wanted), "{wanted}: {log}");
    }
    phoenix_serve::audit::verify(&path, None).unwrap();
}

#[test]
fn what_waits_is_shown_before_it_is_approved() {
    let mut fleet = Fleet::new("recommend");
    let path = fleet.folder.path().to_owned();
    let control = Control::start(&path, &[]);
    let waiting = fleet.until(&control, "a proposal", |it| {
        let waiting = it.get("/api/v1/status")["waiting"].as_array().cloned().unwrap_or_default();
        let of_metric = waiting.iter().filter_map(Value::as_str).find(|id| id.starts_with("shop/"));
        of_metric.map(str::to_owned)
    });
    let diff: Value = serde_json::from_slice(&control.phoenix(&["plan", "diff", "--json"]).stdout).unwrap();
    assert_eq!(diff["of"], "waiting");
    let changes = diff["changes"].as_array().unwrap().iter();
    let change = changes.clone().find(|it| it["nodes"].as_array().unwrap().contains(&json!("gateway-a")));
    let change = change.unwrap_or_else(|| panic!("{diff:#}"));
    let rule = &change["rules"][0];
    assert_eq!((&rule["metric"], &rule["before"]), (&json!("requests"), &Value::Null));
    assert!(rule["after"].as_str().unwrap().starts_with("drops user from "), "{rule:#}");
    assert!(change["shares"].as_array().is_some_and(|it| !it.is_empty()), "shares wait as well: {diff:#}");
    let said = text(&control.phoenix(&["plan", "diff", "gateway-a"]));
    assert!(said.contains("what waits, were it approved") && said.contains("drops user"), "{said}");
    assert!(said.contains(&format!("phoenix plan approve {waiting}")), "{said}");
    assert!(!said.contains(KEY), "viewers see it");
    let in_force: Value =
        serde_json::from_slice(&control.phoenix(&["plan", "diff", "--of", "in_force", "--json"]).stdout)
            .unwrap();
    assert!(
        in_force["changes"].as_array().unwrap().iter().all(|it| it["rules"] == json!([])),
        "{in_force:#}"
    );

    let said = control.phoenix(&["plan", "approve", &waiting]);
    assert!(said.status.success(), "{}", text(&said));
    fleet.until(&control, "what was shown", |it| folds(it).then_some(()));
}
