//! Plugin configurations with short windows.
//!
//! In: what a test wants to be different. Out: the JSON text that Envoy gets. Windows and delay are a second, the shortest that a plan may ask for.

use serde_json::{Value, json};

/// The headers of tenants.
pub const TENANT: &str = "x-scope-orgid";

/// Plan and settings, with a time-out that no busy machine reaches (an emission sent twice counts twice in a delta series): metrics `fold_*` lose pod, instance and user; everything else passes.
pub fn document() -> Value {
    json!({
        "plan": {
            "schema": 1,
            "version": 1,
            "hash_key": "6b0f6c2ad1934be0a5f3c7719e24d85812b7e06fca43918d5d7e2f60b94c1a83",
            "promoted_resource_attributes": ["k8s.pod.name"],
            "first_sample_margin": "100ms",
            "tenant": { "header": TENANT },
            "rules": [{
                "name": "folded",
                "metric": { "prefix": "fold_" },
                "pipeline": "optimized",
                "fold": {
                    "labels": { "drop": { "resource": ["k8s.pod.name", "service.instance.id"], "attributes": ["user"] } },
                    "window": "1s",
                    "delay": "1s"
                }
            }]
        },
        "envoy": {
            "emit": { "cluster": "phoenix_emit", "protocol": "http", "timeout": "20s" },
            "tick": "100ms"
        }
    })
}

/// The plan of the web shop with short windows.
pub fn shop_document() -> Value {
    let mut document = phoenix_host_test::envoy::config::shop_plugin_config().expect("envoy/plan/shop.json");
    document["envoy"]["emit"]["timeout"] = json!("20s");
    for rule in document["plan"]["rules"].as_array_mut().expect("rules") {
        if let Some(fold) = rule.get_mut("fold") {
            fold["window"] = json!("2s");
            fold["delay"] = json!("2s");
        }
    }
    document
}
