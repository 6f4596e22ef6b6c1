//! How the control host is watched: structured logs, and traces of the loop.
//!
//! Enters: what the command line says about both. Leaves: every line of the audit log as an event on standard error, for people or as JSON, one object a line; and, where somebody asks for
//! it, each turn of the loop as a trace: `turn` with its stages `collect`, `estimate`, `decide`, `publish`, as OTLP over HTTP. Attributes are numbers and versions: no name that an
//! embedder has sent leaves by this road. Traces go to loopback only, where a collector takes them on with whatever credentials they need; those that cannot be sent are lost,
//! and that is said once a minute.

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// What the spans of the loop are known by.
pub const LOOP: &str = "phoenix::loop";
/// How long a batch of traces may take to be sent.
const SEND_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is said that traces are lost.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// From which level on something is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// What failed.
    Error,
    /// And what was refused.
    Warn,
    /// And what was done.
    #[default]
    Info,
    /// And every turn.
    Debug,
}

/// Logs and traces.
#[derive(Args, Clone, Debug)]
pub struct Wish {
    /// How logs on standard error look.
    #[arg(long, value_enum, default_value_t, env = "PHOENIX_LOG_FORMAT")]
    log_format: Format,
    /// From which level on something is logged.
    #[arg(long, value_enum, default_value_t, env = "PHOENIX_LOG_LEVEL")]
    log_level: Level,
    /// Where traces of the loop go, OTLP over HTTP on loopback (http://127.0.0.1:4318); left out: there are none.
    #[arg(long, value_name = "URL", env = "PHOENIX_OTLP_TRACES")]
    otlp_traces: Option<String>,
}

/// To be ended when all is over, so that the last traces go out.
pub struct Watch(Option<SdkTracerProvider>);

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// An address for traces that is none, or none on loopback.
    pub fn begin(arguments: &Wish) -> Result<Watch> {
        let provider = arguments.otlp_traces.as_deref().map(provider).transpose()?;
        let level = match arguments.log_level {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
        };
        // Of libraries only what went wrong.
        let targets = Targets::new()
            .with_target("phoenix", level)
            .with_target("phoenix_control", level)
            .with_target("phoenix_serve", level)
            .with_default(level.min(LevelFilter::WARN));
        let to_stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let logs = match arguments.log_format {
            Format::Text => {
                let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
                to_stderr.with_ansi(is_terminal).with_target(false).boxed()
            }
            Format::Json => to_stderr.json().flatten_event(true).with_span_list(false).boxed(),
        };
        let traces = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("phoenix-control"))
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_filter(filter_fn(|it| it.is_span() && it.target() == LOOP))
        });
        tracing_subscriber::registry().with(logs.with_filter(targets)).with(traces).try_init()?;
        Ok(Watch(provider))
    }

    /// Sends what there is, and ends. It waits for that, no longer than a batch may take.
    pub fn end(self) {
        if let Some(provider) = self.0 {
            let _ = provider.shutdown_with_timeout(SEND_PATIENCE);
        }
    }
}

fn provider(url: &str) -> Result<SdkTracerProvider> {
    let uri: http::Uri = url.parse().map_err(|why| anyhow!("otlp-traces: {url:?}: {why}; allowed: a URL"))?;
    let is_near = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    ensure!(
        uri.scheme_str() == Some("http") && is_near,
        "otlp-traces: {url:?}; allowed: http:// on localhost, 127.0.0.1 or [::1]"
    );
    let endpoint = match uri.path() {
        "" | "/" => format!("{}/v1/traces", url.trim_end_matches('/')),
        _ => url.to_owned(),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new())
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(SEND_PATIENCE)
        .with_endpoint(endpoint)
        .build()
        .context("otlp-traces")?;
    let resource = Resource::builder()
        .with_service_name("phoenix-control")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Sends batches on the exporter's own thread, where nobody else waits.
#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
    said: Mutex<Option<Instant>>,
}

impl Client {
    fn new() -> Client {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(SEND_PATIENCE))
            .proxy(None)
            .http_status_as_error(false);
        Client { agent: config.max_redirects(0).build().into(), said: Mutex::new(None) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let mut answer = self.agent.run(Request::from_parts(head, &body[..]))?;
        let body = answer.body_mut().read_to_vec()?;
        Ok(answer.map(|_| body.into()))
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        let trouble = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = trouble {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
                *said = Some(Instant::now());
                tracing::warn!(error, "traces are lost");
            }
        }
        answer
    }
}
