//! Text to document: YAML, then the shape, then [`Policy::check`].

use super::Policy;
use phoenix_plan::PlanError;
use std::fmt;

/// The largest policy that is read: thousands of entries.
const BYTES_MAX: usize = 4 << 20;

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// Which field, as `tenants[1].active_series`; empty: the whole document.
    pub field: String,
    /// What stands there, shortened; empty where nothing does.
    pub value: String,
    /// What may stand there.
    pub allowed: String,
}

impl PolicyError {
    pub(super) fn new(
        field: impl Into<String>,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> PolicyError {
        PolicyError { field: field.into(), value: value.to_string(), allowed: allowed.into() }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("policy refused: ")?;
        if !self.field.is_empty() {
            write!(f, "field {}: ", self.field)?;
        }
        if !self.value.is_empty() {
            write!(f, "value {} is not allowed; ", self.value)?;
        }
        write!(f, "allowed: {}", self.allowed)
    }
}

impl std::error::Error for PolicyError {}

/// What the plan's code found wrong, under the policy's names.
impl From<PlanError> for PolicyError {
    fn from(error: PlanError) -> PolicyError {
        let field = match (&error.rule, error.field.as_str()) {
            (Some((index, _)), field) => {
                format!("folds[{index}].{}", field.strip_prefix("fold.").unwrap_or(field))
            }
            (None, field) => field.to_owned(),
        };
        PolicyError { field, value: error.value, allowed: error.allowed }
    }
}

impl Policy {
    /// Reads and checks a policy.
    ///
    /// # Errors
    /// The first thing found wrong: syntax with its line, then shape, then ranges and combinations.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        if text.len() > BYTES_MAX {
            return Err(PolicyError::new(
                "",
                format!("of {} bytes", text.len()),
                format!("up to {BYTES_MAX} bytes"),
            ));
        }
        let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| {
            let error = error.to_string();
            PolicyError::new(
                "",
                "",
                format!("well-formed YAML ({})", error.lines().next().unwrap_or_default().trim()),
            )
        })?;
        let json = serde_json::to_vec(&value).map_err(|error| PolicyError::new("", "", error.to_string()))?;
        let policy: Policy = phoenix_plan::read(&json)?;
        policy.check()?;
        Ok(policy)
    }
}
