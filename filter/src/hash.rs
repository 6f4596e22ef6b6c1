//! Identify: a keyed 128-bit identity of names and values that a tenant chooses.
//!
//! In: a domain and two byte strings (a label's key and value, say). Out: an [`Identity`], 128 bits that look
//! random to everybody without the key. The identity of a stream is the *sum* modulo 2¹²⁸ of the identities of its
//! parts, so the order of attributes does not matter and the identity without a label costs one subtraction.
//! There is nothing to refuse: every input of every length has an identity. The values are the same on wasm32 and
//! on x86-64 ([`self_check`]).
//!
//! # The function
//!
//! ```text
//! words  = a padded with zeros to 8 bytes ‖ b padded with zeros to 8 bytes, each word a pair (m, m′) of u32
//! state  = K + (len a, len b, domain, 0)                                  four u64, K secret
//! per block of 16 words:
//!     n_t    = Σ_i (m_i + k_{i+t} mod 2³²) · (m′_i + k′_{i+t} mod 2³²) mod 2⁶⁴     for t = 0..4
//!     state += (n_0, n_1, n_2, n_3)
//!     if not the last block: state = SipRound²(state)
//! state  = SipRound⁴(state);   identity = (v0 ^ v1, v2 ^ v3)
//! ```
//!
//! The sums are NH of UMAC (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC, CRYPTO 1999; RFC 4418) with 32-bit
//! words in four Toeplitz passes: products 32×32→64 are one instruction in wasm, 64×64→128 is none. All keys come
//! from ChaCha20 (RFC 8439) under the plan's 256-bit key. [`Hasher::pair`] copies nothing and allocates nothing.
//!
//! # What is proven, what is assumed
//!
//! *Proven, for secret uniform keys and inputs chosen without seeing identities:* two different inputs of at most
//! one block (16 words, 128 bytes) reach the finish with the same state with probability
//! * 0, if their words agree (then the lengths or the domain differ, and those are added as they are);
//! * ≤ 2⁻¹²⁸, if they have equally many words: NH is 2⁻³²-almost-Δ-universal. Let `l` be the last word in which
//!   they differ: pass `t` uses the key pair `l+t`, which no earlier pass multiplied with a difference, so the
//!   four bounds multiply;
//! * ≤ 2⁻¹²⁴, if their counts of words differ: pass `t` must hit one constant with the product of two uniform
//!   32-bit words that no earlier pass used (2⁻³¹ at worst, when that constant is zero).
//!
//! *Assumed:* the finish behaves as a pseudo-random function of its 256-bit input. It is a permutation without
//! structure that survives addition, under a secret offset, cut to half its width (Even and Mansour 1991). Four
//! rounds are what SipHash-1-3 puts between the last word it reads and its output (one and three), and there the
//! attacker sets the differences himself and sees outputs; here he knows neither the state nor the differences
//! that NH makes of his input, and sees no output. Between blocks there are the two rounds of SipHash-2-4's
//! compression; for inputs of several blocks the bound above holds for the first block that differs and the rest
//! is assumed of the rounds. Under the assumption any two of 2³² inputs collide with probability about 2⁻⁶⁴.
//!
//! The finish must not be linear: with bare NH, or any polynomial, h(xA) + h(yB) = h(xB) + h(yA) for every key, and
//! sums would confuse streams that swap values.
//!
//! # When it is the wrong choice
//!
//! It is no message authentication code and no public fingerprint: whoever sees many identities *and* may choose
//! inputs can look for small sums that agree (Wagner 2002). Identities therefore leave the process only inside
//! records and reports of the same trust domain, and a leaked key means a new key, which is a restart.

use core::fmt;

/// Bits of a state word and what one NH word holds, in bytes: a pair of u32.
const WORD_BYTES: usize = 8;

/// Words per NH block. 128 bytes hold nearly every label with its value, and the key stays in three cache lines.
const BLOCK_WORDS: usize = 16;

/// Toeplitz passes: each gives 2⁻³², four give the 2⁻¹²⁸ that a 128-bit identity can use.
const PASSES: usize = 4;

/// Key words of NH: pass `t` starts `t` words later.
const NH_KEY_WORDS: usize = BLOCK_WORDS + PASSES - 1;

/// Rounds between two blocks: those of SipHash-2-4 between two words.
const BLOCK_ROUNDS: u32 = 2;

/// Rounds after the last block: those of SipHash-1-3 after its last word (see the module documentation).
const FINISH_ROUNDS: u32 = 4;

/// Separates this use of the plan's key from every other; a change of the function changes this name.
const NONCE: [u8; 12] = *b"phoenix-id-1";

/// What a pair of strings is. Equal strings in different domains have unrelated identities.
///
/// The numbers are part of the identity: never reuse or change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Domain {
    /// A tenant's name.
    Tenant = 1,
    /// One attribute of a resource.
    Resource = 2,
    /// The instrumentation scope: its name and version.
    Scope = 3,
    /// A metric: its name and unit.
    Metric = 4,
    /// One attribute of a point.
    Attribute = 5,
    /// An element of an array or of a key-value list inside a value.
    Nested = 6,
    /// The writer stamped on folded series.
    Writer = 7,
    /// The bounds of a histogram.
    Bounds = 8,
    /// Type, temporality and monotonicity of a metric.
    Kind = 9,
    /// A series on the way out: what was kept, and the fold's mark.
    Series = 10,
    /// One attribute of a scope.
    ScopeAttribute = 11,
    /// The key of a label, of a point or of a resource.
    Label = 12,
    /// What the head of a series says beyond its identity: a key of a cache, never part of an identity.
    Head = 13,
}

/// A 128-bit keyed identity; a sum of identities is one again.
///
/// Every bit is uniform. Tables in this crate index by the high half, so that shards may be chosen by the low half.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Identity(pub u128);

impl Identity {
    /// The identity of nothing: the neutral element of [`plus`](Self::plus).
    pub const ZERO: Self = Self(0);

    /// The identity with one part more, modulo 2¹²⁸.
    #[must_use]
    #[inline]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// The identity without one of its parts, modulo 2¹²⁸.
    #[must_use]
    #[inline]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }

    /// Bits 0..64: for choosing a shard.
    #[must_use]
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // The low half is meant.
    pub const fn low(self) -> u64 {
        self.0 as u64
    }

    /// Bits 64..128: for the index of a table.
    #[must_use]
    #[inline]
    pub const fn high(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// Little-endian bytes, as records carry it and as a nested identity enters the next one.
    #[must_use]
    #[inline]
    pub const fn to_le_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// The inverse of [`to_le_bytes`](Self::to_le_bytes).
    #[must_use]
    #[inline]
    pub const fn from_le_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The keyed function. 184 bytes; a clone gives the same identities.
///
/// It prints no key material.
#[derive(Clone)]
pub struct Hasher {
    /// Pairs of u32, the first in the low half.
    nh: [u64; NH_KEY_WORDS],
    state: [u64; 4],
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(secret)")
    }
}

impl Hasher {
    /// Expands the plan's key. Costs three blocks of ChaCha20: make one hasher per plan, not per batch.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let mut hasher = Self { nh: [0; NH_KEY_WORDS], state: [0; 4] };
        let mut words = hasher.nh.iter_mut().chain(&mut hasher.state);
        for counter in 0..KEY_BLOCKS {
            // The bytes lead: `zip` asks its left side first, and a word taken in vain would stay zero.
            let block = chacha20(key, counter, &NONCE);
            for (bytes, word) in block.as_chunks::<WORD_BYTES>().0.iter().zip(words.by_ref()) {
                *word = u64::from_le_bytes(*bytes);
            }
        }
        hasher
    }

    /// The identity of `(domain, a, b)`. Injective framing: `("ab", "c")` and `("a", "bc")` are unrelated.
    #[must_use]
    #[inline]
    pub fn pair(&self, domain: Domain, a: &[u8], b: &[u8]) -> Identity {
        let [k0, k1, k2, k3] = self.state;
        let state = State([
            k0.wrapping_add(a.len() as u64),
            k1.wrapping_add(b.len() as u64),
            k2.wrapping_add(u64::from(domain as u8)),
            k3,
        ]);
        // Saturation only sends impossible lengths down the long way, which is right for every length.
        if a.len().div_ceil(WORD_BYTES).saturating_add(b.len().div_ceil(WORD_BYTES)) > BLOCK_WORDS {
            return self.long(state, a, b);
        }
        let mut nh = Nh { sums: [0; PASSES], keys: &self.nh };
        words(a, |word| nh.word(word));
        words(b, |word| nh.word(word));
        state.plus(nh.sums).finish()
    }

    /// A number for an identity that says nothing about it: pseudo-random under the same key, and no part of any sum. For samples that
    /// leave the process (the bound of [`Hasher::pair`] holds only while nobody who chooses inputs sees identities).
    #[must_use]
    pub fn blind(&self, id: Identity) -> u64 {
        let [k0, k1, k2, k3] = self.state;
        // A domain of its own, in a word that `pair` never changes.
        let state = State([k0 ^ id.low(), k1 ^ id.high(), k2, k3 ^ u64::from_le_bytes(*b"blinding")]);
        state.rounds(BLOCK_ROUNDS).finish().low()
    }

    /// More than one block: the same words, with rounds between the blocks.
    #[cold]
    fn long(&self, mut state: State, a: &[u8], b: &[u8]) -> Identity {
        let mut nh = Nh { sums: [0; PASSES], keys: &self.nh };
        for bytes in [a, b] {
            let mut bytes = bytes;
            while !bytes.is_empty() {
                if nh.room() == 0 {
                    state = state.plus(nh.sums).rounds(BLOCK_ROUNDS);
                    nh = Nh { sums: [0; PASSES], keys: &self.nh };
                }
                let fits = nh.room().saturating_mul(WORD_BYTES);
                let (now, later) = bytes.split_at_checked(fits).unwrap_or((bytes, &[]));
                words(now, |word| nh.word(word));
                bytes = later;
            }
        }
        state.plus(nh.sums).finish()
    }
}

/// Blocks of 64 bytes of ChaCha20 that fill a [`Hasher`].
const KEY_BLOCKS: u32 = 3;
const _: () = assert!(size_of::<Hasher>() == 184 && size_of::<Hasher>() <= 64 * KEY_BLOCKS as usize);

/// NH over one block: four running sums, and the keys of the words to come.
struct Nh<'k> {
    sums: [u64; PASSES],
    keys: &'k [u64],
}

impl Nh<'_> {
    #[inline(always)]
    fn word(&mut self, word: u64) {
        let Some((keys, _)) = self.keys.split_first_chunk::<PASSES>() else { return };
        for (sum, key) in self.sums.iter_mut().zip(keys) {
            let low = (word as u32).wrapping_add(*key as u32);
            let high = ((word >> 32) as u32).wrapping_add((*key >> 32) as u32);
            *sum = sum.wrapping_add(u64::from(low).wrapping_mul(u64::from(high)));
        }
        self.keys = self.keys.get(1..).unwrap_or_default();
    }

    /// Words that still fit the block.
    #[inline(always)]
    fn room(&self) -> usize {
        self.keys.len().saturating_sub(PASSES - 1)
    }
}

/// Gives `bytes` as little-endian words, the last padded with zeros.
#[inline(always)]
fn words(bytes: &[u8], mut word: impl FnMut(u64)) {
    let (chunks, rest) = bytes.as_chunks::<WORD_BYTES>();
    for chunk in chunks {
        word(u64::from_le_bytes(*chunk));
    }
    if !rest.is_empty() {
        word(tail(bytes, rest));
    }
}

/// `rest`, the last 1 to 7 bytes of `bytes`, as one word. Two overlapping reads instead of a loop or a copy.
#[inline(always)]
fn tail(bytes: &[u8], rest: &[u8]) -> u64 {
    let bits = |count: usize| (count as u32).wrapping_mul(8);
    if let Some(last) = bytes.last_chunk::<8>() {
        return u64::from_le_bytes(*last).wrapping_shr(64_u32.wrapping_sub(bits(rest.len())));
    }
    if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        let last = u64::from(u32::from_le_bytes(*last));
        return u64::from(u32::from_le_bytes(*first)) | last.wrapping_shl(bits(rest.len().wrapping_sub(4)));
    }
    match *rest {
        [x] => u64::from(x),
        [x, y] => u64::from(u16::from_le_bytes([x, y])),
        [x, y, z] => u64::from(u32::from_le_bytes([x, y, z, 0])),
        _ => 0,
    }
}

/// The state of the finish: SipHash's v0..v3.
#[derive(Clone, Copy)]
struct State([u64; 4]);

impl State {
    #[inline(always)]
    fn plus(self, sums: [u64; PASSES]) -> Self {
        let ([v0, v1, v2, v3], [n0, n1, n2, n3]) = (self.0, sums);
        Self([v0.wrapping_add(n0), v1.wrapping_add(n1), v2.wrapping_add(n2), v3.wrapping_add(n3)])
    }

    /// SipRound of Aumasson and Bernstein (SipHash: a fast short-input PRF, 2012), `count` times.
    #[inline(always)]
    fn rounds(self, count: u32) -> Self {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        for _ in 0..count {
            v0 = v0.wrapping_add(v1);
            v2 = v2.wrapping_add(v3);
            v1 = v1.rotate_left(13) ^ v0;
            v3 = v3.rotate_left(16) ^ v2;
            v0 = v0.rotate_left(32);
            v2 = v2.wrapping_add(v1);
            v0 = v0.wrapping_add(v3);
            v1 = v1.rotate_left(17) ^ v2;
            v3 = v3.rotate_left(21) ^ v0;
            v2 = v2.rotate_left(32);
        }
        Self([v0, v1, v2, v3])
    }

    /// The pairs differ from those of the last step of a round (v1 with v2, v3 with v0), which they would undo.
    #[inline(always)]
    fn finish(self) -> Identity {
        let [v0, v1, v2, v3] = self.rounds(FINISH_ROUNDS).0;
        Identity((u128::from(v2 ^ v3) << 64) | u128::from(v0 ^ v1))
    }
}

/// One block of the ChaCha20 key stream (RFC 8439 §2.3).
fn chacha20(key: &[u8; 32], counter: u32, nonce: &[u8; 12]) -> [u8; 64] {
    // "expand 32-byte k", the key, the counter, the nonce.
    let mut start =
        [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574, 0, 0, 0, 0, 0, 0, 0, 0, counter, 0, 0, 0];
    let (keys, nonces) = (key.as_chunks::<4>().0, nonce.as_chunks::<4>().0);
    let places = [4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15];
    for (place, bytes) in places.into_iter().zip(keys.iter().chain(nonces)) {
        if let Some(word) = start.get_mut::<usize>(place) {
            *word = u32::from_le_bytes(*bytes);
        }
    }
    let mut x = start;
    for _ in 0..10 {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = x;
        let ([a0, b0, c0, d0], [a1, b1, c1, d1]) = (quarter(a0, b0, c0, d0), quarter(a1, b1, c1, d1));
        let ([a2, b2, c2, d2], [a3, b3, c3, d3]) = (quarter(a2, b2, c2, d2), quarter(a3, b3, c3, d3));
        let ([a0, b1, c2, d3], [a1, b2, c3, d0]) = (quarter(a0, b1, c2, d3), quarter(a1, b2, c3, d0));
        let ([a2, b3, c0, d1], [a3, b0, c1, d2]) = (quarter(a2, b3, c0, d1), quarter(a3, b0, c1, d2));
        x = [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3];
    }
    let mut out = [0; 64];
    for ((bytes, word), first) in out.as_chunks_mut::<4>().0.iter_mut().zip(x).zip(start) {
        *bytes = word.wrapping_add(first).to_le_bytes();
    }
    out
}

/// The quarter round of ChaCha (RFC 8439 §2.1).
fn quarter(mut a: u32, mut b: u32, mut c: u32, mut d: u32) -> [u32; 4] {
    for (left, right) in [(16, 12), (8, 7)] {
        a = a.wrapping_add(b);
        d = (d ^ a).rotate_left(left);
        c = c.wrapping_add(d);
        b = (b ^ c).rotate_left(right);
    }
    [a, b, c, d]
}

/// The key of the golden vectors: the bytes 0, 1, … 31.
pub const GOLDEN_KEY: [u8; 32] = *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\
\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f";

/// A few identities under [`GOLDEN_KEY`]; `filter/tests/data/hash_golden.txt` has more.
pub const GOLDEN: &[(Domain, &[u8], &[u8], u128)] = &[
    (Domain::Tenant, b"", b"", 0xe0d38769_80622abc_3785ba02_f9b048df),
    (Domain::Metric, b"http.server.request.duration", b"s", 0xd18bd9d7_500e86ad_66706cb4_b07586b6),
    (Domain::Attribute, b"http.route", b"/cart/checkout", 0x362997e2_cea81314_16af58ff_532f9c94),
    (Domain::Attribute, b"http.rout", b"e/cart/checkout", 0x606e2b28_f35216a1_3e38a18c_e2012f9d),
    (Domain::Resource, b"k8s.pod.name", b"checkout-7d9c5b7f4-x2x9q", 0x725f3828_8ceeb056_b00abb04_c3a61f5a),
];

/// The sum of the identities of all 200 splits of the bytes 0, 1, … 199 under [`GOLDEN_KEY`].
const GOLDEN_SUM: u128 = 0x56383461_6f120ec8_906aaaf4_2f3a4a3e;

/// Whether this build computes the identities it must, whatever its target. Costs some microseconds.
///
/// A shell calls it in its tests; two targets that disagree would never find each other's series.
#[must_use]
pub fn self_check() -> bool {
    let hasher = Hasher::new(&GOLDEN_KEY);
    let mut bytes = [0; 200];
    for (byte, value) in bytes.iter_mut().zip(0..) {
        *byte = value;
    }
    let sum = (0..bytes.len())
        .filter_map(|at| bytes.split_at_checked(at))
        .fold(Identity::ZERO, |sum, (a, b)| sum.plus(hasher.pair(Domain::Nested, a, b)));
    sum.0 == GOLDEN_SUM && GOLDEN.iter().all(|(domain, a, b, id)| hasher.pair(*domain, a, b).0 == *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chacha20_is_that_of_rfc_8439_section_2_3_2() {
        let nonce = [0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0];
        let block = chacha20(&GOLDEN_KEY, 1, &nonce);
        assert_eq!(block[..8], [0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15]);
        assert_eq!(
            block[56..],
            [0xb5, 0x12, 0x9c, 0xd1, 0xde, 0x16, 0x4e, 0xb9, 0xcb, 0xd0, 0x83, 0xe8, 0xa2, 0x50, 0x3c, 0x4e]
                [8..]
        );
    }

    #[test]
    fn this_target_computes_the_golden_identities() {
        assert!(self_check());
    }

    #[test]
    fn the_key_stream_fills_every_word_in_order() {
        let hasher = Hasher::new(&GOLDEN_KEY);
        let stream: Vec<u8> =
            (0..KEY_BLOCKS).flat_map(|counter| chacha20(&GOLDEN_KEY, counter, &NONCE)).collect();
        let words: Vec<u8> =
            hasher.nh.iter().chain(&hasher.state).flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(words, stream[..words.len()]);
    }

    #[test]
    fn nothing_of_the_key_is_printed() {
        assert_eq!(format!("{:?}", Hasher::new(&GOLDEN_KEY)), "Hasher(secret)");
    }
}
