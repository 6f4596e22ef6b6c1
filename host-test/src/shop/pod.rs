//! One process of the shop: identity, instruments, increments that nobody acknowledged yet.
//!
//! In: the time of an export. Out: an [`Export`]: the encoded request and what its acknowledgement would add to the truth. Increments of
//! cumulative counters carry over to the next export until one is acknowledged; delta increments belong to one export.

use super::catalogue::{METRICS, SERVICES, Service};
use super::instruments::{Increment, Instruments, Span, shape};
use super::otlp::text;
use super::schedule::Life;
use crate::sink::exact::Total;
use crate::sink::identity::labels;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Totals by index in [`METRICS`].
pub type Totals = [Total; METRICS.len()];

/// The label that names a pod.
pub const POD_LABEL: &str = "k8s.pod.name";

/// A process.
#[derive(Clone, Debug)]
pub struct Pod {
    service: &'static Service,
    resource: Resource,
    rng: ChaCha8Rng,
    born_ns: u64,
    last_ns: u64,
    instruments: Instruments,
    unacknowledged: Totals,
}

/// One export.
#[derive(Clone, Debug)]
pub struct Export {
    /// The encoded `ExportMetricsServiceRequest`.
    pub body: Bytes,
    /// What its acknowledgement adds.
    pub increments: Totals,
}

impl Pod {
    /// The process of `life`, born at `now_ns` (Unix nanoseconds).
    pub fn new(seed: u64, life: &Life, now_ns: u64) -> Self {
        // Each pod has a stream of the generator of its own: what one draws does not depend on another's clock.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(life.number) + 1);
        let service = &SERVICES[life.service];
        let name =
            format!("{}-{:08x}-{:05x}", service.name, rng.random::<u32>(), rng.random_range(0..0xfffff));
        let instance = format!("{:032x}", rng.random::<u128>());
        let resource = Resource {
            attributes: vec![
                text("service.name", service.name),
                text("service.namespace", "shop"),
                text("service.version", if life.is_new_version { "2.1.0" } else { "2.0.7" }),
                text("service.instance.id", &instance),
                text("deployment.environment.name", "production"),
                text("k8s.pod.name", &name),
                text("k8s.node.name", &format!("node-{}", life.number % 7)),
                text("telemetry.sdk.language", service.language),
            ],
            ..Resource::default()
        };
        Self {
            service,
            resource,
            rng,
            born_ns: now_ns,
            last_ns: now_ns,
            instruments: Instruments::default(),
            unacknowledged: Totals::default(),
        }
    }

    /// The process crashed and began again in the same pod: same identity, new start time, counters at zero. What was counted
    /// and never acknowledged is lost to everybody.
    pub fn restart(&mut self, now_ns: u64) {
        self.born_ns = now_ns;
        self.last_ns = now_ns;
        self.instruments = Instruments::default();
        self.unacknowledged = Totals::default();
    }

    /// Exports everything at `now_ns`.
    pub fn export(&mut self, now_ns: u64) -> Export {
        // A clock that stands still would give two samples one time.
        let now_ns = now_ns.max(self.last_ns + 1);
        let span = Span { born_ns: self.born_ns, last_ns: self.last_ns, now_ns };
        let mut totals = self.unacknowledged;
        let mut book = |index: usize, increment: Increment| match increment {
            Increment::Int(value) => totals[index].add_int(value),
            Increment::Double(value) => totals[index].add_double(value),
            Increment::Observed(value) => {
                totals[index].add_int(1);
                totals[index].add_double(value);
            }
        };
        let metrics = self.instruments.collect(self.service, span, &mut self.rng, &mut book);
        self.last_ns = now_ns;
        for (index, total) in totals.iter().enumerate() {
            if shape(index).is_cumulative() {
                self.unacknowledged[index] = *total;
            }
        }
        let scope = InstrumentationScope {
            name: format!("shop.{}", self.service.language),
            version: "1.4.0".to_owned(),
            ..InstrumentationScope::default()
        };
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }],
                schema_url: "https://opentelemetry.io/schemas/1.37.0".to_owned(),
            }],
        };
        Export { body: request.encode_to_vec().into(), increments: totals }
    }

    /// Its label `k8s.pod.name`, as books write it.
    pub fn name(&self) -> String {
        labels(&self.resource.attributes).remove(POD_LABEL).unwrap_or_default()
    }

    /// The last export was acknowledged.
    pub fn acknowledged(&mut self) {
        self.unacknowledged = Totals::default();
    }
}
