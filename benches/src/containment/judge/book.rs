//! The book of one metric of one tenant: its streams on the way in, its series on the way out, its totals, its treatment.
//!
//! In: each point of a batch with its fate, each point of an emission. Out: counts. What an increment is, the book finds out by itself: a stream's first point and its first
//! after a new start count from zero, all others from the one before.

use super::super::otlp::{Kind, Quantity, Said};
use super::super::process::Gaps;
use super::alive::Alive;
use std::collections::HashMap;

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It came out as it went in.
    Raw,
    /// It did not come out, or as a stale marker.
    Cut,
}

/// A treatment is changed by a point at this time.
#[derive(Clone, Copy, Debug)]
struct Change {
    at_ns: u64,
    contained: bool,
}

/// The last point of a stream.
struct Last {
    start_ns: u64,
    time_ns: u64,
    units: Vec<i128>,
    fate: Fate,
    worker: usize,
}

struct Stream {
    index: usize,
    is_innocent: bool,
    was_cut: bool,
    last: Option<Last>,
    /// The last point that came out: for [`Gaps::Closed`].
    raw: Option<(u64, Vec<i128>)>,
}

/// A series of emissions.
struct Folded {
    index: usize,
    last: Option<(u64, Vec<i128>)>,
}

/// Numbers that add up, each by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals(pub Vec<i128>);

impl Totals {
    fn add(&mut self, units: &[i128], sign: i128) {
        if self.0.len() < units.len() {
            self.0.resize(units.len(), 0);
        }
        self.0.iter_mut().zip(units).for_each(|(sum, unit)| *sum += sign * unit);
    }
}

/// Rules and times that all books share.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How gaps are read.
    pub gaps: Gaps,
    /// Series and streams are alive for so long after their last point.
    pub alive_ns: u64,
    /// A metric changes its treatment at most once within it.
    pub dwell_ns: u64,
    /// Streams that were there before it are innocent.
    pub explodes_ns: u64,
}

/// The book.
pub struct Book {
    rules: Rules,
    /// Whether its streams may be guilty.
    is_guilty: bool,
    /// Its points are levels.
    is_level: bool,
    streams: HashMap<Box<[u8]>, Stream>,
    outputs: HashMap<Box<[u8]>, Folded>,
    /// Streams on the way in.
    pub alive_in: Alive,
    /// Raw series on the way out: streams that passed …
    pub alive_raw: Alive,
    /// … and folded ones.
    pub alive_folded: Alive,
    change: Option<Change>,
    /// Streams that went from folded to raw and to another worker, if that was no release.
    crossed: Vec<u64>,
    /// Increments of all points that add up.
    pub came: Totals,
    /// Increments in series that passed.
    pub passed: Totals,
    /// Increments in emissions.
    pub emitted: Totals,
    /// Points cut, also as markers.
    pub cut: u64,
    /// Changes of treatment.
    pub changes: u64,
    /// Changes of treatment sooner than the dwell after the one before.
    pub flaps: u64,
    /// Streams raw on one worker and folded on another.
    pub splits: u64,
    /// Streams that were raw and are folded, on the same worker.
    pub turned: u64,
    /// What cannot be: no whole numbers, totals that fall.
    pub strange: u64,
}

impl Book {
    /// An empty one.
    pub fn new(rules: Rules, is_guilty: bool) -> Book {
        Book {
            rules,
            is_guilty,
            is_level: false,
            streams: HashMap::new(),
            outputs: HashMap::new(),
            alive_in: Alive::new(rules.alive_ns),
            alive_raw: Alive::new(rules.alive_ns),
            alive_folded: Alive::new(rules.alive_ns),
            change: None,
            crossed: Vec::new(),
            came: Totals::default(),
            passed: Totals::default(),
            emitted: Totals::default(),
            cut: 0,
            changes: 0,
            flaps: 0,
            splits: 0,
            turned: 0,
            strange: 0,
        }
    }

    /// Innocent streams, and those among them that ever lost a point.
    pub fn innocent(&self) -> (u64, u64) {
        let innocent = self.streams.values().filter(|stream| stream.is_innocent);
        innocent.fold((0, 0), |(all, cut), stream| (all + 1, cut + u64::from(stream.was_cut)))
    }

    /// A point of a batch that came at `now_ns`.
    pub fn point(&mut self, said: &Said<'_>, fate: Fate, worker: usize, now_ns: u64) {
        let Quantity::Units(units) = &said.quantity else {
            // No scenario ends a stream or counts in fractions.
            self.strange += 1;
            return;
        };
        self.is_level = said.kind == Kind::Gauge;
        let next = self.streams.len();
        if !self.streams.contains_key(said.key) {
            let is_innocent = !self.is_guilty || now_ns < self.rules.explodes_ns;
            let stream = Stream { index: next, is_innocent, was_cut: false, last: None, raw: None };
            self.streams.insert(said.key.into(), stream);
        }
        let Some(stream) = self.streams.get_mut(said.key) else { return };
        self.alive_in.see(stream.index, now_ns);
        if fate == Fate::Raw {
            self.alive_raw.see(stream.index, now_ns);
        } else {
            self.cut += 1;
            stream.was_cut = true;
        }
        // Totals.
        let since = |start_ns: u64, before: &Option<(u64, &[i128])>| -> Vec<i128> {
            match before {
                Some((start, last)) if *start == start_ns => {
                    units.iter().zip(last.iter()).map(|(now, last)| now - last).collect()
                }
                _ => units.clone(),
            }
        };
        let before = stream.last.as_ref().map(|last| (last.start_ns, last.units.as_slice()));
        let increment = match said.kind {
            Kind::Gauge => Vec::new(),
            Kind::Delta => units.clone(),
            Kind::Cumulative => since(said.start_ns, &before),
        };
        self.strange += u64::from(increment.iter().any(|units| *units < 0));
        self.came.add(&increment, 1);
        let was = stream.last.as_ref().map(|last| (last.fate, last.worker, last.time_ns));
        if fate == Fate::Raw {
            match (said.kind, self.rules.gaps) {
                (Kind::Cumulative, Gaps::Closed) => {
                    let raw = stream.raw.as_ref().map(|(start, units)| (*start, units.as_slice()));
                    self.passed.add(&since(said.start_ns, &raw), 1);
                    stream.raw = Some((said.start_ns, units.clone()));
                }
                // What was counted since a point that folded is in the fold: the raw series begins here.
                (Kind::Cumulative, Gaps::Folded) if was.is_some_and(|(fate, ..)| fate == Fate::Cut) => {}
                _ => self.passed.add(&increment, 1),
            }
        }
        stream.last =
            Some(Last { start_ns: said.start_ns, time_ns: said.time_ns, units: units.clone(), fate, worker });
        self.treat(said.time_ns, fate, worker, was);
    }

    /// Is the metric contained, and does every worker know it?
    fn treat(&mut self, at_ns: u64, fate: Fate, worker: usize, was: Option<(Fate, usize, u64)>) {
        let was = was.filter(|(.., time_ns)| time_ns + self.rules.alive_ns > at_ns);
        let moved = was.is_some_and(|(_, before, _)| before != worker);
        let is_contained = self.change.is_some_and(|change| change.contained);
        let is_newer = self.change.is_none_or(|change| at_ns > change.at_ns);
        match (fate, was.map(|(fate, ..)| fate)) {
            (Fate::Cut, before) => {
                if before == Some(Fate::Raw) {
                    // An admitted stream stays raw, whoever sees it.
                    self.splits += u64::from(moved);
                    self.turned += u64::from(!moved);
                }
                let dwell_ns = self.rules.dwell_ns;
                let recent = |crossed_ns: &&u64| **crossed_ns < at_ns && **crossed_ns + dwell_ns > at_ns;
                self.splits += self.crossed.iter().filter(recent).count() as u64;
                self.crossed.retain(|crossed_ns| *crossed_ns >= at_ns);
                if !is_contained && is_newer {
                    self.changed(at_ns, true);
                }
            }
            (Fate::Raw, Some(Fate::Cut)) => {
                if moved {
                    self.crossed.push(at_ns);
                }
                if is_contained && is_newer {
                    self.changed(at_ns, false);
                }
            }
            (Fate::Raw, _) => {}
        }
    }

    fn changed(&mut self, at_ns: u64, contained: bool) {
        let before = self.change.replace(Change { at_ns, contained });
        self.changes += 1;
        self.flaps += u64::from(before.is_some_and(|change| at_ns < change.at_ns + self.rules.dwell_ns));
    }

    /// A point of an emission that came at `now_ns`.
    pub fn folded(&mut self, said: &Said<'_>, now_ns: u64) {
        if !self.outputs.contains_key(said.key) {
            let index = self.outputs.len();
            self.outputs.insert(said.key.into(), Folded { index, last: None });
        }
        let Some(series) = self.outputs.get_mut(said.key) else { return };
        let units = match &said.quantity {
            Quantity::Ended => {
                if said.kind == Kind::Gauge {
                    series.last = None;
                }
                return self.alive_folded.end(series.index);
            }
            Quantity::Inexact => {
                self.strange += 1;
                return;
            }
            Quantity::Units(units) => units,
        };
        self.alive_folded.see(series.index, now_ns);
        match said.kind {
            Kind::Gauge => series.last = Some((0, units.clone())),
            Kind::Delta => self.emitted.add(units, 1),
            Kind::Cumulative => {
                self.emitted.add(units, 1);
                if let Some((_, last)) =
                    series.last.as_ref().filter(|(start_ns, _)| *start_ns == said.start_ns)
                {
                    self.emitted.add(last, -1);
                    self.strange += u64::from(units.iter().zip(last).any(|(now, last)| now < last));
                }
                series.last = Some((said.start_ns, units.clone()));
            }
        }
    }

    /// How far the totals are apart, and how much there was. Levels do not add up over time, but what all streams last said must be what all series last said.
    pub fn error(&self) -> (i128, i128) {
        let (mut came, mut apart) = (self.came.clone(), self.came.clone());
        apart.add(&self.passed.0, -1);
        apart.add(&self.emitted.0, -1);
        for last in self.streams.values().filter_map(|stream| stream.last.as_ref()).filter(|_| self.is_level)
        {
            came.add(&last.units, 1);
            if last.fate == Fate::Cut {
                apart.add(&last.units, 1);
            }
        }
        for (_, units) in
            self.outputs.values().filter_map(|series| series.last.as_ref()).filter(|_| self.is_level)
        {
            apart.add(units, -1);
        }
        (apart.0.iter().map(|units| units.abs()).sum(), came.0.iter().sum())
    }
}
