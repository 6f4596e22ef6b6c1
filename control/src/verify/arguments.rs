//! What a person asks for: the arguments of `phoenix verify`, and the span of time they mean.
//!
//! Enters: the command line. Leaves: checked values in plain units. Refused, each with what would be right: durations that are none, a
//! step of zero, more points than Prometheus answers, an end that is no time.

use anyhow::{Context, Result, bail};
use phoenix_plan::Plan;
use std::path::PathBuf;
use std::time::Duration;

/// Most points per series that Prometheus answers to a range query; it refuses more with status 400.
const POINTS_MAX: u64 = 11_000;
/// How long folded data needs to be complete when no plan says it: the plan's default window and delay, and a scrape.
const SETTLE: Duration = Duration::from_secs(90);

/// Compares the answers of two Prometheus, one with the full data and one with the folded.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Prometheus with the full data, such as http://127.0.0.1:9090.
    #[arg(long, value_name = "URL")]
    pub full: String,
    /// Prometheus with the folded data.
    #[arg(long, value_name = "URL")]
    pub folded: String,
    /// Rule files, Grafana dashboards, lists with a query a line; - is a list on standard input.
    #[arg(long, value_name = "FILES", num_args = 1.., required = true)]
    pub queries: Vec<PathBuf>,
    /// How far back from the end to look.
    #[arg(long, default_value = "30m", value_parser = duration)]
    pub range: Duration,
    /// Time between two points of an answer.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub step: Duration,
    /// End of the range, RFC 3339 or seconds since 1970. Left out: now, less the time in which folds of the plan complete.
    #[arg(long, value_name = "TIME")]
    pub end: Option<String>,
    /// Largest relative error of a point that still counts as the same answer.
    #[arg(long, default_value = "0.005", value_parser = fraction)]
    pub tolerance: f64,
    /// Share of a query's points that may lie outside the tolerance, such as 1%.
    #[arg(long, default_value = "0%", value_parser = fraction)]
    pub outliers: f64,
    /// Time at the first and last point of a series in which points may be missing on one side. Left out: window + delay of the plan.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub edge: Option<Duration>,
    /// The plan that folds, to say why a query cannot be answered.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// An embedder that serves a report of its streams, such as http://127.0.0.1:4318; repeat it to compare several.
    #[arg(long = "embedder", value_name = "URL")]
    pub embedders: Vec<String>,
    /// Value of a dashboard variable as name=value; may be repeated.
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = crate::explain::pair)]
    pub variables: Vec<(String, String)>,
    /// Scrape or export interval, from which $__rate_interval is made.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub scrape_interval: Duration,
    /// Request header for both sides as name=value, such as X-Scope-OrgID=shop; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = crate::explain::pair)]
    pub headers: Vec<(String, String)>,
    /// File with a bearer token for both sides, on a line. It travels as the URLs say: in the clear.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Longest wait for one answer.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Queries that run at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel: u16,
    /// Share of queries that must be equal or within tolerance for exit status 0.
    #[arg(long, default_value = "100%", value_parser = fraction)]
    pub fail_below: f64,
    /// Count queries without data on both sides as failures, instead of leaving them out.
    #[arg(long)]
    pub require_data: bool,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as one self-contained page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// The steps at which both sides answer, in milliseconds since 1970, and the edge allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// First step.
    pub start_ms: i64,
    /// Last step.
    pub end_ms: i64,
    /// Between two steps.
    pub step_ms: i64,
    /// Time at the ends of a series in which one side may lack points.
    pub edge_ms: i64,
}

impl Arguments {
    /// The headers of every request, the token among them.
    pub fn request_headers(&self) -> Result<Vec<(String, String)>> {
        let mut headers = self.headers.clone();
        if let Some(file) = &self.token_file {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            let token = text.trim();
            if token.is_empty() {
                bail!("{}: no token", file.display());
            }
            if token.lines().count() > 1 {
                bail!("{}: more than one line; expected a token alone", file.display());
            }
            headers.push(("Authorization".to_owned(), format!("Bearer {token}")));
        }
        Ok(headers)
    }

    /// The steps to ask for. Ends are moved down to whole steps, so that a repeated run asks for the same points.
    pub fn span(&self, plan: Option<&Plan>) -> Result<Span> {
        let step_ms = self.step.as_millis() as i64;
        let range_ms = self.range.as_millis() as i64;
        let points = (range_ms / step_ms) as u64 + 1;
        if points > POINTS_MAX {
            bail!(
                "--range and --step ask for {points} points a series; Prometheus answers at most {POINTS_MAX}: take a larger step"
            );
        }
        let settle = plan.and_then(longest_fold).unwrap_or(SETTLE);
        let end_ms = match &self.end {
            Some(text) => time_ms(text)?,
            None => chrono::Utc::now().timestamp_millis() - settle.as_millis() as i64,
        };
        let end_ms = end_ms.div_euclid(step_ms) * step_ms;
        let edge_ms = self.edge.unwrap_or(settle).as_millis() as i64;
        Ok(Span { start_ms: end_ms - range_ms, end_ms, step_ms, edge_ms })
    }
}

/// The longest window with its delay, and a scrape more: after that, a fold of the plan is complete.
fn longest_fold(plan: &Plan) -> Option<Duration> {
    let folds = plan.rules.iter().flat_map(phoenix_plan::Rule::folds);
    let longest = folds.map(|fold| fold.window.as_millis() + fold.delay.as_millis()).max()?;
    Some(Duration::from_millis(longest) + Duration::from_secs(5))
}

/// `30m`, `1h30m`, `500ms`, as PromQL writes durations; never zero.
fn duration(text: &str) -> Result<Duration, String> {
    match promql_parser::util::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected a duration such as 15s, 30m or 1h30m".to_owned()),
    }
}

/// `0.005` or `0.5%`, from 0 to 1.
fn fraction(text: &str) -> Result<f64, String> {
    let (digits, unit) = text.strip_suffix('%').map_or((text, 1.0), |digits| (digits, 100.0));
    match digits.trim().parse::<f64>() {
        Ok(value) if (0.0..=unit).contains(&value) => Ok(value / unit),
        _ => Err("expected a share such as 0.005 or 0.5%, from 0 to 100%".to_owned()),
    }
}

/// A time in milliseconds since 1970.
fn time_ms(text: &str) -> Result<i64> {
    if let Ok(seconds) = text.parse::<f64>()
        && (0.0..1e11).contains(&seconds)
    {
        return Ok((seconds * 1000.0).round() as i64);
    }
    match chrono::DateTime::parse_from_rfc3339(text) {
        Ok(time) => Ok(time.timestamp_millis()),
        Err(_) => bail!(
            "--end {text:?} is no time; allowed: RFC 3339 such as 2026-01-31T12:00:00Z, or seconds since 1970"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        for (text, value) in [
            ("0.005", Some(0.005)),
            ("0.5%", Some(0.005)),
            ("100%", Some(1.0)),
            ("101%", None),
            ("-1", None),
            ("x", None),
        ] {
            assert_eq!(fraction(text).ok(), value, "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, value) in [
            ("1700000000", Some(1_700_000_000_000)),
            ("1700000000.25", Some(1_700_000_000_250)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000)),
            ("2023-11-14T23:13:20+01:00", Some(1_700_000_000_000)),
            ("yesterday", None),
            ("inf", None),
        ] {
            assert_eq!(time_ms(text).ok(), value, "{text}");
        }
    }
}
