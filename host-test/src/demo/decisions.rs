//! What the control host decided, and whether it was done where it should be, and nowhere before.
//!
//! In: what it answers while the demo runs, what each Envoy took, its audit log. Out: a [`Story`]: each decision with its sentence, when each gateway had taken the plan, and what is wrong. What
//! is asked:
//!
//! * nothing is enforced while the shop is observed;
//! * in `auto` the metric into which the label leaks folds on that label and on no other, and both gateways take that plan;
//! * at the end both have the newest plan, and refused none, by what they say to the control host and by what Envoy counts;
//! * the audit log is whole.
//!
//! What became of the points is judged beside ([`super::explosion`]), by the times that decisions name.

/// The story in words.
pub mod text;

use super::control::Control;
use super::gateways::{NODES, Pushes};
use crate::shop::leak::{METRIC, USER_ID};
use anyhow::Context as _;
use phoenix_plan::InstantMs;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest wait for the last plan to be taken.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(15);

/// A decision, as the control host tells it: what of it is asked about.
#[derive(Clone, Debug, Deserialize)]
pub struct Decision {
    /// When, Unix nanoseconds.
    pub at_ns: u64,
    /// The metric; empty: a tenant's budgets.
    pub metric: String,
    /// `fold`, `restore`, `enforce`, `exceeded`.
    pub action: String,
    /// Labels that fold afterwards.
    pub labels: Vec<Label>,
    /// What became of it.
    pub outcome: Outcome,
    /// From when on, in event time.
    pub effective: Option<InstantMs>,
    /// For a person.
    pub sentence: String,
}

/// A label of a point or a resource.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Of a resource.
    pub resource: bool,
}

/// What became of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Outcome {
    /// `in_force`, `would_be_done`, `waits_for_approval`, `held`.
    pub outcome: String,
    /// The version of the plans that it is in.
    #[serde(default)]
    pub version: u64,
}

/// A gateway took a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// `node.id`.
    pub node: String,
    /// The version under which Envoy has it.
    pub version: String,
    /// When the control host heard of it, Unix nanoseconds.
    pub at_ns: u64,
}

/// What a gateway ended with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// `node.id`.
    pub node: String,
    /// Number of the plan that is published for it, and the version of that.
    pub published: (u64, String),
    /// Version that it has.
    pub taken: String,
    /// Number of the plan under which its reports say that the module is.
    pub reported: u64,
    /// What it refused, and why.
    pub refused: Option<String>,
    /// What its Envoy counts.
    pub pushes: Pushes,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// When the traffic began, Unix nanoseconds.
    pub begin_ns: u64,
    /// When the policy said `auto`; 0: never.
    pub auto_ns: u64,
    /// When the traffic ended, Unix nanoseconds; 0: it flows. A shop that has fallen silent is another story.
    pub end_ns: u64,
    /// Oldest first, those of the traffic and before.
    pub decisions: Vec<Decision>,
    /// Oldest first.
    pub taken: Vec<Taken>,
    /// Numbers of plans, by their versions.
    pub numbers: BTreeMap<String, u64>,
    /// Each gateway.
    pub ends: Vec<End>,
    /// What `phoenix audit verify` says.
    pub audit: String,
    /// What is wrong; empty is good.
    pub failures: Vec<String>,
}

impl Decision {
    /// Whether embedders were given it.
    pub fn is_in_force(&self) -> bool {
        self.outcome.outcome == "in_force"
    }

    /// From when on it holds, Unix nanoseconds.
    pub fn effective_ns(&self) -> Option<u64> {
        self.effective.filter(|_| self.is_in_force()).map(InstantMs::as_nanos)
    }
}

impl Story {
    /// Looks at what was taken and decided since the last time.
    ///
    /// # Errors
    /// The control host does not answer.
    pub async fn look(&mut self, control: &Control) -> anyhow::Result<()> {
        let status = control.status().await?;
        for node in NODES {
            let (plan, version) = control.plan(node).await?;
            self.numbers.insert(version, plan["version"].as_u64().unwrap_or(0));
        }
        for (node, said) in nodes(&status) {
            let taken = &said["taken"];
            let version = taken[0].as_str().map(str::to_owned);
            let Some((version, at_ns)) = version.zip(taken[1].as_u64()) else { continue };
            let known = self.taken.iter().rev().find(|it| it.node == node);
            if known.is_none_or(|known| known.version != version) {
                self.taken.push(Taken { node, version, at_ns });
            }
        }
        self.decisions = decisions(control).await?;
        let end_ns = if self.end_ns == 0 { u64::MAX } else { self.end_ns };
        self.decisions.retain(|it| it.at_ns <= end_ns);
        Ok(())
    }

    /// How long a gateway took from a decision to its plan; none: it has not taken it.
    pub fn took(&self, decision: &Decision, node: &str) -> Option<Duration> {
        if !decision.is_in_force() {
            return None;
        }
        let mut taken = self.taken.iter().filter(|it| it.node == node && it.at_ns >= decision.at_ns);
        let number = |it: &Taken| self.numbers.get(&it.version).copied().unwrap_or(0);
        let it = taken.find(|it| number(it) >= decision.outcome.version)?;
        Some(Duration::from_nanos(it.at_ns - decision.at_ns))
    }

    /// Whether both gateways have taken what this is about.
    fn is_taken(&self, decision: &Decision) -> bool {
        NODES.iter().all(|node| self.took(decision, node).is_some())
    }

    /// Whether both gateways have shares of the budgets.
    pub fn is_acting(&self) -> bool {
        let shares = self.decisions.iter().find(|it| it.action == "enforce" && it.is_in_force());
        shares.is_some_and(|it| self.is_taken(it))
    }

    /// The decision by which the leaking metric folds.
    pub fn fold(&self) -> Option<&Decision> {
        self.of_metric("fold").next()
    }

    /// The one by which it comes back.
    pub fn restoration(&self) -> Option<&Decision> {
        self.of_metric("restore").next()
    }

    fn of_metric(&self, action: &str) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(move |it| it.metric == METRIC && it.action == action && it.is_in_force())
    }

    /// Takes down what the gateways ended with; waits a little for the last plan to be taken.
    ///
    /// # Errors
    /// The control host does not answer.
    pub async fn end(&mut self, control: &Control, pushes: &[Pushes]) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            self.ends.clear();
            let status = control.status().await?;
            for (node, pushes) in NODES.iter().zip(pushes) {
                self.ends.push(end_of(control, &status, node, *pushes).await?);
            }
            let is_settled = self.ends.iter().all(|end| end.taken == end.published.1);
            if is_settled || begin.elapsed() > TAKEN_TIMEOUT {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Says what is wrong. `has_leak`: there was something to decide about.
    pub fn judge(&mut self, has_leak: bool, is_restoration_due: bool) {
        let mut wrong = Vec::new();
        if self.auto_ns == 0 {
            wrong.push("the policy never said auto".to_owned());
        }
        let is_early = |it: &&Decision| it.is_in_force() && (self.auto_ns == 0 || it.at_ns < self.auto_ns);
        if let Some(early) = self.decisions.iter().find(is_early) {
            wrong.push(format!("in force while the shop was observed: {}", early.sentence));
        }
        if !self.decisions.iter().any(|it| it.outcome.outcome == "would_be_done") {
            wrong.push("nothing was said while the shop was observed".to_owned());
        }
        if has_leak {
            self.judge_fold(is_restoration_due, &mut wrong);
        }
        let in_force = self.decisions.iter().filter(|it| it.is_in_force());
        let last = in_force.map(|it| it.outcome.version).max().unwrap_or(0);
        for end in &self.ends {
            let (number, version) = &end.published;
            if end.taken != *version || *number == 0 {
                wrong.push(format!(
                    "{} has {:?}, the newest for it is plan {number}, {version:?}",
                    end.node, end.taken
                ));
            }
            if end.reported < last {
                wrong.push(format!(
                    "the module of {} reports that it is under plan {}, the last decision is in plan {last}",
                    end.node, end.reported
                ));
            }
            if let Some(refused) = &end.refused {
                wrong.push(format!("{} refused a plan: {refused}", end.node));
            }
            if end.pushes.refused > 0 || end.pushes.taken == 0 {
                wrong.push(format!(
                    "Envoy of {}: {} configurations taken, {} refused or missed",
                    end.node, end.pushes.taken, end.pushes.refused
                ));
            }
        }
        if self.ends.len() != NODES.len() {
            wrong.push(format!("{} of {} gateways were looked at", self.ends.len(), NODES.len()));
        }
        self.failures.extend(wrong);
    }

    fn judge_fold(&self, is_restoration_due: bool, wrong: &mut Vec<String>) {
        let Some(fold) = self.fold() else {
            wrong.push(format!("in auto nothing was decided about {METRIC}"));
            return;
        };
        if fold.labels != [Label { key: USER_ID.to_owned(), resource: false }] {
            wrong.push(format!("not {USER_ID} alone folds: {}", fold.sentence));
        }
        let late = self.of_metric("fold").count() - 1;
        if late > 0 || self.of_metric("restore").count() > 1 {
            wrong.push(format!("{METRIC} changed to and fro: {late} more folds"));
        }
        if is_restoration_due && self.restoration().is_none() {
            wrong.push(format!("{METRIC} was not restored, and there was time for it"));
        }
        for it in [Some(fold), self.restoration()].into_iter().flatten() {
            for node in NODES.iter().filter(|node| self.took(it, node).is_none()) {
                wrong.push(format!("{node} never took: {}", it.sentence));
            }
        }
    }
}

/// Waits until both gateways have a plan and what people declared is in force, by event time.
///
/// # Errors
/// That does not come to be in time.
pub async fn wait_until_declared(control: &Control, patience: Duration) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let mut missing = Vec::new();
        let status = control.status().await?;
        for node in NODES {
            let said = nodes(&status).find(|(id, _)| id == node);
            if said.is_none_or(|(_, said)| said["taken"][0].is_null()) {
                missing.push(format!("{node} has taken no plan from the control host"));
            }
            let (plan, _) = control.plan(node).await?;
            let rules = plan["rules"].as_array().cloned().unwrap_or_default();
            if rules.is_empty() {
                missing.push(format!("the plan of {node} has no rules"));
            }
            for rule in rules.iter().filter(|rule| !rule["switch"].is_null()) {
                let at: InstantMs =
                    serde_json::from_value(rule["switch"]["at"].clone()).context("switch.at")?;
                if at.as_nanos() > crate::shop::run::unix_ns() {
                    missing.push(format!("{} waits for {at}", rule["name"]));
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(begin.elapsed() < patience, "after {patience:?}: {}", missing.join("; "));
        sleep(Duration::from_millis(100)).await;
    }
}

async fn end_of(control: &Control, status: &Value, node: &str, pushes: Pushes) -> anyhow::Result<End> {
    let (plan, version) = control.plan(node).await?;
    let said = nodes(status).find(|(id, _)| id == node).map(|(_, said)| said.clone()).unwrap_or_default();
    let reports = status["embedders"].as_array().into_iter().flatten();
    let of_node = |it: &&Value| it["name"].as_str().is_some_and(|name| name.split('@').next() == Some(node));
    Ok(End {
        node: node.to_owned(),
        published: (plan["version"].as_u64().unwrap_or(0), version),
        taken: said["taken"][0].as_str().unwrap_or("").to_owned(),
        reported: reports.filter(of_node).filter_map(|it| it["plan_version"].as_u64()).max().unwrap_or(0),
        refused: said["refused"].as_array().map(|of| Value::from(of.clone()).to_string()),
        pushes,
    })
}

async fn decisions(control: &Control) -> anyhow::Result<Vec<Decision>> {
    let all = control.decisions().await?;
    all.into_iter().map(|it| serde_json::from_value(it).context("a decision")).collect()
}

fn nodes(status: &Value) -> impl Iterator<Item = (String, &Value)> {
    let all = status["nodes"].as_array().into_iter().flatten();
    all.map(|it| (it["id"].as_str().unwrap_or_default().to_owned(), &it["said"]))
}

#[cfg(test)]
mod tests;
