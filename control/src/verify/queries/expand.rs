//! Recorded metrics replaced by what they record, so that a query can run where nobody records.
//!
//! Enters: a syntax tree, the recording rules of all files, and which metrics are stored. Leaves: a tree in which every recorded metric
//! that not both sides have stored is expanded, in as many steps as rules refer to rules. A metric that several rules record becomes their
//! union by `or`. Labels that a rule sets are put on by `label_replace`; matchers on them are decided here, all other matchers are pushed
//! down to the selectors where that keeps the meaning ([`push`]), and joined on where not ([`filtered`]): PromQL has no filter by label for
//! expressions.
//!
//! Refused, in words: circles, `offset` and `@` on a recorded metric, and expressions over [`BYTES_MAX`].

use super::rules::Recorded;
use crate::verify::prometheus::quoted;
use promql_parser::label::{METRIC_NAME, MatchOp, Matcher};
use promql_parser::parser::token::{T_LAND, T_LOR, T_LUNLESS};
use promql_parser::parser::{
    AggregateExpr, BinModifier, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
};
use promql_parser::util::visitor::{ExprVisitorMut, walk_expr_mut};

/// Largest expanded expression; deep towers of rules grow by multiplication.
const BYTES_MAX: usize = 64 << 10;

/// Label that [`filtered`] sets and takes off.
const HELPER: &str = "phoenix_matches";

/// Which sides have a metric stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The full side.
    pub full: bool,
    /// The folded side.
    pub folded: bool,
}

/// The recording rules of all files.
pub struct Book<'a> {
    recorded: &'a [Recorded],
    is_stored: &'a dyn Fn(&str) -> Stored,
}

impl<'a> Book<'a> {
    /// From the rules, and somebody who knows what is stored.
    pub fn new(recorded: &'a [Recorded], is_stored: &'a dyn Fn(&str) -> Stored) -> Book<'a> {
        Book { recorded, is_stored }
    }

    /// The tree with recorded metrics expanded; none if nothing had to be.
    pub fn expand(&self, tree: &Expr, notes: &mut Vec<String>) -> Result<Option<Expr>, String> {
        if self.recorded.is_empty() {
            return Ok(None);
        }
        let expanded = self.walk(tree, &mut Vec::new(), notes)?;
        if expanded == *tree {
            return Ok(None);
        }
        let text = expanded.to_string();
        // The text is what runs: it must mean the tree. Writing sorts matchers.
        if sorted(super::parse(&text)?) != sorted(expanded.clone()) {
            return Err("the expanded expression cannot be written as text".to_owned());
        }
        Ok(Some(expanded))
    }

    fn walk(&self, tree: &Expr, trail: &mut Vec<String>, notes: &mut Vec<String>) -> Result<Expr, String> {
        let mut tree = tree.clone();
        match &mut tree {
            Expr::VectorSelector(selector) => {
                if let Some(expanded) = self.selector(selector, trail, notes)? {
                    return Ok(expanded);
                }
            }
            Expr::MatrixSelector(matrix) => {
                if let Some(expanded) = self.selector(&matrix.vs, trail, notes)? {
                    let range = promql_parser::util::display_duration(&matrix.range);
                    let interval = self.rules(&matrix.vs).find_map(|rule| rule.interval.clone());
                    return super::parse(&format!("{expanded}[{range}:{}]", interval.unwrap_or_default()));
                }
            }
            Expr::Aggregate(aggregate) => {
                *aggregate.expr = self.walk(&aggregate.expr, trail, notes)?;
                if let Some(parameter) = &mut aggregate.param {
                    **parameter = self.walk(parameter, trail, notes)?;
                }
            }
            Expr::Unary(unary) => *unary.expr = self.walk(&unary.expr, trail, notes)?,
            Expr::Binary(binary) => {
                *binary.lhs = self.walk(&binary.lhs, trail, notes)?;
                *binary.rhs = self.walk(&binary.rhs, trail, notes)?;
            }
            Expr::Paren(paren) => *paren.expr = self.walk(&paren.expr, trail, notes)?,
            Expr::Subquery(subquery) => *subquery.expr = self.walk(&subquery.expr, trail, notes)?,
            Expr::Call(call) => {
                for argument in &mut call.args.args {
                    **argument = self.walk(argument, trail, notes)?;
                }
            }
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
        }
        Ok(tree)
    }

    fn rules<'s>(&'s self, selector: &'s VectorSelector) -> impl Iterator<Item = &'s Recorded> + use<'s> {
        let name = metric(selector);
        self.recorded.iter().filter(move |rule| Some(rule.name.as_str()) == name)
    }

    /// What stands for a selector of a recorded metric; none if it stays.
    fn selector(
        &self,
        selector: &VectorSelector,
        trail: &mut Vec<String>,
        notes: &mut Vec<String>,
    ) -> Result<Option<Expr>, String> {
        let Some(name) = metric(selector).filter(|_| self.rules(selector).next().is_some()) else {
            return Ok(None);
        };
        let stored = (self.is_stored)(name);
        let mut note = |text: String| {
            if !notes.contains(&text) {
                notes.push(text);
            }
        };
        if stored.full && stored.folded {
            note(format!("{name}: read as both sides have it stored"));
            return Ok(None);
        }
        note(match (stored.full, stored.folded) {
            (true, _) => format!("{name}: expanded, only the full side has it stored"),
            (_, true) => format!("{name}: expanded, only the folded side has it stored"),
            _ => format!("{name}: expanded, no side has it stored"),
        });
        if trail.iter().any(|earlier| earlier == name) {
            return Err(format!(
                "recording rules refer to each other in a circle: {} → {name}",
                trail.join(" → ")
            ));
        }
        if selector.offset.is_some() || selector.at.is_some() {
            return Err(format!(
                "{name} is recorded and not stored on both sides, and cannot be expanded under offset or @"
            ));
        }
        if !selector.matchers.or_matchers.is_empty() {
            return Err(format!(
                "{name} is recorded and not stored on both sides, and cannot be expanded under matchers with or"
            ));
        }
        trail.push(name.to_owned());
        let mut alternatives = Vec::new();
        for rule in self.rules(selector) {
            alternatives.extend(self.alternative(rule, selector, trail, notes)?);
        }
        trail.pop();
        if alternatives.is_empty() {
            return Err(format!("no rule that records {name} gives it the labels that are asked for"));
        }
        let text = match alternatives.as_slice() {
            [only] => only.clone(),
            several => format!("({})", several.join(" or ")),
        };
        if text.len() > BYTES_MAX {
            return Err(format!("{name} expands to more than {} KiB", BYTES_MAX >> 10));
        }
        super::parse(&text).map(Some)
    }

    /// One rule's expression under the matchers of a selector; none if the labels that the rule sets exclude it.
    fn alternative(
        &self,
        rule: &Recorded,
        selector: &VectorSelector,
        trail: &mut Vec<String>,
        notes: &mut Vec<String>,
    ) -> Result<Option<String>, String> {
        let tree = super::parse(&rule.expression)
            .map_err(|error| format!("{} is recorded by a rule with a {error}", rule.name))?;
        let mut tree = self.walk(&tree, trail, notes)?;
        for matcher in selector.matchers.matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
            if let Some(value) = rule.labels.get(&matcher.name) {
                if !matcher.is_match(value) {
                    return Ok(None);
                }
            } else {
                let mut pushed = tree.clone();
                tree = if push(&mut pushed, matcher) {
                    pushed
                } else {
                    super::parse(&filtered(&tree, matcher))?
                };
            }
        }
        let mut text = format!("({tree})");
        for (label, value) in &rule.labels {
            let value = quoted(&value.replace('$', "$$"));
            text = format!("label_replace({text}, {}, {value}, \"\", \"\")", quoted(label));
        }
        Ok(Some(text))
    }
}

/// The tree with the matchers of each selector in one order.
fn sorted(mut tree: Expr) -> Expr {
    struct Sort;
    impl ExprVisitorMut for Sort {
        type Error = std::convert::Infallible;
        fn pre_visit(&mut self, tree: &mut Expr) -> Result<bool, Self::Error> {
            let selector = match tree {
                Expr::VectorSelector(selector) => selector,
                Expr::MatrixSelector(matrix) => &mut matrix.vs,
                _ => return Ok(true),
            };
            selector.matchers.matchers.sort_by_key(Matcher::to_string);
            Ok(true)
        }
    }
    let Ok(_) = walk_expr_mut(&mut Sort, &mut tree);
    tree
}

/// The metric's name, before the braces or within.
pub fn metric(selector: &VectorSelector) -> Option<&str> {
    let within = || {
        let by_name =
            |matcher: &&Matcher| matcher.name == METRIC_NAME && matches!(matcher.op, MatchOp::Equal);
        selector.matchers.matchers.iter().find(by_name).map(|matcher| matcher.value.as_str())
    };
    selector.name.as_deref().or_else(within)
}

/// An expression that keeps what a matcher matches, for any expression: a helper label is set where the value matches, joined on, and taken
/// off again. Slower than [`push`], since the whole expression is evaluated.
fn filtered(tree: &Expr, matcher: &Matcher) -> String {
    let (pattern, joins) = match matcher.op {
        MatchOp::Equal => (regex::escape(&matcher.value), "and"),
        MatchOp::NotEqual => (regex::escape(&matcher.value), "unless"),
        MatchOp::Re(_) => (matcher.value.clone(), "and"),
        MatchOp::NotRe(_) => (matcher.value.clone(), "unless"),
    };
    let (label, pattern) = (quoted(&matcher.name), quoted(&pattern));
    let (helper, one) =
        (quoted(HELPER), format!("label_replace(vector(1), {}, \"1\", \"\", \"\")", quoted(HELPER)));
    let marked = format!("label_replace({tree}, {helper}, \"1\", {label}, {pattern})");
    format!("label_replace(({marked} {joins} on ({HELPER}) {one}), {helper}, \"\", \"\", \"\")")
}

/// Adds a matcher to the selectors below, where that filters the expression's result by it and does nothing else. False: it cannot be done;
/// the tree is then spoilt. A label passes an operation if the operation keeps it as it is and does not mix series that differ in it.
pub fn push(tree: &mut Expr, matcher: &Matcher) -> bool {
    let label = matcher.name.as_str();
    match tree {
        Expr::VectorSelector(selector) => add(selector, matcher),
        Expr::MatrixSelector(matrix) => add(&mut matrix.vs, matcher),
        Expr::Paren(paren) => push(&mut paren.expr, matcher),
        Expr::Unary(unary) => push(&mut unary.expr, matcher),
        Expr::Subquery(subquery) => push(&mut subquery.expr, matcher),
        Expr::Aggregate(aggregate) => groups_by(aggregate, label) && push(&mut aggregate.expr, matcher),
        Expr::Call(call) => push_call(call, matcher),
        Expr::Binary(binary) => push_binary(binary, matcher),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => false,
    }
}

fn add(selector: &mut VectorSelector, matcher: &Matcher) -> bool {
    if !selector.matchers.or_matchers.is_empty() {
        return false;
    }
    if !selector.matchers.matchers.contains(matcher) {
        selector.matchers.matchers.push(matcher.clone());
    }
    true
}

fn groups_by(aggregate: &AggregateExpr, label: &str) -> bool {
    // count_values writes a label of its own.
    let writes =
        matches!(aggregate.param.as_deref(), Some(Expr::StringLiteral(written)) if written.val == label);
    !writes
        && match &aggregate.modifier {
            Some(LabelModifier::Include(by)) => by.labels.iter().any(|one| one == label),
            Some(LabelModifier::Exclude(without)) => without.labels.iter().all(|one| one != label),
            None => false,
        }
}

fn push_call(call: &mut Call, matcher: &Matcher) -> bool {
    let writes_label = |args: &[Box<Expr>]| matches!(args.get(1).map(|arg| &**arg), Some(Expr::StringLiteral(text)) if text.val == matcher.name);
    let args = &mut call.args.args;
    match call.func.name {
        "absent" | "absent_over_time" | "scalar" | "vector" | "time" | "info" => false,
        "label_replace" | "label_join" if writes_label(args) => false,
        "histogram_quantile" | "histogram_fraction" if matcher.name == "le" => false,
        // The one argument that is a vector.
        _ => match args.iter_mut().find(|argument| !is_scalar(argument)) {
            Some(vector) => push(vector, matcher),
            None => false,
        },
    }
}

fn push_binary(binary: &mut BinaryExpr, matcher: &Matcher) -> bool {
    if is_scalar(&binary.lhs) {
        return push(&mut binary.rhs, matcher);
    }
    if is_scalar(&binary.rhs) {
        return push(&mut binary.lhs, matcher);
    }
    let label = &matcher.name;
    let matched = match binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref()) {
        None => true,
        Some(LabelModifier::Include(on)) => on.labels.contains(label),
        Some(LabelModifier::Exclude(ignoring)) => !ignoring.labels.contains(label),
    };
    let op = binary.op.id();
    // What stays of `and` and `unless` is a part of the left side, whatever the right side has.
    if op == T_LAND || op == T_LUNLESS {
        return push(&mut binary.lhs, matcher);
    }
    if matched {
        return push(&mut binary.lhs, matcher) && push(&mut binary.rhs, matcher);
    }
    // A label outside the matching comes from the side with many series, unless it is taken from the other.
    let Some(BinModifier { card, .. }) = &binary.modifier else { return false };
    match card {
        _ if op == T_LOR => false,
        VectorMatchCardinality::ManyToOne(taken) if !taken.labels.contains(label) => {
            push(&mut binary.lhs, matcher)
        }
        VectorMatchCardinality::OneToMany(taken) if !taken.labels.contains(label) => {
            push(&mut binary.rhs, matcher)
        }
        _ => false,
    }
}

/// Whether an expression is a number or a string, whatever is stored.
pub fn is_scalar(tree: &Expr) -> bool {
    use promql_parser::parser::value::ValueType;
    matches!(tree.value_type(), ValueType::Scalar | ValueType::String)
}

#[cfg(test)]
mod tests;
