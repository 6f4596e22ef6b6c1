//! The engine in this process.
//!
//! In: the plan of a scenario, batches. Out: forwarded bodies, emissions. The upstream accepts everything at once.

use super::process::{Emission, Process};
use super::scenario::{START_NS, WORKERS};
use anyhow::anyhow;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use serde_json::Value;

/// The engine, for all workers.
pub struct Native(Local);

impl Native {
    /// Start under a plan.
    ///
    /// # Errors
    /// The plan was refused.
    pub fn start(plan: &Value) -> anyhow::Result<Native> {
        let (plan, now) = (plan.to_string(), UnixNanos(START_NS));
        let engine = Local::with_workers(plan.as_bytes(), "containment", WORKERS, now);
        Ok(Native(engine.map_err(|e| anyhow!("{e}"))?))
    }
}

impl Process for Native {
    fn batch(&mut self, worker: usize, tenant: &str, body: &[u8], now_ns: u64) -> anyhow::Result<Vec<u8>> {
        let now = UnixNanos(now_ns);
        let batch = Batch { body, tenant: tenant.as_bytes(), sender: b"", arrived: now };
        let processed = self.0.process_on(worker, Framing::Plain, &batch).map_err(|e| anyhow!("{e:?}"))?;
        self.0.settle(processed.token, Settled::Accepted, now);
        Ok(processed.body.unwrap_or_else(|| body.to_vec()))
    }

    fn tick(&mut self, now_ns: u64) -> anyhow::Result<Vec<Emission>> {
        let now = UnixNanos(now_ns);
        self.0.tick(now);
        let mut emissions = Vec::new();
        while let Some((shard, emission)) = self.0.next_emission(now) {
            let (sequence, body) = (emission.sequence, emission.body.to_vec());
            let tenant = String::from_utf8_lossy(&emission.tenant).into_owned();
            emissions.push(Emission { tenant, body });
            self.0.answer(shard, sequence, Answer::Accepted, now);
        }
        Ok(emissions)
    }
}
