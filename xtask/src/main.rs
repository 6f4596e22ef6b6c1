//! `cargo xtask`: one entry point for a person and for CI.
//!
//! In: a verb and its arguments. Out: what the verb makes or checks, one line for each thing being done, an exit status.
//! Why a program and not a script: it runs wherever the project builds, and it is tested like the rest.
//! Refuses: verbs and arguments that it does not know, with the list of those it does.

// In the order in which a checkout needs them.
/// Everything that CI checks.
mod checks;
/// The Envoy to run them in.
mod envoy;
/// Fuzz targets, in short and long runs.
mod fuzz;
/// The modules, built and checked.
mod modules;
/// Where things are, and how a command runs there.
mod place;
/// Programs of the project: the demo and the benches.
mod programs;
/// The Prometheus to ask.
mod prometheus;
/// The crates that the engine may and may not depend on.
mod purity;
/// Cargo subcommands that are not part of cargo.
mod tools;
/// The vmagent to measure beside.
mod vmagent;
/// What a module asks of its host.
mod wasm_imports;
/// The compiler for the modules.
mod wasm_toolchain;

use anyhow::{Result, bail};
use place::Place;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask VERB

  build                          the modules, into target/phoenix/
  demo [ARGS]                    a synthetic web shop through real Envoy; a table of totals in and out
  test [STEP…]                   everything that CI checks, or the named steps
  test --list                    the names of the steps
  bench [NAME]                   ratios measured in one run, into target/phoenix/bench/
  fmt                            formats every crate
  fuzz [TARGET] [--seconds N]    one fuzz target, or all of them (60 s each by default)
  envoy                          the path of the Envoy that the other verbs use
  prometheus                     the path of Prometheus 3, built with Go where there is none
  vmagent                        the path of vmagent for `bench rival`, built with Go where there is none
  help                           this text

Environment: PHOENIX_CACHE, PHOENIX_ENVOY, PHOENIX_ENVOY_VERSION, PHOENIX_PROMETHEUS, PHOENIX_VMAGENT, PHOENIX_WASM_TOOLCHAIN;
see docs/building.md.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<ExitCode> {
    let (verb, rest) = match words.split_first() {
        Some((verb, rest)) => (verb.as_str(), rest),
        None => ("help", words),
    };
    if matches!(verb, "help" | "--help" | "-h") {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let place = Place::find()?;
    match verb {
        "build" => none(rest).and_then(|()| modules::build(&place))?,
        "demo" => return programs::demo(&place, rest),
        "test" => return checks::run(&place, rest),
        "bench" => return programs::bench(&place, rest),
        "fmt" => none(rest).and_then(|()| checks::format(&place, false))?,
        "fuzz" => drop(fuzz::run(&place, &fuzz::Wish::parse(rest)?)?),
        "envoy" => {
            none(rest)?;
            println!("{}", envoy::find(&place)?.display());
        }
        "prometheus" => {
            none(rest)?;
            println!("{}", prometheus::find(&place)?.display());
        }
        "vmagent" => {
            none(rest)?;
            println!("{}", vmagent::find(&place)?.display());
        }
        other => bail!("unknown verb {other}\n\n{HELP}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn none(rest: &[String]) -> Result<()> {
    match rest.first() {
        Some(word) => bail!("unknown argument {word}"),
        None => Ok(()),
    }
}
