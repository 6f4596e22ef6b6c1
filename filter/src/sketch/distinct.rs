//! How many different hashes came? ExaLogLog.
//!
//! In: 64-bit hashes, uniform already (halves of [identities](crate::hash::Identity)), each any number of times and in any order.
//! Out: how many different ones: exactly below [`DENSE_FROM`], then by estimate with a relative standard error of
//! [`STANDARD_ERROR`] (2.17 %; no bias beyond a tenth of it, `docs/benchmarks.md`). Two sketches of one set
//! are equal, whatever the order and whatever was merged into what.
//!
//! Source: Ertl, *ExaLogLog: Space-Efficient and Practical Approximate Distinct Counting up to the Exa-Scale*, 2024,
//! [arXiv 2402.13726](https://arxiv.org/abs/2402.13726), with t = 2, p = 8 and d = 23. HyperLogLog with registers of six bits
//! takes 1.7 times as many bytes for the same error. The paper's best, d = 20, would err by 2.26 %, too near the 2.3 % that are
//! promised for a measurement to show it; 23 is the most whose registers, 31 bits each, fit a kibibyte with a header.
//! Why not a crate: exaloglog 0.15.0 was looked at. It takes logarithms and exponentials of the standard library, which are other
//! bits on wasm32 than on x86-64, and keeps 32 bits of a hash while sparse, which is neither exact nor answers
//! [`contains`](Distinct::contains).
//!
//! Two forms. *Sparse*: the hashes, sorted, 8 bytes each. *Dense*: 256 registers, a kibibyte. Cost of an insert: sparse a binary
//! search and, of a new hash, a move of at most a kibibyte; dense a few instructions without a branch that depends on the past.
//! Wrong where hashes are not uniform, and where somebody who knows them can choose them: hashes must be keyed.
//!
//! Bytes: version, form (0 to 127: sparse with so many hashes; 128: dense), then hashes of 8 bytes, little-endian, rising; or
//! registers of 31 bits from the first, the lowest bit first. At most [`ENCODED_BYTES_MAX`]. Other bytes are refused.

mod estimate;
mod registers;

use super::{SketchError, SketchErrorKind as Kind};
use registers::{BYTES as DENSE_BYTES, Registers};

/// The first byte of an encoded sketch.
pub const VERSION: u8 = 1;
/// So many different hashes make a sketch dense. One fewer still fits a kibibyte as they are.
pub const DENSE_FROM: usize = 128;
/// Relative standard error of a dense estimate: √(ln b / (m ζ(2, 1 + b⁻ᵈ/(b − 1)))) with b = 2^(2⁻ᵗ) and m = 256 (section 3 of the paper).
pub const STANDARD_ERROR: f64 = 0.0217;
/// The longest encoded sketch, header included.
pub const ENCODED_BYTES_MAX: usize = HEADER_BYTES + (DENSE_FROM - 1) * HASH_BYTES;

/// The form byte of a dense sketch.
const DENSE: u8 = 128;
/// Version and form.
const HEADER_BYTES: usize = 2;
/// A hash of a sparse sketch.
const HASH_BYTES: usize = 8;

const _: () = assert!(DENSE_FROM == DENSE as usize);
const _: () = assert!(HEADER_BYTES + DENSE_BYTES <= ENCODED_BYTES_MAX && ENCODED_BYTES_MAX <= 1_024);

/// A set of hashes of which only the size is left. 24 bytes, and [`heap_bytes`](Distinct::heap_bytes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distinct(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Rising, fewer than [`DENSE_FROM`].
    Sparse(Vec<u64>),
    Dense(Box<Registers>),
}

impl Default for Form {
    fn default() -> Form {
        Form::Sparse(Vec::new())
    }
}

impl Distinct {
    /// Nothing yet; allocates nothing.
    #[must_use]
    pub fn new() -> Distinct {
        Distinct::default()
    }

    /// Counts a hash. Says whether the sketch is another now: a hash that came before never changes it, and once dense a new one
    /// does so less and less often.
    #[inline]
    pub fn insert(&mut self, hash: u64) -> bool {
        match &mut self.0 {
            Form::Dense(registers) => registers.insert(hash),
            Form::Sparse(_) => self.insert_sparse(hash),
        }
    }

    #[inline(never)]
    fn insert_sparse(&mut self, hash: u64) -> bool {
        let Form::Sparse(hashes) = &mut self.0 else { return false };
        let Err(at) = hashes.binary_search(&hash) else { return false };
        if hashes.len().saturating_add(1) < DENSE_FROM {
            hashes.insert(at, hash);
            return true;
        }
        let mut registers = Box::new(Registers::default());
        for known in hashes.iter() {
            registers.insert(*known);
        }
        registers.insert(hash);
        self.0 = Form::Dense(registers);
        true
    }

    /// How many different hashes. Exact while sparse; dense it costs some three microseconds, so keep it while nothing
    /// [changes](Distinct::insert). At most 2⁶⁴.
    #[must_use]
    pub fn estimate(&self) -> f64 {
        match &self.0 {
            // Fewer than 128: exact as a double.
            Form::Sparse(hashes) => hashes.len() as f64,
            Form::Dense(registers) => estimate::of(registers),
        }
    }

    /// Takes in whatever the other counted: afterwards equal to a sketch of both sets. Costs some hundred nanoseconds between dense
    /// ones, and at most 127 inserts otherwise.
    pub fn merge(&mut self, other: &Distinct) {
        match (&mut self.0, &other.0) {
            (Form::Dense(ours), Form::Dense(theirs)) => ours.merge(theirs),
            (Form::Sparse(ours), Form::Dense(theirs)) => {
                let mut registers = theirs.clone();
                for hash in ours.iter() {
                    registers.insert(*hash);
                }
                self.0 = Form::Dense(registers);
            }
            (_, Form::Sparse(theirs)) => {
                for hash in theirs {
                    self.insert(*hash);
                }
            }
        }
    }

    /// Whether this hash came; `None` once dense, when nobody knows.
    #[must_use]
    pub fn contains(&self, hash: u64) -> Option<bool> {
        match &self.0 {
            Form::Sparse(hashes) => Some(hashes.binary_search(&hash).is_ok()),
            Form::Dense(_) => None,
        }
    }

    /// Whether nothing came yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Form::Sparse(hashes) if hashes.is_empty())
    }

    /// Forgets everything and gives the memory back.
    pub fn clear(&mut self) {
        *self = Distinct::new();
    }

    /// Bytes on the heap: at most a kibibyte.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Sparse(hashes) => hashes.capacity().saturating_mul(HASH_BYTES),
            Form::Dense(_) => size_of::<Registers>(),
        }
    }

    /// Appends the sketch; equal sketches are equal bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match &self.0 {
            Form::Sparse(hashes) => {
                out.push(u8::try_from(hashes.len()).unwrap_or(DENSE));
                for hash in hashes {
                    out.extend_from_slice(&hash.to_le_bytes());
                }
            }
            Form::Dense(registers) => {
                out.push(DENSE);
                registers.encode(out);
            }
        }
    }

    /// Reads a sketch that takes all of `bytes`.
    ///
    /// # Errors
    /// The bytes are not what [`encode`](Distinct::encode) writes for any set of hashes that a check of each part can tell.
    pub fn decode(bytes: &[u8]) -> Result<Distinct, SketchError> {
        let Some(([version, form], body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(SketchError::new(Kind::Length, bytes.len()));
        };
        if *version != VERSION {
            return Err(SketchError::new(Kind::Version, 0));
        }
        match *form {
            DENSE => Ok(Distinct(Form::Dense(Registers::decode(body, HEADER_BYTES)?))),
            len if len < DENSE => Distinct::decode_sparse(usize::from(len), body),
            _ => Err(SketchError::new(Kind::Form, 1)),
        }
    }

    fn decode_sparse(len: usize, body: &[u8]) -> Result<Distinct, SketchError> {
        let (chunks, rest) = body.as_chunks::<HASH_BYTES>();
        if chunks.len() != len || !rest.is_empty() {
            return Err(SketchError::new(Kind::Length, body.len().saturating_add(HEADER_BYTES)));
        }
        let hashes: Vec<u64> = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
        let falls = hashes.iter().zip(hashes.iter().skip(1)).position(|(one, next)| one >= next);
        match falls {
            // The later one of the two is where it shows.
            Some(at) => {
                let at = at.saturating_add(1).saturating_mul(HASH_BYTES).saturating_add(HEADER_BYTES);
                Err(SketchError::new(Kind::Order, at))
            }
            None => Ok(Distinct(Form::Sparse(hashes))),
        }
    }
}
