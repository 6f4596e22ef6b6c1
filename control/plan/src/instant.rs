//! Points in time: a string such as `"2026-11-24T10:00:00Z"` in (RFC 3339, UTC), whole milliseconds since the Unix epoch out, and back.
//!
//! UTC alone, so that a plan reads the same wherever it is read. Refused: other offsets, times before 1970, and what is finer than a
//! millisecond.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::time::{Duration, SystemTime};

/// What a point in time looks like; the text of every refusal here.
const EXPECTED: &str = "a time in UTC, such as \"2026-11-24T10:00:00Z\"";

/// The last instant that RFC 3339 can write, in milliseconds: the end of the year 9999.
const MAX_MS: u64 = 253_402_300_799_999;

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstantMs(pub u64);

impl InstantMs {
    /// In nanoseconds, the unit of OTLP's timestamps. Saturates beyond the year 2554.
    pub const fn as_nanos(self) -> u64 {
        self.0.saturating_mul(1_000_000)
    }

    /// Reads `"2026-11-24T10:00:00Z"`; none if the text is no such time.
    pub fn from_text(text: &str) -> Option<InstantMs> {
        let time = humantime::parse_rfc3339(text).ok()?;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let ms = u64::try_from(since.as_millis()).ok()?;
        since.subsec_nanos().is_multiple_of(1_000_000).then_some(InstantMs(ms))
    }
}

impl fmt::Display for InstantMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = Duration::from_millis(self.0.min(MAX_MS));
        match SystemTime::UNIX_EPOCH.checked_add(since) {
            Some(time) => humantime::format_rfc3339(time).fmt(f),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for InstantMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InstantMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<InstantMs, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = InstantMs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<InstantMs, E> {
                InstantMs::from_text(text).ok_or_else(|| E::custom(EXPECTED))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for InstantMs {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Instant".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A time in UTC as RFC 3339 writes it.",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,3})?Z$",
            "examples": ["2026-11-24T10:00:00Z"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reading_and_one_writing() {
        for (text, ms, written) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("2026-11-24T10:00:00Z", 1_795_514_400_000, "2026-11-24T10:00:00Z"),
            ("2026-11-24T10:00:00.5Z", 1_795_514_400_500, "2026-11-24T10:00:00.500000000Z"),
            ("9999-12-31T23:59:59.999Z", MAX_MS, "9999-12-31T23:59:59.999000000Z"),
        ] {
            let read = InstantMs::from_text(text);
            assert_eq!(read, Some(InstantMs(ms)), "{text}");
            assert_eq!(InstantMs(ms).to_string(), written, "{text}");
            assert_eq!(InstantMs::from_text(written), read, "{written}");
        }
    }

    #[test]
    fn what_is_no_such_time() {
        for text in [
            "",
            "now",
            "2026-11-24",
            "2026-11-24T10:00:00",
            "2026-11-24 10:00:00Z",
            "2026-11-24T10:00:00+01:00",
            "2026-02-30T10:00:00Z",
            "2026-11-24T25:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-24T10:00:00.0005Z",
            "1795514400",
        ] {
            assert_eq!(InstantMs::from_text(text), None, "{text:?}");
        }
    }
}
