//! Plan and steps of one folder.
//!
//! In: `cases/<name>/`. Out: a [`Case`]. The plan is `cases/plan.json` with the folder's `plan.json` laid over it: objects are merged, everything else is
//! replaced. Refuses folders without `case.txt`, and plans that another embedder could not answer with equal bytes.

use super::language::{self, Action, Step};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A case as its folder says.
#[derive(Debug)]
pub struct Case {
    /// Name of the folder.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// The steps, in order of time.
    pub steps: Vec<Step>,
    plan: Value,
}

/// Where the folders are.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// Every case, by name.
///
/// # Errors
/// A folder that is no case.
pub fn all() -> anyhow::Result<Vec<Case>> {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(root())?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders.iter().map(|folder| Case::at(folder)).collect()
}

impl Case {
    /// The case in a folder of `cases`.
    ///
    /// # Errors
    /// It is no case.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        Self::at(&root().join(name))
    }

    fn at(folder: &Path) -> anyhow::Result<Self> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = folder.join("case.txt");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ensure!(text.starts_with("# "), "{}: the first line says why", path.display());
        let steps = language::read(&text).with_context(|| path.display().to_string())?;
        ensure!(
            steps.is_sorted_by_key(|step| step.at_ns),
            "{}: steps in order of arrival, please",
            path.display()
        );
        let mut plan = read_json(&root().join("plan.json"))?;
        let own = folder.join("plan.json");
        if own.exists() {
            merge(&mut plan, read_json(&own)?);
        }
        for (field, why) in [("clock", "\"event\""), ("writer", "the writer")] {
            ensure!(!plan[field].is_null(), "{name}: a plan for cases says {why}");
        }
        Ok(Self { name, folder: folder.to_owned(), steps, plan })
    }

    /// The plan at the start.
    pub fn plan(&self) -> String {
        self.plan.to_string()
    }

    /// The plan that the step at `index` pushes. Its version counts up by itself.
    pub fn pushed(&self, index: usize) -> anyhow::Result<String> {
        let Some(Action::Push(overrides)) = self.steps.get(index).map(|step| &step.action) else {
            anyhow::bail!("step {index} pushes nothing");
        };
        let mut plan = self.plan.clone();
        plan["version"] = json!(index + 2);
        merge(&mut plan, serde_json::from_str(overrides).with_context(|| format!("push {overrides}"))?);
        Ok(plan.to_string())
    }

    /// The module's configuration in Envoy around a plan. Its tick is the shortest there is: a case waits for ticks.
    pub fn plugin_config(plan: &str) -> anyhow::Result<String> {
        let plan: Value = serde_json::from_str(plan)?;
        let emit =
            json!({"cluster": "phoenix_emit", "authority": "otlp", "path": "/v1/metrics", "timeout": "5s"});
        Ok(serde_json::to_string_pretty(&json!({"plan": plan, "envoy": {"emit": emit, "tick": "50ms"}}))?)
    }
}

/// What the ticks of `plugin_config` are apart, in milliseconds.
pub const TICK_MS: u64 = 50;

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}
