//! The engine as it runs in this process, and `prost` beside it.
//!
//! In: bodies. Out: nothing but time spent. Both stand behind [`Subject`], as does the engine in wasmtime, so that one loop measures all.

use crate::traffic::{Treatment, WINDOW, plan};
use anyhow::{anyhow, ensure};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use prost::Message as _;
use std::hint::black_box;

/// What is done with the points of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Scan and route; every point passes.
    Pass,
    /// Scan, identify, route; every point becomes a record, and the records are thrown away.
    Identify,
    /// Scan, identify, route, table, windows, emissions; nothing passes.
    FoldAll,
    /// The same for seven tenths of the points; the rest passes.
    Fold70,
    /// Scan, identify, measure; every point passes, and its stream came in this generation before.
    Measure,
    /// The same, and every point is the first of its stream in a generation.
    MeasureFirst,
    /// Scan, identify, measure, and every stream is one that a budget has admitted.
    Budget,
}

impl Case {
    /// All of them, from little work to much.
    pub const ALL: [Case; 7] = [
        Case::Pass,
        Case::Identify,
        Case::FoldAll,
        Case::Fold70,
        Case::Measure,
        Case::MeasureFirst,
        Case::Budget,
    ];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Case::Pass => "pass",
            Case::Identify => "identify",
            Case::FoldAll => "fold100",
            Case::Fold70 => "fold70",
            Case::Measure => "measure",
            Case::MeasureFirst => "measure_first",
            Case::Budget => "budget",
        }
    }

    /// Its plan.
    pub fn treatment(self) -> Treatment {
        match self {
            Case::Pass => Treatment::Pass,
            Case::Identify | Case::FoldAll => Treatment::FoldAll,
            Case::Fold70 => Treatment::Fold70,
            Case::Measure => Treatment::Measure,
            Case::MeasureFirst => Treatment::MeasureFirst,
            Case::Budget => Treatment::Budget,
        }
    }

    /// Whether records join the fold.
    pub fn settles(self) -> bool {
        self != Case::Identify
    }
}

/// What a subject did with all bodies so far: the same for every embedder of one case, or the numbers compare nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Points that came in.
    pub points: u64,
    /// Points that became records.
    pub recorded: u64,
    /// Bytes of bodies that go on.
    pub bytes_out: u64,
    /// Emissions.
    pub emissions: u64,
}

/// Somebody who takes bodies.
pub trait Subject {
    /// Takes one body all the way: scanned, forwarded, accepted, the clock ticked, what is due emitted and accepted.
    ///
    /// # Errors
    /// The body was not read: then the bench measures nothing.
    fn take(&mut self, body: &[u8], now: UnixNanos) -> anyhow::Result<()>;

    /// What was done.
    fn done(&self) -> Done;
}

/// The engine in this process.
pub struct Native {
    engine: Local,
    settles: bool,
    done: Done,
}

impl Native {
    /// Start under the plan of a case.
    ///
    /// # Errors
    /// The plan was refused.
    pub fn new(case: Case, now: UnixNanos) -> anyhow::Result<Native> {
        let plan = plan(case.treatment(), WINDOW).to_string();
        let engine = Local::new(plan.as_bytes(), "bench", now).map_err(|e| anyhow!("{e}"))?;
        Ok(Native { engine, settles: case.settles(), done: Done::default() })
    }

    /// The engine, for its books.
    pub fn engine(&self) -> &Local {
        &self.engine
    }
}

impl Subject for Native {
    fn take(&mut self, body: &[u8], now: UnixNanos) -> anyhow::Result<()> {
        let batch = Batch { body, tenant: b"", sender: b"", arrived: now };
        let processed = self.engine.process(Framing::Plain, &batch).map_err(|e| anyhow!("{e:?}"))?;
        self.done.points += processed.tally.points;
        self.done.recorded += processed.tally.recorded;
        self.done.bytes_out += black_box(&processed.body).as_ref().map_or(body.len(), Vec::len) as u64;
        let settled = if self.settles { Settled::Accepted } else { Settled::Refused };
        self.engine.settle(processed.token, settled, now);
        self.engine.tick(now);
        while let Some((shard, emission)) = self.engine.next_emission(now) {
            let sequence = emission.sequence;
            self.done.bytes_out += black_box(&emission.body).len() as u64;
            self.done.emissions += 1;
            self.engine.answer(shard, sequence, Answer::Accepted, now);
        }
        Ok(())
    }

    fn done(&self) -> Done {
        self.done
    }
}

/// `prost` over the same bytes: decode into messages, encode again.
#[derive(Default)]
pub struct Prost {
    done: Done,
}

impl Subject for Prost {
    fn take(&mut self, body: &[u8], _: UnixNanos) -> anyhow::Result<()> {
        let request = ExportMetricsServiceRequest::decode(body)?;
        let bytes = black_box(&request).encode_to_vec();
        ensure!(bytes.len() == body.len(), "prost wrote {} bytes of {}", bytes.len(), body.len());
        self.done.bytes_out += black_box(bytes).len() as u64;
        Ok(())
    }

    fn done(&self) -> Done {
        self.done
    }
}
