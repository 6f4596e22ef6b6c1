//! Virtual time and the order of what is due.
//!
//! Enters: the timers of all VMs and the timeouts of pending calls. Leaves: the next thing that is due, and a choice
//! among things due at the same instant. Without a seed the order is fixed (main thread first, then workers); with a
//! seed a small generator shuffles it, and the same seed gives the same run.

/// Nanoseconds since the Unix epoch at which a process starts unless the test says otherwise: 2025-01-01T00:00:00Z.
pub const START_NANOS: u64 = 1_735_689_600_000_000_000;

/// Chooses one of several equal candidates.
#[derive(Clone, Debug)]
pub(crate) struct Order(Option<u64>);

impl Order {
    pub fn new(seed: Option<u64>) -> Self {
        Self(seed)
    }

    /// An index below `count`; the first without a seed. The generator is SplitMix64 (Steele et al., 2014).
    pub fn choose(&mut self, count: usize) -> usize {
        let Some(state) = &mut self.0 else { return 0 };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        if count == 0 { 0 } else { (mixed % count as u64) as usize }
    }
}
