//! What a plan changes to the one before it.
//!
//! Enters: configurations of nodes, before and after. Leaves: rules that come, go or change, shares that change, and which other fields do, by node; nodes that change alike
//! stand together. No key: that another key came is said, and not which.

use super::state::Published;
use phoenix_plan::{Fold, InstantMs, Labels, MetricMatch, Pipeline, Plan, Rule, Treatment};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What is compared to the plan before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// The plan that is in force.
    InForce,
    /// The plan that comes when everything that waits is approved.
    Waiting,
}

/// Differences of all nodes.
#[derive(Serialize, JsonSchema)]
pub struct Diff {
    /// What is compared to the plan before.
    pub of: Of,
    /// Decisions that wait for approval.
    pub waiting: Vec<String>,
    /// Nodes that were looked at.
    pub nodes: u64,
    /// What changes, and where; nodes where nothing does are not here.
    pub changes: Vec<Changes>,
}

/// What changes alike in some nodes.
#[derive(Serialize, JsonSchema)]
pub struct Changes {
    /// Their ids; an empty one: all that are not known.
    pub nodes: Vec<String>,
    #[serde(flatten)]
    what: What,
}

#[derive(Clone, PartialEq, Serialize, JsonSchema)]
struct What {
    /// Version of the plan before; none: there was none.
    from: Option<u64>,
    /// Version of the plan; for what waits, the one that it would have now.
    to: u64,
    rules: Vec<RuleChange>,
    shares: Vec<ShareChange>,
    /// Other fields that change.
    fields: Vec<String>,
}

/// A rule that comes, goes or changes.
#[derive(Clone, PartialEq, Serialize, JsonSchema)]
struct RuleChange {
    name: String,
    /// Its tenant; none: of all.
    tenant: Option<String>,
    /// Its metric, or the pattern of metrics.
    metric: String,
    /// What it did, in words; none: there was no such rule.
    before: Option<String>,
    /// What it does.
    after: Option<String>,
}

/// A share that changes.
#[derive(Clone, PartialEq, Serialize, JsonSchema)]
struct ShareChange {
    /// Its tenant; none: of those that no share names.
    tenant: Option<String>,
    /// Its metric; none: of all of the tenant.
    metric: Option<String>,
    before: Option<u32>,
    after: Option<u32>,
}

/// Compares.
pub fn diff(of: Of, waiting: Vec<String>, before: &Published, after: &Published, node: Option<&str>) -> Diff {
    let mut changes: Vec<Changes> = Vec::new();
    let mut nodes = 0;
    for (name, text) in after.iter().filter(|(name, _)| node.is_none_or(|node| node == name.as_str())) {
        nodes += 1;
        let Some(what) = between(before.get(name).map(String::as_str), text) else { continue };
        match changes.iter_mut().find(|it| it.what == what) {
            Some(alike) => alike.nodes.push(name.clone()),
            None => changes.push(Changes { nodes: vec![name.clone()], what }),
        }
    }
    Diff { of, waiting, nodes, changes }
}

/// None: nothing changes.
fn between(before: Option<&str>, after: &str) -> Option<What> {
    if before == Some(after) {
        return None;
    }
    let plan = |text: &str| -> (Option<Plan>, Map<String, Value>) {
        let mut whole: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        let plan = whole.remove("plan").unwrap_or_default();
        let mut fields = plan.as_object().cloned().unwrap_or_default();
        fields.retain(|name, _| !matches!(name.as_str(), "version" | "rules"));
        if let Some(Value::Object(budgets)) = fields.remove("budgets") {
            let rest =
                budgets.into_iter().filter(|(name, _)| !matches!(name.as_str(), "tenants" | "metrics"));
            fields.extend(rest.map(|(name, value)| (format!("budgets.{name}"), value)));
        }
        fields.extend(whole);
        (serde_json::from_value(plan).ok(), fields)
    };
    let (after, fields_after) = plan(after);
    let (before, fields_before) = before.map(plan).unwrap_or_default();
    let names: BTreeSet<&String> = fields_before.keys().chain(fields_after.keys()).collect();
    let differs = |name: &&&String| fields_before.get(**name) != fields_after.get(**name);
    let fields = if before.is_some() {
        names.iter().filter(differs).map(|it| (*it).clone()).collect()
    } else {
        Vec::new()
    };
    let what = What {
        from: before.as_ref().map(|it| it.version),
        to: after.as_ref().map_or(0, |it| it.version),
        rules: rules(before.as_ref(), after.as_ref()),
        shares: shares(before.as_ref(), after.as_ref()),
        fields,
    };
    let is_empty = what.rules.is_empty() && what.shares.is_empty() && what.fields.is_empty();
    (!is_empty).then_some(what)
}

fn rules(before: Option<&Plan>, after: Option<&Plan>) -> Vec<RuleChange> {
    let by_name = |plan: Option<&Plan>| -> BTreeMap<String, Rule> {
        plan.into_iter().flat_map(|it| &it.rules).map(|it| (it.name.clone(), it.clone())).collect()
    };
    let (before, after) = (by_name(before), by_name(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |name: &String| {
        let (was, is) = (before.get(name), after.get(name));
        let either = is.or(was).filter(|_| was != is)?;
        let metric = match &either.metric {
            MetricMatch::Exact(name) => name.clone(),
            other => serde_json::to_string(other).unwrap_or_default(),
        };
        Some(RuleChange {
            name: name.clone(),
            tenant: either.tenant.clone(),
            metric,
            before: was.map(words),
            after: is.map(words),
        })
    };
    names.into_iter().filter_map(of).collect()
}

/// What a rule does: `drops user from 2026-01-01T00:02:00Z on; before, raw`.
fn words(rule: &Rule) -> String {
    let now = side(rule.pipeline, rule.fold.as_ref());
    match &rule.switch {
        None => now,
        Some(switch) => {
            let Treatment { pipeline, fold } = &switch.from;
            let at: InstantMs = switch.at;
            format!("{now} from {at} on; until then {}", side(*pipeline, fold.as_ref()))
        }
    }
}

fn side(pipeline: Pipeline, fold: Option<&Fold>) -> String {
    let Some(fold) = fold.filter(|_| pipeline == Pipeline::Optimized) else { return "raw".to_owned() };
    let list = |of: &[String], what: &str| match of {
        [] => String::new(),
        some => format!(" {}{what}", some.join(", ")),
    };
    match &fold.labels {
        Labels::Drop { resource, attributes } => {
            format!("drops{}{}", list(attributes, ""), list(resource, " (resource)"))
        }
        Labels::Keep { resource, attributes } => {
            let resource = resource.as_deref().unwrap_or_default();
            format!("keeps{}{}", list(attributes, ""), list(resource, " (resource)"))
        }
    }
}

fn shares(before: Option<&Plan>, after: Option<&Plan>) -> Vec<ShareChange> {
    type Key = (Option<String>, Option<String>);
    let all = |plan: Option<&Plan>| -> BTreeMap<Key, u32> {
        let budgets = plan.and_then(|it| it.budgets.as_ref());
        let tenants = budgets.into_iter().flat_map(|it| &it.tenants);
        let metrics = budgets.into_iter().flat_map(|it| &it.metrics);
        let tenants = tenants.map(|it| ((it.tenant.clone(), None), it.active_series));
        let name = |metric: &MetricMatch| match metric {
            MetricMatch::Exact(name) => name.clone(),
            other => serde_json::to_string(other).unwrap_or_default(),
        };
        let metrics = metrics.map(|it| ((it.tenant.clone(), Some(name(&it.metric))), it.active_series));
        tenants.chain(metrics).collect()
    };
    let (before, after) = (all(before), all(after));
    let keys: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    let of = |key: &Key| {
        let (was, is) = (before.get(key).copied(), after.get(key).copied());
        let (tenant, metric) = key.clone();
        (was != is).then_some(ShareChange { tenant, metric, before: was, after: is })
    };
    keys.into_iter().filter_map(of).collect()
}
