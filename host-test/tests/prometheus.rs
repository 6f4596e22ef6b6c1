//! A dashboard reads the same before and after: real Prometheuses, real Envoy, the real module.
//!
//! The same traffic goes raw to one Prometheus, through Envoy to a second, and through the reference fold to a third. Then queries are asked on all, and
//! every figure that is judged must hold; `cargo xtask bench fidelity` prints the same table. Needs `PHOENIX_PROMETHEUS` (`cargo xtask prometheus` prints
//! it); without it the proof is listed as ignored. What it does not prove: restarts of Envoy, the wall clock (windows follow the points here, so that forty
//! minutes pass in seconds).

use anyhow::ensure;
use libtest_mimic::{Arguments, Failed, Trial};
use phoenix_host_test::fidelity::measure;
use phoenix_host_test::fidelity::table::Table;
use phoenix_host_test::prometheus::process::find_binary;
use std::path::PathBuf;

fn main() {
    let arguments = Arguments::from_args();
    let there = match find_binary() {
        Ok(there) => there,
        Err(error) => panic!("{error:#}"),
    };
    if there.is_none() && !arguments.list {
        println!(
            "the proof against Prometheus is skipped: PHOENIX_PROMETHEUS is not set; `cargo xtask prometheus` brings it"
        );
    }
    let is_ignored = there.is_none();
    let proof = move || {
        let binary = there.ok_or("PHOENIX_PROMETHEUS is not set")?;
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(prove(binary)).map_err(|error| Failed::from(format!("{error:#}")))
    };
    let trial = Trial::test("folded_answers_are_the_true_answers", proof).with_ignored_flag(is_ignored);
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

async fn prove(prometheus: PathBuf) -> anyhow::Result<()> {
    let table = measure(&prometheus).await?;
    println!("{}\n{}", table.drawn(), Table::LEGEND);
    let broken = table.broken();
    ensure!(broken.is_empty(), "{}\n\n{}", broken.join("\n"), table.notes().join("\n"));
    ensure!(table.figures().any(|figure| figure.holds().is_some()), "nothing was judged");
    Ok(())
}
