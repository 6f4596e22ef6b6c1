//! The command line `phoenix`.
//!
//! Enters: arguments. Leaves: text on standard output, errors on standard error, and the exit status: 0 if all went well, 1 if a plan
//! was refused, something could not be read, answers differ or a total is not conserved, 2 for wrong arguments or when there was nothing to compare.

use crate::{
    ask, capture, control, explain, generate, plan_commands, policy_commands, replay, report, simulate, top,
    verify,
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
    /// The control host: reports in, decisions, plans out. Runs until it is told to stop.
    Control(Box<control::Arguments>),
    /// How is the control host, what do its embedders have, what waits for approval?
    Status(ask::Arguments),
    /// What was decided, newest first, each with a sentence.
    Decisions {
        #[command(flatten)]
        ask: ask::Arguments,
        /// So many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Why is a metric treated as it is: its labels, and what was decided.
    Explain {
        #[command(flatten)]
        ask: ask::Arguments,
        /// Name of the metric.
        metric: String,
    },
    /// Let a decision that waits for approval be carried out.
    Approve {
        #[command(flatten)]
        ask: ask::Arguments,
        /// Its id, from `phoenix status`.
        id: String,
    },
    /// Budgets as an account: what comes in, what goes out, what that saves, how much room is left.
    Budget {
        #[command(flatten)]
        ask: ask::Arguments,
        /// One tenant; all of them when left out.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
    },
    /// A copy of the control host's state while it runs, into a new file.
    Backup {
        #[command(flatten)]
        ask: ask::Arguments,
        /// The file.
        out: PathBuf,
    },
    /// The audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Make certificates for development: an authority, the control host's, embedders', people's. Its key is not kept: a set is made as a whole.
    Certs {
        /// Folder, made if there is none.
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
        /// A name or address under which the control host is reached; localhost and 127.0.0.1 when left out.
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// An embedder, by the name that access gives a role.
        #[arg(long = "embedder", value_name = "NAME")]
        embedders: Vec<String>,
        /// A person, likewise.
        #[arg(long = "person", value_name = "NAME")]
        people: Vec<String>,
        /// Days that they are good for.
        #[arg(long, default_value_t = phoenix_serve::certs::DAYS)]
        days: u32,
    },
    /// Completions for a shell, to standard output.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
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
enum AuditCommand {
    /// Is every line what it was? Exit status 0: yes; 1: no, with the first line that does not fit.
    Verify {
        /// The log: the state's file with .audit.jsonl behind it.
        file: PathBuf,
        /// A hash that was noted elsewhere and must be in it: without it lines cut off at the end are not found.
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
}

#[derive(Subcommand)]
enum PlanCommand {
    /// The plan of an embedder, from a control host; with its key, so for an admin.
    Show {
        #[command(flatten)]
        ask: ask::Arguments,
        /// Id of the node; left out, the plan of those who are not known.
        #[arg(default_value = "")]
        node: String,
    },
    /// What the plan that waits, or that is in force, changes to the one before: rules and shares.
    Diff {
        #[command(flatten)]
        ask: ask::Arguments,
        /// Id of a node; all of them when left out.
        node: Option<String>,
        /// What is compared; left out: what waits, if something does.
        #[arg(long, value_name = "WHAT", value_parser = ["waiting", "in_force"])]
        of: Option<String>,
    },
    /// Let a decision that waits for approval be carried out.
    Approve {
        #[command(flatten)]
        ask: ask::Arguments,
        /// Its id, from `phoenix status`.
        id: String,
    },
    /// Take folds back, by the same seamless switches, and decide nothing by itself for a while.
    Rollback {
        #[command(flatten)]
        ask: ask::Arguments,
        /// Folds as they were in the plans of this version; left out: before the newest change.
        #[arg(long, value_name = "VERSION")]
        to: Option<u64>,
        /// How long to hold it; 12h when left out.
        #[arg(long = "for", value_name = "DURATION", value_parser = seconds)]
        hold: Option<u64>,
        /// Also where more series come back than the budgets have: nothing bounds them until plan.stream_expiry after the switch.
        #[arg(long)]
        force: bool,
    },
    /// End what a rollback holds: the loop decides again.
    Release(ask::Arguments),
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

/// `12h` as seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let duration: phoenix_plan::DurationMs =
        serde_json::from_value(text.into()).map_err(|why| why.to_string())?;
    Ok(duration.0 / 1_000)
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
        Command::Control(arguments) => return reported(control::run(&arguments)),
        Command::Status(ask) => return reported(ask::status(&ask)),
        Command::Decisions { ask, limit } => return reported(ask::decisions(&ask, limit)),
        Command::Explain { ask, metric } => return reported(ask::explain(&ask, &metric)),
        Command::Approve { ask, id } => return reported(ask::approve(&ask, &id)),
        Command::Budget { ask, tenant } => return reported(ask::budget(&ask, tenant.as_deref())),
        Command::Backup { ask, out } => return reported(ask::backup(&ask, &out)),
        Command::Plan(PlanCommand::Show { ask, node }) => return reported(ask::plan(&ask, &node)),
        Command::Plan(PlanCommand::Diff { ask, node, of }) => {
            return reported(ask::diff(&ask, node.as_deref(), of.as_deref()));
        }
        Command::Plan(PlanCommand::Approve { ask, id }) => return reported(ask::approve(&ask, &id)),
        Command::Plan(PlanCommand::Rollback { ask, to, hold, force }) => {
            return reported(ask::roll_back(&ask, to, hold, force));
        }
        Command::Plan(PlanCommand::Release(ask)) => return reported(ask::release(&ask)),
        Command::Audit(AuditCommand::Verify { file, head }) => {
            phoenix_serve::audit::verify(&file, head.as_deref()).map(|head| {
                say!("{}: {} lines, whole; the last has {}", file.display(), head.lines, head.hash)
            })
        }
        Command::Certs { out, hosts, embedders, people, days } => {
            let mut wish = phoenix_serve::certs::Wish { embedders, people, days, ..Default::default() };
            if !hosts.is_empty() {
                wish.hosts = hosts;
            }
            phoenix_serve::certs::make(&out, &wish)
                .map(|made| made.iter().for_each(|path| say!("{}", path.display())))
        }
        Command::Completions { shell } => {
            let mut command = <Arguments as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "phoenix", &mut std::io::stdout());
            Ok(())
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
