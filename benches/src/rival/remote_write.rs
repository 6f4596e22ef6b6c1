//! A receiver of remote write that keeps what it gets.
//!
//! In: requests of vmagent's own protocol: the `WriteRequest` of Prometheus remote write 1, compressed with zstd. Out: its samples by series, as
//! [`Samples`], names of metrics as they came. Refuses another encoding and what does not decode, with 400: vmagent then logs and drops it, and a case
//! finds nothing.

use super::read::{Sample, Samples};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

/// The label that holds a metric's name.
const NAME: &str = "__name__";

/// `prometheus.WriteRequest`; its metadata is not read.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp_ms: i64,
}

/// A running receiver. It lives as long as the runtime that it was started in.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    samples: Arc<Mutex<Samples>>,
}

impl Receiver {
    /// Starts it on a free port of the loopback.
    ///
    /// # Errors
    /// No port is to be had.
    pub async fn start() -> anyhow::Result<Receiver> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let samples = Arc::new(Mutex::new(Samples::default()));
        let kept = samples.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let answer = service_fn(move |request| take(request, kept.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(Receiver { address, samples })
    }

    /// A copy of all samples so far.
    pub fn samples(&self) -> Samples {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn take(
    request: Request<Incoming>,
    kept: Arc<Mutex<Samples>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let is_zstd = request.headers().get("content-encoding").is_some_and(|encoding| encoding == "zstd");
    let body = request.into_body().collect().await?.to_bytes();
    let read = is_zstd.then(|| zstd::decode_all(&*body).ok()).flatten();
    let mut response = Response::new(Full::default());
    match read.and_then(|bytes| WriteRequest::decode(&*bytes).ok()) {
        Some(read) => {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            read.timeseries.iter().for_each(|series| keep(series, &mut kept));
        }
        None => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

/// Samples of vmagent's outputs that are sums of an interval are deltas to whoever reads them.
fn keep(series: &TimeSeries, kept: &mut Samples) {
    let name = series.labels.iter().find(|label| label.name == NAME).map_or("", |label| &label.value);
    let mut labels: Vec<String> =
        series.labels.iter().map(|label| format!("{:?}={:?}", label.name, label.value)).collect();
    labels.sort();
    let le = series.labels.iter().find(|label| label.name == "le");
    // A bucket is a metric of its own here, so that each can be asked for.
    let metric = le.map_or_else(|| name.to_owned(), |le| format!("{name}{{{}}}", le.value));
    let is_delta = name.ends_with("_sum_samples");
    for sample in &series.samples {
        let time_ns = u64::try_from(sample.timestamp_ms).unwrap_or(0).saturating_mul(1_000_000);
        let sample = Sample { start_ns: None, time_ns, values: vec![sample.value] };
        kept.add(&metric, &labels.join(","), is_delta, (!sample.values[0].is_nan()).then_some(sample));
    }
}
