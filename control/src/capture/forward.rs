//! The backend behind a capture.
//!
//! Enters: a request as it came, whole. Leaves: the backend's answer, whole, trailers and all; or an answer in its place that says that there is none. HTTP
//! is spoken as HTTP/1.1 and gRPC as HTTP/2, both in the clear. Refused: URLs of anything else.

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// How long a backend may take: longer than any exporter waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Headers of one connection, which mean nothing on the next, and those that are made anew.
const OF_A_HOP: [HeaderName; 7] = [
    http::header::CONNECTION,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
    http::header::PROXY_AUTHENTICATE,
    http::header::TRAILER,
    http::header::HOST,
    http::header::CONTENT_LENGTH,
];

/// An answer, whole.
pub struct Answer {
    /// Status and headers.
    pub head: http::response::Parts,
    /// Body.
    pub body: Bytes,
    /// Trailers, where gRPC says how it went.
    pub trailers: Option<HeaderMap>,
}

/// The backend.
pub struct Backend {
    url: Uri,
    one: Client<HttpConnector, Full<Bytes>>,
    two: Client<HttpConnector, Full<Bytes>>,
}

/// `http://host:port`, in the clear.
pub fn url(text: &str) -> Result<Uri, String> {
    let refused =
        || "expected a URL such as http://127.0.0.1:4318, without TLS and without a path".to_owned();
    let uri: Uri = text.parse().map_err(|_| refused())?;
    let is_bare = uri.path() == "/" && uri.query().is_none();
    if uri.scheme_str() != Some("http") || uri.authority().is_none() || !is_bare {
        return Err(refused());
    }
    Ok(uri)
}

impl Backend {
    /// A backend that is connected to when it is first needed.
    pub fn new(url: Uri) -> Backend {
        let mut connector = HttpConnector::new();
        // Else a request's last packet waits for an acknowledgement, 40 ms long.
        connector.set_nodelay(true);
        Backend {
            url,
            one: Client::builder(TokioExecutor::new()).build(connector.clone()),
            two: Client::builder(TokioExecutor::new()).http2_only(true).build(connector),
        }
    }

    /// Sends a request on; an error says why there is no answer.
    pub async fn send(&self, head: &Parts, body: Bytes, is_grpc: bool) -> Result<Answer, String> {
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut parts = self.url.clone().into_parts();
        parts.path_and_query = Some(path);
        let uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
        let mut request = http::Request::new(Full::new(body));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = of_the_message(&head.headers);
        let client = if is_grpc {
            *request.version_mut() = Version::HTTP_2;
            &self.two
        } else {
            &self.one
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, async {
            let (head, body) = client.request(request).await.map_err(|error| error.to_string())?.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?;
            let trailers = body.trailers().cloned();
            Ok(Answer { head, body: body.to_bytes(), trailers })
        });
        answer.await.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_TIMEOUT:?}")))
    }
}

impl Answer {
    /// For the sender.
    pub fn relayed(self) -> Response<super::request::Body> {
        let body = Full::new(self.body);
        let body = match self.trailers {
            Some(trailers) => body.with_trailers(async move { Some(Ok(trailers)) }).boxed_unsync(),
            None => body.boxed_unsync(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.head.status;
        *response.headers_mut() = of_the_message(&self.head.headers);
        response
    }
}

fn of_the_message(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in OF_A_HOP {
        kept.remove(name);
    }
    kept.remove("keep-alive");
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, is_good) in [
            ("http://127.0.0.1:4318", true),
            ("http://collector:4317/", true),
            ("https://collector:4317", false),
            ("collector:4317", false),
            ("http://collector/v1/metrics", false),
        ] {
            assert_eq!(url(text).is_ok(), is_good, "{text}");
        }
    }
}
