//! The policy: what people want, as YAML.
//!
//! Enters: text. Leaves: a [`Policy`] every field of which has been checked, or a [`PolicyError`] that names field, value and allowed range; and
//! [`notes`]: a line for each part that has no effect, and why. `docs/policy.md` explains every field. The stage is pure: files that a policy names are
//! read by whoever loads it. What goes into plans word for word (`plan`, `fold`, labels of folds) is checked by the plan's own code, so that no policy that
//! is taken can make a plan that is not.

// Ranges and combinations.
mod check;
// The document, field by field.
mod document;
// What has no effect.
mod notes;
// What series, samples and bytes cost.
mod prices;
// Text to document.
mod parse;

pub(crate) use check::FOLDS_MAX;
pub use document::{
    Base, Change, DeclaredFold, MetricBudget, Mode, Policy, Protect, Queries, Reports, Team, Tenant,
};
pub use notes::{Known, notes};
pub use parse::PolicyError;
pub use prices::{Model, Priced, Prices};
