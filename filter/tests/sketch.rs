//! Sketches beside exact oracles in plain code: a set, the definition of registers and of the likelihood, a map of sums.
//!
//! `phoenix_filter::sketch::self_check` holds the golden sketches on every target; `cargo xtask test` asks it on wasm32 too.

use phoenix_filter::sketch::{
    CAPACITY_MAX, DENSE_FROM, Distinct, ENCODED_BYTES_MAX, EXAMPLE_BYTES_MAX, GOLDEN, Heavy, STANDARD_ERROR,
    SketchErrorKind, VERSION, golden, golden_hash, self_check,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn of(hashes: &[u64]) -> Distinct {
    let mut sketch = Distinct::new();
    for hash in hashes {
        sketch.insert(*hash);
    }
    sketch
}

fn encoded(sketch: &Distinct) -> Vec<u8> {
    let mut bytes = vec![7];
    sketch.encode(&mut bytes);
    assert_eq!(bytes.remove(0), 7, "encoding appends");
    bytes
}

/// Hashes as they are, and such as have many zeros above or come more than once.
fn hashes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u64>> {
    let hash = prop_oneof![
        6 => any::<u64>(),
        2 => (any::<u64>(), 0..64_u32).prop_map(|(hash, by)| hash >> by),
        1 => 0..40_u64,
        1 => Just(u64::MAX),
    ];
    prop::collection::vec(hash, len)
}

/// The values of each register, as the module documentation has them.
fn values(hashes: &[u64]) -> Vec<BTreeSet<u32>> {
    let mut registers = vec![BTreeSet::new(); 256];
    for hash in hashes {
        let zeros = (0..54).take_while(|bit| hash >> (63 - bit) & 1 == 0).count() as u32;
        registers[(hash >> 2 & 255) as usize].insert(4 * zeros + (hash & 3) as u32 + 1);
    }
    registers
}

/// The dense form from the definition.
fn plain(hashes: &[u64]) -> Vec<u8> {
    let mut bits = Vec::new();
    for mut came in values(hashes) {
        let newest = came.last().copied().unwrap_or(0);
        if newest > 0 {
            came.insert(0);
        }
        // The lowest bit first: the farthest remembered value.
        let back =
            (1..=23).rev().map(|back| newest.checked_sub(back).is_some_and(|value| came.contains(&value)));
        bits.extend(back.chain((0..8).map(|bit| newest >> bit & 1 == 1)));
    }
    let bytes = bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |sum, bit| (sum << 1) | u8::from(*bit)));
    [VERSION, 128].into_iter().chain(bytes).collect()
}

/// The estimate from the definition: the slope of the likelihood halved until it is nothing.
fn likeliest(hashes: &[u64]) -> f64 {
    let probability = |value: u32| 2f64.powi(-i32::try_from((3 + (value - 1) / 4).min(56)).unwrap());
    let (mut came, mut absent) = (Vec::new(), 0.0);
    for register in values(hashes) {
        let newest = register.last().copied().unwrap_or(0);
        for value in newest.saturating_sub(23).max(1)..=220 {
            if register.contains(&value) {
                came.push(probability(value));
            } else {
                absent += probability(value);
            }
        }
    }
    let slope = |x: f64| came.iter().map(|p| p / (x * p).exp_m1()).sum::<f64>() - absent;
    let (mut low, mut high) = (0.0, 2f64.powi(64));
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if slope(middle) > 0.0 { low = middle } else { high = middle }
    }
    low * 256.0 / (1.0 + 0.09389898 / 256.0)
}

/// Lines `hashes, sum over the bytes, bits of the estimate`; a difference means that sketches of two builds do not merge.
#[test]
fn golden_sketches_hold() {
    let mut text = String::new();
    for (hashes, ..) in GOLDEN {
        let (sum, estimate) = golden(*hashes);
        text += &format!("    ({hashes}, {sum:#018x}, {estimate:#018x}), // {}\n", f64::from_bits(estimate));
    }
    assert!(self_check(), "\n{text}");
    assert!(GOLDEN.len() > 4);
}

#[test]
fn a_sketch_takes_no_more_than_is_promised() {
    let mut sketch = Distinct::new();
    assert_eq!((sketch.heap_bytes(), sketch.is_empty(), encoded(&sketch).len()), (0, true, 2));
    for number in 0..100_000 {
        sketch.insert(golden_hash(number));
        if number == 2 {
            assert!(sketch.heap_bytes() <= 32 && encoded(&sketch).len() == 26);
        }
        if number < 1_000 {
            assert!(encoded(&sketch).len() <= ENCODED_BYTES_MAX && sketch.heap_bytes() <= 1_024);
            assert!(sketch.is_empty() || sketch != Distinct::new());
        }
    }
    assert_eq!(encoded(&sketch).len(), 994);
    assert_eq!((sketch.heap_bytes(), size_of::<Distinct>()), (1_024, 24));
    sketch.clear();
    assert!(sketch.is_empty() && sketch == Distinct::new() && sketch.heap_bytes() == 0);
}

/// 400 sketches a line: the mean error within three and a half of its own standard errors, the spread as the paper says.
#[test]
fn errors_are_those_of_the_paper() {
    for hashes in [128_u64, 500, 3_000, 20_000] {
        let runs = 400_u64;
        let errors: Vec<f64> = (0..runs)
            .map(|run| {
                let mut sketch = Distinct::new();
                for number in 0..hashes {
                    sketch.insert(golden_hash((run << 32) | number));
                }
                sketch.estimate() / hashes as f64 - 1.0
            })
            .collect();
        let mean = errors.iter().sum::<f64>() / runs as f64;
        let spread = (errors.iter().map(|error| error * error).sum::<f64>() / runs as f64).sqrt();
        assert!(mean.abs() < 3.5 * STANDARD_ERROR / (runs as f64).sqrt(), "{hashes}: mean {mean}");
        assert!(spread < STANDARD_ERROR * 1.12, "{hashes}: {spread}");
        assert!(hashes < 10_000 || spread > STANDARD_ERROR * 0.88, "{hashes}: {spread}");
    }
}

/// What no real set gives, and arithmetic must stand.
#[test]
fn full_registers_are_all_hashes_there_are() {
    let register = (220_u32 << 23) | ((1 << 23) - 1);
    let bits: Vec<u32> = (0..256 * 31).map(|bit| register >> (bit % 31) & 1).collect();
    let bytes = bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |sum, bit| (sum << 1) | *bit as u8));
    let full = Distinct::decode(&[VERSION, 128].into_iter().chain(bytes).collect::<Vec<u8>>()).unwrap();
    assert_eq!(full.estimate(), 2f64.powi(64));
}

#[test]
fn malformed_bytes_are_named() {
    use SketchErrorKind::*;
    let (sparse, dense) = (of(&[3, 5]), of(&(0..1_000).map(golden_hash).collect::<Vec<_>>()));
    let changed = |sketch: &Distinct, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = encoded(sketch);
        change(&mut bytes);
        Distinct::decode(&bytes).map_err(|error| (error.kind, error.at))
    };
    assert_eq!(changed(&sparse, &|_| ()), Ok(sparse.clone()));
    assert_eq!(changed(&sparse, &|bytes| bytes.clear()), Err((Length, 0)));
    assert_eq!(changed(&sparse, &|bytes| bytes.truncate(1)), Err((Length, 1)));
    assert_eq!(changed(&sparse, &|bytes| bytes[0] = 2), Err((Version, 0)));
    assert_eq!(changed(&sparse, &|bytes| bytes[1] = 129), Err((Form, 1)));
    assert_eq!(changed(&sparse, &|bytes| bytes[1] = 3), Err((Length, 18)));
    assert_eq!(changed(&sparse, &|bytes| bytes.push(0)), Err((Length, 19)));
    assert_eq!(changed(&sparse, &|bytes| bytes[2] = 5), Err((Order, 10)));
    assert_eq!(changed(&dense, &|bytes| bytes.truncate(993)), Err((Length, 993)));
    assert_eq!(changed(&dense, &|bytes| bytes.push(0)), Err((Length, 995)));
    assert_eq!(changed(&dense, &|bytes| bytes[2..].fill(0)), Err((Register, 2)));
    assert_eq!(changed(&dense, &|bytes| bytes[2..].fill(0xff)), Err((Register, 2)));
    // A low register: what stands for value 0 missing, and a value below it.
    assert!(
        values(&(0..1_000).map(golden_hash).collect::<Vec<_>>())[0].last().is_some_and(|newest| *newest < 23)
    );
    assert_eq!(changed(&dense, &|bytes| bytes[2] |= 1), Err((Register, 2)));
    assert_eq!(
        changed(&dense, &|bytes| (bytes[2], bytes[3], bytes[4]) = (0, 0, bytes[4] & 128)),
        Err((Register, 2))
    );
    // The newest value of the last register is the last byte, all of it.
    assert_eq!(changed(&dense, &|bytes| bytes[993] = 221), Err((Register, 990)));
    assert_eq!(changed(&dense, &|bytes| bytes[993] = 0), Err((Register, 990)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn below_128_a_sketch_is_the_set(hashes in hashes(0..200), asked in hashes(1..20)) {
        let (mut sketch, mut exact) = (Distinct::new(), BTreeSet::new());
        for hash in hashes {
            let new = exact.insert(hash);
            let changed = sketch.insert(hash);
            let asked = asked.iter().chain(&exact).copied();
            if exact.len() < DENSE_FROM {
                prop_assert_eq!(changed, new);
                prop_assert_eq!(sketch.estimate(), exact.len() as f64);
                for other in asked {
                    prop_assert_eq!(sketch.contains(other), Some(exact.contains(&other)));
                }
            } else {
                prop_assert!(new || !changed);
                prop_assert_eq!(sketch.contains(hash), None);
            }
        }
    }

    #[test]
    fn a_dense_sketch_is_its_definition(hashes in hashes(200..900)) {
        let sketch = of(&hashes);
        prop_assume!(sketch.contains(0).is_none());
        prop_assert_eq!(encoded(&sketch), plain(&hashes));
        let (ours, oracle) = (sketch.estimate(), likeliest(&hashes));
        prop_assert!((ours / oracle - 1.0).abs() < 1e-8, "{} {}", ours, oracle);
    }

    #[test]
    fn what_is_merged_is_the_union(parts in prop::collection::vec(hashes(0..260), 1..5), turn in 0..5_usize) {
        let all = of(&parts.concat());
        let sketches: Vec<Distinct> = parts.iter().map(|part| of(part)).collect();
        let merge = |sketches: &mut dyn Iterator<Item = &Distinct>| {
            sketches.fold(Distinct::new(), |mut sum, sketch| { sum.merge(sketch); sum })
        };
        let turn = turn % parts.len();
        prop_assert_eq!(&merge(&mut sketches.iter()), &all);
        prop_assert_eq!(&merge(&mut sketches[turn..].iter().chain(&sketches[..turn]).rev()), &all);
        let (mut nested, rest) = (merge(&mut sketches[..turn].iter()), merge(&mut sketches[turn..].iter()));
        nested.merge(&rest);
        prop_assert_eq!(&nested, &all);
        nested.merge(&all);
        prop_assert_eq!(encoded(&nested), encoded(&all));
        prop_assert_eq!(nested.estimate().to_bits(), all.estimate().to_bits());
        let mut backwards = parts.concat();
        backwards.reverse();
        prop_assert_eq!(of(&backwards), all);
    }

    #[test]
    fn what_is_encoded_is_decoded(hashes in hashes(0..400)) {
        let sketch = of(&hashes);
        let bytes = encoded(&sketch);
        prop_assert!(bytes.len() <= ENCODED_BYTES_MAX);
        prop_assert_eq!(Distinct::decode(&bytes), Ok(sketch));
    }

    /// Whatever is read writes the same bytes again, and can be worked with.
    #[test]
    fn other_bytes_are_refused_or_a_sketch(
        hashes in hashes(0..400), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in 0..3_usize,
    ) {
        let mut bytes = encoded(&of(&hashes));
        for (at, byte) in flips {
            *at.get_mut(&mut bytes) = byte;
        }
        bytes.truncate(bytes.len() - cut.saturating_sub(1));
        if let Ok(mut sketch) = Distinct::decode(&bytes) {
            prop_assert_eq!(encoded(&sketch), bytes);
            prop_assert!((0.0..=2f64.powi(64)).contains(&sketch.estimate()));
            sketch.merge(&of(&hashes));
            sketch.insert(1);
            prop_assert!(sketch.estimate() > 0.0);
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..1_100), dense: bool) {
        let mut bytes = bytes;
        let _ = Distinct::decode(&bytes);
        if dense {
            bytes.resize(994, 0x80);
            bytes[..2].copy_from_slice(&[VERSION, 128]);
        } else if bytes.len() >= 2 {
            let form = (bytes.len() / 8) as u8;
            bytes[..2].copy_from_slice(&[VERSION, form]);
        }
        if let Ok(sketch) = Distinct::decode(&bytes) {
            prop_assert!(sketch.estimate().is_finite());
        }
    }
}

/// Adds of keys that are few or many, with weights that are equal or not.
fn adds(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(u64, u64)>> {
    let key = prop_oneof![4 => 0..6_u64, 3 => 0..60_u64, 1 => any::<u64>()];
    let weight = prop_oneof![6 => Just(1), 3 => 0..50_u64, 1 => 0..(1_u64 << 40)];
    prop::collection::vec((key, weight), len)
}

fn heavy(capacity: usize, adds: &[(u64, u64)]) -> Heavy {
    let mut heavy = Heavy::new(capacity);
    for (key, weight) in adds {
        let example = format!("value {key}");
        heavy.add(*key, *weight, || example.as_bytes());
    }
    heavy
}

/// What must hold of an exact count of the same adds, with the smallest capacity that took part.
fn check(heavy: &Heavy, adds: &[(u64, u64)], capacity: usize) -> Result<(), TestCaseError> {
    let mut exact = BTreeMap::new();
    for (key, weight) in adds.iter().filter(|(_, weight)| *weight > 0) {
        *exact.entry(*key).or_insert(0_u64) += weight;
    }
    let total: u64 = exact.values().sum();
    let entries: Vec<_> = heavy.iter().collect();
    prop_assert_eq!((heavy.total(), heavy.len()), (total, entries.len()));
    prop_assert!(entries.len() <= heavy.capacity());
    for (key, weight, error, example) in &entries {
        let truth = exact.get(key).copied().unwrap_or(0);
        prop_assert!(weight - error <= truth && truth <= *weight, "{} {} {} {}", key, weight, error, truth);
        prop_assert!(*error <= total / capacity as u64, "{} of {} in {}", error, total, capacity);
        let named = format!("value {key}");
        prop_assert_eq!(*example, named.as_bytes());
    }
    prop_assert!(heavy.absent() <= total / capacity as u64);
    for (key, truth) in &exact {
        let there = entries.iter().any(|(other, ..)| other == key);
        prop_assert!(there || *truth <= heavy.absent(), "{} of {} is absent", truth, total);
    }
    if exact.len() <= capacity {
        prop_assert!(entries.iter().all(|(_, _, error, _)| *error == 0) && entries.len() == exact.len());
    }
    let ranks: Vec<_> = entries.iter().map(|(key, weight, ..)| (u64::MAX - weight, *key)).collect();
    prop_assert!(ranks.is_sorted_by(|a, b| a < b), "{:?}", entries);
    Ok(())
}

/// Space-Saving as its authors write it: a list, searched.
fn plain_heavy(capacity: usize, adds: &[(u64, u64)]) -> Vec<(u64, u64, u64)> {
    let mut list: Vec<(u64, u64, u64)> = Vec::new();
    for (key, weight) in adds.iter().copied().filter(|(_, weight)| *weight > 0) {
        if let Some(entry) = list.iter_mut().find(|entry| entry.0 == key) {
            entry.1 += weight;
        } else if list.len() < capacity {
            list.push((key, weight, 0));
        } else {
            let last = list.iter_mut().min_by_key(|entry| (entry.1, u64::MAX - entry.0)).unwrap();
            *last = (key, last.1 + weight, last.1);
        }
    }
    list.sort_by_key(|entry| (u64::MAX - entry.1, entry.0));
    list
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn heavy_is_space_saving(capacity in 1..20_usize, adds in adds(0..400)) {
        let heavy = heavy(capacity, &adds);
        let entries: Vec<_> = heavy.iter().map(|(key, weight, error, _)| (key, weight, error)).collect();
        prop_assert_eq!(entries, plain_heavy(capacity, &adds));
        check(&heavy, &adds, capacity)?;
    }

    /// Of parts with one capacity or several, and adds behind it.
    #[test]
    fn merged_heavy_keeps_its_bounds(
        parts in prop::collection::vec((1..12_usize, adds(0..150)), 1..5), capacity in prop::option::of(1..12_usize), later in adds(0..100),
    ) {
        let mut smallest = usize::MAX;
        let (mut sum, mut all) = (None::<Heavy>, Vec::new());
        for (own, adds) in &parts {
            let part = heavy(capacity.unwrap_or(*own), adds);
            smallest = smallest.min(part.capacity());
            all.extend_from_slice(adds);
            let before = sum.clone();
            match &mut sum {
                None => sum = Some(part.clone()),
                Some(sum) => sum.merge(&part),
            }
            let sum = sum.as_ref().unwrap();
            check(sum, &all, smallest)?;
            if let Some(before) = before.filter(|before| before.capacity() == part.capacity()) {
                let mut other = part.clone();
                other.merge(&before);
                prop_assert!(other.iter().eq(sum.iter()) && other.absent() == sum.absent());
            }
        }
        let mut sum = sum.unwrap();
        for (key, weight) in &later {
            let example = format!("value {key}");
            sum.add(*key, *weight, || example.as_bytes());
            all.push((*key, *weight));
            check(&sum, &all, smallest)?;
        }
    }

    #[test]
    fn an_example_ends_with_a_whole_character(text in "[a-zäö€😀]{0,90}", noise in prop::collection::vec(any::<u8>(), 0..100)) {
        for bytes in [text.as_bytes(), &noise] {
            let mut heavy = Heavy::new(1);
            heavy.add(1, 1, || b"somebody else's");
            heavy.add(2, 1, || bytes);
            let example = heavy.iter().next().unwrap().3.to_vec();
            prop_assert!(bytes.starts_with(&example) && example.len() <= EXAMPLE_BYTES_MAX);
            prop_assert!(example.len() == bytes.len() || example.len() > EXAMPLE_BYTES_MAX - 4);
            if let Ok(text) = std::str::from_utf8(bytes) {
                let end = (0..=EXAMPLE_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
                prop_assert_eq!(Some(example.len()), end);
            }
        }
    }
}

#[test]
fn heavy_takes_no_more_than_is_promised() {
    let mut heavy = Heavy::new(10);
    assert_eq!((heavy.heap_bytes(), heavy.is_empty(), heavy.total()), (0, true, 0));
    let example = [b'x'; 500];
    for number in 0..1_000 {
        heavy.add(golden_hash(number), 1, || &example);
    }
    let full = heavy.heap_bytes();
    assert!(full <= 10 * 200, "{full}");
    for number in 0..10_000 {
        heavy.add(golden_hash(number), number, || &example);
        heavy.merge(&Heavy::new(3));
    }
    assert_eq!((heavy.heap_bytes() <= 2 * full, heavy.len()), (true, 10));
    heavy.clear();
    assert_eq!((heavy.heap_bytes(), heavy.len(), heavy.capacity(), heavy.absent()), (0, 0, 10, 0));
    assert_eq!((Heavy::new(0).capacity(), Heavy::new(usize::MAX).capacity()), (1, CAPACITY_MAX));
}

#[test]
fn weights_stop_where_they_end_and_examples_are_asked_for_once() {
    let mut heavy = Heavy::new(2);
    heavy.add(7, u64::MAX - 1, || b"seven");
    heavy.add(7, 5, || panic!("it is there already"));
    heavy.add(8, 0, || panic!("nothing came"));
    assert_eq!(heavy.iter().collect::<Vec<_>>(), [(7, u64::MAX, 0, &b"seven"[..])]);
    let mut other = Heavy::new(2);
    other.add(7, 1, || b"7");
    let mut merged = other.clone();
    merged.merge(&heavy);
    heavy.merge(&other);
    assert!(merged.iter().eq(heavy.iter()) && heavy.iter().all(|entry| entry.3 == b"7"));
    assert_eq!((heavy.iter().next().unwrap().1, heavy.total()), (u64::MAX, u64::MAX));
}
