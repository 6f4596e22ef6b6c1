//! The process: start, end, start again.
//!
//! In: the program, a configuration of its streaming aggregation, where to write to. Out: a running [`Vmagent`] with one processor's worth of Go
//! (`GOMAXPROCS=1`), on a free port of the loopback, its queue in a temporary folder. Options beside those: its own remote write protocol
//! (zstd), which costs it less than the one of Prometheus and is what it chooses where the receiver permits; no metadata and no labels of the scope, which nobody reads here;
//! connections that live as long as the bench. Everything else is its default. Dropping it kills its process and no other.

use crate::sender::get;
use anyhow::{Context as _, bail, ensure};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where it takes OTLP.
pub const PATH: &str = "/opentelemetry/v1/metrics";
/// Longest wait until it is ready, or has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look.
const LOOK: Duration = Duration::from_millis(20);
/// How often starting is tried, should the port be taken meanwhile.
const STARTS_MAX: u32 = 3;
/// Counters of points that came in over OTLP, and of those that met a rule.
const ROWS: &str = "vm_protoparser_rows_read_total{type=\"opentelemetry\"}";
const MATCHED: &str = "vm_streamaggr_matched_samples_total{";

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub binary: PathBuf,
    /// The file for `-remoteWrite.streamAggr.config`.
    pub aggregation: String,
    /// Who takes remote write.
    pub sink: SocketAddr,
}

/// A running vmagent.
pub struct Vmagent {
    child: Child,
    address: SocketAddr,
    options: Options,
    folder: TempDir,
}

impl Vmagent {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It does not start; the text ends with its log.
    pub fn start(options: Options) -> anyhow::Result<Vmagent> {
        let mut tries = 1;
        loop {
            let folder = tempfile::tempdir()?;
            fs::write(folder.path().join("aggregation.yaml"), &options.aggregation)?;
            let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
            let child = launch(&options, &folder, address)?;
            let mut started = Vmagent { child, address, options: options.clone(), folder };
            match started.wait_ready() {
                Ok(()) => return Ok(started),
                Err(_) if tries < STARTS_MAX && started.log().contains("address already in use") => {
                    tries += 1
                }
                Err(error) => return Err(error.context(format!("vmagent's log:\n{}", started.log()))),
            }
        }
    }

    /// Starts it after its end, with the same port and folder.
    ///
    /// # Errors
    /// It has not ended, or does not start.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.try_wait()?.is_some(), "vmagent has not ended");
        self.child = launch(&self.options, &self.folder, self.address)?;
        self.wait_ready().with_context(|| format!("vmagent's log:\n{}", self.log()))
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while get(self.address, "/health").is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("vmagent ended while starting: {status}");
            }
            ensure!(begin.elapsed() < PATIENCE, "vmagent is not ready after {PATIENCE:?}");
            sleep(LOOK);
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it read so many points, and have so many met a rule?
    ///
    /// # Errors
    /// It has not.
    pub fn check(&self, points: u64, matched: u64) -> anyhow::Result<()> {
        let page = get(self.address, "/metrics")?;
        let sum = |name: &str| -> f64 {
            let lines = page.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        let seen = (sum(ROWS), sum(MATCHED));
        ensure!(
            seen == (points as f64, matched as f64),
            "vmagent: of {points} points {matched} should be folded, it says {seen:?}"
        );
        Ok(())
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        let pid = self.pid().to_string();
        // The standard library sends no signals; every shell does.
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).status()?;
        ensure!(sent.success(), "kill -TERM {pid}: {sent}");
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(begin.elapsed() < PATIENCE, "vmagent does not end on SIGTERM");
            sleep(LOOK);
        }
        Ok(())
    }

    /// SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// The process is not ours any more.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("vmagent.log")).unwrap_or_default()
    }
}

impl Drop for Vmagent {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.kill();
    }
}

fn launch(options: &Options, folder: &TempDir, address: SocketAddr) -> anyhow::Result<Child> {
    let at = |name: &str| folder.path().join(name).display().to_string();
    let log = fs::File::options().append(true).create(true).open(folder.path().join("vmagent.log"))?;
    let log_too = log.try_clone()?;
    Command::new(&options.binary)
        .env("GOMAXPROCS", "1")
        .arg(format!("-httpListenAddr={address}"))
        .arg(format!("-remoteWrite.url=http://{}/api/v1/write", options.sink))
        .arg(format!("-remoteWrite.tmpDataPath={}", at("queue")))
        .arg(format!("-remoteWrite.streamAggr.config={}", at("aggregation.yaml")))
        .args(["-remoteWrite.forceVMProto=true", "-enableMetadata=false"])
        .arg("-opentelemetry.promoteScopeMetadata=false")
        .args(["-http.connTimeout=1h", "-loggerLevel=WARN"])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too)
        .spawn()
        .with_context(|| format!("start {}", options.binary.display()))
}
