//! Reports of the module: to the control host, and a copy to a person who watches meanwhile.
//!
//! In: where `phoenix top` listens, or would. Out: the module's settings, a listener in each Envoy that takes the reports, sends them to the control host as the shipped configuration
//! does, and a copy to `phoenix top`; and the command to watch with. Whether somebody listens changes nothing: Envoy sends copies and forgets them.

use super::Options;
use super::stage::INTERVAL;
use crate::envoy::config::replaced;
use crate::envoy::process::free_port;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The cluster that the module posts to: Envoy's own listener.
const COPIED: &str = "phoenix_reports_copied";
/// That of the shipped configuration, with mutual TLS.
const CONTROL: &str = "phoenix_reports";
/// Where `phoenix top` listens.
const TOP: &str = "phoenix_top";
/// Where listeners begin.
const LISTENERS: &str = "  listeners:\n";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// The module's settings in Envoy.
pub fn settings() -> Value {
    json!({
        "emit": { "cluster": "phoenix_emit", "authority": "otlp", "path": "/v1/metrics" },
        "report": { "cluster": COPIED, "authority": "localhost", "interval": interval() },
    })
}

/// `envoy/controlled.yaml`, whose list of clusters ends it, with the listener and two clusters.
///
/// # Errors
/// It has no listeners, or there is no free port.
pub fn with_a_copy(yaml: &str, to: SocketAddr) -> anyhow::Result<String> {
    let here = free_port()?;
    let socket = |address: SocketAddr| {
        let (host, port) = (address.ip(), address.port());
        format!("{{ socket_address: {{ address: {host}, port_value: {port} }} }}")
    };
    let listener = format!(
        r#"  listeners:
  - name: reports
    address: {address}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {MANAGER}
          stat_prefix: reports
          http_filters: [{{ name: envoy.filters.http.router, typed_config: {{ "@type": {ROUTER} }} }}]
          route_config:
            virtual_hosts:
            - name: reports
              domains: ["*"]
              routes: [{{ match: {{ path: /v1/reports }}, route: {{ cluster: {CONTROL}, request_mirror_policies: [{{ cluster: {TOP} }}] }} }}]
"#,
        address = socket(here)
    );
    let cluster = |name: &str, address: SocketAddr| {
        let endpoint = socket(address);
        format!(
            "  - name: {name}\n    connect_timeout: 1s\n    type: STATIC\n    load_assignment:\n      cluster_name: {name}\n      \
             endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {endpoint} }} }}] }}]\n",
        )
    };
    let yaml = replaced(yaml, LISTENERS, &listener)?;
    Ok(format!("{}\n{}{}", yaml.trim_end(), cluster(COPIED, here), cluster(TOP, to)))
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
