//! Exemplars behind a point: `! 0.7@109.5 trace=0af7 span=b7 {user=x}`.
//!
//! Value and time, trace and span in hexadecimal where they are given, the filtered attributes where there are any. Summaries have none.

use super::{Sample, attributes, cut, fields, read_attributes, read_time, time};
use anyhow::{Context as _, bail};
use opentelemetry_proto::tonic::metrics::v1::Exemplar;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use std::fmt::Write as _;

/// Reads one, without its `!`.
///
/// # Errors
/// It is none.
pub fn read(text: &str) -> anyhow::Result<Exemplar> {
    let head = cut(text, '{').next().unwrap_or_default();
    let mut out = Exemplar::default();
    if let Some(labels) = text.get(head.len() + 1..) {
        let labels = labels.trim_end().strip_suffix('}').context("{filtered attributes}")?;
        out.filtered_attributes = read_attributes(labels)?;
    }
    let mut words = head.split_whitespace();
    let (value, at) = words.next().and_then(|word| word.split_once('@')).context("value@time")?;
    out.time_unix_nano = read_time(at)?;
    out.value = match value {
        "none" => None,
        text => Some(match fields::read_number(text)? {
            Number::AsInt(int) => Value::AsInt(int),
            Number::AsDouble(double) => Value::AsDouble(double),
        }),
    };
    for word in words {
        match word.split_once('=') {
            Some(("trace", hex)) => out.trace_id = read_hex(hex)?,
            Some(("span", hex)) => out.span_id = read_hex(hex)?,
            _ => bail!("trace=, span= or {{attributes}}, not {word:?}"),
        }
    }
    Ok(out)
}

/// Adds one to a point.
///
/// # Errors
/// A summary.
pub fn push(sample: &mut Sample, exemplar: Exemplar) -> anyhow::Result<()> {
    match sample {
        Sample::Number(point) => point.exemplars.push(exemplar),
        Sample::Histogram(point) => point.exemplars.push(exemplar),
        Sample::Exponential(point) => point.exemplars.push(exemplar),
        Sample::Summary(_) => bail!("a summary has no exemplars"),
    }
    Ok(())
}

/// All of a point.
pub fn text(sample: &Sample) -> String {
    let list = match sample {
        Sample::Number(point) => &point.exemplars,
        Sample::Histogram(point) => &point.exemplars,
        Sample::Exponential(point) => &point.exemplars,
        Sample::Summary(_) => return String::new(),
    };
    list.iter().map(one).collect()
}

fn one(exemplar: &Exemplar) -> String {
    let value = match exemplar.value {
        None => "none".to_owned(),
        Some(Value::AsInt(int)) => fields::number(Number::AsInt(int)),
        Some(Value::AsDouble(double)) => fields::number(Number::AsDouble(double)),
    };
    let mut out = format!(" ! {value}@{}", time(exemplar.time_unix_nano));
    for (name, id) in [("trace", &exemplar.trace_id), ("span", &exemplar.span_id)] {
        if !id.is_empty() {
            let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = write!(out, " {name}={hex}");
        }
    }
    if !exemplar.filtered_attributes.is_empty() {
        let _ = write!(out, " {{{}}}", attributes(&exemplar.filtered_attributes));
    }
    out
}

fn read_hex(text: &str) -> anyhow::Result<Vec<u8>> {
    let pair = |at| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(pair).collect();
    bytes.with_context(|| format!("bytes in hexadecimal, not {text:?}"))
}
