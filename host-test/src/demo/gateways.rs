//! The two gateways: real Envoys, each from `envoy/controlled.yaml`.
//!
//! In: the control host, the sink. Out: a [`Fleet`] of two that is asked as one: stats are added up, so is what they use.

use super::control::Control;
use super::{Options, reports};
use crate::envoy::config::{Controlled, controlled};
use crate::envoy::process::{Usage, find_binary};
use crate::envoy::{Envoy, EnvoyOptions};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// `node.id` of each, which its folded series bear.
pub const NODES: [&str; 2] = ["phoenix-gateway-a", "phoenix-gateway-b"];
/// What Envoy counts of configurations that it was sent.
const DISCOVERY: &str = "extension_config_discovery";

/// Both.
#[derive(Debug)]
pub struct Fleet {
    envoys: Vec<Envoy>,
}

/// What Envoy itself says of plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushes {
    /// Configurations that are in force, or were.
    pub taken: i64,
    /// Those that it refused, or that never reached it.
    pub refused: i64,
}

impl Fleet {
    /// Starts both. They are ready when they have a plan, or have waited for one for as long as `envoy/controlled.yaml` says.
    ///
    /// # Errors
    /// One does not start; the text ends with its log.
    pub async fn start(options: &Options, control: &Control, upstream: SocketAddr) -> anyhow::Result<Self> {
        let binary = find_binary()?;
        let mut envoys = Vec::new();
        for node in NODES {
            let settings = EnvoyOptions {
                binary: binary.clone(),
                module: options.module.clone(),
                plugin_config: String::new(),
                upstream,
                workers: options.workers,
                folder: Some(options.json.with_file_name(node)),
                drain_seconds: 5,
            };
            let of = Controlled {
                node: node.to_owned(),
                control: control.address(),
                certificates: control.certificates(),
            };
            let started = Envoy::start_as(settings, |addresses, _, module| {
                reports::with_a_copy(&controlled(addresses, module, &of)?, options.reports)
            });
            envoys.push(started.await.context(node)?);
        }
        Ok(Self { envoys })
    }

    /// Where OTLP goes in.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.envoys.iter().map(Envoy::address).collect()
    }

    /// Stats of both, added up by name.
    ///
    /// # Errors
    /// An admin port does not answer.
    pub async fn stats(&self, filter: &str) -> anyhow::Result<BTreeMap<String, i64>> {
        let mut sum = BTreeMap::new();
        for envoy in &self.envoys {
            for (name, value) in envoy.stats(filter).await? {
                *sum.entry(name).or_default() += value;
            }
        }
        Ok(sum)
    }

    /// What each says of plans.
    ///
    /// # Errors
    /// An admin port does not answer.
    pub async fn pushes(&self) -> anyhow::Result<Vec<Pushes>> {
        let mut all = Vec::new();
        for envoy in &self.envoys {
            let stats = envoy.stats(DISCOVERY).await?;
            let sum = |ends: &[&str]| -> i64 {
                let ends = |name: &&String| ends.iter().any(|end| name.ends_with(end));
                stats.iter().filter(|(name, _)| ends(name)).map(|(_, value)| value).sum()
            };
            all.push(Pushes {
                taken: sum(&[".config_reload"]),
                refused: sum(&[".config_fail", ".update_rejected"]),
            });
        }
        Ok(all)
    }

    /// CPU time and memory of both.
    ///
    /// # Errors
    /// One has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let mut sum = Usage::default();
        for envoy in &self.envoys {
            let usage = envoy.usage()?;
            sum.cpu += usage.cpu;
            sum.resident_bytes += usage.resident_bytes;
        }
        Ok(sum)
    }

    /// Ends both.
    ///
    /// # Errors
    /// One does not end.
    pub async fn quit(&mut self) -> anyhow::Result<()> {
        for envoy in &mut self.envoys {
            envoy.quit().await?;
        }
        Ok(())
    }

    /// Where their logs are.
    pub fn logs(&self) -> Vec<String> {
        self.envoys.iter().map(|envoy| envoy.folder().join("envoy.log").display().to_string()).collect()
    }
}
