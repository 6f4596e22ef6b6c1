//! What a tenant who chooses label values would try, and how random the identities look.
//!
//! Every attack has a control: a weaker function on which it works, so that the test can fail.

use phoenix_filter::hash::{Domain, Hasher, Identity};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;

fn hashers(count: usize) -> impl Iterator<Item = Hasher> {
    let mut random = ChaCha8Rng::seed_from_u64(36);
    (0..count).map(move |_| Hasher::new(&random.random()))
}

fn attribute(hasher: &Hasher, key: &[u8], value: &[u8]) -> Identity {
    hasher.pair(Domain::Attribute, key, value)
}

/// XXH64 (xxHash specification 0.1.1) for inputs of whole stripes of 32 bytes and whole words of 8: the control.
fn xxh64(input: &[u8], seed: u64) -> u64 {
    const P: [u64; 4] =
        [0x9E37_79B1_85EB_CA87, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0x85EB_CA77_C2B2_AE63];
    const P5: u64 = 0x27D4_EB2F_1656_67C5;
    let round =
        |acc: u64, word: u64| acc.wrapping_add(word.wrapping_mul(P[1])).rotate_left(31).wrapping_mul(P[0]);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let mut lanes =
        [seed.wrapping_add(P[0]).wrapping_add(P[1]), seed.wrapping_add(P[1]), seed, seed.wrapping_sub(P[0])];
    let stripes = input.chunks_exact(32);
    let rest = stripes.remainder();
    for stripe in stripes {
        for (lane, bytes) in lanes.iter_mut().zip(stripe.chunks(8)) {
            *lane = round(*lane, word(bytes));
        }
    }
    let mut hash = if input.len() >= 32 {
        let turned = lanes
            .iter()
            .zip([1, 7, 12, 18])
            .map(|(lane, by)| lane.rotate_left(by))
            .fold(0, u64::wrapping_add);
        lanes.iter().fold(turned, |hash, lane| (hash ^ round(0, *lane)).wrapping_mul(P[0]).wrapping_add(P[3]))
    } else {
        seed.wrapping_add(P5)
    };
    hash = hash.wrapping_add(input.len() as u64);
    assert_eq!(rest.len() % 8, 0);
    for bytes in rest.chunks(8) {
        hash = (hash ^ round(0, word(bytes))).rotate_left(27).wrapping_mul(P[0]).wrapping_add(P[3]);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P[1]);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P[2]);
    hash ^ (hash >> 32)
}

/// Two values of 64 bytes. A top bit flipped in the first stripe changes that lane by ±2^63 · P2, that is by one bit
/// which the rotation and the multiplication by P1 turn into ±2^30 · P1: one of two differences, whatever the seed.
/// The same lane's word of the next stripe takes one of the two back.
fn xxh64_pair() -> ([u8; 64], [u8; 64]) {
    const P1: u64 = 0x9E37_79B1_85EB_CA87;
    const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
    // Newton's iteration for the inverse of an odd number modulo 2^64.
    let inverse = (0..6).fold(P2, |x, _| x.wrapping_mul(2_u64.wrapping_sub(P2.wrapping_mul(x))));
    assert_eq!(inverse.wrapping_mul(P2), 1);
    let one = [b'a'; 64];
    let mut two = one;
    two[7] ^= 0x80;
    let second = u64::from_le_bytes(two[32..40].try_into().unwrap());
    let back = (1_u64 << 30).wrapping_mul(P1).wrapping_mul(inverse);
    two[32..40].copy_from_slice(&second.wrapping_sub(back).to_le_bytes());
    (one, two)
}

#[test]
fn trap_36_the_pair_that_collides_in_xxh64_for_half_of_all_seeds_does_not_collide_here() {
    // Values of other implementations hold, so the control is XXH64.
    assert_eq!(xxh64(b"", 0), 0xEF46_DB37_51D8_E999);
    assert_eq!(xxh64(&[b'a'; 64], 0), 0xECDB_66A0_AA93_22E2);
    assert_eq!(xxh64(&[b'a'; 72], 7), 0x8181_0D76_66F7_FBAA);
    let (one, two) = xxh64_pair();
    assert_ne!(one, two);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let seeds = 20_000;
    let hits = (0..seeds).filter(|_| {
        let seed = random.random();
        xxh64(&one, seed) == xxh64(&two, seed)
    });
    let share = hits.count() as f64 / f64::from(seeds);
    assert!((0.47..0.53).contains(&share), "{share}");

    for hasher in hashers(20_000) {
        for (a, b) in [(&one[..], &two[..]), (&two[..], &one[..])] {
            assert_ne!(attribute(&hasher, b"user", a), attribute(&hasher, b"user", b));
            assert_ne!(attribute(&hasher, a, b"user"), attribute(&hasher, b, b"user"));
            let (x, y) = (attribute(&hasher, a, b), attribute(&hasher, b, a));
            assert_ne!(x, y);
            assert_ne!(x.low(), y.low());
        }
    }
}

/// NH alone over one word of a key and one of a value, as the sum of the two: linear over the parts.
fn bare_nh(keys: [u32; 4], a: &[u8; 8], b: &[u8; 8]) -> u64 {
    let product = |bytes: &[u8; 8], low: u32, high: u32| {
        let word = u64::from_le_bytes(*bytes);
        u64::from((word as u32).wrapping_add(low))
            .wrapping_mul(u64::from(((word >> 32) as u32).wrapping_add(high)))
    };
    product(a, keys[0], keys[1]).wrapping_add(product(b, keys[2], keys[3]))
}

#[test]
fn swapped_values_do_not_cancel_in_a_sum() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for hasher in hashers(50_000) {
        let [x, y, a, b]: [[u8; 8]; 4] = random.random();
        let keys = random.random();
        let control = |k, v| bare_nh(keys, k, v);
        assert_eq!(
            control(&x, &a).wrapping_add(control(&y, &b)),
            control(&x, &b).wrapping_add(control(&y, &a))
        );
        let sum = |v, w| attribute(&hasher, &x, v).plus(attribute(&hasher, &y, w));
        let (straight, crossed) = (sum(&a, &b), sum(&b, &a));
        assert_ne!(straight, crossed);
        assert_ne!(straight.low(), crossed.low());
        assert_ne!(straight.high(), crossed.high());
        // The same with xor, where a linear finish would cancel too.
        let xor = |v, w| attribute(&hasher, &x, v).0 ^ attribute(&hasher, &y, w).0;
        assert_ne!(xor(&a, &b), xor(&b, &a));
    }
}

#[test]
fn swapped_short_labels_do_not_cancel_either() {
    for hasher in hashers(20_000) {
        let sum = |v: &[u8], w: &[u8]| attribute(&hasher, b"x", v).plus(attribute(&hasher, b"y", w));
        assert_ne!(sum(b"A", b"B"), sum(b"B", b"A"));
        assert_ne!(sum(b"", b"B"), sum(b"B", b""));
    }
}

/// Spellings that careless framing takes for one another: separators, empty parts, zeros as padding, moved borders.
#[test]
fn framings_that_look_alike_are_unrelated() {
    #[rustfmt::skip] // A kind a line.
    let spellings: &[(&[u8], &[u8])] = &[
        (b"", b""), (b"\0", b""), (b"", b"\0"), (b"\0", b"\0"), (b"\0\0", b""), (b"", b"\0\0"),
        (b"ab", b"c"), (b"a", b"bc"), (b"abc", b""), (b"", b"abc"), (b"ab=c", b""), (b"ab", b"=c"), (b"ab=", b"c"),
        (b"a,b", b"c"), (b"a", b"b,c"), (b"a\xff", b"b"), (b"a", b"\xffb"), (b"a\0", b"b"), (b"a", b"\0b"), (b"a", b"b\0"),
        (b"12345678", b""), (b"", b"12345678"), (b"1234567", b"8"), (b"12345678", b"\0"), (b"12345678\0", b""),
        (b"12345678", b"12345678"), (b"1234567812345678", b""), (b"", b"1234567812345678"),
    ];
    let zeros = [0; 300];
    for hasher in hashers(300) {
        let mut seen = HashSet::new();
        for domain in [Domain::Attribute, Domain::Resource, Domain::Metric] {
            for (a, b) in spellings {
                assert!(seen.insert(hasher.pair(domain, a, b).low()), "{domain:?} {a:?} {b:?}");
            }
        }
        for len in 17..300 {
            assert!(seen.insert(attribute(&hasher, &zeros[..len], b"").low()), "{len}");
            assert!(seen.insert(attribute(&hasher, b"", &zeros[..len]).low()), "{len}");
        }
    }
}

/// A list of pairs is not its concatenation, and repeating one pair is not leaving it out.
#[test]
fn sums_do_not_confuse_sets() {
    for hasher in hashers(2_000) {
        let id = |k: &[u8], v: &[u8]| attribute(&hasher, k, v);
        let once = id(b"a", b"1");
        assert_ne!(once.plus(once), Identity::ZERO, "an xor would cancel");
        assert_ne!(once.plus(once), once);
        assert_ne!(id(b"a", b"1").plus(id(b"b", b"2")), id(b"a", b"2").plus(id(b"b", b"1")));
        assert_ne!(id(b"a", b"1").plus(id(b"b", b"2")), id(b"a", b"1b2"));
        let empty = hasher.pair(Domain::Attribute, b"", b"");
        assert_ne!(once.plus(empty), once, "an empty label is a label");
    }
}

#[test]
fn every_output_bit_flips_with_every_input_bit_in_half_of_the_cases() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for (a_len, b_len) in [(1, 1), (10, 15), (8, 8), (64, 64), (100, 100)] {
        let rounds = 600;
        let mut flips = vec![[0_u32; 128]; 8 * (a_len + b_len)];
        for hasher in hashers(rounds) {
            let mut both: Vec<u8> = (0..a_len + b_len).map(|_| random.random()).collect();
            let (a, b) = both.split_at(a_len);
            let before = attribute(&hasher, a, b).0;
            for (bit, counts) in flips.iter_mut().enumerate() {
                both[bit / 8] ^= 1 << (bit % 8);
                let (a, b) = both.split_at(a_len);
                let change = before ^ attribute(&hasher, a, b).0;
                both[bit / 8] ^= 1 << (bit % 8);
                for (out, count) in counts.iter_mut().enumerate() {
                    *count += (change >> out) as u32 & 1;
                }
            }
        }
        // Seven standard deviations of a fair coin, over at most 204,800 coins.
        let (mean, far) = (rounds as f64 / 2.0, 7.0 * (rounds as f64 / 4.0).sqrt());
        for (bit, counts) in flips.iter().enumerate() {
            for (out, count) in counts.iter().enumerate() {
                assert!(
                    (f64::from(*count) - mean).abs() < far,
                    "({a_len}, {b_len}) in {bit} out {out}: {count}"
                );
            }
        }
    }
}

/// Chi-square over `2^bits` cells of a hundred thousand consecutive label values.
fn chi_square(hasher: &Hasher, cell: impl Fn(Identity) -> u64, bits: u32) -> f64 {
    let (count, cells) = (100_000_u32, 1_usize << bits);
    let mut filled = vec![0_u32; cells];
    for number in 0..count {
        let id = attribute(hasher, b"user_id", number.to_string().as_bytes());
        filled[(cell(id) & (cells as u64 - 1)) as usize] += 1;
    }
    let mean = f64::from(count) / cells as f64;
    filled.iter().map(|got| (f64::from(*got) - mean).powi(2) / mean).sum()
}

/// Some bits of an identity, at the low end.
type Slice = fn(Identity) -> u64;

#[test]
fn bits_that_tables_and_shards_use_are_uniform() {
    for hasher in hashers(3) {
        for bits in [1, 4, 10] {
            let freedom = f64::from((1_u32 << bits) - 1);
            let slices: [(&str, Slice); 6] = [
                ("low", |id| id.low()),
                ("high", |id| id.high()),
                ("top", |id| (id.high() >> 32).reverse_bits() >> 32),
                ("tag of a 32-bit hashbrown", |id| id.high() >> 25),
                ("tag of a 64-bit hashbrown", |id| id.high() >> 57 | id.high() << 7),
                ("sum", |id| id.plus(id).low() >> 1),
            ];
            for (name, cell) in slices {
                let chi = chi_square(&hasher, cell, bits);
                assert!(
                    (chi - freedom).abs() < 7.0 * (2.0 * freedom).sqrt() + 15.0,
                    "{name}, {bits} bits: {chi}"
                );
            }
        }
    }
}

#[test]
fn a_million_sums_of_structured_labels_are_distinct_in_either_half() {
    let hasher = hashers(1).next().unwrap();
    let part = |key: &[u8], number: u32| attribute(&hasher, key, &number.to_le_bytes());
    let (mut low, mut high) = (HashSet::new(), HashSet::new());
    for x in 0..100 {
        for y in 0..100 {
            let pair = part(b"x", x).plus(part(b"y", y));
            for z in 0..100 {
                let id = pair.plus(part(b"z", z));
                assert!(low.insert(id.low()) && high.insert(id.high()), "{x} {y} {z}");
            }
        }
    }
}

#[test]
fn a_megabyte_is_hashed_to_its_last_bit() {
    let hasher = hashers(1).next().unwrap();
    let mut long = vec![0x61; 1 << 20];
    let mut seen = HashSet::from([attribute(&hasher, b"k", &long), attribute(&hasher, b"k", &long[1..])]);
    for at in [0, 1, 119, 120, 127, 128, 4096, (1 << 19) + 3, (1 << 20) - 1] {
        long[at] ^= 0x80;
        assert!(seen.insert(attribute(&hasher, b"k", &long)), "{at}");
        long[at] ^= 0x80;
    }
}
