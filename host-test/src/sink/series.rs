//! One series: every sample it received, its total, and what was wrong with it.
//!
//! In: samples in the order of arrival. Out: the exact total of the series and its [`Anomaly`]s. Why all samples are kept: a
//! judge that aggregates on the way cannot say afterwards which sample was wrong. Rules (OTLP data model, "Sums"): the
//! total of a delta series is the sum of its values; of a cumulative monotonic one the sum of its increases, where a newer
//! start time begins again from zero, and the first sample counts from zero iff its start time lies within the run.

use super::distribution::{Distribution, Observations};
use super::exact::Total;
use super::identity::Labels;
use std::collections::BTreeSet;

/// What a metric is, as far as totals care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Delta sum, monotonic or not.
    Delta,
    /// Cumulative monotonic sum.
    Cumulative,
    /// Cumulative sum that may fall (up-down counter).
    UpDown,
    /// Gauge.
    Gauge,
    /// Explicit histogram, cumulative.
    Histogram,
    /// Explicit histogram, delta.
    HistogramDelta,
    /// Exponential histogram, cumulative.
    ExponentialHistogram,
    /// Exponential histogram, delta.
    ExponentialHistogramDelta,
    /// Summary: count and sum are cumulative.
    Summary,
    /// No data, or a temporality that OTLP does not define.
    Unknown,
}

impl Kind {
    /// Whether the kind has a total that a fold must conserve.
    pub fn has_total(self) -> bool {
        matches!(self, Kind::Delta | Kind::Cumulative)
    }

    /// Whether the kind counts observations that a fold must conserve.
    pub fn has_observations(self) -> bool {
        use Kind::{ExponentialHistogram, ExponentialHistogramDelta, Histogram, HistogramDelta, Summary};
        matches!(
            self,
            Histogram | HistogramDelta | ExponentialHistogram | ExponentialHistogramDelta | Summary
        )
    }

    /// Whether a fold of the kind combines last values.
    pub fn is_last_value(self) -> bool {
        matches!(self, Kind::Gauge | Kind::UpDown)
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// `as_int`.
    Int(i64),
    /// `as_double`.
    Double(f64),
    /// No number but a distribution: histograms, summaries.
    Distribution,
    /// Nothing: `no_recorded_value`.
    None,
}

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Start time in Unix nanoseconds; 0 is unknown.
    pub start_ns: u64,
    /// Time in Unix nanoseconds.
    pub time_ns: u64,
    /// The value.
    pub value: Value,
}

/// What no correct sender does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// The very same sample again.
    Repeated,
    /// Not newer than the last sample of a cumulative series: two writers, or reordering.
    OutOfOrder,
    /// A delta series got the same (start, time) twice.
    DuplicateInterval,
    /// A cumulative monotonic value fell though its start time did not advance.
    Fell,
    /// The start time of a cumulative series went back.
    StartWentBack,
    /// A monotonic sum is negative.
    Negative,
    /// The observations of a histogram are not those of its buckets, or its lists do not fit.
    DoesNotAddUp,
    /// The scale of a cumulative exponential histogram rose though its start time did not advance.
    ScaleRose,
}

/// One series.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is.
    pub kind: Kind,
    /// Resource attributes.
    pub resource: Labels,
    /// Point attributes.
    pub point: Labels,
    /// All samples in the order of arrival.
    pub samples: Vec<Sample>,
    /// Of histograms and summaries: one for each sample.
    pub distributions: Vec<Distribution>,
}

/// What a series adds up to.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The total.
    pub total: Total,
    /// The observations.
    pub observations: Observations,
    /// Anomalies with the index of the sample.
    pub anomalies: Vec<(Anomaly, usize)>,
    /// Streams whose first sample was only a baseline.
    pub baselines: u64,
}

impl Series {
    /// Adds up the series; `run_start_ns` is when the run began (Unix nanoseconds).
    pub fn read(&self, run_start_ns: u64) -> Reading {
        match self.kind {
            Kind::Delta => self.read_delta(),
            Kind::Cumulative => self.read_cumulative(run_start_ns),
            Kind::HistogramDelta | Kind::ExponentialHistogramDelta => self.read_delta_distributions(),
            Kind::Histogram | Kind::ExponentialHistogram | Kind::Summary => {
                self.read_distributions(run_start_ns)
            }
            _ => self.read_order(),
        }
    }

    fn read_delta(&self) -> Reading {
        let mut out = Reading::default();
        let mut seen = BTreeSet::new();
        for (index, sample) in self.samples.iter().enumerate() {
            if !seen.insert((sample.start_ns, sample.time_ns)) {
                out.anomalies.push((Anomaly::DuplicateInterval, index));
            }
            // A backend adds what it gets, so a duplicate counts twice here too.
            add(&mut out.total, sample.value, 1);
        }
        out
    }

    fn read_cumulative(&self, run_start_ns: u64) -> Reading {
        let mut out = Reading::default();
        let mut last: Option<Sample> = None;
        for (index, &sample) in self.samples.iter().enumerate() {
            if sample.value == Value::None {
                continue;
            }
            if is_negative(sample.value) {
                out.anomalies.push((Anomaly::Negative, index));
            }
            match last {
                None if sample.start_ns >= run_start_ns => add(&mut out.total, sample.value, 1),
                None => out.baselines += 1,
                Some(previous) if sample == previous => {
                    out.anomalies.push((Anomaly::Repeated, index));
                    continue;
                }
                Some(previous) if sample.time_ns <= previous.time_ns => {
                    out.anomalies.push((Anomaly::OutOfOrder, index));
                    continue;
                }
                Some(previous) if sample.start_ns > previous.start_ns => add(&mut out.total, sample.value, 1),
                Some(previous) => {
                    if sample.start_ns < previous.start_ns {
                        out.anomalies.push((Anomaly::StartWentBack, index));
                    }
                    add(&mut out.total, sample.value, 1);
                    if falls(previous.value, sample.value) {
                        out.anomalies.push((Anomaly::Fell, index));
                    } else {
                        add(&mut out.total, previous.value, -1);
                    }
                }
            }
            last = Some(sample);
        }
        out
    }

    fn read_delta_distributions(&self) -> Reading {
        let mut out = self.read_delta();
        for (index, (sample, distribution)) in self.samples.iter().zip(&self.distributions).enumerate() {
            if sample.value == Value::None {
                continue;
            }
            if !distribution.adds_up() {
                out.anomalies.push((Anomaly::DoesNotAddUp, index));
            }
            out.observations.add(distribution, 1);
        }
        out
    }

    /// As cumulative sums, and a bucket that falls is a fall.
    fn read_distributions(&self, run_start_ns: u64) -> Reading {
        let mut out = Reading::default();
        let mut last: Option<(Sample, &Distribution)> = None;
        for (index, (&sample, distribution)) in self.samples.iter().zip(&self.distributions).enumerate() {
            if sample.value == Value::None {
                continue;
            }
            if !distribution.adds_up() {
                out.anomalies.push((Anomaly::DoesNotAddUp, index));
            }
            match last {
                None if sample.start_ns >= run_start_ns => out.observations.add(distribution, 1),
                None => out.baselines += 1,
                Some(previous) if (sample, distribution) == previous => {
                    out.anomalies.push((Anomaly::Repeated, index));
                    continue;
                }
                Some((previous, _)) if sample.time_ns <= previous.time_ns => {
                    out.anomalies.push((Anomaly::OutOfOrder, index));
                    continue;
                }
                Some((previous, _)) if sample.start_ns > previous.start_ns => {
                    out.observations.add(distribution, 1);
                }
                Some((previous, before)) => {
                    if sample.start_ns < previous.start_ns {
                        out.anomalies.push((Anomaly::StartWentBack, index));
                    }
                    if distribution.scale() > before.scale() {
                        out.anomalies.push((Anomaly::ScaleRose, index));
                    }
                    out.observations.add(distribution, 1);
                    if distribution.falls_from(before) {
                        out.anomalies.push((Anomaly::Fell, index));
                    } else {
                        out.observations.add(before, -1);
                    }
                }
            }
            last = Some((sample, distribution));
        }
        out
    }

    fn read_order(&self) -> Reading {
        let mut out = Reading::default();
        for (index, pair) in self.samples.windows(2).enumerate() {
            if pair[0] == pair[1] {
                out.anomalies.push((Anomaly::Repeated, index + 1));
            } else if pair[1].time_ns <= pair[0].time_ns {
                out.anomalies.push((Anomaly::OutOfOrder, index + 1));
            }
        }
        out
    }
}

fn add(total: &mut Total, value: Value, sign: i8) {
    match value {
        Value::Int(number) => total.add_int(i128::from(number) * i128::from(sign)),
        Value::Double(number) => total.add_double(number * f64::from(sign)),
        Value::Distribution | Value::None => {}
    }
}

fn falls(previous: Value, value: Value) -> bool {
    match (previous, value) {
        (Value::Int(before), Value::Int(now)) => now < before,
        (before, now) => number(now) < number(before),
    }
}

fn is_negative(value: Value) -> bool {
    number(value) < 0.0
}

fn number(value: Value) -> f64 {
    match value {
        Value::Int(number) => number as f64,
        Value::Double(number) => number,
        Value::Distribution | Value::None => 0.0,
    }
}
