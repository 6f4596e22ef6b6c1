//! Small cases with a known truth.
//!
//! In: nothing. Out: [`Case`]s, each a metric of its own with the points of its streams and what they increased by in truth. All of them run at once, on the
//! wall clock, an export every [`TICK`]; `pod` is folded away. A truth is what the streams counted while they were watched: the increase of one that is
//! older than the run from its first sample on, all of one that was born in the run.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The export interval: as long as a window, and that the shortest that both allow.
pub const TICK: Duration = Duration::from_secs(1);
/// The last tick of a case.
pub const LAST: u32 = 8;
/// When streams are born, or join: later than either needs to trust a first sample.
const JOIN: u32 = 6;
/// When streams restart: the first tick after.
const RESTART: u32 = 4;
/// The start of a stream that is an hour old.
pub const HOUR_AGO: f64 = -3600.0;

/// A point. Times are in ticks since the first.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The tick in which it is sent.
    pub sent: u32,
    /// Over which connection.
    pub sender: usize,
    /// Start time.
    pub start: f64,
    /// Time.
    pub time: f64,
    /// The value; of a histogram the unit of its counts.
    pub value: u64,
}

/// One stream.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The label that is folded away.
    pub pod: &'static str,
    /// Its points in the order in which they are sent.
    pub points: Vec<Point>,
}

/// What the metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A cumulative monotonic sum.
    Cumulative,
    /// A delta monotonic sum.
    Delta,
    /// A cumulative histogram with the bounds 1 and 5. A value of `v` is `v`, `2v` and `3v` observations in its three buckets, of sum `10v`.
    Histogram,
}

/// A metric of its own.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name in figures.
    pub name: &'static str,
    /// What happens, for people.
    pub says: &'static str,
    /// What the metric is.
    pub kind: Kind,
    /// Its streams.
    pub streams: Vec<Stream>,
    /// By how much they increased together, in units of [`Point::value`].
    pub increase: u64,
}

impl Case {
    /// The name of its metric.
    pub fn metric(&self) -> String {
        match self.kind {
            // vmagent is told by name which metrics are delta: what it folds has lost that.
            Kind::Delta => format!("case.delta.{}", self.name),
            Kind::Cumulative | Kind::Histogram => format!("case.{}", self.name),
        }
    }

    /// What its increase is: a number, or of a histogram the count, the sum, and how many were not above each bound.
    pub fn truth(&self) -> Vec<f64> {
        let one = self.increase as f64;
        match self.kind {
            Kind::Histogram => [6.0, 10.0, 1.0, 3.0, 6.0].map(|times| times * one).to_vec(),
            Kind::Cumulative | Kind::Delta => vec![one],
        }
    }
}

/// A stream that exports on time over the first connection.
fn stream(pod: &'static str, start: f64, ticks: RangeInclusive<u32>, value: impl Fn(u32) -> u32) -> Stream {
    let point = |t: u32| Point { sent: t, sender: 0, start, time: t.into(), value: value(t).into() };
    Stream { pod, points: ticks.map(point).collect() }
}

/// An hour old, 5 a tick.
fn old(pod: &'static str) -> Stream {
    stream(pod, HOUR_AGO, 0..=LAST, |t| 1_000 + 5 * t)
}

/// What [`old`] increases by.
const OLD: u64 = 5 * LAST as u64;
/// What a stream that comes at [`JOIN`] with 2 a tick increases by after its first sample.
const JOINED: u64 = 2 * (LAST - JOIN) as u64;
/// What [`restarted`] increases by after its first sample since the restart.
const RESTARTED: u64 = 2 * (LAST - RESTART) as u64;

/// All cases that need no restart.
pub fn all() -> Vec<Case> {
    let case = |name, says, kind, streams, increase| Case { name, says, kind, streams, increase };
    let cumulative =
        |name, says, streams, increase| Case { name, says, kind: Kind::Cumulative, streams, increase };
    let born = |pod| stream(pod, f64::from(JOIN) - 0.5, JOIN..=LAST, |t| 7 + 2 * (t - JOIN));
    vec![
        cumulative("steady", "three streams count on", vec![old("a"), old("b"), old("c")], 3 * OLD),
        cumulative(
            "reset",
            "a stream restarts and falls",
            vec![restarted("a", 100, 5, 3)],
            5 * (RESTART as u64 - 1) + 3 + RESTARTED,
        ),
        cumulative(
            "outgrown",
            "a stream restarts and is above its old value at once",
            vec![restarted("a", 10, 0, 25)],
            25 + RESTARTED,
        ),
        cumulative("born", "a stream is born beside an old one", vec![old("a"), born("b")], OLD + 7 + JOINED),
        cumulative("first", "a stream is born, the first of its series", vec![born("a")], 7 + JOINED),
        cumulative("joins", "a stream that is an hour old joins", vec![old("a"), joining("b")], OLD + JOINED),
        cumulative("late", "samples come late, and twice", vec![late("a"), old("b")], 2 * OLD),
        cumulative("workers", "a stream changes workers with each sample", vec![alternating("a")], OLD),
        cumulative("senders", "two senders claim one stream", vec![claimed("a")], 2 * OLD),
        case(
            "delta",
            "delta sums",
            Kind::Delta,
            vec![delta("a", None), delta("b", None)],
            2 * 3 * LAST as u64,
        ),
        case("retried", "a delta is sent twice", Kind::Delta, vec![delta("a", Some(4))], 3 * LAST as u64),
        case("histogram", "buckets of two streams", Kind::Histogram, vec![old("a"), old("b")], 2 * OLD),
    ]
}

/// From `value`, `step` a tick; restarts half a tick before [`RESTART`], and then counts from `again`, 2 a tick.
fn restarted(pod: &'static str, value: u32, step: u32, again: u32) -> Stream {
    let mut stream = stream(pod, HOUR_AGO, 0..=RESTART - 1, |t| value + step * t);
    let after = self::stream(pod, f64::from(RESTART) - 0.5, RESTART..=LAST, |t| again + 2 * (t - RESTART));
    stream.points.extend(after.points);
    stream
}

fn joining(pod: &'static str) -> Stream {
    stream(pod, HOUR_AGO, JOIN..=LAST, |t| 1_000_000 + 2 * (t - JOIN))
}

/// As [`old`], but what was exported at 2 arrives with 4, before it, and what was exported at 5 comes again with 6.
fn late(pod: &'static str) -> Stream {
    let mut stream = old(pod);
    let (late, again) = (stream.points[2], stream.points[5]);
    stream.points.insert(6, Point { sent: 6, ..again });
    stream.points.remove(2);
    stream.points.insert(3, Point { sent: 4, ..late });
    stream
}

fn alternating(pod: &'static str) -> Stream {
    let mut stream = old(pod);
    stream.points.iter_mut().for_each(|point| point.sender = point.sent as usize % 2);
    stream
}

/// Two processes with the same labels, one of them half an hour younger; each exports in every tick over its own connection.
fn claimed(pod: &'static str) -> Stream {
    let points = old(pod).points.into_iter().flat_map(|a| {
        let b = Point { sender: 1, start: HOUR_AGO / 2.0, time: a.time + 0.1, value: a.value - 900, ..a };
        [a, b]
    });
    Stream { pod, points: points.collect() }
}

/// 3 a tick; the one of tick `again` is sent with the next one too.
fn delta(pod: &'static str, again: Option<u32>) -> Stream {
    let mut points = Vec::new();
    for t in 1..=LAST {
        if let Some(again) = again.filter(|again| again + 1 == t) {
            let (start, time) = (f64::from(again) - 1.0, f64::from(again));
            points.push(Point { sent: t, sender: 0, start, time, value: 3 });
        }
        points.push(Point { sent: t, sender: 0, start: f64::from(t) - 1.0, time: t.into(), value: 3 });
    }
    Stream { pod, points }
}

#[cfg(test)]
mod tests {
    use super::super::read::{Sample, Zero, increase};
    use super::*;

    /// The truth of a cumulative case, from its points: each stream read by itself, in order of time.
    #[test]
    fn truths_follow_from_the_points() {
        for case in all().iter().filter(|case| case.kind != Kind::Delta) {
            let read = |stream: &Stream, sender: Option<usize>| {
                let mut points = stream.points.clone();
                points.retain(|point| sender.is_none_or(|sender| point.sender == sender));
                points.sort_by(|a, b| a.time.total_cmp(&b.time));
                // An hour and more are shifted away, so that no time is negative.
                let ns = |ticks: f64| ((ticks - HOUR_AGO) * 10.0) as u64;
                let sample = |p: &Point| Sample {
                    start_ns: Some(ns(p.start)),
                    time_ns: ns(p.time),
                    values: vec![p.value as f64],
                };
                let samples: Vec<Sample> = points.iter().map(sample).collect();
                increase(&samples, Zero::Since(ns(0.0)))[0]
            };
            let sum: f64 = match case.name {
                // What is one stream by its labels are two in truth.
                "senders" => [0, 1].map(|sender| read(&case.streams[0], Some(sender))).iter().sum(),
                _ => case.streams.iter().map(|stream| read(stream, None)).sum(),
            };
            assert_eq!(sum, case.increase as f64, "{}", case.name);
        }
    }
}
