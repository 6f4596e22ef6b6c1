//! Notes on a plan that is valid and yet perhaps not what its author meant.
//!
//! Enters: a plan, and what time it is. Leaves: lines of text; none of them refuses anything. Only what is certain is said, so a note is
//! worth reading.

use phoenix_plan::{Clock, DurationMs, Fold, InstantMs, LabelMatch, LabelOp, Labels, Plan, Rule, Switch};
use std::collections::BTreeSet;

/// Every note, in the order of the rules.
pub fn of(plan: &Plan, now: InstantMs) -> Vec<String> {
    let mut notes = Vec::new();
    for (index, rule) in plan.rules.iter().enumerate() {
        let about = format!("rule {} {:?}", index + 1, rule.name);
        if let Some((earlier, winner)) =
            plan.rules.iter().take(index).enumerate().find(|(_, other)| hides(other, rule))
        {
            notes.push(format!("{about} never decides: rule {} {:?} comes first", earlier + 1, winner.name));
        }
        for key in unlisted(plan, rule) {
            notes.push(format!(
                "{about} names resource attribute {key:?}, which promoted_resource_attributes does not list"
            ));
        }
        let Some(switch) = &rule.switch else { continue };
        if let Some(note) = time_of(plan, rule, switch, now) {
            notes.push(format!("{about}: switch.at {} {note}", switch.at));
        }
    }
    notes
}

/// Resource attributes that the folds of a rule name and the backend does not store, each once.
fn unlisted<'p>(plan: &'p Plan, rule: &'p Rule) -> impl Iterator<Item = &'p str> {
    let named = |fold: &'p Fold| match &fold.labels {
        Labels::Drop { resource, .. } | Labels::Keep { resource: Some(resource), .. } => resource.as_slice(),
        Labels::Keep { resource: None, .. } => &[],
    };
    let mut seen = BTreeSet::new();
    rule.folds()
        .flat_map(named)
        .map(String::as_str)
        .filter(move |key| !plan.promotes_resource(key.as_bytes()) && seen.insert(*key))
}

/// What the time of a switch says about it: that it is too late for one, or nearly. Under `clock: event` only the points know.
fn time_of(plan: &Plan, rule: &Rule, switch: &Switch, now: InstantMs) -> Option<String> {
    if plan.clock == Clock::Event {
        return None;
    }
    let settled_ms = switch.at.0.saturating_add(plan.stream_expiry.0);
    if settled_ms < now.0 {
        let expiry = plan.stream_expiry;
        return Some(format!(
            "is past by more than stream_expiry, {expiry}: the switch is over and may be taken out"
        ));
    }
    if switch.at < now {
        return Some(
            "is past: where it is not in force yet, it may lose up to one export interval of each stream"
                .to_owned(),
        );
    }
    // A delay is at least one export interval of the senders, and the longest is all that a plan says about them.
    let delays = DurationMs(rule.folds().map(|fold| fold.delay.0).max().unwrap_or(0).saturating_mul(2));
    (switch.at.0 < now.0.saturating_add(delays.0)).then(|| {
        format!("is less than {delays} ahead, twice the delay: a stream that is not seen before it may lose up to one export interval")
    })
}

/// A label matcher in a few words: `http.method equals "GET"`.
pub fn condition(label: &LabelMatch) -> String {
    match (&label.op, label.op.parts()) {
        (LabelOp::Exists(true), _) => format!("{} exists", label.key),
        (LabelOp::Exists(false), _) => format!("{} is absent", label.key),
        (_, (operation, text)) => format!("{} {operation} {:?}", label.key, text.unwrap_or_default()),
    }
}

/// Whether `first` surely matches every point that `second` matches.
fn hides(first: &Rule, second: &Rule) -> bool {
    use phoenix_plan::MetricMatch::{Exact, Glob, Prefix};
    let metric = match (&first.metric, &second.metric) {
        (first, second) if first == second => true,
        (first, Exact(name)) => first.matches(name.as_bytes()),
        (Prefix(short), Prefix(long)) => long.starts_with(short.as_str()),
        (Glob(pattern), _) => pattern.bytes().all(|byte| byte == b'*'),
        _ => false,
    };
    let tenant = first.tenant.is_none() || first.tenant == second.tenant;
    metric
        && tenant
        && first.resource.iter().all(|label| second.resource.contains(label))
        && first.attributes.iter().all(|label| second.attributes.contains(label))
}
