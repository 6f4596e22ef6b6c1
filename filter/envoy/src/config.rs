//! The plugin's configuration: the plan, and what only this shell needs.
//!
//! `{"plan": {…}, "envoy": {"emit": {…}, "paths": […], "grpc_paths": […], "tick": "200ms"}}`. Errors name field, value and allowed
//! range; Envoy logs them and keeps the configuration before.

use phoenix_filter::route::Compiled;
use phoenix_filter::units::UnixNanos;
use phoenix_plan::{Affinity, DurationMs, Plan};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The whole of it, made ready.
pub struct Config {
    /// The plan.
    pub plan: Rc<Compiled>,
    /// The shell's own part.
    pub envoy: Envoy,
}

/// What only Envoy needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envoy {
    /// Where emissions go.
    pub emit: Emit,
    /// Paths of OTLP over HTTP.
    #[serde(default = "paths")]
    pub paths: Vec<String>,
    /// Paths of OTLP over gRPC.
    #[serde(default = "grpc_paths")]
    pub grpc_paths: Vec<String>,
    /// Other processes that fold, to compare streams with.
    #[serde(default)]
    pub peers: Option<Peers>,
    /// Where reports go, if anywhere.
    #[serde(default)]
    pub report: Option<ReportTo>,
    /// How often windows are looked at. 50 ms to 2 s: an owner shows once a tick that it lives.
    #[serde(default = "tick")]
    pub tick: DurationMs,
}

/// Where emissions go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emit {
    /// Name of an Envoy cluster.
    pub cluster: String,
    /// How OTLP is spoken there.
    #[serde(default)]
    pub protocol: Protocol,
    /// `:authority` of the request; the cluster's name when left out.
    pub authority: Option<String>,
    /// `:path`; the protocol's own when left out.
    pub path: Option<String>,
    /// Static headers, such as a token.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How long an answer may take. 100 ms to 60 s.
    #[serde(default = "timeout")]
    pub timeout: DurationMs,
}

/// Other processes that fold the same plan.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// Name of an Envoy cluster with all of them; this process may be in it.
    pub cluster: String,
    /// Where each serves its report.
    #[serde(default = "report_path")]
    pub path: String,
    /// `:authority` of the request; the cluster's name when left out.
    pub authority: Option<String>,
    /// How often a peer is asked. 1 s to 1 min.
    #[serde(default = "interval")]
    pub interval: DurationMs,
}

/// Where reports go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportTo {
    /// Name of an Envoy cluster: a control host, or `phoenix top`.
    pub cluster: String,
    /// `:path`.
    #[serde(default = "reports_path")]
    pub path: String,
    /// `:authority` of the request; the cluster's name when left out.
    pub authority: Option<String>,
    /// Static headers, such as a token.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How often each worker reports. 1 s to 10 min.
    #[serde(default = "interval")]
    pub interval: DurationMs,
}

/// How OTLP is spoken.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// OTLP/HTTP, protobuf.
    #[default]
    Http,
    /// OTLP/gRPC; the cluster must speak HTTP/2.
    Grpc,
}

/// Path of the metrics service over gRPC.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
/// Path of OTLP metrics over HTTP.
pub const HTTP_PATH: &str = "/v1/metrics";

fn paths() -> Vec<String> {
    vec![HTTP_PATH.into()]
}

fn grpc_paths() -> Vec<String> {
    vec![GRPC_PATH.into()]
}

fn report_path() -> String {
    "/phoenix/v1/report".into()
}

fn reports_path() -> String {
    "/v1/reports".into()
}

fn interval() -> DurationMs {
    DurationMs(10_000)
}

fn tick() -> DurationMs {
    DurationMs(200)
}

fn timeout() -> DurationMs {
    DurationMs(5_000)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer<'a> {
    #[serde(borrow)]
    plan: &'a RawValue,
    #[serde(borrow)]
    envoy: &'a RawValue,
}

/// Read and check it; it takes the place of another configuration, if there is one. The error is one line for the log.
pub fn parse(json: &[u8], before: Option<&Config>, now: UnixNanos) -> Result<Config, String> {
    let outer: Outer<'_> = serde_json::from_slice(json)
        .map_err(|e| format!("plugin configuration refused: {e}; allowed: an object with plan and envoy"))?;
    let mut text = serde_json::Deserializer::from_str(outer.envoy.get());
    let envoy: Envoy = serde_path_to_error::deserialize(&mut text)
        .map_err(|e| format!("plugin configuration refused: field envoy.{}: {}", e.path(), e.inner()))?;
    check(&envoy)?;
    let plan = Plan::parse(outer.plan.get().as_bytes()).map_err(|e| e.to_string())?;
    if plan.affinity == Affinity::Checked && envoy.peers.is_none() {
        return Err("plan refused: field affinity: value \"checked\" is not allowed; allowed: assumed, or checked with \
                    envoy.peers, since there is nobody to compare streams with"
            .into());
    }
    let mut plan = Compiled::new(plan);
    if let Some(before) = before {
        plan.follow(&before.plan, now);
    }
    Ok(Config { plan: Rc::new(plan), envoy })
}

fn check(envoy: &Envoy) -> Result<(), String> {
    let refuse = |field: &str, value: String, allowed: &str| {
        Err(format!(
            "plugin configuration refused: field envoy.{field}: value {value} is not allowed; allowed: {allowed}"
        ))
    };
    if !(50..=2_000).contains(&envoy.tick.0) {
        return refuse("tick", format!("{} ms", envoy.tick.0), "50ms to 2s");
    }
    if !(100..=60_000).contains(&envoy.emit.timeout.0) {
        return refuse("emit.timeout", format!("{} ms", envoy.emit.timeout.0), "100ms to 60s");
    }
    if envoy.emit.cluster.is_empty() {
        return refuse("emit.cluster", "\"\"".into(), "the name of a cluster of this Envoy");
    }
    if let Some(peers) = &envoy.peers {
        if peers.cluster.is_empty() {
            return refuse("peers.cluster", "\"\"".into(), "the name of a cluster of this Envoy");
        }
        if !peers.path.starts_with('/') {
            return refuse("peers.path", format!("{:?}", peers.path), "a path that begins with /");
        }
        if !(1_000..=60_000).contains(&peers.interval.0) {
            return refuse("peers.interval", format!("{} ms", peers.interval.0), "1s to 1m");
        }
    }
    if let Some(report) = &envoy.report {
        if report.cluster.is_empty() {
            return refuse("report.cluster", "\"\"".into(), "the name of a cluster of this Envoy");
        }
        if !report.path.starts_with('/') {
            return refuse("report.path", format!("{:?}", report.path), "a path that begins with /");
        }
        if !(1_000..=600_000).contains(&report.interval.0) {
            return refuse("report.interval", format!("{} ms", report.interval.0), "1s to 10m");
        }
    }
    let theirs = envoy.report.iter().flat_map(|report| &report.headers).map(|it| ("report", it));
    for (whose, (name, value)) in envoy.emit.headers.iter().map(|it| ("emit", it)).chain(theirs) {
        let bad_name =
            name.is_empty() || name.starts_with(':') || name.bytes().any(|b| b.is_ascii_uppercase());
        if bad_name || value.bytes().any(|b| b < b' ' || b == 0x7f) {
            return refuse(
                &format!("{whose}.headers.{name}"),
                format!("{value:?}"),
                "a lower-case name that is no pseudo-header, and a value without control characters",
            );
        }
    }
    Ok(())
}
