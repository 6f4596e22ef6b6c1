//! Which streams of a metric stay raw, and how many: a function of weights and of who is raw now.
//!
//! In: the heaviest streams with their weights, the metric's total, what the plan wants. Out: who is promoted and who is demoted. Sticky: what is
//! raw stays until a stream of the tail is heavier by half ([`HEAVIER`]), so that neighbours in rank which change places by a few percent do not
//! change their treatment; and who has just changed stays for a while, which whoever asks says by [`Candidate::may_move`]. Nothing here knows a
//! clock, a plan or a log. Cost: one sort.

use phoenix_plan::{TopK, order};

/// A stream of the tail takes the place of a raw one if it is so much heavier.
pub const HEAVIER: f64 = 1.5;
/// With a target k moves by this factor a generation at most …
const FACTOR: u32 = 2;
/// … and down only where so many of ten streams suffice.
const FEWER: u32 = 9;

/// A stream and what it weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its key in the log.
    pub series: u64,
    /// Its weight; nothing below zero.
    pub weight: f64,
    /// It is raw, or will be.
    pub is_raw: bool,
    /// Its last change is long enough ago.
    pub may_move: bool,
}

/// Who changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Raw from the switch on, heaviest first.
    pub promote: Vec<u64>,
    /// Folded from the switch on, lightest first.
    pub demote: Vec<u64>,
    /// How many are to be raw.
    pub k: u32,
}

/// Decide. `total` is the weight of all streams, those in the list and the rest.
pub fn rank(how: &TopK, candidates: &mut [Candidate], total: f64) -> Changes {
    // Heaviest first; of two alike the one that is raw, and then by key, so that everybody comes to the same.
    order::sort_by(candidates, |a, b| {
        b.weight.total_cmp(&a.weight).then(b.is_raw.cmp(&a.is_raw)).then(a.series.cmp(&b.series))
    });
    let raw = u32::try_from(candidates.iter().filter(|it| it.is_raw).count()).unwrap_or(u32::MAX);
    let k = wanted(how, candidates, total, raw);
    let mut out = Changes { k, ..Changes::default() };
    let mut tail = candidates.iter().filter(|it| !it.is_raw && it.may_move && it.weight > 0.0).peekable();
    let mut light = candidates.iter().rev().filter(|it| it.is_raw && it.may_move).peekable();
    let mut count = raw;
    while count > k {
        let Some(it) = light.next() else { break };
        out.demote.push(it.series);
        count = count.saturating_sub(1);
    }
    while count < k {
        let Some(it) = tail.next() else { break };
        out.promote.push(it.series);
        count = count.saturating_add(1);
    }
    // With more than k raw, none of which may move, nobody else comes.
    while count <= k
        && let (Some(up), Some(down)) = (tail.peek(), light.peek())
        && up.weight > down.weight * HEAVIER
    {
        out.promote.push(up.series);
        out.demote.push(down.series);
        tail.next();
        light.next();
    }
    out
}

/// How many are to be raw. `now` are.
fn wanted(how: &TopK, heaviest_first: &[Candidate], total: f64, now: u32) -> u32 {
    let Some(percent) = how.coverage_percent.filter(|_| total > 0.0) else {
        return how.k.max(1);
    };
    let target = total * f64::from(percent) / 100.0;
    let (mut sum, mut least) = (0.0, 0_u32);
    for it in heaviest_first {
        if sum >= target || it.weight <= 0.0 {
            break;
        }
        sum += it.weight;
        least = least.saturating_add(1);
    }
    if sum < target {
        // The rest is in streams too light to be listed.
        least = how.k_max();
    }
    let now = now.max(1);
    let fewer_do = u64::from(least).saturating_mul(10) <= u64::from(now).saturating_mul(u64::from(FEWER));
    let k = if least > now || fewer_do { least } else { now };
    k.clamp(now / FACTOR, now.saturating_mul(FACTOR)).clamp(1, how.k_max())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(k: u32, coverage_percent: Option<u32>) -> TopK {
        TopK { k, coverage_percent, k_max: Some(100) }
    }

    /// Weights; those of raw streams first, by name from 0.
    fn candidates(raw: &[f64], tail: &[f64]) -> Vec<Candidate> {
        let all = raw.iter().map(|w| (w, true)).chain(tail.iter().map(|w| (w, false)));
        let it = |(n, (weight, is_raw)): (usize, (&f64, bool))| Candidate {
            series: n as u64,
            weight: *weight,
            is_raw,
            may_move: true,
        };
        all.enumerate().map(it).collect()
    }

    fn check(how: &TopK, raw: &[f64], tail: &[f64], rest: f64) -> (Vec<u64>, Vec<u64>, u32) {
        let mut all = candidates(raw, tail);
        let total = all.iter().map(|it| it.weight).sum::<f64>() + rest;
        let changes = rank(how, &mut all, total);
        all.reverse();
        assert_eq!(rank(how, &mut all, total), changes, "whatever the order");
        (changes.promote, changes.demote, changes.k)
    }

    #[test]
    fn free_places_go_to_the_heaviest_of_the_tail() {
        assert_eq!(check(&how(3, None), &[5.0], &[1.0, 3.0, 2.0, 0.0], 0.0), (vec![2, 3], vec![], 3));
        assert_eq!(
            check(&how(3, None), &[5.0], &[0.0, 0.0], 0.0),
            (vec![], vec![], 3),
            "nobody without weight"
        );
    }

    #[test]
    fn a_place_changes_hands_for_half_as_much_again() {
        assert_eq!(check(&how(2, None), &[10.0, 4.0], &[5.9, 6.0], 0.0), (vec![], vec![], 2));
        assert_eq!(check(&how(2, None), &[10.0, 4.0], &[5.9, 6.1], 0.0), (vec![3], vec![1], 2));
        assert_eq!(check(&how(2, None), &[10.0, 4.0], &[90.0, 6.1, 80.0], 0.0), (vec![2, 4], vec![1, 0], 2));
        assert_eq!(
            check(&how(2, None), &[10.0, 0.0], &[0.1], 0.0),
            (vec![2], vec![1], 2),
            "the silent make room"
        );
    }

    #[test]
    fn more_than_k_go_lightest_first() {
        assert_eq!(check(&how(2, None), &[3.0, 1.0, 2.0, 9.0], &[], 0.0), (vec![], vec![1, 2], 2));
    }

    #[test]
    fn who_has_just_changed_stays() {
        let mut all = candidates(&[10.0, 1.0], &[50.0, 40.0]);
        all[1].may_move = false;
        all[2].may_move = false;
        let changes = rank(&how(2, None), &mut all, 101.0);
        assert_eq!((changes.promote, changes.demote), (vec![3], vec![0]));
    }

    #[test]
    fn k_is_the_smallest_that_reaches_the_target() {
        let heavy = [40.0, 20.0, 10.0, 10.0];
        let tail = [10.0, 5.0, 5.0];
        assert_eq!(check(&how(9, Some(80)), &heavy, &tail, 0.0), (vec![], vec![], 4));
        assert_eq!(check(&how(9, Some(81)), &heavy, &tail, 0.0), (vec![4], vec![], 5));
        assert_eq!(check(&how(9, Some(60)), &heavy, &tail, 0.0), (vec![], vec![3, 2], 2));
        // By a factor of two a generation.
        assert_eq!(check(&how(9, Some(10)), &heavy, &tail, 0.0).2, 2);
        assert_eq!(check(&how(9, Some(99)), &[40.0], &tail, 0.0), (vec![1], vec![], 2));
        // What is not listed counts.
        assert_eq!(check(&how(9, Some(80)), &heavy, &tail, 100.0).2, 8);
        assert_eq!(check(&TopK { k_max: Some(6), ..how(6, Some(80)) }, &heavy, &tail, 100.0).2, 6);
    }

    #[test]
    fn one_stream_less_moves_nothing() {
        let heavy = [10.0; 20];
        assert_eq!(check(&how(20, Some(95)), &heavy, &[], 0.0).2, 20, "19 would do");
        assert_eq!(check(&how(20, Some(90)), &heavy, &[], 0.0).2, 18);
    }

    #[test]
    fn without_weights_nothing_changes() {
        assert_eq!(check(&how(2, Some(90)), &[0.0, 0.0], &[0.0], 0.0), (vec![], vec![], 2));
    }
}
