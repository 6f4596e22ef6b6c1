//! One record: what is new in it, and which series takes it.
//!
//! In: a record, the slot of its series, that series' part in a switch. Out: an increment in the windows of one series, or of two when a
//! switch divides it; a count in the ledger for whatever adds nothing.

use super::{Owner, Target, leave};
use crate::amount::Number;
use crate::record::{Record, Temporality};
use crate::series::SeriesTable;
use crate::stream::{Cumulative, Delta, Increment, Nothing, Watch};
use crate::switch::{Divide, Side, Turn, divide};
use crate::table::Slot;
use crate::units::UnixNanos;
use crate::window::Share;

/// What a record turned out to be.
#[derive(Clone, Copy)]
pub(super) enum Observed<A = Number> {
    Increment(Increment<A>),
    Unremembered(Increment<A>),
    Nothing(Nothing),
    Carried,
    Full,
}

impl<A> From<Result<Increment<A>, Nothing>> for Observed<A> {
    fn from(r: Result<Increment<A>, Nothing>) -> Observed<A> {
        match r {
            Ok(inc) => Observed::Increment(inc),
            Err(why) => Observed::Nothing(why),
        }
    }
}

impl Owner {
    /// Fold one record. Says whether its increment joined a series.
    pub(super) fn fold_record(
        &mut self,
        record: &Record,
        stream: Option<Slot>,
        slot: u32,
        target: &Target,
        watch: &Watch,
    ) -> bool {
        let (found, before) = match (record.ended, record.temporality) {
            (true, _) => return self.end(record),
            (_, Temporality::Cumulative) => self.observe_cumulative(record, stream, slot, target, watch),
            (_, Temporality::Delta) => self.observe_delta(record, stream, slot),
        };
        let Some(inc) = self.book(found, slot) else { return false };
        let shares = shares(inc, slot, target.turn, before, record.apart);
        self.join_shares(shares, slot, target, Owner::join)
    }

    /// Count what a record turned out to be; the increment, if it is one.
    pub(super) fn book<A>(&mut self, found: Observed<A>, slot: u32) -> Option<Increment<A>> {
        let touched_s = self.uptime_s;
        let series = self.series.get_mut(slot)?;
        series.touched_s = touched_s;
        let page = self.ledger.page(series.page);
        page.records = page.records.saturating_add(1);
        let (inc, unremembered) = match found {
            Observed::Carried => {
                page.carried = page.carried.saturating_add(1);
                return None;
            }
            Observed::Full => {
                page.refused = page.refused.saturating_add(1);
                return None;
            }
            Observed::Nothing(why) => {
                page.nothing(why);
                return None;
            }
            Observed::Increment(inc) => (inc, false),
            Observed::Unremembered(inc) => (inc, true),
        };
        page.unremembered = page.unremembered.saturating_add(u64::from(unremembered));
        page.resets = page.resets.saturating_add(u64::from(inc.reset));
        Some(inc)
    }

    /// Give both sides of a switch their part of an increment. Says whether there was one.
    pub(super) fn join_shares<A>(
        &mut self,
        Shares { here, there }: Shares<A>,
        slot: u32,
        target: &Target,
        join: fn(&mut Owner, u32, &Increment<A>, UnixNanos) -> bool,
    ) -> bool {
        let joined = here.is_some() || there.is_some();
        let mut late = false;
        if let Some(inc) = here {
            late |= join(self, slot, &inc, target.oldest);
        }
        if let Some((old, inc)) = there
            && let Some(series) = self.series.get(old)
        {
            let oldest = series.oldest_open(self.closed_at, self.now);
            late |= join(self, old, &inc, oldest);
        }
        let Some(series) = self.series.get(slot) else { return joined };
        let page = self.ledger.page(series.page);
        page.late = page.late.saturating_add(u64::from(late));
        let counter = if joined { &mut page.folded } else { &mut page.carried };
        *counter = counter.saturating_add(1);
        joined
    }

    /// Spread an increment over the windows of a series. Says whether a part of it came too late for its own.
    fn join(&mut self, slot: u32, inc: &Increment, oldest: UnixNanos) -> bool {
        let Some(series) = self.series.get_mut(slot) else { return false };
        let page = self.ledger.page(series.page);
        page.increments_in.add(inc.amount);
        let windows = series.windows;
        // What comes to a series from before its beginning is not late.
        let opens = series.opens_at();
        let due = &mut self.due;
        let mut late = false;
        let given = Share::new(inc.amount, inc.to.since(inc.from));
        windows.split(given, inc.from, inc.to, oldest, |part| {
            late |= part.late && part.window > opens;
            if series.add(part.window, part.amount) {
                let at = windows.closes_at(part.window);
                due.entry(at).or_default().push((slot, windows.end_of(part.window)));
            }
        });
        late
    }

    /// What is new in a point of a cumulative stream, and the series that the stream folded into before, if it was known.
    fn observe_cumulative(
        &mut self,
        record: &Record,
        stream: Option<Slot>,
        slot: u32,
        target: &Target,
        watch: &Watch,
    ) -> (Observed, Option<u32>) {
        let touched_s = self.uptime_s;
        let crossed = target.turn.filter(|t| t.side.loses() && record.observation.time >= t.at);
        // What was not there when the lookups were made may have come with a record since.
        if let Some(at) = stream.or_else(|| self.cumulative.get(&record.stream))
            && let Some(state) = self.cumulative.state_mut(at)
        {
            // Not heard of since before its fold came (back) into force: what it counted meanwhile went out raw.
            let is_stranger = state.touched_s < target.since_s;
            state.touched_s = touched_s;
            let before = follow(state, record.observation.time, &mut self.series, slot);
            if record.carried || crossed.is_some_and(|t| state.last() >= t.at) {
                state.carried(&record.observation);
                return (Observed::Carried, Some(before));
            }
            if is_stranger {
                state.carried(&record.observation);
                return (Observed::Nothing(Nothing::Baseline), Some(before));
            }
            return (state.next(&record.observation).into(), Some(before));
        }
        if crossed.is_some_and(|t| t.side.is_raw_after()) {
            // Nothing of it folded before, and nothing will.
            return (Observed::Carried, None);
        }
        let watch = Watch { began: watch.began.max(target.since), ..*watch };
        let (mut state, first) = Cumulative::first(&record.observation, &watch, slot);
        state.touched_s = touched_s;
        if self.cumulative.insert(record.stream, state).is_err() {
            self.full = true;
            if record.carried {
                // Later it must not seem to be born: what it counts now went out raw.
                self.forgotten = self.forgotten.max(record.observation.time);
                return (Observed::Carried, None);
            }
            return (Observed::Full, None);
        }
        if let Some(series) = self.series.get_mut(slot) {
            series.streams = series.streams.saturating_add(1);
        }
        (if record.carried { Observed::Carried } else { first.into() }, None)
    }

    pub(super) fn observe_delta(
        &mut self,
        record: &Record,
        stream: Option<Slot>,
        slot: u32,
    ) -> (Observed, Option<u32>) {
        let touched_s = self.uptime_s;
        let (at, known) = match stream.or_else(|| self.delta.get(&record.stream)) {
            Some(at) => (at, true),
            None => {
                let mut new = Delta::new(slot);
                let Ok(at) = self.delta.insert(record.stream, new) else {
                    if record.carried {
                        return (Observed::Carried, None);
                    }
                    // Added all the same: only a repetition of it could not be told.
                    let found = match new.next(&record.observation) {
                        Ok(inc) => Observed::Unremembered(inc),
                        Err(why) => Observed::Nothing(why),
                    };
                    return (found, None);
                };
                if let Some(series) = self.series.get_mut(slot) {
                    series.streams = series.streams.saturating_add(1);
                }
                (at, false)
            }
        };
        let Some(state) = self.delta.state_mut(at) else { return (Observed::Full, None) };
        state.touched_s = touched_s;
        let before = state.series;
        if before != slot {
            state.series = slot;
            move_stream(&mut self.series, before, slot, false);
        }
        let found = state.next(&record.observation);
        (if record.carried { Observed::Carried } else { found.into() }, known.then_some(before))
    }

    /// A stream says that it has ended.
    fn end(&mut self, record: &Record) -> bool {
        let Some(at) = self.cumulative.get(&record.stream) else { return false };
        let Some(state) = self.cumulative.state_mut(at) else { return false };
        if !state.end(record.observation.time) {
            return false;
        }
        let slot = state.series();
        self.end_of_stream(slot, record.observation.time);
        false
    }

    /// One of the streams of a series has ended. When it was the last one, the series ends with the window of that time.
    pub(super) fn end_of_stream(&mut self, slot: u32, time: UnixNanos) {
        let Some(series) = self.series.get_mut(slot) else { return };
        series.ended = series.ended.saturating_add(1);
        if series.has_ended() {
            let windows = series.windows;
            let oldest = series.oldest_open(self.closed_at, self.now);
            let window = oldest.max(windows.start_of(time.minus(1)));
            if series.touch(window) {
                let due = self.due.entry(windows.closes_at(window)).or_default();
                due.push((slot, windows.end_of(window)));
            }
        }
    }
}

/// A stream speaks again, under a series: it goes on if it had ended, and moves if it folded into another one. Says into which.
pub(super) fn follow(line: &mut Cumulative, time: UnixNanos, series: &mut SeriesTable, slot: u32) -> u32 {
    let before = line.series();
    if line.has_ended() && time > line.last() {
        line.revive();
        if let Some(series) = series.get_mut(before) {
            series.ended = series.ended.saturating_sub(1);
        }
    }
    if before != slot {
        line.set_series(slot);
        move_stream(series, before, slot, line.has_ended());
    }
    before
}

pub(super) fn move_stream(series: &mut SeriesTable, from: u32, to: u32, ended: bool) {
    leave(series, from, ended);
    if let Some(s) = series.get_mut(to) {
        s.streams = s.streams.saturating_add(1);
        s.ended = s.ended.saturating_add(u32::from(ended));
    }
}

/// Who takes which part of an increment.
pub(super) struct Shares<A> {
    here: Option<Increment<A>>,
    there: Option<(u32, Increment<A>)>,
}

/// Divide an increment of a record between its series and the one that its stream folded into before a switch. `apart`: another
/// owner takes the part on the other side.
pub(super) fn shares<A: Divide>(
    inc: Increment<A>,
    slot: u32,
    turn: Option<Turn>,
    before: Option<u32>,
    apart: bool,
) -> Shares<A> {
    let Some(turn) = turn else { return Shares { here: Some(inc), there: None } };
    match turn.side {
        Side::OpensAfterFold if apart => Shares { here: divide(&inc, turn.at).1, there: None },
        Side::ClosesForFold if apart => Shares { here: divide(&inc, turn.at).0, there: None },
        Side::OpensAfterFold => match before.filter(|before| *before != slot) {
            Some(old) => {
                let (first, second) = divide(&inc, turn.at);
                Shares { here: second, there: first.map(|first| (old, first)) }
            }
            None => Shares { here: Some(inc), there: None },
        },
        Side::OpensAfterRaw | Side::ClosesForRaw | Side::ClosesForFold | Side::LeavesForRaw => {
            Shares { here: Some(inc), there: None }
        }
    }
}
