//! The story in words: for people, and for programs.
//!
//! In: a [`Story`]. Out: a line with time and mode and a sentence for each decision, beneath it when each gateway had taken its plan; or a JSON object.

use super::super::gateways::{NODES, Pushes};
use super::{Decision, Story};
use serde_json::{Value, json};
use std::time::Duration;
use textwrap::{Options, WordSplitter};

/// Columns of a line, without the margin.
const WIDTH: usize = 118;

/// The story.
pub fn render(it: &Story) -> String {
    let mode = match it.auto_ns {
        0 => "observe to the end".to_owned(),
        at_ns => format!("observe until {:.1} s, then auto", seconds(it, at_ns)),
    };
    let verdict = if it.failures.is_empty() { "" } else { ": FAILED" };
    let mut out = format!("  decisions of the control host: {mode}{verdict}\n\n");
    for decision in &it.decisions {
        let mut indent = format!("  {:>6.1} s  {:<8} ", seconds(it, decision.at_ns), word(decision));
        for line in textwrap::wrap(&decision.sentence, options()) {
            out += &format!("{indent} {line}\n");
            indent = " ".repeat(indent.chars().count());
        }
        if decision.is_in_force() {
            let taken = NODES.map(|node| match it.took(decision, node) {
                Some(took) => format!("{node} after {} ms", took.as_millis()),
                None => format!("{node} never"),
            });
            let from = decision
                .effective_ns()
                .map_or(String::new(), |at_ns| format!("; it holds from {:.1} s on", seconds(it, at_ns)));
            out += &format!("{indent} taken by {}{from}\n", taken.join(", by "));
        }
    }
    let ends = it.ends.iter().map(|end| {
        let took = if end.taken == end.published.1 { "acknowledged" } else { "not acknowledged" };
        let (number, Pushes { taken, refused }) = (end.published.0, end.pushes);
        format!("{} plan {number}, {took}; its Envoy took {taken}, refused or missed {refused}", end.node)
    });
    let ends: Vec<String> = ends.map(|line| format!("  in force    {line}\n")).collect();
    out += &format!("\n{}", ends.concat());
    out += &format!("  audit log   {}\n", it.audit);
    out
}

/// The mode under which a decision was made.
fn word(decision: &Decision) -> &'static str {
    match decision.outcome.outcome.as_str() {
        "would_be_done" => "observe",
        "in_force" => "auto",
        "held" => "held",
        _ => "waits",
    }
}

/// Seconds into the run; before it they are negative.
fn seconds(it: &Story, at_ns: u64) -> f64 {
    (i128::from(at_ns) - i128::from(it.begin_ns)) as f64 / 1e9
}

/// How sentences are broken: at spaces.
fn options() -> Options<'static> {
    Options::new(WIDTH).break_words(false).word_splitter(WordSplitter::NoHyphenation)
}

/// The story for programs.
pub fn document(it: &Story) -> Value {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let decision = |decision: &Decision| {
        let taken: serde_json::Map<String, Value> =
            NODES.iter().map(|node| ((*node).to_owned(), it.took(decision, node).map(ms).into())).collect();
        json!({
            "seconds": seconds(it, decision.at_ns),
            "mode": word(decision),
            "action": decision.action,
            "metric": decision.metric,
            "sentence": decision.sentence,
            "version": decision.outcome.version,
            "effective_seconds": decision.effective_ns().map(|at_ns| seconds(it, at_ns)),
            "taken_after_ms": taken,
        })
    };
    let end = |end: &super::End| {
        json!({
            "node": end.node,
            "plan": end.published.0,
            "published": end.published.1,
            "taken": end.taken,
            "reported_plan": end.reported,
            "refused": end.refused,
            "envoy_taken": end.pushes.taken,
            "envoy_refused": end.pushes.refused,
        })
    };
    json!({
        "auto_seconds": (it.auto_ns > 0).then(|| seconds(it, it.auto_ns)),
        "decisions": it.decisions.iter().map(decision).collect::<Vec<_>>(),
        "gateways": it.ends.iter().map(end).collect::<Vec<_>>(),
        "audit": it.audit,
        "failures": it.failures,
    })
}
