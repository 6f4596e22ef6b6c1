//! What the streams of ranked metrics weigh, as one worker sees it.
//!
//! In: the value of every point, raw or folded. Out: once a generation the heaviest streams of each metric, and the sum of the rest. A cumulative
//! value weighs by its increments, which are what one worker's points span; a delta weighs by its sum; a gauge by its last value. Bounded by
//! [`RANKED_STREAMS_MAX`]: streams beyond it are not ranked, and counted. Cost: one look into a table a point.

use super::state::ByHalf;
use crate::limits::RANKED_STREAMS_MAX;
use phoenix_plan::{TopK, order};

/// How values of a stream become its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighs {
    /// By the increments of a value that grows.
    Growth,
    /// By the sum of its values.
    Sum,
    /// By the last value.
    Value,
}

/// A point, as far as it weighs.
#[derive(Clone, Copy, Debug)]
pub struct Weighed {
    /// Start time, in nanoseconds; 0: none.
    pub start_ns: u64,
    /// Time.
    pub time_ns: u64,
    /// Value, or how many observations.
    pub value: f64,
    /// How.
    pub how: Weighs,
}

#[derive(Clone, Copy)]
struct Stream {
    start_ns: u64,
    time_ns: u64,
    last: f64,
    /// Weight in the current generation …
    now: f64,
    /// … and in the one before.
    before: f64,
    /// Seen in the current generation, in the one before.
    seen: [bool; 2],
}

/// Streams of one metric.
struct Table {
    how: TopK,
    sums: bool,
    streams: ByHalf<Stream>,
}

/// All ranked metrics.
#[derive(Default)]
pub struct Weights {
    metrics: ByHalf<Table>,
    count: usize,
    /// Points of streams that found no room to be ranked.
    pub unranked: u64,
}

impl Weights {
    /// A point.
    pub fn weigh(&mut self, metric: u64, how: &TopK, series: u64, point: &Weighed) {
        let empty = || Table { how: how.clone(), sums: point.how == Weighs::Sum, streams: ByHalf::default() };
        let table = self.metrics.entry(metric).or_insert_with(empty);
        if table.how != *how {
            table.how = how.clone();
        }
        let Some(it) = table.streams.get_mut(&series) else {
            if self.count >= RANKED_STREAMS_MAX {
                self.unranked = self.unranked.saturating_add(1);
                return;
            }
            self.count = self.count.saturating_add(1);
            // What it counted before it was met says nothing about now.
            let now = if point.how == Weighs::Growth { 0.0 } else { point.value.abs() };
            let (start_ns, time_ns) = (point.start_ns, point.time_ns);
            let it = Stream { start_ns, time_ns, last: point.value, now, before: 0.0, seen: [true, false] };
            table.streams.insert(series, it);
            return;
        };
        it.seen = [true, it.seen.get(1).copied().unwrap_or(false)];
        if point.how == Weighs::Sum {
            // In whichever order deltas come, each counts.
            it.now += point.value.abs();
            return;
        }
        if point.time_ns <= it.time_ns {
            return;
        }
        it.time_ns = point.time_ns;
        if point.how == Weighs::Value {
            (it.last, it.now) = (point.value, point.value.max(0.0));
            return;
        }
        let has_restarted = point.start_ns > it.start_ns && it.start_ns > 0 || point.value < it.last;
        it.now += if has_restarted { point.value } else { point.value - it.last };
        (it.start_ns, it.last) = (point.start_ns.max(it.start_ns), point.value);
    }

    /// A generation has gone by.
    pub fn turn(&mut self) {
        for table in self.metrics.values_mut() {
            table.streams.retain(|_, it| {
                it.before = core::mem::take(&mut it.now);
                let [now, before] = it.seen;
                it.seen = [false, now];
                now || before
            });
        }
        self.metrics.retain(|_, table| !table.streams.is_empty());
        self.count = self.metrics.values().fold(0, |sum, table| sum.saturating_add(table.streams.len()));
    }

    /// Forget everything: identities are others.
    pub fn clear(&mut self) {
        *self = Weights::default();
    }

    /// Metrics, each with what is to be said about the generation before the current one.
    pub fn said(&self) -> impl Iterator<Item = (u64, Said)> + '_ {
        self.metrics.iter().map(|(metric, table)| (*metric, Said::of(table)))
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        let tables = self.metrics.values().map(|table| table.streams.allocation_size());
        tables.fold(self.metrics.allocation_size(), usize::saturating_add)
    }
}

/// What a worker says about a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// What the plan wants, as this worker knows it.
    pub how: TopK,
    /// Weights of one stream in two workers add up; else the larger one is the stream's.
    pub sums: bool,
    /// Streams and their weights, heaviest first.
    pub heaviest: Vec<(u64, f64)>,
    /// Weight of all others.
    pub rest: f64,
}

impl Said {
    fn of(table: &Table) -> Said {
        let mut all: Vec<(u64, f64)> =
            table.streams.iter().map(|(series, it)| (*series, it.before)).collect();
        all.retain(|(_, weight)| *weight > 0.0);
        order::sort_by(&mut all, |(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
        let most = usize::try_from(table.how.k_max().saturating_mul(2)).unwrap_or(usize::MAX);
        let rest = all.get(most..).unwrap_or_default().iter().fold(0.0, |sum, (_, weight)| sum + weight);
        all.truncate(most);
        Said { how: table.how.clone(), sums: table.sums, heaviest: all, rest }
    }

    /// As shared data holds it.
    pub fn write(&self, generation: u64) -> Vec<u8> {
        let mut out = generation.to_le_bytes().to_vec();
        let how = &self.how;
        for word in [how.k, how.k_max(), how.coverage_percent.unwrap_or(0), u32::from(self.sums)] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.rest.to_bits().to_le_bytes());
        for (series, weight) in &self.heaviest {
            out.extend_from_slice(&series.to_le_bytes());
            out.extend_from_slice(&weight.to_bits().to_le_bytes());
        }
        out
    }

    /// None: it is of another generation.
    pub fn read(bytes: &[u8], generation: u64) -> Option<Said> {
        let (number, mut rest) = bytes.split_first_chunk::<8>()?;
        if u64::from_le_bytes(*number) != generation {
            return None;
        }
        let mut words = [0_u32; 4];
        for word in &mut words {
            let (bytes, after) = rest.split_first_chunk::<4>()?;
            (*word, rest) = (u32::from_le_bytes(*bytes), after);
        }
        let [k, k_max, percent, sums] = words;
        let (light, mut rest) = rest.split_first_chunk::<8>()?;
        let light = f64::from_bits(u64::from_le_bytes(*light));
        let mut heaviest = Vec::with_capacity(rest.len() / 16);
        while let Some((series, after)) = rest.split_first_chunk::<8>() {
            let Some((weight, after)) = after.split_first_chunk::<8>() else { break };
            heaviest.push((u64::from_le_bytes(*series), f64::from_bits(u64::from_le_bytes(*weight))));
            rest = after;
        }
        let how = TopK { k, coverage_percent: (percent > 0).then_some(percent), k_max: Some(k_max) };
        Some(Said { how, sums: sums != 0, heaviest, rest: light })
    }
}

/// What all workers said about a metric, in one.
pub struct Merged {
    /// What the plan wants.
    pub how: TopK,
    /// Weights by stream.
    pub weights: ByHalf<f64>,
    /// Weight of all streams. Where a stream without a place in a worker's list comes by several workers, it counts once for each.
    pub total: f64,
}

impl Merged {
    /// None: nobody said anything.
    pub fn of(all: impl Iterator<Item = Said>) -> Option<Merged> {
        let mut out: Option<Merged> = None;
        for said in all {
            let Said { how, sums, heaviest, rest } = said;
            let it = out.get_or_insert_with(|| Merged { how, weights: ByHalf::default(), total: 0.0 });
            it.total += rest;
            for (series, weight) in heaviest {
                let known = it.weights.entry(series).or_default();
                let more = if sums { weight } else { (weight - *known).max(0.0) };
                *known += more;
                it.total += more;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: TopK = TopK { k: 1, coverage_percent: None, k_max: Some(2) };

    fn point(start_ns: u64, time_ns: u64, value: f64, how: Weighs) -> Weighed {
        Weighed { start_ns, time_ns, value, how }
    }

    /// The weight of one stream after a generation of these points.
    fn weight(how: Weighs, points: &[(u64, u64, f64)]) -> f64 {
        let mut weights = Weights::default();
        for &(start, time, value) in points {
            weights.weigh(1, &HOW, 7, &point(start, time, value, how));
        }
        weights.turn();
        weights.said().next().unwrap().1.heaviest.first().map_or(0.0, |(_, weight)| *weight)
    }

    #[test]
    fn values_become_weights() {
        assert_eq!(weight(Weighs::Growth, &[(1, 10, 100.0), (1, 20, 103.0), (1, 30, 110.0)]), 10.0);
        assert_eq!(
            weight(Weighs::Growth, &[(1, 10, 100.0), (1, 20, 4.0), (1, 30, 5.0)]),
            5.0,
            "fell: a restart"
        );
        assert_eq!(weight(Weighs::Growth, &[(1, 10, 100.0), (15, 20, 101.0)]), 101.0, "another start");
        assert_eq!(
            weight(Weighs::Growth, &[(1, 20, 103.0), (1, 10, 100.0), (1, 20, 103.0)]),
            0.0,
            "late, repeated"
        );
        assert_eq!(weight(Weighs::Sum, &[(1, 20, 3.0), (1, 10, 4.0)]), 7.0);
        assert_eq!(weight(Weighs::Value, &[(0, 10, 9.0), (0, 20, 3.0), (0, 15, 7.0)]), 3.0);
    }

    #[test]
    fn a_generation_is_said_after_it_and_forgotten_after_the_next() {
        let mut weights = Weights::default();
        weights.weigh(1, &HOW, 7, &point(1, 10, 5.0, Weighs::Sum));
        assert!(weights.said().next().unwrap().1.heaviest.is_empty(), "not over yet");
        weights.turn();
        assert_eq!(weights.said().next().unwrap().1.heaviest, [(7, 5.0)]);
        weights.turn();
        assert!(weights.said().next().unwrap().1.heaviest.is_empty());
        weights.turn();
        assert_eq!((weights.said().count(), weights.count), (0, 0));
    }

    #[test]
    fn workers_are_put_together() {
        let said =
            |sums, heaviest: &[(u64, f64)], rest| Said { how: HOW, sums, heaviest: heaviest.to_vec(), rest };
        for (sums, expect, total) in [(true, 11.0, 20.0), (false, 6.0, 15.0)] {
            let all = [said(sums, &[(1, 5.0), (2, 4.0)], 2.0), said(sums, &[(1, 6.0)], 3.0)];
            let back: Vec<Said> = all.iter().map(|it| Said::read(&it.write(9), 9).unwrap()).collect();
            assert_eq!(back, all);
            let merged = Merged::of(back.into_iter()).unwrap();
            assert_eq!((merged.weights[&1], merged.weights[&2], merged.total), (expect, 4.0, total));
        }
        assert_eq!(Said::read(&said(true, &[], 0.0).write(9), 8), None);
        assert!(Merged::of(core::iter::empty()).is_none());
    }

    #[test]
    fn the_heaviest_are_listed_and_the_rest_added_up() {
        let mut weights = Weights::default();
        for series in 0..10_u64 {
            weights.weigh(1, &HOW, series, &point(1, 10, series as f64, Weighs::Sum));
        }
        weights.turn();
        let (_, said) = weights.said().next().unwrap();
        assert_eq!(said.heaviest, [(9, 9.0), (8, 8.0), (7, 7.0), (6, 6.0)]);
        assert_eq!(said.rest, 15.0);
    }
}
