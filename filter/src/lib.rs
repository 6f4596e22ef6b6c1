//! The engine of Phoenix: OTLP bytes, a plan and `now` in; bytes, records, emissions and a ledger out.
//!
//! Pure: no clock, no randomness, no I/O, no globals. A shell (`filter/envoy`, `filter/component`) turns one embedder's ABI
//! into calls of this crate. Modules in the order of the data flow:
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
#![forbid(unsafe_code)]

/// Every bound of the engine, with its reason; related ones tied together at compile time.
pub mod limits;
/// Units as types: points in time and spans of it.
pub mod units;

/// A request's body: a batch, or frames of batches.
pub mod body;
/// OTLP metrics as views over the bytes.
pub mod decode;
/// The output side of a batch: cut points out, patch lengths.
pub mod edit;
/// One batch through the stages above.
pub mod flow;
/// gRPC frames and gzip: body bytes in, messages out.
pub mod frame;
/// The keyed 128-bit hash under every identity.
pub mod hash;
/// Streams and series: who a point is on the way in, and on the way out.
pub mod identify;
/// What a metric is on the way in, and its series on the way out.
pub mod kind;
/// What a worker sends to the fold.
pub mod record;
/// The compiled plan: which rule a point meets.
pub mod route;
/// The protobuf wire format, read in place.
pub mod wire;

/// Budgets: which streams go out raw, and which fold instead.
pub mod admission;
/// What makes series many: distinct streams of tenants, metrics and labels.
pub mod measure;
/// What the workers of a process share.
pub mod shared;

/// From one treatment to another at a point in event time, without a seam.
pub mod switch;

/// How many different ones, and which weigh most, in bounded memory.
pub mod sketch;

/// Do the points of a stream reach one process only?
pub mod affinity;
/// Exact sums of integers and doubles.
pub mod amount;
/// What a window holds, by kind of series.
pub mod content;
/// Histograms and summaries: one atom each.
pub mod distribution;
/// Closed windows as OTLP, immutable until a definite answer.
pub mod emit;
/// Single observations that a folded point shows.
pub mod exemplar;
/// The books.
pub mod ledger;
/// Gauges and up-down counters: last values.
pub mod level;
/// The owner of a shard: records in, emissions out.
pub mod owner;
/// The folded series and their open windows.
pub mod series;
/// The state of one stream: what is new in this point?
pub mod stream;
/// The bounded table of streams.
pub mod table;
/// Aligned windows of event time: how an increment is split.
pub mod window;

/// What a worker tells about what it measured and decided.
pub mod report;

/// The whole engine in one instance, for embedders without workers.
pub mod local;
