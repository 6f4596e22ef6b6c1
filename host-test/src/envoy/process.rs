//! The process: start, stop, kill, CPU time, memory.
//!
//! In: [`EnvoyOptions`]. Out: a running [`Envoy`]. Ports are free ones of the loopback; another process may take one between choosing and binding, so
//! starting is tried again. Dropping an [`Envoy`] kills its process and no other.

use super::admin;
use super::config::{Addresses, ecds, gateway};
use anyhow::{Context as _, bail};
use http::Method;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// What to start.
#[derive(Clone, Debug)]
pub struct EnvoyOptions {
    /// The binary; see [`find_binary`].
    pub binary: PathBuf,
    /// The module.
    pub module: PathBuf,
    /// The plugin configuration: plan and settings, JSON.
    pub plugin_config: String,
    /// The backend.
    pub upstream: SocketAddr,
    /// Worker threads.
    pub workers: u32,
    /// Folder for configuration and log; a temporary one that is kept after a failure when `None`.
    pub folder: Option<PathBuf>,
    /// `--drain-time-s`.
    pub drain_seconds: u32,
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    child: Child,
    options: EnvoyOptions,
    addresses: Addresses,
    folder: PathBuf,
    temporary: Option<tempfile::TempDir>,
    pushes: u64,
}

/// What the process used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
}

/// Longest wait for `/ready`; compiling the module takes most of it on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often starting is tried, should a port be taken meanwhile.
const STARTS_MAX: u32 = 3;
/// Unit of CPU time in `/proc`: USER_HZ is 100 on every Linux of today (`man 5 proc`).
const TICKS_PER_SECOND: u64 = 100;

/// Finds Envoy: `$PHOENIX_ENVOY`, else `envoy` on `PATH`.
///
/// # Errors
/// There is none; the text says how to get it.
pub fn find_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("PHOENIX_ENVOY").map(PathBuf::from) {
        anyhow::ensure!(path.is_file(), "PHOENIX_ENVOY names no file: {}", path.display());
        return Ok(path);
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders)
        .map(|folder| folder.join("envoy"))
        .find(|path| path.is_file())
        .context("no Envoy: set PHOENIX_ENVOY to its binary, or run `cargo xtask envoy`")
}

impl Envoy {
    /// Starts Envoy and waits until it is ready.
    ///
    /// # Errors
    /// It does not start; the text ends with its log.
    pub async fn start(options: EnvoyOptions) -> anyhow::Result<Self> {
        Self::start_edited(options, |yaml| yaml).await
    }

    /// Starts Envoy with an edited `gateway.yaml`, for tests that need more clusters or shorter time-outs than the shipped file has.
    ///
    /// # Errors
    /// It does not start; the text ends with its log.
    pub async fn start_edited(
        options: EnvoyOptions,
        edit: impl Fn(String) -> String,
    ) -> anyhow::Result<Self> {
        let plugin_config = options.plugin_config.clone();
        Self::start_as(options, |addresses, folder, module| {
            let watched = folder.join("ecds");
            fs::write(watched.join("phoenix.yaml"), ecds(module, &plugin_config)?)?;
            Ok(edit(gateway(addresses, &watched)?))
        })
        .await
    }

    /// Starts Envoy with a configuration of another sort; `configure` gets the addresses, the folder and the module.
    ///
    /// # Errors
    /// It does not start; the text ends with its log.
    pub async fn start_as(
        options: EnvoyOptions,
        configure: impl Fn(Addresses, &Path, &Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let mut tries = 1;
        loop {
            let mut envoy = Self::spawn(options.clone(), &configure)?;
            match envoy.wait_ready().await {
                Ok(()) => return Ok(envoy),
                Err(_) if tries < STARTS_MAX && envoy.log().contains("Address already in use") => tries += 1,
                Err(error) => {
                    let log = envoy.keep_log();
                    let text = envoy.log();
                    let tail: Vec<&str> = text.lines().rev().take(20).collect();
                    let tail: Vec<&str> = tail.into_iter().rev().collect();
                    return Err(error.context(format!(
                        "Envoy's log ({}):\n{}",
                        log.display(),
                        tail.join("\n")
                    )));
                }
            }
        }
    }

    fn spawn(
        options: EnvoyOptions,
        configure: impl Fn(Addresses, &Path, &Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let temporary = if options.folder.is_some() { None } else { Some(tempfile::tempdir()?) };
        let folder = match (&options.folder, &temporary) {
            (Some(folder), _) => folder.clone(),
            (None, Some(folder)) => folder.path().to_path_buf(),
            (None, None) => bail!("no folder"),
        };
        let watched = folder.join("ecds");
        fs::create_dir_all(&watched).with_context(|| format!("create {}", watched.display()))?;
        let folder = folder.canonicalize()?;
        let module = options
            .module
            .canonicalize()
            .with_context(|| format!("no module at {}: run `cargo xtask build`", options.module.display()))?;
        let options = EnvoyOptions { module, ..options };
        let addresses = Addresses { listener: free_port()?, admin: free_port()?, upstream: options.upstream };
        fs::write(folder.join("gateway.yaml"), configure(addresses, &folder, &options.module)?)?;
        fs::File::create(folder.join("envoy.log"))?;
        let child = launch(&options, &folder)?;
        Ok(Self { child, options, addresses, folder, temporary, pushes: 0 })
    }

    /// Starts it again after its end, as a supervisor would: the same ports, folder and plan (the last one that was pushed), a new process. Its log goes
    /// on. Tried again while another process holds a port: a client's own end of a connection may, for a moment.
    ///
    /// # Errors
    /// It has not ended, or does not start; the text ends with its log.
    pub async fn start_again(&mut self, edit: impl Fn(String) -> String) -> anyhow::Result<()> {
        anyhow::ensure!(!self.is_running(), "Envoy has not ended");
        let yaml = edit(gateway(self.addresses, &self.folder.join("ecds"))?);
        fs::write(self.folder.join("gateway.yaml"), yaml)?;
        let mut tries = 1;
        loop {
            let before = self.log().len();
            self.child = launch(&self.options, &self.folder)?;
            let Err(error) = self.wait_ready().await else { return Ok(()) };
            let log = self.log();
            let news = log.get(before..).unwrap_or_default();
            if tries == STARTS_MAX || !news.contains("Address already in use") {
                return Err(error.context(format!("Envoy's log:\n{news}")));
            }
            tries += 1;
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("Envoy ended while starting: {status}");
            }
            // LIVE comes once listeners are warmed: the module is loaded and configured on every worker.
            if admin::ask(self.addresses.admin, Method::GET, "/ready")
                .await
                .is_ok_and(|text| text.contains("LIVE"))
            {
                return Ok(());
            }
            if begin.elapsed() > READY_TIMEOUT {
                bail!("Envoy is not ready after {READY_TIMEOUT:?}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where OTLP goes in.
    pub fn address(&self) -> SocketAddr {
        self.addresses.listener
    }

    /// The admin port.
    pub fn admin(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// The process id; `None` once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Publishes another plugin configuration: writes beside the watched file and renames over it.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn push(&mut self, plugin_config: &str) -> anyhow::Result<()> {
        self.pushes += 1;
        let watched = self.folder.join("ecds");
        let next = watched.join(format!(".next-{}", self.pushes));
        fs::write(&next, ecds(&self.options.module, plugin_config)?)?;
        fs::rename(&next, watched.join("phoenix.yaml"))?;
        Ok(())
    }

    /// Counters and gauges whose names match the regular expression.
    ///
    /// # Errors
    /// The admin port does not answer.
    pub async fn stats(&self, filter: &str) -> anyhow::Result<BTreeMap<String, i64>> {
        admin::stats(self.addresses.admin, filter).await
    }

    /// How many configurations Envoy took and refused: (`config_reload`, `config_fail`) of the watched filter, or of the file.
    ///
    /// # Errors
    /// The admin port does not answer.
    pub async fn pushes(&self) -> anyhow::Result<(i64, i64)> {
        let stats = self.stats("extension_config_discovery").await?;
        let sum =
            |end: &str| stats.iter().filter(|(name, _)| name.ends_with(end)).map(|(_, value)| value).sum();
        Ok((sum(".config_reload"), sum(".config_fail")))
    }

    /// CPU time and memory so far, from `/proc`.
    ///
    /// # Errors
    /// The process has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let pid = self.pid().context("Envoy has ended")?;
        usage(pid)
    }

    /// Begins a graceful drain: clients are told to go elsewhere, what is in flight is finished.
    ///
    /// # Errors
    /// The admin port does not answer.
    pub async fn drain(&self) -> anyhow::Result<()> {
        admin::ask(self.addresses.admin, Method::POST, "/drain_listeners?graceful").await.map(drop)
    }

    /// Ends Envoy through its admin port.
    ///
    /// # Errors
    /// It does not end within ten seconds.
    pub async fn quit(&mut self) -> anyhow::Result<()> {
        let asked = admin::ask(self.addresses.admin, Method::POST, "/quitquitquit").await;
        tokio::time::timeout(Duration::from_secs(10), self.child.wait())
            .await
            .with_context(|| format!("Envoy does not end ({asked:?})"))??;
        Ok(())
    }

    /// SIGTERM, as a supervisor sends it; says how long the process then lived.
    ///
    /// # Errors
    /// The process has ended before, or does not end within ten seconds.
    pub async fn terminate(&mut self) -> anyhow::Result<Duration> {
        let pid = self.pid().context("Envoy has ended")?.to_string();
        let begin = Instant::now();
        // The standard library sends no signals; every shell does.
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).status().await?;
        anyhow::ensure!(sent.success(), "kill -TERM {pid}: {sent}");
        tokio::time::timeout(Duration::from_secs(10), self.child.wait())
            .await
            .context("Envoy does not end on SIGTERM")??;
        Ok(begin.elapsed())
    }

    /// SIGKILL: state is lost, as in a crash.
    ///
    /// # Errors
    /// The process is not ours any more.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("envoy.log")).unwrap_or_default()
    }

    /// Keeps the folder after the end and returns the path of the log.
    pub fn keep_log(&mut self) -> PathBuf {
        self.temporary.take().map(tempfile::TempDir::keep);
        self.folder.join("envoy.log")
    }

    /// The folder with configuration and log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn launch(options: &EnvoyOptions, folder: &Path) -> anyhow::Result<Child> {
    let log = fs::File::options().append(true).create(true).open(folder.join("envoy.log"))?;
    Command::new(&options.binary)
        .arg("-c")
        .arg(folder.join("gateway.yaml"))
        .args(["--use-dynamic-base-id", "--log-level", "warning", "--component-log-level", "wasm:info"])
        .args(["--concurrency", &options.workers.to_string()])
        .args(["--drain-time-s", &options.drain_seconds.to_string(), "--drain-strategy", "immediate"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", options.binary.display()))
}

/// CPU time and memory of a process.
///
/// # Errors
/// There is no such process.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; utime and stime are fields 14 and 15, the 12th and 13th after it.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 =
        resident.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    Ok(Usage {
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        resident_bytes: kilobytes * 1024,
    })
}

/// A port of the loopback that is free now.
///
/// # Errors
/// There is none.
pub fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
