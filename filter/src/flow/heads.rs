//! Heads of series as they were written before: most series of a batch were in the last ones too.
//!
//! In: the identity of a series with everything that its head says besides, and its part in a switch. Out: the bytes of the head, for a
//! message to take as they are. Two senders may write the same labels in other bytes; whoever came first is copied, as at the owner,
//! whose series keeps what it was made with. Bounded by [`BYTES_MAX`]; when that is full everything is forgotten.

use crate::hash::Identity;
use crate::identify::ById;
use crate::switch::Turn;

/// Bytes of heads: some seven thousand series at 300 bytes each.
const BYTES_MAX: usize = 2 << 20;

/// One head.
struct Head {
    start: usize,
    len: usize,
    turn: Option<Turn>,
}

/// The heads.
#[derive(Default)]
pub struct Heads {
    bytes: Vec<u8>,
    heads: ById<Head>,
}

impl Heads {
    /// Forget everything: another plan has other folds.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.heads.clear();
    }

    /// The head that was written under this key.
    pub fn get(&self, key: Identity, turn: Option<Turn>) -> Option<&[u8]> {
        let head = self.heads.get(&key).filter(|head| head.turn == turn)?;
        self.bytes.get(head.start..)?.get(..head.len)
    }

    /// Remember.
    pub fn put(&mut self, key: Identity, turn: Option<Turn>, bytes: &[u8]) {
        if self.bytes.len().saturating_add(bytes.len()) > BYTES_MAX {
            self.clear();
        }
        self.heads.insert(key, Head { start: self.bytes.len(), len: bytes.len(), turn });
        self.bytes.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::Side;
    use crate::units::UnixNanos;

    #[test]
    fn a_head_is_found_under_its_key_and_turn_alone() {
        let turn = Some(Turn { at: UnixNanos(7), side: Side::OpensAfterRaw });
        let mut heads = Heads::default();
        heads.put(Identity(1), None, b"one");
        heads.put(Identity(2), turn, b"two");
        assert_eq!(heads.get(Identity(1), None), Some(&b"one"[..]));
        assert_eq!((heads.get(Identity(1), turn), heads.get(Identity(2), None)), (None, None));
        heads.put(Identity(1), turn, b"three");
        assert_eq!((heads.get(Identity(1), None), heads.get(Identity(1), turn)), (None, Some(&b"three"[..])));
    }

    #[test]
    fn they_are_bounded() {
        let mut heads = Heads::default();
        for n in 0..10_000_u128 {
            heads.put(Identity(n), None, &[n as u8; 1_000]);
            assert_eq!(heads.get(Identity(n), None), Some(&[n as u8; 1_000][..]));
        }
        assert!(heads.bytes.len() <= BYTES_MAX && heads.heads.len() <= BYTES_MAX / 1_000);
    }
}
