//! Numbers, sketches and examples of several parts as one.
//!
//! Enters: what reports of workers and processes say about the same tenant, metric or label. Leaves: one number, with what is known about it.
//!
//! * Distinct streams: sketches under one hash key become one sketch, so a stream that two workers saw counts once. A part that sent no sketch, or has another key,
//!   is added: it may have seen the same streams, so the sum is an upper bound, and says so. `at_least` is the largest part.
//! * Space-Saving: weights add up, errors too. A value that a part does not list weighs there between nothing and the last listed
//!   value; unless the part lists all values it knows, that goes to the weight and to the error. Both bounds then hold for the sum (Agarwal et al., "Mergeable
//!   summaries", PODS 2012, for the same step on the sketch itself).

use crate::wire::Example;
use phoenix_filter::sketch::Distinct;
use serde::Serialize;
use std::collections::BTreeMap;

/// A number of distinct things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// The estimate, or an upper bound of it.
    pub value: f64,
    /// A part that alone has so many.
    pub at_least: f64,
    /// Parts were added that could not be merged.
    pub is_upper_bound: bool,
}

/// What one report says about a number of distinct things.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// A sketch, under a hash key.
    Sketch(u64, &'a [u8]),
    /// An estimate alone.
    Number(f64),
    /// Only that it is no more than this.
    AtMost(f64),
}

impl<'a> Part<'a> {
    /// The sketch if there is one, else the number.
    pub fn new(key: u64, sketch: &'a [u8], estimate: f64) -> Part<'a> {
        if sketch.is_empty() { Part::Number(estimate) } else { Part::Sketch(key, sketch) }
    }
}

/// All parts as one. A sketch that cannot be read, which [`crate::read`] refuses, counts as nothing.
pub fn estimate<'a>(parts: impl IntoIterator<Item = Part<'a>>) -> Estimate {
    let mut sketches: BTreeMap<u64, Distinct> = BTreeMap::new();
    let mut numbers: Vec<f64> = Vec::new();
    let (mut bounds, mut has_bound) = (0.0, false);
    for part in parts {
        match part {
            Part::Sketch(key, bytes) => {
                if let Ok(sketch) = Distinct::decode(bytes) {
                    sketches.entry(key).or_default().merge(&sketch);
                }
            }
            Part::Number(number) => numbers.push(number),
            Part::AtMost(bound) => (bounds, has_bound) = (bounds + bound, has_bound || bound > 0.0),
        }
    }
    numbers.extend(sketches.values().map(Distinct::estimate));
    numbers.retain(|number| *number > 0.0);
    // Sums of doubles depend on their order, and reports come in any.
    numbers.sort_by(f64::total_cmp);
    Estimate {
        value: numbers.iter().sum::<f64>() + bounds,
        at_least: numbers.last().copied().unwrap_or(0.0),
        is_upper_bound: numbers.len() > 1 || has_bound,
    }
}

/// The values of one label with most weight, of several parts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Offender {
    /// The value.
    pub value: String,
    /// It brought at least so many streams.
    pub at_least: f64,
    /// And at most so many.
    pub at_most: f64,
}

/// All examples of a label, by what they weigh at least. Each part comes with its estimate of distinct values, by which a complete list is told.
pub fn offenders<'a>(parts: impl IntoIterator<Item = (&'a [Example], f64)>) -> Vec<Offender> {
    let mut sums: BTreeMap<&str, (f64, f64, f64)> = BTreeMap::new();
    // What a value that is not listed may weigh, over all parts.
    let mut unlisted = 0.0;
    for (examples, values) in parts {
        let lightest = examples.iter().map(|example| example.weight).fold(f64::INFINITY, f64::min);
        let is_complete = examples.is_empty() || (values > 0.0 && values < examples.len() as f64 + 0.5);
        let lightest = if is_complete { 0.0 } else { lightest };
        unlisted += lightest;
        for example in examples {
            let sum = sums.entry(&example.value).or_default();
            *sum = (sum.0 + example.weight, sum.1 + example.error, sum.2 + lightest);
        }
    }
    let mut offenders: Vec<Offender> = sums
        .into_iter()
        .map(|(value, (weight, error, lightest))| Offender {
            value: value.to_owned(),
            at_least: weight - error,
            at_most: weight + (unlisted - lightest).max(0.0),
        })
        .collect();
    offenders.sort_by(|a, b| b.at_least.total_cmp(&a.at_least).then_with(|| b.at_most.total_cmp(&a.at_most)));
    offenders
}
