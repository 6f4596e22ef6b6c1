//! Budgets under random scripts: four workers, tenants, labels that explode, silence, clocks that step, plans that change.
//!
//! After every step: no metric has more series than its share and the slack, whoever is asked; all workers know the same; a stream changes from
//! raw to folded or back only where something in the contract says so. At the end totals are held against an oracle that remembers every point.
//! Not proven here: races of real threads (workers take turns), types other than cumulative sums.

mod fleet;

use fleet::{Fleet, Labels, Point, S, body, points};
use phoenix_filter::admission::slack;
use phoenix_filter::units::UnixNanos;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// When the process begins.
const T0: u64 = 1_000_000;
/// The measured period, and the silence after which a stream is forgotten.
const PERIOD: u64 = 90;
/// Silence after which owners forget a stream: longer than the log remembers it.
const EXPIRY: u64 = 200;

/// What the plan says of budgets.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shares {
    metric: u32,
    tenant: u32,
    /// A high share for one of the tenants.
    first: u32,
}

const SHARES: [Shares; 4] = [
    Shares { metric: 10, tenant: 25, first: 25 },
    Shares { metric: 5, tenant: 12, first: 40 },
    Shares { metric: 30, tenant: 40, first: 20 },
    Shares { metric: 400, tenant: 900, first: 10 },
];

fn plan(version: u64, shares: Shares) -> String {
    let Shares { metric, tenant, first } = shares;
    format!(
        r#"{{"schema":1,"version":{version},"writer":"w","first_sample_margin":"0s","stream_expiry":"{EXPIRY}s",
        "hash_key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","measure":{{"period":"{PERIOD}s"}},
        "budgets":{{"tenants":[{{"tenant":"t0","active_series":{first}}},{{"active_series":{tenant}}}],
          "metrics":[{{"metric":{{"glob":"*"}},"active_series":{metric}}}],"dwell":"30s","switch_lead":"20s",
          "fold":{{"window":"10s","offset":"0s","delay":"10s"}}}}}}"#
    )
}

#[derive(Clone, Debug)]
enum Step {
    /// A batch on a worker: streams of one metric and tenant, users from..from+count on some routes.
    Batch { worker: usize, tenant: u8, metric: u8, from: u16, count: u16, routes: u8, wait: u8 },
    /// Ticks of so many seconds.
    Ticks(u8),
    /// The clock steps, and everybody's with it: hours.
    Clock(i8),
    /// Another plan.
    Push(usize),
    /// A plan without budgets, under which somebody speaks; then the one before again.
    Off { tenant: u8, metric: u8, from: u16, count: u16 },
}

fn step(with_clock: bool) -> impl Strategy<Value = Step> {
    let batch = (0..4_usize, 0..3_u8, 0..2_u8, 0..60_u16, 0..16_u16, 1..4_u8, 1..12_u8).prop_map(
        |(worker, tenant, metric, from, count, routes, wait)| Step::Batch {
            worker,
            tenant,
            metric,
            from,
            count,
            routes,
            wait,
        },
    );
    let burst = (0..4_usize, 0..3_u8, 0..2_u8, 0..60_u16, 30..200_u16).prop_map(
        |(worker, tenant, metric, from, count)| Step::Batch {
            worker,
            tenant,
            metric,
            from,
            count,
            routes: 3,
            wait: 1,
        },
    );
    let clock = if with_clock { 1 } else { 0 };
    prop_oneof![
        20 => batch,
        2 => burst,
        4 => (1..60_u8).prop_map(Step::Ticks),
        2 => (0..SHARES.len()).prop_map(Step::Push),
        1 => (0..3_u8, 0..2_u8, 0..60_u16, 0..60_u16)
            .prop_map(|(tenant, metric, from, count)| Step::Off { tenant, metric, from, count }),
        clock => (-30..30_i8).prop_map(Step::Clock),
    ]
}

/// A stream, as its sender and the oracle know it.
#[derive(Clone, Debug, Default)]
struct Stream {
    start_s: u64,
    last_s: u64,
    value: i64,
    /// Treatment of the last point.
    is_raw: Option<bool>,
    /// Value at the end of what was counted or given up before.
    before: i64,
    /// What the fold should hold of it at least, and at most.
    least: i64,
    most: i64,
}

type Id = (u8, u8, Labels);

struct World {
    fleet: Fleet,
    streams: BTreeMap<Id, Stream>,
    now: u64,
    version: u64,
    shares: Shares,
    /// Series of metrics, as they were when the plan last changed.
    base: BTreeMap<u64, u32>,
    /// The clock has stepped.
    has_stepped: bool,
    /// Until when there were no budgets.
    off_until: u64,
}

impl World {
    fn new() -> World {
        let mut fleet = Fleet::new(&plan(1, SHARES[0]), 4, T0);
        // The log begins with the first tick: what starts later was born under its eyes.
        fleet.tick(T0);
        let streams = BTreeMap::new();
        World {
            fleet,
            streams,
            now: T0 + 1,
            version: 1,
            shares: SHARES[0],
            base: BTreeMap::new(),
            has_stepped: false,
            off_until: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Batch { worker, tenant, metric, from, count, routes, wait } => {
                self.now += u64::from(wait);
                let ids: Vec<Id> = (0..count).map(|n| (tenant, metric, labels(from + n, routes))).collect();
                self.send(worker, &ids);
            }
            Step::Ticks(seconds) => {
                for _ in 0..seconds {
                    self.now += 1;
                    self.fleet.tick(self.now);
                }
            }
            Step::Clock(hours) => {
                self.now = self.now.saturating_add_signed(i64::from(hours) * 3_600).max(T0);
                self.has_stepped = true;
            }
            Step::Off { tenant, metric, from, count } => {
                self.version += 1;
                let plan = plan(self.version, self.shares);
                let without = plan[..plan.find(",\"measure\"").unwrap()].to_owned() + "}";
                self.fleet.engine.configure(without.as_bytes(), UnixNanos(self.now * S)).unwrap();
                self.off_until = u64::MAX;
                self.now += 2;
                let ids: Vec<Id> = (0..count).map(|n| (tenant, metric, labels(from + n, 3))).collect();
                self.send(usize::from(tenant), &ids);
                self.run(&Step::Ticks(25));
                self.off_until = self.now;
                let index = SHARES.iter().position(|it| *it == self.shares).unwrap();
                self.run(&Step::Push(index));
            }
            Step::Push(index) => {
                self.version += 1;
                self.shares = SHARES[index];
                let plan = plan(self.version, self.shares);
                self.fleet.engine.configure(plan.as_bytes(), UnixNanos(self.now * S)).unwrap();
                self.fleet.tick(self.now);
                let state = self.fleet.registry(0).state();
                self.base = state.metrics.iter().map(|(id, it)| (*id, it.series())).collect();
            }
        }
    }

    fn send(&mut self, worker: usize, ids: &[Id]) {
        // Who started in the future, since the clock went back, is silent until then: such points are unfit, and pass.
        let now = self.now;
        let can_speak = |id: &&Id| self.streams.get(*id).is_none_or(|s| s.start_s <= now);
        let ids: &[Id] = &ids.iter().filter(can_speak).cloned().collect::<Vec<Id>>();
        let Some((tenant, metric, _)) = ids.first() else { return };
        let (tenant, metric) = (format!("t{tenant}"), format!("m{metric}"));
        let mut sent = Vec::new();
        for id in ids {
            let stream = self
                .streams
                .entry(id.clone())
                .or_insert_with(|| Stream { start_s: now, ..Stream::default() });
            stream.value += 1 + id.2.len() as i64;
            sent.push(Point {
                metric: metric.clone(),
                labels: id.2.clone(),
                start_s: stream.start_s,
                time_s: now,
                value: stream.value,
            });
        }
        let (out, tally) = self.fleet.send(worker, &tenant, now, &body(&[("service.name", "shop")], &sent));
        let raw: BTreeMap<Labels, i64> = points(&out).into_iter().map(|p| (p.labels, p.value)).collect();
        assert_eq!(tally.undecided, 0);
        let released: Vec<u64> = {
            let state = self.fleet.registry(worker).state();
            state.metrics.values().filter_map(|it| it.released_s).map(u64::from).collect()
        };
        for id in ids {
            let stream = self.streams.get_mut(id).unwrap();
            let is_raw = raw.contains_key(&id.2);
            let silent = now.saturating_sub(stream.last_s);
            // Once out of the period, of which a third may have passed when it was last seen.
            let may_be_forgotten =
                silent > PERIOD / 3 * 2 || self.has_stepped || stream.last_s <= self.off_until;
            match stream.is_raw {
                Some(true) if !is_raw => {
                    assert!(may_be_forgotten, "{id:?} was raw {silent} s ago and folds, at {now}");
                }
                Some(false) if is_raw => {
                    let switched = released.iter().any(|at| *at <= now && now <= *at + PERIOD + EXPIRY);
                    assert!(
                        switched || may_be_forgotten,
                        "{id:?} folded {silent} s ago and is raw at {now}; switches: {released:?}"
                    );
                }
                _ => {}
            }
            let grown = stream.value - stream.before;
            match (stream.is_raw, is_raw) {
                // What it was before its first point, or between two that fold, or up to the first raw one.
                (None | Some(false), false) | (Some(false), true) => {
                    stream.most += grown;
                    if !may_be_forgotten
                        || (stream.is_raw.is_none() && !self.has_stepped && self.off_until == 0)
                    {
                        stream.least += grown;
                    }
                }
                // The first point after raw ones: a baseline, or what came since the last raw one.
                (Some(true), false) => stream.most += grown,
                _ => {}
            }
            stream.before = stream.value;
            stream.last_s = now;
            stream.is_raw = Some(is_raw);
        }
    }

    /// What must hold after every step.
    fn check(&mut self) {
        // The leader ticks last, and may begin the log anew: the others read that a tick later.
        self.fleet.tick(self.now);
        self.fleet.tick(self.now);
        let first = self.fleet.view(0);
        for worker in 1..4 {
            assert_eq!(first, self.fleet.view(worker), "worker {worker} knows something else");
        }
        let shares = self.shares;
        let state = self.fleet.registry(0).state();
        let mut counts: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
        for known in state.series.values() {
            let count = counts.entry(known.metric).or_default();
            let is_folded = matches!(known.standing, phoenix_filter::admission::Standing::Folded(_));
            if is_folded { count.1 += 1 } else { count.0 += 1 }
        }
        let mut tenants: BTreeMap<u64, u32> = BTreeMap::new();
        for (id, it) in &state.metrics {
            assert_eq!(
                (it.admitted, it.folded),
                counts.get(id).copied().unwrap_or_default(),
                "counts are of what is there"
            );
            *tenants.entry(it.tenant).or_default() += it.series();
            let share = shares.metric.min(shares.tenant.max(shares.first));
            let most = (share + slack(share)).max(self.base.get(id).copied().unwrap_or(0) + 1);
            assert!(it.series() <= most, "{} series of {share}: {it:?}", it.series());
        }
        for (id, it) in &state.tenants {
            assert_eq!(it.series, tenants.get(id).copied().unwrap_or(0));
        }
        let bytes = self.fleet.heap_bytes();
        assert!(bytes < 40 << 20, "{bytes} bytes");
    }

    fn finish(&mut self) {
        // Everybody speaks once more, in a time that is later than all.
        self.now = self.now.max(self.streams.values().map(|s| s.last_s).max().unwrap_or(0)) + 5;
        for tenant in 0..3 {
            for metric in 0..2 {
                let near = |(id, s): &(&Id, &Stream)| {
                    id.0 == tenant && id.1 == metric && self.now.saturating_sub(s.last_s) < PERIOD / 3
                };
                let ids: Vec<Id> = self.streams.iter().filter(near).map(|(id, _)| id.clone()).collect();
                self.send(usize::from(tenant), &ids);
            }
        }
        for _ in 0..60 {
            self.now += 1;
            self.fleet.tick(self.now);
        }
        for tenant in 0..3 {
            for metric in 0..2 {
                let of = |f: fn(&Stream) -> i64| -> i64 {
                    let mine = self.streams.iter().filter(|(id, _)| id.0 == tenant && id.1 == metric);
                    mine.map(|(_, s)| f(s)).sum()
                };
                let (least, most) = (of(|s| s.least), of(|s| s.most));
                let folded = self.fleet.folded(&format!("t{tenant}"), &format!("m{metric}"));
                assert!(
                    folded <= most,
                    "t{tenant} m{metric}: {folded} are folded, and there are only {most}"
                );
                // A clock that went back may end a series before its time; nothing may count twice all the same.
                assert!(
                    folded >= least || self.has_stepped,
                    "t{tenant} m{metric}: {folded} are folded of at least {least}"
                );
            }
        }
    }
}

fn labels(user: u16, routes: u8) -> Labels {
    let route = format!("/r{}", user % u16::from(routes.max(1)));
    vec![("route".to_owned(), route), ("user".to_owned(), format!("u{user}"))]
}

fn play(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        world.run(step);
        world.check();
    }
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn shares_hold_and_totals_are_kept(steps in prop::collection::vec(step(false), 1..80)) {
        play(&steps);
    }

    #[test]
    fn clocks_may_step(steps in prop::collection::vec(step(true), 1..80)) {
        play(&steps);
    }
}
