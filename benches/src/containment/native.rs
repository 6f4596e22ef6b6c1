//! The engine in this process.
//!
//! In: the plan of a scenario, batches. Out: forwarded bodies, emissions. The upstream accepts everything at once.

use super::process::{Emission, Process};
use super::scenario::{START_NS, WORKERS};
use anyhow::anyhow;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{ConfigureError, Local, Processed, Settled};
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
        let engine = engine(plan.to_string().as_bytes(), WORKERS, UnixNanos(START_NS));
        Ok(Native(engine.map_err(|e| anyhow!("{e}"))?))
    }
}

/// The seam: an engine with so many workers.
fn engine(plan: &[u8], _workers: usize, now: UnixNanos) -> Result<Local, ConfigureError> {
    Local::new(plan, "containment", now)
}

/// The seam: a batch on one of them.
fn process(engine: &mut Local, _worker: usize, batch: &Batch<'_>) -> anyhow::Result<Processed> {
    engine.process(Framing::Plain, batch).map_err(|e| anyhow!("{e:?}"))
}

impl Process for Native {
    fn batch(&mut self, worker: usize, tenant: &str, body: &[u8], now_ns: u64) -> anyhow::Result<Vec<u8>> {
        let now = UnixNanos(now_ns);
        let batch = Batch { body, tenant: tenant.as_bytes(), sender: b"", arrived: now };
        let processed = process(&mut self.0, worker, &batch)?;
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
