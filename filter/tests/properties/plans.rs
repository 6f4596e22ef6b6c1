//! A plan that changes under open windows.

use crate::engine::{Out, drain, plan, send, start, take, windows};
use crate::oracle::{Kind, Point};
use crate::scripts::{BEGAN, S};
use crate::wire::Order;
use phoenix_filter::emit::Answer;
use phoenix_filter::local::Settled;
use phoenix_filter::units::UnixNanos;

/// A stream's first point, `from` to `to` seconds after the beginning, arrived at `to`.
fn born(pod: u8, from: u64, to: u64, value: i128) -> Point {
    let (start, time) = (BEGAN + from * S, BEGAN + to * S);
    Point { stream: (pod, 0), kind: Kind::Cumulative, double: false, start, time, value }
}

/// A longer delay lets an older window close after a younger one that was opened under the shorter delay. The older must not be
/// written behind the younger, nor opened again: a backend refuses points that go back in time, and a total would fall.
#[test]
fn a_longer_delay_writes_nothing_behind_what_was_written() {
    for output in ["cumulative", "delta"] {
        let mut engine = start(&plan("1s", output));
        let mut out = Out::new();
        let at = |s: u64| BEGAN + s * S;
        send(&mut engine, &mut Order::Plain, &[born(0, 11, 12, 1)], at(12), Settled::Accepted);
        engine.configure(plan("20s", output).as_bytes(), UnixNanos(at(13))).unwrap();
        send(&mut engine, &mut Order::Plain, &[born(1, 3, 4, 2)], at(13), Settled::Accepted);
        for second in 21..60 {
            engine.tick(UnixNanos(at(second)));
            take(&mut engine, at(second), &mut out, || Answer::Accepted);
            if second == 22 {
                send(&mut engine, &mut Order::Plain, &[born(2, 5, 6, 4)], at(22), Settled::Accepted);
            }
        }
        drain(&mut engine, &mut out);
        let points = &out[&(Kind::Cumulative, false, 0)];
        assert!(points.windows(2).all(|p| p[0].1 < p[1].1), "{output}: times rise: {points:?}");
        assert!(points.iter().all(|p| p.0 <= p.1), "{output}: a point starts before it ends: {points:?}");
        if output == "cumulative" {
            windows(points, true);
            assert_eq!(points.last().unwrap().2, 7.0);
        } else {
            assert_eq!(points.iter().map(|p| p.2).sum::<f64>(), 7.0);
        }
    }
}
