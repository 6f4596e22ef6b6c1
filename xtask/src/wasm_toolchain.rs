//! The compiler for `wasm32-unknown-unknown`.
//!
//! In: `PHOENIX_WASM_TOOLCHAIN` (`auto`, `rustup` or `debian`) and what the machine has. Out: a [`Toolchain`] that gives
//! cargo commands. Order: the target that is there; the target by rustup; Debian's packages, which bring the compiler and the
//! standard library's sources, so that the library is built along (`-Zbuild-std`). See `docs/decisions/0004-toolchain-and-cache.md`.
//! Refuses: with one message that names what was tried, why it failed and how to get it by hand.

use crate::place::{DOWNLOAD_LIMIT, Place, ask, on_path};
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The one target of the modules: no WASI imports, which Envoy's proxy-wasm host would have to offer.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Compiler, cargo, sources of the same version, and the compiler's own LLVM. Versions are what the archive has.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm"];
/// Highest suffix tried for `wasm-ld-N`: LLVM makes two majors a year, so this holds for years.
const LLVM_MAJOR_MAX: u32 = 40;

/// A compiler that can make the modules.
pub enum Toolchain {
    /// The compiler that runs us has the target's standard library.
    Installed,
    /// Debian's compiler beside it; the standard library is built along.
    Debian(Debian),
}

/// The paths of Debian's packages, found at run time.
pub struct Debian {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    /// Finds a compiler, installing what is missing.
    pub fn find(place: &Place) -> Result<Toolchain> {
        let wish = std::env::var("PHOENIX_WASM_TOOLCHAIN").unwrap_or_else(|_| "auto".into());
        let (rustup, debian) = match wish.as_str() {
            "auto" => (true, true),
            "rustup" => (true, false),
            "debian" => (false, true),
            other => bail!("PHOENIX_WASM_TOOLCHAIN={other}: allowed are auto, rustup, debian"),
        };
        let mut reasons = Vec::new();
        if rustup {
            match installed(place) {
                Ok(()) => return Ok(Toolchain::Installed),
                Err(reason) => reasons.push(format!("rustup: {reason:#}")),
            }
        }
        if debian {
            match Debian::find(place) {
                Ok(debian) => return Ok(Toolchain::Debian(debian)),
                Err(reason) => reasons.push(format!("Debian: {reason:#}")),
            }
        }
        Err(anyhow!(
            "no compiler for {TARGET} ({}); by hand: `rustup target add {TARGET}`, or on Debian \
             `apt-get install {} lld`",
            reasons.join("; "),
            DEBIAN_PACKAGES.join(" ")
        ))
    }

    /// Whether clippy knows this compiler's libraries. Debian's has none of its own.
    pub fn has_clippy(&self) -> bool {
        matches!(self, Toolchain::Installed)
    }

    /// One word for a line of output.
    pub fn name(&self) -> &'static str {
        match self {
            Toolchain::Installed => "rustup's target",
            Toolchain::Debian(_) => "Debian's packages",
        }
    }

    /// Where this compiler builds: artifacts of two compilers are kept apart.
    pub fn target_dir(&self, place: &Place) -> PathBuf {
        match self {
            Toolchain::Installed => place.cargo_target(),
            Toolchain::Debian(_) => place.cache.join("cargo-target-debian"),
        }
    }

    /// `cargo VERB` for the target.
    pub fn cargo(&self, place: &Place, verb: &str) -> Result<Command> {
        // Panic messages carry file names: those of dependencies would name the machine's folders.
        let home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
            .context("neither CARGO_HOME nor HOME is set")?;
        let mut flags = vec![format!("--remap-path-prefix={}=cargo", home.display())];
        // Comparing attributes is most of the hot path, sixteen bytes at once: `docs/decisions/0015-hot-path.md`.
        flags.push("-Ctarget-feature=+simd128".into());
        // The profile says `strip` too, but cargo forgets it for a package whose own settings stand in `profile.wasm.package`: names are a
        // seventh of `phoenix_envoy.wasm`.
        flags.push("-Clink-arg=--strip-all".into());
        let mut command = match self {
            Toolchain::Installed => place.cargo(),
            Toolchain::Debian(debian) => debian.cargo(place),
        };
        command.env_remove("RUSTFLAGS").env("CARGO_TARGET_DIR", self.target_dir(place)).arg(verb);
        if let Toolchain::Debian(debian) = self {
            flags.push(format!("-Clinker={}", debian.linker.display()));
            flags.push("-Clinker-flavor=wasm-ld".into());
            command.arg("-Zbuild-std=std,panic_abort");
        }
        // JSON strings in brackets are TOML as well.
        let flags = serde_json::to_string(&flags)?;
        command.args(["--target", TARGET, "--config", &format!("target.{TARGET}.rustflags={flags}")]);
        Ok(command)
    }
}

/// The target of the compiler that runs us, added by rustup if need be.
fn installed(place: &Place) -> Result<()> {
    if has_target(place)? {
        return Ok(());
    }
    let rustup = on_path("rustup").context("the target is not installed and there is no rustup")?;
    place.timed(&format!("installing the target {TARGET} with rustup"), || {
        place.run(
            Command::new(rustup).args(["target", "add", TARGET]).current_dir(&place.root),
            DOWNLOAD_LIMIT,
        )
    })?;
    if !has_target(place)? {
        bail!("rustup added the target, but not to the compiler in use");
    }
    Ok(())
}

fn sysroot(rustc: &Path, place: &Place) -> Result<PathBuf> {
    let answer = ask(Command::new(rustc).args(["--print", "sysroot"]).current_dir(&place.root))?;
    Ok(PathBuf::from(answer.trim()))
}

fn has_target(place: &Place) -> Result<bool> {
    Ok(sysroot(Path::new("rustc"), place)?.join("lib/rustlib").join(TARGET).join("lib").is_dir())
}

impl Debian {
    fn find(place: &Place) -> Result<Debian> {
        if let Ok(found) = Debian::look(place) {
            return Ok(found);
        }
        install(place)?;
        Debian::look(place)
    }

    fn look(place: &Place) -> Result<Debian> {
        let rustc = packaged("rustc-web", "rustc")?;
        let cargo = packaged("cargo-web", "cargo")?;
        let sources = sysroot_of_package(&rustc)?.join("lib/rustlib/src/rust/library/std/Cargo.toml");
        if !sources.is_file() {
            bail!("package rust-web-src lacks {}", sources.display());
        }
        Ok(Debian { cargo, rustc, linker: linker(place)? })
    }

    fn cargo(&self, place: &Place) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&place.root).env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
        // What the outer cargo and rustup set would send this compiler to the other one's libraries.
        for name in ["CARGO", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "RUSTC_WRAPPER"] {
            command.env_remove(name);
        }
        command
    }
}

/// A program of a package; the shortest path, since wrappers lie deeper.
fn packaged(package: &str, program: &str) -> Result<PathBuf> {
    let listed = ask(Command::new("dpkg").args(["-L", package]))
        .with_context(|| format!("package {package} is not installed"))?;
    listed
        .lines()
        .map(PathBuf::from)
        .filter(|path| path.ends_with(Path::new("bin").join(program)) && path.is_file())
        .min_by_key(|path| path.as_os_str().len())
        .with_context(|| format!("package {package} has no program {program}"))
}

fn sysroot_of_package(rustc: &Path) -> Result<PathBuf> {
    let answer = ask(Command::new(rustc).args(["--print", "sysroot"]).env_remove("LD_LIBRARY_PATH"))?;
    Ok(PathBuf::from(answer.trim()))
}

/// A linker for wasm: rustup's own, else the newest `wasm-ld`.
fn linker(place: &Place) -> Result<PathBuf> {
    let own = sysroot(Path::new("rustc"), place).ok().and_then(|root| {
        let hosts = std::fs::read_dir(root.join("lib/rustlib")).ok()?;
        hosts.flatten().map(|host| host.path().join("bin/rust-lld")).find(|file| file.is_file())
    });
    own.or_else(|| (14..=LLVM_MAJOR_MAX).rev().find_map(|major| on_path(&format!("wasm-ld-{major}"))))
        .or_else(|| on_path("wasm-ld"))
        .context("no linker: neither rustup's rust-lld nor wasm-ld of a package lld is there")
}

/// Installs the packages, as root or through `sudo -n`.
fn install(place: &Place) -> Result<()> {
    on_path("apt-get").context("no apt-get on this machine")?;
    let root = ask(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !root && ask(Command::new("sudo").args(["-n", "true"])).is_err() {
        bail!("not root, and `sudo -n` is refused");
    }
    let apt = |words: &[&str]| {
        let mut command = Command::new(if root { "apt-get" } else { "sudo" });
        if !root {
            command.args(["-n", "apt-get"]);
        }
        command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(DEBIAN_PACKAGES);
    if linker(place).is_err() {
        words.push("lld");
    }
    place.timed(&format!("installing {} with apt-get", words[3..].join(" ")), || {
        if place.run(&mut apt(&words), DOWNLOAD_LIMIT).is_ok() {
            return Ok(());
        }
        // Most often the lists are too old, or there are none yet.
        place.run(&mut apt(&["update"]), DOWNLOAD_LIMIT)?;
        place.run(&mut apt(&words), DOWNLOAD_LIMIT)
    })
}
