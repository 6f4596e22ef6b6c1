//! The folded series: identity, open windows, running total (DESIGN §3.2, §3.6).
//!
//! A series holds what its emission needs as encoded bytes, so that a closed window becomes OTLP without looking anything up.
//! Windows are open cells sorted by time; closing one moves its amount into the running total.

use crate::amount::{Amount, Number};
use crate::hash::Identity;
use crate::identify::ById;
use crate::ledger::PageId;
use crate::limits::{AHEAD_MAX_NS, OPEN_WINDOWS_MAX, OVERFLOW_SERIES};
use crate::record::{SeriesHead, Temporality};
use crate::switch::Side;
use crate::units::UnixNanos;
use crate::window::{Part, Windows};

/// An open window of a series.
#[derive(Clone, Copy, Debug)]
struct Cell {
    window: UnixNanos,
    end: UnixNanos,
    amount: Amount,
}

/// What of a [`SeriesHead`] an emission needs, owned. Ordered as an emission is: what shares a message stands together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// Tenant.
    pub tenant: Box<[u8]>,
    /// Body of the `Resource`.
    pub resource: Box<[u8]>,
    /// Its schema URL.
    pub resource_schema: Box<[u8]>,
    /// Body of the `InstrumentationScope`.
    pub scope: Box<[u8]>,
    /// Its schema URL.
    pub scope_schema: Box<[u8]>,
    /// `name`, `description`, `unit` fields.
    pub metric_head: Box<[u8]>,
    /// Temporality of the output.
    pub output: Temporality,
    /// Kept `attributes` fields.
    pub attributes: Box<[u8]>,
    /// What was folded.
    pub mark: Box<[u8]>,
}

/// One folded series.
pub struct Series {
    /// Identity.
    pub id: Identity,
    /// What its points look like.
    pub head: Head,
    /// Its windows.
    pub windows: Windows,
    /// Its page in the ledger.
    pub page: PageId,
    /// Streams that fold into it now.
    pub streams: u32,
    /// When a record last came, in whole seconds since the owner began.
    pub touched_s: u32,
    /// Of these, those that have said that they ended.
    pub ended: u32,
    cells: Vec<Cell>,
    total: Amount,
    start: UnixNanos,
    emitted_to: UnixNanos,
    opening: bool,
    /// A switch before which it has nothing; the epoch when there is none.
    opens_at: UnixNanos,
    /// A switch took its streams away: when, and until when it goes on without increments.
    flat: Option<(UnixNanos, UnixNanos)>,
    /// Its last emission said that it has ended.
    stale: bool,
}

/// How long after the last sample of a series its stale marker stands: the least that every backend tells apart.
const STALE_AFTER_NS: u64 = 1_000_000;

/// A window that closed: everything a data point says.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// When the zero point that opens the series is due, if it is.
    pub zero_at: Option<UnixNanos>,
    /// When the same value stands once more before, where a switch has ended the series: with its newest sample half as old,
    /// `rate()` of a backend that extrapolates adds less at an end that is none.
    pub flat_at: Option<UnixNanos>,
    /// When the stale marker that ends the series is due, if it is.
    pub stale_at: Option<UnixNanos>,
    /// Start time of the point.
    pub start: UnixNanos,
    /// Its time: the end of the window.
    pub time: UnixNanos,
    /// Its value.
    pub value: Number,
    /// The window's own increment, for the books.
    pub amount: Amount,
}

impl Series {
    /// A series without a window.
    pub fn new(h: &SeriesHead<'_>, page: PageId) -> Series {
        Series {
            id: h.id,
            head: Head {
                tenant: h.tenant.into(),
                resource: h.resource.into(),
                resource_schema: h.resource_schema.into(),
                scope: h.scope.into(),
                scope_schema: h.scope_schema.into(),
                metric_head: h.metric_head.into(),
                output: h.output,
                attributes: h.attributes.into(),
                mark: h.mark.into(),
            },
            windows: h.windows,
            page,
            streams: 0,
            touched_s: 0,
            ended: 0,
            cells: Vec::new(),
            total: Amount::default(),
            start: UnixNanos(0),
            emitted_to: UnixNanos(0),
            opening: true,
            opens_at: UnixNanos(0),
            flat: None,
            stale: false,
        }
    }

    /// What a message says about it: its windows, which a plan may change while it lives on, and its part in a switch. A series
    /// that a switch closes goes on flat for `settle_ns`: so long streams may come with what they counted across the switch, and
    /// `rate()` does not take its end for a gap to be filled.
    pub fn meet(&mut self, head: &SeriesHead<'_>, settle_ns: u64) {
        self.windows = head.windows;
        match head.turn {
            Some(turn) if turn.side.closes() => self.flat = Some((turn.at, turn.at.plus(settle_ns))),
            Some(turn) => {
                if self.flat.take().is_some() && self.stale && self.is_idle() {
                    // Under the same labels: never behind what was written.
                    let emitted_to = self.emitted_to;
                    self.reopen();
                    self.emitted_to = emitted_to;
                }
                // After raw streams it also takes what came to be before the switch and what no raw sample carries, where it came to
                // be: in its first window that would look like a rate half as high again.
                if turn.side == Side::OpensAfterFold {
                    self.opens_at = turn.at;
                }
            }
            // No switch, or one that was called off.
            None => (self.opens_at, self.flat) = (UnixNanos(0), None),
        }
    }

    /// Start of the oldest window that still takes something: not closed by the clock, and not behind what was emitted (a plan that
    /// made the delay longer, or a clock that was set back, would open it again). What was emitted from far ahead of the clock does not
    /// hold the series up.
    pub fn oldest_open(&self, closed_at: UnixNanos, now: UnixNanos) -> UnixNanos {
        let boundary = self.windows.closed_before(closed_at).max(self.windows.start_of(self.opens_at));
        if self.emitted_to > now.plus(AHEAD_MAX_NS) {
            return boundary;
        }
        boundary.max(self.windows.start_at_or_after(self.emitted_to))
    }

    /// Add a part of an increment. Says whether its window was not open before.
    pub fn add(&mut self, part: &Part) -> bool {
        self.cell(part.window, |amount| amount.add(part.amount))
    }

    /// The switch before which it has nothing.
    pub fn opens_at(&self) -> UnixNanos {
        self.opens_at
    }

    /// Open the window that starts at `window`, for a point without an increment. Says whether it was not open before.
    pub fn touch(&mut self, window: UnixNanos) -> bool {
        self.cell(window, |_| ())
    }

    /// The window after the one that just closed, where the series goes on although nothing comes in any more.
    pub fn next_flat(&self, closed: UnixNanos) -> Option<UnixNanos> {
        let (at, _) = self.flat.filter(|_| self.head.output == Temporality::Cumulative)?;
        let window = self.windows.start_of(closed);
        let goes_on = !self.stale && self.windows.end_of(window) > at;
        goes_on.then_some(window)
    }

    /// All of its streams have said that they ended.
    pub fn has_ended(&self) -> bool {
        self.streams > 0 && self.ended >= self.streams
    }

    /// Put an amount back into the window that starts at `window`. Says whether that window was not open before.
    fn put(&mut self, window: UnixNanos, back: &Amount) -> bool {
        self.cell(window, |amount| amount.merge(back))
    }

    fn cell(&mut self, window: UnixNanos, change: impl FnOnce(&mut Amount)) -> bool {
        let at = self.cells.partition_point(|c| c.end <= window);
        if let Some(cell) = self.cells.get_mut(at)
            && cell.window <= window
        {
            change(&mut cell.amount);
            return false;
        }
        let end = self.windows.end_of(window);
        if let Some(cell) = self.cells.get_mut(at)
            && cell.end <= end
        {
            // A plan made windows wider while a narrower one is open: never two points at one time.
            cell.window = window;
            change(&mut cell.amount);
            return false;
        }
        let mut amount = Amount::default();
        change(&mut amount);
        self.cells.insert(at, Cell { window, end, amount });
        if self.cells.len() > OPEN_WINDOWS_MAX {
            self.join_oldest();
        }
        true
    }

    /// The two oldest windows become one: an emission less, no increment lost.
    fn join_oldest(&mut self) {
        let oldest = self.cells.remove(0);
        if let Some(next) = self.cells.first_mut() {
            next.amount.merge(&oldest.amount);
            next.window = oldest.window;
        }
    }

    /// The window that ends at `end` may not be emitted now: what is in it waits in the one that starts at `window`. Says whether
    /// that window was not open before.
    pub fn defer(&mut self, end: UnixNanos, window: UnixNanos) -> bool {
        let Some(at) = self.cells.iter().position(|c| c.end == end) else { return false };
        let cell = self.cells.remove(at);
        let opened = self.put(window, &cell.amount);
        if let Some(into) = self.cells.iter_mut().find(|c| c.window <= window && window < c.end) {
            into.window = into.window.min(cell.window);
        }
        opened
    }

    /// No window open?
    pub fn is_idle(&self) -> bool {
        self.cells.is_empty()
    }

    /// What is open.
    pub fn open_amount(&self) -> Amount {
        let mut sum = Amount::default();
        for cell in &self.cells {
            sum.merge(&cell.amount);
        }
        sum
    }

    /// Close the window that ends at `end`. `began` is when the owner began to watch: a series never starts before that
    /// if it can be helped, so that it cannot reach back into the time of a predecessor of the same name.
    ///
    /// What is still open before it goes with it: a plan that made the delay longer lets an older window close later, and a series
    /// never writes behind what it wrote.
    pub fn close(&mut self, end: UnixNanos, began: UnixNanos) -> Option<Closed> {
        let at = self.cells.iter().position(|c| c.end == end)?;
        let mut cell = *self.cells.get(at)?;
        for older in self.cells.drain(..=at).take(at) {
            cell.window = cell.window.min(older.window);
            cell.amount.merge(&older.amount);
        }
        let written_to = self.emitted_to;
        let mut closed = match self.head.output {
            Temporality::Delta => self.close_delta(&cell),
            Temporality::Cumulative => self.close_cumulative(&cell, began),
        };
        // Where another rule still folds into it, a series that a switch has closed goes on.
        let settled = self.flat.is_some_and(|(_, until)| cell.end >= until) && cell.amount.is_zero();
        let over = self.has_ended() || settled;
        self.stale = over && self.cells.is_empty() && self.head.output == Temporality::Cumulative;
        let flat = self.flat.is_some_and(|(at, _)| cell.window >= at) && cell.amount.is_zero();
        // Windows that became one, because a plan changed them or a backlog was full, begin before what was written.
        let middle = cell.window.plus(cell.end.since(cell.window) / 2);
        closed.flat_at = (flat && middle > written_to && closed.zero_at.is_none()).then_some(middle);
        closed.stale_at = self.stale.then_some(cell.end.plus(STALE_AFTER_NS));
        Some(closed)
    }

    /// Close everything that is open in one point at `at`: the series ends here.
    pub fn close_all(&mut self, at: UnixNanos, began: UnixNanos) -> Option<Closed> {
        let first = self.cells.first()?.window;
        let amount = self.open_amount();
        self.cells.clear();
        // A series ends after its last point, and after the window that it opened.
        let end = at.max(self.emitted_to.max(first).plus(1_000_000));
        let cell = Cell { window: first, end, amount };
        Some(match self.head.output {
            Temporality::Delta => self.close_delta(&cell),
            Temporality::Cumulative => self.close_cumulative(&cell, began),
        })
    }

    fn close_delta(&mut self, cell: &Cell) -> Closed {
        let value = representable(&cell.amount);
        self.emitted_to = cell.end;
        Closed {
            zero_at: None,
            flat_at: None,
            stale_at: None,
            start: cell.window,
            time: cell.end,
            value,
            amount: cell.amount,
        }
    }

    fn close_cumulative(&mut self, cell: &Cell, began: UnixNanos) -> Closed {
        let from = if began > cell.window && began < cell.end { began } else { cell.window };
        let from = from.max(self.emitted_to);
        let from = if self.opens_at < cell.end { from.max(self.opens_at) } else { from };
        let mut zero_at = None;
        if self.opening {
            self.opening = false;
            self.start = from;
            // The end of the last emission of an earlier life of this series may fall on the same instant.
            zero_at = (from > self.emitted_to && from < cell.end).then_some(from);
        }
        self.total.merge(&cell.amount);
        let value = match self.total.number() {
            Some(v) => v,
            None => {
                // Outgrown what the wire can carry exactly: a new start time, counting from this window.
                self.start = from;
                self.total = cell.amount;
                representable(&cell.amount)
            }
        };
        self.emitted_to = cell.end;
        let (flat_at, stale_at) = (None, None);
        Closed { zero_at, flat_at, stale_at, start: self.start, time: cell.end, value, amount: cell.amount }
    }

    /// Move what stands in windows after `latest` into the window that starts at `window`. Says whether that window was not open
    /// before.
    pub fn pull_back(&mut self, latest: UnixNanos, window: UnixNanos) -> bool {
        let mut beyond = Amount::default();
        let mut any = false;
        self.cells.retain(|cell| {
            let stays = cell.window <= latest;
            if !stays {
                beyond.merge(&cell.amount);
                any = true;
            }
            stays
        });
        any && self.put(window, &beyond)
    }

    /// A point of this series was refused for good: its increment goes back into the window at `window`, and if it came with the
    /// zero point and nothing later has been emitted, the series opens again. Says whether that window was not open before.
    pub fn take_back(&mut self, refused: &Closed, window: UnixNanos) -> bool {
        if refused.stale_at.is_some() {
            self.stale = false;
        }
        // A total that began after it does not hold it.
        if self.head.output == Temporality::Cumulative && refused.start == self.start {
            self.total.take(&refused.amount);
            if refused.zero_at.is_some() && self.emitted_to == refused.time {
                self.opening = true;
                self.emitted_to = UnixNanos(0);
            }
        }
        self.put(window, &refused.amount)
    }

    /// Begin anew with a zero point and a new start time at the next window: the writer or the mark changed, so that nothing has been
    /// emitted yet under the labels to come.
    pub fn reopen(&mut self) {
        self.opening = true;
        self.total = Amount::default();
        self.start = UnixNanos(0);
        self.emitted_to = UnixNanos(0);
    }
}

/// A window's own amount as a number: integers that outgrow i64 and doubles beyond 2^53 lose their last bits here, and only here.
fn representable(amount: &Amount) -> Number {
    amount.number().unwrap_or_else(|| Number::Double(amount.to_f64()))
}

/// Slots of series, found by identity. Bounded by `max`.
pub struct SeriesTable {
    slots: Vec<Option<Series>>,
    free: Vec<u32>,
    index: ById<u32>,
    max: u32,
    hand: u32,
}

impl SeriesTable {
    /// An empty table for at most `max` series.
    pub fn new(max: u32) -> SeriesTable {
        SeriesTable { slots: Vec::new(), free: Vec::new(), index: ById::default(), max, hand: 0 }
    }

    /// Change the bound; series beyond it stay.
    pub fn set_max(&mut self, max: u32) {
        self.max = max;
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The slot of a series; `new` makes it when it is not there. `None` when the table is full.
    pub fn slot_of(&mut self, id: Identity, new: impl FnOnce() -> Series) -> Option<u32> {
        self.slot_within(self.max, id, new)
    }

    /// The same for a series that takes the points of those that found the table full: there is room set aside for it.
    pub fn slot_of_overflow(&mut self, id: Identity, new: impl FnOnce() -> Series) -> Option<u32> {
        self.slot_within(self.max.saturating_add(OVERFLOW_SERIES), id, new)
    }

    fn slot_within(&mut self, max: u32, id: Identity, new: impl FnOnce() -> Series) -> Option<u32> {
        if let Some(slot) = self.index.get(&id) {
            return Some(*slot);
        }
        if self.index.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(None);
                slot
            }
        };
        *self.slots.get_mut(usize::try_from(slot).ok()?)? = Some(new());
        self.index.insert(id, slot);
        Some(slot)
    }

    /// The series in a slot.
    pub fn get(&self, slot: u32) -> Option<&Series> {
        self.slots.get(usize::try_from(slot).ok()?)?.as_ref()
    }

    /// The series in a slot, to change.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Series> {
        self.slots.get_mut(usize::try_from(slot).ok()?)?.as_mut()
    }

    /// Forget all of them.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
        self.index.clear();
        self.hand = 0;
    }

    /// All of them, with their slots.
    pub fn iter_slots_mut(&mut self) -> impl Iterator<Item = (u32, &mut Series)> {
        let slots = self.slots.iter_mut().zip(0u32..);
        slots.filter_map(|(series, slot)| Some((slot, series.as_mut()?)))
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Series> {
        self.slots.iter_mut().flatten()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Series> {
        self.slots.iter().flatten()
    }

    /// Look at the next `budget` slots and free those that `gone` says are gone.
    pub fn sweep(&mut self, budget: usize, gone: impl Fn(&Series) -> bool) {
        for _ in 0..budget.min(self.slots.len()) {
            let at = usize::try_from(self.hand).unwrap_or(0);
            let Some(slot) = self.slots.get_mut(at) else {
                self.hand = 0;
                continue;
            };
            if slot.as_ref().is_some_and(&gone)
                && let Some(series) = slot.take()
            {
                self.index.remove(&series.id);
                self.free.push(self.hand);
            }
            self.hand = self.hand.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    fn series(output: Temporality) -> Series {
        let head = SeriesHead {
            id: Identity(1),
            overflow: Identity(2),
            windows: Windows { width_ns: 10, offset_ns: 0, delay_ns: 0 },
            turn: None,
            since: UnixNanos(0),
            output,
            tenant: b"",
            metric: b"m",
            mark: b"",
            resource: b"",
            resource_schema: b"",
            scope: b"",
            scope_schema: b"",
            metric_head: b"",
            attributes: b"",
        };
        Series::new(&head, Ledger::default().page_of(b"m"))
    }

    fn add(s: &mut Series, window: u64, amount: Number) {
        s.add(&Part { window: UnixNanos(window), amount, late: false });
    }

    /// A closed window as `start-time:value`, `z@t` in front when a zero point opens it.
    fn close(s: &mut Series, end: u64) -> String {
        let Some(c) = s.close(UnixNanos(end), UnixNanos(0)) else { return "-".into() };
        let zero = c.zero_at.map(|z| format!("z@{} ", z.0)).unwrap_or_default();
        let value = match c.value {
            Number::Int(v) => format!("{v}"),
            Number::Double(v) => format!("{v:?}"),
        };
        format!("{zero}{}-{}:{value}", c.start.0, c.time.0)
    }

    #[test]
    fn cumulative_opens_with_zero_and_never_falls() {
        let mut s = series(Temporality::Cumulative);
        add(&mut s, 10, Number::Int(3));
        add(&mut s, 20, Number::Int(4));
        add(&mut s, 10, Number::Int(1));
        assert_eq!(close(&mut s, 20), "z@10 10-20:4");
        assert_eq!(close(&mut s, 30), "10-30:8");
        assert_eq!(close(&mut s, 40), "-", "a window without a record has no point");
        add(&mut s, 50, Number::Int(0));
        assert_eq!(close(&mut s, 60), "10-60:8");
    }

    #[test]
    fn delta_says_its_window() {
        let mut s = series(Temporality::Delta);
        add(&mut s, 10, Number::Double(0.5));
        assert_eq!(close(&mut s, 20), "10-20:0.5");
        add(&mut s, 20, Number::Double(0.25));
        assert_eq!(close(&mut s, 30), "20-30:0.25");
    }

    #[test]
    fn beyond_the_wire_a_new_start() {
        let mut s = series(Temporality::Cumulative);
        add(&mut s, 10, Number::Int(i64::MAX));
        assert_eq!(close(&mut s, 20), format!("z@10 10-20:{}", i64::MAX));
        add(&mut s, 20, Number::Int(5));
        assert_eq!(close(&mut s, 30), "20-30:5");
        add(&mut s, 30, Number::Int(2));
        assert_eq!(close(&mut s, 40), "20-40:7");
    }

    #[test]
    fn a_refused_opening_opens_again() {
        let mut s = series(Temporality::Cumulative);
        add(&mut s, 10, Number::Int(3));
        let c = s.close(UnixNanos(20), UnixNanos(0)).unwrap();
        assert!(c.zero_at.is_some());
        s.take_back(&c, UnixNanos(20));
        assert_eq!(close(&mut s, 30), "z@20 20-30:3", "the increment comes back behind a new zero point");
        add(&mut s, 30, Number::Int(2));
        let refused = s.close(UnixNanos(40), UnixNanos(0)).unwrap();
        s.take_back(&refused, UnixNanos(40));
        assert_eq!(close(&mut s, 50), "20-50:5", "a series that is open stays open");
    }

    #[test]
    fn other_labels_open_anew_and_take_nothing_from_the_life_before() {
        let mut s = series(Temporality::Cumulative);
        add(&mut s, 10, Number::Int(3));
        let refused = s.close(UnixNanos(20), UnixNanos(0)).unwrap();
        s.reopen();
        add(&mut s, 20, Number::Int(4));
        s.take_back(&refused, UnixNanos(20));
        assert_eq!(
            close(&mut s, 30),
            "z@20 20-30:7",
            "a zero point at the end of the old life, and all of the refused"
        );
    }

    #[test]
    fn began_inside_the_window_moves_the_start() {
        let mut s = series(Temporality::Cumulative);
        add(&mut s, 10, Number::Int(3));
        let c = s.close(UnixNanos(20), UnixNanos(14)).unwrap();
        assert_eq!((c.start.0, c.zero_at), (14, Some(UnixNanos(14))));
    }

    #[test]
    fn a_series_that_ends_puts_everything_into_one_point() {
        let mut s = series(Temporality::Cumulative);
        add(&mut s, 10, Number::Int(1));
        assert_eq!(close(&mut s, 20), "z@10 10-20:1");
        add(&mut s, 20, Number::Int(2));
        add(&mut s, 30, Number::Int(4));
        let end = s.close_all(UnixNanos(2_000_000), UnixNanos(0)).unwrap();
        assert_eq!((end.time.0, end.value), (2_000_000, Number::Int(7)));
        assert!(s.is_idle() && s.close_all(UnixNanos(3_000_000), UnixNanos(0)).is_none());
    }

    #[test]
    fn what_may_not_go_out_waits_in_the_next_window() {
        let mut s = series(Temporality::Delta);
        add(&mut s, 10, Number::Int(1));
        add(&mut s, 20, Number::Int(2));
        assert!(s.defer(UnixNanos(20), UnixNanos(30)));
        assert!(!s.defer(UnixNanos(30), UnixNanos(30)));
        assert_eq!((close(&mut s, 30), close(&mut s, 40)), ("-".into(), "10-40:3".into()));
    }

    #[test]
    fn windows_beyond_a_clock_that_was_set_back_come_back() {
        let mut s = series(Temporality::Delta);
        add(&mut s, 10, Number::Int(1));
        add(&mut s, 900, Number::Int(2));
        assert!(s.pull_back(UnixNanos(100), UnixNanos(20)));
        assert_eq!((close(&mut s, 20), close(&mut s, 30)), ("10-20:1".into(), "20-30:2".into()));
        assert!(!s.pull_back(UnixNanos(100), UnixNanos(20)), "nothing to move, nothing opened");
    }

    #[test]
    fn too_many_windows_join_and_lose_nothing() {
        let mut s = series(Temporality::Delta);
        for k in 0..(OPEN_WINDOWS_MAX as u64 + 10) {
            add(&mut s, k * 10, Number::Int(1));
        }
        assert_eq!(s.cells.len(), OPEN_WINDOWS_MAX);
        assert_eq!(s.open_amount().int(), OPEN_WINDOWS_MAX as i128 + 10);
        assert_eq!(close(&mut s, 110), "0-110:11");
        add(&mut s, 110, Number::Int(1));
        assert_eq!(close(&mut s, 120), "110-120:2");
    }

    #[test]
    fn table_is_bounded_and_reuses_slots() {
        let mut t = SeriesTable::new(2);
        let make = |n: u128| {
            move || {
                let mut s = series(Temporality::Delta);
                s.id = Identity(n);
                s
            }
        };
        assert_eq!(t.slot_of(Identity(1), make(1)), Some(0));
        assert_eq!(t.slot_of(Identity(2), make(2)), Some(1));
        assert_eq!(t.slot_of(Identity(1), make(1)), Some(0));
        assert_eq!(t.slot_of(Identity(3), make(3)), None);
        t.sweep(10, |s| s.id == Identity(1));
        assert_eq!(t.slot_of(Identity(3), make(3)), Some(0));
        assert_eq!(t.len(), 2);
    }
}
