//! The points of a closed window: the zero point that opens a series, a flat one, the value, the stale marker that ends it.
//!
//! In: what closed, and what its series' points look like. Out: `data_points` fields. Each kind numbers its fields in its own way; what a
//! field means stands beside its number. Counts are written packed, as SDKs do.

use super::Labels;
use super::metrics::{Show, shown};
use crate::amount::Number;
use crate::decode::NumberPoint;
use crate::distribution::{Buckets, Distribution, Shape};
use crate::exemplar::Exemplars;
use crate::kind::Kind;
use crate::series::{Closed, Head, Value};
use crate::units::UnixNanos;
use crate::wire::{
    put_bytes_field, put_double_field, put_fixed64_field, put_prefix, put_varint, put_varint_field,
};

/// Buffers that are used again from point to point.
#[derive(Default)]
pub struct Parts {
    attributes: Vec<u8>,
    point: Vec<u8>,
}

/// Everything that a closed window says, in order of time.
pub fn put_point(
    out: &mut Vec<u8>,
    parts: &mut Parts,
    head: &Head,
    closed: &Closed,
    show: Show,
    labels: &Labels<'_>,
) {
    let number = attributes_number(head.kind);
    parts.attributes.clear();
    parts.attributes.extend_from_slice(&head.attributes);
    put_attribute(&mut parts.attributes, number, labels.mark.as_bytes(), &head.mark);
    put_attribute(&mut parts.attributes, number, labels.writer.as_bytes(), labels.writer_value.as_bytes());
    let value = shown(&closed.value, show);
    let none = Exemplars::default();
    let mut put = |start: UnixNanos, time: UnixNanos, value: &Value, exemplars: &Exemplars| {
        parts.point.clear();
        put_body(&mut parts.point, head, start, time, value);
        put_exemplars(&mut parts.point, head.kind, exemplars);
        parts.point.extend_from_slice(&parts.attributes);
        put_bytes_field(out, 1, &parts.point);
    };
    if let Some(zero_at) = closed.zero_at {
        put(zero_at, zero_at, &zero(&value), &none);
    }
    if let Some(flat_at) = closed.flat_at {
        put(closed.start, flat_at, &value, &none);
    }
    put(closed.start, closed.time, &value, &closed.exemplars);
    if let Some(stale_at) = closed.stale_at {
        put(closed.start, stale_at, &Value::Ended, &none);
    }
}

/// Number of `attributes` in a point of this kind.
fn attributes_number(kind: Kind) -> u32 {
    match kind {
        Kind::Sum { .. } | Kind::Level { .. } | Kind::Summary => 7,
        Kind::Histogram => 9,
        Kind::Exponential => 1,
    }
}

/// The same kind of value, counting from nothing.
fn zero(value: &Value) -> Value {
    match value {
        Value::Number(Number::Int(_)) => Value::Number(Number::Int(0)),
        Value::Number(Number::Double(_)) => Value::Number(Number::Double(0.0)),
        Value::Distribution(it) => {
            let mut none = Distribution::none_like(it);
            none.sumless = it.sumless;
            Value::Distribution(Box::new(none))
        }
        other => other.clone(),
    }
}

/// Times and value.
fn put_body(out: &mut Vec<u8>, head: &Head, start: UnixNanos, time: UnixNanos, value: &Value) {
    if !matches!(head.kind, Kind::Level { up_down: false, .. }) {
        put_fixed64_field(out, 2, start.0);
    }
    put_fixed64_field(out, 3, time.0);
    match value {
        Value::Number(Number::Double(v)) => put_double_field(out, 4, *v),
        Value::Number(Number::Int(v)) => put_fixed64_field(out, 6, v.cast_unsigned()),
        Value::Average(..) => {}
        Value::Distribution(it) => put_distribution(out, head, it),
        Value::Ended => put_end(out, head),
    }
}

/// The stale marker: no value, and the flag that says so. A histogram names its bounds, since a backend may have a series for each.
fn put_end(out: &mut Vec<u8>, head: &Head) {
    let flags = u64::from(NumberPoint::NO_RECORDED_VALUE);
    match head.kind {
        Kind::Sum { .. } | Kind::Level { .. } | Kind::Summary => put_varint_field(out, 8, flags),
        Kind::Histogram => {
            if !head.bounds.is_empty() {
                let buckets = (head.bounds.len() / 8).saturating_add(1);
                put_words(out, 6, (0..buckets).map(|_| 0));
                put_bytes_field(out, 7, &head.bounds);
            }
            put_varint_field(out, 10, flags);
        }
        Kind::Exponential => put_varint_field(out, 10, flags),
    }
}

fn put_distribution(out: &mut Vec<u8>, head: &Head, it: &Distribution) {
    put_fixed64_field(out, 4, it.count);
    if !it.sumless || head.kind == Kind::Summary {
        put_double_field(out, 5, it.sum.to_f64());
    }
    let least = match &it.shape {
        Shape::Bare => 11,
        Shape::Explicit(counts) => {
            put_words(out, 6, counts.iter().copied());
            put_bytes_field(out, 7, &head.bounds);
            11
        }
        Shape::Exponential(e) => {
            let zigzag = e.scale.wrapping_shl(1) ^ e.scale.wrapping_shr(31);
            put_varint_field(out, 6, u64::from(zigzag.cast_unsigned()));
            put_fixed64_field(out, 7, e.zero);
            put_side(out, 8, &e.positive);
            put_side(out, 9, &e.negative);
            put_double_field(out, 14, e.threshold);
            12
        }
    };
    if let Some((a, b)) = it.extremes.filter(|_| head.kind != Kind::Summary) {
        put_double_field(out, least, a);
        put_double_field(out, least.saturating_add(1), b);
    }
}

/// A packed field of fixed64.
fn put_words(out: &mut Vec<u8>, number: u32, words: impl ExactSizeIterator<Item = u64>) {
    put_prefix(out, number, words.len().saturating_mul(8));
    words.for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
}

/// `Buckets` of an exponential histogram.
fn put_side(out: &mut Vec<u8>, number: u32, side: &Buckets) {
    let (mut body, mut counts) = (Vec::new(), Vec::new());
    let zigzag = side.offset.wrapping_shl(1) ^ side.offset.wrapping_shr(31);
    put_varint_field(&mut body, 1, u64::from(zigzag.cast_unsigned()));
    side.counts.iter().for_each(|n| put_varint(&mut counts, *n));
    put_bytes_field(&mut body, 2, &counts);
    put_bytes_field(out, number, &body);
}

fn put_exemplars(out: &mut Vec<u8>, kind: Kind, exemplars: &Exemplars) {
    let number = match kind {
        Kind::Sum { .. } | Kind::Level { .. } => 5,
        Kind::Histogram => 8,
        Kind::Exponential => 11,
        // Summaries have none.
        Kind::Summary => return,
    };
    exemplars.iter().for_each(|it| put_bytes_field(out, number, &it.bytes));
}

/// One attribute of a point with a string value.
fn put_attribute(out: &mut Vec<u8>, number: u32, key: &[u8], value: &[u8]) {
    let mut any = Vec::new();
    put_bytes_field(&mut any, 1, value);
    let mut pair = Vec::new();
    put_bytes_field(&mut pair, 1, key);
    put_bytes_field(&mut pair, 2, &any);
    put_bytes_field(out, number, &pair);
}
