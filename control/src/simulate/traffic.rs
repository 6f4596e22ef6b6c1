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

/// One pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its number.
    pub number: usize,
    began_s: u64,
    life: u64,
    exploded_s: Option<u64>,
}

impl Pod {
    /// A pod that has not begun.
    pub fn new(number: usize) -> Pod {
        Pod { number, began_s: 0, life: u64::MAX, exploded_s: None }
    }

    /// Its export at a time, and how many streams that has. `epoch_ns` is when the run began.
    pub fn export(&mut self, scenario: Scenario, pods: usize, at_s: u64, epoch_ns: u64) -> Vec<u8> {
        let life = scenario.life(self.number, pods, at_s);
        if life != self.life {
            // A stream began a second before its first point.
            (self.life, self.began_s) = (life, at_s.saturating_sub(1));
        }
        let (start_ns, time_ns) = (epoch_ns + self.began_s * S, epoch_ns + at_s * S);
        let age_s = at_s - self.began_s;
        let sum = |name: &str, data_points: Vec<NumberDataPoint>| Metric {
            name: name.to_owned(),
            data: Some(Data::Sum(Sum {
                data_points,
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            })),
            ..Default::default()
        };
        let point = |attributes: Vec<KeyValue>, start_ns: u64, value: u64| NumberDataPoint {
            attributes,
            start_time_unix_nano: start_ns,
            time_unix_nano: time_ns,
            value: Some(Number::AsInt(i64::try_from(value).unwrap_or(i64::MAX))),
            ..Default::default()
        };
        let mut requests = Vec::new();
        for n in 0..12_u64 {
            let attributes =
                vec![label("route", format!("/r{}", n % 4)), label("method", format!("m{}", n / 4))];
            requests.push(point(attributes, start_ns, age_s * (n + 1)));
        }
        if scenario.is_exploding(at_s) {
            let since_s = *self.exploded_s.get_or_insert(at_s);
            let exports = (at_s - since_s) / super::scenario::EXPORT_S;
            for n in 0..USERS + USERS_MORE * exports {
                let born_s = since_s
                    + n.saturating_sub(USERS - 1).div_ceil(USERS_MORE) * super::scenario::EXPORT_S
                    - 1;
                let attributes = vec![
                    label("route", format!("/r{}", n % 4)),
                    label("method", "m0".to_owned()),
                    label("user.id", format!("u{}-{n}", self.number)),
                ];
                requests.push(point(attributes, epoch_ns + born_s * S, at_s - born_s));
            }
        } else {
            self.exploded_s = None;
        }
        let jobs =
            (0..5_u64).map(|n| point(vec![label("queue", format!("q{n}"))], start_ns, age_s)).collect();
        let durations = (0..3_u64).map(|n| HistogramDataPoint {
            attributes: vec![label("route", format!("/r{n}"))],
            start_time_unix_nano: start_ns,
            time_unix_nano: time_ns,
            count: 2 * age_s,
            sum: Some((3 * age_s) as f64),
            bucket_counts: vec![age_s, age_s],
            explicit_bounds: vec![1.5],
            ..Default::default()
        });
        let durations = Metric {
            name: "http.duration".to_owned(),
            data: Some(Data::Histogram(Histogram {
                data_points: durations.collect(),
                aggregation_temporality: CUMULATIVE,
            })),
            ..Default::default()
        };
        let metrics = vec![sum("http.requests", requests), sum("jobs.done", jobs), durations];
        let pod = format!("web-{}-{}", self.number, self.life);
        let attributes = vec![label("service.name", "web".to_owned()), label("k8s.pod.name", pod)];
        let resource = Some(Resource { attributes, ..Default::default() });
        let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }];
        ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
    }
}
