//! The leak: a release of the service `login` adds `user_id` to a counter, and a fix takes it out again.
//!
//! In: a [`LeakConfig`] and an address. Out: the [`LeakTruth`] of what was *acknowledged*. Beside the shop and not in it: hundreds of thousands of streams are
//! too many for books that keep every sample, so that here only the few streams that must arrive are booked, and of all others the totals.

/// One process, its streams, its exports.
pub mod pod;

use super::client::{Client, Protocol};
use super::run::unix_ns;
use super::truth::Exports;
use crate::sink::print::Multiset;
use crate::sink::{Books, BooksConfig};
use pod::{Group, LeakExport, LoginPod};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The counter.
pub const METRIC: &str = "login_attempts";
/// The label that leaks into it.
pub const USER_ID: &str = "user_id";
/// Pods of the service: one for each transport.
pub const PODS: u32 = Protocol::ALL.len() as u32;

/// The leak's size and time.
#[derive(Clone, Debug)]
pub struct LeakConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// How long traffic flows.
    pub length: Duration,
    /// When the label comes, at the earliest: [`Leak::release`] says when.
    pub from: Duration,
    /// When it goes, but for the staff's.
    pub until: Duration,
    /// Streams that are new between the two, of all pods.
    pub users: u64,
    /// Export interval; pods are spread over it.
    pub interval: Duration,
    /// Requests on a connection before it is closed; zero is no limit.
    pub requests_per_connection: u32,
    /// The tenant's header value.
    pub tenant: String,
}

impl LeakConfig {
    /// How many users of one pod have leaked at a time; `None` before the leak. An SDK knows nothing of it: it exports what it was given since.
    pub fn leaked(&self, at: Duration) -> Option<u64> {
        self.leaked_since(at.checked_sub(self.from)?)
    }

    /// The same by the time since the label came.
    pub fn leaked_since(&self, since: Duration) -> Option<u64> {
        let part = (since.as_secs_f64() / self.until.saturating_sub(self.from).as_secs_f64()).min(1.0);
        Some((self.users as f64 / f64::from(PODS) * part) as u64)
    }
}

/// What was acknowledged.
#[derive(Clone, Debug, Default)]
pub struct LeakTruth {
    /// Books of the streams that never had the label.
    pub innocents: Books,
    /// Books of the streams that keep it after the fix.
    pub staff: Books,
    /// Fingerprints of the innocents' points by pod and time.
    pub innocent_prints: BTreeMap<(u32, u64), Multiset>,
    /// Fingerprints of the staff's points by pod and time: an export is raw or it is not.
    pub staff_prints: BTreeMap<(u32, u64), Multiset>,
    /// What was counted, by group.
    pub groups: BTreeMap<Group, i128>,
    /// Exports in which the label was, in the order of the acknowledgements.
    pub leaked: Vec<Leaked>,
    /// Streams of users.
    pub users: u64,
    /// Points.
    pub points: u64,
    /// Of these, with the label.
    pub guilty_points: u64,
    /// Bytes of the requests.
    pub bytes: u64,
    /// Exports by fate.
    pub exports: Exports,
}

/// An export with new users.
#[derive(Clone, Copy, Debug)]
pub struct Leaked {
    /// The pod.
    pub pod: u32,
    /// The time of its points, right before it was sent.
    pub time_ns: u64,
    /// When it was acknowledged.
    pub acknowledged_ns: u64,
    /// Users that were new.
    pub users: u64,
}

impl LeakTruth {
    /// Nothing yet.
    pub fn new(config: BooksConfig) -> Self {
        Self { innocents: Books::new(config.clone()), staff: Books::new(config), ..Self::default() }
    }

    /// Books an acknowledged export.
    ///
    /// # Panics
    /// The generator made a body that the books refuse: a bug of the generator.
    pub fn acknowledge(&mut self, tenant: &str, pod: u32, export: &LeakExport, now_ns: u64) {
        let print = |body: &[u8]| {
            let mut alone = Books::default();
            alone.add(tenant, body).expect("the leak encodes valid OTLP");
            alone.metric(METRIC).map(|book| book.raw.print).unwrap_or_default()
        };
        self.innocents.add(tenant, &export.innocents).expect("the leak encodes valid OTLP");
        self.innocent_prints.insert((pod, export.time_ns), print(&export.innocents));
        if let Some(staff) = &export.staff {
            self.staff.add(tenant, staff).expect("the leak encodes valid OTLP");
            self.staff_prints.insert((pod, export.time_ns), print(staff));
        }
        for (group, more) in &export.increments {
            *self.groups.entry(group.clone()).or_default() += more;
        }
        if export.users_new > 0 {
            let (time_ns, users) = (export.time_ns, export.users_new);
            self.leaked.push(Leaked { pod, time_ns, acknowledged_ns: now_ns, users });
        }
        self.users += export.users_new;
        self.points += export.points;
        self.guilty_points += export.guilty_points;
        self.bytes += export.body.len() as u64;
        self.exports.acknowledged += 1;
    }

    /// When the first points with the label were written.
    pub fn began_ns(&self) -> Option<u64> {
        self.leaked.iter().map(|leaked| leaked.time_ns).min()
    }

    /// When the last new user came.
    pub fn ended_ns(&self) -> Option<u64> {
        self.leaked.iter().map(|leaked| leaked.time_ns).max()
    }
}

/// The service at work.
#[derive(Debug)]
pub struct Leak {
    truth: Arc<Mutex<LeakTruth>>,
    pods: JoinSet<()>,
    interval: Duration,
    begin: Instant,
    released: Arc<OnceLock<Duration>>,
}

impl Leak {
    /// Begins; each pod stays with one of the gateways.
    ///
    /// # Panics
    /// There is no gateway.
    pub fn open(config: &LeakConfig, gateways: &[SocketAddr], books: BooksConfig) -> Self {
        let truth = Arc::new(Mutex::new(LeakTruth::new(books)));
        let begin = Instant::now();
        let released: Arc<OnceLock<Duration>> = Arc::default();
        let mut pods = JoinSet::new();
        for number in 0..PODS {
            let address = gateways[number as usize % gateways.len()];
            pods.spawn(run(config.clone(), number, (begin, released.clone()), address, truth.clone()));
        }
        Self { truth, pods, interval: config.interval, begin, released }
    }

    /// The label comes with the next full interval but one. The first export that has it then brings several hundred users, whoever exports first. When
    /// that is, from the beginning of the traffic.
    pub fn release(&self) -> Duration {
        let intervals = self.begin.elapsed().as_nanos() / self.interval.as_nanos().max(1) + 2;
        *self.released.get_or_init(|| self.interval * u32::try_from(intervals).unwrap_or(u32::MAX))
    }

    /// When the label came, or comes; `None`: nobody has released it.
    pub fn released(&self) -> Option<Duration> {
        self.released.get().copied()
    }

    /// Streams with the label so far.
    pub fn users(&self) -> u64 {
        lock(&self.truth).users
    }

    /// Whether every pod has ended.
    pub fn is_closed(&mut self) -> bool {
        while self.pods.try_join_next().is_some() {}
        self.pods.is_empty()
    }

    /// Waits for the last pod and returns the truth.
    pub async fn close(mut self) -> LeakTruth {
        while self.pods.join_next().await.is_some() {}
        lock(&self.truth).clone()
    }
}

async fn run(
    config: LeakConfig,
    number: u32,
    (begin, released): (Instant, Arc<OnceLock<Duration>>),
    address: SocketAddr,
    truth: Arc<Mutex<LeakTruth>>,
) {
    let mut pod = LoginPod::new(config.seed, number, unix_ns());
    let protocol = Protocol::ALL[number as usize % Protocol::ALL.len()];
    let mut client = Client::new(address, protocol, &config.tenant, config.requests_per_connection);
    let mut next = config.interval * (number + 1) / (PODS + 1);
    loop {
        let is_last = next >= config.length;
        sleep_until(begin + next.min(config.length)).await;
        let since = released.get().and_then(|from| begin.elapsed().checked_sub(*from));
        let export = pod.export(unix_ns(), since.and_then(|since| config.leaked_since(since)));
        let outcome = client.export(&export.body).await;
        {
            let mut truth = lock(&truth);
            truth.exports.retries += outcome.retries;
            truth.exports.unanswered += outcome.unanswered;
            truth.exports.partial += u64::from(outcome.rejected_points > 0);
            truth.exports.dropped += u64::from(!outcome.is_acknowledged);
            if outcome.is_acknowledged {
                truth.acknowledge(&config.tenant, number, &export, unix_ns());
            }
        }
        if is_last {
            return;
        }
        next += config.interval;
        while next < begin.elapsed() {
            next += config.interval;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
