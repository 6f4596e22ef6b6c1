//! Every query on both sides, a bounded number at a time.
//!
//! Enters: queries. Leaves: an outcome each, in the same order. Queries with the same text run once. The answers decide; the plan only says
//! why they differ: a query that the plan says cannot be answered and whose answers agree all the same (a label with one value, say) is good.

use super::arguments::{Arguments, Span};
use super::compare::{self, Rule};
use super::needs;
use super::prometheus::Side;
use super::queries::Query;
use super::verdict::{Outcome, Verdict};
use phoenix_plan::Plan;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs all.
pub fn all(
    queries: &[Query],
    plan: Option<&Plan>,
    full: &Side,
    folded: &Side,
    span: &Span,
    arguments: &Arguments,
) -> Vec<Outcome> {
    let rule = Rule {
        tolerance: arguments.tolerance,
        outliers: arguments.outliers,
        own_labels: super::own_labels(plan),
    };
    let mut first_with: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, query) in queries.iter().enumerate() {
        first_with.entry(&query.text).or_insert(index);
    }
    let work: Vec<usize> = first_with.values().copied().collect();
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, Outcome>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..arguments.parallel {
            scope.spawn(|| {
                while let Some(&index) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = one(&queries[index], plan, full, folded, span, &rule);
                    done.lock().expect("no worker panics while it holds this").insert(index, outcome);
                }
            });
        }
    });
    let done = done.into_inner().expect("no worker panics while it holds this");
    queries.iter().map(|query| done[&first_with[query.text.as_str()]].clone()).collect()
}

/// Runs one.
fn one(query: &Query, plan: Option<&Plan>, full: &Side, folded: &Side, span: &Span, rule: &Rule) -> Outcome {
    let tree = match &query.tree {
        Ok(tree) => tree,
        Err(why) => return Outcome::without_answer(Verdict::CannotBeRead, why.clone()),
    };
    let by_plan = plan.map(|plan| needs::reasons(plan, tree)).unwrap_or_default();
    let (full, folded) = match (full.query_range(&query.text, span), folded.query_range(&query.text, span)) {
        (Ok(full), Ok(folded)) => (full, folded),
        (full, folded) => {
            let reasons = [full.err(), folded.err()].into_iter().flatten().collect();
            return Outcome { verdict: Verdict::CannotBeRun, reasons, comparison: None };
        }
    };
    let (measured, comparison) = compare::compare(&full, &folded, span, rule);
    let verdict = match measured {
        Verdict::Differs if !by_plan.is_empty() => Verdict::CannotBeAnswered,
        other => other,
    };
    let reasons = match verdict {
        Verdict::CannotBeAnswered => by_plan,
        Verdict::Differs => differences(&comparison, rule),
        Verdict::NoData => by_plan,
        _ if by_plan.is_empty() => Vec::new(),
        _ => by_plan
            .into_iter()
            .map(|reason| format!("by the plan it {reason}; here the answers agree"))
            .collect(),
    };
    Outcome { verdict, reasons, comparison: Some(comparison) }
}

/// What differs, in words.
fn differences(comparison: &compare::Comparison, rule: &Rule) -> Vec<String> {
    let mut reasons = comparison.remarks.clone();
    for (count, side) in [(comparison.unmatched.full, "full"), (comparison.unmatched.folded, "folded")] {
        if count > 0 && comparison.series.full > 0 && comparison.series.folded > 0 {
            reasons.push(format!("{count} series only on the {side} side"));
        }
    }
    if comparison.outside > 0 {
        reasons.push(format!(
            "{} of {} points differ by more than {}",
            comparison.outside,
            comparison.points,
            super::report::percent(rule.tolerance)
        ));
    }
    for (count, side) in [(comparison.missing.full, "full"), (comparison.missing.folded, "folded")] {
        if count > 0 {
            reasons.push(format!("{count} points missing on the {side} side"));
        }
    }
    reasons
}
