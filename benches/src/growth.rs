//! What a stream costs in resident memory.
//!
//! In: a gateway that was just started. Out: bytes of resident memory a stream, of all that the process holds. First so many streams come that buffers,
//! pools and tables have their size, then three times as many; the growth is divided by the number of streams that were added. Why not from nothing: a
//! collector of garbage keeps room that is as large as what a few bodies leave behind, and the first hundred thousand streams move in there for nothing.
//! Each reading is the median over a pass in which no stream is new, or over the last bodies. Refuses nothing.

use crate::gateway::{self, PATH, Shape};
use crate::measure::median;
use crate::sender::{Sender, send_all};
use crate::traffic::{Order, POINTS, Traffic, Treatment};
use anyhow::Context as _;
use bytes::Bytes;
use phoenix_host_test::envoy::process::usage;
use std::net::SocketAddr;
use tokio::runtime::Runtime;

/// Connections, as where time is measured: each has buffers of its own.
const CONNECTIONS: usize = 4;
/// Bodies between two readings.
const STEP: usize = 4;
/// Readings at the end of a churn that are its median.
const LAST_READINGS: usize = 10;
/// No more streams than a plan allows, and some room.
const STREAMS_MAX: usize = 3_600_000;

/// How streams come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 110 streams share a user: each metric of each pod has every user. Programs that keep a value once for all streams gain.
    Shared,
    /// Each stream that is added has a user of its own and comes once.
    Churn,
}

impl Kind {
    /// Both.
    pub const ALL: [Kind; 2] = [Kind::Shared, Kind::Churn];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Shared => "shared",
            Kind::Churn => "churn",
        }
    }
}

/// A gateway in front of which streams grow.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// The path of OTLP metrics.
    pub path: &'static str,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// Streams that were added.
    pub streams: usize,
    /// Resident memory before.
    pub before_bytes: f64,
    /// Resident memory after.
    pub after_bytes: f64,
    /// Points that were sent.
    pub points: u64,
}

impl Growth {
    /// Bytes a stream.
    pub fn stream_bytes(&self) -> f64 {
        (self.after_bytes - self.before_bytes) / self.streams as f64
    }
}

/// The same for an Envoy with the module and one worker, in front of `upstream`, every point folding.
///
/// # Errors
/// As [`measure`]; no Envoy, no module, or a module that has not seen every point.
pub fn envoy(
    kind: Kind,
    streams: usize,
    window: &str,
    upstream: SocketAddr,
    runtime: &Runtime,
) -> anyhow::Result<Growth> {
    let shape = Shape { has_module: true, workers: 1, ..Shape::default() };
    let plugin = gateway::plugin(Treatment::FoldAll, window)?;
    let mut envoy = runtime.block_on(gateway::start(shape, &plugin, upstream))?;
    let pid = envoy.pid().context("Envoy has ended")?;
    let grown = measure(Subject { pid, address: envoy.address(), path: PATH }, kind, streams)?;
    runtime.block_on(gateway::check(&envoy, Treatment::FoldAll, grown.points))?;
    runtime.block_on(envoy.quit())?;
    Ok(grown)
}

/// Sends about `streams` streams through a gateway.
///
/// # Errors
/// A body was not answered well, or the process has ended.
pub fn measure(subject: Subject, kind: Kind, streams: usize) -> anyhow::Result<Growth> {
    let senders = (0..CONNECTIONS).map(|_| Sender::new(subject.address, subject.path)).collect();
    let mut meter = Meter { pid: subject.pid, senders, points: 0 };
    let (before, before_bytes, after, after_bytes) = match kind {
        Kind::Shared => {
            let all = streams.min(STREAMS_MAX);
            let (few, before_bytes) = meter.passes(all / 3)?;
            let (many, after_bytes) = meter.passes(all)?;
            (few, before_bytes, many, after_bytes)
        }
        Kind::Churn => {
            let mut traffic = Traffic::churning(POINTS);
            let (few, before_bytes) = meter.churn(&mut traffic, streams / 3)?;
            let (many, after_bytes) = meter.churn(&mut traffic, streams)?;
            (few, before_bytes, many, after_bytes)
        }
    };
    let (streams, points) = (after - before, meter.points as u64);
    Ok(Growth { streams, before_bytes, after_bytes, points })
}

struct Meter {
    pid: u32,
    senders: Vec<Sender>,
    points: usize,
}

impl Meter {
    /// Every stream, twice.
    fn passes(&mut self, streams: usize) -> anyhow::Result<(usize, f64)> {
        let (mut sent, mut readings) = (0, Vec::new());
        for _ in 0..2 {
            // A new one each time: no pass but its first, so no streams that come and stay away.
            let mut traffic = Traffic::new(streams, Order::Repeating, 1);
            sent = traffic.streams();
            readings.clear();
            let mut left = traffic.bodies();
            while left > 0 {
                let now = left.min(STEP);
                readings.push(self.take(&traffic.bodies_now(now))?);
                left -= now;
            }
        }
        Ok((sent, median(readings)))
    }

    /// Until so many streams were new.
    fn churn(&mut self, traffic: &mut Traffic, streams: usize) -> anyhow::Result<(usize, f64)> {
        let mut readings = Vec::new();
        while traffic.fresh() < streams {
            readings.push(self.take(&traffic.bodies_now(STEP))?);
        }
        Ok((traffic.fresh(), median(readings.split_off(readings.len().saturating_sub(LAST_READINGS)))))
    }

    /// Resident memory after some bodies.
    fn take(&mut self, bodies: &[Bytes]) -> anyhow::Result<f64> {
        send_all(&mut self.senders, bodies)?;
        self.points += bodies.len() * POINTS;
        Ok(usage(self.pid)?.resident_bytes as f64)
    }
}
