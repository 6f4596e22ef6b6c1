//! The judge must be able to say no. A plain fold of the truth stands in for the module.

use super::judge::{Verdict, judge};
use super::numbers::{bytes, change, count};
use super::proof::When;
use super::{Options, reports, table};
use crate::envoy::config::{shipped, shop_plugin_config};
use crate::shop::Truth;
use crate::shop::catalogue::METRICS;
use crate::shop::tests::{small, virtual_run};
use crate::sink::books::{ExemplarLabels, MetricBook, Side};
use crate::sink::distribution::{Buckets, Distribution, Observations};
use crate::sink::identity::Labels;
use crate::sink::series::{Kind, Reading, Sample, Series, Value};
use crate::sink::{Books, MARK};
use clap::Parser as _;
use phoenix_plan::{Fold, Plan};
use std::collections::BTreeMap;

fn shop_plan() -> Plan {
    Plan::parse(shop_plugin_config().unwrap()["plan"].to_string().as_bytes()).unwrap()
}

fn pass_plan() -> Plan {
    let mut plan = shop_plan();
    plan.rules.clear();
    plan
}

/// What a right module would send for the truth: passing metrics as they are, one cumulative point for each folded series, a point a window for each gauge.
fn folded(truth: &Truth, plan: &Plan, tamper: i64) -> Books {
    let mut out = Books::new(truth.books.config.clone());
    let mut tamper = tamper;
    for ((tenant, name), book) in &truth.books.metrics {
        let rule = plan.rule_for(b"", name.as_bytes(), |_| None, |_| None).map(|(_, rule)| rule);
        let mut folded = MetricBook { kinds: book.kinds.clone(), ..MetricBook::default() };
        if let Some(fold) = rule.and_then(|rule| rule.fold.as_ref()) {
            fold_metric(&book.raw, &mut folded.folded, (fold, plan), &mut tamper);
        } else {
            folded = book.clone();
        }
        out.metrics.insert((tenant.clone(), name.clone()), folded);
    }
    out
}

fn fold_metric(raw: &Side, folded: &mut Side, (fold, plan): (&Fold, &Plan), tamper: &mut i64) {
    let mut groups: BTreeMap<String, (Labels, Labels, Vec<&Series>)> = BTreeMap::new();
    for series in raw.series.values() {
        let (mut resource, mut point) = (series.resource.clone(), series.point.clone());
        resource.retain(|key, _| {
            plan.promotes_resource(key.as_bytes()) && fold.labels.keeps_resource(key.as_bytes())
        });
        point.retain(|key, _| fold.labels.keeps_attribute(key.as_bytes()));
        point.insert(MARK.to_owned(), "\"labels\"".to_owned());
        groups.entry(format!("{resource:?}{point:?}")).or_insert((resource, point, vec![])).2.push(series);
    }
    for (identity, (resource, point, members)) in groups {
        let kind = members[0].kind;
        let (samples, distributions) = if kind.is_last_value() {
            (last_values(&members, fold, tamper), vec![])
        } else {
            total(&members, tamper)
        };
        folded.points += samples.len() as u64;
        // The output of a delta stream may be cumulative.
        let kind = match kind {
            Kind::Delta => Kind::Cumulative,
            Kind::HistogramDelta => Kind::Histogram,
            other => other,
        };
        folded.series.insert(identity, Series { kind, resource, point, samples, distributions });
    }
    // The first exemplar of all, with what its point no longer says.
    if let Some((key, was)) = raw.exemplars.first_key_value() {
        let mut filtered = was.filtered.clone();
        filtered.extend(was.resource.clone().into_iter().filter(|(key, _)| {
            plan.promotes_resource(key.as_bytes()) && !fold.labels.keeps_resource(key.as_bytes())
        }));
        folded.exemplars.insert(key.clone(), ExemplarLabels { filtered, ..ExemplarLabels::default() });
    }
}

/// One cumulative sample with all that the members counted.
fn total(members: &[&Series], tamper: &mut i64) -> (Vec<Sample>, Vec<Distribution>) {
    let mut all = Reading::default();
    for series in members {
        let reading = series.read(0);
        all.observations.join(&reading.observations);
        all.total.add(reading.total);
    }
    let sample = |value| vec![Sample { start_ns: 1, time_ns: 2, value }];
    if members[0].kind.has_observations() {
        let Observations { count, sum, explicit, exponential, .. } = all.observations;
        let counts = |counts: &Vec<i128>| counts.iter().map(|n| u64::try_from(*n).unwrap()).collect();
        let bounds =
            |text: &str| text.trim_matches(['[', ']']).split(", ").map(|b| b.parse().unwrap()).collect();
        let buckets = match explicit.first_key_value() {
            Some((text, list)) => Buckets::Explicit(bounds(text), counts(list)),
            None if exponential.count() > 0 => Buckets::Exponential(exponential),
            None => Buckets::None,
        };
        let count = u64::try_from(count).unwrap().saturating_add_signed(std::mem::take(tamper));
        let sum = Some(sum.value());
        let distribution = Distribution { count, sum, buckets, ..Distribution::default() };
        return (sample(Value::Distribution), vec![distribution]);
    }
    let value = match all.total.doubles.value() {
        0.0 => Value::Int(i64::try_from(all.total.ints).unwrap() + std::mem::take(tamper)),
        doubles => Value::Double(doubles),
    };
    (sample(value), vec![])
}

/// The sum of the members' last values at the end of each window.
fn last_values(members: &[&Series], fold: &Fold, tamper: &mut i64) -> Vec<Sample> {
    let (window_ns, offset_ns) = (fold.window.0 * 1_000_000, fold.offset().0 * 1_000_000);
    let times = || members.iter().flat_map(|series| &series.samples).map(|sample| sample.time_ns);
    let end_of = |time_ns: u64| (time_ns - offset_ns).div_ceil(window_ns) * window_ns + offset_ns;
    let (first, last) = (end_of(times().min().unwrap()), end_of(times().max().unwrap()));
    let mut out = Vec::new();
    for end_ns in (first..=last).step_by(window_ns as usize) {
        let (mut ints, mut doubles) = (0, 0.0);
        for series in members {
            match series.samples.iter().rfind(|sample| sample.time_ns <= end_ns).map(|sample| sample.value) {
                Some(Value::Int(value)) => ints += value,
                Some(Value::Double(value)) => doubles += value,
                _ => {}
            }
        }
        let value =
            if doubles == 0.0 { Value::Int(ints + std::mem::take(tamper)) } else { Value::Double(doubles) };
        out.push(Sample { start_ns: 0, time_ns: end_ns, value });
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
    let verdict = judge(&truth, &folded(&truth, &shop_plan(), 0), &shop_plan(), &[]);
    assert_eq!(verdict.all_failures(), Vec::<String>::new());
    assert_eq!(verdict.rows.len(), METRICS.len());
    let requests = &verdict.rows[0];
    assert!(requests.series_out == requests.series_expected && requests.series_out * 3 < requests.streams_in);
}

#[test]
fn a_total_that_is_off_by_one_fails() {
    let (truth, _) = virtual_run(&small(), |_| 1);
    check(&judge(&truth, &folded(&truth, &shop_plan(), 1), &shop_plan(), &[]), "cart_items", "off by 1");
}

/// The shop's plan with the rule of one metric only.
fn plan_of(metric: &str) -> Plan {
    let mut plan = shop_plugin_config().unwrap()["plan"].take();
    let rules = plan["rules"].as_array_mut().unwrap();
    rules.retain(|rule| rule["metric"]["exact"] == metric || rule["fold"].is_null());
    Plan::parse(plan.to_string().as_bytes()).unwrap()
}

#[test]
fn an_observation_or_a_value_too_many_fails() {
    let (truth, _) = virtual_run(&small(), |_| 1);
    for (metric, part) in [
        ("http_request_duration", "off by 1"),
        ("db_query_duration", "off by 1"),
        ("rpc_latency", "DoesNotAddUp"),
        ("gc_pause", "off by 1"),
        ("process_memory", "not Some(Int("),
        ("http_active_requests", "not Some(Int("),
    ] {
        let plan = plan_of(metric);
        assert!(judge(&truth, &folded(&truth, &plan, 0), &plan, &[]).holds(), "{metric}");
        check(&judge(&truth, &folded(&truth, &plan, 1), &plan, &[]), metric, part);
    }
}

#[test]
fn a_bucket_an_exemplar_or_a_label_that_is_wrong_fails() {
    let (truth, _) = virtual_run(&small(), |_| 1);
    let plan = plan_of("http_request_duration");
    let wrong = |change: fn(&mut Side)| {
        let mut books = folded(&truth, &plan, 0);
        let key = ("shop".to_owned(), "http_request_duration".to_owned());
        change(&mut books.metrics.get_mut(&key).unwrap().folded);
        judge(&truth, &books, &plan, &[])
    };
    let moved = wrong(|side| {
        let Some(series) = side.series.values_mut().next() else { panic!() };
        let Buckets::Explicit(_, counts) = &mut series.distributions[0].buckets else { panic!() };
        let from = counts.iter().position(|count| *count > 0).unwrap();
        (counts[from], counts[from + 1]) = (counts[from] - 1, counts[from + 1] + 1);
    });
    check(&moved, "http_request_duration", "buckets");
    let unlabelled = wrong(|side| side.exemplars.values_mut().for_each(|of| of.filtered.clear()));
    check(&unlabelled, "http_request_duration", "says");
    let strange = wrong(|side| {
        side.exemplars.insert((1, "1".to_owned(), vec![], vec![]), ExemplarLabels::default());
    });
    check(&strange, "http_request_duration", "nobody sent");
    check(&wrong(|side| side.exemplars.clear()), "http_request_duration", "no exemplar arrived");
}

/// Folded series of the pods of each of two gateways, as these would write them.
fn folded_by_two(truth: &Truth, plan: &Plan, writer_of: impl Fn(usize) -> String) -> Books {
    let mut out = Books::new(truth.books.config.clone());
    for gateway in 0..2 {
        let mut part = truth.clone();
        for book in part.books.metrics.values_mut() {
            book.raw.series.retain(|_, series| truth.homes[&series.resource["k8s.pod.name"]] == gateway);
        }
        for (key, book) in folded(&part, plan, 0).metrics {
            let whole = out.metrics.entry(key).or_default();
            whole.kinds.extend(book.kinds);
            for (identity, mut series) in book.folded.series {
                series.point.insert(plan.writer_label.clone(), writer_of(gateway));
                whole.folded.points += series.samples.len() as u64;
                whole.folded.series.insert(format!("{gateway}{identity}"), series);
            }
        }
    }
    out
}

#[test]
fn each_gateway_folds_its_own_pods() {
    let (mut truth, _) = virtual_run(&small(), |_| 1);
    let pods: Vec<String> = truth
        .books
        .metric("http_response_bytes")
        .into_iter()
        .flat_map(|book| book.raw.series.values().map(|series| series.resource["k8s.pod.name"].clone()))
        .collect();
    truth.homes = pods.into_iter().enumerate().map(|(n, pod)| (pod, n % 2)).collect();
    assert!(truth.homes.len() > 1);
    let plan = plan_of("http_response_bytes");
    let row = |writer_of: fn(usize) -> String| {
        let books = folded_by_two(&truth, &plan, writer_of);
        let verdict = judge(&truth, &books, &plan, &["a", "b"]);
        verdict.rows.into_iter().find(|row| row.metric == "http_response_bytes").unwrap()
    };
    let right = row(|gateway| format!("\"{}@17\"", ["a", "b"][gateway]));
    assert_eq!(right.failures, Vec::<String>::new());
    // Who writes all of it, or under another name, is not the gateway of those pods.
    assert!(row(|_| "\"a@17\"".to_owned()).failures.concat().contains("missing"));
    assert!(row(|_| "\"c@17\"".to_owned()).failures.concat().contains("not in the plan"));
}

#[test]
fn what_passes_raw_is_not_folded() {
    let (truth, books) = virtual_run(&small(), |_| 1);
    check(&judge(&truth, &books, &shop_plan(), &[]), "http_requests", "not folded");
}

#[test]
fn what_passes_must_be_the_same_bytes() {
    let (truth, mut books) = virtual_run(&small(), |_| 1);
    assert!(judge(&truth, &books, &pass_plan(), &[]).holds());
    let key = ("shop".to_owned(), "process_memory".to_owned());
    books.metrics.get_mut(&key).unwrap().raw.print.sum ^= 1;
    check(&judge(&truth, &books, &pass_plan(), &[]), "process_memory", "other bytes");
}

#[test]
fn a_lost_and_a_repeated_body_fail() {
    let (truth, books) = virtual_run(&small(), |body| usize::from(body != 3));
    check(&judge(&truth, &books, &pass_plan(), &[]), "process_memory", "received");
    let (truth, books) = virtual_run(&small(), |body| if body == 3 { 2 } else { 1 });
    check(&judge(&truth, &books, &pass_plan(), &[]), "http_requests", "Repeated");
}

#[test]
fn an_unknown_metric_fails() {
    let (truth, mut books) = virtual_run(&small(), |_| 1);
    let book = books.metric("rpc_latency").cloned().unwrap_or_default();
    books.metrics.insert(("shop".to_owned(), "surprise".to_owned()), book);
    check(&judge(&truth, &books, &pass_plan(), &[]), "surprise", "nobody sent");
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

#[test]
fn reports_go_to_the_control_host_and_where_somebody_may_listen() {
    let options = Options::parse_from(["phoenix-demo", "--phoenix", "/elsewhere/phoenix"]);
    let command = reports::command(&options);
    assert_eq!(command, "/elsewhere/phoenix top --listen 127.0.0.1:4320 --interval 1s");
    let yaml = reports::with_a_copy(&shipped("envoy/controlled.yaml").unwrap(), options.reports).unwrap();
    // The clusters of the shipped file, then ours at the same depth.
    let names: Vec<&str> = yaml.lines().filter_map(|line| line.strip_prefix("  - name: ")).collect();
    assert_eq!(names[..2], ["reports", "otlp"], "{names:?}");
    assert_eq!(names[names.len() - 3..], ["phoenix_reports", "phoenix_reports_copied", "phoenix_top"]);
    assert!(names.contains(&reports::settings()["report"]["cluster"].as_str().unwrap()));
    assert!(yaml.contains("address: 127.0.0.1, port_value: 4320"));
}
