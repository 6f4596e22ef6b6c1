//! Do the points of a stream reach one process only (DESIGN §3.10)?
//!
//! A cumulative fold is right only if they do: a stream balanced per request over two processes would count nearly twice. In: the
//! streams that a process saw lately, and the reports of others. Out: how many streams two processes share, and whether cumulative
//! sums may fold.
//!
//! A report holds the [`SAMPLE_MAX`] smallest identities (a bottom-k sketch: Cohen, *Size-estimation framework*, 1997; the estimate
//! (k − 1) / k-th smallest: Bar-Yossef and others, *Counting distinct elements in a data stream*, 2002). Why not differences of
//! cardinality estimates: of a million streams each, 2 % of error hide 20,000 shared ones, while a sample of a union says of each
//! identity in it whether both have it, so that processes with nothing in common are never suspected. Exact up to the sample's size;
//! beyond it the standard error of the estimate is 1/√(k − 2), 3.1 %, and of a shared part p of the union √(p(1 − p)/k). Cost: one
//! walk over the table of streams for each report. Wrong where identities are made under different keys: those are not compared.

use crate::units::UnixNanos;
use crate::wire::{Fields, Span, WireError, put_bytes_field, put_fixed64_field, put_varint_field};
use std::collections::{BTreeMap, BinaryHeap};

/// Identities in a sample: 8 KiB of report, and one shared stream in a hundred is seen with three standard errors to spare.
pub const SAMPLE_MAX: usize = 1_024;
/// Version of the report; a reader refuses any other.
pub const VERSION: u64 = 1;
/// Longest name of a process that is read.
const PROCESS_BYTES_MAX: usize = 512;
/// Answers of others without a shared stream, one after the other, that show affinity. Each comes from whichever peer the balancer picks.
pub const CLEAN_MIN: u32 = 3;
/// As many lift a refutation, the first time and at most: five minutes and an hour at an answer each ten seconds.
const CLEAN_AFTER_MIN: u32 = 30;
const CLEAN_AFTER_MAX: u32 = 360;
/// Shared streams that are remembered: those of eight peers. With more, the oldest evidence is enough.
const SUSPECTS_MAX: usize = 8 * SAMPLE_MAX;

/// The smallest of a set of identities, each as a pseudo-random number under the plan's key ([`crate::hash::Hasher::blind`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample(Vec<u64>);

impl Sample {
    /// The blinded identities, smallest first.
    pub fn ids(&self) -> &[u64] {
        &self.0
    }

    /// Of these, in any order and each any number of times.
    pub fn of(ids: impl Iterator<Item = u64>) -> Sample {
        let mut heap = BinaryHeap::with_capacity(SAMPLE_MAX.saturating_add(1));
        for id in ids {
            let full = heap.len() >= 2 * SAMPLE_MAX;
            if full && heap.peek().is_some_and(|largest| id >= *largest) {
                continue;
            }
            heap.push(id);
            if full {
                heap.pop();
            }
        }
        let mut smallest = heap.into_vec();
        phoenix_plan::order::sort(&mut smallest);
        smallest.dedup();
        smallest.truncate(SAMPLE_MAX);
        Sample(smallest)
    }

    /// Of two sets together.
    pub fn union(&self, other: &Sample) -> Sample {
        Sample::of(self.0.iter().chain(&other.0).copied())
    }

    /// How many there are in the set.
    pub fn estimate(&self) -> f64 {
        match self.0.last() {
            Some(last) if self.0.len() >= SAMPLE_MAX && *last > 0 => {
                (SAMPLE_MAX as f64 - 1.0) / (*last as f64 / 2.0_f64.powi(64))
            }
            _ => self.0.len() as f64,
        }
    }

    /// Nothing in it?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, id: u64) -> bool {
        self.0.binary_search(&id).is_ok()
    }
}

/// What two processes have in common. Streams.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overlap {
    /// In either.
    pub union: f64,
    /// In both.
    pub shared: f64,
    /// Standard error of `shared`; 0 where the samples hold everything.
    pub error: f64,
}

impl Overlap {
    /// Of two samples under one key.
    pub fn of(a: &Sample, b: &Sample) -> Overlap {
        let both = a.union(b);
        let in_both = both.0.iter().filter(|id| a.has(**id) && b.has(**id)).count() as f64;
        let (n, union) = (both.0.len().max(1) as f64, both.estimate());
        let part = in_both / n;
        let is_all = both.0.len() < SAMPLE_MAX;
        let error = if is_all { 0.0 } else { union * (part * (1.0 - part) / n).sqrt() };
        Overlap { union, shared: part * union, error }
    }

    /// More than chance: above three standard errors.
    pub fn is_shown(&self) -> bool {
        self.shared > 3.0 * self.error && self.shared > 0.0
    }
}

/// What a process says about its streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Fingerprint of the key under which identities were made.
    pub key: u64,
    /// Which process: unique among all that ever were.
    pub process: String,
    /// Its cumulative streams that a plan folds, of late.
    pub sample: Sample,
}

impl Report {
    /// As protobuf: `uint64 version = 1; fixed64 key = 2; string process = 3; repeated fixed64 sample = 4 [packed];`
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint_field(&mut out, 1, VERSION);
        put_fixed64_field(&mut out, 2, self.key);
        put_bytes_field(&mut out, 3, self.process.as_bytes());
        let packed: Vec<u8> = self.sample.0.iter().flat_map(|id| id.to_le_bytes()).collect();
        put_bytes_field(&mut out, 4, &packed);
        out
    }

    /// Read one. Unknown fields are passed over; `None`: no report of this version.
    pub fn decode(bytes: &[u8]) -> Option<Report> {
        Report::read(bytes).ok().flatten()
    }

    fn read(bytes: &[u8]) -> Result<Option<Report>, WireError> {
        let (mut version, mut key, mut process, mut sample) = (0, 0, None, Sample::default());
        let mut fields = Fields::new(bytes, Span::all(bytes));
        while let Some(field) = fields.next()? {
            match field.number {
                1 => version = field.varint()?,
                2 => key = field.fixed64()?,
                3 => process = core::str::from_utf8(field.bytes()?.bytes(bytes)).ok().map(str::to_owned),
                4 if sample.is_empty() => {
                    let words = field.bytes()?.bytes(bytes).chunks_exact(8);
                    let ids = words.map(|w| w.first_chunk().map_or(0, |w| u64::from_le_bytes(*w)));
                    sample = Sample::of(ids);
                }
                _ => {}
            }
        }
        let process = process.filter(|p| !p.is_empty() && p.len() <= PROCESS_BYTES_MAX);
        Ok(process.filter(|_| version == VERSION).map(|process| Report { key, process, sample }))
    }
}

/// May cumulative sums fold?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet: no.
    #[default]
    Unknown,
    /// The streams of this process reach no other: yes.
    Shown,
    /// They reach others too: no.
    Refuted,
}

/// Collects what peers say.
///
/// A stream that moved from one process to another is in the samples of both for a while; one that is balanced stays in both. So a shared
/// stream counts as evidence once the same peer has had it in two answers with more than the time between them that samples look back.
#[derive(Default)]
pub struct Check {
    verdict: Verdict,
    clean: u32,
    /// Clean answers that lift a refutation; doubled by each, so that it cannot flap.
    needed: u32,
    last: Overlap,
    /// Shared streams by peer, and since when.
    suspects: BTreeMap<(String, u64), UnixNanos>,
}

impl Check {
    /// A new leader takes over: cumulative sums fold already, or they do not.
    pub fn resume(shown: bool) -> Check {
        Check { verdict: if shown { Verdict::Shown } else { Verdict::Unknown }, ..Check::default() }
    }

    /// What is known.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What the last peer had in common with us.
    pub fn last(&self) -> Overlap {
        self.last
    }

    /// A peer has answered: perhaps this process itself, whom the balancer may pick too, which says nothing. `None`: no answer, or one
    /// that cannot be read. Silence shows nothing, and takes back nothing. Samples look back for `recent_ns`.
    pub fn hear(&mut self, own: &Report, peer: Option<&Report>, recent_ns: u64, now: UnixNanos) -> Verdict {
        let Some(peer) = peer.filter(|peer| peer.key == own.key && peer.process != own.process) else {
            return self.verdict;
        };
        if own.sample.is_empty() || peer.sample.is_empty() {
            return self.verdict;
        }
        self.last = Overlap::of(&own.sample, &peer.sample);
        if !self.last.is_shown() {
            self.suspects.retain(|(process, _), _| *process != peer.process);
            self.clean = self.clean.saturating_add(1);
            if self.clean >= self.needed.max(CLEAN_MIN) {
                self.verdict = Verdict::Shown;
            }
            return self.verdict;
        }
        self.clean = 0;
        if self.has_stayed(own, peer, recent_ns, now) && self.verdict != Verdict::Refuted {
            self.verdict = Verdict::Refuted;
            self.needed = self.needed.saturating_mul(2).clamp(CLEAN_AFTER_MIN, CLEAN_AFTER_MAX);
        }
        self.verdict
    }

    /// Are there streams that this peer has shared with us for longer than a stream that moved would be seen by both?
    fn has_stayed(&mut self, own: &Report, peer: &Report, recent_ns: u64, now: UnixNanos) -> bool {
        let shared: Vec<u64> = own.sample.0.iter().copied().filter(|id| peer.sample.has(*id)).collect();
        let mut stayed = 0u64;
        let mut next = BTreeMap::new();
        for id in shared {
            let since = self.suspects.get(&(peer.process.clone(), id)).copied().unwrap_or(now);
            stayed = stayed.saturating_add(u64::from(now.since(since) > recent_ns));
            next.insert((peer.process.clone(), id), since);
        }
        self.suspects.retain(|(process, _), _| *process != peer.process);
        if self.suspects.len() < SUSPECTS_MAX {
            self.suspects.append(&mut next);
        }
        stayed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random as identities are.
    fn id(n: u64) -> u64 {
        let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn sample(range: core::ops::Range<u64>) -> Sample {
        Sample::of(range.map(id))
    }

    fn report(process: &str, range: core::ops::Range<u64>) -> Report {
        Report { key: 7, process: process.into(), sample: sample(range) }
    }

    #[test]
    fn small_sets_are_exact() {
        let o = Overlap::of(&sample(0..300), &sample(250..600));
        assert_eq!((o.union, o.shared, o.error), (600.0, 50.0, 0.0));
        assert!(o.is_shown());
        assert!(!Overlap::of(&sample(0..300), &sample(300..600)).is_shown());
        assert!(!Overlap::of(&sample(0..0), &sample(0..0)).is_shown());
        let twice = Sample::of((0..300).chain(0..300).map(id));
        assert_eq!(twice, sample(0..300));
    }

    #[test]
    fn large_sets_are_estimated_within_their_error() {
        for n in [5_000u64, 100_000, 1_000_000] {
            let (a, b) = (sample(0..n), sample(n / 2..n + n / 2));
            let o = Overlap::of(&a, &b);
            assert!((a.estimate() / n as f64 - 1.0).abs() < 0.12, "{} of {n}", a.estimate());
            assert!((o.shared - n as f64 / 2.0).abs() < 5.0 * o.error + 0.12 * n as f64 / 2.0, "{o:?}");
            assert!(o.is_shown());
            // Strangers are never suspected, whatever the error of an estimate.
            assert_eq!(Overlap::of(&a, &sample(n..2 * n)).shared, 0.0);
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let it = report("gateway-0@1", 0..5_000);
        assert_eq!(Report::decode(&it.encode()), Some(it.clone()));
        assert!(it.encode().len() < 9_000);
        for len in 0..it.encode().len() {
            // Cut where a field ends it is a smaller report, elsewhere none; never a panic.
            let _ = Report::decode(&it.encode()[..len]);
        }
        assert_eq!(Report::decode(b""), None);
        assert_eq!(Report::decode(b"<html>"), None);
    }

    /// Answers one after the other, ten seconds apart, samples that look back for 25: `peer:range` each; what is known after each.
    fn hear(check: &mut Check, from_s: u64, answers: &[(&str, core::ops::Range<u64>)]) -> String {
        let own = report("a", 0..500);
        let mut told = String::new();
        for (n, (peer, range)) in answers.iter().enumerate() {
            let now = UnixNanos((from_s + 10 * n as u64) * 1_000_000_000);
            told.push(match check.hear(&own, Some(&report(peer, range.clone())), 25_000_000_000, now) {
                Verdict::Unknown => '?',
                Verdict::Shown => 'S',
                Verdict::Refuted => 'R',
            });
        }
        told
    }

    #[test]
    fn others_show_affinity_and_nobody_else_does() {
        let own = report("a", 0..500);
        let mut check = Check::default();
        // Itself, an empty peer, silence, and another key say nothing.
        assert_eq!(hear(&mut check, 0, &[("a", 0..500), ("b", 0..0), ("a", 0..500), ("c", 0..0)]), "????");
        let foreign = Report { key: 8, ..report("b", 0..500) };
        for peer in [None, Some(&foreign)] {
            assert_eq!(check.hear(&own, peer, 25, UnixNanos(0)), Verdict::Unknown);
        }
        assert_eq!(hear(&mut check, 100, &[("b", 500..900), ("b", 500..900), ("c", 900..901)]), "??S");
        assert_eq!(check.hear(&own, None, 25, UnixNanos(0)), Verdict::Shown);
    }

    #[test]
    fn a_stream_that_moves_refutes_nothing_and_one_that_stays_does() {
        let mut check = Check::resume(true);
        // Seen in both for as long as samples look back, then in one.
        assert_eq!(hear(&mut check, 0, &[("b", 499..900), ("b", 499..900), ("b", 500..900)]), "SSS");
        // Three answers over twenty seconds are too few, a fourth is not.
        assert_eq!(hear(&mut check, 100, &[("b", 499..900), ("b", 499..900), ("b", 499..900)]), "SSS");
        assert_eq!(hear(&mut check, 130, &[("b", 499..900)]), "R");
        assert_eq!(check.last().shared, 1.0);
        // One in five shares: it stays refuted however often the others answer.
        let round = [("c", 900..950), ("d", 900..950), ("e", 900..950), ("f", 900..950), ("b", 499..900)];
        for n in 0..30 {
            assert_eq!(hear(&mut check, 200 + 50 * n, &round), "RRRRR", "{n}");
        }
        // Mended: five minutes later it folds again; the next time ten.
        let clean: Vec<_> = (0..30).map(|_| ("b", 500..900)).collect();
        assert_eq!(hear(&mut check, 3_000, &clean), "R".repeat(29) + "S");
        let shared: Vec<_> = (0..4).map(|_| ("b", 400..900)).collect();
        assert_eq!(hear(&mut check, 4_000, &shared), "SSSR");
        assert_eq!(hear(&mut check, 5_000, &clean), "R".repeat(30));
        assert_eq!(hear(&mut check, 6_000, &clean), "R".repeat(29) + "S");
    }

    #[test]
    fn before_it_is_shown_a_shared_stream_only_delays() {
        let mut check = Check::default();
        let answers = [
            ("b", 500..900),
            ("b", 500..900),
            ("b", 499..900),
            ("b", 500..900),
            ("b", 500..900),
            ("b", 500..900),
        ];
        assert_eq!(hear(&mut check, 0, &answers), "?????S");
    }
}
