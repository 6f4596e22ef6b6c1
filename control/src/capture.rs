//! `phoenix capture`: an OTLP endpoint that keeps what it gets, for `phoenix replay`.
//!
//! Enters: OTLP metrics over HTTP/1.1, HTTP/2 and gRPC on one port. Leaves: a folder with a file a request (inflated, without frames) and its arrival beside it; an
//! answer to each sender: success, or what the backend behind `--forward` said. Bounded in bytes, and on request in seconds and requests; ends by
//! itself or on Ctrl-C and says what it recorded. What is answered well is on the disk before. Refused, each with an answer that says why: other
//! paths, JSON, encodings other than gzip, bodies over 64 MiB, gRPC bodies with anything but one message.

// What a person asks for.
mod arguments;
// The port: connections, and when to stop.
mod serve;
// One request: what it holds, and its answer.
mod request;
// The folder, bounded.
mod store;
// The backend behind.
mod forward;

pub use arguments::Arguments;
pub use serve::signal;

use crate::show::{bytes, counted};
use anyhow::{Context, Result};
use std::process::ExitCode;
use store::{Ended, Store};

/// Runs the command. Exit status 0, unless nothing could be listened to or written.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let store = Store::open(arguments)?;
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    let (shared, ended) = runtime.block_on(serve::run(arguments, store))?;
    say_on!("{}", said(&shared.store(), ended, arguments));
    Ok(if ended == Ended::Broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What was recorded, in a few lines.
fn said(store: &Store, ended: Ended, arguments: &Arguments) -> String {
    let counts = &store.counts;
    let span = match store.range() {
        Some((first, last)) => format!(", {first} to {last}"),
        None => String::new(),
    };
    let mut text = format!(
        "recorded {} of {} in {}{span}: ended by {}\n",
        counted(counts.recorded, "request"),
        bytes(counts.bytes),
        arguments.out.display(),
        ended.words(),
    );
    let mut kinds = Vec::new();
    for (number, name) in [(counts.http, "HTTP"), (counts.grpc, "gRPC"), (counts.gzip, "gzip")] {
        if number > 0 {
            kinds.push(format!("{name} {}", crate::show::count(number)));
        }
    }
    if !kinds.is_empty() {
        text += &format!("{}\n", kinds.join(", "));
    }
    if counts.unreadable > 0 {
        let which = if arguments.forward.is_some() { "" } else { ", and answered 400" };
        text += &format!("{} no OTLP: recorded as they came{which}\n", counted(counts.unreadable, "body"));
    }
    for (reason, number) in &counts.refused {
        text += &format!("not recorded: {}: {reason}\n", counted(*number, "request"));
    }
    if counts.recorded > 0 {
        text +=
            &format!("replay them: phoenix replay --plan PLAN --in {} --out DIR\n", arguments.out.display());
    }
    text
}
