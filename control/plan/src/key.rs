//! The hash key: 64 hexadecimal digits in, 32 secret bytes out.
//!
//! Tenants choose label values, so the identity of a stream is safe from made-up collisions only while the key is secret: it is
//! shown neither by `Debug` nor by errors. Refused: any other length, other characters, and the all-zero key (a placeholder).

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// What a key looks like; the text of every refusal here.
const EXPECTED: &str = "64 hexadecimal digits (32 bytes), not all zero; phoenix plan new-key makes one from the system's entropy";

/// The key of the stream identity. Changing it is a restart of every stream.
#[derive(Clone, PartialEq, Eq)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// A key from its bytes; none if they are all zero.
    pub fn from_bytes(bytes: [u8; 32]) -> Option<HashKey> {
        if bytes == [0; 32] { None } else { Some(HashKey(bytes)) }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits of either case.
    pub fn from_hex(text: &str) -> Option<HashKey> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
        HashKey::from_bytes(bytes)
    }

    /// The key as 64 lower-case hexadecimal digits. It is a secret: for plans, not for logs.
    pub fn to_hex(&self) -> String {
        let digit = |n: u8| char::from_digit(u32::from(n & 0xf), 16).unwrap_or('0');
        self.0.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
    }
}

/// The value of one hexadecimal digit.
fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(hidden)")
    }
}

impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HashKey, D::Error> {
        struct Hex;
        impl Visitor<'_> for Hex {
            type Value = HashKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<HashKey, E> {
                HashKey::from_hex(text).ok_or_else(|| E::custom(EXPECTED))
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for HashKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HashKey".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "32 secret bytes as 64 hexadecimal digits, not all zero.",
            "pattern": "^[0-9a-fA-F]{64}$",
            "not": { "const": "0".repeat(64) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_both_ways() {
        let text = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        let key = HashKey::from_hex(text).unwrap();
        assert!(key.as_bytes().iter().enumerate().all(|(i, &byte)| usize::from(byte) == i));
        assert_eq!(key.to_hex(), text);
        assert_eq!(HashKey::from_hex(&text.to_uppercase()), Some(key));
    }

    #[test]
    fn refused_and_never_shown() {
        for text in
            ["", "00", &"0".repeat(64), &"g".repeat(64), &"a".repeat(63), &"a".repeat(65), &"é".repeat(32)]
        {
            assert!(HashKey::from_hex(text).is_none(), "{text}");
        }
        assert_eq!(format!("{:?}", HashKey::from_hex(&"ab".repeat(32)).unwrap()), "HashKey(hidden)");
    }
}
