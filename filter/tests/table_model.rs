//! The stream table against a `BTreeMap`, its bytes against a counting allocator, and its refusals against one that
//! fails. What this does not prove: the memory of a wasm module, see `docs/decisions/0002-stream-table.md`.

use phoenix_filter::hash::Identity;
use phoenix_filter::table::{Full, Keep, Slot, StreamTable, Swept};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Counts the bytes this thread holds and fails its allocations from a chosen one on.
struct Watched;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    /// Allocations that still succeed; negative: all do.
    static FUSE: Cell<isize> = const { Cell::new(-1) };
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// Delegates to the system's allocator; only counts beside it.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match FUSE.get() {
            0 => return std::ptr::null_mut(),
            left if left > 0 => FUSE.set(left - 1),
            _ => {}
        }
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// The state of a cumulative scalar stream: value, time, start, series, flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scalar(u64, u64, u64, u32, u32);

/// The state of a delta stream with eight intervals: value, series, flags, 8 × (start, time).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Delta(u64, u32, u32, [(u64, u64); 8], u64);

/// Few identities, many of them equal in one half.
fn identity(name: u16) -> Identity {
    let (high, low) = (u128::from(name % 37), u128::from(name));
    Identity((high.wrapping_mul(0x9E37_79B9_7F4A_7C15_u128) << 64) | low)
}

/// Uniform identities without a key: the multiplier is that of SplitMix64.
fn uniform(name: u64) -> Identity {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    Identity((u128::from(mix(name.wrapping_mul(0x9E37_79B9_7F4A_7C15))) << 64) | u128::from(mix(!name)))
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, u64),
    Remove(u16),
    RemoveSlot(u32),
    Change(u16, u64),
    /// Goes over so many slots and removes states divisible by the second.
    Sweep(usize, u64),
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..300_u16, any::<u64>()).prop_map(|(name, state)| Step::Insert(name, state)),
        6 => (0..300_u16).prop_map(Step::Remove),
        1 => (0..300_u32).prop_map(Step::RemoveSlot),
        3 => (0..300_u16, any::<u64>()).prop_map(|(name, state)| Step::Change(name, state)),
        2 => (0..400_usize, 1..5_u64).prop_map(|(budget, divisor)| Step::Sweep(budget, divisor)),
        1 => Just(Step::Clear),
    ];
    // Clearing is rare within one run of a few hundred steps.
    prop::collection::vec(step, 0..600)
}

/// The oracle: identity → (slot, state).
type Model = BTreeMap<Identity, (Slot, u64)>;

fn same(table: &StreamTable<u64>, model: &Model) {
    assert_eq!(table.len(), model.len());
    assert_eq!(table.is_empty(), model.is_empty());
    let mut held: Vec<_> = table.iter().map(|(slot, identity, state)| (identity, (slot, *state))).collect();
    held.sort_unstable();
    assert_eq!(held, model.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
    for name in 0..300 {
        let (identity, expected) = (identity(name), model.get(&identity(name)));
        assert_eq!(table.get(&identity), expected.map(|(slot, _)| *slot));
        if let Some((slot, state)) = expected {
            assert_eq!((table.identity(*slot), table.state(*slot)), (Some(identity), Some(state)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_table_is_a_bounded_btreemap(max in 0..260_u32, steps in steps()) {
        let (mut table, mut model) = (StreamTable::new(max), Model::new());
        for step in steps {
            match step {
                Step::Insert(name, state) => {
                    let identity = identity(name);
                    let known = model.get(&identity).map(|(slot, _)| *slot);
                    let got = table.insert(identity, state);
                    if known.is_none() && model.len() >= max as usize {
                        prop_assert_eq!(got, Err(Full::Limit));
                    } else {
                        let slot = got.unwrap();
                        prop_assert!(known.is_none_or(|known| known == slot));
                        model.insert(identity, (slot, state));
                    }
                }
                Step::Remove(name) => {
                    let expected = model.remove(&identity(name));
                    let got = table.get(&identity(name)).and_then(|slot| table.remove(slot));
                    prop_assert_eq!(got, expected.map(|(_, state)| (identity(name), state)));
                }
                Step::RemoveSlot(slot) => {
                    let expected = model.iter().find(|(_, (at, _))| at.0 == slot).map(|(id, (_, state))| (*id, *state));
                    prop_assert_eq!(table.remove(Slot(slot)), expected);
                    prop_assert_eq!(table.remove(Slot(slot)), None);
                    prop_assert_eq!(table.state(Slot(slot)), None);
                    model.retain(|_, (at, _)| at.0 != slot);
                }
                Step::Change(name, state) => {
                    if let Some((slot, old)) = model.get_mut(&identity(name)) {
                        *old = state;
                        *table.state_mut(*slot).unwrap() = state;
                    }
                }
                Step::Sweep(budget, divisor) => {
                    let mut seen = BTreeSet::new();
                    let swept = table.sweep(budget, |identity, state| {
                        assert_eq!(model.get(identity).map(|(_, state)| state), Some(&*state));
                        assert!(seen.insert(*identity), "{identity:?} twice in one call");
                        if *state % divisor == 0 { return Keep::Remove; }
                        *state /= 2;
                        Keep::Keep
                    });
                    prop_assert!(swept.slots <= budget && seen.len() <= swept.slots);
                    if budget >= 300 { prop_assert_eq!(seen.len(), model.len()); }
                    let before = model.len();
                    model.retain(|id, (_, state)| !seen.contains(id) || *state % divisor != 0);
                    for (_, state) in model.iter_mut().filter(|(id, _)| seen.contains(id)).map(|(_, v)| v) { *state /= 2; }
                    prop_assert_eq!(swept.removed, before - model.len());
                }
                Step::Clear => {
                    table.clear();
                    model.clear();
                    prop_assert_eq!(table.heap_bytes(), 0);
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
        same(&table, &model);
    }
}

#[test]
fn the_hand_goes_over_every_slot_once_a_round_whatever_the_budget() {
    let mut table = StreamTable::new(u32::MAX);
    for name in 0..10_007 {
        table.insert(uniform(name), 0_u64).unwrap();
    }
    for budget in [1, 7, 64, 10_006, 10_007] {
        let (before, mut left) = (table.iter().next().map(|(_, _, visits)| *visits).unwrap(), 10_007);
        while left > 0 {
            let swept = table.sweep(budget.min(left), |_, visits| {
                *visits += 1;
                Keep::Keep
            });
            left -= swept.slots;
        }
        assert!(table.iter().all(|(_, _, visits)| *visits == before + 1), "budget {budget}");
    }
    assert_eq!(StreamTable::<u64>::new(5).sweep(100, |_, _| Keep::Remove), Swept::default());
}

/// A table of one million, its bytes a stream and the peak while it grew.
fn million<S: Default>() -> (f64, isize) {
    let before = LIVE.get();
    PEAK.set(before);
    let mut table = StreamTable::new(1_000_000);
    let mut worst = 0.0_f64;
    for name in 0..1_000_000_u64 {
        table.insert(uniform(name), S::default()).unwrap();
        // From some hundred kilobytes on the part-filled last chunk no longer counts.
        if name >= 50_000 && name % 1_000 == 0 {
            worst = worst.max(table.heap_bytes() as f64 / table.len() as f64);
        }
    }
    assert_eq!(table.insert(uniform(u64::MAX), S::default()), Err(Full::Limit));
    assert_eq!(table.heap_bytes() as isize, LIVE.get() - before, "heap_bytes is what the allocator gave");
    let end = table.heap_bytes() as f64 / table.len() as f64;
    println!("{} B state: {end:.1} B/stream at 1M, worst {worst:.1}", size_of::<S>());
    (worst, PEAK.get() - before)
}

#[test]
fn a_scalar_stream_takes_64_bytes_and_a_million_fit_80_mib_with_growth() {
    assert_eq!(size_of::<Scalar>(), 32);
    let (worst, peak) = million::<Scalar>();
    assert!(worst <= 64.0, "{worst}");
    assert!(peak <= 80 << 20, "{peak}");
}

#[test]
fn a_delta_stream_takes_192_bytes() {
    assert_eq!(size_of::<Delta>(), 152);
    let (worst, peak) = million::<Delta>();
    assert!(worst <= 192.0, "{worst}");
    assert!(peak <= 192_000_000, "{peak}");
}

#[test]
fn churn_in_a_full_table_takes_no_more_memory() {
    // 12,280 of 16,384 buckets: just below the load at which the index grows, where removed marks pile up fastest.
    let mut table = StreamTable::new(12_280);
    for name in 0..12_280 {
        table.insert(uniform(name), 0_u64).unwrap();
    }
    let (bytes, live) = (table.heap_bytes(), LIVE.get());
    for name in 12_280..500_000_u64 {
        let old = table.get(&uniform(name - 12_280)).unwrap();
        assert!(table.remove(old).is_some());
        assert_eq!(table.insert(uniform(name), name), Ok(old), "a free slot is used again");
    }
    assert_eq!((table.heap_bytes(), LIVE.get()), (bytes, live));
    assert!((487_720..500_000).all(|name| table.get(&uniform(name)).is_some()));
}

#[test]
fn a_failing_allocator_leaves_the_table_as_it_was() {
    let mut table = StreamTable::new(u32::MAX);
    let mut refusals = 0;
    for name in 0..40_000_u64 {
        let heap = table.heap_bytes();
        for fuse in 0.. {
            FUSE.set(fuse);
            let got = table.insert(uniform(name), name);
            FUSE.set(-1);
            match got {
                Ok(_) => break,
                Err(full) => {
                    assert_eq!((full, table.len() as u64), (Full::Memory, name));
                    assert_eq!(table.get(&uniform(name)), None);
                    assert!(table.heap_bytes() >= heap);
                    refusals += 1;
                }
            }
        }
    }
    assert!(refusals > 20, "{refusals}");
    for name in 0..40_000_u64 {
        assert_eq!(table.get(&uniform(name)).and_then(|slot| table.state(slot)), Some(&name));
    }
}
