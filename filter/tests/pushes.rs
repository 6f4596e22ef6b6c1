//! Plans that come and go under traffic: what was raw is never counted by a fold, and what folds is counted once.
//!
//! In: totals of a few pods, a second apart, and plans at their times. Out: what the folded series end with, against what the raw points
//! carried. Each case is one that an earlier engine got wrong.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Request;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value as V,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use prost::Message;
use std::collections::BTreeMap;

const S: u64 = 1_000_000_000;
const FOLD: &str =
    r#""pipeline":"optimized","fold":{"labels":{"drop":{"resource":["pod"]}},"window":"10s","delay":"10s"}"#;
const PASS: &str = r#""pipeline":"full_fidelity""#;

fn plan(rules: &[String]) -> String {
    format!(
        r#"{{"schema":1,"version":1,"writer":"w","first_sample_margin":"0s","stream_expiry":"10m",
        "hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","rules":[{}]}}"#,
        rules.join(",")
    )
}

fn rule(name: &str, more: &str) -> String {
    format!(r#"{{"name":"{name}","metric":{{"exact":"requests"}},{more}}}"#)
}

/// An engine, what it let through of each pod, and what its series have.
struct Run {
    engine: Local,
    /// First and last raw total of each pod.
    raw: BTreeMap<String, (i64, i64)>,
    /// Last total of each folded series.
    folded: BTreeMap<String, i64>,
    stale: usize,
    /// Whose requests these are.
    tenant: &'static str,
}

impl Run {
    fn new(plan: &str) -> Run {
        let engine = Local::new(plan.as_bytes(), "w", UnixNanos(100 * S)).expect("a plan");
        Run { engine, raw: BTreeMap::new(), folded: BTreeMap::new(), stale: 0, tenant: "" }
    }

    fn push(&mut self, plan: &str, at_s: u64) {
        self.engine.configure(plan.as_bytes(), UnixNanos(at_s * S)).expect("a plan");
    }

    /// One request with a point of each pod: `(pod, start, total)`; no total is a stale marker.
    fn send(&mut self, at_s: u64, points: &[(&str, u64, Option<i64>)]) {
        let body = request(at_s, points);
        let now = UnixNanos(at_s * S);
        let batch = Batch { body: &body, tenant: self.tenant.as_bytes(), sender: b"", arrived: now };
        let done = self.engine.process(Framing::Plain, &batch).expect("OTLP");
        for (pod, point) in points_of(done.body.as_deref().unwrap_or(&body), "pod") {
            if let Some(V::AsInt(total)) = point.value {
                self.raw.entry(pod).or_insert((total, total)).1 = total;
            }
        }
        self.engine.settle(done.token, Settled::Accepted, now);
        self.tick(at_s);
    }

    fn tick(&mut self, at_s: u64) {
        let now = UnixNanos(at_s * S);
        self.engine.tick(now);
        while let Some((shard, emission)) = self.engine.next_emission(now) {
            let (sequence, body) = (emission.sequence, emission.body.to_vec());
            let names = points_of(&body, "of").into_iter().map(|(of, _)| of);
            for ((mark, point), of) in points_of(&body, "phoenix_folded").into_iter().zip(names) {
                let series = format!("{mark} {of}");
                match point.value {
                    Some(V::AsInt(total)) => drop(self.folded.insert(series, total)),
                    _ => self.stale += 1,
                }
            }
            self.engine.answer(shard, sequence, Answer::Accepted, now);
        }
    }

    fn total(&self) -> i64 {
        self.folded.values().sum()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn request(at_s: u64, points: &[(&str, u64, Option<i64>)]) -> Vec<u8> {
    let of = |(pod, start_s, total): &(&str, u64, Option<i64>)| {
        let point = NumberDataPoint {
            start_time_unix_nano: start_s * S,
            time_unix_nano: at_s * S,
            flags: u32::from(total.is_none()),
            value: total.map(V::AsInt),
            attributes: vec![text("of", pod)],
            ..Default::default()
        };
        let sum = Sum { data_points: vec![point], aggregation_temporality: 2, is_monotonic: true };
        let metric = Metric { name: "requests".into(), data: Some(Data::Sum(sum)), ..Default::default() };
        let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
        let resource = Resource { attributes: vec![text("pod", pod)], ..Default::default() };
        ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope], ..Default::default() }
    };
    Request { resource_metrics: points.iter().map(of).collect() }.encode_to_vec()
}

/// Every point with the value of an attribute of its resource or of its own.
fn points_of(body: &[u8], key: &str) -> Vec<(String, NumberDataPoint)> {
    let mut all = Vec::new();
    for rm in Request::decode(body).expect("OTLP").resource_metrics {
        let of_resource = rm.resource.clone().unwrap_or_default().attributes;
        for data in rm.scope_metrics.into_iter().flat_map(|s| s.metrics).filter_map(|m| m.data) {
            let Data::Sum(sum) = data else { panic!("only sums went in") };
            for point in sum.data_points {
                let found = of_resource.iter().chain(&point.attributes).find(|kv| kv.key == key);
                let text = match found.and_then(|kv| kv.value.clone()).and_then(|v| v.value) {
                    Some(Value::StringValue(text)) => text,
                    _ => String::new(),
                };
                all.push((text, point));
            }
        }
    }
    all
}

/// Two rules write one series: the one goes raw, the other folds on. Whoever comes first in a batch decides nothing for the other.
#[test]
fn a_rule_that_switches_beside_one_that_does_not() {
    let drop_both = FOLD.replace(r#"["pod"]"#, r#"["pod"],"attributes":["of"]"#);
    let canary = format!(
        r#""resource":[{{"key":"pod","equals":"canary"}}],{PASS},"switch":{{"at":"1970-01-01T00:03:20Z","from":{{{drop_both}}}}}"#
    );
    let plan = plan(&[rule("canary", &canary), rule("rest", &drop_both)]);
    for order in [["canary", "web"], ["web", "canary"]] {
        let mut run = Run::new(&plan);
        for at_s in (150..=300).step_by(10) {
            let total = Some(at_s as i64 - 100);
            run.send(at_s, &order.map(|pod| (pod, 50, total)));
        }
        (31..60).for_each(|n| run.tick(10 * n));
        // Canary folds over 150..200, web over 150..300, a second each.
        assert_eq!(run.total(), 50 + 150, "{order:?}");
        assert_eq!(run.raw.get("canary"), Some(&(100, 200)), "{order:?}");
        assert_eq!(run.stale, 0, "the series goes on");
    }
}

/// A stream that was raw since its birth is a stranger to a fold that comes later, with a switch in the past or without one.
#[test]
fn a_fold_that_is_pushed_counts_nothing_from_before() {
    let late = format!(r#"{FOLD},"switch":{{"at":"1970-01-01T00:03:20Z","from":{{{PASS}}}}}"#);
    for fold in [FOLD, &late] {
        let mut run = Run::new(&plan(&[rule("r", PASS)]));
        for at_s in (150..=1_000).step_by(10) {
            run.send(at_s, &[("web", 140, Some(at_s as i64 - 140))]);
        }
        run.push(&plan(&[rule("r", fold)]), 1_005);
        for at_s in (1_010..=1_100).step_by(10) {
            // One that is born under the fold counts from zero.
            run.send(
                at_s,
                &[("web", 140, Some(at_s as i64 - 140)), ("new", 1_007, Some(at_s as i64 - 1_007))],
            );
        }
        (111..140).for_each(|n| run.tick(10 * n));
        assert_eq!(run.total(), 90 + 93, "web from 1010, new from 1007");
    }
}

/// An operator turns a fold off and on again: what was raw in between stays raw.
#[test]
fn off_and_on_again() {
    let (on, off) = (plan(&[rule("r", FOLD)]), plan(&[rule("r", PASS)]));
    let mut run = Run::new(&on);
    for at_s in (150..=800).step_by(10) {
        match at_s {
            210 => run.push(&off, 205),
            500 => run.push(&on, 495),
            // A push that changes nothing for this fold.
            700 => run.push(&plan(&[rule("other", PASS).replace("requests", "x"), rule("r", FOLD)]), 695),
            _ => {}
        }
        run.send(at_s, &[("web", 50, Some(at_s as i64))]);
    }
    (81..120).for_each(|n| run.tick(10 * n));
    assert_eq!(run.raw.get("web"), Some(&(210, 490)));
    assert_eq!(run.total(), 50 + 300, "150 to 200, and 500 to 800");
}

/// Off and on again within a window and its delay: what was raw in between is not counted on from before either.
#[test]
fn off_and_soon_on_again() {
    let (on, off) = (plan(&[rule("r", FOLD)]), plan(&[rule("r", PASS)]));
    let none = plan(&[rule("r", FOLD).replace("requests", "others")]);
    for off in [off, none] {
        let mut run = Run::new(&on);
        for at_s in 150..=400 {
            match at_s {
                203 => run.push(&off, 202),
                217 | 219 => run.push(&on, at_s - 1),
                _ => {}
            }
            run.send(at_s, &[("web", 50, Some(at_s as i64))]);
        }
        (41..80).for_each(|n| run.tick(10 * n));
        assert_eq!(run.raw.get("web"), Some(&(203, 216)));
        assert_eq!(run.total(), 52 + 183, "150 to 202, and 217 to 400");
    }
}

/// A rule that lets everything through is put before a fold, and taken away: the gap is raw, however the fold stood in the plan meanwhile.
#[test]
fn a_fold_that_was_covered() {
    let (fold, all) =
        (rule("r", FOLD), rule("all", PASS).replace(r#""exact":"requests""#, r#""glob":"req*""#));
    let (on, covered) = (plan(std::slice::from_ref(&fold)), plan(&[all.clone(), fold.clone()]));
    for on_again in [on.clone(), plan(&[fold, all])] {
        let mut run = Run::new(&on);
        for at_s in (150..=800).step_by(10) {
            match at_s {
                210 => run.push(&covered, 205),
                500 => run.push(&on_again, 495),
                _ => {}
            }
            let mut points = vec![("web", 50, Some(at_s as i64))];
            if at_s >= 410 {
                points.push(("born", 400, Some(at_s as i64 - 400)));
            }
            run.send(at_s, &points);
        }
        (81..120).for_each(|n| run.tick(10 * n));
        assert_eq!(run.raw.get("web"), Some(&(210, 490)));
        assert_eq!(
            run.total(),
            50 + 300 + 300,
            "150 to 200 and 500 to 800 of the one, 500 to 800 of the other"
        );
    }
}

/// What another tenant's rule has folded says nothing about this one's streams.
#[test]
fn the_same_rule_of_another_tenant() {
    let of = |tenant: &str| rule(tenant, &format!(r#""tenant":"{tenant}",{FOLD}"#));
    let mut run = Run::new(&plan(&[of("a")]));
    run.tenant = "b";
    for at_s in (150..=800).step_by(10) {
        match at_s {
            410 => run.push(&plan(&[of("a"), of("b")]), 405),
            600 => run.push(&plan(&[of("a"), of("b"), rule("x", PASS)]), 595),
            _ => {}
        }
        run.send(at_s, &[("web", 140, Some(at_s as i64))]);
    }
    (81..120).for_each(|n| run.tick(10 * n));
    assert_eq!(run.raw.get("web"), Some(&(150, 400)));
    assert_eq!(run.total(), 390, "410 to 800");
}

/// A marker from centuries ahead holds nothing up.
#[test]
fn a_stale_marker_from_far_ahead_passes() {
    let mut run = Run::new(&plan(&[rule("r", FOLD)]));
    run.send(150, &[("web", 50, Some(1))]);
    run.send(160, &[("web", 50, Some(2))]);
    let far = 160 + 86_400 * 365 * 200;
    let body = request(far, &[("web", 50, None)]);
    let batch = Batch { body: &body, tenant: b"", sender: b"", arrived: UnixNanos(165 * S) };
    let done = run.engine.process(Framing::Plain, &batch).expect("OTLP");
    assert_eq!((done.body, done.tally.ahead), (None, 1));
    run.engine.settle(done.token, Settled::Accepted, UnixNanos(165 * S));
    (17..200).for_each(|n| run.tick(10 * n));
    assert!(run.engine.owners().iter().all(|o| o.is_drained()));
    assert_eq!(run.total(), 1);
}

/// Rules are written anew and every stream still folds: nothing is lost and nothing counted twice.
#[test]
fn other_rules_for_the_same_points() {
    let by_pod = rule("r", FOLD);
    let glob = by_pod
        .replace(r#""exact":"requests""#, r#""glob":"req*""#)
        .replace(r#"["pod"]"#, r#"["pod"],"attributes":["of"]"#);
    let mut run = Run::new(&plan(&[by_pod]));
    for at_s in (150..=400).step_by(10) {
        if at_s == 300 {
            run.push(&plan(std::slice::from_ref(&glob)), 295);
        }
        run.send(at_s, &[("web", 50, Some(at_s as i64))]);
    }
    (41..80).for_each(|n| run.tick(10 * n));
    assert_eq!((run.total(), run.raw.len()), (250, 0));
}
