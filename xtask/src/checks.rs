//! Everything that CI checks, in the order in which a failure is cheapest to learn of.
//!
//! In: names of steps, or none for all. Out: a line and a log file a step, a closing table, `N passed, N failed`.
//! A step that fails shows its whole output, and the later ones still run: a broken sentence in a document must not hide a broken
//! total. Only the steps that need the modules fail early when the modules did not build.
//! Refuses: unknown step names, with the list of those there are.

use crate::place::{BUILD_LIMIT, DOWNLOAD_LIMIT, Place, QUESTION_LIMIT};
use crate::programs::equip;
use crate::wasm_toolchain::Toolchain;
use crate::{envoy, fuzz, modules, programs, prometheus, purity, tools};
use anyhow::{Context, Result, bail};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Seconds of a fuzz target in a check: it replays the corpus and looks a little further; long runs are `cargo xtask fuzz`.
const FUZZ_SECONDS: u64 = 20;
/// Seconds of the demo in a check: it should conserve totals in a short run too, and CI should stay quick; with less, no label leaks.
const DEMO_SECONDS: &str = "60";
/// The crates that exist for wasm32 only.
const WASM_CRATES: [&str; 3] = ["phoenix-envoy", "phoenix-component", "phoenix-values"];

/// How a step ended.
enum Verdict {
    Passed,
    Failed,
    Skipped(String),
}

/// A step: its name, what it proves, how.
struct Step {
    name: &'static str,
    proves: &'static str,
    act: fn(&Place) -> Result<Verdict>,
}

const STEPS: [Step; 14] = [
    Step { name: "lock", proves: "Cargo.lock is committed as the manifests need it", act: lock },
    Step { name: "fmt", proves: "every crate is formatted", act: |place| passed(format(place, true)) },
    Step { name: "build", proves: "the modules build, import what Envoy offers and are small", act: build },
    Step { name: "envoy", proves: "there is an Envoy to run", act: |place| passed(envoy::find(place)) },
    Step {
        name: "purity",
        proves: "the engine depends on no ABI crate",
        act: |place| passed(purity::check(place)),
    },
    Step { name: "clippy", proves: "no warning in the native crates", act: clippy },
    Step { name: "clippy-wasm", proves: "no warning in the wasm crates", act: clippy_wasm },
    Step { name: "deny", proves: "licences, bans and sources of dependencies", act: deny },
    Step { name: "advisories", proves: "no dependency with a known flaw", act: advisories },
    Step { name: "prometheus", proves: "there is a Prometheus to prove queries on", act: prometheus },
    Step { name: "tests", proves: "unit and integration tests", act: tests },
    Step { name: "doctests", proves: "the examples in the documentation", act: doctests },
    Step { name: "fuzz", proves: "no input breaks a fuzz target in a short run", act: fuzzing },
    Step {
        name: "demo",
        proves: "through real Envoy totals are conserved and a dashboard reads the same",
        act: demo,
    },
];

/// Runs the named steps, or all.
pub fn run(place: &Place, names: &[String]) -> Result<ExitCode> {
    if names.iter().any(|name| name == "--list") {
        STEPS.iter().for_each(|step| println!("{:<12} {}", step.name, step.proves));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|step| step.name != *name)) {
        let known: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        bail!("no step {unknown}; there are {}", known.join(", "));
    }
    let chosen = STEPS.iter().filter(|step| names.is_empty() || names.iter().any(|name| name == step.name));
    let mut table = Vec::new();
    for step in chosen {
        println!("\n== {}: {}", step.name, step.proves);
        let start = Instant::now();
        let verdict = carry_out(place, step)?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{} {} in {seconds:.1} s", step.name, word(&verdict));
        table.push((step, verdict, seconds));
    }
    println!();
    for (step, verdict, seconds) in &table {
        let reason = if let Verdict::Skipped(reason) = verdict { reason } else { "" };
        println!("{:<12} {:<8} {seconds:>8.1} s  {reason}", step.name, word(verdict));
    }
    let count = |wanted: fn(&Verdict) -> bool| table.iter().filter(|(_, verdict, _)| wanted(verdict)).count();
    let failed = count(|verdict| matches!(verdict, Verdict::Failed));
    println!("{} passed, {failed} failed", count(|verdict| matches!(verdict, Verdict::Passed)));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one step with its own log, which is shown when the step fails.
fn carry_out(place: &Place, step: &Step) -> Result<Verdict> {
    let log = place.out.join("logs").join(format!("{}.log", step.name));
    let logging = place.logging_to(log.clone())?;
    let verdict = match (step.act)(&logging) {
        Ok(verdict) => verdict,
        Err(error) => {
            logging.note(&format!("error: {error:#}"));
            Verdict::Failed
        }
    };
    if matches!(verdict, Verdict::Failed) {
        let bytes = std::fs::read(&log).with_context(|| log.display().to_string())?;
        println!("{}", String::from_utf8_lossy(&bytes));
    }
    Ok(verdict)
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "FAILED",
        Verdict::Skipped(_) => "skipped",
    }
}

fn passed<T>(done: Result<T>) -> Result<Verdict> {
    done.map(|_| Verdict::Passed)
}

/// Formats every crate, or checks that they are.
pub fn format(place: &Place, check: bool) -> Result<()> {
    for manifest in ["Cargo.toml", "filter/fuzz/Cargo.toml"] {
        if !place.root.join(manifest).is_file() {
            continue;
        }
        let mut cargo = place.cargo();
        cargo.args(["fmt", "--all", "--manifest-path", manifest]);
        if check {
            cargo.args(["--", "--check"]);
        }
        place.run(&mut cargo, BUILD_LIMIT)?;
    }
    Ok(())
}

/// Cargo amends the lock file on its way here, so what counts is whether it differs from the committed one.
fn lock(place: &Place) -> Result<Verdict> {
    if std::env::var_os("CI").is_none() {
        return Ok(Verdict::Skipped("checked where CI is set: an edited tree may well differ".into()));
    }
    let mut git = Command::new("git");
    git.args(["diff", "--exit-code", "--stat", "--", "Cargo.lock"]).current_dir(&place.root);
    passed(place.run(&mut git, QUESTION_LIMIT))
}

fn build(place: &Place) -> Result<Verdict> {
    passed(modules::build(place))
}

/// `cargo VERB` over the crates that run natively.
fn native(place: &Place, verb: &str) -> Command {
    let mut cargo = place.cargo();
    cargo.args([verb, "--workspace"]);
    for package in WASM_CRATES {
        cargo.args(["--exclude", package]);
    }
    cargo
}

fn clippy(place: &Place) -> Result<Verdict> {
    let mut cargo = native(place, "clippy");
    cargo.args(["--keep-going", "--all-targets", "--features", "xtask/componentize", "--", "-Dwarnings"]);
    passed(place.run(&mut cargo, BUILD_LIMIT))
}

fn clippy_wasm(place: &Place) -> Result<Verdict> {
    let toolchain = Toolchain::find(place)?;
    if !toolchain.has_clippy() {
        return Ok(Verdict::Skipped(format!("no clippy with {}", toolchain.name())));
    }
    let mut cargo = toolchain.cargo(place, "clippy")?;
    for package in WASM_CRATES {
        cargo.args(["-p", package]);
    }
    passed(place.run(cargo.args(["--", "-Dwarnings"]), BUILD_LIMIT))
}

fn deny_command(place: &Place) -> Result<Command> {
    let mut command = Command::new(tools::DENY.find(place)?);
    command.current_dir(&place.root);
    Ok(command)
}

fn deny(place: &Place) -> Result<Verdict> {
    let mut command = deny_command(place)?;
    passed(place.run(command.args(["check", "bans", "licenses", "sources"]), BUILD_LIMIT))
}

fn advisories(place: &Place) -> Result<Verdict> {
    if place.run(deny_command(place)?.args(["fetch", "db"]), DOWNLOAD_LIMIT).is_err() {
        return Ok(Verdict::Skipped("the advisory database cannot be had".into()));
    }
    passed(place.run(deny_command(place)?.args(["check", "--disable-fetch", "advisories"]), BUILD_LIMIT))
}

/// Minutes of building, once; the tests that need it are listed as ignored where there is none.
fn prometheus(place: &Place) -> Result<Verdict> {
    if !prometheus::can_be_had(place) {
        let reason = "no Prometheus 3 and no Go to build it with: queries are not proven (docs/building.md)";
        return Ok(Verdict::Skipped(reason.into()));
    }
    passed(prometheus::find(place))
}

/// The command with what integration tests read from the environment.
fn equipped(place: &Place, mut cargo: Command) -> Result<Command> {
    equip(place, &envoy::find(place)?, &mut cargo).env("RUST_BACKTRACE", "1");
    Ok(cargo)
}

fn tests(place: &Place) -> Result<Verdict> {
    let mut cargo = equipped(place, native(place, "test"))?;
    passed(place.run(cargo.args(["--no-fail-fast", "--lib", "--bins", "--tests"]), BUILD_LIMIT))
}

fn doctests(place: &Place) -> Result<Verdict> {
    let mut cargo = equipped(place, native(place, "test"))?;
    passed(place.run(cargo.args(["--no-fail-fast", "--doc"]), BUILD_LIMIT))
}

fn fuzzing(place: &Place) -> Result<Verdict> {
    Ok(match fuzz::run(place, &fuzz::Wish { target: None, seconds: FUZZ_SECONDS })? {
        fuzz::Outcome::Ran => Verdict::Passed,
        fuzz::Outcome::Skipped(reason) => Verdict::Skipped(reason),
    })
}

fn demo(place: &Place) -> Result<Verdict> {
    let code = programs::demo(place, &["--seconds".into(), DEMO_SECONDS.into()])?;
    Ok(if code == ExitCode::SUCCESS { Verdict::Passed } else { Verdict::Failed })
}
