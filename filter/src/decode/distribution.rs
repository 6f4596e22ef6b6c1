//! Points of histograms, exponential histograms and summaries.
//!
//! In: the span of a point. Out: what it shares with a number point ([`NumberPoint`], without a value), its count, sum and extremes, and
//! where its buckets are. Repeated numbers may come packed, one by one, or both, in any order among the other fields; [`Numbers`] reads
//! them in place.

use super::NumberPoint;
use crate::wire::{Field, Fields, Span, Value, WireError, WireErrorKind, read_varint};

/// What every point of a distribution says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistributionPoint {
    /// Times, flags, attributes, exemplars. No value.
    pub common: NumberPoint,
    /// `count`.
    pub count: u64,
    /// `sum`, where it is given. That of a summary is always given: its field has no presence.
    pub sum: Option<f64>,
    /// `min`.
    pub min: Option<f64>,
    /// `max`.
    pub max: Option<f64>,
    /// Its buckets.
    pub buckets: BucketsAt,
}

/// Where the buckets of a point are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BucketsAt {
    /// A summary has none.
    None,
    /// Of an explicit histogram.
    Explicit {
        /// `bucket_counts`.
        counts: Numbers,
        /// `explicit_bounds`, as bits of doubles.
        bounds: Numbers,
    },
    /// Of an exponential histogram.
    Exponential {
        /// `scale`.
        scale: i32,
        /// `zero_count`.
        zero: u64,
        /// `zero_threshold`.
        threshold: f64,
        /// `positive`.
        positive: SideAt,
        /// `negative`.
        negative: SideAt,
    },
}

/// One side of an exponential histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SideAt {
    /// `offset`.
    pub offset: i32,
    /// `bucket_counts`.
    pub counts: Numbers,
}

/// How numbers of a repeated field are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Width {
    /// Eight bytes.
    #[default]
    Fixed,
    /// Varints.
    Varint,
}

/// The numbers of a repeated field, packed or not, in the order of the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    number: u32,
    width: Width,
    /// From the tag of the first field to the end of the last.
    span: Span,
    fields: u32,
}

impl Numbers {
    fn fixed(number: u32) -> Numbers {
        Numbers { number, width: Width::Fixed, span: Span::EMPTY, fields: 0 }
    }

    fn varints(number: u32) -> Numbers {
        Numbers { number, width: Width::Varint, span: Span::EMPTY, fields: 0 }
    }

    fn add(&mut self, field: &Field) -> Result<(), WireError> {
        match (field.value, self.width) {
            (Value::Bytes(_), _) | (Value::Fixed64(_), Width::Fixed) | (Value::Varint(_), Width::Varint) => {}
            _ => return Err(WireError::new(WireErrorKind::WrongWireType, field.start)),
        }
        if self.fields == 0 {
            self.span.start = field.start;
        }
        self.span.end = field.end;
        self.fields = self.fields.saturating_add(1);
        Ok(())
    }

    /// The one packed field that holds all of them, as doubles and fixed64 stand in it; `None` when they are spread.
    pub fn packed<'a>(&self, buf: &'a [u8]) -> Option<&'a [u8]> {
        match (self.fields, self.width) {
            (0, _) => Some(&[]),
            (1, Width::Fixed) => {
                let field = Fields::new(buf, self.span).next().ok()??;
                field.bytes().ok().map(|span| span.bytes(buf)).filter(|bytes| bytes.len() % 8 == 0)
            }
            _ => None,
        }
    }

    /// Calls `each` with every number; doubles come as their bits.
    ///
    /// # Errors
    /// A packed field that ends inside a number, or whatever `each` says.
    pub fn each<E: From<WireError>>(
        &self,
        buf: &[u8],
        mut each: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut fields = Fields::new(buf, self.span);
        while let Some(field) = fields.next()? {
            if field.number != self.number {
                continue;
            }
            match field.value {
                Value::Varint(n) | Value::Fixed64(n) => each(n)?,
                Value::Fixed32(_) => {
                    return Err(WireError::new(WireErrorKind::WrongWireType, field.start).into());
                }
                Value::Bytes(span) => match self.width {
                    Width::Fixed => {
                        let (words, rest) = span.bytes(buf).as_chunks::<8>();
                        if !rest.is_empty() {
                            return Err(WireError::new(WireErrorKind::Truncated, span.start).into());
                        }
                        for word in words {
                            each(u64::from_le_bytes(*word))?;
                        }
                    }
                    Width::Varint => {
                        let (within, mut at) = (buf.get(..span.end).unwrap_or_default(), span.start);
                        while at < span.end {
                            let (n, end) = read_varint(within, at)?;
                            at = end;
                            each(n)?;
                        }
                    }
                },
            }
        }
        Ok(())
    }
}

impl DistributionPoint {
    fn new(attributes: u32, exemplars: u32, buckets: BucketsAt) -> DistributionPoint {
        let common = NumberPoint::empty(attributes, exemplars);
        DistributionPoint { common, count: 0, sum: None, min: None, max: None, buckets }
    }

    /// Reads a `HistogramDataPoint`.
    ///
    /// # Errors
    /// What the direct fields show to be malformed; the same holds for the others here.
    pub fn histogram(buf: &[u8], span: Span) -> Result<DistributionPoint, WireError> {
        let (mut counts, mut bounds) = (Numbers::fixed(6), Numbers::fixed(7));
        let mut it = DistributionPoint::new(9, 8, BucketsAt::None);
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            match field.number {
                9 => it.common.attributes.add(&field)?,
                2 => it.common.start_ns = field.fixed64()?,
                3 => it.common.time_ns = field.fixed64()?,
                4 => it.count = field.fixed64()?,
                5 => it.sum = Some(f64::from_bits(field.fixed64()?)),
                6 => counts.add(&field)?,
                7 => bounds.add(&field)?,
                8 => it.common.exemplars.add(&field)?,
                10 => it.common.flag(&field)?,
                11 => it.min = Some(f64::from_bits(field.fixed64()?)),
                12 => it.max = Some(f64::from_bits(field.fixed64()?)),
                _ => {}
            }
        }
        it.buckets = BucketsAt::Explicit { counts, bounds };
        Ok(it)
    }

    /// Reads an `ExponentialHistogramDataPoint`.
    pub fn exponential(buf: &[u8], span: Span) -> Result<DistributionPoint, WireError> {
        let (mut scale, mut zero, mut threshold) = (0, 0, 0.0);
        let (mut positive, mut negative) = (None, None);
        let mut it = DistributionPoint::new(1, 11, BucketsAt::None);
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => it.common.attributes.add(&field)?,
                2 => it.common.start_ns = field.fixed64()?,
                3 => it.common.time_ns = field.fixed64()?,
                4 => it.count = field.fixed64()?,
                5 => it.sum = Some(f64::from_bits(field.fixed64()?)),
                6 => scale = field.sint32()?,
                7 => zero = field.fixed64()?,
                8 => super::singular(&mut positive, &field)?,
                9 => super::singular(&mut negative, &field)?,
                10 => it.common.flag(&field)?,
                11 => it.common.exemplars.add(&field)?,
                12 => it.min = Some(f64::from_bits(field.fixed64()?)),
                13 => it.max = Some(f64::from_bits(field.fixed64()?)),
                14 => threshold = f64::from_bits(field.fixed64()?),
                _ => {}
            }
        }
        let positive = SideAt::read(buf, positive)?;
        let negative = SideAt::read(buf, negative)?;
        it.buckets = BucketsAt::Exponential { scale, zero, threshold, positive, negative };
        Ok(it)
    }

    /// Reads a `SummaryDataPoint`; its quantiles are not looked at.
    pub fn summary(buf: &[u8], span: Span) -> Result<DistributionPoint, WireError> {
        let mut it = DistributionPoint::new(7, 0, BucketsAt::None);
        it.sum = Some(0.0);
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            match field.number {
                7 => it.common.attributes.add(&field)?,
                2 => it.common.start_ns = field.fixed64()?,
                3 => it.common.time_ns = field.fixed64()?,
                4 => it.count = field.fixed64()?,
                5 => it.sum = Some(f64::from_bits(field.fixed64()?)),
                6 => drop(field.bytes()?),
                8 => it.common.flag(&field)?,
                _ => {}
            }
        }
        Ok(it)
    }
}

impl SideAt {
    fn read(buf: &[u8], span: Option<Span>) -> Result<SideAt, WireError> {
        let mut it = SideAt { offset: 0, counts: Numbers::varints(2) };
        let Some(span) = span else { return Ok(it) };
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => it.offset = field.sint32()?,
                2 => it.counts.add(&field)?,
                _ => {}
            }
        }
        Ok(it)
    }
}

/// One `Exemplar`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExemplarAt {
    /// `time_unix_nano`.
    pub time_ns: u64,
    /// Its value as a double; none when it has none.
    pub value: Option<f64>,
    /// Nothing in it that a receiver could refuse: ids of the lengths that they have, and no field that is not known here.
    pub is_plain: bool,
}

impl ExemplarAt {
    /// Reads the message at `span`.
    ///
    /// # Errors
    /// What its direct fields show to be malformed.
    pub fn read(buf: &[u8], span: Span) -> Result<ExemplarAt, WireError> {
        let mut it = ExemplarAt { time_ns: 0, value: None, is_plain: true };
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            match field.number {
                2 => it.time_ns = field.fixed64()?,
                3 => it.value = Some(f64::from_bits(field.fixed64()?)),
                6 => it.value = Some(field.fixed64()?.cast_signed() as f64),
                4 => it.is_plain &= field.bytes().is_ok_and(|id| [0, 8].contains(&id.len())),
                5 => it.is_plain &= field.bytes().is_ok_and(|id| [0, 16].contains(&id.len())),
                7 => it.is_plain &= field.bytes().is_ok(),
                _ => it.is_plain = false,
            }
        }
        Ok(it)
    }
}
