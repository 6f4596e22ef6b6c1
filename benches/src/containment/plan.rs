//! The plan of a scenario, as an operator would write it.
//!
//! In: a scenario. Out: JSON with its shares as budgets. Everything else is default or what a test needs: a fixed key, births counted at once, short windows.

use super::scenario::{Kind, Scenario};
use serde_json::{Value, json};

/// Far above what any scenario has: a budget that never binds.
const PLENTY: u64 = 500_000;

/// The plan.
pub fn plan(scenario: &Scenario) -> Value {
    let mut plan = bare();
    let (times, shares) = (scenario.times(), scenario.shares());
    let (mut tenants, mut metrics) = (Vec::new(), Vec::new());
    for share in &shares {
        match &share.metric {
            None => tenants.push(json!({"tenant": share.tenant, "active_series": share.series})),
            Some(metric) => metrics.push(json!(
                {"tenant": share.tenant, "metric": {"exact": metric}, "active_series": share.series}
            )),
        }
    }
    tenants.push(json!({"active_series": PLENTY}));
    metrics.push(json!({"metric": {"glob": "*"}, "active_series": PLENTY}));
    plan["measure"] = json!({"period": format!("{}s", times.period_s)});
    plan["budgets"] = json!({
        "tenants": tenants,
        "metrics": metrics,
        "protected_labels": ["http.route", "service.name"],
        "dwell": format!("{}s", times.dwell_s),
        "restore_below_percent": 80,
        "switch_lead": format!("{}s", times.switch_lead_s),
        "fold": fold(Value::Null)
    });
    // A name that would say which scenario this is must not be needed by anyone.
    debug_assert!(scenario.kind != Kind::Tenants || shares.iter().all(|share| share.metric.is_none()));
    plan
}

/// The same without budgets: nothing is contained.
pub fn bare() -> Value {
    json!({
        "schema": 1,
        "version": 1,
        "writer": "containment",
        "hash_key": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "first_sample_margin": "0s",
        "promoted_resource_attributes": ["service.name", "k8s.pod.name"],
        "tenant": {"header": "x-scope-orgid"},
        // Nothing is forgotten and no table is full within a run: totals are exact, and what limits do is tested elsewhere.
        "stream_expiry": "1h",
        "limits": {
            "delta_streams_max": 1_000_000, "gauge_streams_max": 1_000_000, "histogram_bytes_max": 536_870_912
        },
        "rules": []
    })
}

/// A fold with these labels; the fold of a budget has none.
pub fn fold(labels: Value) -> Value {
    let mut fold = json!({"window": "10s", "delay": "20s", "gauge": "sum", "value_expiry": "1h"});
    if !labels.is_null() {
        fold["labels"] = labels;
    }
    fold
}
