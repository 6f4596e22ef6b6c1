//! One scenario through one process; many of them on all cores.
//!
//! In: scenarios, and who makes processes. Out: verdicts, in the order of the scenarios. Time is virtual: requests come at their time, a tick comes every second between
//! them, and after the last request time goes on until every window must have closed.

use super::judge::Judge;
use super::process::Process;
use super::scenario::{EPOCH_NS, START_NS, Scenario};
use super::verdict::Verdict;
use anyhow::{Context as _, anyhow};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Between ticks, nanoseconds.
const TICK_NS: u64 = 1_000_000_000;
/// After the last request: windows, delays and answers, several times over.
const QUIET_NS: u64 = 15 * EPOCH_NS;

/// Runs a scenario.
///
/// # Errors
/// The process failed, or said what nobody can read.
pub fn run(scenario: &Scenario, process: &mut dyn Process) -> anyhow::Result<Verdict> {
    let mut judge = Judge::new(*scenario, process.gaps());
    let mut clock_ns = START_NS;
    let mut ticks = |process: &mut dyn Process, judge: &mut Judge, until_ns: u64| -> anyhow::Result<()> {
        while clock_ns + TICK_NS <= until_ns {
            clock_ns += TICK_NS;
            for emission in process.tick(clock_ns)? {
                judge.emission(&emission, clock_ns)?;
            }
        }
        Ok(())
    };
    let mut traffic = scenario.traffic();
    let mut last_ns = START_NS;
    while let Some(requests) = traffic.next_epoch() {
        for request in requests {
            ticks(process, &mut judge, request.at_ns)?;
            let forwarded = process.batch(request.worker, &request.tenant, &request.body, request.at_ns)?;
            judge.batch(&request, &forwarded)?;
            last_ns = request.at_ns;
        }
    }
    ticks(process, &mut judge, last_ns + QUIET_NS)?;
    Ok(judge.verdict())
}

/// Runs scenarios on all cores, each with a process of its own; `seen` hears how many are done.
///
/// # Errors
/// The first scenario that could not be run, by name.
pub fn run_all(
    scenarios: &[Scenario],
    process: impl Fn(&Scenario) -> anyhow::Result<Box<dyn Process>> + Sync,
    seen: impl Fn(usize) + Sync,
) -> anyhow::Result<Vec<Verdict>> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results = Mutex::new((0..scenarios.len()).map(|_| None).collect::<Vec<_>>());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while let Some((index, scenario)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            scenarios.get(index).map(|scenario| (index, scenario))
        } {
            let result = process(scenario).and_then(|mut process| run(scenario, process.as_mut()));
            if result.is_err() {
                // Nobody needs the rest.
                next.store(scenarios.len(), Ordering::Relaxed);
            }
            if let Ok(mut results) = results.lock() {
                results[index] = Some(result.with_context(|| format!("{scenario:?}")));
            }
            seen(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let results = results.into_inner().map_err(|_| anyhow!("a scenario panicked"))?;
    // An error first, or what was not run because of it would hide it.
    let (errors, rest): (Vec<_>, Vec<_>) = results.into_iter().partition(|r| matches!(r, Some(Err(_))));
    match errors.into_iter().flatten().next() {
        Some(error) => error.map(|_| Vec::new()),
        None => rest.into_iter().map(|result| result.context("a scenario was not run")?).collect(),
    }
}
