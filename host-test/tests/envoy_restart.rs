//! What a restart of a real Envoy costs, held to the contract: killed, drained, pushed to, ended with requests in flight.
//!
//! In: traffic whose truth is known, through Envoy with two workers and the module on the wall clock. Asked: every figure of `host-test/src/restart/` holds,
//! and four situations by hand, to the last increment. With `PHOENIX_PROMETHEUS` (`cargo xtask prometheus` prints it) a real Prometheus judges the kills too.

mod common;

use phoenix_host_test::envoy::process::find_binary;
use phoenix_host_test::prometheus;
use phoenix_host_test::restart::{self, Clients, Programs, Report};
use tokio::sync::Semaphore;

/// Scenes at a time: each has an Envoy with two workers, or two of them.
static SCENES: Semaphore = Semaphore::const_new(2);

fn programs() -> Programs {
    let prometheus = prometheus::process::find_binary().expect("PHOENIX_PROMETHEUS");
    if prometheus.is_none() {
        println!("PHOENIX_PROMETHEUS is not set: the exact sink alone judges");
    }
    let envoy = find_binary().expect("these tests need a real Envoy");
    Programs { envoy, module: common::stage::module(), prometheus }
}

async fn holds(scene: impl Future<Output = anyhow::Result<Report>>) {
    let _permit = SCENES.acquire().await.expect("a semaphore that nobody closes");
    let report = match scene.await {
        Ok(report) => report,
        Err(error) => panic!("{error:#}"),
    };
    println!("{report}");
    let broken: Vec<_> = report.rows.iter().filter(|row| !row.holds).collect();
    assert!(broken.is_empty(), "{broken:#?}\n{:#?}", report.notes);
}

/// A killed Envoy loses what no accepted emission carries and the gap, and nothing else; its successor has a name of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_07_killed_and_back_under_a_new_name() {
    holds(restart::kill(&programs(), None)).await;
}

/// The same where the plan names the writer: one series, with a new start time and a reset, and no double count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_07_killed_and_back_under_the_same_name() {
    holds(restart::kill(&programs(), Some("gateway-0"))).await;
}

/// Pushes in the middle of traffic rebuild nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_07_a_push_in_traffic_rebuilds_nothing() {
    holds(restart::push(&programs())).await;
}

/// Drained by the runbook, and the clients end: nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_envoy_loses_nothing() {
    holds(restart::drain(&programs(), Clients::End)).await;
}

/// Drained by the runbook, and the clients move: nothing is lost at either gateway, and of each stream what lies between its points there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_move_lose_what_lies_between_the_gateways() {
    holds(restart::drain(&programs(), Clients::Move)).await;
}
