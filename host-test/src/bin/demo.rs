//! `phoenix-demo`: the web shop through a real Envoy into an exact sink. Exit status 0: everything holds; 1: the verdict fails; 2: it
//! could not run.

use clap::Parser;
use phoenix_host_test::demo::{Options, stage};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return could_not_run(&error.into()),
    };
    match runtime.block_on(stage::run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => could_not_run(&error),
    }
}

fn could_not_run(error: &anyhow::Error) -> ExitCode {
    eprintln!("phoenix-demo: {error:#}");
    ExitCode::from(2)
}
