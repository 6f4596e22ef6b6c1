//! Which attributes come next: exporters send the same points in the same order each time.
//!
//! In: the bytes of all attributes of a point, under a fold. Out: what is known about those very bytes, and a guess at what the next point
//! brings. A guess that is right costs one comparison of bytes: no walk over keys and values, and no hash. One that is wrong costs the
//! comparison of a few bytes, then a look by a plain hash of the bytes; what is found is compared byte for byte as well, so neither a guess
//! nor a collision can ever confuse two streams. Senders who make bytes collide make themselves slow, by a walk a point.
//!
//! Attributes are taken in when they come a second time, so that those which come once leave no more than two bytes ([`Trail::meet`]). What
//! is in stays: when there is no more room ([`BYTES_MAX`]), what comes is not taken in, until much more was left out than is in; then
//! everything is forgotten and learnt again. So of a cycle that is too large for it some part is always known.

use super::parts::Attribute;
use crate::decode::Guess;
use crate::hash::Identity;
use crate::measure::Label;
use crate::wire::{Span, same};

/// Bytes of attributes that are kept: at 180 bytes a set some forty thousand sets, which with all around them take 13 MiB a worker.
const BYTES_MAX: usize = 8 << 20;
/// Sets that are kept: short ones must not make the list longer than the bytes.
const SEEN_MAX: usize = 1 << 16;
/// Labels of them that are kept where something is measured: 6 MiB.
const LABELS_KEPT: usize = 1 << 18;
/// Places of the index at first, and at most.
const PLACES_MIN: usize = 1_024;
const PLACES_MAX: usize = 2 * SEEN_MAX;
/// Places for sixteen bits of the hashes of sets that came once: 256 KiB, for three times as many as are kept at most.
const DOOR_PLACES: usize = 1 << 17;
/// So many times as many as are in have to be left out before all are forgotten.
const LEFT_OUT_FACTOR: usize = 4;
/// Longest set that is taken in; what is longer is rare, and few of them would fill the room.
const SET_BYTES_MAX: usize = 2_048;

/// What is known about a set of attributes under a fold.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Known {
    /// Sum of the identities of all of them.
    pub all: Identity,
    /// Sum of those that the fold keeps.
    pub kept: Identity,
}

/// Hash of a set of attributes under a fold: whatever is found by it is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash(u64);

/// Where a set is: its number, its bytes, how many attributes they are.
#[derive(Clone, Copy, Default)]
struct Set {
    number: u32,
    start: u32,
    len: u32,
    count: u32,
}

/// One set of attributes under one fold.
struct Seen {
    set: Set,
    /// What came after it last time; itself when nothing has. With where its bytes are, so that a wait for those and one for what is known
    /// about them are one: of many sets none is in a cache.
    next: Set,
    fold: usize,
    hash: Hash,
    known: Known,
    /// Where its labels begin, as many as it has attributes; [`NO_LABELS`].
    labels: u32,
}

/// A set without its labels.
const NO_LABELS: u32 = u32::MAX;

/// A label of a set, with where in the set the text of its value is.
struct KnownLabel {
    id: u64,
    pair: u64,
    start: u16,
    len: u16,
}

/// The sets, and where the walk is among them.
#[derive(Default)]
pub struct Trail {
    bytes: Vec<u8>,
    labels: Vec<KnownLabel>,
    seen: Vec<Seen>,
    /// By hash, in rows of two: number of a set and one, or zero.
    places: Vec<u32>,
    /// Bits of the hashes of what came once.
    door: Vec<u16>,
    /// Sets that were not taken in since there was no room.
    left_out: usize,
    /// The set that was met last.
    last: u32,
    /// The set that is expected.
    next: Set,
}

impl Trail {
    /// Forget everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.labels.clear();
        self.seen.clear();
        self.places.clear();
        self.door.clear();
        (self.left_out, self.last, self.next) = (0, 0, Set::default());
    }

    /// What the next point is likely to bring.
    #[inline]
    pub fn guess(&self) -> Guess<'_> {
        Guess { bytes: self.bytes_of(self.next), count: self.next.count }
    }

    #[inline]
    fn bytes_of(&self, set: Set) -> &[u8] {
        self.bytes.get(set.start as usize..).and_then(|rest| rest.get(..set.len as usize)).unwrap_or_default()
    }

    /// What is known about the guess under a fold, if it is right.
    #[inline]
    pub fn expected(&self, fold: usize) -> Option<Known> {
        self.seen.get(self.next.number as usize).filter(|seen| seen.fold == fold).map(|seen| seen.known)
    }

    /// Number of the set that was met last: found, or passed over.
    #[inline]
    pub fn last(&self) -> u32 {
        self.last
    }

    /// The labels of a set, by its number, which is at `at` in a batch. False where they are not kept.
    #[inline]
    pub fn labels(&self, number: u32, at: usize, out: &mut Vec<Label>) -> bool {
        let Some(seen) = self.seen.get(number as usize) else { return false };
        let parts =
            self.labels.get(seen.labels as usize..).and_then(|all| all.get(..seen.set.count as usize));
        let Some(parts) = parts else { return false };
        out.extend(parts.iter().map(|part| {
            let start = at.saturating_add(usize::from(part.start));
            let value = Span { start, end: start.saturating_add(usize::from(part.len)) };
            Label { id: part.id, pair: part.pair, value }
        }));
        true
    }

    /// What is known about these bytes, where no guess was right; else their hash, for [`Trail::meet`].
    pub fn find(&mut self, bytes: &[u8], fold: usize) -> Result<Known, Hash> {
        let hash = Hash(quick(bytes, fold));
        let at = self.place(hash);
        for at in [at, at ^ 1] {
            let Some(number) = self.places.get(at).and_then(|place| place.checked_sub(1)) else { continue };
            if let Some(seen) = self.seen.get(number as usize)
                && (seen.hash, seen.fold) == (hash, fold)
                && same(self.bytes_of(seen.set), bytes)
            {
                let (set, next, known) = (seen.set, seen.next, seen.known);
                self.follow(set);
                self.next = next;
                return Ok(known);
            }
        }
        Err(hash)
    }

    /// The expected set was passed by: the one behind it is expected now.
    #[inline]
    pub fn pass_over(&mut self) {
        if let Some(seen) = self.seen.get(self.next.number as usize) {
            (self.last, self.next) = (self.next.number, seen.next);
        }
    }

    /// A set that [`Trail::find`] did not find: `count` attributes, with nothing between them (0: not so). It is taken in if it came before.
    /// Until then it is most often one in the place of the one that was expected. `attributes`: each of them, where they are to be known as labels, and
    /// where in the batch they begin.
    pub fn meet(
        &mut self,
        hash: Hash,
        (bytes, count): (&[u8], u32),
        fold: usize,
        known: Known,
        attributes: (&[Attribute], usize),
    ) {
        if count == 0 || bytes.len() > SET_BYTES_MAX || !self.came_before(hash) || !self.has_room(bytes) {
            return self.pass_over();
        }
        if self.seen.len().saturating_mul(2) >= self.places.len() && self.places.len() < PLACES_MAX {
            self.grow();
        }
        let (Ok(start), Ok(len)) = (u32::try_from(self.bytes.len()), u32::try_from(bytes.len())) else {
            return;
        };
        let number = u32::try_from(self.seen.len()).unwrap_or(0);
        self.bytes.extend_from_slice(bytes);
        let set = Set { number, start, len, count };
        let labels = self.take_labels(count, attributes);
        self.seen.push(Seen { set, next: set, fold, hash, known, labels });
        self.put(self.place(hash), number);
        self.follow(set);
        self.next = set;
    }

    /// Keep the labels of a set, if they are there and there is room: where they begin. `at`: where in a batch the set is.
    fn take_labels(&mut self, count: u32, (attributes, at): (&[Attribute], usize)) -> u32 {
        let start = self.labels.len();
        if attributes.len() != count as usize || start.saturating_add(attributes.len()) > LABELS_KEPT {
            return NO_LABELS;
        }
        for it in attributes {
            let (from, len) = match it.value.is_empty() {
                true => (Ok(0), Ok(0)),
                false => (u16::try_from(it.value.start.saturating_sub(at)), u16::try_from(it.value.len())),
            };
            let (Ok(from), Ok(len)) = (from, len) else {
                self.labels.truncate(start);
                return NO_LABELS;
            };
            self.labels.push(KnownLabel { id: it.label, pair: it.id.low(), start: from, len });
        }
        start as u32
    }

    /// Did a set of this hash come before? From now on, yes.
    fn came_before(&mut self, hash: Hash) -> bool {
        if self.door.is_empty() {
            self.door.resize(DOOR_PLACES, 0);
        }
        let at = (hash.0 >> 24) as usize & DOOR_PLACES.wrapping_sub(1);
        let bits = (hash.0 >> 48) as u16 | 1;
        self.door.get_mut(at).is_some_and(|place| core::mem::replace(place, bits) == bits)
    }

    fn has_room(&mut self, bytes: &[u8]) -> bool {
        if self.bytes.len().saturating_add(bytes.len()) <= BYTES_MAX && self.seen.len() < SEEN_MAX {
            return true;
        }
        self.left_out = self.left_out.saturating_add(1);
        if self.left_out > self.seen.len().saturating_mul(LEFT_OUT_FACTOR) {
            self.clear();
        }
        false
    }

    /// `set` comes after the one that was met last.
    fn follow(&mut self, set: Set) {
        if let Some(last) = self.seen.get_mut(self.last as usize) {
            last.next = set;
        }
        self.last = set.number;
    }

    fn put(&mut self, at: usize, number: u32) {
        let free = self.places.get(at).is_some_and(|place| *place == 0);
        let at = if free { at } else { at ^ 1 };
        if let Some(place) = self.places.get_mut(at) {
            *place = number.saturating_add(1);
        }
    }

    /// The place of a hash in the index; its row is this one and the neighbour.
    fn place(&self, hash: Hash) -> usize {
        (hash.0 as usize) & self.places.len().wrapping_sub(1)
    }

    fn grow(&mut self) {
        let places = self.places.len().saturating_mul(2).max(PLACES_MIN);
        self.places.clear();
        self.places.resize(places, 0);
        for number in 0..self.seen.len() {
            let hash = self.seen.get(number).map_or(Hash(0), |seen| seen.hash);
            self.put(self.place(hash), u32::try_from(number).unwrap_or(0));
        }
    }
}

/// A hash without a key: whatever it finds is compared. All bits are used, by one table or another.
#[inline]
pub fn quick(bytes: &[u8], fold: usize) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    // The rotation brings what a product leaves in its upper bits under the next one.
    let mix = |sum: u64, word: &[u8; 8]| (sum ^ u64::from_le_bytes(*word)).wrapping_mul(ODD).rotate_left(27);
    let start = (bytes.len() as u64) ^ (fold as u64).wrapping_shl(32);
    let [mut a, mut b, mut c, mut d] = [start, !start, start ^ ODD, start.wrapping_add(ODD)];
    if let Some(last) = bytes.last_chunk::<32>() {
        // The last block takes what is behind the last whole one, and some bytes twice.
        for block in bytes.as_chunks::<32>().0.iter().chain([last]) {
            if let ([w, x, y, z], _) = block.as_chunks::<8>() {
                (a, b, c, d) = (mix(a, w), mix(b, x), mix(c, y), mix(d, z));
            }
        }
    } else if let Some(last) = bytes.last_chunk::<8>() {
        for word in bytes.as_chunks::<8>().0.iter().chain([last]) {
            (a, b) = (b, mix(a, word));
        }
    } else {
        for byte in bytes {
            a = mix(a.rotate_left(9), &[*byte; 8]);
        }
    }
    let (left, right) =
        ((a ^ b.rotate_left(17)).wrapping_mul(ODD), (c ^ d.rotate_left(41)).wrapping_mul(ODD));
    let sum = left ^ right.rotate_left(31);
    (sum ^ sum >> 29).wrapping_mul(ODD).rotate_left(32)
}

const _: () =
    assert!(PLACES_MIN.is_power_of_two() && PLACES_MAX.is_power_of_two() && DOOR_PLACES.is_power_of_two());
const _: () = assert!(BYTES_MAX + SET_BYTES_MAX < u32::MAX as usize && size_of::<Seen>() <= 96);

#[cfg(test)]
mod tests {
    use super::*;

    fn known(n: u64) -> Known {
        Known { all: Identity(u128::from(n) + 1), kept: Identity(u128::from(n) + 2) }
    }

    fn set(n: u64) -> Vec<u8> {
        format!("attributes of the point number {n:>7}, and what is kept of them").into_bytes()
    }

    /// Let a point come: by the guess, by its bytes, or as one that is met. Says which.
    fn come(trail: &mut Trail, n: u64, fold: usize) -> &'static str {
        let bytes = set(n);
        if trail.guess().bytes == bytes
            && let Some(found) = trail.expected(fold)
        {
            trail.pass_over();
            assert_eq!(found, known(n));
            return "guessed";
        }
        match trail.find(&bytes, fold) {
            Ok(found) => {
                assert_eq!(found, known(n));
                "found"
            }
            Err(hash) => {
                trail.meet(hash, (&bytes, 7), fold, known(n), (&[], 0));
                "met"
            }
        }
    }

    fn all(trail: &mut Trail, points: impl IntoIterator<Item = u64>, how: &str) {
        for n in points {
            assert_eq!(come(trail, n, 1), how, "point {n}");
        }
    }

    /// A trail that knows the first `n` points.
    fn knowing(n: u64) -> Trail {
        let mut trail = Trail::default();
        (0..2).for_each(|_| all(&mut trail, 0..n, "met"));
        trail
    }

    #[test]
    fn an_order_that_repeats_is_guessed() {
        let mut trail = knowing(50);
        assert_eq!(come(&mut trail, 0, 1), "found");
        all(&mut trail, 1..50, "guessed");
        all(&mut trail, 0..50, "guessed");
        assert_eq!(trail.guess().count, 7);
    }

    #[test]
    fn another_order_is_found_and_then_guessed() {
        let mut trail = knowing(50);
        all(&mut trail, (0..49).rev(), "found");
        assert_eq!(come(&mut trail, 49, 1), "found");
        all(&mut trail, (0..49).rev(), "guessed");
    }

    #[test]
    fn a_stranger_takes_the_place_of_what_was_expected() {
        let mut trail = knowing(9);
        assert_eq!(come(&mut trail, 0, 1), "found");
        all(&mut trail, 1..4, "guessed");
        assert_eq!(come(&mut trail, 99, 1), "met");
        all(&mut trail, 5..9, "guessed");
    }

    #[test]
    fn folds_are_told_apart() {
        let mut trail = Trail::default();
        for how in [("met", "met"), ("met", "met"), ("found", "guessed"), ("guessed", "guessed")] {
            assert_eq!((come(&mut trail, 3, 1), come(&mut trail, 3, 2)), how);
        }
    }

    #[test]
    fn what_has_something_between_or_is_long_is_not_taken_in() {
        let mut trail = Trail::default();
        for (bytes, count) in [(set(1), 0), (vec![7; SET_BYTES_MAX + 1], 1)] {
            for _ in 0..3 {
                let hash = trail.find(&bytes, 1).expect_err("never found");
                trail.meet(hash, (&bytes, count), 1, known(1), (&[], 0));
            }
        }
    }

    #[test]
    fn it_is_bounded_and_goes_on_when_full() {
        let mut trail = Trail::default();
        let far = |trail: &Trail| {
            (trail.seen.len(), trail.places.len() <= PLACES_MAX, trail.bytes.len() <= BYTES_MAX)
        };
        for n in 0..SEEN_MAX as u64 {
            all(&mut trail, [n, n], "met");
        }
        assert_eq!(far(&trail), (SEEN_MAX, true, true));
        let found = |trail: &mut Trail, first: u64| {
            (first..first + 1_000).filter(|n| come(trail, *n, 1) != "met").count()
        };
        assert!(found(&mut trail, 3_000) > 800, "what is in stays");
        let mut next = 1 << 20;
        while trail.left_out > 0 || trail.seen.len() == SEEN_MAX {
            all(&mut trail, [next, next], "met");
            assert!(next < (1 << 20) + 5 * SEEN_MAX as u64, "it is never emptied");
            next += 1;
        }
        all(&mut trail, [7, 7], "met");
        assert_eq!((come(&mut trail, 7, 1), trail.seen.len()), ("guessed", 1));
        for n in 0..3 * (BYTES_MAX / SET_BYTES_MAX) as u64 {
            let bytes = n.to_le_bytes().repeat(SET_BYTES_MAX / 8);
            for _ in 0..2 {
                if let Err(hash) = trail.find(&bytes, 1) {
                    trail.meet(hash, (&bytes, 1), 1, known(n), (&[], 0));
                }
            }
        }
        assert!(far(&trail).2);
    }
}
