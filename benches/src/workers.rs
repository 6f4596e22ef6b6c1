//! What a second worker brings.
//!
//! In: the bodies of the traffic over many kept connections, spread evenly over the workers. Out: figures of Envoys with one and with two workers, each
//! without the module, with seven tenths folding, and with all. Two answers stand side by side: points per second of the wall clock, and points per
//! second of Envoy's CPU time. The first is what one wants to know, and on a machine of two processors it is not to be had: client, upstream and whatever
//! else runs take their share of the second processor. So Envoy without the module shows what the machine permits, and the second answer, times the
//! workers, what they would do with a processor each if none waited for another. A round ends when the owner of the shard has folded all that the workers
//! handed to it: what it still has to do when the last request is answered is added to the wall clock. Refuses to report when points were lost, or left raw.

use crate::figures::{Figures, Target, number, row, table};
use crate::gateway::{self, PATH, Shape};
use crate::measure::{median, process_ns};
use crate::sender::{Sender, send_all};
use crate::traffic::{Order, POINTS, Traffic, Treatment};
use crate::upstream::Upstream;
use anyhow::Context as _;
use bytes::Bytes;
use comfy_table::Table;
use phoenix_host_test::envoy::Envoy;
use std::time::Instant;
use tokio::runtime::Runtime;

/// Connections: eight for each of two workers, so that none waits for a client.
const CONNECTIONS: usize = 16;
/// Window and delay, as in `envoy`.
const WINDOW: &str = "4s";
/// What a worker may have on its way to the owner. The owner says once a tick how far it has come, and 16 MiB, the default, are less than a worker at full
/// speed hands over meanwhile: the rest would leave raw, and be another work than is measured.
const QUEUE_BYTES_MAX: u32 = 128 << 20;
/// Twice as much would be no loss at all.
const SCALING: Target = Target::AtLeast(1.8);

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
        Options { streams, rounds: 9, round_requests: 160 }
    }

    /// Only to see that everything runs.
    pub fn quick() -> Options {
        Options { streams: 2 * POINTS, rounds: 1, round_requests: 16 }
    }
}

/// What a gateway does with the traffic; `None` is without the module.
type Work = Option<Treatment>;

const WORKS: [(Work, &str); 3] =
    [(None, "alone"), (Some(Treatment::Fold70), "fold70"), (Some(Treatment::FoldAll), "fold100")];

/// Measures; adds to `figures`, and gives the table.
///
/// # Errors
/// No Envoy, no module, or requests that were not answered well.
pub fn run(options: &Options, figures: &mut Figures) -> anyhow::Result<Table> {
    // The upstream has a thread; this one makes bodies and waits.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let upstream = runtime.block_on(Upstream::start())?;
    let mut lanes = Vec::new();
    for (work, name) in WORKS {
        for workers in [1, 2] {
            lanes.push(runtime.block_on(Lane::start(work, name, workers, &upstream))?);
        }
    }
    let mut traffic = Traffic::new(options.streams, Order::Shuffled, 1);
    let warm_up = (traffic.bodies() * 2).max(options.round_requests).div_ceil(options.round_requests);
    for round in 0..warm_up + options.rounds {
        if round == warm_up {
            lanes.iter_mut().for_each(|lane| lane.rounds.clear());
        }
        let bodies = traffic.bodies_now(options.round_requests);
        let (early, late) = lanes.split_at_mut(round % (2 * WORKS.len()));
        late.iter_mut().chain(early).try_for_each(|lane| lane.take(&bodies, &runtime))?;
    }
    lanes.iter_mut().try_for_each(|lane| runtime.block_on(lane.envoy.quit()))?;
    Ok(report(&lanes, figures))
}

/// Points per second in one round, of the wall clock and of Envoy's CPU time, and Envoy's share of a processor.
#[derive(Clone, Copy)]
struct Round {
    wall: f64,
    cpu: f64,
    busy: f64,
}

struct Lane {
    work: Work,
    name: &'static str,
    workers: u32,
    envoy: Envoy,
    senders: Vec<Sender>,
    rounds: Vec<Round>,
    points: u64,
}

impl Lane {
    async fn start(
        work: Work,
        name: &'static str,
        workers: u32,
        upstream: &Upstream,
    ) -> anyhow::Result<Lane> {
        let shape = Shape { has_module: work.is_some(), compresses: false, balances: true, workers };
        let mut plugin = gateway::plugin(work.unwrap_or(Treatment::Pass), WINDOW)?;
        for limit in ["queue_bytes_max", "pending_bytes_max"] {
            plugin["plan"]["limits"][limit] = QUEUE_BYTES_MAX.into();
        }
        let envoy = gateway::start(shape, &plugin, upstream.address).await?;
        let senders = (0..CONNECTIONS).map(|_| Sender::new(envoy.address(), PATH)).collect();
        Ok(Lane { work, name, workers, envoy, senders, rounds: Vec::new(), points: 0 })
    }

    fn take(&mut self, bodies: &[Bytes], runtime: &Runtime) -> anyhow::Result<()> {
        let pid = self.envoy.pid().context("Envoy has ended")?;
        let (before_ns, begin) = (process_ns(pid)?, Instant::now());
        send_all(&mut self.senders, bodies)?;
        let (answered_ns, answered_s) = (process_ns(pid)?, begin.elapsed().as_secs_f64());
        self.points += (bodies.len() * POINTS) as u64;
        if let Some(treatment) = self.work {
            runtime.block_on(gateway::check(&self.envoy, treatment, self.points))?;
        }
        let done_ns = process_ns(pid)?;
        let cpu_s = done_ns.saturating_sub(before_ns) as f64 / 1e9;
        // One thread folds, so what was left took it as long.
        let wall_s = answered_s + done_ns.saturating_sub(answered_ns) as f64 / 1e9;
        let points = (bodies.len() * POINTS) as f64;
        self.rounds.push(Round { wall: points / wall_s, cpu: points / cpu_s, busy: cpu_s / wall_s });
        Ok(())
    }

    /// The best round: what others took away from the wall clock cannot be told from what Envoy did not use.
    fn wall(&self) -> f64 {
        self.rounds.iter().map(|round| round.wall).fold(f64::NAN, f64::max)
    }

    fn cpu(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.cpu))
    }

    fn busy(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.busy))
    }
}

fn report(lanes: &[Lane], figures: &mut Figures) -> Table {
    let mut table = table(&[
        "setup, workers",
        "million points / s, best round",
        "× one worker",
        "million points / CPU s",
        "2 × CPU of one / two",
        "processors that Envoy had",
    ]);
    for pair in lanes.chunks_exact(2) {
        let [one, two] = pair else { continue };
        for lane in pair {
            let name = format!("workers.{}.{}", lane.name, lane.workers);
            figures.add(format!("{name}.wall"), lane.wall(), "points/s");
            figures.add(format!("{name}.cpu"), lane.cpu(), "points/CPU s");
            figures.add(format!("{name}.busy"), lane.busy(), "processors");
        }
        let by_wall = two.wall() / one.wall();
        let by_cpu = 2.0 * median(two.rounds.iter().zip(&one.rounds).map(|(two, one)| two.cpu / one.cpu));
        for (end, value) in [("wall", by_wall), ("cpu", by_cpu)] {
            let figure = format!("workers.{}.two_by_one.{end}", one.name);
            match one.work {
                Some(_) => figures.bound(figure, value, "ratio", SCALING),
                None => figures.add(figure, value, "ratio"),
            }
        }
        for (lane, ratios) in [(one, None), (two, Some((by_wall, by_cpu)))] {
            let cells = [
                number(lane.wall() / 1e6),
                ratios.map_or_else(String::new, |(by_wall, _)| number(by_wall)),
                number(lane.cpu() / 1e6),
                ratios.map_or_else(String::new, |(_, by_cpu)| number(by_cpu)),
                number(lane.busy()),
            ];
            table.add_row(row(&format!("{}, {}", lane.name, lane.workers), &cells));
        }
    }
    table
}
