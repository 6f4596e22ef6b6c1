//! When pods live.
//!
//! In: the configuration. Out: a list of [`Life`]s, a pure function of the seed. A rolling deploy replaces one pod at a time: the new one
//! comes up shortly before the old one goes. Restarts hit pods at random.

use super::ShopConfig;
use super::catalogue::SERVICES;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// The life of one pod; times count from the begin of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// Number of the pod, unique in the run.
    pub number: u32,
    /// Index in [`SERVICES`].
    pub service: usize,
    /// Whether it came with the rolling deploy.
    pub is_new_version: bool,
    /// Birth.
    pub from: Duration,
    /// Graceful end, with a last export.
    pub until: Duration,
    /// Crashes and restarts in place, ascending.
    pub restarts: Vec<Duration>,
    /// First export after birth, so that pods are spread over the interval.
    pub offset: Duration,
}

/// All lives of a run.
pub fn schedule(config: &ShopConfig) -> Vec<Life> {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut lives = Vec::new();
    let mut running = Vec::new();
    for replica in 0..config.replicas {
        for service in 0..SERVICES.len() {
            running.push(lives.len());
            let number = replica * SERVICES.len() as u32 + service as u32;
            lives.push(new_life(config, &mut rng, number, service, Duration::ZERO));
        }
    }
    for at in every(config.replace_every, config.length) {
        let slot = rng.random_range(0..running.len());
        let old = running[slot];
        let number = lives.len() as u32;
        lives[old].until = (at + config.interval / 4).min(config.length);
        let mut life = new_life(config, &mut rng, number, lives[old].service, at);
        life.is_new_version = true;
        running[slot] = lives.len();
        lives.push(life);
    }
    for at in every(config.restart_every, config.length) {
        let alive: Vec<usize> =
            (0..lives.len()).filter(|&i| lives[i].from < at && at < lives[i].until).collect();
        if let Some(&chosen) = alive.get(rng.random_range(0..alive.len().max(1))) {
            lives[chosen].restarts.push(at);
        }
    }
    lives
}

fn new_life(config: &ShopConfig, rng: &mut ChaCha8Rng, number: u32, service: usize, from: Duration) -> Life {
    Life {
        number,
        service,
        is_new_version: false,
        from,
        until: config.length,
        restarts: Vec::new(),
        offset: config.interval.mul_f64(rng.random_range(0.02..1.0)),
    }
}

/// The multiples of `step` below `length`; none for a step of zero.
fn every(step: Duration, length: Duration) -> Vec<Duration> {
    let mut out = Vec::new();
    let mut at = step;
    while !step.is_zero() && at < length {
        out.push(at);
        at += step;
    }
    out
}
