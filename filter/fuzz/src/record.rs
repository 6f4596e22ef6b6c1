//! Messages of records over arbitrary bytes, and into an owner. Nothing panics; a message that is refused changes nothing; one
//! that is taken leaves the books balanced.
//!
//! Windows of less than a second are left out: a plan cannot ask for them, workers and owners are one process, and an increment
//! costs a step for each window that it spans.

use super::shared;
use phoenix_filter::owner::Owner;
use phoenix_filter::record::Message;
use phoenix_filter::units::UnixNanos;

const S: u64 = 1_000_000_000;
/// A span of windows beyond this costs time, not correctness.
const WINDOWS_MAX: u64 = 10_000;

/// Run one input.
pub fn run(data: &[u8]) {
    let readable = Message::read(data).is_ok_and(|m| m.check().is_ok());
    let mut carried = data.to_vec();
    assert_eq!(Message::mark_carried(&mut carried).is_ok(), Message::read(data).is_ok());
    if let Ok(m) = Message::read(data) {
        let longest = m.records().take(64).flatten().map(|r| r.observation.time.0).max().unwrap_or(0);
        let wide = |width: u64| width >= S && longest / width < WINDOWS_MAX;
        if readable && !m.heads().flatten().all(|h| wide(h.windows.width_ns)) {
            return;
        }
    }
    let plan = shared::compiled(shared::WALL);
    // The key of a message is eight of its bytes: an owner with that very key lets the fuzzer get further.
    let key = Message::read(data).map_or(plan.key, |m| m.key);
    let mut owner = Owner::new(&plan.plan, key, "w", 0);
    owner.begin(UnixNanos(S));
    for now in [10 * S, 20 * S] {
        let taken = owner.fold(data, UnixNanos(now));
        assert_eq!(taken.is_ok(), readable, "taken as a whole, or not at all");
        shared::check_owner(&owner, &plan.plan);
    }
    if readable {
        let _ = owner.fold(&carried, UnixNanos(30 * S));
    }
    owner.tick(UnixNanos(u64::MAX));
    shared::check_owner(&owner, &plan.plan);
    if !readable {
        assert_eq!((owner.streams(), owner.series(), owner.ledger().unreadable), (0, 0, 2));
    }
}
