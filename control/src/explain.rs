//! `phoenix plan explain`: what a plan does to one point, and why.
//!
//! Enters: a plan, a metric's name and the point's labels as text. Leaves: the rules that were passed over with the first matcher that
//! failed, the rule that decides, and what becomes of each label; where the rule switches, on both sides of the switch.

use crate::notes::condition;
use crate::plan_commands::pipeline;
use phoenix_plan::{Fold, Plan, Rule, TopK};

type Pairs = [(String, String)];

/// Reads `key=value`; the value may hold further equals signs.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// Prints the explanation.
pub fn print(plan: &Plan, tenant: &str, metric: &str, resource: &Pairs, attributes: &Pairs) {
    let decided = plan.rule_for(
        tenant.as_bytes(),
        metric.as_bytes(),
        |key| value(resource, key),
        |key| value(attributes, key),
    );
    let passed_over = decided.map_or(plan.rules.len(), |(index, _)| index);
    for (index, rule) in plan.rules.iter().take(passed_over).enumerate() {
        let why = if rule.is_of(tenant.as_bytes()) {
            why_not(rule, metric, resource, attributes)
        } else {
            format!("the tenant is not {:?}", rule.tenant.as_deref().unwrap_or_default())
        };
        say!("rule {} {:?}: no: {why}", index + 1, rule.name);
    }
    let Some((index, rule)) = decided else {
        say!("no rule matches: the point passes untouched");
        return;
    };
    say_on!("rule {} {:?}: decides: ", index + 1, rule.name);
    let Some(switch) = &rule.switch else {
        say!("pipeline {}", pipeline(rule.pipeline));
        if let Some(topk) = &rule.topk {
            print_topk(topk);
        }
        match &rule.fold {
            Some(fold) => print_fold(plan, fold, resource, attributes),
            None => say!("the point passes untouched"),
        }
        return;
    };
    say!("it switches at {}", switch.at);
    let sides = [
        (format!("before {}", switch.at), switch.from.pipeline, &switch.from.fold),
        (format!("from {} on", switch.at), rule.pipeline, &rule.fold),
    ];
    for (when, name, fold) in sides {
        say!("points {when}: pipeline {}", pipeline(name));
        match fold {
            Some(fold) => print_fold(plan, fold, resource, attributes),
            None => say!("  the point passes untouched"),
        }
    }
}

/// Which streams of a metric stay; what follows is said of the others.
fn print_topk(topk: &TopK) {
    match topk.coverage_percent {
        Some(percent) => say!(
            "  kept      the heaviest streams that hold {percent} % of the metric, {} to begin with, {} at most; of the others:",
            topk.k,
            topk.k_max()
        ),
        None => say!("  kept      the {} heaviest streams of the metric; of the others:", topk.k),
    }
}

/// What a fold makes of each label, and how it writes its series.
fn print_fold(plan: &Plan, fold: &Fold, resource: &Pairs, attributes: &Pairs) {
    for (key, _) in resource {
        let fate = match (plan.promotes_resource(key.as_bytes()), fold.labels.keeps_resource(key.as_bytes()))
        {
            (false, _) => "no identity: the backend does not store it on series",
            (true, true) => "kept",
            (true, false) => "dropped",
        };
        say!("  resource  {key}: {fate}");
    }
    for (key, _) in attributes {
        let fate = if fold.labels.keeps_attribute(key.as_bytes()) { "kept" } else { "dropped" };
        say!("  attribute {key}: {fate}");
    }
    say!("  mark      {}={:?}", plan.mark_label, fold.labels.mark());
    say!(
        "  window    {}, offset {}, delay {}, output {}",
        fold.window,
        fold.offset(),
        fold.delay,
        format!("{:?}", fold.output_temporality).to_lowercase()
    );
}

/// The value under a key; the last one wins, as a later argument corrects an earlier.
fn value<'v>(pairs: &'v Pairs, key: &str) -> Option<&'v [u8]> {
    pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_bytes())
}

/// The first matcher of the rule that fails.
fn why_not(rule: &Rule, metric: &str, resource: &Pairs, attributes: &Pairs) -> String {
    if !rule.metric.matches(metric.as_bytes()) {
        let (operation, name) = rule.metric.parts();
        return format!("the metric is not {operation} {name:?}");
    }
    for (noun, labels, pairs) in
        [("resource", &rule.resource, resource), ("attribute", &rule.attributes, attributes)]
    {
        if let Some(label) = labels.iter().find(|label| !label.op.matches(value(pairs, &label.key))) {
            return format!("it wants {noun} {}", condition(label));
        }
    }
    "it matches".to_owned()
}
