//! Bodies of the fuzz targets: bytes in, a panic when something is off.
//!
//! Plain functions without libFuzzer, so that `filter/tests/corpus.rs` includes this folder and replays every kept input under
//! the stable compiler. Scripts are read byte by byte ([`choices::Choices`]), not derived from types: a kept input keeps its meaning
//! when a type changes, and both builds need no crate for it.

/// A request's body.
pub mod body;
/// Bytes as a sequence of decisions.
pub mod choices;
/// Views over arbitrary bytes.
pub mod decode;
/// The whole engine under a script.
pub mod flow;
/// The plan's reader.
pub mod plan;
/// Messages of records.
pub mod record;
/// Plans, and the checks that more than one target makes.
pub mod shared;
