//! The owner of a shard: records in, emissions out. The lower line of the picture in `docs/architecture.md`.
//!
//! ```text
//! message ──▶ streams (what is new?) ──▶ series (which windows?) ──▶ due windows close ──▶ outbox ──▶ answers ──▶ ledger
//! ```
//!
//! One owner per shard and embedder process, however many workers scan. `now` is the embedder's clock and comes in with every
//! call; it is never allowed to run backwards here. Under `clock: event` (tests) `now` follows the newest point instead.
//!
//! Invariants: a message changes nothing or all that it says; increments in = acknowledged + in the outbox + open + abandoned,
//! always ([`Owner::balance`]); memory is bounded by the plan's limits; a plan never rebuilds state, a new hash key does.

use crate::affinity::Sample;
use crate::amount::Amount;
use crate::emit::{Answer, Emission, Entry, Labels, Outbox};
use crate::hash::Identity;
use crate::kind::Kind;
use crate::ledger::{Ledger, PageId};
use crate::limits::{
    AHEAD_MAX_NS, CLOCK_SET_BACK_NS, EXEMPLARS_BYTES_MAX, LEAP_NS, SWEEP_SLOTS, WORDS_PER_STREAM,
};
use crate::record::{Message, Record, RecordError, SeriesHead, Temporality};
use crate::series::{Head, Series, SeriesTable};
use crate::stream::{Cumulative, Delta, Membership, Snapshot, Watch};
use crate::switch::Turn;
use crate::table::{Keep, Slot, StreamTable};
use crate::units::{Since, UnixNanos};
use phoenix_plan::{Clock, Plan};
use std::collections::BTreeMap;

mod distributions;
mod folding;
mod levels;

/// What an owner takes from a plan.
#[derive(Clone, Debug, PartialEq)]
struct Settings {
    clock: Clock,
    key: u64,
    mark_label: String,
    writer_label: String,
    writer: String,
    margin_ns: u64,
    expiry_ns: u64,
    emission_bytes_max: usize,
    backlog_bytes_max: usize,
    histogram_bytes_max: usize,
    shards: u32,
}

/// Folds the records of one shard.
pub struct Owner {
    settings: Settings,
    /// Of which shard, from 0.
    shard: usize,
    began: Option<UnixNanos>,
    now: UnixNanos,
    /// Time that has passed while we watched, without leaps of the clock: what silence is measured by.
    uptime_ns: u64,
    /// The same in whole seconds, once for all records of a message.
    uptime_s: u32,
    /// The clock at the last closing: windows that had closed by then take nothing more.
    closed_at: UnixNanos,
    forgotten: UnixNanos,
    cumulative: StreamTable<Cumulative>,
    delta: StreamTable<Delta>,
    /// Cumulative streams of distributions …
    snapshots: StreamTable<Snapshot>,
    /// … with the bytes of their last points.
    snapshot_bytes: usize,
    memberships: StreamTable<Membership>,
    series: SeriesTable,
    /// Windows by the time at which they close: slot of the series, end of the window.
    due: BTreeMap<UnixNanos, Vec<(u32, UnixNanos)>>,
    outbox: Outbox,
    ledger: Ledger,
    /// Of the message at hand, for each series in its dictionary.
    slots: Vec<Target>,
    /// Of the message at hand, the next records with the slots of their streams.
    found: Vec<(Record, Option<Slot>)>,
    /// A table of streams is full, and was not yet a twentieth below.
    full: bool,
    /// The series of distributions took so many bytes at the last tick, and what came since.
    content_bytes: usize,
    /// Words of streams that levels held then, and what came since; bytes of exemplars, likewise.
    words: usize,
    exemplar_bytes: usize,
}

/// Where the points of a series go.
struct Target {
    /// Its slot; none when even the overflow series found no room.
    slot: Option<u32>,
    /// What it is.
    kind: Kind,
    page: PageId,
    /// The slot is that of the overflow series.
    overflows: bool,
    /// The series' part in a switch.
    turn: Option<Turn>,
    /// Start of its oldest open window: nothing closes while a message is folded.
    oldest: UnixNanos,
    /// Since when its streams are recorded, by the embedder's clock …
    since: UnixNanos,
    /// … and who was not heard of since then, by ours, did not fold when that began.
    since_s: u32,
}

/// Records whose streams are looked up before the first of them is folded. The lookups do not wait for one another, so that the waits for
/// memory overlap: of a million streams none is in a cache. More than a processor has loads in flight gains nothing.
const LOOKUPS: usize = 16;

impl Owner {
    /// An owner of a shard, numbered from 0, that has seen nothing. `key` is the fingerprint of the plan's hash key, `writer` who we are when the
    /// plan does not say.
    pub fn new(plan: &Plan, key: u64, writer: &str, shard: usize) -> Owner {
        Owner {
            settings: settings(plan, key, writer),
            shard,
            began: None,
            now: UnixNanos(0),
            uptime_ns: 0,
            uptime_s: 0,
            closed_at: UnixNanos(0),
            forgotten: UnixNanos(0),
            cumulative: StreamTable::new(plan.limits.streams_max),
            delta: StreamTable::new(plan.limits.delta_streams_max),
            snapshots: StreamTable::new(plan.limits.streams_max),
            snapshot_bytes: 0,
            memberships: StreamTable::new(plan.limits.gauge_streams_max),
            series: SeriesTable::new(plan.limits.series_max),
            due: BTreeMap::new(),
            outbox: Outbox::default(),
            ledger: Ledger::default(),
            slots: Vec::new(),
            found: Vec::new(),
            full: false,
            content_bytes: 0,
            words: 0,
            exemplar_bytes: 0,
        }
    }

    /// Begin to watch, if that has not happened: from now on a stream may be seen to be born.
    pub fn begin(&mut self, now: UnixNanos) {
        // The clock goes on in `advance` alone: only there time counts as silence.
        if self.settings.clock == Clock::Wall && self.began.is_none() {
            self.began = Some(now);
            self.now = self.now.max(now);
        }
    }

    /// Points have come, whether any of them folds or not: under `clock: event` watching begins with them, as with the process under the wall clock.
    pub fn meet(&mut self, newest: UnixNanos) {
        if self.settings.clock == Clock::Event && self.began.is_none() && newest.is_given() {
            self.begin_at(newest);
        }
    }

    /// By the points' clock: what lies further back than the delay had closed before we began, as under the wall clock.
    fn begin_at(&mut self, newest: UnixNanos) {
        self.advance(newest);
        if self.began.is_none() {
            (self.began, self.closed_at) = (Some(self.now), self.now);
        }
    }

    /// A new plan. State stays, whatever the plan says, but for a new hash key: that is a restart. What is open goes out at once,
    /// and every stream is a stranger again.
    pub fn configure(&mut self, plan: &Plan, key: u64, writer: &str, now: UnixNanos) {
        let new = settings(plan, key, writer);
        if new.key != self.settings.key {
            self.restart(now);
        }
        if (&new.writer, &new.writer_label, &new.mark_label)
            != (&self.settings.writer, &self.settings.writer_label, &self.settings.mark_label)
        {
            self.series.iter_mut().for_each(Series::reopen);
        }
        self.settings = new;
        self.cumulative.set_max(plan.limits.streams_max);
        self.delta.set_max(plan.limits.delta_streams_max);
        self.snapshots.set_max(plan.limits.streams_max);
        self.memberships.set_max(plan.limits.gauge_streams_max);
        self.series.set_max(plan.limits.series_max);
    }

    /// End every series a moment before now, and begin anew: series under the new key have the same labels as those under the
    /// old one, and must not write into their time.
    fn restart(&mut self, now: UnixNanos) {
        if self.settings.clock == Clock::Wall {
            self.close_due(now);
        }
        let (at, began) = (self.now.minus(1_000_000), self.began.unwrap_or_default());
        let mut entries = Vec::new();
        for (slot, series) in self.series.iter_slots_mut() {
            if let Some(closed) = series.close_all(at, began) {
                entries.push(Entry { slot, id: series.id, page: series.page, closed });
            }
        }
        self.pack(entries);
        self.due.clear();
        self.delta.clear();
        self.memberships.clear();
        self.rebaseline();
        self.series.clear();
        self.began = None;
    }

    /// Points went out raw that could not be remembered: count no stream on from before. Never inflates; what came in between is
    /// carried by the raw points.
    pub fn rebaseline(&mut self) {
        self.cumulative.clear();
        self.snapshots.clear();
        self.snapshot_bytes = 0;
        // Senders' clocks may be ahead of ours, by no more than this: points further ahead are never folded.
        self.forgotten = self.forgotten.max(self.now.plus(AHEAD_MAX_NS));
        for s in self.series.iter_mut() {
            (s.streams, s.ended) = (0, 0);
        }
        let deltas = self.delta.iter().map(|(_, _, state)| state.series);
        for slot in deltas.chain(self.memberships.iter().map(|(_, _, state)| state.series)) {
            if let Some(s) = self.series.get_mut(slot) {
                s.streams = s.streams.saturating_add(1);
            }
        }
    }

    /// Nothing is open and nothing waits for an answer.
    pub fn is_drained(&self) -> bool {
        self.outbox.is_empty() && self.series.iter().all(Series::is_idle)
    }

    /// Fold a message of records. An error says that nothing of it was folded.
    pub fn fold(&mut self, message: &[u8], now: UnixNanos) -> Result<(), RecordError> {
        let read = Message::read(message).and_then(|m| m.check().map(|()| m));
        let message = match read {
            Ok(m) => m,
            Err(e) => {
                self.ledger.unreadable = self.ledger.unreadable.saturating_add(1);
                return Err(e);
            }
        };
        if message.key != self.settings.key {
            let records = u64::try_from(message.len()).unwrap_or(u64::MAX);
            self.ledger.foreign_key = self.ledger.foreign_key.saturating_add(records);
            return Ok(());
        }
        match self.settings.clock {
            Clock::Wall => {
                self.begin(message.arrived);
                self.close_due(now);
                self.fold_records(&message, message.arrived);
            }
            Clock::Event => {
                let newest =
                    message.records().flatten().map(|r| r.observation.time).max().unwrap_or_default();
                self.begin_at(newest);
                self.fold_records(&message, self.now);
                self.close_due(self.now);
            }
        }
        Ok(())
    }

    fn fold_records(&mut self, message: &Message<'_>, arrived: UnixNanos) {
        let mut slots = core::mem::take(&mut self.slots);
        slots.clear();
        for head in message.heads().flatten() {
            let ledger = &mut self.ledger;
            let found = self.series.slot_of(head.id, || Series::new(&head, ledger.page_of(head.metric)));
            let overflows = found.is_none();
            let slot = found.or_else(|| self.overflow(&head));
            let (mut oldest, mut page) = (UnixNanos(0), None);
            if let Some(series) = slot.and_then(|slot| self.series.get_mut(slot)) {
                page = Some(series.page);
                series.meet(&head, self.settings.expiry_ns);
                oldest = series.oldest_open(self.closed_at, self.now);
            }
            // Who was not heard of since then did not fold when this began.
            let patience_ns = head.windows.width_ns.saturating_add(head.windows.delay_ns);
            let Since { at: since, heard } = head.since;
            // Under a clock that was set back that lies ahead: then those of late.
            let ago_ns = if heard > self.now { patience_ns } else { self.now.since(heard) };
            let since_s = if heard.is_given() { seconds(self.uptime_ns.saturating_sub(ago_ns)) } else { 0 };
            let (kind, turn) = (head.kind, head.turn);
            let page = page.unwrap_or_else(|| self.ledger.page_of(head.metric));
            slots.push(Target { slot, kind, page, overflows, turn, oldest, since, since_s });
        }
        let watch = Watch {
            began: self.began.unwrap_or_default(),
            arrived,
            margin_ns: self.settings.margin_ns,
            forgotten: self.forgotten,
        };
        let mut records = message.records().flatten();
        let mut found = core::mem::take(&mut self.found);
        loop {
            found.clear();
            found.extend(records.by_ref().take(LOOKUPS).map(|record| (record, None)));
            if found.is_empty() {
                break;
            }
            for (record, slot) in &mut found {
                *slot = match record.temporality {
                    // Distributions and levels look for themselves: they are few among many.
                    Temporality::Cumulative if record.atom => None,
                    Temporality::Cumulative => self.cumulative.get(&record.stream),
                    Temporality::Delta => self.delta.get(&record.stream),
                };
            }
            for (record, stream) in &found {
                self.fold_into(message, record, *stream, &slots, &watch);
            }
        }
        for (series, exemplar) in message.exemplars().flatten() {
            let target = usize::try_from(series).ok().and_then(|at| slots.get(at));
            if self.exemplar_bytes < EXEMPLARS_BYTES_MAX
                && let Some(series) = target.and_then(|t| t.slot).and_then(|slot| self.series.get_mut(slot))
            {
                self.exemplar_bytes = self.exemplar_bytes.saturating_add(exemplar.bytes.len());
                series.offer(exemplar);
            }
        }
        self.found = found;
        self.slots = slots;
    }

    /// Fold one record into its series, or count it where there is none.
    fn fold_into(
        &mut self,
        message: &Message<'_>,
        record: &Record,
        stream: Option<Slot>,
        slots: &[Target],
        watch: &Watch,
    ) {
        let at = usize::try_from(record.series).unwrap_or(usize::MAX);
        match slots.get(at) {
            Some(target @ Target { slot: Some(slot), page, overflows, .. }) => {
                let folded = match target.kind {
                    Kind::Sum { .. } => self.fold_record(record, stream, *slot, target, watch),
                    Kind::Level { .. } => self.fold_level(record, *slot, target),
                    Kind::Histogram | Kind::Exponential | Kind::Summary => {
                        self.fold_distribution(message.atom(record), record, stream, *slot, target, watch)
                    }
                };
                if *overflows {
                    let page = self.ledger.page(*page);
                    page.overflowed = page.overflowed.saturating_add(u64::from(folded));
                }
            }
            Some(Target { slot: None, page, .. }) => {
                let page = self.ledger.page(*page);
                page.records = page.records.saturating_add(1);
                page.refused = page.refused.saturating_add(1);
            }
            None => {}
        }
    }

    /// The slot of the series that takes the points of one that found the table full: its metric's total is kept, its labels are
    /// not. Each shard has one, and of histograms one for each set of bounds: the mark keeps them apart.
    fn overflow(&mut self, head: &SeriesHead<'_>) -> Option<u32> {
        let (settings, shard, ledger) = (&self.settings, self.shard, &mut self.ledger);
        self.series.slot_of_overflow(head.overflow, || {
            let mut mark = b"(overflow)".to_vec();
            if settings.shards > 1 {
                mark.extend_from_slice(format!(";shard={shard}").as_bytes());
            }
            if head.kind == Kind::Histogram {
                let bounds = head.mark.iter().rposition(|byte| *byte == b';');
                mark.extend_from_slice(bounds.and_then(|at| head.mark.get(at..)).unwrap_or_default());
            }
            let bare = SeriesHead {
                id: head.overflow,
                mark: &mark,
                resource: b"",
                resource_schema: b"",
                scope: b"",
                scope_schema: b"",
                attributes: b"",
                ..*head
            };
            Series::new(&bare, ledger.page_of(bare.metric))
        })
    }

    /// The clock went on: close what is due, look for streams that have gone.
    pub fn tick(&mut self, now: UnixNanos) {
        if self.settings.clock == Clock::Wall {
            self.close_due(now);
        }
        self.forget_silent();
        self.weigh();
    }

    /// How much do the contents of windows and totals take? Between ticks only what joins is added up.
    fn weigh(&mut self) {
        let heavy = self.series.iter().filter(|s| s.head.kind.is_distribution());
        self.content_bytes = heavy.fold(0, |sum, s| sum.saturating_add(s.heap_bytes()));
        if self.words > 0 {
            self.words = self.series.iter().fold(0, |sum, s| sum.saturating_add(s.words()));
        }
        if self.exemplar_bytes > 0 {
            self.exemplar_bytes = self.series.iter().fold(0, |sum, s| sum.saturating_add(s.exemplar_bytes()));
        }
        let below =
            |len: usize, max: u32| len <= usize::try_from(max.saturating_sub(max / 20)).unwrap_or(usize::MAX);
        let limit = self.settings.histogram_bytes_max;
        let has_room = below(self.cumulative.len(), self.cumulative.max())
            && below(self.snapshots.len(), self.snapshots.max())
            && below(self.memberships.len(), self.memberships.max())
            && self.words <= self.words_max() / 2
            && self.histogram_bytes() <= limit.saturating_sub(limit / 20);
        self.full = self.full && !has_room;
    }

    /// Words that levels may hold: each stream its last one, and one in a few windows.
    fn words_max(&self) -> usize {
        usize::try_from(self.memberships.max()).unwrap_or(usize::MAX).saturating_mul(WORDS_PER_STREAM)
    }

    /// What histograms and summaries take: the last point of each stream, windows and totals.
    pub fn histogram_bytes(&self) -> usize {
        self.snapshot_bytes.saturating_add(self.content_bytes)
    }

    /// Is a table of streams full, or what histograms may take? Then workers should let points pass raw instead of cutting them out: the streams
    /// that are not known here could not be counted.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Close every window that is due. Of a tenant whose backlog is full they go into the next window instead: emissions become
    /// fewer, and nothing is lost.
    fn close_due(&mut self, now: UnixNanos) {
        self.advance(now);
        while let Some(entry) = self.due.first_entry() {
            if *entry.key() > self.now {
                break;
            }
            let list = entry.remove();
            self.close_windows(&list);
        }
        self.closed_at = self.closed_at.max(self.now);
    }

    /// The clock reads `now`. It never runs backwards here, unless it was set back by more than a jitter; and a leap forward
    /// counts as little silence, for it says more about the clock than about the streams.
    fn advance(&mut self, now: UnixNanos) {
        if self.settings.clock == Clock::Wall && now.plus(CLOCK_SET_BACK_NS) < self.now {
            self.set_back(now);
        }
        let step_ns = now.since(self.now);
        let counted_ns = match self.settings.clock {
            Clock::Wall => step_ns.min(LEAP_NS),
            Clock::Event => step_ns,
        };
        self.uptime_ns = self.uptime_ns.saturating_add(counted_ns);
        self.uptime_s = seconds(self.uptime_ns);
        self.now = self.now.max(now);
    }

    /// The clock was ahead and was set back. What came in meanwhile stands in windows that would close only when the clock gets
    /// there again: it goes into the oldest window that is open now.
    fn set_back(&mut self, now: UnixNanos) {
        self.now = now;
        self.closed_at = self.closed_at.min(now);
        let latest = now.plus(AHEAD_MAX_NS);
        for (slot, series) in self.series.iter_slots_mut() {
            let windows = series.windows;
            let window = series.oldest_open(self.closed_at, now);
            if series.pull_back(latest, window) {
                let due = self.due.entry(windows.closes_at(window)).or_default();
                due.push((slot, windows.end_of(window)));
            }
        }
    }

    fn close_windows(&mut self, list: &[(u32, UnixNanos)]) {
        let began = self.began.unwrap_or_default();
        let mut entries: Vec<Entry> = Vec::with_capacity(list.len());
        for &(slot, end) in list {
            let Some(series) = self.series.get_mut(slot) else { continue };
            let windows = series.windows;
            let window = windows.closed_before(self.now);
            let full = self.outbox.is_full_for(&series.head.tenant, self.settings.backlog_bytes_max);
            if full && windows.closes_at(window) > self.now {
                if series.defer(end, window) {
                    let due = self.due.entry(windows.closes_at(window)).or_default();
                    due.push((slot, windows.end_of(window)));
                }
            } else if let Some(closed) = series.close(end, began) {
                if let Some(window) = series.next_flat(closed.time)
                    && series.touch(window)
                {
                    let due = self.due.entry(windows.closes_at(window)).or_default();
                    due.push((slot, windows.end_of(window)));
                }
                entries.push(Entry { slot, id: series.id, page: series.page, closed });
            }
        }
        self.pack(entries);
    }

    fn pack(&mut self, entries: Vec<Entry>) {
        let points: Vec<(&Head, Entry)> =
            entries.into_iter().filter_map(|e| Some((&self.series.get(e.slot)?.head, e))).collect();
        let s = &self.settings;
        let labels = Labels { mark: &s.mark_label, writer: &s.writer_label, writer_value: &s.writer };
        self.outbox.pack(points, &labels, s.emission_bytes_max);
    }

    /// Forget streams that have been silent for longer than the plan's expiry, a few slots a tick; then series without streams.
    fn forget_silent(&mut self) {
        let now_s = seconds(self.uptime_ns);
        let expiry_s = u32::try_from(self.settings.expiry_ns / 1_000_000_000).unwrap_or(u32::MAX);
        let silent = |touched_s: u32| now_s.saturating_sub(touched_s) > expiry_s;
        let (series, forgotten) = (&mut self.series, &mut self.forgotten);
        self.cumulative.sweep(SWEEP_SLOTS, |_, state| {
            if !silent(state.touched_s) {
                return Keep::Keep;
            }
            *forgotten = (*forgotten).max(state.last());
            leave(series, state.series(), state.has_ended());
            Keep::Remove
        });
        self.delta.sweep(SWEEP_SLOTS, |_, state| {
            if !silent(state.touched_s) {
                return Keep::Keep;
            }
            leave(series, state.series, false);
            Keep::Remove
        });
        let bytes = &mut self.snapshot_bytes;
        self.snapshots.sweep(SWEEP_SLOTS, |_, state| {
            if !silent(state.line.touched_s) {
                return Keep::Keep;
            }
            *forgotten = (*forgotten).max(state.line.last());
            *bytes = bytes.saturating_sub(state.heap_bytes());
            leave(series, state.line.series(), state.line.has_ended());
            Keep::Remove
        });
        self.memberships.sweep(SWEEP_SLOTS, |_, state| {
            if !silent(state.touched_s) {
                return Keep::Keep;
            }
            leave(series, state.series, false);
            Keep::Remove
        });
        let gone = |s: &Series| s.streams == 0 && s.is_idle() && !s.has_members() && silent(s.touched_s);
        series.sweep(SWEEP_SLOTS, gone);
    }

    /// The next emission that may be sent now. It counts as in flight from here.
    pub fn next_emission(&mut self, now: UnixNanos) -> Option<&Emission> {
        self.outbox.next(now)
    }

    /// Everything that has no definite answer yet, oldest first.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// What the upstream said to an emission. A refusal puts its increments back into the oldest open windows.
    pub fn answer(&mut self, sequence: u64, answer: Answer, now: UnixNanos) {
        let Some(emission) = self.outbox.answer(sequence, answer, now) else { return };
        if answer == Answer::Refused {
            self.ledger.emissions_refused = self.ledger.emissions_refused.saturating_add(1);
        }
        for entry in &emission.entries {
            let page = self.ledger.page(entry.page);
            if answer == Answer::Accepted {
                page.emitted = page.emitted.saturating_add(1);
                page.increments_out.merge(&entry.closed.content.books());
                if let Some(series) = self.series.get_mut(entry.slot).filter(|s| s.id == entry.id) {
                    series.accepted(&entry.closed);
                }
                continue;
            }
            let Some(series) = self.series.get_mut(entry.slot).filter(|s| s.id == entry.id) else {
                page.abandoned = page.abandoned.saturating_add(1);
                page.increments_abandoned.merge(&entry.closed.content.books());
                continue;
            };
            let windows = series.windows;
            let oldest = series.oldest_open(self.closed_at, self.now);
            let window = oldest.max(windows.start_of(entry.closed.time));
            if series.take_back(&entry.closed, window) {
                let due = self.due.entry(windows.closes_at(window)).or_default();
                due.push((entry.slot, windows.end_of(window)));
            }
        }
    }

    /// The embedder has dropped all calls without telling: what was in flight is sent again.
    pub fn forget_flights(&mut self) {
        self.outbox.forget_flights();
    }

    /// Of the cumulative streams that had a point within the last `recent_ns`: which they are, by a sample. `blind` hides who they are.
    pub fn sample(&self, recent_ns: u64, blind: impl Fn(Identity) -> u64) -> Sample {
        let since_s = seconds(self.uptime_ns.saturating_sub(recent_ns));
        let numbers = self.cumulative.iter().map(|(_, id, state)| (id, state.touched_s));
        let snapshots = self.snapshots.iter().map(|(_, id, state)| (id, state.line.touched_s));
        let levels = self.memberships.iter().map(|(_, id, state)| (id, state.touched_s));
        let recent = numbers.chain(snapshots).chain(levels).filter(|(_, touched_s)| *touched_s >= since_s);
        Sample::of(recent.map(|(id, _)| blind(id)))
    }

    /// The books.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Streams that are remembered.
    pub fn streams(&self) -> usize {
        let distributions = self.snapshots.len().saturating_add(self.memberships.len());
        self.cumulative.len().saturating_add(self.delta.len()).saturating_add(distributions)
    }

    /// Folded series.
    pub fn series(&self) -> usize {
        self.series.len()
    }

    /// (increments in, acknowledged, in the outbox, open): the first is the sum of the others, or a total is off.
    pub fn balance(&self) -> (Amount, Amount, Amount, Amount) {
        let sum = self.ledger.sum();
        let (mut waiting, mut open) = (Amount::default(), Amount::default());
        self.outbox
            .iter()
            .flat_map(|e| e.entries.iter())
            .for_each(|e| waiting.merge(&e.closed.content.books()));
        self.series.iter().for_each(|s| open.merge(&s.open_amount()));
        (sum.increments_in, sum.increments_out, waiting, open)
    }
}

fn settings(plan: &Plan, key: u64, writer: &str) -> Settings {
    let bytes = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    Settings {
        clock: plan.clock,
        key,
        mark_label: plan.mark_label.clone(),
        writer_label: plan.writer_label.clone(),
        writer: plan.writer.clone().unwrap_or_else(|| writer.to_owned()),
        margin_ns: plan.first_sample_margin.as_nanos(),
        expiry_ns: plan.stream_expiry.as_nanos(),
        emission_bytes_max: bytes(plan.limits.emission_bytes_max),
        backlog_bytes_max: bytes(plan.limits.backlog_bytes_max),
        histogram_bytes_max: bytes(plan.limits.histogram_bytes_max),
        shards: plan.shards,
    }
}

/// Whole seconds.
fn seconds(ns: u64) -> u32 {
    u32::try_from(ns / 1_000_000_000).unwrap_or(u32::MAX)
}

fn leave(series: &mut SeriesTable, slot: u32, ended: bool) {
    if let Some(s) = series.get_mut(slot) {
        s.streams = s.streams.saturating_sub(1);
        s.ended = s.ended.saturating_sub(u32::from(ended));
    }
}
