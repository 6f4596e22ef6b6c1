//! What a test may look at in a process: streams as the peers see them, metrics, shared state, log, costs.
//!
//! Enters: names and ids. Leaves: copies and references; nothing here runs the module or changes the process.
//! Apart from `process.rs` so that driving and looking are two short files. Refuses nothing: what is not there is
//! `None`, zero or empty.

use std::cell::Ref;
use std::collections::BTreeMap;

use super::calls::Message;
use super::process::{Process, StreamId};
use super::shared::MetricKind;
use super::stream::End;
use super::vm::Vm;
use super::{LogLine, VmId};

impl Process {
    /// What the upstream has got so far.
    pub fn forwarded_part(&self, stream: StreamId) -> Option<&Message> {
        self.stream(stream).map(|stream| &stream.request.out).filter(|out| !out.headers.is_empty())
    }

    /// The request as the upstream has it, once it is complete.
    pub fn forwarded(&self, stream: StreamId) -> Option<&Message> {
        self.stream(stream).filter(|stream| stream.request.out_complete).map(|stream| &stream.request.out)
    }

    /// What the client has got so far.
    pub fn client_part(&self, stream: StreamId) -> Option<&Message> {
        self.stream(stream).filter(|stream| stream.response.out_begun).map(|stream| &stream.response.out)
    }

    /// The response as the client has it, once it is complete.
    pub fn client(&self, stream: StreamId) -> Option<&Message> {
        self.stream(stream).filter(|stream| stream.response.out_complete).map(|stream| &stream.response.out)
    }

    /// How the stream ended; `None` while it lives.
    pub fn end(&self, stream: StreamId) -> Option<End> {
        self.stream(stream)?.end
    }

    /// The details of the local reply the stream got, if any.
    pub fn local_reply(&self, stream: StreamId) -> Option<&str> {
        self.stream(stream)?.local_reply.as_deref()
    }

    /// All VMs but canaries: the main thread's first.
    pub fn vms(&self) -> impl Iterator<Item = VmId> + use<> {
        std::iter::once(VmId::Main).chain((0..self.workers.len()).map(VmId::Worker))
    }

    /// The sum of a counter over all VMs; 0 when nobody has counted.
    pub fn counter(&self, name: &str) -> u64 {
        self.stat(MetricKind::Counter, name)
    }

    /// The value of a gauge.
    pub fn gauge(&self, name: &str) -> u64 {
        self.stat(MetricKind::Gauge, name)
    }

    /// The values a histogram has recorded.
    pub fn histogram(&self, name: &str) -> Vec<u64> {
        self.shared.borrow().histograms.get(name).cloned().unwrap_or_default()
    }

    /// All counters by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let shared = self.shared.borrow();
        let counters = shared.stats.iter().filter(|((kind, _), _)| *kind == MetricKind::Counter);
        counters.map(|((_, name), value)| (name.clone(), *value)).collect()
    }

    fn stat(&self, kind: MetricKind, name: &str) -> u64 {
        self.shared.borrow().stats.get(&(kind, name.to_owned())).copied().unwrap_or(0)
    }

    /// A shared value and its compare-and-swap number.
    pub fn shared_data(&self, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        self.shared.borrow().data_get(key).cloned()
    }

    /// How many messages a queue holds; `None` when nobody has registered it.
    pub fn queue_len(&self, name: &str) -> Option<usize> {
        self.shared.borrow().queue_len(name)
    }

    /// The log of all VMs.
    pub fn log(&self) -> Ref<'_, Vec<LogLine>> {
        Ref::map(self.shared.borrow(), |shared| &shared.log)
    }

    /// Calls of imports that the host does not model.
    pub fn unimplemented_calls(&self) -> BTreeMap<&'static str, u64> {
        self.shared.borrow().unimplemented.clone()
    }

    /// Bytes of a VM's linear memory.
    pub fn memory_bytes(&self, vm: VmId) -> usize {
        self.vm_ref(vm).map_or(0, Vm::memory_bytes)
    }

    /// Fuel a VM has burnt: a deterministic measure of work.
    pub fn fuel_used(&self, vm: VmId) -> u64 {
        self.vm_ref(vm).map_or(0, Vm::fuel_used)
    }

    /// Whether a callback of this VM has trapped.
    pub fn failed(&self, vm: VmId) -> bool {
        self.vm_ref(vm).is_none_or(|vm| vm.failed)
    }
}
