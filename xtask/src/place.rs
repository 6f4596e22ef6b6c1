//! Where things are, and how a command runs there.
//!
//! In: the environment (`PHOENIX_CACHE`, `XDG_CACHE_HOME`, `HOME`) and the clone's folder.
//! Out: [`Place`], with paths and a bounded runner whose output goes to the terminal or to a log file.
//! Why a cache outside the clone: what takes minutes to build survives a fresh clone; what a user wants to hold in hand is
//! copied to `target/phoenix/`. Why every command has a limit: a hung download must not hang a check that nobody watches.
//! Refuses: a machine without any cache folder to write to.

use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Limit of a build: the longest seen took 9 minutes on two overloaded cores; three times that is a hang.
pub const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Limit of a download: 40 MB arrive in this time at 140 kB/s.
pub const DOWNLOAD_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Limit of a question such as `--version`.
pub const QUESTION_LIMIT: Duration = Duration::from_secs(30);
/// How often a running child is looked at: short against a step, long against the cost of looking.
const POLL: Duration = Duration::from_millis(20);

/// The clone, the cache and the place where output goes.
pub struct Place {
    /// Root of the clone.
    pub root: PathBuf,
    /// Cache that survives a fresh clone.
    pub cache: PathBuf,
    /// What a user asked for: `target/phoenix` in the clone.
    pub out: PathBuf,
    log: Option<PathBuf>,
}

impl Place {
    /// Finds the clone and creates the cache and output folders.
    pub fn find() -> Result<Place> {
        // `cargo run` names the package's folder at run time: right also when the clone was moved after the build.
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package).parent().context("xtask has no parent folder")?.to_path_buf();
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = set("PHOENIX_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("phoenix")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/phoenix")))
            .context("no cache folder: set PHOENIX_CACHE, XDG_CACHE_HOME or HOME")?;
        let cache = std::path::absolute(cache)?;
        let out = root.join("target/phoenix");
        for dir in [&cache, &out] {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        Ok(Place { root, cache, out, log: None })
    }

    /// The same place with output of commands appended to a new log file.
    pub fn logging_to(&self, log: PathBuf) -> Result<Place> {
        std::fs::create_dir_all(log.parent().context("a log has a folder")?)?;
        File::create(&log)?;
        Ok(Place {
            root: self.root.clone(),
            cache: self.cache.clone(),
            out: self.out.clone(),
            log: Some(log),
        })
    }

    /// Says one line to the person, and to the log.
    pub fn say(&self, line: &str) {
        println!("{line}");
        if self.log.is_some() {
            self.note(line);
        }
    }

    /// Writes one line to the log alone, or to the terminal where there is no log.
    pub fn note(&self, line: &str) {
        match self.log.as_ref().map(|path| OpenOptions::new().append(true).open(path)) {
            Some(Ok(mut file)) => drop(writeln!(file, "{line}")),
            Some(Err(_)) => {}
            None if line.starts_with('$') => {}
            None => println!("{line}"),
        }
    }

    /// Says what is being done, does it and says how long it took.
    pub fn timed<T>(&self, what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("{what} …");
        let start = Instant::now();
        let done = act()?;
        println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
        Ok(done)
    }

    /// The cargo that runs us, in the clone, building into the cache.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", self.cargo_target());
        command
    }

    /// Build folder of the native crates, and of the wasm crates when rustup has the target.
    pub fn cargo_target(&self) -> PathBuf {
        self.cache.join("cargo-target")
    }

    /// Runs a command to its end and fails unless it succeeds.
    pub fn run(&self, command: &mut Command, limit: Duration) -> Result<()> {
        let status = self.status(command, limit)?;
        if !status.success() {
            bail!("{}: {status}", shown(command));
        }
        Ok(())
    }

    /// Runs a command to its end, output to the log or the terminal, no standard input.
    pub fn status(&self, command: &mut Command, limit: Duration) -> Result<ExitStatus> {
        self.note(&format!("$ {}", shown(command)));
        command.stdin(Stdio::null());
        if let Some(path) = &self.log {
            let file = OpenOptions::new().append(true).open(path)?;
            command.stdout(file.try_clone()?).stderr(file);
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", shown(command)))?;
        wait(child, limit).with_context(|| shown(command))
    }
}

/// Standard output of a short command, or why there is none. Standard error becomes part of the reason.
pub fn ask(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    // Both pipes are drained beside the wait: a full pipe would stop the child.
    let out = drain(child.stdout.take());
    let err = drain(child.stderr.take());
    let status = wait(child, QUESTION_LIMIT).with_context(|| shown.clone())?;
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if !status.success() {
        bail!("{shown}: {status}\n{}", err.trim());
    }
    Ok(out)
}

fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is what there is to show.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits with a limit; past it the child and its descendants are ended, each by its id.
fn wait(mut child: Child, limit: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            for pid in descendants(child.id()) {
                let _ = Command::new("kill").arg(pid.to_string()).status();
            }
            let _ = child.kill();
            let _ = child.wait();
            bail!("not done within {} s, ended", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

fn descendants(ancestor: u32) -> Vec<u32> {
    let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output();
    let Ok(listed) = listed else { return Vec::new() };
    let pairs: Vec<(u32, u32)> = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        })
        .collect();
    let mut family = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(pairs.iter().filter(|(_, ppid)| *ppid == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.split_off(1)
}

/// A command as a person would type it.
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The program of this name on `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hung_command_is_ended_with_its_children() {
        let started = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 61.25 & wait"]);
        let child = command.spawn().expect("sh starts");
        let error = wait(child, Duration::from_millis(300)).expect_err("the limit is hit");
        assert!(error.to_string().contains("not done within"));
        assert!(started.elapsed() < Duration::from_secs(20));
        let left = Command::new("ps").args(["-A", "-o", "args="]).output().expect("ps runs");
        assert!(!String::from_utf8_lossy(&left.stdout).lines().any(|line| line.trim() == "sleep 61.25"));
    }

    #[test]
    fn a_question_gives_output_or_the_reason() {
        assert_eq!(ask(Command::new("sh").args(["-c", "echo yes"])).expect("sh runs"), "yes\n");
        let error = ask(Command::new("sh").args(["-c", "echo because >&2; exit 3"])).expect_err("status 3");
        assert!(error.to_string().contains("because"));
    }
}
