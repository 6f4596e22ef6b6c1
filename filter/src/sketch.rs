//! Summaries of what streams by: how many different ones, and which weigh most.
//!
//! In: hashes of streams, of label values, of whatever is counted. Out: a number of distinct ones with a known error
//! ([`Distinct`]), and the heaviest with an example each ([`Heavy`]). Both have a hard bound on memory, both merge: what
//! workers, processes and generations saw apart is what one would have seen of it all. Why sketches: a table of everything seen
//! costs what cardinality costs, and that is what explodes.
//!
//! Refused: bytes of a sketch that no sketch writes ([`SketchError`]).

mod distinct;
mod heavy;

pub use distinct::{DENSE_FROM, Distinct, ENCODED_BYTES_MAX, STANDARD_ERROR, VERSION};
pub use heavy::{CAPACITY_MAX, EXAMPLE_BYTES_MAX, Heavy};

/// What is wrong with the bytes of a sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SketchErrorKind {
    /// A version that this build does not read.
    Version,
    /// More or fewer bytes than the form has.
    Length,
    /// A form that does not exist.
    Form,
    /// Hashes that do not rise from one to the next.
    Order,
    /// A register that no hash makes, or registers without any hash.
    Register,
}

/// A refusal: what, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SketchError {
    /// What is wrong.
    pub kind: SketchErrorKind,
    /// Offset of the byte, of the hash, or of the first byte of the register; where the length is wrong, where the bytes end.
    pub at: usize,
}

impl SketchError {
    pub(crate) fn new(kind: SketchErrorKind, at: usize) -> SketchError {
        SketchError { kind, at }
    }
}

/// Golden sketches, one a line of the table: how many hashes, a sum over the encoded bytes, the bits of the estimate.
/// `filter/tests/sketch.rs` makes them anew when they fail; a difference means that sketches of two builds do not merge.
pub const GOLDEN: &[(u64, u64, u64)] = &[
    (0, 0x082f_2207_b4e8_8cc4, 0x0000_0000_0000_0000),       // 0
    (3, 0x48ab_82f1_0896_e1dd, 0x4008_0000_0000_0000),       // 3
    (127, 0xa9d3_b58f_9842_f01c, 0x405f_c000_0000_0000),     // 127
    (128, 0x0194_6ed0_826e_850c, 0x405f_a855_2316_4946),     // 126.63
    (1_000, 0xc5ca_0c4e_25a3_90bc, 0x408f_0323_14b6_6f78),   // 992.39
    (30_000, 0x4d16_a06c_31f5_ad32, 0x40dd_9737_238a_c4f1),  // 30300.86
    (300_000, 0x6b75_dd80_b346_7eed, 0x4112_adfd_3453_996d), // 306047.30
];

/// Hash number `at` of the golden sketches: SplitMix64 (Steele, Lea, Flood 2014).
#[must_use]
pub fn golden_hash(at: u64) -> u64 {
    let mut z = at.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A golden sketch: the sum over its bytes and the bits of its estimate.
#[must_use]
pub fn golden(hashes: u64) -> (u64, u64) {
    let mut sketch = Distinct::new();
    for at in 0..hashes {
        sketch.insert(golden_hash(at));
    }
    let mut bytes = Vec::new();
    sketch.encode(&mut bytes);
    // FNV-1a: any byte in any place changes it.
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (sum, sketch.estimate().to_bits())
}

/// Whether this build makes the bytes and the estimates it must, whatever its target. Some milliseconds.
#[must_use]
pub fn self_check() -> bool {
    GOLDEN.iter().all(|(hashes, sum, estimate)| golden(*hashes) == (*sum, *estimate))
}
