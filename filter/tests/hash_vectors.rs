//! The identity hash against its golden vectors, against its own definition in plain code, and against
//! SipHash-2-4-128 as the oracle of equality.
//!
//! The vectors also hold on wasm32: `phoenix_filter::hash::self_check` is what a shell's test calls there.

use phoenix_filter::hash::{Domain, GOLDEN, GOLDEN_KEY, Hasher, Identity, self_check};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::fmt::Write;
use std::hash::Hasher as _;

const DOMAINS: [Domain; 11] = [
    Domain::Tenant,
    Domain::Resource,
    Domain::Scope,
    Domain::Metric,
    Domain::Attribute,
    Domain::Nested,
    Domain::Writer,
    Domain::Bounds,
    Domain::Kind,
    Domain::Series,
    Domain::ScopeAttribute,
];

/// Lengths at every border: of a word, of its two halves, of a block, and one megabyte.
#[rustfmt::skip] // Ten a line.
const LENGTHS: [(usize, usize); 40] = [
    (0, 0), (0, 1), (1, 0), (1, 1), (2, 3), (3, 2), (4, 5), (5, 4), (6, 7), (7, 6),
    (7, 7), (7, 8), (8, 7), (8, 8), (0, 8), (8, 0), (9, 1), (10, 15), (15, 10), (16, 16),
    (17, 31), (31, 17), (32, 33), (24, 64), (63, 64), (64, 63), (64, 64), (64, 65), (65, 64), (56, 73),
    (0, 127), (0, 128), (0, 129), (127, 0), (129, 0), (128, 128), (128, 129), (257, 1), (40, 1000), (0, 1 << 20),
];

/// `len` bytes that differ from place to place, also across words and blocks.
fn bytes(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_add(seed).wrapping_mul(0x9E37_79B1) >> 23) as u8).collect()
}

fn vectors() -> String {
    let mut keys = [GOLDEN_KEY, [0; 32], [0xff; 32]];
    keys[1][31] = 0x80;
    let mut text = String::new();
    for (number, (a, b)) in LENGTHS.into_iter().enumerate() {
        let (key, domain) = (number % keys.len(), DOMAINS[number % DOMAINS.len()]);
        let id = Hasher::new(&keys[key]).pair(domain, &bytes(a, 1), &bytes(b, 2));
        writeln!(text, "{key} {:2} {a} {b} {id:?}", domain as u8).unwrap();
    }
    text
}

/// Lines `key domain len(a) len(b) identity`; a difference means that every stored identity has changed.
#[test]
fn forty_golden_vectors_hold() {
    let golden = include_str!("data/hash_golden.txt");
    let golden: String = golden
        .lines()
        .filter(|line| !line.starts_with('#'))
        .fold(String::new(), |text, line| text + line + "\n");
    let vectors = vectors();
    assert!(vectors == golden, "{vectors}");
}

#[test]
fn self_check_holds_and_every_domain_has_its_number() {
    assert!(self_check());
    assert_eq!(GOLDEN.len(), 5);
    assert_eq!(DOMAINS.map(|domain| domain as u8), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
}

#[test]
fn a_clone_gives_the_same_and_the_size_is_as_documented() {
    let hasher = Hasher::new(&[7; 32]);
    assert_eq!(hasher.clone().pair(Domain::Metric, b"a", b"b"), hasher.pair(Domain::Metric, b"a", b"b"));
    assert_eq!(size_of::<Hasher>(), 184);
}

#[test]
fn every_bit_of_the_key_matters() {
    let all: std::collections::BTreeSet<_> = (0..256)
        .map(|bit| {
            let mut key = [0x5a; 32];
            key[bit / 8] ^= 1 << (bit % 8);
            Hasher::new(&key).pair(Domain::Metric, b"", b"")
        })
        .collect();
    assert_eq!(all.len(), 256);
}

/// The pseudo-code of the module's documentation, word for word, with another ChaCha20.
fn plain(key: &[u8; 32], domain: Domain, a: &[u8], b: &[u8]) -> u128 {
    let mut stream = ChaCha20Rng::from_seed(*key);
    // That generator's counter is 64 bits wide: its upper half and the stream are RFC 8439's nonce.
    let nonce = |range: std::ops::Range<usize>| {
        b"phoenix-id-1"[range].iter().rev().fold(0_u128, |word, byte| (word << 8) | u128::from(*byte))
    };
    stream.set_word_pos((nonce(0..4) << 32) * 16);
    stream.set_stream(nonce(4..12) as u64);
    let nh: Vec<u32> = (0..38).map(|_| stream.next_u32()).collect();
    let mut v: Vec<u64> = (0..4).map(|_| stream.next_u64()).collect();
    let mut message = Vec::new();
    for part in [a, b] {
        message.extend_from_slice(part);
        message.resize(message.len().next_multiple_of(8), 0);
    }
    let words: Vec<u32> =
        message.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    let rounds = |v: &mut Vec<u64>, count| {
        for _ in 0..count {
            v[0] = v[0].wrapping_add(v[1]);
            v[1] = v[1].rotate_left(13);
            v[1] ^= v[0];
            v[0] = v[0].rotate_left(32);
            v[2] = v[2].wrapping_add(v[3]);
            v[3] = v[3].rotate_left(16);
            v[3] ^= v[2];
            v[0] = v[0].wrapping_add(v[3]);
            v[3] = v[3].rotate_left(21);
            v[3] ^= v[0];
            v[2] = v[2].wrapping_add(v[1]);
            v[1] = v[1].rotate_left(17);
            v[1] ^= v[2];
            v[2] = v[2].rotate_left(32);
        }
    };
    v[0] = v[0].wrapping_add(a.len() as u64);
    v[1] = v[1].wrapping_add(b.len() as u64);
    v[2] = v[2].wrapping_add(domain as u64);
    for (number, block) in words.chunks(32).enumerate() {
        if number > 0 {
            rounds(&mut v, 2);
        }
        for t in 0..4 {
            for i in 0..block.len() / 2 {
                let low = u64::from(block[2 * i].wrapping_add(nh[2 * (i + t)]));
                let high = u64::from(block[2 * i + 1].wrapping_add(nh[2 * (i + t) + 1]));
                v[t] = v[t].wrapping_add(low * high);
            }
        }
    }
    rounds(&mut v, 4);
    (u128::from(v[2] ^ v[3]) << 64) | u128::from(v[0] ^ v[1])
}

/// The obvious framing and a well-studied function.
fn oracle(domain: Domain, a: &[u8], b: &[u8]) -> u128 {
    let mut sip = SipHasher24::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
    sip.write(&[domain as u8]);
    for part in [a, b] {
        sip.write(&(part.len() as u64).to_le_bytes());
        sip.write(part);
    }
    sip.finish128().as_u128()
}

/// Strings that are often equal, prefixes of each other, or full of zeros.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(0..2_u8, 0..6),
        2 => (0..200_usize).prop_map(|len| vec![0; len]),
        2 => (0..40_usize).prop_map(|len| bytes(len, 3)),
        2 => prop::collection::vec(any::<u8>(), 0..300),
        1 => (0..4_usize, 100..150_usize).prop_map(|(flip, len)| { let mut text = bytes(len, 4); text[flip * 30] ^= 128; text }),
    ]
}

fn input() -> impl Strategy<Value = (Domain, Vec<u8>, Vec<u8>)> {
    (prop::sample::select(&DOMAINS[3..5]), text(), text()).prop_map(|(domain, a, b)| (domain, a, b))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn two_inputs_are_equal_iff_the_oracle_says_so(corpus in prop::collection::vec(input(), 1..60), key: [u8; 32]) {
        let hasher = Hasher::new(&key);
        let ids: Vec<_> = corpus.iter().map(|(d, a, b)| (hasher.pair(*d, a, b), oracle(*d, a, b))).collect();
        for (i, (ours, oracle)) in ids.iter().enumerate() {
            for (other_ours, other_oracle) in &ids[..i] {
                prop_assert_eq!(ours == other_ours, oracle == other_oracle);
                prop_assert_eq!(ours.0 as u64 == other_ours.0 as u64, ours == other_ours, "low half");
            }
        }
    }

    #[test]
    fn every_input_has_the_identity_of_the_definition((domain, a, b) in input(), key: [u8; 32]) {
        prop_assert_eq!(Hasher::new(&key).pair(domain, &a, &b).0, plain(&key, domain, &a, &b));
    }

    #[test]
    fn the_order_of_parts_does_not_matter_and_one_can_be_taken_out(
        parts in prop::collection::vec(input(), 1..20), turn in 0..20_usize, key: [u8; 32],
    ) {
        let hasher = Hasher::new(&key);
        let ids: Vec<_> = parts.iter().map(|(d, a, b)| hasher.pair(*d, a, b)).collect();
        let sum = |ids: &mut dyn Iterator<Item = &Identity>| ids.fold(Identity::ZERO, |sum, id| sum.plus(*id));
        let (turn, all) = (turn % ids.len(), sum(&mut ids.iter()));
        prop_assert_eq!(sum(&mut ids[turn..].iter().chain(ids[..turn].iter().rev())), all);
        let without = ids.iter().enumerate().filter(|(at, _)| *at != turn).map(|(_, id)| id);
        prop_assert_eq!(all.minus(ids[turn]), sum(&mut without.into_iter()));
        prop_assert_eq!(Identity::from_le_bytes(all.to_le_bytes()), all);
        prop_assert_eq!((u128::from(all.high()) << 64) | u128::from(all.low()), all.0);
    }
}

/// Prints ns per pair of 10+15 bytes, for `docs/decisions/0001-identity-hash.md`; run it with `--release`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    use siphasher::sip128::SipHasher13;
    use std::hint::black_box;
    let (hasher, key, value) = (Hasher::new(&GOLDEN_KEY), [7; 10], [9; 15]);
    let measure = |name: &str, hash: &dyn Fn(&[u8], &[u8]) -> u128| {
        let best = (0..5).map(|_| {
            let start = std::time::Instant::now();
            let sum = (0..2_000_000)
                .fold(0_u128, |sum, _| sum.wrapping_add(hash(black_box(&key), black_box(&value))));
            black_box(sum);
            start.elapsed().as_secs_f64() * 500.0
        });
        println!("{name:16} {:6.1} ns/pair", best.fold(f64::MAX, f64::min));
    };
    let framed = |a: &[u8], b: &[u8]| {
        let mut frame = [0; 64];
        frame[0] = 5;
        frame[1..5].copy_from_slice(&(a.len() as u32).to_le_bytes());
        frame[5..5 + a.len()].copy_from_slice(a);
        frame[5 + a.len()..5 + a.len() + b.len()].copy_from_slice(b);
        (frame, 5 + a.len() + b.len())
    };
    measure("ours", &|a, b| hasher.pair(Domain::Attribute, a, b).0);
    measure("SipHash-1-3-128", &|a, b| {
        let (mut sip, (frame, len)) = (SipHasher13::new_with_keys(1, 2), framed(a, b));
        sip.write(&frame[..len]);
        sip.finish128().as_u128()
    });
    measure("SipHash-2-4-128", &|a, b| {
        let (mut sip, (frame, len)) = (SipHasher24::new_with_keys(1, 2), framed(a, b));
        sip.write(&frame[..len]);
        sip.finish128().as_u128()
    });
}
