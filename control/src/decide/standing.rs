//! What is wanted becomes what is in force.
//!
//! Enters: wishes, units, the policy. Leaves: treatments with a switch each where something changed, and a [`Decision`] for everything that changed or is held
//! back. Three brakes, in this order: one switch at a time and a dwell for each metric; so many changes an hour for all; what a plan can hold. A brake holds a
//! decision, it never forgets one: what is wanted is carried out when it may be.

use super::choose::Wish;
use super::hold::Hold;
use super::record::{Action, Candidate, Decision, Inputs, Outcome, kept, kept_price};
use super::scope::named;
use super::state::{DeclaredState, Folded, Previous, Treatment};
use super::unit::{Unit, Units};
use super::words;
use crate::needs::Needs;
use crate::policy::{DeclaredFold, Mode, Policy};
use phoenix_plan::{InstantMs, Labels};

/// Treatments in a plan: with declared folds, and those that go off, fewer than the rules that one can have.
const TREATMENTS_MAX: usize = 500;
// All declared folds of a policy find room beside them, once those that it no longer names are over.
const _: () = assert!(TREATMENTS_MAX + crate::policy::FOLDS_MAX <= phoenix_plan::bounds::RULES);
/// Bytes of labels in a plan's treatments: a quarter of what a plan may have, since each may stand in it twice.
const LABEL_BYTES_MAX: usize = phoenix_plan::bounds::PLAN_BYTES / 4;
/// Changes are counted over an hour.
const HOUR_NS: u64 = 3_600_000_000_000;
/// Candidates that a record names.
const CANDIDATES_MAX: usize = 16;

/// Carries out what may be carried out.
pub fn settle(
    next: &mut Previous,
    units: &Units<'_>,
    wishes: &[Wish],
    policy: &Policy,
    now_ns: u64,
) -> Vec<Decision> {
    next.changes_ns.retain(|at_ns| now_ns.saturating_sub(*at_ns) < HOUR_NS);
    for wish in wishes {
        let Some(unit) = wish.unit.map(|index| &units.all[index]) else { continue };
        let it = next.treatment_mut(unit.tenant, unit.name);
        it.wanted = unit.wanted.clone();
        it.wanted_ns = now_ns;
        it.inputs = inputs(unit, wish);
        it.because = wish.because.clone();
    }
    for unit in units.all.iter().filter(|unit| unit.overlapping_since_ns > 0 && !unit.wanted.is_empty()) {
        next.treatment_mut(unit.tenant, unit.name).overlap_ns = unit.overlapping_since_ns;
    }
    for unit in units.all.iter().filter(|unit| !unit.wanted.is_empty() && unit.is_measured_anew()) {
        let it = next.treatment_mut(unit.tenant, unit.name);
        (it.left, it.staying) = (kept(unit.remaining(&unit.wanted)), kept(unit.staying()));
    }
    let hold = next.holding(now_ns).cloned();
    next.hold.clone_from(&hold);
    roll_back(next, hold.as_ref(), units, policy, now_ns);
    let mut decisions: Vec<Decision> =
        wishes.iter().filter(|wish| wish.unit.is_none()).map(|wish| exceeded(units, wish, now_ns)).collect();
    let room = u64::from(policy.change.per_hour_max).saturating_sub(next.changes_ns.len() as u64);
    let mut brakes = Brakes::new(&next.treatments, room);
    let mut changes = Vec::new();
    // The largest saving first, should there not be room for all.
    let mut order: Vec<usize> = (0..next.treatments.len()).collect();
    let gain = |it: &Treatment| it.inputs.series_before - it.inputs.series_after;
    order.sort_by(|a, b| {
        gain(&next.treatments[*b]).abs().total_cmp(&gain(&next.treatments[*a]).abs()).then(a.cmp(b))
    });
    for index in order {
        let it = &mut next.treatments[index];
        let unit = units.find(&it.tenant, &it.metric);
        refresh(it, unit, units, hold.as_ref(), policy, now_ns);
        let id = id_of(it);
        let is_overlap =
            it.wanted.is_empty() && unit.is_some_and(|unit| unit.inflates(units.period_ms, now_ns));
        let mode = match policy.mode_of(&it.tenant) {
            // What would inflate comes back also then.
            Mode::Auto if hold.is_some() && !is_overlap => Mode::Recommend,
            mode => mode,
        };
        let is_rolled_back = held(hold.as_ref(), it, policy).is_some();
        let by_rollback = hold.as_ref().filter(|_| is_rolled_back).map(|it| it.to);
        let is_approved = next.approved.contains(&id) || is_rolled_back;
        let target = match mode {
            Mode::Auto => it.wanted.clone(),
            Mode::Recommend if is_approved => it.wanted.clone(),
            Mode::Recommend => it.in_force.clone(),
            Mode::Observe => Folded::new(),
        };
        let mut outcome = match mode {
            Mode::Observe => Outcome::WouldBeDone,
            Mode::Recommend if !is_approved => Outcome::WaitsForApproval,
            _ => Outcome::InForce { version: 0 },
        };
        let is_news = it.wanted != it.in_force;
        let before = it.in_force.clone();
        if target != it.in_force {
            match brakes.hold(it, &target, is_rolled_back, policy, now_ns) {
                Some(why) => outcome = Outcome::Held { why },
                None => {
                    turn(it, target, policy, now_ns);
                    changes.push(now_ns);
                }
            }
        }
        let has_changed = it.in_force != before;
        if has_changed && it.in_force == it.wanted {
            outcome = Outcome::InForce { version: 0 };
        } else if has_changed {
            // Nothing is in force under `observe`: what was is wanted still, and history has its end.
            let off = turned_off(it, unit, &before);
            let in_force = Outcome::InForce { version: 0 };
            decisions.push(decision(&off, id_of(&off), &before, in_force, None, policy, now_ns));
        }
        if is_news {
            decisions.push(decision(it, id, &before, outcome, by_rollback, policy, now_ns));
        }
    }
    next.changes_ns.extend(changes);
    next.treatments.retain(|it| {
        !it.is_idle()
            || now_ns.saturating_sub(it.changed_ns.max(it.wanted_ns)) < policy.change.dwell.as_nanos()
    });
    decisions.extend(enforced(next, policy, units, now_ns));
    decisions.sort_by(|a, b| a.id.cmp(&b.id));
    decisions
}

/// The labels that a rollback sets for a metric; a declared fold goes before it.
fn held<'h>(hold: Option<&'h Hold>, it: &Treatment, policy: &Policy) -> Option<&'h Folded> {
    let labels = hold?.labels_of(&it.tenant, &it.metric)?;
    policy.declared(&it.tenant, &it.metric).is_none().then_some(labels)
}

/// What a rollback sets is what is wanted.
fn roll_back(next: &mut Previous, hold: Option<&Hold>, units: &Units<'_>, policy: &Policy, now_ns: u64) {
    for metric in hold.into_iter().flat_map(|it| &it.metrics) {
        let it = next.treatment_mut(&metric.tenant, &metric.metric);
        let Some(labels) = held(hold, it, policy).filter(|labels| **labels != it.wanted) else { continue };
        it.wanted.clone_from(labels);
        it.wanted_ns = now_ns;
        it.because = hold.map(Hold::words);
        let unit = units.find(&metric.tenant, &metric.metric);
        it.inputs = without_budget("a rollback", unit, &it.in_force, &it.wanted);
    }
}

/// Inputs of a change that no budget asks for.
fn without_budget(scope: &str, unit: Option<&Unit<'_>>, from: &Folded, to: &Folded) -> Inputs {
    let series = |folded: &Folded| unit.map_or(0.0, |unit| kept(unit.remaining(folded)));
    Inputs {
        scope: scope.to_owned(),
        need: unit.map_or(0.0, |unit| kept(unit.active)),
        baseline: unit.map_or(0.0, |unit| kept(unit.baseline)),
        series_before: series(from),
        series_after: series(to),
        ..Inputs::default()
    }
}

/// A treatment as though what is in force were wanted, because of the mode.
fn turned_off(it: &Treatment, unit: Option<&Unit<'_>>, before: &Folded) -> Treatment {
    Treatment {
        wanted: it.in_force.clone(),
        inputs: without_budget("the mode observe", unit, before, &it.in_force),
        because: Some("the mode is observe, under which nothing folds by decision".to_owned()),
        ..it.clone()
    }
}

/// Takes out of a hold what must not fold: a hold goes before budgets, never before "no fold inflates" or what is protected. What was taken out, and why.
pub fn let_go(
    next: &mut Previous,
    units: &Units<'_>,
    needs: &Needs,
    policy: &Policy,
    now_ns: u64,
) -> Vec<Decision> {
    let Some(hold) = next.holding(now_ns).cloned() else { return Vec::new() };
    let mut decisions = Vec::new();
    let mut stays = hold.clone();
    stays.metrics.retain(|metric| {
        let unit = units.find(&metric.tenant, &metric.metric);
        let in_force = next.treatment(&metric.tenant, &metric.metric).map(|it| &it.in_force);
        let is_new = !in_force.is_some_and(|it| metric.labels.is_subset(it));
        let asked = needs.of_metric(&policy.plan, &metric.metric);
        let mut whys = metric.labels.iter().filter_map(|key| {
            let why = super::unit::why_not(key, &metric.metric, &asked.of(key), policy);
            (!why.is_empty()).then(|| format!("{}: {why}", key.key))
        });
        let overlaps = |unit: &&Unit<'_>| {
            !metric.labels.is_empty()
                && if is_new { unit.overlaps } else { unit.inflates(units.period_ms, now_ns) }
        };
        let why = whys.next().or_else(|| {
            let why = "several embedders see the same streams, and a sum over them would count those twice";
            unit.filter(overlaps).map(|_| why.to_owned())
        });
        let Some(why) = why else { return true };
        let words = words::metric(&metric.tenant, &metric.metric);
        decisions.push(Decision {
            id: format!("held:{}/{}", metric.tenant, metric.metric),
            at_ns: now_ns,
            tenant: metric.tenant.clone(),
            metric: metric.metric.clone(),
            action: Action::Fold,
            labels: metric.labels.iter().cloned().collect(),
            labels_before: in_force.into_iter().flatten().cloned().collect(),
            sentence: format!("{words} is not held any more as it was at version {}: {why}.", hold.to),
            outcome: Outcome::Held { why },
            effective: None,
            inputs: Inputs { scope: "a rollback".to_owned(), ..Inputs::default() },
            saving: crate::policy::Priced::default(),
            by_rollback: Some(hold.to),
        });
        false
    });
    next.hold = Some(stays);
    decisions
}

/// Brings a treatment up to date: its switch may be over, its metric gone, its streams in one embedder each again.
fn refresh(
    it: &mut Treatment,
    unit: Option<&Unit<'_>>,
    units: &Units<'_>,
    hold: Option<&Hold>,
    policy: &Policy,
    now_ns: u64,
) {
    if is_over(it.switch_at, policy, now_ns) {
        it.before = it.in_force.clone();
    }
    if unit.is_some_and(|unit| unit.overlapping_since_ns == 0) {
        it.overlap_ns = 0;
    }
    let dwelt = now_ns.saturating_sub(it.changed_ns.max(it.wanted_ns)) >= policy.change.dwell.as_nanos();
    let is_gone = unit.is_none() && units.is_whole;
    let is_declared = unit.is_some_and(|unit| unit.declared.is_some());
    if !it.wanted.is_empty() && held(hold, it, policy).is_none() && dwelt && (is_gone || is_declared) {
        it.wanted.clear();
        it.wanted_ns = now_ns;
        let because =
            if is_gone { "nobody sends it any more" } else { "a declared fold decides about it now" };
        it.because = Some(because.to_owned());
    }
}

/// Has every stream crossed a switch, or been forgotten?
fn is_over(at: InstantMs, policy: &Policy, now_ns: u64) -> bool {
    now_ns / 1_000_000 >= at.0.saturating_add(policy.plan.stream_expiry().0)
}

/// When a change that is said now is: a whole second, as a person would write it.
fn switch_at(policy: &Policy, now_ns: u64) -> InstantMs {
    InstantMs(
        (now_ns / 1_000_000)
            .saturating_add(policy.change.switch_lead.0)
            .div_ceil(1_000)
            .saturating_mul(1_000),
    )
}

fn turn(it: &mut Treatment, target: Folded, policy: &Policy, now_ns: u64) {
    it.before = std::mem::replace(&mut it.in_force, target);
    it.switch_at = switch_at(policy, now_ns);
    it.changed_ns = now_ns;
}

/// Why a metric cannot change before its switch is over.
pub(super) fn why_turning(it: &Treatment, policy: &Policy) -> String {
    let over = InstantMs(it.switch_at.0.saturating_add(policy.plan.stream_expiry().0));
    format!(
        "the switch at {} is not over before {over}, plan.stream_expiry later, when every stream has crossed it or is forgotten",
        it.switch_at
    )
}

/// What holds changes back.
struct Brakes {
    room: u64,
    treatments: usize,
    label_bytes: usize,
}

impl Brakes {
    fn new(all: &[Treatment], room: u64) -> Brakes {
        let in_plan = all.iter().filter(|it| !it.in_force.is_empty() || it.is_turning());
        Brakes {
            room,
            treatments: in_plan.clone().count(),
            label_bytes: in_plan.map(|it| bytes(&it.in_force) + bytes(&it.before)).sum(),
        }
    }

    /// Why a change has to wait; none: it was counted, and may be made.
    fn hold(
        &mut self,
        it: &Treatment,
        target: &Folded,
        is_rolled_back: bool,
        policy: &Policy,
        now_ns: u64,
    ) -> Option<String> {
        if it.is_turning() {
            return Some(why_turning(it, policy));
        }
        let until_ns = it.changed_ns.saturating_add(policy.change.dwell.as_nanos());
        // Who takes something back by hand has had enough of waiting.
        if it.changed_ns > 0 && now_ns < until_ns && !is_rolled_back {
            let ago = words::span(now_ns.saturating_sub(it.changed_ns));
            return Some(format!(
                "the metric changed {ago} ago, and change.dwell is {}",
                policy.change.dwell
            ));
        }
        if self.room == 0 && !is_rolled_back {
            return Some(format!(
                "there were {} changes in the last hour, change.per_hour_max",
                policy.change.per_hour_max
            ));
        }
        let is_new = it.in_force.is_empty();
        if is_new && self.treatments >= TREATMENTS_MAX {
            return Some(format!("{TREATMENTS_MAX} metrics fold, and a plan has no room for more"));
        }
        if self.label_bytes + bytes(target) > LABEL_BYTES_MAX {
            return Some(format!(
                "the labels of all folds would be more than {LABEL_BYTES_MAX} bytes in a plan"
            ));
        }
        self.room = self.room.saturating_sub(1);
        self.treatments += usize::from(is_new);
        self.label_bytes += bytes(target);
        None
    }
}

fn bytes(folded: &Folded) -> usize {
    folded.iter().map(|label| label.key.len() + 4).sum()
}

/// The id of what a treatment wants.
fn id_of(it: &Treatment) -> String {
    let labels: Vec<String> = it
        .wanted
        .iter()
        .map(|label| if label.resource { format!("resource:{}", label.key) } else { label.key.clone() })
        .collect();
    format!("{}/{}={}", it.tenant, it.metric, labels.join(","))
}

fn inputs(unit: &Unit<'_>, wish: &Wish) -> Inputs {
    let queries: Vec<String> = unit
        .wanted
        .difference(&unit.wanted_before)
        .filter_map(|key| unit.labels.get(key))
        .flat_map(|label| label.needed.named.clone())
        .collect();
    let mut candidates: Vec<Candidate> = unit
        .labels
        .iter()
        .map(|(key, label)| Candidate {
            label: key.clone(),
            values: kept(label.values),
            without: kept(label.written),
            use_weight: label.needed.weight,
            why_not: label.why_not.clone(),
        })
        .collect();
    candidates.sort_by(|a, b| a.without.total_cmp(&b.without).then_with(|| a.label.cmp(&b.label)));
    candidates.truncate(CANDIDATES_MAX);
    Inputs {
        scope: wish.scope.clone(),
        budget: kept(wish.budget),
        counted: kept(wish.counted),
        counted_after: kept(wish.counted_after),
        need: kept(unit.active),
        baseline: kept(unit.baseline),
        growth: kept(unit.growth),
        series_before: kept(unit.remaining(&unit.wanted_before)),
        series_after: kept(unit.remaining(&unit.wanted)),
        use_weight: unit.use_of(&unit.wanted),
        queries,
        candidates,
    }
}

fn decision(
    it: &Treatment,
    id: String,
    before: &Folded,
    outcome: Outcome,
    by_rollback: Option<u64>,
    policy: &Policy,
    now_ns: u64,
) -> Decision {
    let action = if it.wanted.is_subset(before) { Action::Restore } else { Action::Fold };
    let is_in_force = matches!(outcome, Outcome::InForce { .. });
    let mut sentence = match action {
        Action::Restore => restored(it, before),
        _ => folded(it, before),
    };
    sentence.push_str(&match &outcome {
        Outcome::InForce { .. } => format!(" In force from {} on.", it.switch_at),
        Outcome::WouldBeDone => " It would be done; the mode is observe.".to_owned(),
        Outcome::WaitsForApproval => " It waits for approval.".to_owned(),
        Outcome::Held { why } => format!(" It waits: {why}."),
    });
    Decision {
        id,
        at_ns: now_ns,
        tenant: it.tenant.clone(),
        metric: it.metric.clone(),
        action,
        labels: it.wanted.iter().cloned().collect(),
        labels_before: before.iter().cloned().collect(),
        effective: is_in_force.then_some(it.switch_at),
        outcome,
        saving: kept_price(policy.prices.of(it.inputs.series_before - it.inputs.series_after)),
        inputs: it.inputs.clone(),
        by_rollback,
        sentence,
    }
}

fn folded(it: &Treatment, before: &Folded) -> String {
    let inputs = &it.inputs;
    let new: Folded = it.wanted.difference(before).cloned().collect();
    if let Some(because) = &it.because {
        let (labels, metric) = (words::labels(&new), words::metric(&it.tenant, &it.metric));
        return format!("{labels} {} folded away in {metric}: {because}.", words::verb(&new));
    }
    let needed = match inputs.use_weight {
        0 => "no declared query needs it".to_owned(),
        weight => format!(
            "queries of weight {weight} lose their answer ({})",
            words::queries(&inputs.queries, inputs.queries.len() as u64)
        ),
    };
    format!(
        "{} series count towards {}, which is {}: {} {} folded away in {}; {needed}. Its {} series become {} at most; usual for it are {}.",
        words::count(inputs.counted),
        inputs.scope,
        words::count(inputs.budget),
        words::labels(&new),
        words::verb(&new),
        words::metric(&it.tenant, &it.metric),
        words::count(inputs.series_before),
        words::count(inputs.series_after),
        words::count(inputs.baseline),
    )
}

fn restored(it: &Treatment, before: &Folded) -> String {
    let back: Folded = before.difference(&it.wanted).cloned().collect();
    let comes = if back.len() > 1 { "come" } else { "comes" };
    let (labels, metric) = (words::labels(&back), words::metric(&it.tenant, &it.metric));
    if let Some(because) = &it.because {
        return format!("{labels} {comes} back in {metric}: {because}.");
    }
    let inputs = &it.inputs;
    format!(
        "{metric} has {} streams; with {labels} {} series count towards {}, which is {}, so {labels} {comes} back.",
        words::count(inputs.need),
        words::count(inputs.counted_after),
        inputs.scope,
        words::count(inputs.budget),
    )
}

/// A budget that nothing helps, and what stands in the way of its heaviest metrics.
fn exceeded(units: &Units<'_>, wish: &Wish, now_ns: u64) -> Decision {
    let mut members: Vec<&Unit<'_>> = wish.members.iter().map(|index| &units.all[*index]).collect();
    members
        .sort_by(|a, b| b.remaining(&b.wanted).total_cmp(&a.remaining(&a.wanted)).then(a.name.cmp(b.name)));
    let whys: Vec<String> =
        members.iter().take(3).map(|unit| format!("{}: {}", unit.name, unit.why_stuck())).collect();
    let why = whys.join("; ");
    Decision {
        id: format!("exceeded:{}", wish.scope),
        at_ns: now_ns,
        tenant: members.first().map_or(String::new(), |unit| unit.tenant.to_owned()),
        metric: String::new(),
        action: Action::Exceeded,
        labels: Vec::new(),
        labels_before: Vec::new(),
        sentence: format!(
            "{} series count towards {}, which is {}, and {} would after all that can be done. {why}.",
            words::count(wish.counted),
            wish.scope,
            words::count(wish.budget),
            words::count(wish.counted_after),
        ),
        outcome: Outcome::Held { why: "nothing more may be folded".to_owned() },
        effective: None,
        inputs: Inputs {
            scope: wish.scope.clone(),
            budget: wish.budget,
            counted: wish.counted,
            counted_after: wish.counted_after,
            ..Inputs::default()
        },
        saving: crate::policy::Priced::default(),
        by_rollback: None,
    }
}

/// What embedders may do about a tenant's budget by themselves.
fn enforced(next: &Previous, policy: &Policy, units: &Units<'_>, now_ns: u64) -> Vec<Decision> {
    let mut tenants: Vec<&str> = units.all.iter().map(|unit| unit.tenant).collect();
    tenants.dedup();
    let of = |tenant: &str| {
        let budget = policy.tenant(tenant)?.active_series;
        let id = format!("budget:{tenant}");
        let (outcome, end) = match policy.mode_of(tenant) {
            Mode::Observe => {
                (Outcome::WouldBeDone, "would fold what is beyond them at once; the mode is observe")
            }
            Mode::Recommend if !next.approved.contains(&id) => {
                (Outcome::WaitsForApproval, "would fold what is beyond them at once; that waits for approval")
            }
            _ => (Outcome::InForce { version: 0 }, "fold what is beyond them at once"),
        };
        let need: f64 = units.all.iter().filter(|unit| unit.tenant == tenant).map(|unit| unit.active).sum();
        Some(Decision {
            id,
            at_ns: now_ns,
            tenant: tenant.to_owned(),
            metric: String::new(),
            action: Action::Enforce,
            labels: Vec::new(),
            labels_before: Vec::new(),
            outcome,
            effective: None,
            inputs: Inputs {
                scope: format!("the budget of {}", named(tenant)),
                budget: budget as f64,
                need,
                ..Inputs::default()
            },
            saving: crate::policy::Priced::default(),
            by_rollback: None,
            sentence: format!(
                "Embedders have shares of the budget of {}, {} together, and {end}.",
                named(tenant),
                words::count(budget as f64)
            ),
        })
    };
    tenants.into_iter().filter_map(of).collect()
}

/// Brings declared folds into force, each by a switch, and out of it. What finds no room in a plan waits, and is said.
pub fn declare(next: &mut Previous, policy: &Policy, now_ns: u64) -> Vec<Decision> {
    let at = switch_at(policy, now_ns);
    for it in &mut next.declared {
        if is_over(it.switch_at, policy, now_ns) {
            it.before = it.labels();
        }
    }
    let may = |fold: &&DeclaredFold| {
        let mode = fold.tenant.as_ref().map_or(policy.mode, |tenant| policy.mode_of(tenant));
        mode != Mode::Observe
    };
    let declared: Vec<&DeclaredFold> = policy.folds.iter().filter(may).collect();
    for it in &mut next.declared {
        let is_turning = it.before != it.labels();
        let same = declared.iter().find(|fold| meets_the_same(fold, &it.fold));
        match same {
            _ if is_turning => {}
            Some(fold) if it.is_on && fold.labels.keeps_the_same_as(&it.fold.labels) => {}
            Some(fold) => (it.fold, it.is_on, it.switch_at) = ((*fold).clone(), true, at),
            None if it.is_on => (it.is_on, it.switch_at) = (false, at),
            None => {}
        }
    }
    let decided = next.treatments.iter().filter(|it| !it.in_force.is_empty() || it.is_turning()).count();
    let mut held = Vec::new();
    for fold in &declared {
        if !next.declared.iter().any(|it| meets_the_same(fold, &it.fold)) {
            if decided + next.declared.len() >= phoenix_plan::bounds::RULES {
                held.push(no_room(fold, decided, next.declared.len(), now_ns));
                continue;
            }
            let (fold, before) = ((*fold).clone(), None);
            next.declared.push(DeclaredState { fold, is_on: true, before, switch_at: at });
        }
    }
    next.declared.retain(|it| it.is_on || it.before.is_some());
    // In the order of the policy; those that go off come last.
    let place = |it: &DeclaredState| {
        declared.iter().position(|fold| meets_the_same(fold, &it.fold)).unwrap_or(usize::MAX)
    };
    next.declared.sort_by_key(place);
    held
}

/// A declared fold that a plan has no room for: others, that the policy no longer names, are not over yet.
fn no_room(fold: &DeclaredFold, decided: usize, declared: usize, now_ns: u64) -> Decision {
    let why = format!(
        "a plan has {} rules, and {decided} metrics that fold by decision and {declared} declared folds, those on their way out among them, are in it",
        phoenix_plan::bounds::RULES
    );
    Decision {
        id: format!("declared:{}", fold.name),
        at_ns: now_ns,
        tenant: fold.tenant.clone().unwrap_or_default(),
        metric: String::new(),
        action: Action::Fold,
        labels: Vec::new(),
        labels_before: Vec::new(),
        sentence: format!("The declared fold {:?} does not fit: {why}.", fold.name),
        outcome: Outcome::Held { why },
        effective: None,
        inputs: Inputs { scope: format!("the declared fold {}", fold.name), ..Inputs::default() },
        saving: crate::policy::Priced::default(),
        by_rollback: None,
    }
}

impl DeclaredState {
    /// The labels that fold from the switch on.
    pub fn labels(&self) -> Option<Labels> {
        self.is_on.then(|| self.fold.labels.clone())
    }
}

/// Do two declared folds speak of the same points?
fn meets_the_same(a: &DeclaredFold, b: &DeclaredFold) -> bool {
    (&a.name, &a.tenant, &a.metric, &a.resource, &a.attributes)
        == (&b.name, &b.tenant, &b.metric, &b.resource, &b.attributes)
}
