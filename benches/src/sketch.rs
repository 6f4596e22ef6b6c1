//! `cargo xtask bench sketch`: how far estimates are off, and what a call costs.
//!
//! In: how many seeds. Out: for each number of hashes the mean error and the relative standard error over all seeds, and CPU time of
//! single calls, medians of rounds. Hashes are those of ChaCha8, which shares nothing with the engine. Errors are the same on every
//! machine and in every run; times are not.

use crate::figures::{Figures, Target, number, row, table};
use crate::measure::{median, timed};
use comfy_table::Table;
use phoenix_filter::sketch::{Distinct, Heavy};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;

/// Numbers of hashes at which estimates are taken, rising: exact ones, the first that is not, and thousands and more.
pub const HASHES: [u64; 7] = [100, 127, 128, 1_000, 10_000, 100_000, 1_000_000];
/// The relative standard error that is promised, in per cent.
pub const ERROR_MAX: f64 = 2.3;
/// Entries of the [`Heavy`] that is timed: what a report shows of a label is less.
const ENTRIES: usize = 32;
/// Calls of a timed round: milliseconds, so that the clock's own time does not show.
const CALLS: usize = 1_000_000;

/// How long.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Sketches for each number of hashes.
    pub seeds: u64,
    /// The greatest number of hashes.
    pub hashes: u64,
    /// Rounds of timed calls.
    pub rounds: usize,
}

impl Options {
    /// As the documents have it.
    pub fn full() -> Options {
        Options { seeds: 1_000, hashes: 1_000_000, rounds: 15 }
    }

    /// Only to see that it runs.
    pub fn quick() -> Options {
        Options { seeds: 40, hashes: 10_000, rounds: 2 }
    }
}

/// What was found.
pub struct Outcome {
    /// Errors by number of hashes.
    pub errors: Table,
    /// CPU time by call.
    pub costs: Table,
    /// All numbers.
    pub figures: Figures,
}

/// Runs it.
pub fn run(options: &Options) -> Outcome {
    let mut figures = Figures::default();
    let errors = errors(options, &mut figures);
    let costs = costs(options, &mut figures);
    Outcome { errors, costs, figures }
}

fn errors(options: &Options, figures: &mut Figures) -> Table {
    let sizes: Vec<u64> = HASHES.into_iter().filter(|n| *n <= options.hashes).collect();
    // Sums of the relative error and of its square.
    let mut sums = vec![(0.0, 0.0); sizes.len()];
    for seed in 0..options.seeds {
        let mut hashes = ChaCha8Rng::seed_from_u64(seed);
        let (mut sketch, mut count) = (Distinct::new(), 0);
        for (size, (sum, squares)) in sizes.iter().zip(&mut sums) {
            while count < *size {
                sketch.insert(hashes.next_u64());
                count += 1;
            }
            let error = sketch.estimate() / *size as f64 - 1.0;
            *sum += error;
            *squares += error * error;
        }
    }
    let mut table = table(&["hashes", "mean error, %", "± of that mean", "relative standard error, %"]);
    for (size, (sum, squares)) in sizes.iter().zip(sums) {
        let seeds = options.seeds as f64;
        let (bias, rse) = (100.0 * sum / seeds, 100.0 * (squares / seeds).sqrt());
        figures.add(format!("error.{size}.bias"), bias, "%");
        figures.bound(format!("error.{size}.rse"), rse, "%", Target::AtMost(ERROR_MAX));
        let cells = [bias, rse / seeds.sqrt(), rse].map(|value| format!("{value:.3}"));
        table.add_row(row(&size.to_string(), &cells));
    }
    table
}

/// Something to time: ns a call of one round.
type Call<'a> = (&'static str, Box<dyn FnMut() -> f64 + 'a>);

fn costs(options: &Options, figures: &mut Figures) -> Table {
    let mut random = ChaCha8Rng::seed_from_u64(u64::MAX);
    let hashes: Vec<u64> = (0..CALLS).map(|_| random.next_u64()).collect();
    let of = |count: usize| {
        let mut sketch = Distinct::new();
        hashes.iter().take(count).for_each(|hash| _ = sketch.insert(*hash));
        sketch
    };
    let (sparse, dense, other) = (of(127), of(100_000), of(50_000));
    let insert = |sketch: &Distinct, known: usize| {
        let mut sketch = sketch.clone();
        let (changed, ns) = timed(|| {
            let mut changed = 0_u64;
            for hash in hashes.iter().take(known).cycle().take(CALLS) {
                changed += u64::from(sketch.insert(black_box(*hash)));
            }
            changed
        });
        black_box(changed);
        ns / CALLS as f64
    };
    let few = |act: &dyn Fn()| {
        let calls = 1_000;
        timed(|| (0..calls).for_each(|_| act())).1 / f64::from(calls)
    };
    let mut calls: Vec<Call> = vec![
        ("insert.sparse.known", Box::new(|| insert(&sparse, 127))),
        ("insert.dense", Box::new(|| insert(&dense, CALLS))),
        ("estimate.dense", Box::new(|| few(&|| _ = black_box(black_box(&dense).estimate())))),
        // The copy that is merged into is in it.
        ("merge.dense", Box::new(|| few(&|| black_box(dense.clone()).merge(black_box(&other))))),
        ("decode.dense", {
            let mut bytes = Vec::new();
            dense.encode(&mut bytes);
            Box::new(move || few(&|| drop(black_box(Distinct::decode(black_box(&bytes))))))
        }),
        ("heavy.known", Box::new(|| heavy(&hashes, ENTRIES))),
        ("heavy.strange", Box::new(|| heavy(&hashes, CALLS))),
    ];
    let mut rounds = vec![Vec::new(); calls.len()];
    for _ in 0..options.rounds {
        for ((_, call), times) in calls.iter_mut().zip(&mut rounds) {
            times.push(call());
        }
    }
    let mut table = table(&["call", "ns"]);
    for ((name, _), times) in calls.iter().zip(rounds) {
        let ns = median(times);
        figures.add(*name, ns, "ns");
        table.add_row(row(name, &[number(ns)]));
    }
    table
}

/// Adds keys of which `known` differ to a full [`Heavy`].
fn heavy(hashes: &[u64], known: usize) -> f64 {
    let mut heavy = Heavy::new(ENTRIES);
    hashes.iter().take(ENTRIES).for_each(|key| heavy.add(*key, 1, || b"an example"));
    let ((), ns) = timed(|| {
        for key in hashes.iter().take(known).cycle().take(CALLS) {
            heavy.add(black_box(*key), 1, || b"/cart/checkout/7d9c5b7f4");
        }
    });
    black_box(&heavy);
    ns / CALLS as f64
}
