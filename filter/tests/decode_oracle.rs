//! `wire`, `decode` and `edit` against prost, which shares no code with them.
//!
//! A seed makes a random request of all data kinds and attribute types. prost encodes it; a shuffler that knows only
//! the shape of the tree then reorders the fields of every message, doubles scalars, pads length prefixes and puts
//! unknown fields between. What the views read must equal what prost decodes of the same bytes, and what the edits
//! leave must equal, byte for byte, a naive rebuild of the tree.
//!
//! Not proven here: speed, and the content of points that are not read (histograms, summaries, exemplars).

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as PValue;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue as PAnyValue, ArrayValue, InstrumentationScope, KeyValue as PKeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::metrics::v1 as pm;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data as PData, number_data_point::Value as PNumber};
use opentelemetry_proto::tonic::resource::v1::Resource as PResource;
use phoenix_filter::decode::*;
use phoenix_filter::edit::Edits;
use phoenix_filter::wire::{Span, WireError, WireErrorKind, utf8};
use proptest::prelude::*;
use prost::Message;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

// ---- random requests -------------------------------------------------------------------------------------------

struct Gen(ChaCha8Rng);

impl Gen {
    fn many<T>(&mut self, max: usize, mut make: impl FnMut(&mut Gen) -> T) -> Vec<T> {
        let n = self.0.random_range(0..=max);
        (0..n).map(|_| make(self)).collect()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Gen) -> T) -> Option<T> {
        if self.0.random_bool(0.8) { Some(make(self)) } else { None }
    }

    fn text(&mut self) -> String {
        let words = ["", "", "a", "http.route", "ä☃", "/checkout/{id}", "k8s.pod.name"];
        let mut text = words[self.0.random_range(0..words.len())].to_string();
        if self.0.random_bool(0.05) {
            text = "x".repeat(self.0.random_range(100..300)); // prefixes of two bytes, and lengths around 128
        }
        text
    }

    fn int(&mut self) -> u64 {
        let shift = self.0.random_range(0..64);
        self.0.random::<u64>() >> shift
    }

    fn double(&mut self) -> f64 {
        let special = [0.0, -0.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE / 2.0];
        if self.0.random_bool(0.3) {
            special[self.0.random_range(0..special.len())]
        } else {
            f64::from_bits(self.0.random())
        }
    }

    fn value(&mut self, depth: usize) -> PAnyValue {
        let value = match self.0.random_range(0..if depth < 4 { 9 } else { 6 }) {
            0 => None,
            1 => Some(PValue::BoolValue(self.0.random())),
            2 => Some(PValue::IntValue(self.int().cast_signed())),
            3 => Some(PValue::DoubleValue(self.double())),
            4 => Some(PValue::BytesValue(self.many(5, |g| g.0.random()))),
            5 | 6 => Some(PValue::StringValue(self.text())),
            7 => Some(PValue::ArrayValue(ArrayValue { values: self.many(3, |g| g.value(depth + 1)) })),
            _ => Some(PValue::KvlistValue(KeyValueList { values: self.many(3, |g| g.pair(depth + 1)) })),
        };
        PAnyValue { value }
    }

    fn pair(&mut self, depth: usize) -> PKeyValue {
        PKeyValue { key: self.text(), value: self.maybe(|g| g.value(depth)), key_strindex: 0 }
    }

    fn pairs(&mut self) -> Vec<PKeyValue> {
        self.many(4, |g| g.pair(0))
    }

    fn exemplar(&mut self) -> pm::Exemplar {
        pm::Exemplar {
            filtered_attributes: self.pairs(),
            time_unix_nano: self.int(),
            span_id: vec![1; 8],
            trace_id: vec![2; 16],
            value: None,
        }
    }

    fn number(&mut self) -> pm::NumberDataPoint {
        let (int, double) = (self.int().cast_signed(), self.double());
        pm::NumberDataPoint {
            attributes: self.pairs(),
            start_time_unix_nano: self.int(),
            time_unix_nano: self.int(),
            exemplars: self.many(2, Gen::exemplar),
            flags: self.int() as u32,
            value: self.maybe(|g| if g.0.random() { PNumber::AsInt(int) } else { PNumber::AsDouble(double) }),
        }
    }

    fn metric(&mut self) -> pm::Metric {
        let temporality = self.0.random_range(-1..4);
        let data = self.maybe(|g| match g.0.random_range(0..8) {
            0 => PData::Gauge(pm::Gauge { data_points: g.many(3, Gen::number) }),
            1 => PData::Histogram(pm::Histogram {
                data_points: g.many(3, |g| pm::HistogramDataPoint {
                    attributes: g.pairs(),
                    count: g.int(),
                    sum: Some(g.double()),
                    bucket_counts: g.many(4, Gen::int),
                    explicit_bounds: g.many(4, Gen::double),
                    exemplars: g.many(1, Gen::exemplar),
                    ..Default::default()
                }),
                aggregation_temporality: temporality,
            }),
            2 => PData::ExponentialHistogram(pm::ExponentialHistogram {
                data_points: g.many(3, |g| pm::ExponentialHistogramDataPoint {
                    attributes: g.pairs(),
                    count: g.int(),
                    scale: 3,
                    ..Default::default()
                }),
                aggregation_temporality: temporality,
            }),
            3 => PData::Summary(pm::Summary {
                data_points: g.many(3, |g| pm::SummaryDataPoint {
                    attributes: g.pairs(),
                    sum: g.double(),
                    ..Default::default()
                }),
            }),
            _ => PData::Sum(pm::Sum {
                data_points: g.many(5, Gen::number),
                aggregation_temporality: temporality,
                is_monotonic: g.0.random(),
            }),
        });
        pm::Metric {
            name: self.text(),
            description: self.text(),
            unit: self.text(),
            metadata: self.many(1, |g| g.pair(0)),
            data,
        }
    }

    fn request(&mut self) -> ExportMetricsServiceRequest {
        let resource_metrics = self.many(3, |g| pm::ResourceMetrics {
            resource: g.maybe(|g| PResource {
                attributes: g.pairs(),
                dropped_attributes_count: g.int() as u32,
                entity_refs: vec![],
            }),
            scope_metrics: g.many(3, |g| pm::ScopeMetrics {
                scope: g.maybe(|g| InstrumentationScope {
                    name: g.text(),
                    version: g.text(),
                    attributes: g.pairs(),
                    dropped_attributes_count: g.int() as u32,
                }),
                metrics: g.many(4, Gen::metric),
                schema_url: g.text(),
            }),
            schema_url: g.text(),
        });
        ExportMetricsServiceRequest { resource_metrics }
    }
}

// ---- the shape of the tree, and bytes taken apart without our reader ---------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Request,
    ResourceMetrics,
    Resource,
    ScopeMetrics,
    Scope,
    Metric,
    Numbers,
    SumData,
    OtherData,
    Number,
    Pair,
    Value,
    Array,
    List,
}

fn child(kind: Kind, number: u32) -> Option<Kind> {
    Some(match (kind, number) {
        (Kind::Request, 1) => Kind::ResourceMetrics,
        (Kind::ResourceMetrics, 1) => Kind::Resource,
        (Kind::ResourceMetrics, 2) => Kind::ScopeMetrics,
        (Kind::ScopeMetrics, 1) => Kind::Scope,
        (Kind::ScopeMetrics, 2) => Kind::Metric,
        (Kind::Metric, 5) => Kind::Numbers,
        (Kind::Metric, 7) => Kind::SumData,
        (Kind::Metric, 9..=11) => Kind::OtherData,
        (Kind::Numbers | Kind::SumData, 1) => Kind::Number,
        (Kind::Resource, 1) | (Kind::Scope, 3) | (Kind::Metric, 12) | (Kind::Number, 7) | (Kind::List, 1) => {
            Kind::Pair
        }
        (Kind::Pair, 2) | (Kind::Array, 1) => Kind::Value,
        (Kind::Value, 5) => Kind::Array,
        (Kind::Value, 6) => Kind::List,
        _ => return None,
    })
}

struct Part<'a> {
    number: u32,
    wire_type: u64,
    /// The content after the length prefix, or the value.
    content: &'a [u8],
    whole: &'a [u8],
}

fn parts(bytes: &[u8]) -> Vec<Part<'_>> {
    let (mut rest, mut parts) = (bytes, vec![]);
    while !rest.is_empty() {
        let whole = rest;
        let key = prost::encoding::decode_varint(&mut rest).unwrap();
        let len = match key & 7 {
            0 => {
                let mut after = rest;
                prost::encoding::decode_varint(&mut after).unwrap();
                rest.len() - after.len()
            }
            1 => 8,
            2 => prost::encoding::decode_varint(&mut rest).unwrap() as usize,
            _ => 4,
        };
        let (content, after) = rest.split_at(len);
        let whole = &whole[..whole.len() - after.len()];
        parts.push(Part { number: (key >> 3) as u32, wire_type: key & 7, content, whole });
        rest = after;
    }
    parts
}

fn put(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    prost::encoding::encode_varint(u64::from(number) << 3 | 2, out);
    prost::encoding::encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// The same message, as another writer could have put it.
fn shuffle(kind: Kind, bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = vec![];
    for part in parts(bytes) {
        let Some(child) = child(kind, part.number) else {
            fields.push(part.whole.to_vec());
            if part.wire_type != 2 && rng.random_bool(0.1) {
                // The same scalar again with another value: the last one wins, whichever that will be.
                let mut other = part.whole.to_vec();
                let at = other.len() - 1;
                let bound = if other.len() > 10 { 2 } else { 128 }; // the tenth byte of a varint
                other[at] = if part.wire_type == 0 { rng.random_range(0..bound) } else { rng.random() };
                fields.push(other);
            }
            continue;
        };
        let inner = shuffle(child, part.content, rng);
        let mut field = vec![];
        if rng.random_bool(0.05) {
            prost::encoding::encode_varint(u64::from(part.number) << 3 | 2, &mut field);
            prost::encoding::encode_varint(inner.len() as u64, &mut field);
            *field.last_mut().unwrap() |= 0x80; // a padded prefix
            field.push(0);
            field.extend_from_slice(&inner);
        } else {
            put(&mut field, part.number, &inner);
        }
        fields.push(field);
    }
    if rng.random_bool(0.2) {
        let number = [100, 1_999, 70_000, (1 << 29) - 1][rng.random_range(0..4)];
        let (wire_type, value): (u32, &[u8]) =
            [(0, &b"\x85\x01"[..]), (1, b"12345678"), (2, b"\x03\xff\xfe\xfd"), (5, b"1234")]
                [rng.random_range(0..4)];
        let mut field = vec![];
        prost::encoding::encode_varint(u64::from(number << 3 | wire_type), &mut field);
        field.extend_from_slice(value);
        fields.push(field);
    }
    if kind == Kind::Number && rng.random_bool(0.1) {
        fields.push(b"\x31\x07\0\0\0\0\0\0\0".to_vec()); // as_int 7 beside the value
    }
    let nested = parts(bytes).iter().any(|part| kind == Kind::Value && (5..=6).contains(&part.number));
    if kind == Kind::Value && !nested && rng.random_bool(0.1) {
        fields.push(b"\x18\x07".to_vec()); // int_value 7 beside the value
    }
    match rng.random_range(0..3) {
        0 => {}
        1 => fields.reverse(), // like the Collector
        _ => fields.shuffle(rng),
    }
    fields.concat()
}

fn bytes_of(seed: u64) -> Vec<u8> {
    let mut g = Gen(ChaCha8Rng::seed_from_u64(seed));
    let plain = g.request().encode_to_vec();
    if g.0.random_bool(0.3) { plain } else { shuffle(Kind::Request, &plain, &mut g.0) }
}

// ---- what the views read, as prost's structs ---------------------------------------------------------------------

fn text(buf: &[u8], span: Span) -> String {
    String::from_utf8_lossy(span.bytes(buf)).into_owned()
}

fn value(buf: &[u8], value: AnyValue, depth: usize) -> Result<PAnyValue, WireError> {
    let value = match value {
        AnyValue::Empty => None,
        AnyValue::Str(span) => Some(PValue::StringValue(text(buf, span))),
        AnyValue::Bool(value) => Some(PValue::BoolValue(value)),
        AnyValue::Int(value) => Some(PValue::IntValue(value)),
        AnyValue::Double(value) => Some(PValue::DoubleValue(value)),
        AnyValue::Bytes(span) => Some(PValue::BytesValue(span.bytes(buf).to_vec())),
        AnyValue::Array(span) => {
            let (mut elements, mut values) = (Elements::new(buf, span, depth + 1)?, vec![]);
            while let Some(element) = elements.next()? {
                values.push(self::value(buf, element, depth + 1)?);
            }
            Some(PValue::ArrayValue(ArrayValue { values }))
        }
        AnyValue::KvList(span) => {
            let values = pairs(buf, Attributes::of_list(buf, span, depth + 1)?, depth + 1)?;
            Some(PValue::KvlistValue(KeyValueList { values }))
        }
    };
    Ok(PAnyValue { value })
}

fn pairs(buf: &[u8], mut attributes: Attributes<'_>, depth: usize) -> Result<Vec<PKeyValue>, WireError> {
    let mut all = vec![];
    while let Some(pair) = attributes.next()? {
        assert!(pair.field.start < pair.field.end && pair.field.end <= buf.len());
        let value = value(buf, pair.value, depth)?;
        all.push(PKeyValue { key: text(buf, pair.key), value: Some(value), key_strindex: 0 });
    }
    Ok(all)
}

fn numbers(buf: &[u8], run: Run) -> Result<Vec<pm::NumberDataPoint>, WireError> {
    let (mut fields, mut all) = (run.fields(buf), vec![]);
    while let Some((field, span)) = fields.next()? {
        assert!(run.span.start <= field.start && field.end <= run.span.end && span.end == field.end);
        let point = NumberPoint::read(buf, span)?;
        all.push(pm::NumberDataPoint {
            attributes: pairs(buf, point.attributes.attributes(buf), 0)?,
            start_time_unix_nano: point.start_ns,
            time_unix_nano: point.time_ns,
            exemplars: vec![Default::default(); point.exemplars.count as usize],
            flags: point.flags,
            value: point.value.map(|value| match value {
                Number::Int(value) => PNumber::AsInt(value),
                Number::Double(value) => PNumber::AsDouble(value),
            }),
        });
    }
    assert_eq!(all.len(), run.count as usize);
    Ok(all)
}

fn temporality(temporality: Temporality) -> i32 {
    match temporality {
        Temporality::Unspecified => 0,
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
        Temporality::Other(other) => other,
    }
}

fn data(buf: &[u8], data: Data) -> Result<Option<PData>, WireError> {
    let Some(field) = data.field() else { return Ok(None) };
    let span = field.bytes()?;
    let count = points(buf, span)?.count as usize;
    Ok(Some(match data {
        Data::None => unreachable!("it has no field"),
        Data::Gauge(_) => PData::Gauge(pm::Gauge { data_points: numbers(buf, points(buf, span)?)? }),
        Data::Sum(_) => {
            let sum = Sum::read(buf, span)?;
            PData::Sum(pm::Sum {
                data_points: numbers(buf, sum.points)?,
                aggregation_temporality: temporality(sum.temporality),
                is_monotonic: sum.monotonic,
            })
        }
        Data::Histogram(_) => PData::Histogram(pm::Histogram {
            data_points: vec![Default::default(); count],
            aggregation_temporality: temporality(histogram_temporality(buf, span)?),
        }),
        Data::ExponentialHistogram(_) => PData::ExponentialHistogram(pm::ExponentialHistogram {
            data_points: vec![Default::default(); count],
            aggregation_temporality: temporality(histogram_temporality(buf, span)?),
        }),
        Data::Summary(_) => PData::Summary(pm::Summary { data_points: vec![Default::default(); count] }),
    }))
}

fn read_all(buf: &[u8]) -> Result<ExportMetricsServiceRequest, WireError> {
    let mut request = ExportMetricsServiceRequest::default();
    let mut resources = Request::read(buf, Span::all(buf))?.resource_metrics.fields(buf);
    while let Some((_, span)) = resources.next()? {
        let it = ResourceMetrics::read(buf, span)?;
        let resource = it.resource.map(|span| {
            let resource = Resource::read(buf, span)?;
            Ok(PResource {
                attributes: pairs(buf, resource.attributes.attributes(buf), 0)?,
                dropped_attributes_count: resource.dropped_attributes,
                entity_refs: vec![],
            })
        });
        let (mut scopes, mut scope_metrics) = (it.scope_metrics.fields(buf), vec![]);
        while let Some((_, span)) = scopes.next()? {
            let it = ScopeMetrics::read(buf, span)?;
            let scope = it.scope.map(|span| {
                let scope = Scope::read(buf, span)?;
                Ok(InstrumentationScope {
                    name: text(buf, scope.name),
                    version: text(buf, scope.version),
                    attributes: pairs(buf, scope.attributes.attributes(buf), 0)?,
                    dropped_attributes_count: scope.dropped_attributes,
                })
            });
            let (mut fields, mut metrics) = (it.metrics.fields(buf), vec![]);
            while let Some((_, span)) = fields.next()? {
                let metric = Metric::read(buf, span)?;
                metrics.push(pm::Metric {
                    name: text(buf, metric.name),
                    description: text(buf, metric.description),
                    unit: text(buf, metric.unit),
                    metadata: pairs(buf, metric.metadata.attributes(buf), 0)?,
                    data: data(buf, metric.data)?,
                });
            }
            let schema_url = text(buf, it.schema_url);
            scope_metrics.push(pm::ScopeMetrics { scope: scope.transpose()?, metrics, schema_url });
        }
        let schema_url = text(buf, it.schema_url);
        let resource = resource.transpose()?;
        request.resource_metrics.push(pm::ResourceMetrics { resource, scope_metrics, schema_url });
    }
    Ok(request)
}

/// Takes out of prost's structs what the views do not read.
fn strip(request: &mut ExportMetricsServiceRequest) {
    fn strip_value(value: &mut PAnyValue) {
        match &mut value.value {
            Some(PValue::ArrayValue(array)) => array.values.iter_mut().for_each(strip_value),
            Some(PValue::KvlistValue(list)) => strip_pairs(&mut list.values),
            _ => {}
        }
    }
    fn strip_pairs(pairs: &mut [PKeyValue]) {
        pairs.iter_mut().for_each(|pair| strip_value(pair.value.get_or_insert_default()));
    }
    fn strip_numbers(points: &mut [pm::NumberDataPoint]) {
        for point in points {
            strip_pairs(&mut point.attributes);
            point.exemplars.iter_mut().for_each(|e| *e = Default::default());
        }
    }
    for it in &mut request.resource_metrics {
        if let Some(resource) = &mut it.resource {
            strip_pairs(&mut resource.attributes);
            resource.entity_refs.clear();
        }
        for it in &mut it.scope_metrics {
            it.scope.iter_mut().for_each(|scope| strip_pairs(&mut scope.attributes));
            for metric in &mut it.metrics {
                strip_pairs(&mut metric.metadata);
                match &mut metric.data {
                    None => {}
                    Some(PData::Gauge(it)) => strip_numbers(&mut it.data_points),
                    Some(PData::Sum(it)) => strip_numbers(&mut it.data_points),
                    Some(PData::Histogram(it)) => {
                        it.data_points.iter_mut().for_each(|p| *p = Default::default())
                    }
                    Some(PData::ExponentialHistogram(it)) => {
                        it.data_points.iter_mut().for_each(|p| *p = Default::default());
                    }
                    Some(PData::Summary(it)) => {
                        it.data_points.iter_mut().for_each(|p| *p = Default::default())
                    }
                }
            }
        }
    }
}

/// Any bytes: the views and prost agree, or one refuses for a reason that the other does not have.
fn check(buf: &[u8]) {
    let ours = read_all(buf);
    let theirs = ExportMetricsServiceRequest::decode(buf);
    match (ours, theirs) {
        (Ok(ours), Ok(mut theirs)) => {
            strip(&mut theirs);
            // As text, since NaN differs from itself.
            assert_eq!(format!("{ours:?}"), format!("{theirs:?}"), "{buf:02x?}");
        }
        (Ok(_), Err(e)) => {
            let e = e.to_string();
            let unread = [
                "Histogram.data_points",
                "Summary.data_points",
                "NumberDataPoint.exemplars",
                "Resource.entity_refs",
                "not UTF-8",
            ];
            assert!(unread.iter().any(|part| e.contains(part)), "only prost refuses: {e}: {buf:02x?}");
        }
        (Err(e), Ok(_)) => {
            use WireErrorKind::*;
            assert!(
                matches!(e.kind, Group | Repeated | TooDeep | StringIndex),
                "only the views refuse: {e:?}: {buf:02x?}"
            );
            assert!(e.at < buf.len());
        }
        (Err(e), Err(_)) => assert!(e.at <= buf.len()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn valid_requests_read_as_prost_reads_them(seed in any::<u64>()) {
        let buf = bytes_of(seed);
        prop_assert!(ExportMetricsServiceRequest::decode(&buf[..]).is_ok());
        prop_assert_eq!(read_all(&buf).err(), None);
        check(&buf);
    }

    #[test]
    fn flipped_bits(seed in any::<u64>(), flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4)) {
        let mut buf = bytes_of(seed);
        if !buf.is_empty() {
            for (at, bit) in flips {
                let at = at.index(buf.len());
                buf[at] ^= 1 << bit;
            }
            check(&buf);
        }
    }

    #[test]
    fn replaced_and_moved_bytes(seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let mut buf = bytes_of(seed);
        for _ in 0..rng.random_range(1..3) {
            if buf.len() < 2 {
                return Ok(());
            }
            let (at, to) = (rng.random_range(0..buf.len()), rng.random_range(0..buf.len()));
            match rng.random_range(0..3) {
                0 => buf[at] = [0, 1, 0x0a, 0x12, 0x3a, 0x7f, 0x80, 0xff][rng.random_range(0..8)],
                1 => buf.insert(at, rng.random()),
                _ => buf.swap(at, to),
            }
        }
        check(&buf);
    }

    #[test]
    fn random_bytes(buf in prop::collection::vec(prop_oneof![Just(0x0a), Just(0x12), 0_u8..16, any::<u8>()], 0..60)) {
        check(&buf);
    }
}

#[test]
fn every_truncation() {
    for seed in 0..150 {
        let buf = bytes_of(seed);
        let step = (buf.len() / 400).max(1);
        (0..buf.len()).step_by(step).for_each(|end| check(&buf[..end]));
    }
}

// ---- one-line cases ----------------------------------------------------------------------------------------------

/// A length-delimited field.
fn f(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    put(&mut out, number, content);
    out
}

/// A request around the content of one metric, 6 bytes before it as long as it is below 120 bytes.
fn metric(content: &[u8]) -> Vec<u8> {
    f(1, &f(2, &f(2, content)))
}

/// A request around the content of one number point: 10 bytes before it.
fn point(content: &[u8]) -> Vec<u8> {
    metric(&f(7, &f(1, content)))
}

/// A request around the content of one attribute value: 14 bytes before it.
fn attribute_value(content: &[u8]) -> Vec<u8> {
    point(&f(7, &f(2, content)))
}

fn nested(levels: usize, field: u32) -> Vec<u8> {
    (0..levels)
        .fold(vec![], |inner, _| f(field, &if field == 5 { f(1, &inner) } else { f(1, &f(2, &inner)) }))
}

#[test]
fn refused() {
    use WireErrorKind::*;
    #[track_caller]
    fn refuse(buf: &[u8], kind: WireErrorKind, at: usize) {
        assert_eq!(read_all(buf), Err(WireError::new(kind, at)), "{buf:02x?}");
    }
    // Each level: known fields of another wire type.
    refuse(b"\x08\x01", WrongWireType, 0);
    refuse(&f(1, b"\x08\x01"), WrongWireType, 2);
    refuse(&f(1, b"\x10\x01"), WrongWireType, 2);
    refuse(&f(1, b"\x18\x01"), WrongWireType, 2);
    refuse(&f(1, &f(1, b"\x08\x01")), WrongWireType, 4);
    refuse(&f(1, &f(1, b"\x12\x00")), WrongWireType, 4);
    refuse(&f(1, &f(2, b"\x08\x01")), WrongWireType, 4);
    refuse(&f(1, &f(2, b"\x10\x01")), WrongWireType, 4);
    refuse(&f(1, &f(2, b"\x18\x01")), WrongWireType, 4);
    refuse(&f(1, &f(2, &f(1, b"\x08\x01"))), WrongWireType, 6);
    refuse(&f(1, &f(2, &f(1, b"\x10\x01"))), WrongWireType, 6);
    refuse(&f(1, &f(2, &f(1, b"\x18\x01"))), WrongWireType, 6);
    refuse(&f(1, &f(2, &f(1, b"\x22\x00"))), WrongWireType, 6);
    for number in [1, 2, 3, 5, 7, 9, 10, 11, 12] {
        refuse(&metric(&[number << 3, 1]), WrongWireType, 6);
    }
    for number in [5, 7, 9, 10, 11] {
        refuse(&metric(&f(number, b"\x08\x01")), WrongWireType, 8);
    }
    refuse(&metric(&f(7, b"\x12\x00")), WrongWireType, 8);
    refuse(&metric(&f(7, b"\x1a\x00")), WrongWireType, 8);
    refuse(&metric(&f(9, b"\x12\x00")), WrongWireType, 8);
    for number in [2, 3, 4, 5, 6, 7] {
        refuse(&point(&[number << 3, 1]), WrongWireType, 10);
    }
    refuse(&point(b"\x42\x00"), WrongWireType, 10);
    refuse(&point(&f(7, b"\x08\x01")), WrongWireType, 12);
    refuse(&point(&f(7, b"\x10\x01")), WrongWireType, 12);
    for number in [1, 4, 5, 6, 7] {
        refuse(&attribute_value(&[number << 3, 1]), WrongWireType, 14);
    }
    refuse(&attribute_value(b"\x12\x00"), WrongWireType, 14);
    refuse(&attribute_value(b"\x1a\x00"), WrongWireType, 14);
    // Singular messages given twice.
    refuse(&f(1, b"\x0a\x00\x0a\x00"), Repeated, 4);
    refuse(&f(1, &f(2, b"\x0a\x00\x0a\x00")), Repeated, 6);
    refuse(&metric(b"\x3a\x00\x3a\x00"), Repeated, 8);
    refuse(&metric(b"\x2a\x00\x3a\x00"), Repeated, 8);
    refuse(&metric(b"\x3a\x00\x0a\x00\x5a\x00"), Repeated, 10);
    refuse(&point(&f(7, b"\x12\x00\x12\x00")), Repeated, 14);
    refuse(&attribute_value(b"\x2a\x00\x2a\x00"), Repeated, 16);
    refuse(&attribute_value(b"\x32\x00\x32\x00"), Repeated, 16);
    refuse(&attribute_value(b"\x2a\x00\x18\x01"), Repeated, 16);
    refuse(&attribute_value(b"\x18\x01\x32\x00"), Repeated, 16);
    // String tables.
    refuse(&point(&f(7, b"\x18\x01")), StringIndex, 12);
    refuse(&attribute_value(b"\x40\x01"), StringIndex, 14);
    // The wire itself, deep down.
    refuse(&point(b"\x43\x44"), Group, 10);
    refuse(&point(b"\x44"), Group, 10);
    refuse(&point(b"\x46"), BadWireType, 10);
    refuse(&point(b"\x00\x01"), ZeroField, 10);
    refuse(&point(b"\x40"), Truncated, 11);
    refuse(&point(b"\x11\0\0\0\0\0\0\0"), Truncated, 11);
    refuse(&point(b"\x3a\x01"), LengthPastEnd, 11);
    refuse(&point(b"\x40\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), OverlongVarint, 11);
    refuse(&attribute_value(b"\x0a\x01"), LengthPastEnd, 15);
    // A length that stays inside the request and leaves its parent.
    let mut past = metric(&f(7, &f(1, b"\x40\x01")));
    past[9] += 1;
    past.extend_from_slice(&f(1, b""));
    refuse(&past, LengthPastEnd, 9);
    // Depth bombs.
    refuse(&attribute_value(&nested(DEPTH_MAX + 1, 5)), TooDeep, 14 + 4 * DEPTH_MAX + 2);
    assert!(matches!(read_all(&attribute_value(&nested(DEPTH_MAX + 1, 6))), Err(e) if e.kind == TooDeep));
    assert!(matches!(read_all(&attribute_value(&nested(5_000, 5))), Err(e) if e.kind == TooDeep));
    assert!(matches!(read_all(&attribute_value(&nested(5_000, 6))), Err(e) if e.kind == TooDeep));
}

#[test]
fn read_although_unusual() {
    #[track_caller]
    fn same(buf: &[u8]) {
        assert_eq!(read_all(buf).err(), None, "{buf:02x?}");
        assert!(ExportMetricsServiceRequest::decode(buf).is_ok(), "{buf:02x?}");
        check(buf);
    }
    same(b"");
    same(b"\x0a\x00");
    same(&metric(b""));
    same(&metric(b"\x3a\x00"));
    same(&point(b""));
    same(&point(b"\x3a\x00")); // neither key nor value
    same(&point(b"\x3a\x03\x0a\x01k")); // no value
    same(&point(b"\x3a\x02\x12\x00")); // no key
    same(&point(b"\x3a\x07\x12\x02\x10\x01\x0a\x01k")); // the value before the key
    same(&point(b"\x3a\x06\x0a\x01a\x0a\x01b")); // the last key wins
    same(&point(b"\x40\x01\x40\x02")); // the last flags win
    same(&point(b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")); // flags wider than 32 bits
    same(&point(b"\x31\x01\0\0\0\0\0\0\0\x21\0\0\0\0\0\0\0\x40")); // int, then double
    same(&point(b"\x21\0\0\0\0\0\0\0\x40\x31\x01\0\0\0\0\0\0\0")); // double, then int
    same(&point(b"\x09\0\0\0\0\0\0\0\x40")); // field 1, labels of old
    same(&attribute_value(b"\x10\x02")); // a bool of 2 is true
    same(&attribute_value(b"\x10\x01\x18\x01\x0a\x00")); // bool, int, string: the string
    same(&attribute_value(b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")); // -1
    same(&attribute_value(&nested(DEPTH_MAX, 5)));
    same(&attribute_value(&nested(DEPTH_MAX, 6)));
    same(&metric(&f(7, b"\x10\x02\x10\x01"))); // the last temporality wins
    same(&metric(&f(7, b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))); // temporality -1
    same(&metric(&f(7, b"\x10\x82\x80\x80\x80\x10"))); // 2³² + 2 is 2
    same(&metric(&f(7, b"\x18\x00\x18\x05"))); // true
    same(&f(1, b"\xc2\x3e\x00")); // field 1000, removed from OTLP
}

#[test]
fn text_is_checked_on_demand() {
    let buf = metric(b"\x0a\x03ab\xff");
    let mut seen = vec![];
    let request = Request::read(&buf, Span::all(&buf)).unwrap();
    let resource =
        ResourceMetrics::read(&buf, request.resource_metrics.fields(&buf).next().unwrap().unwrap().1);
    let scope =
        ScopeMetrics::read(&buf, resource.unwrap().scope_metrics.fields(&buf).next().unwrap().unwrap().1);
    let mut metrics = scope.unwrap().metrics.fields(&buf);
    while let Some((_, span)) = metrics.next().unwrap() {
        seen.push(utf8(&buf, Metric::read(&buf, span).unwrap().name));
    }
    assert_eq!(seen, [Err(WireError::new(WireErrorKind::Utf8, 10))]);
}

// ---- edits -------------------------------------------------------------------------------------------------------

/// What happens to the points of sums, and to what is empty afterwards.
struct Cut {
    rng: ChaCha8Rng,
    share: f64,
    remove_empty: bool,
}

impl Cut {
    fn new(seed: u64, share: f64, remove_empty: bool) -> Cut {
        Cut { rng: ChaCha8Rng::seed_from_u64(seed), share, remove_empty }
    }

    /// 0: keep. 1: remove. 2: append a flag, which makes the point longer.
    fn fate(&mut self) -> u8 {
        if self.rng.random_bool(self.share) { if self.rng.random_bool(0.9) { 1 } else { 2 } } else { 0 }
    }
}

const FLAG: &[u8] = b"\x40\x01";

/// The oracle: the tree rebuilt level by level. Content that did not change keeps its bytes, prefix included.
/// Returns `None` if the message goes: a sum whose last point went, and what has nothing else in it.
fn rebuild(kind: Kind, bytes: &[u8], cut: &mut Cut) -> Option<Vec<u8>> {
    let (mut out, mut cut_any, mut left) = (vec![], false, 0);
    for part in parts(bytes) {
        let path = matches!(
            child(kind, part.number),
            Some(Kind::ResourceMetrics | Kind::ScopeMetrics | Kind::Metric | Kind::SumData | Kind::Number)
        ) && kind != Kind::Numbers;
        if !path {
            out.extend_from_slice(part.whole);
            continue;
        }
        let child = child(kind, part.number).unwrap();
        let new = if child == Kind::Number {
            match cut.fate() {
                0 => Some(part.content.to_vec()),
                1 => None,
                _ => Some([part.content, FLAG].concat()),
            }
        } else {
            rebuild(child, part.content, cut)
        };
        match new {
            None => cut_any = true,
            Some(new) => {
                left += 1;
                if new == part.content {
                    out.extend_from_slice(part.whole);
                } else {
                    put(&mut out, part.number, &new);
                }
            }
        }
    }
    // A metric goes when its sum went; the rest when none of the children on the path is left.
    if cut.remove_empty && cut_any && left == 0 && kind != Kind::Request { None } else { Some(out) }
}

fn cut_with_edits(buf: &[u8], cut: &mut Cut, edits: &mut Edits) -> Result<(), WireError> {
    edits.clear();
    let mut resources = Request::read(buf, Span::all(buf))?.resource_metrics.fields(buf);
    while let Some((field, span)) = resources.next()? {
        let resource_token = edits.open(&field);
        let (mut left, mut gone) = (0, 0);
        let mut scopes = ResourceMetrics::read(buf, span)?.scope_metrics.fields(buf);
        while let Some((field, span)) = scopes.next()? {
            let scope_token = edits.open(&field);
            let (mut metrics_left, mut metrics_gone) = (0, 0);
            let mut metrics = ScopeMetrics::read(buf, span)?.metrics.fields(buf);
            while let Some((field, span)) = metrics.next()? {
                let Data::Sum(sum) = Metric::read(buf, span)?.data else {
                    metrics_left += 1;
                    continue;
                };
                let metric_token = edits.open(&field);
                let sum_token = edits.open(&sum);
                let (mut points_left, mut points_gone) = (0, 0);
                let mut points = Sum::read(buf, sum.bytes()?)?.points.fields(buf);
                while let Some((point, _)) = points.next()? {
                    match cut.fate() {
                        0 => points_left += 1,
                        1 => {
                            edits.remove(point.span());
                            points_gone += 1;
                        }
                        _ => {
                            let token = edits.open(&point);
                            edits.replace(Span { start: point.end, end: point.end }, FLAG);
                            assert!(edits.close(token));
                            points_left += 1;
                        }
                    }
                }
                if cut.remove_empty && points_gone > 0 && points_left == 0 {
                    edits.close(sum_token);
                    edits.close_removed(metric_token);
                    metrics_gone += 1;
                } else {
                    edits.close(sum_token);
                    edits.close(metric_token);
                    metrics_left += 1;
                }
            }
            if cut.remove_empty && metrics_gone > 0 && metrics_left == 0 {
                edits.close_removed(scope_token);
                gone += 1;
            } else {
                edits.close(scope_token);
                left += 1;
            }
        }
        if cut.remove_empty && gone > 0 && left == 0 {
            edits.close_removed(resource_token);
        } else {
            edits.close(resource_token);
        }
    }
    Ok(())
}

fn check_edits(buf: &[u8], seed: u64, share: f64, remove_empty: bool, edits: &mut Edits) {
    let expected = rebuild(Kind::Request, buf, &mut Cut::new(seed, share, remove_empty)).unwrap();
    cut_with_edits(buf, &mut Cut::new(seed, share, remove_empty), edits).unwrap();
    let mut out = b"before".to_vec();
    assert_eq!(edits.apply(buf, &mut out), Ok(()));
    assert_eq!(&out[..6], b"before");
    assert_eq!(&out[6..], &expected[..], "{buf:02x?}");
    assert_eq!(edits.removed_bytes(), buf.len().saturating_sub(expected.len()));
    assert_eq!(edits.is_empty(), expected == buf);
    let mut end = 0;
    for edit in edits.iter() {
        assert!(end <= edit.start && edit.start <= edit.end);
        end = edit.end;
    }
    assert!(ExportMetricsServiceRequest::decode(&expected[..]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn edits_equal_the_naive_rebuild(
        seed in any::<u64>(),
        share in prop_oneof![Just(0.0), Just(0.2), Just(0.8), Just(1.0)],
        remove_empty in any::<bool>(),
    ) {
        let mut edits = Edits::default();
        check_edits(&bytes_of(seed), seed, share, remove_empty, &mut edits);
        check_edits(&bytes_of(!seed), seed, share, remove_empty, &mut edits); // reused
    }

    /// What prost wrote, cut, equals what prost writes of the structs with the points removed.
    #[test]
    fn edits_equal_prost(seed in any::<u64>(), share in 0.0..1.0_f64) {
        let mut request = Gen(ChaCha8Rng::seed_from_u64(seed)).request();
        let buf = request.encode_to_vec();
        let mut cut = Cut::new(seed, share, false);
        let mut edits = Edits::default();
        cut_with_edits(&buf, &mut cut, &mut edits).unwrap();
        let mut out = vec![];
        prop_assert_eq!(edits.apply(&buf, &mut out), Ok(()));
        let mut cut = Cut::new(seed, share, false);
        for metric in request.resource_metrics.iter_mut().flat_map(|it| &mut it.scope_metrics).flat_map(|it| &mut it.metrics) {
            if let Some(PData::Sum(sum)) = &mut metric.data {
                sum.data_points.retain_mut(|point| match cut.fate() {
                    0 => true,
                    1 => false,
                    _ => {
                        point.flags = 1;
                        true
                    }
                });
            }
        }
        // The appended flag may stand beside an earlier one: compare what a parser sees.
        let out = ExportMetricsServiceRequest::decode(&out[..]).unwrap();
        // Encoded once more, since proto3 does not write a zero, not even -0.0.
        let request = ExportMetricsServiceRequest::decode(&request.encode_to_vec()[..]).unwrap();
        prop_assert_eq!(format!("{out:?}"), format!("{request:?}"));
    }
}

/// Lengths around 128 and 16,384, where prefixes change their own length and with it that of their parents.
#[test]
fn prefixes_that_shrink() {
    let mut edits = Edits::default();
    let sizes = [(0..150).collect::<Vec<_>>(), (16_340..16_400).collect()].concat();
    for size in sizes {
        let sum = [f(1, b"\x40\x01"), f(1, &f(7, &f(1, &vec![b'k'; size]))), f(1, b"\x40\x02")].concat();
        let buf = metric(&[f(1, b"name"), f(7, &sum)].concat());
        for seed in 0..8 {
            check_edits(&buf, seed, 0.5, seed % 2 == 0, &mut edits);
        }
    }
}
