//! The plan's reader over arbitrary bytes. In: JSON or not. Nothing panics; a plan that is accepted is written and read again as
//! the same plan, compiles, and answers for any name; a refusal has a text.

use phoenix_filter::route::{Compiled, Course};
use phoenix_plan::Plan;

/// Run one input.
pub fn run(data: &[u8]) {
    let plan = match Plan::parse(data) {
        Ok(plan) => plan,
        Err(e) => {
            assert!(!e.to_string().is_empty());
            return;
        }
    };
    let text = serde_json::to_vec(&plan).expect("a plan can be written");
    assert_eq!(Plan::parse(&text).as_ref(), Ok(&plan), "written and read again");
    let value = &data[..data.len().min(40)];
    for name in [&b""[..], b"http.requests", b"\xff\xfe", value] {
        let _ = plan.rule_for(b"shop", name, |_| Some(value), |key| key.starts_with('a').then_some(name));
    }
    let compiled = Compiled::new(plan.clone());
    for (index, rule) in plan.rules.iter().enumerate() {
        let folds = rule.folds().next().is_some();
        assert_eq!(!matches!(compiled.course(index), Course::Pass), folds, "a rule folds if it says how");
    }
}
