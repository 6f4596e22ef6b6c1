//! What was counted, what arrived, and what may be missing: the books of a restart.
//!
//! In: the streams with the points that each gateway took, and the sink's samples. Out: per metric and route the truth, what each gateway should have folded,
//! what arrived of it, and the bound of the loss. Plain code of its own: nothing of `filter/` is used, so that an error there cannot hide here.
//!
//! The bound follows from facts. `T` is the end of the last window that the backend has of a series. A gateway that is killed may take with it what was counted
//! after `T`, and what came too late to be sure of its window; and of each stream what it counted until the next gateway saw it first. Nothing else.

use super::traffic::{Kind, Point, ROUTES, SECOND_NS, Stream};
use crate::sink::Books;
use crate::sink::series::Value;
use std::collections::BTreeMap;

/// A record travels from the worker that had the answer to the owner well within this, also on a busy machine; what was answered closer to the closing of its
/// window may be late.
const SURE_NS: u64 = SECOND_NS;
/// Doubles: differences of values near 10⁴ carry 10⁻¹² each, and hundreds are summed.
const DOUBLE_TOLERANCE: f64 = 1e-9;

/// What a stream counted between two of its points.
#[derive(Clone, Copy, Debug)]
struct Increment {
    from_ns: u64,
    to_ns: u64,
    amount: f64,
    acknowledged_ns: u64,
    is_reset: bool,
}

/// What one process wrote into one series: from a start time to the next one.
#[derive(Clone, Debug)]
pub struct Life {
    /// Who wrote it.
    pub writer: String,
    /// Its start time.
    pub start_ns: u64,
    /// It opens with a sample of value zero at its start.
    pub opens_with_zero: bool,
    /// A value fell, or time went back.
    pub falls: bool,
    /// Time of its last sample.
    pub last_ns: u64,
    /// Value of its last sample: all increments that it carried.
    pub total: f64,
}

/// One metric and route.
#[derive(Clone, Debug)]
pub struct Line {
    /// The metric.
    pub kind: Kind,
    /// The route.
    pub route: &'static str,
    /// What the clients counted and some gateway took.
    pub truth: f64,
    /// By gateway: what it should have folded of that.
    pub counted: Vec<f64>,
    /// By gateway: what arrived.
    pub received: Vec<f64>,
    /// Of the first gateway: what must have arrived, given its last window.
    pub surely: f64,
    /// … and what can have arrived.
    pub at_most: f64,
}

impl Line {
    /// Counted and not arrived.
    pub fn lost(&self) -> f64 {
        self.truth - self.received.iter().sum::<f64>()
    }

    /// Counted by nobody: between the last point at one gateway and the first at the next.
    pub fn gap(&self) -> f64 {
        self.truth - self.counted.iter().sum::<f64>()
    }

    /// What may be lost at most.
    pub fn bound(&self) -> f64 {
        self.truth - self.surely - self.counted.iter().skip(1).sum::<f64>()
    }

    /// What is allowed for rounding: nothing for integers.
    pub fn tolerance(&self) -> f64 {
        tolerance(self.kind, self.truth)
    }
}

/// What is allowed for rounding in sums of this size: nothing for integers.
pub fn tolerance(kind: Kind, size: f64) -> f64 {
    if kind.is_double { size.abs().max(1.0) * DOUBLE_TOLERANCE } else { 0.0 }
}

/// What of the first gateway's increments must have arrived.
#[derive(Clone, Copy, Debug)]
pub enum Upto {
    /// Those before the end of the last window that arrived: it was killed. The plan's delay says when that window closed.
    LastWindow {
        /// The delay.
        delay_ns: u64,
    },
    /// All of them: it was drained.
    Everything,
}

/// The increments of a stream's points, as the contract of the fold reads them: the first point counts from zero if the stream began at `watch_ns` or
/// later, else it is where counting begins; a value that falls, or a start that advances, counts from zero.
fn increments<'a>(points: impl Iterator<Item = &'a Point>, watch_ns: u64) -> Vec<Increment> {
    let (mut found, mut last): (Vec<Increment>, Option<&Point>) = (Vec::new(), None);
    for point in points {
        let (to_ns, acknowledged_ns) = (point.time_ns, point.acknowledged_ns);
        let of = |from_ns, amount, is_reset| Increment { from_ns, to_ns, amount, acknowledged_ns, is_reset };
        match last {
            None if point.start_ns >= watch_ns => found.push(of(point.start_ns, point.value, false)),
            None => {}
            Some(last) if point.start_ns > last.start_ns || point.value < last.value => {
                found.push(of(point.start_ns.max(last.time_ns), point.value, true));
            }
            Some(last) => found.push(of(last.time_ns, point.value - last.value, false)),
        }
        last = Some(point);
    }
    found
}

/// How much of an increment belongs to the time until `end_ns`: in proportion, integers rounded down
/// (`docs/decisions/0007-splitting-integers.md`).
fn share(increment: &Increment, is_double: bool, end_ns: u64) -> f64 {
    let Increment { from_ns, to_ns, amount, .. } = *increment;
    if to_ns <= end_ns {
        return amount;
    }
    let (passed_ns, span_ns) = (end_ns.saturating_sub(from_ns), (to_ns - from_ns).max(1));
    if is_double {
        amount * (passed_ns as f64 / span_ns as f64)
    } else {
        (amount as i128 * i128::from(passed_ns) / i128::from(span_ns)) as f64
    }
}

fn of_gateway(stream: &Stream, gateway: usize) -> impl Iterator<Item = &Point> {
    stream.points.iter().filter(move |point| point.gateway == gateway)
}

/// The books of a metric on a route. `watch_ns` says, by gateway, from when on a stream that begins is seen to be born; `lives` are what arrived, by gateway.
pub fn line(
    streams: &[Stream],
    kind: Kind,
    route: &'static str,
    watch_ns: &[u64],
    lives: &[Life],
    upto: Upto,
) -> Line {
    let sum = |list: Vec<Increment>| list.iter().map(|i| i.amount).sum::<f64>();
    let mut line = Line {
        kind,
        route,
        truth: 0.0,
        counted: vec![0.0; watch_ns.len()],
        received: (0..watch_ns.len())
            .map(|gateway| lives.get(gateway).map_or(0.0, |life| life.total))
            .collect(),
        surely: 0.0,
        at_most: 0.0,
    };
    for stream in streams.iter().filter(|s| s.kind == kind && s.route == route) {
        line.truth += sum(increments(stream.points.iter(), watch_ns[0]));
        for (gateway, watch_ns) in watch_ns.iter().enumerate() {
            line.counted[gateway] += sum(increments(of_gateway(stream, gateway), *watch_ns));
        }
        for increment in increments(of_gateway(stream, 0), watch_ns[0]) {
            let (until_ns, is_sure) = match upto {
                Upto::Everything => (u64::MAX, true),
                Upto::LastWindow { delay_ns } => {
                    let end_ns = lives.first().map_or(0, |life| life.last_ns);
                    (end_ns, increment.acknowledged_ns + SURE_NS < end_ns + delay_ns)
                }
            };
            let part = share(&increment, kind.is_double, until_ns);
            line.at_most += part;
            line.surely += if is_sure { part } else { 0.0 };
        }
    }
    line
}

/// How many folded streams a gateway saw first without counting them, and how many counter resets it saw.
pub fn baselines_and_resets(streams: &[Stream], gateway: usize, watch_ns: u64) -> (usize, usize) {
    let (mut baselines, mut resets) = (0, 0);
    for stream in streams.iter().filter(|s| s.kind.name.starts_with("fold_")) {
        let first = of_gateway(stream, gateway).next();
        baselines += usize::from(first.is_some_and(|point| point.start_ns < watch_ns));
        let found = increments(of_gateway(stream, gateway), watch_ns);
        resets += found.iter().filter(|i| i.is_reset).count();
    }
    (baselines, resets)
}

/// How much the clients counted of a metric on a route between two times, growing evenly between points. `watch_ns` as in [`line`].
pub fn truth_between(
    streams: &[Stream],
    kind: Kind,
    route: &str,
    watch_ns: u64,
    from_ns: u64,
    to_ns: u64,
) -> f64 {
    let of = streams.iter().filter(|s| s.kind == kind && s.route == route);
    let increments = of.flat_map(|stream| increments(stream.points.iter(), watch_ns));
    let part = |i: Increment| {
        let overlap_ns = i.to_ns.min(to_ns).saturating_sub(i.from_ns.max(from_ns));
        i.amount * (overlap_ns as f64 / (i.to_ns - i.from_ns).max(1) as f64)
    };
    increments.map(part).sum()
}

/// What arrived of a folded metric: by route, the lives in order of their start times.
pub fn lives(books: &Books, kind: Kind) -> BTreeMap<&'static str, Vec<Life>> {
    let mut found: BTreeMap<&'static str, Vec<Life>> = BTreeMap::new();
    let Some(book) = books.metric(kind.name) else { return found };
    for series in book.folded.series.values() {
        let label =
            |name: &str| series.point.get(name).map_or("", String::as_str).trim_matches('"').to_owned();
        let Some(route) = ROUTES.into_iter().find(|route| *route == label("route")) else { continue };
        for of_life in series.samples.chunk_by(|a, b| a.start_ns == b.start_ns) {
            let values: Vec<(u64, f64)> = of_life.iter().map(|s| (s.time_ns, number(s.value))).collect();
            let (start_ns, last) = (of_life[0].start_ns, values.last().copied().unwrap_or_default());
            found.entry(route).or_default().push(Life {
                writer: label("phoenix_writer"),
                start_ns,
                opens_with_zero: values.first() == Some(&(start_ns, 0.0)),
                falls: values.windows(2).any(|pair| pair[1].0 <= pair[0].0 || pair[1].1 < pair[0].1),
                last_ns: last.0,
                total: last.1,
            });
        }
    }
    found.values_mut().for_each(|lives| lives.sort_by_key(|life| life.start_ns));
    found
}

/// What is wrong with a series' lives, in words: each opens with a zero point, and never falls.
pub fn flaws(route: &str, lives: &[Life]) -> Vec<String> {
    let mut found = Vec::new();
    for life in lives {
        if !life.opens_with_zero {
            found.push(format!("{route}: no zero point: {life:?}"));
        }
        if life.falls {
            found.push(format!("{route}: falls: {life:?}"));
        }
    }
    found
}

/// Lives, of processes that ran one after the other, that do not begin after the end of the one before.
pub fn overlaps(route: &str, lives: &[Life]) -> Vec<String> {
    let bad = lives.windows(2).filter(|pair| pair[1].start_ns <= pair[0].last_ns);
    bad.map(|pair| format!("{route}: {:?} begins before the end of {:?}", pair[1], pair[0])).collect()
}

/// What passes must be there as it was sent: points that were taken and did not arrive, and samples that nobody accounts for or that came twice.
pub fn passing(streams: &[Stream], books: &Books, kind: Kind) -> (usize, usize) {
    let (mut missing, mut surplus) = (0, 0);
    // Start, time and the bits of the value, by pod, route and browser.
    type Samples = Vec<(u64, u64, u64)>;
    let mut arrived: BTreeMap<(String, &str, String), Samples> = BTreeMap::new();
    for series in books.metric(kind.name).into_iter().flat_map(|book| book.raw.series.values()) {
        let text = |label: Option<&String>| label.map_or("", String::as_str).trim_matches('"').to_owned();
        let route = ROUTES.into_iter().find(|route| *route == text(series.point.get("route"))).unwrap_or("");
        let key =
            (text(series.resource.get(super::traffic::POD)), route, text(series.point.get("user_agent")));
        let samples = series.samples.iter().map(|s| (s.start_ns, s.time_ns, number(s.value).to_bits()));
        arrived.entry(key).or_default().extend(samples);
    }
    for stream in streams.iter().filter(|s| s.kind == kind) {
        let key = (stream.pod.clone(), stream.route, stream.agent.to_owned());
        let mut samples = arrived.remove(&key).unwrap_or_default();
        for point in &stream.points {
            let sent = (point.start_ns, point.time_ns, point.value.to_bits());
            match samples.iter().position(|sample| *sample == sent) {
                Some(at) => drop(samples.swap_remove(at)),
                None => missing += 1,
            }
        }
        surplus += samples.len();
    }
    (missing, surplus + arrived.values().map(Vec::len).sum::<usize>())
}

fn number(value: Value) -> f64 {
    match value {
        Value::Int(number) => number as f64,
        Value::Double(number) => number,
        Value::Distribution | Value::None => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::super::traffic::REQUESTS;
    use super::*;

    fn points(list: &[(u64, u64, f64, usize)]) -> Vec<Point> {
        let point = |&(start_ns, time_ns, value, gateway): &(u64, u64, f64, usize)| Point {
            start_ns,
            time_ns,
            value,
            gateway,
            acknowledged_ns: time_ns,
        };
        list.iter().map(point).collect()
    }

    fn life(start_ns: u64, last_ns: u64, total: f64) -> Life {
        let writer = "w".to_owned();
        Life { writer, start_ns, opens_with_zero: true, falls: false, last_ns, total }
    }

    const S: u64 = SECOND_NS;

    /// By hand: old stream 1000 at 10, 1010 at 20, 1025 at 30 (the gateway dies with a last window that ended at 25), 1060 at 50 (baseline), 1064 at 60.
    /// Truth 64. Carried 10 + 7 (half of 15, rounded down) = 17; after it 4. So 43 may be lost: 8 open and 35 between the gateways.
    #[test]
    fn a_loss_by_hand() {
        let list = [
            (1, 10 * S, 1000.0, 0),
            (1, 20 * S, 1010.0, 0),
            (1, 30 * S, 1025.0, 0),
            (1, 50 * S, 1060.0, 1),
            (1, 60 * S, 1064.0, 1),
        ];
        let stream = Stream {
            kind: REQUESTS,
            pod: "a".to_owned(),
            route: ROUTES[0],
            agent: "curl",
            points: points(&list),
        };
        let lives = [life(10 * S, 25 * S, 17.0), life(50 * S, 60 * S, 4.0)];
        let upto = Upto::LastWindow { delay_ns: 10 * S };
        let line = line(&[stream], REQUESTS, ROUTES[0], &[5 * S, 45 * S], &lives, upto);
        assert_eq!((line.truth, line.counted.as_slice()), (64.0, [25.0, 4.0].as_slice()));
        assert_eq!((line.surely, line.at_most), (17.0, 17.0));
        assert_eq!((line.lost(), line.gap(), line.bound()), (43.0, 35.0, 43.0));
    }

    /// Born at 12 with 5 at 20; reset at 22 with 3 at 30; taken by the next gateway as a newborn would be only if it began after that one.
    #[test]
    fn births_and_resets() {
        let list = [(12, 20, 5.0, 0), (22, 30, 3.0, 0), (32, 40, 9.0, 1)];
        let amounts = |watch| {
            let list = points(&list);
            increments(list.iter(), watch).iter().map(|i| (i.from_ns, i.amount)).collect::<Vec<_>>()
        };
        assert_eq!(amounts(10), [(12, 5.0), (22, 3.0), (32, 9.0)]);
        assert_eq!(amounts(15), [(22, 3.0), (32, 9.0)]);
    }

    #[test]
    fn what_was_answered_late_is_not_sure() {
        let mut list = points(&[(1, 10 * S, 1.0, 0), (1, 20 * S, 2.0, 0), (1, 22 * S, 4.0, 0)]);
        list[2].acknowledged_ns = 34 * S;
        let stream =
            Stream { kind: REQUESTS, pod: "a".to_owned(), route: ROUTES[0], agent: "curl", points: list };
        let upto = Upto::LastWindow { delay_ns: 10 * S };
        let lives = [life(10 * S, 25 * S, 1.0)];
        let line = line(&[stream], REQUESTS, ROUTES[0], &[5 * S], &lives, upto);
        assert_eq!((line.surely, line.at_most, line.bound()), (1.0, 3.0, 2.0));
    }

    #[test]
    fn flaws_are_seen() {
        let (one, two) = (life(10, 20, 5.0), life(30, 40, 5.0));
        assert!(flaws("r", &[one.clone(), two.clone()]).is_empty());
        assert!(overlaps("r", &[one.clone(), two]).is_empty());
        assert_eq!(
            overlaps("r", &[one.clone(), life(20, 40, 5.0)]).len(),
            1,
            "begins at the end of the other"
        );
        assert_eq!(flaws("r", &[Life { falls: true, opens_with_zero: false, ..one }]).len(), 2);
    }
}
