//! Cargo subcommands that are not part of cargo: `cargo-deny` and `cargo-fuzz`.
//!
//! In: a name, the least version that does, the version to install. Out: the path of the program.
//! Why built from source into the cache: Python's registry has `cargo-deny` 0.14.2 only, which cannot read a lock file of
//! version 4 (it panics), and a program in the cache leaves the user's own `cargo install` alone.
//! Refuses: a program on `PATH` that is too old; it is passed over.

use crate::place::{BUILD_LIMIT, Place, ask, on_path};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

type Version = [u32; 3];

/// A subcommand of cargo.
pub struct Tool {
    /// Name of the crate and of its program.
    pub name: &'static str,
    least: Version,
    installed: Version,
}

/// Licences, bans and sources. 0.14.2 cannot read this workspace, 0.20.2 does and asks for Rust 1.88; older ones than 0.18 are
/// passed over unread, as a margin.
pub const DENY: Tool = Tool { name: "cargo-deny", least: [0, 18, 0], installed: [0, 20, 2] };
/// libFuzzer for Rust. 0.13.2 was run; 0.12 is a margin, not a measured bound.
pub const FUZZ: Tool = Tool { name: "cargo-fuzz", least: [0, 12, 0], installed: [0, 13, 2] };

impl Tool {
    /// Finds the program on `PATH` or in the cache, else builds it there.
    pub fn find(&self, place: &Place) -> Result<PathBuf> {
        let root = place.cache.join("tools");
        let cached = root.join("bin").join(self.name);
        let candidates = on_path(self.name).into_iter().chain([cached.clone()]);
        for program in candidates {
            if version(&program).is_some_and(|found| found >= self.least) {
                return Ok(program);
            }
        }
        let [major, minor, patch] = self.installed;
        let wanted = format!("{major}.{minor}.{patch}");
        place
            .timed(&format!("building {} {wanted} with cargo install", self.name), || {
                let mut cargo = place.cargo();
                cargo.args(["install", "--locked", "--quiet", "--force", self.name, "--version", &wanted]);
                // Its own build folder, removed afterwards: it shares nothing with the project's crates.
                let scratch = place.cache.join(format!("tools-build-{}", std::process::id()));
                cargo.arg("--root").arg(&root).env("CARGO_TARGET_DIR", &scratch);
                // Neither optimised to the last nor with debug data: it runs for a second, it builds for minutes.
                cargo.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
                cargo
                    .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
                    .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
                let built = place.run(&mut cargo, BUILD_LIMIT);
                let _ = std::fs::remove_dir_all(scratch);
                built
            })
            .with_context(|| format!("no {}; by hand: cargo install --locked {}", self.name, self.name))?;
        Ok(cached)
    }
}

fn version(program: &Path) -> Option<Version> {
    parse(&ask(Command::new(program).arg("--version")).ok()?)
}

/// The version in `cargo-deny 0.20.2` and its like; suffixes after a patch number are dropped.
fn parse(answer: &str) -> Option<Version> {
    let mut numbers = answer.split_whitespace().nth(1)?.split(['.', '-', '+']).map(str::parse);
    Some([numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(parse("cargo-deny 0.14.2\n"), Some([0, 14, 2]));
        assert_eq!(parse("cargo-fuzz 0.13.2-beta.1 (abc)"), Some([0, 13, 2]));
        assert_eq!(parse("cargo-deny"), None);
        assert_eq!(parse("cargo-deny next"), None);
        assert!(parse("x 0.9.0") < parse("x 0.18.0"));
    }
}
