//! Every bound of the engine in one place, each with its reason. What a plan may change has its default and range in
//! `control/plan`; what stands here cannot be changed, because something else relies on it.

/// Points with a timestamp further ahead of the embedder's clock than this pass untouched (DESIGN §3.6): an exporter with a
/// wrong clock must not hold windows open. Five minutes is what Prometheus' own out-of-order defaults tolerate.
pub const AHEAD_MAX_NS: u64 = 5 * 60 * 1_000_000_000;

/// A clock that reads this much less than before was set back; below it, `now` just waits. Larger than any step that NTP makes
/// by slewing, smaller than any window's delay that matters.
pub const CLOCK_SET_BACK_NS: u64 = 10 * 1_000_000_000;

/// Between two calls no more than this counts as time that has passed: embedders call several times a second, so a longer step
/// is the clock's doing, and streams must not seem silent because of it.
pub const LEAP_NS: u64 = 60 * 1_000_000_000;

/// Intervals a delta stream remembers to tell a reordered point from a repeated one (DESIGN §3.2). An exporter with eight
/// requests in flight is already unusual.
pub const DELTA_INTERVALS: usize = 8;

/// Open windows one series may hold. The plan refuses (delay + 5 min) / window beyond 4,096; the rest is slack for windows
/// that wait because the backlog of emissions is full. Beyond it the two oldest windows become one.
pub const OPEN_WINDOWS_MAX: usize = 4_096 + 64;

/// Bytes that one series may need in its head: labels, resource, scope, name, description. Ten times what real series need; beyond
/// it a point passes, since every table that holds heads is bounded by their number times this.
pub const HEAD_BYTES_MAX: usize = 8 * 1_024;

/// Metric names longer than this are looked up each time instead of being remembered: senders choose them.
pub const NAME_REMEMBERED_MAX: usize = 256;

/// Doubles beyond this pass: a million million million of them still add up to a finite number.
pub const DOUBLE_MAX: f64 = 1e290;

/// Series beyond the plan's `series_max` into which the rest of a metric folds when the table is full: one per tenant and metric.
pub const OVERFLOW_SERIES: u32 = 4_096;

/// Bounds of an explicit histogram. Real ones have a dozen; these still fit a series' head ([`HEAD_BYTES_MAX`]) with its labels.
pub const BOUNDS_MAX: usize = 512;

/// Buckets a side that an exponential histogram may come with. SDKs send 160 at most; beyond this a point passes.
pub const BUCKETS_MAX: usize = 1_024;

/// Buckets a side of a folded exponential histogram: two full ones of an SDK side by side keep their scale. Beyond it the scale goes
/// down, which halves the number.
pub const EXPONENTIAL_BUCKETS_MAX: usize = 320;

/// Scales that OTLP's data model speaks of.
pub const SCALES: core::ops::RangeInclusive<i32> = -10..=20;

/// Observations in one point: more than this no double counts (trap 23), and two thousand such points still add up.
pub const COUNT_MAX: u64 = 1 << 53;

/// The largest exemplar that is kept, with the labels that were folded away: what a panel links to is a trace id and a few of those.
pub const EXEMPLAR_BYTES_MAX: usize = 1_024;

/// Exemplars that an owner holds, in bytes: beyond it further ones are left out, since nothing counts on them.
pub const EXEMPLARS_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Values that a gauge stream may have in open windows, on average: an export interval of a window, a delay of a few. Beyond it values are
/// refused, and workers let points pass raw.
pub const WORDS_PER_STREAM: usize = 8;

/// Metrics with a page of their own in the ledger; the rest share the page `(other)`. A name is at most a few dozen bytes, so
/// the ledger stays below half a mebibyte.
pub const LEDGER_METRICS_MAX: usize = 1_024;

/// Metrics that budgets tell apart; those beyond share one budget a tenant. About 150 bytes each in every worker.
pub const METRICS_MAX: usize = 20_000;

/// Streams that a worker ranks; those beyond fold or stay as they are. About 70 bytes each.
pub const RANKED_STREAMS_MAX: usize = 200_000;

/// Longest metric name the ledger keeps; longer names are cut for the page's title only.
pub const LEDGER_NAME_MAX: usize = 200;

/// A folded cumulative double restarts before its total reaches 2^53: beyond it adding 1 changes nothing (trap 23).
pub const DOUBLE_TOTAL_MAX: f64 = 9_007_199_254_740_992.0;

/// Slots of the stream table looked at per sweep for streams that have gone: a sweep of a million streams is spread over
/// about four minutes of 200 ms ticks and costs a tick well under a millisecond.
pub const SWEEP_SLOTS: usize = 1_024;

/// Nested attribute values deeper than this are refused. Real attributes nest once or twice.
pub const DEPTH_MAX: usize = 16;

/// A report: sent every few seconds by every worker, and read by one that reads thousands. `report::room` says what of it is left out.
pub const REPORT_BYTES_MAX: usize = 256 * 1_024;

/// Node id and start of a process, in a report.
pub const REPORT_PROCESS_BYTES_MAX: usize = 256;

/// Names of metrics, labels, tenants and counters in a report; longer ones are cut. OpenTelemetry's own limit for names of instruments is 255.
pub const REPORT_NAME_BYTES_MAX: usize = 256;

/// Example values in a report: enough to recognise a URL or an identifier.
pub const REPORT_VALUE_BYTES_MAX: usize = 128;

/// The reason of a decision in a report: a sentence.
pub const REPORT_SENTENCE_BYTES_MAX: usize = 512;

const _: () = assert!(OPEN_WINDOWS_MAX > 4_096);
// Whatever is left out, a report's own fields and at least one metric are in it.
const _: () = assert!(REPORT_BYTES_MAX / 16 > 8 * REPORT_NAME_BYTES_MAX + REPORT_PROCESS_BYTES_MAX);
const _: () = assert!(8 * BOUNDS_MAX <= HEAD_BYTES_MAX / 2);
const _: () = assert!(DELTA_INTERVALS.is_power_of_two());
