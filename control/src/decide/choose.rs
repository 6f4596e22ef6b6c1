//! Where a budget is exceeded: the labels whose loss costs least.
//!
//! Enters: units and scopes. Leaves: labels added to what units want, and a [`Wish`] for each unit that changed or for each budget that nothing helps. The
//! objective is lexicographic ([decision 20](../../../../docs/decisions/0020-what-decide-minimises.md)): first the weight of declared queries that
//! lose their answer, then the usual series that are lost: what a label that is new has made is not usual.
//!
//! With fixed savings that is a minimum knapsack, for which greedy by saving per cost, finished at every step by the cheapest single move that
//! suffices, is within twice the best (Csirik and others, *Heuristics for the 0-1 min-knapsack problem*, 1991). Savings here shrink as
//! labels are added, so no bound is claimed. What turns out not to be needed is taken back. Cost: moves times labels
//! for each move that is made.

use super::scope::Scopes;
use super::state::Folded;
use super::unit::Units;
use crate::needs::LabelKey;
use crate::policy::Policy;
use std::collections::BTreeMap;

/// Why something should change.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The unit, by its place; none: nothing helps this budget.
    pub unit: Option<usize>,
    /// Whose budget asks for it, in words.
    pub scope: String,
    /// That budget.
    pub budget: f64,
    /// What counted towards it.
    pub counted: f64,
    /// And what counts after all that was decided.
    pub counted_after: f64,
    /// Another reason than a budget.
    pub because: Option<String>,
    /// Units of a budget that nothing helps.
    pub members: Vec<usize>,
}

/// Labels of one unit that fold together.
#[derive(Clone, Debug, PartialEq)]
struct Move {
    unit: usize,
    labels: Folded,
    saved: f64,
    used: u64,
    lost: f64,
}

/// A move that saves less than this part of what is too much is not worth a change, unless it is the last that is needed.
const WORTH: f64 = 0.005;

/// Chooses for every budget that is exceeded.
pub fn choose(units: &mut Units<'_>, scopes: &Scopes, policy: &Policy) -> Vec<Wish> {
    let mut wishes = Vec::new();
    let aim = f64::from(policy.change.aim_percent) / 100.0;
    for (place, scope) in scopes.all.iter().enumerate() {
        let counted = scope.counted(units);
        if counted <= scope.budget {
            continue;
        }
        let target = scope.budget * aim;
        let mut touched: Vec<usize> = Vec::new();
        for class in &scope.classes {
            let excess = scope.counted(units) - target;
            if excess > 0.0 {
                touched.extend(cover(units, class, excess));
            }
        }
        take_back(units, scopes, place, aim, &touched);
        let counted_after = scope.counted(units);
        let wish = |unit| Wish {
            unit,
            scope: scope.words.clone(),
            budget: scope.budget,
            counted,
            counted_after,
            because: None,
            members: if unit.is_none() { scope.units().collect() } else { Vec::new() },
        };
        touched.sort_unstable();
        touched.dedup();
        touched.retain(|index| units.all[*index].wanted != units.all[*index].wanted_before);
        wishes.extend(touched.iter().map(|index| wish(Some(*index))));
        if counted_after > scope.budget {
            wishes.push(wish(None));
        }
    }
    wishes
}

/// Folds labels of these units until so much is saved, or nothing is left that saves. The units that were touched.
fn cover(units: &mut Units<'_>, class: &[usize], excess: f64) -> Vec<usize> {
    let mut touched = Vec::new();
    // What no query needs goes first, all of it if it must; then by use.
    for is_free in [true, false] {
        let saved = greedy(units, class, excess - saved_by(units, &touched), is_free, &mut touched);
        if saved {
            break;
        }
    }
    touched.into_iter().map(|(unit, _)| unit).collect()
}

/// What the moves so far have saved, each unit once.
fn saved_by(units: &Units<'_>, touched: &[(usize, f64)]) -> f64 {
    let mut seen: Vec<usize> = Vec::new();
    let mut saved = 0.0;
    for (unit, before) in touched {
        if !seen.contains(unit) {
            seen.push(*unit);
            saved += before - units.all[*unit].remaining(&units.all[*unit].wanted);
        }
    }
    saved
}

/// Moves by saving per cost, finished by the cheapest that suffices. `touched` gets each unit with what it had before. True: it is enough.
fn greedy(
    units: &mut Units<'_>,
    class: &[usize],
    excess: f64,
    is_free: bool,
    touched: &mut Vec<(usize, f64)>,
) -> bool {
    let mut rest = excess;
    let mut made: Vec<Move> = Vec::new();
    // Cost of the best whole solution: so many of the made moves, and the one that finishes.
    let mut best: Option<((u64, f64), usize, Move)> = None;
    let mut spent = (0_u64, 0.0_f64);
    while rest > 0.0 {
        let moves: Vec<Move> = class.iter().flat_map(|index| moves(units, *index, is_free)).collect();
        let sum = |it: &Move| (spent.0 + it.used, spent.1 + it.lost);
        let finishing = moves.iter().filter(|it| it.saved >= rest);
        if let Some(last) = finishing.min_by(|a, b| cheaper(a, b)) {
            let cost = sum(last);
            if best.as_ref().is_none_or(|(known, ..)| less(cost, *known)) {
                best = Some((cost, made.len(), last.clone()));
            }
        }
        let helping = moves.into_iter().filter(|it| it.saved < rest && it.saved >= 1.0_f64.max(rest * WORTH));
        let Some(next) = helping.max_by(denser) else { break };
        spent = (spent.0 + next.used, spent.1 + next.lost);
        rest -= next.saved;
        apply(units, &next, touched);
        made.push(next);
    }
    let Some((_, keep, last)) = best else { return rest <= 0.0 };
    for undone in made.drain(keep..).rev() {
        undone.labels.iter().for_each(|label| {
            units.all[undone.unit].wanted.remove(label);
        });
    }
    apply(units, &last, touched);
    true
}

fn apply(units: &mut Units<'_>, it: &Move, touched: &mut Vec<(usize, f64)>) {
    let unit = &mut units.all[it.unit];
    touched.push((it.unit, unit.remaining(&unit.wanted)));
    unit.wanted.extend(it.labels.iter().cloned());
}

/// What could fold of a unit: each label by itself, and all of them together, since labels that go together save nothing alone. One that a query needs may save only
/// beside those that nobody needs, which then did nothing by themselves: with and without them. What was not needed of it is taken back.
fn moves(units: &Units<'_>, index: usize, is_free: bool) -> Vec<Move> {
    let unit = &units.all[index];
    if unit.locked.is_some() || (unit.overlaps && unit.wanted.is_empty()) {
        return Vec::new();
    }
    let before = unit.remaining(&unit.wanted);
    let (free, needed): (Folded, Folded) = {
        let (free, needed): (Vec<_>, Vec<_>) =
            unit.foldable().partition(|(_, label)| label.needed.weight == 0);
        let keys = |of: Vec<(&LabelKey, _)>| of.into_iter().map(|(key, _)| key.clone()).collect();
        (keys(free), keys(needed))
    };
    let room = phoenix_plan::bounds::LABELS.saturating_sub(unit.wanted.len());
    let of_class = if is_free { &free } else { &needed };
    let mut sets: Vec<Folded> = of_class.iter().map(|key| Folded::from([key.clone()])).collect();
    if of_class.len() > 1 {
        sets.push(of_class.iter().take(room).cloned().collect());
    }
    if !is_free && !free.is_empty() {
        let beside: Vec<Folded> = sets.iter().map(|set| set.union(&free).cloned().collect()).collect();
        sets.extend(beside);
    }
    let of = |labels: Folded| {
        let after = unit.remaining(&unit.wanted.union(&labels).cloned().collect());
        let (used, lost) = (unit.use_of(&labels), unit.lost(&labels, before, after));
        (after < before).then_some(Move { unit: index, labels, saved: before - after, used, lost })
    };
    sets.into_iter().filter(|set| set.len() <= room).filter_map(of).collect()
}

/// Labels that need not fold after all come back: those of most use first, then those with the fewest values. What is not needed for this budget may be for a narrower one
/// that was met before.
fn take_back(units: &mut Units<'_>, scopes: &Scopes, place: usize, aim: f64, touched: &[usize]) {
    let mut new: Vec<(u64, f64, usize, LabelKey)> = Vec::new();
    for index in touched {
        let unit = &units.all[*index];
        for key in unit.wanted.difference(&unit.wanted_before) {
            let label = &unit.labels[key];
            new.push((label.needed.weight, label.values, *index, key.clone()));
        }
    }
    new.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.total_cmp(&b.1)).then((a.2, &a.3).cmp(&(b.2, &b.3))));
    new.dedup();
    let mut counts: BTreeMap<usize, f64> = BTreeMap::new();
    for (_, _, index, key) in new {
        let met = scopes.places(index).iter().filter(|it| **it <= place && scopes.all[**it].was_exceeded);
        for it in met.clone() {
            counts.entry(*it).or_insert_with(|| scopes.all[*it].counted(units));
        }
        let unit = &mut units.all[index];
        let with = unit.remaining(&unit.wanted);
        if !unit.wanted.remove(&key) {
            continue;
        }
        let more = unit.remaining(&unit.wanted) - with;
        let is_met = |it: &usize| counts[it] + more <= scopes.all[*it].budget * aim;
        // What does not help is taken back in any case.
        if more <= 0.0 || met.clone().all(is_met) {
            met.for_each(|it| *counts.entry(*it).or_default() += more);
        } else {
            unit.wanted.insert(key);
        }
    }
}

fn less(a: (u64, f64), b: (u64, f64)) -> bool {
    a.0 < b.0 || (a.0 == b.0 && a.1 < b.1)
}

/// The cheaper first; of equal ones that which saves more, since what explodes now is more in a minute; then by name, so that order never depends on chance.
fn cheaper(a: &Move, b: &Move) -> std::cmp::Ordering {
    (a.used.cmp(&b.used))
        .then(a.lost.total_cmp(&b.lost))
        .then(b.saved.total_cmp(&a.saved))
        .then(a.labels.len().cmp(&b.labels.len()))
        .then_with(|| (a.unit, &a.labels).cmp(&(b.unit, &b.labels)))
}

/// The denser last, for a maximum: by saving per use where there is any, then by saving per loss, then by saving.
fn denser(a: &Move, b: &Move) -> std::cmp::Ordering {
    let per = |saved: f64, cost: f64| if cost > 0.0 { saved / cost } else { f64::INFINITY };
    let used = |it: &Move| per(it.saved, it.used as f64);
    (used(a).total_cmp(&used(b)))
        .then(per(a.saved, a.lost).total_cmp(&per(b.saved, b.lost)))
        .then(a.saved.total_cmp(&b.saved))
        .then(b.labels.len().cmp(&a.labels.len()))
        .then_with(|| (b.unit, &b.labels).cmp(&(a.unit, &a.labels)))
}
