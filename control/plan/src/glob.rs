//! Glob patterns: `*` for any bytes (also none), `?` for exactly one byte, everything else for itself.
//!
//! Enters: a pattern and a text, both bytes. Leaves: yes or no. There is no escape and no character class: metric and label names
//! need neither, and a pattern then has one reading.
//!
//! The greedy walk remembers only the last `*`: a mismatch makes that star swallow one byte more, and an earlier star never needs
//! to be tried again, because the later one can take whatever the earlier one would have taken. So there is no recursion and no
//! exponential blow-up: at worst pattern × text steps, on a pattern bounded by `bounds::PATTERN_BYTES`, and one pass when the
//! pattern has no `*` or only one at its end. It is the wrong choice for unbounded patterns over long texts.

/// Whether `pattern` describes the whole of `text`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // p, t: how much of each is matched. retry: where the pattern goes on after the last star, and the text it may swallow next.
    let (mut p, mut t) = (0usize, 0usize);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                p = p.saturating_add(1);
                if p == pattern.len() {
                    return true;
                }
                retry = Some((p, t));
            }
            Some(&want) if want == b'?' || want == byte => {
                p = p.saturating_add(1);
                t = t.saturating_add(1);
            }
            _ => {
                let Some((after_star, swallowed)) = retry else { return false };
                p = after_star;
                t = swallowed.saturating_add(1);
                retry = Some((after_star, t));
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;
    use proptest::prelude::*;

    /// The definition, by recursion: exponential, and right.
    fn oracle(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|n| oracle(rest, &text[n..])),
            ([b'?', rest @ ..], [_, more @ ..]) => oracle(rest, more),
            ([want, rest @ ..], [byte, more @ ..]) => want == byte && oracle(rest, more),
            (_, []) => false,
        }
    }

    #[test]
    fn every_short_pattern_and_text() {
        // All patterns up to 5 bytes over {a, b, ?, *} with all texts up to 5 bytes over {a, b}.
        fn words(alphabet: &[u8], length_max: usize) -> Vec<Vec<u8>> {
            let mut all = vec![vec![]];
            let mut from = 0;
            for _ in 0..length_max {
                let to = all.len();
                for i in from..to {
                    for &byte in alphabet {
                        let mut word = all[i].clone();
                        word.push(byte);
                        all.push(word);
                    }
                }
                from = to;
            }
            all
        }
        let texts = words(b"ab", 5);
        for pattern in words(b"ab?*", 5) {
            for text in &texts {
                assert_eq!(matches(&pattern, text), oracle(&pattern, text), "{pattern:?} {text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab?*]{0,10}", text in "[abc]{0,14}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), oracle(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn agrees_on_any_bytes(pattern in prop::collection::vec(any::<u8>(), 0..8), text in prop::collection::vec(any::<u8>(), 0..8)) {
            prop_assert_eq!(matches(&pattern, &text), oracle(&pattern, &text));
        }
    }

    #[test]
    fn no_blow_up() {
        // A backtracking matcher needs about 2^100 steps for this one.
        let pattern = "*a".repeat(100) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(10_000).as_bytes()));
    }
}
