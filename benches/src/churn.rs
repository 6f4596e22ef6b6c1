//! Memory under churn: ten passes, each of streams that were never seen, through a table that is bounded at the streams of one.
//!
//! In: the compiled component and a number of streams. Out: by how much the instance's linear memory, which never shrinks, grew from the first
//! pass to the last. Between two passes the streams of the last one expire, as the clock and the sweeps of the embedder's ticks have it.
//! Refuses to report when streams were turned away: then the table was not emptied, and nothing was shown.

use crate::figures::{Figures, Target};
use crate::native::Subject as _;
use crate::traffic::{Traffic, Treatment, WINDOW, plan};
use crate::wasm::{Compiled, Wasm};
use anyhow::ensure;
use phoenix_filter::limits::SWEEP_SLOTS;
use phoenix_filter::units::UnixNanos;
use serde_json::json;

/// Ten million points, where the streams are a million.
const PASSES: u64 = 10;
/// A stream that is silent for so long is forgotten.
const EXPIRY_S: u64 = 300;
/// One step of the clock: a longer one would not count as that much silence.
const STEP_S: u64 = 30;
/// What the allocator may need more for holes; the table itself must not grow.
const GROWTH_MAX_BYTES: f64 = 1024.0 * 1024.0;

/// Measures.
///
/// # Errors
/// The instance trapped or turned streams away.
pub fn run(compiled: &Compiled, streams: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let mut traffic = Traffic::churning(streams);
    let mut plan = plan(Treatment::FoldAll, WINDOW);
    plan["limits"]["streams_max"] = json!(traffic.streams());
    plan["stream_expiry"] = json!(format!("{EXPIRY_S}s"));
    let mut now = traffic.now();
    let mut wasm = compiled.start_under(plan.to_string().as_bytes(), now)?;
    let (mut first, mut body) = (0, Vec::new());
    for pass in 0..PASSES {
        now = UnixNanos(now.0 + STEP_S * 1_000_000_000);
        for _ in 0..traffic.bodies() {
            body.clear();
            traffic.body(now, &mut body);
            wasm.take(&body, now)?;
        }
        if pass == 0 {
            first = wasm.memory_bytes();
        }
        now = forget(&mut wasm, traffic.streams(), now)?;
    }
    let points = wasm.done().points;
    ensure!(points == PASSES * traffic.streams() as u64, "{points} points came in");
    let refused = wasm.refused()?;
    ensure!(refused == 0, "{refused} points found the table full");
    figures.add("memory.churn.points", points as f64, "points");
    let grown = wasm.memory_bytes().saturating_sub(first) as f64;
    figures.bound("memory.churn.growth", grown, "bytes", Target::AtMost(GROWTH_MAX_BYTES));
    Ok(())
}

/// Let the clock run until every stream has expired and was swept. The time then.
fn forget(wasm: &mut Wasm, streams: usize, mut now: UnixNanos) -> anyhow::Result<UnixNanos> {
    for _ in 0..EXPIRY_S / STEP_S + 2 {
        now = UnixNanos(now.0 + STEP_S * 1_000_000_000);
        wasm.tick(now)?;
    }
    for _ in 0..streams / SWEEP_SLOTS + 2 {
        wasm.tick(now)?;
    }
    Ok(now)
}
