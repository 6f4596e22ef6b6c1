//! `bench envoy`: what a request costs a real Envoy, without the module, with it, and with a fold.
//!
//! In: bodies of about 1 MB over HTTP/1.1 on kept connections, one worker, an upstream in this process that throws bodies away. Out: the
//! [`Figures`]: CPU time of the Envoy process alone, from `/proc`. All gateways live side by side and take the same bodies in
//! turn, each round beginning with another. The configuration is the shipped one without compression on the way in and out, which would
//! cost more than all the rest; the last gateway has it as shipped. Refuses to report when points were lost on the way.

use crate::figures::{Figures, Target, number, row, table};
use crate::gateway::{self, Shape};
use crate::growth::{self, Kind};
use crate::measure::{median, process_ns, ratio};
use crate::traffic::{Order, POINTS, Traffic, Treatment};
use crate::upstream::Upstream;
use crate::workers;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use comfy_table::Table;
use phoenix_host_test::envoy::Envoy;
use phoenix_host_test::shop::client::{Client, Protocol};
use tokio::task::JoinSet;

/// Connections, so that the worker always has something to read: with fewer it waits between requests, and waking costs CPU time too.
const CONNECTIONS: usize = 4;
/// Window and delay on the real clock: about as long as it takes until a stream comes again, so that an increment spans two windows, and
/// short enough that windows close while the bench runs.
const WINDOW: &str = "4s";

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Streams of the traffic.
    pub streams: usize,
    /// Timed rounds.
    pub rounds: usize,
    /// Requests of a round to each gateway.
    pub round_requests: usize,
    /// The same for [`workers`].
    pub workers: workers::Options,
    /// Streams where memory is measured.
    pub memory_streams: usize,
}

impl Options {
    /// A real measurement. Memory takes thirty times the streams: what Envoy holds beside them then matters little.
    pub fn full(streams: usize) -> Options {
        let workers = workers::Options::full(streams);
        Options { streams, rounds: 9, round_requests: 80, workers, memory_streams: 30 * streams }
    }

    /// Only to see that everything runs.
    pub fn quick() -> Options {
        let workers = workers::Options::quick();
        Options { streams: 2 * POINTS, rounds: 1, round_requests: 8, workers, memory_streams: 6 * POINTS }
    }
}

/// What was found.
pub struct Outcome {
    /// All figures.
    pub figures: Figures,
    /// The table of times and ratios.
    pub table: Table,
    /// The table of a second worker.
    pub workers: Table,
}

/// One configuration that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    /// Envoy without the module.
    Alone,
    /// With the module, every point passing.
    Pass,
    /// With the module, seven tenths folding.
    Fold70,
    /// Without the module, compressing what goes out.
    AloneGzip,
    /// As shipped: seven tenths folding, compressing what goes out.
    Fold70Gzip,
}

impl Setup {
    const ALL: [Setup; 5] = [Setup::Alone, Setup::Pass, Setup::Fold70, Setup::AloneGzip, Setup::Fold70Gzip];

    fn name(self) -> &'static str {
        match self {
            Setup::Alone => "alone",
            Setup::Pass => "pass",
            Setup::Fold70 => "fold70",
            Setup::AloneGzip => "alone_gzip",
            Setup::Fold70Gzip => "fold70_gzip",
        }
    }

    fn has_module(self) -> bool {
        !matches!(self, Setup::Alone | Setup::AloneGzip)
    }

    fn compresses(self) -> bool {
        matches!(self, Setup::AloneGzip | Setup::Fold70Gzip)
    }

    fn treatment(self) -> Treatment {
        match self {
            Setup::Fold70 | Setup::Fold70Gzip => Treatment::Fold70,
            Setup::Alone | Setup::Pass | Setup::AloneGzip => Treatment::Pass,
        }
    }

    /// What its time is compared with.
    fn baseline(self) -> Setup {
        if self.compresses() { Setup::AloneGzip } else { Setup::Alone }
    }
}

/// Measures.
///
/// # Errors
/// No Envoy, no module, or requests that were not answered well.
pub fn run(options: &Options) -> anyhow::Result<Outcome> {
    // One thread: this process needs less than Envoy, and leaves it the other processor.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut figures, table) = runtime.block_on(measure(options))?;
    let workers = workers::run(&options.workers, &mut figures)?;
    memory(options.memory_streams, &mut figures)?;
    Ok(Outcome { figures, table, workers })
}

/// Resident memory a stream when all fold, one worker.
fn memory(streams: usize, figures: &mut Figures) -> anyhow::Result<()> {
    // The upstream has a thread; this one makes bodies and waits.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let upstream = runtime.block_on(Upstream::start())?;
    let grown = growth::envoy(Kind::Shared, streams, WINDOW, upstream.address, &runtime)?;
    figures.add("memory.envoy.streams", grown.streams as f64, "streams");
    figures.add("memory.envoy.after", grown.after_bytes, "bytes");
    figures.add("memory.envoy.stream", grown.stream_bytes(), "bytes/stream");
    Ok(())
}

async fn measure(options: &Options) -> anyhow::Result<(Figures, Table)> {
    let upstream = Upstream::start().await?;
    let mut lanes = Vec::new();
    for setup in Setup::ALL {
        lanes.push(Lane::start(setup, &upstream).await?);
    }
    let mut traffic = Traffic::new(options.streams, Order::Shuffled, 1);
    // Two passes: every stream is known, and V8 has compiled what is hot.
    let warm_up = (traffic.bodies() * 2).max(options.round_requests);
    for _ in 0..warm_up.div_ceil(options.round_requests) {
        let bodies = traffic.bodies_now(options.round_requests);
        for lane in &mut lanes {
            lane.take(&bodies, &upstream).await?;
        }
    }
    lanes.iter_mut().for_each(Lane::forget);
    for round in 0..options.rounds {
        let bodies = traffic.bodies_now(options.round_requests);
        let (early, late) = lanes.split_at_mut(round % Setup::ALL.len());
        for lane in late.iter_mut().chain(early) {
            lane.take(&bodies, &upstream).await?;
        }
    }
    for lane in &lanes {
        lane.check().await?;
    }
    let outcome = report(&lanes)?;
    for lane in &mut lanes {
        lane.envoy.quit().await?;
    }
    Ok(outcome)
}

/// A gateway and what was measured of it.
struct Lane {
    setup: Setup,
    envoy: Envoy,
    clients: Vec<Client>,
    /// CPU time a request in milliseconds, a value a round.
    cpu_ms: Vec<f64>,
    bytes: (u64, u64),
    points: u64,
}

impl Lane {
    async fn start(setup: Setup, upstream: &Upstream) -> anyhow::Result<Lane> {
        let shape = Shape {
            has_module: setup.has_module(),
            compresses: setup.compresses(),
            balances: false,
            workers: 1,
        };
        let envoy =
            gateway::start(shape, &gateway::plugin(setup.treatment(), WINDOW)?, upstream.address).await?;
        let client = |_| Client::new(envoy.address(), Protocol::Http1, "", 0);
        let clients = (0..CONNECTIONS).map(client).collect();
        Ok(Lane { setup, envoy, clients, cpu_ms: Vec::new(), bytes: (0, 0), points: 0 })
    }

    /// One round.
    async fn take(&mut self, bodies: &[Bytes], upstream: &Upstream) -> anyhow::Result<()> {
        let out = upstream.bytes();
        let before = self.cpu_ns()?;
        let mut exports = JoinSet::new();
        for (at, mut client) in self.clients.drain(..).enumerate() {
            let mine: Vec<Bytes> = bodies.iter().skip(at).step_by(CONNECTIONS).cloned().collect();
            exports.spawn(async move {
                for body in &mine {
                    let outcome = client.export(body).await;
                    ensure!(outcome.is_acknowledged && outcome.retries == 0, "{outcome:?}");
                }
                anyhow::Ok(client)
            });
        }
        while let Some(export) = exports.join_next().await {
            self.clients.push(export??);
        }
        self.cpu_ms.push(self.cpu_ns()?.saturating_sub(before) as f64 / bodies.len() as f64 / 1e6);
        self.bytes.0 += bodies.iter().map(|b| b.len() as u64).sum::<u64>();
        self.bytes.1 += upstream.bytes().saturating_sub(out);
        self.points += (bodies.len() * POINTS) as u64;
        Ok(())
    }

    /// What was measured while warming up does not count.
    fn forget(&mut self) {
        self.cpu_ms.clear();
        self.bytes = (0, 0);
    }

    fn cpu_ns(&self) -> anyhow::Result<u64> {
        process_ns(self.envoy.pid().context("Envoy has ended")?)
    }

    async fn check(&self) -> anyhow::Result<()> {
        if !self.setup.has_module() {
            return Ok(());
        }
        gateway::check(&self.envoy, self.setup.treatment(), self.points).await
    }
}

fn report(lanes: &[Lane]) -> anyhow::Result<(Figures, Table)> {
    let mut figures = Figures::default();
    let mut table = table(&[
        "setup",
        "CPU ms/request",
        "× without module",
        "module, ns/point",
        "bytes out",
        "resident MB",
    ]);
    for lane in lanes {
        let baseline = lanes.iter().find(|l| l.setup == lane.setup.baseline()).context("a baseline")?;
        let name = lane.setup.name();
        let ms = median(lane.cpu_ms.iter().copied());
        let against = ratio(&lane.cpu_ms, &baseline.cpu_ms);
        let more = median(lane.cpu_ms.iter().zip(&baseline.cpu_ms).map(|(a, b)| a - b));
        let ns = more * 1e6 / POINTS as f64;
        let out = lane.bytes.1 as f64 / lane.bytes.0 as f64;
        let resident = lane.envoy.usage()?.resident_bytes as f64;
        figures.add(format!("{name}.cpu"), ms, "ms/request");
        figures.add(format!("{name}.bytes_out"), out, "ratio");
        figures.add(format!("{name}.resident"), resident, "bytes");
        let figure = format!("{name}.by_alone");
        match lane.setup {
            Setup::Pass => figures.bound(figure, against, "ratio", Target::AtMost(1.6)),
            Setup::Fold70 => figures.bound(figure, against, "ratio", Target::AtMost(1.3)),
            Setup::Fold70Gzip => figures.add(figure, against, "ratio"),
            Setup::Alone | Setup::AloneGzip => {}
        }
        let has_module = lane.setup.has_module();
        if has_module {
            figures.add(format!("{name}.module"), ns, "ns/point");
        }
        let only = |text: String| if has_module { text } else { String::new() };
        let cells = [
            number(ms),
            only(number(against)),
            only(number(ns)),
            format!("{:.0} %", out * 100.0),
            number(resident / 1e6),
        ];
        table.add_row(row(name, &cells));
    }
    Ok((figures, table))
}
