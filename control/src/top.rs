//! `phoenix top`: reports of embedders, live.
//!
//! Enters: reports over HTTP, on a loopback address only, since they name tenants, labels and values and nothing asks the sender who it is. Leaves: in a terminal a
//! screen that is drawn every second and listens to keys; elsewhere, or with `--once`, the same as plain text. Nothing is kept: whoever starts it again
//! sees what comes from then on.

// What a person asks for.
mod arguments;
// Keys: what is shown, in which order.
mod screen;
// The screen, drawn.
mod draw;
// Who was heard of, and when.
mod heard;
// The port.
mod serve;
// The terminal.
mod terminal;
#[cfg(test)]
mod tests;

pub use arguments::Arguments;

use crate::report::choice::Choice;
use crate::report::tables;
use anyhow::{Context, Result};
use heard::{Heard, Snapshot};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the port and the screen share.
pub type Shared = Arc<Mutex<Heard>>;

/// How long connections may take to end.
const FAREWELL: Duration = Duration::from_millis(200);

/// Runs the command. Exit status 0, unless nothing could be listened to.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let heard: Shared = Arc::new(Mutex::new(Heard::new(arguments.interval)));
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    let address = runtime.block_on(serve::start(arguments.listen, heard.clone()))?;
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let outcome = if arguments.once || !is_terminal {
        say!("listening on {address} (POST {})", serve::PATH);
        runtime.block_on(plain(arguments, &heard))
    } else {
        terminal::run(&heard, address, arguments.choice())
    };
    runtime.shutdown_timeout(FAREWELL);
    outcome.map(|()| ExitCode::SUCCESS)
}

/// What is known now.
pub fn snapshot(heard: &Shared) -> Arc<Snapshot> {
    heard.lock().unwrap_or_else(PoisonError::into_inner).snapshot(Instant::now())
}

/// A table every interval, until somebody ends it.
async fn plain(arguments: &Arguments, heard: &Shared) -> Result<()> {
    let mut interrupted = std::pin::pin!(crate::capture::signal());
    loop {
        tokio::select! {
            () = &mut interrupted => return Ok(()),
            () = tokio::time::sleep(arguments.interval) => {}
        }
        let text = page(&snapshot(heard), &arguments.choice(), crate::report::now_unix_nano());
        let mut out = std::io::stdout();
        // A reader that has gone, as `head` does, ends it.
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() || arguments.once {
            return Ok(());
        }
    }
}

/// One table with its header, as text.
fn page(snapshot: &Snapshot, choice: &Choice, now_unix_nano: u64) -> String {
    let mut text = format!("{}\n", snapshot.header(now_unix_nano));
    for line in snapshot.remarks() {
        text += &format!("{line}\n");
    }
    if snapshot.view.tenants.is_empty() {
        return text;
    }
    text + &tables::metrics(&choice.rows(&snapshot.view))
}
