//! The judge must be able to say no. A plain fold of the truth stands in for the module.

use super::judge::{Verdict, judge};
use super::numbers::{bytes, change, count};
use super::proof::When;
use super::table;
use crate::envoy::config::shop_plugin_config;
use crate::shop::Truth;
use crate::shop::catalogue::METRICS;
use crate::shop::otlp::{CUMULATIVE, int, metric, number, sum, text};
use crate::shop::tests::{small, virtual_run};
use crate::sink::identity::Labels;
use crate::sink::{Books, MARK};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_plan::Plan;
use prost::Message;
use std::collections::BTreeMap;

fn shop_plan() -> Plan {
    Plan::parse(shop_plugin_config().unwrap()["plan"].to_string().as_bytes()).unwrap()
}

fn pass_plan() -> Plan {
    let mut plan = shop_plan();
    plan.rules.clear();
    plan
}

fn attributes(labels: &Labels, keeps: impl Fn(&[u8]) -> bool) -> Vec<KeyValue> {
    let kept = labels.iter().filter(|(key, _)| keeps(key.as_bytes()));
    kept.map(|(key, value)| match value.strip_prefix('"') {
        Some(rest) => text(key, rest.trim_end_matches('"')),
        None => int(key, value.parse().unwrap()),
    })
    .collect()
}

/// What a right module would send for the truth: passing metrics as they are, one cumulative point for each folded series.
fn folded(truth: &Truth, plan: &Plan, tamper: i64) -> Books {
    let mut out = Books::new(truth.books.config.clone());
    let mut tamper = tamper;
    for ((tenant, name), book) in &truth.books.metrics {
        let rule = plan.rule_for(name.as_bytes(), |_| None, |_| None).unwrap().1;
        let Some(fold) = &rule.fold else {
            out.metrics.insert((tenant.clone(), name.clone()), book.clone());
            continue;
        };
        let mut groups: BTreeMap<String, (Vec<KeyValue>, Vec<KeyValue>, crate::sink::exact::Total)> =
            BTreeMap::new();
        for series in book.raw.series.values() {
            let resource = attributes(&series.resource, |key| {
                plan.promotes_resource(key) && fold.labels.keeps_resource(key)
            });
            let point = attributes(&series.point, |key| fold.labels.keeps_attribute(key));
            let group = groups.entry(format!("{resource:?}{point:?}")).or_insert((
                resource,
                point,
                Default::default(),
            ));
            group.2.add(series.read(0).total);
        }
        for (resource, mut point, total) in groups.into_values() {
            point.push(text(MARK, "labels"));
            let value = match total.doubles.value() {
                0.0 => Value::AsInt(i64::try_from(total.ints).unwrap() + std::mem::take(&mut tamper)),
                doubles => Value::AsDouble(doubles),
            };
            let data = sum(vec![number(point, 1, 2, value)], CUMULATIVE, true);
            let scope_metrics =
                vec![ScopeMetrics { metrics: vec![metric(name, "", data)], ..Default::default() }];
            let resource = Some(Resource { attributes: resource, ..Default::default() });
            let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }];
            out.add(tenant, &ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()).unwrap();
        }
    }
    out
}

fn check(verdict: &Verdict, metric: &str, part: &str) {
    let failures = verdict.all_failures();
    assert!(failures.iter().any(|text| text.contains(metric) && text.contains(part)), "{part}: {failures:?}");
    assert!(!verdict.holds());
    let is_row = verdict.rows.iter().any(|row| !row.failures.is_empty());
    assert_eq!(table::render(verdict).contains("FAILED"), is_row);
}

#[test]
fn a_right_fold_holds() {
    let (truth, _) = virtual_run(&small(), |_| 1);
    let verdict = judge(&truth, &folded(&truth, &shop_plan(), 0), &shop_plan());
    assert_eq!(verdict.all_failures(), Vec::<String>::new());
    assert_eq!(verdict.rows.len(), METRICS.len());
    let requests = &verdict.rows[0];
    assert!(requests.series_out == requests.series_expected && requests.series_out * 3 < requests.streams_in);
}

#[test]
fn a_total_that_is_off_by_one_fails() {
    let (truth, _) = virtual_run(&small(), |_| 1);
    check(&judge(&truth, &folded(&truth, &shop_plan(), 1), &shop_plan()), "cart_items", "off by 1");
}

#[test]
fn what_passes_raw_is_not_folded() {
    let (truth, books) = virtual_run(&small(), |_| 1);
    check(&judge(&truth, &books, &shop_plan()), "http_requests", "not folded");
}

#[test]
fn what_passes_must_be_the_same_bytes() {
    let (truth, mut books) = virtual_run(&small(), |_| 1);
    assert!(judge(&truth, &books, &pass_plan()).holds());
    let key = ("shop".to_owned(), "process_memory".to_owned());
    books.metrics.get_mut(&key).unwrap().raw.print.sum ^= 1;
    check(&judge(&truth, &books, &pass_plan()), "process_memory", "other bytes");
}

#[test]
fn a_lost_and_a_repeated_body_fail() {
    let (truth, books) = virtual_run(&small(), |body| usize::from(body != 3));
    check(&judge(&truth, &books, &pass_plan()), "process_memory", "received");
    let (truth, books) = virtual_run(&small(), |body| if body == 3 { 2 } else { 1 });
    check(&judge(&truth, &books, &pass_plan()), "http_requests", "Repeated");
}

#[test]
fn an_unknown_metric_fails() {
    let (truth, mut books) = virtual_run(&small(), |_| 1);
    let book = books.metric("rpc_latency").cloned().unwrap_or_default();
    books.metrics.insert(("shop".to_owned(), "surprise".to_owned()), book);
    check(&judge(&truth, &books, &pass_plan()), "surprise", "nobody sent");
}

#[test]
fn numbers_read_well() {
    assert_eq!(count(-1_234_567), "-1,234,567");
    assert_eq!(
        (bytes(999), bytes(1_234), bytes(98_765_432)),
        ("999 B".into(), "1.23 kB".into(), "98.8 MB".into())
    );
    assert_eq!(change(200, 50), "-75 %");
}

#[test]
fn when_the_dashboard_is_asked() {
    let second = 1_000_000_000;
    for (length_s, range_s, rate_interval_s, tolerance) in [(60, 20, 30, 0.1), (20, 6, 10, 0.3)] {
        let when = When::of(1_000 * second + 7, (1_000 + length_s) * second + 9);
        assert_eq!(
            (when.end_s, when.range_s, when.rate_interval_s, when.tolerance()),
            (1_000 + length_s, range_s, rate_interval_s, tolerance)
        );
        // No range reaches back before the traffic.
        assert!(when.range_s + when.rate_interval_s < length_s);
    }
}
