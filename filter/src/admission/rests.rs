//! What the last level would leave of the series that are there, and the room that is kept for it.
//!
//! The last level folds all labels that are not protected, so that what protected labels make is the least that a metric can become. A total has
//! to be somewhere: room for these series is kept from the beginning, or a metric that has filled its share with raw streams could overflow only by
//! going beyond it. In: for each series 16 bits of what would be left of it ([`rest`]). Out: how many such series are still to be made.
//!
//! Cost: one entry of ten bytes for each metric and rest. Error: two rests of a metric are taken for one with a probability of 2⁻¹⁶, so of
//! `n` about `n²/131,072` too few are counted: 0.04 of 70, 9 of 1,100.

use super::state::ByHalf;
use crate::hash::Identity;

/// No room needs to be kept: nothing of the stream would fold.
pub const NONE: u16 = 0;

/// What would be left of a stream, in 16 bits.
pub fn rest(stream: Identity, left: Identity) -> u16 {
    if left == stream { NONE } else { high16(left.low()).max(1) }
}

#[allow(clippy::cast_possible_truncation)] // The upper bits are meant.
fn high16(half: u64) -> u16 {
    (half >> 48) as u16
}

/// Series beyond a share that are no overflow: one percent, at least one.
pub fn slack(share: u32) -> u32 {
    (share / 100).max(1)
}

/// Series for which room is kept, of a share and its slack: as many as are to be made, a tenth of the share and the slack at most.
pub fn kept(unmade: u32, share: u32) -> u32 {
    unmade.min((share / 10).saturating_add(slack(share)))
}

/// Series that fit beside those that are there and those for which room is kept, within a share and its slack.
pub fn room(share: u32, series: u32, unmade: u32) -> u32 {
    share.saturating_add(slack(share)).saturating_sub(series).saturating_sub(kept(unmade, share))
}

/// The rests of all metrics; whether their series has been made.
#[derive(Default)]
pub struct Rests {
    made: ByHalf<bool>,
}

impl Rests {
    fn key(metric: u64, rest: u16) -> u64 {
        metric ^ u64::from(rest).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Is it counted already?
    pub fn has(&self, metric: u64, rest: u16) -> bool {
        rest == NONE || self.made.contains_key(&Rests::key(metric, rest))
    }

    /// A series is there, made by the last level or not. Returns how many more are to be made: one, none, or one less.
    pub fn note(&mut self, metric: u64, rest: u16, is_made: bool) -> i32 {
        if rest == NONE {
            return 0;
        }
        let key = Rests::key(metric, rest);
        let before = self.made.get(&key).copied();
        self.made.insert(key, is_made || before == Some(true));
        match (before, is_made) {
            (None, false) => 1,
            (Some(false), true) => -1,
            _ => 0,
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.made.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_unmade_until_the_last_level_makes_it() {
        let mut rests = Rests::default();
        let (made, not) = (true, false);
        assert_eq!(rests.note(1, 7, not), 1);
        assert_eq!(rests.note(1, 7, not), 0, "known");
        assert_eq!(rests.note(2, 7, not), 1, "another metric's");
        assert_eq!(rests.note(1, 7, made), -1);
        assert_eq!(rests.note(1, 7, not), 0, "made once");
        assert_eq!(rests.note(1, 7, made), 0);
        assert_eq!(rests.note(1, 8, made), 0, "it never was to be made");
        assert_eq!(rests.note(1, NONE, not), 0);
        assert!(rests.has(1, 7) && rests.has(1, NONE) && !rests.has(2, 8));
    }

    #[test]
    fn room_is_kept_for_a_tenth_of_a_share_at_most() {
        assert_eq!((slack(1), slack(100), slack(10_000)), (1, 1, 100));
        assert_eq!(room(100, 0, 0), 101);
        assert_eq!(room(100, 0, 5), 96);
        assert_eq!(room(100, 90, 80), 0, "eleven are kept");
        assert_eq!(room(100, 80, 80), 10);
        assert_eq!(room(10_000, 0, 8), 10_092, "less than the slack: raw streams may have the whole share");
        assert_eq!((room(1, 0, 1), room(0, 0, 9)), (1, 0));
        assert_eq!(room(u32::MAX, 5, 5), u32::MAX - 10);
    }
}
