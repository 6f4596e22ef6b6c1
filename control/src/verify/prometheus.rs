//! One side: a Prometheus over HTTP.
//!
//! Enters: a query and the steps. Leaves: series of (step, value), or one line that says what went wrong. Asks by POST, since a query of
//! an expanded recording rule outgrows a URL. Only the API is relied on, so anything that speaks it can be a side (Mimir, Thanos).
//! Plain HTTP: a side behind TLS is reached through `kubectl port-forward` or a local proxy; an https URL is refused in words.
//! A side that fails many times in a row is left alone, so that a dead server does not cost a time-out per query.

use super::arguments::{Arguments, Span};
use anyhow::{Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Largest answer that is read: 11,000 points of 500 series are about 200 MiB of JSON.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// Failures in a row after which a side is left alone: beyond what one unlucky moment with all workers busy gives.
const FAILURES_IN_A_ROW_MAX: u32 = 8;
/// How much of a server's error text is shown.
const ERROR_CHARS_MAX: usize = 200;

/// Labels of a series.
pub type Labels = BTreeMap<String, String>;

/// One series of an answer: (milliseconds since 1970, value), in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Its points.
    pub points: Vec<(i64, f64)>,
}

/// One of the two Prometheus.
pub struct Side {
    /// `full` or `folded`.
    pub name: &'static str,
    /// Base of its URLs, without a slash at the end.
    pub url: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
    agent: ureq::Agent,
    failures_in_a_row: AtomicU32,
    down: Option<String>,
}

impl Side {
    /// A side that has not been asked yet. Refuses URLs that are no `http://` ones.
    pub fn new(name: &'static str, url: &str, arguments: &Arguments) -> Result<Side> {
        if url.starts_with("https://") {
            bail!("--{name} {url}: this build speaks plain HTTP; go through a local proxy or port-forward");
        }
        if !url.starts_with("http://") {
            bail!("--{name} {url}: expected http://HOST:PORT");
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(arguments.timeout))
            .http_status_as_error(false)
            .build()
            .new_agent();
        Ok(Side {
            name,
            url: url.trim_end_matches('/').to_owned(),
            headers: arguments.request_headers()?,
            timeout: arguments.timeout,
            agent,
            failures_in_a_row: AtomicU32::new(0),
            down: None,
        })
    }

    /// Asks the simplest question there is; a side that cannot answer it is down.
    pub fn greet(&mut self) {
        let greeting = self.ask::<serde_json::Value>("/api/v1/query", &[("query", "1".to_owned())]);
        self.down = greeting.err();
    }

    /// Whether the side did not answer the greeting.
    pub fn is_down(&self) -> bool {
        self.down.is_some()
    }

    /// Why it counts as down, in words.
    pub fn why_down(&self) -> String {
        self.down.clone().unwrap_or_default()
    }

    /// The answer to a range query.
    pub fn query_range(&self, query: &str, span: &Span) -> Result<Vec<Series>, String> {
        let mut form = vec![("query", query.to_owned()), ("step", seconds(span.step_ms))];
        form.extend(bounds(span));
        let matrix: Matrix = self.ask("/api/v1/query_range", &form)?;
        matrix.series().map_err(|error| format!("{} side: {error}", self.name))
    }

    /// Whether the side has any sample of a metric in the span.
    pub fn has(&self, metric: &str, span: &Span) -> Result<bool, String> {
        let query = format!("count({{__name__={}}})", quoted(metric));
        Ok(self.query_range(&query, span)?.iter().any(|series| !series.points.is_empty()))
    }

    /// The values of a label, sorted; of the series that a selector matches, or of all.
    pub fn label_values(
        &self,
        selector: Option<&str>,
        label: &str,
        span: &Span,
    ) -> Result<Vec<String>, String> {
        let mut form: Vec<(&str, String)> = bounds(span).to_vec();
        form.extend(selector.map(|selector| ("match[]", selector.to_owned())));
        self.get(&format!("/api/v1/label/{label}/values"), &form)
    }

    /// POST, with the form in the body.
    fn ask<T: for<'de> Deserialize<'de>>(&self, path: &str, form: &[(&str, String)]) -> Result<T, String> {
        self.may_ask()?;
        let mut request = self.agent.post(format!("{}{path}", self.url));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = request.send_form(form.iter().map(|(name, value)| (*name, value.as_str())));
        self.read(answer)
    }

    /// GET, with the form in the URL: label values are asked no other way.
    fn get<T: for<'de> Deserialize<'de>>(&self, path: &str, form: &[(&str, String)]) -> Result<T, String> {
        self.may_ask()?;
        let mut request = self.agent.get(format!("{}{path}", self.url));
        for (name, value) in form {
            request = request.query(name, value);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        self.read(request.call())
    }

    /// Refuses when the side is down or has failed too often.
    fn may_ask(&self) -> Result<(), String> {
        if let Some(why) = &self.down {
            return Err(why.clone());
        }
        if self.failures_in_a_row.load(Ordering::Relaxed) >= FAILURES_IN_A_ROW_MAX {
            return Err(format!(
                "{} side: not asked after {FAILURES_IN_A_ROW_MAX} failures in a row",
                self.name
            ));
        }
        Ok(())
    }

    /// The data of an answer, or one line.
    fn read<T: for<'de> Deserialize<'de>>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, String> {
        let body = answer.and_then(|mut answer| {
            let status = answer.status();
            let text =
                answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string()?;
            Ok((status.as_u16(), text))
        });
        let (status, text) = match body {
            Ok(body) => body,
            Err(error) => {
                self.failures_in_a_row.fetch_add(1, Ordering::Relaxed);
                let why = self.transport_error(&error);
                return Err(format!("{} side {}: {why}", self.name, self.url));
            }
        };
        if status >= 500 {
            self.failures_in_a_row.fetch_add(1, Ordering::Relaxed);
        } else {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        match serde_json::from_str::<Answer<T>>(&text) {
            Ok(Answer { data: Some(data), .. }) if status < 300 => Ok(data),
            Ok(Answer { error: Some(error), .. }) => {
                Err(format!("{} side: HTTP {status}: {}", self.name, shortened(&error)))
            }
            Err(error) if status < 300 => {
                Err(format!("{} side: HTTP {status} with an answer that cannot be read: {error}", self.name))
            }
            _ => Err(format!("{} side: HTTP {status}: {}", self.name, shortened(&text))),
        }
    }

    /// A failed exchange in words.
    fn transport_error(&self, error: &ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(_) => format!("no answer within {:?}", self.timeout),
            ureq::Error::BodyExceedsLimit(_) => {
                format!("the answer is larger than {} MiB", ANSWER_BYTES_MAX >> 20)
            }
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        }
    }
}

/// The envelope of every answer.
#[derive(Deserialize)]
struct Answer<T> {
    data: Option<T>,
    error: Option<String>,
}

/// `data` of a range query.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Matrix {
    result_type: String,
    result: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    metric: Labels,
    #[serde(default)]
    values: Vec<(f64, String)>,
    #[serde(default)]
    histograms: Vec<(f64, Histogram)>,
}

/// A native histogram; buckets are (rule of the bounds, low, high, count).
#[derive(Deserialize)]
struct Histogram {
    count: String,
    sum: String,
    #[serde(default)]
    buckets: Vec<(u8, String, String, String)>,
}

impl Matrix {
    /// The series; a native histogram becomes one series each for count, sum and bucket, told apart by the label `__part__`.
    fn series(self) -> Result<Vec<Series>, String> {
        if self.result_type != "matrix" {
            return Err(format!("expected a matrix, got a {}", self.result_type));
        }
        let mut all = Vec::with_capacity(self.result.len());
        for row in self.result {
            let mut parts: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
            for (time, histogram) in row.histograms {
                let mut put = |part: String, text: &str| {
                    parts.entry(part).or_default().push((milliseconds(time), number(text)?));
                    Ok::<(), String>(())
                };
                put("count".to_owned(), &histogram.count)?;
                put("sum".to_owned(), &histogram.sum)?;
                for (_, low, high, count) in &histogram.buckets {
                    put(format!("({low},{high}]"), count)?;
                }
            }
            for (part, points) in parts {
                let mut labels = row.metric.clone();
                labels.insert("__part__".to_owned(), part);
                all.push(Series { labels, points });
            }
            if !row.values.is_empty() {
                let points = row.values.iter().map(|(time, text)| Ok((milliseconds(*time), number(text)?)));
                all.push(Series { labels: row.metric, points: points.collect::<Result<_, String>>()? });
            }
        }
        Ok(all)
    }
}

/// A value as Prometheus writes it: `1.5`, `NaN`, `+Inf`.
fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

/// Milliseconds as seconds, exactly.
fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn bounds(span: &Span) -> [(&'static str, String); 2] {
    [("start", seconds(span.start_ms)), ("end", seconds(span.end_ms))]
}

/// A PromQL string.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The beginning of a server's error text, on one line.
fn shortened(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return "no text".to_owned();
    }
    match line.char_indices().nth(ERROR_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
