//! Totals without rounding.
//!
//! In: integer and double values. Out: one [`Total`]. Integers are summed in `i128`, which 2⁶⁴ values of 64 bits cannot
//! overflow. Doubles are summed in double-double (Knuth's TwoSum, "The Art of Computer Programming" vol. 2, 4.2.2): about
//! 106 bits, far below the 1e-12 that conservation allows. Not meant for infinities: they poison the sum, as they should.

use std::fmt;

/// A sum of doubles with its rounding error carried along.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DoubleSum {
    high: f64,
    low: f64,
}

impl DoubleSum {
    /// Adds one value.
    pub fn add(&mut self, value: f64) {
        let sum = self.high + value;
        let shadow = sum - self.high;
        self.low += (self.high - (sum - shadow)) + (value - shadow);
        self.high = sum;
    }

    /// Adds another sum, with its error.
    pub fn join(&mut self, other: DoubleSum) {
        self.add(other.high);
        self.add(other.low);
    }

    /// The sum, rounded once.
    pub fn value(self) -> f64 {
        self.high + self.low
    }
}

/// A total of one metric. A metric that mixes integer and double points has both parts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Total {
    /// Sum of the integer values.
    pub ints: i128,
    /// Sum of the double values.
    pub doubles: DoubleSum,
}

impl Total {
    /// Adds an integer value.
    pub fn add_int(&mut self, value: i128) {
        self.ints += value;
    }

    /// Adds a double value.
    pub fn add_double(&mut self, value: f64) {
        self.doubles.add(value);
    }

    /// Adds another total.
    pub fn add(&mut self, other: Total) {
        self.ints += other.ints;
        self.doubles.join(other.doubles);
    }

    /// Both parts as one number, for display only.
    pub fn approximate(self) -> f64 {
        self.ints as f64 + self.doubles.value()
    }

    /// Relative difference of the double parts; 0 when both are 0.
    pub fn relative_difference(self, other: Total) -> f64 {
        let (a, b) = (self.doubles.value(), other.doubles.value());
        let scale = a.abs().max(b.abs());
        if scale == 0.0 { 0.0 } else { (a - b).abs() / scale }
    }

    /// Whether both totals agree: integers exactly, doubles to 1e-12 relative (the contract of a fold).
    pub fn agrees(self, other: Total) -> bool {
        self.ints == other.ints && self.relative_difference(other) <= DOUBLE_TOLERANCE
    }
}

/// The relative difference of double totals that conservation allows.
pub const DOUBLE_TOLERANCE: f64 = 1e-12;

impl fmt::Display for Total {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ints, self.doubles.value()) {
            (ints, 0.0) => write!(out, "{ints}"),
            (0, doubles) => write!(out, "{doubles:.6}"),
            (ints, doubles) => write!(out, "{ints} + {doubles:.6}"),
        }
    }
}
