//! The proof scene: does the shop's dashboard read the same on folded data?
//!
//! In: two roads of the same traffic, what every pod sent and what left Envoy, each into a Prometheus 3 of its own. Out: what `phoenix verify`, the
//! program itself, says about `deploy/grafana/shop.json` and `deploy/prometheus/shop-rules.yml`. Why the sink's copies and not a second upstream: both
//! Prometheuses then hold exactly what was acknowledged, and the demo's totals and its answers are about the same bytes.
//! Refuses: a copy that Prometheus does not take whole; the answers would be about something else.

use super::Options;
use super::stage::INTERVAL;
use crate::prometheus::{self, Prometheus};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use phoenix_plan::Plan;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// What both Prometheuses are told besides. The shop has delta metrics, which Prometheus takes only where it makes them cumulative. And every pod is born
/// on stage: without the zero at the start of a stream, the full side would miss what each stream counted before its first export, which a fold
/// does count (docs/demo.md has the numbers).
const FEATURES: [&str; 2] = ["otlp-deltatocumulative", "created-timestamp-zero-ingestion"];
/// How much older than the newest sample one may be: longer than any window + delay, and than a whole demo in a check.
const OUT_OF_ORDER_WINDOW: Duration = Duration::from_secs(600);
const SECOND_NS: u64 = 1_000_000_000;
/// What is asked, from the root of the project.
pub const QUERIES: [&str; 2] = ["deploy/grafana/shop.json", "deploy/prometheus/shop-rules.yml"];
/// The plan, for the reasons; the configuration around it is understood too.
const PLAN: &str = "envoy/plan/shop.json";

/// A Prometheus and what is on its way to it.
struct Road {
    prometheus: Arc<Prometheus>,
    copies: UnboundedSender<Bytes>,
    writer: JoinHandle<anyhow::Result<u64>>,
}

/// Two Prometheuses that are being filled.
pub struct Proof {
    full: Road,
    folded: Road,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Answers {
    /// What `phoenix verify` printed.
    pub text: String,
    /// Its report.
    pub report: Value,
    /// The page.
    pub page: PathBuf,
    /// What is wrong; empty is good.
    pub failures: Vec<String>,
}

impl Road {
    async fn open(name: &str, binary: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let options = prometheus::Options {
            binary: binary.to_path_buf(),
            out_of_order_window: OUT_OF_ORDER_WINDOW,
            promote_resource_attributes: plan.promoted_resource_attributes.clone().unwrap_or_default(),
            has_remote_write: false,
            features: FEATURES.map(str::to_owned).to_vec(),
        };
        let prometheus = Arc::new(Prometheus::start(options).await.with_context(|| name.to_owned())?);
        let (copies, arriving) = unbounded_channel();
        let writer = tokio::spawn(write(prometheus.clone(), arriving));
        Ok(Self { prometheus, copies, writer })
    }

    /// Waits until everything is written; how many requests that were.
    async fn end(self) -> anyhow::Result<(Arc<Prometheus>, u64)> {
        let Self { prometheus, copies, writer } = self;
        drop(copies);
        let written = writer.await??;
        Ok((prometheus, written))
    }
}

/// One request after the other: the order of a stream's points is the order in which they were acknowledged.
async fn write(prometheus: Arc<Prometheus>, mut arriving: UnboundedReceiver<Bytes>) -> anyhow::Result<u64> {
    let mut written = 0;
    while let Some(body) = arriving.recv().await {
        prometheus.write(body).await?;
        written += 1;
    }
    Ok(written)
}

impl Proof {
    /// Starts both, where there is a Prometheus 3.
    ///
    /// # Errors
    /// There is one, and it does not start.
    pub async fn begin(plan: &Plan) -> anyhow::Result<Option<Self>> {
        let Some(binary) = prometheus::process::find_binary()? else { return Ok(None) };
        let full = Road::open("the full Prometheus", &binary, plan).await?;
        let folded = Road::open("the folded Prometheus", &binary, plan).await?;
        Ok(Some(Self { full, folded }))
    }

    /// Where copies of what pods sent go.
    pub fn full(&self) -> UnboundedSender<Bytes> {
        self.full.copies.clone()
    }

    /// Where copies of what left Envoy go.
    pub fn folded(&self) -> UnboundedSender<Bytes> {
        self.folded.copies.clone()
    }

    /// Asks, once nothing is copied any more. `begin_ns` and `end_ns` are the ends of the traffic, Unix nanoseconds.
    ///
    /// # Errors
    /// `phoenix` is not there or cannot write its report.
    pub async fn ask(self, options: &Options, begin_ns: u64, end_ns: u64) -> anyhow::Result<Answers> {
        let page = options.json.with_file_name("verify.html");
        let report = options.json.with_file_name("verify.json");
        let mut failures = Vec::new();
        let mut urls = Vec::<String>::new();
        let mut alive = Vec::new();
        for (name, road) in [("full", self.full), ("folded", self.folded)] {
            match road.end().await {
                Ok((prometheus, _)) => {
                    urls.push(format!("http://{}", prometheus.address()));
                    alive.push(prometheus);
                }
                Err(error) => failures.push(format!("the {name} Prometheus did not take a copy: {error:#}")),
            }
        }
        let [full, folded] = urls.as_slice() else {
            return Ok(Answers { text: String::new(), report: Value::Null, page, failures });
        };
        let arguments = arguments(full, folded, begin_ns, end_ns);
        let output = Command::new(&options.phoenix)
            .args(arguments)
            .arg("--json")
            .arg(&report)
            .arg("--html")
            .arg(&page)
            .current_dir(crate::envoy::config::project())
            .output()
            .await
            .with_context(|| format!("run {}", options.phoenix.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => {}
            Some(1) => {
                failures.push("the dashboard does not read the same: see the answers above".to_owned())
            }
            _ => bail!("phoenix verify: {}{text}", String::from_utf8_lossy(&output.stderr)),
        }
        let report = serde_json::from_slice(&std::fs::read(&report)?)?;
        Ok(Answers { text, report, page, failures })
    }
}

/// What a person reads of it.
pub fn render(answers: Option<&Answers>) -> String {
    let Some(answers) = answers else {
        return "  the dashboard was not asked: no Prometheus 3 at hand; `cargo xtask prometheus` builds one with Go, and the next demo uses it\n".to_owned();
    };
    let mut text = "  The shop's dashboard and rules, asked of a Prometheus with everything that was sent and of one with what left Envoy:\n\n".to_owned();
    text.extend(answers.text.lines().map(|line| format!("  {}\n", line.trim_end())));
    text + &format!("\n  page: {}\n", answers.page.display())
}

/// The command line after the program's name.
fn arguments(full: &str, folded: &str, begin_ns: u64, end_ns: u64) -> Vec<String> {
    let when = When::of(begin_ns, end_ns);
    let pairs = [
        ("--full", full.to_owned()),
        ("--folded", folded.to_owned()),
        ("--plan", PLAN.to_owned()),
        ("--end", when.end_s.to_string()),
        ("--range", format!("{}s", when.range_s)),
        ("--step", format!("{}s", INTERVAL.as_secs())),
        ("--edge", format!("{}s", INTERVAL.as_secs())),
        ("--scrape-interval", format!("{}s", INTERVAL.as_secs())),
        ("--var", format!("__rate_interval={}s", when.rate_interval_s)),
        ("--tolerance", when.tolerance().to_string()),
    ];
    let mut words = vec!["verify".to_owned()];
    words.extend(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    words.push("--queries".to_owned());
    words.extend(QUERIES.map(str::to_owned));
    words
}

/// When is asked, and how exactly an answer can be known then.
struct When {
    /// The last instant, Unix seconds: the end of the traffic.
    end_s: u64,
    /// How far back: the last third of the traffic, so that most ranges hold no beginning.
    range_s: u64,
    /// `$__rate_interval`: half the traffic. What Grafana would make of exports a second apart, four seconds, shows little but how a sample fell.
    rate_interval_s: u64,
}

impl When {
    fn of(begin_ns: u64, end_ns: u64) -> Self {
        let (begin_s, end_s) = (begin_ns / SECOND_NS, end_ns / SECOND_NS);
        Self { end_s, range_s: (end_s - begin_s) / 3, rate_interval_s: (end_s - begin_s) / 2 }
    }

    /// `rate` knows nothing of a stream between its last sample and the end of the range, nor between the beginning and its first: it extends what it saw,
    /// by up to an interval at each end. A stream that begins in the range is extended from less, and here many do; one interval more is for them. So
    /// this is what the full side's own answer is worth. Folded series have no such streams among them and are nearer to the truth.
    fn tolerance(&self) -> f64 {
        3.0 * INTERVAL.as_secs_f64() / self.rate_interval_s as f64
    }
}
