//! Who counts, and when: pods that live on, a deploy, crashes, resets, pods of seconds.
//!
//! In: when the scene begins. Out: lives, each with its counters. Two lives of one pod are one stream of points: a counter that began again, with a new
//! start time or without. Deterministic: no random number.

use super::clock::{ACTIVE_NS, INTERVAL_NS, KEEP_NS, MINUTE_NS, OFF_NS, ON_NS, SECOND_NS, TAIL_NS};
use super::instrument::{
    CPU, Instrument, LOGINS, NARROW_CPU, NARROW_REQUESTS, ORDERS, PASSING, REQUESTS, SWITCH_KEEP, SWITCH_OFF,
    SWITCH_ON,
};

/// Pods that live from long before to the end.
const STEADY_PODS: u64 = 8;
/// Pods export spread evenly over the interval, as many pods do, so that their newest samples are half an interval old on average; and in an order that has
/// little to do with their rates, which grow with their number. Prime to [`STEADY_PODS`].
const PHASE_STEP: u64 = 5;
/// Pods of each generation of the deploy.
const DEPLOYED_PODS: u64 = 4;
/// Routes, kept. Pods on the edge of a switch have [`EDGE`] to themselves: their births and deaths would hide what the switch does to the others.
pub const ROUTES: [&str; 2] = ["/cart", "/pay"];
/// The route of what is born, dies or begins again about a switch, or ends with a stale marker.
pub const EDGE: &str = "/edge";
/// Browsers, dropped.
const AGENTS: [&str; 3] = ["firefox", "chrome", "curl"];

/// One counter in one life of a pod.
#[derive(Clone, Debug)]
pub struct Counter {
    /// Of what.
    pub instrument: &'static Instrument,
    /// A label that is kept.
    pub route: &'static str,
    /// A label that is dropped.
    pub agent: &'static str,
    /// How many times as fast as its shape.
    pub rate: f64,
    /// Value at the beginning of the scene, of those that live before it.
    pub initial: f64,
}

/// One life of a pod.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its name.
    pub pod: String,
    /// When its counters were zero.
    pub born_ns: u64,
    /// When its points say that they were.
    pub says_born_ns: u64,
    /// Of exports within the interval.
    pub offset_ns: u64,
    /// The last export, or the crash.
    pub until_ns: u64,
    /// How it ends.
    pub end: End,
    /// What it counts.
    pub counters: Vec<Counter>,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an export at the last moment, as an SDK that is shut down makes.
    Graceful,
    /// Without a word: what came after the last export is lost.
    Crash,
    /// With an export, and stale markers an interval later, as a scraper that finds its target gone writes.
    Stale,
}

/// All lives of a scene.
pub fn lives(begin_ns: u64) -> Vec<Life> {
    let mut lives = steady(begin_ns);
    lives.extend(churn(begin_ns));
    for (instrument, at_ns) in [(&SWITCH_ON, ON_NS), (&SWITCH_KEEP, KEEP_NS), (&SWITCH_OFF, OFF_NS)] {
        lives.extend(edge(begin_ns, instrument, begin_ns + at_ns));
    }
    lives
}

fn combinations() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.into_iter().flat_map(|route| AGENTS.into_iter().map(move |agent| (route, agent)))
}

/// Pods in which nothing happens but what their formulas say.
fn steady(begin_ns: u64) -> Vec<Life> {
    let life = |pod: u64| {
        let mut counters = Vec::new();
        for (number, (route, agent)) in combinations().enumerate() {
            let rate = 3.0 + 0.7 * pod as f64 + 0.31 * number as f64;
            let initial = (1_000 * pod + 100 * number as u64) as f64;
            let mut of = |instrument, rate, initial| {
                counters.push(Counter { instrument, route, agent, rate, initial });
            };
            for instrument in
                [&LOGINS, &REQUESTS, &NARROW_REQUESTS, &SWITCH_ON, &SWITCH_KEEP, &SWITCH_OFF, &PASSING]
            {
                of(instrument, rate, initial);
            }
            for instrument in [&CPU, &NARROW_CPU] {
                of(instrument, rate / 7.0, initial / 3.0);
            }
        }
        let born_ns = begin_ns - 60 * MINUTE_NS;
        Life {
            pod: format!("web-{pod}"),
            born_ns,
            says_born_ns: born_ns,
            offset_ns: (2 * (pod * PHASE_STEP % STEADY_PODS) + 1) * INTERVAL_NS / (2 * STEADY_PODS),
            until_ns: begin_ns + ACTIVE_NS + TAIL_NS,
            end: End::Graceful,
            counters,
        }
    };
    (0..STEADY_PODS).map(life).collect()
}

/// A rolling deploy in the middle; a pod that crashes and comes back under its name; one whose counters begin again and do not say so; one that lives for
/// forty seconds and one that a scraper misses.
fn churn(begin_ns: u64) -> Vec<Life> {
    let old_ns = begin_ns - 60 * MINUTE_NS;
    let end_ns = begin_ns + ACTIVE_NS + TAIL_NS;
    let at = |seconds: u64| begin_ns + seconds * SECOND_NS;
    let mut lives = Vec::new();
    for pod in 0..DEPLOYED_PODS {
        let change_ns = at(15 * 60 + 47 * pod + 3);
        lives.push((format!("orders-old-{pod}"), old_ns, old_ns, change_ns, End::Graceful));
        lives.push((format!("orders-new-{pod}"), change_ns, change_ns, end_ns, End::Graceful));
    }
    let mut life = |pod: &str, born_ns, says_born_ns, until_ns, end| {
        lives.push((pod.to_owned(), born_ns, says_born_ns, until_ns, end));
    };
    life("orders-crash", old_ns, old_ns, at(25 * 60 + 11), End::Crash);
    life("orders-crash", at(25 * 60 + 31), at(25 * 60 + 31), end_ns, End::Graceful);
    life("orders-reset", old_ns, old_ns, at(22 * 60 + 8), End::Crash);
    life("orders-reset", at(22 * 60 + 9), old_ns, end_ns, End::Graceful);
    life("orders-short", at(30 * 60 + 2), at(30 * 60 + 2), at(30 * 60 + 42), End::Graceful);
    life("orders-scraped", at(32 * 60 + 2), at(32 * 60 + 2), at(33 * 60 + 40), End::Stale);
    let life = |(number, (pod, born_ns, says_born_ns, until_ns, end))| {
        let initial = if born_ns < begin_ns { 1000.0 } else { 0.0 };
        let rate = 2.0 + 0.3 * number as f64;
        // A series of its own for the pod that is scraped: it ends with it.
        let edge = (end == End::Stale).then_some((EDGE, AGENTS[0]));
        let counters = combinations()
            .chain(edge)
            .map(|(route, agent)| Counter { instrument: &ORDERS, route, agent, rate, initial })
            .collect();
        let offset_ns = 700_000_000 + (number as u64 * 1_300_000_000) % INTERVAL_NS;
        Life { pod, born_ns, says_born_ns, offset_ns, until_ns, end, counters }
    };
    lives.into_iter().enumerate().map(life).collect()
}

/// What can happen to a stream about its switch.
fn edge(begin_ns: u64, instrument: &'static Instrument, at_ns: u64) -> Vec<Life> {
    let old_ns = begin_ns - 60 * MINUTE_NS;
    let end_ns = begin_ns + ACTIVE_NS + TAIL_NS;
    let (ago, hence) =
        (|seconds: u64| at_ns - seconds * SECOND_NS, |seconds: u64| at_ns + seconds * SECOND_NS);
    // Of exports within the interval: 0 is at the switch itself, which is a multiple of it.
    let lives = [
        ("punctual", old_ns, old_ns, end_ns, End::Graceful, 0),
        ("goes-before", old_ns, old_ns, ago(41), End::Graceful, 2),
        ("goes-after", old_ns, old_ns, hence(95), End::Graceful, 3),
        // Its first point comes after the switch, what it counts began before it.
        ("born-before", ago(3), ago(3), end_ns, End::Graceful, 6),
        ("born-after", hence(33), hence(33), end_ns, End::Graceful, 8),
        ("crashes", old_ns, old_ns, ago(7), End::Crash, 5),
        ("crashes", ago(4), ago(4), end_ns, End::Graceful, 5),
        ("crashes-after", old_ns, old_ns, hence(5), End::Crash, 11),
        ("crashes-after", hence(6), hence(6), end_ns, End::Graceful, 11),
        ("falls", old_ns, old_ns, ago(6), End::Crash, 9),
        ("falls", ago(5), old_ns, end_ns, End::Graceful, 9),
    ];
    let life = |(number, (name, born_ns, says_born_ns, until_ns, end, second))| {
        let initial = if born_ns < begin_ns { 500.0 } else { 0.0 };
        let rate = 7.0 + 1.1 * number as f64;
        Life {
            pod: format!("{name}-{}", instrument.name),
            born_ns,
            says_born_ns,
            offset_ns: second * SECOND_NS,
            until_ns,
            end,
            counters: vec![Counter { instrument, route: EDGE, agent: AGENTS[0], rate, initial }],
        }
    };
    lives.into_iter().enumerate().map(life).collect()
}
