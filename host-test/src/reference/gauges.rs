//! A folded gauge: the function over the last values of its members at the end of each window.
//!
//! In: points of many streams. Out: a point for each window as long as somebody is a member. Every value is kept and every window computed from all of them: slow and plain. A member is a stream whose last value is not older
//! than the expiry at the window's end and that has not said that it has ended. Refuses values whose window has closed. What it leaves out: switches, `avg`.

use super::StreamKey;
use super::otlp::Emitted;
use super::plan::{Function, ReferenceFold};
use super::quantity::{Amount, Quantity, as_double};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use std::collections::BTreeMap;

/// How long after its last point the stale marker of a series stands: the least that every backend tells apart.
const STALE_AFTER_NS: u64 = 1_000_000;

/// One folded gauge.
#[derive(Debug, Default)]
pub struct GaugeSeries {
    fold: ReferenceFold,
    /// Of its metric, as the last point said.
    pub description: String,
    /// By time; none is an end.
    values: BTreeMap<StreamKey, BTreeMap<u64, Option<Value>>>,
    /// Every window that ends here or before has closed.
    closed_until_ns: u64,
    /// The last window had a point.
    is_there: bool,
}

impl GaugeSeries {
    /// One that holds nothing.
    pub fn new(fold: ReferenceFold) -> Self {
        Self { fold, ..Self::default() }
    }

    /// Takes a value, or an end. Says whether it came in time.
    pub fn take(
        &mut self,
        stream: &StreamKey,
        time_ns: u64,
        quantity: Option<&Quantity>,
        now_ns: u64,
    ) -> bool {
        let closed_ns =
            self.fold.window_of(now_ns.saturating_sub(self.fold.delay_ns)).max(self.closed_until_ns);
        if self.fold.window_of(time_ns - 1) < closed_ns {
            return false;
        }
        let value = quantity.and_then(|q| if let Quantity::Number(value) = q { Some(*value) } else { None });
        self.values.entry(stream.clone()).or_default().entry(time_ns).or_insert(value);
        true
    }

    /// Closes every window whose end plus delay has come.
    pub fn close(&mut self, now_ns: u64) -> Vec<Emitted> {
        let mut points = Vec::new();
        let until_ns = self.fold.window_of(now_ns.saturating_sub(self.fold.delay_ns));
        let Some(first_ns) = self.values.values().filter_map(|of| of.keys().next()).min() else {
            return points;
        };
        let mut window_ns = self.fold.window_of(first_ns - 1).max(self.closed_until_ns);
        while window_ns < until_ns {
            let end_ns = window_ns + self.fold.window_ns;
            let members = self.members(end_ns);
            if let Some(value) = self.function(&members) {
                let mut amount = Amount::default();
                amount.add(&Quantity::Number(value));
                let is_double = matches!(value, Value::AsDouble(_));
                points.push(Emitted { start_ns: 0, time_ns: end_ns, amount: Some(amount), is_double });
            } else if self.is_there {
                let time_ns = window_ns + STALE_AFTER_NS;
                points.push(Emitted { start_ns: 0, time_ns, amount: None, is_double: false });
            }
            self.is_there = !members.is_empty();
            window_ns = end_ns;
        }
        self.closed_until_ns = self.closed_until_ns.max(until_ns);
        points
    }

    /// Last values with their times.
    fn members(&self, end_ns: u64) -> Vec<(u64, Value)> {
        let last = |of: &BTreeMap<u64, Option<Value>>| {
            let (time_ns, value) = of.range(..=end_ns).next_back()?;
            Some((*time_ns, (*value)?)).filter(|_| end_ns - time_ns <= self.fold.value_expiry_ns)
        };
        self.values.values().filter_map(last).collect()
    }

    fn function(&self, members: &[(u64, Value)]) -> Option<Value> {
        let newest = members.iter().max_by_key(|(time_ns, _)| *time_ns)?;
        let is_int = members.iter().all(|(_, value)| matches!(value, Value::AsInt(_)));
        let typed = |x: f64| if is_int { Value::AsInt(x as i64) } else { Value::AsDouble(x) };
        let doubles = || members.iter().map(|(_, value)| as_double(*value));
        Some(match self.fold.gauge? {
            Function::Sum => {
                let mut sum = Amount::default();
                members.iter().for_each(|(_, value)| sum.add(&Quantity::Number(*value)));
                match i64::try_from(sum.total.ints) {
                    Ok(ints) if is_int => Value::AsInt(ints),
                    _ => Value::AsDouble(sum.total.approximate()),
                }
            }
            Function::Min => typed(doubles().fold(f64::INFINITY, f64::min)),
            Function::Max => typed(doubles().fold(f64::NEG_INFINITY, f64::max)),
            Function::Last => newest.1,
            Function::Count => Value::AsInt(members.len() as i64),
        })
    }
}
