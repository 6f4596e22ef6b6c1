//! Aligned windows of event time, and how an increment is split over those that it spans (DESIGN §3.6).
//!
//! A window is `[k·w + o, (k+1)·w + o)` for an offset `o` below its width; an increment observed between `t0` and `t1` belongs to the half-open span `(t0, t1]` and is
//! spread over it in proportion to time. The running share is rounded down, so every prefix of the windows holds less than one
//! unit too little, the parts add up to the increment exactly, and what is left over falls to the last window. Rounding each
//! part down on its own would move up to one unit per window to the end of the span; folding at arrival (what is usually
//! shipped) moves all of it. Doubles: the same, and the last part is the increment minus the others.
//!
//! Cost: one step per *open* window that the span touches; everything before the closed boundary is one part.

use crate::amount::Number;
use crate::limits::OPEN_WINDOWS_MAX;
use crate::units::UnixNanos;

/// The windows of one rule: width, offset and delay, all in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Windows {
    /// Span of event time.
    pub width_ns: u64,
    /// Distance of their beginnings from the multiples of the width, less than a width.
    pub offset_ns: u64,
    /// How long after its end a window waits.
    pub delay_ns: u64,
}

/// An increment that is given out in parts, in order of time.
pub trait Running {
    /// What a part is.
    type Part;

    /// The part that belongs to the time since the last call, when `elapsed_ns` of the span have passed.
    fn up_to(&mut self, elapsed_ns: u64) -> Self::Part;

    /// What is left.
    fn rest(&mut self) -> Self::Part;
}

/// One part of a split increment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part<A = Number> {
    /// Start of the window that receives it.
    pub window: UnixNanos,
    /// The amount.
    pub amount: A,
    /// Its own window had closed: it joined the oldest open one.
    pub late: bool,
}

impl Windows {
    /// Start of the window that holds `t`; before the first one, the epoch.
    pub fn start_of(&self, t: UnixNanos) -> UnixNanos {
        let to_grid_ns = self.width_ns.saturating_sub(self.offset_ns);
        t.minus(t.plus(to_grid_ns).0.checked_rem(self.width_ns).unwrap_or(0))
    }

    /// Start of the first window that begins at `t` or after it.
    pub fn start_at_or_after(&self, t: UnixNanos) -> UnixNanos {
        self.start_of(t.plus(self.width_ns.saturating_sub(1)))
    }

    /// End (exclusive) of the window that starts at `start`.
    pub fn end_of(&self, start: UnixNanos) -> UnixNanos {
        start.plus(self.width_ns)
    }

    /// When the window that starts at `start` closes by the embedder's clock.
    pub fn closes_at(&self, start: UnixNanos) -> UnixNanos {
        self.end_of(start).plus(self.delay_ns)
    }

    /// Every window that starts before the returned time has closed at `now`.
    pub fn closed_before(&self, now: UnixNanos) -> UnixNanos {
        self.start_of(now.minus(self.delay_ns))
    }

    /// Whole windows in a span. Nearly always none or one: divisions are dear.
    fn whole(&self, span_ns: u64) -> u64 {
        match span_ns.checked_sub(self.width_ns) {
            None => 0,
            Some(rest) if rest < self.width_ns => 1,
            Some(_) => span_ns.checked_div(self.width_ns).unwrap_or(0),
        }
    }

    /// Split an increment, observed over `(from, to]`, into parts in order of time. `given` has given out nothing of it yet, over a
    /// span of `to − from`. `boundary` is the start of the oldest open window: what would fall before it joins that window and is late.
    #[inline]
    pub fn split<R: Running>(
        &self,
        mut given: R,
        from: UnixNanos,
        to: UnixNanos,
        boundary: UnixNanos,
        mut part: impl FnMut(Part<R::Part>),
    ) {
        // An observation at exactly the end of a window ends the span before it.
        let newest = to.minus(1);
        let ahead = self.whole(newest.since(boundary));
        // A point from so far ahead comes from under a clock that was wrong: nothing is spread over an age.
        if newest < boundary || ahead > OPEN_WINDOWS_MAX as u64 {
            part(Part { window: boundary, amount: given.rest(), late: true });
            return;
        }
        let last = boundary.plus(ahead.saturating_mul(self.width_ns));
        let from = from.min(to);
        if from >= last {
            part(Part { window: last, amount: given.rest(), late: false });
            return;
        }
        // Whole windows count from the boundary on.
        let before = from < boundary;
        let behind = self.whole(from.since(boundary));
        let first = boundary.plus(behind.saturating_mul(self.width_ns));
        let mut window = first;
        if before {
            let closed = given.up_to(boundary.since(from));
            part(Part { window, amount: closed, late: true });
        }
        while window < last {
            let end = self.end_of(window);
            part(Part { window, amount: given.up_to(end.since(from)), late: false });
            window = end;
        }
        part(Part { window: last, amount: given.rest(), late: false });
    }
}

/// The running share of a number: how much has been given out.
pub struct Share {
    whole: Number,
    span_ns: u64,
    given_int: i64,
    given_double: f64,
}

impl Share {
    /// Nothing of `whole`, gathered over `span_ns`, has been given out.
    #[inline]
    pub fn new(whole: Number, span_ns: u64) -> Share {
        Share { whole, span_ns: span_ns.max(1), given_int: 0, given_double: 0.0 }
    }
}

impl Running for Share {
    type Part = Number;

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "floating point, and i128 products of two 64-bit values"
    )]
    fn up_to(&mut self, elapsed_ns: u64) -> Number {
        let elapsed_ns = elapsed_ns.min(self.span_ns);
        match self.whole {
            Number::Int(whole) => {
                let so_far = match u64::try_from(whole).ok().and_then(|w| w.checked_mul(elapsed_ns)) {
                    // Nearly always: a division of 128 bits costs several times as much.
                    Some(product) => {
                        i64::try_from(product.checked_div(self.span_ns).unwrap_or(0)).unwrap_or(whole)
                    }
                    None => {
                        let product = i128::from(whole) * i128::from(elapsed_ns);
                        let so_far = product.checked_div(i128::from(self.span_ns)).unwrap_or(0);
                        i64::try_from(so_far).unwrap_or(whole)
                    }
                };
                let part = so_far.saturating_sub(self.given_int);
                self.given_int = so_far;
                Number::Int(part)
            }
            Number::Double(whole) => {
                let so_far = whole * (elapsed_ns as f64 / self.span_ns as f64);
                let part = so_far - self.given_double;
                self.given_double += part;
                Number::Double(part)
            }
        }
    }

    #[inline]
    fn rest(&mut self) -> Number {
        match self.whole {
            Number::Int(whole) => Number::Int(whole.saturating_sub(self.given_int)),
            Number::Double(whole) => Number::Double(whole - self.given_double),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    /// `windows width delay`, increment, span, boundary → `start:amount` per part, `!` marks a late one. All times in seconds.
    fn check(width: u64, amount: i64, from: u64, to: u64, boundary: u64, expect: &str) {
        let w = Windows { width_ns: width * S, offset_ns: 0, delay_ns: 0 };
        let mut got = Vec::new();
        let given = Share::new(Number::Int(amount), to.saturating_sub(from) * S);
        w.split(given, UnixNanos(from * S), UnixNanos(to * S), UnixNanos(boundary * S), |p| {
            let Number::Int(v) = p.amount else { panic!("an integer became a double") };
            got.push(format!("{}:{v}{}", p.window.0 / S, if p.late { "!" } else { "" }));
        });
        assert_eq!(got.join(" "), expect);
    }

    #[test]
    fn splits() {
        check(10, 60, 0, 60, 0, "0:10 10:10 20:10 30:10 40:10 50:10");
        check(10, 7, 3, 9, 0, "0:7"); // inside one window
        check(10, 10, 5, 15, 0, "0:5 10:5");
        check(10, 10, 0, 10, 0, "0:10"); // an observation at the end of a window ends that window
        check(10, 10, 10, 20, 0, "10:10");
        check(10, 3, 0, 40, 0, "0:0 10:1 20:1 30:1"); // running share rounded down, the rest last
        check(10, 1, 0, 40, 0, "0:0 10:0 20:0 30:1");
        check(10, 0, 0, 30, 0, "0:0 10:0 20:0"); // zero increments still say "alive"
        check(10, 60, 0, 60, 30, "30:30! 30:10 40:10 50:10"); // closed windows: one late part
        check(10, 60, 0, 60, 90, "90:60!"); // all of it late
        check(10, 60, 0, 60, 60, "60:60!");
        check(10, 5, 20, 20, 0, "10:5"); // no span: the window of the point
        check(10, 5, 30, 20, 0, "10:5"); // a span that runs backwards is no span
        check(15, 60, 7, 67, 0, "0:8 15:15 30:15 45:15 60:7");
        check(1, 7, 0, 10_000, 0, "0:7!"); // a clock that was days ahead: not a window each
    }

    #[test]
    fn closing() {
        let w = Windows { width_ns: 10 * S, offset_ns: 0, delay_ns: 30 * S };
        assert_eq!(w.closes_at(UnixNanos(20 * S)), UnixNanos(60 * S));
        assert_eq!(w.closed_before(UnixNanos(60 * S - 1)), UnixNanos(20 * S));
        assert_eq!(w.closed_before(UnixNanos(60 * S)), UnixNanos(30 * S));
        assert_eq!(w.closed_before(UnixNanos(0)), UnixNanos(0));
    }

    #[test]
    fn off_the_grid() {
        let w = Windows { width_ns: 10 * S, offset_ns: 4 * S, delay_ns: 30 * S };
        for (t, start) in [(23, 14), (24, 24), (33, 24), (34, 34), (4, 4), (3, 0)] {
            assert_eq!(w.start_of(UnixNanos(t * S)), UnixNanos(start * S), "{t}");
        }
        assert_eq!(w.start_at_or_after(UnixNanos(25 * S)), UnixNanos(34 * S));
        assert_eq!(w.closed_before(UnixNanos(63 * S)), UnixNanos(24 * S));
        assert_eq!(w.closed_before(UnixNanos(64 * S)), UnixNanos(34 * S));
    }

    proptest! {
        /// Parts add up, are in order, open, and no prefix is off by a unit or more.
        #[test]
        fn split_conserves(amount in any::<i64>(), from in 0u64..10_000, len in 0u64..2_000, width in 1u64..100, boundary in 0u64..10_000) {
            let w = Windows { width_ns: width * S, offset_ns: 0, delay_ns: 0 };
            let boundary = w.start_of(UnixNanos(boundary * S));
            let (from, to) = (UnixNanos(from * S), UnixNanos((from + len) * S));
            let mut sum = 0i128;
            let mut last = 0;
            w.split(Share::new(Number::Int(amount), len * S), from, to, boundary, |p| {
                let Number::Int(v) = p.amount else { panic!() };
                assert!(p.window >= boundary && p.window.0 >= last, "out of order or closed");
                last = p.window.0;
                sum += i128::from(v);
                if !p.late && len > 0 {
                    let elapsed = i128::from(w.end_of(p.window).min(to).since(from));
                    let exact = i128::from(amount) * elapsed;
                    let off = exact - sum * i128::from(len * S);
                    assert!(off.abs() < i128::from(len * S), "prefix off by a unit");
                }
            });
            prop_assert_eq!(sum, i128::from(amount));
        }

        #[test]
        fn split_of_doubles_conserves(amount in 0.0f64..1e15, from in 0u64..10_000, len in 0u64..2_000, width in 1u64..100) {
            let w = Windows { width_ns: width * S, offset_ns: 0, delay_ns: 0 };
            let mut sum = crate::amount::Amount::default();
            w.split(Share::new(Number::Double(amount), len * S), UnixNanos(from * S), UnixNanos((from + len) * S), UnixNanos(0), |p| sum.add(p.amount));
            prop_assert!((sum.to_f64() - amount).abs() <= amount * 1e-12);
        }
    }
}
