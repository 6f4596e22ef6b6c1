//! What the judge found, and what it may be.
//!
//! In: counts of one run. Out: which targets it misses. Targets: at most 1 % of the share over it; the first fold in the batch that exceeds the share; at most 0.1 % of
//! innocent streams lose a point; no flaps; no error of totals; nothing that came out without having gone in; no stream raw on one worker and folded on another; no byte of other tenants.

/// Series over the share, as a part of it.
pub const OVER_MAX: f64 = 0.01;
/// Innocent streams that lose a point, as a part of all innocent ones.
pub const INNOCENT_MAX: f64 = 0.001;

/// Between the batch that exceeded the share and the first that lost a point: how many batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FirstFold {
    /// The share was never exceeded.
    #[default]
    NotNeeded,
    /// So many; zero: the same batch, or an earlier one.
    After(u64),
    /// None in so many batches to the end.
    Never(u64),
}

impl FirstFold {
    /// In batches.
    pub fn batches(self) -> u64 {
        match self {
            FirstFold::NotNeeded => 0,
            FirstFold::After(batches) | FirstFold::Never(batches) => batches,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Series over the share at the worst time, as a part of it.
    pub over: f64,
    /// Most streams alive at a time on the way in …
    pub in_most: usize,
    /// … and series on the way out.
    pub out_most: usize,
    /// Those, at the worst time: raw, folded, and seconds since the start.
    pub worst: (usize, usize, f64),
    /// The first fold.
    pub first_fold: FirstFold,
    /// Innocent streams.
    pub innocent: u64,
    /// Those of them that ever lost a point.
    pub innocent_cut: u64,
    /// Points that did not come out.
    pub cut: u64,
    /// Changes of a metric's treatment.
    pub changes: u64,
    /// Changes within one dwell.
    pub flaps: u64,
    /// Streams raw on one worker and folded on another.
    pub splits: u64,
    /// Streams that were raw and then folded on the same worker: shown, not judged.
    pub turned: u64,
    /// Points that came out and had not gone in so; numbers that cannot be.
    pub foreign: u64,
    /// Batches and emissions of other tenants that were not left alone.
    pub touched: u64,
    /// Increments that came in, of the guilty metrics.
    pub total: i128,
    /// How far what came out is from it.
    pub total_error: i128,
    /// The same of all other metrics.
    pub other_error: i128,
    /// Metrics whose totals are wrong: name, error, total.
    pub errors: Vec<(String, i128, i128)>,
}

impl Verdict {
    /// Innocent streams that lost a point, as a part of all.
    pub fn innocent_part(&self) -> f64 {
        part(self.innocent_cut as f64, self.innocent as f64)
    }

    /// The error of the guilty metrics' totals, relative.
    #[allow(clippy::cast_precision_loss)] // To be read by people.
    pub fn error_part(&self) -> f64 {
        part(self.total_error as f64, self.total as f64)
    }

    /// The targets that are missed, each with its figure.
    pub fn missed(&self) -> Vec<String> {
        let (raw, folded, after_s) = self.worst;
        let over = format!("{:.2} %, {raw} raw and {folded} folded after {after_s:.1} s", self.over * 100.0);
        let checks = [
            (self.over > OVER_MAX, "over", over),
            (self.first_fold.batches() > 0, "first_fold", format!("{:?}", self.first_fold)),
            (
                self.innocent_part() > INNOCENT_MAX,
                "innocent",
                format!("{} of {}", self.innocent_cut, self.innocent),
            ),
            (self.flaps > 0, "flaps", format!("{} in {} changes", self.flaps, self.changes)),
            (!self.errors.is_empty(), "total", format!("{:?}", self.errors)),
            (self.splits > 0, "split", self.splits.to_string()),
            (self.foreign > 0, "foreign", self.foreign.to_string()),
            (self.touched > 0, "others", self.touched.to_string()),
        ];
        let missed = checks.into_iter().filter(|(is_missed, ..)| *is_missed);
        missed.map(|(_, name, figure)| format!("{name}: {figure}")).collect()
    }
}

fn part(part: f64, of: f64) -> f64 {
    if of > 0.0 { part / of } else { 0.0 }
}
