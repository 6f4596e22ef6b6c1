//! A figure: what a proof or a scene found, and how much it may be.
//!
//! In: a value and its bound. Out: a line for people and one for programs, and whether it holds. One type for all of them, so that every table judges alike.
//! A value that is no number holds no bound.

/// One line.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For programs: parts from the general to the particular, joined by dots.
    pub key: String,
    /// For people.
    pub what: String,
    /// What was found.
    pub value: f64,
    /// Of what.
    pub unit: Unit,
    /// The most that it may be; none: shown and not judged.
    pub bound: Option<f64>,
    /// What the fold at arrival gives.
    pub at_arrival: Option<f64>,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A share of one, read as per cent.
    Percent,
    /// A relative difference that should be rounding and nothing else.
    Relative,
    /// A number of things.
    Count,
    /// A time.
    Seconds,
}

impl Figure {
    /// One that is shown and not judged.
    pub fn new(key: impl Into<String>, what: impl Into<String>, unit: Unit, value: f64) -> Figure {
        Figure { key: key.into(), what: what.into(), value, unit, bound: None, at_arrival: None }
    }

    /// Judged: at most so much.
    #[must_use]
    pub fn at_most(mut self, bound: f64) -> Figure {
        self.bound = Some(bound);
        self
    }

    /// Beside what the fold at arrival gives.
    #[must_use]
    pub fn beside(mut self, at_arrival: f64) -> Figure {
        self.at_arrival = Some(at_arrival);
        self
    }

    /// None if it is not judged.
    pub fn holds(&self) -> Option<bool> {
        self.bound.map(|bound| self.value <= bound)
    }

    /// Judged, and beyond its bound.
    pub fn is_broken(&self) -> bool {
        self.holds() == Some(false)
    }
}

impl Unit {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Percent => "%",
            Unit::Relative => "relative",
            Unit::Count => "count",
            Unit::Seconds => "s",
        }
    }

    /// In this unit.
    pub fn scaled(self, value: f64) -> f64 {
        if self == Unit::Percent { value * 100.0 } else { value }
    }

    /// For people.
    pub fn text(self, value: f64) -> String {
        match self {
            Unit::Percent => format!("{:.2} %", value * 100.0),
            Unit::Relative if value == 0.0 => "0".to_owned(),
            Unit::Relative => format!("{value:.0e}"),
            Unit::Count => format!("{value}"),
            Unit::Seconds => format!("{value:.1} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_holds_no_bound() {
        for (value, holds) in
            [(0.0, true), (0.5, true), (0.6, false), (f64::NAN, false), (f64::INFINITY, false)]
        {
            let figure = Figure::new("a", "a", Unit::Count, value).at_most(0.5);
            assert_eq!(figure.holds(), Some(holds), "{value}");
            assert_eq!(figure.is_broken(), !holds);
        }
        let shown = Figure::new("a", "a", Unit::Count, f64::NAN);
        assert!(shown.holds().is_none() && !shown.is_broken());
    }

    #[test]
    fn values_read_as_their_unit() {
        let cases = [
            (Unit::Percent, 0.0249, "2.49 %"),
            (Unit::Relative, 0.0, "0"),
            (Unit::Relative, 2.2e-16, "2e-16"),
            (Unit::Count, 12.0, "12"),
            (Unit::Seconds, 2.74, "2.7 s"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(unit.text(value), text);
        }
    }
}
