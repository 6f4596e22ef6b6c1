//! One file to a message and its arrival.
//!
//! Enters: a request on the disk. Leaves: the body as the engine gets it, inflated where it was gzip; the message in it where it can be read; when it arrived. Time
//! never runs backwards here: a request without a time of its own, or with an earlier one, arrives with the one in front of it. Refused: files over the
//! engine's own bound, and times that are none.

use crate::folder::{Request, TIME_MAX_NS};
use crate::otlp::census::newest_ns;
use crate::otlp::frame::{BODY_BYTES_MAX, gunzip, is_gzip};
use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use phoenix_filter::units::UnixNanos;
use prost::Message;
use std::fs::File;
use std::io::Read;

/// A request as it goes into the engine.
pub struct Input {
    /// The body; as it lies on the disk where it is gzip that cannot be inflated.
    pub body: Vec<u8>,
    /// What is in it; none if it cannot be read.
    pub message: Option<ExportMetricsServiceRequest>,
    /// Why it does not even reach the engine.
    pub broken: Option<String>,
    /// When it arrived.
    pub arrived: UnixNanos,
}

/// Where the time stands, and where it came from.
#[derive(Default)]
pub struct Clock {
    now: UnixNanos,
    /// Requests whose arrival was written beside them.
    pub given: u64,
    /// Requests whose arrival was taken from their points.
    pub guessed: u64,
    /// Requests that would have arrived before the one in front of them.
    pub held: u64,
    /// Bodies that were gzip.
    pub gzip: u64,
    /// Bytes of all bodies, as they lie on the disk.
    pub bytes: u64,
}

impl Clock {
    /// Reads a request.
    pub fn read(&mut self, request: &Request) -> Result<Input> {
        let mut raw = Vec::new();
        let name = || request.path.display().to_string();
        let file = File::open(&request.path).with_context(name)?;
        file.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut raw).with_context(name)?;
        self.bytes += raw.len() as u64;
        let (mut body, mut broken) = (raw, None);
        if body.len() > BODY_BYTES_MAX {
            anyhow::bail!("{}: larger than {BODY_BYTES_MAX} bytes, the largest body there is", name());
        }
        if is_gzip(&body) {
            self.gzip += 1;
            match gunzip(&body) {
                Ok(inflated) => body = inflated,
                Err(why) => broken = Some(why),
            }
        }
        let message = match &broken {
            None => ExportMetricsServiceRequest::decode(body.as_slice()).ok(),
            Some(_) => None,
        };
        let arrived = self.arrival(request.arrival_ns()?, message.as_ref());
        Ok(Input { body, message, broken, arrived })
    }

    fn arrival(&mut self, given: Option<u64>, message: Option<&ExportMetricsServiceRequest>) -> UnixNanos {
        let newest = || message.and_then(newest_ns).filter(|time| (1..=TIME_MAX_NS).contains(time));
        let at = match given {
            Some(at) => {
                self.given += 1;
                at
            }
            None => {
                self.guessed += 1;
                newest().unwrap_or(self.now.0)
            }
        };
        self.held += u64::from(at < self.now.0);
        self.now = self.now.max(UnixNanos(at));
        self.now
    }
}
