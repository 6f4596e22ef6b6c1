//! CPU time, and medians of it.
//!
//! In: something to do, or a process. Out: nanoseconds that this thread, or that process, spent on a processor. Not wall-clock time: what others do on a shared
//! machine then shows only through caches and clock rates, and those hit all who are measured in the same round alike.

use phoenix_host_test::envoy::process::usage;
use rustix::time::{ClockId, clock_gettime};
use std::fs;

/// CPU time of this thread so far, in nanoseconds.
pub fn thread_ns() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(t.tv_nsec.cast_unsigned())
}

/// CPU time of all threads of a process so far, in nanoseconds: `/proc/PID/task/TID/schedstat`, finer than the ticks of `/proc/PID/stat`, which it
/// falls back to. A thread that has ended is no longer in it: neither Envoy nor Go ends threads while it works.
///
/// # Errors
/// There is no such process.
pub fn process_ns(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    // A kernel without schedstat shows zeros.
    if sum > 0 { Ok(sum) } else { Ok(u64::try_from(usage(pid)?.cpu.as_nanos())?) }
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
