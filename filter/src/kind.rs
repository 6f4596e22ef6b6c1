//! Kinds of metrics: what a point is on the way in, and what its series is on the way out.
//!
//! In: the type of a metric as OTLP has it ([`Intake`]), and what a fold declares. Out: a [`Kind`], which says how a record is read, how
//! windows add up and what a point looks like. One code per kind stands in records and in identities.

use crate::record::Temporality;
use phoenix_plan::Function;

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// A monotonic sum.
    Sum,
    /// A sum that may fall.
    UpDown,
    /// A gauge.
    Gauge,
    /// An explicit histogram.
    Histogram,
    /// An exponential histogram.
    Exponential,
    /// A summary.
    Summary,
}

impl Intake {
    /// Points with one number, or with many?
    pub fn is_number(self) -> bool {
        matches!(self, Intake::Sum | Intake::UpDown | Intake::Gauge)
    }

    /// What names the kind of a stream in its identity: the field of `Metric`, temporality, monotonicity.
    pub fn facts(self, temporality: Temporality) -> [u8; 3] {
        [self.field(), code(temporality), u8::from(!matches!(self, Intake::UpDown | Intake::Gauge))]
    }

    /// The type in a word, as reports show it.
    pub fn word(self, temporality: Temporality) -> &'static str {
        match (self, temporality) {
            (Intake::Sum, Temporality::Cumulative) => "counter",
            (Intake::Sum, Temporality::Delta) => "delta counter",
            (Intake::UpDown, _) => "up-down counter",
            (Intake::Gauge, _) => "gauge",
            (Intake::Histogram, Temporality::Cumulative) => "histogram",
            (Intake::Histogram, Temporality::Delta) => "delta histogram",
            (Intake::Exponential, _) => "exponential histogram",
            (Intake::Summary, _) => "summary",
        }
    }

    /// Number of the field of `Metric` that holds it.
    fn field(self) -> u8 {
        match self {
            Intake::Sum | Intake::UpDown => 7,
            Intake::Gauge => 5,
            Intake::Histogram => 9,
            Intake::Exponential => 10,
            Intake::Summary => 11,
        }
    }
}

/// What a folded series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Increments add up.
    Sum {
        /// Increments are never negative.
        monotonic: bool,
    },
    /// Counts of buckets between the same bounds add up.
    Histogram,
    /// Counts of buckets add up at the coarsest scale.
    Exponential,
    /// Counts and sums add up, quantiles are gone.
    Summary,
    /// A function of the last values of the streams.
    Level {
        /// The function.
        function: Function,
        /// Of up-down counters; else of gauges.
        up_down: bool,
    },
}

const FUNCTIONS: [Function; 6] =
    [Function::Sum, Function::Avg, Function::Min, Function::Max, Function::Last, Function::Count];
/// Codes of levels begin here: twice the function's place, and one more for up-down counters.
const LEVELS: u8 = 16;

impl Kind {
    /// Does a record of it hold a whole distribution?
    pub fn is_distribution(self) -> bool {
        matches!(self, Kind::Histogram | Kind::Exponential | Kind::Summary)
    }

    /// Is it made of last values?
    pub fn is_level(self) -> bool {
        matches!(self, Kind::Level { .. })
    }

    /// As a message of records writes it.
    pub fn code(self) -> u8 {
        match self {
            Kind::Sum { monotonic: true } => 0,
            Kind::Sum { monotonic: false } => 1,
            Kind::Histogram => 2,
            Kind::Exponential => 3,
            Kind::Summary => 4,
            Kind::Level { function, up_down } => {
                let at = FUNCTIONS.iter().zip(0u8..).find(|(f, _)| **f == function).map_or(0, |(_, n)| n);
                LEVELS.saturating_add(at.saturating_mul(2)).saturating_add(u8::from(up_down))
            }
        }
    }

    /// What a code stands for.
    pub fn of_code(code: u8) -> Option<Kind> {
        Some(match code {
            0 => Kind::Sum { monotonic: true },
            1 => Kind::Sum { monotonic: false },
            2 => Kind::Histogram,
            3 => Kind::Exponential,
            4 => Kind::Summary,
            _ => {
                let level = code.checked_sub(LEVELS)?;
                let function = *FUNCTIONS.get(usize::from(level / 2))?;
                Kind::Level { function, up_down: level % 2 == 1 }
            }
        })
    }

    /// What names the kind in an identity: the field of `Metric`, temporality, monotonicity, and the function if there is one.
    pub fn facts(self, temporality: Temporality) -> ([u8; 4], usize) {
        let temporality = code(temporality);
        match self {
            Kind::Sum { monotonic } => ([Intake::Sum.field(), temporality, u8::from(monotonic), 0], 3),
            Kind::Histogram => ([Intake::Histogram.field(), temporality, 1, 0], 3),
            Kind::Exponential => ([Intake::Exponential.field(), temporality, 1, 0], 3),
            Kind::Summary => ([Intake::Summary.field(), temporality, 1, 0], 3),
            Kind::Level { .. } => ([0, temporality, 0, self.code()], 4),
        }
    }
}

/// As OTLP numbers them.
fn code(temporality: Temporality) -> u8 {
    match temporality {
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_they_are_written() {
        let known: Vec<Kind> = (0..=u8::MAX).filter_map(Kind::of_code).collect();
        assert_eq!(known.len(), 5 + 12);
        for kind in known {
            assert_eq!(Kind::of_code(kind.code()), Some(kind));
        }
    }

    #[test]
    fn no_two_kinds_have_the_same_facts() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in (0..=u8::MAX).filter_map(Kind::of_code) {
            for temporality in [Temporality::Delta, Temporality::Cumulative] {
                let (facts, len) = kind.facts(temporality);
                assert!(seen.insert(facts[..len].to_vec()), "{kind:?}");
            }
        }
    }
}
