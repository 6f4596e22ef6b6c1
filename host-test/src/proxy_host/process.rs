//! One embedder process: a main thread, workers, and everything they share, driven step by step by a test.
//!
//! Enters: configuration pushes, the parts of streams, answers of upstreams, the passing of time. Leaves: what the
//! upstream and the client see, the calls out, metrics and log. Each method runs the callbacks that Envoy would run
//! and returns when the module is idle again, so that every interleaving is written down in the test.
//! Refuses: what Envoy refuses (with its statuses), and misuse by the test (an error). A trap is an error everywhere.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use wasmtime::InstancePre;

use super::calls::{Call, CallId, CallState, Cluster, Message, Outcome};
use super::clock::{Order, START_NANOS};
use super::headers::Headers;
use super::module::Module;
use super::shared::{QueueReady, Shared};
use super::stream::{Direction, End, HttpStream};
use super::vm::{Vm, VmData, VmLimits};
use super::{HostError, VmId};

/// When queue callbacks run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// At the end of every step.
    #[default]
    Automatic,
    /// Only when the test calls [`Process::deliver`].
    Manual,
}

/// How a process is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads.
    pub workers: usize,
    /// The `vm_id` of the plugin configuration.
    pub vm_id: String,
    /// The VM configuration.
    pub vm_config: Vec<u8>,
    /// Nanoseconds since the epoch at the start.
    pub now_nanos: u64,
    /// When queue callbacks run.
    pub delivery: Delivery,
    /// Shuffles what is due at the same instant.
    pub order_seed: Option<u64>,
    /// Bytes that may be buffered for one side of a stream (`per_connection_buffer_limit_bytes`).
    pub body_bytes_max: usize,
    /// Fuel for one callback; an endless loop ends as a trap after about as many instructions.
    pub fuel_per_callback: u64,
    /// What `proxy_get_log_level` answers (2 is info).
    pub log_level: u32,
    /// Whether calls out end with 504 when their timeout passes.
    pub call_timeouts: bool,
    /// Whether whole messages end with an empty chunk of their own, as HTTP/1 bodies do in Envoy; else the end of the
    /// stream comes with the last bytes.
    pub end_apart: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 2,
            vm_id: String::new(),
            vm_config: Vec::new(),
            now_nanos: START_NANOS,
            delivery: Delivery::Automatic,
            order_seed: None,
            // The limit the shipped configurations set: 64 MiB.
            body_bytes_max: 64 << 20,
            // Some seconds of work: far above any honest callback, and a loop still ends soon.
            fuel_per_callback: 10_000_000_000,
            log_level: 2,
            call_timeouts: true,
            end_apart: true,
        }
    }
}

/// What became of a configuration push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// Every VM serves new streams with it.
    Accepted,
    /// The canary refused it; nothing has changed.
    Refused,
    /// The canary took it and this VM refused: Envoy fails that thread's streams with 503.
    FailedIn(VmId),
}

/// Names a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// The worker it runs on.
    pub worker: usize,
    /// Its context in that worker's VM.
    pub context: u32,
}

/// How a request fails upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or a reset before the response: Envoy answers 503.
    Unreachable,
    /// A reset: 503 before the response has begun, a reset of the client's stream after.
    Reset,
    /// The route's timeout: 504 before the response has begun, a reset after.
    Timeout,
}

/// Something that the passing of time makes due.
#[derive(Clone, Copy, Debug)]
enum Due {
    Tick(VmId, u32),
    Timeout(CallId),
}

/// One embedder process.
pub struct Process {
    pub(super) shared: Rc<RefCell<Shared>>,
    pre: InstancePre<VmData>,
    main: Vm,
    pub(super) workers: Vec<Vm>,
    canaries: BTreeMap<Vec<u8>, bool>,
    config: Rc<[u8]>,
    limits: VmLimits,
    order: Order,
    delivery: Delivery,
    call_timeouts: bool,
    end_apart: bool,
    pub(super) dropped: u64,
}

impl Process {
    /// Starts a process with a first configuration; refusing it is an error here.
    pub fn start(module: &Module, options: &Options, config: &[u8]) -> Result<Self, HostError> {
        let shared = Shared::new(options.now_nanos, options.vm_id.as_bytes(), options.log_level);
        let shared = Rc::new(RefCell::new(shared));
        let pre = module.link()?;
        let limits = VmLimits {
            fuel_per_callback: options.fuel_per_callback,
            body_bytes_max: options.body_bytes_max,
            vm_config: options.vm_config.as_slice().into(),
        };
        let vm = |id| Vm::new(&pre, id, &shared, &limits);
        let main = vm(VmId::Main)?;
        let workers = (0..options.workers).map(|index| vm(VmId::Worker(index))).collect::<Result<_, _>>()?;
        let mut process = Self {
            main,
            workers,
            shared,
            pre,
            canaries: BTreeMap::new(),
            config: config.into(),
            limits,
            order: Order::new(options.order_seed),
            delivery: options.delivery,
            call_timeouts: options.call_timeouts,
            end_apart: options.end_apart,
            dropped: 0,
        };
        process.setup_defaults();
        match process.push(config)? {
            Push::Accepted => Ok(process),
            Push::Refused => Err(HostError::refused(VmId::Canary, &process.shared.borrow().log)),
            Push::FailedIn(vm) => Err(HostError::refused(vm, &process.shared.borrow().log)),
        }
    }

    fn setup_defaults(&mut self) {
        for (path, value) in [(&["plugin_name"], "plugin"), (&["plugin_root_id"], "")] {
            self.set_property(path, value.as_bytes());
        }
    }

    // Configuration.

    /// Pushes a configuration to every VM and lets go of the old root contexts.
    pub fn push(&mut self, config: &[u8]) -> Result<Push, HostError> {
        if !self.push_begin(config)? {
            return Ok(Push::Refused);
        }
        let vms: Vec<VmId> = self.vms().collect();
        let mut outcome = Push::Accepted;
        for vm in vms {
            if !self.push_apply(vm)? && outcome == Push::Accepted {
                outcome = Push::FailedIn(vm);
            }
        }
        self.push_finish()?;
        Ok(outcome)
    }

    /// The first third of a push: the canary, a VM of its own that lives only for this. False when it refuses.
    /// As in Envoy its verdict about a configuration is remembered, and it shares data and queues with the workers.
    pub fn push_begin(&mut self, config: &[u8]) -> Result<bool, HostError> {
        let accepted = match self.canaries.get(config) {
            Some(verdict) => *verdict,
            None => {
                let mut canary = Vm::new(&self.pre, VmId::Canary, &self.shared, &self.limits)?;
                let verdict = canary.start_plugin(&config.into())?;
                // It is dropped without a goodbye: no on_done, no on_delete (seen in Envoy 1.40).
                for call in &mut self.shared.borrow_mut().calls {
                    if call.vm == VmId::Canary && call.state == CallState::Pending {
                        call.state = CallState::Cancelled;
                    }
                }
                self.canaries.insert(config.to_vec(), verdict);
                verdict
            }
        };
        if accepted {
            self.config = config.into();
        }
        self.settle()?;
        Ok(accepted)
    }

    /// The second third: this VM gets a new root context, and its new streams use it. Old ones still tick.
    pub fn push_apply(&mut self, vm: VmId) -> Result<bool, HostError> {
        let config = Rc::clone(&self.config);
        let applied = self.vm(vm)?.start_plugin(&config)?;
        self.settle()?;
        Ok(applied)
    }

    /// The last third: old root contexts are shut down as soon as no stream uses them; their calls are cancelled.
    pub fn push_finish(&mut self) -> Result<(), HostError> {
        self.main.release_old()?;
        for worker in &mut self.workers {
            worker.release_old()?;
        }
        self.settle()
    }

    /// The live root contexts of a VM, oldest first.
    pub fn roots(&self, vm: VmId) -> Vec<u32> {
        self.vm_ref(vm).map_or(Vec::new(), |vm| vm.roots.iter().map(|root| root.context).collect())
    }

    /// Sets a property of every VM; integers are 8 bytes little-endian in the ABI.
    pub fn set_property(&mut self, path: &[&str], value: &[u8]) {
        self.shared.borrow_mut().properties.insert(path.join("\0").into_bytes(), value.to_vec());
    }

    /// Makes a cluster known to calls out.
    pub fn set_cluster(&mut self, name: &str, cluster: Cluster) {
        self.shared.borrow_mut().clusters.insert(name.to_owned(), cluster);
    }

    // Time and queues.

    /// Nanoseconds since the epoch.
    pub fn now_nanos(&self) -> u64 {
        self.shared.borrow().now_nanos
    }

    /// Lets time pass: ticks and timeouts run in order of their due times, and at each one's own time.
    pub fn advance(&mut self, by: Duration) -> Result<(), HostError> {
        let until = self.now_nanos().saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX));
        loop {
            let due = self.due();
            let Some(first) = due.iter().map(|(at, _)| *at).min().filter(|at| *at <= until) else { break };
            let now = self.now_nanos().max(first);
            self.shared.borrow_mut().now_nanos = now;
            let equal: Vec<Due> =
                due.into_iter().filter(|(at, _)| *at == first).map(|(_, due)| due).collect();
            match equal.get(self.order.choose(equal.len())).copied() {
                Some(Due::Tick(vm, root)) => self.tick(vm, root)?,
                Some(Due::Timeout(call)) => self.end_call(call, Outcome::Timeout)?,
                None => break,
            }
        }
        self.shared.borrow_mut().now_nanos = until;
        Ok(())
    }

    /// Moves the clock without running anything, as a step of the system's time does.
    pub fn step_clock(&mut self, now_nanos: u64) {
        self.shared.borrow_mut().now_nanos = now_nanos;
    }

    /// Ticks one root context now.
    pub fn tick(&mut self, vm: VmId, root: u32) -> Result<(), HostError> {
        self.vm(vm)?.tick(root)?;
        self.settle()
    }

    fn due(&self) -> Vec<(u64, Due)> {
        let mut due = Vec::new();
        for vm in std::iter::once(&self.main).chain(&self.workers) {
            let id = vm.id();
            let timers = vm.store.data().timers.iter();
            due.extend(timers.map(|(root, timer)| (timer.due_nanos, Due::Tick(id, *root))));
        }
        if self.call_timeouts {
            let shared = self.shared.borrow();
            let pending =
                shared.calls.iter().enumerate().filter(|(_, call)| call.state == CallState::Pending);
            let timed = pending.filter(|(_, call)| call.timeout_ms > 0);
            due.extend(timed.map(|(index, call)| {
                let at = call.at_nanos.saturating_add(u64::from(call.timeout_ms) * 1_000_000);
                (at, Due::Timeout(CallId(index)))
            }));
        }
        due
    }

    /// The queue callbacks that are due, oldest first.
    pub fn ready(&self) -> Vec<QueueReady> {
        self.shared.borrow().ready.iter().copied().collect()
    }

    /// Runs the queue callback at `index` of [`Self::ready`]. False when its root context is gone: it is dropped.
    pub fn deliver(&mut self, index: usize) -> Result<bool, HostError> {
        let ready = self.shared.borrow_mut().ready.remove(index);
        let ready = ready.ok_or_else(|| HostError::Misuse(format!("no queue callback {index}")))?;
        let told = self.vm(ready.vm)?.queue_ready(ready.root, ready.queue)?;
        self.dropped += u64::from(!told);
        Ok(told)
    }

    /// Runs queue callbacks until none is due.
    pub fn deliver_all(&mut self) -> Result<(), HostError> {
        loop {
            let count = self.shared.borrow().ready.len();
            if count == 0 {
                return Ok(());
            }
            let index = self.order.choose(count);
            self.deliver(index)?;
        }
    }

    /// Queue callbacks that found no root context.
    pub fn dropped_callbacks(&self) -> u64 {
        self.dropped
    }

    fn settle(&mut self) -> Result<(), HostError> {
        if self.delivery == Delivery::Automatic { self.deliver_all() } else { Ok(()) }
    }

    // Calls out.

    /// A call by its id, if there is one.
    pub fn call(&self, call: CallId) -> Option<Call> {
        self.shared.borrow().calls.get(call.0).cloned()
    }

    /// Every call so far, in the order of dispatch.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.borrow().calls.clone()
    }

    /// The calls that wait for an answer.
    pub fn pending_calls(&self) -> Vec<(CallId, Call)> {
        let shared = self.shared.borrow();
        let calls = shared.calls.iter().enumerate();
        let pending = calls.filter(|(_, call)| call.state == CallState::Pending);
        pending.map(|(index, call)| (CallId(index), call.clone())).collect()
    }

    /// Ends a pending call and runs its callback.
    pub fn end_call(&mut self, id: CallId, outcome: Outcome) -> Result<(), HostError> {
        let call = self.call(id).filter(|call| call.state == CallState::Pending);
        let call = call.ok_or_else(|| HostError::Misuse(format!("call {} is not pending", id.0)))?;
        let answer = outcome.into_response();
        let state = if answer.is_some() { CallState::Answered } else { CallState::Failed };
        if let Some(call) = self.shared.borrow_mut().calls.get_mut(id.0) {
            call.state = state;
        }
        self.vm(call.vm)?.call_ended(call.root, call.token, answer)?;
        self.settle()
    }

    // Streams.

    /// Opens a stream on a worker with the request's headers.
    pub fn request(&mut self, worker: usize, headers: Headers, end: bool) -> Result<StreamId, HostError> {
        let opened = self.vm(VmId::Worker(worker))?.open_stream(headers, end);
        let context = opened.map_err(|(_, error)| error)?;
        self.settle()?;
        Ok(StreamId { worker, context })
    }

    /// One more chunk of the request's body.
    pub fn request_body(&mut self, stream: StreamId, bytes: &[u8], end: bool) -> Result<(), HostError> {
        self.step(stream, |vm, id| vm.body_in(id, Direction::Request, bytes, end))
    }

    /// The request's trailers; they end it.
    pub fn request_trailers(&mut self, stream: StreamId, trailers: Headers) -> Result<(), HostError> {
        self.step(stream, |vm, id| vm.trailers_in(id, Direction::Request, trailers))
    }

    /// Sends a whole request, its body in chunks of at most `chunk_bytes`.
    pub fn send(
        &mut self,
        worker: usize,
        request: Message,
        chunk_bytes: usize,
    ) -> Result<StreamId, HostError> {
        let parts = Parts::of(&request, chunk_bytes, self.end_apart);
        let stream = self.request(worker, request.headers.clone(), parts.headers_end)?;
        for (chunk, end) in parts.chunks {
            self.request_body(stream, chunk, end)?;
        }
        if let Some(trailers) = request.trailers {
            self.request_trailers(stream, trailers)?;
        }
        Ok(stream)
    }

    /// The upstream's response headers; `end` for an answer without a body (a trailers-only gRPC answer is one).
    pub fn response(&mut self, stream: StreamId, headers: Headers, end: bool) -> Result<(), HostError> {
        self.step(stream, |vm, id| vm.headers_in(id, Direction::Response, headers, end))
    }

    /// One more chunk of the response's body.
    pub fn response_body(&mut self, stream: StreamId, bytes: &[u8], end: bool) -> Result<(), HostError> {
        self.step(stream, |vm, id| vm.body_in(id, Direction::Response, bytes, end))
    }

    /// The response's trailers; they end it.
    pub fn response_trailers(&mut self, stream: StreamId, trailers: Headers) -> Result<(), HostError> {
        self.step(stream, |vm, id| vm.trailers_in(id, Direction::Response, trailers))
    }

    /// Sends a whole response in one chunk.
    pub fn respond(&mut self, stream: StreamId, response: Message) -> Result<(), HostError> {
        let parts = Parts::of(&response, usize::MAX, self.end_apart);
        self.response(stream, response.headers.clone(), parts.headers_end)?;
        for (chunk, end) in parts.chunks {
            self.response_body(stream, chunk, end)?;
        }
        match response.trailers {
            Some(trailers) => self.response_trailers(stream, trailers),
            None => Ok(()),
        }
    }

    /// The upstream fails. An upstream that hangs is one the test does not answer.
    pub fn fail_upstream(&mut self, stream: StreamId, failure: Failure) -> Result<(), HostError> {
        let (status, text) = match failure {
            Failure::Unreachable | Failure::Reset => {
                (503, "upstream connect error or disconnect/reset before headers")
            }
            Failure::Timeout => (504, "upstream request timeout"),
        };
        let body = text.as_bytes().to_vec();
        self.step(stream, |vm, id| vm.local_reply(id, status, "via_upstream", body, Headers::new(), None))
    }

    /// The client goes away.
    pub fn disconnect(&mut self, stream: StreamId) -> Result<(), HostError> {
        self.step(stream, |vm, id| vm.finish(id, End::Disconnected))
    }

    /// Forgets an ended stream, so that long runs stay small.
    pub fn forget(&mut self, stream: StreamId) {
        if self.end(stream).is_some()
            && let Ok(vm) = self.vm(VmId::Worker(stream.worker))
        {
            vm.store.data_mut().streams.remove(&stream.context);
        }
    }

    pub(super) fn stream(&self, stream: StreamId) -> Option<&HttpStream> {
        self.workers.get(stream.worker)?.store.data().streams.get(&stream.context)
    }

    fn step(
        &mut self,
        stream: StreamId,
        run: impl FnOnce(&mut Vm, u32) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        run(self.vm(VmId::Worker(stream.worker))?, stream.context)?;
        self.settle()
    }

    pub(super) fn vm_ref(&self, id: VmId) -> Option<&Vm> {
        match id {
            VmId::Canary => None,
            VmId::Main => Some(&self.main),
            VmId::Worker(index) => self.workers.get(index),
        }
    }

    fn vm(&mut self, id: VmId) -> Result<&mut Vm, HostError> {
        let vm = match id {
            VmId::Canary => None,
            VmId::Main => Some(&mut self.main),
            VmId::Worker(index) => self.workers.get_mut(index),
        };
        vm.ok_or_else(|| HostError::Misuse(format!("no VM {id}")))
    }
}

/// A message cut into what arrives.
struct Parts<'a> {
    headers_end: bool,
    chunks: Vec<(&'a [u8], bool)>,
}

impl<'a> Parts<'a> {
    fn of(message: &'a Message, chunk_bytes: usize, end_apart: bool) -> Self {
        let trailers = message.trailers.is_some();
        let count = message.body.len().div_ceil(chunk_bytes.max(1));
        let chunks = message.body.chunks(chunk_bytes.max(1)).enumerate();
        let last = |index: usize| !trailers && !end_apart && index + 1 == count;
        let mut chunks: Vec<(&[u8], bool)> = chunks.map(|(index, chunk)| (chunk, last(index))).collect();
        if end_apart && !trailers && count > 0 {
            chunks.push((&[], true));
        }
        Self { headers_end: message.body.is_empty() && !trailers, chunks }
    }
}
