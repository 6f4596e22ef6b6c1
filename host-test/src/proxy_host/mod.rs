//! A deterministic test host for proxy-wasm modules with Envoy's semantics.
//!
//! Enters: the built `.wasm`, and a script of pushes, requests, answers and time. Leaves: what upstreams and clients
//! see, calls out, metrics, log. The host knows the ABI 0.2.1 and how Envoy calls it, and nothing of Phoenix.
//! Why not Envoy itself: no ports, no threads, no real time, so that a test may place a push between two chunks,
//! cancel a call, or try a thousand interleavings a second, and a failure repeats. What only real Envoy can prove is
//! listed in `docs/test-host.md`.
//! Refuses: modules with imports the host lacks; every trap is an error that carries the log.

mod calls;
mod clock;
mod headers;
mod imports;
mod look;
mod module;
mod process;
mod shared;
mod stream;
mod vm;

use std::fmt;
use std::path::PathBuf;

pub use calls::{Call, CallId, CallState, Cluster, Message, Outcome};
pub use clock::START_NANOS;
pub use headers::Headers;
pub use module::{Module, module_path};
pub use process::{Delivery, Failure, Options, Process, Push, StreamId};
pub use shared::{MetricKind, QueueReady, Status};
pub use stream::End;

/// How many log lines an error quotes.
const LOG_LINES_QUOTED: usize = 12;

/// Names a VM of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VmId {
    /// The throw-away VM that a push is tried in, on the main thread.
    Canary,
    /// The main thread's VM: it is configured and ticks, and never sees a stream.
    Main,
    /// A worker's VM.
    Worker(usize),
}

impl VmId {
    /// The VM that callbacks for this VM's thread reach: a canary is on the main thread, and is gone by then.
    pub(crate) fn thread(self) -> Self {
        if self == Self::Canary { Self::Main } else { self }
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Canary => write!(out, "canary"),
            Self::Main => write!(out, "main"),
            Self::Worker(index) => write!(out, "worker {index}"),
        }
    }
}

/// The level of a log line, as the ABI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// 0
    Trace,
    /// 1
    Debug,
    /// 2
    Info,
    /// 3
    Warn,
    /// 4
    Error,
    /// 5
    Critical,
}

impl LogLevel {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        let levels = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Critical];
        levels.get(number as usize).copied()
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Who said it.
    pub vm: VmId,
    /// How loud.
    pub level: LogLevel,
    /// What.
    pub text: String,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The module file is missing.
    NotBuilt(PathBuf),
    /// The module does not compile, or is not a proxy-wasm module.
    Module(String),
    /// The module imports what neither this host nor Envoy has.
    MissingImports(Vec<String>),
    /// A callback trapped or burnt its fuel; the VM has failed.
    Trap {
        /// The VM.
        vm: VmId,
        /// The export that ran.
        callback: &'static str,
        /// What happened, and the last lines of the log.
        text: String,
    },
    /// The first configuration was refused; the last lines of the log.
    Refused {
        /// The VM that refused.
        vm: VmId,
        /// The last lines of the log.
        text: String,
    },
    /// The test asked for what cannot happen.
    Misuse(String),
}

impl HostError {
    pub(crate) fn trap(vm: VmId, callback: &'static str, text: String, log: &[LogLine]) -> Self {
        Self::Trap { vm, callback, text: text + &quote(log) }
    }

    pub(crate) fn refused(vm: VmId, log: &[LogLine]) -> Self {
        Self::Refused { vm, text: quote(log) }
    }
}

fn quote(log: &[LogLine]) -> String {
    let last = log.get(log.len().saturating_sub(LOG_LINES_QUOTED)..).unwrap_or_default();
    last.iter().map(|line| format!("\n  {} {:?}: {}", line.vm, line.level, line.text)).collect()
}

impl fmt::Display for HostError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt(path) => write!(out, "{} is missing: run `cargo xtask build`", path.display()),
            Self::Module(text) => write!(out, "the module cannot be loaded: {text}"),
            Self::MissingImports(names) => write!(out, "the host lacks these imports: {}", names.join(", ")),
            Self::Trap { vm, callback, text } => write!(out, "{callback} trapped in {vm}: {text}"),
            Self::Refused { vm, text } => write!(out, "{vm} refused the configuration{text}"),
            Self::Misuse(text) => write!(out, "the test asks for what cannot happen: {text}"),
        }
    }
}

impl std::error::Error for HostError {}
