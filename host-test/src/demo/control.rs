//! The control host of the demo: `phoenix control` itself, with certificates, roles and a state of this run.
//!
//! In: a folder, the command line `phoenix`. Out: a running [`Control`] that is asked over mutual TLS as a person would ask it. Everything it works with is made here, and lies in the
//! folder when the run is over: certificates, the policy, the state, the audit log.

/// Questions over TLS.
pub mod ask;

use super::{gateways, policy, reports};
use anyhow::{Context as _, ensure};
use ask::Client;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Who asks: the name in its certificate.
const PERSON: &str = "demo";
/// Longest wait for the port.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for its end.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// What it says when it listens.
const READY: &str = "phoenix control: https://";
/// Bytes of the hash that make a version.
const VERSION_BYTES: usize = 8;
/// Decisions that are asked for.
const DECISIONS: usize = 1_000;

/// A running control host.
#[derive(Debug)]
pub struct Control {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
    phoenix: PathBuf,
    client: Client,
    /// While it is open, nobody else runs in the folder.
    _lock: fs::File,
}

impl Control {
    /// Makes certificates, roles and the policy, and starts the control host; the shop is observed.
    ///
    /// # Errors
    /// It does not start; the text ends with its log.
    pub async fn start(phoenix: &Path, module: &Path, folder: &Path) -> anyhow::Result<Self> {
        ensure!(
            phoenix.is_file(),
            "no {}: run `cargo build -p phoenix-control --bin phoenix`",
            phoenix.display()
        );
        let module = module
            .canonicalize()
            .with_context(|| format!("no module at {}: run `cargo xtask build`", module.display()))?;
        folder.parent().map_or(Ok(()), fs::create_dir_all)?;
        let lock = fs::File::create(folder.with_extension("lock"))?;
        // The other one would go on with certificates that nobody knows.
        lock.try_lock()
            .with_context(|| format!("{}: another demo runs there; allowed: one", folder.display()))?;
        // What an earlier run left is another run's.
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        let certificates = folder.join("certs");
        let mut certs = Command::new(phoenix);
        certs.args(["certs", "--person", PERSON, "--out"]).arg(&certificates);
        gateways::NODES.iter().for_each(|node| {
            certs.args(["--embedder", node]);
        });
        let made = certs.output().await.context("phoenix certs")?;
        ensure!(made.status.success(), "phoenix certs: {}", String::from_utf8_lossy(&made.stderr).trim());
        fs::write(folder.join("access.yaml"), access())?;
        fs::write(folder.join("envoy.json"), reports::settings().to_string())?;
        write_policy(&folder, false)?;
        let log = fs::File::create(folder.join("control.log"))?;
        let files = [
            ("--policy", folder.join("policy.yaml")),
            ("--state", folder.join("control.redb")),
            ("--access", folder.join("access.yaml")),
            ("--envoy", folder.join("envoy.json")),
            ("--certificate", certificates.join("control.pem")),
            ("--key", certificates.join("control.key")),
            ("--client-ca", certificates.join("ca.pem")),
            ("--module", module),
        ];
        let mut child = Command::new(phoenix)
            .args(["control", "--listen", "127.0.0.1:0"])
            .args(files.iter().flat_map(|(flag, file)| [OsStr::new(flag), file.as_os_str()]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", phoenix.display()))?;
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().context("no standard output")?);
        let read = timeout(READY_TIMEOUT, said.read_line(&mut line)).await;
        let address = line.trim().strip_prefix(READY).and_then(|address| address.parse().ok());
        let address = address.with_context(|| {
            let log = fs::read_to_string(folder.join("control.log")).unwrap_or_default();
            format!("phoenix control said {line:?} ({read:?}):\n{log}")
        })?;
        let client = Client::new(address, &certificates, PERSON)?;
        Ok(Self { child, address, folder, phoenix: phoenix.to_path_buf(), client, _lock: lock })
    }

    /// Its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its certificates lie.
    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certs")
    }

    /// From now on it does what it decides.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn let_it_act(&self) -> anyhow::Result<()> {
        write_policy(&self.folder, true)
    }

    /// What it says of itself and of its embedders.
    ///
    /// # Errors
    /// It does not answer, or not well.
    pub async fn status(&self) -> anyhow::Result<Value> {
        self.client.get("/api/v1/status").await
    }

    /// What it has decided, oldest first.
    ///
    /// # Errors
    /// It does not answer, or not well.
    pub async fn decisions(&self) -> anyhow::Result<Vec<Value>> {
        let all = self.client.get(&format!("/api/v1/decisions?limit={DECISIONS}")).await?;
        let mut all = all.as_array().cloned().unwrap_or_default();
        all.reverse();
        Ok(all.into_iter().map(|mut it| it["decision"].take()).collect())
    }

    /// What it has published for a gateway: the plan, and the version under which Envoy has it, a hash of the text.
    ///
    /// # Errors
    /// It does not answer, or not well.
    pub async fn plan(&self, node: &str) -> anyhow::Result<(Value, String)> {
        let text = self.client.body(&format!("/api/v1/plan?node={node}")).await?;
        let version =
            Sha256::digest(&text)[..VERSION_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut whole: Value = serde_json::from_slice(&text)?;
        Ok((whole["plan"].take(), version))
    }

    /// What a person types to ask it with a verb of `phoenix`.
    pub fn command(&self, verb: &str) -> String {
        let here = std::env::current_dir().unwrap_or_default();
        let shown = |path: &Path| path.strip_prefix(&here).unwrap_or(path).display().to_string();
        let (phoenix, certs) = (shown(&self.phoenix), shown(&self.certificates()));
        let port = self.address.port();
        format!(
            "{phoenix} {verb} --server https://localhost:{port} --ca {certs}/ca.pem --certificate {certs}/{PERSON}.pem --key {certs}/{PERSON}.key"
        )
    }

    /// Ends it, and has its audit log checked by `phoenix audit verify`; the failure, if there is one.
    ///
    /// # Errors
    /// The program does not start.
    pub async fn end(mut self) -> anyhow::Result<Result<String, String>> {
        // The hash that it said last: of a log that was cut off at its end nothing else tells.
        let head = self.status().await?["audit"]["hash"].as_str().unwrap_or_default().to_owned();
        // SIGTERM, as a supervisor ends it: a line of the log is not cut in two. The standard library sends no signals; every shell does.
        let id = self.child.id().context("the control host has ended")?.to_string();
        Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &id]).status().await?;
        timeout(END_TIMEOUT, self.child.wait())
            .await
            .context("the control host does not end on SIGTERM")??;
        let log = self.folder.join("control.redb.audit.jsonl");
        let verified = Command::new(&self.phoenix).args(["audit", "verify"]).arg(&log).output().await;
        let verified = verified.context("phoenix audit verify")?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let text = fs::read_to_string(&log).unwrap_or_default();
        Ok(match verified.status.success() {
            true if !head.is_empty() && text.contains(&head) => {
                let folder = format!("{}/", self.folder.display());
                Ok(said(&verified.stdout).replace(&folder, ""))
            }
            true => Err(format!("the audit log has no line {head:?}, which was its last")),
            false => Err(format!("phoenix audit verify: {}", said(&verified.stderr))),
        })
    }
}

/// Renamed into place: whoever reads it sees one or the other.
fn write_policy(folder: &Path, is_auto: bool) -> anyhow::Result<()> {
    let next = folder.join("policy.yaml.next");
    fs::write(&next, policy::text(is_auto)?)?;
    fs::rename(&next, folder.join("policy.yaml")).context("policy.yaml")
}

/// Each gateway may speak for itself, and the demo may look at everything: plans have the key, which is an admin's to see.
fn access() -> String {
    let gateway =
        |node: &&str| format!("- {{ name: {node}, role: embedder, certificate: {node}, nodes: [{node}] }}\n");
    let gateways: String = gateways::NODES.iter().map(gateway).collect();
    format!("access:\n{gateways}- {{ name: {PERSON}, role: admin, certificate: {PERSON} }}\n")
}
