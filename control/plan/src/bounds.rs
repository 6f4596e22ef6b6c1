//! Every bound of a plan in one place: the range of each field and the reason for it, tied together at compile time.
//!
//! Durations are in milliseconds, sizes in bytes. The engine may rely on these: a [`crate::Plan`] that was parsed keeps them.

use crate::DurationMs;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// The one version of the document that this build reads.
pub const SCHEMA: u32 = 1;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// The largest plan read at all: 1,000 rules of usual size are about 400 KiB, and large pushes grow an Envoy's memory.
pub const PLAN_BYTES: usize = 4 * MIB as usize;
/// Rules are tried in order for every new metric name, so their number bounds that walk.
pub const RULES: usize = 1_000;
/// Matchers of one kind in one rule.
pub const MATCHERS: usize = 32;
/// Labels in one list; OTLP SDKs allow 128 attributes a point.
pub const LABELS: usize = 128;
/// Names of rules, writers, tenants, headers and of the two labels that Phoenix adds.
pub const NAME_BYTES: usize = 128;
/// Keys of labels and names of metrics (OpenTelemetry allows 255 characters for an instrument's name).
pub const KEY_BYTES: usize = 256;
/// Values that matchers compare with.
pub const VALUE_BYTES: usize = 1_024;
/// Glob patterns: the factor by which matching one may exceed one pass over the text.
pub const PATTERN_BYTES: usize = 256;

/// Owners work in parallel, one a shard; more than 16 workers' worth of folding was never needed.
pub const SHARDS: RangeInclusive<u32> = 1..=16;
/// A clock error between sender and embedder; more than ten minutes is a broken clock.
pub const FIRST_SAMPLE_MARGIN_MS: RangeInclusive<u64> = 0..=600_000;
/// Below a second windows cost more points than they save; above an hour no dashboard is served.
pub const WINDOW_MS: RangeInclusive<u64> = 1_000..=3_600_000;
/// At least one export interval of the senders: the shortest in use is a second, the longest an hour.
pub const DELAY_MS: RangeInclusive<u64> = 1_000..=3_600_000;
/// A stream that is silent for a day is gone. The lower bound follows from the rules, see [`crate::Plan::stream_expiry_min`].
pub const STREAM_EXPIRY_MAX_MS: u64 = 86_400_000;
/// Points further ahead of the embedder's clock than this pass untouched.
pub const AHEAD_MS: u64 = 300_000;
/// Windows of one fold that can be open at once: from the oldest that waits for its delay to the newest that may lie ahead.
pub const OPEN_WINDOWS: u64 = 4_096;

/// Cumulative streams: 4 million at 64 bytes and 85 % load are about 300 MiB of the 1 GiB that Envoy gives a VM.
pub const STREAMS: RangeInclusive<u32> = 1..=4_000_000;
/// Delta streams hold their last eight intervals: 192 bytes each.
pub const DELTA_STREAMS: RangeInclusive<u32> = 1..=1_000_000;
/// Gauge streams: 40 bytes of last value and about as much again while a window is open.
pub const GAUGE_STREAMS: RangeInclusive<u32> = 1..=1_000_000;
/// Histograms; half of what Envoy gives a VM.
pub const HISTOGRAM_BYTES: RangeInclusive<u32> = 64 * KIB..=512 * MIB;
/// Exemplars of a series and window: more than a panel can show.
pub const EXEMPLARS: RangeInclusive<u32> = 0..=16;
/// Folded series; a million of them would be no saving.
pub const SERIES: RangeInclusive<u32> = 1..=1_000_000;
/// Records that wait for the upstream's answer, per worker.
pub const PENDING_BYTES: RangeInclusive<u32> = KIB..=256 * MIB;
/// Records on their way to an owner, per worker: its credit in the host's queue, which itself has no bound.
pub const QUEUE_BYTES: RangeInclusive<u32> = KIB..=256 * MIB;
/// One emission: receivers refuse messages over 4 MiB (gRPC's default).
pub const EMISSION_BYTES: RangeInclusive<u32> = 64 * KIB..=4 * MIB;
/// Emissions without a definite answer.
pub const BACKLOG_BYTES: RangeInclusive<u32> = 64 * KIB..=256 * MIB;
/// Request bodies; the shipped configurations set Envoy's buffer to the same 64 MiB.
pub const BODY_BYTES: RangeInclusive<u32> = KIB..=64 * MIB;
/// Shares of tenants and of metrics that one plan can give.
pub const SHARES: usize = 1_000;
/// Series in a share and in a process: about 40 bytes each, in every worker.
pub const ACTIVE_SERIES: RangeInclusive<u32> = 1..=4_000_000;
/// A reserved part of a share.
pub const RESERVED: RangeInclusive<u32> = 0..=4_000_000;
/// Tenants told apart, about 200 bytes each in every worker.
pub const TENANTS: RangeInclusive<u32> = 1..=100_000;
/// What measuring takes: a metric and ten labels at full size are 60 KiB.
pub const MEASURE_BYTES: RangeInclusive<u32> = MIB..=512 * MIB;
/// Below half a minute a generation is shorter than an export interval; a day is a day.
pub const PERIOD_MS: RangeInclusive<u64> = 15_000..=86_400_000;
/// How long a treatment lasts at least.
pub const DWELL_MS: RangeInclusive<u64> = 1_000..=86_400_000;
/// How far ahead a restoration is announced: two export intervals of a second, of an hour at most.
pub const SWITCH_LEAD_MS: RangeInclusive<u64> = 2_000..=7_200_000;
/// Streams that a top-k rule keeps: each worker says twice as many with their weights once a generation, 16 bytes each.
pub const TOP_K: RangeInclusive<u32> = 1..=10_000;
/// A part of a metric's total.
pub const COVERAGE_PERCENT: RangeInclusive<u32> = 1..=100;
/// From a tenth on, so that something is restored; all of it is no hysteresis, and allowed.
pub const RESTORE_PERCENT: RangeInclusive<u32> = 10..=100;

/// The range of a field as text, `1 to 16`, or its words, for a value so wrong that it could not be read; none for fields without a fixed range.
pub(crate) fn range_text(field: &str) -> Option<String> {
    let milliseconds =
        |range: &RangeInclusive<u64>| text(&(DurationMs(*range.start())..=DurationMs(*range.end())));
    Some(match field {
        "clock" => "wall, event".to_owned(),
        "affinity" => "assumed, checked".to_owned(),
        "placement" => "gateway, sidecar".to_owned(),
        "pipeline" => "full_fidelity, optimized, experimental_topk".to_owned(),
        "switch.from.pipeline" => "full_fidelity, optimized".to_owned(),
        "topk.k" | "topk.k_max" => text(&TOP_K),
        "topk.coverage_percent" => text(&COVERAGE_PERCENT),
        priority if priority.starts_with("budgets.tenants[") && priority.ends_with("].priority") => {
            "low, normal, high".to_owned()
        }
        "fold.output_temporality" | "switch.from.fold.output_temporality" => {
            "unchanged, cumulative, delta".to_owned()
        }
        "fold.gauge"
        | "fold.up_down_counter"
        | "switch.from.fold.gauge"
        | "switch.from.fold.up_down_counter" => "sum, avg, min, max, last, count".to_owned(),
        "fold.summary" | "switch.from.fold.summary" => "sum_and_count".to_owned(),
        "fold.exemplars" | "switch.from.fold.exemplars" => text(&EXEMPLARS),
        "schema" => SCHEMA.to_string(),
        "version" => text(&(1..=u64::MAX)),
        "shards" => text(&SHARDS),
        "first_sample_margin" => milliseconds(&FIRST_SAMPLE_MARGIN_MS),
        "fold.window" | "switch.from.fold.window" => milliseconds(&WINDOW_MS),
        "fold.delay" | "switch.from.fold.delay" => milliseconds(&DELAY_MS),
        "limits.streams_max" => text(&STREAMS),
        "limits.delta_streams_max" => text(&DELTA_STREAMS),
        "limits.gauge_streams_max" => text(&GAUGE_STREAMS),
        "limits.histogram_bytes_max" => text(&HISTOGRAM_BYTES),
        "limits.series_max" => text(&SERIES),
        "limits.pending_bytes_max" => text(&PENDING_BYTES),
        "limits.queue_bytes_max" => text(&QUEUE_BYTES),
        "limits.emission_bytes_max" => text(&EMISSION_BYTES),
        "limits.backlog_bytes_max" => text(&BACKLOG_BYTES),
        "limits.body_bytes_max" => text(&BODY_BYTES),
        "limits.active_series_max" => text(&ACTIVE_SERIES),
        "limits.tenants_max" => text(&TENANTS),
        "limits.measure_bytes_max" => text(&MEASURE_BYTES),
        "measure.period" => milliseconds(&PERIOD_MS),
        "budgets.dwell" => milliseconds(&DWELL_MS),
        "budgets.switch_lead" => milliseconds(&SWITCH_LEAD_MS),
        "budgets.restore_below_percent" => text(&RESTORE_PERCENT),
        "budgets.fold.window" => milliseconds(&WINDOW_MS),
        "budgets.fold.delay" => milliseconds(&DELAY_MS),
        "budgets.fold.exemplars" => text(&EXEMPLARS),
        "budgets.fold.gauge" | "budgets.fold.up_down_counter" => "sum, avg, min, max, last, count".to_owned(),
        "budgets.fold.summary" => "sum_and_count".to_owned(),
        "budgets.fold.output_temporality" => "unchanged, cumulative, delta".to_owned(),
        _ => return None,
    })
}

/// A range as text.
pub(crate) fn text<N: Display>(range: &RangeInclusive<N>) -> String {
    format!("{} to {}", range.start(), range.end())
}

// The longest wait with the shortest window stays within the open windows, so no plan in range can ask for more
// (one window is open at each end beside the whole ones).
const _: () = assert!((*DELAY_MS.end() + AHEAD_MS) / *WINDOW_MS.start() + 2 <= OPEN_WINDOWS);
// The slowest fold allowed leaves room for an expiry.
const _: () = assert!(2 * (*DELAY_MS.end() + *WINDOW_MS.end()) <= STREAM_EXPIRY_MAX_MS);
// An emission of any allowed size fits some backlog, and the smallest backlog is no smaller than the smallest emission.
const _: () = assert!(
    *EMISSION_BYTES.end() <= *BACKLOG_BYTES.end() && *EMISSION_BYTES.start() <= *BACKLOG_BYTES.start()
);
// Lengths of bodies and backlogs fit a 32-bit address space several times over.
const _: () = assert!(*BODY_BYTES.end() <= 1 << 26 && *BACKLOG_BYTES.end() <= 1 << 28);
