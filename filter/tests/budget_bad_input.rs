//! Budgets under input that nobody should send: memory stays bounded, what happened is counted, and whoever did nothing keeps its series raw.

mod fleet;

use fleet::{Fleet, Labels, Point, body, points};

const T0: u64 = 1_000_000;

fn plan(limits: &str, budgets: &str) -> String {
    format!(
        r#"{{"schema":1,"version":1,"writer":"w","first_sample_margin":"0s","stream_expiry":"90s","limits":{{{limits}}},
        "hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","measure":{{"period":"90s"}},
        "budgets":{{{budgets},"dwell":"30s","switch_lead":"20s","fold":{{"window":"10s","offset":"0s","delay":"10s"}}}}}}"#
    )
}

const HUNDRED: &str = r#""tenants":[{"active_series":100}]"#;

fn point(metric: &str, labels: &[(&str, &str)], time_s: u64, value: i64) -> Point {
    let labels: Labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Point { metric: metric.into(), labels, start_s: T0 + 1, time_s, value }
}

/// Ten series of a tenant that does nothing wrong: how many of them are raw.
fn innocent(fleet: &mut Fleet, now: u64) -> usize {
    let mine: Vec<Point> =
        (0..10).map(|n| point("good", &[("n", &n.to_string())], now, now as i64)).collect();
    let (out, _) = fleet.send(1, "innocent", now, &body(&[("service.name", "good")], &mine));
    points(&out).len()
}

fn start(limits: &str, budgets: &str) -> Fleet {
    let mut fleet = Fleet::new(&plan(limits, budgets), 2, T0);
    fleet.tick(T0);
    assert_eq!(innocent(&mut fleet, T0 + 1), 10);
    fleet
}

#[test]
fn values_of_a_megabyte() {
    let mut fleet = start("", HUNDRED);
    let before = fleet.heap_bytes();
    for n in 0..120_u64 {
        let value = format!("{n}{}", "x".repeat(1 << 20));
        let (_, tally) = fleet.send(
            0,
            "hostile",
            T0 + 2 + n / 10,
            &body(&[("service.name", "s")], &[point("m", &[("huge", &value)], T0 + 2 + n / 10, 1)]),
        );
        assert_eq!((tally.recorded, tally.passed), if n < 100 { (0, 1) } else { (1, 0) }, "{n}");
    }
    assert!(fleet.heap_bytes() - before < 1 << 20, "values are not kept");
    assert_eq!(innocent(&mut fleet, T0 + 20), 10);
}

#[test]
fn ten_thousand_attributes() {
    let mut fleet = start("", HUNDRED);
    let before = fleet.heap_bytes();
    for n in 0..200_u64 {
        let keys: Vec<(String, String)> = (0..10_000).map(|k| (format!("k{k}"), n.to_string())).collect();
        let labels: Vec<(&str, &str)> = keys.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let (_, tally) = fleet.send(
            0,
            "hostile",
            T0 + 2,
            &body(&[("service.name", "s")], &[point("m", &labels, T0 + 2, 1)]),
        );
        assert_eq!(
            (tally.undecided, tally.passed),
            (1, 1),
            "too many to decide about: it passes, and is counted"
        );
    }
    assert!(fleet.heap_bytes() - before < 1 << 20);
    assert_eq!(innocent(&mut fleet, T0 + 20), 10);
}

#[test]
fn keys_that_come_twice_and_text_that_is_none() {
    let mut fleet = start("", HUNDRED);
    for n in 0..300_u64 {
        let value = n.to_string();
        let labels =
            [("twice", value.as_str()), ("twice", "again"), ("", "nameless"), ("a,b", value.as_str())];
        let bytes = body(&[("service.name", "s")], &[point("m", &labels, T0 + 2, 1)]);
        let (_, tally) = fleet.send(0, "hostile", T0 + 2, &bytes);
        assert_eq!(tally.points, 1);
    }
    let counted = |fleet: &mut Fleet| fleet.engine.tally().recorded + fleet.engine.tally().unwritable;
    assert!(counted(&mut fleet) >= 200, "beyond the share they fold, or say why not");
    // The last byte of a value becomes one that no text has.
    for n in 0..300_u64 {
        let value = format!("{n}~");
        let mut bytes = body(&[("service.name", "s")], &[point("n", &[("u", &value)], T0 + 2, 1)]);
        let at = bytes.iter().rposition(|b| *b == b'~').unwrap();
        bytes[at] = 0xff;
        let (_, tally) = fleet.send(0, "hostile 2", T0 + 2, &bytes);
        assert_eq!(
            tally.recorded,
            u64::from(n >= 100),
            "{n}: the label that is no text is the one that folds"
        );
    }
    assert_eq!(innocent(&mut fleet, T0 + 20), 10);
}

#[test]
fn clocks_that_jump_by_days() {
    let mut fleet = start("", HUNDRED);
    let mut now = T0 + 2;
    for (round, days) in [3_i64, -2, 300, -300, 1, 40].into_iter().enumerate() {
        let leak: Vec<Point> =
            (0..500).map(|n| point("m", &[("u", &format!("{round}/{n}"))], now, 1)).collect();
        fleet.send(0, "hostile", now, &body(&[("service.name", "s")], &leak));
        now = now.saturating_add_signed(days * 86_400);
        (0..5).for_each(|s| fleet.tick(now + s));
        let series = fleet.registry(0).state().total();
        assert!(series <= 111, "{series} series after {days} days");
        assert_eq!(innocent(&mut fleet, now + 5), 10, "after {days} days");
    }
    assert!(fleet.heap_bytes() < 2 << 20, "{}", fleet.heap_bytes());
}

#[test]
fn points_of_the_future_take_no_room() {
    let mut fleet = start("", HUNDRED);
    for n in 0..500_u64 {
        let later = point("m", &[("u", &n.to_string())], T0 + 86_400, 1);
        let (_, tally) = fleet.send(0, "hostile", T0 + 2, &body(&[("service.name", "s")], &[later]));
        assert_eq!((tally.passed, tally.ahead), (1, 1));
    }
    fleet.tick(T0 + 3);
    assert_eq!(fleet.registry(0).state().total(), 10);
    assert_eq!(innocent(&mut fleet, T0 + 20), 10);
}

#[test]
fn tenants_by_the_thousand() {
    let mut fleet = start(r#""tenants_max":50"#, HUNDRED);
    for n in 0..3_000_u64 {
        let name = format!("tenant {n}");
        fleet.send(
            0,
            &name,
            T0 + 2,
            &body(&[("service.name", "s")], &[point("m", &[("u", "x")], T0 + 2, 1)]),
        );
    }
    let state = fleet.registry(0).state();
    assert!(state.tenants.len() <= 51, "{} tenants, one of them for the rest", state.tenants.len());
    // Those beyond share the share of one; a metric of one tenant is one folded series.
    assert!(fleet.heap_bytes() < 4 << 20, "{}", fleet.heap_bytes());
    assert_eq!(innocent(&mut fleet, T0 + 20), 10);
}

#[test]
fn metrics_by_the_ten_thousand() {
    let mut fleet = start(r#""measure_bytes_max":1048576"#, HUNDRED);
    for n in 0..30_000_u64 {
        let name = format!("m{n}");
        let now = T0 + 2 + n / 5_000;
        fleet.send(
            0,
            "hostile",
            now,
            &body(&[("service.name", "s")], &[point(&name, &[("u", "x")], now, 1)]),
        );
    }
    fleet.tick(T0 + 9);
    let metrics = fleet.registry(0).state().metrics.len();
    assert!(metrics <= 20_002, "{metrics} metrics");
    assert!(fleet.registry(0).measure.unmeasured > 0, "what was not measured is counted");
    assert!(fleet.heap_bytes() < 24 << 20, "{}", fleet.heap_bytes());
    assert_eq!(innocent(&mut fleet, T0 + 20), 10);
}

#[test]
fn a_full_process_folds_and_keeps_what_is_reserved() {
    let budgets =
        r#""tenants":[{"tenant":"innocent","active_series":50,"reserved":20},{"active_series":100000}]"#;
    let mut fleet = start(r#""active_series_max":1000"#, budgets);
    for tenant in 0..20_u64 {
        let leak: Vec<Point> = (0..500).map(|n| point("m", &[("u", &n.to_string())], T0 + 2, 1)).collect();
        fleet.send(0, &format!("t{tenant}"), T0 + 2, &body(&[("service.name", "s")], &leak));
    }
    let total = fleet.registry(0).state().total();
    assert!(total <= 1_000, "{total} series");
    assert_eq!(innocent(&mut fleet, T0 + 20), 10);
}

#[test]
fn a_protected_label_that_explodes_is_bounded_too() {
    let budgets = r#""tenants":[{"active_series":100}],"protected_labels":["id"]"#;
    let mut fleet = start(r#""active_series_max":1000"#, budgets);
    let mut folded = 0;
    for n in 0..20_u64 {
        let leak: Vec<Point> =
            (0..500).map(|k| point("m", &[("id", &format!("{n}/{k}"))], T0 + 2 + n, 1)).collect();
        let (_, tally) = fleet.send(0, "hostile", T0 + 2 + n, &body(&[("service.name", "s")], &leak));
        folded += tally.recorded;
    }
    let total = fleet.registry(0).state().total();
    assert!(total <= 1_000, "{total} series");
    assert!(folded >= 9_000, "{folded} of 10,000 folded all the same");
    assert_eq!(innocent(&mut fleet, T0 + 30), 10);
}
