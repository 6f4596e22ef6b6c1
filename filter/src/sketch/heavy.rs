//! What weighs most? Space-Saving.
//!
//! In: keys (hashes, uniform already) with a weight each, and bytes that show a person what a key stands for. Out: the heaviest keys,
//! each with an upper bound of its weight, how far the truth may lie below it, and an example. With n the sum of all weights and k
//! the capacity: `weight - error <= true <= weight`, `error <= n / k`, and every key heavier than n / k is there.
//!
//! Source: Metwally, Agrawal, El Abbadi, *Efficient Computation of Frequent and Top-k Elements in Data Streams*, 2005: a key that
//! is not among the k takes the place of the lightest and its weight, as an error. Merging: Agarwal and others, *Mergeable Summaries*,
//! 2012: weights are added, a key that one side does not have counts there as much as it may have had at most, and the k
//! heaviest stay; the bounds hold for the sum of both, with the smaller k where they differ.
//!
//! Weights are integers, so that sums are exact; they stop at 2⁶⁴ − 1. Of equally heavy keys the smaller comes first, and the last
//! one goes: the same calls give the same entries everywhere.
//! A heap with the lightest on top, and an index by key: an add costs a look-up and O(log k) moves of four bytes; with up to eight entries there
//! is neither, and an add looks at them all. Memory is what k entries with examples take, [`EXAMPLE_BYTES_MAX`] each, and is kept: a key that takes
//! a place reuses its bytes.
//!
//! Wrong where weight is spread evenly over many more than k keys: errors are then as large as weights, and say so.

use hashbrown::HashTable;
use phoenix_plan::order;
use std::cmp::{Ordering, Reverse};

/// Bytes of an example; longer ones are cut before a character that does not fit whole.
pub const EXAMPLE_BYTES_MAX: usize = 64;
/// With so few entries all of them are looked at, which costs less than an index and a heap.
const FEW: usize = 8;
/// Most entries: half a megabyte with examples, and more than anybody reads.
pub const CAPACITY_MAX: usize = 4_096;

/// A key with its weight.
#[derive(Clone, Debug, Default)]
struct Entry {
    key: u64,
    /// An upper bound.
    weight: u64,
    /// How much of it may be another's.
    error: u64,
    example: Vec<u8>,
    /// Where in the heap.
    at: u32,
}

impl Entry {
    /// Heaviest first; of equals, the smaller key.
    fn rank(&self) -> (Reverse<u64>, u64) {
        (Reverse(self.weight), self.key)
    }

    fn plus(self, weight: u64, error: u64) -> Entry {
        let (weight, error) = (self.weight.saturating_add(weight), self.error.saturating_add(error));
        Entry { weight, error, ..self }
    }
}

/// The heaviest keys. Grows with what comes, up to its capacity.
#[derive(Clone, Debug)]
pub struct Heavy {
    capacity: usize,
    entries: Vec<Entry>,
    /// Numbers of entries; the one that goes next on top, none before its parent in rank. Empty where there are [`FEW`].
    heap: Vec<u32>,
    /// Number of an entry by its key, which is its own hash. Empty where there are [`FEW`].
    index: HashTable<u32>,
    /// What an absent key may weigh even while there is room: what a full one that was merged knows nothing about.
    unseen: u64,
    total: u64,
}

impl Heavy {
    /// Of so many keys at most: 1 to [`CAPACITY_MAX`]. Allocates nothing yet.
    #[must_use]
    pub fn new(capacity: usize) -> Heavy {
        Heavy {
            capacity: capacity.clamp(1, CAPACITY_MAX),
            entries: Vec::new(),
            heap: Vec::new(),
            index: HashTable::new(),
            unseen: 0,
            total: 0,
        }
    }

    /// Adds to the weight of a key; a weight of zero is nothing. The example is asked for only where the key gets an entry.
    pub fn add<'a>(&mut self, key: u64, weight: u64, example: impl FnOnce() -> &'a [u8]) {
        if weight == 0 {
            return;
        }
        self.total = self.total.saturating_add(weight);
        if let Some(number) = self.find(key) {
            if let Some(entry) = self.entries.get_mut(number as usize) {
                entry.weight = entry.weight.saturating_add(weight);
            }
            if !self.are_few() {
                self.sink(number);
            }
        } else if self.entries.len() < self.capacity {
            self.push(key, self.unseen.saturating_add(weight), self.unseen, example());
        } else {
            self.replace(key, weight, example());
        }
    }

    /// Takes in what the other counted.
    pub fn merge(&mut self, other: &Heavy) {
        let (ours, theirs) = (self.absent(), other.absent());
        let strange = other.entries.iter().filter(|entry| self.find(entry.key).is_none());
        let mut all: Vec<Entry> = strange.map(|entry| entry.clone().plus(ours, ours)).collect();
        for mut entry in std::mem::take(&mut self.entries) {
            let (weight, error) = match other.get(entry.key) {
                Some(same) => {
                    // They differ only where a key stands for more than one: then the same is kept whoever merges whom.
                    if same.example < entry.example {
                        keep(&mut entry.example, &same.example);
                    }
                    (same.weight, same.error)
                }
                None => (theirs, theirs),
            };
            all.push(entry.plus(weight, error));
        }
        order::sort_by(&mut all, |a, b| a.rank().cmp(&b.rank()));
        all.truncate(self.capacity);
        self.heap.clear();
        self.index.clear();
        self.unseen = ours.saturating_add(theirs);
        self.total = self.total.saturating_add(other.total);
        // The lightest first: then none moves in the heap.
        for entry in all.into_iter().rev() {
            self.append(entry);
        }
    }

    /// Key, weight, error, example; heaviest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, u64, &[u8])> {
        let mut all: Vec<&Entry> = self.entries.iter().collect();
        order::sort_by(&mut all, |a, b| a.rank().cmp(&b.rank()));
        all.into_iter().map(|entry| (entry.key, entry.weight, entry.error, entry.example.as_slice()))
    }

    /// The most that a key without an entry may weigh.
    #[must_use]
    pub fn absent(&self) -> u64 {
        if self.entries.len() < self.capacity { self.unseen } else { self.lightest() }
    }

    /// The sum of all weights that came.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many keys have an entry.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing came yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many keys may have one.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets everything and gives the memory back.
    pub fn clear(&mut self) {
        *self = Heavy::new(self.capacity);
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let examples = self.entries.iter().fold(0_usize, |sum, it| sum.saturating_add(it.example.capacity()));
        let entries = self.entries.capacity().saturating_mul(size_of::<Entry>());
        let numbers = self.heap.capacity().saturating_mul(size_of::<u32>());
        [examples, entries, numbers].into_iter().fold(self.index.allocation_size(), usize::saturating_add)
    }

    /// All entries are looked at.
    #[inline]
    fn are_few(&self) -> bool {
        self.capacity <= FEW
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u32> {
        if self.are_few() {
            return self.entries.iter().position(|entry| entry.key == key).map(|at| at as u32);
        }
        let is_it = |number: &u32| self.entries.get(*number as usize).is_some_and(|entry| entry.key == key);
        self.index.find(key, is_it).copied()
    }

    fn get(&self, key: u64) -> Option<&Entry> {
        self.find(key).and_then(|number| self.entries.get(number as usize))
    }

    fn lightest(&self) -> u64 {
        self.next_to_go().and_then(|number| self.entries.get(number as usize)).map_or(0, |entry| entry.weight)
    }

    /// Number of the entry that goes next.
    #[inline]
    fn next_to_go(&self) -> Option<u32> {
        if !self.are_few() {
            return self.heap.first().copied();
        }
        let mut last: Option<(usize, &Entry)> = None;
        for (at, entry) in self.entries.iter().enumerate() {
            let goes_first = |last: &Entry| {
                entry.weight < last.weight || (entry.weight == last.weight && entry.key > last.key)
            };
            if last.is_none_or(|(_, last)| goes_first(last)) {
                last = Some((at, entry));
            }
        }
        last.map(|(at, _)| at as u32)
    }

    fn push(&mut self, key: u64, weight: u64, error: u64, example: &[u8]) {
        let example = cut(example).to_vec();
        self.append(Entry { key, weight, error, example, at: 0 });
    }

    /// One entry more, and its place in the heap.
    fn append(&mut self, mut entry: Entry) {
        // At most `CAPACITY_MAX`.
        let (number, key) = (self.entries.len() as u32, entry.key);
        entry.at = number;
        self.entries.push(entry);
        if self.are_few() {
            return;
        }
        self.heap.push(number);
        let entries = &self.entries;
        let hash = |number: &u32| entries.get(*number as usize).map_or(0, |entry| entry.key);
        self.index.insert_unique(key, number, hash);
        self.rise(number);
    }

    /// A key in the place of the lightest.
    fn replace(&mut self, key: u64, weight: u64, example: &[u8]) {
        let (are_few, number) = (self.are_few(), self.next_to_go());
        let Some((number, entry)) = number.and_then(|n| Some((n, self.entries.get_mut(n as usize)?))) else {
            return;
        };
        if !are_few && let Ok(slot) = self.index.find_entry(entry.key, |other| *other == number) {
            slot.remove();
        }
        (entry.key, entry.error) = (key, entry.weight);
        entry.weight = entry.weight.saturating_add(weight);
        keep(&mut entry.example, example);
        if are_few {
            return;
        }
        let entries = &self.entries;
        let hash = |number: &u32| entries.get(*number as usize).map_or(0, |entry| entry.key);
        self.index.insert_unique(key, number, hash);
        self.sink(number);
    }

    /// How entry `a` stands to entry `b` in rank.
    fn compare(&self, a: u32, b: u32) -> Ordering {
        let rank = |number: u32| self.entries.get(number as usize).map(Entry::rank);
        rank(a).cmp(&rank(b))
    }

    /// Moves an entry that became lighter than those above it.
    fn rise(&mut self, number: u32) {
        while let Some(above) = self.place(number).checked_sub(1).map(|at| at / 2) {
            let Some(other) = self.heap.get(above).copied() else { return };
            if self.compare(number, other).is_le() {
                return;
            }
            self.swap(number, other);
        }
    }

    /// Moves an entry that became heavier than those below it.
    fn sink(&mut self, number: u32) {
        loop {
            let left = self.place(number).saturating_mul(2).saturating_add(1);
            let below = [left, left.saturating_add(1)].map(|at| self.heap.get(at).copied());
            let last = match below {
                [Some(a), Some(b)] => {
                    if self.compare(a, b).is_ge() {
                        a
                    } else {
                        b
                    }
                }
                [Some(a), None] => a,
                [None, _] => return,
            };
            if self.compare(number, last).is_ge() {
                return;
            }
            self.swap(number, last);
        }
    }

    fn place(&self, number: u32) -> usize {
        self.entries.get(number as usize).map_or(0, |entry| entry.at as usize)
    }

    /// Two entries change places in the heap.
    fn swap(&mut self, a: u32, b: u32) {
        let (at_a, at_b) = (self.place(a), self.place(b));
        for (number, at) in [(a, at_b), (b, at_a)] {
            if let Some(slot) = self.heap.get_mut(at) {
                *slot = number;
            }
            if let Some(entry) = self.entries.get_mut(number as usize) {
                entry.at = at as u32;
            }
        }
    }
}

/// An example in place of another, in the same memory.
fn keep(place: &mut Vec<u8>, example: &[u8]) {
    place.clear();
    place.extend_from_slice(cut(example));
}

/// At most [`EXAMPLE_BYTES_MAX`] bytes that end with a whole character of UTF-8; of bytes that are none, as many as fit.
fn cut(example: &[u8]) -> &[u8] {
    let Some((head, rest)) = example.split_at_checked(EXAMPLE_BYTES_MAX) else { return example };
    let continues = |byte: Option<&u8>| byte.is_some_and(|byte| byte & 0xc0 == 0x80);
    if !continues(rest.first()) {
        return head;
    }
    // The character began among the last three bytes.
    let starts = (1..=3).find(|back| {
        let at = EXAMPLE_BYTES_MAX.saturating_sub(*back);
        !continues(head.get(at))
    });
    let end = EXAMPLE_BYTES_MAX.saturating_sub(starts.unwrap_or(0));
    head.get(..end).unwrap_or(head)
}
