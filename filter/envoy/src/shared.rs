//! Envoy's shared data, as the engine's budgets use it: read when a stream is new, and on ticks.

use crate::{host, names};
use phoenix_filter::shared::{If, Shared};

/// The shared data of this process.
pub struct Data;

impl Shared for Data {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        host::shared(&names::budgets(key))
    }

    fn set(&self, key: &str, value: &[u8], condition: If) -> bool {
        host::set_shared(&names::budgets(key), value, condition)
    }
}
