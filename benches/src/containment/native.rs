//! The engine in this process.
//!
//! In: the plan of a scenario, batches. Out: forwarded bodies, emissions. The upstream accepts everything.

use super::process::{ANSWER_NS, Emission, Process};
use super::scenario::{START_NS, WORKERS};
use anyhow::anyhow;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use serde_json::Value;
use std::collections::VecDeque;

/// The engine, for all workers.
pub struct Native {
    engine: Local,
    /// Requests without an answer, oldest first, and when each will have one.
    pending: VecDeque<(u64, u64)>,
}

impl Native {
    /// Start under a plan.
    ///
    /// # Errors
    /// The plan was refused.
    pub fn start(plan: &Value) -> anyhow::Result<Native> {
        let (plan, now) = (plan.to_string(), UnixNanos(START_NS));
        let engine = Local::with_workers(plan.as_bytes(), "containment", WORKERS, now);
        let engine = engine.map_err(|e| anyhow!("{e}"))?;
        Ok(Native { engine, pending: VecDeque::new() })
    }

    /// The answers that have come by now.
    fn settle(&mut self, now_ns: u64) {
        while let Some((token, at_ns)) = self.pending.front().copied().filter(|(_, at_ns)| *at_ns <= now_ns) {
            self.pending.pop_front();
            self.engine.settle(token, Settled::Accepted, UnixNanos(at_ns));
        }
    }
}

impl Process for Native {
    fn batch(&mut self, worker: usize, tenant: &str, body: &[u8], now_ns: u64) -> anyhow::Result<Vec<u8>> {
        self.settle(now_ns);
        let now = UnixNanos(now_ns);
        let batch = Batch { body, tenant: tenant.as_bytes(), sender: b"", arrived: now };
        let processed =
            self.engine.process_on(worker, Framing::Plain, &batch).map_err(|e| anyhow!("{e:?}"))?;
        self.pending.push_back((processed.token, now_ns + ANSWER_NS));
        Ok(processed.body.unwrap_or_else(|| body.to_vec()))
    }

    fn tick(&mut self, now_ns: u64) -> anyhow::Result<Vec<Emission>> {
        self.settle(now_ns);
        let now = UnixNanos(now_ns);
        self.engine.tick(now);
        let mut emissions = Vec::new();
        while let Some((shard, emission)) = self.engine.next_emission(now) {
            let (sequence, body) = (emission.sequence, emission.body.to_vec());
            let tenant = String::from_utf8_lossy(&emission.tenant).into_owned();
            emissions.push(Emission { tenant, body });
            self.engine.answer(shard, sequence, Answer::Accepted, now);
        }
        Ok(emissions)
    }
}
