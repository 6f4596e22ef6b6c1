//! From the first port to the verdict.
//!
//! In: [`Options`]. Out: an [`Outcome`]. One function reads as the run. After the traffic the demo waits until the last window can have closed, and
//! then, at most [`GRACE`] longer, for the verdict to hold: a busy machine is slow, not wrong.

use super::control::Control;
use super::decisions::{self, Decision, Story};
use super::explosion::watch::{self, Look, Watch};
use super::explosion::{self, Ruled, script};
use super::gateways::{Fleet, NODES};
use super::judge::{Verdict, WARM_UP_METRIC, judge};
use super::numbers::{bytes, count};
use super::progress::Line;
use super::proof::{Answers, Proof};
use super::{Options, policy, proof, reports, summary, table};
use crate::envoy::process::Usage;
use crate::shop::client::{Client, Protocol};
use crate::shop::leak::{Leak, LeakConfig, LeakTruth};
use crate::shop::otlp::{metric, number, text};
use crate::shop::run::{Progress, unix_ns};
use crate::shop::{Shop, ShopConfig, Truth};
use crate::sink::{Books, BooksConfig, Sink};
use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Gauge, ResourceMetrics, ScopeMetrics};
use phoenix_plan::Plan;
use prost::Message;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between warm-up and traffic: the module takes streams that were born before it began to watch for baselines, with a margin.
const WARM_UP: Duration = Duration::from_secs(3);
/// Warm-up requests to each Envoy, each on its own connection, so that every worker very likely gets one.
const WARM_UP_REQUESTS: u32 = 16;
/// After a window may close: ticks, the call out, and the scheduling of a busy machine.
const SETTLE: Duration = Duration::from_secs(2);
/// How much longer the verdict may take to hold.
const GRACE: Duration = Duration::from_secs(15);
/// Export interval of a pod. With one second a minute of the demo has as many exports as a quarter of an hour at the usual fifteen, so that a
/// dashboard's ranges hold as many samples as they do in production.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How often the live line is painted.
const FRAME: Duration = Duration::from_millis(250);
/// How often the control host is asked: it decides once a second.
const LOOKS: u64 = 2;
/// Longest wait until both gateways have a plan, and what people declared is in force.
const DECLARED_TIMEOUT: Duration = Duration::from_secs(60);
/// The tenant of all traffic.
const TENANT: &str = "shop";
/// The stats of the module and of its VM.
const STATS: &str = "wasmcustom|wasm_vm|wasm%5C.envoy";

/// What a run ended with.
#[derive(Debug)]
pub struct Outcome {
    /// The judgement.
    pub verdict: Verdict,
    /// What was acknowledged.
    pub truth: Truth,
    /// What was received.
    pub books: Books,
    /// Pods and restarts.
    pub progress: Progress,
    /// CPU time of both Envoys during traffic and after, memory at the end.
    pub usage: Usage,
    /// The module's stats, of both.
    pub stats: BTreeMap<String, i64>,
    /// What the dashboard's queries answered; `None` without a Prometheus.
    pub answers: Option<Answers>,
}

/// Runs the demo and prints it; true if everything holds.
///
/// # Errors
/// It could not run: no Envoy, no module, no port, no disk; a gateway that has no plan in time.
pub async fn run(options: &Options) -> anyhow::Result<bool> {
    let plan = policy::declared()?;
    let books =
        BooksConfig { run_start_ns: unix_ns(), mark: plan.mark_label.clone(), ..BooksConfig::default() };
    let sink = Sink::start(books.clone()).await?;
    let control =
        Control::start(&options.phoenix, &options.module, &options.json.with_file_name("control")).await?;
    let mut fleet = Fleet::start(options, &control, sink.address()).await?;
    greet(options, &control);
    let proof = Proof::begin(options, &plan).await?;
    sink.copy_to(proof.as_ref().map(Proof::folded));
    decisions::wait_until_declared(&control, DECLARED_TIMEOUT).await?;
    warm_up(&fleet).await?;
    let begin_ns = unix_ns();
    let before = fleet.usage()?;
    let scene = script::leak(options, TENANT);
    let stage = Stage { options, control: &control, fleet: &fleet, sink: &sink };
    let dwell = plan.budgets.as_ref().map_or(Duration::ZERO, |it| Duration::from_millis(it.dwell.0));
    let played = traffic(&stage, scene.as_ref(), books, proof.as_ref(), dwell).await?;
    let end_ns = unix_ns();
    let (played, mut verdict) = settle(&stage, played, &plan).await?;
    let Played { truth, progress, mut story, is_short, .. } = played;
    let usage = fleet.usage()?;
    sink.copy_to(None);
    let answers = match proof {
        Some(proof) => {
            let in_force = options.json.with_file_name("plan.json");
            fs::write(&in_force, control.plan(NODES[0]).await?.0.to_string())?;
            let in_force = in_force.canonicalize()?;
            Some(proof.ask(options, &in_force, (begin_ns, end_ns)).await?)
        }
        None => None,
    };
    story.end(&control, &fleet.pushes().await?).await?;
    story.judge(scene.is_some(), !is_short);
    let stats = fleet.stats(STATS).await?;
    fleet.quit().await?;
    match control.end().await? {
        Ok(audit) => story.audit = audit,
        Err(why) => story.failures.push(why),
    }
    verdict.story = Some(story);
    verdict.failures.extend(answers.iter().flat_map(|answers| answers.failures.clone()));
    let outcome = Outcome {
        verdict,
        truth,
        books: sink.books(),
        progress,
        usage: Usage { cpu: usage.cpu.saturating_sub(before.cpu), ..usage },
        stats,
        answers,
    };
    summary::write(options, &outcome)?;
    print(options, &outcome, &fleet);
    Ok(outcome.verdict.holds())
}

/// What is on stage, and how to look at it meanwhile.
fn greet(options: &Options, control: &Control) {
    println!(
        "\n  Phoenix: {} pods → {} Envoys, {} workers each → exact sink; plans from phoenix control, with mutual TLS",
        options.replicas * 8,
        NODES.len(),
        options.workers
    );
    println!("  watch meanwhile: {}", reports::command(options));
    println!("                   {}\n", control.command("decisions"));
}

/// Everything that plays.
struct Stage<'a> {
    options: &'a Options,
    control: &'a Control,
    fleet: &'a Fleet,
    sink: &'a Sink,
}

async fn warm_up(fleet: &Fleet) -> anyhow::Result<()> {
    let point = number(vec![text("by", "demo")], 0, unix_ns(), Value::AsInt(1));
    let gauge = metric(WARM_UP_METRIC, "1", Data::Gauge(Gauge { data_points: vec![point] }));
    let scope_metrics = vec![ScopeMetrics { metrics: vec![gauge], ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec().into();
    for address in fleet.addresses() {
        for _ in 0..WARM_UP_REQUESTS {
            let outcome = Client::new(address, Protocol::Http1, TENANT, 0).export(&body).await;
            ensure!(
                outcome.is_acknowledged,
                "the first request through Envoy was not answered well: {outcome:?}"
            );
        }
    }
    sleep(WARM_UP).await;
    Ok(())
}

/// What was played.
struct Played {
    truth: Truth,
    progress: Progress,
    leak: Option<LeakTruth>,
    /// There was no time to take back what was decided.
    is_short: bool,
    watch: Watch,
    story: Story,
}

async fn traffic(
    stage: &Stage<'_>,
    scene: Option<&LeakConfig>,
    books: BooksConfig,
    proof: Option<&Proof>,
    dwell: Duration,
) -> anyhow::Result<Played> {
    let Stage { options, control, fleet, sink } = *stage;
    let length = Duration::from_secs(options.seconds);
    let shop = ShopConfig {
        seed: options.seed,
        replicas: options.replicas,
        length,
        interval: INTERVAL,
        requests_per_connection: options.requests_per_connection,
        tenant: TENANT.to_owned(),
        ..ShopConfig::default()
    };
    let addresses = fleet.addresses();
    let mut leak = scene.map(|scene| Leak::open(scene, &addresses, books.clone()));
    let mut shop = Shop::open_and_copy(&shop, &addresses, books, proof.map(Proof::full));
    let mut line = Line::new("traffic", options.seconds);
    let mut watch = Watch::default();
    let begin = Instant::now();
    let mut story = Story { begin_ns: unix_ns(), ..Story::default() };
    for frame in 0_u64.. {
        let is_closed = shop.is_closed() && leak.as_mut().is_none_or(Leak::is_closed);
        if story.auto_ns == 0 && begin.elapsed() >= script::acts_from(options) {
            story.auto_ns = unix_ns();
            control.let_it_act()?;
        }
        if frame.is_multiple_of(LOOKS) || is_closed {
            story.look(control).await?;
        }
        let now = shop.progress();
        let resident = fleet.usage().context("Envoy ended in the middle of the run")?.resident_bytes;
        let mut text = format!(
            "{} · {} pods, {} came, {} restarts · points {} → {} · {}",
            if story.auto_ns == 0 { "observe" } else { "auto" },
            now.pods,
            now.born,
            now.restarts,
            count(i128::from(now.points)),
            count(i128::from(sink.points())),
            bytes(resident),
        );
        if let (Some(leak), Some(scene)) = (&leak, scene) {
            look(fleet, &mut watch).await?;
            // Not before the gateways have their shares: a slow machine leaks later, and folds as soon.
            if begin.elapsed() + INTERVAL >= scene.from && story.is_acting() {
                leak.release();
            }
            text += &leaking(leak.users(), watch.last(), &story);
        }
        line.show(begin.elapsed().as_secs().min(options.seconds), &text);
        if is_closed {
            break;
        }
        sleep(FRAME).await;
    }
    line.end();
    let released = leak.as_ref().and_then(Leak::released);
    let decided_ns = story.fold().map(|fold| fold.at_ns.saturating_sub(story.begin_ns));
    let is_due = released.zip(scene).is_some_and(|(released, scene)| {
        let decided = decided_ns.map_or(released, Duration::from_nanos);
        script::is_restoration_due(scene, released, decided, dwell)
    });
    let leak = match leak {
        Some(leak) => Some(leak.close().await),
        None => None,
    };
    let (truth, progress) = shop.close().await;
    story.end_ns = unix_ns();
    Ok(Played { truth, progress, leak, is_short: !is_due, watch, story })
}

/// The leak, for the live line.
fn leaking(users: u64, look: Look, story: &Story) -> String {
    let users = match users {
        0 => return String::new(),
        users => count(i128::from(users)),
    };
    let state = match (story.fold(), story.restoration()) {
        (_, Some(_)) => "decided on, and taken back",
        (Some(_), None) => "decided on",
        _ if look.contained_metrics > 0 => "contained",
        _ => "not contained",
    };
    format!(" · {users} users leaked, {state}")
}

async fn look(fleet: &Fleet, watch: &mut Watch) -> anyhow::Result<()> {
    let stats = fleet.stats(watch::STATS).await?;
    watch.add(Look::of(&stats, unix_ns()));
    Ok(())
}

async fn settle(stage: &Stage<'_>, mut played: Played, plan: &Plan) -> anyhow::Result<(Played, Verdict)> {
    let Stage { control, fleet, sink, .. } = *stage;
    let folds = plan.rules.iter().filter_map(|rule| rule.fold.as_ref());
    let of_budgets = plan.budgets.iter().map(|budgets| budgets.fold.window.0 + budgets.fold.delay.0);
    let longest_ms = folds.map(|fold| fold.window.0 + fold.delay.0).chain(of_budgets).max().unwrap_or(0);
    let wait = Duration::from_millis(longest_ms) + SETTLE;
    let mut line = Line::new("windows", wait.as_secs());
    let begin = Instant::now();
    while begin.elapsed() < wait {
        let text = format!("the last windows close · {} points out", count(i128::from(sink.points())));
        line.show(begin.elapsed().as_secs(), &text);
        sleep(FRAME).await;
    }
    line.end();
    look(fleet, &mut played.watch).await?;
    played.story.look(control).await?;
    let judged = |played: &Played| {
        let books = sink.books();
        let mut verdict = judge(&played.truth, &books, plan, &NODES);
        let ruled = Ruled {
            begin_ns: played.story.begin_ns,
            from_ns: played.story.fold().and_then(Decision::effective_ns),
            until_ns: played.story.restoration().and_then(Decision::effective_ns),
            is_short: played.is_short,
            gateways: NODES.len(),
        };
        let scene = played.leak.as_ref();
        verdict.explosion = scene.map(|leak| explosion::judge(leak, &books, plan, &played.watch, ruled));
        verdict
    };
    let mut verdict = judged(&played);
    let mut points = sink.points();
    while !verdict.holds() && begin.elapsed() < wait + GRACE {
        sleep(FRAME * 2).await;
        if sink.points() != points {
            points = sink.points();
            verdict = judged(&played);
        }
    }
    Ok((played, verdict))
}

fn why_no_leak(options: &Options) -> String {
    match options.leak {
        0 => "`--leak 0`".to_owned(),
        _ => format!("a run of less than {} s has no time to decide about it", script::seconds_min()),
    }
}

fn print(options: &Options, outcome: &Outcome, fleet: &Fleet) {
    println!("\n{}", table::render(&outcome.verdict));
    let exports = outcome.truth.exports;
    println!(
        "\n  {} exports over HTTP/1.1, HTTP/2 and gRPC, plain and gzip · {} retries · {} pods came, {} restarts",
        count(i128::from(exports.acknowledged)),
        exports.retries,
        outcome.progress.born,
        outcome.progress.restarts
    );
    println!(
        "  both Envoys: {:.1} s CPU in {} s, {} resident\n",
        outcome.usage.cpu.as_secs_f64(),
        options.seconds,
        bytes(outcome.usage.resident_bytes)
    );
    match &outcome.verdict.explosion {
        Some(it) => println!("{}", explosion::text::render(it)),
        None => println!("  no label leaked: {}\n", why_no_leak(options)),
    }
    if let Some(story) = &outcome.verdict.story {
        println!("{}", decisions::text::render(story));
    }
    println!("{}\n", table::render_stats(&outcome.stats));
    println!("{}", proof::render(outcome.answers.as_ref()));
    println!("  numbers: {}", options.json.display());
    let failures = outcome.verdict.all_failures();
    if failures.is_empty() {
        println!(
            "  every total is conserved; every folded metric shrank exactly as the policy says{}\n",
            outcome
                .verdict
                .explosion
                .as_ref()
                .map_or("", |_| "; the leak was contained at once, and decided on")
        );
        return;
    }
    println!("  logs of Envoy: {}", fleet.logs().join(", "));
    println!("\n  FAILED, {}:", if failures.len() == 1 { "one reason" } else { "several reasons" });
    for failure in failures {
        println!("  ✗ {failure}");
    }
    println!();
}
