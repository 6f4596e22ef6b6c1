//! `cargo xtask bench [NAME]`: ratios measured in one run.
//!
//! In: which bench, how long. Out: a table on the terminal and `target/phoenix/bench/NAME.json`. Exit status 1 when a bench could not run, and when a figure
//! of `fidelity` does not hold. A missed target of the others is news and no failure: they measure time, on a machine that is shared.

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use phoenix_benches::containment::scenario::Kind;
use phoenix_benches::fidelity;
use phoenix_host_test::envoy::config::project;
use phoenix_host_test::fidelity::table::Table;
use std::path::{Path, PathBuf};

/// Ratios measured in one run.
#[derive(Parser)]
struct Arguments {
    /// Which bench; all when left out.
    #[arg(value_enum)]
    name: Option<Name>,
    /// A few seconds, only to see that everything runs. The numbers say nothing. Not for fidelity.
    #[arg(long)]
    quick: bool,
    /// Streams of the traffic. Not for fidelity. Where resident memory is measured, thirty times as many.
    #[arg(long, default_value_t = 100_000)]
    streams: usize,
    /// Only this scenario. Containment only.
    #[arg(long, value_parser = scenario)]
    scenario: Option<Kind>,
    /// Containment: seeds at the reduced size and a share of 100; others run a part of them. Control: seeds of each scenario. 1,000 when left out, 100 when all
    /// benches run.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed. Containment and control.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Embedders of the fleet, 1 to 1000; 1,000 when left out. Control only.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    embedders: Option<u16>,
    /// Only this part. Control only.
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Only this share, in series; 100 and 10000 when left out. Containment only.
    #[arg(long)]
    share: Option<usize>,
    /// Only this process. Containment only.
    #[arg(long, value_enum)]
    embedder: Option<Embedder>,
    /// Without the full size. Containment only.
    #[arg(long)]
    reduced: bool,
    /// Folder of the JSON files; target/phoenix/bench when left out.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Embedder {
    /// What others ship, modelled.
    Baseline,
    /// The engine in this process.
    Native,
    /// The built module under the test host.
    Wasmtime,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Reports, estimates and decisions of a fleet in this process.
    Fleet,
    /// The running control host, and a real Envoy.
    Served,
    /// The simulation over many seeds.
    Seeds,
    /// The simulation with as many embedders as there are.
    Large,
}

fn scenario(name: &str) -> Result<Kind, String> {
    let names = Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(format!("one of {names}"))
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Budgets while labels explode, beside models of what others ship.
    Containment,
    /// The control host at its size: memory, time, bytes, and the simulation over many seeds.
    Control,
    /// The engine natively and in wasmtime, beside prost.
    Engine,
    /// Real Envoy with and without the module, and with a second worker.
    Envoy,
    /// The module in Envoy beside vmagent: CPU time, memory, totals.
    Rival,
    /// Errors of sketches over many seeds, and what a call of them costs.
    Sketch,
    /// Answers of a real Prometheus behind the fold, beside the true ones.
    Fidelity,
}

/// How to get what is missing.
const NO_VMAGENT: &str = "there is no vmagent; `cargo xtask vmagent` builds it with Go (docs/building.md)";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let out = arguments.out.clone().unwrap_or_else(|| project().join("target/phoenix/bench"));
    let is_wanted = |name| arguments.name.is_none_or(|wanted| wanted == name);
    if is_wanted(Name::Containment) {
        timing::containment(&arguments, &out)?;
    }
    if is_wanted(Name::Control) {
        control::run(&arguments, &out)?;
    }
    if is_wanted(Name::Engine) {
        timing::engine(&arguments, &out)?;
    }
    if is_wanted(Name::Envoy) {
        timing::envoy(&arguments, &out)?;
    }
    if is_wanted(Name::Rival) {
        // It is built with Go, where there is one: whoever wants everything else should not do without.
        match std::env::var_os("PHOENIX_VMAGENT").filter(|value| !value.is_empty()) {
            None => println!("\nrival is skipped: {NO_VMAGENT}"),
            Some(_) => timing::rival(&arguments, &out)?,
        }
    }
    if is_wanted(Name::Sketch) {
        sketch(&arguments, &out)?;
    }
    if is_wanted(Name::Fidelity) {
        // It takes its time to build: whoever wants everything else should not wait for it.
        if arguments.name.is_none() && std::env::var_os("PHOENIX_PROMETHEUS").is_none() {
            println!("\nfidelity is left out: {}", fidelity::NO_PROMETHEUS);
            return Ok(());
        }
        judge(&out)?;
    }
    Ok(())
}

fn judge(out: &Path) -> Result<()> {
    println!(
        "\nfidelity: forty minutes of traffic through real Envoy into real Prometheus, then four restarts: two minutes\n"
    );
    let outcome = fidelity::run()?;
    println!("{}\n{}\n", outcome.table.drawn(), Table::LEGEND);
    for note in outcome.table.notes() {
        println!("{note}");
    }
    println!("{}", outcome.figures.write(out, "fidelity")?.display());
    let broken = outcome.table.broken();
    if !broken.is_empty() {
        bail!("{} figures do not hold:\n{}", broken.len(), broken.join("\n"));
    }
    Ok(())
}

#[cfg(feature = "sketch")]
fn sketch(arguments: &Arguments, out: &Path) -> Result<()> {
    use phoenix_benches::sketch::{Options, run};
    let options = if arguments.quick { Options::quick() } else { Options::full() };
    println!("\nsketch: errors over {} seeds; CPU time in ns a call\n", options.seeds);
    let outcome = run(&options);
    println!("{}\n\n{}\n\n{}", outcome.errors, outcome.costs, outcome.figures.table());
    println!("{}", outcome.figures.write(out, "sketch")?.display());
    Ok(())
}

#[cfg(not(feature = "sketch"))]
fn sketch(_: &Arguments, _: &Path) -> Result<()> {
    bail!("built without the feature `sketch`")
}

#[cfg(feature = "timing")]
mod timing {
    use super::{Arguments, Embedder, Path, Result};
    use phoenix_benches::containment::scenario::Kind;
    use phoenix_benches::containment::table::{self, Subject};
    use phoenix_benches::{engine, envoy, rival};

    pub fn containment(arguments: &Arguments, out: &Path) -> Result<()> {
        let subjects = Subject::ALL.into_iter().filter(|subject| match arguments.embedder {
            None => true,
            Some(Embedder::Baseline) => subject.is_baseline(),
            Some(Embedder::Native) => *subject == Subject::Native,
            Some(Embedder::Wasmtime) => *subject == Subject::Wasmtime,
        });
        let default = match arguments.name {
            _ if arguments.quick => 10,
            None => 100,
            Some(_) => 1_000,
        };
        let options = table::Options {
            seeds: arguments.seeds.unwrap_or(default),
            first: arguments.seed,
            kinds: arguments.scenario.map_or(Kind::ALL.to_vec(), |kind| vec![kind]),
            shares: arguments.share.map_or(vec![100, 10_000], |share| vec![share]),
            subjects: subjects.collect(),
            has_full: !arguments.quick && !arguments.reduced,
        };
        println!("\ncontainment: budgets while labels explode, seeds from {}\n", options.first);
        let outcome = table::run(&options, |what| eprintln!("  {what}"))?;
        for (share, table) in &outcome.tables {
            println!("share {share}\n{table}\n");
        }
        for line in outcome.missed.iter().take(MISSED_SHOWN) {
            println!("{line}");
        }
        if outcome.missed.len() > MISSED_SHOWN {
            println!("and {} runs more that miss a target", outcome.missed.len() - MISSED_SHOWN);
        }
        println!("{}", outcome.figures.write(out, "containment")?.display());
        let missed = out.join("containment-missed.txt");
        std::fs::write(&missed, outcome.missed.iter().map(|line| format!("{line}\n")).collect::<String>())?;
        println!("{}", missed.display());
        Ok(())
    }

    /// Enough to see a pattern.
    const MISSED_SHOWN: usize = 40;

    pub fn engine(arguments: &Arguments, out: &Path) -> Result<()> {
        let options = match arguments.quick {
            true => engine::Options::quick(),
            false => engine::Options::full(arguments.streams),
        };
        println!(
            "\nengine: CPU time in ns a point, {} streams, {} rounds\n",
            options.streams, options.rounds
        );
        let outcome = engine::run(&options)?;
        println!("{}\n\n{}", outcome.table, outcome.figures.table());
        println!("{}", outcome.figures.write(out, "engine")?.display());
        Ok(())
    }

    pub fn envoy(arguments: &Arguments, out: &Path) -> Result<()> {
        let options = match arguments.quick {
            true => envoy::Options::quick(),
            false => envoy::Options::full(arguments.streams),
        };
        println!("\nenvoy: CPU time of one worker, {} streams, {} rounds\n", options.streams, options.rounds);
        let outcome = envoy::run(&options)?;
        println!("{}\n\n{}\n", outcome.table, outcome.workers);
        let figure = |name: &str| outcome.figures.value(name).unwrap_or(f64::NAN);
        println!(
            "resident memory: {:.1} bytes a stream, {:.0} streams more, {:.1} MB in all\n\n{}",
            figure("memory.envoy.stream"),
            figure("memory.envoy.streams"),
            figure("memory.envoy.after") / 1e6,
            outcome.figures.table()
        );
        println!("{}", outcome.figures.write(out, "envoy")?.display());
        Ok(())
    }

    pub fn rival(arguments: &Arguments, out: &Path) -> Result<()> {
        let options = match arguments.quick {
            true => rival::Options::quick(),
            false => rival::Options::full(arguments.streams),
        };
        let (speed, streams) = (options.speed, options.memory_streams);
        println!(
            "\nrival: CPU time beside vmagent, {} streams, {} rounds; memory of {streams} streams; cases\n",
            speed.streams, speed.rounds
        );
        let outcome = rival::run(&options)?;
        let [speed, memory, cases] = &outcome.tables;
        println!("{speed}\n\n{memory}\n\n{cases}\n");
        outcome.notes.iter().for_each(|note| println!("{note}"));
        println!("\n{}", outcome.figures.table());
        println!("{}", outcome.figures.write(out, "rival")?.display());
        Ok(())
    }
}

#[cfg(not(feature = "timing"))]
mod timing {
    use super::{Arguments, Path, Result, bail};

    pub fn containment(_: &Arguments, _: &Path) -> Result<()> {
        bail!("built without the feature `timing`")
    }

    pub fn engine(_: &Arguments, _: &Path) -> Result<()> {
        bail!("built without the feature `timing`")
    }

    pub fn envoy(_: &Arguments, _: &Path) -> Result<()> {
        bail!("built without the feature `timing`")
    }

    pub fn rival(_: &Arguments, _: &Path) -> Result<()> {
        bail!("built without the feature `timing`")
    }
}

#[cfg(feature = "control")]
mod control {
    use super::{Arguments, Part, Path, Result};
    use phoenix_benches::control::{fleet, served, simulation};
    use phoenix_benches::figures::Figures;
    use phoenix_control::simulate::ALL;

    /// Workers of an embedder. In this order: the peak of memory is that of the process so far.
    const WORKERS: [u64; 2] = [1, 2];
    /// Metrics of the fleet; a tenth of it is quick.
    const METRICS: usize = 1_000;
    /// Embedders of the runs over many seeds, as `phoenix simulate` has them.
    const FEW: usize = 4;
    /// Enough to see a pattern.
    const REFUSALS_SHOWN: usize = 5;
    /// Plans pushed to an Envoy.
    const PUSHES: usize = 20;

    pub fn run(arguments: &Arguments, out: &Path) -> Result<()> {
        let is_wanted = |part| arguments.part.is_none_or(|wanted| wanted == part);
        let (quick, all) = (arguments.quick, arguments.name.is_none());
        let embedders = arguments.embedders.map_or(if quick { 20 } else { 1_000 }, usize::from);
        let metrics = if quick { METRICS / 10 } else { METRICS };
        let seeds = arguments.seeds.unwrap_or(if quick {
            1
        } else if all {
            100
        } else {
            1_000
        });
        let progress = |what: &str| eprintln!("  {what}");
        let mut figures = Figures::default();
        println!("\ncontrol: {embedders} embedders, {metrics} metrics with 10 labels; CPU time in s\n");
        for workers in WORKERS.into_iter().filter(|_| is_wanted(Part::Fleet)) {
            let outcome = fleet::run(embedders, metrics, workers, &mut figures)?;
            println!("{workers} workers each\n{}", outcome.table);
            outcome.refusals.iter().for_each(|refusal| println!("{refusal}"));
        }
        if is_wanted(Part::Served) {
            let options = served::Options { embedders, metrics, pushes: if quick { 2 } else { PUSHES } };
            let refusals = tokio::runtime::Runtime::new()?.block_on(served::run(options, &mut figures))?;
            refusals.iter().take(REFUSALS_SHOWN).for_each(|refusal| println!("{refusal}"));
        }
        let first = arguments.seed;
        let mut failures = Vec::new();
        for (part, name, seeds, embedders) in
            [(Part::Seeds, "seeds", seeds, FEW), (Part::Large, "large", 1, embedders)]
        {
            if is_wanted(part) {
                let of = first..first.saturating_add(seeds);
                let outcome = simulation::run(name, &ALL, of, embedders, &mut figures, progress)?;
                println!("\n{seeds} seeds, {embedders} embedders\n{}", outcome.table);
                failures.extend(outcome.failures);
            }
        }
        failures.iter().for_each(|failure| println!("{failure}"));
        println!("\n{}", figures.table());
        println!("{}", figures.write(out, "control")?.display());
        Ok(())
    }
}

#[cfg(not(feature = "control"))]
mod control {
    use super::{Arguments, Path, Result, bail};

    pub fn run(_: &Arguments, _: &Path) -> Result<()> {
        bail!("built without the feature `control`")
    }
}
