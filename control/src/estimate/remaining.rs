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
        let gone = self.labels.iter().filter(|it| is_folded(&it.key, it.resource));
        let one = gone.map(|it| it.written).fold(f64::INFINITY, f64::min);
        if !one.is_finite() {
            return self.active.value;
        }
        one.min(self.combinations(is_folded)).max(self.embedders().max(1.0))
    }

    /// Combinations of the values of the labels that stay, in every embedder.
    fn combinations(&self, is_folded: impl Fn(&str, bool) -> bool) -> f64 {
        if self.labels.len() >= MEASURED_MAX {
            return f64::INFINITY;
        }
        let stay = self.labels.iter().filter(|it| !is_folded(&it.key, it.resource));
        let values = stay.map(|it| if it.values.value <= 1.0 { 1.0 } else { it.values.value + 1.0 });
        values.product::<f64>() * self.embedders().max(1.0)
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
