//! The judge of `bench containment`, judged: processes that are wrong on purpose, each in one way, and what the judge must say of them.
//!
//! They stand around [`Fair`], a containment in plain code that does nothing wrong: known streams stay raw, new ones beyond the share fold. Were the judge blind in one
//! eye, the wrong process would look like the fair one.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use phoenix_benches::containment::baseline::{FirstCome, Growth};
use phoenix_benches::containment::otlp::{Keys, Kind as Adds, NO_RECORDED_VALUE, Quantity, retain};
use phoenix_benches::containment::process::{Emission, PassThrough, Process};
use phoenix_benches::containment::run::run;
use phoenix_benches::containment::scenario::{EPOCH_NS, GUILTY, Kind, Scenario, Size};
use phoenix_benches::containment::verdict::{FirstFold, Verdict};
use prost::Message as _;
use std::collections::{BTreeMap, HashMap};

const SHARE: usize = 100;
const METRIC: &str = "http.server.requests";

/// What a process does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// Nothing.
    Nothing,
    /// One point in a hundred that it cuts never reaches the fold.
    Loses,
    /// It counts one increment twice.
    Doubles,
    /// It folds one stream that was there before.
    FoldsInnocent,
    /// It lets two series more through than it may.
    LetsTwoThrough,
    /// It begins in the batch after.
    IsLate,
    /// It lets everything through for one epoch, and contains again.
    Flaps,
    /// Worker 3 does not know what the others have admitted since the explosion.
    DoesNotTellWorker3,
    /// Worker 3 folds some of what the others have admitted, and from then on all do.
    Worker3Folds,
    /// Worker 3 lets through some of what the others fold, and from then on all do.
    Worker3Restores,
    /// It changes a value that passes.
    Edits,
    /// It writes the batches of another tenant anew.
    TouchesOthers,
}

struct Known {
    is_raw: bool,
    /// Its last point.
    was_cut: bool,
    units: i128,
    start_ns: u64,
}

/// Contains one metric of cumulative sums: known streams stay raw while there is room for one folded series, all else is folded into that one.
struct Fair {
    wrong: Wrong,
    keys: Keys,
    known: HashMap<Box<[u8]>, Known>,
    raw: usize,
    room: usize,
    batches_over: u64,
    total: i128,
    emitted: bool,
    begun_ns: u64,
    cuts: u64,
    did: bool,
}

impl Fair {
    fn new(wrong: Wrong) -> Fair {
        Fair {
            wrong,
            keys: Keys::default(),
            known: HashMap::new(),
            raw: 0,
            // One folded series, and 1 % of the share is one series: two more are too many.
            room: if wrong == Wrong::LetsTwoThrough { SHARE + 1 } else { SHARE - 1 },
            batches_over: 0,
            total: 0,
            emitted: false,
            begun_ns: 0,
            cuts: 0,
            did: false,
        }
    }
}

impl Process for Fair {
    fn batch(&mut self, worker: usize, tenant: &str, body: &[u8], now_ns: u64) -> anyhow::Result<Vec<u8>> {
        self.begun_ns = if self.begun_ns == 0 { now_ns } else { self.begun_ns };
        let epoch = (now_ns - self.begun_ns) / EPOCH_NS;
        let mut request = ExportMetricsServiceRequest::decode(body)?;
        if tenant != GUILTY {
            if self.wrong == Wrong::TouchesOthers && epoch == 3 {
                request.resource_metrics[0].schema_url = "other".to_owned();
                return Ok(request.encode_to_vec());
            }
            return Ok(body.to_vec());
        }
        let mut keys = std::mem::take(&mut self.keys);
        let (mut verdicts, mut over) = (Vec::new(), false);
        keys.each(&request, |said| {
            if said.metric != METRIC {
                verdicts.push(true);
                return;
            }
            let Quantity::Units(units) = said.quantity else { panic!("a sum") };
            assert_eq!(said.kind, Adds::Cumulative);
            let is_new = !self.known.contains_key(said.key);
            let fits = self.raw < self.room;
            over |= is_new && !fits;
            let may_be_late = self.wrong == Wrong::IsLate && self.batches_over == 0;
            let known = self.known.entry(said.key.into()).or_insert_with(|| {
                let is_raw = fits || may_be_late;
                self.raw += usize::from(is_raw);
                Known { is_raw, was_cut: false, units: 0, start_ns: said.start_ns }
            });
            assert_eq!(known.start_ns, said.start_ns, "no scenario restarts a stream");
            let increment = units[0] - known.units;
            known.units = units[0];
            let mut passes = known.is_raw;
            let some = said.key.iter().map(|byte| u64::from(*byte)).sum::<u64>().is_multiple_of(8);
            match self.wrong {
                Wrong::FoldsInnocent if passes && epoch == 6 && !self.did => {
                    (passes, self.did) = (false, true);
                    known.is_raw = false;
                }
                // A whole epoch: whatever was folded is raw, and again folded.
                Wrong::Flaps if epoch == 7 && !passes => {
                    passes = true;
                }
                Wrong::DoesNotTellWorker3 if worker == 3 && passes && epoch > 6 && some => {
                    passes = false;
                }
                Wrong::Worker3Folds if worker == 3 && passes && epoch > 6 && some => {
                    (passes, known.is_raw) = (false, false);
                }
                Wrong::Worker3Restores if worker == 3 && known.was_cut && some => {
                    (passes, known.is_raw) = (true, true);
                }
                _ => {}
            }
            // The increment since a point that was cut belongs to the fold.
            if passes && known.was_cut {
                self.total += increment;
            }
            known.was_cut = !passes;
            if !passes {
                self.cuts += 1;
                let lost = self.wrong == Wrong::Loses && self.cuts.is_multiple_of(100);
                let twice = self.wrong == Wrong::Doubles && self.cuts == 100;
                self.total += increment * if lost { 0 } else { 1 + i128::from(twice) };
            }
            verdicts.push(passes);
        });
        self.keys = keys;
        self.batches_over += u64::from(over);
        let mut left = verdicts.into_iter();
        retain(&mut request, || left.next().unwrap_or(true));
        if self.wrong == Wrong::Edits && epoch == 5 && !self.did {
            self.did = edit(&mut request);
        }
        Ok(request.encode_to_vec())
    }

    fn tick(&mut self, now_ns: u64) -> anyhow::Result<Vec<Emission>> {
        // At the end, and once on the way, so that the series is alive.
        if self.total == 0 || !(now_ns / 1_000_000_000).is_multiple_of(10) {
            return Ok(Vec::new());
        }
        self.emitted = true;
        let point = NumberDataPoint {
            attributes: vec![label("phoenix_folded", "user.id")],
            start_time_unix_nano: self.begun_ns,
            time_unix_nano: now_ns,
            value: Some(Number::AsInt(i64::try_from(self.total)?)),
            ..Default::default()
        };
        let sum = Sum {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        };
        let metric = Metric { name: METRIC.to_owned(), data: Some(Data::Sum(sum)), ..Default::default() };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }];
        let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
        let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
        Ok(vec![Emission { tenant: GUILTY.to_owned(), body }])
    }
}

fn label(key: &str, value: &str) -> KeyValue {
    phoenix_benches::containment::population::text(key, value)
}

/// Adds one to the first sum that is there, if there is one.
fn edit(request: &mut ExportMetricsServiceRequest) -> bool {
    for metric in
        request.resource_metrics.iter_mut().flat_map(|r| &mut r.scope_metrics).flat_map(|s| &mut s.metrics)
    {
        if let Some(Data::Sum(sum)) = &mut metric.data
            && let Some(point) = sum.data_points.first_mut()
            && let Some(Number::AsInt(value)) = &mut point.value
        {
            *value += 1;
            return true;
        }
    }
    false
}

fn scenario(kind: Kind, seed: u64) -> Scenario {
    Scenario { kind, seed, share: SHARE, size: Size::Reduced }
}

fn judged(wrong: Wrong, seed: u64) -> Verdict {
    run(&scenario(Kind::Constant, seed), &mut Fair::new(wrong)).expect("it runs")
}

/// Seeds of cumulative sums, whose innocent are fewer than what is admitted.
const SEEDS: [u64; 4] = [0, 1, 2, 3];

/// Which targets are missed, by name.
fn missed(verdict: &Verdict) -> Vec<String> {
    verdict.missed().iter().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn who_does_nothing_wrong_misses_nothing() {
    for seed in SEEDS {
        let verdict = judged(Wrong::Nothing, seed);
        assert!(verdict.missed().is_empty(), "{seed}: {:?}", verdict.missed());
        assert_eq!(verdict.first_fold, FirstFold::After(0));
        assert_eq!(verdict.changes, 1);
        assert!(verdict.cut > 1_000 && verdict.total > 0 && verdict.innocent > 30);
        assert_eq!(verdict.out_most, SHARE, "admitted and one folded");
    }
}

#[test]
fn every_wrong_is_found_and_nothing_else() {
    for (wrong, expected) in [
        (Wrong::Loses, vec!["total"]),
        (Wrong::Doubles, vec!["total"]),
        (Wrong::LetsTwoThrough, vec!["over"]),
        (Wrong::FoldsInnocent, vec!["innocent"]),
        (Wrong::TouchesOthers, vec!["others"]),
    ] {
        for seed in SEEDS {
            assert_eq!(missed(&judged(wrong, seed)), expected, "{wrong:?} {seed}");
        }
    }
}

/// What is wrong in one way shows in several, and never in the totals: every increment is in one place.
#[test]
fn wrongs_that_show_in_many_ways_are_found() {
    for (wrong, expected) in [
        (Wrong::IsLate, vec!["first_fold"]),
        (Wrong::Flaps, vec!["flaps", "over"]),
        (Wrong::DoesNotTellWorker3, vec!["split"]),
        (Wrong::Worker3Folds, vec!["split"]),
        (Wrong::Worker3Restores, vec!["split"]),
    ] {
        for seed in SEEDS {
            let found = missed(&judged(wrong, seed));
            assert!(
                expected.iter().all(|name| found.iter().any(|f| f == name)),
                "{wrong:?} {seed}: {found:?}"
            );
            assert!(!found.contains(&"total".to_owned()), "{wrong:?} {seed}: {found:?}");
        }
    }
    for seed in SEEDS {
        let found = missed(&judged(Wrong::Edits, seed));
        assert!(found.contains(&"foreign".to_owned()), "{seed}: {found:?}");
    }
}

/// A stale marker in the place of a point is a cut, and no series.
#[test]
fn markers_are_cuts() {
    struct Marks;
    impl Process for Marks {
        fn batch(&mut self, _: usize, tenant: &str, body: &[u8], _: u64) -> anyhow::Result<Vec<u8>> {
            let mut request = ExportMetricsServiceRequest::decode(body)?;
            let metrics = request.resource_metrics.iter_mut().flat_map(|r| &mut r.scope_metrics);
            for metric in metrics.flat_map(|s| &mut s.metrics).filter(|_| tenant == GUILTY) {
                if let Some(Data::Sum(sum)) = &mut metric.data {
                    for point in &mut sum.data_points {
                        (point.value, point.flags) = (None, NO_RECORDED_VALUE);
                    }
                }
            }
            Ok(request.encode_to_vec())
        }

        fn tick(&mut self, _: u64) -> anyhow::Result<Vec<Emission>> {
            Ok(Vec::new())
        }
    }
    let verdict = run(&scenario(Kind::Constant, 0), &mut Marks).expect("it runs");
    assert_eq!((verdict.out_most, verdict.foreign), (0, 0));
    assert!(verdict.cut > 1_000);
    assert_eq!(verdict.total_error, verdict.total, "nothing came");
}

/// Who does nothing loses nothing and holds nothing.
#[test]
fn pass_through_exceeds_every_share() {
    for kind in Kind::ALL {
        for seed in 0..8 {
            let verdict = run(&scenario(kind, seed), &mut PassThrough).expect("it runs");
            assert_eq!(missed(&verdict), ["over", "first_fold"], "{} {seed}", kind.name());
            assert!(verdict.over > 0.1 && matches!(verdict.first_fold, FirstFold::Never(_)));
            assert_eq!((verdict.in_most, verdict.cut), (verdict.out_most, 0));
        }
    }
}

/// What the models of others are known for: one is blind to a constant rate, the other loses what comes late.
#[test]
fn limiters_lose_totals_or_see_nothing() {
    let mut lost = BTreeMap::new();
    for kind in Kind::ALL {
        let scenario = scenario(kind, 1);
        let shares = scenario.shares();
        let alive_ns = scenario.times().period_s * 2 / 3 * 1_000_000_000;
        let growth = run(&scenario, &mut Growth::limits(&shares, EPOCH_NS)).expect("it runs");
        let first = run(&scenario, &mut FirstCome::limits(&shares, alive_ns)).expect("it runs");
        assert_eq!((first.over, first.innocent_cut), (0.0, 0), "{}", kind.name());
        // By night whoever was rejected by day is let in, and a cumulative stream then says all that it has counted.
        assert!(first.total_error > 0 || kind == Kind::Diurnal, "{}: what is rejected is lost", kind.name());
        lost.insert(kind.name(), (growth.over, first.error_part()));
    }
    assert!(lost["constant"].0 > 1.0, "{lost:?}");
}
