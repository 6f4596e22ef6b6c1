//! CPU time, and medians of it.
//!
//! In: something to do. Out: nanoseconds that this thread spent on a processor doing it. Not wall-clock time: what others do on a shared
//! machine then shows only through caches and clock rates, and those hit all who are measured in the same round alike.

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread so far, in nanoseconds.
pub fn thread_ns() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(t.tv_nsec.cast_unsigned())
}

/// Does something; what it gave, and the CPU time it took in nanoseconds.
pub fn timed<T>(act: impl FnOnce() -> T) -> (T, f64) {
    let begin = thread_ns();
    let done = act();
    (done, thread_ns().saturating_sub(begin) as f64)
}

/// The middle value; of an even number of values the mean of the two. NaN when there is none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().wrapping_sub(1) / 2), values.get(values.len() / 2));
    match (low, high) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

/// The median of `a / b`, round by round.
pub fn ratio(a: &[f64], b: &[f64]) -> f64 {
    median(a.iter().zip(b).map(|(a, b)| a / b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
        assert_eq!(ratio(&[2.0, 30.0, 4.0], &[1.0, 10.0, 4.0]), 2.0);
    }

    #[test]
    fn sleeping_is_not_work() {
        let ((), idle) = timed(|| std::thread::sleep(std::time::Duration::from_millis(50)));
        assert!(idle < 40e6, "{idle} ns of CPU in 50 ms of sleep");
    }
}
