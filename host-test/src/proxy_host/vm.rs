//! One VM: an instance of the module with its own memory, its contexts, timers and streams.
//!
//! Enters: callbacks to run. Leaves: their results; what the module asked for "after this call" (resume a stream,
//! answer it) is queued in [`VmData::actions`] and run when the callback is over, as the reference host does.
//! A callback that traps or burns its fuel fails the VM for good: later callbacks do not run, streams get 503.
//! Refuses: a module without the ABI's version mark, without memory, or with imports the host does not have.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use wasmtime::{InstancePre, Memory, Store, StoreLimits, StoreLimitsBuilder, TypedFunc, Val};

use super::calls::{CallState, Message};
use super::headers::Headers;
use super::shared::{MetricKind, Shared, Status};
use super::stream::{Direction, HttpStream};
use super::{HostError, VmId};

/// Tokens of HTTP calls are this far apart in one VM: 4, 8, … (seen in Envoy 1.40).
const CALL_TOKEN_STEP: u32 = 4;
/// Envoy caps a V8 VM at 1 GiB.
const MEMORY_BYTES_MAX: usize = 1 << 30;
/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;
/// Metric ids of one kind are this far apart; the two low bits name the kind (`wasm.h`).
const METRIC_ID_STEP: u32 = 4;

/// What the module asked for during a callback, done after it.
#[derive(Debug)]
pub(crate) enum Action {
    Continue {
        context: u32,
        direction: Direction,
    },
    Close {
        context: u32,
    },
    LocalReply {
        context: u32,
        status: u32,
        details: String,
        body: Vec<u8>,
        headers: Headers,
        grpc_status: Option<u32>,
    },
    /// `proxy_done` of a root context whose `on_done` had said "not yet".
    Delete {
        root: u32,
    },
}

/// The tick timer of a root context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    pub period_ms: u32,
    pub due_nanos: u64,
}

impl Timer {
    pub fn armed(now_nanos: u64, period_ms: u32) -> Self {
        Self { period_ms, due_nanos: now_nanos.saturating_add(u64::from(period_ms) * MS) }
    }
}

/// The host's state of one VM; imports see it through the store.
pub(crate) struct VmData {
    pub shared: Rc<RefCell<Shared>>,
    pub id: VmId,
    pub memory: Option<Memory>,
    pub allocate: Option<TypedFunc<u32, u32>>,
    /// Every live context and its root context (a root context is its own).
    pub contexts: BTreeMap<u32, u32>,
    pub effective: Option<u32>,
    pub restricted: bool,
    pub stop_iteration: bool,
    pub actions: VecDeque<Action>,
    pub timers: BTreeMap<u32, Timer>,
    pub pending_done: BTreeSet<u32>,
    pub metrics: BTreeMap<u32, (MetricKind, String)>,
    pub streams: BTreeMap<u32, HttpStream>,
    pub call_answer: Option<Message>,
    plugin_config: Option<Rc<[u8]>>,
    vm_config: Rc<[u8]>,
    current: u32,
    context_next: u32,
    call_token_next: u32,
    metric_next: [u32; 3],
    limits: StoreLimits,
}

impl VmData {
    /// The context whose callback runs, or the one set as effective.
    pub fn caller_context(&self) -> u32 {
        self.effective.unwrap_or(self.current)
    }

    pub fn root_of_caller(&self) -> u32 {
        let context = self.caller_context();
        self.contexts.get(&context).copied().unwrap_or(context)
    }

    pub fn call_token(&mut self) -> u32 {
        self.call_token_next += CALL_TOKEN_STEP;
        self.call_token_next
    }

    /// A new id each time, also for a name that is already defined: Envoy never frees ids.
    pub fn metric_define(&mut self, kind: MetricKind, name: &str) -> u32 {
        let next = &mut self.metric_next[kind as usize];
        *next += METRIC_ID_STEP;
        let id = *next + kind as u32;
        self.metrics.insert(id, (kind, name.to_owned()));
        id
    }

    /// A buffer for reading, by its ABI number.
    pub fn buffer(&mut self, kind: u32) -> Result<&[u8], Status> {
        match kind {
            0 | 1 => Ok(self.side_body(kind).map_or(&[], |body| body.as_slice())),
            4 => self.call_answer.as_ref().map(|answer| answer.body.as_slice()).ok_or(Status::NotFound),
            6 => Ok(&self.vm_config),
            7 => self.plugin_config.as_deref().ok_or(Status::NotFound),
            2 | 3 | 5 => Err(Status::NotFound),
            _ => Err(Status::BadArgument),
        }
    }

    /// A body for writing, by its ABI number.
    pub fn body_mut(&mut self, kind: u32) -> Result<&mut Vec<u8>, Status> {
        self.side_body(kind).ok_or(Status::BadArgument)
    }

    fn side_body(&mut self, kind: u32) -> Option<&mut Vec<u8>> {
        let context = self.caller_context();
        let stream = self.streams.get_mut(&context)?;
        stream.side_mut(Direction::from_number(kind)?).body_open()
    }

    /// A header map for reading; `Ok(None)` while it does not exist in this callback.
    pub fn headers(&mut self, kind: u32) -> Result<Option<&Headers>, Status> {
        let context = self.caller_context();
        Ok(match kind {
            0..=3 => self.streams.get(&context).and_then(|stream| stream.map(kind)),
            6 => self.call_answer.as_ref().map(|answer| &answer.headers),
            7 => self.call_answer.as_ref().and_then(|answer| answer.trailers.as_ref()),
            4 | 5 => None,
            _ => return Err(Status::BadArgument),
        })
    }

    /// A header map for writing; only in the callback it belongs to, or while that one is paused.
    pub fn headers_mut(&mut self, kind: u32) -> Result<&mut Headers, Status> {
        let context = self.caller_context();
        self.streams.get_mut(&context).and_then(|stream| stream.map_mut(kind)).ok_or(Status::BadArgument)
    }
}

/// One VM with its root contexts.
pub(crate) struct Vm {
    pub store: Store<VmData>,
    pub roots: Vec<Root>,
    /// The root context that new streams get; `None` before the first plugin and after one that failed here.
    pub serving: Option<u32>,
    pub failed: bool,
    pub body_bytes_max: usize,
    instance: wasmtime::Instance,
    fuel_per_callback: u64,
    fuel_used: u64,
}

/// One root context: a plugin configuration at work in one VM.
#[derive(Debug)]
pub(crate) struct Root {
    pub context: u32,
    pub config: Rc<[u8]>,
    /// The listener's configuration still refers to it; streams may keep it alive longer.
    pub held: bool,
    /// `on_done` ran and said "not yet".
    pub draining: bool,
}

/// What a callback said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    /// Its result; `None` if the module does not export it.
    pub value: Option<u32>,
    /// The module answered the stream itself: iteration stops whatever the result.
    pub stopped: bool,
}

/// The bounds of one VM.
#[derive(Clone, Debug)]
pub(crate) struct VmLimits {
    pub fuel_per_callback: u64,
    pub body_bytes_max: usize,
    pub vm_config: Rc<[u8]>,
}

impl Vm {
    pub fn new(
        pre: &InstancePre<VmData>,
        id: VmId,
        shared: &Rc<RefCell<Shared>>,
        limits: &VmLimits,
    ) -> Result<Self, HostError> {
        let data = VmData {
            shared: Rc::clone(shared),
            id,
            memory: None,
            allocate: None,
            contexts: BTreeMap::new(),
            effective: None,
            restricted: true,
            stop_iteration: false,
            actions: VecDeque::new(),
            timers: BTreeMap::new(),
            pending_done: BTreeSet::new(),
            metrics: BTreeMap::new(),
            streams: BTreeMap::new(),
            call_answer: None,
            plugin_config: None,
            vm_config: Rc::clone(&limits.vm_config),
            current: 0,
            context_next: 0,
            call_token_next: 0,
            metric_next: [0; 3],
            limits: StoreLimitsBuilder::new().memory_size(MEMORY_BYTES_MAX).build(),
        };
        let mut store = Store::new(pre.module().engine(), data);
        store.limiter(|data| &mut data.limits);
        let fuel = limits.fuel_per_callback;
        store.set_fuel(fuel).map_err(|error| HostError::Module(error.to_string()))?;
        let instance =
            pre.instantiate(&mut store).map_err(|error| HostError::Module(format!("{error:#}")))?;
        let mut vm = Self {
            store,
            roots: Vec::new(),
            serving: None,
            failed: false,
            body_bytes_max: limits.body_bytes_max,
            instance,
            fuel_per_callback: fuel,
            fuel_used: 0,
        };
        vm.link(pre)?;
        Ok(vm)
    }

    /// Finds memory and allocator, then runs the module's start-up exports.
    fn link(&mut self, pre: &InstancePre<VmData>) -> Result<(), HostError> {
        let marks = ["proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"];
        if !pre.module().exports().any(|export| marks.contains(&export.name())) {
            return Err(HostError::Module(
                "no export proxy_abi_version_*: not a proxy-wasm module".to_owned(),
            ));
        }
        let memory = self.instance.get_memory(&mut self.store, "memory");
        let allocate = ["proxy_on_memory_allocate", "malloc"]
            .iter()
            .find_map(|name| self.instance.get_typed_func::<u32, u32>(&mut self.store, name).ok());
        let data = self.store.data_mut();
        data.memory = Some(memory.ok_or_else(|| HostError::Module("no export memory".to_owned()))?);
        data.allocate = allocate;
        let start = ["_initialize", "_start"].into_iter().find(|name| self.exports(name));
        if let Some(name) = start {
            self.invoke(name, 0, &[])?;
        }
        self.store.data_mut().restricted = false;
        Ok(())
    }

    fn exports(&mut self, name: &str) -> bool {
        self.instance.get_func(&mut self.store, name).is_some()
    }

    pub fn id(&self) -> VmId {
        self.store.data().id
    }

    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory.map_or(0, |memory| memory.data_size(&self.store))
    }

    /// Fuel burnt in all callbacks: a deterministic measure of work.
    pub fn fuel_used(&self) -> u64 {
        self.fuel_used
    }

    /// Runs one export for `context`, which is also its first argument except at start-up.
    pub fn invoke(&mut self, name: &'static str, context: u32, rest: &[u32]) -> Result<Verdict, HostError> {
        let none = Verdict { value: None, stopped: false };
        if self.failed {
            return Ok(none);
        }
        let Some(export) = self.instance.get_func(&mut self.store, name) else { return Ok(none) };
        let kind = export.ty(&self.store);
        let mut arguments = vec![Val::I32(context as i32)];
        arguments.extend(rest.iter().map(|word| Val::I32(*word as i32)));
        arguments.truncate(kind.params().len());
        let mut results = vec![Val::I32(0); kind.results().len()];
        let data = self.store.data_mut();
        let before = (data.current, data.effective);
        (data.current, data.effective) = (context, None);
        data.stop_iteration = false;
        let fuel = self.fuel_per_callback;
        let outcome = match self.store.set_fuel(fuel) {
            Ok(()) => export.call(&mut self.store, &arguments, &mut results),
            Err(error) => Err(error),
        };
        self.fuel_used += fuel - self.store.get_fuel().unwrap_or(0);
        let data = self.store.data_mut();
        (data.current, data.effective) = before;
        let stopped = std::mem::take(&mut data.stop_iteration);
        if let Err(error) = outcome {
            return Err(self.fail(name, &error));
        }
        let value = results.first().and_then(Val::i32).map(|value| value as u32);
        Ok(Verdict { value, stopped })
    }

    fn fail(&mut self, callback: &'static str, error: &wasmtime::Error) -> HostError {
        self.failed = true;
        let data = self.store.data_mut();
        data.actions.clear();
        data.timers.clear();
        HostError::trap(data.id, callback, format!("{error:#}"), &data.shared.borrow().log)
    }

    pub fn context_id(&mut self) -> u32 {
        let data = self.store.data_mut();
        data.context_next += 1;
        data.context_next
    }

    /// Creates a root context for `config` and configures it; false when the module refuses.
    /// A configuration whose root context is still alive is taken up again, without any callback.
    pub fn start_plugin(&mut self, config: &Rc<[u8]>) -> Result<bool, HostError> {
        if let Some(root) = self.roots.iter_mut().find(|root| root.config == *config && !root.draining) {
            root.held = true;
            self.serving = Some(root.context);
            return Ok(true);
        }
        let context = self.context_id();
        self.store.data_mut().contexts.insert(context, context);
        self.roots.push(Root { context, config: Rc::clone(config), held: true, draining: false });
        let length = config.len() as u32;
        self.store.data_mut().plugin_config = Some(Rc::clone(config));
        let vm_length = self.store.data().vm_config.len() as u32;
        let configured = self.invoke("proxy_on_context_create", context, &[0]).and_then(|_| {
            let started = self.invoke("proxy_on_vm_start", context, &[vm_length])?.value != Some(0);
            Ok(started && self.invoke("proxy_on_configure", context, &[length])?.value != Some(0))
        });
        self.store.data_mut().plugin_config = None;
        let configured = configured?;
        self.serving = configured.then_some(context);
        self.run_actions()?;
        Ok(configured)
    }

    /// Lets go of every root context but the serving one.
    pub fn release_old(&mut self) -> Result<(), HostError> {
        let serving = self.serving;
        self.roots.iter_mut().filter(|root| Some(root.context) != serving).for_each(|root| root.held = false);
        self.collect_roots()
    }

    /// Shuts down root contexts that neither a configuration nor a stream keeps alive.
    pub fn collect_roots(&mut self) -> Result<(), HostError> {
        let data = self.store.data();
        let used: BTreeSet<u32> =
            data.contexts.iter().filter(|(context, root)| context != root).map(|(_, root)| *root).collect();
        let idle = |root: &&Root| !root.held && !root.draining && !used.contains(&root.context);
        let gone: Vec<u32> = self.roots.iter().filter(idle).map(|root| root.context).collect();
        for root in gone {
            let verdict = self.invoke("proxy_on_done", root, &[])?;
            match verdict.value {
                Some(0) if !self.failed => {
                    self.store.data_mut().pending_done.insert(root);
                    self.roots
                        .iter_mut()
                        .filter(|old| old.context == root)
                        .for_each(|old| old.draining = true);
                }
                _ => self.delete_root(root)?,
            }
            self.run_actions()?;
        }
        Ok(())
    }

    /// Deletes a root context; its outstanding calls end without a callback.
    pub fn delete_root(&mut self, root: u32) -> Result<(), HostError> {
        let deleted = self.invoke("proxy_on_delete", root, &[]);
        self.roots.retain(|old| old.context != root);
        let data = self.store.data_mut();
        data.contexts.remove(&root);
        data.timers.remove(&root);
        let vm = data.id;
        for call in &mut data.shared.borrow_mut().calls {
            if call.vm == vm && call.root == root && call.state == CallState::Pending {
                call.state = CallState::Cancelled;
            }
        }
        deleted.map(drop)
    }

    /// Ticks a root context and arms its timer again.
    pub fn tick(&mut self, root: u32) -> Result<(), HostError> {
        if self.store.data().contexts.get(&root) == Some(&root) {
            self.invoke("proxy_on_tick", root, &[])?;
        }
        let data = self.store.data_mut();
        let now = data.shared.borrow().now_nanos;
        if let Some(timer) = data.timers.get_mut(&root) {
            *timer = Timer::armed(now, timer.period_ms);
        }
        self.run_actions()
    }

    /// Tells a root context that a queue holds something; false when that context is gone.
    pub fn queue_ready(&mut self, root: u32, queue: u32) -> Result<bool, HostError> {
        if self.failed || !self.store.data().contexts.contains_key(&root) {
            return Ok(false);
        }
        self.invoke("proxy_on_queue_ready", root, &[queue])?;
        self.run_actions()?;
        Ok(true)
    }

    /// Ends a call out; false when its root context is gone.
    pub fn call_ended(&mut self, root: u32, token: u32, answer: Option<Message>) -> Result<bool, HostError> {
        if self.failed || !self.store.data().contexts.contains_key(&root) {
            return Ok(false);
        }
        let sizes = answer.as_ref().map_or([0; 3], |answer| {
            let trailers = answer.trailers.as_ref().map_or(0, Headers::len);
            [answer.headers.len() as u32, answer.body.len() as u32, trailers as u32]
        });
        self.store.data_mut().call_answer = answer;
        let ran = self.invoke("proxy_on_http_call_response", root, &[token, sizes[0], sizes[1], sizes[2]]);
        self.store.data_mut().call_answer = None;
        ran?;
        self.run_actions()?;
        Ok(true)
    }

    /// Does what the module asked for during the callbacks that are over.
    pub fn run_actions(&mut self) -> Result<(), HostError> {
        while let Some(action) = self.store.data_mut().actions.pop_front() {
            match action {
                Action::Continue { context, direction } => self.resume(context, direction)?,
                Action::Close { context } => self.reset_stream(context)?,
                Action::Delete { root } => self.delete_root(root)?,
                Action::LocalReply { context, status, details, body, headers, grpc_status } => {
                    self.local_reply(context, status, &details, body, headers, grpc_status)?;
                }
            }
        }
        Ok(())
    }
}
