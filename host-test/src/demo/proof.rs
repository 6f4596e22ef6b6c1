//! The proof scene: does the shop's dashboard read the same on folded data?
//!
//! In: two roads of the same traffic, what every pod sent and what left Envoy, each into a Prometheus 3 of its own. Out: what `phoenix verify`, the
//! program itself, says about `deploy/grafana/shop.json` and `deploy/prometheus/shop-rules.yml`. Why the sink's copies and not a second upstream: both
//! Prometheuses then hold exactly what was acknowledged, and the demo's totals and its answers are about the same bytes.
//! Refuses: a copy that Prometheus does not take whole; the answers would be about something else.

use super::Options;
use super::stage::INTERVAL;
use crate::envoy::config::project;
use crate::prometheus::{self, Prometheus};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use phoenix_plan::Plan;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
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
/// How long a sample stands. Prometheus' five minutes are twenty intervals of 15 s; here an interval is a second. A folded gauge forgets a silent stream as soon.
const LOOKBACK_INTERVALS: u32 = 20;

/// A Prometheus and what is on its way to it.
struct Road {
    prometheus: Arc<Prometheus>,
    copies: UnboundedSender<Bytes>,
    writer: JoinHandle<anyhow::Result<()>>,
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
            lookback: Some(INTERVAL * LOOKBACK_INTERVALS),
        };
        let prometheus = Arc::new(Prometheus::start(options).await.with_context(|| name.to_owned())?);
        let (copies, arriving) = unbounded_channel();
        let writer = tokio::spawn(write(prometheus.clone(), arriving));
        Ok(Self { prometheus, copies, writer })
    }

    /// Waits until everything is written.
    async fn end(self) -> anyhow::Result<Arc<Prometheus>> {
        let Self { prometheus, copies, writer } = self;
        drop(copies);
        writer.await??;
        Ok(prometheus)
    }
}

/// One request after the other: the order of a stream's points is the order in which they were acknowledged.
async fn write(prometheus: Arc<Prometheus>, mut arriving: UnboundedReceiver<Bytes>) -> anyhow::Result<()> {
    while let Some(body) = arriving.recv().await {
        prometheus.write(body).await?;
    }
    Ok(())
}

impl Proof {
    /// Starts both, where there is a Prometheus 3.
    ///
    /// # Errors
    /// There is one, and it does not start; or there is nobody to ask them.
    pub async fn begin(options: &Options, plan: &Plan) -> anyhow::Result<Option<Self>> {
        let Some(binary) = prometheus::process::find_binary()? else { return Ok(None) };
        let phoenix = options.phoenix.display();
        ensure!(
            options.phoenix.is_file(),
            "no {phoenix}: run `cargo build -p phoenix-control --bin phoenix`"
        );
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

    /// Asks, once nothing is copied any more. `plan` is a file with the plan in force, for the reasons; `begin_ns` and `end_ns` are the ends of the traffic,
    /// Unix nanoseconds.
    ///
    /// # Errors
    /// `phoenix` does not start.
    pub async fn ask(
        self,
        options: &Options,
        plan: &Path,
        (begin_ns, end_ns): (u64, u64),
    ) -> anyhow::Result<Answers> {
        // The program runs in the root of the project, for the names of its files.
        let beside = |name: &str| std::path::absolute(options.json.with_file_name(name));
        let page = options.json.with_file_name("verify.html");
        let mut answers = Answers { text: String::new(), report: Value::Null, page, failures: vec![] };
        let mut asked = Vec::new();
        for (name, road) in [("full", self.full), ("folded", self.folded)] {
            match road.end().await {
                Ok(prometheus) => asked.push(prometheus),
                Err(error) => {
                    answers.failures.push(format!("the {name} Prometheus did not take a copy: {error:#}"))
                }
            }
        }
        if let [full, folded] = asked.as_slice() {
            let report = beside("verify.json")?;
            let mut command = Command::new(&options.phoenix);
            command.args(arguments(full, folded, plan, &When::of(begin_ns, end_ns)));
            command.arg("--json").arg(&report).arg("--html").arg(beside("verify.html")?);
            let output = command.current_dir(project()).output().await.context("phoenix verify")?;
            answers.judge(&output, &report);
        }
        Ok(answers)
    }
}

impl Answers {
    /// Takes down what the program said, and what is wrong with it.
    fn judge(&mut self, output: &Output, report: &Path) {
        self.text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => {}
            Some(1) => self.failures.push("the dashboard does not read the same: see the answers".to_owned()),
            _ => {
                let why = String::from_utf8_lossy(&output.stderr);
                self.failures.push(format!("phoenix verify could not run: {}", why.trim()));
                return;
            }
        }
        let read = std::fs::read(report).map_err(anyhow::Error::from);
        match read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
            Ok(report) => self.report = report,
            Err(error) => self.failures.push(format!("{}: {error:#}", report.display())),
        }
        // An alert that does not fire is empty; a panel or a recording without data proves nothing.
        let silent = self.report["queries"].as_array().into_iter().flatten();
        let silent = silent.filter(|query| query["verdict"] == "no_data" && query["kind"] != "alert");
        self.failures.extend(silent.map(|query| format!("no data on either side: {}", query["place"])));
    }
}

/// What a person reads of it.
pub fn render(answers: Option<&Answers>) -> String {
    let Some(answers) = answers else {
        return "  the dashboard was not asked: no Prometheus 3 at hand; `cargo xtask prometheus` builds one with Go, and the next demo uses it\n".to_owned();
    };
    let mut text = "  The shop's dashboard and rules, asked of a Prometheus with everything that was sent and of one with what left both Envoys:\n\n".to_owned();
    text.extend(answers.text.lines().map(|line| format!("  {}\n", line.trim_end())));
    text + &format!("\n  page: {}\n", answers.page.display())
}

/// The command line after the program's name.
fn arguments(full: &Prometheus, folded: &Prometheus, plan: &Path, when: &When) -> Vec<String> {
    let pairs = [
        ("--full", format!("http://{}", full.address())),
        ("--folded", format!("http://{}", folded.address())),
        ("--plan", plan.display().to_string()),
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
pub(super) struct When {
    /// The last instant, Unix seconds: the end of the traffic.
    pub(super) end_s: u64,
    /// How far back: the last third of the traffic, so that most ranges hold no beginning.
    pub(super) range_s: u64,
    /// `$__rate_interval`: half the traffic. What Grafana would make of exports a second apart, four seconds, shows little but how a sample fell.
    pub(super) rate_interval_s: u64,
}

impl When {
    pub(super) fn of(begin_ns: u64, end_ns: u64) -> Self {
        let (begin_s, end_s) = (begin_ns / SECOND_NS, end_ns / SECOND_NS);
        Self { end_s, range_s: (end_s - begin_s) / 3, rate_interval_s: (end_s - begin_s) / 2 }
    }

    /// `rate` knows nothing of a stream between its last sample and the end of the range, nor between the beginning and its first: it extends what it saw,
    /// by up to an interval at each end. A stream that begins in the range is extended from less, and here many do; one interval more is for them. So
    /// this is what the full side's own answer is worth. Folded series have no such streams among them and are nearer to the truth.
    pub(super) fn tolerance(&self) -> f64 {
        3.0 * INTERVAL.as_secs_f64() / self.rate_interval_s as f64
    }
}
