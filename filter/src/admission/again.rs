//! Streams in the order in which they came last time: most come again in it, and then nothing is looked up.
//!
//! In: half of the identity of a stream that passes. Out: whether it is the one that is expected, which was found to be raw, and to have been
//! measured in this generation. One list for all points that share everything but their attributes ([`Run`]), kept from batch to batch. Whatever
//! could change the answer changes the stamp, and an answer of another stamp is none: then, and for what is not expected, the tables are asked.
//! So order decides about speed alone.
//!
//! Cost: of a stream that is expected a comparison with the next word of a list, where the tables cost two or three waits for memory. Memory: eight bytes a
//! stream, within a part of what the plan lets measuring take.

use super::state::ByHalf;

/// Bytes of a stream, and of a list beside its streams.
const KEY_BYTES: usize = size_of::<u64>();
const RUN_BYTES: usize = 80;
/// In a list of so many a stream is searched from end to end, and one that is not in it is put where it came; in a longer one that would take too long.
const LIST_SEARCHED: usize = 4_096;
/// In a longer list a stream is searched among so many, both ways.
const SEARCHED: usize = 1_024;
/// Behind the expected stream so many others are looked at: some have gone.
const AHEAD: usize = 4;
/// Of those that are not expected, one behind the other, one in so many is searched.
const SEARCH_EVERY: u32 = 32;
/// One of so many at the beginning comes again, if not the very first: a list is made.
const FIRST_ONES: usize = 8;

/// All of them.
#[derive(Default)]
pub struct Again {
    runs: ByHalf<Run>,
    bytes: usize,
    bytes_max: usize,
}

/// The streams of a metric of a resource, in order.
#[derive(Default)]
pub struct Run {
    keys: Vec<u64>,
    keys_max: usize,
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
    /// Bound the memory, in bytes.
    pub fn set_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Nothing holds any more.
    pub fn clear(&mut self) {
        self.runs = ByHalf::default();
        self.bytes = 0;
    }

    /// Take a list out, to be put back.
    pub fn take(&mut self, of: u64) -> Run {
        let Some(mut run) = self.runs.remove(&of) else { return Run::new(self.bytes_max) };
        self.bytes = self.bytes.saturating_sub(run.bytes());
        run.keys_max = self.bytes_max / KEY_BYTES;
        run
    }

    /// Put a list back, where there is room for it.
    pub fn put(&mut self, of: u64, run: Run) {
        let bytes = self.bytes.saturating_add(run.bytes());
        if run.keys.is_empty() || bytes > self.bytes_max {
            return;
        }
        self.bytes = bytes;
        if let Some(other) = self.runs.insert(of, run) {
            self.bytes = self.bytes.saturating_sub(other.bytes());
        }
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        self.bytes
    }
}

impl Run {
    fn new(bytes_max: usize) -> Run {
        Run { keys_max: bytes_max / KEY_BYTES, ..Run::default() }
    }

    fn bytes(&self) -> usize {
        self.keys.capacity().saturating_mul(KEY_BYTES).saturating_add(RUN_BYTES)
    }

    /// Is this stream the expected one, or one near behind it? Then the next one is.
    #[inline(always)]
    pub fn expects(&mut self, stream: u64, stamp: u64) -> bool {
        if self.stamp != stamp {
            return false;
        }
        let is_it = self.keys.get(self.at) == Some(&stream);
        let at = if is_it { Some(self.at) } else { self.ahead(stream) };
        let Some(at) = at else { return false };
        (self.at, self.missed) = (at.wrapping_add(1), 0);
        true
    }

    #[inline(never)]
    fn ahead(&self, stream: u64) -> Option<usize> {
        self.find(stream, self.at.saturating_add(1), self.at.saturating_add(AHEAD))
    }

    /// A stream that was not expected, and found.
    #[inline(never)]
    pub fn learn(&mut self, stream: u64, stamp: u64) {
        if self.stamp != stamp {
            self.keys.clear();
            (self.at, self.missed, self.is_made, self.stamp) = (0, 0, false, stamp);
        }
        if !self.is_made {
            match self.find(stream, 0, FIRST_ONES) {
                Some(at) => (self.at, self.is_made) = (at.saturating_add(1), true),
                None if self.keys.len() < self.keys_max => {
                    self.keys.push(stream);
                    self.at = self.keys.len();
                }
                None => {}
            }
            return;
        }
        let searches = self.missed.is_multiple_of(SEARCH_EVERY);
        if let Some(at) = searches.then(|| self.search(stream)).flatten() {
            self.at = at.saturating_add(1);
        } else if self.missed == 0 && self.keys.len() < LIST_SEARCHED {
            self.keys.insert(self.at.min(self.keys.len()), stream);
            self.at = self.at.saturating_add(1);
            return;
        }
        self.missed = self.missed.saturating_add(1);
    }

    fn find(&self, stream: u64, from: usize, to: usize) -> Option<usize> {
        let some = self.keys.get(from..to.min(self.keys.len()))?;
        some.iter().position(|known| *known == stream).map(|at| at.saturating_add(from))
    }

    /// Where a stream is: behind the expected one, at the beginning, before it.
    fn search(&self, stream: u64) -> Option<usize> {
        let far = if self.keys.len() <= LIST_SEARCHED { LIST_SEARCHED } else { SEARCHED };
        let before = self.at.saturating_sub(far);
        let behind = self.find(stream, self.at, self.at.saturating_add(far));
        behind
            .or_else(|| self.find(stream, 0, far.min(before)))
            .or_else(|| self.find(stream, before, self.at))
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
        let mut run = Run::new(8 << 20);
        assert_eq!(come(&mut run, 0..1_000, 1), 0);
        // The first of a pass shows that the list is made, then that it begins again.
        assert_eq!(come(&mut run, 0..1_000, 1), 999);
        assert_eq!(come(&mut run, (0..1_000).filter(|n| n % 10 != 3), 1), 899, "some have gone");
        assert_eq!(come(&mut run, 0..1_000, 1), 999);
        assert_eq!(run.keys.len(), 1_000);
        // A part of it again, as when a batch is walked twice.
        assert_eq!(come(&mut run, 0..40, 1), 39);
        assert_eq!(come(&mut run, 0..80, 1), 79);
    }

    /// In each pass another tenth stays away, in the one in which the list is made as well.
    #[test]
    fn who_is_not_in_the_list_is_put_where_it_came() {
        let mut run = Run::new(8 << 20);
        let pass = |pass: u64| (0..1_000_u64).filter(move |n| !(n * 7 + pass * 13).is_multiple_of(10));
        for n in 0..3 {
            come(&mut run, pass(n), 1);
        }
        assert_eq!(run.keys.len(), 1_000);
        assert_eq!(come(&mut run, pass(3), 1), 899);
    }

    #[test]
    fn another_order_costs_no_room_and_does_no_harm() {
        let mut run = Run::new(8 << 20);
        for pass in 0..50_u64 {
            // Odd steps visit all.
            come(&mut run, (0..1_024).map(|n| n * (2 * pass + 1) % 1_024), 1);
        }
        assert!(run.keys.len() <= 1_030, "{} kept", run.keys.len());
        come(&mut run, 0..1_024, 1);
        assert!(come(&mut run, 0..1_024, 1) > 1_000);
    }

    #[test]
    fn a_long_list_is_followed_as_well() {
        let mut run = Run::new(8 << 20);
        for _ in 0..2 {
            come(&mut run, 0..50_000, 1);
        }
        assert_eq!(come(&mut run, (0..50_000).filter(|n| n % 1_000 > 7), 1), 49_600 - 50);
        // One who is new in the middle stays a stranger, and nobody else does.
        assert_eq!(come(&mut run, (0..25_000).chain([1 << 40]).chain(25_000..50_000), 1), 49_999);
    }

    #[test]
    fn under_another_stamp_nothing_is_expected() {
        let mut run = Run::new(8 << 20);
        come(&mut run, 0..50, 1);
        assert_eq!(come(&mut run, 0..25, 1), 24);
        assert_eq!(come(&mut run, 25..50, 2), 0);
        assert_eq!(come(&mut run, 25..50, 1), 0);
    }

    #[test]
    fn lists_are_bounded_and_counted() {
        let mut again = Again::default();
        again.set_max(1 << 20);
        let list = |again: &Again, n: u64, len: u64| {
            let mut run = Run::new(again.bytes_max);
            come(&mut run, n << 32..(n << 32) + len, 1);
            run
        };
        for n in 0..100 {
            again.put(n, list(&again, n, 10_000));
        }
        assert!(again.bytes <= 1 << 20 && (3..14).contains(&again.runs.len()));
        let kept = again.runs.len();
        let run = again.take(2);
        assert_eq!((run.keys.len(), again.runs.len()), (10_000, kept - 1));
        again.put(2, run);
        again.put(2, list(&again, 2, 10));
        let all: usize = again.runs.values().map(Run::bytes).sum();
        assert_eq!((again.bytes, again.take(2).keys.len()), (all, 10));
        assert_eq!(
            list(&again, 1, 1 << 20).keys.len(),
            (1 << 20) / KEY_BYTES,
            "one list is bounded as all are"
        );
        again.clear();
        (0..1 << 16).for_each(|n| again.put(n, list(&again, n, 1)));
        assert!(again.bytes <= 1 << 20 && again.runs.len() < 1 << 14);
    }
}
