//! What a person asks for: the arguments of `phoenix capture`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// An OTLP endpoint that records what it gets, for `phoenix replay`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// Where to listen: HTTP/1.1, HTTP/2 and gRPC on one port; port 0 is any that is free.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4318")]
    pub listen: SocketAddr,
    /// Folder to write to; new, or empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Add to a folder that holds requests, behind the last one.
    #[arg(long)]
    pub append: bool,
    /// Send every request on to this backend as it came, and relay its answer, such as http://127.0.0.1:4317.
    #[arg(long, value_name = "URL", value_parser = super::forward::url)]
    pub forward: Option<http::Uri>,
    /// End after so many seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub seconds: Option<u64>,
    /// End after so many requests.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// End before the bodies in the folder are more than this together.
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = crate::show::size)]
    pub bytes_max: u64,
}

const HELP: &str = "\
Three ways to put it where traffic is:
  a mirror    Envoy copies what passes and ignores the answers: envoy/mirror.yaml, docs/replay.md
  a hop       senders, then phoenix capture --forward URL, then the backend: it ends with the capture
  an end      senders alone: everything is answered with success, and goes nowhere else

Recorded are NNNN.otlp, an ExportMetricsServiceRequest in protobuf without gzip and frames, and NNNN.time, its arrival in Unix nanoseconds.";

impl Arguments {
    /// How long it may take.
    pub fn length(&self) -> Option<Duration> {
        self.seconds.map(Duration::from_secs)
    }
}
