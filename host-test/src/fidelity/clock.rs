//! The times of the scene, in event time: nanoseconds, most of them since its beginning.

/// A second.
pub const SECOND_NS: u64 = 1_000_000_000;
/// A minute.
pub const MINUTE_NS: u64 = 60 * SECOND_NS;
/// Export interval, as Prometheus scrapes and SDKs are often set.
pub const INTERVAL_NS: u64 = 15 * SECOND_NS;
/// How long counters count: eight times the range of `rate[5m]`, and four periods of the sinusoid.
pub const ACTIVE_NS: u64 = 40 * MINUTE_NS;
/// How long everything stands still afterwards, so that the last windows close: more than a delay of a minute.
pub const TAIL_NS: u64 = 3 * MINUTE_NS;
/// When raw turns folded. The three are on the minute, as people set them.
pub const ON_NS: u64 = 15 * MINUTE_NS;
/// When the kept labels change.
pub const KEEP_NS: u64 = 20 * MINUTE_NS;
/// When folded turns raw.
pub const OFF_NS: u64 = 25 * MINUTE_NS;
/// Silence after which a stream is forgotten, and how long a series goes on after its switch: longer than a range, and over before the scene is.
pub const EXPIRY_NS: u64 = 10 * MINUTE_NS;
