//! What the tests of replay, capture and generate share: the binary, folders, OTLP by hand.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod reports;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

/// A second.
pub const S: u64 = 1_000_000_000;
/// When the tests' traffic begins: 2026-01-01T00:00:00Z.
pub const T0: u64 = 1_767_225_600 * S;

/// A plan that folds pods away in every metric.
pub const PLAN: &str = r#"{
  "schema": 1,
  "version": 7,
  "hash_key": "8f2c1e5d90ab374466e1f0827bb3c95a17d4e86f2390bc51ae7d60f4895b12cd",
  "rules": [
    {
      "name": "all by pod",
      "metric": { "glob": "*" },
      "pipeline": "optimized",
      "fold": {
        "labels": { "drop": { "resource": ["k8s.pod.name", "service.instance.id"], "attributes": ["client.address", "search.text"] } },
        "window": "15s",
        "delay": "15s"
      }
    }
  ]
}"#;

/// The command.
pub fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_phoenix"))
}

/// Runs `phoenix`.
pub fn phoenix(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

/// Runs `phoenix`, which must succeed; its standard output.
pub fn good(arguments: &[&str]) -> String {
    let output = phoenix(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs `phoenix`, which must fail; its standard error.
pub fn bad(arguments: &[&str]) -> String {
    let output = phoenix(arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A folder that goes with the test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// An empty one.
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    /// A path in it.
    pub fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A file in it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.at(name);
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// The files of a folder, by name; not those that are being written.
pub fn files(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let names = names(folder).into_iter().filter(|name| !name.starts_with('.'));
    names.map(|name| (name.clone(), std::fs::read(Path::new(folder).join(name)).unwrap())).collect()
}

/// All names in a folder.
pub fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()).collect()
}

/// A file with JSON.
pub fn json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A string attribute.
pub fn label(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// A body with one point of the cumulative counter `requests` of a pod.
pub fn counter(pod: &str, start_ns: u64, time_ns: u64, value: i64) -> Vec<u8> {
    let point = NumberDataPoint {
        attributes: vec![label("route", "/cart")],
        start_time_unix_nano: start_ns,
        time_unix_nano: time_ns,
        value: Some(Value::AsInt(value)),
        ..NumberDataPoint::default()
    };
    let sum = Sum { data_points: vec![point], aggregation_temporality: 2, is_monotonic: true };
    let metric = Metric { name: "requests".to_owned(), data: Some(Data::Sum(sum)), ..Metric::default() };
    let resource = Resource { attributes: vec![label("k8s.pod.name", pod)], ..Resource::default() };
    let resource = ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }.encode_to_vec()
}

/// The messages of a folder of requests, in order.
pub fn messages(folder: &str) -> Vec<ExportMetricsServiceRequest> {
    let bodies = files(folder).into_iter().filter(|(name, _)| name.ends_with(".otlp"));
    let mut bodies: Vec<(u64, Vec<u8>)> =
        bodies.map(|(name, body)| (name.split('.').next().unwrap().parse().unwrap(), body)).collect();
    bodies.sort();
    bodies.iter().map(|(_, body)| ExportMetricsServiceRequest::decode(body.as_slice()).unwrap()).collect()
}
