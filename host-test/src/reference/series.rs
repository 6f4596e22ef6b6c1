//! One folded series: open windows, what they held, its points.
//!
//! In: increments with the time in which they came to be. Out: points of windows that have closed. A switch gives a series a first moment, before which it
//! must not begin, or a last one, until which it goes on flat; see `docs/fold.md`. Refuses nothing.

use super::otlp::Emitted;
use super::plan::{ReferenceFold, floor};
use super::quantity::{Amount, Quantity, difference, share};
use super::{Increment, StreamKey};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How long after the last sample of a series its stale marker stands: the least that every backend tells apart.
const STALE_AFTER_NS: u64 = 1_000_000;

/// What a series knows.
#[derive(Debug, Default)]
pub struct Series {
    fold: ReferenceFold,
    /// Of its metric, as the last point said.
    pub description: String,
    /// Who belongs to it.
    pub streams: BTreeSet<StreamKey>,
    /// Of these, who said that they have ended.
    pub ended: BTreeSet<StreamKey>,
    is_cumulative: bool,
    /// The switch that began it, when its streams folded before: it opens no earlier. After raw streams a series takes what no raw sample carries where it came
    /// to be, also before the switch: in the first window it would look like a rate half as high again.
    opens_ns: Option<u64>,
    /// The switch that ended it, and until when it goes on flat.
    ends_ns: Option<(u64, u64)>,
    /// Start of the first window, or of our tracking: the series' own start time.
    start_ns: Option<u64>,
    is_double: bool,
    total: Amount,
    open: BTreeMap<u64, Amount>,
    /// Every window that ends here or before has closed.
    closed_until_ns: u64,
    /// It is written without increments, since a switch has ended it, and not yet stale.
    is_led_on: bool,
}

impl Series {
    /// One that holds nothing.
    pub fn new(
        fold: ReferenceFold,
        is_cumulative: bool,
        opens_ns: Option<u64>,
        ends_ns: Option<(u64, u64)>,
    ) -> Series {
        let is_led_on = is_cumulative && ends_ns.is_some();
        Series { fold, is_cumulative, opens_ns, ends_ns, is_led_on, ..Series::default() }
    }

    /// Adds an increment. Says whether a part of it came late.
    pub fn add(&mut self, increment: &Increment, is_at_arrival: bool, now_ns: u64) -> bool {
        let ReferenceFold { window_ns, offset_ns, .. } = self.fold;
        self.is_double |= matches!(increment.value, Quantity::Number(Value::AsDouble(_)));
        let closed_until_ns = self.oldest_open(now_ns);
        let first_ns = self.opens_ns.map_or(0, |at_ns| self.fold.window_of(at_ns));
        let from_ns = if is_at_arrival { increment.to_ns } else { increment.from_ns };
        let mut is_late = false;
        for (window, part) in split(&increment.value, from_ns, increment.to_ns, window_ns, offset_ns) {
            let window = window.max(first_ns);
            is_late |= window < closed_until_ns;
            self.open.entry(window.max(closed_until_ns)).or_default().add(&part);
        }
        is_late
    }

    /// A window is open until its end plus the delay.
    fn oldest_open(&self, now_ns: u64) -> u64 {
        self.fold.window_of(now_ns.saturating_sub(self.fold.delay_ns)).max(self.closed_until_ns)
    }

    /// All of its streams have said that they have ended.
    pub fn has_ended(&self) -> bool {
        !self.streams.is_empty() && self.ended.len() == self.streams.len()
    }

    /// Opens the window that ends no earlier than this time, for a point without an increment.
    pub fn touch(&mut self, time_ns: u64, now_ns: u64) {
        let window_ns = self.fold.window_of(time_ns - 1).max(self.oldest_open(now_ns));
        self.open.entry(window_ns).or_default();
    }

    /// Closes every window whose end plus delay has come: its points in order of time, and what they added.
    pub fn close(&mut self, now_ns: u64, began_ns: u64) -> (Vec<Emitted>, Amount) {
        let closed_until_ns = self.fold.window_of(now_ns.saturating_sub(self.fold.delay_ns));
        self.lead_on(closed_until_ns);
        let (mut points, mut added) = (Vec::new(), Amount::default());
        while let Some(entry) = self.open.first_entry() {
            let start_ns = *entry.key();
            if start_ns >= closed_until_ns {
                break;
            }
            let amount = entry.remove();
            let end_ns = start_ns + self.fold.window_ns;
            added.join(&amount);
            if self.is_cumulative {
                self.cumulative(start_ns, end_ns, &amount, began_ns, &mut points);
            } else {
                points.push(self.point(start_ns, end_ns, &amount));
            }
        }
        self.closed_until_ns = self.closed_until_ns.max(closed_until_ns);
        (points, added)
    }

    fn cumulative(
        &mut self,
        start_ns: u64,
        end_ns: u64,
        amount: &Amount,
        began_ns: u64,
        points: &mut Vec<Emitted>,
    ) {
        let opens = self.start_ns.is_none();
        // Before we began to watch, another process may have written; before the switch, somebody else has.
        let first_ns = start_ns.max(began_ns).max(self.opens_ns.unwrap_or_default());
        let series_start_ns = *self.start_ns.get_or_insert(first_ns);
        if opens {
            points.push(self.point(series_start_ns, series_start_ns, &Amount::default()));
        }
        // Where nothing comes any more the series says so twice a window: on the grid its newest sample is new, and `rate` adds nothing at its end.
        if amount.is_nothing() && self.ends_ns.is_some_and(|(at_ns, _)| start_ns >= at_ns) {
            points.push(self.point(series_start_ns, start_ns + self.fold.window_ns / 2, &self.total));
        }
        self.total.join(amount);
        points.push(self.point(series_start_ns, end_ns, &self.total));
        let is_over = self.ends_ns.is_some_and(|(_, until_ns)| end_ns >= until_ns);
        if (is_over || self.has_ended()) && self.open.is_empty() {
            let marker = self.point(series_start_ns, end_ns + STALE_AFTER_NS, &self.total);
            points.push(Emitted { amount: None, ..marker });
            self.is_led_on &= !is_over;
        }
    }

    /// Opens the windows in which a series that a switch has ended says that it still stands, up to the first that ends no earlier than it.
    fn lead_on(&mut self, closed_until_ns: u64) {
        let Some((at_ns, until_ns)) = self.ends_ns.filter(|_| self.is_led_on) else { return };
        let known_ns = self.start_ns.map(|_| self.closed_until_ns);
        let Some(first_ns) = known_ns.or_else(|| self.open.keys().next().copied()) else { return };
        let last_ns = self.fold.window_of(until_ns - 1).min(closed_until_ns.saturating_sub(1));
        let mut window_ns = first_ns.max(self.fold.window_of(at_ns));
        while window_ns <= last_ns {
            self.open.entry(window_ns).or_default();
            window_ns += self.fold.window_ns;
        }
    }

    fn point(&self, start_ns: u64, time_ns: u64, total: &Amount) -> Emitted {
        Emitted { start_ns, time_ns, amount: Some(total.clone()), is_double: self.is_double }
    }
}

/// Splits an amount over the windows between two times, in proportion to time. Up to each window's end the running share has come; whole numbers round it
/// down (`docs/decisions/0007-splitting-integers.md`), and what is left goes to the last window. What is counted at the very end of a window belongs to it.
pub fn split(
    value: &Quantity,
    from_ns: u64,
    to_ns: u64,
    window_ns: u64,
    offset_ns: u64,
) -> Vec<(u64, Quantity)> {
    let last = floor(to_ns.saturating_sub(1), window_ns, offset_ns);
    let (mut parts, mut before) = (Vec::new(), difference(value, value));
    let mut window = floor(from_ns, window_ns, offset_ns);
    while window < last {
        let share = share(value, from_ns, to_ns, window + window_ns);
        parts.push((window, difference(&share, &before)));
        before = share;
        window += window_ns;
    }
    parts.push((last, difference(value, &before)));
    parts
}
