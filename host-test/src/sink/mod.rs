//! An exact, counting OTLP sink: the judge of every end-to-end test.
//!
//! In: OTLP metrics over HTTP/1.1, cleartext HTTP/2 and gRPC on one loopback port. Out: books that hold every sample of every
//! series, so that totals, series and anomalies are counted and never estimated. Why this way: it shares no code with the
//! engine (values are read by `prost`, bytes by forty lines of field walking), so that an error in one cannot hide in the
//! other. Refuses: bodies that do not decode (HTTP 400, gRPC 3), and whatever [`Fault`] it was told to refuse.

/// The books: bodies in, metrics, series, totals and anomalies out.
pub mod books;
/// Histograms and summaries: observations by bucket.
pub mod distribution;
/// Totals without rounding: `i128` for integers, double-double for doubles.
pub mod exact;
/// Answers that a bad backend gives, for the next requests.
pub mod fault;
/// Framing: gzip and gRPC.
pub mod frame;
/// Labels and canonical identities.
pub mod identity;
/// Decoded points as samples.
mod points;
/// Fingerprints of encoded points, independent of order.
pub mod print;
/// What one metric received, series by series.
pub mod series;
mod serve;
/// Top-level protobuf fields of one message, as they lie in the bytes.
pub mod wire;

pub use books::{Books, BooksConfig, MetricBook};
pub use fault::Fault;
pub use serve::{Received, Sink};

/// The path of OTLP metrics over HTTP.
pub const HTTP_PATH: &str = "/v1/metrics";
/// The path of OTLP metrics over gRPC.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
/// The header that names the tenant (Mimir, Cortex, Loki).
pub const TENANT_HEADER: &str = "x-scope-orgid";
/// The point attribute that only folded series carry.
pub const MARK: &str = "phoenix_folded";

#[cfg(test)]
mod tests;
