//! One HTTP stream in a VM: what Envoy's filter manager does between the client, the module and the upstream.
//!
//! Enters: headers, body chunks and trailers of either side, in the order of arrival. Leaves: the same after the
//! module's callbacks, in [`Side::out`]: for the request what the upstream sees, for the response what the client sees.
//!
//! The rules modelled (Envoy's `context.cc` and `filter_manager.cc`): a pause in headers stops everything; a pause in
//! a body buffers, and the next callback sees the whole buffer; a continue sends the whole buffer on; a map can be
//! read and written only in its own callback or while that one is paused, and read in `on_log`; a local reply passes
//! the module's response callbacks unless upstream headers have already been seen.
//! Refuses: a buffer beyond the limit (413 for a request, a reset for a response), parts after the end of a side.

use super::HostError;
use super::calls::{Message, local};
use super::headers::Headers;
use super::vm::{Verdict, Vm};

/// Which half of a stream, as the ABI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request = 0,
    Response = 1,
}

impl Direction {
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Request, Self::Response].into_iter().find(|direction| *direction as u32 == number)
    }
}

/// Names of the callbacks for headers, body and trailers, by direction.
const CALLBACKS: [[&str; 3]; 2] = [
    ["proxy_on_request_headers", "proxy_on_request_body", "proxy_on_request_trailers"],
    ["proxy_on_response_headers", "proxy_on_response_body", "proxy_on_response_trailers"],
];

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client has the whole response.
    Complete,
    /// The stream was reset towards the client after the response had begun.
    Reset,
    /// The client went away.
    Disconnected,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    HeadersStopped,
    Body,
    BodyStopped,
    TrailersStopped,
    Dead,
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// What has passed the module.
    pub out: Message,
    /// The headers have passed.
    pub out_begun: bool,
    /// Everything has passed.
    pub out_complete: bool,
    at: At,
    /// The peer has sent its last part.
    ended: bool,
    headers: Option<Headers>,
    chunk: Option<Vec<u8>>,
    buffered: Option<Vec<u8>>,
    trailers: Option<Headers>,
    /// Body that arrived while the headers were stopped.
    held: Vec<u8>,
    held_trailers: Option<Headers>,
    headers_only: bool,
}

impl Side {
    /// The body bytes that the module may see and change now.
    pub fn body_open(&mut self) -> Option<&mut Vec<u8>> {
        self.buffered.as_mut().or(self.chunk.as_mut())
    }

    fn send_headers(&mut self) {
        self.out.headers = self.headers.take().unwrap_or_default();
        self.out_begun = true;
        self.out_complete = self.headers_only;
        self.at = At::Body;
    }

    fn send_body(&mut self) {
        for part in [self.buffered.take(), self.chunk.take()].into_iter().flatten() {
            self.out.body.extend(part);
        }
        self.at = At::Body;
    }

    fn send_trailers(&mut self) {
        self.send_body();
        self.out.trailers = self.trailers.take();
        self.out_complete = true;
    }
}

/// A stream as the host keeps it, also after its end, so that a test can look at it.
#[derive(Debug, Default)]
pub(crate) struct HttpStream {
    pub request: Side,
    pub response: Side,
    pub end: Option<End>,
    /// The details of a local reply, Envoy's or the module's.
    pub local_reply: Option<String>,
    grpc: bool,
    response_seen: bool,
    logging: bool,
}

impl HttpStream {
    pub fn side_mut(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    /// A header map for reading, by its ABI number (0 to 3).
    pub fn map(&self, kind: u32) -> Option<&Headers> {
        let side = if kind < 2 { &self.request } else { &self.response };
        let (open, sent) = match kind % 2 {
            0 => (side.headers.as_ref(), side.out_begun.then_some(&side.out.headers)),
            _ => (side.trailers.as_ref(), side.out.trailers.as_ref()),
        };
        open.or(sent.filter(|_| self.logging))
    }

    /// A header map for writing, by its ABI number (0 to 3).
    pub fn map_mut(&mut self, kind: u32) -> Option<&mut Headers> {
        if self.logging {
            return None;
        }
        let side = match kind {
            0 | 1 => &mut self.request,
            2 | 3 => &mut self.response,
            _ => return None,
        };
        if kind.is_multiple_of(2) { side.headers.as_mut() } else { side.trailers.as_mut() }
    }
}

impl Vm {
    /// Opens a stream: creates its context and runs the request's headers.
    pub fn open_stream(&mut self, headers: Headers, end: bool) -> Result<u32, (u32, HostError)> {
        let context = self.context_id();
        let grpc = headers.get("content-type").is_some_and(|kind| kind.starts_with("application/grpc"));
        self.store.data_mut().streams.insert(context, HttpStream { grpc, ..HttpStream::default() });
        let opened = match self.serving {
            Some(root) if !self.failed => {
                self.store.data_mut().contexts.insert(context, root);
                self.stream_call(context, "proxy_on_context_create", &[root])
                    .and_then(|_| self.headers_in(context, Direction::Request, headers, end))
            }
            _ => {
                self.fail_stream(context);
                Ok(())
            }
        };
        opened.map(|()| context).map_err(|error| (context, error))
    }

    pub fn headers_in(
        &mut self,
        id: u32,
        direction: Direction,
        map: Headers,
        end: bool,
    ) -> Result<(), HostError> {
        let Some(stream) = self.live(id, direction, &[At::Start])? else { return Ok(()) };
        stream.response_seen |= direction == Direction::Response;
        let side = stream.side_mut(direction);
        (side.ended, side.headers_only) = (end, end);
        let count = map.len() as u32;
        side.headers = Some(map);
        let verdict = self.stream_call(id, CALLBACKS[direction as usize][0], &[count, u32::from(end)])?;
        let side = self.side(id, direction);
        match paused(verdict) {
            true => side.at = At::HeadersStopped,
            false => side.send_headers(),
        }
        self.settle(id)
    }

    pub fn body_in(
        &mut self,
        id: u32,
        direction: Direction,
        bytes: &[u8],
        end: bool,
    ) -> Result<(), HostError> {
        let open = [At::HeadersStopped, At::Body, At::BodyStopped];
        let Some(stream) = self.live(id, direction, &open)? else { return Ok(()) };
        let side = stream.side_mut(direction);
        side.ended = end;
        if side.at == At::HeadersStopped {
            side.held.extend(bytes);
            return Ok(());
        }
        match &mut side.buffered {
            Some(buffered) => buffered.extend(bytes),
            None => side.chunk = Some(bytes.to_vec()),
        }
        let limit = self.body_bytes_max;
        let over = self.side(id, direction).buffered.as_ref().is_some_and(|buffered| buffered.len() > limit);
        let length = self.side(id, direction).body_open().map_or(0, |body| body.len()) as u32;
        let verdict = self.stream_call(id, CALLBACKS[direction as usize][1], &[length, u32::from(end)])?;
        // The module has seen the buffer that is too large before Envoy answers (seen in 1.40).
        if over {
            return self.too_large(id, direction);
        }
        let side = self.side(id, direction);
        match verdict.value {
            _ if verdict.stopped => (side.chunk, side.at) = (None, At::BodyStopped),
            None | Some(0) => {
                side.send_body();
                side.out_complete = end;
            }
            Some(1) => {
                side.buffered = side.buffered.take().or(side.chunk.take());
                side.at = At::BodyStopped;
                if side.buffered.as_ref().is_some_and(|buffered| buffered.len() > limit) {
                    return self.too_large(id, direction);
                }
            }
            Some(other) => return Err(HostError::Misuse(format!("a body callback returned {other}"))),
        }
        self.settle(id)
    }

    pub fn trailers_in(&mut self, id: u32, direction: Direction, map: Headers) -> Result<(), HostError> {
        let open = [At::HeadersStopped, At::Body, At::BodyStopped];
        let Some(stream) = self.live(id, direction, &open)? else { return Ok(()) };
        let side = stream.side_mut(direction);
        side.ended = true;
        if side.at == At::HeadersStopped {
            side.held_trailers = Some(map);
            return Ok(());
        }
        let count = map.len() as u32;
        side.trailers = Some(map);
        let verdict = self.stream_call(id, CALLBACKS[direction as usize][2], &[count])?;
        let side = self.side(id, direction);
        match paused(verdict) {
            true => side.at = At::TrailersStopped,
            false => side.send_trailers(),
        }
        self.settle(id)
    }

    /// `proxy_continue_stream`: sends on what was paused.
    pub fn resume(&mut self, id: u32, direction: Direction) -> Result<(), HostError> {
        let Some(stream) = self.store.data_mut().streams.get_mut(&id) else { return Ok(()) };
        if stream.end.is_some() {
            return Ok(());
        }
        let side = stream.side_mut(direction);
        match side.at {
            At::HeadersStopped => {
                side.send_headers();
                let (body, trailers) = (std::mem::take(&mut side.held), side.held_trailers.take());
                let end = std::mem::replace(&mut side.ended, side.headers_only) && trailers.is_none();
                if !side.headers_only && (!body.is_empty() || end) {
                    self.body_in(id, direction, &body, end)?;
                }
                if let Some(trailers) = trailers {
                    self.trailers_in(id, direction, trailers)?;
                }
            }
            At::BodyStopped => {
                side.send_body();
                side.out_complete = side.ended;
            }
            At::TrailersStopped => side.send_trailers(),
            At::Start | At::Body | At::Dead => {}
        }
        self.settle(id)
    }

    /// Answers a stream in place of the upstream; the module's response callbacks see it unless upstream headers were
    /// seen before. For a gRPC request the answer is HTTP 200 with a gRPC status and no body.
    pub fn local_reply(
        &mut self,
        id: u32,
        status: u32,
        details: &str,
        body: Vec<u8>,
        extra: Headers,
        grpc_status: Option<u32>,
    ) -> Result<(), HostError> {
        let Some(stream) = self.store.data_mut().streams.get_mut(&id) else { return Ok(()) };
        if stream.end.is_some() || stream.local_reply.is_some() {
            return Ok(());
        }
        stream.request.at = At::Dead;
        if stream.response.out_begun {
            return self.reset_stream(id);
        }
        stream.local_reply = Some(details.to_owned());
        let text = String::from_utf8_lossy(&body);
        let mut reply = if stream.grpc {
            grpc_reply(grpc_status.unwrap_or(grpc_of(status)), &text)
        } else {
            local(status, &text)
        };
        if !stream.grpc {
            reply.body = body;
        }
        extra.iter().for_each(|(key, value)| reply.headers.add(key, value));
        if stream.response_seen {
            stream.response.out = reply;
            (stream.response.out_begun, stream.response.out_complete) = (true, true);
            return self.settle(id);
        }
        stream.response = Side::default();
        let end = reply.body.is_empty();
        self.headers_in(id, Direction::Response, reply.headers, end)?;
        if !end {
            self.body_in(id, Direction::Response, &reply.body, true)?;
        }
        Ok(())
    }

    /// Resets the stream towards the client.
    pub fn reset_stream(&mut self, id: u32) -> Result<(), HostError> {
        self.finish(id, End::Reset)
    }

    /// Ends a stream: the access log first, then done, then delete (seen in Envoy 1.40).
    pub fn finish(&mut self, id: u32, end: End) -> Result<(), HostError> {
        let data = self.store.data_mut();
        let Some(stream) = data.streams.get_mut(&id).filter(|stream| stream.end.is_none()) else {
            return Ok(());
        };
        stream.end = Some(end);
        (stream.request.at, stream.response.at) = (At::Dead, At::Dead);
        stream.logging = true;
        let known = data.contexts.contains_key(&id);
        let ran = if known { self.farewell(id) } else { Ok(()) };
        let data = self.store.data_mut();
        data.contexts.remove(&id);
        if let Some(stream) = data.streams.get_mut(&id) {
            stream.logging = false;
        }
        ran?;
        self.run_actions()?;
        self.collect_roots()
    }

    fn farewell(&mut self, id: u32) -> Result<(), HostError> {
        self.invoke("proxy_on_log", id, &[])?;
        if let Some(stream) = self.store.data_mut().streams.get_mut(&id) {
            stream.logging = false;
        }
        self.invoke("proxy_on_done", id, &[])?;
        self.invoke("proxy_on_delete", id, &[])?;
        Ok(())
    }

    /// What a stream of a failed VM gets: 503, or a reset when its response has begun.
    pub fn fail_stream(&mut self, id: u32) {
        let data = self.store.data_mut();
        data.contexts.remove(&id);
        let Some(stream) = data.streams.get_mut(&id).filter(|stream| stream.end.is_none()) else { return };
        (stream.request.at, stream.response.at) = (At::Dead, At::Dead);
        stream.end = Some(End::Reset);
        if !stream.response.out_begun {
            stream.local_reply = Some("wasm_fail_stream".to_owned());
            stream.response.out = if stream.grpc { grpc_reply(grpc_of(503), "") } else { local(503, "") };
            (stream.response.out_begun, stream.response.out_complete) = (true, true);
            stream.end = Some(End::Complete);
        }
    }

    fn side(&mut self, id: u32, direction: Direction) -> &mut Side {
        self.store.data_mut().streams.entry(id).or_default().side_mut(direction)
    }

    /// The stream, if parts may still arrive for it here; an error if the test sends them out of order.
    fn live(
        &mut self,
        id: u32,
        direction: Direction,
        open: &[At],
    ) -> Result<Option<&mut HttpStream>, HostError> {
        if self.failed {
            self.fail_stream(id);
        }
        let stream = self.store.data_mut().streams.get_mut(&id);
        let stream = stream.ok_or_else(|| HostError::Misuse(format!("no stream {id}")))?;
        let side = stream.side_mut(direction);
        if side.at == At::Dead {
            return Ok(None);
        }
        if side.ended || !open.contains(&side.at) {
            return Err(HostError::Misuse(format!(
                "{direction:?} of stream {id} gets a part in state {:?}",
                side.at
            )));
        }
        Ok(Some(stream))
    }

    fn stream_call(&mut self, id: u32, name: &'static str, rest: &[u32]) -> Result<Verdict, HostError> {
        self.invoke(name, id, rest).inspect_err(|_| self.fail_stream(id))
    }

    /// Runs what the callback left behind and ends the stream when the client has everything.
    fn settle(&mut self, id: u32) -> Result<(), HostError> {
        self.run_actions()?;
        match self.store.data().streams.get(&id) {
            Some(stream) if stream.response.out_complete => self.finish(id, End::Complete),
            _ => Ok(()),
        }
    }

    /// Answers a stream whose buffer is over the limit.
    fn too_large(&mut self, id: u32, direction: Direction) -> Result<(), HostError> {
        let side = self.side(id, direction);
        side.buffered = None;
        let (status, details, text) = match direction {
            Direction::Request => (413, "request_payload_too_large", "Payload Too Large"),
            Direction::Response if side.out_begun => return self.reset_stream(id),
            Direction::Response => (500, "response_payload_too_large", "Internal Server Error"),
        };
        self.local_reply(id, status, details, text.as_bytes().to_vec(), Headers::new(), None)
    }
}

fn paused(verdict: Verdict) -> bool {
    verdict.stopped || verdict.value.is_some_and(|value| value != 0)
}

fn grpc_reply(status: u32, text: &str) -> Message {
    let mut headers = Headers::from([(":status", "200"), ("content-type", "application/grpc")]);
    headers.add("grpc-status", status.to_string());
    if !text.is_empty() {
        headers.add("grpc-message", text);
    }
    Message::new(headers, [])
}

/// The gRPC status of an HTTP status (`grpc/common` of Envoy, after the gRPC project's table).
fn grpc_of(status: u32) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
