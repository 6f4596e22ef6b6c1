//! Traffic: pods that export.
//!
//! Enters: a scenario, a pod, a time. Leaves: the export of that pod as OTLP, cumulative and from zero since the pod began, so that what was counted in all is
//! known. Three metrics: `http.requests` by route and method, into which a user's id may come; `jobs.done` by queue; `http.duration`, a histogram by route. Every pod names
//! itself in its resource.

use super::scenario::Scenario;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// Cumulative, as OTLP numbers it.
const CUMULATIVE: i32 = 2;
const S: u64 = 1_000_000_000;
/// The tenant of all traffic.
pub const TENANT: &str = "shop";
/// Streams of a pod that does nothing special: 12, 5 and 3.
pub const STREAMS_OF_A_POD: u64 = 20;
/// Users that a pod sees at once when their ids are a label, and new ones at each export.
const USERS: u64 = 40;
const USERS_MORE: u64 = 2;

fn label(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..Default::default()
    }
}

fn point(attributes: Vec<KeyValue>) -> NumberDataPoint {
    NumberDataPoint { attributes, ..NumberDataPoint::default() }
}

fn metric(name: &str, data: Data) -> Metric {
    Metric { name: name.to_owned(), data: Some(data), ..Metric::default() }
}

fn sum(data_points: Vec<NumberDataPoint>) -> Data {
    Data::Sum(Sum { data_points, aggregation_temporality: CUMULATIVE, is_monotonic: true })
}

/// Points of `http.requests` without users.
const ROUTES: u64 = 12;

/// One pod. Its message is made once a life: what an export changes are times and values, and a run has a million exports.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its number.
    pub number: usize,
    began_s: u64,
    life: u64,
    exploded_s: Option<u64>,
    message: ExportMetricsServiceRequest,
}

impl Pod {
    /// A pod that has not begun.
    pub fn new(number: usize) -> Pod {
        let message = ExportMetricsServiceRequest::default();
        Pod { number, began_s: 0, life: u64::MAX, exploded_s: None, message }
    }

    /// Its export at a time. `epoch_ns` is when the run began.
    pub fn export(&mut self, scenario: Scenario, pods: usize, at_s: u64, epoch_ns: u64) -> Vec<u8> {
        let life = scenario.life(self.number, pods, at_s);
        if life != self.life {
            // A stream began a second before its first point.
            (self.life, self.began_s) = (life, at_s.saturating_sub(1));
            self.message = self.born();
        }
        let users = if scenario.is_exploding(at_s) {
            let since_s = *self.exploded_s.get_or_insert(at_s);
            USERS + USERS_MORE * ((at_s - since_s) / super::scenario::EXPORT_S)
        } else {
            self.exploded_s = None;
            0
        };
        let (began_s, since_s) = (self.began_s, self.exploded_s.unwrap_or(at_s));
        let (number, age_s, time_ns) = (self.number, at_s - began_s, epoch_ns + at_s * S);
        let set = |it: &mut NumberDataPoint, born_s: u64, value: u64| {
            (it.start_time_unix_nano, it.time_unix_nano) = (epoch_ns + born_s * S, time_ns);
            it.value = Some(Number::AsInt(i64::try_from(value).unwrap_or(i64::MAX)));
        };
        let scopes = self.message.resource_metrics.iter_mut().flat_map(|it| &mut it.scope_metrics);
        for (place, it) in scopes.flat_map(|it| &mut it.metrics).enumerate() {
            match &mut it.data {
                Some(Data::Sum(requests)) if place == 0 => {
                    let points = &mut requests.data_points;
                    points.truncate((ROUTES + users) as usize);
                    points.extend((points.len() as u64..ROUTES + users).map(|n| of_user(number, n - ROUTES)));
                    for (n, it) in (0..).zip(points) {
                        if n < ROUTES {
                            set(it, began_s, age_s * (n + 1));
                            continue;
                        }
                        let later = (n - ROUTES).saturating_sub(USERS - 1).div_ceil(USERS_MORE);
                        let born_s = since_s + later * super::scenario::EXPORT_S - 1;
                        set(it, born_s, at_s - born_s);
                    }
                }
                Some(Data::Sum(jobs)) => jobs.data_points.iter_mut().for_each(|it| set(it, began_s, age_s)),
                Some(Data::Histogram(durations)) => {
                    for it in &mut durations.data_points {
                        (it.start_time_unix_nano, it.time_unix_nano) = (epoch_ns + began_s * S, time_ns);
                        (it.count, it.sum) = (2 * age_s, Some((3 * age_s) as f64));
                        it.bucket_counts = vec![age_s, age_s];
                    }
                }
                _ => {}
            }
        }
        self.message.encode_to_vec()
    }

    /// Its message, without times and values.
    fn born(&self) -> ExportMetricsServiceRequest {
        let requests = (0..ROUTES).map(|n| {
            point(vec![label("route", format!("/r{}", n % 4)), label("method", format!("m{}", n / 4))])
        });
        let jobs = (0..5_u64).map(|n| point(vec![label("queue", format!("q{n}"))]));
        let durations = (0..3_u64).map(|n| HistogramDataPoint {
            attributes: vec![label("route", format!("/r{n}"))],
            explicit_bounds: vec![1.5],
            ..Default::default()
        });
        let durations = Histogram { data_points: durations.collect(), aggregation_temporality: CUMULATIVE };
        let metrics = vec![
            metric("http.requests", sum(requests.collect())),
            metric("jobs.done", sum(jobs.collect())),
            metric("http.duration", Data::Histogram(durations)),
        ];
        let pod = format!("web-{}-{}", self.number, self.life);
        let attributes = vec![label("service.name", "web".to_owned()), label("k8s.pod.name", pod)];
        let resource = Some(Resource { attributes, ..Default::default() });
        let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }];
        ExportMetricsServiceRequest { resource_metrics }
    }
}

/// A stream that a user's id makes.
fn of_user(pod: usize, n: u64) -> NumberDataPoint {
    point(vec![
        label("route", format!("/r{}", n % 4)),
        label("method", "m0".to_owned()),
        label("user.id", format!("u{pod}-{n}")),
    ])
}
