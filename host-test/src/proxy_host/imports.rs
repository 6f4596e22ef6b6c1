//! The `env.proxy_*` functions that the host gives to the module.
//!
//! Enters: pointers and lengths in the module's memory. Leaves: a [`Status`] and, through the module's own allocator,
//! bytes. One closure per import, each a line or a few; the state they touch is [`VmData`] and `Shared`.
//! Refuses: ranges outside the memory (InvalidMemoryAccess), anything but `proxy_log` while the module starts or
//! allocates (a trap, as in the reference host). Functions that are not modelled return Unimplemented and are counted.

use wasmtime::{Caller, Linker};

use super::calls::{Call, CallState, Cluster};
use super::headers::Headers;
use super::shared::{MetricKind, Shared, Status};
use super::stream::Direction;
use super::vm::{Action, Timer, VmData};
use super::{LogLevel, LogLine};

/// Why an import did not end with Ok.
pub(crate) enum Fail {
    /// The module gets this status.
    Status(Status),
    /// The module traps.
    Trap(wasmtime::Error),
}

impl From<Status> for Fail {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<wasmtime::Error> for Fail {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

type Answer<T = ()> = Result<T, Fail>;

/// One call of an import: the memory and the state of the calling VM.
struct Host<'a, 'b> {
    caller: &'a mut Caller<'b, VmData>,
}

impl Host<'_, '_> {
    fn data(&mut self) -> &mut VmData {
        self.caller.data_mut()
    }

    fn shared<T>(&mut self, with: impl FnOnce(&mut Shared) -> T) -> T {
        with(&mut self.caller.data().shared.borrow_mut())
    }

    fn read(&mut self, at: u32, length: u32) -> Answer<Vec<u8>> {
        let memory = self.caller.data().memory.ok_or(Status::InvalidMemoryAccess)?;
        let (at, length) = (at as usize, length as usize);
        let bytes = memory.data(&self.caller).get(at..).and_then(|rest| rest.get(..length));
        Ok(bytes.ok_or(Status::InvalidMemoryAccess)?.to_vec())
    }

    fn read_headers(&mut self, at: u32, length: u32) -> Answer<Headers> {
        Ok(Headers::decode(&self.read(at, length)?))
    }

    fn read_text(&mut self, at: u32, length: u32) -> Answer<String> {
        Ok(String::from_utf8_lossy(&self.read(at, length)?).into_owned())
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> Answer {
        let memory = self.caller.data().memory.ok_or(Status::InvalidMemoryAccess)?;
        memory.write(&mut *self.caller, at as usize, bytes).map_err(|_| Status::InvalidMemoryAccess.into())
    }

    fn write_u32(&mut self, at: u32, value: u32) -> Answer {
        self.write(at, &value.to_le_bytes())
    }

    /// Gives bytes to the module: its allocator makes the place; an empty value is a null pointer.
    fn give(&mut self, bytes: &[u8], pointer_at: u32, size_at: u32) -> Answer {
        let mut pointer = 0;
        if !bytes.is_empty() {
            let allocate = self.data().allocate.clone().ok_or(Status::InvalidMemoryAccess)?;
            self.data().restricted = true;
            let allocated = allocate.call(&mut *self.caller, bytes.len() as u32);
            self.data().restricted = false;
            pointer = allocated?;
            if pointer == 0 {
                return Err(Status::InvalidMemoryAccess.into());
            }
            self.write(pointer, bytes)?;
        }
        self.write_u32(pointer_at, pointer)?;
        self.write_u32(size_at, bytes.len() as u32)
    }
}

macro_rules! import {
    ($linker:ident, $name:literal, ($($arg:ident : $ty:ty),*), $body:expr) => {
        $linker.func_wrap(
            "env",
            $name,
            |mut caller: Caller<'_, VmData>, $($arg: $ty),*| -> wasmtime::Result<i32> {
                if caller.data().restricted && $name != "proxy_log" {
                    return Err(wasmtime::Error::msg(concat!($name, " is not allowed while the module starts or allocates")));
                }
                let body: fn(&mut Host<'_, '_>, $($ty),*) -> Answer = $body;
                match body(&mut Host { caller: &mut caller }, $($arg),*) {
                    Ok(()) => Ok(Status::Ok as i32),
                    Err(Fail::Status(status)) => Ok(status as i32),
                    Err(Fail::Trap(error)) => Err(error),
                }
            },
        )?;
    };
}

macro_rules! not_modelled {
    ($linker:ident, $($name:literal ($($arg:ident : $ty:ty),*)),* $(,)?) => {
        $(import!($linker, $name, ($($arg: $ty),*), |host, $($arg),*| {
            let _ = ($($arg,)*);
            host.shared(|shared| *shared.unimplemented.entry($name).or_default() += 1);
            Err(Status::Unimplemented.into())
        });)*
    };
}

/// Defines every import of the ABI 0.2.1 that the Rust SDK 0.2.5 declares, and the few that Envoy has besides.
pub(crate) fn define(linker: &mut Linker<VmData>) -> wasmtime::Result<()> {
    define_basics(linker)?;
    define_shared(linker)?;
    define_metrics(linker)?;
    define_buffers_and_maps(linker)?;
    define_streams(linker)?;
    define_unimplemented(linker)
}

fn define_basics(linker: &mut Linker<VmData>) -> wasmtime::Result<()> {
    import!(linker, "proxy_log", (level: u32, at: u32, length: u32), |host, level, at, length| {
        let text = host.read_text(at, length)?;
        let level = LogLevel::from_number(level).ok_or(Status::BadArgument)?;
        let vm = host.data().id;
        host.shared(|shared| shared.log.push(LogLine { vm, level, text }));
        Ok(())
    });
    import!(linker, "proxy_get_log_level", (level_at: u32), |host, level_at| {
        let level = host.shared(|shared| shared.log_level);
        host.write_u32(level_at, level)
    });
    import!(linker, "proxy_get_current_time_nanoseconds", (time_at: u32), |host, time_at| {
        let now = host.shared(|shared| shared.now_nanos);
        host.write(time_at, &now.to_le_bytes())
    });
    import!(linker, "proxy_set_tick_period_milliseconds", (period_ms: u32), |host, period_ms| {
        let now = host.shared(|shared| shared.now_nanos);
        let root = host.data().root_of_caller();
        let timers = &mut host.data().timers;
        match period_ms {
            0 => timers.remove(&root),
            _ => timers.insert(root, Timer::armed(now, period_ms)),
        };
        Ok(())
    });
    import!(linker, "proxy_get_property", (path: u32, path_size: u32, at: u32, size_at: u32), |host, p, n, at, size_at| {
        let path = host.read(p, n)?;
        let value = host.shared(|shared| shared.properties.get(&path).cloned()).ok_or(Status::NotFound)?;
        host.give(&value, at, size_at)
    });
    import!(linker, "proxy_set_effective_context", (context: u32), |host, context| {
        let data = host.data();
        if context != 0 && !data.contexts.contains_key(&context) {
            return Err(Status::BadArgument.into());
        }
        data.effective = Some(context);
        Ok(())
    });
    import!(linker, "proxy_done", (), |host| {
        let root = host.data().caller_context();
        if !host.data().pending_done.remove(&root) {
            return Err(Status::NotFound.into());
        }
        host.data().actions.push_back(Action::Delete { root });
        Ok(())
    });
    Ok(())
}

fn define_shared(linker: &mut Linker<VmData>) -> wasmtime::Result<()> {
    import!(linker, "proxy_get_shared_data", (key: u32, key_size: u32, at: u32, size_at: u32, cas_at: u32), |host, k, n, at, size_at, cas_at| {
        let key = host.read(k, n)?;
        let (value, cas) = host.shared(|shared| shared.data_get(&key).cloned()).ok_or(Status::NotFound)?;
        host.give(&value, at, size_at)?;
        host.write_u32(cas_at, cas)
    });
    import!(linker, "proxy_set_shared_data", (key: u32, key_size: u32, value: u32, value_size: u32, cas: u32), |host, k, kn, v, vn, cas| {
        let (key, value) = (host.read(k, kn)?, host.read(v, vn)?);
        ended(host.shared(|shared| shared.data_set(&key, &value, cas)))
    });
    import!(linker, "proxy_register_shared_queue", (name: u32, name_size: u32, id_at: u32), |host, n, size, id_at| {
        let name = host.read(n, size)?;
        let (vm, root) = (host.data().id.thread(), host.data().root_of_caller());
        let id = host.shared(|shared| shared.queue_register(&name, vm, root));
        host.write_u32(id_at, id)
    });
    import!(linker, "proxy_resolve_shared_queue", (vm: u32, vm_size: u32, name: u32, name_size: u32, id_at: u32), |host, v, vn, n, nn, id_at| {
        let (vm, name) = (host.read(v, vn)?, host.read(n, nn)?);
        let id = host.shared(|shared| shared.queue_resolve(&vm, &name)).ok_or(Status::NotFound)?;
        host.write_u32(id_at, id)
    });
    import!(linker, "proxy_enqueue_shared_queue", (id: u32, value: u32, size: u32), |host, id, value, size| {
        let message = host.read(value, size)?;
        ended(host.shared(|shared| shared.queue_enqueue(id, &message)))
    });
    import!(linker, "proxy_dequeue_shared_queue", (id: u32, at: u32, size_at: u32), |host, id, at, size_at| {
        let message = host.shared(|shared| shared.queue_dequeue(id))?;
        host.give(&message, at, size_at)
    });
    Ok(())
}

fn define_metrics(linker: &mut Linker<VmData>) -> wasmtime::Result<()> {
    import!(linker, "proxy_define_metric", (kind: u32, name: u32, size: u32, id_at: u32), |host, kind, name, size, id_at| {
        let kind = MetricKind::from_number(kind).ok_or(Status::BadArgument)?;
        let name = host.read_text(name, size)?;
        let id = host.data().metric_define(kind, &name);
        host.write_u32(id_at, id)
    });
    import!(linker, "proxy_increment_metric", (id: u32, offset: i64), |host, id, offset| {
        let (kind, name) = metric(host, id)?;
        ended(host.shared(|shared| shared.metric_increment(kind, &name, offset)))
    });
    import!(linker, "proxy_record_metric", (id: u32, value: u64), |host, id, value| {
        let (kind, name) = metric(host, id)?;
        host.shared(|shared| shared.metric_record(kind, &name, value));
        Ok(())
    });
    import!(linker, "proxy_get_metric", (id: u32, value_at: u32), |host, id, value_at| {
        let (kind, name) = metric(host, id)?;
        if kind == MetricKind::Histogram {
            return Err(Status::BadArgument.into());
        }
        let value = host.shared(|shared| shared.stats.get(&(kind, name)).copied().unwrap_or(0));
        host.write(value_at, &value.to_le_bytes())
    });
    Ok(())
}

fn metric(host: &mut Host<'_, '_>, id: u32) -> Answer<(MetricKind, String)> {
    Ok(host.data().metrics.get(&id).cloned().ok_or(Status::NotFound)?)
}

fn define_buffers_and_maps(linker: &mut Linker<VmData>) -> wasmtime::Result<()> {
    import!(linker, "proxy_get_buffer_bytes", (kind: u32, start: u32, max: u32, at: u32, size_at: u32), |host, kind, start, max, at, size_at| {
        let bytes = host.data().buffer(kind)?;
        let (start, max) = (start as usize, max as usize);
        let part = bytes.get(start..).unwrap_or_default();
        let part = part.get(..max.min(part.len())).unwrap_or_default().to_vec();
        host.give(&part, at, size_at)
    });
    import!(linker, "proxy_get_buffer_status", (kind: u32, length_at: u32, flags_at: u32), |host, kind, length_at, flags_at| {
        let length = host.data().buffer(kind)?.len() as u32;
        host.write_u32(length_at, length)?;
        host.write_u32(flags_at, 0)
    });
    import!(linker, "proxy_set_buffer_bytes", (kind: u32, start: u32, size: u32, value: u32, value_size: u32), |host, kind, start, size, v, vn| {
        let value = host.read(v, vn)?;
        let body = host.data().body_mut(kind)?;
        match (start as usize, size as usize) {
            // Envoy 1.40 drops `size` bytes at the front and puts the value there: 0 prepends, all replaces.
            (0, size) => drop(body.splice(..size.min(body.len()), value)),
            (start, _) if start > 0 && start >= body.len() => body.extend(value),
            _ => return Err(Status::BadArgument.into()),
        }
        Ok(())
    });
    import!(linker, "proxy_get_header_map_pairs", (kind: u32, at: u32, size_at: u32), |host, kind, at, size_at| {
        let pairs = host.data().headers(kind)?.map(|map| map.encode());
        let none = Headers::new().encode();
        host.give(&pairs.filter(|pairs| *pairs != none).unwrap_or_default(), at, size_at)
    });
    import!(linker, "proxy_get_header_map_size", (kind: u32, size_at: u32), |host, kind, size_at| {
        let size = host.data().headers(kind)?.ok_or(Status::BadArgument)?.byte_size() as u32;
        host.write_u32(size_at, size)
    });
    import!(linker, "proxy_set_header_map_pairs", (kind: u32, map: u32, size: u32), |host, kind, map, size| {
        let pairs = host.read_headers(map, size)?;
        *host.data().headers_mut(kind)? = pairs;
        Ok(())
    });
    import!(linker, "proxy_get_header_map_value", (kind: u32, key: u32, size: u32, at: u32, size_at: u32), |host, kind, key, size, at, size_at| {
        let key = host.read_text(key, size)?;
        let map = host.data().headers(kind)?.ok_or(Status::BadArgument)?;
        let value = map.get_bytes(&key).ok_or(Status::NotFound)?.to_vec();
        host.give(&value, at, size_at)
    });
    import!(linker, "proxy_add_header_map_value", (kind: u32, key: u32, size: u32, value: u32, value_size: u32), |host, kind, k, kn, v, vn| {
        let (key, value) = (host.read_text(k, kn)?, host.read(v, vn)?);
        host.data().headers_mut(kind)?.add(&key, value);
        Ok(())
    });
    import!(linker, "proxy_replace_header_map_value", (kind: u32, key: u32, size: u32, value: u32, value_size: u32), |host, kind, k, kn, v, vn| {
        let (key, value) = (host.read_text(k, kn)?, host.read(v, vn)?);
        host.data().headers_mut(kind)?.replace(&key, value);
        Ok(())
    });
    import!(linker, "proxy_remove_header_map_value", (kind: u32, key: u32, size: u32), |host, kind, k, kn| {
        let key = host.read_text(k, kn)?;
        host.data().headers_mut(kind)?.remove(&key);
        Ok(())
    });
    Ok(())
}

fn define_streams(linker: &mut Linker<VmData>) -> wasmtime::Result<()> {
    import!(linker, "proxy_continue_stream", (kind: u32), |host, kind| {
        let direction = Direction::from_number(kind).ok_or(Status::BadArgument)?;
        let context = host.data().caller_context();
        host.data().actions.push_back(Action::Continue { context, direction });
        Ok(())
    });
    import!(linker, "proxy_close_stream", (kind: u32), |host, kind| {
        Direction::from_number(kind).ok_or(Status::BadArgument)?;
        let context = host.data().caller_context();
        host.data().actions.push_back(Action::Close { context });
        Ok(())
    });
    import!(linker, "proxy_send_local_response", (status: u32, d: u32, dn: u32, b: u32, bn: u32, h: u32, hn: u32, grpc_status: i32), |host, status, d, dn, b, bn, h, hn, grpc_status| {
        let details = host.read_text(d, dn)?;
        let (body, headers) = (host.read(b, bn)?, host.read_headers(h, hn)?);
        let context = host.data().caller_context();
        let grpc_status = u32::try_from(grpc_status).ok();
        host.data().stop_iteration = true;
        host.data().actions.push_back(Action::LocalReply { context, status, details, body, headers, grpc_status });
        Ok(())
    });
    import!(linker, "proxy_http_call", (c: u32, cn: u32, h: u32, hn: u32, b: u32, bn: u32, t: u32, tn: u32, timeout_ms: u32, token_at: u32), |host, c, cn, h, hn, b, bn, t, tn, timeout_ms, token_at| {
        let cluster = host.read_text(c, cn)?;
        let (mut headers, body) = (host.read_headers(h, hn)?, host.read(b, bn)?);
        let trailers = host.read_headers(t, tn)?;
        host.write_u32(token_at, 0)?;
        let known = host.shared(|shared| shared.clusters.get(&cluster).copied()).ok_or(Status::BadArgument)?;
        let complete = [":path", ":method", ":authority"].iter().all(|name| headers.get_bytes(name).is_some());
        if !complete || i32::try_from(timeout_ms).is_err() {
            return Err(Status::BadArgument.into());
        }
        if known == Cluster::FailsInline {
            return Err(Status::InternalFailure.into());
        }
        if !body.is_empty() {
            headers.replace("content-length", body.len().to_string());
        }
        let (vm, root, token) = (host.data().id, host.data().root_of_caller(), host.data().call_token());
        host.shared(|shared| {
            let (at_nanos, state) = (shared.now_nanos, CallState::Pending);
            shared.calls.push(Call { token, vm, root, cluster, headers, body, trailers, timeout_ms, at_nanos, state });
        });
        host.write_u32(token_at, token)
    });
    Ok(())
}

fn define_unimplemented(linker: &mut Linker<VmData>) -> wasmtime::Result<()> {
    not_modelled!(
        linker,
        "proxy_set_property"(a: u32, b: u32, c: u32, d: u32),
        "proxy_call_foreign_function"(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32),
        "proxy_get_status"(a: u32, b: u32, c: u32),
        "proxy_grpc_call"(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32, j: u32, k: u32, l: u32),
        "proxy_grpc_stream"(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32),
        "proxy_grpc_send"(a: u32, b: u32, c: u32, d: u32),
        "proxy_grpc_cancel"(a: u32),
        "proxy_grpc_close"(a: u32),
    );
    Ok(())
}

fn ended(status: Status) -> Answer {
    match status {
        Status::Ok => Ok(()),
        other => Err(other.into()),
    }
}
