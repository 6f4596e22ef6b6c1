//! Table: a bounded map from [`Identity`] to the state of a stream.
//!
//! In: identities and states. Out: slots (stable numbers, valid until removed) and the states behind them. The
//! states lie in a slab of fixed-size chunks and an index of slot numbers points into it, so that growth copies at
//! most the index (5 bytes a bucket) and never the states: the memory of a wasm module never shrinks, and a table
//! that doubled by copying would hold three times what it needs for ever.
//!
//! It refuses what exceeds its bound or the memory ([`Full`]), leaves everything as it was and never traps. There is
//! no clock: [`StreamTable::sweep`] walks a hand over the slots, a bounded number per call, and the caller decides.
//!
//! Cost: one probe of the index and one read of the entry per look-up, O(1). Bytes per stream: 16 for the identity,
//! the state, and 6.7 to 13.3 for the index at its load of 75 to 37.5 %. Evidence:
//! `docs/decisions/0002-stream-table.md`.
//!
//! Wrong choice where slots must be told apart from their re-use: a slot is a bare number, and after `remove` the
//! next `insert` gets it again. Nothing may keep a slot across a call that removes.

use crate::hash::Identity;
use hashbrown::HashTable;

/// A chunk fits one page of wasm memory (64 KiB), so that the allocator asks the embedder for whole pages in step
/// with the table's growth, and a hole left by an old index is filled by many chunks.
const CHUNK_BYTES: usize = 64 * 1024;

/// Highest load of the index in percent. hashbrown goes to 87.5; the eighth of the buckets between the two is what
/// marks of removed entries may fill before the index is filled again, so that churn pays few insertions a removal.
const LOAD_PERCENT: u64 = 75;

/// Smallest index, in buckets: below this hashbrown rounds differently.
const BUCKETS_MIN: usize = 16;

/// The number of an entry: dense from 0, stable until the entry is removed, then used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Why an identity was not taken. The table is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// The table holds as many streams as it may.
    Limit,
    /// The allocator refused.
    Memory,
}

/// What [`StreamTable::sweep`] does with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// It stays.
    Keep,
    /// It goes, and its slot is free.
    Remove,
}

/// What one call of [`StreamTable::sweep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Slots the hand went over, free ones included.
    pub slots: usize,
    /// Entries removed.
    pub removed: usize,
}

/// A bounded map from identity to state `S`.
///
/// `S` is a flat record; `Default` is what a free slot holds, so that a removed state is gone at once.
pub struct StreamTable<S> {
    index: HashTable<u32>,
    chunks: Vec<Vec<Entry<S>>>,
    /// One bit per slot: taken.
    taken: Vec<u64>,
    /// Slots ever used: those below are taken or on the free list.
    slots: u32,
    /// Head of the list of free slots; each holds the next in the low half of its identity.
    free: Option<u32>,
    hand: u32,
    max: u32,
}

/// The identity as two words: a `u128` would ask for 16-byte alignment and pad a state of 8·odd bytes.
struct Entry<S> {
    low: u64,
    high: u64,
    state: S,
}

impl<S: Default> StreamTable<S> {
    /// Entries a chunk holds: the largest power of two within [`CHUNK_BYTES`].
    const CHUNK_ENTRIES: u32 = {
        let entries = CHUNK_BYTES / size_of::<Entry<S>>();
        assert!(entries > 0, "the state of a stream exceeds a chunk");
        1 << entries.ilog2()
    };

    /// An empty table for at most `max` streams. Reserves nothing.
    #[must_use]
    pub const fn new(max: u32) -> Self {
        Self {
            index: HashTable::new(),
            chunks: Vec::new(),
            taken: Vec::new(),
            slots: 0,
            free: None,
            hand: 0,
            max,
        }
    }

    /// Streams held.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it holds none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Streams it may hold.
    #[must_use]
    #[inline]
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// Sets the bound. A table that holds more keeps what it has and takes no more.
    pub const fn set_max(&mut self, max: u32) {
        self.max = max;
    }

    /// Bytes reserved: chunks, index and lists, without the allocator's own headers (8 bytes a chunk on wasm).
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let chunk = |chunk: &Vec<Entry<S>>| chunk.capacity().saturating_mul(size_of::<Entry<S>>());
        let chunks = self.chunks.iter().map(chunk).fold(0_usize, usize::saturating_add);
        chunks
            .saturating_add(self.chunks.capacity().saturating_mul(size_of::<Vec<Entry<S>>>()))
            .saturating_add(self.taken.capacity().saturating_mul(size_of::<u64>()))
            .saturating_add(self.index.allocation_size())
    }

    /// The slot of a stream.
    #[must_use]
    #[inline]
    pub fn get(&self, identity: &Identity) -> Option<Slot> {
        let (low, high, chunks) = (identity.low(), identity.high(), &self.chunks);
        let same =
            |slot: &u32| Self::at(chunks, *slot).is_some_and(|entry| entry.low == low && entry.high == high);
        self.index.find(high, same).copied().map(Slot)
    }

    /// Adds a stream. One that is there already gets the new state and keeps its slot, even in a full table.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed then.
    pub fn insert(&mut self, identity: Identity, state: S) -> Result<Slot, Full> {
        if let Some(slot) = self.get(&identity) {
            if let Some(old) = self.state_mut(slot) {
                *old = state;
            }
            return Ok(slot);
        }
        if self.len() >= self.max as usize {
            return Err(Full::Limit);
        }
        self.reserve_index()?;
        let slot = self.take_slot(Entry { low: identity.low(), high: identity.high(), state })?;
        let chunks = &self.chunks;
        // `reserve_index` left room: this never calls the hasher and never allocates.
        self.index.insert_unique(identity.high(), slot, |slot| Self::index_hash(chunks, *slot));
        Ok(Slot(slot))
    }

    /// The state in a slot, `None` if the slot is free.
    #[must_use]
    #[inline]
    pub fn state(&self, slot: Slot) -> Option<&S> {
        self.entry(slot).map(|entry| &entry.state)
    }

    /// The state in a slot, to change it.
    #[must_use]
    #[inline]
    pub fn state_mut(&mut self, slot: Slot) -> Option<&mut S> {
        if !self.is_taken(slot.0) {
            return None;
        }
        Self::at_mut(&mut self.chunks, slot.0).map(|entry| &mut entry.state)
    }

    /// The stream in a slot.
    #[must_use]
    #[inline]
    pub fn identity(&self, slot: Slot) -> Option<Identity> {
        self.entry(slot).map(Entry::identity)
    }

    /// Removes the stream in a slot. `None` if the slot is free.
    pub fn remove(&mut self, slot: Slot) -> Option<(Identity, S)> {
        let identity = self.identity(slot)?;
        self.index.find_entry(identity.high(), |other| *other == slot.0).ok()?.remove();
        let next = self.free.map_or(u64::from(u32::MAX), u64::from);
        let entry = Self::at_mut(&mut self.chunks, slot.0)?;
        entry.low = next;
        let state = core::mem::take(&mut entry.state);
        self.free = Some(slot.0);
        self.set_taken(slot.0, false);
        Some((identity, state))
    }

    /// Shows the next entries to `visit`, going over at most `budget` slots (and none twice), and removes those it
    /// says. The next call continues where this one ended.
    pub fn sweep(&mut self, budget: usize, mut visit: impl FnMut(&Identity, &mut S) -> Keep) -> Swept {
        let slots = budget.min(self.slots as usize);
        let mut swept = Swept { slots, removed: 0 };
        for _ in 0..slots {
            let slot = if self.hand < self.slots { self.hand } else { 0 };
            self.hand = slot.wrapping_add(1);
            let Some(identity) = self.identity(Slot(slot)) else { continue };
            let Some(state) = self.state_mut(Slot(slot)) else { continue };
            if visit(&identity, state) == Keep::Remove && self.remove(Slot(slot)).is_some() {
                swept.removed = swept.removed.saturating_add(1);
            }
        }
        swept
    }

    /// Every entry, in the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, Identity, &S)> {
        (0..self.slots).filter_map(|slot| {
            let entry = self.entry(Slot(slot))?;
            Some((Slot(slot), entry.identity(), &entry.state))
        })
    }

    /// Removes everything and gives the memory back to the allocator. The bound stays.
    pub fn clear(&mut self) {
        *self = Self::new(self.max);
    }

    #[inline]
    fn entry(&self, slot: Slot) -> Option<&Entry<S>> {
        if self.is_taken(slot.0) { Self::at(&self.chunks, slot.0) } else { None }
    }

    #[inline]
    fn at(chunks: &[Vec<Entry<S>>], slot: u32) -> Option<&Entry<S>> {
        let (chunk, place) = Self::place(slot);
        chunks.get(chunk)?.get(place)
    }

    #[inline]
    fn at_mut(chunks: &mut [Vec<Entry<S>>], slot: u32) -> Option<&mut Entry<S>> {
        let (chunk, place) = Self::place(slot);
        chunks.get_mut(chunk)?.get_mut(place)
    }

    #[inline]
    const fn place(slot: u32) -> (usize, usize) {
        let bits = Self::CHUNK_ENTRIES.ilog2();
        (slot.wrapping_shr(bits) as usize, (slot & Self::CHUNK_ENTRIES.wrapping_sub(1)) as usize)
    }

    /// What the index hashes a slot by. A slot in the index has an entry, so the default is never used.
    #[inline]
    fn index_hash(chunks: &[Vec<Entry<S>>], slot: u32) -> u64 {
        Self::at(chunks, slot).map_or(0, |entry| entry.high)
    }

    #[inline]
    fn is_taken(&self, slot: u32) -> bool {
        bit(&self.taken, slot)
    }

    fn set_taken(&mut self, slot: u32, taken: bool) {
        if let Some(bits) = self.taken.get_mut((slot >> 6) as usize) {
            let bit = 1_u64.wrapping_shl(slot & 63);
            *bits = if taken { *bits | bit } else { *bits & !bit };
        }
    }

    /// Puts an entry into a free slot, or into a new one.
    fn take_slot(&mut self, entry: Entry<S>) -> Result<u32, Full> {
        if let Some(slot) = self.free
            && let Some(old) = Self::at_mut(&mut self.chunks, slot)
        {
            self.free = u32::try_from(old.low).ok().filter(|next| *next != u32::MAX);
            *old = entry;
            self.set_taken(slot, true);
            return Ok(slot);
        }
        let slot = self.slots;
        let (chunk, _) = Self::place(slot);
        if chunk >= self.chunks.len() {
            let mut entries = Vec::new();
            entries.try_reserve_exact(Self::CHUNK_ENTRIES as usize).map_err(|_| Full::Memory)?;
            self.chunks.try_reserve(1).map_err(|_| Full::Memory)?;
            self.chunks.push(entries);
        }
        if (slot >> 6) as usize >= self.taken.len() {
            self.taken.try_reserve(1).map_err(|_| Full::Memory)?;
            self.taken.push(0);
        }
        self.chunks.get_mut(chunk).ok_or(Full::Memory)?.push(entry);
        self.slots = slot.wrapping_add(1);
        self.set_taken(slot, true);
        Ok(slot)
    }

    /// Makes sure that the index takes one more without allocating.
    ///
    /// hashbrown counts the marks of removed entries as used and, when full of them, may double although the number
    /// of streams never grew. So the decision is made here: grow by the load of real entries, else drop the marks
    /// by filling the same buckets again from the slab, which allocates nothing.
    fn reserve_index(&mut self) -> Result<(), Full> {
        let Self { index, chunks, taken, slots, .. } = self;
        let (len, buckets) = (index.len(), index.num_buckets());
        let hash = |slot: &u32| Self::index_hash(chunks, *slot);
        if len as u64 >= (buckets as u64).saturating_mul(LOAD_PERCENT) / 100 {
            let wanted = buckets.saturating_mul(2).max(BUCKETS_MIN);
            // 7/8 of the buckets is what hashbrown calls their capacity.
            let more = (wanted / 8).saturating_mul(7).saturating_sub(len);
            return index.try_reserve(more, hash).map_err(|_| Full::Memory);
        }
        if index.capacity() == len {
            index.clear();
            for slot in (0..*slots).filter(|slot| bit(taken, *slot)) {
                index.insert_unique(hash(&slot), slot, hash);
            }
        }
        Ok(())
    }
}

/// Whether the bit of a slot is set.
#[inline]
fn bit(bits: &[u64], slot: u32) -> bool {
    bits.get((slot >> 6) as usize).is_some_and(|bits| bits.wrapping_shr(slot & 63) & 1 == 1)
}

impl<S> Entry<S> {
    const fn identity(&self) -> Identity {
        Identity(((self.high as u128) << 64) | self.low as u128)
    }
}
