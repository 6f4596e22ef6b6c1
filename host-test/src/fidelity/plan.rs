//! What is folded in the scene: the plan of Envoy, and the same for the reference.
//!
//! In: when the scene begins. Out: the plugin's configuration as JSON, and a [`ReferencePlan`], from one list of rules. Why one list: the two must differ
//! in who folds and in nothing else.

use super::clock::{EXPIRY_NS, KEEP_NS, OFF_NS, ON_NS, SECOND_NS};
use super::traffic::{AGENT, POD};
use crate::prometheus::OTLP_PATH;
use crate::reference::plan::{Function, ReferenceFold, ReferencePlan, ReferenceRule, ReferenceSwitch};
use serde_json::{Value, json};

/// The writer.
pub const WRITER: &str = "gateway-0";
/// The mark of what is folded here: what is dropped, sorted by bytes.
pub const MARK: &str = "k8s.pod.name,service.instance.id,user_agent";
/// The mark of the fold that keeps a label more.
pub const MARK_KEPT: &str = "k8s.pod.name,service.instance.id";
/// Of most windows: the plan's default, and as long as the export interval.
const WINDOW_S: u64 = 15;
/// Of the windows that are shown beside them.
const NARROW_S: u64 = 5;
/// The plan's default.
const DELAY_S: u64 = 60;
/// The plan's default: how long the last value of a silent gauge stands.
const VALUE_EXPIRY_NS: u64 = 300 * SECOND_NS;
/// What the dropped labels are, by level.
const DROPPED_RESOURCE: [&str; 2] = [POD, "service.instance.id"];

/// A fold as the list has it.
#[derive(Clone, Copy)]
struct Fold {
    window_s: u64,
    drops_agent: bool,
}

/// A rule as the list has it: no fold passes.
struct Rule {
    prefix: &'static str,
    fold: Option<Fold>,
    switch: Option<(u64, Option<Fold>)>,
}

fn rules() -> [Rule; 5] {
    let usual = Fold { window_s: WINDOW_S, drops_agent: true };
    let narrow = Fold { window_s: NARROW_S, ..usual };
    let keeping = Fold { drops_agent: false, ..usual };
    [
        Rule { prefix: "fold_", fold: Some(usual), switch: None },
        Rule { prefix: "narrow_", fold: Some(narrow), switch: None },
        Rule { prefix: "switch_on_", fold: Some(usual), switch: Some((ON_NS, None)) },
        Rule { prefix: "switch_keep_", fold: Some(keeping), switch: Some((KEEP_NS, Some(usual))) },
        Rule { prefix: "switch_off_", fold: None, switch: Some((OFF_NS, Some(usual))) },
    ]
}

impl Fold {
    /// Half a window: dashboards ask on the grid.
    fn offset_ms(self) -> u64 {
        self.window_s * 1_000 / 2
    }

    fn json(self) -> Value {
        let attributes: &[&str] = if self.drops_agent { &[AGENT] } else { &[] };
        json!({
            "labels": { "drop": { "resource": DROPPED_RESOURCE, "attributes": attributes } },
            "window": format!("{}s", self.window_s),
            "offset": format!("{}ms", self.offset_ms()),
            "delay": format!("{DELAY_S}s"),
            "gauge": "sum"
        })
    }

    fn reference(self) -> ReferenceFold {
        ReferenceFold {
            drop_resource: DROPPED_RESOURCE.map(str::to_owned).to_vec(),
            drop_attributes: self.drops_agent.then(|| AGENT.to_owned()).into_iter().collect(),
            window_ns: self.window_s * SECOND_NS,
            offset_ns: self.offset_ms() * SECOND_NS / 1_000,
            gauge: Some(Function::Sum),
            value_expiry_ns: VALUE_EXPIRY_NS,
            delay_ns: DELAY_S * SECOND_NS,
            is_cumulative_out: false,
        }
    }
}

/// With `pipeline` and, where it folds, `fold`.
fn treated(mut of: Value, fold: Option<Fold>) -> Value {
    match fold {
        Some(fold) => (of["pipeline"], of["fold"]) = ("optimized".into(), fold.json()),
        None => of["pipeline"] = "full_fidelity".into(),
    }
    of
}

/// The configuration of the module in Envoy.
pub fn plugin(begin_ns: u64) -> Value {
    let rule = |rule: &Rule| {
        let mut of = json!({ "name": rule.prefix, "metric": { "prefix": rule.prefix } });
        if let Some((at_ns, from)) = rule.switch {
            of["switch"] = json!({ "at": rfc3339(begin_ns + at_ns), "from": treated(json!({}), from) });
        }
        treated(of, rule.fold)
    };
    json!({
        "plan": {
            "schema": 1,
            "version": 1,
            "hash_key": "6b0f6c2ad1934be0a5f3c7719e24d85812b7e06fca43918d5d7e2f60b94c1a83",
            "writer": WRITER,
            "clock": "event",
            "promoted_resource_attributes": [POD],
            "first_sample_margin": "1s",
            "stream_expiry": format!("{}s", EXPIRY_NS / SECOND_NS),
            "rules": rules().iter().map(rule).collect::<Vec<_>>()
        },
        "envoy": {
            "emit": { "cluster": "phoenix_emit", "protocol": "http", "path": OTLP_PATH, "timeout": "10s" },
            "paths": [OTLP_PATH],
            "tick": "50ms"
        }
    })
}

/// The same for the reference: as it should be, or at arrival. Who folds at arrival has windows on the grid: there each holds one export of every pod, and
/// asked there the sum is that of raw.
pub fn reference(begin_ns: u64, is_at_arrival: bool) -> ReferencePlan {
    let fold = |fold: Fold| {
        let should = fold.reference();
        if is_at_arrival { ReferenceFold { offset_ns: 0, ..should } } else { should }
    };
    let rule = |rule: &Rule| ReferenceRule {
        metric_prefix: rule.prefix.to_owned(),
        fold: rule.fold.map(fold),
        switch: rule
            .switch
            .map(|(at_ns, from)| ReferenceSwitch { at_ns: begin_ns + at_ns, from: from.map(fold) }),
    };
    ReferencePlan {
        rules: rules().iter().map(rule).collect(),
        promoted: vec![POD.to_owned()],
        mark_label: "phoenix_folded".to_owned(),
        writer_label: "phoenix_writer".to_owned(),
        writer: WRITER.to_owned(),
        first_sample_margin_ns: SECOND_NS,
        stream_expiry_ns: EXPIRY_NS,
        is_at_arrival,
    }
}

/// A whole second as plans write it. The civil date is that of Howard Hinnant's `civil_from_days`.
fn rfc3339(unix_ns: u64) -> String {
    let seconds = unix_ns / SECOND_NS;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0; an era has 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_write_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_485_420, "2026-11-24T01:57:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds * SECOND_NS), text);
        }
    }
}
