//! What one worker knows: a static of its VM, so that it outlives the root contexts that pushes make and destroy.
//!
//! Everything a callback does happens inside [`with`]. Envoy calls a VM from one thread only, and defers what a host call causes until
//! the callback is over; should it ever call back in all the same, the inner callback does nothing.

use crate::config::Config;
use crate::courier::{self, Courier, Parcel};
use crate::ownership::{self, Claim, Look, Watchman};
use crate::peers::{self, Peers};
use crate::reports::{Reports, Who};
use crate::sender::Sender;
use crate::stats::{Stats, bump};
use crate::{host, names, shared};
use phoenix_filter::affinity::Sample;
use phoenix_filter::flow::Scratch;
use phoenix_filter::ledger::Page;
use phoenix_filter::owner::Owner;
use phoenix_filter::record::Message;
use phoenix_filter::route::Compiled;
use phoenix_filter::units::UnixNanos;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::default();
}

/// Do something with what this worker knows. `None` when a callback is running already.
pub fn with<R>(f: impl FnOnce(&mut Worker) -> R) -> Option<R> {
    WORKER.with(|w| w.try_borrow_mut().ok().map(|mut w| f(&mut w)))
}

/// A shard that this worker owns or has owned.
pub struct Owned {
    /// Folds its records.
    pub owner: Owner,
    /// Which of this worker's owners it is; never used again.
    id: u64,
    shard: usize,
    /// The claim; `None` when another worker has taken the shard over: what is open closes and goes out, nothing comes in.
    claim: Option<Claim>,
    queues: Vec<u32>,
    consumed: BTreeMap<u64, u64>,
    credit_changed: bool,
    said_full: bool,
    /// Who writes its series: another owner of the shard, before or after, is another writer unless the plan names one.
    writer: String,
}

/// Everything that one worker knows.
#[derive(Default)]
pub struct Worker {
    /// The configuration in force.
    pub config: Option<Rc<Config>>,
    /// Memory of the scan.
    pub scratch: Scratch,
    /// Numbers for Envoy.
    pub stats: Stats,
    /// Records to other workers.
    pub courier: Courier,
    /// Emissions.
    pub sender: Sender,
    /// What other processes see.
    pub peers: Peers,
    /// Reports of this worker.
    pub reports: Reports,
    /// Bytes of records that wait for an upstream's answer.
    pub waiting_bytes: usize,
    /// Number of this worker; 0 until its first request.
    number: u64,
    owned: Vec<Owned>,
    owners_made: u64,
    /// Books of owners that are gone: counters never fall.
    closed_books: Page,
    closed_foreign_key: u64,
    vm_id: Vec<u8>,
    writer: String,
    /// When the process began to count.
    began_ns: u64,
    looked_ns: u64,
    watchmen: Vec<Watchman>,
}

impl Worker {
    /// A new configuration, from a new root context: queues must be registered again, from there.
    pub fn configure(&mut self, config: Rc<Config>, now_ns: u64) {
        for owned in &mut self.owned {
            owned.owner.configure(&config.plan.plan, config.plan.key, &owned.writer, UnixNanos(now_ns));
            owned.register();
        }
        self.config = Some(config);
    }

    /// The first request of this worker, or a tick: who owns which shard?
    pub fn meet_owners(&mut self, now_ns: u64) {
        let first = self.number == 0;
        if first {
            let Some(config) = self.config.clone() else { return };
            let Some(number) = ownership::number_worker() else { return };
            self.number = number;
            self.scratch.share(Rc::new(shared::Data), number);
            self.vm_id = host::property(&["plugin_vm_id"]).unwrap_or_default();
            let process = ownership::begin_process(now_ns, config.plan.plan.shards);
            self.began_ns = process.began_ns;
            // `node` is empty while a request is served (seen on Envoy 1.40); `xds.node` is not.
            let node = host::property(&["xds", "node", "id"]).filter(|n| !n.is_empty());
            let node = node.or_else(|| host::property(&["node", "id"])).unwrap_or_default();
            let node = String::from_utf8(node).unwrap_or_default();
            if node.is_empty() {
                host::warn(
                    "phoenix: this Envoy has no node.id; give it one, or the plan a writer, to tell its folded series from others",
                );
            }
            self.writer = format!("{node}@{}", process.began_ns);
        }
        // A clock that was set back must not stop us from looking.
        let due = now_ns.abs_diff(self.looked_ns) >= ownership::HEARTBEAT_EVERY_NS;
        if first || due {
            self.looked_ns = now_ns;
            self.look_at_shards(now_ns);
            self.scratch.set_affine_from(peers::affine_from().map(UnixNanos));
        }
    }

    /// A batch has been scanned under a plan: owners of a plan that follows the points learn what time it is.
    pub fn met(&mut self, plan: &Compiled, now_ns: u64) {
        let newest = self.scratch.now(plan, UnixNanos(now_ns));
        self.owned.iter_mut().for_each(|owned| owned.owner.meet(newest));
    }

    fn shards(&self) -> usize {
        self.config.as_ref().and_then(|c| usize::try_from(c.plan.plan.shards).ok()).unwrap_or(1)
    }

    fn look_at_shards(&mut self, now_ns: u64) {
        self.watchmen.resize_with(self.shards(), Watchman::default);
        // One shard a look: the others are for the workers that come after.
        let mut may_claim = true;
        for shard in 0..self.shards() {
            if let Some(mine) = self.owned.iter_mut().find(|o| o.shard == shard && o.claim.is_some()) {
                mine.beat(now_ns);
                if mine.claim.is_some() {
                    continue;
                }
                host::warn(&format!("phoenix: another worker has taken over shard {shard}"));
            }
            let Some(watchman) = self.watchmen.get_mut(shard) else { continue };
            match ownership::look(shard, self.number, watchman, may_claim, now_ns) {
                Look::Won(claim) => {
                    may_claim = false;
                    self.take_over(shard, claim, now_ns);
                }
                Look::Owned(claim) => self.courier.meet(shard, claim.epoch, self.number, &self.vm_id, true),
                Look::Contended => {}
            }
        }
    }

    fn take_over(&mut self, shard: usize, claim: Claim, now_ns: u64) {
        let Some(config) = self.config.clone() else { return };
        let writer = format!("{}.{}", self.writer, claim.epoch);
        let mut owner = Owner::new(&config.plan.plan, config.plan.key, &writer, shard);
        owner.begin(UnixNanos(now_ns));
        self.owners_made = self.owners_made.saturating_add(1);
        let mut owned = Owned {
            owner,
            id: self.owners_made,
            shard,
            claim: Some(claim),
            queues: Vec::new(),
            consumed: BTreeMap::new(),
            credit_changed: false,
            said_full: false,
            writer,
        };
        owned.register();
        self.owned.push(owned);
        host::info(&format!("phoenix: worker {} folds shard {shard}, epoch {}", self.number, claim.epoch));
        for parcel in self.courier.take_held(shard) {
            self.unpack(shard, &parcel, now_ns);
        }
        self.drain(now_ns);
    }

    /// May these messages travel?
    pub fn has_credit(&mut self, messages: &[(usize, Vec<u8>)]) -> bool {
        let limit_bytes = self.limit(|l| l.queue_bytes_max);
        messages.iter().all(|(shard, m)| {
            match self.owned.iter().find(|o| o.shard == *shard && o.claim.is_some()) {
                Some(owned) => !owned.owner.is_full(),
                None => self.courier.has_credit(*shard, m.len(), limit_bytes),
            }
        })
    }

    /// Records begin to wait for an answer.
    pub fn promise(&mut self, messages: &[(usize, Vec<u8>)]) {
        for (shard, message) in messages {
            self.courier.promise(*shard, message.len());
            self.waiting_bytes = self.waiting_bytes.saturating_add(message.len());
        }
    }

    /// The answer is there.
    pub fn keep_promise(&mut self, messages: &[(usize, Vec<u8>)]) {
        for (shard, message) in messages {
            self.courier.keep_promise(*shard, message.len());
            self.waiting_bytes = self.waiting_bytes.saturating_sub(message.len());
        }
    }

    /// May records of this size wait for an answer?
    pub fn may_wait(&self, bytes: usize) -> bool {
        self.waiting_bytes.saturating_add(bytes) <= self.limit(|l| l.pending_bytes_max)
    }

    fn limit(&self, which: impl Fn(&phoenix_plan::Limits) -> u32) -> usize {
        let limit = self.config.as_ref().map_or(0, |c| which(&c.plan.plan.limits));
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// The upstream has accepted a request: its records go to the owners.
    pub fn deliver(&mut self, messages: Vec<(usize, Vec<u8>)>, carried: bool, now_ns: u64) {
        let limit_bytes = self.limit(|l| l.queue_bytes_max);
        // What other workers sent before comes first: a stream whose client changed connections stays in order.
        self.drain(now_ns);
        for (shard, mut message) in messages {
            match self.owned.iter_mut().find(|o| o.shard == shard && o.claim.is_some()) {
                Some(owned) => {
                    if carried && Message::mark_carried(&mut message).is_err() {
                        bump(&mut self.stats.bugs);
                        continue;
                    }
                    if owned.owner.fold(&message, UnixNanos(now_ns)).is_err() {
                        bump(&mut self.stats.bugs);
                    }
                }
                None => self.courier.post(shard, self.number, &message, carried, limit_bytes),
            }
        }
    }

    fn unpack(&mut self, shard: usize, parcel: &[u8], now_ns: u64) {
        let Some(owned) = self.owned.iter_mut().find(|o| o.shard == shard && o.claim.is_some()) else {
            return;
        };
        let Some((from, what)) = courier::open(parcel) else {
            bump(&mut self.stats.bugs);
            return;
        };
        let consumed = owned.consumed.entry(from).or_default();
        *consumed = consumed.saturating_add(u64::try_from(parcel.len()).unwrap_or(0));
        owned.credit_changed = true;
        match what {
            Parcel::Rebaseline => owned.owner.rebaseline(),
            Parcel::Records(message) => {
                if owned.owner.fold(message, UnixNanos(now_ns)).is_err() {
                    bump(&mut self.stats.bugs);
                }
            }
        }
    }

    /// Fold everything that waits in the queues of our shards.
    pub fn drain(&mut self, now_ns: u64) {
        let queues: Vec<(usize, u32)> = self
            .owned
            .iter()
            .filter(|o| o.claim.is_some())
            .flat_map(|o| o.queues.iter().map(|q| (o.shard, *q)))
            .collect();
        for (shard, queue) in queues {
            while let Some(parcel) = host::dequeue(queue) {
                self.unpack(shard, &parcel, now_ns);
            }
        }
    }

    /// A tick.
    pub fn tick(&mut self, root: u32, now_ns: u64) {
        if self.number == 0 {
            // No request of ours yet, as always in the main thread's VMs, which tick too: no part in anything.
            self.stats.report();
            return;
        }
        let Some(config) = self.config.clone() else { return };
        self.meet_owners(now_ns);
        self.drain(now_ns);
        self.push_messages();
        for owned in &mut self.owned {
            owned.owner.tick(UnixNanos(now_ns));
            let full = owned.owner.is_full();
            if (owned.credit_changed || full != owned.said_full)
                && let Some(claim) = &owned.claim
            {
                let consumed = owned.consumed.iter().map(|(w, b)| (*w, *b));
                ownership::publish_credit(owned.shard, claim.epoch, full, consumed);
                (owned.credit_changed, owned.said_full) = (false, full);
            }
            self.sender.send(owned.id, &mut owned.owner, &config, root, &mut self.stats, now_ns);
        }
        self.compare(&config, root, now_ns);
        self.look_after_budgets(&config, root, now_ns);
        self.dismiss_drained();
        self.report();
    }

    /// Budgets: whoever folds shard 0 looks after the log for all.
    fn look_after_budgets(&mut self, config: &Config, root: u32, now_ns: u64) {
        let leads = self.owned.iter().any(|o| o.claim.is_some() && o.shard == 0);
        let watches = config.plan.plan.watched_over().is_some();
        if watches {
            self.scratch.tick(&config.plan, leads, ownership::workers(), UnixNanos(now_ns));
        }
        let Some(registry) = self.scratch.registry().filter(|_| watches) else {
            let s = &mut self.stats;
            (s.admitted_series, s.budget_series, s.contained_metrics) = (0, 0, 0);
            return;
        };
        let (mut admitted, mut series, mut contained) = (0_u64, 0_u64, 0_u64);
        for metric in registry.state().metrics.values().filter(|_| leads) {
            admitted = admitted.saturating_add(u64::from(metric.admitted));
            series = series.saturating_add(u64::from(metric.folded));
            contained = contained.saturating_add(u64::from(metric.is_contained()));
        }
        // Gauges are sums over workers, and all of these know the same: only one may show it.
        let s = &mut self.stats;
        (s.admitted_series, s.budget_series, s.contained_metrics) = (admitted, series, contained);
        // Under another hash key both begin anew; a counter never falls.
        s.unmeasured = s.unmeasured.max(registry.measure.unmeasured);
        s.unranked = s.unranked.max(registry.weights.unranked);
        if let Some(settings) = &config.envoy.report
            && self.reports.is_due(settings, now_ns)
        {
            let recent_ns = config.plan.plan.longest_fold().as_nanos();
            let mine = self.owned.iter().filter(|o| o.claim.is_some());
            let sample = mine.fold(Sample::default(), |all, owned| {
                all.union(&owned.owner.sample(recent_ns, |id| config.plan.hasher.blind(id)))
            });
            let who = Who { process: &self.writer, worker: self.number, began_ns: self.began_ns };
            self.reports.send(settings, &who, (registry, &config.plan, &sample), root, s, now_ns);
        }
    }

    /// Compare streams with a peer, when it is time. Whoever folds shard 0 asks for the whole process.
    fn compare(&mut self, config: &Config, root: u32, now_ns: u64) {
        let Some(settings) = &config.envoy.peers else {
            self.peers.retire(&mut self.stats);
            return;
        };
        let leads = self.owned.iter().any(|o| o.claim.is_some() && o.shard == 0);
        if !leads {
            // Gauges are sums over workers: only who asks may show something.
            self.peers.retire(&mut self.stats);
        }
        if !self.owned.iter().any(|o| o.claim.is_some()) || !self.peers.is_due(settings, now_ns) {
            return;
        }
        let key = config.plan.key;
        // A stream that moved on is none that two processes share: so only those of the last export interval, which a window's
        // delay covers.
        let recent_ns = config.plan.plan.longest_fold().as_nanos();
        for owned in self.owned.iter().filter(|o| o.claim.is_some()) {
            let sample = owned.owner.sample(recent_ns, |id| config.plan.hasher.blind(id));
            Peers::publish(owned.shard, key, &self.writer, sample);
        }
        if leads {
            let (shards, writer) = (self.shards(), self.writer.clone());
            let who = (key, writer.as_str(), shards, recent_ns);
            self.peers.ask(settings, who, root, &mut self.stats, now_ns);
        }
    }

    /// Owners whose shard was taken over go when everything of theirs has been answered; their books stay.
    fn dismiss_drained(&mut self) {
        let (books, foreign_key) = (&mut self.closed_books, &mut self.closed_foreign_key);
        self.owned.retain(|o| {
            let stays = o.claim.is_some() || !o.owner.is_drained();
            if !stays {
                books.add(&o.owner.ledger().sum());
                *foreign_key = foreign_key.saturating_add(o.owner.ledger().foreign_key);
            }
            stays
        });
    }

    fn push_messages(&mut self) {
        let limit_bytes = self.limit(|l| l.queue_bytes_max);
        let rebaseline = self.courier.wants_rebaseline();
        for shard in 0..self.shards() {
            match self.owned.iter_mut().find(|o| o.shard == shard && o.claim.is_some()) {
                Some(owned) => {
                    if self.courier.rebaseline_ours(shard) {
                        owned.owner.rebaseline();
                    }
                }
                None => {
                    if let Some(epoch) = self.courier.epoch(shard) {
                        self.courier.meet(shard, epoch, self.number, &self.vm_id, false);
                    }
                    self.courier.flush(shard, self.number, limit_bytes);
                }
            }
        }
        if rebaseline && self.courier.rebaselined() {
            bump(&mut self.stats.rebaselines);
        }
    }

    /// Does a root context wait for the answer to a call?
    pub fn waits(&self, root: u32) -> bool {
        self.sender.waits(root) || self.peers.waits(root) || self.reports.waits(root)
    }

    /// The answer to a call.
    pub fn answered(&mut self, token: u32, answer: phoenix_filter::emit::Answer, now_ns: u64) {
        if let Some((id, sequence)) = self.sender.answered(token)
            && let Some(owned) = self.owned.iter_mut().find(|o| o.id == id)
        {
            self.sender.settle(&mut owned.owner, sequence, answer, &mut self.stats, now_ns);
        }
    }

    /// A root context goes: Envoy cancels its calls and tells nobody.
    pub fn root_gone(&mut self, root: u32, now_ns: u64) {
        self.peers.cancel(root);
        self.reports.cancel(root);
        for (id, sequence) in self.sender.cancel(root) {
            if let Some(owned) = self.owned.iter_mut().find(|o| o.id == id) {
                let unknown = phoenix_filter::emit::Answer::Unknown;
                self.sender.settle(&mut owned.owner, sequence, unknown, &mut self.stats, now_ns);
            }
        }
    }

    /// Tell Envoy the numbers.
    pub fn report(&mut self) {
        let (mut page, mut foreign) = (self.closed_books.clone(), self.closed_foreign_key);
        let (mut streams, mut series, mut backlog) = (0usize, 0usize, 0usize);
        for owned in &self.owned {
            let ledger = owned.owner.ledger();
            page.add(&ledger.sum());
            foreign = foreign.saturating_add(ledger.foreign_key);
            streams = streams.saturating_add(owned.owner.streams());
            series = series.saturating_add(owned.owner.series());
            backlog = backlog.saturating_add(owned.owner.outbox().bytes());
        }
        let s = &mut self.stats;
        s.set_page(&page, foreign);
        let gauge = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        (s.streams, s.series, s.backlog_bytes) = (gauge(streams), gauge(series), gauge(backlog));
        s.report();
    }
}

impl Owned {
    /// Own the queues of this epoch and the one before, from the root context that is calling. What a predecessor left in its
    /// queue is folded too.
    fn register(&mut self) {
        let Some(claim) = &self.claim else { return };
        let epochs = [claim.epoch.saturating_sub(1), claim.epoch];
        let named = epochs.iter().filter(|e| **e > 0);
        self.queues = named.filter_map(|e| host::register_queue(&names::queue(self.shard, *e))).collect();
    }

    fn beat(&mut self, now_ns: u64) {
        if let Some(claim) = &self.claim
            && !ownership::heartbeat(self.shard, claim, now_ns)
        {
            self.claim = None;
        }
    }
}
