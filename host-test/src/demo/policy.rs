//! The demo's policy, and what the judge reads in it.
//!
//! In: `deploy/demo-policy.yaml`. Out: the same text with other paths, in either mode; and a [`Plan`] with the folds and budgets that people have declared in it. The judge goes by
//! their words and not by the plans that the control host makes of them: a control host that made nonsense of them would fail.

use crate::envoy::config::{project, replaced, shipped};
use anyhow::Context as _;
use phoenix_plan::Plan;
use serde_json::{Value, json};

/// Where it lies in the project.
pub const FILE: &str = "deploy/demo-policy.yaml";
/// The line that says who has the last word about the shop.
const OBSERVE: &str = "    mode: observe\n";
const AUTO: &str = "    mode: auto\n";
/// The files of its queries, from the folder of the policy.
const QUERIES: [&str; 2] = ["prometheus/shop-rules.yml", "grafana/shop.json"];

/// The policy for a folder of its own; the shop is observed, or decided about.
///
/// # Errors
/// The file is not there, or not as documented.
pub fn text(is_auto: bool) -> anyhow::Result<String> {
    let mut text = shipped(FILE)?;
    for file in QUERIES {
        text = replaced(&text, file, &project().join("deploy").join(file).display().to_string())?;
    }
    if is_auto { replaced(&text, OBSERVE, AUTO) } else { Ok(text) }
}

/// What people have declared, as a plan: folds are its rules; budgets are those of the fleet, which no plan of one gateway has.
///
/// # Errors
/// The file is not there, or is no policy.
pub fn declared() -> anyhow::Result<Plan> {
    let policy: Value = serde_saphyr::from_str(&shipped(FILE)?).context(FILE)?;
    let mut plan = policy["plan"].clone();
    plan["schema"] = 1.into();
    plan["version"] = 1.into();
    plan["rules"] =
        policy["folds"].as_array().into_iter().flatten().map(|it| rule(it, &policy["fold"])).collect();
    let tenant = |it: &Value| json!({ "tenant": it["name"], "active_series": it["active_series"] });
    plan["budgets"] = json!({
        "tenants": policy["tenants"].as_array().into_iter().flatten().map(tenant).collect::<Vec<_>>(),
        "metrics": policy["metrics"],
        "fold": policy["fold"],
        "dwell": policy["change"]["dwell"],
        "switch_lead": policy["change"]["switch_lead"],
    });
    Plan::parse(plan.to_string().as_bytes()).map_err(|error| anyhow::anyhow!("{FILE}: {error}"))
}

fn rule(declared: &Value, fold: &Value) -> Value {
    let mut fold = fold.clone();
    fold["labels"] = declared["labels"].clone();
    json!({ "name": declared["name"], "metric": declared["metric"], "pipeline": "optimized", "fold": fold })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_judge_reads_what_people_wrote() {
        let plan = declared().unwrap();
        assert_eq!(plan.rules.len(), 11);
        let budgets = plan.budgets.as_ref().unwrap();
        assert_eq!(budgets.metric(b"shop", b"login_attempts"), Some(200));
        // The shop's plan of files folds the same labels.
        let by_file = crate::envoy::config::shop_plugin_config().unwrap()["plan"].to_string();
        let by_file = Plan::parse(by_file.as_bytes()).unwrap();
        for rule in &plan.rules {
            let same = by_file.rules.iter().find(|it| it.metric == rule.metric).expect("the same metric");
            let (ours, theirs) = (rule.fold.as_ref().unwrap(), same.fold.as_ref().unwrap());
            assert!(ours.labels.keeps_the_same_as(&theirs.labels), "{}", rule.name);
        }
    }

    #[test]
    fn the_mode_is_one_word() {
        let (observed, decided) = (text(false).unwrap(), text(true).unwrap());
        let differing = observed.lines().zip(decided.lines()).filter(|(a, b)| a != b).count();
        assert_eq!((differing, observed.lines().count()), (1, decided.lines().count()));
        assert!(!decided.contains("mode: observe"), "{decided}");
    }
}
