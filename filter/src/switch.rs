//! The switch from one treatment of a metric to another at a point in event time, without a seam (DESIGN §3.7).
//!
//! Let `t0` be the last point of a stream before the switch and `t1` its first one after. What it counted over `(t0, t1]` is in no
//! raw sample and in no fold alone, so this file says who takes it; [`crate::flow`] sends the records, [`crate::owner`] divides.
//!
//! | switch | before | after | the increment over `(t0, t1]` |
//! |---|---|---|---|
//! | raw → fold | passes, and its record moves the baseline | folds | to the fold, in the windows where it came to be, also before the switch |
//! | fold → raw | folds | passes, and its record goes along | to the fold, in the windows where it came to be |
//! | fold → fold | folds | folds elsewhere | divided at the switch in proportion to time |
//!
//! A raw series that ends gets a stale marker in the place of the first point that is folded, if the backend has that series: which
//! streams went out raw before the switch a worker remembers in [`RawStreams`]. A stream that reaches another worker just then goes
//! stale by look-back instead.

use crate::amount::Number;
use crate::distribution::{self, Distribution};
use crate::hash::Identity;
use crate::identify::ById;
use crate::record::{Message, RecordError};
use crate::stream::Increment;
use crate::units::UnixNanos;
use crate::window::{Running, Share};

/// On which side of a switch a series stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It opens; before, its streams were raw. It takes all of the increment that spans the switch, where it came to be.
    OpensAfterRaw,
    /// It opens; before, its streams folded into another series, which takes the part before the switch.
    OpensAfterFold,
    /// It closes; afterwards its streams are raw. It takes all of the increment that spans the switch.
    ClosesForRaw,
    /// It closes; afterwards its streams fold into another series. It takes the part before the switch.
    ClosesForFold,
    /// It goes on; one of its streams is raw afterwards. It takes all of that stream's increment that spans the switch.
    LeavesForRaw,
}

/// A series' part in a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When, in event time.
    pub at: UnixNanos,
    /// On which side.
    pub side: Side,
}

impl Side {
    const ALL: [Side; 5] = [
        Side::OpensAfterRaw,
        Side::OpensAfterFold,
        Side::ClosesForRaw,
        Side::ClosesForFold,
        Side::LeavesForRaw,
    ];

    /// Does the series end at the switch?
    pub fn closes(self) -> bool {
        matches!(self, Side::ClosesForRaw | Side::ClosesForFold)
    }

    /// Is a stream elsewhere from the switch on?
    pub fn loses(self) -> bool {
        self.closes() || self == Side::LeavesForRaw
    }

    /// Is it raw from the switch on?
    pub fn is_raw_after(self) -> bool {
        matches!(self, Side::ClosesForRaw | Side::LeavesForRaw)
    }
}

impl Turn {
    /// As a message of records writes it; 0 stands for none.
    pub fn code(turn: Option<Turn>) -> (u8, u64) {
        let Some(turn) = turn else { return (0, 0) };
        let code = Side::ALL.iter().zip(1u8..).find(|(side, _)| **side == turn.side).map_or(0, |(_, n)| n);
        (code, turn.at.0)
    }

    /// What a code and a time stand for.
    pub fn of_code(code: u8, at: u64) -> Result<Option<Turn>, RecordError> {
        if code == 0 {
            return Ok(None);
        }
        let side = Side::ALL.get(usize::from(code).saturating_sub(1)).ok_or(RecordError::Malformed)?;
        Ok(Some(Turn { at: UnixNanos(at), side: *side }))
    }
}

/// An increment in two: what was gathered until `at`, and what after. In proportion to time; integers round the first part down,
/// as windows do, and nothing is lost.
pub fn divide<A: Divide>(inc: &Increment<A>, at: UnixNanos) -> (Option<Increment<A>>, Option<Increment<A>>) {
    if inc.to <= at {
        return (Some(inc.clone()), None);
    }
    if inc.from >= at {
        return (None, Some(inc.clone()));
    }
    let (before, after) = inc.amount.divide(at.since(inc.from), inc.to.since(inc.from));
    let first = Increment { amount: before, from: inc.from, to: at, reset: inc.reset };
    (Some(first), Some(Increment { amount: after, from: at, to: inc.to, reset: false }))
}

/// What can be divided in proportion to time.
pub trait Divide: Clone {
    /// The part of `elapsed_ns` out of `span_ns`, and the rest.
    fn divide(&self, elapsed_ns: u64, span_ns: u64) -> (Self, Self);
}

impl Divide for Number {
    fn divide(&self, elapsed_ns: u64, span_ns: u64) -> (Number, Number) {
        share(Share::new(*self, span_ns), elapsed_ns)
    }
}

impl Divide for Distribution {
    fn divide(&self, elapsed_ns: u64, span_ns: u64) -> (Distribution, Distribution) {
        share(distribution::Share::new(self, span_ns), elapsed_ns)
    }
}

fn share<R: Running>(mut given: R, elapsed_ns: u64) -> (R::Part, R::Part) {
    (given.up_to(elapsed_ns), given.rest())
}

/// The streams that this worker saw go out raw and that a switch has not yet ended at the backend. In two generations, so that a
/// stream that has been silent for a lifetime is forgotten: its raw series is long stale. Bounded: a stream for which there is no
/// room goes stale by look-back.
#[derive(Default)]
pub struct RawStreams {
    young: ById<()>,
    old: ById<()>,
    /// When the young become the old.
    turns_at: UnixNanos,
}

impl RawStreams {
    /// Did this stream go out raw, with no stale marker since?
    pub fn contains(&self, stream: Identity) -> bool {
        let among = |set: &ById<()>| !set.is_empty() && set.contains_key(&stream);
        among(&self.young) || among(&self.old)
    }

    /// Time goes on; a stream lives for `expiry_ns`.
    pub fn age(&mut self, now: UnixNanos, expiry_ns: u64) {
        if now < self.turns_at {
            return;
        }
        self.turns_at = now.plus(expiry_ns);
        if self.young.capacity() > 0 || self.old.capacity() > 0 {
            self.old = core::mem::take(&mut self.young);
        }
    }

    /// The upstream has accepted a request: what its records say about series that open after raw streams. `carried` says that the
    /// whole of it went out raw.
    pub fn note(&mut self, message: &[u8], carried: bool, streams_max: u32) {
        let Ok(message) = Message::read(message) else { return };
        let opens = |turn: Option<Turn>| turn.is_some_and(|t| t.side == Side::OpensAfterRaw);
        let opening: Vec<bool> = message.heads().flatten().map(|head| opens(head.turn)).collect();
        let max = usize::try_from(streams_max).unwrap_or(usize::MAX);
        for record in message.records().flatten() {
            let at = usize::try_from(record.series).unwrap_or(usize::MAX);
            if opening.get(at) != Some(&true) {
                continue;
            }
            if !(carried || record.carried) {
                self.young.remove(&record.stream);
                self.old.remove(&record.stream);
            } else if self.young.len().saturating_add(self.old.len()) < max {
                self.young.insert(record.stream, ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inc(amount: i64, from: u64, to: u64) -> Increment {
        Increment { amount: Number::Int(amount), from: UnixNanos(from), to: UnixNanos(to), reset: true }
    }

    #[test]
    fn an_increment_is_divided_in_proportion_to_time() {
        let at = UnixNanos(100);
        assert_eq!(divide(&inc(7, 80, 100), at), (Some(inc(7, 80, 100)), None));
        assert_eq!(divide(&inc(7, 100, 120), at), (None, Some(inc(7, 100, 120))));
        let rest = |amount, to| Increment { reset: false, ..inc(amount, 100, to) };
        assert_eq!(divide(&inc(7, 90, 110), at), (Some(inc(3, 90, 100)), Some(rest(4, 110))));
        assert_eq!(divide(&inc(1, 99, 200), at), (Some(inc(0, 99, 100)), Some(rest(1, 200))));
    }

    #[test]
    fn raw_streams_are_forgotten_after_a_lifetime() {
        let mut raw = RawStreams::default();
        raw.age(UnixNanos(100), 10);
        raw.young.insert(Identity(1), ());
        for (now, there) in [(109, true), (110, true), (119, true), (120, false)] {
            raw.age(UnixNanos(now), 10);
            assert_eq!(raw.contains(Identity(1)), there, "{now}");
        }
    }

    #[test]
    fn codes_are_read_as_they_are_written() {
        assert_eq!(Turn::of_code(0, 9), Ok(None));
        for side in Side::ALL {
            let turn = Some(Turn { at: UnixNanos(5), side });
            let (code, at) = Turn::code(turn);
            assert_eq!(Turn::of_code(code, at), Ok(turn));
        }
        assert_eq!(Turn::of_code(6, 9), Err(RecordError::Malformed));
    }
}
