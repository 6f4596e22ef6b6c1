//! What is measured of streams that a rule folds, that a budget admits, that pass again and without another look.

use super::*;
use phoenix_filter::measure::MeasuredLabel;

/// Each example of a label of users is one of them, in each generation.
fn shows_users(label: &MeasuredLabel, count: usize) {
    let Some(heavy) = &label.heavy else { panic!("many users") };
    assert_eq!(heavy.len(), count);
    for (_, _, _, example) in heavy.iter() {
        let number =
            core::str::from_utf8(example).ok().and_then(|text| text.strip_prefix('u')?.parse::<u64>().ok());
        assert!(number.is_some_and(|n| n < 200), "{:?}", String::from_utf8_lossy(example));
    }
}

#[test]
fn what_a_rule_folds_is_measured_as_well() {
    let mut p = Process::new(&with_rule(1, None), 1);
    for step in 1..=30_u64 {
        let now = T0 + 10 * step;
        // Thirty users leave half way.
        let users = if step <= 15 { 60 } else { 30 };
        let points: Vec<Point> = (0..users).map(|n| leak(n, T0 + 1, now, step as i64)).collect();
        p.send(0, "t", now, &counter("requests", "a", &points));
        p.tick(now);
        let registry = p.engine.registry(0).unwrap();
        let (_, metric) = registry.measure.metrics().next().unwrap();
        let active = metric.active.union().estimate();
        match step {
            ..=15 => assert_eq!(active, 60.0, "step {step}"),
            26.. => assert_eq!(active, 30.0, "step {step}: who is silent for a period is active no more"),
            _ => {}
        }
        let sent: u64 = (1..=step).map(|step| if step <= 15 { 60 } else { 30 }).sum();
        assert_eq!(metric.points, sent, "each point counts, on the short way too");
        let user = metric.labels.iter().find(|label| *label.key == *b"user_id").unwrap();
        assert_eq!(user.without.union().estimate(), 4.0);
        shows_users(user, 8);
    }
    assert!(p.raw.is_empty());
}

/// A census goes on from the attributes of the point at hand, which are known from another metric, to those of streams that it knows.
#[test]
fn a_point_is_measured_by_its_own_labels_after_a_census() {
    let mut p = Process::new(&plan(&SMALL.replace("100", "1000")), 1);
    let all = |users: &[u64], now| users.iter().map(|n| leak(*n, T0 + 1, now, 1)).collect::<Vec<Point>>();
    for now in T0 + 2..T0 + 6 {
        p.send(0, "t", now, &counter("b", "a", &all(&[1, 2], now)));
        p.send(0, "t", now, &counter("m", "a", &all(&[3, 2], now)));
    }
    let now = T0 + 6;
    let mut data_points: Vec<NumberDataPoint> = all(&[3, 1, 2], now).iter().map(point).collect();
    // The end of a series has to be looked at in its turn, and with it all points of the metric.
    (data_points[0].flags, data_points[0].value) = (1, None);
    let sum = Sum { data_points, aggregation_temporality: 2, is_monotonic: true };
    p.send(0, "t", now, &request("m", "a", Data::Sum(sum)));
    let registry = p.engine.registry(0).unwrap();
    let (_, m) = registry.measure.metrics().find(|(_, it)| *it.name == *b"m").unwrap();
    for key in [&b"user_id"[..], b"route"] {
        let label = m.labels.iter().find(|label| *label.key == *key).unwrap();
        assert_eq!(label.values.union().estimate(), 3.0, "{}", String::from_utf8_lossy(key));
    }
}

/// Streams that pass, and come again in generation after generation: what is known of their attributes says what they are.
#[test]
fn what_passes_again_is_measured_again() {
    let mut p = Process::new(&plan(&SMALL.replace("100", "1000")), 1);
    for step in 1..=30_u64 {
        let now = T0 + 10 * step;
        let users = if step <= 15 { 60 } else { 30 };
        let points: Vec<Point> = (0..users).map(|n| leak(n, T0 + 1, now, step as i64)).collect();
        assert_eq!(p.send(0, "t", now, &counter("requests", "a", &points)), users as usize);
        p.tick(now);
        let registry = p.engine.registry(0).unwrap();
        let (_, metric) = registry.measure.metrics().next().unwrap();
        let label = |key: &[u8]| metric.labels.iter().find(|label| *label.key == *key).unwrap();
        assert_eq!(label(b"user_id").without.union().estimate(), 4.0, "step {step}: four routes");
        shows_users(label(b"user_id"), 8);
        if step >= 26 {
            assert_eq!(metric.active.union().estimate(), 30.0, "step {step}");
            assert_eq!(label(b"user_id").values.union().estimate(), 30.0);
        }
    }
}

/// A batch that brings known and new streams of a metric that has room, and beside it one that overflows and one with points of tomorrow.
#[test]
fn what_passes_without_another_look_is_measured_once_and_counted() {
    let shares =
        r#"{"tenants":[{"active_series":1000}],"metrics":[{"metric":{"exact":"leaks"},"active_series":20}],"#;
    let mut p = Process::new(&plan(&SMALL.replacen(r#"{"tenants":[{"active_series":100}],"#, shares, 1)), 2);
    let (mut sent, mut last) = (0, T0 + 2);
    for (step, users) in [0..30_u64, 15..60, 10..60, 55..64].into_iter().enumerate() {
        let now = T0 + 2 + step as u64;
        let points = |users: core::ops::Range<u64>, at| -> Vec<Point> {
            users.map(|n| leak(n, T0 + 1, at, 1)).collect()
        };
        let mut body = Vec::new();
        for pod in ["a", "b"] {
            body.extend(counter("calm", pod, &points(users.clone(), now)));
            body.extend(counter("leaks", pod, &points(users.clone(), now)));
            body.extend(counter("early", pod, &points(0..1, now)));
            body.extend(counter("early", pod, &points(1..3, now + 600)));
        }
        let count = 2 * (users.end - users.start);
        sent += count;
        last = now;
        let passed = p.send(step % 2, "t", now, &body) as u64;
        assert!((count + 6..count + 6 + 20).contains(&passed), "step {step}: {passed} of {count} calm ones");
    }
    let of_calm = |key: &str| key.starts_with("t/calm{");
    assert_eq!(p.raw.keys().filter(|key| of_calm(key)).count(), 2 * 64);
    let mut points = 0;
    for worker in 0..2 {
        let registry = p.engine.registry(worker).unwrap();
        let (_, calm) = registry.measure.metrics().find(|(_, it)| *it.name == *b"calm").unwrap();
        points += calm.points;
        // The workers took turns: 30 and 50 users, 45 and 9. What was in the log when a worker began, it takes for seen.
        let users = [60.0, 34.0][worker];
        assert_eq!(calm.active.union().estimate(), 2.0 * users, "worker {worker}");
        let label = |key: &[u8]| calm.labels.iter().find(|label| *label.key == *key).unwrap();
        assert_eq!(label(b"user_id").values.union().estimate(), users);
        assert_eq!(label(b"user_id").without.union().estimate(), 8.0, "four routes of two pods");
        assert_eq!(label(b"pod").without.union().estimate(), users);
        let heavy = label(b"user_id").heavy.as_ref().expect("many users");
        assert_eq!(heavy.total() as f64, 2.0 * users - 15.0, "each stream once, from the sixteenth user on");
        let early = registry.measure.metrics().find(|(_, it)| *it.name == *b"early");
        let early = early.map_or(0.0, |(_, it)| it.active.union().estimate());
        assert_eq!(early, [2.0, 0.0][worker], "what is of tomorrow is no stream of today");
    }
    assert_eq!(points, sent);
    assert_eq!(p.engine.tally().ahead, 4 * 2 * 2, "what is of tomorrow is counted");
    p.tick(last);
    let view = p.engine.registry(0).unwrap().state().metrics.values().map(|it| it.has_levels());
    assert_eq!(view.filter(|has| *has).count(), 1, "one of the three is contained");
}
