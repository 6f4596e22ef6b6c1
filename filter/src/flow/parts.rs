//! Single attributes that came before, byte for byte: their identity, and whether a fold keeps them.
//!
//! In: one attribute of a point. Out: what a walk into it and a keyed hash would say: its identity, its key, its value. Streams that were never seen share most of
//! their attributes with others; only what is new in them costs a hash. Two places for each hash of the bytes: what comes later stays.

use crate::hash::Identity;
use crate::measure::Label;
use crate::wire::{Span, same};

/// Places: 32 KiB, so that what is in use stays in a cache beside everything else.
const PLACES: usize = 256;
/// Bytes of the longest attribute that is kept, with its tag and length.
const PART_BYTES_MAX: usize = 88;

/// An attribute, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub id: Identity,
    /// Half of the identity of its key, as labels are known by.
    pub label: u64,
    /// The fold keeps it.
    pub is_kept: bool,
    pub key: Span,
    /// The text of its value; nothing where that is none.
    pub value: Span,
}

impl Attribute {
    /// As a label that is measured.
    #[inline]
    pub fn measured(&self) -> Label {
        Label { id: self.label, pair: self.id.low(), value: self.value }
    }
}

/// One attribute under one fold.
#[derive(Clone, Copy)]
pub struct Part {
    id: Identity,
    label: u64,
    fold: u32,
    len: u8,
    is_kept: bool,
    key: Within,
    value: Within,
    bytes: [u8; PART_BYTES_MAX],
}

/// A span within an attribute.
#[derive(Clone, Copy, Default)]
struct Within {
    start: u8,
    end: u8,
}

impl Within {
    /// Nothing where it does not lie in the field.
    fn of(span: Span, field: Span) -> Within {
        let at = |at: usize| at.checked_sub(field.start).and_then(|at| u8::try_from(at).ok());
        match (at(span.start), at(span.end)) {
            (Some(start), Some(end)) => Within { start, end },
            _ => Within::default(),
        }
    }

    #[inline]
    fn at(self, field: Span) -> Span {
        let at = |at: u8| field.start.saturating_add(usize::from(at));
        Span { start: at(self.start), end: at(self.end) }
    }
}

/// The attributes.
#[derive(Default)]
pub struct Parts {
    places: Vec<Part>,
}

impl Parts {
    /// Forget everything: another plan has other keys and other folds.
    pub fn clear(&mut self) {
        self.places.clear();
    }

    /// What is known about the attribute at `field`, if anything is.
    #[inline]
    pub fn find(&self, buf: &[u8], field: Span, fold: u32) -> Option<&Part> {
        let bytes = field.bytes(buf);
        let at = place(bytes, fold);
        [at, at ^ 1].into_iter().find_map(|at| {
            let part = self.places.get(at)?;
            let is_it = part.len != 0
                && (usize::from(part.len), part.fold) == (bytes.len(), fold)
                && part.bytes.get(..bytes.len()).is_some_and(|known| same(known, bytes));
            is_it.then_some(part)
        })
    }

    /// Keep what was found about the attribute at `field`, which was not known.
    pub fn learn(&mut self, buf: &[u8], field: Span, fold: u32, found: &Attribute) {
        let bytes = field.bytes(buf);
        let Some(len) =
            u8::try_from(bytes.len()).ok().filter(|len| (1..=PART_BYTES_MAX).contains(&usize::from(*len)))
        else {
            return;
        };
        let at = place(bytes, fold);
        if self.places.is_empty() {
            let (id, nothing) = (Identity::ZERO, Within::default());
            let bytes = [0; PART_BYTES_MAX];
            let free =
                Part { id, label: 0, fold: 0, len: 0, is_kept: false, key: nothing, value: nothing, bytes };
            self.places.resize(PLACES, free);
        }
        // What was there moves over: what comes often is seldom the older of two.
        if let Some(old) = self.places.get(at).copied()
            && let Some(beside) = self.places.get_mut(at ^ 1)
        {
            *beside = old;
        }
        if let Some(part) = self.places.get_mut(at) {
            (part.id, part.label, part.fold) = (found.id, found.label, fold);
            (part.len, part.is_kept) = (len, found.is_kept);
            (part.key, part.value) = (Within::of(found.key, field), Within::of(found.value, field));
            if let Some(place) = part.bytes.get_mut(..bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
    }
}

impl Part {
    /// The same, at another place of a batch.
    #[inline]
    pub fn at(&self, field: Span) -> Attribute {
        let (key, value) = (self.key.at(field), self.value.at(field));
        Attribute { id: self.id, label: self.label, is_kept: self.is_kept, key, value }
    }
}

/// The place of an attribute. A part of its key and the end of its value tell those apart that are in use at one time; whatever is found there
/// is compared.
#[inline(always)]
fn place(bytes: &[u8], fold: u32) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    // Behind two tags and two lengths the key begins.
    let key = word(bytes.get(4..).and_then(|rest| rest.first_chunk()));
    let sum = key.wrapping_mul(ODD).rotate_left(32) ^ word(bytes.last_chunk());
    let sum =
        sum.wrapping_add(bytes.len() as u64).wrapping_add(u64::from(fold).wrapping_shl(8)).wrapping_mul(ODD);
    (sum >> 48) as usize & PLACES.wrapping_sub(1)
}

const _: () = assert!(PLACES.is_power_of_two() && PART_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(size_of::<Part>() * PLACES <= 32 << 10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_what_it_was_told() {
        let mut parts = Parts::default();
        let mut asked = 0;
        for round in 0..3 {
            for n in 0..400_u128 {
                for (fold, len) in [(1, 5), (2, 5), (1, 40), (1, 88), (1, 89), (1, 0)] {
                    let bytes = n.to_le_bytes().into_iter().cycle().skip(n as usize % 3).take(len);
                    // Elsewhere in each round.
                    let field = Span { start: round * 300, end: round * 300 + len };
                    let buf: Vec<u8> = std::iter::repeat_n(0, field.start).chain(bytes).collect();
                    let bytes = field.bytes(&buf);
                    // What belongs to the bytes and the fold, and to nothing else.
                    let id = bytes.iter().fold(fold as u128, |sum, b| sum.wrapping_mul(257) + u128::from(*b));
                    let middle = field.start + len / 2;
                    let told = Attribute {
                        id: Identity(id),
                        label: id as u64 ^ 5,
                        is_kept: fold == 1,
                        key: Span { start: field.start, end: middle },
                        value: if len == 5 { Span::EMPTY } else { Span { start: middle, end: field.end } },
                    };
                    let found = parts.find(&buf, field, fold).map(|part| part.at(field));
                    let found = found.unwrap_or_else(|| {
                        asked += 1;
                        parts.learn(&buf, field, fold, &told);
                        told
                    });
                    let read =
                        |it: Attribute| (it.id, it.label, it.is_kept, it.key, it.value.bytes(&buf).to_vec());
                    assert_eq!(read(found), read(told), "round {round}: {bytes:?}");
                }
            }
        }
        assert!(asked < 3 * 400 * 6, "some were known");
    }
}
