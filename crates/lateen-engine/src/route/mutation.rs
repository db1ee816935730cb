//! Header mutations of routes: add, overwrite, remove, with `%OPERATORS%` in the values.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction};
use http::{HeaderName, HeaderValue};

use super::format::{Format, Operator};
use crate::config::error::At;
use crate::message::Headers;

/// Mutations in the order in which they are applied.
#[derive(Clone, Debug, Default)]
pub struct Mutations {
    remove: Vec<HeaderName>,
    add: Vec<Addition>,
}

#[derive(Clone, Debug)]
struct Addition {
    name: Name,
    value: Value,
    action: HeaderAppendAction,
    keep_empty: bool,
}

#[derive(Clone, Debug)]
enum Name {
    Header(HeaderName),
    /// `:authority` or `host`: rewrites the request's host.
    Authority,
}

#[derive(Clone, Debug)]
enum Value {
    Fixed(HeaderValue),
    Format(Format),
}

impl Mutations {
    pub(crate) fn from_xds(add: &[HeaderValueOption], remove: &[String], at: &At) -> Self {
        let mut mutations = Self::default();
        for name in remove {
            match HeaderName::try_from(name.as_str()) {
                Ok(name) if name != http::header::HOST => mutations.remove.push(name),
                _ => at.field("headers_to_remove").error(format!("`{name}` cannot be removed")),
            }
        }
        for option in add {
            mutations.add.extend(Addition::from_xds(option, &at.field("headers_to_add")));
        }
        mutations
    }

    /// One after the other.
    pub(crate) fn chain(parts: [&Self; 3]) -> Self {
        let mut whole = Self::default();
        for part in parts {
            whole.remove.extend(part.remove.iter().cloned());
            whole.add.extend(part.add.iter().cloned());
        }
        whole
    }

    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Applies them; `value` appends what an operator stands for. For a request, `authority` is its host.
    pub fn apply(
        &self,
        headers: &mut Headers,
        mut authority: Option<&mut Bytes>,
        mut value: impl FnMut(&Operator, &mut Vec<u8>),
    ) {
        // Values are computed before anything changes, as an operator may read what is removed.
        let mut line = Vec::new();
        let mut computed =
            self.add.iter().map(|addition| addition.value.compute(&mut line, &mut value)).collect::<Vec<_>>();
        for name in &self.remove {
            headers.remove(name);
        }
        for (addition, value) in self.add.iter().zip(computed.drain(..)) {
            let Some(value) = value.filter(|value| addition.keep_empty || !value.is_empty()) else { continue };
            match &addition.name {
                Name::Authority => {
                    if let Some(authority) = authority.as_deref_mut() {
                        *authority = Bytes::copy_from_slice(value.as_bytes());
                    }
                }
                Name::Header(name) => addition.put(headers, name, value),
            }
        }
    }
}

impl Addition {
    fn from_xds(option: &HeaderValueOption, at: &At) -> Option<Self> {
        let header = option.header.as_ref()?;
        let name = match header.key.as_str() {
            ":authority" => Name::Authority,
            key if key.eq_ignore_ascii_case("host") => Name::Authority,
            key => match HeaderName::try_from(key) {
                Ok(name) => Name::Header(name),
                Err(_) => {
                    at.error(format!("`{key}` cannot be set"));
                    return None;
                }
            },
        };
        let text = if header.value.is_empty() {
            String::from_utf8_lossy(&header.raw_value).into_owned()
        } else {
            header.value.clone()
        };
        let format = Format::parse(&text).map_err(|reason| at.field(&header.key).error(reason)).ok()?;
        let value = match format.0.as_slice() {
            [] => Value::Fixed(HeaderValue::from_static("")),
            [super::format::Piece::Text(text)] => match HeaderValue::from_str(text) {
                Ok(value) => Value::Fixed(value),
                Err(_) => {
                    at.field(&header.key).error("the value cannot stand in a header");
                    return None;
                }
            },
            _ => Value::Format(format),
        };
        let action = match option.append.as_ref().map(|append| append.value) {
            Some(false) => HeaderAppendAction::OverwriteIfExistsOrAdd,
            Some(true) => HeaderAppendAction::AppendIfExistsOrAdd,
            None => option.append_action(),
        };
        Some(Self { name, value, action, keep_empty: option.keep_empty_value })
    }

    fn put(&self, headers: &mut Headers, name: &HeaderName, value: HeaderValue) {
        match self.action {
            HeaderAppendAction::AppendIfExistsOrAdd => headers.append(name.clone(), value),
            HeaderAppendAction::AddIfAbsent => {
                if !headers.contains(name) {
                    headers.append(name.clone(), value);
                }
            }
            HeaderAppendAction::OverwriteIfExistsOrAdd => headers.set(name.clone(), value),
            HeaderAppendAction::OverwriteIfExists => {
                if headers.contains(name) {
                    headers.set(name.clone(), value);
                }
            }
        }
    }
}

impl Value {
    /// None where the result cannot stand in a header.
    fn compute(&self, line: &mut Vec<u8>, value: &mut impl FnMut(&Operator, &mut Vec<u8>)) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Format(format) => {
                line.clear();
                format.write(line, value);
                HeaderValue::from_bytes(line).ok()
            }
        }
    }
}
