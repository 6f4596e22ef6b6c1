//! The shipped configurations, and a real Envoy where there is one.

use super::config::{
    Addresses, Controlled, controlled, ecds, gateway, shipped, shipped_plugin_config, shop_plugin_config,
};
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
fn every_documented_default_of_a_controlled_gateway_is_replaced() {
    let address = |port| ([127, 0, 0, 1], port).into();
    let addresses = Addresses { listener: address(1001), admin: address(1002), upstream: address(1003) };
    let of = Controlled {
        node: "node-7".to_owned(),
        control: address(1004),
        certificates: Path::new("/somewhere").to_path_buf(),
    };
    let text = controlled(addresses, Path::new("/module.wasm"), &of).unwrap();
    let configuration: String = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    for default in ["4318", "9901", "14317", "14318", "18443", "phoenix-gateway", " certs", "target/"] {
        assert!(!configuration.contains(default), "{default}");
    }
    assert!(configuration.contains("id: node-7, cluster: phoenix"));
    assert!(configuration.contains("filename: /somewhere/node-7.key"));
}

#[test]
fn the_shipped_discovery_file_holds_the_shop_plan() {
    assert_eq!(shipped_plugin_config().unwrap(), shipped("envoy/plan/shop.json").unwrap());
    let text =
        ecds(Path::new("target/phoenix/phoenix_envoy.wasm"), &shipped("envoy/plan/shop.json").unwrap());
    assert_eq!(text.unwrap(), shipped("envoy/ecds/phoenix.yaml").unwrap());
}

#[test]
fn the_shop_plan_is_valid() {
    let plan = shop_plugin_config().unwrap()["plan"].to_string();
    phoenix_plan::Plan::parse(plan.as_bytes()).unwrap();
}

/// Start, push, refuse, measure, drain, kill, with the real binary and the built module. `cargo xtask` names both.
#[tokio::test]
async fn a_real_envoy_lives_as_told() {
    use super::process::find_binary;
    use super::{Envoy, EnvoyOptions};
    use crate::shop::{Shop, ShopConfig};
    use crate::sink::{BooksConfig, Sink};
    use std::time::Duration;

    let sink = Sink::start(BooksConfig::default()).await.unwrap();
    let modules: std::path::PathBuf = std::env::var_os("PHOENIX_WASM_DIR")
        .map_or_else(|| super::config::project().join("target/phoenix"), Into::into);
    let module = modules.join("phoenix_envoy.wasm");
    let plan = shipped("envoy/plan/shop.json").unwrap();
    let mut envoy = Envoy::start(EnvoyOptions {
        binary: find_binary().unwrap(),
        module,
        plugin_config: plan.clone(),
        upstream: sink.address(),
        workers: 2,
        folder: None,
        drain_seconds: 1,
    })
    .await
    .unwrap();
    let before = envoy.pushes().await.unwrap();
    envoy.push(&plan.replace("\"version\": 1,", "\"version\": 2,")).unwrap();
    let mut tries = 0;
    while envoy.pushes().await.unwrap().0 == before.0 {
        tries += 1;
        assert!(tries < 100, "the push was not seen: {before:?} {:?}", envoy.stats("config").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let second = Duration::from_secs(1);
    let config = ShopConfig { replicas: 1, length: second, interval: second / 5, ..ShopConfig::default() };
    let (truth, _) = Shop::open(&config, envoy.address(), BooksConfig::default()).close().await;
    assert!(truth.exports.acknowledged > 8 && truth.exports.retries == 0, "{:?}", truth.exports);
    let usage = envoy.usage().unwrap();
    assert!(usage.resident_bytes > 1 << 20 && usage.cpu > Duration::ZERO, "{usage:?}");
    envoy.drain().await.unwrap();
    envoy.kill().await.unwrap();
    assert!(!envoy.is_running());
}

/// `envoy/controlled.yaml` is `envoy/gateway.yaml` but for the plan's way in and the clusters of the control host.
#[test]
fn the_controlled_gateway_is_the_gateway() {
    let (gateway, controlled) =
        (shipped("envoy/gateway.yaml").unwrap(), shipped("envoy/controlled.yaml").unwrap());
    let body = |text: &str| text.split_once("\nnode:").expect("node").1.trim_end().to_owned();
    let (gateway, controlled) = (body(&gateway), body(&controlled));
    let cut = |text: &str| {
        let (head, rest) = text.split_once("          # 2. Phoenix").expect("the filter");
        let (_, tail) = rest.split_once("          # 3. What is left").expect("the next filter");
        (head.to_owned(), tail.to_owned())
    };
    let ((head, tail), (own_head, own_tail)) = (cut(&gateway), cut(&controlled));
    assert_eq!(own_head, head);
    let more = own_tail.strip_prefix(tail.as_str()).expect("the same clusters first");
    assert!(more.trim_start().starts_with("# The control host, for plans"), "{more}");
}
