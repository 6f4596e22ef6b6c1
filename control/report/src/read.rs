//! Bytes to a report.
//!
//! Enters: the bytes of one message, and now. Leaves: a [`Report`] every number and sketch of which can be worked with, or a [`Refusal`] that names the field,
//! its value and what is allowed. A report comes over a port: it is taken whole or not at all, and before anything is allocated for its parts they are counted,
//! since two bytes of an empty message become two hundred in memory.

use crate::wire::{Count, Decision, Example, Label, Metric, Report, Tenant};
use phoenix_filter::sketch::Distinct;
use phoenix_filter::wire::{Fields, Span, WireError};
use prost::Message;
use std::fmt;

/// The version of the format that is read.
pub const SCHEMA: u32 = 1;
/// The largest report: sixteen times what the module writes.
pub const BYTES_MAX: usize = 4 << 20;
/// Messages inside a report: the module's 256 KiB hold fewer than 20,000.
pub const PARTS_MAX: usize = 200_000;
/// How far a process' clock may be ahead of ours: as far as a point's timestamp may be ahead of an embedder's.
pub const AHEAD_MAX_NS: u64 = phoenix_filter::limits::AHEAD_MAX_NS;
/// The name of a process.
pub const PROCESS_BYTES_MAX: usize = 1_024;
/// Periods that a plan can ask for, in milliseconds.
pub use phoenix_plan::bounds::PERIOD_MS;
/// A sequence at the end of its range would keep every later report out.
pub const SEQUENCE_MAX: u64 = 1 << 53;
/// Counts and estimates beyond this are no counts, and no double holds them exactly.
pub const COUNT_MAX: u64 = 1 << 53;

/// Why a report is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which field, as `tenants[0].metrics[3].active`; `report` is the whole.
    pub field: String,
    /// What stood there.
    pub value: String,
    /// What may stand there.
    pub allowed: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; allowed: {}", self.field, self.value, self.allowed)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    fn new(field: impl Into<String>, value: impl fmt::Display, allowed: impl Into<String>) -> Refusal {
        Refusal { field: field.into(), value: value.to_string(), allowed: allowed.into() }
    }

    /// The same in an element of a list.
    fn inside(mut self, list: &str, index: usize) -> Refusal {
        self.field = format!("{list}[{index}].{}", self.field);
        self
    }
}

/// Reads a report. `now_unix_nano` is the reader's clock.
///
/// # Errors
/// A [`Refusal`]: too large, no protobuf of this format, another schema, a clock from the future, numbers that are none, sketches that cannot be read.
pub fn read(bytes: &[u8], now_unix_nano: u64) -> Result<Report, Refusal> {
    if bytes.len() > BYTES_MAX {
        return Err(Refusal::new("report", format!("{} bytes", bytes.len()), format!("up to {BYTES_MAX}")));
    }
    let unreadable = |why: String| Refusal::new("report", why, "phoenix.report.v1.Report in protobuf");
    let mut parts = 0;
    count(bytes, Span::all(bytes), REPORT, &mut parts)
        .map_err(|error| unreadable(format!("{:?} at byte {}", error.kind, error.at)))?;
    if parts > PARTS_MAX {
        return Err(Refusal::new("report", format!("{parts} parts"), format!("up to {PARTS_MAX}")));
    }
    let report = Report::decode(bytes).map_err(|error| unreadable(error.to_string()))?;
    check(&report, now_unix_nano)?;
    Ok(report)
}

/// Numbers of the fields that hold messages, and those of the messages in them.
struct Nested(&'static [(u32, &'static Nested)]);

const LEAF: &Nested = &Nested(&[]);
const LABEL: &Nested = &Nested(&[(7, LEAF)]);
const DECISION: &Nested = &Nested(&[(3, LEAF)]);
const METRIC: &Nested = &Nested(&[(9, LABEL), (10, DECISION)]);
const TENANT: &Nested = &Nested(&[(8, METRIC)]);
const LEDGER: &Nested = &Nested(&[(1, LEAF)]);
const REPORT: &Nested = &Nested(&[(11, LEDGER), (12, TENANT)]);

/// Counts the messages and repeated texts inside, up to a few more than there may be.
fn count(bytes: &[u8], span: Span, nested: &Nested, parts: &mut usize) -> Result<(), WireError> {
    let mut fields = Fields::new(bytes, span);
    while let Some(field) = fields.next()? {
        let Some((_, inner)) = nested.0.iter().find(|(number, _)| *number == field.number) else { continue };
        *parts += 1;
        if *parts > PARTS_MAX {
            return Ok(());
        }
        if !inner.0.is_empty() {
            count(bytes, field.bytes()?, inner, parts)?;
        }
    }
    Ok(())
}

/// Does the report keep to its bounds?
///
/// # Errors
/// The first [`Refusal`], in the order of the fields.
pub fn check(report: &Report, now_unix_nano: u64) -> Result<(), Refusal> {
    if report.schema != SCHEMA {
        return Err(Refusal::new("schema", report.schema, SCHEMA.to_string()));
    }
    if report.process.is_empty() || report.process.len() > PROCESS_BYTES_MAX {
        let value = format!("{} bytes", report.process.len());
        return Err(Refusal::new("process", value, format!("1 to {PROCESS_BYTES_MAX}")));
    }
    whole("worker", report.worker)?;
    if report.sequence == 0 || report.sequence > SEQUENCE_MAX {
        return Err(Refusal::new("sequence", report.sequence, format!("1 to {SEQUENCE_MAX}")));
    }
    let latest = now_unix_nano.saturating_add(AHEAD_MAX_NS);
    if report.time_unix_nano == 0 || report.time_unix_nano > latest {
        let seconds = (report.time_unix_nano as f64 - now_unix_nano as f64) / 1e9;
        let value = format!("{} ({seconds:+.0} s from now)", report.time_unix_nano);
        let allowed = format!("a time up to {} s from now", AHEAD_MAX_NS / 1_000_000_000);
        return Err(Refusal::new("time_unix_nano", value, allowed));
    }
    if report.start_time_unix_nano > report.time_unix_nano {
        let allowed = format!("up to time_unix_nano, {}", report.time_unix_nano);
        return Err(Refusal::new("start_time_unix_nano", report.start_time_unix_nano, allowed));
    }
    if !PERIOD_MS.contains(&report.period_ms) {
        let allowed = format!("{} to {}", PERIOD_MS.start(), PERIOD_MS.end());
        return Err(Refusal::new("period_ms", report.period_ms, allowed));
    }
    let counts = report.ledger.iter().flat_map(|ledger| &ledger.counts);
    all("ledger.counts", counts, |Count { value, .. }| real("value", *value))?;
    all("tenants", &report.tenants, tenant)?;
    whole("truncated_metrics", report.truncated_metrics)
}

fn all<'r, T: 'r>(
    list: &str,
    parts: impl IntoIterator<Item = &'r T>,
    check: impl Fn(&T) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    parts
        .into_iter()
        .enumerate()
        .try_for_each(|(index, part)| check(part).map_err(|refusal| refusal.inside(list, index)))
}

fn tenant(tenant: &Tenant) -> Result<(), Refusal> {
    whole("share", tenant.share)?;
    whole("reserved", tenant.reserved)?;
    whole("admitted", tenant.admitted)?;
    whole("folded_series", tenant.folded_series)?;
    sketch("active", &tenant.active)?;
    real("growth", tenant.growth)?;
    all("metrics", &tenant.metrics, metric)?;
    real("active_estimate", tenant.active_estimate)
}

fn metric(metric: &Metric) -> Result<(), Refusal> {
    whole("share", metric.share)?;
    whole("admitted", metric.admitted)?;
    whole("folded_series", metric.folded_series)?;
    sketch("active", &metric.active)?;
    real("active_estimate", metric.active_estimate)?;
    real("growth", metric.growth)?;
    all("labels", &metric.labels, label)?;
    all("decisions", &metric.decisions, |Decision { admitted, share, .. }| {
        whole("admitted", *admitted)?;
        whole("share", *share)
    })?;
    whole("points", metric.points)
}

fn label(label: &Label) -> Result<(), Refusal> {
    sketch("values", &label.values)?;
    sketch("without", &label.without)?;
    real("values_estimate", label.values_estimate)?;
    real("without_estimate", label.without_estimate)?;
    all("examples", &label.examples, |Example { weight, error, .. }| {
        real("weight", *weight)?;
        real("error", *error)?;
        if error > weight {
            return Err(Refusal::new("error", error, format!("0 to the weight, {weight}")));
        }
        Ok(())
    })
}

fn whole(field: &str, value: u64) -> Result<(), Refusal> {
    if value > COUNT_MAX {
        return Err(Refusal::new(field, value, format!("0 to {COUNT_MAX}")));
    }
    Ok(())
}

fn real(field: &str, value: f64) -> Result<(), Refusal> {
    if !value.is_finite() || value < 0.0 {
        return Err(Refusal::new(field, value, "a finite number, 0 or more"));
    }
    Ok(())
}

fn sketch(field: &str, bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.is_empty() {
        return Ok(());
    }
    Distinct::decode(bytes).map(|_| ()).map_err(|error| {
        let value = format!("{} bytes, {:?} at byte {}", bytes.len(), error.kind, error.at);
        Refusal::new(field, value, format!("a sketch of version {}", phoenix_filter::sketch::VERSION))
    })
}
