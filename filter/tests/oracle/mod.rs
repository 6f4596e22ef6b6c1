//! The fold again, in plain code, from DESIGN's rules and without a line of the engine: the oracle of `properties.rs`.
//!
//! In: points in the order of their arrival. Out: for each folded series and window the increment as an exact fraction, and what
//! became of every point. Maps, no hashing, no limits, no encoding; integers are i128, doubles are turned into fractions of 2^-20,
//! which the tests' doubles all are. Windows never close here: a test that closes some says what it expects of late points.

use std::collections::BTreeMap;

/// Temporality of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Totals.
    Cumulative,
    /// Increments.
    Delta,
}

/// A point as a sender sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The stream: pod (folded away) and route (kept).
    pub stream: (u8, u8),
    /// Temporality.
    pub kind: Kind,
    /// As a double? Then `value` counts in units of 2^-20.
    pub double: bool,
    /// Nanoseconds; 0 for none.
    pub start: u64,
    /// Nanoseconds.
    pub time: u64,
    /// Units.
    pub value: i128,
}

/// A folded series.
pub type SeriesKey = (Kind, bool, u8);

/// What became of the points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Joined a series.
    pub folded: u64,
    /// Of these: after a restart.
    pub resets: u64,
    /// First points of streams that may be older than the watch.
    pub baselines: u64,
    /// Not newer than the last point.
    pub out_of_order: u64,
    /// Delta intervals seen before.
    pub duplicates: u64,
    /// Delta intervals that overlap a seen one.
    pub overlaps: u64,
}

/// Who a stream is: double, pod, route.
type Stream = (bool, (u8, u8));

/// State of a cumulative stream.
struct Last {
    start: u64,
    time: u64,
    value: i128,
}

/// The fold.
pub struct Oracle {
    began: u64,
    width: u64,
    cumulative: BTreeMap<Stream, Last>,
    /// Every interval of a delta stream that counted, in order.
    delta: BTreeMap<Stream, Vec<(u64, u64)>>,
    /// Increments of each series as spans `(from, to]` with amounts.
    pub increments: BTreeMap<SeriesKey, Vec<(u64, u64, i128)>>,
    /// The books.
    pub counts: Counts,
}

impl Oracle {
    /// Watching since `began`, windows of `width`, both in nanoseconds; no margin.
    pub fn new(began: u64, width: u64) -> Oracle {
        Oracle {
            began,
            width,
            cumulative: BTreeMap::new(),
            delta: BTreeMap::new(),
            increments: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// A point that arrived at `arrived`.
    pub fn take(&mut self, p: &Point, arrived: u64) {
        let found = match p.kind {
            Kind::Cumulative => self.take_total(p, arrived),
            Kind::Delta => self.take_interval(p),
        };
        if let Some(increment) = found {
            self.counts.folded += 1;
            self.increments.entry((p.kind, p.double, p.stream.1)).or_default().push(increment);
        }
    }

    fn take_total(&mut self, p: &Point, arrived: u64) -> Option<(u64, u64, i128)> {
        let key = (p.double, p.stream);
        let Some(last) = self.cumulative.get(&key) else {
            self.cumulative.insert(key, Last { start: p.start, time: p.time, value: p.value });
            if p.start != 0 && p.time - p.start < arrived - self.began {
                return Some((p.start, p.time, p.value));
            }
            self.counts.baselines += 1;
            return None;
        };
        if p.time <= last.time || (p.start != 0 && p.start < last.start) {
            self.counts.out_of_order += 1;
            return None;
        }
        let reset = (p.start > last.start && last.start != 0) || p.value < last.value;
        // After a restart the new value counts; since when, only a start after the last point can say.
        let from = if reset && p.start > last.time && p.start < p.time { p.start } else { last.time };
        let amount = if reset { p.value } else { p.value - last.value };
        let start = if p.start == 0 { last.start } else { p.start };
        self.counts.resets += u64::from(reset);
        self.cumulative.insert(key, Last { start, time: p.time, value: p.value });
        Some((from, p.time, amount))
    }

    fn take_interval(&mut self, p: &Point) -> Option<(u64, u64, i128)> {
        let from = if p.start == 0 { p.time } else { p.start };
        let seen = self.delta.entry((p.double, p.stream)).or_default();
        let last = &seen[seen.len().saturating_sub(8)..];
        if last.contains(&(from, p.time)) {
            self.counts.duplicates += 1;
            return None;
        }
        if last.iter().any(|(a, b)| from < *b && *a < p.time) {
            self.counts.overlaps += 1;
            return None;
        }
        seen.push((from, p.time));
        Some((from, p.time, p.value))
    }

    /// What a series got in all.
    pub fn total(&self, series: &SeriesKey) -> i128 {
        self.increments.get(series).into_iter().flatten().map(|i| i.2).sum()
    }

    /// The parts of one increment by start of window, with running shares rounded down to whole units when `whole`; otherwise
    /// as fractions over the length of the span.
    pub fn split(&self, (from, to, amount): (u64, u64, i128), whole: bool) -> Vec<(u64, Fraction)> {
        let last = (to - 1) / self.width * self.width;
        let mut window = from / self.width * self.width;
        if window >= last {
            return vec![(last, Fraction { over: 1, amount })];
        }
        let span = i128::from(to - from);
        let (mut parts, mut given) = (Vec::new(), 0);
        while window <= last {
            // What had been gathered when this window ended, times the span.
            let end = i128::from((window + self.width).min(to) - from);
            let so_far = if whole { amount * end / span * span } else { amount * end };
            parts.push((window, Fraction { over: span, amount: so_far - given }));
            given = so_far;
            window += self.width;
        }
        parts
    }

    /// Windows of a series: start and increment. Integers exact; doubles as the nearest double of each exact fraction, summed.
    pub fn windows(&self, series: &SeriesKey) -> BTreeMap<u64, f64> {
        let mut windows: BTreeMap<u64, f64> = BTreeMap::new();
        for increment in self.increments.get(series).into_iter().flatten() {
            for (window, part) in self.split(*increment, !series.1) {
                *windows.entry(window).or_default() += part.to_f64();
            }
        }
        windows
    }
}

/// `amount / over`, exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fraction {
    /// Denominator.
    pub over: i128,
    /// Numerator.
    pub amount: i128,
}

impl Fraction {
    /// The nearest double, near enough: whole part and rest apart.
    pub fn to_f64(self) -> f64 {
        (self.amount / self.over) as f64 + (self.amount % self.over) as f64 / self.over as f64
    }
}
