//! Answers that a bad backend gives.
//!
//! In: what to do with which of the next requests. Out: one [`Fault`] per request, or none. A fault that refuses leaves the books
//! untouched; one that only loses the answer does not, which is what makes a retry a duplicate.

use http::request::Parts;
use std::fmt;

/// What the sink does instead of answering well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers this HTTP status and books nothing.
    Status(u16),
    /// Answers HTTP 200 with this gRPC status and no body ("trailers-only") and books nothing.
    GrpcStatus(u16),
    /// Answers HTTP 200, an empty message and this gRPC status in the trailers; books nothing.
    GrpcTrailers(u16),
    /// Reads the request and never answers; books nothing.
    Hang,
    /// Reads the request and breaks the connection (HTTP/1.1) or resets the stream (HTTP/2); books nothing.
    Close,
    /// Books the request, then breaks the connection: the answer is lost.
    BookAndClose,
    /// Books the request and never answers.
    BookAndHang,
    /// Books the request and answers success with this many rejected points in `partial_success`.
    Partial(i64),
}

impl Fault {
    /// Whether the request is booked all the same.
    pub fn books(self) -> bool {
        matches!(self, Fault::BookAndClose | Fault::BookAndHang | Fault::Partial(_))
    }
}

type Matcher = Box<dyn Fn(&Parts) -> bool + Send>;

/// The faults to come, in order.
#[derive(Default)]
pub struct FaultPlan {
    entries: Vec<(u64, Fault, Matcher)>,
}

impl FaultPlan {
    /// The next `count` requests that `matches` accepts get `fault`.
    pub fn push(&mut self, count: u64, fault: Fault, matches: impl Fn(&Parts) -> bool + Send + 'static) {
        self.entries.push((count, fault, Box::new(matches)));
    }

    /// The fault of this request.
    pub fn take(&mut self, request: &Parts) -> Option<Fault> {
        let index = self.entries.iter().position(|(count, _, matches)| *count > 0 && matches(request))?;
        let fault = self.entries[index].1;
        self.entries[index].0 -= 1;
        self.entries.retain(|(count, ..)| *count > 0);
        Some(fault)
    }

    /// Faults not yet served.
    pub fn pending(&self) -> u64 {
        self.entries.iter().map(|(count, ..)| count).sum()
    }

    /// Forgets what was not yet served.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

impl fmt::Debug for FaultPlan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.entries.iter().map(|(count, fault, _)| (count, fault))).finish()
    }
}
