//! The explosion: a label leaks into a counter that no rule names, budgets contain it, and then a rule folds it.
//!
//! In: what the leaking service knows it was acknowledged, what the sink received, the budget, what Envoy's stats said on the way, and from when until when the control host says that a
//! rule holds ([`Ruled`]). Out: an [`Explosion`]: when the module reacted, what it folded, what came back, and what is wrong. What is asked, of this metric alone:
//!
//! * never more series than the budget and one percent, over the whole run;
//! * no stream with the label is raw from the first export that was contained until the switch back;
//! * streams without it are raw, every point, byte for byte, before the rule and after it; while it holds, none of them is;
//! * by every group of the other labels, what was counted is what arrived raw and what arrived folded;
//! * the streams that keep the label are raw again before the end, where there was time for it, all from one point in event time on, the one that was said;
//!   and what they had counted until then is not counted again: as `increase` does, a raw series that had been folded counts from its first sample.

/// When the scene plays.
pub mod script;
/// The scene in words.
pub mod text;
/// What Envoy's stats said while it went on.
pub mod watch;

use crate::shop::leak::pod::{Group, group};
use crate::shop::leak::{LeakTruth, METRIC, USER_ID};
use crate::sink::books::{Books, MetricBook};
use crate::sink::print::Multiset;
use crate::sink::series::{Sample, Series, Value};
use phoenix_plan::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use watch::Watch;

/// So many findings of a sort are spelt out; the rest is counted.
const SHOWN: usize = 3;

/// What the control host says that it did about the metric. Nothing: budgets alone contain and restore it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ruled {
    /// When the run began, Unix nanoseconds.
    pub begin_ns: u64,
    /// From when on a rule folds all of it, by event time.
    pub from_ns: Option<u64>,
    /// Until when it does.
    pub until_ns: Option<u64>,
    /// There was no time to restore it.
    pub is_short: bool,
    /// Gateways through which it folds.
    pub gateways: usize,
}

impl Ruled {
    /// Whether the rule holds at a time.
    fn holds(&self, time_ns: u64) -> bool {
        self.from_ns.is_some_and(|from_ns| from_ns <= time_ns)
            && self.until_ns.is_none_or(|until_ns| time_ns < until_ns)
    }
}

/// The judgement of the scene.
#[derive(Clone, Debug, Default)]
pub struct Explosion {
    /// What the control host did about it.
    pub ruled: Ruled,
    /// Gateways whose series were folded when the rule held.
    pub writers: BTreeSet<String>,
    /// Series that the metric may have, of all gateways together.
    pub share: u32,
    /// Streams without the label, with it, and those of the latter that keep it.
    pub innocents: usize,
    /// … with it.
    pub guilty: u64,
    /// … that keep it.
    pub staff: usize,
    /// Exports with new streams.
    pub leaked_exports: usize,
    /// Of these, exports before the module reacted: points with the label passed raw.
    pub raw_exports: usize,
    /// From the first leaked point to the first that was contained, by the senders' clocks; `None`: none was.
    pub contained_after: Option<Duration>,
    /// From the first leaked point to the first look at Envoy's stats that showed it.
    pub shown_after: Option<Duration>,
    /// Raw streams with the label that were not restored.
    pub leaked_raw: usize,
    /// Series at the sink beyond the share.
    pub beyond_share: usize,
    /// Distinct series at the sink over the whole run.
    pub series: usize,
    /// Of these, folded.
    pub folded_series: usize,
    /// What the folded ones say was folded.
    pub marks: BTreeSet<String>,
    /// Points in and out.
    pub points: (u64, u64),
    /// Counted; arrived raw; arrived folded.
    pub totals: (i128, i128, i128),
    /// Groups of the other labels.
    pub groups: usize,
    /// From the last new stream with the label to the first raw point of one that keeps it.
    pub restored_after: Option<Duration>,
    /// Streams that are raw again.
    pub restored: usize,
    /// Streams that keep the label and came while there was room: raw from the beginning.
    pub kept_raw: usize,
    /// Points that the module says it contained.
    pub contained_points: i64,
    /// Most raw streams that budgets had admitted at once, of all metrics of the process.
    pub admitted_most: i64,
    /// What is wrong; empty is good.
    pub failures: Vec<String>,
}

/// Raw series of the metric, by what they are.
#[derive(Default)]
struct Raw<'a> {
    innocents: BTreeMap<&'a str, &'a Series>,
    staff: BTreeMap<&'a str, &'a Series>,
    users: BTreeMap<&'a str, &'a Series>,
    strangers: Vec<&'a str>,
}

/// Judges the scene.
pub fn judge(truth: &LeakTruth, books: &Books, plan: &Plan, watch: &Watch, ruled: Ruled) -> Explosion {
    let empty = MetricBook::default();
    let received = books.metric(METRIC).unwrap_or(&empty);
    let raw = sorted(truth, received);
    let tenant = books.metrics.keys().find(|(_, metric)| metric == METRIC).map_or("", |(tenant, _)| tenant);
    let share = plan.budgets.as_ref().and_then(|it| it.metric(tenant.as_bytes(), METRIC.as_bytes()));
    let series_of = |books: &Books| books.metric(METRIC).map_or(0, |book| book.raw.series.len());
    let mut out = Explosion {
        ruled,
        share: share.unwrap_or(u32::MAX),
        innocents: series_of(&truth.innocents),
        staff: series_of(&truth.staff),
        guilty: truth.users + series_of(&truth.staff) as u64,
        leaked_exports: truth.leaked.len(),
        leaked_raw: raw.users.len(),
        series: received.raw.series.len() + received.folded.series.len(),
        folded_series: received.folded.series.len(),
        points: (truth.points, received.points()),
        groups: truth.groups.len(),
        contained_points: watch.contained(),
        admitted_most: watch.admitted_most(),
        ..Explosion::default()
    };
    exports(truth, &mut out);
    share_kept(&mut out);
    restored(truth, &raw, &mut out);
    reaction(truth, &raw, watch, &mut out);
    folded(truth, received, plan, &mut out);
    untouched(truth, received, &raw, &mut out);
    totals(truth, received, books.config.run_start_ns, &mut out);
    anomalies(received, books.config.run_start_ns, &mut out);
    stats(truth, watch, &mut out);
    out
}

fn sorted<'a>(truth: &LeakTruth, received: &'a MetricBook) -> Raw<'a> {
    let mut raw = Raw::default();
    let has =
        |books: &Books, id: &str| books.metric(METRIC).is_some_and(|book| book.raw.series.contains_key(id));
    for (id, series) in &received.raw.series {
        if has(&truth.innocents, id) {
            raw.innocents.insert(id, series);
        } else if has(&truth.staff, id) {
            raw.staff.insert(id, series);
        } else if series.point.contains_key(USER_ID) {
            raw.users.insert(id, series);
        } else {
            raw.strangers.push(id);
        }
    }
    raw
}

fn exports(truth: &LeakTruth, out: &mut Explosion) {
    let exports = truth.exports;
    if exports.dropped > 0 || exports.unanswered > 0 || exports.partial > 0 {
        out.failures.push(format!(
            "{} exports given up, {} attempts unanswered, {} accepted in part",
            exports.dropped, exports.unanswered, exports.partial
        ));
    }
    if truth.leaked.is_empty() {
        out.failures.push("nothing leaked: there was nothing to contain".to_owned());
    }
}

/// Of the share, one percent more is no overflow: a total has to be somewhere.
fn share_kept(out: &mut Explosion) {
    let share = out.share as usize;
    out.beyond_share = out.series.saturating_sub(share);
    if out.beyond_share > (share / 100).max(1) {
        out.failures.push(format!("{} series at the sink, the share is {share}", out.series));
    }
}

/// Times at which a series arrived with a value.
fn times(series: &Series) -> BTreeSet<u64> {
    let valued = series.samples.iter().filter(|sample| sample.value != Value::None);
    valued.map(|sample| sample.time_ns).collect()
}

/// When did raw points of those come back that keep the label? One point in event time for all, and the answer is the first of their raw points.
fn restored(truth: &LeakTruth, raw: &Raw<'_>, out: &mut Explosion) {
    let (mut first_raw, mut last_folded) = (u64::MAX, 0);
    let mut missing = Vec::new();
    for (id, sent) in truth.staff.metric(METRIC).into_iter().flat_map(|book| &book.raw.series) {
        let arrived = raw.staff.get(id.as_str()).map_or_else(BTreeSet::new, |series| times(series));
        let sent = times(sent);
        let folded: Vec<u64> = sent.difference(&arrived).copied().collect();
        last_folded = last_folded.max(folded.last().copied().unwrap_or(0));
        let back = folded.first().and_then(|first| arrived.range(first..).next());
        match back {
            _ if folded.is_empty() => out.kept_raw += 1,
            Some(back) if sent.last().is_some_and(|last| arrived.contains(last)) => {
                out.restored += 1;
                first_raw = first_raw.min(*back);
            }
            _ => missing.push(id),
        }
    }
    if let Some(id) = missing.first()
        && !(out.ruled.is_short && out.restored == 0)
    {
        out.failures.push(format!("{} of {} streams not restored, such as {id}", missing.len(), out.staff));
    }
    if out.restored == 0 {
        return;
    }
    if last_folded >= first_raw {
        out.failures.push(format!(
            "not one switch: a point of {last_folded} is folded, one of {first_raw} is raw (Unix ns)"
        ));
    }
    let said_ns = out.ruled.until_ns.filter(|_| out.ruled.from_ns.is_some());
    if said_ns.is_some_and(|said_ns| first_raw < said_ns || last_folded >= said_ns)
        || (out.ruled.from_ns.is_some() && said_ns.is_none())
    {
        out.failures.push(format!("restored at {first_raw}, the control host says {said_ns:?} (Unix ns)"));
    }
    let since = |end_ns| Duration::from_nanos(first_raw.saturating_sub(end_ns));
    out.restored_after = truth.ended_ns().map(since);
}

/// How far did the leak come before it was contained?
fn reaction(truth: &LeakTruth, raw: &Raw<'_>, watch: &Watch, out: &mut Explosion) {
    let times: BTreeSet<u64> = raw.users.values().flat_map(|series| times(series)).collect();
    let mut leaked: Vec<u64> = truth.leaked.iter().map(|leaked| leaked.time_ns).collect();
    leaked.sort_unstable();
    out.raw_exports = leaked.iter().filter(|time| times.contains(time)).count();
    let Some(&began_ns) = leaked.first() else { return };
    let contained_ns = leaked.iter().copied().find(|time| !times.contains(time));
    out.contained_after = contained_ns.map(|at| Duration::from_nanos(at - began_ns));
    out.shown_after = watch.contained_from(began_ns).map(|at| Duration::from_nanos(at - began_ns));
    match contained_ns {
        None if out.leaked_exports > 0 => out.failures.push("never contained".to_owned()),
        _ => {}
    }
    let after = |series: &Series| {
        series.samples.iter().any(|sample| contained_ns.is_some_and(|at| sample.time_ns >= at))
    };
    let late: Vec<&&str> = raw.users.iter().filter(|(_, s)| after(s)).map(|(id, _)| id).collect();
    if let Some(id) = late.first() {
        out.failures.push(format!("{} guilty streams raw after containment, such as {id}", late.len()));
    }
}

/// What folds, folds on the leaked label and on nothing else.
fn folded(truth: &LeakTruth, received: &MetricBook, plan: &Plan, out: &mut Explosion) {
    let mut wrong = Vec::new();
    for (id, series) in &received.folded.series {
        let mark = series.point.get(&plan.mark_label).cloned().unwrap_or_default();
        let mark = mark.trim_matches('"').to_owned();
        let is_group = truth.groups.contains_key(&group(&series.resource, &series.point));
        if mark != USER_ID || series.point.contains_key(USER_ID) || !is_group {
            wrong.push(id);
        }
        out.marks.insert(mark);
        let is_ruled = series.samples.iter().any(|sample| out.ruled.holds(sample.time_ns));
        if let Some(writer) = series.point.get(&plan.writer_label).filter(|_| is_ruled) {
            out.writers.insert(writer.trim_matches('"').to_owned());
        }
    }
    if out.ruled.from_ns.is_some() && out.writers.len() != out.ruled.gateways {
        out.failures.push(format!(
            "the rule folds in {} gateways, not in {}: {:?}",
            out.writers.len(),
            out.ruled.gateways,
            out.writers
        ));
    }
    if let Some(id) = wrong.first() {
        out.failures.push(format!(
            "{} folded series that are not the metric without {USER_ID}, such as {id}",
            wrong.len()
        ));
    }
}

/// The innocents, and what is raw of the staff, arrived as they were sent; while a rule holds, nothing of them did but the ends of their series.
fn untouched(truth: &LeakTruth, received: &MetricBook, raw: &Raw<'_>, out: &mut Explosion) {
    let sent = truth.innocents.metric(METRIC);
    let mut wrong = Vec::new();
    for (id, sent) in sent.into_iter().flat_map(|book| &book.raw.series) {
        let wanted: Vec<Sample> =
            sent.samples.iter().copied().filter(|sample| !out.ruled.holds(sample.time_ns)).collect();
        let arrived: Vec<Sample> = raw.innocents.get(id.as_str()).map_or_else(Vec::new, |series| {
            series.samples.iter().copied().filter(|sample| sample.value != Value::None).collect()
        });
        if !same(&arrived, &wanted) {
            wrong.push(format!("{} of {} points of {id}", arrived.len(), wanted.len()));
        }
    }
    if let Some(example) = wrong.first() {
        out.failures.push(format!("{} innocent streams touched, such as {example}", wrong.len()));
    }
    if let Some(id) = raw.strangers.first() {
        out.failures.push(format!("{} raw series that nobody sent, such as {id}", raw.strangers.len()));
    }
    let ends =
        received.raw.series.iter().flat_map(|(id, series)| series.samples.iter().map(move |it| (id, it)));
    let early: Vec<_> =
        ends.filter(|(_, it)| it.value == Value::None && !out.ruled.holds(it.time_ns)).collect();
    if let Some((id, _)) = early.first() {
        out.failures.push(format!("{} raw series end though no rule holds, such as {id}", early.len()));
    }
    let mut expected = Multiset::default();
    let untouched = truth.innocent_prints.iter().filter(|((_, at), _)| !out.ruled.holds(*at));
    let times: BTreeSet<u64> = raw.staff.values().flat_map(|series| times(series)).collect();
    // Of an export, all of them or none: with a part of them the prints differ.
    let restored = truth.staff_prints.iter().filter(|((_, at), _)| times.contains(at));
    untouched.chain(restored).for_each(|(_, print)| expected.join(*print));
    let arrived = received.raw.print.without(received.raw.ends);
    // With users among them there is no telling, and that has failed already.
    if raw.users.is_empty() && expected != arrived {
        out.failures.push(format!(
            "raw points are not those that were sent, byte for byte: {} for {}",
            arrived.points, expected.points
        ));
    }
}

/// The same samples, in whichever order they were acknowledged.
fn same(a: &[Sample], b: &[Sample]) -> bool {
    let sorted = |samples: &[Sample]| {
        let mut samples = samples.to_vec();
        samples.sort_by_key(|sample| sample.time_ns);
        samples
    };
    sorted(a) == sorted(b)
}

/// By group: what was counted, and what arrived.
fn totals(truth: &LeakTruth, received: &MetricBook, run_start_ns: u64, out: &mut Explosion) {
    let mut arrived: BTreeMap<Group, (i128, i128)> = BTreeMap::new();
    let known = [&truth.innocents, &truth.staff].map(|books| books.metric(METRIC));
    for (id, series) in &received.raw.series {
        let sent = known.iter().flatten().find_map(|book| book.raw.series.get(id));
        let total =
            series.read(run_start_ns).total.ints - sent.map_or(0, |sent| folded_between(sent, series));
        arrived.entry(group(&series.resource, &series.point)).or_default().0 += total;
    }
    for series in received.folded.series.values() {
        let total = series.read(run_start_ns).total.ints;
        arrived.entry(group(&series.resource, &series.point)).or_default().1 += total;
    }
    let mut wrong = Vec::new();
    for (group, &counted) in &truth.groups {
        let (raw, folded) = arrived.get(group).copied().unwrap_or_default();
        if raw + folded != counted {
            wrong.push(format!("{group}: {counted} in, {raw} raw + {folded} folded out"));
        }
    }
    out.totals = (
        truth.groups.values().sum(),
        arrived.values().map(|(raw, _)| raw).sum(),
        arrived.values().map(|(_, folded)| folded).sum(),
    );
    let (counted, raw, folded) = out.totals;
    if counted != raw + folded {
        out.failures.push(format!(
            "total out {} is not total in {counted}: off by {}",
            raw + folded,
            raw + folded - counted
        ));
    }
    if let Some(example) = wrong.first() {
        out.failures.push(format!("{} groups do not add up, such as {example}", wrong.len()));
    }
}

/// What a raw series counts that was folded: at its first sample after some that did not arrive, all since the last one that did.
fn folded_between(sent: &Series, arrived: &Series) -> i128 {
    let arrived = times(arrived);
    let value = |sample: &Sample| if let Value::Int(value) = sample.value { i128::from(value) } else { 0 };
    let mut samples = sent.samples.clone();
    samples.sort_by_key(|sample| sample.time_ns);
    let (mut last_raw, mut is_gap, mut folded) = (0, false, 0);
    for sample in &samples {
        if !arrived.contains(&sample.time_ns) {
            is_gap = true;
            continue;
        }
        if std::mem::take(&mut is_gap) {
            folded += value(sample) - last_raw;
        }
        last_raw = value(sample);
    }
    folded
}

fn anomalies(received: &MetricBook, run_start_ns: u64, out: &mut Explosion) {
    let mut found = Vec::new();
    for (id, series) in received.raw.series.iter().chain(&received.folded.series) {
        for (anomaly, index) in series.read(run_start_ns).anomalies {
            found.push(format!("{anomaly:?} in {METRIC} {id}: {:?}", series.samples[index]));
        }
    }
    let more = found.len().saturating_sub(SHOWN);
    out.failures.extend(found.into_iter().take(SHOWN));
    if more > 0 {
        out.failures.push(format!("{more} more anomalies"));
    }
}

/// The module says itself what it did.
fn stats(truth: &LeakTruth, watch: &Watch, out: &mut Explosion) {
    if truth.leaked.is_empty() {
        return;
    }
    if out.shown_after.is_none() {
        out.failures.push("Envoy's stats never showed a contained metric".to_owned());
    }
    if watch.is_contained_at_the_end() {
        out.failures.push("Envoy's stats show a contained metric at the end".to_owned());
    }
}

#[cfg(test)]
mod tests;
