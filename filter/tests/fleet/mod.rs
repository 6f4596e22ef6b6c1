//! A process with several workers, its senders, and what its upstream has seen; for the tests of budgets.
//!
//! In: points of streams with string labels. Out: which points passed raw, which left the batch, and what folded series came to. Shares no code
//! with the engine: bodies are read by `prost`.

#![allow(dead_code, reason = "each test takes what it needs")]

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value as V,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_filter::admission::{ByHalf, Known, Registry, Standing};
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::ledger::Tally;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// A second.
pub const S: u64 = 1_000_000_000;

/// Labels of a stream, sorted.
pub type Labels = Vec<(String, String)>;

/// A cumulative point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub metric: String,
    pub labels: Labels,
    pub start_s: u64,
    pub time_s: u64,
    pub value: i64,
}

/// A folded series without its start: tenant, metric, labels.
pub type Series = (String, String, Labels);

pub fn kv(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..Default::default()
    }
}

/// A request of one resource with cumulative integer sums.
pub fn body(resource: &[(&str, &str)], points: &[Point]) -> Vec<u8> {
    let mut metrics: Vec<Metric> = Vec::new();
    for p in points {
        if metrics.last().is_none_or(|m| m.name != p.metric) {
            let sum = Sum { data_points: Vec::new(), aggregation_temporality: 2, is_monotonic: true };
            metrics.push(Metric { name: p.metric.clone(), data: Some(Data::Sum(sum)), ..Default::default() });
        }
        let Some(Data::Sum(sum)) = &mut metrics.last_mut().unwrap().data else { unreachable!() };
        sum.data_points.push(NumberDataPoint {
            attributes: p.labels.iter().map(|(k, v)| kv(k, v)).collect(),
            start_time_unix_nano: p.start_s * S,
            time_unix_nano: p.time_s * S,
            value: Some(V::AsInt(p.value)),
            ..Default::default()
        });
    }
    let scope = ScopeMetrics { metrics, ..Default::default() };
    let attributes = resource.iter().map(|(k, v)| kv(k, v)).collect();
    let resource = Some(Resource { attributes, ..Default::default() });
    let rm = ResourceMetrics { resource, scope_metrics: vec![scope], ..Default::default() };
    Request { resource_metrics: vec![rm] }.encode_to_vec()
}

/// All integer points of sums in a body: metric, labels of the points, start, time, value.
pub fn points(body: &[u8]) -> Vec<Point> {
    let mut out = Vec::new();
    for rm in Request::decode(body).unwrap().resource_metrics {
        for m in rm.scope_metrics.into_iter().flat_map(|s| s.metrics) {
            let Some(Data::Sum(sum)) = m.data else { continue };
            for p in sum.data_points {
                let Some(V::AsInt(value)) = p.value else { continue };
                let mut labels: Labels = p.attributes.iter().map(text).collect();
                labels.sort();
                out.push(Point {
                    metric: m.name.clone(),
                    labels,
                    start_s: p.start_time_unix_nano,
                    time_s: p.time_unix_nano / S,
                    value,
                });
            }
        }
    }
    out
}

fn text(kv: &KeyValue) -> (String, String) {
    let Some(Value::StringValue(v)) = &kv.value.as_ref().unwrap().value else { panic!("{kv:?}") };
    (kv.key.clone(), v.clone())
}

/// The process.
pub struct Fleet {
    pub engine: Local,
    pub workers: usize,
    /// Folded series by their start: the last value.
    pub folded: BTreeMap<(Series, u64), i64>,
}

impl Fleet {
    pub fn new(plan: &str, workers: usize, now_s: u64) -> Fleet {
        let engine = Local::with_workers(plan.as_bytes(), "w", workers, UnixNanos(now_s * S)).unwrap();
        Fleet { engine, workers, folded: BTreeMap::new() }
    }

    /// Send a body; what passed, and the tally.
    pub fn send(&mut self, worker: usize, tenant: &str, now_s: u64, body: &[u8]) -> (Vec<u8>, Tally) {
        let now = UnixNanos(now_s * S);
        let batch = Batch { body, tenant: tenant.as_bytes(), sender: b"", arrived: now };
        let done = self.engine.process_on(worker, Framing::Plain, &batch).unwrap();
        self.engine.settle(done.token, Settled::Accepted, now);
        (done.body.unwrap_or(body.to_vec()), done.tally)
    }

    /// A tick, and everything that is to be emitted.
    pub fn tick(&mut self, now_s: u64) {
        let now = UnixNanos(now_s * S);
        self.engine.tick(now);
        while let Some((shard, emission)) = self.engine.next_emission(now) {
            let (sequence, tenant) =
                (emission.sequence, String::from_utf8(emission.tenant.to_vec()).unwrap());
            for p in points(&emission.body) {
                self.folded.insert(((tenant.clone(), p.metric, p.labels), p.start_s), p.value);
            }
            self.engine.answer(shard, sequence, Answer::Accepted, now);
        }
    }

    pub fn registry(&mut self, worker: usize) -> &mut Registry {
        self.engine.registry(worker).unwrap()
    }

    /// What was folded of a tenant's metric.
    pub fn folded(&self, tenant: &str, metric: &str) -> i64 {
        let is_it = |((s, _), _): &(&(Series, u64), &i64)| s.0 == tenant && s.1 == metric;
        self.folded.iter().filter(is_it).map(|(_, value)| value).sum()
    }

    /// Folded series that were emitted.
    pub fn folded_series(&self) -> BTreeSet<&Series> {
        self.folded.keys().map(|(series, _)| series).collect()
    }

    /// What a worker knows, for comparing.
    pub fn view(&mut self, worker: usize) -> View {
        let state = self.registry(worker).state();
        let series =
            |s: &ByHalf<Known>| s.iter().map(|(id, k)| (*id, (k.metric, k.standing, k.number))).collect();
        View {
            series: series(&state.series),
            metrics: state.metrics.iter().map(|(id, it)| (*id, format!("{it:?}"))).collect(),
            tenants: state.tenants.iter().map(|(id, it)| (*id, it.series)).collect(),
        }
    }

    pub fn heap_bytes(&mut self) -> usize {
        (0..self.workers).map(|worker| self.registry(worker).heap_bytes()).sum()
    }
}

/// What a worker knows.
#[derive(Debug, PartialEq)]
pub struct View {
    pub series: BTreeMap<u64, (u64, Standing, u32)>,
    pub metrics: BTreeMap<u64, String>,
    pub tenants: BTreeMap<u64, u32>,
}
