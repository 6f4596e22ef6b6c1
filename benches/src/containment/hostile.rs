//! Label values that an enemy would choose.
//!
//! In: a number and a random generator. Out: attributes of streams that a careless limiter would take for one another, or for known ones: values swapped between
//! labels, borders moved, pairs that collide in XXH64, long values that differ at their end, numbers. Each number gives another stream.

use super::population::{any, text};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use rand::Rng;

/// The labels that an enemy fills.
pub const LABELS: [&str; 2] = ["user.id", "session.id"];
/// Bytes of long values: more than a block of most hashes, less than what receivers refuse.
const LONG_BYTES: usize = 1_500;

/// The attributes of hostile stream `number`.
pub fn attributes(number: u64, random: &mut impl Rng) -> Vec<KeyValue> {
    let [user, session] = LABELS;
    let pair = number / 5 / 2;
    let second = number / 5 % 2 == 1;
    match number % 5 {
        // Two values that change places: equal under a sum or XOR of what is not mixed first.
        0 => {
            let (a, b) = (format!("a{pair}"), format!("b{pair}"));
            let (a, b) = if second { (b, a) } else { (a, b) };
            vec![text(user, &a), text(session, &b)]
        }
        // The border between two values moves: equal when joined without lengths.
        1 => {
            let whole = format!("border-{pair}-end");
            let (a, b) = whole.split_at(if second { 3 } else { 6 });
            vec![text(user, a), text(session, b)]
        }
        2 => vec![any(user, Value::BytesValue(xxh64_pair(pair)[usize::from(second)].to_vec()))],
        // Long, and different only at the end.
        3 => {
            let mut long = "x".repeat(LONG_BYTES + random.random_range(0..64) * 8);
            long.push_str(&number.to_string());
            vec![text(user, &long)]
        }
        _ => vec![any(user, Value::IntValue(number.cast_signed()))],
    }
}

/// Two values of 64 bytes that collide in XXH64 for half of all seeds: a top bit flipped in the first stripe and taken back in the second
/// (`filter/tests/hash_adversarial.rs` derives it and shows that it works). Every `pair` is another one.
fn xxh64_pair(pair: u64) -> [[u8; 64]; 2] {
    let (p1, p2) = (0x9E37_79B1_85EB_CA87_u64, 0xC2B2_AE3D_27D4_EB4F_u64);
    let inverse = (0..6).fold(p2, |x, _| x.wrapping_mul(2_u64.wrapping_sub(p2.wrapping_mul(x))));
    let mut one = [b'a'; 64];
    one[48..56].copy_from_slice(&pair.to_le_bytes());
    let mut two = one;
    two[7] ^= 0x80;
    let back = (1_u64 << 30).wrapping_mul(p1).wrapping_mul(inverse);
    let mut word = [0; 8];
    word.copy_from_slice(&two[32..40]);
    two[32..40].copy_from_slice(&u64::from_le_bytes(word).wrapping_sub(back).to_le_bytes());
    [one, two]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeSet;

    #[test]
    fn every_number_is_another_stream() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut seen = BTreeSet::new();
        for number in 0..1_000 {
            assert!(seen.insert(format!("{:?}", attributes(number, &mut random))), "{number}");
        }
    }
}
