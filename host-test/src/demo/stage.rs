//! From the first port to the verdict.
//!
//! In: [`Options`]. Out: an [`Outcome`]. One function reads as the run. After the traffic the demo waits until the last window can have closed, and
//! then, at most [`GRACE`] longer, for the verdict to hold: a busy machine is slow, not wrong.

use super::explosion::watch::{self, Look, Watch};
use super::explosion::{self, script};
use super::judge::{Verdict, WARM_UP_METRIC, judge};
use super::numbers::{bytes, count};
use super::progress::Line;
use super::proof::{Answers, Proof};
use super::{Options, proof, reports, summary, table};
use crate::envoy::process::{Usage, find_binary};
use crate::envoy::{Envoy, EnvoyOptions, config};
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
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between warm-up and traffic: the module takes streams that were born before it began to watch for baselines, with a margin.
const WARM_UP: Duration = Duration::from_secs(3);
/// Warm-up requests, each on its own connection, so that every worker very likely gets one.
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
    /// CPU time of Envoy during traffic and after, memory at the end.
    pub usage: Usage,
    /// The module's stats.
    pub stats: BTreeMap<String, i64>,
    /// What the dashboard's queries answered; `None` without a Prometheus.
    pub answers: Option<Answers>,
}

/// Runs the demo and prints it; true if everything holds.
///
/// # Errors
/// Something that is not Phoenix' fault: no Envoy, no module, no port, no disk.
pub async fn run(options: &Options) -> anyhow::Result<bool> {
    let plugin_config = plugin_config()?;
    let plan = plan_of(&plugin_config)?;
    let books =
        BooksConfig { run_start_ns: unix_ns(), mark: plan.mark_label.clone(), ..BooksConfig::default() };
    let sink = Sink::start(books.clone()).await?;
    let settings = EnvoyOptions {
        binary: find_binary()?,
        module: options.module.clone(),
        plugin_config,
        upstream: sink.address(),
        workers: options.workers,
        folder: Some(options.json.with_file_name("envoy")),
        drain_seconds: 5,
    };
    let mut envoy =
        Envoy::start_edited(settings, |yaml| reports::with_cluster(&yaml, options.reports)).await?;
    println!("\n  Phoenix: {} pods → Envoy, {} workers → exact sink", options.replicas * 8, options.workers);
    println!("  watch meanwhile: {}\n", reports::command(options));
    let proof = Proof::begin(options, &plan).await?;
    sink.copy_to(proof.as_ref().map(Proof::folded));
    warm_up(&envoy).await?;
    let begin_ns = unix_ns();
    let before = envoy.usage()?;
    let scene = script::leak(options, TENANT);
    let played = traffic(options, scene.as_ref(), &envoy, &sink, books, proof.as_ref()).await?;
    let end_ns = unix_ns();
    let (played, mut verdict) = settle(played, &envoy, &sink, &plan).await?;
    let Played { truth, progress, .. } = played;
    let usage = envoy.usage()?;
    sink.copy_to(None);
    let answers = match proof {
        Some(proof) => Some(proof.ask(options, begin_ns, end_ns).await?),
        None => None,
    };
    verdict.failures.extend(answers.iter().flat_map(|answers| answers.failures.clone()));
    let outcome = Outcome {
        verdict,
        truth,
        books: sink.books(),
        progress,
        usage: Usage { cpu: usage.cpu.saturating_sub(before.cpu), ..usage },
        stats: envoy.stats(STATS).await?,
        answers,
    };
    envoy.quit().await?;
    summary::write(options, &outcome)?;
    print(options, &outcome, &envoy);
    Ok(outcome.verdict.holds())
}

/// The shop's plan for the demo's pace: windows as long as the export interval, as everywhere; budgets that soon forget.
fn plugin_config() -> anyhow::Result<String> {
    let mut document = config::shop_plugin_config()?;
    let rules = document["plan"]["rules"].as_array_mut().context("envoy/plan/shop.json: no rules")?;
    for fold in rules.iter_mut().filter_map(|rule| rule.get_mut("fold")) {
        fold["window"] = format!("{}ms", INTERVAL.as_millis()).into();
    }
    script::hasten(&mut document["plan"]);
    document["envoy"]["report"] = reports::settings();
    Ok(serde_json::to_string_pretty(&document)?)
}

fn plan_of(plugin_config: &str) -> anyhow::Result<Plan> {
    let document: serde_json::Value = serde_json::from_str(plugin_config)?;
    Plan::parse(document["plan"].to_string().as_bytes())
        .map_err(|error| anyhow::anyhow!("envoy/plan/shop.json: {error}"))
}

async fn warm_up(envoy: &Envoy) -> anyhow::Result<()> {
    let point = number(vec![text("by", "demo")], 0, unix_ns(), Value::AsInt(1));
    let gauge = metric(WARM_UP_METRIC, "1", Data::Gauge(Gauge { data_points: vec![point] }));
    let scope_metrics = vec![ScopeMetrics { metrics: vec![gauge], ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec().into();
    for _ in 0..WARM_UP_REQUESTS {
        let outcome = Client::new(envoy.address(), Protocol::Http1, TENANT, 0).export(&body).await;
        ensure!(
            outcome.is_acknowledged,
            "the first request through Envoy was not answered well: {outcome:?}"
        );
    }
    sleep(WARM_UP).await;
    Ok(())
}

/// What was played.
struct Played {
    truth: Truth,
    progress: Progress,
    leak: Option<LeakTruth>,
    watch: Watch,
}

async fn traffic(
    options: &Options,
    scene: Option<&LeakConfig>,
    envoy: &Envoy,
    sink: &Sink,
    books: BooksConfig,
    proof: Option<&Proof>,
) -> anyhow::Result<Played> {
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
    let mut leak = scene.map(|scene| Leak::open(scene, envoy.address(), books.clone()));
    let mut shop = Shop::open_and_copy(&shop, envoy.address(), books, proof.map(Proof::full));
    let mut line = Line::new("traffic", options.seconds);
    let mut watch = Watch::default();
    let begin = Instant::now();
    loop {
        let is_closed = shop.is_closed() && leak.as_mut().is_none_or(Leak::is_closed);
        let now = shop.progress();
        let resident = envoy.usage().context("Envoy ended in the middle of the run")?.resident_bytes;
        let mut text = format!(
            "{} pods, {} came, {} restarts · points {} → {} · {}",
            now.pods,
            now.born,
            now.restarts,
            count(i128::from(now.points)),
            count(i128::from(sink.points())),
            bytes(resident),
        );
        if let Some(leak) = &leak {
            look(envoy, &mut watch).await?;
            text += &leaking(leak.users(), watch.last());
        }
        line.show(begin.elapsed().as_secs().min(options.seconds), &text);
        if is_closed {
            break;
        }
        sleep(FRAME).await;
    }
    line.end();
    let leak = match leak {
        Some(leak) => Some(leak.close().await),
        None => None,
    };
    let (truth, progress) = shop.close().await;
    Ok(Played { truth, progress, leak, watch })
}

/// The leak, for the live line.
fn leaking(users: u64, look: Look) -> String {
    let users = match users {
        0 => return String::new(),
        users => count(i128::from(users)),
    };
    let state = if look.contained_metrics > 0 { "contained" } else { "not contained" };
    format!(" · {users} users leaked, {state}")
}

async fn look(envoy: &Envoy, watch: &mut Watch) -> anyhow::Result<()> {
    let stats = envoy.stats(watch::STATS).await?;
    watch.add(Look::of(&stats, unix_ns()));
    Ok(())
}

async fn settle(
    mut played: Played,
    envoy: &Envoy,
    sink: &Sink,
    plan: &Plan,
) -> anyhow::Result<(Played, Verdict)> {
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
    look(envoy, &mut played.watch).await?;
    let judged = |played: &Played| {
        let books = sink.books();
        let mut verdict = judge(&played.truth, &books, plan);
        let scene = played.leak.as_ref();
        verdict.explosion = scene.map(|leak| explosion::judge(leak, &books, plan, &played.watch));
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
        _ => format!("a run of less than {} s has no time to forget it", script::seconds_min()),
    }
}

fn print(options: &Options, outcome: &Outcome, envoy: &Envoy) {
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
        "  Envoy: {:.1} s CPU in {} s, {} resident\n",
        outcome.usage.cpu.as_secs_f64(),
        options.seconds,
        bytes(outcome.usage.resident_bytes)
    );
    match &outcome.verdict.explosion {
        Some(it) => println!("{}", explosion::text::render(it)),
        None => println!("  no label leaked: {}\n", why_no_leak(options)),
    }
    println!("{}\n", table::render_stats(&outcome.stats));
    println!("{}", proof::render(outcome.answers.as_ref()));
    println!("  numbers: {}", options.json.display());
    let failures = outcome.verdict.all_failures();
    if failures.is_empty() {
        println!(
            "  every total is conserved; every folded metric shrank exactly as the plan says{}\n",
            outcome.verdict.explosion.as_ref().map_or("", |_| "; the leak was contained and forgotten")
        );
        return;
    }
    println!("  log of Envoy: {}", envoy.folder().join("envoy.log").display());
    println!("\n  FAILED, {}:", if failures.len() == 1 { "one reason" } else { "several reasons" });
    for failure in failures {
        println!("  ✗ {failure}");
    }
    println!();
}
