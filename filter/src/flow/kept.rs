//! What a fold keeps of a point, and the dictionary of the series that a batch folds into.
//!
//! A series is identified by what is kept: tenant, promoted and kept resource attributes, scope, metric, output temporality, kept
//! point attributes, and the mark. Its first point of a batch writes it into the dictionary of its shard; the others find it by
//! identity. A series whose labels cannot be written (broken UTF-8, a key given twice, one of our own labels) is remembered as
//! such, and its points pass untouched; so is one whose head is larger than any table could hold many of.
//!
//! What came before is recognised, byte for byte: the attributes of a point that the [`Trail`] expects or finds; of others each one alone
//! ([`Parts`]); what is left is read and hashed. Heads that were written before are copied ([`Heads`]).

use super::guard::{LABELS_MAX, PASS, label_id};
use super::heads::Heads;
use super::parts::{Attribute, Parts};
use super::trail::{Known, Trail};
use crate::decode::{Guess, KeyValue, Metric, Run, Scope};
use crate::hash::{Domain, Hasher, Identity};
use crate::identify::{self, ById};
use crate::kind::Kind;
use crate::limits::HEAD_BYTES_MAX;
use crate::measure::Label;
use crate::record::{SeriesHead, Temporality, Writer};
use crate::route::{Compiled, Fold};
use crate::switch::Turn;
use crate::wire::{Span, WireError, put_bytes_field, same};
use phoenix_plan::order;
use std::borrow::Cow;

/// Everything about a point but its own attributes.
pub struct Kept<'a> {
    pub plan: &'a Compiled,
    pub fold: &'a Fold,
    /// The series' part in a switch.
    pub turn: Option<Turn>,
    pub resource: Run,
    pub resource_schema: Span,
    /// The scope's body.
    pub scope: Span,
    pub scope_schema: Span,
    pub scope_id: Identity,
    pub metric: &'a Metric,
    pub kind: Kind,
    pub output: Temporality,
    /// Of an explicit histogram: its bounds as the wire has them, and their identity. Else nothing, and zero.
    pub bounds: (&'a [u8], Identity),
    pub tenant: &'a [u8],
    pub tenant_id: Identity,
}

impl Kept<'_> {
    /// Identity of the metric on the way out.
    fn metric_id(&self, buf: &[u8]) -> Identity {
        let (facts, len) = self.kind.facts(self.output);
        let facts = facts.get(..len).unwrap_or_default();
        identify::metric(&self.plan.hasher, buf, self.metric.name, self.metric.unit, facts)
    }

    /// What the mark says: labels, for a summary the quantiles too, for a histogram which bounds it has, so that series of different
    /// bounds never share their labels.
    fn mark(&self) -> Cow<'_, [u8]> {
        let labels = &*self.fold.mark;
        match self.kind {
            Kind::Histogram => {
                let mut mark = labels.to_vec();
                mark.extend_from_slice(b";bounds=");
                // Half of the low half: a number to tell apart the few sets of bounds that a metric has.
                for nibble in (0..8u32).rev() {
                    let digit = self.bounds.1.low().wrapping_shr(nibble.wrapping_mul(4)) & 15;
                    mark.push(HEX.get(digit as usize).copied().unwrap_or(b'0'));
                }
                Cow::Owned(mark)
            }
            Kind::Summary => Cow::Borrowed(&self.fold.summary_mark),
            _ => Cow::Borrowed(labels),
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Where a series stands: shard, and index in that shard's dictionary.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub shard: usize,
    pub index: u32,
}

/// What [`Dictionary::place`] found.
pub struct Found {
    /// Identity of all attributes of the point, for its stream.
    pub attributes_id: Identity,
    /// Place of its series; `None` when it cannot be written.
    pub place: Option<Place>,
}

/// A resource as a fold keeps it.
struct KeptResource {
    fold: usize,
    id: Identity,
    body: Option<Vec<u8>>,
}

/// What the series of one metric under one fold share.
#[derive(Clone, Copy)]
struct Base {
    fold: usize,
    /// Identity of such a series but for its point attributes.
    id: Identity,
    /// What their heads say beyond their identity.
    context: Identity,
}

/// Identities of keys that came: streams have few and in one order, and each value that was never seen asks for that of its key.
#[derive(Default)]
struct KeyIds {
    known: Vec<(Box<[u8]>, u64)>,
    /// The one that was asked for last.
    last: usize,
    /// The one that goes next.
    oldest: usize,
}

/// Keys that are remembered, and bytes of the longest: a few kilobytes, whatever is sent.
const KEYS_MAX: usize = 32;
const KEY_BYTES_MAX: usize = 64;

impl KeyIds {
    /// Half of the identity of a label's key.
    fn id(&mut self, h: &Hasher, key: &[u8]) -> u64 {
        let is = |at: &usize| self.known.get(*at).is_some_and(|(known, _)| same(known, key));
        // One of each stream's values is new, or all of them.
        let likely = [self.last, self.last.saturating_add(1)].into_iter().find(is);
        let at = likely.or_else(|| (0..self.known.len()).find(is));
        if let Some((at, (_, id))) = at.and_then(|at| Some((at, self.known.get(at)?))) {
            self.last = at;
            return *id;
        }
        let id = label_id(h, key, false);
        if key.len() <= KEY_BYTES_MAX {
            let new = (key.into(), id);
            // Until all places are taken there is nothing at the next one.
            match self.known.get_mut(self.oldest) {
                Some(place) => *place = new,
                None => self.known.push(new),
            }
            self.oldest = self.oldest.saturating_add(1) % KEYS_MAX;
        }
        id
    }
}

/// The series of one batch.
#[derive(Default)]
pub struct Dictionary {
    places: ById<Option<Place>>,
    resources: Vec<KeptResource>,
    /// By fold; valid within one metric.
    bases: Vec<Base>,
    attributes: Vec<KeyValue>,
    body: Vec<u8>,
    head: Vec<u8>,
    parts: Parts,
    keys: KeyIds,
    trail: Trail,
    /// Where in the batch a guess of the trail was right, until somebody asks.
    guessed: Span,
    heads: Heads,
    /// The attributes of a point, and where in the batch those are.
    listed: Vec<Attribute>,
    listed_of: Span,
    /// Where in the batch the attributes are that the trail knew last, and the number of their set.
    known_of: (Span, u32),
    /// Labels of a point, as they are measured.
    labels: Vec<Label>,
    /// Streams are measured: then the trail keeps their labels.
    pub measures: bool,
    /// Identity of all attributes of the point that was looked up last, until somebody takes it away.
    pub latest: Option<Identity>,
}

impl Dictionary {
    pub fn clear(&mut self) {
        self.places.clear();
        self.guessed = Span::EMPTY;
        self.listed_of = Span::EMPTY;
        self.known_of = (Span::EMPTY, 0);
        self.enter_resource();
    }

    /// Another plan: nothing that was known holds.
    pub fn forget(&mut self) {
        self.parts.clear();
        self.keys = KeyIds::default();
        self.trail.clear();
        self.heads.clear();
    }

    /// The attributes that the next point is likely to have.
    #[inline]
    pub fn guess(&self) -> Guess<'_> {
        self.trail.guess()
    }

    /// The point at hand has them, at this place in the batch.
    #[inline]
    pub fn guessed(&mut self, attributes: Span) {
        self.guessed = attributes;
    }

    /// The walk went into another resource.
    pub fn enter_resource(&mut self) {
        self.resources.clear();
        self.enter_metric();
    }

    /// The walk went into another metric.
    pub fn enter_metric(&mut self) {
        self.bases.clear();
    }

    /// For a point that has the attributes that were guessed: their identity, and its series, where that has points in this batch already.
    /// `None` leaves everything to [`Dictionary::place`], also where the identity is `wanted` for something else.
    #[inline(always)]
    pub fn recall(
        &mut self,
        fold: usize,
        wanted: impl FnOnce(Identity) -> bool,
    ) -> Option<(Identity, Place)> {
        let base = self.bases.first().filter(|base| base.fold == fold)?;
        let known = self.trail.expected(fold)?;
        if wanted(known.all) {
            return None;
        }
        let place = (*self.places.get(&base.id.plus(known.kept).plus(own(fold)))?)?;
        self.trail.pass_over();
        Some((known.all, place))
    }

    /// Find the series of a point, or write it down.
    pub fn place(
        &mut self,
        buf: &[u8],
        kept: &Kept<'_>,
        attributes: &Run,
        writers: &mut [Writer],
    ) -> Result<Found, WireError> {
        let mut base = self.base(buf, kept)?;
        base.id = base.id.plus(kept.bounds.1);
        let known = self.known(buf, kept, attributes)?;
        let series = base.id.plus(known.kept);
        let key = series.plus(own(kept.fold.number));
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => {
                let place = self.open(buf, kept, (series, base.context), attributes, writers)?;
                self.places.insert(key, place);
                place
            }
        };
        Ok(Found { attributes_id: known.all, place })
    }

    /// What is known about the guess under a fold, if the point at hand has it: the caller says so by going on with [`Dictionary::pass_over`].
    #[inline(always)]
    pub fn expected(&self, fold: usize) -> Option<Known> {
        self.trail.expected(fold)
    }

    /// The attributes of a point one by one, up to [`LABELS_MAX`].
    pub fn labels(&mut self, buf: &[u8], h: &Hasher, attributes: &Run) -> Result<&[Attribute], WireError> {
        self.list_all(buf, h, attributes)?;
        Ok(&self.listed)
    }

    fn list_all(&mut self, buf: &[u8], h: &Hasher, attributes: &Run) -> Result<(), WireError> {
        // The walk into a set that was not known has just left them here.
        if self.listed_of != attributes.span || attributes.span.is_empty() {
            self.listed.clear();
            self.listed_of = attributes.span;
            let mut it = attributes.fields(buf);
            while self.listed.len() < LABELS_MAX as usize && it.advance()? {
                self.list(buf, h, it.place(), PASS as u32, |_| true)?;
            }
        }
        Ok(())
    }

    /// The same as they are measured: of a set that came before nothing is read.
    #[inline]
    pub fn measured(&mut self, buf: &[u8], h: &Hasher, attributes: &Run) -> Result<&[Label], WireError> {
        self.labels.clear();
        let (known_of, set) = self.known_of;
        let is_known = known_of == attributes.span && !attributes.span.is_empty();
        if !is_known || !self.trail.labels(set, attributes.span.start, &mut self.labels) {
            self.list_all(buf, h, attributes)?;
            self.labels.extend(self.listed.iter().map(Attribute::measured));
        }
        Ok(&self.labels)
    }

    /// Put an attribute, field and content, to the end of the list. Written in place, for a copy of what was just written would wait for it.
    #[inline(always)]
    fn list(
        &mut self,
        buf: &[u8],
        h: &Hasher,
        (field, content): (Span, Span),
        fold: u32,
        keeps: impl Fn(&[u8]) -> bool,
    ) -> Result<(), WireError> {
        if let Some(part) = self.parts.find(buf, field, fold) {
            self.listed.push(part.at(field));
            return Ok(());
        }
        let (found, key) = read(buf, h, (field, content))?;
        let found = Attribute { is_kept: keeps(key), label: self.keys.id(h, key), ..found };
        self.parts.learn(buf, field, fold, &found);
        self.listed.push(found);
        Ok(())
    }

    /// The point at hand had what was guessed.
    #[inline(always)]
    pub fn pass_over(&mut self) {
        self.trail.pass_over();
    }

    /// The same, of a point with its attributes at this place of the batch, whose labels may be asked for.
    #[inline]
    pub fn pass_over_at(&mut self, attributes: Span) {
        self.trail.pass_over();
        self.known_of = (attributes, self.trail.last());
    }

    fn known(&mut self, buf: &[u8], kept: &Kept<'_>, attributes: &Run) -> Result<Known, WireError> {
        let keeps = |key: &[u8]| kept.fold.labels.keeps_attribute(key);
        self.known_under(buf, &kept.plan.hasher, kept.fold.number, keeps, attributes)
    }

    /// The identities of the attributes of a point under a fold; `keeps` says which of them it keeps.
    pub fn known_under(
        &mut self,
        buf: &[u8],
        h: &Hasher,
        fold: usize,
        keeps: impl Fn(&[u8]) -> bool,
        attributes: &Run,
    ) -> Result<Known, WireError> {
        let known = self.find_under(buf, h, fold, keeps, attributes)?;
        self.latest = Some(known.all);
        Ok(known)
    }

    fn find_under(
        &mut self,
        buf: &[u8],
        h: &Hasher,
        fold: usize,
        keeps: impl Fn(&[u8]) -> bool,
        attributes: &Run,
    ) -> Result<Known, WireError> {
        let is_guessed = self.guessed == attributes.span && !attributes.span.is_empty();
        // The trail goes on with this answer, whichever it is: the guess was one of before.
        self.guessed = Span::EMPTY;
        if let Some(known) = self.trail.expected(fold).filter(|_| is_guessed) {
            self.pass_over_at(attributes.span);
            return Ok(known);
        }
        let bytes = attributes.span.bytes(buf);
        let hash = match self.trail.find(bytes, fold) {
            Ok(known) => {
                self.known_of = (attributes.span, self.trail.last());
                return Ok(known);
            }
            Err(hash) => hash,
        };
        self.known_of = (Span::EMPTY, 0);
        let (mut known, mut count, mut end) = (Known::default(), 0_u32, attributes.span.start);
        self.listed.clear();
        self.listed_of = Span::EMPTY;
        let mut it = attributes.fields(buf);
        // No plan has so many folds.
        let part_fold = u32::try_from(fold).unwrap_or(u32::MAX);
        while it.advance()? {
            let (field, content) = it.place();
            self.list(buf, h, (field, content), part_fold, &keeps)?;
            if let Some(part) = self.listed.last() {
                known.all = known.all.plus(part.id);
                if part.is_kept {
                    known.kept = known.kept.plus(part.id);
                }
            }
            self.listed.truncate(LABELS_MAX as usize);
            count = if field.start == end { count.saturating_add(1) } else { 0 };
            end = field.end;
        }
        self.listed_of = attributes.span;
        let is_whole = count == attributes.count;
        let listed = if self.measures { self.listed.as_slice() } else { &[] };
        let set = (bytes, if is_whole { count } else { 0 });
        self.trail.meet(hash, set, fold, known, (listed, attributes.span.start));
        Ok(known)
    }

    /// What the series of this metric under this fold share.
    fn base(&mut self, buf: &[u8], kept: &Kept<'_>) -> Result<Base, WireError> {
        if let Some(base) = self.bases.iter().find(|base| base.fold == kept.fold.number) {
            return Ok(*base);
        }
        let (h, m) = (&kept.plan.hasher, kept.metric);
        let metric = kept.metric_id(buf);
        let at = self.resource(buf, kept)?;
        let resource = self.resources.get(at).map(|r| r.id).unwrap_or_default();
        let id = kept.tenant_id.plus(resource).plus(kept.scope_id).plus(metric).plus(kept.fold.mark_id);
        let pair = |a: Span, b: Span| h.pair(Domain::Head, a.bytes(buf), b.bytes(buf)).to_le_bytes();
        let (scope, others) =
            (pair(kept.scope, kept.scope_schema), pair(m.description, kept.resource_schema));
        let context = h.pair(Domain::Head, &scope, &others);
        let base = Base { fold: kept.fold.number, id, context };
        self.bases.push(base);
        Ok(base)
    }

    /// Identity of the series that takes what finds the owner's table full.
    fn overflow(&self, buf: &[u8], kept: &Kept<'_>) -> Identity {
        let overflow = kept.plan.hasher.pair(Domain::Series, b"overflow", b"");
        kept.tenant_id.plus(kept.metric_id(buf)).plus(kept.bounds.1).plus(overflow)
    }

    /// The resource as the fold keeps it: index into `resources`.
    fn resource(&mut self, buf: &[u8], kept: &Kept<'_>) -> Result<usize, WireError> {
        if let Some(at) = self.resources.iter().position(|r| r.fold == kept.fold.number) {
            return Ok(at);
        }
        let mut id = Identity::ZERO;
        self.attributes.clear();
        let mut it = kept.resource.attributes(buf);
        while let Some(kv) = it.next()? {
            let key = kv.key.bytes(buf);
            if kept.fold.labels.keeps_resource(key) && kept.plan.plan.promotes_resource(key) {
                id = id.plus(identify::attribute(&kept.plan.hasher, Domain::Resource, buf, &kv)?);
                self.attributes.push(kv);
            }
        }
        let mut body = Vec::new();
        let writable = put_sorted(buf, kept, &mut self.attributes, &mut body)?;
        self.resources.push(KeptResource { fold: kept.fold.number, id, body: writable.then_some(body) });
        Ok(self.resources.len().saturating_sub(1))
    }

    /// Put a series into the dictionary of its shard, if it can be written: a copy of what was written before, where that was.
    fn open(
        &mut self,
        buf: &[u8],
        kept: &Kept<'_>,
        (id, context): (Identity, Identity),
        attributes: &Run,
        writers: &mut [Writer],
    ) -> Result<Option<Place>, WireError> {
        let key = id.plus(context).plus(own(kept.fold.number));
        let shards = u64::try_from(writers.len()).unwrap_or(1).max(1);
        let shard = usize::try_from(id.low().checked_rem(shards).unwrap_or(0)).unwrap_or(0);
        let Some(writer) = writers.get_mut(shard) else { return Ok(None) };
        if let Some(head) = self.heads.get(key, kept.turn) {
            return Ok(Some(Place { shard, index: writer.series_again(head) }));
        }
        self.attributes.clear();
        let mut it = attributes.attributes(buf);
        while let Some(kv) = it.next()? {
            if kept.fold.labels.keeps_attribute(kv.key.bytes(buf)) {
                self.attributes.push(kv);
            }
        }
        let Some(index) = self.write(buf, kept, id, writer)? else { return Ok(None) };
        self.heads.put(key, kept.turn, writer.last_series());
        Ok(Some(Place { shard, index }))
    }

    /// Write a series whose kept attributes are at hand, if it can be written.
    fn write(
        &mut self,
        buf: &[u8],
        kept: &Kept<'_>,
        id: Identity,
        writer: &mut Writer,
    ) -> Result<Option<u32>, WireError> {
        let m = kept.metric;
        let shared = [m.name, m.description, m.unit, kept.scope, kept.scope_schema, kept.resource_schema];
        let tenant_and_bounds = kept.tenant.len().saturating_add(kept.bounds.0.len());
        let shared_bytes = shared.iter().fold(tenant_and_bounds, |sum, span| sum.saturating_add(span.len()));
        if shared_bytes > HEAD_BYTES_MAX {
            return Ok(None);
        }
        self.body.clear();
        if !put_sorted(buf, kept, &mut self.attributes, &mut self.body)? || !is_text(buf, kept)? {
            return Ok(None);
        }
        let at = self.resource(buf, kept)?;
        let Some(resource) = self.resources.get(at).and_then(|r| r.body.as_deref()) else { return Ok(None) };
        let bytes = shared_bytes.saturating_add(resource.len()).saturating_add(self.body.len());
        if bytes > HEAD_BYTES_MAX {
            return Ok(None);
        }
        self.head.clear();
        for (number, span) in [(1, m.name), (2, m.description), (3, m.unit)] {
            if !span.is_empty() {
                put_bytes_field(&mut self.head, number, span.bytes(buf));
            }
        }
        let mark = kept.mark();
        let index = writer.series(&SeriesHead {
            id,
            overflow: self.overflow(buf, kept),
            windows: kept.fold.windows,
            kind: kept.kind,
            output: kept.output,
            expiry_ns: kept.fold.expiry_ns,
            exemplars_max: kept.fold.exemplars_max,
            turn: kept.turn,
            since: kept.fold.since,
            tenant: kept.tenant,
            metric: m.name.bytes(buf),
            mark: &mark,
            resource,
            resource_schema: kept.resource_schema.bytes(buf),
            scope: kept.scope.bytes(buf),
            scope_schema: kept.scope_schema.bytes(buf),
            metric_head: &self.head,
            attributes: &self.body,
            bounds: kept.bounds.0,
        });
        Ok(Some(index))
    }
}

/// Two rules may write one series, one of them with a part in a switch: each has a head of its own.
fn own(fold: usize) -> Identity {
    Identity(fold as u128)
}

/// Copy the attributes sorted by key, whole fields with their tags. False when they cannot be written.
fn put_sorted(
    buf: &[u8],
    kept: &Kept<'_>,
    list: &mut [KeyValue],
    out: &mut Vec<u8>,
) -> Result<bool, WireError> {
    order::sort_by(list, |a, b| a.key.bytes(buf).cmp(b.key.bytes(buf)));
    let ours = [kept.plan.plan.mark_label.as_bytes(), kept.plan.plan.writer_label.as_bytes()];
    let mut before: Option<&[u8]> = None;
    for kv in list.iter() {
        let key = kv.key.bytes(buf);
        let text = core::str::from_utf8(key).is_ok() && identify::is_text(buf, &kv.value, 1)?;
        if out.len() > HEAD_BYTES_MAX || !text || before == Some(key) || ours.contains(&key) {
            return Ok(false);
        }
        before = Some(key);
        out.extend_from_slice(kv.field.bytes(buf));
    }
    Ok(true)
}

/// Is everything else that the emission copies text?
fn is_text(buf: &[u8], kept: &Kept<'_>) -> Result<bool, WireError> {
    if core::str::from_utf8(kept.tenant).is_err() {
        return Ok(false);
    }
    let scope = Scope::read(buf, kept.scope)?;
    let m = kept.metric;
    let plain =
        [m.name, m.description, m.unit, scope.name, scope.version, kept.resource_schema, kept.scope_schema];
    if plain.iter().any(|span| core::str::from_utf8(span.bytes(buf)).is_err()) {
        return Ok(false);
    }
    let mut it = scope.attributes.attributes(buf);
    while let Some(kv) = it.next()? {
        let text = core::str::from_utf8(kv.key.bytes(buf)).is_ok() && identify::is_text(buf, &kv.value, 1)?;
        if !text {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The key of an attribute of a point, by its number.
#[cold]
#[inline(never)]
pub fn key_at<'b>(buf: &'b [u8], attributes: &Run, at: usize) -> &'b [u8] {
    let mut it = attributes.fields(buf);
    for _ in 0..=at {
        if !matches!(it.advance(), Ok(true)) {
            return &[];
        }
    }
    let (field, content) = it.place();
    KeyValue::read(buf, field, content).map_or(&[], |kv| kv.key.bytes(buf))
}

/// An attribute that is not known yet, by field and content, and its key.
#[inline(never)]
fn read<'b>(
    buf: &'b [u8],
    h: &Hasher,
    (field, content): (Span, Span),
) -> Result<(Attribute, &'b [u8]), WireError> {
    let kv = KeyValue::read(buf, field, content)?;
    let id = identify::attribute(h, Domain::Attribute, buf, &kv)?;
    Ok((Attribute { id, label: 0, is_kept: true, key: kv.key, value: kv.value.text() }, kv.key.bytes(buf)))
}
