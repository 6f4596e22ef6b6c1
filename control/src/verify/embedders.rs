//! Does every stream reach one embedder process only (DESIGN §3.10)? Asked of the processes themselves.
//!
//! Enters: URLs of embedders that serve a report of their streams. Leaves: a line for each pair, in words, and whether any overlap is more
//! than chance. Refused: nothing as a whole. Who cannot be asked, or speaks of streams under another key, is a line, and the rest is compared.

use phoenix_filter::affinity::{Overlap, Report};
use serde_json::{Value, json};
use std::time::Duration;

/// Where an embedder serves its report, when the URL has no path.
const PATH: &str = "/phoenix/v1/report";
/// A report is about 8 KiB.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Two embedders, and what they share.
#[derive(Debug)]
pub struct Pair {
    /// URLs.
    pub urls: [String; 2],
    /// About how many streams each sees.
    pub streams: [f64; 2],
    /// What both see.
    pub overlap: Overlap,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Affinity {
    /// Every two that could be compared.
    pub pairs: Vec<Pair>,
    /// What could not, and why.
    pub complaints: Vec<String>,
    asked: usize,
}

/// Ask all, compare every two.
pub fn ask(urls: &[String], timeout: Duration) -> Affinity {
    let mut found = Affinity { asked: urls.len(), ..Affinity::default() };
    let agent = ureq::Agent::config_builder().timeout_global(Some(timeout)).build().new_agent();
    let mut reports: Vec<(String, Report)> = Vec::new();
    for url in urls {
        match fetch(&agent, url) {
            Ok(report) => reports.push((url.clone(), report)),
            Err(why) => found.complaints.push(format!("embedder {url}: {why}")),
        }
    }
    for (n, (url, report)) in reports.iter().enumerate() {
        for (other_url, other) in reports.iter().skip(n + 1) {
            let urls = [url.clone(), other_url.clone()];
            if report.key != other.key {
                let why = "their plans have different hash keys, so that streams cannot be compared";
                found.complaints.push(format!("embedders {url} and {other_url}: {why}"));
            } else if report.process == other.process {
                let who = &report.process;
                found.complaints.push(format!("embedders {url} and {other_url}: one process, {who}"));
            } else {
                let streams = [report.sample.estimate(), other.sample.estimate()];
                found.pairs.push(Pair { urls, streams, overlap: Overlap::of(&report.sample, &other.sample) });
            }
        }
    }
    found
}

fn fetch(agent: &ureq::Agent, url: &str) -> Result<Report, String> {
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(
            "expected http://HOST:PORT, with a path where the report is not at the usual one".to_owned()
        );
    };
    let has_path = rest.split_once('/').is_some_and(|(_, path)| !path.is_empty());
    let full = if has_path { url.to_owned() } else { format!("{}{PATH}", url.trim_end_matches('/')) };
    let mut answer = agent.get(&full).call().map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    let body = body.map_err(|error| error.to_string())?;
    Report::decode(&body).ok_or_else(|| "the answer is no report of this version".to_owned())
}

impl Affinity {
    /// Nobody was asked.
    pub fn is_empty(&self) -> bool {
        self.asked == 0
    }

    /// Every two could be compared, and nothing more than chance is shared.
    pub fn holds(&self) -> bool {
        self.complaints.is_empty() && self.pairs.iter().all(|pair| !pair.overlap.is_shown())
    }

    /// One line a pair, then what could not be compared.
    pub fn lines(&self) -> Vec<String> {
        let pair = |pair: &Pair| {
            let [one, other] = &pair.urls;
            let [a, b] = pair.streams;
            let Overlap { union, shared, error } = pair.overlap;
            if pair.overlap.is_shown() {
                return format!(
                    "affinity: about {shared:.0} (± {error:.0}) of {union:.0} streams reach both {one} and {other}: cumulative folds inflate; \
                     give them stream affinity (docs/envoy.md)"
                );
            }
            format!(
                "affinity: {one} ({a:.0} streams) and {other} ({b:.0} streams) share none: cumulative folds are right"
            )
        };
        let complaints = self.complaints.iter().map(|why| format!("affinity: not known: {why}"));
        self.pairs.iter().map(pair).chain(complaints).collect()
    }

    /// For machines; null where nobody was asked.
    pub fn to_json(&self) -> Value {
        if self.is_empty() {
            return Value::Null;
        }
        let pairs: Vec<Value> = self
            .pairs
            .iter()
            .map(|pair| {
                json!({
                    "embedders": pair.urls,
                    "streams": pair.streams,
                    "union": pair.overlap.union,
                    "shared": pair.overlap.shared,
                    "standard_error": pair.overlap.error,
                    "is_shown": pair.overlap.is_shown(),
                })
            })
            .collect();
        json!({ "holds": self.holds(), "pairs": pairs, "complaints": self.complaints })
    }
}
