//! Cases: variables as dashboards declare them, a text, and what it becomes.

use super::*;
use serde_json::json;

fn span() -> Span {
    Span { start_ms: 1_700_000_000_000, end_ms: 1_700_001_800_000, step_ms: 15_000, edge_ms: 0 }
}

/// What a text becomes on a dashboard with these variables; a refusal behind `! `.
fn filled(variables: serde_json::Value, text: &str) -> String {
    let built_in = BuiltIn::new(&span(), Duration::from_secs(15));
    let look_up = |selector: Option<&str>, label: &str| match (selector, label) {
        (Some("up"), "pod") => Ok(vec![String::new(), "web-0".to_owned(), "web-1".to_owned()]),
        (Some("up{job=\"web\", a=~\"x,y\"}"), "pod") | (None, "job") => Ok(vec!["web".to_owned()]),
        (Some("down"), _) => Err("the full side is down".to_owned()),
        _ => Ok(Vec::new()),
    };
    let board = json!({ "templating": { "list": variables } });
    let values = Declared::read(&board).resolve(&built_in, &[("given".to_owned(), "g".to_owned())], &look_up);
    values.fill(text, &mut Vec::new()).unwrap_or_else(|error| format!("! {error}"))
}

#[test]
fn spellings_formats_and_built_in_variables() {
    let variables = json!([
        { "name": "one", "type": "custom", "current": { "value": "a.b" } },
        { "name": "many", "type": "custom", "multi": true, "current": { "value": ["a.b", "c"] } },
        { "name": "single", "type": "custom", "multi": true, "current": { "value": ["a.b"] } },
        { "name": "given", "type": "custom", "current": { "value": "other" } },
    ]);
    for (text, expected) in [
        ("x{a=\"$one\"}", "x{a=\"a.b\"}"),
        ("x{a=\"${one}\",b=\"[[one]]\"}", "x{a=\"a.b\",b=\"a.b\"}"),
        ("x{a=~\"$many\"}", "x{a=~\"(a\\\\.b|c)\"}"),
        ("x{a=~\"$single\"}", "x{a=~\"a\\\\.b\"}"),
        ("${many:regex}", "(a\\.b|c)"),
        ("[[many:pipe]]", "a.b|c"),
        ("${many:csv} ${many:raw} ${many:text}", "a.b,c a.b,c a.b,c"),
        ("${many:glob} ${one:glob}", "{a.b,c} a.b"),
        ("${many:json}", "[\"a.b\",\"c\"]"),
        ("${many:doublequote} ${many:singlequote}", "\"a.b\",\"c\" 'a.b','c'"),
        ("${many:queryparam}", "var-many=a.b&var-many=c"),
        ("${many:lucene}", "! format \"lucene\" of variable $many is not known"),
        ("$given", "g"),
        (
            "rate(x[$__rate_interval]) + rate(x[$__interval]) + rate(x[${__range}])",
            "rate(x[1m]) + rate(x[15s]) + rate(x[30m])",
        ),
        (
            "$__range_s $__range_ms $__interval_ms $__from $__to",
            "1800 1800000 15000 1700000000000 1700001800000",
        ),
        (
            "label_replace(x, \"a\", \"$1\", \"b\", \"(.*)$\")",
            "label_replace(x, \"a\", \"$1\", \"b\", \"(.*)$\")",
        ),
        ("x{a=\"$other\"}", "! unknown variable $other"),
        ("x{a=\"$one\",b=\"$other\"}", "! unknown variable $other"),
    ] {
        assert_eq!(filled(variables.clone(), text), expected, "{text}");
    }
}

#[test]
fn where_a_value_comes_from() {
    for (variable, expected) in [
        (json!({ "type": "query", "current": { "value": "p" } }), "p"),
        (
            json!({ "type": "query", "current": { "text": "All", "value": "$__all" }, "includeAll": true }),
            ".*",
        ),
        (
            json!({ "type": "query", "current": { "value": ["$__all"] }, "includeAll": true, "allValue": ".+" }),
            ".+",
        ),
        (json!({ "type": "query", "current": { "text": "All", "value": "All" }, "includeAll": true }), ".*"),
        (json!({ "type": "query", "current": {}, "includeAll": true, "allValue": "" }), ".*"),
        (json!({ "type": "query", "query": "label_values(up, pod)" }), "web-0"),
        (json!({ "type": "query", "current": { "value": "" }, "query": "label_values(up, pod)" }), "web-0"),
        (json!({ "type": "query", "query": { "query": "label_values(up, pod)", "refId": "A" } }), "web-0"),
        (json!({ "type": "query", "query": "label_values(job)" }), "web"),
        (json!({ "type": "query", "query": "label_values(up{job=\"web\", a=~\"x,y\"}, pod)" }), "web"),
        (json!({ "type": "query", "query": "label_values(nothing, pod)" }), ""),
        (json!({ "type": "query", "definition": "label_values(up, pod)", "query": {} }), "web-0"),
        (
            json!({ "type": "query", "query": "label_values(down, pod)" }),
            "! variable $v has no value: the full side is down; give one by --var v=…",
        ),
        (
            json!({ "type": "query", "query": "metrics(.*)" }),
            "! variable $v has no value: its query \"metrics(.*)\" is not label_values(…); give one by --var v=…",
        ),
        (
            json!({ "type": "query", "query": "label_values(up{a=\"$w\"}, pod)" }),
            "! variable $v has no value: unknown variable $w; give one by --var v=…",
        ),
        (json!({ "type": "custom", "query": "a,b" }), "a"),
        (json!({ "type": "custom", "query": "Label : a,b" }), "a"),
        (
            json!({ "type": "custom", "query": "a,b", "options": [{ "value": "$__all" }, { "value": "b" }] }),
            "b",
        ),
        (json!({ "type": "constant", "query": "c" }), "c"),
        (json!({ "type": "textbox", "query": "t", "current": { "value": "u" } }), "u"),
        (json!({ "type": "interval", "query": "1m,5m", "current": { "value": "5m" } }), "5m"),
        (json!({ "type": "interval", "query": "1m,5m" }), "1m"),
        (json!({ "type": "interval", "query": "1m", "current": { "value": "$__auto_interval_v" } }), "15s"),
        (json!({ "type": "datasource", "query": "prometheus", "current": { "value": "uid" } }), "uid"),
    ] {
        let mut named = variable.clone();
        named["name"] = json!("v");
        assert_eq!(filled(json!([named]), "$v"), expected, "{variable}");
    }
}

#[test]
fn variables_of_the_schema_with_elements() {
    let built_in = BuiltIn::new(&span(), Duration::from_secs(15));
    let board = json!({ "variables": [
        { "kind": "CustomVariable", "spec": { "name": "a", "query": "x,y", "current": { "value": "y" } } },
        { "kind": "QueryVariable", "spec": { "name": "b", "query": { "kind": "DataQuery", "spec": { "query": "label_values(job)" } } } },
    ] });
    let values = Declared::read(&board).resolve(&built_in, &[], &|_, _| Ok(vec!["web".to_owned()]));
    assert_eq!(values.fill("$a $b", &mut Vec::new()).unwrap(), "y web");
}
