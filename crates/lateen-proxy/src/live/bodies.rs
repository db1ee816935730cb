//! The beginnings of bodies of watched requests, and what of them may be told: what fields there are, and none of what is in
//! them but where that was asked for by name.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use lateen_engine::message::Headers;

use super::redact::REDACTED;

/// Of a request and its answer.
#[derive(Debug)]
pub(crate) struct Bodies {
    /// So many bytes of each.
    pub most: usize,
    pub request: Beginning,
    pub response: Beginning,
}

/// What a body begins with.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    bytes: Vec<u8>,
    /// There is more.
    is_cut: bool,
}

impl Bodies {
    pub(super) fn new(most: usize) -> Self {
        Self { most, request: Beginning::default(), response: Beginning::default() }
    }
}

impl Beginning {
    /// Takes what comes next, as far as there is room.
    pub(crate) fn add(&mut self, data: &[u8], most: usize) {
        let room = most.saturating_sub(self.bytes.len()).min(data.len());
        self.bytes.extend_from_slice(&data[..room]);
        self.is_cut |= room < data.len();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What of it may be told, by what its headers say of it.
    pub(super) fn told(&self, headers: &Headers, most: usize, revealed: &[String]) -> Option<String> {
        let is_encoded = headers.get(&CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
        let kind = headers.get(&CONTENT_TYPE)?.to_str().ok()?;
        let bytes = &self.bytes[..self.bytes.len().min(most)];
        let is_cut = self.is_cut || bytes.len() < self.bytes.len();
        (!is_encoded && !bytes.is_empty()).then(|| told(kind, bytes, is_cut, revealed))?
    }
}

/// The deepest that JSON is followed.
const DEEPEST: usize = 64;

/// The longest name of a field that is told.
const LONGEST_NAME: usize = 128;

/// Names of fields, and parts of them, whose values are never told, whoever asks.
const SECRET: [&str; 7] = ["auth", "cvc", "cvv", "key", "otp", "pin", "pwd"];
const SECRET_PARTS: [&str; 13] = [
    "apikey",
    "api_key",
    "authenti",
    "authoriz",
    "bearer",
    "cookie",
    "credential",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "session",
    "token",
];

/// What the beginning of a body says, as far as it may be told; none of what is neither JSON nor a form.
fn told(kind: &str, bytes: &[u8], is_cut: bool, revealed: &[String]) -> Option<String> {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let text = String::from_utf8_lossy(bytes);
    let mut told = if kind == "application/json" || kind.ends_with("+json") {
        json(&text, revealed)
    } else if kind == "application/x-www-form-urlencoded" {
        form(&text, revealed)
    } else {
        return None;
    };
    if is_cut {
        told.push('…');
    }
    Some(told)
}

fn is_revealed(name: &str, revealed: &[String]) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_secret = SECRET.contains(&lower.as_str()) || SECRET_PARTS.iter().any(|part| lower.contains(part));
    revealed.contains(&lower) && !is_secret
}

fn form(text: &str, revealed: &[String]) -> String {
    let one = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.len() > LONGEST_NAME => REDACTED.to_owned(),
        Some((name, value)) if is_revealed(name, revealed) => format!("{name}={value}"),
        Some((name, _)) => format!("{name}={REDACTED}"),
        None => REDACTED.to_owned(),
    };
    text.split('&').map(one).collect::<Vec<_>>().join("&")
}

/// What one is in.
enum Within {
    /// With the name of the field whose value comes next; none where a name comes next.
    Object(Option<String>),
    Array,
}

/// The text may end anywhere, and need not be JSON: all that is copied is marks, names, and values that may be told.
fn json(text: &str, revealed: &[String]) -> String {
    let (mut out, mut within, mut rest) = (String::new(), Vec::<Within>::new(), text);
    while let Some(letter) = rest.chars().next() {
        let length = match letter {
            '{' | '[' => {
                if within.len() >= DEEPEST {
                    out.push('…');
                    return out;
                }
                within.push(if letter == '{' { Within::Object(None) } else { Within::Array });
                1
            }
            '}' | ']' => {
                within.pop();
                1
            }
            ',' => {
                if let Some(Within::Object(name)) = within.last_mut() {
                    *name = None;
                }
                1
            }
            ':' => 1,
            '"' => {
                let (string, length) = string(rest);
                match within.last_mut() {
                    Some(Within::Object(name @ None)) => {
                        let is_told = string.len() <= LONGEST_NAME;
                        out.push_str(if is_told { &rest[..length] } else { "\"…\"" });
                        *name = Some(string.to_owned());
                    }
                    _ => value(&mut out, &rest[..length], &within, revealed),
                }
                rest = &rest[length..];
                continue;
            }
            letter if letter.is_ascii_whitespace() => 1,
            _ => {
                let end = rest.find([',', '}', ']', '"', ':', '{', '[']).unwrap_or(rest.len());
                let word = rest[..end].trim_end();
                // A word at the very end may be the beginning of another.
                if word == "null" {
                    out.push_str(word)
                } else {
                    value(&mut out, word, &within, revealed)
                }
                rest = &rest[word.len().max(1)..];
                continue;
            }
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// What is between the quotes that a text begins with, and how long it is with them.
fn string(text: &str) -> (&str, usize) {
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (&text[1..at], at + 1),
            '\\' => drop(letters.next()),
            _ => {}
        }
    }
    (&text[1..], text.len())
}

fn value(out: &mut String, text: &str, within: &[Within], revealed: &[String]) {
    let name = within.iter().rev().find_map(|it| match it {
        Within::Object(name) => Some(name.as_deref()),
        Within::Array => None,
    });
    if name.flatten().is_some_and(|name| is_revealed(name, revealed)) {
        out.push_str(text);
    } else {
        out.push('"');
        out.push_str(REDACTED);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, text: &str, revealed: &[&str]) -> Option<String> {
        let revealed: Vec<String> = revealed.iter().map(|name| name.to_ascii_lowercase()).collect();
        told(kind, text.as_bytes(), false, &revealed)
    }

    #[test]
    fn json_has_its_shape_and_what_was_asked_for() {
        let text = r#"{"user": "a\"b", "age": 7, "tags": ["x", 1, null], "deep": {"password": "p", "city": "q"}}"#;
        let plain = of("application/json; charset=utf-8", text, &[]).expect("it is JSON");
        assert_eq!(
            plain,
            r#"{"user": "[redacted]", "age": "[redacted]", "tags": ["[redacted]", "[redacted]", null], "deep": {"password": "[redacted]", "city": "[redacted]"}}"#
        );
        let asked = of("application/problem+json", text, &["Age", "tags", "password", "city"]).expect("it is JSON");
        assert_eq!(
            asked,
            r#"{"user": "[redacted]", "age": 7, "tags": ["x", 1, null], "deep": {"password": "[redacted]", "city": "q"}}"#
        );
    }

    #[test]
    fn nothing_that_is_cut_or_malformed_tells_a_value() {
        let text = r#"{"user": "secret value", "n": 123456, "list": ["secret", {"a": "secret"}], "last": "secret"}"#;
        for end in 0..=text.len() {
            let told = told("application/json", &text.as_bytes()[..end], true, &[]).expect("it is JSON");
            assert!(!told.contains("secr") && !told.contains("12"), "{end}: {told}");
        }
        for text in [
            "secret",
            "\"secret\"",
            "[secret",
            "{secret: secret}",
            "}}secret",
            "{\"a\" \"secret\"",
            "{\"a\":: \"secret\"}",
        ] {
            let told = of("application/json", text, &[]).expect("it is taken for JSON");
            assert!(!told.contains("secret"), "{text}: {told}");
        }
        let deep = "[".repeat(1000);
        assert!(of("application/json", &deep, &[]).is_some_and(|told| told.len() < 100));
    }

    #[test]
    fn forms_have_names_and_other_kinds_are_not_told() {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(
            of(form, "user=me&token=x&city=y", &["city", "token"]).as_deref(),
            Some("user=[redacted]&token=[redacted]&city=y")
        );
        assert_eq!(of("text/plain", "secret", &["secret"]), None);
        assert_eq!(of("", "{}", &[]), None);
    }
}
