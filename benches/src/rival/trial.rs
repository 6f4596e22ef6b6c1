//! The small cases on both.
//!
//! In: [`super::cases`]. Out: by case the truth, what each side's output says, and whether that is right. One Envoy with two workers and one vmagent take
//! the same requests at the same moments, over two connections each; the sinks keep what leaves. Afterwards both are restarted: once as each wants it,
//! when all it holds has left, and once by SIGKILL between two samples. Both aggregate over windows of a second, ours with a delay of a second. Ours is
//! read with start times, as they are in OTLP; theirs as remote write has it. Nothing waits for a fixed time where it can wait for a fact.

use super::cases::{self, Case, HOUR_AGO, Kind, LAST, Point, Stream, TICK};
use super::read::{Samples, Zero};
use super::remote_write::Receiver;
use super::vmagent::{self, Vmagent};
use crate::figures::{Figures, table};
use crate::gateway::{self, PATH, Shape};
use crate::sender::Sender;
use anyhow::{Context as _, ensure};
use comfy_table::{Cell, CellAlignment, Table};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Histogram, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_host_test::envoy::{Envoy, config};
use phoenix_host_test::shop::otlp;
use phoenix_host_test::shop::run::unix_ns;
use phoenix_host_test::sink::{BooksConfig, Sink};
use prost::Message as _;
use serde_json::{Value, json};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Window of both and delay of ours: the shortest that both allow.
const WINDOW: &str = "1s";
/// The label that is folded away, an attribute of the resource.
const POD: &str = "k8s.pod.name";
/// How long what must come may take: far longer than it ever does.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look.
const LOOK: Duration = Duration::from_millis(50);
/// Samples before and after a restart.
const SAMPLES: u32 = 4;
/// By how much the stream of a restart grows each tick.
const STEP: u64 = 5;
/// vmagent's two ways with the first sample of a stream; a fold of deltas has one.
const OUTPUTS: [&str; 2] = ["total", "total_prometheus"];
/// The parts of a histogram in the order of [`Case::truth`]: the metric that vmagent makes of each, and which of its buckets.
const PARTS: [(&str, &str); 5] =
    [("_count", ""), ("_sum", ""), ("_bucket", "{1}"), ("_bucket", "{5}"), ("_bucket", "{+Inf}")];

/// Of a case that is wrong as Prometheus reads it.
const GENEROUS: &str =
    "is right to who takes each new series to begin at zero, as VictoriaMetrics' `increase` may";

/// What was found of a case.
struct Verdict {
    case: Case,
    /// Ours, then [`OUTPUTS`].
    says: [Vec<f64>; 3],
    /// [`OUTPUTS`], if their series are taken to begin at zero.
    from_zero: [Vec<f64>; 2],
}

/// Runs all cases; adds to `figures`, gives the table and what it needs said.
///
/// # Errors
/// Something does not start, or what must come does not.
pub fn run(
    has_restarts: bool,
    vmagent: &Path,
    runtime: &Runtime,
    figures: &mut Figures,
) -> anyhow::Result<(Table, Vec<String>)> {
    let mut stage = Stage::open(vmagent, runtime)?;
    let all = cases::all();
    stage.play(&all)?;
    stage.settle("case.steady")?;
    let mut verdicts: Vec<Verdict> = stage.judge(all)?;
    if has_restarts {
        let orderly = ("restarted", "both restart, as each wants it");
        verdicts.push(stage.restart(orderly, Stage::end_orderly)?);
        verdicts.push(stage.restart(("killed", "both are killed, and start again"), Stage::kill)?);
    }
    Ok(report(&verdicts, figures))
}

/// Both aggregators and their sinks.
struct Stage<'a> {
    runtime: &'a Runtime,
    sink: Sink,
    receiver: Receiver,
    envoy: Envoy,
    vmagent: Vmagent,
    senders: [Vec<Sender>; 2],
    run_ns: u64,
    /// The first tick.
    first_ns: u64,
    /// The last one so far.
    last_ns: u64,
    /// When the last request had been answered.
    sent_ns: u64,
}

fn shape() -> Shape {
    Shape { has_module: true, compresses: false, balances: true, workers: 2 }
}

/// Everything that begins with `case.` folds.
fn plugin() -> anyhow::Result<Value> {
    let mut plugin = config::shop_plugin_config()?;
    plugin["plan"] = json!({
        "schema": 1, "version": 1, "writer": "bench", "first_sample_margin": "0s",
        "hash_key": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "promoted_resource_attributes": [POD],
        "rules": [{
            "name": "cases", "metric": {"prefix": "case."}, "pipeline": "optimized",
            "fold": {
                "labels": {"drop": {"resource": [POD], "attributes": []}}, "window": WINDOW, "delay": WINDOW
            }
        }]
    });
    Ok(plugin)
}

/// The same for vmagent, the best that we know it can be told. Deltas are summed, which one has to know of a metric; counters are written in both of its ways
/// with first samples, which one has to choose between. It trusts a first sample three seconds after its start: later than all streams that are older have
/// spoken, sooner than any is born. It remembers streams as long as we do, and writes what it holds when it ends.
fn aggregation() -> String {
    let rule = |deltas: bool, outputs: &[&str]| {
        json!({
            "match": format!("{{__name__{}\"case\\\\.delta\\\\..*\"}}", if deltas { "=~" } else { "!~" }),
            "interval": WINDOW,
            "without": [POD],
            "outputs": outputs,
            "staleness_interval": "10m",
            "ignore_first_sample_interval": "3s",
            "flush_on_shutdown": true
        })
    };
    json!([rule(true, &["sum_samples"]), rule(false, &OUTPUTS)]).to_string()
}

impl<'a> Stage<'a> {
    fn open(binary: &Path, runtime: &'a Runtime) -> anyhow::Result<Stage<'a>> {
        let run_ns = unix_ns();
        let sink =
            runtime.block_on(Sink::start(BooksConfig { run_start_ns: run_ns, ..BooksConfig::default() }))?;
        sink.keep_requests();
        let receiver = runtime.block_on(Receiver::start())?;
        let envoy = runtime.block_on(gateway::start(shape(), &plugin()?, sink.address()))?;
        // After Envoy: its first seconds are those that it does not trust.
        let vmagent = Vmagent::start(vmagent::Options {
            binary: binary.to_owned(),
            aggregation: aggregation(),
            sink: receiver.address,
        })?;
        let connect = |address, path| (0..2).map(|_| Sender::new(address, path)).collect();
        let senders = [connect(envoy.address(), PATH), connect(vmagent.address(), vmagent::PATH)];
        let first_ns = unix_ns();
        let (last_ns, sent_ns) = (first_ns, first_ns);
        Ok(Stage { runtime, sink, receiver, envoy, vmagent, senders, run_ns, first_ns, last_ns, sent_ns })
    }

    /// The time of a tick; those before the first tick are in the past.
    fn ns(&self, ticks: f64) -> u64 {
        self.first_ns.saturating_add_signed((ticks * TICK.as_nanos() as f64) as i64)
    }

    /// Sends all cases, each point in its tick.
    fn play(&mut self, cases: &[Case]) -> anyhow::Result<()> {
        // vmagent flushes at whole seconds, our windows end at half ones: between the two a sample is far from either.
        let tick_ns = u64::try_from(TICK.as_nanos())?;
        self.first_ns = unix_ns().next_multiple_of(tick_ns) + tick_ns / 4;
        (0..=LAST).try_for_each(|tick| self.send(tick, cases))
    }

    fn send(&mut self, tick: u32, cases: &[Case]) -> anyhow::Result<()> {
        let early_ns = self.ns(tick.into()).saturating_sub(unix_ns());
        sleep(Duration::from_nanos(early_ns));
        for sender in 0..2 {
            let body = self.body(tick, sender, cases);
            if !body.is_empty() {
                for senders in &mut self.senders {
                    senders.get_mut(sender).context("a connection")?.post(&body)?;
                }
            }
        }
        self.last_ns = self.ns(tick.into());
        self.sent_ns = unix_ns();
        Ok(())
    }

    /// One request: what a connection sends in a tick.
    fn body(&self, tick: u32, sender: usize, cases: &[Case]) -> Vec<u8> {
        let mut request = ExportMetricsServiceRequest::default();
        for case in cases {
            for stream in &case.streams {
                let is_now = |point: &&Point| point.sent == tick && point.sender == sender;
                let points: Vec<&Point> = stream.points.iter().filter(is_now).collect();
                if !points.is_empty() {
                    request.resource_metrics.push(self.metric(case, stream, &points));
                }
            }
        }
        request.encode_to_vec()
    }

    fn metric(&self, case: &Case, stream: &Stream, points: &[&Point]) -> ResourceMetrics {
        let attributes = || vec![otlp::text("http.route", "/cart")];
        let number = |p: &&Point| {
            let value = number_data_point::Value::AsInt(p.value.cast_signed());
            otlp::number(attributes(), self.ns(p.start), self.ns(p.time), value)
        };
        let data = match case.kind {
            Kind::Cumulative => otlp::sum(points.iter().map(number).collect(), otlp::CUMULATIVE, true),
            Kind::Delta => otlp::sum(points.iter().map(number).collect(), otlp::DELTA, true),
            Kind::Histogram => Data::Histogram(Histogram {
                aggregation_temporality: otlp::CUMULATIVE,
                data_points: points.iter().map(|p| self.histogram(p, attributes())).collect(),
            }),
        };
        let resource = vec![otlp::text("service.name", "cart"), otlp::text(POD, stream.pod)];
        let metric: Metric = otlp::metric(&case.metric(), "", data);
        ResourceMetrics {
            resource: Some(Resource { attributes: resource, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }
    }

    fn histogram(
        &self,
        point: &Point,
        attributes: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>,
    ) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes,
            start_time_unix_nano: self.ns(point.start),
            time_unix_nano: self.ns(point.time),
            count: 6 * point.value,
            sum: Some(10.0 * point.value as f64),
            bucket_counts: vec![point.value, 2 * point.value, 3 * point.value],
            explicit_bounds: vec![1.0, 5.0],
            ..HistogramDataPoint::default()
        }
    }

    fn ours(&self) -> anyhow::Result<Samples> {
        let requests = self.sink.requests();
        let booked = requests.iter().filter(|request| request.is_booked);
        Samples::of_otlp(booked.flat_map(|request| &request.messages))
    }

    /// Waits until both have written what they took: ours a window that ends no earlier than what was sent last, theirs a flush after it.
    fn settle(&self, metric: &str) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let ours = self.ours()?.newest_ns(metric);
            let theirs = self.receiver.samples().newest_ns(&written(metric, OUTPUTS[0]));
            if ours >= self.last_ns && theirs > self.sent_ns {
                return Ok(());
            }
            let sent = (self.last_ns, self.sent_ns);
            ensure!(begin.elapsed() < PATIENCE, "{metric} at {sent:?}: ours {ours}, theirs {theirs}");
            sleep(LOOK);
        }
    }

    fn judge(&self, cases: Vec<Case>) -> anyhow::Result<Vec<Verdict>> {
        let (ours, theirs) = (self.ours()?, self.receiver.samples());
        let read = |case: &Case, output: &str, zero: Zero| match case.kind {
            Kind::Cumulative => theirs.increase(&written(&case.metric(), output), zero),
            Kind::Delta => theirs.increase(&written(&case.metric(), "sum_samples"), zero),
            Kind::Histogram => {
                let part = |(end, le): &(&str, &str)| {
                    let name = written(&format!("{}{end}", case.metric()), output);
                    theirs.increase(&format!("{name}{le}"), zero)
                };
                PARTS.iter().flat_map(part).collect()
            }
        };
        let verdict = |case: Case| {
            let since = Zero::Since(self.run_ns);
            let [total, prometheus] = OUTPUTS.map(|output| read(&case, output, since));
            let says = [ours.increase(&case.metric(), since), total, prometheus];
            let from_zero = OUTPUTS.map(|output| read(&case, output, Zero::Assumed));
            Verdict { says, from_zero, case }
        };
        Ok(cases.into_iter().map(verdict).collect())
    }

    /// A stream that counts on while both are restarted.
    fn restart(
        &mut self,
        (name, says): (&'static str, &'static str),
        end: fn(&mut Stage<'a>, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Verdict> {
        let mut case = Case { name, says, kind: Kind::Cumulative, streams: Vec::new(), increase: 0 };
        let begin = self.tick_after_now();
        let at = |tick: u32| {
            let value = 1_000 + STEP * u64::from(tick);
            let point = Point { sent: tick, sender: 0, start: HOUR_AGO, time: tick.into(), value };
            vec![Stream { pod: "a", points: vec![point] }]
        };
        for tick in begin..begin + SAMPLES {
            case.streams = at(tick);
            self.send(tick, std::slice::from_ref(&case))?;
        }
        end(self, &case.metric())?;
        self.runtime.block_on(self.envoy.start_again(|yaml| gateway::edited(&yaml, shape())))?;
        self.vmagent.start_again()?;
        let connect = |address, path| (0..2).map(|_| Sender::new(address, path)).collect();
        self.senders = [connect(self.envoy.address(), PATH), connect(self.vmagent.address(), vmagent::PATH)];
        let again = self.tick_after_now();
        for tick in again..again + SAMPLES {
            case.streams = at(tick);
            self.send(tick, std::slice::from_ref(&case))?;
        }
        self.settle(&case.metric())?;
        case.increase = STEP * u64::from(again + SAMPLES - 1 - begin);
        self.judge(vec![case])?.pop().context("a verdict")
    }

    fn tick_after_now(&self) -> u32 {
        let ticks = unix_ns().saturating_sub(self.first_ns) / TICK.as_nanos() as u64;
        u32::try_from(ticks + 1).unwrap_or(u32::MAX)
    }

    /// What each holds leaves before it ends: ours by its window and delay, theirs with its end (`flush_on_shutdown`).
    fn end_orderly(&mut self, metric: &str) -> anyhow::Result<()> {
        self.settle(metric)?;
        self.runtime.block_on(self.envoy.terminate())?;
        self.vmagent.terminate()
    }

    fn kill(&mut self, _: &str) -> anyhow::Result<()> {
        self.runtime.block_on(self.envoy.kill())?;
        self.vmagent.kill()
    }
}

/// The name under which vmagent writes an output of a metric.
fn written(metric: &str, output: &str) -> String {
    format!("{metric}:{WINDOW}_without_{POD}_{output}")
}

fn report(verdicts: &[Verdict], figures: &mut Figures) -> (Table, Vec<String>) {
    let names = ["phoenix", "vmagent.total", "vmagent.total_prometheus"];
    let mut table = table(&["case", "", "truth", "phoenix", "vmagent, total", "vmagent, total_prometheus"]);
    let mut right = [0_u32; 3];
    let mut notes = Vec::new();
    for verdict in verdicts {
        let (case, truth) = (&verdict.case, verdict.case.truth());
        let first = |values: &[f64]| values.first().copied().unwrap_or(0.0);
        figures.add(format!("cases.{}.truth", case.name), first(&truth), "increase");
        let mut cells =
            vec![Cell::new(case.name), Cell::new(case.says), of_number(first(&truth).to_string())];
        for ((name, says), right) in names.iter().zip(&verdict.says).zip(&mut right) {
            let holds = is_right(says, &truth);
            *right += u32::from(holds);
            figures.add(format!("cases.{}.{name}", case.name), first(says), "increase");
            figures.add(format!("cases.{}.{name}.right", case.name), f64::from(u8::from(holds)), "yes or no");
            cells.push(of_number(format!("{} {}", first(says), if holds { "right" } else { "WRONG" })));
        }
        table.add_row(cells);
        for (output, (read, from_zero)) in
            OUTPUTS.iter().zip(verdict.says.iter().skip(1).zip(&verdict.from_zero))
        {
            let figure = format!("cases.{}.vmagent.{output}.from_zero", case.name);
            figures.add(figure, first(from_zero), "increase");
            if is_right(from_zero, &truth) && !is_right(read, &truth) {
                notes.push(format!("{}: {output} {GENEROUS}: {}", case.name, first(from_zero)));
            }
        }
    }
    let mut cells = vec![Cell::new("right"), Cell::new(""), of_number(verdicts.len().to_string())];
    for (name, right) in names.iter().zip(right) {
        figures.add(format!("cases.right.{name}"), f64::from(right), "cases");
        cells.push(of_number(right.to_string()));
    }
    table.add_row(cells);
    (table, notes)
}

/// All parts are there and right.
fn is_right(says: &[f64], truth: &[f64]) -> bool {
    let near = |(says, truth): (&f64, &f64)| (says - truth).abs() <= 1e-9 * truth.abs();
    says.len() == truth.len() && says.iter().zip(truth).all(near)
}

fn of_number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
