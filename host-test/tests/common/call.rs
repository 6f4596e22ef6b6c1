//! Requests made by hand: pieces, framing, trailers, hanging up.
//!
//! In: a [`Call`]. Out: a [`Reply`], or `None` where the peer gave none. One connection a call; nothing is sent twice.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use phoenix_host_test::sink::frame::grpc_frame;
use phoenix_host_test::sink::{GRPC_PATH, HTTP_PATH};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer: well above every time-out of the gateway, so that its answer comes first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1 with `content-length`.
    Http1,
    /// HTTP/1.1 in chunks.
    Chunked,
    /// HTTP/2.
    Http2,
    /// HTTP/2 whose end of stream comes with trailers.
    Http2Trailers,
}

impl Wire {
    /// All of them.
    pub const ALL: [Wire; 4] = [Wire::Http1, Wire::Chunked, Wire::Http2, Wire::Http2Trailers];

    fn is_http2(self) -> bool {
        matches!(self, Wire::Http2 | Wire::Http2Trailers)
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Call {
    /// How it travels.
    pub wire: Wire,
    /// Where to.
    pub path: String,
    /// Headers besides the ones that HTTP itself needs.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The size of its pieces.
    pub piece_bytes: usize,
    /// Give up waiting after this long.
    pub patience: Duration,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Trailers.
    pub trailers: HeaderMap,
}

impl Reply {
    /// grpc-status, wherever it stands.
    pub fn grpc_status(&self) -> Option<&str> {
        let status = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"))?;
        status.to_str().ok()
    }
}

impl Call {
    /// OTLP over HTTP.
    pub fn http(wire: Wire, body: Bytes) -> Call {
        Call {
            wire,
            path: HTTP_PATH.to_owned(),
            headers: vec![("content-type".to_owned(), "application/x-protobuf".to_owned())],
            body,
            piece_bytes: usize::MAX,
            patience: ANSWER_TIMEOUT,
        }
    }

    /// OTLP over gRPC; the body already framed.
    pub fn grpc_raw(body: Bytes) -> Call {
        let mut call = Call::http(Wire::Http2, body);
        call.path = GRPC_PATH.to_owned();
        call.headers = vec![];
        call.with("content-type", "application/grpc").with("te", "trailers")
    }

    /// OTLP over gRPC.
    pub fn grpc(message: &[u8]) -> Call {
        Call::grpc_raw(grpc_frame(message, false))
    }

    /// With a header more, or another value of one.
    pub fn with(mut self, name: &str, value: &str) -> Call {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// To another path.
    pub fn to(mut self, path: &str) -> Call {
        self.path = path.to_owned();
        self
    }

    /// In pieces of so many bytes.
    pub fn in_pieces(mut self, piece_bytes: usize) -> Call {
        self.piece_bytes = piece_bytes;
        self
    }

    /// With less patience.
    pub fn patient_for(mut self, patience: Duration) -> Call {
        self.patience = patience;
        self
    }

    /// Makes the call on a connection of its own.
    pub async fn send(self, address: SocketAddr) -> Option<Reply> {
        let patience = self.patience;
        timeout(patience, self.exchange(address)).await.ok().flatten()
    }

    async fn exchange(self, address: SocketAddr) -> Option<Reply> {
        let stream = TcpStream::connect(address).await.ok()?;
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(stream);
        let request = self.request(address)?;
        let response = if self.wire.is_http2() {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = http1::handshake(io).await.ok()?;
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        reply(response.ok()?).await
    }

    fn request(&self, address: SocketAddr) -> Option<Request<Pieces>> {
        let mut request = Request::post(format!("http://{address}{}", self.path));
        if self.wire.is_http2() {
            request = request.version(Version::HTTP_2);
        } else {
            request = request.header("host", address.to_string());
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let piece_bytes = self.piece_bytes.min(self.body.len()).max(1);
        let starts = (0..self.body.len()).step_by(piece_bytes);
        let pieces = starts.map(|at| Frame::data(self.body.slice(at..self.body.len().min(at + piece_bytes))));
        let mut pieces: VecDeque<_> = pieces.collect();
        if self.wire == Wire::Http2Trailers {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", 7.into());
            pieces.push_back(Frame::trailers(trailers));
        }
        let exact = (self.wire == Wire::Http1).then_some(self.body.len() as u64);
        request.body(Pieces { pieces, exact }).ok()
    }

    /// Sends the head and `sent` bytes of the body over HTTP/1.1 and hangs up; the head promises the whole.
    pub async fn hang_up_after(self, address: SocketAddr, sent: usize) {
        let Ok(mut stream) = TcpStream::connect(address).await else { return };
        let mut head = format!("POST {} HTTP/1.1\r\nhost: {address}\r\n", self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&self.body[..sent.min(self.body.len())]).await;
        let _ = stream.flush().await;
        // Long enough for the bytes to be read, so that it is the body that stays incomplete and not the connection unseen.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn reply(response: Response<Incoming>) -> Option<Reply> {
    let (head, body) = response.into_parts();
    let collected = body.collect().await.ok()?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Some(Reply { status: head.status.as_u16(), headers: head.headers, body: collected.to_bytes(), trailers })
}

/// A body in pieces, of known or unknown length.
struct Pieces {
    pieces: VecDeque<Frame<Bytes>>,
    exact: Option<u64>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
