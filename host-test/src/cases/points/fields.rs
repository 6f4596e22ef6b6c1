//! What a point of each kind says behind its times.
//!
//! ```text
//! 5 | 5.0 | none | stale                                  sums and gauges
//! count=7 sum=3.5 min=0.1 max=2 le=[0.1:2, 1:4, +Inf:1]   histogram
//! count=7 sum=3.5 bounds=[1, 0.1] counts=[2, 4]           histogram whose lists do not fit: the raw fields
//! count=4 sum=3 scale=3 zero=1 threshold=0.001 positive=-2:[1, 2] negative=0:[1]
//! count=2 sum=5 quantiles=[0.5:1, 0.9:4]                  summary
//! ```
//!
//! `count` is always said, as is a summary's `sum`; what else is left out is not there. Counts are those of each bucket alone, as in OTLP, not running as in Prometheus. `stale` in front is the
//! flag. Nothing has to add up: what is wrong is written as it is. Only read, never written: `3*7` in a list is three times 7, and `1..5` in `bounds` counts up.

use super::{Kind, Sample};
use anyhow::{Context as _, bail, ensure};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, SummaryDataPoint,
};
use std::fmt::Display;
use std::str::FromStr;

/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK` of OTLP.
const NO_RECORDED_VALUE: u32 = 1;
/// The word for it.
const STALE: &str = "stale";
/// The last bucket has no bound.
const INFINITE: &str = "+Inf";
/// A list that is written short is not longer than this: a slip of the pen must not fill the memory.
const REPEATED_MAX: usize = 100_000;

/// A point from the words behind its times.
///
/// # Errors
/// A word that the kind does not know.
pub fn read(kind: Kind, words: &[&str]) -> anyhow::Result<Sample> {
    let (flags, words) = match words {
        [STALE, rest @ ..] => (NO_RECORDED_VALUE, rest),
        all => (0, all),
    };
    if let Kind::Sum(..) | Kind::Gauge = kind {
        let value = match words {
            [] if flags != 0 => None,
            ["none"] => None,
            [text] => Some(read_number(text)?),
            _ => bail!("a value, not {words:?}"),
        };
        return Ok(Sample::Number(NumberDataPoint { value, flags, ..NumberDataPoint::default() }));
    }
    let mut fields = Fields::of(words)?;
    let count = fields.take("count", str::parse)?.context("count=")?;
    let sum: Option<f64> = fields.take("sum", str::parse)?;
    let sample = match kind {
        Kind::Histogram(_) => {
            let (explicit_bounds, bucket_counts) = buckets(&mut fields)?;
            let (min, max) = (fields.take("min", str::parse)?, fields.take("max", str::parse)?);
            let rest = HistogramDataPoint::default();
            Sample::Histogram(HistogramDataPoint {
                count,
                sum,
                min,
                max,
                explicit_bounds,
                bucket_counts,
                flags,
                ..rest
            })
        }
        Kind::Exponential(_) => Sample::Exponential(ExponentialHistogramDataPoint {
            count,
            sum,
            min: fields.take("min", str::parse)?,
            max: fields.take("max", str::parse)?,
            scale: fields.take("scale", str::parse)?.context("scale=")?,
            zero_count: fields.take("zero", str::parse)?.unwrap_or_default(),
            zero_threshold: fields.take("threshold", str::parse)?.unwrap_or_default(),
            positive: fields.side("positive")?,
            negative: fields.side("negative")?,
            flags,
            ..ExponentialHistogramDataPoint::default()
        }),
        _ => {
            let quantiles = fields.list("quantiles")?.unwrap_or_default();
            let pairs = quantiles.into_iter().map(pair).collect::<anyhow::Result<Vec<(f64, f64)>>>()?;
            let value = |(quantile, value)| ValueAtQuantile { quantile, value };
            Sample::Summary(SummaryDataPoint {
                count,
                sum: sum.context("sum=")?,
                quantile_values: pairs.into_iter().map(value).collect(),
                flags,
                ..SummaryDataPoint::default()
            })
        }
    };
    ensure!(fields.0.is_empty(), "a {} has no {:?}", kind.name(), fields.0);
    Ok(sample)
}

/// A number as it stands: an integer, else a double.
///
/// # Errors
/// Neither.
pub fn read_number(text: &str) -> anyhow::Result<Number> {
    Ok(match text.parse() {
        Ok(int) => Number::AsInt(int),
        Err(_) => Number::AsDouble(text.parse().with_context(|| format!("a number, not {text:?}"))?),
    })
}

/// Bounds and counts: together as `le`, or each as it is.
fn buckets(fields: &mut Fields<'_>) -> anyhow::Result<(Vec<f64>, Vec<u64>)> {
    let Some(list) = fields.list("le")? else {
        let bounds = fields.list("bounds")?.map(numbers).transpose()?.unwrap_or_default();
        return Ok((bounds, fields.list("counts")?.map(counts).transpose()?.unwrap_or_default()));
    };
    let (last, rest) = list.split_last().context("le=[] is no list of buckets")?;
    let last = last.strip_prefix(INFINITE).and_then(|rest| rest.strip_prefix(':'));
    let last = last.context("the last bucket of le is +Inf; raw fields are bounds= and counts=")?;
    let pairs = rest.iter().map(|text| pair(text)).collect::<anyhow::Result<Vec<(f64, u64)>>>()?;
    let (bounds, mut counts): (Vec<f64>, Vec<u64>) = pairs.into_iter().unzip();
    counts.push(last.trim().parse().with_context(|| format!("a count, not {last:?}"))?);
    Ok((bounds, counts))
}

fn pair<A: FromStr, B: FromStr>(text: &str) -> anyhow::Result<(A, B)> {
    let both = text.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.trim().parse().ok()?)));
    both.with_context(|| format!("number:number, not {text:?}"))
}

/// Counts; `3*7` is three times 7.
fn counts(list: Vec<&str>) -> anyhow::Result<Vec<u64>> {
    let mut out = Vec::new();
    for text in list {
        let (times, value) = text.split_once('*').unwrap_or(("1", text));
        let times: usize = times.parse().with_context(|| format!("N*count, not {text:?}"))?;
        ensure!(out.len() + times <= REPEATED_MAX, "{text}: more than {REPEATED_MAX} counts");
        let value: u64 = value.parse().with_context(|| format!("a count, not {text:?}"))?;
        out.extend(std::iter::repeat_n(value, times));
    }
    Ok(out)
}

/// Doubles; `1..5` counts up.
fn numbers(list: Vec<&str>) -> anyhow::Result<Vec<f64>> {
    let mut out = Vec::new();
    for text in list {
        if let Some((from, to)) = text.split_once("..") {
            let (from, to): (u32, u32) = (from.parse()?, to.parse()?);
            ensure!(to as usize <= REPEATED_MAX, "{text}: more than {REPEATED_MAX} bounds");
            out.extend((from..=to).map(f64::from));
        } else {
            out.push(text.parse().with_context(|| format!("a number, not {text:?}"))?);
        }
    }
    Ok(out)
}

/// `name=value` words that are not yet read.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    fn of(words: &[&'a str]) -> anyhow::Result<Self> {
        let field =
            |word: &&'a str| word.split_once('=').with_context(|| format!("name=value, not {word:?}"));
        Ok(Self(words.iter().map(field).collect::<anyhow::Result<_>>()?))
    }

    fn text(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(at).1)
    }

    fn take<T, E>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, E>) -> anyhow::Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        read(text).ok().with_context(|| format!("{name}: a number, not {text:?}")).map(Some)
    }

    fn list(&mut self, name: &str) -> anyhow::Result<Option<Vec<&'a str>>> {
        self.text(name).map(|text| items(text).with_context(|| name.to_owned())).transpose()
    }

    /// `OFFSET:[counts]`.
    fn side(&mut self, name: &str) -> anyhow::Result<Option<Buckets>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let (offset, list) = text.split_once(':').with_context(|| format!("{name}=offset:[counts]"))?;
        let offset = offset.parse().with_context(|| format!("{name}: an offset, not {offset:?}"))?;
        Ok(Some(Buckets { offset, bucket_counts: counts(items(list)?)? }))
    }
}

/// The items of `[a, b]`.
fn items(text: &str) -> anyhow::Result<Vec<&str>> {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let inside = inside.with_context(|| format!("[a, b], not {text:?}"))?;
    Ok(inside.split(',').map(str::trim).filter(|item| !item.is_empty()).collect())
}

/// The words of a point behind its times.
pub fn text(sample: &Sample) -> String {
    let mut out = Words::default();
    match sample {
        Sample::Number(point) => {
            out.flag(point.flags);
            match point.value {
                Some(value) => out.0.push(number(value)),
                None if out.0.is_empty() => out.0.push("none".to_owned()),
                None => {}
            }
        }
        Sample::Histogram(point) => {
            out.flag(point.flags);
            out.say("count", point.count);
            out.say_some(&[("sum", point.sum), ("min", point.min), ("max", point.max)]);
            out.buckets(&point.explicit_bounds, &point.bucket_counts);
        }
        Sample::Exponential(point) => {
            out.flag(point.flags);
            out.say("count", point.count);
            out.say_some(&[("sum", point.sum), ("min", point.min), ("max", point.max)]);
            out.say("scale", point.scale);
            if point.zero_count != 0 {
                out.say("zero", point.zero_count);
            }
            let is_given = point.zero_threshold.to_bits() != 0;
            out.say_some(&[("threshold", is_given.then_some(point.zero_threshold))]);
            for (name, side) in [("positive", &point.positive), ("negative", &point.negative)] {
                if let Some(Buckets { offset, bucket_counts }) = side {
                    out.say(name, format!("{offset}:[{}]", joined(bucket_counts.iter())));
                }
            }
        }
        Sample::Summary(point) => {
            out.flag(point.flags);
            out.say("count", point.count);
            out.say_some(&[("sum", Some(point.sum))]);
            let pair = |at: &ValueAtQuantile| format!("{}:{}", double(at.quantile), double(at.value));
            if !point.quantile_values.is_empty() {
                out.say("quantiles", format!("[{}]", joined(point.quantile_values.iter().map(pair))));
            }
        }
    }
    out.0.join(" ")
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn flag(&mut self, flags: u32) {
        if flags & NO_RECORDED_VALUE != 0 {
            self.0.push(STALE.to_owned());
        }
    }

    fn say(&mut self, name: &str, value: impl Display) {
        self.0.push(format!("{name}={value}"));
    }

    fn say_some(&mut self, fields: &[(&str, Option<f64>)]) {
        for (name, value) in fields {
            if let Some(value) = value {
                self.say(name, double(*value));
            }
        }
    }

    fn buckets(&mut self, bounds: &[f64], counts: &[u64]) {
        if counts.len() == bounds.len() + 1 {
            let names = bounds.iter().map(|bound| double(*bound)).chain([INFINITE.to_owned()]);
            let pairs = names.zip(counts).map(|(bound, count)| format!("{bound}:{count}"));
            return self.say("le", format!("[{}]", joined(pairs)));
        }
        if !bounds.is_empty() {
            self.say("bounds", format!("[{}]", joined(bounds.iter().map(|bound| double(*bound)))));
        }
        if !counts.is_empty() {
            self.say("counts", format!("[{}]", joined(counts.iter())));
        }
    }
}

fn joined(items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// A number that may be either, so that a double always shows.
pub fn number(value: Number) -> String {
    match value {
        Number::AsInt(int) => int.to_string(),
        Number::AsDouble(double) => format!("{double:?}"),
    }
}

/// A number that is a double wherever it stands.
fn double(value: f64) -> String {
    let text = format!("{value:?}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}
