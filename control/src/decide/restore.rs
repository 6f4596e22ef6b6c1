//! Where there is room again: the labels that come back.
//!
//! Enters: units and scopes after [`super::choose`]. Leaves: labels taken from what units want. A label comes back when all budgets of its metric would stay below
//! `restore_below_percent` with it, which is less than where folding aims: between the two nothing changes. Whole metrics first, then labels by
//! use. The folded series stand beside the raw ones until every stream of before is forgotten; to wait for room for both would be to wait for ever, where half a budget
//! folds into the other half. And what several embedders see for a whole period is not folded any more, whatever the budgets say: it would inflate.

use super::choose::Wish;
use super::scope::Scopes;
use super::state::Folded;
use super::unit::Units;
use crate::needs::LabelKey;
use crate::policy::Policy;

/// Restores what can be.
pub fn restore(
    units: &mut Units<'_>,
    scopes: &Scopes,
    policy: &Policy,
    now_ns: u64,
    period_ms: u64,
) -> Vec<Wish> {
    let below = f64::from(policy.change.restore_below_percent) / 100.0;
    let mut wishes = Vec::new();
    // What an embedder that nobody hears has would not be counted.
    if !units.is_known {
        return wishes;
    }
    for index in 0..units.all.len() {
        let unit = &units.all[index];
        if unit.locked.is_some() || unit.wanted.is_empty() || unit.wanted != unit.wanted_before {
            continue;
        }
        let since_ns = unit.overlapping_since_ns;
        if unit.inflates(period_ms, now_ns) {
            units.all[index].wanted.clear();
            let because = format!(
                "several embedders have seen the same streams of it for {}, and a sum over them would count those twice",
                super::words::span(now_ns - since_ns)
            );
            wishes.push(wish(units, scopes, index, Some(because)));
            continue;
        }
        if scopes.was_exceeded(index) {
            continue;
        }
        for less in options(units, index) {
            let kept = std::mem::replace(&mut units.all[index].wanted, less);
            if scopes.of(index).all(|scope| scope.counted(units) <= scope.budget * below) {
                wishes.push(wish(units, scopes, index, None));
                break;
            }
            units.all[index].wanted = kept;
        }
    }
    wishes
}

/// What could fold instead: nothing, or one label less, the one of most use first.
fn options(units: &Units<'_>, index: usize) -> Vec<Folded> {
    let unit = &units.all[index];
    let weight = |key: &LabelKey| unit.labels.get(key).map_or(0, |label| label.needed.weight);
    let values = |key: &LabelKey| unit.labels.get(key).map_or(0.0, |label| label.values);
    let mut keys: Vec<&LabelKey> = unit.wanted.iter().collect();
    keys.sort_by(|a, b| {
        weight(b).cmp(&weight(a)).then(values(a).total_cmp(&values(b))).then_with(|| a.cmp(b))
    });
    let one_less = |key: &&LabelKey| unit.wanted.iter().filter(|it| it != key).cloned().collect();
    let mut options = vec![Folded::new()];
    if keys.len() > 1 {
        options.extend(keys.iter().map(one_less));
    }
    options
}

/// A wish to restore, by the budget that is nearest to its end.
fn wish(units: &Units<'_>, scopes: &Scopes, index: usize, because: Option<String>) -> Wish {
    let part = |counted: f64, budget: f64| counted / budget.max(1.0);
    let nearest = scopes
        .of(index)
        .map(|scope| (scope.counted(units), scope))
        .max_by(|a, b| part(a.0, a.1.budget).total_cmp(&part(b.0, b.1.budget)));
    let Some((counted_after, scope)) = nearest else {
        let because = because.or_else(|| Some("no budget bounds it any more".to_owned()));
        let scope = "no budget".to_owned();
        return Wish {
            unit: Some(index),
            scope,
            budget: 0.0,
            counted: 0.0,
            counted_after: 0.0,
            because,
            members: Vec::new(),
        };
    };
    let unit = &units.all[index];
    let counted = counted_after - unit.remaining(&unit.wanted) + unit.remaining(&unit.wanted_before);
    Wish {
        unit: Some(index),
        scope: scope.words.clone(),
        budget: scope.budget,
        counted,
        counted_after,
        because,
        members: Vec::new(),
    }
}
