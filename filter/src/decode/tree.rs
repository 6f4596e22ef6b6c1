//! From the request down to the data of a metric.
//!
//! In: the span of a message. Out: what the message says itself, and where its children are. Sums are read; of the
//! other kinds only the number of points is, since they pass byte for byte.

use super::{Run, singular};
use crate::wire::{Field, Fields, Span, WireError, WireErrorKind};

/// Tag of `data_points` of any kind of data.
const TAG_POINT: u8 = 0x0a;

/// `ExportMetricsServiceRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// `resource_metrics`, field 1.
    pub resource_metrics: Run,
}

impl Request {
    /// Reads the request at `span`.
    ///
    /// # Errors
    /// What the direct fields of the message show to be malformed; the same holds for every `read` here.
    pub fn read(buf: &[u8], span: Span) -> Result<Request, WireError> {
        let (mut fields, mut resource_metrics) = (Fields::new(buf, span), Run::new(1));
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                resource_metrics.add(&field)?;
            }
        }
        Ok(Request { resource_metrics })
    }
}

/// `ResourceMetrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceMetrics {
    /// `resource`, for [`Resource::read`].
    pub resource: Option<Span>,
    /// `scope_metrics`, for [`ScopeMetrics::read`].
    pub scope_metrics: Run,
    /// `schema_url`.
    pub schema_url: Span,
}

impl ResourceMetrics {
    /// Reads the message at `span`.
    pub fn read(buf: &[u8], span: Span) -> Result<ResourceMetrics, WireError> {
        let mut it = ResourceMetrics { resource: None, scope_metrics: Run::new(2), schema_url: Span::EMPTY };
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => singular(&mut it.resource, &field)?,
                2 => it.scope_metrics.add(&field)?,
                3 => it.schema_url = field.bytes()?,
                _ => {}
            }
        }
        Ok(it)
    }
}

/// `Resource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `attributes`.
    pub attributes: Run,
    /// `dropped_attributes_count`.
    pub dropped_attributes: u32,
}

impl Resource {
    /// Reads the message at `span`.
    pub fn read(buf: &[u8], span: Span) -> Result<Resource, WireError> {
        let mut it = Resource { attributes: Run::new(1), dropped_attributes: 0 };
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => it.attributes.add(&field)?,
                2 => it.dropped_attributes = field.uint32()?,
                _ => {}
            }
        }
        Ok(it)
    }
}

/// `ScopeMetrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeMetrics {
    /// `scope`, for [`Scope::read`].
    pub scope: Option<Span>,
    /// `metrics`, for [`Metric::read`].
    pub metrics: Run,
    /// `schema_url`.
    pub schema_url: Span,
}

impl ScopeMetrics {
    /// Reads the message at `span`.
    pub fn read(buf: &[u8], span: Span) -> Result<ScopeMetrics, WireError> {
        let mut it = ScopeMetrics { scope: None, metrics: Run::new(2), schema_url: Span::EMPTY };
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => singular(&mut it.scope, &field)?,
                2 => it.metrics.add(&field)?,
                3 => it.schema_url = field.bytes()?,
                _ => {}
            }
        }
        Ok(it)
    }
}

/// `InstrumentationScope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `name`.
    pub name: Span,
    /// `version`.
    pub version: Span,
    /// `attributes`.
    pub attributes: Run,
    /// `dropped_attributes_count`.
    pub dropped_attributes: u32,
}

impl Scope {
    /// Reads the message at `span`.
    pub fn read(buf: &[u8], span: Span) -> Result<Scope, WireError> {
        let mut it =
            Scope { name: Span::EMPTY, version: Span::EMPTY, attributes: Run::new(3), dropped_attributes: 0 };
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => it.name = field.bytes()?,
                2 => it.version = field.bytes()?,
                3 => it.attributes.add(&field)?,
                4 => it.dropped_attributes = field.uint32()?,
                _ => {}
            }
        }
        Ok(it)
    }
}

/// The oneof `data` of a metric: the whole field, for [`Sum::read`] or [`points`] and for edits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Data {
    /// The metric has no data.
    #[default]
    None,
    /// Field 5.
    Gauge(Field),
    /// Field 7.
    Sum(Field),
    /// Field 9.
    Histogram(Field),
    /// Field 10.
    ExponentialHistogram(Field),
    /// Field 11.
    Summary(Field),
}

impl Data {
    /// The field, whatever the kind.
    pub fn field(&self) -> Option<&Field> {
        match self {
            Data::None => None,
            Data::Gauge(field)
            | Data::Sum(field)
            | Data::Histogram(field)
            | Data::ExponentialHistogram(field)
            | Data::Summary(field) => Some(field),
        }
    }
}

/// `Metric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// `name`.
    pub name: Span,
    /// `description`.
    pub description: Span,
    /// `unit`.
    pub unit: Span,
    /// `metadata`.
    pub metadata: Run,
    /// The oneof `data`.
    pub data: Data,
}

impl Metric {
    /// Reads the message at `span`. Two kinds of data, or one kind twice, are [`WireErrorKind::Repeated`].
    pub fn read(buf: &[u8], span: Span) -> Result<Metric, WireError> {
        let mut it = Metric {
            name: Span::EMPTY,
            description: Span::EMPTY,
            unit: Span::EMPTY,
            metadata: Run::new(12),
            data: Data::None,
        };
        let mut fields = Fields::new(buf, span);
        while let Some(field) = fields.next()? {
            let data = match field.number {
                5 => Data::Gauge(field),
                7 => Data::Sum(field),
                9 => Data::Histogram(field),
                10 => Data::ExponentialHistogram(field),
                11 => Data::Summary(field),
                number => {
                    match number {
                        1 => it.name = field.bytes()?,
                        2 => it.description = field.bytes()?,
                        3 => it.unit = field.bytes()?,
                        12 => it.metadata.add(&field)?,
                        _ => {}
                    }
                    continue;
                }
            };
            field.bytes()?;
            if it.data != Data::None {
                return Err(WireError::new(WireErrorKind::Repeated, field.start));
            }
            it.data = data;
        }
        Ok(it)
    }
}

/// `AggregationTemporality`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Temporality {
    /// 0, or absent.
    #[default]
    Unspecified,
    /// 1.
    Delta,
    /// 2.
    Cumulative,
    /// A value that this version of OTLP does not have.
    Other(i32),
}

impl Temporality {
    #[inline]
    fn read(field: &Field) -> Result<Temporality, WireError> {
        // An enum is an int32: the low 32 bits of the varint.
        Ok(match field.varint()? as i32 {
            0 => Temporality::Unspecified,
            1 => Temporality::Delta,
            2 => Temporality::Cumulative,
            other => Temporality::Other(other),
        })
    }
}

/// `Sum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// `data_points`, for [`super::NumberPoint::read`].
    pub points: Run,
    /// `aggregation_temporality`.
    pub temporality: Temporality,
    /// `is_monotonic`.
    pub monotonic: bool,
}

impl Sum {
    /// Reads the message at `span`.
    pub fn read(buf: &[u8], span: Span) -> Result<Sum, WireError> {
        let mut it = Sum { points: Run::new(1), temporality: Temporality::Unspecified, monotonic: false };
        let mut fields = Fields::new(buf, span);
        loop {
            while let Some(field) = fields.short(TAG_POINT) {
                it.points.add(&field)?;
            }
            let Some(field) = fields.next()? else { break };
            match field.number {
                1 => it.points.add(&field)?,
                2 => it.temporality = Temporality::read(&field)?,
                3 => it.monotonic = field.varint()? != 0,
                _ => {}
            }
        }
        Ok(it)
    }
}

/// The points of any kind of data: all of them have `data_points` as field 1. The points of a gauge are
/// [`super::NumberPoint`]s.
pub fn points(buf: &[u8], span: Span) -> Result<Run, WireError> {
    let (mut fields, mut points) = (Fields::new(buf, span), Run::new(1));
    loop {
        while let Some(field) = fields.short(TAG_POINT) {
            points.add(&field)?;
        }
        let Some(field) = fields.next()? else { return Ok(points) };
        if field.number == 1 {
            points.add(&field)?;
        }
    }
}

/// The temporality of a histogram of either kind, both of which have it as field 2.
pub fn histogram_temporality(buf: &[u8], span: Span) -> Result<Temporality, WireError> {
    let (mut fields, mut temporality) = (Fields::new(buf, span), Temporality::Unspecified);
    while let Some(field) = fields.next()? {
        if field.number == 2 {
            temporality = Temporality::read(&field)?;
        }
    }
    Ok(temporality)
}
