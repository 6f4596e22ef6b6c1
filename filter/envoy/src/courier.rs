//! Records on their way from this worker to the owners of their shards.
//!
//! A message goes straight to the owner when that is this worker, else through the shard's queue. Envoy's queue is an unbounded
//! deque, so a worker sends on credit: what it has sent and the owner has not consumed stays below the plan's bound. A worker
//! without credit lets its points go out raw and keeps their records, marked as carried, until there is credit again.

use crate::{host, names, ownership};
use phoenix_filter::record::Message;
use std::collections::VecDeque;

/// First byte of what travels in a queue: a message of records …
const RECORDS: u8 = 0;
/// … or the order to count no stream on from before.
const REBASELINE: u8 = 1;
/// Bytes before the message: what it is, and whose.
const ENVELOPE_BYTES: usize = 9;

/// What came out of a queue.
pub enum Parcel<'a> {
    /// Records.
    Records(&'a [u8]),
    /// Raw points were not remembered: every stream begins anew.
    Rebaseline,
}

/// Open what came out of a queue: who sent it, and what it is.
pub fn open(bytes: &[u8]) -> Option<(u64, Parcel<'_>)> {
    let (head, message) = bytes.split_at_checked(ENVELOPE_BYTES)?;
    let (kind, worker) = head.split_first()?;
    let worker = u64::from_le_bytes(*worker.first_chunk()?);
    match *kind {
        RECORDS => Some((worker, Parcel::Records(message))),
        REBASELINE => Some((worker, Parcel::Rebaseline)),
        _ => None,
    }
}

/// The way to one shard's owner.
#[derive(Default)]
struct Route {
    epoch: u64,
    queue: Option<u32>,
    /// Bytes sent in this epoch, and how many of them the owner has consumed.
    sent: u64,
    consumed: u64,
    /// Parcels that wait for credit or for the queue to be there; the flag says that their points went out raw.
    held: VecDeque<(bool, Vec<u8>)>,
    held_bytes: usize,
    /// Bytes of records that wait for an upstream's answer: credit is kept for them.
    promised_bytes: usize,
    /// The owner's table of streams is full.
    full: bool,
    /// The order to rebaseline has been sent (or carried out, where this worker owns the shard).
    told: bool,
    /// Of the held parcels, those that go before the order to begin anew.
    ahead: usize,
    /// This worker owns the shard.
    ours: bool,
}

/// The ways to all owners.
#[derive(Default)]
pub struct Courier {
    routes: Vec<Route>,
    rebaseline: bool,
}

impl Courier {
    /// Every owner must be told to count no stream on from before.
    ///
    /// The order stands behind what is held now: parcels of points that were cut out are of before, and count on from before.
    pub fn must_rebaseline(&mut self) {
        self.rebaseline = true;
        for route in &mut self.routes {
            (route.told, route.ahead) = (false, route.held.len());
        }
    }

    fn route(&mut self, shard: usize) -> Option<&mut Route> {
        if self.routes.len() <= shard {
            self.routes.resize_with(shard.saturating_add(1), Route::default);
        }
        self.routes.get_mut(shard)
    }

    /// May `bytes` more travel to a shard now?
    pub fn has_credit(&mut self, shard: usize, bytes: usize, limit_bytes: usize) -> bool {
        let Some(route) = self.route(shard) else { return false };
        let travelling = usize::try_from(route.sent.saturating_sub(route.consumed)).unwrap_or(usize::MAX);
        let taken = travelling.saturating_add(route.held_bytes).saturating_add(route.promised_bytes);
        !route.full && taken.saturating_add(bytes) <= limit_bytes
    }

    /// Keep credit for records that wait for an answer.
    pub fn promise(&mut self, shard: usize, bytes: usize) {
        if let Some(route) = self.route(shard) {
            route.promised_bytes = route.promised_bytes.saturating_add(bytes);
        }
    }

    /// The answer is there: they travel now, or never.
    pub fn keep_promise(&mut self, shard: usize, bytes: usize) {
        if let Some(route) = self.route(shard) {
            route.promised_bytes = route.promised_bytes.saturating_sub(bytes);
        }
    }

    /// Hand over a message for another worker.
    pub fn post(&mut self, shard: usize, worker: u64, message: &[u8], carried: bool, limit_bytes: usize) {
        let mut parcel = Vec::with_capacity(ENVELOPE_BYTES.saturating_add(message.len()));
        parcel.push(RECORDS);
        parcel.extend_from_slice(&worker.to_le_bytes());
        parcel.extend_from_slice(message);
        if carried
            && let Some(message) = parcel.get_mut(ENVELOPE_BYTES..)
            && Message::mark_carried(message).is_err()
        {
            return;
        }
        let Some(route) = self.route(shard) else { return };
        if carried && route.held_bytes.saturating_add(parcel.len()) > limit_bytes {
            // Too much to remember: the raw points that wait here count as forgotten, the folded ones stay.
            route.held.retain(|(carried, _)| !carried);
            route.held_bytes = route.held.iter().fold(0, |sum, (_, p)| sum.saturating_add(p.len()));
            self.must_rebaseline();
        }
        let Some(route) = self.route(shard) else { return };
        // The newest raw point is remembered behind the order: what comes counts on from it.
        if carried && route.held_bytes.saturating_add(parcel.len()) > limit_bytes {
            return;
        }
        route.held_bytes = route.held_bytes.saturating_add(parcel.len());
        route.held.push_back((carried, parcel));
        self.flush(shard, worker, limit_bytes);
    }

    /// Send what may be sent.
    pub fn flush(&mut self, shard: usize, worker: u64, limit_bytes: usize) {
        let rebaseline = self.rebaseline;
        let Some(route) = self.route(shard) else { return };
        let Some(queue) = route.queue else { return };
        loop {
            if rebaseline && !route.told && route.ahead == 0 {
                let mut parcel = vec![REBASELINE];
                parcel.extend_from_slice(&worker.to_le_bytes());
                if !host::enqueue(queue, &parcel) {
                    break;
                }
                route.sent = route.sent.saturating_add(u64::try_from(parcel.len()).unwrap_or(0));
                route.told = true;
            }
            let Some((_, parcel)) = route.held.front() else { break };
            let travelling = usize::try_from(route.sent.saturating_sub(route.consumed)).unwrap_or(usize::MAX);
            // One message always goes, however large, when nothing else travels.
            if travelling > 0 && travelling.saturating_add(parcel.len()) > limit_bytes {
                break;
            }
            if !host::enqueue(queue, parcel) {
                break;
            }
            route.sent = route.sent.saturating_add(u64::try_from(parcel.len()).unwrap_or(0));
            route.held_bytes = route.held_bytes.saturating_sub(parcel.len());
            route.held.pop_front();
            route.ahead = route.ahead.saturating_sub(1);
        }
    }

    /// Is the order still to be carried out for a shard that this worker owns? Asking carries it out.
    pub fn rebaseline_ours(&mut self, shard: usize) -> bool {
        let wanted = self.rebaseline;
        self.route(shard).is_some_and(|route| wanted && !core::mem::replace(&mut route.told, true))
    }

    /// Every route was flushed: have all owners been told?
    pub fn rebaselined(&mut self) -> bool {
        let told = self.routes.iter().all(|r| r.told || r.epoch == 0 || r.ours);
        if told {
            self.rebaseline = false;
            self.routes.iter_mut().for_each(|r| r.told = false);
        }
        told
    }

    /// Is that order still to be given?
    pub fn wants_rebaseline(&self) -> bool {
        self.rebaseline
    }

    /// Somebody else owns a shard in this epoch: find the queue, and how much of ours has been consumed.
    /// `look`: read its credit even when nothing of ours travels, since it also says whether the owner is full.
    pub fn meet(&mut self, shard: usize, epoch: u64, worker: u64, vm_id: &[u8], look: bool) {
        let Some(route) = self.route(shard) else { return };
        if route.epoch != epoch {
            (route.epoch, route.queue, route.sent, route.consumed) = (epoch, None, 0, 0);
            (route.ours, route.told) = (false, false);
        }
        if route.queue.is_none() {
            route.queue = host::resolve_queue(vm_id, &names::queue(shard, epoch));
        }
        if look || route.sent > route.consumed {
            let credit = ownership::credit(shard, epoch, worker);
            route.consumed = credit.consumed.min(route.sent);
            route.full = credit.full;
        }
    }

    /// In which epoch the owner of a shard was met, if it was.
    pub fn epoch(&self, shard: usize) -> Option<u64> {
        self.routes.get(shard).map(|r| r.epoch).filter(|e| *e > 0)
    }

    /// This worker owns the shard now: what was held for it.
    pub fn take_held(&mut self, shard: usize) -> Vec<Vec<u8>> {
        let Some(route) = self.route(shard) else { return Vec::new() };
        let held = core::mem::take(&mut route.held);
        *route = Route { ours: true, promised_bytes: route.promised_bytes, ..Route::default() };
        held.into_iter().map(|(_, parcel)| parcel).collect()
    }
}
