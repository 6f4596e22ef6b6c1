//! One point: what it says, and what it adds.
//!
//! Enters: the state of a stream, a generator, how much traffic it has. Leaves: the reading to write and the increment behind it, as it was drawn: the truth is never
//! read back from what was written.

use super::scenario::{Kind, Metric, Number, Temporality};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Bounds of a histogram that names none: OpenTelemetry's advice for durations of HTTP requests, in seconds.
pub const BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Observations that are drawn one by one; of more, each drawn one stands for several.
const DRAWN_MAX: u64 = 64;
/// Exponential buckets on each side of the middle that are used.
const REACH: i32 = 24;
/// One observation in so many is zero.
const ZEROS: u32 = 20;

/// What a stream stands at.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Integers.
    Int(i64),
    /// Doubles.
    Double(f64),
    /// Observations.
    Observed(Box<Observed>),
}

/// Observations: buckets, explicit or exponential.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// All.
    pub count: u64,
    /// Of them zero (exponential).
    pub zeros: u64,
    /// Their sum.
    pub sum: f64,
    /// By bucket; exponential: from index −[`REACH`] on.
    pub buckets: Vec<u64>,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// What a point adds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grown {
    /// A gauge adds nothing.
    Nothing,
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// Observations and their sum.
    Observed(u64, f64),
}

/// The lowest exponential bucket that is used.
pub const fn lowest() -> i32 {
    -REACH
}

/// A stream that has counted nothing.
pub fn fresh(metric: &Metric) -> State {
    match (metric.kind, metric.number) {
        (Kind::Sum | Kind::UpDownCounter | Kind::Gauge, Number::Int) => State::Int(0),
        (Kind::Sum | Kind::UpDownCounter | Kind::Gauge, Number::Double) => State::Double(0.0),
        (Kind::Histogram, _) => State::observed(bounds(metric).len() + 1),
        (Kind::ExponentialHistogram, _) => State::observed(2 * REACH as usize + 1),
        (Kind::Summary, _) => State::observed(0),
    }
}

impl State {
    fn observed(buckets: usize) -> State {
        State::Observed(Box::new(Observed { buckets: vec![0; buckets], ..Observed::default() }))
    }
}

/// The bounds of an explicit histogram.
pub fn bounds(metric: &Metric) -> &[f64] {
    if metric.bounds.is_empty() { &BOUNDS } else { &metric.bounds }
}

/// The stream goes on: `mean` events are expected, `level` is where a gauge or an up-down counter hovers.
pub fn grow(state: &mut State, metric: &Metric, mean: f64, level: f64, rng: &mut ChaCha8Rng) -> Grown {
    let jitter = rng.random_range(0.5..1.5);
    match (metric.kind, state) {
        (Kind::Sum, State::Int(value)) => {
            let added = i64::try_from(whole(mean * jitter, rng)).unwrap_or(i64::MAX);
            // A counter at the end of its 64 bits stands still.
            let added = value.checked_add(added).map_or(0, |_| added);
            *value += added;
            Grown::Int(added)
        }
        (Kind::Sum, State::Double(value)) => {
            // Hundredths have no exact binary form, so that rounding is really tried.
            let added = whole(mean * jitter * 100.0, rng) as f64 * 0.01;
            *value += added;
            Grown::Double(added)
        }
        (Kind::UpDownCounter, State::Int(value)) => {
            let next = i64::try_from(whole(level * jitter, rng)).unwrap_or(i64::MAX);
            let added = next - *value;
            *value = next;
            Grown::Int(added)
        }
        (Kind::UpDownCounter, State::Double(value)) => {
            let next = whole(level * jitter * 100.0, rng) as f64 * 0.01;
            let added = next - *value;
            *value = next;
            Grown::Double(added)
        }
        (_, State::Int(value)) => {
            *value = i64::try_from(whole(level * jitter, rng)).unwrap_or(i64::MAX);
            Grown::Nothing
        }
        (_, State::Double(value)) => {
            *value = level * jitter;
            Grown::Nothing
        }
        (kind, State::Observed(observed)) => {
            let events = whole(mean * jitter, rng);
            observe(observed, kind, metric, events, rng)
        }
    }
}

/// A whole number that is `mean` on average.
fn whole(mean: f64, rng: &mut ChaCha8Rng) -> u64 {
    let floor = mean.floor();
    floor as u64 + u64::from(rng.random_bool((mean - floor).clamp(0.0, 1.0)))
}

fn observe(observed: &mut Observed, kind: Kind, metric: &Metric, events: u64, rng: &mut ChaCha8Rng) -> Grown {
    let draws = events.min(DRAWN_MAX);
    let mut added = 0.0;
    for draw in 0..draws {
        // The remainder goes to the first draws, one each.
        let times = events / draws + u64::from(draw < events % draws);
        let value = match kind {
            Kind::Histogram => explicit(observed, bounds(metric), times, rng),
            Kind::ExponentialHistogram => exponential(observed, metric.scale, times, rng),
            _ => f64::from(rng.random_range(1..2_000u32)) * 0.01,
        };
        if observed.count == 0 || value < observed.min {
            observed.min = value;
        }
        if observed.count == 0 || value > observed.max {
            observed.max = value;
        }
        observed.count += times;
        added += value * times as f64;
    }
    observed.sum += added;
    Grown::Observed(events, added)
}

/// An observation in a bucket, the lower ones more often; its value is the middle of the bucket.
fn explicit(observed: &mut Observed, bounds: &[f64], times: u64, rng: &mut ChaCha8Rng) -> f64 {
    let skewed: f64 = rng.random::<f64>() * rng.random::<f64>();
    let index = ((skewed * observed.buckets.len() as f64) as usize).min(observed.buckets.len() - 1);
    observed.buckets[index] += times;
    match (index.checked_sub(1).map(|below| bounds[below]), bounds.get(index)) {
        (None, None) => 1.0,
        (None, Some(above)) => *above,
        (Some(below), None) => below + below.abs(),
        (Some(below), Some(above)) => below + (above - below) / 2.0,
    }
}

fn exponential(observed: &mut Observed, scale: i32, times: u64, rng: &mut ChaCha8Rng) -> f64 {
    if rng.random_range(0..ZEROS) == 0 {
        observed.zeros += times;
        return 0.0;
    }
    let third = REACH / 3;
    let index: i32 = (0..3).map(|_| rng.random_range(-third..=third)).sum();
    observed.buckets[(index + REACH) as usize] += times;
    ((f64::from(index) + 0.5) / f64::from(scale).exp2()).exp2()
}

/// Whether each point stands alone.
pub fn is_delta(metric: &Metric) -> bool {
    metric.temporality == Temporality::Delta
}

const _: () = assert!(REACH % 3 == 0);
