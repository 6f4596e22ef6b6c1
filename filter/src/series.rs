//! The folded series: identity, open windows, running total (DESIGN §3.2, §3.6).
//!
//! A series holds what its emission needs as encoded bytes, so that a closed window becomes OTLP without looking anything up.
//! Windows are open cells sorted by time; closing one moves its content into the running total. For levels the total is the members, and
//! closing a window puts its words over them.

mod table;

pub use table::SeriesTable;

use crate::amount::{Amount, Number};
use crate::content::Content;
use crate::distribution::Distribution;
use crate::exemplar::{Exemplar, Exemplars};
use crate::hash::Identity;
use crate::kind::Kind;
use crate::ledger::PageId;
use crate::limits::{AHEAD_MAX_NS, OPEN_WINDOWS_MAX};
use crate::record::{SeriesHead, Temporality};
use crate::switch::{Side, Turn};
use crate::units::UnixNanos;
use crate::window::Windows;
use phoenix_plan::Function;

/// An open window of a series.
#[derive(Clone, Debug)]
struct Cell {
    window: UnixNanos,
    end: UnixNanos,
    content: Content,
    /// What went out once and was refused.
    owed: Option<Box<Owed>>,
    exemplars: Exemplars,
}

/// What was refused: to be sent again, and in the running total as before.
#[derive(Clone, Debug)]
struct Owed {
    content: Content,
    /// Time of the newest point of it.
    time: UnixNanos,
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
    /// What its points look like.
    pub kind: Kind,
    /// Temporality of the output.
    pub output: Temporality,
    /// Kept `attributes` fields.
    pub attributes: Box<[u8]>,
    /// What was folded.
    pub mark: Box<[u8]>,
    /// Bounds of an explicit histogram, doubles as the wire has them.
    pub bounds: Box<[u8]>,
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
    total: Content,
    start: UnixNanos,
    emitted_to: UnixNanos,
    /// Time of the newest point since its start that was accepted.
    accepted_to: UnixNanos,
    opening: bool,
    /// A switch before which it has nothing; the epoch when there is none.
    opens_at: UnixNanos,
    /// A switch took its streams away: when, and until when it goes on without increments.
    flat: Option<(UnixNanos, UnixNanos)>,
    /// Its last emission said that it has ended.
    stale: bool,
    /// How long the last value of a silent member stands.
    expiry_ns: u64,
    exemplars_max: usize,
}

/// How long after the last sample of a series its stale marker stands: the least that every backend tells apart.
const STALE_AFTER_NS: u64 = 1_000_000;

/// What a closed window comes to.
#[derive(Clone, Debug)]
pub enum Value {
    /// A number.
    Number(Number),
    /// A histogram or a summary.
    Distribution(Box<Distribution>),
    /// A sum of values, and how many they are.
    Average(Number, u64),
    /// Nothing any more: the point is the stale marker of the series.
    Ended,
}

/// A window that closed: everything a data point says.
#[derive(Clone, Debug)]
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
    pub value: Value,
    /// The window's own increment, for the books and for its way back.
    pub content: Content,
    /// Exemplars of the window.
    pub exemplars: Exemplars,
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
                kind: h.kind,
                output: h.output,
                attributes: h.attributes.into(),
                mark: h.mark.into(),
                bounds: h.bounds.into(),
            },
            windows: h.windows,
            page,
            streams: 0,
            touched_s: 0,
            ended: 0,
            cells: Vec::new(),
            total: Content::none(h.kind, h.bounds.len() / 8),
            start: UnixNanos(0),
            emitted_to: UnixNanos(0),
            accepted_to: UnixNanos(0),
            opening: true,
            opens_at: UnixNanos(0),
            flat: None,
            stale: false,
            expiry_ns: h.expiry_ns,
            exemplars_max: usize::from(h.exemplars_max),
        }
    }

    /// Nothing, as its windows hold it.
    fn nothing(&self) -> Content {
        Content::none(self.head.kind, self.head.bounds.len() / 8)
    }

    /// What a message says about it: its windows, which a plan may change while it lives on, and its part in a switch. A series
    /// that a switch closes goes on flat for `settle_ns`: so long streams may come with what they counted across the switch, and
    /// `rate()` does not take its end for a gap to be filled.
    pub fn meet(&mut self, head: &SeriesHead<'_>, settle_ns: u64) {
        self.windows = head.windows;
        self.expiry_ns = head.expiry_ns;
        self.exemplars_max = usize::from(head.exemplars_max);
        match head.turn {
            // No switch, or one that was called off, or that of one stream among others.
            None | Some(Turn { side: Side::LeavesForRaw, .. }) => {
                (self.opens_at, self.flat) = (UnixNanos(0), None)
            }
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

    /// Add a part of an increment to the window that starts at `window`. Says whether it was not open before.
    #[inline]
    pub fn add(&mut self, window: UnixNanos, amount: Number) -> bool {
        self.cell(window, |cell| {
            if let Content::Number(sum) = &mut cell.content {
                sum.add(amount);
            }
        })
    }

    /// The same for a part of a distribution.
    pub fn add_distribution(&mut self, window: UnixNanos, part: &Distribution) -> bool {
        self.cell(window, |cell| {
            if let Content::Distribution(sum) = &mut cell.content {
                sum.merge(part);
            }
        })
    }

    /// A word of a stream at `time`; none: it has ended then, or went elsewhere. The first answer is about the window, as above, the
    /// second is false when the stream said something at that time before.
    pub fn note(
        &mut self,
        window: UnixNanos,
        stream: Identity,
        time: UnixNanos,
        value: Option<Number>,
    ) -> (bool, bool) {
        let mut news = true;
        let opened = self.cell(window, |cell| {
            if let Content::Level(level) = &mut cell.content {
                news = level.note(stream, time, value);
            }
        });
        (opened, news)
    }

    /// An exemplar of the window that holds its time, if that is open.
    pub fn offer(&mut self, exemplar: Exemplar) {
        let (max, time) = (self.exemplars_max, exemplar.time.minus(1));
        let at = self.cells.partition_point(|c| c.end <= time);
        if let Some(cell) = self.cells.get_mut(at).filter(|c| c.window <= time) {
            cell.exemplars.offer(exemplar, max);
        }
    }

    /// The switch before which it has nothing.
    pub fn opens_at(&self) -> UnixNanos {
        self.opens_at
    }

    /// Open the window that starts at `window`, for a point without an increment. Says whether it was not open before.
    pub fn touch(&mut self, window: UnixNanos) -> bool {
        self.cell(window, |_| ())
    }

    /// The window after the one that just closed, where the series goes on although nothing comes in any more: after a switch, or
    /// because it has members.
    pub fn next_flat(&self, closed: UnixNanos) -> Option<UnixNanos> {
        let window = self.windows.start_of(closed);
        if let Content::Level(members) = &self.total {
            return (!members.is_empty()).then_some(window);
        }
        let (at, _) = self.flat.filter(|_| self.head.output == Temporality::Cumulative)?;
        let goes_on = !self.stale && self.windows.end_of(window) > at;
        goes_on.then_some(window)
    }

    /// All of its streams have said that they ended.
    pub fn has_ended(&self) -> bool {
        self.streams > 0 && self.ended >= self.streams
    }

    /// Put what another window held into the one that starts at `window`. Says whether that window was not open before.
    fn put(&mut self, window: UnixNanos, other: Cell) -> bool {
        let max = self.exemplars_max;
        self.cell(window, |cell| cell.join(other, max))
    }

    /// Likewise what the running total holds already.
    fn owe(&mut self, window: UnixNanos, refused: &Closed) -> bool {
        self.cell(window, |cell| cell.owe(&refused.content, refused.time))
    }

    #[inline]
    fn cell(&mut self, window: UnixNanos, change: impl FnOnce(&mut Cell)) -> bool {
        let at = self.cells.partition_point(|c| c.end <= window);
        if let Some(cell) = self.cells.get_mut(at)
            && cell.window <= window
        {
            change(cell);
            return false;
        }
        let end = self.windows.end_of(window);
        if let Some(cell) = self.cells.get_mut(at)
            && cell.end <= end
        {
            // A plan made windows wider while a narrower one is open: never two points at one time.
            cell.window = window;
            change(cell);
            return false;
        }
        let mut cell = self.empty(window, end);
        change(&mut cell);
        self.cells.insert(at, cell);
        if self.cells.len() > OPEN_WINDOWS_MAX {
            self.join_oldest();
        }
        true
    }

    fn empty(&self, window: UnixNanos, end: UnixNanos) -> Cell {
        Cell { window, end, content: self.nothing(), owed: None, exemplars: Exemplars::default() }
    }

    /// The two oldest windows become one: an emission less, no increment lost.
    fn join_oldest(&mut self) {
        let oldest = self.cells.remove(0);
        if let Some(next) = self.cells.first_mut() {
            next.window = oldest.window;
            next.join(oldest, self.exemplars_max);
        }
    }

    /// The window that ends at `end` may not be emitted now: what is in it waits in the one that starts at `window`. Says whether
    /// that window was not open before.
    pub fn defer(&mut self, end: UnixNanos, window: UnixNanos) -> bool {
        let Some(at) = self.cells.iter().position(|c| c.end == end) else { return false };
        let cell = self.cells.remove(at);
        let from = cell.window;
        let opened = self.put(window, cell);
        if let Some(into) = self.cells.iter_mut().find(|c| c.window <= window && window < c.end) {
            into.window = into.window.min(from);
        }
        opened
    }

    /// No window open that must go out? Windows of a level that only goes on say nothing new.
    pub fn is_idle(&self) -> bool {
        let says_nothing = |c: &Cell| matches!(&c.content, Content::Level(level) if level.is_empty());
        self.cells.iter().all(says_nothing)
    }

    /// Streams whose last value it holds.
    pub fn has_members(&self) -> bool {
        matches!(&self.total, Content::Level(members) if !members.is_empty())
    }

    /// What is open, for the books.
    pub fn open_amount(&self) -> Amount {
        let mut sum = Amount::default();
        for cell in &self.cells {
            sum.merge(&cell.content.books());
            cell.owed.iter().for_each(|owed| sum.merge(&owed.content.books()));
        }
        sum
    }

    /// Words of streams that it holds, as a level.
    pub fn words(&self) -> usize {
        let words = |content: &Content| if let Content::Level(level) = content { level.len() } else { 0 };
        self.cells.iter().fold(words(&self.total), |sum, cell| sum.saturating_add(words(&cell.content)))
    }

    /// Bytes of its exemplars.
    pub fn exemplar_bytes(&self) -> usize {
        self.cells.iter().fold(0, |sum, cell| sum.saturating_add(cell.exemplars.heap_bytes()))
    }

    /// Bytes on the heap that windows and total take beyond themselves.
    pub fn heap_bytes(&self) -> usize {
        self.cells.iter().fold(self.total.heap_bytes(), |sum, cell| sum.saturating_add(cell.heap_bytes()))
    }

    /// Close the window that ends at `end`. `began` is when the owner began to watch: a series never starts before that
    /// if it can be helped, so that it cannot reach back into the time of a predecessor of the same name.
    ///
    /// What is still open before it goes with it: a plan that made the delay longer lets an older window close later, and a series
    /// never writes behind what it wrote.
    pub fn close(&mut self, end: UnixNanos, began: UnixNanos) -> Option<Closed> {
        let at = self.cells.iter().position(|c| c.end == end)?;
        let mut cell = self.cells.remove(at);
        for older in self.cells.drain(..at) {
            cell.window = cell.window.min(older.window);
            cell.join(older, self.exemplars_max);
        }
        let written_to = self.emitted_to;
        let (cell_window, cell_end, adds) = (cell.window, cell.end, cell.adds());
        let mut closed = match (self.head.kind, self.head.output) {
            (Kind::Level { function, .. }, _) => return self.close_level(cell, began, function),
            (_, Temporality::Delta) => self.close_delta(cell),
            (_, Temporality::Cumulative) => self.close_cumulative(cell, began),
        };
        // Where another rule still folds into it, a series that a switch has closed goes on.
        let settled = self.flat.is_some_and(|(_, until)| cell_end >= until) && !adds;
        let over = self.has_ended() || settled;
        self.stale = over && self.cells.is_empty() && self.head.output == Temporality::Cumulative;
        let flat = self.flat.is_some_and(|(at, _)| cell_window >= at) && !adds;
        // Windows that became one, because a plan changed them or a backlog was full, begin before what was written.
        let middle = cell_window.plus(cell_end.since(cell_window) / 2);
        closed.flat_at = (flat && middle > written_to && closed.zero_at.is_none()).then_some(middle);
        closed.stale_at = self.stale.then_some(cell_end.plus(STALE_AFTER_NS));
        Some(closed)
    }

    /// Close everything that is open in one point at `at`: the series ends here. A level has nothing to add up.
    pub fn close_all(&mut self, at: UnixNanos, began: UnixNanos) -> Option<Closed> {
        let mut cells = core::mem::take(&mut self.cells).into_iter();
        let mut cell = cells.next().filter(|_| !self.head.kind.is_level())?;
        for newer in cells {
            cell.join(newer, self.exemplars_max);
        }
        // A series ends after its last point, and after the window that it opened.
        cell.end = at.max(self.emitted_to.max(cell.window).plus(1_000_000));
        Some(match self.head.output {
            Temporality::Delta => self.close_delta(cell),
            Temporality::Cumulative => self.close_cumulative(cell, began),
        })
    }

    fn close_delta(&mut self, mut cell: Cell) -> Closed {
        cell.settle();
        self.emitted_to = cell.end;
        Closed { start: cell.window, value: representable(&cell.content), ..Closed::of(cell) }
    }

    fn close_cumulative(&mut self, mut cell: Cell, began: UnixNanos) -> Closed {
        let from = self.start_of(&cell, began);
        let mut zero_at = None;
        if self.opening {
            self.opening = false;
            self.start = from;
            // The end of the last emission of an earlier life of this series may fall on the same instant.
            zero_at = (from > self.emitted_to && from < cell.end).then_some(from);
        }
        self.total.merge(&cell.content);
        let value = match exact(&self.total) {
            Some(v) => v,
            None => {
                // Outgrown what the wire can carry exactly: a new start time, counting from this window.
                self.start = from;
                self.begin_anew(&mut cell);
                self.total = cell.content.clone();
                representable(&cell.content)
            }
        };
        cell.settle();
        self.emitted_to = cell.end;
        Closed { zero_at, start: self.start, value, ..Closed::of(cell) }
    }

    /// The members as this window leaves them. Nothing to say when there are none, but once, that the series has ended.
    fn close_level(&mut self, cell: Cell, began: UnixNanos, function: Function) -> Option<Closed> {
        let from = self.start_of(&cell, began);
        let (window_end, written_to) = (cell.end, self.emitted_to);
        self.total.merge(&cell.content);
        self.emitted_to = window_end;
        let Content::Level(members) = &mut self.total else { return None };
        members.expire(window_end, self.expiry_ns);
        let value = match members.reading(function) {
            Some(it) if function == Function::Avg => Value::Average(it.value, it.members),
            Some(it) => Value::Number(it.value),
            None if self.opening => return None,
            None => Value::Ended,
        };
        self.stale = matches!(value, Value::Ended);
        if self.opening {
            self.start = from;
        }
        self.opening = self.stale;
        // It ended with its last value, not a window later: what its members are part of now may be there already.
        let time = if self.stale { written_to.plus(STALE_AFTER_NS) } else { window_end };
        let content = self.nothing();
        Some(Closed { start: self.start, time, value, content, ..Closed::of(cell) })
    }

    /// Where a series that opens with this window begins.
    fn start_of(&self, cell: &Cell, began: UnixNanos) -> UnixNanos {
        let from = if began > cell.window && began < cell.end { began } else { cell.window };
        let from = from.max(self.emitted_to);
        if self.opens_at < cell.end { from.max(self.opens_at) } else { from }
    }

    /// Move what stands in windows after `latest` into the window that starts at `window`. Says whether that window was not open
    /// before.
    pub fn pull_back(&mut self, latest: UnixNanos, window: UnixNanos) -> bool {
        let at = self.cells.partition_point(|cell| cell.window <= latest);
        let beyond: Vec<Cell> = self.cells.drain(at..).collect();
        let mut opened = false;
        for cell in beyond {
            opened |= self.put(window, cell);
        }
        opened
    }

    /// A point of this series was refused for good: its increment goes back into the window at `window`, and if it came with the
    /// zero point and nothing later has been emitted, the series opens again. Says whether that window was not open before. The level of
    /// a window that has passed is nobody's any more.
    pub fn take_back(&mut self, refused: &Closed, window: UnixNanos) -> bool {
        if self.head.kind.is_level() {
            return false;
        }
        if refused.stale_at.is_some() {
            self.stale = false;
        }
        // A total that began after it does not hold it. One that does goes on holding it: later emissions have been made of that, and
        // a total never falls.
        if self.head.output == Temporality::Cumulative && refused.start == self.start {
            if refused.zero_at.is_some() && self.emitted_to == refused.time {
                self.opening = true;
                self.emitted_to = UnixNanos(0);
            }
            return self.owe(window, refused);
        }
        self.cell(window, |cell| cell.content.merge(&refused.content))
    }

    /// A point of this series was accepted.
    pub fn accepted(&mut self, point: &Closed) {
        if point.start == self.start {
            self.accepted_to = self.accepted_to.max(point.time);
        }
    }

    /// The total begins anew with this window: what is owed was in the one before. Where a later point of that was accepted it has arrived, and
    /// is a matter of the books alone; else it is counted again.
    fn begin_anew(&mut self, cell: &mut Cell) {
        cell.settle_after(self.accepted_to);
        self.settle_all();
    }

    fn settle_all(&mut self) {
        let accepted_to = core::mem::take(&mut self.accepted_to);
        self.cells.iter_mut().for_each(|cell| cell.settle_after(accepted_to));
    }

    /// Begin anew with a zero point and a new start time at the next window: the writer or the mark changed, so that nothing has been
    /// emitted yet under the labels to come. Members stay members.
    pub fn reopen(&mut self) {
        self.opening = true;
        self.settle_all();
        if !self.head.kind.is_level() {
            self.total = self.nothing();
        }
        self.start = UnixNanos(0);
        self.emitted_to = UnixNanos(0);
    }
}

impl Cell {
    /// What stood in another window goes out with this one.
    fn join(&mut self, other: Cell, exemplars_max: usize) {
        self.content.merge(&other.content);
        other.owed.iter().for_each(|owed| self.owe(&owed.content, owed.time));
        self.exemplars.merge(other.exemplars, exemplars_max);
    }

    fn owe(&mut self, refused: &Content, time: UnixNanos) {
        match &mut self.owed {
            Some(owed) => {
                owed.content.merge(refused);
                owed.time = owed.time.max(time);
            }
            None => self.owed = Some(Box::new(Owed { content: refused.clone(), time })),
        }
    }

    /// What was owed goes out with the rest.
    fn settle(&mut self) {
        if let Some(owed) = self.owed.take() {
            self.content.merge(&owed.content);
        }
    }

    /// The same where it is not known to have arrived with a later point.
    fn settle_after(&mut self, accepted_to: UnixNanos) {
        if self.owed.as_ref().is_some_and(|owed| owed.time >= accepted_to) {
            self.settle();
        }
    }

    fn adds(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| !owed.content.is_zero()) || !self.content.is_zero()
    }

    fn heap_bytes(&self) -> usize {
        let bytes = |owed: &Owed| owed.content.heap_bytes().saturating_add(size_of::<Owed>());
        let owed = self.owed.as_deref().map_or(0, bytes);
        self.content.heap_bytes().saturating_add(owed).saturating_add(self.exemplars.heap_bytes())
    }
}

impl Closed {
    /// Without value and exemplars, which go out once: what remains can be put back.
    pub fn for_the_books(&self) -> Closed {
        let Closed { zero_at, flat_at, stale_at, start, time, .. } = *self;
        let (value, exemplars) = (Value::Ended, Exemplars::default());
        Closed { zero_at, flat_at, stale_at, start, time, value, content: self.content.clone(), exemplars }
    }

    /// What a cell says by itself.
    fn of(cell: Cell) -> Closed {
        Closed {
            zero_at: None,
            flat_at: None,
            stale_at: None,
            start: cell.window,
            time: cell.end,
            value: Value::Ended,
            content: cell.content,
            exemplars: cell.exemplars,
        }
    }
}

/// A content as a point carries it, or `None` when it has outgrown that.
fn exact(content: &Content) -> Option<Value> {
    match content {
        Content::Number(amount) => amount.number().map(Value::Number),
        Content::Distribution(it) => (!it.has_outgrown()).then(|| Value::Distribution(it.clone())),
        Content::Level(_) => None,
    }
}

/// A window's own content as a value: integers that outgrow i64 and doubles beyond 2^53 lose their last bits here, and only here.
fn representable(content: &Content) -> Value {
    match content {
        Content::Number(amount) => {
            Value::Number(amount.number().unwrap_or_else(|| Number::Double(amount.to_f64())))
        }
        Content::Distribution(it) => Value::Distribution(it.clone()),
        Content::Level(_) => Value::Ended,
    }
}

#[cfg(test)]
mod tests;
