//! Conservation: totals, windows and books against the oracle, with everything that senders, upstreams and clocks do.

use crate::engine::{LONG, Out, WINDOW, drain, plan, send, start, take, windows};
use crate::oracle::{Kind, Oracle, SeriesKey};
use crate::scripts::{BEGAN, S, points, script};
use crate::wire::{Order, UNIT};
use phoenix_filter::emit::Answer;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use proptest::prelude::*;

/// What the oracle counts in, as the engine's doubles are.
pub fn scale(series: &SeriesKey, units: f64) -> f64 {
    if series.1 { units / UNIT } else { units }
}

/// The books say what the oracle says became of every point.
pub fn check_books(engine: &Local, oracle: &Oracle) {
    let (page, c) = (engine.page(), &oracle.counts);
    assert_eq!(
        (page.folded, page.resets, page.baselines, page.out_of_order, page.duplicates, page.overlaps),
        (c.folded, c.resets, c.baselines, c.out_of_order, c.duplicates, c.overlaps),
        "folded, resets, baselines, out of order, duplicates, overlaps"
    );
    let ints = oracle.increments.keys().filter(|k| !k.1).map(|k| oracle.total(k)).sum::<i128>();
    assert_eq!(page.increments_in.int(), ints, "integers that joined");
}

/// Every window of every series: integers to the unit, doubles to 1e-12 of the total.
fn check_windows(out: &Out, oracle: &Oracle, cumulative: impl Fn(Kind) -> bool) {
    assert_eq!(out.keys().collect::<Vec<_>>(), oracle.increments.keys().collect::<Vec<_>>());
    for (series, points) in out {
        let got = windows(points, cumulative(series.0));
        let expected = oracle.windows(series);
        assert_eq!(
            got.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "windows of {series:?}"
        );
        let total = scale(series, oracle.total(series) as f64);
        for (window, value) in &got {
            let wanted = scale(series, expected[window]);
            let slack = if series.1 { 1e-12 * total } else { 0.0 };
            assert!((value - wanted).abs() <= slack, "{series:?} at {window}: {value} instead of {wanted}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Nothing is late: every window equals the oracle's, which splits by exact fractions.
    #[test]
    fn windows_and_books_equal_the_oracle(steps in script(60), output in 0usize..3) {
        let output = ["unchanged", "cumulative", "delta"][output];
        let mut engine = start(&plan(LONG, output));
        let mut oracle = Oracle::new(BEGAN, WINDOW);
        for (arrived, point) in points(&steps) {
            oracle.take(&point, arrived);
            send(&mut engine, &mut Order::Plain, &[point], arrived, Settled::Accepted);
        }
        check_books(&engine, &oracle);
        let mut out = Out::new();
        drain(&mut engine, &mut out);
        check_windows(&out, &oracle, |kind| match output {
            "cumulative" => true,
            "delta" => false,
            _ => kind == Kind::Cumulative,
        });
    }

    /// Windows close on the way, answers are refusals and silence, the clock jitters: which window an increment is in differs from
    /// the oracle then, the total does not, and what the upstream took never falls and has one point a window. (A clock that is set
    /// back by more than `CLOCK_SET_BACK_NS` opens windows anew: the totals stay, one point a window does not.)
    #[test]
    fn totals_survive_lateness_refusals_and_jitter(
        steps in script(60),
        answers in prop::collection::vec(0u8..4, 40),
        jitter in prop::collection::vec(0u64..10, 40),
        delta in any::<bool>(),
    ) {
        let mut engine = start(&plan("1s", if delta { "delta" } else { "cumulative" }));
        let mut oracle = Oracle::new(BEGAN, WINDOW);
        let (mut out, mut answers) = (Out::new(), answers.into_iter().cycle());
        let mut jitter = jitter.into_iter().cycle();
        for (arrived, point) in points(&steps) {
            oracle.take(&point, arrived);
            send(&mut engine, &mut Order::Plain, &[point], arrived, Settled::Accepted);
            // The clock of a tick is ahead at times, and comes back.
            let now = arrived + jitter.next().unwrap() * S;
            engine.tick(UnixNanos(now));
            take(&mut engine, now, &mut out, || match answers.next().unwrap() {
                0 => Answer::Refused,
                1 => Answer::Unknown,
                _ => Answer::Accepted,
            });
            for owner in engine.owners() {
                let (all, acknowledged, waiting, open) = owner.balance();
                prop_assert_eq!(all.int(), acknowledged.int() + waiting.int() + open.int());
            }
        }
        check_books(&engine, &oracle);
        drain(&mut engine, &mut out);
        for series in oracle.increments.keys() {
            let points = out.get(series).cloned().unwrap_or_default();
            let got: f64 = if delta {
                windows(&points, false).values().sum()
            } else {
                let mut before = 0.0;
                for &(_, _, value) in points.iter().filter(|p| p.0 != p.1) {
                    prop_assert!(value >= before, "a total fell from {} to {}", before, value);
                    before = value;
                }
                before
            };
            let wanted = scale(series, oracle.total(series) as f64);
            let slack = if series.1 { 1e-12 * wanted } else { 0.0 };
            prop_assert!((got - wanted).abs() <= slack, "{:?}: {} instead of {}", series, got, wanted);
        }
    }

    /// A request that the upstream refused, or never answered, and that comes again counts once. What is accepted twice too: its
    /// points are out of order or duplicates then.
    #[test]
    fn a_retry_counts_once(steps in script(40), hows in prop::collection::vec(0u8..4, 40)) {
        let mut engine = start(&plan(LONG, "unchanged"));
        let mut once = start(&plan(LONG, "unchanged"));
        let mut again = 0;
        for ((arrived, point), how) in points(&steps).into_iter().zip(hows.into_iter().cycle()) {
            let point = [point];
            let failed = [Settled::Refused, Settled::Unanswered];
            if let Some(how) = failed.get(usize::from(how)) {
                send(&mut engine, &mut Order::Plain, &point, arrived, *how);
            }
            send(&mut engine, &mut Order::Plain, &point, arrived, Settled::Accepted);
            if how == 3 {
                send(&mut engine, &mut Order::Plain, &point, arrived, Settled::Accepted);
                again += 1;
            }
            send(&mut once, &mut Order::Plain, &point, arrived, Settled::Accepted);
        }
        let (got, wanted) = (engine.page(), once.page());
        prop_assert_eq!(got.records, wanted.records + again);
        prop_assert_eq!((got.folded, got.resets, got.increments_in), (wanted.folded, wanted.resets, wanted.increments_in));
        let (mut out, mut out_once) = (Out::new(), Out::new());
        drain(&mut engine, &mut out);
        drain(&mut once, &mut out_once);
        prop_assert_eq!(out, out_once);
    }
}
