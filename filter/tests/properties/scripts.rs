//! Senders: from random steps to points in the order of their arrival.
//!
//! Twelve streams: three pods of two routes, cumulative and delta, integers and doubles chosen with the stream. A step lets time pass
//! and one stream says something: it grows, restarts, repeats itself, comes late, or is new with an unknown past.

use crate::oracle::{Kind, Point};
use proptest::prelude::*;
use std::collections::BTreeMap;

pub const S: u64 = 1_000_000_000;
/// When the engine begins to watch.
pub const BEGAN: u64 = 10_000 * S;

/// What a stream says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Say {
    /// The next point.
    Grow,
    /// Starts anew with a new start time: what it says counts from zero.
    Restart,
    /// Falls without a new start time, as a sender without start times does.
    Fall,
    /// Its last point once more.
    Repeat,
    /// Something from before its last point.
    Old,
    /// An interval that began before its last point ended; for cumulative streams the next point without a start time.
    Overlap,
}

/// One step of a script.
#[derive(Clone, Debug)]
pub struct Step {
    pub wait_ms: u64,
    pub pod: u8,
    pub route: u8,
    pub kind: Kind,
    pub double: bool,
    pub say: Say,
    pub amount: u32,
}

/// Up to `steps_max` steps.
pub fn script(steps_max: usize) -> impl Strategy<Value = Vec<Step>> {
    let say = prop_oneof![
        8 => Just(Say::Grow),
        1 => Just(Say::Restart),
        1 => Just(Say::Fall),
        1 => Just(Say::Repeat),
        1 => Just(Say::Old),
        1 => Just(Say::Overlap),
    ];
    let kind = prop_oneof![Just(Kind::Cumulative), Just(Kind::Delta)];
    let amount = prop_oneof![0u32..50, any::<u32>()];
    let step = (0u64..20_000, 0u8..3, 0u8..2, kind, any::<bool>(), say, amount).prop_map(
        |(wait_ms, pod, route, kind, double, say, amount)| Step {
            wait_ms,
            pod,
            route,
            kind,
            double,
            say,
            amount,
        },
    );
    prop::collection::vec(step, 1..steps_max)
}

/// Only what grows: no restart, no repetition, every stream born under watch.
pub fn growing(steps_max: usize) -> impl Strategy<Value = Vec<Step>> {
    script(steps_max).prop_map(|mut steps| {
        steps.iter_mut().for_each(|s| s.say = Say::Grow);
        // The oldest start lies a second before the first point, the watch ten: all are born under it.
        steps[0].wait_ms = 10_000;
        steps
    })
}

#[derive(Clone)]
struct Sender {
    start: u64,
    time: u64,
    value: i128,
    last: Option<Point>,
}

/// The points of a script with their arrival, in order.
pub fn points(steps: &[Step]) -> Vec<(u64, Point)> {
    let mut now = BEGAN;
    let mut senders: BTreeMap<(bool, bool, u8, u8), Sender> = BTreeMap::new();
    let mut list = Vec::new();
    for step in steps {
        now += step.wait_ms * 1_000_000;
        let id = (step.kind == Kind::Delta, step.double, step.pod, step.route);
        let fresh = !senders.contains_key(&id);
        let sender = senders.entry(id).or_insert(Sender {
            // A new stream began a second ago, or long before the watch when it comes by another way than growing.
            start: if step.say == Say::Grow { now - S } else { now - 20_000 * S.min(now / 30_000) },
            time: now - S,
            value: 0,
            last: None,
        });
        let point = speak(sender, step, now, fresh);
        list.push((now, point));
    }
    list
}

fn speak(sender: &mut Sender, step: &Step, now: u64, fresh: bool) -> Point {
    // A hundredth of a second on the way.
    let time = (now - 10_000_000).max(sender.time + 1);
    let amount = i128::from(step.amount);
    let before = sender.clone();
    let mut point = Point {
        stream: (step.pod, step.route),
        kind: step.kind,
        double: step.double,
        start: sender.start,
        time,
        value: amount,
    };
    match step.say {
        Say::Repeat | Say::Old if fresh => {}
        Say::Repeat => return before.last.unwrap_or(point),
        Say::Old => {
            point.time = before.last.map_or(time, |p| p.time.saturating_sub(1 + u64::from(step.amount)));
            point.start = match step.kind {
                Kind::Cumulative => point.start.min(point.time),
                Kind::Delta => point.time - S,
            };
            return point;
        }
        _ => {}
    }
    match step.kind {
        Kind::Cumulative => {
            match step.say {
                Say::Restart => (sender.start, sender.value) = (time - (time - sender.time) / 2, 0),
                Say::Fall => sender.value /= 2,
                _ => {}
            }
            sender.value += if step.say == Say::Fall { 0 } else { amount };
            point.value = sender.value;
            point.start = if step.say == Say::Overlap { 0 } else { sender.start };
        }
        Kind::Delta => {
            point.start = match step.say {
                Say::Overlap => sender.time - 1,
                Say::Fall => 0,
                _ => sender.time,
            };
        }
    }
    sender.time = time;
    sender.last = Some(point.clone());
    point
}
