//! Runs the pods against an address in real time.
//!
//! In: the configuration and an address. Out: the [`Truth`]. Each pod is one task with one connection; it exports at its own offset
//! within the interval, once more at its end, and waits for each answer before its next export, as SDKs do.

use super::ShopConfig;
use super::catalogue::SERVICES;
use super::client::Client;
use super::pod::Pod;
use super::schedule::{Life, schedule};
use super::truth::{Exports, Truth};
use crate::sink::BooksConfig;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// A shop at work.
#[derive(Debug)]
pub struct Shop {
    truth: Arc<Mutex<Truth>>,
    pods: JoinSet<()>,
    running: Arc<Mutex<Progress>>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Pods alive now.
    pub pods: u64,
    /// Restarts so far.
    pub restarts: u64,
    /// Pods that came so far.
    pub born: u64,
    /// Points acknowledged.
    pub points: u64,
    /// Exports by fate.
    pub exports: Exports,
}

impl Shop {
    /// Opens the shop: traffic flows from now on.
    pub fn open(config: &ShopConfig, address: SocketAddr, books: BooksConfig) -> Self {
        Self::open_and_copy(config, &[address], books, None)
    }

    /// The same through several gateways: each pod stays with one of them. Every export that was acknowledged is also copied to `copies`,
    /// uncompressed and without frames.
    ///
    /// # Panics
    /// There is no gateway.
    pub fn open_and_copy(
        config: &ShopConfig,
        gateways: &[SocketAddr],
        books: BooksConfig,
        copies: Option<UnboundedSender<Bytes>>,
    ) -> Self {
        let truth = Arc::new(Mutex::new(Truth::new(books)));
        let running = Arc::new(Mutex::new(Progress::default()));
        let mut pods = JoinSet::new();
        let begin = Instant::now();
        for life in schedule(config) {
            let gateway = gateway_of(life.number, gateways.len());
            let task = PodTask {
                config: config.clone(),
                life,
                begin,
                gateway,
                address: gateways[gateway],
                truth: truth.clone(),
                running: running.clone(),
                copies: copies.clone(),
            };
            pods.spawn(task.run());
        }
        Self { truth, pods, running }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let mut progress = *lock(&self.running);
        let truth = lock(&self.truth);
        progress.points = truth.books.points();
        progress.exports = truth.exports;
        progress
    }

    /// Whether every pod has ended.
    pub fn is_closed(&mut self) -> bool {
        while self.pods.try_join_next().is_some() {}
        self.pods.is_empty()
    }

    /// Waits for the last pod and returns the truth.
    pub async fn close(mut self) -> (Truth, Progress) {
        while self.pods.join_next().await.is_some() {}
        let progress = self.progress();
        (lock(&self.truth).clone(), progress)
    }
}

struct PodTask {
    config: ShopConfig,
    life: Life,
    begin: Instant,
    gateway: usize,
    address: SocketAddr,
    truth: Arc<Mutex<Truth>>,
    running: Arc<Mutex<Progress>>,
    copies: Option<UnboundedSender<Bytes>>,
}

impl PodTask {
    async fn run(self) {
        sleep_until(self.begin + self.life.from).await;
        {
            let mut running = lock(&self.running);
            running.pods += 1;
            running.born += 1;
        }
        let mut pod = Pod::new(self.config.seed, &self.life, unix_ns());
        let protocols = &self.config.protocols;
        let protocol = protocols[self.life.number as usize % protocols.len()];
        let mut client =
            Client::new(self.address, protocol, &self.config.tenant, self.config.requests_per_connection);
        client.hang_up_every = self.config.hang_up_every;
        let mut restarts = self.life.restarts.iter().copied().peekable();
        let mut next = self.life.from + self.life.offset;
        while next < self.life.until {
            if let Some(at) = restarts.next_if(|at| *at <= next) {
                sleep_until(self.begin + at).await;
                pod.restart(unix_ns());
                lock(&self.running).restarts += 1;
                continue;
            }
            sleep_until(self.begin + next).await;
            self.export(&mut pod, &mut client).await;
            next = self.next_tick(next);
        }
        sleep_until(self.begin + self.life.until).await;
        self.export(&mut pod, &mut client).await;
        lock(&self.running).pods -= 1;
    }

    /// The next multiple of the interval that has not passed: an SDK whose export took long skips ticks.
    fn next_tick(&self, last: Duration) -> Duration {
        let mut next = last + self.config.interval;
        while next < self.begin.elapsed() {
            next += self.config.interval;
        }
        next
    }

    async fn export(&self, pod: &mut Pod, client: &mut Client) {
        let export = pod.export(unix_ns());
        let connections = client.connections;
        let outcome = client.export(&export.body).await;
        let mut truth = lock(&self.truth);
        truth.exports.retries += outcome.retries;
        truth.exports.unanswered += outcome.unanswered;
        truth.exports.connections += client.connections - connections;
        truth.exports.partial += u64::from(outcome.rejected_points > 0);
        if outcome.is_acknowledged {
            truth.acknowledge(&self.config.tenant, &export);
            truth.homes.insert(pod.name(), self.gateway);
            pod.acknowledged();
            if let Some(copies) = &self.copies {
                // A listener that is gone is no concern of the pod.
                drop(copies.send(export.body));
            }
        } else {
            truth.exports.dropped += 1;
        }
    }
}

/// The gateway of a pod, as a balancer with affinity would choose it: pods of one service are spread, a pod stays.
pub fn gateway_of(pod: u32, gateways: usize) -> usize {
    // Numbers go round by services: in each round one further.
    (pod + pod / SERVICES.len() as u32) as usize % gateways.max(1)
}

/// Now, in Unix nanoseconds.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
