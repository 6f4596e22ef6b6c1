//! An open loop: the schedule decides when a request goes, answers decide nothing.
//!
//! Enters: a schedule, a client. Leaves: the books. A request goes out when it is due, on a task of its own, however many are still without an answer; so a slow
//! server sees the load it would see from many independent senders, and its slowness shows in the answers' times instead of in a smaller load. What
//! limits it is said and counted: a request that goes out later than it was due is late; one that would be over `in_flight_max` is not sent.

use super::client::Client;
use super::encode::Part;
use super::schedule::{Made, Schedule};
use super::truth::{Answer, Truth};
use crate::show;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::time::{Instant, sleep_until};

/// Later than this is late: timers are a millisecond coarse, and a busy machine needs a few more.
const LATE: Duration = Duration::from_millis(20);
/// Requests made ahead of their time, so that making one does not delay another.
const AHEAD: usize = 64;

/// The pace of a run.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How many times faster than the schedule.
    pub speed: f64,
    /// Requests on their way at most.
    pub in_flight_max: usize,
}

/// An answer, with what was in its request.
struct Done {
    parts: Vec<Part>,
    answer: Answer,
    took: Duration,
}

/// Sends every request of a run.
pub fn run(schedule: Schedule, client: Client, pace: Pace) -> Result<Truth> {
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(send(schedule, client, pace))
}

async fn send(schedule: Schedule, client: Client, pace: Pace) -> Result<Truth> {
    let mut truth = Truth::new(schedule.scenario());
    let seconds = (schedule.length_ns as f64 / 1e9 / pace.speed) as u64;
    let bar = show::bar(seconds, "s");
    let client = Arc::new(client);
    let mut made = producer(schedule, client.clone());
    let (done, mut answers) = unbounded_channel();
    let begin = Instant::now();
    let mut in_flight = 0;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut next: Option<(Made, bytes::Bytes)> = None;
    loop {
        if next.is_none() {
            tokio::select! {
                biased;
                _ = &mut interrupted => { truth.is_interrupted = true; break }
                received = made.recv() => match received {
                    Some(ready) => next = Some(ready),
                    None => break,
                },
            }
        }
        let Some((request, _)) = &next else { break };
        let due = begin + Duration::from_nanos((request.at_ns as f64 / pace.speed) as u64);
        tokio::select! {
            biased;
            _ = &mut interrupted => { truth.is_interrupted = true; break }
            Some(answer) = answers.recv() => { in_flight -= 1; book(&mut truth, answer) }
            () = sleep_until(due) => {
                let Some((request, packed)) = next.take() else { break };
                if in_flight >= pace.in_flight_max {
                    truth.unsent(&request);
                } else {
                    in_flight += 1;
                    lateness(&mut truth, due);
                    truth.made(&request, packed.len() as u64);
                    dispatch(request, packed, &client, &done);
                }
                bar.set_position(begin.elapsed().as_secs());
                bar.set_message(format!("{} sent, {in_flight} without an answer", show::count(truth.requests)));
            }
        }
    }
    drop(made);
    drop(done);
    bar.set_message("waiting for answers".to_owned());
    rest(&mut truth, &mut answers).await;
    bar.finish_and_clear();
    Ok(truth)
}

/// Makes requests ahead of their time, packed, on a thread of its own.
fn producer(schedule: Schedule, client: Arc<Client>) -> Receiver<(Made, bytes::Bytes)> {
    let (sender, receiver) = channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        for made in schedule {
            let packed = client.packed(&made.body);
            if sender.blocking_send((made, packed)).is_err() {
                break;
            }
        }
    });
    receiver
}

fn lateness(truth: &mut Truth, due: Instant) {
    let late = Instant::now().saturating_duration_since(due);
    if late > LATE {
        truth.late += 1;
        truth.late_max_ns = truth.late_max_ns.max(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
    }
}

fn dispatch(request: Made, packed: bytes::Bytes, client: &Arc<Client>, done: &UnboundedSender<Done>) {
    let (client, done) = (client.clone(), done.clone());
    tokio::spawn(async move {
        let begin = Instant::now();
        let answer = client.send(packed).await;
        // Nobody listens any more: the run was ended, and counts what it has heard.
        let _ = done.send(Done { parts: request.parts, answer, took: begin.elapsed() });
    });
}

/// The answers that are still out: each comes, or its own time limit does.
async fn rest(truth: &mut Truth, answers: &mut UnboundedReceiver<Done>) {
    while let Some(answer) = answers.recv().await {
        book(truth, answer);
    }
}

fn book(truth: &mut Truth, done: Done) {
    truth.answered(&done.parts, &done.answer);
    truth.answers_us.push(u32::try_from(done.took.as_micros()).unwrap_or(u32::MAX));
}
