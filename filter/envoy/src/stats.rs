//! The few numbers that Envoy shows (`wasmcustom.phoenix_*`): the ledger, errors by kind, and how full the tables are.
//!
//! Counters are sums over workers; a value here remembers what it has reported and adds the difference. Ids are defined once per
//! VM, since Envoy never frees them. The list is fixed: there is never a stat per series, tenant or metric.

use crate::host;
use phoenix_filter::ledger::{Page, Tally};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident: $kind:ident = $text:literal,)*) => {
        /// Values as this worker knows them.
        #[derive(Default)]
        pub struct Stats { $($(#[$doc])* pub $name: u64,)* reported: Vec<u64>, ids: Option<Box<[Option<u32>]>> }

        impl Stats {
            /// Tell Envoy what has changed since the last time.
            pub fn report(&mut self) {
                let now = [$(self.$name),*];
                let ids = self.ids.get_or_insert_with(|| {
                    [$(host::define_metric(stats!(@gauge $kind), $text)),*].into()
                });
                self.reported.resize(now.len(), 0);
                for ((id, now), before) in ids.iter().zip(now).zip(self.reported.iter_mut()) {
                    if let Some(id) = id {
                        // Gauges may fall; both are far below 2^63.
                        host::increment_metric(*id, now.cast_signed().wrapping_sub(before.cast_signed()));
                    }
                    *before = now;
                }
            }

            /// All of them by name, as this worker knows them; a report's ledger.
            pub fn counts(&self) -> Vec<(&'static str, f64)> {
                vec![$(($text, self.$name as f64)),*]
            }
        }
    };
    (@gauge counter) => { false };
    (@gauge gauge) => { true };
}

stats! {
    /// Points that came in.
    points: counter = "phoenix_points",
    /// Points that passed untouched.
    passed: counter = "phoenix_passed",
    /// Points that were cut out and recorded.
    recorded: counter = "phoenix_recorded",
    /// Records whose increment joined a series.
    folded: counter = "phoenix_folded",
    /// First points that only set where to count from.
    baselines: counter = "phoenix_baselines",
    /// Folded after a restart of their stream.
    resets: counter = "phoenix_resets",
    /// Folded, with a part in a closed window.
    late: counter = "phoenix_late",
    /// Not newer than the last point of their stream.
    out_of_order: counter = "phoenix_out_of_order",
    /// Delta intervals seen before.
    duplicates: counter = "phoenix_duplicates",
    /// Delta intervals that overlap a seen one.
    overlaps: counter = "phoenix_overlaps",
    /// Passed raw: before or after a switch, or because the owner was behind.
    carried: counter = "phoenix_carried",
    /// Records that found a table full, or were made under another hash key.
    refused: counter = "phoenix_refused",
    /// Points too far ahead of the clock: passed.
    ahead: counter = "phoenix_ahead",
    /// Points that no fold can take: passed.
    unfit: counter = "phoenix_unfit",
    /// Points of types without a fold: passed.
    unfoldable: counter = "phoenix_unfoldable",
    /// Points whose labels cannot be written: passed.
    unwritable: counter = "phoenix_unwritable",
    /// Recorded points of metrics that are beyond a budget.
    contained: counter = "phoenix_contained",
    /// Points outside every budget, since no fold is declared for their type: passed.
    undeclared: counter = "phoenix_undeclared",
    /// Points of streams about which budgets could not decide.
    undecided: counter = "phoenix_undecided",
    /// Streams of metrics or with labels for which measuring had no room.
    unmeasured: counter = "phoenix_unmeasured",
    /// Points of streams that found no room to be ranked.
    unranked: counter = "phoenix_unranked",
    /// Raw streams that budgets have admitted, in this process.
    admitted_series: gauge = "phoenix_admitted_series",
    /// Folded series that budgets have made.
    budget_series: gauge = "phoenix_budget_series",
    /// Reports that were taken.
    reports: counter = "phoenix_reports",
    /// Reports that were not.
    report_failures: counter = "phoenix_report_failures",
    /// Metrics that are beyond their budget now.
    contained_metrics: gauge = "phoenix_contained_metrics",
    /// Points that passed with their records, because a switch is before or behind them.
    watched: counter = "phoenix_watched",
    /// Of the watched: cumulative sums that would fold, were affinity shown.
    unaffine: counter = "phoenix_unaffine",
    /// Reports of peers that were read.
    peer_reports: counter = "phoenix_peer_reports",
    /// Peers that did not answer, or with something else.
    peer_failures: counter = "phoenix_peer_failures",
    /// Stream affinity: 0 not known, 1 shown, 2 refuted.
    affinity: gauge = "phoenix_affinity",
    /// About how many streams the last peer has in common with this process …
    overlap_streams: gauge = "phoenix_overlap_streams",
    /// … of so many that either has …
    union_streams: gauge = "phoenix_union_streams",
    /// … and of so many of its own.
    own_streams: gauge = "phoenix_own_streams",
    /// Recorded points that left the stale marker of their raw series in their place.
    marked: counter = "phoenix_marked",
    /// Stale markers of folded streams.
    no_value: counter = "phoenix_no_value",
    /// Recorded points whose request never got an answer.
    unanswered: counter = "phoenix_unanswered",
    /// Recorded points whose request the upstream refused.
    upstream_refused: counter = "phoenix_upstream_refused",
    /// Requests that are not OTLP metrics in protobuf: passed.
    other_requests: counter = "phoenix_other_requests",
    /// Requests of OTLP in JSON: passed.
    json_requests: counter = "phoenix_json_requests",
    /// Requests in an encoding that nobody undid: passed.
    encoded_requests: counter = "phoenix_encoded_requests",
    /// Bodies that are not OTLP: passed.
    errors_decode: counter = "phoenix_errors_decode",
    /// Bodies whose gRPC frames are broken: passed.
    errors_frame: counter = "phoenix_errors_frame",
    /// Bodies whose gzip is broken: passed.
    errors_gzip: counter = "phoenix_errors_gzip",
    /// Bodies over the plan's limit, before or after inflating: passed.
    errors_too_large: counter = "phoenix_errors_too_large",
    /// Things that must not happen.
    bugs: counter = "phoenix_bugs",
    /// Times that every stream had to become a stranger because raw points could not be remembered.
    rebaselines: counter = "phoenix_rebaselines",
    /// Emissions that the upstream accepted.
    emissions: counter = "phoenix_emissions",
    /// Points in them.
    emitted: counter = "phoenix_emitted",
    /// Folded into the overflow series of their metric, because the table of series was full.
    overflowed: counter = "phoenix_overflowed",
    /// Deltas folded without a memory of them, because the table of streams was full.
    unremembered: counter = "phoenix_unremembered",
    late_values: counter = "phoenix_late_values",
    /// Points refused for good after their series had gone: lost.
    abandoned: counter = "phoenix_abandoned",
    /// Points of accepted emissions that the upstream rejected all the same (`partial_success`): lost.
    emitted_rejected: counter = "phoenix_emitted_rejected",
    /// Emissions refused for good; their increments went back.
    emissions_refused: counter = "phoenix_emissions_refused",
    /// Emissions that had to be sent again.
    emission_retries: counter = "phoenix_emission_retries",
    /// Streams that are remembered.
    streams: gauge = "phoenix_streams",
    /// Folded series.
    series: gauge = "phoenix_series",
    /// Bytes of emissions without a definite answer.
    backlog_bytes: gauge = "phoenix_backlog_bytes",
}

impl Stats {
    /// What a batch held.
    pub fn add_tally(&mut self, t: &Tally) {
        for (a, b) in [
            (&mut self.points, t.points),
            (&mut self.passed, t.passed),
            (&mut self.recorded, t.recorded),
            (&mut self.watched, t.watched),
            (&mut self.marked, t.marked),
            (&mut self.unaffine, t.unaffine),
            (&mut self.no_value, t.no_value),
            (&mut self.ahead, t.ahead),
            (&mut self.unfit, t.unfit),
            (&mut self.unfoldable, t.unfoldable),
            (&mut self.unwritable, t.unwritable),
            (&mut self.contained, t.contained),
            (&mut self.undeclared, t.undeclared),
            (&mut self.undecided, t.undecided),
        ] {
            *a = a.saturating_add(b);
        }
    }

    /// What the owners of this worker know; all of it, not what is new.
    pub fn set_page(&mut self, p: &Page, foreign_key: u64) {
        self.folded = p.folded;
        self.baselines = p.baselines;
        self.resets = p.resets;
        self.late = p.late;
        self.out_of_order = p.out_of_order;
        self.duplicates = p.duplicates;
        self.overlaps = p.overlaps;
        self.carried = p.carried;
        self.refused = p.refused.saturating_add(foreign_key);
        self.emitted = p.emitted;
        self.abandoned = p.abandoned;
        self.overflowed = p.overflowed;
        self.unremembered = p.unremembered;
        self.late_values = p.late_values;
    }
}

/// Add one.
pub fn bump(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
