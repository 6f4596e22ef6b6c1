//! What the workers of a process share: values by key, written on a condition.
//!
//! The engine does no I/O; an embedder with several workers lends it its shared data (proxy-wasm's, with compare-and-swap), one with a
//! single thread a [`Memory`]. Cost in Envoy: about half a microsecond for a read and a write, under one mutex for the process; so what is
//! read here is read when something new turns up, never for what is known.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// On which condition a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum If {
    /// Whatever is there.
    Always,
    /// Nobody has written since this compare-and-swap number was read.
    Unchanged(u32),
    /// There is no such key yet.
    Absent,
}

/// Values that all workers of a process see.
pub trait Shared {
    /// The value of a key, and its compare-and-swap number.
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)>;
    /// Write a value, if; false: the condition does not hold, or the embedder refused.
    fn set(&self, key: &str, value: &[u8], condition: If) -> bool;
}

/// Shared data in memory, for workers in one thread. Clones share.
#[derive(Clone, Default)]
pub struct Memory {
    values: Rc<RefCell<Values>>,
}

#[derive(Default)]
struct Values {
    by_key: BTreeMap<String, (Vec<u8>, u32)>,
    writes: u32,
}

impl Shared for Memory {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.values.try_borrow().ok()?.by_key.get(key).cloned()
    }

    fn set(&self, key: &str, value: &[u8], condition: If) -> bool {
        let Ok(mut values) = self.values.try_borrow_mut() else { return false };
        let now = values.by_key.get(key).map(|(_, number)| *number);
        let holds = match condition {
            If::Always => true,
            If::Unchanged(number) => now == Some(number),
            If::Absent => now.is_none(),
        };
        if holds {
            values.writes = values.writes.wrapping_add(1);
            let number = values.writes;
            values.by_key.insert(key.to_owned(), (value.to_vec(), number));
        }
        holds
    }
}
