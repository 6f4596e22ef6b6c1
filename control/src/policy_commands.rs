//! `phoenix policy check` and `schema`.
//!
//! Enters: files. Leaves: a line for each good policy, with a note for every part that has no effect; an error with field, value and range for each bad one. The
//! files of queries that a policy names are read, from the directory in which it stands. With reports it is also said what matches nothing that is sent.

use crate::collect::{Collector, Settings};
use crate::estimate::estimate;
use crate::needs;
use crate::policy::{Known, Mode, Policy, notes};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Checks every file; fails if any is bad, after all were checked.
pub fn check(files: &[PathBuf], reports: &[PathBuf]) -> Result<()> {
    let mut bad = 0_usize;
    for file in files {
        let name = file.display();
        match load(file) {
            Ok(policy) => {
                let known = (!reports.is_empty()).then(|| known(&policy, reports)).transpose()?;
                let needs = needs::load(&policy, file.parent().unwrap_or(Path::new(".")));
                let mode = match policy.mode {
                    Mode::Observe => "observe",
                    Mode::Recommend => "recommend",
                    Mode::Auto => "auto",
                };
                say!(
                    "{name}: good: mode {mode}, {} budgets, {} queries",
                    policy.tenants.len() + policy.metrics.len(),
                    needs.len()
                );
                for complaint in &needs.complaints {
                    say!("{name}: note: queries: {complaint}");
                }
                for note in notes(&policy, known.as_ref()) {
                    say!("{name}: note: {note}");
                }
            }
            Err(error) => {
                bad += 1;
                eprintln!("{error:#}");
            }
        }
    }
    if bad > 0 {
        bail!("{bad} of {} policies refused", files.len());
    }
    Ok(())
}

/// Prints the JSON Schema, as `docs/policy.schema.json` holds it.
pub fn schema() -> Result<()> {
    say!("{}", serde_json::to_string_pretty(&schemars::schema_for!(Policy))?);
    Ok(())
}

/// Reads the policy in a file.
pub fn load(file: &Path) -> Result<Policy> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
    Policy::parse(&text).with_context(|| name)
}

/// What reports in files tell of. They may be as old as they like.
fn known(policy: &Policy, reports: &[PathBuf]) -> Result<Known> {
    let mut known = Known::default();
    for file in reports {
        let name = file.display().to_string();
        let bytes = std::fs::read(file).with_context(|| name.clone())?;
        let report = phoenix_report::read(&bytes, u64::MAX).with_context(|| name.clone())?;
        let now_ns = report.time_unix_nano;
        let mut collector = Collector::new(Settings::of(policy));
        collector.take(&bytes, now_ns).with_context(|| name)?;
        for (tenant, it) in estimate(&collector, policy, now_ns).tenants {
            for metric in it.metrics {
                known.labels.extend(metric.labels.into_iter().map(|label| label.key));
                known.metrics.insert((tenant.clone(), metric.name));
            }
        }
    }
    Ok(known)
}
