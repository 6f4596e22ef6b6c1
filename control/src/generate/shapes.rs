//! How labels behave: which values there are, how much traffic each has, which ones come and go.
//!
//! Enters: the labels of a metric. Leaves: for a stream's number the label values, its part of the traffic, and whether its value has been replaced by now. Streams of a
//! pod are distinct by construction: each has a tuple of values of its own (a walk through all tuples with a step that is prime to their number, so that
//! few streams still touch every label's values), a generation for churn, or a number of its own among the runaways. Nothing is drawn: the same
//! number always has the same labels.

use super::scenario::{Label, Metric, Values};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

/// Capacities are counted up to here; no scenario has as many streams.
const CAPACITY_MAX: u64 = 1 << 40;
/// The golden ratio's fraction: its multiples are spread evenly, so churn hits a few streams at a time.
const GOLDEN: f64 = 0.618_033_988_749_894_9;
/// A minute.
const MINUTE_NS: f64 = 60e9;

/// Who a stream is among those of its pod and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its tuple of values.
    pub tuple: u64,
    /// How often the value of its churning label was replaced.
    pub generation: u64,
    /// Its number among the runaways.
    pub runaway: Option<u64>,
}

/// The labels of one metric.
pub struct Shape {
    labels: Vec<LabelShape>,
    capacity: u64,
    stride: u64,
    /// The label that churns, and the share of streams a minute.
    churn: Option<(usize, f64)>,
    /// The label that runs away, from when, values a second, values at most.
    runaway: Option<(usize, u64, f64, u64)>,
}

struct LabelShape {
    key: String,
    /// What values that are only counted are called.
    stem: String,
    values: Values,
    /// Of each value: its traffic, where an average one has 1.
    weights: Vec<f64>,
}

impl Shape {
    /// The labels of a metric.
    pub fn new(metric: &Metric) -> Shape {
        let labels: Vec<LabelShape> = metric.labels.iter().map(LabelShape::new).collect();
        let capacity = metric
            .labels
            .iter()
            .fold(1u64, |product, label| (product * u64::from(label.values.len())).min(CAPACITY_MAX));
        let churn = metric.labels.iter().position(|label| label.churn > 0.0);
        let runaway = metric.labels.iter().enumerate().find_map(|(index, label)| {
            let runaway = label.runaway.as_ref()?;
            Some((index, runaway.after.as_nanos(), runaway.per_second, runaway.max))
        });
        Shape {
            labels,
            capacity,
            stride: stride(capacity),
            churn: churn.map(|index| (index, metric.labels[index].churn)),
            runaway,
        }
    }

    /// Distinct tuples.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The tuple of a stream's number.
    pub fn tuple(&self, number: u64) -> u64 {
        (u128::from(number % self.capacity) * u128::from(self.stride) % u128::from(self.capacity)) as u64
    }

    /// The part of the traffic that a tuple has; 1 on average.
    pub fn weight(&self, tuple: u64) -> f64 {
        self.indices(tuple).map(|(label, index)| label.weights[index]).product()
    }

    /// How often the value of stream `number` of `pod` has been replaced at `at_ns`; not at all at 0.
    pub fn generation(&self, pod: u64, number: u64, at_ns: u64) -> u64 {
        let Some((_, per_minute)) = self.churn else { return 0 };
        let phase = ((number as f64 + 1.0) * GOLDEN + pod as f64 * GOLDEN * GOLDEN).fract();
        (at_ns as f64 / MINUTE_NS * per_minute + phase) as u64
    }

    /// Runaway values that exist at `at_ns`, over all pods.
    pub fn runaways(&self, at_ns: u64) -> u64 {
        let Some((_, after_ns, per_second, max)) = self.runaway else { return 0 };
        if at_ns < after_ns {
            return 0;
        }
        ((at_ns - after_ns) as f64 / 1e9 * per_second).min(max as f64) as u64
    }

    /// The labels of a stream.
    pub fn attributes(&self, who: &Who) -> Vec<KeyValue> {
        let named = self.indices(who.tuple).enumerate().map(|(position, (label, index))| {
            let is = |of: Option<usize>| of == Some(position);
            let text = match who.runaway {
                Some(number) if is(self.runaway.map(|of| of.0)) => format!("{}-x{number}", label.stem),
                _ if who.generation > 0 && is(self.churn.map(|of| of.0)) => {
                    format!("{}-g{}", label.value(index), who.generation)
                }
                _ => label.value(index),
            };
            attribute(&label.key, text)
        });
        named.collect()
    }

    /// Of each label: the index of its value in a tuple.
    fn indices(&self, tuple: u64) -> impl Iterator<Item = (&LabelShape, usize)> {
        let mut rest = tuple;
        self.labels.iter().map(move |label| {
            let count = label.weights.len() as u64;
            let index = rest % count;
            rest /= count;
            (label, index as usize)
        })
    }
}

impl LabelShape {
    fn new(label: &Label) -> LabelShape {
        let count = label.values.len();
        let raw: Vec<f64> = (1..=count).map(|rank| f64::from(rank).powf(-label.zipf)).collect();
        let mean = raw.iter().sum::<f64>() / f64::from(count);
        LabelShape {
            key: label.name.clone(),
            stem: label.name.rsplit('.').next().unwrap_or(&label.name).to_owned(),
            values: label.values.clone(),
            weights: raw.into_iter().map(|weight| weight / mean).collect(),
        }
    }

    fn value(&self, index: usize) -> String {
        match &self.values {
            Values::Count(_) => format!("{}-{index}", self.stem),
            Values::List(list) => list[index].clone(),
        }
    }
}

/// A string attribute.
pub fn attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// A step near the golden part of `capacity` that shares no divisor with it.
fn stride(capacity: u64) -> u64 {
    let from = ((capacity as f64 * GOLDEN) as u64).max(1);
    (1..=from).rev().find(|step| gcd(*step, capacity) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::scenario::read;
    use std::collections::BTreeSet;

    fn shape(labels: &str) -> Shape {
        let text =
            format!("metrics: [{{ name: m, type: sum, labels: {labels} }}]\nservices: [{{ name: s }}]");
        let scenario = read(&text, "test").unwrap();
        scenario.check().unwrap();
        Shape::new(&scenario.metrics[0])
    }

    fn text(shape: &Shape, who: Who) -> String {
        let value = |kv: &KeyValue| match kv.value.as_ref().and_then(|v| v.value.clone()) {
            Some(Value::StringValue(text)) => text,
            other => panic!("{other:?}"),
        };
        shape
            .attributes(&who)
            .iter()
            .map(|kv| format!("{}={}", kv.key, value(kv)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn streams_are_distinct_and_touch_every_value() {
        for labels in ["[{name: a, values: 7}, {name: b, values: 9}]", "[{name: a, values: 1}]", "[]"] {
            let shape = shape(labels);
            let tuples: BTreeSet<u64> = (0..shape.capacity()).map(|n| shape.tuple(n)).collect();
            assert_eq!(tuples.len() as u64, shape.capacity(), "{labels}");
        }
        let shape = shape("[{name: a.route, values: 7}, {name: b, values: [x, y, z]}]");
        let few: BTreeSet<String> = (0..9)
            .map(|n| text(&shape, Who { tuple: shape.tuple(n), generation: 0, runaway: None }))
            .collect();
        for value in ["a.route=route-0 ", "a.route=route-6 ", "b=x", "b=z"] {
            assert!(few.iter().any(|labels| labels.contains(value)), "{value}: {few:?}");
        }
    }

    #[test]
    fn zipf_gives_the_first_value_more_and_keeps_the_mean() {
        let shape = shape("[{name: a, values: 10, zipf: 1}]");
        let weights: Vec<f64> = (0..10).map(|tuple| shape.weight(tuple)).collect();
        assert!((weights.iter().sum::<f64>() - 10.0).abs() < 1e-9);
        assert!((weights[0] / weights[9] - 10.0).abs() < 1e-9, "rank 1 has ten times what rank 10 has");
    }

    #[test]
    fn churn_replaces_the_share_it_says() {
        let shape = shape("[{name: a, values: 1000, churn: 0.25}]");
        let replaced =
            |at_s: u64| -> u64 { (0..1000).map(|n| shape.generation(3, n, at_s * 1_000_000_000)).sum() };
        assert_eq!(replaced(0), 0);
        for (at_s, expected) in [(60, 250), (120, 500), (240, 1000)] {
            assert!(replaced(at_s).abs_diff(expected) <= 2, "{at_s} s: {}", replaced(at_s));
        }
        assert_eq!(text(&shape, Who { tuple: 4, generation: 2, runaway: None }), "a=a-4-g2");
    }

    #[test]
    fn a_runaway_begins_when_it_says_and_stays_below_its_maximum() {
        let shape = shape("[{name: q, values: 3, runaway: {after: 10s, per_second: 5, max: 40}}]");
        let at = |s: u64| shape.runaways(s * 1_000_000_000);
        assert_eq!([at(0), at(9), at(10), at(11), at(12), at(100)], [0, 0, 0, 5, 10, 40]);
        assert_eq!(text(&shape, Who { tuple: 1, generation: 0, runaway: Some(7) }), "q=q-x7");
    }
}
