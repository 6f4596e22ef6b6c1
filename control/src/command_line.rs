//! The command line `phoenix`.
//!
//! Enters: arguments. Leaves: text on standard output, errors on standard error, and the exit status: 0 if all went well, 1 if a plan
//! was refused, something could not be read, answers differ or a total is not conserved, 2 for wrong arguments or when there was nothing to compare.

use crate::{
    capture, explain, generate, plan_commands, policy_commands, replay, report, simulate, top, verify,
};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Phoenix folds away the labels that nobody queries, with every total intact.
#[derive(Parser)]
#[command(name = "phoenix", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plans: what the module enforces.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Policies: what people want.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Does a dashboard read the same on folded data? Exit status 0: yes, up to the threshold; 1: no; 2: nothing could be compared.
    Verify(Box<verify::Arguments>),
    /// What would a plan have done to this traffic? Captured requests through the engine, without Envoy. Exit status 0: every total is conserved.
    Replay(Box<replay::Arguments>),
    /// Record OTLP traffic, for replay: an endpoint for a mirror, a hop before the backend, or an end.
    Capture(Box<capture::Arguments>),
    /// Make OTLP load whose truth is known: an open loop over HTTP or gRPC, or files for replay.
    Generate(Box<generate::Arguments>),
    /// Which metrics send too much, why, and what was done about it: reports of embedders as tables.
    Report(Box<report::Arguments>),
    /// The whole loop in virtual time: does it keep budgets, and does it keep still? Exit status 0: every property held.
    Simulate(simulate::Arguments),
    /// The same, live: an endpoint for reports, and a screen.
    Top(Box<top::Arguments>),
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Check policies, and say of each part without effect why it has none; exit status 1 if one is refused.
    Check {
        /// Files with a policy each.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Reports of embedders, to know what is sent: then what matches nothing is said, too.
        #[arg(long, value_name = "FILE", num_args = 1..)]
        reports: Vec<PathBuf>,
    },
    /// Print the JSON Schema of a policy.
    Schema,
}

#[derive(Subcommand)]
enum PlanCommand {
    /// Check plans, bare or wrapped as {"plan": …, "envoy": …}; exit status 1 if one is refused.
    Check {
        /// Files with a plan each; - is standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of a plan.
    Schema,
    /// Print a fresh hash key from the system's entropy.
    NewKey,
    /// Say which rule decides about a point, which labels stay, and what the mark says.
    Explain {
        /// File with a plan; - is standard input.
        file: PathBuf,
        /// Name of the metric.
        metric: String,
        /// Tenant of the request; left out, the one of requests that name none.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// Resource attribute of the point as key=value; may be repeated.
        #[arg(long = "resource", value_name = "KEY=VALUE", value_parser = explain::pair)]
        resource: Vec<(String, String)>,
        /// Attribute of the point as key=value; may be repeated.
        #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = explain::pair)]
        attributes: Vec<(String, String)>,
    },
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Verify(arguments) => {
            return verify::run(&arguments).unwrap_or_else(|error| {
                eprintln!("{error:#}");
                ExitCode::from(2)
            });
        }
        Command::Replay(arguments) => return reported(replay::run(&arguments)),
        Command::Capture(arguments) => return reported(capture::run(&arguments)),
        Command::Generate(arguments) => return reported(generate::run(&arguments)),
        Command::Report(arguments) => return reported(report::run(&arguments)),
        Command::Simulate(arguments) => return reported(simulate::command(&arguments)),
        Command::Top(arguments) => return reported(top::run(&arguments)),
        Command::Policy(PolicyCommand::Check { files, reports }) => policy_commands::check(&files, &reports),
        Command::Policy(PolicyCommand::Schema) => policy_commands::schema(),
        Command::Plan(PlanCommand::Check { files }) => plan_commands::check(&files),
        Command::Plan(PlanCommand::Schema) => plan_commands::schema(),
        Command::Plan(PlanCommand::NewKey) => plan_commands::new_key(),
        Command::Plan(PlanCommand::Explain { file, metric, tenant, resource, attributes }) => {
            plan_commands::load(&file).map(|plan| {
                let tenant = tenant.unwrap_or_else(|| plan.tenant.default.clone());
                explain::print(&plan, &tenant, &metric, &resource, &attributes);
            })
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The exit status of a command, or its error in words.
fn reported(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}
