//! The process: start, ask, kill.
//!
//! In: [`Options`]. Out: a running [`Prometheus`] on a free port of the loopback, its storage in a temporary folder. Another process may take the port
//! between choosing and binding, so starting is tried again. Dropping it kills its process and no other.

use super::OTLP_PATH;
use super::answer::{self, Labels, Series};
use super::http1::{query_string, send};
use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::Method;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary; see [`find_binary`].
    pub binary: PathBuf,
    /// `storage.tsdb.out_of_order_time_window`: how much older than the newest sample one may be.
    pub out_of_order_window: Duration,
    /// `otlp.promote_resource_attributes`: what the plan lists as `promoted_resource_attributes`.
    pub promote_resource_attributes: Vec<String>,
    /// `--web.enable-remote-write-receiver`.
    pub has_remote_write: bool,
    /// `--enable-feature`, each.
    pub features: Vec<String>,
    /// `--query.lookback-delta`: how long a sample stands, five minutes by default.
    pub lookback: Option<Duration>,
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

/// Longest wait until it is ready: an empty storage opens at once, a busy machine starts a program of 100 MB slowly.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often starting is tried, should the port be taken meanwhile.
const STARTS_MAX: u32 = 3;
/// Lines of the log that an error shows.
const LOG_LINES: usize = 20;

/// `$PHOENIX_PROMETHEUS`, if it is set.
///
/// # Errors
/// It names no file.
pub fn find_binary() -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = env::var_os("PHOENIX_PROMETHEUS").filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    ensure!(path.is_file(), "PHOENIX_PROMETHEUS names no file: {}", path.display());
    Ok(Some(path))
}

/// The configuration file: nothing is scraped.
pub fn config_yaml(options: &Options) -> String {
    let mut yaml = String::from("# Written by the test.\nglobal: { scrape_interval: 1h }\notlp:\n");
    // JSON strings are YAML strings.
    let promoted = serde_json::Value::from(options.promote_resource_attributes.clone());
    let _ = writeln!(yaml, "  promote_resource_attributes: {promoted}");
    let window_s = options.out_of_order_window.as_secs();
    let _ = writeln!(yaml, "storage:\n  tsdb: {{ out_of_order_time_window: {window_s}s }}");
    yaml
}

impl Prometheus {
    /// Starts Prometheus and waits until it is ready.
    ///
    /// # Errors
    /// It does not start; the text ends with its log.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let mut tries = 1;
        loop {
            let mut started = Self::spawn(&options)?;
            match started.wait_ready().await {
                Ok(()) => return Ok(started),
                Err(_) if tries < STARTS_MAX && started.log().contains("address already in use") => {
                    tries += 1;
                }
                Err(error) => {
                    let kept = started.keep_log();
                    return Err(error.context(format!("log ({}):\n{}", kept.display(), started.log_tail())));
                }
            }
        }
    }

    fn spawn(options: &Options) -> anyhow::Result<Self> {
        let temporary = tempfile::tempdir()?;
        let folder = temporary.path().to_path_buf();
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let config = folder.join("prometheus.yml");
        fs::write(&config, config_yaml(options))?;
        let log = fs::File::create(folder.join("prometheus.log"))?;
        let mut command = Command::new(&options.binary);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--web.enable-otlp-receiver", "--log.level=info"]);
        if options.has_remote_write {
            command.arg("--web.enable-remote-write-receiver");
        }
        if let Some(lookback) = options.lookback {
            command.arg(format!("--query.lookback-delta={}s", lookback.as_secs()));
        }
        if !options.features.is_empty() {
            command.arg(format!("--enable-feature={}", options.features.join(",")));
        }
        let child = command
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", options.binary.display()))?;
        Ok(Self { child, address, folder, temporary: Some(temporary) })
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("Prometheus ended while starting: {status}");
            }
            let asked = send(self.address, Method::GET, "/-/ready", None, Bytes::new()).await;
            if asked.is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            ensure!(begin.elapsed() < READY_TIMEOUT, "Prometheus is not ready after {READY_TIMEOUT:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it takes OTLP over HTTP.
    pub fn otlp_url(&self) -> String {
        format!("http://{}{OTLP_PATH}", self.address)
    }

    /// The process id; `None` once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends one OTLP request, and takes nothing but success.
    ///
    /// # Errors
    /// No answer, or a refusal with Prometheus' own words.
    pub async fn write(&self, body: Bytes) -> anyhow::Result<()> {
        let (status, answer) =
            send(self.address, Method::POST, OTLP_PATH, Some("application/x-protobuf"), body).await?;
        ensure!(status == 200, "OTLP: {status} {}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    /// One expression at one time; the points carry that time.
    ///
    /// # Errors
    /// No answer, or Prometheus' own error.
    pub async fn query(&self, expr: &str, at_ms: i64) -> anyhow::Result<Vec<Series>> {
        let path = format!("/api/v1/query?{}", query_string(&[("query", expr), ("time", &seconds(at_ms))]));
        answer::series(&self.ask(&path).await?).context(expr.to_owned())
    }

    /// One expression at every step from start to end, both included.
    ///
    /// # Errors
    /// No answer, or Prometheus' own error.
    pub async fn query_range(
        &self,
        expr: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> anyhow::Result<Vec<Series>> {
        let (start, end, step) = (seconds(start_ms), seconds(end_ms), seconds(step_ms));
        let pairs = [("query", expr), ("start", &start), ("end", &end), ("step", &step)];
        let path = format!("/api/v1/query_range?{}", query_string(&pairs));
        answer::series(&self.ask(&path).await?).context(expr.to_owned())
    }

    /// The labels of every series that matches and has a sample in the range.
    ///
    /// # Errors
    /// No answer, or Prometheus' own error.
    pub async fn series(&self, matcher: &str, start_ms: i64, end_ms: i64) -> anyhow::Result<Vec<Labels>> {
        let (start, end) = (seconds(start_ms), seconds(end_ms));
        let pairs = [("match[]", matcher), ("start", &start), ("end", &end)];
        let data = self.ask(&format!("/api/v1/series?{}", query_string(&pairs))).await?;
        let mut found: Vec<Labels> =
            data.as_array().context("series")?.iter().map(answer::labels).collect::<anyhow::Result<_>>()?;
        found.sort();
        Ok(found)
    }

    async fn ask(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let (_, body) = send(self.address, Method::GET, path, None, Bytes::new()).await?;
        answer::data(&body)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// The process is not ours any more.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("prometheus.log")).unwrap_or_default()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Keeps the folder after the end and returns the path of the log.
    pub fn keep_log(&mut self) -> PathBuf {
        self.temporary.take().map(tempfile::TempDir::keep);
        self.folder.join("prometheus.log")
    }

    /// The folder with configuration, log and storage.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn seconds(time_ms: i64) -> String {
    format!("{}.{:03}", time_ms.div_euclid(1000), time_ms.rem_euclid(1000))
}
