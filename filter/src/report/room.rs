//! What of a report is written when not all of it fits.
//!
//! Enters: a report and the bytes there are. Leaves: the message. Parts are written in layers, and each layer from the heaviest tenant or metric (by
//! `active_estimate`) to the lightest; it ends at the first part that does not fit under the layer's ceiling, so that what is there is always the heaviest, and what
//! one layer leaves free is there for the next. Ceilings are sixteenths of the bound, and each counts all layers before it:
//!
//! | layer | of | up to |
//! |---|---|---|
//! | the report's own fields, ledger, overlap sample | | 2 |
//! | numbers of tenants | all | 4 |
//! | numbers of metrics | all | 8 |
//! | sketches of tenants | all | 9 |
//! | decisions, the newest [`DECISIONS_MAX`] | all | 10 |
//! | numbers of labels | the heaviest [`DETAILED_METRICS`] | 11 |
//! | sketches of metrics | those | 15 |
//! | [`EXAMPLES_MAX`] examples of [`LABELS_WITH_EXAMPLES`] labels | those | 16 |
//! | sketches of labels: series without it, then values | those | 16 |
//! | numbers of labels | the others | 16 |
//!
//! A thousand metrics with ten labels each do not fit whole: sketches of 100 metrics and their labels alone are 1.9 MB, and numbers of 10,000 labels 350 kB. This
//! rule gives them the numbers of all metrics, and of the heaviest hundred labels, offenders and sketches. A metric without its numbers is not in the report:
//! `truncated_metrics` counts it. The wrong choice where every label of every metric must arrive: that needs several messages.

use super::{
    Label, Metric, Report, Sketched, Tenant, put_count, put_decision, put_example, put_head, put_label,
    put_metric, put_number, put_tenant, real,
};
use crate::wire::{put_bytes_field, put_prefix, put_varint, varint_len};
use core::cmp::Ordering;
use phoenix_plan::order;

/// Metrics that get labels, examples and sketches before any other gets more than numbers: as many sketches of 900 bytes take a third of the bound.
pub const DETAILED_METRICS: usize = 100;
/// Labels of a metric with examples: those that help most are where a person looks.
pub const LABELS_WITH_EXAMPLES: usize = 3;
/// Examples of a label: enough to see what they have in common.
pub const EXAMPLES_MAX: usize = 4;
/// Decisions of a metric: the newest explain its state.
pub const DECISIONS_MAX: usize = 4;
/// Labels of a metric: OTLP's SDKs stop at 128, and those that help most come first.
pub const LABELS_MAX: usize = 64;
/// Labels named by a decision.
pub const LABELS_OF_A_DECISION_MAX: usize = 16;
/// Ids in a sample: with as many, one shared stream in a hundred shows.
pub const SAMPLE_MAX: usize = 512;
/// Ceilings are written in these.
const PARTS: usize = 16;

/// The report as bytes, `bytes_max` at most where that is room for its own fields (600 bytes).
pub fn encode_within(report: &Report<'_>, bytes_max: usize) -> Vec<u8> {
    let mut room = Room { taken: 0, bytes_max };
    let mut out = Vec::new();
    put_head(&mut out, report);
    // The count of what is left out comes last, in up to eleven bytes.
    room.taken = out.len().saturating_add(11);
    put_ledger(&mut out, report, &mut room);
    put_sample(&mut out, report, &mut room);

    let mut tenants = tenants(report, &mut room);
    let mut metrics = metrics(&tenants, &mut room);
    let written = metrics.len();
    for tenant in &mut tenants {
        if !put_sketch(&mut tenant.bytes, 6, tenant.tenant.active, &mut room, 9) {
            break;
        }
    }
    detail(&mut metrics, &mut room);

    let all = report.tenants.iter().fold(0_usize, |sum, tenant| sum.saturating_add(tenant.metrics.len()));
    for written in metrics {
        if let Some(tenant) = tenants.get_mut(written.tenant) {
            put_bytes_field(&mut tenant.bytes, 8, &written.assembled());
        }
    }
    for tenant in tenants {
        put_bytes_field(&mut out, 12, &tenant.bytes);
    }
    let left_out = all.saturating_sub(written) as u64;
    put_number(&mut out, 14, report.truncated_metrics.saturating_add(left_out));
    out
}

/// How much of the bound is taken.
struct Room {
    taken: usize,
    bytes_max: usize,
}

impl Room {
    /// A tag of one byte, as all are, and a length around a part: the longest that there can be.
    fn prefix(&self) -> usize {
        varint_len(self.bytes_max as u64).saturating_add(1)
    }

    /// Takes room for a part of `len` bytes and what goes around it, if that stays under the ceiling.
    fn take(&mut self, len: usize, ceiling: usize) -> bool {
        let taken = self.taken.saturating_add(len).saturating_add(self.prefix());
        let fits = taken <= self.bytes_max.saturating_mul(ceiling).checked_div(PARTS).unwrap_or(0);
        if fits {
            self.taken = taken;
        }
        fits
    }
}

/// A tenant and its fields so far.
struct WrittenTenant<'r, 'a> {
    tenant: &'r Tenant<'a>,
    bytes: Vec<u8>,
}

/// A metric and the parts of it that fit.
struct WrittenMetric<'r, 'a> {
    /// Place of its tenant among the written ones.
    tenant: usize,
    metric: &'r Metric<'a>,
    /// Whole fields: numbers, then decisions and the sketch.
    bytes: Vec<u8>,
    /// Labels that help most first.
    labels: Vec<WrittenLabel<'r, 'a>>,
}

struct WrittenLabel<'r, 'a> {
    label: &'r Label<'a>,
    bytes: Vec<u8>,
}

impl WrittenMetric<'_, '_> {
    fn assembled(mut self) -> Vec<u8> {
        for label in self.labels {
            put_bytes_field(&mut self.bytes, 9, &label.bytes);
        }
        self.bytes
    }
}

fn put_ledger(out: &mut Vec<u8>, report: &Report<'_>, room: &mut Room) {
    let mut ledger = Vec::new();
    for (name, value) in report.counts {
        let before = ledger.len();
        put_count(&mut ledger, name, *value);
        if !room.take(ledger.len().saturating_sub(before), 2) {
            ledger.truncate(before);
            break;
        }
    }
    if !ledger.is_empty() {
        put_bytes_field(out, 11, &ledger);
        room.taken = room.taken.saturating_add(room.prefix());
    }
}

fn put_sample(out: &mut Vec<u8>, report: &Report<'_>, room: &mut Room) {
    let mut ids = Vec::new();
    report.overlap_sample.iter().take(SAMPLE_MAX).for_each(|id| put_varint(&mut ids, *id));
    // Half a sample would be another sample: all of it or none.
    if !ids.is_empty() && room.take(ids.len(), 2) {
        put_bytes_field(out, 13, &ids);
    }
}

/// Numbers of the tenants.
fn tenants<'r, 'a>(report: &'r Report<'a>, room: &mut Room) -> Vec<WrittenTenant<'r, 'a>> {
    let mut order: Vec<&Tenant<'_>> = report.tenants.iter().collect();
    order::sort_by(&mut order, |a, b| {
        heavier(a.active_estimate, b.active_estimate).then_with(|| a.name.cmp(b.name))
    });
    let mut written = Vec::new();
    for tenant in order {
        let mut bytes = Vec::new();
        put_tenant(&mut bytes, tenant);
        if !room.take(bytes.len(), 4) {
            break;
        }
        written.push(WrittenTenant { tenant, bytes });
    }
    written
}

/// Numbers of the metrics of these tenants, heaviest first.
fn metrics<'r, 'a>(tenants: &[WrittenTenant<'r, 'a>], room: &mut Room) -> Vec<WrittenMetric<'r, 'a>> {
    let mut order: Vec<(usize, &Metric<'_>)> = Vec::new();
    for (place, written) in tenants.iter().enumerate() {
        order.extend(written.tenant.metrics.iter().map(|metric| (place, metric)));
    }
    order::sort_by(&mut order, |(tenant, a), (other, b)| {
        heavier(a.active_estimate, b.active_estimate)
            .then_with(|| tenant.cmp(other))
            .then_with(|| (a.name, a.kind).cmp(&(b.name, b.kind)))
    });
    let mut written = Vec::new();
    for (tenant, metric) in order {
        let mut bytes = Vec::new();
        put_metric(&mut bytes, metric);
        if !room.take(bytes.len(), 8) {
            break;
        }
        written.push(WrittenMetric { tenant, metric, bytes, labels: Vec::new() });
    }
    written
}

/// Decisions, labels, examples and sketches.
fn detail(metrics: &mut [WrittenMetric<'_, '_>], room: &mut Room) {
    for written in metrics.iter_mut() {
        let mut bytes = Vec::new();
        written.metric.decisions.iter().take(DECISIONS_MAX).for_each(|one| put_decision(&mut bytes, one));
        if !room.take(bytes.len(), 10) {
            break;
        }
        written.bytes.append(&mut bytes);
    }
    let (heavy, light) = metrics.split_at_mut(DETAILED_METRICS.min(metrics.len()));
    put_labels(heavy, room, 11);
    for written in heavy.iter_mut() {
        if !put_sketch(&mut written.bytes, 6, written.metric.active, room, 15) {
            break;
        }
    }
    put_examples(heavy, room, PARTS);
    put_label_sketches(heavy, room);
    put_labels(light, room, PARTS);
}

/// Numbers of all labels of a metric, or of none: half of them would say that the others help less.
fn put_labels(metrics: &mut [WrittenMetric<'_, '_>], room: &mut Room, ceiling: usize) {
    for written in metrics {
        let mut order: Vec<&Label<'_>> = written.metric.labels.iter().collect();
        order::sort_by(&mut order, |a, b| {
            heavier(b.without_estimate, a.without_estimate)
                .then_with(|| (a.key, a.is_resource).cmp(&(b.key, b.is_resource)))
        });
        let labels: Vec<WrittenLabel<'_, '_>> = order
            .into_iter()
            .take(LABELS_MAX)
            .map(|label| {
                let mut bytes = Vec::new();
                put_label(&mut bytes, label);
                WrittenLabel { label, bytes }
            })
            .collect();
        let len = labels
            .iter()
            .fold(0_usize, |sum, label| sum.saturating_add(label.bytes.len()).saturating_add(room.prefix()));
        if !room.take(len, ceiling) {
            break;
        }
        written.labels = labels;
    }
}

fn put_examples(metrics: &mut [WrittenMetric<'_, '_>], room: &mut Room, ceiling: usize) {
    let labels = metrics.iter_mut().flat_map(|written| written.labels.iter_mut().take(LABELS_WITH_EXAMPLES));
    for written in labels {
        let mut bytes = Vec::new();
        written.label.examples.iter().take(EXAMPLES_MAX).for_each(|one| put_example(&mut bytes, one));
        if !room.take(bytes.len(), ceiling) {
            break;
        }
        written.bytes.append(&mut bytes);
    }
}

fn put_label_sketches(metrics: &mut [WrittenMetric<'_, '_>], room: &mut Room) {
    for written in metrics.iter_mut().flat_map(|written| written.labels.iter_mut()) {
        let label = written.label;
        if !put_sketch(&mut written.bytes, 4, label.without, room, PARTS)
            || !put_sketch(&mut written.bytes, 3, label.values, room, PARTS)
        {
            break;
        }
    }
}

/// Appends the field of a sketch, if there is one and room for it; false: no room.
fn put_sketch(out: &mut Vec<u8>, number: u32, sketch: Sketched<'_>, room: &mut Room, ceiling: usize) -> bool {
    let Some(sketch) = sketch else { return true };
    let mut bytes = Vec::new();
    sketch.encode(&mut bytes);
    let fits = room.take(bytes.len(), ceiling);
    if fits && !bytes.is_empty() {
        put_prefix(out, number, bytes.len());
        out.append(&mut bytes);
    }
    fits
}

/// The larger one first; numbers that are none count as they are written.
fn heavier(a: f64, b: f64) -> Ordering {
    real(b).total_cmp(&real(a))
}
