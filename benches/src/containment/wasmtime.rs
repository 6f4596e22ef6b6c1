//! The built proxy-wasm module under the test host: one VM for each worker, what they share in shared data, virtual time.
//!
//! In: the plan of a scenario, batches. Out: forwarded bodies, and the calls by which the module emits. The upstream accepts everything, requests and emissions.
//! Slower than the engine in this process, and the only one of the two with real compare-and-swap between workers.

use super::population::{Form, Instrument, Pod, Stream, export};
use super::process::{ANSWER_NS, Emission, Process};
use super::scenario::{START_NS, WORKERS};
use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use phoenix_host_test::proxy_host::{
    Cluster, Headers, Message, Module, Options, Outcome, Process as Host, StreamId,
};
use phoenix_host_test::sink::{HTTP_PATH, TENANT_HEADER};
use prost::Message as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;

/// As Envoy gives bodies: in pieces.
const CHUNK_BYTES: usize = 16_384;
/// The tenant of the requests that wake the workers: no scenario has it.
const NOBODY: &str = "nobody";

/// The module.
pub struct Wasmtime {
    host: Host,
    /// Requests without an answer, oldest first, and when each will have one.
    pending: VecDeque<(StreamId, u64)>,
    /// What it has said since the last tick.
    said: Vec<Emission>,
}

impl Wasmtime {
    /// Start under a plan. Workers begin to work with their first request, so each gets one.
    ///
    /// # Errors
    /// There is no module, or it refuses the plan.
    pub fn start(plan: &Value) -> anyhow::Result<Wasmtime> {
        let emit =
            json!({"cluster": "phoenix_emit", "authority": "otlp", "path": HTTP_PATH, "timeout": "5s"});
        let config = json!({"plan": plan, "envoy": {"emit": emit, "tick": "200ms"}}).to_string();
        let options = Options { workers: WORKERS, now_nanos: START_NS, ..Options::default() };
        let mut host = Host::start(&Module::built()?, &options, config.as_bytes())?;
        host.set_cluster("phoenix_emit", Cluster::Scripted);
        let mut process = Wasmtime { host, pending: VecDeque::new(), said: Vec::new() };
        for worker in 0..WORKERS {
            process.send(worker, NOBODY, &awake())?;
        }
        Ok(process)
    }

    fn send(&mut self, worker: usize, tenant: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let headers = Headers::from([
            (":method", "POST"),
            (":path", HTTP_PATH),
            (":authority", "otlp"),
            ("content-type", "application/x-protobuf"),
            ("content-length", body.len().to_string().as_str()),
            (TENANT_HEADER, tenant),
        ]);
        let stream = self.host.send(worker, Message::new(headers, body), CHUNK_BYTES)?;
        let forwarded = self.host.forwarded(stream).context("a request is not forwarded")?.body.clone();
        self.pending.push_back((stream, self.host.now_nanos() + ANSWER_NS));
        Ok(forwarded)
    }

    /// Lets time pass, answers requests in time and every call.
    fn advance(&mut self, now_ns: u64) -> anyhow::Result<()> {
        while let Some((stream, at_ns)) = self.pending.front().copied().filter(|(_, at_ns)| *at_ns <= now_ns)
        {
            self.pending.pop_front();
            self.pass(at_ns)?;
            self.host.respond(stream, Message::response(200, ""))?;
            self.host.forget(stream);
        }
        self.pass(now_ns)
    }

    fn pass(&mut self, now_ns: u64) -> anyhow::Result<()> {
        let by_ns = now_ns.saturating_sub(self.host.now_nanos());
        self.host.advance(Duration::from_nanos(by_ns))?;
        loop {
            let calls = self.host.pending_calls();
            if calls.is_empty() {
                return Ok(());
            }
            for (id, call) in calls {
                let tenant = call.headers.get(TENANT_HEADER).unwrap_or_default().to_owned();
                self.said.push(Emission { tenant, body: call.body });
                self.host.end_call(id, Outcome::Response(Message::response(200, "")))?;
            }
        }
    }
}

/// A request with one gauge.
fn awake() -> Vec<u8> {
    let pods = [Pod { labels: Vec::new() }];
    let metrics = [Instrument { name: "awake", form: Form::Gauge }];
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut stream = Stream::new(0, 0, 0, Vec::new());
    let stream = std::iter::once(&mut stream);
    let resource_metrics = export(stream, &pods, &metrics, START_NS, &mut random);
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

impl Process for Wasmtime {
    fn batch(&mut self, worker: usize, tenant: &str, body: &[u8], now_ns: u64) -> anyhow::Result<Vec<u8>> {
        self.advance(now_ns)?;
        self.send(worker, tenant, body)
    }

    fn tick(&mut self, now_ns: u64) -> anyhow::Result<Vec<Emission>> {
        self.advance(now_ns)?;
        Ok(std::mem::take(&mut self.said))
    }
}
