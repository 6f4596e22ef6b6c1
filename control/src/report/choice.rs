//! Which metrics are shown, and in which order.
//!
//! Enters: a fleet. Leaves: metrics with their tenants, or a smaller fleet. Among equals the order of the fleet stays, heaviest first.

use phoenix_report::view::{MetricView, TenantView, View};
use std::cmp::Ordering;

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Active streams.
    #[default]
    Active,
    /// Streams new in the current generation.
    Growth,
    /// The share.
    Share,
    /// Streams that go out raw.
    Admitted,
    /// Series that budgets fold into.
    Folded,
    /// Points.
    Points,
    /// The metric's name, then the tenant's.
    Name,
}

impl Sort {
    /// The next one, as a key goes through them.
    pub fn next(self) -> Sort {
        match self {
            Sort::Active => Sort::Growth,
            Sort::Growth => Sort::Share,
            Sort::Share => Sort::Admitted,
            Sort::Admitted => Sort::Folded,
            Sort::Folded => Sort::Points,
            Sort::Points => Sort::Name,
            Sort::Name => Sort::Active,
        }
    }

    /// The header of its column.
    pub fn title(self) -> &'static str {
        match self {
            Sort::Active => "active",
            Sort::Growth => "growth",
            Sort::Share => "share",
            Sort::Admitted => "admitted",
            Sort::Folded => "folded",
            Sort::Points => "points",
            Sort::Name => "metric",
        }
    }

    fn order(self, a: &Row<'_>, b: &Row<'_>) -> Ordering {
        let (x, y) = (a.metric, b.metric);
        match self {
            Sort::Active => y.active.value.total_cmp(&x.active.value),
            Sort::Growth => y.growth.total_cmp(&x.growth),
            Sort::Share => y.budget.share.cmp(&x.budget.share),
            Sort::Admitted => y.budget.admitted.cmp(&x.budget.admitted),
            Sort::Folded => y.budget.folded_series.cmp(&x.budget.folded_series),
            Sort::Points => y.points.cmp(&x.points),
            Sort::Name => (&x.name, &a.tenant.name).cmp(&(&y.name, &b.tenant.name)),
        }
    }
}

/// Which metrics, in which order, and how many.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Only this tenant.
    pub tenant: Option<String>,
    /// Only metrics whose whole name matches the glob.
    pub metric: Option<String>,
    /// Only metrics with this in their name, large or small letters.
    pub contains: String,
    /// What comes first.
    pub sort: Sort,
    /// The other way round.
    pub is_reversed: bool,
    /// At most so many.
    pub limit: usize,
}

impl Default for Choice {
    fn default() -> Choice {
        Choice {
            tenant: None,
            metric: None,
            contains: String::new(),
            sort: Sort::default(),
            is_reversed: false,
            limit: usize::MAX,
        }
    }
}

/// A metric and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Row<'v> {
    /// The tenant.
    pub tenant: &'v TenantView,
    /// The metric.
    pub metric: &'v MetricView,
}

impl Choice {
    /// The chosen tenants.
    pub fn tenants<'v>(&self, view: &'v View) -> Vec<&'v TenantView> {
        let wanted = |tenant: &&TenantView| self.tenant.as_ref().is_none_or(|name| *name == tenant.name);
        view.tenants.iter().filter(wanted).collect()
    }

    /// All chosen metrics, whatever the limit.
    pub fn all<'v>(&self, view: &'v View) -> Vec<Row<'v>> {
        let tenants = self.tenants(view).into_iter();
        let rows = tenants.flat_map(|tenant| tenant.metrics.iter().map(move |metric| Row { tenant, metric }));
        let mut rows: Vec<Row<'v>> = rows.filter(|row| self.takes(row.metric)).collect();
        // The fleet has its metrics heaviest first within each tenant: among all tenants, too.
        rows.sort_by(|a, b| Sort::Active.order(a, b));
        rows.sort_by(|a, b| if self.is_reversed { self.sort.order(b, a) } else { self.sort.order(a, b) });
        rows
    }

    /// The chosen metrics up to the limit.
    pub fn rows<'v>(&self, view: &'v View) -> Vec<Row<'v>> {
        let mut rows = self.all(view);
        rows.truncate(self.limit);
        rows
    }

    /// The fleet with the chosen metrics alone.
    pub fn of(&self, view: &View) -> View {
        let mut tenants: Vec<TenantView> = Vec::new();
        for tenant in self.tenants(view) {
            tenants.push(TenantView { metrics: Vec::new(), ..tenant.clone() });
        }
        for row in self.rows(view) {
            if let Some(tenant) = tenants.iter_mut().find(|tenant| tenant.name == row.tenant.name) {
                tenant.metrics.push(row.metric.clone());
            }
        }
        View { tenants, ..view.clone() }
    }

    fn takes(&self, metric: &MetricView) -> bool {
        let glob = |pattern: &String| phoenix_plan::glob::matches(pattern.as_bytes(), metric.name.as_bytes());
        self.metric.as_ref().is_none_or(glob)
            && metric.name.to_lowercase().contains(&self.contains.to_lowercase())
    }
}
