//! Gauges and up-down counters: is every folded value what the raw ones make of it?
//!
//! In: what was sent and what arrived of one metric, and the declared function. Out: how many values were compared, and what is wrong. A fold of last values has no total to
//! conserve; so each folded point is held against the function over the last values, at its time, of the streams that it stands for. Windows lie on their grid and none is left out.
//! Limit: `avg` writes two metrics of other names and is not judged here.

use super::Labels;
use crate::sink::books::Side;
use crate::sink::exact::{DOUBLE_TOLERANCE, DoubleSum};
use crate::sink::series::{Sample, Series, Value};
use std::collections::BTreeMap;

/// How last values are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Their sum.
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The newest.
    Last,
    /// How many there are.
    Count,
}

/// What a fold of last values is held to.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// The function.
    pub function: Function,
    /// Width of its windows.
    pub window_ns: u64,
    /// Windows begin so long after multiples of their width.
    pub offset_ns: u64,
    /// How long the last value of a silent stream stands.
    pub expiry_ns: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Folded values.
    pub values: u64,
    /// Of those, what the raw ones make.
    pub equal: u64,
    /// What is wrong.
    pub failures: Vec<String>,
}

/// Compares every folded point. The two functions give the series of a raw stream, and that of a folded one.
pub fn compare(
    (sent, received): (&Side, &Side),
    declared: Declared,
    series_of: impl Fn(&Labels, &Labels) -> String,
    stored: impl Fn(&Labels, &Labels) -> String,
) -> Compared {
    let mut members: BTreeMap<String, Vec<Vec<Sample>>> = BTreeMap::new();
    for stream in sent.series.values() {
        let mut samples = stream.samples.clone();
        samples.sort_by_key(|sample| sample.time_ns);
        members.entry(series_of(&stream.resource, &stream.point)).or_default().push(samples);
    }
    let mut out = Compared::default();
    for series in received.series.values() {
        let key = stored(&series.resource, &series.point);
        let streams = members.get(&key).map(Vec::as_slice).unwrap_or_default();
        windows(series, &key, declared, &mut out);
        for sample in series.samples.iter().filter(|sample| sample.value != Value::None) {
            out.values += 1;
            let expected = declared.at(streams, sample.time_ns);
            if expected.is_some_and(|expected| is_same(expected, sample.value)) {
                out.equal += 1;
            } else {
                let time_ns = sample.time_ns;
                out.failures.push(format!("{key} at {time_ns}: {:?}, not {expected:?}", sample.value));
            }
        }
    }
    out
}

/// Points stand at the ends of windows, one after the other, until a stale marker.
fn windows(series: &Series, key: &str, declared: Declared, out: &mut Compared) {
    let mut last_ns = None;
    for sample in &series.samples {
        if sample.value == Value::None {
            last_ns = None;
            continue;
        }
        let is_aligned = sample.time_ns.saturating_sub(declared.offset_ns).is_multiple_of(declared.window_ns);
        let follows = last_ns.is_none_or(|last_ns: u64| last_ns + declared.window_ns == sample.time_ns);
        if !is_aligned || !follows {
            out.failures.push(format!(
                "{key} at {}: no end of a window, or not the next, after {last_ns:?}",
                sample.time_ns
            ));
        }
        last_ns = Some(sample.time_ns);
    }
}

impl Declared {
    /// The function over the streams' last values at a time; none without members.
    fn at(self, streams: &[Vec<Sample>], time_ns: u64) -> Option<Value> {
        let mut members: Vec<Sample> =
            streams.iter().filter_map(|samples| self.last(samples, time_ns)).collect();
        members.sort_by_key(|sample| sample.time_ns);
        let newest = members.last()?;
        let least = |a: &Value, b: &Value| number(*a).total_cmp(&number(*b));
        let values = members.iter().map(|sample| sample.value);
        match self.function {
            Function::Count => i64::try_from(members.len()).ok().map(Value::Int),
            Function::Last => Some(newest.value),
            Function::Min => values.min_by(least),
            Function::Max => values.max_by(least),
            Function::Sum => Some(sum(values)),
        }
    }

    fn last(self, samples: &[Sample], time_ns: u64) -> Option<Sample> {
        let until = samples.partition_point(|sample| sample.time_ns <= time_ns);
        let last = samples[..until].last()?;
        let stands = last.value != Value::None && time_ns - last.time_ns <= self.expiry_ns;
        stands.then_some(*last)
    }
}

fn sum(values: impl Iterator<Item = Value>) -> Value {
    let (mut ints, mut doubles, mut is_double) = (0_i64, DoubleSum::default(), false);
    for value in values {
        if let Value::Int(int) = value {
            ints = ints.saturating_add(int);
        } else {
            is_double = true;
        }
        doubles.add(number(value));
    }
    if is_double { Value::Double(doubles.value()) } else { Value::Int(ints) }
}

fn number(value: Value) -> f64 {
    match value {
        Value::Int(int) => int as f64,
        Value::Double(double) => double,
        Value::Distribution | Value::None => f64::NAN,
    }
}

/// Integers exactly, doubles to their tolerance.
fn is_same(expected: Value, found: Value) -> bool {
    match (expected, found) {
        (Value::Double(a), Value::Double(b)) => (a - b).abs() <= DOUBLE_TOLERANCE * a.abs().max(b.abs()),
        (expected, found) => expected == found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::identity::Labels;
    use crate::sink::series::Kind;

    const SUM: Declared = Declared { function: Function::Sum, window_ns: 10, offset_ns: 0, expiry_ns: 25 };

    /// Time and value; none: an end.
    type Given<'a> = &'a [(u64, Option<i64>)];

    fn series(pod: &str, samples: Given<'_>) -> Series {
        let sample = |&(time_ns, value): &(u64, Option<i64>)| Sample {
            start_ns: 0,
            time_ns,
            value: value.map_or(Value::None, Value::Int),
        };
        let point = Labels::from([("pod".to_owned(), pod.to_owned())]);
        let samples = samples.iter().map(sample).collect();
        Series { kind: Kind::Gauge, resource: Labels::new(), point, samples, distributions: Vec::new() }
    }

    fn side(list: &[(&str, Given<'_>)]) -> Side {
        let mut side = Side::default();
        for (pod, samples) in list {
            side.series.insert((*pod).to_owned(), series(pod, samples));
        }
        side
    }

    fn found(declared: Declared, folded: Given<'_>) -> (u64, u64, usize) {
        // b ends at 25; a's last value, at 18, stands until 43.
        let sent = side(&[("a", &[(5, Some(3)), (18, Some(4))]), ("b", &[(9, Some(7)), (25, None)])]);
        let received = side(&[("", folded)]);
        let one = |_: &Labels, _: &Labels| String::new();
        let out = compare((&sent, &received), declared, one, one);
        (out.values, out.equal, out.failures.len())
    }

    #[test]
    fn values_are_held_to_the_last_ones() {
        let right = [(10, Some(10)), (20, Some(11)), (30, Some(4)), (40, Some(4)), (41, None)];
        assert_eq!(found(SUM, &right), (4, 4, 0));
        let of = |function, value| found(Declared { function, ..SUM }, &[(20, Some(value))]);
        for (function, value) in
            [(Function::Min, 4), (Function::Max, 7), (Function::Last, 4), (Function::Count, 2)]
        {
            assert_eq!(of(function, value), (1, 1, 0), "{function:?}");
            assert_eq!(of(function, value + 1), (1, 0, 1), "{function:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_seen() {
        assert_eq!(found(SUM, &[(10, Some(9))]), (1, 0, 1), "another value");
        assert_eq!(found(SUM, &[(10, Some(10)), (30, Some(4))]), (2, 2, 1), "a window is missing");
        assert_eq!(found(SUM, &[(9, Some(10))]), (1, 1, 1), "off the grid");
        assert_eq!(found(SUM, &[(50, Some(4))]), (1, 0, 1), "nobody is a member any more");
    }
}
