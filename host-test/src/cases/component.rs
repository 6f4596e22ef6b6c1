//! A case on the built component in wasmtime, through the contract of `wit/phoenix.wit`.
//!
//! In: a case. Out: its outcome. Time, answers and framing are as on the engine itself; the plan goes in as it is, without Envoy's configuration around it. The contract
//! tells less of a ledger than Envoy's counters do, and nothing of streams and series: see [`COUNTERS`].

use super::language::{Action, Answer, Batch};
use super::native::{self, QUIET_ROUNDS, RETRY_NS};
use super::{Attempt, Case, Outcome, StepOutcome};
use anyhow::{anyhow, ensure};
use contract::Phoenix;
use contract::exports::phoenix::filter::engine::{Answer as Verdict, Emission, Framing, Processed, Settled};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::OnceLock;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

/// The contract, as wasmtime speaks it.
#[allow(missing_docs, reason = "generated from the contract")]
pub mod contract {
    wasmtime::component::bindgen!({ path: "../wit", world: "phoenix" });
}

/// What the contract says of the ledger, by the names of Envoy's counters.
pub const COUNTERS: [&str; 15] = [
    "points",
    "passed",
    "recorded",
    "folded",
    "baselines",
    "resets",
    "late",
    "out_of_order",
    "duplicates",
    "overlaps",
    "carried",
    "emitted",
    "emissions",
    "emissions_refused",
    "emission_retries",
];

/// Where the component is.
///
/// # Errors
/// It is not built.
pub fn path() -> anyhow::Result<PathBuf> {
    let built = std::env::var_os("PHOENIX_WASM_DIR").map(PathBuf::from);
    let folder = built.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/phoenix"));
    let file = folder.join("phoenix.component.wasm");
    ensure!(file.exists(), "{} is missing: run `cargo xtask build`", file.display());
    Ok(file)
}

/// The component, compiled once in a process.
fn compiled() -> anyhow::Result<&'static (Engine, Component)> {
    static COMPILED: OnceLock<Result<(Engine, Component), String>> = OnceLock::new();
    let compile = || -> anyhow::Result<(Engine, Component)> {
        let engine = Engine::default();
        let file = path()?;
        let component =
            Component::from_file(&engine, &file).map_err(|e| anyhow!("{}: {e:#}", file.display()))?;
        Ok((engine, component))
    };
    COMPILED
        .get_or_init(|| compile().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|text| anyhow!("{text}"))
}

/// A fresh instance.
///
/// # Errors
/// The component is not built, or wants something that the contract does not say.
pub fn instance() -> anyhow::Result<(Store<()>, Phoenix)> {
    let (engine, component) = compiled()?;
    let mut store = Store::new(engine, ());
    let phoenix = Phoenix::instantiate(&mut store, component, &Linker::new(engine))
        .map_err(|error| anyhow!("the component imports something: {error:#}"))?;
    Ok((store, phoenix))
}

struct Run {
    store: Store<()>,
    phoenix: Phoenix,
    plan: serde_json::Value,
    answers: VecDeque<Answer>,
    ledger: BTreeMap<&'static str, u64>,
}

/// Runs a case.
///
/// # Errors
/// The component is not built, traps, or refuses the plan.
pub fn run(case: &Case) -> anyhow::Result<Outcome> {
    let (store, phoenix) = instance()?;
    let plan = serde_json::from_str(&case.plan())?;
    let mut run = Run { store, phoenix, plan, answers: VecDeque::new(), ledger: BTreeMap::new() };
    ensure!(run.push(&case.plan(), 0)?, "the plan is refused");
    let mut outcome = Outcome::default();
    for (index, step) in case.steps.iter().enumerate() {
        let mut done = StepOutcome::default();
        match &step.action {
            Action::Batch(batch) => done.forwarded = Some(run.batch(batch, step.at_ns)?),
            Action::Push(_) => done.taken = Some(run.push(&case.pushed(index)?, step.at_ns)?),
            Action::Emissions(answers) => run.answers.extend(answers),
            Action::Tick => {}
        }
        run.ticks(step.at_ns, &mut done)?;
        done.ledger = run.ledger()?;
        outcome.steps.push(done);
    }
    let mut quiet = StepOutcome::default();
    let last_ns = case.steps.last().map_or(0, |step| step.at_ns);
    for round in 1..=QUIET_ROUNDS {
        run.ticks(last_ns + round * RETRY_NS, &mut quiet)?;
    }
    quiet.ledger = run.ledger()?;
    outcome.steps.push(quiet);
    Ok(outcome)
}

/// What the contract can tell of an outcome.
pub fn told(mut outcome: Outcome) -> Outcome {
    for step in &mut outcome.steps {
        step.ledger.retain(|name, _| COUNTERS.contains(name));
    }
    outcome.gauges.clear();
    outcome
}

fn trap(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("the component: {error:#}")
}

impl Run {
    fn batch(&mut self, batch: &Batch, now_ns: u64) -> anyhow::Result<Vec<u8>> {
        let bytes = native::request(batch, &self.plan);
        let framing = if batch.grpc { Framing::Grpc } else { Framing::Plain };
        let [tenant, sender, body] = [&bytes.tenant, &bytes.sender, &bytes.body];
        let engine = self.phoenix.phoenix_filter_engine();
        let done =
            engine.call_process(&mut self.store, framing, tenant, sender, body, now_ns).map_err(trap)?;
        // A body that cannot be read passes as it came.
        let Ok(Processed { token, body, points, passed, recorded }) = done else {
            return Ok(batch.message.clone());
        };
        for (name, count) in [("points", points), ("passed", passed), ("recorded", recorded)] {
            *self.ledger.entry(name).or_default() += count;
        }
        let how = match native::settled(batch) {
            phoenix_filter::local::Settled::Accepted => Settled::Accepted,
            phoenix_filter::local::Settled::Refused => Settled::Refused,
            phoenix_filter::local::Settled::Unanswered => Settled::Unanswered,
        };
        engine.call_settle(&mut self.store, token, how, now_ns).map_err(trap)?;
        native::message(batch, body.unwrap_or(bytes.body))
    }

    fn push(&mut self, plan: &str, now_ns: u64) -> anyhow::Result<bool> {
        let engine = self.phoenix.phoenix_filter_engine();
        let is_taken =
            engine.call_configure(&mut self.store, plan.as_bytes(), "", now_ns).map_err(trap)?.is_ok();
        if is_taken {
            self.plan = serde_json::from_str(plan)?;
        }
        Ok(is_taken)
    }

    fn ticks(&mut self, now_ns: u64, done: &mut StepOutcome) -> anyhow::Result<()> {
        for _ in 0..2 {
            let engine = self.phoenix.phoenix_filter_engine();
            engine.call_tick(&mut self.store, now_ns).map_err(trap)?;
            while let Some(emission) = engine.call_next_emission(&mut self.store, now_ns).map_err(trap)? {
                let answer = self.answers.pop_front().unwrap_or_default();
                let (verdict, counter) = native::verdict(answer);
                let verdict = match verdict {
                    phoenix_filter::emit::Answer::Accepted => Verdict::Accepted,
                    phoenix_filter::emit::Answer::Refused => Verdict::Refused,
                    phoenix_filter::emit::Answer::Unknown => Verdict::Unknown,
                };
                *self.ledger.entry(counter).or_default() += 1;
                let Emission { shard, sequence, tenant, body } = emission;
                engine
                    .call_answer_emission(&mut self.store, shard, sequence, verdict, now_ns)
                    .map_err(trap)?;
                let tenant = String::from_utf8_lossy(&tenant).into_owned();
                done.attempts.push(Attempt { sequence, tenant, body, answer });
            }
        }
        Ok(())
    }

    fn ledger(&mut self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        let mut ledger = self.ledger.clone();
        let pages = self.phoenix.phoenix_filter_engine().call_ledger(&mut self.store).map_err(trap)?;
        for page in pages {
            for (name, count) in [
                ("folded", page.folded),
                ("baselines", page.baselines),
                ("resets", page.resets),
                ("late", page.late),
                ("out_of_order", page.out_of_order),
                ("duplicates", page.duplicates),
                ("overlaps", page.overlaps),
                ("carried", page.carried),
                ("emitted", page.emitted),
            ] {
                *ledger.entry(name).or_default() += count;
            }
        }
        ledger.retain(|_, count| *count > 0);
        Ok(ledger)
    }
}
