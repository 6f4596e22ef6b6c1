//! The state of one stream and the one question asked of it: what is new in this point (DESIGN §3.2–3.4)?
//!
//! Cumulative: last value, last timestamp, start time. Delta: the last intervals. The answer is an [`Increment`] with the span
//! of time it was gathered over, or a reason for the ledger. Nothing here knows windows or series; a refused point leaves the
//! state as it was.

use crate::amount::Number;
use crate::distribution::Distribution;
use crate::limits::DELTA_INTERVALS;
use crate::units::UnixNanos;

/// One point of a stream, as a record carries it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// `start_time_unix_nano`, 0 when not given.
    pub start: UnixNanos,
    /// `time_unix_nano`.
    pub time: UnixNanos,
    /// The value: a total for cumulative streams, an increment for delta streams.
    pub value: Number,
}

/// What was added between two points in time: `(from, to]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Increment<A = Number> {
    /// How much.
    pub amount: A,
    /// Gathered after this time …
    pub from: UnixNanos,
    /// … up to this one.
    pub to: UnixNanos,
    /// The stream restarted: the amount counts from its new start.
    pub reset: bool,
}

/// Why a point adds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// First point of a stream that may be older than our watch: it only sets where to count from.
    Baseline,
    /// Not newer than the last point of a cumulative stream, or of an incarnation that has been replaced.
    OutOfOrder,
    /// A delta interval that was seen before.
    Duplicate,
    /// A delta interval that overlaps a seen one without being equal: adding it would count something twice.
    Overlap,
}

/// State of a cumulative stream: 32 bytes, so that with its identity and its part of the index it stays below 64
/// (`docs/decisions/0002-stream-table.md`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Cumulative {
    value_bits: u64,
    time: UnixNanos,
    start: UnixNanos,
    /// Slot of the series in the low 30 bits; the top bit says that the value is a double, the next that the stream has ended.
    series_and_kind: u32,
    /// When a point last came, in whole seconds since the owner began.
    pub touched_s: u32,
}

const KIND_DOUBLE: u32 = 1 << 31;
const ENDED: u32 = 1 << 30;
const SLOT: u32 = ENDED - 1;

/// What is known about a stream that was never seen, or that was forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// When this owner began to watch, by the embedder's clock.
    pub began: UnixNanos,
    /// When the point arrived, by the same clock.
    pub arrived: UnixNanos,
    /// Allowance for the time a point needs from its exporter to us.
    pub margin_ns: u64,
    /// Newest timestamp of any stream that was forgotten: a stream that started before it may be one of those (a tombstone
    /// for all of them at once: exact for returning streams, since a stream starts before its last point).
    pub forgotten: UnixNanos,
}

impl Watch {
    /// Was a stream with this first point certainly born while we watched, and is it certainly not one that we forgot?
    /// Differences on each clock, so that the two clocks need not agree.
    pub fn saw_birth_of(&self, p: &Observation) -> bool {
        p.start.is_given()
            && p.time.since(p.start) < self.arrived.since(self.began).saturating_sub(self.margin_ns)
            && p.start > self.forgotten
    }
}

impl Cumulative {
    /// State after the first point, and what that point adds.
    pub fn first(p: &Observation, watch: &Watch, series: u32) -> (Cumulative, Result<Increment, Nothing>) {
        let mut state = Cumulative {
            value_bits: 0,
            time: p.time,
            start: p.start,
            series_and_kind: series & SLOT,
            touched_s: 0,
        };
        state.set_value(p.value);
        if watch.saw_birth_of(p) {
            (state, Ok(Increment { amount: p.value, from: p.start, to: p.time, reset: false }))
        } else {
            (state, Err(Nothing::Baseline))
        }
    }

    /// A further point: what does it add?
    pub fn next(&mut self, p: &Observation) -> Result<Increment, Nothing> {
        let restarted = self.admit(p)?;
        let last = Number::from_bits(self.series_and_kind & KIND_DOUBLE != 0, self.value_bits);
        let grown = if restarted { None } else { growth(last, p.value) };
        let increment = self.increment(p, grown, || p.value);
        self.settle(p);
        Ok(increment)
    }

    /// Is it newer than the last point? Then: did the stream restart in between, by what it says of its start?
    fn admit(&self, p: &Observation) -> Result<bool, Nothing> {
        let restarted = p.start > self.start && self.start.is_given();
        let older_incarnation = p.start.is_given() && p.start < self.start;
        if p.time <= self.time || older_incarnation { Err(Nothing::OutOfOrder) } else { Ok(restarted) }
    }

    /// What a newer point adds: what it has grown by, or after a restart all of it.
    fn increment<A>(&self, p: &Observation, grown: Option<A>, all: impl FnOnce() -> A) -> Increment<A> {
        match grown {
            Some(amount) => Increment { amount, from: self.time, to: p.time, reset: false },
            None => {
                // Counted from zero since the restart; where that lies is known only if the new start says so.
                let from = if p.start > self.time && p.start < p.time { p.start } else { self.time };
                Increment { amount: all(), from, to: p.time, reset: true }
            }
        }
    }

    /// A point that went to the upstream raw, because the owner was behind: count on from it, add nothing.
    pub fn carried(&mut self, p: &Observation) {
        let older_incarnation = p.start.is_given() && p.start < self.start;
        if p.time > self.time && !older_incarnation {
            self.settle(p);
        }
    }

    fn settle(&mut self, p: &Observation) {
        self.set_value(p.value);
        self.time = p.time;
        if p.start.is_given() {
            self.start = p.start;
        }
    }

    fn set_value(&mut self, value: Number) {
        let (double, bits) = value.to_bits();
        self.value_bits = bits;
        self.series_and_kind = (self.series_and_kind & !KIND_DOUBLE) | if double { KIND_DOUBLE } else { 0 };
    }

    /// Slot of the series that this stream folds into.
    pub fn series(&self) -> u32 {
        self.series_and_kind & SLOT
    }

    /// Fold into another series from now on.
    pub fn set_series(&mut self, series: u32) {
        self.series_and_kind = (self.series_and_kind & !SLOT) | (series & SLOT);
    }

    /// The stream says that it has ended at `time`. Says whether that is news.
    pub fn end(&mut self, time: UnixNanos) -> bool {
        let news = time >= self.time && !self.has_ended();
        if news {
            self.series_and_kind |= ENDED;
        }
        news
    }

    /// Did it say that it has ended, and nothing since?
    pub fn has_ended(&self) -> bool {
        self.series_and_kind & ENDED != 0
    }

    /// It goes on after all.
    pub fn revive(&mut self) {
        self.series_and_kind &= !ENDED;
    }

    /// Timestamp of the last point.
    pub fn last(&self) -> UnixNanos {
        self.time
    }
}

/// State of a cumulative stream of distributions: times as [`Cumulative`] has them, and its last point as an atom.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Times, series, and whether it has ended; its value is not used.
    pub line: Cumulative,
    atom: Box<[u8]>,
}

impl Snapshot {
    /// State after the first point, and what that point adds.
    pub fn first(
        p: &Observation,
        atom: &[u8],
        it: Distribution,
        watch: &Watch,
        series: u32,
    ) -> (Snapshot, Result<Increment<Distribution>, Nothing>) {
        let (line, first) = Cumulative::first(p, watch, series);
        let first = first.map(|i| Increment { amount: it, from: i.from, to: i.to, reset: i.reset });
        (Snapshot { line, atom: atom.into() }, first)
    }

    /// A further point, which `it` is read of: what does it add?
    pub fn next(
        &mut self,
        p: &Observation,
        atom: &[u8],
        it: Distribution,
    ) -> Result<Increment<Distribution>, Nothing> {
        let restarted = self.line.admit(p)?;
        // An own atom that cannot be read would be a defect; it counts as a restart and not as a trap.
        let last = Distribution::read(&self.atom).ok().filter(|_| !restarted);
        let grown = last.and_then(|last| it.since(&last));
        let increment = self.line.increment(p, grown, || it);
        self.settle(p, atom);
        Ok(increment)
    }

    /// A point that went to the upstream raw: count on from it, add nothing.
    pub fn carried(&mut self, p: &Observation, atom: &[u8]) {
        if self.line.admit(p).is_ok() {
            self.settle(p, atom);
        }
    }

    fn settle(&mut self, p: &Observation, atom: &[u8]) {
        self.line.settle(p);
        if self.atom.len() == atom.len() {
            self.atom.copy_from_slice(atom);
        } else {
            self.atom = atom.into();
        }
    }

    /// Bytes on the heap, with the allocator's own.
    pub fn heap_bytes(&self) -> usize {
        self.atom.len().saturating_add(16)
    }
}

/// What a stream of a level needs to be found by: the values stand with its series.
#[derive(Clone, Copy, Debug, Default)]
pub struct Membership {
    /// Slot of the series that it is a member of.
    pub series: u32,
    /// When a point last came, in whole seconds since the owner began.
    pub touched_s: u32,
}

/// `new - old`, or `None` when the value fell.
fn growth(old: Number, new: Number) -> Option<Number> {
    match (old, new) {
        (Number::Int(a), Number::Int(b)) => (b >= a).then(|| b.checked_sub(a)).flatten().map(Number::Int),
        (a, b) => {
            let (a, b) = (a.to_f64(), b.to_f64());
            (b >= a).then_some(Number::Double(b - a))
        }
    }
}

/// State of a delta stream: its last intervals, newest overwriting oldest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta {
    seen: [(UnixNanos, UnixNanos); DELTA_INTERVALS],
    written: u32,
    /// Slot of the series that this stream folds into.
    pub series: u32,
    /// When a point last came, in whole seconds since the owner began.
    pub touched_s: u32,
}

impl Delta {
    /// State of a stream that was never seen: every interval is new.
    pub fn new(series: u32) -> Delta {
        Delta { seen: [(UnixNanos(0), UnixNanos(0)); DELTA_INTERVALS], written: 0, series, touched_s: 0 }
    }

    /// A point: what does it add? Order does not matter (exporters send batches concurrently), repetition does.
    pub fn next(&mut self, p: &Observation) -> Result<Increment, Nothing> {
        let from = if p.start.is_given() { p.start.min(p.time) } else { p.time };
        let known = usize::try_from(self.written).unwrap_or(DELTA_INTERVALS).min(DELTA_INTERVALS);
        for &(a, b) in self.seen.iter().take(known) {
            if a == from && b == p.time {
                return Err(Nothing::Duplicate);
            }
            if from < b && a < p.time {
                return Err(Nothing::Overlap);
            }
        }
        let at = usize::try_from(self.written).unwrap_or(0) & DELTA_INTERVALS.wrapping_sub(1);
        if let Some(slot) = self.seen.get_mut(at) {
            *slot = (from, p.time);
        }
        // Keeps counting modulo the ring once the ring is full.
        self.written = self.written.checked_add(1).unwrap_or(DELTA_INTERVALS as u32);
        Ok(Increment { amount: p.value, from, to: p.time, reset: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(start: u64, time: u64, value: i64) -> Observation {
        Observation { start: UnixNanos(start), time: UnixNanos(time), value: Number::Int(value) }
    }

    /// A cumulative stream fed `start,time,value` triples; the answers as text. `B` baseline, `O` out of order, `n` increment,
    /// `n r` after a reset, each with its span.
    fn check(points: &[(u64, u64, i64)], expect: &str) {
        let watch =
            Watch { began: UnixNanos(0), arrived: UnixNanos(0), margin_ns: 0, forgotten: UnixNanos(0) };
        let mut state: Option<Cumulative> = None;
        let mut got = Vec::new();
        for &(s, t, v) in points {
            let r = match &mut state {
                None => {
                    let (st, r) = Cumulative::first(&p(s, t, v), &watch, 0);
                    state = Some(st);
                    r
                }
                Some(st) => st.next(&p(s, t, v)),
            };
            got.push(match r {
                Ok(i) => {
                    let Number::Int(n) = i.amount else { panic!() };
                    format!("{n}@{}-{}{}", i.from.0, i.to.0, if i.reset { "r" } else { "" })
                }
                Err(Nothing::Baseline) => "B".into(),
                Err(Nothing::OutOfOrder) => "O".into(),
                Err(e) => format!("{e:?}"),
            });
        }
        assert_eq!(got.join(" "), expect);
    }

    #[test]
    fn cumulative() {
        check(&[(1, 10, 5), (1, 20, 8)], "B 3@10-20");
        check(&[(1, 10, 5), (1, 20, 5)], "B 0@10-20");
        check(&[(1, 10, 5), (1, 20, 2)], "B 2@10-20r"); // fell: reset, place unknown
        check(&[(1, 10, 5), (15, 20, 9)], "B 9@15-20r"); // start advanced: reset although it grew
        check(&[(1, 10, 5), (8, 20, 9)], "B 9@10-20r"); // a new start before the last point: the span begins at the last point
        check(&[(1, 10, 5), (1, 10, 5)], "B O"); // repeated
        check(&[(1, 10, 5), (1, 20, 8), (1, 15, 6), (1, 30, 9)], "B 3@10-20 O 1@20-30"); // late is no reset
        check(&[(5, 10, 5), (1, 20, 900)], "B O"); // an older incarnation speaks up: never counted
        check(&[(0, 10, 5), (0, 20, 7)], "B 2@10-20"); // no start times at all
        check(&[(0, 10, 5), (7, 20, 7)], "B 2@10-20"); // learning a start is no reset
        check(&[(3, 10, 5), (0, 20, 7), (3, 30, 9)], "B 2@10-20 2@20-30"); // a start that is left out once is no reset
    }

    #[test]
    fn births() {
        let watch = |began, arrived, margin_ns, forgotten| Watch {
            began: UnixNanos(began),
            arrived: UnixNanos(arrived),
            margin_ns,
            forgotten: UnixNanos(forgotten),
        };
        assert!(watch(100, 200, 10, 0).saw_birth_of(&p(150, 160, 1)));
        assert!(!watch(100, 110, 10, 0).saw_birth_of(&p(150, 160, 1)), "as old as our watch");
        assert!(!watch(100, 200, 95, 0).saw_birth_of(&p(150, 160, 1)), "within the margin");
        assert!(!watch(100, 200, 10, 150).saw_birth_of(&p(150, 160, 1)), "may be one that we forgot");
        assert!(!watch(100, 200, 10, 0).saw_birth_of(&p(0, 160, 1)), "no start given");
        // The sender's clock is a day ahead: only differences count.
        assert!(watch(100, 200, 10, 0).saw_birth_of(&p(86_400_150, 86_400_160, 1)));
    }

    #[test]
    fn delta_intervals() {
        let mut d = Delta::new(0);
        assert!(d.next(&p(10, 20, 1)).is_ok());
        assert!(d.next(&p(30, 40, 1)).is_ok());
        assert!(d.next(&p(20, 30, 1)).is_ok(), "reordered");
        assert_eq!(d.next(&p(20, 30, 1)), Err(Nothing::Duplicate));
        assert_eq!(d.next(&p(15, 35, 1)), Err(Nothing::Overlap));
        for k in 4..12 {
            assert!(d.next(&p(k * 10, k * 10 + 10, 1)).is_ok());
        }
        assert!(d.next(&p(10, 20, 1)).is_ok(), "older than the memory: cannot be told from new");
    }

    #[test]
    fn an_int_stream_may_turn_double() {
        let watch =
            Watch { began: UnixNanos(0), arrived: UnixNanos(0), margin_ns: 0, forgotten: UnixNanos(0) };
        let (mut s, _) = Cumulative::first(&p(1, 10, 5), &watch, 0);
        let next = Observation { start: UnixNanos(1), time: UnixNanos(20), value: Number::Double(7.5) };
        assert_eq!(s.next(&next).unwrap().amount, Number::Double(2.5));
    }

    #[test]
    fn sizes() {
        assert_eq!(size_of::<Cumulative>(), 32);
        assert_eq!(size_of::<Snapshot>(), 32 + 2 * size_of::<usize>());
        assert!(size_of::<Delta>() <= 144);
    }
}
