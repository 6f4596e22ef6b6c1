//! Streams in the order in which they came last time: most come again in it, and then nothing is looked up.
//!
//! In: half of the identity of a stream that passes. Out: whether it is the one that is expected, which was found to be raw, and to have been
//! measured in this generation. One list for all points that share everything but their attributes ([`Order`]), kept from batch to batch. Whatever
//! could change the answer changes the stamp, and an answer of another stamp is none: then, and for what is not expected, the tables are asked.
//! So order decides about speed alone.
//!
//! Cost: of a stream that is expected a comparison with the next word of a list, where the tables cost two or three waits for memory; of others
//! [`WORDS_A_POINT`] words in the mean, whatever comes. Memory: eight bytes a stream, within a part of what the plan lets measuring take; first come, first
//! served, until the generation ends.

use super::state::ByHalf;

/// Bytes of a stream, and of a list beside its streams: an entry of a hash table that is half full.
const KEY_BYTES: usize = size_of::<u64>();
const ORDER_BYTES: usize = 2 * (size_of::<Order>() + size_of::<u64>());
/// In a list of so many a stream is searched from end to end, and one that is not in it is put where it came; in a longer one that would take too long.
const LIST_SEARCHED: usize = 4_096;
/// In a longer list a stream is searched among so many, both ways and at the beginning.
const SEARCHED: usize = 1_024;
/// Behind the expected stream so many others are looked at: some have gone.
const AHEAD: usize = 4;
/// Words that are searched or moved for a point, in the mean: what one search took is waited for before the next.
const WORDS_A_POINT: u32 = 16;
/// Words that are moved in the time in which one is compared.
const MOVED_A_WORD: usize = 8;
/// One of so many at the beginning comes again, if not the very first: a list is made.
const FIRST_ONES: usize = 8;

/// All of them.
#[derive(Default)]
pub struct Again {
    orders: ByHalf<Order>,
    bytes: usize,
    bytes_max: usize,
}

/// The streams of a metric of a resource, in order.
#[derive(Default)]
pub struct Order {
    keys: Vec<u64>,
    keys_max: usize,
    /// The one that is expected.
    at: usize,
    /// Words that were searched and not waited for yet.
    debt: u32,
    /// The last one was not expected.
    is_lost: bool,
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
        self.orders = ByHalf::default();
        self.bytes = 0;
    }

    /// Take a list out, to be put back.
    pub fn take(&mut self, of: u64) -> Order {
        let room = self.bytes_max.saturating_sub(self.bytes) / KEY_BYTES;
        let Some(mut order) = self.orders.remove(&of) else { return Order::new(room) };
        self.bytes = self.bytes.saturating_sub(order.bytes());
        order.keys_max = order.keys.len().saturating_add(room);
        order
    }

    /// Put a list back, where there is room for it.
    pub fn put(&mut self, of: u64, order: Order) {
        let bytes = self.bytes.saturating_add(order.bytes());
        if order.keys.is_empty() || bytes > self.bytes_max {
            return;
        }
        self.bytes = bytes;
        if let Some(other) = self.orders.insert(of, order) {
            self.bytes = self.bytes.saturating_sub(other.bytes());
        }
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        self.bytes
    }
}

impl Order {
    /// An empty one that takes so many streams at most.
    fn new(keys_max: usize) -> Order {
        Order { keys_max, ..Order::default() }
    }

    fn bytes(&self) -> usize {
        self.keys.capacity().saturating_mul(KEY_BYTES).saturating_add(ORDER_BYTES)
    }

    /// Go on to this stream, if it is the expected one, or one near behind it.
    #[inline(always)]
    pub fn goes_on(&mut self, stream: u64, stamp: u64) -> bool {
        if self.stamp != stamp {
            return false;
        }
        self.debt = self.debt.saturating_sub(WORDS_A_POINT);
        let is_it = self.keys.get(self.at) == Some(&stream);
        let at = if is_it { Some(self.at) } else { self.ahead(stream) };
        let Some(at) = at else { return false };
        (self.at, self.is_lost) = (at.wrapping_add(1), false);
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
            (self.at, self.debt, self.is_lost, self.is_made, self.stamp) = (0, 0, false, false, stamp);
        }
        let searches = self.debt == 0;
        if !self.is_made {
            if searches {
                self.owe(LIST_SEARCHED, stream);
            }
            let far = if searches { LIST_SEARCHED } else { FIRST_ONES };
            match self.find(stream, 0, far) {
                Some(at) => (self.at, self.is_made) = (at.saturating_add(1), true),
                None => self.push(stream),
            }
            return;
        }
        let was_lost = core::mem::replace(&mut self.is_lost, true);
        if !searches {
            return;
        }
        if let Some(at) = self.search(stream) {
            self.at = at.saturating_add(1);
        } else if !was_lost && self.keys.len() < LIST_SEARCHED.min(self.keys_max) {
            let at = self.at.min(self.keys.len());
            self.owe(self.keys.len().saturating_sub(at) / MOVED_A_WORD, stream);
            self.keys.insert(at, stream);
            (self.at, self.is_lost) = (at.saturating_add(1), false);
        }
    }

    /// One more at the end, while the list is made; one that finds no room is as long as it gets.
    fn push(&mut self, stream: u64) {
        if self.keys.len() >= self.keys_max {
            self.is_made = true;
            return;
        }
        self.keys.push(stream);
        self.at = self.keys.len();
    }

    fn find(&self, stream: u64, from: usize, to: usize) -> Option<usize> {
        let some = self.keys.get(from..to.min(self.keys.len()))?;
        some.iter().position(|known| *known == stream).map(|at| at.saturating_add(from))
    }

    /// Where a stream is: behind the expected one, at the beginning, before it.
    fn search(&mut self, stream: u64) -> Option<usize> {
        let far = if self.keys.len() <= LIST_SEARCHED { LIST_SEARCHED } else { SEARCHED };
        let before = self.at.saturating_sub(far);
        let behind = self.find(stream, self.at, self.at.saturating_add(far));
        if let Some(at) = behind {
            self.owe(at.saturating_sub(self.at), stream);
            return behind;
        }
        self.owe(far.saturating_mul(3), stream);
        self.find(stream, 0, far.min(before)).or_else(|| self.find(stream, before, self.at))
    }

    /// So many words are looked at, of those that are there: what is much is waited for a little longer for one stream than for another, so that it
    /// is not always the same one's turn to search.
    fn owe(&mut self, words: usize, stream: u64) {
        let words = u32::try_from(words.min(self.keys.len())).unwrap_or(u32::MAX);
        let uneven = (stream as u32 & 15).saturating_mul(WORDS_A_POINT);
        let uneven = if words > uneven { uneven } else { 0 };
        self.debt = self.debt.saturating_add(words).saturating_add(uneven);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Let streams come; how many of them were expected.
    fn come(order: &mut Order, streams: impl IntoIterator<Item = u64>, stamp: u64) -> usize {
        let mut expected = 0;
        for stream in streams {
            if order.goes_on(stream, stamp) {
                expected += 1;
            } else {
                order.learn(stream, stamp);
            }
        }
        expected
    }

    #[test]
    fn what_comes_in_the_same_order_is_expected() {
        let mut order = Order::new(1 << 20);
        assert_eq!(come(&mut order, 0..1_000, 1), 0);
        // The first of a pass shows that the list is made, then that it begins again.
        assert_eq!(come(&mut order, 0..1_000, 1), 999);
        assert_eq!(come(&mut order, (0..1_000).filter(|n| n % 10 != 3), 1), 899, "some have gone");
        assert_eq!(come(&mut order, 0..1_000, 1), 999);
        assert_eq!(order.keys.len(), 1_000);
        // A part of it again, as when a batch is walked twice.
        assert_eq!(come(&mut order, 0..40, 1), 39);
        assert!(come(&mut order, 0..80, 1) >= 50, "the search before has to be waited for");
    }

    /// In each pass another tenth stays away, in the one in which the list is made as well.
    #[test]
    fn who_is_not_in_the_list_is_put_where_it_came() {
        let mut order = Order::new(1 << 20);
        let pass = |pass: u64| (0..1_000_u64).filter(move |n| !(n * 7 + pass * 13).is_multiple_of(10));
        for n in 0..10 {
            come(&mut order, pass(n), 1);
        }
        assert!((990..=1_000).contains(&order.keys.len()), "{}", order.keys.len());
        assert!(come(&mut order, pass(10), 1) >= 885);
    }

    #[test]
    fn another_order_costs_no_room_and_does_no_harm() {
        let mut order = Order::new(1 << 20);
        for pass in 0..50_u64 {
            // Odd steps visit all.
            come(&mut order, (0..1_024).map(|n| n * (2 * pass + 1) % 1_024), 1);
        }
        assert!(order.keys.len() <= 1_030, "{} kept", order.keys.len());
        come(&mut order, 0..1_024, 1);
        assert!(come(&mut order, 0..1_024, 1) > 1_000);
    }

    #[test]
    fn a_long_list_is_followed_as_well() {
        let mut order = Order::new(1 << 20);
        for _ in 0..2 {
            come(&mut order, 0..50_000, 1);
        }
        assert_eq!(come(&mut order, (0..50_000).filter(|n| n % 1_000 > 7), 1), 49_600 - 50);
        // One who is new in the middle stays a stranger, and nobody else does.
        assert_eq!(come(&mut order, (0..25_000).chain([1 << 40]).chain(25_000..50_000), 1), 49_999);
    }

    /// Whoever was first has gone: the list ends all the same, and is followed.
    #[test]
    fn a_list_ends_where_one_of_the_first_hundreds_comes_again() {
        let mut order = Order::new(1 << 20);
        come(&mut order, 0..10_000, 1);
        come(&mut order, 20..10_000, 1);
        assert!(order.keys.len() < 12_000, "{}", order.keys.len());
        come(&mut order, 20..10_000, 1);
        assert!(come(&mut order, 20..10_000, 1) > 9_900);
    }

    /// Every second stream is one that was never in the list, or one that is at its other end: what is searched for is little all the same.
    #[test]
    fn searches_are_waited_for() {
        for others in [1_u64 << 32, 2_000] {
            let mut order = Order::new(1 << 20);
            for _ in 0..2 {
                come(&mut order, 0..4_000, 1);
            }
            let (mut words, mut points) = (0, 0_u64);
            for n in 0..4_000_u64 {
                for stream in [n, (n + others) % (1 << 40)] {
                    let before = order.debt;
                    come(&mut order, [stream], 1);
                    words += u64::from(order.debt.saturating_sub(before));
                    points += 1;
                }
            }
            assert!(words <= points * 2 * u64::from(WORDS_A_POINT), "{words} words for {points} points");
        }
    }

    #[test]
    fn under_another_stamp_nothing_is_expected() {
        let mut order = Order::new(1 << 20);
        come(&mut order, 0..50, 1);
        assert_eq!(come(&mut order, 0..25, 1), 24);
        assert_eq!(come(&mut order, 25..50, 2), 0);
        assert_eq!(come(&mut order, 25..50, 1), 0);
    }

    #[test]
    fn lists_are_bounded_and_counted() {
        let mut again = Again::default();
        again.set_max(1 << 20);
        let list = |again: &Again, n: u64, len: u64| {
            let mut order = Order::new(again.bytes_max / KEY_BYTES);
            come(&mut order, n << 32..(n << 32) + len, 1);
            order
        };
        for n in 0..100 {
            again.put(n, list(&again, n, 10_000));
        }
        assert!(again.bytes <= 1 << 20 && (3..14).contains(&again.orders.len()));
        let kept = again.orders.len();
        let order = again.take(2);
        assert_eq!((order.keys.len(), again.orders.len()), (10_000, kept - 1));
        again.put(2, order);
        again.put(2, list(&again, 2, 10));
        let all: usize = again.orders.values().map(Order::bytes).sum();
        assert_eq!((again.bytes, again.take(2).keys.len()), (all, 10));
        assert_eq!(
            list(&again, 1, 1 << 20).keys.len(),
            (1 << 20) / KEY_BYTES,
            "one list is bounded as all are"
        );
        again.clear();
        (0..1 << 16).for_each(|n| again.put(n, list(&again, n, 1)));
        assert!(again.bytes <= 1 << 20 && again.orders.len() < 1 << 14);
    }
}
