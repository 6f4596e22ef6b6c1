//! When the scene plays.
//!
//! In: the length of the run. Out: when the control host may act, when the leak begins and ends, and whether there is time to forget it and to restore raw series. How fast plans measure
//! and change is in the demo's policy.

use super::super::Options;
use super::super::stage::INTERVAL;
use crate::shop::leak::LeakConfig;
use std::time::Duration;

/// How long the label leaks, at most, and at least.
const LEAK: Duration = Duration::from_secs(12);
const LEAK_LEAST: Duration = Duration::from_secs(4);
/// From the policy that says `auto` to the leak: a turn of the loop, the plans' way, two exports under the budgets.
const ACTING: Duration = Duration::from_secs(3);
/// After the leak began, in any case: a report, a decision, the switch four seconds later, five exports under the rule.
const RULED: Duration = Duration::from_secs(13);
/// After the leak, to restore raw series: its last streams are exported once more, and are forgotten a period of 15 s and a third after that; a report, a decision, the switch;
/// five exports are raw again.
const AFTER: Duration = Duration::from_secs(1 + 20 + 2 + 5 + 5);

/// When the shop is observed no longer: after a third of the run.
pub fn acts_from(options: &Options) -> Duration {
    Duration::from_secs(options.seconds) / 3
}

/// The leak of a run; `None`: it is too short for one, or wants none. A shorter leak than [`LEAK`] has less streams, in proportion. It begins at `from` at the earliest, when the
/// gateways have their shares.
pub fn leak(options: &Options, tenant: &str) -> Option<LeakConfig> {
    let length = Duration::from_secs(options.seconds);
    let from = acts_from(options) + ACTING;
    length.checked_sub(from + RULED)?;
    let room = length.saturating_sub(from + AFTER);
    let lasts = Duration::from_secs(room.as_secs()).clamp(LEAK_LEAST, LEAK);
    let users = (options.leak as f64 * lasts.as_secs_f64() / LEAK.as_secs_f64()) as u64;
    let leak = LeakConfig {
        seed: options.seed,
        length,
        from,
        until: from + lasts,
        users,
        interval: INTERVAL,
        requests_per_connection: options.requests_per_connection,
        tenant: tenant.to_owned(),
    };
    (users > 0).then_some(leak)
}

/// Whether a leak that came so long after the beginning, and was decided on then, is forgotten and taken back before the end: a slow machine is not wrong.
pub fn is_restoration_due(leak: &LeakConfig, released: Duration, decided: Duration, dwell: Duration) -> bool {
    let forgotten = released + (leak.until - leak.from) + AFTER;
    // No metric changes twice in a dwell.
    let may_change = decided + dwell + RULED;
    forgotten.max(may_change) <= leak.length
}

/// The least length of a run with a leak.
pub fn seconds_min() -> u64 {
    // A third of it, and the rest.
    ((ACTING + RULED) * 3 / 2).as_secs()
}
