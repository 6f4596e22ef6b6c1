//! Slots of series, found by identity.
//!
//! In: identities, and how to make what is not there. Out: slots, stable until swept. Bounded; whatever finds it full goes to the
//! overflow series of its metric, for which there is room set aside.

use super::Series;
use crate::hash::Identity;
use crate::identify::ById;
use crate::limits::OVERFLOW_SERIES;

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
