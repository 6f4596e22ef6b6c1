//! What is known about attributes that came before, byte for byte: their identity, and that of those which a fold keeps.
//!
//! In: a keyed 128-bit identity of the bytes of all attributes of a point. Out: two sums of identities, which would otherwise cost a walk
//! over every key and value. Exporters send a stream's attributes in the same bytes each time, and the same bytes under every metric and
//! resource; where they do not, the walk is made and the answer is the same.
//!
//! A cache of two ways: what finds both places of its row taken replaces the older one, so a stranger costs no more than a miss. It grows
//! while rows overflow, up to [`ENTRIES_MAX`]. Cost of a hit: one identity over the bytes and one line or two of memory.

use crate::hash::Identity;

/// Entries at first: 48 KiB, so that a worker that folds little holds little.
const ENTRIES_MIN: usize = 1_024;
/// Entries at most: 12 MiB a worker. Beyond it a lookup costs as much memory traffic as the walk that it saves.
const ENTRIES_MAX: usize = 1 << 18;

/// One set of attributes under one fold.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// Identity of the bytes; zero: free. (That a real one is zero has a chance of 2⁻¹²⁸, and would cost a walk.)
    key: Identity,
    known: Known,
}

/// What is known.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Known {
    /// Sum over all attributes.
    pub all: Identity,
    /// Sum over those that the fold keeps.
    pub kept: Identity,
}

/// The cache.
#[derive(Default)]
pub struct Memo {
    entries: Vec<Entry>,
    /// Replaced since the last growth.
    replaced: usize,
}

impl Memo {
    /// Forget everything: another plan has other keys and other folds.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.replaced = 0;
    }

    /// The place of a key; its row is this one and the neighbour.
    #[inline]
    fn at(&self, key: Identity) -> usize {
        // A power of two; as usize is 32 bits wide on wasm, only low bits of the high half count.
        (key.high() as usize) & self.entries.len().wrapping_sub(1)
    }

    /// What is known about these bytes.
    #[inline]
    pub fn get(&self, key: Identity) -> Option<Known> {
        let at = self.at(key);
        for at in [at, at ^ 1] {
            if let Some(entry) = self.entries.get(at)
                && entry.key == key
            {
                return Some(entry.known);
            }
        }
        None
    }

    /// Remember.
    pub fn put(&mut self, key: Identity, known: Known) {
        if self.entries.is_empty() {
            self.entries.resize(ENTRIES_MIN, Entry::default());
        } else if self.replaced > self.entries.len() / 4 && self.entries.len() < ENTRIES_MAX {
            self.grow();
        }
        self.place(Entry { key, known });
    }

    fn place(&mut self, entry: Entry) {
        let at = self.at(entry.key);
        let Some(first) = self.entries.get(at).copied() else { return };
        let Some(second) = self.entries.get_mut(at ^ 1) else { return };
        if first.key != Identity::ZERO {
            if second.key == Identity::ZERO {
                *second = entry;
                return;
            }
            // The newer one moves over, the older one goes.
            *second = first;
            self.replaced = self.replaced.saturating_add(1);
        }
        if let Some(first) = self.entries.get_mut(at) {
            *first = entry;
        }
    }

    fn grow(&mut self) {
        let more = vec![Entry::default(); self.entries.len().saturating_mul(2)];
        let old = core::mem::replace(&mut self.entries, more);
        old.into_iter().filter(|entry| entry.key != Identity::ZERO).for_each(|entry| self.place(entry));
        self.replaced = 0;
    }
}

const _: () = assert!(ENTRIES_MIN.is_power_of_two() && ENTRIES_MAX.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Identity {
        Identity(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).wrapping_add(1))
    }

    fn known(n: u128) -> Known {
        Known { all: id(n + 7), kept: id(n + 9) }
    }

    #[test]
    fn what_it_says_is_what_it_was_told() {
        let mut memo = Memo::default();
        assert_eq!(memo.get(id(1)), None);
        for n in 0..100_000 {
            memo.put(id(n), known(n));
            assert_eq!(memo.get(id(n)), Some(known(n)), "the newest is there");
        }
        let there =
            (0..100_000).filter(|n| memo.get(id(*n)).inspect(|k| assert_eq!(*k, known(*n))).is_some());
        assert!(there.count() > 60_000, "and most of the others");
        memo.clear();
        assert_eq!(memo.get(id(1)), None);
    }

    #[test]
    fn it_is_bounded() {
        let mut memo = Memo::default();
        (0..4 * ENTRIES_MAX as u128).for_each(|n| memo.put(id(n), known(n)));
        assert_eq!(memo.entries.len(), ENTRIES_MAX);
    }
}
