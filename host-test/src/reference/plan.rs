//! What the reference folds, and how.
//!
//! In: plain values, written by hand in a test or made from the same description as the plan of Envoy. Out: for a time, what a rule does with a point of
//! then. Refuses nothing.

/// What is folded, and how.
#[derive(Clone, Debug, Default)]
pub struct ReferencePlan {
    /// The first that matches decides.
    pub rules: Vec<ReferenceRule>,
    /// Resource attributes that the backend stores on every series.
    pub promoted: Vec<String>,
    /// Key of the mark.
    pub mark_label: String,
    /// Key of the writer's label.
    pub writer_label: String,
    /// The writer.
    pub writer: String,
    /// A stream counts from zero only if it is younger than our tracking by more than this.
    pub first_sample_margin_ns: u64,
    /// How long a series that a switch has ended goes on flat.
    pub stream_expiry_ns: u64,
    /// As others fold, the baseline to measure against: the whole increment goes to the window of its arrival, and a switch hands nothing over. What was
    /// learned of a stream before it is forgotten, and no series is opened, led on or ended because of it.
    pub is_at_arrival: bool,
}

/// What is done with some metrics.
#[derive(Clone, Debug, Default)]
pub struct ReferenceRule {
    /// Metrics whose names begin so.
    pub metric_prefix: String,
    /// The fold, from the switch on where there is one; none passes.
    pub fold: Option<ReferenceFold>,
    /// What was done before.
    pub switch: Option<ReferenceSwitch>,
}

/// Until when something else was done.
#[derive(Clone, Debug, Default)]
pub struct ReferenceSwitch {
    /// Points of this time and later meet the rule.
    pub at_ns: u64,
    /// Earlier ones met this; none passed.
    pub from: Option<ReferenceFold>,
}

/// One fold.
#[derive(Clone, Debug, Default)]
pub struct ReferenceFold {
    /// Resource attributes to drop.
    pub drop_resource: Vec<String>,
    /// Point attributes to drop.
    pub drop_attributes: Vec<String>,
    /// Width of a window.
    pub window_ns: u64,
    /// Windows begin so long after multiples of their width.
    pub offset_ns: u64,
    /// How long after its end a window stays open.
    pub delay_ns: u64,
    /// Delta comes out as cumulative.
    pub is_cumulative_out: bool,
    /// How gauges are put together; none: they pass.
    pub gauge: Option<Function>,
    /// How long the last value of a silent gauge stands.
    pub value_expiry_ns: u64,
}

/// What is made of last values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Their sum.
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The newest.
    Last,
    /// How many there are.
    Count,
}

/// On which side of a rule's switch something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Earlier than it.
    Before,
    /// Not earlier, or there is none.
    After,
}

impl ReferenceRule {
    /// The side of a time.
    pub fn side(&self, time_ns: u64) -> Side {
        match &self.switch {
            Some(switch) if time_ns < switch.at_ns => Side::Before,
            _ => Side::After,
        }
    }

    /// What is done on a side.
    pub fn on(&self, side: Side) -> Option<&ReferenceFold> {
        match (side, &self.switch) {
            (Side::Before, Some(switch)) => switch.from.as_ref(),
            _ => self.fold.as_ref(),
        }
    }
}

impl ReferenceFold {
    /// Where the window that holds a time begins.
    pub fn window_of(&self, time_ns: u64) -> u64 {
        floor(time_ns, self.window_ns, self.offset_ns)
    }
}

/// The start of the window that holds a time. Before the first window there is one that begins at 0.
pub fn floor(time_ns: u64, window_ns: u64, offset_ns: u64) -> u64 {
    match time_ns.checked_sub(offset_ns) {
        Some(since_ns) => time_ns - since_ns % window_ns,
        None => 0,
    }
}
