//! The calls into Envoy, none of which can panic.
//!
//! The SDK's own wrappers panic on any status they do not expect, and a panic in the module kills the worker's VM and every
//! stream in it. Here every call gives a value, `None`/`false`, or the raw status. Only `dispatch_http_call` is the SDK's: it must
//! know the token to find the context again, and it handles every status that Envoy gives.

use phoenix_filter::shared::If;
use std::ptr::{null, null_mut};

/// Where a map of headers or trailers stands; numbers of proxy-wasm 0.2.1.
#[derive(Clone, Copy)]
pub enum Map {
    /// Request headers.
    RequestHeaders = 0,
    /// Response headers.
    ResponseHeaders = 2,
    /// Response trailers.
    ResponseTrailers = 3,
    /// Headers of the answer to a call.
    CallResponseHeaders = 6,
    /// Trailers of the answer to a call.
    CallResponseTrailers = 7,
}

const OK: u32 = 0;
const BUFFER_REQUEST_BODY: u32 = 0;
const BUFFER_CALL_RESPONSE_BODY: u32 = 4;
const BUFFER_PLUGIN_CONFIGURATION: u32 = 7;
const LOG_INFO: u32 = 2;
const LOG_WARN: u32 = 3;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, len: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_done() -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(buffer: u32, start: usize, size: usize, data: *const u8, len: usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_len: usize,
        value: *mut *mut u8,
        value_len: *mut usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_len: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_len: usize,
        value: *mut *mut u8,
        value_len: *mut usize,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_len: usize,
        value: *mut *mut u8,
        value_len: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
        cas: u32,
    ) -> u32;
    fn proxy_register_shared_queue(name: *const u8, name_len: usize, id: *mut u32) -> u32;
    fn proxy_resolve_shared_queue(
        vm_id: *const u8,
        vm_id_len: usize,
        name: *const u8,
        name_len: usize,
        id: *mut u32,
    ) -> u32;
    fn proxy_dequeue_shared_queue(id: u32, data: *mut *mut u8, len: *mut usize) -> u32;
    fn proxy_enqueue_shared_queue(id: u32, data: *const u8, len: usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_len: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
}

/// Take over a buffer that the host allocated through the module's own allocator.
fn owned(data: *mut u8, len: usize) -> Vec<u8> {
    if data.is_null() || len == 0 {
        return Vec::new();
    }
    // SAFETY: the host got `data` from this module's exported `malloc`, which hands out a boxed slice of exactly `len` bytes
    // and forgets it; it is given back once, here.
    unsafe { Vec::from_raw_parts(data, len, len) }
}

fn log(level: u32, message: &str) {
    // SAFETY: pointer and length of a live string.
    unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

/// Say something an operator may want to know.
pub fn info(message: &str) {
    log(LOG_INFO, message);
}

/// Say something an operator should look at.
pub fn warn(message: &str) {
    log(LOG_WARN, message);
}

/// The embedder's clock, Unix nanoseconds.
pub fn now_ns() -> u64 {
    let mut time = 0;
    // SAFETY: a valid place for the result.
    unsafe { proxy_get_current_time_nanoseconds(&mut time) };
    time
}

/// Ask for a tick every `period_ms`.
pub fn set_tick_period(period_ms: u32) {
    // SAFETY: no pointers.
    unsafe { proxy_set_tick_period_milliseconds(period_ms) };
}

/// The root context that is calling, and that had asked to stay for a while, may go.
pub fn done() {
    // SAFETY: no pointers. A context that may go anyway gets a status that says so.
    unsafe { proxy_done() };
}

fn buffer(buffer: u32, len: usize) -> Option<Vec<u8>> {
    let (mut data, mut got) = (null_mut(), 0);
    // SAFETY: valid places for the results.
    let status = unsafe { proxy_get_buffer_bytes(buffer, 0, len, &mut data, &mut got) };
    (status == OK).then(|| owned(data, got))
}

/// The configuration of the plugin.
pub fn plugin_configuration(len: usize) -> Vec<u8> {
    buffer(BUFFER_PLUGIN_CONFIGURATION, len).unwrap_or_default()
}

/// The first `len` bytes of the answer to a call.
pub fn call_response_body(len: usize) -> Option<Vec<u8>> {
    buffer(BUFFER_CALL_RESPONSE_BODY, len)
}

/// The request's body as buffered so far, `len` bytes.
pub fn request_body(len: usize) -> Option<Vec<u8>> {
    buffer(BUFFER_REQUEST_BODY, len)
}

/// Put another body in place of the whole one. Envoy refuses anything but whole replacement.
pub fn replace_request_body(old_len: usize, body: &[u8]) -> bool {
    // SAFETY: pointer and length of a live slice.
    unsafe { proxy_set_buffer_bytes(BUFFER_REQUEST_BODY, 0, old_len, body.as_ptr(), body.len()) == OK }
}

/// A header or trailer; `None` when it is not there.
pub fn header(map: Map, key: &str) -> Option<Vec<u8>> {
    let (mut data, mut len) = (null_mut(), 0);
    // SAFETY: a live string and valid places for the results.
    let status =
        unsafe { proxy_get_header_map_value(map as u32, key.as_ptr(), key.len(), &mut data, &mut len) };
    // An absent header is NotFound in newer hosts and an empty pointer in older ones.
    (status == OK && !data.is_null()).then(|| owned(data, len))
}

/// Take a header away.
pub fn remove_request_header(key: &str) {
    // SAFETY: a live string.
    unsafe { proxy_remove_header_map_value(Map::RequestHeaders as u32, key.as_ptr(), key.len()) };
}

/// A property of the embedder, by its path.
pub fn property(path: &[&str]) -> Option<Vec<u8>> {
    let joined = path.join("\0");
    let (mut data, mut len) = (null_mut(), 0);
    // SAFETY: a live string and valid places for the results.
    let status = unsafe { proxy_get_property(joined.as_ptr(), joined.len(), &mut data, &mut len) };
    (status == OK).then(|| owned(data, len))
}

/// A value in shared data and its compare-and-swap number.
pub fn shared(key: &str) -> Option<(Vec<u8>, u32)> {
    let (mut data, mut len, mut cas) = (null_mut(), 0, 0);
    // SAFETY: a live string and valid places for the results.
    let status = unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), &mut data, &mut len, &mut cas) };
    (status == OK).then(|| (owned(data, len), cas))
}

/// Write a value, if. Envoy checks the number only for keys that exist, and takes 0 for no condition; so a number that is never
/// given out means "only if absent" (numbers count writes from 1).
pub fn set_shared(key: &str, value: &[u8], condition: If) -> bool {
    let cas = match condition {
        If::Always => 0,
        If::Unchanged(cas) => cas,
        If::Absent => u32::MAX,
    };
    // SAFETY: a live string and a live slice.
    unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) == OK }
}

/// Own the queue of this name: its callback comes to the root context that registered last.
pub fn register_queue(name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: a live string and a valid place for the result.
    (unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &mut id) } == OK).then_some(id)
}

/// Find a queue that another worker owns.
pub fn resolve_queue(vm_id: &[u8], name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: live slices and a valid place for the result.
    let status = unsafe {
        proxy_resolve_shared_queue(vm_id.as_ptr(), vm_id.len(), name.as_ptr(), name.len(), &mut id)
    };
    (status == OK).then_some(id)
}

/// Take the oldest message out; `None` when the queue is empty or gone.
pub fn dequeue(queue: u32) -> Option<Vec<u8>> {
    let (mut data, mut len) = (null_mut(), 0);
    // SAFETY: valid places for the results.
    let status = unsafe { proxy_dequeue_shared_queue(queue, &mut data, &mut len) };
    (status == OK).then(|| owned(data, len))
}

/// Append a message.
pub fn enqueue(queue: u32, message: &[u8]) -> bool {
    let data = if message.is_empty() { null() } else { message.as_ptr() };
    // SAFETY: pointer and length of a live slice.
    unsafe { proxy_enqueue_shared_queue(queue, data, message.len()) == OK }
}

/// Define a counter (`gauge` false) or a gauge; its id.
pub fn define_metric(gauge: bool, name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: a live string and a valid place for the result.
    (unsafe { proxy_define_metric(u32::from(gauge), name.as_ptr(), name.len(), &mut id) } == OK).then_some(id)
}

/// Add to a metric. Envoy takes 0 for an error, so nothing is said then.
pub fn increment_metric(id: u32, by: i64) {
    if by != 0 {
        // SAFETY: no pointers.
        unsafe { proxy_increment_metric(id, by) };
    }
}
