//! The compiled plan: which rule a point meets (first match wins), and what the fold of that rule needs ready.
//!
//! Name and resource decide first, once per metric of a resource; only rules that ask for point attributes are left for the
//! points. The plain definition is [`phoenix_plan::Plan::rule_for`]; a property test holds this one to it.

use crate::hash::{Domain, Hasher, Identity};
use crate::kind::{Intake, Kind};
use crate::limits::NAME_REMEMBERED_MAX;
use crate::record::Temporality;
use crate::units::{Since, UnixNanos};
use crate::window::Windows;
use hashbrown::HashMap;
use phoenix_plan::{
    Affinity, Clock, Function, LabelMatch, Labels, OutputTemporality, Pipeline, Plan, Rule, SummaryFunction,
};
use std::rc::Rc;

/// Metric names whose rules are remembered. A batch rarely has more; when full, all are forgotten at once.
const NAMES_MAX: usize = 4_096;

/// A plan made ready for the hot path.
pub struct Compiled {
    /// The plan itself.
    pub plan: Plan,
    /// The identity function under the plan's key.
    pub hasher: Hasher,
    /// Fingerprint of the key: messages made under another one are not for us.
    pub key: u64,
    courses: Vec<Course>,
    /// The fold of streams beyond a budget, before its labels are found: which kinds it takes.
    budget_fold: Option<Fold>,
    /// Since when budgets decide about what no rule speaks of.
    pub budgets_since: Since,
    /// Some rule keeps the heaviest streams.
    ranks: bool,
    /// Until when raw series may end by a switch of this plan: a lifetime of a stream after the last one.
    raw_ends_until: Option<UnixNanos>,
}

/// What happens to the points of a rule.
pub enum Course {
    /// They pass.
    Pass,
    /// They fold.
    Fold(Fold),
    /// One until a point in event time, another from then on.
    Switch(Box<Switched>),
    /// The heaviest streams pass, the others fold.
    TopK(Box<TopK>),
}

/// The heaviest streams of a metric stay.
pub struct TopK {
    /// The fold of the others.
    pub fold: Fold,
    /// How many stay.
    pub how: phoenix_plan::TopK,
    /// Hash of the rule: the ranking of its metrics is no other rule's.
    pub salt: u64,
    /// The plan before folded all of these streams: none is raw before it is promoted.
    pub all_folded: bool,
}

impl Course {
    fn folds(&self) -> impl Iterator<Item = &Fold> {
        let (one, switch) = match self {
            Course::Pass => (None, None),
            Course::Fold(fold) => (Some(fold), None),
            Course::TopK(it) => (Some(&it.fold), None),
            Course::Switch(switch) => (None, Some(switch)),
        };
        one.into_iter().chain(switch.into_iter().flat_map(|s| s.before.iter().chain(&s.after)))
    }

    fn folds_mut(&mut self) -> impl Iterator<Item = &mut Fold> {
        let (one, switch) = match self {
            Course::Pass => (None, None),
            Course::Fold(fold) => (Some(fold), None),
            Course::TopK(it) => (Some(&mut it.fold), None),
            Course::Switch(switch) => (None, Some(switch)),
        };
        one.into_iter().chain(switch.into_iter().flat_map(|s| s.before.iter_mut().chain(&mut s.after)))
    }
}

/// A switch, made ready. One of the two folds at least is there.
pub struct Switched {
    /// When, in event time.
    pub at: UnixNanos,
    /// Streams that have been silent since before the switch are forgotten now: nothing of theirs spans it any more.
    pub settled_at: UnixNanos,
    /// The fold of points before that; none: they pass.
    pub before: Option<Fold>,
    /// The fold of the others; none: they pass.
    pub after: Option<Fold>,
    /// Since when streams are watched that join the fold `after` at once, since a budget folds them: none of them was raw.
    pub at_once: Since,
    /// One stream switches by itself: the series that it folded into goes on.
    pub alone: bool,
}

/// The fold of one rule.
#[derive(Clone)]
pub struct Fold {
    /// Counts folds of a plan; a rule that switches may have two.
    pub number: usize,
    /// Which labels stay.
    pub labels: Labels,
    /// Value of the mark label.
    pub mark: Box<[u8]>,
    /// The same on a summary, whose quantiles go as well.
    pub summary_mark: Box<[u8]>,
    /// Its part of a series' identity.
    pub mark_id: Identity,
    /// Its windows.
    pub windows: Windows,
    /// How long the last value of a silent stream of a level stands.
    pub expiry_ns: u64,
    /// Exemplars that a series keeps of a window.
    pub exemplars_max: u8,
    /// Since when its points are recorded.
    pub since: Since,
    output: OutputTemporality,
    gauge: Option<Function>,
    up_down: Option<Function>,
    summary: Option<SummaryFunction>,
}

impl Fold {
    /// What becomes of points of this kind, or `None` where nothing was declared that would be right for them.
    pub fn kind(&self, intake: Intake, temporality: Temporality) -> Option<Kind> {
        match (intake, temporality) {
            (Intake::Sum, _) => Some(Kind::Sum { monotonic: true }),
            (Intake::UpDown, Temporality::Delta) => {
                self.up_down.filter(|f| *f == Function::Sum).map(|_| Kind::Sum { monotonic: false })
            }
            (Intake::UpDown, Temporality::Cumulative) => {
                self.up_down.map(|function| Kind::Level { function, up_down: true })
            }
            (Intake::Gauge, _) => self.gauge.map(|function| Kind::Level { function, up_down: false }),
            (Intake::Histogram, _) => Some(Kind::Histogram),
            (Intake::Exponential, _) => Some(Kind::Exponential),
            (Intake::Summary, _) => self.summary.map(|_| Kind::Summary),
        }
    }

    /// It is in force since then, and some of its streams may have folded until then.
    pub fn begin(&mut self, at: UnixNanos) {
        self.since = Since::after(at, self.windows.width_ns.saturating_add(self.windows.delay_ns));
    }

    /// Temporality of the output for this input; levels and summaries have but one.
    pub fn output(&self, kind: Kind, input: Temporality) -> Temporality {
        if kind.is_level() || kind == Kind::Summary {
            return Temporality::Cumulative;
        }
        match self.output {
            OutputTemporality::Unchanged => input,
            OutputTemporality::Cumulative => Temporality::Cumulative,
            OutputTemporality::Delta => Temporality::Delta,
        }
    }
}

impl Compiled {
    /// Make a valid plan ready.
    pub fn new(plan: Plan) -> Compiled {
        let hasher = Hasher::new(plan.hash_key.as_bytes());
        let key = hasher.pair(Domain::Writer, b"fingerprint", b"").low();
        let mut folds = 0;
        let courses: Vec<Course> =
            plan.rules.iter().map(|rule| course(&hasher, &plan, rule, &mut folds)).collect();
        let ends = |course: &Course| match course {
            Course::Switch(s) => s.before.is_none().then_some(s.settled_at),
            _ => None,
        };
        let ranks = courses.iter().any(|course| matches!(course, Course::TopK(_)));
        let raw_ends_until = courses.iter().filter_map(ends).max();
        let none = Labels::Drop { resource: Vec::new(), attributes: Vec::new() };
        let budget_fold = plan.budgets.as_ref().map(|b| fold(&hasher, &plan, &b.fold.with(none), usize::MAX));
        Compiled {
            plan,
            hasher,
            key,
            courses,
            budget_fold,
            budgets_since: Since::default(),
            ranks,
            raw_ends_until,
        }
    }

    /// This plan takes the place of another one now. A fold that the other had not is watched from now on: what its streams counted
    /// before is in raw samples. So it is with budgets, where there were none, or a rule that is no more let points pass them.
    pub fn follow(&mut self, before: &Compiled, now: UnixNanos) {
        let same = |rule: &Rule, other: &Rule| {
            (&other.tenant, &other.metric, &other.resource, &other.attributes)
                == (&rule.tenant, &rule.metric, &rule.resource, &rule.attributes)
        };
        // They may be about the same points; no only where that is certain.
        let may_meet = |rule: &Rule, other: &Rule| {
            let tenants = rule.tenant.is_none() || other.tenant.is_none() || rule.tenant == other.tenant;
            tenants && rule.metric.may_meet(&other.metric)
        };
        let is_gone = |rule: &Rule| !self.plan.rules.iter().any(|other| same(rule, other));
        let same_rules = !before.plan.rules.iter().any(is_gone);
        // A clock that was set back must not make newborns of those that passed.
        let from = now.max(before.budgets_since.at);
        self.budgets_since = match (before.plan.budgets.is_some(), same_rules) {
            (true, true) => before.budgets_since,
            // Some may have folded by a rule until now: these are counted on.
            (_, false) => Since::after(from, self.budget_patience_ns()),
            // There were none, and nothing that no rule speaks of folded: it all went out raw until now.
            (false, true) => Since { at: from, heard: from },
        };
        let known = |rule: &Rule, salt: Option<u64>| {
            // Where some streams stayed, those were not recorded: only the same ranking goes on.
            let recorded = |course: &Course| match course {
                Course::TopK(it) => salt == Some(it.salt),
                _ => true,
            };
            let theirs = before.plan.rules.iter().zip(&before.courses).filter(|(other, _)| same(rule, other));
            // Whatever it kept: its streams were recorded.
            let theirs = theirs.filter(|(_, course)| recorded(course));
            let all_folded = theirs.clone().any(|(_, course)| matches!(course, Course::Fold(_)));
            let since = theirs.flat_map(|(_, course)| course.folds()).map(|other| other.since);
            (since.max_by_key(|since| since.at), all_folded)
        };
        // Whether something of what a rule is about folded until now: else all of it went out raw, and is not counted on.
        let folded = |rule: &Rule| {
            let meets =
                |(other, course): (&Rule, &Course)| course.folds().next().is_some() && may_meet(rule, other);
            let budgets =
                before.plan.budgets.is_some() && !before.plan.rules.iter().any(|other| same(rule, other));
            budgets || before.plan.rules.iter().zip(&before.courses).any(meets)
        };
        // The rules before a rule take its points away: is one of them no longer before it?
        let is_uncovered = |rule: &Rule, index: usize| {
            let before_it = before.plan.rules.iter().take_while(|other| !same(rule, other));
            let stays = |other: &Rule| self.plan.rules.iter().take(index).any(|still| same(still, other));
            before_it.filter(|other| may_meet(rule, other)).any(|other| !stays(other))
        };
        for (index, (rule, course)) in self.plan.rules.iter().zip(&mut self.courses).enumerate() {
            let salt = match course {
                Course::TopK(it) => Some(it.salt),
                _ => None,
            };
            let (since, all_folded) = known(rule, salt);
            let is_uncovered = is_uncovered(rule, index);
            let folded = since.is_some() || folded(rule);
            for fold in course.folds_mut() {
                match since.filter(|_| !is_uncovered) {
                    Some(since) => fold.since = since,
                    None if folded => fold.begin(now),
                    None => fold.since = Since::after(now, 0),
                }
            }
            if let Course::TopK(it) = course {
                it.all_folded = all_folded;
            }
            if let Course::Switch(it) = course
                && let Some(after) = &it.after
            {
                let is_older = self.budgets_since.at < after.since.at;
                // What a budget forgot is a matter of its own: [`Registry::takes_over`](crate::admission::Registry::takes_over).
                it.at_once = if is_older { self.budgets_since } else { after.since };
            }
        }
    }

    /// Does some rule keep the heaviest streams?
    pub fn ranks(&self) -> bool {
        self.ranks
    }

    /// What the rule at `index` keeps, where it keeps the heaviest streams.
    pub fn topk(&self, index: usize) -> Option<&TopK> {
        match self.course(index) {
            Course::TopK(it) => Some(it),
            _ => None,
        }
    }

    /// Is a fold declared for streams of this kind that are beyond a budget?
    pub fn budget_takes(&self, intake: Intake, temporality: Temporality) -> bool {
        self.budget_fold.as_ref().is_some_and(|fold| fold.kind(intake, temporality).is_some())
    }

    /// How long the windows of what is beyond a budget are open: width and delay.
    pub fn budget_patience_ns(&self) -> u64 {
        let windows = self.budget_fold.as_ref().map(|fold| fold.windows);
        windows.map_or(0, |it| it.width_ns.saturating_add(it.delay_ns))
    }

    /// What happens to the points of the rule at `index`.
    pub fn course(&self, index: usize) -> &Course {
        self.courses.get(index).unwrap_or(&Course::Pass)
    }

    /// May raw series end by a switch of this plan, now or later?
    pub fn ends_raw_series(&self, now: UnixNanos) -> bool {
        self.plan.affinity == Affinity::Checked
            || self.ranks
            || self.raw_ends_until.is_some_and(|until| self.plan.clock == Clock::Event || now <= until)
    }
}

fn course(hasher: &Hasher, plan: &Plan, rule: &Rule, folds: &mut usize) -> Course {
    let mut ready = |pipeline: Pipeline, it: &Option<phoenix_plan::Fold>| {
        let it = it.as_ref().filter(|_| pipeline == Pipeline::Optimized)?;
        *folds = folds.saturating_add(1);
        Some(fold(hasher, plan, it, *folds))
    };
    if let (Some(how), Pipeline::ExperimentalTopk) = (&rule.topk, rule.pipeline) {
        let it = ready(Pipeline::Optimized, &rule.fold).map(|fold| TopK {
            fold,
            how: how.clone(),
            salt: hasher.pair(Domain::Label, b"experimental_topk", rule.name.as_bytes()).low(),
            all_folded: false,
        });
        return it.map_or(Course::Pass, |it| Course::TopK(Box::new(it)));
    }
    let after = ready(rule.pipeline, &rule.fold);
    if let Some(switch) = &rule.switch {
        let at = UnixNanos(switch.at.as_nanos());
        let settled_at = at.plus(plan.stream_expiry.as_nanos());
        let before = ready(switch.from.pipeline, &switch.from.fold);
        return Course::Switch(Box::new(Switched {
            at,
            settled_at,
            before,
            after,
            at_once: Since::default(),
            alone: false,
        }));
    }
    after.map_or(Course::Pass, Course::Fold)
}

/// Make a fold ready, under a number that no other has.
pub fn fold(hasher: &Hasher, plan: &Plan, fold: &phoenix_plan::Fold, number: usize) -> Fold {
    let mark = fold.labels.mark().into_bytes().into_boxed_slice();
    Fold {
        number,
        labels: fold.labels.clone(),
        summary_mark: fold.labels.mark_with(&["quantile"]).into_bytes().into_boxed_slice(),
        mark_id: hasher.pair(Domain::Series, b"mark", &mark),
        mark,
        windows: Windows {
            width_ns: fold.window.as_nanos(),
            offset_ns: fold.offset().as_nanos(),
            delay_ns: fold.delay.as_nanos(),
        },
        since: Since::default(),
        expiry_ns: fold.value_expiry(plan.stream_expiry).as_nanos(),
        exemplars_max: u8::try_from(fold.exemplars).unwrap_or(u8::MAX),
        output: fold.output_temporality,
        gauge: fold.gauge,
        up_down: fold.up_down_counter,
        summary: fold.summary,
    }
}

/// What decides about the points of one metric of one resource.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Rules that ask for point attributes, in order …
    asking: Vec<usize>,
    /// … and the one that takes whatever is left.
    last: Option<usize>,
}

impl Candidates {
    /// No point of the metric can meet a rule that folds.
    pub fn all_pass(&self, plan: &Compiled) -> bool {
        self.asking.iter().chain(&self.last).all(|i| matches!(plan.course(*i), Course::Pass))
    }

    /// No point of this kind can meet a fold that takes it.
    pub fn none_takes(&self, plan: &Compiled, intake: Intake, temporality: Temporality) -> bool {
        let mut folds = self.asking.iter().chain(&self.last).flat_map(|i| plan.course(*i).folds());
        folds.all(|fold| fold.kind(intake, temporality).is_none())
    }

    /// A rule that keeps the heaviest streams may speak of some point of the metric: the first such.
    pub fn topk<'p>(&self, plan: &'p Compiled) -> Option<&'p TopK> {
        if !plan.ranks {
            return None;
        }
        self.asking.iter().chain(&self.last).find_map(|index| plan.topk(*index))
    }

    /// No rule speaks of any point of the metric.
    pub fn is_none(&self) -> bool {
        self.last.is_none() && self.asking.is_empty()
    }

    /// The rule of every point, where none of them asks for attributes.
    pub fn only(&self) -> Option<usize> {
        self.last.filter(|_| self.asking.is_empty())
    }

    /// The rule of a point. `has` says whether the point's attributes satisfy a matcher.
    pub fn rule<E>(
        &self,
        plan: &Compiled,
        mut has: impl FnMut(&LabelMatch) -> Result<bool, E>,
    ) -> Result<Option<usize>, E> {
        for &index in &self.asking {
            let Some(rule) = plan.plan.rules.get(index) else { continue };
            let mut all = true;
            for label in &rule.attributes {
                all = all && has(label)?;
            }
            if all {
                return Ok(Some(index));
            }
        }
        Ok(self.last)
    }
}

/// Remembers which rules speak of a metric name, across batches of one plan. Senders choose the names, so the table is seeded
/// from the plan's key.
pub struct Names {
    rules: HashMap<Box<[u8]>, Rc<[usize]>, ahash::RandomState>,
}

impl Names {
    /// Nothing is known yet about this plan.
    pub fn new(plan: &Compiled) -> Names {
        let seed = |name| plan.hasher.pair(Domain::Writer, b"names", name);
        let (a, b) = (seed(b"a"), seed(b"b"));
        let state = ahash::RandomState::with_seeds(a.low(), a.high(), b.low(), b.high());
        Names { rules: HashMap::with_hasher(state) }
    }

    /// Indices of the rules whose metric matcher accepts `name`, in order.
    pub fn rules(&mut self, plan: &Plan, name: &[u8]) -> Rc<[usize]> {
        if let Some(rules) = self.rules.get(name) {
            return rules.clone();
        }
        let speaks = |(i, rule): (usize, &Rule)| rule.metric.matches(name).then_some(i);
        let rules: Rc<[usize]> = plan.rules.iter().enumerate().filter_map(speaks).collect();
        if name.len() > NAME_REMEMBERED_MAX {
            return rules;
        }
        if self.rules.len() >= NAMES_MAX {
            self.rules.clear();
        }
        self.rules.insert(name.into(), rules.clone());
        rules
    }
}

/// Narrow the rules of a name down by the resource. `fits` says whether the resource satisfies the rule at an index.
pub fn candidates<E>(
    plan: &Compiled,
    named: &[usize],
    out: &mut Candidates,
    mut fits: impl FnMut(usize) -> Result<bool, E>,
) -> Result<(), E> {
    out.asking.clear();
    out.last = None;
    for &index in named {
        let Some(rule) = plan.plan.rules.get(index) else { continue };
        let asks = rule.tenant.is_some() || !rule.resource.is_empty();
        if asks && !fits(index)? {
            continue;
        }
        if rule.attributes.is_empty() {
            out.last = Some(index);
            return Ok(());
        }
        out.asking.push(index);
    }
    Ok(())
}
