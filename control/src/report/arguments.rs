//! What a person asks for: the arguments of `phoenix report`.

use super::choice::{Choice, Sort};
use std::path::PathBuf;

/// Lines of a table, unless somebody asks for more: a screen.
const LIMIT: usize = 20;

/// Which metrics send too much, why, and what was done about it: reports of embedders as tables.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Files with a report each (phoenix.report.v1.Report in protobuf, gzip or not); - is standard input.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Only this tenant.
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only metrics whose whole name matches: * any text, ? one byte.
    #[arg(long, value_name = "GLOB")]
    pub metric: Option<String>,
    /// What comes first; numbers fall, names rise.
    #[arg(long, value_enum, default_value_t = Sort::Active)]
    pub sort: Sort,
    /// Lines of a table; 0: all. JSON has all unless this is given.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    /// The metrics to show.
    pub fn choice(&self) -> Choice {
        let limit = match (self.limit, self.json) {
            (Some(0), _) | (None, true) => usize::MAX,
            (Some(limit), _) => limit,
            (None, false) => LIMIT,
        };
        Choice {
            tenant: self.tenant.clone(),
            metric: self.metric.clone(),
            sort: self.sort,
            limit,
            ..Choice::default()
        }
    }
}
