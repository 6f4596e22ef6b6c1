//! Single attributes that came before, byte for byte: their identity, and whether a fold keeps them.
//!
//! In: the bytes of one attribute of a point. Out: what a walk into it and a keyed hash would say. Streams that were never seen share most of
//! their attributes with others; only what is new in them costs a hash. Two places for each hash of the bytes: what comes later stays.

use crate::hash::Identity;
use crate::wire::same;

/// Places: 32 KiB, so that what is in use stays in a cache beside everything else.
const PLACES: usize = 256;
/// Bytes of the longest attribute that is kept, with its tag and length.
const PART_BYTES_MAX: usize = 88;

/// One attribute under one fold.
#[derive(Clone, Copy)]
struct Part {
    id: Identity,
    fold: u32,
    len: u8,
    is_kept: bool,
    bytes: [u8; PART_BYTES_MAX],
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

    /// Identity of these bytes, and whether the fold keeps the attribute. Where that is not known, `find` says it.
    pub fn get<E>(
        &mut self,
        bytes: &[u8],
        fold: usize,
        find: impl FnOnce() -> Result<(Identity, bool), E>,
    ) -> Result<(Identity, bool), E> {
        let (Ok(len), Ok(fold)) = (u8::try_from(bytes.len()), u32::try_from(fold)) else { return find() };
        if bytes.len() > PART_BYTES_MAX || bytes.is_empty() {
            return find();
        }
        let at = place(bytes, fold);
        for at in [at, at ^ 1] {
            if let Some(part) = self.places.get(at)
                && (part.len, part.fold) == (len, fold)
                && part.bytes.get(..bytes.len()).is_some_and(|known| same(known, bytes))
            {
                return Ok((part.id, part.is_kept));
            }
        }
        let (id, is_kept) = find()?;
        if self.places.is_empty() {
            let free =
                Part { id: Identity::ZERO, fold: 0, len: 0, is_kept: false, bytes: [0; PART_BYTES_MAX] };
            self.places.resize(PLACES, free);
        }
        // What was there moves over: what comes often is seldom the older of two.
        if let Some(old) = self.places.get(at).copied()
            && let Some(beside) = self.places.get_mut(at ^ 1)
        {
            *beside = old;
        }
        if let Some(part) = self.places.get_mut(at) {
            (part.id, part.fold, part.len, part.is_kept) = (id, fold, len, is_kept);
            if let Some(place) = part.bytes.get_mut(..bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
        Ok((id, is_kept))
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
                    let bytes: Vec<u8> =
                        n.to_le_bytes().into_iter().cycle().skip(n as usize % 3).take(len).collect();
                    // What belongs to the bytes and the fold, and to nothing else.
                    let told = (
                        bytes.iter().fold(fold as u128, |sum, b| sum.wrapping_mul(257) + u128::from(*b)),
                        fold == 1,
                    );
                    let found = parts.get(&bytes, fold, || {
                        asked += 1;
                        Ok::<_, ()>((Identity(told.0), told.1))
                    });
                    assert_eq!(found, Ok((Identity(told.0), told.1)), "round {round}: {bytes:?}");
                }
            }
        }
        assert!(asked < 3 * 400 * 6, "some were known");
        assert_eq!(parts.get(b"refused", 1, || Err(7)), Err(7));
        assert_eq!(parts.get(b"refused", 1, || Err(8)), Err(8), "an error is not remembered");
    }
}
