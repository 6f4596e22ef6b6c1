//! Records: what a worker sends to the fold. One message per batch and shard; versioned, compact, self-describing.
//!
//! A message holds a dictionary of the series that its points fold into, then one fixed-size record per point. Everything the
//! fold needs stands in it (also window, delay and temporality), so the owner needs no rule of the plan to fold it and a
//! message can be kept in a journal. Integers are little-endian.
//!
//! ```text
//! header    magic "PHXR" · version u16 · flags u16 · key fingerprint u64 · arrived u64 · series u32 · records u32 · bytes of atoms u32 · bytes of exemplars u32
//! series    length u32 · identity 16 · overflow identity 16 · width_ns u64 · offset_ns u64 · delay_ns u64 · expiry_ns u64 · output u8 · kind u8 · exemplars u8 · turn u8 · turn's time u64 · since u64 · heard u64 · then, each with its length u32:
//!           tenant · metric name · mark · resource · resource schema · scope · scope schema · metric head · attributes · bounds
//! atoms     the distributions that records point to (`distribution/codec.rs`)
//! exemplar  series u32 · value f64 · time u64 · length u32 · body of an `Exemplar`
//! record    stream 16 · series u32 · flags u8 · start u64 · time u64 · value u64                             (45 bytes)
//! ```
//!
//! The value of a record with an atom is where that begins (low half) and its length (high half). The one flag of the header says that
//! everything went to the upstream raw after all.
//!
//! `resource`, `scope`, `metric head` and `attributes` are protobuf as the emission needs it: the body of a `Resource`, the
//! body of an `InstrumentationScope`, the name/description/unit fields of a `Metric`, the `attributes` fields of a
//! `NumberDataPoint`. Refuses: another magic or version, lengths past the end, indices outside the dictionary, windows that no plan allows.

use crate::amount::Number;
use crate::distribution::Distribution;
use crate::exemplar::Exemplar;
use crate::hash::Identity;
use crate::kind::Kind;
use crate::limits::{BOUNDS_MAX, EXEMPLAR_BYTES_MAX};
use crate::stream::Observation;
use crate::switch::Turn;
use crate::units::{Since, UnixNanos};
use crate::window::Windows;

const MAGIC: [u8; 4] = *b"PHXR";
/// Version of the format; a reader refuses any other.
pub const VERSION: u16 = 4;
const HEADER_BYTES: usize = 40;
/// Where the flags of a message stand, and the one there is.
const MESSAGE_FLAGS_AT: usize = 6;
const MESSAGE_CARRIED: u8 = 1;
/// Bytes of one record: 16 + 4 + 1 + 8 + 8 + 8.
pub const RECORD_BYTES: usize = 45;
/// Width of a window, as a plan allows it; a delay is no longer than the widest. Another one would not come from a worker, and could
/// make one record cost as much as a million.
const WIDTH_NS: core::ops::RangeInclusive<u64> = 1_000_000_000..=3_600_000_000_000;
/// The longest expiry that a plan allows: a day. A level goes on for so long by itself.
const EXPIRY_MAX_NS: u64 = 86_400_000_000_000;
/// Where the flags of a record stand.
const FLAGS_AT: usize = 20;

const FLAG_DOUBLE: u8 = 1;
const FLAG_DELTA: u8 = 2;
const FLAG_CARRIED: u8 = 4;
const FLAG_ENDED: u8 = 8;
const FLAG_APART: u8 = 16;
const FLAG_ATOM: u8 = 32;

/// Temporality of a sum, in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Temporality {
    /// Each point is an increment.
    Delta,
    /// Each point is a total since the start time.
    Cumulative,
}

/// Everything the fold needs to know about a series. Borrowed: from the batch when written, from the message when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesHead<'a> {
    /// Identity of the series.
    pub id: Identity,
    /// Identity of the series that takes this one's points when the owner's table is full: one per tenant, metric and kind.
    pub overflow: Identity,
    /// Its windows.
    pub windows: Windows,
    /// What it is.
    pub kind: Kind,
    /// Temporality of the emitted points.
    pub output: Temporality,
    /// How long the last value of a silent stream stands, for levels.
    pub expiry_ns: u64,
    /// Exemplars that it keeps of a window.
    pub exemplars_max: u8,
    /// Its part in a switch, if the plan switches.
    pub turn: Option<Turn>,
    /// Since when its streams are recorded.
    pub since: Since,
    /// Tenant, as its header gave it.
    pub tenant: &'a [u8],
    /// Metric name, for the ledger.
    pub metric: &'a [u8],
    /// What was folded, for the mark label.
    pub mark: &'a [u8],
    /// Body of the kept `Resource`.
    pub resource: &'a [u8],
    /// Schema URL of the resource.
    pub resource_schema: &'a [u8],
    /// Body of the `InstrumentationScope`.
    pub scope: &'a [u8],
    /// Schema URL of the scope.
    pub scope_schema: &'a [u8],
    /// `name`, `description` and `unit` fields of the `Metric`.
    pub metric_head: &'a [u8],
    /// Kept `attributes` fields of the data point, sorted by key, numbered as points of its kind number them.
    pub attributes: &'a [u8],
    /// Bounds of an explicit histogram, as the wire has them: doubles of 8 bytes.
    pub bounds: &'a [u8],
}

/// One point on its way to the fold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// Identity of the stream.
    pub stream: Identity,
    /// Index into the message's dictionary.
    pub series: u32,
    /// Temporality of the stream.
    pub temporality: Temporality,
    /// The point went to the upstream raw; the fold only moves its baseline.
    pub carried: bool,
    /// The point says that the stream has ended; it has a time and no value.
    pub ended: bool,
    /// The series that the stream folds into on the other side of a switch has another owner, who hears of the point too.
    pub apart: bool,
    /// The value is the place of an atom, for [`Message::atom`].
    pub atom: bool,
    /// Times and value.
    pub observation: Observation,
}

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Not a message of this format and version.
    Foreign,
    /// A length or an index points outside the message.
    Malformed,
}

/// Collects the records of one batch for one shard.
#[derive(Default)]
pub struct Writer {
    heads: Vec<u8>,
    heads_count: u32,
    atoms: Vec<u8>,
    exemplars: Vec<u8>,
    /// Where the last series begins.
    last_head: usize,
    records: Vec<u8>,
    records_count: u32,
}

impl Writer {
    /// Forget everything, keep the memory.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.heads_count = 0;
        self.atoms.clear();
        self.exemplars.clear();
        self.records.clear();
        self.records_count = 0;
    }

    /// Nothing recorded?
    pub fn is_empty(&self) -> bool {
        self.records_count == 0
    }

    /// Number of records.
    pub fn len(&self) -> u32 {
        self.records_count
    }

    /// Bytes collected so far.
    pub fn bytes(&self) -> usize {
        let rest = self.atoms.len().saturating_add(self.exemplars.len());
        self.heads.len().saturating_add(self.records.len()).saturating_add(rest)
    }

    /// Add an atom; the value of a record that points to it.
    pub fn atom(&mut self, bytes: &[u8]) -> Number {
        let at = self.atoms.len() as u64;
        self.atoms.extend_from_slice(bytes);
        Number::Int((at | (bytes.len() as u64).wrapping_shl(32)).cast_signed())
    }

    /// Add an exemplar of a series: its body in pieces.
    pub fn exemplar(&mut self, series: u32, value: f64, time: UnixNanos, body: &[u8]) {
        let out = &mut self.exemplars;
        out.extend_from_slice(&series.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
        out.extend_from_slice(&time.0.to_le_bytes());
        put_len(out, body.len());
        out.extend_from_slice(body);
    }

    /// Add a series to the dictionary; its index.
    pub fn series(&mut self, h: &SeriesHead<'_>) -> u32 {
        let at = self.heads.len();
        self.last_head = at;
        let out = &mut self.heads;
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&h.id.0.to_le_bytes());
        out.extend_from_slice(&h.overflow.0.to_le_bytes());
        for ns in [h.windows.width_ns, h.windows.offset_ns, h.windows.delay_ns, h.expiry_ns] {
            out.extend_from_slice(&ns.to_le_bytes());
        }
        out.push(match h.output {
            Temporality::Delta => 0,
            Temporality::Cumulative => 1,
        });
        out.push(h.kind.code());
        out.push(h.exemplars_max);
        let (turn, at_ns) = Turn::code(h.turn);
        out.push(turn);
        out.extend_from_slice(&at_ns.to_le_bytes());
        out.extend_from_slice(&h.since.at.0.to_le_bytes());
        out.extend_from_slice(&h.since.heard.0.to_le_bytes());
        for part in [
            h.tenant,
            h.metric,
            h.mark,
            h.resource,
            h.resource_schema,
            h.scope,
            h.scope_schema,
            h.metric_head,
            h.attributes,
            h.bounds,
        ] {
            put_len(out, part.len());
            out.extend_from_slice(part);
        }
        let len = u32::try_from(out.len().saturating_sub(at).saturating_sub(4)).unwrap_or(u32::MAX);
        if let Some(slot) = out.get_mut(at..at.saturating_add(4)) {
            slot.copy_from_slice(&len.to_le_bytes());
        }
        let index = self.heads_count;
        self.heads_count = self.heads_count.saturating_add(1);
        index
    }

    /// Add a series as [`Writer::last_series`] gave it; its index.
    pub fn series_again(&mut self, head: &[u8]) -> u32 {
        self.last_head = self.heads.len();
        self.heads.extend_from_slice(head);
        let index = self.heads_count;
        self.heads_count = self.heads_count.saturating_add(1);
        index
    }

    /// The series that was added last, as it stands in the message.
    pub fn last_series(&self) -> &[u8] {
        self.heads.get(self.last_head..).unwrap_or_default()
    }

    /// Add a record.
    #[inline(always)]
    pub fn record(&mut self, r: &Record) {
        let (double, bits) = r.observation.value.to_bits();
        let mut flags = if double { FLAG_DOUBLE } else { 0 };
        if r.temporality == Temporality::Delta {
            flags |= FLAG_DELTA;
        }
        if r.carried {
            flags |= FLAG_CARRIED;
        }
        if r.ended {
            flags |= FLAG_ENDED;
        }
        if r.apart {
            flags |= FLAG_APART;
        }
        if r.atom {
            flags |= FLAG_ATOM;
        }
        let mut bytes = [0; RECORD_BYTES];
        let parts = bytes.split_first_chunk_mut::<16>().and_then(|(stream, rest)| {
            let (series, rest) = rest.split_first_chunk_mut::<4>()?;
            let (flag, rest) = rest.split_first_chunk_mut::<1>()?;
            let (start, rest) = rest.split_first_chunk_mut::<8>()?;
            let (time, rest) = rest.split_first_chunk_mut::<8>()?;
            Some((stream, series, flag, start, time, rest.first_chunk_mut::<8>()?))
        });
        if let Some((stream, series, flag, start, time, value)) = parts {
            *stream = r.stream.0.to_le_bytes();
            *series = r.series.to_le_bytes();
            *flag = [flags];
            *start = r.observation.start.0.to_le_bytes();
            *time = r.observation.time.0.to_le_bytes();
            *value = bits.to_le_bytes();
        }
        self.records.extend_from_slice(&bytes);
        self.records_count = self.records_count.saturating_add(1);
    }

    /// The message. `key` is the fingerprint of the hash key, `arrived` when the batch came in.
    pub fn finish(&self, key: u64, arrived: UnixNanos, out: &mut Vec<u8>) {
        out.reserve(HEADER_BYTES.saturating_add(self.bytes()));
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&key.to_le_bytes());
        out.extend_from_slice(&arrived.0.to_le_bytes());
        out.extend_from_slice(&self.heads_count.to_le_bytes());
        out.extend_from_slice(&self.records_count.to_le_bytes());
        put_len(out, self.atoms.len());
        put_len(out, self.exemplars.len());
        for part in [&self.heads, &self.atoms, &self.exemplars, &self.records] {
            out.extend_from_slice(part);
        }
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

/// A message, read in place.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Fingerprint of the hash key under which identities were made.
    pub key: u64,
    /// When the batch came in, by the worker's clock.
    pub arrived: UnixNanos,
    carried: bool,
    heads_count: u32,
    heads: &'a [u8],
    atoms: &'a [u8],
    exemplars: &'a [u8],
    records: &'a [u8],
}

impl<'a> Message<'a> {
    /// Read the header and find the two parts.
    pub fn read(bytes: &'a [u8]) -> Result<Message<'a>, RecordError> {
        let mut c = Cursor(bytes);
        if c.array::<4>()? != MAGIC || u16::from_le_bytes(c.array()?) != VERSION {
            return Err(RecordError::Foreign);
        }
        let [flags, _] = c.array::<2>()?;
        let key = c.u64()?;
        let arrived = UnixNanos(c.u64()?);
        let heads_count = c.u32()?;
        let records = c.size()?.checked_mul(RECORD_BYTES).ok_or(RecordError::Malformed)?;
        let (atoms, exemplars) = (c.size()?, c.size()?);
        let tail = records.checked_add(atoms).and_then(|sum| sum.checked_add(exemplars));
        let middle = tail.and_then(|tail| c.0.len().checked_sub(tail)).ok_or(RecordError::Malformed)?;
        let heads = c.take(middle)?;
        let (atoms, exemplars) = (c.take(atoms)?, c.take(exemplars)?);
        let carried = flags & MESSAGE_CARRIED != 0;
        Ok(Message { key, arrived, carried, heads_count, heads, atoms, exemplars, records: c.0 })
    }

    /// Reads all of it and keeps nothing: does every part say what it should?
    ///
    /// # Errors
    /// Whatever reading the parts one by one would meet, atoms that are none, and records whose value is not of their series' kind.
    pub fn check(&self) -> Result<(), RecordError> {
        let kinds: Vec<Kind> = self.heads().map(|head| head.map(|h| h.kind)).collect::<Result<_, _>>()?;
        for record in self.records() {
            let record = record?;
            let kind = usize::try_from(record.series).ok().and_then(|at| kinds.get(at));
            let wants_atom = kind.is_some_and(|kind| kind.is_distribution()) && !record.ended;
            if record.atom != wants_atom {
                return Err(RecordError::Malformed);
            }
            if record.atom {
                Distribution::read(self.atom(&record)).map_err(|_| RecordError::Malformed)?;
            }
        }
        self.exemplars().try_for_each(|e| e.map(drop))
    }

    /// The atom that a record points to; nothing where there is none.
    pub fn atom(&self, record: &Record) -> &'a [u8] {
        let (_, place) = record.observation.value.to_bits();
        let at = usize::try_from(place & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let len = usize::try_from(place.wrapping_shr(32)).unwrap_or(usize::MAX);
        self.atoms.get(at..).and_then(|rest| rest.get(..len)).unwrap_or_default()
    }

    /// The exemplars with the index of their series; none when everything went out raw.
    pub fn exemplars(&self) -> impl Iterator<Item = Result<(u32, Exemplar), RecordError>> + use<'a> {
        let mut c = Cursor(if self.carried { &[] } else { self.exemplars });
        let heads_count = self.heads_count;
        core::iter::from_fn(move || {
            if c.0.is_empty() {
                return None;
            }
            let read = c
                .exemplar()
                .and_then(|it| if it.0 < heads_count { Ok(it) } else { Err(RecordError::Malformed) });
            if read.is_err() {
                // What comes after an error cannot be found.
                c.0 = &[];
            }
            Some(read)
        })
    }

    /// Mark every record of an encoded message as carried raw.
    pub fn mark_carried(bytes: &mut [u8]) -> Result<(), RecordError> {
        let tail = Message::read(bytes)?.records.len();
        let at = bytes.len().checked_sub(tail).ok_or(RecordError::Malformed)?;
        for record in bytes.get_mut(at..).unwrap_or_default().chunks_exact_mut(RECORD_BYTES) {
            if let Some(flags) = record.get_mut(FLAGS_AT) {
                *flags |= FLAG_CARRIED;
            }
        }
        if let Some(flags) = bytes.get_mut(MESSAGE_FLAGS_AT) {
            *flags |= MESSAGE_CARRIED;
        }
        Ok(())
    }

    /// The dictionary, in order.
    pub fn heads(&self) -> impl Iterator<Item = Result<SeriesHead<'a>, RecordError>> + use<'a> {
        let mut c = Cursor(self.heads);
        (0..self.heads_count).map(move |_| c.head())
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len().checked_div(RECORD_BYTES).unwrap_or(0)
    }

    /// Nothing in it?
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records, in order. The index of each lies within the dictionary.
    pub fn records(&self) -> impl Iterator<Item = Result<Record, RecordError>> + use<'a> {
        let heads_count = self.heads_count;
        self.records.chunks_exact(RECORD_BYTES).map(move |bytes| {
            let record = Cursor(bytes).record()?;
            if record.series < heads_count { Ok(record) } else { Err(RecordError::Malformed) }
        })
    }
}

/// Reads forward; every step may fail, none may panic.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(RecordError::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(RecordError::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Result<usize, RecordError> {
        usize::try_from(self.u32()?).map_err(|_| RecordError::Malformed)
    }

    fn part(&mut self) -> Result<&'a [u8], RecordError> {
        let len = self.size()?;
        self.take(len)
    }

    fn exemplar(&mut self) -> Result<(u32, Exemplar), RecordError> {
        let (series, value, time) = (self.u32()?, f64::from_bits(self.u64()?), UnixNanos(self.u64()?));
        let bytes = self.part()?;
        if bytes.len() > EXEMPLAR_BYTES_MAX {
            return Err(RecordError::Malformed);
        }
        Ok((series, Exemplar { value, time, bytes: bytes.into() }))
    }

    fn head(&mut self) -> Result<SeriesHead<'a>, RecordError> {
        let mut c = Cursor(self.part()?);
        let head = c.fields()?;
        let w = head.windows;
        let fits =
            WIDTH_NS.contains(&w.width_ns) && w.offset_ns < w.width_ns && w.delay_ns <= *WIDTH_NS.end();
        let bounds = head.bounds.len();
        let fits = fits && bounds % 8 == 0 && bounds / 8 <= BOUNDS_MAX && head.expiry_ns <= EXPIRY_MAX_NS;
        if fits { Ok(head) } else { Err(RecordError::Malformed) }
    }

    fn fields(&mut self) -> Result<SeriesHead<'a>, RecordError> {
        let c = self;
        Ok(SeriesHead {
            id: Identity(u128::from_le_bytes(c.array()?)),
            overflow: Identity(u128::from_le_bytes(c.array()?)),
            windows: Windows { width_ns: c.u64()?, offset_ns: c.u64()?, delay_ns: c.u64()? },
            expiry_ns: c.u64()?,
            output: match c.array::<1>()? {
                [0] => Temporality::Delta,
                [1] => Temporality::Cumulative,
                _ => return Err(RecordError::Malformed),
            },
            kind: {
                let [code] = c.array::<1>()?;
                Kind::of_code(code).ok_or(RecordError::Malformed)?
            },
            exemplars_max: {
                let [max] = c.array::<1>()?;
                max
            },
            turn: {
                let [code] = c.array::<1>()?;
                Turn::of_code(code, c.u64()?)?
            },
            since: Since { at: UnixNanos(c.u64()?), heard: UnixNanos(c.u64()?) },
            tenant: c.part()?,
            metric: c.part()?,
            mark: c.part()?,
            resource: c.part()?,
            resource_schema: c.part()?,
            scope: c.part()?,
            scope_schema: c.part()?,
            metric_head: c.part()?,
            attributes: c.part()?,
            bounds: c.part()?,
        })
    }

    fn record(&mut self) -> Result<Record, RecordError> {
        let stream = Identity(u128::from_le_bytes(self.array()?));
        let series = self.u32()?;
        let [flags] = self.array::<1>()?;
        let (start, time, bits) = (UnixNanos(self.u64()?), UnixNanos(self.u64()?), self.u64()?);
        Ok(Record {
            stream,
            series,
            temporality: if flags & FLAG_DELTA != 0 { Temporality::Delta } else { Temporality::Cumulative },
            carried: flags & FLAG_CARRIED != 0,
            ended: flags & FLAG_ENDED != 0,
            apart: flags & FLAG_APART != 0,
            atom: flags & FLAG_ATOM != 0,
            observation: Observation {
                start,
                time,
                value: Number::from_bits(flags & FLAG_DOUBLE != 0, bits),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Vec<u8> {
        let mut w = Writer::default();
        let head = |n: u128| SeriesHead {
            id: Identity(n),
            overflow: Identity(0),
            windows: Windows { width_ns: 15_000_000_000, offset_ns: 5, delay_ns: 60_000_000_000 },
            kind: if n == 8 { Kind::Histogram } else { Kind::Sum { monotonic: true } },
            expiry_ns: 7,
            exemplars_max: 4,
            bounds: if n == 8 { &[0; 16] } else { b"" },
            output: Temporality::Cumulative,
            since: Since { at: UnixNanos(9), heard: UnixNanos(5) },
            turn: (n == 8).then_some(Turn { at: UnixNanos(3), side: crate::switch::Side::ClosesForRaw }),
            tenant: b"t",
            metric: b"m",
            mark: b"pod",
            resource: b"r",
            resource_schema: b"",
            scope: b"s",
            scope_schema: b"x",
            metric_head: b"h",
            attributes: b"a",
        };
        assert_eq!((w.series(&head(7)), w.series(&head(8))), (0, 1));
        let mut atom = Vec::new();
        crate::distribution::put_header(&mut atom, 6, Some(1.5), None, (true, false));
        atom.extend_from_slice(&[3, 1, 2, 3]);
        let atom = w.atom(&atom);
        w.exemplar(1, 0.5, UnixNanos(77), b"body");
        for (series, temporality, value) in
            [(0, Temporality::Cumulative, Number::Int(-5)), (1, Temporality::Delta, atom)]
        {
            let observation = Observation { start: UnixNanos(1), time: UnixNanos(u64::MAX), value };
            w.record(&Record {
                stream: Identity(u128::MAX - 3),
                series,
                temporality,
                carried: false,
                ended: false,
                apart: series == 1,
                atom: series == 1,
                observation,
            });
        }
        let mut out = Vec::new();
        w.finish(99, UnixNanos(42), &mut out);
        out
    }

    #[test]
    fn round_trip() {
        let bytes = message();
        let m = Message::read(&bytes).unwrap();
        assert_eq!((m.key, m.arrived, m.len()), (99, UnixNanos(42), 2));
        let heads: Vec<_> = m.heads().map(Result::unwrap).collect();
        assert_eq!((heads.len(), heads[1].id, heads[1].mark), (2, Identity(8), &b"pod"[..]));
        assert_eq!(heads[0].since, Since { at: UnixNanos(9), heard: UnixNanos(5) });
        assert_eq!((heads[0].turn, heads[1].turn.map(|t| t.at)), (None, Some(UnixNanos(3))));
        let records: Vec<_> = m.records().map(Result::unwrap).collect();
        assert_eq!(records[0].observation.value, Number::Int(-5));
        assert_eq!((records[1].temporality, records[1].series), (Temporality::Delta, 1));
        assert_eq!((records[0].apart, records[1].apart, records[1].ended), (false, true, false));
        assert_eq!(records[1].observation.time, UnixNanos(u64::MAX));
        assert_eq!((heads[0].kind, heads[1].kind), (Kind::Sum { monotonic: true }, Kind::Histogram));
        let atom = Distribution::read(m.atom(&records[1])).unwrap();
        assert_eq!((atom.count, atom.shape), (6, crate::distribution::Shape::Explicit(vec![1, 2, 3])));
        let exemplars: Vec<_> = m.exemplars().map(Result::unwrap).collect();
        assert_eq!((exemplars.len(), exemplars[0].0, &*exemplars[0].1.bytes), (1, 1, &b"body"[..]));
        assert_eq!(m.check(), Ok(()));
    }

    #[test]
    fn carried_marks_all() {
        let mut bytes = message();
        Message::mark_carried(&mut bytes).unwrap();
        let m = Message::read(&bytes).unwrap();
        assert!(m.records().all(|r| r.unwrap().carried));
        assert_eq!(m.exemplars().count(), 0, "they are with the raw points");
    }

    #[test]
    fn every_truncation_and_flip_is_an_error_or_a_message() {
        let whole = message();
        for len in 0..whole.len() {
            let cut = &whole[..len];
            if let Ok(m) = Message::read(cut) {
                assert!(m.check().is_err(), "a message cut at {len} was read as a whole one");
            }
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            if let Ok(m) = Message::read(&flipped) {
                let _ = m.check();
            }
        }
    }
}
