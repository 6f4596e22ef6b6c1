//! A point of a sum or a gauge.
//!
//! In: the span of a `NumberDataPoint`. Out: its times, value and flags, and where its attributes are. The
//! Collector writes value, time, start, attributes; SDKs write start, time, value, attributes: both are one pass.

use super::Run;
use crate::wire::{Field, Fields, Span, WireError};

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
    #[inline]
    pub fn read(buf: &[u8], span: Span) -> Result<NumberPoint, WireError> {
        let mut it = NumberPoint::empty(7, 5);
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
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
        Ok(it)
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
