//! Streams in the order in which they came last time: most come again in it, and then nothing is looked up.
//!
//! In: half of the identity of a stream that passes. Out: whether it is the one that is expected, which was found to be raw, and to have been
//! measured in this generation. One list for all points that share everything but their attributes ([`Run`]), kept from batch to batch. Whatever
//! could change the answer changes the stamp, and an answer of another stamp is none: then, and for what is not expected, the tables are asked.
//! So order decides about speed alone.
//!
//! Cost: of a stream that is expected a comparison with the next word of a list, where the tables cost two or three waits for memory. Memory: eight bytes a
//! stream, up to [`KEYS_MAX`], and [`RUNS_MAX`] lists.

use super::state::ByHalf;

/// Streams that are kept: 4 MiB.
const KEYS_MAX: usize = 1 << 19;
/// Lists that are kept.
const RUNS_MAX: usize = 1 << 14;
/// So far a stream that is not the expected one is searched, both ways: some others have gone, or a batch is walked again.
const SEARCHED: usize = 256;
/// Of those that are not expected, one behind the other, one in so many is searched.
const SEARCH_EVERY: u32 = 32;
/// One of so many at the beginning comes again, if not the very first.
const FIRST_ONES: usize = 8;

/// All of them.
#[derive(Default)]
pub struct Again {
    runs: ByHalf<Run>,
    keys: usize,
}

/// The streams of a metric of a resource, in order.
#[derive(Default)]
pub struct Run {
    keys: Vec<u64>,
    /// The one that is expected.
    at: usize,
    /// So many were not expected, since one was.
    missed: u32,
    /// One that is in the list came again: it is as long as it should be.
    is_made: bool,
    /// When all of them were found.
    stamp: u64,
}

impl Again {
    /// Nothing holds any more.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.keys = 0;
    }

    /// Take a list out, to be put back.
    pub fn take(&mut self, of: u64) -> Run {
        let run = self.runs.remove(&of).unwrap_or_default();
        self.keys = self.keys.saturating_sub(run.keys.len());
        run
    }

    /// Put a list back, where there is room for it.
    pub fn put(&mut self, of: u64, run: Run) {
        let keys = self.keys.saturating_add(run.keys.len());
        if run.keys.is_empty() || keys > KEYS_MAX || self.runs.len() >= RUNS_MAX {
            return;
        }
        self.keys = keys;
        if let Some(other) = self.runs.insert(of, run) {
            self.keys = self.keys.saturating_sub(other.keys.len());
        }
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        self.keys.saturating_mul(size_of::<u64>()).saturating_add(self.runs.allocation_size())
    }
}

impl Run {
    /// Is this stream the expected one? Then the next one is.
    #[inline(always)]
    pub fn expects(&mut self, stream: u64, stamp: u64) -> bool {
        if self.stamp != stamp || self.keys.get(self.at) != Some(&stream) {
            return false;
        }
        self.at = self.at.wrapping_add(1);
        self.missed = 0;
        true
    }

    /// A stream that was not expected, and found.
    #[inline(never)]
    pub fn learn(&mut self, stream: u64, stamp: u64) {
        if self.stamp != stamp {
            self.keys.clear();
            (self.at, self.is_made, self.stamp) = (0, false, stamp);
        }
        let searches = self.missed.is_multiple_of(SEARCH_EVERY);
        self.missed = self.missed.wrapping_add(1);
        let found = match self.is_made {
            true if searches => self.search(stream),
            true => None,
            // One of the first ones again: the list is made.
            false => self.find(stream, 0, FIRST_ONES),
        };
        if let Some(at) = found {
            (self.at, self.missed, self.is_made) = (at.saturating_add(1), 0, true);
            return;
        }
        if self.at >= self.keys.len() && self.is_made && self.missed > 1 {
            // Another order takes the place of this one.
            self.at = 0;
        }
        if let Some(place) = self.keys.get_mut(self.at) {
            *place = stream;
        } else if self.keys.len() < KEYS_MAX {
            self.keys.push(stream);
        } else {
            return;
        }
        self.at = self.at.saturating_add(1);
    }

    fn find(&self, stream: u64, from: usize, to: usize) -> Option<usize> {
        let some = self.keys.get(from..to.min(self.keys.len()))?;
        some.iter().position(|known| *known == stream).map(|at| at.saturating_add(from))
    }

    /// Where a stream is, near the expected one: behind it, at the beginning, before it.
    fn search(&self, stream: u64) -> Option<usize> {
        let before = self.at.saturating_sub(SEARCHED);
        let behind = self.find(stream, self.at, self.at.saturating_add(SEARCHED));
        behind
            .or_else(|| self.find(stream, before, self.at))
            .or_else(|| self.find(stream, 0, SEARCHED.min(before)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Let streams come; how many of them were expected.
    fn come(run: &mut Run, streams: impl IntoIterator<Item = u64>, stamp: u64) -> usize {
        let mut expected = 0;
        for stream in streams {
            if run.expects(stream, stamp) {
                expected += 1;
            } else {
                run.learn(stream, stamp);
            }
        }
        expected
    }

    #[test]
    fn what_comes_in_the_same_order_is_expected() {
        let mut run = Run::default();
        assert_eq!(come(&mut run, 0..1_000, 1), 0);
        // The first of a pass shows that the list is whole.
        assert_eq!(come(&mut run, 0..1_000, 1), 999);
        assert_eq!(
            come(&mut run, (0..1_000).filter(|n| n % 10 != 3), 1),
            799,
            "what is left out costs one look"
        );
        assert_eq!(come(&mut run, 0..1_000, 1), 999);
        assert_eq!(run.keys.len(), 1_000);
        // A part of it again, as when a batch is walked twice.
        assert_eq!(come(&mut run, 0..40, 1), 39);
        assert_eq!(come(&mut run, 0..80, 1), 79);
    }

    #[test]
    fn another_order_is_learnt_and_strangers_pass_by() {
        let mut run = Run::default();
        come(&mut run, 0..500, 1);
        // A few passes, since a part of the old order is searched in each.
        for _ in 0..6 {
            come(&mut run, (0..500).rev(), 1);
        }
        assert!(come(&mut run, (0..500).rev(), 1) >= 490);
        come(&mut run, (1_000..1_003).chain((0..500).rev()), 1);
        assert!(come(&mut run, (1_000..1_003).chain((0..500).rev()), 1) >= 490);
    }

    #[test]
    fn a_list_does_not_grow_with_orders() {
        let mut run = Run::default();
        for pass in 0..50_u64 {
            // Odd steps visit all; in no pass does the first one of the first pass begin.
            come(
                &mut run,
                (0..1_024).map(|n| n * (2 * pass + 1) % 1_024 + u64::from(n == 0 && pass == 0) * 9_000),
                1,
            );
        }
        assert!(run.keys.len() <= 3 * 1_024, "{} kept", run.keys.len());
    }

    #[test]
    fn under_another_stamp_nothing_is_expected() {
        let mut run = Run::default();
        come(&mut run, 0..50, 1);
        assert_eq!(come(&mut run, 0..25, 1), 24);
        assert_eq!(come(&mut run, 25..50, 2), 0);
        assert_eq!(come(&mut run, 25..50, 1), 0);
    }

    #[test]
    fn lists_are_bounded_and_counted() {
        let mut again = Again::default();
        let list = |n: u64, len: u64| {
            let mut run = Run::default();
            come(&mut run, n << 32..(n << 32) + len, 1);
            run
        };
        for n in 0..100 {
            again.put(n, list(n, 10_000));
        }
        assert!(again.keys <= KEYS_MAX && again.runs.len() < 100);
        let kept = again.runs.len();
        let run = again.take(3);
        assert_eq!((run.keys.len(), again.runs.len()), (10_000, kept - 1));
        again.put(3, run);
        again.put(3, list(3, 10));
        let all: usize = again.runs.values().map(|run| run.keys.len()).sum();
        assert_eq!((again.keys, again.take(3).keys.len()), (all, 10));
        again.clear();
        (0..2 * RUNS_MAX as u64).for_each(|n| again.put(n, list(n, 1)));
        assert_eq!((again.runs.len(), again.keys), (RUNS_MAX, RUNS_MAX));
    }
}
