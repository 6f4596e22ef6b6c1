//! One run: a scenario, a seed, so many embedders.
//!
//! Enters: [`Options`]. Leaves: a [`Run`] with a row for each interval, every decision, and what the judge says. Time goes in steps of five seconds; whatever happens in
//! one step happens in a fixed order: the network delivers, pods export, the engine ticks, embedders report, the control host decides.

use super::embedder::Embedder;
use super::judge::{Interval, Judge, Verdict};
use super::network::Network;
use super::scenario::{EXPORT_S, INTERVAL_S, RUN_S, Scenario};
use super::traffic::{Pod, STREAMS_OF_A_POD};
use crate::collect::{Collector, Settings};
use crate::decide::{Decided, Decision, Previous, decide};
use crate::estimate::estimate;
use crate::needs::{Declared, Needs};
use crate::policy::Policy;
use anyhow::{Result, ensure};
use phoenix_plan::Plan;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

/// A step of virtual time, in seconds: what an export interval and a decision interval have in common.
const STEP_S: u64 = 5;
/// When runs begin: 2026-01-01T00:00:00Z.
pub const EPOCH_NS: u64 = 1_767_225_600 * S;
const S: u64 = 1_000_000_000;
/// Pods of an embedder.
const PODS: usize = 4;
/// A plan reaches an embedder after so many seconds.
const PLAN_TAKES_S: u64 = 1;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What happens.
    pub scenario: Scenario,
    /// Of everything that is random.
    pub seed: u64,
    /// Embedders in the beginning.
    pub embedders: usize,
}

/// What came of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Run {
    /// What happened.
    pub scenario: Scenario,
    /// The seed.
    pub seed: u64,
    /// Embedders in the beginning.
    pub embedders: usize,
    /// The budget of the tenant.
    pub budget: u64,
    /// Each interval.
    pub intervals: Vec<Interval>,
    /// Decisions, and when, in seconds of the run.
    pub decisions: Vec<(u64, Decision)>,
    /// Is all well?
    pub verdict: Verdict,
    /// Nanoseconds that the longest decision took, estimates included; the clock of this machine, and no part of what is judged.
    pub slowest_decision_ns: u64,
    /// Plans that were sent, and their bytes.
    pub plans: (u64, u64),
    /// Reports that were sent, and their bytes.
    pub reports: (u64, u64),
}

/// Who keeps the loop: the control host.
struct Control {
    policy: Policy,
    needs: Needs,
    collector: Collector,
    /// Fed in another order: it must decide the same.
    shadow: Collector,
    previous: Option<Previous>,
    decided: Option<Decided>,
    slowest_ns: u64,
}

/// The policy of every run. Half as many series again as there are on a quiet day.
fn policy(budget: u64) -> Result<Policy> {
    let text = format!(
        "schema: 1
mode: auto
interval: {INTERVAL_S}s
plan:
  hash_key: 8f2c1e5d90ab374466e1f0827bb3c95a17d4e86f2390bc51ae7d60f4895b12cd
  measure: {{ period: 3m }}
  stream_expiry: 2m
  promoted_resource_attributes: [k8s.pod.name]
fold: {{ window: 15s, delay: 30s }}
tenants: [{{ name: {}, active_series: {budget} }}]
change: {{ dwell: 4m, switch_lead: 1m, per_hour_max: 100 }}
reports: {{ silent_after: 90s, forget_after: 10m }}
",
        super::traffic::TENANT
    );
    Ok(Policy::parse(&text)?)
}

/// The queries of every run: nobody asks for a user or a pod.
fn needs() -> Needs {
    let queries = [
        "sum by (route, method) (rate(http_requests_total[5m]))",
        "histogram_quantile(0.9, sum by (le, route) (rate(http_duration_bucket[5m])))",
        "sum by (queue) (rate(jobs_done_total[5m]))",
    ];
    Needs::new(queries.map(|text| Declared {
        place: text.to_owned(),
        text: text.to_owned(),
        weight: 1,
        preserve: true,
    }))
}

/// Runs a scenario.
///
/// # Errors
/// A plan that the module refuses, or bytes of the engine that cannot be read: nothing to judge.
pub fn run(options: Options) -> Result<Run> {
    ensure!(
        (1..=1_000).contains(&options.embedders),
        "--embedders: value {} is not allowed; allowed: 1 to 1000",
        options.embedders
    );
    let Options { scenario, seed, embedders } = options;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pods_max = embedders * PODS;
    let budget = pods_max as u64 * STREAMS_OF_A_POD * 3 / 2;
    let mut control = Control::new(policy(budget)?);
    let mut pods: Vec<Pod> = (0..pods_max).map(Pod::new).collect();
    // Pods do not export all at once.
    let phases: Vec<u64> = pods.iter().map(|_| rng.random_range(0..EXPORT_S / STEP_S) * STEP_S).collect();
    let mut fleet: BTreeMap<usize, Embedder> = BTreeMap::new();
    let mut reports: Network<Rc<Vec<u8>>> = Network::default();
    let mut plans: Network<(usize, Plan)> = Network::default();
    let mut sent: BTreeMap<String, u64> = BTreeMap::new();
    let (mut plans_sent, mut reports_sent) = ((0_u64, 0_u64), (0_u64, 0_u64));
    let mut judge = Judge::new(scenario, budget, INTERVAL_S);
    let mut decisions = Vec::new();

    control.decide(EPOCH_NS)?;
    for now_s in (STEP_S..=RUN_S).step_by(STEP_S as usize) {
        let now_ns = EPOCH_NS + now_s * S;
        let there = scenario.embedders(embedders, now_s);
        fleet.retain(|number, _| there.contains(number));
        for number in there.clone() {
            if let Entry::Vacant(place) = fleet.entry(number) {
                place.insert(Embedder::start(number, &control.newcomer(), now_ns)?);
            }
        }
        if scenario.restarts_control(now_s) {
            control.restart()?;
        }
        for (number, plan) in plans.arrived(now_s) {
            if let Some(embedder) = fleet.get_mut(&number).filter(|it| it.version() < plan.version) {
                embedder.configure(&plan, now_ns)?;
            }
        }
        for (number, pod) in pods.iter_mut().enumerate() {
            let is_due = now_s % EXPORT_S == phases[number] && scenario.runs(number, pods_max, now_s);
            if let Some(embedder) = fleet.get_mut(&of_pod(number, &there)).filter(|_| is_due) {
                embedder.take(&pod.export(scenario, pods_max, now_s, EPOCH_NS), now_ns)?;
            }
        }
        for (number, embedder) in &mut fleet {
            embedder.tick(now_ns)?;
            // Each embedder reports in its own second of the interval.
            if (now_s + STEP_S * *number as u64).is_multiple_of(INTERVAL_S) {
                for body in embedder.reports(now_ns) {
                    reports_sent = (reports_sent.0 + 1, reports_sent.1 + body.len() as u64);
                    let body = Rc::new(body);
                    for takes_s in scenario.report_takes_s(&mut rng) {
                        if !scenario.is_cut_off(*number, now_s) {
                            reports.send(now_s + takes_s, body.clone());
                        }
                    }
                }
            }
        }
        let mut arrived = reports.arrived(now_s);
        if !scenario.has_control(now_s) {
            // Nobody is there to take them.
            arrived.clear();
        }
        control.take(&arrived, now_ns, &mut rng);
        if now_s % INTERVAL_S != 0 {
            continue;
        }
        let written = fleet.values_mut().map(Embedder::written).collect::<Vec<_>>();
        if scenario.has_control(now_s) {
            let decided = control.decide(now_ns)?;
            for (number, embedder) in &fleet {
                let Some(plan) = decided.plans.get(embedder.name()) else { continue };
                let known = sent.entry(embedder.name().to_owned()).or_default();
                // What did not arrive is sent again.
                let is_due = plan.version > *known || plan.version > embedder.version();
                if is_due && !scenario.is_cut_off(*number, now_s) {
                    *known = plan.version;
                    plans_sent = (plans_sent.0 + 1, plans_sent.1 + serde_json::to_vec(plan)?.len() as u64);
                    plans.send(now_s + PLAN_TAKES_S, (*number, plan.clone()));
                }
            }
            decisions.extend(decided.decisions.iter().map(|it| (now_s, it.clone())));
        }
        judge.interval(now_s, &written, fleet.len(), control.decided.as_ref());
    }
    Ok(Run {
        scenario,
        seed,
        embedders,
        budget,
        verdict: judge.verdict(),
        intervals: judge.intervals,
        decisions,
        slowest_decision_ns: control.slowest_ns,
        plans: plans_sent,
        reports: reports_sent,
    })
}

/// Where the connection of a pod ends: the embedder with the highest hash, so that few move when one joins or leaves.
fn of_pod(pod: usize, there: &std::ops::Range<usize>) -> usize {
    let weight = |embedder: &usize| {
        let mixed = (pod as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ (*embedder as u64 + 1).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 32), *embedder)
    };
    // Each pod has a dozen embedders in reach, as a balancer's subset has: a look at a thousand for each export would be the run.
    let first = pod / PODS;
    let near = there.clone().filter(|embedder| embedder.abs_diff(first) < 6);
    near.max_by_key(weight).or_else(|| there.clone().max_by_key(weight)).unwrap_or(0)
}

impl Control {
    fn new(policy: Policy) -> Control {
        let collector = Collector::new(Settings::of(&policy));
        Control {
            shadow: collector.clone(),
            collector,
            policy,
            needs: needs(),
            previous: None,
            decided: None,
            slowest_ns: 0,
        }
    }

    fn newcomer(&self) -> Plan {
        self.decided.as_ref().map_or_else(|| self.policy.plan.plan(1), |it| it.newcomer.clone())
    }

    /// Takes what arrived; the shadow takes it in another order, and some of it twice.
    fn take(&mut self, arrived: &[Rc<Vec<u8>>], now_ns: u64, rng: &mut ChaCha8Rng) {
        for body in arrived {
            // A refusal is the sender's matter; here it is one of those that the scenario makes.
            let _ = self.collector.take(body, now_ns);
        }
        let mut shuffled: Vec<&Rc<Vec<u8>>> = arrived.iter().collect();
        shuffled.shuffle(rng);
        let again = shuffled.len() / 2;
        for body in shuffled.iter().chain(&shuffled[..again]) {
            let _ = self.shadow.take(body, now_ns);
        }
    }

    fn decide(&mut self, now_ns: u64) -> Result<&Decided> {
        let from = std::time::Instant::now();
        let previous = self.previous.as_ref();
        let decided = decide(
            &estimate(&self.collector, &self.policy, now_ns),
            &self.needs,
            &self.policy,
            previous,
            now_ns,
        );
        let took_ns = u64::try_from(from.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.slowest_ns = self.slowest_ns.max(took_ns);
        let shadow = estimate(&self.shadow, &self.policy, now_ns);
        let other = decide(&shadow, &self.needs, &self.policy, previous, now_ns);
        ensure!(
            serde_json::to_vec(&decided.next)? == serde_json::to_vec(&other.next)? && decided == other,
            "the same reports in another order were decided differently"
        );
        self.previous = Some(decided.next.clone());
        Ok(self.decided.insert(decided))
    }

    /// The process is another one: it has what was stored, and no report.
    fn restart(&mut self) -> Result<()> {
        let stored = serde_json::to_vec(&self.previous)?;
        self.previous = serde_json::from_slice(&stored)?;
        self.collector = Collector::new(Settings::of(&self.policy));
        self.shadow = self.collector.clone();
        Ok(())
    }
}
