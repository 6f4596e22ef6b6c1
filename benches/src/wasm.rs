//! The engine as a component in wasmtime.
//!
//! In: `phoenix.component.wasm` and bodies. Out: the same as from [`crate::native`], plus how long a start takes and how much memory an
//! instance holds. What is measured includes what an embedder pays: the copy of each body in, the copy of each answer out, one call
//! per verb of `wit/phoenix.wit`. No fuel and no epochs: an embedder who wants them pays for them on top.

use crate::measure::thread_ns;
use crate::native::{Case, Done, Subject};
use crate::traffic::{WINDOW, plan};
use anyhow::{Context as _, anyhow};
use phoenix_filter::units::UnixNanos;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, ResourceLimiter, Store};

#[allow(missing_docs, reason = "generated from the contract")]
mod contract {
    wasmtime::component::bindgen!({ path: "../wit", world: "phoenix" });
}
use contract::Phoenix;
use contract::exports::phoenix::filter::engine::{Answer, Framing, Settled};

/// The built modules, in the order of the build.
pub const MODULES: [&str; 3] = ["phoenix_envoy.wasm", "phoenix.wasm", "phoenix.component.wasm"];

/// Where they lie: `$PHOENIX_WASM_DIR`, else `target/phoenix` of the project.
pub fn folder() -> PathBuf {
    let built = std::env::var_os("PHOENIX_WASM_DIR").map(PathBuf::from);
    built.unwrap_or_else(|| phoenix_host_test::envoy::config::project().join("target/phoenix"))
}

/// The compiled component.
pub struct Compiled {
    engine: Engine,
    component: Component,
}

/// Notes how large the instance's memory became.
#[derive(Default)]
struct Memory {
    bytes: usize,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.bytes = self.bytes.saturating_sub(current).saturating_add(desired);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }
}

impl Compiled {
    /// Compiles a component.
    ///
    /// # Errors
    /// It was not built, or is no component.
    pub fn from_file(file: &Path) -> anyhow::Result<Compiled> {
        let engine = Engine::default();
        let component = Component::from_file(&engine, file)
            .map_err(|e| anyhow!("{e:#}"))
            .with_context(|| format!("{}: run `cargo xtask build`", file.display()))?;
        Ok(Compiled { engine, component })
    }

    /// An instance under the plan of a case.
    ///
    /// # Errors
    /// It does not start, or refuses the plan.
    pub fn start(&self, case: Case, now: UnixNanos) -> anyhow::Result<Wasm> {
        let plan = plan(case.treatment(), WINDOW).to_string();
        Wasm::start(&self.engine, &self.component, plan.as_bytes(), case.settles(), now)
    }

    /// An instance under any plan.
    ///
    /// # Errors
    /// It does not start, or refuses the plan.
    pub fn start_under(&self, plan: &[u8], now: UnixNanos) -> anyhow::Result<Wasm> {
        Wasm::start(&self.engine, &self.component, plan, true, now)
    }

    /// CPU time in nanoseconds from machine code in memory, as an embedder has it in its cache, to an instance with a plan.
    ///
    /// # Errors
    /// It does not start, or refuses the plan.
    pub fn time_start(&self, now: UnixNanos) -> anyhow::Result<f64> {
        let plan = plan(Case::Fold70.treatment(), WINDOW).to_string();
        let code = self.component.serialize().map_err(|e| anyhow!("{e:#}"))?;
        let begin = thread_ns();
        // SAFETY: the bytes come from `serialize` of the same engine, a line above.
        #[allow(unsafe_code, reason = "wasmtime cannot check machine code")]
        let component =
            unsafe { Component::deserialize(&self.engine, &code) }.map_err(|e| anyhow!("{e:#}"))?;
        black_box(Wasm::start(&self.engine, &component, plan.as_bytes(), true, now)?);
        Ok(thread_ns().saturating_sub(begin) as f64)
    }
}

/// An instance.
pub struct Wasm {
    store: Store<Memory>,
    phoenix: Phoenix,
    settles: bool,
    done: Done,
}

impl Wasm {
    fn start(
        engine: &Engine,
        component: &Component,
        plan: &[u8],
        settles: bool,
        now: UnixNanos,
    ) -> anyhow::Result<Wasm> {
        let mut store = Store::new(engine, Memory::default());
        store.limiter(|memory| memory);
        let linker = Linker::new(engine);
        let phoenix = Phoenix::instantiate(&mut store, component, &linker).map_err(|e| anyhow!("{e:#}"))?;
        let wit = phoenix.phoenix_filter_engine();
        let configured =
            wit.call_configure(&mut store, plan, "bench", now.0).map_err(|e| anyhow!("{e:#}"))?;
        configured.map_err(|refusal| anyhow!("{refusal}"))?;
        Ok(Wasm { store, phoenix, settles, done: Done::default() })
    }

    /// The clock went on.
    ///
    /// # Errors
    /// The instance trapped.
    pub fn tick(&mut self, now: UnixNanos) -> anyhow::Result<()> {
        let wit = self.phoenix.phoenix_filter_engine();
        wit.call_tick(&mut self.store, now.0).map_err(|e| anyhow!("{e:#}"))
    }

    /// Points of streams that found their table full, over all metrics.
    ///
    /// # Errors
    /// The instance trapped.
    pub fn refused(&mut self) -> anyhow::Result<u64> {
        let wit = self.phoenix.phoenix_filter_engine();
        let pages = wit.call_ledger(&mut self.store).map_err(|e| anyhow!("{e:#}"))?;
        Ok(pages.iter().map(|page| page.refused).sum())
    }

    /// Linear memory, in bytes. It never shrinks.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().bytes
    }
}

impl Subject for Wasm {
    fn take(&mut self, body: &[u8], now: UnixNanos) -> anyhow::Result<()> {
        let (wit, store) = (self.phoenix.phoenix_filter_engine(), &mut self.store);
        let trap = |e: wasmtime::Error| anyhow!("{e:#}");
        let processed = wit.call_process(&mut *store, Framing::Plain, b"", b"", body, now.0).map_err(trap)?;
        let processed = processed.map_err(|refusal| anyhow!("{refusal}"))?;
        self.done.points += processed.points;
        self.done.recorded += processed.recorded;
        self.done.bytes_out += black_box(&processed.body).as_ref().map_or(body.len(), Vec::len) as u64;
        let settled = if self.settles { Settled::Accepted } else { Settled::Refused };
        wit.call_settle(&mut *store, processed.token, settled, now.0).map_err(trap)?;
        wit.call_tick(&mut *store, now.0).map_err(trap)?;
        while let Some(e) = wit.call_next_emission(&mut *store, now.0).map_err(trap)? {
            self.done.bytes_out += black_box(&e.body).len() as u64;
            self.done.emissions += 1;
            wit.call_answer_emission(&mut *store, e.shard, e.sequence, Answer::Accepted, now.0)
                .map_err(trap)?;
        }
        Ok(())
    }

    fn done(&self) -> Done {
        self.done
    }
}
