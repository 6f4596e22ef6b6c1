//! What would remain without some labels.
//!
//! Enters: the numbers of a metric, and labels to fold. Leaves: an upper bound of the series that all embedders together would then write. Of one label it
//! is measured. Of several it is not: two labels that go together (a pod and its instance) each leave everything when folded alone. So the
//! least of two bounds is taken, each of which holds whatever depends on what:
//!
//! * without several labels there are no more series than without the one of them that helps most;
//! * there are no more series in an embedder than combinations of the values of the labels that stay.
//!
//! The second counts *absent* as a value of labels with several; a label with one value is taken to be on every stream, for else each of the many that never
//! differ would double the bound. It is left out where not every label was measured.

use super::MetricEstimate;
use crate::needs::LabelKey;
use std::collections::BTreeSet;

/// Labels that an embedder measures of a metric; with so many there may be more.
const MEASURED_MAX: usize = 32;

impl MetricEstimate {
    /// Series that would be written, were these labels folded; without any, distinct active streams.
    pub fn remaining(&self, folded: &BTreeSet<LabelKey>) -> f64 {
        let is_folded = |key: &str, resource: bool| {
            folded.iter().any(|label| label.key == key && label.resource == resource)
        };
        if folded.is_empty() {
            return self.active.value;
        }
        let gone = self.labels.iter().filter(|it| is_folded(&it.key, it.resource));
        let one = gone.map(|it| it.written).fold(f64::INFINITY, f64::min);
        // Labels that nobody has any more change nothing.
        let one = if one.is_finite() { one } else { self.active.value };
        one.min(self.combinations(is_folded)).max(self.embedders().max(1.0))
    }

    /// Combinations of the values of the labels that stay, in every embedder. Σ over embedders of a product is at most the sum of one factor times the largest of each
    /// other; which factor is summed is free, so the least is taken.
    fn combinations(&self, is_folded: impl Fn(&str, bool) -> bool) -> f64 {
        if self.labels.len() >= MEASURED_MAX {
            return f64::INFINITY;
        }
        let many = self.embedders().max(1.0);
        let stay: Vec<(f64, f64)> = self
            .labels
            .iter()
            .filter(|it| !is_folded(&it.key, it.resource))
            .map(|it| {
                if it.values.value <= 1.0 {
                    (1.0, many)
                } else {
                    (it.values_most + 1.0, it.values_sum + many)
                }
            })
            .collect();
        let product: f64 = stay.iter().map(|(most, _)| most).product();
        stay.iter().map(|(most, sum)| product / most * sum).fold(product * many, f64::min)
    }

    /// Embedders that have streams of it.
    pub fn embedders(&self) -> f64 {
        self.parts.iter().filter(|part| part.active > 0.0).count() as f64
    }

    /// Does it add up, so that a stream which two embedders see would count twice?
    pub fn is_cumulative(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "counter" | "histogram" | "exponential histogram" | "summary" | "up-down counter"
        )
    }
}
