//! `phoenix plan check`, `schema` and `new-key`.
//!
//! Enters: files, bare plans or the Envoy module's configuration that wraps one. Leaves: a line and a table of rules for each good plan,
//! a line for each bad one. The part beside the plan belongs to the embedder, whose module checks it.

use crate::notes;
use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use phoenix_plan::{HashKey, InstantMs, Pipeline, Plan, PlanError, Rule, Switch};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Largest file that is read; a plan in it is bounded more tightly by the plan's own reader.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Checks every file; fails if any is bad, after all were checked.
pub fn check(files: &[PathBuf]) -> Result<()> {
    let mut bad = 0usize;
    for file in files {
        match load(file) {
            Ok(plan) => {
                say!(
                    "{}: good: version {}, {}",
                    file.display(),
                    plan.version,
                    counted(plan.rules.len(), "rule")
                );
                if !plan.rules.is_empty() {
                    say!("{}", table(&plan));
                }
                for note in notes::of(&plan, now()) {
                    say!("{}: note: {note}", file.display());
                }
            }
            Err(error) => {
                bad += 1;
                eprintln!("{error:#}");
            }
        }
    }
    if bad > 0 {
        bail!("{bad} of {} refused", counted(files.len(), "plan"));
    }
    Ok(())
}

/// Prints the JSON Schema, as `docs/plan.schema.json` holds it.
pub fn schema() -> Result<()> {
    let schema = schemars::schema_for!(Plan);
    say!("{}", serde_json::to_string_pretty(&schema)?);
    Ok(())
}

/// Prints 32 bytes of the system's entropy as a hash key.
pub fn new_key() -> Result<()> {
    let mut bytes = [0u8; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("no entropy: /dev/urandom cannot be read; any 64 random hexadecimal digits serve")?;
    let key = HashKey::from_bytes(bytes).context("no entropy: /dev/urandom gave only zeros")?;
    say!("{}", key.to_hex());
    Ok(())
}

/// Reads the plan in a file.
pub fn load(file: &Path) -> Result<Plan> {
    let name = file.display().to_string();
    let mut bytes = Vec::new();
    if name == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_end(&mut bytes).context("standard input")?;
    } else {
        let source = std::fs::File::open(file).with_context(|| name.clone())?;
        source.take(FILE_BYTES_MAX).read_to_end(&mut bytes).with_context(|| name.clone())?;
    }
    unwrapped(&bytes).with_context(|| name)
}

/// A plan, bare or wrapped. Only a wrapped one has the field `plan`.
fn unwrapped(json: &[u8]) -> Result<Plan, PlanError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wrapped {
        plan: Plan,
        #[serde(default, rename = "envoy")]
        _envoy: serde_json::Map<String, serde_json::Value>,
    }
    let is_wrapped =
        serde_json::from_slice::<serde_json::Value>(json).is_ok_and(|value| value.get("plan").is_some());
    if !is_wrapped {
        return Plan::parse(json);
    }
    let Wrapped { plan, .. } = phoenix_plan::read(json)?;
    plan.validate()?;
    Ok(plan)
}

/// The system's clock; before 1970 it is wrong, and nothing is past.
fn now() -> InstantMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    InstantMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The rules as a table. A column that no rule needs is left out.
fn table(plan: &Plan) -> Table {
    let switches = plan.rules.iter().any(|rule| rule.switch.is_some());
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut header =
        vec!["", "rule", "metric", "only if", "pipeline", "mark", "window", "offset", "delay", "output"];
    if switches {
        header.push("switch");
    }
    table.set_header(header);
    for (index, rule) in plan.rules.iter().enumerate() {
        let (operation, name) = rule.metric.parts();
        let fold = rule.fold.as_ref();
        let mut row = vec![
            (index + 1).to_string(),
            rule.name.clone(),
            format!("{operation} {name}"),
            conditions(rule),
            pipeline(rule.pipeline).to_owned(),
            fold.map(|fold| fold.labels.mark()).unwrap_or_default(),
            fold.map(|fold| fold.window.to_string()).unwrap_or_default(),
            fold.map(|fold| fold.offset().to_string()).unwrap_or_default(),
            fold.map(|fold| fold.delay.to_string()).unwrap_or_default(),
            fold.map(|fold| format!("{:?}", fold.output_temporality).to_lowercase()).unwrap_or_default(),
        ];
        if switches {
            row.push(rule.switch.as_ref().map(switched).unwrap_or_default());
        }
        table.add_row(row);
    }
    table
}

/// A switch in a few words: `2026-11-24T10:00:00Z from full_fidelity`, `… from optimized k8s.pod.name`.
fn switched(switch: &Switch) -> String {
    let mut text = format!("{} from {}", switch.at, pipeline(switch.from.pipeline));
    if let Some(fold) = &switch.from.fold {
        text.push(' ');
        text.push_str(&fold.labels.mark());
    }
    text
}

/// The label matchers of a rule in a few words.
fn conditions(rule: &Rule) -> String {
    let tenant = rule.tenant.iter().map(|tenant| format!("tenant {tenant:?}"));
    let resource = rule.resource.iter().map(|label| format!("resource {}", notes::condition(label)));
    let attributes = rule.attributes.iter().map(notes::condition);
    tenant.chain(resource).chain(attributes).collect::<Vec<_>>().join(", ")
}

/// The pipeline's name in JSON.
pub fn pipeline(pipeline: Pipeline) -> &'static str {
    match pipeline {
        Pipeline::FullFidelity => "full_fidelity",
        Pipeline::Optimized => "optimized",
        Pipeline::ExperimentalTopk => "experimental_topk",
    }
}

/// A number and its noun.
fn counted(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
