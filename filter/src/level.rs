//! Levels: gauges and up-down counters, of which the last value counts (DESIGN §3.2).
//!
//! In: the values of many streams with their times, the news that a stream has ended or folds elsewhere. Out: a declared function of the
//! last values at the end of a window. The members of a series and what a window learns of them are the same thing, the newest word of
//! each stream; so closing a window is putting the second over the first. The function is computed anew each time: nothing drifts,
//! whatever came and went. Streams stand in the order of their identities, so that sums of doubles are equal on every processor.
//!
//! Cost: a logarithm of the members per point, their number per window. Refused: the same time of a stream twice.

use crate::amount::{Amount, Number};
use crate::hash::Identity;
use crate::units::UnixNanos;
use phoenix_plan::Function;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The newest word of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Last {
    time: UnixNanos,
    /// None: it ended then, or went elsewhere.
    value: Option<Number>,
}

/// The newest word of each stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Level {
    streams: BTreeMap<Identity, Last>,
}

/// What a level comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The function of the members' values; the sum, for an average.
    pub value: Number,
    /// How many members there are.
    pub members: u64,
}

impl Level {
    /// A stream says something at `time`. False: it said something at the same time before, which stands.
    pub fn note(&mut self, stream: Identity, time: UnixNanos, value: Option<Number>) -> bool {
        let said = Last { time, value };
        match self.streams.entry(stream) {
            Entry::Vacant(place) => {
                place.insert(said);
            }
            Entry::Occupied(mut place) => {
                let old = place.get_mut();
                if old.time == time && value.is_some() {
                    return false;
                }
                // At one time, an end comes after a value.
                if old.time <= time {
                    *old = said;
                }
            }
        }
        true
    }

    /// What another one knows, put over this one.
    pub fn merge(&mut self, other: &Level) {
        for (stream, last) in &other.streams {
            self.note(*stream, last.time, last.value);
        }
    }

    /// At `end`: streams that have gone are no members any more, nor are those that have been silent for longer than `expiry_ns`.
    pub fn expire(&mut self, end: UnixNanos, expiry_ns: u64) {
        self.streams.retain(|_, last| last.value.is_some() && end.since(last.time) <= expiry_ns);
    }

    /// Streams that it has a word of.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Nobody in it.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Bytes on the heap, about: nodes of the tree are two thirds full on average.
    pub fn heap_bytes(&self) -> usize {
        self.streams.len().saturating_mul(size_of::<(Identity, Last)>().saturating_mul(3) / 2)
    }

    /// The function of all values; `None` when there is none. Integers stay integers while all are.
    pub fn reading(&self, function: Function) -> Option<Reading> {
        let members = u64::try_from(self.streams.len()).unwrap_or(u64::MAX);
        let values = self.streams.values().filter_map(|last| Some((last.time, last.value?)));
        let (time, first) = values.clone().next()?;
        let best = |wins: fn(f64, f64) -> bool| {
            let better =
                |best: Number, (_, v): (_, Number)| if wins(v.to_f64(), best.to_f64()) { v } else { best };
            values.clone().fold(first, better)
        };
        let value = match function {
            Function::Count => Number::Int(i64::try_from(members).unwrap_or(i64::MAX)),
            Function::Min => best(|v, least| v < least),
            Function::Max => best(|v, greatest| v > greatest),
            Function::Last => {
                values.fold((time, first), |newest, it| if it.0 > newest.0 { it } else { newest }).1
            }
            Function::Sum | Function::Avg => {
                let mut sum = Amount::default();
                values.for_each(|(_, v)| sum.add(v));
                sum.number().unwrap_or_else(|| Number::Double(sum.to_f64()))
            }
        };
        let is_double = self.streams.values().any(|last| matches!(last.value, Some(Number::Double(_))));
        let value =
            if is_double && function != Function::Count { Number::Double(value.to_f64()) } else { value };
        Some(Reading { value, members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(values: &[(u128, u64, Number)]) -> Level {
        let mut level = Level::default();
        values
            .iter()
            .for_each(|(id, time, v)| assert!(level.note(Identity(*id), UnixNanos(*time), Some(*v))));
        level
    }

    fn value(level: &Level, function: Function) -> Number {
        level.reading(function).unwrap().value
    }

    #[test]
    fn functions() {
        use Number::{Double, Int};
        let ints = level(&[(1, 10, Int(5)), (2, 12, Int(-3)), (3, 11, Int(9))]);
        for (function, expected) in [
            (Function::Sum, Int(11)),
            (Function::Avg, Int(11)),
            (Function::Min, Int(-3)),
            (Function::Max, Int(9)),
            (Function::Last, Int(-3)),
            (Function::Count, Int(3)),
        ] {
            assert_eq!(value(&ints, function), expected, "{function:?}");
        }
        let mixed = level(&[(1, 10, Int(5)), (2, 12, Double(0.5))]);
        assert_eq!((value(&mixed, Function::Sum), value(&mixed, Function::Max)), (Double(5.5), Double(5.0)));
        assert_eq!(Level::default().reading(Function::Count), None, "nobody is no zero");
    }

    #[test]
    fn the_newest_word_counts() {
        let mut l = level(&[(1, 10, Number::Int(5))]);
        assert!(!l.note(Identity(1), UnixNanos(10), Some(Number::Int(7))), "the same time again");
        assert!(l.note(Identity(1), UnixNanos(9), Some(Number::Int(7))), "older: no news, no mistake");
        assert_eq!(value(&l, Function::Sum), Number::Int(5));
        let mut later = level(&[(1, 20, Number::Int(8)), (2, 15, Number::Int(1))]);
        later.merge(&l);
        assert_eq!(value(&later, Function::Sum), Number::Int(9));
        later.note(Identity(1), UnixNanos(20), None);
        later.expire(UnixNanos(25), 10);
        assert_eq!(value(&later, Function::Sum), Number::Int(1), "it ended at its last value's time");
        later.expire(UnixNanos(26), 10);
        assert!(later.is_empty(), "silent for longer than it may");
    }

    #[test]
    fn what_came_and_went_leaves_nothing_behind() {
        let mut l = level(&[(1, 10, Number::Double(1e300)), (2, 10, Number::Double(0.1))]);
        l.note(Identity(1), UnixNanos(11), None);
        l.expire(UnixNanos(12), 10);
        assert_eq!(value(&l, Function::Sum), Number::Double(0.1));
    }
}
