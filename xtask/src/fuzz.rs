//! Fuzz targets of `filter/fuzz`, in short and long runs.
//!
//! In: target names and seconds. Out: success, or the input that broke a target (libFuzzer names its file).
//! Each run reads the kept corpus and writes what it finds to the cache: a check never changes the checkout.
//! cargo-fuzz needs a nightly compiler. Without one the corpus is replayed by the crate's plain tests, and a line says so.
//! Refuses: unknown targets, with the list of those there are.

use crate::place::{BUILD_LIMIT, Place, ask, on_path};
use crate::tools;
use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::Duration;

/// Seconds a target when nothing is said.
const SECONDS_DEFAULT: u64 = 60;
/// Seconds one input may take: far above what an input of a few kilobytes should need, the sanitizer included.
const INPUT_SECONDS_MAX: u64 = 10;
/// Memory of a target in MiB: libFuzzer's own default, said aloud.
const RSS_MIB_MAX: u64 = 2_048;
/// Time beyond the asked seconds: reading the corpus and the end of the last input.
const GRACE: Duration = Duration::from_secs(120);

/// What is to be fuzzed.
#[derive(Debug, PartialEq)]
pub struct Wish {
    /// One target; all of them when absent.
    pub target: Option<String>,
    /// Seconds a target.
    pub seconds: u64,
}

/// Whether there was anything to run.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// Every target ran for its time.
    Ran,
    /// Why none did.
    Skipped(String),
}

impl Wish {
    /// Reads `[TARGET] [--seconds N]`.
    pub fn parse(words: &[String]) -> Result<Wish> {
        let mut wish = Wish { target: None, seconds: SECONDS_DEFAULT };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seconds" => {
                    let value = words.next().context("--seconds needs a number")?;
                    wish.seconds = value.parse().with_context(|| format!("--seconds {value}"))?;
                }
                flag if flag.starts_with('-') => bail!("unknown argument {flag}"),
                target if wish.target.is_none() => wish.target = Some(target.into()),
                more => bail!("one target at a time: {more}"),
            }
        }
        Ok(wish)
    }
}

/// Runs the targets one after the other.
pub fn run(place: &Place, wish: &Wish) -> Result<Outcome> {
    let folder = place.root.join("filter/fuzz");
    if !folder.join("Cargo.toml").is_file() {
        place.say("there is no filter/fuzz in this checkout");
        return Ok(Outcome::Skipped("no filter/fuzz".into()));
    }
    let targets = targets(place)?;
    let chosen: Vec<&String> = match &wish.target {
        Some(name) => vec![
            targets
                .iter()
                .find(|target| *target == name)
                .with_context(|| format!("no fuzz target {name}; there are {}", targets.join(", ")))?,
        ],
        None => targets.iter().collect(),
    };
    let nightly = on_path("rustup")
        .filter(|rustup| ask(Command::new(rustup).args(["run", "nightly", "rustc", "-V"])).is_ok());
    let Some(rustup) = nightly else {
        place.say("no nightly compiler: the kept corpus is replayed by plain tests instead (rustup toolchain install nightly)");
        place.run(place.cargo().args(["test", "-p", "phoenix-filter", "corpus"]), BUILD_LIMIT)?;
        return Ok(Outcome::Skipped("no nightly: corpus replayed by plain tests".into()));
    };
    let program = tools::FUZZ.find(place)?;
    let fuzz = |verb: &str| {
        let mut command = Command::new(&rustup);
        command.args(["run", "nightly"]).arg(&program).arg(verb).current_dir(place.root.join("filter"));
        // Set by the outer cargo and rustup for the other compiler.
        for name in ["CARGO", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "CARGO_TARGET_DIR"] {
            command.env_remove(name);
        }
        command.arg("--target-dir").arg(place.cache.join("fuzz-target"));
        command
    };
    place.timed("building the fuzz targets", || place.run(&mut fuzz("build"), BUILD_LIMIT))?;
    for target in chosen {
        let found = place.cache.join("fuzz-corpus").join(target);
        std::fs::create_dir_all(&found)?;
        let mut command = fuzz("run");
        command.arg(target).arg(&found);
        let kept = folder.join("corpus").join(target);
        if kept.is_dir() {
            command.arg(kept);
        }
        command.arg("--").args([
            format!("-max_total_time={}", wish.seconds),
            format!("-timeout={INPUT_SECONDS_MAX}"),
            format!("-rss_limit_mb={RSS_MIB_MAX}"),
            "-print_final_stats=1".into(),
        ]);
        place.timed(&format!("fuzzing {target} for {} s", wish.seconds), || {
            place.run(&mut command, Duration::from_secs(wish.seconds).saturating_add(GRACE))
        })?;
    }
    Ok(Outcome::Ran)
}

/// Names of the fuzz crate's programs, as cargo reads them.
fn targets(place: &Place) -> Result<Vec<String>> {
    let mut cargo = place.cargo();
    cargo.args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--manifest-path",
        "filter/fuzz/Cargo.toml",
    ]);
    let metadata: serde_json::Value = serde_json::from_str(&ask(&mut cargo)?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    Ok(targets
        .filter(|target| target["kind"][0] == "bin")
        .filter_map(|target| Some(target["name"].as_str()?.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Wish> {
        Wish::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn wishes_are_read_and_nonsense_is_refused() {
        assert_eq!(parse(&[]).expect("all"), Wish { target: None, seconds: SECONDS_DEFAULT });
        let one = Wish { target: Some("decode".into()), seconds: 5 };
        assert_eq!(parse(&["--seconds", "5", "decode"]).expect("one"), one);
        for bad in [&["--seconds"][..], &["--seconds", "soon"], &["--hours", "1"], &["decode", "flow"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
