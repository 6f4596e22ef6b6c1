//! What a batch may not decide: the order of attributes and fields, where batches are cut, which worker scanned them.

use crate::engine::{LONG, Out, WINDOW, drain, plan, send, start};
use crate::oracle::{Kind, Oracle, Point};
use crate::scripts::{BEGAN, growing, points, script};
use crate::totals::check_books;
use crate::wire::Order;
use phoenix_filter::flow::{Batch, Scratch, flow};
use phoenix_filter::local::Settled;
use phoenix_filter::owner::Owner;
use phoenix_filter::route::Compiled;
use phoenix_filter::units::UnixNanos;
use phoenix_plan::Plan;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::rc::Rc;

fn shuffled(seed: u64) -> Order {
    Order::Shuffled(Box::new(ChaCha8Rng::seed_from_u64(seed)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Attributes in any order, fields of every message in any order, unknown fields between: the same series, windows and books.
    #[test]
    fn the_order_of_attributes_and_fields_changes_nothing(steps in script(40), seed in any::<u64>()) {
        let (mut plain, mut mixed) = (start(&plan(LONG, "unchanged")), start(&plan(LONG, "unchanged")));
        let mut order = shuffled(seed);
        for (arrived, point) in points(&steps) {
            send(&mut plain, &mut Order::Plain, std::slice::from_ref(&point), arrived, Settled::Accepted);
            send(&mut mixed, &mut order, &[point], arrived, Settled::Accepted);
        }
        prop_assert_eq!(plain.page(), mixed.page());
        prop_assert_eq!(plain.owners()[0].series(), mixed.owners()[0].series());
        let (mut a, mut b) = (Out::new(), Out::new());
        drain(&mut plain, &mut a);
        drain(&mut mixed, &mut b);
        prop_assert_eq!(a, b);
    }

    /// One batch, or one for each point, or anything between, arrived at the same time: the same in every respect.
    #[test]
    fn where_batches_are_cut_changes_nothing(steps in script(60), cuts in prop::collection::vec(1usize..12, 60)) {
        let list: Vec<Point> = points(&steps).into_iter().map(|p| p.1).collect();
        let arrived = points(&steps).last().unwrap().0;
        let mut oracle = Oracle::new(BEGAN, WINDOW);
        list.iter().for_each(|p| oracle.take(p, arrived));
        let (mut whole, mut cut) = (start(&plan(LONG, "unchanged")), start(&plan(LONG, "unchanged")));
        send(&mut whole, &mut Order::Plain, &list, arrived, Settled::Accepted);
        let mut rest = list.as_slice();
        for n in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(n.min(rest.len()));
            send(&mut cut, &mut Order::Plain, now, arrived, Settled::Accepted);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        check_books(&whole, &oracle);
        prop_assert_eq!(whole.page(), cut.page());
        let (mut a, mut b) = (Out::new(), Out::new());
        drain(&mut whole, &mut a);
        drain(&mut cut, &mut b);
        prop_assert_eq!(a, b);
    }

    /// Messages of several workers in any order: the totals stay for streams that only grow and were born under watch. The windows may
    /// differ, and the number of points that are out of order: an older point of a cumulative stream that comes behind a newer
    /// one adds nothing, because the newer one has added it already, over one span instead of two.
    #[test]
    fn workers_in_any_order_give_the_same_totals(steps in growing(60), seed in any::<u64>()) {
        let plan = Rc::new(Compiled::new(Plan::parse(plan(LONG, "unchanged").as_bytes()).unwrap()));
        let mut oracle = Oracle::new(BEGAN, WINDOW);
        let mut workers = [Scratch::default(), Scratch::default(), Scratch::default()];
        let mut messages = Vec::new();
        for (n, (arrived, point)) in points(&steps).into_iter().enumerate() {
            oracle.take(&point, arrived);
            let body = Order::Plain.request(std::slice::from_ref(&point));
            let batch = Batch { body: &body, tenant: b"t", sender: b"", arrived: UnixNanos(arrived) };
            let worker = &mut workers[n % 3];
            flow(&plan, &batch, worker).unwrap();
            messages.extend(worker.messages(plan.key, batch.arrived).map(|m| (point.kind, m.1)));
        }
        prop_assert_eq!(oracle.counts.folded as usize, steps.len(), "the script only grows");
        // A delta stream remembers its last eight intervals only; those of a script that only grows never overlap.
        messages.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut owner = Owner::new(&plan.plan, plan.key, "w", 0);
        owner.begin(UnixNanos(BEGAN));
        let now = UnixNanos(points(&steps).last().unwrap().0);
        for (_, message) in &messages {
            owner.fold(message, now).unwrap();
        }
        let page = owner.ledger().sum();
        prop_assert_eq!(page.folded + page.out_of_order, steps.len() as u64);
        let deltas = messages.iter().filter(|m| m.0 == Kind::Delta).count() as u64;
        prop_assert!(page.folded >= deltas, "every interval of a delta stream counts");
        let total = |double| oracle.increments.keys().filter(|k| k.1 == double).map(|k| oracle.total(k)).sum::<i128>();
        prop_assert_eq!(page.increments_in.int(), total(false));
        let mut ints_and_doubles = page.increments_in.to_f64();
        ints_and_doubles -= total(false) as f64;
        let doubles = total(true) as f64 / crate::wire::UNIT;
        prop_assert!((ints_and_doubles - doubles).abs() <= 1e-12 * (doubles + total(false) as f64));
    }
}
