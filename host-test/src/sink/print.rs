//! Fingerprints of encoded points, independent of order.
//!
//! In: the raw bytes of one resource, scope, metric or point. Out: a 128-bit hash of each point *in its context*, and a
//! multiset: the sum of the hashes and their number. Two multisets are equal iff the same points arrived equally often, up to
//! accidents of probability 2⁻¹²⁸ (nobody attacks a test). Order of points and splitting of batches do not matter; any changed,
//! lost, repeated or moved byte does.

use super::wire::{WireError, fields};
use std::hash::{DefaultHasher, Hasher};

/// A multiset of points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Multiset {
    /// Sum of the hashes modulo 2¹²⁸.
    pub sum: u128,
    /// Number of points.
    pub points: u64,
}

impl Multiset {
    /// Adds all of another.
    pub fn join(&mut self, other: Multiset) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.points += other.points;
    }

    /// Without those of another, which are among these.
    pub fn without(mut self, other: Multiset) -> Multiset {
        self.sum = self.sum.wrapping_sub(other.sum);
        self.points = self.points.saturating_sub(other.points);
        self
    }

    /// Adds one point.
    pub fn add(&mut self, hash: u128) {
        self.sum = self.sum.wrapping_add(hash);
        self.points += 1;
    }
}

/// Hash of a list of byte strings; their boundaries count.
pub fn hash(parts: &[&[u8]]) -> u128 {
    let half = |seed: u64| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(seed);
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish()
    };
    (u128::from(half(1)) << 64) | u128::from(half(2))
}

/// Hash of all of a message but the fields numbered `except`.
///
/// # Errors
/// The message is malformed.
pub fn hash_without(message: &[u8], except: &[u64]) -> Result<u128, WireError> {
    let fields = fields(message)?;
    let kept: Vec<&[u8]> = fields.iter().filter(|f| !except.contains(&f.number)).map(|f| f.raw).collect();
    Ok(hash(&kept))
}

/// The field numbers of `Metric.data`: gauge, sum, histogram, exponential histogram, summary.
const METRIC_DATA: [u64; 5] = [5, 7, 9, 10, 11];
/// In all five kinds the points are field 1.
const DATA_POINTS: u64 = 1;

/// The hash of every point of an encoded `Metric`, in order; `context` stands for resource and scope.
///
/// # Errors
/// The message is malformed.
pub fn points_of_metric(context: u128, metric: &[u8]) -> Result<Vec<u128>, WireError> {
    let head = hash_without(metric, &METRIC_DATA)?;
    let mut out = Vec::new();
    for data in fields(metric)?.iter().filter(|f| METRIC_DATA.contains(&f.number)) {
        let kind = hash_without(data.payload, &[DATA_POINTS])?;
        for point in fields(data.payload)?.iter().filter(|f| f.number == DATA_POINTS) {
            out.push(hash(&[
                &context.to_le_bytes(),
                &head.to_le_bytes(),
                &data.number.to_le_bytes(),
                &kind.to_le_bytes(),
                point.payload,
            ]));
        }
    }
    Ok(out)
}
