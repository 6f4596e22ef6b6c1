//! When the scene plays, and how its plan differs from the shipped one.
//!
//! In: the length of the run. Out: when the leak begins and ends, so that there is time to forget it and to restore raw series; and a plan whose
//! period, dwell and lead are as much shorter as the demo's day is.

use super::super::Options;
use super::super::stage::INTERVAL;
use crate::shop::leak::LeakConfig;
use serde_json::Value;
use std::time::Duration;

/// How long the label leaks, at most.
const LEAK: Duration = Duration::from_secs(20);
/// A shorter leak is no scene.
const LEAK_LEAST: Duration = Duration::from_secs(4);
/// Traffic before the leak, at least: the innocents are known, and one generation has passed.
const BEFORE: Duration = Duration::from_secs(4);
/// Over which streams count as active: the least that a plan may say.
const PERIOD: Duration = Duration::from_secs(15);
/// A metric stays contained for so long.
const DWELL: Duration = Duration::from_secs(5);
/// How far ahead raw series are announced: four export intervals, two more than it takes, since machines are busy.
const SWITCH_LEAD: Duration = Duration::from_secs(4);
/// Traffic after the leak: its last streams are exported once more and then forgotten, a second goes by until somebody looks, the switch is
/// announced, and seven exports are raw again, on a busy machine fewer.
const AFTER: Duration = Duration::from_secs(1 + PERIOD.as_secs() + 1 + SWITCH_LEAD.as_secs() + 1 + 7);

/// The leak of a run; `None`: it is too short for one, or wants none. A shorter leak than [`LEAK`] has less streams, in proportion.
pub fn leak(options: &Options, tenant: &str) -> Option<LeakConfig> {
    let length = Duration::from_secs(options.seconds);
    let room = length.checked_sub(BEFORE + AFTER).filter(|room| *room >= LEAK_LEAST)?;
    let lasts = room.min(LEAK);
    // In the middle, or earlier where it would end too late.
    let from = (BEFORE + room - lasts).min((length - lasts) / 2);
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

/// The least length of a run with a leak.
pub fn seconds_min() -> u64 {
    (BEFORE + LEAK_LEAST + AFTER).as_secs()
}

/// Measuring and budgets at the demo's pace.
pub fn hasten(plan: &mut Value) {
    let seconds = |duration: Duration| Value::from(format!("{}s", duration.as_secs()));
    plan["measure"]["period"] = seconds(PERIOD);
    let budgets = &mut plan["budgets"];
    budgets["dwell"] = seconds(DWELL);
    budgets["switch_lead"] = seconds(SWITCH_LEAD);
    budgets["fold"]["window"] = seconds(INTERVAL);
}
