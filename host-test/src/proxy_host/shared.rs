//! What all VMs of one embedder process share: shared data, shared queues, metrics, properties, calls out, log, clock.
//!
//! Enters: the ABI's operations of any VM. Leaves: their statuses, and the notes that the process later acts on (queue
//! callbacks). One plain struct without locks: the host runs on one thread and every interleaving is a choice of the
//! test. Semantics follow proxy-wasm-cpp-host (`shared_data.cc`, `shared_queue.cc`) and Envoy's `context.cc`.
//! Refuses with the ABI's [`Status`].

use std::collections::{BTreeMap, VecDeque};

use super::calls::{Call, Cluster};
use super::{LogLine, VmId};

/// The ABI's result codes (`proxy_wasm_enums.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// No such key, queue, property or metric.
    NotFound = 1,
    /// An argument outside its domain, or a map that does not exist in this callback.
    BadArgument = 2,
    /// A pointer or length outside the module's memory.
    InvalidMemoryAccess = 6,
    /// The queue holds nothing.
    Empty = 7,
    /// The compare-and-swap value is not the current one.
    CasMismatch = 8,
    /// The host could not do it (a call out that failed at once).
    InternalFailure = 10,
    /// The test host does not model this function; every such call is counted.
    Unimplemented = 12,
}

/// The kind of a metric, as the ABI numbers it; the two low bits of a metric id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricKind {
    /// Only grows.
    Counter = 0,
    /// Goes up and down.
    Gauge = 1,
    /// Records values; the test host keeps all of them.
    Histogram = 2,
}

impl MetricKind {
    /// The kind with this ABI number, or of this metric id.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::Counter, Self::Gauge, Self::Histogram].into_iter().find(|kind| *kind as u32 == number)
    }
}

/// A queue callback that is due: the root context that registered last is told that the queue holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueReady {
    /// The queue's id.
    pub queue: u32,
    /// The VM whose thread runs the callback.
    pub vm: VmId,
    /// The root context that registered the queue last.
    pub root: u32,
}

#[derive(Debug)]
struct Queue {
    messages: VecDeque<Vec<u8>>,
    vm: VmId,
    root: u32,
}

/// The state of one embedder process outside its VMs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub now_nanos: u64,
    pub log: Vec<LogLine>,
    pub log_level: u32,
    pub vm_id: Vec<u8>,
    pub properties: BTreeMap<Vec<u8>, Vec<u8>>,
    pub clusters: BTreeMap<String, Cluster>,
    pub calls: Vec<Call>,
    pub ready: VecDeque<QueueReady>,
    pub unimplemented: BTreeMap<&'static str, u64>,
    pub stats: BTreeMap<(MetricKind, String), u64>,
    pub histograms: BTreeMap<String, Vec<u64>>,
    data: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    cas_next: u32,
    queues: BTreeMap<u32, Queue>,
    queue_ids: BTreeMap<(Vec<u8>, Vec<u8>), u32>,
}

impl Shared {
    pub fn new(now_nanos: u64, vm_id: &[u8], log_level: u32) -> Self {
        Self {
            now_nanos,
            log: Vec::new(),
            log_level,
            vm_id: vm_id.to_vec(),
            properties: BTreeMap::new(),
            clusters: BTreeMap::new(),
            calls: Vec::new(),
            ready: VecDeque::new(),
            unimplemented: BTreeMap::new(),
            stats: BTreeMap::new(),
            histograms: BTreeMap::new(),
            data: BTreeMap::new(),
            cas_next: 1,
            queues: BTreeMap::new(),
            queue_ids: BTreeMap::new(),
        }
    }

    pub fn data_get(&self, key: &[u8]) -> Option<&(Vec<u8>, u32)> {
        self.data.get(key)
    }

    /// Writes a value. A `cas` of 0 always writes; so does any `cas` while the key is absent (the reference host
    /// checks only an existing key).
    pub fn data_set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Status {
        if let Some((_, current)) = self.data.get(key)
            && cas != 0
            && cas != *current
        {
            return Status::CasMismatch;
        }
        let next = self.cas_next;
        self.cas_next = next.checked_add(1).unwrap_or(1);
        self.data.insert(key.to_vec(), (value.to_vec(), next));
        Status::Ok
    }

    /// Makes `root` of `vm` the one that is called back; the messages of an existing queue stay.
    pub fn queue_register(&mut self, name: &[u8], vm: VmId, root: u32) -> u32 {
        let id_next = self.queue_ids.len() as u32 + 1;
        let id = *self.queue_ids.entry((self.vm_id.clone(), name.to_vec())).or_insert(id_next);
        let queue = self.queues.entry(id).or_insert_with(|| Queue { messages: VecDeque::new(), vm, root });
        (queue.vm, queue.root) = (vm, root);
        id
    }

    pub fn queue_resolve(&self, vm_id: &[u8], name: &[u8]) -> Option<u32> {
        let vm_id = if vm_id.is_empty() { &self.vm_id } else { vm_id };
        self.queue_ids.get(&(vm_id.to_vec(), name.to_vec())).copied()
    }

    /// Appends a message and notes one callback per message, for the root context registered at this moment.
    pub fn queue_enqueue(&mut self, id: u32, message: &[u8]) -> Status {
        let Some(queue) = self.queues.get_mut(&id) else { return Status::NotFound };
        queue.messages.push_back(message.to_vec());
        self.ready.push_back(QueueReady { queue: id, vm: queue.vm, root: queue.root });
        Status::Ok
    }

    pub fn queue_dequeue(&mut self, id: u32) -> Result<Vec<u8>, Status> {
        let queue = self.queues.get_mut(&id).ok_or(Status::NotFound)?;
        queue.messages.pop_front().ok_or(Status::Empty)
    }

    pub fn queue_len(&self, name: &str) -> Option<usize> {
        let id = self.queue_resolve(b"", name.as_bytes())?;
        self.queues.get(&id).map(|queue| queue.messages.len())
    }

    /// `context.cc`: a counter takes only positive offsets, a gauge any, a histogram none.
    pub fn metric_increment(&mut self, kind: MetricKind, name: &str, offset: i64) -> Status {
        match kind {
            MetricKind::Counter if offset <= 0 => return Status::BadArgument,
            MetricKind::Histogram => return Status::BadArgument,
            MetricKind::Counter | MetricKind::Gauge => {}
        }
        let value = self.stats.entry((kind, name.to_owned())).or_default();
        *value = value.wrapping_add_signed(offset);
        Status::Ok
    }

    /// A counter adds the value, a gauge takes it, a histogram records it.
    pub fn metric_record(&mut self, kind: MetricKind, name: &str, value: u64) {
        match kind {
            MetricKind::Histogram => self.histograms.entry(name.to_owned()).or_default().push(value),
            MetricKind::Counter => {
                let sum = self.stats.entry((kind, name.to_owned())).or_default();
                *sum = sum.wrapping_add(value);
            }
            MetricKind::Gauge => {
                self.stats.insert((kind, name.to_owned()), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        Shared::new(0, b"", 2)
    }

    #[test]
    fn cas_is_checked_only_on_an_existing_key() {
        let mut shared = shared();
        assert_eq!(shared.data_set(b"k", b"1", 77), Status::Ok);
        let first = shared.data_get(b"k").unwrap().1;
        assert_eq!(shared.data_set(b"k", b"2", first + 1), Status::CasMismatch);
        assert_eq!(shared.data_set(b"k", b"2", first), Status::Ok);
        assert_eq!(shared.data_set(b"k", b"3", first), Status::CasMismatch);
        assert_eq!(shared.data_set(b"k", b"4", 0), Status::Ok);
        assert_eq!(shared.data_get(b"k").unwrap().0, b"4");
    }

    #[test]
    fn a_queue_keeps_messages_over_registrations_and_tells_the_last() {
        let mut shared = shared();
        let id = shared.queue_register(b"q", VmId::Worker(0), 2);
        assert_eq!(shared.queue_enqueue(id, b"m"), Status::Ok);
        assert_eq!(shared.queue_register(b"q", VmId::Worker(1), 5), id);
        assert_eq!(shared.queue_enqueue(id, b"n"), Status::Ok);
        let told: Vec<_> = shared.ready.iter().map(|ready| (ready.vm, ready.root)).collect();
        assert_eq!(told, [(VmId::Worker(0), 2), (VmId::Worker(1), 5)]);
        assert_eq!(shared.queue_dequeue(id), Ok(b"m".to_vec()));
        assert_eq!(shared.queue_dequeue(id), Ok(b"n".to_vec()));
        assert_eq!(shared.queue_dequeue(id), Err(Status::Empty));
        assert_eq!(shared.queue_dequeue(id + 1), Err(Status::NotFound));
        assert_eq!(shared.queue_enqueue(id + 1, b""), Status::NotFound);
    }

    #[test]
    fn counters_refuse_increments_of_zero_and_less() {
        let mut shared = shared();
        assert_eq!(shared.metric_increment(MetricKind::Counter, "c", 0), Status::BadArgument);
        assert_eq!(shared.metric_increment(MetricKind::Counter, "c", -1), Status::BadArgument);
        assert_eq!(shared.metric_increment(MetricKind::Counter, "c", 3), Status::Ok);
        assert_eq!(shared.metric_increment(MetricKind::Gauge, "g", 0), Status::Ok);
        assert_eq!(shared.metric_increment(MetricKind::Histogram, "h", 1), Status::BadArgument);
        assert_eq!(shared.stats[&(MetricKind::Counter, "c".to_owned())], 3);
    }
}
