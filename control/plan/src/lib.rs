//! The plan: what the control host pushes and the module enforces.
//!
//! Enters: JSON bytes. Leaves: a [`Plan`] whose every field has been checked, or a [`PlanError`] that names rule, field, value
//! and allowed range. The module and the native side share these types, so that both refuse the same plans with the same words.
//! The crate is part of the wasm module: it never panics, reads no clock and no entropy, and does no I/O.
//!
//! Refused: unknown fields, fields given twice, values out of range, and combinations that would write wrong series
//! (see [`Plan::validate`]). A refused plan changes nothing: the caller keeps the one in force.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
#![forbid(unsafe_code)]

// The refusal, and how it is put into words.
mod error;
// `"15s"` to milliseconds and back.
mod duration;
// `"2026-11-24T10:00:00Z"` to milliseconds and back.
mod instant;
// The secret key of the stream identity.
mod key;
// `*` and `?` in linear time.
pub mod glob;
// Every bound of a plan, and why.
pub mod bounds;
// Matchers of rules: metric names and labels.
mod matchers;
// Which labels a fold keeps, and the mark it leaves.
mod labels;
// Objects are objects, never lists; words are strings.
mod shape;
// Sorting, small in a module.
pub mod order;
// Measuring, and shares of budgets.
mod budgets;
// The document itself.
mod plan;
// Bytes to document, with the place of a mistake.
mod parse;
// What one field cannot know: ranges and combinations.
mod validate;

pub use budgets::{BudgetFold, Budgets, Measure, MetricShare, NO_SHARE, Priority, TenantShare};
pub use duration::DurationMs;
pub use error::PlanError;
pub use instant::InstantMs;
pub use key::HashKey;
pub use labels::Labels;
pub use matchers::{LabelMatch, LabelOp, MetricMatch};
pub use parse::read;
pub use plan::{
    Affinity, Clock, Fold, Function, Limits, OutputTemporality, Pipeline, Placement, Plan, Rule,
    SummaryFunction, Switch, Tenant, TopK, Treatment,
};
