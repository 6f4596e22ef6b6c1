//! Plans, out to embedders.
//!
//! ```text
//! decide ── board ──┬── xds   Envoy over gRPC: pushed, ACK or NACK
//!                   ├── file  Envoy that watches a file: renamed into place
//!                   └── poll  Collectors over HTTP: asked for with an ETag, answered when it changes
//!          answers ◀┘         who has taken which version, and who refused it with what reason
//! ```

/// What each embedder said of what it was given.
pub mod answers;
/// What is to be in force where.
pub mod board;
/// A plan as Envoy's configuration of the module.
pub mod extension;
/// A file that Envoy watches.
pub mod file;
/// Long polls.
pub mod poll;
/// xDS: extension configuration discovery.
pub mod xds;
