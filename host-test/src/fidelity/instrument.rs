//! What is counted: metrics, and how fast each counts.
//!
//! In: nothing. Out: names as OTLP and Prometheus spell them, and rates as formulas. Why formulas: a rate that is known at every instant judges both the
//! raw and the folded answer, where comparing the two would only say that they differ. The beginning of a name says what the plan does with it.

use super::clock::{MINUTE_NS, SECOND_NS};
use std::f64::consts::TAU;

/// When the step comes.
const STEP_AT_NS: u64 = 20 * MINUTE_NS;
/// Period of the sinusoid.
const PERIOD_NS: u64 = 10 * MINUTE_NS;

/// How fast a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One a second.
    Steady,
    /// Half as fast again from the middle on.
    Step,
    /// Between 0.4 and 1.6 a second, in ten minutes.
    Sinusoid,
}

impl Shape {
    /// What a rate of one a second has added up to after so long.
    pub fn integral(self, since_begin_ns: u64) -> f64 {
        let seconds = |ns: u64| ns as f64 / SECOND_NS as f64;
        let t = seconds(since_begin_ns);
        match self {
            Shape::Steady => t,
            Shape::Step => t + seconds(since_begin_ns.saturating_sub(STEP_AT_NS)) / 2.0,
            Shape::Sinusoid => {
                let omega = TAU / seconds(PERIOD_NS);
                t + 0.6 * (1.0 - (omega * t).cos()) / omega
            }
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Steady => "steady",
            Shape::Step => "step",
            Shape::Sinusoid => "sinusoid",
        }
    }
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Instrument {
    /// In OTLP.
    pub name: &'static str,
    /// In Prometheus.
    pub stored: &'static str,
    /// In OTLP; Prometheus appends it to the name.
    pub unit: &'static str,
    /// Integers, else doubles.
    pub is_int: bool,
    /// How fast it counts.
    pub shape: Shape,
}

const fn ints(name: &'static str, stored: &'static str, shape: Shape) -> Instrument {
    Instrument { name, stored, unit: "", is_int: true, shape }
}

const fn seconds(name: &'static str, stored: &'static str, shape: Shape) -> Instrument {
    Instrument { name, stored, unit: "s", is_int: false, shape }
}

/// Folded; a steady rate from pods that live on.
pub static LOGINS: Instrument = ints("fold_logins", "fold_logins_total", Shape::Steady);
/// Folded; a step in the rate from pods that live on.
pub static REQUESTS: Instrument = ints("fold_requests", "fold_requests_total", Shape::Step);
/// Folded; a sinusoid in doubles from pods that live on.
pub static CPU: Instrument = seconds("fold_cpu", "fold_cpu_seconds_total", Shape::Sinusoid);
/// Folded; a steady rate from pods that are born, die, crash and come back.
pub static ORDERS: Instrument = ints("fold_orders", "fold_orders_total", Shape::Steady);
/// As [`REQUESTS`], in narrow windows.
pub static NARROW_REQUESTS: Instrument = ints("narrow_requests", "narrow_requests_total", Shape::Step);
/// As [`CPU`], in narrow windows.
pub static NARROW_CPU: Instrument = seconds("narrow_cpu", "narrow_cpu_seconds_total", Shape::Sinusoid);
/// Passes, then folds.
pub static SWITCH_ON: Instrument = ints("switch_on_requests", "switch_on_requests_total", Shape::Steady);
/// Folds, then keeps a label more.
pub static SWITCH_KEEP: Instrument =
    ints("switch_keep_requests", "switch_keep_requests_total", Shape::Steady);
/// Folds, then passes.
pub static SWITCH_OFF: Instrument = ints("switch_off_requests", "switch_off_requests_total", Shape::Steady);
/// No rule names it.
pub static PASSING: Instrument = ints("pass_requests", "pass_requests_total", Shape::Steady);

/// Folded from first to last.
pub static FOLDED: [&Instrument; 6] = [&LOGINS, &REQUESTS, &CPU, &ORDERS, &NARROW_REQUESTS, &NARROW_CPU];
/// Those with a switch.
pub static SWITCHED: [&Instrument; 3] = [&SWITCH_ON, &SWITCH_KEEP, &SWITCH_OFF];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Instrument> {
    FOLDED.into_iter().chain(SWITCHED).chain([&PASSING])
}
