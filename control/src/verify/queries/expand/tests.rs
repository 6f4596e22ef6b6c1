//! Cases: a rule a line, a query, and what it becomes.

use super::*;
use crate::verify::queries::parse;

#[test]
fn trees_read_back_what_they_write() {
    for text in [
        "sum by (a) (x{b=\"1\"})",
        "count by (cluster, node) (x * on (cluster, namespace, pod) group_left(node) topk by(cluster, namespace, pod) (1, max by(cluster) (y)))",
        "(0 < bool -(a offset 5m)) or max_over_time(b[5m:])",
        "sum by (namespace, cluster) (max by (pod) (x{job=\"k\"}) * on(pod) group_left() max by (pod) (y == 1))",
        "x{a=~\"a\\\\.b|c{2}\"}",
        "x unless on (a) y",
        "sum(x) without (a)",
        "1 - (a / b)",
        "(a * b) / (c - (d + e)) ^ 2",
    ] {
        let tree = parse(text).unwrap();
        let again = parse(&tree.to_string()).unwrap();
        assert!(sorted(again.clone()) == sorted(tree.clone()), "{text}\n{tree}\n{tree:?}\n{again:?}");
    }
}

/// Rules, a line each: `name = expression` or `name {label=value} = expression`.
fn recorded(text: &str) -> Vec<Recorded> {
    let rule = |line: &str| {
        let (head, expression) = line.split_once(" = ").unwrap();
        let (name, labels) = head.split_once(" {").unwrap_or((head, "}"));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
        Recorded {
            name: name.trim().to_owned(),
            expression: expression.to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            interval: (name.trim() == "slow").then(|| "2m".to_owned()),
        }
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(rule).collect()
}

const RULES: &str = "
    a = sum by (job) (rate(x[5m]))
    b = a / 2
    slow = sum(x)
    two {verb=read} = sum by (job) (r)
    two {verb=write} = sum by (job) (w)
    all = sum(x)
    top = topk by (job) (1, x)
    joined = x * on (pod) group_left (node) y
    either = x or on (pod) y
    loop = pool + 1
    pool = loop * 2
    broken = sum by (
";

#[test]
fn what_a_recorded_metric_becomes() {
    let rules = recorded(RULES);
    let nobody = |_: &str| Stored::default();
    let kept = |query: &str, helper: &str| {
        format!(
            "label_replace((label_replace({query}, \"phoenix_matches\", \"1\", {helper}) and on (phoenix_matches) label_replace(vector(1), \"phoenix_matches\", \"1\", \"\", \"\")), \"phoenix_matches\", \"\", \"\", \"\")"
        )
    };
    let not_pushed = kept("sum(x)", "\"job\", \"api\"");
    for (query, expected) in [
        ("sum(x)", "sum(x)"),
        ("a", "(sum by (job) (rate(x[5m])))"),
        ("{__name__=\"a\"}", "(sum by (job) (rate(x[5m])))"),
        ("b > 1", "((sum by (job) (rate(x[5m]))) / 2) > 1"),
        ("a{job=\"api\"}", "(sum by (job) (rate(x{job=\"api\"}[5m])))"),
        ("b{job!=\"api\"}", "((sum by (job) (rate(x{job!=\"api\"}[5m]))) / 2)"),
        ("max_over_time(slow[10m])", "max_over_time((sum(x))[10m:2m])"),
        ("max_over_time(a[10m])", "max_over_time((sum by (job) (rate(x[5m])))[10m:])"),
        ("two{verb=\"read\"}", "label_replace((sum by (job) (r)), \"verb\", \"read\", \"\", \"\")"),
        (
            "two{job=\"api\"}",
            "(label_replace((sum by (job) (r{job=\"api\"})), \"verb\", \"read\", \"\", \"\") or label_replace((sum by (job) (w{job=\"api\"})), \"verb\", \"write\", \"\", \"\"))",
        ),
        ("all{job=\"api\"}", &format!("({not_pushed})")),
        ("top{job=\"api\"}", "(topk by (job) (1, x{job=\"api\"}))"),
        ("joined{pod=\"p\"}", "(x{pod=\"p\"} * on (pod) group_left (node) y{pod=\"p\"})"),
        ("joined{job=\"api\"}", "(x{job=\"api\"} * on (pod) group_left (node) y)"),
        ("joined{node=\"n\"}", &format!("({})", kept("x * on (pod) group_left (node) y", "\"node\", \"n\""))),
        ("either{pod=\"p\"}", "(x{pod=\"p\"} or on (pod) y{pod=\"p\"})"),
        ("either{job=\"api\"}", &format!("({})", kept("x or on (pod) y", "\"job\", \"api\""))),
        ("loop", "! recording rules refer to each other in a circle: loop → pool → loop"),
        ("broken", "! broken is recorded by a rule with a syntax error: unclosed left parenthesis"),
        (
            "a offset 5m",
            "! a is recorded and not stored on both sides, and cannot be expanded under offset or @",
        ),
        ("two{verb=\"list\"}", "! no rule that records two gives it the labels that are asked for"),
    ] {
        let tree = parse(query).unwrap();
        let answer = match Book::new(&rules, &nobody).expand(&tree, &mut Vec::new()) {
            Ok(expanded) => expanded.unwrap_or(tree).to_string(),
            Err(error) => format!("! {error}"),
        };
        assert_eq!(answer, expected, "{query}");
    }
}

#[test]
fn what_is_stored_on_both_sides_stays() {
    let rules = recorded(RULES);
    for (full, folded, expected, note) in [
        (true, true, "a", "a: read as both sides have it stored"),
        (true, false, "(sum by (job) (rate(x[5m])))", "a: expanded, only the full side has it stored"),
        (false, true, "(sum by (job) (rate(x[5m])))", "a: expanded, only the folded side has it stored"),
        (false, false, "(sum by (job) (rate(x[5m])))", "a: expanded, no side has it stored"),
    ] {
        let stored = move |_: &str| Stored { full, folded };
        let mut notes = Vec::new();
        let tree = parse("a").unwrap();
        let answer = Book::new(&rules, &stored).expand(&tree, &mut notes).unwrap().unwrap_or(tree);
        assert_eq!((answer.to_string().as_str(), notes), (expected, vec![note.to_owned()]));
    }
}
