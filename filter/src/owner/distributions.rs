//! One record of a distribution: what is new in it.
//!
//! In: a record with its atom. Out: as for sums, an increment in the windows of one series or of two; here each part is a whole
//! distribution (trap 9). Cumulative streams remember their last point as an atom, bounded by the plan's `histogram_bytes_max`; streams of
//! deltas stand in the table that all deltas share.

use super::folding::{Observed, follow, shares};
use super::{Owner, Target};
use crate::distribution::{Distribution, Share};
use crate::record::{Record, Temporality};
use crate::stream::{Increment, Nothing, Snapshot, Watch};
use crate::table::Slot;
use crate::units::UnixNanos;

impl Owner {
    /// Fold one record. Says whether its increment joined a series.
    pub(super) fn fold_distribution(
        &mut self,
        atom: &[u8],
        record: &Record,
        stream: Option<Slot>,
        slot: u32,
        target: &Target,
        watch: &Watch,
    ) -> bool {
        if record.ended {
            return self.end_snapshot(record);
        }
        // Checked with its message.
        let Ok(it) = Distribution::read(atom) else { return false };
        let (found, before) = match record.temporality {
            Temporality::Cumulative => self.observe_snapshot(record, atom, it, slot, target, watch),
            Temporality::Delta => {
                let (found, before) = self.observe_delta(record, stream, slot);
                let with = |i: Increment| Increment { amount: it, from: i.from, to: i.to, reset: i.reset };
                let found = match found {
                    Observed::Increment(i) => Observed::Increment(with(i)),
                    Observed::Unremembered(i) => Observed::Unremembered(with(i)),
                    Observed::Nothing(why) => Observed::Nothing(why),
                    Observed::Carried => Observed::Carried,
                    Observed::Full => Observed::Full,
                };
                (found, before)
            }
        };
        let Some(inc) = self.book(found, slot) else { return false };
        let shares = shares(inc, slot, target.turn, before, record.apart);
        self.join_shares(shares, slot, target, Owner::join_distribution)
    }

    /// Spread an increment over the windows of a series. Says whether a part of it came too late for its own.
    fn join_distribution(&mut self, slot: u32, inc: &Increment<Distribution>, oldest: UnixNanos) -> bool {
        let Some(series) = self.series.get_mut(slot) else { return false };
        let page = self.ledger.page(series.page);
        page.increments_in.merge(&inc.amount.books());
        if self.snapshot_bytes.saturating_add(self.content_bytes) > self.settings.histogram_bytes_max {
            // No room to spread it: all of it joins one window, and workers let the next points pass.
            self.full = true;
            let windows = series.windows;
            if series.add_distribution(oldest, &inc.amount) {
                self.content_bytes = self.content_bytes.saturating_add(inc.amount.heap_bytes());
                self.due.entry(windows.closes_at(oldest)).or_default().push((slot, windows.end_of(oldest)));
            }
            return true;
        }
        let (windows, opens, due) = (series.windows, series.opens_at(), &mut self.due);
        let mut late = false;
        let mut opened_bytes = 0usize;
        let given = Share::new(&inc.amount, inc.to.since(inc.from));
        windows.split(given, inc.from, inc.to, oldest, |part| {
            late |= part.late && part.window > opens;
            if series.add_distribution(part.window, &part.amount) {
                opened_bytes = opened_bytes.saturating_add(part.amount.heap_bytes());
                let at = windows.closes_at(part.window);
                due.entry(at).or_default().push((slot, windows.end_of(part.window)));
            }
        });
        self.content_bytes = self.content_bytes.saturating_add(opened_bytes);
        late
    }

    /// What is new in a point of a cumulative stream, and the series that the stream folded into before, if it was known. Step by step
    /// what is done for a number.
    fn observe_snapshot(
        &mut self,
        record: &Record,
        atom: &[u8],
        it: Distribution,
        slot: u32,
        target: &Target,
        watch: &Watch,
    ) -> (Observed<Distribution>, Option<u32>) {
        let (touched_s, seen) = (self.uptime_s, &record.observation);
        let crossed = target.turn.filter(|t| t.side.loses() && seen.time >= t.at);
        if let Some(at) = self.snapshots.get(&record.stream)
            && let Some(state) = self.snapshots.state_mut(at)
        {
            let is_stranger = state.line.touched_s < target.since_s;
            state.line.touched_s = touched_s;
            let before = follow(&mut state.line, seen.time, &mut self.series, slot);
            let bytes_before = state.heap_bytes();
            let found = if record.carried || crossed.is_some_and(|t| state.line.last() >= t.at) {
                state.carried(seen, atom);
                Observed::Carried
            } else if is_stranger {
                state.carried(seen, atom);
                Observed::Nothing(Nothing::Baseline)
            } else {
                state.next(seen, atom, it).into()
            };
            let bytes = self.snapshot_bytes.saturating_add(state.heap_bytes());
            self.snapshot_bytes = bytes.saturating_sub(bytes_before);
            return (found, Some(before));
        }
        if crossed.is_some_and(|t| t.side.is_raw_after()) {
            return (Observed::Carried, None);
        }
        (self.meet_snapshot(record, atom, it, slot, target, watch), None)
    }

    /// The first point of a stream.
    fn meet_snapshot(
        &mut self,
        record: &Record,
        atom: &[u8],
        it: Distribution,
        slot: u32,
        target: &Target,
        watch: &Watch,
    ) -> Observed<Distribution> {
        let watch = Watch { began: watch.began.max(target.since), ..*watch };
        let (mut state, first) = Snapshot::first(&record.observation, atom, it, &watch, slot);
        state.line.touched_s = self.uptime_s;
        let bytes = state.heap_bytes();
        let has_room = self.histogram_bytes().saturating_add(bytes) <= self.settings.histogram_bytes_max;
        if !has_room || self.snapshots.insert(record.stream, state).is_err() {
            self.full = true;
            if record.carried {
                // Later it must not seem to be born: what it counts now went out raw.
                self.forgotten = self.forgotten.max(record.observation.time);
                return Observed::Carried;
            }
            return Observed::Full;
        }
        self.snapshot_bytes = self.snapshot_bytes.saturating_add(bytes);
        if let Some(series) = self.series.get_mut(slot) {
            series.streams = series.streams.saturating_add(1);
        }
        if record.carried { Observed::Carried } else { first.into() }
    }

    /// A stream says that it has ended.
    fn end_snapshot(&mut self, record: &Record) -> bool {
        if let Some(at) = self.snapshots.get(&record.stream)
            && let Some(state) = self.snapshots.state_mut(at)
            && state.line.end(record.observation.time)
        {
            let slot = state.line.series();
            self.end_of_stream(slot, record.observation.time);
        }
        false
    }
}
