//! The log of admissions in shared data: read to its end, appended to by compare-and-swap, begun anew without what is dead.
//!
//! In: entries that a worker wants to add, as a function of what all have said so far. Out: the state that every worker comes to. An append
//! succeeds only on a tail that has been read to its end, so nothing is decided on what another worker has changed meanwhile; on a
//! conflict it is read, and decided, again. Cost: a read of one page where nothing is new, a write of one page an append.

use super::entry::{Entry, Page, Place};
use super::state::{ByHalf, State};
use crate::shared::{If, Shared};

/// Conflicts in a row before an append gives up: each is another worker's success.
const TRIES_MAX: usize = 64;

/// Where a worker's reading of the log stands.
#[derive(Default)]
pub struct Log {
    /// Under a hash key everything has its own names: identities of another mean nothing.
    key: u64,
    place: Place,
    /// Page, and entries of it that were read.
    page: usize,
    read: usize,
    /// Counts entries of others, and beginnings: what was decided before one of them is decided again.
    foreign: u64,
    /// Counts attempts to begin anew.
    attempts: u64,
    /// It has been opened: the first place is known.
    is_open: bool,
    /// What it comes to.
    pub state: State,
}

/// The tail, as it was read.
struct Tail {
    page: Page,
    condition: If,
}

impl Log {
    /// The log of streams that are identified under a hash key, by its fingerprint.
    pub fn new(key: u64) -> Log {
        Log { key, ..Log::default() }
    }

    /// What its names in shared data begin with.
    pub fn prefix(&self) -> String {
        format!("log/{:x}/", self.key)
    }

    /// Where the log is now.
    pub fn place(&self) -> Place {
        self.place
    }

    fn head_key(&self) -> String {
        format!("{}head", self.prefix())
    }

    fn page_key(&self, place: Place, page: usize) -> String {
        format!("{}{}", self.prefix(), place.key(page))
    }

    /// Where the log is, as its head says.
    fn head(&self, shared: &dyn Shared) -> Place {
        let value = shared.get(&self.head_key());
        value.and_then(|(bytes, _)| Place::read(&bytes)).unwrap_or_default()
    }

    fn moved_on(&self, shared: &dyn Shared) -> bool {
        self.head(shared).epoch > self.place.epoch
    }

    /// Read to the end.
    pub fn sync(&mut self, shared: &dyn Shared, generation: u8) {
        let _ = self.tail(shared, generation);
    }

    /// Read to the end; the tail. None: shared data does not hold what it should.
    fn tail(&mut self, shared: &dyn Shared, generation: u8) -> Option<Tail> {
        // Whoever comes later, a worker whose memory was lost among them, takes what is there for seen: the living have time to come again.
        let opens = !self.is_open;
        if opens {
            self.place = self.head(shared);
            self.is_open = true;
        }
        // Each turn goes on by a page or by an epoch; there are only so many pages.
        for _ in 0..u16::MAX {
            let (page, condition) = match shared.get(&self.page_key(self.place, self.page)) {
                None => (Page::new(self.place), If::Absent),
                Some((bytes, number)) => match Page::read(bytes, self.place) {
                    Some(page) => (page, If::Unchanged(number)),
                    // Of a later epoch: this worker slept through the seal.
                    None if self.moved_on(shared) => {
                        let place = self.head(shared);
                        self.begin_at(shared, place, generation);
                        continue;
                    }
                    // Of an earlier epoch, or of an attempt that failed: ours to overwrite.
                    None => (Page::new(self.place), If::Unchanged(number)),
                },
            };
            let mut sealed = None;
            for entry in page.entries(self.read) {
                if let Entry::Sealed { place } = entry {
                    sealed = Some(place);
                    break;
                }
                self.state.apply(entry, generation, opens.then_some(generation));
                self.read = self.read.saturating_add(1);
                self.foreign = self.foreign.saturating_add(1);
            }
            match sealed {
                Some(place) => self.begin_at(shared, place, generation),
                None if page.is_full() => (self.page, self.read) = (self.page.saturating_add(1), 0),
                None => return Some(Tail { page, condition }),
            }
        }
        None
    }

    /// The log goes on elsewhere: the state is read anew, and what this worker saw is kept.
    fn begin_at(&mut self, shared: &dyn Shared, place: Place, generation: u8) {
        let before = core::mem::take(&mut self.state);
        let seen: ByHalf<u8> = before.series.iter().map(|(series, known)| (*series, known.seen)).collect();
        (self.place, self.page, self.read) = (place, 0, 0);
        self.foreign = self.foreign.saturating_add(1);
        self.state.turns = before.turns.saturating_add(1);
        self.state.changes = before.changes.saturating_add(1);
        // What a compaction wrote is whole: everything up to its first page that is not full.
        for _ in 0..u16::MAX {
            let page =
                shared.get(&self.page_key(place, self.page)).and_then(|(bytes, _)| Page::read(bytes, place));
            let Some(page) = page else { return };
            for entry in page.entries(self.read) {
                if matches!(entry, Entry::Sealed { .. }) {
                    return;
                }
                let known = match entry {
                    Entry::Admit { series, .. }
                    | Entry::Folded { series, .. }
                    | Entry::Promote { series, .. } => seen.get(&series).copied(),
                    _ => None,
                };
                self.state.apply(entry, generation, known);
                self.read = self.read.saturating_add(1);
            }
            if !page.is_full() {
                return;
            }
            (self.page, self.read) = (self.page.saturating_add(1), 0);
        }
    }

    /// Append what `decide` says, as often as it says something: it is asked again after each page, and after each conflict. False: it could
    /// not be done.
    pub fn append(
        &mut self,
        shared: &dyn Shared,
        generation: u8,
        mut decide: impl FnMut(&State) -> Vec<Entry>,
    ) -> bool {
        let mut conflicts = 0_usize;
        let mut wanted = Vec::new().into_iter();
        let mut decided = None;
        while conflicts < TRIES_MAX {
            let Some(mut tail) = self.tail(shared, generation) else { return false };
            if decided != Some(self.foreign) {
                wanted = decide(&self.state).into_iter();
                decided = Some(self.foreign);
            }
            // What is written stays in hand until it has been taken.
            let mut rest = wanted.clone();
            let mut added = false;
            while !tail.page.is_full() {
                let Some(entry) = rest.next() else { break };
                tail.page.push(entry);
                added = true;
            }
            if !added {
                return true;
            }
            if !shared.set(&self.page_key(self.place, self.page), tail.page.bytes(), tail.condition) {
                conflicts = conflicts.saturating_add(1);
                continue;
            }
            for entry in tail.page.entries(self.read) {
                self.state.apply(entry, generation, None);
                self.read = self.read.saturating_add(1);
            }
            if rest.len() == 0 {
                return true;
            }
            wanted = rest;
        }
        false
    }

    /// Begin anew with what `kept` says of the state, under this worker's name. False: another worker appended or began meanwhile; nothing
    /// has changed.
    pub fn compact(
        &mut self,
        shared: &dyn Shared,
        worker: u64,
        generation: u8,
        kept: impl Fn(&State) -> Vec<Entry>,
    ) -> bool {
        let Some(mut tail) = self.tail(shared, generation) else { return false };
        // Pages of an attempt that failed are never read as those of this one.
        self.attempts = self.attempts.wrapping_add(1);
        let place = Place {
            epoch: self.place.epoch.saturating_add(1),
            worker: worker & 0xffff_ffff | self.attempts << 32,
        };
        let (mut number, mut page) = (0_usize, Page::new(place));
        for entry in kept(&self.state) {
            page.push(entry);
            if page.is_full() {
                if !shared.set(&self.page_key(place, number), page.bytes(), If::Always) {
                    return false;
                }
                (number, page) = (number.saturating_add(1), Page::new(place));
            }
        }
        if !shared.set(&self.page_key(place, number), page.bytes(), If::Always) {
            return false;
        }
        // The seal takes a place of its own, full page or not: whoever reads this page reads it.
        tail.page.push(Entry::Sealed { place });
        if !shared.set(&self.page_key(self.place, self.page), tail.page.bytes(), tail.condition) {
            return false;
        }
        shared.set(&self.head_key(), &place.to_vec(), If::Always);
        self.begin_at(shared, place, generation);
        true
    }
}
