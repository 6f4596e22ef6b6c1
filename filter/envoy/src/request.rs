//! One request: which kind it is, its body buffered and scanned, and what the upstream says to it.
//!
//! ```text
//! headers ─ kind? ─▶ body, buffered ─ scan ─▶ forwarded ─▶ answer ─ accepted? ─▶ records to the owners
//! ```
//!
//! A request keeps the configuration it started with. Whatever goes wrong, the body passes as it came and a counter says why.

use crate::config::Config;
use crate::host::{self, Map};
use crate::peers;
use crate::stats::bump;
use crate::worker::{self, Worker};
use phoenix_filter::body::{BodyError, Framing, Scanned, scan};
use phoenix_filter::flow::Batch;
use phoenix_filter::frame::Encoding;
use phoenix_filter::ledger::Tally;
use phoenix_filter::units::UnixNanos;
use proxy_wasm::hostcalls::send_http_response;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::rc::Rc;

/// A request that this module has to do with.
struct Ours {
    config: Rc<Config>,
    framing: Framing,
    tenant: Vec<u8>,
    sender: Vec<u8>,
}

/// Records that wait for the upstream's answer.
#[derive(Default)]
struct Waiting {
    messages: Vec<(usize, Vec<u8>)>,
    points: u64,
    /// The points went out raw: their records only move baselines.
    carried: bool,
    /// … and there was no room even for those: nothing is remembered.
    forgotten: bool,
}

/// The context of one HTTP stream.
pub struct Request {
    config: Option<Rc<Config>>,
    ours: Option<Ours>,
    buffered: usize,
    waiting: Option<Waiting>,
    grpc: bool,
}

impl Request {
    /// A request that starts under this configuration.
    pub fn new(config: Option<Rc<Config>>) -> Request {
        Request { config, ours: None, buffered: 0, waiting: None, grpc: false }
    }

    /// Somebody asks what this process sees: answered here.
    fn asks_for_report(&self) -> bool {
        let Some(peers) = self.config.as_ref().and_then(|c| c.envoy.peers.as_ref()) else { return false };
        let is = |name, wanted: &[u8]| host::header(Map::RequestHeaders, name).is_some_and(|v| v == wanted);
        is(":path", peers.path.as_bytes()) && is(":method", b"GET")
    }

    /// What kind of request is it? `None`: not ours, and counted as what it is.
    fn kind(&self, w: &mut Worker) -> Option<Ours> {
        let config = self.config.clone()?;
        let header = |name| host::header(Map::RequestHeaders, name);
        let path = header(":path").unwrap_or_default();
        let path = path.split(|b| *b == b'?').next().unwrap_or_default();
        let listed = |list: &[String]| list.iter().any(|p| p.as_bytes() == path);
        let over_http = listed(&config.envoy.paths);
        let post = header(":method").is_some_and(|m| m == b"POST");
        if !post || !(over_http || listed(&config.envoy.grpc_paths)) {
            bump(&mut w.stats.other_requests);
            return None;
        }
        let content_type = header("content-type").unwrap_or_default().to_ascii_lowercase();
        let framing = if !over_http && content_type.starts_with(b"application/grpc") {
            Framing::Grpc(Encoding::of_header(header("grpc-encoding").as_deref()))
        } else if over_http && content_type.starts_with(b"application/x-protobuf") {
            Framing::Plain
        } else {
            let json = over_http && content_type.starts_with(b"application/json");
            bump(if json { &mut w.stats.json_requests } else { &mut w.stats.other_requests });
            return None;
        };
        if header("content-encoding").is_some_and(|e| !e.is_empty() && !e.eq_ignore_ascii_case(b"identity")) {
            bump(&mut w.stats.encoded_requests);
            return None;
        }
        let plan = &config.plan.plan;
        let tenant = plan.tenant.header.as_deref().and_then(header).filter(|t| !t.is_empty());
        let tenant = tenant.unwrap_or_else(|| plan.tenant.default.clone().into_bytes());
        if core::str::from_utf8(&tenant).is_err() {
            // Its emissions could not name it, and would end up with the default tenant.
            bump(&mut w.stats.other_requests);
            return None;
        }
        let sender = plan.sender_header.as_deref().and_then(header).unwrap_or_default();
        Some(Ours { framing, tenant, sender, config })
    }

    /// The whole body is here: scan it, and put the edited one in its place.
    fn scan(&mut self) {
        let Some(ours) = self.ours.take() else { return };
        worker::with(|w| {
            let limit_bytes =
                usize::try_from(ours.config.plan.plan.limits.body_bytes_max).unwrap_or(usize::MAX);
            if self.buffered > limit_bytes {
                bump(&mut w.stats.errors_too_large);
                return;
            }
            if self.buffered == 0 {
                return;
            }
            let Some(body) = host::request_body(self.buffered) else {
                bump(&mut w.stats.bugs);
                return;
            };
            let now_ns = host::now_ns();
            w.meet_owners(now_ns);
            let batch =
                Batch { body: &body, tenant: &ours.tenant, sender: &ours.sender, arrived: UnixNanos(now_ns) };
            match scan(&ours.config.plan, ours.framing, &batch, &mut w.scratch) {
                Ok(scanned) => {
                    w.met(&ours.config.plan, now_ns);
                    self.forward(w, scanned, body.len());
                }
                Err(e) => count_error(w, &e),
            }
        });
    }

    fn forward(&mut self, w: &mut Worker, scanned: Scanned, old_len: usize) {
        let mut tally = scanned.tally;
        let bytes = scanned.messages.iter().fold(0usize, |sum, (_, m)| sum.saturating_add(m.len()));
        let mut carried = !w.has_credit(&scanned.messages) || !w.may_wait(bytes);
        if let Some(edited) = &scanned.body {
            if !carried && !host::replace_request_body(old_len, edited) {
                bump(&mut w.stats.bugs);
                carried = true;
            }
            if carried {
                // Everything goes out raw after all.
                let none = Tally {
                    recorded: 0,
                    contained: 0,
                    watched: 0,
                    unaffine: 0,
                    marked: 0,
                    no_value: 0,
                    ..tally
                };
                tally = Tally { passed: tally.points, ..none };
            }
        }
        if !scanned.messages.is_empty() {
            let points = scanned.tally.recorded;
            let waiting = Waiting { points, carried, forgotten: false, messages: scanned.messages };
            self.wait(w, waiting, bytes);
        }
        w.stats.add_tally(&tally);
    }

    fn wait(&mut self, w: &mut Worker, mut waiting: Waiting, bytes: usize) {
        if waiting.carried && !w.may_wait(bytes) {
            waiting.messages.clear();
            waiting.forgotten = true;
        }
        w.promise(&waiting.messages);
        self.waiting = Some(waiting);
    }

    /// The upstream has spoken, or (`None`) never will.
    fn settle(&mut self, accepted: Option<bool>) {
        let Some(waiting) = self.waiting.take() else { return };
        worker::with(|w| {
            w.keep_promise(&waiting.messages);
            match accepted {
                // What went out raw and was not remembered: no stream may be counted on from before it.
                Some(true) if waiting.forgotten => w.courier.must_rebaseline(),
                Some(true) => {
                    let now_ns = host::now_ns();
                    if let Some(config) = &self.config {
                        for (_, message) in &waiting.messages {
                            w.scratch.accepted(&config.plan, message, waiting.carried, UnixNanos(now_ns));
                        }
                    }
                    w.deliver(waiting.messages, waiting.carried, now_ns);
                }
                Some(false) => {
                    w.stats.upstream_refused = w.stats.upstream_refused.saturating_add(waiting.points);
                }
                None => w.stats.unanswered = w.stats.unanswered.saturating_add(waiting.points),
            }
        });
    }
}

fn count_error(w: &mut Worker, e: &BodyError) {
    bump(match e {
        BodyError::Decode(_) => &mut w.stats.errors_decode,
        BodyError::Frame(_) => &mut w.stats.errors_frame,
        BodyError::Gzip(_) => &mut w.stats.errors_gzip,
        BodyError::Encoding(_) => &mut w.stats.encoded_requests,
        BodyError::TooLarge => &mut w.stats.errors_too_large,
    });
}

/// grpc-status 0? `None` when the map does not say.
fn grpc_status(map: Map) -> Option<bool> {
    host::header(map, "grpc-status").map(|status| status == b"0")
}

impl Context for Request {
    fn on_done(&mut self) -> bool {
        self.settle(None);
        true
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.settle(None);
    }
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        if self.asks_for_report() {
            let (status, body) = match peers::report() {
                Some(report) => (200, report),
                None => (503, b"no report yet".to_vec()),
            };
            let headers = vec![("content-type", "application/x-protobuf")];
            // Envoy refuses only what has been answered already.
            let _ = send_http_response(status, headers, Some(&body));
            return Action::Pause;
        }
        let ours = worker::with(|w| if end_of_stream { None } else { self.kind(w) }).flatten();
        if let Some(ours) = ours {
            self.grpc = matches!(ours.framing, Framing::Grpc(_));
            // The body will change its length. Envoy then frames it by chunks or by HTTP/2.
            host::remove_request_header("content-length");
            self.ours = Some(ours);
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        if self.ours.is_none() {
            return Action::Continue;
        }
        self.buffered = body_size;
        if !end_of_stream {
            return Action::Pause;
        }
        self.scan();
        Action::Continue
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // The end of a stream may come with trailers; then the last piece of the body did not say so.
        self.scan();
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        if self.waiting.is_none() {
            return Action::Continue;
        }
        let status = host::header(Map::ResponseHeaders, ":status").unwrap_or_default();
        let success = status.len() == 3 && status.first() == Some(&b'2');
        if !success || !self.grpc {
            self.settle(Some(success));
        } else if let Some(ok) = grpc_status(Map::ResponseHeaders) {
            // A trailers-only answer: HTTP 200, and the real answer beside it.
            self.settle(Some(ok));
        } else if end_of_stream {
            self.settle(None);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, _: usize, end_of_stream: bool) -> Action {
        if end_of_stream && self.grpc {
            // gRPC without trailers: nobody knows.
            self.settle(None);
        }
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.settle(grpc_status(Map::ResponseTrailers));
        Action::Continue
    }
}
