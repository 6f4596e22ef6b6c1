//! The whole engine in one instance: scan and fold without workers between them.
//!
//! For embedders that call one instance from one thread (the component, the Collector, replay) and for tests: the same
//! golden cases run here and in Envoy. A request goes in with [`Local::process`] and is settled later, when the upstream has
//! answered: only then do its records join the fold (DESIGN §3.5).

use crate::admission::Registry;
use crate::body::{BodyError, Framing, scan};
use crate::emit::{Answer, Emission};
use crate::flow::{Batch, Scratch};
use crate::ledger::{Page, Tally};
use crate::owner::Owner;
use crate::route::Compiled;
use crate::shared::Memory;
use crate::units::UnixNanos;
use phoenix_plan::{Plan, PlanError};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What became of the upstream's half of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The upstream took it: its records join the fold.
    Accepted,
    /// The upstream refused it: the sender will come again, or knows that it is lost.
    Refused,
    /// Nobody knows: counted, not folded.
    Unanswered,
}

/// A request after the scan.
pub struct Processed {
    /// To settle it by.
    pub token: u64,
    /// The body to forward; `None`: as it came.
    pub body: Option<Vec<u8>>,
    /// What was in it.
    pub tally: Tally,
}

/// Why a plan was not taken.
#[derive(Debug, PartialEq)]
pub enum ConfigureError {
    /// It is not a valid plan.
    Plan(Box<PlanError>),
    /// The number of shards cannot change while state is held.
    Shards {
        /// In force.
        running: u32,
        /// Asked for.
        asked: u32,
    },
}

impl core::fmt::Display for ConfigureError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ConfigureError::Plan(e) => write!(f, "{e}"),
            ConfigureError::Shards { running, asked } => write!(
                f,
                "plan refused: field shards: value {asked} is not allowed; allowed: {running}, the number this process began with \
                 (the owner of a series cannot change while its state is held: restart to change it)"
            ),
        }
    }
}

/// A request that waits to be settled.
enum Pending {
    /// Its points were cut out.
    Records { plan: Rc<Compiled>, messages: Vec<(usize, Vec<u8>)>, bytes: usize },
    /// Its points went out raw and are not remembered: once they are accepted, no stream may be counted on from before them.
    Raw,
}

/// Scan and fold in one instance.
pub struct Local {
    plan: Rc<Compiled>,
    owners: Vec<Owner>,
    /// One a worker.
    scratches: Vec<Scratch>,
    pending: BTreeMap<u64, Pending>,
    pending_bytes: usize,
    next_token: u64,
    tally: Tally,
    errors: u64,
    unanswered: u64,
    writer: String,
}

impl Local {
    /// Start under a plan. `writer` is who we are when the plan does not say.
    pub fn new(plan_json: &[u8], writer: &str, now: UnixNanos) -> Result<Local, ConfigureError> {
        Local::with_workers(plan_json, writer, 1, now)
    }

    /// The same with several workers that scan, each for itself, as in a process with threads: what they share are the owners, and the log
    /// of admissions.
    pub fn with_workers(
        plan_json: &[u8],
        writer: &str,
        workers: usize,
        now: UnixNanos,
    ) -> Result<Local, ConfigureError> {
        let shared = Rc::new(Memory::default());
        let scratches = (1..=workers.max(1)).map(|worker| {
            let mut scratch = Scratch::default();
            scratch.share(shared.clone(), u64::try_from(worker).unwrap_or(1));
            scratch
        });
        let scratches = scratches.collect();
        let plan = Plan::parse(plan_json).map_err(|e| ConfigureError::Plan(Box::new(e)))?;
        let plan = Rc::new(Compiled::new(plan));
        let shards = usize::try_from(plan.plan.shards).unwrap_or(1);
        let mut owners: Vec<Owner> =
            (0..).take(shards).map(|shard| Owner::new(&plan.plan, plan.key, writer, shard)).collect();
        owners.iter_mut().for_each(|o| o.begin(now));
        Ok(Local {
            plan,
            owners,
            scratches,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            next_token: 0,
            tally: Tally::default(),
            errors: 0,
            unanswered: 0,
            writer: writer.to_owned(),
        })
    }

    /// Put another plan in force. A refused one leaves the old one; requests that are on their way finish under theirs.
    pub fn configure(&mut self, plan_json: &[u8], now: UnixNanos) -> Result<u64, ConfigureError> {
        let plan = Plan::parse(plan_json).map_err(|e| ConfigureError::Plan(Box::new(e)))?;
        if plan.shards != self.plan.plan.shards {
            return Err(ConfigureError::Shards { running: self.plan.plan.shards, asked: plan.shards });
        }
        let mut plan = Compiled::new(plan);
        plan.follow(&self.plan, self.scratches.first().map_or(now, |scratch| scratch.now(&self.plan, now)));
        let plan = Rc::new(plan);
        for owner in &mut self.owners {
            owner.configure(&plan.plan, plan.key, &self.writer, now);
        }
        self.plan = plan;
        Ok(self.plan.plan.version)
    }

    /// For a plan that asks for affinity to be shown: it is, from `at` on in event time; `None`: it is not.
    pub fn set_affine_from(&mut self, at: Option<UnixNanos>) {
        self.scratches.iter_mut().for_each(|scratch| scratch.set_affine_from(at));
    }

    /// Version of the plan in force.
    pub fn version(&self) -> u64 {
        self.plan.plan.version
    }

    /// Scan one body. An error says why it is not read: forward it as it came.
    pub fn process(&mut self, framing: Framing, batch: &Batch<'_>) -> Result<Processed, BodyError> {
        self.process_on(0, framing, batch)
    }

    /// The same on one of several workers, counted from 0; a number beyond them is the last one.
    pub fn process_on(
        &mut self,
        worker: usize,
        framing: Framing,
        batch: &Batch<'_>,
    ) -> Result<Processed, BodyError> {
        let worker = worker.min(self.scratches.len().saturating_sub(1));
        let mut none = Scratch::default();
        let scratch = self.scratches.get_mut(worker).unwrap_or(&mut none);
        let scanned = scan(&self.plan, framing, batch, scratch).inspect_err(|_| {
            self.errors = self.errors.saturating_add(1);
        })?;
        let newest = scratch.now(&self.plan, batch.arrived);
        self.owners.iter_mut().for_each(|owner| owner.meet(newest));
        self.next_token = self.next_token.saturating_add(1);
        if scanned.messages.is_empty() {
            return Ok(self.done(scanned.body, scanned.tally));
        }
        let bytes = scanned.messages.iter().fold(0usize, |sum, (_, m)| sum.saturating_add(m.len()));
        let limit_bytes = usize::try_from(self.plan.plan.limits.pending_bytes_max).unwrap_or(usize::MAX);
        if self.pending_bytes.saturating_add(bytes) > limit_bytes {
            // Too much waits for an answer: this one goes out raw, and cannot be remembered.
            self.pending.insert(self.next_token, Pending::Raw);
            let points = scanned.tally.points;
            let tally = Tally { points, passed: points, ..Tally::default() };
            return Ok(self.done(None, tally));
        }
        self.pending_bytes = self.pending_bytes.saturating_add(bytes);
        self.pending.insert(
            self.next_token,
            Pending::Records { plan: self.plan.clone(), messages: scanned.messages, bytes },
        );
        Ok(self.done(scanned.body, scanned.tally))
    }

    /// Keep count of what a request held.
    fn done(&mut self, body: Option<Vec<u8>>, tally: Tally) -> Processed {
        self.tally.add(&tally);
        Processed { token: self.next_token, body, tally }
    }

    /// The upstream has answered, or never will.
    pub fn settle(&mut self, token: u64, how: Settled, now: UnixNanos) {
        let Some(pending) = self.pending.remove(&token) else { return };
        let Pending::Records { plan, messages, bytes } = pending else {
            if how == Settled::Accepted {
                self.owners.iter_mut().for_each(Owner::rebaseline);
            }
            return;
        };
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        match how {
            Settled::Accepted => {
                for (shard, message) in messages {
                    for scratch in &mut self.scratches {
                        scratch.accepted(&plan, &message, false, now);
                    }
                    if let Some(owner) = self.owners.get_mut(shard) {
                        // A message of our own that cannot be read is counted by the owner.
                        let _ = owner.fold(&message, now);
                    }
                }
            }
            Settled::Refused => {}
            Settled::Unanswered => self.unanswered = self.unanswered.saturating_add(1),
        }
    }

    /// The clock went on.
    pub fn tick(&mut self, now: UnixNanos) {
        self.owners.iter_mut().for_each(|o| o.tick(now));
        let (plan, workers) = (&self.plan, u64::try_from(self.scratches.len()).unwrap_or(1));
        // The first one leads, and goes last: by then all have said what they saw.
        for (worker, scratch) in self.scratches.iter_mut().enumerate().rev() {
            if plan.plan.watched_over().is_some() {
                scratch.tick(plan, worker == 0, workers, now);
            }
        }
    }

    /// What is measured and admitted, as one of the workers knows it; counted from 0.
    pub fn registry(&mut self, worker: usize) -> Option<&mut Registry> {
        self.scratches.get_mut(worker).and_then(Scratch::registry)
    }

    /// The next emission that may be sent, with the shard that answers for it.
    pub fn next_emission(&mut self, now: UnixNanos) -> Option<(usize, &Emission)> {
        self.owners.iter_mut().enumerate().find_map(|(shard, o)| o.next_emission(now).map(|e| (shard, e)))
    }

    /// What the upstream said to an emission.
    pub fn answer(&mut self, shard: usize, sequence: u64, answer: Answer, now: UnixNanos) {
        if let Some(owner) = self.owners.get_mut(shard) {
            owner.answer(sequence, answer, now);
        }
    }

    /// The owners, for their books.
    pub fn owners(&self) -> &[Owner] {
        &self.owners
    }

    /// All owners' pages in one.
    pub fn page(&self) -> Page {
        let mut sum = Page::default();
        self.owners.iter().for_each(|o| sum.add(&o.ledger().sum()));
        sum
    }

    /// What came in.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Batches that could not be read.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Requests that never got an answer.
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }
}
