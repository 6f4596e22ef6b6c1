//! One turn of the loop: files that changed, estimates, a decision, on disk, out.
//!
//! Enters: reports in force, approvals, time. Leaves: the newest [`Decided`], a snapshot on the board, lines for the audit log. What is published is what is on disk: a decision that
//! could not be kept is not published, and is made again.

use super::arguments::Arguments;
use super::diff::{Diff, Of, diff};
use super::intake::Intake;
use super::state::{Kept, Published, State};
use super::watch::LOOP;
use crate::collect::{Settings, node_of};
use crate::decide::{
    self, Decided, Decision, Hold, Outcome, Previous, Rollback, RolledBack, decide, over_budget,
};
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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tracing::Span;
use tracing::field::Empty;

/// The loop and what it knows.
pub struct Core {
    path: PathBuf,
    read_of: Vec<Option<SystemTime>>,
    pub policy: Policy,
    pub needs: Needs,
    pub policy_trouble: Option<String>,
    arguments: Arguments,
    module: Module,
    /// The module's settings in Envoy.
    settings: Value,
    intake: Arc<Intake>,
    state: State,
    previous: Option<Previous>,
    published: Published,
    /// What each node had before what it has.
    before: Published,
    board: Board,
    pub estimates: Estimates,
    pub decided: Option<Decided>,
    /// Turns, those that failed, and how long the last one took.
    pub turns: u64,
    pub turns_failed: u64,
    pub turn_ns: u64,
    /// When the newest decision was made, before it was kept and sent.
    pub decided_at_ns: u64,
    /// Why the newest turn failed.
    pub turn_trouble: Option<String>,
}

/// The span of a stage, with attributes that come while it runs.
macro_rules! stage {
    ($name:literal, $($field:ident),*) => {
        tracing::info_span!(target: LOOP, $name, $($field = Empty),*)
    };
}

/// A line for the audit log: action, subject, detail.
pub type Said = (&'static str, String, String);

impl Core {
    /// Reads everything, and publishes what was published last.
    pub fn open(arguments: &Arguments, board: Board, now_ns: u64) -> Result<Core> {
        let (policy, needs) = read(&arguments.policy)?;
        let state = State::open(&arguments.state)?;
        let Kept { previous, published } = state.load()?;
        let before = state.before()?;
        let settings = arguments.settings(&interval(&policy))?;
        let core = Core {
            read_of: stamps(&arguments.policy, &policy),
            path: arguments.policy.clone(),
            intake: Arc::new(Intake::new(Settings::of(&policy))),
            policy,
            needs,
            policy_trouble: None,
            arguments: arguments.clone(),
            module: arguments.module(),
            settings,
            state,
            previous,
            published,
            before,
            board,
            estimates: Estimates { at_ns: now_ns, ..Estimates::default() },
            decided: None,
            turns: 0,
            turns_failed: 0,
            turn_ns: 0,
            decided_at_ns: 0,
            turn_trouble: None,
        };
        core.publish();
        core.write_files()?;
        Ok(core)
    }

    /// Where reports come in.
    pub fn intake(&self) -> Arc<Intake> {
        self.intake.clone()
    }

    /// Time between two turns.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.policy.interval.as_nanos())
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
        self.state.keep(&kept, None, &[])?;
        self.previous = kept.previous;
        Ok(true)
    }

    /// Takes folds back; the next turn carries it out. Forced: whatever the budgets are.
    pub fn roll_back(
        &mut self,
        wish: &Rollback<'_>,
        is_forced: bool,
    ) -> Result<Result<(Hold, Vec<RolledBack>), decide::Refusal>> {
        let Some(mut next) = self.previous.clone() else {
            return Ok(Err(decide::Refusal::Nothing("no fold was ever decided".to_owned())));
        };
        if let Err(refusal) = next.may_roll_back(wish) {
            return Ok(Err(refusal));
        }
        let (past, is_whole) = self.state.past(wish.to)?;
        if !is_whole {
            let why = "to: decisions that old are not kept; allowed: a later version";
            return Ok(Err(decide::Refusal::Range(why.to_owned())));
        }
        let rolled = match next.roll_back(&past, wish, &self.policy) {
            Ok(rolled) => rolled,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(previous) = self.previous.as_ref().filter(|_| !is_forced)
            && let Some(why) = over_budget(previous, &rolled, &self.estimates, &self.needs, &self.policy)
        {
            return Ok(Err(decide::Refusal::Budget(why)));
        }
        let hold = next.hold.clone().context("a rollback without a hold")?;
        let kept = Kept { previous: Some(next), published: self.published.clone() };
        self.state.keep(&kept, None, &[])?;
        self.previous = kept.previous;
        Ok(Ok((hold, rolled)))
    }

    /// Ends a hold; none: there is none.
    pub fn release(&mut self, now_ns: u64) -> Result<Option<Hold>> {
        let Some(mut next) = self.previous.clone() else { return Ok(None) };
        let Some(hold) = next.release(now_ns) else { return Ok(None) };
        let kept = Kept { previous: Some(next), published: self.published.clone() };
        self.state.keep(&kept, None, &[])?;
        self.previous = kept.previous;
        Ok(Some(hold))
    }

    /// A rollback that stands.
    pub fn hold(&self, now_ns: u64) -> Option<Hold> {
        self.previous.as_ref()?.holding(now_ns).cloned()
    }

    /// Ids of decisions that wait for somebody to approve.
    pub fn waiting(&self) -> Vec<String> {
        let said = self.decided.iter().flat_map(|it| &it.next.said);
        said.filter(|(_, said)| **said == Outcome::WaitsForApproval).map(|(id, _)| id.clone()).collect()
    }

    /// What the plan that waits, or is in force, changes to the one before.
    pub fn diff(&self, of: Option<Of>, node: Option<&str>, now_ns: u64) -> Result<Diff> {
        let waiting = self.waiting();
        let of = of.unwrap_or(if waiting.is_empty() { Of::InForce } else { Of::Waiting });
        if of == Of::InForce {
            return Ok(diff(of, waiting, &self.before, &self.published, node));
        }
        // What would be decided, were everything approved: by the very function, with what is known now.
        let next = self.previous.clone().map(|mut next| {
            waiting.iter().for_each(|id| {
                next.approve(id);
            });
            next
        });
        let decided = decide(&self.estimates, &self.needs, &self.policy, next.as_ref(), now_ns);
        Ok(diff(of, waiting, &self.published, &self.next_published(&decided)?, node))
    }

    /// Decisions that a crash has kept out of the audit log.
    pub fn unaudited(&self) -> Result<Vec<Said>> {
        let mut said: Vec<Said> = self.state.unaudited()?.iter().map(of_decision).collect();
        let hold = self.previous.as_ref().and_then(|it| it.hold.as_ref());
        if let Some(hold) = hold
            && self.state.hold_audited()? < hold.at_ns
        {
            said.push(("rolled back", format!("to version {}", hold.to), hold.words()));
        }
        Ok(said)
    }

    /// All that was said is in the audit log.
    pub fn audited(&self) -> Result<()> {
        self.state.audited()
    }

    /// The rollback that stands is in the audit log.
    pub fn audit_hold(&self) -> Result<()> {
        match self.previous.as_ref().and_then(|it| it.hold.as_ref()) {
            Some(hold) if self.state.hold_audited()? < hold.at_ns => self.state.audit_hold(hold.at_ns),
            _ => Ok(()),
        }
    }

    /// One turn: what is to be said of it, and what failed.
    pub fn turn(&mut self, now_ns: u64) -> (Vec<Said>, Option<anyhow::Error>) {
        let began = std::time::Instant::now();
        let mut said = Vec::new();
        let span = tracing::info_span!(
            target: LOOP, parent: None, "turn", number = whole(self.turns + 1), mode = self.mode(), otel.status_code = Empty
        );
        let failed = span.in_scope(|| self.turned(now_ns, began, &mut said)).err();
        if failed.is_some() {
            span.record("otel.status_code", "ERROR");
        }
        drop(span);
        self.turn_trouble = failed.as_ref().map(|error| format!("{error:#}"));
        self.turns += 1;
        self.turns_failed += u64::from(failed.is_some());
        self.turn_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        tracing::debug!(number = self.turns, took_ns = self.turn_ns, "turn");
        (said, failed)
    }

    fn turned(&mut self, now_ns: u64, began: std::time::Instant, said: &mut Vec<Said>) -> Result<()> {
        let collector = stage!("collect", embedders, report_bytes).in_scope(|| {
            self.look_at_policy(said);
            let (forgotten, collector) = self.intake.newest(now_ns);
            for process in forgotten {
                said.push(("forgot", process, "silent for reports.forget_after".to_owned()));
            }
            let (embedders, bytes) = (collector.len(), collector.held_bytes());
            Span::current().record("embedders", whole(embedders)).record("report_bytes", whole(bytes));
            collector
        });
        let estimates = stage!("estimate", tenants, metrics, active_series).in_scope(|| {
            let estimates = estimate(&collector, &self.policy, now_ns);
            let all = &estimates.tenants;
            Span::current()
                .record("tenants", whole(all.len()))
                .record("metrics", whole(all.values().map(|it| it.metrics.len()).sum::<usize>()))
                .record("active_series", all.values().map(|it| it.active.value).sum::<f64>());
            estimates
        });
        let decided = stage!("decide", decisions, plan_version, series_in, series_out).in_scope(|| {
            let decided = decide(&estimates, &self.needs, &self.policy, self.previous.as_ref(), now_ns);
            Span::current()
                .record("decisions", whole(decided.decisions.len()))
                .record("plan_version", whole(decided.next.version))
                .record("series_in", decided.saving.series_in)
                .record("series_out", decided.saving.series_out);
            decided
        });
        let since_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let decided_at_ns = now_ns.saturating_add(since_ns);
        let publish = stage!("publish", nodes, plans_new);
        let _publishing = publish.enter();
        let lines = said.len();
        let published = self.next_published(&decided)?;
        let kept = Kept { previous: Some(decided.next.clone()), published };
        let before = self.next_before(&kept.published);
        self.state
            .keep(&kept, before.as_ref(), &decided.decisions)
            .context("state: the decision is not kept, nor published")?;
        let new = kept.published.iter().filter(|(node, text)| self.published.get(*node) != Some(*text));
        for (node, text) in new {
            let node = if node.is_empty() { "(others)" } else { node };
            said.push(("published", node.to_owned(), format!("plan {}", Text::new(text).version)));
        }
        publish.record("nodes", whole(kept.published.len())).record("plans_new", whole(said.len() - lines));
        said.extend(decided.decisions.iter().map(of_decision));
        (self.previous, self.published) = (kept.previous, kept.published);
        if let Some(before) = before {
            self.before = before;
        }
        (self.estimates, self.decided, self.decided_at_ns) = (estimates, Some(decided), decided_at_ns);
        self.publish();
        self.write_files()
    }

    /// What every node is to have: what was decided now; for those who were not heard, what they had.
    fn next_published(&self, decided: &Decided) -> Result<Published> {
        let settings = &self.settings;
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

    /// What each node had before this; none: as it was.
    fn next_before(&self, published: &Published) -> Option<Published> {
        let mut before: Published = self
            .before
            .iter()
            .filter(|(node, _)| published.contains_key(*node))
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect();
        for (node, text) in &self.published {
            if published.get(node).is_some_and(|new| new != text) {
                before.insert(node.clone(), text.clone());
            }
        }
        (before != self.before).then_some(before)
    }

    fn publish(&self) {
        let of = self.published.iter().map(|(node, text)| {
            let whose = if node.is_empty() { Whose::Others } else { Whose::Node(node.clone()) };
            (whose, Text::new(text))
        });
        self.board.publish(Snapshot { of: of.collect() });
    }

    /// The plans of nodes that watch a file; of those that have not been heard yet, the newcomers'.
    fn write_files(&self) -> Result<()> {
        for (node, folder) in &self.arguments.files {
            if let Some(text) = self.published.get(node).or_else(|| self.published.get("")) {
                file::replace(folder, &self.module, &Text::new(text))?;
            }
        }
        Ok(())
    }

    /// Reads the policy and its queries again if a file of them has changed. What cannot be read leaves all of it as it was.
    fn look_at_policy(&mut self, said: &mut Vec<Said>) {
        let now = stamps(&self.path, &self.policy);
        if now == self.read_of {
            return;
        }
        let name = self.path.display().to_string();
        let both = read(&self.path)
            .and_then(|(policy, needs)| Ok((self.arguments.settings(&interval(&policy))?, policy, needs)));
        match both {
            Ok((settings, policy, needs)) => {
                self.settings = settings;
                self.intake.configure(Settings::of(&policy));
                (self.policy, self.needs, self.policy_trouble) = (policy, needs, None);
                // Another policy may name other files.
                self.read_of = stamps(&self.path, &self.policy);
                said.push(("read", name, "the policy and its queries are in force".to_owned()));
            }
            Err(error) => {
                self.read_of = now;
                let why = format!("{error:#}");
                self.policy_trouble = Some(why.clone());
                said.push(("refused", name, why));
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

/// A number as OpenTelemetry has them: signed.
fn whole(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// How often embedders report: as often as is decided.
fn interval(policy: &Policy) -> String {
    format!("{}ms", policy.interval.as_nanos() / 1_000_000)
}

fn of_decision(decision: &Decision) -> Said {
    let action = match decision.outcome {
        Outcome::InForce { .. } => "decided",
        Outcome::WouldBeDone => "would decide",
        Outcome::WaitsForApproval => "proposed",
        Outcome::Held { .. } => "held",
    };
    let subject = format!("{} {}/{}", decision.id, decision.tenant, decision.metric);
    (action, subject, decision.sentence.clone())
}

/// The files of the queries that a policy names.
fn query_files<'p>(path: &'p Path, policy: &'p Policy) -> impl Iterator<Item = PathBuf> + 'p {
    let folder = path.parent().unwrap_or(Path::new("."));
    policy.queries.iter().flat_map(|it| &it.files).map(move |file| folder.join(file))
}

/// When the policy and its files changed last.
fn stamps(path: &Path, policy: &Policy) -> Vec<Option<SystemTime>> {
    let all = std::iter::once(path.to_owned()).chain(query_files(path, policy));
    all.map(|file| file.metadata().and_then(|it| it.modified()).ok()).collect()
}

/// The policy with its queries. A file of queries that cannot be read is an error: nobody could say whose labels are free.
fn read(path: &Path) -> Result<(Policy, Needs)> {
    let policy = policy_commands::load(path)?;
    for file in query_files(path, &policy) {
        std::fs::File::open(&file).with_context(|| format!("queries.files: {}", file.display()))?;
    }
    let needs = needs::load(&policy, path.parent().unwrap_or(Path::new(".")));
    Ok((policy, needs))
}
