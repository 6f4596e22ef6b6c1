//! Cases: a query a line, and why folded data cannot answer it; nothing where it can.

use super::*;
use crate::verify::queries::parse;

const PLAN: &str = r#"{
  "schema": 1, "version": 1,
  "hash_key": "8f2c1e5d90ab374466e1f0827bb3c95a17d4e86f2390bc51ae7d60f4895b12cd",
  "promoted_resource_attributes": ["k8s.pod.name", "k8s.namespace.name"],
  "rules": [
    { "name": "objectives", "metric": { "prefix": "slo." }, "pipeline": "full_fidelity" },
    { "name": "requests", "metric": { "exact": "http.requests" }, "pipeline": "optimized",
      "fold": { "labels": { "drop": { "resource": ["k8s.pod.name"], "attributes": ["user.agent"] } } } },
    { "name": "kept", "metric": { "exact": "cart" }, "pipeline": "optimized",
      "fold": { "labels": { "keep": { "resource": ["service.name"], "attributes": ["route"] } } } },
    { "name": "post only", "metric": { "exact": "rpc" }, "attributes": [{ "key": "method", "equals": "POST" }], "pipeline": "optimized",
      "fold": { "labels": { "drop": { "resource": ["service.instance.id"], "attributes": [] } } } },
    { "name": "rest", "metric": { "glob": "*" }, "pipeline": "full_fidelity" }
  ]
}"#;

#[test]
fn why_not() {
    let plan = Plan::parse(PLAN.as_bytes()).unwrap();
    let gone = "k8s_pod_name, user_agent was folded";
    let single =
        |what: &str| format!("{what} looks at single series of http_requests_total, in which {gone}");
    let level = "reads the value of the counter http_requests_total, which starts at zero where the fold began; rate and increase do not";
    for (query, expected) in [
        // Sums of increments by labels that are left.
        ("sum(rate(http_requests_total[5m]))", String::new()),
        ("sum by (route) (rate(http_requests_total[5m]))", String::new()),
        ("sum by (route) (rate({\"http.requests_total\"}[5m]))", String::new()),
        ("sum by (job, instance) (irate(http_requests_total[5m])) * 100", String::new()),
        ("-sum(increase(http_requests_total[5m]) * 2)", String::new()),
        ("sum without (k8s_pod_name, user_agent) (rate(http_requests_total[5m])) > 1", String::new()),
        ("max by (route) (sum by (route) (rate(http_requests_total[5m])))", String::new()),
        ("topk(3, sum by (route) (rate(http_requests_total[5m])))", String::new()),
        ("sum(rate(http_requests_total{k8s_pod_name=~\".*\"}[5m]))", String::new()),
        ("absent(http_requests_total{route=\"/\"})", String::new()),
        ("sum(label_replace(rate(http_requests_total[5m]), \"r\", \"$1\", \"route\", \"/(.*)\"))", String::new()),
        ("max_over_time(sum(rate(http_requests_total[5m]))[1h:])", String::new()),
        ("sum by (a) (rate(http_requests_total[5m])) / sum by (a) (rate(http_requests_total[5m]))", String::new()),
        ("kube_pod_info{k8s_pod_name=\"p\"}", String::new()),
        ("sum by (k8s_pod_name) (rate(slo_http_requests_total[5m]))", String::new()),
        ("group by (route) (http_requests_total)", String::new()),
        // Labels that are gone.
        ("sum by (k8s_pod_name) (rate(http_requests_total[5m]))", "groups by k8s_pod_name, which was folded in http_requests_total".into()),
        ("sum by (user_agent, route) (rate(http_requests_total[5m]))", "groups by user_agent, which was folded in http_requests_total".into()),
        ("sum without (user_agent) (rate(http_requests_total[5m]))", "keeps labels by without (user_agent); k8s_pod_name was folded in http_requests_total".into()),
        ("sum(rate(http_requests_total{k8s_pod_name=\"p\"}[5m]))", "selects by k8s_pod_name, which was folded in http_requests_total".into()),
        ("sum(rate(http_requests_total{user_agent!=\"curl\"}[5m]))", "selects by user_agent, which was folded in http_requests_total".into()),
        ("sum(rate(http_requests_total{k8s_pod_name=~\".+\"}[5m]))", "selects by k8s_pod_name, which was folded in http_requests_total".into()),
        ("sum(label_replace(rate(http_requests_total[5m]), \"r\", \"$1\", \"k8s_pod_name\", \"(.*)-.*\"))", "label_replace reads k8s_pod_name, which was folded in http_requests_total".into()),
        // Single series.
        ("rate(http_requests_total[5m])", format!("shows single series of http_requests_total, in which {gone}")),
        ("max(rate(http_requests_total[5m]))", single("max")),
        ("count by (route) (http_requests_total)", single("count")),
        ("topk(3, rate(http_requests_total[5m]))", single("topk")),
        ("sum(rate(http_requests_total[5m]) > 0)", single(">")),
        ("sum(ceil(rate(http_requests_total[5m])))", single("ceil")),
        ("sum(resets(http_requests_total[5m]))", single("resets")),
        ("sum(rate(http_requests_total[5m]) + 1)", single("+")),
        ("sum(1 / rate(http_requests_total[5m]))", single("/")),
        (
            "sum by (node) (rate(http_requests_total[5m]) * on (k8s_pod_name) group_left (node) kube_pod_info)",
            format!("matches on k8s_pod_name, which was folded in http_requests_total; {}", single("*")),
        ),
        // A counter's value.
        ("sum(http_requests_total)", level.into()),
        // The mark stands in the way of matching on all labels.
        (
            "sum without (k8s_pod_name, user_agent) (rate(http_requests_total[5m])) / limit",
            "matches on all labels, and one side carries phoenix_folded and phoenix_writer: name the labels with on (…)".into(),
        ),
        ("sum without (k8s_pod_name, user_agent) (rate(http_requests_total[5m])) / on (route) limit", String::new()),
        // A fold that lists what it keeps.
        ("sum by (route, job) (rate(cart_total[5m]))", String::new()),
        ("sum by (instance) (rate(cart_total[5m]))", "groups by instance, which was folded in cart_total".into()),
        ("sum by (code) (rate(cart_total[5m]))", "groups by code, which was folded in cart_total".into()),
        // A rule with a condition.
        ("sum by (instance) (rate(rpc_total[5m]))", "groups by instance, which was folded in rpc_total".into()),
        ("sum by (instance) (rate(rpc_total{method=\"POST\"}[5m]))", "groups by instance, which was folded in rpc_total".into()),
        ("sum by (instance) (rate(rpc_total{method=\"GET\"}[5m]))", String::new()),
        // No name: any metric.
        ("sum by (user_agent) ({job=\"api\"})", "groups by user_agent, which was folded in metrics without a name in the query".into()),
        ("1 + 1", String::new()),
    ] {
        let tree = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(reasons(&plan, &tree).join("; "), expected, "{query}");
    }
}
