//! What is sent: kinds, sizes, epochs, batches.
//!
//! In: kind, seed, share, size. Out: epoch by epoch the batches of four workers, each a function of these four alone. An epoch is one export interval, in which every living
//! stream sends one point. First come epochs in which only the innocent live, at 30 to 70 % of the share; then labels explode beside them, in the same batches; some
//! streams change workers between epochs. What differs from seed to seed: load, labels behind the guilty one, unrest, and for some the kind of points.

use super::hostile;
use super::population::{Form, Instrument, Pod, Stream, export, text};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use prost::Message as _;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Workers of the process.
pub const WORKERS: usize = 4;
/// One export interval, nanoseconds.
pub const EPOCH_NS: u64 = 10 * SECOND_NS;
/// When a process starts: 2025-01-01T00:00:00Z, as in the test host.
pub const START_NS: u64 = 1_735_689_600 * SECOND_NS;
/// When the first epoch begins: after workers have found one another.
const FIRST_NS: u64 = START_NS + 2 * EPOCH_NS;
const SECOND_NS: u64 = 1_000_000_000;
/// Epochs of the innocent alone: enough to be known, to be admitted, and to have moved.
const WARM: u64 = 4;
/// Epochs after the last new value: the process should stay as it is.
const TAIL: u64 = 3;
/// The tenant that explodes.
pub const GUILTY: &str = "shop";

/// How labels explode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// As many new values in every epoch.
    Constant,
    /// More in every epoch.
    Ramp,
    /// All at once.
    Burst,
    /// Deploys: every pod of a service is renamed, several times.
    Churn,
    /// Pods come with the day and go with the night.
    Diurnal,
    /// A few new values in every epoch, which stay.
    Drip,
    /// Values made to be mistaken for one another, labels in any order.
    Attack,
    /// One tenant of a hundred, in two metrics, against the tenant's budget.
    Tenants,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] = [
        Kind::Constant,
        Kind::Ramp,
        Kind::Burst,
        Kind::Churn,
        Kind::Diurnal,
        Kind::Drip,
        Kind::Attack,
        Kind::Tenants,
    ];

    /// Its name in figures and options.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Constant => "constant",
            Kind::Ramp => "ramp",
            Kind::Burst => "burst",
            Kind::Churn => "churn",
            Kind::Diurnal => "diurnal",
            Kind::Drip => "drip",
            Kind::Attack => "attack",
            Kind::Tenants => "tenants",
        }
    }
}

/// How long and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// As small as still explodes: for many seeds.
    Reduced,
    /// 5,000 new values in every epoch, for 50 epochs.
    Full,
}

impl Size {
    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Size::Reduced => "reduced",
            Size::Full => "full",
        }
    }
}

/// A share, as the judge holds a process to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of which tenant.
    pub tenant: String,
    /// Of which metric; none: of all together.
    pub metric: Option<String>,
    /// Series on the way out.
    pub series: usize,
}

/// Times of the plan.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// `measure.period`, seconds: a multiple of three.
    pub period_s: u64,
    /// `budgets.dwell`, seconds.
    pub dwell_s: u64,
    /// `budgets.switch_lead`, seconds.
    pub switch_lead_s: u64,
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// How labels explode.
    pub kind: Kind,
    /// Which one of its kind.
    pub seed: u64,
    /// Series that the exploding metric or tenant may have.
    pub share: usize,
    /// How long and how fast.
    pub size: Size,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it comes, Unix nanoseconds.
    pub at_ns: u64,
    /// To which worker.
    pub worker: usize,
    /// Whose.
    pub tenant: String,
    /// An `ExportMetricsServiceRequest`.
    pub body: Vec<u8>,
}

impl Scenario {
    /// What a process is held to.
    pub fn shares(&self) -> Vec<Share> {
        let metric = (self.kind != Kind::Tenants).then(|| METRICS[0].to_owned());
        vec![Share { tenant: GUILTY.to_owned(), metric, series: self.share }]
    }

    /// Whether streams of this metric of the guilty tenant may be guilty.
    pub fn is_guilty(&self, metric: &str) -> bool {
        let guilty = if self.kind == Kind::Tenants { &METRICS[..2] } else { &METRICS[..1] };
        guilty.contains(&metric)
    }

    /// Whoever is there before this time is innocent.
    pub fn explodes_ns(&self) -> u64 {
        FIRST_NS + WARM * EPOCH_NS
    }

    /// Times of its plan.
    pub fn times(&self) -> Times {
        match (self.kind, self.size) {
            // A day short enough to see several: dead streams must be forgotten in the night.
            (Kind::Diurnal, Size::Reduced) => Times { period_s: 60, dwell_s: 45, switch_lead_s: 25 },
            (Kind::Diurnal, Size::Full) => Times { period_s: 180, dwell_s: 120, switch_lead_s: 30 },
            _ => Times { period_s: 1_800, dwell_s: 300, switch_lead_s: 30 },
        }
    }

    /// New values in an epoch, where the kind does not say otherwise.
    fn rate(&self) -> usize {
        match self.size {
            Size::Full => 5_000,
            // One that exceeds what is left of the share, and no more than is needed for it.
            Size::Reduced => self.share.clamp(100, 2_000),
        }
    }

    /// Epochs in which labels explode.
    fn exploding(&self) -> u64 {
        let is_full = self.size == Size::Full;
        match self.kind {
            Kind::Constant | Kind::Ramp | Kind::Attack | Kind::Tenants => {
                if is_full {
                    50
                } else {
                    12
                }
            }
            Kind::Burst => {
                if is_full {
                    12
                } else {
                    8
                }
            }
            Kind::Churn => self.deploys() * self.deploy_epochs(),
            Kind::Diurnal => 2 * self.day_epochs(),
            Kind::Drip => {
                if is_full {
                    100
                } else {
                    24
                }
            }
        }
    }

    fn deploys(&self) -> u64 {
        if self.size == Size::Full { 5 } else { 3 }
    }

    fn deploy_epochs(&self) -> u64 {
        if self.size == Size::Full { 10 } else { 5 }
    }

    fn day_epochs(&self) -> u64 {
        if self.size == Size::Full { 144 } else { 48 }
    }

    /// Points in a batch, at most.
    fn batch_points(&self) -> usize {
        match (self.size, self.share) {
            (Size::Full, _) => 1_000,
            (Size::Reduced, 1_001..) => 500,
            (Size::Reduced, _) => 60,
        }
    }

    /// All epochs.
    pub fn epochs(&self) -> u64 {
        WARM + self.exploding() + TAIL
    }

    /// What kind of points the guilty metrics have.
    pub fn form(&self) -> Form {
        match self.seed % 8 {
            5 => Form::DeltaSum,
            6 => Form::Histogram,
            7 => Form::Gauge,
            _ => Form::Sum,
        }
    }

    /// Its traffic, from the beginning.
    pub fn traffic(&self) -> Traffic {
        Traffic::new(*self)
    }
}

/// The metrics: the guilty one, one that is guilty with it when a tenant explodes, one that never is.
const METRICS: [&str; 3] = ["http.server.requests", "http.client.requests", "process.restarts"];
const ROUTES: [&str; 4] = ["/", "/cart/{item}", "/checkout", "/product/{id}"];
const METHODS: [&str; 2] = ["GET", "POST"];

/// The requests of a scenario, epoch by epoch.
pub struct Traffic {
    scenario: Scenario,
    random: ChaCha8Rng,
    metrics: Vec<Instrument>,
    tenants: Vec<String>,
    pods: Vec<Pod>,
    streams: Vec<Stream>,
    epoch: u64,
    /// New values so far.
    values: u64,
    /// Labels behind the guilty one.
    routes: usize,
    pods_of_guilty: usize,
    /// A stream changes its worker with this probability, in percent.
    unrest_percent: u32,
}

impl Traffic {
    fn new(scenario: Scenario) -> Traffic {
        let Scenario { kind, seed, share, size } = scenario;
        // Neighbouring seeds, and one seed of different kinds, have nothing in common.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&(share as u64).to_le_bytes());
        (key[16], key[17]) = (kind as u8, size as u8);
        let mut random = ChaCha8Rng::from_seed(key);
        let form = scenario.form();
        let instrument = |index: usize, form| Instrument { name: METRICS[index], form };
        let metrics = vec![instrument(0, form), instrument(1, form), instrument(2, Form::Sum)];
        let others = if kind == Kind::Tenants { 99 } else { 2 };
        let names = (0..others).map(|other| format!("team-{other:02}"));
        let tenants = std::iter::once(GUILTY.to_owned()).chain(names).collect();
        // In every fifth seed more combinations stay behind the guilty label than there is room for: another label must go as well.
        let pods_of_guilty = if seed % 5 == 4 { 8 } else { random.random_range(1..=2) };
        let mut traffic = Traffic {
            scenario,
            metrics,
            tenants,
            pods: Vec::new(),
            streams: Vec::new(),
            epoch: 0,
            values: 0,
            routes: random.random_range(2..=ROUTES.len()),
            pods_of_guilty,
            unrest_percent: random.random_range(5..=20),
            random,
        };
        traffic.settle();
        traffic
    }

    /// The innocent.
    fn settle(&mut self) {
        let share = self.scenario.share;
        let percent = match self.scenario.kind {
            // The night must be below what restores.
            Kind::Diurnal => self.random.random_range(20..=30),
            // All deploys together must be beyond the share.
            Kind::Churn => self.random.random_range(35..=70),
            _ => self.random.random_range(30..=70),
        };
        let base = share * percent / 100;
        if self.scenario.kind == Kind::Churn {
            // Of ten streams two belong to a service that is not deployed.
            self.service("auth", base / 5);
            self.service("shop", base - base / 5);
        } else {
            for pod in 0..self.pods_of_guilty {
                self.pod("shop", &format!("shop-{pod}"));
            }
            // A tenant's budget is for all its metrics together.
            let metrics = if self.scenario.kind == Kind::Tenants { 2 } else { 1 };
            for index in 0..base {
                let metric = index % metrics;
                let (pod, mut labels) = self.kept(index / metrics);
                let user = index / metrics / (self.pods_of_guilty * self.routes * METHODS.len());
                labels.push(text("user.id", &format!("known-{user}")));
                if self.scenario.kind == Kind::Attack {
                    labels.push(text("session.id", "none"));
                }
                self.born(Stream::new(0, metric, pod, labels));
            }
        }
        let pod = self.pod("shop", "shop-beside");
        for (metric, count) in [(1, 6), (2, 3)] {
            for index in 0..count {
                let labels =
                    vec![text("http.route", ROUTES[index % ROUTES.len()]), text("peer", &format!("{index}"))];
                self.born(Stream::new(0, metric, pod, labels));
            }
        }
        for tenant in 1..self.tenants.len() {
            let pod = self.pod("search", &format!("search-{tenant}"));
            for index in 0..8 {
                let labels = vec![
                    text("http.route", ROUTES[index % 2]),
                    text("user.id", &format!("known-{}", index / 2)),
                ];
                self.born(Stream::new(tenant, index % 3, pod, labels));
            }
        }
    }

    /// So many streams of pods that are deployed: no user, but a name of its own for each pod.
    fn service(&mut self, service: &str, streams: usize) {
        let of_pod = self.routes * METHODS.len();
        for index in 0..streams {
            if index % of_pod == 0 {
                let name = format!("{service}-{}", self.values);
                self.values += 1;
                self.pod(service, &name);
            }
            let labels = self.route_and_method(index % of_pod);
            self.born(Stream::new(0, 0, self.pods.len() - 1, labels));
        }
    }

    fn pod(&mut self, service: &str, name: &str) -> usize {
        let labels = vec![text("service.name", service), text("k8s.pod.name", name)];
        self.pods.push(Pod { labels });
        self.pods.len() - 1
    }

    /// The labels that stay when the guilty one goes: pod, route and method of a combination.
    fn kept(&self, combination: usize) -> (usize, Vec<KeyValue>) {
        let of_pod = self.routes * METHODS.len();
        (combination / of_pod % self.pods_of_guilty, self.route_and_method(combination % of_pod))
    }

    fn route_and_method(&self, index: usize) -> Vec<KeyValue> {
        let (route, method) = (index % self.routes, index / self.routes % METHODS.len());
        vec![text("http.route", ROUTES[route]), text("http.request.method", METHODS[method])]
    }

    fn born(&mut self, mut stream: Stream) {
        stream.worker = self.random.random_range(0..WORKERS);
        stream.shuffles = self.scenario.kind == Kind::Attack;
        self.streams.push(stream);
    }

    /// New values of the guilty label, each alive for some epochs.
    fn explode(&mut self, count: usize) {
        let lives_max = if self.scenario.size == Size::Full { 8 } else { 6 };
        for _ in 0..count {
            let lives = self.random.random_range(1..=lives_max);
            self.guilty(self.epoch + lives);
        }
    }

    fn guilty(&mut self, dies: u64) {
        let value = self.values;
        self.values += 1;
        let combinations = self.pods_of_guilty * self.routes * METHODS.len();
        let combination = self.random.random_range(0..combinations);
        let (pod, mut labels) = self.kept(combination);
        if self.scenario.kind == Kind::Attack {
            labels.extend(hostile::attributes(value, &mut self.random));
        } else {
            labels.push(text("user.id", &format!("new-{value:x}-{:08x}", self.random.random::<u32>())));
        }
        let metric = if self.scenario.kind == Kind::Tenants { usize::from(value % 4 == 3) } else { 0 };
        let mut stream = Stream::new(0, metric, pod, labels);
        stream.dies = dies;
        self.born(stream);
    }

    /// What is born and dies before epoch number `k` of the explosion.
    fn turn(&mut self, k: u64) {
        let (rate, epochs) = (self.scenario.rate(), self.scenario.exploding());
        let share = self.scenario.share as f64;
        match self.scenario.kind {
            Kind::Constant | Kind::Tenants => self.explode(rate),
            Kind::Attack => self.explode(rate / 2 + 1),
            Kind::Ramp => self.explode(2 * rate * (k as usize + 1) / epochs as usize),
            Kind::Burst if k == 1 => match self.scenario.size {
                // As many as 50 epochs at a quarter of the full rate.
                Size::Full => self.explode(rate * 50 / 4),
                Size::Reduced => self.explode(rate * 4),
            },
            Kind::Burst => {}
            Kind::Churn if k.is_multiple_of(self.scenario.deploy_epochs()) => self.deploy(),
            Kind::Churn => {}
            Kind::Drip => {
                let until = |k: u64| 1.5 * share * k as f64 / epochs as f64;
                for _ in until(k) as u64..until(k + 1) as u64 {
                    self.guilty(u64::MAX);
                }
            }
            Kind::Diurnal => {
                let turn = std::f64::consts::TAU * k as f64 / self.scenario.day_epochs() as f64;
                // Some work through the night: they folded by day, and are raw again.
                let wanted = (share * (0.15 + 1.15 * (1.0 - turn.cos()) / 2.0)) as usize;
                let mut alive: Vec<usize> =
                    (0..self.streams.len()).filter(|index| self.streams[*index].dies == DAY).collect();
                // The oldest go first.
                for index in alive.drain(..alive.len().saturating_sub(wanted)) {
                    self.streams[index].dies = self.epoch;
                }
                for _ in alive.len()..wanted {
                    self.guilty(DAY);
                }
            }
        }
    }

    /// Every pod of the shop gets another name: its streams end and new ones begin.
    fn deploy(&mut self) {
        let is_shop = |pod: &Pod| pod.labels.first() == Some(&text("service.name", "shop"));
        let mut renamed = BTreeMap::new();
        for index in 0..self.streams.len() {
            let stream = &self.streams[index];
            if stream.tenant != 0 || stream.metric != 0 || !is_shop(&self.pods[stream.pod]) {
                continue;
            }
            let (old, labels) = (stream.pod, stream.labels.clone());
            self.streams[index].dies = self.epoch;
            let pod = match renamed.get(&old) {
                Some(pod) => *pod,
                None => {
                    let name = format!("shop-{}", self.values);
                    self.values += 1;
                    let pod = self.pod("shop", &name);
                    renamed.insert(old, pod);
                    pod
                }
            };
            self.born(Stream::new(0, 0, pod, labels));
        }
    }

    /// The requests of the next epoch, in order of time; none after the last.
    pub fn next_epoch(&mut self) -> Option<Vec<Request>> {
        if self.epoch >= self.scenario.epochs() {
            return None;
        }
        if let Some(k) = self.epoch.checked_sub(WARM).filter(|k| *k < self.scenario.exploding()) {
            self.turn(k);
        }
        let epoch = self.epoch;
        self.streams.retain(|stream| stream.dies > epoch);
        let mut of_worker: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (index, stream) in self.streams.iter_mut().enumerate() {
            if self.random.random_ratio(self.unrest_percent, 100) {
                stream.worker = self.random.random_range(0..WORKERS);
            }
            of_worker.entry((stream.worker, stream.tenant)).or_default().push(index);
        }
        let mut batches = Vec::new();
        for ((worker, tenant), mut indices) in of_worker {
            indices.shuffle(&mut self.random);
            for chunk in indices.chunks(self.scenario.batch_points()) {
                batches.push((worker, tenant, chunk.to_vec()));
            }
        }
        batches.shuffle(&mut self.random);
        let begins_ns = FIRST_NS + epoch * EPOCH_NS;
        let step_ns = EPOCH_NS / (batches.len() as u64 + 1);
        let requests = (1..).zip(batches).map(|(nth, (worker, tenant, mut indices))| {
            let at_ns = begins_ns + nth * step_ns;
            indices.sort_unstable();
            // Less than the shortest step in use apart from the request.
            let time_ns = at_ns - self.random.random_range(1..1_000) * 1_000;
            let mut wanted = indices.into_iter().peekable();
            let chosen = self
                .streams
                .iter_mut()
                .enumerate()
                .filter_map(|(index, stream)| wanted.next_if_eq(&index).map(|_| stream));
            let resource_metrics = export(chosen, &self.pods, &self.metrics, time_ns, &mut self.random);
            let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
            Request { at_ns, worker, tenant: self.tenants[tenant].clone(), body }
        });
        let requests = requests.collect();
        self.epoch += 1;
        Some(requests)
    }
}

/// Lives until the day ends: never by itself, and unlike those that stay.
const DAY: u64 = u64::MAX - 1;

#[cfg(test)]
mod tests {
    use super::super::otlp::Keys;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_scenario_is_a_function_of_what_names_it() {
        for kind in Kind::ALL {
            let all = |seed| {
                let scenario = Scenario { kind, seed, share: 100, size: Size::Reduced };
                let mut traffic = scenario.traffic();
                let mut bodies = Vec::new();
                while let Some(requests) = traffic.next_epoch() {
                    assert!(requests.is_sorted_by_key(|request| request.at_ns));
                    bodies.extend(requests.into_iter().map(|r| (r.at_ns, r.worker, r.tenant, r.body)));
                }
                bodies
            };
            assert!(all(3) == all(3), "{}", kind.name());
            assert!(all(3) != all(4), "{}", kind.name());
        }
    }

    /// What each kind promises: the innocent alone are below the share, all together are above it, and streams change workers.
    #[test]
    fn every_kind_explodes_beyond_the_share() {
        for kind in Kind::ALL {
            for seed in 0..10 {
                let scenario = Scenario { kind, seed, share: 100, size: Size::Reduced };
                let share = &scenario.shares()[0];
                let mut traffic = scenario.traffic();
                let (mut before, mut all, mut workers) = (0, BTreeSet::new(), BTreeSet::new());
                let mut keys = Keys::default();
                while let Some(requests) = traffic.next_epoch() {
                    for request in requests.iter().filter(|r| r.tenant == share.tenant) {
                        let message = ExportMetricsServiceRequest::decode(&request.body[..]).expect("OTLP");
                        keys.each(&message, |said| {
                            assert!(said.time_ns < request.at_ns);
                            if share.metric.as_deref().is_none_or(|m| m == said.metric) {
                                let key = (said.metric.to_owned(), said.key.to_vec());
                                workers.insert((key.clone(), request.worker));
                                all.insert(key);
                            }
                        });
                        if request.at_ns < scenario.explodes_ns() {
                            before = all.len();
                        }
                    }
                }
                let name = kind.name();
                assert!((15..=85).contains(&before), "{name} {seed}: {before} before");
                assert!(all.len() > 110, "{name} {seed}: {} in all", all.len());
                assert!(workers.len() > all.len(), "{name} {seed}: nobody moves");
            }
        }
    }
}
