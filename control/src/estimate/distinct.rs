//! Distinct streams of several parts.
//!
//! Enters: sketches, and numbers of parts that had no room for theirs. Leaves: one number with what is known about it. All sketches are under one hash
//! key: the collector refuses others. Parts come in the order of processes and workers, so that sums of doubles are the same however reports arrived.

use phoenix_filter::sketch::{Distinct, STANDARD_ERROR};
use serde::{Deserialize, Serialize};

/// A number of distinct things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Number {
    /// The estimate, or an upper bound of it.
    pub value: f64,
    /// A part that alone has so many.
    pub at_least: f64,
    /// Parts were added that could not be merged.
    pub is_upper_bound: bool,
}

/// Below this a sketch is exact.
const EXACT_BELOW: f64 = phoenix_filter::sketch::DENSE_FROM as f64;

/// Parts as one.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    union: Distinct,
    numbers: f64,
    parts: u32,
    largest: f64,
}

impl Sum {
    /// A part, with its sketch or with a number alone.
    pub fn add(&mut self, sketch: &[u8], number: f64) {
        if sketch.is_empty() {
            self.add_number(number);
        } else if let Ok(sketch) = Distinct::decode(sketch) {
            self.union.merge(&sketch);
        }
    }

    /// A part without a sketch: it may have the same streams as others.
    pub fn add_number(&mut self, number: f64) {
        if number > 0.0 {
            self.numbers += number;
            self.parts += 1;
            self.largest = self.largest.max(number);
        }
    }

    /// All parts of another sum.
    pub fn merge(&mut self, other: &Sum) {
        self.union.merge(&other.union);
        self.numbers += other.numbers;
        self.parts += other.parts;
        self.largest = self.largest.max(other.largest);
    }

    /// The number.
    pub fn number(&self) -> Number {
        let merged = self.union.estimate();
        let parts = self.parts + u32::from(merged > 0.0);
        Number { value: merged + self.numbers, at_least: self.largest.max(merged), is_upper_bound: parts > 1 }
    }

    /// Estimate of the sketches alone, where there is nothing else.
    pub fn merged(&self) -> Option<f64> {
        (self.parts == 0).then(|| self.union.estimate())
    }
}

/// Variance of an estimate.
pub fn variance(estimate: f64) -> f64 {
    if estimate < EXACT_BELOW { 0.0 } else { (estimate * STANDARD_ERROR).powi(2) }
}
