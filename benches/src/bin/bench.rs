//! `cargo xtask bench [NAME]`: ratios measured in one run.
//!
//! In: which bench, how long. Out: a table on the terminal and `target/phoenix/bench/NAME.json`. Exit status 1 only when a
//! bench could not run: on a shared machine a missed target is news and no failure.

use anyhow::Result;
use clap::{Parser, ValueEnum};
use phoenix_benches::{engine, envoy};
use phoenix_host_test::envoy::config::project;
use std::path::PathBuf;

/// Ratios measured in one run.
#[derive(Parser)]
struct Arguments {
    /// Which bench; all when left out.
    #[arg(value_enum)]
    name: Option<Name>,
    /// A few seconds, only to see that everything runs. The numbers say nothing.
    #[arg(long)]
    quick: bool,
    /// Streams of the traffic.
    #[arg(long, default_value_t = 100_000)]
    streams: usize,
    /// Folder of the JSON files; target/phoenix/bench when left out.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The engine natively and in wasmtime, beside prost.
    Engine,
    /// Real Envoy with and without the module.
    Envoy,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let out = arguments.out.clone().unwrap_or_else(|| project().join("target/phoenix/bench"));
    let is_wanted = |name| arguments.name.is_none_or(|wanted| wanted == name);
    if is_wanted(Name::Engine) {
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
        println!("{}", outcome.figures.write(&out, "engine")?.display());
    }
    if is_wanted(Name::Envoy) {
        let options = match arguments.quick {
            true => envoy::Options::quick(),
            false => envoy::Options::full(arguments.streams),
        };
        println!("\nenvoy: CPU time of one worker, {} streams, {} rounds\n", options.streams, options.rounds);
        let outcome = envoy::run(&options)?;
        println!("{}\n\n{}", outcome.table, outcome.figures.table());
        println!("{}", outcome.figures.write(&out, "envoy")?.display());
    }
    Ok(())
}
