//! Wraps a core module into a component.
//!
//! In: the path of a core module that carries its `component-type` section (wit-bindgen writes it), and the path to write.
//! Out: a validated component. No adapter takes part: the module imports nothing but what its world names.
//! Apart from `xtask` because `wit-component` takes longer to build than the rest of `xtask` together.
//! Refuses: a file that is no core module, a module whose exports do not fit its world, more or fewer than two arguments.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;

fn main() -> Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [module, component] = paths.as_slice() else {
        bail!("usage: componentize MODULE.wasm COMPONENT.wasm")
    };
    let core = std::fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let bytes = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&core)
        .with_context(|| format!("{} cannot become a component", module.display()))?
        .encode()
        .with_context(|| format!("{} does not fit its world", module.display()))?;
    std::fs::write(component, bytes).with_context(|| format!("cannot write {}", component.display()))
}
