//! Rule files of Prometheus: groups of recording and alerting rules.
//!
//! Enters: an object with `groups`, as a rule file or the `spec` of a PrometheusRule has it. Leaves: a query per rule, and for recording
//! rules what the metric stands for. A rule without `expr`, or with neither `alert` nor `record`, is a complaint.

use super::{Kind, Loaded, Query};
use serde_json::Value;
use std::collections::BTreeMap;

/// One recording rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The metric that it records.
    pub name: String,
    /// What it records.
    pub expression: String,
    /// Labels that it sets.
    pub labels: BTreeMap<String, String>,
    /// How often its group is evaluated, as written.
    pub interval: Option<String>,
}

/// Reads the groups of one document.
pub fn read(file: &str, groups: &[Value], loaded: &mut Loaded) {
    for (index, group) in groups.iter().enumerate() {
        let name = group["name"].as_str().map_or_else(|| format!("group {}", index + 1), str::to_owned);
        let Some(rules) = group["rules"].as_array() else {
            loaded.complain(file, &name, "the group has no list of rules");
            continue;
        };
        for (index, rule) in rules.iter().enumerate() {
            read_rule(file, &name, index, rule, group["interval"].as_str(), loaded);
        }
    }
}

fn read_rule(
    file: &str,
    group: &str,
    index: usize,
    rule: &Value,
    interval: Option<&str>,
    loaded: &mut Loaded,
) {
    let (kind, name) = match (rule["record"].as_str(), rule["alert"].as_str()) {
        (Some(name), None) => (Kind::Record, name),
        (None, Some(name)) => (Kind::Alert, name),
        _ => {
            let place = format!("{group} › rule {}", index + 1);
            return loaded.complain(file, &place, "a rule needs either record or alert");
        }
    };
    let place = format!("{group} › {name}");
    // `expr: 1` is valid YAML for a valid query.
    let expression = match &rule["expr"] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return loaded.complain(file, &place, "the rule has no expr"),
    };
    if kind == Kind::Record {
        let labels = rule["labels"].as_object().into_iter().flatten();
        loaded.recorded.push(Recorded {
            name: name.to_owned(),
            expression: expression.clone(),
            labels: labels.map(|(key, value)| (key.clone(), scalar(value))).collect(),
            interval: interval.map(str::to_owned),
        });
    }
    loaded.queries.push(Query::new(file, place, kind, &expression));
}

/// A scalar as text: YAML reads `1` and `true` as other types than their authors meant.
fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
