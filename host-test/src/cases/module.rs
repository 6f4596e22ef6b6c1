//! A case on the built proxy-wasm module under the test host, with one worker.
//!
//! In: a case. Out: its outcome. Time is the steps' own, after the host's start; two ticks follow each step, and calls out are answered as the case says.

use super::case::TICK_MS;
use super::language::{Action, Answer, Batch};
use super::{Attempt, COUNTERS, Case, GAUGES, Outcome, StepOutcome};
use crate::proxy_host::{
    Cluster, Failure, Headers, Message, Module, Options, Outcome as CallOutcome, Process, Push, START_NANOS,
};
use crate::sink::frame::grpc_frame;
use crate::sink::{GRPC_PATH, HTTP_PATH, TENANT_HEADER};
use anyhow::{Context as _, ensure};
use std::collections::VecDeque;
use std::time::Duration;

/// Seconds of quiet at the end: longer than the waits before the attempts that a case may ask for.
const QUIET_SECONDS: u64 = 64;

/// Runs a case.
///
/// # Errors
/// The module is not built, traps, or refuses the plan.
pub fn run(case: &Case) -> anyhow::Result<Outcome> {
    let options = Options { workers: 1, ..Options::default() };
    let config = Case::plugin_config(&case.plan())?;
    let mut process = Process::start(&Module::built()?, &options, config.as_bytes())?;
    process.set_cluster("phoenix_emit", Cluster::Scripted);
    let mut answers = VecDeque::new();
    let mut outcome = Outcome::default();
    for (index, step) in case.steps.iter().enumerate() {
        let at = START_NANOS.saturating_add(step.at_ns);
        process.step_clock(at.max(process.now_nanos()));
        let mut done = StepOutcome::default();
        match &step.action {
            Action::Batch(batch) => done.forwarded = Some(send(&mut process, batch)?),
            Action::Push(_) => {
                let config = Case::plugin_config(&case.pushed(index)?)?;
                let push = process.push(config.as_bytes())?;
                ensure!(!matches!(push, Push::FailedIn(_)), "the canary took what a worker refused");
                done.taken = Some(push == Push::Accepted);
            }
            Action::Emissions(list) => answers.extend(list),
            Action::Tick => {}
        }
        // A tick to send, one to see what the answers have left, one in reserve: a timer re-arms after it ran.
        ticks(&mut process, 3, &mut answers, &mut done)?;
        done.ledger = ledger(&process);
        outcome.steps.push(done);
    }
    let mut quiet = StepOutcome::default();
    ticks(&mut process, QUIET_SECONDS * 1_000 / TICK_MS, &mut answers, &mut quiet)?;
    ensure!(process.gauge("phoenix_backlog_bytes") == 0, "an emission never left");
    quiet.ledger = ledger(&process);
    outcome.steps.push(quiet);
    outcome.gauges = GAUGES.map(|name| (name, process.gauge(&format!("phoenix_{name}")))).into();
    Ok(outcome)
}

/// The request of a batch, as a client sends it.
pub fn request(batch: &Batch) -> Message {
    let (path, content_type) =
        if batch.grpc { (GRPC_PATH, "application/grpc") } else { (HTTP_PATH, "application/x-protobuf") };
    let mut headers = Headers::from([
        (":method", "POST"),
        (":path", path),
        (":authority", "otlp"),
        ("content-type", content_type),
    ]);
    for (name, value) in [(TENANT_HEADER, &batch.tenant), ("x-sender", &batch.sender)] {
        if let Some(value) = value {
            headers.add(name, value);
        }
    }
    let body = if batch.grpc { grpc_frame(&batch.message, false).to_vec() } else { batch.message.clone() };
    if batch.grpc {
        headers.add("te", "trailers");
    } else {
        headers.add("content-length", body.len().to_string());
    }
    Message::new(headers, body)
}

fn send(process: &mut Process, batch: &Batch) -> anyhow::Result<Vec<u8>> {
    let stream = process.send(0, request(batch), 1_000)?;
    let forwarded = process.forwarded(stream).context("the request is not forwarded")?.body.clone();
    match batch.answer {
        Answer::Gone => process.disconnect(stream)?,
        Answer::Broken => process.fail_upstream(stream, Failure::Reset)?,
        answer => process.respond(stream, response(answer))?,
    }
    process.forget(stream);
    if !batch.grpc {
        return Ok(forwarded);
    }
    Ok(forwarded.get(5..).context("a gRPC body without a frame")?.to_vec())
}

/// An upstream's answer as a message.
pub fn response(answer: Answer) -> Message {
    match answer {
        Answer::Http(status) => Message::response(u32::from(status), ""),
        Answer::GrpcHeaders(status) => Message::new(
            [
                (":status", "200".to_owned()),
                ("content-type", "application/grpc".to_owned()),
                ("grpc-status", status.to_string()),
            ],
            "",
        ),
        Answer::GrpcTrailers(status) => Message::response(200, grpc_frame(b"", false).to_vec())
            .with_trailers([("grpc-status", status.to_string())]),
        Answer::Partial(_) | Answer::Gone | Answer::Broken => Message::response(200, ""),
    }
}

fn ticks(
    process: &mut Process,
    count: u64,
    answers: &mut VecDeque<Answer>,
    done: &mut StepOutcome,
) -> anyhow::Result<()> {
    for _ in 0..count {
        process.advance(Duration::from_millis(TICK_MS))?;
        while let Some((id, call)) = process.pending_calls().into_iter().next() {
            let answer = answers.pop_front().unwrap_or_default();
            done.attempts.push(Attempt {
                sequence: call.headers.get("x-phoenix-emission").context("a nameless emission")?.parse()?,
                tenant: call.headers.get(TENANT_HEADER).unwrap_or_default().to_owned(),
                body: call.body,
                answer,
            });
            let outcome = match answer {
                Answer::Gone | Answer::Broken => CallOutcome::Reset,
                answer => CallOutcome::Response(response(answer)),
            };
            process.end_call(id, outcome)?;
        }
    }
    Ok(())
}

fn ledger(process: &Process) -> std::collections::BTreeMap<&'static str, u64> {
    let counts = COUNTERS.map(|name| (name, process.counter(&format!("phoenix_{name}"))));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}
