//! What came out, as text: the expected side of a case.
//!
//! In: a case and its outcome. Out: `expected.txt`, compared; `UPDATE_EXPECT=1` writes it instead. Lines of points read as in `case.txt`.

use super::language::Action;
use super::{Attempt, COUNTERS, Case, Outcome, points};
use anyhow::{Context as _, ensure};
use std::fmt::Write as _;
use std::fs;

/// Compares with `expected.txt`, or writes it when `UPDATE_EXPECT` is set.
///
/// # Errors
/// It differs; the text shows where.
pub fn check(case: &Case, outcome: &Outcome) -> anyhow::Result<()> {
    let got = render(case, outcome);
    let path = case.folder.join("expected.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return fs::write(&path, got).with_context(|| path.display().to_string());
    }
    let expected = fs::read_to_string(&path)
        .with_context(|| format!("{}: UPDATE_EXPECT=1 writes it; then read it", path.display()))?;
    let line = expected.lines().zip(got.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or(expected.lines().count().min(got.lines().count()));
    ensure!(expected == got, "{} differs from line {} on; got:\n{got}", path.display(), line + 1);
    Ok(())
}

fn render(case: &Case, outcome: &Outcome) -> String {
    let mut out = String::new();
    let texts = case.steps.iter().map(|step| step.text.as_str()).chain(["then quiet"]);
    for (index, (text, step)) in texts.zip(&outcome.steps).enumerate() {
        if text == "then quiet" && step.attempts.is_empty() {
            continue;
        }
        let _ = writeln!(out, "{text}");
        if let (Some(got), Some(Action::Batch(batch))) =
            (&step.forwarded, case.steps.get(index).map(|step| &step.action))
        {
            if *got == batch.message {
                let _ = writeln!(out, "  passes as it came");
            } else if got.is_empty() {
                let _ = writeln!(out, "  passes empty");
            } else {
                let _ = writeln!(out, "  passes {} of {} bytes", got.len(), batch.message.len());
                lines(&mut out, got, "    ");
            }
        }
        if let Some(taken) = step.taken {
            let _ = writeln!(out, "  {}", if taken { "taken" } else { "refused: the old plan stays" });
        }
        step.attempts.iter().for_each(|one| out.push_str(&attempt(one, "  ")));
    }
    let _ = writeln!(out, "ledger");
    let ledger = outcome.ledger();
    for name in COUNTERS {
        if let Some(count) = ledger.get(name) {
            let _ = writeln!(out, "  {name} {count}");
        }
    }
    let is_told = |name: &str, value: u64| value > 0 || ["series", "streams"].contains(&name);
    for (name, value) in outcome.gauges.iter().filter(|(name, value)| is_told(name, **value)) {
        let _ = writeln!(out, "  {name} {value}");
    }
    if let Some([came, left, waiting, open]) = &outcome.balance {
        let _ =
            writeln!(out, "  increments in {came} = acknowledged {left} + waiting {waiting} + open {open}");
    }
    out
}

/// One attempt to send an emission.
pub fn attempt(attempt: &Attempt, indent: &str) -> String {
    let tenant = if attempt.tenant.is_empty() { String::new() } else { format!(" of {}", attempt.tenant) };
    let mut out = format!("{indent}emission {}{tenant} -> {}\n", attempt.sequence, attempt.answer);
    lines(&mut out, &attempt.body, &format!("{indent}  "));
    out
}

fn lines(out: &mut String, message: &[u8], indent: &str) {
    for line in points::render(message) {
        let _ = writeln!(out, "{indent}{line}");
    }
}
