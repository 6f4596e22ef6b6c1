//! The body of a report, as an embedder posts it.
//!
//! Enters: the head of a request and its body. Leaves: the report's bytes, inflated, for whoever takes them: the control host and `phoenix top`. Refuses another type (415: so no
//! page that a browser shows can post here, for it a browser asks leave first), another encoding than gzip, zstd or none (415), more than the format allows, packed or not (413), what
//! does not inflate (400), and who sends too slowly (408).

use crate::otlp::PROTOBUF;
use crate::otlp::frame::gunzip_within;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body;
use phoenix_report::read::BYTES_MAX;
use std::io::Read as _;
use std::time::Duration;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why not: the status of the answer, and field, value and what is allowed.
pub type Refused = (StatusCode, String);

/// Reads and inflates it.
///
/// # Errors
/// See above.
pub async fn read<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let of_type = header("content-type").split(';').next().unwrap_or("").trim();
    if of_type != PROTOBUF && of_type != "application/protobuf" {
        let why = format!("content-type: {of_type:?}; allowed: {PROTOBUF}");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let inflate = match header("content-encoding") {
        "" | "identity" => None,
        "gzip" => Some(gunzip as fn(&[u8]) -> Result<Vec<u8>, Refused>),
        "zstd" => Some(unzstd as fn(&[u8]) -> Result<Vec<u8>, Refused>),
        other => {
            let why = format!("content-encoding: {other:?}; allowed: gzip, zstd, identity");
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
    };
    let body = match tokio::time::timeout(PATIENCE, Limited::new(body, BYTES_MAX).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(error)) => return Err(bad(&error)),
        Err(_) => {
            let why = format!("report: no whole body after {} s; allowed: less", PATIENCE.as_secs());
            return Err((StatusCode::REQUEST_TIMEOUT, why));
        }
    };
    match inflate {
        None => Ok(body),
        // It takes time: not on a thread that others wait for.
        Some(inflate) => tokio::task::spawn_blocking(move || inflate(&body).map(Bytes::from))
            .await
            .unwrap_or_else(|error| Err(bad(&error))),
    }
}

fn gunzip(body: &[u8]) -> Result<Vec<u8>, Refused> {
    gunzip_within(body, BYTES_MAX).map_err(|why| bad(&why))?.ok_or_else(too_large)
}

fn unzstd(body: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut inflated = Vec::new();
    let reader = zstd::stream::read::Decoder::new(body).map_err(|why| bad(&why))?;
    reader.take(BYTES_MAX as u64 + 1).read_to_end(&mut inflated).map_err(|why| bad(&why))?;
    if inflated.len() > BYTES_MAX { Err(too_large()) } else { Ok(inflated) }
}

fn too_large() -> Refused {
    let why = format!("report: more than {BYTES_MAX} bytes; allowed: up to {BYTES_MAX}");
    (StatusCode::PAYLOAD_TOO_LARGE, why)
}

fn bad(why: &impl std::fmt::Display) -> Refused {
    (StatusCode::BAD_REQUEST, format!("report: {why}; allowed: protobuf, as its content-encoding says"))
}
