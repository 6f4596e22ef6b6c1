//! A number of series, dealt out by need.

/// Deals `room` out to those who need so much each, at least one to everybody: by need where there is enough, and what is left half alike and half by
/// need; where there is not enough everybody gets up to the same bound (max-min fairness), so that one who explodes takes nothing from those who do not. The
/// sum is at most `room`, or one for everybody where that is more.
pub fn fair(room: u64, needs: &[f64]) -> Vec<u64> {
    let n = needs.len() as u64;
    if n == 0 {
        return Vec::new();
    }
    let room = room.saturating_sub(n);
    let needs: Vec<f64> = needs.iter().map(|need| (need - 1.0).clamp(0.0, 1e15)).collect();
    let sum: f64 = needs.iter().sum();
    let whole = |number: f64| number.max(0.0).floor() as u64;
    if sum <= room as f64 {
        let spare = room as f64 - sum;
        let part = |need: f64| {
            let by_need = if sum > 0.0 { need / sum } else { 1.0 / n as f64 };
            spare * (0.5 / n as f64 + 0.5 * by_need)
        };
        let mut dealt: Vec<u64> = needs.iter().map(|need| whole(need + part(*need))).collect();
        trim(&mut dealt, room);
        return dealt.into_iter().map(|share| share + 1).collect();
    }
    let level = level(room as f64, &needs);
    let mut dealt: Vec<u64> = needs.iter().map(|need| whole(need.min(level))).collect();
    trim(&mut dealt, room);
    dealt.into_iter().map(|share| share + 1).collect()
}

/// The bound up to which everybody gets what is needed.
fn level(room: f64, needs: &[f64]) -> f64 {
    let mut sorted = needs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (mut left, mut many) = (room, sorted.len() as f64);
    for need in sorted {
        if need * many >= left {
            return left / many;
        }
        left -= need;
        many -= 1.0;
    }
    f64::INFINITY
}

/// Rounding of doubles must not deal out more than there is.
fn trim(dealt: &mut [u64], room: u64) {
    let mut over = dealt.iter().sum::<u64>().saturating_sub(room);
    for share in dealt.iter_mut() {
        let less = over.min(*share);
        *share -= less;
        over -= less;
    }
}

#[cfg(test)]
mod tests {
    use super::fair;
    use proptest::prelude::*;

    #[test]
    fn what_is_left_goes_half_alike_and_who_explodes_takes_nothing() {
        assert_eq!(fair(100, &[]), Vec::<u64>::new());
        assert_eq!(fair(100, &[0.0, 0.0]), [50, 50]);
        assert_eq!(fair(100, &[31.0, 11.0]), [67, 32]);
        assert_eq!(fair(100, &[10.0, 1e9, 20.0]), [10, 70, 20]);
        assert_eq!(fair(1, &[5.0, 5.0]), [1, 1]);
    }

    proptest! {
        #[test]
        fn never_more_than_there_is(room in 0..10_000_u64, needs in prop::collection::vec(0.0..1e6_f64, 1..20)) {
            let dealt = fair(room, &needs);
            prop_assert!(dealt.iter().sum::<u64>() <= room.max(needs.len() as u64));
            prop_assert!(dealt.iter().all(|share| *share >= 1));
            let enough = needs.iter().map(|need| need.max(1.0)).sum::<f64>() <= room as f64;
            for (share, need) in dealt.iter().zip(&needs) {
                // Whole numbers round down; where there is enough nobody lacks more than that.
                prop_assert!(!enough || *share as f64 >= need.floor() - 1.0, "{share} of {need}");
            }
        }
    }
}
