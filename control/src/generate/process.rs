//! One emulated process: who it is, what its streams stand at, what it exports.
//!
//! Enters: a time of the run. Leaves: the points of one export. A process appears under a new name at each deploy wave, with every stream from zero; a stream whose label
//! churns ends and another begins; a runaway's streams are added as they come up, each to one of the pods. Cumulative streams are all exported each
//! time, as SDKs do; of delta streams those that moved. What is drawn depends on the seed, the process and the number of the export, and on nothing else.

use super::deal::Slot;
use super::point::{Grown, State, fresh, grow, is_delta};
use super::scenario::{Diurnal, Kind, Scenario};
use super::shapes::{Shape, Who, attribute};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::f64::consts::TAU;
use std::hash::Hasher;

/// Exports of one process that have a generator of their own: more than a run of a year at an interval of a second.
const EXPORTS_MAX: u64 = 1 << 32;

/// A point, with what only the books need.
pub struct Point {
    /// Index of its metric.
    pub metric: usize,
    /// Its labels.
    pub labels: Vec<KeyValue>,
    /// Since when it counts, nanoseconds of the run.
    pub start_ns: u64,
    /// What it says.
    pub state: State,
    /// What it adds.
    pub grown: Grown,
    /// Nobody has seen its stream before.
    pub is_new: bool,
}

/// What all processes share.
pub struct World {
    /// The scenario.
    pub scenario: Scenario,
    /// The labels of its metrics.
    pub shapes: Vec<Shape>,
    /// For each metric: how many pods export it.
    pub exporters: Vec<u64>,
}

/// A process.
pub struct Process {
    /// Its number among all.
    number: u64,
    service: usize,
    /// Its number in its service.
    replica: u64,
    slots: Vec<SlotState>,
    /// Deploy waves so far.
    wave: u64,
    last_ns: u64,
    exports: u64,
}

struct SlotState {
    slot: Slot,
    /// Which of the pods that export the metric it is.
    place: u64,
    streams: Vec<Stream>,
    /// The next runaway value that is looked at.
    next_runaway: u64,
}

struct Stream {
    who: Who,
    weight: f64,
    start_ns: u64,
    state: State,
    is_seen: bool,
}

impl Process {
    /// A process that begins with the run. `places`: for each slot, its place among the pods that export the metric.
    pub fn new(
        world: &World,
        number: u64,
        service: usize,
        replica: u64,
        slots: &[Slot],
        places: &[u64],
    ) -> Self {
        let slots = slots.iter().zip(places);
        let slots = slots.map(|(slot, place)| SlotState {
            slot: *slot,
            place: *place,
            streams: Vec::new(),
            next_runaway: 0,
        });
        let mut process =
            Process { number, service, replica, slots: slots.collect(), wave: 0, last_ns: 0, exports: 0 };
        process.begin(world, 0, 0);
        process
    }

    /// The resource of the process as it is now.
    pub fn resource(&self, world: &World) -> Vec<KeyValue> {
        let service = &world.scenario.services[self.service];
        let pod = format!("{}-r{}-{}", service.name, self.wave + 1, self.replica);
        let mut hasher = SipHasher13::new_with_keys(world.scenario.seed, 0);
        hasher.write(pod.as_bytes());
        let id = hasher.finish128().as_u128();
        let own = [
            ("service.name", service.name.clone()),
            ("service.instance.id", format!("{id:032x}")),
            ("k8s.pod.name", pod),
        ];
        let own = own.into_iter().map(|(key, value)| attribute(key, value));
        own.chain(service.attributes.iter().map(|(key, value)| attribute(key, value.clone()))).collect()
    }

    /// Every stream from zero, since `at_ns`.
    fn begin(&mut self, world: &World, wave: u64, at_ns: u64) {
        self.wave = wave;
        self.last_ns = at_ns;
        for slot in &mut self.slots {
            let shape = &world.shapes[slot.slot.metric];
            let metric = &world.scenario.metrics[slot.slot.metric];
            slot.next_runaway = shape.runaways(at_ns);
            let number = self.number;
            let stream = |index: u64| {
                let tuple = shape.tuple(index);
                let generation = shape.generation(number, index, at_ns);
                Stream {
                    who: Who { tuple, generation, runaway: None },
                    weight: shape.weight(tuple),
                    start_ns: at_ns,
                    state: fresh(metric),
                    is_seen: false,
                }
            };
            slot.streams = (0..slot.slot.streams).map(stream).collect();
        }
    }

    /// One export at `at_ns`.
    pub fn export(&mut self, world: &World, at_ns: u64) -> Vec<Point> {
        let wave_ns =
            world.scenario.services[self.service].deploy_wave.map_or(u64::MAX, |wave| wave.as_nanos());
        let wave = at_ns / wave_ns;
        if wave != self.wave {
            self.begin(world, wave, wave * wave_ns);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(world.scenario.seed);
        rng.set_stream(self.number * EXPORTS_MAX + self.exports % EXPORTS_MAX);
        let span = Span {
            last_ns: self.last_ns,
            seconds: (at_ns - self.last_ns) as f64 / 1e9,
            level: world.scenario.diurnal.as_ref().map_or(1.0, |diurnal| level(diurnal, at_ns)),
            reset: (world.scenario.resets * (at_ns - self.last_ns) as f64 / 60e9).min(1.0),
        };
        let mut points = Vec::new();
        for slot in &mut self.slots {
            slot.renew(world, self.number, at_ns, self.last_ns);
            slot.export(world, &span, &mut rng, &mut points);
        }
        self.last_ns = at_ns;
        self.exports += 1;
        points
    }
}

/// The span of one export.
struct Span {
    last_ns: u64,
    seconds: f64,
    /// Traffic now, as a share of the peak.
    level: f64,
    /// The chance of a stream to restart.
    reset: f64,
}

impl SlotState {
    /// Values that were replaced, and those that came up, since the last export.
    fn renew(&mut self, world: &World, pod: u64, at_ns: u64, last_ns: u64) {
        let shape = &world.shapes[self.slot.metric];
        let metric = &world.scenario.metrics[self.slot.metric];
        for (index, stream) in self.streams.iter_mut().enumerate() {
            if stream.who.runaway.is_some() {
                break;
            }
            let generation = shape.generation(pod, index as u64, at_ns);
            if generation != stream.who.generation {
                stream.who.generation = generation;
                (stream.start_ns, stream.state, stream.is_seen) = (last_ns, fresh(metric), false);
            }
        }
        let pods = world.exporters[self.slot.metric];
        for number in self.next_runaway..shape.runaways(at_ns) {
            if number % pods != self.place {
                continue;
            }
            let tuple = shape.tuple(number);
            self.streams.push(Stream {
                who: Who { tuple, generation: 0, runaway: Some(number) },
                weight: 1.0,
                start_ns: last_ns,
                state: fresh(metric),
                is_seen: false,
            });
        }
        self.next_runaway = shape.runaways(at_ns);
    }

    fn export(&mut self, world: &World, span: &Span, rng: &mut ChaCha8Rng, points: &mut Vec<Point>) {
        let metric = &world.scenario.metrics[self.slot.metric];
        let shape = &world.shapes[self.slot.metric];
        let has_start = metric.kind != Kind::Gauge;
        for stream in &mut self.streams {
            // Each delta begins from zero, but for those of a level, which the state remembers.
            let stands_alone = is_delta(metric) && metric.kind != Kind::UpDownCounter;
            let mut restarts = || has_start && span.reset > 0.0 && rng.random_bool(span.reset);
            if stands_alone || restarts() {
                (stream.start_ns, stream.state) = (span.last_ns, fresh(metric));
            }
            let level = metric.rate * stream.weight * span.level;
            let grown = grow(&mut stream.state, metric, level * span.seconds, level, rng);
            let is_still =
                matches!(grown, Grown::Int(0) | Grown::Observed(0, _)) || grown == Grown::Double(0.0);
            if is_delta(metric) && is_still {
                continue;
            }
            points.push(Point {
                metric: self.slot.metric,
                labels: shape.attributes(&stream.who),
                start_ns: if is_delta(metric) { span.last_ns } else { stream.start_ns },
                state: reading(&stream.state, &grown, is_delta(metric)),
                grown,
                is_new: !core::mem::replace(&mut stream.is_seen, true),
            });
        }
    }
}

/// What a point says: the state, or of delta up-down counters, whose state is where they stand, what was added.
fn reading(state: &State, grown: &Grown, is_delta: bool) -> State {
    match (is_delta, grown) {
        (true, Grown::Int(added)) => State::Int(*added),
        (true, Grown::Double(added)) => State::Double(*added),
        _ => state.clone(),
    }
}

/// Traffic at a time, as a share of the peak: half-way up at the beginning.
fn level(diurnal: &Diurnal, at_ns: u64) -> f64 {
    let turn = at_ns as f64 / diurnal.period.as_nanos() as f64;
    diurnal.low + (1.0 - diurnal.low) * (1.0 + (turn * TAU).sin()) / 2.0
}
