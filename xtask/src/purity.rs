//! The engine depends on no ABI crate, no runtime and no source of time or chance.
//!
//! In: the dependency tree as cargo prints it. Out: the crates that must not be there.
//! A check that nothing can fail proves nothing: as a control the same look at the Envoy shell must find `proxy-wasm`.
//! Refuses: a tree that does not name the crate it was asked about.

use crate::place::{Place, ask};
use anyhow::{Result, bail};

/// Crates that do I/O, bind an ABI, read a clock or draw random numbers.
const FORBIDDEN: [&str; 15] = [
    "axum",
    "chrono",
    "getrandom",
    "hyper",
    "mio",
    "opentelemetry-proto",
    "prost",
    "proxy-wasm",
    "rand",
    "time",
    "tokio",
    "wasi",
    "wasmtime",
    "web-time",
    "wit-bindgen",
];

/// Checks the engine, and the shell as a control.
pub fn check(place: &Place) -> Result<()> {
    let engine = foreign(&tree(place, "phoenix-filter")?);
    if !engine.is_empty() {
        bail!("the engine phoenix-filter depends on {}", engine.join(", "));
    }
    let shell = foreign(&tree(place, "phoenix-envoy")?);
    if !shell.contains(&"proxy-wasm") {
        bail!("the control fails: phoenix-envoy does not depend on proxy-wasm");
    }
    place.note("phoenix-filter depends on none of the forbidden crates; phoenix-envoy depends on proxy-wasm");
    Ok(())
}

/// Normal dependencies on every target, a crate a line.
fn tree(place: &Place, package: &str) -> Result<String> {
    let mut cargo = place.cargo();
    cargo.args(["tree", "-p", package, "-e", "normal", "--target", "all", "--prefix", "none"]);
    let tree = ask(&mut cargo)?;
    if !tree.starts_with(package) {
        bail!("cargo tree does not begin with {package}");
    }
    Ok(tree)
}

fn foreign(tree: &str) -> Vec<&'static str> {
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    FORBIDDEN.into_iter().filter(|name| names.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_crates_are_seen_by_whole_name() {
        let tree = "phoenix-filter v0.1.0\nhashbrown v0.17.1\ntokio v1.54.1\nproxy-wasm v0.2.5 (*)\n";
        assert_eq!(foreign(tree), ["proxy-wasm", "tokio"]);
        assert!(foreign("phoenix-filter v0.1.0\nrandom-name v1.0.0\n").is_empty());
    }
}
