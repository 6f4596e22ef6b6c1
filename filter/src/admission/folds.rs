//! The folds of contained metrics, made when they are needed and kept while they are the same.
//!
//! In: the labels of each level, since when streams may be counted from zero, and when the metric is released. Out: a fold as rules have it,
//! with a number of its own under which everything that is remembered about attributes stands. A fold that changes gets another number.

use super::state::{ALL_LABELS, ByHalf};
use crate::route::{self, Compiled, Fold, Switched};
use crate::units::{Since, UnixNanos};
use phoenix_plan::{Budgets, Labels, Placement};
use std::rc::Rc;

/// Folds that are kept; with more, all are made anew.
const FOLDS_MAX: usize = 4_096;
/// Numbers of these folds begin here: a plan has less than 2,000.
const NUMBERS_FROM: usize = 1 << 16;
/// Resource attributes that no budget folds, protected or not: without them no series has a `job`.
const JOB: [&str; 2] = ["service.name", "service.namespace"];

/// A label's name, as its half stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// It is one of the resource.
    pub is_resource: bool,
    /// Its key.
    pub key: String,
}

/// What happens to the streams of one level.
pub struct Level {
    /// The labels that fold: those of this level and of all before.
    pub labels: Box<[u64]>,
    /// Their fold.
    pub fold: Rc<Fold>,
    /// The way back to raw, where that was announced.
    pub switch: Option<Rc<Switched>>,
}

/// Of what a level is made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    labels: Box<[u64]>,
    since: Since,
    released: Option<UnixNanos>,
}

/// All folds.
#[derive(Default)]
pub struct Folds {
    made: Vec<(Key, Rc<Level>)>,
    /// Folds of rules that begin at another time, by their number in the plan and that time.
    later: Vec<(usize, Rc<Fold>)>,
    numbers: usize,
}

/// Could a budget fold a label of this key by itself?
pub fn is_foldable(plan: &Compiled, budgets: &Budgets, key: &[u8], is_resource: bool) -> bool {
    let fits = core::str::from_utf8(key).is_ok_and(|key| {
        (1..=phoenix_plan::bounds::KEY_BYTES).contains(&key.len())
            && !key.contains(',')
            && !key.chars().any(char::is_control)
    });
    fits && !is_protected(plan, budgets, key, is_resource)
}

/// Does a label of this key stay whatever happens?
pub fn is_protected(plan: &Compiled, budgets: &Budgets, key: &[u8], is_resource: bool) -> bool {
    let is_job = is_resource && JOB.iter().any(|job| job.as_bytes() == key);
    let is_as_fine_as_us = is_resource && plan.plan.placement == Placement::Sidecar;
    budgets.protects(key) || is_job || is_as_fine_as_us
}

impl Folds {
    /// Another plan: all are made anew. Numbers go on, since something may still be remembered under the old ones.
    pub fn clear(&mut self) {
        self.made.clear();
        self.later.clear();
    }

    /// A rule's fold that began then.
    pub fn since(&mut self, fold: &Fold, since: Since) -> Rc<Fold> {
        let is = |(number, later): &&(usize, Rc<Fold>)| *number == fold.number && later.since == since;
        if let Some((_, later)) = self.later.iter().find(is) {
            return later.clone();
        }
        self.numbers = self.numbers.saturating_add(1);
        let number = NUMBERS_FROM.saturating_add(self.numbers);
        let mut later = fold.clone();
        (later.number, later.since) = (number, since);
        let later = Rc::new(later);
        if self.later.len() >= FOLDS_MAX {
            self.later.clear();
        }
        self.later.push((fold.number, later.clone()));
        later
    }

    /// The fold over these labels. None: the name of one is not known.
    pub fn level(
        &mut self,
        plan: &Compiled,
        budgets: &Budgets,
        names: &ByHalf<Name>,
        labels: &[u64],
        since: Since,
        released: Option<UnixNanos>,
    ) -> Option<Rc<Level>> {
        let key = Key { labels: labels.into(), since, released };
        if let Some((_, level)) = self.made.iter().find(|(known, _)| *known == key) {
            return Some(level.clone());
        }
        let over = of(plan, budgets, names, labels)?;
        let fold = Rc::new(self.make(plan, budgets, over.clone(), since));
        let switch = released.map(|at| {
            let before = self.make(plan, budgets, over, since);
            let settled_at = at.plus(plan.plan.stream_expiry.as_nanos());
            Rc::new(Switched {
                at,
                settled_at,
                before: Some(before),
                after: None,
                at_once: Since::default(),
                alone: false,
            })
        });
        let level = Rc::new(Level { labels: labels.into(), fold, switch });
        if self.made.len() >= FOLDS_MAX {
            self.made.clear();
        }
        self.made.push((key, level.clone()));
        Some(level)
    }

    fn make(&mut self, plan: &Compiled, budgets: &Budgets, labels: Labels, since: Since) -> Fold {
        self.numbers = self.numbers.saturating_add(1);
        let number = NUMBERS_FROM.saturating_add(self.numbers);
        let mut fold = route::fold(&plan.hasher, &plan.plan, &budgets.fold.with(labels), number);
        fold.since = since;
        fold
    }
}

/// The labels of a level, as a plan would name them.
fn of(plan: &Compiled, budgets: &Budgets, names: &ByHalf<Name>, labels: &[u64]) -> Option<Labels> {
    if labels.last() == Some(&ALL_LABELS) {
        let mut resource: Vec<String> = JOB.iter().map(|key| (*key).to_owned()).collect();
        resource.extend(budgets.protected_labels.iter().filter(|key| !JOB.contains(&key.as_str())).cloned());
        let resource = (plan.plan.placement == Placement::Gateway).then_some(resource);
        return Some(Labels::Keep { resource, attributes: budgets.protected_labels.clone() });
    }
    let (mut resource, mut attributes) = (Vec::new(), Vec::new());
    for label in labels {
        let name = names.get(label)?;
        if name.is_resource { &mut resource } else { &mut attributes }.push(name.key.clone());
    }
    Some(Labels::Drop { resource, attributes })
}
