//! What is judged: whatever takes batches and gives batches and emissions.
//!
//! In: batches of workers, and time. Out: what goes on to the upstream, and what the process says by itself. The upstream behind every process accepts everything,
//! requests after [`ANSWER_NS`], emissions at once: refusals are the matter of other tests.

/// How long the upstream takes to accept a request: so long that several are on their way at once, on all workers.
pub const ANSWER_NS: u64 = 2_000_000_000;

/// One OTLP body that a process makes by itself.
#[derive(Clone, Debug)]
pub struct Emission {
    /// Whose.
    pub tenant: String,
    /// An `ExportMetricsServiceRequest`.
    pub body: Vec<u8>,
}

/// What a point that did not come out means for the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// It is in a fold: its increment must come in an emission, and the next raw point of its stream counts on from it.
    Folded,
    /// It is gone: the next raw point of its stream closes the gap, which is the kindest reading of a limiter.
    Closed,
}

/// One embedder process with several workers.
pub trait Process {
    /// One batch on a worker; what the upstream gets.
    ///
    /// # Errors
    /// The process cannot go on: there is nothing to judge.
    fn batch(&mut self, worker: usize, tenant: &str, body: &[u8], now_ns: u64) -> anyhow::Result<Vec<u8>>;

    /// Time has come to `now_ns`; what the process says by itself, which the upstream accepts.
    ///
    /// # Errors
    /// As [`Process::batch`].
    fn tick(&mut self, now_ns: u64) -> anyhow::Result<Vec<Emission>>;

    /// How its gaps are read.
    fn gaps(&self) -> Gaps {
        Gaps::Folded
    }
}

/// Does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassThrough;

impl Process for PassThrough {
    fn batch(&mut self, _: usize, _: &str, body: &[u8], _: u64) -> anyhow::Result<Vec<u8>> {
        Ok(body.to_vec())
    }

    fn tick(&mut self, _: u64) -> anyhow::Result<Vec<Emission>> {
        Ok(Vec::new())
    }
}
