//! Atoms: a distribution as bytes, in records and as the last point of a stream.
//!
//! ```text
//! flags u8 · count varint · sum f64 if known · least f64 · greatest f64 if known · then by shape:
//! explicit      buckets varint · a count varint each
//! exponential   scale i8 · threshold f64 · zero varint · twice: offset varint (zigzag) · buckets varint · a count varint each
//! ```
//!
//! Flags: 1 a sum, 2 extremes, 4 explicit, 8 exponential. Most counts are small: a histogram of fifteen buckets takes about 30 bytes, where
//! words would take 140. The scan writes atoms straight from the wire ([`crate::flow`]); nothing is allocated for them there.

use super::{Buckets, Distribution, Exponential, Shape};
use crate::amount::{Amount, Number};
use crate::limits::{BOUNDS_MAX, BUCKETS_MAX};
use crate::wire::{put_varint, read_varint};

const SUM: u8 = 1;
const EXTREMES: u8 = 2;
const EXPLICIT: u8 = 4;
const EXPONENTIAL: u8 = 8;

/// These bytes are no atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomError;

/// What every atom begins with. `explicit`, `exponential`: one of them at most.
pub fn put_header(
    out: &mut Vec<u8>,
    count: u64,
    sum: Option<f64>,
    extremes: Option<(f64, f64)>,
    (explicit, exponential): (bool, bool),
) {
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    out.push(
        flag(sum.is_some(), SUM)
            | flag(extremes.is_some(), EXTREMES)
            | flag(explicit, EXPLICIT)
            | flag(exponential, EXPONENTIAL),
    );
    put_varint(out, count);
    for value in sum.into_iter().chain(extremes.into_iter().flat_map(|(least, greatest)| [least, greatest])) {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// A side of exponential buckets.
fn put_side(out: &mut Vec<u8>, side: &Buckets) {
    let zigzag = side.offset.wrapping_shl(1) ^ side.offset.wrapping_shr(31);
    put_varint(out, u64::from(zigzag.cast_unsigned()));
    put_varint(out, side.counts.len() as u64);
    side.counts.iter().for_each(|n| put_varint(out, *n));
}

impl Exponential {
    /// Everything of it, behind the header of an atom.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push((self.scale as i8).cast_unsigned());
        out.extend_from_slice(&self.threshold.to_le_bytes());
        put_varint(out, self.zero);
        put_side(out, &self.positive);
        put_side(out, &self.negative);
    }
}

impl Distribution {
    /// Reads a whole atom.
    ///
    /// # Errors
    /// Anything that no scan writes: unknown flags, cut bytes or bytes left over, more buckets than limits allow, a scale that is no
    /// scale, a count that is not the sum of its buckets.
    pub fn read(bytes: &[u8]) -> Result<Distribution, AtomError> {
        let mut c = Cursor { bytes, at: 0 };
        let flags = c.byte()?;
        let count = c.varint()?;
        let mut sum = Amount::default();
        if flags & SUM != 0 {
            sum.add(Number::Double(c.double()?));
        }
        let extremes = if flags & EXTREMES != 0 { Some((c.double()?, c.double()?)) } else { None };
        let shape = match flags & !(SUM | EXTREMES) {
            0 => Shape::Bare,
            EXPLICIT => Shape::Explicit(c.counts(BOUNDS_MAX.saturating_add(1))?),
            EXPONENTIAL => Shape::Exponential(Box::new(c.exponential()?)),
            _ => return Err(AtomError),
        };
        let mut it = Distribution { count, sum, sumless: flags & SUM == 0, extremes, shape };
        it.recount();
        if it.count != count || c.at != bytes.len() { Err(AtomError) } else { Ok(it) }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Result<u8, AtomError> {
        let byte = self.bytes.get(self.at).ok_or(AtomError)?;
        self.at = self.at.saturating_add(1);
        Ok(*byte)
    }

    fn varint(&mut self) -> Result<u64, AtomError> {
        let (value, end) = read_varint(self.bytes, self.at).map_err(|_| AtomError)?;
        self.at = end;
        Ok(value)
    }

    fn double(&mut self) -> Result<f64, AtomError> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or(AtomError)?;
        self.at = self.at.saturating_add(8);
        let value = f64::from_le_bytes(*bytes);
        if value.is_finite() { Ok(value) } else { Err(AtomError) }
    }

    fn counts(&mut self, max: usize) -> Result<Vec<u64>, AtomError> {
        let len = usize::try_from(self.varint()?).map_err(|_| AtomError)?;
        // Each takes a byte at least: nothing is reserved for counts that are not there.
        if len > max || len > self.bytes.len().saturating_sub(self.at) {
            return Err(AtomError);
        }
        (0..len).map(|_| self.varint()).collect()
    }

    fn exponential(&mut self) -> Result<Exponential, AtomError> {
        let scale = i32::from(self.byte()?.cast_signed());
        let threshold = self.double()?;
        let zero = self.varint()?;
        let (positive, negative) = (self.side(scale)?, self.side(scale)?);
        let known = crate::limits::SCALES.contains(&scale) && threshold >= 0.0;
        if known { Ok(Exponential { scale, threshold, zero, positive, negative }) } else { Err(AtomError) }
    }

    fn side(&mut self, scale: i32) -> Result<Buckets, AtomError> {
        let zigzag = u32::try_from(self.varint()?).map_err(|_| AtomError)?;
        let offset = zigzag.wrapping_shr(1).cast_signed() ^ (zigzag & 1).cast_signed().wrapping_neg();
        let counts = self.counts(BUCKETS_MAX)?;
        if super::fits(scale, offset, counts.len()) {
            Ok(Buckets::new(offset, counts))
        } else {
            Err(AtomError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atoms() -> [Vec<u8>; 3] {
        let mut bare = Vec::new();
        put_header(&mut bare, 300, Some(1.5), Some((-2.0, 7.0)), (false, false));
        let mut explicit = Vec::new();
        put_header(&mut explicit, 203, None, None, (true, false));
        [3, 1, 0, 202].iter().for_each(|n| put_varint(&mut explicit, *n));
        let mut exponential = Vec::new();
        put_header(&mut exponential, 10, Some(-0.5), None, (false, true));
        let positive = Buckets::new(-7, vec![1, 0, 3]);
        let negative = Buckets::new(400, vec![4]);
        Exponential { scale: -1, threshold: 0.25, zero: 2, positive, negative }.put(&mut exponential);
        [bare, explicit, exponential]
    }

    #[test]
    fn atoms_are_read_as_they_are_written() {
        let [bare, explicit, exponential] = atoms().map(|bytes| Distribution::read(&bytes).unwrap());
        assert_eq!((bare.count, bare.sum.to_f64(), bare.extremes), (300, 1.5, Some((-2.0, 7.0))));
        assert_eq!((explicit.sumless, &explicit.shape), (true, &Shape::Explicit(vec![1, 0, 202])));
        let Shape::Exponential(e) = exponential.shape else { panic!() };
        assert_eq!((e.scale, e.threshold, e.zero), (-1, 0.25, 2));
        assert_eq!((e.positive, e.negative), (Buckets::new(-7, vec![1, 0, 3]), Buckets::new(400, vec![4])));
    }

    #[test]
    fn every_cut_is_refused_and_no_flip_panics() {
        for whole in atoms() {
            for len in 0..whole.len() {
                assert_eq!(Distribution::read(&whole[..len]), Err(AtomError), "cut at {len}");
            }
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let mut flipped = whole.clone();
                    flipped[at] ^= 1 << bit;
                    drop(Distribution::read(&flipped));
                }
            }
        }
    }
}
