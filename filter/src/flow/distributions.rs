//! A distribution on its way into a record: checked, and written as an atom.
//!
//! In: a point of a histogram or summary, read. Out: its bounds with their identity, and its atom, in buffers that are used again for each
//! point. Refuses what does not add up: counts that are not the sum of their buckets, bounds that are not sorted, numbers that are none.
//! Refused points pass.

use crate::decode::{BucketsAt, DistributionPoint, Numbers, SideAt};
use crate::distribution::{fits, put_header};
use crate::hash::{Domain, Hasher, Identity};
use crate::limits::{BOUNDS_MAX, BUCKETS_MAX, COUNT_MAX, DOUBLE_MAX, SCALES};
use crate::record::Temporality;
use crate::wire::{WireError, put_varint};

/// The distribution at hand.
#[derive(Default)]
pub struct Atom {
    bytes: Vec<u8>,
    /// Bounds as doubles of 8 bytes; those of the point before are very likely those of the next one.
    bounds: Vec<u8>,
    /// Identity of bounds, zero where a point can have none. A point of another kind sets it back.
    bounds_id: Identity,
    /// Identity of `bounds`, for the next point that has the same.
    known_id: Identity,
    buckets: Vec<u8>,
    sides: Vec<u8>,
}

/// Why numbers of a repeated field are not taken.
enum Refused {
    Wire,
    Value,
}

impl From<WireError> for Refused {
    fn from(_: WireError) -> Refused {
        Refused::Wire
    }
}

impl Atom {
    /// What [`Atom::write`] wrote.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bounds and their identity, as a series has them.
    pub fn bounds(&self) -> (&[u8], Identity) {
        if self.bounds_id == Identity::ZERO { (&[], Identity::ZERO) } else { (&self.bounds, self.bounds_id) }
    }

    /// Their identity, as a stream has it.
    pub fn bounds_id(&self) -> Identity {
        self.bounds_id
    }

    /// The next points have no bounds.
    pub fn no_bounds(&mut self) {
        self.bounds_id = Identity::ZERO;
    }

    /// Read the bounds of a point. False when they are no bounds: they must be finite and grow.
    pub fn read_bounds(&mut self, buf: &[u8], h: &Hasher, it: &DistributionPoint) -> bool {
        self.bounds_id = Identity::ZERO;
        let BucketsAt::Explicit { bounds, .. } = &it.buckets else { return true };
        let is_known = self.known_id != Identity::ZERO && bounds.packed(buf) == Some(&self.bounds);
        if !is_known {
            self.known_id = Identity::ZERO;
            self.bounds.clear();
            let (list, mut last) = (&mut self.bounds, f64::NEG_INFINITY);
            let read = bounds.each(buf, |bits| {
                let bound = f64::from_bits(bits);
                if !bound.is_finite() || bound <= last || list.len() >= 8 * BOUNDS_MAX {
                    return Err(Refused::Value);
                }
                last = bound;
                // Two zeros are one bound.
                let bound = if bound == 0.0 { 0.0 } else { bound };
                list.extend_from_slice(&bound.to_le_bytes());
                Ok(())
            });
            if read.is_err() {
                return false;
            }
            self.known_id = h.pair(Domain::Bounds, &self.bounds, b"");
        }
        self.bounds_id = self.known_id;
        true
    }

    /// Write the atom of a point whose bounds have been read. False when it does not add up; it then holds nothing of use.
    pub fn write(&mut self, buf: &[u8], it: &DistributionPoint, temporality: Temporality) -> bool {
        self.bytes.clear();
        self.buckets.clear();
        let sums_up = match &it.buckets {
            BucketsAt::None => Some((it.count, false, false)),
            BucketsAt::Explicit { counts, .. } => self.explicit(buf, counts, it.count),
            BucketsAt::Exponential { scale, zero, threshold, positive, negative } => self
                .exponential(buf, (*scale, *zero, *threshold), positive, negative)
                .map(|count| (count, false, true)),
        };
        let known = |v: f64| v.abs() < DOUBLE_MAX;
        let Some((count, explicit, exponential)) = sums_up.filter(|(count, ..)| *count == it.count) else {
            return false;
        };
        // Extremes of a cumulative stream speak of its whole life, of which a fold knows a part.
        let extremes = it.min.zip(it.max).filter(|_| temporality == Temporality::Delta);
        let fits = it.sum.is_none_or(known) && extremes.is_none_or(|(a, b)| known(a) && known(b));
        if count > COUNT_MAX || !fits {
            return false;
        }
        put_header(&mut self.bytes, count, it.sum, extremes, (explicit, exponential));
        self.bytes.extend_from_slice(&self.buckets);
        true
    }

    /// Counts and their sum; a histogram without bounds has one bucket or none, which says no more than its count.
    fn explicit(&mut self, buf: &[u8], counts: &Numbers, count: u64) -> Option<(u64, bool, bool)> {
        let expected = (self.bounds.len() / 8).saturating_add(1);
        put_varint(&mut self.buckets, expected as u64);
        let (sum, len) = self.counts(buf, counts, expected)?;
        if expected == 1 {
            self.buckets.clear();
            return Some((if len == 0 { count } else { sum }, false, false));
        }
        (len == expected).then_some((sum, true, false))
    }

    fn exponential(
        &mut self,
        buf: &[u8],
        (scale, zero, threshold): (i32, u64, f64),
        positive: &SideAt,
        negative: &SideAt,
    ) -> Option<u64> {
        if !SCALES.contains(&scale) || !(0.0..DOUBLE_MAX).contains(&threshold) || zero > COUNT_MAX {
            return None;
        }
        let mut out = core::mem::take(&mut self.sides);
        out.clear();
        out.push((scale as i8).cast_unsigned());
        out.extend_from_slice(&threshold.to_le_bytes());
        put_varint(&mut out, zero);
        let mut count = zero;
        for side in [positive, negative] {
            self.buckets.clear();
            let (sum, len) = self.counts(buf, &side.counts, BUCKETS_MAX)?;
            if !fits(scale, side.offset, len) {
                return None;
            }
            count = count.saturating_add(sum);
            let zigzag = side.offset.wrapping_shl(1) ^ side.offset.wrapping_shr(31);
            put_varint(&mut out, u64::from(zigzag.cast_unsigned()));
            put_varint(&mut out, len as u64);
            out.extend_from_slice(&self.buckets);
        }
        self.sides = core::mem::replace(&mut self.buckets, out);
        Some(count)
    }

    /// Appends the numbers to `buckets`; their sum and how many there are.
    fn counts(&mut self, buf: &[u8], numbers: &Numbers, max: usize) -> Option<(u64, usize)> {
        let (mut sum, mut len) = (0u64, 0usize);
        let out = &mut self.buckets;
        let read = numbers.each(buf, |n| {
            len = len.saturating_add(1);
            sum = sum.saturating_add(n);
            if len > max || n > COUNT_MAX {
                return Err(Refused::Value);
            }
            put_varint(out, n);
            Ok(())
        });
        read.ok().map(|()| (sum, len))
    }
}
