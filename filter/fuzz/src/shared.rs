//! What more than one target needs: plans, and the checks that hold whatever happened.

use phoenix_filter::amount::Amount;
use phoenix_filter::ledger::Tally;
use phoenix_filter::owner::Owner;
use phoenix_filter::route::Compiled;
use phoenix_plan::Plan;
use std::rc::Rc;

/// Several rules, small limits, the embedder's clock.
pub const WALL: &str = r#"{"schema":1,"version":1,"first_sample_margin":"0s","stream_expiry":"60s","shards":2,
 "hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","writer":"w",
 "promoted_resource_attributes":["pod"],
 "limits":{"streams_max":24,"delta_streams_max":12,"gauge_streams_max":12,"series_max":8,"histogram_bytes_max":65536,"body_bytes_max":16384,
   "emission_bytes_max":65536,"backlog_bytes_max":65536},
 "rules":[
  {"name":"pass","metric":{"exact":"m"},"resource":[{"key":"pod","equals":"raw"}],"pipeline":"full_fidelity"},
  {"name":"get","metric":{"glob":"m*"},"attributes":[{"key":"a","prefix":"G"}],"pipeline":"optimized",
   "fold":{"labels":{"drop":{"resource":["pod"],"attributes":["a"]}},"window":"1s","delay":"1s"}},
  {"name":"none","metric":{"prefix":"m"},"attributes":[{"key":"b","exists":false}],"pipeline":"optimized",
   "fold":{"labels":{"keep":{"attributes":["a"]}},"window":"10s","delay":"5s","output_temporality":"delta"}},
  {"name":"all","metric":{"prefix":"m"},"pipeline":"optimized",
   "fold":{"labels":{"drop":{"resource":["pod"]}},"window":"10s","delay":"10s","output_temporality":"cumulative",
     "gauge":"avg","up_down_counter":"sum","summary":"sum_and_count","exemplars":2}}]}"#;

/// A plan made ready. Panics on a plan that is none.
pub fn compiled(json: &str) -> Rc<Compiled> {
    Rc::new(Compiled::new(Plan::parse(json.as_bytes()).expect("the target's own plan is valid")))
}

/// Every point of a batch is somewhere.
pub fn check_tally(t: &Tally) {
    assert_eq!(t.points, t.passed + t.recorded + t.no_value, "points in = points out: {t:?}");
}

/// Conservation, and the bounds of memory.
pub fn check_owner(owner: &Owner, plan: &Plan) {
    let page = owner.ledger().sum();
    let limits = &plan.limits;
    // Numbers and distributions have a table each.
    let streams = 2 * u64::from(limits.streams_max) + u64::from(limits.delta_streams_max);
    assert!(owner.streams() as u64 <= streams + u64::from(limits.gauge_streams_max));
    assert!(owner.series() as u64 <= u64::from(limits.series_max));
    let settled = page.folded + page.baselines + page.out_of_order + page.duplicates + page.overlaps;
    let settled = settled + page.late_values;
    assert_eq!(page.records, settled + page.carried + page.refused, "every record is somewhere: {page:?}");

    let (all, out, waiting, open) = owner.balance();
    let mut sum = Amount::default();
    for part in [&out, &waiting, &open] {
        sum.merge(part);
    }
    // A refused point whose series has ended (a new key) has nowhere to go back to: counted, and out of the books.
    if page.abandoned > 0 {
        assert!(all.int() >= sum.int(), "more went out than came in");
        return;
    }
    assert_eq!(all.int(), sum.int(), "integers in = acknowledged + waiting + open");
    let (a, b) = (all.to_f64(), sum.to_f64());
    // Sums beyond the largest double have no value to compare; the wire cannot carry them either. Sums of histograms may be negative:
    // what is left of two that cancel is as exact as they were, and nobody knows here how large that was.
    if a.is_finite() && b.is_finite() && all.int() == 0 {
        assert!((a - b).abs() <= 1e-12 * a.abs(), "doubles in = acknowledged + waiting + open: {a:e} {b:e}");
    }
}
