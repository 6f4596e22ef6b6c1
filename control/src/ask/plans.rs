//! Plans and budgets: shown, compared, let through, taken back.

use super::{Arguments, encoded, instant, series, text};
use crate::show::{clean, count, double, table};
use anyhow::Result;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Shares of a line that are named; the others are counted.
const SHARES_MAX: usize = 4;

/// Lets a decision that waits be carried out.
pub fn approve(arguments: &Arguments, id: &str) -> Result<ExitCode> {
    let body = arguments.ask("POST", &format!("/api/v1/decisions/{}/approve", encoded(id)))?;
    Ok(arguments.show(&body, |body| say!("approved: {}", text(body, "approved"))))
}

/// The plan of a node.
pub fn plan(arguments: &Arguments, node: &str) -> Result<ExitCode> {
    let body = arguments.ask("GET", &format!("/api/v1/plan?node={}", encoded(node)))?;
    say!("{body:#}");
    Ok(ExitCode::SUCCESS)
}

/// What a plan changes.
pub fn diff(arguments: &Arguments, node: Option<&str>, of: Option<&str>) -> Result<ExitCode> {
    let query = [("node", node), ("of", of)]
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", encoded(value?))));
    let body = arguments.ask("GET", &format!("/api/v1/plan/diff?{}", query.collect::<Vec<_>>().join("&")))?;
    Ok(arguments.show(&body, |body| {
        let what = if body["of"] == "waiting" { "what waits, were it approved" } else { "what is in force" };
        let changes = list(&body["changes"]);
        if changes.is_empty() {
            say!("{what}: no change to the plan before, in {} nodes", body["nodes"]);
        }
        for change in changes {
            let nodes: Vec<String> = list(&change["nodes"]).iter().map(node_name).collect();
            let from = change["from"].as_u64().map_or_else(|| "none".to_owned(), |it| it.to_string());
            say!("{what}: version {from} to {} in {}", change["to"], nodes.join(", "));
            let or_dash = |it: &Value| it.as_str().map_or_else(|| "-".to_owned(), clean);
            let rules = list(&change["rules"])
                .iter()
                .map(|it| ["tenant", "metric", "before", "after"].map(|field| or_dash(&it[field])).to_vec());
            print_rows(&["tenant", "metric", "before", "after"], &[0, 1, 2, 3], rules.collect());
            let number = |it: &Value| it.as_u64().map_or_else(|| "-".to_owned(), count);
            let shares = list(&change["shares"]).iter().map(|it| {
                vec![
                    or_dash(&it["tenant"]),
                    or_dash(&it["metric"]),
                    number(&it["before"]),
                    number(&it["after"]),
                ]
            });
            print_rows(&["tenant", "metric", "share before", "share after"], &[0, 1], shares.collect());
            let fields: Vec<String> =
                list(&change["fields"]).iter().filter_map(Value::as_str).map(clean).collect();
            if !fields.is_empty() {
                say!("other fields that change: {}", fields.join(", "));
            }
        }
        for id in list(&body["waiting"]) {
            say!("waits for approval: phoenix plan approve {}", clean(id.as_str().unwrap_or("")));
        }
    }))
}

fn node_name(node: &Value) -> String {
    match node.as_str().unwrap_or("") {
        "" => "(all that are not known)".to_owned(),
        id => clean(id),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn print_rows(head: &[&str], left: &[usize], rows: Vec<Vec<String>>) {
    if !rows.is_empty() {
        say!("{}\n", table(head, left, rows, Vec::new()));
    }
}

/// Takes folds back.
pub fn roll_back(
    arguments: &Arguments,
    to: Option<u64>,
    hold_seconds: Option<u64>,
    force: bool,
) -> Result<ExitCode> {
    let mut wish = json!({});
    if let Some(to) = to {
        wish["to"] = to.into();
    }
    if let Some(seconds) = hold_seconds {
        wish["hold_seconds"] = seconds.into();
    }
    if force {
        wish["force"] = true.into();
    }
    let body = arguments.server.ask("POST", "/api/v1/plan/rollback", Some(&wish))?;
    Ok(arguments.show(&body, |body| {
        let hold = &body["hold"];
        say!(
            "rolled back to version {}, held until {}: phoenix plan release ends that",
            hold["to"],
            instant(&hold["until_ns"])
        );
        let labels = |it: &Value| {
            let keys: Vec<String> = list(it).iter().map(|label| clean(text(label, "key"))).collect();
            if keys.is_empty() { "raw".to_owned() } else { format!("drops {}", keys.join(", ")) }
        };
        let rows = list(&body["metrics"]).iter().map(|it| {
            let waits = it["waits"].as_str().map_or_else(|| "by the next plan".to_owned(), clean);
            vec![
                clean(text(it, "tenant")),
                clean(text(it, "metric")),
                labels(&it["from"]),
                labels(&it["to"]),
                waits,
            ]
        });
        print_rows(&["tenant", "metric", "was", "will be", "when"], &[0, 1, 2, 3, 4], rows.collect());
    }))
}

/// Ends what a rollback holds.
pub fn release(arguments: &Arguments) -> Result<ExitCode> {
    let body = arguments.ask("POST", "/api/v1/plan/release")?;
    Ok(arguments.show(&body, |body| {
        say!("released: what was rolled back to version {} is decided anew", body["released"]["to"])
    }))
}

/// Budgets as an account.
pub fn budget(arguments: &Arguments, tenant: Option<&str>) -> Result<ExitCode> {
    let query = tenant.map_or_else(String::new, |it| format!("?tenant={}", encoded(it)));
    let body = arguments.ask("GET", &format!("/api/v1/budget{query}"))?;
    Ok(arguments.show(&body, |body| {
        let currency = clean(text(body, "currency"));
        let number = |it: &Value| it.as_f64().map_or_else(|| "-".to_owned(), |it| count(it.round() as i64));
        let rows = list(&body["lines"]).iter().map(|it| {
            let saved = &it["saved"];
            let metric = it["metric"].as_str().map_or_else(|| "(all)".to_owned(), clean);
            vec![
                clean(text(it, "tenant")),
                metric,
                number(&it["budget"]),
                series(&it["series_in"]),
                number(&it["series_out"]),
                number(&it["headroom"]),
                number(&saved["series"]),
                number(&saved["samples"]),
                number(&saved["bytes"]),
                double(saved["money"].as_f64().unwrap_or(0.0)),
                shares(&it["shares"]),
            ]
        });
        let money = format!("{currency} saved");
        let head = [
            "tenant",
            "metric",
            "budget",
            "series in",
            "series out",
            "headroom",
            "series saved",
            "samples saved",
            "bytes saved",
            money.as_str(),
            "shares",
        ];
        print_rows(&head, &[0, 1, 10], rows.collect());
        for it in list(&body["lines"]).iter().filter(|it| it["metrics_left_out"].as_u64().unwrap_or(0) > 0) {
            say!("{}: {} more metrics", clean(text(it, "tenant")), it["metrics_left_out"]);
        }
        say!("What is saved is for a month. Series out are those of all embedders together, at most.");
    }))
}

fn shares(of: &Value) -> String {
    let all: Vec<String> = of
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, share)| format!("{}: {}", clean(name), count(share.as_u64().unwrap_or(0))))
        .collect();
    match all.len() {
        0 => "-".to_owned(),
        len if len > SHARES_MAX => format!("{}, {} more", all[..SHARES_MAX].join(", "), len - SHARES_MAX),
        _ => all.join(", "),
    }
}
