//! The words for what came out of a query.
//!
//! A verdict is one of a closed list, so that JSON, table and page say the same; the reason beside it is text for a person.

use super::compare::Comparison;
use serde::Serialize;

/// What came out of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The answers differ.
    Differs,
    /// The fold removed what the query asks for.
    CannotBeAnswered,
    /// The query could not be read: a syntax error, an unknown variable.
    CannotBeRead,
    /// A side gave no answer.
    CannotBeRun,
    /// Both sides are empty: neither good nor bad.
    NoData,
    /// Every point lies within the tolerance.
    WithinTolerance,
    /// Every point is there on both sides with the same value, to 1e-9.
    Equal,
}

impl Verdict {
    /// Every verdict, the worst first.
    pub const ALL: [Verdict; 7] = [
        Verdict::Differs,
        Verdict::CannotBeAnswered,
        Verdict::CannotBeRead,
        Verdict::CannotBeRun,
        Verdict::NoData,
        Verdict::WithinTolerance,
        Verdict::Equal,
    ];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Differs => "differs",
            Verdict::CannotBeAnswered => "cannot be answered",
            Verdict::CannotBeRead => "cannot be read",
            Verdict::CannotBeRun => "cannot be run",
            Verdict::NoData => "no data",
            Verdict::WithinTolerance => "within tolerance",
            Verdict::Equal => "equal",
        }
    }

    /// Whether the folded side gave the answer of the full side.
    pub fn is_good(self) -> bool {
        matches!(self, Verdict::WithinTolerance | Verdict::Equal)
    }
}

/// One query's verdict, why, and the figures behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The word.
    pub verdict: Verdict,
    /// Why, unless the word says all.
    pub reasons: Vec<String>,
    /// Both answers compared, if both came.
    pub comparison: Option<Comparison>,
}

impl Outcome {
    /// An outcome without figures.
    pub fn without_answer(verdict: Verdict, reason: String) -> Outcome {
        Outcome { verdict, reasons: vec![reason], comparison: None }
    }
}
