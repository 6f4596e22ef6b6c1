//! What leaves untouched, and who decides about it.

use crate::oracle::{Kind, Point};
use crate::scripts::{BEGAN, S};
use crate::wire::{Order, at_path, bytes_field};
use phoenix_filter::body::{Framing, scan};
use phoenix_filter::flow::{Batch, Scratch};
use phoenix_filter::record::Message;
use phoenix_filter::route::Compiled;
use phoenix_filter::units::UnixNanos;
use phoenix_plan::Plan;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::rc::Rc;

const METRICS: [&str; 4] = ["a.b", "a.c", "b", "ab"];
const KEYS: [&str; 3] = ["route", "zone", "none"];

/// Rules at random, each of which folds another label away, so that the mark of a series names its rule.
fn plan(rng: &mut ChaCha8Rng) -> Plan {
    let mut rules = Vec::new();
    for n in 0..rng.random_range(0..7) {
        let metric = [
            r#"{"exact":"a.b"}"#,
            r#"{"prefix":"a"}"#,
            r#"{"glob":"*b"}"#,
            r#"{"glob":"?"}"#,
            r#"{"glob":"*"}"#,
        ];
        let metric = metric[rng.random_range(0..5)];
        let mut matchers = |keys: &[&str]| {
            let many = [0, 0, 1, 2][rng.random_range(0..4)];
            let one = |_| {
                let key = keys[rng.random_range(0..keys.len())];
                let op = [
                    r#""equals":"/r1""#,
                    r#""prefix":"z""#,
                    r#""glob":"*-?""#,
                    r#""exists":true"#,
                    r#""exists":false"#,
                ];
                format!(r#"{{"key":"{key}",{}}}"#, op[rng.random_range(0..5)])
            };
            (0..many).map(one).collect::<Vec<_>>().join(",")
        };
        let resource = matchers(&["pod", "cloud", "none"]);
        let attributes = matchers(&KEYS);
        let what = if rng.random_bool(0.3) {
            r#""pipeline":"full_fidelity""#.to_owned()
        } else {
            format!(
                r#""pipeline":"optimized","fold":{{"labels":{{"drop":{{"attributes":["l{n}"]}}}},"window":"10s","offset":"0s","delay":"10s"}}"#
            )
        };
        let tenant = ["", "", r#""tenant":"t","#, r#""tenant":"u","#][rng.random_range(0..4)];
        rules.push(format!(
            r#"{{"name":"n{n}",{tenant}"metric":{metric},"resource":[{resource}],"attributes":[{attributes}],{what}}}"#
        ));
    }
    let text = format!(
        r#"{{"schema":1,"version":1,"hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","rules":[{}]}}"#,
        rules.join(",")
    );
    Plan::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn random_point(rng: &mut ChaCha8Rng) -> Point {
    Point {
        stream: (rng.random_range(0..3), rng.random_range(0..3)),
        kind: Kind::Cumulative,
        double: rng.random(),
        start: BEGAN,
        time: BEGAN + rng.random_range(0..100) * S,
        value: rng.random_range(0..100),
    }
}

fn arrived<'a>(body: &'a [u8]) -> Batch<'a> {
    Batch { body, tenant: b"t", sender: b"", arrived: UnixNanos(BEGAN + 100 * S) }
}

/// Points, raw: `resource_metrics` / `scope_metrics` / `metrics` / sum or gauge / `data_points`.
fn raw_points(body: &[u8]) -> BTreeMap<Vec<u8>, usize> {
    let mut list = Vec::new();
    at_path(body, &[1, 2, 2, 7, 1], &mut list);
    at_path(body, &[1, 2, 2, 5, 1], &mut list);
    let mut set = BTreeMap::new();
    list.into_iter().for_each(|p| *set.entry(p).or_default() += 1);
    set
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The engine routes each point as `Plan::rule_for`, the plain definition, does. Names are remembered from batch to batch.
    #[test]
    fn points_meet_the_rule_that_the_plan_names(seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let compiled = Rc::new(Compiled::new(plan(&mut rng)));
        let mut scratch = Scratch::default();
        for _ in 0..8 {
            let (metric, point) = (METRICS[rng.random_range(0..METRICS.len())], random_point(&mut rng));
            let mut order = Order::Shuffled(Box::new(rng.clone()));
            let (pod, route) = (format!("pod-{}", point.stream.0), format!("/r{}", point.stream.1));
            let raw = order.point(&point);
            let sum = order.sum(metric, Kind::Cumulative, &[raw]);
            let body = bytes_field(1, &order.resource(&pod, &[sum])).1;
            let tenant: &[u8] = if rng.random() { b"t" } else { b"u" };
            let batch = Batch { tenant, ..arrived(&body) };
            let scanned = scan(&compiled, Framing::Plain, &batch, &mut scratch).unwrap();

            let resource = |key: &str| match key {
                "pod" => Some(pod.as_bytes()),
                "cloud" => Some(&b"c"[..]),
                "service.name" => Some(&b"shop"[..]),
                _ => None,
            };
            let attributes = |key: &str| match key {
                "route" => Some(route.as_bytes()),
                "zone" => Some(&b"z"[..]),
                _ => None,
            };
            let rule = compiled.plan.rule_for(tenant, metric.as_bytes(), resource, attributes);
            let wanted = rule.and_then(|(_, r)| r.fold.as_ref()).map(|f| f.labels.mark().into_bytes());
            let met = scanned.messages.first().map(|(_, m)| {
                Message::read(m).unwrap().heads().next().unwrap().unwrap().mark.to_vec()
            });
            prop_assert_eq!(met, wanted, "rule {:?}", rule.map(|r| r.0));
        }
    }

    /// Forwarded + folded = input, as sets of raw points: what is forwarded is there byte for byte and as often as it came; what
    /// folds by the plan is gone; a batch without such a point is not touched at all.
    #[test]
    fn forwarded_and_folded_are_the_input(seed in any::<u64>(), framed in any::<bool>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let plan = r#"{"schema":1,"version":1,
         "hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
         "rules":[{"name":"f","metric":{"prefix":"a."},"attributes":[{"key":"route","equals":"/r1"}],"pipeline":"optimized",
           "fold":{"labels":{"drop":{"resource":["pod"]}},"window":"10s","offset":"0s","delay":"10s"}}]}"#;
        let compiled = Rc::new(Compiled::new(Plan::parse(plan.as_bytes()).unwrap()));
        let mut order = Order::Shuffled(Box::new(rng.clone()));
        let (mut body, mut folded) = (Vec::new(), BTreeMap::<Vec<u8>, usize>::new());
        for n in 0..rng.random_range(0..5) {
            let mut metrics = Vec::new();
            for _ in 0..rng.random_range(0..4) {
                let metric = METRICS[rng.random_range(0..METRICS.len())];
                let gauge = rng.random_bool(0.3);
                let mut raw = Vec::new();
                for _ in 0..rng.random_range(0..5) {
                    let point = random_point(&mut rng);
                    raw.push(order.point(&point));
                    if !gauge && metric.starts_with("a.") && point.stream.1 == 1 {
                        *folded.entry(raw.last().unwrap().clone()).or_default() += 1;
                    }
                }
                let kind = if rng.random() { Kind::Cumulative } else { Kind::Delta };
                metrics.push(if gauge { order.gauge(metric, &raw) } else { order.sum(metric, kind, &raw) });
            }
            body.extend(bytes_field(1, &order.resource(&format!("pod-{n}"), &metrics)).1);
        }
        let input = raw_points(&body);
        let framing = if framed {
            let mut frame = vec![0];
            frame.extend((body.len() as u32).to_be_bytes());
            body.splice(0..0, frame);
            Framing::Grpc(phoenix_filter::frame::Encoding::Identity)
        } else {
            Framing::Plain
        };
        let scanned = scan(&compiled, framing, &arrived(&body), &mut Scratch::default()).unwrap();
        prop_assert_eq!(scanned.body.is_none(), folded.is_empty(), "touched iff something folds");
        let out = scanned.body.unwrap_or(body);
        let out = if framed {
            prop_assert_eq!(out[1..5].to_vec(), (out.len() as u32 - 5).to_be_bytes().to_vec(), "the frame's length");
            out[5..].to_vec()
        } else {
            out
        };
        let mut both = raw_points(&out);
        let folded_points: usize = folded.values().sum();
        folded.into_iter().for_each(|(p, n)| *both.entry(p).or_default() += n);
        prop_assert_eq!(both, input);
        prop_assert_eq!(scanned.tally.recorded as usize, folded_points);
    }
}
