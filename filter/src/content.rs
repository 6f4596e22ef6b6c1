//! What a window or a running total holds, by kind of series.
//!
//! In: parts of increments, or words about levels. Out: their sum, ready to be written or to go back. One type, so that windows open,
//! wait, merge and close in one way whatever is in them ([`crate::series`]).

use crate::amount::Amount;
use crate::distribution::{Distribution, Exponential, Shape};
use crate::kind::Kind;
use crate::level::Level;

/// A number, a distribution, or the newest words of streams.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Of sums.
    Number(Amount),
    /// Of histograms and summaries.
    Distribution(Box<Distribution>),
    /// Of gauges.
    Level(Box<Level>),
}

impl Content {
    /// Nothing, for a series of this kind with so many bounds.
    pub fn none(kind: Kind, bounds: usize) -> Content {
        let shape = match kind {
            Kind::Sum { .. } => return Content::Number(Amount::default()),
            Kind::Level { .. } => return Content::Level(Box::default()),
            Kind::Histogram if bounds > 0 => Shape::Explicit(vec![0; bounds.saturating_add(1)]),
            Kind::Exponential => Shape::Exponential(Box::new(Exponential::none())),
            Kind::Histogram | Kind::Summary => Shape::Bare,
        };
        let (sum, extremes) = (Amount::default(), None);
        Content::Distribution(Box::new(Distribution { count: 0, sum, sumless: false, extremes, shape }))
    }

    /// Add another one of the same kind.
    pub fn merge(&mut self, other: &Content) {
        match (self, other) {
            (Content::Number(ours), Content::Number(theirs)) => ours.merge(theirs),
            (Content::Distribution(ours), Content::Distribution(theirs)) => ours.merge(theirs),
            (Content::Level(ours), Content::Level(theirs)) => ours.merge(theirs),
            _ => {}
        }
    }

    /// No increment in it, or no word of a stream.
    pub fn is_zero(&self) -> bool {
        match self {
            Content::Number(amount) => amount.is_zero(),
            Content::Distribution(it) => it.is_zero(),
            Content::Level(level) => level.is_empty(),
        }
    }

    /// For the books: of a distribution the observations as integers and their sum as doubles; of levels nothing, since values of
    /// gauges do not add up over time.
    pub fn books(&self) -> Amount {
        match self {
            Content::Number(amount) => *amount,
            Content::Distribution(it) => it.books(),
            Content::Level(_) => Amount::default(),
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Content::Number(_) => 0,
            Content::Distribution(it) => it.heap_bytes(),
            Content::Level(level) => level.heap_bytes(),
        }
    }
}
