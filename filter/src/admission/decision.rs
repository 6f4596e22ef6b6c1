//! What was decided about a metric, for those who read reports: numbers, and a sentence.

use crate::units::UnixNanos;

/// Something that this worker decided, or learnt from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Metric, by half of its identity.
    pub metric: u64,
    /// When.
    pub at: UnixNanos,
    /// What was done.
    pub what: What,
    /// Labels that fold.
    pub labels: Vec<String>,
    /// Series of the metric then, raw and folded, and its share.
    pub series: u32,
    /// … of which this many may be.
    pub share: u32,
    /// From when on, in event time.
    pub effective: UnixNanos,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// New streams fold.
    Contained,
    /// They fold on one more label.
    Widened,
    /// All streams will be raw again.
    Released,
}

impl Decision {
    /// The decision in a sentence.
    pub fn sentence(&self) -> String {
        let labels = self.labels.join(", ");
        match self.what {
            What::Contained => format!(
                "{} of {} series are in use and a batch brought more than the rest: new streams fold on {labels}",
                self.series, self.share
            ),
            What::Widened => format!(
                "the folded series do not fit the share of {} either ({} are in use): new streams fold on {labels}",
                self.share, self.series
            ),
            What::Released => format!(
                "the need is below the share of {} again ({} series are in use): raw series are restored from {} on",
                self.share,
                self.series,
                self.effective.0 / 1_000_000_000
            ),
        }
    }
}
