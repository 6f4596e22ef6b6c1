//! Golden cases: a folder of text per situation, run on every embedder, with equal bytes out.
//!
//! In: `cases/<name>/case.txt` ([`language`] says how it reads), `cases/plan.json` with the overrides of `cases/<name>/plan.json`.
//! Out: an [`Outcome`] per embedder, and `cases/<name>/expected.txt` as the judge: what was forwarded for each request, each
//! emission, the ledger. Why text: the expected side is written by hand from the contract of the fold, and read in reviews.
//! Refuses: plans that do not say `clock: event` and a writer, since bytes could not be equal then.

/// Plan and steps of one folder.
mod case;
/// On the built component in wasmtime.
pub mod component;
/// On real Envoy, with the sink as the backend.
pub mod envoy;
/// What came out, as text.
mod expect;
/// The text of a case.
pub mod language;
/// On the built proxy-wasm module under the test host.
pub mod module;
/// On the engine itself, in one instance.
pub mod native;
/// Points as text, and text as points.
pub mod points;

pub use case::{Case, all};
pub use expect::check;

use std::collections::BTreeMap;

/// What one embedder made of a case.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What became of each step, then of the quiet time after the last.
    pub steps: Vec<StepOutcome>,
    /// Gauges at the end.
    pub gauges: BTreeMap<&'static str, u64>,
    /// Increments in, acknowledged, waiting and open, where the embedder can be asked.
    pub balance: Option<[String; 4]>,
}

/// What became of one step.
#[derive(Debug, Default)]
pub struct StepOutcome {
    /// The OTLP message that the upstream got; for gRPC without its frame.
    pub forwarded: Option<Vec<u8>>,
    /// Whether a pushed plan was taken.
    pub taken: Option<bool>,
    /// Attempts to send an emission, in order.
    pub attempts: Vec<Attempt>,
    /// The ledger after the step, by the names of Envoy's counters without their prefix; what is zero is left out.
    pub ledger: BTreeMap<&'static str, u64>,
}

/// An emission that reached the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The number in its `x-phoenix-emission` header.
    pub sequence: u64,
    /// Whose it is.
    pub tenant: String,
    /// Its body.
    pub body: Vec<u8>,
    /// What the upstream said.
    pub answer: language::Answer,
}

/// Counters that every embedder keeps, by the names of Envoy's without `phoenix_`.
pub const COUNTERS: [&str; 35] = [
    "points",
    "passed",
    "recorded",
    "watched",
    "marked",
    "folded",
    "baselines",
    "resets",
    "late",
    "late_values",
    "out_of_order",
    "duplicates",
    "overlaps",
    "carried",
    "refused",
    "ahead",
    "unfit",
    "unfoldable",
    "unwritable",
    "contained",
    "undeclared",
    "undecided",
    "no_value",
    "unanswered",
    "upstream_refused",
    "errors_decode",
    "errors_frame",
    "errors_gzip",
    "errors_too_large",
    "encoded_requests",
    "bugs",
    "emissions",
    "emissions_refused",
    "emission_retries",
    "emitted",
];

/// Gauges that every embedder keeps: streams and series of the fold; what budgets admit, what they have made, how many metrics they contain.
pub const GAUGES: [&str; 5] = ["streams", "series", "admitted_series", "budget_series", "contained_metrics"];

impl Outcome {
    /// The forwarded messages, in order.
    pub fn forwarded(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| step.forwarded.as_deref())
    }

    /// The attempts by tenant, each in order: tenants do not wait for each other.
    pub fn attempts(&self) -> BTreeMap<&str, Vec<&Attempt>> {
        let mut by_tenant: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
        for attempt in self.steps.iter().flat_map(|step| &step.attempts) {
            by_tenant.entry(&attempt.tenant).or_default().push(attempt);
        }
        by_tenant
    }

    /// The ledger at the end.
    pub fn ledger(&self) -> BTreeMap<&'static str, u64> {
        self.steps.last().map(|step| step.ledger.clone()).unwrap_or_default()
    }

    /// The first difference to another embedder's outcome, in words.
    pub fn difference(&self, other: &Outcome) -> Option<String> {
        let (ours, theirs): (Vec<_>, Vec<_>) = (self.forwarded().collect(), other.forwarded().collect());
        if ours.len() != theirs.len() {
            return Some(format!("{} requests forwarded, not {}", theirs.len(), ours.len()));
        }
        if let Some(at) = ours.iter().zip(&theirs).position(|(a, b)| a != b) {
            let text = |body: &[u8]| points::render(body).join("\n  ");
            return Some(format!(
                "forwarded request {}:\n  {}\nnot:\n  {}",
                at + 1,
                text(theirs[at]),
                text(ours[at])
            ));
        }
        let (ours, theirs) = (self.attempts(), other.attempts());
        if ours != theirs {
            let text = |all: &BTreeMap<&str, Vec<&Attempt>>| -> String {
                all.values().flatten().map(|attempt| expect::attempt(attempt, "  ")).collect()
            };
            return Some(format!("emissions:\n{}not:\n{}", text(&theirs), text(&ours)));
        }
        if self.ledger() != other.ledger() {
            return Some(format!("ledger: {:?}\nnot:    {:?}", other.ledger(), self.ledger()));
        }
        (self.gauges != other.gauges).then(|| format!("gauges: {:?}, not {:?}", other.gauges, self.gauges))
    }
}
