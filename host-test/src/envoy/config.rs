//! The shipped configurations with other ports and paths.
//!
//! In: `envoy/gateway.yaml` and `envoy/ecds/phoenix.yaml` as they lie in the project. Out: the same text with the documented defaults
//! replaced. Textual on purpose: a parsed and rewritten YAML would be another file. Refuses when a default is not in the
//! text, so that the files and this one cannot drift apart.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The documented ports of `envoy/gateway.yaml`.
const LISTENER: &str = "port_value: 4318 ";
const ADMIN: &str = "port_value: 9901 ";
const UPSTREAM_HTTP: &str = "port_value: 14318 ";
const UPSTREAM_GRPC: &str = "port_value: 14317 ";
/// The watched file and its folder.
const ECDS_FILE: &str = "path: envoy/ecds/phoenix.yaml";
const ECDS_FOLDER: &str = "{ path: envoy/ecds }";
/// What `envoy/controlled.yaml` documents besides.
const CONTROL: &str = "port_value: 18443 ";
const NODE: &str = "id: phoenix-gateway,";
const CERTIFICATE: &str = "filename: certs/phoenix-gateway.pem";
const KEY: &str = "filename: certs/phoenix-gateway.key";
const AUTHORITY: &str = "filename: certs/ca.pem";
const CERTIFICATES: &str = "{ path: certs }";
/// Where the module lies.
const MODULE: &str = "target/phoenix/phoenix_envoy.wasm";
/// The last lines of `envoy/ecds/phoenix.yaml`: the configuration is an indented block after this one.
const PLUGIN_CONFIGURATION: &str = "        value: |\n";
/// The indent of that block.
const INDENT: &str = "          ";

/// The addresses of one gateway.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Where OTLP comes in.
    pub listener: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
    /// The backend, for HTTP and gRPC alike.
    pub upstream: SocketAddr,
}

/// A gateway whose plans come from a control host.
#[derive(Clone, Debug)]
pub struct Controlled {
    /// `node.id`, and the name of its certificate.
    pub node: String,
    /// The control host.
    pub control: SocketAddr,
    /// `ca.pem`, and certificate and key by the node's name.
    pub certificates: PathBuf,
}

/// The root of the project.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// `envoy/gateway.yaml` for these addresses; the watched file is `phoenix.yaml` in `ecds`.
///
/// # Errors
/// The file is not there, or a documented default is not in it.
pub fn gateway(addresses: Addresses, ecds: &Path) -> anyhow::Result<String> {
    let mut text = shipped("envoy/gateway.yaml")?;
    let port = |address: SocketAddr| format!("port_value: {} ", address.port());
    for (default, value) in [
        (LISTENER, port(addresses.listener)),
        (ADMIN, port(addresses.admin)),
        (UPSTREAM_HTTP, port(addresses.upstream)),
        (UPSTREAM_GRPC, port(addresses.upstream)),
        (ECDS_FILE, format!("path: {}", ecds.join("phoenix.yaml").display())),
        (ECDS_FOLDER, format!("{{ path: {} }}", ecds.display())),
    ] {
        text = replaced(&text, default, &value)?;
    }
    Ok(text)
}

/// `envoy/controlled.yaml` for these addresses, this module and this control host.
///
/// # Errors
/// The file is not there, or a documented default is not in it.
pub fn controlled(addresses: Addresses, module: &Path, of: &Controlled) -> anyhow::Result<String> {
    let mut text = shipped("envoy/controlled.yaml")?;
    let port = |address: SocketAddr| format!("port_value: {} ", address.port());
    let (node, certificates) = (&of.node, of.certificates.display());
    for (default, value) in [
        (LISTENER, port(addresses.listener)),
        (ADMIN, port(addresses.admin)),
        (UPSTREAM_HTTP, port(addresses.upstream)),
        (UPSTREAM_GRPC, port(addresses.upstream)),
        (CONTROL, port(of.control)),
        (NODE, format!("id: {node},")),
        (CERTIFICATE, format!("filename: {certificates}/{node}.pem")),
        (KEY, format!("filename: {certificates}/{node}.key")),
        (AUTHORITY, format!("filename: {certificates}/ca.pem")),
        (CERTIFICATES, format!("{{ path: {certificates} }}")),
        (MODULE, module.display().to_string()),
    ] {
        text = replaced(&text, default, &value)?;
    }
    Ok(text)
}

/// `envoy/ecds/phoenix.yaml` with this module and plugin configuration.
///
/// # Errors
/// The file is not there, or is not as documented.
pub fn ecds(module: &Path, plugin_config: &str) -> anyhow::Result<String> {
    let text = replaced(&shipped("envoy/ecds/phoenix.yaml")?, MODULE, &module.display().to_string())?;
    let (head, _) =
        text.split_once(PLUGIN_CONFIGURATION).context("envoy/ecds/phoenix.yaml: no `value: |`")?;
    let block: String = plugin_config.lines().map(|line| format!("{INDENT}{line}\n")).collect();
    Ok(format!("{head}{PLUGIN_CONFIGURATION}{block}"))
}

/// The plugin configuration inside `envoy/ecds/phoenix.yaml`.
///
/// # Errors
/// The file is not there, or is not as documented.
pub fn shipped_plugin_config() -> anyhow::Result<String> {
    let text = shipped("envoy/ecds/phoenix.yaml")?;
    let (_, block) =
        text.split_once(PLUGIN_CONFIGURATION).context("envoy/ecds/phoenix.yaml: no `value: |`")?;
    Ok(block.lines().map(|line| format!("{}\n", line.strip_prefix(INDENT).unwrap_or(line))).collect())
}

/// `envoy/plan/shop.json`: the plan of the web shop and the module's settings for Envoy.
///
/// # Errors
/// The file is not there, or is not JSON.
pub fn shop_plugin_config() -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&shipped("envoy/plan/shop.json")?)?)
}

/// A file of the project.
///
/// # Errors
/// It is not there.
pub fn shipped(path: &str) -> anyhow::Result<String> {
    let full = project().join(path);
    fs::read_to_string(&full).with_context(|| format!("read {}", full.display()))
}

/// A text with something else in the place of a documented default.
///
/// # Errors
/// The default is not in it.
pub fn replaced(text: &str, default: &str, value: &str) -> anyhow::Result<String> {
    ensure!(
        text.contains(default),
        "the shipped configuration does not hold its documented default {default:?}"
    );
    Ok(text.replace(default, value))
}
