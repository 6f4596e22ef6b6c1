//! `bench fidelity`: are the folded answers the true answers?
//!
//! In: nothing but the binaries that the environment names. Out: the table of `phoenix_host_test::fidelity`, and its figures under the names of all benches;
//! `NAME.at_arrival` stands beside `NAME` where the fold at arrival has the figure too. No speed is measured: the figures are the same on every machine, but
//! for section (g), where a kill comes when it comes and each loss has the bound of its own run. Refuses to begin without a Prometheus.

use crate::figures::{Figures, Target};
use anyhow::Context as _;
use phoenix_host_test::fidelity::table::Table;
use phoenix_host_test::fidelity::{measure, restart};
use phoenix_host_test::prometheus::process::find_binary;

/// How to get what is missing.
pub const NO_PROMETHEUS: &str = "PHOENIX_PROMETHEUS is not set; `cargo xtask prometheus` brings it";

/// What was found.
pub struct Outcome {
    /// All figures.
    pub figures: Figures,
    /// The same for people.
    pub table: Table,
}

/// Sends the traffic and asks; then restarts gateways in the middle of other traffic.
///
/// # Errors
/// Something is missing, or does not answer.
pub fn run() -> anyhow::Result<Outcome> {
    let prometheus = find_binary()?.context(NO_PROMETHEUS)?;
    let table = tokio::runtime::Runtime::new()?.block_on(async {
        let mut table = measure(&prometheus).await?;
        restart(&prometheus, &mut table).await?;
        anyhow::Ok(table)
    })?;
    let mut figures = Figures::default();
    for figure in table.figures() {
        let unit = figure.unit;
        let value = unit.scaled(figure.value);
        match figure.bound {
            Some(bound) => {
                figures.bound(&figure.key, value, unit.name(), Target::AtMost(unit.scaled(bound)));
            }
            None => figures.add(&figure.key, value, unit.name()),
        }
        if let Some(at_arrival) = figure.at_arrival {
            figures.add(format!("{}.at_arrival", figure.key), unit.scaled(at_arrival), unit.name());
        }
    }
    Ok(Outcome { figures, table })
}
