//! The registers of ExaLogLog: what of each hash is kept.
//!
//! A hash gives a register (bits 2..10) and a *value* from 1 to 220: four times the zeros before the first one among its upper 54
//! bits, plus bits 0..2, plus one. Value k comes with probability 2^-(3 + (k − 1) / 4), the last eight with 2^-56. A register
//! keeps the greatest value that came (*newest*, 8 bits above) and of each of the 23 values below it whether it came (below, the
//! nearest uppermost). Value 0 counts as having come, so that the form of a register depends on the set of values alone.
//! Section 2 of the paper; order and repetition do not matter, and a union is formed register by register.

use crate::sketch::{SketchError, SketchErrorKind as Kind};

/// Registers of a sketch: a byte of the hash says which.
pub const REGISTERS: usize = 256;
/// Bits of a hash that divide a level of values: four values have one probability.
pub const FINE_BITS: u32 = 2;
/// Values below the newest one that a register remembers.
pub const REMEMBERED: u32 = 23;
/// The greatest value: 54 zeros, and bits 0..2 set.
pub const VALUE_MAX: u32 = (LEADING_BITS << FINE_BITS) + (1 << FINE_BITS);
/// Bits of the hash that neither choose the register nor divide a level.
pub const LEADING_BITS: u32 = 64 - REGISTERS.ilog2() - FINE_BITS;
/// All registers, packed.
pub const BYTES: usize = REGISTERS * REGISTER_BITS as usize / 8;

/// Newest and remembered.
const REGISTER_BITS: u32 = 8 + REMEMBERED;
/// The newest value among the remembered ones, in the place above them.
const NEWEST: u32 = 1 << REMEMBERED;
/// The remembered ones.
const REMEMBERED_MASK: u32 = NEWEST - 1;

const _: () = assert!(VALUE_MAX < 1 << 8 && REGISTER_BITS <= u32::BITS);
const _: () = assert!(BYTES * 8 == REGISTERS * REGISTER_BITS as usize);

/// 256 registers, each in a word of its own while in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers([u32; REGISTERS]);

impl Default for Registers {
    fn default() -> Registers {
        Registers([0; REGISTERS])
    }
}

/// Which register, which value.
#[inline(always)]
fn place(hash: u64) -> (u8, u32) {
    let register = (hash >> FINE_BITS) as u8;
    let zeros = (hash | ((1 << (u64::BITS - LEADING_BITS)) - 1)).leading_zeros();
    let fine = hash as u32 & ((1 << FINE_BITS) - 1);
    (register, ((zeros << FINE_BITS) | fine).wrapping_add(1))
}

/// A register after a value.
#[inline(always)]
fn with(register: u32, value: u32) -> u32 {
    let newest = register >> REMEMBERED;
    if value > newest {
        let by = value.wrapping_sub(newest);
        let remembered = (NEWEST | (register & REMEMBERED_MASK)).checked_shr(by).unwrap_or(0);
        (value << REMEMBERED) | remembered
    } else {
        // Too far below the newest: forgotten. The newest itself lies in its own field.
        let bit = NEWEST.checked_shr(newest.wrapping_sub(value)).unwrap_or(0);
        register | (bit & REMEMBERED_MASK)
    }
}

/// A register after all values of another one.
fn union(a: u32, b: u32) -> u32 {
    let (upper, lower) = if a >> REMEMBERED >= b >> REMEMBERED { (a, b) } else { (b, a) };
    let by = (upper >> REMEMBERED).wrapping_sub(lower >> REMEMBERED);
    let remembered = (NEWEST | (lower & REMEMBERED_MASK)).checked_shr(by).unwrap_or(0);
    upper | (remembered & REMEMBERED_MASK)
}

/// Whether some set of values makes this register.
fn is_made(register: u32) -> bool {
    let newest = register >> REMEMBERED;
    if newest == 0 || newest > VALUE_MAX {
        return register == 0;
    }
    // Value 0 has its bit, and there is nothing below it.
    let zero = NEWEST.checked_shr(newest).unwrap_or(0);
    let below = zero.saturating_sub(1);
    register & zero == zero && register & below == 0
}

impl Registers {
    /// Counts a hash; whether a register changed.
    #[inline]
    pub fn insert(&mut self, hash: u64) -> bool {
        let (at, value) = place(hash);
        let Some(register) = self.0.get_mut(usize::from(at)) else { return false };
        let before = *register;
        *register = with(before, value);
        *register != before
    }

    /// Takes in what the other counted.
    pub fn merge(&mut self, other: &Registers) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            *ours = union(*ours, *theirs);
        }
    }

    /// Each register as its newest value (0: none) and the 24 values from the newest down, the newest uppermost.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().map(|register| (register >> REMEMBERED, NEWEST | (register & REMEMBERED_MASK)))
    }

    /// Appends [`BYTES`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (mut held, mut bits) = (0_u64, 0_u32);
        for register in &self.0 {
            held |= u64::from(*register).wrapping_shl(bits);
            bits = bits.wrapping_add(REGISTER_BITS);
            while bits >= 8 {
                out.push(held as u8);
                held >>= 8;
                bits = bits.wrapping_sub(8);
            }
        }
    }

    /// Reads [`BYTES`] bytes that lie at `offset` of a sketch.
    pub fn decode(bytes: &[u8], offset: usize) -> Result<Box<Registers>, SketchError> {
        if bytes.len() != BYTES {
            return Err(SketchError::new(Kind::Length, offset.saturating_add(bytes.len())));
        }
        let mut registers = Box::new(Registers::default());
        let (mut held, mut bits) = (0_u64, 0_u32);
        let mut rest = bytes.iter().enumerate();
        let mut some = false;
        for register in &mut registers.0 {
            let mut first = offset.saturating_add(bytes.len().saturating_sub(rest.len()));
            if bits > 0 {
                first = first.saturating_sub(1);
            }
            while bits < REGISTER_BITS {
                let byte = rest.next().map_or(0, |(_, byte)| *byte);
                held |= u64::from(byte).wrapping_shl(bits);
                bits = bits.wrapping_add(8);
            }
            *register = held as u32 & ((1 << REGISTER_BITS) - 1);
            held >>= REGISTER_BITS;
            bits = bits.wrapping_sub(REGISTER_BITS);
            if !is_made(*register) {
                return Err(SketchError::new(Kind::Register, first));
            }
            some |= *register != 0;
        }
        // A sketch without a hash is sparse: one form for one set.
        if some { Ok(registers) } else { Err(SketchError::new(Kind::Register, offset)) }
    }
}
