//! Header maps as the host holds them, and their wire form at the ABI.
//!
//! Enters: names and values in any case. Leaves: an ordered multimap with lower-case names, as Envoy keeps it, and
//! the ABI's pair encoding (count, lengths, then NUL-terminated names and values; all integers u32 little-endian).
//! A list and not a tree: order and repetition are visible to the peers and must survive.
//! Refuses: a pair encoding that does not consume its bytes exactly; Envoy turns such a map into an empty one.

use std::fmt;

/// The most pairs that one encoding may hold: the limit of the reference host (`limits.h`, 1024 pairs).
const PAIRS_MAX: usize = 1024;
/// The most bytes that one encoding may take: the limit of the reference host (1 MiB).
const PAIRS_BYTES_MAX: usize = 1024 * 1024;

/// An ordered multimap of header names (lower case) and values (bytes).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first value of `name`, as text; `None` when absent or not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_bytes(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The first value of `name`.
    pub fn get_bytes(&self, name: &str) -> Option<&[u8]> {
        let name = name.to_ascii_lowercase();
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_slice())
    }

    /// Adds one more value of `name` at the end.
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.0.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
    }

    /// Leaves exactly one value of `name`, in the place of the first.
    pub fn replace(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let name = name.to_ascii_lowercase();
        match self.0.iter().position(|(key, _)| *key == name) {
            None => self.0.push((name, value.as_ref().to_vec())),
            Some(first) => {
                self.0[first].1 = value.as_ref().to_vec();
                let mut index = 0;
                self.0.retain(|(key, _)| {
                    index += 1;
                    index - 1 <= first || *key != name
                });
            }
        }
    }

    /// Removes every value of `name`.
    pub fn remove(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        self.0.retain(|(key, _)| *key != name);
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// How many pairs there are: the `num_headers` of the callbacks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and values (the ABI's `get_header_map_size`).
    pub fn byte_size(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// The ABI's encoding of the pairs.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = (self.0.len() as u32).to_le_bytes().to_vec();
        for (key, value) in &self.0 {
            out.extend((key.len() as u32).to_le_bytes());
            out.extend((value.len() as u32).to_le_bytes());
        }
        for (key, value) in &self.0 {
            out.extend(key.as_bytes());
            out.push(0);
            out.extend(value);
            out.push(0);
        }
        out
    }

    /// The pairs of an ABI encoding; an encoding that is not exact gives an empty map, as in Envoy.
    pub fn decode(bytes: &[u8]) -> Self {
        Self::decode_exact(bytes).unwrap_or_default()
    }

    fn decode_exact(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > PAIRS_BYTES_MAX {
            return None;
        }
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
        let count = word(0).filter(|count| *count <= PAIRS_MAX)?;
        let mut at = 4 + count * 8;
        let mut text = |length: usize| {
            let part = bytes.get(at..at.checked_add(length)?)?;
            at += length;
            let nul = bytes.get(at)?;
            at += 1;
            (*nul == 0).then_some(part)
        };
        let mut pairs = Vec::with_capacity(count);
        for index in 0..count {
            let key = text(word(4 + index * 8)?)?;
            let value = text(word(8 + index * 8)?)?;
            pairs.push((String::from_utf8_lossy(key).to_ascii_lowercase(), value.to_vec()));
        }
        (at == bytes.len()).then_some(Self(pairs))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list()
            .entries(self.0.iter().map(|(key, value)| (key, String::from_utf8_lossy(value))))
            .finish()
    }
}

impl<K: AsRef<str>, V: AsRef<[u8]>, const N: usize> From<[(K, V); N]> for Headers {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: AsRef<str>, V: AsRef<[u8]>> FromIterator<(K, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut headers = Self::new();
        for (key, value) in pairs {
            headers.add(key.as_ref(), value);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::Headers;

    #[test]
    fn encoding_round_trips_and_is_exact() {
        let headers = Headers::from([("Content-Type", "a"), (":path", ""), ("x", "1"), ("x", "2")]);
        let bytes = headers.encode();
        assert_eq!(Headers::decode(&bytes), headers);
        for length in 0..bytes.len() {
            assert!(Headers::decode(&bytes[..length]).is_empty(), "cut at {length}");
        }
        let mut long = bytes;
        long.push(0);
        assert!(Headers::decode(&long).is_empty());
    }

    #[test]
    fn replace_keeps_the_place_and_drops_repetitions() {
        let mut headers = Headers::from([("a", "1"), ("b", "2"), ("a", "3")]);
        headers.replace("A", "4");
        assert_eq!(headers, Headers::from([("a", "4"), ("b", "2")]));
        headers.remove("a");
        assert_eq!(headers.get("a"), None);
    }
}
