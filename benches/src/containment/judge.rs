//! The judge: what came in against what came out.
//!
//! In: every batch as it went in and as it went on, and every emission. Out: a [`Verdict`]. The judge reads OTLP by `prost`, knows the scenario's shares and who was there
//! before the explosion, and nothing of how a process works. `docs/containment.md` has the rules in words. Refuses a body that it cannot read: what no backend can
//! read is an error of the process, but no number could be given.

/// How many are alive.
mod alive;
/// One metric of one tenant.
mod book;

use super::otlp::{Keys, Quantity, Said};
use super::process::{Emission, Gaps};
use super::scenario::{Request, START_NS, Scenario, Share};
use super::verdict::{FirstFold, Verdict};
use anyhow::Context as _;
use book::{Book, Fate, Rules};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use std::collections::{BTreeMap, HashMap};

/// What one share has seen.
struct Held {
    share: Share,
    /// Batches of the tenant that had a point under the share.
    batches: u64,
    exceeded: Option<u64>,
    folded: Option<u64>,
    in_most: usize,
    /// At the worst time: raw series, folded series, and when that was.
    worst: (usize, usize, u64),
}

/// The judge of one run.
pub struct Judge {
    scenario: Scenario,
    rules: Rules,
    books: BTreeMap<(String, String), Book>,
    held: Vec<Held>,
    keys: Keys,
    foreign: u64,
    touched: u64,
}

/// A point that came out: whether it is a stale marker, and what it says.
type Came = HashMap<(String, Box<[u8]>, u64), Quantity>;

impl Judge {
    /// Of a scenario, reading gaps so.
    pub fn new(scenario: Scenario, gaps: Gaps) -> Judge {
        let times = scenario.times();
        let rules = Rules {
            gaps,
            // A period is three generations, of which the current one has just begun or is about to end.
            alive_ns: times.period_s * 2 / 3 * 1_000_000_000,
            dwell_ns: times.dwell_s * 1_000_000_000,
            explodes_ns: scenario.explodes_ns(),
        };
        let held = scenario.shares().into_iter().map(|share| Held {
            share,
            batches: 0,
            exceeded: None,
            folded: None,
            in_most: 0,
            worst: (0, 0, 0),
        });
        Judge {
            scenario,
            rules,
            books: BTreeMap::new(),
            held: held.collect(),
            keys: Keys::default(),
            foreign: 0,
            touched: 0,
        }
    }

    /// A batch, and what went on of it.
    ///
    /// # Errors
    /// One of the two cannot be read.
    pub fn batch(&mut self, request: &Request, forwarded: &[u8]) -> anyhow::Result<()> {
        let message =
            ExportMetricsServiceRequest::decode(&request.body[..]).context("a batch of the scenario")?;
        let is_same = request.body == forwarded;
        if !is_same && !self.held.iter().any(|held| held.share.tenant == request.tenant) {
            self.touched += 1;
        }
        let mut came = Came::new();
        if !is_same {
            let message = ExportMetricsServiceRequest::decode(forwarded).context("what was forwarded")?;
            self.keys.each(&message, |said| {
                came.insert((said.metric.to_owned(), said.key.into(), said.time_ns), said.quantity);
            });
        }
        let (mut keys, mut touched) = (std::mem::take(&mut self.keys), BTreeMap::new());
        keys.each(&message, |said| {
            let fate = if is_same { Fate::Raw } else { fate(&said, &mut came, &mut self.foreign) };
            let book = self.book(&request.tenant, said.metric);
            book.point(&said, fate, request.worker, request.at_ns);
            if !touched.contains_key(said.metric) {
                touched.insert(said.metric.to_owned(), false);
            }
            if let Some(cut) = touched.get_mut(said.metric) {
                *cut |= fate == Fate::Cut;
            }
        });
        self.keys = keys;
        // What is left came out and had not gone in.
        self.foreign += came.len() as u64;
        self.weigh(Some((&request.tenant, &touched)), request.at_ns);
        Ok(())
    }

    /// What a process said by itself at `now_ns`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn emission(&mut self, emission: &Emission, now_ns: u64) -> anyhow::Result<()> {
        let message = ExportMetricsServiceRequest::decode(&emission.body[..]).context("an emission")?;
        if !self.held.iter().any(|held| held.share.tenant == emission.tenant) {
            self.touched += 1;
        }
        let mut keys = std::mem::take(&mut self.keys);
        keys.each(&message, |said| self.book(&emission.tenant, said.metric).folded(&said, now_ns));
        self.keys = keys;
        self.weigh(None, now_ns);
        Ok(())
    }

    fn book(&mut self, tenant: &str, metric: &str) -> &mut Book {
        let is_guilty =
            self.held.iter().any(|held| held.share.tenant == tenant) && self.scenario.is_guilty(metric);
        let rules = self.rules;
        self.books
            .entry((tenant.to_owned(), metric.to_owned()))
            .or_insert_with(|| Book::new(rules, is_guilty))
    }

    /// Holds every share against what is alive. `batch`: whose it was, and of which of its metrics a point was cut.
    fn weigh(&mut self, batch: Option<(&str, &BTreeMap<String, bool>)>, now_ns: u64) {
        for held in &mut self.held {
            let share = &held.share;
            let is_under = |metric: &str| share.metric.as_deref().is_none_or(|m| m == metric);
            let (mut came, mut raw, mut folded) = (0, 0, 0);
            for ((tenant, metric), book) in &mut self.books {
                if *tenant == share.tenant && is_under(metric) {
                    came += book.alive_in.pass(now_ns);
                    raw += book.alive_raw.pass(now_ns);
                    folded += book.alive_folded.pass(now_ns);
                }
            }
            held.in_most = held.in_most.max(came);
            if raw + folded > held.worst.0 + held.worst.1 {
                held.worst = (raw, folded, now_ns);
            }
            let Some((tenant, touched)) = batch.filter(|(tenant, _)| **tenant == *share.tenant) else {
                continue;
            };
            debug_assert_eq!(tenant, share.tenant);
            let mut cuts =
                touched.iter().filter(|(metric, _)| is_under(metric)).map(|(_, cut)| *cut).peekable();
            if cuts.peek().is_none() {
                continue;
            }
            held.batches += 1;
            if came > share.series {
                held.exceeded.get_or_insert(held.batches);
            }
            if cuts.any(|cut| cut) {
                held.folded.get_or_insert(held.batches);
            }
        }
    }

    /// What was found, after the last emission.
    pub fn verdict(self) -> Verdict {
        let mut verdict = Verdict { foreign: self.foreign, touched: self.touched, ..Verdict::default() };
        for held in &self.held {
            let (raw, folded, at_ns) = held.worst;
            let over = (raw + folded).saturating_sub(held.share.series) as f64 / held.share.series as f64;
            verdict.over = verdict.over.max(over);
            verdict.in_most = verdict.in_most.max(held.in_most);
            if raw + folded > verdict.out_most {
                verdict.out_most = raw + folded;
                verdict.worst = (raw, folded, at_ns.saturating_sub(START_NS) as f64 / 1e9);
            }
            verdict.first_fold = verdict.first_fold.max(match (held.exceeded, held.folded) {
                (None, _) => FirstFold::NotNeeded,
                (Some(exceeded), Some(folded)) => FirstFold::After(folded.saturating_sub(exceeded)),
                (Some(exceeded), None) => FirstFold::Never(held.batches - exceeded),
            });
        }
        for ((tenant, metric), book) in &self.books {
            let (innocent, cut) = book.innocent();
            verdict.innocent += innocent;
            verdict.innocent_cut += cut;
            verdict.cut += book.cut;
            verdict.changes += book.changes;
            verdict.flaps += book.flaps;
            verdict.splits += book.splits;
            verdict.turned += book.turned;
            verdict.foreign += book.strange;
            let (error, all) = book.error();
            if error > 0 {
                verdict.errors.push((format!("{tenant}/{metric}"), error, all));
            }
            if self.held.iter().any(|held| held.share.tenant == *tenant) && self.scenario.is_guilty(metric) {
                verdict.total += all;
                verdict.total_error += error;
            } else {
                verdict.other_error += error;
            }
        }
        verdict
    }
}

/// Did this point come out, and as itself?
fn fate(said: &Said<'_>, came: &mut Came, foreign: &mut u64) -> Fate {
    // The borrowed key has no owner to look up by: one copy a point, in batches that were changed.
    match came.remove(&(said.metric.to_owned(), said.key.into(), said.time_ns)) {
        None | Some(Quantity::Ended) => Fate::Cut,
        Some(quantity) => {
            *foreign += u64::from(quantity != said.quantity);
            Fate::Raw
        }
    }
}
