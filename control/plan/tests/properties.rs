//! Properties of every plan: what is written reads back the same, defaults are what the documentation says, and no bytes panic.

use phoenix_plan::*;
use proptest::prelude::*;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn labels() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set("[a-z.é\"]{1,6}", 1..4).prop_map(|set| set.into_iter().collect())
}

fn fold() -> impl Strategy<Value = Fold> {
    let labels = prop_oneof![
        (labels(), labels()).prop_map(|(resource, attributes)| Labels::Drop { resource, attributes }),
        labels().prop_map(|attributes| Labels::Drop { resource: vec![], attributes }),
        (prop::option::of(labels()), labels())
            .prop_map(|(resource, attributes)| Labels::Keep { resource, attributes }),
        Just(Labels::Keep { resource: Some(vec![]), attributes: vec![] }),
    ];
    let temporality = prop_oneof![
        Just(OutputTemporality::Unchanged),
        Just(OutputTemporality::Cumulative),
        Just(OutputTemporality::Delta)
    ];
    let function = prop::option::of(prop_oneof![
        Just(Function::Sum),
        Just(Function::Avg),
        Just(Function::Min),
        Just(Function::Max),
        Just(Function::Last),
        Just(Function::Count)
    ]);
    let others =
        (function.clone(), function, prop::option::of(Just(SummaryFunction::SumAndCount)), 0u32..=16);
    (labels, 1_000u64..=3_600_000, 1_000u64..=3_600_000, temporality, others, any::<bool>()).prop_map(
        |(
            labels,
            window,
            delay,
            output_temporality,
            (gauge, up_down_counter, summary, exemplars),
            expires,
        )| Fold {
            labels,
            window: DurationMs(window),
            offset: None,
            delay: DurationMs(delay),
            output_temporality,
            gauge,
            up_down_counter,
            summary,
            value_expiry: expires.then_some(DurationMs(window)),
            exemplars,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let metric = prop_oneof![
        ".{1,20}".prop_map(MetricMatch::Exact),
        "[a-z.]{1,20}".prop_map(MetricMatch::Prefix),
        "[a-z*?]{1,20}".prop_map(MetricMatch::Glob)
    ];
    let op = prop_oneof![
        ".{0,10}".prop_map(LabelOp::Equals),
        ".{0,10}".prop_map(LabelOp::Prefix),
        "[ab*?]{0,10}".prop_map(LabelOp::Glob),
        any::<bool>().prop_map(LabelOp::Exists)
    ];
    let label = ("[a-z.]{1,8}", op).prop_map(|(key, op)| LabelMatch { key, op });
    let matchers = prop::collection::vec(label, 0..4);
    (
        metric,
        matchers.clone(),
        matchers,
        prop::option::of(fold()),
        prop::option::of(switch()),
        prop::option::of(topk()),
    )
        .prop_map(|(metric, resource, attributes, fold, switch, topk)| Rule {
            tenant: (resource.len() == 1).then(|| "shop".to_owned()),
            name: String::new(),
            metric,
            resource,
            attributes,
            pipeline: if fold.is_some() && topk.is_some() {
                Pipeline::ExperimentalTopk
            } else {
                pipeline(fold.as_ref())
            },
            switch: switch.filter(|s| {
                (fold.is_none() || topk.is_none()) && changes(s.from.fold.as_ref(), fold.as_ref())
            }),
            topk: topk.filter(|_| fold.is_some()),
            fold,
        })
}

fn topk() -> impl Strategy<Value = TopK> {
    (1u32..=10_000, prop::option::of(1u32..=100), any::<bool>())
        .prop_map(|(k, coverage_percent, more)| TopK { k, coverage_percent, k_max: more.then_some(10_000) })
}

fn pipeline(fold: Option<&Fold>) -> Pipeline {
    if fold.is_some() { Pipeline::Optimized } else { Pipeline::FullFidelity }
}

fn changes(from: Option<&Fold>, to: Option<&Fold>) -> bool {
    match (from, to) {
        (None, None) => false,
        (Some(a), Some(b)) => !a.labels.keeps_the_same_as(&b.labels),
        _ => true,
    }
}

/// Until the end of the year 9999.
fn switch() -> impl Strategy<Value = Switch> {
    (0u64..253_402_300_800_000, prop::option::of(fold())).prop_map(|(at, fold)| Switch {
        at: InstantMs(at),
        from: Treatment { pipeline: pipeline(fold.as_ref()), fold },
    })
}

prop_compose! {
    fn plan()(
        version in 1u64.., key in any::<[u8; 32]>(), writer in prop::option::of("[a-z0-9-]{1,20}"), event: bool,
        promoted in prop::option::of(labels()), header in prop::option::of("[a-z-]{1,20}"), default in "[a-z]{0,8}",
        sender_header in prop::option::of("[a-z-]{1,20}"), shards in 1u32..=16, margin in 0u64..=600_000,
        streams_max in 1u32..=4_000_000, backlog_bytes_max in 4u32 << 20..=256 << 20, rules in prop::collection::vec(rule(), 0..6),
    ) -> Plan {
        let rules = rules.into_iter().enumerate().map(|(n, rule)| Rule { name: format!("rule \"{n}\""), ..rule }).collect();
        Plan {
            schema: 1, version, hash_key: HashKey::from_bytes(key).unwrap_or_else(|| HashKey::from_hex(KEY).unwrap()), writer,
            clock: if event { Clock::Event } else { Clock::Wall }, placement: Placement::Gateway,
            mark_label: "Mark".to_owned(), writer_label: "Writer".to_owned(), promoted_resource_attributes: promoted,
            tenant: Tenant { header, resource_attribute: None, default }, sender_header, affinity: if event { Affinity::Checked } else { Affinity::Assumed }, shards, first_sample_margin: DurationMs(margin),
            stream_expiry: DurationMs::from_secs(86_400),
            limits: Limits { streams_max, backlog_bytes_max, ..Limits::default() }, measure: None, budgets: None, rules,
        }
    }
}

/// Whether proptest made text that validation refuses (control characters and lengths in bytes).
fn is_valid(plan: &Plan) -> bool {
    plan.validate().is_ok()
}

proptest! {
    /// Two matchers that both mean a name say that they may meet; exact ones of different names never do.
    #[test]
    fn matchers_that_meet_say_so(a in 0..3_usize, b in 0..3_usize, x in "[ab*?]{0,3}", y in "[ab*?]{0,3}", name in "[ab]{0,3}") {
        let of = |kind: usize, text: String| [MetricMatch::Exact, MetricMatch::Prefix, MetricMatch::Glob][kind](text);
        let (x, y) = (of(a, x), of(b, y));
        if x.matches(name.as_bytes()) && y.matches(name.as_bytes()) {
            prop_assert!(x.may_meet(&y) && y.may_meet(&x), "{x:?} {y:?} {name}");
        }
        if (a, b) == (0, 0) {
            prop_assert_eq!(x.may_meet(&y), x == y);
        }
    }

    #[test]
    fn what_is_written_reads_back(plan in plan()) {
        prop_assume!(is_valid(&plan));
        let compact = serde_json::to_vec(&plan).unwrap();
        prop_assert_eq!(&Plan::parse(&compact).unwrap(), &plan);
        let pretty = serde_json::to_vec_pretty(&plan).unwrap();
        prop_assert_eq!(&Plan::parse(&pretty).unwrap(), &plan);
    }

    #[test]
    fn damaged_plans_are_refused_or_read_but_never_panic(plan in plan(), at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let mut json = serde_json::to_vec(&plan).unwrap();
        let at = at.index(json.len());
        if cut { json.truncate(at) } else { json[at] = byte }
        if let Err(error) = Plan::parse(&json) {
            prop_assert!(!error.allowed.is_empty());
            prop_assert!(error.to_string().len() < 1_500);
        }
    }

    #[test]
    fn a_mark_names_each_label_once_in_order(resource in labels(), attributes in labels()) {
        let drop = Labels::Drop { resource: resource.clone(), attributes: attributes.clone() };
        let mut expected: Vec<String> = resource.iter().chain(&attributes).cloned().collect();
        expected.sort();
        expected.dedup();
        prop_assert_eq!(drop.mark(), expected.join(","));
        let keep = Labels::Keep { resource: Some(resource.clone()), attributes: attributes.clone() };
        prop_assert_eq!(keep.mark(), format!("keep:{}", expected.join(",")));
        for key in &expected {
            prop_assert_eq!(drop.keeps_resource(key.as_bytes()), !keep.keeps_resource(key.as_bytes()));
            prop_assert_eq!(drop.keeps_attribute(key.as_bytes()), !keep.keeps_attribute(key.as_bytes()));
            prop_assert_eq!(drop.keeps_attribute(key.as_bytes()), !attributes.contains(key));
        }
    }
}

#[test]
fn defaults() {
    let plan = Plan::parse(format!(r#"{{"schema":1,"version":1,"hash_key":"{KEY}"}}"#).as_bytes()).unwrap();
    let expected = Plan {
        schema: 1,
        version: 1,
        hash_key: HashKey::from_hex(KEY).unwrap(),
        writer: None,
        clock: Clock::Wall,
        placement: Placement::Gateway,
        mark_label: "phoenix_folded".to_owned(),
        writer_label: "phoenix_writer".to_owned(),
        promoted_resource_attributes: None,
        tenant: Tenant {
            header: Some("x-scope-orgid".to_owned()),
            resource_attribute: None,
            default: String::new(),
        },
        sender_header: None,
        affinity: Affinity::Assumed,
        shards: 1,
        first_sample_margin: DurationMs(2_000),
        stream_expiry: DurationMs(600_000),
        limits: Limits {
            streams_max: 1_000_000,
            delta_streams_max: 200_000,
            gauge_streams_max: 200_000,
            series_max: 100_000,
            histogram_bytes_max: 64 << 20,
            pending_bytes_max: 67_108_864,
            queue_bytes_max: 16_777_216,
            emission_bytes_max: 1_048_576,
            backlog_bytes_max: 33_554_432,
            body_bytes_max: 67_108_864,
            active_series_max: 1_000_000,
            tenants_max: 1_000,
            measure_bytes_max: 67_108_864,
        },
        measure: None,
        budgets: None,
        rules: vec![],
    };
    assert_eq!(plan, expected);
    let fold: Fold = serde_json::from_str(r#"{"labels":{"drop":{"attributes":["pod"]}}}"#).unwrap();
    assert_eq!((fold.window, fold.delay), (DurationMs(15_000), DurationMs(60_000)));
    assert_eq!(fold.output_temporality, OutputTemporality::Unchanged);
}

#[test]
fn header_names_are_lower_cased_and_null_means_none() {
    let json = format!(
        r#"{{"schema":1,"version":1,"hash_key":"{KEY}","tenant":{{"header":"X-Tenant"}},"sender_header":"X-Sender"}}"#
    );
    let plan = Plan::parse(json.as_bytes()).unwrap();
    assert_eq!(plan.tenant.header.as_deref(), Some("x-tenant"));
    assert_eq!(plan.sender_header.as_deref(), Some("x-sender"));
    let json = format!(r#"{{"schema":1,"version":1,"hash_key":"{KEY}","tenant":{{"header":null}}}}"#);
    assert_eq!(Plan::parse(json.as_bytes()).unwrap().tenant.header, None);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let json = format!(
        r#"{{"schema":1,"version":1,"hash_key":"{KEY}","promoted_resource_attributes":["zone"],"rules":[
            {{"name":"a","metric":{{"exact":"http.requests"}},"resource":[{{"key":"env","equals":"prod"}}],"pipeline":"full_fidelity"}},
            {{"name":"b","metric":{{"prefix":"http."}},"attributes":[{{"key":"pod","exists":true}},{{"key":"code","glob":"5??"}}],"pipeline":"full_fidelity"}},
            {{"name":"c","metric":{{"glob":"*.requests"}},"attributes":[{{"key":"pod","exists":false}}],"pipeline":"full_fidelity"}}]}}"#
    );
    let plan = Plan::parse(json.as_bytes()).unwrap();
    let decide =
        |metric: &str, env: Option<&'static str>, pod: Option<&'static str>, code: Option<&'static str>| {
            let resource = |key: &str| if key == "env" { env.map(str::as_bytes) } else { None };
            let attributes = |key: &str| match key {
                "pod" => pod.map(str::as_bytes),
                "code" => code.map(str::as_bytes),
                _ => None,
            };
            plan.rule_for(b"", metric.as_bytes(), resource, attributes).map(|(index, _)| index)
        };
    assert_eq!(decide("http.requests", Some("prod"), Some("p"), Some("500")), Some(0));
    assert_eq!(decide("http.requests", Some("test"), Some("p"), Some("500")), Some(1));
    assert_eq!(decide("http.requests", None, Some("p"), Some("404")), None);
    assert_eq!(decide("http.requests", None, None, None), Some(2));
    assert_eq!(decide("http.errors", None, Some(""), Some("503")), Some(1));
    assert_eq!(decide("rpc", None, None, None), None);
    let of_a = json.replace(r#""name":"a""#, r#""name":"a","tenant":"shop""#);
    let plan_of_a = Plan::parse(of_a.as_bytes()).unwrap();
    let whose = |tenant: &[u8]| {
        let prod = |_: &str| Some(&b"prod"[..]);
        plan_of_a.rule_for(tenant, b"http.requests", prod, |_| None).map(|(index, _)| index)
    };
    assert_eq!((whose(b"shop"), whose(b"sho"), whose(b"")), (Some(0), Some(2), Some(2)));
    assert!(plan.promotes_resource(b"zone") && plan.promotes_resource(b"service.name"));
    assert!(!plan.promotes_resource(b"k8s.pod.name"));
}

#[test]
fn the_expiry_follows_the_slowest_fold() {
    let json = format!(
        r#"{{"schema":1,"version":1,"hash_key":"{KEY}","stream_expiry":"1h","rules":[
            {{"name":"a","metric":{{"exact":"x"}},"pipeline":"optimized","fold":{{"labels":{{"drop":{{"attributes":["p"]}}}},"window":"1m","delay":"5m"}}}},
            {{"name":"b","metric":{{"exact":"y"}},"pipeline":"optimized","fold":{{"labels":{{"drop":{{"attributes":["p"]}}}},"window":"5m","delay":"10m"}}}}]}}"#
    );
    assert_eq!(Plan::parse(json.as_bytes()).unwrap().stream_expiry_min(), DurationMs::from_secs(1_800));
}
