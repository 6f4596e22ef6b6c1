//! What others ship, modelled exactly: limiters that discard.
//!
//! In: batches. Out: the same batches without the points of series beyond a limit; no emissions, so whatever was discarded is lost. Both models count exactly,
//! where the originals estimate or may confuse series: whatever they do badly here is their rule, not their arithmetic. One process, one state for all workers.
//!
//! * [`Growth`]: a series is over the limit when the *growth*, current epoch's estimate less previous epoch's, exceeds it. First come, first served within an
//!   epoch. What opentelemetry-collector-contrib's `cardinalityguardian` does in 0.159 (issue 50403): at a constant rate both estimates are alike, and all pass.
//! * [`FirstCome`]: as many active series as the limit says, first come, first served; new ones are rejected until old ones have been idle. What Grafana Mimir's
//!   `max_global_series_per_metric` and `max_global_series_per_user` do, and within their hour or day VictoriaMetrics' series limiters
//!   (there a Bloom filter holds the set). Prometheus' `sample_limit` is harsher: it fails the whole scrape.

use super::otlp::{Keys, retain};
use super::process::{Emission, Gaps, Process};
use super::scenario::Share;
use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use std::collections::{HashMap, HashSet};

/// Decides about one series of one share.
pub trait Limiter {
    /// May the series with this key pass?
    fn admits(&mut self, key: &[u8], now_ns: u64) -> bool;
}

/// What both models have in common: shares, and batches without what is not admitted.
pub struct Limits<L> {
    shares: Vec<(Share, L)>,
    keys: Keys,
}

impl<L: Limiter> Limits<L> {
    fn new(shares: &[Share], limiter: impl Fn(&Share) -> L) -> Limits<L> {
        let shares = shares.iter().map(|share| (share.clone(), limiter(share))).collect();
        Limits { shares, keys: Keys::default() }
    }
}

impl<L: Limiter> Process for Limits<L> {
    fn batch(&mut self, _: usize, tenant: &str, body: &[u8], now_ns: u64) -> anyhow::Result<Vec<u8>> {
        if !self.shares.iter().any(|(share, _)| share.tenant == tenant) {
            return Ok(body.to_vec());
        }
        let mut request = ExportMetricsServiceRequest::decode(body).context("a batch")?;
        let (mut verdicts, mut named) = (Vec::new(), Vec::new());
        self.keys.each(&request, |said| {
            named.clear();
            named.extend_from_slice(said.metric.as_bytes());
            named.push(0);
            named.extend_from_slice(said.key);
            // Every share that the series falls under must admit it.
            let mut admitted = true;
            for (share, limiter) in &mut self.shares {
                if share.tenant == tenant && share.metric.as_deref().is_none_or(|m| m == said.metric) {
                    admitted &= limiter.admits(&named, now_ns);
                }
            }
            verdicts.push(admitted);
        });
        if verdicts.iter().all(|admitted| *admitted) {
            return Ok(body.to_vec());
        }
        let mut verdicts = verdicts.into_iter();
        retain(&mut request, || verdicts.next().unwrap_or(true));
        Ok(request.encode_to_vec())
    }

    fn tick(&mut self, _: u64) -> anyhow::Result<Vec<Emission>> {
        Ok(Vec::new())
    }

    fn gaps(&self) -> Gaps {
        Gaps::Closed
    }
}

/// Growth beyond the limit is discarded.
pub struct Growth {
    limit: usize,
    epoch_ns: u64,
    epoch: u64,
    current: HashSet<Box<[u8]>>,
    previous: HashSet<Box<[u8]>>,
    passed: HashSet<Box<[u8]>>,
}

impl Growth {
    /// With epochs of this length.
    pub fn limits(shares: &[Share], epoch_ns: u64) -> Limits<Growth> {
        Limits::new(shares, |share| Growth {
            limit: share.series,
            epoch_ns,
            epoch: 0,
            current: HashSet::new(),
            previous: HashSet::new(),
            passed: HashSet::new(),
        })
    }
}

impl Limiter for Growth {
    fn admits(&mut self, key: &[u8], now_ns: u64) -> bool {
        let epoch = now_ns / self.epoch_ns;
        if epoch != self.epoch {
            self.previous = std::mem::take(&mut self.current);
            self.passed.clear();
            self.epoch = epoch;
        }
        // Counted first and judged then: what is discarded belongs to the estimate, too.
        if !self.current.contains(key) {
            self.current.insert(key.into());
        }
        let growth = self.current.len().saturating_sub(self.previous.len());
        if growth <= self.limit || self.previous.contains(key) || self.passed.contains(key) {
            self.passed.insert(key.into());
            return true;
        }
        false
    }
}

/// New series are rejected while there are as many active ones as the limit.
pub struct FirstCome {
    limit: usize,
    idle_ns: u64,
    /// When each was last heard.
    heard_ns: HashMap<Box<[u8]>, u64>,
    /// Nothing has been idle for long before this.
    swept_ns: u64,
}

impl FirstCome {
    /// Series are active until they have been silent for this long.
    pub fn limits(shares: &[Share], idle_ns: u64) -> Limits<FirstCome> {
        Limits::new(shares, |share| FirstCome {
            limit: share.series,
            idle_ns,
            heard_ns: HashMap::new(),
            swept_ns: 0,
        })
    }
}

impl Limiter for FirstCome {
    fn admits(&mut self, key: &[u8], now_ns: u64) -> bool {
        if let Some(heard_ns) = self.heard_ns.get_mut(key) {
            *heard_ns = now_ns;
            return true;
        }
        // At most once a second: as exact as any idle time in use.
        if now_ns >= self.swept_ns + 1_000_000_000 {
            self.swept_ns = now_ns;
            self.heard_ns.retain(|_, heard_ns| *heard_ns + self.idle_ns > now_ns);
        }
        if self.heard_ns.len() >= self.limit {
            return false;
        }
        self.heard_ns.insert(key.into(), now_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the issue: 100, 5000, 5000, 5000 of 5000 new values an epoch pass at a limit of 100.
    #[test]
    fn a_constant_rate_is_no_growth() {
        let share = Share { tenant: "t".into(), metric: None, series: 100 };
        let Limits { mut shares, .. } = Growth::limits(&[share], 10);
        let epochs = &mut shares[0].1;
        let mut value = 0u64;
        let passed: Vec<usize> = (1..=4)
            .map(|epoch| {
                let mut next = || {
                    value += 1;
                    epochs.admits(&value.to_le_bytes(), epoch * 10)
                };
                (0..5_000).filter(|_| next()).count()
            })
            .collect();
        assert_eq!(passed, [100, 5_000, 5_000, 5_000]);
    }

    #[test]
    fn the_first_to_come_hold_the_slots_until_they_are_idle() {
        let share = Share { tenant: "t".into(), metric: None, series: 2 };
        let Limits { mut shares, .. } = FirstCome::limits(&[share], 60_000_000_000);
        let active = &mut shares[0].1;
        let second = 1_000_000_000;
        let steps = [
            (b"a", 1, true),
            (b"b", 1, true),
            (b"c", 2, false),
            (b"a", 30, true),
            (b"c", 40, false),
            (b"c", 62, true),
            (b"b", 63, false),
        ];
        for (key, at, admitted) in steps {
            assert_eq!(active.admits(key, at * second), admitted, "{key:?} at {at}");
        }
    }
}
