//! What a worker tells about what it measured and decided, as bytes of `wit/report.proto`.
//!
//! Enters: plain structs that borrow everything: names, numbers, sketches that are written only when there is room for them. Leaves: one protobuf message of
//! at most [`REPORT_BYTES_MAX`] bytes, or less where the caller says so. Written by hand: a message tree would cost the module its size, and the rule
//! of what to leave out needs the length of every part anyway.
//!
//! The rule is in [`room`]. The bytes are a function of the report, whatever the order of its tenants, metrics and labels. What no reader
//! would take does not leave: text that is not UTF-8 or too long is mended and cut, numbers that are negative or not finite are 0.

/// The report of a worker.
pub mod account;
/// What of a report is written, and what is left out.
pub mod room;

use crate::limits::{
    REPORT_BYTES_MAX, REPORT_NAME_BYTES_MAX, REPORT_PROCESS_BYTES_MAX, REPORT_SENTENCE_BYTES_MAX,
    REPORT_VALUE_BYTES_MAX,
};
use crate::sketch::Distinct;
use crate::units::UnixNanos;
use crate::wire::{put_bytes_field, put_double_field, put_fixed64_field, put_varint_field};

/// The version of the format.
pub const SCHEMA: u64 = 1;

/// A sketch, written when there is room for it.
pub trait Sketch {
    /// Appends its bytes.
    fn encode(&self, out: &mut Vec<u8>);
}

impl Sketch for Distinct {
    fn encode(&self, out: &mut Vec<u8>) {
        Distinct::encode(self, out);
    }
}

/// Bytes of a sketch that somebody has written already.
impl Sketch for &[u8] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

/// A sketch of a part of the report.
pub type Sketched<'a> = Option<&'a dyn Sketch>;

/// One worker's report. Units are those of `wit/report.proto`.
#[derive(Clone, Default)]
pub struct Report<'a> {
    /// Node id and process start.
    pub process: &'a [u8],
    /// The worker in its process, from 0.
    pub worker: u64,
    /// Counts up from 1.
    pub sequence: u64,
    /// Now.
    pub time: UnixNanos,
    /// Since when the ledger counts.
    pub start_time: UnixNanos,
    /// Version of the plan in force.
    pub plan_version: u64,
    /// Fingerprint of the hash key.
    pub key: u64,
    /// Sliding period of the estimates, in milliseconds.
    pub period_ms: u64,
    /// Number of the current generation.
    pub generation: u64,
    /// Counters by name.
    pub counts: &'a [(&'a str, f64)],
    /// Tenants, in any order.
    pub tenants: Vec<Tenant<'a>>,
    /// The smallest blinded stream ids, ascending.
    pub overlap_sample: &'a [u64],
    /// Metrics that the caller could not measure for want of room.
    pub truncated_metrics: u64,
}

/// A tenant and its metrics.
#[derive(Clone, Default)]
pub struct Tenant<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Series it may have on the way out.
    pub share: u64,
    /// Of them: for it alone.
    pub reserved: u64,
    /// Streams that go out raw.
    pub admitted: u64,
    /// Series that budgets fold into.
    pub folded_series: u64,
    /// Sketch of its active streams.
    pub active: Sketched<'a>,
    /// Its estimate.
    pub active_estimate: f64,
    /// Streams new in the current generation.
    pub growth: f64,
    /// Its metrics, in any order.
    pub metrics: Vec<Metric<'a>>,
}

/// A metric and its labels.
#[derive(Clone, Default)]
pub struct Metric<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// `sum`, `gauge`, `histogram`, `exponential_histogram` or `summary`.
    pub kind: &'a str,
    /// Series it may have on the way out.
    pub share: u64,
    /// Streams that go out raw.
    pub admitted: u64,
    /// Series that budgets fold into.
    pub folded_series: u64,
    /// Sketch of its active streams.
    pub active: Sketched<'a>,
    /// Its estimate.
    pub active_estimate: f64,
    /// Streams new in the current generation.
    pub growth: f64,
    /// Its labels, in any order.
    pub labels: Vec<Label<'a>>,
    /// What was done about it, newest first.
    pub decisions: Vec<Decision<'a>>,
    /// Points in the period.
    pub points: u64,
}

/// A label of a metric.
#[derive(Clone, Default)]
pub struct Label<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// A resource attribute; else an attribute of points.
    pub is_resource: bool,
    /// Sketch of its distinct values.
    pub values: Sketched<'a>,
    /// Sketch of the series that would remain without it.
    pub without: Sketched<'a>,
    /// Estimate of `values`.
    pub values_estimate: f64,
    /// Estimate of `without`.
    pub without_estimate: f64,
    /// The values with most weight, heaviest first.
    pub examples: Vec<Example<'a>>,
    /// Never folded by a budget.
    pub is_protected: bool,
}

/// A value of a label that brought streams.
#[derive(Clone, Copy, Default)]
pub struct Example<'a> {
    /// The value.
    pub value: &'a [u8],
    /// At most so many streams.
    pub weight: f64,
    /// And at least so many fewer.
    pub error: f64,
}

/// What was done about a metric.
#[derive(Clone, Default)]
pub struct Decision<'a> {
    /// When.
    pub time: UnixNanos,
    /// `contained`, `widened`, `released` or `restored`.
    pub what: &'a str,
    /// The labels that are folded away.
    pub labels: Vec<&'a [u8]>,
    /// A sentence.
    pub reason: &'a str,
    /// From which event time on it holds.
    pub effective: UnixNanos,
    /// Streams admitted raw, then.
    pub admitted: u64,
    /// The share, then.
    pub share: u64,
}

/// The report as bytes, [`REPORT_BYTES_MAX`] at most.
pub fn encode(report: &Report<'_>) -> Vec<u8> {
    room::encode_within(report, REPORT_BYTES_MAX)
}

/// The report's own fields, but for tenants and what was left out.
fn put_head(out: &mut Vec<u8>, report: &Report<'_>) {
    put_number(out, 1, SCHEMA);
    put_text(out, 2, report.process, REPORT_PROCESS_BYTES_MAX);
    put_number(out, 3, report.worker);
    put_number(out, 4, report.sequence);
    put_fixed(out, 5, report.time.0);
    put_fixed(out, 6, report.start_time.0);
    put_number(out, 7, report.plan_version);
    put_fixed(out, 8, report.key);
    put_number(out, 9, report.period_ms);
    put_number(out, 10, report.generation);
}

/// Field 1 of a ledger.
fn put_count(out: &mut Vec<u8>, name: &str, value: f64) {
    let mut count = Vec::new();
    put_text(&mut count, 1, name.as_bytes(), REPORT_NAME_BYTES_MAX);
    put_real(&mut count, 2, value);
    put_bytes_field(out, 1, &count);
}

/// A tenant's fields, but for its sketch and its metrics.
fn put_tenant(out: &mut Vec<u8>, tenant: &Tenant<'_>) {
    put_text(out, 1, tenant.name, REPORT_NAME_BYTES_MAX);
    put_number(out, 2, tenant.share);
    put_number(out, 3, tenant.reserved);
    put_number(out, 4, tenant.admitted);
    put_number(out, 5, tenant.folded_series);
    put_real(out, 7, tenant.growth);
    put_real(out, 9, tenant.active_estimate);
}

/// A metric's fields, but for its sketch, labels and decisions.
fn put_metric(out: &mut Vec<u8>, metric: &Metric<'_>) {
    put_text(out, 1, metric.name, REPORT_NAME_BYTES_MAX);
    put_text(out, 2, metric.kind.as_bytes(), REPORT_NAME_BYTES_MAX);
    put_number(out, 3, metric.share);
    put_number(out, 4, metric.admitted);
    put_number(out, 5, metric.folded_series);
    put_real(out, 7, metric.active_estimate);
    put_real(out, 8, metric.growth);
    put_number(out, 11, metric.points);
}

/// A label's fields, but for its sketches and examples.
fn put_label(out: &mut Vec<u8>, label: &Label<'_>) {
    put_text(out, 1, label.key, REPORT_NAME_BYTES_MAX);
    put_number(out, 2, u64::from(label.is_resource));
    put_real(out, 5, label.values_estimate);
    put_real(out, 6, label.without_estimate);
    put_number(out, 8, u64::from(label.is_protected));
}

/// Field 7 of a label.
fn put_example(out: &mut Vec<u8>, example: &Example<'_>) {
    let mut body = Vec::new();
    put_text(&mut body, 1, example.value, REPORT_VALUE_BYTES_MAX);
    let weight = real(example.weight);
    put_real(&mut body, 2, weight);
    // Readers refuse an error beyond the weight: at least so many streams cannot be fewer than none.
    put_real(&mut body, 3, real(example.error).min(weight));
    put_bytes_field(out, 7, &body);
}

/// Field 10 of a metric.
fn put_decision(out: &mut Vec<u8>, decision: &Decision<'_>) {
    let mut body = Vec::new();
    put_fixed(&mut body, 1, decision.time.0);
    put_text(&mut body, 2, decision.what.as_bytes(), REPORT_NAME_BYTES_MAX);
    for label in decision.labels.iter().take(room::LABELS_OF_A_DECISION_MAX) {
        put_bytes_field(&mut body, 3, mended(label, REPORT_NAME_BYTES_MAX).as_bytes());
    }
    put_text(&mut body, 4, decision.reason.as_bytes(), REPORT_SENTENCE_BYTES_MAX);
    put_fixed(&mut body, 5, decision.effective.0);
    put_number(&mut body, 6, decision.admitted);
    put_number(&mut body, 7, decision.share);
    put_bytes_field(out, 10, &body);
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint_field(out, number, value);
    }
}

fn put_fixed(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_fixed64_field(out, number, value);
    }
}

fn put_real(out: &mut Vec<u8>, number: u32, value: f64) {
    let value = real(value);
    if value != 0.0 {
        put_double_field(out, number, value);
    }
}

fn put_text(out: &mut Vec<u8>, number: u32, text: &[u8], bytes_max: usize) {
    if !text.is_empty() {
        put_bytes_field(out, number, mended(text, bytes_max).as_bytes());
    }
}

/// As readers take it: finite and not negative.
fn real(value: f64) -> f64 {
    if value.is_finite() && value > 0.0 { value } else { 0.0 }
}

/// The text as UTF-8, its first `bytes_max` bytes at most, without half a character at the end.
fn mended(text: &[u8], bytes_max: usize) -> String {
    let start = text.get(..bytes_max).unwrap_or(text);
    let mut mended = String::from_utf8_lossy(start).into_owned();
    // A replacement character is longer than what it replaces, and a cut may have made one.
    if text.len() > bytes_max && core::str::from_utf8(start).is_err_and(|error| error.error_len().is_none()) {
        mended.pop();
    }
    while mended.len() > bytes_max {
        mended.pop();
    }
    mended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_mended_and_cut_between_characters() {
        for (text, max, want) in [
            (&b"plain"[..], 8, "plain"),
            (b"plain", 3, "pla"),
            ("aä".as_bytes(), 2, "a"),
            ("aä".as_bytes(), 3, "aä"),
            (b"a\xffb", 8, "a\u{fffd}b"),
            (b"\xff\xff\xff", 8, "\u{fffd}\u{fffd}"),
            // Half a character at the very end was sent so, and is shown so.
            (b"a\xc3", 8, "a\u{fffd}"),
        ] {
            assert_eq!(mended(text, max), want, "{text:?} within {max}");
        }
    }

    #[test]
    fn numbers_are_what_readers_take() {
        for (value, want) in [
            (1.5, 1.5),
            (-1.0, 0.0),
            (f64::NAN, 0.0),
            (f64::INFINITY, 0.0),
            (-0.0, 0.0),
            (f64::MAX, f64::MAX),
        ] {
            assert_eq!(real(value).to_bits(), want.to_bits(), "{value}");
        }
    }
}
