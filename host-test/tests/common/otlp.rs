//! OTLP bodies with a known total.
//!
//! In: names and values. Out: encoded requests. Each folded delta point comes from a pod of its own, so that it is a new stream and always counts.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_host_test::shop::otlp::{CUMULATIVE, DELTA, metric, number, sum, text};
use phoenix_host_test::shop::run::unix_ns;
use prost::Message;
use std::sync::atomic::{AtomicU64, Ordering};

/// The folded delta counter.
pub const FOLDED: &str = "fold_delta";
/// The folded cumulative counter.
pub const FOLDED_CUMULATIVE: &str = "fold_cumulative";
/// The gauge that passes.
pub const PASSING: &str = "pass_gauge";

/// A second in nanoseconds.
pub const SECOND_NS: u64 = 1_000_000_000;

/// A number that no earlier call gave.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A request of one pod.
pub fn request(pod: &str, metrics: Vec<Metric>) -> Bytes {
    let resource = Resource {
        attributes: vec![text("service.name", "shop"), text("k8s.pod.name", pod)],
        ..Resource::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics =
        vec![ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec().into()
}

/// A delta counter with one point that ends now.
pub fn delta(name: &str, labels: Vec<KeyValue>, value: i64) -> Metric {
    let now_ns = unix_ns();
    let point = number(labels, now_ns - SECOND_NS / 10, now_ns, Value::AsInt(value));
    metric(name, "1", sum(vec![point], DELTA, true))
}

/// A cumulative counter with one point.
pub fn cumulative(name: &str, labels: Vec<KeyValue>, start_ns: u64, time_ns: u64, value: i64) -> Metric {
    let point = number(labels, start_ns, time_ns, Value::AsInt(value));
    metric(name, "1", sum(vec![point], CUMULATIVE, true))
}

/// A gauge with one point.
pub fn gauge(name: &str, value: i64) -> Metric {
    let point = number(vec![text("by", "test")], 0, unix_ns(), Value::AsInt(value));
    metric(name, "1", Data::Gauge(Gauge { data_points: vec![point] }))
}

/// A good request of a new pod: `value` for the folded counter, and a gauge that passes.
pub fn good(value: i64) -> Bytes {
    request(&format!("pod-{}", unique()), vec![delta(FOLDED, vec![], value), gauge(PASSING, value)])
}

/// A good request of which nothing is left after the fold.
pub fn folded_only(value: i64) -> Bytes {
    request(&format!("pod-{}", unique()), vec![delta(FOLDED, vec![], value)])
}
