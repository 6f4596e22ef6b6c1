//! Types and temporalities.
//!
//! In: a word, or decoded data. Out: a [`Kind`]. One table says which is which.

use super::Sample;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogram, Gauge, Histogram, Sum, Summary};

/// Type and temporality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A sum: its temporality, and whether it is monotonic.
    Sum(i32, bool),
    /// Gauge.
    Gauge,
    /// Histogram with explicit bounds: its temporality.
    Histogram(i32),
    /// Exponential histogram: its temporality.
    Exponential(i32),
    /// Summary.
    Summary,
}

/// OTLP's `AGGREGATION_TEMPORALITY_`s.
const UNSPECIFIED: i32 = 0;
const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

impl Kind {
    /// A cumulative monotonic sum.
    pub const CUMULATIVE: Kind = Kind::Sum(CUMULATIVE, true);

    /// Every kind with its word.
    pub const ALL: [(Kind, &str); 14] = [
        (Kind::Sum(CUMULATIVE, true), "cumulative"),
        (Kind::Sum(DELTA, true), "delta"),
        (Kind::Sum(UNSPECIFIED, true), "sum-unspecified"),
        (Kind::Sum(CUMULATIVE, false), "updown"),
        (Kind::Sum(DELTA, false), "updown-delta"),
        (Kind::Sum(UNSPECIFIED, false), "updown-unspecified"),
        (Kind::Gauge, "gauge"),
        (Kind::Histogram(CUMULATIVE), "histogram"),
        (Kind::Histogram(DELTA), "histogram-delta"),
        (Kind::Histogram(UNSPECIFIED), "histogram-unspecified"),
        (Kind::Exponential(CUMULATIVE), "exponential"),
        (Kind::Exponential(DELTA), "exponential-delta"),
        (Kind::Exponential(UNSPECIFIED), "exponential-unspecified"),
        (Kind::Summary, "summary"),
    ];

    /// The kind with this word.
    pub fn named(word: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|(_, name)| *name == word).map(|(kind, _)| kind)
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or("of no kind", |(_, name)| name)
    }

    /// The kind of decoded data.
    pub fn of(data: &Data) -> Kind {
        match data {
            Data::Gauge(_) => Kind::Gauge,
            Data::Sum(sum) => Kind::Sum(sum.aggregation_temporality, sum.is_monotonic),
            Data::Histogram(data) => Kind::Histogram(data.aggregation_temporality),
            Data::ExponentialHistogram(data) => Kind::Exponential(data.aggregation_temporality),
            Data::Summary(_) => Kind::Summary,
        }
    }

    /// The data of a metric that holds these points; points of other kinds are left out.
    pub fn data<'a>(self, samples: impl Iterator<Item = &'a Sample>) -> Data {
        let samples: Vec<&Sample> = samples.collect();
        let numbers =
            || samples.iter().filter_map(|s| if let Sample::Number(p) = s { Some(p.clone()) } else { None });
        match self {
            Kind::Gauge => Data::Gauge(Gauge { data_points: numbers().collect() }),
            Kind::Sum(aggregation_temporality, is_monotonic) => {
                Data::Sum(Sum { data_points: numbers().collect(), aggregation_temporality, is_monotonic })
            }
            Kind::Histogram(aggregation_temporality) => {
                let of = |s: &&Sample| if let Sample::Histogram(p) = s { Some(p.clone()) } else { None };
                let data_points = samples.iter().filter_map(of).collect();
                Data::Histogram(Histogram { data_points, aggregation_temporality })
            }
            Kind::Exponential(aggregation_temporality) => {
                let of = |s: &&Sample| if let Sample::Exponential(p) = s { Some(p.clone()) } else { None };
                let data_points = samples.iter().filter_map(of).collect();
                Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
            }
            Kind::Summary => {
                let of = |s: &&Sample| if let Sample::Summary(p) = s { Some(p.clone()) } else { None };
                Data::Summary(Summary { data_points: samples.iter().filter_map(of).collect() })
            }
        }
    }
}
