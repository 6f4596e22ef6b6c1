//! What was acknowledged, exactly.
//!
//! In: exports whose answer was a success (HTTP 2xx; gRPC: status 0 as well). Out: per metric the total of the increments that were drawn,
//! and books of the bodies for streams, points, bytes and fingerprints. The totals come from the draws, not from the books, so that the two
//! can be held against each other.

use super::catalogue::METRICS;
use super::pod::{Export, Totals};
use crate::sink::exact::Total;
use crate::sink::{Books, BooksConfig};
use std::collections::BTreeMap;

/// The truth of a run.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Bodies that were acknowledged.
    pub books: Books,
    totals: Totals,
    /// The gateway of each pod, by the label `k8s.pod.name`.
    pub homes: BTreeMap<String, usize>,
    /// Exports by fate.
    pub exports: Exports,
}

/// Exports by fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    /// Acknowledged.
    pub acknowledged: u64,
    /// Sent again after a retryable answer, or after none.
    pub retries: u64,
    /// Attempts that ended without an answer: whether they arrived is unknown.
    pub unanswered: u64,
    /// Given up.
    pub dropped: u64,
    /// Acknowledged with `partial_success`.
    pub partial: u64,
    /// Connections opened.
    pub connections: u64,
}

impl Truth {
    /// Nothing yet.
    pub fn new(config: BooksConfig) -> Self {
        let (homes, exports) = (BTreeMap::new(), Exports::default());
        Self { books: Books::new(config), totals: Totals::default(), homes, exports }
    }

    /// Books an acknowledged export.
    ///
    /// # Panics
    /// The generator made a body that the books refuse: a bug of the generator.
    pub fn acknowledge(&mut self, tenant: &str, export: &Export) {
        self.books.add(tenant, &export.body).expect("the shop encodes valid OTLP");
        for (total, increment) in self.totals.iter_mut().zip(&export.increments) {
            total.add(*increment);
        }
        self.exports.acknowledged += 1;
    }

    /// The total of a metric; `None` for a name the shop does not have.
    pub fn total(&self, metric: &str) -> Option<Total> {
        METRICS.iter().position(|spec| spec.name == metric).map(|index| self.totals[index])
    }
}
