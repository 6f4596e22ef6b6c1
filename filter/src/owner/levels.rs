//! One record of a gauge or up-down counter: a value, or the news that its stream has gone.
//!
//! In: a record of a level. Out: a word in the window of its time. A value whose window has closed is refused and counted: unlike an
//! increment it cannot join a later window, where another value stands. Whoever comes to another series leaves the one before at that time.

use super::folding::move_stream;
use super::{Owner, Target};
use crate::amount::Number;
use crate::record::Record;
use crate::stream::Membership;
use crate::units::UnixNanos;

impl Owner {
    /// Fold one record. Says whether its value is in a series now.
    pub(super) fn fold_level(&mut self, record: &Record, slot: u32, target: &Target) -> bool {
        let (touched_s, time) = (self.uptime_s, record.observation.time);
        let page = self.ledger.page(target.page);
        page.records = page.records.saturating_add(u64::from(!record.ended));
        let crossed = target.turn.is_some_and(|t| t.side.loses() && time >= t.at);
        if record.carried || crossed {
            // Its value is in a raw series, or in that of another owner.
            page.carried = page.carried.saturating_add(u64::from(!record.ended));
        }
        if record.carried {
            return false;
        }
        let known = self.memberships.get(&record.stream);
        if record.ended || crossed {
            if let Some((_, state)) = known.and_then(|at| self.memberships.remove(at)) {
                super::leave(&mut self.series, state.series, false);
                self.leave_level(state.series, record, time);
            }
            return false;
        }
        match known.and_then(|at| self.memberships.state_mut(at)) {
            Some(state) => {
                state.touched_s = touched_s;
                let before = core::mem::replace(&mut state.series, slot);
                if before != slot {
                    move_stream(&mut self.series, before, slot, false);
                    self.leave_level(before, record, time);
                }
            }
            None => {
                if self.memberships.insert(record.stream, Membership { series: slot, touched_s }).is_err() {
                    self.full = true;
                    let page = self.ledger.page(target.page);
                    page.refused = page.refused.saturating_add(1);
                    return false;
                }
                if let Some(series) = self.series.get_mut(slot) {
                    series.streams = series.streams.saturating_add(1);
                }
            }
        }
        self.join_level(record, slot, target, touched_s)
    }

    fn join_level(&mut self, record: &Record, slot: u32, target: &Target, touched_s: u32) -> bool {
        let words_max = self.words_max();
        let Some(series) = self.series.get_mut(slot) else { return false };
        series.touched_s = touched_s;
        let (windows, time) = (series.windows, record.observation.time);
        let page = self.ledger.page(target.page);
        let window = windows.start_of(time.minus(1));
        if self.words >= words_max {
            self.full = true;
            page.refused = page.refused.saturating_add(1);
            return false;
        }
        self.words = self.words.saturating_add(1);
        if window < target.oldest {
            page.late_values = page.late_values.saturating_add(1);
            return false;
        }
        let (opened, news) = series.note(window, record.stream, time, Some(record.observation.value));
        let counter = if news { &mut page.folded } else { &mut page.duplicates };
        *counter = counter.saturating_add(1);
        if opened {
            self.due.entry(windows.closes_at(window)).or_default().push((slot, windows.end_of(window)));
        }
        news
    }

    /// A stream has left the series in a slot at `time`, or in the oldest window that is open.
    fn leave_level(&mut self, slot: u32, record: &Record, time: UnixNanos) {
        let Some(series) = self.series.get_mut(slot) else { return };
        let windows = series.windows;
        let oldest = series.oldest_open(self.closed_at, self.now);
        let window = windows.start_of(time.minus(1)).max(oldest);
        self.words = self.words.saturating_add(1);
        let gone: Option<Number> = None;
        if series.note(window, record.stream, time, gone).0 {
            self.due.entry(windows.closes_at(window)).or_default().push((slot, windows.end_of(window)));
        }
    }
}
