//! When which process exports: the one order of a run.
//!
//! Enters: a scenario and its length. Leaves: requests one after the other, each with the time at which it is due. Pods are spread over the interval evenly; the order is
//! by time, and by pod where times are equal. The schedule knows nothing of answers: that is what makes the load an open loop.

use super::deal::deal;
use super::encode::{self, Part};
use super::process::{Process, World};
use super::scenario::{INTERVAL_MS, Scenario};
use super::shapes::Shape;
use anyhow::{Result, bail};
use std::collections::VecDeque;

/// One request of a run.
#[derive(Debug)]
pub struct Made {
    /// When it is due, nanoseconds of the run.
    pub at_ns: u64,
    /// The body, protobuf.
    pub body: Vec<u8>,
    /// What is in it.
    pub parts: Vec<Part>,
}

impl Made {
    /// Points in it.
    pub fn points(&self) -> u64 {
        self.parts.iter().map(|part| part.points).sum()
    }
}

/// The requests of a run, in order.
pub struct Schedule {
    world: World,
    processes: Vec<Process>,
    /// Unix nanoseconds of the beginning.
    pub start_ns: u64,
    /// Nanoseconds of the run.
    pub length_ns: u64,
    /// Nanoseconds between two exports of a process.
    pub interval_ns: u64,
    cycle: u64,
    next: usize,
    ready: VecDeque<Made>,
}

impl Schedule {
    /// Of a checked scenario.
    pub fn new(scenario: Scenario, start_ns: u64, length_ns: u64) -> Result<Schedule> {
        let shapes: Vec<Shape> = scenario.metrics.iter().map(Shape::new).collect();
        let slots = deal(&scenario, &shapes)?;
        let mut exporters = vec![0u64; scenario.metrics.len()];
        let mut places: Vec<Vec<u64>> = Vec::new();
        for slots in &slots {
            let place = |slot: &super::deal::Slot| {
                let place = exporters[slot.metric];
                exporters[slot.metric] += 1;
                place
            };
            places.push(slots.iter().map(place).collect());
        }
        let per_request = u64::from(scenario.points_per_request);
        let requests: u64 = slots
            .iter()
            .map(|slots| slots.iter().map(|slot| slot.streams).sum::<u64>().div_ceil(per_request))
            .sum();
        let interval_ns = interval_ns(&scenario, requests)?;
        let world = World { scenario, shapes, exporters };
        let services = world.scenario.services.iter().enumerate();
        let replicas =
            services.flat_map(|(index, service)| (0..u64::from(service.pods)).map(move |pod| (index, pod)));
        let processes = replicas
            .zip(slots.iter().zip(&places))
            .enumerate()
            .map(|(number, ((service, replica), (slots, places)))| {
                Process::new(&world, number as u64, service, replica, slots, places)
            })
            .collect();
        Ok(Schedule {
            world,
            processes,
            start_ns,
            length_ns,
            interval_ns,
            cycle: 0,
            next: 0,
            ready: VecDeque::new(),
        })
    }

    /// What it is made of.
    pub fn scenario(&self) -> &Scenario {
        &self.world.scenario
    }

    /// The next export: when, and of which process.
    fn due(&self) -> (u64, usize) {
        let pods = self.processes.len() as u128;
        // The first export of a run comes a part of the interval after its beginning, the last pod's at a whole one.
        let offset_ns = (u128::from(self.interval_ns) * (self.next as u128 + 1) / pods) as u64;
        (self.cycle.saturating_mul(self.interval_ns).saturating_add(offset_ns), self.next)
    }

    fn export(&mut self, at_ns: u64, process: usize) {
        let process = &mut self.processes[process];
        let points = process.export(&self.world, at_ns);
        let resource = process.resource(&self.world);
        for chunk in points.chunks(self.world.scenario.points_per_request as usize) {
            let (body, parts) = encode::request(&self.world, &resource, chunk, self.start_ns, at_ns);
            self.ready.push_back(Made { at_ns, body, parts });
        }
        self.next += 1;
        if self.next == self.processes.len() {
            (self.next, self.cycle) = (0, self.cycle + 1);
        }
    }
}

impl Iterator for Schedule {
    type Item = Made;

    fn next(&mut self) -> Option<Made> {
        while self.ready.is_empty() {
            let (at_ns, process) = self.due();
            if at_ns > self.length_ns {
                return None;
            }
            self.export(at_ns, process);
        }
        self.ready.pop_front()
    }
}

/// Nanoseconds between two exports of a process, from whichever way the scenario says it; `requests` are those of one export of all.
fn interval_ns(scenario: &Scenario, requests: u64) -> Result<u64> {
    let (field, rate, interval_ns) = match (scenario.points_per_second, scenario.requests_per_second) {
        (Some(rate), _) => ("points_per_second", rate, scenario.streams as f64 / rate * 1e9),
        (None, Some(rate)) => ("requests_per_second", rate, requests as f64 / rate * 1e9),
        (None, None) => {
            let interval = scenario.interval.unwrap_or(phoenix_plan::DurationMs::from_secs(10));
            return Ok(interval.as_nanos());
        }
    };
    let range_ns = (INTERVAL_MS.start() * 1_000_000)..=(INTERVAL_MS.end() * 1_000_000);
    let interval_ns = interval_ns.round() as u64;
    if !range_ns.contains(&interval_ns) {
        let most = if field == "points_per_second" { scenario.streams } else { requests } as f64;
        bail!(
            "{field}: value {rate} is not allowed; allowed: {} to {}, with which {} export every {} to {}",
            most / (*INTERVAL_MS.end() as f64 / 1000.0),
            most / (*INTERVAL_MS.start() as f64 / 1000.0),
            crate::show::counted(scenario.streams, "stream"),
            phoenix_plan::DurationMs(*INTERVAL_MS.start()),
            phoenix_plan::DurationMs(*INTERVAL_MS.end()),
        );
    }
    Ok(interval_ns)
}
