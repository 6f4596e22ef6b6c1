//! A case on real Envoy: one process with one worker per case, the sink as the backend, the shipped configuration.
//!
//! In: a case and its outcome on the engine. Out: its outcome here. Time is real, and no tick can be commanded: after each step the runner waits until Envoy's
//! counters have reached what the engine had counted after it, and after a `tick` for some ticks. A process per case and not a push per case:
//! a push keeps series and totals by design, so cases would not be independent.

use super::case::TICK_MS;
use super::language::{Action, Answer, Batch};
use super::{Attempt, COUNTERS, Case, GAUGES, Outcome, StepOutcome, module};
use crate::envoy::process::find_binary;
use crate::envoy::{Envoy, EnvoyOptions};
use crate::proxy_host::module_path;
use crate::sink::{BooksConfig, Fault, Sink, TENANT_HEADER};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for a step: far above what a busy machine needs, and a wrong count fails soon.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for Envoy's answer to a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Prefix of the module's stats.
const PREFIX: &str = "wasmcustom.phoenix_";

struct Run {
    envoy: Envoy,
    sink: Sink,
    answers: VecDeque<Answer>,
    given: Vec<Answer>,
}

/// Runs a case; `engine` is what the engine made of it.
///
/// # Errors
/// No Envoy, no module, or a step that never ends as on the engine.
pub async fn run(case: &Case, engine: &Outcome) -> anyhow::Result<Outcome> {
    let sink = Sink::start(BooksConfig::default()).await?;
    sink.keep_requests();
    let envoy = Envoy::start(EnvoyOptions {
        binary: find_binary()?,
        module: module_path(),
        plugin_config: Case::plugin_config(&case.plan())?,
        upstream: sink.address(),
        workers: 1,
        folder: None,
        drain_seconds: 1,
    })
    .await?;
    let mut run = Run { envoy, sink, answers: VecDeque::new(), given: Vec::new() };
    let outcome = run.steps(case, engine).await;
    if outcome.is_err() {
        eprintln!("{}: Envoy's log: {}", case.name, run.envoy.keep_log().display());
    }
    run.envoy.kill().await?;
    outcome
}

impl Run {
    async fn steps(&mut self, case: &Case, engine: &Outcome) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        for (index, (step, wanted)) in case.steps.iter().zip(&engine.steps).enumerate() {
            let mut done = StepOutcome::default();
            match &step.action {
                Action::Batch(batch) => done.forwarded = Some(self.batch(batch).await?),
                Action::Push(_) => done.taken = Some(self.push(&case.pushed(index)?).await?),
                Action::Emissions(list) => self.script(list)?,
                Action::Tick => sleep(Duration::from_millis(TICK_MS * 4)).await,
            }
            self.reach(&wanted.ledger, &BTreeMap::new())
                .await
                .with_context(|| format!("{}: after {}", case.name, step.text))?;
            outcome.steps.push(done);
        }
        let last = engine.ledger();
        let (ledger, gauges) =
            self.reach(&last, &engine.gauges).await.with_context(|| format!("{}: at the end", case.name))?;
        // Nothing more may come: neither a second copy of an emission nor a window that should be open.
        sleep(Duration::from_millis(TICK_MS * 3)).await;
        let quiet = StepOutcome { attempts: self.attempts()?, ledger, ..StepOutcome::default() };
        outcome.steps.push(quiet);
        outcome.gauges = gauges;
        Ok(outcome)
    }

    /// The next attempts to send an emission meet these answers.
    fn script(&mut self, list: &[Answer]) -> anyhow::Result<()> {
        for answer in list {
            self.given.push(*answer);
            if let Some(fault) = fault(*answer)? {
                self.sink.fail_next_where(1, fault, |head| head.headers.contains_key("x-phoenix-emission"));
            } else {
                bail!("a script of answers to emissions cannot hold success: {answer}");
            }
        }
        self.answers.extend(list);
        Ok(())
    }

    async fn batch(&mut self, batch: &Batch) -> anyhow::Result<Vec<u8>> {
        let before = self.plain_requests().len();
        if let Some(fault) = fault(batch.answer)? {
            self.sink.fail_next_where(1, fault, |head| !head.headers.contains_key("x-phoenix-emission"));
        }
        let exchange = exchange(self.envoy.address(), batch);
        if batch.answer == Answer::Gone {
            tokio::select! {
                answer = exchange => bail!("the sink hangs, and there is an answer: {answer:?}"),
                arrived = until(|| self.plain_requests().len() > before) => arrived?,
            }
        } else {
            timeout(ANSWER_TIMEOUT, exchange).await.context("Envoy does not answer")??;
        }
        let requests = self.plain_requests();
        let received = requests.get(before).context("nothing was forwarded")?;
        let message = received.messages.first().cloned();
        // What does not decode is kept as it came over the wire.
        Ok(message.unwrap_or_else(|| received.body.clone()).to_vec())
    }

    fn plain_requests(&self) -> Vec<crate::sink::Received> {
        let mut all = self.sink.requests();
        all.retain(|request| !request.headers.contains_key("x-phoenix-emission"));
        all
    }

    async fn push(&mut self, plan: &str) -> anyhow::Result<bool> {
        let before = self.envoy.pushes().await?;
        self.envoy.push(&Case::plugin_config(plan)?)?;
        let begin = Instant::now();
        loop {
            let now = self.envoy.pushes().await?;
            if now != before {
                // The main thread has it; workers get it with their next turn.
                sleep(Duration::from_millis(TICK_MS * 2)).await;
                return Ok(now.1 == before.1);
            }
            if begin.elapsed() > STEP_TIMEOUT {
                bail!("the push was not seen");
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the counters have reached these, and the gauges equal these.
    async fn reach(
        &self,
        wanted: &BTreeMap<&'static str, u64>,
        gauges: &BTreeMap<&'static str, u64>,
    ) -> anyhow::Result<(BTreeMap<&'static str, u64>, BTreeMap<&'static str, u64>)> {
        let begin = Instant::now();
        loop {
            let stats = self.envoy.stats("wasmcustom").await?;
            let of = |name: &&'static str| {
                let value = stats.get(&format!("{PREFIX}{name}")).copied().unwrap_or(0);
                (*name, u64::try_from(value).unwrap_or(0))
            };
            let now: BTreeMap<&str, u64> = COUNTERS.iter().map(of).filter(|(_, n)| *n > 0).collect();
            let shown: BTreeMap<&str, u64> = GAUGES.iter().map(of).collect();
            let reached = wanted.iter().all(|(name, count)| now.get(name).is_some_and(|n| n >= count));
            if reached && (gauges.is_empty() || *gauges == shown) {
                return Ok((now, shown));
            }
            if begin.elapsed() > STEP_TIMEOUT {
                bail!("the ledger is {now:?} {shown:?}, not {wanted:?} {gauges:?}");
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn attempts(&self) -> anyhow::Result<Vec<Attempt>> {
        let mut given = self.given.iter();
        let mut attempts = Vec::new();
        for request in self.sink.requests() {
            let Some(sequence) = request.headers.get("x-phoenix-emission") else { continue };
            let tenant = request.headers.get(TENANT_HEADER).and_then(|value| value.to_str().ok());
            let answer = if request.fault.is_some() {
                given.next().copied().unwrap_or_default()
            } else {
                Answer::default()
            };
            attempts.push(Attempt {
                sequence: sequence.to_str()?.parse()?,
                tenant: tenant.unwrap_or_default().to_owned(),
                body: request.body.to_vec(),
                answer,
            });
        }
        Ok(attempts)
    }
}

/// What the sink does for an answer; none: it answers well.
fn fault(answer: Answer) -> anyhow::Result<Option<Fault>> {
    Ok(Some(match answer {
        Answer::Http(200) | Answer::GrpcTrailers(0) => return Ok(None),
        Answer::Http(status) => Fault::Status(status),
        Answer::GrpcHeaders(status) => Fault::GrpcStatus(status),
        Answer::GrpcTrailers(status) => Fault::GrpcTrailers(status),
        Answer::Partial(count) => Fault::Partial(count),
        Answer::Gone => Fault::Hang,
        Answer::Broken => Fault::Close,
    }))
}

async fn until(mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !holds() {
        if begin.elapsed() > STEP_TIMEOUT {
            bail!("waited in vain");
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// One request on a connection of its own; the status of the answer.
async fn exchange(address: std::net::SocketAddr, batch: &Batch) -> anyhow::Result<u16> {
    let message = module::request(batch);
    let path = message.headers.get(":path").unwrap_or_default();
    let uri = if batch.grpc { format!("http://{address}{path}") } else { path.to_owned() };
    let mut request = Request::post(uri);
    for (name, value) in message.headers.iter().filter(|(name, _)| !name.starts_with(':')) {
        request = request.header(name, value);
    }
    if !batch.grpc {
        request = request.header("host", "otlp");
    }
    let request = request.body(Full::new(Bytes::from(message.body)))?;
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let response = if batch.grpc {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}
