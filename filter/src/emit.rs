//! Emissions: closed windows as OTLP, immutable until a definite answer (DESIGN §3.5, §3.8).
//!
//! Points of one closing go out grouped by resource, scope and metric, sorted, in bodies of bounded size, one tenant a body.
//! Each folded point carries the mark (what was folded) and the writer as point attributes. A body is never changed and never
//! built again: the same bytes are sent until the upstream says yes, or no for good. Per tenant one emission is in flight.

use crate::amount::Number;
use crate::decode::NumberPoint;
use crate::hash::Identity;
use crate::ledger::PageId;
use crate::record::Temporality;
use crate::series::{Closed, Head};
use crate::units::UnixNanos;
use crate::wire::{put_bytes_field, put_fixed64_field, put_varint_field};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// First wait before the same bytes are sent again; doubled each time.
const RETRY_FIRST_NS: u64 = 500_000_000;
/// Longest wait between two tries: an upstream that is back should not be left waiting.
const RETRY_MAX_NS: u64 = 15_000_000_000;

/// What the upstream said to an emission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken: 2xx, or grpc-status 0.
    Accepted,
    /// Refused for good: sending the same bytes again cannot help.
    Refused,
    /// Nobody knows, or not now: the same bytes must be sent again.
    Unknown,
}

/// One point in an emission, for the books.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Slot of its series …
    pub slot: u32,
    /// … and who that was when the window closed.
    pub id: Identity,
    /// Its page in the ledger.
    pub page: PageId,
    /// The point.
    pub closed: Closed,
}

/// A body on its way out.
pub struct Emission {
    /// Counts emissions of this owner from 1.
    pub sequence: u64,
    /// Whose it is.
    pub tenant: Box<[u8]>,
    /// An `ExportMetricsServiceRequest`.
    pub body: Box<[u8]>,
    /// Its points, for the books.
    pub entries: Box<[Entry]>,
    in_flight: bool,
    tries: u32,
    not_before: UnixNanos,
}

/// Emissions without a definite answer, oldest first.
#[derive(Default)]
pub struct Outbox {
    queue: VecDeque<Emission>,
    bytes: usize,
    bytes_of: BTreeMap<Box<[u8]>, usize>,
    sequence: u64,
}

impl Outbox {
    /// Bytes of all bodies in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// May this tenant not have more here? One tenant may hold half of the limit, so that an upstream that refuses one of them
    /// does not hold up the others.
    pub fn is_full_for(&self, tenant: &[u8], limit_bytes: usize) -> bool {
        let theirs = self.bytes_of.get(tenant).copied().unwrap_or(0);
        self.bytes >= limit_bytes || theirs >= limit_bytes / 2
    }

    /// Number of emissions in it.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Nothing waits?
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Everything that waits, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Emission> {
        self.queue.iter()
    }

    fn push(&mut self, tenant: &[u8], body: Vec<u8>, entries: Vec<Entry>) {
        self.sequence = self.sequence.saturating_add(1);
        self.bytes = self.bytes.saturating_add(body.len());
        let theirs = self.bytes_of.entry(tenant.into()).or_default();
        *theirs = theirs.saturating_add(body.len());
        self.queue.push_back(Emission {
            sequence: self.sequence,
            tenant: tenant.into(),
            body: body.into(),
            entries: entries.into(),
            in_flight: false,
            tries: 0,
            not_before: UnixNanos(0),
        });
    }

    /// The next emission that may be sent now: the oldest of a tenant that has none in flight, and whose wait is over. It counts
    /// as in flight until [`Outbox::answer`] or [`Outbox::forget_flights`].
    pub fn next(&mut self, now: UnixNanos) -> Option<&Emission> {
        let mut tenants = BTreeSet::new();
        let ready = |e: &Emission| !e.in_flight && e.not_before <= now;
        let at = self.queue.iter().position(|e| tenants.insert(&e.tenant) && ready(e));
        let e = self.queue.get_mut(at?)?;
        e.in_flight = true;
        Some(e)
    }

    /// What the upstream said. A definite answer takes the emission out and returns it.
    pub fn answer(&mut self, sequence: u64, answer: Answer, now: UnixNanos) -> Option<Emission> {
        let at = self.queue.iter().position(|e| e.sequence == sequence)?;
        if answer == Answer::Unknown {
            let e = self.queue.get_mut(at)?;
            e.in_flight = false;
            let wait = RETRY_FIRST_NS.saturating_mul(1u64.checked_shl(e.tries).unwrap_or(u64::MAX));
            e.tries = e.tries.saturating_add(1).min(16);
            e.not_before = now.plus(wait.min(RETRY_MAX_NS));
            return None;
        }
        let e = self.queue.remove(at)?;
        self.bytes = self.bytes.saturating_sub(e.body.len());
        if let Some(theirs) = self.bytes_of.get_mut(&e.tenant) {
            *theirs = theirs.saturating_sub(e.body.len());
            if *theirs == 0 {
                self.bytes_of.remove(&e.tenant);
            }
        }
        Some(e)
    }

    /// The embedder has dropped all calls without telling (a configuration push does that): send again.
    pub fn forget_flights(&mut self) {
        for e in &mut self.queue {
            e.in_flight = false;
        }
    }

    /// Pack closed windows into bodies of about `bytes_max` at most. `points` come with their heads, in any order.
    pub fn pack(&mut self, mut points: Vec<(&Head, Entry)>, labels: &Labels<'_>, bytes_max: usize) {
        points
            .sort_by(|(a, x), (b, y)| a.cmp(b).then(x.id.cmp(&y.id)).then(x.closed.time.cmp(&y.closed.time)));
        let mut rest = points.as_slice();
        while let Some((first, _)) = rest.first() {
            let mut size = 0usize;
            let fits = |p: &&(&Head, Entry)| {
                size = size.saturating_add(estimate(p.0, labels));
                p.0.tenant == first.tenant && size <= bytes_max
            };
            let len = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            let mut body = Vec::new();
            put_requests(&mut body, now, labels);
            self.push(&first.tenant, body, now.iter().map(|(_, e)| *e).collect());
            rest = later;
        }
    }
}

/// The labels that only folded points carry.
pub struct Labels<'a> {
    /// Name of the label that says what was folded.
    pub mark: &'a str,
    /// Name of the label that says who wrote it.
    pub writer: &'a str,
    /// Who writes.
    pub writer_value: &'a str,
}

/// Upper estimate of what a point costs in a body: all of its head (shared or not) and four points.
fn estimate(h: &Head, labels: &Labels<'_>) -> usize {
    const FIXED: usize = 256;
    let shared = [&h.resource, &h.resource_schema, &h.scope, &h.scope_schema, &h.metric_head];
    let per_point = h
        .attributes
        .len()
        .saturating_add(h.mark.len())
        .saturating_add(labels.mark.len())
        .saturating_add(labels.writer.len())
        .saturating_add(labels.writer_value.len());
    shared
        .iter()
        .fold(FIXED, |sum, part| sum.saturating_add(part.len()))
        .saturating_add(per_point.saturating_mul(4))
}

/// `ResourceMetrics` for each run of points with the same resource.
fn put_requests(out: &mut Vec<u8>, points: &[(&Head, Entry)], labels: &Labels<'_>) {
    let (mut resource, mut scope, mut metric, mut sum) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let same_resource =
        |a: &&Head, b: &&Head| (&a.resource, &a.resource_schema) == (&b.resource, &b.resource_schema);
    let same_scope = |a: &&Head, b: &&Head| (&a.scope, &a.scope_schema) == (&b.scope, &b.scope_schema);
    let same_metric = |a: &&Head, b: &&Head| (&a.metric_head, a.output) == (&b.metric_head, b.output);
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
                metric.clear();
                metric.extend_from_slice(&head.metric_head);
                sum.clear();
                put_sum(&mut sum, of_metric, labels);
                put_bytes_field(&mut metric, 7, &sum);
                put_bytes_field(&mut scope, 2, &metric);
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

/// The body of a `Sum` with all its points.
fn put_sum(out: &mut Vec<u8>, points: &[(&Head, Entry)], labels: &Labels<'_>) {
    let (mut attributes, mut point) = (Vec::new(), Vec::new());
    let mut output = Temporality::Cumulative;
    for (head, entry) in points {
        output = head.output;
        attributes.clear();
        attributes.extend_from_slice(&head.attributes);
        put_attribute(&mut attributes, labels.mark.as_bytes(), &head.mark);
        put_attribute(&mut attributes, labels.writer.as_bytes(), labels.writer_value.as_bytes());
        let c = &entry.closed;
        if let Some(zero_at) = c.zero_at {
            let zero = match c.value {
                Number::Int(_) => Number::Int(0),
                Number::Double(_) => Number::Double(0.0),
            };
            put_point(out, &mut point, &attributes, zero_at, zero_at, Some(zero));
        }
        for at in c.flat_at.into_iter().chain([c.time]) {
            put_point(out, &mut point, &attributes, c.start, at, Some(c.value));
        }
        if let Some(stale_at) = c.stale_at {
            put_point(out, &mut point, &attributes, c.start, stale_at, None);
        }
    }
    put_varint_field(
        out,
        2,
        match output {
            Temporality::Delta => 1,
            Temporality::Cumulative => 2,
        },
    );
    put_varint_field(out, 3, 1);
}

/// A point; without a value it is a stale marker.
fn put_point(
    out: &mut Vec<u8>,
    buf: &mut Vec<u8>,
    attributes: &[u8],
    start: UnixNanos,
    time: UnixNanos,
    value: Option<Number>,
) {
    buf.clear();
    put_fixed64_field(buf, 2, start.0);
    put_fixed64_field(buf, 3, time.0);
    match value {
        Some(Number::Double(v)) => put_fixed64_field(buf, 4, v.to_bits()),
        Some(Number::Int(v)) => put_fixed64_field(buf, 6, v.cast_unsigned()),
        None => put_varint_field(buf, 8, u64::from(NumberPoint::NO_RECORDED_VALUE)),
    }
    buf.extend_from_slice(attributes);
    put_bytes_field(out, 1, buf);
}

/// One `attributes` field of a data point with a string value.
fn put_attribute(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let mut any = Vec::new();
    put_bytes_field(&mut any, 1, value);
    let mut pair = Vec::new();
    put_bytes_field(&mut pair, 1, key);
    put_bytes_field(&mut pair, 2, &any);
    put_bytes_field(out, 7, &pair);
}
