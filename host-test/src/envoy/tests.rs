//! The shipped configurations, and a real Envoy where there is one.

use super::config::{Addresses, ecds, gateway, shipped, shipped_plugin_config, shop_plugin_config};
use std::path::Path;

#[test]
fn every_documented_default_is_replaced() {
    let address = |port| ([127, 0, 0, 1], port).into();
    let addresses = Addresses { listener: address(1001), admin: address(1002), upstream: address(1003) };
    let text = gateway(addresses, Path::new("/somewhere")).unwrap();
    let configuration: String = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    for default in ["4318", "9901", "14317", "14318", "envoy/ecds"] {
        assert!(!configuration.contains(default), "{default}");
    }
    assert!(configuration.contains("path: /somewhere/phoenix.yaml"));
}

#[test]
fn the_shipped_discovery_file_holds_the_shop_plan() {
    assert_eq!(shipped_plugin_config().unwrap(), shipped("envoy/plan/shop.json").unwrap());
    let text = ecds(Path::new("target/phoenix/phoenix_envoy.wasm"), &shipped("envoy/plan/shop.json").unwrap());
    assert_eq!(text.unwrap(), shipped("envoy/ecds/phoenix.yaml").unwrap());
}

#[test]
fn the_shop_plan_is_valid() {
    let plan = shop_plugin_config().unwrap()["plan"].to_string();
    phoenix_plan::Plan::from_json(plan.as_bytes()).unwrap();
}
