//! Units as types, so that two numbers of different meaning cannot swap places unnoticed.

use core::fmt;

/// A point in time: nanoseconds since the Unix epoch. 0 means "not given", as in OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// Time from `earlier` to `self` in nanoseconds, 0 when `earlier` is not earlier.
    pub fn since(self, earlier: UnixNanos) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` plus `ns` nanoseconds, stopping at the end of time.
    pub fn plus(self, ns: u64) -> UnixNanos {
        UnixNanos(self.0.saturating_add(ns))
    }

    /// `self` minus `ns` nanoseconds, stopping at the epoch.
    pub fn minus(self, ns: u64) -> UnixNanos {
        UnixNanos(self.0.saturating_sub(ns))
    }

    /// Is this a time at all (OTLP writes 0 for "not given")?
    pub fn is_given(self) -> bool {
        self.0 != 0
    }
}

/// Since when a fold is in force, by the worker's clock; the epoch: since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// What a stream counted before is not counted from zero.
    pub at: UnixNanos,
    /// A stream that was not heard of since then was raw when it came into force, and is not counted on.
    pub heard: UnixNanos,
}

impl Since {
    /// Some may have folded by other rules until then: who was heard of within a window and its delay before (`patience_ns`) did.
    pub fn after(at: UnixNanos, patience_ns: u64) -> Since {
        Since { at, heard: at.minus(patience_ns) }
    }

    /// The later of each.
    pub fn max(self, other: Since) -> Since {
        Since { at: self.at.max(other.at), heard: self.heard.max(other.heard) }
    }
}

impl fmt::Display for UnixNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
