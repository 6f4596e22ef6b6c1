//! Ranges and combinations.
//!
//! Enters: a policy. Leaves: nothing, or the first refusal. Whatever goes into plans is put into one here and checked by the plan's own code; what is
//! left are budgets that contradict each other, and times that do not fit together.

use super::{Policy, PolicyError, Team, Tenant};
use phoenix_plan::{Budgets, DurationMs, Labels, MetricMatch, Pipeline, Rule, bounds};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

type Checked = Result<(), PolicyError>;

/// The one version of the document that this build reads.
const SCHEMA: u32 = 1;
/// Series of a budget: a thousand embedders' largest shares.
const SERIES: RangeInclusive<u64> = 1..=4_000_000_000;
/// Decisions more often than once a second change nothing that was measured; an hour is no loop.
const INTERVAL_MS: RangeInclusive<u64> = 1_000..=3_600_000;
const PER_HOUR: RangeInclusive<u32> = 1..=1_000;
const AIM_PERCENT: RangeInclusive<u32> = 10..=100;
const RESTORE_PERCENT: RangeInclusive<u32> = 10..=99;
const WEIGHT: RangeInclusive<u32> = 1..=1_000;
const REPORT_BYTES: RangeInclusive<u64> = 1 << 20..=16 << 30;
/// A baseline that follows faster than a minute is none; after a month it is history.
const BASELINE_MS: RangeInclusive<u64> = 60_000..=2_592_000_000;
/// The longest silence that is waited for.
const SILENCE_MS: RangeInclusive<u64> = 1_000..=86_400_000;
/// Entries of one list, so that every plan has room for them and for decisions beside them.
const TENANTS_MAX: usize = 500;
const LIST_MAX: usize = 200;
/// Declared folds of a policy: each is a rule of every plan.
pub const FOLDS_MAX: usize = LIST_MAX;
const TEAMS_MAX: usize = 100;

impl Policy {
    /// Checks ranges and combinations; [`Policy::parse`] calls it.
    ///
    /// # Errors
    /// The first field that is out of range, or that contradicts another.
    pub fn check(&self) -> Checked {
        within("schema", self.schema, &(SCHEMA..=SCHEMA))?;
        duration("interval", self.interval, &INTERVAL_MS)?;
        self.check_change()?;
        self.check_plan()?;
        if let Some(all) = self.active_series {
            within("active_series", all, &SERIES)?;
        }
        self.check_tenants()?;
        self.check_metrics()?;
        self.check_protect()?;
        self.check_folds()?;
        count("queries", self.queries.len(), LIST_MAX)?;
        for (index, it) in self.queries.iter().enumerate() {
            within(format!("queries[{index}].weight"), it.weight, &WEIGHT)?;
            if it.files.is_empty() {
                return Err(PolicyError::new(format!("queries[{index}].files"), "[]", "at least one file"));
            }
        }
        self.prices.check()
    }

    fn check_change(&self) -> Checked {
        let it = &self.change;
        duration("change.dwell", it.dwell, &bounds::DWELL_MS)?;
        duration("change.switch_lead", it.switch_lead, &bounds::SWITCH_LEAD_MS)?;
        let least = it.switch_lead.0.saturating_add(self.plan.stream_expiry().0);
        if it.dwell.0 < least {
            let allowed = format!(
                "at least {}, change.switch_lead + plan.stream_expiry: one switch of a metric ends before the next is said",
                DurationMs(least)
            );
            return Err(PolicyError::new("change.dwell", it.dwell, allowed));
        }
        within("change.per_hour_max", it.per_hour_max, &PER_HOUR)?;
        within("change.aim_percent", it.aim_percent, &AIM_PERCENT)?;
        within("change.restore_below_percent", it.restore_below_percent, &RESTORE_PERCENT)?;
        if it.restore_below_percent >= it.aim_percent {
            let allowed = format!("less than change.aim_percent, {}", it.aim_percent);
            return Err(PolicyError::new("change.restore_below_percent", it.restore_below_percent, allowed));
        }
        duration("change.baseline_over", it.baseline_over, &BASELINE_MS)?;
        let reports = &self.reports;
        duration("reports.silent_after", reports.silent_after, &(self.interval.0..=*SILENCE_MS.end()))?;
        duration(
            "reports.forget_after",
            reports.forget_after,
            &(reports.silent_after.0..=*SILENCE_MS.end()),
        )?;
        within("reports.bytes_max", reports.bytes_max, &REPORT_BYTES)
    }

    /// A plan with all that comes from the policy, as the module would read it.
    fn check_plan(&self) -> Checked {
        let mut plan = self.plan.plan(1);
        plan.validate().map_err(|error| inside("plan", error.into()))?;
        let budgets = Budgets {
            protected_labels: self.protected_everywhere(),
            dwell: self.change.dwell,
            switch_lead: self.change.switch_lead,
            fold: self.fold.clone(),
            ..Budgets::default()
        };
        plan.budgets = Some(budgets);
        plan.validate().map_err(|error| {
            let field = error.field.clone();
            let error = PolicyError::from(error);
            match field.as_str() {
                "stream_expiry" => inside("plan", error),
                _ => PolicyError {
                    field: match field.strip_prefix("budgets.") {
                        Some(rest) if rest.starts_with("protected_labels") => "protect".to_owned(),
                        Some(rest) => rest.to_owned(),
                        None => field,
                    },
                    ..error
                },
            }
        })?;
        plan.rules = self
            .folds
            .iter()
            .map(|it| Rule {
                name: it.name.clone(),
                tenant: it.tenant.clone(),
                metric: it.metric.clone(),
                resource: it.resource.clone(),
                attributes: it.attributes.clone(),
                pipeline: Pipeline::Optimized,
                fold: Some(self.fold.with(it.labels.clone())),
                topk: None,
                switch: None,
            })
            .collect();
        plan.validate().map_err(PolicyError::from)
    }

    fn check_tenants(&self) -> Checked {
        count("tenants", self.tenants.len(), TENANTS_MAX)?;
        let mut names = BTreeSet::new();
        let mut reserved = 0_u64;
        for (index, it) in self.tenants.iter().enumerate() {
            let at = |field: &str| format!("tenants[{index}].{field}");
            if let Some(name) = &it.name {
                text(at("name"), name, 0, bounds::NAME_BYTES)?;
            }
            if !names.insert(it.name.as_deref()) {
                let value = it.name.as_ref().map_or(String::new(), |name| format!("{name:?}"));
                return Err(PolicyError::new(
                    at("name"),
                    value,
                    "each tenant once, and one entry without a name",
                ));
            }
            within(at("active_series"), it.active_series, &SERIES)?;
            if it.reserved > it.active_series {
                let allowed = format!("0 to active_series, {}", it.active_series);
                return Err(PolicyError::new(at("reserved"), it.reserved, allowed));
            }
            if it.name.is_some() {
                reserved = reserved.saturating_add(it.reserved);
            } else if it.reserved > 0 {
                return Err(PolicyError::new(
                    at("reserved"),
                    it.reserved,
                    "0, for tenants that are not named",
                ));
            }
            let room = u64::from(self.plan.limits.active_series_max);
            if reserved > room {
                let allowed = format!("parts of at most plan.limits.active_series_max, {room}, together");
                return Err(PolicyError::new(at("reserved"), it.reserved, allowed));
            }
            if let Some(all) = self.active_series.filter(|all| reserved > *all) {
                let allowed = format!("parts of at most active_series, {all}, together");
                return Err(PolicyError::new(at("reserved"), it.reserved, allowed));
            }
            teams(it, index)?;
        }
        Ok(())
    }

    fn check_metrics(&self) -> Checked {
        count("metrics", self.metrics.len(), LIST_MAX)?;
        for (index, it) in self.metrics.iter().enumerate() {
            let at = |field: &str| format!("metrics[{index}].{field}");
            if let Some(name) = &it.tenant {
                text(at("tenant"), name, 0, bounds::NAME_BYTES)?;
            }
            matcher(&at("metric"), &it.metric)?;
            within(at("active_series"), it.active_series, &SERIES)?;
            let tenant = it.tenant.as_ref().and_then(|name| self.tenant(name));
            if let Some(tenant) = tenant.filter(|tenant| it.active_series > tenant.active_series) {
                let allowed = format!("at most the budget of its tenant, {}", tenant.active_series);
                return Err(PolicyError::new(at("active_series"), it.active_series, allowed));
            }
        }
        Ok(())
    }

    fn check_protect(&self) -> Checked {
        count("protect", self.protect.len(), LIST_MAX)?;
        for (index, it) in self.protect.iter().enumerate() {
            if let Some(metric) = &it.metric {
                matcher(&format!("protect[{index}].metric"), metric)?;
            }
            count(&format!("protect[{index}].labels"), it.labels.len(), bounds::LABELS)?;
            if it.labels.is_empty() {
                return Err(PolicyError::new(format!("protect[{index}].labels"), "[]", "at least one label"));
            }
            for (n, label) in it.labels.iter().enumerate() {
                let at = format!("protect[{index}].labels[{n}]");
                text(at.clone(), label, 1, bounds::KEY_BYTES)?;
                if label.contains(',') {
                    return Err(PolicyError::new(at, format!("{label:?}"), "a label without a comma"));
                }
            }
        }
        Ok(())
    }

    /// What is protected and folded all the same is a contradiction that only a person can solve.
    fn check_folds(&self) -> Checked {
        count("folds", self.folds.len(), FOLDS_MAX)?;
        for (index, fold) in self.folds.iter().enumerate() {
            text(format!("folds[{index}].name"), &fold.name, 1, 64)?;
            let Labels::Drop { resource, attributes } = &fold.labels else { continue };
            for (n, it) in self.protect.iter().enumerate() {
                let meets = it.metric.as_ref().is_none_or(|metric| may_meet(metric, &fold.metric));
                let both =
                    it.labels.iter().find(|label| resource.contains(label) || attributes.contains(label));
                if let Some(label) = both.filter(|_| meets) {
                    let allowed = format!("labels that protect[{n}] does not name");
                    return Err(PolicyError::new(
                        format!("folds[{index}].labels.drop"),
                        format!("{label:?}"),
                        allowed,
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The parts of a tenant's budget are parts of it.
fn teams(tenant: &Tenant, index: usize) -> Checked {
    count(&format!("tenants[{index}].teams"), tenant.teams.len(), TEAMS_MAX)?;
    let mut names = BTreeSet::new();
    let mut sum = 0_u64;
    for (n, Team { name, metrics, active_series }) in tenant.teams.iter().enumerate() {
        let at = |field: &str| format!("tenants[{index}].teams[{n}].{field}");
        text(at("name"), name, 1, bounds::NAME_BYTES)?;
        if !names.insert(name) {
            return Err(PolicyError::new(at("name"), format!("{name:?}"), "each team of a tenant once"));
        }
        if metrics.is_empty() {
            return Err(PolicyError::new(at("metrics"), "[]", "at least one matcher"));
        }
        for (m, metric) in metrics.iter().enumerate() {
            matcher(&at(&format!("metrics[{m}]")), metric)?;
        }
        within(at("active_series"), *active_series, &SERIES)?;
        sum = sum.saturating_add(*active_series);
        if sum > tenant.active_series {
            let allowed = format!("parts of at most the tenant's {} together", tenant.active_series);
            return Err(PolicyError::new(at("active_series"), active_series, allowed));
        }
    }
    Ok(())
}

/// May two matchers mean one metric? Globs may always.
pub(super) fn may_meet(a: &MetricMatch, b: &MetricMatch) -> bool {
    match (a, b) {
        (MetricMatch::Exact(name), other) | (other, MetricMatch::Exact(name)) => {
            other.matches(name.as_bytes())
        }
        (MetricMatch::Prefix(a), MetricMatch::Prefix(b)) => {
            a.starts_with(b.as_str()) || b.starts_with(a.as_str())
        }
        _ => true,
    }
}

fn inside(prefix: &str, error: PolicyError) -> PolicyError {
    PolicyError { field: format!("{prefix}.{}", error.field), ..error }
}

fn matcher(field: &str, metric: &MetricMatch) -> Checked {
    let (operation, name) = metric.parts();
    let bytes_max = if operation == "glob" { bounds::PATTERN_BYTES } else { bounds::KEY_BYTES };
    text(format!("{field}.{operation}"), name, 1, bytes_max)
}

fn within<N: PartialOrd + Display>(field: impl Into<String>, value: N, range: &RangeInclusive<N>) -> Checked {
    if range.contains(&value) {
        return Ok(());
    }
    let allowed = if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{} to {}", range.start(), range.end())
    };
    Err(PolicyError::new(field, value, allowed))
}

fn duration(field: &str, value: DurationMs, range_ms: &RangeInclusive<u64>) -> Checked {
    if range_ms.contains(&value.0) {
        return Ok(());
    }
    Err(PolicyError::new(
        field,
        value,
        format!("{} to {}", DurationMs(*range_ms.start()), DurationMs(*range_ms.end())),
    ))
}

fn count(field: &str, len: usize, max: usize) -> Checked {
    if len <= max {
        return Ok(());
    }
    Err(PolicyError::new(field, format!("of {len} entries"), format!("up to {max} entries")))
}

fn text(field: String, value: &str, bytes_min: usize, bytes_max: usize) -> Checked {
    if (bytes_min..=bytes_max).contains(&value.len()) && !value.chars().any(char::is_control) {
        return Ok(());
    }
    let shown: String = value.chars().take(60).collect();
    Err(PolicyError::new(
        field,
        format!("{shown:?}"),
        format!("{bytes_min} to {bytes_max} bytes without control characters"),
    ))
}
