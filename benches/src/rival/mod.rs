//! `bench rival`: the module in Envoy beside vmagent, which folds the same labels away without Envoy.
//!
//! In: the programs that the environment names. Out: figures from one run: points per second of CPU time on the same bodies ([`speed`]), memory a
//! stream ([`crate::growth`]), and small cases with a known truth that say which totals each gets right ([`trial`]). Why vmagent: among what takes OTLP
//! and folds counters before they are stored it costs the least CPU time that we know of. Refuses to begin without a vmagent, and to report when one
//! of them has not seen what was sent.

/// Small cases with a known truth.
pub mod cases;
/// What increase samples say, read as their backends read them.
pub mod read;
/// A receiver of remote write that keeps what it gets.
pub mod remote_write;
/// The same bodies to both.
pub mod speed;
/// The small cases on both.
pub mod trial;
/// The process.
pub mod vmagent;

use crate::figures::{Figures, Target, number, row, table};
use crate::growth::{self, Kind, Subject};
use crate::traffic::{POINTS, Treatment};
use crate::upstream::Upstream;
use anyhow::Context as _;
use comfy_table::Table;
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;
use vmagent::Vmagent;

/// How to get what is missing.
pub const NO_VMAGENT: &str = "PHOENIX_VMAGENT is not set; `cargo xtask vmagent` brings it";
/// Ours by theirs.
const MEMORY: Target = Target::AtMost(0.25);

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The traffic whose time is measured.
    pub speed: speed::Options,
    /// Streams where memory is measured.
    pub memory_streams: usize,
    /// Whether the aggregators are restarted too.
    pub has_restarts: bool,
}

impl Options {
    /// A real measurement. Memory takes thirty times the streams: what a process holds beside them then matters little.
    pub fn full(streams: usize) -> Options {
        Options { speed: speed::Options::full(streams), memory_streams: 30 * streams, has_restarts: true }
    }

    /// Only to see that everything runs.
    pub fn quick() -> Options {
        Options { speed: speed::Options::quick(), memory_streams: 18 * POINTS, has_restarts: false }
    }
}

/// What was found.
pub struct Outcome {
    /// All figures.
    pub figures: Figures,
    /// Time, memory, cases.
    pub tables: [Table; 3],
    /// What the last table needs said.
    pub notes: Vec<String>,
}

/// `$PHOENIX_VMAGENT`, if it is set.
///
/// # Errors
/// It names no file.
pub fn find_binary() -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os("PHOENIX_VMAGENT").filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    anyhow::ensure!(path.is_file(), "PHOENIX_VMAGENT names no file: {}", path.display());
    Ok(Some(path))
}

/// Measures.
///
/// # Errors
/// Something is missing, or requests were not answered well.
pub fn run(options: &Options) -> anyhow::Result<Outcome> {
    let binary = find_binary()?.context(NO_VMAGENT)?;
    // The sinks have a thread; this one makes bodies and waits.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut figures = Figures::default();
    let speed = speed::run(&options.speed, &binary, &runtime, &mut figures)?;
    let memory = memory(options.memory_streams, &binary, &runtime, &mut figures)?;
    let (cases, notes) = trial::run(options.has_restarts, &binary, &runtime, &mut figures)?;
    Ok(Outcome { figures, tables: [speed, memory, cases], notes })
}

/// Both with the same streams, all of which fold, one after the other.
fn memory(streams: usize, binary: &Path, runtime: &Runtime, figures: &mut Figures) -> anyhow::Result<Table> {
    let upstream = runtime.block_on(Upstream::start())?;
    let mut table = table(&["memory", "streams added", "before, MB", "after, MB", "bytes a stream"]);
    for kind in Kind::ALL {
        // What does not share costs vmagent several times as much.
        let streams = if kind == Kind::Churn { streams / 3 } else { streams };
        let ours = growth::envoy(kind, streams, speed::WINDOW, upstream.address, runtime)?;
        let vmagent = Vmagent::start(vmagent::Options {
            binary: binary.to_owned(),
            aggregation: speed::aggregation(Treatment::FoldAll),
            sink: upstream.address,
        })?;
        let subject = Subject { pid: vmagent.pid(), address: vmagent.address(), path: vmagent::PATH };
        let theirs = growth::measure(subject, kind, streams)?;
        vmagent.check(theirs.points, theirs.points)?;
        for (name, growth) in [("phoenix", &ours), ("vmagent", &theirs)] {
            let stream_bytes = growth.stream_bytes();
            let figure = format!("memory.{}.{name}", kind.name());
            figures.add(format!("{figure}.stream"), stream_bytes, "bytes/stream");
            figures.add(format!("{figure}.after"), growth.after_bytes, "bytes");
            let (before, after) = (growth.before_bytes / 1e6, growth.after_bytes / 1e6);
            let cells = [growth.streams as f64, before, after, stream_bytes].map(number);
            table.add_row(row(&format!("{}, {name}", kind.name()), &cells));
        }
        let ratio = ours.stream_bytes() / theirs.stream_bytes();
        let figure = format!("memory.{}.phoenix_by_vmagent", kind.name());
        figures.bound(figure, ratio, "ratio", MEMORY);
    }
    Ok(table)
}
