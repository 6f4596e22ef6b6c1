//! One process of the service `login`, whose counter gets a label that nobody asked for.
//!
//! In: the time of an export, and how many users are to have leaked by then. Out: a [`LeakExport`]: the encoded request, and what its acknowledgement
//! adds to the truth. Three sorts of streams: *innocents* without the label, in every export; *staff*, the few accounts whose label stays after the
//! fix, from the leak on; *users*, each in two exports, as long as a session lasts. All are cumulative.

use super::{METRIC, USER_ID};
use crate::shop::otlp::{CUMULATIVE, int, metric, number, sum, text};
use crate::sink::identity::{Labels, labels};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// What the counter tells apart without the leak.
pub const ROUTES: [&str; 3] = ["/login", "/login/sso", "/login/token"];
/// By status as well.
pub const STATUSES: [i64; 4] = [200, 401, 403, 429];
/// Accounts of each pod that keep the label after the fix.
pub const STAFF: usize = 8;
/// What the names of these accounts begin with; those of users are hexadecimal.
pub const STAFF_PREFIX: &str = "staff-";
/// Streams of the generator beyond those of the shop's pods, which count from 1.
const RNG_STREAMS_FROM: u64 = 1 << 32;

/// All labels but the leaked one: what is in the books of one group, raw or folded, must add up.
pub type Group = String;

/// A process.
#[derive(Clone, Debug)]
pub struct LoginPod {
    number: u32,
    resource: Resource,
    rng: ChaCha8Rng,
    last_ns: u64,
    innocents: Vec<Stream>,
    staff: Vec<Stream>,
    /// Who came with the last export, and is in one more.
    users: Vec<Stream>,
    leaked: u64,
}

#[derive(Clone, Debug)]
struct Stream {
    route: usize,
    status: usize,
    user: Option<String>,
    start_ns: u64,
    value: i64,
}

/// One export.
#[derive(Clone, Debug)]
pub struct LeakExport {
    /// The encoded `ExportMetricsServiceRequest`.
    pub body: Bytes,
    /// The same with the innocents alone, for the books of what must pass byte for byte.
    pub innocents: Bytes,
    /// The same with the staff alone; `None` before the leak.
    pub staff: Option<Bytes>,
    /// What its acknowledgement adds, by group.
    pub increments: BTreeMap<Group, i128>,
    /// The time of its points.
    pub time_ns: u64,
    /// Users that are new in it.
    pub users_new: u64,
    /// Points.
    pub points: u64,
    /// Of these, points with the leaked label.
    pub guilty_points: u64,
}

impl LoginPod {
    /// A process that begins at `now_ns`.
    pub fn new(seed: u64, number: u32, now_ns: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(RNG_STREAMS_FROM + u64::from(number));
        let resource = Resource {
            attributes: vec![
                text("service.name", "login"),
                text("service.namespace", "shop"),
                text("service.version", "3.4.0"),
                text("service.instance.id", &format!("{:032x}", rng.random::<u128>())),
                text("deployment.environment.name", "production"),
                text("k8s.pod.name", &format!("login-{:08x}-{number:05x}", rng.random::<u32>())),
                text("telemetry.sdk.language", "java"),
            ],
            ..Resource::default()
        };
        let pairs =
            (0..ROUTES.len()).flat_map(|route| (0..STATUSES.len()).map(move |status| (route, status)));
        let innocent = |(route, status)| Stream { route, status, user: None, start_ns: now_ns, value: 0 };
        let innocents = pairs.map(innocent).collect();
        Self { number, resource, rng, last_ns: now_ns, innocents, staff: vec![], users: vec![], leaked: 0 }
    }

    /// Exports everything at `now_ns`; `leaked` says how many users of this pod have leaked since the beginning, `None` that the leak has not begun.
    pub fn export(&mut self, now_ns: u64, leaked: Option<u64>) -> LeakExport {
        let now_ns = now_ns.max(self.last_ns + 1);
        let mut increments = BTreeMap::new();
        if leaked.is_some() && self.staff.is_empty() {
            let name = |n| format!("{STAFF_PREFIX}{}", self.number as usize * STAFF + n);
            let staff = (0..STAFF).map(|n| (n % ROUTES.len(), n % STATUSES.len(), Some(name(n))));
            let start_ns = self.last_ns;
            let stream = |(route, status, user)| Stream { route, status, user, start_ns, value: 0 };
            self.staff = staff.map(stream).collect();
        }
        let users_new = leaked.unwrap_or(0).saturating_sub(self.leaked);
        let remaining = std::mem::take(&mut self.users);
        let came: Vec<Stream> = (0..users_new).map(|n| self.user(self.leaked + n)).collect();
        self.leaked += users_new;
        let mut users: Vec<Stream> = remaining.into_iter().chain(came).collect();
        let mut streams: Vec<&mut Stream> = Vec::new();
        streams.extend(self.innocents.iter_mut().chain(&mut self.staff).chain(&mut users));
        for stream in streams {
            let more = self.rng.random_range(1..4);
            stream.value += more;
            *increments.entry((stream.route, stream.status)).or_insert(0) += i128::from(more);
        }
        let point = |stream: &Stream| stream.point(now_ns);
        let innocents: Vec<NumberDataPoint> = self.innocents.iter().map(point).collect();
        let staff: Vec<NumberDataPoint> = self.staff.iter().map(point).collect();
        let guilty: Vec<NumberDataPoint> = staff.iter().cloned().chain(users.iter().map(point)).collect();
        let group = |((route, status), more): ((usize, usize), i128)| {
            let stream = Stream { route, status, user: None, start_ns: 0, value: 0 };
            (group(&labels(&self.resource.attributes), &labels(&stream.labels())), more)
        };
        let out = LeakExport {
            innocents: self.request(innocents.clone()),
            staff: (!staff.is_empty()).then(|| self.request(staff)),
            increments: increments.into_iter().map(group).collect(),
            time_ns: now_ns,
            users_new,
            points: (innocents.len() + guilty.len()) as u64,
            guilty_points: guilty.len() as u64,
            body: self.request(innocents.into_iter().chain(guilty).collect()),
        };
        // Who was in two exports is gone.
        self.users = users.split_off(users.len() - users_new as usize);
        self.last_ns = now_ns;
        out
    }

    fn user(&mut self, n: u64) -> Stream {
        // Every number of 32 bits once, in an order that says nothing.
        let number = (u64::from(self.number) << 26 | n) as u32;
        let user = format!("{:08x}", number.wrapping_mul(0x9e37_79b1));
        let route = self.rng.random_range(0..ROUTES.len());
        let status = self.rng.random_range(0..STATUSES.len());
        Stream { route, status, user: Some(user), start_ns: self.last_ns, value: 0 }
    }

    fn request(&self, points: Vec<NumberDataPoint>) -> Bytes {
        let scope = InstrumentationScope { name: "shop.login".to_owned(), ..InstrumentationScope::default() };
        let metrics = vec![metric(METRIC, "{attempt}", sum(points, CUMULATIVE, true))];
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }],
                schema_url: String::new(),
            }],
        };
        request.encode_to_vec().into()
    }
}

impl Stream {
    fn labels(&self) -> Vec<KeyValue> {
        let user = self.user.as_ref().map(|user| text(USER_ID, user));
        let labels = [text("route", ROUTES[self.route]), int("status", STATUSES[self.status])];
        labels.into_iter().chain(user).collect()
    }

    fn point(&self, now_ns: u64) -> NumberDataPoint {
        number(self.labels(), self.start_ns, now_ns, Value::AsInt(self.value))
    }
}

/// The group of a series at the sink, raw or folded.
pub fn group(resource: &Labels, point: &Labels) -> Group {
    let text = |labels: &Labels, key: &str| labels.get(key).cloned().unwrap_or_default();
    format!("{} {} {}", text(resource, "k8s.pod.name"), text(point, "route"), text(point, "status"))
}
