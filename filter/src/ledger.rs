//! The books of the fold (DESIGN §3.1): what came in, what went out, and what became of the difference.
//!
//! Two kinds, kept where the facts arise: a worker's [`Tally`] of points in its batches, and the owner's [`Ledger`] with a page
//! per metric. Conservation reads, for every page: increments in = acknowledged + waiting in emissions + open in windows +
//! abandoned.
//! All counters only grow; they start from zero with the process.

use crate::amount::Amount;
use crate::limits::{LEDGER_METRICS_MAX, LEDGER_NAME_MAX};
use crate::stream::Nothing;
use std::collections::BTreeMap;

/// What one worker saw in its batches. Points, unless the name says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Everything that came in.
    pub points: u64,
    /// Copied through untouched.
    pub passed: u64,
    /// Turned into records and cut out.
    pub recorded: u64,
    /// Of the passed: their records went along, because a switch is before or behind them.
    pub watched: u64,
    /// Of the watched: cumulative sums that would fold, were it shown that their streams reach this process only.
    pub unaffine: u64,
    /// Of the recorded: not cut out, but turned into the stale marker of their raw series.
    pub marked: u64,
    /// Markers without a value, cut out with the streams that they end.
    pub no_value: u64,
    /// Passed because their timestamp is too far ahead.
    pub ahead: u64,
    /// Passed although a rule would fold them: NaN, infinite, negative or missing value, no timestamp, start after time, a histogram that
    /// does not add up.
    pub unfit: u64,
    /// Passed although a rule would fold their metric: no fold is declared for its type.
    pub unfoldable: u64,
    /// Passed because a kept label cannot be written: broken UTF-8, a key given twice, or one of our own labels.
    pub unwritable: u64,
    /// Of the recorded: because their metric is beyond its budget.
    pub contained: u64,
    /// Of the passed: outside every budget, since no fold is declared for their type.
    pub undeclared: u64,
    /// Streams about which budgets could not decide; they fold where their metric is contained, and pass where it is not.
    pub undecided: u64,
}

impl Tally {
    /// Add another tally.
    pub fn add(&mut self, other: &Tally) {
        for (a, b) in [
            (&mut self.points, other.points),
            (&mut self.passed, other.passed),
            (&mut self.recorded, other.recorded),
            (&mut self.watched, other.watched),
            (&mut self.unaffine, other.unaffine),
            (&mut self.marked, other.marked),
            (&mut self.no_value, other.no_value),
            (&mut self.ahead, other.ahead),
            (&mut self.unfit, other.unfit),
            (&mut self.unfoldable, other.unfoldable),
            (&mut self.unwritable, other.unwritable),
            (&mut self.contained, other.contained),
            (&mut self.undeclared, other.undeclared),
            (&mut self.undecided, other.undecided),
        ] {
            *a = a.saturating_add(b);
        }
    }
}

/// What became of the records of one metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Records that came in.
    pub records: u64,
    /// Records whose increment joined a series.
    pub folded: u64,
    /// Of the folded: some or all of the increment fell into a closed window and joined the oldest open one.
    pub late: u64,
    /// Of the folded: counted from zero after a restart of the stream.
    pub resets: u64,
    /// First points that only set where to count from.
    pub baselines: u64,
    /// Points not newer than the last one of their stream.
    pub out_of_order: u64,
    /// Delta intervals seen before.
    pub duplicates: u64,
    /// Delta intervals that overlap a seen one.
    pub overlaps: u64,
    /// Points that went to the upstream raw: before or after a switch, or because the owner was behind.
    pub carried: u64,
    /// Points of streams that found their table full.
    pub refused: u64,
    /// Of the folded: their series found its table full, and they joined the overflow series of their metric.
    pub overflowed: u64,
    /// Of the folded: deltas that found the table of streams full, so that a repetition of them would not be noticed.
    pub unremembered: u64,
    /// Values of gauges whose window had closed: refused, since a gauge's past cannot be changed any more.
    pub late_values: u64,
    /// Points of the emissions that were accepted.
    pub emitted: u64,
    /// Points of emissions that were refused for good after their series had gone: their increments are lost.
    pub abandoned: u64,
    /// Increments that joined a series. Of histograms and summaries the observations, as integers, and their sum, as doubles; of gauges
    /// nothing.
    pub increments_in: Amount,
    /// Increments whose emission was accepted.
    pub increments_out: Amount,
    /// Increments of abandoned points.
    pub increments_abandoned: Amount,
}

impl Page {
    /// Count a point that added nothing.
    pub fn nothing(&mut self, why: Nothing) {
        let counter = match why {
            Nothing::Baseline => &mut self.baselines,
            Nothing::OutOfOrder => &mut self.out_of_order,
            Nothing::Duplicate => &mut self.duplicates,
            Nothing::Overlap => &mut self.overlaps,
        };
        *counter = counter.saturating_add(1);
    }

    /// Add another page.
    pub fn add(&mut self, o: &Page) {
        for (a, b) in [
            (&mut self.records, o.records),
            (&mut self.folded, o.folded),
            (&mut self.late, o.late),
            (&mut self.resets, o.resets),
            (&mut self.baselines, o.baselines),
            (&mut self.out_of_order, o.out_of_order),
            (&mut self.duplicates, o.duplicates),
            (&mut self.overlaps, o.overlaps),
            (&mut self.carried, o.carried),
            (&mut self.refused, o.refused),
            (&mut self.late_values, o.late_values),
            (&mut self.emitted, o.emitted),
            (&mut self.abandoned, o.abandoned),
            (&mut self.overflowed, o.overflowed),
            (&mut self.unremembered, o.unremembered),
        ] {
            *a = a.saturating_add(b);
        }
        self.increments_in.merge(&o.increments_in);
        self.increments_out.merge(&o.increments_out);
        self.increments_abandoned.merge(&o.increments_abandoned);
    }
}

/// Index of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageId(usize);

/// A page per metric name, bounded; beyond the bound metrics share the page `(other)`.
#[derive(Default)]
pub struct Ledger {
    names: BTreeMap<Box<[u8]>, PageId>,
    pages: Vec<(Box<[u8]>, Page)>,
    other: Page,
    /// Records made under another hash key than the one in force: their streams cannot be known any more.
    pub foreign_key: u64,
    /// Messages that could not be read: a bug, each one.
    pub unreadable: u64,
    /// Emissions that the upstream refused for good, and whose increments went back into their series.
    pub emissions_refused: u64,
}

impl Ledger {
    /// The page of a metric.
    pub fn page_of(&mut self, metric: &[u8]) -> PageId {
        let name = metric.get(..LEDGER_NAME_MAX).unwrap_or(metric);
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        if self.pages.len() >= LEDGER_METRICS_MAX {
            return PageId(usize::MAX);
        }
        let id = PageId(self.pages.len());
        self.pages.push((name.into(), Page::default()));
        self.names.insert(name.into(), id);
        id
    }

    /// The page behind an index.
    pub fn page(&mut self, id: PageId) -> &mut Page {
        match self.pages.get_mut(id.0) {
            Some((_, page)) => page,
            None => &mut self.other,
        }
    }

    /// Every page with its metric's name; `(other)` last, when it was needed.
    pub fn pages(&self) -> impl Iterator<Item = (&[u8], &Page)> {
        let other = (self.other.records > 0).then_some((&b"(other)"[..], &self.other));
        self.pages.iter().map(|(name, page)| (&**name, page)).chain(other)
    }

    /// All pages in one.
    pub fn sum(&self) -> Page {
        let mut sum = Page::default();
        for (_, page) in self.pages() {
            sum.add(page);
        }
        sum
    }
}
