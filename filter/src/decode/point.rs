//! A point of a sum or a gauge.
//!
//! In: the span of a `NumberDataPoint`. Out: its times, value and flags, and where its attributes are. The
//! Collector writes value, time, start, attributes; SDKs write start, time, value, attributes: both are one pass.

use super::Run;
use crate::wire::{Field, Fields, Span, WireError};

/// Tags of one byte, as everybody writes them.
const TAG_START: u8 = 0x11;
const TAG_TIME: u8 = 0x19;
const TAG_DOUBLE: u8 = 0x21;
const TAG_INT: u8 = 0x31;
const TAG_ATTRIBUTE: u8 = 0x3a;
/// A tag and a fixed-width value of 64 bits.
const FIXED64_BYTES: usize = 9;

/// The attributes that a point is likely to have.
#[derive(Clone, Copy, Debug)]
pub struct Guess<'g> {
    /// Whole `attributes` fields one behind the other, nothing between them, each read without an error before.
    pub bytes: &'g [u8],
    /// How many; 0: no guess.
    pub count: u32,
}

impl Guess<'_> {
    /// No guess.
    pub const NONE: Guess<'static> = Guess { bytes: &[], count: 0 };
}

/// The oneof `value` of a number point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// `as_int`.
    Int(i64),
    /// `as_double`.
    Double(f64),
}

/// `NumberDataPoint`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumberPoint {
    /// `start_time_unix_nano`; 0 if absent.
    pub start_ns: u64,
    /// `time_unix_nano`; 0 if absent.
    pub time_ns: u64,
    /// The value; a point with `no_recorded_value` may have none.
    pub value: Option<Number>,
    /// `flags`.
    pub flags: u32,
    /// `exemplars`, for [`super::ExemplarAt::read`].
    pub exemplars: Run,
    /// `attributes`.
    pub attributes: Run,
    /// The field with the value, tag included; empty if absent.
    pub value_at: Span,
    /// The same for the flags.
    pub flags_at: Span,
    /// The attributes are those of the [`Guess`], byte for byte.
    pub is_guessed: bool,
    /// A field that stands once stands twice: the last one counts, and [`NumberPoint::value_at`] shows only that.
    pub repeats: bool,
}

impl NumberPoint {
    /// The bit of `flags` that marks a stale series: `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`.
    pub const NO_RECORDED_VALUE: u32 = 1;

    /// Reads the point at `span`.
    ///
    /// # Errors
    /// What the direct fields of the point show to be malformed; attributes are read by [`Run::attributes`].
    pub fn read(buf: &[u8], span: Span) -> Result<NumberPoint, WireError> {
        NumberPoint::read_any(buf, span)
    }

    /// The same, for attributes that are likely to be those of a guess: then they are compared and not walked.
    ///
    /// # Errors
    /// Those of [`NumberPoint::read`].
    pub fn read_guessing(buf: &[u8], span: Span, guess: Guess<'_>) -> Result<NumberPoint, WireError> {
        let Some(usual) = UsualPoint::read(buf, span, guess) else { return NumberPoint::read_any(buf, span) };
        Ok(NumberPoint {
            start_ns: usual.start_ns,
            time_ns: usual.time_ns,
            value: Some(usual.value),
            flags: 0,
            exemplars: Run::new(5),
            attributes: Run { number: 7, count: guess.count, span: usual.attributes },
            value_at: usual.value_at,
            flags_at: Span::EMPTY,
            is_guessed: true,
            repeats: false,
        })
    }

    #[inline(never)]
    fn read_any(buf: &[u8], span: Span) -> Result<NumberPoint, WireError> {
        let mut it = NumberPoint::empty(7, 5);
        let mut fields = Fields::new(buf, span);
        loop {
            while let Some(field) = fields.short(TAG_ATTRIBUTE) {
                it.attributes.add(&field)?;
            }
            let Some(field) = fields.next()? else { return Ok(it) };
            match field.number {
                7 => it.attributes.add(&field)?,
                2 => it.start_ns = field.fixed64()?,
                3 => it.time_ns = field.fixed64()?,
                4 => {
                    it.value = Some(Number::Double(f64::from_bits(field.fixed64()?)));
                    it.repeats |= !it.value_at.is_empty();
                    it.value_at = field.span();
                }
                6 => {
                    it.value = Some(Number::Int(field.fixed64()?.cast_signed()));
                    it.repeats |= !it.value_at.is_empty();
                    it.value_at = field.span();
                }
                8 => it.flag(&field)?,
                5 => it.exemplars.add(&field)?,
                _ => {}
            }
        }
    }

    /// Nothing read yet; `attributes` and `exemplars` are the numbers of those fields.
    #[inline]
    pub(super) fn empty(attributes: u32, exemplars: u32) -> NumberPoint {
        NumberPoint {
            start_ns: 0,
            time_ns: 0,
            value: None,
            flags: 0,
            exemplars: Run::new(exemplars),
            attributes: Run::new(attributes),
            value_at: Span::EMPTY,
            flags_at: Span::EMPTY,
            is_guessed: false,
            repeats: false,
        }
    }

    /// Takes the field `flags`.
    #[inline]
    pub(super) fn flag(&mut self, field: &Field) -> Result<(), WireError> {
        self.flags = field.uint32()?;
        self.repeats |= !self.flags_at.is_empty();
        self.flags_at = field.span();
        Ok(())
    }

    /// True if the point says that its series has ended.
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.flags & NumberPoint::NO_RECORDED_VALUE != 0
    }
}

/// A point as nearly all are: times, one value, the attributes of a guess, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UsualPoint {
    /// `start_time_unix_nano`; 0 if absent.
    pub start_ns: u64,
    /// `time_unix_nano`; 0 if absent.
    pub time_ns: u64,
    /// The value.
    pub value: Number,
    /// The field with the value, tag included.
    pub value_at: Span,
    /// Where the attributes are.
    pub attributes: Span,
}

impl UsualPoint {
    /// Reads the point at `span`. `None` says nothing but that it is another one: [`NumberPoint::read`] reads all.
    #[inline(always)]
    pub fn read(buf: &[u8], span: Span, guess: Guess<'_>) -> Option<UsualPoint> {
        if guess.count == 0 {
            return None;
        }
        let (mut start_ns, mut time_ns, mut attributes) = (0, 0, Span::EMPTY);
        let (mut bits, mut tag, mut value_at) = (0, 0, Span::EMPTY);
        let mut fields = Fields::new(buf, span);
        while let Some((found, content)) = fields.ahead() {
            let at = fields.at();
            match found {
                TAG_START => start_ns = content,
                TAG_TIME => time_ns = content,
                TAG_DOUBLE | TAG_INT if value_at.is_empty() => {
                    (bits, tag) = (content, found);
                    value_at = Span { start: at, end: at.wrapping_add(FIXED64_BYTES) };
                }
                TAG_ATTRIBUTE if attributes.is_empty() && fields.begin_with(guess.bytes) => {
                    attributes = Span { start: at, end: at.wrapping_add(guess.bytes.len()) };
                    fields.skip(guess.bytes.len());
                    continue;
                }
                _ => return None,
            }
            fields.skip(FIXED64_BYTES);
        }
        if !fields.is_done() || attributes.is_empty() || value_at.is_empty() {
            return None;
        }
        let value = match tag {
            TAG_INT => Number::Int(bits.cast_signed()),
            _ => Number::Double(f64::from_bits(bits)),
        };
        Some(UsualPoint { start_ns, time_ns, value, value_at, attributes })
    }
}
