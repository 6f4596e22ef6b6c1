//! A right plan and a wrong one, on real Envoys and real Prometheuses: the demo's dashboard and rules read the same under the first, and under the second
//! `phoenix verify` names exactly the queries that changed, with the reason.
//!
//! Twenty minutes of the shop's traffic are sent in seconds, back-dated: windows follow the points (`"clock": "event"`). Needs `PHOENIX_PROMETHEUS`
//! (`cargo xtask prometheus` prints it); without it the test is listed as ignored. What it does not prove: deploys and restarts of pods within the
//! range, which the demo has; the wall clock.

#[path = "verify_plans/roads.rs"]
mod roads;

use bytes::Bytes;
use http::Method;
use libtest_mimic::{Arguments, Failed, Trial};
use phoenix_host_test::envoy::config::project;
use phoenix_host_test::prometheus::Prometheus;
use phoenix_host_test::prometheus::http1::send;
use phoenix_host_test::prometheus::process::find_binary;
use roads::{Road, Roads, travel};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What is asked: the files that the project ships.
const QUERIES: [&str; 2] = ["deploy/grafana/shop.json", "deploy/prometheus/shop-rules.yml"];
/// How far back from the end: by then the slowest counters have begun, and a range of five minutes holds no first sample.
const RANGE: &str = "8m";
/// One export interval in a range of five minutes. Pods draw their traffic anew for each export, and both sides sampled at other instants within an
/// interval: at each end of a range they see another half of one. Delta streams with gaps need most of it.
const TOLERANCE: &str = "5%";
/// On average over an answer that must cancel out, nearly: what does not cancel out is a fault.
const MEAN_MAX: f64 = 0.0125;

/// Longest wait until Prometheus has evaluated every rule once.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `phoenix verify` found.
struct Found {
    output: Output,
    report: Value,
}

impl Found {
    fn text(&self) -> String {
        let (out, err) =
            (String::from_utf8_lossy(&self.output.stdout), String::from_utf8_lossy(&self.output.stderr));
        format!("{out}{err}")
    }

    /// The largest of the mean errors, with its query.
    fn worst_mean(&self) -> (f64, String) {
        let queries = self.report["queries"].as_array().into_iter().flatten();
        let means = queries.filter_map(|query| {
            Some((query["comparison"]["mean_error"].as_f64()?, query["place"].as_str()?.to_owned()))
        });
        means.max_by(|one, other| one.0.total_cmp(&other.0)).unwrap_or((f64::NAN, "no answer".to_owned()))
    }

    /// Place and reasons of every query with one of these verdicts.
    fn with(&self, verdicts: &[&str]) -> Vec<(String, Vec<String>)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let queries = self.report["queries"].as_array().into_iter().flatten();
        let chosen =
            queries.filter(|query| verdicts.contains(&query["verdict"].as_str().unwrap_or_default()));
        chosen
            .map(|query| {
                let reasons = query["reasons"].as_array().into_iter().flatten();
                (text(&query["place"]), reasons.map(text).collect())
            })
            .collect()
    }
}

/// Runs the program as a person does.
fn verify(full: &Prometheus, folded: &Road, end_s: u64, more: &[&str]) -> Result<Found, Failed> {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_phoenix"))
        .args(["verify", "--full", &url(full), "--folded", &url(&folded.prometheus), "--plan"])
        .arg(&folded.plan)
        .args(["--end", &end_s.to_string(), "--range", RANGE, "--step", "15s", "--var", "__rate_interval=5m"])
        .args(["--tolerance", TOLERANCE, "--edge", "15s", "--json"])
        .arg(&report)
        .args(more)
        .arg("--queries")
        .args(QUERIES)
        .current_dir(project())
        .output()?;
    let report = std::fs::read(&report).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(Found { output, report: report.unwrap_or_default() })
}

fn url(prometheus: &Prometheus) -> String {
    format!("http://{}", prometheus.address())
}

/// The verdicts of answers that changed, or that nobody got.
const BAD: [&str; 4] = ["differs", "cannot_be_answered", "cannot_be_read", "cannot_be_run"];

/// The right plan: nothing changes.
fn nothing_changes(full: &Prometheus, road: &Road, end_s: u64) -> Result<(), Failed> {
    let found = verify(full, road, end_s, &[])?;
    println!("the right plan:\n{}", found.text());
    check(found.with(&BAD), &[], "the right plan changes nothing")?;
    ensure(found.output.status.code() == Some(0), "exit status 0")?;
    // Only these are silent: nothing is wrong with the shop.
    let silent: Vec<String> = found.with(&["no_data"]).into_iter().map(|(place, _)| place).collect();
    check(
        silent,
        &["shop-alerts › ShopRouteIsDown", "shop-alerts › ShopNoRequests"].map(str::to_owned),
        "no data",
    )?;
    let (mean, place) = found.worst_mean();
    ensure(mean <= MEAN_MAX, &format!("{place}: {mean} on average"))
}

/// A plan that drops `route`: exactly the queries that ask for routes change, each with its reason.
fn routes_are_gone(full: &Prometheus, road: &Road, end_s: u64) -> Result<(), Failed> {
    let because = |why: &str, places: &[&str]| -> Vec<(String, Vec<String>)> {
        places.iter().map(|&place| (place.to_owned(), vec![format!("{why} http_requests_total")])).collect()
    };
    let groups = "groups by route, which was folded in";
    let rules =
        ["shop-requests › job_route:http_requests:rate5m", "shop-requests › job_route:http_errors:rate5m"];
    let rules = because(groups, &rules);

    let found = verify(full, road, end_s, &[])?;
    println!("the wrong plan:\n{}", found.text());
    let panels = because(groups, &["Web shop › Requests by route › A"]);
    check(found.with(&BAD), &[rules.clone(), panels].concat(), "what groups by route")?;
    ensure(found.output.status.code() == Some(1), "exit status 1")?;

    // Somebody chooses one route on the dashboard.
    let found = verify(full, road, end_s, &["--var", "route=/cart"])?;
    let panels = [
        "Requests by route › A",
        "Requests by status › A",
        "Errors, share of requests › A",
        "Requests in this range › A",
    ];
    let panels = panels.map(|panel| format!("Web shop › {panel}"));
    let panels = because("selects by route, which was folded in", &panels.each_ref().map(String::as_str));
    check(found.with(&BAD), &[rules, panels].concat(), "what selects by route")?;
    ensure(found.output.status.code() == Some(1), "exit status 1")
}

/// The scene.
async fn prove(binary: PathBuf) -> Result<(), Failed> {
    let plugins = [roads::plugin(&[])?, roads::plugin(&["route"])?];
    let Roads { full, roads: [right, wrong], end_s } = travel(&binary, plugins).await?;
    nothing_changes(&full, &right, end_s)?;
    routes_are_gone(&full, &wrong, end_s)?;
    takes_the_rules(&right.prometheus).await
}

/// Prometheus itself loads the rules that the project ships, and evaluates each without an error.
async fn takes_the_rules(prometheus: &Prometheus) -> Result<(), Failed> {
    let file = project().join(QUERIES[1]);
    let shipped = std::fs::read_to_string(&file)?;
    let expected = shipped.lines().filter(|line| {
        line.trim_start().starts_with("- record:") || line.trim_start().starts_with("- alert:")
    });
    let expected = expected.count();
    let config = prometheus.folder().join("prometheus.yml");
    let text = std::fs::read_to_string(&config)?
        .replace("scrape_interval: 1h", "scrape_interval: 1h, evaluation_interval: 1s");
    // Evaluated every second, so that the test need not wait for the shop's half minute.
    let rules = prometheus.folder().join("rules.yml");
    std::fs::write(
        &rules,
        shipped.replace("interval: 30s", "interval: 1s").replace("interval: 1m", "interval: 1s"),
    )?;
    std::fs::write(&config, format!("{text}rule_files: [{:?}]\n", rules.display().to_string()))?;
    let pid = prometheus.pid().ok_or("Prometheus has ended")?.to_string();
    ensure(Command::new("kill").args(["-HUP", &pid]).status()?.success(), "a signal to Prometheus")?;
    let begin = Instant::now();
    loop {
        let (_, answer) =
            send(prometheus.address(), Method::GET, "/api/v1/rules", None, Bytes::new()).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let groups = answer["data"]["groups"].as_array().into_iter().flatten();
        let rules: Vec<&Value> =
            groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
        let healthy = rules.iter().filter(|rule| rule["health"] == "ok").count();
        if healthy == expected && expected > 0 {
            return Ok(());
        }
        let is_ill = rules.iter().any(|rule| rule["health"] == "err") || begin.elapsed() > PATIENCE;
        ensure(!is_ill, &format!("{healthy} of {expected} rules: {answer:#}\n{}", prometheus.log_tail()))?;
        sleep(Duration::from_millis(200)).await;
    }
}

fn check<T: PartialEq + std::fmt::Debug>(found: Vec<T>, expected: &[T], what: &str) -> Result<(), Failed> {
    ensure(found == expected, &format!("{what}: {found:#?} and not {expected:#?}"))
}

fn ensure(holds: bool, what: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed::from(what)) }
}

fn main() {
    let arguments = Arguments::from_args();
    let there = match find_binary() {
        Ok(there) => there,
        Err(error) => panic!("{error:#}"),
    };
    if there.is_none() && !arguments.list {
        println!(
            "no plan is tried against Prometheus: PHOENIX_PROMETHEUS is not set; `cargo xtask prometheus` brings it"
        );
    }
    let is_ignored = there.is_none();
    let scene = move || {
        let binary = there.ok_or("PHOENIX_PROMETHEUS is not set")?;
        tokio::runtime::Runtime::new()?.block_on(prove(binary))
    };
    let trial =
        Trial::test("a_wrong_plan_is_named_and_a_right_one_is_not", scene).with_ignored_flag(is_ignored);
    libtest_mimic::run(&arguments, vec![trial]).exit();
}
