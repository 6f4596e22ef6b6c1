//! `bench engine`: what a point costs, natively and in wasmtime, against `prost` over the same bytes.
//!
//! In: a number of streams and of rounds. Out: the [`Figures`]. All subjects take the bodies of each round one after the
//! other, each round beginning with another; what is reported is the median over rounds of bodies, of ratios too. The first pass over the streams
//! is not timed: it fills the tables. Refuses to report when two embedders of one case did not do exactly the same.

use crate::churn;
use crate::figures::{Figures, Target, number, row, table};
use crate::measure::{median, ratio, timed};
use crate::native::{Case, Native, Prost, Subject};
use crate::traffic::{Order, POINTS, Traffic};
use crate::wasm::{Compiled, MODULES, Wasm, folder};
use anyhow::{Context as _, ensure};
use comfy_table::Table;
use phoenix_filter::units::UnixNanos;
use std::hint::black_box;

/// Bodies of a round: enough that one that was disturbed does not decide.
const ROUND_BODIES: usize = 20;
/// Exports of a stream in a generation: ten minutes, a third of the default period, at the default export interval of a minute.
const EXPORTS: f64 = 10.0;
/// Starts of the module that are timed.
const STARTS: usize = 9;

/// A run with more streams than this is one with a million: whole bodies make them a few less.
const MILLION_ABOUT: f64 = 990_000.0;
/// What a million cumulative streams may take in the module's memory.
const MEMORY_MAX_BYTES: f64 = 80.0 * 1024.0 * 1024.0;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Streams of the traffic.
    pub streams: usize,
    /// Timed rounds for each order.
    pub rounds: usize,
    /// Bodies of a round.
    pub round_bodies: usize,
}

impl Options {
    /// A real measurement.
    pub fn full(streams: usize) -> Options {
        Options { streams, rounds: 15, round_bodies: ROUND_BODIES }
    }

    /// Only to see that everything runs.
    pub fn quick() -> Options {
        Options { streams: 2 * POINTS, rounds: 2, round_bodies: 2 }
    }
}

/// What was found.
pub struct Outcome {
    /// All figures.
    pub figures: Figures,
    /// The table of times and ratios.
    pub table: Table,
}

/// Measures.
///
/// # Errors
/// No module, or two embedders that differ.
pub fn run(options: &Options) -> anyhow::Result<Outcome> {
    let compiled = Compiled::from_file(&folder().join("phoenix.component.wasm"))?;
    let mut figures = Figures::default();
    let mut table = table(&[
        "order, case",
        "native",
        "wasmtime",
        "prost",
        "wasmtime / native",
        "prost / native",
        "prost / wasmtime",
    ]);
    for order in [Order::Steady, Order::Repeating, Order::Shuffled] {
        let mut lanes = Lanes::start(&compiled, options, order)?;
        lanes.fill(&mut figures)?;
        lanes.measure(options)?;
        lanes.report(&mut figures, &mut table)?;
    }
    churn::run(&compiled, options.streams, &mut figures)?;
    start(&compiled, &mut figures)?;
    for module in MODULES {
        let bytes = std::fs::metadata(folder().join(module)).with_context(|| module.to_owned())?.len() as f64;
        match module {
            "phoenix_envoy.wasm" => {
                figures.bound(format!("size.{module}"), bytes, "bytes", Target::AtMost(700_000.0));
            }
            _ => figures.add(format!("size.{module}"), bytes, "bytes"),
        }
    }
    Ok(Outcome { figures, table })
}

fn start(compiled: &Compiled, figures: &mut Figures) -> anyhow::Result<()> {
    let now = Traffic::new(1, Order::Repeating, 0).now();
    let starts: Vec<f64> = (0..STARTS).map(|_| compiled.time_start(now)).collect::<anyhow::Result<_>>()?;
    figures.bound("start.wasmtime", median(starts) / 1e6, "ms", Target::AtMost(50.0));
    Ok(())
}

/// Everybody who is measured, over one traffic.
struct Lanes {
    order: Order,
    traffic: Traffic,
    native: Vec<(Native, Vec<f64>)>,
    wasm: Vec<(Wasm, Vec<f64>)>,
    prost: (Prost, Vec<f64>),
}

impl Lanes {
    fn start(compiled: &Compiled, options: &Options, order: Order) -> anyhow::Result<Lanes> {
        let traffic = Traffic::new(options.streams, order, 1);
        let began = traffic.now();
        let native = Case::ALL.into_iter().map(|case| Ok((Native::new(case, began)?, Vec::new())));
        let wasm = Case::ALL.into_iter().map(|case| Ok((compiled.start(case, began)?, Vec::new())));
        Ok(Lanes {
            order,
            native: native.collect::<anyhow::Result<_>>()?,
            wasm: wasm.collect::<anyhow::Result<_>>()?,
            prost: Default::default(),
            traffic,
        })
    }

    /// The first pass: every stream is new. What the tables then hold is reported.
    fn fill(&mut self, figures: &mut Figures) -> anyhow::Result<()> {
        let at = Case::ALL.iter().position(|case| *case == Case::FoldAll).context("a case with a table")?;
        let memory = |lanes: &Lanes| lanes.wasm.get(at).map_or(0, |(wasm, _)| wasm.memory_bytes());
        let (empty, mut body) = (memory(self), Vec::new());
        for _ in 0..self.traffic.bodies() {
            let now = self.traffic.now();
            body.clear();
            self.traffic.body(now, &mut body);
            for (native, _) in &mut self.native {
                native.take(&body, now)?;
            }
            for (wasm, _) in &mut self.wasm {
                wasm.take(&body, now)?;
            }
        }
        if self.order == Order::Repeating {
            let (streams, grown) = (self.traffic.streams() as f64, (memory(self) - empty) as f64);
            figures.add("memory.streams", streams, "streams");
            let instance = memory(self) as f64;
            if streams > MILLION_ABOUT {
                figures.bound(
                    "memory.wasmtime.instance",
                    instance,
                    "bytes",
                    Target::AtMost(MEMORY_MAX_BYTES),
                );
            } else {
                figures.add("memory.wasmtime.instance", instance, "bytes");
            }
            figures.add("memory.wasmtime.stream", grown / streams, "bytes/stream");
        }
        Ok(())
    }

    fn measure(&mut self, options: &Options) -> anyhow::Result<()> {
        for round in 0..options.rounds {
            let bodies: Vec<(UnixNanos, Vec<u8>)> = (0..options.round_bodies)
                .map(|_| {
                    let (now, mut body) = (self.traffic.now(), Vec::new());
                    self.traffic.body(now, &mut body);
                    (now, body)
                })
                .collect();
            let mut all = self.all();
            let first = round % all.len();
            all.rotate_left(first);
            for (subject, times) in all {
                let mut sum = 0.0;
                // One behind the other, as a worker gets them: between two of them nobody else empties the caches.
                for (now, body) in &bodies {
                    warm(body);
                    let (taken, ns) = timed(|| subject.take(body, *now));
                    taken?;
                    sum += ns;
                }
                times.push(sum / (POINTS * options.round_bodies) as f64);
            }
        }
        Ok(())
    }

    /// Every subject with its times.
    fn all(&mut self) -> Vec<(&mut dyn Subject, &mut Vec<f64>)> {
        let native = self.native.iter_mut().map(|(s, t)| (s as &mut dyn Subject, t));
        let wasm = self.wasm.iter_mut().map(|(s, t)| (s as &mut dyn Subject, t));
        let (prost, times) = &mut self.prost;
        native.chain(wasm).chain([(prost as &mut dyn Subject, times)]).collect()
    }

    fn report(&self, figures: &mut Figures, table: &mut Table) -> anyhow::Result<()> {
        let order = self.order.name();
        let (_, prost) = &self.prost;
        let prost_ns = median(prost.iter().copied());
        figures.add(format!("{order}.prost"), prost_ns, "ns/point");
        for (case, ((native, n), (wasm, w))) in Case::ALL.into_iter().zip(self.native.iter().zip(&self.wasm))
        {
            check(case, native, wasm)?;
            let name = case.name();
            let (native_ns, wasm_ns) = (median(n.iter().copied()), median(w.iter().copied()));
            let ratios = [ratio(w, n), ratio(prost, n), ratio(prost, w)];
            figures.add(format!("{order}.native.{name}"), native_ns, "ns/point");
            let figure = format!("{order}.wasmtime.{name}");
            match case {
                Case::Identify => figures.bound(figure, wasm_ns, "ns/point", Target::AtMost(150.0)),
                Case::Fold70 => figures.bound(figure, wasm_ns, "ns/point", Target::AtMost(200.0)),
                _ => figures.add(figure, wasm_ns, "ns/point"),
            }
            figures.add(format!("{order}.wasmtime_by_native.{name}"), ratios[0], "ratio");
            figures.add(format!("{order}.prost_by_native.{name}"), ratios[1], "ratio");
            let figure = format!("{order}.prost_by_wasmtime.{name}");
            match case {
                Case::Identify => figures.bound(figure, ratios[2], "ratio", Target::AtLeast(12.0)),
                _ => figures.add(figure, ratios[2], "ratio"),
            }
            let times = [native_ns, wasm_ns, prost_ns].map(number);
            let ratios = ratios.map(|r| format!("{}×", number(r)));
            table.add_row(row(&format!("{order}, {name}"), &[times, ratios].concat()));
        }
        self.measuring(figures);
        Ok(())
    }

    /// What measuring adds to a point, over whole periods: nearly all points are of streams that came before in their generation, and one of
    /// [`EXPORTS`] is not; each pass of `measure_first` begins a generation, so that its turn is in the number. Beside `identify`, as the target says, which writes
    /// a record of each point as well; and beside `pass`, for which nobody looks at a point.
    fn measuring(&self, figures: &mut Figures) {
        let of = |case: Case| {
            let at = Case::ALL.iter().position(|it| *it == case);
            median(at.and_then(|at| self.wasm.get(at)).map_or(&[][..], |(_, times)| times).iter().copied())
        };
        for (name, known) in [("measuring", Case::Measure), ("admitting", Case::Budget)] {
            let known = of(known);
            let first = of(Case::MeasureFirst) - of(Case::Measure);
            let all = known + first.max(0.0) / EXPORTS;
            let order = self.order.name();
            figures.add(format!("{order}.wasmtime.{name}.beside_pass"), all - of(Case::Pass), "ns/point");
            let beside = all - of(Case::Identify);
            figures.bound(format!("{order}.wasmtime.{name}"), beside, "ns/point", Target::AtMost(40.0));
        }
    }
}

/// Reads a body, so that it lies in the caches as one does that has just come from a socket, for whoever takes it first as for the last.
fn warm(body: &[u8]) {
    black_box(body.iter().step_by(64).fold(0_u8, |sum, byte| sum ^ byte));
}

/// Did both do the same, and what the case says?
fn check(case: Case, native: &Native, wasm: &Wasm) -> anyhow::Result<()> {
    let (done, same) = (native.done(), wasm.done());
    ensure!(done == same, "{case:?}: native {done:?}, wasmtime {same:?}");
    let recorded = match case {
        Case::Pass | Case::Measure | Case::MeasureFirst | Case::Budget => 0,
        Case::Identify | Case::FoldAll => done.points,
        Case::Fold70 => done.points / 10 * 7,
    };
    ensure!(done.recorded == recorded, "{case:?}: {done:?}, expected {recorded} records");
    let page = native.engine().page();
    if case.settles() {
        let folded = page.folded + page.baselines;
        ensure!(folded == recorded, "{case:?}: {folded} of {recorded} records folded: {page:?}");
    }
    Ok(())
}
