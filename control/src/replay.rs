//! `phoenix replay`: what would a plan have done to this traffic?
//!
//! Enters: a plan, a folder of request bodies. Leaves: a folder with the body that would have gone on for each request, every emission, and `ledger.json`; a table;
//! and the exit status: 0 if every total is conserved. The engine is the one that runs in Envoy, in one instance and without Envoy; time is taken
//! from the requests, so that a day replays in seconds and the same input gives the same bytes. Each request is settled as accepted at once, and so is
//! each emission. Refused: a plan that the engine refuses, a folder without requests, an arrival time that is none, an output folder that holds
//! something. A body that cannot be read is no refusal: it passes as it came, as it would in Envoy, and is listed.

// What a person asks for.
mod arguments;
// One file to a message and its arrival.
mod input;
// The engine under a clock made of arrivals.
mod engine;
// Everything that is known at the end, as JSON.
mod ledger;
// The same for people.
mod summary;

pub use arguments::Arguments;

use crate::otlp::census::Census;
use crate::{folder, show};
use anyhow::{Result, bail};
use engine::{Engine, Out};
use std::process::ExitCode;

/// The name of the books in the output folder.
const LEDGER: &str = "ledger.json";

/// Runs the command. Exit status 0: conserved; 1: not.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let plan = crate::plan_commands::load(&arguments.plan)?;
    let requests = folder::requests(&arguments.input)?;
    if requests.is_empty() {
        bail!("--in {}: no request; expected files such as 0001.otlp", arguments.input.display());
    }
    arguments.check_folders()?;
    folder::prepare(&arguments.out, arguments.force, |name| name == LEDGER || folder::is_ours(name))?;

    let bar = show::bar(requests.len() as u64, "requests");
    let mut clock = input::Clock::default();
    let mut census = Census::default();
    let mut running: Option<Engine> = None;
    for request in &requests {
        let input = clock.read(request)?;
        let mut engine = match running.take() {
            Some(engine) => engine,
            None => Engine::start(&plan, arguments, input.arrived, Out::new(&arguments.out))?,
        };
        engine.advance_to(input.arrived)?;
        engine.request(request, &input)?;
        if let Some(message) = &input.message {
            census.add(message);
        }
        running = Some(engine);
        bar.inc(1);
    }
    let Some(mut engine) = running else { bail!("no request") };
    engine.drain(&plan)?;
    bar.finish_and_clear();

    let ledger = ledger::Ledger::of(&plan, arguments, &clock, &census, &engine);
    folder::write(&arguments.out, LEDGER, ledger.json()?.as_bytes())?;
    say_on!("{}", summary::render(&ledger, arguments));
    Ok(if ledger.is_conserved() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
