//! The control host and the command line `phoenix`, as a library, so that tests and benches reach its stages.

mod capture;
mod command_line;
mod explain;
mod folder;
mod generate;
mod notes;
mod otlp;
mod plan_commands;
mod replay;
mod report;
mod show;
mod top;
mod verify;

pub use command_line::run;
