//! The scenes: killed in the middle of traffic; drained by the runbook; pushed to.
//!
//! In: programs. Out: a [`Report`] with every figure. Each scene has births, a counter that begins anew, and pods that are older than the gateway.

use super::account::{self, Life, Line, Upto, tolerance};
use super::answers;
use super::runbook;
use super::stage::{DELAY, FOLDED, Stage, WINDOW, numbered, plugin, seconds};
use super::traffic::{INTERVAL, REQUESTS, ROUTES, SECOND_NS, Stream};
use super::{Programs, Report};
use crate::figure::Unit;
use crate::shop::run::unix_ns;
use anyhow::{Context as _, ensure};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest age of the newest window at the backend: a window, the delay, and as much again for ticks and a machine that is busy.
const AGE_MAX: Duration = Duration::from_secs(2 * (WINDOW.as_secs() + DELAY.as_secs()));
/// What a window needs to close beyond window and delay, in the runbook's terms: ticks, and a machine that is busy.
const CLOSES_MARGIN: Duration = Duration::from_secs(2);
/// Longest time that the runbook may take.
const RUNBOOK_PATIENCE: Duration = Duration::from_secs(90);

/// Longest time between Envoy's answer that it will end, and its end.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Of the figure: requests that a gateway took and the backend has not.
pub const LOST: &str = "lost";
/// Of the figure: requests that were counted while the stream was on its way to another gateway.
pub const BETWEEN: &str = "between";

/// What clients do when their gateway drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// They end: nobody comes back.
    End,
    /// They go to another gateway.
    Move,
}

/// `kill -9` in the middle of traffic, and the same Envoy again at once on the same ports. `writer` is the plan's; without it each process has a name of its own.
///
/// # Errors
/// A program does not start, or something that must come does not.
pub async fn kill(programs: &Programs, writer: Option<&str>) -> anyhow::Result<Report> {
    let mut stage = Stage::open(programs, writer, 1).await?;
    live(&mut stage, 0, "born-before").await?;
    // Somewhere in a window, as kills come.
    sleep(Duration::from_nanos(unix_ns() % WINDOW.as_nanos() as u64)).await;
    let mut seam = Killed { late_before: stage.late(0).await?, ..Killed::default() };
    seam.unanswered_before = stage.traffic.fates().unanswered;
    seam.newest_ns = stage.emitted_to_ns();
    seam.killed_ns = unix_ns();
    stage.envoys[0].kill().await?;
    stage.traffic.birth("born-away");
    stage.traffic.reset(3);
    stage.envoys[0].start_again(numbered(1)).await?;
    seam.unanswered_between = stage.traffic.fates().unanswered;
    stage.all_served_by(1).await?;
    seam.calm_ns = unix_ns();
    seam.late_between = stage.late(0).await?;
    live(&mut stage, 1, "born-after").await?;
    stage.settle(0).await?;
    seam.late_after = stage.late(0).await?;
    judge_kill(programs, writer, &stage, &seam).await
}

/// When what happened, and what was uncertain by then.
#[derive(Clone, Copy, Debug, Default)]
struct Killed {
    /// End of the newest window at the sink.
    newest_ns: u64,
    killed_ns: u64,
    /// Every stream has had its baseline.
    calm_ns: u64,
    /// Points of the killed gateway that came late.
    late_before: i64,
    /// Of the next one, until all was calm …
    late_between: i64,
    /// … and in the end.
    late_after: i64,
    /// Exports without an answer, before the kill …
    unanswered_before: u64,
    /// … and until the next gateway was there.
    unanswered_between: u64,
}

async fn judge_kill(
    programs: &Programs,
    writer: Option<&str>,
    stage: &Stage,
    seam: &Killed,
) -> anyhow::Result<Report> {
    let streams = stage.traffic.streams();
    let mut report = match writer {
        Some(_) => Report::new("kill.same", "kill -9, same writer"),
        None => Report::new("kill.new", "kill -9, new writer"),
    };
    let lines = stage.account(&streams, Upto::LastWindow { delay_ns: DELAY.as_nanos() as u64 })?;
    let age = seconds(seam.killed_ns.saturating_sub(seam.newest_ns));
    let what = "age of the newest window at the backend";
    report.at_most("age", what, Unit::Seconds, age, AGE_MAX.as_secs_f64());
    let away_ns = stage.traffic.first_answer_ns(1).context("no answer")?.saturating_sub(seam.killed_ns);
    report.shown("away", "time without a gateway", Unit::Seconds, seconds(away_ns));
    let certain = Certain {
        of_killed: seam.late_before == 0 && seam.unanswered_before == 0,
        of_next: stage.traffic.fates().unanswered == seam.unanswered_between,
    };
    losses(&lines, certain, &mut report);
    let (watch_ns, from_ns) = (stage.watch_ns[0], seam.calm_ns);
    let a_second =
        |route| account::truth_between(&streams, REQUESTS, route, watch_ns, from_ns, from_ns + SECOND_NS);
    let rate: f64 = ROUTES.into_iter().map(a_second).sum();
    let lost = of_requests(&lines, Line::lost);
    let what = format!("requests lost, of {:.0}", of_requests(&lines, |line| line.truth));
    report.at_most(LOST, what, Unit::Count, lost, of_requests(&lines, Line::bound));
    // A bound that knows no stream: all that was counted from the newest window until every stream had its baseline.
    let blind = seconds(seam.calm_ns.saturating_sub(seam.newest_ns));
    report.at_most("lost_time", "lost, in seconds of traffic", Unit::Seconds, lost / rate, blind);
    writers(writer, &lines, &mut report);
    known_streams(stage, &streams, 1, &mut report).await?;
    stage.judge_the_rest(&streams, &mut report);
    let late = (seam.late_before + seam.late_after) as f64;
    report.shown("late", "late points, before and after", Unit::Count, late);
    if let Some(binary) = &programs.prometheus {
        let seam = answers::Seam {
            watch_ns: stage.watch_ns[0],
            begin_ns: lines.iter().map(|(_, lives)| lives[0].start_ns).min().unwrap_or(0),
            killed_ns: seam.killed_ns,
            calm_ns: seam.calm_ns,
            heard_until_ns: stage.traffic.heard_until_ns(),
            emitted_ns: seam.newest_ns,
            is_even_before: seam.late_before == 0,
            is_even_in_between: seam.late_between == 0,
            is_even_after: seam.late_after == seam.late_between,
            has_same_writer: writer.is_some(),
        };
        answers::judge(binary, &stage.sink.requests(), &streams, &seam, &mut report).await?;
    }
    Ok(report)
}

/// A sum over the routes of the integer metric.
fn of_requests(lines: &[(Line, Vec<Life>)], what: impl Fn(&Line) -> f64) -> f64 {
    lines.iter().filter(|(line, _)| line.kind == REQUESTS).map(|(line, _)| what(line)).sum()
}

/// Some seconds of life under a gateway: a pod is born, the counters of another begin anew, and both have been emitted.
async fn live(stage: &mut Stage, gateway: usize, name: &str) -> anyhow::Result<()> {
    let born = stage.traffic.birth(name);
    // And two seconds more, so that there are ranges in which nothing happens.
    let until_ns = unix_ns() + 5 * SECOND_NS / 2;
    // The pod's number is the gateway's, so that each scene has one that sends again and one that drops what failed.
    stage.traffic.reset(gateway);
    let what = format!("births and resets at gateway {gateway}");
    let served =
        |s: &Stage| s.traffic.taken(born, gateway) > 2 && s.traffic.taken_since_reset(gateway, gateway) > 2;
    stage.until(&what, served).await?;
    stage.until(&format!("{what}, emitted"), |s| s.emitted_to_ns() >= until_ns).await
}

/// Whether the journal knows all that a gateway folded, and when: nothing was late, and no request was sent and never answered, which may have been folded.
#[derive(Clone, Copy, Debug)]
struct Certain {
    of_killed: bool,
    of_next: bool,
}

/// The loss of a killed gateway, and that the next one counts right.
fn losses(lines: &[(Line, Vec<Life>)], certain: Certain, report: &mut Report) {
    report.table.push(format!(
        "{:<24} {:<14} {:<6} {:>12} {:>12} {:>10} {:>10} {:>10} {:>10}",
        report.scene, "metric", "route", "truth", "received", "lost", "of it open", "and gap", "bound"
    ));
    for (line, _) in lines {
        let (name, route, allowed) = (line.kind.name, line.route, line.tolerance());
        let received: f64 = line.received.iter().sum();
        let open = line.counted[0] - line.received[0];
        report.table.push(format!(
            "{:<24} {name:<14} {route:<6} {:>12.3} {received:>12.3} {:>10.3} {open:>10.3} {:>10.3} {:>10.3}",
            "",
            line.truth,
            line.lost(),
            line.gap(),
            line.bound()
        ));
        let mut judge = |is_judged: bool, key: &str, what: &str, value: f64, bound: f64| {
            let (key, what) = of(line, key, what);
            report.at_most_if(is_judged, &key, what, Unit::Count, value, bound);
        };
        judge(true, "lost", "lost", line.lost(), line.bound() + allowed);
        judge(true, "above", "received above the truth", (-line.lost()).max(0.0), allowed);
        // Sharper than the truth as a whole: neither process may have more than it can have.
        let above = (line.received[0] - line.at_most).max(0.0);
        judge(true, "killed_above", "received of the killed one above what its windows hold", above, allowed);
        let apart = (line.received[1] - line.counted[1]).abs();
        let what = "received of the next one, difference to what it counted";
        judge(certain.of_next, "next", what, apart, allowed);
        if certain.of_killed && certain.of_next && line.surely == line.at_most {
            let unexplained = (line.lost() - line.bound()).abs();
            let what = "lost, difference to open windows and gap";
            judge(true, "unexplained", what, unexplained, allowed);
        }
    }
}

/// Key and words of a figure of one metric and route.
fn of(line: &Line, key: &str, what: &str) -> (String, String) {
    let (name, route) = (line.kind.name, line.route);
    (format!("{name}.{}.{key}", route.trim_start_matches('/')), format!("{name} {route}: {what}"))
}

/// Who wrote what: each series has a life of each process, and begins anew.
fn writers(writer: Option<&str>, lines: &[(Line, Vec<Life>)], report: &mut Report) {
    let mut found = Vec::new();
    for (line, lives) in lines {
        found.extend(account::flaws(line.route, lives));
        found.extend(account::overlaps(line.route, lives));
        let names: Vec<&str> = lives.iter().map(|life| life.writer.as_str()).collect();
        let right = match writer {
            Some(writer) => names.iter().all(|name| *name == writer),
            None => names[0] != names[1] && names.iter().all(|name| name.starts_with("phoenix-gateway@")),
        };
        if !right {
            found.push(format!("{} {}: writers {names:?}", line.kind.name, line.route));
        }
    }
    report.none_of("writers", "series that do not begin anew, or under a wrong name", found);
}

/// What a gateway knew when it began: nothing. Each stream that is older is a baseline, and no reset is seen where none was.
async fn known_streams(
    stage: &Stage,
    streams: &[Stream],
    gateway: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let counters = stage.counters(stage.envoys.len() - 1).await?;
    let of = |name: &str| counters.get(name).copied().unwrap_or(0) as f64;
    let (baselines, resets) = account::baselines_and_resets(streams, gateway, stage.watch_ns[gateway]);
    let apart = (of("baselines") - baselines as f64).abs();
    let what = format!("baselines of the next one, difference to {baselines}");
    report.at_most("baselines", what, Unit::Count, apart, 0.0);
    let apart = (of("resets") - resets as f64).abs();
    let what = format!("resets seen by the next one, difference to {resets}");
    report.at_most("resets", what, Unit::Count, apart, 0.0);
    Ok(())
}

/// Drained by the runbook in the middle of traffic.
///
/// # Errors
/// A program does not start, the runbook fails, or something that must come does not.
pub async fn drain(programs: &Programs, clients: Clients) -> anyhow::Result<Report> {
    let moves = clients == Clients::Move;
    let mut stage = Stage::open(programs, None, if moves { 2 } else { 1 }).await?;
    live(&mut stage, 0, "born-before").await?;
    let (admin, listener) = (stage.envoys[0].admin(), stage.envoys[0].address());
    let script = runbook::script(admin, listener, WINDOW + DELAY + CLOSES_MARGIN)?;
    let run = tokio::spawn(async move {
        let begin = Instant::now();
        runbook::run(&script, RUNBOOK_PATIENCE).await.map(|()| begin.elapsed())
    });
    if moves {
        stage.all_served_by(1).await?;
        live(&mut stage, 1, "born-after").await?;
    } else {
        stage.traffic.stop().await;
    }
    let took = run.await??;
    ended(&mut stage).await?;
    if moves {
        stage.settle(1).await?;
    }
    judge_drain(clients, &stage, took).await
}

async fn judge_drain(clients: Clients, stage: &Stage, took: Duration) -> anyhow::Result<Report> {
    let streams = stage.traffic.streams();
    let mut report = match clients {
        Clients::Move => Report::new("drain.move", "drained, clients move"),
        Clients::End => Report::new("drain.end", "drained, clients end"),
    };
    let lines = stage.account(&streams, Upto::Everything)?;
    report.shown("took", "the runbook took", Unit::Seconds, took.as_secs_f64());
    report.table.push(format!(
        "{:<24} {:<14} {:<6} {:>12} {:>12} {:>10} {:>18}",
        report.scene, "metric", "route", "truth", "received", "lost", "between gateways"
    ));
    for (line, _) in &lines {
        let (name, route) = (line.kind.name, line.route);
        let received: f64 = line.received.iter().sum();
        report.table.push(format!(
            "{:<24} {name:<14} {route:<6} {:>12.3} {received:>12.3} {:>10.3} {:>18.3}",
            "",
            line.truth,
            line.lost(),
            line.gap()
        ));
        let mut judge = |key: &str, what: &str, value: f64| {
            let (key, what) = of(line, key, what);
            report.at_most(&key, what, Unit::Count, value, line.tolerance());
        };
        for (gateway, (counted, received)) in line.counted.iter().zip(&line.received).enumerate() {
            let what = format!("received of gateway {gateway}, difference to what it took");
            judge(&format!("gateway_{gateway}"), &what, (counted - received).abs());
        }
        if clients == Clients::Move {
            let what = "lost, difference to what lies between the gateways";
            judge("unexplained", what, (line.lost() - line.gap()).abs());
        } else {
            judge("lost", "lost", line.lost().abs());
        }
    }
    let all = of_requests(&lines, |line| line.truth);
    let at_gateways =
        of_requests(&lines, |line| line.counted.iter().sum::<f64>() - line.received.iter().sum::<f64>());
    let what = format!("requests lost at gateways, of {all:.0}");
    report.at_most(LOST, what, Unit::Count, at_gateways.abs(), 0.0);
    let what = format!("requests lost between gateways, of {all:.0}");
    report.shown(BETWEEN, what, Unit::Count, of_requests(&lines, Line::gap));
    let fates = stage.traffic.fates();
    let what = "exports without an answer";
    report.at_most("unanswered", what, Unit::Count, fates.unanswered as f64, 0.0);
    report.at_most("refused", "exports that were refused", Unit::Count, fates.refused as f64, 0.0);
    if clients == Clients::Move {
        intervals_between(&streams, &mut report);
        known_streams(stage, &streams, 1, &mut report).await?;
    }
    let flaws = lines.iter().flat_map(|(line, lives)| account::flaws(line.route, lives)).collect();
    report.none_of("flaws", "series that are not well formed", flaws);
    stage.judge_the_rest(&streams, &mut report);
    Ok(report)
}

/// Waits for the end of the first gateway, which somebody else has ended.
async fn ended(stage: &mut Stage) -> anyhow::Result<()> {
    let begin = Instant::now();
    while stage.envoys[0].is_running() {
        ensure!(begin.elapsed() < END_PATIENCE, "the runbook did not end Envoy");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// How long each stream was counted by nobody, in export intervals.
fn intervals_between(streams: &[Stream], report: &mut Report) {
    let (mut sum, mut worst, mut count) = (0.0, 0.0_f64, 0.0);
    for stream in streams.iter().filter(|s| FOLDED.contains(&s.kind)) {
        let last = stream.points.iter().rfind(|point| point.gateway == 0);
        let first = stream.points.iter().find(|point| point.gateway == 1);
        if let (Some(last), Some(first)) = (last, first) {
            let intervals = seconds(first.time_ns - last.time_ns) / INTERVAL.as_secs_f64();
            (sum, worst, count) = (sum + intervals, worst.max(intervals), count + 1.0);
        }
    }
    let what = "export intervals between the gateways, mean";
    report.shown("intervals.mean", what, Unit::Count, sum / count);
    report.shown("intervals.worst", "export intervals between the gateways, worst", Unit::Count, worst);
}

/// Plans pushed in the middle of traffic, a refused one among them: everything goes on as if nothing had happened.
///
/// # Errors
/// A program does not start, or something that must come does not.
pub async fn push(programs: &Programs) -> anyhow::Result<Report> {
    let mut stage = Stage::open(programs, None, 1).await?;
    for version in 2..6 {
        let before = stage.envoys[0].pushes().await?;
        let mut document = plugin(None);
        document["plan"]["version"] = json!(version);
        document["plan"]["limits"] = json!({ "series_max": 1_000 + version });
        if version == 4 {
            document["plan"]["rules"][0]["fold"]["window"] = json!("1ms");
        }
        stage.envoys[0].push(&document.to_string())?;
        while stage.envoys[0].pushes().await? == before {
            sleep(Duration::from_millis(50)).await;
        }
        if version == 3 {
            live(&mut stage, 0, "born-between").await?;
        }
        // More than an export of each pod between any two.
        sleep(INTERVAL + INTERVAL / 2).await;
    }
    stage.settle(0).await?;

    let streams = stage.traffic.streams();
    let mut report = Report::new("push", "pushed");
    // One life of each series, or this is an error.
    let lines = stage.account(&streams, Upto::Everything)?;
    for (line, lives) in &lines {
        let allowed = tolerance(line.kind, line.truth);
        let (key, what) = of(line, "lost", "lost");
        report.at_most(&key, what, Unit::Count, line.lost().abs(), allowed);
        let (key, what) = of(line, "flaws", "flaws");
        report.none_of(&key, what, account::flaws(line.route, lives));
    }
    let (_, refused) = stage.envoys[0].pushes().await?;
    let apart = (refused - 1).abs() as f64;
    report.at_most("plans", "refused plans, difference to 1", Unit::Count, apart, 0.0);
    known_streams(&stage, &streams, 0, &mut report).await?;
    stage.judge_the_rest(&streams, &mut report);
    Ok(report)
}
