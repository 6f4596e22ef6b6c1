//! The ports of the control host.
//!
//! ```text
//! connection ── listen ── TLS (files, reloaded) ── who is it? ── role ──┬── xDS: plans to Envoys, ACK and NACK
//!                                                                      ├── long-poll: plans to Collectors
//!                                                                      └── routes of the caller: reports in, API
//! every refusal and every decision ── audit log
//! ```
//!
//! Nothing here decides what a plan says. Plain text is served on loopback only.

/// What was decided, approved and refused, each line chained to the one before.
pub mod audit;
/// A set of certificates for development.
pub mod certs;
/// Who may do what, read again when its file changes.
pub mod grants;
/// Who may use a route, as a layer over it.
pub mod guard;
/// One port: plain text on loopback, or TLS.
pub mod listen;
/// Plans, out to embedders.
pub mod publish;
/// Who may do what.
pub mod role;
/// Certificates from files, read again when they change.
pub mod tls;
