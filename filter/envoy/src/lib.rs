//! The Envoy shell: proxy-wasm in, engine calls out. No decision is taken here that the engine could take.
//!
//! A VM is one worker thread. What must outlive a configuration push stands in [`worker`], a static of the VM: Envoy makes a new
//! root context at each push, but keeps the VM. Modules in the order in which a request meets them:
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

/// The plugin's configuration.
mod config;
/// The calls into Envoy.
mod host;
/// Names of everything that workers share.
mod names;
/// The numbers that Envoy shows.
mod stats;

/// Records on their way to the owners.
mod courier;
/// Who folds a shard.
mod ownership;
/// What other processes see of our streams.
mod peers;
/// One request: buffered, scanned, forwarded, settled.
mod reports;
mod request;
/// The root context: configuration, ticks, queues, answers.
mod root;
/// Emissions on their way to the upstream.
mod sender;
mod shared;
/// What one worker knows.
mod worker;

#[allow(missing_docs, reason = "the function is the SDK's")]
mod start {
    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|id| Box::new(crate::root::Root::new(id)));
    }}
}
