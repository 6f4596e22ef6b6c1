//! The command line of `phoenix control`.

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use phoenix_serve::grants::Grants;
use phoenix_serve::publish::extension::Module;
use phoenix_serve::role::{Access, Grant};
use phoenix_serve::tls::Files;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where things are.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// What people want: YAML, docs/policy.md. Read again when it changes; one that is refused leaves the one before in force.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// What must survive; made when there is none. The audit log stands beside it as FILE.audit.jsonl.
    #[arg(long, value_name = "FILE")]
    pub state: PathBuf,
    /// Where reports and questions come in, and plans go out. Anything but loopback needs --certificate.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18443")]
    pub listen: SocketAddr,
    /// This server's certificate chain, PEM. Read again when it changes.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Authorities of clients, PEM. Without it clients need bearer tokens.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub client_ca: Option<PathBuf>,
    /// Who may do what: YAML, docs/control.md. Read again when it changes; one that is refused leaves the one before in force. Without it plain text from loopback may do everything, and nobody else anything.
    #[arg(long, value_name = "FILE")]
    pub access: Option<PathBuf>,
    /// Connections that may stand at one time: an embedder has two.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub connections_max: usize,
    /// Path of phoenix_envoy.wasm where Envoys run.
    #[arg(long, value_name = "PATH", default_value = "target/phoenix/phoenix_envoy.wasm")]
    pub module: String,
    /// The module's settings in Envoy (`envoy` in docs/envoy.md), JSON. Left out: folded points and reports go to the clusters of envoy/controlled.yaml.
    #[arg(long, value_name = "FILE")]
    pub envoy: Option<PathBuf>,
    /// Logs and traces.
    #[command(flatten)]
    pub watch: super::watch::Wish,
    /// A folder in which phoenix.yaml is replaced by the plan of this node, for an Envoy that watches it; may be repeated.
    #[arg(long = "file", value_name = "NODE=FOLDER", value_parser = node_and_folder)]
    pub files: Vec<(String, PathBuf)>,
}

fn node_and_folder(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=').filter(|(node, folder)| !node.is_empty() && !folder.is_empty()) {
        Some((node, folder)) => Ok((node.to_owned(), PathBuf::from(folder))),
        None => Err("allowed: the id of a node, =, a folder".to_owned()),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Lines {
    access: Vec<Grant>,
}

fn read_access(path: &std::path::Path) -> Result<Access> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
    // Only what is wrong and where: the lines themselves may hold a token that somebody typed.
    let lines: Lines = serde_saphyr::from_str(&text).map_err(|error| {
        let text = error.to_string();
        anyhow!("{name}: {}", text.lines().next().unwrap_or("not YAML"))
    })?;
    anyhow::ensure!(!lines.access.is_empty(), "{name}: access: empty; allowed: a grant at least");
    Access::new(lines.access).map_err(|why| anyhow!("{name}: {why}"))
}

impl Arguments {
    /// Certificates, if there is TLS.
    pub fn tls(&self) -> Option<Files> {
        let (certificate, key) = (self.certificate.clone()?, self.key.clone()?);
        Some(Files { certificate, key, client_ca: self.client_ca.clone() })
    }

    /// Who may do what.
    pub fn grants(&self) -> Result<Grants> {
        let Some(path) = self.access.clone() else {
            return Access::new(Vec::new()).map(Grants::fixed).map_err(|why| anyhow!(why));
        };
        let of = path.clone();
        Grants::watched(path, move || read_access(&of).map_err(|error| format!("{error:#}")))
            .map_err(|why| anyhow!(why))
    }

    /// The module, as Envoy finds it.
    pub fn module(&self) -> Module {
        Module { name: "phoenix".to_owned(), vm_id: "phoenix".to_owned(), filename: self.module.clone() }
    }

    /// Where the audit log is.
    pub fn audit_path(&self) -> PathBuf {
        let mut name = self.state.clone().into_os_string();
        name.push(".audit.jsonl");
        name.into()
    }

    /// The module's settings in Envoy.
    pub fn settings(&self, interval: &str) -> Result<Value> {
        let Some(path) = &self.envoy else {
            return Ok(json!({
                "emit": {"cluster": "phoenix_emit", "authority": "otlp", "path": "/v1/metrics"},
                "report": {"cluster": "phoenix_reports", "authority": "localhost", "interval": interval}
            }));
        };
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
        serde_json::from_str(&text).with_context(|| name)
    }
}
