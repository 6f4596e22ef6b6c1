//! Notes on a plan that is valid and yet perhaps not what its author meant.
//!
//! Enters: a plan. Leaves: lines of text; none of them refuses anything. Only what is certain is said, so a note is worth reading.

use phoenix_plan::{LabelMatch, LabelOp, Labels, Plan, Rule};

/// Every note, in the order of the rules.
pub fn of(plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    for (index, rule) in plan.rules.iter().enumerate() {
        let about = format!("rule {} {:?}", index + 1, rule.name);
        if let Some((earlier, winner)) =
            plan.rules.iter().take(index).enumerate().find(|(_, other)| hides(other, rule))
        {
            notes.push(format!("{about} never decides: rule {} {:?} comes first", earlier + 1, winner.name));
        }
        let Some(fold) = &rule.fold else { continue };
        let (Labels::Drop { resource, .. } | Labels::Keep { resource: Some(resource), .. }) = &fold.labels
        else {
            continue;
        };
        for key in resource.iter().filter(|key| !plan.promotes_resource(key.as_bytes())) {
            notes.push(format!(
                "{about} names resource attribute {key:?}, which promoted_resource_attributes does not list"
            ));
        }
    }
    notes
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
    metric
        && first.resource.iter().all(|label| second.resource.contains(label))
        && first.attributes.iter().all(|label| second.attributes.contains(label))
}
