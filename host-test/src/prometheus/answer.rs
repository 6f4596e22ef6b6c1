//! Answers of the query API as plain values.
//!
//! In: the JSON of `/api/v1/query`, `query_range` and `series`. Out: series in order of their labels. Why sorted: two Prometheuses are compared, and
//! each gives its series in its own order. Refuses: an answer that is not `success`, and results other than vectors and matrices.

use anyhow::{Context as _, bail};
use serde_json::Value;
use std::collections::BTreeMap;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// One series of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// (Unix milliseconds, value), in order of time. Native histograms are left out.
    pub points: Vec<(i64, f64)>,
}

impl Series {
    /// The value at a time.
    pub fn at(&self, time_ms: i64) -> Option<f64> {
        let index = self.points.binary_search_by_key(&time_ms, |(time, _)| *time).ok()?;
        Some(self.points[index].1)
    }
}

/// The `data` of an answer.
///
/// # Errors
/// Not JSON, or an error; its text is Prometheus' own.
pub fn data(body: &[u8]) -> anyhow::Result<Value> {
    let mut document: Value =
        serde_json::from_slice(body).with_context(|| String::from_utf8_lossy(body).into_owned())?;
    if document["status"] != "success" {
        bail!("{}: {}", document["errorType"], document["error"]);
    }
    Ok(document["data"].take())
}

/// The series of a vector or a matrix.
///
/// # Errors
/// Another result, or a value that is no number.
pub fn series(data: &Value) -> anyhow::Result<Vec<Series>> {
    let field = match data["resultType"].as_str() {
        Some("matrix") => "values",
        Some("vector") => "value",
        other => bail!("a result of type {other:?}"),
    };
    let results = data["result"].as_array().context("no result")?;
    let mut found = Vec::with_capacity(results.len());
    for result in results {
        let points = match &result[field] {
            Value::Array(points) if field == "values" => points.iter().map(point).collect(),
            Value::Array(_) => point(&result[field]).map(|point| vec![point]),
            _ => Ok(Vec::new()),
        };
        found.push(Series { labels: labels(&result["metric"])?, points: points? });
    }
    found.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(found)
}

/// One object of labels.
///
/// # Errors
/// Not an object of strings.
pub fn labels(value: &Value) -> anyhow::Result<Labels> {
    let object = value.as_object().context("labels")?;
    object.iter().map(|(name, value)| Ok((name.clone(), value.as_str().context("a label")?.into()))).collect()
}

fn point(pair: &Value) -> anyhow::Result<(i64, f64)> {
    let seconds = pair[0].as_f64().context("a time")?;
    let value = pair[1].as_str().context("a value")?;
    // Prometheus writes +Inf, -Inf and NaN, and Rust reads them.
    Ok(((seconds * 1e3).round() as i64, value.parse().with_context(|| value.to_owned())?))
}
