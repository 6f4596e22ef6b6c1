//! The body of an emission down to its metrics: points of one resource, scope and metric stand together.
//!
//! In: sorted points with their heads. Out: an `ExportMetricsServiceRequest`. An average becomes two metrics, `NAME.sum` and `NAME.count`.

use super::points::{Parts, put_point};
use super::{Entry, Labels};
use crate::kind::Kind;
use crate::record::Temporality;
use crate::series::{Head, Value};
use crate::wire::{Fields, Span, put_bytes_field, put_varint_field};
use phoenix_plan::Function;

/// `ResourceMetrics` for each run of points with the same resource.
pub fn put(out: &mut Vec<u8>, points: &[(&Head, Entry)], labels: &Labels<'_>) {
    let (mut resource, mut scope) = (Vec::new(), Vec::new());
    let same_resource =
        |a: &&Head, b: &&Head| (&a.resource, &a.resource_schema) == (&b.resource, &b.resource_schema);
    let same_scope = |a: &&Head, b: &&Head| (&a.scope, &a.scope_schema) == (&b.scope, &b.scope_schema);
    let same_metric =
        |a: &&Head, b: &&Head| (&a.metric_head, a.kind, a.output) == (&b.metric_head, b.kind, b.output);
    for of_resource in points.chunk_by(|a, b| same_resource(&a.0, &b.0)) {
        let Some((head, _)) = of_resource.first() else { continue };
        resource.clear();
        put_bytes_field(&mut resource, 1, &head.resource);
        for of_scope in of_resource.chunk_by(|a, b| same_scope(&a.0, &b.0)) {
            let Some((head, _)) = of_scope.first() else { continue };
            scope.clear();
            put_bytes_field(&mut scope, 1, &head.scope);
            for of_metric in of_scope.chunk_by(|a, b| same_metric(&a.0, &b.0)) {
                let Some((head, _)) = of_metric.first() else { continue };
                put_metrics(&mut scope, head, of_metric, labels);
            }
            if !head.scope_schema.is_empty() {
                put_bytes_field(&mut scope, 3, &head.scope_schema);
            }
            put_bytes_field(&mut resource, 2, &scope);
        }
        if !head.resource_schema.is_empty() {
            put_bytes_field(&mut resource, 3, &head.resource_schema);
        }
        put_bytes_field(out, 1, &resource);
    }
}

/// What of a value a metric shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// All there is.
    Value,
    /// How many values an average is of.
    Members,
}

/// The metric of these points, or the two of an average.
fn put_metrics(scope: &mut Vec<u8>, head: &Head, points: &[(&Head, Entry)], labels: &Labels<'_>) {
    let Kind::Level { function, .. } = head.kind else {
        return put_metric(scope, &head.metric_head, Show::Value, points, labels);
    };
    match function {
        Function::Avg => {
            let sum = renamed(&head.metric_head, b".sum", true);
            put_metric(scope, &sum, Show::Value, points, labels);
            let count = renamed(&head.metric_head, b".count", false);
            put_metric(scope, &count, Show::Members, points, labels);
        }
        // A number of streams has no bytes or seconds.
        Function::Count => {
            put_metric(scope, &renamed(&head.metric_head, b"", false), Show::Value, points, labels);
        }
        Function::Sum | Function::Min | Function::Max | Function::Last => {
            put_metric(scope, &head.metric_head, Show::Value, points, labels);
        }
    }
}

fn put_metric(scope: &mut Vec<u8>, head: &[u8], show: Show, points: &[(&Head, Entry)], labels: &Labels<'_>) {
    let (mut metric, mut data) = (head.to_vec(), Vec::new());
    let mut parts = Parts::default();
    let (mut kind, mut output) = (Kind::Sum { monotonic: true }, Temporality::Cumulative);
    for (head, entry) in points {
        (kind, output) = (head.kind, head.output);
        put_point(&mut data, &mut parts, head, &entry.closed, show, labels);
    }
    let temporality = match output {
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
    };
    let number = match kind {
        Kind::Sum { monotonic } => {
            put_varint_field(&mut data, 2, temporality);
            if monotonic {
                put_varint_field(&mut data, 3, 1);
            }
            7
        }
        Kind::Level { function: Function::Sum, up_down: true } => {
            put_varint_field(&mut data, 2, temporality);
            7
        }
        Kind::Level { .. } => 5,
        Kind::Histogram => {
            put_varint_field(&mut data, 2, temporality);
            9
        }
        Kind::Exponential => {
            put_varint_field(&mut data, 2, temporality);
            10
        }
        Kind::Summary => 11,
    };
    put_bytes_field(&mut metric, number, &data);
    put_bytes_field(scope, 2, &metric);
}

/// The head of a metric with something behind its name, and without its unit where that does not hold.
fn renamed(head: &[u8], suffix: &[u8], keeps_unit: bool) -> Vec<u8> {
    let (mut out, mut fields) = (Vec::new(), Fields::new(head, Span::all(head)));
    // We wrote it ourselves: name, description, unit, each once.
    while let Ok(Some(field)) = fields.next() {
        let Ok(body) = field.bytes() else { continue };
        match field.number {
            1 => put_bytes_field(&mut out, 1, &[body.bytes(head), suffix].concat()),
            3 if !keeps_unit => {}
            number => put_bytes_field(&mut out, number, body.bytes(head)),
        }
    }
    out
}

/// Does a closed window show anything here?
pub fn shown(value: &Value, show: Show) -> Value {
    match (value, show) {
        (Value::Average(sum, _), Show::Value) => Value::Number(*sum),
        (Value::Average(_, members), Show::Members) => {
            Value::Number(crate::amount::Number::Int(i64::try_from(*members).unwrap_or(i64::MAX)))
        }
        (other, _) => other.clone(),
    }
}
