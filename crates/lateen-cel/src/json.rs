//! Values from and to JSON, by the strict rules: no name twice in an object, no number that a double cannot hold, and a depth
//! that is bounded. Two programs that read the same text must not see two things in it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::Value;

/// Reads an object.
///
/// # Errors
/// The text is no JSON, no object, or breaks a rule above.
pub fn object(text: &[u8]) -> Result<BTreeMap<String, Value>, serde_json::Error> {
    match serde_json::from_slice(text)? {
        Value::Struct(fields) => Ok(fields),
        _ => Err(serde_json::Error::custom("must be an object")),
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers are doubles")]
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers are doubles")]
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, value)) = fields.next_entry::<String, Value>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("`{name}` is there twice")));
            }
            map.insert(name, value);
        }
        Ok(Value::Struct(map))
    }
}

/// As JSON; numbers as Envoy writes them.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) if number.is_finite() => f.write_str(&shortest(*number)),
            // JSON has no number for these; protobuf writes their names.
            Self::Number(number) => write!(f, "\"{number}\""),
            Self::String(text) => string(text, f),
            Self::List(values) => {
                f.write_char('[')?;
                for (number, value) in values.iter().enumerate() {
                    if number > 0 {
                        f.write_char(',')?;
                    }
                    value.fmt(f)?;
                }
                f.write_char(']')
            }
            Self::Struct(fields) => {
                f.write_char('{')?;
                for (number, (name, value)) in fields.iter().enumerate() {
                    if number > 0 {
                        f.write_char(',')?;
                    }
                    string(name, f)?;
                    f.write_char(':')?;
                    value.fmt(f)?;
                }
                f.write_char('}')
            }
        }
    }
}

/// The shorter of `1700000000000` and `1.7e+12` (C++'s `std::to_chars`).
fn shortest(number: f64) -> String {
    let plain = number.to_string();
    let short = format!("{number:e}");
    let (digits, exponent) = short.split_once('e').unwrap_or((&short, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    let scientific = format!("{digits}e{sign}{exponent:0>2}");
    if scientific.len() < plain.len() { scientific } else { plain }
}

fn string(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_comes_back_as_it_was_written() {
        let text = r#"{"a":[1,2.5,-3,"x\ny",null,true],"b":{"c":1795833972}}"#;
        let read = object(text.as_bytes()).expect("it is JSON");
        assert_eq!(Value::Struct(read).to_string(), text);
    }

    #[test]
    fn numbers_are_as_short_as_can_be() {
        for (number, text) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (2.5, "2.5"),
            (1.7e12, "1.7e+12"),
            (1.234_567e-5, "1.234567e-05"),
            (1e5, "1e+05"),
        ] {
            assert_eq!(shortest(number), text);
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let refused = ["[1]", "1", "", r#"{"a":1,"a":2}"#, r#"{"a":1e400}"#, "{'a':1}", r#"{"a":1,}"#, "{} {}", &deep];
        for text in refused {
            assert!(object(text.as_bytes()).is_err(), "{:.40}", text);
        }
    }
}
