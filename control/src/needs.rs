//! What declared queries need of which label.
//!
//! Enters: queries, as text with where they stand. Leaves: for a label of a metric its [`Use`]: which queries would answer differently without it. That
//! is what [`crate::verify`] says about a plan that folds just that label, so the two never disagree. Pure; [`load`] reads the files that a policy names.
//!
//! A query that cannot be read needs nothing that anybody could know; it is a complaint, and whoever runs the loop shows it.

use crate::policy::{Base, Policy};
use crate::verify::queries;
use crate::verify::{names, needs};
use phoenix_plan::{BudgetFold, Labels, MetricMatch, Pipeline, Plan, Rule};
use promql_parser::parser::Expr;
use promql_parser::util::visitor::{ExprVisitor, walk_expr};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Queries of a use that are named.
const NAMED_MAX: usize = 3;

/// A query that somebody declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Where it stands: file and place in it.
    pub place: String,
    /// PromQL, with variables put in and recorded metrics expanded.
    pub text: String,
    /// What it counts.
    pub weight: u32,
    /// Its labels must stay.
    pub preserve: bool,
}

/// What declared queries need of a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Sum of the weights of the queries that need it; 0: nobody does.
    pub weight: u64,
    /// One of them must be preserved.
    pub is_preserved: bool,
    /// Queries that need it.
    pub queries: u64,
    /// The first of them, by place.
    pub named: Vec<String>,
}

/// A label of a metric.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct LabelKey {
    /// Its key.
    pub key: String,
    /// A resource attribute; else an attribute of points.
    pub resource: bool,
}

/// A query that was understood.
#[derive(Clone, Debug)]
struct Query {
    declared: Declared,
    tree: Expr,
    /// Metrics that it names; none: it selects some without a name.
    metrics: Option<Vec<String>>,
}

/// All declared queries.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    queries: Vec<Query>,
    /// What could not be read, in words.
    pub complaints: Vec<String>,
}

impl Needs {
    /// Of these queries, whatever their order.
    pub fn new(declared: impl IntoIterator<Item = Declared>) -> Needs {
        let mut all = Needs::default();
        for declared in declared {
            match queries::parse(&declared.text) {
                Ok(tree) => {
                    let mut named = Named::default();
                    let _ = walk_expr(&mut named, &tree);
                    let metrics = (!named.is_open).then_some(named.metrics);
                    all.queries.push(Query { declared, tree, metrics });
                }
                Err(error) => all.complaints.push(format!("{}: {error}", declared.place)),
            }
        }
        all.queries.sort_by(|a, b| {
            (&a.declared.place, &a.declared.text).cmp(&(&b.declared.place, &b.declared.text))
        });
        all
    }

    /// How many queries there are.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// The queries that may ask for a metric.
    pub fn of_metric<'n>(&'n self, base: &'n Base, metric: &str) -> Asked<'n> {
        let metric = MetricMatch::Exact(metric.to_owned());
        let may_ask = |query: &&Query| {
            query.metrics.as_ref().is_none_or(|named| named.iter().any(|name| names::may_be(name, &metric)))
        };
        Asked { queries: self.queries.iter().filter(may_ask).collect(), base, metric }
    }
}

/// The queries that may ask for one metric.
pub struct Asked<'n> {
    queries: Vec<&'n Query>,
    base: &'n Base,
    metric: MetricMatch,
}

impl Asked<'_> {
    /// What is needed of a label.
    pub fn of(&self, label: &LabelKey) -> Use {
        if self.queries.is_empty() {
            return Use::default();
        }
        let plan = without(self.base, self.metric.clone(), label);
        let mut found = Use::default();
        for query in self.queries.iter().filter(|query| !needs::reasons(&plan, &query.tree).is_empty()) {
            found.weight += u64::from(query.declared.weight);
            found.queries += 1;
            found.is_preserved |= query.declared.preserve;
            if found.named.len() < NAMED_MAX {
                found.named.push(query.declared.place.clone());
            }
        }
        found
    }
}

/// Metrics that an expression names.
#[derive(Default)]
struct Named {
    metrics: Vec<String>,
    is_open: bool,
}

impl ExprVisitor for Named {
    type Error = ();
    fn pre_visit(&mut self, tree: &Expr) -> Result<bool, ()> {
        let selector = match tree {
            Expr::VectorSelector(selector) => selector,
            Expr::MatrixSelector(matrix) => &matrix.vs,
            _ => return Ok(true),
        };
        match queries::metric(selector) {
            Some(name) => self.metrics.push(name.to_owned()),
            None => self.is_open = true,
        }
        Ok(true)
    }
}

/// A plan that folds one label of one metric.
fn without(base: &Base, metric: MetricMatch, label: &LabelKey) -> Plan {
    let (resource, attributes) = if label.resource {
        (vec![label.key.clone()], Vec::new())
    } else {
        (Vec::new(), vec![label.key.clone()])
    };
    let mut plan = base.plan(1);
    plan.rules.push(Rule {
        name: "what if".to_owned(),
        tenant: None,
        metric,
        resource: Vec::new(),
        attributes: Vec::new(),
        pipeline: Pipeline::Optimized,
        fold: Some(BudgetFold::default().with(Labels::Drop { resource, attributes })),
        topk: None,
        switch: None,
    });
    plan
}

/// Reads the files that a policy names, from the directory in which the policy stands.
pub fn load(policy: &Policy, directory: &std::path::Path) -> Needs {
    let mut declared = Vec::new();
    let mut complaints = Vec::new();
    for it in &policy.queries {
        let files: Vec<PathBuf> = it.files.iter().map(|file| directory.join(file)).collect();
        let mut loaded = queries::read_files(&files);
        queries::expand_alone(&mut loaded);
        complaints.extend(loaded.complaints.iter().map(|it| match it.place.as_str() {
            "" => format!("{}: {}", it.file, it.text),
            place => format!("{}: {place}: {}", it.file, it.text),
        }));
        for query in loaded.queries {
            let place = format!("{} › {}", query.file, query.place);
            match &query.tree {
                Ok(_) => {
                    let (weight, preserve) = (it.weight, it.preserve);
                    declared.push(Declared { place, text: query.text, weight, preserve });
                }
                Err(error) => complaints.push(format!("{place}: {error}")),
            }
        }
    }
    let mut needs = Needs::new(declared);
    needs.complaints.splice(0..0, complaints);
    needs
}
