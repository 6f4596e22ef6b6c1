//! What one field cannot know by its type: ranges, and combinations that would write wrong series.
//!
//! Enters: a plan. Leaves: nothing, or the first refusal in the order of the document. Nothing is changed or defaulted here.

use crate::error::{quote, shorten};
use crate::{
    Budgets, DurationMs, Fold, LabelMatch, LabelOp, Labels, Limits, Pipeline, Placement, Plan, PlanError,
    Rule, Switch, bounds,
};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

type Checked = Result<(), PlanError>;

impl Plan {
    /// Checks ranges and combinations; [`Plan::parse`] calls it.
    ///
    /// # Errors
    /// The first field that is out of range, or that contradicts another.
    pub fn validate(&self) -> Checked {
        if self.schema != bounds::SCHEMA {
            return Err(PlanError::of(
                "schema",
                self.schema.to_string(),
                "1, the only form that this build reads",
            ));
        }
        if self.version == 0 {
            return Err(PlanError::of("version", "0", "1 or more"));
        }
        if let Some(writer) = &self.writer {
            text("writer", writer, 1, bounds::NAME_BYTES)?;
        }
        added_label("mark_label", &self.mark_label)?;
        added_label("writer_label", &self.writer_label)?;
        if stored_name(&self.mark_label) == stored_name(&self.writer_label) {
            return Err(PlanError::of(
                "writer_label",
                quote(&self.writer_label),
                "a label other than mark_label",
            ));
        }
        if let Some(promoted) = &self.promoted_resource_attributes {
            label_list("promoted_resource_attributes", promoted)?;
            self.not_ours("promoted_resource_attributes", promoted)?;
        }
        if let Some(header) = &self.tenant.header {
            header_name("tenant.header", header)?;
        }
        text("tenant.default", &self.tenant.default, 0, bounds::NAME_BYTES)?;
        if let Some(header) = &self.sender_header {
            header_name("sender_header", header)?;
        }
        number("shards", self.shards, &bounds::SHARDS)?;
        duration("first_sample_margin", self.first_sample_margin, &bounds::FIRST_SAMPLE_MARGIN_MS)?;
        if let Some(key) = &self.tenant.resource_attribute {
            label_key("tenant.resource_attribute", key)?;
        }
        self.limits.validate().map_err(|error| error.under("limits"))?;
        if let Some(measure) = &self.measure {
            duration("measure.period", measure.period, &bounds::PERIOD_MS)?;
        }
        if let Some(budgets) = &self.budgets {
            self.validate_budgets(budgets).map_err(|error| error.under("budgets"))?;
        }
        self.validate_rules()?;
        self.validate_expiry()
    }

    fn validate_rules(&self) -> Checked {
        if self.rules.len() > bounds::RULES {
            let count = format!("of {} rules", self.rules.len());
            return Err(PlanError::of("rules", count, format!("at most {} rules", bounds::RULES)));
        }
        let mut names = BTreeSet::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let unique = if names.insert(rule.name.as_str()) {
                Ok(())
            } else {
                Err(PlanError::of("name", quote(&rule.name), "a name that no earlier rule has"))
            };
            unique
                .and_then(|()| self.validate_rule(rule))
                .map_err(|error| error.in_rule(index, &rule.name))?;
        }
        Ok(())
    }

    fn validate_rule(&self, rule: &Rule) -> Checked {
        text("name", &rule.name, 1, bounds::NAME_BYTES)?;
        if let Some(tenant) = &rule.tenant {
            text("tenant", tenant, 0, bounds::NAME_BYTES)?;
        }
        let (operation, name) = rule.metric.parts();
        let name_max = if operation == "glob" { bounds::PATTERN_BYTES } else { bounds::KEY_BYTES };
        text(&format!("metric.{operation}"), name, 1, name_max)?;
        matchers("resource", &rule.resource)?;
        matchers("attributes", &rule.attributes)?;
        if rule.pipeline == Pipeline::ExperimentalTopk {
            return self.validate_topk(rule);
        }
        if rule.topk.is_some() {
            return Err(PlanError::of("topk", "", "no topk, which only pipeline experimental_topk has"));
        }
        self.validate_treatment(rule.pipeline, rule.fold.as_ref())?;
        rule.switch.as_ref().map_or(Ok(()), |switch| {
            self.validate_switch(rule, switch).map_err(|error| error.under("switch"))
        })
    }

    /// Some streams stay and the others fold: both must be said, and no switch, since each stream has its own.
    fn validate_topk(&self, rule: &Rule) -> Checked {
        let Some(fold) = &rule.fold else {
            return Err(PlanError::of(
                "fold",
                "",
                "a fold of the tail, which pipeline experimental_topk needs",
            ));
        };
        self.validate_fold(fold).map_err(|error| error.under("fold"))?;
        let Some(topk) = &rule.topk else {
            return Err(PlanError::of("topk", "", "topk with a k, which pipeline experimental_topk needs"));
        };
        number("topk.k", topk.k, &bounds::TOP_K)?;
        if let Some(percent) = topk.coverage_percent {
            number("topk.coverage_percent", percent, &bounds::COVERAGE_PERCENT)?;
        }
        if let Some(k_max) = topk.k_max.filter(|k_max| !(topk.k..=*bounds::TOP_K.end()).contains(k_max)) {
            let allowed = format!("k, {}, to {}", topk.k, bounds::TOP_K.end());
            return Err(PlanError::of("topk.k_max", k_max.to_string(), allowed));
        }
        if rule.switch.is_some() {
            let allowed = "no switch with pipeline experimental_topk: it switches each stream by itself; a plan with the other pipeline \
                           first, or after it";
            return Err(PlanError::of("switch", "", allowed));
        }
        Ok(())
    }

    /// A switch has two sides that write different series: the windows of a series change without one.
    fn validate_switch(&self, rule: &Rule, switch: &Switch) -> Checked {
        let from = &switch.from;
        self.validate_treatment(from.pipeline, from.fold.as_ref()).map_err(|error| error.under("from"))?;
        match (&from.fold, &rule.fold) {
            (None, None) => Err(PlanError::of(
                "from.pipeline",
                "\"full_fidelity\"",
                "optimized, or no switch: nothing changes between full_fidelity and full_fidelity",
            )),
            (Some(a), Some(b)) if a.labels.keeps_the_same_as(&b.labels) => Err(PlanError::of(
                "from.fold.labels",
                quote(&a.labels.mark()),
                "other labels than those of the rule's fold: the same series need no switch",
            )),
            _ => Ok(()),
        }
    }

    fn validate_treatment(&self, pipeline: Pipeline, fold: Option<&Fold>) -> Checked {
        match (pipeline, fold) {
            (Pipeline::ExperimentalTopk, _) => Err(PlanError::of(
                "pipeline",
                "\"experimental_topk\"",
                "full_fidelity or optimized: nothing switches from experimental_topk, where each stream has a switch of its own",
            )),
            (Pipeline::Optimized, None) => {
                Err(PlanError::of("fold", "", "a fold, which pipeline optimized needs"))
            }
            (Pipeline::FullFidelity, Some(_)) => Err(PlanError::of(
                "fold",
                "",
                "no fold, since pipeline full_fidelity passes every point untouched",
            )),
            (Pipeline::FullFidelity, None) => Ok(()),
            (Pipeline::Optimized, Some(fold)) => {
                self.validate_fold(fold).map_err(|error| error.under("fold"))
            }
        }
    }

    /// Every share can be kept: none is named twice, none reserves more than it has, and what is reserved fits the process.
    fn validate_budgets(&self, budgets: &Budgets) -> Checked {
        let mut names = BTreeSet::new();
        let mut reserved = 0_u64;
        count("tenants", budgets.tenants.len())?;
        for (index, share) in budgets.tenants.iter().enumerate() {
            let at = |field: &str| format!("tenants[{index}].{field}");
            if let Some(tenant) = &share.tenant {
                text(&at("tenant"), tenant, 0, bounds::NAME_BYTES)?;
            }
            if !names.insert(share.tenant.as_deref()) {
                let value = share.tenant.as_deref().map_or(String::new(), quote);
                return Err(PlanError::of(
                    at("tenant"),
                    value,
                    "each tenant once, and one entry without a tenant",
                ));
            }
            number(&at("active_series"), share.active_series, &bounds::ACTIVE_SERIES)?;
            if share.reserved > share.active_series {
                let allowed = format!("0 to active_series, {}", share.active_series);
                return Err(PlanError::of(at("reserved"), share.reserved.to_string(), allowed));
            }
            if share.tenant.is_some() {
                reserved = reserved.saturating_add(u64::from(share.reserved));
                if reserved > u64::from(self.limits.active_series_max) {
                    let allowed = format!(
                        "reserved parts of at most limits.active_series_max together, {}",
                        self.limits.active_series_max
                    );
                    return Err(PlanError::of(at("reserved"), share.reserved.to_string(), allowed));
                }
            }
        }
        count("metrics", budgets.metrics.len())?;
        for (index, share) in budgets.metrics.iter().enumerate() {
            let at = |field: &str| format!("metrics[{index}].{field}");
            if let Some(tenant) = &share.tenant {
                text(&at("tenant"), tenant, 0, bounds::NAME_BYTES)?;
            }
            let (operation, name) = share.metric.parts();
            let name_max = if operation == "glob" { bounds::PATTERN_BYTES } else { bounds::KEY_BYTES };
            text(&at(&format!("metric.{operation}")), name, 1, name_max)?;
            number(&at("active_series"), share.active_series, &bounds::ACTIVE_SERIES)?;
        }
        label_list("protected_labels", &budgets.protected_labels)?;
        self.not_ours("protected_labels", &budgets.protected_labels)?;
        duration("dwell", budgets.dwell, &bounds::DWELL_MS)?;
        number("restore_below_percent", budgets.restore_below_percent, &bounds::RESTORE_PERCENT)?;
        duration("switch_lead", budgets.switch_lead, &bounds::SWITCH_LEAD_MS)?;
        let no_labels = Labels::Drop { resource: Vec::new(), attributes: Vec::new() };
        self.validate_windows(&budgets.fold.with(no_labels)).map_err(|error| error.under("fold"))
    }

    fn validate_fold(&self, fold: &Fold) -> Checked {
        self.validate_labels(&fold.labels).map_err(|error| error.under("labels"))?;
        self.validate_windows(fold)
    }

    fn validate_windows(&self, fold: &Fold) -> Checked {
        duration("window", fold.window, &bounds::WINDOW_MS)?;
        if let Some(offset) = fold.offset.filter(|offset| *offset >= fold.window) {
            let allowed = format!("0s to less than window, {}", fold.window);
            return Err(PlanError::of("offset", quote(&offset.to_string()), allowed));
        }
        duration("delay", fold.delay, &bounds::DELAY_MS)?;
        let fits = |expiry: &DurationMs| (fold.window..=self.stream_expiry).contains(expiry);
        if let Some(expiry) = fold.value_expiry.filter(|expiry| !fits(expiry)) {
            let allowed = format!("window, {}, to stream_expiry, {}", fold.window, self.stream_expiry);
            return Err(PlanError::of("value_expiry", quote(&expiry.to_string()), allowed));
        }
        number("exemplars", fold.exemplars, &bounds::EXEMPLARS)
    }

    fn validate_labels(&self, labels: &Labels) -> Checked {
        const SIDECAR: &str = "no dropped resource attribute with placement sidecar: the writer on folded series is as fine as the \
                               pod there, so it would save nothing; fold resource attributes at a gateway";
        match labels {
            Labels::Drop { resource, attributes } => {
                label_list("drop.resource", resource)?;
                label_list("drop.attributes", attributes)?;
                if resource.is_empty() && attributes.is_empty() {
                    return Err(PlanError::of("drop", "", "at least one label in resource or attributes"));
                }
                if self.placement == Placement::Sidecar && labels.drops_resource() {
                    return Err(PlanError::of("drop.resource", json_list(resource), SIDECAR));
                }
            }
            Labels::Keep { resource, attributes } => {
                if let Some(resource) = resource {
                    label_list("keep.resource", resource)?;
                    self.not_ours("keep.resource", resource)?;
                    if self.placement == Placement::Sidecar {
                        return Err(PlanError::of("keep.resource", json_list(resource), SIDECAR));
                    }
                }
                label_list("keep.attributes", attributes)?;
                self.not_ours("keep.attributes", attributes)?;
            }
        }
        Ok(())
    }

    /// Refuses a kept label that the backend would store under the name of a label that Phoenix adds.
    fn not_ours(&self, field: &str, list: &[String]) -> Checked {
        for (index, key) in list.iter().enumerate() {
            for (ours, role) in [(&self.mark_label, "mark_label"), (&self.writer_label, "writer_label")] {
                if stored_name(key) == stored_name(ours) {
                    let allowed = format!("a label other than {role}, which folded series get anew");
                    return Err(PlanError::of(format!("{field}[{index}]"), quote(key), allowed));
                }
            }
        }
        Ok(())
    }

    fn validate_expiry(&self) -> Checked {
        let least = self.stream_expiry_min();
        let longest = DurationMs(bounds::STREAM_EXPIRY_MAX_MS);
        if self.stream_expiry < least || self.stream_expiry > longest || self.stream_expiry.0 == 0 {
            let least = least.max(DurationMs(1));
            let allowed = format!("{least} (twice the longest delay + window of the rules) to {longest}");
            return Err(PlanError::of("stream_expiry", quote(&self.stream_expiry.to_string()), allowed));
        }
        Ok(())
    }
}

impl Limits {
    fn validate(&self) -> Checked {
        number("streams_max", self.streams_max, &bounds::STREAMS)?;
        number("delta_streams_max", self.delta_streams_max, &bounds::DELTA_STREAMS)?;
        number("gauge_streams_max", self.gauge_streams_max, &bounds::GAUGE_STREAMS)?;
        number("histogram_bytes_max", self.histogram_bytes_max, &bounds::HISTOGRAM_BYTES)?;
        number("series_max", self.series_max, &bounds::SERIES)?;
        number("pending_bytes_max", self.pending_bytes_max, &bounds::PENDING_BYTES)?;
        number("queue_bytes_max", self.queue_bytes_max, &bounds::QUEUE_BYTES)?;
        number("emission_bytes_max", self.emission_bytes_max, &bounds::EMISSION_BYTES)?;
        number("backlog_bytes_max", self.backlog_bytes_max, &bounds::BACKLOG_BYTES)?;
        if self.backlog_bytes_max < self.emission_bytes_max {
            let allowed = format!("at least emission_bytes_max, {}", self.emission_bytes_max);
            return Err(PlanError::of("backlog_bytes_max", self.backlog_bytes_max.to_string(), allowed));
        }
        number("body_bytes_max", self.body_bytes_max, &bounds::BODY_BYTES)?;
        number("active_series_max", self.active_series_max, &bounds::ACTIVE_SERIES)?;
        number("tenants_max", self.tenants_max, &bounds::TENANTS)?;
        number("measure_bytes_max", self.measure_bytes_max, &bounds::MEASURE_BYTES)
    }
}

/// As many shares as a plan can give.
fn count(field: &str, len: usize) -> Checked {
    if len <= bounds::SHARES {
        return Ok(());
    }
    Err(PlanError::of(field, format!("of {len} shares"), format!("at most {} shares", bounds::SHARES)))
}

/// A number within its range.
fn number<N: PartialOrd + Display>(field: &str, value: N, range: &RangeInclusive<N>) -> Checked {
    if range.contains(&value) {
        return Ok(());
    }
    Err(PlanError::of(field, value.to_string(), bounds::text(range)))
}

/// A duration within its range.
fn duration(field: &str, value: DurationMs, range_ms: &RangeInclusive<u64>) -> Checked {
    if range_ms.contains(&value.0) {
        return Ok(());
    }
    let allowed = bounds::text(&(DurationMs(*range_ms.start())..=DurationMs(*range_ms.end())));
    Err(PlanError::of(field, quote(&value.to_string()), allowed))
}

/// Text of a bounded length without control characters.
fn text(field: &str, value: &str, bytes_min: usize, bytes_max: usize) -> Checked {
    if (bytes_min..=bytes_max).contains(&value.len()) && !value.chars().any(char::is_control) {
        return Ok(());
    }
    let allowed = format!("{bytes_min} to {bytes_max} bytes without control characters");
    Err(PlanError::of(field, quote(value), allowed))
}

/// The key of a label: text without a comma, since the mark joins keys by commas.
fn label_key(field: &str, key: &str) -> Checked {
    text(field, key, 1, bounds::KEY_BYTES)?;
    if key.contains(',') {
        return Err(PlanError::of(field, quote(key), "a label without a comma"));
    }
    Ok(())
}

/// A list of label keys, each once.
fn label_list(field: &str, list: &[String]) -> Checked {
    if list.len() > bounds::LABELS {
        let count = format!("of {} labels", list.len());
        return Err(PlanError::of(field, count, format!("at most {} labels", bounds::LABELS)));
    }
    let mut seen = BTreeSet::new();
    for (index, key) in list.iter().enumerate() {
        let place = format!("{field}[{index}]");
        label_key(&place, key)?;
        if !seen.insert(key.as_str()) {
            return Err(PlanError::of(place, quote(key), "each label once"));
        }
    }
    Ok(())
}

/// Label matchers of a rule.
fn matchers(field: &str, list: &[LabelMatch]) -> Checked {
    if list.len() > bounds::MATCHERS {
        let count = format!("of {} matchers", list.len());
        return Err(PlanError::of(field, count, format!("at most {} matchers", bounds::MATCHERS)));
    }
    for (index, label) in list.iter().enumerate() {
        text(&format!("{field}[{index}].key"), &label.key, 1, bounds::KEY_BYTES)?;
        let (operation, value) = label.op.parts();
        let bytes_max =
            if matches!(label.op, LabelOp::Glob(_)) { bounds::PATTERN_BYTES } else { bounds::VALUE_BYTES };
        if let Some(value) = value.filter(|value| value.len() > bytes_max) {
            let allowed = format!("at most {bytes_max} bytes");
            return Err(PlanError::of(format!("{field}[{index}].{operation}"), quote(value), allowed));
        }
    }
    Ok(())
}

/// The name of a label that Phoenix adds: one that every backend stores as it is, dots aside.
fn added_label(field: &str, name: &str) -> Checked {
    let first_fits = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest_fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
    if first_fits && rest_fits && name.len() <= bounds::NAME_BYTES && !name.starts_with("__") {
        return Ok(());
    }
    let allowed = format!(
        "1 to {} of the characters A-Z a-z 0-9 _ . with no digit or dot first, and not __ first",
        bounds::NAME_BYTES
    );
    Err(PlanError::of(field, quote(name), allowed))
}

/// A header's name as HTTP/2 writes it (RFC 9110 section 5.6.2, lower case).
fn header_name(field: &str, name: &str) -> Checked {
    let token =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=bounds::NAME_BYTES).contains(&name.len()) && name.bytes().all(token) {
        return Ok(());
    }
    let allowed = format!("a header name in lower case: 1 to {} letters, digits, - or _", bounds::NAME_BYTES);
    Err(PlanError::of(field, quote(name), allowed))
}

/// The name under which Prometheus stores an OTLP attribute: all but ASCII letters and digits become `_`.
fn stored_name(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// A list of keys as JSON, shortened.
fn json_list(list: &[String]) -> String {
    shorten(&serde_json::to_string(list).unwrap_or_default())
}
