//! Reports of the module, for a person who watches meanwhile.
//!
//! In: where `phoenix top` listens, or would. Out: the settings and the cluster that the demo's Envoy gets, and the command to watch with. Whether
//! somebody listens changes nothing: a report that nobody takes is not repeated.

use super::Options;
use super::stage::INTERVAL;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The cluster.
const CLUSTER: &str = "phoenix_reports";
/// Where `phoenix top` takes reports.
const PATH: &str = "/v1/reports";

/// The field `envoy.report` of the plugin's configuration.
pub fn settings() -> Value {
    json!({ "cluster": CLUSTER, "path": PATH, "interval": interval() })
}

/// The configuration of Envoy, whose list of clusters ends it, with one more.
pub fn with_cluster(yaml: &str, to: SocketAddr) -> String {
    let (host, port) = (to.ip(), to.port());
    let address = format!("{{ socket_address: {{ address: {host}, port_value: {port} }} }}");
    format!(
        "{}\n  - name: {CLUSTER}\n    connect_timeout: 1s\n    type: STATIC\n    load_assignment:\n      cluster_name: {CLUSTER}\n      \
         endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {address} }} }}] }}]\n",
        yaml.trim_end()
    )
}

/// What to type in another terminal.
pub fn command(options: &Options) -> String {
    let program = match std::env::current_dir().map(|here| options.phoenix.strip_prefix(here)) {
        Ok(Ok(inside)) => inside,
        _ => &options.phoenix,
    };
    format!("{} top --listen {} --interval {}", program.display(), options.reports, interval())
}

/// As often as the pods export.
fn interval() -> String {
    format!("{}s", INTERVAL.as_secs())
}
