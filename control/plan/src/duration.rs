//! Durations: a string such as `"15s"` in, whole milliseconds out, and back to the shortest such string.
//!
//! One number and one unit (`ms`, `s`, `m`, `h`), so that a duration has one reading. Refused: fractions, signs, spaces, several
//! units in one string, bare numbers, and what does not fit 64 bits.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// The units from the largest to the smallest, each with its length in milliseconds.
const UNITS_MS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// What a duration looks like; the text of every refusal here.
const EXPECTED: &str = "a duration: a whole number and one of ms, s, m, h, such as \"15s\"";

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationMs(pub u64);

impl DurationMs {
    /// `n` seconds. Saturates.
    pub const fn from_secs(n: u64) -> DurationMs {
        DurationMs(n.saturating_mul(1_000))
    }

    /// The span in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The span in nanoseconds, the unit of OTLP's timestamps. Saturates; every bounded duration of a plan fits.
    pub const fn as_nanos(self) -> u64 {
        self.0.saturating_mul(1_000_000)
    }

    /// Reads `"15s"`; none if the text is no duration or does not fit.
    pub fn from_text(text: &str) -> Option<DurationMs> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits)?;
        let (_, unit_ms) = UNITS_MS.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*unit_ms).map(DurationMs)
    }
}

impl fmt::Display for DurationMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        for (unit, unit_ms) in UNITS_MS {
            if let (Some(0), Some(number)) = (self.0.checked_rem(unit_ms), self.0.checked_div(unit_ms)) {
                return write!(f, "{number}{unit}");
            }
        }
        Ok(())
    }
}

impl Serialize for DurationMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DurationMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DurationMs, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = DurationMs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DurationMs, E> {
                DurationMs::from_text(text).ok_or_else(|| E::custom(EXPECTED))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for DurationMs {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A whole number and one unit: ms, s, m or h.",
            "pattern": "^[0-9]+(ms|s|m|h)$",
            "examples": ["15s", "500ms"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reading_and_the_shortest_writing() {
        for (text, ms, shortest) in [
            ("0s", 0, "0s"),
            ("0h", 0, "0s"),
            ("500ms", 500, "500ms"),
            ("1000ms", 1_000, "1s"),
            ("15s", 15_000, "15s"),
            ("60s", 60_000, "1m"),
            ("90s", 90_000, "90s"),
            ("60m", 3_600_000, "1h"),
            ("24h", 86_400_000, "24h"),
            ("007s", 7_000, "7s"),
            ("18446744073709551615ms", u64::MAX, "18446744073709551615ms"),
        ] {
            let read = DurationMs::from_text(text);
            assert_eq!(read, Some(DurationMs(ms)), "{text}");
            assert_eq!(DurationMs(ms).to_string(), shortest, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration() {
        for text in [
            "",
            "s",
            "15",
            "-1s",
            "+1s",
            "1.5s",
            " 1s",
            "1s ",
            "1 s",
            "1m30s",
            "1S",
            "1d",
            "1us",
            "٣s",
            "18446744073709551616ms",
            "5124095576030432h",
        ] {
            assert_eq!(DurationMs::from_text(text), None, "{text:?}");
        }
    }
}
