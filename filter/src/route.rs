//! The compiled plan: which rule a point meets (first match wins), and what the fold of that rule needs ready.
//!
//! Name and resource decide first, once per metric of a resource; only rules that ask for point attributes are left for the
//! points. The plain definition is [`phoenix_plan::Plan::rule_for`]; a property test holds this one to it.

use crate::hash::{Domain, Hasher, Identity};
use crate::limits::NAME_REMEMBERED_MAX;
use crate::record::Temporality;
use crate::window::Windows;
use hashbrown::HashMap;
use phoenix_plan::{LabelMatch, OutputTemporality, Pipeline, Plan, Rule};
use std::rc::Rc;

/// Metric names whose rules are remembered. A batch rarely has more; when full, all are forgotten at once.
const NAMES_MAX: usize = 4_096;

/// A plan made ready for the hot path.
pub struct Compiled {
    /// The plan itself.
    pub plan: Plan,
    /// The identity function under the plan's key.
    pub hasher: Hasher,
    /// Fingerprint of the key: messages made under another one are not for us.
    pub key: u64,
    folds: Vec<Option<Fold>>,
}

/// The fold of one rule.
pub struct Fold {
    /// Value of the mark label.
    pub mark: Box<[u8]>,
    /// Its part of a series' identity.
    pub mark_id: Identity,
    /// Its windows.
    pub windows: Windows,
    output: OutputTemporality,
}

impl Fold {
    /// Temporality of the output for this input.
    pub fn output(&self, input: Temporality) -> Temporality {
        match self.output {
            OutputTemporality::Unchanged => input,
            OutputTemporality::Cumulative => Temporality::Cumulative,
            OutputTemporality::Delta => Temporality::Delta,
        }
    }
}

impl Compiled {
    /// Make a valid plan ready.
    pub fn new(plan: Plan) -> Compiled {
        let hasher = Hasher::new(plan.hash_key.as_bytes());
        let key = hasher.pair(Domain::Writer, b"fingerprint", b"").low();
        let folds = plan.rules.iter().map(|rule| fold(&hasher, rule)).collect();
        Compiled { plan, hasher, key, folds }
    }

    /// The rule at `index` and its fold, when it folds.
    pub fn fold(&self, index: usize) -> Option<(&Rule, &Fold)> {
        Some((self.plan.rules.get(index)?, self.folds.get(index)?.as_ref()?))
    }
}

fn fold(hasher: &Hasher, rule: &Rule) -> Option<Fold> {
    let fold = rule.fold.as_ref().filter(|_| rule.pipeline == Pipeline::Optimized)?;
    let mark = fold.labels.mark().into_bytes().into_boxed_slice();
    Some(Fold {
        mark_id: hasher.pair(Domain::Series, b"mark", &mark),
        mark,
        windows: Windows {
            width_ns: fold.window.as_nanos(),
            offset_ns: fold.offset().as_nanos(),
            delay_ns: fold.delay.as_nanos(),
        },
        output: fold.output_temporality,
    })
}

/// What decides about the points of one metric of one resource.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Rules that ask for point attributes, in order …
    asking: Vec<usize>,
    /// … and the one that takes whatever is left.
    last: Option<usize>,
}

impl Candidates {
    /// No point of the metric can meet a rule that folds.
    pub fn all_pass(&self, plan: &Compiled) -> bool {
        self.asking.iter().chain(&self.last).all(|i| plan.fold(*i).is_none())
    }

    /// The rule of a point. `has` says whether the point's attributes satisfy a matcher.
    pub fn rule<E>(
        &self,
        plan: &Compiled,
        mut has: impl FnMut(&LabelMatch) -> Result<bool, E>,
    ) -> Result<Option<usize>, E> {
        for &index in &self.asking {
            let Some(rule) = plan.plan.rules.get(index) else { continue };
            let mut all = true;
            for label in &rule.attributes {
                all = all && has(label)?;
            }
            if all {
                return Ok(Some(index));
            }
        }
        Ok(self.last)
    }
}

/// Remembers which rules speak of a metric name, across batches of one plan. Senders choose the names, so the table is seeded
/// from the plan's key.
pub struct Names {
    rules: HashMap<Box<[u8]>, Rc<[usize]>, ahash::RandomState>,
}

impl Names {
    /// Nothing is known yet about this plan.
    pub fn new(plan: &Compiled) -> Names {
        let seed = |name| plan.hasher.pair(Domain::Writer, b"names", name);
        let (a, b) = (seed(b"a"), seed(b"b"));
        let state = ahash::RandomState::with_seeds(a.low(), a.high(), b.low(), b.high());
        Names { rules: HashMap::with_hasher(state) }
    }

    /// Indices of the rules whose metric matcher accepts `name`, in order.
    pub fn rules(&mut self, plan: &Plan, name: &[u8]) -> Rc<[usize]> {
        if let Some(rules) = self.rules.get(name) {
            return rules.clone();
        }
        let speaks = |(i, rule): (usize, &Rule)| rule.metric.matches(name).then_some(i);
        let rules: Rc<[usize]> = plan.rules.iter().enumerate().filter_map(speaks).collect();
        if name.len() > NAME_REMEMBERED_MAX {
            return rules;
        }
        if self.rules.len() >= NAMES_MAX {
            self.rules.clear();
        }
        self.rules.insert(name.into(), rules.clone());
        rules
    }
}

/// Narrow the rules of a name down by the resource. `fits` says whether the resource satisfies the rule at an index.
pub fn candidates<E>(
    plan: &Compiled,
    named: &[usize],
    out: &mut Candidates,
    mut fits: impl FnMut(usize) -> Result<bool, E>,
) -> Result<(), E> {
    out.asking.clear();
    out.last = None;
    for &index in named {
        let Some(rule) = plan.plan.rules.get(index) else { continue };
        if !rule.resource.is_empty() && !fits(index)? {
            continue;
        }
        if rule.attributes.is_empty() {
            out.last = Some(index);
            return Ok(());
        }
        out.asking.push(index);
    }
    Ok(())
}
