//! Which queries can be answered from folded data, and why not.
//!
//! Enters: a plan and a query's syntax tree. Leaves: the reasons why the folded side cannot give the full side's answer; none if it can.
//!
//! The walk goes from the selectors up and carries, for each vector, what stands between it and the full side's:
//! * *exact*: the same series with the same values;
//! * *folded*: each series is the sum of the full side's series over the labels that the fold removed.
//!
//! A fold is a sum, so a folded vector stays folded under what commutes with sums: `rate`, `increase`, `delta`, negation, products with a
//! number. `sum` by labels that are left makes it exact. Anything else looks at single series, which are gone: `max`, `count`, comparisons,
//! `quantile`, joins. A selector that matches on a removed label finds nothing. A counter read without `rate` or `increase` differs too,
//! since the folded one starts at zero where the fold begins.
//!
//! What it cannot know: units and label values. So it only explains, and the comparison of the answers decides (`run.rs`).

use super::names::{self, Removed};
use super::queries::{is_scalar, metric};
use phoenix_plan::Plan;
use promql_parser::label::{METRIC_NAME, MatchOp, Matcher};
use promql_parser::parser::token::{T_DIV, T_GROUP, T_LAND, T_LOR, T_LUNLESS, T_MUL, T_SUM};
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
};

/// Functions of one series that commute with sums over series, and read increments of a counter rather than its value.
const INCREMENTS: [&str; 7] = ["rate", "increase", "irate", "delta", "idelta", "deriv", "predict_linear"];
/// Functions of one series that commute with sums.
const LINEAR: [&str; 5] = ["avg_over_time", "last_over_time", "first_over_time", "sort", "sort_desc"];
/// Functions that only ask whether there is anything.
const EXISTENCE: [&str; 2] = ["absent", "absent_over_time"];
/// Endings of names that only counters have.
const COUNTER_ENDINGS: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];

/// Why the folded side cannot answer; empty if it can.
pub fn reasons(plan: &Plan, tree: &Expr) -> Vec<String> {
    let mut walk = Walk { plan, reasons: Vec::new() };
    let root = walk.vector(tree);
    walk.refuse(&root, |metric, removed| {
        Some(format!("shows single series of {metric}, in which {} was folded", removed.words(&[])?))
    });
    walk.reasons
}

/// What stands between a vector and the full side's: nothing, or a fold of a metric.
#[derive(Clone, Debug, Default)]
struct Vector {
    /// Metrics whose series are folded here, and what was removed.
    folded: Vec<(String, Removed)>,
    /// A counter's own value, not its increments.
    is_level: bool,
    /// Whether its series carry the mark and the writer.
    is_marked: bool,
}

struct Walk<'a> {
    plan: &'a Plan,
    reasons: Vec<String>,
}

impl Walk<'_> {
    fn say(&mut self, reason: String) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// Says a reason for each folded metric of a vector.
    fn refuse(&mut self, vector: &Vector, reason: impl Fn(&str, &Removed) -> Option<String>) {
        for (metric, removed) in &vector.folded {
            if let Some(reason) = reason(metric, removed) {
                self.say(reason);
            }
        }
    }

    /// Says for each folded metric that one of these labels is gone; true if one was.
    fn refuse_labels(&mut self, vector: &Vector, verb: &str, labels: &[String]) -> bool {
        let before = self.reasons.len();
        for label in labels {
            self.refuse(vector, |metric, removed| {
                removed.has(label).then(|| format!("{verb} {label}, which was folded in {metric}"))
            });
        }
        self.reasons.len() > before
    }

    fn vector(&mut self, tree: &Expr) -> Vector {
        match tree {
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs),
            Expr::Paren(paren) => self.vector(&paren.expr),
            Expr::Unary(unary) => self.vector(&unary.expr),
            Expr::Subquery(subquery) => self.vector(&subquery.expr),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Call(call) => self.call(call),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Vector::default(),
        }
    }

    fn selector(&mut self, selector: &VectorSelector) -> Vector {
        let matchers = &selector.matchers.matchers;
        let name = metric(selector);
        let Some(removed) = names::removed(self.plan, name, matchers) else { return Vector::default() };
        let shown = name.map_or_else(|| "metrics without a name in the query".to_owned(), str::to_owned);
        let is_level = name.is_some_and(|name| COUNTER_ENDINGS.iter().any(|ending| name.ends_with(ending)));
        let vector = Vector { folded: vec![(shown, removed)], is_level, is_marked: true };
        let all = matchers.iter().chain(selector.matchers.or_matchers.iter().flatten());
        let asked: Vec<String> = all.filter(|one| narrows(one)).map(|one| one.name.clone()).collect();
        if self.refuse_labels(&vector, "selects by", &asked) {
            return Vector::default();
        }
        vector
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr) -> Vector {
        if let Some(parameter) = &aggregate.param {
            self.vector(parameter);
        }
        let inner = self.vector(&aggregate.expr);
        if inner.folded.is_empty() {
            return Vector { is_marked: inner.is_marked && keeps_mark(aggregate), ..Vector::default() };
        }
        let op = aggregate.op.to_string();
        let is_refused = match &aggregate.modifier {
            Some(LabelModifier::Include(by)) => self.refuse_labels(&inner, "groups by", &by.labels),
            Some(LabelModifier::Exclude(without)) => {
                let before = self.reasons.len();
                self.refuse(&inner, |metric, removed| {
                    let gone = removed.words(&without.labels)?;
                    Some(format!(
                        "keeps labels by without ({}); {gone} was folded in {metric}",
                        without.labels.join(", ")
                    ))
                });
                self.reasons.len() > before
            }
            None => false,
        };
        let answered = is_refused || [T_SUM, T_GROUP].contains(&aggregate.op.id());
        if !answered {
            self.refuse(&inner, |metric, removed| {
                Some(format!(
                    "{op} looks at single series of {metric}, in which {} was folded",
                    removed.words(&[])?
                ))
            });
        } else if inner.is_level && !is_refused && aggregate.op.id() == T_SUM {
            self.refuse(&inner, |metric, _| {
                Some(format!("reads the value of the counter {metric}, which starts at zero where the fold began; rate and increase do not"))
            });
        }
        Vector { is_marked: keeps_mark(aggregate), ..Vector::default() }
    }

    fn call(&mut self, call: &Call) -> Vector {
        let name = call.func.name;
        let mut vector = Vector::default();
        for argument in &call.args.args {
            let one = self.vector(argument);
            if !is_scalar(argument) || !one.folded.is_empty() {
                vector = one;
            }
        }
        if vector.folded.is_empty() {
            return vector;
        }
        if INCREMENTS.contains(&name) {
            return Vector { is_level: false, ..vector };
        }
        if EXISTENCE.contains(&name) {
            return Vector::default();
        }
        if let "label_replace" | "label_join" | "sort_by_label" | "sort_by_label_desc" = name {
            let text = |index: usize| match call.args.args.get(index).map(|argument| &**argument) {
                Some(Expr::StringLiteral(text)) => Some(text.val.clone()),
                _ => None,
            };
            let read: Vec<String> = match name {
                "label_replace" => text(3).into_iter().collect(),
                "label_join" => (3..call.args.args.len()).filter_map(text).collect(),
                _ => (1..call.args.args.len()).filter_map(text).collect(),
            };
            let is_refused = self.refuse_labels(&vector, &format!("{name} reads"), &read);
            return if is_refused { Vector::default() } else { vector };
        }
        if LINEAR.contains(&name) {
            return vector;
        }
        self.refuse(&vector, |metric, removed| {
            Some(format!(
                "{name} looks at single series of {metric}, in which {} was folded",
                removed.words(&[])?
            ))
        });
        Vector::default()
    }

    fn binary(&mut self, binary: &BinaryExpr) -> Vector {
        let left = self.vector(&binary.lhs);
        let right = self.vector(&binary.rhs);
        let op = binary.op.id();
        let by_number = is_scalar(&binary.rhs) || is_scalar(&binary.lhs);
        let is_linear = op == T_MUL || (op == T_DIV && is_scalar(&binary.rhs));
        if by_number && is_linear {
            return if left.folded.is_empty() { right } else { left };
        }
        if !by_number {
            self.matching(binary, &left, &right);
        }
        if op == T_LOR && !left.folded.is_empty() {
            // A union of sums: later steps may still add them up.
            let folded = left.folded.into_iter().chain(right.folded).collect();
            return Vector { folded, is_level: left.is_level || right.is_level, is_marked: true };
        }
        let sets = [T_LAND, T_LUNLESS].contains(&op);
        for (side, vector) in [("left", &left), ("right", &right)] {
            // The right side of `and` is only asked whether a series is there.
            if sets && side == "right" {
                continue;
            }
            self.refuse(vector, |metric, removed| {
                let gone = removed.words(&[])?;
                Some(format!("{} looks at single series of {metric}, in which {gone} was folded", binary.op))
            });
        }
        Vector { is_marked: left.is_marked, ..Vector::default() }
    }

    /// The labels on which two vectors are matched.
    fn matching(&mut self, binary: &BinaryExpr, left: &Vector, right: &Vector) {
        let modifier = binary.modifier.as_ref();
        match modifier.and_then(|modifier| modifier.matching.as_ref()) {
            Some(LabelModifier::Include(on)) => {
                self.refuse_labels(left, "matches on", &on.labels);
                self.refuse_labels(right, "matches on", &on.labels);
            }
            _ if left.is_marked != right.is_marked && binary.op.id() != T_LOR => {
                let [mark, writer] = super::own_labels(Some(self.plan));
                self.say(format!("matches on all labels, and one side carries {mark} and {writer}: name the labels with on (…)"));
            }
            _ => {}
        }
        if let Some(VectorMatchCardinality::ManyToOne(taken) | VectorMatchCardinality::OneToMany(taken)) =
            modifier.map(|modifier| &modifier.card)
        {
            self.refuse_labels(left, "takes", &taken.labels);
            self.refuse_labels(right, "takes", &taken.labels);
        }
    }
}

/// Whether the mark survives an aggregation: only where all labels but some are kept.
fn keeps_mark(aggregate: &AggregateExpr) -> bool {
    matches!(aggregate.modifier, Some(LabelModifier::Exclude(_)))
}

/// Whether a matcher asks for more than any value or none.
fn narrows(matcher: &Matcher) -> bool {
    matcher.name != METRIC_NAME
        && !matches!((&matcher.op, matcher.value.as_str()), (MatchOp::Re(_), ".*" | "^.*$" | "(.*)"))
}

#[cfg(test)]
mod tests;
