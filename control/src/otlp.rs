//! OTLP metrics as the tools here need them: framed, read by `prost`, counted.
//!
//! Enters: bodies. Leaves: messages and counts. Nothing of the engine is used, so that a count here can be held against its ledger.

/// What is in a message: points, streams and bytes of each metric.
pub mod census;
/// gzip and gRPC frames.
pub mod frame;

use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

/// The path of OTLP metrics over HTTP.
pub const HTTP_PATH: &str = "/v1/metrics";
/// The path of OTLP metrics over gRPC.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
/// The content type of OTLP over HTTP.
pub const PROTOBUF: &str = "application/x-protobuf";
/// `AGGREGATION_TEMPORALITY_DELTA`.
pub const DELTA: i32 = 1;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
pub const CUMULATIVE: i32 = 2;
/// The flag of a point without a value: a stale marker.
pub const NO_RECORDED_VALUE: u32 = 1;

/// The type of a metric in a few words: `sum, cumulative`.
pub fn kind(metric: &Metric) -> &'static str {
    match &metric.data {
        Some(Data::Gauge(_)) => "gauge",
        Some(Data::Sum(sum)) => match (sum.is_monotonic, sum.aggregation_temporality) {
            (true, DELTA) => "delta sum",
            (true, _) => "sum",
            (false, DELTA) => "delta up-down counter",
            (false, _) => "up-down counter",
        },
        Some(Data::Histogram(h)) if h.aggregation_temporality == DELTA => "delta histogram",
        Some(Data::Histogram(_)) => "histogram",
        Some(Data::ExponentialHistogram(h)) if h.aggregation_temporality == DELTA => {
            "delta exponential histogram"
        }
        Some(Data::ExponentialHistogram(_)) => "exponential histogram",
        Some(Data::Summary(_)) => "summary",
        None => "nothing",
    }
}
