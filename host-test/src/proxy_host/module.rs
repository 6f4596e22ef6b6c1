//! The compiled module: found, compiled once per test binary, checked against the host's imports.
//!
//! Enters: a path, or module bytes. Leaves: a [`Module`] that instantiates in microseconds.
//! Fuel and not a timer guards against endless loops, so that a run stays deterministic.
//! Refuses: a missing file (with the command that builds it), imports the host does not have (all of them by name).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use wasmtime::{Caller, Config, Engine, ExternType, InstancePre, Linker, UnknownImportError, Val};

use super::HostError;
use super::imports;
use super::vm::VmData;

/// The file name of the proxy-wasm module.
const FILE: &str = "phoenix_envoy.wasm";

/// A compiled module, cheap to clone.
#[derive(Clone)]
pub struct Module(wasmtime::Module);

impl Module {
    /// Compiles module bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HostError> {
        wasmtime::Module::new(engine()?, bytes)
            .map(Self)
            .map_err(|error| HostError::Module(format!("{error:#}")))
    }

    /// The module at `path`, compiled at most once per process of the test host.
    pub fn at(path: &Path) -> Result<Self, HostError> {
        static CACHE: OnceLock<Mutex<HashMap<PathBuf, Module>>> = OnceLock::new();
        let cache = CACHE.get_or_init(Mutex::default);
        let mut cache =
            cache.lock().map_err(|_| HostError::Module("the module cache is poisoned".to_owned()))?;
        if let Some(module) = cache.get(path) {
            return Ok(module.clone());
        }
        let bytes = std::fs::read(path).map_err(|_| HostError::NotBuilt(path.to_path_buf()))?;
        let module = Self::from_bytes(&bytes)?;
        cache.insert(path.to_path_buf(), module.clone());
        Ok(module)
    }

    /// The built module, see [`module_path`].
    pub fn built() -> Result<Self, HostError> {
        Self::at(&module_path())
    }

    /// Binds the imports; a missing one is an error that names all missing ones.
    pub(crate) fn link(&self) -> Result<InstancePre<VmData>, HostError> {
        let module_error = |error: wasmtime::Error| HostError::Module(format!("{error:#}"));
        let mut linker = Linker::new(engine()?);
        imports::define(&mut linker).map_err(module_error)?;
        let pre = linker.instantiate_pre(&self.0);
        pre.map_err(|error| match error.downcast_ref::<UnknownImportError>() {
            None => module_error(error),
            Some(_) => HostError::MissingImports(self.missing(&mut linker)),
        })
    }

    /// Every import that the linker lacks: each one found is filled in, until binding succeeds.
    fn missing(&self, linker: &mut Linker<VmData>) -> Vec<String> {
        let mut names = Vec::new();
        while let Err(error) = linker.instantiate_pre(&self.0) {
            let Some(unknown) = error.downcast_ref::<UnknownImportError>() else { break };
            names.push(format!("{}.{}", unknown.module(), unknown.name()));
            let ExternType::Func(kind) = unknown.ty() else { break };
            let refuse =
                |_: Caller<'_, VmData>, _: &[Val], _: &mut [Val]| Err(wasmtime::Error::msg("missing"));
            if linker.func_new(unknown.module(), unknown.name(), kind, refuse).is_err() {
                break;
            }
        }
        names
    }
}

/// Where the built module lies: `$PHOENIX_WASM_DIR`, else `target/phoenix` of the workspace.
pub fn module_path() -> PathBuf {
    let folder = std::env::var_os("PHOENIX_WASM_DIR").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    folder.unwrap_or_else(|| root.join("target/phoenix")).join(FILE)
}

fn engine() -> Result<&'static Engine, HostError> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    let make = || {
        let mut config = Config::new();
        config.consume_fuel(true);
        Engine::new(&config).map_err(|error| error.to_string())
    };
    ENGINE.get_or_init(make).as_ref().map_err(|error| HostError::Module(error.clone()))
}
