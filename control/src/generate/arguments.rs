//! What a person asks for: the arguments of `phoenix generate`.
//!
//! Enters: the command line. Leaves: checked values in plain units.

use super::client::Protocol;
use super::send::Pace;
use phoenix_plan::DurationMs;
use std::path::PathBuf;
use std::time::Duration;

/// Ready-made scenarios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// One counter of one service: 5 pods, 100 streams, every 5 s.
    #[default]
    Simple,
    /// A shop of seven services: all types, deploy waves, churn, restarts, a label that runs away.
    Complex,
}

impl Preset {
    /// The scenario as it is written.
    pub fn text(self) -> &'static str {
        match self {
            Preset::Simple => include_str!("presets/simple.yaml"),
            Preset::Complex => include_str!("presets/complex.yaml"),
        }
    }

    /// For errors.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Simple => "preset simple",
            Preset::Complex => "preset complex",
        }
    }
}

/// Makes OTLP load whose truth is known, on a schedule.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HELP)]
#[command(group = clap::ArgGroup::new("how_often").multiple(false))]
pub struct Arguments {
    /// A ready-made scenario; without this and --scenario: simple.
    #[arg(long, value_enum, conflicts_with = "scenario", help_heading = SCENARIO)]
    pub preset: Option<Preset>,
    /// A scenario in YAML; docs/generate.md has its fields, --print a beginning.
    #[arg(long, value_name = "FILE", help_heading = SCENARIO)]
    pub scenario: Option<PathBuf>,
    /// Print the preset's scenario, to begin a file of your own with, and end.
    #[arg(long, conflicts_with = "scenario", help_heading = SCENARIO)]
    pub print: bool,

    /// Seed of everything random: the same scenario and seed make the same content.
    #[arg(long, value_name = "N", help_heading = FLAGS)]
    pub seed: Option<u64>,
    /// Streams at the beginning, over all pods and metrics.
    #[arg(long, value_name = "N", help_heading = FLAGS)]
    pub streams: Option<u64>,
    /// Pods of all services together, dealt in proportion; at least one each.
    #[arg(long, value_name = "N", help_heading = FLAGS, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pods: Option<u32>,
    /// Metrics by type and weight in place of the scenario's, such as sum=5,gauge=2,histogram=1. Types: sum, sum_double, delta_sum, delta_sum_double,
    /// up_down_counter, gauge, gauge_double, histogram, delta_histogram, exponential_histogram, delta_exponential_histogram, summary.
    #[arg(long, value_name = "TYPE=WEIGHT,…", help_heading = FLAGS)]
    pub mix: Option<String>,
    /// Export interval of each pod.
    #[arg(long, value_name = "DURATION", group = "how_often", help_heading = FLAGS, value_parser = span)]
    pub interval: Option<DurationMs>,
    /// Points a second at the beginning, from which the interval follows.
    #[arg(long, value_name = "N", group = "how_often", help_heading = FLAGS)]
    pub points_per_second: Option<f64>,
    /// Requests a second at the beginning, from which the interval follows.
    #[arg(long, value_name = "N", group = "how_often", help_heading = FLAGS)]
    pub requests_per_second: Option<f64>,
    /// Points in a request at most; a pod with more sends several.
    #[arg(long, value_name = "N", help_heading = FLAGS)]
    pub points_per_request: Option<u32>,
    /// Share of the streams that restart each minute: a new start time, the value from zero.
    #[arg(long, value_name = "SHARE", help_heading = FLAGS)]
    pub resets: Option<f64>,
    /// Zipf's exponent of every label: value number n gets n⁻ᶻ of the traffic.
    #[arg(long, value_name = "EXPONENT", help_heading = FLAGS)]
    pub zipf: Option<f64>,
    /// Share of the streams whose last label gets a new value each minute.
    #[arg(long, value_name = "SHARE", help_heading = FLAGS)]
    pub churn: Option<f64>,
    /// All pods are replaced by new ones this often.
    #[arg(long, value_name = "DURATION", help_heading = FLAGS, value_parser = span)]
    pub deploy_wave: Option<DurationMs>,
    /// The last label of the first metric runs away: so many new values a second.
    #[arg(long, value_name = "PER_SECOND", help_heading = FLAGS)]
    pub runaway: Option<f64>,
    /// When it begins to run away.
    #[arg(long, value_name = "DURATION", requires = "runaway", default_value = "30s", help_heading = FLAGS, value_parser = span)]
    pub runaway_after: DurationMs,
    /// Traffic goes up and down with this period, between a fifth and all.
    #[arg(long, value_name = "PERIOD", help_heading = FLAGS, value_parser = span)]
    pub diurnal: Option<DurationMs>,

    /// How long the run is.
    #[arg(long, default_value = "60s", help_heading = OUT, value_parser = crate::show::duration)]
    pub duration: Duration,
    /// Where to send.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4318", help_heading = OUT)]
    pub endpoint: String,
    /// How to send.
    #[arg(long, value_enum, default_value = "http", help_heading = OUT)]
    pub protocol: Protocol,
    /// Compress bodies.
    #[arg(long, help_heading = OUT)]
    pub gzip: bool,
    /// Request header as name=value, such as x-scope-orgid=shop; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", help_heading = OUT, value_parser = crate::explain::pair)]
    pub headers: Vec<(String, String)>,
    /// Longest wait for an answer.
    #[arg(long, default_value = "10s", help_heading = OUT, value_parser = crate::show::duration)]
    pub timeout: Duration,
    /// Requests without an answer at most: beyond that a request is not sent, and counted.
    #[arg(long, value_name = "N", default_value_t = 1_000, help_heading = OUT, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub in_flight_max: u32,
    /// Connections of gRPC; HTTP/1.1 has one for each request on its way.
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = OUT, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: u16,
    /// Send this many times faster than the schedule says; the run then begins in the past and ends now.
    #[arg(long, value_name = "FACTOR", default_value = "1", conflicts_with = "to", help_heading = OUT, value_parser = speed)]
    pub speed: f64,
    /// Send to other machines too.
    #[arg(long, help_heading = OUT)]
    pub allow_remote: bool,
    /// Write the requests to a folder for `phoenix replay` instead, without waiting; new, or empty.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["endpoint", "protocol"], help_heading = OUT)]
    pub to: Option<PathBuf>,
    /// Write to a folder that holds an earlier run: its requests are removed first, other files stay.
    #[arg(long, requires = "to", help_heading = OUT)]
    pub force: bool,
    /// When the run begins, RFC 3339. Left out: now, and 2026-01-01T00:00:00Z into a folder.
    #[arg(long, value_name = "TIME", help_heading = OUT, value_parser = time)]
    pub start: Option<u64>,
    /// Write the books as JSON.
    #[arg(long, value_name = "FILE", help_heading = OUT)]
    pub json: Option<PathBuf>,
}

const SCENARIO: &str = "Scenario";
const FLAGS: &str = "In place of what the scenario says";
const OUT: &str = "Where to, and how long";

const HELP: &str = "\
Emulated processes (pods) export their streams every interval, spread evenly over it. A stream is a metric of a pod with its own label values; their
number is exact. The schedule decides when a request goes: an answer that is slow, or none, changes nothing of what is sent. Nothing is sent twice.

Try it:
  phoenix generate --print --preset complex > mine.yaml      a scenario to change
  phoenix generate --preset complex --to out --duration 10m  ten minutes of requests into a folder, at once
  phoenix replay --plan plan.json --in out --out replayed    what a plan does to them
  phoenix generate --streams 10000 --points-per-second 5000  load for whatever listens on 127.0.0.1:4318
  phoenix generate --mix sum=6,gauge=3,histogram=1 --churn 0.1 --deploy-wave 5m --runaway 20 --protocol grpc

Exit status 0: everything was sent and accepted whole, or written. 1: not. docs/generate.md explains scenarios and the table.";

impl Arguments {
    /// The pace of a run over the wire.
    pub fn pace(&self) -> Pace {
        Pace { speed: self.speed, in_flight_max: self.in_flight_max as usize }
    }
}

fn span(text: &str) -> Result<DurationMs, String> {
    crate::show::duration(text).map(|duration| DurationMs(duration.as_millis() as u64))
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| (0.001..=10_000.0).contains(speed));
    speed.ok_or_else(|| "expected a factor, 0.001 to 10000".to_owned())
}

fn time(text: &str) -> Result<u64, String> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok().and_then(|time| time.timestamp_nanos_opt());
    let time = time.and_then(|time| u64::try_from(time).ok());
    time.ok_or_else(|| "expected a time such as 2026-01-31T12:00:00Z, from 1970 to 2262".to_owned())
}
