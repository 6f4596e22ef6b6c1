//! Cases: both answers as text, a verdict and the counts. Steps are 0, 10, 20 … seconds; `-` is a step without a point.

use super::*;
use proptest::prelude::*;

fn span() -> Span {
    Span { start_ms: 0, end_ms: 100_000, step_ms: 10_000, edge_ms: 20_000 }
}

fn rule() -> Rule {
    Rule {
        tolerance: 0.005,
        outliers: 0.0,
        own_labels: ["phoenix_folded".to_owned(), "phoenix_writer".to_owned()],
    }
}

/// `a=1: 1 2 - 3; a=2: 4`.
fn series(text: &str) -> Vec<Series> {
    let one = |text: &str| {
        let (labels, values) = text.split_once(':').unwrap();
        let labels = labels.split(',').filter_map(|pair| pair.trim().split_once('='));
        let points = values.split_whitespace().enumerate().filter(|(_, value)| *value != "-");
        Series {
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            points: points.map(|(index, value)| (index as i64 * 10_000, value.parse().unwrap())).collect(),
        }
    };
    text.split(';').filter(|text| !text.trim().is_empty()).map(one).collect()
}

#[test]
fn verdicts() {
    use Verdict::{Differs, Equal, NoData, WithinTolerance};
    // full, folded, verdict, (points, outside, missing on full + folded, edge on full + folded)
    for (full, folded, verdict, counts) in [
        ("", "", NoData, (0, 0, 0, 0)),
        (": 1 2 3", ": 1 2 3", Equal, (3, 0, 0, 0)),
        (": 1 2 3", ": 1 2 3.0000000001", Equal, (3, 0, 0, 0)),
        (": 1 2 3", ": 1 2 3.01", WithinTolerance, (3, 0, 0, 0)),
        (": 1 2 3", ": 1 2 3.02", Differs, (3, 1, 0, 0)),
        (": 0 0", ": 0 1e-13", Equal, (2, 0, 0, 0)),
        (": 0 1e9", ": 0.1 1e9", Equal, (2, 0, 0, 0)),
        (": 0 1", ": 0.1 1", Differs, (2, 1, 0, 0)),
        (": -1 1", ": 1 1", Differs, (2, 1, 0, 0)),
        (": NaN 1", ": NaN 1", Equal, (2, 0, 0, 0)),
        (": NaN 1", ": 0 1", Differs, (2, 1, 0, 0)),
        (": +Inf -Inf", ": +Inf -Inf", Equal, (2, 0, 0, 0)),
        (": +Inf", ": -Inf", Differs, (1, 1, 0, 0)),
        (": +Inf", ": 5", Differs, (1, 1, 0, 0)),
        // Gaps on both sides are the same answer; a gap on one side is not.
        (": 1 - 1", ": 1 - 1", Equal, (2, 0, 0, 0)),
        (": 1 1 1", ": 1 - 1", Differs, (2, 0, 1, 0)),
        (": 1 - 1", ": 1 1 1", Differs, (2, 0, 1, 0)),
        // Edges: up to 20 s before the first and after the last point of the side that lacks it.
        (": 1 1 1 1", ": - - 1 1", WithinTolerance, (2, 0, 0, 2)),
        (": 1 1 1 1", ": 1 1", WithinTolerance, (2, 0, 0, 2)),
        (": 1 1 1 1", ": - - - 1", Differs, (1, 0, 1, 2)),
        (": - 1 1", ": 1 1 1", WithinTolerance, (2, 0, 0, 1)),
        // Series of one side.
        ("a=1: 1; a=2: 1", "a=1: 1", Differs, (1, 0, 1, 0)),
        ("a=1: 1", "a=1: 1; a=2: 1", Differs, (1, 0, 1, 0)),
        (": 1", "", Differs, (0, 0, 1, 0)),
        // The mark and the writer differ by design; two series that differ only by them do not pass for one.
        ("a=1: 1", "a=1,phoenix_folded=pod,phoenix_writer=w: 1", Equal, (1, 0, 0, 0)),
        ("a=1: 1", "a=1,phoenix_writer=v: 1; a=1,phoenix_writer=w: 1", Differs, (1, 0, 0, 0)),
        ("pod=p: 1", ": 1", Differs, (0, 0, 2, 0)),
    ] {
        let (answer, comparison) = compare(&series(full), &series(folded), &span(), &rule());
        let measured =
            (comparison.points, comparison.outside, comparison.missing.sum(), comparison.edge.sum());
        assert_eq!((answer, measured), (verdict, counts), "{full} | {folded}");
    }
}

#[test]
fn outliers_up_to_a_share() {
    let (full, folded) = (series(": 1 1 1 1 1 1 1 1 1 1"), series(": 1 1 1 2 1 1 1 1 1 1"));
    for (outliers, verdict) in
        [(0.0, Verdict::Differs), (0.09, Verdict::Differs), (0.1, Verdict::WithinTolerance)]
    {
        assert_eq!(compare(&full, &folded, &span(), &Rule { outliers, ..rule() }).0, verdict, "{outliers}");
    }
}

#[test]
fn the_worst_point_and_its_chart() {
    let (_, comparison) =
        compare(&series("a=1: 1 1; a=2: 2 4 8"), &series("a=1: 1 1.1; a=2: 2 2 8"), &span(), &rule());
    let worst = comparison.worst.unwrap();
    assert_eq!(
        (worst.error, worst.time_ms, worst.full, worst.folded, worst.labels["a"].as_str()),
        (0.5, 10_000, 4.0, 2.0, "2")
    );
    let chart = comparison.chart.unwrap();
    assert_eq!(chart.labels["a"], "2");
    assert_eq!(chart.full.len(), 11);
    assert_eq!(
        (&chart.full[..4], &chart.folded[..2]),
        (&[Some(2.0), Some(4.0), Some(8.0), None][..], &[Some(2.0), Some(2.0)][..])
    );
}

#[test]
fn series_without_a_counterpart_are_kept_for_a_picture() {
    let many: String = (0..30).map(|n| format!("a={n}: 1; ")).collect();
    for (full, folded, kept) in [
        (many.trim_end_matches("; "), "b=1: 3", 24 + 1),
        ("a=1: 1; a=2: 2", "", 2),
        ("a=1: 1; a=2: 2", "a=2: 3; b=1: 1", 0),
        ("a=1: 1 1", "a=1: - - 1", 0),
    ] {
        let (verdict, comparison) = compare(&series(full), &series(folded), &span(), &rule());
        assert_eq!((verdict, comparison.alone.len()), (Verdict::Differs, kept), "{full} {folded}");
        let is_one_sided = |chart: &Chart| {
            chart.full.iter().all(Option::is_none) != chart.folded.iter().all(Option::is_none)
        };
        assert!(comparison.alone.iter().all(is_one_sided), "{full} {folded}");
    }
}

#[test]
fn remarks_name_labels_of_one_side() {
    let (_, comparison) = compare(&series("pod=p,a=1: 1"), &series("a=1: 1"), &span(), &rule());
    assert_eq!(comparison.remarks, ["only series of the full side carry pod"]);
}

/// A step on both sides.
type Two = (Option<i8>, Option<i8>);

proptest! {
    /// Point by point, by the definition.
    #[test]
    fn counts_agree_with_the_definition(values in prop::collection::vec((prop::option::of(-3i8..3), prop::option::of(-3i8..3)), 1..11)) {
        let side = |pick: fn(&Two) -> Option<i8>| {
            let points = values.iter().enumerate().filter_map(|(index, pair)| Some((index as i64 * 10_000, f64::from(pick(pair)?))));
            let points: Vec<_> = points.collect();
            if points.is_empty() { Vec::new() } else { vec![Series { labels: Labels::new(), points }] }
        };
        let (verdict, comparison) = compare(&side(|pair| pair.0), &side(|pair| pair.1), &span(), &rule());
        let both = values.iter().filter(|(full, folded)| full.is_some() && folded.is_some()).count() as u64;
        let one = values.iter().filter(|(full, folded)| full.is_some() != folded.is_some()).count() as u64;
        let equal = values.iter().filter(|(full, folded)| full.is_some() && full == folded).count() as u64;
        prop_assert_eq!(comparison.points, both);
        prop_assert_eq!(comparison.equal, equal);
        prop_assert_eq!(comparison.outside, both - equal);
        prop_assert_eq!(comparison.missing.sum() + comparison.edge.sum(), one);
        prop_assert_eq!(verdict == Verdict::Equal, both > 0 && one == 0 && equal == both);
        prop_assert_eq!(verdict == Verdict::NoData, both + one == 0);
    }
}
