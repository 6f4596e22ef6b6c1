//! OTLP names as Prometheus writes them, and a plan's folds under those names.
//!
//! Enters: a plan, a metric's name in PromQL. Leaves: which folds may have made its series, and which labels they removed. Prometheus
//! turns every character but letters, digits, `_` and `:` into `_`, and appends the unit and `_total`, `_ratio`, `_bucket`, `_sum` or
//! `_count` to metrics (OpenTelemetry's specification, Prometheus compatibility). A plan does not know units, so the way back is by
//! taking known endings off: a name stands for every base that is left. Resource attributes `service.name`, `service.namespace` and
//! `service.instance.id` are `job` and `instance`.
//!
//! It errs on one side: a rule with conditions on labels is taken to apply unless the selector excludes it, and a label of which the plan
//! does not say whether it is a resource attribute counts as kept. What is said here only explains differences that were measured.

use phoenix_plan::{LabelOp, Labels, MetricMatch, Plan, Rule};
use promql_parser::label::{MatchOp, Matcher};
use std::collections::BTreeSet;

/// Endings by the type of the metric.
const TYPE_ENDINGS: [&str; 6] = ["total", "ratio", "bucket", "sum", "count", "info"];
/// Words of units as Prometheus writes them: the table of OpenTelemetry's specification.
const UNIT_WORDS: [&str; 34] = [
    "days",
    "hours",
    "minutes",
    "seconds",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "bytes",
    "kibibytes",
    "mebibytes",
    "gibibytes",
    "tebibytes",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "terabytes",
    "bits",
    "meters",
    "volts",
    "amperes",
    "joules",
    "watts",
    "grams",
    "celsius",
    "hertz",
    "percent",
    "ratio",
    "per",
    "second",
    "minute",
    "hour",
    "day",
    "month",
    "year",
];
/// Labels that no fold removes: the name, and the bounds of classic buckets.
const STRUCTURAL: [&str; 3] = ["__name__", "le", "quantile"];

/// A label's name in Prometheus.
pub fn label(key: &str) -> String {
    let mut name = underscored(key);
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert_str(0, "key_");
    }
    name
}

/// Every character that Prometheus does not allow as `_`, and no two `_` in a row: versions differ in that.
fn underscored(name: &str) -> String {
    collapsed(name.chars().map(|c| if c.is_ascii_alphanumeric() || c == ':' { c } else { '_' }))
}

fn collapsed(characters: impl Iterator<Item = char>) -> String {
    let mut text = String::new();
    for c in characters {
        if c != '_' || !text.ends_with('_') {
            text.push(c);
        }
    }
    text
}

/// The bases that a name in PromQL may stand for: itself, and itself with known endings taken off.
fn bases(name: &str) -> Vec<String> {
    let mut base = underscored(name);
    let mut all = vec![base.clone()];
    let mut may_be_type = true;
    while let Some((rest, word)) = base.rsplit_once('_') {
        let known = UNIT_WORDS.contains(&word) || (may_be_type && TYPE_ENDINGS.contains(&word));
        if !known || rest.is_empty() {
            break;
        }
        may_be_type = false;
        base = rest.to_owned();
        all.push(base.clone());
    }
    all
}

/// Whether a name in PromQL may be a metric that a matcher of the plan means.
pub fn may_be(name: &str, matcher: &MetricMatch) -> bool {
    let bases = bases(name);
    match matcher {
        MetricMatch::Exact(want) => bases.contains(&underscored(want)),
        MetricMatch::Prefix(want) => bases[0].starts_with(underscored(want).trim_end_matches('_')),
        MetricMatch::Glob(pattern) => {
            let wild =
                |c: char| if c.is_ascii_alphanumeric() || matches!(c, ':' | '*' | '?') { c } else { '_' };
            let pattern = collapsed(pattern.chars().map(wild));
            bases.iter().any(|base| phoenix_plan::glob::matches(pattern.as_bytes(), base.as_bytes()))
        }
    }
}

/// What the folds of a plan removed from the series of one selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Labels that are gone, when folds list what they drop.
    dropped: BTreeSet<String>,
    /// Labels that are left, when a fold lists what it keeps.
    kept: Option<BTreeSet<String>>,
}

impl Removed {
    /// Whether a label is gone.
    pub fn has(&self, label: &str) -> bool {
        !STRUCTURAL.contains(&label)
            && (self.dropped.contains(label) || self.kept.as_ref().is_some_and(|kept| !kept.contains(label)))
    }

    /// In words, for labels that a query would have shown; `except` are those it does not show. None if nothing of it is left.
    pub fn words(&self, except: &[String]) -> Option<String> {
        if let Some(kept) = &self.kept {
            let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
            return Some(if kept.is_empty() {
                "every label".to_owned()
            } else {
                format!("every label but {}", kept.join(", "))
            });
        }
        let gone: Vec<&str> =
            self.dropped.iter().filter(|label| !except.contains(label)).map(String::as_str).collect();
        (!gone.is_empty()).then(|| gone.join(", "))
    }

    /// Adds what another fold removes from the same series.
    fn add(&mut self, labels: &Labels, plan: &Plan) {
        match labels {
            Labels::Drop { resource, attributes } => {
                self.dropped.extend(
                    resource
                        .iter()
                        .filter(|key| plan.promotes_resource(key.as_bytes()))
                        .map(|key| resource_label(key)),
                );
                self.dropped.extend(attributes.iter().map(|key| label(key)));
            }
            Labels::Keep { resource, attributes } => {
                let mut kept: BTreeSet<String> = attributes.iter().map(|key| label(key)).collect();
                let promoted = plan.promoted_resource_attributes.iter().flatten().map(String::as_str);
                let always = ["service.name", "service.namespace", "service.instance.id"];
                let resource_keys =
                    always.into_iter().chain(promoted).chain(resource.iter().flatten().map(String::as_str));
                kept.extend(
                    resource_keys.filter(|key| labels.keeps_resource(key.as_bytes())).map(resource_label),
                );
                self.kept = Some(match self.kept.take() {
                    Some(earlier) => earlier.intersection(&kept).cloned().collect(),
                    None => kept,
                });
            }
        }
    }
}

/// A resource attribute's label.
fn resource_label(key: &str) -> String {
    match key {
        "service.name" | "service.namespace" => "job".to_owned(),
        "service.instance.id" => "instance".to_owned(),
        other => label(other),
    }
}

/// What the plan removes from the series that a selector means; none if nothing folds them. `name` none: any metric.
pub fn removed(plan: &Plan, name: Option<&str>, matchers: &[Matcher]) -> Option<Removed> {
    let mut removed = Removed::default();
    let mut is_folded = false;
    for rule in &plan.rules {
        if name.is_some_and(|name| !may_be(name, &rule.metric)) || excluded(rule, matchers) {
            continue;
        }
        // What a switch folds on either side may be missing in the range.
        for fold in rule.folds() {
            removed.add(&fold.labels, plan);
            is_folded = true;
        }
        if rule.tenant.is_none() && rule.resource.is_empty() && rule.attributes.is_empty() && name.is_some() {
            break;
        }
    }
    is_folded.then_some(removed)
}

/// Whether the selector asks for another value than the rule wants.
fn excluded(rule: &Rule, matchers: &[Matcher]) -> bool {
    let differs = |key: &str, name: String| {
        matchers.iter().any(|matcher| {
            matcher.name == name
                && matches!(matcher.op, MatchOp::Equal)
                && rule.resource.iter().chain(&rule.attributes).any(|wanted| {
                    wanted.key == key
                        && matches!(wanted.op, LabelOp::Equals(_) | LabelOp::Prefix(_) | LabelOp::Glob(_))
                        && !wanted.op.matches(Some(matcher.value.as_bytes()))
                })
        })
    };
    // job joins two attributes, so it decides nothing.
    let resource = rule.resource.iter().map(|wanted| (wanted.key.as_str(), resource_label(&wanted.key)));
    let attributes = rule.attributes.iter().map(|wanted| (wanted.key.as_str(), label(&wanted.key)));
    resource.chain(attributes).any(|(key, name)| name != "job" && differs(key, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_promql_and_matchers_in_plans() {
        let exact = |text: &str| MetricMatch::Exact(text.to_owned());
        let prefix = |text: &str| MetricMatch::Prefix(text.to_owned());
        let glob = |text: &str| MetricMatch::Glob(text.to_owned());
        for (name, matcher, expected) in [
            ("http_requests_total", exact("http_requests"), true),
            ("http_requests", exact("http_requests"), true),
            ("http_server_requests_total", exact("http.server.requests"), true),
            ("http.server.requests", exact("http.server.requests"), true),
            ("http_server_request_duration_seconds_bucket", exact("http.server.request.duration"), true),
            ("http_server_request_duration_seconds_count", exact("http.server.request.duration"), true),
            ("http_response_bytes_total", exact("http_response_bytes"), true),
            ("http_response_bytes_total", exact("http.response"), true),
            ("net_io_bytes_per_second", exact("net.io"), true),
            ("cpu_utilization_ratio", exact("cpu.utilization"), true),
            ("http_requests_failed_total", exact("http_requests"), false),
            ("http_requests_total_failed", exact("http_requests"), false),
            ("total", exact(""), false),
            ("http_server_requests_total", prefix("http."), true),
            ("httpd_requests", prefix("http."), true),
            ("grpc_requests", prefix("http."), false),
            ("http_server_requests_total", glob("http.*.requests"), true),
            ("http_server_duration_total", glob("http.*.requests"), false),
            ("anything", glob("*"), true),
        ] {
            assert_eq!(may_be(name, &matcher), expected, "{name} {matcher:?}");
        }
    }

    #[test]
    fn labels() {
        for (key, expected) in
            [("k8s.pod.name", "k8s_pod_name"), ("a..b", "a_b"), ("5xx", "key_5xx"), ("le", "le")]
        {
            assert_eq!(label(key), expected);
        }
    }
}
