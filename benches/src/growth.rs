//! What a stream costs in resident memory.
//!
//! In: a gateway that was just started. Out: bytes of resident memory a stream, of all that the process holds. First the same few streams come again
//! and again, until buffers and pools have their size; then as many as asked for, twice. The growth between the two is divided by the number of streams
//! that were added. Each reading is the median over the last bodies, since a collector of garbage makes saw teeth. Refuses nothing.

use crate::measure::median;
use crate::sender::{Sender, send_all};
use crate::traffic::{Order, POINTS, Traffic};
use phoenix_host_test::envoy::process::usage;
use std::net::SocketAddr;

/// Connections, as where time is measured: each has buffers of its own.
const CONNECTIONS: usize = 4;
/// Bodies of the few streams: more than it takes until every connection and every pool has seen several.
const WARM_BODIES: usize = 60;
/// Bodies between two readings.
const STEP: usize = 4;
const _: () = assert!(WARM_BODIES.is_multiple_of(STEP));

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

/// Sends about `streams` streams through a gateway.
///
/// # Errors
/// A body was not answered well, or the process has ended.
pub fn measure(subject: Subject, streams: usize) -> anyhow::Result<Growth> {
    let mut senders: Vec<Sender> =
        (0..CONNECTIONS).map(|_| Sender::new(subject.address, subject.path)).collect();
    let few = || Traffic::new(POINTS, Order::Repeating, 1);
    let mut readings = Vec::new();
    for _ in 0..WARM_BODIES / STEP {
        let bodies: Vec<_> = (0..STEP).flat_map(|_| few().bodies_now(1)).collect();
        send_all(&mut senders, &bodies)?;
        readings.push(usage(subject.pid)?.resident_bytes as f64);
    }
    let before_bytes = median(readings.split_off(readings.len() / 2));
    let mut points = WARM_BODIES * POINTS;
    let mut after_bytes = before_bytes;
    let mut grown = 0;
    for _ in 0..2 {
        // A new one each time: no pass but its first, so no streams that come and stay away.
        let mut traffic = Traffic::new(streams, Order::Repeating, 1);
        grown = traffic.streams().saturating_sub(few().streams());
        let (mut left, mut readings) = (traffic.bodies(), Vec::new());
        points += left * POINTS;
        while left > 0 {
            let now = left.min(STEP);
            send_all(&mut senders, &traffic.bodies_now(now))?;
            readings.push(usage(subject.pid)?.resident_bytes as f64);
            left -= now;
        }
        after_bytes = median(readings);
    }
    Ok(Growth { streams: grown, before_bytes, after_bytes, points: points as u64 })
}
