//! The modules: `phoenix_envoy.wasm`, `phoenix.wasm` and `phoenix.component.wasm`.
//!
//! In: the wasm crates. Out: three files in `target/phoenix/`, each replaced as a whole, and a table of their sizes; and `phoenix_values.wasm`,
//! which only a test loads.
//! Why profile `wasm`: speed first, no unwinding, no names. The component is made from the core module without any adapter.
//! Refuses: an Envoy module that imports anything but `env.proxy_*` (Envoy would not load it) or that is over its size.

use crate::place::{BUILD_LIMIT, Place};
use crate::wasm_imports::imports;
use crate::wasm_toolchain::{TARGET, Toolchain};
use anyhow::{Context, Result, bail};
use std::path::Path;

/// Limit of `phoenix_envoy.wasm`, in bytes: V8 compiles every byte in each worker, and a file this size still fits a ConfigMap.
pub const ENVOY_BYTES_MAX: u64 = 950_000;

const ENVOY: &str = "phoenix_envoy.wasm";
const CORE: &str = "phoenix.wasm";
const COMPONENT: &str = "phoenix.component.wasm";
/// Asked by `host-test/tests/values.rs` whether values come out on wasm32 as they do natively.
const VALUES: &str = "phoenix_values.wasm";

/// Builds the three files and checks them.
pub fn build(place: &Place) -> Result<()> {
    let toolchain = place.timed("finding a compiler for wasm", || Toolchain::find(place))?;
    // One call of cargo: their common dependencies are built once, with the same features.
    place.timed(&format!("building the modules with {}", toolchain.name()), || {
        let mut cargo = toolchain.cargo(place, "build")?;
        cargo.args(["--profile", "wasm", "-p", "phoenix-envoy", "-p", "phoenix-component"]);
        cargo.args(["-p", "phoenix-values"]);
        place.run(&mut cargo, BUILD_LIMIT)
    })?;
    for file in [ENVOY, CORE, VALUES] {
        let built = toolchain.target_dir(place).join(TARGET).join("wasm").join(file);
        replace(&place.out.join(file), |new| Ok(std::fs::copy(&built, new).map(drop)?))?;
    }
    place.timed("making the component", || {
        replace(&place.out.join(COMPONENT), |new| {
            let mut cargo = place.cargo();
            // Built to build soon: optimising its dependency takes minutes, and it runs for a second.
            cargo.args(["--config", "profile.dev.package.\"*\".opt-level=0", "run", "--quiet"]);
            cargo.args(["-p", "xtask", "--features", "componentize"]);
            cargo.args(["--bin", "componentize", "--"]).arg(place.out.join(CORE)).arg(new);
            place.run(&mut cargo, BUILD_LIMIT)
        })
    })?;
    for file in [ENVOY, CORE, COMPONENT] {
        place.say(&format!("{:>9} bytes  target/phoenix/{file}", size(&place.out.join(file))?));
    }
    check_envoy(&place.out.join(ENVOY))
}

/// Checks the imports and the size of the Envoy module.
fn check_envoy(file: &Path) -> Result<()> {
    let foreign: Vec<String> = imports(&std::fs::read(file)?)
        .with_context(|| ENVOY.to_string())?
        .into_iter()
        .filter(|name| !name.starts_with("env.proxy_"))
        .collect();
    if !foreign.is_empty() {
        bail!("{ENVOY} imports {}: Envoy offers env.proxy_* alone", foreign.join(", "));
    }
    let bytes = size(file)?;
    if bytes > ENVOY_BYTES_MAX {
        bail!("{ENVOY} has {bytes} bytes, allowed are {ENVOY_BYTES_MAX}");
    }
    Ok(())
}

fn size(file: &Path) -> Result<u64> {
    Ok(std::fs::metadata(file).with_context(|| file.display().to_string())?.len())
}

/// Writes a file beside its place and renames it there: a reader sees the old file or the new one.
fn replace(file: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let new = file.with_extension(format!("new-{}", std::process::id()));
    let written = write(&new).and_then(|()| Ok(std::fs::rename(&new, file)?));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written.with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module_importing(host: &str, name: &str) -> Vec<u8> {
        let mut section = vec![1, u8::try_from(host.len()).expect("short")];
        section.extend(host.bytes());
        section.push(u8::try_from(name.len()).expect("short"));
        section.extend(name.bytes());
        section.extend([0, 0]);
        let mut bytes = b"\0asm\x01\0\0\0\x02".to_vec();
        bytes.push(u8::try_from(section.len()).expect("short"));
        bytes.extend(section);
        bytes
    }

    fn check(bytes: &[u8]) -> Result<()> {
        let file =
            std::env::temp_dir().join(format!("phoenix-xtask-{}-{}.wasm", std::process::id(), bytes.len()));
        std::fs::write(&file, bytes)?;
        let checked = check_envoy(&file);
        std::fs::remove_file(&file)?;
        checked
    }

    #[test]
    fn foreign_imports_and_too_many_bytes_are_refused() {
        check(&module_importing("env", "proxy_log")).expect("allowed");
        let wasi = check(&module_importing("wasi_snapshot_preview1", "fd_write")).expect_err("WASI");
        assert!(wasi.to_string().contains("wasi_snapshot_preview1.fd_write"));
        check(&module_importing("env", "memcpy")).expect_err("not proxy_*");
        let mut large = b"\0asm\x01\0\0\0".to_vec();
        let body = 950_001u32;
        large.extend([0, (body & 0x7f) as u8 | 0x80, (body >> 7 & 0x7f) as u8 | 0x80, (body >> 14) as u8]);
        large.resize(large.len() + body as usize, 0);
        assert!(check(&large).expect_err("too large").to_string().contains("950000"));
    }
}
