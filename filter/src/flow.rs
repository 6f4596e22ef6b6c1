//! One batch through the engine: the upper line of the picture in `docs/architecture.md`.
//!
//! In: the bytes of an `ExportMetricsServiceRequest`, who sent it, the compiled plan. Out: edits that cut the folded points out of
//! those bytes, and per shard the records of what was cut. The walk goes down the message once; each level opens its length prefix
//! for editing, hands its children on, and closes again: patched when something inside changed, removed when nothing is left.
//!
//! Nothing is decided here about totals: that is the owner's. An error leaves no edit and no record; the batch then passes as it
//! came, since the backend is the judge of bad data.

use crate::admission::{ByHalf, NewLabel, Registry};
use crate::decode::{self, Data, Metric, Request, ResourceMetrics, Run, ScopeMetrics, Sum};
use crate::edit::Edits;
use crate::hash::{Domain, Identity};
use crate::identify;
use crate::kind::Intake;
use crate::ledger::Tally;
use crate::limits::AHEAD_MAX_NS;
use crate::record::{Temporality, Writer};
use crate::route::{Candidates, Compiled, Names, candidates};
use crate::shared::Shared;
use crate::switch::RawStreams;
use crate::units::UnixNanos;
use crate::wire::{Field, Span, WireError};
use phoenix_plan::{Affinity, Clock, LabelMatch, LabelOp};
use std::iter::Peekable;
use std::rc::Rc;
use std::vec::IntoIter;

mod census;
mod clock;
mod distributions;
mod exemplars;
mod guard;
mod heads;
mod kept;
mod parts;
mod points;
mod steady;
mod topk;
mod trail;
use distributions::Atom;
use guard::{Guard, ResourceLabels, Ruled};
use kept::Dictionary;
use points::Fate;

/// A batch and what is known about it besides its bytes.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// An `ExportMetricsServiceRequest`.
    pub body: &'a [u8],
    /// Whose it is.
    pub tenant: &'a [u8],
    /// Who sent it, where that is known; empty otherwise.
    pub sender: &'a [u8],
    /// When it came in.
    pub arrived: UnixNanos,
}

/// Memory reused from batch to batch.
#[derive(Default)]
pub struct Scratch {
    plan: Option<(Rc<Compiled>, Names)>,
    edits: Edits,
    writers: Vec<Writer>,
    dictionary: Dictionary,
    /// Streams whose raw series a switch still has to end. Told by [`Scratch::accepted`].
    raw: RawStreams,
    /// Since when it is shown that streams reach one process only; a plan may ask for it.
    affine_from: Option<UnixNanos>,
    candidates: Candidates,
    fits: Vec<Option<bool>>,
    rendered: String,
    /// The distribution at hand.
    atom: Atom,
    /// The exemplar at hand.
    exemplar: Vec<u8>,
    exemplars_seen: usize,
    /// What is measured and admitted, where the embedder shares data between its workers.
    registry: Option<Registry>,
    /// Room for a census.
    gathered: (Vec<NewLabel>, Vec<census::Place>),
    /// The time of the batch at hand, by the plan's clock.
    now: UnixNanos,
}

impl Scratch {
    /// A worker, by its number from 1, whose process has this shared data: without it nothing is measured, and no budget holds.
    pub fn share(&mut self, shared: Rc<dyn Shared>, worker: u64) {
        self.registry = Some(Registry::new(shared, worker));
    }

    /// What is measured and admitted.
    pub fn registry(&mut self) -> Option<&mut Registry> {
        self.registry.as_mut()
    }

    /// What was cut out of the batch, and how prefixes changed.
    pub fn edits(&self) -> &Edits {
        &self.edits
    }

    /// The message of each shard that has records, as `(shard, bytes)`. `key` is that of the plan.
    pub fn messages(&self, key: u64, arrived: UnixNanos) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
        let filled = self.writers.iter().enumerate().filter(|(_, w)| !w.is_empty());
        filled.map(move |(shard, w)| {
            let mut message = Vec::new();
            w.finish(key, arrived, &mut message);
            (shard, message)
        })
    }

    /// Affinity is shown from `at` on, in event time; `None`: it is not.
    pub fn set_affine_from(&mut self, at: Option<UnixNanos>) {
        self.affine_from = at;
    }

    /// The upstream has accepted a request that was scanned under `plan`: `message` is one of its. `carried` says that the whole
    /// of it went out raw.
    pub fn accepted(&mut self, plan: &Compiled, message: &[u8], carried: bool, now: UnixNanos) {
        if plan.ends_raw_series(now) {
            self.raw.note(message, carried, plan.plan.limits.streams_max);
        }
    }

    fn begin(&mut self, plan: &Rc<Compiled>, batch: &Batch<'_>) {
        self.meet(plan, batch);
        let now = self.now;
        self.raw.age(now, plan.plan.stream_expiry.as_nanos());
        if plan.plan.watched_over().is_some()
            && let Some(registry) = &mut self.registry
        {
            registry.begin(plan, now);
        }
        if !self.plan.as_ref().is_some_and(|(p, _)| Rc::ptr_eq(p, plan)) {
            self.plan = Some((plan.clone(), Names::new(plan)));
            self.dictionary.forget();
        }
        self.clear();
        self.dictionary.measures = self.registry.is_some() && plan.plan.measured_over().is_some();
        let shards = usize::try_from(plan.plan.shards).unwrap_or(1).max(1);
        self.writers.resize_with(shards, Writer::default);
    }

    fn clear(&mut self) {
        self.exemplars_seen = 0;
        self.edits.clear();
        self.writers.iter_mut().for_each(Writer::clear);
        self.dictionary.clear();
    }
}

/// Why a batch passes as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowError {
    /// It is not OTLP.
    Wire(WireError),
    /// Its records would take more than the plan lets wait for an answer.
    TooManyRecords,
}

impl From<WireError> for FlowError {
    fn from(e: WireError) -> FlowError {
        FlowError::Wire(e)
    }
}

/// Take one batch through. Edits and records are left in `scratch`; an error leaves none.
pub fn flow(plan: &Rc<Compiled>, batch: &Batch<'_>, scratch: &mut Scratch) -> Result<Tally, FlowError> {
    scratch.begin(plan, batch);
    let mut walk = Walk::new(plan, batch, scratch);
    match walk.request() {
        Ok(()) => Ok(walk.tally),
        Err(e) => {
            scratch.clear();
            Err(e)
        }
    }
}

/// What became of a part of the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Something is left of it (or there was nothing in it to begin with).
    Something,
    /// Everything in it was cut out.
    Nothing,
}

/// Counts children and how many of them are gone.
#[derive(Default)]
struct Children {
    all: u64,
    gone: u64,
}

impl Children {
    fn add(&mut self, left: Left) {
        self.all = self.all.saturating_add(1);
        self.gone = self.gone.saturating_add(u64::from(left == Left::Nothing));
    }

    fn left(&self) -> Left {
        if self.all > 0 && self.gone == self.all { Left::Nothing } else { Left::Something }
    }
}

/// The resource that the walk is in.
struct ResourceScope {
    attributes: Run,
    schema: Span,
    /// Identity of all its attributes, once somebody asks.
    id: Option<Identity>,
    /// The promoted ones alone, likewise.
    labels: Option<Rc<ResourceLabels>>,
}

/// The instrumentation scope that the walk is in.
struct ScopeScope {
    span: Span,
    schema: Span,
    id: Option<Identity>,
}

/// The metric that the walk is in.
struct MetricScope<'m> {
    metric: &'m Metric,
    intake: Intake,
    temporality: Temporality,
    /// Sum of the identities of everything but the point: for streams.
    stream: Identity,
    resource: Run,
    resource_schema: Span,
    /// The scope's body.
    scope: Span,
    scope_schema: Span,
    scope_id: Identity,
    /// Identity on the way out but for resource and point, and the resource's labels, where something is measured.
    out: Identity,
    labels: Option<Rc<ResourceLabels>>,
}

struct Walk<'a> {
    plan: &'a Rc<Compiled>,
    batch: &'a Batch<'a>,
    buf: &'a [u8],
    s: &'a mut Scratch,
    tally: Tally,
    /// Whose points these are: of the request, or of the resource.
    tenant: &'a [u8],
    sender_id: Identity,
    tenant_id: Identity,
    /// The ranking of the metric at hand, where its heaviest streams stay.
    top: Option<topk::Top>,
    /// What is known about the metric at hand, for points that pass: without a rule, and by one.
    guards: [Option<Guard>; 2],
    /// Points of the metric at hand.
    points_at_hand: u32,
    progress: census::Progress,
    /// Metrics whose points all pass, as a census of the batch has found.
    settled: ByHalf<()>,
    /// Of these, what is ahead in the batch.
    wholes: Peekable<IntoIter<census::Whole>>,
    ahead_after: UnixNanos,
    record_bytes_max: usize,
    /// From when on cumulative sums fold, where the plan asks for affinity to be shown; the epoch where it does not.
    affine_from: UnixNanos,
}

impl<'a> Walk<'a> {
    fn new(plan: &'a Rc<Compiled>, batch: &'a Batch<'a>, s: &'a mut Scratch) -> Walk<'a> {
        let h = &plan.hasher;
        let ahead_after = match plan.plan.clock {
            Clock::Wall => batch.arrived.plus(AHEAD_MAX_NS),
            Clock::Event => UnixNanos(u64::MAX),
        };
        let affine_from = match plan.plan.affinity {
            Affinity::Assumed => UnixNanos(0),
            Affinity::Checked => UnixNanos(s.affine_from.map_or(u64::MAX, |at| at.0.max(1))),
        };
        Walk {
            affine_from,
            plan,
            batch,
            buf: batch.body,
            s,
            tally: Tally::default(),
            tenant: batch.tenant,
            sender_id: h.pair(Domain::Tenant, batch.tenant, batch.sender),
            tenant_id: h.pair(Domain::Tenant, batch.tenant, b""),
            top: None,
            guards: [None, None],
            points_at_hand: 0,
            progress: census::Progress::default(),
            settled: ByHalf::default(),
            wholes: Vec::new().into_iter().peekable(),
            ahead_after,
            record_bytes_max: usize::try_from(plan.plan.limits.pending_bytes_max).unwrap_or(usize::MAX),
        }
    }

    fn request(&mut self) -> Result<(), FlowError> {
        let request = Request::read(self.buf, Span::all(self.buf))?;
        let mut fields = request.resource_metrics.fields(self.buf);
        while let Some((field, span)) = fields.next()? {
            self.edit(&field, |walk| walk.resource_metrics(span))?;
        }
        Ok(())
    }

    /// Go into a length-delimited field, and leave it patched or removed.
    fn edit(
        &mut self,
        field: &Field,
        inside: impl FnOnce(&mut Self) -> Result<Left, FlowError>,
    ) -> Result<Left, FlowError> {
        let token = self.s.edits.open(field);
        let left = inside(self)?;
        match left {
            Left::Nothing => self.s.edits.close_removed(token),
            Left::Something => {
                self.s.edits.close(token);
            }
        }
        Ok(left)
    }

    fn resource_metrics(&mut self, span: Span) -> Result<Left, FlowError> {
        let it = ResourceMetrics::read(self.buf, span)?;
        let mut resource = self.enter(&it)?;
        self.s.dictionary.enter_resource();
        let mut children = Children::default();
        let mut fields = it.scope_metrics.fields(self.buf);
        while let Some((field, span)) = fields.next()? {
            children.add(self.edit(&field, |walk| walk.scope_metrics(span, &mut resource))?);
        }
        Ok(children.left())
    }

    /// Go into a resource: its attributes, and whose it is.
    fn enter(&mut self, it: &ResourceMetrics) -> Result<ResourceScope, FlowError> {
        let attributes = match it.resource {
            Some(span) => decode::Resource::read(self.buf, span)?.attributes,
            None => Run::default(),
        };
        self.s.fits.clear();
        self.s.fits.resize(self.plan.plan.rules.len(), None);
        if let Some(names_tenant) = &self.plan.plan.tenant.resource_attribute {
            let mut tenant = self.batch.tenant;
            let mut all = attributes.attributes(self.buf);
            while let Some(kv) = all.next()? {
                if kv.key.bytes(self.buf) == names_tenant.as_bytes() {
                    tenant =
                        Some(kv.value.text().bytes(self.buf)).filter(|t| !t.is_empty()).unwrap_or(tenant);
                }
            }
            let h = &self.plan.hasher;
            self.tenant = tenant;
            self.sender_id = h.pair(Domain::Tenant, tenant, self.batch.sender);
            self.tenant_id = h.pair(Domain::Tenant, tenant, b"");
        }
        Ok(ResourceScope { attributes, schema: it.schema_url, id: None, labels: None })
    }

    fn scope_metrics(&mut self, span: Span, resource: &mut ResourceScope) -> Result<Left, FlowError> {
        let it = ScopeMetrics::read(self.buf, span)?;
        let mut scope = ScopeScope { span: it.scope.unwrap_or(Span::EMPTY), schema: it.schema_url, id: None };
        let mut children = Children::default();
        let mut fields = it.metrics.fields(self.buf);
        while let Some((field, span)) = fields.next()? {
            children.add(self.edit(&field, |walk| walk.metric(span, resource, &mut scope))?);
        }
        Ok(children.left())
    }

    fn metric(
        &mut self,
        span: Span,
        resource: &mut ResourceScope,
        scope: &mut ScopeScope,
    ) -> Result<Left, FlowError> {
        if self.passes_whole(span.start) {
            return Ok(Left::Something);
        }
        let metric = Metric::read(self.buf, span)?;
        let Some(field) = metric.data.field().copied() else { return Ok(Left::Something) };
        let data = field.bytes()?;
        self.route(metric.name.bytes(self.buf), resource)?;
        let is_guarding = self.is_guarding();
        let all_pass = self.s.candidates.all_pass(self.plan);
        if all_pass && !is_guarding {
            let points = u64::from(decode::points(self.buf, data)?.count);
            self.tally.points = self.tally.points.saturating_add(points);
            self.tally.passed = self.tally.passed.saturating_add(points);
            return Ok(Left::Something);
        }
        let (intake, temporality, run) = intake(self.buf, &metric, data)?;
        let points = u64::from(run.count);
        self.tally.points = self.tally.points.saturating_add(points);
        let takes = |t: &Temporality| !self.s.candidates.none_takes(self.plan, intake, *t);
        let Some(temporality) = temporality.filter(|t| is_guarding || takes(t)) else {
            self.tally.passed = self.tally.passed.saturating_add(points);
            if !all_pass {
                self.tally.unfoldable = self.tally.unfoldable.saturating_add(points);
            }
            return Ok(Left::Something);
        };
        self.edit(&field, |walk| walk.points(&metric, run, (intake, temporality), resource, scope))
    }

    /// Which rules may decide about the points of this metric? The answer is left in the scratch.
    fn route(&mut self, name: &[u8], resource: &ResourceScope) -> Result<(), FlowError> {
        let Some((_, names)) = &mut self.s.plan else { return Ok(()) };
        let named = names.rules(&self.plan.plan, name);
        let (buf, rules, tenant) = (self.buf, &self.plan.plan.rules, self.tenant);
        let (fits, rendered) = (&mut self.s.fits, &mut self.s.rendered);
        candidates(self.plan, &named, &mut self.s.candidates, |index| {
            if let Some(Some(known)) = fits.get(index) {
                return Ok(*known);
            }
            let mut all = rules.get(index).is_some_and(|rule| rule.is_of(tenant));
            for label in rules.get(index).map(|r| r.resource.as_slice()).unwrap_or_default() {
                all = all && satisfies(buf, &resource.attributes, label, rendered)?;
            }
            if let Some(slot) = fits.get_mut(index) {
                *slot = Some(all);
            }
            Ok(all)
        })
    }

    fn points(
        &mut self,
        metric: &Metric,
        points: Run,
        (intake, temporality): (Intake, Temporality),
        resource: &mut ResourceScope,
        scope: &mut ScopeScope,
    ) -> Result<Left, FlowError> {
        let h = &self.plan.hasher;
        let resource_id = match resource.id {
            Some(id) => id,
            None => identify::attributes(h, Domain::Resource, self.buf, &resource.attributes)?,
        };
        resource.id = Some(resource_id);
        let scope_id = match scope.id {
            Some(id) => id,
            None => identify::scope(h, self.buf, &decode::Scope::read(self.buf, scope.span)?)?,
        };
        scope.id = Some(scope_id);
        let metric_id = identify::metric(h, self.buf, metric.name, metric.unit, &intake.facts(temporality));
        let stream = self.sender_id.plus(resource_id).plus(scope_id).plus(metric_id);
        let is_guarding = self.is_guarding();
        let is_watching = is_guarding || self.s.candidates.topk(self.plan).is_some();
        let labels = if is_watching { Some(self.resource_labels(resource)?) } else { None };
        self.top = None;
        self.points_at_hand = points.count;
        let within = MetricScope {
            metric,
            intake,
            temporality,
            stream,
            resource: resource.attributes,
            resource_schema: resource.schema,
            scope: scope.span,
            scope_schema: scope.schema,
            scope_id,
            out: self.tenant_id.plus(scope_id).plus(metric_id),
            labels,
        };
        self.s.dictionary.enter_metric();
        self.s.atom.no_bounds();
        let mut children = Children::default();
        let steady = self.steady(intake, temporality);
        // Where every point passes by the same guard, that has a short way as well.
        let passing = self.ruled().filter(|_| is_guarding && intake.is_number());
        let (mut fields, mut left) = (points.fields(self.buf), points.count);
        while fields.advance()? {
            let (field, span) = fields.place();
            let guard = self.guards.get(Ruled::No.slot()).and_then(Option::as_ref);
            if passing == Some(Ruled::No) && guard.is_some_and(|guard| guard.is_settled) {
                self.pass_all(u64::from(left));
                children.add(Left::Something);
                break;
            }
            left = left.saturating_sub(1);
            if steady.is_some_and(|fold| self.recorded_again(span, &within, fold)) {
                self.s.edits.remove(field);
                children.add(Left::Nothing);
                continue;
            }
            if passing.is_some_and(|ruled| self.passes_again(span, &within, ruled.slot())) {
                self.tally.passed = self.tally.passed.saturating_add(1);
                children.add(Left::Something);
                continue;
            }
            let fate = self.point(span, &within)?;
            children.add(match fate {
                Fate::Cut | Fate::Dropped => {
                    self.s.edits.remove(field);
                    Left::Nothing
                }
                Fate::Passes => {
                    self.tally.passed = self.tally.passed.saturating_add(1);
                    Left::Something
                }
                Fate::Ends => {
                    self.tally.marked = self.tally.marked.saturating_add(1);
                    self.edit(&fields.field(), |walk| walk.end(span, intake))?
                }
            });
        }
        self.leave_metric();
        Ok(children.left())
    }
}

/// What a metric is, its temporality and its points; gauges and summaries speak of now, as cumulative streams do. No temporality where it
/// says nothing known.
fn intake(buf: &[u8], metric: &Metric, data: Span) -> Result<(Intake, Option<Temporality>, Run), WireError> {
    let known = |temporality| match temporality {
        decode::Temporality::Delta => Some(Temporality::Delta),
        decode::Temporality::Cumulative => Some(Temporality::Cumulative),
        _ => None,
    };
    let (intake, temporality) = match metric.data {
        Data::Sum(_) => {
            let sum = Sum::read(buf, data)?;
            let intake = if sum.monotonic { Intake::Sum } else { Intake::UpDown };
            return Ok((intake, known(sum.temporality), sum.points));
        }
        Data::Histogram(_) => (Intake::Histogram, known(decode::histogram_temporality(buf, data)?)),
        Data::ExponentialHistogram(_) => {
            (Intake::Exponential, known(decode::histogram_temporality(buf, data)?))
        }
        Data::Summary(_) => (Intake::Summary, Some(Temporality::Cumulative)),
        Data::Gauge(_) | Data::None => (Intake::Gauge, Some(Temporality::Cumulative)),
    };
    Ok((intake, temporality, decode::points(buf, data)?))
}

/// Does one of these attributes satisfy a matcher?
fn satisfies(buf: &[u8], run: &Run, label: &LabelMatch, rendered: &mut String) -> Result<bool, WireError> {
    let mut it = run.attributes(buf);
    while let Some(kv) = it.next()? {
        if kv.key.bytes(buf) == label.key.as_bytes() {
            if let LabelOp::Exists(wanted) = label.op {
                return Ok(wanted);
            }
            return Ok(identify::render(buf, &kv.value, rendered).is_some_and(|v| label.op.matches(Some(v))));
        }
    }
    Ok(label.op.matches(None))
}
