//! From registers to a number: maximum likelihood.
//!
//! Were the number of hashes of a register Poisson with mean x, value k would come with probability 1 − e^(−x/2^j), where 2^-j is
//! the probability of that value, independent of all others. With β_j the values of probability 2^-j that came, and α the summed
//! probability of those that are known not to have come, the likelihood is greatest where
//!
//! ```text
//! h(x) = Σ β_j · B(x/2^j) − αx = 0     with B(u) = u / (eᵘ − 1)
//! ```
//!
//! B falls and is convex, so h has one zero and Newton's steps from the left never pass it. Section 3 of the paper, which takes
//! another way to the same zero. The estimate is 256 x, less a bias of the first order. α is an integer, `libm` gives equal
//! bits everywhere, and there is no other function in it: equal registers are equal estimates, bit for bit, on wasm32 too.

use super::registers::{FINE_BITS, LEADING_BITS, REGISTERS, REMEMBERED, Registers, VALUE_MAX};

/// Exponent of the least probability of a value: probabilities are counted in 2^-56.
const SCALE: u32 = LEADING_BITS + FINE_BITS;
/// 2^56.
const UNIT: f64 = (1_u64 << SCALE) as f64;
/// Levels that reach into the 24 values a register knows: six, and one more where they begin inside of one.
const LEVELS: u32 = 7;
/// Values of a level.
const PER_LEVEL: u32 = 1 << FINE_BITS;
/// Bits of one level among the values.
const LEVEL_MASK: u32 = (1 << PER_LEVEL) - 1;
/// How many of four bits are set, a digit for each of the sixteen: baseline processors count bits slowly.
const ONES: u64 = 0x4332_3221_3221_2110;
/// The constant of the bias of first order (section 3.4 of the paper): ln b (1 + 2y) ζ(3, 1 + y) / ζ(2, 1 + y)² with y = b⁻ᵈ / (b − 1).
const BIAS: f64 = 0.093_898_981_479_486_65;
/// Steps of Newton. Real registers need about six; no register that decodes needs more than a few dozen.
const STEPS_MAX: u32 = 200;
/// A step this small relative to x is the last: the next one would be about its square.
const PRECISION: f64 = 1e-7;
/// There are no more hashes than this.
const ESTIMATE_MAX: f64 = 18_446_744_073_709_551_616.0;
/// Beyond it B is zero as a double, and eᵘ soon infinite.
const FLAT: f64 = 700.0;
/// Below it the derivative of B loses all digits to cancellation; B is 1 − u/2 + u²/12 there.
const STEEP: f64 = 1e-4;

const _: () = assert!((VALUE_MAX - REMEMBERED - 1) >> FINE_BITS < LEADING_BITS);
const _: () = assert!(LEVELS * PER_LEVEL == REMEMBERED + 1 + PER_LEVEL);

/// What the registers say together.
struct Evidence {
    /// α, in 2^-56.
    absent: u64,
    /// β by exponent.
    came: [u32; SCALE as usize + 1],
}

/// The exponent j of a level.
fn exponent(level: u32) -> u32 {
    level.saturating_add(FINE_BITS).saturating_add(1).min(SCALE)
}

/// The number of hashes behind these registers.
pub fn of(registers: &Registers) -> f64 {
    let evidence = Evidence::of(registers);
    if evidence.came.iter().all(|n| *n == 0) {
        return 0.0;
    }
    if evidence.absent == 0 {
        return ESTIMATE_MAX;
    }
    let m = REGISTERS as f64;
    (evidence.most_likely() * UNIT * m / (1.0 + BIAS / m)).min(ESTIMATE_MAX)
}

/// The summed probability of all values above one that is forgotten, in 2^-56.
fn above(value: u32) -> u64 {
    let Some(last) = value.checked_sub(1) else { return 1 << SCALE };
    let (level, fine) = (last >> FINE_BITS, last & (PER_LEVEL - 1));
    let rest =
        u64::from((PER_LEVEL - 1).saturating_sub(fine)).wrapping_shl(SCALE.wrapping_sub(exponent(level)));
    // All levels above are together as probable as this one. What is forgotten is never of the last, which has none above.
    rest.saturating_add((1_u64 << (SCALE - 1)).wrapping_shr(level))
}

impl Evidence {
    fn of(registers: &Registers) -> Evidence {
        let mut it = Evidence { absent: 0, came: [0; SCALE as usize + 1] };
        for (newest, values) in registers.iter() {
            // Whatever lies above what is forgotten is known; what of it came is taken off at the end. Modulo 2⁶⁴ where registers are
            // empty: the result is less, unless all are.
            it.absent = it.absent.wrapping_add(above(newest.saturating_sub(REMEMBERED + 1)));
            if let Some(last) = newest.checked_sub(1) {
                it.count(last, values);
            }
        }
        for (exponent, came) in (0..=SCALE).zip(&it.came) {
            let came = u64::from(*came).wrapping_shl(SCALE.wrapping_sub(exponent));
            it.absent = it.absent.wrapping_sub(came);
        }
        it
    }

    /// The values of a register, by level.
    fn count(&mut self, last: u32, values: u32) {
        let (level, fine) = (last >> FINE_BITS, last & (PER_LEVEL - 1));
        // Moved so that each level lies in four bits of its own, the newest one's uppermost.
        let values = values.wrapping_shl(fine.wrapping_add(1));
        for down in 0..LEVELS {
            let Some(level) = level.checked_sub(down) else { break };
            let at = (LEVELS - 1).wrapping_sub(down).wrapping_mul(PER_LEVEL);
            let ones = ONES.wrapping_shr((values.wrapping_shr(at) & LEVEL_MASK).wrapping_mul(4)) & 0xf;
            if let Some(sum) = self.came.get_mut(exponent(level) as usize) {
                *sum = sum.wrapping_add(ones as u32);
            }
        }
    }

    /// The zero of h, in 2^-56 of x: so that x/2^j is exact.
    fn most_likely(&self) -> f64 {
        let absent = self.absent as f64;
        let mut y = 0.0;
        for _ in 0..STEPS_MAX {
            let (mut height, mut slope) = (-absent * y, -absent);
            for (exponent, came) in (0..=SCALE).zip(&self.came) {
                if *came > 0 {
                    let (came, scale) = (f64::from(*came), power_of_two(SCALE.wrapping_sub(exponent)));
                    let (b, falls) = bernoulli(y * scale);
                    height += came * b;
                    slope += came * scale * falls;
                }
            }
            let step = height / -slope;
            y += step;
            // From the left every step goes right; one that does not is rounding.
            if step <= y * PRECISION {
                break;
            }
        }
        y
    }
}

/// 2 to the power of at most [`SCALE`], exactly.
fn power_of_two(exponent: u32) -> f64 {
    1_u64.wrapping_shl(exponent) as f64
}

/// B(u) and its derivative.
fn bernoulli(u: f64) -> (f64, f64) {
    if u > FLAT {
        return (0.0, 0.0);
    }
    if u < STEEP {
        return (1.0 - u / 2.0 + u * u / 12.0, u / 6.0 - 0.5);
    }
    let less_one = libm::expm1(u);
    let b = u / less_one;
    (b, (1.0 - b * (less_one + 1.0)) / less_one)
}
