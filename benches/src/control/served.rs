//! The running control host: a whole fleet's reports over HTTP, and how long a plan takes to a real Envoy.
//!
//! In: the fleet's size, `phoenix` beside this program, Envoy. Out: the process' peak of resident memory, its CPU time for a round of reports, what a turn takes with everything
//! around the stages (state on disk, audit log, publication), reports that were not taken; then, with that fleet still known and again with a small one, pushes
//! of a plan to an Envoy on `envoy/controlled.yaml`: from the beginning of the turn, from the decision and from the sending, until Envoy has acknowledged. Plain text on loopback.

use super::fleet::{MEMORY_MAX, peak_bytes, policy_text};
use super::reports::Fleet;
use crate::figures::{Figures, Target};
use crate::measure::{median, process_ns};
use crate::sender::Sender;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Method;
use phoenix_control::collect::Settings;
use phoenix_control::policy::Policy;
use phoenix_host_test::envoy::config::shipped;
use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::envoy::{Envoy, EnvoyOptions};
use phoenix_host_test::prometheus::http1::send;
use phoenix_host_test::shop::run::unix_ns;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// From a decision to enforcement.
const ENFORCED_MS: f64 = 1_000.0;
/// Longest wait for a turn, or for a plan to be taken, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks: short beside what is measured, which the control host's own clock takes anyway.
const LOOK: Duration = Duration::from_millis(20);
/// Rounds of reports.
const ROUNDS: u64 = 3;
/// The node that is a real Envoy.
const NODE: &str = "gateway-real";

/// Sizes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Embedders that report.
    pub embedders: usize,
    /// Their metrics.
    pub metrics: usize,
    /// Plans that are pushed.
    pub pushes: usize,
}

/// `phoenix control`, until it is dropped.
struct Control {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
    base: String,
}

impl Control {
    fn start(base: String) -> anyhow::Result<Control> {
        let program = std::env::current_exe()?.with_file_name("phoenix");
        ensure!(program.exists(), "there is no {}: `cargo xtask bench control` builds it", program.display());
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("policy.yaml"), &base)?;
        let mut child = Command::new(program)
            .args(["control", "--listen", "127.0.0.1:0", "--policy"])
            .arg(folder.path().join("policy.yaml"))
            .arg("--state")
            .arg(folder.path().join("state.redb"))
            .arg("--module")
            .arg(module()?)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("phoenix control: http://").map(str::parse);
        let address = address.with_context(|| format!("phoenix control: {line:?}"))??;
        Ok(Control { child, address, folder, base })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        let (status, body) = send(self.address, Method::GET, path, None, Bytes::new()).await?;
        ensure!(status == 200, "{path}: status {status}");
        Ok(body)
    }

    async fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.get("/api/v1/status").await?)?)
    }

    /// A number of its own metrics; the sum over labels that `labels` is found in.
    async fn number(&self, name: &str, labels: &str) -> anyhow::Result<f64> {
        let text = self.get("/metrics").await?;
        let text = std::str::from_utf8(&text)?;
        let of = text.lines().filter(|line| {
            line.strip_prefix("phoenix_control_").is_some_and(|line| line.starts_with(name))
                && line.contains(labels)
        });
        Ok(of.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Waits for a turn that began after now, and what it took in seconds.
    async fn turn(&self) -> anyhow::Result<f64> {
        let (asked_ns, begin) = (unix_ns(), Instant::now());
        loop {
            let at_ns: u64 =
                self.status().await?["at_unix_nano"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
            if at_ns > asked_ns {
                return self.number("turn_seconds", "").await;
            }
            ensure!(begin.elapsed() < PATIENCE, "no turn within {PATIENCE:?}");
            sleep(LOOK).await;
        }
    }

    /// Another declared fold, of a metric that nobody has: every plan says something new.
    fn push(&self, number: usize) -> anyhow::Result<()> {
        let fold = format!(
            "folds:\n- {{ name: push-{number}, metric: {{ exact: nobody.has.this.{number} }}, labels: {{ drop: {{ attributes: [user_id] }} }} }}\n"
        );
        let path = self.folder.path().join("policy.yaml");
        let new = path.with_extension("new");
        fs::write(&new, format!("{}{fold}", self.base))?;
        Ok(fs::rename(new, path)?)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn module() -> anyhow::Result<PathBuf> {
    let path = crate::wasm::folder().join("phoenix_envoy.wasm");
    path.canonicalize().with_context(|| path.display().to_string())
}

/// `envoy/controlled.yaml` on these ports, in plain text.
fn controlled(gateway: &str, control: SocketAddr, module: &Path) -> anyhow::Result<String> {
    let port = |after: &str| -> Option<String> {
        let rest = gateway.split_once(after)?.1.split_once("port_value: ")?.1;
        Some(rest.split(|c: char| !c.is_ascii_digit()).next()?.to_owned())
    };
    let mut yaml = shipped("envoy/controlled.yaml")?;
    let (admin, listener) = port("admin:").zip(port("listeners:")).context("ports of the gateway")?;
    for (default, value) in [("9901", &admin), ("4318", &listener), ("18443", &control.port().to_string())] {
        let default = format!("port_value: {default} ");
        ensure!(yaml.contains(&default), "{default}");
        yaml = yaml.replace(&default, &format!("port_value: {value} "));
    }
    let (head, rest) = yaml.split_once("    transport_socket: &control_tls").context("TLS")?;
    let (_, rest) = rest.split_once("    load_assignment: &control_address").context("TLS")?;
    yaml = format!("{head}    load_assignment: &control_address{rest}")
        .replace("    transport_socket: *control_tls\n", "");
    Ok(yaml
        .replace("id: phoenix-gateway,", &format!("id: {NODE},"))
        .replace("filename: target/phoenix/phoenix_envoy.wasm", &format!("filename: {}", module.display())))
}

/// Milliseconds to an acknowledgement of Envoy.
#[derive(Default)]
struct Latency {
    /// From the beginning of the turn: reports are read and the fleet is estimated before anything is decided.
    from_turn: Vec<f64>,
    /// From the decision: it is kept on disk and published.
    from_decision: Vec<f64>,
    /// From the sending.
    from_sent: Vec<f64>,
}

impl Latency {
    fn spread(self, figures: &mut Figures, name: &str) {
        for (what, values, is_bound) in [
            ("turned", self.from_turn, false),
            ("enforced", self.from_decision, true),
            ("pushed", self.from_sent, false),
        ] {
            let max = values.iter().copied().fold(0.0, f64::max);
            figures.add(format!("{name}.{what}.median"), median(values), "ms");
            if is_bound {
                figures.bound(format!("{name}.{what}.max"), max, "ms", Target::AtMost(ENFORCED_MS));
            } else {
                figures.add(format!("{name}.{what}.max"), max, "ms");
            }
        }
    }
}

/// Pushes plans to a real Envoy.
async fn pushes(control: &Control, many: usize) -> anyhow::Result<Latency> {
    let (address, path) = (control.address, module()?);
    let options = EnvoyOptions {
        binary: find_binary()?,
        module: path.clone(),
        plugin_config: "{}".to_owned(),
        // Nobody sends anything.
        upstream: address,
        workers: 1,
        folder: None,
        drain_seconds: 1,
    };
    let envoy = Envoy::start_edited(options, |yaml| {
        controlled(&yaml, address, &path).unwrap_or_else(|error| format!("# {error:#}"))
    })
    .await?;
    let mut latency = Latency::default();
    let (mut known, mut known_plan) = (String::new(), Value::Null);
    for number in 0..=many {
        if number > 0 {
            control.push(number)?;
        }
        let begin = Instant::now();
        // Beginning and decision of the turn that made the plan new.
        let mut turn: Option<(u64, u64)> = None;
        loop {
            let status = control.status().await?;
            let at = |field: &str| status[field].as_str().and_then(|text| text.parse::<u64>().ok());
            if status["plan_version"] != known_plan {
                known_plan = status["plan_version"].clone();
                turn = turn.or(at("at_unix_nano").zip(at("decided_at_unix_nano")));
            }
            let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
            let said = nodes.iter().find(|it| it["id"] == NODE).map_or(&Value::Null, |it| &it["said"]);
            ensure!(said["refused"].is_null(), "refused: {}\n{}", said["refused"], envoy.log());
            let version = said["taken"][0].as_str().unwrap_or_default();
            if !version.is_empty() && version != known && said["sent"][0] == version {
                known = version.to_owned();
                let at = |of: &str| said[of][1].as_u64().unwrap_or(0);
                if let (true, Some((began, decided)), Some(took)) =
                    (number > 0, turn, said["took_ns"].as_u64())
                {
                    latency.from_turn.push(at("taken").saturating_sub(began) as f64 / 1e6);
                    latency.from_decision.push(at("taken").saturating_sub(decided) as f64 / 1e6);
                    latency.from_sent.push(took as f64 / 1e6);
                }
                break;
            }
            ensure!(begin.elapsed() < PATIENCE, "push {number} was not taken: {said}\n{}", envoy.log());
            sleep(LOOK).await;
        }
    }
    ensure!(latency.from_turn.len() == many, "{} of {many} pushes were seen", latency.from_turn.len());
    Ok(latency)
}

/// Runs it; reports that were not taken, in words.
///
/// # Errors
/// No `phoenix`, no Envoy, or a control host that does not answer.
pub async fn run(options: Options, figures: &mut Figures) -> anyhow::Result<Vec<String>> {
    let Options { embedders, metrics, pushes: many } = options;
    // Those that are left alone are forgotten only after the last push.
    let base = format!(
        "{}reports: {{ silent_after: 10m, forget_after: 30m }}\n",
        policy_text(embedders, metrics, "10s")
    );
    let control = Control::start(base.clone())?;
    let pid = control.child.id();
    let key = Settings::of(&Policy::parse(&base)?).key;
    let fleet = Fleet { embedders, workers: 1, metrics, key, began_ns: unix_ns() };
    let (mut turns, mut refusals) = (Vec::new(), Vec::new());
    let before_ns = process_ns(pid)?;
    for round in 0..ROUNDS {
        // Between two rounds the server closes a connection that is idle.
        let mut sender = Sender::new(control.address, "/v1/reports");
        for embedder in 0..embedders {
            let body = fleet.report(embedder, 0, round, unix_ns(), 0);
            refusals
                .extend(sender.post(&body).err().map(|error| format!("{}: {error:#}", fleet.name(embedder))));
        }
        turns.push(control.turn().await?);
    }
    let spent_s = process_ns(pid)?.saturating_sub(before_ns) as f64 / 1e9;
    let all = control.number("reports_total", "").await?;
    let taken = control.number("reports_total", "\"taken\"").await?;
    figures.bound("served.refused", (all - taken).max(refusals.len() as f64), "reports", Target::AtMost(0.0));
    ensure!(taken > 0.0, "no report was taken");
    figures.add("served.cpu", spent_s, "s/3 rounds");
    figures.add("served.turn", median(turns.iter().skip(1).copied()), "s");
    pushes(&control, many.div_ceil(4)).await?.spread(figures, "served");
    figures.bound("served.memory", peak_bytes(pid)? as f64, "bytes", Target::AtMost(MEMORY_MAX));
    drop(control);

    let control = Control::start(policy_text(1, super::reports::TENANTS, "1s"))?;
    pushes(&control, many).await?.spread(figures, "small");
    Ok(refusals)
}
