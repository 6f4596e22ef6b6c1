//! Emissions on their way to the upstream: sent from ticks, answered by Envoy, or silently dropped by it.
//!
//! Which call carries which emission stands here, outside every root context: Envoy cancels the calls of a root context that a push
//! destroys without telling anybody, and a call may lack an answer for other reasons. So each flight has a deadline of its own.

use crate::config::{Config, Emit, GRPC_PATH, HTTP_PATH, Protocol};
use crate::host::{self, Map};
use crate::stats::{Stats, bump};
use phoenix_filter::emit::{Answer, Emission};
use phoenix_filter::frame::{FRAME_HEADER_BYTES, put_frame};
use phoenix_filter::owner::Owner;
use phoenix_filter::units::UnixNanos;
use phoenix_filter::wire::{Field, Fields, Span};
use proxy_wasm::hostcalls::dispatch_http_call;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long after its time-out a call may still be answered. Envoy answers a time-out by itself with 504.
const GRACE_NS: u64 = 2_000_000_000;
/// Calls made in one tick at most; the rest waits for the next. One body a tenant is in flight: at the default tick a thousand
/// tenants are served within four seconds, and a tick still ends soon.
const CALLS_PER_TICK: usize = 64;

/// Of an answer no more is read: it holds a number and perhaps a sentence.
const ANSWER_BYTES_MAX: usize = 4_096;

struct Flight {
    owner: u64,
    sequence: u64,
    root: u32,
    deadline_ns: u64,
    protocol: Protocol,
}

/// Calls without an answer.
#[derive(Default)]
pub struct Sender {
    flights: BTreeMap<u32, Flight>,
}

impl Sender {
    /// Send what an owner has ready. `id` is the owner's, `root` is the root context that is calling: the calls are its.
    pub fn send(
        &mut self,
        id: u64,
        owner: &mut Owner,
        config: &Config,
        root: u32,
        stats: &mut Stats,
        now_ns: u64,
    ) {
        let overdue: Vec<u32> = self
            .flights
            .iter()
            .filter(|(_, f)| f.owner == id && f.deadline_ns < now_ns)
            .map(|(token, _)| *token)
            .collect();
        for token in overdue {
            if let Some(flight) = self.flights.remove(&token) {
                self.settle(owner, flight.sequence, Answer::Unknown, stats, now_ns);
            }
        }
        let emit = &config.envoy.emit;
        for _ in 0..CALLS_PER_TICK {
            let Some(emission) = owner.next_emission(UnixNanos(now_ns)) else { break };
            let sequence = emission.sequence;
            match call(emission, emit, config) {
                Some(token) => {
                    let timeout_ns = emit.timeout.as_nanos();
                    let deadline_ns = now_ns.saturating_add(timeout_ns).saturating_add(GRACE_NS);
                    self.flights.insert(
                        token,
                        Flight { owner: id, sequence, root, deadline_ns, protocol: emit.protocol },
                    );
                }
                None => {
                    self.settle(owner, sequence, Answer::Unknown, stats, now_ns);
                    break;
                }
            }
        }
    }

    /// A call was answered: whose emission was it?
    pub fn answered(&mut self, token: u32) -> Option<(u64, u64)> {
        self.flights.remove(&token).map(|f| (f.owner, f.sequence))
    }

    /// How OTLP is spoken in a call.
    pub fn protocol(&self, token: u32) -> Protocol {
        self.flights.get(&token).map(|f| f.protocol).unwrap_or_default()
    }

    /// Does a root context wait for an answer?
    pub fn waits(&self, root: u32) -> bool {
        self.flights.values().any(|f| f.root == root)
    }

    /// The calls of a root context are gone: whose emissions were they?
    pub fn cancel(&mut self, root: u32) -> Vec<(u64, u64)> {
        let gone: Vec<u32> =
            self.flights.iter().filter(|(_, f)| f.root == root).map(|(token, _)| *token).collect();
        gone.iter().filter_map(|token| self.answered(*token)).collect()
    }

    /// Tell the owner what became of an emission, and count it.
    pub fn settle(&self, owner: &mut Owner, sequence: u64, answer: Answer, stats: &mut Stats, now_ns: u64) {
        bump(match answer {
            Answer::Accepted => &mut stats.emissions,
            Answer::Refused => &mut stats.emissions_refused,
            Answer::Unknown => &mut stats.emission_retries,
        });
        owner.answer(sequence, answer, UnixNanos(now_ns));
    }
}

/// Make the call. `None`: Envoy does not take it now (no such cluster, or nobody there to take it).
fn call(emission: &Emission, emit: &Emit, config: &Config) -> Option<u32> {
    let grpc = emit.protocol == Protocol::Grpc;
    let path = emit.path.as_deref().unwrap_or(if grpc { GRPC_PATH } else { HTTP_PATH });
    let timeout = Duration::from_millis(emit.timeout.as_millis());
    let name = format!("{}", emission.sequence);
    let mut headers = vec![
        (":method", "POST"),
        (":path", path),
        (":authority", emit.authority.as_deref().unwrap_or(&emit.cluster)),
        ("content-type", if grpc { "application/grpc" } else { "application/x-protobuf" }),
        ("x-phoenix-emission", &name),
    ];
    if grpc {
        headers.push(("te", "trailers"));
    }
    let tenant = core::str::from_utf8(&emission.tenant).unwrap_or_default();
    if let Some(header) = config.plan.plan.tenant.header.as_deref()
        && !tenant.is_empty()
    {
        headers.push((header, tenant));
    }
    headers.extend(emit.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    if grpc {
        let mut framed = Vec::new();
        put_frame(&mut framed, &emission.body).ok()?;
        return dispatch_http_call(&emit.cluster, headers, Some(&framed), vec![], timeout).ok();
    }
    dispatch_http_call(&emit.cluster, headers, Some(&emission.body), vec![], timeout).ok()
}

/// What an answer means. Codes as the OTLP specification sorts them into "again" and "never".
pub fn read_answer(protocol: Protocol, num_headers: usize) -> Answer {
    if num_headers == 0 {
        // A reset or a call that was never made: headers cannot even be asked for.
        return Answer::Unknown;
    }
    let status = host::header(Map::CallResponseHeaders, ":status").unwrap_or_default();
    if protocol == Protocol::Grpc && status == b"200" {
        let trailer = host::header(Map::CallResponseTrailers, "grpc-status");
        let code = trailer.or_else(|| host::header(Map::CallResponseHeaders, "grpc-status"));
        // 200 alone says nothing: a proxy's own page says as much.
        return code.map_or(Answer::Unknown, |code| grpc_answer(&code));
    }
    match status.as_slice() {
        [b'2', _, _] if protocol == Protocol::Http => Answer::Accepted,
        b"408" | b"425" | b"429" => Answer::Unknown,
        [b'4', _, _] => Answer::Refused,
        _ => Answer::Unknown,
    }
}

/// Points that an accepted emission's answer says were rejected: `partial_success.rejected_data_points`. They are lost, and the
/// upstream says why in its own logs.
pub fn rejected_points(protocol: Protocol, body_len: usize) -> u64 {
    let body = host::call_response_body(body_len.min(ANSWER_BYTES_MAX)).unwrap_or_default();
    let message = match protocol {
        Protocol::Http => body.as_slice(),
        Protocol::Grpc => body.get(FRAME_HEADER_BYTES..).unwrap_or_default(),
    };
    let partial = field(message, Span::all(message), 1).and_then(|f| f.bytes().ok());
    let rejected = partial.and_then(|span| field(message, span, 1)).and_then(|f| f.varint().ok());
    rejected.unwrap_or(0)
}

fn field(buf: &[u8], span: Span, number: u32) -> Option<Field> {
    let mut fields = Fields::new(buf, span);
    while let Ok(Some(field)) = fields.next() {
        if field.number == number {
            return Some(field);
        }
    }
    None
}

fn grpc_answer(code: &[u8]) -> Answer {
    match code {
        b"0" => Answer::Accepted,
        // CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
        b"1" | b"4" | b"8" | b"10" | b"11" | b"14" | b"15" => Answer::Unknown,
        _ => Answer::Refused,
    }
}
