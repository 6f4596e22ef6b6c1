//! What the log of admissions comes to: which series are there, which metrics are contained and how.
//!
//! Every worker reads the same entries in the same order, so all of them come to the same state, and a decision of one is the decision of the
//! process (trap 30). Nothing here looks at a clock or a plan: those decide what is appended, never what it means.

use super::entry::Entry;
use super::rests::Rests;
use crate::units::UnixNanos;
use hashbrown::HashMap;

/// A table by halves of identities: they are keyed and uniform already.
pub type ByHalf<V> = HashMap<u64, V, core::hash::BuildHasherDefault<Plain>>;

/// Takes 64 bits for their own hash.
#[derive(Default)]
pub struct Plain(u64);

impl core::hash::Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// What a series is on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A raw stream.
    Raw,
    /// A raw stream that folds from then on (seconds of event time).
    Leaves(u32),
    /// A stream that folded, and is raw from then on.
    Comes(u32),
    /// A folded series of this level.
    Folded(u8),
}

/// A series that is there.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its metric.
    pub metric: u64,
    /// What it is.
    pub standing: Standing,
    /// Its number in the log.
    pub number: u32,
    /// What the last level would leave of it.
    pub rest: u16,
    /// The last generation in which this worker saw it; by its last eight bits.
    pub seen: u8,
}

/// Generations ago, for what this worker has not seen.
pub const UNSEEN: u8 = 100;

/// A label that a level adds to those that are folded: half of its identity, or 0 for all that are not protected.
pub const ALL_LABELS: u64 = 0;

/// In place of a metric: all that are not in the log any more.
pub const GONE: u64 = 0;
/// In the place of a label: the metric is ranked. Its heaviest streams are raw, and what is not known here folds. Labels are odd.
pub const RANKED: u64 = 2;

/// A metric of a tenant.
#[derive(Clone, Debug, Default)]
pub struct Metric {
    /// Its tenant.
    pub tenant: u64,
    /// Raw streams.
    pub admitted: u32,
    /// Folded series.
    pub folded: u32,
    /// Series that the last level would make of what is there, and has not made.
    pub unmade: u32,
    /// Labels that fold, level by level; none: it is not contained.
    pub levels: Vec<u64>,
    /// When it was contained, in seconds; or when its treatment changed otherwise.
    pub changed_s: u32,
    /// From when on it is raw again, in seconds of event time.
    pub released_s: Option<u32>,
    /// Raw streams that have been silent since before then may have been forgotten.
    pub forgot_s: u32,
}

impl Metric {
    /// Series on the way out.
    pub fn series(&self) -> u32 {
        self.admitted.saturating_add(self.folded)
    }

    /// New streams of it fold.
    pub fn is_contained(&self) -> bool {
        !self.levels.is_empty() && self.released_s.is_none() && !self.is_ranked()
    }

    /// Its heaviest streams are raw, the others fold.
    pub fn is_ranked(&self) -> bool {
        self.levels.first() == Some(&RANKED)
    }

    /// New points of it may fold: it is contained, or was until the switch that is near.
    pub fn has_levels(&self) -> bool {
        !self.levels.is_empty()
    }

    /// Some of it folds because of a budget, or did until a release.
    pub fn is_folding(&self) -> bool {
        self.has_levels() && !self.is_ranked()
    }

    /// When it is raw again, if that was said.
    pub fn released_at(&self) -> Option<UnixNanos> {
        self.released_s.map(seconds)
    }
}

/// Seconds of the log as a time.
pub fn seconds(s: u32) -> UnixNanos {
    UnixNanos(u64::from(s).saturating_mul(1_000_000_000))
}

/// A time in whole seconds, rounded up: a switch is never earlier than it was asked for.
pub fn whole_seconds(at: UnixNanos) -> u32 {
    u32::try_from(at.0.div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}

/// What a tenant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenant {
    /// Series on the way out.
    pub series: u32,
    /// Series that last levels would make, and have not made.
    pub unmade: u32,
}

/// All of it.
#[derive(Default)]
pub struct State {
    /// Series by half of their identity.
    pub series: ByHalf<Known>,
    /// Metrics by half of theirs.
    pub metrics: ByHalf<Metric>,
    /// Tenants by half of theirs.
    pub tenants: ByHalf<Tenant>,
    /// What last levels would leave of the series.
    pub rests: Rests,
    /// Entries of series so far: the number of the next.
    pub numbered: u32,
    /// Metrics have left the log with raw streams that were silent since before then, in seconds: one that comes is one that may come back.
    pub gone_s: u32,
    /// Counts what changed for points that are known already: contained, released.
    pub turns: u64,
    /// Counts what may have changed for streams that were raw, and generations.
    pub changes: u64,
}

impl State {
    /// Series of all tenants.
    pub fn total(&self) -> u32 {
        u32::try_from(self.series.len()).unwrap_or(u32::MAX)
    }

    /// What was known of a raw stream may not hold any more.
    pub fn changed(&mut self) {
        self.changes = self.changes.saturating_add(1);
    }

    /// Take the next entry in. `generation` is when this worker sees it, `before` what it knew of the series in an earlier epoch.
    pub fn apply(&mut self, entry: Entry, generation: u8, before: Option<u8>) {
        let seen = before.unwrap_or(generation.wrapping_sub(UNSEEN));
        // Whoever adds a series takes nothing from another one: [`State::enter`] looks whether it does.
        if !matches!(entry, Entry::Metric { .. } | Entry::Admit { .. } | Entry::Folded { .. }) {
            self.changed();
        }
        match entry {
            Entry::Metric { metric, tenant } => {
                let forgot_s = self.gone_s;
                self.metrics
                    .entry(metric)
                    .or_insert_with(|| Metric { forgot_s, ..Metric::default() })
                    .tenant = tenant;
                self.tenants.entry(tenant).or_default();
            }
            Entry::Admit { series, metric, rest } => {
                self.enter(series, metric, Standing::Raw, (rest, seen));
            }
            Entry::Folded { series, metric, level, rest } => {
                self.enter(series, metric, Standing::Folded(level), (rest, seen));
            }
            Entry::Contain { metric, label, level, at_s } => {
                let Some(metric) = self.metrics.get_mut(&metric) else { return };
                if metric.released_s.take().is_some() || metric.levels.is_empty() {
                    metric.changed_s = at_s;
                }
                if usize::from(level) == metric.levels.len().saturating_add(1) {
                    metric.levels.push(label);
                }
                self.turns = self.turns.saturating_add(1);
            }
            Entry::Release { metric, at_s, said_s } => {
                let Some(metric) = self.metrics.get_mut(&metric) else { return };
                (metric.released_s, metric.changed_s) = (Some(at_s), said_s);
                self.turns = self.turns.saturating_add(1);
            }
            Entry::Forgot { metric: GONE, at_s } => self.gone_s = self.gone_s.max(at_s),
            Entry::Forgot { metric, at_s } => {
                let Some(metric) = self.metrics.get_mut(&metric) else { return };
                metric.forgot_s = metric.forgot_s.max(at_s);
                self.turns = self.turns.saturating_add(1);
            }
            Entry::Promote { series, metric, at_s, rest } => {
                self.enter(series, metric, Standing::Comes(at_s), (rest, seen));
            }
            Entry::Demote { series, at_s, .. } => {
                let Some(known) = self.series.get_mut(&series) else { return };
                let was = core::mem::replace(&mut known.standing, Standing::Leaves(at_s));
                if !matches!(was, Standing::Leaves(_))
                    && let Some(metric) = self.metrics.get_mut(&known.metric)
                {
                    metric.admitted = metric.admitted.saturating_sub(1);
                }
            }
            Entry::Sealed { .. } => {}
        }
    }

    /// Number a series, and count it where it was not there.
    fn enter(&mut self, series: u64, metric: u64, standing: Standing, (rest, seen): (u16, u8)) {
        let number = self.numbered;
        self.numbered = self.numbered.saturating_add(1);
        let known = Known { metric, standing, number, rest, seen };
        if self.series.insert(series, known).is_some() {
            self.changed();
            return;
        }
        let (mut unknown, id) = (Metric::default(), metric);
        let metric = self.metrics.get_mut(&metric).unwrap_or(&mut unknown);
        let tenant = self.tenants.entry(metric.tenant).or_default();
        tenant.series = tenant.series.saturating_add(1);
        let is_last = match standing {
            Standing::Folded(level) => {
                metric.folded = metric.folded.saturating_add(1);
                metric.levels.get(usize::from(level).saturating_sub(1)) == Some(&ALL_LABELS)
            }
            _ => {
                metric.admitted = metric.admitted.saturating_add(1);
                false
            }
        };
        let change = self.rests.note(id, rest, is_last);
        metric.unmade = metric.unmade.saturating_add_signed(change);
        tenant.unmade = tenant.unmade.saturating_add_signed(change);
    }

    /// Bytes on the heap, about: tables at their load.
    pub fn heap_bytes(&self) -> usize {
        let series = self.series.allocation_size();
        let tables = self.metrics.allocation_size().saturating_add(self.tenants.allocation_size());
        series.saturating_add(tables).saturating_add(self.rests.heap_bytes())
    }
}
