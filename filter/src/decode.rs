//! Views of an OTLP metrics batch, read in place.
//!
//! In: the bytes of an `ExportMetricsServiceRequest`. Out: small structs of numbers and [`Span`]s that point back
//! into those bytes, one message at a time; the caller walks down as far as it cares. Nothing is allocated, per
//! point or otherwise. Field numbers are those of the
//! [OTLP protocol](https://github.com/open-telemetry/opentelemetry-proto), 1.x.
//!
//! ```text
//! Request ─ resource_metrics ─▶ ResourceMetrics ─ scope_metrics ─▶ ScopeMetrics ─ metrics ─▶ Metric ─ data ─▶
//!     Sum ─ points ─▶ NumberPoint, DistributionPoint ─ attributes ─▶ KeyValue ─ value ─▶ AnyValue
//! ```
//!
//! Each `read` goes over the direct fields of its message once, in whatever order they come, and remembers for a
//! repeated field the [`Run`] from the first to the last of them; walking the run is a second look at tags and
//! lengths only. Rules of protobuf hold: the last value of a repeated scalar wins, the last member of a oneof of
//! scalars wins, an absent scalar is its default, unknown fields are checked on the wire level and passed over.
//!
//! Refused, beyond what [`crate::wire`] refuses: a known field of another wire type, a singular message given more
//! than once, and two members of a oneof of which one is a message (a parser would merge or choose, and an edit of
//! such bytes would be ambiguous), values nested deeper than [`DEPTH_MAX`], and string-table indices, which metrics do not have.
//! Text is not checked here; see [`crate::wire::utf8`].

mod distribution;
mod point;
mod tree;
mod value;

pub use distribution::{BucketsAt, DistributionPoint, ExemplarAt, Numbers, SideAt};
pub use point::{Guess, Number, NumberPoint, UsualPoint};
pub use tree::{Data, Metric, Request, Resource, ResourceMetrics, Scope, ScopeMetrics, Sum, Temporality};
pub use tree::{histogram_temporality, points};
pub use value::{AnyValue, Attributes, Elements, KeyValue};

pub use crate::limits::DEPTH_MAX;

use crate::wire::{Field, Fields, Span, Value, WireError, WireErrorKind};

/// Where the fields of one number of one message are: from the first to the last, others possibly between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The field number.
    pub number: u32,
    /// How many there are (saturating).
    pub count: u32,
    /// From the tag of the first to the end of the last; empty if there are none.
    pub span: Span,
}

impl Run {
    #[inline]
    pub(crate) fn new(number: u32) -> Run {
        Run { number, count: 0, span: Span::EMPTY }
    }

    /// Takes note of one more field; refuses one that is not length-delimited.
    #[inline]
    pub(crate) fn add(&mut self, field: &Field) -> Result<(), WireError> {
        field.bytes()?;
        if self.count == 0 {
            self.span.start = field.start;
        }
        self.span.end = field.end;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// The fields, in the order of the bytes.
    #[inline]
    pub fn fields<'a>(&self, buf: &'a [u8]) -> RunFields<'a> {
        let tag = tag_of(self.number);
        let at = self.span.start;
        let nothing = Span { start: at, end: at };
        RunFields {
            fields: Fields::new(buf, self.span),
            number: self.number,
            tag,
            start: at,
            tag_end: at,
            content: nothing,
        }
    }

    /// The fields read as `KeyValue` messages.
    #[inline]
    pub fn attributes<'a>(&self, buf: &'a [u8]) -> Attributes<'a> {
        Attributes::new(buf, *self)
    }
}

/// The fields of a [`Run`].
#[derive(Clone, Debug)]
pub struct RunFields<'a> {
    fields: Fields<'a>,
    number: u32,
    /// The tag where it has one byte; else one that no field has.
    tag: u8,
    /// The field at hand: where it begins, where its tag ends, and its content.
    start: usize,
    tag_end: usize,
    content: Span,
}

impl RunFields<'_> {
    /// Goes on to the next field: is there one? Then it is at [`RunFields::place`]. The same as [`RunFields::next`] for loops that run for every
    /// point: nothing is handed over but a word.
    ///
    /// # Errors
    /// Those of [`RunFields::next`].
    #[inline(always)]
    pub fn advance(&mut self) -> Result<bool, WireError> {
        if let Some(field) = self.fields.short(self.tag)
            && let Value::Bytes(content) = field.value
        {
            (self.start, self.tag_end, self.content) = (field.start, field.tag_end, content);
            return Ok(true);
        }
        self.advance_any()
    }

    #[inline(never)]
    fn advance_any(&mut self) -> Result<bool, WireError> {
        let Some((field, content)) = self.next_any()? else { return Ok(false) };
        (self.start, self.tag_end, self.content) = (field.start, field.tag_end, content);
        Ok(true)
    }

    /// The field at hand, as [`RunFields::next`] gives it.
    #[inline]
    pub fn field(&self) -> Field {
        let value = Value::Bytes(self.content);
        let (start, tag_end, end) = (self.start, self.tag_end, self.content.end);
        Field { number: self.number, start, tag_end, end, value }
    }

    /// The field at hand: the whole of it, tag included, and its content.
    #[inline(always)]
    pub fn place(&self) -> (Span, Span) {
        (Span { start: self.start, end: self.content.end }, self.content)
    }

    /// The next field, as a whole and its content; `None` after the last.
    ///
    /// # Errors
    /// None that the `read` which made the run did not report already.
    #[inline(always)]
    #[expect(
        clippy::should_implement_trait,
        reason = "`while let Some(field) = fields.next()?` needs this order"
    )]
    pub fn next(&mut self) -> Result<Option<(Field, Span)>, WireError> {
        if let Some(field) = self.fields.short(self.tag)
            && let Value::Bytes(content) = field.value
        {
            return Ok(Some((field, content)));
        }
        self.next_any()
    }

    #[inline(never)]
    fn next_any(&mut self) -> Result<Option<(Field, Span)>, WireError> {
        while let Some(field) = self.fields.next()? {
            if field.number == self.number {
                return Ok(Some((field, field.bytes()?)));
            }
        }
        Ok(None)
    }
}

/// The tag of a length-delimited field where it has one byte; else 0, which no field has.
#[inline(always)]
fn tag_of(number: u32) -> u8 {
    u8::try_from(number).ok().filter(|number| *number < 16).map_or(0, |number| number << 3 | 2)
}

/// Puts `field` into the place of a singular message, or refuses the second one.
#[inline]
fn singular(place: &mut Option<Span>, field: &Field) -> Result<(), WireError> {
    let span = field.bytes()?;
    match place.replace(span) {
        None => Ok(()),
        Some(_) => Err(WireError::new(WireErrorKind::Repeated, field.start)),
    }
}
