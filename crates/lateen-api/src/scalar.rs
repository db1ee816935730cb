//! Small value types with a text form of their own: durations, string matches, percentages, ports, quantities.

use std::fmt;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time as Istio's YAML writes it: Go's syntax (`5s`, `1.5h`, `1h30m`, `100ms`), never negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub StdDuration);

impl Duration {
    /// So many whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(StdDuration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(StdDuration::from_millis(millis))
    }

    /// The standard library's form.
    pub const fn get(self) -> StdDuration {
        self.0
    }
}

impl From<Duration> for StdDuration {
    fn from(value: Duration) -> Self {
        value.0
    }
}

/// The longest time protobuf's `Duration` can say, in seconds (10,000 years).
const LONGEST_SECONDS: u128 = 315_576_000_000;

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a duration; write a number and a unit, such as 5s, 100ms or 1h30m");
        if text.starts_with('-') {
            return Err(format!("`{text}` is negative; a duration must be 0 or more"));
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self::default());
        }
        let mut nanos: u128 = 0;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let (part, after) = duration_part(rest).ok_or_else(wrong)?;
            nanos = nanos.checked_add(part).ok_or_else(wrong)?;
            rest = after;
        }
        let seconds = nanos / 1_000_000_000;
        if seconds > LONGEST_SECONDS {
            return Err(format!("`{text}` is too long; a duration may be at most {LONGEST_SECONDS}s"));
        }
        let seconds = u64::try_from(seconds).map_err(|_| wrong())?;
        let subsecond = u32::try_from(nanos % 1_000_000_000).map_err(|_| wrong())?;
        Ok(Self(StdDuration::new(seconds, subsecond)))
    }
}

/// Reads `1.5h` off the front: its nanoseconds and what follows.
fn duration_part(text: &str) -> Option<(u128, &str)> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(number_end);
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let unit_nanos: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut nanos = match whole {
        "" => 0,
        whole => whole.parse::<u128>().ok()?.checked_mul(unit_nanos)?,
    };
    let mut scale = unit_nanos;
    for digit in fraction.chars() {
        scale /= 10;
        nanos = nanos.checked_add(u128::from(digit.to_digit(10)?) * scale)?;
    }
    Some((nanos, rest))
}

impl fmt::Display for Duration {
    /// Protobuf's JSON form: seconds, with as many decimals as needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.subsec_nanos();
        if nanos == 0 {
            return write!(f, "{}s", self.0.as_secs());
        }
        let fraction = format!("{nanos:09}");
        write!(f, "{}.{}s", self.0.as_secs(), fraction.trim_end_matches('0'))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Duration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 5s")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Istio's `StringMatch`: exactly one of three.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StringMatch {
    Exact(String),
    Prefix(String),
    /// RE2 syntax; the whole value must match.
    Regex(String),
}

impl StringMatch {
    /// The text to compare with, whatever the way.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Regex(text) => text,
        }
    }
}

/// A string match, or `{}` for "present" (headers and query parameters).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StringMatchFields", into = "StringMatchFields")]
pub struct HeaderMatch(pub Option<StringMatch>);

impl HeaderMatch {
    /// True if only presence is asked for: `{}`, or the regex `*`, which is no pattern but Istio's word for presence.
    pub fn is_presence(&self) -> bool {
        match &self.0 {
            None => true,
            Some(StringMatch::Regex(regex)) => regex == "*",
            Some(StringMatch::Exact(_) | StringMatch::Prefix(_)) => false,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StringMatchFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    exact: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
}

impl TryFrom<StringMatchFields> for HeaderMatch {
    type Error = &'static str;

    fn try_from(fields: StringMatchFields) -> Result<Self, Self::Error> {
        match (fields.exact, fields.prefix, fields.regex) {
            (None, None, None) => Ok(Self(None)),
            (Some(exact), None, None) => Ok(Self(Some(StringMatch::Exact(exact)))),
            (None, Some(prefix), None) => Ok(Self(Some(StringMatch::Prefix(prefix)))),
            (None, None, Some(regex)) => Ok(Self(Some(StringMatch::Regex(regex)))),
            _ => Err("only one of exact, prefix and regex may be set"),
        }
    }
}

impl From<HeaderMatch> for StringMatchFields {
    fn from(value: HeaderMatch) -> Self {
        let mut fields = Self::default();
        match value.0 {
            Some(StringMatch::Exact(exact)) => fields.exact = Some(exact),
            Some(StringMatch::Prefix(prefix)) => fields.prefix = Some(prefix),
            Some(StringMatch::Regex(regex)) => fields.regex = Some(regex),
            None => {}
        }
        fields
    }
}

/// Istio's `Percent`: `{value: 12.5}`. An absent value is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Percent {
    /// 0 to 100.
    pub value: f64,
}

impl Percent {
    /// In parts per million, as Envoy counts.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1,000,000")]
    pub fn per_million(self) -> u32 {
        (self.value * 10_000.0).round().clamp(0.0, 1_000_000.0) as u32
    }
}

/// `{number: 9080}` of destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct PortSelector {
    pub number: u32,
}

/// A container port by number or by name (Kubernetes `IntOrString`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortRef {
    Number(u16),
    Name(String),
}

impl Serialize for PortRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u16(*number),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for PortRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrName;
        impl Visitor<'_> for NumberOrName {
            type Value = PortRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number from 0 to 65535 or a port name")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortRef, E> {
                u16::try_from(number)
                    .map(PortRef::Number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortRef, E> {
                u16::try_from(number)
                    .map(PortRef::Number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<PortRef, E> {
                Ok(PortRef::Name(name.to_owned()))
            }
        }
        deserializer.deserialize_any(NumberOrName)
    }
}

/// A Kubernetes resource quantity (`100m`, `1Gi`, `2`), kept as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 100m, 128Mi or 2")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity(text.to_owned()))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

/// For fields whose zero says the same as their absence.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        let cases = [
            ("5s", 5_000_000_000),
            ("0.25s", 250_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("100ms", 100_000_000),
            ("7us", 7_000),
            ("0", 0),
            ("0s", 0),
            (".5s", 500_000_000),
            ("+1s", 1_000_000_000),
            ("1.0000000019s", 1_000_000_001),
        ];
        for (text, nanos) in cases {
            assert_eq!(text.parse::<Duration>().map(|duration| duration.0.as_nanos()), Ok(nanos), "{text}");
        }
        let wrong = ["", "5", "s", "5x", "-1s", "+", "1.2.3s", "5 s", "99999999999999999h", "٣s", "1e3s"];
        for text in wrong {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
        let huge = format!("{}s", "9".repeat(60));
        assert!(huge.parse::<Duration>().is_err());
    }

    #[test]
    fn durations_are_written_as_protobuf_writes_them() {
        for (duration, text) in [
            (Duration::from_secs(5), "5s"),
            (Duration::from_millis(1500), "1.5s"),
            (Duration::from_millis(1), "0.001s"),
            (Duration::default(), "0s"),
        ] {
            assert_eq!(duration.to_string(), text);
            assert_eq!(text.parse(), Ok(duration));
        }
    }

    #[test]
    fn percentages_keep_four_decimals() {
        for (value, per_million) in [(0.0, 0), (0.0001, 1), (12.5, 125_000), (100.0, 1_000_000), (1e9, 1_000_000)] {
            assert_eq!(Percent { value }.per_million(), per_million, "{value}");
        }
    }
}
