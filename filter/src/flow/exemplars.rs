//! Exemplars of a point that folds: they go along with its record, and say what was folded away.
//!
//! In: a point, and the fold that takes it. Out: entries in the message of its shard, each the exemplar's own bytes and after them, as
//! `filtered_attributes`, the labels that its series does not have: OTLP has this field for just that. Left out: exemplars without a
//! value, those whose labels are no text, since one would make a receiver refuse the whole body, and what is too large.

use super::kept::Place;
use super::points::Fold;
use super::{FlowError, MetricScope, Walk};
use crate::decode::{ExemplarAt, KeyValue, NumberPoint, Run};
use crate::identify;
use crate::limits::EXEMPLAR_BYTES_MAX;
use crate::units::UnixNanos;
use crate::wire::{Fields, Span, WireError, put_prefix};

/// Exemplars of one point that are looked at: SDKs send one a bucket at most.
const PER_POINT_MAX: usize = 64;
/// Exemplars of a batch that are looked at: each costs a walk over the labels of its point and resource.
const PER_BATCH_MAX: usize = 4_096;
/// Labels that are looked at for what was folded away; SDKs allow 128.
const LABELS_MAX: u32 = 256;
/// Number of the field `filtered_attributes`.
const FILTERED: u32 = 7;

impl Walk<'_> {
    /// Send the exemplars of a point along.
    pub fn exemplars(
        &mut self,
        point: &NumberPoint,
        within: &MetricScope<'_>,
        by: &Fold<'_>,
        place: Place,
    ) -> Result<(), FlowError> {
        if by.fold.exemplars_max == 0 {
            return Ok(());
        }
        let mut fields = point.exemplars.fields(self.buf);
        for _ in 0..PER_POINT_MAX {
            let Some((_, span)) = fields.next()? else { break };
            let it = ExemplarAt::read(self.buf, span)?;
            let Some(value) = it.value.filter(|v| v.is_finite() && it.is_plain) else { continue };
            self.s.exemplars_seen = self.s.exemplars_seen.saturating_add(1);
            if self.s.exemplars_seen > PER_BATCH_MAX {
                break;
            }
            if !self.own_labels_are_text(span)? {
                continue;
            }
            let body = &mut self.s.exemplar;
            body.clear();
            body.extend_from_slice(span.bytes(self.buf));
            let labels = &by.fold.labels;
            put_dropped(self.buf, &point.attributes, body, |key| labels.keeps_attribute(key))?;
            let plan = &self.plan.plan;
            put_dropped(self.buf, &within.resource, body, |key| {
                labels.keeps_resource(key) || !plan.promotes_resource(key)
            })?;
            if body.len() <= EXEMPLAR_BYTES_MAX
                && let Some(writer) = self.s.writers.get_mut(place.shard)
            {
                writer.exemplar(place.index, value, UnixNanos(it.time_ns), body);
            }
        }
        Ok(())
    }

    fn own_labels_are_text(&self, span: Span) -> Result<bool, WireError> {
        let (mut fields, mut own) = (Fields::new(self.buf, span), Run::new(FILTERED));
        while let Some(field) = fields.next()? {
            if field.number == FILTERED {
                own.add(&field)?;
            }
        }
        let mut it = own.attributes(self.buf);
        while let Some(kv) = it.next()? {
            if !is_text(self.buf, &kv)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Append the attributes that a fold does not keep.
fn put_dropped(
    buf: &[u8],
    run: &Run,
    out: &mut Vec<u8>,
    keeps: impl Fn(&[u8]) -> bool,
) -> Result<(), WireError> {
    if run.count > LABELS_MAX {
        return Ok(());
    }
    let mut it = run.attributes(buf);
    while let Some(kv) = it.next()? {
        if out.len() > EXEMPLAR_BYTES_MAX || keeps(kv.key.bytes(buf)) || !is_text(buf, &kv)? {
            continue;
        }
        if let Some(field) = Fields::new(buf, kv.field).next()? {
            let body = field.bytes()?.bytes(buf);
            put_prefix(out, FILTERED, body.len());
            out.extend_from_slice(body);
        }
    }
    Ok(())
}

fn is_text(buf: &[u8], kv: &KeyValue) -> Result<bool, WireError> {
    Ok(core::str::from_utf8(kv.key.bytes(buf)).is_ok() && identify::is_text(buf, &kv.value, 1)?)
}
