//! `bench envoy`: what a request costs a real Envoy, without the module, with it, and with a fold.
//!
//! In: bodies of about 1 MB over HTTP/1.1 on kept connections, one worker, an upstream in this process that throws bodies away. Out: the
//! [`Figures`]: CPU time of the Envoy process alone, from `/proc`. All gateways live side by side and take the same bodies in
//! turn, each round beginning with another. The configuration is the shipped one without compression on the way in and out, which would
//! cost more than all the rest; the last gateway has it as shipped. Refuses to report when points were lost on the way.

use crate::figures::{Figures, Target, number, row, table};
use crate::measure::{median, ratio};
use crate::traffic::{Order, POINTS, Traffic, Treatment, plan};
use crate::wasm::folder;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use comfy_table::Table;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use phoenix_filter::units::UnixNanos;
use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::envoy::{Envoy, EnvoyOptions, config};
use phoenix_host_test::shop::client::{Client, Protocol};
use phoenix_host_test::shop::run::unix_ns;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Connections, so that the worker always has something to read: with fewer it waits between requests, and waking costs CPU time too.
const CONNECTIONS: usize = 4;
/// Window and delay on the real clock: about as long as it takes until a stream comes again, so that an increment spans two windows, and
/// short enough that windows close while the bench runs.
const WINDOW: &str = "4s";
/// Longest wait for the module's last numbers: many ticks.
const NUMBERS_TIMEOUT: Duration = Duration::from_secs(10);
/// The comments that begin the parts of `envoy/gateway.yaml`, in order.
const PARTS: [&str; 4] = [
    "          # 1. The module reads plain protobuf.",
    "          # 2. Phoenix,",
    "          # 3. What is left goes out compressed.",
    "          - name: envoy.filters.http.router",
];

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Streams of the traffic.
    pub streams: usize,
    /// Timed rounds.
    pub rounds: usize,
    /// Requests of a round to each gateway.
    pub round_requests: usize,
}

impl Options {
    /// A real measurement.
    pub fn full(streams: usize) -> Options {
        Options { streams, rounds: 9, round_requests: 80 }
    }

    /// Only to see that everything runs.
    pub fn quick() -> Options {
        Options { streams: 2 * POINTS, rounds: 1, round_requests: 8 }
    }
}

/// What was found.
pub struct Outcome {
    /// All figures.
    pub figures: Figures,
    /// The table of times and ratios.
    pub table: Table,
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
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Outcome> {
    let upstream = Upstream::start().await?;
    let mut lanes = Vec::new();
    for setup in Setup::ALL {
        lanes.push(Lane::start(setup, &upstream).await?);
    }
    let mut traffic = Traffic::new(options.streams, Order::Shuffled, 1);
    // Two passes: every stream is known, and V8 has compiled what is hot.
    let warm_up = (traffic.bodies() * 2).max(options.round_requests);
    for _ in 0..warm_up.div_ceil(options.round_requests) {
        let bodies = bodies(&mut traffic, options.round_requests);
        for lane in &mut lanes {
            lane.take(&bodies, &upstream).await?;
        }
    }
    lanes.iter_mut().for_each(Lane::forget);
    for round in 0..options.rounds {
        let bodies = bodies(&mut traffic, options.round_requests);
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

fn bodies(traffic: &mut Traffic, count: usize) -> Vec<Bytes> {
    let body = |_| {
        let mut body = Vec::new();
        traffic.body(UnixNanos(unix_ns()), &mut body);
        body.into()
    };
    (0..count).map(body).collect()
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
        let mut plugin_config = config::shop_plugin_config()?;
        plugin_config["plan"] = plan(setup.treatment(), WINDOW);
        let options = EnvoyOptions {
            binary: find_binary()?,
            module: folder().join("phoenix_envoy.wasm"),
            plugin_config: serde_json::to_string_pretty(&plugin_config)?,
            upstream: upstream.address,
            workers: 1,
            folder: None,
            drain_seconds: 1,
        };
        check_parts()?;
        let envoy = Envoy::start_edited(options, |yaml| edited(&yaml, setup)).await?;
        let client = |_| Client::new(envoy.address(), Protocol::Http1, "", 0);
        let clients = (0..CONNECTIONS).map(client).collect();
        Ok(Lane { setup, envoy, clients, cpu_ms: Vec::new(), bytes: (0, 0), points: 0 })
    }

    /// One round.
    async fn take(&mut self, bodies: &[Bytes], upstream: &Upstream) -> anyhow::Result<()> {
        let out = upstream.bytes.load(Ordering::Relaxed);
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
        self.bytes.1 += upstream.bytes.load(Ordering::Relaxed).saturating_sub(out);
        self.points += (bodies.len() * POINTS) as u64;
        Ok(())
    }

    /// What was measured while warming up does not count.
    fn forget(&mut self) {
        self.cpu_ms.clear();
        self.bytes = (0, 0);
    }

    /// CPU time of all threads in nanoseconds: `/proc/PID/task/TID/schedstat`, finer than the ticks of `/proc/PID/stat`.
    fn cpu_ns(&self) -> anyhow::Result<u64> {
        let pid = self.envoy.pid().context("Envoy has ended")?;
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            sum += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        // A kernel without schedstat shows zeros.
        if sum > 0 { Ok(sum) } else { Ok(u64::try_from(self.envoy.usage()?.cpu.as_nanos())?) }
    }

    /// Did the module see every point, and fold what the plan says? Its numbers reach Envoy at its next tick.
    async fn check(&self) -> anyhow::Result<()> {
        if !self.setup.has_module() {
            return Ok(());
        }
        let points = i64::try_from(self.points)?;
        let recorded = if self.setup.treatment() == Treatment::Pass { 0 } else { points / 10 * 7 };
        let begin = Instant::now();
        loop {
            let stats = self.envoy.stats("wasmcustom").await?;
            let sum = |end: &str| -> i64 {
                stats.iter().filter(|(name, _)| name.ends_with(end)).map(|(_, value)| value).sum()
            };
            // The last points of a pass and the first of the next may overtake each other on their connections.
            let folded =
                ["phoenix_folded", "phoenix_baselines", "phoenix_out_of_order"].map(sum).iter().sum();
            let seen = (sum("phoenix_points"), sum("phoenix_recorded"), folded);
            if seen == (points, recorded, recorded) {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < NUMBERS_TIMEOUT,
                "{:?}: of {points} points {recorded} should be recorded and folded: {stats:?}",
                self.setup
            );
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn report(lanes: &[Lane]) -> anyhow::Result<Outcome> {
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
    Ok(Outcome { figures, table })
}

/// The shipped configuration holds the parts that [`edited`] cuts out.
fn check_parts() -> anyhow::Result<()> {
    let shipped = config::shipped("envoy/gateway.yaml")?;
    let at: Vec<Option<usize>> = PARTS.iter().map(|part| shipped.find(part)).collect();
    ensure!(
        at.iter().all(Option::is_some) && at.is_sorted(),
        "envoy/gateway.yaml does not hold its parts in order: {PARTS:?}"
    );
    Ok(())
}

/// The configuration without the filters that a setup does not have.
fn edited(yaml: &str, setup: Setup) -> String {
    let [decompressor, module, compressor, router] = PARTS.map(|part| yaml.find(part).unwrap_or(yaml.len()));
    let part = |from: usize, to: usize| yaml.get(from..to).unwrap_or_default();
    let mut text = part(0, decompressor).to_owned();
    if setup.has_module() {
        text.push_str(part(module, compressor));
    }
    if setup.compresses() {
        text.push_str(part(compressor, router));
    }
    text.push_str(part(router, yaml.len()));
    text
}

/// A server that throws bodies away and says 200.
struct Upstream {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Upstream {
    async fn start() -> anyhow::Result<Upstream> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let seen = bytes.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = seen.clone();
                let answer = service_fn(move |request| discard(request, seen.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(Upstream { address, bytes })
    }
}

async fn discard(
    request: Request<Incoming>,
    seen: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, http::Error> {
    let mut body = request.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            seen.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }
    Response::builder().header("content-type", "application/x-protobuf").body(Full::default())
}
