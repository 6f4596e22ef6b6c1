//! Calls out of the module (`proxy_http_call`): what was asked, and how it ended.
//!
//! Enters: the request a root context dispatched. Leaves: a record the test reads, and the answer the test gives.
//! The kinds of failure are Envoy's: a refused connection, a host that is down and a timeout are *responses* (503 and
//! 504 made by Envoy); only a stream that breaks, or a response too large to buffer, calls back with zero headers.
//! Refuses: an unknown cluster (BadArgument), a request without `:path`, `:method` or `:authority` (BadArgument).

use super::VmId;
use super::headers::Headers;

/// How a cluster of the process treats calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// Calls are recorded and wait for the test.
    Scripted,
    /// `proxy_http_call` returns InternalFailure at once.
    FailsInline,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    /// Waits for an answer.
    Pending,
    /// The callback ran with a response (or there was nobody left to call).
    Answered,
    /// The callback ran with zero headers.
    Failed,
    /// The root context was destroyed: no callback, as in Envoy.
    Cancelled,
}

/// Names one call of a process: its position in the order of dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub usize);

/// One call out.
#[derive(Clone, Debug)]
pub struct Call {
    /// The token the module got; unique in its VM.
    pub token: u32,
    /// The VM that called.
    pub vm: VmId,
    /// The root context that owns the call, also when a stream context made it.
    pub root: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The request's headers, with the `content-length` that Envoy adds.
    pub headers: Headers,
    /// The request's body.
    pub body: Vec<u8>,
    /// The request's trailers.
    pub trailers: Headers,
    /// Milliseconds until Envoy answers 504 itself; 0 is never.
    pub timeout_ms: u32,
    /// Nanoseconds of the virtual clock at dispatch.
    pub at_nanos: u64,
    /// Where it stands.
    pub state: CallState,
}

/// A whole HTTP message: what a test sends and what it sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The headers, pseudo-headers included.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers; `None` when the message ends with its body or headers.
    pub trailers: Option<Headers>,
}

impl Message {
    /// A message with these headers and this body, no trailers.
    pub fn new(headers: impl Into<Headers>, body: impl Into<Vec<u8>>) -> Self {
        Self { headers: headers.into(), body: body.into(), trailers: None }
    }

    /// A response of this status.
    pub fn response(status: u32, body: impl Into<Vec<u8>>) -> Self {
        Self::new([(":status", status.to_string())], body)
    }

    /// The same with trailers.
    pub fn with_trailers(mut self, trailers: impl Into<Headers>) -> Self {
        self.trailers = Some(trailers.into());
        self
    }

    /// The `:status` as a number, if there is one.
    pub fn status(&self) -> Option<u32> {
        self.headers.get(":status")?.parse().ok()
    }
}

/// How the test ends a call.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The upstream answers.
    Response(Message),
    /// No connection: Envoy answers 503 itself.
    Unreachable,
    /// The call's timeout passed: Envoy answers 504 itself.
    Timeout,
    /// The stream broke: the callback runs with zero headers.
    Reset,
}

impl Outcome {
    /// The response the module gets, `None` for a callback with zero headers.
    pub(crate) fn into_response(self) -> Option<Message> {
        match self {
            Self::Response(message) => Some(message),
            Self::Unreachable => {
                Some(local(503, "upstream connect error or disconnect/reset before headers"))
            }
            Self::Timeout => Some(local(504, "upstream request timeout")),
            Self::Reset => None,
        }
    }
}

/// A reply that Envoy makes itself.
pub(crate) fn local(status: u32, text: &str) -> Message {
    let mut message = Message::response(status, text);
    if !text.is_empty() {
        message.headers.add("content-length", text.len().to_string());
        message.headers.add("content-type", "text/plain");
    }
    message
}
