//! A case on the engine itself: one instance, one thread, no shell.
//!
//! In: a case. Out: its outcome with the balance. This is the embedder whose steps the others wait for: what it has counted after a step is what they must reach.
//! What a shell would do (headers, answers, statuses) is done here in the plainest way, from the contract and not from the shell.

use super::language::{Action, Answer, Batch};
use super::{Attempt, Case, Outcome, StepOutcome};
use anyhow::{Context as _, ensure};
use phoenix_filter::admission::Metric;
use phoenix_filter::amount::Amount;
use phoenix_filter::body::{BodyError, Framing};
use phoenix_filter::emit::Answer as Verdict;
use phoenix_filter::flow::Batch as Bytes;
use phoenix_filter::frame::Encoding;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use phoenix_plan::Plan;
use std::collections::{BTreeMap, VecDeque};

/// Longer than the longest wait between two attempts.
pub const RETRY_NS: u64 = 16_000_000_000;
/// Attempts that the quiet time after the last step allows.
pub const QUIET_ROUNDS: u64 = 64;

struct Engine {
    local: Local,
    plan: serde_json::Value,
    answers: VecDeque<Answer>,
    ledger: BTreeMap<&'static str, u64>,
}

/// Runs a case.
///
/// # Errors
/// The plan is refused, or a total is off.
pub fn run(case: &Case) -> anyhow::Result<Outcome> {
    let local = Local::new(case.plan().as_bytes(), "", UnixNanos(0)).map_err(|e| anyhow::anyhow!("{e}"))?;
    let plan = serde_json::from_str(&case.plan())?;
    let mut engine = Engine { local, plan, answers: VecDeque::new(), ledger: BTreeMap::new() };
    let mut outcome = Outcome::default();
    for (index, step) in case.steps.iter().enumerate() {
        let now = UnixNanos(step.at_ns);
        let mut done = StepOutcome::default();
        match &step.action {
            Action::Batch(batch) => done.forwarded = Some(engine.batch(batch, now)?),
            Action::Push(_) => done.taken = Some(engine.push(&case.pushed(index)?, now)?),
            Action::Emissions(answers) => engine.answers.extend(answers),
            Action::Tick => {}
        }
        engine.ticks(now, &mut done);
        engine.check_balance().with_context(|| format!("after {}", step.text))?;
        done.ledger = engine.ledger();
        outcome.steps.push(done);
    }
    let mut quiet = StepOutcome::default();
    let last_ns = case.steps.last().map_or(0, |step| step.at_ns);
    for round in 1..=QUIET_ROUNDS {
        engine.ticks(UnixNanos(last_ns + round * RETRY_NS), &mut quiet);
    }
    ensure!(engine.local.owners().iter().all(|o| o.outbox().is_empty()), "an emission never left");
    quiet.ledger = engine.ledger();
    outcome.steps.push(quiet);
    outcome.balance = Some(engine.balance().map(|amount| text(&amount)));
    let sum = |of: fn(&phoenix_filter::owner::Owner) -> usize| -> u64 {
        engine.local.owners().iter().map(|owner| of(owner) as u64).sum()
    };
    outcome.gauges =
        BTreeMap::from([("streams", sum(|owner| owner.streams())), ("series", sum(|owner| owner.series()))]);
    outcome.gauges.extend(engine.budgets());
    Ok(outcome)
}

/// What a shell makes of a batch: the body that it reads, whose it is and who sent it.
pub struct Request {
    /// With its frame, if it has one.
    pub body: Vec<u8>,
    /// By header, else by plan.
    pub tenant: Vec<u8>,
    /// By header, if the plan names one.
    pub sender: Vec<u8>,
}

/// The request of a batch under a plan.
pub fn request(batch: &Batch, plan: &serde_json::Value) -> Request {
    let body = if batch.grpc { frame(&batch.message) } else { batch.message.clone() };
    let default = plan["tenant"]["default"].as_str().unwrap_or_default();
    let tenant = batch.tenant.as_deref().unwrap_or(default);
    let sender = batch.sender.as_deref().filter(|_| !plan["sender_header"].is_null());
    Request { body, tenant: tenant.into(), sender: sender.unwrap_or_default().into() }
}

/// What became of a batch's request upstream.
pub fn settled(batch: &Batch) -> Settled {
    match batch.answer {
        Answer::Http(200..300) | Answer::Partial(_) if !batch.grpc => Settled::Accepted,
        Answer::GrpcTrailers(0) | Answer::GrpcHeaders(0) | Answer::Partial(_) => Settled::Accepted,
        Answer::Gone => Settled::Unanswered,
        _ => Settled::Refused,
    }
}

/// What the upstream's answer to an emission means, and the counter that says so.
pub fn verdict(answer: Answer) -> (Verdict, &'static str) {
    match answer {
        Answer::Http(200..300) | Answer::Partial(_) => (Verdict::Accepted, "emissions"),
        Answer::Http(408 | 425 | 429 | 500..) | Answer::Gone | Answer::Broken => {
            (Verdict::Unknown, "emission_retries")
        }
        _ => (Verdict::Refused, "emissions_refused"),
    }
}

/// The message in a batch's body.
pub fn message(batch: &Batch, body: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if batch.grpc { Ok(body.get(5..).context("a gRPC body without a frame")?.to_vec()) } else { Ok(body) }
}

impl Engine {
    fn batch(&mut self, batch: &Batch, now: UnixNanos) -> anyhow::Result<Vec<u8>> {
        let framing = if batch.grpc { Framing::Grpc(Encoding::Identity) } else { Framing::Plain };
        let request = request(batch, &self.plan);
        let bytes =
            Bytes { body: &request.body, tenant: &request.tenant, sender: &request.sender, arrived: now };
        let done = match self.local.process(framing, &bytes) {
            Ok(done) => done,
            Err(error) => {
                let kind = match error {
                    BodyError::Decode(_) => "errors_decode",
                    BodyError::Frame(_) => "errors_frame",
                    BodyError::Gzip(_) => "errors_gzip",
                    BodyError::Encoding(_) => "encoded_requests",
                    BodyError::TooLarge => "errors_too_large",
                };
                *self.ledger.entry(kind).or_default() += 1;
                return Ok(batch.message.clone());
            }
        };
        let how = settled(batch);
        let kind = match how {
            Settled::Accepted => None,
            Settled::Unanswered => Some("unanswered"),
            Settled::Refused => Some("upstream_refused"),
        };
        if let Some(kind) = kind {
            *self.ledger.entry(kind).or_default() += done.tally.recorded;
        }
        self.local.settle(done.token, how, now);
        message(batch, done.body.unwrap_or(request.body))
    }

    fn push(&mut self, plan: &str, now: UnixNanos) -> anyhow::Result<bool> {
        let taken = self.local.configure(plan.as_bytes(), now).is_ok();
        if taken {
            self.plan = serde_json::from_str(plan)?;
        }
        Ok(taken)
    }

    /// What two ticks do: the second one sees what the answers to the first have left.
    fn ticks(&mut self, now: UnixNanos, done: &mut StepOutcome) {
        for _ in 0..2 {
            self.local.tick(now);
            while let Some((shard, emission)) = self.local.next_emission(now) {
                let answer = self.answers.pop_front().unwrap_or_default();
                let tenant = String::from_utf8_lossy(&emission.tenant).into_owned();
                let attempt =
                    Attempt { sequence: emission.sequence, tenant, body: emission.body.to_vec(), answer };
                let (verdict, counter) = verdict(answer);
                *self.ledger.entry(counter).or_default() += 1;
                self.local.answer(shard, attempt.sequence, verdict, now);
                done.attempts.push(attempt);
            }
        }
    }

    fn ledger(&self) -> BTreeMap<&'static str, u64> {
        let (tally, page) = (self.local.tally(), self.local.page());
        let foreign: u64 = self.local.owners().iter().map(|owner| owner.ledger().foreign_key).sum();
        let bugs: u64 = self.local.owners().iter().map(|owner| owner.ledger().unreadable).sum();
        let mut ledger = self.ledger.clone();
        ledger.extend([
            ("points", tally.points),
            ("passed", tally.passed),
            ("recorded", tally.recorded),
            ("watched", tally.watched),
            ("marked", tally.marked),
            ("ahead", tally.ahead),
            ("unfit", tally.unfit),
            ("unfoldable", tally.unfoldable),
            ("unwritable", tally.unwritable),
            ("contained", tally.contained),
            ("undeclared", tally.undeclared),
            ("undecided", tally.undecided),
            ("no_value", tally.no_value),
            ("folded", page.folded),
            ("baselines", page.baselines),
            ("resets", page.resets),
            ("late", page.late),
            ("late_values", page.late_values),
            ("out_of_order", page.out_of_order),
            ("duplicates", page.duplicates),
            ("overlaps", page.overlaps),
            ("carried", page.carried),
            ("refused", page.refused + foreign),
            ("emitted", page.emitted),
            ("bugs", bugs),
        ]);
        ledger.retain(|_, count| *count > 0);
        ledger
    }

    /// What budgets admit, what they have made, how many metrics they contain. Nothing where a plan has none.
    fn budgets(&mut self) -> [(&'static str, u64); 3] {
        let plan = Plan::parse(self.plan.to_string().as_bytes()).ok();
        let watches = plan.is_some_and(|plan| plan.watched_over().is_some());
        let metrics = self.local.registry(0).filter(|_| watches).map(|it| &it.state().metrics);
        let sum = |of: fn(&Metric) -> u64| metrics.map_or(0, |all| all.values().map(of).sum());
        [
            ("admitted_series", sum(|it| u64::from(it.admitted))),
            ("budget_series", sum(|it| u64::from(it.folded))),
            ("contained_metrics", sum(|it| u64::from(it.is_contained()))),
        ]
    }

    fn balance(&self) -> [Amount; 4] {
        let mut sum = [Amount::default(); 4];
        for owner in self.local.owners() {
            let (came, left, waiting, open) = owner.balance();
            for (total, part) in sum.iter_mut().zip([came, left, waiting, open]) {
                total.merge(&part);
            }
        }
        sum
    }

    /// Increments in are those acknowledged, waiting and open: integers exactly, doubles to 1e-12.
    fn check_balance(&self) -> anyhow::Result<()> {
        let [came, left, waiting, open] = self.balance();
        let mut rest = left;
        rest.merge(&waiting);
        rest.merge(&open);
        let off = (came.to_f64() - rest.to_f64()).abs();
        ensure!(
            came.int() == rest.int() && off <= 1e-12 * came.to_f64().abs(),
            "increments in {}, accounted for {}",
            text(&came),
            text(&rest)
        );
        Ok(())
    }
}

fn text(amount: &Amount) -> String {
    if amount.is_double() { format!("{:?}", amount.to_f64()) } else { amount.int().to_string() }
}

/// One gRPC frame around a message.
fn frame(message: &[u8]) -> Vec<u8> {
    crate::sink::frame::grpc_frame(message, false).to_vec()
}
