//! All views over arbitrary bytes. Nothing panics, every span lies inside the buffer, and what the views read to the end equals
//! what prost reads of the same bytes; prost accepts nothing that the views refuse, but for what `decode` says it refuses.
//!
//! Left out: the content of points that are not read (histograms, summaries, exemplars), and bytes whose text is not UTF-8,
//! which prost refuses and the views leave to the caller.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1 as pc;
use opentelemetry_proto::tonic::common::v1::any_value::Value as PValue;
use opentelemetry_proto::tonic::metrics::v1 as pm;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data as PData, number_data_point::Value as PNumber};
use opentelemetry_proto::tonic::resource::v1::Resource as PResource;
use phoenix_filter::decode::{
    AnyValue, Attributes, Data, Elements, KeyValue, Metric, Number, NumberPoint, Request, Resource,
    ResourceMetrics, Run, Scope, ScopeMetrics, Sum, Temporality, histogram_temporality, points,
};
use phoenix_filter::wire::{Span, WireError, WireErrorKind};
use prost::Message;

/// Run one input.
pub fn run(data: &[u8]) {
    let mut reader = Reader { buf: data, text: true };
    let ours = reader.request();
    let theirs = ExportMetricsServiceRequest::decode(data);
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            // Compared as bytes, so that NaN equals NaN.
            let (ours, theirs) = (ours.encode_to_vec(), strip(theirs).encode_to_vec());
            assert!(reader.text, "prost reads no broken text");
            assert_eq!(ours, theirs, "the views read what prost reads");
        }
        (Err(e), Ok(_)) => {
            assert!(e.at <= data.len(), "{e:?}");
            assert!(may_refuse(e.kind), "prost reads what the views refuse: {e:?}");
        }
        (Err(e), Err(_)) => assert!(e.at <= data.len(), "{e:?}"),
        // Broken text, or something in the parts that are not read.
        (Ok(_), Err(_)) => {}
    }
}

/// Refusals beyond those of prost, as the documentation of `decode` and `wire` lists them.
fn may_refuse(kind: WireErrorKind) -> bool {
    use WireErrorKind::*;
    matches!(kind, Repeated | TooDeep | StringIndex | Group)
}

/// What is not read becomes its number: points keep only that they are there.
fn strip(mut request: ExportMetricsServiceRequest) -> ExportMetricsServiceRequest {
    for rm in &mut request.resource_metrics {
        if let Some(r) = &mut rm.resource {
            r.entity_refs.clear();
            r.attributes.iter_mut().for_each(strip_pair);
        }
        for scope in rm.scope_metrics.iter_mut().filter_map(|s| s.scope.as_mut()) {
            scope.attributes.iter_mut().for_each(strip_pair);
        }
        for metric in rm.scope_metrics.iter_mut().flat_map(|s| &mut s.metrics) {
            metric.metadata.iter_mut().for_each(strip_pair);
            match &mut metric.data {
                Some(PData::Gauge(g)) => g.data_points.iter_mut().for_each(strip_point),
                Some(PData::Sum(s)) => s.data_points.iter_mut().for_each(strip_point),
                Some(PData::Histogram(h)) => {
                    h.data_points.iter_mut().for_each(|p| *p = Default::default());
                }
                Some(PData::ExponentialHistogram(h)) => {
                    h.data_points.iter_mut().for_each(|p| *p = Default::default());
                }
                Some(PData::Summary(s)) => s.data_points.iter_mut().for_each(|p| *p = Default::default()),
                None => {}
            }
        }
    }
    request
}

fn strip_point(point: &mut pm::NumberDataPoint) {
    point.exemplars.iter_mut().for_each(|e| *e = Default::default());
    point.attributes.iter_mut().for_each(strip_pair);
}

/// A missing value and an empty one are the same to a view.
fn strip_pair(pair: &mut pc::KeyValue) {
    strip_value(pair.value.get_or_insert_default());
}

fn strip_value(value: &mut pc::AnyValue) {
    match &mut value.value {
        Some(PValue::ArrayValue(array)) => array.values.iter_mut().for_each(strip_value),
        Some(PValue::KvlistValue(list)) => list.values.iter_mut().for_each(strip_pair),
        _ => {}
    }
}

fn number(temporality: Temporality) -> i32 {
    match temporality {
        Temporality::Unspecified => 0,
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
        Temporality::Other(n) => n,
    }
}

struct Reader<'a> {
    buf: &'a [u8],
    /// All text so far was UTF-8.
    text: bool,
}

impl Reader<'_> {
    fn bytes(&self, span: Span) -> Vec<u8> {
        assert!(span.start <= span.end && span.end <= self.buf.len(), "{span:?} outside {}", self.buf.len());
        span.bytes(self.buf).to_vec()
    }

    fn string(&mut self, span: Span) -> String {
        String::from_utf8(self.bytes(span)).unwrap_or_else(|_| {
            self.text = false;
            String::new()
        })
    }

    fn each<T>(
        &mut self,
        run: &Run,
        mut read: impl FnMut(&mut Self, Span) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let (mut fields, mut list) = (run.fields(self.buf), Vec::new());
        while let Some((field, span)) = fields.next()? {
            let whole = field.span();
            assert!(run.span.start <= whole.start && whole.end <= run.span.end, "a field outside its run");
            self.bytes(span);
            list.push(read(self, span)?);
        }
        assert_eq!(list.len(), run.count as usize, "a run knows its number");
        Ok(list)
    }

    fn request(&mut self) -> Result<ExportMetricsServiceRequest, WireError> {
        let it = Request::read(self.buf, Span::all(self.buf))?;
        let resource_metrics = self.each(&it.resource_metrics, Self::resource_metrics)?;
        Ok(ExportMetricsServiceRequest { resource_metrics })
    }

    fn resource_metrics(&mut self, span: Span) -> Result<pm::ResourceMetrics, WireError> {
        let it = ResourceMetrics::read(self.buf, span)?;
        let resource = match it.resource {
            Some(span) => {
                let it = Resource::read(self.buf, span)?;
                Some(PResource {
                    attributes: self.pairs(&it.attributes)?,
                    dropped_attributes_count: it.dropped_attributes,
                    ..Default::default()
                })
            }
            None => None,
        };
        Ok(pm::ResourceMetrics {
            resource,
            scope_metrics: self.each(&it.scope_metrics, Self::scope_metrics)?,
            schema_url: self.string(it.schema_url),
        })
    }

    fn scope_metrics(&mut self, span: Span) -> Result<pm::ScopeMetrics, WireError> {
        let it = ScopeMetrics::read(self.buf, span)?;
        let scope = match it.scope {
            Some(span) => {
                let it = Scope::read(self.buf, span)?;
                Some(pc::InstrumentationScope {
                    name: self.string(it.name),
                    version: self.string(it.version),
                    attributes: self.pairs(&it.attributes)?,
                    dropped_attributes_count: it.dropped_attributes,
                })
            }
            None => None,
        };
        let metrics = self.each(&it.metrics, Self::metric)?;
        Ok(pm::ScopeMetrics { scope, metrics, schema_url: self.string(it.schema_url) })
    }

    fn metric(&mut self, span: Span) -> Result<pm::Metric, WireError> {
        let it = Metric::read(self.buf, span)?;
        let content = match it.data.field() {
            Some(field) => Some(field.bytes()?),
            None => None,
        };
        let data = match (it.data, content) {
            (Data::Sum(_), Some(span)) => {
                let sum = Sum::read(self.buf, span)?;
                Some(PData::Sum(pm::Sum {
                    data_points: self.each(&sum.points, Self::point)?,
                    aggregation_temporality: number(sum.temporality),
                    is_monotonic: sum.monotonic,
                }))
            }
            (Data::Gauge(_), Some(span)) => {
                let run = points(self.buf, span)?;
                Some(PData::Gauge(pm::Gauge { data_points: self.each(&run, Self::point)? }))
            }
            (Data::Histogram(_), Some(span)) => {
                let aggregation_temporality = number(histogram_temporality(self.buf, span)?);
                Some(PData::Histogram(pm::Histogram {
                    data_points: self.count(span)?,
                    aggregation_temporality,
                }))
            }
            (Data::ExponentialHistogram(_), Some(span)) => {
                let aggregation_temporality = number(histogram_temporality(self.buf, span)?);
                let data_points = self.count(span)?;
                let all = pm::ExponentialHistogram { data_points, aggregation_temporality };
                Some(PData::ExponentialHistogram(all))
            }
            (Data::Summary(_), Some(span)) => {
                Some(PData::Summary(pm::Summary { data_points: self.count(span)? }))
            }
            _ => None,
        };
        Ok(pm::Metric {
            name: self.string(it.name),
            description: self.string(it.description),
            unit: self.string(it.unit),
            metadata: self.pairs(&it.metadata)?,
            data,
        })
    }

    fn count<T: Default>(&mut self, span: Span) -> Result<Vec<T>, WireError> {
        let run = points(self.buf, span)?;
        self.each(&run, |_, _| Ok(T::default()))
    }

    fn point(&mut self, span: Span) -> Result<pm::NumberDataPoint, WireError> {
        let it = NumberPoint::read(self.buf, span)?;
        Ok(pm::NumberDataPoint {
            attributes: self.pairs(&it.attributes)?,
            start_time_unix_nano: it.start_ns,
            time_unix_nano: it.time_ns,
            exemplars: vec![Default::default(); it.exemplars.count as usize],
            flags: it.flags,
            value: it.value.map(|v| match v {
                Number::Int(v) => PNumber::AsInt(v),
                Number::Double(v) => PNumber::AsDouble(v),
            }),
        })
    }

    fn pairs(&mut self, run: &Run) -> Result<Vec<pc::KeyValue>, WireError> {
        let mut list = Vec::new();
        let mut it = run.attributes(self.buf);
        while let Some(kv) = it.next()? {
            list.push(self.pair(&kv, 1)?);
        }
        Ok(list)
    }

    fn pair(&mut self, kv: &KeyValue, depth: usize) -> Result<pc::KeyValue, WireError> {
        self.bytes(kv.field);
        let value = self.value(&kv.value, depth)?;
        Ok(pc::KeyValue { key: self.string(kv.key), value: Some(value), ..Default::default() })
    }

    fn value(&mut self, value: &AnyValue, depth: usize) -> Result<pc::AnyValue, WireError> {
        let value = match *value {
            AnyValue::Empty => None,
            AnyValue::Str(s) => Some(PValue::StringValue(self.string(s))),
            AnyValue::Bool(b) => Some(PValue::BoolValue(b)),
            AnyValue::Int(i) => Some(PValue::IntValue(i)),
            AnyValue::Double(d) => Some(PValue::DoubleValue(d)),
            AnyValue::Bytes(s) => Some(PValue::BytesValue(self.bytes(s))),
            AnyValue::Array(span) => {
                let (mut it, mut values) = (Elements::new(self.buf, span, depth)?, Vec::new());
                while let Some(element) = it.next()? {
                    values.push(self.value(&element, depth + 1)?);
                }
                Some(PValue::ArrayValue(pc::ArrayValue { values }))
            }
            AnyValue::KvList(span) => {
                let (mut it, mut values) = (Attributes::of_list(self.buf, span, depth)?, Vec::new());
                while let Some(kv) = it.next()? {
                    values.push(self.pair(&kv, depth + 1)?);
                }
                Some(PValue::KvlistValue(pc::KeyValueList { values }))
            }
        };
        Ok(pc::AnyValue { value })
    }
}
