//! Emissions: closed windows as OTLP, immutable until a definite answer (DESIGN §3.5, §3.8).
//!
//! Points of one closing go out grouped by resource, scope and metric, sorted, in bodies of bounded size, one tenant a body.
//! Each folded point carries the mark (what was folded) and the writer as point attributes. A body is never changed and never
//! built again: the same bytes are sent until the upstream says yes, or no for good. Per tenant one emission is in flight.

mod metrics;
mod points;

use crate::hash::Identity;
use crate::ledger::PageId;
use crate::series::{Closed, Head};
use crate::units::UnixNanos;
use phoenix_plan::order;
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
#[derive(Clone, Debug)]
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

impl Entry {
    /// Without what stands in the body already: what waits for an answer may be many, and large.
    fn for_the_books(&self) -> Entry {
        Entry { slot: self.slot, id: self.id, page: self.page, closed: self.closed.for_the_books() }
    }
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
        order::sort_by(&mut points, |(a, x), (b, y)| {
            a.cmp(b).then(x.id.cmp(&y.id)).then(x.closed.time.cmp(&y.closed.time))
        });
        let mut rest = points.as_slice();
        while let Some((first, _)) = rest.first() {
            let mut size = 0usize;
            let fits = |p: &&(&Head, Entry)| {
                size = size.saturating_add(estimate(p.0, &p.1.closed, labels));
                p.0.tenant == first.tenant && size <= bytes_max
            };
            let len = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            let mut body = Vec::new();
            metrics::put(&mut body, now, labels);
            self.push(&first.tenant, body, now.iter().map(|(_, e)| e.for_the_books()).collect());
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
fn estimate(h: &Head, closed: &Closed, labels: &Labels<'_>) -> usize {
    const FIXED: usize = 256;
    let buckets = closed.content.heap_bytes().saturating_add(h.bounds.len()).saturating_mul(4);
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
        .saturating_add(buckets)
        .saturating_add(closed.exemplars.heap_bytes())
        .saturating_add(per_point.saturating_mul(4))
}
