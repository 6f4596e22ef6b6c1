//! What a person asks for: the arguments of `phoenix replay`.
//!
//! Enters: the command line. Leaves: checked values. Refused: reading from the folder that is written to.

use anyhow::{Result, bail};
use std::path::PathBuf;
use std::time::Duration;

/// Puts captured requests through the engine, under a plan.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// The plan, bare or wrapped as {"plan": …, "envoy": …}; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub plan: PathBuf,
    /// Folder of requests: NNNN.otlp, and NNNN.time beside it where the arrival is known.
    #[arg(long = "in", value_name = "DIR")]
    pub input: PathBuf,
    /// Folder to write to; new, or empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Write to a folder that holds an earlier replay: its files are removed first, others stay.
    #[arg(long)]
    pub force: bool,
    /// Whose the requests are. Left out: the default tenant of the plan.
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Who writes folded series, when the plan does not say.
    #[arg(long, value_name = "NAME", default_value = "replay")]
    pub writer: String,
    /// How long before the first request the engine began to watch. Streams that started since then count from zero; of older ones the
    /// first point is a baseline, as after a start of Envoy.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::show::duration)]
    pub began_before: Duration,
}

const HELP: &str = "\
Each NNNN.otlp is one ExportMetricsServiceRequest in protobuf, plain or gzip (which is detected), without gRPC frames. NNNN.time holds its arrival in
Unix nanoseconds as text; without that file a request arrives at the newest timestamp in it, and never before the one in front of it.

Written are NNNN.otlp, the body that would have been forwarded (empty when nothing of it was left), NNNN.emit-K.otlp, the K-th emission after request NNNN
and before the next one, and ledger.json, the books. After the last request time goes on until nothing is open.

Exit status 0: all totals are conserved. 1: not, or the plan or the requests could not be read. docs/replay.md explains the rest.";

impl Arguments {
    /// The output must not be the input.
    pub fn check_folders(&self) -> Result<()> {
        let same = match (self.input.canonicalize(), self.out.canonicalize()) {
            (Ok(input), Ok(out)) => input == out,
            // A folder that is not there yet is not the one that is read.
            _ => false,
        };
        if same {
            bail!("--out {}: it is the folder of --in; allowed: another folder", self.out.display());
        }
        Ok(())
    }
}
