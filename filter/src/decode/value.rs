//! Attributes and their values.
//!
//! In: a [`Run`] of `KeyValue` fields, or the span of an array or key-value list. Out: keys as spans and values of
//! all seven kinds. A missing key is the empty key, a missing value the empty value, and the value may come before
//! the key (the Collector writes it so). Nesting is walked by the caller, who says how deep it is.

use super::{Run, RunFields};
use crate::limits::DEPTH_MAX;
use crate::wire::{Fields, Span, WireError, WireErrorKind};

/// Tags of `key` and `value` of a `KeyValue`, and of `string_value` of an `AnyValue`.
const TAG_KEY: u8 = 0x0a;
const TAG_VALUE: u8 = 0x12;
const TAG_STRING: u8 = 0x0a;

/// `KeyValue`, with where it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyValue {
    /// The whole field that holds it, tag included: what to remove to remove the attribute.
    pub field: Span,
    /// `key`; empty if absent.
    pub key: Span,
    /// `value`; [`AnyValue::Empty`] if absent.
    pub value: AnyValue,
}

impl KeyValue {
    /// Reads the `KeyValue` message at `span`, which is the content of `field`.
    ///
    /// # Errors
    /// What key and value show to be malformed; a value given twice.
    #[inline]
    pub fn read(buf: &[u8], field: Span, span: Span) -> Result<KeyValue, WireError> {
        match KeyValue::read_text(buf, span) {
            Some((key, text)) => Ok(KeyValue { field, key, value: AnyValue::Str(text) }),
            None => KeyValue::read_any(buf, field, span),
        }
    }

    /// A key and a string, in either order and nothing else: nearly every attribute.
    #[inline]
    fn read_text(buf: &[u8], span: Span) -> Option<(Span, Span)> {
        let mut fields = Fields::new(buf, span);
        let (key, value) = match fields.short(TAG_KEY) {
            Some(key) => (key, fields.short(TAG_VALUE)?),
            None => {
                let value = fields.short(TAG_VALUE)?;
                (fields.short(TAG_KEY)?, value)
            }
        };
        let value = value.bytes().ok()?;
        let mut inner = Fields::new(buf, value);
        let text = inner.short(TAG_STRING)?;
        let whole = fields.at() == span.end && inner.at() == value.end;
        whole.then_some((key.bytes().ok()?, text.bytes().ok()?))
    }

    #[inline(never)]
    fn read_any(buf: &[u8], field: Span, span: Span) -> Result<KeyValue, WireError> {
        let (mut key, mut value) = (Span::EMPTY, None);
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => key = field.bytes()?,
                2 => {
                    let span = field.bytes()?;
                    if value.is_some() {
                        return Err(WireError::new(WireErrorKind::Repeated, field.start));
                    }
                    value = Some(AnyValue::read(buf, span)?);
                }
                3 => return Err(WireError::new(WireErrorKind::StringIndex, field.start)),
                _ => {}
            }
        }
        Ok(KeyValue { field, key, value: value.unwrap_or(AnyValue::Empty) })
    }
}

/// `AnyValue`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AnyValue {
    /// No value.
    Empty,
    /// `string_value`.
    Str(Span),
    /// `bool_value`.
    Bool(bool),
    /// `int_value`.
    Int(i64),
    /// `double_value`.
    Double(f64),
    /// `array_value`, for [`Elements::new`].
    Array(Span),
    /// `kvlist_value`, for [`Attributes::of_list`].
    KvList(Span),
    /// `bytes_value`.
    Bytes(Span),
}

impl AnyValue {
    /// The text of a string; empty for other kinds.
    pub fn text(&self) -> Span {
        if let AnyValue::Str(text) = self { *text } else { Span::EMPTY }
    }

    /// Reads the message at `span`; of several scalar members of the oneof the last one wins.
    ///
    /// # Errors
    /// What the members show to be malformed; an array or list beside any other member.
    #[inline]
    pub fn read(buf: &[u8], span: Span) -> Result<AnyValue, WireError> {
        let (mut value, mut fields) = (AnyValue::Empty, Fields::new(buf, span));
        while let Some(field) = fields.next()? {
            let new = match field.number {
                1 => AnyValue::Str(field.bytes()?),
                2 => AnyValue::Bool(field.varint()? != 0),
                3 => AnyValue::Int(field.varint()?.cast_signed()),
                4 => AnyValue::Double(f64::from_bits(field.fixed64()?)),
                5 => AnyValue::Array(field.bytes()?),
                6 => AnyValue::KvList(field.bytes()?),
                7 => AnyValue::Bytes(field.bytes()?),
                8 => return Err(WireError::new(WireErrorKind::StringIndex, field.start)),
                _ => continue,
            };
            // A parser would merge two arrays, and read one that loses.
            if value != AnyValue::Empty && (value.is_nested() || new.is_nested()) {
                return Err(WireError::new(WireErrorKind::Repeated, field.start));
            }
            value = new;
        }
        Ok(value)
    }

    #[inline]
    fn is_nested(&self) -> bool {
        matches!(self, AnyValue::Array(_) | AnyValue::KvList(_))
    }
}

/// The attributes of a point, resource or scope, or the pairs of a key-value list.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    buf: &'a [u8],
    fields: RunFields<'a>,
}

impl<'a> Attributes<'a> {
    #[inline]
    pub(crate) fn new(buf: &'a [u8], run: Run) -> Attributes<'a> {
        Attributes { buf, fields: run.fields(buf) }
    }

    /// The pairs of the key-value list at `span`, `depth` levels down: 1 for the value of an attribute itself, one
    /// more for each level.
    ///
    /// # Errors
    /// [`WireErrorKind::TooDeep`] at `span.start` if `depth` is above [`DEPTH_MAX`].
    pub fn of_list(buf: &'a [u8], span: Span, depth: usize) -> Result<Attributes<'a>, WireError> {
        check_depth(span, depth)?;
        Ok(Attributes::new(buf, Run { number: 1, count: 0, span }))
    }

    /// The next pair, or `None` after the last.
    ///
    /// # Errors
    /// What the pair shows to be malformed.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "`while let Some(pair) = pairs.next()?` needs this order"
    )]
    pub fn next(&mut self) -> Result<Option<KeyValue>, WireError> {
        match self.fields.next()? {
            Some((field, span)) => KeyValue::read(self.buf, field.span(), span).map(Some),
            None => Ok(None),
        }
    }
}

/// The elements of an `ArrayValue`.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    buf: &'a [u8],
    fields: RunFields<'a>,
}

impl<'a> Elements<'a> {
    /// The elements of the array at `span`, `depth` levels down, counted as in [`Attributes::of_list`].
    ///
    /// # Errors
    /// [`WireErrorKind::TooDeep`] at `span.start` if `depth` is above [`DEPTH_MAX`].
    pub fn new(buf: &'a [u8], span: Span, depth: usize) -> Result<Elements<'a>, WireError> {
        check_depth(span, depth)?;
        Ok(Elements { buf, fields: Run { number: 1, count: 0, span }.fields(buf) })
    }

    /// The next element, or `None` after the last.
    ///
    /// # Errors
    /// What the element shows to be malformed.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "`while let Some(value) = values.next()?` needs this order"
    )]
    pub fn next(&mut self) -> Result<Option<AnyValue>, WireError> {
        match self.fields.next()? {
            Some((_, span)) => AnyValue::read(self.buf, span).map(Some),
            None => Ok(None),
        }
    }
}

fn check_depth(span: Span, depth: usize) -> Result<(), WireError> {
    if depth > DEPTH_MAX { Err(WireError::new(WireErrorKind::TooDeep, span.start)) } else { Ok(()) }
}
