//! A plan as Envoy's configuration of the module.
//!
//! In: where the module is, and the module's own configuration (JSON). Out: a `TypedExtensionConfig`, as protobuf for xDS and as JSON for a file that Envoy watches. Both
//! say the same; a test gives each to a real Envoy. Between two plans only the innermost text differs, so Envoy keeps its VM.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use envoy_types::pb::envoy::extensions::wasm::v3::{
    FailurePolicy, PluginConfig, ReloadConfig, VmConfig, plugin_config,
};
use envoy_types::pb::google::protobuf::{Any, Duration, StringValue};
use prost::Name as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The module, as Envoy is to find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Name of the extension: `http_filters[].name` in Envoy's configuration.
    #[serde(default = "phoenix")]
    pub name: String,
    /// A VM belongs to its id and the code: another one begins anew.
    #[serde(default = "phoenix")]
    pub vm_id: String,
    /// Path of `phoenix_envoy.wasm` where Envoy runs.
    pub filename: String,
}

fn phoenix() -> String {
    "phoenix".to_owned()
}

impl Module {
    /// The resource, for xDS.
    pub fn resource(&self, config: &str) -> Any {
        let backoff = core::BackoffStrategy {
            base_interval: Some(Duration { seconds: 1, nanos: 0 }),
            ..core::BackoffStrategy::default()
        };
        let code = core::DataSource {
            specifier: Some(core::data_source::Specifier::Filename(self.filename.clone())),
            ..core::DataSource::default()
        };
        let vm = VmConfig {
            vm_id: self.vm_id.clone(),
            runtime: "envoy.wasm.runtime.v8".to_owned(),
            code: Some(core::AsyncDataSource {
                specifier: Some(core::async_data_source::Specifier::Local(code)),
            }),
            allow_precompiled: true,
            ..VmConfig::default()
        };
        let plugin = PluginConfig {
            name: "phoenix".to_owned(),
            root_id: "phoenix".to_owned(),
            configuration: Some(any(&StringValue { value: config.to_owned() })),
            failure_policy: FailurePolicy::FailReload.into(),
            reload_config: Some(ReloadConfig { backoff: Some(backoff) }),
            vm: Some(plugin_config::Vm::VmConfig(vm)),
            ..PluginConfig::default()
        };
        let typed = any(&Wasm { config: Some(plugin) });
        any(&core::TypedExtensionConfig { name: self.name.clone(), typed_config: Some(typed) })
    }

    /// A discovery response, for a file.
    pub fn file(&self, version: &str, config: &str) -> Value {
        json!({
            "version_info": version,
            "resources": [{
                "@type": core::TypedExtensionConfig::type_url(),
                "name": self.name,
                "typed_config": {
                    "@type": Wasm::type_url(),
                    "config": {
                        "name": "phoenix",
                        "root_id": "phoenix",
                        "failure_policy": "FAIL_RELOAD",
                        "reload_config": { "backoff": { "base_interval": "1s" } },
                        "vm_config": {
                            "vm_id": self.vm_id,
                            "runtime": "envoy.wasm.runtime.v8",
                            "code": { "local": { "filename": self.filename } },
                            "allow_precompiled": true
                        },
                        "configuration": { "@type": StringValue::type_url(), "value": config }
                    }
                }
            }]
        })
    }
}

/// Type of the resources.
pub fn type_url() -> String {
    core::TypedExtensionConfig::type_url()
}

fn any<M: prost::Message + prost::Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}
