//! The engine under a clock made of arrivals.
//!
//! Enters: requests with their arrivals, in order. Leaves: what would have gone out, as files, and the books. Between two arrivals the clock ticks as Envoy's does, five times
//! a second, as long as anything is open. When nothing is, only silence has an effect: then it goes in steps just below those that the engine takes for a
//! leap of the clock, each with as many looks for streams that have gone as would have been taken; and when nothing is left to be forgotten, it jumps. So a gap
//! costs what is open in it, however long it is.

use super::arguments::Arguments;
use super::input::Input;
use crate::folder::{self, BODY, Request};
use crate::otlp::census::Census;
use anyhow::{Context, Result, anyhow};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use phoenix_filter::body::{BodyError, Framing};
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::limits::{AHEAD_MAX_NS, LEAP_NS, SWEEP_SLOTS};
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use phoenix_plan::Plan;
use prost::Message;
use std::path::{Path, PathBuf};

/// What Envoy's tick is in the shipped plans.
const TICK_NS: u64 = 200_000_000;
/// A step in which nothing is open: half of what the engine still counts as time that passed.
const IDLE_NS: u64 = LEAP_NS / 2;
/// Ticks that would have come in that step.
const IDLE_TICKS: u64 = IDLE_NS / TICK_NS;
/// Allowance beyond the plan's own times before what is still open is left open: a plan under `clock: event` never closes by the clock.
const DRAIN_SLACK_NS: u64 = 60 * 1_000_000_000;

/// Where files go, and what was in them.
pub struct Out {
    folder: PathBuf,
    /// What went out, forwarded and emitted.
    pub census: Census,
    /// Bytes of forwarded bodies.
    pub forwarded_bytes: u64,
    /// Bytes of emissions.
    pub emitted_bytes: u64,
    /// Emissions.
    pub emissions: u64,
    /// The request that came last, and how many emissions came after it.
    last: (String, u64),
}

/// A request that was not read.
pub struct Unread {
    /// Its name.
    pub request: String,
    /// Why.
    pub reason: String,
}

/// The engine.
pub struct Engine {
    local: Local,
    tenant: String,
    /// When it began to watch.
    pub began: UnixNanos,
    /// Where the clock stands.
    pub now: UnixNanos,
    /// What goes out.
    pub out: Out,
    /// What only the emissions hold: folded series.
    pub folded: Census,
    /// Requests that passed because they could not be read.
    pub unread: Vec<Unread>,
    /// The most streams and series that were remembered at once.
    most: usize,
}

impl Out {
    /// To a folder.
    pub fn new(folder: &Path) -> Out {
        Out {
            folder: folder.to_path_buf(),
            census: Census::default(),
            forwarded_bytes: 0,
            emitted_bytes: 0,
            emissions: 0,
            last: (String::new(), 0),
        }
    }
}

impl Engine {
    /// Begins at the first arrival, or before it by as much as was asked for.
    pub fn start(plan: &Plan, arguments: &Arguments, first: UnixNanos, out: Out) -> Result<Engine> {
        let before_ns = u64::try_from(arguments.began_before.as_nanos()).unwrap_or(u64::MAX);
        let began = first.minus(before_ns);
        let json = serde_json::to_vec(plan).context("the plan")?;
        let local = Local::new(&json, &arguments.writer, began).map_err(|error| anyhow!("{error}"))?;
        let tenant = arguments.tenant.clone().unwrap_or_else(|| plan.tenant.default.clone());
        Ok(Engine {
            local,
            tenant,
            began,
            now: began,
            out,
            folded: Census::with_totals(),
            unread: Vec::new(),
            most: 0,
        })
    }

    /// The engine's own books.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Whose the requests are.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Puts a request through and settles it as accepted.
    pub fn request(&mut self, request: &Request, input: &Input) -> Result<()> {
        self.out.last = (request.name.clone(), 0);
        let body = match &input.broken {
            Some(why) => {
                self.unread.push(Unread { request: request.name.clone(), reason: why.clone() });
                None
            }
            None => self.process(request, input),
        };
        let forwarded = body.as_deref().unwrap_or(&input.body);
        self.out.forwarded_bytes += forwarded.len() as u64;
        folder::write(&self.out.folder, &format!("{}.{BODY}", request.name), forwarded)?;
        if input.broken.is_none()
            && let Ok(message) = ExportMetricsServiceRequest::decode(forwarded)
        {
            self.out.census.add(&message);
        }
        let remembered = self.local.owners().iter().map(|owner| owner.streams() + owner.series()).sum();
        self.most = self.most.max(remembered);
        self.emissions()
    }

    /// The body to forward, if it is not the one that came.
    fn process(&mut self, request: &Request, input: &Input) -> Option<Vec<u8>> {
        let batch =
            Batch { body: &input.body, tenant: self.tenant.as_bytes(), sender: b"", arrived: input.arrived };
        match self.local.process(Framing::Plain, &batch) {
            Ok(processed) => {
                self.local.settle(processed.token, Settled::Accepted, self.now);
                processed.body
            }
            Err(error) => {
                let reason = reason(&error, &input.body);
                self.unread.push(Unread { request: request.name.clone(), reason });
                None
            }
        }
    }

    /// The clock goes on to `to`.
    pub fn advance_to(&mut self, to: UnixNanos) -> Result<()> {
        while self.now < to {
            let left_ns = to.since(self.now);
            if !self.is_drained() {
                self.step(TICK_NS.min(left_ns), 1)?;
            } else if self.is_empty() {
                self.step(left_ns, 1)?;
            } else {
                // A table is never larger than four times the most that it held, streams and series alike.
                let looks = 2 + 4 * (self.most / SWEEP_SLOTS) as u64;
                let step_ns = IDLE_NS.min(left_ns);
                self.step(step_ns, looks.min(IDLE_TICKS))?;
            }
        }
        Ok(())
    }

    /// Time goes on until nothing is open and nothing waits.
    pub fn drain(&mut self, plan: &Plan) -> Result<()> {
        let patience_ns = plan.longest_fold().as_nanos() + plan.stream_expiry.as_nanos();
        let last = self.now.plus(patience_ns + AHEAD_MAX_NS + DRAIN_SLACK_NS);
        while !self.is_drained() && self.now < last {
            self.step(TICK_NS, 1)?;
        }
        Ok(())
    }

    /// Nothing is open and nothing waits for an answer.
    pub fn is_drained(&self) -> bool {
        self.local.owners().iter().all(|owner| owner.is_drained())
    }

    fn is_empty(&self) -> bool {
        self.local.owners().iter().all(|owner| owner.streams() == 0 && owner.series() == 0)
    }

    fn step(&mut self, ns: u64, ticks: u64) -> Result<()> {
        self.now = self.now.plus(ns);
        for _ in 0..ticks {
            self.local.tick(self.now);
        }
        self.emissions()
    }

    /// Writes what may be sent, and answers that it was accepted.
    fn emissions(&mut self) -> Result<()> {
        while let Some((shard, emission)) = self.local.next_emission(self.now) {
            let (sequence, body) = (emission.sequence, emission.body.clone());
            let out = &mut self.out;
            out.last.1 += 1;
            out.emissions += 1;
            out.emitted_bytes += body.len() as u64;
            let name = format!("{}.emit-{}.{BODY}", out.last.0, out.last.1);
            folder::write(&out.folder, &name, &body)?;
            let message = ExportMetricsServiceRequest::decode(&*body)
                .with_context(|| format!("{name}: the engine made what is not OTLP"))?;
            out.census.add(&message);
            self.folded.add(&message);
            self.local.answer(shard, sequence, Answer::Accepted, self.now);
        }
        Ok(())
    }
}

/// Why a body was not read, in words.
fn reason(error: &BodyError, body: &[u8]) -> String {
    // A message begins with the tag of its field 1. Zero is no tag: it is how an uncompressed gRPC frame begins.
    let framed = body.first().is_some_and(|flag| *flag <= 1) && body.len() >= 5;
    match error {
        BodyError::Decode(_) if framed => {
            "not an ExportMetricsServiceRequest; it may be one in a gRPC frame: leave out its first 5 bytes"
                .to_owned()
        }
        BodyError::Decode(error) => format!("not an ExportMetricsServiceRequest: {error:?}"),
        BodyError::TooLarge => "over a limit of the plan: limits.body_bytes_max, or its records".to_owned(),
        other => format!("{other:?}"),
    }
}
