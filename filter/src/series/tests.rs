//! Series by themselves: windows in, points out.

use super::*;
use crate::ledger::Ledger;

fn series(output: Temporality) -> Series {
    let head = SeriesHead {
        id: Identity(1),
        overflow: Identity(2),
        windows: Windows { width_ns: 10, offset_ns: 0, delay_ns: 0 },
        turn: None,
        since: crate::units::Since::default(),
        output,
        kind: Kind::Sum { monotonic: true },
        expiry_ns: 0,
        exemplars_max: 0,
        bounds: b"",
        tenant: b"",
        metric: b"m",
        mark: b"",
        resource: b"",
        resource_schema: b"",
        scope: b"",
        scope_schema: b"",
        metric_head: b"",
        attributes: b"",
    };
    Series::new(&head, Ledger::default().page_of(b"m"))
}

fn add(s: &mut Series, window: u64, amount: Number) {
    s.add(UnixNanos(window), amount);
}

/// A closed window as `start-time:value`, `z@t` in front when a zero point opens it.
fn close(s: &mut Series, end: u64) -> String {
    let Some(c) = s.close(UnixNanos(end), UnixNanos(0)) else { return "-".into() };
    let zero = c.zero_at.map(|z| format!("z@{} ", z.0)).unwrap_or_default();
    let value = match c.value {
        Value::Number(Number::Int(v)) => format!("{v}"),
        Value::Number(Number::Double(v)) => format!("{v:?}"),
        other => format!("{other:?}"),
    };
    format!("{zero}{}-{}:{value}", c.start.0, c.time.0)
}

#[test]
fn cumulative_opens_with_zero_and_never_falls() {
    let mut s = series(Temporality::Cumulative);
    add(&mut s, 10, Number::Int(3));
    add(&mut s, 20, Number::Int(4));
    add(&mut s, 10, Number::Int(1));
    assert_eq!(close(&mut s, 20), "z@10 10-20:4");
    assert_eq!(close(&mut s, 30), "10-30:8");
    assert_eq!(close(&mut s, 40), "-", "a window without a record has no point");
    add(&mut s, 50, Number::Int(0));
    assert_eq!(close(&mut s, 60), "10-60:8");
}

#[test]
fn delta_says_its_window() {
    let mut s = series(Temporality::Delta);
    add(&mut s, 10, Number::Double(0.5));
    assert_eq!(close(&mut s, 20), "10-20:0.5");
    add(&mut s, 20, Number::Double(0.25));
    assert_eq!(close(&mut s, 30), "20-30:0.25");
}

#[test]
fn beyond_the_wire_a_new_start() {
    let mut s = series(Temporality::Cumulative);
    add(&mut s, 10, Number::Int(i64::MAX));
    assert_eq!(close(&mut s, 20), format!("z@10 10-20:{}", i64::MAX));
    add(&mut s, 20, Number::Int(5));
    assert_eq!(close(&mut s, 30), "20-30:5");
    add(&mut s, 30, Number::Int(2));
    assert_eq!(close(&mut s, 40), "20-40:7");
}

#[test]
fn a_refused_opening_opens_again() {
    let mut s = series(Temporality::Cumulative);
    add(&mut s, 10, Number::Int(3));
    let c = s.close(UnixNanos(20), UnixNanos(0)).unwrap();
    assert!(c.zero_at.is_some());
    s.take_back(&c, UnixNanos(20));
    assert_eq!(close(&mut s, 30), "z@20 20-30:3", "the increment comes back behind a new zero point");
    add(&mut s, 30, Number::Int(2));
    let refused = s.close(UnixNanos(40), UnixNanos(0)).unwrap();
    s.take_back(&refused, UnixNanos(40));
    assert_eq!(close(&mut s, 50), "20-50:5", "a series that is open stays open");
}

#[test]
fn what_is_refused_leaves_the_total_as_it_is() {
    let mut s = series(Temporality::Cumulative);
    add(&mut s, 10, Number::Int(3));
    assert_eq!(close(&mut s, 20), "z@10 10-20:3");
    add(&mut s, 20, Number::Int(4));
    let refused = s.close(UnixNanos(30), UnixNanos(0)).unwrap();
    // Another one has been made of the total by then …
    add(&mut s, 30, Number::Int(5));
    assert_eq!(close(&mut s, 40), "10-40:12");
    s.take_back(&refused, UnixNanos(50));
    assert_eq!(s.open_amount().int(), 4, "it is owed");
    // … and a window may close before the one that takes what was refused.
    add(&mut s, 40, Number::Int(1));
    assert_eq!(close(&mut s, 50), "10-50:13");
    let c = s.close(UnixNanos(60), UnixNanos(0)).unwrap();
    assert_eq!((c.content.books().int(), s.open_amount().int()), (4, 0), "and goes out with that window");
    assert!(matches!(c.value, Value::Number(Number::Int(13))));
}

/// A total begins anew, beyond the wire or under other labels, while something is owed: it is counted again, in whatever window it stands, unless a later point
/// that held it was accepted.
#[test]
fn what_is_owed_when_the_total_begins_anew() {
    for (by_labels, was_accepted) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut s = series(Temporality::Cumulative);
        add(&mut s, 10, Number::Int(i64::MAX - 100));
        assert!(close(&mut s, 20).starts_with("z@10 10-20:"));
        add(&mut s, 20, Number::Int(4));
        let refused = s.close(UnixNanos(30), UnixNanos(0)).unwrap();
        add(&mut s, 30, Number::Int(5));
        let later = s.close(UnixNanos(40), UnixNanos(0)).unwrap();
        s.take_back(&refused, UnixNanos(50));
        if was_accepted {
            s.accepted(&later);
        }
        let again = if was_accepted { 0 } else { 4 };
        if by_labels {
            s.reopen();
            add(&mut s, 40, Number::Int(1));
            assert_eq!(close(&mut s, 50), "z@40 40-50:1");
        } else {
            add(&mut s, 40, Number::Int(200));
            assert_eq!(close(&mut s, 50), "40-50:200");
        }
        let c = s.close(UnixNanos(60), UnixNanos(0)).unwrap();
        let first = if by_labels { 1 } else { 200 };
        let Value::Number(Number::Int(total)) = c.value else { panic!() };
        assert_eq!(total, first + again, "by labels: {by_labels}, accepted: {was_accepted}");
        assert_eq!((c.content.books().int(), s.open_amount().int()), (4, 0), "the books have it once");
    }
}

#[test]
fn other_labels_open_anew_and_take_nothing_from_the_life_before() {
    let mut s = series(Temporality::Cumulative);
    add(&mut s, 10, Number::Int(3));
    let refused = s.close(UnixNanos(20), UnixNanos(0)).unwrap();
    s.reopen();
    add(&mut s, 20, Number::Int(4));
    s.take_back(&refused, UnixNanos(20));
    assert_eq!(
        close(&mut s, 30),
        "z@20 20-30:7",
        "a zero point at the end of the old life, and all of the refused"
    );
}

#[test]
fn began_inside_the_window_moves_the_start() {
    let mut s = series(Temporality::Cumulative);
    add(&mut s, 10, Number::Int(3));
    let c = s.close(UnixNanos(20), UnixNanos(14)).unwrap();
    assert_eq!((c.start.0, c.zero_at), (14, Some(UnixNanos(14))));
}

#[test]
fn a_series_that_ends_puts_everything_into_one_point() {
    let mut s = series(Temporality::Cumulative);
    add(&mut s, 10, Number::Int(1));
    assert_eq!(close(&mut s, 20), "z@10 10-20:1");
    add(&mut s, 20, Number::Int(2));
    add(&mut s, 30, Number::Int(4));
    let end = s.close_all(UnixNanos(2_000_000), UnixNanos(0)).unwrap();
    assert_eq!(end.time.0, 2_000_000);
    assert!(matches!(end.value, Value::Number(Number::Int(7))));
    assert!(s.is_idle() && s.close_all(UnixNanos(3_000_000), UnixNanos(0)).is_none());
}

#[test]
fn what_may_not_go_out_waits_in_the_next_window() {
    let mut s = series(Temporality::Delta);
    add(&mut s, 10, Number::Int(1));
    add(&mut s, 20, Number::Int(2));
    assert!(s.defer(UnixNanos(20), UnixNanos(30)));
    assert!(!s.defer(UnixNanos(30), UnixNanos(30)));
    assert_eq!((close(&mut s, 30), close(&mut s, 40)), ("-".into(), "10-40:3".into()));
}

#[test]
fn windows_beyond_a_clock_that_was_set_back_come_back() {
    let mut s = series(Temporality::Delta);
    add(&mut s, 10, Number::Int(1));
    add(&mut s, 900, Number::Int(2));
    assert!(s.pull_back(UnixNanos(100), UnixNanos(20)));
    assert_eq!((close(&mut s, 20), close(&mut s, 30)), ("10-20:1".into(), "20-30:2".into()));
    assert!(!s.pull_back(UnixNanos(100), UnixNanos(20)), "nothing to move, nothing opened");
}

#[test]
fn too_many_windows_join_and_lose_nothing() {
    let mut s = series(Temporality::Delta);
    for k in 0..(OPEN_WINDOWS_MAX as u64 + 10) {
        add(&mut s, k * 10, Number::Int(1));
    }
    assert_eq!(s.cells.len(), OPEN_WINDOWS_MAX);
    assert_eq!(s.open_amount().int(), OPEN_WINDOWS_MAX as i128 + 10);
    assert_eq!(close(&mut s, 110), "0-110:11");
    add(&mut s, 110, Number::Int(1));
    assert_eq!(close(&mut s, 120), "110-120:2");
}

#[test]
fn table_is_bounded_and_reuses_slots() {
    let mut t = SeriesTable::new(2);
    let make = |n: u128| {
        move || {
            let mut s = series(Temporality::Delta);
            s.id = Identity(n);
            s
        }
    };
    assert_eq!(t.slot_of(Identity(1), make(1)), Some(0));
    assert_eq!(t.slot_of(Identity(2), make(2)), Some(1));
    assert_eq!(t.slot_of(Identity(1), make(1)), Some(0));
    assert_eq!(t.slot_of(Identity(3), make(3)), None);
    t.sweep(10, |s| s.id == Identity(1));
    assert_eq!(t.slot_of(Identity(3), make(3)), Some(0));
    assert_eq!(t.len(), 2);
}
