//! `phoenix control` as a process, and the commands that ask it.
//!
//! In: reports whose truth is known (`stages/tools.rs`), over HTTP; SIGKILL. Out: what was acknowledged is there after each kill, refusals name field, value and range and are in the audit
//! log, which stays whole. What it does not prove: embedders (see `control_envoy.rs`).

#[path = "stages/tools.rs"]
#[allow(dead_code, reason = "a part of it")]
mod tools;

mod control {
    pub mod host;

    mod bounds;
    mod openapi;
    mod process;
    mod rollback;
    mod tls;
    mod watch;
}
