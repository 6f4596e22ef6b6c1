//! An embedder: the real engine, two workers, and what it writes.
//!
//! Enters: exports, plans, time. Leaves: reports as the module would send them, and the series that go out, read from its bytes by `prost`: the judge believes nothing that
//! the engine says about itself. The upstream accepts everything at once.

use super::traffic::TENANT;
use anyhow::{Result, anyhow};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::report::account::{Context, report};
use phoenix_filter::route::Compiled;
use phoenix_filter::units::UnixNanos;
use phoenix_plan::Plan;
use prost::Message;
use siphasher::sip::SipHasher13;
use std::collections::HashSet;
use std::hash::Hasher;

/// Workers of a process.
const WORKERS: usize = 2;
/// `no_recorded_value`: the end of a series, and no sample of it.
const STALE: u32 = 1;

/// Series that went out in a span of time, by a hash of what they are.
#[derive(Debug, Default)]
pub struct Written {
    /// Raw ones.
    pub raw: HashSet<u64>,
    /// Folded ones.
    pub folded: HashSet<u64>,
}

/// One process.
pub struct Embedder {
    name: String,
    engine: Local,
    plan: Compiled,
    began: UnixNanos,
    sequence: u64,
    turn: usize,
    written: Written,
}

impl Embedder {
    /// Starts under a plan.
    ///
    /// # Errors
    /// The module refuses the plan: what decides made one that is not.
    pub fn start(number: usize, plan: &Plan, now_ns: u64) -> Result<Embedder> {
        let name = format!("gateway-{number:04}@{}", now_ns / 1_000_000_000);
        let json = serde_json::to_vec(plan)?;
        let began = UnixNanos(now_ns);
        let engine = Local::with_workers(&json, &name, WORKERS, began).map_err(|error| anyhow!("{error}"))?;
        Ok(Embedder {
            name,
            engine,
            plan: Compiled::new(Plan::parse(&json)?),
            began,
            sequence: 0,
            turn: 0,
            written: Written::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Version of its plan.
    pub fn version(&self) -> u64 {
        self.engine.version()
    }

    /// Another plan.
    ///
    /// # Errors
    /// The module refuses it.
    pub fn configure(&mut self, plan: &Plan, now_ns: u64) -> Result<()> {
        let json = serde_json::to_vec(plan)?;
        self.engine.configure(&json, UnixNanos(now_ns)).map_err(|error| anyhow!("{error}"))?;
        self.plan = Compiled::new(Plan::parse(&json)?);
        Ok(())
    }

    /// An export comes in, to one worker after the other.
    ///
    /// # Errors
    /// The engine cannot read it, or writes what nobody can read.
    pub fn take(&mut self, body: &[u8], now_ns: u64) -> Result<()> {
        let now = UnixNanos(now_ns);
        self.turn = self.turn.wrapping_add(1);
        let batch = Batch { body, tenant: TENANT.as_bytes(), sender: b"", arrived: now };
        let done = self
            .engine
            .process_on(self.turn % WORKERS, Framing::Plain, &batch)
            .map_err(|error| anyhow!("{error:?}"))?;
        self.engine.settle(done.token, Settled::Accepted, now);
        self.read(done.body.as_deref().unwrap_or(body), false)
    }

    /// Time goes on.
    ///
    /// # Errors
    /// The engine writes what nobody can read.
    pub fn tick(&mut self, now_ns: u64) -> Result<()> {
        let now = UnixNanos(now_ns);
        self.engine.tick(now);
        while let Some((shard, emission)) = self.engine.next_emission(now) {
            let (sequence, body) = (emission.sequence, emission.body.to_vec());
            self.read(&body, true)?;
            self.engine.answer(shard, sequence, Answer::Accepted, now);
        }
        Ok(())
    }

    /// The reports of its workers.
    pub fn reports(&mut self, now_ns: u64) -> Vec<Vec<u8>> {
        self.sequence += 1;
        let (name, plan, sequence, began) = (&self.name, &self.plan, self.sequence, self.began);
        let engine = &mut self.engine;
        (0..WORKERS)
            .filter_map(|worker| {
                let registry = engine.registry(worker)?;
                let context = Context {
                    process: name,
                    worker: worker as u64,
                    sequence,
                    time: UnixNanos(now_ns),
                    start_time: began,
                    counts: &[],
                    overlap_sample: &[],
                };
                Some(report(registry, plan, &context))
            })
            .collect()
    }

    /// What it wrote since somebody asked last.
    pub fn written(&mut self) -> Written {
        std::mem::take(&mut self.written)
    }

    fn read(&mut self, body: &[u8], is_emission: bool) -> Result<()> {
        let request = ExportMetricsServiceRequest::decode(body)?;
        let into = if is_emission { &mut self.written.folded } else { &mut self.written.raw };
        for resource in &request.resource_metrics {
            let of_resource = resource.resource.as_ref().map_or(&[][..], |it| it.attributes.as_slice());
            let of_resource = with(SipHasher13::new(), of_resource);
            for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                let mut of_metric = of_resource;
                of_metric.write_u8(END);
                of_metric.write(metric.name.as_bytes());
                let mut add = |attributes: &[KeyValue], flags: u32| {
                    if flags & STALE == 0 {
                        into.insert(with(of_metric, attributes).finish());
                    }
                };
                match &metric.data {
                    Some(Data::Sum(it)) => it.data_points.iter().for_each(|p| add(&p.attributes, p.flags)),
                    Some(Data::Histogram(it)) => {
                        it.data_points.iter().for_each(|p| add(&p.attributes, p.flags))
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Ends of keys and of values: bytes that UTF-8 does not have.
const END: u8 = 0xff;

/// Labels join a series' hash: no enemy here, and their order is that of the sender.
fn with(mut hasher: SipHasher13, labels: &[KeyValue]) -> SipHasher13 {
    for label in labels {
        hasher.write_u8(END);
        hasher.write(label.key.as_bytes());
        hasher.write_u8(END);
        match label.value.as_ref().and_then(|it| it.value.as_ref()) {
            Some(Value::StringValue(text)) => hasher.write(text.as_bytes()),
            // No label of these runs; whatever it is, it is not equal to a text.
            _ => hasher.write(&label.encode_to_vec()),
        }
    }
    hasher
}
