//! One turn of the loop: files that changed, estimates, a decision, on disk, out.
//!
//! Enters: reports, approvals, time. Leaves: the newest [`Decided`], a snapshot on the board, lines for the audit log. What is published is what is on disk: a decision that
//! could not be kept is not published, and is made again.

use super::arguments::Arguments;
use super::state::{Kept, Published, State};
use crate::collect::{Collector, Refusal, Settings, Taken};
use crate::decide::{Decided, Decision, Outcome, Previous, decide};
use crate::estimate::{Estimates, estimate};
use crate::needs::{self, Needs};
use crate::policy::{Mode, Policy};
use crate::policy_commands;
use anyhow::{Context as _, Result};
use phoenix_plan::Plan;
use phoenix_serve::publish::board::{Board, Published as Text, Snapshot, Whose};
use phoenix_serve::publish::extension::Module;
use phoenix_serve::publish::file;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The loop and what it knows.
pub struct Core {
    path: PathBuf,
    read_of: Option<SystemTime>,
    pub policy: Policy,
    pub needs: Needs,
    pub policy_trouble: Option<String>,
    arguments: Arguments,
    module: Module,
    collector: Collector,
    state: State,
    previous: Option<Previous>,
    published: Published,
    board: Board,
    pub estimates: Estimates,
    pub decided: Option<Decided>,
    /// Turns, those that failed, and how long the last one took.
    pub turns: u64,
    pub turns_failed: u64,
    pub turn_ns: u64,
    pub audit_failed: u64,
    /// Reports by what became of them.
    pub reports: BTreeMap<&'static str, u64>,
}

/// A line for the audit log: action, subject, detail.
pub type Said = (&'static str, String, String);

impl Core {
    /// Reads everything, and publishes what was published last.
    pub fn open(arguments: &Arguments, board: Board, now_ns: u64) -> Result<Core> {
        let (policy, needs) = read(&arguments.policy)?;
        let state = State::open(&arguments.state)?;
        let Kept { previous, published } = state.load()?;
        arguments.settings("10s")?;
        let core = Core {
            read_of: modified(&arguments.policy),
            path: arguments.policy.clone(),
            collector: Collector::new(Settings::of(&policy)),
            policy,
            needs,
            policy_trouble: None,
            arguments: arguments.clone(),
            module: arguments.module(),
            state,
            previous,
            published,
            board,
            estimates: Estimates { at_ns: now_ns, ..Estimates::default() },
            decided: None,
            turns: 0,
            turns_failed: 0,
            turn_ns: 0,
            audit_failed: 0,
            reports: BTreeMap::new(),
        };
        core.publish()?;
        Ok(core)
    }

    /// Time between two turns.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.policy.interval.as_nanos())
    }

    /// A report.
    pub fn take(&mut self, bytes: &[u8], now_ns: u64) -> Result<Taken, Refusal> {
        let taken = self.collector.take(bytes, now_ns);
        let word = match &taken {
            Ok(_) => "taken",
            Err(refusal) => refusal.reason.word(),
        };
        *self.reports.entry(word).or_default() += 1;
        taken
    }

    /// Processes, and bytes of their reports.
    pub fn held(&self) -> (usize, u64) {
        (self.collector.len(), self.collector.held_bytes())
    }

    /// What was decided, newest first.
    pub fn decisions(&self, limit: usize) -> Result<Vec<(u64, Decision)>> {
        self.state.decisions(limit)
    }

    /// A copy of the state, as a file holds it.
    pub fn backup(&self) -> Result<Vec<u8>> {
        let mut path = self.arguments.state.clone().into_os_string();
        path.push(".backup");
        let path = PathBuf::from(path);
        // What a backup that was interrupted left.
        let _ = std::fs::remove_file(&path);
        self.state.backup(&path)?;
        let bytes = std::fs::read(&path);
        std::fs::remove_file(&path).context("backup")?;
        bytes.context("backup")
    }

    /// Somebody approves of a decision; it is carried out by the next turn. False: no such decision waits.
    pub fn approve(&mut self, id: &str) -> Result<bool> {
        let mut next = match &self.previous {
            Some(previous) => previous.clone(),
            None => return Ok(false),
        };
        if !next.approve(id) {
            return Ok(false);
        }
        let kept = Kept { previous: Some(next), published: self.published.clone() };
        self.state.keep(&kept, &[])?;
        self.previous = kept.previous;
        Ok(true)
    }

    /// One turn.
    pub fn turn(&mut self, now_ns: u64) -> Result<Vec<Said>> {
        let began = std::time::Instant::now();
        let said = self.turned(now_ns);
        self.turns += 1;
        self.turns_failed += u64::from(said.is_err());
        self.turn_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        said
    }

    fn turned(&mut self, now_ns: u64) -> Result<Vec<Said>> {
        let mut said = self.look_at_policy();
        for process in self.collector.forget(now_ns) {
            said.push(("forgot", process, "silent for reports.forget_after".to_owned()));
        }
        let estimates = estimate(&self.collector, &self.policy, now_ns);
        let decided = decide(&estimates, &self.needs, &self.policy, self.previous.as_ref(), now_ns);
        let published = self.next_published(&decided)?;
        let kept = Kept { previous: Some(decided.next.clone()), published };
        self.state
            .keep(&kept, &decided.decisions)
            .context("state: the decision is not kept, nor published")?;
        let new = kept.published.iter().filter(|(node, text)| self.published.get(*node) != Some(*text));
        for (node, text) in new {
            let node = if node.is_empty() { "(others)" } else { node };
            said.push(("published", node.to_owned(), format!("plan {}", Text::new(text).version)));
        }
        for decision in &decided.decisions {
            let action = match decision.outcome {
                Outcome::InForce { .. } => "decided",
                Outcome::WouldBeDone => "would decide",
                Outcome::WaitsForApproval => "proposed",
                Outcome::Held { .. } => "held",
            };
            let subject = format!("{} {}/{}", decision.id, decision.tenant, decision.metric);
            said.push((action, subject, decision.sentence.clone()));
        }
        (self.previous, self.published) = (kept.previous, kept.published);
        self.estimates = estimates;
        self.decided = Some(decided);
        self.publish()?;
        Ok(said)
    }

    /// What every node is to have: what was decided now; for those who were not heard, what they had.
    fn next_published(&self, decided: &Decided) -> Result<Published> {
        let interval = format!("{}ms", self.policy.interval.as_nanos() / 1_000_000);
        let settings = self.arguments.settings(&interval)?;
        let text = |plan: &Plan| json!({"plan": plan, "envoy": settings}).to_string();
        let is_given = |node: &str| decided.next.given.keys().any(|process| node_of(process) == node);
        let mut next: Published = self
            .published
            .iter()
            .filter(|(node, _)| is_given(node))
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect();
        // Of two processes of one node the later name, which begins later, speaks for it.
        for (process, plan) in &decided.plans {
            next.insert(node_of(process).to_owned(), text(plan));
        }
        next.insert(String::new(), text(&decided.newcomer));
        Ok(next)
    }

    fn publish(&self) -> Result<()> {
        let of = self.published.iter().map(|(node, text)| {
            let whose = if node.is_empty() { Whose::Others } else { Whose::Node(node.clone()) };
            (whose, Text::new(text))
        });
        self.board.publish(Snapshot { of: of.collect() });
        if let (Some(folder), Some(text)) = (&self.arguments.file, self.published.get("")) {
            file::replace(folder, &self.module, &Text::new(text))?;
        }
        Ok(())
    }

    /// Reads the policy again if its file has changed.
    fn look_at_policy(&mut self) -> Vec<Said> {
        let modified = modified(&self.path);
        if modified == self.read_of {
            return Vec::new();
        }
        self.read_of = modified;
        let name = self.path.display().to_string();
        match read(&self.path) {
            Ok((policy, needs)) => {
                self.collector.configure(Settings::of(&policy));
                (self.policy, self.needs, self.policy_trouble) = (policy, needs, None);
                vec![("read", name, "the policy is in force".to_owned())]
            }
            Err(error) => {
                let why = format!("{error:#}");
                self.policy_trouble = Some(why.clone());
                vec![("refused", name, why)]
            }
        }
    }

    /// In words.
    pub fn mode(&self) -> &'static str {
        match self.policy.mode {
            Mode::Observe => "observe",
            Mode::Recommend => "recommend",
            Mode::Auto => "auto",
        }
    }

    /// The plan that a node has, as JSON.
    pub fn plan_of(&self, node: &str) -> Option<Value> {
        let text = self.published.get(node).or_else(|| self.published.get(""))?;
        serde_json::from_str(text).ok()
    }
}

/// The node of a process: its name without the time at which it began.
pub fn node_of(process: &str) -> &str {
    process.rsplit_once('@').map_or(process, |(node, _)| node)
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|it| it.modified()).ok()
}

fn read(path: &Path) -> Result<(Policy, Needs)> {
    let policy = policy_commands::load(path)?;
    let needs = needs::load(&policy, path.parent().unwrap_or(Path::new(".")));
    Ok((policy, needs))
}
