//! The same bodies to both.
//!
//! In: the traffic, 1 MB a body. Out: points per second of CPU time of each process, all its threads, and the ratio of the two. Four gateways live side by
//! side, each of ours beside one of theirs that folds the same: all points, and seven tenths of them. Each round every gateway takes the same bodies, in
//! turn; the CPU time of a round is what a process used from the end of the last one to the end of this one, so that what it does while others have their
//! turn (windows, flushes, collection of garbage) is charged to it. Refuses to report when one of them has not seen every point.

use super::vmagent::{self, Vmagent};
use crate::figures::{Figures, Target, number, row, table};
use crate::gateway::{self, PATH, Shape};
use crate::measure::{median, process_ns, ratio};
use crate::sender::{Sender, send_all};
use crate::traffic::{FOLDED, Order, POINTS, PREFIX, Traffic, Treatment};
use crate::upstream::Upstream;
use anyhow::Context as _;
use bytes::Bytes;
use comfy_table::Table;
use phoenix_host_test::envoy::Envoy;
use serde_json::json;
use std::path::Path;
use tokio::runtime::Runtime;

/// Window of both, and delay of ours. Each stream comes about once or twice in it, as with 15 s and an export every 15 s: vmagent looks at every stream at each
/// flush, so a window in which streams come more often would make it look better than it is, and a shorter one worse.
pub const WINDOW: &str = "2s";
/// Connections, so that a gateway always has something to read.
const CONNECTIONS: usize = 4;
/// Theirs by ours.
const FASTER: Target = Target::AtLeast(4.0);

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

/// What vmagent is told, to do with the traffic what the plan of the same treatment does: one output, under the name of the metric as ours is. Streams are
/// forgotten after ten minutes, as ours are; only samples within two seconds of its start are taken for baselines, as long as it takes to begin here.
pub fn aggregation(treatment: Treatment) -> String {
    let prefix = match treatment {
        Treatment::Pass | Treatment::Measure | Treatment::MeasureFirst | Treatment::Budget => "nothing.",
        Treatment::Fold70 => FOLDED,
        Treatment::FoldAll => PREFIX,
    };
    // JSON is YAML.
    let rule = json!([{
        "match": format!("{{__name__=~\"{}.*\"}}", prefix.replace('.', "\\\\.")),
        "interval": WINDOW,
        "without": ["k8s.pod.name", "service.instance.id", "user.id"],
        "outputs": ["total"],
        "keep_metric_names": true,
        "staleness_interval": "10m",
        "ignore_first_sample_interval": "2s"
    }]);
    rule.to_string()
}

enum Gateway {
    Phoenix(Box<Envoy>),
    Vmagent(Vmagent),
}

struct Lane {
    gateway: Gateway,
    treatment: Treatment,
    senders: Vec<Sender>,
    /// CPU time until the end of the last round.
    mark_ns: u64,
    /// CPU time a point in nanoseconds, a value a round.
    ns: Vec<f64>,
    points: u64,
}

/// Measures; adds to `figures`, and gives the table.
///
/// # Errors
/// Something does not start, or does not see what was sent.
pub fn run(
    options: &Options,
    vmagent: &Path,
    runtime: &Runtime,
    figures: &mut Figures,
) -> anyhow::Result<Table> {
    let upstream = runtime.block_on(Upstream::start())?;
    let mut lanes = Vec::new();
    for treatment in [Treatment::FoldAll, Treatment::Fold70] {
        lanes.push(Lane::phoenix(treatment, &upstream, runtime)?);
        lanes.push(Lane::vmagent(treatment, &upstream, vmagent)?);
    }
    let mut traffic = Traffic::new(options.streams, Order::Shuffled, 1);
    // Two passes: every stream is known, and V8 has compiled what is hot.
    let warm_up = (traffic.bodies() * 2).max(options.round_requests).div_ceil(options.round_requests);
    for round in 0..warm_up + options.rounds {
        let bodies = traffic.bodies_now(options.round_requests);
        let (early, late) = lanes.split_at_mut(round % 4);
        late.iter_mut().chain(early).try_for_each(|lane| lane.take(&bodies))?;
        lanes.iter_mut().try_for_each(|lane| lane.close_round(bodies.len(), round >= warm_up))?;
    }
    for lane in &mut lanes {
        lane.finish(runtime)?;
    }
    Ok(report(&lanes, figures))
}

impl Lane {
    fn phoenix(treatment: Treatment, upstream: &Upstream, runtime: &Runtime) -> anyhow::Result<Lane> {
        let shape = Shape { has_module: true, workers: 1, ..Shape::default() };
        let plugin = gateway::plugin(treatment, WINDOW)?;
        let envoy = runtime.block_on(gateway::start(shape, &plugin, upstream.address))?;
        let senders = (0..CONNECTIONS).map(|_| Sender::new(envoy.address(), PATH)).collect();
        Ok(Lane::new(Gateway::Phoenix(Box::new(envoy)), treatment, senders))
    }

    fn vmagent(treatment: Treatment, upstream: &Upstream, binary: &Path) -> anyhow::Result<Lane> {
        let aggregation = aggregation(treatment);
        let options = vmagent::Options { binary: binary.to_owned(), aggregation, sink: upstream.address };
        let vmagent = Vmagent::start(options)?;
        let senders = (0..CONNECTIONS).map(|_| Sender::new(vmagent.address(), vmagent::PATH)).collect();
        Ok(Lane::new(Gateway::Vmagent(vmagent), treatment, senders))
    }

    fn new(gateway: Gateway, treatment: Treatment, senders: Vec<Sender>) -> Lane {
        Lane { gateway, treatment, senders, mark_ns: 0, ns: Vec::new(), points: 0 }
    }

    fn take(&mut self, bodies: &[Bytes]) -> anyhow::Result<()> {
        send_all(&mut self.senders, bodies)?;
        self.points += (bodies.len() * POINTS) as u64;
        Ok(())
    }

    fn close_round(&mut self, bodies: usize, counts: bool) -> anyhow::Result<()> {
        let pid = match &self.gateway {
            Gateway::Phoenix(envoy) => envoy.pid().context("Envoy has ended")?,
            Gateway::Vmagent(vmagent) => vmagent.pid(),
        };
        let now_ns = process_ns(pid)?;
        if counts {
            self.ns.push(now_ns.saturating_sub(self.mark_ns) as f64 / (bodies * POINTS) as f64);
        }
        self.mark_ns = now_ns;
        Ok(())
    }

    fn finish(&mut self, runtime: &Runtime) -> anyhow::Result<()> {
        let folded = if self.treatment == Treatment::FoldAll { self.points } else { self.points / 10 * 7 };
        match &mut self.gateway {
            Gateway::Phoenix(envoy) => runtime.block_on(async {
                gateway::check(envoy, self.treatment, self.points).await?;
                envoy.quit().await
            }),
            Gateway::Vmagent(vmagent) => vmagent.check(self.points, folded),
        }
    }
}

fn report(lanes: &[Lane], figures: &mut Figures) -> Table {
    let mut table = table(&[
        "folds",
        "phoenix, ns/point",
        "vmagent, ns/point",
        "phoenix, points per CPU s",
        "vmagent, points per CPU s",
        "phoenix / vmagent",
    ]);
    for pair in lanes.chunks_exact(2) {
        let [ours, theirs] = pair else { continue };
        let name = if ours.treatment == Treatment::FoldAll { "fold100" } else { "fold70" };
        let ns = [ours, theirs].map(|lane| median(lane.ns.iter().copied()));
        let rates = ns.map(|ns| 1e9 / ns);
        for (who, (ns, rate)) in ["phoenix", "vmagent"].iter().zip(ns.iter().zip(rates)) {
            figures.add(format!("speed.{name}.{who}.cpu"), *ns, "ns/point");
            figures.add(format!("speed.{name}.{who}.rate"), rate, "points/CPU s");
        }
        let faster = ratio(&theirs.ns, &ours.ns);
        figures.bound(format!("speed.{name}.phoenix_by_vmagent"), faster, "ratio", FASTER);
        let cells = [ns[0], ns[1], rates[0], rates[1], faster].map(number);
        table.add_row(row(name, &cells));
    }
    table
}
