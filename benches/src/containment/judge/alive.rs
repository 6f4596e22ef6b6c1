//! How many of something are alive: seen within a span of time.
//!
//! In: who was seen when, in order of time. Out: how many distinct ones were seen within the last span, exactly. Cost: constant a sighting, on average.

use std::collections::VecDeque;

/// Distinct ones within a span.
pub struct Alive {
    span_ns: u64,
    /// When each was last seen; none: not alive.
    seen_ns: Vec<Option<u64>>,
    /// Sightings, oldest first; all but the last of each are void.
    queue: VecDeque<(u64, usize)>,
    count: usize,
}

impl Alive {
    /// Nobody yet.
    pub fn new(span_ns: u64) -> Alive {
        Alive { span_ns, seen_ns: Vec::new(), queue: VecDeque::new(), count: 0 }
    }

    /// Number `index` was seen.
    pub fn see(&mut self, index: usize, now_ns: u64) {
        self.pass(now_ns);
        if index >= self.seen_ns.len() {
            self.seen_ns.resize(index + 1, None);
        }
        let before = self.seen_ns[index].replace(now_ns);
        self.count += usize::from(before.is_none());
        if before != Some(now_ns) {
            self.queue.push_back((now_ns, index));
        }
    }

    /// It said itself that it has ended.
    pub fn end(&mut self, index: usize) {
        if self.seen_ns.get_mut(index).and_then(Option::take).is_some() {
            self.count -= 1;
        }
    }

    /// Time has come to `now_ns`; how many are alive.
    pub fn pass(&mut self, now_ns: u64) -> usize {
        while let Some((at_ns, index)) = self.queue.front().copied() {
            if at_ns + self.span_ns > now_ns {
                break;
            }
            self.queue.pop_front();
            if self.seen_ns[index] == Some(at_ns) {
                self.end(index);
            }
        }
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeMap;

    #[test]
    fn agrees_with_counting() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut alive = Alive::new(10);
        let mut plain = BTreeMap::new();
        let mut now_ns = 100;
        for _ in 0..5_000 {
            now_ns += random.random_range(0..3);
            let index = random.random_range(0..12);
            if random.random_ratio(1, 10) {
                alive.end(index);
                plain.remove(&index);
            } else if random.random_ratio(1, 3) {
                alive.see(index, now_ns);
                plain.insert(index, now_ns);
            }
            plain.retain(|_, at| *at + 10 > now_ns);
            assert_eq!(alive.pass(now_ns), plain.len());
        }
    }
}
